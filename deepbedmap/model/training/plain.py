"""Train a generator alone for a fixed number of steps, without a folder or a configuration."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.optim import Adam

from deepbedmap.errors import InvalidDataError
from deepbedmap.model.training.validating import validate
from deepbedmap.tiles.inputs import INPUTS

if TYPE_CHECKING:
    from deepbedmap.model.training.in_memory import TrainingSet

LOSS_SCALE = 300.0
"""Error of the bed (m) that counts as one in the loss: the deviation of its relief."""

Advance = Callable[[int, dict[str, float]], None]


def train(
    network: nn.Module,
    tiles: TrainingSet,
    *,
    validation: TrainingSet | None = None,
    steps: int = 600,
    batch_size: int = 8,
    learning_rate: float = 2e-3,
    seed: int = 0,
    advance: Advance | None = None,
) -> list[dict[str, float]]:
    """Train a generator on its own, without a discriminator, for a fixed number of steps.

    Huber's loss of the bed's error over 300 m; Adam with a warm-up of 5 % of the steps and a
    cosine to zero; gradients clipped to a norm of 1. In the end the network holds the running
    average of its weights (0.995 a step), which is smoother than the last ones.

    Parameters
    ----------
    network
        Takes x, w1, w2, w3; trained in place, on the device that it is on.
    tiles
        Drawn at random, with replacement; their beds have no gaps.
    validation
        Tiles that are only looked at, ten times on the way.
    seed
        Of the draw.
    advance
        Called after each step with its number, counted from 1, and the newest metrics.

    Returns
    -------
    list of dict
        Ten rows: ``step``, ``train_rmse`` (m, running mean over steps), and with validation tiles
        ``validation_rmse`` and ``bicubic_rmse`` (m), the error of the averaged network and of the
        bicubic prior on them.

    Raises
    ------
    InvalidDataError
        The loss is no longer finite; the network is left as it was a step before.
    """
    device = next(network.parameters()).device
    random = np.random.default_rng(seed)
    optimizer = Adam(network.parameters(), lr=learning_rate, betas=(0.9, 0.99))
    average = copy.deepcopy(network).eval()
    history: list[dict[str, float]] = []
    metrics: dict[str, float] = {}
    square = 0.0
    network.train()
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * _schedule(step, steps)
        batch = tiles[torch.from_numpy(random.integers(0, len(tiles), batch_size))]
        inputs = [batch[name].to(device) for name in INPUTS]
        y_true = batch["y"].to(device)
        y_pred = network(*inputs)
        loss = functional.huber_loss(y_pred / LOSS_SCALE, y_true / LOSS_SCALE, delta=0.5)
        if not loss.isfinite():
            raise InvalidDataError(
                f"training diverged at step {step}: the loss is {loss.item()}; lower the learning "
                f"rate of {learning_rate:g}, or look for tiles with extreme values"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            kept = min(0.995, step / (step + 9))
            for mean, weight in zip(average.parameters(), network.parameters(), strict=True):
                mean.lerp_(weight, 1 - kept)
            error = float((y_pred - y_true).square().mean())
        square += (error - square) / min(step, 50)
        metrics |= {"step": step, "train_rmse": square**0.5}
        if step * 10 // steps > (step - 1) * 10 // steps:
            if validation is not None:
                metrics |= validate(average, validation, device)
            history.append(dict(metrics))
        if advance is not None:
            advance(step, metrics)
    network.load_state_dict(average.state_dict())
    network.eval()
    return history


def _schedule(step: int, steps: int) -> float:
    """Share of the learning rate: rising over 5 % of the steps, then falling as a cosine."""
    warm_up = min(1.0, step / (0.05 * steps))
    return warm_up * 0.5 * (1 + math.cos(math.pi * (step - 1) / steps))
