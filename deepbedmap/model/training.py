"""Training: the published step against a discriminator, and a plain loop without one.

Leong & Horgan (2020), doi 10.5194/tc-14-3687-2020.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam, Optimizer

from deepbedmap.errors import InvalidDataError
from deepbedmap.inputs import INPUTS
from deepbedmap.model import losses
from deepbedmap.model.dataset import TrainingSet, require_complete
from deepbedmap.model.networks import bicubic

LOSS_SCALE = 300.0
"""Error of the bed (m) that counts as one in the loss: the deviation of its relief."""

Advance = Callable[[int, dict[str, float]], None]


class PaperAdam(Adam):
    """Adam with eps added to the root of the second moment before its bias is corrected.

    This is the published code's form, and that of Kingma & Ba (2015, arXiv 1412.6980), end of
    section 2. PyTorch adds eps after the correction: at step t its eps has to be this one over
    sqrt(1 - beta2^t), which is 32 times as much at the first step.
    """

    def step(self, closure: Any = None) -> Any:
        """Update all parameters; arguments and result as in :meth:`torch.optim.Adam.step`."""
        for group in self.param_groups:
            group["steps"] = group.get("steps", 0) + 1
            correction = 1 - group["betas"][1] ** group["steps"]
            group["eps"] = self.defaults["eps"] / math.sqrt(correction)
        return super().step(closure)


def paper_optimizer(parameters: Iterable[nn.Parameter]) -> PaperAdam:
    """Adam as the published code has it: learning rate 1.7e-4, betas 0.9 and 0.999, eps 1e-8.

    The paper's table differs: it gives eps 0.1 and a second beta of 0.99.
    """
    return PaperAdam(parameters, lr=1.7e-4, betas=(0.9, 0.999), eps=1e-8)


def adversarial_step(
    generator: nn.Module,
    discriminator: nn.Module,
    generator_optimizer: Optimizer,
    discriminator_optimizer: Optimizer,
    batch: Mapping[str, Tensor],
    *,
    detached: bool = False,
) -> dict[str, float]:
    """Train the discriminator on a batch, then the generator on the same batch.

    Parameters
    ----------
    generator, discriminator
        The networks; both are left in training mode.
    generator_optimizer, discriminator_optimizer
        Their optimizers.
    batch
        The generator's inputs ``x``, ``w1``, ``w2`` and ``w3`` and the surveyed bed ``y``
        (n, 1, 4(h - 2), 4(w - 2)), all without gaps; perhaps ``index`` (n,), the tiles' numbers
        in the training set, by which a fault names them. At least two tiles.
    detached
        False: the relativistic average loss, whose gradient reaches the generator through the
        discriminator as that was trained, normalising by batch. True: the original's slip, where
        the generator's loss took the logits of its beds (normalised by the running statistics)
        as constants and ones for those of surveyed beds, so that the adversarial term changed
        the value of the loss and not its gradient.

    Returns
    -------
    dict
        ``d_loss`` and ``d_accuracy`` (share of surveyed beds with a logit of at least 0 and of
        generated ones below 0) before the discriminator's update; ``g_loss``, ``psnr`` (dB) and
        ``ssim`` before the generator's.

    Raises
    ------
    InvalidDataError
        A tile holds NaN or infinity; no network has changed.
    ValueError
        The batch has fewer than two tiles, on which batches cannot be normalised.
    """
    if len(batch["y"]) < 2:
        raise ValueError(f"batch: expected at least 2 tiles, found {len(batch['y'])}")
    require_complete(batch)
    x, y_true = batch["x"], batch["y"]
    generator.train()
    discriminator.train()

    y_pred = generator(*(batch[name] for name in INPUTS))
    real_logits, fake_logits = discriminator(y_true), discriminator(y_pred.detach())
    d_loss = losses.discriminator_loss(real_logits=real_logits, fake_logits=fake_logits)
    discriminator_optimizer.zero_grad(set_to_none=True)
    d_loss.backward()  # type: ignore[no-untyped-call]
    discriminator_optimizer.step()
    right = torch.cat((real_logits >= 0, fake_logits < 0))

    if detached:
        discriminator.eval()
        with torch.no_grad():
            fake_logits = discriminator(y_pred)
        discriminator.train()
        real_logits = torch.ones_like(fake_logits)
    else:
        with torch.no_grad():
            real_logits = discriminator(y_true)
        fake_logits = discriminator(y_pred)
    g_loss = losses.generator_loss(
        y_pred, y_true, fake_logits=fake_logits, real_logits=real_logits, x=x
    )
    generator_optimizer.zero_grad(set_to_none=True)
    # The discriminator takes part in the loss, not in the update: no gradients for its weights.
    g_loss.backward(  # type: ignore[no-untyped-call]
        inputs=[weight for weight in generator.parameters() if weight.requires_grad]
    )
    generator_optimizer.step()

    y_pred = y_pred.detach()
    return {
        "d_loss": d_loss.item(),
        "d_accuracy": right.float().mean().item(),
        "g_loss": g_loss.item(),
        "psnr": losses.psnr(y_pred, y_true).item(),
        "ssim": losses.ssim(y_pred, y_true).item(),
    }


def train(
    network: nn.Module,
    tiles: TrainingSet,
    *,
    validation: TrainingSet | None = None,
    steps: int = 600,
    batch_size: int = 8,
    learning_rate: float = 2e-3,
    seed: int = 0,
    advance: Advance | None = None,
) -> list[dict[str, float]]:
    """Train a generator on its own, without a discriminator, for a fixed number of steps.

    Huber's loss of the bed's error over 300 m; Adam with a warm-up of 5 % of the steps and a
    cosine to zero; gradients clipped to a norm of 1. In the end the network holds the running
    average of its weights (0.995 a step), which is smoother than the last ones.

    Parameters
    ----------
    network
        Takes x, w1, w2, w3; trained in place, on the device that it is on.
    tiles
        Drawn at random, with replacement.
    validation
        Tiles that are only looked at, ten times on the way.
    seed
        Of the draw.
    advance
        Called after each step with its number, counted from 1, and the newest metrics.

    Returns
    -------
    list of dict
        Ten rows: ``step``, ``train_rmse`` (m, running mean over steps), and with validation tiles
        ``validation_rmse`` and ``bicubic_rmse`` (m), the error of the averaged network and of the
        bicubic prior on them.

    Raises
    ------
    InvalidDataError
        The loss is no longer finite; the network is left as it was a step before.
    """
    device = next(network.parameters()).device
    random = np.random.default_rng(seed)
    optimizer = Adam(network.parameters(), lr=learning_rate, betas=(0.9, 0.99))
    average = copy.deepcopy(network).eval()
    history: list[dict[str, float]] = []
    metrics: dict[str, float] = {}
    square = 0.0
    network.train()
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * _schedule(step, steps)
        batch = tiles[torch.from_numpy(random.integers(0, len(tiles), batch_size))]
        inputs = [batch[name].to(device) for name in INPUTS]
        y_true = batch["y"].to(device)
        y_pred = network(*inputs)
        loss = functional.huber_loss(y_pred / LOSS_SCALE, y_true / LOSS_SCALE, delta=0.5)
        if not loss.isfinite():
            raise InvalidDataError(
                f"training diverged at step {step}: the loss is {loss.item()}; lower the learning "
                f"rate of {learning_rate:g}, or look for tiles with extreme values"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            kept = min(0.995, step / (step + 9))
            for mean, weight in zip(average.parameters(), network.parameters(), strict=True):
                mean.lerp_(weight, 1 - kept)
            error = float((y_pred - y_true).square().mean())
        square += (error - square) / min(step, 50)
        metrics |= {"step": step, "train_rmse": square**0.5}
        if step * 10 // steps > (step - 1) * 10 // steps:
            if validation is not None:
                metrics |= _validate(average, validation, device)
            history.append(dict(metrics))
        if advance is not None:
            advance(step, metrics)
    network.load_state_dict(average.state_dict())
    network.eval()
    return history


def _schedule(step: int, steps: int) -> float:
    """Share of the learning rate: rising over 5 % of the steps, then falling as a cosine."""
    warm_up = min(1.0, step / (0.05 * steps))
    return warm_up * 0.5 * (1 + math.cos(math.pi * (step - 1) / steps))


def _validate(
    network: nn.Module, tiles: TrainingSet, device: torch.device, batch_size: int = 64
) -> dict[str, float]:
    squares = torch.zeros(2, dtype=torch.float64)
    with torch.inference_mode():
        for start in range(0, len(tiles), batch_size):
            batch = tiles[torch.arange(start, min(start + batch_size, len(tiles)))]
            y_pred = network(*(batch[name].to(device) for name in INPUTS)).cpu()
            for number, bed in enumerate((y_pred, bicubic(batch["x"]))):
                squares[number] += (bed - batch["y"]).square().mean((1, 2, 3)).sum().double()
    model, prior = (squares / len(tiles)).sqrt().tolist()
    return {"validation_rmse": model, "bicubic_rmse": prior}
