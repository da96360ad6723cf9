"""The shortest wavelength that a bed resolves, and the correlation length of its errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from deepbedmap.errors import InvalidDataError
from deepbedmap.evaluation.spectral import COHERENCE, WINDOW, spectra
from deepbedmap.evaluation.variograms import variogram_along
from deepbedmap.points.picks import LINE_GAP

if TYPE_CHECKING:
    from typing import Any

    import pandas as pd


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
    >>> import numpy as np
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
