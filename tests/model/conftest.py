"""The original's networks: weights by name, inputs and what came out."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


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
