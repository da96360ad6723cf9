"""Prediction of a continent in overlapping tiles, written plainly: float32, no cleverness. Frozen.

It is what the package's own prediction is timed beside (gpu.py), and is not to be made faster.
Tiles of 250 km overlap by 19 km, as those of Leong & Horgan (2020, doi 10.5194/tc-14-3687-2020):
less than what the network sees, so that seams remain. The network is that of plain_step.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

Read = Callable[[int, int, int, int], Mapping[str, Any]]


def tiles(rows: int, columns: int, size: int, overlap: int) -> Iterator[tuple[int, int, int, int]]:
    """Top, bottom, left and right of tiles that cover so many km."""
    step = size - overlap
    for top in range(0, max(rows - overlap, 1), step):
        for left in range(0, max(columns - overlap, 1), step):
            yield top, min(top + size, rows), left, min(left + size, columns)


def predict(
    network: nn.Module, read: Read, tile: tuple[int, int, int, int], device: str
) -> np.ndarray:
    """Bed of a tile, whose inputs reach 1 km beyond it."""
    top, bottom, left, right = tile
    grids = read(top, bottom + 2, left, right + 2)
    with torch.no_grad():
        bed = network(*(torch.tensor(grid[None]).to(device) for grid in grids.values()))
    return bed[0, 0].cpu().numpy()
