from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
STAGES = ["points", "region", "solve", "grid", "sparse", "box", "tiles", "growth"]


def run(script, *arguments, code=0):
    done = subprocess.run(
        [sys.executable, BENCHMARKS / script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """The table of all stages at a tiny size, and the same as JSON."""
    folder = tmp_path_factory.mktemp("stages")
    path = folder / "stages.json"
    done = run("stages.py", "--size", "test", "--one-process", "--folder", folder, "--json", path)
    assert [*folder.iterdir()] == [path], "made-up data were left behind"
    return done.stdout, json.loads(path.read_text())


def test_every_stage_is_in_the_table_and_in_the_json(stages):
    table, figures = stages
    assert [*figures["stages"]] == STAGES
    for name in STAGES:
        assert f"\n- {name}: {figures['stages'][name]['case']}" in table
        assert name == "growth" or f"\n| {name} | " in table


def test_every_way_has_its_time_and_memory(stages):
    for stage in stages[1]["stages"].values():
        for way in stage["ways"].values():
            assert way["seconds"] > 0
            assert way["megabytes_of_process"] > 10
            assert len(way["all_seconds"]) == 1


def test_what_is_wanted_stands_beside_what_was_found(stages):
    table, figures = stages
    wanted = {target["what"].partition(":")[0] for target in figures["targets"]}
    assert wanted == {*STAGES}
    for target in figures["targets"]:
        atmost = "at most" in target["what"]
        met = target["found"] <= target["wanted"] if atmost else target["found"] >= target["wanted"]
        assert target["met"] == met
        assert f"\n| {target['what']} | " in table


@pytest.mark.parametrize(
    ("stage", "rms"),
    # Where few lines leave most of a tiny grid open, GMT by its defaults is metres off.
    [("points", 1e-6), ("region", 0), ("solve", 10), ("grid", 10), ("sparse", 10), ("tiles", 1e-4)],
)
def test_both_ways_find_the_same(stages, stage, rms):
    apart = stages[1]["stages"][stage]["difference"]
    assert apart["values"] > (3 if stage == "region" else 400)
    assert apart["rms"] <= rms


def test_the_spline_is_held_to_converged_gmt(stages):
    apart = stages[1]["stages"]["solve"]["from_converged_gmt"]["ours"]
    assert apart["values"] > 100
    assert apart["rms"] < 0.5


def test_an_extrapolation_says_so_and_comes_near_what_is_measured(stages):
    table, figures = stages
    sparse = figures["stages"]["sparse"]
    assert "sparse: with nodes farther apart GMT took" in table
    assert sparse["plain_seconds_extrapolated"] == pytest.approx(
        4 * sparse["ways"]["plain, coarser"]["seconds"], rel=1e-3
    )


def test_the_machine_is_described(stages):
    machine = stages[1]["machine"]
    assert machine["cores"] > 0
    assert machine["gigabytes"] > 0
    assert machine["processor"]
    assert {"deepbedmap", "pandas", "gmt", "gdal"} <= {*machine["versions"]}
    assert machine["processor"] in stages[0]


def test_a_way_has_a_process_of_its_own(tmp_path):
    path = tmp_path / "region.json"
    run("stages.py", "--size", "test", "--stage", "region", "--json", path)
    ways = json.loads(path.read_text())["stages"]["region"]["ways"]
    # Taking the least and the largest of two columns needs no GMT, whose way does.
    assert ways["floor"]["megabytes_of_process"] < ways["plain"]["megabytes_of_process"] - 20


def test_the_plain_way_knows_nothing_of_ours():
    statements = ast.walk(ast.parse((BENCHMARKS / "plain.py").read_text()))
    imported = [ast.unparse(s) for s in statements if isinstance(s, ast.Import | ast.ImportFrom)]
    assert "import pygmt" in imported
    assert not [text for text in imported if "deepbedmap" in text or "cases" in text]


def test_the_largest_box_is_for_an_hour_alone():
    assert "needs --size hour" in run("stages.py", "--stage", "box", code=2).stderr


def test_a_continent_that_is_killed_while_gridding_goes_on_to_the_same_grid(tmp_path):
    path = tmp_path / "continent.json"
    data = tmp_path / "data"
    sizes = ("--picks", 4000, "--kill-after", 0.3)
    done = run("continent_dem.py", "--folder", data, "--only", "picks", *sizes, "--json", path)
    figures = json.loads(path.read_text())["picks"]
    assert figures["uninterrupted"]["picks"] == 4000
    assert figures["interrupted"]["same"]
    assert "the same file" in done.stdout
    assert figures["uninterrupted"]["grid"]["megabytes_of_process"] > 10
