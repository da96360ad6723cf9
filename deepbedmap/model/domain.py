"""The bed of a domain of any size, computed within a bound of memory and without seams.

A convolutional network sees the whole domain as one image, padded with zeros at the domain's own
edges alone, though it is computed piece by piece: the trunk in bands of rows, each layer with the
margin that the layers after it spoil; the deformable convolutions in tiles that grow until they
hold all that their offsets point at. Other networks see tiles on a fixed lattice, which are
averaged. Neither result depends on bands, pieces or memory, but for rounding.

The output's lattice has cells of 250 m, four to a cell of 1 km; the input's reaches 1 km beyond it
on each side. Rows run from north to south.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from deepbedmap.errors import Fault, InvalidDataError
from deepbedmap.model.layers import leaky_relu, without_autocast, zero_absent
from deepbedmap.model.networks import Generator

Read = Callable[[int, int, int, int], Mapping[str, NDArray[np.float32]]]
"""read(top, bottom, left, right), in 1 km cells of the input lattice, gives x (1, m, n), w1
(1, 10m, 10n), w2 (2, 2m, 2n) and w3 (1, m, n) as float32, NaN where there is a gap."""

QUALITY = {"prior": 1, "surface": 2, "velocity": 4, "accumulation": 8}
"""Bits of the quality layer: what was absent. Without a prior there is no bed."""

ZOOM = 4
"""Cells of the output along a cell of 1 km."""

TILE = 9
"""Width (km) of the tiles of networks that see tiles; these lie TILE // 3 apart."""

_CELLS = {"x": 1, "w1": 10, "w2": 2, "w3": 1}  # of each input along 1 km
_FLOATS = 1 + 100 + 2 * 4 + 1  # read for 1 km2
_BLOCK_REACH = 15  # cells that a residual-in-residual dense block sees to each side
_SPARE = 8  # rows beyond a band at which its offsets may point before it is computed anew
_MARGIN = 4  # cells beyond a tile that its offsets are first thought to reach
_PIECES = (1024, 512, 256, 128, 64, 32)  # cells across a piece of trunk or output
_LARGEST_TILE = (512, 1024)  # cells across it, on a CPU, which more only costs time, and on a GPU
_SMALLEST_TILE = (16 * ZOOM + 4 * _MARGIN) ** 2  # cells, of 16 km with margins
_STRIP = 64  # rows of input at once, at most
_OVERHEAD = 96 * 2**20  # libraries' workspaces and small tensors
_KEPT = 16  # margins that a band of a CPU has rows for, lest hours be lost where it is stopped


@dataclass(frozen=True)
class Block:
    """A part of the output.

    Attributes
    ----------
    top, left
        Its first row and column in the output's cells of 250 m.
    bed
        Bed elevation in metres, float32 (rows, columns), NaN where the prior has no value.
    quality
        Sums of :data:`QUALITY`, uint8 (rows, columns): which inputs were absent, the prior from
        the cell of 1 km itself, the others anywhere in what the network's first layer sees there
        (3 km, or the tile). 0: nothing was.
    """

    top: int
    left: int
    bed: NDArray[np.float32]
    quality: NDArray[np.uint8]


def bands(
    network: nn.Module,
    shape: tuple[int, int],
    memory: int | None = None,
    *,
    device: str | torch.device = "cpu",
    autocast: bool = False,
    batch_size: int = 32,
) -> list[slice]:
    """Rows of the output, in km, that :func:`refine_band` computes at once.

    Parameters
    ----------
    network
        As :func:`refine_band` takes it.
    shape
        Rows and columns of the input lattice (h, w), in cells of 1 km.
    memory
        Bytes: on a GPU what PyTorch may allocate, weights included; on a CPU by how much the
        process may grow. By default 80 % of the GPU's free memory, or 2 GB.
    device, autocast, batch_size
        As :func:`refine_band` takes them.

    Returns
    -------
    list of slice
        From north to south, together h - 2 rows. On a CPU none has more than 16 times the rows that
        the network sees to each side of a cell, however much memory there is: a finished band is
        what a run that was stopped goes on from.

    Raises
    ------
    InvalidDataError
        The memory is too small for one row; the least that would do is named.
    ValueError
        The domain has no cell.
    """
    refiner = _refiner(network, shape, memory, device, autocast, batch_size)
    rows = refiner.rows
    if refiner.device.type == "cpu":
        rows = min(rows, _KEPT * refiner.margin)
    return [slice(*cut) for cut in _cuts(0, refiner.height, rows)]


def least_memory(
    network: nn.Module,
    shape: tuple[int, int],
    *,
    device: str | torch.device = "cpu",
    autocast: bool = False,
    batch_size: int = 32,
) -> int:
    """Bytes with which :func:`bands` has bands of one row, unless offsets point further than 8 km.

    Parameters are those of :func:`bands`.
    """
    kind = _Image if getattr(network, "convolutional", False) else _Tiled
    return kind(network, shape, torch.device(device), autocast, batch_size).least


def refine_band(
    network: nn.Module,
    read: Read,
    shape: tuple[int, int],
    band: slice,
    *,
    device: str | torch.device = "cpu",
    autocast: bool = False,
    memory: int | None = None,
    origin: tuple[int, int] | None = None,
    batch_size: int = 32,
) -> Iterator[Block]:
    """Refine a band of rows of a domain.

    Parameters
    ----------
    network
        With a true attribute ``convolutional``, a :class:`deepbedmap.model.networks.Generator`:
        the domain is one image. Otherwise any that maps x, w1, w2 and w3 of tiles to their bed:
        tiles of 9 km lie on a lattice of 3 km, and flush with the domain's edges, and are averaged
        with weights that fall to zero at a tile's edge (Hann). It is moved to the device and put
        into evaluation mode. With a true attribute ``flags`` it is told what is ``present``.
    read
        Gives the inputs; called from a thread, ahead of the computation.
    shape
        Rows and columns of the input lattice (h, w), in cells of 1 km.
    band
        Rows of the output in km, any of 0 to h - 2; :func:`bands` has those that suit the memory.
    device
        Where to compute.
    autocast
        Whether to compute in bfloat16, as a training with it does; the last layer, which gives
        metres, in float32 all the same.
    memory
        As for :func:`bands`.
    origin
        Row and column of the output's first km on the lattice that tiles are counted on. A window
        of a domain has the domain's values, 9 km from the window's edges, if both count alike. By
        default the attribute ``origin`` of ``read``, where it has one, or (0, 0).
    batch_size
        Tiles computed at once.

    Yields
    ------
    Block
        Parts that cover the band, each once.

    Raises
    ------
    InvalidDataError
        The memory is too small; the least that would do is named.
    ValueError
        ``read`` gives arrays of other shapes; the band is not in the domain.

    Notes
    -----
    Gaps: where a convolutional network's 3 km window of an optional input meets one, the input
    counts as absent from that cell, and a tile's as absent from the tile, as in training. A gap in
    the prior is taken as 0 m by a convolutional network, in a tile as the mean of the tile's prior.
    """
    refiner = _refiner(network, shape, memory, device, autocast, batch_size)
    start, stop, step = band.indices(refiner.height)
    if step != 1 or stop <= start or (band.stop or 0) > refiner.height:
        raise ValueError(f"band: expected rows of 0 to {refiner.height}, found {band}")
    network.to(refiner.device).eval()
    if origin is None:
        origin = getattr(read, "origin", (0, 0))
    return refiner.refine(read, start, stop, origin)


def _refiner(
    network: nn.Module,
    shape: tuple[int, int],
    memory: int | None,
    device: str | torch.device,
    autocast: bool,
    batch_size: int,
) -> _Image | _Tiled:
    kind = _Image if getattr(network, "convolutional", False) else _Tiled
    place = torch.device(device)
    refiner = kind(network, shape, place, autocast, batch_size)
    refiner.plan(_room(place) if memory is None else memory)
    return refiner


def _room(device: torch.device) -> int:
    if device.type != "cuda":
        return 2 * 10**9
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(0.8 * (torch.cuda.mem_get_info(device)[0] + unused))


def _cuts(start: int, stop: int, size: int) -> list[tuple[int, int]]:
    """Parts of a range, of at most size each and nearly equal."""
    count = -(-(stop - start) // size)
    edges = [start + (stop - start) * part // count for part in range(count + 1)]
    return list(itertools.pairwise(edges))


class _Box(NamedTuple):
    """Rows and columns of a lattice."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def area(self) -> int:
        return (self.bottom - self.top) * (self.right - self.left)

    def grown(self, by: int, height: int, width: int) -> _Box:
        """Larger on each side, as far as a lattice of that size reaches."""
        top, left = max(self.top - by, 0), max(self.left - by, 0)
        return _Box(top, min(self.bottom + by, height), left, min(self.right + by, width))

    def joined(self, other: _Box) -> _Box:
        return _Box(
            min(self.top, other.top),
            max(self.bottom, other.bottom),
            min(self.left, other.left),
            max(self.right, other.right),
        )

    def covers(self, other: _Box) -> bool:
        return self.joined(other) == self

    def beyond(self, other: _Box) -> tuple[int, int, int, int]:
        """Cells by which it reaches beyond another to the left, right, above and below."""
        return (
            other.left - self.left,
            self.right - other.right,
            other.top - self.top,
            self.bottom - other.bottom,
        )

    def of(self, values: Tensor, place: _Box) -> Tensor:
        """Its part of values that lie at a place."""
        rows = slice(self.top - place.top, self.bottom - place.top)
        return values[..., rows, self.left - place.left : self.right - place.left]


class _Refiner:
    """What both kinds of network share: the domain, the device, and what a plan may take."""

    least: int
    rows: int
    margin: int
    """Rows of 1 km that the network sees to each side, without what offsets point at."""

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
            raise ValueError(f"shape: expected at least 3 x 3 cells, found {shape}")
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
        """What the last layers take for so many cells of the output."""
        return cells * (16 * self.features * self.bytes + 1800)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Neither gradients nor, in float32, the shorter products of a GPU."""
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

    def read(self, read: Read, box: _Box) -> dict[str, Tensor]:
        """Inputs of a box of the input lattice, (bands, rows, columns)."""
        grids = {}
        for name, grid in read(*box).items():
            rows, columns = (_CELLS[name] * (box[edge + 1] - box[edge]) for edge in (0, 2))
            if grid.shape[1:] != (rows, columns):
                raise ValueError(
                    f"read: expected {name} of {rows} x {columns} cells for {tuple(box)}, "
                    f"found {grid.shape}"
                )
            grids[name] = torch.from_numpy(np.ascontiguousarray(grid))
        # Only from such memory does a GPU copy while it computes.
        return {
            name: grids[name].pin_memory() if self.device.type == "cuda" else grids[name]
            for name in _CELLS
        }


def _options(network: nn.Module) -> Mapping[str, Any]:
    """Options of the network, or of that within a wrapper."""
    for module in network.modules():
        options: Any = getattr(module, "options", None)
        if isinstance(options, dict) and "features" in options:
            return options
    return {}


def _gaps(grid: Tensor, cells: int) -> Tensor:
    """Cells of 1 km that a grid (bands, rows, columns) has a gap in."""
    gaps = grid.isnan().any(dim=0)
    rows, columns = (size // cells for size in gaps.shape)
    return gaps.view(rows, cells, columns, cells).any(dim=3).any(dim=1)


def _block(top: int, left: int, bed: NDArray[Any], quality: NDArray[np.uint8]) -> Block:
    """A block of bed whose quality is known for each km."""
    quality = quality.repeat(ZOOM, axis=0).repeat(ZOOM, axis=1)
    bed = np.where(quality & QUALITY["prior"], np.float32(np.nan), bed)
    return Block(top, left, bed.astype(np.float32, copy=False), quality)


class _Image(_Refiner):
    """A convolutional network on a domain that is one image.

    Lattices: the trunk's has cells of 1 km, the output's of 250 m. A row of the trunk's input
    lattice stands in the middle of three rows of the input's.
    """

    def __init__(self, network: nn.Module, *arguments: Any) -> None:
        super().__init__(network, *arguments)
        self.network = cast(Generator, network)
        self.margin = 1 + _BLOCK_REACH * self.blocks
        self.row = self.features * self.bytes * self.width
        self.buffers = 3 if self.blocks > 1 else 2
        self.least = self._least(1 + 2 * _SPARE)

    def _least(self, rows: int) -> int:
        """Bytes for so many rows of the trunk's output, in the smallest pieces."""
        held = min(rows + 2 * self.margin, self.height) * self.row
        return self.fixed + max(
            self.buffers * held + self._work(_PIECES[-1]),
            held + self.bytes_of_output(_SMALLEST_TILE),
        )

    def _work(self, piece: int) -> int:
        """Bytes that the trunk takes beside what it holds, in pieces of that width."""
        beyond = piece + 2 * _BLOCK_REACH
        cells = min(beyond, self.height) * min(beyond, self.width)
        channels = max(4 * self.features + 9 * self.growth, 5 * self.features + 4 * self.growth)
        # A library may keep inputs and outputs in an order of its own beside.
        return max(2 * channels * self.bytes * cells, self._strip(4))

    def _strip(self, rows: int) -> int:
        """Bytes that so many rows take from their inputs to the trunk, read one strip ahead."""
        rows = min(rows, self.height)
        read = 4 * _FLOATS * (self.width + 2) * (rows + 4)
        inner = (12 * self.input_features + 3 * self.features) * self.bytes
        return 5 * read + inner * self.width * (rows + 2)

    def plan(self, memory: int, held: int = 1 + 2 * _SPARE) -> None:
        """Choose the pieces that leave the least to be computed twice.

        The trunk's output is to be held for so many rows at least.
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
            cost = (computed + halo * (len(_cuts(0, computed, piece)) - 1)) / rows
            cost *= 1 + halo * (len(_cuts(0, self.width, piece)) - 1) / self.width
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
        if self.device.type == "cuda":
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.reader = read
        self.reach, self.spare = [_MARGIN, _MARGIN], _SPARE
        for top, bottom in _cuts(start, stop, self.rows):
            self._hold(top, bottom, _Box(top, bottom, 0, self.width))
            side = min(
                math.isqrt(self.room) - 4 * _MARGIN, _LARGEST_TILE[self.device.type == "cuda"]
            )
            side = max(ZOOM, side) // ZOOM
            for first, last in _cuts(top, bottom, side):
                self.ahead = _Box(first, bottom, 0, self.width)
                for left, right in _cuts(0, self.width, side):
                    yield from self._tile(_Box(first, last, left, right))
        del self.trunk

    def _hold(self, top: int, bottom: int, ahead: _Box) -> None:
        """Compute the trunk's output for rows top to bottom, and as many as suit of those ahead."""
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
        self.right = _Box(low, high, 0, self.width)
        room = self.memory - self.fixed - self.trunk.nbytes
        # Indices of 32 bits reach to nine times the features.
        largest = (2**31 - 1) // (9 * max(self.features, 4))
        self.room = min(room // self.bytes_of_output(1), largest)

    def _trunk(self, low: int, high: int) -> tuple[Tensor, _Box]:
        """The trunk's output, right in rows low to high, and where it lies."""
        first, last = max(low - self.margin, 0), min(high + self.margin, self.height)
        place = _Box(first, last, 0, self.width)
        pre = self._stem(first, last)
        buffers = [torch.empty_like(pre) for _ in range(self.buffers - 1)]
        x = pre
        for number, block in enumerate(self.network.residual_network):
            beyond = 1 + _BLOCK_REACH * (self.blocks - 1 - number)
            target = _Box(low, high, 0, self.width).grown(beyond, self.height, self.width)
            out = buffers[number % len(buffers)]
            self._in_pieces(block, x, out, place, target, _BLOCK_REACH)
            x = out
        target = _Box(low, high, 0, self.width)
        self._in_pieces(self.network.post_residual_conv_layer, x, pre, place, target, 1, add=True)
        return pre, place

    def _in_pieces(
        self,
        layer: nn.Module,
        x: Tensor,
        out: Tensor,
        place: _Box,
        target: _Box,
        halo: int,
        *,
        add: bool = False,
    ) -> None:
        """Apply a layer that sees a halo to each side, and pads with zeros, to a target."""
        for top, bottom in _cuts(target.top, target.bottom, self.piece):
            for left, right in _cuts(target.left, target.right, self.piece):
                piece = _Box(top, bottom, left, right)
                around = piece.grown(halo, self.height, self.width)
                y = piece.of(layer(around.of(x, place)), around)
                part = piece.of(out, place)
                if add:
                    part += y
                else:
                    part.copy_(y)

    def _stem(self, first: int, last: int) -> Tensor:
        """The trunk's input, rows first to last, strip by strip while the next one is read."""
        strips = _cuts(first, last, self.strip)
        self.quality = np.zeros((last - first, self.width), np.uint8)
        pre = torch.empty(0)
        with ThreadPoolExecutor(1) as pool:
            coming = pool.submit(self._read_strip, strips[0])
            for number, (top, bottom) in enumerate(strips):
                grids = coming.result()
                if number + 1 < len(strips):
                    coming = pool.submit(self._read_strip, strips[number + 1])
                strip = _Box(top, bottom, 0, self.width)
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
        box = _Box(*strip, 0, self.width).grown(1, self.height, self.width)
        return self.read(self.reader, _Box(box.top, box.bottom + 2, 0, self.width + 2))

    def _enter(self, grids: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The trunk's input for a strip, and its quality (rows, columns)."""
        there = {
            name: grid.to(self.device, self.dtype, non_blocking=True)
            for name, grid in grids.items()
        }
        gaps = [_gaps(grid, _CELLS[name]) for name, grid in there.items()]
        around = functional.max_pool2d(torch.stack(gaps[1:]).to(self.dtype), 3, 1) > 0
        bits = torch.tensor(list(QUALITY.values()), dtype=torch.uint8, device=self.device)
        layers = torch.cat((gaps[0][None, 1:-1, 1:-1], around)).to(torch.uint8)
        quality = (layers * bits.view(-1, 1, 1)).sum(0, dtype=torch.uint8).cpu()
        there["x"] = there["x"].nan_to_num(0.0)
        present = ~around[None] if bool((quality > QUALITY["prior"]).any()) else None
        x, w1, w2, w3 = (grid[None] for grid in there.values())
        return self.network.stem(x, w1, w2, w3, present), quality

    def _tile(self, km: _Box) -> Iterator[Block]:
        """Blocks that cover a box of the trunk's lattice."""
        with self.computing():
            bed = self._bed(km)
        if bed is None:
            halves = (
                _cuts(start, stop, -(-(stop - start) // 2))
                for start, stop in ((km.top, km.bottom), (km.left, km.right))
            )
            for (top, bottom), (left, right) in itertools.product(*halves):
                yield from self._tile(_Box(top, bottom, left, right))
            return
        rows = slice(km.top - self.held.top, km.bottom - self.held.top)
        quality = self.quality[rows, km.left : km.right]
        yield _block(ZOOM * km.top, ZOOM * km.left, bed, quality)

    def _bed(self, km: _Box) -> NDArray[np.float32] | None:
        """Bed of a box of the trunk's lattice; None if it takes too much memory at once.

        The outer box holds the output of the upsampling, the inner one that of the first
        deformable convolution; each grows to what the next layer's offsets point at.
        """
        height, width = ZOOM * self.height, ZOOM * self.width
        tile = _Box(*(ZOOM * edge for edge in km))
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
        # In bfloat16 a bed at -2000 m would be rounded to 8 m.
        precise = second.deform_conv.weight.dtype
        with without_autocast(self.device):
            bed = second.sample(z.to(precise), offset.to(precise), _padding(tile, inner))
        found: NDArray[np.float32] = bed[0, 0].float().cpu().numpy()
        return found

    def _enlarge(self, box: _Box) -> Tensor:
        """The output of the upsampling in a box of the output's lattice."""
        km = _Box(
            box.top // ZOOM, -(-box.bottom // ZOOM), box.left // ZOOM, -(-box.right // ZOOM)
        ).grown(1, self.height, self.width)
        if not self.right.covers(km):
            # Tiles that follow will point as far.
            self.spare = max(self.spare, self.ahead.top - km.top)
            self._hold(km.top, km.bottom, self.ahead)
        y = self.network.enlarge(km.of(self.trunk, self.held))
        return box.of(y, _Box(*(ZOOM * edge for edge in km)))


def _offsets(conv: nn.Module, x: Tensor, place: _Box, box: _Box) -> Tensor:
    """Offsets of a box, from what lies one cell around it or to the domain's edge."""
    around = _Box(
        max(box.top - 1, place.top),
        min(box.bottom + 1, place.bottom),
        max(box.left - 1, place.left),
        min(box.right + 1, place.right),
    )
    return box.of(conv(around.of(x, place)), around)


def _sampled(offset: Tensor, box: _Box, height: int, width: int) -> _Box:
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
    found = torch.stack(edges).nan_to_num().tolist()
    return _Box(*(int(min(max(e, 0), limit)) for e, limit in zip(found, limits, strict=True)))


def _padding(box: _Box, place: _Box) -> tuple[int, int, int, int]:
    """Padding of values at a place with which a 3 x 3 convolution gives a box within."""
    left, right, above, below = (1 - cells for cells in place.beyond(box))
    return left, right, above, below


class _Tiled(_Refiner):
    """A network that sees square tiles, which overlap and are averaged."""

    def __init__(self, network: nn.Module, *arguments: Any, tile: int = TILE) -> None:
        super().__init__(network, *arguments)
        self.network = network
        self.tile = self.margin = min(tile, self.height, self.width)
        self.step = max(1, tile // 3)
        self.least = self._bytes(1)

    def _bytes(self, rows: int) -> int:
        """Bytes for a band of so many rows."""
        read = 4 * _FLOATS * (self.width + 2) * min(rows + 2 * self.tile, self.height + 2)
        averaged = 24 * ZOOM**2 * self.width * rows
        across, down = (-(-cells // self.step) for cells in (self.width, rows + 2 * self.tile))
        batch = min(self.batch_size, across * down)
        return (
            self.fixed + 2 * read + averaged + self.bytes_of_output(batch * (ZOOM * self.tile) ** 2)
        )

    def plan(self, memory: int) -> None:
        self.require(memory, self.least)
        low, high = 1, self.height
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self._bytes(middle) <= memory else (low, middle - 1)
        self.rows = low

    def refine(self, read: Read, start: int, stop: int, origin: tuple[int, int]) -> Iterator[Block]:
        tops, lefts = (
            self._starts(cells, first)
            for cells, first in zip((self.height, self.width), origin, strict=True)
        )
        for top, bottom in _cuts(start, stop, self.rows):
            meeting = [row for row in tops if top - self.tile < row < bottom]
            yield self._average(read, top, bottom, meeting, lefts)

    def _starts(self, cells: int, first: int) -> list[int]:
        last = cells - self.tile
        return sorted({0, last, *range(-first % self.step, last + 1, self.step)})

    def _average(
        self, read: Read, top: int, bottom: int, tops: Sequence[int], lefts: Sequence[int]
    ) -> Block:
        size, high = ZOOM * self.tile, tops[0]
        grids = self.read(read, _Box(high, tops[-1] + self.tile + 2, 0, self.width + 2))
        bed = np.zeros((ZOOM * (bottom - top), ZOOM * self.width))
        weight = np.zeros_like(bed)
        own = grids["x"][0, 1 + top - high : 1 + bottom - high, 1:-1].isnan().numpy()
        quality = np.where(own, np.uint8(QUALITY["prior"]), np.uint8(0))
        taper = np.hanning(size + 2)[1:-1]
        taper = taper[:, None] * taper
        corners = [(row - high, column) for row in tops for column in lefts]
        for first, last in _cuts(0, len(corners), self.batch_size):
            for (row, column), tile, absent in self._tiles(grids, corners[first:last]):
                start = row + high - top  # the band may begin within the tile
                rows = slice(max(start, 0), start + self.tile)
                columns = slice(column, column + self.tile)
                quality[rows, columns] |= absent
                part = np.s_[
                    ZOOM * rows.start : ZOOM * rows.stop, ZOOM * column : ZOOM * columns.stop
                ]
                seen = slice(
                    ZOOM * (rows.start - start), ZOOM * (min(bottom - top, rows.stop) - start)
                )
                bed[part] += (taper * tile)[seen]
                weight[part] += taper[seen]
        bed = np.divide(bed, weight, out=bed, where=weight > 0)
        return _block(ZOOM * top, 0, bed, quality)

    def _tiles(
        self, grids: Mapping[str, Tensor], corners: Sequence[tuple[int, int]]
    ) -> Iterator[tuple[tuple[int, int], NDArray[np.float32], np.uint8]]:
        """Corner, bed and what is absent, for each tile that has a prior at all."""

        def cut(name: str, row: int, column: int) -> Tensor:
            cells = _CELLS[name]
            rows = slice(cells * row, cells * (row + self.tile + 2))
            return grids[name][:, rows, cells * column : cells * (column + self.tile + 2)]

        corners = [c for c in corners if not bool(cut("x", *c).isnan().all())]
        if not corners:
            return
        x, *optional = (torch.stack([cut(name, *corner) for corner in corners]) for name in _CELLS)
        x = x.where(~x.isnan(), x.nanmean((1, 2, 3), keepdim=True))
        # As in training: what a tile lacks of an optional input, it lacks as a whole.
        present = torch.stack([~grid.isnan().flatten(1).any(dim=1) for grid in optional], dim=1)
        tiles = [x, *zero_absent(optional, present)]
        told = [present.to(self.device)] if getattr(self.network, "flags", False) else []
        with self.computing():
            bed = self.network(*(grid.to(self.device, self.dtype) for grid in tiles), *told)
            beds = bed[:, 0].float().cpu().numpy()
        bits = np.array(list(QUALITY.values())[1:])
        absent = ((~present).numpy() * bits).sum(axis=1).astype(np.uint8)
        yield from zip(corners, beds, absent, strict=True)
