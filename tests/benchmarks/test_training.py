"""The experiments on the training, at a tiny size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from support.scripts import BENCHMARKS, load

from deepbedmap.model import training
from deepbedmap.model.training import configuration


@pytest.fixture(scope="module")
def experiments() -> ModuleType:
    return load("training", "experiments")


def run(out: Path, *arguments: object) -> str:
    call = [sys.executable, BENCHMARKS / "training.py", "--size", "test", "--out", out, *arguments]
    done = subprocess.run([*map(str, call)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("training") / "figures.json"
    told = run(
        *(out, "--seeds", 3, "--epochs", 1, "--table", out.with_suffix(".md")),
        *("--ways", "default", "no-velocity", "shuffled", "paper"),
    )
    assert told.count("seed 3, ") == 4
    return out


def test_every_way_is_scored_beside_the_bicubic_prior(measured: Path):
    runs = json.loads(measured.read_text())["runs"]
    assert [run["way"] for run in runs] == ["default", "no-velocity", "shuffled", "paper"]
    assert len({run["rmse"] for run in runs}) == 4
    assert len({(run["bicubic_rmse"], run["picks"], run["tiles"]) for run in runs}) == 1
    for figures in runs:
        assert figures["gain_over_bicubic"] == pytest.approx(
            1 - figures["rmse"] / figures["bicubic_rmse"], abs=2e-3
        )
        assert figures["roughness_ratio"] >= 0
        assert figures["epochs"] == 1


def test_the_table_has_a_row_a_way(measured: Path):
    lines = measured.with_suffix(".md").read_text().splitlines()
    assert lines[0].endswith("| seed 3 |")
    titles = [line.split("|")[1].strip() for line in lines[2:]]
    assert titles[0] == "bicubic prior"
    assert titles[1:] == [
        "default",
        "default, without velocity",
        "default, surface and velocity shuffled",
        "paper",
    ]


def test_what_has_been_measured_is_not_measured_again(measured: Path, tmp_path: Path):
    out = tmp_path / "figures.json"
    out.write_text(measured.read_text())
    told = run(out, "--seeds", 3, "--epochs", 1, "--ways", "default", "paper")
    assert "seed 3, " not in told
    assert out.read_text() == measured.read_text()


def test_each_ablation_changes_what_it_says_and_nothing_else(experiments: ModuleType):
    def changed(name: str, from_: str) -> dict[str, object]:
        way, other = (
            experiments.settings_of(experiments.WAYS[key], 0, 9, 1, "full").to_dict()
            for key in (name, from_)
        )
        return {
            f"{section}.{key}": value
            for section, values in way.items()
            for key, value in values.items()
            if other[section][key] != value
        }

    assert changed("no-surface", "default") == changed("shuffled", "default") == {}
    assert changed("no-terms", "default") == {
        "losses.structural_weight": 0.0,
        "losses.topographic_weight": 0.0,
    }
    assert changed("structural", "default") == {"losses.topographic_weight": 0.0}
    assert changed("discriminator", "default") == {
        "losses.adversarial_weight": 1.1e-3,
        "schedule.pretraining_epochs": 6,
        "schedule.adversarial_epochs": 3,
    }
    assert changed("paper-gradient", "paper") == {"losses.detached": False}
    assert changed("paper-no-discriminator", "paper") == {
        "schedule.pretraining_epochs": 9,
        "schedule.adversarial_epochs": 0,
    }
    assert set(changed("paper-no-terms", "paper").values()) == {0.0}


def test_the_presets_own_epochs_hold_unless_others_are_asked_for(experiments: ModuleType):
    for name in training.PRESETS:
        settings = experiments.settings_of(experiments.WAYS[name], 0, None, 1, "full")
        assert settings.epochs == configuration.load(name).epochs
        assert settings.network.num_residual_blocks == 1
