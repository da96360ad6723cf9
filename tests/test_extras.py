"""What each command needs: the base distribution, or an extra that the command names."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from deepbedmap.extras import EXTRAS, MissingExtraError, required_extra

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OPTIONAL = PROJECT["optional-dependencies"]
RUN = """
import json, sys
blocked, shown = (set(json.loads(text)) for text in sys.argv[1:3])
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuse())
del sys.argv[1:3]
from deepbedmap.cli import main
try:
    main()
finally:
    for name in shown & set(sys.modules):
        print("loaded", name, file=sys.stderr)
"""


def run(cwd: Path, *arguments: str, blocked=(), shown=()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", RUN, json.dumps([*blocked]), json.dumps([*shown]), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
    )


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def absent() -> list[str]:
    """Top-level modules that `pip install deepbedmap` does not bring."""
    pending = [Requirement(line) for line in PROJECT["dependencies"]]
    base: set[tuple[str, str]] = set()
    while pending:
        one = pending.pop()
        extras = {"", *one.extras} - {extra for name, extra in base if name == normal(one.name)}
        base |= {(normal(one.name), extra) for extra in extras}
        try:
            lines = requires(one.name) or []
        except PackageNotFoundError:  # of another platform or Python
            continue
        for needed in map(Requirement, lines):
            marker = needed.marker
            if any(marker is None or marker.evaluate({"extra": extra}) for extra in extras):
                pending.append(needed)
    kept = {name for name, _ in base} | {"deepbedmap"}
    modules = packages_distributions()
    missing = [name for name, of in modules.items() if not {normal(each) for each in of} & kept]
    assert {"torch", "numba", "pygmt", "scipy", "distributed", "zarr"} <= {*missing}
    return missing


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Picks, their grid and a raster to run commands on."""
    import numpy as np
    import pandas as pd
    import rioxarray  # noqa: F401  # the accessor that writing uses
    import xarray as xr

    from deepbedmap import rasters

    place = tmp_path_factory.mktemp("work")
    steps = np.arange(40) * 125.0
    picks = pd.DataFrame({"x": steps - 1.5e6, "y": steps - 4e5, "z": steps - 900})
    picks["line"] = pd.Categorical(["a"] * 40)
    picks.attrs = {"crs": "EPSG:3031", "vertical_datum": "ellipsoid"}
    picks.to_parquet(place / "picks.parquet")
    x, y = 250.0 * np.arange(40) - 1.5e6, -4e5 - 250.0 * np.arange(40)
    cells = np.random.default_rng(0).normal(-900, 50, (40, 40)).astype(np.float32)
    bed = xr.DataArray(cells, {"y": y, "x": x}, ("y", "x"), name="z")
    bed.attrs = {"units": "m", "vertical_datum": "ellipsoid", "crs": "EPSG:3031"}
    rasters.write_geotiff(bed, place / "bed.tif")
    rasters.write_netcdf(bed, place / "bed.nc")
    (place / "survey.txt").write_text(
        "LON LAT BED\n" + "".join(f"{-100 + n / 500} -75.1 {-900 + n}.5\n" for n in range(40))
    )
    stages = [
        {
            "type": "readers.text",
            "filename": "survey.txt",
            "header": "LON LAT Z",
            "skip": 1,
        },
        {
            "type": "filters.assign",
            "value": ["X = LON", "Y = LAT"],
        },
        {
            "type": "filters.reprojection",
            "in_srs": "EPSG:4326",
            "out_srs": "EPSG:3031",
        },
        {"type": "writers.text", "filename": "survey.csv"},
    ]
    (place / "survey.json").write_text(json.dumps({"pipeline": stages}))
    return place


@pytest.mark.parametrize(
    "command",
    [
        "--help",
        "list",
        "search rutford",
        "show King2016Rutford",
        "cite King2016Rutford",
        "fetch King2016Rutford --dry-run --data-dir .",
        "verify --data-dir .",
        "validate",
        "catalog check",
        "points survey.json --out points.parquet",
        "points survey.json --out points.csv",
        "resample bed.tif --resolution 500 --out coarse.tif",
        "convert bed.tif --to ellipsoid --geoid EIGEN-6C4=bed.tif --out converted.nc",
    ],
)
def test_the_base_runs(command, folder, absent):
    done = run(folder, *command.split(), blocked=absent)
    assert done.returncode == 0, done.stderr


def test_the_base_opens_the_catalog_and_reads_picks_and_grids(folder, absent):
    code = RUN.partition("del sys")[0] + (
        "import deepbedmap\n"
        "from deepbedmap.catalog import PointsSource, RasterSource\n"
        "catalog = deepbedmap.open_catalog()\n"
        "assert catalog.highres['2010tr_points'].metadata['crs'] == 'EPSG:3031'\n"
        "assert len(PointsSource('survey.json').read()) == 40\n"
        "assert RasterSource('bed.nc').read().shape == (40, 40)\n"
        "print('read')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(absent), "[]"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "read\n", done.stderr


INPUTS = "--prior bed.tif --surface bed.tif --velocity bed.tif --accumulation bed.tif"


@pytest.mark.parametrize(
    ("extra", "command"),
    [
        ("grid", "grid survey.json --out grid.nc"),
        ("grid", "grid survey.json --out grid.tif --method gmt"),
        ("grid", "tiles bed.nc --out windows.geojson"),
        ("grid", f"tiles bed.nc --out tiles.zarr {INPUTS}"),
        ("grid", "evaluate bed.tif --points picks.parquet"),
        ("maps", "map bed.tif --out bed.png"),
        ("model", "train tiles.zarr --out model"),
        ("model", f"predict model.safetensors --out bed.zarr {INPUTS}"),
        ("tuning", "tune tiles.zarr --trials 1 --out study"),
        ("pdal", "points survey.json --engine pdal --out points.csv"),
        ("all", "demo --out demo"),
    ],
)
def test_a_command_names_its_extra_in_one_line(extra, command, folder, absent):
    done = run(folder, *command.split(), blocked=absent)
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("Error: ")
    assert done.stderr.endswith(f"or pip install 'deepbedmap[{extra}]'\n")
    assert "conda install -c conda-forge " in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        "list",
        "search rutford",
        "show King2016Rutford",
        "cite King2016Rutford",
        "fetch King2016Rutford --dry-run",
        "verify King2016Rutford",
    ],
)
def test_finding_and_fetching_loads_no_table_or_raster_library(command, tmp_path):
    heavy = ("pandas", "pyarrow", "rasterio", "geopandas", "xarray", "dask", "numpy")
    done = run(tmp_path, *command.split(), *_data_dir(command), shown=heavy)
    assert done.returncode == 0 or command.startswith("verify"), done.stderr
    assert "loaded" not in done.stderr


def test_listing_loads_nothing_that_it_does_not_print_with(tmp_path):
    unused = ("jsonschema", "pyproj", "requests", "urllib3", "intake", "jinja2")
    assert run(tmp_path, "list", shown=unused).stderr == ""


def _data_dir(command: str) -> list[str]:
    return ["--data-dir", "."] if command.startswith(("fetch", "verify")) else []


def test_extras_are_those_of_pyproject():
    def packages(extra: str) -> set[str]:
        needed = [Requirement(line) for line in OPTIONAL[extra]]
        own = {normal(one.name) for one in needed} - {"deepbedmap"}
        return own.union(
            *(packages(e) for one in needed if one.name == "deepbedmap" for e in one.extras)
        )

    assert {*EXTRAS} == {*OPTIONAL} - {"dev"}
    for extra, modules in EXTRAS.items():
        assert {normal(module) for module in modules} == packages(extra)


def test_python_gets_the_same_error_as_the_command_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    for name in [name for name in sys.modules if name.startswith("deepbedmap.grids.spline.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MissingExtraError, match=r"^numba is not .*deepbedmap\[grid\]'$"):
        from deepbedmap.grids.spline import solve  # noqa: F401


def test_another_missing_module_is_no_matter_of_extras():
    with pytest.raises(ModuleNotFoundError, match="no_such_module"), required_extra("grid"):
        import no_such_module  # noqa: F401


def test_without_gmt_itself_the_message_says_how_to_get_it():
    class GMTCLibNotFoundError(Exception):
        """As pygmt raises when it is imported."""

    with pytest.raises(MissingExtraError, match="conda install -c conda-forge gmt"):  # noqa: SIM117
        with required_extra("maps"):
            raise GMTCLibNotFoundError
