"""Relax one grid of the spline by successive over-relaxation.

The stencil is taken from Smith & Wessel (1990, doi 10.1190/1.1442837), the treatment of data
between nodes from Briggs (1974, doi 10.1190/1.1440410). Chunks of whole rows are swept
alternately, so that the result is the same for any number of threads.
"""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from deepbedmap.grids.spline.bands import (
    Band,
    Box,
    clip,
    dilate,
    find_run,
    rectangle,
    runs_of,
    value_offsets,
)
from deepbedmap.grids.spline.compiling import compiled, compiled_fused

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor
    from typing import Any

    import numpy.typing as npt

    from deepbedmap.grids.spline.bands import Runs
    from deepbedmap.grids.spline.compiling import Integers
    from deepbedmap.grids.spline.medians import NodeData

logger = logging.getLogger(__name__)

_FRAME = 2  # nodes that the stencil reaches
_ON_NODE = 0.05  # cells: data nearer than this to a node fix its height, as in GMT
_OVERRELAXATION = 1.9
_CAREFUL = 1.4  # relaxation if that diverges
# Rows in a chunk, and sweeps of a chunk before its neighbours are swept. Chunks end at the same
# rows in any part of a region and for any number of threads: the result depends on neither.
_CHUNK = 64
_TURN = 8
_COARSEST_TURNS = 100
_NO_EDGE = 2**40  # a row or column beyond any data


class Plan(NamedTuple):
    """The parameters of :func:`solve`."""

    shape: tuple[int, int] | None
    tension: float
    reach: int
    sweeps: int


class _Nodes(NamedTuple):
    """The nodes of one grid: the active ones are solved for, the stored ones frame them.

    ``offsets`` locate the values of stored runs, ``around`` those in the five rows of the stencil;
    ``chunks`` are the first and last active run of chunks of rows, every other chunk together.
    """

    box: Box
    active: Runs
    stored: Runs
    offsets: Integers
    around: Integers
    chunks: tuple[list[tuple[int, int]], list[tuple[int, int]]]


def _nodes_of(data: NodeData, spacing: int, plan: Plan, whole: bool) -> _Nodes:
    """Return the nodes of a grid: those near data or, if ``whole``, the rectangle around them."""
    columns, rows = (None, None) if plan.shape is None else (plan.shape[1] - 1, plan.shape[0] - 1)
    box = Box(*_edges(columns, spacing), *_edges(rows, spacing))
    near_data = runs_of(data.row, data.column)
    if whole:
        near_data = rectangle(near_data)
    active = clip(dilate(near_data, plan.reach), box, 0)
    stored = clip(dilate(near_data, plan.reach + _FRAME), box, _FRAME)
    offsets = value_offsets(stored)
    return _Nodes(
        box, active, stored, offsets, _rows_around(active, stored, offsets), _chunks(active)
    )


def _edges(last: int | None, spacing: int) -> tuple[int, int]:
    """Return the first and last row (or column) of a region on a grid, if it has edges."""
    if last is None or -(-last // spacing) < 3:  # the two free edges would interfere
        return -_NO_EDGE, _NO_EDGE
    return 0, -(-last // spacing)


def relax_grid(
    data: NodeData,
    spacing: int,
    plan: Plan,
    coarser: Band | None,
    bounds: tuple[float, float],
    pool: ThreadPoolExecutor | None,
) -> Band:
    """Solve the spline on the grid whose nodes are ``spacing`` cells apart.

    Parameters
    ----------
    data
        Data averaged at the nodes of this grid, less the trend.
    spacing
        Cells of the finest grid.
    plan
        The parameters of :func:`solve`.
    coarser
        The solved grid of twice the spacing, where relaxation starts and which holds the frame;
        None on the coarsest grid.
    bounds
        Lowest and highest height that counts as a solution.
    pool
        Threads to sweep chunks in; None: this thread.
    """
    # Curvature scales with the spacing to the power -4, slope with -2: without this correction a
    # coarse grid would be stiffer than the finest one, and no good start for it.
    tension = plan.tension / (plan.tension + (1 - plan.tension) / spacing**2)
    turns = max(1, (plan.sweeps if spacing == 1 else plan.sweeps // 3) // _TURN)
    nodes = _nodes_of(data, spacing, plan, whole=coarser is None)
    datum = _datum_of_run(nodes.active, data)
    # The last resort is a harmonic surface fixed at its data, whose extremes are at the data.
    for relaxation, surface, on_node in (
        (_OVERRELAXATION, tension, _ON_NODE),
        (_CAREFUL, tension, _ON_NODE),
        (1.0, 1.0, np.inf),
    ):
        values = _initial_heights(nodes, data, coarser)
        factors = np.array([surface, plan.tension, relaxation], np.float32)
        terms = _terms(data, spacing, np.float32(surface), on_node)
        grid = (values, nodes.active, nodes.around, nodes.box, datum, data.column, *terms, factors)
        for _ in range(turns if coarser else _COARSEST_TURNS):
            for every_other in nodes.chunks:
                _each(pool, [(*grid, *chunk) for chunk in every_other])
            if coarser is None:
                _level_off(values.reshape(len(nodes.stored.first) - 1, -1), nodes.active, nodes.box)
        lowest, highest = _extremes(values, nodes.active, nodes.around)
        if bounds[0] <= lowest <= highest <= bounds[1]:
            break
        logger.warning(
            "the spline left its bounds on the grid of %d cells with relaxation %g, tension %g:"
            " heights from %g to %g relative to the plane",
            *(spacing, relaxation, surface, lowest, highest),
        )
    else:
        np.nan_to_num(values, copy=False)
        values.clip(*bounds, out=values)
    return Band(nodes.stored, values)


def _initial_heights(
    nodes: _Nodes, data: NodeData, coarser: Band | None
) -> npt.NDArray[np.float32]:
    """Return heights to start from: the coarser grid's, or the mean on the coarsest grid."""
    values = np.empty(nodes.offsets[-1], np.float32)
    if coarser is None:
        values[:] = np.average(data.z, weights=data.number)
    else:
        coarse_offsets = value_offsets(coarser.runs)
        _refine(values, nodes.stored, nodes.offsets, coarser.runs, coarse_offsets, coarser.values)
    return values


def _level_off(values: npt.NDArray[np.float32], active: Runs, box: Box) -> None:
    """Mirror a rectangle at those of its edges that are not edges of the region.

    The mirror image makes the surface level there, so that it does not run away beyond the data.
    """
    if active.top != box.south:
        values[:2] = values[3:1:-1]
    if active.top + len(active.first) - 2 != box.north:
        values[-2:] = values[-3:-5:-1]
    if active.start[0] != box.west:
        values[:, :2] = values[:, 3:1:-1]
    if active.stop[0] - 1 != box.east:
        values[:, -2:] = values[:, -3:-5:-1]


@compiled
def _extremes(values: Any, active: Any, around: Any) -> Any:
    """Return the lowest and highest value at the active nodes; both NaN if any value is."""
    lowest, highest = np.inf, -np.inf
    for run in range(len(active.start)):
        for column in range(active.start[run], active.stop[run]):
            value = values[around[run, 2] + column]
            if np.isnan(value):
                return np.nan, np.nan
            lowest, highest = min(lowest, value), max(highest, value)
    return lowest, highest


def _chunks(active: Runs) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return first and last run of chunks of whole rows: even chunks, then odd ones.

    A chunk has at least as many rows as the stencil reaches, so that chunks swept at the same time
    never read each other's rows. Whether a chunk is even or odd depends on its rows only, not on
    the part of the region that is solved.
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


@compiled
def _rows_around(active: Any, stored: Any, offsets: Any) -> Any:
    """Return the offsets of values in the five rows around each run, south to north, (runs, 5)."""
    around = np.empty((len(active.start), 5), np.int64)
    for i in range(len(active.first) - 1):
        for run in range(active.first[i], active.first[i + 1]):
            for step in range(5):
                stored_run = find_run(stored, active.top + i + step - 2, active.start[run])
                around[run, step] = offsets[stored_run]
    return around


def _datum_of_run(active: Runs, data: NodeData) -> Integers:
    """Return the first datum of each run, and the number of data at the end."""
    west, width = active.start.min(), active.stop.max() - active.start.min()
    row = np.repeat(np.arange(len(active.first) - 1), np.diff(active.first))
    run = row * width + active.start - west
    datum = (data.row - active.top) * width + data.column - west
    return np.append(np.searchsorted(datum, run), len(datum))


@compiled
def _refine(
    values: Any, stored: Any, offsets: Any, coarser: Any, coarse_offsets: Any, coarse: Any
) -> None:
    """Interpolate the grid of twice the spacing bilinearly."""
    for i in range(len(stored.first) - 1):
        row = stored.top + i
        for run in range(stored.first[i], stored.first[i + 1]):
            start, stop = stored.start[run], stored.stop[run]
            above = coarse_offsets[find_run(coarser, row >> 1, start >> 1)]
            below = coarse_offsets[find_run(coarser, (row + 1) >> 1, start >> 1)]
            for column in range(start, stop):
                # At an even column both are the node itself, at an odd one its two neighbours.
                west, east = column >> 1, (column + 1) >> 1
                values[offsets[run] + column] = np.float32(0.25) * (
                    (coarse[above + west] + coarse[above + east])
                    + (coarse[below + west] + coarse[below + east])
                )


def _terms(data: NodeData, spacing: int, tension: np.float32, on_node: float) -> Any:
    """Return the terms that each datum adds to the equation of its node.

    The Laplacian at a node follows from Taylor series, to the second order, of the datum in one
    quadrant and of four nodes in the other three. For a datum to the north-east these are the west,
    south, north-west and south-east ones; their weights cancel all but the second derivatives.
    Returns the side of the datum (n, 2) in columns and rows, the weights of these four divided by
    the weight of the node itself, followed by the datum's contribution (n, 5), and the factor of
    the stencil (n,), which is 0 where the datum fixes the node.
    """
    x, y = data.x / spacing - data.column, data.y / spacing - data.row
    side = np.where(np.stack([x, y], axis=1) < 0, -1, 1)
    x, y = abs(x), abs(y)
    fixed = np.maximum(x, y) <= on_node
    # Any value that avoids a division by 0: the weights of fixed nodes are replaced below.
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


@compiled
def _outside(inside: Any, edge: Any, tension: Any) -> Any:
    """Return the height one node beyond a free edge, from those on it and one node inside."""
    return (4 * (1 - tension) * edge + (3 * tension - 2) * inside) / (2 - tension)


@compiled
def _free_end(own: Any, s1: Any, n1: Any, tension: Any) -> None:
    """Set the two nodes of a row, own[0] and own[1], beyond a free edge at own[2].

    The first condition, (1 - T) u_nn + T u_n = 0, gives own[1]; the second, a Laplacian that does
    not change across the edge, gives own[0].
    """
    own[1] = _outside(own[3], own[2], tension)
    own[0] = own[4] + (s1[2] + n1[2] - s1[0] - n1[0]) - 4 * (own[3] - own[1])


@compiled
def _free_side(
    out2: Any, out1: Any, edge: Any, in1: Any, in2: Any, west: bool, east: bool, tension: Any
) -> None:
    """Set the nodes of the two rows beyond a free edge; out1, edge and in1 are two nodes wider."""
    for i in range(len(edge)):
        out1[i] = _outside(in1[i], edge[i], tension)
    # In a corner u_xy = 0.
    if west:
        out1[0] = out1[2] + in1[0] - in1[2]
    if east:
        out1[-1] = out1[-3] + in1[-1] - in1[-3]
    for i in range(len(out2)):
        out2[i] = (
            in2[i] + (in1[i] + in1[i + 2] - out1[i] - out1[i + 2]) - 4 * (in1[i + 1] - out1[i + 1])
        )


@compiled
def _free_edges(
    s2: Any, s1: Any, own: Any, n1: Any, n2: Any, sides: Any, edge_tension: Any
) -> None:
    """Set the nodes beyond the free edges (west, east, south, north) that a run touches."""
    west, east, south, north = sides
    if west:
        _free_end(own[:5], s1[:3], n1[:3], edge_tension)
    if east:
        _free_end(own[::-1][:5], s1[::-1][:3], n1[::-1][:3], edge_tension)
    if south:
        _free_side(s2, s1, own[1:-1], n1, n2, west, east, edge_tension)
    if north:
        _free_side(n2, n1, own[1:-1], s1, s2, west, east, edge_tension)


@compiled_fused
def _stencil(tension: Any, relaxation: Any) -> Any:
    """Return the relaxed weights of a node without datum: its neighbours', and its own.

    The neighbours are the 4 next to it, the 4 diagonal ones and the 4 at a distance of 2 nodes, of
    (1 - T) biharmonic(u) - T Laplacian(u) = 0 in finite differences.
    """
    one = np.float32(1)
    stiff = one - tension
    share = relaxation / (20 * stiff + 4 * tension)
    near, diagonal, far = (
        np.float32(share * (8 * stiff + tension)),
        np.float32(share * 2 * stiff),
        np.float32(share * stiff),
    )
    return near, diagonal, far, np.float32(one - relaxation)


@compiled_fused
def _with_datum(
    i: int,
    datum: int,
    rows: Any,
    side: Any,
    weights: Any,
    stencil: Any,
) -> Any:
    """Return the height of node i of a run from its datum and neighbours, without relaxation."""
    s2, s1, own, n1, n2 = rows
    x = 1 if side[datum, 0] > 0 else -1
    one_side, other = (n1, s1) if side[datum, 1] > 0 else (s1, n1)
    twelve = (
        (s2[i] + n2[i] + own[i] + own[i + 4])
        + 2 * (s1[i] + s1[i + 2] + n1[i] + n1[i + 2])
        - 4 * (s1[i + 1] + n1[i + 1] + own[i + 1] + own[i + 3])
    )
    return (
        weights[datum, 0] * own[i + 2 - x]
        + weights[datum, 1] * other[i + 1]
        + weights[datum, 2] * one_side[i + 1 - x]
        + weights[datum, 3] * other[i + 1 + x]
        + weights[datum, 4]
        - stencil[datum] * twelve
    )


@compiled
def _widest(active: Any, first: int, last: int) -> int:
    """Return the number of nodes in the longest run from first to last."""
    widest = 0
    for run in range(first, last):
        widest = max(widest, active.stop[run] - active.start[run])
    return widest


@compiled_fused
def _sum_without_west(partial: Any, length: int, rows: Any, factors: Any) -> None:
    """Sum up, for each node of a run, all terms but those of the two nodes to the west."""
    s2, s1, own, n1, n2 = rows
    near, diagonal, far, keep = factors
    for i in range(length):
        partial[i] = (
            keep * own[i + 2]
            + near * (own[i + 3] + (s1[i + 1] + n1[i + 1]))
            - diagonal * ((s1[i] + s1[i + 2]) + (n1[i] + n1[i + 2]))
            - far * (own[i + 4] + (s2[i] + n2[i]))
        )


@compiled_fused
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
    """Sweep over the runs from first to last, over-relaxed where there is no datum (Gauss-Seidel).

    Each run is updated in two steps. All that does not depend on the node before it is summed
    first, in a loop that the compiler vectorizes; the short recursion along the run follows.
    """
    tension, edge_tension, relaxation = factors
    row = np.searchsorted(active.first, first, "right") - 1
    near, diagonal, far, keep = _stencil(tension, relaxation)
    partial = np.empty(_widest(active, first, last), np.float32)
    for _ in range(_TURN):
        at = row
        for run in range(first, last):
            while active.first[at + 1] <= run:
                at += 1
            start, stop = active.start[run], active.stop[run]
            length = stop - start
            # Slices avoid the test for a negative index, which would slow down the inner loops.
            s2 = values[around[run, 0] + start : around[run, 0] + stop]
            s1 = values[around[run, 1] + start - 1 : around[run, 1] + stop + 1]
            own = values[around[run, 2] + start - 2 : around[run, 2] + stop + 2]
            n1 = values[around[run, 3] + start - 1 : around[run, 3] + stop + 1]
            n2 = values[around[run, 4] + start : around[run, 4] + stop]
            south, north = active.top + at == box.south, active.top + at == box.north
            sides = start == box.west, stop - 1 == box.east, south, north
            _free_edges(s2, s1, own, n1, n2, sides, edge_tension)
            _sum_without_west(partial, length, (s2, s1, own, n1, n2), (near, diagonal, far, keep))
            begin = 0
            for datum in range(datum_of_run[run], datum_of_run[run + 1] + 1):
                end = data_column[datum] - start if datum < datum_of_run[run + 1] else length
                # Kept in registers: a value that was just stored is slow to load again.
                before, last_one = own[begin], own[begin + 1]
                for i in range(begin, end):
                    before, last_one = last_one, (partial[i] - far * before) + near * last_one
                    own[i + 2] = last_one
                if end == length:
                    break
                own[end + 2] = _with_datum(
                    end, datum, (s2, s1, own, n1, n2), side, weights, stencil
                )
                begin = end + 1
