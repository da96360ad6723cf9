"""Grid picks with GMT's own ``blockmedian`` and ``surface``, for comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pygmt
from scipy.ndimage import distance_transform_edt

if TYPE_CHECKING:
    from typing import Any

    import numpy.typing as npt

    from deepbedmap.grids.geometry import Floats

_LEAST_NODES = 4  # surface refuses fewer, in either direction
# Block medians nearer than this (RMS, in cells) to a straight line ten times as long lie on it.
_STRAIGHT = 2.0
_MARGIN = 24  # cells by which the region is then extended


def gmt_surface(
    x: Floats, y: Floats, z: Floats, cells: tuple[int, int], tension: float, max_gap: int
) -> npt.NDArray[np.floating]:
    """Return GMT's surface through block medians, at the cell centres near them, (rows, columns).

    ``x`` and ``y`` are in cells from the south-west corner of a grid of ``cells`` (rows, columns).
    """
    # Solved at the cell corners, 0 to columns and 0 to rows, in gridline registration: with pixel
    # registration GMT 6.4's surface extends the region for its solver by half a cell, and so
    # shifts the result.
    rows, columns = cells
    shape = max(columns, _LEAST_NODES - 1), max(rows, _LEAST_NODES - 1)
    blocks = pygmt.blockmedian(
        data=pd.DataFrame({"x": x, "y": y, "z": z}),
        spacing=1,
        region=[0, shape[0], 0, shape[1]],
        verbose="q",
    )
    table = blocks.to_numpy(np.float64)
    trend: Any = 0
    margin = 0
    middle = table[:, :2].mean(axis=0)
    _, spread, directions = np.linalg.svd(table[:, :2] - middle, full_matrices=False)
    if len(table) < 3 or spread[1] < min(_STRAIGHT * np.sqrt(len(table)), 0.1 * spread[0]):
        # Blocks along one straight line do not define a plane, but surface fits one nevertheless,
        # up to thousands of kilometres high. So it gets the residuals of a trend along the line,
        # and zeros at four distant corners that keep its plane level.
        along = np.stack([np.ones(len(table)), (table[:, :2] - middle) @ directions[0]], axis=1)
        level, slope = np.linalg.lstsq(along, table[:, 2], rcond=None)[0]
        table[:, 2] -= along @ (level, slope)
        across, up = np.arange(columns) + 0.5 - middle[0], np.arange(rows) + 0.5 - middle[1]
        trend = level + slope * (directions[0, 0] * across + directions[0, 1] * up[:, None])
        margin = _MARGIN
        (west, east), (south, north) = ((-margin, count + margin) for count in shape)
        corners = [(west, south, 0), (west, north, 0), (east, south, 0), (east, north, 0)]
        table = np.concatenate([table, corners])
    surface = pygmt.surface(
        data=table,
        spacing=1,
        region=[-margin, shape[0] + margin, -margin, shape[1] + margin],
        tension=tension,
        verbose="q",
    ).to_numpy()
    centres = _midway_between_rows(_midway_between_rows(surface).T).T
    heights: npt.NDArray[np.floating] = trend + centres[margin:, margin:][:rows, :columns]
    empty = np.ones(cells, bool)
    empty[y.astype(int), x.astype(int)] = False
    heights[distance_transform_edt(empty) > max_gap + 1] = np.nan
    return heights


def _midway_between_rows(values: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Interpolate midway between rows by cubic convolution.

    Keys 1981, doi 10.1109/TASSP.1981.1163711; at the midpoint the weights are -1, 9, 9, -1 over 16.
    """
    # One row is extrapolated linearly beyond each edge, so that a plane remains a plane.
    rows = np.pad(values, ((1, 1), (0, 0)), mode="reflect", reflect_type="odd")
    middle: npt.NDArray[np.floating] = (9 * (rows[1:-2] + rows[2:-1]) - rows[:-3] - rows[3:]) / 16
    return middle
