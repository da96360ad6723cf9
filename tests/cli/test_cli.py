"""The command line: what it prints, writes and exits with, above all when something is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from deepbedmap import rasters, registry
from deepbedmap.model import checkpoints
from deepbedmap.model.networks import Generator

PICKS = "x,y,bed\n" + "\n".join(
    f"{x},{-500_000 + y},{0.01 * x:.2f}"
    for y in range(0, 10_000, 250)
    for x in range(0, 10_000, 250)
)


@pytest.fixture
def survey(tmp_path):
    """Write a pipeline and its raw file; give the pipeline's path."""

    def write(text: str = PICKS, **changes: object):
        reader = {
            "type": "readers.text",
            "filename": "survey.csv",
            "header": "X,Y,Z",
            "separator": ",",
            "skip": 1,
            "override_srs": "EPSG:3031",
        }
        (tmp_path / "survey.csv").write_text(text)
        pipeline = tmp_path / "survey.json"
        pipeline.write_text(json.dumps({"pipeline": [reader | changes]}))
        return pipeline

    return write


def test_bare_call_prints_help_and_exits_with_2(call):
    code, out, err = call()
    assert code == 2
    assert "Commands" in out + err


@pytest.mark.parametrize(
    "command",
    [
        *("list", "search", "show", "cite", "fetch", "points", "grid", "tiles", "convert"),
        *("train", "tune", "predict", "evaluate", "demo", "new", "validate", "verify"),
        *("catalog build", "catalog check"),
    ],
)
def test_every_command_has_help_with_an_example(call, command):
    code, out, _ = call(*command.split(), "--help")
    assert code == 0
    assert f"Example: deepbedmap {command}" in " ".join(out.split())


def test_help_answers_without_loading_what_computes():
    code = (
        "import sys; sys.argv = ['deepbedmap', '--help']\n"
        "from deepbedmap.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'pandas', 'torch', 'pygmt', 'xarray', 'rich'} & sys.modules.keys()\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    start = time.perf_counter()
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert "fetch" in run.stdout
    assert time.perf_counter() - start < 30


@pytest.mark.parametrize("words", [["list"], ["search", "rutford"], ["show", "King2016Rutford"]])
def test_datasets_are_listed_without_loading_what_computes(words):
    code = (
        f"import sys; sys.argv = ['deepbedmap', *{words}]\n"
        "from deepbedmap.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'pandas', 'pyarrow', 'rasterio', 'torch'} & sys.modules.keys()\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert "King2016Rutford" in run.stdout


def test_an_unknown_option_is_the_call_s_fault(call):
    assert call("list", "--colour", "red")[0] == 2


@pytest.mark.parametrize(
    ("option", "values", "said"),
    [("--folder", ["lowlands"], "lowlands"), ("--bounds", [5, 0, 1, 9], "xmin < xmax")],
)
def test_an_impossible_value_is_the_call_s_fault(call, option, values, said):
    code, out, err = call("search", option, *values)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert said in err


def test_the_list_names_every_dataset(call):
    code, out, _ = call("list")
    assert code == 0
    assert all(dataset.citekey in out for dataset in registry.load())


def test_the_list_is_json_on_request(call):
    rows = json.loads(call("list", "--json")[1])
    assert [row["citekey"] for row in rows] == [dataset.citekey for dataset in registry.load()]


def test_a_search_finds_by_words_and_by_folder(call):
    assert "King2016Rutford" in call("search", "rutford")[1]
    assert "King2016Rutford" not in call("search", "rutford", "--folder", "misc")[1]


def test_a_dataset_is_shown_with_null_for_what_nobody_knows(call):
    shown = json.loads(call("show", "King2016Rutford", "--json")[1])
    assert shown["folder"] == "highres"
    assert shown["licence"] is None


def test_a_citation_is_bibtex(call):
    out = call("cite", "King2016Rutford")[1]
    assert "@misc{King2016Rutford," in out
    assert "10.5194/essd-8-151-2016" in out


def test_an_unknown_dataset_is_named_and_near_ones_offered(call):
    code, _, err = call("show", "King2016Ruthford")
    assert code == 1
    assert err.count("\n") == 1
    assert "King2016Rutford" in err


def test_a_file_that_differs_from_its_checksum_is_left_alone(call, tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPBEDMAP_DATA_DIR", str(tmp_path))
    wrong = tmp_path / "highres" / "bed_WGS84_grid.txt"
    wrong.parent.mkdir()
    wrong.write_text("not this")
    code, _, err = call("fetch", "King2016Rutford")
    assert code == 1
    assert err.count("\n") == 1
    assert "bed_WGS84_grid.txt" in err
    assert "expected sha256 7396e56c" in err
    assert wrong.read_text() == "not this"


@pytest.mark.parametrize("name", ["picks.csv", "picks.parquet"])
def test_points_become_a_table(call, survey, tmp_path, name):
    code, out, _ = call("points", survey(), "--out", tmp_path / name)
    assert code == 0
    assert "1600 picks on 40 lines" in out
    read = pd.read_csv if name.endswith(".csv") else gpd.read_parquet
    picks = read(tmp_path / name)
    geometry = [] if name.endswith(".csv") else ["geometry"]
    assert list(picks) == ["x", "y", "z", "line", *geometry]
    assert len(picks) == 1600


def test_a_survey_becomes_a_grid_its_windows_and_a_score(call, survey, tmp_path):
    pipeline, bed = survey(), tmp_path / "bed.nc"
    assert call("grid", pipeline, "--out", bed)[0] == 0
    assert rasters.open_raster(bed).rio.crs.to_epsg() == 3031

    footprints = tmp_path / "windows.geojson"
    code, out, _ = call("tiles", bed, "--out", footprints)
    assert code == 0
    windows = gpd.read_file(footprints)
    assert f"{len(windows)} windows" in out
    assert (windows.area == 9_000**2).all()

    code, out, _ = call("evaluate", bed, "--points", pipeline, "--json")
    scores = json.loads(out)
    assert code == 0
    assert scores["picks"] == 1600
    assert scores["rmse"] < 1


# What is wrong with a raw file or a pipeline, and what must be said of it.
BROKEN = {
    "an empty file": ("", {}, ["survey.csv"]),
    "a truncated row": (PICKS.replace("250,-500000,2.50", "250,-500000", 1), {}, ["line 3"]),
    "text": (PICKS.replace("250,-500000,2.50", "250,-500000,deep", 1), {}, ["line 3", "deep"]),
    "a column too few": (PICKS, {"header": "X,Y,WIDTH,Z"}, ["survey.csv"]),
    "another separator": (PICKS, {"separator": ";", "header": "X;Y;Z"}, ["survey.csv", "separat"]),
    "an unknown stage": (PICKS, {"type": "readers.las"}, ["survey.json", "readers.las"]),
    "an unknown option": (PICKS, {"usecols": "X,Y"}, ["survey.json", "usecols"]),
    "picks in the Pacific": (PICKS.replace("-500000", "-9500000"), {}, ["survey.csv", "line 2"]),
    "a missing raw file": (PICKS, {"filename": "gone.csv"}, ["gone.csv"]),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_survey_gives_one_line_and_nothing_else(call, survey, tmp_path, fault):
    text, changes, named = BROKEN[fault]
    pipeline = survey(text, **changes)
    before = sorted(tmp_path.iterdir())
    code, out, err = call("grid", pipeline, "--out", tmp_path / "bed.nc")
    assert code == 1
    assert out == ""
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
    assert all(word in err for word in named), err
    assert sorted(tmp_path.iterdir()) == before


def test_fewer_than_four_points_are_no_grid(call, survey, tmp_path):
    pipeline = survey("x,y,bed\n0,-500000,1\n500,-500000,2\n0,-499000,3\n")
    code, _, err = call("grid", pipeline, "--out", tmp_path / "bed.tif")
    assert code == 1
    assert "expected at least 4 points, found 3" in err
    assert not (tmp_path / "bed.tif").exists()


@pytest.mark.parametrize("command", ["grid", "points", "tiles"])
def test_a_name_that_no_writer_takes_is_refused_before_any_work(call, tmp_path, command):
    code, _, err = call(command, "absent", "--out", tmp_path / "bed.xyz")
    assert code == 2
    assert "--out" in err


def place(values: float, spacing: float, crs: str | None = "EPSG:3031") -> xr.DataArray:
    centres = np.arange(spacing / 2, 20_000, spacing)
    grid = xr.DataArray(
        np.full((centres.size,) * 2, values, "float32"), {"y": centres, "x": centres}, ("y", "x")
    )
    return grid.rio.write_crs(crs) if crs else grid


@pytest.fixture
def inputs(tmp_path):
    """Write the four inputs of a prediction and a network; give the call's arguments."""
    rasters.write_geotiff(place(-500, 1_000), tmp_path / "prior.tif")
    rasters.write_geotiff(place(1_000, 100), tmp_path / "surface.tif")
    velocity = xr.Dataset({name: place(300, 500) for name in ("VX", "VY")})
    rasters.write_netcdf(velocity, tmp_path / "velocity.nc")
    rasters.write_geotiff(place(200, 1_000), tmp_path / "accumulation.tif")
    torch.manual_seed(0)
    network = Generator(1, features=4, growth=4, input_features=4)
    checkpoints.save(network, tmp_path / "network.safetensors")
    names = {"prior": "tif", "surface": "tif", "velocity": "nc", "accumulation": "tif"}
    options = [part for n, s in names.items() for part in (f"--{n}", tmp_path / f"{n}.{s}")]
    return ["predict", tmp_path / "network.safetensors", *options, "--out", tmp_path / "bed.tif"]


def test_a_window_is_predicted_from_files(call, inputs, tmp_path):
    code, out, err = call(*inputs, "--bounds", 2_000, 2_000, 14_000, 12_000)
    assert code == 0, err
    assert "40 x 48 cells" in out
    bed = rasters.open_raster(tmp_path / "bed.tif")
    assert rasters.bounds_of(bed) == (2_000, 2_000, 14_000, 12_000)
    sources = json.loads(bed.attrs["provenance"])["sources"]
    roles = ["prior", "surface", "velocity", "accumulation", "checkpoint"]
    assert [source["role"] for source in sources] == roles
    assert all(len(source["sha256"]) == 64 for source in sources)


def test_a_window_outside_the_raster_is_refused(call, inputs, tmp_path):
    code, _, err = call(*inputs, "--bounds", 10_000, 2_000, 30_000, 12_000)
    assert code == 1
    assert err.count("\n") == 1
    assert "expected a box within the raster's bounds" in err
    assert not (tmp_path / "bed.tif").exists()


def test_a_raster_without_crs_is_refused(call, inputs, tmp_path):
    place(-500, 1_000, crs=None).rio.to_raster(tmp_path / "prior.tif")
    code, _, err = call(*inputs)
    assert code == 1
    assert "prior.tif, field crs" in err


def test_weights_with_an_array_missing_or_misshapen_are_refused(call, inputs, tmp_path):
    path = tmp_path / "network.safetensors"
    checkpoint = checkpoints.load(path)
    state = checkpoint.network.state_dict()
    name = "input_block.conv_on_X.weight"
    for changed in (
        {key: value for key, value in state.items() if key != name},
        state | {name: torch.zeros(2, 2)},
    ):
        checkpoints.save(changed, path, network=checkpoint.metadata["network"])
        code, _, err = call(*inputs)
        assert code == 1
        assert err.count("\n") == 1
        assert f"network.safetensors, field {name}" in err


def test_a_checkpoint_that_is_cut_short_is_refused(call, inputs, tmp_path):
    path = tmp_path / "network.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    code, _, err = call(*inputs)
    assert code == 1
    assert "network.safetensors" in err


def test_the_catalog_is_up_to_date(call):
    assert call("catalog", "check")[0] == 0
