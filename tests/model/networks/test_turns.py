from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from deepbedmap.model.networks import TURNS, augment
from deepbedmap.model.networks.turns import undo


def _batch(n: int = TURNS) -> dict[str, Tensor]:
    return {
        "x": torch.randn(n, 1, 11, 11),
        "w1": torch.randn(n, 1, 110, 110),
        "w2": torch.randn(n, 2, 22, 22),
        "w3": torch.randn(n, 1, 11, 11),
        "y": torch.randn(n, 1, 36, 36),
        "mask": torch.rand(n, 1, 36, 36) < 0.5,
        "present": torch.rand(n, 3) < 0.5,
        "index": torch.arange(n),
    }


def test_turning_there_and_back_changes_nothing() -> None:
    batch, turns = _batch(), torch.arange(TURNS)
    turned = augment(batch, turns)
    back = augment(turned, undo(turns))
    for name, grid in batch.items():
        assert turned[name].dtype == grid.dtype
        assert torch.equal(back[name], grid), name
    assert all(
        not torch.equal(turned[name][1:], batch[name][1:]) for name in ("x", "w1", "w2", "y")
    )


def test_no_two_turns_are_the_same_and_the_first_is_none() -> None:
    grid = torch.randn(1, 1, 5, 5).expand(TURNS, -1, -1, -1)
    turned = augment({"x": grid}, torch.arange(TURNS))["x"]
    assert torch.equal(turned[0], grid[0])
    assert len({tuple(tile.flatten().tolist()) for tile in turned}) == TURNS


def test_the_mask_turns_with_what_it_masks() -> None:
    batch = _batch()
    batch["y"] = batch["y"].masked_fill(~batch["mask"], math.nan)
    turned = augment(batch, torch.arange(TURNS))
    assert torch.equal(turned["y"].isfinite(), turned["mask"])


def test_a_turned_vector_field_is_the_gradient_of_the_turned_heights() -> None:
    # Ice that flows down a slope flows down it still when the map is turned.
    x = torch.randn(TURNS, 1, 12, 12, dtype=torch.float64)

    def downhill(height: Tensor) -> Tensor:
        east = height[..., 1:-1, :-2] - height[..., 1:-1, 2:]
        north = height[..., 2:, 1:-1] - height[..., :-2, 1:-1]  # rows run southward
        return torch.cat((east, north), dim=1)

    turned = augment({"x": x, "w2": downhill(x)}, torch.arange(TURNS))
    torch.testing.assert_close(turned["w2"], downhill(turned["x"]), rtol=0, atol=0)


def test_a_flow_to_the_east_turns_counter_clockwise_and_is_then_mirrored() -> None:
    flow = torch.tensor([3.0, 1.0]).view(1, 2, 1, 1).expand(TURNS, 2, 22, 22)
    found = augment({"w2": flow}, torch.arange(TURNS))["w2"][:, :, 0, 0].tolist()
    turned = [[3, 1], [-1, 3], [-3, -1], [1, -3]]
    assert found == turned + [[east, -north] for east, north in turned]


@pytest.mark.parametrize("shape", [(8, 1, 11, 12), (7, 1, 11, 11), (8, 11, 11)])
def test_grids_that_cannot_be_turned_are_refused_by_name(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^w3: expected shape \(8, bands, h, h\), found"):
        augment({"w3": torch.zeros(shape)}, torch.arange(TURNS))
