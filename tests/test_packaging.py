from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from deepbedmap import registry

ROOT = Path(__file__).resolve().parents[1]
RAW = ("highres/2011_Antarctica_DC8.csv", "lowres/big.tif", "misc/velocity.nc", "highres/grid.nc")


def _run(*command: str | Path, cwd: Path, **environment: str) -> str:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "DEEPBEDMAP_"))}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**kept, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr or done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel of a copy of the checkout in which raw surveys lie beside their pipelines."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is no checkout: git tells which files belong to the project")
    copy = tmp_path_factory.mktemp("copy")
    names = _run(
        "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT
    ).split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    for name in RAW:
        (copy / name).parent.mkdir(exist_ok=True)
        with (copy / name).open("wb") as file:
            file.truncate(2**30)  # sparse: it takes no room
    _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "built", cwd=copy)
    (built,) = (copy / "built").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """Python of an environment that has the wheel and the dependencies, and no checkout."""
    folder = tmp_path_factory.mktemp("environment")
    _run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    variables = {"base": str(folder), "platbase": str(folder)}
    packages = Path(sysconfig.get_path("purelib", vars=variables))
    options = ("--quiet", "--no-deps", "--no-index", "--disable-pip-version-check")
    _run(sys.executable, "-m", "pip", "install", *options, "--target", packages, wheel, cwd=folder)
    # A .pth file adds the folder as it is: that of the editable install inside is not obeyed.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "python"


def test_the_wheel_holds_the_flat_files_and_no_raw_data(wheel):
    assert wheel.stat().st_size < 2**20
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    held = {
        name.removeprefix("deepbedmap/_repository/")
        for name in names
        if name.startswith("deepbedmap/_repository/")
    }
    flat = {"data_list.yml"}
    for pattern in (
        "catalog/*.yml",
        "catalog/*.sha256",
        "highres/*.json",
        "*res/README.md",
        "misc/README.md",
        "validation/*",
    ):
        flat |= {path.relative_to(ROOT).as_posix() for path in ROOT.glob(pattern)}
    assert held == flat
    assert {f"highres/{name}" for dataset in registry.load() for name in dataset.pipelines} < held
    package = ROOT / "deepbedmap"
    kinds = (package.rglob(f"*.{suffix}") for suffix in ("py", "pyi", "toml", "j2"))
    modules = {path.relative_to(ROOT).as_posix() for paths in kinds for path in paths}
    modules.add("deepbedmap/py.typed")
    assert modules <= names
    others = names - modules - {f"deepbedmap/_repository/{name}" for name in held}
    assert all(".dist-info/" in name for name in others), others


def test_the_installed_package_opens_its_own_catalog_from_any_folder(installed, tmp_path):
    code = """
import deepbedmap, intake
from deepbedmap import repository
print(repository.root())
print(repository.data_dir())
catalog = deepbedmap.open_catalog()
print(*catalog, *intake.cat.deepbedmap.lowres)
print(catalog.highres["2010tr"].metadata["citekey"])
try:
    catalog.lowres["bedmap2_bed"].read()
except FileNotFoundError as error:
    print(error)
"""
    cache = tmp_path / "cache"
    environment = {"XDG_CACHE_HOME": str(cache), "VIRTUAL_ENV": str(installed.parents[1])}
    root, data_dir, names, citekey, missing = _run(
        installed, "-c", code, cwd=tmp_path, **environment
    ).splitlines()
    assert Path(root).name == "_repository"
    assert Path(root).is_relative_to(installed.parents[1])
    assert data_dir == str(cache / "deepbedmap")
    assert names.startswith("highres lowres misc open training products bedmap2_bed ")
    assert citekey == "Bingham2018PIG"
    path = cache / "deepbedmap" / "lowres" / "bedmap2_bed.tif"
    assert missing == f"{path}: not there; `deepbedmap fetch Fretwell2013BEDMAP2` gets it"
    assert list(tmp_path.iterdir()) == []


def test_the_installed_command_answers(installed, tmp_path):
    (script,) = installed.parents[1].rglob("bin/deepbedmap")
    assert "Usage: deepbedmap" in _run(installed, script, "--help", cwd=tmp_path)
    assert "King2016Rutford" in _run(installed, script, "show", "King2016Rutford", cwd=tmp_path)


@pytest.mark.parametrize("code", ["import deepbedmap", "import deepbedmap.cli, deepbedmap.catalog"])
def test_starting_loads_no_heavy_library(code):
    code += "; import sys; print(*sys.modules)"
    loaded = set(_run(sys.executable, "-c", code, cwd=ROOT).split())
    assert "deepbedmap" in loaded
    assert not loaded & {"torch", "pygmt", "pandas", "xarray", "numpy", "intake", "geopandas"}
