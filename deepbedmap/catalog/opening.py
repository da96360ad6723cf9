"""Open anything by its name: a file, an entry of the catalog, or a dataset of the registry."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from deepbedmap.errors import Fault, InvalidDataError, MissingDataError, WrongCallError
from deepbedmap.provenance import parsed

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    import pandas as pd
    import xarray as xr

    from deepbedmap.places import Bounds

_COLUMNS = ("x", "y", "z", "line", "source")  # of a table of picks, those that are scored with


def read_picks(
    entries: str | Iterable[str],
    season: Iterable[str] | None = None,
    bounds: Bounds | None = None,
) -> pd.DataFrame:
    """Read picks of surveys into one table.

    Parameters
    ----------
    entries
        Pipelines or their names, entries of the catalog (``bedmap3_points``), citekeys (all
        pipelines of the dataset), Bedmap standard CSVs, or tables of picks (``.parquet``).
    season, bounds
        As of :func:`deepbedmap.points.read_points`.

    Raises
    ------
    InvalidDataError, MissingDataError
        As of :func:`deepbedmap.points.read_points`; surveys differ in CRS or vertical datum.
    ValueError
        A season of a table.
    """
    from deepbedmap import registry
    from deepbedmap.points.combining import join_surveys
    from deepbedmap.points.reading import read_points

    seasons = list(season or ()) or None
    tables = {}
    for entry in [entries] if isinstance(entries, str) else entries:
        if Path(entry).suffix == ".parquet":
            if seasons:
                raise WrongCallError(
                    f"season: {entry} is a table, and has no raw files to choose from"
                )
            tables[entry] = _read_table(Path(entry), bounds)
            continue
        names = [entry if Path(entry).exists() else entry.removesuffix("_points")]
        if not Path(entry).exists() and entry in (listing := registry.load()):
            names = list(listing[entry].pipelines)
            if not names:
                raise MissingDataError(f"{entry}: the registry names no pipeline of its picks")
        for name in names:
            tables[name] = read_points(name, season=seasons, bounds=bounds)
    return join_surveys(tables) if len(tables) > 1 else tables.popitem()[1]


def _read_table(path: Path, bounds: Bounds | None) -> pd.DataFrame:
    import pyarrow
    from pyarrow import parquet

    if not path.exists():
        raise MissingDataError(f"{path}: no such table; `deepbedmap points` makes one")
    try:
        known = parquet.read_schema(path)
        table = parquet.read_table(path, columns=[name for name in _COLUMNS if name in known.names])
    except (OSError, ValueError) as error:
        expected = "a table of picks, as `deepbedmap points` writes it"
        raise InvalidDataError(Fault(str(path), expected=expected, found=str(error))) from error
    # Each column is let go as soon as it is turned, so that a table is held once.
    picks: pd.DataFrame = table.to_pandas(split_blocks=True, self_destruct=True)
    del table
    pyarrow.default_memory_pool().release_unused()
    picks.attrs |= parsed((known.metadata or {}).get(b"PANDAS_ATTRS")) or {}
    missing = [name for name in ("x", "y", "z") if name not in picks]
    if missing:
        found = f"no {', '.join(missing)}"
        raise InvalidDataError(Fault(str(path), expected="columns x, y and z", found=found))
    if bounds is None:
        return picks
    xmin, ymin, xmax, ymax = bounds
    return picks[picks["x"].between(xmin, xmax) & picks["y"].between(ymin, ymax)]


def open_source(source: str | os.PathLike[str]) -> xr.DataArray:
    """Open a raster by its path, or by its name in the registry.

    Parameters
    ----------
    source
        A file or a Zarr folder; with ``:NAME`` behind it a variable of it, with ``:NAME,NAME``
        several, as bands in this order. Else the name of a raster's entry in the catalogs
        ``lowres`` and ``misc``, or the citekey of a dataset that has one raster: then the file is
        that under :func:`deepbedmap.repository.data_dir`.

    Returns
    -------
    xarray.DataArray
        As :func:`deepbedmap.rasters.open_raster` gives it; of a NetCDF file with ``vx`` and ``vy``
        these two as bands. Of a file in a repository also with the CRS and the vertical datum that
        the registry knows.

    Raises
    ------
    MissingDataError
        There is no such file (the message says which command gets it) and no such name.
    InvalidDataError
        It cannot be read; a variable must be named; or a dataset has several rasters.
    """
    from deepbedmap import rasters
    from deepbedmap.catalog.raster_drivers import RasterSource

    path, variables = _variables_of(os.fspath(source))
    if Path(path).is_dir():
        return rasters.open_raster(path, variables)
    if Path(path).is_file():
        opened: xr.DataArray = RasterSource(path, variables).read()
        return opened
    if Path(path).suffix or Path(path).name != path:
        return rasters.open_raster(path)  # it says what to do
    named: xr.DataArray = _entry(path).read()
    return named


def _variables_of(source: str) -> tuple[str, str | list[str] | None]:
    path, colon, names = source.rpartition(":")
    if not colon or Path(source).exists():
        return source, None
    variables = names.split(",")
    return path, variables if len(variables) > 1 else names


def _entry(name: str) -> Any:
    """Return the raster of the catalogs that has a name, or belongs to the dataset of that name."""
    from deepbedmap.catalog import building
    from deepbedmap.catalog.raster_drivers import RasterSource
    from deepbedmap.errors import did_you_mean

    bundled = building.bundled()
    known = {
        entry: source
        for folder in ("lowres", "misc")
        for entry in bundled[folder]
        if isinstance(source := bundled[folder][entry], RasterSource)
    }
    fitting = [
        entry for entry, each in known.items() if name in (entry, each.metadata.get("citekey"))
    ]
    if len(fitting) == 1:
        return known[fitting[0]]
    citekeys = {str(each.metadata.get("citekey")) for each in known.values()}
    fault = Fault(
        name,
        expected="the path of a raster, or the name of one in the registry",
        found=f"a dataset of several: {', '.join(fitting)}" if fitting else "neither",
        remedy="name one of them" if fitting else did_you_mean(name, [*known, *citekeys]),
    )
    if fitting:
        raise InvalidDataError(fault)
    raise MissingDataError(str(fault))
