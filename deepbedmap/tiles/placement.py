"""The position of windows on a raster: their bounds and cells, and how much is read at once.

A large raster is read in stripes of rows, or in panes around windows near each other, within a
fixed amount of memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np

from deepbedmap import rasters
from deepbedmap.errors import Fault, InvalidDataError, WrongCallError
from deepbedmap.places import EDGES

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt
    import xarray as xr
    from pyproj import CRS

THREADS = 2
_MEMORY = 256e6  # bytes that a function uses in addition to its result
_BYTES = 48  # bytes of it per cell that is read and interpolated
_STRIPE_BYTES = 24  # bytes of it per cell that find_windows reads and counts
_PANE = 512  # least width of a pane, in cells, where memory allows
_ON_LATTICE = 1e-6  # cells whose positions differ by less than this (in cells) coincide


def row_stripes(grid: xr.DataArray) -> Iterator[slice]:
    """Yield rows to read at once: as many as memory allows, but whole dask chunks."""
    most = max(1, int(_MEMORY / _STRIPE_BYTES / grid.sizes["x"]))
    count = grid.sizes["y"]
    edges = np.cumsum(grid.chunksizes["y"]) if grid.chunksizes else np.arange(1, count + 1)
    start = 0
    while start < count:
        within = edges[(edges > start) & (edges <= start + most)]
        stop = int(within[-1] if within.size else edges[edges > start][0])
        yield slice(start, stop)
        start = stop


def group_by_pane(
    boxes: npt.NDArray[np.float64], raster: xr.DataArray, cell: float, finest: float
) -> list[list[npt.NDArray[np.intp]]]:
    """Return the numbers of windows by the pane of the raster that holds their north-west corner.

    A pane is a square of whole blocks of the file, or of dask chunks, as far as memory allows;
    ``finest`` is the least cell size in use. Within a pane, windows are in groups whose tiles'
    cells are on one lattice.
    """
    block = max(rasters.block_of(raster, dim) for dim in ("y", "x")) * rasters.resolution_of(raster)
    side = block * np.ceil(_PANE * finest / block)
    most = np.sqrt(_MEMORY / THREADS / _BYTES / rasters.band_count(raster)) * finest
    side = max(min(side, most - (boxes[0, 2:] - boxes[0, :2]).max()), finest)
    xmin, _, _, ymax = rasters.bounds_of(raster)
    corners = np.stack([ymax - boxes[:, 3], boxes[:, 0] - xmin])
    # Two windows share a lattice if their corners differ by whole cells: the fraction of a cell at
    # the corner, to within _ON_LATTICE, tells the lattices apart.
    cells = corners / cell
    phase = np.rint((cells - np.floor(cells + _ON_LATTICE)) / _ON_LATTICE)
    keys, member = np.unique(
        np.concatenate([corners // side, phase]).T, axis=0, return_inverse=True
    )
    groups = np.split(np.argsort(member, kind="stable"), np.bincount(member).cumsum()[:-1])
    panes: dict[tuple[float, float], list[npt.NDArray[np.intp]]] = {}
    for (row, column), group in zip(keys[:, :2].tolist(), groups, strict=True):
        panes.setdefault((row, column), []).append(group)
    return list(panes.values())


def window_bounds(
    windows: gpd.GeoDataFrame | npt.ArrayLike, crs: CRS | None, name: str
) -> npt.NDArray[np.float64]:
    """Return windows as (n, 4): xmin, ymin, xmax, ymax; their CRS must match that of the raster."""
    if isinstance(windows, gpd.GeoDataFrame):
        own = windows.crs
        if crs is not None and own is not None and not rasters.same_crs(own, crs):
            raise InvalidDataError(
                Fault(
                    file=name,
                    field="crs",
                    expected=f"{own.to_string()} as in the windows",
                    found=crs.to_string(),
                    remedy="reproject the raster, or find windows in its CRS",
                )
            )
        windows = windows[EDGES] if set(EDGES) <= set(windows.columns) else windows.bounds
    boxes = np.asarray(windows, np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise WrongCallError(f"windows must be bounds (n, 4), not {boxes.shape}")
    return boxes


def require_inside(boxes: npt.NDArray[np.float64], raster: xr.DataArray, name: str) -> None:
    """Raise InvalidDataError if any box (xmin, ymin, xmax, ymax) extends beyond the raster."""
    bounds = rasters.bounds_of(raster)
    slack = 1e-6 * rasters.resolution_of(raster)
    inside = (boxes[:, :2] >= np.subtract(bounds[:2], slack)).all(axis=1)
    inside &= (boxes[:, 2:] <= np.add(bounds[2:], slack)).all(axis=1)
    if not inside.all():
        number = int(np.argmin(inside))
        raise InvalidDataError(
            Fault(
                file=f"{name}, window {number}",
                expected=f"a box within the raster's bounds {bounds_text(bounds)}",
                found=f"{bounds_text(boxes[number])}, padding included",
                remedy="leave the window out, pad less, or use a larger raster",
            )
        )


def bounds_text(bounds: npt.ArrayLike) -> str:
    """Return bounds as text, with up to ten significant digits."""
    return "(" + ", ".join(f"{edge:.10g}" for edge in np.asarray(bounds)) + ")"


def cells_across_and_down(boxes: npt.NDArray[np.float64], cell: float) -> tuple[int, int]:
    """Return the number of cells across and down, which must be the same in every box."""
    cells = (boxes[:, 2:] - boxes[:, :2]) / cell
    width, height = np.rint(cells[0]).astype(int)
    if min(width, height) < 1 or np.abs(cells - (width, height)).max() > 1e-6:
        worst = cells[np.abs(cells - (width, height)).max(axis=1).argmax()]
        raise WrongCallError(
            f"windows, padding included, must all be the same whole number of cells of {cell:g} m;"
            f" one is {worst[0]:g} x {worst[1]:g}, the first {cells[0, 0]:g} x {cells[0, 1]:g}"
        )
    return int(width), int(height)
