"""The valid records of one block of a raw file, with their dates and times.

Blocks are independent of each other, so they can be read in any thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from deepbedmap.places import ANTARCTIC_RADIUS
from deepbedmap.points.raw_text import texts_of_numbers

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    import numpy.typing as npt

    from deepbedmap.points.pipelines import Columns, Recipe
    from deepbedmap.points.raw_text import RawFile, Texts

NO_QUALITY = -128


class Readings(NamedTuple):
    """The value of each text of a column in each format; None for a format that some do not fit."""

    codes: npt.NDArray[np.int32]
    ways: tuple[npt.NDArray[Any] | None, ...]

    def by(self, way: int) -> npt.NDArray[Any]:
        """Return the value of each record in a format that fits; NaT where it has no text."""
        values: npt.NDArray[Any] = np.asarray(self.ways[way])
        spread: npt.NDArray[Any] = np.append(values, np.array("NaT", values.dtype))[self.codes]
        return spread


class Refused(NamedTuple):
    """A record that cannot be a pick, by its number in the block."""

    record: int
    expected: str
    found: str


@dataclass
class Records:
    """The valid records of a block: x, y and z, and what else the file records of each pick.

    ``columns`` holds ``x``, ``y``, ``z`` (float64) and, where the file has them, ``quality`` (int8,
    -128 where it is missing), ``bed_inferred`` and ``time``. Where a date or time can be read in
    several ways, ``day`` and ``clock`` are set instead of ``time``. ``first`` is the number of the
    first valid record in the block, ``total`` counts all records of the block, and ``missing``
    those without a coordinate or bed.
    """

    columns: Columns
    names: Texts | None
    day: Readings | None
    clock: Readings | None
    total: int
    missing: int
    first: int
    refused: Refused | None

    @classmethod
    def of(
        cls,
        numbers: Columns,
        texts: Mapping[str, Texts],
        kept: npt.NDArray[np.bool_],
        raw: RawFile,
        recipe: Recipe,
        polar: bool,
    ) -> Records:
        """Select the valid records of a block, from columns to which the pipeline was applied.

        ``numbers`` and ``texts`` are the columns, ``kept`` the records that the pipeline's
        expressions keep, and ``polar`` whether the CRS of x and y is EPSG:3031.
        """
        missing = np.isnan(numbers["X"]) | np.isnan(numbers["Y"]) | np.isnan(numbers["Z"])
        valid = kept & ~missing
        chosen = slice(None) if valid.all() else valid  # a slice copies nothing
        columns = {name.lower(): numbers[name][chosen] for name in "XYZ"}
        refused = _refused_position(columns, valid, recipe, polar)
        if quality := raw.layout.named("QUALITY"):
            grades = numbers[quality][chosen]
            graded = ~np.isnan(grades)
            wrong = graded & ((grades % 1 != 0) | (np.abs(grades) > 127))
            refused = refused or _refused(wrong, f"a whole number as {quality}", columns, valid)
            if not refused:
                columns["quality"] = np.where(graded, grades, NO_QUALITY).astype(np.int8)
        labels = _labels(numbers, texts, valid, raw)
        days, clocks = _days_and_clocks(labels, numbers, chosen, raw)
        if days and clocks and len(days.ways) == len(clocks.ways) == 1:
            columns["time"] = days.by(0) + clocks.by(0)
            days, clocks = None, None
        if recipe.inferred:
            columns["bed_inferred"] = numbers[recipe.inferred][chosen] != 0
        return cls(
            columns=columns,
            names=labels.get(raw.layout.line or ""),
            day=days,
            clock=clocks,
            total=len(valid),
            missing=int(missing.sum()),
            first=int(valid.argmax()) if len(valid) else 0,
            refused=refused,
        )

    def __len__(self) -> int:
        return len(self.columns["x"])


def _refused_position(
    columns: Columns, valid: npt.NDArray[np.bool_], recipe: Recipe, polar: bool
) -> Refused | None:
    """Return the first pick without a position, or outside Antarctica where the CRS is polar."""
    x, y, z = columns["x"], columns["y"], columns["z"]
    distance = np.hypot(x, y)
    origin = "".join(f", from coordinates in {name}" for name in recipe.reprojected)
    refused = _refused(
        ~np.isfinite(distance) | ~np.isfinite(z), f"finite x, y and z{origin}", columns, valid
    )
    if polar and not refused:
        expected = "picks south of 60 degrees S, within 3,340 km of the pole in EPSG:3031"
        refused = _refused(distance > ANTARCTIC_RADIUS, expected, columns, valid)
    return refused


def _refused(
    wrong: npt.NDArray[np.bool_], expected: str, columns: Columns, valid: npt.NDArray[np.bool_]
) -> Refused | None:
    if not wrong.any():
        return None
    first = int(wrong.argmax())
    return Refused(int(np.flatnonzero(valid)[first]), expected, coordinates_text(columns, first))


def coordinates_text(columns: Columns, pick: int) -> str:
    """Return x, y and z of a pick as text, in the units of its columns."""
    return "x {:.9g}, y {:.9g}, z {:.9g}".format(*(columns[name][pick] for name in "xyz"))


def _labels(
    numbers: Columns, texts: Mapping[str, Texts], valid: npt.NDArray[np.bool_], raw: RawFile
) -> dict[str, Texts]:
    """Return the valid records' columns of line, date and time, as far as they are texts."""
    day, clock = raw.layout.day_and_clock or ("", "")
    everything = bool(valid.all())
    labels = {}
    for name in {raw.layout.line or "", day, clock}:
        if name in texts:
            labels[name] = texts[name] if everything else texts[name].of(valid)
        elif name in numbers and name != clock:
            labels[name] = texts_of_numbers(numbers[name] if everything else numbers[name][valid])
    return labels


def _days_and_clocks(
    labels: Mapping[str, Texts],
    numbers: Columns,
    chosen: npt.NDArray[np.bool_] | slice,
    raw: RawFile,
) -> tuple[Readings | None, Readings | None]:
    day, clock = raw.layout.day_and_clock or ("", "")
    if day not in labels:
        return None, None
    if clock in labels:
        return _days(labels[day], day), _clocks(labels[clock], clock)
    if clock in numbers:  # seconds since the day began
        times = pd.to_timedelta(numbers[clock][chosen], unit="s").to_numpy("m8[ns]")
        clocks = Readings(np.arange(len(times), dtype=np.int32), (times,))
        return _days(labels[day], day), clocks
    return None, None


def _days(texts: Texts, name: str) -> Readings:
    """Read UTC at the beginning of the day, datetime64[ns]."""
    if name.upper() == "FRAME":
        days = pd.to_datetime(texts.distinct.str[:8], format="%Y%m%d", errors="coerce")
        return Readings(texts.codes, (days.to_numpy("M8[ns]"),))
    texts = texts.without(texts.distinct.str.fullmatch(r"\d{4}"))  # a year is not a date
    formats = ("%Y%m%d", "%Y-%m-%d", "%Y/%m/%d", "%d/%m/%Y", "%m/%d/%Y")
    return _readings(
        texts,
        "M8[ns]",
        *(pd.to_datetime(texts.distinct, format=style, errors="coerce") for style in formats),
    )


def _clocks(texts: Texts, name: str) -> Readings:
    """Read the time since the day began, timedelta64[ns]."""
    values = pd.Series(texts.distinct, dtype="str")
    number = pd.to_numeric(values, errors="coerce").astype(float)
    # A bare number is seconds of the day or, in some formats, hhmmss.
    hours, minutes, seconds = number // 10_000, number // 100 % 100, number % 100
    digital = (hours * 60 + minutes) * 60 + seconds
    ways: list[pd.Series[Any]] = [
        pd.to_timedelta(values.where(values.str.fullmatch(r"\d{1,2}:\d\d:\d\d(\.\d*)?"))),
        pd.to_timedelta(number.where(number < 2 * 86_400), unit="s"),
    ]
    if name.upper() in ("TIME", "TIME_UTC"):
        digital = digital.where((hours < 24) & (minutes < 60) & (seconds < 60))
        ways.append(pd.to_timedelta(digital, unit="s"))
    return _readings(texts, "m8[ns]", *ways)


def _readings(texts: Texts, dtype: str, *ways: pd.Series[Any] | pd.Index[Any]) -> Readings:
    fitting = (way.to_numpy(dtype) if way.notna().all() else None for way in ways)
    return Readings(texts.codes, tuple(fitting))
