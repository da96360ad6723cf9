"""Training sets: what is cut, what is left out, what is written down, and going on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
import xarray as xr
from support.citing import sources_of
from support.places import EAST, PLACE, WEST, inputs_of, raster, slope

from deepbedmap import grids, rasters, tiles, validation
from deepbedmap.errors import InvalidDataError, MissingDataError
from deepbedmap.model.training import TrainingSet
from deepbedmap.places import TEST_AREAS
from deepbedmap.tiles import Inputs, build, building, open_training_set
from deepbedmap.tiles.inputs import INPUTS

EDGES = ["xmin", "ymin", "xmax", "ymax"]


def survey(bounds: tuple[float, float, float, float], **how: Any) -> xr.DataArray:
    return raster(slope, 250, bounds, **how).rename("z")


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    return inputs_of(PLACE)


@pytest.fixture(scope="module")
def surveys() -> dict[str, xr.DataArray]:
    return {"West": survey(WEST), "East": survey(EAST)}


@pytest.fixture(scope="module")
def built(surveys, inputs, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("training") / "tiles.zarr"
    return build(surveys, inputs, path, step=18, seed=1)


def boxes_of(dataset: xr.Dataset) -> np.ndarray:
    return shapely.box(*(dataset[edge].to_numpy() for edge in EDGES))


def assert_same(one: xr.Dataset, other: xr.Dataset) -> None:
    xr.testing.assert_identical(one.load(), other.load())


def test_tiles_are_those_of_the_rasters_at_their_windows(built):
    dataset = open_training_set(built)
    sizes = {"x": (1, 11, 11), "w1": (1, 110, 110), "w2": (2, 22, 22), "w3": (1, 11, 11)}
    for name, size in (sizes | {"y": (1, 36, 36), "mask": (1, 36, 36)}).items():
        assert dataset[name].dims[0] == "tile"
        assert dataset[name].shape[1:] == size
        assert dataset[name].dtype == (bool if name == "mask" else np.float32)
        assert dataset[name].chunks is not None
    assert dataset.sizes["tile"] > 60
    middle = {axis: (dataset[f"{axis}min"] + dataset[f"{axis}max"]).to_numpy() / 2 for axis in "xy"}
    height = slope(middle["x"], middle["y"])
    for name, above in (("x", 0), ("y", 0), ("w1", 1_000)):
        np.testing.assert_allclose(
            dataset[name].mean(dataset[name].dims[1:]), above + height, atol=0.02
        )
        corner = dataset[name].to_numpy()[:, 0, 0, 0] - height - above
        half = {"x": 5_000, "y": 4_375, "w1": 5_450}[name]  # from the middle to that cell's centre
        np.testing.assert_allclose(corner, slope(-half, half) - 100, atol=0.02)
    assert (dataset["w2"].mean(("tile", "w2_row", "w2_column")) == [3, -4]).all()
    assert (dataset["w3"] == 200).all()
    assert dataset["mask"].all()


def test_a_training_set_says_what_it_holds(built):
    dataset = open_training_set(built)
    assert {name: dataset[name].attrs["units"] for name in dataset.data_vars} == {
        "x": "m",
        "w1": "m",
        "w2": "m a-1",
        "w3": "kg m-2 a-1",
        "y": "m",
        "mask": "1",
    }
    cells = {"x": 1_000, "w1": 100, "w2": 500, "w3": 1_000, "y": 250, "mask": 250}
    assert {name: dataset[name].attrs["resolution"] for name in dataset.data_vars} == cells
    for name in ("x", "w1", "y"):
        assert dataset[name].attrs["vertical_datum"] == "ellipsoid"
    assert all("long_name" in variable.attrs for variable in dataset.data_vars.values())
    assert dataset["y"].encoding["grid_mapping"] == "spatial_ref"
    assert dataset["spatial_ref"].attrs["grid_mapping_name"] == "polar_stereographic"
    assert (dataset.attrs["crs"], dataset.attrs["vertical_datum"]) == ("EPSG:3031", "ellipsoid")
    provenance = json.loads(dataset.attrs["provenance"])
    assert provenance["windows"] == {"size": 36, "step": 18, "coverage": 1.0}
    assert provenance["excluded"]["buffer"] == 11_000
    assert provenance["excluded"]["areas"] == {n: list(box) for n, box in TEST_AREAS.items()}
    assert provenance["split"] == {
        "by": "block",
        "block": 40_000,
        "validation": 0.2,
        "buffer": 11_000,
        "seed": 1,
    }
    assert [source.get("survey") for source in provenance["sources"]][:2] == ["West", "East"]


@pytest.mark.parametrize("by", ["block", "survey"])
def test_parts_and_test_areas_lie_11_km_apart(by, surveys, inputs, built, tmp_path):
    path = built
    if by == "survey":
        path = build(surveys, inputs, tmp_path / "tiles.zarr", step=24, by="survey")
    dataset = open_training_set(path)
    boxes, split = boxes_of(dataset), dataset["split"].to_numpy()
    assert set(split) == {"train", "validation"}
    held_out = shapely.union_all(boxes[split == "validation"])
    assert shapely.distance(boxes[split == "train"], held_out).min() >= 11_000
    areas = shapely.union_all([shapely.box(*area) for area in TEST_AREAS.values()])
    assert shapely.distance(boxes, areas).min() >= 11_000
    assert set(dataset["survey"].to_numpy()) == {"West", "East"}
    if by == "survey":
        pairs = zip(dataset["survey"].to_numpy(), split, strict=True)
        assert len(set(pairs)) == 2


def test_test_areas_can_be_kept(surveys, inputs):
    every = tiles.find(surveys, inputs, step=24)
    clear = tiles.find(surveys, inputs, step=24, exclude=TEST_AREAS)
    assert len(clear) < len(every)
    assert set(clear.index) < set(every.index)


def test_only_windows_that_every_input_surrounds_are_cut(surveys, inputs):
    xmin, ymin, xmax, ymax = PLACE
    smaller = inputs_of((xmin + 6_000, ymin, xmax, ymax)).accumulation
    fewer = Inputs(inputs.prior, inputs.surface, inputs.velocity, smaller)
    found = tiles.find(surveys, fewer, step=18)
    assert found["xmin"].min() == WEST[0] + 9_000  # another, 4.5 km further west, is 0.5 km inside
    assert len(found) < len(tiles.find(surveys, inputs, step=18))


def test_sparse_surveys_give_tiles_with_a_mask(inputs, tmp_path):
    sparse = {}
    for name, bounds in (("West", WEST), ("East", EAST)):
        bed = survey(bounds)
        lines = (np.arange(bed.sizes["y"]) % 4)[:, None] == 0
        sparse[name] = bed.where(xr.DataArray(lines, dims=("y", "one")).isel(one=0))
    options: dict[str, Any] = {"coverage": 0.2, "step": 36}
    dataset = open_training_set(build(sparse, inputs, tmp_path / "t.zarr", **options)).load()
    np.testing.assert_array_equal(dataset["mask"], np.isfinite(dataset["y"]))
    shares = dataset["mask"].mean(("y_band", "y_row", "y_column"))
    np.testing.assert_allclose(shares, dataset["coverage"])
    assert (shares == 0.25).all()
    assert dataset["complete"].all()
    loaded = TrainingSet.from_dataset(dataset, "train")
    train = dataset["mask"][dataset["split"].to_numpy() == "train"]
    np.testing.assert_array_equal(loaded.tensors["mask"], train)
    west = dataset.isel(tile=dataset["survey"].to_numpy() == "West")
    windows = np.stack([west[edge] for edge in EDGES], axis=1)
    np.testing.assert_array_equal(
        west["mask"].squeeze("y_band"), tiles.masks(sparse["West"], windows)
    )


def test_gaps_of_prior_and_surface_cost_tiles_and_others_are_told(surveys, inputs, tmp_path):
    def holed(values: xr.DataArray, x: float, y: float, width: float = 500) -> xr.DataArray:
        hole = (abs(values.x - x) < width) & (abs(values.y - y) < width)
        return values.where(~hole).assign_attrs(values.attrs)

    gaps = {
        "prior": (-1_690_500, -230_500),
        "surface": (-1_690_000, -270_000),
        "velocity": (-1_500_250, -250_250),
    }
    places = {name: holed(getattr(inputs, name), *place) for name, place in gaps.items()}
    partly = Inputs(**places, accumulation=inputs.accumulation)
    options: dict[str, Any] = {"step": 18, "seed": 1}
    dataset = open_training_set(build(surveys, partly, tmp_path / "t.zarr", **options)).load()
    boxes = boxes_of(dataset)
    near = {n: shapely.dwithin(boxes, shapely.Point(*p), 400) for n, p in gaps.items()}
    assert not near["prior"].any()
    assert not near["surface"].any()
    assert near["velocity"].any()
    assert not dataset["complete"].to_numpy()[near["velocity"]].any()
    for name in ("x", "w1", "w3"):
        assert np.isfinite(dataset[name]).all()
    whole = np.isfinite(dataset["w2"]).all(("w2_band", "w2_row", "w2_column"))
    np.testing.assert_array_equal(whole, dataset["complete"])

    filler = raster(lambda x, y: 1_000 + slope(x, y), 200, PLACE)
    filled = Inputs(inputs.prior, places["surface"], inputs.velocity, inputs.accumulation, filler)
    kept = open_training_set(build(surveys, filled, tmp_path / "f.zarr", **options))
    assert kept.sizes["tile"] > dataset.sizes["tile"]


def test_tiles_can_be_kept_to_grounded_ice(surveys, inputs, tmp_path):
    land = shapely.box(-1_680_000, -300_000, -1_400_000, -200_000)
    path = tmp_path / "line.gpkg"
    gpd.GeoDataFrame(geometry=[land], crs=3031).to_file(path)
    options: dict[str, Any] = {"step": 24, "grounding_line": path, "grounding_buffer": 2_000}
    dataset = open_training_set(build(surveys, inputs, tmp_path / "t.zarr", **options))
    assert dataset["xmin"].min() >= -1_678_000
    assert set(dataset["survey"].to_numpy()) == {"West", "East"}
    provenance = json.loads(dataset.attrs["provenance"])
    assert provenance["grounded"] == {"outlines": "line.gpkg", "buffer": 2_000}
    assert provenance["sources"][-1]["role"] == "grounding line"
    assert len(provenance["sources"][-1]["sha256"]) == 64


def test_footprints_stand_beside_it_for_maps_of_both_kinds(built):
    dataset = open_training_set(built)
    projected, degrees = (
        gpd.read_file(built.with_name(f"tiles_{code}.geojson")) for code in (3031, 4326)
    )
    assert (projected.crs.to_epsg(), degrees.crs.to_epsg()) == (3031, 4326)
    for footprints in (projected, degrees):
        for name in ("split", "survey", "xmin", "ymax"):
            assert (footprints[name] == dataset[name].to_numpy()).all()
    assert shapely.equals(shapely.normalize(projected.geometry), boxes_of(dataset)).all()
    assert degrees.total_bounds[3] < -74
    assert validation.check([built.with_name("tiles_3031.geojson")]) == []


def interrupt(batch: int) -> Any:
    """End a run as an interrupt does once it has cut so many batches."""
    batches = iter(range(1, batch + 1))

    def progress(done: int, total: int) -> None:
        if next(batches) == batch:
            raise KeyboardInterrupt

    return progress


def test_what_was_cut_of_other_data_is_not_gone_on_from(inputs, surveys, tmp_path, monkeypatch):
    monkeypatch.setattr(building, "BATCH", 20)
    path = tmp_path / "tiles.zarr"
    with pytest.raises(KeyboardInterrupt):
        build(surveys, inputs, path, step=18, progress=interrupt(2))
    higher = surveys["West"].copy(data=surveys["West"] + 50)
    build({**surveys, "West": higher}, inputs, path, step=18)
    dataset = open_training_set(path)
    of_west = dataset.isel(tile=dataset["survey"].to_numpy() == "West")
    middle = of_west["y"].isel(y_band=0, y_row=0, y_column=0)
    expected = slope(of_west["xmin"] + 125, of_west["ymax"] - 125) + 50
    np.testing.assert_allclose(middle, expected, atol=0.02)


KILLED = """
import os, signal, sys
from support.places import EAST, PLACE, WEST, inputs_of, raster, slope
from deepbedmap.tiles import building
building.BATCH = 20
building.build(
    {name: raster(slope, 250, box).rename("z") for name, box in (("West", WEST), ("East", EAST))},
    inputs_of(PLACE), sys.argv[1], step=18, seed=1,
    progress=lambda done, total: done == 40 and os.kill(os.getpid(), signal.SIGKILL),
)
"""


def test_a_run_that_was_killed_goes_on(built, surveys, inputs, tmp_path, monkeypatch):
    path = tmp_path / "tiles.zarr"
    command = [sys.executable, "-c", KILLED, str(path)]
    killed = subprocess.run(command, cwd=Path(__file__).parent, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert not path.exists()
    monkeypatch.setattr(building, "BATCH", 20)
    steps = []
    build(surveys, inputs, path, step=18, seed=1, progress=lambda *counts: steps.append(counts))
    total = open_training_set(path).sizes["tile"]
    assert steps[0] == (60, total)
    assert steps[-1] == (total, total)
    assert_same(open_training_set(path), open_training_set(built))
    names = {"tiles.zarr", "tiles_3031.geojson", "tiles_4326.geojson"}
    assert {file.name for file in tmp_path.iterdir()} == names


def test_the_workers_of_a_cluster_cut_the_same(built, surveys, inputs, tmp_path, monkeypatch):
    from distributed import Client, LocalCluster

    monkeypatch.setattr(building, "BATCH", 20)
    # Of dask arrays too, as a NetCDF file's velocity is: no worker must wait for another.
    chunked = Inputs(
        inputs.prior, inputs.surface, rasters.chunked(inputs.velocity), inputs.accumulation
    )
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
    ):
        path = build(surveys, chunked, tmp_path / "t.zarr", step=18, seed=1, client=client)
    assert_same(open_training_set(path), open_training_set(built))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crs": 3413}, r"East: z, field crs: expected EPSG:3031"),
        ({"datum": "EIGEN-6C4"}, r"East: z, field vertical_datum: expected ellipsoid"),
    ],
)
def test_a_grid_that_does_not_go_with_the_others_is_named(
    change, message, surveys, inputs, tmp_path
):
    mixed = {**surveys, "East": survey(EAST, **change)}
    with pytest.raises(InvalidDataError, match=message):
        build(mixed, inputs, tmp_path / "tiles.zarr")
    with pytest.raises(InvalidDataError, match=message):
        tiles.find(mixed)
    assert list(tmp_path.iterdir()) == []


def test_inputs_on_another_datum_than_the_grids_are_refused(surveys, tmp_path):
    unstated = inputs_of(PLACE, prior=raster(slope, 1_000, PLACE, datum=None))
    above_geoid = raster(slope, 100, PLACE, datum="EIGEN-6C4")
    mixed = Inputs(unstated.prior, above_geoid, unstated.velocity, unstated.accumulation)
    with pytest.raises(InvalidDataError, match="vertical_datum"):
        build(surveys, mixed, tmp_path / "tiles.zarr")


def test_a_datum_that_nothing_states_is_told(tmp_path, caplog):
    bare = {name: survey(box, datum=None) for name, box in (("West", WEST), ("East", EAST))}
    inputs = inputs_of(PLACE)
    for source in (inputs.prior, inputs.surface):
        source.attrs.clear()
    dataset = open_training_set(build(bare, inputs, tmp_path / "tiles.zarr", step=24))
    assert dataset.attrs["vertical_datum"] == "unknown"
    assert "unstated" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 400}, "expected some of 400 x 400 cells"),
        ({"exclude_buffer": 100_000}, "expected some clear of Pine Island"),
        ({"block": 1e6, "step": 36}, "expected some windows to train on"),
        ({"buffer": 1e6, "step": 36}, "expected some windows to train on"),
    ],
)
def test_a_set_or_a_part_without_tiles_is_refused(options, message, surveys, inputs, tmp_path):
    with pytest.raises(InvalidDataError, match=message) as error:
        build(surveys, inputs, tmp_path / "tiles.zarr", **options)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_part_whose_tiles_all_have_gaps_is_refused(surveys, inputs, tmp_path):
    prior = inputs.prior.where(inputs.prior.x < -1_600_000).assign_attrs(inputs.prior.attrs)
    blank = Inputs(prior, inputs.surface, inputs.velocity, inputs.accumulation)
    with pytest.raises(InvalidDataError, match=r"expected some for (train|validation) without a"):
        build(surveys, blank, tmp_path / "tiles.zarr", by="survey", step=24)
    assert not (tmp_path / "tiles.zarr").exists()


def test_rasters_of_the_wrong_shape_are_refused(surveys, inputs, tmp_path):
    coarse = {**surveys, "East": raster(slope, 500, EAST)}
    with pytest.raises(InvalidDataError, match="entry East: expected a grid with cells of 250 m"):
        build(coarse, inputs, tmp_path / "tiles.zarr")
    single = inputs_of(PLACE, velocity=inputs.velocity.isel(band=0))
    with pytest.raises(InvalidDataError, match=r"bands of ice velocity.*: 2, found 1"):
        build(surveys, single, tmp_path / "tiles.zarr")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 30}, "multiple of 4"),
        ({"path": "tiles.nc"}, r"ends in \.zarr"),
        ({"exclude": "Pine Iland"}, "Pine Island"),
        ({"grids": {}}, "at least one survey"),
        ({"validation": 0}, "validation"),
    ],
)
def test_a_wrong_call_is_refused(options, message, surveys, inputs, tmp_path):
    path = tmp_path / options.pop("path", "tiles.zarr")
    with pytest.raises(ValueError, match=message):
        build(options.pop("grids", surveys), inputs, path, step=36, **options)


def test_what_is_no_training_set_is_told(built, tmp_path):
    with pytest.raises(MissingDataError, match=r"`deepbedmap tiles GRID\.\.\. --out .*absent"):
        open_training_set(tmp_path / "absent.zarr")
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(InvalidDataError, match=r"empty\.zarr: expected a training set"):
        open_training_set(tmp_path / "empty.zarr")
    xr.Dataset({"x": ("tile", [1.0])}).to_zarr(
        tmp_path / "other.zarr", zarr_format=3, consolidated=False
    )
    with pytest.raises(InvalidDataError, match="found one without w1, w2, w3, y, mask, xmin"):
        open_training_set(tmp_path / "other.zarr")


def test_a_part_is_loaded_for_training(built):
    dataset = open_training_set(built)
    counts = pd.Series(dataset["split"].to_numpy()).value_counts()
    train, held_out = (TrainingSet.from_dataset(dataset, part) for part in ("train", "validation"))
    assert (len(train), len(held_out)) == (counts["train"], counts["validation"])
    number = int(np.flatnonzero(dataset["split"].to_numpy() == "validation")[3])
    for name in (*INPUTS, "y"):
        np.testing.assert_array_equal(held_out.tensors[name][3], dataset[name][number])
    with pytest.raises(ValueError, match="train or validation, not 'test'"):
        TrainingSet.from_dataset(dataset, "test")


@pytest.fixture
def files(surveys, inputs, tmp_path) -> dict[str, Path]:
    """The grids and rasters as files."""
    for name, bed in surveys.items():
        rasters.write_netcdf(bed, tmp_path / f"{name}.nc")
    for name in ("prior", "surface", "accumulation"):
        rasters.write_geotiff(getattr(inputs, name), tmp_path / f"{name}.tif")
    components = {name: inputs.velocity.isel(band=band) for band, name in enumerate(("vx", "vy"))}
    rasters.write_netcdf(xr.Dataset(components), tmp_path / "velocity.nc")
    return {path.stem: path for path in tmp_path.iterdir()}


def test_the_command_cuts_files_as_the_function_does(call, files, built, tmp_path, listed_datasets):
    out = tmp_path / "training" / "tiles.zarr"
    names = ("prior", "surface", "velocity", "accumulation")
    options = [part for name in names for part in (f"--{name}", files[name])]
    command = ["tiles", files["West"], files["East"], "--out", out, "--step", 18, "--seed", 1]
    code, output, err = call(*command, *options)
    assert code == 0, err
    dataset, expected = open_training_set(out), open_training_set(built)
    assert f"{int((dataset['split'] == 'train').sum())} tiles to train on" in output
    sources = json.loads(dataset.attrs["provenance"])["sources"]
    assert [source["role"] for source in sources] == ["training", "training", *names]
    assert all(len(source["sha256"]) == 64 for source in sources)
    dataset.attrs.pop("provenance")
    expected.attrs.pop("provenance")
    assert_same(dataset, expected)

    listing = listed_datasets(
        *(
            {"citekey": f"MadeUp{n}", "title": "Made up", "folder": "misc", "files": [file]}
            for n, source in enumerate(sources)
            for file in [{"filename": source["file"], "url": None, "sha256": source["sha256"]}]
        )
    )
    assert sources_of(out, listing) == [f"MadeUp{n}" for n in range(6)]


def test_the_command_tells_which_rasters_a_training_set_needs(call, files, tmp_path):
    code, _, err = call("tiles", files["West"], "--out", tmp_path / "t.zarr")
    assert code == 2
    assert "--prior" in err
    code, _, err = call("tiles", files["West"], "--out", "w.geojson", "--surface", files["surface"])
    assert code == 2
    assert "--surface" in err


def test_the_command_splits_windows_and_keeps_off_test_areas(call, files, tmp_path):
    out = tmp_path / "windows.gpkg"
    command = ["tiles", files["West"], files["East"], "--out", out, "--step", 18]
    assert call(*command)[0] == 0
    every = gpd.read_file(out)
    assert set(every["survey"]) == {"West", "East"}
    assert "split" not in every
    assert call(*command, "--exclude", "all", "--split", "survey")[0] == 0
    windows = gpd.read_file(out)
    assert len(windows) < len(every)
    assert windows.groupby("survey")["split"].nunique().eq(1).all()
    assert call(*command, "--exclude", "Thwaites")[0] == 0
    assert len(gpd.read_file(out)) == len(every)
    assert call(*command, "--grounded", "--grounding-buffer", 20_000)[0] == 0
    assert 0 < len(gpd.read_file(out)) < len(every)
    code, _, err = call(*command, "--exclude", "Thwaits")
    assert code == 2
    assert "Thwaites" in err


def test_real_rasters_and_picks_become_a_training_set(shared_data, tmp_path):
    with xr.open_dataset(shared_data / "byrd" / "byrd_500m.nc", engine="h5netcdf") as place:
        place = place.load()
    picks = pd.read_csv(shared_data / "byrd" / "byrd_radar_bed.csv")
    picks.attrs = {"crs": "EPSG:3031", "vertical_datum": "ellipsoid"}
    bed = grids.grid_points(picks)
    velocity = xr.concat([place["vx"], place["vy"]], "band")
    sources = {
        "prior": (place["bm_bed"] + place["bm_geoid"]).assign_attrs(vertical_datum="ellipsoid"),
        "surface": place["surface_ellipsoid"].assign_attrs(vertical_datum="ellipsoid"),
        "velocity": velocity,
        "accumulation": place["smb"].assign_attrs(units="m a-1"),
    }
    inputs = Inputs(**{name: source.rio.write_crs(3031) for name, source in sources.items()})
    path = build({"Byrd": bed}, inputs, tmp_path / "t.zarr", coverage=0.3, step=6)
    dataset = open_training_set(path).load()
    assert dataset.sizes["tile"] > 100
    assert dataset["w3"].attrs["units"] == "m a-1"
    assert dataset["mask"].mean(("y_band", "y_row", "y_column")).min() >= 0.3
    # BedMachine is about 130 m from the picks that it was made from, one way or the other.
    within = (
        dataset["x"].isel(x_row=slice(1, -1), x_column=slice(1, -1)).mean(("x_row", "x_column"))
    )
    surveyed = dataset["y"].mean(("y_row", "y_column"))
    assert abs(within.squeeze() - surveyed.squeeze()).median() < 200
    assert (dataset["w1"].mean(("w1_row", "w1_column")).squeeze() > surveyed.squeeze()).all()
