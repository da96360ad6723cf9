"""``deepbedmap map``: a quick look of anything, by its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
import xarray as xr
from support.pictures import AWKWARD, bed, line, pixels, share

from deepbedmap import figures, points, rasters
from deepbedmap.errors import InvalidDataError
from deepbedmap.figures import opening, pick_tables
from deepbedmap.figures.opening import open_data

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

FLAGS = {"flag_values": np.array([0, 1]), "flag_meanings": "ocean grounded_ice"}


def _flags() -> xr.DataArray:
    return bed(np.eye(9)).astype("uint8").assign_attrs(FLAGS)


def _box(crs: str | None = "EPSG:3031") -> gpd.GeoDataFrame:
    return gpd.GeoDataFrame(geometry=[shapely.box(300, 300, 1_500, 1_500), None], crs=crs)


@pytest.mark.parametrize(
    "data",
    [
        lambda: line(1),
        lambda: line(2),
        lambda: {"a": line(2), "b": line(3, y=9)},
        lambda: xr.Dataset({"vx": bed(np.eye(9)), "vy": bed(np.eye(9)), "mask": _flags()}),
        lambda: bed(np.eye(9)).drop_vars("spatial_ref").rio.write_crs("EPSG:4326"),
        _box,
        lambda: {"bed": bed(np.eye(9)), "picks": line(3), "tiles": _box()},
    ],
    ids=["one pick", "two picks", "two surveys", "velocity", "degrees", "outlines", "together"],
)
def test_a_quick_look_is_taken_of_anything(tmp_path, data: Callable[[], Any]):
    image = pixels(figures.quick_look(data(), tmp_path / "look.png", AWKWARD))
    assert (image.min(axis=-1) < 250).mean() > 0.001
    assert [path.name for path in tmp_path.iterdir()] == ["look.png"]


def test_picks_of_another_crs_lie_where_they_are_on_a_raster(tmp_path):
    grid = bed(np.zeros((40, 40)), 1_000, -20_000, -1_020_000)
    x = np.linspace(-18_000, 18_000, 50)
    points = gpd.GeoDataFrame(geometry=gpd.points_from_xy(x, 0 * x - 1_000_000), crs=3031)
    turned = points.to_crs(3032).geometry
    table = pd.DataFrame({"x": turned.x, "y": turned.y})
    table.attrs["crs"] = "EPSG:3032"
    first, *others = (
        pixels(figures.quick_look({"bed": grid, "picks": given}, tmp_path / "look.png"))
        for given in (points, points.to_crs(4326), table)
    )
    assert share(first, (0, 0, 0)) > 0.003
    for other in others:
        assert (np.abs(first - other).max(axis=-1) > 60).mean() < 0.001


def test_layers_are_taken_for_what_their_names_and_types_say():
    from deepbedmap.figures.overview import kind_of

    kinds = {
        name: kind_of(xr.DataArray(np.zeros((2, 2)), name=name), "x")
        for name in ("bed", "bed_error", "thickness", "dem_minus_prior", "v", "mask", "roughness")
    }
    assert kinds == {
        "bed": "elevation",
        "bed_error": "amount",
        "thickness": "amount",
        "dem_minus_prior": "difference",
        "v": "speed",
        "mask": "flags",
        "roughness": "roughness",
    }
    assert kind_of(_flags(), "bed") == "flags"


@pytest.mark.parametrize("data", [lambda: line(0), dict], ids=["no pick", "nothing"])
def test_where_there_is_nothing_to_draw_that_is_told(tmp_path, data):
    with pytest.raises(InvalidDataError):
        figures.quick_look(data(), tmp_path / "look.png")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder, which is also where data are sought."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEEPBEDMAP_DATA_DIR", str(tmp_path / "data"))
    return tmp_path


def test_a_raster_is_drawn_beside_the_working_folder_with_picks_upon_it(call, here):
    folder = here / "elsewhere"
    rasters.write_geotiff(bed(np.zeros((40, 40))), folder / "a +t@ bed.tif")
    code, said, error = call("map", folder / "a +t@ bed.tif")
    assert (code, said, error) == (0, "a +t@ bed_map.png\n", "")
    picks = line(90, y=5_000)
    points.write_points(picks, here / "picks.parquet")
    assert call("map", folder / "a +t@ bed.tif", "picks.parquet", "--out", "both.png")[0] == 0
    bare, both = pixels(here / "a +t@ bed_map.png"), pixels(here / "both.png")
    assert share(both, (0, 0, 0)) > share(bare, (0, 0, 0)) + 0.001
    assert sorted(path.name for path in here.iterdir()) == [
        *("a +t@ bed_map.png", "both.png", "elsewhere", "picks.parquet")
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["bedmap2_bd"], 1, "did you mean bedmap2_bed"),
        (["nothing.tif"], 1, "nothing.tif: neither a file nor an entry"),
        (["bedmap2_bed"], 1, "deepbedmap fetch"),
        (["King2016Rutford"], 1, "bed_WGS84_grid_points"),
        (["training/tiles"], 1, "deepbedmap tiles"),
        (["no_crs.tif"], 1, "coordinate reference system"),
        (["empty.tif"], 1, "empty.tif: expected some finite values"),
        (["notes.txt"], 1, ".parquet"),
        (["table.csv"], 1, "columns x and y"),
        (["bed.tif", "--bounds", "9e6", "9e6", "9.1e6", "9.1e6"], 1, "bounds"),
        (["bed.tif", "--out", "map.gif"], 2, ".png"),
        (["bed.tif", "--kind", "bed"], 2, "elevation"),
        (["bed.tif", "bed.tif", "empty.tif", "--title", "x"], 2, "single"),
        (["table.csv", "--variable", "x"], 2, "no raster"),
        ([], 2, "ENTRY|FILE"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(call, here, monkeypatch, arguments, code, told):
    monkeypatch.setattr("deepbedmap.repository.data_dir", lambda: here)
    grid = bed(np.eye(9))
    rasters.write_geotiff(grid, here / "bed.tif")
    rasters.write_geotiff(grid * np.nan, here / "empty.tif")
    with rasterio.open(here / "bed.tif") as source:
        profile = source.profile | {"crs": None}
        with rasterio.open(here / "no_crs.tif", "w", **profile) as file:
            file.write(source.read())
    (here / "notes.txt").write_text("a bed")
    (here / "table.csv").write_text("a,b\n1,2\n")
    before = sorted(here.iterdir())
    found, said, error = call("map", *arguments)
    assert (found, said) == (code, "")
    assert told in error
    assert error.count("Error") == 1
    assert "Traceback" not in error
    assert sorted(here.iterdir()) == before


def test_a_geotiff_is_read_from_its_overview(tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "MOST", 16)
    values = np.add.outer(np.arange(96.0), np.arange(96.0))
    rasters.write_geotiff(bed(values), tmp_path / "bed.tif")
    with rasterio.open(tmp_path / "bed.tif", "r+") as file:
        file.build_overviews([2, 4, 8], rasterio.enums.Resampling.average)
    whole = open_data(tmp_path / "bed.tif").data
    assert whole.shape == (24, 24)
    assert rasters.resolution_of(whole) == 1_000
    box = (2_000.0, 4_000.0, 20_000.0, 14_000.0)
    part = open_data(tmp_path / "bed.tif", bounds=box).data
    assert part.shape == (10, 18)  # of 1 km
    expected = rasters.interpolate(bed(values), part.x, part.y)
    np.testing.assert_allclose(part, expected, atol=1e-3)


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_layers_of_a_file_are_drawn_and_one_can_be_named(tmp_path, suffix):
    layers = {name: bed(np.eye(9)) for name in ("smb", "vx", "vy", "bed")}
    path = tmp_path / f"several{suffix}"
    if suffix == ".nc":
        rasters.write_netcdf(xr.Dataset(layers), path)
    else:
        xr.Dataset(layers).to_zarr(path, consolidated=False)
    opened = open_data(path)
    assert set(opened.data) == set(layers)
    assert opened.source == f"several{suffix}; EPSG:3031."
    one = open_data(path, "smb", bounds=(0.0, 0.0, 1_000.0, 500.0)).data
    assert (one.name, one.shape) == ("smb", (2, 4))
    with pytest.raises(InvalidDataError, match="smb"):
        open_data(path, "none")


@pytest.mark.parametrize(
    ("text", "crs", "x"),
    [
        ("x,y,z\n1000,2000,3\n,5,6\n", None, 1_000),
        ("Easting,Northing\n1000,2000\n", "EPSG:3031", 1_000),
        ("LON,LAT,THICK\n90,-80,3\n", "EPSG:3031", 1_089_000),
    ],
)
def test_picks_of_a_table_are_found_by_the_names_of_its_columns(tmp_path, text, crs, x):
    (tmp_path / "picks.csv").write_text(text)
    picks = open_data(tmp_path / "picks.csv", crs=crs).data
    assert len(picks) == 1
    assert picks["x"].iloc[0] == pytest.approx(x, rel=1e-3)
    assert picks.attrs["crs"] == (crs or None)


def test_of_many_picks_those_are_drawn_that_can_be_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(pick_tables, "_MANY", 50)
    many = pd.concat([line(60), line(60)], ignore_index=True)
    many.attrs["crs"] = "EPSG:3031"
    points.write_points(many, tmp_path / "picks.parquet")
    opened = open_data(tmp_path / "picks.parquet").data
    assert len(opened) == 60
    assert opened.attrs["picks"] == 120
    assert opened.attrs["crs"] == "EPSG:3031"


def test_tiles_and_outlines_are_opened_with_their_crs(tmp_path):
    _box().to_file(tmp_path / "tiles.geojson")
    opened = open_data(tmp_path / "tiles.geojson")
    assert opened.data.crs == "EPSG:3031"
    assert opened.title == "tiles.geojson"


def test_entries_of_the_catalog_are_opened_by_their_names(here):
    raw = here / "data" / "highres" / "bed_WGS84_grid.txt"
    raw.parent.mkdir(parents=True)
    x, y = np.meshgrid(np.arange(-1_290_000, -1_288_000, 250), np.arange(130_000, 132_000, 250))
    records = np.column_stack([x.ravel(), y.ravel(), 0.01 * x.ravel(), *[np.ones(x.size)] * 2])
    np.savetxt(raw, records, "%.2f", "\t", header="\n" * 19, comments="")
    picks = open_data("bed_WGS84_grid_points")
    assert (len(picks.data), picks.data.attrs["picks"]) == (64, 64)
    assert picks.data.attrs["crs"] == "EPSG:3031"
    assert picks.source.startswith("King, Edward C.")
    box = (-1_290_000.0, 130_000.0, -1_289_000.0, 132_000.0)
    assert len(open_data("highres/bed_WGS84_grid_points", bounds=box).data) == 40
    gridded = open_data("bed_WGS84_grid").data
    assert gridded.dims == ("y", "x")
    look = figures.quick_look({"grid": gridded, "picks": picks.data}, here / "look.png")
    assert share(pixels(look), (0, 0, 0)) > 0.003


def test_real_data_are_drawn(call, here, shared_data):
    files = ("byrd/byrd_500m.nc", "79N/79N.csv", "grounding_line/groundingline_2008_v2.shp")
    for name in files:
        code, said, _ = call("map", shared_data / name, "--out", "map.png")
        assert (code, said) == (0, "map.png\n")
        assert (pixels(here / "map.png").min(axis=-1) < 250).mean() > 0.02
