"""Tiles as the network is trained on them: checked, and held in memory as tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy.typing as npt
import torch
from torch import Tensor

from deepbedmap.errors import Fault, InvalidDataError
from deepbedmap.inputs import INPUTS

if TYPE_CHECKING:
    import xarray as xr


class TrainingSet:
    """Tiles with what was surveyed in them, float32, in memory.

    Indexing with a tensor of n numbers gives a batch: a dict of ``x``, ``w1``, ``w2``, ``w3`` (as
    :func:`deepbedmap.inputs.cut_inputs` gives them), ``y`` (n, 1, 4h, 4w), the surveyed bed
    elevation in metres at 250 m, and ``index``, the numbers themselves.

    Parameters
    ----------
    tiles
        The arrays or tensors by name, all with the same number of tiles.

    Raises
    ------
    InvalidDataError
        A tile has a cell that is not finite (without a mask nothing says that it was not
        measured); there is no tile; or one array has more tiles than another.
    """

    def __init__(self, tiles: Mapping[str, npt.NDArray[Any] | Tensor]) -> None:
        self.tensors = {
            name: torch.as_tensor(tiles[name], dtype=torch.float32) for name in (*INPUTS, "y")
        }
        counts = {name: len(tensor) for name, tensor in self.tensors.items()}
        if len(set(counts.values())) != 1 or 0 in counts.values():
            raise InvalidDataError(
                Fault(
                    "training tiles",
                    expected="the same number of tiles, at least one, in every array",
                    found=", ".join(f"{count} in {name}" for name, count in counts.items()),
                )
            )
        require_complete(self.tensors)

    @classmethod
    def from_dataset(
        cls, dataset: xr.Dataset, split: Literal["train", "validation"]
    ) -> TrainingSet:
        """Load one part of a training set on disk.

        Parameters
        ----------
        dataset
            As :func:`deepbedmap.training_sets.open_training_set` gives it.
        split
            Which part.

        Raises
        ------
        InvalidDataError
            Besides the cases of the class: the dataset has no tile of this part.
        ValueError
            There is no such part.
        """
        if split not in ("train", "validation"):
            raise ValueError(f"split must be train or validation, not {split!r}")
        part = dataset.isel(tile=(dataset["split"] == split).to_numpy().nonzero()[0])
        return cls({name: part[name].to_numpy() for name in (*INPUTS, "y")})

    def __len__(self) -> int:
        return len(self.tensors["y"])

    def __getitem__(self, index: Tensor) -> dict[str, Tensor]:
        batch = {name: tensor[index] for name, tensor in self.tensors.items()}
        return batch | {"index": index}


def require_complete(batch: Mapping[str, Tensor]) -> None:
    """Refuse tiles with gaps: without a mask nothing says that they were not measured.

    Parameters
    ----------
    batch
        ``x``, ``w1``, ``w2``, ``w3`` and ``y``; perhaps ``index``, by which a fault names a tile.

    Raises
    ------
    InvalidDataError
        A cell is NaN or infinite.
    """
    for name in (*INPUTS, "y"):
        gaps = ~batch[name].isfinite()
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
                expected="a finite value in every cell, since there is no mask",
                found=f"{int(cells[tile])} cells of NaN or infinity",
                remedy="leave the tile out or fill its gaps",
            )
        )
