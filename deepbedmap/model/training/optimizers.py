"""Adam as PyTorch has it and as the published code has it, and the state they resume from."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.optim import Adam

from deepbedmap.model import distributed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from torch import Tensor, nn
    from torch.optim import Optimizer

    from deepbedmap.model.training.configuration import Configuration


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


def make_optimizer(
    configuration: Configuration, network: nn.Module, device: torch.device
) -> Optimizer:
    """Return the optimizer of the configuration for the weights of a network."""
    settings = configuration.optimizer
    rate: float | Tensor = settings.learning_rate
    betas, weights = (settings.beta1, settings.beta2), network.parameters()
    if settings.name == "paper_adam":
        return PaperAdam(weights, lr=rate, betas=betas, eps=settings.eps)
    captured = can_capture(configuration, device)
    if captured:
        rate = torch.tensor(rate, device=device)
    return Adam(weights, lr=rate, betas=betas, eps=settings.eps, fused=True, capturable=captured)


def can_capture(configuration: Configuration, device: torch.device) -> bool:
    """Return whether steps can be captured in a CUDA graph: one GPU, and the optimizer adam."""
    alone = distributed.world() == 1 and device.type == "cuda"
    return configuration.training.graph and alone and configuration.optimizer.name == "adam"


def restore_moments(
    optimizer: Optimizer, moments: Mapping[str, Tensor], groups: list[dict[str, Any]]
) -> None:
    """Restore the moments of an optimizer."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for name, moment in moments.items():
        number, _, key = name.partition(".")
        weight = weights[int(number)]
        if key == "step":
            # On the weights' device only where a fused or captured step wants it there.
            fused = optimizer.defaults.get("fused") or optimizer.defaults.get("capturable")
            value = moment.to(weight.device if fused else "cpu")
        else:
            value = torch.empty_like(weight).copy_(moment)
        optimizer.state[weight][key] = value.detach()
    for group, saved in zip(optimizer.param_groups, groups, strict=True):
        if saved["steps"] is not None:
            group["steps"] = saved["steps"]
