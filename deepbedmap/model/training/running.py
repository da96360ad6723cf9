"""One training run: the loop over epochs, its networks and optimizers, and its saved state."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from deepbedmap.errors import DivergedError, Fault, InvalidDataError, MissingDataError
from deepbedmap.model import checkpoints, distributed
from deepbedmap.model.networks.discriminator import NETWORKS, Discriminator
from deepbedmap.model.networks.flow_aligned import FlowAlignedGenerator
from deepbedmap.model.networks.interpolation import bicubic
from deepbedmap.model.networks.turns import TURNS, augment
from deepbedmap.model.training.capture import Captured
from deepbedmap.model.training.checking import require_complete, require_fit
from deepbedmap.model.training.in_memory import device_of
from deepbedmap.model.training.log import Log
from deepbedmap.model.training.optimizers import can_capture, make_optimizer, restore_moments
from deepbedmap.model.training.steps import Step, refine
from deepbedmap.model.training.streaming import batches, shuffled
from deepbedmap.model.training.validating import validate
from deepbedmap.provenance import registry_commit

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator
    from pathlib import Path

    from torch import nn

    from deepbedmap.model.training.configuration import Configuration
    from deepbedmap.model.training.in_memory import Tiles
    from deepbedmap.model.training.log import Row

logger = logging.getLogger(__name__)

_LOOKED_AT = 64  # tiles in which the range of the inputs is checked
_FARTHEST = (
    10.0  # constants; where mountains stood through slow ice 27 kept a network from learning
)
_USUAL = 6.0  # on glaciers on which it learns
Progress = Callable[[int, int, Mapping[str, Any]], None]
"""Called after each step: its number, counted from 1, the total, the newest metrics."""


@dataclass
class _Counters:
    """The progress of a training: all of its state that is not a tensor."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    steps: int = 0
    best_rmse: float | None = None
    stale: int = 0
    loss: float | None = None
    losses: int = 0
    history: list[Row] = field(default_factory=list)


class Run:
    """One training: networks, optimizers, counters, and the files they are kept in."""

    def __init__(
        self,
        configuration: Configuration,
        tiles: Tiles,
        validation: Tiles,
        out: Path,
        device: torch.device,
        provenance: Mapping[str, Any] | None,
        generator: nn.Module | None,
        discriminator: nn.Module | None,
    ) -> None:
        self.configuration, self.device, self.out = configuration, device, out
        self.tiles, self.validation = tiles, validation
        self.last, self.best = out / "last.safetensors", out / "best.safetensors"
        self.provenance = {
            "registry_commit": registry_commit(),
            **(provenance or {}),
        }
        self.counters = _Counters()
        self.log: Log | None = None
        self.sums: dict[str, Tensor] = {}
        # When the metrics of the epoch were begun; an interrupted epoch's seconds are its last's.
        self.started = time.perf_counter()
        self.generator = self._placed(generator or make_generator(configuration))
        averaged = configuration.training.average > 0
        self.average = copy.deepcopy(self.generator) if averaged else self.generator
        self.discriminator = None
        if configuration.schedule.adversarial_epochs:
            self.discriminator = self._placed(discriminator or Discriminator())
        self.optimizers = {
            name: make_optimizer(configuration, network, device)
            for name, network in self.networks.items()
            if name != "average"
        }
        self.batches = self._count_batches()
        self._check(tiles, "training tiles")
        self._check(validation, "validation tiles")

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Networks whose weights are the state, by name."""
        networks = {"generator": self.generator}
        if self.average is not self.generator:
            networks["average"] = self.average
        if self.discriminator is not None:
            networks["discriminator"] = self.discriminator
        return networks

    def _placed(self, network: nn.Module) -> nn.Module:
        if self.device.type != "cuda":
            return network.to(self.device)
        return network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def _count_batches(self) -> int:
        """Batches of an epoch, the last of which may be smaller."""
        least = max(distributed.world(), 2 if self.discriminator is not None else 1)
        count, rest = divmod(len(self.tiles), self.configuration.training.batch)
        count += rest >= least
        if count == 0 or self.configuration.training.batch < least:
            raise InvalidDataError(
                Fault(
                    "training tiles",
                    expected=f"at least {least} tiles in a batch",
                    found=f"{len(self.tiles)} tiles in batches of "
                    f"{self.configuration.training.batch}",
                )
            )
        return count

    def _check(self, tiles: Tiles, name: str) -> None:
        """Refuse tiles whose grids do not fit each other, or that have gaps and no mask."""
        if len(tiles) == 0:
            raise InvalidDataError(Fault(name, expected="at least one tile", found="none"))
        numbers = torch.arange(min(len(tiles), self.configuration.training.batch))
        batch = tiles[numbers.to(device_of(tiles))]
        grids = batch.keys() - {"present", "index"}
        require_fit({field_: tuple(batch[field_].shape) for field_ in grids}, name)
        require_complete(batch)

    def begin(self, *, resume: bool) -> None:
        """Start a new training, or resume from the state in the folder."""
        if resume:
            self._restore()
        elif distributed.rank() == 0 and self.last.exists():
            raise InvalidDataError(
                Fault(
                    str(self.last),
                    expected="a folder without a training",
                    found="the state of one",
                    remedy="resume it (resume), or choose another folder",
                )
            )
        else:
            # Also shows at once whether the disk has room.
            self.counters.steps = self.batches * self.configuration.epochs
            self._save()
            self._warn_of_large_inputs()
        if distributed.rank() == 0:
            self.log = Log(self.out, self.counters.history)

    def _warn_of_large_inputs(self) -> None:
        """Warn of constants of the normalisation that are too small for some of the tiles."""
        if distributed.rank() or not isinstance(self.generator, FlowAlignedGenerator):
            return
        count = len(self.tiles)
        numbers = torch.linspace(0, count - 1, min(count, _LOOKED_AT)).long()
        batch = self.tiles[numbers.to(device_of(self.tiles))]
        inputs = (batch[name].to(self.device) for name in ("x", "w1", "w2", "w3"))
        with torch.inference_mode():
            reach = self.generator.reach(*inputs)
        large = {name: times for name, times in reach.items() if times > _FARTHEST}
        if large:
            constants = self.generator.normalisation
            logger.warning(
                "training tiles: inputs are large beside the constants that they are divided by "
                "(%s times; a few are usual), and a network may learn nothing from such; "
                "under [network.normalisation] rather %s",
                ", ".join(f"{name} {times:.0f}" for name, times in large.items()),
                ", ".join(
                    f"{name} = {constants[name] * times / _USUAL:.2g}"
                    for name, times in large.items()
                ),
            )

    def go(self, progress: Progress | None, interrupted: threading.Event) -> None:
        """Train until all epochs are done, or it is stopped."""
        counters, training = self.counters, self.configuration.training
        epochs = self.configuration.epochs
        step: Step | Captured | None = None
        while counters.epoch < epochs and not self._stale():
            phase = self._phase(counters.epoch)
            if step is None or counters.epoch == self.configuration.schedule.pretraining_epochs:
                step = self._step(phase)
            for batch in self._batches(counters.epoch, counters.batch):
                counters.step += 1
                self._set_rate()
                self._measure(step(*batch))
                self._keep_average()
                counters.batch += 1
                if progress is not None:
                    metrics = counters.history[-1] if counters.history else {}
                    progress(counters.step, counters.steps, metrics)
                if interrupted.is_set() and distributed.world() == 1:
                    self._require_converging(self._means())
                    self._save()
                    raise KeyboardInterrupt(f"the state is kept in {self.last}")
            row = self._end_epoch(phase)
            if counters.epoch % training.validation_interval == 0 or counters.epoch == epochs:
                row |= validate(self.average, self.validation, self.device)
                self._keep_best(row)
            counters.history.append(row)
            if "validation_rmse" in row:
                self._save()
            if self.log is not None:
                self.log.add(row)
            if distributed.world() > 1:
                asked = torch.tensor(float(interrupted.is_set()), device=self.device)
                if distributed.sum_of_all(asked) > 0:
                    interrupted.set()
            if interrupted.is_set():
                self._save()
                raise KeyboardInterrupt(f"the state is kept in {self.last}")
        if self._stale():
            logger.info("no better score in %d validations: training ends", training.patience)

    def close(self) -> None:
        """Write the log's rest."""
        if self.log is not None:
            self.log.close()

    def _stale(self) -> bool:
        return 0 < self.configuration.training.patience <= self.counters.stale

    def _phase(self, epoch: int) -> str:
        before = self.configuration.schedule.pretraining_epochs
        return "pretraining" if epoch < before else "adversarial"

    def _step(self, phase: str) -> Step | Captured:
        training = self.configuration.training
        against = phase == "adversarial"
        step = Step(
            self.generator,
            self.optimizers["generator"],
            self.discriminator if against else None,
            self.optimizers["discriminator"] if against else None,
            terms=self.configuration.losses,
            clipping=self.configuration.optimizer.clipping,
            autocast=training.precision == "bfloat16" and self.device.type == "cuda",
            unused=self.configuration.network.flags,
        )
        captured = can_capture(self.configuration, self.device) and not against
        return Captured(step) if captured else step

    def _batches(self, epoch: int, first: int) -> Iterator[tuple[dict[str, Tensor], int]]:
        """Batches of an epoch from the first that is wanted: this process's share, whole count."""
        training = self.configuration.training
        # Drawn for each epoch independently, so that a resumed training draws the same.
        random = np.random.default_rng([training.seed, epoch])
        order = torch.from_numpy(shuffled(self.tiles, random)).to(device_of(self.tiles))
        turns = torch.from_numpy(random.integers(TURNS, size=len(self.tiles))).to(self.device)
        size = training.batch
        parts = [slice(n * size, (n + 1) * size) for n in range(first, self.batches)]
        counts = [len(order[part]) for part in parts]
        own = [distributed.share(count) for count in counts]
        numbers = (order[part][share] for part, share in zip(parts, own, strict=True))
        read = batches(self.tiles, numbers)
        for tensors, part, share, count in zip(read, parts, own, counts, strict=True):
            batch = {
                name: tensor.to(self.device, non_blocking=True)
                for name, tensor in tensors.items()
                if name != "index"
            }
            if training.augmentation:
                batch = augment(batch, turns[part][share])
            yield batch, count

    @property
    def _rate(self) -> float:
        """Learning rate of the newest step."""
        schedule, counters = self.configuration.schedule, self.counters
        share = 1.0
        if schedule.warm_up:
            share = min(1.0, counters.step / (schedule.warm_up * counters.steps))
        if schedule.decay == "cosine":
            share *= 0.5 * (1 + math.cos(math.pi * (counters.step - 1) / counters.steps))
        return share * self.configuration.optimizer.learning_rate

    def _set_rate(self) -> None:
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(self._rate)
                else:
                    group["lr"] = self._rate

    def _measure(self, metrics: Mapping[str, Tensor]) -> None:
        for name, value in metrics.items():
            self.sums[name] = self.sums.get(name, 0.0) + value.detach().double()

    def _means(self) -> dict[str, float]:
        """Means over the batches of the epoch so far; here the host waits for the device."""
        values = torch.stack(list(self.sums.values())).cpu() / self.counters.batch
        return dict(zip(self.sums, values.tolist(), strict=True))

    def _keep_average(self) -> None:
        if self.average is self.generator:
            return
        step = self.counters.step
        kept = min(self.configuration.training.average, step / (step + 9))
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.average.parameters()), list(self.generator.parameters()), 1 - kept
            )
            pairs = zip(self.average.buffers(), self.generator.buffers(), strict=True)
            for mean, buffer in pairs:
                mean.copy_(buffer)

    def _end_epoch(self, phase: str) -> Row:
        counters = self.counters
        means = self._means()
        self._require_converging(means)
        # A running mean over some ten epochs; the phases' losses are not the same sum.
        counters.losses += 1
        before = means["g_loss"] if counters.loss is None else counters.loss
        counters.loss = before + (means["g_loss"] - before) / min(counters.losses, 10)
        counters.epoch, counters.batch, self.sums = counters.epoch + 1, 0, {}
        if counters.epoch == self.configuration.schedule.pretraining_epochs:
            counters.loss, counters.losses = None, 0
        square = means.pop("square")
        now = time.perf_counter()
        seconds, self.started = round(now - self.started, 3), now
        return {
            "epoch": counters.epoch,
            "step": counters.step,
            "phase": phase,
            "learning_rate": self._rate,
            **means,
            "train_rmse": math.sqrt(square),
            "seconds": seconds,
        }

    def _require_converging(self, means: Mapping[str, float]) -> None:
        """Stop where a loss is not finite, or far above what it was."""
        counters, limit = self.counters, self.configuration.training.divergence
        broken = [name for name, value in means.items() if not math.isfinite(value)]
        # A PSNR of equal beds is infinite, and no fault.
        broken = [name for name in broken if name != "psnr"]
        if broken:
            self._diverged(f"{broken[0]} is {means[broken[0]]}")
        has_mean = counters.loss is not None and counters.losses >= 3
        if has_mean and means["g_loss"] > limit * (counters.loss or 0):
            self._diverged(
                f"g_loss is {means['g_loss']:.4g}, over {limit:g} times its running mean of "
                f"{counters.loss:.4g}"
            )

    def _diverged(self, found: str) -> None:
        epoch = self.counters.epoch + (self.counters.batch > 0)
        raise DivergedError(
            f"training diverged in epoch {epoch}: {found}; lower the learning rate of "
            f"{self.configuration.optimizer.learning_rate:g}, or look for tiles with extreme "
            f"values; the last good state is kept in {self.last}"
        )

    def _keep_best(self, row: Row) -> None:
        rmse, counters = row["validation_rmse"], self.counters
        if not math.isfinite(rmse):
            self._diverged(f"validation_rmse is {rmse}")
        if counters.best_rmse is not None and rmse >= counters.best_rmse:
            counters.stale += 1
            return
        counters.best_rmse, counters.stale = rmse, 0
        if distributed.rank() == 0:
            document = self._document([*counters.history, row])
            checkpoints.save(self.average, self.best, **document)
            checkpoints.write_document(self.best, document)
        if self.log is not None:
            numbers = torch.arange(min(4, len(self.validation))).to(device_of(self.validation))
            batch = {name: t.to(self.device) for name, t in self.validation[numbers].items()}
            with torch.inference_mode():
                predicted = refine(self.average.eval(), batch)
            self.log.add_beds(
                counters.step, prior=bicubic(batch["x"]), predicted=predicted, surveyed=batch["y"]
            )

    def _document(self, history: list[Row]) -> dict[str, Any]:
        description = {
            "class": type(self.average).__name__,
            "options": getattr(self.average, "options", {}),
        }
        return {
            **self.provenance,
            "network": description,
            "normalisation": getattr(self.average, "normalisation", None),
            "configuration": self.configuration.to_dict(),
            "tiles": {"training": len(self.tiles), "validation": len(self.validation)},
            "epoch": self.counters.epoch,
            "metrics": history,
        }

    def _save(self) -> None:
        weights: list[Tensor] = []
        for network in self.networks.values():
            weights += network.parameters()
        norms = torch.stack(torch._foreach_norm(weights)).cpu()
        if not norms.isfinite().all():
            self._diverged("a weight is no longer finite")
        if distributed.rank() != 0:
            return
        counters = vars(self.counters) | {"history": None, "sums": list(self.sums)}
        checkpoints.save_state(
            self._tensors(),
            self.last,
            counters=counters,
            arithmetic=self._arithmetic,
            optimizers={
                name: [{"steps": group.get("steps")} for group in optimizer.param_groups]
                for name, optimizer in self.optimizers.items()
            },
            **self._document(self.counters.history),
        )

    @property
    def _arithmetic(self) -> dict[str, Any]:
        """What rounding, or the order of the tiles, depends on besides the configuration."""
        on_cpu = self.device.type == "cpu"
        return {
            "torch": str(torch.__version__),
            "device": self.device.type,
            "threads": torch.get_num_threads() if on_cpu else None,
            "processes": distributed.world(),
            "chunks at once": getattr(self.tiles, "chunks_at_once", None),
        }

    def _tensors(self) -> dict[str, Tensor]:
        """All tensors of the state, those in which the training is and not copies of them."""
        tensors = {
            f"{name}.{key}": tensor
            for name, network in self.networks.items()
            for key, tensor in network.state_dict().items()
        }
        for name, optimizer in self.optimizers.items():
            for number, moments in optimizer.state_dict()["state"].items():
                for key, moment in moments.items():
                    tensors[f"{name}_optimizer.{number}.{key}"] = moment
        tensors["random.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self.device)
        return tensors | {f"sums.{name}": total for name, total in self.sums.items()}

    def _restore(self) -> None:
        if not self.last.exists():
            raise MissingDataError(
                str(
                    Fault(
                        str(self.last),
                        expected="the state of a training to resume",
                        found="no such file",
                        remedy="train without resume",
                    )
                )
            )
        state = checkpoints.load_state(self.last)
        self._require_same(state.metadata)
        before, now = state.metadata["arithmetic"], self._arithmetic
        other = [f"{key} {before[key]}, now {now[key]}" for key in now if before[key] != now[key]]
        if other and distributed.rank() == 0:
            logger.warning(
                "the result will differ in its last bits from an uninterrupted training: it had %s",
                "; ".join(other),
            )
        tensors = dict(state.tensors)
        for name, network in self.networks.items():
            checkpoints.fill(network, _under(f"{name}.", tensors), str(self.last))
        for name, optimizer in self.optimizers.items():
            groups = state.metadata["optimizers"][name]
            restore_moments(optimizer, _under(f"{name}_optimizer.", tensors), groups)
        counters = dict(state.metadata["counters"])
        sums = counters.pop("sums")
        self.sums = {name: tensors[f"sums.{name}"].to(self.device) for name in sums}
        self.counters = _Counters(**counters | {"history": state.metadata["metrics"]})
        torch.set_rng_state(tensors["random.cpu"])
        if self.device.type == "cuda" and "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"], self.device)

    def _require_same(self, saved: Mapping[str, Any]) -> None:
        """Refuse to resume with other settings or tiles than before."""
        faults = []
        document = self._document([])
        now, before = (
            {
                **of["configuration"],
                "tiles": of["tiles"],
                "training_set": of.get("training_set", {}),
            }
            for of in (document, saved)
        )
        for section, values in now.items():
            for key, value in values.items():
                if before.get(section, {}).get(key) != value:
                    faults.append(
                        Fault(
                            str(self.last),
                            field=f"{section}.{key}",
                            expected=f"{before.get(section, {}).get(key)!r} as in the training",
                            found=repr(value),
                            remedy="resume with the same settings, or train in another folder",
                        )
                    )
        if faults:
            raise InvalidDataError(*faults)


def make_generator(configuration: Configuration) -> nn.Module:
    """Make the generator that a configuration describes, with random weights."""
    options = dict(vars(configuration.network))
    if not options["normalisation"]:
        del options["normalisation"]  # the published network has none
    return NETWORKS[options.pop("name")](**options)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
