"""Find the windows in which a grid has values, and which of their cells do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import shapely
import xarray as xr

from deepbedmap import rasters
from deepbedmap.errors import WrongCallError
from deepbedmap.places import EDGES
from deepbedmap.tiles.placement import (
    bounds_text,
    cells_across_and_down,
    group_by_pane,
    require_inside,
    row_stripes,
    window_bounds,
)

if TYPE_CHECKING:
    import numpy.typing as npt


def find_windows(
    grid: xr.DataArray, size: int = 36, step: int = 3, coverage: float = 1.0
) -> gpd.GeoDataFrame:
    """Find the windows of size x size cells in which a grid has values.

    Parameters
    ----------
    grid
        One band, ``(y, x)``, NaN where nothing was measured; y in either direction. A grid that is
        not in memory, such as one from :func:`deepbedmap.rasters.open_raster`, is read in stripes
        of rows, each row once.
    size
        Width and height of a window, in cells.
    step
        Cells from one window to the next, eastward and southward, starting at the grid's
        north-west corner. Cells in the east and south that do not fill a window are left out.
    coverage
        Share of a window's cells that must have a value, over 0 and up to 1.

    Returns
    -------
    geopandas.GeoDataFrame
        One row per window, from the north-west, row by row: ``xmin, ymin, xmax, ymax`` (outer edges
        of its cells, in the units of the grid's CRS), ``coverage`` (share of cells with a value)
        and ``geometry`` (the box); in the CRS of the grid, if it states one.

    Raises
    ------
    InvalidDataError
        The grid is rotated or irregular, or its cells are not square.
    ValueError
        The grid has several bands, or size, step or coverage is out of range.

    Notes
    -----
    The values in all windows of a stripe are counted at once with an integral image (a summed-area
    table; Crow 1984, doi 10.1145/800031.808600). In addition to the windows this takes at most
    about 256 MB; more only where ``size`` rows, or a row of dask chunks, do.

    Examples
    --------
    >>> grid = xr.DataArray(np.ones((3, 4)), {"y": [250, 150, 50], "x": [50, 150, 250, 350]})
    >>> find_windows(grid, size=3, step=1)[["xmin", "ymin", "xmax", "ymax"]].values.tolist()
    [[0.0, 0.0, 300.0, 300.0], [100.0, 0.0, 400.0, 300.0]]
    """
    if size < 1 or step < 1:
        raise WrongCallError(f"size and step must be at least 1, not {size} and {step}")
    if not 0 < coverage <= 1:
        raise WrongCallError(f"coverage must be over 0 and at most 1, not {coverage}")
    xmin, _, _, ymax = rasters.bounds_of(grid)
    cell = rasters.resolution_of(grid)
    _require_one_band(grid)
    grid = rasters.north_up(grid)
    rows = np.empty(
        (0, grid.sizes["x"]), np.bool_
    )  # rows of which some windows are not counted yet
    first = ahead = 0  # number of the next row of windows; rows of the grid before its first
    counted = []
    for stripe in row_stripes(grid):
        rows = np.concatenate([rows, _measured(grid[stripe])])
        ahead, rows = max(0, ahead - len(rows)), rows[ahead:]
        counts = _window_sums(_window_sums(rows, size, step).T, size, step).T
        # The slack keeps a share such as 0.7 from demanding one cell more by rounding.
        row, column = np.nonzero(counts >= np.ceil(coverage * size**2 - 1e-9))
        counted.append((row + first, column, counts[row, column]))
        first += len(counts)
        ahead, rows = ahead + max(0, len(counts) * step - len(rows)), rows[len(counts) * step :]
    row, column, count = (np.concatenate(parts) for parts in zip(*counted, strict=True))
    west, north = xmin + column * step * cell, ymax - row * step * cell
    east, south = west + size * cell, north - size * cell
    return gpd.GeoDataFrame(
        dict(zip(EDGES, (west, south, east, north), strict=True)) | {"coverage": count / size**2},
        geometry=shapely.box(west, south, east, north),
        crs=rasters.crs_of(grid),
    )


def _require_one_band(grid: xr.DataArray) -> None:
    if grid.ndim != 2:
        raise WrongCallError(f"expected one band, (y, x), found dimensions {grid.dims}")


def _measured(grid: xr.DataArray) -> npt.NDArray[np.bool_]:
    """Return which cells have a value; a grid that is not in memory is read."""
    finite = xr.apply_ufunc(np.isfinite, grid.variable, dask="allowed")
    measured: npt.NDArray[np.bool_] = finite.to_numpy()
    return measured


def _window_sums(values: npt.NDArray[np.generic], size: int, step: int) -> npt.NDArray[np.int32]:
    """Return the sums of every ``step``-th run of ``size`` values along the first axis."""
    total = np.zeros((values.shape[0] + 1, values.shape[1]), np.int32)
    np.cumsum(values, axis=0, dtype=np.int32, out=total[1:])
    difference: npt.NDArray[np.int32] = total[size::step] - total[:-size:step]
    return difference


def masks(grid: xr.DataArray, windows: gpd.GeoDataFrame | npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Return which cells of a grid have a value, in windows of one size.

    With ``coverage`` below 1, :func:`find_windows` returns windows that a survey crosses without
    filling them; a loss counts the cells that are True here.

    Parameters
    ----------
    grid
        One band, ``(y, x)``, NaN where nothing was measured; y in either direction. From a grid
        that is not in memory only the cells in windows are read, nearby windows together.
    windows
        Boxes, or bounds (n, 4), whose edges are edges of the grid's cells.

    Returns
    -------
    numpy.ndarray
        bool (n, height, width), rows from north to south as in :func:`cut_tiles`.

    Raises
    ------
    InvalidDataError
        A window extends beyond the grid, or the two have different CRSs; the grid is rotated or
        irregular, or its cells are not square.
    ValueError
        The windows differ in size, or cut through cells.

    Examples
    --------
    >>> nan = np.nan
    >>> grid = xr.DataArray([[1, nan], [nan, 4], [5, 6]], {"y": [250, 150, 50], "x": [50, 150]})
    >>> masks(grid, find_windows(grid, size=2, step=1, coverage=0.75)).tolist()
    [[[False, True], [True, True]]]
    """
    _require_one_band(grid)
    name = rasters.name_of(grid)
    boxes = window_bounds(windows, rasters.crs_of(grid), name)
    if len(boxes) == 0:
        return np.empty((0, 0, 0), np.bool_)
    require_inside(boxes, grid, name)
    cell = rasters.resolution_of(grid)
    width, height = cells_across_and_down(boxes, cell)
    xmin, _, _, ymax = rasters.bounds_of(grid)
    exact = np.stack([ymax - boxes[:, 3], boxes[:, 0] - xmin]) / cell
    row, column = whole = np.rint(exact).astype(int)
    if np.abs(exact - whole).max() > 1e-6:
        number = int(np.abs(exact - whole).max(axis=0).argmax())
        raise WrongCallError(
            f"window {number}, {bounds_text(boxes[number])}, cuts through cells of {name}"
        )
    grid = rasters.north_up(grid)
    cut = np.empty((len(boxes), height, width), np.bool_)
    for groups in group_by_pane(boxes, grid, cell, cell):
        numbers = np.concatenate(groups)
        top, left = row[numbers].min(), column[numbers].min()
        bottom, right = row[numbers].max() + height, column[numbers].max() + width
        measured = _measured(grid[top:bottom, left:right])
        views = np.lib.stride_tricks.sliding_window_view(measured, (height, width))
        cut[numbers] = views[row[numbers] - top, column[numbers] - left]
    return cut
