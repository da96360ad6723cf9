from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn

from deepbedmap.model.checkpoints import load_chainer_npz
from deepbedmap.model.losses import discriminator_loss, fill_gaps, generator_loss, psnr
from deepbedmap.model.networks import (
    NETWORKS,
    NORMALISATION,
    TURNS,
    Discriminator,
    FlowAlignedGenerator,
    Generator,
    augment,
    bicubic,
)


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_networks_have_as_many_parameters_as_the_published_ones() -> None:
    with torch.device("meta"):
        assert _parameters(Generator()) == 8_907_749
        assert _parameters(Discriminator()) == 10_370_761


@pytest.mark.parametrize("tiles", ["a", "b"])
def test_the_generator_gives_what_the_original_gave(
    tiles: str,
    reference: Callable[[str], dict[str, Tensor]],
    chainer_weights: Callable[[str], dict[str, Any]],
) -> None:
    arrays = reference("generator_forward")
    inputs = [arrays[f"{tiles}_{name}"] for name in ("x", "w1", "w2", "w3")]
    expected = arrays[f"{tiles}_y"].double()
    generator = load_chainer_npz(chainer_weights("generator"), Generator(1))
    with torch.no_grad():
        single = generator(*inputs).double()
        exact = generator.double()(*(tensor.double() for tensor in inputs))
    # Random weights make offsets of 13 cells over white noise, so float32 rounds to about 1e-4 in
    # any order of summation: the original stands as far from the exact value as ours does.
    assert (exact - expected).norm() / expected.norm() < 1e-4
    assert (single - expected).norm() / expected.norm() < 2e-4
    assert (single - expected).abs().max() / expected.abs().max() < 4e-4


def test_the_discriminator_gives_what_the_original_gave(
    reference: Callable[[str], dict[str, Tensor]],
    chainer_weights: Callable[[str], dict[str, Any]],
) -> None:
    arrays = reference("discriminator_forward")
    discriminator = load_chainer_npz(chainer_weights("discriminator"), Discriminator()).eval()
    with torch.no_grad():
        logits = discriminator(arrays["y"])
    torch.testing.assert_close(logits, arrays["logits_eval"], rtol=2e-5, atol=0)


def test_the_discriminator_sees_a_small_relief_far_below_sea_level_in_bfloat16_too() -> None:
    discriminator, seen = Discriminator(), {}
    for name in ("batch_norm1", "conv_layer2"):
        discriminator.get_submodule(name).register_forward_hook(
            lambda _, __, y, name=name: seen.setdefault(name, []).append(y)
        )
    bed = torch.randn(4, 1, 36, 36) - 2_000
    with torch.no_grad():
        discriminator(bed)
        with torch.autocast("cpu", torch.bfloat16):
            logits = discriminator(bed)
    assert torch.equal(*seen["batch_norm1"])
    assert seen["conv_layer2"][1].dtype == torch.bfloat16
    assert logits.dtype == torch.float32


@pytest.mark.parametrize(("h", "w"), [(3, 3), (8, 13), (11, 11)])
def test_the_generator_refines_any_area_fourfold_less_its_rim(
    h: int, w: int, small_generator: Callable[..., Generator], grids: Callable[..., dict[str, Any]]
) -> None:
    assert small_generator()(**grids(2, h, w)).shape == (2, 1, 4 * (h - 2), 4 * (w - 2))


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("x", (2, 1, 2, 11), r"^x: expected shape \(n, 1, h, w\) .* found \(2, 1, 2, 11\)$"),
        ("x", (1, 11, 11), r"^x: expected shape \(n, 1, h, w\) .* found \(1, 11, 11\)$"),
        ("w1", (2, 1, 110, 111), r"^w1: expected shape \(2, 1, 110, 110\) .* \(2, 1, 110, 111\)$"),
        ("w2", (2, 1, 22, 22), r"^w2: expected shape \(2, 2, 22, 22\) .* \(2, 1, 22, 22\)$"),
        ("w3", (1, 1, 11, 11), r"^w3: expected shape \(2, 1, 11, 11\) .* \(1, 1, 11, 11\)$"),
    ],
)
def test_an_input_of_another_shape_is_refused_by_name(
    name: str,
    shape: tuple[int, ...],
    message: str,
    small_generator: Callable[..., Generator],
    grids: Callable[..., dict[str, Tensor]],
) -> None:
    with pytest.raises(ValueError, match=message):
        small_generator()(**{**grids(), name: torch.zeros(shape)})


def test_the_discriminator_refuses_what_is_no_tile() -> None:
    with pytest.raises(
        ValueError, match=r"^y: expected shape \(n, 1, 36, 36\), found \(1, 36, 36\)"
    ):
        Discriminator()(torch.zeros(1, 36, 36))
    with pytest.raises(ValueError, match=r"found \(2, 1, 9, 9\)"):
        Discriminator()(torch.zeros(2, 1, 9, 9))


def test_the_options_make_a_network_of_the_same_architecture_again() -> None:
    generator = Generator(2, 0.3, features=6, growth=5, input_features=3, bands=(1, 3, 2, 1))
    again = NETWORKS["Generator"](**json.loads(json.dumps(generator.options)))
    shapes = {name: tensor.shape for name, tensor in generator.state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in again.state_dict().items()}
    assert again.residual_network[1].residual_dense_block3.residual_scaling == 0.3


@pytest.mark.parametrize("options", [{"num_residual_blocks": 0}, {"bands": (1, 1, 2)}])
def test_options_that_make_no_network_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Generator(**options)


@pytest.mark.parametrize("make", [lambda: Generator(1), Discriminator])
def test_weights_start_as_a_tenth_of_hes_normal_distribution_and_biases_at_zero(
    make: Callable[[], nn.Module],
) -> None:
    for name, module in make().named_modules():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        expected = 0.1 * math.sqrt(2 / module.weight[0].numel())
        spread = 4 * expected / math.sqrt(2 * module.weight.numel())
        assert module.weight.std().item() == pytest.approx(expected, abs=spread), name
        assert module.bias is None or not module.bias.any(), name


def test_every_weight_takes_part_in_the_result(
    small_generator: Callable[..., Generator], grids: Callable[..., dict[str, Tensor]]
) -> None:
    generator = small_generator()
    generator(**grids()).square().sum().backward()
    for name, parameter in generator.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def flow_tiles(count: int = 6) -> list[Tensor]:
    """Inputs of tiles through which ice flows in all directions."""
    angle = torch.linspace(0.3, 0.3 + 5, count).view(-1, 1, 1)
    flow = 300 * torch.stack((angle.cos(), angle.sin()), dim=1)
    return [
        300 * torch.randn(count, 1, 11, 11),
        1_000 + 20 * torch.randn(count, 1, 110, 110),
        flow + 10 * torch.randn(count, 2, 22, 22),
        200 + 60 * torch.rand(count, 1, 11, 11),
    ]


def turned(tensors: Sequence[Tensor], quarters: int, mirror: bool) -> list[Tensor]:
    """What a map shows when it is turned counter-clockwise and then mirrored north to south."""
    answer = []
    for tensor in tensors:
        tensor = torch.rot90(tensor, quarters, (2, 3))
        if tensor.shape[1] == 2:
            for _ in range(quarters):
                tensor = torch.stack((-tensor[:, 1], tensor[:, 0]), dim=1)
        if mirror:
            tensor = tensor.flip(2)
            if tensor.shape[1] == 2:
                tensor = tensor * torch.tensor([1.0, -1.0]).view(1, 2, 1, 1)
        answer.append(tensor)
    return answer


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_a_map_turned_or_mirrored_gives_the_bed_turned_or_mirrored(quarters, mirror):
    network = FlowAlignedGenerator(features=8, growth=4, input_features=4)
    tiles = flow_tiles()
    with torch.no_grad():
        expected = turned([network(*tiles)], quarters, mirror)[0]
        found = network(*turned(tiles, quarters, mirror))
    torch.testing.assert_close(found, expected, rtol=0, atol=0.01)


def test_raising_bed_and_surface_raises_the_answer_alike():
    network = FlowAlignedGenerator(features=8, growth=4, input_features=4)
    x, w1, w2, w3 = flow_tiles()
    with torch.no_grad():
        raised = network(x + 500, w1 + 500, w2, w3) - network(x, w1, w2, w3)
    torch.testing.assert_close(raised, torch.full_like(raised, 500), rtol=0, atol=0.05)


def test_the_answer_of_a_tile_does_not_depend_on_its_batch():
    network = FlowAlignedGenerator(features=8, growth=4, input_features=4, flags=True)
    nn.init.normal_(network.get_parameter(_absence(network)))
    tiles = [*flow_tiles(), _present("111", "010", "111", "110", "011", "111")]
    with torch.no_grad():
        together = network(*tiles)
        alone = torch.cat([network(*(t[n : n + 1] for t in tiles)) for n in range(6)])
    torch.testing.assert_close(together, alone, rtol=0, atol=0.01)


def test_an_untrained_flow_aligned_network_is_near_the_bicubic_prior():
    tiles = flow_tiles()
    with torch.no_grad():
        correction = FlowAlignedGenerator()(*tiles) - bicubic(tiles[0])
    assert 0 < float(correction.std()) < 150


def test_tiles_that_are_not_square_cannot_be_turned():
    x, w1, w2, w3 = flow_tiles()
    with pytest.raises(ValueError, match="since tiles are rotated"):
        FlowAlignedGenerator()(x[..., :9], w1[..., :90], w2[..., :18], w3[..., :9])


def test_the_bicubic_prior_is_that_of_the_rasters():
    from deepbedmap import rasters

    x = torch.randn(1, 1, 11, 13, dtype=torch.float64)
    cells = {"y": np.arange(11)[::-1] + 0.5, "x": np.arange(13) + 0.5}
    raster = xr.DataArray(x[0, 0].numpy(), cells, ("y", "x"))
    east, north = 1 + (np.arange(44) + 0.5) / 4, 10 - (np.arange(36) + 0.5) / 4
    expected = rasters.interpolate(raster, east, north, "cubic")
    inner = np.s_[4:-4, 4:-4]
    np.testing.assert_allclose(bicubic(x)[0, 0].numpy()[inner], expected[inner], atol=1e-12)


def test_the_bicubic_prior_of_a_plane_is_that_plane_to_the_edge():
    plane = torch.arange(11.0)[:, None] * 2 - torch.arange(11.0)
    fine = 1 + (torch.arange(36) + 0.5) / 4 - 0.5
    torch.testing.assert_close(bicubic(plane[None, None])[0, 0], fine[:, None] * 2 - fine)


NETWORKS_WITH_OPTIONAL_INPUTS = pytest.mark.parametrize(
    "network", [Generator, FlowAlignedGenerator]
)


def _small(network: type[nn.Module], **options: Any) -> nn.Module:
    return network(1, features=8, growth=4, input_features=4, **options)


def _present(*rows: str) -> Tensor:
    """Which of w1, w2, w3 are there: a row of three characters for each tile, 0 or 1."""
    return torch.tensor([[flag == "1" for flag in row] for row in rows])


@NETWORKS_WITH_OPTIONAL_INPUTS
@pytest.mark.parametrize("flags", [False, True])
@pytest.mark.parametrize("garbage", [math.nan, math.inf, 1e30, -9999.0])
def test_the_values_of_an_absent_input_never_matter(network, flags, garbage):
    network = _small(network, flags=flags)
    if flags:
        nn.init.normal_(network.get_parameter(_absence(network)))
    x, *optional = flow_tiles(6)
    present = _present("111", "011", "101", "110", "000", "111")

    def run(fill: float) -> tuple[Tensor, list[Tensor]]:
        grids = [
            grid.masked_fill(~present[:, place].view(-1, 1, 1, 1), fill)
            for place, grid in enumerate(optional)
        ]
        network.zero_grad()
        bed = network(x, *grids, present)
        bed.square().mean().backward()
        return bed.detach(), [weight.grad.clone() for weight in network.parameters()]

    (expected, gradients), (found, spoilt) = run(0.0), run(garbage)
    assert torch.equal(found, expected)
    assert all(map(torch.equal, spoilt, gradients))
    assert all(gradient.isfinite().all() for gradient in spoilt)


@NETWORKS_WITH_OPTIONAL_INPUTS
def test_saying_that_all_inputs_are_there_says_nothing_new(network):
    network, tiles = _small(network, flags=True), flow_tiles()
    with torch.no_grad():
        nn.init.normal_(network.get_parameter(_absence(network)))
        assert torch.equal(network(*tiles, torch.ones(6, 3).bool()), network(*tiles))


@NETWORKS_WITH_OPTIONAL_INPUTS
def test_a_network_with_flags_can_learn_what_the_absence_of_each_input_means(network):
    network, tiles = _small(network, flags=True), flow_tiles(4)
    present = _present("111", "011", "101", "110")
    network(*tiles, present).square().mean().backward()
    gradient = network.get_parameter(_absence(network)).grad
    assert gradient.shape == (3, 4)
    assert gradient.any(dim=1).all()
    with torch.no_grad():
        before = network(*tiles, present)
        nn.init.normal_(network.get_parameter(_absence(network)))
        changed = (network(*tiles, present) != before).flatten(1).any(dim=1)
    assert changed.tolist() == [False, True, True, True]


@NETWORKS_WITH_OPTIONAL_INPUTS
def test_flags_add_three_rows_of_parameters_and_are_kept_among_the_options(network):
    plain, told = _small(network), _small(network, flags=True)
    assert told.state_dict().keys() - plain.state_dict().keys() == {_absence(told)}
    again = network(**json.loads(json.dumps(told.options)))
    assert again.state_dict().keys() == told.state_dict().keys()
    assert plain.options["flags"] is False


def test_a_tile_without_velocity_is_left_as_it_lies():
    network = FlowAlignedGenerator(features=8, growth=4, input_features=4)
    inside = []
    network.generator.register_forward_hook(lambda _, inputs, __: inside.append(inputs[0]))
    x, w1, w2, w3 = flow_tiles()
    with torch.no_grad():
        network(x, w1, w2, w3, _present(*["101"] * 6))
    torch.testing.assert_close(inside[0], (x - x.mean((1, 2, 3), keepdim=True)) / 300)


@pytest.mark.parametrize(
    "present", [torch.ones(6, 3), torch.ones(6, 4).bool(), torch.ones(5, 3).bool()]
)
def test_what_is_present_is_said_for_each_tile_and_optional_input(present):
    with pytest.raises(ValueError, match=r"^present: expected bool of shape \(6, 3\)"):
        _small(Generator)(*flow_tiles(), present)


def _absence(network: nn.Module) -> str:
    return next(name for name, _ in network.named_parameters() if name.endswith(".absent"))


def test_the_normalisation_is_kept_among_the_options_and_changes_the_answer():
    tiles = flow_tiles()
    beds = []
    for given in (None, {"correction": 600.0}, {"surface": 40.0}):
        torch.manual_seed(0)
        network = _small(FlowAlignedGenerator, normalisation=given)
        assert network.options["normalisation"] == NORMALISATION | (given or {})
        with torch.no_grad():
            beds.append(network(*tiles) - bicubic(tiles[0]))
    torch.testing.assert_close(beds[1], 2 * beds[0], rtol=1e-3, atol=1e-2)
    assert not torch.allclose(beds[2], beds[0], rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("given", [{"bad": 300.0}, {"bed": 0.0}, {"surface": math.nan}])
def test_a_normalisation_that_is_none_is_refused(given):
    with pytest.raises(ValueError, match=r"^normalisation: expected"):
        FlowAlignedGenerator(normalisation=given)


def test_the_prior_is_not_rounded_where_the_network_computes_in_bfloat16():
    x, *others = flow_tiles()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        bed = FlowAlignedGenerator(features=8, growth=4, input_features=4)(x - 2_000, *others)
        prior = bicubic(x - 2_000)
    assert bed.dtype == torch.float32
    assert torch.equal(prior, bicubic(x - 2_000))


def test_a_prediction_leaves_nothing_behind_that_a_training_cannot_use():
    x = torch.randn(1, 1, 7, 7, dtype=torch.float64, requires_grad=True)
    with torch.inference_mode():
        bicubic(x)
    bicubic(x).sum().backward()
    assert x.grad is not None


@NETWORKS_WITH_OPTIONAL_INPUTS
def test_a_step_never_waits_for_a_value_on_its_device(network):
    # Tensors on the meta device have no values: whatever asks for one fails.
    with torch.device("meta"):
        network, discriminator = _small(network, flags=True), Discriminator()
        batch = dict(zip(("x", "w1", "w2", "w3"), flow_tiles(4), strict=True))
        batch["y"] = torch.zeros(4, 1, 36, 36)
        batch["mask"] = batch["y"].bool()
        batch["present"] = torch.ones(4, 3).bool()
        batch = augment(batch, torch.randint(TURNS, (4,)))
        mask, y_true = batch.pop("mask"), batch.pop("y")
        y_pred = network(**batch)
        fake, real = discriminator(y_pred), discriminator(fill_gaps(y_true, y_pred, mask))
        loss = generator_loss(y_pred, y_true, fake, real, batch["x"], mask=mask)
        (loss + discriminator_loss(real, fake) + psnr(y_pred, y_true, mask=mask)).backward()
    assert all(weight.grad is not None for weight in network.parameters())
