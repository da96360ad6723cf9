from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import dask.array
import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401  # gives grids their CRS
import xarray as xr
from compliance_checker.runner import CheckSuite, ComplianceChecker
from rio_cogeo import cog_validate

import deepbedmap
from deepbedmap import products, rasters
from deepbedmap.catalog import ProductSource
from deepbedmap.errors import InvalidDataError, MissingDataError
from deepbedmap.products import assembling, storing

SUFFIXES = (".tif", ".nc", ".zarr")
XMIN, YMIN = -1_500_000.0, -500_000.0


def raster(values, cell=250.0, *, north_up=False, datum="EIGEN-6C4", name=None) -> xr.DataArray:
    """A raster with its lower left corner in the Thwaites area."""
    values = np.asarray(values)
    y = YMIN + cell * (np.arange(values.shape[-2]) + 0.5)
    x = XMIN + cell * (np.arange(values.shape[-1]) + 0.5)
    dims = ("realization", "y", "x")[-values.ndim :]
    made = xr.DataArray(values, {"y": y, "x": x}, dims, name)
    if datum is not None:
        made.attrs["vertical_datum"] = datum
    made = made.rio.write_crs("EPSG:3031")
    return made.isel(y=slice(None, None, -1)) if north_up else made


def rough(shape=(60, 44), seed=0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(-500, 300, shape).astype(np.float32)
    values[..., :3, :5] = np.nan
    return values


@pytest.fixture
def ensemble() -> xr.Dataset:
    """A product with every layer; the mask has one of each kind, and a gap."""
    members = raster(rough((3, 60, 44)))
    mask = np.full((15, 11), 2.0)
    mask[4], mask[6], mask[8], mask[10, :2] = 0, 1, 3, np.nan
    return products.assemble(
        members.isel(realization=0),
        raster(np.full((60, 44), 1500.0)),
        thickness=raster(np.full((60, 44), 200.0)),
        mask=raster(mask, 1000.0, datum=None),
        geoid=raster(np.full((60, 44), -29.5), datum=None),
        quality=raster(np.full((60, 44), 5, np.uint8), datum=None),
        members=members,
        provenance={"sources": [{"role": "prior", "citekey": "Fretwell2013BEDMAP2"}]},
        title="A made-up bed",
        summary="Made up",
    )


def test_layers_of_other_cells_are_interpolated_at_the_centres_of_the_beds():
    bed = raster(rough())
    east, north = np.meshgrid(np.arange(13) + 0.5, np.arange(17) + 0.5)
    coarse = raster(10 * east - 3 * north, 1000.0)
    product = products.assemble(bed, coarse, geoid=coarse / 100)
    inner = np.s_[4:-4, 4:]
    column, row = np.meshgrid((np.arange(44) + 0.5) / 4, (np.arange(60) + 0.5) / 4)
    expected = (10 * column - 3 * row)[inner]
    np.testing.assert_allclose(product["surface"].values[inner], expected, atol=1e-4)
    np.testing.assert_allclose(product["geoid"].values[inner], expected / 100, atol=1e-6)
    assert {layer.dtype for layer in (product["surface"], product["geoid"])} == {np.dtype("f4")}
    assert all(layer.chunks for layer in product.data_vars.values())


def test_thickness_is_that_of_ice_alone(ensemble):
    mask, thickness = ensemble["mask"].values, ensemble["thickness"].values
    assert set(np.unique(mask)) == {0, 1, 2, 3, products.UNKNOWN}
    np.testing.assert_array_equal(thickness[mask == 2], (1500 - ensemble["bed"].values)[mask == 2])
    assert (thickness[mask == 3] == 200).all()
    assert (thickness[np.isin(mask, (0, 1))] == 0).all()
    assert np.isnan(thickness[mask == products.UNKNOWN]).all()


def test_without_a_mask_all_is_grounded_ice_and_without_a_thickness_floating_ice_has_none():
    bed, surface = raster(rough()), raster(np.full((60, 44), 900.0))
    product = products.assemble(bed, surface)
    np.testing.assert_array_equal(product["thickness"], 900 - bed)
    afloat = raster(np.full((60, 44), 3), datum=None)
    assert products.assemble(bed, surface, mask=afloat)["thickness"].isnull().all()


def test_an_ensemble_keeps_its_members_and_says_which_one_the_bed_is(ensemble):
    members = rough((3, 60, 44))
    np.testing.assert_array_equal(ensemble["bed_members"], members)
    np.testing.assert_array_equal(ensemble["bed"], members[0])
    np.testing.assert_allclose(ensemble["bed_mean"], members.mean(0), rtol=1e-6)
    spread = members.std(0, ddof=1)
    for name in ("bed_standard_deviation", "bed_error"):
        np.testing.assert_allclose(ensemble[name], spread, rtol=1e-5)
    assert ensemble["bed"].attrs["comment"].startswith("realization 0 of 3: one prediction")
    assert "not how far they all are from the true bed" in ensemble["bed_error"].attrs["comment"]
    assert ensemble["bed"].attrs["ancillary_variables"] == "bed_error source quality"


def test_one_member_has_no_spread():
    product = products.assemble(raster(rough()), members=raster(rough((1, 60, 44))))
    assert {"bed_members"} == {name for name in product if "bed_" in name}


def test_where_a_member_has_no_bed_there_is_no_mean_and_no_spread():
    members = rough((3, 60, 44))
    members[1, 20, 20] = np.nan
    product = products.assemble(raster(members[0]), members=raster(members))
    gap = np.isnan(members).any(0)
    for name in ("bed_mean", "bed_error"):
        np.testing.assert_array_equal(product[name].isnull(), gap)
    np.testing.assert_array_equal(product["source"], ~np.isnan(members[0]))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            {"surface": raster(rough(), datum="ellipsoid")},
            "field vertical_datum: expected EIGEN-6C4 as in .*, found ellipsoid",
        ),
        ({"geoid": raster(rough()).rio.write_crs(3412)}, "field crs: expected EPSG:3031"),
        ({"mask": xr.DataArray(np.ones((2, 2)), {"y": [0, 1], "x": [0, 1]})}, "field crs"),
        ({"quality": raster(np.ones((15, 11)), 1000.0)}, "expected the 60 x 44 cells of the bed"),
        ({"members": raster(rough((2, 60, 43)))}, "expected the 60 x 44 cells of the bed"),
        (
            {"surface": raster(rough()).assign_coords(x=np.arange(44) * 250.0)},
            "field bounds: expected some of the bed's",
        ),
    ],
)
def test_layers_that_do_not_go_with_the_bed_are_refused_in_one_line(layers, message):
    with pytest.raises(InvalidDataError, match=message) as raised:
        products.assemble(raster(rough()), **layers)
    assert "\n" not in str(raised.value)


def test_heights_name_their_datum_and_an_unknown_one_is_logged(caplog):
    product = products.assemble(raster(rough(), datum="ellipsoid"))
    assert product["bed"].attrs["vertical_datum"] == "ellipsoid"
    assert product["bed"].attrs["standard_name"] == "height_above_reference_ellipsoid"
    assert not caplog.messages
    assert products.assemble(raster(rough(), datum=None))["bed"].vertical_datum == "unknown"
    assert caplog.messages == ["raster: the vertical datum of its heights is not stated"]


def complaints(path: Path) -> str:
    """What the CF checker says of a file; nothing where it passes."""
    CheckSuite.load_all_available_checkers()
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        passed, failed = ComplianceChecker.run_checker(str(path), ["cf:1.11"], 0, "strict")
    return "" if passed and not failed else output.getvalue()


def test_netcdf_follows_cf(ensemble, tmp_path):
    assert complaints(products.write(ensemble, tmp_path / "ensemble.nc")) == ""
    bed = raster(rough(), datum="ellipsoid", north_up=True)
    product = products.assemble(bed, bed + 900)
    assert complaints(products.write(product, tmp_path / "bed.nc")) == ""
    del product["bed"].attrs["units"]
    product["bed"].attrs["standard_name"] = "bed_of_ice"
    assert "bed_of_ice" in complaints(products.write(product, tmp_path / "wrong.nc"))


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_what_is_written_in_many_pieces_is_read_as_it_was(ensemble, suffix, tmp_path, monkeypatch):
    monkeypatch.setattr(assembling, "WINDOW", 16)
    monkeypatch.setattr(storing, "_CHUNK", 8)
    ensemble = ensemble.chunk({"y": 13, "x": 16})
    calls = []
    path = tmp_path / f"bed{suffix}"
    products.write(ensemble, path, progress=lambda *count: calls.append(count))
    assert calls == [(number, 12) for number in range(1, 13)]
    opened = products.open_product(path)
    xr.testing.assert_identical(
        opened.drop_vars("spatial_ref").compute(), ensemble.drop_vars("spatial_ref").compute()
    )
    assert opened.rio.crs.to_epsg() == 3031
    assert opened["bed_members"].chunksizes["realization"] == (1, 1, 1)
    names = [file.name for file in tmp_path.iterdir()]
    assert names == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_raster_of_a_product_is_its_bed(ensemble, suffix, tmp_path):
    path = products.write(ensemble, tmp_path / f"bed{suffix}")
    bed = rasters.north_up(rasters.open_raster(path))
    np.testing.assert_array_equal(bed, ensemble["bed"][::-1])
    assert bed.attrs["vertical_datum"] == "EIGEN-6C4"
    assert bed.attrs["units"] == "m"
    assert json.loads(bed.attrs["provenance"])["sources"][0]["role"] == "prior"
    assert rasters.same_crs(rasters.require_crs(bed), rasters.require_crs(ensemble["bed"]))


@pytest.mark.parametrize("north_up", [True, False])
def test_a_cloud_optimized_geotiff_has_overviews_of_averages(north_up, tmp_path):
    values = rough((700, 1100))
    values[:4, :6] = np.nan  # a gap of whole cells of the overview
    product = products.assemble(raster(values, north_up=north_up))
    path = products.write(product, tmp_path / "bed.tif")
    assert cog_validate(path, strict=True) == (True, [], [])
    with rasterio.open(path) as file:
        assert file.bounds == rasters.bounds_of(product["bed"])
        assert file.overviews(1) == [2, 4]
        assert file.compression.name == "deflate"
        assert file.dtypes == ("float32",)
        assert np.isnan(file.nodata)
        np.testing.assert_array_equal(file.read(1), values[::-1])
        half = file.read(1, out_shape=(350, 550))
        assert file.tags()["references"] == products.REFERENCES
        assert file.tags()["title"] == product.attrs["title"]
    blocks = values[::-1].reshape(350, 2, 550, 2)
    np.testing.assert_allclose(half, blocks.mean(axis=(1, 3)), atol=1e-3)


def test_whole_metres_are_rounded_and_the_gap_is_a_number(tmp_path):
    values = rough((600, 44))
    values[-1, -4:] = -0.5, 1.5, 32_767.4, -32_767.4
    product = products.assemble(raster(values))
    path = products.write(product, tmp_path / "bed.tif", dtype="int16")
    assert cog_validate(path, strict=True) == (True, [], [])
    with rasterio.open(path) as file:
        assert (file.dtypes, file.nodata) == (("int16",), -32_768)
        read = file.read(1)[::-1]
    assert read[-1, -4:].tolist() == [0, 2, 32_767, -32_767]
    np.testing.assert_array_equal(read, np.where(np.isnan(values), -32_768, np.rint(values)))
    np.testing.assert_array_equal(rasters.open_raster(path)[::-1], np.rint(values))


@pytest.mark.parametrize("value", [32_767.6, -32_768.0, np.inf])
def test_a_value_beyond_whole_numbers_is_refused_and_leaves_what_was_there(value, tmp_path):
    values = rough()
    path = products.write(products.assemble(raster(values)), tmp_path / "bed.tif")
    before = path.read_bytes()
    values[30, 30] = value
    product = products.assemble(raster(values))
    with pytest.raises(InvalidDataError, match="expected values from -32767 to 32767") as raised:
        products.write(product, path, dtype="int16")
    assert str(raised.value).endswith("; write float32")
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["bed.tif"]


def test_flags_of_a_geotiff_stay_what_they_are(tmp_path):
    mask = raster(np.random.default_rng(0).integers(0, 4, (600, 600)), datum=None)
    product = products.assemble(raster(rough((600, 600))), mask=mask)
    path = products.write(product, tmp_path / "mask.tif", layer="mask")
    with rasterio.open(path) as file:
        assert (file.dtypes, file.nodata) == (("uint8",), None)
        np.testing.assert_array_equal(file.read(1)[::-1], mask)
        assert set(np.unique(file.read(1, out_shape=(300, 300)))) == {0, 1, 2, 3}
        meanings = "ocean ice_free_land grounded_ice floating_ice lake_vostok unknown"
        assert file.tags()["flag_meanings"] == meanings
        assert file.tags()["flag_values"] == "0 1 2 3 4 255"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("bed.grd", {}, "ends in .tif, .nc or .zarr"),
        ("bed.nc", {"dtype": "int16"}, "are for GeoTIFF"),
        ("bed.zarr", {"layer": "bed"}, "are for GeoTIFF"),
        ("bed.tif", {"layer": "beds"}, "layer: expected one of bed, .*, found 'beds'"),
        ("bed.tif", {"layer": "bed_members"}, "layer: expected one of bed"),
        ("bed.tif", {"dtype": "int8"}, "expected float32 or int16"),
        ("bed.tif", {"layer": "mask", "dtype": "int16"}, "expected None"),
    ],
)
def test_a_wrong_call_is_reported(ensemble, name, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        products.write(ensemble, tmp_path / name, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_bed_that_cannot_be_computed_leaves_what_was_there(ensemble, suffix, tmp_path):
    path = products.write(ensemble, tmp_path / f"bed{suffix}")

    def fail(_):
        raise ZeroDivisionError

    ensemble["bed"].data = ensemble["bed"].data.map_blocks(fail, dtype="f4", meta=np.empty((0, 0)))
    with pytest.raises(ZeroDivisionError):
        products.write(ensemble, path)
    np.testing.assert_array_equal(rasters.north_up(rasters.open_raster(path))[0, 6], rough()[-1, 6])
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk_is_reported_in_one_line(suffix, tmp_path):
    product = products.assemble(raster(rough((600, 600))))
    path = tmp_path / f"bed{suffix}"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        with pytest.raises(InvalidDataError, match="expected a folder with room") as raised:
            products.write(product, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_folder_that_cannot_be_written_is_reported_in_one_line(ensemble, suffix, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InvalidDataError, match=r"found (not a directory|file exists); nothing was"):
        products.write(ensemble, tmp_path / "file" / f"bed{suffix}")


KILLED = """
import sys, time
from pathlib import Path
from deepbedmap import products
product = products.open_product(sys.argv[1])
def stop(cells):
    Path(sys.argv[3]).touch()
    time.sleep(60)
    return cells
product["surface"].data = product["surface"].data.map_blocks(stop, meta=product["surface"].data)
products.write(product, sys.argv[2])
"""


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_a_kill_leaves_no_product_that_is_half_written(ensemble, suffix, tmp_path):
    given = products.write(ensemble, tmp_path / "given.zarr")
    path, mark = tmp_path / f"bed{suffix}", tmp_path / "mark"
    child = subprocess.Popen([sys.executable, "-c", KILLED, given, path, mark])
    try:
        until = time.monotonic() + 60
        while not mark.exists() and child.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        assert mark.exists()
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert not path.exists()
    products.write(ensemble, path)
    np.testing.assert_array_equal(products.open_product(path)["bed"], ensemble["bed"])


LARGE = """
import resource, sys
import dask.array, numpy as np, rioxarray, xarray as xr
from deepbedmap import products
side = 4500
cells = dask.array.full((side, side), np.float32(-800), chunks=1024)
axes = {"y": 250.0 * np.arange(side), "x": 250.0 * np.arange(side)}
bed = xr.DataArray(cells, axes, ("y", "x"), attrs={"vertical_datum": "ellipsoid"})
bed = bed.rio.write_crs(3031)
product = products.assemble(bed, bed + 1800)
for path in sys.argv[1:]:
    small = product.isel(y=slice(600), x=slice(600))
    products.write(small, path)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    products.write(product, path)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, product.nbytes // 1024)
"""


def test_memory_is_bounded_by_the_piece(tmp_path):
    paths = [tmp_path / f"bed{suffix}" for suffix in SUFFIXES]
    done = subprocess.run(
        [sys.executable, "-c", LARGE, *paths],
        capture_output=True,
        text=True,
        check=True,
        # Else glibc keeps an arena of freed memory for each thread.
        env=os.environ | {"MALLOC_ARENA_MAX": "2"},
    )
    grown, whole = map(int, done.stdout.split())
    assert whole > 250 * 1024
    assert grown < 190 * 1024
    assert rasters.open_raster(paths[0]).shape == (4500, 4500)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_dataset_behind_a_product_is_cited(ensemble, suffix, tmp_path, call):
    survey = {"role": "training", "citekey": "King2016Rutford"}
    checkpoint = {"role": "checkpoint", "file": "best.safetensors", "sources": [survey]}
    document = json.loads(ensemble.attrs["provenance"])
    document["sources"].append(checkpoint)
    ensemble.attrs["provenance"] = json.dumps(document)
    path = products.write(ensemble, tmp_path / f"bed{suffix}")
    code, output, _ = call("cite", path)
    assert code == 0
    assert "{Fretwell2013BEDMAP2," in output
    assert "{King2016Rutford," in output


def test_a_product_that_is_none_is_reported(tmp_path):
    with pytest.raises(MissingDataError, match=r"no such product; `deepbedmap predict CHECKPOINT"):
        products.open_product(tmp_path / "bed.nc")
    (tmp_path / "bed.nc").write_bytes(b"no")
    with pytest.raises(InvalidDataError, match="found an unreadable file"):
        products.open_product(tmp_path / "bed.nc")
    raster(rough(), name="z").to_dataset().to_zarr(tmp_path / "z.zarr", consolidated=False)
    with pytest.raises(InvalidDataError, match="found a file without a layer bed"):
        products.open_product(tmp_path / "z.zarr")


def test_the_catalog_opens_a_product_of_the_data_folder(ensemble, tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPBEDMAP_DATA_DIR", str(tmp_path))
    source = deepbedmap.open_catalog().products["bed"]
    assert "`deepbedmap predict ... --out products/bed.zarr` makes it" in source.description
    with pytest.raises(MissingDataError, match=rf"^{tmp_path}/products/bed\.zarr: no such product"):
        source.read()
    products.write(ensemble, tmp_path / "products" / "bed.nc")
    assert source.read()["bed"].shape == (60, 44)
    products.write(ensemble.isel(y=slice(40)), tmp_path / "products" / "bed.zarr")
    opened = source.to_dask()
    assert isinstance(opened["bed"].data, dask.array.Array)
    assert opened["bed"].shape == (40, 44)
    assert source.discover()["shape"]["bed_members"] == (3, 40, 44)
    with pytest.raises(InvalidDataError, match="expected what `deepbedmap predict` made on this"):
        ProductSource("https://a.org/products/bed.zarr").read()
