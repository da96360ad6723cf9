"""Bands of nodes near the data, stored as runs along the rows of a grid.

A band is grown around the data and clipped to the region. It is read as a grid of nodes or, by
bicubic convolution, at the centres of cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from deepbedmap.grids.spline.compiling import compiled

if TYPE_CHECKING:
    from typing import Any

    import numpy.typing as npt

    from deepbedmap.grids.spline.compiling import Integers


class Runs(NamedTuple):
    """Nodes of a grid as runs along its rows.

    Row ``top + i`` has the runs ``first[i]`` up to, not including, ``first[i + 1]``, sorted and
    separate; a run has the columns ``start`` up to, not including, ``stop``.
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
        The nodes of the band.
    values
        float32, run after run, in the unit of the data.
    """

    runs: Runs
    values: npt.NDArray[np.float32]

    def grid(self, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
        """Return heights at the nodes (0, 0) to (rows - 1, columns - 1), NaN outside the band."""
        grid = np.full(shape, np.nan, np.float32)
        _fill(grid, self.runs, value_offsets(self.runs), self.values)
        return grid

    def centres(
        self,
        shape: tuple[int, int],
        row: Integers,
        column: Integers,
        radius: float,
        first_row: int = 0,
    ) -> npt.NDArray[np.float32]:
        """Interpolate heights at the centres of cells within a radius of cells with data.

        Parameters
        ----------
        shape
            Rows and columns of cells; cell (0, 0) lies between the nodes (0, 0) and (1, 1) if
            ``first_row`` is 0.
        row, column
            int64 (n,): cells with data; repeats have no effect.
        radius
            Cells, from centre to centre, at most the reach of the band minus 2.
        first_row
            First row of cells to return, for a large grid that is written row by row.

        Returns
        -------
        numpy.ndarray
            float32 (rows, columns): bicubic convolution (Keys 1981, doi 10.1109/TASSP.1981.1163711)
            of the nodes, NaN beyond the radius.

        Raises
        ------
        ValueError
            A cell within the radius is not covered by the band.
        """
        grid = np.full(shape, np.nan, np.float32)
        inside = (row >= first_row - radius) & (row < first_row + shape[0] + radius)
        if not inside.any():
            return grid
        near = _dilate_disc(runs_of(row[inside], column[inside]), radius)
        if not _convolve(grid, first_row, near, self.runs, value_offsets(self.runs), self.values):
            raise ValueError(f"the band does not reach {radius:g} cells from the cells with data")
        return grid


class Box(NamedTuple):
    """The first and the last column and row of nodes of a region."""

    west: int
    east: int
    south: int
    north: int


def runs_of(row: Integers, column: Integers) -> Runs:
    """Return nodes as runs; repeats have no effect."""
    order = np.lexsort((column, row))
    row, column = row[order], column[order]
    new = np.ones(len(row), bool)
    new[1:] = (row[1:] != row[:-1]) | (column[1:] > column[:-1] + 1)
    last = np.append(new[1:], True)
    top = int(row[0])
    rows = np.arange(top, row[-1] + 2)
    return Runs(top, np.searchsorted(row[new], rows), column[new], column[last] + 1)


def dilate(runs: Runs, reach: int) -> Runs:
    """Return all nodes within ``reach`` columns and rows of the runs."""
    size, wanted = 1, 2 * reach + 1
    grown = Runs(runs.top, runs.first, runs.start - reach, runs.stop + reach)
    grown = _union(grown, grown)  # joins runs that now overlap
    # A union with itself, shifted by up to its own height, doubles the rows grown so far.
    while size < wanted:
        step = min(size, wanted - size)
        grown = _union(grown, grown._replace(top=grown.top + step))
        size += step
    return grown._replace(top=grown.top - reach)


def clip(runs: Runs, box: Box, margin: int) -> Runs:
    """Return the nodes within a margin of a box, which every run is known to reach."""
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
    """Return all nodes within a distance of the runs."""
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


@compiled
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


def rectangle(runs: Runs) -> Runs:
    """Return one run per row, each from the first to the last column of all the runs."""
    rows = len(runs.first) - 1
    start, stop = np.full(rows, runs.start.min()), np.full(rows, runs.stop.max())
    return Runs(runs.top, np.arange(rows + 1), start, stop)


def value_offsets(runs: Runs) -> Integers:
    """Return each run's offset from a column to its value, and the number of values at the end."""
    ends = np.concatenate([[0], np.cumsum(runs.stop - runs.start)])
    ends[:-1] -= runs.start
    return ends


@compiled
def find_run(runs: Any, row: int, column: int) -> int:
    """Return the run that contains a node, -1 if none does (binary search)."""
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


@compiled
def _fill(grid: Any, runs: Any, offsets: Any, values: Any) -> None:
    rows, columns = grid.shape
    for row in range(max(0, runs.top), min(rows, runs.top + len(runs.first) - 1)):
        for run in range(runs.first[row - runs.top], runs.first[row - runs.top + 1]):
            for column in range(max(0, runs.start[run]), min(columns, runs.stop[run])):
                grid[row, column] = values[offsets[run] + column]


@compiled
def _convolve(grid: Any, first_row: int, near: Any, runs: Any, offsets: Any, values: Any) -> bool:
    """Interpolate at cell centres; return False if a node that is needed is not in the band."""
    rows, columns = grid.shape
    weights = np.array([-1, 9, 9, -1]) / 16  # cubic convolution midway between nodes
    end = min(first_row + rows, near.top + len(near.first) - 1)
    for row in range(max(first_row, near.top), end):
        for run in range(near.first[row - near.top], near.first[row - near.top + 1]):
            start, stop = max(0, near.start[run]), min(columns, near.stop[run])
            if start >= stop:
                continue
            mean = np.zeros(stop - start + 3)
            for step in range(4):
                band_run = find_run(runs, row + step - 1, start - 1)
                if band_run < 0 or runs.stop[band_run] < stop + 2:
                    return False
                at = offsets[band_run]
                for i in range(len(mean)):
                    mean[i] += weights[step] * values[at + start - 1 + i]
            for i in range(stop - start):
                grid[row - first_row, start + i] = weights[0] * (mean[i] + mean[i + 3]) + weights[
                    1
                ] * (mean[i + 1] + mean[i + 2])
    return True
