"""Power spectra and coherence of a bed and of picks along flight lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from deepbedmap.errors import Fault, InvalidDataError, WrongCallError
from deepbedmap.extras import required_extra
from deepbedmap.points.picks import LINE_GAP
from deepbedmap.points.tracks import even_samples

if TYPE_CHECKING:
    import pandas as pd

Floats = npt.NDArray[np.float64]
SPACING = 250.0
"""Metres between samples along a line: the cell of the beds that are scored."""

WINDOW = 25_000.0
"""Metres along a line of a window of the spectra: the longest wavelength that they tell of."""

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
        """Metres, the longest first."""
        return 1 / self.wavenumber

    def significance(self, confidence: float = 0.95) -> float:
        """Coherence that chance exceeds with a probability of ``1 - confidence``.

        Of two series that have nothing to do with each other, at one wavenumber:
        ``1 - (1 - confidence)**(1 / (n - 1))`` for n independent windows (Carter, Knapp & Nuttall
        1973, doi 10.1109/TAU.1973.1162496). One where there is a single window.
        """
        if not 0 < confidence < 1:
            raise WrongCallError(f"a confidence is between 0 and 1, and not {confidence}")
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
            raise WrongCallError(
                f"a threshold of coherence is between 0 and 1, and not {threshold}"
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
    """Power spectra and coherence of picks and of a grid sampled there.

    Each line is cut at its gaps and sampled evenly, as
    :func:`deepbedmap.points.tracks.even_samples` says; averaging the picks within ``spacing`` takes
    power off wavelengths shorter than about 4 times that, of picks and grid alike. The samples are
    cut into windows that overlap by half; of each a straight line is subtracted, and a Hann window
    laid over the rest (Welch 1967, doi 10.1109/TAU.1967.1161901). Spectra are means over all
    windows of all lines, every window with the same weight.

    Parameters
    ----------
    picks
        Columns ``x``, ``y``, ``line``, ``z`` and ``grid`` (metres), as
        :func:`deepbedmap.points.tracks.tracks` takes them. Where either elevation is NaN there is
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
        As :func:`deepbedmap.points.tracks.tracks`; or no line has a window without a gap.

    Examples
    --------
    >>> import pandas as pd
    >>> x = 250.0 * np.arange(1000)
    >>> truth = np.random.default_rng(0).normal(0, 10, 1000)
    >>> found = spectra(pd.DataFrame({"x": x, "y": 0.0, "line": "a", "z": truth, "grid": truth}))
    >>> found.windows, round(found.significance(), 2), found.resolved_wavelength()
    (19, 0.16, 500.0)
    """
    with required_extra("grid"):
        from scipy import signal

    if not (spacing > 0 and window / spacing >= 8):
        raise WrongCallError(
            f"a window has 8 samples or more, and not {window:g} m / {spacing:g} m"
        )
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
