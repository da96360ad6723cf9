"""Variograms of bed errors, along flight lines or in all directions, and models fitted to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from deepbedmap.errors import Fault, InvalidDataError, WrongCallError
from deepbedmap.evaluation.spectral import SPACING
from deepbedmap.extras import required_extra
from deepbedmap.points.picks import LINE_GAP
from deepbedmap.points.tracks import even_samples, tracks

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd

    from deepbedmap.evaluation.spectral import Floats

Model = Literal["exponential", "spherical"]
LONGEST = 25_000.0
"""Metres of the longest lag of a variogram."""


class VariogramModel(NamedTuple):
    """A curve through a variogram.

    Attributes
    ----------
    model
        ``"exponential"``: ``nugget + (sill - nugget) (1 - exp(-3 h / range))``, which at the range
        has 95 % of its way to the sill; or ``"spherical"``:
        ``nugget + (sill - nugget) (1.5 h / range - 0.5 (h / range)**3)``, the sill from there on.
    nugget, sill
        Semivariance (m**2) at the shortest and at long lags; the sill includes the nugget.
    range
        Metres. At or beyond the longest lag there is no sill within the lags.
    """

    model: Model
    nugget: float
    sill: float
    range: float

    def at(self, lag: npt.ArrayLike) -> Floats:
        """Semivariance (m**2) at lags (m)."""
        curve = _curve(self.model, np.asarray(lag, np.float64) / self.range)
        return self.nugget + (self.sill - self.nugget) * curve


@dataclass(frozen=True, eq=False)
class Variogram:
    """Semivariance by distance: half the mean squared difference of two values so far apart.

    Matheron's estimator (Matheron 1963, doi 10.2113/gsecongeo.58.8.1246).

    Attributes
    ----------
    lag
        float64 (n,): mean distance of the pairs, metres.
    semivariance
        float64 (n,): m**2.
    pairs
        int64 (n,): pairs of each lag, one or more.
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
            raise WrongCallError(f"a model is exponential or spherical, not {model!r}")
        if self.lag.size < 4:
            raise InvalidDataError(
                Fault(
                    "variogram",
                    expected="pairs at 4 lags or more",
                    found=f"at {self.lag.size}",
                    remedy="take shorter lags or more picks",
                )
            )
        longest, most = float(self.lag[-1]), float(self.semivariance.max()) or 1.0
        weight: Floats = np.sqrt(self.pairs / self.pairs.sum())

        def misfit(parameters: Floats) -> Floats:
            nugget, rise, length = parameters
            fitted = nugget + rise * _curve(model, self.lag / longest / length)
            off: Floats = weight * (fitted - self.semivariance / most)
            return off

        bounds = ([0, 0, self.lag[0] / longest / 10], [2, 4, 4])
        found = optimize.least_squares(misfit, (0.1, 0.9, 0.5), bounds=bounds)
        nugget, rise, length = (float(value) for value in found.x)
        return VariogramModel(model, nugget * most, (nugget + rise) * most, length * longest)


def _curve(model: Model, share: Floats) -> Floats:
    """Way to the sill at distances in shares of the range."""
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
    """Variogram, along lines, of what a grid is off.

    All pairs of even samples of a line between two gaps, at lags of whole ``spacing``. Picks are
    averaged within the spacing, so that the nugget is that of such means.

    Parameters
    ----------
    picks
        Columns ``x``, ``y``, ``line``, ``z`` and ``grid`` (metres), as
        :func:`deepbedmap.points.tracks.tracks` takes them.
    spacing, max_gap
        As :func:`spectra` takes them.
    longest
        Longest lag, metres.

    Raises
    ------
    ValueError
        A length is not positive, or the longest lag shorter than the spacing.
    InvalidDataError
        As :func:`deepbedmap.points.tracks.tracks`; or all picks stand alone.
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


def variogram_around(
    picks: pd.DataFrame,
    *,
    spacing: float = SPACING,
    longest: float = LONGEST,
    draws: int = 500_000,
    seed: int = 0,
) -> Variogram:
    """Variogram, in all directions, of what a grid is off.

    Pairs are drawn: a random pick, a place at a random distance and azimuth from it, and the pick
    nearest to that place, if there is one within half of ``spacing``. So long lags do not outnumber
    short ones, nor the directions of the lines the others as much as among all pairs.

    Parameters
    ----------
    picks
        Columns ``x``, ``y``, ``line``, ``z`` and ``grid`` (metres), as
        :func:`deepbedmap.points.tracks.tracks` takes them.
    spacing, longest
        Width of a class and longest distance, metres.
    draws
        Pairs that are tried: the most that there are.
    seed
        Of the draw.

    Raises
    ------
    ValueError
        A length is not positive, or the longest shorter than the spacing.
    InvalidDataError
        As :func:`deepbedmap.points.tracks.tracks`; or all picks stand alone.
    """
    with required_extra("grid"):
        from scipy.spatial import cKDTree

    if not longest >= spacing > 0:
        raise WrongCallError(f"the longest lag, {longest:g} m, is shorter than {spacing:g} m")
    row = tracks(picks, ("z", "grid")).row
    places = picks[["x", "y"]].to_numpy(np.float64)[row]
    residual = (picks["grid"] - picks["z"]).to_numpy(np.float64)[row]
    random = np.random.default_rng(seed)
    lags = int(longest / spacing)
    origin = random.integers(row.size, size=draws)
    azimuth, away = random.uniform(0, 2 * np.pi, draws), random.uniform(0, lags * spacing, draws)
    place = places[origin] + away[:, None] * np.stack([np.sin(azimuth), np.cos(azimuth)], axis=1)
    _, nearest = cKDTree(places).query(place, distance_upper_bound=spacing / 2)
    met = nearest < row.size
    origin, nearest = origin[met], nearest[met]
    distance = np.hypot(*(places[nearest] - places[origin]).T)
    within = (nearest != origin) & (distance < lags * spacing)
    distance = distance[within]
    squares = (residual[nearest] - residual[origin])[within] ** 2
    of_lag = (distance / spacing).astype(np.intp)
    pairs = np.bincount(of_lag, minlength=lags)
    lag = np.bincount(of_lag, distance, lags) / np.maximum(pairs, 1)
    total = np.bincount(of_lag, squares, lags).astype(np.float64)
    return _variogram(lag, total, pairs)


def _variogram(lag: Floats, squares: Floats, pairs: npt.NDArray[np.int64]) -> Variogram:
    known = pairs > 0
    if not known.any():
        raise InvalidDataError(
            Fault(
                "picks",
                expected="two picks within the longest lag",
                found="none",
                remedy="allow longer lags or gaps",
            )
        )
    return Variogram(lag[known], squares[known] / (2 * pairs[known]), pairs[known])
