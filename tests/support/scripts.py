"""The scripts in ``benchmarks/``, for tests of them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def load(name: str, called: str | None = None) -> ModuleType:
    """Import a script, under its own name or another, as if it were run where it lies."""
    spec = importlib.util.spec_from_file_location(called or name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        patch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
    return module
