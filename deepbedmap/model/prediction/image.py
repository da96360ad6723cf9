"""A convolutional network that sees the whole domain as one image, computed piece by piece.

The image is padded with zeros at the domain's own edges only. The trunk is computed in
bands of rows, each layer with the margin that the layers after it invalidate; the
deformable convolutions in tiles that grow until they hold everything their offsets point at.
"""

from __future__ import annotations

import itertools
import math
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch.nn import functional

from deepbedmap.model.layers import leaky_relu, without_autocast
from deepbedmap.model.networks.generator import Generator
from deepbedmap.model.prediction.refining import (
    CELLS_PER_KM,
    FLOATS_PER_KM2,
    ZOOM,
    Box,
    Refiner,
    block_with_quality,
    even_cuts,
)
from deepbedmap.products.attributes import QUALITY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from deepbedmap.model.prediction.refining import Block, Read

_BLOCK_REACH = 15  # cells that a residual-in-residual dense block sees to each side
_SPARE = 8  # rows beyond a band to which its offsets may point before it is computed again
_MARGIN = 4  # cells beyond a tile that its offsets are first assumed to reach
_PIECES = (1024, 512, 256, 128, 64, 32)  # cells across a piece of trunk or output
_LARGEST_TILE = (512, 1024)  # cells across, on a CPU (a larger tile only costs time) and on a GPU
_SMALLEST_TILE = (16 * ZOOM + 4 * _MARGIN) ** 2  # cells, of 16 km with margins
_STRIP = 64  # rows of input at once, at most


def _gaps(grid: Tensor, cells: int) -> Tensor:
    """Cells of 1 km in which a grid (bands, rows, columns) has a gap."""
    gaps = grid.isnan().any(dim=0)
    rows, columns = (size // cells for size in gaps.shape)
    return gaps.view(rows, cells, columns, cells).any(dim=3).any(dim=1)


class ImageRefiner(Refiner):
    """A convolutional network on a domain that is one image.

    Lattices: the trunk's has cells of 1 km, the output's of 250 m. A row of the trunk's input
    lattice is the middle of three rows of the input's.
    """

    def __init__(self, network: nn.Module, *arguments: Any) -> None:
        super().__init__(network, *arguments)
        self.network = cast(Generator, network)
        self.margin = 1 + _BLOCK_REACH * self.blocks
        self.row = self.features * self.bytes * self.width
        self.buffers = 3 if self.blocks > 1 else 2
        self.least = self._least(1 + 2 * _SPARE)

    def _least(self, rows: int) -> int:
        """Bytes for n rows of the trunk's output, in the smallest pieces."""
        held = min(rows + 2 * self.margin, self.height) * self.row
        return self.fixed + max(
            self.buffers * held + self._work(_PIECES[-1]),
            held + self.bytes_of_output(_SMALLEST_TILE),
        )

    def _work(self, piece: int) -> int:
        """Bytes that the trunk takes besides its buffers, in pieces of this width."""
        beyond = piece + 2 * _BLOCK_REACH
        cells = min(beyond, self.height) * min(beyond, self.width)
        channels = max(4 * self.features + 9 * self.growth, 5 * self.features + 4 * self.growth)
        # Twice, since a library may also hold inputs and outputs in its own memory layout.
        return max(2 * channels * self.bytes * cells, self._strip(4))

    def _strip(self, rows: int) -> int:
        """Bytes that n rows take from their inputs to the trunk, read one strip ahead."""
        rows = min(rows, self.height)
        read = 4 * FLOATS_PER_KM2 * (self.width + 2) * (rows + 4)
        inner = (12 * self.input_features + 3 * self.features) * self.bytes
        return 5 * read + inner * self.width * (rows + 2)

    def plan(self, memory: int, held: int = 1 + 2 * _SPARE) -> None:
        """Choose the pieces that repeat the least computation.

        The trunk's output must be held for at least ``held`` rows.
        """
        self.memory = memory
        self.require(memory, self._least(held))
        smallest_tile = self.bytes_of_output(_SMALLEST_TILE)
        halo, best = 2 * _BLOCK_REACH, math.inf
        for piece in _PIECES:
            room = memory - self.fixed - self._work(piece)
            rows = min(
                room // (self.buffers * self.row),
                (memory - self.fixed - smallest_tile) // self.row,
            )
            capacity = self.height if rows >= self.height else rows - 2 * self.margin
            if capacity < min(held, self.height):
                continue
            whole = capacity == self.height
            rows = capacity if whole else max(1, capacity - 2 * _SPARE)
            computed = rows if whole else capacity + self.margin
            cost = (computed + halo * (len(even_cuts(0, computed, piece)) - 1)) / rows
            cost *= 1 + halo * (len(even_cuts(0, self.width, piece)) - 1) / self.width
            if cost < best:
                best, self.piece, self.capacity, self.rows = cost, piece, capacity, rows
        work = self._work(self.piece)
        self.strip = max((r for r in range(4, _STRIP + 1) if self._strip(r) <= work), default=4)

    def refine(
        self,
        read: Read,
        start: int,
        stop: int,
        origin: tuple[int, int],  # noqa: ARG002
    ) -> Iterator[Block]:
        """Yield the bed (m) of rows ``start`` to ``stop`` of the 1 km lattice, tile by tile."""
        if self.device.type == "cuda":
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.reader = read
        self.reach, self.spare = [_MARGIN, _MARGIN], _SPARE
        for top, bottom in even_cuts(start, stop, self.rows):
            self._hold(top, bottom, Box(top, bottom, 0, self.width))
            side = min(
                math.isqrt(self.room) - 4 * _MARGIN, _LARGEST_TILE[self.device.type == "cuda"]
            )
            side = max(ZOOM, side) // ZOOM
            for first, last in even_cuts(top, bottom, side):
                self.ahead = Box(first, bottom, 0, self.width)
                for left, right in even_cuts(0, self.width, side):
                    yield from self._tile(Box(first, last, left, right))
        del self.trunk

    def _hold(self, top: int, bottom: int, ahead: Box) -> None:
        """Compute the trunk's output for rows top to bottom, and for as many ahead as fit."""
        wanted = ahead.grown(self.spare, self.height, self.width)
        low = min(top, wanted.top)
        if bottom - low > self.capacity:
            low = top
        if bottom - low > self.capacity:
            self.plan(self.memory, bottom - low)
        high = min(max(bottom, wanted.bottom), low + self.capacity, self.height)
        self.trunk = torch.empty(0)
        with self.computing():
            self.trunk, self.held = self._trunk(low, high)
        self.right = Box(low, high, 0, self.width)
        room = self.memory - self.fixed - self.trunk.nbytes
        # The nine taps of all features of a cell must be addressable with 32-bit indices.
        largest = (2**31 - 1) // (9 * max(self.features, 4))
        self.room = min(room // self.bytes_of_output(1), largest)

    def _trunk(self, low: int, high: int) -> tuple[Tensor, Box]:
        """The trunk's output, valid in rows low to high, and its place."""
        first, last = max(low - self.margin, 0), min(high + self.margin, self.height)
        place = Box(first, last, 0, self.width)
        pre = self._stem(first, last)
        buffers = [torch.empty_like(pre) for _ in range(self.buffers - 1)]
        x = pre
        for number, block in enumerate(self.network.residual_network):
            beyond = 1 + _BLOCK_REACH * (self.blocks - 1 - number)
            target = Box(low, high, 0, self.width).grown(beyond, self.height, self.width)
            out = buffers[number % len(buffers)]
            self._in_pieces(block, x, out, place, target, _BLOCK_REACH)
            x = out
        target = Box(low, high, 0, self.width)
        self._in_pieces(self.network.post_residual_conv_layer, x, pre, place, target, 1, add=True)
        return pre, place

    def _in_pieces(
        self,
        layer: nn.Module,
        x: Tensor,
        out: Tensor,
        place: Box,
        target: Box,
        halo: int,
        *,
        add: bool = False,
    ) -> None:
        """Apply a layer that sees a halo to each side, and pads with zeros, to a box."""
        for top, bottom in even_cuts(target.top, target.bottom, self.piece):
            for left, right in even_cuts(target.left, target.right, self.piece):
                piece = Box(top, bottom, left, right)
                around = piece.grown(halo, self.height, self.width)
                y = piece.of(layer(around.of(x, place)), around)
                part = piece.of(out, place)
                if add:
                    part += y
                else:
                    part.copy_(y)

    def _stem(self, first: int, last: int) -> Tensor:
        """The trunk's input, rows first to last, strip by strip while the next one is read."""
        strips = even_cuts(first, last, self.strip)
        self.quality = np.zeros((last - first, self.width), np.uint8)
        pre = torch.empty(0)
        with ThreadPoolExecutor(1) as pool:
            coming = pool.submit(self._read_strip, strips[0])
            for number, (top, bottom) in enumerate(strips):
                grids = coming.result()
                if number + 1 < len(strips):
                    coming = pool.submit(self._read_strip, strips[number + 1])
                strip = Box(top, bottom, 0, self.width)
                around = strip.grown(1, self.height, self.width)
                y, quality = self._enter(grids)
                del grids
                if not number:
                    dense = self.device.type == "cuda"
                    pre = torch.empty(
                        (1, self.features, last - first, self.width),
                        dtype=y.dtype,
                        device=self.device,
                        memory_format=torch.channels_last if dense else torch.contiguous_format,
                    )
                pre[:, :, top - first : bottom - first] = strip.of(y, around)
                self.quality[top - first : bottom - first] = strip.of(quality, around).numpy()
        return pre

    def _read_strip(self, strip: tuple[int, int]) -> dict[str, Tensor]:
        box = Box(*strip, 0, self.width).grown(1, self.height, self.width)
        return self.read(self.reader, Box(box.top, box.bottom + 2, 0, self.width + 2))

    def _enter(self, grids: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The trunk's input for a strip, and its quality (rows, columns)."""
        there = {
            name: grid.to(self.device, self.dtype, non_blocking=True)
            for name, grid in grids.items()
        }
        gaps = [_gaps(grid, CELLS_PER_KM[name]) for name, grid in there.items()]
        around = functional.max_pool2d(torch.stack(gaps[1:]).to(self.dtype), 3, 1) > 0
        bits = torch.tensor(list(QUALITY.values()), dtype=torch.uint8, device=self.device)
        layers = torch.cat((gaps[0][None, 1:-1, 1:-1], around)).to(torch.uint8)
        quality = (layers * bits.view(-1, 1, 1)).sum(0, dtype=torch.uint8).cpu()
        there["x"] = there["x"].nan_to_num(0.0)
        present = ~around[None] if bool((quality > QUALITY["prior"]).any()) else None
        x, w1, w2, w3 = (grid[None] for grid in there.values())
        return self.network.stem(x, w1, w2, w3, present), quality

    def _tile(self, km: Box) -> Iterator[Block]:
        """Blocks that cover a box of the trunk's lattice; the box is halved if memory is short."""
        with self.computing():
            bed = self._bed(km)
        if bed is None:
            halves = (
                even_cuts(start, stop, -(-(stop - start) // 2))
                for start, stop in ((km.top, km.bottom), (km.left, km.right))
            )
            for (top, bottom), (left, right) in itertools.product(*halves):
                yield from self._tile(Box(top, bottom, left, right))
            return
        rows = slice(km.top - self.held.top, km.bottom - self.held.top)
        quality = self.quality[rows, km.left : km.right]
        yield block_with_quality(ZOOM * km.top, ZOOM * km.left, bed, quality)

    def _bed(self, km: Box) -> NDArray[np.float32] | None:
        """Bed of a box of the trunk's lattice; None if it takes too much memory at once.

        The outer box holds the output of the upsampling, the inner one that of the first
        deformable convolution; each grows until it contains all cells to which the next layer's
        offsets point.
        """
        height, width = ZOOM * self.height, ZOOM * self.width
        tile = Box(*(ZOOM * edge for edge in km))
        inner = tile.grown(self.reach[1], height, width)
        outer = inner.grown(self.reach[0], height, width)
        first, second = self.network.final_conv_layer1, self.network.final_conv_layer2
        while True:
            if outer.area > self.room:
                if km.area > 1:
                    return None
                least = self.memory + (outer.area - self.room) * self.bytes_of_output(1)
                self.require(self.memory, least)
            y = self._enlarge(outer)
            offset = _offsets(first.offset_conv, y, outer, inner)
            seen = _sampled(offset, inner, height, width)
            if not outer.covers(seen):
                outer = outer.joined(seen)
                continue
            self.reach[0] = max(_MARGIN, *seen.joined(inner).beyond(inner))
            z = leaky_relu(first.sample(y, offset, _padding(inner, outer)))
            offset = _offsets(second.offset_conv, z, inner, tile)
            seen = _sampled(offset, tile, height, width)
            if not inner.covers(seen):
                inner = inner.joined(seen)
                outer = outer.joined(inner.grown(self.reach[0], height, width))
                continue
            self.reach[1] = max(_MARGIN, *seen.joined(tile).beyond(tile))
            break
        # bfloat16 would round a bed at -2000 m to 8 m.
        precise = second.deform_conv.weight.dtype
        with without_autocast(self.device):
            bed = second.sample(z.to(precise), offset.to(precise), _padding(tile, inner))
        heights: NDArray[np.float32] = bed[0, 0].float().cpu().numpy()
        return heights

    def _enlarge(self, box: Box) -> Tensor:
        """The output of the upsampling in a box of the output's lattice."""
        km = Box(
            box.top // ZOOM, -(-box.bottom // ZOOM), box.left // ZOOM, -(-box.right // ZOOM)
        ).grown(1, self.height, self.width)
        if not self.right.covers(km):
            # The offsets of the next tiles will probably point as far.
            self.spare = max(self.spare, self.ahead.top - km.top)
            self._hold(km.top, km.bottom, self.ahead)
        y = self.network.enlarge(km.of(self.trunk, self.held))
        return box.of(y, Box(*(ZOOM * edge for edge in km)))


def _offsets(conv: nn.Module, x: Tensor, place: Box, box: Box) -> Tensor:
    """Offsets of a box, from values up to one cell around it or to the domain's edge."""
    around = Box(
        max(box.top - 1, place.top),
        min(box.bottom + 1, place.bottom),
        max(box.left - 1, place.left),
        min(box.right + 1, place.right),
    )
    return box.of(conv(around.of(x, place)), around)


def _sampled(offset: Tensor, box: Box, height: int, width: int) -> Box:
    """Cells of the lattice from which a deformable 3 x 3 convolution interpolates in a box."""
    taps = torch.arange(9, device=offset.device)[:, None]
    edges = []
    for across, first, tap, axis in (
        (offset[0, 9:], box.top, taps // 3 - 1, 2),
        (offset[0, :9], box.left, taps % 3 - 1, 1),
    ):
        place = first + tap + torch.arange(across.shape[3 - axis], device=offset.device)
        edges += [
            (place + across.amin(axis).double()).amin().floor(),
            (place + across.amax(axis).double()).amax().floor() + 2,
        ]
    limits = (height, height, width, width)
    cells = torch.stack(edges).nan_to_num().tolist()
    return Box(*(int(min(max(e, 0), limit)) for e, limit in zip(cells, limits, strict=True)))


def _padding(box: Box, place: Box) -> tuple[int, int, int, int]:
    """Padding with which a 3 x 3 convolution of the values at a place gives a box within it."""
    left, right, above, below = (1 - cells for cells in place.beyond(box))
    return left, right, above, below
