"""The bed of a domain of any size, within a bound of memory and without seams.

Apart from rounding, the result does not depend on bands, pieces or memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from deepbedmap.errors import WrongCallError
from deepbedmap.model.prediction.image import ImageRefiner
from deepbedmap.model.prediction.refining import even_cuts
from deepbedmap.model.prediction.tiled import TiledRefiner

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from deepbedmap.model.prediction.refining import Block, Read

_KEPT = 16  # height of a band on a CPU, in margins, so that stopping it does not lose hours


def bands(
    network: nn.Module,
    shape: tuple[int, int],
    memory: int | None = None,
    *,
    device: str | torch.device = "cpu",
    autocast: bool = False,
    batch_size: int = 32,
) -> list[slice]:
    """Return the bands of output rows, in km, that :func:`refine_band` computes at once.

    Parameters
    ----------
    network
        As :func:`refine_band` takes it.
    shape
        Rows and columns of the input lattice (h, w), in cells of 1 km.
    memory
        Bytes: on a GPU the most that PyTorch may allocate, weights included; on a CPU the most by
        which the process may grow. By default 80 % of the GPU's free memory, or 2 GB.
    device, autocast, batch_size
        As :func:`refine_band` takes them.

    Returns
    -------
    list of slice
        From north to south, together h - 2 rows. On a CPU none has more than 16 times the rows that
        the network sees to each side of a cell, however much memory there is: a stopped run
        resumes after the last finished band.

    Raises
    ------
    InvalidDataError
        The memory is too small for one row; the minimum is named.
    ValueError
        The domain has no cell.
    """
    refiner = _refiner(network, shape, memory, device, autocast, batch_size)
    rows = refiner.rows
    if refiner.device.type == "cpu":
        rows = min(rows, _KEPT * refiner.margin)
    return [slice(*cut) for cut in even_cuts(0, refiner.height, rows)]


def least_memory(
    network: nn.Module,
    shape: tuple[int, int],
    *,
    device: str | torch.device = "cpu",
    autocast: bool = False,
    batch_size: int = 32,
) -> int:
    """Return the memory (bytes) for bands of one row, unless offsets point further than 8 km.

    Parameters are those of :func:`bands`.
    """
    kind = ImageRefiner if getattr(network, "convolutional", False) else TiledRefiner
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
        tiles of 9 km are placed every 3 km, and flush with the domain's edges, and are averaged
        with weights that fall to zero at a tile's edge (Hann). It is moved to the device and put
        into evaluation mode. With a true attribute ``flags`` it is passed ``present``.
    read
        Gives the inputs; called from a thread, ahead of the computation.
    shape
        Rows and columns of the input lattice (h, w), in cells of 1 km.
    band
        Rows of the output in km, any of 0 to h - 2; :func:`bands` gives those that fit the memory.
    device
        Where to compute.
    autocast
        Whether to compute in bfloat16, as a training with it does; the last layer, which gives
        metres, stays in float32.
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
        The memory is too small; the minimum is named.
    ValueError
        ``read`` gives arrays of other shapes; the band is not in the domain.

    Notes
    -----
    Gaps in an optional input: for a convolutional network the input counts as absent from a cell
    if its 3 km window has a gap; for a network of tiles, from the whole tile, as in training. A gap
    in the prior is filled with 0 m for a convolutional network, and with the mean of the tile's
    prior in a tile.
    """
    refiner = _refiner(network, shape, memory, device, autocast, batch_size)
    start, stop, step = band.indices(refiner.height)
    if step != 1 or stop <= start or (band.stop or 0) > refiner.height:
        raise WrongCallError(f"band: expected rows of 0 to {refiner.height}, found {band}")
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
) -> ImageRefiner | TiledRefiner:
    kind = ImageRefiner if getattr(network, "convolutional", False) else TiledRefiner
    place = torch.device(device)
    refiner = kind(network, shape, place, autocast, batch_size)
    refiner.plan(_room(place) if memory is None else memory)
    return refiner


def _room(device: torch.device) -> int:
    if device.type != "cuda":
        return 2 * 10**9
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(0.8 * (torch.cuda.mem_get_info(device)[0] + unused))
