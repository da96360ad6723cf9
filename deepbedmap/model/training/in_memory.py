"""Training tiles held in memory, on the CPU or on a GPU."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Protocol

import torch

from deepbedmap.model.training.checking import checked_tensors, present_inputs, tiles_of_split
from deepbedmap.tiles.inputs import INPUTS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    import numpy.typing as npt
    import xarray as xr
    from torch import Tensor

    from deepbedmap.model.training.checking import Split


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
    :func:`deepbedmap.tiles.cut_inputs` gives them), ``y`` (n, 1, 4h, 4w), the surveyed bed
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
        self.tensors = checked_tensors(tiles)

    @classmethod
    def from_dataset(cls, dataset: xr.Dataset, split: Split) -> TrainingSet:
        """Load one part of a training set on disk, with masks and with what is absent.

        A velocity, accumulation or surface with a gap (NaN) in a tile that is not ``complete``
        counts as absent from that tile as a whole.

        Parameters
        ----------
        dataset
            As :func:`deepbedmap.tiles.open_training_set` gives it.
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
        numbers = tiles_of_split(dataset, split)
        part = dataset.isel(tile=numbers)
        arrays = {name: part[name].to_numpy() for name in (*INPUTS, "y", "mask")}
        arrays["present"] = present_inputs(arrays, part["complete"].to_numpy())
        loaded = cls.__new__(cls)
        loaded.tensors = checked_tensors(arrays, numbers)
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


def device_of(tiles: Tiles) -> torch.device:
    """Where the numbers of tiles are wanted."""
    return torch.device(getattr(tiles, "device", "cpu"))
