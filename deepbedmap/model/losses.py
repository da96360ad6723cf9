"""Losses of the generator and the discriminator, and metrics for monitoring them.

As in Leong & Horgan (2020), doi 10.5194/tc-14-3687-2020. Everything is differentiable and computed
in the dtype of the surveyed bed or of the prior, whatever the dtype of the generated bed; beds
are (n, 1, h, w) in metres.

A ``mask`` (bool, in the shape of the beds) is true where the bed was surveyed. Elsewhere
``y_true`` may hold any value, even NaN, and affects neither loss nor gradient. Without a mask all
cells count as surveyed. If no cell was surveyed, every metric is the one of equal beds.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

CONTENT_WEIGHT = 1e-2
ADVERSARIAL_WEIGHT = 2e-2
TOPOGRAPHIC_WEIGHT = 2e-3
STRUCTURAL_WEIGHT = 5.25


def masked_mean(values: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return sum and count of the unmasked values, for a mean over several processes.

    Parameters
    ----------
    values
        Any shape, finite (a masked NaN would still make the gradient NaN).
    mask
        bool, of the same shape: true for the values to include.

    Returns
    -------
    tuple of Tensor
        The sum and the number of values, both of the values' dtype.

    Examples
    --------
    >>> total, count = masked_mean(torch.tensor([1.0, 2.0, 6.0]), torch.tensor([True, False, True]))
    >>> (total / count).item()
    3.5
    """
    if mask is None:
        return values.sum(), values.new_full((), values.numel())
    return values.masked_fill(~mask, 0).sum(), mask.sum().to(values.dtype)


def fill_gaps(y_true: Tensor, y_pred: Tensor, mask: Tensor | None = None) -> Tensor:
    """Fill the gaps of surveyed beds with the generated bed, so that a discriminator sees no gap.

    A filled bed differs from ``y_pred`` only where it was surveyed: the shape of the gaps does not
    reveal which of the two is the surveyed one.

    Returns
    -------
    Tensor
        Shape and dtype of ``y_true``. ``y_pred`` is a constant here, and gets no gradient.

    Raises
    ------
    ValueError
        The shapes differ, or the mask is not bool.

    Examples
    --------
    >>> y_true, y_pred = torch.tensor([5.0, torch.nan]), torch.tensor([1.0, 2.0])
    >>> fill_gaps(y_true, y_pred, torch.tensor([True, False]))
    tensor([5., 2.])
    """
    _check_same_shape(y_pred, y_true)
    if mask is None:
        return y_true
    if mask.shape != y_true.shape or mask.dtype != torch.bool:
        raise ValueError(
            f"mask: expected bool of shape {tuple(y_true.shape)} as y_true, "
            f"found {mask.dtype} of shape {tuple(mask.shape)}"
        )
    return torch.where(mask, y_true, y_pred.detach().to(y_true.dtype))


def content_loss(y_pred: Tensor, y_true: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Return the mean absolute difference (m) of two beds over the surveyed cells of all tiles.

    Examples
    --------
    >>> content_loss(torch.zeros(1, 1, 2, 2), torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])).item()
    2.5
    """
    return mean_of((y_pred.to(y_true.dtype) - fill_gaps(y_true, y_pred, mask)).abs(), mask)


def topographic_loss(y_pred: Tensor, x: Tensor) -> Tensor:
    """Return the mean absolute difference of 4 x 4 cell means of the predicted bed and the prior.

    It takes no mask: the prior is known everywhere.

    Parameters
    ----------
    y_pred
        Predicted bed, (n, 1, 4h, 4w), 250 m cells.
    x
        The prior over the same area, (n, 1, h, w), 1 km cells: the generator's input without its
        outermost cells, or with them (h + 2, w + 2), in which case they are dropped here.

    Returns
    -------
    Tensor
        One value, in metres.

    Examples
    --------
    >>> topographic_loss(torch.ones(1, 1, 36, 36), torch.zeros(1, 1, 9, 9)).item()
    1.0
    """
    means = functional.avg_pool2d(y_pred.to(x.dtype), kernel_size=4)
    rows, columns = means.shape[-2:]
    if x.shape[-2:] == (rows + 2, columns + 2):
        x = x[..., 1:-1, 1:-1]
    if x.shape != means.shape or y_pred.shape[-2:] != (4 * rows, 4 * columns):
        raise ValueError(
            f"x: expected shape {tuple(means.shape)} for y_pred of {tuple(y_pred.shape)}, "
            f"found {tuple(x.shape)}"
        )
    return functional.l1_loss(means, x)


def ssim(y_pred: Tensor, y_true: Tensor, window: int = 9, *, mask: Tensor | None = None) -> Tensor:
    """Return the mean structural similarity: 1 for equal beds, about 0 for unrelated ones.

    It is the mean of :func:`ssim_map` over the windows that were surveyed completely.

    Parameters
    ----------
    y_pred, y_true
        Beds, (n, 1, h, w) with h and w at least ``window``.
    window
        Cells along a side of the window.
    mask
        Where the bed was surveyed.

    Returns
    -------
    Tensor
        One value.

    Examples
    --------
    >>> bed = torch.rand(1, 1, 36, 36)
    >>> round(ssim(bed, bed).item(), 5)
    1.0
    """
    return 1 - structural_loss(y_pred, y_true, window, mask=mask)


def ssim_map(
    y_pred: Tensor, y_true: Tensor, window: int = 9, *, mask: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Return the structural similarity of every window, and which windows were fully surveyed.

    Means, variances (divided by the count) and covariance are taken over a uniform window moved
    cell by cell; c1 = 0.01^2 and c2 = 0.03^2. They are computed about the tile's own mean, so
    that a bed at -2000 m loses no digits. A window with a gap is left out rather than judged by its
    remaining cells: moments of a few cells along a flight line are not comparable, and those of a
    single cell are meaningless.

    Returns
    -------
    tuple
        The similarities, (n, 1, h - window + 1, w - window + 1), finite everywhere, and a mask of
        the same shape; None without a mask.

    Raises
    ------
    ValueError
        The shapes differ, or the beds are smaller than the window.

    References
    ----------
    Wang et al. (2004), doi 10.1109/TIP.2003.819861.
    """
    y_true, y_pred = fill_gaps(y_true, y_pred, mask), y_pred.to(y_true.dtype)
    if min(y_pred.shape[-2:]) < window:
        raise ValueError(
            f"y_pred: expected at least {window} x {window} cells, found {tuple(y_pred.shape)}"
        )

    def mean(values: Tensor) -> Tensor:
        return functional.avg_pool2d(values, window, stride=1)

    c1, c2 = 0.01**2, 0.03**2
    pred_level = y_pred.detach().mean(dim=(-2, -1), keepdim=True)
    true_level = y_true.detach().mean(dim=(-2, -1), keepdim=True)
    pred, true = y_pred - pred_level, y_true - true_level
    pred_mean, true_mean = mean(pred), mean(true)
    pred_variance = mean(pred * pred) - pred_mean**2
    true_variance = mean(true * true) - true_mean**2
    covariance = mean(pred * true) - pred_mean * true_mean
    pred_mean, true_mean = pred_mean + pred_level, true_mean + true_level
    luminance = (2 * pred_mean * true_mean + c1) / (pred_mean**2 + true_mean**2 + c1)
    structure = (2 * covariance + c2) / (pred_variance + true_variance + c2)
    whole = None
    if mask is not None:
        whole = functional.max_pool2d((~mask).float(), window, stride=1) == 0
    return luminance * structure, whole


def structural_loss(
    y_pred: Tensor, y_true: Tensor, window: int = 9, *, mask: Tensor | None = None
) -> Tensor:
    """Return 1 minus the structural similarity: 0 for equal beds, or if no window is complete.

    Parameters are those of :func:`ssim`.
    """
    similarity, whole = ssim_map(y_pred, y_true, window, mask=mask)
    return mean_of(1 - similarity, whole)


def psnr(
    y_pred: Tensor,
    y_true: Tensor,
    data_range: float = 2.0**32,
    *,
    mask: Tensor | None = None,
) -> Tensor:
    """Return the peak signal-to-noise ratio (dB); the original took 2^32 as the data range.

    Examples
    --------
    >>> round(psnr(torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)).item(), 3)
    192.659
    """
    difference = y_pred.to(y_true.dtype) - fill_gaps(y_true, y_pred, mask)
    square = mean_of(difference.square(), mask)
    return 20 * math.log10(data_range) - 10 * square.log10()


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Return the relativistic average loss: low if surveyed beds outscore the mean generated one.

    Parameters
    ----------
    real_logits, fake_logits
        Logits of the discriminator for surveyed beds (with gaps filled, see :func:`fill_gaps`)
        and for generated beds, (n, 1).

    Returns
    -------
    Tensor
        One value: the binary cross-entropies of (real - mean fake) towards 1 and of
        (fake - mean real) towards 0, added.

    References
    ----------
    Jolicoeur-Martineau (2018), The relativistic discriminator, arXiv 1807.00734.

    Examples
    --------
    >>> logits = torch.zeros(4, 1)
    >>> round(discriminator_loss(logits, logits).item(), 4)
    1.3863
    """
    # softplus(-z) is the binary cross-entropy of the logit z towards 1, safe for any z.
    real_over_fake = real_logits - fake_logits.mean()
    fake_over_real = fake_logits - real_logits.mean()
    return functional.softplus(-real_over_fake).mean() + functional.softplus(fake_over_real).mean()


def adversarial_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Return the generator's loss, low if generated beds score above the mean surveyed one.

    The discriminator's loss with the two sides exchanged.
    """
    return discriminator_loss(real_logits=fake_logits, fake_logits=real_logits)


def generator_loss(
    y_pred: Tensor,
    y_true: Tensor,
    fake_logits: Tensor,
    real_logits: Tensor,
    x: Tensor,
    *,
    mask: Tensor | None = None,
    content_weight: float = CONTENT_WEIGHT,
    adversarial_weight: float = ADVERSARIAL_WEIGHT,
    topographic_weight: float = TOPOGRAPHIC_WEIGHT,
    structural_weight: float = STRUCTURAL_WEIGHT,
) -> Tensor:
    """Return the weighted sum of the content, adversarial, topographic and structural losses.

    Parameters
    ----------
    y_pred, y_true
        Predicted and surveyed bed, (n, 1, 4h, 4w).
    fake_logits, real_logits
        Logits of the discriminator for y_pred and for y_true with its gaps filled, (n, 1).
    x
        The prior, as in :func:`topographic_loss`.
    mask
        Where the bed was surveyed.
    content_weight, adversarial_weight, topographic_weight, structural_weight
        The weights; the defaults are the published ones.

    Returns
    -------
    Tensor
        One value.
    """
    return (
        content_weight * content_loss(y_pred, y_true, mask=mask)
        + adversarial_weight * adversarial_loss(real_logits, fake_logits)
        + topographic_weight * topographic_loss(y_pred, x)
        + structural_weight * structural_loss(y_pred, y_true, mask=mask)
    )


def mean_of(values: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of the values that count; 0 where none does."""
    total, count = masked_mean(values, mask)
    return total / count.clamp_min(1)


def _check_same_shape(y_pred: Tensor, y_true: Tensor) -> None:
    if y_pred.shape != y_true.shape:
        raise ValueError(
            f"y_true: expected shape {tuple(y_pred.shape)} as y_pred, found {tuple(y_true.shape)}"
        )
