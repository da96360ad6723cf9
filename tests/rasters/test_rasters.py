from __future__ import annotations

import hashlib
import json
import tracemalloc
from pathlib import Path

import dask
import hypothesis.extra.numpy as hnp
import numpy as np
import pandas as pd
import pyproj
import pytest
import rasterio
import xarray as xr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from support.sheets import CRS, both_ways, plane, plane_raster, raster
from typer.testing import CliRunner

from deepbedmap import rasters, repository
from deepbedmap.cli.options import app
from deepbedmap.errors import InvalidDataError, MissingDataError


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
    x, y = grid.x.to_numpy()[1], 2850.0
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
    assert back.y[0] > back.y[-1]
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


def grid_with_layers():
    dataset = xr.Dataset({"z": plane_raster(40, 50), "count": raster(np.ones((40, 50)))})
    dataset["spread"] = dataset["z"] / 2
    dataset["z"].attrs |= {"ancillary_variables": "count spread", "vertical_datum": "ellipsoid"}
    return dataset


def test_of_a_grid_and_its_layers_the_grid_is_opened(tmp_path):
    layers = grid_with_layers()
    path = rasters.write_netcdf(layers, tmp_path / "grid.nc")
    found = rasters.open_raster(path)
    np.testing.assert_array_equal(found, layers["z"])
    assert found.attrs["vertical_datum"] == "ellipsoid"
    assert (rasters.open_raster(path, "count") == 1).all()
    layers["other"] = plane_raster(40, 50)
    path = rasters.write_netcdf(layers, tmp_path / "grid.nc")
    assert rasters.open_raster(path).name == "z"
    layers["other"].attrs["ancillary_variables"] = "count"
    path = rasters.write_netcdf(layers, tmp_path / "grid.nc")
    with pytest.raises(InvalidDataError, match=r"one of count, other, spread, z, found none cho"):
        rasters.open_raster(path)


@pytest.mark.parametrize(("zarr_format", "consolidated"), [(2, True), (3, False)])
def test_a_zarr_is_opened_in_its_chunks(tmp_path, zarr_format, consolidated):
    layers = grid_with_layers()
    path = tmp_path / "grid.zarr"
    layers.chunk({"y": 16, "x": 32}).to_zarr(
        path, zarr_format=zarr_format, consolidated=consolidated
    )
    found = rasters.open_raster(path)
    assert found.chunks == ((16, 16, 8), (32, 18))
    assert found.dims == ("y", "x")
    np.testing.assert_array_equal(found, layers["z"])
    assert rasters.crs_of(found).to_epsg() == 3031
    assert rasters.name_of(found) == str(path)
    assert rasters.open_raster(path, ["z", "spread"]).sizes["band"] == 2
    x, y = found.x.to_numpy()[7:9], found.y.to_numpy()[20:23]
    np.testing.assert_allclose(rasters.interpolate(found, x, y), plane(*np.meshgrid(x, y)))
    with pytest.raises(InvalidDataError, match=r"grid\.zarr.*one of count, spread, z, found 'bed'"):
        rasters.open_raster(path, "bed")


def test_a_folder_that_is_no_zarr_is_refused(tmp_path):
    with pytest.raises(InvalidDataError, match=r"cannot be read") as caught:
        rasters.open_raster(tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(MissingDataError, match=r"absent\.zarr"):
        rasters.open_raster(tmp_path / "absent.zarr")


def test_interpolation_gives_a_copy_not_a_part_of_the_raster():
    grid = plane_raster()
    found = rasters.interpolate(grid, grid.x, grid.y)
    assert found.dtype == "float64"
    found[:] = 0
    np.testing.assert_array_equal(grid, plane_raster())


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
    assert rasters.open_raster(path, bands=[3, 1])[:, 0, 0].to_numpy().tolist() == [3, 1]
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
    known = np.isfinite(rows) & np.isfinite(bed.to_numpy())
    assert known.mean() > 0.9
    np.testing.assert_array_equal(rows[known], bed.to_numpy()[known])


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
    ("transform", "message"),
    [
        (Affine(100, 30, 0, 30, -100, 0), "rotated"),
        (Affine(100, 0, 0, 0, -50, 0), "cells of 100 x 50"),
    ],
)
def test_rotated_or_oblong_cells_are_refused(tmp_path, transform, message):
    path = tmp_path / "odd.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=4, height=3, count=1, dtype="float32", crs=CRS,
        transform=transform,
    ) as file:  # fmt: skip
        file.write(np.ones((3, 4), "float32"), 1)
    with pytest.raises(InvalidDataError, match=rf"odd\.tif.*{message}"):
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


def test_a_crs_without_its_code_is_the_same_crs(tmp_path):
    # As several products describe theirs: by CF's attributes of a grid mapping alone.
    attributes = pyproj.CRS(CRS).to_cf()
    del attributes["crs_wkt"]
    described = plane_raster(crs=pyproj.CRS.from_cf(attributes))
    assert rasters.crs_of(described) != rasters.crs_of(plane_raster())
    rasters.require_same_reference(described, plane_raster())
    path = rasters.write_netcdf(described, tmp_path / "described.nc")
    found = rasters.open_raster(path, crs=CRS)
    other = plane_raster(crs="+proj=stere +lat_0=-90 +lat_ts=-70 +lon_0=0 +ellps=WGS84")
    with pytest.raises(InvalidDataError, match="field crs"):
        rasters.require_same_reference(found, other)


def test_dimensions_that_are_neither_x_nor_longitude_are_named(tmp_path):
    path = tmp_path / "odd.nc"
    xr.Dataset({"z": (("row", "column"), np.ones((3, 3)))}).to_netcdf(path, engine="h5netcdf")
    with pytest.raises(InvalidDataError, match=r"odd\.nc.*dimensions x and y.*row.*column"):
        rasters.open_raster(path)


def geoid_height(longitude, latitude):
    """Smooth on the whole sphere, metres."""
    lon, lat = np.radians(longitude), np.radians(latitude)
    return (
        40 * np.sin(lat) + 5 * np.cos(lat) * np.sin(lon) + 10 * np.cos(lat) ** 2 * np.cos(2 * lon)
    )


# A second derivative of geoid_height is below 70 m / rad^2 along each axis: h^2 / 8 of both.
BILINEAR_ERROR = 2 * 70 * np.radians(1) ** 2 / 8


def lonlat_geoid(longitudes, latitudes):
    values = geoid_height(*np.meshgrid(longitudes, latitudes))
    axes = {"y": latitudes, "x": longitudes}
    return xr.DataArray(values, axes).rio.write_crs("EPSG:4326")


LAYOUTS = {
    "to 180": (np.arange(-180, 180), np.arange(-90, 91)),
    "to 180, both ends": (np.arange(-180, 181), np.arange(-90, 91)),
    "to 360": (np.arange(0, 360), np.arange(-90, 91)),
    "to 360, both ends": (np.arange(0, 361), np.arange(-90, 91)),
    "cells to 180": (np.arange(-179.5, 180), np.arange(-89.5, 90)),
    "cells to 360, from the north": (np.arange(0.5, 360), np.arange(89.5, -90, -1)),
    "the south alone": (np.arange(-179.5, 180), np.arange(-89.5, -50)),
}
layouts = pytest.mark.parametrize("layout", LAYOUTS)


def heights_at(x, y, datum="EIGEN-6C4", dtype="float64", crs=CRS):
    heights = xr.DataArray(np.zeros((len(y), len(x)), dtype), {"y": y, "x": x}, name="bed")
    heights.attrs = {"vertical_datum": datum, "units": "m"}
    return heights.rio.write_crs(crs)


def constant_geoid(value, **options):
    return raster(np.full((40, 40), value), cell=1000, west=-20e3, north=20e3, **options)


@layouts
def test_a_geoid_in_degrees_is_met_around_the_globe_and_over_the_pole(layout):
    centres = np.arange(-3e6, 3.01e6, 40e3)  # through the pole, along the date line
    heights = heights_at(centres, centres)
    found = rasters.convert_datum(
        heights, "ellipsoid", {"EIGEN-6C4": lonlat_geoid(*LAYOUTS[layout])}
    )
    place = pyproj.Transformer.from_crs(CRS, "EPSG:4326", always_xy=True)
    expected = geoid_height(*place.transform(*np.meshgrid(centres, centres)))
    np.testing.assert_allclose(found, expected, rtol=0, atol=BILINEAR_ERROR)


@layouts
def test_a_rough_geoid_is_continuous_over_the_pole_and_the_date_line(layout):
    rng = np.random.default_rng(0)
    geoid = lonlat_geoid(*LAYOUTS[layout])
    columns = geoid.sizes["x"] - layout.endswith("both ends")
    rough = rng.uniform(-50, 50, (geoid.sizes["y"], columns))
    rough[np.abs(geoid.y) == 90] = rough[0, 0]
    geoid = geoid.copy(data=np.pad(rough, ((0, 0), (0, geoid.sizes["x"] - columns)), "wrap"))
    for centre in (0, -400e3):
        heights = heights_at(np.arange(-5, 6.0), centre + np.arange(-5, 6.0))
        found = rasters.convert_datum(heights, "ellipsoid", {"EIGEN-6C4": geoid})
        assert np.ptp(found.values) < 0.1


def test_a_regional_geoid_across_the_date_line_is_met_in_either_count_of_longitudes():
    heights = heights_at(np.arange(-90e3, 91e3, 5e3), np.arange(-1e6, -0.9e6, 5e3))
    found = [
        rasters.convert_datum(
            heights,
            "ellipsoid",
            {"EIGEN-6C4": lonlat_geoid(np.arange(170, 191) - turn, np.arange(-85, -75))},
        )
        for turn in (0, 360)
    ]
    assert np.isfinite(found[0]).all()
    np.testing.assert_allclose(*found, rtol=0, atol=1e-9)


def test_a_published_layout_is_read_from_its_file(tmp_path):
    # That of a 10' geoid: float32 nodes, both ends, names of degrees, the CRS in an attribute.
    longitudes, latitudes = np.linspace(-180, 180, 2161), np.linspace(-90, -60, 181)
    geoid = xr.DataArray(
        geoid_height(*np.meshgrid(longitudes, latitudes)).astype("float32"),
        {"latitude": latitudes, "longitude": longitudes},
        name="geoid",
        attrs={
            "title": "Geoid height (EIGEN-6C4) with respect to WGS84",
            "crs": "WGS84",
            "standard_name": "geoid_height_above_reference_ellipsoid",
            "units": "m",
        },
    )
    path = tmp_path / "geoid.nc"
    geoid.to_dataset().to_netcdf(path, engine="h5netcdf")
    heights = heights_at([0.0, 10.0], [-1e6, -1e6 + 10])
    found = rasters.convert_datum(heights, "ellipsoid", {"EIGEN-6C4": path})
    again = rasters.convert_datum(heights, "ellipsoid", {"EIGEN-6C4": geoid})
    place = pyproj.Transformer.from_crs(CRS, "EPSG:4326", always_xy=True)
    expected = geoid_height(*place.transform(*np.meshgrid(heights.x, heights.y)))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(found, again)
    source = {
        "role": "geoid EIGEN-6C4",
        "file": "geoid.nc",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    assert json.loads(found.provenance) == {
        "sources": [source],
        "vertical_datums": ["EIGEN-6C4", "ellipsoid"],
    }
    with pytest.raises(InvalidDataError, match=r"geoid\.nc.*expected EIGEN-GL04C, found EIGEN-6C4"):
        rasters.convert_datum(
            heights_at([0, 9], [0, 9], "EIGEN-GL04C"), "ellipsoid", {"EIGEN-GL04C": path}
        )


def test_a_geoid_in_metres_that_is_a_plane_is_added_exactly():
    geoid = plane_raster(rows=80, columns=80, cell=1000, west=-40e3, north=40e3)
    heights = heights_at(np.arange(-30e3, 30e3, 700), np.arange(-30e3, 30e3, 700))
    found = rasters.convert_datum(heights + 5, "ellipsoid", {"EIGEN-6C4": geoid}, "EIGEN-6C4")
    np.testing.assert_allclose(found, 5 + plane(*np.meshgrid(heights.x, heights.y)), atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(
    given=st.sampled_from(rasters.VERTICAL_DATUMS),
    to=st.sampled_from(rasters.VERTICAL_DATUMS),
    values=hnp.arrays(
        st.sampled_from(["float32", "float64"]), (3, 4), elements=st.floats(-5e3, 5e3, width=32)
    ),
)
def test_heights_come_back_from_any_datum(given, to, values):
    geoids = {
        "EIGEN-GL04C": lonlat_geoid(*LAYOUTS["cells to 180"]),
        "EIGEN-6C4": plane_raster(rows=90, columns=90, cell=500, west=-2e4, north=2e4) / 1e3,
    }
    heights = heights_at(np.arange(4) * 1e3, np.arange(3) * -1e3, given).copy(data=values)
    there = rasters.convert_datum(heights, to, geoids)
    back = rasters.convert_datum(there, given, geoids)
    assert (there.vertical_datum, back.vertical_datum) == (to, given)
    assert there.dtype == back.dtype == values.dtype
    assert (given == to) == bool((there == heights).all())
    tolerance = 1e-3 if values.dtype == "float32" else 1e-6
    np.testing.assert_allclose(back, heights, rtol=0, atol=tolerance)


def test_from_geoid_to_geoid_the_way_leads_over_the_ellipsoid():
    geoids = {"EIGEN-GL04C": constant_geoid(-30), "EIGEN-6C4": constant_geoid(-29.5)}
    found = rasters.convert_datum(heights_at([0, 9], [0, 9], "EIGEN-GL04C"), "EIGEN-6C4", geoids)
    assert (found == -0.5).all()
    assert found.name == "bed"
    assert found.units == "m"
    assert rasters.crs_of(found).to_epsg() == 3031
    roles = [source["role"] for source in json.loads(found.provenance)["sources"]]
    assert roles == ["geoid EIGEN-GL04C", "geoid EIGEN-6C4"]


def test_the_datum_that_heights_already_refer_to_needs_no_geoid():
    heights = heights_at([0, 9], [0, 9], None).assign_attrs(provenance='{"method": "levelling"}')
    found = rasters.convert_datum(heights, "EIGEN-6C4", {}, datum="EIGEN-6C4")
    xr.testing.assert_equal(found, heights)
    assert found.vertical_datum == "EIGEN-6C4"
    assert found.provenance == heights.provenance


def test_nothing_is_computed_before_it_is_asked_for():
    heights = heights_at(np.arange(0, 9e3, 1e3), np.arange(0, 7e3, 1e3), dtype="float32")
    stack = heights.expand_dims(band=2).copy()
    stack[1] += 100
    lazy = stack.chunk(y=3, x=4)
    geoids = {"EIGEN-6C4": plane_raster(rows=90, columns=90, cell=500, west=-2e4, north=2e4)}

    def compute(*args, **kwargs):
        raise AssertionError("computed")

    with dask.config.set(scheduler=compute):
        found = rasters.convert_datum(lazy, "ellipsoid", geoids)
    assert found.chunks == lazy.chunks
    assert found.dtype == "float32"
    xr.testing.assert_identical(found.compute(), rasters.convert_datum(stack, "ellipsoid", geoids))


def test_a_hole_in_heights_or_geoid_is_a_hole_and_nothing_else():
    heights = heights_at(np.arange(0.0, 50e3, 1e3), [0.0, 500.0]).astype("int16")
    heights[:, 0] = -9999
    heights = heights.rio.write_nodata(-9999)
    geoid = constant_geoid(-30)
    geoid[19:21, 22] = np.nan
    found = rasters.convert_datum(heights, "ellipsoid", {"EIGEN-6C4": geoid})
    assert found.dtype == "float32"
    assert set(np.unique(found.to_numpy()[np.isfinite(found)])) == {-30}
    near_hole = [2, 3]  # at 2 and 3 km, beside the cell at 2.5 km
    beyond = [*range(21, 50)]
    assert np.isnan(found[0]).to_numpy().nonzero()[0].tolist() == [0, *near_hole, *beyond]
    assert found.rio.encoded_nodata == -9999


def test_a_standard_name_says_what_heights_refer_to():
    heights = heights_at([0, 9], [0, 9]).assign_attrs(standard_name="bedrock_altitude")
    there = rasters.convert_datum(heights, "ellipsoid", {"EIGEN-6C4": constant_geoid(-30)})
    back = rasters.convert_datum(there, "EIGEN-6C4", {"EIGEN-6C4": constant_geoid(-30)})
    assert there.standard_name == "height_above_reference_ellipsoid"
    assert back.standard_name == "altitude"
    assert len(json.loads(back.provenance)["sources"]) == 1
    assert json.loads(back.provenance)["vertical_datums"] == ["EIGEN-6C4", "ellipsoid", "EIGEN-6C4"]


@pytest.mark.parametrize("before", ["made by hand", "[1]", '{"prior": {"file": "a.tif"}}'])
def test_what_is_known_of_the_making_of_heights_is_kept(before):
    heights = heights_at([0, 9], [0, 9]).assign_attrs(provenance=before)
    found = rasters.convert_datum(heights, "ellipsoid", {"EIGEN-6C4": constant_geoid(-30)})
    kept = json.loads(found.provenance)
    assert before in (kept.get("text"), json.dumps({"prior": kept.get("prior")}))
    assert [source["role"] for source in kept["sources"]] == ["geoid EIGEN-6C4"]


def test_picks_are_converted_as_a_grid_is():
    geoid = lonlat_geoid(*LAYOUTS["to 180"])
    heights = heights_at([0.0, 10e3], [-1e6, -0.9e6]) + 7.0
    x, y = (axis.ravel() for axis in np.meshgrid(heights.x, heights.y))
    picks = pd.DataFrame({"x": x, "y": y, "z": 7.0, "line": list("abab")}, index=[4, 3, 2, 1])
    sources = [{"file": "survey.csv"}]
    picks.attrs = {"crs": CRS, "vertical_datum": "EIGEN-6C4", "sources": sources}
    found = rasters.convert_datum(picks, "ellipsoid", {"EIGEN-6C4": geoid})
    grid = rasters.convert_datum(heights, "ellipsoid", {"EIGEN-6C4": geoid}, "EIGEN-6C4")
    np.testing.assert_array_equal(found["z"], grid.to_numpy().ravel())
    pd.testing.assert_frame_equal(found.drop(columns="z"), picks.drop(columns="z"))
    assert found.attrs == {
        "crs": CRS,
        "vertical_datum": "ellipsoid",
        "sources": [*sources, {"role": "geoid EIGEN-6C4", "file": "raster"}],
    }
    assert (picks["z"] == 7).all()
    assert picks.attrs["vertical_datum"] == "EIGEN-6C4"
    assert len(picks.attrs["sources"]) == 1
    picks.attrs = {}
    with pytest.raises(InvalidDataError, match="picks, field crs"):
        rasters.convert_datum(picks, "ellipsoid", {}, "EIGEN-6C4")


GEOID = constant_geoid(-30)


@pytest.mark.parametrize(
    ("attributes", "options", "message"),
    [
        ({}, {}, r"bed, field vertical_datum: expected one of.*found unknown; state.*--datum"),
        ({"vertical_datum": "unknown"}, {}, "found unknown"),
        ({"vertical_datum": "EGM2008"}, {}, "expected one of ellipsoid.*found EGM2008"),
        (
            {"vertical_datum": "EIGEN-6C4"},
            {"datum": "ellipsoid"},
            "expected ellipsoid, found EIGEN-6C4; leave out datum if the heights are right, or "
            "correct their attribute",
        ),
        ({"units": "km"}, {"datum": "EIGEN-6C4"}, "bed, field units: expected m, found km"),
        (
            {"standard_name": "land_ice_thickness"},
            {"datum": "EIGEN-6C4"},
            "standard_name: expected heights, found land_ice_thickness",
        ),
        (
            {},
            {"datum": "EIGEN-6C4", "geoids": {"EIGEN-6C4": GEOID.assign_attrs(units="cm")}},
            "z, field units: expected m, found cm",
        ),
        (
            {},
            {
                "datum": "EIGEN-6C4",
                "geoids": {"EIGEN-6C4": GEOID.assign_attrs(standard_name="surface_altitude")},
            },
            "expected height of a geoid, found surface_altitude",
        ),
        (
            {},
            {
                "datum": "EIGEN-6C4",
                "geoids": {"EIGEN-6C4": GEOID.assign_attrs(vertical_datum="EIGEN-GL04C")},
            },
            "field geoid: expected EIGEN-6C4, found EIGEN-GL04C",
        ),
        (
            {},
            {"datum": "EIGEN-6C4", "geoids": {"EIGEN-6C4": constant_geoid(-30, crs=None)}},
            "z, field crs: expected a coordinate reference system, found none",
        ),
        (
            {},
            {"datum": "EIGEN-6C4", "geoids": {"EIGEN-6C4": GEOID.assign_coords(x=GEOID.x + 1e6)}},
            "expected a geoid that covers bed, found no value there",
        ),
    ],
)
def test_heights_and_geoids_that_do_not_go_together_are_refused(attributes, options, message):
    heights = heights_at([0, 9], [0, 9])
    heights.attrs = attributes
    with pytest.raises(InvalidDataError, match=message) as caught:
        rasters.convert_datum(heights, "ellipsoid", **({"geoids": {"EIGEN-6C4": GEOID}} | options))
    assert "\n" not in str(caught.value)


def test_a_geoid_that_is_not_there_is_named():
    heights = heights_at([0, 9], [0, 9])
    with pytest.raises(
        MissingDataError, match=r"bed: .*grid of EIGEN-6C4; `deepbedmap search geoid"
    ):
        rasters.convert_datum(heights, "ellipsoid", {"EIGEN-GL04C": GEOID})
    with pytest.raises(MissingDataError, match=r"absent\.nc"):
        rasters.convert_datum(heights, "ellipsoid", {"EIGEN-6C4": "absent.nc"})


@pytest.mark.parametrize(
    ("to", "geoids", "datum", "message"),
    [
        (
            "EIGEN-6C",
            {},
            None,
            "expected one of ellipsoid, EIGEN-GL04C, EIGEN-6C4, found 'EIGEN-6C'; "
            "did you mean EIGEN-6C4",
        ),
        ("ellipsoid", {"EIGEN-GL04": GEOID}, None, "did you mean EIGEN-GL04C"),
        (
            "ellipsoid",
            {"ellipsoid": GEOID},
            None,
            "expected one of EIGEN-GL04C, EIGEN-6C4, found 'ellipsoid'",
        ),
        ("ellipsoid", {}, "Ellipsoid", "did you mean ellipsoid"),
    ],
)
def test_a_datum_nobody_knows_is_a_wrong_call(to, geoids, datum, message):
    with pytest.raises(ValueError, match=message) as caught:
        rasters.convert_datum(heights_at([0, 9], [0, 9]), to, geoids, datum)
    assert not isinstance(caught.value, InvalidDataError)


def test_the_vertical_datums_are_those_of_the_registry():
    schema = json.loads((repository.root() / "validation" / "registry.schema.json").read_text())
    found = json.dumps(schema)
    assert json.dumps([*rasters.VERTICAL_DATUMS, None]) in found


def test_byrd_is_brought_to_the_ellipsoid_and_its_firn_air_stays(shared_data):
    path = shared_data / "byrd" / "byrd_500m.nc"
    geoid = rasters.open_raster(path, "bm_geoid").astype("float64")
    for variable in ("bm_bed", "bm_surface"):
        heights = rasters.open_raster(path, variable)
        found = rasters.convert_datum(heights, "ellipsoid", {"EIGEN-6C4": path}, "EIGEN-6C4")
        expected = (heights.astype("float64") + geoid).astype("float32")
        np.testing.assert_array_equal(found, expected)
        assert found.vertical_datum == "ellipsoid"
        files = [source["file"] for source in json.loads(found.provenance)["sources"]]
        assert files == ["byrd_500m.nc", "byrd_500m.nc"]
    # Firn air: BedMachine's surface is ice-equivalent. A forgotten geoid would be 45 m.
    ice = rasters.open_raster(path, "bm_thickness") > 0
    firn_air = (rasters.open_raster(path, "surface_ellipsoid") - found).where(ice)
    assert float(firn_air.mean()) == pytest.approx(18.4, abs=0.05)
    assert float(firn_air.std()) == pytest.approx(4.0, abs=0.05)


def test_the_command_converts_a_file(tmp_path):
    bed = rasters.write_geotiff(heights_at([0, 10.0], [0, 10.0], None), tmp_path / "bed.tif")
    geoid = rasters.write_netcdf(constant_geoid(-30), tmp_path / "geoid.nc")
    out = tmp_path / "ellipsoid.nc"
    call = [
        "convert", str(bed), "--to", "ellipsoid", "--geoid", f"EIGEN-6C4={geoid}",
        "--out", str(out),
    ]  # fmt: skip
    assert isinstance(CliRunner().invoke(app, call).exception, InvalidDataError)
    assert not out.exists()
    result = CliRunner().invoke(app, [*call, "--datum", "EIGEN-6C4"])
    assert result.exit_code == 0, result.output
    assert f"{out}: 2 x 2 cells above the ellipsoid" in result.output.replace("\n", "")
    found = rasters.open_raster(out)
    assert (found == -30).all()
    sources = json.loads(found.provenance)["sources"]
    assert [source["file"] for source in sources] == ["bed.tif", "geoid.nc"]
    assert sources[0]["sha256"] == hashlib.sha256(bed.read_bytes()).hexdigest()


def test_the_command_does_not_take_velocities_for_heights(call, tmp_path):
    components = {name: heights_at([0, 10.0], [0, 10.0]) for name in ("vx", "vy")}
    path = rasters.write_netcdf(xr.Dataset(components), tmp_path / "velocity.nc")
    geoid = ["--geoid", "EIGEN-6C4=geoid.nc"]
    code, _, error = call("convert", path, "--to", "ellipsoid", *geoid, "--out", tmp_path / "o.nc")
    assert code == 2
    assert "--variable" in error


def test_the_command_has_help_with_an_example():
    result = CliRunner().invoke(app, ["convert", "--help"])
    assert "Example: deepbedmap convert" in " ".join(result.output.split())


@pytest.mark.parametrize("geoid", ["geoid.nc", "=geoid.nc", "EIGEN-6C4="])
def test_a_geoid_on_the_command_line_has_name_and_file(tmp_path, geoid):
    call = ["convert", "bed.tif", "--to", "ellipsoid", "--geoid", geoid, "--out", "out.nc"]
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 2
    assert "NAME=FILE" in result.output
