"""Tuning, with trainings of a second. Run as a program, a study in a process of its own.

``python test_tuning.py OUT``: ``KILL_AT`` is the step of the second trial after which the process
is killed; with ``PEERS`` it begins when so many processes are ready, and takes its time.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from sqlalchemy.engine.default import DefaultDialect
from support import tiny

from deepbedmap.errors import InvalidDataError, MissingDataError
from deepbedmap.extras import MissingExtraError
from deepbedmap.model import checkpoints, training
from deepbedmap.model.training import fitting
from deepbedmap.model.training.configuration import load

RATES = "[optimizer]\nlearning_rate = { choices = [1e-7, 5e-3] }\n"
SETTINGS = {"network__name": "FlowAlignedGenerator", "schedule__pretraining_epochs": 4}


def space_of(folder: Path, text: str = RATES) -> training.Space:
    path = folder / "space.toml"
    path.write_text(text)
    return training.load_space(path, tiny.configured(**SETTINGS))


def tune(out: Path, space: training.Space | None = None, trials: int = 4, **options: Any) -> Any:
    settings = {name: options.pop(name) for name in list(options) if "__" in name}
    return training.tune(
        space or space_of(out.parent),
        options.pop("tiles", None) or tiny.Tiles(),
        options.pop("validation", None) or tiny.Tiles(4, 1),
        out,
        trials=trials,
        base=tiny.configured(**SETTINGS | settings),
        device="cpu",
        **options,
    )


def start(out: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, __file__, str(out)],
        env=os.environ | environment,
        stderr=subprocess.PIPE,
        text=True,
    )


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("unbroken") / "study"
    tune(out)
    return out


def test_the_better_of_two_learning_rates_is_found_and_trains(unbroken: Path):
    rows = training.table(unbroken)
    assert {row["settings"]["optimizer.learning_rate"] for row in rows} == {1e-7, 5e-3}
    assert len(rows) == 4
    best = load(unbroken / "best.toml")
    assert best == tiny.configured(optimizer__learning_rate=5e-3, **SETTINGS)
    complete = [row for row in rows if row["state"] == "complete"]
    least = min(complete, key=lambda row: row["rmse"])
    assert least["settings"] == {"optimizer.learning_rate": 5e-3}
    told = (unbroken / "best.toml").read_text()
    assert told.startswith(f"# Trial {least['trial']}: {least['rmse']:.2f} m on the validation ")
    checkpoint = unbroken / "trials" / f"{least['trial']:04}" / "best.safetensors"
    metrics = checkpoints.load(checkpoint).metadata["metrics"]
    assert min(row["validation_rmse"] for row in metrics) == least["rmse"]


def test_trials_are_cut_short_as_soon_as_they_are_behind(tmp_path: Path):
    told: list[dict[str, Any]] = []
    tune(tmp_path / "study", trials=8, report=told.append)
    assert told == training.table(tmp_path / "study")
    cut = [row for row in told if row["state"] == "pruned"]
    assert cut
    assert all(row["epochs"] < 4 and row["ended"] == "cut short" for row in cut)
    assert not list((tmp_path / "study").rglob("last.*"))


def test_a_killed_study_goes_on_with_the_trial_that_was_killed(unbroken: Path, tmp_path: Path):
    out = tmp_path / "study"
    killed = start(out, KILL_AT="3")
    assert killed.wait(300) == -signal.SIGKILL, killed.stderr.read()
    assert [row["state"] for row in training.table(out)] == ["complete", "running"]
    log = out / "trials" / "0001" / "metrics.jsonl"
    first = log.read_text().splitlines()[0]
    tuned = tune(out)
    assert tuned.trials == training.table(unbroken)
    assert log.read_text().splitlines()[0] == first  # its first epoch was not trained again
    assert tuned.best.read_text() == (unbroken / "best.toml").read_text()


def test_a_study_that_is_done_is_left_as_it_is(unbroken: Path):
    before = training.table(unbroken)
    assert tune(unbroken).trials == before


def test_two_processes_share_a_study(unbroken: Path, tmp_path: Path):
    out = tmp_path / "study"
    processes = [start(out, PEERS="2") for _ in range(2)]
    for process in processes:
        assert process.wait(300) == 0, process.stderr.read()
    rows = training.table(out)
    assert [row["trial"] for row in rows] == [0, 1, 2, 3]
    assert all(row["state"] in ("complete", "pruned") for row in rows)
    workers = {
        (out / "trials" / f"{number:04}" / "worker").read_text() for number in range(len(rows))
    }
    assert len(workers) == 2


def test_the_same_seed_proposes_the_same_and_another_seed_other_settings(tmp_path: Path):
    space = space_of(tmp_path, "[optimizer]\nlearning_rate = { low = 1e-4, high = 1e-2 }\n")
    proposed = {}
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        tuned = tune(tmp_path / name, space, 2, seed=seed, schedule__pretraining_epochs=1)
        proposed[name] = [row["settings"]["optimizer.learning_rate"] for row in tuned.trials]
        assert len(set(proposed[name])) == 2
    assert proposed["one"] == proposed["same"]
    assert not set(proposed["one"]) & set(proposed["other"])


def test_a_trial_that_diverges_does_not_stop_the_study(tmp_path: Path):
    space = space_of(tmp_path, "[optimizer]\nlearning_rate = { choices = [1e30, 5e-3] }\n")
    rows = tune(tmp_path / "study", space, 5).trials
    diverged = [row for row in rows if row["settings"]["optimizer.learning_rate"] == 1e30]
    assert diverged
    for row in diverged:
        assert row["state"] == "pruned"
        assert "training diverged in epoch" in row["ended"]


def test_ranges_are_drawn_from_as_the_space_says(tmp_path: Path):
    space = space_of(
        tmp_path,
        "[optimizer]\nlearning_rate = { low = 1e-4, high = 1e-2, log = true }\n"
        "clipping = { low = 0, high = 2 }\n"
        "[training]\nbatch = { low = 2, high = 4 }\naugmentation = { choices = [true, false] }\n",
    )
    trial = optuna.create_study().ask()
    values = [dimension.suggest(trial) for dimension in space]
    assert [type(value) for value in values] == [float, float, int, bool]
    assert trial.distributions == {
        "optimizer.learning_rate": FloatDistribution(1e-4, 1e-2, log=True),
        "optimizer.clipping": FloatDistribution(0, 2),
        "training.batch": IntDistribution(2, 4),
        "training.augmentation": CategoricalDistribution([True, False]),
    }


def test_no_trial_is_begun_when_the_time_is_over(tmp_path: Path):
    with pytest.raises(InvalidDataError, match=r"found none of 0 trials; give more trials or time"):
        tune(tmp_path / "study", timeout=0)


def test_processes_of_torchrun_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="start it several times, without torchrun"):
        tune(tmp_path / "study")


def test_settings_are_not_chosen_on_a_test_split(tmp_path: Path):
    validation = tiny.Tiles(4, 1)
    validation.split = "test"  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="only on the validation split, not on 'test'"):
        tune(tmp_path / "study", validation=validation)
    assert not (tmp_path / "study").exists()


def test_tiles_that_do_not_fit_stop_the_study(tmp_path: Path):
    tiles = tiny.Tiles()
    tiles.tensors["w2"] = tiles.tensors["w2"][..., 1:]
    with pytest.raises(InvalidDataError, match="field w2: expected 22 x 22"):
        tune(tmp_path / "study", tiles=tiles)
    assert [row["state"] for row in training.table(tmp_path / "study")] == ["fail"]


def test_other_settings_or_tiles_than_before_are_refused(unbroken: Path, tmp_path: Path):
    with pytest.raises(
        InvalidDataError, match="found one of another tiles; resume with the same settings"
    ):
        tune(unbroken, tiles=tiny.Tiles(7))
    with pytest.raises(InvalidDataError, match="found one of another configuration"):
        tune(unbroken, losses__delta=0.7)
    with pytest.raises(InvalidDataError, match="found one of another space"):
        tune(unbroken, space_of(tmp_path, RATES.replace("1e-7", "1e-6")))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[optimizer]\nrate = { low = 1, high = 2 }", "field optimizer.rate: .* an unknown key"),
        ("[optimiser]\nlearning_rate = { low = 1, high = 2 }", "field optimiser: .*unknown key"),
        ("optimizer = 3", "field optimizer: expected a table, found 3"),
        ("[optimizer]\nlearning_rate = 1e-3", "field optimizer.learning_rate: expected a table of"),
        (
            "[optimizer]\nlearning_rate = { low = 0, high = 1 }",
            "field optimizer.learning_rate: expected a number over 0, found 0",
        ),
        (
            "[optimizer]\nlearning_rate = { low = 2, high = 1 }",
            "field optimizer.learning_rate: expected low below high, found 2 and 1",
        ),
        (
            "[optimizer]\nclipping = { low = 0, high = 1, log = true }",
            "field optimizer.clipping.low: expected a number over 0, since log is true, found 0",
        ),
        (
            "[optimizer]\nclipping = { low = 0, high = 1, step = 1 }",
            "field optimizer.clipping.step: expected one of low, high, log, found an unknown",
        ),
        (
            "[training]\nbatch = { low = 1.5, high = 4 }",
            "field training.batch: expected a whole number of at least 1, found 1.5",
        ),
        (
            "[training]\naugmentation = { low = false, high = true }",
            "field training.augmentation: expected choices, for it is no number, found a range",
        ),
        ("[training]\nbatch = { choices = [] }", "field training.batch.choices: expected a list"),
        (
            '[network]\nname = { choices = ["Generator", "Unet"] }',
            "field network.name: expected one of 'Generator', .* found 'Unet'",
        ),
        ("", "expected a setting to vary, found none"),
        ("[optimizer", "expected TOML, found "),
    ],
)
def test_a_bad_space_is_told_in_one_line_with_file_and_key(tmp_path: Path, text: str, told: str):
    with pytest.raises(InvalidDataError, match=told) as caught:
        space_of(tmp_path, text)
    assert str(caught.value).startswith(str(tmp_path / "space.toml"))
    assert "\n" not in str(caught.value)


def test_a_space_that_is_not_there_is_told(tmp_path: Path):
    with pytest.raises(MissingDataError, match="expected a file of a search space, or default"):
        training.load_space(tmp_path / "none.toml")


def test_the_space_that_comes_with_the_package_fits_the_default_configuration():
    names = [dimension.name for dimension in training.load_space("default")]
    settings = load("default").to_dict()
    assert 0 < len(names) < 6
    for name in names:
        section, _, key = name.partition(".")
        assert key in settings[section]


@pytest.mark.parametrize("preset", training.PRESETS)
def test_a_configuration_that_is_written_reads_back_the_same(tmp_path: Path, preset: str):
    path = tmp_path / "written.toml"
    path.write_text(training.to_toml(load(preset)))
    assert load(path) == load(preset)


def test_another_file_in_the_place_of_the_study_is_told(tmp_path: Path):
    out = tmp_path / "study"
    with pytest.raises(MissingDataError, match="expected the study of a tuning, found no such"):
        training.table(out)
    out.mkdir()
    (out / "study.db").write_text("no database " * 100)
    for use in (tune, training.table):
        with pytest.raises(InvalidDataError, match=r"study\.db: expected the study of") as caught:
            use(out)
        assert "\n" not in str(caught.value)


def test_a_full_disk_is_told_and_the_study_goes_on_when_there_is_room(
    unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "study"
    fit = fitting.fit

    def full(settings: Any, tiles: Any, validation: Any, folder: Path, **options: Any) -> Any:
        def fail(*_: Any) -> Any:
            raise sqlite3.OperationalError("database or disk is full")

        fitted = fit(settings, tiles, validation, folder, **options)
        patch.setattr(DefaultDialect, "do_execute", fail)
        return fitted

    with monkeypatch.context() as patch:
        patch.setattr(fitting, "fit", full)
        with pytest.raises(InvalidDataError, match=r"found .*disk is full; make room"):
            tune(out, trials=1)
    assert tune(out).trials == training.table(unbroken)


def test_without_optuna_one_line_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError) as caught:
        tune(tmp_path / "study")
    assert str(caught.value).endswith("pip install 'deepbedmap[tuning]'")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "study").exists()


def main() -> None:
    """Tune in this process, slowly or until it is killed."""
    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    peers = int(os.environ.get("PEERS", "0"))
    fit = fitting.fit

    def watched(settings: Any, tiles: Any, validation: Any, folder: Path, **options: Any) -> Any:
        (folder / "worker").write_text(str(os.getpid()))
        told = options.pop("progress")

        def progress(step: int, steps: int, metrics: Any) -> None:
            time.sleep(0.05 if peers else 0)
            if folder.name == "0001" and step == int(os.environ.get("KILL_AT", "0")):
                os.kill(os.getpid(), signal.SIGKILL)
            told(step, steps, metrics)

        return fit(settings, tiles, validation, folder, progress=progress, **options)

    fitting.fit = watched
    if peers:
        (out.parent / f"{os.getpid()}.ready").touch()
        while len(list(out.parent.glob("*.ready"))) < peers:
            time.sleep(0.01)
    tune(out)


if __name__ == "__main__":
    main()
