from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deepbedmap.errors import InvalidDataError
from deepbedmap.model import losses
from deepbedmap.model.checkpoints import load_chainer_npz
from deepbedmap.model.dataset import TrainingSet
from deepbedmap.model.networks import Discriminator, FlowAlignedGenerator, Generator, bicubic
from deepbedmap.model.training import adversarial_step, paper_optimizer, train

Batch = dict[str, Tensor]


@pytest.fixture
def batch(grids: Callable[..., Batch]) -> Batch:
    return {**grids(3), "y": torch.randn(3, 1, 36, 36)}


@pytest.fixture
def networks(small_generator: Callable[..., Generator]) -> tuple[Generator, Discriminator]:
    return small_generator(), Discriminator()


def _step(
    networks: tuple[nn.Module, nn.Module], batch: Batch, *, detached: bool = False
) -> dict[str, float]:
    optimizers = (paper_optimizer(network.parameters()) for network in networks)
    return adversarial_step(*networks, *optimizers, batch, detached=detached)


def _state(network: nn.Module) -> Batch:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


@pytest.fixture
def original_steps(
    reference: Callable[[str], Batch], chainer_weights: Callable[[str], dict[str, Any]]
) -> Callable[..., list[dict[str, float]]]:
    """Metrics of training steps with the weights and tiles of the reference."""

    def take(count: int, dtype: torch.dtype) -> list[dict[str, float]]:
        arrays = reference("generator_forward")
        batch = {name: arrays[f"a_{name}"].to(dtype) for name in ("x", "w1", "w2", "w3")}
        batch["y"] = reference("losses")["y_true"].to(dtype)
        networks = (
            load_chainer_npz(chainer_weights("generator"), Generator(1)).to(dtype),
            load_chainer_npz(chainer_weights("discriminator"), Discriminator()).to(dtype),
        )
        optimizers = [paper_optimizer(network.parameters()) for network in networks]
        return [
            adversarial_step(*networks, *optimizers, batch, detached=True) for _ in range(count)
        ]

    return take


def test_two_steps_on_the_original_tiles_repeat_the_original_metrics(
    published: dict[str, Any], original_steps: Callable[..., list[dict[str, float]]]
) -> None:
    first, second = original_steps(2, torch.float32)
    for name, value in first.items():
        assert value == pytest.approx(published["training"][0][name], rel=1e-3), name

    # Adam's first update is close to the sign of each gradient, and some signs turn with the
    # rounding: the original in Chainer, with its weights perturbed by 1e-7, spreads by these
    # standard deviations in its second step (24 runs). This code's spread is no wider.
    for name, spread in {"d_loss": 0.098, "g_loss": 0.024, "psnr": 0.021, "ssim": 0.0046}.items():
        assert second[name] == pytest.approx(published["training"][1][name], abs=3 * spread), name


def test_four_steps_in_float64_repeat_chainers_in_float64(
    original_steps: Callable[..., list[dict[str, float]]],
) -> None:
    # From the same networks, weights and tiles in Chainer 7.8.1, all cast to float64.
    chainer = {
        "d_loss": (1.642962971, 1.631534033, 0.450346170, 0.220247661),
        "d_accuracy": (0.5, 0.75, 0.875, 1.0),
        "g_loss": (0.738166177, 5.291716113, 5.327837573, 5.274255753),
        "psnr": (184.425505093, 174.928714469, 175.277165675, 175.264575845),
        "ssim": (0.870370646, 0.014951229, 0.007401242, 0.017667083),
    }
    steps = original_steps(4, torch.float64)
    for name, values in chainer.items():
        assert [step[name] for step in steps] == pytest.approx(values, rel=1e-5), name


def test_a_step_changes_both_networks_and_the_metrics_are_those_before_it(
    networks: tuple[Generator, Discriminator], batch: Batch
) -> None:
    before = [_state(network) for network in networks]
    inputs = [batch[name] for name in ("x", "w1", "w2", "w3")]
    with torch.no_grad():
        y_pred = networks[0](*inputs)
    metrics = _step(networks, batch)
    assert metrics.keys() == {"d_loss", "d_accuracy", "g_loss", "psnr", "ssim"}
    assert metrics["psnr"] == pytest.approx(losses.psnr(y_pred, batch["y"]).item())
    assert metrics["ssim"] == pytest.approx(losses.ssim(y_pred, batch["y"]).item(), abs=1e-6)
    assert 0 <= metrics["d_accuracy"] <= 1
    for network, state in zip(networks, before, strict=True):
        for name, parameter in network.named_parameters():
            # The relativistic loss takes differences of logits: their common bias cancels.
            assert name == "linear_2.bias" or not torch.equal(parameter, state[name]), name


def test_the_generator_feels_the_discriminator_unless_detached(
    small_generator: Callable[..., Generator], batch: Batch
) -> None:
    start = _state(small_generator())

    def gradient_beside(seed: int, *, detached: bool) -> Tensor:
        torch.manual_seed(seed)
        networks = small_generator(), Discriminator()
        networks[0].load_state_dict(start)
        _step(networks, batch, detached=detached)
        gradient = networks[0].get_parameter("final_conv_layer2.deform_conv.weight").grad
        assert gradient is not None
        return gradient

    assert torch.equal(gradient_beside(1, detached=True), gradient_beside(2, detached=True))
    assert not torch.equal(gradient_beside(1, detached=False), gradient_beside(2, detached=False))


def test_the_live_gradient_is_that_of_the_relativistic_average_loss(
    networks: tuple[Generator, Discriminator], batch: Batch
) -> None:
    generator, discriminator = (network.double() for network in networks)
    batch = {name: tensor.double() for name, tensor in batch.items()}
    inputs = [batch[name] for name in ("x", "w1", "w2", "w3")]
    with torch.no_grad():
        # Fresh weights put every offset beside 0, where a bilinear surface has its kink.
        for parameter in generator.parameters():
            parameter.mul_(10)
    start = _state(generator)
    still = torch.optim.SGD(discriminator.parameters(), lr=0.0)
    adversarial_step(
        generator, discriminator, paper_optimizer(generator.parameters()), still, batch
    )
    gradients = [parameter.grad.clone() for parameter in generator.parameters()]

    def loss() -> Tensor:
        y_pred = generator(*inputs)
        logits = {"fake_logits": discriminator(y_pred), "real_logits": discriminator(batch["y"])}
        return losses.generator_loss(y_pred, batch["y"], x=batch["x"], **logits)

    generator.load_state_dict(start)
    direction = [gradient / gradient.norm() for gradient in gradients]
    with torch.no_grad():
        values = []
        for shift in (1e-7, -2e-7):
            for parameter, way in zip(generator.parameters(), direction, strict=True):
                parameter.add_(way, alpha=shift)
            values.append(loss().item())
    slope = (values[0] - values[1]) / 2e-7
    assert slope == pytest.approx(sum(g.norm().item() for g in gradients), rel=1e-4)


def test_the_generators_update_adds_nothing_to_the_discriminators_gradients(
    networks: tuple[Generator, Discriminator], batch: Batch
) -> None:
    generator, discriminator = networks
    with torch.no_grad():
        fake = generator(*(batch[name] for name in ("x", "w1", "w2", "w3")))
    losses.discriminator_loss(discriminator(batch["y"]), discriminator(fake)).backward()
    alone = {name: weight.grad.clone() for name, weight in discriminator.named_parameters()}
    _step(networks, batch)
    for name, weight in discriminator.named_parameters():
        torch.testing.assert_close(weight.grad, alone[name], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ["x", "w1", "w2", "w3", "y"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_tile_with_gaps_is_refused_by_number_before_anything_changes(
    name: str, value: float, networks: tuple[Generator, Discriminator], batch: Batch
) -> None:
    batch[name][2, 0, 3:5, 3] = value
    before = [_state(network) for network in networks]
    with pytest.raises(
        InvalidDataError, match=rf"tile 2, field {name}: .* found 2 cells"
    ) as caught:
        _step(networks, batch)
    assert "\n" not in str(caught.value)
    with pytest.raises(InvalidDataError, match="tile 317"):
        _step(networks, {**batch, "index": torch.tensor([5, 6, 317])})
    for network, state in zip(networks, before, strict=True):
        assert all(torch.equal(tensor, state[key]) for key, tensor in _state(network).items())


def test_a_batch_of_one_tile_is_refused(
    networks: tuple[Generator, Discriminator], batch: Batch
) -> None:
    with pytest.raises(ValueError, match="at least 2 tiles, found 1"):
        _step(networks, {name: tensor[:1] for name, tensor in batch.items()})


def test_the_optimizer_is_the_published_codes() -> None:
    optimizer = paper_optimizer([nn.Parameter(torch.zeros(1))])
    settings = optimizer.defaults
    assert isinstance(optimizer, torch.optim.Adam)
    assert (settings["lr"], settings["betas"], settings["eps"]) == (1.7e-4, (0.9, 0.999), 1e-8)


def test_the_optimizers_eps_joins_the_uncorrected_moment_also_after_a_restart() -> None:
    gradients = (3e-8, -1e-7, 2e-7)
    weight, first, second = 0.0, 0.0, 0.0
    parameter = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = paper_optimizer([parameter])
    for step, gradient in enumerate(gradients, start=1):
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        rate = 1.7e-4 * (1 - 0.999**step) ** 0.5 / (1 - 0.9**step)
        weight -= rate * first / (second**0.5 + 1e-8)

        state = optimizer.state_dict()
        optimizer = paper_optimizer([parameter])
        optimizer.load_state_dict(state)
        parameter.grad = torch.full_like(parameter, gradient)
        optimizer.step()
        assert parameter.item() == pytest.approx(weight, rel=1e-9)


def _made_up_tiles(count: int, seed: int) -> TrainingSet:
    """Tiles whose bed is the bicubic prior plus what the surface shows of it."""
    random = np.random.default_rng(seed)
    wave = np.cos(np.arange(11) * np.pi / 3) * np.ones((11, 1))
    coarse = (random.standard_normal((count, 1, 1, 1)) * wave).astype("float32")
    bump = np.repeat(np.repeat(coarse, 10, 2), 10, 3)
    x = 300 * random.standard_normal((count, 1, 11, 11)).astype("float32")
    fine = np.repeat(np.repeat(coarse[:, :, 1:-1, 1:-1], 4, 2), 4, 3)
    return TrainingSet(
        {
            "x": x,
            "w1": 20 * bump,
            "w2": np.float32([300, 30]).reshape(1, 2, 1, 1) * np.ones((count, 2, 22, 22)),
            "w3": np.full((count, 1, 11, 11), 200, "float32"),
            "y": bicubic(torch.from_numpy(x)).numpy() + 100 * fine,
        }
    )


def test_training_finds_what_the_surface_shows_of_the_bed() -> None:
    torch.manual_seed(1)
    network = FlowAlignedGenerator(features=8, growth=4, input_features=8)
    history = train(
        network,
        _made_up_tiles(64, 0),
        validation=_made_up_tiles(16, 1),
        steps=60,
        batch_size=4,
        learning_rate=3e-3,
    )
    assert len(history) == 10
    assert history[-1]["step"] == 60
    assert history[-1]["bicubic_rmse"] > 30
    assert history[-1]["validation_rmse"] < 0.6 * history[-1]["bicubic_rmse"]


def test_training_twice_with_one_seed_gives_one_network() -> None:
    weights = []
    for _ in range(2):
        torch.manual_seed(2)
        network = FlowAlignedGenerator(features=4, growth=4, input_features=4)
        train(network, _made_up_tiles(16, 0), steps=3, seed=5)
        weights.append(torch.cat([weight.flatten() for weight in network.parameters()]))
    assert torch.equal(*weights)


def test_each_step_is_told() -> None:
    told = []
    network = FlowAlignedGenerator(features=4, growth=4, input_features=4)
    train(network, _made_up_tiles(8, 0), steps=4, advance=lambda step, _: told.append(step))
    assert told == [1, 2, 3, 4]


def test_a_diverging_loss_stops_the_training_and_leaves_finite_weights() -> None:
    tiles = _made_up_tiles(8, 0)
    tiles.tensors["y"] = tiles.tensors["y"] * 1e38
    network = FlowAlignedGenerator(features=4, growth=4, input_features=4)
    with pytest.raises(InvalidDataError, match="diverged at step 1"):
        train(network, tiles, steps=5)
    assert all(weight.isfinite().all() for weight in network.parameters())
