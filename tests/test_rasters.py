from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine

from deepbedmap import rasters
from deepbedmap.errors import InvalidDataError, MissingDataError

CRS = "EPSG:3031"


def raster(values, *, cell=100.0, west=-2000.0, north=3000.0, ascending=False, crs=CRS):
    """Cells from the north-west corner on; values (y, x) from north to south."""
    values = np.asarray(values, "float32")
    y = north - (np.arange(values.shape[-2]) + 0.5) * cell
    x = west + (np.arange(values.shape[-1]) + 0.5) * cell
    array = xr.DataArray(values, {"y": y, "x": x}, dims=("band", "y", "x")[-values.ndim :])
    array.name = "z"
    if ascending:
        array = array.isel(y=slice(None, None, -1))
    return array.rio.write_crs(crs) if crs else array


def plane(x, y):
    return 10 + 0.25 * np.asarray(x) - 0.5 * np.asarray(y)


def plane_raster(rows=12, columns=9, **options):
    empty = raster(np.zeros((rows, columns)), **options)
    return empty.copy(data=plane(*np.meshgrid(empty.x, empty.y)).astype("float32"))


both_ways = pytest.mark.parametrize("ascending", [False, True], ids=["y falls", "y rises"])


@both_ways
def test_a_plane_is_recovered_at_any_point(ascending):
    grid = plane_raster(ascending=ascending)
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-1950, -1150, 200), rng.uniform(1850, 2950, 200)
    np.testing.assert_allclose(rasters.sample(grid, x, y), plane(x, y), rtol=0, atol=1e-9)


@both_ways
def test_a_point_on_a_centre_needs_that_cell_alone(ascending):
    values = np.full((3, 3), np.nan)
    values[1, 1] = 7
    grid = raster(values, ascending=ascending)
    x, y = grid.x.values[1], 2850.0
    np.testing.assert_array_equal(
        rasters.sample(grid, [x, x + 1, x, x - 1e-9], [y, y, y - 1, y + 1e-9]),
        [7, np.nan, np.nan, 7],
    )


def test_a_point_along_a_row_needs_two_cells_of_that_row():
    grid = raster([[1, 3, np.nan], [np.nan] * 3])
    np.testing.assert_allclose(rasters.sample(grid, [-1925], [2950]), [1.5])


def test_points_outside_the_cells_are_nan_and_the_outer_half_cell_holds_the_edge():
    grid = raster([[1, 2], [3, 4]], cell=100, west=0, north=200)
    values = rasters.sample(grid, [0, -0.001, 200, np.nan, 100], [200, 200, 0, 100, 1e9])
    np.testing.assert_array_equal(values, [1, np.nan, 4, np.nan, np.nan])


def test_sampling_is_in_double_precision():
    grid = raster([[2000.125, 2000.25], [2000.125, 2000.25]])
    expected = 2000.125 + 0.125 * 0.3
    np.testing.assert_allclose(rasters.sample(grid, [-1920], [2950]), [expected], rtol=1e-13)


def test_raw_nodata_is_never_blended():
    grid = raster([[1, -9999], [1, 1]]).rio.write_nodata(-9999)
    assert np.isnan(rasters.sample(grid, [-1900], [2940]))
    assert rasters.sample(grid, [-1900], [2850]) == 1


def test_cubic_interpolation_recovers_a_quadratic():
    grid = raster(np.zeros((12, 12)))
    x, y = np.meshgrid(grid.x, grid.y)
    grid = grid.astype(float).copy(data=1e-3 * x**2 - 2e-3 * x * y)
    wanted_x, wanted_y = np.linspace(-1800, -1200, 7), np.linspace(2100, 2700, 5)
    found = rasters.interpolate(grid, wanted_x, wanted_y, "cubic")
    x, y = np.meshgrid(wanted_x, wanted_y)
    np.testing.assert_allclose(found, 1e-3 * x**2 - 2e-3 * x * y, rtol=0, atol=1e-8)


@pytest.mark.parametrize("method", ["nearest", "linear", "cubic"])
def test_interpolation_does_not_depend_on_the_direction_of_y(method):
    values = np.random.default_rng(1).normal(size=(2, 8, 8))
    values[:, 3, 5] = np.nan
    x, y = np.linspace(-1990, -1210, 40), np.linspace(2990, 2210, 40)
    falling, rising = (
        rasters.interpolate(raster(values, ascending=a), x, y, method) for a in (False, True)
    )
    assert np.isnan(falling).any()
    np.testing.assert_array_equal(falling, rising)


def test_nodata_spoils_exactly_the_cells_whose_stencil_it_enters():
    values = np.ones((9, 9))
    values[4, 4] = np.nan
    grid = raster(values, cell=1, west=0, north=9)
    centres = np.arange(9) + 0.5
    between = np.arange(1, 9.0)
    for method, at_centres, at_corners in (("nearest", 1, 1), ("linear", 1, 4), ("cubic", 1, 16)):
        assert np.isnan(rasters.interpolate(grid, centres, centres, method)).sum() == at_centres
        assert np.isnan(rasters.interpolate(grid, between, between, method)).sum() == at_corners


def test_an_unknown_method_is_a_wrong_call():
    with pytest.raises(ValueError, match="nearest, linear or cubic"):
        rasters.interpolate(plane_raster(), [-1500], [2500], "spline")


@both_ways
def test_bounds_are_the_outer_edges(ascending):
    grid = plane_raster(rows=3, columns=2, ascending=ascending)
    assert rasters.bounds_of(grid) == (-2000, 2700, -1800, 3000)
    assert rasters.resolution_of(grid) == 100


@both_ways
def test_a_geotiff_comes_back_as_it_was(tmp_path, ascending):
    grid = plane_raster(rows=300, columns=280, ascending=ascending)
    grid[5, 7] = np.nan
    grid.attrs |= {"units": "m", "vertical_datum": "ellipsoid", "provenance": '{"a": [1]}'}
    path = rasters.write_geotiff(grid, tmp_path / "new" / "grid.tif")
    back = rasters.open_raster(path)
    assert back.dims == ("y", "x")
    assert back.dtype == "float32"
    assert back.y.values[0] > back.y.values[-1]
    xr.testing.assert_equal(back.sortby("y").drop_attrs(), grid.sortby("y").drop_attrs())
    assert grid.attrs.items() <= back.attrs.items()
    assert rasters.crs_of(back) == rasters.crs_of(grid)
    with rasterio.open(path) as file:
        assert np.isnan(file.nodata)
        assert file.profile["tiled"]
        assert file.profile["compress"] == "deflate"
    assert [p.name for p in path.parent.iterdir()] == ["grid.tif"]


@both_ways
def test_a_netcdf_comes_back_as_it_was(tmp_path, ascending):
    grid = plane_raster(ascending=ascending)
    grid.attrs |= {"units": "m", "vertical_datum": "EIGEN-6C4"}
    path = rasters.write_netcdf(grid, tmp_path / "grid.nc")
    back = rasters.open_raster(path)
    xr.testing.assert_equal(back.drop_attrs(), grid.drop_attrs())
    assert grid.attrs.items() <= back.attrs.items()
    assert rasters.crs_of(back) == rasters.crs_of(grid)
    with xr.open_dataset(path, engine="h5netcdf", decode_coords="all") as dataset:
        assert dataset.attrs["Conventions"].startswith("CF-")
        assert dataset.z.encoding["zlib"]
        assert dataset.x.attrs["standard_name"] == "projection_x_coordinate"


def test_several_rasters_go_into_one_netcdf(tmp_path):
    dataset = xr.Dataset({"bed": plane_raster(), "mask": raster(np.eye(12, 9)).astype("int8")})
    path = rasters.write_netcdf(dataset, tmp_path / "two.nc")
    np.testing.assert_array_equal(rasters.open_raster(path, "mask"), np.eye(12, 9))
    with pytest.raises(InvalidDataError, match=r"two\.nc.*one of bed, mask, found none chosen"):
        rasters.open_raster(path)
    with pytest.raises(InvalidDataError, match=r"two\.nc.*one of bed, mask, found 'ice'"):
        rasters.open_raster(path, "ice")


def test_what_was_opened_can_be_written_in_the_other_format(tmp_path):
    grid = plane_raster()
    tif = rasters.write_geotiff(grid, tmp_path / "a.tif")
    nc = rasters.write_netcdf(rasters.open_raster(tif), tmp_path / "b.nc")
    again = rasters.write_geotiff(rasters.open_raster(nc), tmp_path / "c.tif")
    np.testing.assert_array_equal(rasters.open_raster(again), grid)


@pytest.mark.parametrize("write", [rasters.write_geotiff, rasters.write_netcdf])
def test_a_write_that_fails_leaves_nothing_new_and_the_old_file_whole(tmp_path, monkeypatch, write):
    path = tmp_path / "grid.any"
    path.write_text("old")

    def replace(self, target):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(OSError, match="disk full"):
        write(plane_raster(), path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_bands_are_chosen_by_number(tmp_path):
    stack = np.stack([np.full((3, 4), number) for number in (1, 2, 3)])
    path = rasters.write_geotiff(raster(stack), tmp_path / "bands.tif")
    assert rasters.open_raster(path).dims == ("band", "y", "x")
    assert rasters.open_raster(path, bands=2).dims == ("y", "x")
    assert (rasters.open_raster(path, bands=2) == 2).all()
    assert rasters.open_raster(path, bands=[3, 1])[:, 0, 0].values.tolist() == [3, 1]
    with pytest.raises(InvalidDataError, match=r"bands\.tif, field band: expected 1 to 3, found 4"):
        rasters.open_raster(path, bands=[1, 4])


@both_ways
def test_only_the_cells_in_use_are_read_from_a_file(tmp_path, ascending):
    path = tmp_path / "large.tif"
    # Sparse: GDAL writes no block of this 1.6 GB raster except the one below.
    transform = Affine(10, 0, 0, 0, 10 if ascending else -10, 0)
    with rasterio.open(
        path, "w", driver="GTiff", width=20_000, height=20_000, count=1, dtype="float32", crs=CRS,
        transform=transform, tiled=True, sparse_ok=True, nodata=-1,
    ) as file:  # fmt: skip
        window = rasterio.windows.Window(5120, 10_240, 256, 256)
        rows, columns = np.mgrid[:256, :256].astype("float32")
        file.write(rows * 1000 + columns, 1, window=window)
    x = 10 * (5120 + np.arange(20, 24) + 0.5)
    y = (1 if ascending else -1) * 10 * (10_240 + np.arange(30, 33) + 0.5)
    tracemalloc.start()
    try:
        opened = rasters.open_raster(path)
        found = rasters.interpolate(opened, x, y)
        point = rasters.sample(opened, x[:1], y[:1])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    expected = np.arange(30, 33)[:, None] * 1000 + np.arange(20, 24)
    np.testing.assert_array_equal(found, expected)
    assert point == expected[0, 0]
    assert peak < 20e6


def test_nodata_and_scale_of_a_file_are_applied(tmp_path):
    path = tmp_path / "packed.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=2, height=2, count=1, dtype="int16", crs=CRS,
        transform=Affine(100, 0, 0, 0, -100, 0), nodata=-9999,
    ) as file:  # fmt: skip
        file.write(np.array([[1, 2], [-9999, 4]], "int16"), 1)
        file.scales, file.offsets = [0.5], [10]
    np.testing.assert_array_equal(rasters.open_raster(path), [[10.5, 11], [np.nan, 12]])


def test_a_crs_in_an_attribute_counts(shared_data):
    bed = rasters.open_raster(shared_data / "byrd" / "byrd_500m.nc", "bm_bed")
    assert bed.rio.crs.to_epsg() == 3031
    same = rasters.open_raster(shared_data / "byrd" / "bed.tif")
    rows = rasters.interpolate(same, bed.x, bed.y)
    known = np.isfinite(rows) & np.isfinite(bed.values)
    assert known.mean() > 0.9
    np.testing.assert_array_equal(rows[known], bed.values[known])


def test_a_raster_without_crs_is_refused_with_a_remedy(tmp_path):
    path = rasters.write_geotiff(plane_raster(crs=None), tmp_path / "bare.tif")
    with pytest.raises(InvalidDataError, match=r"bare\.tif, field crs.*found none; state it"):
        rasters.open_raster(path)
    assert rasters.crs_of(rasters.open_raster(path, crs=CRS)).to_epsg() == 3031


def test_a_crs_that_contradicts_the_file_is_refused(tmp_path):
    path = rasters.write_geotiff(plane_raster(), tmp_path / "a.tif")
    with pytest.raises(InvalidDataError, match=r"a\.tif.*expected EPSG:3413, found EPSG:3031"):
        rasters.open_raster(path, crs="EPSG:3413")


@pytest.mark.parametrize(
    ("transform", "said"),
    [
        (Affine(100, 30, 0, 30, -100, 0), "rotated"),
        (Affine(100, 0, 0, 0, -50, 0), "cells of 100 x 50"),
    ],
)
def test_rotated_or_oblong_cells_are_refused(tmp_path, transform, said):
    path = tmp_path / "odd.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=4, height=3, count=1, dtype="float32", crs=CRS,
        transform=transform,
    ) as file:  # fmt: skip
        file.write(np.ones((3, 4), "float32"), 1)
    with pytest.raises(InvalidDataError, match=rf"odd\.tif.*{said}"):
        rasters.open_raster(path)


def test_unevenly_spaced_centres_are_refused():
    grid = plane_raster().isel(x=[0, 1, 3])
    with pytest.raises(InvalidDataError, match=r"field x.*unevenly spaced"):
        rasters.bounds_of(grid)


def test_files_that_are_absent_or_no_rasters_are_named(tmp_path):
    with pytest.raises(MissingDataError, match=r"absent\.tif"):
        rasters.open_raster(tmp_path / "absent.tif")
    for name in ("text.tif", "text.nc"):
        (tmp_path / name).write_text("no raster")
        with pytest.raises(InvalidDataError, match=rf"{name}.*cannot be read") as caught:
            rasters.open_raster(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_rasters_of_one_reference_may_be_combined():
    one = plane_raster().assign_attrs(vertical_datum="ellipsoid")
    for datum in ({"vertical_datum": "ellipsoid"}, {"vertical_datum": "unknown"}, {}):
        rasters.require_same_reference(one, plane_raster().assign_attrs(datum))


def test_rasters_of_different_references_are_not_mixed():
    one = plane_raster().assign_attrs(vertical_datum="ellipsoid")
    geoid = plane_raster().assign_attrs(vertical_datum="EIGEN-6C4")
    with pytest.raises(InvalidDataError, match=r"vertical_datum: expected ellipsoid.*EIGEN-6C4"):
        rasters.require_same_reference(one, geoid)
    with pytest.raises(InvalidDataError, match=r"crs: expected EPSG:3031.*found EPSG:3413"):
        rasters.require_same_reference(one, plane_raster(crs="EPSG:3413"))
    with pytest.raises(InvalidDataError, match="found none"):
        rasters.require_same_reference(one, plane_raster(crs=None))
