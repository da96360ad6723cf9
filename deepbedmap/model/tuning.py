"""Tuning: the settings of a training that give the least error on the validation tiles.

Trials are proposed by a tree-structured Parzen estimator (Bergstra et al. 2011, Algorithms for
hyper-parameter optimization) and cut short by Hyperband (Li et al. 2018, arXiv:1603.06560), both
as Optuna has them. The score that is least of many is too good: judge what was found on tiles,
or lines, that had no part in the tuning.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import numpy as np
import torch

from deepbedmap.errors import DivergedError, Fault, InvalidDataError, MissingDataError
from deepbedmap.model import configuration, training
from deepbedmap.model.configuration import Configuration
from deepbedmap.model.metrics import Row
from deepbedmap.repository import beside

if TYPE_CHECKING:
    from filelock import BaseFileLock
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

logger = logging.getLogger(__name__)

STUDY = "deepbedmap"
"""Name of the study in its database; the brackets of Hyperband depend on it."""

_SPACES = Path(__file__).parent / "spaces"
_CUT = "cut short"
_RANGE = ("low", "high", "log")


@dataclass(frozen=True)
class Dimension:
    """One setting that is varied.

    Attributes
    ----------
    name
        Section and key, such as ``optimizer.learning_rate``.
    choices
        The values it may take; empty for a range.
    low, high
        The range, both ends among it.
    log
        Whether orders of magnitude are equally likely, instead of values.
    whole
        Whether it takes whole numbers alone.
    """

    name: str
    choices: tuple[Any, ...] = ()
    low: float = math.nan
    high: float = math.nan
    log: bool = False
    whole: bool = False

    def suggest(self, trial: Trial) -> Any:
        """Value of the setting in a trial."""
        if self.choices:
            return trial.suggest_categorical(self.name, self.choices)
        if self.whole:
            return trial.suggest_int(self.name, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(self.name, self.low, self.high, log=self.log)


Space = tuple[Dimension, ...]


@dataclass(frozen=True)
class Tuned:
    """What a tuning leaves.

    Attributes
    ----------
    best
        The best configuration, ``best.toml``: what :func:`deepbedmap.model.configuration.load`
        takes.
    checkpoint
        The generator that the best trial trained.
    trials
        As :func:`table` gives them.
    """

    best: Path
    checkpoint: Path
    trials: list[Row]


def load_space(name_or_path: str | os.PathLike[str], base: Configuration | None = None) -> Space:
    """Read which settings are varied, and within what.

    Parameters
    ----------
    name_or_path
        A TOML file with the sections and keys of a configuration, each key a table: ``low`` and
        ``high``, and ``log = true`` or not; or ``choices``. ``default`` comes with the package.
    base
        Configuration whose settings are varied, by default the preset ``default``.

    Raises
    ------
    MissingDataError
        There is no such file.
    InvalidDataError
        It is no TOML, or has an unknown key, an impossible value or an empty range; all of these
        are told.

    Examples
    --------
    >>> [dimension.name for dimension in load_space("default")][:2]
    ['optimizer.learning_rate', 'losses.delta']
    """
    path = _SPACES / "default.toml" if name_or_path == "default" else Path(name_or_path)
    document = configuration.read(path, "a file of a search space, or default")
    base = configuration.load("default") if base is None else base
    faults: list[Fault] = []
    space: list[Dimension] = []
    for section, keys in document.items():
        if not isinstance(keys, Mapping):
            faults.append(Fault(str(path), field=section, expected="a table", found=repr(keys)))
            continue
        for key, said in keys.items():
            found = list(_faults(section, key, said, str(path), base))
            faults += found
            if not found:
                space.append(_dimension(section, key, said))
    if not (space or faults):
        faults.append(Fault(str(path), expected="a setting to vary", found="none"))
    if faults:
        raise InvalidDataError(*faults)
    return tuple(space)


def _dimension(section: str, key: str, said: Mapping[str, Any]) -> Dimension:
    name = f"{section}.{key}"
    if "choices" in said:
        return Dimension(name, tuple(said["choices"]))
    whole = _kind(section, key) is int
    return Dimension(name, (), said["low"], said["high"], said.get("log", False), whole)


def _kind(section: str, key: str) -> Any:
    """Type of a number of a configuration; None for a setting that is none."""
    hint = get_type_hints(get_type_hints(Configuration)[section], include_extras=True)[key]
    return next((kind for kind in get_args(hint) if kind in (int, float)), None)


def _faults(section: str, key: str, said: Any, file: str, base: Configuration) -> Iterator[Fault]:
    name = f"{section}.{key}"
    choices = isinstance(said, Mapping) and set(said) == {"choices"}
    if not choices and not (isinstance(said, Mapping) and {"low", "high"} <= set(said)):
        wanted = "a table of low and high, or of choices"
        yield Fault(file, field=name, expected=wanted, found=json.dumps(said, default=str))
        return
    if choices and not (isinstance(said["choices"], list) and said["choices"]):
        wanted = "a list of at least one value"
        yield Fault(file, field=f"{name}.choices", expected=wanted, found=repr(said["choices"]))
        return
    values = said["choices"] if choices else [said["low"], said["high"]]
    for value in values:
        # What no configuration can have is told in the same words.
        try:
            configuration.of({section: {key: value}}, file, base=base)
        except InvalidDataError as error:
            yield from (fault for fault in error.faults if isinstance(fault, Fault))
            return
    if choices:
        return
    for option in sorted(set(said) - set(_RANGE)):
        known = f"one of {', '.join(_RANGE)}"
        yield Fault(file, field=f"{name}.{option}", expected=known, found="an unknown key")
    if _kind(section, key) is None:
        yield Fault(file, field=name, expected="choices, for it is no number", found="a range")
        return
    log = said.get("log", False)
    if not isinstance(log, bool):
        yield Fault(file, field=f"{name}.log", expected="true or false", found=repr(log))
    if said["low"] >= said["high"]:
        found = f"{said['low']} and {said['high']}"
        yield Fault(file, field=name, expected="low below high", found=found)
    elif log is True and said["low"] <= 0:
        wanted = "a number over 0, since log is true"
        yield Fault(file, field=f"{name}.low", expected=wanted, found=repr(said["low"]))


def tune(
    space: Space,
    tiles: training.Tiles,
    validation: training.Tiles,
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

    The study lives in its folder: whoever calls this with the same folder goes on with it, a trial
    whose process was killed first, from its last state. Several processes on one machine may do so
    at once. One process with one seed proposes the same trials each time.

    Parameters
    ----------
    space
        As :func:`load_space` gives it.
    tiles
        What is learnt from.
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
        Told of each trial that ended here, as :func:`table` gives it.

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
    if trials < 1:
        raise ValueError(f"trials must be at least 1, not {trials}")
    split = getattr(validation, "split", "validation")
    if split != "validation":
        raise ValueError(f"settings are chosen on the validation split alone, not on {split!r}")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("tune runs a trial a process: start it several times, without torchrun")
    base = configuration.load("default") if base is None else base
    identity = {
        "space": [str(dimension) for dimension in space],
        "configuration": base.to_dict(),
        "tiles": [len(tiles), len(validation), dict(provenance or {})],
    }
    optuna = _optuna()
    try:
        work = _Work(Path(out), space, base, seed, identity)
        began = time.monotonic()
        while timeout is None or time.monotonic() - began < timeout:
            claimed = work.claim(trials)
            if claimed is None:
                break
            trial, lock = claimed
            try:
                row = work.run(trial, tiles, validation, device, provenance)
            finally:
                lock.release(force=True)
            logger.info("trial %d %s: %s", row["trial"], row["state"], row["rmse"])
            if report is not None:
                report(row)
    except optuna.exceptions.StorageInternalError as error:
        cause = str(error.__cause__ or error).partition("\n")[0]
        raise InvalidDataError(
            Fault(
                str(Path(out) / "study.db"),
                expected="a study that can be written",
                found=cause,
                remedy="make room, and go on with the same folder",
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


class _Work:
    """A study and the folder it lives in."""

    def __init__(
        self, out: Path, space: Space, base: Configuration, seed: int, identity: Mapping[str, Any]
    ) -> None:
        import filelock

        optuna = _optuna()
        self.out, self.space, self.base, self.seed = out, space, base, seed
        out.mkdir(parents=True, exist_ok=True)
        self.guard = filelock.FileLock(out / ".lock")
        epochs = _most_epochs(space, base)
        # Three brackets: each has proposals of its own, which it takes many trials to learn from.
        least = max(base.training.validation_interval, epochs // 9)
        pruner = optuna.pruners.HyperbandPruner(min(least, epochs), epochs)
        with self.guard:
            self.study: Study = optuna.create_study(
                storage=_storage(out), study_name=STUDY, pruner=pruner, load_if_exists=True
            )
            self._require_same(identity)

    def _require_same(self, identity: Mapping[str, Any]) -> None:
        identity = json.loads(json.dumps(identity))
        before = self.study.user_attrs.get("identity")
        if before is None:
            self.study.set_user_attr("identity", identity)
            return
        other = [name for name, value in identity.items() if before.get(name) != value]
        if other:
            raise InvalidDataError(
                Fault(
                    str(self.out / "study.db"),
                    expected="the study of this space, configuration and training set",
                    found=f"one of another {' and '.join(other)}",
                    remedy="go on as it was begun, or choose another folder",
                )
            )

    def folder(self, number: int) -> Path:
        """Folder of a trial."""
        return self.out / "trials" / f"{number:04}"

    def claim(self, most: int) -> tuple[Trial, BaseFileLock] | None:
        """Take a trial that nobody works at: a killed process's, or a new one; None: all are done.

        A process holds the lock of its trial's folder as long as it lives.
        """
        from filelock import FileLock, Timeout
        from optuna.trial import Trial, TrialState

        def lock_of(number: int) -> BaseFileLock:
            folder = self.folder(number)
            folder.mkdir(parents=True, exist_ok=True)
            return FileLock(folder / ".lock")

        with self.guard:
            known = self.study.get_trials()
            for trial in known:
                if trial.state == TrialState.RUNNING:
                    lock = lock_of(trial.number)
                    try:
                        lock.acquire(blocking=False)
                    except Timeout:
                        continue
                    return Trial(self.study, trial._trial_id), lock
            if sum(trial.state != TrialState.FAIL for trial in known) >= most:
                return None
            # Drawn anew for each trial, whichever process asks for it, and however often
            # processes ended before.
            self.study.sampler = _optuna().samplers.TPESampler(
                n_startup_trials=5,
                seed=int(np.random.SeedSequence([self.seed, len(known)]).generate_state(1)[0]),
            )
            asked = self.study.ask()
            lock = lock_of(asked.number)
            lock.acquire()
            for dimension in self.space:
                dimension.suggest(asked)
            return asked, lock

    def run(
        self,
        trial: Trial,
        tiles: training.Tiles,
        validation: training.Tiles,
        device: str | torch.device | None,
        provenance: Mapping[str, Any] | None,
    ) -> Row:
        """Train as a trial says, from its last state if there is one, and tell how it ended."""
        from optuna import TrialPruned
        from optuna.trial import TrialState

        folder = self.folder(trial.number)
        values = {dimension.name: dimension.suggest(trial) for dimension in self.space}
        told = set(self._frozen(trial).intermediate_values)

        def tell_score(row: Mapping[str, Any]) -> None:
            if "validation_rmse" in row and row["epoch"] not in told:
                told.add(row["epoch"])
                trial.report(row["validation_rmse"], row["epoch"])

        def progress(step: int, steps: int, metrics: Mapping[str, Any]) -> None:  # noqa: ARG001
            before = len(told)
            tell_score(metrics)
            if len(told) > before and trial.should_prune():
                raise TrialPruned

        ended, score = "", None
        try:
            fitted = training.fit(
                self._configuration(values),
                tiles,
                validation,
                folder,
                resume=(folder / "last.safetensors").exists(),
                progress=progress,
                device=device,
                provenance=provenance,
            )
        except TrialPruned:
            ended = _CUT
        except (DivergedError, _ContradictionError) as error:
            ended = str(error)
        except Exception:
            self.study.tell(trial, state=TrialState.FAIL)
            raise
        else:
            tell_score(fitted.history[-1])
            score = min(row.get("validation_rmse", math.inf) for row in fitted.history)
        trial.set_user_attr("ended", ended)
        if score is None:
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self.study.tell(trial, score)
            self.keep_best()
        if ended in ("", _CUT):  # what it would go on from is of no more use
            for name in ("last.safetensors", "last.json"):
                (folder / name).unlink(missing_ok=True)
        return _row(self._frozen(trial))

    def _frozen(self, trial: Trial) -> FrozenTrial:
        return self.study.get_trials()[trial.number]

    def _configuration(self, values: Mapping[str, Any]) -> Configuration:
        settings = {name.replace(".", "__"): value for name, value in values.items()}
        try:
            return self.base.with_values(**settings)
        except InvalidDataError as error:
            raise _ContradictionError(str(error)) from error

    def keep_best(self) -> tuple[Path, int]:
        """Write the best configuration; give its file, and the number of its trial."""
        path = self.out / "best.toml"
        with self.guard, beside(path) as part:
            best = self.study.best_trial
            head = f"# Trial {best.number}: {best.value:.2f} m on the validation tiles.\n"
            text = head + to_toml(self._configuration(best.params))
            part.write_text(text, encoding="utf-8")
        return path, best.number


def _most_epochs(space: Space, base: Configuration) -> int:
    """Epochs of the longest trial: the resource that Hyperband shares out."""
    most: dict[str, Any] = {
        "schedule.pretraining_epochs": base.schedule.pretraining_epochs,
        "schedule.adversarial_epochs": base.schedule.adversarial_epochs,
    }
    most |= {d.name: max(d.choices or (d.high,)) for d in space if d.name in most}
    return int(sum(most.values()))


class _ContradictionError(Exception):
    """Settings that are possible each, and not together."""


def table(out: str | os.PathLike[str]) -> list[Row]:
    """Trials of the study in a folder, in their order.

    Returns
    -------
    list of dict
        ``trial``, its number; ``state``: complete, pruned, running or fail; ``rmse``, the least on
        the validation tiles (m), of a complete trial its score, None before the first validation;
        ``epochs``, the last that was validated; ``settings``, values by section and key; and
        ``ended``, why a trial did not come to its end.

    Raises
    ------
    MissingDataError
        There is no study, or Optuna is not installed.
    """
    optuna = _optuna()
    path = Path(out) / "study.db"
    if not path.exists():
        fault = Fault(str(path), expected="the study of a tuning", found="no such file")
        raise MissingDataError(str(fault))
    study = optuna.load_study(study_name=STUDY, storage=_storage(Path(out)))
    return [_row(trial) for trial in study.get_trials()]


def _row(trial: FrozenTrial) -> Row:
    scores = trial.intermediate_values
    return {
        "trial": trial.number,
        "state": trial.state.name.lower(),
        "rmse": min(scores.values(), default=None),
        "epochs": max(scores, default=0),
        "settings": trial.params,
        "ended": trial.user_attrs.get("ended", ""),
    }


def to_toml(settings: Configuration) -> str:
    """Write a configuration as TOML, every setting.

    Examples
    --------
    >>> print(to_toml(configuration.load("default")).splitlines()[1])
    name = "FlowAlignedGenerator"
    """

    def said(value: Any) -> str:
        # Strings, numbers and true or false are written alike in JSON and in TOML.
        if not isinstance(value, Mapping):
            return json.dumps(value)
        return "{" + ", ".join(f"{key} = {json.dumps(one)}" for key, one in value.items()) + "}"

    sections = (
        f"[{section}]\n" + "".join(f"{key} = {said(value)}\n" for key, value in keys.items())
        for section, keys in settings.to_dict().items()
    )
    return "\n".join(sections)


def _storage(out: Path) -> Any:
    optuna = _optuna()
    from sqlalchemy.exc import SQLAlchemyError

    path = (out / "study.db").absolute()
    try:
        # Other processes write too, each for a moment.
        return optuna.storages.RDBStorage(
            f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": 60}}
        )
    except SQLAlchemyError as error:
        found = str(error).partition("\n")[0]
        raise InvalidDataError(
            Fault(str(path), expected="the study of a tuning", found=found)
        ) from error


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise MissingDataError(
            "tuning needs the package optuna: pip install 'deepbedmap[tuning]'"
        ) from error
    # It would write a line to the standard error for each trial, besides what we say.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
