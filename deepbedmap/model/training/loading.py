"""Load a training set, in memory if it fits and streamed if not, and state its provenance."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import torch

from deepbedmap.files.checksums import Checksum
from deepbedmap.model.training.checking import bytes_per_tile
from deepbedmap.model.training.in_memory import TrainingSet
from deepbedmap.model.training.streaming import StreamedSet
from deepbedmap.places import EDGES

if TYPE_CHECKING:
    from typing import Any

    import xarray as xr


def load_tiles(
    dataset: xr.Dataset, device: str | torch.device = "cpu", memory: int | None = None
) -> tuple[TrainingSet, TrainingSet] | tuple[StreamedSet, StreamedSet]:
    """Make the parts of a training set ready for training: those to train on and to validate with.

    Parameters
    ----------
    dataset
        As :func:`deepbedmap.tiles.open_training_set` gives it.
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
    size = bytes_per_tile(dataset) * dataset.sizes["tile"]
    if size > memory:
        # Validation goes through its chunks one by one, and needs few of them at once.
        return StreamedSet(dataset, "train", memory), StreamedSet(dataset, "validation", 2**28)
    train = TrainingSet.from_dataset(dataset, "train")
    validation = TrainingSet.from_dataset(dataset, "validation")
    place = torch.device(device)
    if place.type == "cuda" and size < torch.cuda.mem_get_info(place)[0] / 2:
        return train.to(place), validation.to(place)
    return train, validation


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
    checksum = Checksum()
    checksum.update(json.dumps(stated, sort_keys=True).encode())
    for name in (*EDGES, "split"):
        checksum.update(json.dumps(dataset[name].to_numpy().tolist()).encode())
    sources = stated.pop("sources", [])
    return {"sources": sources, "training_set": stated | {"sha256": checksum.sha256}}
