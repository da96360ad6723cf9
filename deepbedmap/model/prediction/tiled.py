"""A network that sees square tiles, which overlap on a fixed lattice and are averaged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from deepbedmap.model.layers import zero_absent
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
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from deepbedmap.model.prediction.refining import Block, Read

TILE = 9
"""Width (km) of the tiles of networks that see tiles, which are TILE // 3 apart."""


class TiledRefiner(Refiner):
    """A network that sees square tiles, which overlap and are averaged."""

    def __init__(self, network: nn.Module, *arguments: Any, tile: int = TILE) -> None:
        super().__init__(network, *arguments)
        self.network = network
        self.tile = self.margin = min(tile, self.height, self.width)
        self.step = max(1, tile // 3)
        self.least = self._bytes(1)

    def _bytes(self, rows: int) -> int:
        """Bytes for a band of n rows."""
        read = 4 * FLOATS_PER_KM2 * (self.width + 2) * min(rows + 2 * self.tile, self.height + 2)
        averaged = 24 * ZOOM**2 * self.width * rows
        across, down = (-(-cells // self.step) for cells in (self.width, rows + 2 * self.tile))
        batch = min(self.batch_size, across * down)
        return (
            self.fixed + 2 * read + averaged + self.bytes_of_output(batch * (ZOOM * self.tile) ** 2)
        )

    def plan(self, memory: int) -> None:
        """Choose the largest number of rows (1 km) per band that fits in ``memory`` (bytes)."""
        self.require(memory, self.least)
        low, high = 1, self.height
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self._bytes(middle) <= memory else (low, middle - 1)
        self.rows = low

    def refine(self, read: Read, start: int, stop: int, origin: tuple[int, int]) -> Iterator[Block]:
        """Yield the bed (m) of rows ``start`` to ``stop`` of the 1 km lattice, band by band."""
        tops, lefts = (
            self._starts(cells, first)
            for cells, first in zip((self.height, self.width), origin, strict=True)
        )
        for top, bottom in even_cuts(start, stop, self.rows):
            meeting = [row for row in tops if top - self.tile < row < bottom]
            yield self._average(read, top, bottom, meeting, lefts)

    def _starts(self, cells: int, first: int) -> list[int]:
        last = cells - self.tile
        return sorted({0, last, *range(-first % self.step, last + 1, self.step)})

    def _average(
        self, read: Read, top: int, bottom: int, tops: Sequence[int], lefts: Sequence[int]
    ) -> Block:
        size, high = ZOOM * self.tile, tops[0]
        grids = self.read(read, Box(high, tops[-1] + self.tile + 2, 0, self.width + 2))
        bed = np.zeros((ZOOM * (bottom - top), ZOOM * self.width))
        weight = np.zeros_like(bed)
        own = grids["x"][0, 1 + top - high : 1 + bottom - high, 1:-1].isnan().numpy()
        quality = np.where(own, np.uint8(QUALITY["prior"]), np.uint8(0))
        taper = np.hanning(size + 2)[1:-1]
        taper = taper[:, None] * taper
        corners = [(row - high, column) for row in tops for column in lefts]
        for first, last in even_cuts(0, len(corners), self.batch_size):
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
        return block_with_quality(ZOOM * top, 0, bed, quality)

    def _tiles(
        self, grids: Mapping[str, Tensor], corners: Sequence[tuple[int, int]]
    ) -> Iterator[tuple[tuple[int, int], NDArray[np.float32], np.uint8]]:
        """Corner, bed and absent inputs of each tile in which the prior has a value."""

        def cut(name: str, row: int, column: int) -> Tensor:
            cells = CELLS_PER_KM[name]
            rows = slice(cells * row, cells * (row + self.tile + 2))
            return grids[name][:, rows, cells * column : cells * (column + self.tile + 2)]

        corners = [c for c in corners if not bool(cut("x", *c).isnan().all())]
        if not corners:
            return
        x, *optional = (
            torch.stack([cut(name, *corner) for corner in corners]) for name in CELLS_PER_KM
        )
        x = x.where(~x.isnan(), x.nanmean((1, 2, 3), keepdim=True))
        # As in training: an optional input with a gap in a tile is absent from the whole tile.
        present = torch.stack([~grid.isnan().flatten(1).any(dim=1) for grid in optional], dim=1)
        tiles = [x, *zero_absent(optional, present)]
        flags = [present.to(self.device)] if getattr(self.network, "flags", False) else []
        with self.computing():
            bed = self.network(*(grid.to(self.device, self.dtype) for grid in tiles), *flags)
            beds = bed[:, 0].float().cpu().numpy()
        bits = np.array(list(QUALITY.values())[1:])
        absent = ((~present).numpy() * bits).sum(axis=1).astype(np.uint8)
        yield from zip(corners, beds, absent, strict=True)
