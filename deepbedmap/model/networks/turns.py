"""Tiles rotated by quarter turns and mirrored, vectors included.

A turn is an integer from 0 to 7: modulo four it is the number of quarter turns
counter-clockwise; from four on, north and south are swapped afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

TURNS = 8
"""Number of ways to rotate and mirror a square."""

_VECTORS = ("w2",)
_PLACELESS = ("present", "index")


def augment(batch: Mapping[str, Tensor], turns: Tensor) -> dict[str, Tensor]:
    """Turn each tile of a batch by its own turn.

    There is no host synchronisation: the turns stay on the device.

    Parameters
    ----------
    batch
        Square grids (n, bands, h, h), rows from north to south: ``x``, ``w1``, ``w2`` (a vector
        along x and y, whose components turn too), ``w3``, ``y``, ``mask``. ``present`` and
        ``index`` are passed on unchanged.
    turns
        (n,) integers from 0 to 7, on the batch's device. Drawn by ``torch.randint(TURNS, (n,))``,
        they show a network each tile in all orientations.

    Returns
    -------
    dict
        The same names, shapes and dtypes.

    Raises
    ------
    ValueError
        A grid is not square, or there is not one turn for each tile.

    Examples
    --------
    >>> batch = {"x": torch.tensor([[[[1, 2], [3, 4]]]]), "w2": torch.tensor([[[[5.0]], [[0.0]]]])}
    >>> turned = augment(batch, torch.tensor([1]))
    >>> turned["x"].tolist(), turned["w2"].flatten().tolist()
    ([[[[2, 4], [1, 3]]]], [-0.0, 5.0])
    """
    turned = {}
    for name, grid in batch.items():
        if name in _PLACELESS:
            turned[name] = grid
            continue
        if grid.ndim != 4 or grid.shape[2] != grid.shape[3] or len(grid) != len(turns):
            raise ValueError(
                f"{name}: expected shape ({len(turns)}, bands, h, h), found {tuple(grid.shape)}"
            )
        vector = name in _VECTORS
        grid = turn(grid, turns % 4, vector=vector)
        turned[name] = mirror(grid, turns >= 4, vector=vector)
    return turned


def undo(turns: Tensor) -> Tensor:
    """Return the inverse of each turn.

    Examples
    --------
    >>> undo(torch.arange(TURNS)).tolist()
    [0, 3, 2, 1, 4, 5, 6, 7]
    """
    return torch.where(turns < 4, -turns % 4, turns)


def turn(grid: Tensor, quarters: Tensor, *, vector: bool = False) -> Tensor:
    """Turn each tile counter-clockwise by its own number of quarters, 0 to 3.

    Parameters
    ----------
    grid
        (n, bands, h, h), rows from north to south.
    quarters
        (n,)
    vector
        Whether the two bands are the east and north components of a vector.

    Returns
    -------
    Tensor
        As ``grid``.
    """
    turned = grid
    for count in (1, 2, 3):
        by_count = torch.rot90(grid, count, (2, 3)).contiguous()
        if vector:
            east, north = by_count.unbind(1)
            for _ in range(count):
                east, north = -north, east
            by_count = torch.stack((east, north), dim=1)
        turned = torch.where((quarters == count).view(-1, 1, 1, 1), by_count, turned)
    return turned


def mirror(grid: Tensor, chosen: Tensor, *, vector: bool = False) -> Tensor:
    """Swap north and south of the chosen tiles.

    Parameters
    ----------
    grid, vector
        As in :func:`turn`, of any height and width.
    chosen
        (n,) bool.

    Returns
    -------
    Tensor
        As ``grid``.
    """
    mirrored = grid.flip(2)
    if vector:
        mirrored = torch.stack((mirrored[:, 0], -mirrored[:, 1]), dim=1)
    return torch.where(chosen.view(-1, 1, 1, 1), mirrored, grid)
