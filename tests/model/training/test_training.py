from __future__ import annotations

import contextlib
import json
import logging
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from support import tiny
from support.adversarial import adversarial_step
from torch import Tensor, nn

from deepbedmap.errors import InvalidDataError
from deepbedmap.model import checkpoints, losses, training
from deepbedmap.model.checkpoints import load_chainer_npz
from deepbedmap.model.networks import Discriminator, FlowAlignedGenerator, Generator, bicubic
from deepbedmap.model.training import (
    TrainingSet,
    fit,
    make_generator,
    paper_optimizer,
    validate,
)
from deepbedmap.model.training.configuration import load

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


SMALL_ALIGNED: dict[str, Any] = {
    "network__features": 4,
    "network__growth": 4,
    "network__input_features": 4,
    "training__batch": 4,
}


def test_training_finds_what_the_surface_shows_of_the_bed(tmp_path: Path) -> None:
    settings = load("default").with_values(
        **SMALL_ALIGNED | {"network__features": 8, "network__input_features": 8},
        optimizer__learning_rate=3e-3,
        schedule__pretraining_epochs=4,
    )
    fitted = fit(settings, _made_up_tiles(64, 0), _made_up_tiles(16, 1), tmp_path, device="cpu")
    last = fitted.history[-1]
    assert last["step"] == 64
    assert last["bicubic_rmse"] > 30
    assert last["validation_rmse"] < 0.6 * last["bicubic_rmse"]


def test_training_twice_with_one_seed_gives_one_network(tmp_path: Path) -> None:
    weights = []
    for folder in ("one", "two"):
        torch.manual_seed(len(weights))
        settings = load("default").with_values(
            **SMALL_ALIGNED, schedule__pretraining_epochs=1, training__seed=5
        )
        tiles = _made_up_tiles(16, 0)
        fitted = fit(settings, tiles, tiles, tmp_path / folder, device="cpu")
        network = checkpoints.load(fitted.best).network
        weights.append(torch.cat([weight.flatten() for weight in network.parameters()]))
    assert torch.equal(*weights)


def test_each_step_is_reported(tmp_path: Path) -> None:
    reported = []
    settings = load("default").with_values(**SMALL_ALIGNED, schedule__pretraining_epochs=2)
    tiles = _made_up_tiles(8, 0)
    fit(
        settings,
        tiles,
        tiles,
        tmp_path,
        device="cpu",
        progress=lambda step, steps, _: reported.append((step, steps)),
    )
    assert reported == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_diverging_loss_stops_the_training_and_leaves_finite_weights(tmp_path: Path) -> None:
    tiles = _made_up_tiles(8, 0)
    tiles.tensors["y"] = tiles.tensors["y"] * 1e30
    settings = load("default").with_values(**SMALL_ALIGNED)
    with pytest.raises(InvalidDataError, match="diverged in epoch 1"):
        fit(settings, tiles, tiles, tmp_path, device="cpu")
    kept = checkpoints.load_state(tmp_path / "last.safetensors")
    assert all(tensor.isfinite().all() for tensor in kept.tensors.values())


def test_the_paper_preset_repeats_the_originals_first_two_steps(
    published: dict[str, Any],
    reference: Callable[[str], Batch],
    chainer_weights: Callable[[str], dict[str, Any]],
    tmp_path: Path,
) -> None:
    arrays = reference("generator_forward")
    tiles = {name: arrays[f"a_{name}"] for name in ("x", "w1", "w2", "w3")}
    tiles["y"] = reference("losses")["y_true"]
    paper = load("paper").with_values(
        network__num_residual_blocks=1, schedule__adversarial_epochs=2, training__batch=4
    )
    fitted = fit(
        paper,
        TrainingSet(tiles),
        TrainingSet(tiles),
        tmp_path,
        device="cpu",
        generator=load_chainer_npz(chainer_weights("generator"), Generator(1)),
        discriminator=load_chainer_npz(chainer_weights("discriminator"), Discriminator()),
    )
    first, second = fitted.history
    for name in ("d_loss", "d_accuracy", "g_loss", "psnr", "ssim"):
        assert first[name] == pytest.approx(published["training"][0][name], rel=1e-3), name
    # As far as the original's own rounding spreads it, see above.
    for name, spread in {"d_loss": 0.098, "g_loss": 0.024, "psnr": 0.021, "ssim": 0.0046}.items():
        assert second[name] == pytest.approx(published["training"][1][name], abs=3 * spread), name


def test_a_configured_training_learns_and_leaves_the_averaged_generator(tmp_path: Path) -> None:
    fitted = tiny.fit(
        tmp_path,
        tiny.Tiles(48),
        validation=tiny.Tiles(8, 1),
        network__name="FlowAlignedGenerator",
        network__features=8,
        network__input_features=8,
        optimizer__learning_rate=3e-3,
        schedule__pretraining_epochs=4,
        training__batch=4,
    )
    last = fitted.history[-1]
    assert last["validation_rmse"] < 0.7 * last["bicubic_rmse"]
    assert last["train_rmse"] < fitted.history[0]["train_rmse"]
    loaded = checkpoints.load(fitted.best)
    assert loaded.metadata["normalisation"]["bed"] == 300
    scores = validate(loaded.network, tiny.Tiles(8, 1), torch.device("cpu"))
    assert scores["validation_rmse"] == pytest.approx(
        min(row["validation_rmse"] for row in fitted.history)
    )


def test_inputs_too_large_for_their_constants_are_told_with_constants_that_fit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tiles = tiny.Tiles(24)
    tiles.tensors["w1"] *= 0.1
    common: dict[str, Any] = {
        "network__name": "FlowAlignedGenerator",
        "network__features": 4,
        "network__input_features": 4,
    }
    tiny.fit(tmp_path / "usual", tiles, **common)
    assert "constants" not in caplog.text
    tiles.tensors["w1"] *= 60
    tiny.fit(tmp_path / "mountains", tiles, **common)
    (told,) = (record.message for record in caplog.records if "constants" in record.message)
    assert "short_surface" in told
    assert "velocity" not in told
    suggested = dict(
        part.split(" = ") for part in told.split("[network.normalisation] rather ")[1].split(", ")
    )
    caplog.clear()
    constants = {name: float(value) for name, value in suggested.items()}
    tiny.fit(tmp_path / "mended", tiles, **common, network__normalisation=constants)
    assert "constants" not in caplog.text


def test_every_epoch_takes_every_tile_once_in_an_order_of_its_own(tmp_path: Path) -> None:
    taken: list[int] = []

    class Watched(tiny.Tiles):
        def __getitem__(self, index: Tensor) -> Batch:
            taken.extend(index.tolist())
            return super().__getitem__(index)

    told: list[tuple[int, int]] = []
    tiny.fit(tmp_path / "a", Watched(7), progress=lambda step, of, _: told.append((step, of)))
    # The first three are looked at for their shapes.
    epochs = taken[3:10], taken[10:]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert told == [(step, 6) for step in range(1, 7)]
    before, taken = taken, []
    tiny.fit(tmp_path / "b", Watched(7), network__features=5)
    assert taken == before


def test_a_rest_of_one_tile_is_left_out_where_batches_are_normalised(tmp_path: Path) -> None:
    phases = {"schedule__pretraining_epochs": 0, "schedule__adversarial_epochs": 1}
    assert tiny.fit(tmp_path, tiny.Tiles(7), **phases).history[-1]["step"] == 2
    with pytest.raises(InvalidDataError, match="expected at least 2 tiles in a batch, found 1"):
        tiny.fit(tmp_path / "one", tiny.Tiles(1), **phases)


@pytest.mark.parametrize("adversarial", [0, 1])
def test_what_stands_in_unmeasured_cells_changes_nothing(tmp_path: Path, adversarial: int) -> None:
    settings = {
        "schedule__pretraining_epochs": 1,
        "schedule__adversarial_epochs": adversarial,
        "losses__structural_weight": 0.1,
        "losses__topographic_weight": 0.1,
    }
    rows = []
    for number, garbage in enumerate((math.nan, 1e9)):
        tiles, held = tiny.Tiles(6, masked=True), tiny.Tiles(3, 1, masked=True)
        for part in (tiles, held):
            part.tensors["y"].masked_fill_(~part.tensors["mask"], garbage)
        fitted = tiny.fit(tmp_path / str(number), tiles, validation=held, **settings)
        rows.append([{**row, "seconds": 0} for row in fitted.history])
    assert rows[0] == rows[1]
    assert all(math.isfinite(row["g_loss"]) for row in rows[0])


def test_the_score_is_over_measured_cells_alone() -> None:
    tiles = tiny.Tiles(2)
    tiles.tensors["mask"] = torch.zeros(2, 1, 36, 36, dtype=torch.bool)
    network = FlowAlignedGenerator(features=4, growth=4, input_features=4)
    with pytest.raises(InvalidDataError, match="expected measured cells, found none"):
        validate(network, tiles, torch.device("cpu"))
    tiles.tensors["mask"][1, 0, 3, 4] = True
    tiles.tensors["y"][1, 0, 3, 4] = bicubic(tiles.tensors["x"])[1, 0, 3, 4] + 7
    scores = validate(network, tiles, torch.device("cpu"), batch_size=1)
    assert scores["bicubic_rmse"] == pytest.approx(7, rel=1e-4)


def test_optional_inputs_may_be_absent(tmp_path: Path) -> None:
    tiles = tiny.Tiles()
    tiles.tensors["present"] = torch.tensor([[True, False, True]]).repeat(6, 1)
    histories = []
    for number, value in enumerate((0.0, math.nan)):
        tiles.tensors["w2"].fill_(value)
        fitted = tiny.fit(tmp_path / str(number), tiles, network__flags=True)
        histories.append([row["g_loss"] for row in fitted.history])
    assert histories[0] == histories[1]
    assert checkpoints.load(fitted.best).metadata["network"]["options"]["flags"]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"w1": torch.zeros(6, 1, 55, 55)}, "field w1: expected 110 x 110 cells for x of 11"),
        ({"y": torch.zeros(6, 1, 44, 44)}, "field y: expected 36 x 36 cells"),
        ({"x": torch.full((6, 1, 11, 11), torch.nan)}, "field x: .* since there is no mask"),
        (
            {
                "mask": torch.zeros(6, 1, 36, 36, dtype=torch.bool),
                "w3": torch.full((6, 1, 11, 11), torch.nan),
            },
            "field w3",
        ),
    ],
)
def test_tiles_that_do_not_fit_are_refused_before_anything_is_written(
    tmp_path: Path, broken: Batch, message: str
) -> None:
    tiles = tiny.Tiles()
    tiles.tensors |= broken
    with pytest.raises(InvalidDataError, match=rf"^training tiles.*{message}"):
        tiny.fit(tmp_path, tiles)
    assert list(tmp_path.iterdir()) == []


def test_divergence_is_told_and_the_last_good_state_is_kept(tmp_path: Path) -> None:
    tiles = tiny.Tiles()

    def progress(step: int, *_: object) -> None:
        if step == 4:
            tiles.tensors["y"].fill_(torch.nan)

    with pytest.raises(InvalidDataError, match=r"diverged in epoch 3: \w+ is nan") as caught:
        tiny.fit(tmp_path, tiles, progress=progress, schedule__pretraining_epochs=4)
    assert "\n" not in str(caught.value)
    assert "the last good state is kept in" in str(caught.value)
    kept = checkpoints.load_state(tmp_path / "last.safetensors")
    assert kept.metadata["epoch"] == 2
    assert all(tensor.isfinite().all() for tensor in kept.tensors.values())
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


def test_weights_that_an_epochs_last_update_breaks_are_not_kept(tmp_path: Path) -> None:
    torch.manual_seed(0)
    generator = make_generator(tiny.configured())

    def progress(step: int, *_: object) -> None:
        if step == 4:
            next(generator.parameters()).data.fill_(torch.inf)

    with pytest.raises(InvalidDataError, match="epoch 2: a weight is no longer finite"):
        tiny.fit(tmp_path, generator=generator, progress=progress)
    kept = checkpoints.load_state(tmp_path / "last.safetensors")
    assert kept.metadata["epoch"] == 1
    assert all(tensor.isfinite().all() for tensor in kept.tensors.values())


def test_a_loss_far_above_its_running_mean_is_divergence(tmp_path: Path) -> None:
    tiles = tiny.Tiles()

    def progress(step: int, *_: object) -> None:
        if step == 6:
            tiles.tensors["y"].add_(1e5)

    with pytest.raises(InvalidDataError, match=r"epoch 4: g_loss is .*, over 20 times its running"):
        tiny.fit(tmp_path, tiles, progress=progress, schedule__pretraining_epochs=5)


def test_training_ends_early_once_validation_has_not_improved(tmp_path: Path) -> None:
    settings = {
        "schedule__pretraining_epochs": 9,
        "training__patience": 2,
        "optimizer__learning_rate": 1e-30,
        "training__average": 0.0,
    }
    fitted = tiny.fit(tmp_path, **settings)
    assert len(fitted.history) == 3
    assert checkpoints.load(fitted.best).metadata["epoch"] == 1
    assert tiny.fit(tmp_path, resume=True, **settings) == fitted


def test_validation_and_state_come_as_often_as_asked_and_at_the_end(tmp_path: Path) -> None:
    fitted = tiny.fit(tmp_path, schedule__pretraining_epochs=3, training__validation_interval=2)
    assert ["validation_rmse" in row for row in fitted.history] == [False, True, True]
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows == fitted.history


def test_the_learning_rate_warms_up_and_falls_as_a_cosine(tmp_path: Path) -> None:
    fitted = tiny.fit(
        tmp_path,
        schedule__pretraining_epochs=5,
        schedule__warm_up=0.5,
        training__batch=6,
        optimizer__learning_rate=1.0,
        optimizer__eps=1e20,
    )
    expected = [
        min(1, step / 2.5) * 0.5 * (1 + math.cos(math.pi * (step - 1) / 5)) for step in range(1, 6)
    ]
    assert [row["learning_rate"] for row in fitted.history] == pytest.approx(expected)


class _Crowded(nn.Module):
    """A network whose memory holds few tiles."""

    def __init__(self, inner: nn.Module, room: int) -> None:
        super().__init__()
        self.inner, self.room = inner, room

    def forward(self, *inputs: Tensor) -> Tensor:
        if len(inputs[0]) > self.room:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self.inner(*inputs)


def _stepped(
    room: int, *, adversarial: bool = False, judged: int = 8
) -> tuple[nn.Module, dict[str, float]]:
    torch.manual_seed(0)
    generator = _Crowded(FlowAlignedGenerator(features=4, growth=4, input_features=4), room)
    judge = _Crowded(tiny.Judge(), judged)
    optimizers = [torch.optim.SGD(part.parameters(), lr=1e-2) for part in (generator, judge)]
    terms = tiny.configured(losses__topographic_weight=0.1).losses
    against = (judge, optimizers[1]) if adversarial else ()
    step = training.Step(generator, optimizers[0], *against, terms=terms)
    batch = tiny.Tiles(8)[torch.arange(8)]
    measured = [step(batch) for _ in range(2)]
    return generator, {name: value.item() for name, value in measured[-1].items()}


def test_a_batch_too_large_for_the_gpu_is_split_and_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        network, metrics = _stepped(2)
    assert [record.getMessage() for record in caplog.records][-1] == (
        "the GPU's memory does not hold a batch of 8 tiles: it is split into 4 parts, and batch "
        "statistics are now those of the part"
    )
    assert len(caplog.records) == 2
    whole, expected = _stepped(8)
    for name in ("g_loss", "square"):
        assert metrics[name] == pytest.approx(expected[name], rel=1e-4)
    for part, weight in zip(network.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(part, weight, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("room", "judged"), [(4, 8), (8, 4), (2, 4)])
def test_a_split_batch_trains_against_a_discriminator_too(room: int, judged: int) -> None:
    _, metrics = _stepped(room, adversarial=True, judged=judged)
    assert all(math.isfinite(value) for value in metrics.values())
    assert metrics.keys() >= {"d_loss", "g_loss", "ssim"}


def test_a_gpu_that_does_not_hold_two_tiles_is_told_in_one_line() -> None:
    with pytest.raises(InvalidDataError, match=r"memory for a part of 2 tiles.*training\.batch"):
        _stepped(1)


@pytest.mark.parametrize("autocast", [False, True])
def test_in_bfloat16_the_weights_and_losses_stay_in_float32(autocast: bool) -> None:
    torch.manual_seed(0)
    generator = FlowAlignedGenerator(features=4, growth=4, input_features=4)
    seen = []
    generator.generator.residual_network.register_forward_hook(
        lambda _, __, output: seen.append(output.dtype)
    )
    judge = Discriminator()
    optimizers = [torch.optim.SGD(part.parameters(), lr=1e-3) for part in (generator, judge)]
    terms = tiny.configured(losses__adversarial_weight=0.02).losses
    step = training.Step(
        generator, optimizers[0], judge, optimizers[1], terms=terms, autocast=autocast
    )
    batch = tiny.Tiles(4)[torch.arange(4)]
    with torch.no_grad():
        expected = (training.refine(generator, batch) - batch["y"]).square().mean().item()
    seen.clear()
    measured = step(batch)
    assert seen == [torch.bfloat16 if autocast else torch.float32]
    assert all(value.dtype == torch.float32 for value in measured.values())
    assert all(weight.dtype == torch.float32 for weight in generator.parameters())
    assert measured["square"].item() == pytest.approx(expected, rel=0.05)


class _FakeStep:
    """Notes which batches it is called with; fails where it may not be captured."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, float]] = []
        self.capturing = self.refusing = False

    def __call__(self, batch: Batch, count: int | None = None) -> Batch:
        if self.capturing and self.refusing:
            raise RuntimeError("operation not permitted when stream is capturing")
        if not self.capturing:
            self.seen.append((count or 0, batch["x"].sum().item()))
        return {"g_loss": batch["x"].sum()}


@pytest.fixture
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> tuple[_FakeStep, list[str]]:
    """A step, and what is replayed, on a machine that pretends to have CUDA graphs."""
    step, replayed = _FakeStep(), []

    class Stream:
        def wait_stream(self, other: Stream) -> None:
            pass

    class Graph:
        def replay(self) -> None:
            replayed.append("replay")

    @contextlib.contextmanager
    def capture(_: Graph) -> Iterator[None]:
        step.capturing = True
        try:
            yield
        finally:
            step.capturing = False

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    return step, replayed


def test_a_captured_step_is_replayed_on_every_batch_of_its_shape(
    fake_gpu: tuple[_FakeStep, list[str]],
) -> None:
    step, replayed = fake_gpu
    captured = training.Captured(step)  # type: ignore[arg-type]
    for number, count in enumerate((2, 2, 2, 2, 1, 2)):
        captured({"x": torch.full((count,), float(number))}, count)
        if number in (2, 3, 5):
            assert captured.batch["x"].tolist() == [number, number]
    assert step.seen == [(2, 0.0), (2, 2.0), (1, 4.0)]
    assert len(replayed) == 3


def test_where_capture_fails_steps_are_computed_as_ever(
    fake_gpu: tuple[_FakeStep, list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    step, replayed = fake_gpu
    step.refusing = True
    captured = training.Captured(step)  # type: ignore[arg-type]
    for number in range(5):
        captured({"x": torch.full((2,), float(number))}, 2)
    assert [total for _, total in step.seen] == [0, 2, 4, 6, 8]
    assert not replayed
    assert [record.getMessage() for record in caplog.records] == [
        "steps are not captured in a CUDA graph: operation not permitted when stream is capturing"
    ]


def test_a_network_that_could_be_told_of_absent_inputs_trains_where_none_is(
    tmp_path: Path,
) -> None:
    fitted = tiny.fit(tmp_path, network__flags=True, schedule__pretraining_epochs=1)
    assert math.isfinite(fitted.history[0]["g_loss"])


def test_a_graph_is_asked_for_in_vain_without_a_gpu(tmp_path: Path) -> None:
    plain, asked = (tiny.fit(tmp_path / str(flag), training__graph=flag) for flag in (False, True))
    assert [row["g_loss"] for row in plain.history] == [row["g_loss"] for row in asked.history]


def test_tensorboard_is_told_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, Any, int]] = []

    class Writer:
        def __init__(self, folder: str, purge_step: int) -> None:
            told.append((folder, None, purge_step))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            told.append((name, value, step))

        def add_images(self, name: str, images: Tensor, step: int) -> None:
            assert images.shape == (4, 1, 36, 36)
            assert 0 <= images.min() <= images.max() <= 1
            told.append((name, None, step))

        def close(self) -> None:
            told.append(("closed", None, 0))

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    fitted = tiny.fit(tmp_path)
    assert ("validation_rmse", fitted.history[1]["validation_rmse"], 4) in told
    assert ("validation/predicted", None, 2) in told
    assert ("validation/prior", None, 2) in told
    assert told[-1][0] == "closed"


def test_training_leaves_the_random_numbers_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    options = {"discriminator": tiny.Judge(), "device": "cpu"}
    before = torch.get_rng_state()
    fit(tiny.configured(), tiny.Tiles(), tiny.Tiles(4, 1), tmp_path, **options)
    assert torch.equal(torch.get_rng_state(), before)


def test_without_an_average_the_best_is_the_generator_itself(tmp_path: Path) -> None:
    fitted = tiny.fit(tmp_path, training__average=0.0, schedule__pretraining_epochs=1)
    state = checkpoints.load_state(fitted.last).tensors
    for name, tensor in checkpoints.load(fitted.best).network.state_dict().items():
        assert torch.equal(tensor, state[f"generator.{name}"])
    assert not any(name.startswith("average.") for name in state)
