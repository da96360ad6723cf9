"""Made-up places: rasters that are functions of x and y, and the inputs of a network there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import rioxarray  # noqa: F401  # gives rasters their CRS
import xarray as xr

from deepbedmap.places import Bounds
from deepbedmap.tiles import Inputs

# Around Pine Island Glacier: its test area stands between two surveys and partly in the first.
PLACE = (-1_700_000, -280_000, -1_490_000, -220_000)
WEST = (-1_698_000, -275_000, -1_640_000, -225_000)
EAST = (-1_530_000, -275_000, -1_495_000, -225_000)

Field = Callable[[Any, Any], Any]


def slope(x: Any, y: Any) -> Any:
    return 100 + 0.01 * x - 0.02 * y


def raster(
    field: Field, cell: float, bounds: Bounds, *, crs: int = 3031, datum: str | None = "ellipsoid"
) -> xr.DataArray:
    """Cells of a raster, north up; a field of several bands gives a raster of several."""
    xmin, ymin, xmax, ymax = bounds
    x = np.arange(xmin + cell / 2, xmax, cell)
    y = np.arange(ymax - cell / 2, ymin, -cell)
    values = np.asarray(field(x, y[:, None]), "float32")
    dims = ("band", "y", "x")[-values.ndim :]
    attrs = {} if datum is None else {"vertical_datum": datum}
    return xr.DataArray(values, {"y": y, "x": x}, dims, attrs=attrs).rio.write_crs(crs)


def inputs_of(bounds: Bounds, **others: xr.DataArray) -> Inputs:
    """Planes: the prior, the surface 1,000 m above it, velocity (3, -4), accumulation 200."""
    fields = {
        "prior": (slope, 1_000),
        "surface": (lambda x, y: 1_000 + slope(x, y), 100),
        "velocity": (lambda x, y: np.stack([3 + 0 * x * y, -4 + 0 * x * y]), 500),
        "accumulation": (lambda x, y: 200 + 0 * x * y, 1_000),
    }
    rasters = {name: raster(field, cell, bounds) for name, (field, cell) in fields.items()}
    return Inputs(**{**rasters, **others})
