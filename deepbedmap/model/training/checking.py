"""Checks of training tiles: grids that match each other, and no unexplained gaps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from deepbedmap.errors import Fault, InvalidDataError, WrongCallError
from deepbedmap.tiles.inputs import INPUTS, RESOLUTION, RESOLUTIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

    import xarray as xr
    from torch import Tensor

Split = Literal["train", "validation"]
Arrays = dict[str, npt.NDArray[Any]]
_OPTIONAL = INPUTS[1:]
_SHAPES = (("w1", 10, 0), ("w2", 2, 0), ("w3", 1, 0), ("y", 4, 2), ("mask", 4, 2))


def require_fit(shapes: Mapping[str, tuple[int, ...]], name: str = "training tiles") -> None:
    """Refuse grids that do not fit each other at the network's resolutions.

    Parameters
    ----------
    shapes
        Shapes of ``x``, ``w1``, ``w2``, ``w3``, ``y`` and perhaps ``mask``; rows and columns last.
    name
        Name of the tiles in a fault.

    Raises
    ------
    InvalidDataError
        A grid has more or fewer rows or columns than those of ``x`` require.
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
                    expected=f"{expected[0]} x {expected[1]} cells for x of {rows} x {columns}",
                    found=f"{found[0]} x {found[1]}",
                    remedy="cut the tiles at the network's resolutions",
                )
            )


def require_complete(batch: Mapping[str, Tensor]) -> None:
    """Refuse tiles with gaps that neither a mask nor ``present`` explains.

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


def tiles_of_split(dataset: xr.Dataset, split: str) -> npt.NDArray[np.intp]:
    """Return the numbers of the tiles of a split, after checking that the grids fit the network."""
    if split not in ("train", "validation"):
        raise WrongCallError(f"split must be train or validation, not {split!r}")
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


def bytes_per_tile(dataset: xr.Dataset) -> int:
    """Return the mean size of a tile in bytes: inputs, target bed and mask."""
    names = (*INPUTS, "y", "mask")
    return sum(dataset[name].nbytes for name in names) // max(1, dataset.sizes["tile"])


def present_inputs(arrays: Arrays, complete: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return which of w1, w2 and w3 each tile has without a gap, (n, 3)."""
    present = np.ones((len(complete), len(_OPTIONAL)), bool)
    doubtful = np.flatnonzero(~complete)
    for place, name in enumerate(_OPTIONAL):
        present[doubtful, place] = ~np.isnan(arrays[name][doubtful]).any(axis=(1, 2, 3))
    return present


def checked_tensors(
    tiles: Mapping[str, npt.NDArray[Any] | Tensor],
    numbers: npt.NDArray[np.intp] | None = None,
) -> dict[str, Tensor]:
    """Return checked tiles as tensors; faults name tiles by these numbers."""
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
                # A copy, since the array may belong to the caller.
                tensors[name] = tensors[name].clone()
                tensors[name][absent] = 0
    return tensors
