"""Validation during a training: RMSE of a network and of the bicubic prior on validation tiles."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from deepbedmap.errors import Fault, InvalidDataError
from deepbedmap.model import distributed
from deepbedmap.model.networks.interpolation import bicubic
from deepbedmap.model.training.in_memory import device_of
from deepbedmap.model.training.steps import refine

if TYPE_CHECKING:
    from torch import nn

    from deepbedmap.model.training.in_memory import Tiles


def validate(
    network: nn.Module, tiles: Tiles, device: torch.device, batch_size: int = 64
) -> dict[str, float]:
    """Root mean square error over measured cells of a network and of the bicubic prior.

    Processes share the tiles; each gets the score of all.

    Returns
    -------
    dict
        ``validation_rmse`` and ``bicubic_rmse``, metres.

    Raises
    ------
    InvalidDataError
        No cell was measured.
    """
    sums = torch.zeros(3, dtype=torch.float64, device=device)
    training = network.training
    network.eval()
    with torch.inference_mode():
        for start in range(0, len(tiles), batch_size):
            count = min(batch_size, len(tiles) - start)
            numbers = torch.arange(start, start + count)[distributed.share(count)]
            if len(numbers) == 0:
                continue
            batch = tiles[numbers.to(device_of(tiles))]
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            measured = batch.get("mask", torch.ones_like(batch["y"], dtype=torch.bool))
            for number, bed in enumerate((refine(network, batch), bicubic(batch["x"]))):
                # Not where: a NaN in an unmeasured cell must not count.
                square = (bed - batch["y"]).double().square()
                sums[number] += square.masked_fill(~measured, 0).sum()
            sums[2] += measured.sum()
    network.train(training)
    model, prior, count_ = distributed.sum_of_all(sums.clone()).tolist()
    if count_ == 0:
        raise InvalidDataError(
            Fault("validation tiles", expected="measured cells", found="none in any tile")
        )
    return {
        "validation_rmse": math.sqrt(model / count_) if model >= 0 else math.nan,
        "bicubic_rmse": math.sqrt(prior / count_),
    }
