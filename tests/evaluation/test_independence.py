"""Whether test picks are new to a prior and to a training: yes, no or unknown."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely

from deepbedmap.errors import InvalidDataError, MissingDataError
from deepbedmap.evaluation import (
    Training,
    find_leak,
    open_training,
    verdict_on_prior,
    verdict_on_training,
)
from deepbedmap.evaluation.trainings import join_trainings


def picks_at(x, y=0.0, **attrs):
    table = pd.DataFrame({"x": np.asarray(x, float), "y": float(y), "z": 0.0, "line": "a"})
    table.attrs = {"crs": "EPSG:3031", **attrs}
    return table


def tiles_at(*corners, crs="EPSG:3031"):
    boxes = [shapely.box(x, 0, x + 9_000, 9_000) for x in corners]
    return gpd.GeoDataFrame(geometry=boxes, crs=crs)


@pytest.fixture
def registry(listed_datasets):
    def entry(citekey, **fields):
        files = [{"filename": f"{citekey}.tif", "url": "https://x.org/f", "sha256": None}]
        common = {"citekey": citekey, "title": citekey, "folder": "highres", "files": files}
        return common | fields

    return listed_datasets(
        entry("New", epoch=[2021, 2022]),
        entry("Old", overlaps_with=["Points"], epoch=[2001, 2002]),
        entry("Points"),
        entry("Far", bounds=[500_000, 500_000, 600_000, 600_000]),
        entry("First", folder="lowres", built_from={"surveys": ["Points"]}),
        entry("Second", folder="lowres", built_from={"surveys": ["First"]}),
        entry("Dated", folder="lowres", built_from={"until": 2019}),
        entry("Secret", folder="lowres"),
    )


@pytest.mark.parametrize(
    ("prior", "tested", "answer", "reason"),
    [
        ("First", "Points", "no", "First was built from Points"),
        ("First", "Old", "no", "Points, which overlaps Old"),
        ("Second", "Old", "no", "Second was built from Points"),
        ("Second", "New", "yes", "other surveys"),
        ("Dated", "New", "yes", "end in 2019"),
        ("Dated", "Old", "unknown", "2019"),
        ("Secret", "New", "unknown", "what Secret was built from is not known"),
        ("First", None, "unknown", "not in the registry"),
    ],
)
def test_a_prior_is_judged_by_what_it_was_built_from(registry, prior, tested, answer, reason):
    verdict = verdict_on_prior([{"role": "prior", "citekey": prior}], {tested}, registry)
    assert verdict.answer == answer
    assert reason in verdict.reason


def test_a_bed_that_says_nothing_and_a_prior_that_nobody_knows_are_unknown(registry):
    assert verdict_on_prior(None, {"New"}, registry).answer == "unknown"
    verdict = verdict_on_prior([{"role": "prior", "file": "mine.tif"}], {"New"}, registry)
    assert (verdict.answer, verdict.reason) == ("unknown", "mine.tif is not in the registry")


def test_a_prior_is_known_by_the_name_of_its_file_too(registry):
    assert (
        verdict_on_prior([{"role": "prior", "file": "First.tif"}], {"Points"}, registry).answer
        == "no"
    )


def test_what_a_prior_was_made_of_counts_and_other_inputs_do_not(registry):
    sources = [
        {"role": "prior", "file": "resampled.tif", "sources": [{"citekey": "First"}]},
        {"role": "surface", "citekey": "Secret"},
    ]
    assert verdict_on_prior(sources, {"Points"}, registry).answer == "no"
    assert verdict_on_prior(sources, {"New"}, registry).answer == "yes"
    assert verdict_on_prior(sources[1:], {"New"}, registry).answer == "yes"


def test_picks_in_a_tile_and_near_one_are_counted():
    points = picks_at([4_000, 9_500, 19_000, 20_500, 90_000], 4_000)
    leak = find_leak(points, Training(footprints=tiles_at(0, 50_000)))
    assert (leak.within, leak.near, leak.picks) == (1, 3, 5)
    assert "3 of 5 test picks are within 11 km of 2 training tiles, 1 of them inside" in str(leak)
    assert find_leak(points[3:], Training(footprints=tiles_at(0)), buffer=11_000) is None
    assert find_leak(points[3:4], Training(footprints=tiles_at(0)), buffer=11_501).near == 1


def test_picks_at_and_near_training_picks_are_counted():
    leak = find_leak(picks_at([0, 5_000, 30_000]), Training(picks=picks_at([0.5, 100])))
    assert (leak.within, leak.near) == (1, 2)


def test_a_training_in_another_crs_is_refused():
    with pytest.raises(InvalidDataError, match="training tiles, field crs: expected EPSG:3031"):
        find_leak(picks_at([0]), Training(footprints=tiles_at(0, crs="EPSG:3413")))


def verdict_of(sources, registry, training=None, tested="New", points=None, leak=None):
    points = picks_at([0.0]) if points is None else points
    return verdict_on_training(sources, training or Training(), leak, points, {tested}, registry)


LEARNED = [{"role": "checkpoint", "sources": [{"role": "training", "citekey": "Old"}]}]


def test_a_training_is_judged_by_its_places_where_these_are_known(registry):
    training = Training(("tiles",), footprints=tiles_at(40_000))
    assert verdict_of(LEARNED, registry, training, "Old").answer == "yes"
    leak = find_leak(picks_at([45_000]), training)
    verdict = verdict_of(LEARNED, registry, training, leak=leak)
    assert verdict.answer == "no"
    assert "1 of 1 test picks" in verdict.reason


@pytest.mark.parametrize(
    ("box", "buffer", "answer"),
    [
        ((-10, -10, 10, 10), 11_000, "yes"),
        ((5, 5, 10, 10), 11_000, "unknown"),
        ((-10, -10, 10, 10), 500, "unknown"),
    ],
    ids=["inside", "outside", "a small buffer"],
)
def test_areas_that_were_left_out_answer_for_picks_inside_them(registry, box, buffer, answer):
    training = Training(("checkpoint",), excluded=({"Thwaites": box}, buffer))
    assert verdict_of(LEARNED, registry, training).answer == answer


def test_a_bed_made_of_the_very_files_of_the_test_is_no_test(registry):
    points = picks_at([0.0], sources=[{"file": "season.csv", "sha256": "a" * 64}])
    verdict = verdict_of([{"file": "season.csv", "sha256": "a" * 64}], registry, points=points)
    assert (verdict.answer, "season.csv itself" in verdict.reason) == ("no", True)


@pytest.mark.parametrize(
    ("citekey", "tested", "answer"),
    [
        ("Old", "Old", "unknown"),
        ("Points", "Old", "unknown"),
        ("Far", "New", "yes"),
        ("Old", "New", "unknown"),
    ],
    ids=["the same", "one that overlaps", "one far off", "one somewhere"],
)
def test_without_places_the_surveys_are_looked_at(registry, citekey, tested, answer):
    learned = [{"role": "checkpoint", "sources": [{"role": "training", "citekey": citekey}]}]
    assert verdict_of(learned, registry, tested=tested).answer == answer


def test_what_learned_nothing_is_new_to_all_and_what_says_nothing_is_unknown(registry):
    assert verdict_of([{"role": "prior", "citekey": "First"}], registry).answer == "yes"
    assert verdict_of(None, registry).answer == "unknown"
    assert verdict_of([{"role": "checkpoint", "file": "a"}], registry).answer == "unknown"


def checkpoint_without(box, buffer=11_000, **more):
    stated = {"excluded": {"areas": {"Thwaites": box}, "buffer": buffer}}
    return {**LEARNED[0], "training_set": stated, **more}


@pytest.mark.parametrize(
    ("checkpoints", "answer"),
    [
        ([checkpoint_without([-10, -10, 10, 10])], "yes"),
        ([checkpoint_without([5, 5, 10, 10])], "unknown"),
        ([checkpoint_without([-10, -10, 10, 10], buffer=500)], "unknown"),
        ([checkpoint_without([-10, -10, 10, 10]), LEARNED[0]], "unknown"),
        ([checkpoint_without([-10, -10, 10, 10])] * 2, "yes"),
        ([checkpoint_without([-10, -10, 10])], "unknown"),
        ([LEARNED[0] | {"training_set": {"excluded": "Thwaites"}}], "unknown"),
    ],
    ids=["inside", "outside", "a small buffer", "one of two", "both", "no box", "no areas"],
)
def test_the_provenance_of_a_bed_alone_says_what_its_training_left_out(
    registry, checkpoints, answer
):
    assert verdict_of(checkpoints, registry).answer == answer
    resampled = [{"role": "raster", "file": "bed.tif", "sources": checkpoints}]
    assert verdict_of(resampled, registry).answer == answer


def test_a_resampled_product_is_that_product(registry):
    resampled = [{"role": "raster", "file": "First.tif"}, {"role": "filler", "citekey": "Secret"}]
    assert verdict_on_prior(resampled, {"Points"}, registry).answer == "no"
    assert verdict_on_prior(resampled, {"New"}, registry).answer == "unknown"
    mine = [{"role": "heights", "file": "mine.tif"}]
    assert verdict_on_prior(mine, {"New"}, registry).reason == "mine.tif is not in the registry"


def test_picks_that_were_gridded_and_resampled_were_learned_from(registry):
    gridded = [{"role": "raster", "file": "grid.nc", "sources": [{"citekey": "Old"}]}]
    assert verdict_on_prior(gridded, {"Old"}, registry).answer == "yes"
    assert "learned from Old" in verdict_of(gridded, registry, tested="Old").reason


def test_a_provenance_without_sources_says_nothing(registry):
    assert verdict_on_prior([], {"New"}, registry).answer == "unknown"
    assert verdict_of([], registry).answer == "unknown"


def test_footprints_are_read_from_a_file_and_joined_with_picks(tmp_path):
    path = tmp_path / "tiles.geojson"
    tiles_at(0, 20_000).to_file(path)
    training = join_trainings([open_training(path), Training(("a",), picks=picks_at([1, 2]))])
    assert len(training.footprints) == 2
    assert len(training.picks) == 2
    assert training.names == ("tiles.geojson", "a")


def test_a_file_that_is_not_there_or_no_footprints_is_reported(tmp_path):
    with pytest.raises(MissingDataError, match=r"absent\.geojson"):
        open_training(tmp_path / "absent.geojson")
    (tmp_path / "broken.geojson").write_text("{")
    with pytest.raises(InvalidDataError, match=r"broken.geojson: expected footprints"):
        open_training(tmp_path / "broken.geojson")
    (tmp_path / "broken.safetensors").write_text("{")
    with pytest.raises(
        InvalidDataError, match=r"broken.safetensors: expected a complete .safetensors file"
    ):
        open_training(tmp_path / "broken.safetensors")
