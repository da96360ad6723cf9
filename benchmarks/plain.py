"""The plain way of working, frozen: what the stages of deepbedmap are timed beside.

As a researcher's script would have it, and as the original DeepBedMap worked: pandas and one call
of pyproj, a CSV file passed to ``gmt info``, one global GMT ``surface``, one interpolation a tile.
It imports nothing of deepbedmap, and is not made faster when deepbedmap is.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pygmt
import pyproj
import rioxarray
import xarray as xr

Bounds = tuple[float, float, float, float]


def read_points(path: Path) -> pd.DataFrame:
    """Picks of a CReSIS file: x, y and z in metres, EPSG:3031.

    pandas 3.1 and later parse a file of more than 5 MB in as many threads as there are cores, by
    themselves; earlier ones in one thread.
    """
    table = pd.read_csv(path)
    table = table[table["BOTTOM"] > 0]
    transformer = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:3031", always_xy=True)
    x, y = transformer.transform(table["LON"].to_numpy(), table["LAT"].to_numpy())
    z = table["ELEVATION"] - table["BOTTOM"]
    return pd.DataFrame({"x": x, "y": y, "z": z.to_numpy()})


def region_of(points: pd.DataFrame) -> Bounds:
    """Bounds (xmin, ymin, xmax, ymax) as ``gmt info -Is250`` rounds those of a CSV file."""
    with tempfile.NamedTemporaryFile(suffix=".csv") as file:
        points.to_csv(file.name, index=False, header=False)
        xmin, xmax, ymin, ymax = pygmt.info(data=file.name, spacing="s250")[:4].tolist()
    return xmin, ymin, xmax, ymax


def block_medians(points: pd.DataFrame, region: Bounds, spacing: float) -> pd.DataFrame:
    """Medians x, y, z of the blocks around the nodes."""
    medians: pd.DataFrame = pygmt.blockmedian(data=points, spacing=spacing, region=_edges(region))
    return medians


def solve(medians: pd.DataFrame, region: Bounds, spacing: float) -> xr.DataArray:
    """Heights (y, x) at the nodes, NaN beyond 3 cells of data."""
    grid: xr.DataArray = pygmt.surface(
        data=medians, spacing=spacing, region=_edges(region), tension=0.35, maxradius="3c"
    )
    return grid


def write_grid(points: pd.DataFrame, path: Path, region: Bounds, spacing: float) -> None:
    """From picks to a NetCDF file of heights at the nodes."""
    grid = solve(block_medians(points, region, spacing), region, spacing)
    grid.to_netcdf(path, encoding={"z": {"zlib": True}}, engine="h5netcdf")


def cut_tiles(
    path: Path, windows: npt.NDArray[np.float64], resolution: float
) -> npt.NDArray[np.float32]:
    """Values (windows, height, width) at the cell centres of windows, rows from north to south."""
    tiles = []
    with rioxarray.open_rasterio(path, masked=True) as raster:
        for xmin, ymin, xmax, ymax in windows:
            x = np.arange(xmin + resolution / 2, xmax, resolution)
            y = np.arange(ymax - resolution / 2, ymin, -resolution)
            tiles.append(raster.interp(x=x, y=y, method="linear").to_numpy()[0])
    return np.stack(tiles).astype(np.float32)


def _edges(region: Bounds) -> list[float]:
    xmin, ymin, xmax, ymax = region
    return [xmin, xmax, ymin, ymax]
