from __future__ import annotations

import hashlib
import json
import tracemalloc

import numpy as np
import pytest
import rasterio
import xarray as xr
from support.sheets import CRS, both_ways, plane, plane_raster, raster

from deepbedmap import rasters
from deepbedmap.errors import InvalidDataError, MissingDataError
from deepbedmap.rasters import resampling


def rough_raster(rows=90, columns=110, holes=0.02, **options):
    rng = np.random.default_rng(1)
    values = 3000 * rng.normal(size=(rows, columns))
    return raster(np.where(rng.random(values.shape) < holes, np.nan, values), **options)


@pytest.fixture
def many_pieces(monkeypatch):
    """Read, interpolate and write in pieces of 16 x 16 cells."""
    monkeypatch.setattr(resampling, "_MEMORY", 16 * 16 * resampling._BYTES)


@both_ways
@pytest.mark.parametrize("resolution", [40, 100, 250])
def test_a_plane_stays_a_plane_at_any_resolution(tmp_path, ascending, resolution):
    bounds = (-1000, -2000, 1000, 2000)
    grid = plane_raster(60, 45, ascending=ascending)
    path = rasters.write_resampled(grid, tmp_path / "a" / "out.tif", resolution, bounds)
    found = rasters.open_raster(path)
    assert rasters.bounds_of(found) == bounds
    assert rasters.resolution_of(found) == resolution
    assert found.y[0] > found.y[-1]
    np.testing.assert_allclose(found, plane(*np.meshgrid(found.x, found.y)), rtol=0, atol=1e-3)
    assert [file.name for file in path.parent.iterdir()] == ["out.tif"]


@pytest.mark.usefixtures("many_pieces")
@pytest.mark.parametrize("method", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("resolution", [None, 30, 270])
def test_pieces_are_those_of_one_interpolation_of_the_whole(tmp_path, method, resolution):
    given = rasters.write_geotiff(rough_raster(), tmp_path / "given.tif")
    path = rasters.write_resampled(given, tmp_path / "out.tif", resolution, method=method)
    found = rasters.open_raster(path)
    expected = rasters.interpolate(rasters.open_raster(given), found.x, found.y, method)
    assert np.isfinite(expected).mean() > 0.4
    np.testing.assert_array_equal(found, expected.astype("float32"))


def test_a_raster_of_the_same_cells_stays_as_it_was(tmp_path):
    grid = rough_raster()
    path = rasters.write_resampled(grid, tmp_path / "out.tif")
    np.testing.assert_array_equal(rasters.open_raster(path), grid)
    with rasterio.open(path) as file:
        assert file.profile["tiled"]
        assert file.profile["compress"] == "deflate"
        assert np.isnan(file.nodata)


@pytest.mark.usefixtures("many_pieces")
@both_ways
@pytest.mark.parametrize("resolution", [None, 150])
def test_gaps_are_filled_at_the_same_centres_and_no_nodata_is_blended(
    tmp_path, ascending, resolution
):
    fine = plane_raster(60, 45, ascending=ascending)
    fine[20:31, 7:19] = np.nan
    fine = fine.fillna(-9999).rio.write_nodata(-9999)
    coarse = plane_raster(40, 40, cell=200, west=-3000, north=4000, ascending=not ascending) + 100
    bounds = (-1850, -2850, 2350, 2850)
    path = rasters.write_resampled(fine, tmp_path / "out.tif", resolution, bounds, coarse)
    found = rasters.open_raster(path)
    hole = np.isnan(rasters.interpolate(fine, found.x, found.y))
    assert 0.02 < hole.mean() < 0.2
    expected = plane(*np.meshgrid(found.x, found.y)) + 100 * hole
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)


def test_a_gap_that_nothing_fills_stays_a_gap(tmp_path):
    fine = plane_raster(60, 45)
    fine[20:30, 10:20] = np.nan
    found = rasters.open_raster(rasters.write_resampled(fine, tmp_path / "out.tif"))
    assert np.isnan(found).sum() == 100
    small = raster(np.zeros((3, 3)), west=-1000, north=1000)
    filled = rasters.write_resampled(fine, tmp_path / "out.tif", filler=small)
    assert np.isnan(rasters.open_raster(filled)).sum() == 91


def test_cells_beyond_the_raster_have_no_value_but_the_fillers(tmp_path):
    grid = raster(np.ones((10, 10)), west=0, north=1000)
    bounds = (-500, 0, 500, 1000)
    found = rasters.open_raster(rasters.write_resampled(grid, tmp_path / "out.tif", None, bounds))
    np.testing.assert_array_equal(np.isnan(found), np.broadcast_to(found.x < 0, (10, 10)))
    filler = raster(np.full((20, 20), 2), west=-1000, north=1000)
    path = rasters.write_resampled(grid, tmp_path / "out.tif", None, bounds, filler)
    np.testing.assert_array_equal(rasters.open_raster(path)[0], [2] * 5 + [1] * 5)


@both_ways
def test_velocities_of_450_m_come_to_500_m_as_two_bands(tmp_path, ascending):
    options = {"cell": 450, "west": -1350, "north": 2250, "ascending": ascending}
    vx = plane_raster(30, 40, **options).assign_attrs(units="m/year", long_name="eastward")
    vy = (-plane_raster(30, 40, **options)).assign_attrs(units="m/year", long_name="northward")
    given = rasters.write_netcdf(xr.Dataset({"VX": vx, "VY": vy}), tmp_path / "velocity.nc")
    path = rasters.write_resampled(given, tmp_path / "out.tif", resolution=500)
    found = rasters.open_raster(path)
    assert rasters.bounds_of(found) == (-1500, -11_500, 17_000, 2500)
    expected = rasters.interpolate(vx, found.x, found.y)
    assert np.isfinite(expected[1:-1, 1:-1]).all()
    np.testing.assert_array_equal(found[0], expected.astype("float32"))
    np.testing.assert_array_equal(found[1], -expected.astype("float32"))
    assert found.attrs["units"] == "m/year"
    assert found.attrs["long_name"] == ("VX", "VY")


def test_what_the_raster_is_and_what_it_was_made_of_are_kept(tmp_path):
    first = plane_raster(60, 45).assign_attrs(
        units="m",
        vertical_datum="ellipsoid",
        long_name="surface",
        provenance=json.dumps({"sources": [{"file": "picks.csv"}]}),
    )
    first = rasters.write_geotiff(first, tmp_path / "first.tif")
    second = rasters.write_geotiff(plane_raster(60, 45, cell=200), tmp_path / "second.tif")
    found = rasters.open_raster(
        rasters.write_resampled(first, tmp_path / "out.tif", filler=second, resolution=50)
    )
    attributes = {"units": "m", "vertical_datum": "ellipsoid", "long_name": "surface"}
    assert attributes.items() <= found.attrs.items()
    assert rasters.crs_of(found).to_epsg() == 3031
    provenance = json.loads(found.attrs["provenance"])
    assert provenance["sources"] == [
        {
            "role": "raster",
            "file": "first.tif",
            "sha256": hashlib.sha256(first.read_bytes()).hexdigest(),
            "sources": [{"file": "picks.csv"}],
        },
        {
            "role": "filler",
            "file": "second.tif",
            "sha256": hashlib.sha256(second.read_bytes()).hexdigest(),
        },
    ]
    assert provenance["parameters"]["resolution"] == 50


@pytest.mark.parametrize("resolution", [None, 1000])
def test_memory_is_bounded_by_pieces_not_by_the_raster(tmp_path, monkeypatch, resolution):
    given = tmp_path / "given.tif"
    with rasterio.open(
        given, "w", driver="GTiff", width=2500, height=2500, count=1, dtype="float32", crs=CRS,
        transform=rasterio.Affine(100, 0, 0, 0, -100, 0), tiled=True, sparse_ok=True, nodata=-1,
    ):  # fmt: skip
        pass
    rasters.write_resampled(plane_raster(60, 45), tmp_path / "first.tif")
    monkeypatch.setattr(resampling, "_MEMORY", 4e6)
    tracemalloc.start()
    try:
        rasters.write_resampled(given, tmp_path / "out.tif", resolution)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6e6 < 2500 * 2500 * 4 / 4


@pytest.mark.usefixtures("many_pieces")
@pytest.mark.parametrize("chunks", [{"y": 4, "x": 110}, {"y": 16, "x": 16}])
def test_neither_strips_nor_blocks_are_read_again_for_each_piece(tmp_path, chunks):
    grid = rough_raster().chunk(chunks)
    counts = {}

    def count(values, block_info=None):
        place = tuple(block_info[0]["chunk-location"])
        counts[place] = counts.get(place, 0) + 1
        return values

    lazy = grid.copy(data=grid.data.map_blocks(count, dtype=grid.dtype))
    path = rasters.write_resampled(lazy, tmp_path / "out.tif")
    np.testing.assert_array_equal(rasters.open_raster(path), grid)
    assert len(counts) == grid.data.npartitions
    assert max(counts.values()) <= 2


@pytest.mark.usefixtures("many_pieces")
def test_a_failure_half_way_leaves_nothing_new_and_the_old_file_whole(tmp_path):
    def fail(values, block_info=None):
        if block_info and block_info[0]["chunk-location"][0] == 2:
            raise OSError("disk read error")
        return values

    grid = rough_raster().chunk({"y": 16, "x": 16})
    lazy = grid.copy(data=grid.data.map_blocks(fail, dtype=grid.dtype))
    path = tmp_path / "out.tif"
    path.write_text("old")
    steps = []
    with pytest.raises(OSError, match="disk read error"):
        rasters.write_resampled(lazy, path, progress=lambda *step: steps.append(step))
    assert steps[0] == (1, 42)
    assert len(steps) == 14
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 0}, "resolution 0 must be positive"),
        ({"resolution": 300, "bounds": (0, 0, 900, 1000)}, "whole number of cells of 300 m"),
        ({"bounds": (0, 0, 0, 1000)}, "whole number of cells"),
        ({"bounds": (1000, 1000, 0, 0)}, "whole number of cells"),
        ({"bounds": (9000, 0, 9900, 1000)}, r"are outside those of the raster, \(-2000"),
        ({"method": "spline"}, "nearest, linear or cubic"),
        ({"filler": raster(np.zeros((2, 60, 45)))}, "the filler has 2 bands, the raster 1"),
        ({"path": "out.nc"}, r"ends in \.tif, not 'out\.nc'"),
    ],
)
def test_what_cannot_be_asked_for_is_a_wrong_call(tmp_path, options, message):
    path = tmp_path / options.pop("path", "out.tif")
    with pytest.raises(ValueError, match=message) as caught:
        rasters.write_resampled(plane_raster(60, 45), path, **options)
    assert not isinstance(caught.value, InvalidDataError)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("filler", "message"),
    [
        (plane_raster(crs="EPSG:3413"), "field crs: expected EPSG:3031.*found EPSG:3413"),
        (plane_raster(crs=None), "field crs.*found none"),
        (
            plane_raster(60, 45).assign_attrs(vertical_datum="EIGEN-6C4"),
            "vertical_datum: expected ell",
        ),
        (plane_raster(60, 45).isel(x=slice(None, None, 2)), "expected square cells"),
        (plane_raster(60, 45).isel(x=[0, 1, 3]), "unevenly spaced"),
    ],
)
def test_rasters_that_do_not_go_together_are_refused(tmp_path, filler, message):
    grid = plane_raster(60, 45).assign_attrs(vertical_datum="ellipsoid")
    with pytest.raises(InvalidDataError, match=message) as caught:
        rasters.write_resampled(grid, tmp_path / "out.tif", filler=filler)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_rasters_that_are_absent_or_of_no_known_place_are_refused(tmp_path):
    with pytest.raises(InvalidDataError, match=r"z, field crs.*found none"):
        rasters.write_resampled(plane_raster(crs=None), tmp_path / "out.tif")
    for options in (
        {"raster": "absent.tif"},
        {"raster": plane_raster(60, 45), "filler": "absent.tif"},
    ):
        with pytest.raises(MissingDataError, match=r"absent\.tif"):
            rasters.write_resampled(**options, path=tmp_path / "out.tif")


def test_the_command_fills_and_resamples(tmp_path, call):
    gap = plane_raster(60, 45)
    gap[5:9, 5:9] = np.nan
    fine = rasters.write_geotiff(gap, tmp_path / "surface_100m.tif")
    coarse = rasters.write_geotiff(plane_raster(30, 23, cell=200), tmp_path / "surface_200m.tif")
    out = tmp_path / "filled.tif"
    code, output, _ = call("resample", fine, "--filler", coarse, "--out", out)
    assert code == 0
    assert output.replace("\n", "") == f"{out}: 60 x 45 cells"
    assert np.isfinite(rasters.open_raster(out)).all()
    box = ["--bounds", -1000, -2000, 1000, 2000]
    code, _, _ = call(
        "resample", fine, "--resolution", 500, *box, "--method", "cubic", "--out", out
    )
    assert code == 0
    assert rasters.open_raster(out).shape == (8, 4)


def test_the_command_says_in_one_line_what_is_wrong(tmp_path, call):
    code, _, output = call("resample", "absent.tif", "--out", tmp_path / "out.tif")
    assert code == 1
    assert output.count("\n") == 1
    assert "absent.tif" in output
    fine = rasters.write_geotiff(plane_raster(60, 45), tmp_path / "fine.tif")
    assert call("resample", fine, "--out", tmp_path / "out.nc")[0] == 2
    assert call("resample", fine, "--method", "spline", "--out", tmp_path / "out.tif")[0] == 2
    assert [file.name for file in tmp_path.iterdir()] == ["fine.tif"]
    _, output, _ = call("resample", "--help")
    assert "Example: deepbedmap resample surface_100m.tif --filler" in " ".join(output.split())
