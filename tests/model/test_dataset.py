"""Training sets in memory: their batches, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deepbedmap.errors import InvalidDataError
from deepbedmap.inputs import cut_inputs
from deepbedmap.model.dataset import TrainingSet


@pytest.fixture
def tiles(inputs) -> dict[str, np.ndarray]:
    """Three tiles, each a kilometre further east than the last."""
    west = -498_000 + 1_000 * np.arange(3.0)
    boxes = np.stack([west, 0 * west + 1_002_000, west + 9_000, 0 * west + 1_011_000], axis=1)
    return cut_inputs(boxes, inputs()) | {"y": np.zeros((3, 1, 36, 36), "float32")}


def test_a_batch_holds_the_tiles_of_its_numbers(tiles):
    batch = TrainingSet(tiles)[torch.tensor([2, 0])]
    assert batch["index"].tolist() == [2, 0]
    np.testing.assert_array_equal(batch["x"][0], tiles["x"][2])


@pytest.mark.parametrize("name", ["x", "w1", "w2", "w3", "y"])
def test_training_tiles_with_gaps_are_refused_and_named(name, tiles):
    tiles[name][1, 0, 3, 3] = np.nan
    with pytest.raises(InvalidDataError, match=rf"entry tile 1, field {name}.*1 cells of NaN"):
        TrainingSet(tiles)


def test_arrays_of_different_length_are_refused(tiles):
    tiles["y"] = tiles["y"][:2]
    with pytest.raises(InvalidDataError, match="2 in y"):
        TrainingSet(tiles)


def test_a_training_set_without_tiles_is_refused(tiles):
    with pytest.raises(InvalidDataError, match="at least one"):
        TrainingSet({name: array[:0] for name, array in tiles.items()})
