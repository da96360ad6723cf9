"""Roughness of a bed grid: relative to the picks, and as a map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deepbedmap.errors import WrongCallError
from deepbedmap.points.roughness import STRETCH, roughness_along

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd
    import xarray as xr

_LEVEL = 1e-6  # m: below this the picks are level within rounding


def roughness_ratio(picks: pd.DataFrame, length: float = STRETCH) -> float:
    """Return the mean roughness of a grid over the mean roughness of the picks, of all stretches.

    A ratio of 1 means as rough as the survey, whose noise counts as roughness. NaN if no line has
    a stretch of :data:`FEWEST` picks or the picks are level.

    Parameters
    ----------
    picks, length
        As for :func:`roughness_along`, with columns ``z`` (of the picks) and ``grid`` in metres.

    Examples
    --------
    >>> import pandas as pd
    >>> x = 100.0 * np.arange(50)
    >>> z = np.sin(x)
    >>> picks = pd.DataFrame({"x": x, "y": 0.0, "line": "a", "z": z, "grid": 0.5 * z})
    >>> round(roughness_ratio(picks), 6)
    0.5
    """
    stretches = roughness_along(picks, length=length)
    if stretches.empty or not stretches["z"].mean() > _LEVEL:
        return float("nan")
    return float(stretches["grid"].mean() / stretches["z"].mean())


def roughness_map(grid: xr.DataArray, size: int = 5) -> xr.DataArray:
    """Return a map of roughness: standard deviation of the cells around each cell.

    With size 5, the roughness of DeepBedMap (Leong & Horgan 2020, doi 10.5194/tc-14-3687-2020).

    Parameters
    ----------
    grid
        Bed elevation (y, x), metres, y in either direction; NaN where unknown. If it is chunked
        (:func:`deepbedmap.rasters.chunked`), the map is lazy.
    size
        Side of the window in cells, odd.

    Returns
    -------
    xarray.DataArray
        float32 (y, x), metres: the standard deviation (ddof 0) of the cells of the window that
        have a value, however few; NaN if none has. The window is clipped at the grid's edge.

    Raises
    ------
    ValueError
        The size is not odd, or the grid does not have the dimensions (y, x).

    Examples
    --------
    >>> import xarray as xr
    >>> bed = xr.DataArray([[0.0, 2.0, np.nan]], dims=("y", "x"))
    >>> roughness_map(bed, size=3).values
    array([[1., 1., 0.]], dtype=float32)
    """
    import dask.array

    if size < 1 or size % 2 == 0:
        raise WrongCallError(f"size: expected an odd number of cells, found {size}")
    if set(grid.dims) != {"y", "x"}:
        raise WrongCallError(f"expected dimensions (y, x), found {grid.dims}")
    if grid.chunks is None:
        margin = size // 2
        values = _deviation(
            np.pad(grid.to_numpy().astype(np.float64), margin, constant_values=np.nan), size
        )
    else:
        values = dask.array.map_overlap(  # type: ignore[no-untyped-call]
            _deviation,
            grid.data.astype(np.float64),
            size=size,
            depth=size // 2,
            boundary=np.nan,
            trim=False,
            meta=np.empty((0, 0), np.float32),
            chunks=grid.chunks,
        )
    rough: xr.DataArray = grid.copy(data=values)
    rough.name = "roughness"
    rough.encoding = {}
    rough.attrs = {
        "long_name": f"standard deviation of bed elevation in {size} x {size} cells",
        "units": "m",
    }
    return rough


def _deviation(cells: npt.NDArray[np.float64], size: int) -> npt.NDArray[np.float32]:
    """Return the standard deviation in the windows of a block with their margin."""
    valid = np.isfinite(cells)
    heights = np.where(valid, cells, 0)
    rows, columns = (length - size + 1 for length in cells.shape)
    windows = [
        (slice(row, row + rows), slice(column, column + columns))
        for row in range(size)
        for column in range(size)
    ]
    count, mean, squares = (np.zeros((rows, columns)) for _ in range(3))
    for window in windows:
        count += valid[window]
        mean += heights[window]
    count[count == 0] = np.nan
    mean /= count
    # In two passes: a difference of large sums of squares would be rough where a bed is level.
    for window in windows:
        squares += valid[window] * (heights[window] - mean) ** 2
    return np.sqrt(squares / count).astype(np.float32)
