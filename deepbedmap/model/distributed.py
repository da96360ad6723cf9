"""Training by several processes under ``torchrun``, equivalent to one with the whole batch.

Each process takes its share of a batch. Quantities that depend on the whole batch are sums over
all processes through which gradients flow: a discriminator's batch statistics, and the losses, for
which the beds, logits and masks of all shares are joined. Every process thus computes the loss of
the whole batch. The gradient of a sum over processes is again a sum over processes, and
DistributedDataParallel averages it over them, which gives the gradient of a single process.
"""

from __future__ import annotations

import gc
import importlib
import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from deepbedmap.errors import Fault, InvalidDataError, WrongCallError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from torch import Tensor


@contextmanager
def joined(device: str | torch.device | None = None) -> Iterator[torch.device]:
    """Join the process group that ``torchrun`` started, if any, and leave it at the end.

    The backend is NCCL on GPUs and gloo on CPUs. An existing group is used, and not destroyed.

    Parameters
    ----------
    device
        Device of this process: by default its own GPU (``LOCAL_RANK``) if there is one, else the
        CPU.

    Yields
    ------
    torch.device
        The device of this process.

    Raises
    ------
    InvalidDataError
        There are fewer GPUs than processes, or no GPU where one was requested.
    """
    place = place_of(device)
    begin = int(os.environ.get("WORLD_SIZE", "1")) > 1 and not distributed.is_initialized()
    if begin:
        # If imported while a group exists, its functions' defaults hold that group for good.
        importlib.import_module("torch.distributed.nn.functional")
        distributed.init_process_group("nccl" if place.type == "cuda" else "gloo")
    try:
        yield place
    finally:
        if begin:
            # The group's threads end with its last reference. They must end before the interpreter
            # does: a thread that frees one of its tensors after that kills the process.
            gc.collect()
            distributed.destroy_process_group()


def require_device(device: str | None) -> None:
    """Check the name of a device; raise :class:`ValueError` if it is not valid.

    Examples
    --------
    >>> require_device("cuda:1")
    """
    if device is not None and not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise WrongCallError(f"expected cpu, cuda or cuda:N, found {device!r}", "device")


def place_of(device: str | torch.device | None = None) -> torch.device:
    """Return the device of this process, as in :func:`joined`, with the same errors."""
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    place = torch.device(device)
    if place.type != "cuda":
        return place
    number: int | None = place.index
    if number is None:
        number = int(os.environ.get("LOCAL_RANK", "0"))
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if number >= count:
        raise InvalidDataError(
            Fault(
                "device",
                expected=f"GPU {number}, counted from 0",
                found=f"{count} GPUs",
                remedy="start as many processes as there are GPUs, or compute on cpu",
            )
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def rank() -> int:
    """Return the number of this process, counted from 0; process 0 writes the files."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world() -> int:
    """Return the number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def sum_of_all(tensor: Tensor) -> Tensor:
    """Sum tensors of one shape over all processes; gradients flow to all of them."""
    if world() == 1:
        return tensor
    total: Tensor = _Sum.apply(tensor)  # type: ignore[no-untyped-call]
    return total


class _Sum(torch.autograd.Function):
    """All-reduce whose gradient is the sum of all processes' gradients."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:  # noqa: ARG004
        total = tensor.contiguous().clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004
        return sum_of_all(gradient)


def share(count: int) -> slice:
    """Return this process's share of a batch of ``count`` tiles: every n-th of n processes."""
    return slice(rank(), count, world())


def whole(tensor: Tensor, count: int) -> Tensor:
    """Join the processes' shares of a batch, in the order of the batch.

    Parameters
    ----------
    tensor
        (tiles of this process's share, ...)
    count
        Tiles of the whole batch.

    Returns
    -------
    Tensor
        (count, ...), the same in every process; gradients flow back to the shares.
    """
    if world() == 1:
        return tensor
    kind = torch.uint8 if tensor.dtype == torch.bool else tensor.dtype
    joint = tensor.new_zeros((count, *tensor.shape[1:]), dtype=kind)
    joint[share(count)] = tensor.to(kind)
    return sum_of_all(joint).to(tensor.dtype)


def parallel(network: nn.Module, *, unused: bool = False) -> nn.Module:
    """Wrap a network to average its gradients over processes; one process leaves it unchanged.

    ``unused`` is whether a step may leave some of its weights out.
    """
    if world() == 1:
        return network
    return DistributedDataParallel(network, find_unused_parameters=unused)


def synchronise(network: nn.Module) -> nn.Module:
    """Let every batch normalisation of a network use the statistics of the whole batch.

    PyTorch's SyncBatchNorm does the same, but only on GPUs; this one also runs on CPUs.
    """
    if world() > 1:
        for module in network.modules():
            if type(module) is nn.BatchNorm2d:
                # The parameters and buffers keep their names; only the computation differs.
                module.__class__ = BatchNorm
    return network


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation by mean and variance over the shares of all processes."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (n, c, h, w); n may differ between processes."""
        if not self.training:
            return super().forward(x)
        # In two passes, and not in bfloat16: the difference of two large squares loses digits.
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        count = sum_of_all(values.new_tensor(x.numel() / x.shape[1]))
        mean = sum_of_all(values.sum((0, 2, 3))) / count
        centred = values - mean[:, None, None]
        variance = sum_of_all(centred.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            momentum = self.momentum or 0.0
            unbiased = variance * count / (count - 1)
            for kept, new in ((self.running_mean, mean), (self.running_var, unbiased)):
                if kept is not None:
                    kept.lerp_(new.to(kept.dtype), momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
        y = centred * (variance + self.eps).rsqrt()[:, None, None]
        return (y * self.weight[:, None, None] + self.bias[:, None, None]).to(x.dtype)
