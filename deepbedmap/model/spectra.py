"""Which wavelengths of a bed a grid holds: spectra and coherence along flight lines, variograms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from deepbedmap.errors import Fault, InvalidDataError
from deepbedmap.model.tracks import even_samples, tracks
from deepbedmap.picks import LINE_GAP

if TYPE_CHECKING:
    import pandas as pd

Values = npt.NDArray[np.float64]
Model = Literal["exponential", "spherical"]

SPACING = 250.0
"""Metres between samples along a line: the cell of the beds that are scored."""

WINDOW = 25_000.0
"""Metres along a line of a window of the spectra: the longest wavelength that they tell of."""

LONGEST = 25_000.0
"""Metres of the longest lag of a variogram."""

COHERENCE = 0.5
"""Coherence of grid and picks below which a grid holds nothing of the bed."""

# Share of the most power at any wavelength below which there is none but that of rounding.
_ROUNDING = 1e-20


@dataclass(frozen=True, eq=False)
class Spectra:
    """Spectra of a bed along lines, of a grid's there, and how coherent the two are.

    Attributes
    ----------
    wavenumber
        float64 (n,): cycles per metre, from 1 / window to half the samples'.
    truth, grid, residual
        float64 (n,): power spectral density of the picks, of the grid and of grid minus picks,
        one-sided, m**2 per (cycle per metre). Its integral is the variance.
    coherence
        float64 (n,): magnitude-squared coherence of grid and picks, 0 to 1.
    windows
        Windows that were averaged, half of each shared with the next.
    independent
        Windows without any overlap that would give estimates of the same variance.
    lines, skipped
        Lines that have a window, and lines whose picks make none: too few, or too many gaps.
    """

    wavenumber: Values
    truth: Values
    grid: Values
    residual: Values
    coherence: Values
    windows: int
    independent: float
    lines: int
    skipped: int

    @property
    def wavelength(self) -> Values:
        """Metres, the longest first."""
        return 1 / self.wavenumber

    def significance(self, confidence: float = 0.95) -> float:
        """Coherence that chance exceeds with a probability of ``1 - confidence``.

        Of two series that have nothing to do with each other, at one wavenumber:
        ``1 - (1 - confidence)**(1 / (n - 1))`` for n independent windows (Carter, Knapp & Nuttall
        1973, doi 10.1109/TAU.1973.1162496). One where there is a single window.
        """
        if not 0 < confidence < 1:
            raise ValueError(f"a confidence is between 0 and 1, and not {confidence}")
        if self.independent <= 1:
            return 1.0
        return float(1 - (1 - confidence) ** (1 / (self.independent - 1)))

    def resolved_wavelength(self, threshold: float = COHERENCE) -> float | None:
        """Wavelength below which the grid holds nothing of the truth.

        Coming from the longest wavelength, where the coherence first falls under the threshold, or
        under :meth:`significance` if that is higher; linear in wavenumber between two estimates.

        Parameters
        ----------
        threshold
            Of the coherence, between 0 and 1.

        Returns
        -------
        float or None
            Metres. The shortest wavelength where the coherence holds to the end: the grid resolves
            that or less. None where the longest is incoherent already.
        """
        if not 0 < threshold < 1:
            raise ValueError(f"a threshold of coherence is between 0 and 1, and not {threshold}")
        above = self.coherence - max(threshold, self.significance())
        below = np.flatnonzero(above <= 0)
        if below.size == 0:
            return float(self.wavelength[-1])
        last = below[0]
        if last == 0:
            return None
        share = above[last - 1] / (above[last - 1] - above[last])
        step = self.wavenumber[last] - self.wavenumber[last - 1]
        return float(1 / (self.wavenumber[last - 1] + share * step))


def spectra(
    picks: pd.DataFrame,
    *,
    spacing: float = SPACING,
    window: float = WINDOW,
    max_gap: float = LINE_GAP,
) -> Spectra:
    """Power spectra and coherence of picks and of a grid sampled there.

    Each line is cut at its gaps and sampled evenly, as
    :func:`deepbedmap.model.tracks.even_samples` says; averaging the picks within ``spacing`` takes
    power off wavelengths shorter than about 4 times that, of picks and grid alike. The samples are
    cut into windows that overlap by half; of each a straight line is subtracted, and a Hann window
    laid over the rest (Welch 1967, doi 10.1109/TAU.1967.1161901). Spectra are means over all
    windows of all lines, every window with the same weight.

    Parameters
    ----------
    picks
        Columns ``x``, ``y``, ``line``, ``z`` and ``grid`` (metres), as
        :func:`deepbedmap.model.tracks.tracks` takes them. Where either elevation is NaN there is
        no pick.
    spacing
        Metres between samples.
    window
        Metres; rounded to an even number of samples, 8 or more.
    max_gap
        Longest distance (m) between consecutive picks that is interpolated across.

    Raises
    ------
    ValueError
        A length is not positive, or the window has fewer than 8 samples.
    InvalidDataError
        As :func:`deepbedmap.model.tracks.tracks`; or no line has a window without a gap.

    Examples
    --------
    >>> import pandas as pd
    >>> x = 250.0 * np.arange(1000)
    >>> truth = np.random.default_rng(0).normal(0, 10, 1000)
    >>> found = spectra(pd.DataFrame({"x": x, "y": 0.0, "line": "a", "z": truth, "grid": truth}))
    >>> found.windows, round(found.significance(), 2), found.resolved_wavelength()
    (19, 0.16, 500.0)
    """
    from scipy import signal

    if not (spacing > 0 and window / spacing >= 8):
        raise ValueError(f"a window has 8 samples or more, and not {window:g} m / {spacing:g} m")
    samples = 2 * round(window / spacing / 2)
    hop = samples // 2
    taper = signal.get_window("hann", samples)
    windows, independent, longest = 0, 0.0, 0
    seen, used = set[int](), set[int]()
    total = np.zeros((4, hop), complex)
    for part in even_samples(picks, ("z", "grid"), spacing, max_gap):
        seen.update(part.line.tolist())
        longest = max(longest, int(part.sizes.max()))
        whole = part.sizes >= samples
        if not whole.any():
            continue
        used.update(part.line[whole].tolist())
        count = (part.sizes[whole] - samples) // hop + 1
        step = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        begin = np.repeat(part.first[whole], count) + hop * step
        cut = np.lib.stride_tricks.sliding_window_view(part.series, samples, axis=1)[:, begin]
        # scipy.signal.csd would fit its lines window by window, a hundred times slower.
        truth, grid = np.fft.rfft(signal.detrend(cut) * taper)[..., 1:]
        for row, (one, other) in zip(
            total,
            ((truth, truth), (grid, grid), (grid - truth, grid - truth), (truth, grid)),
            strict=True,
        ):
            row += (one.conj() * other).sum(axis=0)
        windows += int(count.sum())
        # Hann windows that share a half correlate by 1/6 (Welch 1967).
        independent += float((count / (1 + 2 * (1 / 6) ** 2 * (count - 1) / count)).sum())
    if windows == 0:
        raise InvalidDataError(
            Fault(
                "picks",
                expected=f"a line of {window / 1000:g} km without a gap of over {max_gap:g} m",
                found=f"{longest * spacing / 1000:g} km at most in {len(seen)} lines",
                remedy="take a shorter window, or picks that are closer",
            )
        )
    total *= 2 * spacing / (taper**2).sum() / windows  # one-sided,
    total[:, -1] /= 2  # but for the shortest, which is its own mirror image
    truth, grid, residual = total[:3].real
    held = np.minimum(truth, grid) > _ROUNDING * max(truth.max(), grid.max())
    coherence = np.zeros(hop)
    coherence[held] = np.abs(total[3])[held] ** 2 / (truth * grid)[held]
    coherence = np.minimum(coherence, 1)
    wavenumber = np.arange(1, hop + 1) / (samples * spacing)
    return Spectra(
        wavenumber=wavenumber,
        truth=truth,
        grid=grid,
        residual=residual,
        coherence=coherence,
        windows=windows,
        independent=independent,
        lines=len(used),
        skipped=len(seen - used),
    )


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

    def at(self, lag: npt.ArrayLike) -> Values:
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

    lag: Values
    semivariance: Values
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
        from scipy import optimize

        if model not in ("exponential", "spherical"):
            raise ValueError(f"a model is exponential or spherical, not {model!r}")
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
        weight: Values = np.sqrt(self.pairs / self.pairs.sum())

        def misfit(parameters: Values) -> Values:
            nugget, rise, length = parameters
            fitted = nugget + rise * _curve(model, self.lag / longest / length)
            off: Values = weight * (fitted - self.semivariance / most)
            return off

        bounds = ([0, 0, self.lag[0] / longest / 10], [2, 4, 4])
        found = optimize.least_squares(misfit, (0.1, 0.9, 0.5), bounds=bounds)
        nugget, rise, length = (float(value) for value in found.x)
        return VariogramModel(model, nugget * most, (nugget + rise) * most, length * longest)


def _curve(model: Model, share: Values) -> Values:
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
        :func:`deepbedmap.model.tracks.tracks` takes them.
    spacing, max_gap
        As :func:`spectra` takes them.
    longest
        Longest lag, metres.

    Raises
    ------
    ValueError
        A length is not positive, or the longest lag shorter than the spacing.
    InvalidDataError
        As :func:`deepbedmap.model.tracks.tracks`; or all picks stand alone.
    """
    if not longest >= spacing > 0:
        raise ValueError(f"the longest lag, {longest:g} m, is shorter than {spacing:g} m")
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


@dataclass(frozen=True)
class Resolution:
    """What a grid holds of a bed along lines, in a few numbers.

    Attributes
    ----------
    resolved_wavelength
        Metres: see :meth:`Spectra.resolved_wavelength`. Where it is twice the spacing of the
        samples, the grid resolves that or less.
    threshold
        Of the coherence below which nothing is resolved: that asked for, or ``significance``
        where that is more.
    significance
        Coherence that chance exceeds once in twenty times.
    windows
        Of the spectra.
    nugget, sill, range
        Of an exponential :class:`VariogramModel` of grid minus picks: m**2, m**2 and metres.
    remark
        Why some of these are None, where they are.
    """

    resolved_wavelength: float | None = None
    threshold: float | None = None
    significance: float | None = None
    windows: int = 0
    nugget: float | None = None
    sill: float | None = None
    range: float | None = None
    remark: str | None = None


def resolution(picks: pd.DataFrame, threshold: float = COHERENCE) -> Resolution:
    """Tell what a grid holds of picks, and over what distance its errors are alike.

    By :func:`spectra` and :func:`variogram_along`; nothing is raised where picks have too few or
    too short lines, but said.

    Parameters
    ----------
    picks
        As these take them.
    threshold
        As :meth:`Spectra.resolved_wavelength` takes it.

    Examples
    --------
    >>> import pandas as pd
    >>> x = 250.0 * np.arange(1000)
    >>> truth = np.random.default_rng(0).normal(0, 10, 1000)
    >>> picks = pd.DataFrame({"x": x, "y": 0.0, "line": "a", "z": truth, "grid": 0 * truth})
    >>> found = resolution(picks)
    >>> found.resolved_wavelength, found.remark
    (None, 'nothing of the picks is resolved up to 25 km')
    """
    remarks = []
    told: dict[str, Any] = {}
    try:
        found = spectra(picks)
        told["significance"] = found.significance()
        told["threshold"] = max(threshold, found.significance())
        told["windows"] = found.windows
        told["resolved_wavelength"] = found.resolved_wavelength(threshold)
        if told["resolved_wavelength"] is None:
            remarks.append(f"nothing of the picks is resolved up to {WINDOW / 1000:g} km")
    except InvalidDataError:
        remarks.append(f"no line of {WINDOW / 1000:g} km without a gap of over {LINE_GAP:g} m")
    try:
        variogram = variogram_along(picks)
        curve = variogram.fit()
        if curve.range < variogram.lag[-1]:
            told |= {name: getattr(curve, name) for name in ("nugget", "sill", "range")}
        else:
            remarks.append(
                f"no sill of the errors' variogram up to {variogram.lag[-1] / 1000:g} km"
            )
    except InvalidDataError:
        remarks.append("too few picks along a line for a variogram")
    return Resolution(**told, remark="; ".join(remarks) or None)


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
        :func:`deepbedmap.model.tracks.tracks` takes them.
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
        As :func:`deepbedmap.model.tracks.tracks`; or all picks stand alone.
    """
    from scipy.spatial import cKDTree

    if not longest >= spacing > 0:
        raise ValueError(f"the longest lag, {longest:g} m, is shorter than {spacing:g} m")
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


def _variogram(lag: Values, squares: Values, pairs: npt.NDArray[np.int64]) -> Variogram:
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
