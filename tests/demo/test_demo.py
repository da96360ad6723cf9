"""The demo from end to end, with small glaciers and one epoch."""

from __future__ import annotations

import json
from dataclasses import fields

import numpy as np
import pytest
import shapely
from support.citing import sources_of

from deepbedmap import demo, points, rasters, registry, tiles
from deepbedmap.evaluation import Scores, evaluate
from deepbedmap.model import checkpoints
from deepbedmap.model.networks import FlowAlignedGenerator
from deepbedmap.places import BUFFER

SMALL = demo.Configuration(extent=24_000, pick_spacing=250, reconnaissance_spacing=8_000)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "out"
    told: list[str] = []
    steps: list[int] = []
    scores = demo.run(
        out,
        seed=3,
        epochs=1,
        configuration=SMALL,
        report=told.append,
        progress=lambda step, *_: steps.append(step),
    )
    return out, scores, told, steps


def test_the_demo_leaves_its_products_and_no_parts_of_them(run):
    out, _, _, _ = run
    assert sorted(path.name for path in out.iterdir()) == [
        "bed.nc",
        "bed.tif",
        "checkpoint.safetensors",
        "comparison.png",
        "report.html",
        "repository",
        "scores.json",
    ]


def test_scores_are_written_for_each_method(run):
    out, scores, _, _ = run
    written = json.loads((out / "scores.json").read_text())
    assert written == scores
    names = {field.name for field in fields(Scores)}
    for method in ("model", "bicubic", "gridding"):
        assert set(written[method]) == names
        assert written[method]["picks"] == written["model"]["picks"] > 100
        assert 0 < written[method]["rmse"] < 1_000
    assert (written["seed"], written["steps"]) == (3, 4)


def test_the_report_shows_the_scores_and_figures_of_the_run(run):
    out, scores, _, _ = run
    page = (out / "report.html").read_text()
    assert "nothing here was observed" in page
    assert f"{scores['model']['picks']:,} radar picks" in page
    for method in ("model", "bicubic", "gridding"):
        assert f"{scores[method]['rmse']:.1f}" in page
    assert "<h3>Training</h3>" in page
    assert "<h3>Along the longest line</h3>" in page
    assert "deepbedmap demo --out" in page
    assert page.count("data:image/png;base64,") >= 7


def test_the_bed_on_disk_has_the_score_that_is_written(run):
    out, scores, _, _ = run
    entry = out / "repository" / "highres" / f"{demo.TEST}.json"
    picks = points.read_points(entry)
    for name in ("bed.tif", "bed.nc"):
        bed = rasters.open_raster(out / name)
        assert bed.attrs["vertical_datum"] == "ellipsoid"
        inner = tuple(np.add(rasters.bounds_of(bed), (1_000, 1_000, -1_000, -1_000)))
        assert evaluate(bed, demo.within(picks, inner)).rmse == pytest.approx(
            scores["model"]["rmse"], rel=1e-4
        )


def test_the_checkpoint_says_what_made_it(run):
    out, _, _, _ = run
    checkpoint = checkpoints.load(out / "checkpoint.safetensors")
    assert isinstance(checkpoint.network, FlowAlignedGenerator)
    assert checkpoint.metadata["seed"] == 3
    assert checkpoint.metadata["metrics"][-1]["step"] == 4
    assert checkpoint.metadata["training_set"]["split"]["validation"] == ["MadeUp5"]
    sources = checkpoint.metadata["sources"]
    trained_on = {source["citekey"] for source in sources if source["role"] == "training"}
    assert trained_on == {"MadeUp1", "MadeUp2", "MadeUp3", "MadeUp4"}
    assert all(len(source["sha256"]) == 64 for source in sources)


def test_the_bed_cites_its_inputs_and_the_surveys_behind_its_checkpoint(run):
    out, _, _, _ = run
    listing = registry.load(out / "repository")
    inputs = [dataset.citekey for dataset in listing if dataset.folder != "highres"]
    training = [f"MadeUp{number}" for number in range(1, 5)]
    assert sorted(sources_of(out / "checkpoint.safetensors", listing)) == sorted(training + inputs)
    for name in ("bed.tif", "bed.nc"):
        assert sources_of(out / name, listing) == inputs + training


def test_progress_is_told(run):
    _, _, told, steps = run
    assert len(told) == 8
    assert steps == [1, 2, 3, 4]


def test_tiles_of_different_parts_and_test_picks_lie_11_km_apart(tmp_path):
    surveyed = demo.prepare(tmp_path / "repository", 4, SMALL)
    dataset = tiles.open_training_set(demo.build_tiles(surveyed, tmp_path / "tiles.zarr", step=6))
    edges = [dataset[name].to_numpy() for name in ("xmin", "ymin", "xmax", "ymax")]
    windows = shapely.box(*edges)
    boxes = {
        part: shapely.union_all(windows[dataset["split"] == part])
        for part in ("train", "validation")
    }
    assert set(dataset["survey"].to_numpy()[dataset["split"] == "validation"]) == {"MadeUp5"}
    assert boxes["train"].distance(boxes["validation"]) >= BUFFER
    test = shapely.MultiPoint(surveyed.picks[demo.TEST][["x", "y"]].to_numpy())
    assert min(box.distance(test) for box in boxes.values()) >= BUFFER


def test_windows_near_the_test_survey_are_not_trained_on(tmp_path):
    surveyed = demo.prepare(tmp_path / "repository", 4, SMALL)

    def count(path):
        split = tiles.open_training_set(demo.build_tiles(surveyed, path))["split"]
        return int((split == "train").sum())

    far = count(tmp_path / "far.zarr")
    # Lay the test survey over the first training glacier: none of its windows may be used.
    surveyed.picks[demo.TEST] = surveyed.picks["MadeUp1"]
    assert count(tmp_path / "near.zarr") < far
