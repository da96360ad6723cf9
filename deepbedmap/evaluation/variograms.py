"""Variograms of bed errors along flight lines, and models fitted to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from deepbedmap.errors import Fault, InvalidDataError, WrongCallError
from deepbedmap.evaluation.spectral import SPACING
from deepbedmap.extras import required_extra
from deepbedmap.points.picks import LINE_GAP
from deepbedmap.points.tracks import even_samples

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd

    from deepbedmap.points.tracks import Floats

Model = Literal["exponential", "spherical"]
LONGEST = 25_000.0
"""Longest lag of a variogram, metres."""


class VariogramModel(NamedTuple):
    """A model fitted to a variogram.

    Attributes
    ----------
    model
        ``"exponential"``: ``nugget + (sill - nugget) (1 - exp(-3 h / range))``, which
        reaches 95 % of the rise to the sill at the range; or ``"spherical"``:
        ``nugget + (sill - nugget) (1.5 h / range - 0.5 (h / range)**3)``, and the sill beyond.
    nugget, sill
        Semivariance (m**2) at the shortest and at long lags; the sill includes the nugget.
    range
        Metres. If it is the longest lag or more, the variogram reaches no sill.
    """

    model: Model
    nugget: float
    sill: float
    range: float

    def at(self, lag: npt.ArrayLike) -> Floats:
        """Return the semivariance (m**2) at lags (m)."""
        curve = _curve(self.model, np.asarray(lag, np.float64) / self.range)
        return self.nugget + (self.sill - self.nugget) * curve


@dataclass(frozen=True, eq=False)
class Variogram:
    """Semivariance by distance: half the mean squared difference of values that distance apart.

    Matheron's estimator (Matheron 1963, doi 10.2113/gsecongeo.58.8.1246).

    Attributes
    ----------
    lag
        float64 (n,): mean distance of the pairs, metres.
    semivariance
        float64 (n,): m**2.
    pairs
        int64 (n,): number of pairs at each lag, one or more.
    """

    lag: Floats
    semivariance: Floats
    pairs: npt.NDArray[np.int64]

    def fit(self, model: Model = "exponential") -> VariogramModel:
        """Fit a model by least squares, each lag weighted by its pairs.

        Raises
        ------
        ValueError
            The model is unknown.
        InvalidDataError
            There are fewer than 4 lags.
        """
        with required_extra("grid"):
            from scipy import optimize

        if model not in ("exponential", "spherical"):
            raise WrongCallError(f"model: expected exponential or spherical, found {model!r}")
        if self.lag.size < 4:
            raise InvalidDataError(
                Fault(
                    "variogram",
                    expected="pairs at 4 lags or more",
                    found=f"at {self.lag.size}",
                    remedy="choose shorter lags or more picks",
                )
            )
        longest, most = float(self.lag[-1]), float(self.semivariance.max()) or 1.0
        weight: Floats = np.sqrt(self.pairs / self.pairs.sum())

        def misfit(parameters: Floats) -> Floats:
            nugget, rise, length = parameters
            fitted = nugget + rise * _curve(model, self.lag / longest / length)
            residual: Floats = weight * (fitted - self.semivariance / most)
            return residual

        # In units of the longest lag and the highest semivariance all parameters are near 1.
        bounds = ([0, 0, self.lag[0] / longest / 10], [2, 4, 4])
        fit = optimize.least_squares(misfit, (0.1, 0.9, 0.5), bounds=bounds)
        nugget, rise, length = (float(value) for value in fit.x)
        return VariogramModel(model, nugget * most, (nugget + rise) * most, length * longest)


def _curve(model: Model, share: Floats) -> Floats:
    """Return the share of the rise to the sill, at distances in shares of the range."""
    if model == "exponential":
        return 1 - np.exp(-3 * share)
    within = np.minimum(share, 1)
    return 1.5 * within - 0.5 * within**3


def variogram_along(
    picks: pd.DataFrame,
    *,
    spacing: float = SPACING,
    longest: float = LONGEST,
    max_gap: float = LINE_GAP,
) -> Variogram:
    """Return the variogram of a grid's errors along flight lines.

    It uses all pairs of even samples of a line between two gaps, at multiples of ``spacing``. Picks
    are averaged within the spacing, so that the nugget is the nugget of these means.

    Parameters
    ----------
    picks
        Columns ``x``, ``y``, ``line``, ``z`` and ``grid`` (metres), as
        :func:`deepbedmap.points.tracks.tracks` takes them.
    spacing, max_gap
        Distance between samples, and longest gap that is interpolated across, metres.
    longest
        Longest lag, metres.

    Raises
    ------
    ValueError
        A length is not positive, or the longest lag is shorter than the spacing.
    InvalidDataError
        As for :func:`deepbedmap.points.tracks.tracks`; or no two picks are within the longest lag.
    """
    if not longest >= spacing > 0:
        raise WrongCallError(f"the longest lag, {longest:g} m, is shorter than {spacing:g} m")
    lags = int(longest / spacing)
    squares, pairs = np.zeros(lags), np.zeros(lags, np.int64)
    for part in even_samples(picks, ("z", "grid"), spacing, max_gap):
        residual = part.series[1] - part.series[0]
        run = np.repeat(np.arange(part.first.size), part.sizes)
        for lag in range(1, min(lags, int(part.sizes.max()) - 1) + 1):
            difference = (residual[lag:] - residual[:-lag])[run[lag:] == run[:-lag]]
            squares[lag - 1] += difference @ difference
            pairs[lag - 1] += difference.size
    return _variogram(spacing * np.arange(1.0, lags + 1), squares, pairs)


def _variogram(lag: Floats, squares: Floats, pairs: npt.NDArray[np.int64]) -> Variogram:
    populated = pairs > 0
    if not populated.any():
        raise InvalidDataError(
            Fault(
                "picks",
                expected="two picks within the longest lag",
                found="none",
                remedy="allow longer lags or gaps",
            )
        )
    return Variogram(lag[populated], squares[populated] / (2 * pairs[populated]), pairs[populated])
