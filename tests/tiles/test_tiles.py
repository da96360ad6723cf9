from __future__ import annotations

import json
import tracemalloc

import geopandas as gpd
import geopandas.testing
import numpy as np
import pyproj
import pytest
import rasterio
import shapely
import xarray as xr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from support import sheets
from support.sheets import CRS, both_ways, plane

from deepbedmap import places, rasters, tiles
from deepbedmap.errors import InvalidDataError, MissingDataError
from deepbedmap.tiles import placement

EDGES = ["xmin", "ymin", "xmax", "ymax"]
CORNER = {"cell": 500.0, "west": -3000.0, "north": 9000.0}


def raster(values, **options):
    return sheets.raster(values, **(CORNER | options)).rename("bed")


def plane_raster(rows=20, columns=24, **options):
    return sheets.plane_raster(rows, columns, **(CORNER | options)).rename("bed")


def centres(window, cell):
    xmin, ymin, xmax, ymax = window
    return np.meshgrid(
        np.arange(xmin + cell / 2, xmax, cell), np.arange(ymin + cell / 2, ymax, cell)[::-1]
    )


WINDOWS = [(-1000, 2000, 3000, 6000), (250, 1250, 4250, 5250)]


def test_the_reference_grid_has_its_418_windows_in_order(shared_reference):
    with np.load(shared_reference / "79N_grid.npz") as file:
        grid = xr.DataArray(file["z"], {"y": file["y"], "x": file["x"]})
        expected = file["windows"]
    assert expected.shape == (418, 4)
    np.testing.assert_array_equal(tiles.find_windows(grid)[EDGES], expected)


@settings(deadline=None, max_examples=40)
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


@pytest.mark.parametrize("chunks", [{"y": 8, "x": 32}, {"y": 50, "x": 110}, None])
@pytest.mark.parametrize(("size", "step"), [(12, 3), (3, 1), (2, 11), (40, 7), (90, 1), (91, 1)])
@both_ways
def test_windows_of_a_grid_in_stripes_are_those_of_the_whole(
    monkeypatch, tmp_path, ascending, size, step, chunks
):
    grid = rough_raster(ascending=ascending)
    expected = tiles.find_windows(grid, size, step, coverage=0.97)
    monkeypatch.setattr(placement, "_MEMORY", 10 * 110 * placement._STRIPE_BYTES)
    if chunks is None:
        lazy, counts = rasters.open_raster(rasters.write_netcdf(grid, tmp_path / "grid.nc")), {}
    else:
        lazy, counts = counted(grid, chunks)
    found = tiles.find_windows(lazy, size, step, coverage=0.97)
    gpd.testing.assert_geodataframe_equal(found, expected)
    assert set(counts.values()) <= {1}, "each chunk is read once"


@pytest.mark.parametrize("stored", ["dask", "file"])
def test_a_large_grid_is_never_whole_in_memory(monkeypatch, tmp_path, stored):
    path = tmp_path / "large.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=1200, height=1600, count=1, dtype="float32", crs=CRS,
        transform=Affine(250, 0, 0, 0, -250, 0), tiled=True, sparse_ok=True, nodata=-1,
        blockxsize=64, blockysize=64,
    ) as file:  # fmt: skip
        surveyed = rasterio.windows.Window(640, 768, 64, 64)
        file.write(np.full((1, 64, 64), -500, "float32"), window=surveyed)
    monkeypatch.setattr(placement, "_MEMORY", 1e6)
    grid = rasters.open_raster(path)
    with rasterio.open(path) as file:
        values = file.read(1)
    expected = tiles.find_windows(raster(values, cell=250, west=0, north=0).where(values != -1))
    if stored == "dask":
        grid = grid.fillna(np.nan).chunk({"y": 64, "x": 512})
    tiles.find_windows(grid[:100])  # modules that are loaded late take memory too
    tracemalloc.start()
    try:
        found = tiles.find_windows(grid)
        masks = tiles.masks(grid, found)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(found) == 90
    np.testing.assert_array_equal(found[EDGES], expected[EDGES])
    assert masks.all()
    assert peak < 3.5e6 < values.nbytes / 2


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
    windows = [(-3000, 0, -1000, 2000), (1000, 3000, 3000, 5000), (1000, 3500, 3000, 5500)]
    message = r"bed\.tif, window 1: .*found nodata at x = 2250, y = 4750"
    with pytest.raises(InvalidDataError, match=message) as caught:
        tiles.cut_tiles(path, windows, fill="error")
    assert "\n" not in str(caught.value)
    assert tiles.cut_tiles(path, windows[:1], fill="error").shape == (1, 1, 4, 4)
    with pytest.raises(ValueError, match="fill"):
        tiles.cut_tiles(path, windows, fill="mean")


def test_a_window_that_leaves_the_raster_is_named_with_the_bounds():
    inside = (-3000, 7000, -1000, 9000)
    assert np.isfinite(tiles.cut_tiles(plane_raster(), [inside])).all()
    message = r"bed, window 1: .*bounds \(-3000, -1000, 9000, 9000\), found \(-3250, 6750, .*\)"
    with pytest.raises(InvalidDataError, match=message):
        tiles.cut_tiles(plane_raster(), [(0, 3000, 2000, 5000), inside], padding=250)


def test_rasters_and_windows_need_one_crs():
    boxes = gpd.GeoDataFrame(geometry=[shapely.box(*WINDOWS[0])], crs="EPSG:3413")
    with pytest.raises(InvalidDataError, match=r"bed.*EPSG:3413 as in the windows, found EPSG:303"):
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


def boxes_at(west, south, width=9000, **columns):
    west, south = np.asarray(west, float), np.asarray(south, float)
    return gpd.GeoDataFrame(
        columns, geometry=shapely.box(west, south, west + width, south + width), crs=CRS
    )


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 1000),
    sizes=st.lists(st.integers(1, 40), min_size=2, max_size=6),
    validation=st.floats(0.05, 0.5),
)
def test_no_survey_and_no_neighbour_is_on_both_sides_of_a_split_by_survey(seed, sizes, validation):
    rng = np.random.default_rng(seed)
    survey = np.repeat([f"survey {number}" for number in range(len(sizes))], sizes)
    middle = np.repeat(rng.integers(0, 5_000_000, (2, len(sizes))), sizes, axis=1)
    west, south = middle + rng.integers(0, 60_000, middle.shape)
    windows = boxes_at(west, south, survey=survey)
    try:
        part = tiles.split(windows, by="survey", validation=validation, seed=seed)
    except InvalidDataError as error:
        assert "some windows to train on" in str(error)  # noqa: PT017 a legitimate outcome
        return
    train, held_out = windows[part == "train"], windows[part == "validation"]
    assert not set(train["survey"]) & set(held_out["survey"])
    assert (train.distance(held_out.union_all()) >= 11_000).all()
    lone = windows[part == "dropped"].distance(held_out.union_all())
    assert (lone <= 11_000).all()


def test_a_split_by_survey_meets_the_share_as_surveys_allow():
    windows = boxes_at(np.arange(100) * 100_000, 0, survey=["big"] * 70 + ["a", "b", "c"] * 10)
    for seed in range(5):
        part = tiles.split(windows, by="survey", validation=0.2, seed=seed)
        assert (part == "validation").sum() in (20, 30, 10)
        assert "big" not in set(windows["survey"][part == "validation"])
    two = windows[windows["survey"].isin(["big", "a"])]
    assert set(two["survey"][tiles.split(two, by="survey", validation=0.01) == "validation"]) == {
        "a"
    }


def test_a_split_holds_out_the_surveys_it_names_and_drops_their_neighbours():
    west = [0, 15_000, 100_000, 200_000]
    windows = boxes_at(west, 0, survey=["one", "two", "two", "three"])
    part = tiles.split(windows, by="survey", validation=["one"])
    assert part.tolist() == ["validation", "dropped", "train", "train"]
    part = tiles.split(windows, by="survey", validation=["one", "three"])
    assert part.tolist() == ["validation", "dropped", "train", "validation"]


def test_surveys_to_hold_out_must_have_windows_and_need_a_split_by_survey():
    windows = boxes_at([0, 100_000], 0, survey=["MadeUp1", "MadeUp2"])
    with pytest.raises(InvalidDataError, match=r"windows of MadeUp3 .*did you mean MadeUp"):
        tiles.split(windows, by="survey", validation=["MadeUp3"])
    with pytest.raises(ValueError, match='only with by="survey"'):
        tiles.split(windows, by="block", validation=["MadeUp1"])


def test_a_split_with_an_empty_part_or_an_unknown_survey_is_refused():
    windows = boxes_at(np.arange(4) * 100_000, 0, survey=["one"] * 4)
    with pytest.raises(InvalidDataError, match="some windows to train on, found none of 4"):
        tiles.split(windows, by="survey")
    with pytest.raises(InvalidDataError, match="some windows to validate with, found none of 0"):
        tiles.split(windows[:0])
    with pytest.raises(InvalidDataError, match=r"entry 2, field survey"):
        tiles.split(windows.assign(survey=["one", "two", None, "two"]), by="survey")
    with pytest.raises(ValueError, match="column survey"):
        tiles.split(windows.drop(columns="survey"), by="survey")
    with pytest.raises(ValueError, match="by must be"):
        tiles.split(windows, by="line")


@pytest.fixture
def many_panes(monkeypatch):
    """Read in parts of 16 cells, so that a small raster has many of them."""
    monkeypatch.setattr(placement, "_PANE", 16)


def rough_raster(rows=90, columns=110, holes=0.01, **options):
    rng = np.random.default_rng(1)
    values = 3000 * rng.normal(size=(rows, columns))
    return raster(np.where(rng.random(values.shape) < holes, np.nan, values), cell=100, **options)


@pytest.mark.usefixtures("many_panes")
@both_ways
@pytest.mark.parametrize("method", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("resolution", [None, 50, 250])
def test_windows_cut_together_are_those_cut_alone(tmp_path, ascending, method, resolution):
    grid = rough_raster(ascending=ascending).astype("float32")
    path = tmp_path / "grid.tif"
    grid.rio.to_raster(path, tiled=True, blockxsize=16, blockysize=16, compress="lzw")
    west, south, *_ = rasters.bounds_of(grid)
    rng = np.random.default_rng(2)
    regular = [(75 * i, 325 * j) for i in range(0, 100, 14) for j in range(0, 20, 2)]
    lower = rng.permutation(np.concatenate([regular, rng.uniform(0, 7000, (20, 2))]))
    x, y = west + lower[:, 0], south + lower[:, 1]
    windows = np.stack([x, y, x + 2000, y + 2000], axis=1)
    found = tiles.cut_tiles(path, windows, resolution=resolution, method=method)
    cell = resolution or 100
    for window, tile in zip(windows, found, strict=True):
        x = window[0] + (np.arange(2000 / cell) + 0.5) * cell
        y = window[3] - (np.arange(2000 / cell) + 0.5) * cell
        alone = rasters.interpolate(grid, x, y, method)
        np.testing.assert_allclose(tile[0], alone, rtol=0, atol=1e-3)


def counted(grid, chunk):
    """The grid in chunks of which it is counted how often each is read."""
    counts = {}

    def count(values, block_info=None):
        place = tuple(block_info[0]["chunk-location"])
        counts[place] = counts.get(place, 0) + 1
        return values

    chunks = grid.chunk(chunk if isinstance(chunk, dict) else {"x": chunk, "y": chunk})
    return chunks.copy(data=chunks.data.map_blocks(count, dtype=grid.dtype)), counts


@pytest.mark.parametrize(("pane", "times"), [(512, 1), (1, 4)])
def test_each_block_is_read_once_for_all_windows_near_it(monkeypatch, pane, times):
    monkeypatch.setattr(placement, "_PANE", pane)
    grid, counts = counted(rough_raster(), 32)
    west, south, *_ = rasters.bounds_of(grid)
    steps = np.arange(0, 2600, 150)
    lower = np.stack(np.meshgrid(west + steps, south + 5800 - steps), axis=-1).reshape(-1, 2)
    windows = np.concatenate([lower, lower + 3000], axis=1)
    assert len(tiles.cut_tiles(grid, windows)) == 324
    assert max(counts.values()) <= times, "once, or once for each of the panes that meet there"
    assert len(counts) == 4, "blocks that no window touches are not read"


@pytest.mark.parametrize("filler", [False, True])
def test_memory_is_bounded_by_parts_not_by_the_raster(monkeypatch, filler):
    grid = rough_raster(2200, 2200)
    coarse = raster(np.zeros((1100, 1100)), cell=200) if filler else None
    west, south, *_ = rasters.bounds_of(grid)
    steps = np.arange(0, 217_000, 7000)
    x, y = (edges.ravel() for edges in np.meshgrid(west + steps, south + steps))
    windows = np.stack([x, y, x + 3000, y + 3000], axis=1)
    tiles.cut_tiles(grid, windows[:1])
    monkeypatch.setattr(placement, "_PANE", 10_000)
    monkeypatch.setattr(placement, "_MEMORY", 8e6)
    tracemalloc.start()
    try:
        found = tiles.cut_tiles(grid, windows, filler=coarse)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak - found.nbytes < 8e6 < grid.nbytes / 2


@both_ways
def test_a_filler_gives_what_the_raster_has_no_value_for_and_nothing_else(ascending):
    values = plane_raster().to_numpy().copy()
    values[6:12, 8:14] = np.nan
    fine = raster(values, ascending=ascending)
    coarse = plane_raster(10, 12, cell=1000, ascending=not ascending)
    window = [(-1000, 2000, 5000, 8000)]
    options = {"resolution": 250, "filler": coarse + 100}
    holes = np.isnan(tiles.cut_tiles(fine, window, resolution=250))
    assert holes.any()
    assert not holes.all()
    expected = plane(*centres(window[0], 250)) + 100 * holes
    found = tiles.cut_tiles(fine, window, **options, fill="error")
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)


def test_what_the_filler_has_no_value_for_is_a_hole_still():
    small = raster(np.full((3, 24), 7.0), cell=500, north=5500)  # its middle row is the hole's
    window = [(-1000, 2000, 5000, 8000)]
    found = tiles.cut_tiles(grid_with_hole(), np.add(window, 0), filler=small)
    assert (found == 7).sum() == 1
    away = raster(np.full((3, 24), 7.0), cell=500, north=3000)
    assert np.isnan(tiles.cut_tiles(grid_with_hole(), window, filler=away)).sum() == 1
    assert (tiles.cut_tiles(grid_with_hole(), window, filler=away, fill=-7) == -7).sum() == 1
    with pytest.raises(InvalidDataError, match=r"nodata at x = 2250, y = 4750.* or a filler"):
        tiles.cut_tiles(grid_with_hole(), window, filler=away, fill="error")


@pytest.mark.usefixtures("many_panes")
def test_a_filler_is_read_only_where_it_is_needed():
    values = np.zeros((128, 128))
    values[5, 5] = np.nan
    filler, counts = counted(raster(np.ones((64, 64)), cell=1000), 8)
    lower = np.arange(-3000, 60_000, 4000.0)
    west, north = (edges.ravel() for edges in np.meshgrid(lower, 6000 - lower))
    windows = np.stack([west, north - 4000, west + 4000, north], axis=1)
    found = tiles.cut_tiles(raster(values), windows, filler=filler)
    assert (found == 1).sum() == 1
    assert set(counts) <= {(0, 0), (0, 1), (1, 0), (1, 1)}, "of 8 x 8 blocks"


def test_a_filler_must_refer_to_what_the_raster_refers_to():
    grid, window = grid_with_hole(), [(-1000, 2000, 5000, 8000)]
    with pytest.raises(InvalidDataError, match="EPSG:3413"):
        tiles.cut_tiles(grid, window, filler=plane_raster(crs="EPSG:3413"))
    above_geoid = plane_raster().assign_attrs(vertical_datum="EIGEN-6C4")
    grid.attrs["vertical_datum"] = "ellipsoid"
    with pytest.raises(InvalidDataError, match="vertical_datum"):
        tiles.cut_tiles(grid, window, filler=above_geoid)
    with pytest.raises(ValueError, match="the filler has 2 bands, the raster 1"):
        tiles.cut_tiles(grid, window, filler=raster(np.zeros((2, 20, 24))))


@pytest.mark.parametrize(
    ("transform", "crs", "message"),
    [
        (Affine(400, 300, -3000, 300, -400, 9000), CRS, "rotated"),
        (Affine(500, 0, -3000, 0, -250, 9000), CRS, "expected square cells, found .* 500 x 250"),
        (Affine(0.1, 0, -75, 0, -0.1, -70), "EPSG:4326", "as in the windows, found EPSG:4326"),
    ],
)
def test_rasters_that_would_need_warping_are_refused_with_the_reason(
    tmp_path, transform, crs, message
):
    path = tmp_path / "bed.tif"
    options = {"width": 20, "height": 20, "count": 1, "dtype": "float32", "crs": crs}
    with rasterio.open(path, "w", driver="GTiff", transform=transform, **options) as file:
        file.write(np.ones((1, 20, 20), "float32"))
    with pytest.raises(InvalidDataError, match=rf"bed\.tif.*{message}") as caught:
        tiles.cut_tiles(path, boxes_at([0], [0]))
    assert "\n" not in str(caught.value)


def test_grids_of_oblong_or_uneven_cells_have_no_windows():
    for grid, message in (
        (plane_raster().isel(x=slice(None, None, 2)), "expected square cells"),
        (plane_raster().isel(y=[0, 1, 3, 4]), "field y.*unevenly spaced"),
        (plane_raster().drop_vars("x"), "rotated"),
    ):
        with pytest.raises(InvalidDataError, match=message):
            tiles.find_windows(grid, size=2)
        with pytest.raises(InvalidDataError, match=message):
            tiles.masks(grid, WINDOWS)


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 1000),
    size=st.integers(1, 6),
    step=st.integers(1, 4),
    coverage=st.sampled_from([1.0, 0.75, 0.3]),
    ascending=st.booleans(),
)
def test_masks_are_the_measured_cells_of_tiles(seed, size, step, coverage, ascending):
    values = np.random.default_rng(seed).normal(size=(9, 11))
    grid = raster(np.where(values > -1, values, np.nan), ascending=ascending)
    windows = tiles.find_windows(grid, size=size, step=step, coverage=coverage)
    found = tiles.masks(grid, windows)
    assert found.dtype == bool
    np.testing.assert_array_equal(found, ~np.isnan(tiles.cut_tiles(grid, windows)[:, 0]))
    if len(windows):
        np.testing.assert_allclose(found.mean(axis=(1, 2)), windows["coverage"])


@pytest.mark.usefixtures("many_panes")
def test_masks_read_only_what_the_windows_need():
    whole = rough_raster(128, 128, holes=0.1)
    grid, counts = counted(whole, 16)
    west, south, *_ = rasters.bounds_of(grid)
    x, y = np.meshgrid([3200, 3500, 9600], [3200, 3800])
    at = np.stack([west + x.ravel(), south + y.ravel()], axis=1)
    windows = np.concatenate([at, at + 1200], axis=1)
    found = tiles.masks(grid, windows)
    np.testing.assert_array_equal(found, tiles.masks(whole, windows))
    assert not found.all()
    assert set(counts) == {(4, 2), (5, 2), (4, 6), (5, 6)}, "of 8 x 8 chunks"
    assert max(counts.values()) <= 2, "once for each of the panes that meet there"


def test_masks_need_windows_on_the_cells_of_the_grid():
    grid = plane_raster()
    with pytest.raises(ValueError, match=r"window 1, \(250, .* cuts through cells of bed"):
        tiles.masks(grid, WINDOWS)
    with pytest.raises(InvalidDataError, match=r"bed, window 0: expected a box within"):
        tiles.masks(grid, [(-3500, 2000, 500, 6000)])
    with pytest.raises(InvalidDataError, match="EPSG:3413"):
        tiles.masks(grid, boxes_at([-1000], [2000]).set_crs(3413, allow_override=True))
    with pytest.raises(ValueError, match="one band"):
        tiles.masks(raster(np.zeros((2, 9, 9))), WINDOWS)


def test_windows_within_the_buffer_of_a_test_area_are_left_out():
    xmin, _, _, ymax = places.TEST_AREAS["Pine Island 2007tx"]
    windows = boxes_at([xmin] * 4, ymax + np.array([-9000, 10_999, 11_001, 200_000]))
    assert tiles.exclude(windows, "Pine Island 2007tx").index.tolist() == [2, 3]
    assert tiles.exclude(windows, ["Pine Island 2007tx"], buffer=0).index.tolist() == [1, 2, 3]
    everywhere = tiles.exclude(windows, ["Thwaites", "Pine Island"], buffer=150_000)
    assert everywhere.index.tolist() == [3]
    assert tiles.exclude(windows, []).index.tolist() == [0, 1, 2, 3]
    corner = boxes_at([xmin - 9000 - 8000], [ymax + 8000])
    assert len(tiles.exclude(corner, "Pine Island 2007tx")) == 1, "the corner is 11.3 km off"


def test_an_unknown_test_area_or_another_crs_is_refused():
    windows = boxes_at([0], [0])
    with pytest.raises(ValueError, match="no test area 'Thwaite'; did you mean Thwaites"):
        tiles.exclude(windows, ["Pine Island", "Thwaite"])
    with pytest.raises(InvalidDataError, match="EPSG:3031 as in the test areas, found EPSG:3413"):
        tiles.exclude(windows.set_crs(3413, allow_override=True), "Thwaites")


ICE = gpd.GeoDataFrame(
    geometry=[
        shapely.box(0, 0, 60_000, 100_000),
        shapely.box(60_000, 0, 100_000, 100_000),  # a neighbour: the edge between them is none
        shapely.box(200_000, 0, 205_000, 5000),  # an island smaller than a window
    ],
    crs=CRS,
)


@pytest.mark.parametrize("as_file", [False, True], ids=["frame", "file"])
@pytest.mark.parametrize(
    ("buffer", "expected"),
    [(0, list("abcd")), (499, list("bcd")), (500, list("bcd")), (501, list("cd")),
     (40_000, ["d"]), (40_001, [])],
)  # fmt: skip
def test_windows_inside_the_grounded_ice_keep_their_distance_from_its_edge(
    tmp_path, as_file, buffer, expected
):
    west = [0, 500, 56_000, 41_000, -1, 95_000, 198_000, 120_000]
    windows = boxes_at(west, [20_000, 20_000, 40_000, 40_000, 20_000, 20_000, -2000, 20_000])
    windows.index = list("abcdefgh")
    ice = ICE
    if as_file:
        ice = tmp_path / "ice.gpkg"
        ICE.to_file(ice)
    found = tiles.grounded(windows, ice, buffer)
    assert found.index.tolist() == expected
    assert found.crs == CRS


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 1000), buffer=st.sampled_from([0, 1, 3000, 20_000]))
def test_grounded_windows_are_those_of_a_plain_search(seed, buffer):
    rng = np.random.default_rng(seed)
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    radius = rng.uniform(30_000, 150_000, angle.size)
    star = shapely.Polygon(np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1))
    ice = star.difference(shapely.box(-5000, -5000, 5000, 5000))  # and a lake
    windows = boxes_at(*rng.uniform(-150_000, 150_000, (2, 200)))
    inside = windows.within(ice) & (windows.distance(ice.boundary) >= buffer)
    found = tiles.grounded(windows, gpd.GeoDataFrame(geometry=[ice], crs=CRS), buffer)
    assert found.index.tolist() == windows.index[inside].tolist()


def test_gmt_tells_grounded_ice_from_ice_shelf_and_ocean():
    centre = {
        "the South Pole": (0, 0),
        "Rutford Ice Stream, upstream": (-1_400_000, 100_000),
        "the Ross Ice Shelf": (-100_000, -1_100_000),
        "the Ronne Ice Shelf": (-1_100_000, 700_000),
        "the open ocean": (2_600_000, 2_200_000),
    }
    west, south = np.array(list(centre.values())).T - 4500
    windows = boxes_at(west, south, place=list(centre))
    assert tiles.grounded(windows)["place"].tolist() == list(centre)[:2]
    along = boxes_at(np.zeros(3000), np.arange(-3000, 0) * 500)  # from the pole out to sea
    near, far = (tiles.grounded(along, buffer=buffer).bounds["miny"] for buffer in (0, 25_000))
    assert -1_500_000 < near.min() < -400_000
    assert far.min() >= near.min() + 25_000
    assert len(tiles.grounded(windows[:0])) == 0


def test_gmt_and_measures_agree_on_nearly_all_of_antarctica(shared_data):
    path = shared_data / "grounding_line" / "groundingline_2008_v2.shp"
    west, south = np.random.default_rng(0).uniform(-2.6e6, 2.6e6, (2, 5000))
    windows = boxes_at(west, south)
    for buffer in (0, 10_000):
        measures, gshhg = (
            set(tiles.grounded(windows, line, buffer).index) for line in (path, None)
        )
        assert len(measures) > 1500
        assert len(measures ^ gshhg) < 0.01 * 5000


def test_a_crs_without_its_code_is_that_of_the_windows_too():
    attributes = pyproj.CRS(CRS).to_cf()
    del attributes["crs_wkt"]
    described = pyproj.CRS.from_cf(attributes)
    assert described != pyproj.CRS(CRS)
    windows = boxes_at([0], [0], 2000).set_crs(described, allow_override=True)
    assert tiles.cut_tiles(plane_raster(), windows).shape == (1, 1, 4, 4)
    assert len(tiles.exclude(windows, "Thwaites")) == 1
    assert len(tiles.grounded(windows)) == 1


def test_grounding_lines_that_cannot_be_used_are_refused(tmp_path):
    windows = boxes_at([10_000], [10_000])
    with pytest.raises(InvalidDataError, match="EPSG:3413 as in the grounding line, found EPSG:30"):
        tiles.grounded(windows, ICE.set_crs(3413, allow_override=True))
    with pytest.raises(InvalidDataError, match="EPSG:3031 as in the grounding line, found EPSG:34"):
        tiles.grounded(windows.set_crs(3413, allow_override=True))
    with pytest.raises(InvalidDataError, match="polygons of the grounded ice, found LineString"):
        tiles.grounded(windows, ICE.set_geometry(ICE.boundary))
    with pytest.raises(InvalidDataError, match="polygons of the grounded ice, found nothing"):
        tiles.grounded(windows, ICE[:0])
    bare = ICE.set_crs(None, allow_override=True)
    assert len(tiles.grounded(windows, bare)) == 1
    with pytest.raises(InvalidDataError, match=r"field crs: expected metres.*found degrees"):
        tiles.grounded(windows, bare.scale(1e-4, 1e-4, origin=(0, 0)).to_frame("geometry"))
    with pytest.raises(MissingDataError, match=r"absent\.shp.*fetch Mouginot2017MEASURES"):
        tiles.grounded(windows, tmp_path / "absent.shp")
    (tmp_path / "text.shp").write_text("no polygons")
    with pytest.raises(InvalidDataError, match=r"text\.shp: expected polygons") as caught:
        tiles.grounded(windows, tmp_path / "text.shp")
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="buffer -1 must not be negative"):
        tiles.grounded(windows, ICE, buffer=-1)


def test_named_places_lie_on_the_continent():
    continent = shapely.box(*places.CONTINENT)
    assert all(continent.contains(shapely.box(*area)) for area in places.TEST_AREAS.values())
    assert all(continent.contains(shapely.Point(centre)) for centre in places.CLOSE_UPS.values())


def test_a_third_of_the_original_training_tiles_lay_in_its_test_area(shared_datasets):
    windows = gpd.read_file(shared_datasets / "original_tiles_3031.geojson")
    clear = tiles.exclude(windows, "Thwaites", buffer=0)
    assert 1 - len(clear) / len(windows) == pytest.approx(0.36, abs=0.01)


def test_footprints_come_back_as_they_were(tmp_path):
    windows = tiles.find_windows(plane_raster(), size=4, step=3, coverage=0.5)
    path = tiles.write_footprints(windows, tmp_path / "maps" / "tiles.geojson")
    back = gpd.read_file(path)
    assert back.crs == CRS
    assert back.geometry.geom_equals(windows.geometry).all()
    np.testing.assert_array_equal(back[[*EDGES, "coverage"]], windows[[*EDGES, "coverage"]])
    assert [file.name for file in path.parent.iterdir()] == ["tiles.geojson"]
    assert json.loads(path.read_text())["name"] == "tiles"


def test_footprints_in_degrees_are_valid_at_the_date_line_and_the_pole(tmp_path):
    # around the pole, on the pole by a corner, across the date line, along it, across Greenwich
    windows = boxes_at([-4500, 0, -3000, 0, -3000], [-4500, 0, -900_000, -900_000, 90_000])
    path = tiles.write_footprints(windows, tmp_path / "tiles.geojson", crs="EPSG:4326")
    assert "crs" not in json.loads(path.read_text())
    back = gpd.read_file(path)
    assert back.crs == "EPSG:4326"
    assert back.geometry.is_valid.all()
    assert back.geom_type.tolist() == ["Polygon"] * 2 + ["MultiPolygon"] + ["Polygon"] * 2
    around, corner, across, along, greenwich = back.bounds.to_numpy()
    assert around[:3].tolist() == [-180, -90, 180]
    assert corner[:3].tolist() == [0, -90, 90]
    assert across[[0, 2]].tolist() == [-180, 180]
    parts = back.geometry[2].geoms
    assert all(part.bounds[2] - part.bounds[0] < 1 for part in parts)
    assert along[0] > 179
    assert greenwich[0] < 0 < greenwich[2] < 5
    assert all(polygon.exterior.is_ccw for polygon in back.geometry.explode())
    again = back.segmentize(0.01).to_crs(CRS).geometry
    np.testing.assert_allclose(again.area[2:], 81e6, rtol=1e-4)
    assert again[4].hausdorff_distance(windows.geometry[4]) < 5, "edges are curves in degrees"


def test_footprints_need_a_crs_and_one_that_geojson_has(tmp_path):
    windows = boxes_at([0], [0])
    path = tmp_path / "tiles.geojson"
    with pytest.raises(InvalidDataError, match=r"tiles\.geojson, field crs"):
        tiles.write_footprints(windows.set_crs(None, allow_override=True), path)
    with pytest.raises(ValueError, match="crs must be EPSG:3031 or EPSG:4326, not EPSG:3413"):
        tiles.write_footprints(windows, path, crs="EPSG:3413")
    assert not path.exists()
    assert len(gpd.read_file(tiles.write_footprints(windows[:0], path, crs="EPSG:4326"))) == 0


def test_no_windows_give_no_tiles():
    raster = xr.DataArray(np.ones((4, 4)), {"y": np.arange(4.0), "x": np.arange(4.0)}, ("y", "x"))
    none = tiles.find_windows(raster.where(raster > 1), size=2)
    assert tiles.cut_tiles(raster.rio.write_crs(3031), none).shape == (0, 1, 0, 0)
