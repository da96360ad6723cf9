"""``deepbedmap tune``: from a training set and a search space to settings that can be trained."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from support.places import EAST, PLACE, WEST, inputs_of, raster, slope

from deepbedmap import rasters, tiles
from deepbedmap.model.training import fitting
from deepbedmap.model.training.configuration import load

BASE = """
[network]
features = 4
growth = 4
input_features = 4

[schedule]
pretraining_epochs = 2
"""
SPACE = "[optimizer]\nlearning_rate = { low = 1e-4, high = 1e-2, log = true }\n"


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training set of two surveys, a configuration and a space."""
    folder = tmp_path_factory.mktemp("place")
    for name, box in (("West", WEST), ("East", EAST)):
        rasters.write_netcdf(raster(slope, 250, box).rename("z"), folder / f"{name}.nc")
    surveys = {name: folder / f"{name}.nc" for name in ("West", "East")}
    tiles.build(surveys, inputs_of(PLACE), folder / "tiles.zarr", step=36, by="survey")
    (folder / "base.toml").write_text(BASE)
    (folder / "space.toml").write_text(SPACE)
    return folder


def command(place: Path, out: Path, *more: object) -> list[object]:
    named = ["--space", place / "space.toml", "--config", place / "base.toml", "--out", out]
    return ["tune", place / "tiles.zarr", *named, *more]


def test_the_best_settings_are_what_train_takes(call, place, tmp_path):
    out = tmp_path / "study"
    code, printed, err = call(*command(place, out, "--trials", 2))
    assert code == 0, err
    header, *rows, last = printed.splitlines()
    assert header.split() == ["trial", "state", "RMSE", "(m)", "epochs", "settings"]
    assert [row.split()[0] for row in rows] == ["0", "1"]
    assert "optimizer.learning_rate 0.0" in rows[0]
    assert err.splitlines()[0].startswith("trial 0: complete, ")
    assert last.startswith(f"{out}/best.toml: 000")
    best = load(out / "best.toml")
    base = load(place / "base.toml")
    rate = best.optimizer.learning_rate
    assert 1e-4 <= rate <= 1e-2
    assert best == base.with_values(optimizer__learning_rate=rate)
    code, _, err = call(
        *("train", place / "tiles.zarr", "--config", out / "best.toml", "--out", tmp_path / "model")
    )
    assert code == 0, err
    assert (tmp_path / "model" / "best.safetensors").exists()


def test_the_trials_are_told_in_json_and_the_study_goes_on(call, place, tmp_path):
    code, printed, err = call(*command(place, tmp_path, "--trials", 1, "--json"))
    assert code == 0, err
    first = json.loads(printed)
    assert [row["state"] for row in first] == ["complete"]
    code, printed, err = call(*command(place, tmp_path, "--trials", 2, "--json"))
    assert code == 0, err
    assert json.loads(printed)[:1] == first
    assert err.startswith("trial 1: ")
    assert len(json.loads(printed)) == 2


def test_ctrl_c_keeps_the_trial_and_the_same_command_goes_on(
    call, place, tmp_path, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        fit = fitting.fit

        def pressed(*arguments, progress, **options):
            def interrupt(step, *more):
                progress(step, *more)
                signal.raise_signal(signal.SIGINT)

            return fit(*arguments, progress=interrupt, **options)

        patch.setattr(fitting, "fit", pressed)
        code, _, err = call(*command(place, tmp_path, "--trials", 1))
    assert (code, err.splitlines()[-1]) == (130, "interrupted: the same command resumes it")
    assert (tmp_path / "trials" / "0000" / "last.safetensors").exists()
    code, printed, err = call(*command(place, tmp_path, "--trials", 1, "--json"))
    assert code == 0, err
    assert [row["trial"] for row in json.loads(printed)] == [0]


@pytest.mark.parametrize(
    ("space", "code", "printed"),
    [
        ("[optimizer]\nrate = { low = 1, high = 2 }", 1, "space.toml, field optimizer.rate: "),
        ("[data]\nsplit = { choices = ['test'] }", 1, "space.toml, field data: "),
    ],
)
def test_a_bad_space_and_another_split_are_told_in_one_line(
    call, place, tmp_path, space, code, printed
):
    path = tmp_path / "space.toml"
    path.write_text(space)
    found, out, err = call(
        *("tune", place / "tiles.zarr", "--space", path, "--trials", 1, "--out", tmp_path / "study")
    )
    assert (found, out) == (code, "")
    assert printed in err
    assert err.count("\n") == 1
    assert not (tmp_path / "study").exists()


def test_there_is_no_option_for_a_split(call, place, tmp_path):
    code, _, err = call(*command(place, tmp_path / "study", "--trials", 1, "--split", "test"))
    assert code == 2
    assert "No such option" in err
