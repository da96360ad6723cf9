from __future__ import annotations

import hashlib
import json
import logging
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.ndimage import distance_transform_edt

from deepbedmap import grids
from deepbedmap.errors import DeepBedMapError, InvalidDataError
from deepbedmap.grids import out_of_core
from deepbedmap.grids.spline import solving

CELL = 250.0


def bed(x, y):
    return 800 * np.sin(x / 9000) * np.cos(y / 7000) + 300 * np.sin((x + 2 * y) / 2500)


def flight_lines(lines, length, box, seed=0, step=60.0, noise=20.0):
    """Picks along straight lines across a box in metres, from its south-western corner on."""
    rng = np.random.default_rng(seed)
    along = np.arange(-length / 2, length / 2, step)
    azimuth, *middle = rng.uniform(size=(3, lines, 1)) * np.reshape([np.pi, *box], (3, 1, 1))
    x, y = middle[0] + along * np.cos(azimuth), middle[1] + along * np.sin(azimuth)
    inside = (x > 0) & (x < box[0]) & (y > 0) & (y < box[1])
    x, y = x[inside], y[inside]
    z = bed(x, y) + rng.normal(0, noise, x.size)
    points = pd.DataFrame({"x": x - 1e6, "y": y + 5e5, "z": z})
    points.attrs = {"crs": "EPSG:3031", "vertical_datum": "ellipsoid", "sources": []}
    return points


@pytest.fixture(scope="module")
def survey():
    return flight_lines(lines=7, length=1e5, box=(65_000.0, 50_000.0))


@pytest.fixture(scope="module")
def whole(survey):
    return grids.grid_points(survey)


@pytest.fixture(scope="module")
def written(survey, tmp_path_factory):
    path = tmp_path_factory.mktemp("grid") / "bed.nc"
    return grids.write_grid(survey, path, side=128, threads=1)


def opened(path):
    options = {"decode_coords": "all"}
    if path.suffix == ".zarr":
        dataset = xr.open_zarr(path, consolidated=False, **options)
    else:
        dataset = xr.open_dataset(path, engine="h5netcdf", **options)
    with dataset:
        return dataset.load()


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_regions_join_as_if_they_were_solved_as_a_whole(written, whole):
    z = opened(written)["z"]
    assert min(z.shape) > 128
    np.testing.assert_array_equal(np.isnan(z), np.isnan(whole))
    np.testing.assert_array_equal(z.x, whole.x)
    np.testing.assert_array_equal(z.y, whole.y)
    assert float(abs(z - whole).max()) < 0.05


def test_one_region_is_the_grid_itself(survey, whole, tmp_path):
    z = opened(grids.write_grid(survey, tmp_path / "bed.nc"))["z"]
    np.testing.assert_array_equal(z, whole)


@pytest.mark.parametrize("max_gap", [0, 5])
@pytest.mark.parametrize("side", [3, 7])
def test_no_side_is_too_small(side, max_gap, tmp_path):
    few = flight_lines(lines=3, length=1e4, box=(4000.0, 3000.0))
    path = grids.write_grid(few, tmp_path / "bed.zarr", max_gap=max_gap, side=side)
    np.testing.assert_allclose(
        opened(path)["z"], grids.grid_points(few, max_gap=max_gap), atol=0.05
    )


def test_both_formats_hold_the_same(survey, written, tmp_path):
    path = grids.write_grid(survey, tmp_path / "bed.zarr", side=128)
    netcdf, zarr = opened(written), opened(path)
    for name in ("z", "count", "spread", "distance"):
        np.testing.assert_array_equal(netcdf[name], zarr[name])
        assert netcdf[name].dtype == zarr[name].dtype == ("int32" if name == "count" else "float32")
        assert netcdf[name].attrs == zarr[name].attrs
        assert netcdf[name].rio.crs.to_epsg() == zarr[name].rio.crs.to_epsg() == 3031
    assert netcdf.attrs == zarr.attrs == {"Conventions": "CF-1.11"}


def test_layers_are_what_the_picks_say(survey, written, whole):
    grid = opened(written)
    xmin, ymin = (float(edge) for edge in (whole.x[0] - CELL / 2, whole.y[0] - CELL / 2))
    cells = survey.assign(
        row=((survey["y"] - ymin) // CELL).astype(int),
        column=((survey["x"] - xmin) // CELL).astype(int),
    ).groupby(["row", "column"])["z"]
    count, spread = np.zeros(whole.shape, int), np.full(whole.shape, np.nan)
    held = tuple(cells.count().index.to_frame().to_numpy().T)
    count[held], spread[held] = cells.count(), cells.std()
    np.testing.assert_array_equal(grid["count"], count)
    np.testing.assert_allclose(grid["spread"], spread, rtol=1e-5)
    away = distance_transform_edt(count == 0) * CELL
    expected = np.where(away <= 4 * CELL, away, np.nan)
    np.testing.assert_allclose(grid["distance"], expected, rtol=1e-6)


def test_a_grid_tells_where_it_comes_from(survey, written, whole):
    z = opened(written)["z"]
    provenance = json.loads(z.attrs.pop("provenance"))
    assert z.attrs.pop("ancillary_variables") == "count spread distance"
    assert provenance["parameters"].pop("side") == 128
    expected = dict(whole.attrs)
    assert provenance == json.loads(expected.pop("provenance"))
    assert z.attrs == expected


def test_layers_can_be_left_out(survey, tmp_path, whole):
    grid = opened(grids.write_grid(survey, tmp_path / "bed.nc", layers=False))
    assert list(grid.data_vars) == ["z"]
    assert "ancillary_variables" not in grid["z"].attrs
    np.testing.assert_array_equal(grid["z"], whole)


def test_picks_without_a_crs_give_a_grid_that_says_so(survey, tmp_path):
    points = survey.copy()
    points.attrs = {}
    for name in ("bed.nc", "bed.zarr"):
        z = opened(grids.write_grid(points, tmp_path / name))["z"]
        assert z.attrs["crs"] == z.attrs["vertical_datum"] == "unknown"


def test_regions_without_a_value_take_no_room(tmp_path):
    two = flight_lines(lines=2, length=5e3, box=(5e3, 5e3))
    two.loc[two.index[::2], "x"] += 4e5
    two.loc[two.index[::2], "y"] += 4e5
    netcdf = grids.write_grid(two, tmp_path / "bed.nc", side=128)
    zarr = grids.write_grid(two, tmp_path / "bed.zarr", side=128)
    assert opened(netcdf)["z"].shape[0] > 1500
    assert netcdf.stat().st_size < 200_000
    assert len(list((zarr / "z" / "c").rglob("*/*"))) <= 4
    np.testing.assert_array_equal(opened(netcdf)["z"], opened(zarr)["z"])


def test_the_result_does_not_depend_on_threads(survey, written, tmp_path):
    path = grids.write_grid(survey, tmp_path / "bed.nc", side=128, threads=3)
    assert sha256(path) == sha256(written)


def test_the_order_of_the_picks_hardly_matters(survey, written, tmp_path):
    shuffled = survey.sample(frac=1, random_state=0)
    path = grids.write_grid(shuffled, tmp_path / "bed.nc", side=128)
    ours, theirs = opened(path), opened(written)
    for name in ("z", "count", "distance"):
        np.testing.assert_array_equal(ours[name], theirs[name])
    np.testing.assert_allclose(ours["spread"], theirs["spread"], rtol=1e-5)


KILLED = """
import os, signal, sys
import pandas as pd
from deepbedmap import grids
points = pd.read_pickle(sys.argv[1])
def tell(done, total):
    if done == 3:
        os.kill(os.getpid(), signal.SIGKILL)
grids.write_grid(points, sys.argv[2], side=128, progress=tell)
"""


def test_a_run_that_was_killed_goes_on_and_gives_the_same_file(
    survey, written, tmp_path, monkeypatch, caplog
):
    survey.to_pickle(tmp_path / "picks.pickle")
    path = tmp_path / "bed.nc"
    command = [sys.executable, "-c", KILLED, str(tmp_path / "picks.pickle"), str(path)]
    assert subprocess.run(command, timeout=120).returncode == -signal.SIGKILL
    assert not path.exists()
    solved = []
    refine = solving.refine

    def counted(*arguments):
        solved.append(arguments[-2])
        return refine(*arguments)

    monkeypatch.setattr(solving, "refine", counted)
    caplog.set_level(logging.INFO, "deepbedmap")
    told = []
    grids.write_grid(survey, path, side=128, progress=lambda *done: told.append(done))
    total = told[0][1]
    assert told == [(done, total) for done in range(3, total + 1)]
    assert len(solved) == total - 3
    assert "resuming an earlier run; finished parts: 3" in caplog.text
    assert sha256(path) == sha256(written)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bed.nc", "picks.pickle"]


@pytest.mark.parametrize("changed", [None, "picks", "spacing", "layers"])
def test_only_the_same_work_is_gone_on_with(survey, written, tmp_path, changed):
    path = tmp_path / "bed.zarr"

    def stop(done, total):
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        grids.write_grid(survey, path, side=128, progress=stop)
    points = survey.copy()
    if changed == "picks":
        points.loc[0, "z"] += 1
    options = {"spacing": {"spacing": 500}, "layers": {"layers": False}}.get(changed, {})
    told = []
    grids.write_grid(points, path, side=128, progress=lambda *done: told.append(done), **options)
    assert told[0][0] == (changed is None)
    if changed is None:
        np.testing.assert_array_equal(opened(path)["z"], opened(written)["z"])


def test_what_is_there_is_replaced_and_a_failure_leaves_it(survey, tmp_path, monkeypatch):
    path = tmp_path / "bed.nc"
    path.write_text("old")
    monkeypatch.setattr(solving, "refine", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        grids.write_grid(survey, path)
    assert path.read_text() == "old"
    monkeypatch.undo()
    grids.write_grid(survey, path)
    assert float(opened(path)["z"].max()) > 100


def test_two_runs_do_not_write_one_file(survey, tmp_path):
    path = tmp_path / "bed.nc"

    def again(done, total):
        with pytest.raises(DeepBedMapError, match="another process is writing it"):
            grids.write_grid(survey, path)

    grids.write_grid(survey, path, progress=again)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"path": "bed.tif"}, "ends in .nc or .zarr"),
        ({"side": 0}, "side 0 must be"),
        ({"side": 700}, "side 700 must be a multiple of 512"),
        ({"max_gap": 60}, "max_gap 60 is too large .* at most 47"),
        ({"tension": 2}, "tension 2 must be from 0 to 1, max_gap 3 at least 0"),
    ],
)
def test_a_wrong_call_is_refused(survey, tmp_path, wrong, said):
    path = tmp_path / wrong.pop("path", "bed.nc")
    with pytest.raises(ValueError, match=said):
        grids.write_grid(survey, path, **wrong)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (lambda points: points[:1], "at least 4 points, found 1"),
        (lambda points: points.assign(z=np.nan), "field z: expected a finite number, found nan"),
        (lambda points: points.assign(x=np.inf), "field x: expected a finite number, found inf"),
        (lambda points: points.assign(x=-75.0, y=-80 + points["y"] / 1e6), "as in degrees"),
    ],
)
def test_unusable_picks_are_refused_and_nothing_is_left(survey, tmp_path, bad, said):
    with pytest.raises(InvalidDataError, match=said) as caught:
        grids.write_grid(bad(survey), tmp_path / "bed.nc")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_region_without_picks_is_refused(survey, tmp_path):
    with pytest.raises(InvalidDataError, match="points in the region"):
        grids.write_grid(survey, tmp_path / "bed.nc", region=(0, 0, 1000, 1000))


@pytest.mark.parametrize("repeats", [4, 5])
def test_one_place_with_several_beds_has_their_median_and_their_spread(tmp_path, repeats):
    z = np.array([10.0, 20, 40, 80, 500][:repeats])
    points = pd.DataFrame({"x": 2600.0, "y": 2700.0, "z": z})
    path = grids.write_grid(points, tmp_path / "bed.nc", region=(0, 0, 5000, 5000), side=8)
    grid = opened(path)
    np.testing.assert_allclose([grid["z"].min(), grid["z"].max()], np.median(z))
    assert int(grid["z"].count()) == 49
    assert int(grid["count"].sum()) == int(grid["count"][10, 10]) == repeats
    np.testing.assert_allclose(grid["spread"].max(), z.std(ddof=1), rtol=1e-6)


def test_a_lone_straight_line_stays_within_its_own_heights(tmp_path):
    t = np.arange(0, 90_000, 100.0)
    z = 500 * np.sin(t / 1500)
    points = pd.DataFrame({"x": 1e6 + t, "y": 0.37 * t, "z": z})
    grid = opened(grids.write_grid(points, tmp_path / "bed.nc", side=64))["z"]
    assert -520 < float(grid.min()) < -400
    assert 400 < float(grid.max()) < 520


def test_a_spike_stays_where_it_is(survey, whole, tmp_path):
    """Alone in its block it is taken for true; among others the median leaves it out."""
    away = survey[["x", "y"]] - [float(whole[axis].mean()) for axis in ("x", "y")]
    blocks = [(survey[axis] - float(whole[axis][0])) // CELL for axis in ("x", "y")]
    size = survey.groupby(blocks)["z"].transform("size")
    for alone in (True, False):
        spiky = survey.copy()
        pick = np.hypot(away["x"], away["y"])[(size == 1) if alone else (size >= 3)].idxmin()
        spiky.loc[pick, "z"] += 10_000
        z = opened(grids.write_grid(spiky, tmp_path / "bed.nc", side=128))["z"]
        x, y = survey.loc[pick, ["x", "y"]]
        cells = np.hypot(whole.x - x, whole.y - y) / CELL
        change = abs(z - whole)
        if alone:
            assert float(change.max()) > 1000
            assert float(change.where(cells > 10).max()) < 1000
            assert float(change.where(cells > 40).max()) < 100
        else:
            assert float(change.max()) < 50


@pytest.fixture
def pipeline(tmp_path):
    """Write the raw files of a survey of two seasons, each a line, and its pipeline."""
    t = np.arange(0, 6000, 100.0)
    for name, y in (("early", 0.2 * t), ("late", 4000 + 0 * t)):
        rows = [f"{x:.0f},{y[i] - 5e5:.0f},{bed(x, y[i]):.2f}" for i, x in enumerate(t)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["X,Y,Z", *rows]) + "\n")

    def write(name, pattern):
        reader = {"type": "readers.text", "filename": pattern, "header": "X,Y,Z", "separator": ","}
        stages = {"pipeline": [reader | {"skip": 1, "override_srs": "EPSG:3031"}]}
        path = tmp_path / name
        path.write_text(json.dumps(stages))
        return path

    return write


def test_the_command_grids_surveys_together(call, pipeline, tmp_path):
    both, early, late = (
        pipeline(f"{name}.json", f"{pattern}.csv")
        for name, pattern in (("both", "*"), ("early", "early"), ("late", "late"))
    )
    for name, arguments in (
        ("one.nc", [both]),
        ("two.zarr", [early, late]),
        ("season.nc", [both, "--season", "late"]),
        ("box.nc", [both, "--bounds", 0, -500_000, 6000, -498_000, "--no-layers"]),
    ):
        code, out, err = call("grid", *arguments, "--out", tmp_path / name)
        assert code == 0, err
        assert err == ""
        grid = opened(tmp_path / name)
        assert f"{name}: {grid.sizes['y']} x {grid.sizes['x']} cells" in out
        assert f" {int(grid['z'].count())} with a bed" in out
    one, two = opened(tmp_path / "one.nc"), opened(tmp_path / "two.zarr")
    assert int(one["count"].sum()) == 120
    for name in ("z", "count", "spread", "distance"):
        np.testing.assert_array_equal(one[name], two[name])
    assert int(opened(tmp_path / "season.nc")["count"].sum()) == 60
    assert list(opened(tmp_path / "box.nc").data_vars) == ["z"]
    for choice, number in (([], 120), (["--season", "late"], 60)):
        code, out, _ = call("evaluate", tmp_path / "one.nc", "--points", both, "--json", *choice)
        assert json.loads(out)["picks"] == number


def test_the_command_says_that_it_goes_on(call, pipeline, tmp_path, monkeypatch, caplog):
    survey = pipeline("survey.json", "*.csv")
    monkeypatch.setattr(out_of_core, "_write_netcdf", lambda *_: 1 / 0)
    code, _, error = call("grid", survey, "--out", tmp_path / "bed.nc")
    assert (code, "ZeroDivisionError" in error) == (1, True)
    monkeypatch.undo()
    assert call("grid", survey, "--out", tmp_path / "bed.nc")[0] == 0
    assert "resuming an earlier run; finished parts: 1" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out", "bed.tif", "--layers"], "--layers"),
        (["--out", "bed.nc", "--layers", "--method", "gmt"], "--layers"),
        (["--out", "bed.zarr", "--method", "gmt"], "--out"),
        (["--out", "bed.nc", "--method", "kriging"], "--method"),
    ],
)
def test_what_a_command_cannot_do_is_refused_before_any_work(call, arguments, said):
    code, _, err = call("grid", "absent", *arguments)
    assert code == 2
    assert said in err
