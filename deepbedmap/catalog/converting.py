"""Convert the heights of a file from one vertical datum to another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from deepbedmap import rasters
from deepbedmap.catalog.raster_drivers import RasterSource
from deepbedmap.errors import WrongCallError
from deepbedmap.provenance import describe_file

if TYPE_CHECKING:
    import os

    import xarray as xr

    from deepbedmap.rasters.geoids import Geoids


def convert_file(
    heights: str | os.PathLike[str],
    to: str,
    geoids: Geoids,
    out: str | os.PathLike[str],
    *,
    datum: str | None = None,
    variable: str | None = None,
) -> xr.DataArray:
    """Convert a grid of heights from one vertical datum to another, and write it.

    Parameters
    ----------
    heights
        A ``.tif`` or ``.nc`` file, metres.
    to
        ``"ellipsoid"`` (WGS84), ``"EIGEN-GL04C"`` or ``"EIGEN-6C4"``.
    geoids
        By name, the height of each geoid above the ellipsoid in metres: a raster or its file.
    out
        A ``.nc`` or ``.tif`` file.
    datum
        What the heights refer to, where nothing states it.
    variable
        Of a NetCDF file with several.

    Returns
    -------
    xarray.DataArray
        The converted heights (y, x): see :func:`deepbedmap.rasters.convert_datum`.

    Raises
    ------
    InvalidDataError, MissingDataError
        As :func:`deepbedmap.rasters.convert_datum`.
    ValueError
        The name ends otherwise; a datum is unknown; the file has several rasters.

    Examples
    --------
    >>> convert_file("bed.tif", "ellipsoid", {}, "bed.png")
    Traceback (most recent call last):
    deepbedmap.errors.WrongCallError: out: expected a name that ends in .nc or .tif
    """
    out = Path(out)
    if out.suffix not in (".nc", ".tif"):
        raise WrongCallError("expected a name that ends in .nc or .tif", "out")
    grid = RasterSource(heights, variable).to_dask()
    if "band" in grid.dims:
        raise WrongCallError("several rasters; name one", "variable")
    sources = [describe_file(heights, "heights")]
    grid.attrs.setdefault("provenance", json.dumps({"sources": sources}))
    converted = rasters.convert_datum(grid, to, geoids, datum)
    write = rasters.write_netcdf if out.suffix == ".nc" else rasters.write_geotiff
    write(converted, out)
    return converted
