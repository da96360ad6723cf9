"""A DEM from files to files: how it is cut, stopped, shared and refused never shows in it.

Also run as a program: ``python test_dem.py PLACE OUT`` predicts with the place's two networks; with
``KILL_AT="refining 4"`` it is killed at the fourth step of refining.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import pytest
import rasterio
import torch
import xarray as xr
from support.places import inputs_of, raster, slope
from support.processes import start_two

from deepbedmap import catalog, products, rasters, registry
from deepbedmap.errors import DeepBedMapError, InvalidDataError, MissingDataError
from deepbedmap.model import checkpoints, prediction
from deepbedmap.model.networks import Discriminator, Generator
from deepbedmap.model.prediction import bed_store, domain, preparing
from deepbedmap.provenance import describe_file, registry_commit
from deepbedmap.tiles import Inputs
from deepbedmap.tiles.inputs import RESOLUTIONS

pytestmark = pytest.mark.usefixtures("one_thread")

BOUNDS = (-500_000, 1_000_000, -478_000, 1_026_000)
FILES = {"prior": "tif", "surface": "tif", "velocity": "nc", "accumulation": "tif"}


def wavy(x: Any, y: Any) -> Any:
    return slope(x, y) + 200 * np.sin(x / 3_000) * np.cos(y / 4_000)


def small(seed: int = 0, **options: Any) -> Generator:
    torch.manual_seed(seed)
    return Generator(1, **{"features": 4, "growth": 4, "input_features": 4, **options})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four rasters of 22 x 26 km and two networks."""
    folder = tmp_path_factory.mktemp("place")
    given = inputs_of(BOUNDS, prior=raster(wavy, 1_000, BOUNDS))
    for name in ("prior", "surface", "accumulation"):
        rasters.write_geotiff(getattr(given, name), folder / f"{name}.tif")
    components = {name: given.velocity.isel(band=n) for n, name in enumerate(("vx", "vy"))}
    rasters.write_netcdf(xr.Dataset(components), folder / "velocity.nc")
    for seed in range(2):
        checkpoints.save(small(seed), folder / f"seed{seed}.safetensors")
    return folder


def sources(place: Path) -> dict[str, Path]:
    return {name: place / f"{name}.{suffix}" for name, suffix in FILES.items()}


def in_bands(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """Let bands have so many rows: the networks of these tests are too small for memory to tell."""

    def bands(network: Any, shape: tuple[int, int], *_: Any, **__: Any) -> list[slice]:
        height = shape[0] - 2
        return [slice(top, min(top + rows, height)) for top in range(0, height, rows)]

    monkeypatch.setattr(domain, "bands", bands)


def stopping(stage: str, after: int = 0) -> Callable[..., None]:
    """Progress that interrupts at a stage once so much of it is done."""

    def tell(done: int, _: int, said: str = "") -> None:
        if said.startswith(stage) and done >= after:
            raise KeyboardInterrupt

    return tell


def test_the_bed_is_that_of_the_network_on_the_whole_window(place: Path, tmp_path: Path) -> None:
    paths = prediction.make_dem(place / "seed0.safetensors", sources(place), tmp_path / "bed.tif")
    assert paths == [tmp_path / "bed.tif"]
    found = rasters.open_raster(paths[0])
    window = (-499_000, 1_001_000, -479_000, 1_025_000)
    assert rasters.bounds_of(found) == window
    expected = prediction.predict(small(0), Inputs.open(*sources(place).values()), window)
    np.testing.assert_allclose(found, rasters.north_up(expected), atol=1e-3)
    assert [file.name for file in tmp_path.iterdir()] == ["bed.tif"]


def test_a_product_has_all_layers_and_says_what_it_was_made_of(place: Path, tmp_path: Path) -> None:
    mask = raster(lambda x, y: 2 + 0 * x * y, 1_000, BOUNDS, datum=None)
    geoid = raster(lambda x, y: -30 + 0 * x * y, 1_000, BOUNDS, datum=None)
    reports: list[Any] = []
    prediction.make_dem(
        place / "seed0.safetensors",
        sources(place),
        tmp_path / "bed.nc",
        mask=mask,
        geoid=geoid,
        report=reports.append,
    )
    product = products.open_product(tmp_path / "bed.nc")
    assert {*product} == {"bed", "surface", "thickness", "mask", "source", "quality", "geoid"}
    np.testing.assert_allclose(product["surface"], slope(product.x, product.y).T + 1_000, atol=0.1)
    provenance = json.loads(product.attrs["provenance"])
    roles = [source["role"] for source in provenance["sources"]]
    assert roles == [*FILES, "geoid", "mask", "checkpoint"]
    known = {source["role"]: source.get("sha256") for source in provenance["sources"]}
    assert known["velocity"] == describe_file(place / "velocity.nc", "")["sha256"]
    assert provenance["registry_commit"] == registry_commit()
    assert provenance["checks"] == reports[0].to_dict()
    assert reports[0]["flotation"].done


def test_of_an_ensemble_all_members_are_kept_and_the_bed_is_the_first(
    place: Path, tmp_path: Path
) -> None:
    files = [place / f"seed{seed}.safetensors" for seed in range(2)]
    prediction.make_dem(files, sources(place), [tmp_path / "both.zarr", tmp_path / "both.tif"])
    both = products.open_product(tmp_path / "both.zarr")
    for number, file in enumerate(files):
        prediction.make_dem(file, sources(place), tmp_path / "one.zarr")
        one = products.open_product(tmp_path / "one.zarr")
        np.testing.assert_array_equal(both["bed_members"][number], one["bed"])
    np.testing.assert_array_equal(both["bed"], both["bed_members"][0])
    np.testing.assert_array_equal(rasters.open_raster(tmp_path / "both.tif"), both["bed"])
    np.testing.assert_allclose(both["bed_mean"], both["bed_members"].mean("realization"), atol=1e-2)
    assert float(both["bed_standard_deviation"].min()) > 0
    assert "realization 0 of 2" in both["bed"].attrs["comment"]
    made_of = json.loads(both.attrs["provenance"])["sources"]
    assert [each["file"] for each in made_of if each["role"] == "checkpoint"] == [
        file.name for file in files
    ]


def test_every_member_of_an_ensemble_is_corrected(place: Path, tmp_path: Path) -> None:
    files = [place / f"seed{seed}.safetensors" for seed in range(2)]
    low = raster(lambda x, y: slope(x, y) - 9_000, 100, BOUNDS)
    prediction.make_dem(
        files, changed(place, surface=low), tmp_path / "bed.zarr", policies="correct"
    )
    product = products.open_product(tmp_path / "bed.zarr")
    for member in product["bed_members"]:
        np.testing.assert_allclose(member, product["surface"], atol=1e-3)
    np.testing.assert_allclose(product["bed_mean"], product["surface"], atol=1e-3)
    assert float(product["bed_error"].max()) == 0


def test_a_bed_says_what_its_network_was_trained_on(place: Path, tmp_path: Path) -> None:
    stated = {
        "excluded": {"areas": {"Thwaites": [0, 0, 1, 1]}, "buffer": 11_000.0},
        "split": {"by": "block", "seed": 0},
    }
    survey = {"role": "survey", "file": "a.csv", "citekey": "King2016Rutford"}
    file = checkpoints.save(
        small(), tmp_path / "network.safetensors", training_set=stated, sources=[survey]
    )
    outs = [tmp_path / f"bed.{suffix}" for suffix in ("tif", "nc", "zarr")]
    prediction.make_dem([file, place / "seed1.safetensors"], sources(place), outs)
    told = [
        rasters.open_raster(outs[0]).attrs["provenance"],
        *(products.open_product(out).attrs["provenance"] for out in outs[1:]),
    ]
    assert len({*told}) == 1
    first, second = json.loads(told[0])["sources"][-2:]
    assert first == {
        "role": "checkpoint",
        "file": "network.safetensors",
        "sha256": describe_file(file, "")["sha256"],
        "sources": [survey],
        "training_set": stated,
    }
    assert "training_set" not in second


@pytest.mark.parametrize("first", [-180, 0])
def test_a_geoid_in_degrees_is_sampled_at_the_cells_of_the_bed(
    place: Path, tmp_path: Path, first: int
) -> None:
    from pyproj import Transformer

    def height(longitude: Any, latitude: Any) -> Any:
        return 10 * np.cos(np.radians(longitude)) + latitude + 60

    axes = {"y": np.arange(-60.0, -90.5, -0.5), "x": np.arange(first, first + 360.0, 0.5)}
    geoid = xr.DataArray(height(axes["x"], axes["y"][:, None]), axes, ("y", "x"))
    file = rasters.write_geotiff(geoid.rio.write_crs("EPSG:4326"), tmp_path / "geoid.tif")
    prediction.make_dem(
        place / "seed0.safetensors", sources(place), tmp_path / "bed.nc", geoid=file
    )
    product = products.open_product(tmp_path / "bed.nc")
    to_degrees = Transformer.from_crs(3031, 4326, always_xy=True)
    expected = height(*to_degrees.transform(*np.meshgrid(product["x"], product["y"])))
    np.testing.assert_allclose(product["geoid"], expected, atol=1e-3)
    assert product["geoid"].attrs["units"] == "m"
    found = json.loads(product.attrs["provenance"])["checks"]["findings"]
    assert {finding["check"] for finding in found} >= {"flotation"}


def test_a_geoid_in_degrees_that_lies_elsewhere_is_refused(place: Path, tmp_path: Path) -> None:
    axes = {"y": np.arange(60.0, 50, -0.5), "x": np.arange(0.0, 20, 0.5)}
    geoid = xr.DataArray(np.zeros((20, 40)), axes, ("y", "x")).rio.write_crs("EPSG:4326")
    with pytest.raises(InvalidDataError) as caught:
        prediction.make_dem(
            place / "seed0.safetensors", sources(place), tmp_path / "b.nc", geoid=geoid
        )
    assert "\n" not in str(caught.value)
    assert not any(tmp_path.iterdir())


def test_a_folder_stands_for_the_networks_in_it(place: Path, tmp_path: Path) -> None:
    for folder, names in {
        "training": ["best.safetensors", "last.safetensors"],
        "seeds": ["1/best.safetensors", "2/best.safetensors"],
        "files": ["b.safetensors", "a.safetensors"],
    }.items():
        for name in names:
            (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / name).touch()
    found = preparing.checkpoint_files(
        [tmp_path / "training", tmp_path / "seeds", tmp_path / "files"]
    )
    assert [str(path.relative_to(tmp_path)) for path in found] == [
        *("training/best.safetensors", "seeds/1/best.safetensors", "seeds/2/best.safetensors"),
        *("files/a.safetensors", "files/b.safetensors"),
    ]


def test_a_run_that_was_killed_goes_on_to_the_same_bytes(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = subprocess.run(
        [sys.executable, __file__, str(place), str(tmp_path)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "KILL_AT": "refining 4"},
        stderr=subprocess.DEVNULL,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    in_bands(monkeypatch, 6)
    with pytest.raises(KeyboardInterrupt):
        predict_both(place, tmp_path, progress=stopping("writing"))
    assert not (tmp_path / "bed.nc").exists()
    for folder in (tmp_path, tmp_path / "whole"):
        predict_both(place, folder)
    for name in ("bed.nc", "bed.tif"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert {file.name for file in tmp_path.iterdir()} == {"bed.nc", "bed.tif", "whole"}


def test_what_is_done_is_not_done_again_even_with_other_bands(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = place / "seed0.safetensors", sources(place)
    prediction.make_dem(*given, tmp_path / "whole.tif")
    in_bands(monkeypatch, 5)
    with pytest.raises(KeyboardInterrupt):
        prediction.make_dem(*given, tmp_path / "bed.tif", progress=stopping("refining", 15))
    in_bands(monkeypatch, 7)
    refined: list[slice] = []
    plain = domain.refine_band
    monkeypatch.setattr(
        domain, "refine_band", lambda *a, **k: (refined.append(a[3]), plain(*a, **k))[1]
    )
    prediction.make_dem(*given, tmp_path / "bed.tif", memory=10**9)
    rows = [row for band in refined for row in range(band.start, band.stop)]
    assert rows == list(range(rows[0], 24))
    assert rows[0] >= 10
    np.testing.assert_allclose(
        *(rasters.open_raster(tmp_path / name) for name in ("bed.tif", "whole.tif")), atol=1e-3
    )


def test_work_on_other_data_begins_anew(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_bands(monkeypatch, 5)
    with pytest.raises(KeyboardInterrupt):
        prediction.make_dem(
            place / "seed1.safetensors",
            sources(place),
            tmp_path / "bed.tif",
            progress=stopping("refining", 15),
        )
    prediction.make_dem(place / "seed0.safetensors", sources(place), tmp_path / "bed.tif")
    prediction.make_dem(place / "seed0.safetensors", sources(place), tmp_path / "whole.tif")
    found, expected = (rasters.open_raster(tmp_path / name) for name in ("bed.tif", "whole.tif"))
    np.testing.assert_array_equal(found, expected)


def test_a_refusing_check_keeps_the_work_and_writes_nothing(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = sources(place) | {"surface": raster(lambda x, y: slope(x, y) - 9_000, 100, BOUNDS)}
    arguments = place / "seed0.safetensors", given, tmp_path / "bed.nc"
    with pytest.raises(InvalidDataError, match="thickness"):
        prediction.make_dem(*arguments, policies={"thickness": "refuse"})
    assert not (tmp_path / "bed.nc").exists()
    monkeypatch.setattr(domain, "refine_band", None)
    prediction.make_dem(*arguments, policies={"thickness": "correct"})
    product = products.open_product(tmp_path / "bed.nc")
    np.testing.assert_allclose(product["bed"], product["surface"], atol=1e-3)


def test_beyond_the_outline_the_bed_goes_over_into_the_bathymetry_or_ends(
    place: Path, tmp_path: Path
) -> None:
    import geopandas as gpd
    import shapely

    ice = gpd.GeoDataFrame(
        geometry=[shapely.box(-500_000, 1_000_000, -489_000, 1_026_000)], crs=3031
    )
    floor = raster(lambda x, y: -3_000 + 0 * x * y, 1_000, BOUNDS)
    arguments = place / "seed0.safetensors", sources(place)
    prediction.make_dem(*arguments, tmp_path / "cut.tif", outline=ice)
    cut = rasters.open_raster(tmp_path / "cut.tif")
    assert bool((cut.isnull() == (cut.x > -489_000)).all())
    prediction.make_dem(
        *arguments, tmp_path / "led.tif", outline=ice, bathymetry=floor, blend_width=2_000
    )
    led = rasters.open_raster(tmp_path / "led.tif")
    assert bool((led.sel(x=slice(-486_900, None)) == -3_000).all())
    np.testing.assert_array_equal(*(each.sel(x=slice(None, -491_100)) for each in (led, cut)))


def test_processes_of_torchrun_give_the_same_bed(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for process in start_two(__file__, str(place), str(tmp_path / "two"), OMP_NUM_THREADS="1"):
        _, said = process.communicate(timeout=600)
        assert process.returncode == 0, said
    in_bands(monkeypatch, 6)
    predict_both(place, tmp_path / "one")
    found, expected = (rasters.open_raster(tmp_path / n / "bed.nc") for n in ("two", "one"))
    np.testing.assert_array_equal(found, expected)
    assert {file.name for file in (tmp_path / "two").iterdir()} == {"bed.nc", "bed.tif"}


def test_a_cluster_gives_the_same_bed(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distributed import Client

    in_bands(monkeypatch, 9)
    given = place / "seed0.safetensors", sources(place)
    with Client(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
    ) as client:
        prediction.make_dem(*given, tmp_path / "bed.tif", client=client)
    prediction.make_dem(*given, tmp_path / "one.tif")
    found, expected = (rasters.open_raster(tmp_path / name) for name in ("bed.tif", "one.tif"))
    np.testing.assert_allclose(found, expected, atol=1e-3)


def changed(place: Path, **others: Any) -> dict[str, Any]:
    return sources(place) | others


@pytest.mark.parametrize(
    ("others", "options", "said"),
    [
        ({}, {"bounds": (-500_000, 1_001_000, -490_000, 1_010_000)}, "prior.tif: expected a box "),
        (
            {"surface": raster(slope, 100, (-495_000, 1_000_000, -478_000, 1_026_000))},
            {},
            r"the raster's bounds \(-495000.*take bounds within \(-494000, 1001000, -479000",
        ),
        (
            {"surface": raster(slope, 100, (0, 0, 9_000, 9_000))},
            {},
            "these have no area in common",
        ),
        (
            {"accumulation": raster(slope, 1_000, BOUNDS, crs=3413)},
            {},
            "field crs: expected EPSG:3031",
        ),
        ({"surface": raster(slope, 100, BOUNDS, datum="EIGEN-6C4")}, {}, "vertical_datum"),
        (
            {"velocity": raster(slope, 500, BOUNDS)},
            {},
            "velocity, field bands: expected 2, found 1",
        ),
        ({}, {"memory": 1_000_000}, "memory: expected at least [0-9]+ MB"),
        (
            {},
            {"mask": raster(slope, 1_000, BOUNDS, crs=3413)},
            "field crs: expected EPSG:3031",
        ),
    ],
)
def test_what_does_not_go_together_is_told_in_one_line_and_leaves_nothing(
    place: Path, tmp_path: Path, others: Any, options: Any, said: str
) -> None:
    with pytest.raises(InvalidDataError, match=said) as caught:
        prediction.make_dem(
            place / "seed0.safetensors", changed(place, **others), tmp_path / "bed.nc", **options
        )
    assert "\n" not in str(caught.value)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("network", "metadata", "found"),
    [
        (small(bands=(1, 2, 4, 1)), {}, "Generator, which takes other inputs .*w1"),
        (Discriminator(), {}, "Discriminator, which takes other inputs"),
        (small(), {"resolutions": {"x": 500.0}}, "one for {'x': 500.0}"),
    ],
)
def test_a_checkpoint_of_other_pixel_ratios_is_refused(
    place: Path, tmp_path: Path, network: Any, metadata: Any, found: str
) -> None:
    file = checkpoints.save(network, tmp_path / "other.safetensors", **metadata)
    with pytest.raises(InvalidDataError, match=f"other.safetensors, field network: .*{found}"):
        prediction.make_dem(file, sources(place), tmp_path / "bed.nc")
    assert checkpoints.load(place / "seed0.safetensors").metadata["resolutions"] == RESOLUTIONS


def test_a_folder_that_cannot_be_written_or_has_no_room_is_told_before_any_work(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = place / "seed0.safetensors", sources(place)
    (tmp_path / "file").touch()
    with pytest.raises(InvalidDataError, match=r"bed\.tif: expected a folder that can be written"):
        prediction.make_dem(*given, tmp_path / "file" / "bed.tif")
    (tmp_path / "file").unlink()
    free = type("Usage", (), {"free": 1_000})
    monkeypatch.setattr(bed_store.shutil, "disk_usage", lambda _: free)
    with pytest.raises(InvalidDataError, match=r"room for .* of work, found 0\.0 MB; make room"):
        prediction.make_dem(*given, tmp_path / "bed.tif")
    assert not any(tmp_path.iterdir())


def test_a_disk_that_fills_up_marks_nothing_as_done_that_is_not(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_bands(monkeypatch, 5)
    given = place / "seed0.safetensors", sources(place)
    with monkeypatch.context() as patch:
        patch.setattr(bed_store.BedStore, "write", _full)
        with pytest.raises(OSError, match="No space left"):
            prediction.make_dem(*given, tmp_path / "bed.tif")
    prediction.make_dem(*given, tmp_path / "bed.tif")
    prediction.make_dem(*given, tmp_path / "whole.tif")
    found, expected = (rasters.open_raster(tmp_path / name) for name in ("bed.tif", "whole.tif"))
    np.testing.assert_array_equal(found, expected)


def _full(*_: Any) -> None:
    raise OSError(28, "No space left on device")


def test_gdal_keeps_few_blocks_however_much_memory_there_is(place: Path, tmp_path: Path) -> None:
    kept: dict[str, Any] = {}

    def tell(_done: int, _total: int, said: str = "") -> None:
        kept[said.split()[0]] = rasterio.env.getenv()["GDAL_CACHEMAX"]

    given = place / "seed0.safetensors", sources(place)
    prediction.make_dem(*given, tmp_path / "bed.nc", progress=tell)
    assert kept.keys() == {"refining", "writing"}
    assert max(kept.values()) <= 2**28


def test_two_runs_at_one_product_do_not_mix(place: Path, tmp_path: Path) -> None:
    given = place / "seed0.safetensors", sources(place)

    def again(_done: int, _total: int, _said: str = "") -> None:
        prediction.make_dem(*given, tmp_path / "bed.tif")

    with pytest.raises(DeepBedMapError, match="another process is writing it"):
        prediction.make_dem(*given, tmp_path / "bed.tif", progress=again)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"out": "bed.png"}, r"ends in .tif, .nc or .zarr, not 'bed.png'"),
        ({"out": ["bed.nc", "./bed.nc"]}, "each once"),
        ({"bounds": (-498_500, 1_001_000, -490_000, 1_010_000)}, "edges of the prior's cells"),
        ({"policies": {"thicknes": "correct"}}, "thickness"),
        ({"policies": {"slope": "correct"}}, "slope"),
        ({"bathymetry": "floor.tif"}, "expected an outline too"),
        ({"inputs": {"prior": "prior.tif"}}, "inputs: expected prior, surface"),
        ({"checkpoints": []}, "checkpoints: expected one or several"),
    ],
)
def test_a_wrong_call_is_told_before_any_work(
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    call = {"checkpoints": place / "seed0.safetensors", "inputs": sources(place), "out": "bed.nc"}
    with pytest.raises(ValueError, match=said):
        prediction.make_dem(**(call | options))
    assert not any(tmp_path.iterdir())


def test_a_source_is_a_file_a_variable_of_it_or_a_name_of_the_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bed = raster(slope, 1_000, BOUNDS, datum=None)
    path = rasters.write_netcdf(xr.Dataset({"a": bed, "b": bed + 1}), tmp_path / "two.nc")
    assert catalog.open_source(f"{path}:b").equals(catalog.open_source(f"{path}:a") + 1)
    assert catalog.open_source(f"{path}:b,a").shape == (2, *bed.shape)
    with pytest.raises(InvalidDataError, match="field variable: expected one of a, b"):
        catalog.open_source(path)
    (tmp_path / "lowres").mkdir()
    monkeypatch.setenv("DEEPBEDMAP_DATA_DIR", str(tmp_path))
    for name in ("bedmap2_bed", "Fretwell2013BEDMAP2"):
        with pytest.raises(MissingDataError, match="deepbedmap fetch"):
            catalog.open_source(name)
    rasters.write_geotiff(bed, tmp_path / "lowres" / "bedmap2_bed.tif")
    for name in ("bedmap2_bed", "Fretwell2013BEDMAP2"):
        opened = catalog.open_source(name)
        np.testing.assert_array_equal(opened, bed)
        assert opened.attrs["vertical_datum"] == "EIGEN-GL04C"
    with pytest.raises(InvalidDataError, match=r"a dataset of several: .*IBCSO_v2_bed"):
        catalog.open_source(next(d.citekey for d in registry.load() if "IBCSO" in d.citekey))
    with pytest.raises(MissingDataError, match=r"bedmap2_bad: .*bedmap2_bed"):
        catalog.open_source("bedmap2_bad")
    with pytest.raises(MissingDataError, match="no such raster"):
        catalog.open_source("elsewhere/bed.tif")


def predict_both(place: Path, out: Path, **options: Any) -> None:
    files = [place / f"seed{seed}.safetensors" for seed in range(2)]
    prediction.make_dem(files, sources(place), [out / "bed.nc", out / "bed.tif"], **options)


def main() -> None:
    torch.set_num_threads(1)
    stage, _, number = os.environ.get("KILL_AT", "never 0").partition(" ")
    steps = 0

    def tell(_done: int, _total: int, said: str = "") -> None:
        nonlocal steps
        steps += said.startswith(stage)
        if steps == int(number):
            os.kill(os.getpid(), signal.SIGKILL)

    in_bands(pytest.MonkeyPatch(), 6)
    predict_both(*map(Path, sys.argv[1:]), progress=tell if int(number) else None)


if __name__ == "__main__":
    main()
