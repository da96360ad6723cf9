"""The base of both kinds of refinement: boxes of the lattice, blocks of bed, memory.

The output's lattice has cells of 250 m, four to a cell of 1 km; the input's extends 1 km
beyond it on each side. Rows run from north to south.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from deepbedmap.errors import Fault, InvalidDataError, WrongCallError
from deepbedmap.products.attributes import QUALITY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from torch import Tensor, nn

Read = Callable[[int, int, int, int], Mapping[str, NDArray[np.float32]]]
"""read(top, bottom, left, right), in 1 km cells of the input lattice, gives x (1, m, n), w1
(1, 10m, 10n), w2 (2, 2m, 2n) and w3 (1, m, n) as float32, NaN where there is a gap."""

ZOOM = 4
"""Cells of the output along a cell of 1 km."""

CELLS_PER_KM = {"x": 1, "w1": 10, "w2": 2, "w3": 1}  # of each input along 1 km
FLOATS_PER_KM2 = 1 + 100 + 2 * 4 + 1  # read for 1 km2
_OVERHEAD = 96 * 2**20  # libraries' workspaces and small tensors


@dataclass(frozen=True)
class Block:
    """A part of the output.

    Attributes
    ----------
    top, left
        First row and column in the output's cells of 250 m.
    bed
        Bed elevation in metres, float32 (rows, columns), NaN where the prior has no value.
    quality
        Sums of :data:`deepbedmap.products.QUALITY`, uint8 (rows, columns): which inputs were
        absent, the prior in the 1 km cell itself, the others anywhere in the field of view of the
        network's first layer (3 km, or the tile). 0: none was absent.
    """

    top: int
    left: int
    bed: NDArray[np.float32]
    quality: NDArray[np.uint8]


def even_cuts(start: int, stop: int, size: int) -> list[tuple[int, int]]:
    """Cut a range into nearly equal parts of at most ``size`` each."""
    count = -(-(stop - start) // size)
    edges = [start + (stop - start) * part // count for part in range(count + 1)]
    return list(itertools.pairwise(edges))


class Box(NamedTuple):
    """Rows and columns of a lattice."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def area(self) -> int:
        """Number of cells."""
        return (self.bottom - self.top) * (self.right - self.left)

    def grown(self, by: int, height: int, width: int) -> Box:
        """Return the box enlarged on each side, clipped to a lattice of this size."""
        top, left = max(self.top - by, 0), max(self.left - by, 0)
        return Box(top, min(self.bottom + by, height), left, min(self.right + by, width))

    def joined(self, other: Box) -> Box:
        """Return the smallest box that contains both."""
        return Box(
            min(self.top, other.top),
            max(self.bottom, other.bottom),
            min(self.left, other.left),
            max(self.right, other.right),
        )

    def covers(self, other: Box) -> bool:
        """Return whether the other box is entirely within this one."""
        return self.joined(other) == self

    def beyond(self, other: Box) -> tuple[int, int, int, int]:
        """Return the cells by which it extends beyond another: left, right, above and below."""
        return (
            other.left - self.left,
            self.right - other.right,
            other.top - self.top,
            self.bottom - other.bottom,
        )

    def of(self, values: Tensor, place: Box) -> Tensor:
        """Return its part of values that cover the box ``place``."""
        rows = slice(self.top - place.top, self.bottom - place.top)
        return values[..., rows, self.left - place.left : self.right - place.left]


class Refiner:
    """The base for both kinds of network: the domain, the device, and the memory they need."""

    least: int
    rows: int
    margin: int
    """Rows of 1 km that the network sees to each side, not counting its offsets."""

    def __init__(
        self,
        network: nn.Module,
        shape: tuple[int, int],
        device: torch.device,
        autocast: bool,
        batch_size: int,
    ) -> None:
        self.height, self.width = shape[0] - 2, shape[1] - 2
        if min(self.height, self.width) < 1:
            raise WrongCallError(f"shape: expected at least 3 x 3 cells, found {shape}")
        self.device, self.autocast, self.batch_size = device, autocast, batch_size
        weights = list(network.parameters())
        self.dtype = weights[0].dtype if weights else torch.float32
        self.bytes = 2 if autocast else self.dtype.itemsize
        self.fixed = _OVERHEAD + 2 * sum(w.numel() * w.dtype.itemsize for w in weights)
        options = _options(network)
        self.features = int(options.get("features", 64))
        self.growth = int(options.get("growth", 32))
        self.input_features = int(options.get("input_features", 32))
        self.blocks = int(options.get("num_residual_blocks", 12))

    def require(self, memory: int, least: int) -> None:
        """Raise InvalidDataError if ``memory`` is less than ``least``, both in bytes."""
        if memory < least:
            on_gpu = self.device.type == "cuda"
            raise InvalidDataError(
                Fault(
                    "memory" if not on_gpu else "memory of the GPU",
                    expected=f"at least {math.ceil(least / 1e6)} MB "
                    f"for {self.width} km from west to east",
                    found=f"{memory // 10**6} MB",
                    remedy="allow more, or predict a smaller window",
                )
            )

    def bytes_of_output(self, cells: int) -> int:
        """Return the memory (bytes) that the last layers take for n cells of the output."""
        return cells * (16 * self.features * self.bytes + 1800)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Compute without gradients and, in float32, without the TF32 products of a GPU."""
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            if self.autocast:
                stack.enter_context(torch.autocast(self.device.type, torch.bfloat16))
            elif self.device.type == "cuda":
                cudnn = torch.backends.cudnn
                stack.enter_context(
                    cudnn.flags(enabled=True, benchmark=cudnn.benchmark, allow_tf32=False)
                )
            yield

    def read(self, read: Read, box: Box) -> dict[str, Tensor]:
        """Read the inputs of a box of the input lattice, (bands, rows, columns)."""
        grids = {}
        for name, grid in read(*box).items():
            rows, columns = (CELLS_PER_KM[name] * (box[edge + 1] - box[edge]) for edge in (0, 2))
            if grid.shape[1:] != (rows, columns):
                raise WrongCallError(
                    f"read: expected {name} of {rows} x {columns} cells for {tuple(box)}, "
                    f"found {grid.shape}"
                )
            grids[name] = torch.from_numpy(np.ascontiguousarray(grid))
        # A GPU copies while it computes only from pinned memory.
        return {
            name: grids[name].pin_memory() if self.device.type == "cuda" else grids[name]
            for name in CELLS_PER_KM
        }


def _options(network: nn.Module) -> Mapping[str, Any]:
    """Options of the network, or of the one inside a wrapper."""
    for module in network.modules():
        options: Any = getattr(module, "options", None)
        if isinstance(options, dict) and "features" in options:
            return options
    return {}


def block_with_quality(top: int, left: int, bed: NDArray[Any], quality: NDArray[np.uint8]) -> Block:
    """Return a block of bed from the bed at 250 m and its quality at 1 km."""
    quality = quality.repeat(ZOOM, axis=0).repeat(ZOOM, axis=1)
    bed = np.where(quality & QUALITY["prior"], np.float32(np.nan), bed)
    return Block(top, left, bed.astype(np.float32, copy=False), quality)
