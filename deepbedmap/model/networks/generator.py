"""The generator, which refines a 1 km bed to 250 m.

It is the network of Leong & Horgan (2020), DeepBedMap, doi 10.5194/tc-14-3687-2020.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from deepbedmap.model.layers import (
    DeformableConv2d,
    InputBlock,
    ResidualInResidualDenseBlock,
    initialise,
    leaky_relu,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from torch import Tensor


class Generator(nn.Module):
    """Refines a 1 km bed elevation grid to 250 m with observations at the ice surface.

    Input block, residual-in-residual dense blocks with a skip connection around them all, two
    nearest- neighbour doublings, each with a convolution, and two deformable convolutions. The
    defaults give the published network, with 8,907,749 parameters; the keyword-only options give
    smaller members of the same family.

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
        Channels of the input block for each of its four inputs.
    bands
        Channels of x, w1, w2 and w3.
    flags
        Whether the network learns what the absence of w1, w2 or w3 means (``3 input_features``
        more parameters). If not, an absent input is treated as zeros.

    Attributes
    ----------
    options : dict
        The arguments that rebuild this network, as JSON can represent them.
    convolutional : bool
        True: a domain of any size can be treated as one image, independent of position.
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
        self.apply(initialise)

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
            Ice velocity along x and y in m a-1, 500 m cells, (n, 2, 2h, 2w).
        w3
            Snow accumulation in kg m-2 a-1, 1 km cells, (n, 1, h, w).
        present
            Which of w1, w2 and w3 each tile has, bool (n, 3); by default all. The values of an
            absent input are never used. Alternatively per 1 km cell, for the 3 km around it, bool
            (n, 3, h - 2, w - 2).

        Returns
        -------
        Tensor
            Bed elevation in metres, 250 m cells, (n, 1, 4(h - 2), 4(w - 2)): the area of x without
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
                    f"{name}: expected shape {expected} for x of {tuple(x.shape)}, "
                    f"found {tuple(tensor.shape)}"
                )
        shapes = ((n, 3), (n, 3, height - 2, width - 2))
        if present is not None and (present.shape not in shapes or present.dtype != torch.bool):
            raise ValueError(
                f"present: expected bool of shape {(n, 3)} for x of {tuple(x.shape)}, "
                f"found {present.dtype} of shape {tuple(present.shape)}"
            )
