from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
import shapely
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from deepbedmap import rasters, tiles
from deepbedmap.errors import InvalidDataError, MissingDataError

CRS = "EPSG:3031"
EDGES = ["xmin", "ymin", "xmax", "ymax"]


def raster(values, *, cell=500.0, west=-3000.0, north=9000.0, ascending=False, crs=CRS):
    """Cells from the north-west corner on; values (y, x) from north to south."""
    values = np.asarray(values)
    y = north - (np.arange(values.shape[-2]) + 0.5) * cell
    x = west + (np.arange(values.shape[-1]) + 0.5) * cell
    array = xr.DataArray(values, {"y": y, "x": x}, dims=("band", "y", "x")[-values.ndim :])
    array.name = "bed"
    if ascending:
        array = array.isel(y=slice(None, None, -1))
    return array.rio.write_crs(crs) if crs else array


def plane(x, y):
    return 10 + 0.25 * np.asarray(x) - 0.5 * np.asarray(y)


def plane_raster(rows=20, columns=24, **options):
    empty = raster(np.zeros((rows, columns)), **options)
    return empty.copy(data=plane(*np.meshgrid(empty.x, empty.y)))


def centres(window, cell):
    xmin, ymin, xmax, ymax = window
    return np.meshgrid(
        np.arange(xmin + cell / 2, xmax, cell), np.arange(ymin + cell / 2, ymax, cell)[::-1]
    )


both_ways = pytest.mark.parametrize("ascending", [False, True], ids=["y falls", "y rises"])
WINDOWS = [(-1000, 2000, 3000, 6000), (250, 1250, 4250, 5250)]


def test_the_reference_grid_has_its_418_windows_in_order(shared_reference):
    with np.load(shared_reference / "79N_grid.npz") as file:
        grid = xr.DataArray(file["z"], {"y": file["y"], "x": file["x"]})
        expected = file["windows"]
    assert expected.shape == (418, 4)
    np.testing.assert_array_equal(tiles.find_windows(grid)[EDGES], expected)


@settings(deadline=None, max_examples=60)
@given(
    mask=st.tuples(st.integers(2, 9), st.integers(2, 9)).flatmap(
        lambda shape: arrays(bool, shape, elements=st.integers(0, 9).map(lambda n: n > 0))
    ),
    size=st.integers(1, 5),
    step=st.integers(1, 4),
    coverage=st.sampled_from([1.0, 0.75, 0.5, 0.01]),
    ascending=st.booleans(),
)
def test_windows_are_those_of_a_plain_search(mask, size, step, coverage, ascending):
    grid = raster(np.where(mask, 1.0, np.nan), cell=250, west=0, north=0, ascending=ascending)
    expected = [
        (column * 250, -(row + size) * 250, (column + size) * 250, -row * 250)
        for row in range(0, mask.shape[0] - size + 1, step)
        for column in range(0, mask.shape[1] - size + 1, step)
        if mask[row : row + size, column : column + size].mean() >= coverage
    ]
    found = tiles.find_windows(grid, size=size, step=step, coverage=coverage)
    np.testing.assert_array_equal(found[EDGES], np.reshape(expected, (-1, 4)))
    assert (found.coverage >= coverage).all()


def test_windows_are_boxes_in_the_crs_of_the_grid():
    windows = tiles.find_windows(plane_raster(), size=18, step=1)
    assert windows.crs == CRS
    np.testing.assert_array_equal(windows.bounds, windows[EDGES])
    assert (windows.coverage == 1).all()
    assert tiles.find_windows(plane_raster(crs=None), size=18).crs is None


def test_a_grid_smaller_than_a_window_has_none():
    windows = tiles.find_windows(plane_raster(rows=35), size=36)
    assert len(windows) == 0
    assert [*EDGES, "coverage", "geometry"] == list(windows.columns)


@pytest.mark.parametrize("wrong", [{"size": 0}, {"step": 0}, {"coverage": 0}, {"coverage": 1.1}])
def test_impossible_windows_are_a_wrong_call(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        tiles.find_windows(plane_raster(), **wrong)


@both_ways
@pytest.mark.parametrize("method", ["linear", "cubic"])
@pytest.mark.parametrize(("padding", "resolution"), [(0, None), (1000, 250), (500, 1000)])
def test_a_plane_is_recovered_in_every_tile(ascending, method, padding, resolution):
    found = tiles.cut_tiles(
        plane_raster(ascending=ascending),
        WINDOWS,
        padding=padding,
        resolution=resolution,
        method=method,
    )
    cell = resolution or 500
    assert found.dtype == "float32"
    assert found.shape == (2, 1, *[int((4000 + 2 * padding) / cell)] * 2)
    for window, tile in zip(WINDOWS, found, strict=True):
        padded = np.add(window, (-padding, -padding, padding, padding))
        np.testing.assert_allclose(tile[0], plane(*centres(padded, cell)), rtol=0, atol=1e-3)


def test_nearest_takes_whole_cells():
    values = np.arange(480).reshape(20, 24)
    found = tiles.cut_tiles(
        raster(values), [(-3000, 8000, -2000, 9000)], resolution=250, method="nearest"
    )
    np.testing.assert_array_equal(found[0, 0], np.kron([[0, 1], [24, 25]], np.ones((2, 2))))


@pytest.mark.parametrize("method", ["nearest", "linear", "cubic"])
def test_a_constant_stays_constant_up_to_the_edges(method):
    grid = raster(np.full((2, 6, 6), [[[3.5]], [[-7]]]), west=0, north=3000)
    found = tiles.cut_tiles(grid, [(0, 0, 3000, 3000)], resolution=100, method=method)
    np.testing.assert_allclose(found, np.broadcast_to([[[3.5]], [[-7]]], (1, 2, 30, 30)), rtol=1e-6)


def test_boxes_arrays_and_files_give_the_same_tiles(tmp_path):
    grid = plane_raster().astype("float32")
    boxes = gpd.GeoDataFrame(geometry=[shapely.box(*window) for window in WINDOWS], crs=CRS)
    expected = tiles.cut_tiles(grid, np.array(WINDOWS))
    for path in (
        rasters.write_geotiff(grid, tmp_path / "grid.tif"),
        rasters.write_netcdf(grid, tmp_path / "grid.nc"),
    ):
        np.testing.assert_array_equal(tiles.cut_tiles(path, boxes), expected)
        np.testing.assert_array_equal(tiles.cut_tiles(str(path), WINDOWS), expected)


# Cells of the reference that nodata of the raster entered: raw -9999 where the centres agree,
# blends of it and heights elsewhere; in the third, 0 where it had filled raw ones.
@pytest.mark.parametrize(
    ("name", "key", "options", "raw", "tiles_with_raw", "blends"),
    [
        ("bed", "bed_500m_pad1000", {"padding": 1000}, -9999, 10, 65),
        ("surface", "surface_250m_pad1000", {"padding": 1000, "resolution": 250}, -9999, 0, 0),
        ("surface_hole", "hole_gapfilled_0", {"padding": 1000}, 0, None, 22),
    ],
)
def test_tiles_are_those_of_the_original_where_it_blended_no_nodata(
    shared_data, shared_reference, name, key, options, raw, tiles_with_raw, blends
):
    with np.load(shared_reference / "tiles.npz") as file:
        windows, expected = file["windows"], file[key]
    path = shared_data / "byrd" / f"{name}.tif"
    found = tiles.cut_tiles(path, windows, **options)
    assert found.shape == expected.shape
    hole = np.isnan(found)
    np.testing.assert_allclose(found[~hole], expected[~hole], rtol=0, atol=1e-3)
    assert (hole & (expected != raw)).sum() == blends
    if tiles_with_raw is not None:
        assert (hole & (expected == raw)).any(axis=(1, 2, 3)).sum() == tiles_with_raw
    filled = tiles.cut_tiles(path, windows, fill=0, **options)
    np.testing.assert_array_equal(filled, np.where(hole, 0, found))


def grid_with_hole():
    values = plane_raster().to_numpy().copy()
    values[8, 10] = np.nan
    return raster(values)


def test_nodata_becomes_nan_or_the_fill_and_touches_no_other_cell():
    window = [(-1000, 2000, 5000, 8000)]
    on_centres = tiles.cut_tiles(grid_with_hole(), window)
    assert np.argwhere(np.isnan(on_centres)).tolist() == [[0, 0, 6, 6]]
    between = np.add(window, (250, 250, -250, -250))
    filled = tiles.cut_tiles(grid_with_hole(), between, fill=-7)
    whole = tiles.cut_tiles(plane_raster(), between)
    assert (filled == -7).sum() == 4
    np.testing.assert_array_equal(filled[filled != -7], whole[filled != -7])


def test_raw_nodata_counts_as_nodata():
    grid = grid_with_hole().fillna(-9999).rio.write_nodata(-9999)
    assert np.isnan(tiles.cut_tiles(grid, [(-1000, 2000, 5000, 8000)])).sum() == 1


def test_nodata_can_be_an_error_that_says_where(tmp_path):
    path = rasters.write_geotiff(grid_with_hole(), tmp_path / "bed.tif")
    windows = [(-3000, 0, -1000, 2000), (1000, 3000, 3000, 5000)]
    said = r"bed\.tif, window 1: .*found nodata at x = 2250, y = 4750"
    with pytest.raises(InvalidDataError, match=said) as caught:
        tiles.cut_tiles(path, windows, fill="error")
    assert "\n" not in str(caught.value)
    assert tiles.cut_tiles(path, windows[:1], fill="error").shape == (1, 1, 4, 4)
    with pytest.raises(ValueError, match="fill"):
        tiles.cut_tiles(path, windows, fill="mean")


def test_a_window_that_leaves_the_raster_is_named_with_the_bounds():
    inside = (-3000, 7000, -1000, 9000)
    assert np.isfinite(tiles.cut_tiles(plane_raster(), [inside])).all()
    said = r"bed, window 1: .*bounds \(-3000, -1000, 9000, 9000\), found \(-3250, 6750, .*\)"
    with pytest.raises(InvalidDataError, match=said):
        tiles.cut_tiles(plane_raster(), [(0, 3000, 2000, 5000), inside], padding=250)


def test_rasters_and_windows_need_one_crs():
    boxes = gpd.GeoDataFrame(geometry=[shapely.box(*WINDOWS[0])], crs="EPSG:3413")
    with pytest.raises(InvalidDataError, match=r"bed.*EPSG:3413 as of the windows, found EPSG:303"):
        tiles.cut_tiles(plane_raster(), boxes)
    with pytest.raises(InvalidDataError, match=r"bed, field crs.*found none"):
        tiles.cut_tiles(plane_raster(crs=None), WINDOWS)
    with pytest.raises(MissingDataError, match=r"absent\.tif"):
        tiles.cut_tiles("absent.tif", WINDOWS)


@pytest.mark.parametrize(
    "windows",
    [
        [(0, 0, 1200, 1000)],
        [(0, 0, 1000, 1000), (0, 0, 1500, 1000)],
        [(1000, 1000, 0, 0)],
        (0, 0, 1000, 1000),
    ],
)
def test_windows_of_no_common_size_are_a_wrong_call(windows):
    with pytest.raises(ValueError, match="windows"):
        tiles.cut_tiles(plane_raster(), windows)


def scattered_windows(seed, count=300, extent=400_000):
    west, south = np.random.default_rng(seed).integers(0, extent // 250, (2, count)) * 250.0
    return gpd.GeoDataFrame(
        geometry=shapely.box(west, south, west + 9000, south + 9000),
        index=[f"w{number}" for number in range(count)],
        crs=CRS,
    )


@settings(deadline=None, max_examples=20)
@given(
    seed=st.integers(0, 1000),
    block=st.sampled_from([20_000, 40_000, 90_000]),
    validation=st.floats(0.05, 0.4),
    buffer=st.sampled_from([0, 11_000, 25_000]),
)
def test_training_windows_keep_their_distance_from_validation(seed, block, validation, buffer):
    windows = scattered_windows(seed)
    part = tiles.split(windows, block=block, validation=validation, buffer=buffer, seed=seed)
    assert part.index.equals(windows.index)
    assert list(part.cat.categories) == ["train", "validation", "dropped"]
    train, held_out = (windows.bounds[part == name].to_numpy() for name in ("train", "validation"))
    assert len(train)
    assert len(held_out)
    gap = np.maximum(train[:, None, :2] - held_out[:, 2:], held_out[:, :2] - train[:, None, 2:])
    assert np.hypot(*np.moveaxis(gap.clip(0), -1, 0)).min() >= buffer


def test_only_windows_near_validation_are_dropped_and_the_share_is_met():
    windows = scattered_windows(3)
    part = tiles.split(windows, block=40_000, validation=0.2)
    held_out = windows.geometry[part == "validation"].union_all()
    assert (windows.geometry[part == "dropped"].distance(held_out) <= 11_000).all()
    assert (part == "validation").mean() == pytest.approx(0.2, abs=0.03)


def test_a_split_follows_its_seed():
    windows = scattered_windows(0)
    first, again, other = (tiles.split(windows, seed=seed) for seed in (1, 1, 2))
    assert first.equals(again)
    assert not first.equals(other)


def test_a_split_that_leaves_nothing_to_train_on_is_refused():
    windows = scattered_windows(0, count=20, extent=5000)
    with pytest.raises(InvalidDataError, match="some windows to train on, found none of 20"):
        tiles.split(windows)
    with pytest.raises(ValueError, match="validation"):
        tiles.split(windows, validation=1)


def test_no_windows_give_no_tiles():
    raster = xr.DataArray(np.ones((4, 4)), {"y": np.arange(4.0), "x": np.arange(4.0)}, ("y", "x"))
    none = tiles.find_windows(raster.where(raster > 1), size=2)
    assert tiles.cut_tiles(raster.rio.write_crs(3031), none).shape == (0, 1, 0, 0)
