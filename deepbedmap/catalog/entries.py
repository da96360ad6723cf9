"""Entries of the intake catalogs, from the datasets of the registry.

Entries are named after files. A pipeline ``highres/2010tr.json`` has two: ``2010tr`` is
the grid, ``2010tr_points`` the table of picks. A raster or an outline takes the stem of
its file's name, or of its archive where the archive's contents are not listed. Characters
other than letters, digits, ``_`` and ``-`` become ``_``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from deepbedmap import schemas
from deepbedmap.registry.records import ARCHIVE_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from deepbedmap.registry.records import Dataset, File

_GEOTIFF = (".tif", ".tiff")
_NETCDF = (".nc", ".nc4", ".h5")
_OUTLINES = (".shp", ".gpkg", ".geojson")


def _parameter(kind: str, default: Any, said: str, **limits: Any) -> dict[str, Any]:
    return {"description": said, "type": kind, "default": default, **limits}


_BOX = "xmin, ymin, xmax, ymax in metres (EPSG:3031)"
_FETCH = {"fetch": _parameter("bool", False, "fetch the files first, and verify their checksums")}
_SURVEY = {
    "season": _parameter("list", [], "raw files to read: names, stems or globs; none: all"),
    "bounds": _parameter("list", [], f"keep the picks in the box {_BOX}"),
    "engine": _parameter(
        "list", ["native"], "what reads the raw files", allowed=[["native"], ["pdal"]]
    ),
    **_FETCH,
}
PARAMETERS = {
    "points": {
        "geometry": _parameter("bool", False, "give a GeoDataFrame"),
        **_SURVEY,
    },
    "grid": {
        "spacing": _parameter("float", 250.0, "width of a cell in metres"),
        "tension": _parameter("float", 0.35, "of the spline, from 0 to 1", min=0.0, max=1.0),
        "max_gap": _parameter("int", 3, "cells beyond a pick that are kept", min=0),
        "region": _parameter("list", [], f"outer edges of the grid: {_BOX}"),
        **_SURVEY,
    },
    "raster": {
        "bounds": _parameter("list", [], "xmin, ymin, xmax, ymax of a box in the raster's CRS"),
        **_FETCH,
    },
    "vector": {
        "bounds": _parameter("list", [], "xmin, ymin, xmax, ymax of a box in the file's CRS"),
        **_FETCH,
    },
}


def dataset_entries(dataset: Dataset, root: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and content of every catalog entry of a dataset, files under ``root``."""
    for pipeline in dataset.pipelines:
        name, crs = _entry_name(pipeline), _crs_of(root / "highres" / pipeline) or dataset.crs
        argument = {"pipeline": f"highres/{pipeline}"}
        yield name, _entry("grid", "Grid of the bed", dataset, crs, argument)
        yield f"{name}_points", _entry("points", "Picks of the bed", dataset, crs, argument)
    for file in dataset.files:
        name, suffix = file.name, Path(file.name).suffix.lower()
        if file.members is not None:
            name, suffix = file.filename, Path(file.members).suffix.lower()
        argument = {"path": f"{dataset.folder}/{name}"}
        if suffix in _GEOTIFF + _NETCDF:
            yield _entry_name(name), _entry("raster", "Raster", dataset, dataset.crs, argument)
        elif suffix in _OUTLINES and file.members is None:
            yield _entry_name(name), _entry("vector", "Outlines", dataset, dataset.crs, argument)


def served_entries(dataset: Dataset) -> Iterator[tuple[str, dict[str, Any]]]:
    """Sources of what a server hands out as a raster, without a login and as it is read."""
    for file in dataset.files:
        suffix = Path(file.filename).suffix.lower()
        if dataset.status == "retired" or not _is_served(file):
            continue
        arguments: dict[str, Any] = {"urlpath": _literal(file.url)}
        if suffix in _NETCDF:
            arguments["xarray_kwargs"] = {"engine": "h5netcdf", "decode_coords": "all"}
        elif suffix not in _GEOTIFF:
            continue
        yield (
            _entry_name(file.filename),
            {
                "description": _description("Raster", dataset),
                "driver": "netcdf" if suffix in _NETCDF else "rasterio",
                "args": arguments,
                "metadata": _literal(_metadata(dataset, dataset.crs)),
            },
        )


def _is_served(file: File) -> bool:
    parts = urlsplit(file.url or "")
    archive = parts.path.lower().endswith(ARCHIVE_SUFFIXES)
    return file.access == "open" and parts.scheme in ("http", "https") and not archive


def _entry_name(filename: str) -> str:
    archive = next((s for s in ARCHIVE_SUFFIXES if filename.lower().endswith(s)), None)
    stem = filename[: -len(archive)] if archive else Path(filename).stem
    return re.sub(r"[^A-Za-z0-9_-]", "_", stem)


def _crs_of(pipeline: Path) -> str | None:
    """Coordinate reference system of the picks that a pipeline gives."""
    stages = schemas.validate_file(pipeline, "pipeline").content["pipeline"]
    stated = (stage.get("out_srs") or stage.get("override_srs") for stage in reversed(stages))
    return next(filter(None, stated), None)


def _entry(
    driver: str, what: str, dataset: Dataset, crs: str | None, files: dict[str, str]
) -> dict[str, Any]:
    """Source of a catalog; files are arguments that name a file of the repository."""
    parameters = PARAMETERS[driver]
    return {
        "description": _description(what, dataset),
        "driver": f"deepbedmap_{driver}",
        "args": {
            **{name: f"{{{{ CATALOG_DIR }}}}/../{_literal(file)}" for name, file in files.items()},
            **{name: f"{{{{ {name} }}}}" for name in parameters},
        },
        "metadata": _literal(_metadata(dataset, crs)),
        "parameters": parameters,
    }


def _description(what: str, dataset: Dataset) -> str:
    if dataset.status in ("superseded", "retired"):
        by = f" by {dataset.superseded_by}" if dataset.status == "superseded" else ""
        return f"{what} ({dataset.status}{by}): {dataset.title}"
    return f"{what}: {dataset.title}"


def _metadata(dataset: Dataset, crs: str | None) -> dict[str, Any]:
    """What a source says of itself; crs is that of what it gives."""
    built_from = dataset.built_from
    return {
        "citekey": dataset.citekey,
        "title": dataset.title,
        "citation": _citation(dataset),
        "doi": {"dataset": dataset.doi_dataset, "literature": dataset.doi_literature},
        "licence": dataset.licence,
        "version": dataset.version,
        "status": dataset.status,
        "superseded_by": dataset.superseded_by,
        "location": dataset.location,
        "bounds": list(dataset.bounds) if dataset.bounds else None,
        "resolution": dataset.resolution,
        "survey_type": dataset.survey_type,
        "epoch": list(dataset.epoch) if dataset.epoch else None,
        "crs": crs,
        "vertical_datum": dataset.vertical_datum,
        "units": dataset.units,
        "nodata": dataset.nodata,
        "firn_correction": dataset.firn_correction,
        "built_from": {"surveys": list(built_from.surveys), "until": built_from.until}
        if built_from
        else None,
        "notes": dataset.notes,
    }


def _literal(value: Any) -> Any:
    """Write text so that it renders to itself: intake runs arguments and metadata as templates."""
    if isinstance(value, dict):
        return {key: _literal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_literal(item) for item in value]
    return re.sub(r"\{(?=[{%#])", "{{ '{' }}", value) if isinstance(value, str) else value


def _citation(dataset: Dataset) -> str:
    authors = "; ".join(dataset.authors[:3])
    if len(dataset.authors) > 3:
        authors = f"{dataset.authors[0]} and {len(dataset.authors) - 1} others"
    year = f"({dataset.year})" if dataset.year else None
    doi = dataset.doi_dataset or dataset.doi_literature
    link = f"https://doi.org/{doi}" if doi else None
    head = " ".join(filter(None, (authors, year)))
    version = f"Version {dataset.version}" if dataset.version else None
    return ". ".join(filter(None, (head, dataset.title, version, dataset.publisher, link)))
