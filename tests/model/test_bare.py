"""The network runs on a GPU machine that has nothing but PyTorch and NumPy."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import deepbedmap.model

# What needs more than that is needed for files and for hyperparameter studies only.
FOLDER = Path(deepbedmap.model.__file__).parent
MODULES = sorted(
    ".".join(("deepbedmap.model", *path.relative_to(FOLDER).with_suffix("").parts))
    for path in FOLDER.rglob("*.py")
    if path.name not in ("__init__.py", "evaluation.py")
)
BARE = """
import importlib, sys
import numpy, torch
blocked = set(sys.argv[2].split(","))
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"{name} is not on a bare GPU machine")
sys.meta_path.insert(0, Refuse())
for name in sys.argv[1].split(","):
    importlib.import_module(name)
"""


def test_every_module_of_the_model_imports_with_torch_and_numpy_alone():
    needed = {"numpy", "torch", "deepbedmap"}
    blocked = ",".join(sorted({*packages_distributions()} - needed - _needed_by_torch()))
    done = subprocess.run(
        [sys.executable, "-c", BARE, ",".join(MODULES), blocked],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def _needed_by_torch() -> set[str]:
    """Return the packages that importing torch and numpy loads."""
    code = "import numpy, torch, sys; print(*{name.partition('.')[0] for name in sys.modules})"
    return set(subprocess.check_output([sys.executable, "-c", code], text=True).split())


@pytest.mark.parametrize("name", ["xarray", "rich"])
def test_the_check_notices_a_package_that_is_not_there(name):
    done = subprocess.run(
        [sys.executable, "-c", BARE, name, name], capture_output=True, text=True, timeout=120
    )
    assert f"{name} is not on a bare GPU machine" in done.stderr
