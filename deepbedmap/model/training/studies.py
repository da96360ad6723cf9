"""An Optuna study in a folder: trials that several processes share and that survive a kill.

Trials are proposed by a tree-structured Parzen estimator (Bergstra et al. 2011, Algorithms
for hyper-parameter optimization) and pruned by Hyperband (Li et al. 2018, arXiv:1603.06560).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deepbedmap.errors import DivergedError, Fault, InvalidDataError, MissingDataError
from deepbedmap.extras import required_extra
from deepbedmap.files.atomic import beside
from deepbedmap.model.training import fitting
from deepbedmap.model.training.configuration import to_toml

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping
    from typing import Any

    import torch
    from filelock import BaseFileLock
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

    from deepbedmap.model.training.configuration import Configuration
    from deepbedmap.model.training.in_memory import Tiles
    from deepbedmap.model.training.log import Row
    from deepbedmap.model.training.search_space import Space

STUDY = "deepbedmap"
"""Name of the study in its database; the brackets of Hyperband depend on it."""

_CUT = "cut short"


class StudyFolder:
    """A study and its folder."""

    def __init__(
        self, out: Path, space: Space, base: Configuration, seed: int, identity: Mapping[str, Any]
    ) -> None:
        import filelock

        optuna = require_optuna()
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
                    remedy="resume with the same settings, or choose another folder",
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
            earlier = self.study.get_trials()
            for trial in earlier:
                if trial.state == TrialState.RUNNING:
                    lock = lock_of(trial.number)
                    try:
                        lock.acquire(blocking=False)
                    except Timeout:
                        continue
                    return Trial(self.study, trial._trial_id), lock
            if sum(trial.state != TrialState.FAIL for trial in earlier) >= most:
                return None
            # Drawn for each trial, whichever process asks for it, and however often
            # processes ended before.
            self.study.sampler = require_optuna().samplers.TPESampler(
                n_startup_trials=5,
                seed=int(np.random.SeedSequence([self.seed, len(earlier)]).generate_state(1)[0]),
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
        tiles: Tiles,
        validation: Tiles,
        device: str | torch.device | None,
        provenance: Mapping[str, Any] | None,
    ) -> Row:
        """Train as a trial says, from its last state if there is one, and return how it ended."""
        from optuna import TrialPruned
        from optuna.trial import TrialState

        folder = self.folder(trial.number)
        values = {dimension.name: dimension.suggest(trial) for dimension in self.space}
        reported = set(self._frozen(trial).intermediate_values)

        def report_score(row: Mapping[str, Any]) -> None:
            if "validation_rmse" in row and row["epoch"] not in reported:
                reported.add(row["epoch"])
                trial.report(row["validation_rmse"], row["epoch"])

        def progress(step: int, steps: int, metrics: Mapping[str, Any]) -> None:  # noqa: ARG001
            before = len(reported)
            report_score(metrics)
            if len(reported) > before and trial.should_prune():
                raise TrialPruned

        score = None
        try:
            fitted = fitting.fit(
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
            report_score(fitted.history[-1])
            ended = ""
            score = min(row.get("validation_rmse", math.inf) for row in fitted.history)
        self._conclude(trial, ended, score)
        return _row(self._frozen(trial))

    def _conclude(self, trial: Trial, ended: str, score: float | None) -> None:
        """Record how a trial ended, and remove the state from which it would resume."""
        from optuna.trial import TrialState

        trial.set_user_attr("ended", ended)
        if score is None:
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self.study.tell(trial, score)
            self.keep_best()
        if ended in ("", _CUT):  # its state is no longer needed
            for name in ("last.safetensors", "last.json"):
                (self.folder(trial.number) / name).unlink(missing_ok=True)

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
    optuna = require_optuna()
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


def _storage(out: Path) -> Any:
    optuna = require_optuna()
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


def require_optuna() -> Any:
    """Import optuna and silence its log; raise MissingExtraError if it is not installed."""
    with required_extra("tuning"):
        import optuna
    # It would write a line to the standard error for each trial, besides what we say.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
