"""Made-up rasters of a few cells, by their values or with those of a plane."""

from __future__ import annotations

import numpy as np
import pytest
import rioxarray  # noqa: F401  # gives rasters their CRS
import xarray as xr

CRS = "EPSG:3031"


def raster(values, *, cell=100.0, west=-2000.0, north=3000.0, ascending=False, crs=CRS):
    """Cells from the north-west corner on; values (y, x) from north to south."""
    values = np.asarray(values, "float32")
    y = north - (np.arange(values.shape[-2]) + 0.5) * cell
    x = west + (np.arange(values.shape[-1]) + 0.5) * cell
    array = xr.DataArray(values, {"y": y, "x": x}, dims=("band", "y", "x")[-values.ndim :])
    array.name = "z"
    if ascending:
        array = array.isel(y=slice(None, None, -1))
    return array.rio.write_crs(crs) if crs else array


def plane(x, y):
    return 10 + 0.25 * np.asarray(x) - 0.5 * np.asarray(y)


def plane_raster(rows=12, columns=9, **options):
    empty = raster(np.zeros((rows, columns)), **options)
    return empty.copy(data=plane(*np.meshgrid(empty.x, empty.y)).astype("float32"))


both_ways = pytest.mark.parametrize("ascending", [False, True], ids=["y falls", "y rises"])
