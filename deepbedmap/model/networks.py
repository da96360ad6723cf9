"""The generator, which refines a bed elevation grid, and the discriminator that judges it.

Both are the networks of Leong & Horgan (2020), DeepBedMap, doi 10.5194/tc-14-3687-2020.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from deepbedmap.model.augmentation import mirror, turn
from deepbedmap.model.layers import (
    NEGATIVE_SLOPE,
    DeformableConv2d,
    InputBlock,
    ResidualInResidualDenseBlock,
    leaky_relu,
    without_autocast,
    zero_absent,
)


class Generator(nn.Module):
    """Refines a 1 km bed elevation grid to 250 m with what is known at the surface above it.

    Input block, residual-in-residual dense blocks with a skip around them all, two nearest-
    neighbour doublings, each with a convolution, and two deformable convolutions.
    With the defaults it is the published network, of 8,907,749 parameters; the options after
    ``*`` give smaller members of the same family.

    Parameters
    ----------
    num_residual_blocks
        Residual-in-residual dense blocks, 1 or more.
    residual_scaling
        Factor of each residual branch, in (0, 1].
    features
        Channels of the trunk.
    growth
        Channels that each convolution of a dense block adds.
    input_features
        Channels that the input block makes of each of its four inputs.
    bands
        Channels of x, w1, w2 and w3.
    flags
        Whether the network learns what the absence of w1, w2 or w3 means (``3 input_features``
        parameters more). Without, an absent input is taken for zeros.

    Attributes
    ----------
    options : dict
        The arguments that make this network again, plain enough for JSON.
    convolutional : bool
        True: a domain of any size is one image, whose cells are seen alike wherever they lie.
    flags : bool

    Examples
    --------
    >>> import torch
    >>> generator = Generator(num_residual_blocks=1, features=8, growth=4, input_features=4)
    >>> x, w1 = torch.rand(1, 1, 11, 11), torch.rand(1, 1, 110, 110)
    >>> w2, w3 = torch.rand(1, 2, 22, 22), torch.rand(1, 1, 11, 11)
    >>> generator(x, w1, w2, w3).shape
    torch.Size([1, 1, 36, 36])
    """

    convolutional = True

    def __init__(
        self,
        num_residual_blocks: int = 12,
        residual_scaling: float = 0.2,
        *,
        features: int = 64,
        growth: int = 32,
        input_features: int = 32,
        bands: Sequence[int] = (1, 1, 2, 1),
        flags: bool = False,
    ) -> None:
        super().__init__()
        if num_residual_blocks < 1:
            raise ValueError(
                f"num_residual_blocks: expected 1 or more, found {num_residual_blocks}"
            )
        if len(bands) != 4 or min(bands) < 1:
            raise ValueError(f"bands: expected four counts of 1 or more, found {tuple(bands)}")
        self.options: dict[str, Any] = {
            "num_residual_blocks": num_residual_blocks,
            "residual_scaling": residual_scaling,
            "features": features,
            "growth": growth,
            "input_features": input_features,
            "bands": list(bands),
            "flags": flags,
        }
        self.bands, self.flags = tuple(bands), flags
        self.input_block = InputBlock(input_features, bands, flags=flags)
        self.pre_residual_conv_layer = nn.Conv2d(4 * input_features, features, 3, padding=1)
        self.residual_network = nn.Sequential(
            *(
                ResidualInResidualDenseBlock(features, growth, residual_scaling)
                for _ in range(num_residual_blocks)
            )
        )
        self.post_residual_conv_layer = nn.Conv2d(features, features, 3, padding=1)
        self.post_upsample_conv_layer_1 = nn.Conv2d(features, features, 3, padding=1)
        self.post_upsample_conv_layer_2 = nn.Conv2d(features, features, 3, padding=1)
        self.final_conv_layer1 = DeformableConv2d(features, features)
        self.final_conv_layer2 = DeformableConv2d(features, 1)
        self.apply(_initialise)

    def forward(
        self, x: Tensor, w1: Tensor, w2: Tensor, w3: Tensor, present: Tensor | None = None
    ) -> Tensor:
        """Refine the bed.

        Parameters
        ----------
        x
            Prior bed elevation in metres, 1 km cells, (n, 1, h, w) with h and w at least 3.
        w1
            Ice surface elevation in metres, 100 m cells, (n, 1, 10h, 10w).
        w2
            Ice velocity along x and y in metres a year, 500 m cells, (n, 2, 2h, 2w).
        w3
            Snow accumulation in kg m-2 a year, 1 km cells, (n, 1, h, w).
        present
            Which of w1, w2 and w3 each tile has, bool (n, 3); by default all. The values of an
            absent input are never used. Or which of them each cell of 1 km has in the 3 km around
            it, bool (n, 3, h - 2, w - 2).

        Returns
        -------
        Tensor
            Bed elevation in metres, 250 m cells, (n, 1, 4(h - 2), 4(w - 2)): the area of x less
            one cell on each side.

        Raises
        ------
        ValueError
            An input has another shape; the message names it.
        """
        self._check(x, w1, w2, w3, present)
        pre = self.stem(x, w1, w2, w3, present)
        y = pre + self.post_residual_conv_layer(self.residual_network(pre))
        y = leaky_relu(self.final_conv_layer1(self.enlarge(y)))
        bed: Tensor = self.final_conv_layer2(y)
        return bed

    def stem(
        self, x: Tensor, w1: Tensor, w2: Tensor, w3: Tensor, present: Tensor | None = None
    ) -> Tensor:
        """Bring inputs, as :meth:`forward` takes them, to the trunk: (n, features, h-2, w-2)."""
        seen = self.input_block(x, w1, w2, w3, present)
        return leaky_relu(self.pre_residual_conv_layer(seen))

    def enlarge(self, y: Tensor) -> Tensor:
        """Bring the trunk's output from cells of 1 km to 250 m, (n, features, 4h, 4w)."""
        for conv in (self.post_upsample_conv_layer_1, self.post_upsample_conv_layer_2):
            y = leaky_relu(conv(functional.interpolate(y, scale_factor=2, mode="nearest")))
        return y

    def _check(self, x: Tensor, w1: Tensor, w2: Tensor, w3: Tensor, present: Tensor | None) -> None:
        if x.ndim != 4 or x.shape[1] != self.bands[0] or min(x.shape[2:]) < 3:
            raise ValueError(
                f"x: expected shape (n, {self.bands[0]}, h, w) with h and w at least 3, "
                f"found {tuple(x.shape)}"
            )
        n, _, height, width = x.shape
        for name, tensor, bands, scale in (
            ("w1", w1, self.bands[1], 10),
            ("w2", w2, self.bands[2], 2),
            ("w3", w3, self.bands[3], 1),
        ):
            expected = (n, bands, scale * height, scale * width)
            if tensor.shape != expected:
                raise ValueError(
                    f"{name}: expected shape {expected} beside x of {tuple(x.shape)}, "
                    f"found {tuple(tensor.shape)}"
                )
        shapes = ((n, 3), (n, 3, height - 2, width - 2))
        if present is not None and (present.shape not in shapes or present.dtype != torch.bool):
            raise ValueError(
                f"present: expected bool of shape {(n, 3)} beside x of {tuple(x.shape)}, "
                f"found {present.dtype} of shape {tuple(present.shape)}"
            )


NORMALISATION = {
    "bed": 300.0,  # m, by which the prior less its mean is divided
    "correction": 300.0,  # m, by which the output is multiplied before the bicubic prior is added
    "surface": 20.0,  # m, by which the surface less its plane is divided
    "short_surface": 3.0,  # m, likewise what of it is shorter than 2 km
    "velocity": 0.2,  # by which the velocity's deviation, relative to its mean, is divided
    "mean_accumulation": 200.0,  # kg m-2 a-1, taken from the accumulation
    "accumulation": 60.0,  # kg m-2 a-1, by which the rest is divided
}
"""What makes the inputs of a :class:`FlowAlignedGenerator` of the order of one, by default."""


class FlowAlignedGenerator(nn.Module):
    """A small generator that corrects the bicubic prior, seen along the flow of the ice.

    Each tile is turned by quarters and mirrored until its mean velocity points between east and
    north-east: what a bed does to the surface above it depends on the direction of flow alone, so
    that the network need not learn it anew for each. Heights lose their mean (the bed) or their
    plane (the surface), and the network gives what is to be added to the bicubic interpolation of
    the prior. The surface is given twice, whole and without what is longer than 2 km; the velocity
    as its relative deviation from the mean and as the mean's direction.

    Parameters
    ----------
    num_residual_blocks, residual_scaling, features, growth, input_features, flags
        Of the :class:`Generator` inside. The defaults train in minutes on two cores.
    normalisation
        Constants that differ from :data:`NORMALISATION`; a checkpoint keeps them all.

    Attributes
    ----------
    options : dict
        The arguments that make this network again, plain enough for JSON.

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
        # Larger weights than the published ones train in fewer steps. The first correction is
        # small, and the first offsets are none.
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

        A tile without velocity has no direction to be turned into: it is left as it lies.
        """
        if x.ndim != 4 or x.shape[2] != x.shape[3]:
            raise ValueError(
                f"x: expected shape (n, 1, h, h), since tiles are turned, found {tuple(x.shape)}"
            )
        if present is not None and present.shape != (len(x), 3):
            raise ValueError(
                f"present: expected bool of shape {(len(x), 3)}, found {present.dtype} of shape "
                f"{tuple(present.shape)}"
            )
        w1, w2, w3 = zero_absent((w1, w2, w3), present)
        east, north = w2.mean((2, 3)).unbind(1)
        quarters = (-torch.atan2(north, east) / (math.pi / 2)).round().long() % 4
        # Tiles turned alike stand side by side: this sets the order in which gradients are summed,
        # which a training that is to be repeated to the last digit depends on.
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
        """How many of the constants of the normalisation the inputs reach, which should be few.

        Parameters
        ----------
        x, w1, w2, w3
            As of :meth:`forward`.

        Returns
        -------
        dict
            By name of the constant: 99.9 % of the input, divided by it, lies within this.
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


def _normalisation(given: Mapping[str, float]) -> dict[str, float]:
    unknown = sorted(given.keys() - NORMALISATION.keys())
    if unknown:
        raise ValueError(
            f"normalisation: expected any of {', '.join(NORMALISATION)}, found {unknown[0]}"
        )
    for name, value in given.items():
        if not math.isfinite(value) or (value <= 0 and name != "mean_accumulation"):
            raise ValueError(f"normalisation: expected {name} above 0, found {value}")
    return NORMALISATION | dict(given)


def bicubic(x: Tensor) -> Tensor:
    """Bicubic interpolation of a prior to a quarter of its cell, less one cell on each side.

    Cubic convolution with a = -0.5 (Keys 1981, doi 10.1109/TASSP.1981.1163711), which keeps a
    plane a plane; torch's own has a = -0.75, and does not. Beyond its edge the prior goes on as
    the two outermost cells point. (n, 1, h, w) gives (n, 1, 4(h - 2), 4(w - 2)), the cells of a
    generator's output.
    """
    rows, columns = (_cubic_weights(size, x.dtype, x.device) for size in x.shape[2:])
    # A matrix product in bfloat16 would round a bed at -2000 m to 8 m.
    with without_autocast(x.device):
        return rows @ x @ columns.T


@functools.cache
@torch.inference_mode(False)  # kept for a training that may follow
def _cubic_weights(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Weights of size cells in 4(size - 2) finer ones along one axis."""
    place = 1 + (torch.arange(4 * (size - 2), dtype=torch.float64) + 0.5) / 4 - 0.5
    cell, t = place.floor().long(), place.frac()
    taps = 0.5 * torch.stack(
        [
            -t + 2 * t**2 - t**3,
            2 - 5 * t**2 + 3 * t**3,
            t + 4 * t**2 - 3 * t**3,
            -(t**2) + t**3,
        ],
        dim=1,
    )
    # One cell more at either end, which then falls to the two outermost cells.
    weights = torch.zeros(len(place), size + 2, dtype=torch.float64)
    weights.scatter_(1, cell[:, None] + torch.arange(4), taps)
    inner = weights[:, 1:-1].clone()
    for beyond, outer, within in ((0, 0, 1), (-1, -1, -2)):
        inner[:, outer] += 2 * weights[:, beyond]
        inner[:, within] -= weights[:, beyond]
    return inner.to(device, dtype)


def _smooth(grid: Tensor, cells: int = 21) -> Tensor:
    """Mean over a square of cells around each cell, the edges carried on outward."""
    grid = functional.pad(grid, (cells // 2,) * 4, mode="replicate")
    return functional.avg_pool2d(functional.avg_pool2d(grid, (cells, 1), 1), (1, cells), 1)


def _without_plane(grid: Tensor) -> Tensor:
    """What is left of each tile when the plane that fits it best is taken away."""
    height, width = grid.shape[2:]
    rest = grid - grid.mean((2, 3), keepdim=True)
    for size, shape in ((height, (height, 1)), (width, (1, width))):
        ramp = torch.linspace(-1, 1, size, device=grid.device, dtype=grid.dtype).view(shape)
        slope = (rest * ramp).mean((2, 3), keepdim=True) / ramp.square().mean()
        rest = rest - slope * ramp
    return rest


class Discriminator(nn.Module):
    """Tells a surveyed bed from a generated one: the higher the logit, the likelier surveyed.

    Ten convolutions with batch normalisation, the mean over the cells that are left, and two
    fully connected layers: 10,370,761 parameters.

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
        self.apply(_initialise)

    def forward(self, y: Tensor) -> Tensor:
        """Judge beds.

        Parameters
        ----------
        y
            Bed elevation in metres, 250 m cells, (n, 1, 36, 36); other sizes of at least 32 x 32
            cells are judged too.

        Returns
        -------
        Tensor
            Logits, (n, 1), in the dtype of the weights, also inside of autocast.

        Raises
        ------
        ValueError
            The input has another shape.
        """
        if y.ndim != 4 or y.shape[1] != 1 or min(y.shape[2:]) < 32:
            raise ValueError(f"y: expected shape (n, 1, 36, 36), found {tuple(y.shape)}")
        # In bfloat16 a bed at -2000 m would lose what is smaller than 8 m: autocast begins after
        # the first normalisation.
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


def _initialise(module: nn.Module) -> None:
    """He's normal distribution times 0.1, and biases of zero, as the original was started."""
    # A network that a checkpoint is to fill has no values; to ask for some loads half of torch.
    if isinstance(module, nn.Conv2d | nn.Linear) and not module.weight.is_meta:
        fan_in = math.prod(module.weight.shape[1:])
        nn.init.normal_(module.weight, std=0.1 * math.sqrt(2 / fan_in))
        if module.bias is not None:
            nn.init.zeros_(module.bias)


NETWORKS: dict[str, type[nn.Module]] = {
    network.__name__: network for network in (Generator, FlowAlignedGenerator, Discriminator)
}
"""The networks that a checkpoint may name. Each keeps its arguments in ``options``."""
