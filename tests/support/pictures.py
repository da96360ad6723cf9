"""Made-up beds and picks to be drawn, and the images that come of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import rasterio
import rioxarray  # noqa: F401  # gives rasters their CRS
import xarray as xr

AWKWARD = 'me@home +t50 / "x" \\101 (y) # é ō'


def bed(values: Any, cell: float = 250, west: float = 0, south: float = 0) -> xr.DataArray:
    """Grid in EPSG:3031, the first row in the south."""
    values = np.asarray(values, np.float64)
    y, x = (cell * (np.arange(count) + 0.5) for count in values.shape)
    grid = xr.DataArray(values, {"y": y + south, "x": x + west}, ("y", "x"), name="z")
    return grid.rio.write_crs("EPSG:3031")


def line(count: int = 60, name: str = "a", y: float = 500, slope: float = 0.1) -> pd.DataFrame:
    x = 100.0 * np.arange(count)
    picks = pd.DataFrame({"x": x, "y": y, "z": slope * x, "line": name})
    picks.attrs["crs"] = "EPSG:3031"
    return picks


def pixels(path: Path) -> np.ndarray:
    """Rows, columns, red, green and blue of an image."""
    with rasterio.open(path) as image:
        return np.moveaxis(image.read()[:3], 0, -1).astype(int)


def share(image: np.ndarray, colour: tuple[int, int, int], off: int = 12) -> float:
    """Share of the pixels that have a colour, about."""
    return float((np.abs(image - colour).max(axis=-1) <= off).mean())
