"""``deepbedmap predict``: what it takes, prints and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from support.places import EAST, PLACE, WEST, inputs_of, raster, slope

from deepbedmap import points, products, rasters, tiles
from deepbedmap.model import checkpoints
from deepbedmap.model.networks import Generator
from deepbedmap.provenance import describe_file
from deepbedmap.tiles.inputs import RESOLUTIONS

pytestmark = pytest.mark.usefixtures("one_thread")

BOUNDS = (0, 0, 14_000, 12_000)


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """A call without --out: all inputs in one file of 500 m, as models keep them."""
    folder = tmp_path_factory.mktemp("place")
    given = inputs_of(BOUNDS)
    layers = {
        "bed": raster(slope, 500, BOUNDS),
        "surface": raster(lambda x, y: 1_000 + slope(x, y), 500, BOUNDS),
        "u": given.velocity.isel(band=0),
        "v": given.velocity.isel(band=1),
        "smb": raster(lambda x, y: 200 + 0 * x * y, 500, BOUNDS, datum=None),
    }
    file = rasters.write_netcdf(xr.Dataset(layers), folder / "all.nc")
    torch.manual_seed(0)
    network = Generator(1, features=4, growth=4, input_features=4)
    saved = checkpoints.save(network, folder / "network.safetensors")
    names = {"prior": "bed", "surface": "surface", "velocity": "u,v", "accumulation": "smb"}
    options = [part for role, name in names.items() for part in (f"--{role}", f"{file}:{name}")]
    return ["predict", saved, *options]


def test_several_products_of_one_run_and_what_the_checks_found_as_json(
    call: Any, command: list[Any], tmp_path: Path
) -> None:
    paths = [tmp_path / f"bed.{suffix}" for suffix in ("nc", "tif")]
    outs = [part for path in paths for part in ("--out", path)]
    code, told, err = call(*command, *outs, "--json", "--memory", "1GB")
    assert code == 0, err
    said = json.loads(told)
    assert (said["out"], said["cells"]) == ([*map(str, paths)], [40, 48])
    checks = {finding["check"]: finding for finding in said["checks"]["findings"]}
    assert checks["gaps"]["cells"] == 0
    product = products.open_product(paths[0])
    np.testing.assert_array_equal(product["bed"], rasters.open_raster(paths[1]))
    assert json.loads(product.attrs["provenance"])["checks"] == said["checks"]


def test_the_table_of_checks_is_printed_and_corrections_made(
    call: Any, command: list[Any], tmp_path: Path
) -> None:
    out = tmp_path / "bed.zarr"
    code, told, err = call(*command, "--out", out, "--correct", "thickness")
    assert code == 0, err
    assert told.startswith("check ")
    assert told.splitlines()[-1] == f"{out}: 40 x 48 cells"
    product = products.open_product(out)
    assert float(product["thickness"].min()) > -1e-3


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--out", "bed.png"], 2, "expected a name that ends in .tif, .nc or .zarr"),
        (["--out", "bed.nc", "--memory", "much"], 2, "expected a size such as 8GB"),
        (["--out", "bed.nc", "--precision", "half"], 2, "expected float32 or bfloat16"),
        (["--out", "bed.nc", "--device", "gpu"], 2, "expected cpu, cuda or cuda:N"),
        (["--out", "/proc/no/bed.nc"], 1, "bed.nc: expected a folder that can be written"),
        (["--out", "bed.nc", "--correct", "slope"], 2, "slope"),
        (["--out", "bed.nc", "--bathymetry", "floor.tif"], 2, "needs --outline"),
        (["--out", "bed.nc", "--memory", "1MB"], 1, "memory: expected at least"),
        (["--out", "bed.nc", "--mask", "nowhere"], 1, "nowhere: expected the path of a raster"),
        (["--out", "bed.nc", "--bounds", 0, 0, 9_000, 9_000], 1, "expected a box within"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_written(
    call: Any,
    command: list[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[Any],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    found, _, err = call(*command, *options)
    assert (found, said in " ".join(err.split())) == (code, True), err
    if code == 1:
        assert err.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_whether_picks_are_new_to_the_training_is_known_from_the_bed_alone(
    call: Any, tmp_path: Path
) -> None:
    inputs, options = inputs_of(PLACE), []
    for name, grid in inputs.__dict__.items():
        if grid is not None:
            options += [f"--{name}", rasters.write_geotiff(grid, tmp_path / f"{name}.tif")]
    surveys = {
        name: rasters.write_netcdf(
            raster(lambda x, y: slope(x, y) + 50 * np.sin(x / 1_500), 250, box).rename("z"),
            tmp_path / f"{name}.nc",
        )
        for name, box in (("West", WEST), ("East", EAST))
    }
    tiles.build(surveys, inputs, tmp_path / "tiles.zarr", step=36, by="survey")
    (tmp_path / "tiny.toml").write_text(
        '[network]\nname = "Generator"\nfeatures = 4\ngrowth = 4\ninput_features = 4\n'
    )
    model, bed = tmp_path / "model", tmp_path / "bed.tif"
    train = ("--config", tmp_path / "tiny.toml", "--epochs", 1, "--out", model)
    assert call("train", tmp_path / "tiles.zarr", *train)[0] == 0
    assert checkpoints.load(model / "best.safetensors").metadata["resolutions"] == RESOLUTIONS
    bounds = ("--bounds", -1_645_000, -255_000, -1_585_000, -245_000)
    code, _, err = call("predict", model, *options, *bounds, "--out", bed)
    assert code == 0, err

    def verdict(west: float, **made_of: Any) -> dict[str, str]:
        x = np.arange(west, west + 5_000, 50)
        picks = pd.DataFrame({"x": x, "y": -250_000.0, "z": slope(x, -250_000.0), "line": "a"})
        picks = picks.astype({"line": "category"})
        picks.attrs = {"crs": "EPSG:3031", "vertical_datum": "ellipsoid", "sources": [], **made_of}
        points.write_points(picks, tmp_path / "picks.parquet")
        _, told, _ = call("evaluate", bed, "--points", tmp_path / "picks.parquet", "--json")
        return json.loads(told)["independent_of_training"]

    in_the_test_area = verdict(-1_600_000)
    assert in_the_test_area["answer"] == "yes"
    assert "Pine Island" in in_the_test_area["reason"]
    trained_on = [describe_file(surveys["West"], "raw")]
    beside = verdict(-1_644_900, sources=trained_on)
    assert (beside["answer"], beside["reason"]) == ("no", "it learned from West.nc itself")


def test_grids_of_2_km_in_one_file_are_taken_as_they_are(
    call: Any, command: list[Any], shared_data: Path, tmp_path: Path
) -> None:
    file = shared_data / "ase" / "ase_2km_bedmap2.nc"
    names = {"prior": "bed", "surface": "surface", "velocity": "vx,vy"}
    names["accumulation"] = "accumulation"
    options = [part for role, name in names.items() for part in (f"--{role}", f"{file}:{name}")]
    bounds = ("--bounds", -1_601_000, -401_000, -1_561_000, -371_000)
    out = tmp_path / "ase.tif"
    code, _, err = call("predict", command[1], *options, *bounds, "--out", out)
    assert code == 0, err
    bed = rasters.open_raster(out)
    assert bed.shape == (120, 160)
    assert bool(np.isfinite(bed).all())
