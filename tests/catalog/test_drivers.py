from __future__ import annotations

import json
import pickle
import shutil
import tarfile
import tracemalloc
from pathlib import Path

import dask
import dask.dataframe as dd
import geopandas as gpd
import intake
import numpy as np
import pandas as pd
import pytest
import rioxarray  # noqa: F401
import shapely
import xarray as xr
import yaml
from support.places import EAST, PLACE, WEST, inputs_of, slope
from support.places import raster as raster_of

from deepbedmap import download, rasters, registry, tiles
from deepbedmap.catalog import GridSource, PointsSource, RasterSource, TilesSource, VectorSource
from deepbedmap.errors import InvalidDataError, MissingDataError


@pytest.fixture(autouse=True)
def data_dir(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "data"
    monkeypatch.setenv("DEEPBEDMAP_DATA_DIR", str(folder))
    return folder


@pytest.fixture
def listed(tmp_path):
    """List files in the registry of a repository; return the repository."""

    def write(*filenames: str, **entry: object) -> Path:
        root = tmp_path / "repository"
        (root / "misc").mkdir(parents=True, exist_ok=True)
        files = [{"filename": n, "url": "https://a.org/" + n, "sha256": None} for n in filenames]
        entry = {"citekey": "MadeUp", "title": "Made up", "folder": "misc", "files": files, **entry}
        (root / "data_list.yml").write_text(yaml.safe_dump([entry]))
        return root

    return write


def raster(size: int = 6, value: float = 1) -> xr.DataArray:
    """A raster whose cells hold value times the number of their column."""
    return xr.DataArray(
        np.broadcast_to(np.float32(value) * np.arange(size, dtype="float32"), (size, size)),
        {"y": -450.0 * np.arange(size), "x": 450.0 * np.arange(size)},
        ("y", "x"),
    ).rio.write_crs(3031)


def velocity(path: Path, size: int = 6) -> Path:
    names = {"STDX": raster(size, 9), "VY": raster(size, -1), "VX": raster(size)}
    xr.Dataset(names).to_netcdf(path, engine="h5netcdf")
    return path


def outlines(path: Path, projected: bool = True) -> Path:
    boxes = [shapely.box(n, 0, n + 800, 1000) for n in range(0, 5000, 1000)]
    gpd.GeoDataFrame({"Id": range(5)}, geometry=boxes, crs=3031).to_file(path)
    if not projected:
        path.with_suffix(".prj").unlink()
    return path


def test_the_drivers_are_registered_with_intake():
    assert intake.open_deepbedmap_points is PointsSource
    assert intake.open_deepbedmap_grid is GridSource
    assert intake.open_deepbedmap_raster is RasterSource
    assert intake.open_deepbedmap_vector is VectorSource
    assert intake.open_deepbedmap_tiles is TilesSource


def test_a_velocity_is_its_two_components_in_order_and_other_variables_can_be_chosen(tmp_path):
    path = velocity(tmp_path / "velocity.nc")
    both = RasterSource(path).read()
    assert both.dims == ("band", "y", "x")
    assert list(both.band.to_numpy()) == ["VX", "VY"]
    assert both.rio.crs.to_epsg() == 3031
    np.testing.assert_array_equal(both, [raster(), -raster()])
    rasters.write_netcdf(both, tmp_path / "again.nc")
    assert RasterSource(tmp_path / "again.nc").read().equals(both)
    np.testing.assert_array_equal(RasterSource(path, "STDX").read(), raster(value=9))
    swapped = RasterSource(path, ("VY", "STDX")).read()
    np.testing.assert_array_equal(swapped, [-raster(), raster(value=9)])
    with pytest.raises(InvalidDataError, match="VZ"):
        RasterSource(path, "VZ").read()


@pytest.mark.parametrize("kind", ["velocity", "raster"])
def test_of_a_large_raster_only_a_window_is_read(kind, tmp_path):
    size = 3000  # 36 MB a variable
    if kind == "velocity":
        path = velocity(tmp_path / "velocity.nc", size)
    else:
        path = tmp_path / "surface.tif"
        raster(size).rio.to_raster(path, tiled=True)
    RasterSource(path).read()  # whatever is imported and cached at first
    tracemalloc.start()
    try:
        window = RasterSource(path).read().isel(x=slice(5, 8), y=slice(1000, 1002)).to_numpy()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert window.reshape(-1, 2, 3)[0].tolist() == [[5, 6, 7], [5, 6, 7]]
    assert peak < 20e6


def test_a_raster_can_be_had_in_chunks_and_be_discovered(tmp_path):
    raster().rio.to_raster(tmp_path / "surface.tif")
    source = RasterSource(tmp_path / "surface.tif")
    assert source.read().chunks is None
    assert source.to_dask().chunks == ((6,), (6,))
    found = source.discover()
    assert (found["dtype"], found["shape"], found["npartitions"]) == ("float32", (6, 6), 1)
    assert source.read_partition(0).equals(source.read())


def test_a_file_is_sought_beside_its_registry_then_in_the_data_folder(listed, data_dir):
    root = listed("surface.tif")
    source = RasterSource(root / "catalog" / ".." / "misc" / "surface.tif")
    with pytest.raises(MissingDataError) as error:
        source.read()
    expected = f"{root / 'misc' / 'surface.tif'}: not there; `deepbedmap fetch MadeUp` gets it"
    assert str(error.value) == expected
    (data_dir / "misc").mkdir(parents=True)
    raster(value=2).rio.to_raster(data_dir / "misc" / "surface.tif")
    assert float(source.read().max()) == 10
    raster(value=3).rio.to_raster(root / "misc" / "surface.tif")
    assert float(source.read().max()) == 15


def test_the_vertical_datum_of_the_registry_holds_where_the_file_states_none(listed):
    root = listed("surface.tif", vertical_datum="EIGEN-6C4")
    path = root / "misc" / "surface.tif"
    raster().rio.to_raster(path)
    assert RasterSource(path).read().attrs["vertical_datum"] == "EIGEN-6C4"
    raster().rio.to_raster(path, tags={"vertical_datum": "ellipsoid"})
    assert RasterSource(path).read().attrs["vertical_datum"] == "ellipsoid"


@pytest.mark.parametrize("name", ["surface.tif", "surface.nc"])
def test_a_raster_without_crs_has_the_one_given_or_that_of_the_registry_or_is_refused(
    name, tmp_path, listed
):
    bare = raster().drop_vars("spatial_ref").rename("z")
    path = listed(name) / "misc" / name
    bare.rio.to_raster(path) if path.suffix == ".tif" else bare.to_netcdf(path, engine="h5netcdf")
    with pytest.raises(InvalidDataError, match="a coordinate reference system, found none"):
        RasterSource(path).read()
    assert RasterSource(path, crs="EPSG:9354").read().rio.crs.to_epsg() == 9354
    listed(name, crs="EPSG:3031")
    assert RasterSource(path).read().rio.crs.to_epsg() == 3031
    stated = raster().rio.write_crs(9354)
    stated.rio.to_raster(path.with_suffix(".tif"))
    listed("surface.tif", crs="EPSG:3031")
    assert RasterSource(path.with_suffix(".tif")).read().rio.crs.to_epsg() == 9354


def test_bounds_keep_the_cells_whose_centres_are_inside_and_read_none(tmp_path):
    size = 3000  # 36 MB
    raster(size).rio.to_raster(tmp_path / "surface.tif", tiled=True)
    whole = RasterSource(tmp_path / "surface.tif").read()
    tracemalloc.start()
    try:
        box = np.array([900, -1350, 1799, 0])
        part = RasterSource(tmp_path / "surface.tif", bounds=box).read()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert part.shape == (4, 2)
    assert part.x.to_numpy().tolist() == [900, 1350]
    assert part.y.to_numpy().tolist() == [0, -450, -900, -1350]
    assert part.to_numpy()[0].tolist() == [2, 3]
    assert rasters.name_of(part) == rasters.name_of(whole)
    assert peak < 5e6
    with pytest.raises(InvalidDataError, match=r"surface\.tif, field bounds: expected a box"):
        RasterSource(tmp_path / "surface.tif", bounds=(-1e6, 0, -9e5, 1)).read()


def test_bounds_fit_a_raster_from_south_to_north_too(tmp_path):
    upward = raster().isel(y=slice(None, None, -1)).rename("z")
    upward.to_netcdf(tmp_path / "bed.nc", engine="h5netcdf")
    part = RasterSource(tmp_path / "bed.nc", bounds=(0, -900, 500, 0)).read()
    assert part.y.to_numpy().tolist() == [-900, -450, 0]
    assert part.x.to_numpy().tolist() == [0, 450]


@pytest.mark.parametrize("bounds", [(0, 0, 0, 1), (0, 1, 1, 0), (0, 1, 2), "abcd", (0, 0, 1, "x")])
@pytest.mark.parametrize("driver", [PointsSource, GridSource, RasterSource, VectorSource])
def test_bounds_that_are_no_box_are_a_wrong_call(driver, bounds, tmp_path):
    with pytest.raises(ValueError, match="bounds: expected"):
        driver(tmp_path / "x", bounds=bounds)


def test_outlines_are_read_within_bounds(tmp_path):
    path = outlines(tmp_path / "outlines.shp")
    assert list(VectorSource(path).read()["Id"]) == [0, 1, 2, 3, 4]
    source = VectorSource(path, bounds=np.array([1500, 500, 2100, 600]))
    assert list(source.read()["Id"]) == [1, 2]
    assert VectorSource(path, bounds=(0, 5000, 1, 6000)).read().empty
    assert source.discover()["shape"] == (2, 2)


def test_outlines_without_crs_have_that_of_the_registry_or_are_refused(listed, tmp_path):
    parts = [f"outlines.{suffix}" for suffix in ("shp", "shx", "dbf")]
    path = outlines(listed(*parts, crs="EPSG:3031") / "misc" / "outlines.shp", projected=False)
    assert VectorSource(path).read().crs.to_epsg() == 3031
    listed(*parts)
    for unstated in (path, outlines(tmp_path / "unlisted.shp", projected=False)):
        with pytest.raises(InvalidDataError, match=rf"{unstated.name}, field crs: expected"):
            VectorSource(unstated).read()


@pytest.mark.parametrize("part", ["shp", "shx", "dbf"])
def test_each_missing_part_of_a_shapefile_is_named(part, listed):
    root = listed("outlines.shp", "outlines.shx", "outlines.dbf", crs="EPSG:3031")
    path = outlines(root / "misc" / "outlines.shp")
    path.with_suffix(f".{part}").unlink()
    with pytest.raises(MissingDataError, match=rf"outlines\.{part}: not there; `deepbedmap fetch"):
        VectorSource(path).read()


def test_a_broken_file_of_outlines_is_named_in_one_line(tmp_path):
    path = outlines(tmp_path / "outlines.shp")
    path.write_bytes(b"no shapefile at all")
    with pytest.raises(InvalidDataError) as error:
        VectorSource(path).read()
    assert str(error.value).startswith(f"{path}: expected a file of outlines, found one that")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("driver", [PointsSource, GridSource, RasterSource, VectorSource])
def test_a_file_that_no_registry_lists_is_named_and_cannot_be_fetched(driver, tmp_path):
    path = tmp_path / "misc" / "nothing.json"
    with pytest.raises(MissingDataError, match=rf"{path}: no such"):
        driver(path).read()
    with pytest.raises(MissingDataError, match=r"nothing\.json: cannot be fetched"):
        driver(path, fetch=True).read()


def test_a_training_set_is_sought_under_its_path_then_in_the_data_folder(tmp_path, data_dir):
    beds = {name: raster_of(slope, 250, box) for name, box in (("West", WEST), ("East", EAST))}
    place = tmp_path / "repository" / "training" / "tiles.zarr"
    source = TilesSource(tmp_path / "repository" / "catalog" / ".." / "training" / "tiles.zarr")
    landing = data_dir / "training" / "tiles.zarr"
    with pytest.raises(MissingDataError, match=rf"^{landing}: no such .*`deepbedmap tiles GRID"):
        source.read()
    path = tiles.build(beds, inputs_of(PLACE), landing, step=36)
    expected = tiles.open_training_set(path)
    assert source.read().identical(expected)
    assert source.discover()["shape"]["y"] == expected["y"].shape
    place.parent.mkdir(parents=True)
    path.rename(place)
    found = pickle.loads(pickle.dumps(source)).to_dask()  # noqa: S301
    assert found.identical(tiles.open_training_set(place))
    with pytest.raises(InvalidDataError, match="expected what `deepbedmap tiles` made on this"):
        TilesSource("https://a.org/training/tiles.zarr").read()


def test_a_source_survives_pickling(tmp_path):
    path = velocity(tmp_path / "velocity.nc")
    source = pickle.loads(pickle.dumps(RasterSource(path, variable="VY")))  # noqa: S301
    np.testing.assert_array_equal(source.read(), -raster())


@pytest.fixture
def survey(tmp_path) -> Path:
    """A pipeline and four raw files: one large, one small, one smaller without any pick."""
    folder = tmp_path / "survey" / "highres"
    folder.mkdir(parents=True)
    reader = {
        "type": "readers.text",
        "filename": "20??.csv",
        "header": "X,Y,Z,QUALITY",
        "separator": ",",
        "skip": 1,
        "override_srs": "EPSG:3031",
    }
    keep = {"type": "filters.expression", "expression": "Z > -9999"}
    (folder / "survey.json").write_text(json.dumps({"pipeline": [reader, keep]}))
    for year, count in (("2010", 900), ("2011", 50), ("2012", 300)):
        rows = [f"{n * 400},{-500_000 - 3 * n},{-100 + n},{n % 3 + 1}" for n in range(count)]
        (folder / f"{year}.csv").write_text("\n".join(["x,y,z,quality", *rows, ""]))
    (folder / "2013.csv").write_text("x,y,z,quality\n0,-500000,-9999,1\n")
    return folder / "survey.json"


def test_points_are_had_lazily_one_partition_a_raw_file(survey):
    for parameters in ({}, {"season": "201[02]"}, {"bounds": (0, -600_000, 20_000, 0)}):
        source = PointsSource(survey, **parameters)
        lazy = source.to_dask()
        assert isinstance(lazy, dd.DataFrame)
        assert lazy.npartitions == (2 if "season" in parameters else 4)
        expected = source.read()
        assert lazy.dtypes.drop("line").to_dict() == expected.dtypes.drop("line").to_dict()
        assert not lazy["line"].cat.known
        with dask.config.set(scheduler="sync"):
            found = lazy.compute().reset_index(drop=True)
        pd.testing.assert_frame_equal(found, expected, check_categorical=False)
        assert found["line"].astype(str).equals(expected["line"].astype(str))


def test_of_lazy_points_only_the_smallest_raw_file_is_read_at_once(survey):
    for year in ("2010", "2012"):
        with survey.with_name(f"{year}.csv").open("a") as raw:
            raw.write("this is no record\n")
    lazy = PointsSource(survey).to_dask()
    assert list(lazy.columns) == ["x", "y", "z", "line", "quality"]
    with dask.config.set(scheduler="sync"):
        assert len(lazy.partitions[1].compute()) == 50
        with pytest.raises(InvalidDataError, match=r"201[02]\.csv, line [39]02"):
            lazy.compute()


def test_lazy_points_need_their_raw_files_and_no_geometry(survey):
    with pytest.raises(ValueError, match="without geometry"):
        PointsSource(survey, geometry=True).to_dask()
    with pytest.raises(InvalidDataError, match=r"2010\.csv"):
        PointsSource(survey, season="1999").to_dask()
    for raw in survey.parent.glob("*.csv"):
        raw.unlink()
    with pytest.raises(MissingDataError, match=r"20\?\?\.csv"):
        PointsSource(survey).to_dask()


def test_what_came_out_of_an_archive_is_opened_by_the_archives_name(listed, data_dir):
    file = {"filename": "dem.tar.gz", "url": None, "sha256": None, "members": "*.tif"}
    root = listed(files=[file], crs="EPSG:3031")
    source = RasterSource(root / "misc" / "dem.tar.gz")
    with pytest.raises(MissingDataError, match=r"dem\.tar\.gz: not there; ask the authors"):
        source.read()
    (data_dir / "misc").mkdir(parents=True)
    raster(value=2).rio.to_raster(data_dir / "some_dem.tif")
    for names in (["some_dem.tif"], ["other.tif", "some_dem.tif"]):
        with tarfile.open(data_dir / "misc" / "dem.tar.gz", "w:gz") as archive:
            for name in names:
                archive.add(data_dir / "some_dem.tif", name)
        listing = registry.load(root)
        (*_, path) = download.fetch("dem.tar.gz", registry=listing, data_dir=data_dir, again=True)
        assert path.name == "some_dem.tif"
        if len(names) == 1:
            assert float(source.read().max()) == 10
    with pytest.raises(InvalidDataError, match=r"found other\.tif, some_dem\.tif"):
        source.read()


def test_the_published_grounding_line_is_read(shared_data, listed):
    real = shared_data / "grounding_line" / "groundingline_2008_v2.shp"
    line = VectorSource(real).read()
    assert len(line) == 657
    assert line.crs.to_epsg() == 3031
    box = (-1_700_000, -400_000, -1_500_000, -200_000)
    near = VectorSource(real, bounds=box).read()
    assert 0 < len(near) < 657
    assert near.intersects(shapely.box(*near.total_bounds)).all()
    assert (near.bounds["maxx"] >= box[0]).all()
    # The file of the registry has no .prj.
    parts = [f"{real.stem}.{suffix}" for suffix in ("shp", "shx", "dbf")]
    root = listed(*parts, crs="EPSG:3031")
    for part in parts:
        shutil.copy(real.with_name(part), root / "misc")
    listed_line = VectorSource(root / "misc" / real.name).read()
    assert listed_line.crs == line.crs
    assert listed_line.geometry.equals(line.geometry)
