"""Block medians, and data averaged at the nodes of coarser grids."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from deepbedmap.grids.spline.compiling import compiled

if TYPE_CHECKING:
    from typing import Any

    from deepbedmap.grids.spline.compiling import Floats, Integers

_LARGEST = 2**23  # cells from the origin: every row between the data takes memory, even if empty


def block_medians(x: Floats, y: Floats, z: Floats) -> tuple[Floats, Floats, Floats]:
    """Compute the median x, y and z, each separately, of the points nearest to each node.

    This is ``gmt blockmedian`` with blocks one cell wide around the nodes. The median of an even
    number of values is the mean of the two middle ones. The order of the points does not matter.

    Parameters
    ----------
    x, y, z
        float64 (n,), finite; x and y in cells.

    Returns
    -------
    tuple
        x, y, z float64 (blocks,), sorted by row and column.

    Raises
    ------
    ValueError
        The arrays are empty or differ in length, a value is not finite, or a coordinate is more
        than 2**23 cells from the origin.

    Examples
    --------
    >>> x, y, z = block_medians(np.array([0.0, 0.2, 3, 0.1]), np.zeros(4), np.array([1.0, 5, 7, 2]))
    >>> x.tolist(), z.tolist()
    ([0.1, 3.0], [2.0, 7.0])
    """
    x, y, z = checked_data(x, y, z)
    order, edges = _groups(x, y, 1)
    medians = np.empty((3, len(edges) - 1))
    for values, out in zip((x, y, z), medians, strict=True):
        _medians(values, order, edges, out)
    return medians[0], medians[1], medians[2]


class NodeData(NamedTuple):
    """One datum per node, sorted by row and column; x, y in cells of the finest grid."""

    x: Floats
    y: Floats
    z: Floats
    number: Floats
    row: Integers
    column: Integers


def checked_data(x: Floats, y: Floats, z: Floats) -> tuple[Floats, Floats, Floats]:
    """Return x, y (cells) and z as contiguous float64 (n,); raise ValueError if invalid."""
    x, y, z = (np.ascontiguousarray(values, np.float64) for values in (x, y, z))
    if not x.ndim == y.ndim == z.ndim == 1 or not x.size == y.size == z.size:
        raise ValueError(f"x, y and z must have equal lengths, not {x.shape}, {y.shape}, {z.shape}")
    if x.size == 0:
        raise ValueError("no data")
    for name, values in (("x", x), ("y", y), ("z", z)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name} has values that are not finite")
    if max(np.abs(x).max(), np.abs(y).max()) > _LARGEST:
        raise ValueError(f"x and y must be within {_LARGEST} cells of the origin")
    return x, y, z


def _groups(x: Floats, y: Floats, spacing: int) -> tuple[Integers, Integers]:
    """Return points sorted by nearest node, and where each node's points begin, and the end."""
    row, column = nearest_node(y, spacing), nearest_node(x, spacing)
    key = (row - row.min()) * (np.ptp(column) + 1) + (column - column.min())
    order = np.argsort(key)
    ordered = key[order]
    new = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
    return order, np.concatenate([[0], new, [len(x)]])


def nearest_node(values: Floats, spacing: int) -> Integers:
    """Return the index of the node nearest to each value; values and ``spacing`` in cells."""
    return np.floor(values / spacing + 0.5).astype(np.int64)


@compiled
def _medians(values: Any, order: Any, edges: Any, out: Any) -> None:
    for block in range(len(out)):
        group = np.sort(values[order[edges[block] : edges[block + 1]]])
        middle = len(group) // 2
        out[block] = group[middle] if len(group) % 2 else (group[middle - 1] + group[middle]) / 2


def average_at_nodes(x: Floats, y: Floats, z: Floats, number: Floats, spacing: int) -> NodeData:
    """Average x, y and z at the nearest nodes, weighted by ``number``; x, y, spacing in cells."""
    order, edges = _groups(x, y, spacing)
    first = order[edges[:-1]]
    row, column = nearest_node(y[first], spacing), nearest_node(x[first], spacing)
    total = np.add.reduceat(number[order], edges[:-1])
    x, y, z = (np.add.reduceat((v * number)[order], edges[:-1]) / total for v in (x, y, z))
    return NodeData(x, y, z, total, row, column)
