"""Power spectra and coherence of a bed and of picks along flight lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deepbedmap.errors import Fault, InvalidDataError, WrongCallError
from deepbedmap.extras import required_extra
from deepbedmap.points.picks import LINE_GAP
from deepbedmap.points.tracks import even_samples

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd

    from deepbedmap.points.tracks import Floats

SPACING = 250.0
"""Metres between samples along a line: the cell size of the scored beds."""

WINDOW = 25_000.0
"""Length (m) of a window of the spectra along a line: their longest wavelength."""

COHERENCE = 0.5
"""Coherence of grid and picks below which a grid does not resolve the bed."""

# Share of the highest power at any wavelength below which power is only rounding.
_ROUNDING = 1e-20


@dataclass(frozen=True, eq=False)
class Spectra:
    """Spectra of picks and of a grid along lines, and the coherence of the two.

    Attributes
    ----------
    wavenumber
        float64 (n,): cycles per metre, from 1 / window to half the sampling wavenumber.
    truth, grid, residual
        float64 (n,): power spectral density of the picks, of the grid and of grid minus picks,
        one-sided, m**2 per (cycle per metre). Its integral is the variance.
    coherence
        float64 (n,): magnitude-squared coherence of grid and picks, 0 to 1.
    windows
        Number of averaged windows, which overlap by half.
    independent
        Number of windows without overlap that would give estimates of the same variance.
    lines, skipped
        Number of lines with a window, and of lines without: too few picks, or too many gaps.
    """

    wavenumber: Floats
    truth: Floats
    grid: Floats
    residual: Floats
    coherence: Floats
    windows: int
    independent: float
    lines: int
    skipped: int

    @property
    def wavelength(self) -> Floats:
        """Wavelengths (n,) in metres, the longest first."""
        return 1 / self.wavenumber

    def significance(self, confidence: float = 0.95) -> float:
        """Return the coherence that chance exceeds with a probability of ``1 - confidence``.

        For two unrelated series, at one wavenumber:
        ``1 - (1 - confidence)**(1 / (n - 1))`` for n independent windows (Carter, Knapp & Nuttall
        1973, doi 10.1109/TAU.1973.1162496). 1 for a single window.
        """
        if not 0 < confidence < 1:
            raise WrongCallError(f"confidence: expected between 0 and 1, found {confidence}")
        if self.independent <= 1:
            return 1.0
        return float(1 - (1 - confidence) ** (1 / (self.independent - 1)))

    def resolved_wavelength(self, threshold: float = COHERENCE) -> float | None:
        """Return the shortest wavelength that the grid resolves.

        From the longest wavelength down, where the coherence first falls below the threshold, or
        below :meth:`significance` if that is higher; linear in wavenumber between two estimates.

        Parameters
        ----------
        threshold
            Coherence below which nothing is resolved, between 0 and 1.

        Returns
        -------
        float or None
            Metres. The shortest wavelength of the spectra if the coherence never falls below the
            threshold: an upper limit. None if even the longest wavelength is incoherent.
        """
        if not 0 < threshold < 1:
            raise WrongCallError(
                f"threshold: expected a coherence between 0 and 1, found {threshold}"
            )
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
    """Return power spectra and coherence of picks and of a grid sampled at the picks.

    Each line is cut at its gaps and sampled evenly by
    :func:`deepbedmap.points.tracks.even_samples`; averaging the picks within ``spacing`` removes
    power at wavelengths shorter than about 4 times that, of picks and grid alike. The samples are
    cut into windows that overlap by half; each is detrended linearly and multiplied by a Hann
    window (Welch 1967, doi 10.1109/TAU.1967.1161901). Spectra are means over all windows of all
    lines, every window with the same weight.

    Parameters
    ----------
    picks
        Columns ``x``, ``y``, ``line``, ``z`` and ``grid`` (metres), as
        :func:`deepbedmap.points.tracks.tracks` takes them. Picks where either elevation is NaN are
        ignored.
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
        As for :func:`deepbedmap.points.tracks.tracks`; or no line has a window without a gap.

    Examples
    --------
    >>> import pandas as pd
    >>> x = 250.0 * np.arange(1000)
    >>> truth = np.random.default_rng(0).normal(0, 10, 1000)
    >>> along = spectra(pd.DataFrame({"x": x, "y": 0.0, "line": "a", "z": truth, "grid": truth}))
    >>> along.windows, round(along.significance(), 2), along.resolved_wavelength()
    (19, 0.16, 500.0)
    """
    with required_extra("grid"):
        from scipy import signal

    if not (spacing > 0 and window / spacing >= 8):
        raise WrongCallError(
            f"window: expected 8 samples or more, found {window:g} m / {spacing:g} m"
        )
    samples = 2 * round(window / spacing / 2)
    hop = samples // 2
    taper = signal.get_window("hann", samples)
    windows, independent, longest = 0, 0.0, 0
    lines, used = set[int](), set[int]()
    total = np.zeros((4, hop), complex)
    for part in even_samples(picks, ("z", "grid"), spacing, max_gap):
        lines.update(part.line.tolist())
        longest = max(longest, int(part.sizes.max()))
        whole = part.sizes >= samples
        if not whole.any():
            continue
        used.update(part.line[whole].tolist())
        count = (part.sizes[whole] - samples) // hop + 1
        total += _power(part.series, part.first[whole], count, taper)
        windows += int(count.sum())
        # Hann windows that share a half correlate by 1/6 (Welch 1967).
        independent += float((count / (1 + 2 * (1 / 6) ** 2 * (count - 1) / count)).sum())
    if windows == 0:
        raise InvalidDataError(
            Fault(
                "picks",
                expected=f"a line of {window / 1000:g} km without a gap longer than {max_gap:g} m",
                found=f"{longest * spacing / 1000:g} km at most in {len(lines)} lines",
                remedy="choose a shorter window, or denser picks",
            )
        )
    total *= 2 * spacing / (taper**2).sum() / windows  # one-sided,
    total[:, -1] /= 2  # except for the shortest wavelength, which is its own mirror image
    truth, grid, residual = total[:3].real
    return Spectra(
        wavenumber=np.arange(1, hop + 1) / (samples * spacing),
        truth=truth,
        grid=grid,
        residual=residual,
        coherence=_coherence(truth, grid, total[3]),
        windows=windows,
        independent=independent,
        lines=len(used),
        skipped=len(lines - used),
    )


def _power(
    series: Floats, first: npt.NDArray[np.intp], count: npt.NDArray[np.intp], taper: Floats
) -> npt.NDArray[np.complex128]:
    """Return the sums of periodograms over the windows of some runs of even samples.

    Parameters
    ----------
    series
        (2, samples) metres: picks and grid.
    first, count
        (k,) the first sample of each run, and the number of its windows.
    taper
        (n,) the window function.

    Returns
    -------
    numpy.ndarray
        complex128 (4, n / 2): picks, grid, grid minus picks, and their cross spectrum.
    """
    from scipy import signal

    hop = taper.size // 2
    step = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    begin = np.repeat(first, count) + hop * step
    cut = np.lib.stride_tricks.sliding_window_view(series, taper.size, axis=1)[:, begin]
    # scipy.signal.csd would fit its lines window by window, a hundred times slower.
    truth, grid = np.fft.rfft(signal.detrend(cut) * taper)[..., 1:]
    pairs = ((truth, truth), (grid, grid), (grid - truth, grid - truth), (truth, grid))
    return np.stack([(one.conj() * other).sum(axis=0) for one, other in pairs])


def _coherence(truth: Floats, grid: Floats, cross: npt.NDArray[np.complex128]) -> Floats:
    """Return the magnitude-squared coherence (n,); 0 where one has no power except rounding."""
    powered = np.minimum(truth, grid) > _ROUNDING * max(truth.max(), grid.max())
    coherence = np.zeros(truth.size)
    coherence[powered] = np.abs(cross)[powered] ** 2 / (truth * grid)[powered]
    return np.minimum(coherence, 1)
