"""Tiles as the network takes them: cut from rasters, checked, held in memory as tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from deepbedmap.errors import Fault, InvalidDataError

if TYPE_CHECKING:
    import geopandas as gpd
    import xarray as xr

PADDING = 1_000.0
"""Metres by which the inputs reach beyond the tile on every side: one cell of the prior."""

RESOLUTIONS = {"x": 1_000.0, "w1": 100.0, "w2": 500.0, "w3": 1_000.0}
"""Cell (m) of each input: prior, surface, velocity, accumulation."""

INPUTS = tuple(RESOLUTIONS)
"""Names of the network's inputs, in its order; the surveyed bed beside them is ``y``."""

RESOLUTION = 250.0
"""Cell (m) of the bed that the network gives."""


@dataclass(frozen=True)
class Inputs:
    """What the network needs to know of a place: rasters of one CRS.

    Attributes
    ----------
    prior
        Bed elevation (y, x), metres.
    surface
        Ice surface elevation (y, x), metres, on the vertical datum of the prior.
    velocity
        Ice velocity (band, y, x), metres a year: along x, then along y.
    accumulation
        Snow accumulation (y, x), kg m-2 a-1.
    """

    prior: xr.DataArray
    surface: xr.DataArray
    velocity: xr.DataArray
    accumulation: xr.DataArray


def cut_inputs(
    windows: gpd.GeoDataFrame | npt.ArrayLike, inputs: Inputs
) -> dict[str, npt.NDArray[np.float32]]:
    """Cut what the network needs to know for each window.

    Parameters
    ----------
    windows
        n boxes of h x w km, as :func:`deepbedmap.tiles.cut_tiles` takes them.

    Returns
    -------
    dict
        float32, NaN where an input has nodata: ``x`` (n, 1, h + 2, w + 2) at 1 km, ``w1``
        (n, 1, 10(h + 2), 10(w + 2)) at 100 m, ``w2`` (n, 2, 2(h + 2), 2(w + 2)) at 500 m and
        ``w3`` (n, 1, h + 2, w + 2) at 1 km; rows from north to south.

    Raises
    ------
    InvalidDataError
        A window with its padding of 1 km reaches beyond a raster; a raster has another CRS; or
        the surface stands on another vertical datum than the prior.
    """
    from deepbedmap import rasters, tiles

    sources = (inputs.prior, inputs.surface, inputs.velocity, inputs.accumulation)
    for source in sources[1:]:
        rasters.require_same_reference(inputs.prior, source)
    return {
        name: tiles.cut_tiles(source, windows, padding=PADDING, resolution=resolution)
        for (name, resolution), source in zip(RESOLUTIONS.items(), sources, strict=True)
    }


class TrainingSet:
    """Tiles with what was surveyed in them, float32, in memory.

    Indexing with a tensor of n numbers gives a batch: a dict of ``x``, ``w1``, ``w2``, ``w3`` (as
    :func:`cut_inputs` gives them), ``y`` (n, 1, 4h, 4w), the surveyed bed elevation in metres at
    250 m, and ``index``, the numbers themselves.

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
