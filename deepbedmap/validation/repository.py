"""Check a repository, or single files, without raw data or a network connection.

:func:`check` checks a repository (its registry, pipelines, schemas, catalogs and READMEs) or a
user's own files, and returns every fault.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from deepbedmap import registry as registries
from deepbedmap import repository, schemas
from deepbedmap.errors import Fault, InvalidDataError
from deepbedmap.validation.tables import grid_faults, schema_faults, table_faults

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    import xarray as xr

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
KINDS = (
    "a registry, catalog or schema (.yml), a pipeline or schema (.json), picks with columns x, y "
    "and z (.parquet, .csv), raw picks of CReSIS or Bedmap (.csv), a grid (.nc, .tif), windows "
    "(.geojson, .gpkg) or a folder of these"
)
"""The kinds of files that :func:`check` recognises."""

_REGISTRY = "data_list.yml"
_BENCHMARKS = "benchmark.yml"


def check(paths: Paths | None = None, root: str | Path | None = None) -> list[Fault]:
    """Find every fault of a repository, or of some files.

    Parameters
    ----------
    paths
        Files of any kind in :data:`KINDS`, distinguished by name and content, and folders. A
        folder with a ``data_list.yml`` is a repository; in any other folder, all files of these
        kinds are checked. None for the repository ``root``.
    root
        A repository; None for the one that comes with the package. The checks of a repository
        cover the registry, all pipelines, schemas, catalogs and READMEs, and that its pipelines
        are those listed in the registry.

    Returns
    -------
    list of Fault
        Sorted by file, then by line; empty if there are none. A file that cannot be read is a
        fault too: no error is raised.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "survey.json")
    >>> _ = path.write_text('{"pipeline": [{"type": "readers.text", "filenam": "bed.txt"}]}')
    >>> [(fault.field, fault.remedy) for fault in check(path)]
    [('pipeline[0].filename', None), ('pipeline[0].filenam', 'did you mean filename?')]
    """
    files = find_files(paths, root)
    faults = [fault for path, kind in files.items() for fault in _faults(path, _CHECKS[kind])]
    return sorted(dict.fromkeys(faults), key=lambda fault: (fault.file, fault.line or 0))


def find_files(paths: Paths | None = None, root: str | Path | None = None) -> dict[Path, str]:
    """Find the files that :func:`check` checks, and the kind of each.

    Parameters
    ----------
    paths, root
        As for :func:`check`.
    """
    if paths is None:
        return _files_of_repository(repository.root() if root is None else Path(root))
    files: dict[Path, str] = {}
    for path in [paths] if isinstance(paths, str | os.PathLike) else paths:
        path = Path(path)
        if path.is_dir():
            files |= _files_of_folder(path) or {path: "unknown"}
        else:
            files[path] = _kind(path) or ("pipeline" if path.suffix == ".json" else "unknown")
    return files


def _files_of_repository(root: Path) -> dict[Path, str]:
    files = {root / _REGISTRY: "repository"}
    files |= dict.fromkeys(sorted((root / "highres").glob("*.json")), "pipeline")
    files |= dict.fromkeys(sorted((root / "validation").glob("*.[jy]*")), "schema")
    if (benchmarks := root / "validation" / _BENCHMARKS) in files:
        files[benchmarks] = "benchmarks"
    files |= dict.fromkeys(sorted((root / "catalog").glob("*.y*ml")), "catalog")
    readmes = (root / folder / "README.md" for folder in ("highres", "lowres", "misc"))
    return files | dict.fromkeys(filter(Path.is_file, readmes), "readme")


def _files_of_folder(folder: Path) -> dict[Path, str]:
    if (folder / _REGISTRY).is_file():
        return _files_of_repository(folder)
    files: dict[Path, str] = {}
    for path in sorted(folder.glob("[!.]*")):
        if path.is_dir():
            if not path.is_symlink():  # a link may point back here
                files |= _files_of_folder(path)
        elif (kind := _kind(path)) and (kind not in _IS_OURS or _IS_OURS[kind](path)):
            files[path] = kind
    return files


def _kind(path: Path) -> str | None:
    """Return the kind of a file by its name and content; None if it is unknown."""
    match path.suffix.lower():
        case ".yml" | ".yaml" | ".json":
            return _kind_of_text(path)
        case ".csv" | ".txt":
            return _kind_of_csv(path)
        case ".parquet":
            return "picks"
        case ".nc" | ".nc4" | ".tif" | ".tiff":
            return "grid"
        case ".geojson" | ".gpkg":
            return "windows"
    return None


def _kind_of_text(path: Path) -> str | None:
    if path.name == _REGISTRY:
        return "registry"
    try:
        content = schemas.load(path).content
    except (InvalidDataError, OSError):
        return "text"
    if isinstance(content, list) and path.suffix != ".json":
        return "registry"
    if isinstance(content, dict):
        for key, kind in _KEYS.items():
            if key in content:
                return kind
    return _FOLDERS.get(path.parent.name)


_KEYS = {
    "datasets": "registry",
    "pipeline": "pipeline",
    "schema_type": "schema",
    "$schema": "schema",
    "sources": "catalog",
    "benchmarks": "benchmarks",
}
_FOLDERS = {"highres": "pipeline", "validation": "schema", "catalog": "catalog"}


def _kind_of_csv(path: Path) -> str | None:
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as lines:
            first = lines.readline(1_000)
    except OSError:
        return "text"
    names = {name.strip().upper() for name in first.split(",")}
    if first.startswith("#") or "TRAJECTORY_ID" in names:
        return "bedmap"
    if len(names & {"LAT", "LON", "THICK", "ELEVATION", "FRAME", "BOTTOM"}) >= 4:
        return "cresis"
    return "picks" if {*first.strip().split(",")} >= {"x", "y", "z"} else None


def _faults(path: Path, check: Callable[[Path], Iterable[Fault]]) -> list[Fault]:
    """Return the faults of a file, including any that keeps it from being read."""
    try:
        return list(check(path))
    except InvalidDataError as error:
        return [_as_fault(path, fault) for fault in error.faults]
    except OSError as error:  # MissingDataError among them
        if not path.exists():
            return [Fault(str(path), expected="a file or a folder", found="nothing of this name")]
        reason = error.strerror or str(error)
        return [Fault(str(path), expected="a file that can be read", found=reason)]


def _as_fault(path: Path, fault: Fault | str) -> Fault:
    return fault if isinstance(fault, Fault) else Fault(str(path), found=fault)


def _check_repository(path: Path) -> Iterator[Fault]:
    """Yield the faults of a registry, and the files of its repository that disagree with it."""
    own = _faults(path, _check_registry)
    yield from own
    pipelines = sorted((path.parent / "highres").glob("*.json"))
    listed = _listed_pipelines(path)
    for pipeline in pipelines:
        if listed is not None and pipeline.name not in listed:
            yield Fault(
                str(pipeline),
                expected=f"a dataset in {path.name} that lists it among its pipelines",
                found="none",
                remedy="list it there, or remove it",
            )
    # Without a valid registry and valid pipelines, the generated files cannot be compared.
    if not own and not any(_faults(pipeline, _check_pipeline) for pipeline in pipelines):
        yield from _faults(path, _check_generated)


def _check_generated(path: Path) -> Iterable[Fault]:
    from deepbedmap import catalog

    catalog.check(root=path.parent)
    return []


def _check_registry(path: Path) -> Iterator[Fault]:
    yield from _faults(path, _load_registry)
    folder = path.parent / "highres"
    for name, fault in (_listed_pipelines(path) or {}).items():
        if folder.is_dir() and Path(name).name == name and not (folder / name).is_file():
            yield replace(fault, expected="a file in highres/", found=f"no {name}")


def _load_registry(path: Path) -> Iterable[Fault]:
    registries.check(path)
    return []


def _listed_pipelines(path: Path) -> dict[str, Fault] | None:
    """Return the pipelines that a registry lists, each with its place, despite other faults.

    None if the registry cannot be read.
    """
    try:
        document = schemas.load(path)
    except (InvalidDataError, OSError):
        return None
    listed: dict[str, Fault] = {}
    start: schemas.Place = () if isinstance(document.content, list) else ("datasets",)
    content = document.content
    for part in start:
        content = content.get(part) if isinstance(content, dict) else None
    for index, entry in enumerate(content if isinstance(content, list) else []):
        pipelines = entry.get("pipelines") if isinstance(entry, dict) else None
        for number, name in enumerate(pipelines if isinstance(pipelines, list) else []):
            if isinstance(name, str):
                listed[name] = document.fault((*start, index, "pipelines", number))
    return listed


def _check_pipeline(path: Path) -> Iterable[Fault]:
    from deepbedmap import points

    return points.check_pipeline(path)


def _check_catalog(path: Path) -> Iterable[Fault]:
    from deepbedmap import catalog

    return catalog.catalog_faults(path)


def _check_benchmarks(path: Path) -> Iterable[Fault]:
    return schemas.faults(schemas.load(path), "benchmark")


def _check_text(path: Path) -> Iterable[Fault]:
    if path.suffix.lower() in (".csv", ".txt"):
        schemas.read_text(path)
    else:
        schemas.load(path)
    return []


def _check_picks(path: Path) -> Iterable[Fault]:
    if path.suffix.lower() != ".parquet":
        return _check_csv(path, "points")
    import pandas as pd

    return table_faults(_opened(path, pd.read_parquet, path), "points", path)


def _check_csv(path: Path, schema: str) -> Iterable[Fault]:
    from deepbedmap.validation.text_tables import check_csv

    return check_csv(path, schema)


def _check_windows(path: Path) -> Iterable[Fault]:
    import geopandas as gpd

    windows = _opened(path, gpd.read_file, path)
    return table_faults(windows, "tiles", path) if len(windows) else []


def _check_grid(path: Path) -> Iterable[Fault]:
    with _open_grid(path) as grid:
        return grid_faults(grid, path)


def _open_grid(path: Path) -> xr.Dataset:
    import warnings

    import rioxarray
    import xarray as xr

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the checks report the same faults
        if path.suffix.lower() in (".nc", ".nc4"):
            options = {"engine": "h5netcdf", "decode_coords": "all", "chunks": {}}
            dataset: xr.Dataset = _opened(path, xr.open_dataset, path, **options)
            return dataset
        bands = _opened(path, rioxarray.open_rasterio, path, mask_and_scale=True, chunks={})
    if bands.sizes.get("band") == 1:
        bands = bands.squeeze("band", drop=True)
    return xr.Dataset({"z": bands})


def _opened(path: Path, reader: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Return the result of a library's reader; any error of the reader is a fault of the file."""
    try:
        return reader(*arguments, **options)
    except FileNotFoundError:
        raise
    except Exception as error:
        name = path.suffix.lstrip(".")
        reason = str(error).partition("\n")[0]
        fault = Fault(str(path), expected=f"a file in the format {name}", found=reason)
        raise InvalidDataError(fault) from error


def _has_z(path: Path) -> bool:
    try:
        with _open_grid(path) as grid:
            is_ours = path.suffix.startswith(".nc") or "provenance" in grid["z"].attrs
            return "z" in grid and is_ours
    except InvalidDataError:
        return True


def _has_edges(path: Path) -> bool:
    import geopandas as gpd

    try:
        return "xmin" in _opened(path, gpd.read_file, path, rows=1)
    except InvalidDataError:
        return True


_IS_OURS = {"grid": _has_z, "windows": _has_edges}
"""Tests that distinguish this project's files from others of the same format."""


def _check_nothing(_: Path) -> Iterable[Fault]:
    """Check nothing: files generated from the registry are compared in its own check."""
    return []


def _check_unknown(path: Path) -> Iterable[Fault]:
    if path.is_dir():
        found = "a folder without any of these"
    else:
        path.open().close()
        found = f"a file named *{path.suffix}" if path.suffix else "a file without suffix"
        found += ", with other content" if path.suffix.lower() in _SUFFIXES else ""
    return [Fault(str(path), expected=KINDS, found=found)]


_SUFFIXES = (".csv", ".txt", ".yml", ".yaml")
_CHECKS: dict[str, Callable[[Path], Iterable[Fault]]] = {
    "repository": _check_repository,
    "registry": _check_registry,
    "pipeline": _check_pipeline,
    "schema": schema_faults,
    "benchmarks": _check_benchmarks,
    "catalog": _check_catalog,
    "readme": _check_nothing,
    "picks": _check_picks,
    "cresis": lambda path: _check_csv(path, "raw_cresis"),
    "bedmap": lambda path: _check_csv(path, "raw_bedmap"),
    "grid": _check_grid,
    "windows": _check_windows,
    "text": _check_text,
    "unknown": _check_unknown,
}
