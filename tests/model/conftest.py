"""The original's networks: weights by name, inputs and what came out."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rioxarray  # noqa: F401  # gives grids their CRS
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor, nn

from deepbedmap.tiles import Inputs


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def published(shared_reference: Path) -> dict[str, Any]:
    """``networks.json``: names and shapes of all arrays, and metrics of four training steps."""
    return json.loads((shared_reference / "networks.json").read_text())


@pytest.fixture(scope="session")
def chainer_weights(published: dict[str, Any]) -> Callable[[str], dict[str, NDArray[Any]]]:
    """The arrays of ``generator`` or ``discriminator`` that the reference outputs came from."""

    def arrays(network: str) -> dict[str, NDArray[Any]]:
        return {name: _array(name, tuple(shape)) for name, shape in published[network].items()}

    return arrays


@pytest.fixture(scope="session")
def reference(shared_reference: Path) -> Callable[[str], dict[str, Tensor]]:
    """The arrays of a reference file."""

    def tensors(name: str) -> dict[str, Tensor]:
        with np.load(shared_reference / f"{name}.npz") as archive:
            return {key: torch.from_numpy(np.asarray(archive[key])) for key in archive.files}

    return tensors


@pytest.fixture
def small_generator() -> Callable[..., nn.Module]:
    from deepbedmap.model.networks import Generator

    def make(**options: Any) -> nn.Module:
        return Generator(1, **{"features": 8, "growth": 4, "input_features": 4, **options})

    return make


@pytest.fixture
def grids() -> Callable[..., dict[str, Tensor]]:
    """Random inputs of a generator, named."""

    def make(n: int = 2, h: int = 11, w: int = 11) -> dict[str, Tensor]:
        return {
            "x": torch.randn(n, 1, h, w),
            "w1": torch.randn(n, 1, 10 * h, 10 * w),
            "w2": torch.randn(n, 2, 2 * h, 2 * w),
            "w3": torch.randn(n, 1, h, w),
        }

    return make


def _array(name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    random = np.random.RandomState(zlib.crc32(name.encode()) % 2**32)
    values = random.standard_normal(shape).astype("float32")
    leaf = name.rpartition("/")[2]
    if leaf == "W":
        values *= np.float32(np.sqrt(2 / np.prod(shape[1:])))
    elif leaf == "b":
        values *= np.float32(0.05)
    elif leaf == "gamma":
        values = np.float32(1) + np.float32(0.1) * values
    elif leaf == "beta":
        values *= np.float32(0.1)
    return values


@pytest.fixture
def inputs() -> Callable[..., Inputs]:
    """Rasters of 30 km by 30 km: prior and surface are a plane, or what is asked for."""

    def slope(x: Any, y: Any) -> Any:
        return 100 + 0.01 * x - 0.02 * y

    def make(prior: Callable[[Any, Any], Any] = slope) -> Inputs:
        return Inputs(
            prior=_raster(prior, 1_000),
            surface=_raster(slope, 100),
            velocity=_raster(lambda x, y: 300 + 0 * x * y, 500, bands=2),
            accumulation=_raster(lambda x, y: 200 + 0 * x * y, 1_000),
        )

    return make


def _raster(
    function: Callable[[Any, Any], Any], spacing: float, extent: float = 30_000, bands: int = 1
) -> xr.DataArray:
    centres = np.arange(spacing / 2, extent, spacing)
    values = function(centres, centres[:, None]) * np.ones((bands, centres.size, centres.size))
    grid = xr.DataArray(
        values.astype("float32"),
        {"band": np.arange(bands), "y": 1_000_000 + centres, "x": -500_000 + centres},
        ("band", "y", "x"),
        attrs={"vertical_datum": "ellipsoid"},
    ).rio.write_crs("EPSG:3031")
    return grid if bands > 1 else grid.isel(band=0, drop=True)
