"""Training: from a configuration to a network, in a folder from which it can go on at any time.

Leong & Horgan (2020), doi 10.5194/tc-14-3687-2020.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.optim import Adam

from deepbedmap.errors import InvalidDataError
from deepbedmap.inputs import INPUTS
from deepbedmap.model import distributed
from deepbedmap.model.configuration import Configuration
from deepbedmap.model.dataset import Tiles, TrainingSet
from deepbedmap.model.metrics import Row
from deepbedmap.model.run import Progress, Run, validate
from deepbedmap.model.steps import adversarial_step, paper_optimizer

__all__ = [
    "Fitted",
    "Progress",
    "Tiles",
    "adversarial_step",
    "fit",
    "paper_optimizer",
    "train",
    "validate",
]

logger = logging.getLogger(__name__)

LOSS_SCALE = 300.0
"""Error of the bed (m) that counts as one in the loss: the deviation of its relief."""

Advance = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True)
class Fitted:
    """What a training leaves.

    Attributes
    ----------
    last
        State from which it can go on, ``last.safetensors``.
    best
        Generator of the best epoch, ``best.safetensors``: what
        :func:`deepbedmap.model.checkpoints.load` takes.
    history
        A row of metrics an epoch, as ``metrics.jsonl`` has them.
    """

    last: Path
    best: Path
    history: list[Row]


def fit(
    configuration: Configuration,
    tiles: Tiles,
    validation: Tiles,
    out: str | os.PathLike[str],
    *,
    resume: bool = False,
    progress: Progress | None = None,
    device: str | torch.device | None = None,
    provenance: Mapping[str, Any] | None = None,
    generator: nn.Module | None = None,
    discriminator: nn.Module | None = None,
) -> Fitted:
    """Train as a configuration says.

    Each epoch takes all tiles once, in an order that depends on the seed and the epoch alone; a
    rest of too few tiles to normalise a batch, or for each process to have one, is left out. At
    every validation the state is written, so that a training that was stopped by whatever goes on
    from there: on a CPU with the same bits as if it had never stopped.

    Started by ``torchrun``, several processes take a share of each batch and give what one process
    would with the whole, but for rounding; the batch is split every n-th tile, losses and batch
    statistics are those of all shares (:mod:`deepbedmap.model.distributed`).

    Parameters
    ----------
    configuration
        See :func:`deepbedmap.model.configuration.load`.
    tiles
        What is learnt from.
    validation
        What chooses the best epoch: the root mean square error of the generator's running average
        over measured cells.
    out
        Folder for ``last.safetensors``, ``best.safetensors``, a readable ``.json`` beside each, and
        ``metrics.jsonl``.
    resume
        Go on from the folder's ``last.safetensors``.
    progress
        Told of each step.
    device
        By default a GPU, where there is one.
    provenance
        Written into the checkpoints, anything that JSON can hold: ``sources`` (files with their
        checksums, as :func:`deepbedmap.citation.describe` says), ``split``, ...
    generator, discriminator
        Networks to begin with, such as ones with published weights; by default they are made as
        the configuration says, with random weights of its seed.

    Returns
    -------
    Fitted
        Paths and metrics: ``epoch`` and ``step`` (counted from 1), ``phase``, ``learning_rate``,
        means over the epoch of what :class:`deepbedmap.model.steps.Step` gives,
        ``train_rmse`` (m), ``seconds``, and at each validation ``validation_rmse`` and
        ``bicubic_rmse`` (m).

    Raises
    ------
    InvalidDataError
        The loss diverged (the last good state stays), tiles do not fit the network, the disk is
        full, the folder holds another training, or memory does not hold two tiles.
    MissingDataError
        There is nothing to go on from.
    KeyboardInterrupt
        Ctrl-C, once the state has been written (with several processes, at the end of the epoch);
        a second Ctrl-C does not wait.
    """
    with (
        distributed.joined(device) as place,
        _deterministic(configuration.training.deterministic and place.type == "cuda"),
        torch.random.fork_rng([place] if place.type == "cuda" else []),
        _interruptions() as interrupted,
    ):
        torch.manual_seed(configuration.training.seed)
        run = Run(
            configuration, tiles, validation, Path(out), place, provenance, generator, discriminator
        )
        try:
            run.begin(resume=resume)
            run.go(progress, interrupted)
            return Fitted(run.last, run.best, run.counters.history)
        finally:
            run.close()
            # Its networks hold the group of processes, which is left next.
            del run


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


@contextlib.contextmanager
def _interruptions() -> Iterator[threading.Event]:
    """Note Ctrl-C instead of raising it, the first time; other threads than the main are spared."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def note(*_: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        logger.warning("stopping after this step; Ctrl-C again does not wait for it")

    before = signal.signal(signal.SIGINT, note)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _deterministic(wanted: bool) -> Iterator[None]:
    """Hold a GPU to algorithms that give the same bits each time."""
    if not wanted:
        yield
        return
    # Read by cuBLAS when it first runs.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]
