"""A continuous-curvature spline in tension, solved in a band around the data.

Arrays in, arrays out: coordinates in cells, a node at every whole number. The equation is that of
Smith & Wessel (1990, doi 10.1190/1.1442837), (1 - T) biharmonic(u) - T Laplacian(u) = 0, with data
between nodes after Briggs (1974, doi 10.1190/1.1440410).
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numba
import numpy as np
import numpy.typing as npt

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.floating]
Integers = npt.NDArray[np.int64]

_Function = TypeVar("_Function", bound=Callable[..., Any])
_njit: Callable[[_Function], _Function] = numba.njit(nogil=True, cache=True)
# Multiplies and adds in one step, a third faster; the same on any thread of one machine.
_njit_fused: Callable[[_Function], _Function] = numba.njit(
    nogil=True, cache=True, fastmath={"contract"}
)

MARGIN = 128
"""Cells around a part of a region within which data bear on it directly."""

_COARSEST = 16  # nodes that the data span on the coarsest grid, at most
# Times that the spacing is halved within a part: the coarser grids are of all data. The edge of a
# part is felt as far as a band is wide, which is twice as many cells on a grid twice as coarse.
_SHARED = 1
_FRAME = 2  # nodes that the stencil reaches
_ON_NODE = 0.05  # cells: data nearer than this to a node fix it, as in GMT
_OVERRELAXATION = 1.9
_CAREFUL = 1.4  # when that diverges
# Rows a chunk, and sweeps of a chunk before its neighbours' turn. Chunks end at the same rows in
# any part of a region and for any number of threads, and so the result does not depend on either.
_CHUNK = 64
_TURN = 8
_COARSEST_TURNS = 100
# Heights may leave the data's range by this many times its width.
_OVERSHOOT = 2.0
# Medians nearer than this (RMS, in cells) to a straight line ten times as long lie on it.
_STRAIGHT = 2.0
# Across less than this (RMS, in cells) no slope is taken: it would carry far beyond the data.
_NARROW = 0.25
_NO_EDGE = 2**40
_LARGEST = 2**23  # cells from the origin: each row between the data takes some bytes


class Runs(NamedTuple):
    """Nodes of a grid as runs along its rows.

    Row ``top + i`` holds runs ``first[i]`` to ``first[i + 1]``, sorted and apart; a run holds the
    columns ``start`` to ``stop``, the last one left out.
    """

    top: int
    first: Integers
    start: Integers
    stop: Integers


@dataclass(frozen=True)
class Band:
    """Heights at the nodes near the data.

    Attributes
    ----------
    runs
        Which nodes.
    values
        float32, run after run: the unit of the data.
    """

    runs: Runs
    values: npt.NDArray[np.float32]

    def grid(self, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
        """Heights at the nodes (0, 0) to (rows - 1, columns - 1), NaN outside the band."""
        grid = np.full(shape, np.nan, np.float32)
        _fill(grid, self.runs, _offsets(self.runs), self.values)
        return grid

    def centres(
        self,
        shape: tuple[int, int],
        row: Integers,
        column: Integers,
        radius: float,
        first_row: int = 0,
    ) -> npt.NDArray[np.float32]:
        """Heights at the centres of cells that lie within a radius of given cells.

        Parameters
        ----------
        shape
            Rows and columns of cells; cell (0, 0) lies between the nodes (0, 0) and (1, 1) if
            ``first_row`` is 0.
        row, column
            int64 (n,): cells that hold data; repeats do no harm.
        radius
            Cells, from centre to centre, at most the reach of the band less 2.
        first_row
            Row of cells to begin with, for a large grid that is written row by row.

        Returns
        -------
        numpy.ndarray
            float32 (rows, columns): bicubic convolution (Keys 1981, doi 10.1109/TASSP.1981.1163711)
            of the nodes, NaN beyond the radius.

        Raises
        ------
        ValueError
            A cell whose centre is so near is not in the band.
        """
        grid = np.full(shape, np.nan, np.float32)
        inside = (row >= first_row - radius) & (row < first_row + shape[0] + radius)
        if not inside.any():
            return grid
        near = _dilate_disc(_runs_of(row[inside], column[inside]), radius)
        if not _convolve(grid, first_row, near, self.runs, _offsets(self.runs), self.values):
            raise ValueError(f"the band does not reach {radius:g} cells from the cells given")
        return grid


def block_medians(x: Floats, y: Floats, z: Floats) -> tuple[Floats, Floats, Floats]:
    """Median x, y and z of the points nearest to each node, each median by itself.

    As ``gmt blockmedian`` with blocks one cell wide around the nodes; the mean of the two middle
    values where their number is even. The order of the points does not matter.

    Parameters
    ----------
    x, y, z
        float64 (n,), finite; x and y in cells.

    Returns
    -------
    tuple
        x, y, z float64 (blocks,), by row and column.

    Examples
    --------
    >>> x, y, z = block_medians(np.array([0.0, 0.2, 3, 0.1]), np.zeros(4), np.array([1.0, 5, 7, 2]))
    >>> x.tolist(), z.tolist()
    ([0.1, 3.0], [2.0, 7.0])
    """
    x, y, z = _checked(x, y, z)
    order, edges = _groups(x, y, 1)
    medians = np.empty((3, len(edges) - 1))
    for values, out in zip((x, y, z), medians, strict=True):
        _medians(values, order, edges, out)
    return medians[0], medians[1], medians[2]


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
    """Heights of the spline at the nodes around the data.

    Parameters
    ----------
    x, y
        float64 (n,), in cells, in any order. Of several data nearest to one node their mean
        counts: pass :func:`block_medians`.
    z
        float64 (n,), in any unit.
    shape
        Rows and columns of nodes of a region with free edges, from node (0, 0); all data lie in it.
        Without it there is no edge, and the surface levels off far from the data.
    tension
        From 0 (minimum curvature) to 1 (harmonic).
    reach
        Nodes up to so many columns and rows from a datum are solved for, at least 5. The further,
        the nearer to the spline of the whole plane.
    sweeps
        Of relaxation on the finest grid; a third on each of the coarser ones.
    threads
        All that numba may use by default. The result is the same, bit for bit, for any number.

    Returns
    -------
    Band
        float32 heights; memory and time follow the number of data, not the area between them.

    Raises
    ------
    ValueError
        No data, values that are not finite, arrays of unequal length, data outside the region,
        parameters out of range.

    Notes
    -----
    A plane is taken off the data first, or the trend along it where the data lie on one straight
    line, which carries no plane; a single datum gives a constant. Nested grids, each with half the
    spacing of the one before, are relaxed in turn (successive over-relaxation). On each, the nodes
    solved for stand in a frame held at the heights of the coarser one; the coarsest is a rectangle
    with level edges. At an edge of the region, as in GMT: (1 - T) u_nn + T u_n = 0 along the normal
    n, no change of the Laplacian across the edge, and u_xy = 0 in a corner.

    No height leaves the range of the data, less the plane, by more than twice its width: should a
    grid be about to, it is relaxed anew, more slowly and then as a harmonic surface through the
    nodes next to the data, and a warning is logged.

    Examples
    --------
    >>> x, y = np.array([0.0, 10, 0, 10]), np.array([0.0, 0, 8, 8])
    >>> solve(x, y, 100 + 2 * x - y).grid((9, 11))[4, ::5].tolist()
    [96.0, 106.0, 116.0]
    """
    with _pool(threads) as pool:
        coarse, levels = _coarsest_first(x, y, z, _Plan(shape, tension, reach, sweeps), pool)
        return _finer(coarse, levels, pool)


class _Plan(NamedTuple):
    """What :func:`solve` was asked for."""

    shape: tuple[int, int] | None
    tension: float
    reach: int
    sweeps: int


@dataclass(frozen=True)
class Coarse:
    """The coarser grids of a spline, solved: any part of the finest one follows from them.

    Attributes
    ----------
    band
        Heights less the trend, at nodes ``spacing`` cells apart.
    spacing
        2 cells, or 1 where the data span few.
    trend
        Of the heights: a constant, and slopes along x and y.
    bounds
        What heights less the trend keep to.
    plan
        What was asked for.
    """

    band: Band
    spacing: int
    trend: tuple[float, float, float]
    bounds: tuple[float, float]
    plan: _Plan


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

    Parameters, and errors, are those of :func:`solve`. Time and memory are a fraction of its, and
    the result is small enough to send to other machines.
    """
    with _pool(threads) as pool:
        return _coarsest_first(x, y, z, _Plan(shape, tension, reach, sweeps), pool)[0]


def refine(
    coarse: Coarse,
    x: Floats,
    y: Floats,
    z: Floats,
    window: tuple[int, int, int, int],
    threads: int | None = None,
) -> Band:
    """Heights of the spline at the nodes around the data of a part of the region.

    Parameters
    ----------
    coarse
        Of all data, with all parameters.
    x, y, z
        Those data, as :func:`solve_coarse` got them, that lie within :data:`MARGIN` cells of the
        window; more do no harm.
    window
        First row and column, last row and column of its nodes.
    threads
        As of :func:`solve`.

    Returns
    -------
    Band
        The nodes around those data. In the window the heights are those that :func:`solve` gives,
        but for what is left, at a distance of MARGIN, of the difference between the coarser grids
        and the finest: some 1/50,000 of the relief. So parts that are solved one by one join.

    Raises
    ------
    ValueError
        As :func:`solve`; no data so near to the window.

    Examples
    --------
    >>> x, y = np.arange(900.0), np.arange(900.0) % 30
    >>> z = 100 * np.sin(x / 50)
    >>> part = refine(solve_coarse(x, y, z), x, y, z, (0, 400, 29, 500)).grid((30, 900))
    >>> whole = solve(x, y, z).grid((30, 900))
    >>> bool(np.abs(part - whole)[:, 400:501].max() < 0.1)
    True
    """
    x, y, z = _checked(x, y, z)
    _require_inside(x, y, coarse.plan.shape)
    row, column = _nearest(y, 1), _nearest(x, 1)
    south, west, north, east = window
    beside = (row >= south - MARGIN) & (row <= north + MARGIN)
    beside &= (column >= west - MARGIN) & (column <= east + MARGIN)
    if not beside.any():
        raise ValueError(f"no data within {MARGIN} cells of the window {window}")
    x, y, z = x[beside], y[beside], z[beside]
    data = _data_of(x, y, z, np.ones(len(x)), 1)
    levels = _nested(_less_trend(data, coarse.trend), coarse.spacing)
    with _pool(threads) as pool:
        return _finer(coarse, levels, pool)


def _pool(threads: int | None) -> AbstractContextManager[ThreadPoolExecutor | None]:
    if threads is not None and threads < 1:
        raise ValueError(f"threads {threads} must not be under 1")
    threads = threads or numba.config.NUMBA_NUM_THREADS
    return ThreadPoolExecutor(threads) if threads > 1 else nullcontext()


def _coarsest_first(
    x: Floats, y: Floats, z: Floats, plan: _Plan, pool: ThreadPoolExecutor | None
) -> tuple[Coarse, list[_Data]]:
    """The coarser grids, solved, and the data of the finer ones, from the finest on."""
    if not 0 <= plan.tension <= 1 or plan.reach < 5 or plan.sweeps < 1:
        raise ValueError(
            f"tension {plan.tension} must lie in 0 to 1, reach {plan.reach} not under 5,"
            f" sweeps {plan.sweeps} not under 1"
        )
    x, y, z = _checked(x, y, z)
    _require_inside(x, y, plan.shape)
    data = _data_of(x, y, z, np.ones(len(x)), 1)
    trend = _trend(data.x, data.y, data.z)
    levels = _nested(_less_trend(data, trend))
    low, high = levels[0].z.min(), levels[0].z.max()
    margin = _OVERSHOOT * (high - low) + 1e-5 * max(abs(low), abs(high))
    bounds = float(low - margin), float(high + margin)
    finer = min(_SHARED, len(levels) - 1)
    band: Band | None = None
    for level in range(len(levels) - 1, finer - 1, -1):
        band = _level(levels[level], 2**level, plan, band, bounds, pool)
    assert band is not None  # noqa: S101 - there is at least one level
    return Coarse(band, 2**finer, trend, bounds, plan), levels[:finer]


def _finer(coarse: Coarse, levels: list[_Data], pool: ThreadPoolExecutor | None) -> Band:
    """The finer grids; the heights, trend included, on the last of them."""
    band = coarse.band
    for level in range(len(levels) - 1, -1, -1):
        band = _level(levels[level], 2**level, coarse.plan, band, coarse.bounds, pool)
    heights = Band(band.runs, band.values.copy())
    _add_plane(heights.runs, heights.values, *coarse.trend)
    return heights


def _require_inside(x: Floats, y: Floats, shape: tuple[int, int] | None) -> None:
    if shape is not None:
        for values, count in ((x, shape[1]), (y, shape[0])):
            nodes = _nearest(values, 1)
            if nodes.min() < 0 or nodes.max() >= count:
                raise ValueError(f"data lie outside the region of {shape} nodes")


def _less_trend(data: _Data, trend: tuple[float, float, float]) -> _Data:
    return data._replace(z=data.z - (trend[0] + trend[1] * data.x + trend[2] * data.y))


def _nested(data: _Data, spacing: int | None = None) -> list[_Data]:
    """The data on grids of 1, 2, 4... cells: those under a spacing, or until one spans them all."""
    levels = [data]
    while (
        2 ** len(levels) < spacing
        if spacing
        else max(np.ptp(data.column), np.ptp(data.row)) >= _COARSEST
    ):
        data = _data_of(data.x, data.y, data.z, data.number, 2 ** len(levels))
        levels.append(data)
    return levels if spacing != 1 else []


class _Box(NamedTuple):
    """The first and the last column and row of nodes of a region."""

    west: int
    east: int
    south: int
    north: int


def _edges(last: int | None, spacing: int) -> tuple[int, int]:
    if last is None or -(-last // spacing) < 3:  # the free edges would meet
        return -_NO_EDGE, _NO_EDGE
    return 0, -(-last // spacing)


class _Data(NamedTuple):
    """One datum a node, by row and column; x, y in cells of the finest grid."""

    x: Floats
    y: Floats
    z: Floats
    number: Floats
    row: Integers
    column: Integers


def _checked(x: Floats, y: Floats, z: Floats) -> tuple[Floats, Floats, Floats]:
    x, y, z = (np.ascontiguousarray(values, np.float64) for values in (x, y, z))
    if not x.ndim == y.ndim == z.ndim == 1 or not x.size == y.size == z.size:
        raise ValueError(f"x, y and z must be alike in length: {x.shape}, {y.shape}, {z.shape}")
    if x.size == 0:
        raise ValueError("no data")
    for name, values in (("x", x), ("y", y), ("z", z)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name} holds values that are not finite")
    if max(np.abs(x).max(), np.abs(y).max()) > _LARGEST:
        raise ValueError(f"x and y must lie within {_LARGEST} cells of the origin")
    return x, y, z


def _groups(x: Floats, y: Floats, spacing: int) -> tuple[Integers, Integers]:
    """Points sorted by nearest node, and where in that order each node's begin; the end too."""
    row, column = _nearest(y, spacing), _nearest(x, spacing)
    key = (row - row.min()) * (np.ptp(column) + 1) + (column - column.min())
    order = np.argsort(key)
    ordered = key[order]
    new = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
    return order, np.concatenate([[0], new, [len(x)]])


def _nearest(values: Floats, spacing: int) -> Integers:
    return np.floor(values / spacing + 0.5).astype(np.int64)


@_njit
def _medians(values: Any, order: Any, edges: Any, out: Any) -> None:
    for block in range(len(out)):
        group = np.sort(values[order[edges[block] : edges[block + 1]]])
        middle = len(group) // 2
        out[block] = group[middle] if len(group) % 2 else (group[middle - 1] + group[middle]) / 2


def _trend(x: Floats, y: Floats, z: Floats) -> tuple[float, float, float]:
    """Constant and slopes along x and y of a plane through the data, as far as they carry one."""
    middle = np.array([x.mean(), y.mean()])
    away = np.stack([x, y], axis=1) - middle
    variances, directions = np.linalg.eigh(away.T @ away / len(x))
    across, along = np.sqrt(np.maximum(variances, 0))
    straight = across < max(_NARROW, min(_STRAIGHT, 0.1 * along))
    basis = directions[:, [not straight, along >= _NARROW]]
    terms = np.concatenate([np.ones((len(x), 1)), away @ basis], axis=1)
    level, *slopes = np.linalg.lstsq(terms, z, rcond=None)[0]
    slope = basis @ slopes
    return float(level - middle @ slope), float(slope[0]), float(slope[1])


def _data_of(x: Floats, y: Floats, z: Floats, number: Floats, spacing: int) -> _Data:
    order, edges = _groups(x, y, spacing)
    first = order[edges[:-1]]
    row, column = _nearest(y[first], spacing), _nearest(x[first], spacing)
    total = np.add.reduceat(number[order], edges[:-1])
    x, y, z = (np.add.reduceat((v * number)[order], edges[:-1]) / total for v in (x, y, z))
    return _Data(x, y, z, total, row, column)


def _runs_of(row: Integers, column: Integers) -> Runs:
    """The runs of some nodes; repeats do no harm."""
    order = np.lexsort((column, row))
    row, column = row[order], column[order]
    new = np.ones(len(row), bool)
    new[1:] = (row[1:] != row[:-1]) | (column[1:] > column[:-1] + 1)
    last = np.append(new[1:], True)
    top = int(row[0])
    rows = np.arange(top, row[-1] + 2)
    return Runs(top, np.searchsorted(row[new], rows), column[new], column[last] + 1)


def _dilate(runs: Runs, reach: int) -> Runs:
    """Nodes up to so many columns and rows away."""
    size, wanted = 1, 2 * reach + 1
    grown = Runs(runs.top, runs.first, runs.start - reach, runs.stop + reach)
    grown = _union(grown, grown)
    while size < wanted:
        step = min(size, wanted - size)
        grown = _union(grown, grown._replace(top=grown.top + step))
        size += step
    return grown._replace(top=grown.top - reach)


def _clip(runs: Runs, box: _Box, margin: int) -> Runs:
    """The nodes in a box and a margin around it; every row and run reaches into it."""
    bottom = max(box.south - margin - runs.top, 0)
    top = min(box.north + margin + 1 - runs.top, len(runs.first) - 1)
    first = runs.first[bottom : top + 1]
    kept = slice(first[0], first[-1])
    return Runs(
        runs.top + bottom,
        first - first[0],
        np.maximum(runs.start[kept], box.west - margin),
        np.minimum(runs.stop[kept], box.east + margin + 1),
    )


def _dilate_disc(runs: Runs, radius: float) -> Runs:
    """Nodes up to a distance away."""
    grown: Runs | None = None
    for rows in range(-int(radius), int(radius) + 1):
        columns = int(np.sqrt(radius**2 - rows**2))
        moved = Runs(runs.top + rows, runs.first, runs.start - columns, runs.stop + columns)
        grown = _union(moved, moved if grown is None else grown)
    assert grown is not None  # noqa: S101 - there is at least one row
    return grown


def _union(a: Runs, b: Runs) -> Runs:
    top = min(a.top, b.top)
    rows = max(a.top + len(a.first), b.top + len(b.first)) - 1 - top
    return Runs(top, *_merge(a, b, top, rows))


@_njit
def _merge(a: Any, b: Any, top: int, rows: int) -> Any:
    most = len(a.start) + len(b.start)
    first = np.zeros(rows + 1, np.int64)
    start, stop = np.empty(most, np.int64), np.empty(most, np.int64)
    count = 0
    for row in range(rows):
        i = i_end = j = j_end = 0
        if 0 <= row + top - a.top < len(a.first) - 1:
            i, i_end = a.first[row + top - a.top], a.first[row + top - a.top + 1]
        if 0 <= row + top - b.top < len(b.first) - 1:
            j, j_end = b.first[row + top - b.top], b.first[row + top - b.top + 1]
        while i < i_end or j < j_end:
            if j == j_end or (i < i_end and a.start[i] <= b.start[j]):
                begin, end = a.start[i], a.stop[i]
                i += 1
            else:
                begin, end = b.start[j], b.stop[j]
                j += 1
            if count > first[row] and begin <= stop[count - 1]:
                stop[count - 1] = max(stop[count - 1], end)
            else:
                start[count], stop[count] = begin, end
                count += 1
        first[row + 1] = count
    return first, start[:count].copy(), stop[:count].copy()


def _rectangle(runs: Runs) -> Runs:
    rows = len(runs.first) - 1
    start, stop = np.full(rows, runs.start.min()), np.full(rows, runs.stop.max())
    return Runs(runs.top, np.arange(rows + 1), start, stop)


def _offsets(runs: Runs) -> Integers:
    """What to add to a column to get the index of its value, a run; the number of values last."""
    ends = np.concatenate([[0], np.cumsum(runs.stop - runs.start)])
    ends[:-1] -= runs.start
    return ends


def _level(
    data: _Data,
    spacing: int,
    plan: _Plan,
    coarser: Band | None,
    bounds: tuple[float, float],
    pool: ThreadPoolExecutor | None,
) -> Band:
    """The grid whose nodes are so many cells apart."""
    # Without this scaling a coarse grid would be stiffer than the finest one.
    tension = plan.tension / (plan.tension + (1 - plan.tension) / spacing**2)
    turns = max(1, (plan.sweeps if spacing == 1 else plan.sweeps // 3) // _TURN)
    columns, rows = (None, None) if plan.shape is None else (plan.shape[1] - 1, plan.shape[0] - 1)
    box = _Box(*_edges(columns, spacing), *_edges(rows, spacing))
    nodes = _runs_of(data.row, data.column)
    if coarser is None:
        nodes = _rectangle(nodes)
    active = _clip(_dilate(nodes, plan.reach), box, 0)
    stored = _clip(_dilate(nodes, plan.reach + _FRAME), box, _FRAME)
    offsets = _offsets(stored)
    chunks = _chunks(active)
    around = _rows_around(active, stored, offsets)
    datum = _datum_of_run(active, data)
    # A harmonic surface that is fixed at its data has its extremes there.
    for relaxation, surface, on_node in (
        (_OVERRELAXATION, tension, _ON_NODE),
        (_CAREFUL, tension, _ON_NODE),
        (1.0, 1.0, np.inf),
    ):
        values = np.empty(offsets[-1], np.float32)
        if coarser is None:
            values[:] = np.average(data.z, weights=data.number)
        else:
            _refine(values, stored, offsets, coarser.runs, _offsets(coarser.runs), coarser.values)
        factors = np.array([surface, plan.tension, relaxation], np.float32)
        terms = _terms(data, spacing, np.float32(surface), on_node)
        for _ in range(turns if coarser else _COARSEST_TURNS):
            for every_other in chunks:
                _each(
                    pool,
                    [
                        (values, active, around, box, datum, data.column, *terms, factors, *chunk)
                        for chunk in every_other
                    ],
                )
            if coarser is None:
                _level_off(values.reshape(len(stored.first) - 1, -1), active, box)
        lowest, highest = _extremes(values, active, around)
        if bounds[0] <= lowest <= highest <= bounds[1]:
            break
        logger.warning(
            "the spline left its bounds on the grid of %d cells with relaxation %g, tension %g:"
            " heights from %g to %g beside the plane",
            *(spacing, relaxation, surface, lowest, highest),
        )
    else:
        np.nan_to_num(values, copy=False)
        values.clip(*bounds, out=values)
    return Band(stored, values)


def _level_off(values: npt.NDArray[np.float32], active: Runs, box: _Box) -> None:
    """Mirror a rectangle in those of its edges that are none of the region's."""
    if active.top != box.south:
        values[:2] = values[3:1:-1]
    if active.top + len(active.first) - 2 != box.north:
        values[-2:] = values[-3:-5:-1]
    if active.start[0] != box.west:
        values[:, :2] = values[:, 3:1:-1]
    if active.stop[0] - 1 != box.east:
        values[:, -2:] = values[:, -3:-5:-1]


@_njit
def _extremes(values: Any, active: Any, around: Any) -> Any:
    """Lowest and highest value at the active nodes, NaN if any is."""
    lowest, highest = np.inf, -np.inf
    for run in range(len(active.start)):
        for column in range(active.start[run], active.stop[run]):
            value = values[around[run, 2] + column]
            if np.isnan(value):
                return np.nan, np.nan
            lowest, highest = min(lowest, value), max(highest, value)
    return lowest, highest


def _chunks(active: Runs) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """First and last run of chunks of whole rows, at least as many as the stencil reaches.

    Every other one, from the first of the plane or from the second.
    """
    rows = len(active.first) - 1
    cuts = np.arange(active.top // _CHUNK + 1, (active.top + rows) // _CHUNK + 1) * _CHUNK
    cuts = cuts[(cuts - active.top >= _FRAME) & (active.top + rows - cuts >= _FRAME)]
    edges = [0, *(cuts - active.top).tolist(), rows]
    chunks = [(int(active.first[a]), int(active.first[b])) for a, b in itertools.pairwise(edges)]
    odd = (active.top + edges[1] - 1) // _CHUNK % 2
    return chunks[odd::2], chunks[1 - odd :: 2]


def _each(pool: ThreadPoolExecutor | None, calls: list[tuple[Any, ...]]) -> None:
    if pool is None or len(calls) == 1:
        for call in calls:
            _relax(*call)
    else:
        for done in [pool.submit(_relax, *call) for call in calls]:
            done.result()


@_njit
def _find(runs: Any, row: int, column: int) -> int:
    """The run that holds a node, -1 if none does."""
    i = row - runs.top
    if i < 0 or i >= len(runs.first) - 1:
        return -1
    low, high = runs.first[i], runs.first[i + 1]
    while low < high:
        middle = (low + high) // 2
        if runs.stop[middle] <= column:
            low = middle + 1
        else:
            high = middle
    return low if low < runs.first[i + 1] and runs.start[low] <= column else -1


@_njit
def _rows_around(active: Any, stored: Any, offsets: Any) -> Any:
    """Offsets in the two rows south of each run, its own and the two north, (runs, 5)."""
    around = np.empty((len(active.start), 5), np.int64)
    for i in range(len(active.first) - 1):
        for run in range(active.first[i], active.first[i + 1]):
            for step in range(5):
                found = _find(stored, active.top + i + step - 2, active.start[run])
                around[run, step] = offsets[found]
    return around


def _datum_of_run(active: Runs, data: _Data) -> Integers:
    """The first datum of each run; the number of data last."""
    west, width = active.start.min(), active.stop.max() - active.start.min()
    row = np.repeat(np.arange(len(active.first) - 1), np.diff(active.first))
    run = row * width + active.start - west
    datum = (data.row - active.top) * width + data.column - west
    return np.append(np.searchsorted(datum, run), len(datum))


@_njit
def _refine(
    values: Any, stored: Any, offsets: Any, coarser: Any, coarse_offsets: Any, coarse: Any
) -> None:
    """Bilinear values of the grid of twice the spacing."""
    for i in range(len(stored.first) - 1):
        row = stored.top + i
        for run in range(stored.first[i], stored.first[i + 1]):
            start, stop = stored.start[run], stored.stop[run]
            above = coarse_offsets[_find(coarser, row >> 1, start >> 1)]
            below = coarse_offsets[_find(coarser, (row + 1) >> 1, start >> 1)]
            for column in range(start, stop):
                west, east = column >> 1, (column + 1) >> 1
                values[offsets[run] + column] = np.float32(0.25) * (
                    (coarse[above + west] + coarse[above + east])
                    + (coarse[below + west] + coarse[below + east])
                )


def _terms(data: _Data, spacing: int, tension: np.float32, on_node: float) -> Any:
    """What a datum adds to the equation of its node.

    The Laplacian at a node comes from the Taylor series, to the second order, of the datum in one
    quadrant and of four nodes around the other three. With the datum north-east: west, south,
    north-west and south-east; their weights make all but the second derivatives vanish. Returns the
    side of the datum (n, 2) in columns and rows, the weights of these four divided by that of the
    node itself, with the datum's share last (n, 5), and the share of the stencil (n,), which is 0
    where the datum fixes the node.
    """
    x, y = data.x / spacing - data.column, data.y / spacing - data.row
    side = np.where(np.stack([x, y], axis=1) < 0, -1, 1)
    x, y = abs(x), abs(y)
    fixed = np.maximum(x, y) <= on_node
    x = np.where(fixed, 0.5, x)
    y = np.where(fixed, 0.5, y)
    datum = 4 / ((x + y) * (x + y + 1))
    west, south = 2 - x * (x + y) * datum, 2 - y * (x + y) * datum
    both, apart = x * y * datum, west - x * datum
    weights = np.stack([west, south, (both - apart) / 2, (both + apart) / 2, datum])
    stiff, laplacian = 1 - tension, 4 - 3 * tension
    node = 4 * stiff + laplacian * weights.sum(axis=0)
    weights *= laplacian / node
    weights[:, fixed] = 0
    weights[4] *= data.z
    weights[4, fixed] = data.z[fixed]
    stencil = np.where(fixed, 0, stiff / node)
    return side, np.ascontiguousarray(weights.T, np.float32), stencil.astype(np.float32)


@_njit
def _outside(inside: Any, edge: Any, tension: Any) -> Any:
    """The height a node beyond a free edge, from that on it and that within."""
    return (4 * (1 - tension) * edge + (3 * tension - 2) * inside) / (2 - tension)


@_njit
def _free_end(own: Any, s1: Any, n1: Any, tension: Any) -> None:
    """Set the two nodes of a row, own[0] and own[1], beyond a free edge at own[2]."""
    own[1] = _outside(own[3], own[2], tension)
    own[0] = own[4] + (s1[2] + n1[2] - s1[0] - n1[0]) - 4 * (own[3] - own[1])


@_njit
def _free_side(
    out2: Any, out1: Any, edge: Any, in1: Any, in2: Any, west: bool, east: bool, tension: Any
) -> None:
    """Set the nodes of the two rows beyond a free edge; out1, edge and in1 are two nodes wider."""
    for i in range(len(edge)):
        out1[i] = _outside(in1[i], edge[i], tension)
    if west:
        out1[0] = out1[2] + in1[0] - in1[2]
    if east:
        out1[-1] = out1[-3] + in1[-1] - in1[-3]
    for i in range(len(out2)):
        out2[i] = (
            in2[i] + (in1[i] + in1[i + 2] - out1[i] - out1[i + 2]) - 4 * (in1[i + 1] - out1[i + 1])
        )


@_njit_fused
def _relax(
    values: Any,
    active: Any,
    around: Any,
    box: Any,
    datum_of_run: Any,
    data_column: Any,
    side: Any,
    weights: Any,
    stencil: Any,
    factors: Any,
    first: int,
    last: int,
) -> None:
    """Gauss-Seidel sweeps over some runs, over-relaxed where there is no datum."""
    tension, edge_tension, relaxation = factors
    row = np.searchsorted(active.first, first, "right") - 1
    one = np.float32(1)
    stiff = one - tension
    share = relaxation / (20 * stiff + 4 * tension)
    near, diagonal, far = (
        np.float32(share * (8 * stiff + tension)),
        np.float32(share * 2 * stiff),
        np.float32(share * stiff),
    )
    keep = np.float32(one - relaxation)
    widest = 0
    for run in range(first, last):
        widest = max(widest, active.stop[run] - active.start[run])
    known = np.empty(widest, np.float32)
    for _ in range(_TURN):
        at = row
        for run in range(first, last):
            while active.first[at + 1] <= run:
                at += 1
            start, stop = active.start[run], active.stop[run]
            length = stop - start
            # Slices spare the test for a negative index, and so the inner loops are fast.
            s2 = values[around[run, 0] + start : around[run, 0] + stop]
            s1 = values[around[run, 1] + start - 1 : around[run, 1] + stop + 1]
            own = values[around[run, 2] + start - 2 : around[run, 2] + stop + 2]
            n1 = values[around[run, 3] + start - 1 : around[run, 3] + stop + 1]
            n2 = values[around[run, 4] + start : around[run, 4] + stop]
            west, east = start == box.west, stop - 1 == box.east
            if west:
                _free_end(own[:5], s1[:3], n1[:3], edge_tension)
            if east:
                _free_end(own[::-1][:5], s1[::-1][:3], n1[::-1][:3], edge_tension)
            if active.top + at == box.south:
                _free_side(s2, s1, own[1:-1], n1, n2, west, east, edge_tension)
            if active.top + at == box.north:
                _free_side(n2, n1, own[1:-1], s1, s2, west, east, edge_tension)
            for i in range(length):
                known[i] = (
                    keep * own[i + 2]
                    + near * (own[i + 3] + (s1[i + 1] + n1[i + 1]))
                    - diagonal * ((s1[i] + s1[i + 2]) + (n1[i] + n1[i + 2]))
                    - far * (own[i + 4] + (s2[i] + n2[i]))
                )
            begin = 0
            for datum in range(datum_of_run[run], datum_of_run[run + 1] + 1):
                end = data_column[datum] - start if datum < datum_of_run[run + 1] else length
                # Held in registers: a value that was just stored is slow to read again.
                before, last_one = own[begin], own[begin + 1]
                for i in range(begin, end):
                    before, last_one = last_one, (known[i] - far * before) + near * last_one
                    own[i + 2] = last_one
                if end == length:
                    break
                i = end  # the node of the datum
                x = 1 if side[datum, 0] > 0 else -1
                one_side, other = (n1, s1) if side[datum, 1] > 0 else (s1, n1)
                twelve = (
                    (s2[i] + n2[i] + own[i] + own[i + 4])
                    + 2 * (s1[i] + s1[i + 2] + n1[i] + n1[i + 2])
                    - 4 * (s1[i + 1] + n1[i + 1] + own[i + 1] + own[i + 3])
                )
                own[i + 2] = (
                    weights[datum, 0] * own[i + 2 - x]
                    + weights[datum, 1] * other[i + 1]
                    + weights[datum, 2] * one_side[i + 1 - x]
                    + weights[datum, 3] * other[i + 1 + x]
                    + weights[datum, 4]
                    - stencil[datum] * twelve
                )
                begin = end + 1


@_njit
def _add_plane(runs: Any, values: Any, constant: float, along_x: float, along_y: float) -> None:
    k = 0
    for i in range(len(runs.first) - 1):
        row = constant + along_y * (runs.top + i)
        for run in range(runs.first[i], runs.first[i + 1]):
            for column in range(runs.start[run], runs.stop[run]):
                values[k] += row + along_x * column
                k += 1


@_njit
def _fill(grid: Any, runs: Any, offsets: Any, values: Any) -> None:
    rows, columns = grid.shape
    for row in range(max(0, runs.top), min(rows, runs.top + len(runs.first) - 1)):
        for run in range(runs.first[row - runs.top], runs.first[row - runs.top + 1]):
            for column in range(max(0, runs.start[run]), min(columns, runs.stop[run])):
                grid[row, column] = values[offsets[run] + column]


@_njit
def _convolve(grid: Any, first_row: int, near: Any, runs: Any, offsets: Any, values: Any) -> bool:
    rows, columns = grid.shape
    weights = np.array([-1, 9, 9, -1]) / 16
    end = min(first_row + rows, near.top + len(near.first) - 1)
    for row in range(max(first_row, near.top), end):
        for run in range(near.first[row - near.top], near.first[row - near.top + 1]):
            start, stop = max(0, near.start[run]), min(columns, near.stop[run])
            if start >= stop:
                continue
            mean = np.zeros(stop - start + 3)
            for step in range(4):
                found = _find(runs, row + step - 1, start - 1)
                if found < 0 or runs.stop[found] < stop + 2:
                    return False
                at = offsets[found]
                for i in range(len(mean)):
                    mean[i] += weights[step] * values[at + start - 1 + i]
            for i in range(stop - start):
                grid[row - first_row, start + i] = weights[0] * (mean[i] + mean[i + 3]) + weights[
                    1
                ] * (mean[i + 1] + mean[i + 2])
    return True
