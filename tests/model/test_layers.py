from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from deepbedmap.model.layers import (
    DeformableConv2d,
    DenseBlock,
    InputBlock,
    ResidualInResidualDenseBlock,
    deformable_conv2d,
)

# 5 outputs of 6 channels are sampled first and multiplied then, 1 output the other way round.
OUTPUTS = (5, 1)


def _plain(x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, padding: int) -> Tensor:
    """The definition, cell by cell, in float64."""
    x, offset, weight = x.double(), offset.double(), weight.double()
    n, channels, height, width = x.shape
    rows, columns = weight.shape[2:]
    taps = rows * columns

    def value(image: int, row: int, column: int) -> Tensor:
        if 0 <= row < height and 0 <= column < width:
            return x[image, :, row, column]
        return torch.zeros(channels, dtype=torch.float64)

    y = bias.double()[None, :, None, None].repeat(n, 1, *offset.shape[-2:])
    for image, i, j in itertools.product(range(n), *map(range, offset.shape[-2:])):
        for r, s in itertools.product(range(rows), range(columns)):
            tap = r * columns + s
            column = j - padding + s + float(offset[image, tap, i, j])
            row = i - padding + r + float(offset[image, taps + tap, i, j])
            top, left = math.floor(row), math.floor(column)
            sampled = sum(
                (1 - abs(row - a)) * (1 - abs(column - b)) * value(image, a, b)
                for a, b in itertools.product((top, top + 1), (left, left + 1))
            )
            y[image, :, i, j] += weight[:, :, r, s] @ sampled
    return y


def _case(
    spread: float, out: int, kernel: tuple[int, int] = (3, 3), padding: int = 1
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows, columns = kernel
    height, width = 5 + 2 * padding - rows + 1, 7 + 2 * padding - columns + 1
    return (
        torch.randn(2, 6, 5, 7),
        spread * torch.randn(2, 2 * rows * columns, height, width),
        torch.randn(out, 6, rows, columns),
        torch.randn(out),
    )


@pytest.mark.parametrize("out", OUTPUTS)
@pytest.mark.parametrize("spread", [0.0, 0.7, 4.0, 1e4])
def test_a_deformable_convolution_is_its_definition_for_offsets_of_any_size(
    spread: float, out: int
) -> None:
    x, offset, weight, bias = _case(spread, out)
    y = deformable_conv2d(x, offset, weight, bias, padding=1)
    torch.testing.assert_close(y.double(), _plain(x, offset, weight, bias, 1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("out", OUTPUTS)
@pytest.mark.parametrize(("kernel", "padding"), [((3, 3), 0), ((1, 3), 1), ((2, 3), 2)])
def test_a_deformable_convolution_takes_any_kernel_and_padding(
    kernel: tuple[int, int], padding: int, out: int
) -> None:
    x, offset, weight, bias = _case(1.0, out, kernel, padding)
    y = deformable_conv2d(x, offset, weight, bias, padding=padding)
    plain = _plain(x, offset, weight, bias, padding)
    torch.testing.assert_close(y.double(), plain, rtol=0, atol=1e-5)


def test_the_first_half_of_the_offsets_points_along_x_and_the_second_along_y() -> None:
    x = torch.arange(30.0).view(1, 1, 5, 6)
    offset = torch.zeros(1, 2, 5, 6)
    offset[:, 0] = 1
    right = deformable_conv2d(x, offset, torch.ones(1, 1, 1, 1))
    down = deformable_conv2d(x, offset.flip(1), torch.ones(1, 1, 1, 1))
    torch.testing.assert_close(right, functional.pad(x[..., 1:], (0, 1)))
    torch.testing.assert_close(down, functional.pad(x[..., 1:, :], (0, 0, 0, 1)))


@pytest.mark.parametrize("out", OUTPUTS)
@pytest.mark.parametrize("reach", [1, 3, 40])
def test_gradients_with_respect_to_all_inputs_are_right(reach: int, out: int) -> None:
    # Kept off whole cells, where a bilinear surface has a kink and no derivative. A reach of 40
    # takes nearly all taps out of the image.
    x = torch.randn(1, 6, 4, 4, dtype=torch.float64, requires_grad=True)
    offset = torch.randint(-reach, reach, (1, 18, 4, 4)) + 0.1 + 0.8 * torch.rand(1, 18, 4, 4)
    offset = offset.double().requires_grad_()
    weight = torch.randn(out, 6, 3, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(out, dtype=torch.float64, requires_grad=True)

    def run(x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return deformable_conv2d(x, offset, weight, bias, padding=1)

    assert torch.autograd.gradcheck(run, (x, offset, weight, bias))


@pytest.mark.parametrize("out", OUTPUTS)
@pytest.mark.parametrize("far", [100.0, -1e9, 3e38, math.inf, -math.inf])
def test_what_lies_outside_counts_as_zero_and_pulls_no_gradient(far: float, out: int) -> None:
    x, offset, weight, bias = _case(0.0, out)
    offset = (offset + far).requires_grad_()
    y = deformable_conv2d(x, offset, weight, bias, padding=1)
    y.sum().backward()
    torch.testing.assert_close(y, bias[None, :, None, None].expand_as(y))
    assert offset.grad is not None
    assert not offset.grad.any()


@pytest.mark.parametrize("out", OUTPUTS)
def test_an_offset_that_is_not_a_number_spoils_only_its_own_cell(out: int) -> None:
    x, offset, weight, bias = _case(0.5, out)
    offset[0, 4, 2, 3] = math.nan
    y = deformable_conv2d(x, offset, weight, bias, padding=1)
    spoilt = torch.zeros_like(y, dtype=torch.bool)
    spoilt[0, :, 2, 3] = True
    assert torch.equal(y.isnan(), spoilt)


@pytest.mark.parametrize("out", OUTPUTS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_forward_and_backward_run_in_other_precisions(dtype: torch.dtype, out: int) -> None:
    x, offset, weight, bias = (tensor.to(dtype).requires_grad_() for tensor in _case(0.5, out))
    y = deformable_conv2d(x, offset, weight, bias, padding=1)
    y.sum().backward()
    plain = _plain(x.detach(), offset.detach(), weight.detach(), bias.detach(), 1)
    assert y.dtype == x.grad.dtype == offset.grad.dtype == dtype
    torch.testing.assert_close(y.double(), plain, rtol=0, atol=40 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("out", OUTPUTS)
def test_the_layer_stays_in_bfloat16_inside_autocast(out: int) -> None:
    layer, x = DeformableConv2d(6, out), torch.randn(2, 6, 5, 7, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), layer(x), rtol=0.05, atol=0.05)
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("out", [64, 1])
def test_the_layer_keeps_sampled_values_once_in_bfloat16_or_not_at_all(out: int) -> None:
    # Sampled values are nine times as many as the input's; kept in float32, 18 times as much.
    layer, x = DeformableConv2d(64, out), torch.randn(2, 64, 20, 20)
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor
        return tensor

    with (
        torch.autocast("cpu", torch.bfloat16),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        layer(x)
    large = [tensor for tensor in kept.values() if tensor.numel() >= 9 * x.numel()]
    assert all(tensor.dtype == torch.bfloat16 for tensor in large)
    assert len(large) == (1 if out == 64 else 0)


def test_the_same_neighbourhood_gives_the_same_value_wherever_it_lies() -> None:
    x, offset, weight, bias = _case(1.0, 5)
    west, east = torch.zeros(2, 6, 40, 5000), torch.zeros(2, 6, 40, 5000)
    west_offset, east_offset = torch.zeros(2, 18, 40, 5000), torch.zeros(2, 18, 40, 5000)
    west[..., 20:25, 20:27], east[..., 20:25, 4900:4907] = x, x
    west_offset[..., 20:25, 20:27], east_offset[..., 20:25, 4900:4907] = offset, offset
    y_west = deformable_conv2d(west, west_offset, weight, bias, padding=1)
    y_east = deformable_conv2d(east, east_offset, weight, bias, padding=1)
    torch.testing.assert_close(
        y_west[..., 20:25, 20:27], y_east[..., 20:25, 4900:4907], rtol=0, atol=2e-6
    )


def test_shapes_that_do_not_fit_are_refused_by_name() -> None:
    x, offset, weight, bias = _case(0.0, 5)
    with pytest.raises(ValueError, match=r"^offset: expected shape \(2, 18, 3, 5\), found"):
        deformable_conv2d(x, offset, weight, bias, padding=0)
    with pytest.raises(ValueError, match=r"^weight: expected 6 input channels, found 5"):
        deformable_conv2d(x, offset, weight[:, :5], bias, padding=1)


@pytest.mark.parametrize("block", [DenseBlock, ResidualInResidualDenseBlock])
def test_a_residual_block_changes_its_input_in_proportion_to_its_scaling(
    block: type[DenseBlock | ResidualInResidualDenseBlock],
) -> None:
    x = torch.randn(1, 8, 5, 5)
    still = block(features=8, growth=4, residual_scaling=0.0)
    moving = block(features=8, growth=4, residual_scaling=0.2)
    torch.testing.assert_close(still(x), x)
    assert not torch.allclose(moving(x), x)


def test_a_dense_block_reaches_five_cells_far() -> None:
    block = DenseBlock(features=2, growth=2)
    x = torch.zeros(1, 2, 15, 15, requires_grad=True)
    block(x)[0, :, 7, 7].sum().backward()
    assert x.grad is not None
    reached = x.grad.abs().sum(dim=(0, 1)).nonzero()
    assert reached.min() == 2
    assert reached.max() == 12


def test_the_input_block_brings_all_grids_to_the_cells_of_the_prior() -> None:
    block = InputBlock(features=3, bands=(1, 2, 3, 1))
    y = block(
        torch.randn(2, 1, 6, 9),
        torch.randn(2, 2, 60, 90),
        torch.randn(2, 3, 12, 18),
        torch.randn(2, 1, 6, 9),
    )
    assert y.shape == (2, 12, 4, 7)


def test_each_input_sees_the_same_three_kilometres_of_ground() -> None:
    block = InputBlock(features=1)
    grids = [
        torch.zeros(1, 1, 5, 6, requires_grad=True),
        torch.zeros(1, 1, 50, 60, requires_grad=True),
        torch.zeros(1, 2, 10, 12, requires_grad=True),
        torch.zeros(1, 1, 5, 6, requires_grad=True),
    ]
    block(*grids)[0, :, 1, 2].sum().backward()
    for grid, scale in zip(grids, (1, 10, 2, 1), strict=True):
        assert grid.grad is not None
        seen = grid.grad.abs().sum(dim=(0, 1)).nonzero()
        assert seen.min(dim=0).values.tolist() == [scale, 2 * scale]
        assert seen.max(dim=0).values.tolist() == [4 * scale - 1, 5 * scale - 1]
