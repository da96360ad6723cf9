"""Roughness along lines and as a map, against what is known of made-up beds."""

from __future__ import annotations

import dask.array
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from deepbedmap import rasters
from deepbedmap.errors import InvalidDataError
from deepbedmap.evaluation import roughness_map, roughness_ratio
from deepbedmap.points.roughness import roughness_along


def line(z, grid=None, name: str = "a", step: float = 100.0, y: float = 0.0) -> pd.DataFrame:
    z = np.asarray(z, float)
    grid = z if grid is None else grid
    x = step * np.arange(z.size)
    return pd.DataFrame({"x": x, "y": y, "line": name, "z": z, "grid": grid})


def bed(values) -> xr.DataArray:
    values = np.asarray(values, float)
    rows, columns = values.shape
    axes = {"y": -250.0 * np.arange(rows), "x": 250.0 * np.arange(columns)}
    return xr.DataArray(values, axes, ("y", "x"), "bed", {"vertical_datum": "ellipsoid"})


def test_a_stretch_is_1250_metres_of_a_line_and_its_roughness_the_standard_deviation():
    z = np.random.default_rng(0).normal(size=26)  # 2.5 km and one pick of a third stretch
    found = roughness_along(line(z))
    assert found["picks"].tolist() == [13, 12]
    assert found["z"].tolist() == pytest.approx([z[:13].std(), z[13:25].std()], abs=1e-12)
    assert found["distance"].tolist() == pytest.approx([600, 1850])
    assert found["x"].tolist() == pytest.approx([600, 1850])


def test_lines_are_rough_each_for_itself_even_where_their_picks_alternate():
    low, high = line([0.0] * 40, name="low"), line([500.0] * 40, name="high", y=900.0)
    mixed = pd.concat([low, high]).sort_index(kind="stable")
    assert roughness_along(mixed)["z"].max() == 0


def test_the_ratio_is_that_of_the_means_over_all_stretches():
    steep, gentle = 10 * np.arange(13.0), np.arange(13.0)
    picks = pd.concat([line(steep, 0.5 * steep, "a"), line(gentle, 2 * gentle, "b", y=500.0)])
    assert roughness_ratio(picks) == pytest.approx((0.5 * 10 + 2) / 11)


def test_without_a_stretch_or_with_level_picks_there_is_no_ratio():
    assert np.isnan(roughness_ratio(line([1.0, 2.0])))
    assert np.isnan(roughness_ratio(line([0.1] * 20, np.arange(20.0))))


def test_picks_without_a_value_of_the_grid_are_left_out():
    z = np.random.default_rng(1).normal(size=13)
    grid = z.copy()
    grid[4] = np.nan
    found = roughness_along(line(z, grid))
    assert found["picks"].tolist() == [12]
    assert found["z"][0] == pytest.approx(np.delete(z, 4).std())


def test_a_grid_that_covers_no_pick_is_refused():
    with pytest.raises(InvalidDataError, match=r"none of 20.*same area"):
        roughness_ratio(line(np.zeros(20), np.nan))


def test_picks_in_degrees_are_refused():
    picks = line(np.arange(20.0))
    picks.attrs["crs"] = "EPSG:4326"
    with pytest.raises(InvalidDataError, match="crs: expected a CRS in metres, found EPSG:4326"):
        roughness_ratio(picks)


def test_picks_without_lines_are_a_wrong_call():
    with pytest.raises(ValueError, match="line"):
        roughness_ratio(line(np.arange(20.0)).drop(columns="line"))


def test_the_map_is_that_of_the_original(shared_reference):
    grid = np.load(shared_reference / "79N_grid.npz")
    expected = np.load(shared_reference / "79N_roughness.npz")["sd"]
    found = roughness_map(xr.DataArray(grid["z"], {"y": grid["y"], "x": grid["x"]}, ("y", "x")))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    np.testing.assert_allclose(found, expected, atol=1e-4)


@given(st.integers(0, 1000), st.sampled_from([1, 3, 5]), st.integers(2, 9), st.integers(2, 9))
def test_the_map_is_numpys_standard_deviation_of_what_is_known(seed, size, rows, columns):
    random = np.random.default_rng(seed)
    values = random.normal(-1000, 100, (rows, columns))
    values[random.random(values.shape) < 0.3] = np.nan
    found, half = roughness_map(bed(values), size).to_numpy(), size // 2
    for row, column in np.ndindex(rows, columns):
        window = values[
            max(row - half, 0) : row + half + 1, max(column - half, 0) : column + half + 1
        ]
        known = window[np.isfinite(window)]
        expected = known.std() if known.size else np.nan
        assert found[row, column] == pytest.approx(expected, abs=1e-4, nan_ok=True)


def test_a_level_bed_far_below_the_sea_is_not_rough_by_rounding():
    assert roughness_map(bed(np.full((9, 9), -3456.789))).max() < 1e-9


def test_a_chunked_map_is_lazy_and_the_same_as_a_whole_one():
    values = np.random.default_rng(0).normal(size=(37, 41))
    values[10:20, 5:9] = np.nan
    whole, asked = roughness_map(bed(values)), []

    def block(cells):
        asked.append(cells.shape)
        return cells

    chunked = bed(values).chunk({"y": 8, "x": 11})
    chunked.data = dask.array.map_blocks(block, chunked.data, meta=np.empty((0, 0)))
    found = roughness_map(chunked)
    assert not asked
    assert found.chunks == chunked.chunks
    np.testing.assert_array_equal(found, whole)
    assert max(rows for rows, _ in asked) <= 8


def test_the_map_keeps_place_and_says_what_it_is():
    found = roughness_map(bed(np.zeros((6, 6))).rio.write_crs(3031))
    assert rasters.crs_of(found).to_epsg() == 3031
    assert found.attrs["units"] == "m"
    assert "vertical_datum" not in found.attrs


@pytest.mark.parametrize("size", [0, 4])
def test_a_window_without_a_middle_is_a_wrong_call(size):
    with pytest.raises(ValueError, match="odd"):
        roughness_map(bed(np.zeros((6, 6))), size)
