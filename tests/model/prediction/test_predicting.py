"""Prediction of a window: where it lies, what it refers to, and what it does with gaps."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from deepbedmap.errors import InvalidDataError
from deepbedmap.model import checkpoints
from deepbedmap.model.networks import Generator, bicubic
from deepbedmap.model.prediction import autocasts, predict


class Bicubic(nn.Module):
    """The prior's bicubic interpolation, as a network that predict can run."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x, w1, w2, w3):
        assert w1.shape[2:] == (10 * x.shape[2], 10 * x.shape[3])
        assert w2.shape[1:] == (2, 2 * x.shape[2], 2 * x.shape[3])
        assert w3.shape == x.shape
        return bicubic(x)


def slope(x, y):
    return 100 + 0.01 * x - 0.02 * y


def test_a_plane_is_predicted_where_it_is(inputs):
    bed = predict(Bicubic(), inputs())
    x, y = np.meshgrid(bed.x + 500_000, bed.y - 1_000_000)
    np.testing.assert_allclose(bed, slope(x, y), atol=0.01)
    assert bed.shape == (112, 112)
    assert float(bed.x[0]) == -500_000 + 1_000 + 125


def test_a_window_hardly_depends_on_how_it_is_tiled(inputs):
    bounds = (-490_000.0, 1_008_000.0, -478_000.0, 1_020_000.0)
    wavy = inputs(lambda x, y: 100 * np.sin(x / 2_000) * np.cos(y / 3_000))
    window, whole = predict(Bicubic(), wavy, bounds), predict(Bicubic(), wavy)
    assert window.shape == (48, 48)
    difference = window - whole.sel(x=window.x, y=window.y)
    assert float(np.sqrt((difference**2).mean())) < 0.005 * float(window.std())
    assert float(abs(difference).max()) < 2


def test_a_window_smaller_than_a_tile_is_predicted(inputs):
    bounds = (-490_000.0, 1_008_000.0, -486_000.0, 1_012_000.0)
    bed = predict(Bicubic(), inputs(), bounds)
    assert bed.shape == (16, 16)
    assert bool(np.isfinite(bed).all())


def test_a_prediction_says_what_it_refers_to_and_was_made_from(inputs):
    bed = predict(Bicubic(), inputs(), provenance={"checkpoint": "a"})
    assert bed.rio.crs.to_epsg() == 3031
    assert bed.attrs["vertical_datum"] == "ellipsoid"
    assert bed.attrs["units"] == "m"
    assert json.loads(bed.attrs["provenance"]) == {"checkpoint": "a"}


def test_only_cells_without_a_prior_have_no_bed(inputs):
    holed = inputs()
    holed.surface[140:150, 140:150] = np.nan
    holed.prior[20, 10] = np.nan
    bed = predict(Bicubic(), holed)
    assert int(np.isnan(bed).sum()) == 16
    assert bool(np.isnan(bed.sel(x=-489_500, y=1_020_500, method="nearest")))


def test_a_window_does_not_depend_on_the_memory(inputs):
    network = Generator(1, features=8, growth=4, input_features=4)
    beds = [predict(network, inputs(), memory=memory) for memory in (2 * 10**8, 10**9)]
    np.testing.assert_allclose(beds[0], beds[1], rtol=0, atol=1e-3)
    with pytest.raises(InvalidDataError, match="memory: expected at least"):
        predict(network, inputs(), memory=10**6)


@pytest.mark.parametrize(
    ("trained_in", "precision", "device", "expected"),
    [
        (None, None, "cuda", False),
        ("float32", None, "cuda", False),
        ("bfloat16", None, "cuda:1", True),
        ("bfloat16", None, "cpu", False),
        ("bfloat16", "float32", "cuda", False),
        ("float32", "bfloat16", "cuda", True),
        ("float32", "bfloat16", "cpu", False),
    ],
)
def test_a_network_computes_on_a_gpu_in_what_it_was_trained_in_unless_told(
    tmp_path, trained_in, precision, device, expected
):
    said = {} if trained_in is None else {"training": {"precision": trained_in}}
    network = Generator(1, features=4, growth=4, input_features=4)
    path = checkpoints.save(network, tmp_path / "network.safetensors", configuration=said)
    loaded = checkpoints.load(path).network
    assert autocasts(loaded, torch.device(device), precision) is expected


def test_a_window_outside_the_inputs_is_refused(inputs):
    bounds = (-500_000.0, 1_008_000.0, -488_000.0, 1_020_000.0)
    with pytest.raises(InvalidDataError, match="within the raster's bounds"):
        predict(Bicubic(), inputs(), bounds)


def test_a_window_off_the_prior_s_cells_is_a_wrong_call(inputs):
    with pytest.raises(ValueError, match="edges of the prior's cells"):
        predict(Bicubic(), inputs(), (-490_100.0, 1_008_000.0, -478_100.0, 1_020_000.0))
    with pytest.raises(ValueError, match="xmin, ymin, xmax, ymax"):
        predict(Bicubic(), inputs(), (-478_000.0, 1_008_000.0, -490_000.0, 1_020_000.0))


def test_inputs_on_different_datums_are_not_mixed(inputs):
    mixed = inputs()
    mixed.surface.attrs["vertical_datum"] = "EIGEN-6C4"
    with pytest.raises(InvalidDataError, match="vertical_datum"):
        predict(Bicubic(), mixed)


def test_the_published_network_predicts_a_window(inputs):
    torch.manual_seed(0)
    network = Generator(1, features=8, growth=4, input_features=4)
    bed = predict(network, inputs(), (-490_000.0, 1_008_000.0, -478_000.0, 1_020_000.0))
    assert bed.dtype == "float32"
    assert bool(np.isfinite(bed).all())
