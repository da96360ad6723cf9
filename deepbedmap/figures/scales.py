"""Colour scales: the colours of values, and the classes of flags."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pygmt

from deepbedmap.errors import Fault, InvalidDataError

_DISTINCT = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7F3C8D", "#8C6D1F")


def _blend(colour: str, other: int, share: float) -> str:
    """Return a colour mixed with black (0) or white (255)."""
    channels = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return "#" + "".join(f"{round((1 - share) * each + share * other):02X}" for each in channels)


COLOURS = (
    *_DISTINCT,
    *(_blend(colour, 0, 0.45) for colour in _DISTINCT),
    *(_blend(colour, 255, 0.55) for colour in _DISTINCT),
)
"""Colours of surveys; the first six, after Okabe & Ito (2008), are safe for colour blindness."""

MOST_CLASSES = 8
"""Maximum number of flag values that have one colour each."""

Kind = Literal["elevation", "difference", "roughness", "speed", "amount", "flags"]


@dataclass(frozen=True)
class Scale:
    """Values and their colours.

    Attributes
    ----------
    kind
        Kind of the values, which determines the palette.
    low, high
        Values of the first and the last colour; for a speed, their decimal logarithms.
    label
        Label of the colour bar.
    clipped
        Where values exceed the scale: ``b`` below, ``f`` above, for the triangles of the colour
        bar.
    classes
        For flags: each value and its meaning.
    """

    kind: Kind
    low: float
    high: float
    label: str
    clipped: str = ""
    classes: tuple[tuple[float, str], ...] = ()

    @property
    def logarithmic(self) -> bool:
        """Whether the colours scale with the logarithm of the values."""
        return self.kind == "speed"

    def make(self) -> None:
        """Make this scale the current colour table of GMT."""
        if self.classes:
            pygmt.makecpt(
                cmap=",".join(self.colours),
                series=[0, len(self.classes), 1],
                background=True,
                overrule_bg=True,
            )
            return
        pygmt.makecpt(
            cmap=_PALETTES[self.kind],
            series=[self.low, self.high],
            background=True,
            overrule_bg=True,
            log=self.logarithmic,
        )

    @property
    def colours(self) -> list[str]:
        """Colours of the classes."""
        return [COLOURS[number % len(COLOURS)] for number in range(len(self.classes))]

    def place(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return values in terms of the colour table: for flags, the number of their class."""
        if not self.classes:
            return values
        placed = np.full(values.shape, np.nan, np.float32)
        for number, (value, _) in enumerate(self.classes):
            placed[values == value] = number + 0.5
        return placed


_PALETTES: dict[str, str] = {
    "elevation": "batlow",
    "difference": "vik",
    "roughness": "lapaz",
    "speed": "lapaz",
    "amount": "lapaz",
}
_LABELS: dict[str, str] = {
    "elevation": "bed elevation (m)",
    "difference": "difference (m)",
    "roughness": "roughness (m)",
    "speed": "ice speed (m/a)",
    "amount": "value",
    "flags": "",
}
_SLOWEST = 1.0  # m/a, lower end of the scale of speed


def scale_of(
    arrays: Sequence[npt.ArrayLike],
    kind: Kind,
    label: str | None = None,
    meanings: Mapping[float, str] | None = None,
    name: str = "",
) -> Scale:
    """Return a scale between robust quantiles of all values.

    A difference is symmetric about zero; roughness and amounts start at zero.

    Parameters
    ----------
    arrays
        Values of any shape; NaN is ignored.
    kind
        Kind of the values.
    label
        Label of the colour bar; None for the label of the kind.
    meanings
        For flags: the meaning of each value.
    name
        Name of the data, for the message of an error.

    Raises
    ------
    InvalidDataError
        No value is finite.

    Examples
    --------
    >>> scale = scale_of([[-3.0, 1.0, float("nan")]], "difference")
    >>> round(scale.low, 2), round(scale.high, 2), scale.label
    (-2.98, 2.98, 'difference (m)')
    """
    values = np.concatenate([np.asarray(array, np.float64).ravel() for array in arrays])
    values = values[np.isfinite(values)]
    if values.size == 0:
        raise InvalidDataError(
            Fault(name or "figure", expected="some finite values to draw", found="none")
        )
    label = _LABELS[kind] if label is None else label
    least, most = float(values.min()), float(values.max())
    if kind == "flags":
        meanings = meanings or {}
        distinct = np.unique(values)
        if distinct.size <= MOST_CLASSES:
            classes = tuple((float(v), meanings.get(float(v), f"{v:g}")) for v in distinct)
            return Scale(kind, least, most, label, classes=classes)
        kind = "amount"
    if kind == "speed":
        low = math.log10(max(float(np.percentile(values, 1)), _SLOWEST))
        high = max(math.log10(max(float(np.percentile(values, 99.8)), _SLOWEST)), low + 1)
        return Scale(kind, low, high, label, _clipped_ends(least, most, 10**low, 10**high))
    if kind == "difference":
        high = float(np.percentile(np.abs(values), 99)) or max(-least, most) or 1.0
        low = -high
    elif kind in ("roughness", "amount") and least >= 0:
        low, high = 0.0, float(np.percentile(values, 99)) or most or 1.0
    else:
        low, high = (float(edge) for edge in np.percentile(values, [0.5, 99.5]))
    if not high - low > 1e-6 * max(abs(low), abs(high), 1e-3):
        margin = max(1.0, 0.01 * abs(low))
        low, high = low - margin, high + margin
    return Scale(kind, low, high, label, _clipped_ends(least, most, low, high))


def _clipped_ends(least: float, most: float, low: float, high: float) -> str:
    return ("b" if least < low else "") + ("f" if most > high else "")
