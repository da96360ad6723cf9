"""The discriminator, which distinguishes surveyed from generated beds, and the networks by name.

It is the discriminator of Leong & Horgan (2020), DeepBedMap, doi 10.5194/tc-14-3687-2020.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from deepbedmap.model.layers import initialise, leaky_relu, without_autocast
from deepbedmap.model.networks.flow_aligned import FlowAlignedGenerator
from deepbedmap.model.networks.generator import Generator

if TYPE_CHECKING:
    from torch import Tensor


class Discriminator(nn.Module):
    """Distinguishes surveyed from generated beds: a higher logit means more likely surveyed.

    Ten convolutions with batch normalisation, the mean over the remaining cells, and two fully
    connected layers: 10,370,761 parameters.

    Attributes
    ----------
    options : dict
        Empty: there is one discriminator.

    Examples
    --------
    >>> import torch
    >>> Discriminator().eval()(torch.zeros(2, 1, 36, 36)).shape
    torch.Size([2, 1])
    """

    def __init__(self) -> None:
        super().__init__()
        self.options: dict[str, object] = {}
        self.conv_layer0 = nn.Conv2d(1, 64, 3, padding=1)
        channels = (64, 64, 128, 128, 128, 256, 256, 512, 512, 512)
        for layer in range(1, 10):
            kernel, stride = (4, 2) if layer % 2 else (3, 1)
            conv = nn.Conv2d(
                channels[layer - 1], channels[layer], kernel, stride, padding=1, bias=False
            )
            # The original's eps, which is not Chainer's default of 2e-5.
            norm = nn.BatchNorm2d(channels[layer], eps=1e-5, momentum=0.1)
            self.add_module(f"conv_layer{layer}", conv)
            self.add_module(f"batch_norm{layer}", norm)
        self.linear_1 = nn.Linear(512, 100)
        self.linear_2 = nn.Linear(100, 1)
        self.apply(initialise)

    def forward(self, y: Tensor) -> Tensor:
        """Judge beds.

        Parameters
        ----------
        y
            Bed elevation in metres, 250 m cells, (n, 1, 36, 36); other sizes of at least 32 x 32
            cells are accepted too.

        Returns
        -------
        Tensor
            Logits, (n, 1), in the dtype of the weights, also under autocast.

        Raises
        ------
        ValueError
            The input has another shape.
        """
        if y.ndim != 4 or y.shape[1] != 1 or min(y.shape[2:]) < 32:
            raise ValueError(f"y: expected shape (n, 1, 36, 36), found {tuple(y.shape)}")
        # bfloat16 resolves a bed at -2000 m only to 8 m: autocast begins after the first
        # normalisation.
        with without_autocast(y.device):
            y = leaky_relu(self.conv_layer0(y.to(self.conv_layer0.weight.dtype)))
            y = self._layer(1, y)
        for layer in range(2, 10):
            y = self._layer(layer, y)
        y = leaky_relu(self.linear_1(y.mean(dim=(2, 3))))
        logits: Tensor = self.linear_2(y)
        return logits.to(self.linear_2.weight.dtype)

    def _layer(self, number: int, y: Tensor) -> Tensor:
        conv = self.get_submodule(f"conv_layer{number}")
        norm = self.get_submodule(f"batch_norm{number}")
        return leaky_relu(norm(conv(y)))


NETWORKS: dict[str, type[nn.Module]] = {
    network.__name__: network for network in (Generator, FlowAlignedGenerator, Discriminator)
}
"""The networks that a checkpoint may name. Each keeps its arguments in ``options``."""
