"""One update of both networks on one batch.

Leong & Horgan (2020), doi 10.5194/tc-14-3687-2020.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from deepbedmap.errors import Fault, InvalidDataError
from deepbedmap.model import losses
from deepbedmap.model.distributed import parallel, synchronise, whole, world
from deepbedmap.tiles.inputs import INPUTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch.optim import Optimizer

    from deepbedmap.model.training.settings import Losses

logger = logging.getLogger(__name__)

Batch = dict[str, Tensor]
Measured = tuple[Tensor, dict[str, Tensor]]


def refine(network: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Return the bed that a generator makes of a batch, (n, 1, 4(h - 2), 4(w - 2)), metres.

    The network is passed ``present``, the optional inputs of each tile, if the batch has it.
    """
    flags = [batch["present"]] if "present" in batch else []
    bed: Tensor = network(*(batch[name] for name in INPUTS), *flags)
    return bed


class Step:
    """Updates the discriminator, if there is one, then the generator, on the same batch.

    Nothing waits for a GPU: what is measured stays there. Where its memory does not hold a batch,
    the gradients of its parts are added up from then on; a part's batch statistics, and the
    relativistic means, are then those of the part.

    Parameters
    ----------
    generator, generator_optimizer
        What is trained; left in training mode.
    discriminator, discriminator_optimizer
        None: the generator is trained without the adversarial term.
    terms
        The losses and their weights.
    clipping
        Greatest norm of the generator's gradient; 0 leaves it.
    autocast
        Whether the networks compute in bfloat16 on their GPU; the losses never do.
    unused
        Whether a batch may leave some of the generator's weights out.
    """

    def __init__(
        self,
        generator: nn.Module,
        generator_optimizer: Optimizer,
        discriminator: nn.Module | None = None,
        discriminator_optimizer: Optimizer | None = None,
        *,
        terms: Losses,
        clipping: float = 0.0,
        autocast: bool = False,
        unused: bool = False,
    ) -> None:
        self.generator = generator.train()
        self.refiner = parallel(generator, unused=unused)
        self.generator_optimizer = generator_optimizer
        self.terms, self.clipping, self.autocast = terms, clipping, autocast
        self.parts, self.count = 1, 0
        if discriminator is not None and discriminator_optimizer is not None:
            self.discriminator: nn.Module | None = synchronise(discriminator.train())
            self.judge = parallel(discriminator)
            self.discriminator_optimizer = discriminator_optimizer
        else:
            self.discriminator = None

    def __call__(self, batch: Mapping[str, Tensor], count: int | None = None) -> dict[str, Tensor]:
        """Update the networks.

        Parameters
        ----------
        batch
            ``x``, ``w1``, ``w2``, ``w3``, ``y``, perhaps ``mask`` and ``present``, on the
            networks' device: this process's share of a batch.
        count
            Tiles of the whole batch; by default there is one process, and these are all.

        Returns
        -------
        dict
            Scalars on the device, of the networks as they were before their updates: ``g_loss``,
            ``square`` (mean squared error, m2), ``psnr`` (dB) over measured cells; with structural
            or adversarial term ``ssim``; with the adversarial term ``d_loss`` and ``d_accuracy``.
        """
        batch = dict(batch)
        self.count = len(batch["y"]) if count is None else count
        metrics: dict[str, Tensor] = {}
        if self.discriminator is not None:
            metrics |= self._update(
                self.discriminator, self.discriminator_optimizer, self._judge, batch
            )
        return metrics | self._update(
            self.generator, self.generator_optimizer, self._generate, batch, self.clipping
        )

    def _update(
        self,
        network: nn.Module,
        optimizer: Optimizer,
        measure: Callable[[Batch], Measured],
        batch: Batch,
        clipping: float = 0.0,
    ) -> dict[str, Tensor]:
        # The other network takes part in the loss, not in the update: no gradients for its weights.
        weights = [weight for weight in network.parameters() if weight.requires_grad]
        metrics: dict[str, Tensor] | None = None
        while metrics is None:
            optimizer.zero_grad(set_to_none=True)
            try:
                metrics = self._add_gradients(measure, batch, weights)
            except torch.cuda.OutOfMemoryError:
                # What the failed attempt holds is free only after this block.
                metrics = None
            if metrics is None:
                batch.pop("y_pred", None)
                self._split(len(batch["y"]))
        if clipping:
            nn.utils.clip_grad_norm_(weights, clipping)
        optimizer.step()
        return metrics

    def _add_gradients(
        self, measure: Callable[[Batch], Measured], batch: Batch, weights: list[nn.Parameter]
    ) -> dict[str, Tensor]:
        metrics: dict[str, Tensor] = {}
        for part in self._parts_of(batch):
            loss, measured = measure(part)
            share = len(part["y"]) / len(batch["y"])
            (share * loss).backward(inputs=weights)  # type: ignore[no-untyped-call]
            for name, value in measured.items():
                metrics[name] = metrics.get(name, 0) + share * value.detach()
        return metrics

    def _parts_of(self, batch: Batch) -> Iterator[Batch]:
        if self.parts == 1:
            yield batch
            return
        # Each of at least two tiles, on which a discriminator can normalise.
        for number in torch.arange(len(batch["y"])).chunk(min(self.parts, len(batch["y"]) // 2)):
            tiles = slice(int(number[0]), int(number[-1]) + 1)
            yield {name: tensor[tiles] for name, tensor in batch.items()}

    def _split(self, tiles: int) -> None:
        parts = 2 * self.parts
        if parts > tiles // 2 or world() > 1:
            raise InvalidDataError(
                Fault(
                    "the GPU",
                    expected=f"memory for a part of {max(tiles // self.parts, 1)} tiles",
                    found="less",
                    remedy="lower training.batch, or the size of the network",
                )
            )
        self.parts = parts
        torch.cuda.empty_cache()
        logger.warning(
            "the GPU's memory does not hold a batch of %d tiles: it is split into %d parts, "
            "and batch statistics are now those of the part",
            tiles,
            parts,
        )

    def _refined(self, part: Batch) -> Tensor:
        with torch.autocast(part["x"].device.type, torch.bfloat16, enabled=self.autocast):
            bed = refine(self.refiner, part)
        return bed.float() if self.autocast else bed

    def _judged(self, judge: nn.Module, bed: Tensor) -> Tensor:
        """Logits of all processes' beds."""
        with torch.autocast(bed.device.type, torch.bfloat16, enabled=self.autocast):
            logits = judge(bed)
        return whole(logits, self.count)

    def _judge(self, part: Batch) -> Measured:
        """Loss of the discriminator; the generated beds are kept for the generator's turn."""
        if self.parts == 1:
            part["y_pred"] = y_pred = self._refined(part)
        else:
            with torch.no_grad():
                y_pred = self._refined(part)
        y_true = losses.fill_gaps(part["y"], y_pred, part.get("mask"))
        real_logits = self._judged(self.judge, y_true)
        fake_logits = self._judged(self.judge, y_pred.detach())
        right = torch.cat((real_logits >= 0, fake_logits < 0))
        loss = losses.discriminator_loss(real_logits=real_logits, fake_logits=fake_logits)
        return loss, {"d_loss": loss, "d_accuracy": right.float().mean()}

    def _generate(self, part: Batch) -> Measured:
        """Loss of the generator, over the whole batch."""
        y_pred = part.pop("y_pred") if "y_pred" in part else self._refined(part)
        mask, terms = part.get("mask"), self.terms
        adversarial = None if self.discriminator is None else self._adversarial(part, y_pred)
        grids = (y_pred, part["y"], part["x"])
        y_pred, y_true, x = (whole(grid, self.count) for grid in grids)
        mask = None if mask is None else whole(mask, self.count)

        loss = terms.content_weight * self._content(y_pred, y_true, mask)
        if adversarial is not None:
            loss = loss + terms.adversarial_weight * adversarial
        if terms.topographic_weight:
            loss = loss + terms.topographic_weight * losses.topographic_loss(y_pred, x)
        measured: dict[str, Tensor] = {}
        if terms.structural_weight or adversarial is not None:
            structural = losses.structural_loss(y_pred, y_true, mask=mask)
            loss = loss + terms.structural_weight * structural
            measured["ssim"] = 1 - structural
        with torch.no_grad():
            filled = losses.fill_gaps(y_true, y_pred, mask)
            square = losses.mean_of((y_pred - filled).square(), mask)
            measured["psnr"] = losses.psnr(y_pred, y_true, mask=mask)
        return loss, measured | {"g_loss": loss, "square": square}

    def _adversarial(self, part: Batch, y_pred: Tensor) -> Tensor:
        discriminator = self.discriminator
        assert discriminator is not None  # noqa: S101
        if self.terms.detached:
            discriminator.eval()
            with torch.no_grad():
                fake_logits = self._judged(discriminator, y_pred)
            discriminator.train()
            real_logits = torch.ones_like(fake_logits)
        else:
            y_true = losses.fill_gaps(part["y"], y_pred, part.get("mask"))
            with torch.no_grad():
                real_logits = self._judged(discriminator, y_true)
            fake_logits = self._judged(discriminator, y_pred)
        return losses.adversarial_loss(real_logits=real_logits, fake_logits=fake_logits)

    def _content(self, y_pred: Tensor, y_true: Tensor, mask: Tensor | None) -> Tensor:
        if self.terms.content == "absolute":
            return losses.content_loss(y_pred, y_true, mask=mask)
        error = (y_pred - losses.fill_gaps(y_true, y_pred, mask)) / self.terms.scale
        none = torch.zeros_like(error)
        cost = functional.huber_loss(error, none, reduction="none", delta=self.terms.delta)
        return losses.mean_of(cost, mask)
