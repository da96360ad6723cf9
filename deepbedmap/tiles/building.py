"""Build a training set: cut the tiles of several surveys, and write them with their provenance.

The store records how the tiles were split, which areas were excluded, and the files they
come from. The footprints of the tiles are written next to it, in the CRS of the data and in
degrees.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import zarr

from deepbedmap import __version__, rasters
from deepbedmap.cluster import mapped
from deepbedmap.errors import Fault, InvalidDataError, WrongCallError
from deepbedmap.files.checksums import sha256_of
from deepbedmap.files.resumable import Parts
from deepbedmap.places import BUFFER, EDGES, TEST_AREAS
from deepbedmap.provenance import describe_file, describe_source
from deepbedmap.rasters.writing import ZARR_FORMAT
from deepbedmap.tiles.cutting import cut_tiles
from deepbedmap.tiles.inputs import INPUTS, RESOLUTION, cut_inputs
from deepbedmap.tiles.splitting import write_footprints
from deepbedmap.tiles.storage import (
    BANDS,
    LONG_NAMES,
    finish_store,
    write_template,
)
from deepbedmap.tiles.survey_windows import (
    find,
    no_windows_fault,
    open_grids,
    outlines_of,
    require_like_grid,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping
    from typing import Literal

    import geopandas as gpd
    import xarray as xr
    from distributed import Client

    from deepbedmap.tiles.inputs import Inputs
    from deepbedmap.tiles.survey_windows import Grid, GroundingLine

logger = logging.getLogger(__name__)

BATCH = 512
"""Tiles cut at once, a whole number of chunks: some 35 MB, cut in seconds."""

Cut = dict[str, npt.NDArray[Any]]


def build(
    grids: Mapping[str, Grid],
    inputs: Inputs,
    path: str | os.PathLike[str],
    *,
    size: int = 36,
    step: int = 3,
    coverage: float = 1.0,
    exclude: str | Iterable[str] = tuple(TEST_AREAS),
    exclude_buffer: float = BUFFER,
    grounding_line: GroundingLine = None,
    grounding_buffer: float = 0,
    by: Literal["block", "survey"] = "block",
    block: float = 40_000,
    validation: float | list[str] = 0.2,
    buffer: float = BUFFER,
    seed: int = 0,
    client: Client | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Cut a training set from the grids of surveys, and write it.

    A run that was killed goes on when it is started again with the same data and parameters.

    Parameters
    ----------
    grids
        The gridded bed of each survey by the survey's name: ``(y, x)`` in metres with cells of
        250 m, NaN where nothing was measured, or the file of it.
    inputs
        Prior, surface, velocity and accumulation around all tiles, in the CRS of the grids;
        heights on the vertical datum of the grids.
    path
        Of the Zarr store, ``<name>.zarr``; what is there is replaced. ``<name>_3031.geojson`` (the
        EPSG code of the data) and ``<name>_4326.geojson`` are written beside it.
    size, step, coverage
        As in :func:`deepbedmap.tiles.find_windows`; size is a multiple of 4 cells.
    exclude, exclude_buffer
        Test areas, and metres around them, in which no tile may lie: see
        :func:`deepbedmap.tiles.exclude`. By default all; ``()`` for none.
    grounding_line, grounding_buffer
        ``"gshhg"``, or polygons of the grounded ice or the file of them: keep tiles on grounded ice
        alone, at least so many metres from its edge, as :func:`deepbedmap.tiles.grounded` does.
        None: floating ice and sea too.
    by, block, validation, buffer, seed
        How tiles of all surveys together are split into training and validation: see
        :func:`deepbedmap.tiles.split`. Tiles too near to both are left out.
    client
        Of ``dask.distributed``: its workers cut the tiles, and must see the files of the rasters
        under the same paths.
    progress
        Told how many tiles of how many are cut.

    Returns
    -------
    pathlib.Path
        The store, which appears complete or not at all; :func:`open_training_set` opens it.

    Raises
    ------
    InvalidDataError
        Grids and inputs differ in CRS or vertical datum; a grid has another cell; a raster another
        number of bands; no window is left, or none to train on, or none to validate with.
    MissingDataError
        A file is not there.
    ValueError
        The size is no multiple of 4, the path ends in something else, or another parameter is out
        of its range.

    Notes
    -----
    Windows around which a raster does not reach far enough (1 km beyond the tile) are left out, and
    so are tiles in which the prior, or the surface with its filler, has a gap. Where velocity or
    accumulation has one, the tile stays, the gap is NaN, and the coordinate ``complete`` is False.
    A vertical datum that nothing states is written down as "unknown", with a warning. Checksums of
    the files go into the provenance, so that each file is read once as a whole.
    """
    path = Path(path)
    if path.suffix != ".zarr":
        raise WrongCallError(f"{path}: the name of a training set ends in .zarr")
    if size < 4 or size % 4:
        raise WrongCallError(f"size must be a multiple of 4 cells, not {size}")
    if by not in ("block", "survey"):
        raise WrongCallError(f'by must be "block" or "survey", not {by!r}')
    beds = open_grids(grids)
    datum = _require_consistent(beds, inputs)
    areas = [exclude] if isinstance(exclude, str) else list(exclude)
    cells: dict[str, Any] = {"size": size, "step": step, "coverage": coverage}
    rule: dict[str, Any] = {"by": by, "validation": validation, "buffer": buffer, "seed": seed}
    rule |= {"block": block} if by == "block" else {}
    windows = find(
        beds,
        inputs,
        exclude=areas,
        exclude_buffer=exclude_buffer,
        grounding_line=grounding_line,
        grounding_buffer=grounding_buffer,
        **cells,
        **rule,
    )
    windows = windows[windows["split"] != "dropped"]
    # Neighbours come together, so that those of a batch share what is read.
    windows = windows.iloc[np.argsort(windows.hilbert_distance(), kind="stable")]

    crs = windows.crs
    sources = _sources(beds, inputs)
    grounded = None
    if grounding_line is not None:
        outlines, named = outlines_of(grounding_line), "polygons"
        if outlines is None:
            named = "GSHHG"
        elif isinstance(outlines, Path):
            named = outlines.name
            sources.append(describe_file(outlines, "grounding line"))
        grounded = {"outlines": named, "buffer": grounding_buffer}
    provenance = {
        "sources": sources,
        "windows": cells,
        "excluded": {
            "areas": {name: TEST_AREAS[name] for name in areas},
            "buffer": exclude_buffer,
        },
        "grounded": grounded,
        "split": rule,
        "version": __version__,
    }
    attributes = {
        "Conventions": "CF-1.11",
        "title": "Tiles to train a model of the bed on",
        "crs": crs.to_string(),
        "vertical_datum": datum,
        "provenance": json.dumps(provenance),
    }
    identity = {
        "attributes": attributes,
        "rasters": [_digest(raster) for raster in (*beds.values(), *_rasters(inputs))],
        "windows": sha256_of(windows[[*EDGES, "survey", "split"]].to_csv().encode()),
        "batch": BATCH,
    }
    with Parts(path, identity) as parts:
        store = parts.folder / path.name
        if not parts.is_done("template"):
            write_template(store, len(windows), size, crs, datum, inputs)
            parts.done("template")
        kept, complete = _cut_all(windows, beds, inputs, store, parts, client, progress)
        chosen = windows.assign(complete=complete)[kept]
        logger.info("%d of %d tiles have no gap in prior and surface", len(chosen), len(windows))
        for name in ("train", "validation"):
            if not (chosen["split"] == name).any():
                raise InvalidDataError(
                    no_windows_fault(f"for {name} without a gap in prior and surface")
                )
        finish_store(store, chosen, attributes)
        code = crs.to_epsg() or "projected"
        write_footprints(chosen, path.with_name(f"{path.stem}_{code}.geojson"))
        write_footprints(chosen, path.with_name(f"{path.stem}_4326.geojson"), "EPSG:4326")
        return parts.publish(store)


def _rasters(inputs: Inputs) -> list[xr.DataArray]:
    filler = [] if inputs.surface_filler is None else [inputs.surface_filler]
    return [*inputs.by_name.values(), *filler]


def _require_consistent(beds: Mapping[str, xr.DataArray], inputs: Inputs) -> str:
    """Check that all rasters go together; return the vertical datum of the heights."""
    fillers = [] if inputs.surface_filler is None else [inputs.surface_filler]
    heights = [inputs.prior, inputs.surface, *fillers, *beds.values()]
    datums = [raster.attrs.get("vertical_datum") or "unknown" for raster in heights]
    datum = next((str(stated) for stated in datums if stated != "unknown"), "unknown")
    like = heights[datums.index(datum)]
    for raster in _rasters(inputs):
        rasters.require_same_reference(like, raster)
    for survey, bed in beds.items():
        require_like_grid(like, survey, bed)
    for name, raster in inputs.by_name.items():
        bands = raster.sizes[raster.dims[0]] if raster.ndim == 3 else 1
        if bands != BANDS[name]:
            raise InvalidDataError(
                Fault(
                    rasters.name_of(raster),
                    expected=f"bands of {LONG_NAMES[name]}: {BANDS[name]}",
                    found=str(bands),
                )
            )
    for survey, bed in beds.items():
        cell = rasters.resolution_of(bed)
        if abs(cell - RESOLUTION) > 1e-6:
            raise InvalidDataError(
                Fault(
                    rasters.name_of(bed),
                    entry=survey,
                    expected=f"a grid with cells of {RESOLUTION:g} m",
                    found=f"cells of {cell:g} m",
                    remedy="grid the survey again with that spacing",
                )
            )
    if "unknown" in datums:
        names = [
            rasters.name_of(raster)
            for raster, stated in zip(heights, datums, strict=True)
            if stated == "unknown"
        ]
        logger.warning("taken for heights on one datum, though unstated: %s", ", ".join(names))
    return datum


def _sources(beds: Mapping[str, xr.DataArray], inputs: Inputs) -> list[dict[str, Any]]:
    """What the training set is made of, as :mod:`deepbedmap.citation` reads it."""
    roles = zip(("prior", "surface", "velocity", "accumulation"), _rasters(inputs), strict=False)
    described = [_describe(bed, "training") | {"survey": survey} for survey, bed in beds.items()]
    described += [_describe(raster, role) for role, raster in roles]
    if inputs.surface_filler is not None:
        described.append(_describe(inputs.surface_filler, "surface filler"))
    return described


def _describe(raster: xr.DataArray, role: str) -> dict[str, Any]:
    if (file := rasters.file_of(raster)) is not None:
        return describe_file(file, role)
    return describe_source(role, rasters.name_of(raster), raster.attrs)


def _digest(raster: xr.DataArray) -> list[Any]:
    """What tells a raster from others, beside the checksum of the file that it is read from."""
    said = [raster.shape, rasters.bounds_of(raster), sorted(map(repr, raster.attrs.items()))]
    if raster.chunks is not None:
        return [*said, "" if rasters.file_of(raster) else raster.data.name]
    if rasters.file_of(raster) and not raster.variable._in_memory:
        return said
    return [*said, sha256_of(np.ascontiguousarray(raster.to_numpy()).tobytes())]


def _cut_all(
    windows: gpd.GeoDataFrame,
    beds: Mapping[str, xr.DataArray],
    inputs: Inputs,
    store: Path,
    parts: Parts,
    client: Client | None,
    progress: Callable[[int, int], None] | None,
) -> npt.NDArray[np.bool_]:
    """Fill the store, batch by batch; return (2, n): which tiles it keeps, which are complete.

    Batches are written in their order, each behind what was kept of those before it.
    """
    starts = range(0, len(windows), BATCH)
    flags = [
        np.load(parts.folder / f"{start}.npy") for start in starts if parts.is_done(f"{start}")
    ]
    todo = [windows.iloc[start : start + BATCH] for start in starts[len(flags) :]]
    group = zarr.open_group(store, mode="r+", zarr_format=ZARR_FORMAT)
    offset = sum(int(kept.sum()) for kept, _ in flags)
    plain = (pd.DataFrame(batch[[*EDGES, "survey"]]) for batch in todo)
    cuts = mapped(_cut, plain, client, (beds, inputs))
    for start, cut in zip(starts[len(flags) :], cuts, strict=True):
        whole = {name: np.isfinite(cut[name]).all(axis=(1, 2, 3)) for name in INPUTS}
        kept = whole["x"] & whole["w1"]
        end = offset + int(kept.sum())
        for name, values in cut.items():
            group[name][offset:end] = values[kept]
        offset = end
        flags.append(np.stack([kept, np.all(list(whole.values()), axis=0)]))
        np.save(parts.folder / f"{start}.npy", flags[-1])
        parts.done(f"{start}")
        if progress is not None:
            progress(min(start + BATCH, len(windows)), len(windows))
    return np.concatenate(flags, axis=1)


def _cut(windows: pd.DataFrame, held: tuple[Mapping[str, xr.DataArray], Inputs]) -> Cut:
    """Cut inputs, bed and mask for windows of several surveys."""
    beds, inputs = held
    edges = windows[EDGES].to_numpy()
    cut: Cut = dict(cut_inputs(edges, inputs))
    size = round((edges[0, 2] - edges[0, 0]) / RESOLUTION)
    cut["y"] = np.empty((len(edges), 1, size, size), np.float32)
    for survey, numbers in windows.groupby("survey").indices.items():
        cut["y"][numbers] = cut_tiles(beds[str(survey)], edges[numbers])
    cut["mask"] = np.isfinite(cut["y"])
    return cut
