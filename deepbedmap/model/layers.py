"""The building blocks of the generator: input block, dense blocks and deformable convolution.

The parameters carry the names of the published weights (``conv_on_X``, ``conv_layer1``,
``offset_conv``, ...), so that a weight file is read without translating names.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from torch import Tensor

NEGATIVE_SLOPE = 0.2
"""Slope of every leaky rectified linear unit below zero."""


def deformable_conv2d(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    padding: int | Sequence[int] = 0,
) -> Tensor:
    """Convolve with taps displaced by offsets that differ from cell to cell.

    Where a convolution takes the value at row ``i + r``, column ``j + s``, this one takes the
    value at row ``i + r + offset_y``, column ``j + s + offset_x``, interpolated bilinearly.
    Outside ``x`` the values are zero. An offset is split into whole cells and a fraction before
    it is added to a position, so that rounding does not depend on where in the grid a cell is.

    Parameters
    ----------
    x
        (n, c, h, w), any floating dtype.
    offset
        (n, 2k, H, W) in cells, k = kernel rows times kernel columns, H = h + top and bottom padding
        - kernel rows + 1, W likewise: first the k horizontal offsets (positive to the right;
        kernel row-major), then the k vertical ones (positive downward).
    weight
        (out, c, kernel rows, kernel columns).
    bias
        (out,)
    padding
        Cells of zeros added on each side, or left, right, above and below. If negative, no
        output is computed for cells at that edge, but displaced taps still sample them.

    Returns
    -------
    Tensor
        (n, out, H, W), differentiable with respect to x, offset, weight and bias.

    Raises
    ------
    ValueError
        The shapes do not fit each other.

    References
    ----------
    Dai et al. (2017), Deformable Convolutional Networks, doi 10.1109/ICCV.2017.89. The order of
    the offsets is Chainer's (``deformable_convolution_2d_sampler``).

    Examples
    --------
    Zero offsets give the plain convolution.

    >>> x, weight = torch.rand(1, 2, 5, 6), torch.rand(3, 2, 3, 3)
    >>> y = deformable_conv2d(x, torch.zeros(1, 18, 5, 6), weight, padding=1)
    >>> torch.allclose(y, functional.conv2d(x, weight, padding=1), atol=1e-5)
    True
    """
    n, channels, height, width = x.shape
    out_channels, weight_channels, rows, columns = weight.shape
    taps = rows * columns
    padding = (padding,) * 4 if isinstance(padding, int) else tuple(padding)
    out_height = height + padding[2] + padding[3] - rows + 1
    out_width = width + padding[0] + padding[1] - columns + 1
    if weight_channels != channels:
        raise ValueError(f"weight: expected {channels} input channels, found {weight_channels}")
    if offset.shape != (n, 2 * taps, out_height, out_width):
        expected = (n, 2 * taps, out_height, out_width)
        raise ValueError(f"offset: expected shape {expected}, found {tuple(offset.shape)}")

    corners, shares = _bilinear(offset, (height, width), (rows, columns), padding)
    # One ring of zeros around x represents everything outside.
    pixels = functional.pad(x, (1, 1, 1, 1)).permute(0, 2, 3, 1).reshape(-1, channels)
    if 4 * out_channels < channels:
        # Multiplying by the weights first leaves fewer values to gather: the four corners of each
        # product instead of those of each channel.
        matrix = weight.permute(2, 3, 0, 1).reshape(taps * out_channels, channels)
        products = functional.linear(pixels, matrix).view(-1, out_channels)
        rows_of_taps = corners * taps + torch.arange(taps, device=x.device)[:, None]
        y = _weighted_rows(products, rows_of_taps.view(-1, 4 * taps), shares.view(-1, 4 * taps))
        if bias is not None:
            y = y + bias.to(y.dtype)
    else:
        sampled = _weighted_rows(pixels, corners.view(-1, 4), shares.view(-1, 4))
        matrix = weight.permute(0, 2, 3, 1).reshape(out_channels, taps * channels)
        y = functional.linear(sampled.view(-1, taps * channels), matrix, bias)
    return y.view(n, out_height, out_width, out_channels).permute(0, 3, 1, 2)


def _bilinear(
    offset: Tensor, size: tuple[int, int], kernel: tuple[int, int], padding: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Return the four cells around each displaced tap, and their bilinear weights.

    Parameters
    ----------
    offset
        As in :func:`deformable_conv2d`, (n, 2k, H, W).
    size, kernel
        Rows and columns of the input and of the kernel.
    padding
        Cells to the left, right, above and below.

    Returns
    -------
    tuple of Tensor
        Both (n, H, W, k, 4): indices into the cells of all inputs, each input with a ring of one
        cell around it, row by row; and weights, through which gradients reach the offsets.
    """
    (height, width), (rows, columns), taps = size, kernel, kernel[0] * kernel[1]
    n, _, out_height, out_width = offset.shape
    device = offset.device
    # The taps come last, so that a row of the sampled matrix is one output cell. Offsets are
    # limited to a distance at which every tap is outside the input: larger ones could overflow
    # an integer.
    beyond = 2 * (height + width + rows + columns + sum(map(abs, padding)))
    offset = offset.clamp(-beyond, beyond).permute(0, 2, 3, 1)
    whole = offset.detach().floor()
    fraction = offset - whole
    whole = whole.long()

    steps_down = torch.arange(rows, device=device).repeat_interleave(columns) - padding[2]
    steps_right = torch.arange(columns, device=device).repeat(rows) - padding[0]
    left = whole[..., :taps] + torch.arange(out_width, device=device)[:, None] + steps_right
    top = whole[..., taps:] + torch.arange(out_height, device=device)[:, None, None] + steps_down
    # Positions outside the input fall on the ring of zeros.
    left, right = (position.clamp(-1, width) + 1 for position in (left, left + 1))
    top, bottom = (position.clamp(-1, height) + 1 for position in (top, top + 1))
    image = torch.arange(n, device=device).view(n, 1, 1, 1) * (height + 2)
    top, bottom = (image + top) * (width + 2), (image + bottom) * (width + 2)
    corners = torch.stack((top + left, top + right, bottom + left, bottom + right), dim=-1)

    to_right, down = fraction[..., :taps], fraction[..., taps:]
    to_left, up = 1 - to_right, 1 - down
    shares = torch.stack((up * to_left, up * to_right, down * to_left, down * to_right), dim=-1)
    return corners, shares


class _WeightedRows(torch.autograd.Function):
    """Weighted sums of rows of a table; the gathered rows are never stored.

    embedding_bag's own gradient is not used: with weights in bfloat16 it is missing on CUDA (for
    example in torch 2.10), and on a CPU it sorts all indices.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(table, index, weight)
        return functional.embedding_bag(index, table, per_sample_weights=weight, mode="sum")

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor]:
        table, index, weight = ctx.saved_tensors
        precise = torch.promote_types(table.dtype, torch.float32)
        table_gradient = torch.zeros_like(table, dtype=precise)
        weight_gradient = torch.empty_like(weight)
        for term in range(index.shape[1]):
            row = index[:, term]
            values = table.index_select(0, row)
            weight_gradient[:, term] = torch.linalg.vecdot(values, gradient)
            table_gradient.index_add_(0, row, (gradient * weight[:, term, None]).to(precise))
        return table_gradient.to(table.dtype), None, weight_gradient


def _weighted_rows(table: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    # Under autocast a product may have a shorter dtype than the offsets.
    rows: Tensor = _WeightedRows.apply(  # type: ignore[no-untyped-call]
        table, index, weight.to(table.dtype)
    )
    return rows


class DeformableConv2d(nn.Module):
    """Deformable convolution with the convolution that computes its offsets.

    Parameters
    ----------
    in_channels, out_channels
        Channels of input and output.
    kernel_size
        Rows and columns of the kernel, odd; the output has the size of the input.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.offset_conv = nn.Conv2d(in_channels, 2 * kernel_size**2, kernel_size, padding=padding)
        # Holds weight and bias under the published names; its own forward is never called.
        self.deform_conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, in_channels, h, w) to (n, out_channels, h, w)."""
        return self.sample(x, self.offset_conv(x), int(self.deform_conv.padding[0]))

    def sample(self, x: Tensor, offset: Tensor, padding: int | Sequence[int]) -> Tensor:
        """Convolve at these offsets, as :func:`deformable_conv2d` does."""
        return deformable_conv2d(
            x, offset, self.deform_conv.weight, self.deform_conv.bias, padding=padding
        )


class DenseBlock(nn.Module):
    """Five convolutions, each of which sees the input and the outputs of all before it.

    Parameters
    ----------
    features
        Channels of input and output.
    growth
        Channels that each of the first four convolutions adds.
    residual_scaling
        Factor of the last convolution's output before it is added to the input.

    References
    ----------
    Wang et al. (2018), ESRGAN, doi 10.1007/978-3-030-11021-5_5.
    """

    def __init__(self, features: int = 64, growth: int = 32, residual_scaling: float = 0.2) -> None:
        super().__init__()
        self.residual_scaling = residual_scaling
        self.conv_layer1 = nn.Conv2d(features, growth, 3, padding=1)
        self.conv_layer2 = nn.Conv2d(features + growth, growth, 3, padding=1)
        self.conv_layer3 = nn.Conv2d(features + 2 * growth, growth, 3, padding=1)
        self.conv_layer4 = nn.Conv2d(features + 3 * growth, growth, 3, padding=1)
        self.conv_layer5 = nn.Conv2d(features + 4 * growth, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, features, h, w) to the same shape."""
        seen = x
        for conv in (self.conv_layer1, self.conv_layer2, self.conv_layer3, self.conv_layer4):
            seen = torch.cat((seen, leaky_relu(conv(seen))), dim=1)
        return torch.add(x, self.conv_layer5(seen), alpha=self.residual_scaling)


class ResidualInResidualDenseBlock(nn.Module):
    """Three dense blocks in a row, scaled and added to their input.

    Parameters are those of :class:`DenseBlock`; ``residual_scaling`` holds at both levels.
    """

    def __init__(self, features: int = 64, growth: int = 32, residual_scaling: float = 0.2) -> None:
        super().__init__()
        self.residual_scaling = residual_scaling
        self.residual_dense_block1 = DenseBlock(features, growth, residual_scaling)
        self.residual_dense_block2 = DenseBlock(features, growth, residual_scaling)
        self.residual_dense_block3 = DenseBlock(features, growth, residual_scaling)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, features, h, w) to the same shape."""
        y = self.residual_dense_block1(x)
        y = self.residual_dense_block2(y)
        y = self.residual_dense_block3(y)
        return torch.add(x, y, alpha=self.residual_scaling)


class InputBlock(nn.Module):
    """One convolution per input grid, each with a kernel of 3 km by 3 km, onto the prior's cells.

    Parameters
    ----------
    features
        Output channels per input; the output has four times as many.
    bands
        Channels of x, w1, w2 and w3.
    flags
        Whether a learnt vector (``absent``, three rows of ``features``) is added to the channels of
        an absent input, so that later layers can distinguish it from an input of zeros.
    """

    def __init__(
        self, features: int = 32, bands: Sequence[int] = (1, 1, 2, 1), *, flags: bool = False
    ) -> None:
        super().__init__()
        self.conv_on_X = nn.Conv2d(bands[0], features, 3)
        self.conv_on_W1 = nn.Conv2d(bands[1], features, 30, stride=10)
        self.conv_on_W2 = nn.Conv2d(bands[2], features, 6, stride=2)
        self.conv_on_W3 = nn.Conv2d(bands[3], features, 3)
        self.absent = nn.Parameter(torch.zeros(3, features)) if flags else None

    def forward(
        self, x: Tensor, w1: Tensor, w2: Tensor, w3: Tensor, present: Tensor | None = None
    ) -> Tensor:
        """Map grids of h x w, 10h x 10w, 2h x 2w and h x w cells to (n, 4 features, h-2, w-2).

        ``present`` (n, 3) states which of w1, w2 and w3 are available: the values of the others
        are never used, not even if they are NaN. As maps (n, 3, h-2, w-2) it does so for each
        output cell: where an input is absent, its channels are those of an absent input.
        """
        mapped = present is not None and present.ndim == 4
        if mapped:
            w1, w2, w3 = (grid.nan_to_num(0.0) for grid in (w1, w2, w3))
        else:
            w1, w2, w3 = zero_absent((w1, w2, w3), present)
        seen = [self.conv_on_X(x), self.conv_on_W1(w1), self.conv_on_W2(w2), self.conv_on_W3(w3)]
        if present is None:
            return torch.cat(seen, dim=1)
        convs = (self.conv_on_W1, self.conv_on_W2, self.conv_on_W3)
        for place, conv in enumerate(convs):
            channels = seen[place + 1]
            here = present[:, place].view(-1, 1, *present.shape[2:] if mapped else (1, 1))
            if mapped and conv.bias is not None:
                # The convolution of an input of zeros is its bias.
                of_zeros = conv.bias.view(1, -1, 1, 1).to(channels.dtype)
                channels = torch.where(here, channels, of_zeros)
            if self.absent is not None:
                missing = (~here).to(self.absent.dtype)
                learnt = missing * self.absent[place].view(1, -1, 1, 1)
                channels = channels + learnt.to(channels.dtype)
            seen[place + 1] = channels
        return torch.cat(seen, dim=1)


def zero_absent(grids: Sequence[Tensor], present: Tensor | None) -> tuple[Tensor, ...]:
    """Set absent optional grids of each tile to zero; ``present`` is (n, number of grids)."""
    if present is None:
        return tuple(grids)
    return tuple(
        grid.masked_fill(~present[:, place].view(-1, 1, 1, 1), 0)
        for place, grid in enumerate(grids)
    )


def leaky_relu(x: Tensor) -> Tensor:
    """Apply the leaky rectified linear unit with the slope that all layers share."""
    return functional.leaky_relu(x, NEGATIVE_SLOPE)


def without_autocast(device: torch.device) -> torch.autocast:
    """Return a context that disables autocast: everything keeps its dtype."""
    kind = device.type if torch.amp.is_autocast_available(device.type) else "cpu"
    return torch.autocast(kind, enabled=False)


def initialise(module: nn.Module) -> None:
    """Draw weights from 0.1 times He's normal distribution and set biases to 0, as the original."""
    # A network about to be filled from a checkpoint is on the meta device and has no values;
    # drawing some would import half of torch.
    if isinstance(module, nn.Conv2d | nn.Linear) and not module.weight.is_meta:
        fan_in = math.prod(module.weight.shape[1:])
        nn.init.normal_(module.weight, std=0.1 * math.sqrt(2 / fan_in))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
