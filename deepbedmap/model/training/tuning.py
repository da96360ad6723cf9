"""Tuning: find the training settings with the least error on the validation tiles.

The least of many scores is optimistic: judge the chosen settings on tiles, or lines, that
had no part in the tuning.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deepbedmap.errors import Fault, InvalidDataError, WrongCallError
from deepbedmap.model.training.configuration import load
from deepbedmap.model.training.studies import StudyFolder, require_optuna, table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    import torch

    from deepbedmap.model.training.configuration import Configuration
    from deepbedmap.model.training.in_memory import Tiles
    from deepbedmap.model.training.log import Row
    from deepbedmap.model.training.search_space import Space

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tuned:
    """The results of a tuning.

    Attributes
    ----------
    best
        The best configuration, ``best.toml``, for
        :func:`deepbedmap.model.training.configuration.load`.
    checkpoint
        The generator that the best trial trained.
    trials
        As :func:`table` gives them.
    """

    best: Path
    checkpoint: Path
    trials: list[Row]


def tune(
    space: Space,
    tiles: Tiles,
    validation: Tiles,
    out: str | os.PathLike[str],
    *,
    trials: int,
    base: Configuration | None = None,
    timeout: float | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    provenance: Mapping[str, Any] | None = None,
    report: Callable[[Row], None] | None = None,
) -> Tuned:
    """Train with many settings, and keep those with the least error on the validation tiles.

    The study is kept in its folder: a call with the same folder resumes it, beginning with trials
    whose process was killed, from their last state. Several processes on one machine may do so
    at once. One process with one seed proposes the same trials each time.

    Parameters
    ----------
    space
        As :func:`load_space` gives it.
    tiles
        Training tiles.
    validation
        What every trial is judged by, and cut short by. Never the tiles of a test.
    out
        Folder for ``study.db`` (SQLite), ``best.toml`` and ``trials/``, with the best checkpoint
        and the metrics of each. On a local disk, since file locks and SQLite want one.
    trials
        Trials of the study, those before and those of other processes included; failed ones,
        which raised an error, are not.
    base
        Holds for what the space does not name; by default the preset ``default``.
    timeout
        Seconds after which no further trial is begun.
    seed
        Of the proposals; that of the trainings is the configuration's.
    device, provenance
        See :func:`deepbedmap.model.training.fit`.
    report
        Called with each trial that ended here, as :func:`table` gives it.

    Raises
    ------
    InvalidDataError
        The folder's study is of other settings or tiles; no trial came to its end; tiles do not
        fit the network. A trial that diverges, or whose settings contradict each other, is no
        error: it counts as one that was cut short.
    MissingDataError
        Optuna is not installed.
    ValueError
        ``trials`` is less than 1; the validation tiles say that they are of another split; or
        torchrun started this process (trials are shared out by starting it several times).
    KeyboardInterrupt
        Ctrl-C, once the state of the trial has been written.
    """
    _require_valid_call(trials, validation)
    base = load("default") if base is None else base
    identity = {
        "space": [str(dimension) for dimension in space],
        "configuration": base.to_dict(),
        "tiles": [len(tiles), len(validation), dict(provenance or {})],
    }
    optuna = require_optuna()
    try:
        work = StudyFolder(Path(out), space, base, seed, identity)
        began = time.monotonic()
        while timeout is None or time.monotonic() - began < timeout:
            row = _run_trial(work, trials, tiles, validation, device, provenance)
            if row is None:
                break
            if report is not None:
                report(row)
    except optuna.exceptions.StorageInternalError as error:
        cause = str(error.__cause__ or error).partition("\n")[0]
        raise InvalidDataError(
            Fault(
                str(Path(out) / "study.db"),
                expected="a study that can be written",
                found=cause,
                remedy="make room, and resume with the same folder",
            )
        ) from error
    rows = table(out)
    if not any(row["state"] == "complete" for row in rows):
        raise InvalidDataError(
            Fault(
                str(out),
                expected="a trial that came to its end",
                found=f"none of {len(rows)} trials",
                remedy="give more trials or time, or a narrower space",
            )
        )
    best, number = work.keep_best()
    return Tuned(best, work.folder(number) / "best.safetensors", rows)


def _require_valid_call(trials: int, validation: Tiles) -> None:
    if trials < 1:
        raise WrongCallError(f"trials must be at least 1, not {trials}")
    split = getattr(validation, "split", "validation")
    if split != "validation":
        raise WrongCallError(f"settings are chosen only on the validation split, not on {split!r}")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise WrongCallError(
            "tune runs one trial per process: start it several times, without torchrun"
        )


def _run_trial(
    work: StudyFolder,
    most: int,
    tiles: Tiles,
    validation: Tiles,
    device: str | torch.device | None,
    provenance: Mapping[str, Any] | None,
) -> Row | None:
    """Train the next trial of a study of ``most`` trials; None if all are done."""
    claimed = work.claim(most)
    if claimed is None:
        return None
    trial, lock = claimed
    try:
        row = work.run(trial, tiles, validation, device, provenance)
    finally:
        lock.release(force=True)
    logger.info("trial %d %s: %s", row["trial"], row["state"], row["rmse"])
    return row
