"""Tiles as the network is trained on them: checked, in memory or read when they are needed."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import threading
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from deepbedmap.errors import Fault, InvalidDataError
from deepbedmap.inputs import INPUTS, RESOLUTION, RESOLUTIONS

if TYPE_CHECKING:
    import xarray as xr

Split = Literal["train", "validation"]
Arrays = dict[str, npt.NDArray[Any]]

AHEAD = 2
"""Batches that are read while one is trained on."""

_OPTIONAL = INPUTS[1:]
_SHAPES = (("w1", 10, 0), ("w2", 2, 0), ("w3", 1, 0), ("y", 4, 2), ("mask", 4, 2))


class Tiles(Protocol):
    """Tiles of a training, such as a :class:`TrainingSet`.

    Indexing with a tensor of n numbers gives a batch: ``x``, ``w1``, ``w2``, ``w3`` and ``y``;
    perhaps ``mask`` (bool, as ``y``: what was surveyed) and ``present`` (bool (n, 3): which of w1,
    w2 and w3 there are). An attribute ``device`` says where the numbers are wanted.
    """

    def __len__(self) -> int:
        """Count of tiles."""
        ...

    def __getitem__(self, index: Tensor) -> dict[str, Tensor]:
        """Batch of the tiles with these numbers."""
        ...


class TrainingSet:
    """Tiles with what was surveyed in them, float32, in memory.

    Indexing with a tensor of n numbers gives a batch: a dict of ``x``, ``w1``, ``w2``, ``w3`` (as
    :func:`deepbedmap.inputs.cut_inputs` gives them), ``y`` (n, 1, 4h, 4w), the surveyed bed
    elevation in metres at 250 m, and ``index``, the numbers themselves; where the tiles have them
    also ``mask`` (bool, as ``y``), the cells that were surveyed, and ``present`` (bool (n, 3)),
    which of w1, w2 and w3 a tile has. An absent input is zero; ``y`` may be NaN outside its mask.

    Parameters
    ----------
    tiles
        The arrays or tensors by name, all with the same number of tiles; ``mask`` and ``present``
        may be left out, if all was surveyed and all inputs are there.

    Raises
    ------
    InvalidDataError
        A cell is not finite, and nothing says that it was not surveyed or that the input is absent;
        grids of a tile do not fit each other; there is no tile; or one array has more tiles than
        another.
    """

    def __init__(self, tiles: Mapping[str, npt.NDArray[Any] | Tensor]) -> None:
        self.tensors = _checked(tiles)

    @classmethod
    def from_dataset(cls, dataset: xr.Dataset, split: Split) -> TrainingSet:
        """Load one part of a training set on disk, with masks and with what is absent.

        A velocity, accumulation or surface with a gap (NaN) in a tile that is not ``complete``
        counts as absent from that tile as a whole.

        Parameters
        ----------
        dataset
            As :func:`deepbedmap.training_sets.open_training_set` gives it.
        split
            Which part.

        Raises
        ------
        InvalidDataError
            Besides the cases of the class, whose tiles have the numbers of the dataset: the dataset
            has no tile of this part, or cells of other widths than the network's.
        ValueError
            There is no such part.
        """
        numbers = _tiles_of(dataset, split)
        part = dataset.isel(tile=numbers)
        arrays = {name: part[name].to_numpy() for name in (*INPUTS, "y", "mask")}
        arrays["present"] = _present(arrays, part["complete"].to_numpy())
        loaded = cls.__new__(cls)
        loaded.tensors = _checked(arrays, numbers)
        return loaded

    @property
    def device(self) -> torch.device:
        """Where the tiles are, and where the numbers are wanted that they are asked by."""
        return self.tensors["y"].device

    def to(self, device: str | torch.device) -> TrainingSet:
        """Give the same tiles in the memory of a device."""
        moved = copy.copy(self)
        moved.tensors = {name: tensor.to(device) for name, tensor in self.tensors.items()}
        return moved

    def __len__(self) -> int:
        return len(self.tensors["y"])

    def __getitem__(self, index: Tensor) -> dict[str, Tensor]:
        batch = {name: tensor[index] for name, tensor in self.tensors.items()}
        return batch | {"index": index}


class StreamedSet:
    """One part of a training set on disk, which is read as it is asked for.

    Its tiles, their numbers and its batches are those of :meth:`TrainingSet.from_dataset`; faults
    in the tiles are told when they are read. The chunks of the store are read as a whole:
    :meth:`shuffled` gives an order of the tiles that needs each of them once. :func:`batches` reads
    ahead in a thread.

    Parameters
    ----------
    dataset
        As :func:`deepbedmap.training_sets.open_training_set` gives it.
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
        self._numbers = _tiles_of(dataset, split)
        self._tiles = dataset[[*INPUTS, "y", "mask"]]
        self._complete = dataset["complete"].to_numpy()
        chunks = dataset["y"].variable.chunksizes.get("tile", (dataset.sizes["tile"],))
        self._chunks = np.searchsorted(np.cumsum(chunks), self._numbers, side="right")
        self._first = np.searchsorted(self._chunks, np.arange(len(chunks) + 1))
        self._room = max(1, cache // (_bytes_of_tile(dataset) * max(chunks)))
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
        arrays["present"] = _present(arrays, self._complete[numbers])
        return _checked(arrays, numbers) | {"index": index}

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


def load(
    dataset: xr.Dataset, device: str | torch.device = "cpu", memory: int | None = None
) -> tuple[TrainingSet, TrainingSet] | tuple[StreamedSet, StreamedSet]:
    """Make the parts of a training set ready for training: those to train on and to validate with.

    Parameters
    ----------
    dataset
        As :func:`deepbedmap.training_sets.open_training_set` gives it.
    device
        Where the network is. Tiles that take less than half of what is free there lie there too.
    memory
        Bytes that tiles may take here; if they take more, they are streamed, and as many of them
        are kept. By default half of this machine's memory, shared by the processes that
        ``torchrun`` started on it.

    Raises
    ------
    InvalidDataError
        As :meth:`TrainingSet.from_dataset`.
    """
    if memory is None:
        from distributed.system import MEMORY_LIMIT

        memory = MEMORY_LIMIT // 2 // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    size = _bytes_of_tile(dataset) * dataset.sizes["tile"]
    if size > memory:
        # Validation goes through its chunks one by one, and needs few of them at once.
        return StreamedSet(dataset, "train", memory), StreamedSet(dataset, "validation", 2**28)
    train = TrainingSet.from_dataset(dataset, "train")
    validation = TrainingSet.from_dataset(dataset, "validation")
    place = torch.device(device)
    if place.type == "cuda" and size < torch.cuda.mem_get_info(place)[0] / 2:
        return train.to(place), validation.to(place)
    return train, validation


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


def provenance_of(dataset: xr.Dataset) -> dict[str, Any]:
    """Say, for the checkpoints of a training, what its training set is.

    Returns
    -------
    dict
        ``sources``, the files that the set was made of, by which a checkpoint is cited; and
        ``training_set``: how it was cut, what was left out, its split, and ``sha256``, a digest of
        all of this and of the places of the tiles.
    """
    stated = json.loads(dataset.attrs.get("provenance", "{}"))
    digest = hashlib.sha256(json.dumps(stated, sort_keys=True).encode())
    for name in ("xmin", "ymin", "xmax", "ymax", "split"):
        digest.update(json.dumps(dataset[name].to_numpy().tolist()).encode())
    sources = stated.pop("sources", [])
    return {"sources": sources, "training_set": stated | {"sha256": digest.hexdigest()}}


def require_fit(shapes: Mapping[str, tuple[int, ...]], name: str = "training tiles") -> None:
    """Refuse grids that do not fit each other at the network's resolutions.

    Parameters
    ----------
    shapes
        Those of ``x``, ``w1``, ``w2``, ``w3``, ``y`` and perhaps ``mask``; rows and columns last.
    name
        What a fault names.

    Raises
    ------
    InvalidDataError
        One has not as many rows or columns as those of ``x`` ask for.
    """
    rows, columns = shapes["x"][-2:]
    for field, scale, less in _SHAPES:
        expected = scale * (rows - less), scale * (columns - less)
        if field in shapes and tuple(shapes[field][-2:]) != expected:
            found = shapes[field][-2:]
            raise InvalidDataError(
                Fault(
                    name,
                    field=field,
                    expected=f"{expected[0]} x {expected[1]} cells beside x of {rows} x {columns}",
                    found=f"{found[0]} x {found[1]}",
                    remedy="cut the tiles at the network's resolutions",
                )
            )


def require_complete(batch: Mapping[str, Tensor]) -> None:
    """Refuse tiles with gaps of which nothing says that they are meant.

    Parameters
    ----------
    batch
        ``x``, ``w1``, ``w2``, ``w3`` and ``y``; perhaps ``mask``, ``present``, and ``index``, by
        which a fault names a tile.

    Raises
    ------
    InvalidDataError
        A cell is NaN or infinite, though it was surveyed or its input is present.
    """
    for name in (*INPUTS, "y"):
        gaps = ~batch[name].isfinite()
        why = ", since there is no mask"
        if name == "y" and "mask" in batch:
            gaps &= batch["mask"]
            why = " of the mask"
        elif name in _OPTIONAL and "present" in batch:
            gaps &= batch["present"][:, _OPTIONAL.index(name)].view(-1, 1, 1, 1)
            why = " of an input that is present"
        if not gaps.any():
            continue
        cells = gaps.flatten(start_dim=1).sum(dim=1)
        tile = int(cells.nonzero()[0])
        number = int(batch["index"][tile]) if "index" in batch else tile
        raise InvalidDataError(
            Fault(
                "training tiles",
                entry=f"tile {number}",
                field=name,
                expected=f"a finite value in every cell{why}",
                found=f"{int(cells[tile])} cells of NaN or infinity",
                remedy="leave the tile out or fill its gaps",
            )
        )


def _tiles_of(dataset: xr.Dataset, split: str) -> npt.NDArray[np.intp]:
    """Numbers of the tiles of a part, of a training set whose grids fit the network."""
    if split not in ("train", "validation"):
        raise ValueError(f"split must be train or validation, not {split!r}")
    for name, cell in {**RESOLUTIONS, "y": RESOLUTION}.items():
        found = dataset[name].attrs.get("resolution", cell)
        if found != cell:
            raise InvalidDataError(
                Fault(
                    "training tiles",
                    field=name,
                    expected=f"cells of {cell:g} m",
                    found=f"cells of {found:g} m",
                    remedy="cut the tiles at the network's resolutions",
                )
            )
    require_fit({str(name): variable.shape for name, variable in dataset.data_vars.items()})
    numbers: npt.NDArray[np.intp] = np.flatnonzero(dataset["split"].to_numpy() == split)
    if len(numbers) == 0:
        raise InvalidDataError(Fault(f"{split} tiles", expected="at least one", found="none"))
    return numbers


def _bytes_of_tile(dataset: xr.Dataset) -> int:
    names = (*INPUTS, "y", "mask")
    return sum(dataset[name].nbytes for name in names) // max(1, dataset.sizes["tile"])


def _present(arrays: Arrays, complete: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Which of w1, w2 and w3 each tile has without a gap, (n, 3)."""
    present = np.ones((len(complete), len(_OPTIONAL)), bool)
    doubtful = np.flatnonzero(~complete)
    for place, name in enumerate(_OPTIONAL):
        present[doubtful, place] = ~np.isnan(arrays[name][doubtful]).any(axis=(1, 2, 3))
    return present


def _checked(
    tiles: Mapping[str, npt.NDArray[Any] | Tensor],
    numbers: npt.NDArray[np.intp] | None = None,
) -> dict[str, Tensor]:
    """Tensors of tiles that were found sound; faults name tiles by these numbers."""
    tensors = {name: torch.as_tensor(tiles[name], dtype=torch.float32) for name in (*INPUTS, "y")}
    for name in ("mask", "present"):
        if name in tiles:
            tensors[name] = torch.as_tensor(tiles[name], dtype=torch.bool)
    counts = {name: len(tensor) for name, tensor in tensors.items()}
    if len(set(counts.values())) != 1 or 0 in counts.values():
        raise InvalidDataError(
            Fault(
                "training tiles",
                expected="the same number of tiles, at least one, in every array",
                found=", ".join(f"{count} in {name}" for name, count in counts.items()),
            )
        )
    require_fit({name: tuple(tensors[name].shape) for name in tensors if name != "present"})
    index = {} if numbers is None else {"index": torch.as_tensor(numbers)}
    require_complete(tensors | index)
    if "present" in tensors:
        for place, name in enumerate(_OPTIONAL):
            absent = ~tensors["present"][:, place]
            if absent.any():
                # A copy, since the array may be somebody's.
                tensors[name] = tensors[name].clone()
                tensors[name][absent] = 0
    return tensors
