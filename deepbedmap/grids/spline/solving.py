"""Solve the spline on nested grids, from the coarsest to the finest.

A trend is removed from the data first and restored at the end. The coarser grids can be solved
for all data, and the finest one part by part.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numba
import numpy as np

from deepbedmap.grids.spline.bands import Band
from deepbedmap.grids.spline.compiling import compiled
from deepbedmap.grids.spline.medians import average_at_nodes, checked_data, nearest_node
from deepbedmap.grids.spline.relaxation import Plan, relax_grid

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from typing import Any

    from deepbedmap.grids.spline.compiling import Floats
    from deepbedmap.grids.spline.medians import NodeData

MARGIN = 128
"""Cells around a part of a region within which data affect it directly."""

_COARSEST = 16  # nodes that the data span on the coarsest grid, at most
# Number of times that the spacing is halved within a part; the coarser grids are solved for all
# data. The edge of a part has an effect as far as a band is wide, which is twice as many cells on a
# grid twice as coarse, so that every further level would double the margin.
_SHARED = 1
# Heights may leave the data's range by this many times its width.
_OVERSHOOT = 2.0
# Medians nearer than this (RMS, in cells) to a straight line ten times as long count as on it.
_STRAIGHT = 2.0
# Across less than this (RMS, in cells) no slope is fitted: it would be extrapolated far beyond the
# data.
_NARROW = 0.25


def solve(
    x: Floats,
    y: Floats,
    z: Floats,
    shape: tuple[int, int] | None = None,
    tension: float = 0.35,
    reach: int = 20,
    sweeps: int = 280,
    threads: int | None = None,
) -> Band:
    """Solve the spline at the nodes around the data.

    Parameters
    ----------
    x, y
        float64 (n,), in cells, in any order. Data nearest to the same node are averaged: pass
        :func:`block_medians`.
    z
        float64 (n,), in any unit.
    shape
        Rows and columns of nodes of a region with free edges, from node (0, 0), that contains all
        data. Without it there is no edge, and the surface levels off far from the data.
    tension
        From 0 (minimum curvature) to 1 (harmonic).
    reach
        Nodes within this many columns and rows of a datum are solved for, at least 5. The larger,
        the closer to the spline of the whole plane.
    sweeps
        Number of sweeps on the finest grid; a third of it on each coarser one.
    threads
        Number of threads; by default all that numba may use. The result is the same, bit for bit,
        for any number.

    Returns
    -------
    Band
        float32 heights; memory and time depend on the number of data, not on the area between them.

    Raises
    ------
    ValueError
        There are no data, a value is not finite, the arrays differ in length, data are outside the
        region, or a parameter is out of range.

    Notes
    -----
    A plane is removed from the data first, or the trend along the line where the data are on one
    straight line, which does not define a plane; a single datum gives a constant. Nested grids,
    each with half the spacing of the one before, are relaxed in turn (successive over-relaxation).
    On each, the nodes solved for are framed by nodes held at the heights of the coarser grid; the
    coarsest is a rectangle with level edges. At an edge of the region, as in GMT,
    (1 - T) u_nn + T u_n = 0 along the normal n, the Laplacian does not change across the edge, and
    u_xy = 0 in a corner.

    No height leaves the range of the data, less the plane, by more than twice its width: if one on
    some grid does, the grid is relaxed again, more slowly and then as a harmonic surface through
    the nodes next to the data, and a warning is logged.

    Examples
    --------
    >>> x, y = np.array([0.0, 10, 0, 10]), np.array([0.0, 0, 8, 8])
    >>> solve(x, y, 100 + 2 * x - y).grid((9, 11))[4, ::5].tolist()
    [96.0, 106.0, 116.0]
    """
    with _pool(threads) as pool:
        coarse, levels = _coarsest_first(x, y, z, Plan(shape, tension, reach, sweeps), pool)
        return _finer(coarse, levels, pool)


@dataclass(frozen=True)
class Coarse:
    """The solved coarser grids of a spline, from which any part of the finest one follows.

    Attributes
    ----------
    band
        Heights minus the trend, at nodes ``spacing`` cells apart.
    spacing
        2 cells, or 1 where the data span few.
    trend
        Trend of the heights: a constant, and slopes along x and y.
    bounds
        Lowest and highest allowed height minus the trend.
    plan
        The parameters of the spline.
    """

    band: Band
    spacing: int
    trend: tuple[float, float, float]
    bounds: tuple[float, float]
    plan: Plan


def solve_coarse(
    x: Floats,
    y: Floats,
    z: Floats,
    shape: tuple[int, int] | None = None,
    tension: float = 0.35,
    reach: int = 20,
    sweeps: int = 280,
    threads: int | None = None,
) -> Coarse:
    """Solve the coarser grids of the spline through all data, for :func:`refine`.

    Parameters and errors are those of :func:`solve`. It takes a fraction of the time and memory of
    :func:`solve`, and the result is small enough to send to other machines.
    """
    with _pool(threads) as pool:
        return _coarsest_first(x, y, z, Plan(shape, tension, reach, sweeps), pool)[0]


def refine(
    coarse: Coarse,
    x: Floats,
    y: Floats,
    z: Floats,
    window: tuple[int, int, int, int],
    threads: int | None = None,
) -> Band:
    """Solve the spline at the nodes around the data of a part of the region.

    Parameters
    ----------
    coarse
        The coarser grids, solved for all data.
    x, y, z
        The data passed to :func:`solve_coarse`, at least those within :data:`MARGIN` cells of the
        window.
    window
        First row and column, last row and column of the nodes of the part.
    threads
        As in :func:`solve`.

    Returns
    -------
    Band
        The nodes around those data. Within the window the heights are those of :func:`solve`, up
        to about 1/50,000 of the relief: what remains, at a distance of MARGIN, of the difference
        between the coarser grids and the finest. Parts solved one by one therefore join.

    Raises
    ------
    ValueError
        As in :func:`solve`, or no data are within MARGIN cells of the window.

    Examples
    --------
    >>> x, y = np.arange(900.0), np.arange(900.0) % 30
    >>> z = 100 * np.sin(x / 50)
    >>> part = refine(solve_coarse(x, y, z), x, y, z, (0, 400, 29, 500)).grid((30, 900))
    >>> whole = solve(x, y, z).grid((30, 900))
    >>> bool(np.abs(part - whole)[:, 400:501].max() < 0.1)
    True
    """
    x, y, z = checked_data(x, y, z)
    _require_inside(x, y, coarse.plan.shape)
    row, column = nearest_node(y, 1), nearest_node(x, 1)
    south, west, north, east = window
    near = (row >= south - MARGIN) & (row <= north + MARGIN)
    near &= (column >= west - MARGIN) & (column <= east + MARGIN)
    if not near.any():
        raise ValueError(f"no data within {MARGIN} cells of the window {window}")
    x, y, z = x[near], y[near], z[near]
    data = average_at_nodes(x, y, z, np.ones(len(x)), 1)
    levels = _nested(_less_trend(data, coarse.trend), coarse.spacing)
    with _pool(threads) as pool:
        return _finer(coarse, levels, pool)


def _pool(threads: int | None) -> AbstractContextManager[ThreadPoolExecutor | None]:
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be at least 1, not {threads}")
    threads = threads or numba.config.NUMBA_NUM_THREADS
    return ThreadPoolExecutor(threads) if threads > 1 else nullcontext()


def _coarsest_first(
    x: Floats, y: Floats, z: Floats, plan: Plan, pool: ThreadPoolExecutor | None
) -> tuple[Coarse, list[NodeData]]:
    """Solve the coarser grids, and return the data of the finer ones, the finest first."""
    if not 0 <= plan.tension <= 1 or plan.reach < 5 or plan.sweeps < 1:
        raise ValueError(
            f"tension {plan.tension} must be from 0 to 1, reach {plan.reach} at least 5,"
            f" sweeps {plan.sweeps} at least 1"
        )
    x, y, z = checked_data(x, y, z)
    _require_inside(x, y, plan.shape)
    data = average_at_nodes(x, y, z, np.ones(len(x)), 1)
    trend = _trend(data.x, data.y, data.z)
    levels = _nested(_less_trend(data, trend))
    low, high = levels[0].z.min(), levels[0].z.max()
    # The second term is for data all in one plane, whose range is nothing but rounding.
    margin = _OVERSHOOT * (high - low) + 1e-5 * max(abs(low), abs(high))
    bounds = float(low - margin), float(high + margin)
    finer = min(_SHARED, len(levels) - 1)
    band: Band | None = None
    for level in range(len(levels) - 1, finer - 1, -1):
        band = relax_grid(levels[level], 2**level, plan, band, bounds, pool)
    assert band is not None  # noqa: S101 - there is at least one level
    return Coarse(band, 2**finer, trend, bounds, plan), levels[:finer]


def _finer(coarse: Coarse, levels: list[NodeData], pool: ThreadPoolExecutor | None) -> Band:
    """Solve the finer grids, and return the heights, trend included, on the finest."""
    band = coarse.band
    for level in range(len(levels) - 1, -1, -1):
        band = relax_grid(levels[level], 2**level, coarse.plan, band, coarse.bounds, pool)
    heights = Band(band.runs, band.values.copy())
    _add_plane(heights.runs, heights.values, *coarse.trend)
    return heights


def _require_inside(x: Floats, y: Floats, shape: tuple[int, int] | None) -> None:
    if shape is not None:
        for values, count in ((x, shape[1]), (y, shape[0])):
            nodes = nearest_node(values, 1)
            if nodes.min() < 0 or nodes.max() >= count:
                raise ValueError(f"data are outside the region of {shape} nodes")


def _less_trend(data: NodeData, trend: tuple[float, float, float]) -> NodeData:
    return data._replace(z=data.z - (trend[0] + trend[1] * data.x + trend[2] * data.y))


def _nested(data: NodeData, spacing: int | None = None) -> list[NodeData]:
    """Average the data on grids of 1, 2, 4... cells.

    The grids are those finer than a spacing, or all up to one on which few nodes span the data.
    """
    levels = [data]
    while (
        2 ** len(levels) < spacing
        if spacing
        else max(np.ptp(data.column), np.ptp(data.row)) >= _COARSEST
    ):
        data = average_at_nodes(data.x, data.y, data.z, data.number, 2 ** len(levels))
        levels.append(data)
    return levels if spacing != 1 else []


def _trend(x: Floats, y: Floats, z: Floats) -> tuple[float, float, float]:
    """Return constant and slopes along x and y of a plane fitted to the data.

    A slope is fitted only in directions in which the data extend far enough to define it.
    """
    middle = np.array([x.mean(), y.mean()])
    away = np.stack([x, y], axis=1) - middle
    # The principal axes of the positions, the shorter first.
    variances, directions = np.linalg.eigh(away.T @ away / len(x))
    across, along = np.sqrt(np.maximum(variances, 0))
    straight = across < max(_NARROW, min(_STRAIGHT, 0.1 * along))
    basis = directions[:, [not straight, along >= _NARROW]]
    terms = np.concatenate([np.ones((len(x), 1)), away @ basis], axis=1)
    level, *slopes = np.linalg.lstsq(terms, z, rcond=None)[0]
    slope = basis @ slopes
    return float(level - middle @ slope), float(slope[0]), float(slope[1])


@compiled
def _add_plane(runs: Any, values: Any, constant: float, along_x: float, along_y: float) -> None:
    k = 0
    for i in range(len(runs.first) - 1):
        row = constant + along_y * (runs.top + i)
        for run in range(runs.first[i], runs.first[i + 1]):
            for column in range(runs.start[run], runs.stop[run]):
                values[k] += row + along_x * column
                k += 1
