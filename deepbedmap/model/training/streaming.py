"""Training tiles read from disk as they are needed, chunk by chunk and ahead of the training."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import torch

from deepbedmap.model.training.checking import (
    bytes_per_tile,
    checked_tensors,
    present_inputs,
    tiles_of_split,
)
from deepbedmap.tiles.inputs import INPUTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from concurrent.futures import Future

    import numpy.typing as npt
    import xarray as xr
    from torch import Tensor

    from deepbedmap.model.training.checking import Arrays, Split
    from deepbedmap.model.training.in_memory import Tiles

AHEAD = 2
"""Batches that are read while one is trained on."""


class StreamedSet:
    """One part of a training set on disk, which is read as it is asked for.

    Its tiles, their numbers and its batches are those of :meth:`TrainingSet.from_dataset`; faults
    in the tiles are told when they are read. The chunks of the store are read as a whole:
    :meth:`shuffled` gives an order of the tiles that needs each of them once. :func:`batches` reads
    ahead in a thread.

    Parameters
    ----------
    dataset
        As :func:`deepbedmap.tiles.open_training_set` gives it.
    split
        Which part.
    cache
        Bytes of decoded tiles that are kept, those of the chunks used last; at least of one chunk.

    Raises
    ------
    InvalidDataError, ValueError
        As :meth:`TrainingSet.from_dataset`.
    """

    device = torch.device("cpu")

    def __init__(self, dataset: xr.Dataset, split: Split, cache: int = 2**30) -> None:
        self._numbers = tiles_of_split(dataset, split)
        self._tiles = dataset[[*INPUTS, "y", "mask"]]
        self._complete = dataset["complete"].to_numpy()
        chunks = dataset["y"].variable.chunksizes.get("tile", (dataset.sizes["tile"],))
        self._chunks = np.searchsorted(np.cumsum(chunks), self._numbers, side="right")
        self._first = np.searchsorted(self._chunks, np.arange(len(chunks) + 1))
        self._room = max(1, cache // (bytes_per_tile(dataset) * max(chunks)))
        self._kept: OrderedDict[int, Arrays] = OrderedDict()
        self._guard = threading.Lock()

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def chunks_at_once(self) -> int | None:
        """Chunks among which tiles are shuffled; None where all of them fit the cache."""
        return self._room if self._room < len(np.unique(self._chunks)) else None

    def shuffled(self, random: np.random.Generator) -> npt.NDArray[np.intp]:
        """Give the numbers of all tiles, each once, in a random order that reads each chunk once.

        Where all chunks fit the cache, any tile may follow any other. Where they do not, chunks
        stand in random order, and tiles are shuffled among as many of them as fit the cache.
        """
        if self.chunks_at_once is None:
            return random.permutation(len(self))
        chunks = random.permutation(np.unique(self._chunks))
        groups = np.array_split(chunks, -(-len(chunks) // self._room))
        return np.concatenate(
            [random.permutation(np.flatnonzero(np.isin(self._chunks, group))) for group in groups]
        )

    def __getitem__(self, index: Tensor) -> dict[str, Tensor]:
        own = index.numpy()
        numbers, chunks = self._numbers[own], self._chunks[own]
        arrays: Arrays = {}
        # In the order of the tiles: what is no longer needed leaves the cache first.
        for chunk in dict.fromkeys(chunks.tolist()):
            places = np.flatnonzero(chunks == chunk)
            for name, values in self._read(chunk).items():
                if name not in arrays:
                    arrays[name] = np.empty((len(own), *values.shape[1:]), values.dtype)
                arrays[name][places] = values[own[places] - self._first[chunk]]
        arrays["present"] = present_inputs(arrays, self._complete[numbers])
        return checked_tensors(arrays, numbers) | {"index": index}

    def _read(self, chunk: int) -> Arrays:
        """The part's tiles of a chunk."""
        with self._guard:
            if chunk not in self._kept:
                tiles = self._numbers[self._first[chunk] : self._first[chunk + 1]]
                read = self._tiles.isel(tile=tiles).load()
                self._kept[chunk] = {str(name): read[name].to_numpy() for name in read.data_vars}
            self._kept.move_to_end(chunk)
            while len(self._kept) > self._room:
                self._kept.popitem(last=False)
            return self._kept[chunk]


def shuffled(tiles: Tiles, random: np.random.Generator) -> npt.NDArray[np.intp]:
    """Numbers of all tiles, each once, in random order; see :meth:`StreamedSet.shuffled`."""
    if isinstance(tiles, StreamedSet):
        return tiles.shuffled(random)
    return random.permutation(len(tiles))


def batches(tiles: Tiles, indices: Iterable[Tensor]) -> Iterator[dict[str, Tensor]]:
    """Batches of tiles by their numbers; where these are streamed, some are read ahead."""
    if not isinstance(tiles, StreamedSet):
        for index in indices:
            yield tiles[index]
        return
    reader = ThreadPoolExecutor(1, "tiles")
    pending: deque[Future[dict[str, Tensor]]] = deque()
    try:
        for index in indices:
            pending.append(reader.submit(tiles.__getitem__, index))
            if len(pending) > AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        reader.shutdown(cancel_futures=True)
