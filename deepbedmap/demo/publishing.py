"""Publish made-up glaciers as a repository: a registry, pipelines and raw files.

The registry's URLs are ``file:`` URLs, so that the same code reads the real surveys and these.
"""

from __future__ import annotations

import json
import logging
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr
import yaml

from deepbedmap import rasters, repository
from deepbedmap.demo.ice_slab import Configuration, make_glacier
from deepbedmap.demo.surveys import CRS, RECONNAISSANCE, SURVEYS, fly, make_prior, write_carlson
from deepbedmap.errors import Fault, InvalidDataError
from deepbedmap.files.checksums import digest

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from typing import Any

    from deepbedmap.demo.ice_slab import Glacier
    from deepbedmap.demo.surveys import Survey
    from deepbedmap.places import Bounds

logger = logging.getLogger(__name__)


def write_repository(
    folder: Path, seed: int, configuration: Configuration | None = None
) -> dict[str, Glacier]:
    """Make the glaciers, survey them, and publish them as a repository of their own.

    The folder then holds ``data_list.yml``, ``highres/*.json`` and, under ``published/``, the
    files that the registry's ``file:`` URLs point to: raw surveys, and rasters of prior, surface,
    velocity and accumulation that span all glaciers. The raw files are nowhere else: they must be
    fetched.

    Parameters
    ----------
    folder
        Folder to write; created if missing. Made-up glaciers of an earlier run are replaced.
    seed
        Seed of the glaciers and of their surveys.
    configuration
        Properties of the glaciers and surveys; by default those of :class:`Configuration`.

    Returns
    -------
    dict
        The glaciers, true beds included, by the citekey of their survey.

    Raises
    ------
    InvalidDataError
        The folder holds something else.
    """
    c = configuration or Configuration()
    _make_room(folder)
    published = folder / "published"
    for path in (published, folder / "highres"):
        path.mkdir(parents=True, exist_ok=True)
    glaciers: dict[str, Glacier] = {}
    entries: list[dict[str, Any]] = []
    reconnaissance, priors = [], []
    pitch = c.extent * 1.25
    for number, survey in enumerate(SURVEYS):
        random = np.random.default_rng([seed, number, 1])
        origin = (-400_000 + pitch * (number % 3), -600_000 + pitch * (number // 3))
        glacier = make_glacier(survey.citekey, origin, [seed, number], c)
        glaciers[survey.citekey] = glacier
        sparse = fly(glacier, c.reconnaissance_spacing, 2 * c.reconnaissance_spacing, random, c)
        reconnaissance.append(sparse)
        priors.append(make_prior(sparse, glacier.bounds, c))
        picks = fly(glacier, c.line_spacing, None, random, c)
        entries.append(_write_survey(survey, picks, glacier.bounds, folder))
        logger.info("made and surveyed glacier %d of %d", number + 1, len(SURVEYS))

    path = published / "MadeUpReconnaissance.csv"
    write_carlson(pd.concat(reconnaissance), path)
    _write_pipeline(folder, RECONNAISSANCE, "bed_depth_below_WGS84_datum", path.name)
    entries.append(
        _entry(
            RECONNAISSANCE,
            "highres",
            [path],
            crs=CRS,
            bounds=_around(glaciers.values()),
            pipelines=[f"{RECONNAISSANCE}.json"],
        )
    )
    entries += _write_rasters(glaciers.values(), priors, published)
    text = "# Made-up glaciers: nothing here was observed.\n" + yaml.safe_dump(
        entries, sort_keys=False, width=100
    )
    (folder / "data_list.yml").write_text(text, encoding="utf-8")
    return glaciers


def _make_room(folder: Path) -> None:
    """Remove the made-up glaciers of an earlier run, whole or not, and nothing else."""
    mark = folder / ".made-up"
    if mark.is_file():
        shutil.rmtree(folder)
    elif folder.exists() and any(folder.iterdir()):
        raise InvalidDataError(
            Fault(
                str(folder),
                expected="an empty folder, or made-up glaciers of an earlier run",
                found="something else",
                remedy="choose another folder",
            )
        )
    folder.mkdir(parents=True, exist_ok=True)
    mark.write_text("The demo may delete this folder.\n", encoding="utf-8")


def _around(glaciers: Iterable[Glacier]) -> list[float]:
    """Return the bounds of all glaciers together, as the registry lists them."""
    edges = np.array([glacier.bounds for glacier in glaciers])
    return [*edges[:, :2].min(0).tolist(), *edges[:, 2:].max(0).tolist()]


def _write_survey(
    survey: Survey, picks: pd.DataFrame, bounds: Bounds, folder: Path
) -> dict[str, Any]:
    """Write a survey's files and its pipeline; return its registry entry."""
    published = folder / "published"
    shares = np.array_split(picks["line"].unique(), len(survey.files))
    for name, lines in zip(survey.files, shares, strict=True):
        survey.write(picks[picks["line"].isin(lines)], published / name)
    _write_pipeline(folder, survey.citekey, survey.recipe, survey.pattern)
    recipe = json.loads((folder / "highres" / survey.pipeline).read_text(encoding="utf-8"))
    projections = [stage["in_srs"] for stage in recipe["pipeline"] if "in_srs" in stage]
    entry = _entry(
        survey.citekey,
        "highres",
        [published / name for name in survey.files],
        crs=projections[0] if projections else CRS,
        bounds=[float(edge) for edge in bounds],
        pipelines=[survey.pipeline],
    )
    for file in entry["files"]:
        if file["filename"].endswith(".zip"):
            file["unpacked"] = survey.pattern
    return entry


def _write_pipeline(folder: Path, name: str, recipe: str, pattern: str) -> None:
    """Write the pipeline of a real survey for made-up files of the same layout."""
    source = repository.root() / "highres" / f"{recipe}.json"
    stages = json.loads(source.read_text(encoding="utf-8"))
    stages["pipeline"][0]["filename"] = pattern
    text = json.dumps(stages, indent=2) + "\n"
    (folder / "highres" / f"{name}.json").write_text(text, encoding="utf-8")


def _write_rasters(
    glaciers: Iterable[Glacier], priors: list[xr.DataArray], published: Path
) -> list[dict[str, Any]]:
    """Write the rasters that span all glaciers; return their registry entries."""
    made = list(glaciers)
    prior = _mosaic(priors, "bed", "ellipsoid")
    surface = _mosaic([g.fields["surface"] for g in made], "surface", "ellipsoid")
    accumulation = _mosaic([g.fields["accumulation"] for g in made], "accumulation", None)
    velocity = xr.Dataset({v: _mosaic([g.fields[v] for g in made], v, None) for v in ("vx", "vy")})
    rasters.write_geotiff(prior, published / "MadeUpPrior.tif")
    rasters.write_geotiff(surface, published / "MadeUpSurface.tif")
    rasters.write_geotiff(accumulation, published / "MadeUpAccumulation.tif")
    rasters.write_netcdf(velocity, published / "MadeUpVelocity.nc")
    return [
        _entry(
            "MadeUpPrior",
            "lowres",
            [published / "MadeUpPrior.tif"],
            bounds=_around(made),
            resolution=1000,
            built_from={"surveys": [RECONNAISSANCE]},
        ),
        _entry(
            "MadeUpSurface",
            "misc",
            [published / "MadeUpSurface.tif"],
            bounds=_around(made),
            resolution=100,
        ),
        _entry(
            "MadeUpVelocity",
            "misc",
            [published / "MadeUpVelocity.nc"],
            bounds=_around(made),
            resolution=500,
            units="m/yr",
            vertical_datum=None,
        ),
        _entry(
            "MadeUpAccumulation",
            "misc",
            [published / "MadeUpAccumulation.tif"],
            bounds=_around(made),
            resolution=1000,
            units="kg m-2 a-1",
            vertical_datum=None,
        ),
    ]


def _mosaic(fields: list[xr.DataArray], name: str, datum: str | None) -> xr.DataArray:
    """Join the fields of all glaciers into one raster, north up, NaN between the glaciers."""
    merged = xr.combine_by_coords([field.rename(name) for field in fields], join="outer")
    array = merged[name] if isinstance(merged, xr.Dataset) else merged
    spacing = float(fields[0].x[1] - fields[0].x[0])
    array = array.reindex(
        x=np.arange(float(array.x.min()), float(array.x.max()) + spacing / 2, spacing),
        y=np.arange(float(array.y.max()), float(array.y.min()) - spacing / 2, -spacing),
        method="nearest",
        tolerance=spacing / 4,
    ).astype("float32")
    array.attrs = {"units": fields[0].attrs["units"]}
    if datum:
        array.attrs["vertical_datum"] = datum
    placed: xr.DataArray = array.rio.write_crs(CRS)
    return placed


def _entry(citekey: str, folder: str, files: list[Path], **fields: Any) -> dict[str, Any]:
    """Return the registry entry of published files, with their checksums."""
    return {
        "citekey": citekey,
        "title": f"{citekey}: made up, not observed",
        "folder": folder,
        "location": "nowhere",
        "crs": CRS,
        "vertical_datum": "ellipsoid",
        "units": "m",
        **fields,
        "files": [
            {
                "filename": path.name,
                "url": path.resolve().as_uri(),
                "sha256": digest(path).sha256,
            }
            for path in files
        ],
    }
