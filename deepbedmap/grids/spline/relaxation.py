"""Relax one grid of the spline by successive over-relaxation.

The stencil is that of Smith & Wessel (1990, doi 10.1190/1.1442837), with data between
nodes after Briggs (1974, doi 10.1190/1.1440410). Chunks of whole rows are swept in
alternation, so that the result is the same for any number of threads.
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
_ON_NODE = 0.05  # cells: data nearer than this to a node fix it, as in GMT
_OVERRELAXATION = 1.9
_CAREFUL = 1.4  # when that diverges
# Rows a chunk, and sweeps of a chunk before its neighbours' turn. Chunks end at the same rows in
# any part of a region and for any number of threads, and so the result does not depend on either.
_CHUNK = 64
_TURN = 8
_COARSEST_TURNS = 100
_NO_EDGE = 2**40


class Plan(NamedTuple):
    """What :func:`solve` was asked for."""

    shape: tuple[int, int] | None
    tension: float
    reach: int
    sweeps: int


def _edges(last: int | None, spacing: int) -> tuple[int, int]:
    if last is None or -(-last // spacing) < 3:  # the free edges would meet
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
    """The grid whose nodes are so many cells apart."""
    # Without this scaling a coarse grid would be stiffer than the finest one.
    tension = plan.tension / (plan.tension + (1 - plan.tension) / spacing**2)
    turns = max(1, (plan.sweeps if spacing == 1 else plan.sweeps // 3) // _TURN)
    columns, rows = (None, None) if plan.shape is None else (plan.shape[1] - 1, plan.shape[0] - 1)
    box = Box(*_edges(columns, spacing), *_edges(rows, spacing))
    nodes = runs_of(data.row, data.column)
    if coarser is None:
        nodes = rectangle(nodes)
    active = clip(dilate(nodes, plan.reach), box, 0)
    stored = clip(dilate(nodes, plan.reach + _FRAME), box, _FRAME)
    offsets = value_offsets(stored)
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
            _refine(
                values, stored, offsets, coarser.runs, value_offsets(coarser.runs), coarser.values
            )
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


def _level_off(values: npt.NDArray[np.float32], active: Runs, box: Box) -> None:
    """Mirror a rectangle in those of its edges that are none of the region's."""
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


@compiled
def _rows_around(active: Any, stored: Any, offsets: Any) -> Any:
    """Offsets in the two rows south of each run, its own and the two north, (runs, 5)."""
    around = np.empty((len(active.start), 5), np.int64)
    for i in range(len(active.first) - 1):
        for run in range(active.first[i], active.first[i + 1]):
            for step in range(5):
                found = find_run(stored, active.top + i + step - 2, active.start[run])
                around[run, step] = offsets[found]
    return around


def _datum_of_run(active: Runs, data: NodeData) -> Integers:
    """The first datum of each run; the number of data last."""
    west, width = active.start.min(), active.stop.max() - active.start.min()
    row = np.repeat(np.arange(len(active.first) - 1), np.diff(active.first))
    run = row * width + active.start - west
    datum = (data.row - active.top) * width + data.column - west
    return np.append(np.searchsorted(datum, run), len(datum))


@compiled
def _refine(
    values: Any, stored: Any, offsets: Any, coarser: Any, coarse_offsets: Any, coarse: Any
) -> None:
    """Bilinear values of the grid of twice the spacing."""
    for i in range(len(stored.first) - 1):
        row = stored.top + i
        for run in range(stored.first[i], stored.first[i + 1]):
            start, stop = stored.start[run], stored.stop[run]
            above = coarse_offsets[find_run(coarser, row >> 1, start >> 1)]
            below = coarse_offsets[find_run(coarser, (row + 1) >> 1, start >> 1)]
            for column in range(start, stop):
                west, east = column >> 1, (column + 1) >> 1
                values[offsets[run] + column] = np.float32(0.25) * (
                    (coarse[above + west] + coarse[above + east])
                    + (coarse[below + west] + coarse[below + east])
                )


def _terms(data: NodeData, spacing: int, tension: np.float32, on_node: float) -> Any:
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


@compiled
def _outside(inside: Any, edge: Any, tension: Any) -> Any:
    """The height a node beyond a free edge, from that on it and that within."""
    return (4 * (1 - tension) * edge + (3 * tension - 2) * inside) / (2 - tension)


@compiled
def _free_end(own: Any, s1: Any, n1: Any, tension: Any) -> None:
    """Set the two nodes of a row, own[0] and own[1], beyond a free edge at own[2]."""
    own[1] = _outside(own[3], own[2], tension)
    own[0] = own[4] + (s1[2] + n1[2] - s1[0] - n1[0]) - 4 * (own[3] - own[1])


@compiled
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
