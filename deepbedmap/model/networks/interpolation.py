"""Bicubic interpolation of the prior to the cells of a generator's output."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch

from deepbedmap.model.layers import without_autocast

if TYPE_CHECKING:
    from torch import Tensor


def bicubic(x: Tensor) -> Tensor:
    """Interpolate a prior to a quarter of its cell size, without one cell on each side.

    Cubic convolution with a = -0.5 (Keys 1981, doi 10.1109/TASSP.1981.1163711), which
    reproduces a plane exactly; torch's own has a = -0.75, and does not. Beyond its edge the prior
    is extrapolated linearly from the two outermost cells. (n, 1, h, w) gives
    (n, 1, 4(h - 2), 4(w - 2)), the cells of a generator's output.
    """
    rows, columns = (_cubic_weights(size, x.dtype, x.device) for size in x.shape[2:])
    # A matrix product in bfloat16 would round a bed at -2000 m to 8 m.
    with without_autocast(x.device):
        return rows @ x @ columns.T


@functools.cache
@torch.inference_mode(False)  # kept for a training that may follow
def _cubic_weights(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Weights of ``size`` cells for 4(size - 2) finer ones along one axis."""
    place = 1 + (torch.arange(4 * (size - 2), dtype=torch.float64) + 0.5) / 4 - 0.5
    cell, t = place.floor().long(), place.frac()
    taps = 0.5 * torch.stack(
        [
            -t + 2 * t**2 - t**3,
            2 - 5 * t**2 + 3 * t**3,
            t + 4 * t**2 - 3 * t**3,
            -(t**2) + t**3,
        ],
        dim=1,
    )
    # One extra cell at either end; linear extrapolation (2 outer - inner) assigns its weight to the
    # two outermost cells.
    weights = torch.zeros(len(place), size + 2, dtype=torch.float64)
    weights.scatter_(1, cell[:, None] + torch.arange(4), taps)
    inner = weights[:, 1:-1].clone()
    for beyond, outer, within in ((0, 0, 1), (-1, -1, -2)):
        inner[:, outer] += 2 * weights[:, beyond]
        inner[:, within] -= weights[:, beyond]
    return inner.to(device, dtype)
