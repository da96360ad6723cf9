"""The experiment on super-resolution of real terrain, at a tiny size."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch
from support.scripts import load
from torch.nn import functional

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def experiment() -> ModuleType:
    return load("superresolution")


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Picks 500 m apart on 26 x 40 km of hills, one place given twice."""
    x, y = (grid.ravel() for grid in np.mgrid[400_250:426_000:500, -1_039_750:-1_000_000:500])
    bed = 200 * np.sin(x / 1_500) * np.cos(y / 2_000) + x / 100 - 4_200
    picks = pd.DataFrame({"X": x, "Y": y, "Bed": bed})
    path = tmp_path_factory.mktemp("survey") / "picks.csv"
    repeated = picks.head(1).assign(Bed=0.0)
    pd.concat([picks, repeated]).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def glacier(experiment: ModuleType, survey: Path):
    return experiment.Glacier(experiment.read(survey))


def run(experiment: ModuleType, survey: Path, out: Path, *arguments: object) -> None:
    call = ["superresolution.py", survey, "--size", "test", "--out", out, *arguments]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(word) for word in call])
        experiment.main()


@pytest.fixture(scope="module")
def measured(
    experiment: ModuleType, survey: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("superresolution") / "figures.json"
    run(experiment, survey, out, "--seeds", 3, "--table", out.with_suffix(".md"))
    return out


def test_every_way_is_scored_at_the_same_picks_as_the_baselines(measured: Path):
    document = json.loads(measured.read_text())
    scores = [*document["baselines"].values(), *document["runs"]]
    assert [score["way"] for score in document["runs"]] == ["default", "made-up", "tuned"]
    assert {score["picks"] for score in scores} == {document["picks"]["judging"]}
    assert len({score["rmse"] for score in scores}) == len(scores)
    for score in scores:
        assert score["rmse"] >= score["mae"] >= abs(score["bias"])
        assert score["roughness_ratio"] > 0


def test_fine_tuning_begins_with_the_network_of_the_made_up_terrain(measured: Path):
    default, made_up, tuned = json.loads(measured.read_text())["runs"]
    assert tuned["training"]["made-up"] == made_up["training"]["made-up"]
    assert tuned["training"]["half"]["tiles"] == default["training"]["half"]["tiles"]
    assert tuned["training"]["half"] != default["training"]["half"]


def test_the_table_has_a_row_a_baseline_and_a_way(measured: Path):
    lines = measured.with_suffix(".md").read_text().splitlines()
    assert lines[0].endswith("| seed 3 |")
    assert [line.split("|")[1].strip() for line in lines[2:]] == [
        "bicubic prior",
        "mean-preserving bicubic prior",
        "default, of the eastern half alone",
        "default, of made-up terrain alone",
        "default, of made-up terrain, then of the eastern half",
    ]
    assert "(+0.0 %)" in lines[2]


def test_what_has_been_measured_is_not_measured_again(
    experiment: ModuleType,
    survey: Path,
    measured: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):
    out = tmp_path / "figures.json"
    document = json.loads(measured.read_text())
    document["runs"].pop(0)
    out.write_text(json.dumps(document))
    fitted = []
    fit = experiment.fit

    def watched(settings, parts, folder, network=None):
        fitted.append(folder.name)
        return fit(settings, parts, folder, network)

    monkeypatch.setattr(experiment, "fit", watched)
    run(experiment, survey, out, "--seeds", 3)
    assert fitted == ["half"]
    assert {run["way"]: run["rmse"] for run in json.loads(out.read_text())["runs"]} == {
        run["way"]: run["rmse"] for run in json.loads(measured.read_text())["runs"]
    }


@pytest.mark.parametrize("changed", ["settings", "terrain"])
def test_figures_of_other_settings_are_not_mixed(
    experiment: ModuleType,
    survey: Path,
    measured: Path,
    changed: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    out = tmp_path / "figures.json"
    document = json.loads(measured.read_text())
    if changed == "settings":
        document["runs"][0]["configuration"]["half"]["training"]["batch"] = 4
    else:
        document["terrain"]["fields"] = 1
    out.write_text(json.dumps(document))
    with pytest.raises(SystemExit):
        run(experiment, survey, out, "--seeds", 3)
    assert changed in capsys.readouterr().err
    assert json.loads(out.read_text()) == document


def test_nothing_that_is_learnt_from_is_within_a_tile_of_the_picks_that_judge(glacier):
    windows = pd.concat(glacier.windows.values())
    assert windows["xmin"].min() - glacier.judging["x"].max() >= 9_000
    assert glacier.learnt["x"].min() - glacier.judging["x"].max() >= 9_000
    training, validation = (glacier.windows[part].union_all() for part in glacier.windows)
    assert training.intersection(validation).area == 0


def test_the_prior_is_the_mean_of_the_picks_and_has_no_gap(experiment: ModuleType):
    places = np.array(
        [[400_100, 10], [400_900, 10], [403_500, 500], [400_500, 5_500], [404_100, 6_100]]
    )
    picks = pd.DataFrame(places, columns=["x", "y"]).assign(z=[1.0, 3.0, 10.0, 20.0, 30.0])
    picks.attrs = {"crs": experiment.CRS}
    prior = experiment.block_means(picks, (398_000, -2_000, 406_000, 8_000))
    assert prior.sel(x=400_500, y=500) == 2
    assert prior.sel(x=403_500, y=500) == 10
    assert prior.sel(x=400_500, y=5_500) == 20
    assert prior.sel(x=404_500, y=6_500) == 30
    assert np.isfinite(prior).all()


def test_the_mean_preserving_interpolation_keeps_the_priors_means(experiment: ModuleType):
    x = 300 * torch.randn(2, 1, 11, 11, generator=torch.Generator().manual_seed(1))
    kept, bicubic = (
        functional.avg_pool2d(experiment.Interpolation(rounds)(x), 4) - x[..., 1:-1, 1:-1]
        for rounds in (10, 0)
    )
    assert kept.abs().max() < 1
    assert bicubic.abs().max() > 30


def test_made_up_terrain_is_surveyed_where_the_half_was(experiment: ModuleType, glacier):
    made = glacier.made_up(experiment.Terrain(fields=2, tiles=4), [0, 0]).tensors
    half = glacier.parts()["training"].tensors
    assert made["y"].shape[1:] == half["y"].shape[1:]
    assert not made["w1"].any()
    # Here a cell's mean is that of four picks around its centre.
    means = functional.avg_pool2d(made["y"], 4)
    assert (made["x"][..., 1:-1, 1:-1] - means).std() < 0.4 * means.std()
    again = glacier.made_up(experiment.Terrain(fields=2, tiles=4), [0, 0]).tensors
    other = glacier.made_up(experiment.Terrain(fields=2, tiles=4), [1, 0]).tensors
    assert torch.equal(made["y"], again["y"])
    assert not torch.equal(made["y"], other["y"])


def test_bicubic_is_55_m_from_the_western_picks_of_79N(experiment: ModuleType, shared_data: Path):
    glacier = experiment.Glacier(experiment.read(shared_data / "79N" / "79N.csv"))
    score = glacier.score(glacier.refine(experiment.Interpolation()))
    assert score["rmse"] == pytest.approx(55, abs=0.5)
    assert score["picks"] == len(glacier.judging)
