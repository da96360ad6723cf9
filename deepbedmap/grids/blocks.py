"""A large grid in square blocks: the picks, cells and block medians that each block needs.

Picks are summarized block by block and merged. Each block is then solved from the medians
within the spline's margin, independently of its neighbours.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from deepbedmap.grids import spline

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    import numpy.typing as npt
    import pandas as pd

    from deepbedmap.grids.geometry import Lattice


class Window(NamedTuple):
    """A region of a grid: its first row and column, and those after its last."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def name(self) -> str:
        """Name of the window, from its first row and column."""
        return f"{self.top}_{self.left}"

    @property
    def cells(self) -> tuple[slice, slice]:
        """Rows and columns of the window, as slices of the grid."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


class _Picks(NamedTuple):
    """Picks, or their medians; x and y in cells."""

    x: spline.Floats
    y: spline.Floats
    z: spline.Floats


class _Cells(NamedTuple):
    """Cells with picks: number of picks, mean bed, and sum of squared deviations from the mean."""

    row: spline.Integers
    column: spline.Integers
    number: spline.Integers
    mean: spline.Floats
    squares: spline.Floats


class Neighbourhood(NamedTuple):
    """The medians and cells from which a region is solved."""

    window: Window
    medians: _Picks
    cells: _Cells


class _Summary(NamedTuple):
    """Medians of blocks, and cells with picks, both by row and column."""

    medians: _Picks
    cells: _Cells

    def windows(self, shape: tuple[int, int], side: int, max_gap: int) -> list[Window]:
        """Return the regions in which a cell is near enough to a pick to have a value."""
        rows, columns = shape
        touched = np.zeros((math.ceil(rows / side), math.ceil(columns / side)), bool)
        steps = [*range(-max_gap - 1, max_gap + 1, side), max_gap + 1]
        for step in steps:
            row = (self.cells.row + step).clip(0, rows - 1) // side
            for across in steps:
                touched[row, (self.cells.column + across).clip(0, columns - 1) // side] = True
        return [
            Window(top, left, min(top + side, rows), min(left + side, columns))
            for top, left in (np.argwhere(touched) * side).tolist()
        ]

    def near(self, window: Window, max_gap: int) -> Neighbourhood:
        """Return the medians and cells that affect a region."""
        medians = _within(self.medians, self.medians.y, self.medians.x, window, spline.MARGIN + 2)
        cells = _within(self.cells, self.cells.row, self.cells.column, window, max_gap + 1)
        return Neighbourhood(window, _Picks(*medians), _Cells(*cells))


def _within(
    table: Iterable[Any], row: Any, column: Any, window: Window, margin: int
) -> Iterator[Any]:
    """Yield the columns of a table within a margin (cells) of a region."""
    # The entries are sorted by node or cell, so that their rows ascend to within half a cell: a
    # binary search with one more row on either side finds all of them.
    first, last = np.searchsorted(row, [window.top - margin - 1, window.bottom + margin + 1])
    row, column = row[first:last], column[first:last]
    kept = (row >= window.top - margin) & (row < window.bottom + margin)
    kept &= (column >= window.left - margin) & (column < window.right + margin)
    return (values[first:last][kept] for values in table)


def picks_by_block(
    points: pd.DataFrame, inside: npt.NDArray[np.bool_], lattice: Lattice, side: int
) -> Iterator[_Picks]:
    """Yield the picks of each region in turn; the block around a node belongs to one region."""
    x, y, z = (points[axis].to_numpy(np.float64) for axis in ("x", "y", "z"))
    rows, columns = (math.ceil(count / side) for count in lattice.shape)
    across, up = lattice.locate(x, y)
    for position, count in ((across, columns), (up, rows)):
        position += 0.5  # so that whole numbers bound the blocks
        position //= side
        position.clip(0, count - 1, out=position)
    up *= columns
    up += across
    up[~inside] = rows * columns
    # numpy sorts short integers in linear time.
    region = up.astype(np.uint16 if rows * columns < 2**16 else np.int64)
    del across, up
    order = np.argsort(region, kind="stable")
    ends = np.cumsum(np.bincount(region, minlength=rows * columns + 1))
    del region
    for start, end in zip([0, *ends[:-2]], ends[:-1], strict=True):
        if end > start:
            chosen = order[start:end]
            yield _Picks(*lattice.locate(x[chosen], y[chosen]), z[chosen])


def summarize(picks: _Picks) -> _Summary:
    """Return the block medians of picks, and the statistics of each cell; x and y in cells."""
    row, column = (np.floor(values).astype(np.int64) for values in (picks.y, picks.x))
    ones = np.ones(len(row), np.int64)
    each = _Cells(row, column, ones, picks.z, np.zeros(len(row)))
    return _Summary(_Picks(*spline.block_medians(*picks)), _united(each))


def _united(cells: _Cells) -> _Cells:
    """Merge entries of the same cell, and sort the cells by row and column.

    Squared deviations are merged as in Chan, Golub & LeVeque (1983, doi 10.2307/2683386): a sum of
    squares minus the squared sum would lose all digits for a bed kilometres deep.
    """
    key = cells.row * (cells.column.max() + 1) + cells.column
    order = np.argsort(key, kind="stable")
    key = key[order]
    first = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))
    number, mean, squares = cells.number[order], cells.mean[order], cells.squares[order]
    total = np.add.reduceat(number, first)
    average = np.add.reduceat(number * mean, first) / total
    deviation = mean - np.repeat(average, np.diff(first, append=len(key)))
    return _Cells(
        cells.row[order[first]],
        cells.column[order[first]],
        total,
        average,
        np.add.reduceat(squares + number * deviation**2, first),
    )


def merge_summaries(summaries: Iterable[_Summary]) -> _Summary:
    """Merge the summaries of all regions; a cell on the edge between two may be in both."""
    parts = list(summaries)
    medians = [np.concatenate(values) for values in zip(*(p.medians for p in parts), strict=True)]
    row, column = (np.floor(values + 0.5) for values in (medians[1], medians[0]))
    order = np.lexsort((column, row))
    cells = _Cells(
        *(np.concatenate(values) for values in zip(*(p.cells for p in parts), strict=True))
    )
    return _Summary(_Picks(*(values[order] for values in medians)), _united(cells))
