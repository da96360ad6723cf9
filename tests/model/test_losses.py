from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from deepbedmap.model import losses


@pytest.fixture(scope="module")
def original(reference: Callable[[str], dict[str, Tensor]]) -> dict[str, Tensor]:
    return reference("losses")


@pytest.mark.parametrize(
    ("name", "loss", "arguments"),
    [
        ("content", losses.content_loss, ("y_pred", "y_true")),
        ("topographic", losses.topographic_loss, ("y_pred", "x_topo")),
        ("ssim", losses.ssim, ("y_pred", "y_true")),
        ("psnr", losses.psnr, ("y_pred", "y_true")),
        ("adversarial", losses.adversarial_loss, ("real_logits", "fake_logits")),
        ("discriminator", losses.discriminator_loss, ("real_logits", "fake_logits")),
        (
            "generator",
            losses.generator_loss,
            ("y_pred", "y_true", "fake_logits", "real_logits", "x_topo"),
        ),
    ],
)
def test_a_loss_is_what_the_original_computed(
    name: str,
    loss: Callable[..., Tensor],
    arguments: tuple[str, ...],
    original: dict[str, Tensor],
) -> None:
    value = loss(*(original[argument] for argument in arguments))
    assert value.item() == pytest.approx(original[name].item(), rel=1e-5)


def test_the_content_loss_is_the_mean_absolute_difference() -> None:
    y_true = torch.randn(3, 1, 8, 8)
    assert losses.content_loss(y_true - 2.5, y_true).item() == pytest.approx(2.5)


def test_the_topographic_loss_compares_means_of_four_by_four_cells() -> None:
    x = torch.randn(2, 1, 9, 9)
    rough = torch.randn(2, 1, 9, 4, 9, 4)
    rough -= rough.mean(dim=(3, 5), keepdim=True)
    y_pred = (x[:, :, :, None, :, None] + rough + 3).reshape(2, 1, 36, 36)
    assert losses.topographic_loss(y_pred, x).item() == pytest.approx(3, abs=1e-5)


def test_the_topographic_loss_leaves_out_the_rim_of_the_generators_input() -> None:
    x, y_pred = torch.randn(2, 1, 11, 13), torch.randn(2, 1, 36, 44)
    whole = losses.topographic_loss(y_pred, x)
    assert whole == losses.topographic_loss(y_pred, x[..., 1:-1, 1:-1])


@pytest.mark.parametrize("shape", [(2, 1, 10, 9), (1, 1, 9, 9), (2, 1, 36, 36)])
def test_the_topographic_loss_refuses_a_prior_of_another_area(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^x: expected shape \(2, 1, 9, 9\) .* found"):
        losses.topographic_loss(torch.zeros(2, 1, 36, 36), torch.zeros(shape))


@pytest.mark.parametrize("loss", [losses.content_loss, losses.ssim, losses.psnr])
def test_beds_of_different_shapes_are_refused(loss: Callable[..., Tensor]) -> None:
    with pytest.raises(ValueError, match=r"^y_true: expected shape \(4, 1, 36, 36\)"):
        loss(torch.zeros(4, 1, 36, 36), torch.zeros(4, 1, 1, 36))


def test_ssim_is_the_formula_of_wang_window_by_window() -> None:
    pred, true = torch.randn(1, 1, 10, 11).double(), torch.randn(1, 1, 10, 11).double()
    values = []
    for row in range(2):
        for column in range(3):
            a = pred[0, 0, row : row + 9, column : column + 9].flatten()
            b = true[0, 0, row : row + 9, column : column + 9].flatten()
            covariance = ((a - a.mean()) * (b - b.mean())).mean()
            values.append(
                (2 * a.mean() * b.mean() + 1e-4)
                * (2 * covariance + 9e-4)
                / (a.mean() ** 2 + b.mean() ** 2 + 1e-4)
                / (a.var(correction=0) + b.var(correction=0) + 9e-4)
            )
    assert losses.ssim(pred, true).item() == pytest.approx(torch.stack(values).mean().item())


def test_ssim_keeps_its_digits_on_a_bed_far_below_sea_level() -> None:
    pred, true = torch.randn(2, 1, 36, 36), torch.randn(2, 1, 36, 36)
    deep = losses.ssim(pred - 2000, true - 2000)
    exact = losses.ssim((pred - 2000).double(), (true - 2000).double())
    assert deep.item() == pytest.approx(exact.item(), abs=1e-5)


def test_the_structural_loss_is_zero_for_equal_beds_and_grows_with_noise() -> None:
    bed = torch.randn(2, 1, 36, 36)
    equal, near, far = (
        losses.structural_loss(bed + noise * torch.randn_like(bed), bed).item()
        for noise in (0, 0.3, 3)
    )
    assert equal == pytest.approx(0, abs=1e-5)
    assert equal < near < far


def test_a_bed_smaller_than_the_window_has_no_ssim() -> None:
    with pytest.raises(ValueError, match="at least 9 x 9 cells"):
        losses.ssim(torch.zeros(1, 1, 8, 36), torch.zeros(1, 1, 8, 36))


def test_psnr_falls_by_twenty_decibels_when_the_error_grows_tenfold() -> None:
    bed = torch.zeros(1, 1, 4, 4)
    one, ten = losses.psnr(bed, bed + 1), losses.psnr(bed, bed + 10)
    assert one.item() == pytest.approx(20 * 32 * math.log10(2), rel=1e-6)
    assert (one - ten).item() == pytest.approx(20, abs=1e-4)


def test_the_adversarial_losses_pull_in_opposite_directions() -> None:
    real, fake = torch.full((4, 1), 2.0), torch.full((4, 1), -1.0)
    assert losses.discriminator_loss(real, fake) < 0.1
    assert losses.adversarial_loss(real, fake) > 5


@pytest.mark.parametrize("size", [1e2, 1e6, 1e30])
def test_the_adversarial_losses_stay_finite_for_any_logits(size: float) -> None:
    real = torch.tensor([[-size], [size / 2]], requires_grad=True)
    fake = torch.tensor([[size], [0.0]], requires_grad=True)
    loss = losses.discriminator_loss(real, fake) + losses.adversarial_loss(real, fake)
    loss.backward()
    for tensor in (loss, real.grad, fake.grad):
        assert tensor is not None
        assert tensor.isfinite().all()


def test_the_weights_of_the_generators_loss_are_the_published_ones_and_can_be_changed() -> None:
    y_pred, y_true = torch.randn(2, 1, 36, 36), torch.randn(2, 1, 36, 36)
    fake, real, x = torch.randn(2, 1), torch.randn(2, 1), torch.randn(2, 1, 9, 9)
    total = losses.generator_loss(y_pred, y_true, fake, real, x)
    parts = {
        "content_weight": 1e-2 * losses.content_loss(y_pred, y_true),
        "adversarial_weight": 2e-2 * losses.adversarial_loss(real, fake),
        "topographic_weight": 2e-3 * losses.topographic_loss(y_pred, x),
        "structural_weight": 5.25 * losses.structural_loss(y_pred, y_true),
    }
    for name, part in parts.items():
        without = losses.generator_loss(y_pred, y_true, fake, real, x, **{name: 0.0})
        assert (total - without).item() == pytest.approx(part.item(), rel=1e-3, abs=1e-6)


def test_the_generators_loss_is_differentiable_in_all_that_it_judges() -> None:
    y_pred = torch.randn(2, 1, 12, 12, dtype=torch.float64, requires_grad=True)
    fake = torch.randn(2, 1, dtype=torch.float64, requires_grad=True)
    y_true, real = torch.randn_like(y_pred), torch.randn_like(fake)
    x = torch.randn(2, 1, 3, 3, dtype=torch.float64)

    def loss(y_pred: Tensor, fake: Tensor) -> Tensor:
        return losses.generator_loss(y_pred, y_true.detach(), fake, real.detach(), x)

    assert torch.autograd.gradcheck(loss, (y_pred, fake), fast_mode=True)


MASKED = [losses.content_loss, losses.structural_loss, losses.ssim, losses.psnr]


def _gaps(*shape: int) -> Tensor:
    """A mask in which some windows are whole and some are not."""
    mask = torch.ones(shape, dtype=torch.bool)
    mask[..., 0, :] = mask[..., :, 11] = mask[0, 0, 20:, :5] = False
    return mask


def _gradient(
    loss: Callable[..., Tensor], y_pred: Tensor, y_true: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor]:
    y_pred = y_pred.clone().requires_grad_()
    value = loss(y_pred, y_true, mask=mask)
    return value.detach(), torch.autograd.grad(value, y_pred)[0]


@pytest.mark.parametrize("loss", MASKED)
def test_a_full_mask_is_no_mask(loss: Callable[..., Tensor]) -> None:
    y_pred, y_true = torch.randn(2, 1, 36, 36), torch.randn(2, 1, 36, 36)
    full = torch.ones_like(y_true, dtype=torch.bool)
    torch.testing.assert_close(loss(y_pred, y_true, mask=full), loss(y_pred, y_true))


@pytest.mark.parametrize("loss", MASKED)
@pytest.mark.parametrize("garbage", [math.nan, math.inf, 1e30])
def test_what_was_not_surveyed_changes_neither_loss_nor_gradient(
    loss: Callable[..., Tensor], garbage: float
) -> None:
    y_pred, y_true = torch.randn(2, 1, 36, 36), torch.randn(2, 1, 36, 36)
    mask = _gaps(2, 1, 36, 36)
    clean = _gradient(loss, y_pred, y_true, mask=mask)
    spoilt = _gradient(loss, y_pred, y_true.masked_fill(~mask, garbage), mask=mask)
    assert all(map(torch.equal, clean, spoilt))
    assert spoilt[1].isfinite().all()
    assert spoilt[1][mask].any()
    if loss in (losses.content_loss, losses.psnr):
        assert not spoilt[1][~mask].any()


@pytest.mark.parametrize("loss", [losses.content_loss, losses.psnr])
def test_a_masked_mean_is_that_of_the_surveyed_cells_of_all_tiles(
    loss: Callable[..., Tensor],
) -> None:
    y_pred, y_true = torch.randn(2, 1, 36, 36), torch.randn(2, 1, 36, 36)
    mask = _gaps(2, 1, 36, 36)
    alone = loss(y_pred[mask].view(1, 1, 1, -1), y_true[mask].view(1, 1, 1, -1))
    torch.testing.assert_close(loss(y_pred, y_true, mask=mask), alone)


def test_the_masked_ssim_is_that_of_the_windows_without_a_gap() -> None:
    pred, true = torch.randn(2, 1, 12, 11).double(), torch.randn(2, 1, 12, 11).double()
    mask = torch.ones_like(true, dtype=torch.bool)
    mask[0, 0, 0, 4] = mask[1, 0, 5, 5] = False  # tile 1 keeps no window, tile 0 those below
    expected = losses.ssim(pred[:1, :, 1:], true[:1, :, 1:])
    torch.testing.assert_close(losses.ssim(pred, true, mask=mask), expected)


def test_one_surveyed_cell_is_all_that_counts() -> None:
    y_pred, y_true = torch.zeros(2, 1, 36, 36), torch.full((2, 1, 36, 36), math.nan)
    mask = torch.zeros_like(y_true, dtype=torch.bool)
    mask[1, 0, 3, 4], y_true[1, 0, 3, 4] = True, -7.0
    value, gradient = _gradient(losses.content_loss, y_pred, y_true, mask=mask)
    assert value == 7
    assert gradient[1, 0, 3, 4] == gradient.sum() == 1
    assert losses.structural_loss(y_pred, y_true, mask=mask) == 0


@pytest.mark.parametrize("loss", [losses.content_loss, losses.structural_loss])
def test_a_batch_without_a_surveyed_cell_has_no_loss_and_no_gradient(
    loss: Callable[..., Tensor],
) -> None:
    y_pred, y_true = torch.randn(2, 1, 36, 36), torch.full((2, 1, 36, 36), math.nan)
    value, gradient = _gradient(loss, y_pred, y_true, mask=torch.zeros_like(y_true).bool())
    assert value == 0
    assert not gradient.any()


def test_the_topographic_term_stays_where_nothing_was_surveyed() -> None:
    y_pred, y_true = torch.randn(2, 1, 36, 36), torch.full((2, 1, 36, 36), math.nan)
    logits, x = torch.zeros(2, 1), torch.randn(2, 1, 9, 9)
    nowhere = torch.zeros_like(y_true, dtype=torch.bool)
    total = losses.generator_loss(y_pred, y_true, logits, logits, x, mask=nowhere)
    rest = 2e-2 * losses.adversarial_loss(logits, logits)
    rest = rest + 2e-3 * losses.topographic_loss(y_pred, x)
    torch.testing.assert_close(total, rest)


def test_sums_and_counts_of_parts_make_the_mean_of_the_whole() -> None:
    y_pred, y_true = torch.randn(4, 1, 36, 36), torch.randn(4, 1, 36, 36)
    mask = _gaps(4, 1, 36, 36)
    parts = [
        losses.masked_mean((pred - true).abs(), known)
        for pred, true, known in zip(y_pred.split(1), y_true.split(1), mask.split(1), strict=True)
    ]
    total, count = (sum(values) for values in zip(*parts, strict=True))
    torch.testing.assert_close(total / count, losses.content_loss(y_pred, y_true, mask=mask))


def test_the_discriminator_sees_the_generated_bed_in_the_gaps() -> None:
    y_pred, y_true = torch.randn(2, 1, 36, 36, requires_grad=True), torch.randn(2, 1, 36, 36)
    mask = _gaps(2, 1, 36, 36)
    filled = losses.fill_gaps(y_true.masked_fill(~mask, math.nan), y_pred, mask)
    assert torch.equal(filled[mask], y_true[mask])
    assert torch.equal(filled[~mask], y_pred[~mask])
    assert not filled.requires_grad
    assert losses.fill_gaps(y_true, y_pred) is y_true


@pytest.mark.parametrize("loss", [*MASKED, losses.fill_gaps])
def test_a_mask_of_another_shape_or_kind_is_refused(loss: Callable[..., Tensor]) -> None:
    bed = torch.zeros(2, 1, 36, 36)
    with pytest.raises(ValueError, match=r"^mask: .* \(2, 1, 36, 36\) .* found torch.float32"):
        loss(bed, bed, mask=torch.ones_like(bed))
    with pytest.raises(ValueError, match=r"^mask: .* found torch.bool of shape \(2, 1, 9, 9\)"):
        loss(bed, bed, mask=torch.ones(2, 1, 9, 9, dtype=torch.bool))


@pytest.mark.parametrize("loss", MASKED)
def test_a_bed_in_bfloat16_is_judged_in_the_precision_of_the_surveyed_one(
    loss: Callable[..., Tensor],
) -> None:
    y_true = torch.randn(2, 1, 36, 36)
    y_pred = torch.randn(2, 1, 36, 36).bfloat16()
    value = loss(y_pred, y_true)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(y_pred.float(), y_true))
