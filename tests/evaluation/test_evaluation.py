"""Scores of a bed elevation grid at picks, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from deepbedmap import rasters
from deepbedmap.errors import InvalidDataError
from deepbedmap.evaluation import evaluate, relief_along
from deepbedmap.rasters import sampling


def plane(east: float = 0.0, north: float = 0.0, offset: float = 0.0) -> xr.DataArray:
    centres = np.arange(125.0, 20_000, 250)
    values = offset + east * centres + north * centres[:, None]
    return xr.DataArray(values, {"y": centres, "x": centres}, ("y", "x")).rio.write_crs(3031)


def line(z, y: float = 5_000.0, name: str = "a") -> pd.DataFrame:
    x = 1_000 + 100.0 * np.arange(len(z))
    return pd.DataFrame({"x": x, "y": y, "z": z, "line": name})


def test_scores_are_those_worked_out_by_hand():
    picks = line([1.0, -2.0, 3.0, 0.0])
    scores = evaluate(plane(offset=1.0), picks)  # grid minus pick: 0, 3, -2, 1
    assert scores.rmse == pytest.approx(np.sqrt(14 / 4))
    assert scores.mae == pytest.approx(6 / 4)
    assert scores.bias == pytest.approx(2 / 4)
    assert (scores.picks, scores.outside) == (4, 0)


def test_a_grid_is_sampled_bilinearly_at_each_pick():
    picks = line(np.zeros(30))
    picks["z"] = 0.02 * picks["x"] - 0.01 * picks["y"]
    assert evaluate(plane(0.02, -0.01), picks).rmse < 1e-9


def test_a_grid_half_as_rough_as_the_picks_has_a_ratio_of_one_half():
    picks = line(0.02 * np.arange(60) * 100)
    assert evaluate(plane(east=0.01), picks).roughness_ratio == pytest.approx(0.5)


def test_roughness_is_taken_within_lines_and_stretches_and_not_across_them():
    # Two flat lines at different heights, interleaved: nothing is rough within either.
    low, high = line(np.zeros(40), 5_000, "low"), line(np.full(40, 500.0), 6_000, "high")
    low["z"] += 0.01 * np.arange(40)
    high["z"] += 0.01 * np.arange(40)
    picks = pd.concat([low, high]).sort_index(kind="stable")
    grid = plane(east=0.0001)
    assert evaluate(grid, picks).roughness_ratio == pytest.approx(1, rel=1e-6)


def test_picks_without_lines_have_no_roughness_ratio():
    assert np.isnan(evaluate(plane(), line([1.0, 2.0, 3.0]).drop(columns="line")).roughness_ratio)


def test_picks_where_the_grid_has_no_value_are_counted_and_left_out():
    grid = plane().astype(float)
    grid[:, :20] = np.nan
    picks = line(np.full(100, 2.0))
    scores = evaluate(grid, picks)
    assert scores.outside > 0
    assert scores.picks + scores.outside == 100
    assert scores.rmse == pytest.approx(2)


def test_a_grid_on_disk_scores_as_in_memory(tmp_path):
    picks = line(np.arange(20.0))
    path = rasters.write_geotiff(plane(0.001).astype("float32"), tmp_path / "bed.tif")
    assert evaluate(path, picks).rmse == pytest.approx(evaluate(plane(0.001), picks).rmse, rel=1e-4)


def test_picks_in_another_crs_are_refused():
    picks = line([1.0])
    picks.attrs["crs"] = "EPSG:3413"
    with pytest.raises(InvalidDataError, match=r"crs: expected EPSG:3031.*found EPSG:3413"):
        evaluate(plane(), picks)


def test_heights_above_different_surfaces_are_not_compared():
    picks, grid = line([1.0]), plane()
    picks.attrs["vertical_datum"] = "ellipsoid"
    grid.attrs["vertical_datum"] = "EIGEN-6C4"
    with pytest.raises(InvalidDataError, match="vertical_datum"):
        evaluate(grid, picks)


def test_picks_that_the_grid_does_not_cover_are_refused():
    with pytest.raises(InvalidDataError, match="none at any of 2"):
        evaluate(plane(), line([1.0, 2.0], y=-1e6))


def test_picks_that_are_not_finite_are_refused():
    with pytest.raises(InvalidDataError, match="finite"):
        evaluate(plane(), line([1.0, np.nan]))


@pytest.mark.parametrize("chunks", [None, {"x": 7, "y": 9}], ids=["a file", "dask"])
def test_a_grid_is_read_in_parts_with_no_seam_between_them(tmp_path, monkeypatch, chunks):
    random = np.random.default_rng(0)
    grid = plane().copy(data=random.normal(0, 100, (80, 80))).astype("float32")
    picks = pd.DataFrame(random.uniform(-500, 20_500, (3_000, 3)), columns=["x", "y", "z"])
    whole = rasters.sample(grid, picks["x"], picks["y"])
    path = rasters.write_geotiff(grid, tmp_path / "bed.tif")
    read = rasters.open_raster(path) if chunks is None else grid.chunk(chunks)
    read.encoding["preferred_chunks"] = {"x": 16, "y": 16}
    reads = []
    monkeypatch.setattr(sampling, "_PANE", 16)
    monkeypatch.setattr(sampling, "_POINTS", 100)
    plainly = sampling._read
    monkeypatch.setattr(sampling, "_read", lambda *a: reads.append(a[1:3]) or plainly(*a))
    np.testing.assert_array_equal(rasters.sample(read, picks["x"], picks["y"]), whole)
    assert len(reads) >= 25
    assert max(s.stop - s.start for read in reads for s in read) <= 18


def test_points_are_sampled_bicubically_as_a_lattice_is():
    random = np.random.default_rng(0)
    grid = plane().copy(data=random.normal(0, 100, (80, 80)))
    x, y = random.uniform(1_000, 19_000, (2, 20))
    lattice = rasters.interpolate(grid, x, y, "cubic")
    np.testing.assert_allclose(rasters.sample(grid, x, y, "cubic"), np.diag(lattice), rtol=1e-12)


def test_relief_is_that_of_the_stretch_of_the_pick_s_own_line():
    low, rough = line(np.zeros(60), name="low"), line(100.0 * (np.arange(60) % 2), name="rough")
    picks = pd.concat([low, rough]).sort_index(kind="stable")
    relief = relief_along(picks)
    np.testing.assert_allclose(relief[picks["line"] == "low"], 0)
    np.testing.assert_allclose(relief[picks["line"] == "rough"], 50, rtol=0.01)


def test_relief_of_picks_without_lines_is_that_of_their_square():
    random = np.random.default_rng(0)
    x, y = random.uniform(-10_000, 10_000, (2, 500))
    picks = pd.DataFrame({"x": x, "y": y, "z": random.normal(0, 1, 500)})
    west = x < -5_000
    picks["z"] *= np.where(west, 100, 1)
    relief = relief_along(picks)
    square = west & (y >= 5_000)
    np.testing.assert_allclose(relief[square], np.std(picks["z"][square]))
    assert relief[~west].max() < 2
    assert np.isnan(relief_along(picks[:2])).all()


def test_lines_of_one_name_from_two_surveys_are_two():
    picks = pd.concat([line(np.zeros(10)), line(np.ones(10))], ignore_index=True)
    assert evaluate(plane(), picks).lines == 1
    assert evaluate(plane(), picks.assign(source=["one"] * 10 + ["two"] * 10)).lines == 2


def test_no_picks_at_all_are_refused():
    with pytest.raises(InvalidDataError, match="expected some, found none"):
        evaluate(plane(), line([]))


def test_a_raster_without_nodata_is_refused_but_not_netcdf(tmp_path):
    grid = plane(0.001).astype("float32")
    grid.rio.to_raster(tmp_path / "bed.tif")
    with pytest.raises(InvalidDataError, match="field nodata"):
        evaluate(tmp_path / "bed.tif", line([1.0, 2.0]))
    path = rasters.write_netcdf(grid, tmp_path / "bed.nc")
    assert evaluate(path, line([1.0, 2.0])).picks == 2
