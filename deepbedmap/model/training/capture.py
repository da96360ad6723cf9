"""Training steps captured once as a CUDA graph and replayed on every batch."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from deepbedmap.model.training.steps import Step

logger = logging.getLogger(__name__)


class Captured:
    """Steps of a generator only as one CUDA graph, replayed on batches of the same shapes.

    A step is tens of thousands of small kernels, which take longer to launch than to run. The
    first batches, those of other shapes, and all if the capture fails, are computed as usual.
    The optimizer must be capturable, its learning rate a tensor on the GPU.
    """

    _WARM_UP = 3

    def __init__(self, step: Step) -> None:
        self.step = step
        self.left = self._WARM_UP
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, batch: Mapping[str, Tensor], count: int | None = None) -> dict[str, Tensor]:
        """Update the generator, as :class:`Step` does."""
        self.left -= 1
        if self.left == 0 and self.graph is None:
            self._capture(batch)
        elif self.left > 0:
            # The first steps run on a side stream, so that no gradient is tied to the main stream.
            aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                metrics = self.step(batch, count)
            torch.cuda.current_stream().wait_stream(aside)
            return metrics
        if self.graph is None or _shapes(batch) != _shapes(self.batch):
            return self.step(batch, count)
        for name, tensor in self.batch.items():
            tensor.copy_(batch[name])
        self.graph.replay()
        return self.metrics

    def _capture(self, batch: Mapping[str, Tensor]) -> None:
        self.batch = {name: tensor.clone() for name, tensor in batch.items()}
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self.metrics = self.step(self.batch)
        except RuntimeError as error:
            logger.warning("steps are not captured in a CUDA graph: %s", error)
        else:
            self.graph = graph


def _shapes(batch: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in batch.items()}
