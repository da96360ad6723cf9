"""The experiment at Byrd Glacier, on a made-up one and at a tiny size."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from support.scripts import load

from deepbedmap import rasters
from deepbedmap.evaluation import distance_to

WAYS = ["bicubic", "thickness", "model", "leaking-bicubic", "bedmachine"]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def byrd() -> ModuleType:
    return load("byrd")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A glacier of 38 x 29.5 km around a bare rock, a quarter of its pixels measured."""
    x = 350_000 + 500.0 * np.arange(76)
    y = -800_500 - 500.0 * np.arange(59)
    across, up = np.meshgrid(x, y)
    bed = 200 * np.sin(across / 3_000) * np.cos(up / 2_500) + across / 200 - 2_000
    surface = 1_500 + (across - x[0]) / 50
    rock = np.hypot(across - x[40], up - y[40]) < 1_500
    bed[rock] = surface[rock]
    geoid = np.full_like(bed, -50)
    random = np.random.default_rng(0)
    grids = {
        "surface_ellipsoid": surface,
        "vx": -50 - (across - x[0]) / 1_000,
        "vy": 20 + (up - y[0]) / 1_000,
        "smb": 0.1 + (across - x[0]) / 1e6,
        "bm_bed": np.where(rock, np.nan, bed - geoid + random.normal(20, 50, bed.shape)),
        "bm_surface": surface - geoid,
        "bm_geoid": geoid,
    }
    folder = tmp_path_factory.mktemp("byrd")
    data = {name: (("y", "x"), grid.astype("f4")) for name, grid in grids.items()}
    dataset = xr.Dataset(data, {"y": y, "x": x}, {"crs": "EPSG:3031"})
    dataset.to_netcdf(folder / "rasters.nc", engine="h5netcdf")
    measured = random.random(bed.shape) < 0.25
    picks = pd.DataFrame({"x": across[measured], "y": up[measured], "z": bed[measured]})
    picks.to_csv(folder / "picks.csv", index=False)
    return folder / "rasters.nc", folder / "picks.csv"


@pytest.fixture(scope="module")
def glacier(byrd: ModuleType, files: tuple[Path, Path]):
    return byrd.Glacier(files[0], pd.read_csv(files[1]))


@pytest.fixture(scope="module")
def experiment(byrd: ModuleType, glacier):
    return byrd.Experiment(glacier, 3)


def run(byrd: ModuleType, files: tuple[Path, Path], out: Path, *arguments: object) -> None:
    call = ["byrd.py", *files, "--size", "test", "--seeds", 3, "--out", out, *arguments]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(word) for word in call])
        byrd.main()


@pytest.fixture(scope="module")
def measured(
    byrd: ModuleType, files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("measured") / "figures.json"
    kept = "--beds", out.parent, "--figure", out.with_suffix(".png")
    run(byrd, files, out, "--ways", *WAYS, "--table", out.with_suffix(".md"), *kept)
    return out


def test_every_way_is_scored_at_the_same_picks(measured: Path):
    runs = json.loads(measured.read_text())["runs"]
    assert [run["way"] for run in runs] == WAYS
    assert len({run["picks"] for run in runs}) == 1
    assert len({run["rmse"] for run in runs}) == len(runs)
    for figures in runs:
        low, high = figures["intervals"]["rmse"]
        assert low <= figures["rmse"] <= high
        assert sum(one["picks"] for one in figures["strata"]["distance"]) == figures["picks"]
        assert figures["rmse"] ** 2 == pytest.approx(
            figures["bias"] ** 2 + figures["bias_removed_rmse"] ** 2, rel=1e-3
        )
    bicubic = runs[0]
    for figures in runs:
        gain = 1 - figures["rmse"] / bicubic["rmse"]
        assert figures["gain_over_bicubic"] == pytest.approx(gain, abs=2e-4)
    assert bicubic["gain_interval"] == [0, 0]


def test_ways_that_know_the_test_picks_are_marked(measured: Path):
    runs = json.loads(measured.read_text())["runs"]
    assert {run["way"]: run["independent"] for run in runs} == {
        "bicubic": "yes",
        "thickness": "yes",
        "model": "yes",
        "leaking-bicubic": "no",
        "bedmachine": "no",
    }
    text = measured.with_suffix(".md").read_text()
    assert text.count("| *leaking:* BedMachine, 500 m |") == 4
    assert text.count("| network |") == 4


def test_what_has_been_measured_is_not_measured_again(
    byrd: ModuleType,
    files: tuple[Path, Path],
    measured: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):
    out = tmp_path / "figures.json"
    document = json.loads(measured.read_text())
    document["runs"] = [run for run in document["runs"] if run["way"] != "bedmachine"]
    out.write_text(json.dumps(document))
    monkeypatch.setattr(byrd, "fit", None)
    run(byrd, files, out, "--ways", *WAYS)
    assert json.loads(out.read_text()) == json.loads(measured.read_text())


@pytest.mark.parametrize("changed", ["settings", "files"])
def test_figures_of_other_settings_are_not_mixed(
    byrd: ModuleType,
    files: tuple[Path, Path],
    measured: Path,
    changed: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    out = tmp_path / "figures.json"
    document = json.loads(measured.read_text())
    if changed == "settings":
        document["runs"][2]["configuration"]["glacier"]["training"]["batch"] = 4
    else:
        document["files"]["picks.csv"] = "0"
    out.write_text(json.dumps(document))
    with pytest.raises(SystemExit):
        run(byrd, files, out, "--ways", *WAYS)
    assert changed in capsys.readouterr().err
    assert json.loads(out.read_text()) == document


def test_a_figure_is_drawn_of_the_beds_that_were_kept(measured: Path):
    assert measured.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    bed = rasters.open_raster(measured.parent / "model_3.tif")
    assert rasters.resolution_of(bed) == 250
    assert np.isfinite(bed).all()


@pytest.mark.parametrize("seed", range(4))
def test_nothing_that_is_learnt_from_is_near_a_pick_that_judges(byrd, glacier, seed: int):
    experiment = byrd.Experiment(glacier, seed)
    learnt = pd.concat([experiment.training, experiment.validation])
    assert distance_to(experiment.test, learnt).min() > 2_000
    assert distance_to(experiment.validation, experiment.training).min() > 2_000
    blocks = [set(byrd.blocks_of(part, glacier)) for part in (experiment.test, learnt)]
    assert not blocks[0] & blocks[1]


def test_no_tile_has_its_truth_in_its_prior(byrd: ModuleType, experiment, monkeypatch):
    known = []
    prior_of = experiment.glacier.prior_of

    def watched(picks):
        known.append(picks)
        return prior_of(picks)

    monkeypatch.setattr(experiment.glacier, "prior_of", watched)
    truths = [truth for truth, _ in experiment.folds(byrd.FOLDS)]
    assert len(truths) == len(known) == byrd.FOLDS
    for truth, picks in zip(truths, known, strict=True):
        assert distance_to(truth, picks).min() > 2_000
        assert set(picks.index) <= set(experiment.training.index)
    assert sorted(pd.concat(truths).index) == sorted(experiment.training.index)


def test_the_test_picks_change_nothing_but_the_score(
    byrd: ModuleType, files: tuple[Path, Path], glacier, experiment
):
    picks = glacier.picks[["x", "y", "z"]].copy()
    picks.loc[experiment.test.index, "z"] += 1_000
    other = byrd.Experiment(byrd.Glacier(files[0], picks), experiment.seed)
    parts, others = (one.parts(byrd.WAYS["model"]) for one in (experiment, other))
    for part in parts:
        for name, tensor in parts[part].tensors.items():
            assert torch.equal(tensor.nan_to_num(), others[part].tensors[name].nan_to_num())
    for name in ("bicubic", "gridding", "thickness"):
        assert np.array_equal(experiment.baseline(name), other.baseline(name))
    bed = experiment.baseline("bicubic")
    assert other.score(bed)["bias"] == pytest.approx(experiment.score(bed)["bias"] - 1_000)


def test_the_truth_of_a_tile_is_the_pixels_in_it(glacier, experiment):
    cut = glacier.cut(experiment.training, experiment.prior)
    pixels = torch.from_numpy(np.where(cut["mask"], cut["y"], 0))
    # Tiles begin on whole kilometres of the lattice, half a pixel off the pixels' centres.
    four = pixels.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
    assert torch.equal(four.amin(4), four.amax(4))
    known = set(np.float32(experiment.training["z"]))
    assert set(pixels[pixels != 0].tolist()) <= known
    assert cut["mask"].mean() < 0.25


def test_bedmachine_is_brought_to_the_ellipsoid_and_is_the_surface_where_rock_is_bare(glacier):
    bed = glacier.bedmachine
    assert bed.attrs["vertical_datum"] == "ellipsoid"
    assert np.isfinite(bed).all()
    assert float(bed.isel(x=40, y=40)) == pytest.approx(float(glacier.surface.isel(x=40, y=40)))
    means = glacier.leaking_prior
    assert rasters.resolution_of(means) == 1_000
    assert means.std() < bed.std()
    assert abs(float(means.mean()) - float(bed.mean())) < 20


@pytest.mark.parametrize(
    ("way", "bands"), [("no-surface", ["w1"]), ("prior-alone", ["w1", "w2", "w3"])]
)
def test_what_a_network_goes_without_is_zero_in_training_and_in_prediction(
    byrd: ModuleType, experiment, way: str, bands: list[str]
):
    for part in experiment.parts(byrd.WAYS[way]).values():
        assert [name for name in ("w1", "w2", "w3") if not part.tensors[name].any()] == bands
    inputs = experiment.glacier.inputs(experiment.prior, byrd.WAYS[way].without).by_name
    assert [name for name, grid in inputs.items() if not grid.any()] == bands


def test_a_bed_that_is_off_by_a_constant_has_that_bias_and_the_picks_roughness(glacier, experiment):
    pixels = glacier.picks.set_index(["y", "x"])["z"].to_xarray()
    bed = (glacier.bedmachine * 0 + pixels + 7).interpolate_na("x", fill_value="extrapolate")
    score = experiment.score(bed)
    assert score["bias"] == score["rmse"] == score["mae"] == pytest.approx(7, abs=1e-3)
    assert score["roughness_ratio"] == pytest.approx(1, abs=1e-3)
    assert score["intervals"]["rmse"] == pytest.approx([7, 7], abs=1e-2)


def test_bedmachine_is_131_m_from_the_radar_of_byrd_glacier(byrd: ModuleType, shared_data: Path):
    folder = shared_data / "byrd"
    glacier = byrd.Glacier(folder / "byrd_500m.nc", pd.read_csv(folder / "byrd_radar_bed.csv"))
    picks = glacier.picks
    error = rasters.sample(glacier.bedmachine, picks["x"], picks["y"]) - picks["z"]
    assert error.std() == pytest.approx(129, abs=2)
    assert error.mean() == pytest.approx(24, abs=1)
    experiment = byrd.Experiment(glacier, 0)
    facts = experiment.facts()
    assert facts["test"] > 3_000
    assert facts["distance"]["0"] > 2_000
    bicubic = experiment.baseline("bicubic")
    known = experiment.validation
    off = rasters.sample(bicubic, known["x"], known["y"]) - known["z"]
    assert np.sqrt((off**2).mean()) == pytest.approx(270, abs=5)
