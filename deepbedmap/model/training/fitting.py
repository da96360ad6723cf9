"""Train a network from a configuration, in a folder from which the training can be resumed.

Leong & Horgan (2020), doi 10.5194/tc-14-3687-2020.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from deepbedmap.model import distributed
from deepbedmap.model.training.running import Run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from torch import nn

    from deepbedmap.model.training.configuration import Configuration
    from deepbedmap.model.training.in_memory import Tiles
    from deepbedmap.model.training.log import Row
    from deepbedmap.model.training.running import Progress

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fitted:
    """The results of a training.

    Attributes
    ----------
    last
        State from which it can resume, ``last.safetensors``.
    best
        Generator of the best epoch, ``best.safetensors``: what
        :func:`deepbedmap.model.checkpoints.load` takes.
    history
        One row of metrics per epoch, as in ``metrics.jsonl``.
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
    """Train a network with the settings of a configuration.

    Each epoch takes all tiles once, in an order that depends only on the seed and the epoch; a
    rest of too few tiles to normalise a batch, or for each process to have one, is left out. At
    every validation the state is written, from which a stopped training
    resumes: on a CPU with the same bits as if it had never stopped.

    Started by ``torchrun``, several processes take a share of each batch and give what one process
    would with the whole, but for rounding; the batch is split every n-th tile, losses and batch
    statistics are those of all shares (:mod:`deepbedmap.model.distributed`).

    Parameters
    ----------
    configuration
        See :func:`deepbedmap.model.training.configuration.load`.
    tiles
        Training tiles.
    validation
        Tiles that select the best epoch, by the root mean square error over measured cells of the
        generator's running average.
    out
        Folder for ``last.safetensors``, ``best.safetensors``, a readable ``.json`` next to each,
        and ``metrics.jsonl``.
    resume
        Resume from the folder's ``last.safetensors``.
    progress
        Called after each step.
    device
        By default a GPU, where there is one.
    provenance
        Written into the checkpoints, anything that JSON can hold: ``sources`` (files with their
        checksums, as :func:`deepbedmap.provenance.describe_file` says), ``split``, ...
    generator, discriminator
        Networks to begin with, such as ones with published weights; by default they are made as
        the configuration says, with random weights of its seed.

    Returns
    -------
    Fitted
        Paths and metrics: ``epoch`` and ``step`` (counted from 1), ``phase``, ``learning_rate``,
        means over the epoch of what :class:`deepbedmap.model.training.Step` gives,
        ``train_rmse`` (m), ``seconds``, and at each validation ``validation_rmse`` and
        ``bicubic_rmse`` (m).

    Raises
    ------
    InvalidDataError
        The loss diverged (the last good state stays), tiles do not fit the network, the disk is
        full, the folder holds another training, or memory does not hold two tiles.
    MissingDataError
        There is no state to resume from.
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
