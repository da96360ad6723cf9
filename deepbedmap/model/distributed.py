"""Training by several processes that ``torchrun`` started, as if by one with the whole batch.

Each process takes its share of a batch. What depends on the whole batch is made of sums over all
processes through which gradients flow: a discriminator's batch statistics, and the losses, for
which the beds, logits and masks of all shares are joined. Every process so computes the loss of
the whole batch; the sum's gradient is again a sum over processes, and the mean that
DistributedDataParallel takes of the processes' gradients makes it that of one process.
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
    """Take part in the group of processes that ``torchrun`` started, if it did, and leave it.

    NCCL where the device is a GPU, gloo on CPUs. A group that exists already is used, and left
    as it is.

    Parameters
    ----------
    device
        Where this process computes: by default its own GPU (``LOCAL_RANK``) where there is one,
        else the CPU.

    Yields
    ------
    torch.device
        That device.

    Raises
    ------
    InvalidDataError
        There are fewer GPUs here than processes, or no GPU where one was asked for.
    """
    place = place_of(device)
    begin = int(os.environ.get("WORLD_SIZE", "1")) > 1 and not distributed.is_initialized()
    if begin:
        # Imported while a group exists, this module keeps it in its functions' defaults for ever.
        importlib.import_module("torch.distributed.nn.functional")
        distributed.init_process_group("nccl" if place.type == "cuda" else "gloo")
    try:
        yield place
    finally:
        if begin:
            # With the last reference the group's threads end, which must be before Python does: a
            # thread that then frees a tensor of Python's kills the process.
            gc.collect()
            distributed.destroy_process_group()


def require_device(device: str | None) -> None:
    """Check the name of a device; :class:`ValueError` where there is none of that kind.

    Examples
    --------
    >>> require_device("cuda:1")
    """
    if device is not None and not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise WrongCallError(f"expected cpu, cuda or cuda:N, found {device!r}", "device")


def place_of(device: str | torch.device | None = None) -> torch.device:
    """Where this process computes, as in :func:`joined`, and with its errors."""
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
    """Number of this process, counted from 0; process 0 writes the files."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world() -> int:
    """Number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def sum_of_all(tensor: Tensor) -> Tensor:
    """Sum of the processes' tensors of one shape, through which gradients flow to all of them."""
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
    """Which tiles of a batch of that many are this process's: every n-th of n processes."""
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
    """Wrap a network so that its gradients are the mean over processes; alone, it stays as it is.

    ``unused`` says whether a step may leave some of its weights out.
    """
    if world() == 1:
        return network
    return DistributedDataParallel(network, find_unused_parameters=unused)


def synchronise(network: nn.Module) -> nn.Module:
    """Let every batch normalisation of a network use the statistics of the whole batch.

    PyTorch's SyncBatchNorm does the same on GPUs alone; this one serves both.
    """
    if world() > 1:
        for module in network.modules():
            if type(module) is nn.BatchNorm2d:
                # The same parameters and buffers under the same names; only the way is another.
                module.__class__ = BatchNorm
    return network


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation by mean and variance over the shares of all processes."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (n, c, h, w); n may differ between processes."""
        if not self.training:
            return super().forward(x)
        # In two passes, and not in bfloat16: the difference of two large squares has few digits.
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
