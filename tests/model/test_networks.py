from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deepbedmap.model.checkpoints import load_chainer_npz
from deepbedmap.model.networks import NETWORKS, Discriminator, Generator


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
