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
    """The wavelengths that a grid resolves along lines, and the correlation length of its errors.

    Attributes
    ----------
    resolved_wavelength
        Shortest wavelength that the bed resolves, metres: see :meth:`Spectra.resolved_wavelength`.
        A value of twice the spacing of the samples is an upper limit.
    threshold
        Coherence below which nothing is resolved: the requested threshold, or ``significance`` if
        that is higher.
    significance
        Coherence that unrelated series exceed by chance once in twenty times.
    windows
        Number of windows of the spectra.
    nugget, sill, range
        Parameters of an exponential :class:`VariogramModel` of grid minus picks: m**2, m**2 and
        metres.
    remark
        Why some of these are None; None if all have a value.
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
    """Return the shortest wavelength that a bed resolves, and the correlation length of its errors.

    Computed by :func:`spectra` and :func:`variogram_along`. Picks with too few or too short lines
    raise no error: the remark gives the reason.

    Parameters
    ----------
    picks
        Columns ``x``, ``y``, ``line``, ``z`` and ``grid`` (metres).
    threshold
        Coherence below which nothing is resolved, between 0 and 1.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> x = 250.0 * np.arange(1000)
    >>> truth = np.random.default_rng(0).normal(0, 10, 1000)
    >>> picks = pd.DataFrame({"x": x, "y": 0.0, "line": "a", "z": truth, "grid": 0 * truth})
    >>> resolved = resolution(picks)
    >>> resolved.resolved_wavelength, resolved.remark
    (None, 'the bed resolves no wavelength up to 25 km')
    """
    remarks = []
    numbers: dict[str, Any] = {}
    try:
        along = spectra(picks)
        numbers["significance"] = along.significance()
        numbers["threshold"] = max(threshold, along.significance())
        numbers["windows"] = along.windows
        numbers["resolved_wavelength"] = along.resolved_wavelength(threshold)
        if numbers["resolved_wavelength"] is None:
            remarks.append(f"the bed resolves no wavelength up to {WINDOW / 1000:g} km")
    except InvalidDataError:
        remarks.append(f"no line of {WINDOW / 1000:g} km without a gap longer than {LINE_GAP:g} m")
    try:
        variogram = variogram_along(picks)
        curve = variogram.fit()
        if curve.range < variogram.lag[-1]:
            numbers |= {name: getattr(curve, name) for name in ("nugget", "sill", "range")}
        else:
            remarks.append(
                f"no sill of the errors' variogram up to {variogram.lag[-1] / 1000:g} km"
            )
    except InvalidDataError:
        remarks.append("too few picks along a line for a variogram")
    return Resolution(**numbers, remark="; ".join(remarks) or None)
