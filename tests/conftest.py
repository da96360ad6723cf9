"""What every test may use: where the real data and the reference outputs are."""

from __future__ import annotations

from pathlib import Path

import pytest

_SHARED = Path(__file__).resolve().parents[2] / "shared"


def _folder(name: str) -> Path:
    folder = _SHARED / name
    if not folder.is_dir():
        pytest.skip(f"the real data of ../shared/{name} are not on this machine")
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Small real files: surveys, rasters, a grounding line."""
    return _folder("data")


@pytest.fixture(scope="session")
def shared_reference() -> Path:
    """Outputs of the original DeepBedMap code."""
    return _folder("reference")


@pytest.fixture(scope="session")
def shared_datasets() -> Path:
    """Facts for the registry."""
    return _folder("datasets")
