"""One step of generator and discriminator with the published losses, as the references have it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deepbedmap.model import losses
from deepbedmap.model.training import Step
from deepbedmap.model.training.checking import require_complete
from deepbedmap.model.training.settings import Losses

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn
    from torch.optim import Optimizer


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

    The metrics of the discriminator are those before its update, of the generator before its own.
    """
    if len(batch["y"]) < 2:
        raise ValueError(f"batch: expected at least 2 tiles, found {len(batch['y'])}")
    require_complete(batch)
    terms = Losses(
        content="absolute",
        scale=1.0,
        delta=1.0,
        content_weight=losses.CONTENT_WEIGHT,
        adversarial_weight=losses.ADVERSARIAL_WEIGHT,
        topographic_weight=losses.TOPOGRAPHIC_WEIGHT,
        structural_weight=losses.STRUCTURAL_WEIGHT,
        detached=detached,
    )
    step = Step(generator, generator_optimizer, discriminator, discriminator_optimizer, terms=terms)
    measured = step(batch)
    names = ("d_loss", "d_accuracy", "g_loss", "psnr", "ssim")
    return {name: measured[name].item() for name in names}
