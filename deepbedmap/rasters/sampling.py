"""Values of a raster at points and on a lattice: nearest, bilinear or cubic.

Only cells with a weight are read. A cell without data makes every value NaN in which it has a
weight, so that no value is ever blended with nodata.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import rasterio.windows

from deepbedmap.errors import WrongCallError
from deepbedmap.rasters.lattice import (
    GDAL_CACHE,
    axes_of,
    block_of,
    bounds_of,
    north_up,
    whole_blocks,
)

if TYPE_CHECKING:
    import xarray as xr

Method = Literal["nearest", "linear", "cubic"]
_PANE = 2048  # cells along a side of the part that sample reads at once
_POINTS = 1_000_000  # points that it interpolates at once
# Points within this distance (in cells) of a cell centre are at the centre: rounding must not give
# a neighbour a weight, which would spread its nodata.
_ON_CENTRE = 1e-8


def sample(
    grid: xr.DataArray, x: npt.ArrayLike, y: npt.ArrayLike, method: Method = "linear"
) -> npt.NDArray[np.float64]:
    """Interpolate a raster at points.

    A raster that is not in memory is read in parts, each once, and only where there are points.

    Parameters
    ----------
    grid
        One band, ``(y, x)``; y in either direction.
    x, y
        Coordinates of n points, in the CRS of the grid.
    method
        ``"nearest"``, ``"linear"`` (bilinear) or ``"cubic"``, as in :func:`interpolate`.

    Returns
    -------
    numpy.ndarray
        float64 (n,). NaN where a cell with a weight is NaN (at a cell's centre only that cell has
        one), and for points outside the grid's bounds. Between the outermost centres and the outer
        edges, half a cell, the values of the outermost cells are continued.

    Raises
    ------
    ValueError
        The points are not one-dimensional, or the grid has several bands.

    Examples
    --------
    >>> import xarray as xr
    >>> grid = xr.DataArray([[1.0, 2.0], [3.0, np.nan]], {"y": [1, 0], "x": [0, 1]})
    >>> sample(grid, x=[0.5, 0.0, 0.5], y=[1.0, 0.25, 0.5])
    array([1.5, 2.5, nan])
    """
    x, y = np.broadcast_arrays(np.asarray(x, np.float64), np.asarray(y, np.float64))
    if x.ndim != 1:
        raise WrongCallError(f"x and y must be one-dimensional, not of shape {x.shape}")
    grid = north_up(grid.squeeze("band", drop=True) if "band" in grid.dims else grid)
    if grid.ndim != 2:
        raise WrongCallError(f"expected one band, (y, x), found dimensions {grid.dims}")
    xmin, ymin, xmax, ymax = bounds_of(grid)
    axes = axes_of(grid)
    nodata = grid.rio.nodata
    values = np.full(x.shape, np.nan)
    inside = np.flatnonzero((x >= xmin) & (x <= xmax) & (y >= ymin) & (y <= ymax))
    with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE):
        for part in _by_pane(grid, inside, x, y):
            columns, rows = (
                _taps((points[part] - first) / step, count, method)
                for points, (first, step, count) in zip((x, y), axes, strict=True)
            )
            across, down = _span([columns]), _span([rows])
            block = _read(grid, down, across, nodata)
            total = np.zeros(part.size)
            for row, row_weight in zip(rows[0] - down.start, rows[1], strict=True):
                for column, column_weight in zip(
                    columns[0] - across.start, columns[1], strict=True
                ):
                    total += row_weight * column_weight * block[row, column]
            values[part] = total
    return values


def _by_pane(
    grid: xr.DataArray,
    numbers: npt.NDArray[np.intp],
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
) -> Iterator[npt.NDArray[np.intp]]:
    """Yield the numbers of points near each other: in one pane, of whole blocks of the file."""
    (x_first, x_step, columns), (y_first, y_step, rows) = axes_of(grid)
    width = min(columns, whole_blocks(block_of(grid, "x"), _PANE))
    height = min(rows, whole_blocks(block_of(grid, "y"), max(1, _PANE * _PANE // width)))
    if width < columns or height < rows:
        pane = ((y[numbers] - y_first) / y_step + 0.5) // height
        pane *= columns // width + 2
        pane += ((x[numbers] - x_first) / x_step + 0.5) // width
        pane = pane.astype(np.int32)  # a stable sort of short integers takes linear time
        numbers = numbers[np.argsort(pane, kind="stable")]
        sizes = np.unique(pane, return_counts=True)[1]
    else:
        sizes = np.array([numbers.size])
    start = 0
    for size in sizes.tolist():
        for begin in range(start, start + size, _POINTS):
            yield numbers[begin : min(begin + _POINTS, start + size)]
        start += size


def interpolate(
    raster: xr.DataArray, x: npt.ArrayLike, y: npt.ArrayLike, method: Method = "linear"
) -> npt.NDArray[np.float64]:
    """Interpolate a raster on a lattice: at each of the columns x in each of the rows y.

    Only the rows and columns that the lattice needs are read.

    Parameters
    ----------
    raster
        ``(y, x)`` or ``(band, y, x)``; y in either direction.
    x, y
        Coordinates of the columns and of the rows.
    method
        ``"nearest"``, ``"linear"`` (bilinear) or ``"cubic"`` (cubic convolution with a = -0.5;
        Keys 1981, doi 10.1109/TASSP.1981.1163711).

    Returns
    -------
    numpy.ndarray
        float64 (rows, columns) or (bands, rows, columns), in the order of y and x. NaN where a cell
        with a weight is nodata, and outside the raster's bounds. Between the outermost centres and
        the outer edges the values of the outermost cells are continued.

    Examples
    --------
    >>> import xarray as xr
    >>> raster = xr.DataArray([[1.0, 2.0], [3.0, np.nan]], {"y": [1, 0], "x": [0, 1]})
    >>> interpolate(raster, x=[0.0, 0.5], y=[1.0, 0.5])
    array([[1. , 1.5],
           [2. , nan]])
    """
    (values,) = reader(raster)([(x, y)], method)
    return np.array(values, np.float64)


Lattice = tuple[npt.ArrayLike, npt.ArrayLike]
Reader = Callable[[Sequence[Lattice], Method], Iterator[npt.NDArray[np.floating]]]


def reader(raster: xr.DataArray) -> Reader:
    """Return a function that interpolates a raster on many lattices ``(x, y)``.

    The lattices of one call should be near each other: the cells that span them all are read at
    once. Each is interpolated, in float64, when it is requested; at cell centres the values may
    be a view of the raster's own, in its type. Calls may run in several threads.
    """
    raster = north_up(raster)
    axes = axes_of(raster)
    nodata = raster.rio.nodata

    def read(lattices: Sequence[Lattice], method: Method) -> Iterator[npt.NDArray[np.floating]]:
        columns, rows = (
            [_taps((np.asarray(p, np.float64) - first) / step, count, method) for p in points]
            for points, (first, step, count) in zip(zip(*lattices, strict=True), axes, strict=True)
        )
        across, down = _span(columns), _span(rows)
        block = _read(raster, down, across, nodata)
        for column_taps, row_taps in zip(columns, rows, strict=True):
            yield _weigh(_weigh(block, row_taps, down.start, -2), column_taps, across.start, -1)

    return read


def _weigh(
    block: npt.NDArray[np.floating], taps: _Taps, start: int, axis: int
) -> npt.NDArray[np.floating]:
    """Return weighted sums along an axis of a block; ``start`` is the block's first cell there.

    Taps without any weight are skipped and weights of 1 are not multiplied: a lattice on the cell
    centres copies nothing.
    """
    total: list[npt.NDArray[np.floating]] = []
    for index, weight in zip(taps[0] - start, taps[1], strict=True):
        if not weight.any():
            continue
        if (np.diff(index) == 1).all():  # a view saves time
            cells = block[(..., slice(index[0], index[-1] + 1)) + (slice(None),) * (-1 - axis)]
        else:
            cells = block.take(index, axis)
        if total or (weight != 1).any():
            cells = cells * weight.reshape((-1,) + (1,) * (-1 - axis))
        if total:
            cells += total.pop()
        total.append(cells)
    return total[0]


_Taps = tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]


def _taps(positions: npt.NDArray[np.float64], count: int, method: Method) -> _Taps:
    """Return the cells, and their weights, of the value at each position along an axis.

    ``positions`` are in cells from the first centre of ``count`` cells. Indices and weights are
    (taps, positions): one tap for nearest, two for linear, four for cubic. Weights are NaN beyond
    the outer edges.
    """
    outside = (positions < -0.5 - _ON_CENTRE) | (positions > count - 0.5 + _ON_CENTRE)
    centre = np.rint(positions)
    positions = np.where(np.abs(positions - centre) < _ON_CENTRE, centre, positions)
    positions = positions.clip(0, count - 1)
    offsets: tuple[int, ...]
    if method == "nearest":
        base, offsets = np.floor(positions + 0.5), (0,)
        weights = np.ones((1, positions.size))
    elif method == "linear":
        base, offsets = np.floor(positions), (0, 1)
        t = positions - base
        weights = np.stack([1 - t, t])
    elif method == "cubic":
        base, offsets = np.floor(positions), (-1, 0, 1, 2)
        t = positions - base
        # Keys' cubic convolution with a = -1/2, the one value for which it is exact for parabolas.
        weights = 0.5 * np.stack(
            [
                -t + 2 * t**2 - t**3,
                2 - 5 * t**2 + 3 * t**3,
                t + 4 * t**2 - 3 * t**3,
                -(t**2) + t**3,
            ]
        )
    else:
        raise WrongCallError(f"method must be nearest, linear or cubic, not {method!r}")
    indices = (base + np.asarray(offsets)[:, None]).clip(0, count - 1).astype(np.intp)
    weights[:, outside] = np.nan
    # A tap without weight points to a cell that has one: it extends the part that is read by
    # nothing, and its NaN cannot spoil the sum (0 * NaN is NaN).
    return np.where(weights == 0, base.astype(np.intp), indices), weights


def _span(taps: Sequence[_Taps]) -> slice:
    """Return the cells along an axis from the first with a tap to the last."""
    return slice(
        int(min(index.min() for index, _ in taps)), int(max(index.max() for index, _ in taps)) + 1
    )


def _read(
    raster: xr.DataArray, rows: slice, columns: slice, nodata: float | None
) -> npt.NDArray[np.floating]:
    """Read cells of a north-up raster, with nodata as NaN; a view where possible."""
    # Inside a dask task, waiting for other tasks could block for ever: no worker may be free to
    # run them. The threads of this process always are.
    block = raster.variable[..., rows, columns].compute(scheduler="threads").to_numpy()
    if not np.issubdtype(block.dtype, np.floating):
        block = block.astype(np.float64)
    if nodata is not None and not np.isnan(nodata):
        block = np.where(block == block.dtype.type(nodata), block.dtype.type(np.nan), block)
    return block
