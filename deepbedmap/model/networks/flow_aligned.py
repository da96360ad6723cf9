"""A small generator that corrects the bicubic prior, with each tile turned along the ice flow."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from deepbedmap.model.layers import NEGATIVE_SLOPE, zero_absent
from deepbedmap.model.networks.generator import Generator
from deepbedmap.model.networks.interpolation import bicubic
from deepbedmap.model.networks.turns import mirror, turn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

NORMALISATION = {
    "bed": 300.0,  # m, by which the prior less its mean is divided
    "correction": 300.0,  # m, by which the output is multiplied before the bicubic prior is added
    "surface": 20.0,  # m, by which the surface less its plane is divided
    "short_surface": 3.0,  # m, by which the surface without wavelengths over 2 km is divided
    "velocity": 0.2,  # by which the velocity's deviation, relative to its mean, is divided
    "mean_accumulation": 200.0,  # kg m-2 a-1, taken from the accumulation
    "accumulation": 60.0,  # kg m-2 a-1, by which the rest is divided
}
"""Default constants that scale the inputs of a :class:`FlowAlignedGenerator` to order one."""


class FlowAlignedGenerator(nn.Module):
    """A small generator that corrects the bicubic prior, seen along the flow of the ice.

    Each tile is rotated by quarter turns and mirrored until its mean velocity points between east
    and north-east: how the bed shapes the surface above it depends only on the direction of flow,
    so that the network need not learn each direction separately. The mean is subtracted from the
    bed and the plane of best fit from the surface, and the output is a correction to the bicubic
    interpolation of the prior. The surface enters twice, complete and without wavelengths over
    2 km; the velocity as its relative deviation from the mean and as the mean's direction.

    Parameters
    ----------
    num_residual_blocks, residual_scaling, features, growth, input_features, flags
        Options of the :class:`Generator` inside. The defaults train in minutes on two cores.
    normalisation
        Constants that differ from :data:`NORMALISATION`; a checkpoint keeps them all.

    Attributes
    ----------
    options : dict
        The arguments that rebuild this network, as JSON can represent them.

    Examples
    --------
    >>> generator = FlowAlignedGenerator(features=8, growth=4, input_features=4)
    >>> x, w1 = torch.rand(1, 1, 11, 11), torch.rand(1, 1, 110, 110)
    >>> w2, w3 = torch.rand(1, 2, 22, 22), torch.rand(1, 1, 11, 11)
    >>> generator(x, w1, w2, w3).shape
    torch.Size([1, 1, 36, 36])
    """

    def __init__(
        self,
        num_residual_blocks: int = 1,
        residual_scaling: float = 0.2,
        *,
        features: int = 32,
        growth: int = 16,
        input_features: int = 16,
        flags: bool = False,
        normalisation: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.normalisation = _normalisation(normalisation or {})
        self.flags = flags
        self.generator = Generator(
            num_residual_blocks,
            residual_scaling,
            features=features,
            growth=growth,
            input_features=input_features,
            bands=(1, 2, 4, 1),
            flags=flags,
        )
        self.options = {
            name: value for name, value in self.generator.options.items() if name != "bands"
        } | {"normalisation": self.normalisation}
        # Larger initial weights than the published ones train in fewer steps. The initial
        # correction is small, and the initial offsets are zero.
        for name, module in self.generator.named_modules():
            if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
                nn.init.kaiming_normal_(module.weight, a=NEGATIVE_SLOPE)
            if name.endswith("offset_conv"):
                nn.init.zeros_(module.weight)
        with torch.no_grad():
            self.generator.final_conv_layer2.deform_conv.weight.mul_(0.1)

    def forward(
        self, x: Tensor, w1: Tensor, w2: Tensor, w3: Tensor, present: Tensor | None = None
    ) -> Tensor:
        """Refine the bed of square tiles; inputs, output and errors as :class:`Generator`'s.

        A tile without velocity has no direction of flow: it keeps its orientation.
        """
        if x.ndim != 4 or x.shape[2] != x.shape[3]:
            raise ValueError(
                f"x: expected shape (n, 1, h, h), since tiles are rotated, found {tuple(x.shape)}"
            )
        if present is not None and present.shape != (len(x), 3):
            raise ValueError(
                f"present: expected bool of shape {(len(x), 3)}, found {present.dtype} of shape "
                f"{tuple(present.shape)}"
            )
        w1, w2, w3 = zero_absent((w1, w2, w3), present)
        east, north = w2.mean((2, 3)).unbind(1)
        quarters = (-torch.atan2(north, east) / (math.pi / 2)).round().long() % 4
        # Tiles with the same turn are adjacent. This fixes the order in which gradients are summed,
        # and with it the last bits of a training.
        order = quarters.argsort(stable=True)
        quarters, present = quarters[order], None if present is None else present[order]
        w2 = turn(w2[order], quarters, vector=True)
        mirrored = w2.mean((2, 3))[:, 1] < 0
        w2 = mirror(w2, mirrored, vector=True)
        turned = (mirror(turn(grid[order], quarters), mirrored) for grid in (x, w1, w3))
        aligned, w1, w3 = turned
        correction = self.generator(*self._inputs(aligned, w1, w2, w3), present)
        correction = turn(mirror(correction, mirrored), -quarters % 4)[order.argsort()]
        bed: Tensor = correction * self.normalisation["correction"] + bicubic(x)
        return bed

    def reach(self, x: Tensor, w1: Tensor, w2: Tensor, w3: Tensor) -> dict[str, float]:
        """Return the range of the inputs in units of their normalisation constants, ideally a few.

        Parameters
        ----------
        x, w1, w2, w3
            As :meth:`forward` takes them.

        Returns
        -------
        dict
            By name of the constant: the 99.9th percentile of the absolute input divided by it.
        """
        bed, surface, velocity, accumulation = self._inputs(x, w1, w2, w3)
        channels = {
            "bed": bed,
            "surface": surface[:, :1],
            "short_surface": surface[:, 1:],
            "velocity": velocity[:, :2],
            "accumulation": accumulation,
        }
        return {
            name: float(channel.abs().flatten().kthvalue(math.ceil(0.999 * channel.numel()))[0])
            for name, channel in channels.items()
        }

    def _inputs(self, x: Tensor, w1: Tensor, w2: Tensor, w3: Tensor) -> tuple[Tensor, ...]:
        by = self.normalisation
        bed = (x - x.mean((1, 2, 3), keepdim=True)) / by["bed"]
        surface = torch.cat(
            (_without_plane(w1) / by["surface"], (w1 - _smooth(w1)) / by["short_surface"]), dim=1
        )
        mean = w2.mean((2, 3), keepdim=True)
        speed = mean.norm(dim=1, keepdim=True).clamp_min(1.0)
        velocity = torch.cat(
            ((w2 - mean) / (by["velocity"] * speed), (mean / speed).expand_as(w2)), dim=1
        )
        return bed, surface, velocity, (w3 - by["mean_accumulation"]) / by["accumulation"]


def _normalisation(constants: Mapping[str, float]) -> dict[str, float]:
    unknown = sorted(constants.keys() - NORMALISATION.keys())
    if unknown:
        raise ValueError(
            f"normalisation: expected any of {', '.join(NORMALISATION)}, found {unknown[0]}"
        )
    for name, value in constants.items():
        if not math.isfinite(value) or (value <= 0 and name != "mean_accumulation"):
            raise ValueError(f"normalisation: expected {name} above 0, found {value}")
    return NORMALISATION | dict(constants)


def _smooth(grid: Tensor, cells: int = 21) -> Tensor:
    """Mean over a square of cells around each cell, with edge values replicated outward."""
    grid = functional.pad(grid, (cells // 2,) * 4, mode="replicate")
    return functional.avg_pool2d(functional.avg_pool2d(grid, (cells, 1), 1), (1, cells), 1)


def _without_plane(grid: Tensor) -> Tensor:
    """Each tile less the plane of best fit."""
    height, width = grid.shape[2:]
    rest = grid - grid.mean((2, 3), keepdim=True)
    for size, shape in ((height, (height, 1)), (width, (1, width))):
        ramp = torch.linspace(-1, 1, size, device=grid.device, dtype=grid.dtype).view(shape)
        slope = (rest * ramp).mean((2, 3), keepdim=True) / ramp.square().mean()
        rest = rest - slope * ramp
    return rest
