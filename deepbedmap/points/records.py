"""The valid records of one block of a raw file, with their dates and times.

Blocks are independent of each other, so they can be read in any thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from deepbedmap.points.raw_text import texts_of_numbers

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    import numpy.typing as npt

    from deepbedmap.points.pipelines import Columns, Recipe
    from deepbedmap.points.raw_text import RawFile, Texts

ANTARCTIC_RADIUS = 3.34e6
"""Distance (m) from the pole of EPSG:3031 that nothing south of 60 degrees S exceeds."""

NO_QUALITY = -128


class Readings(NamedTuple):
    """What each text of a column means by each way to read it; None where a text does not fit."""

    codes: npt.NDArray[np.int32]
    ways: tuple[npt.NDArray[Any] | None, ...]

    def by(self, way: int) -> npt.NDArray[Any]:
        """Value of each record by a way that fits; not a time where it has no text."""
        values: npt.NDArray[Any] = np.asarray(self.ways[way])
        spread: npt.NDArray[Any] = np.append(values, np.array("NaT", values.dtype))[self.codes]
        return spread


class Refused(NamedTuple):
    """A record that can be no pick, by its place in the block."""

    record: int
    expected: str
    found: str


@dataclass
class Records:
    """The valid records of a block: x, y and z, and what else the columns say.

    ``columns`` has ``x``, ``y``, ``z`` (float64) and, where the file has them, ``quality`` (int8,
    -128 where it is missing), ``bed_inferred`` and ``time``; instead of that, ``day`` and
    ``clock`` where they can be read in several ways. ``first`` is the first of the valid records.
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
        """Choose among the records of a block, whose columns are as the pipeline makes them."""
        missing = np.isnan(numbers["X"]) | np.isnan(numbers["Y"]) | np.isnan(numbers["Z"])
        valid = kept & ~missing
        everything = bool(valid.all())
        chosen = slice(None) if everything else valid
        columns = {name.lower(): numbers[name][chosen] for name in "XYZ"}
        refused = _refused_place(columns, valid, recipe, polar)
        if quality := raw.layout.named("QUALITY"):
            grades = numbers[quality][chosen]
            graded = ~np.isnan(grades)
            wrong = graded & ((grades % 1 != 0) | (np.abs(grades) > 127))
            refused = refused or _refused(wrong, f"a whole number as {quality}", columns, valid)
            if not refused:
                columns["quality"] = np.where(graded, grades, NO_QUALITY).astype(np.int8)
        day, clock = raw.layout.day_and_clock or ("", "")
        line = raw.layout.line or ""
        known = {}
        for name in {line, day, clock}:
            if name in texts:
                known[name] = texts[name] if everything else texts[name].of(valid)
            elif name in numbers and name != clock:
                known[name] = texts_of_numbers(numbers[name][chosen])
        days, clocks = None, None
        if day in known:
            days = _days(known[day], day)
            if clock in known:
                clocks = _clocks(known[clock], clock)
            elif clock in numbers:
                times = pd.to_timedelta(numbers[clock][chosen], unit="s").to_numpy("m8[ns]")
                clocks = Readings(np.arange(len(times), dtype=np.int32), (times,))
                if len(days.ways) == 1:
                    columns["time"] = days.by(0) + times
                    days, clocks = None, None
        if recipe.inferred:
            columns["bed_inferred"] = numbers[recipe.inferred][chosen] != 0
        return cls(
            columns=columns,
            names=known.get(line),
            day=days if clocks else None,
            clock=clocks,
            total=len(valid),
            missing=int(missing.sum()),
            first=int(valid.argmax()) if len(valid) else 0,
            refused=refused,
        )

    def __len__(self) -> int:
        return len(self.columns["x"])


def _refused_place(
    columns: Columns, valid: npt.NDArray[np.bool_], recipe: Recipe, polar: bool
) -> Refused | None:
    """First pick that is nowhere, or far from Antarctica though its CRS is that of the pole."""
    x, y, z = columns["x"], columns["y"], columns["z"]
    distance = np.hypot(x, y)
    whence = "".join(f", from coordinates in {name}" for name in recipe.reprojected)
    refused = _refused(
        ~np.isfinite(distance) | ~np.isfinite(z), f"finite x, y and z{whence}", columns, valid
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


def _days(texts: Texts, name: str) -> Readings:
    """UTC at the beginning of the day, datetime64[ns]."""
    if name.upper() == "FRAME":
        days = pd.to_datetime(texts.distinct.str[:8], format="%Y%m%d", errors="coerce")
        return Readings(texts.codes, (days.to_numpy("M8[ns]"),))
    texts = texts.without(texts.distinct.str.fullmatch(r"\d{4}"))  # a year is no day
    formats = ("%Y%m%d", "%Y-%m-%d", "%Y/%m/%d", "%d/%m/%Y", "%m/%d/%Y")
    return _readings(
        texts,
        "M8[ns]",
        *(pd.to_datetime(texts.distinct, format=style, errors="coerce") for style in formats),
    )


def _clocks(texts: Texts, name: str) -> Readings:
    """Time since the day began, timedelta64[ns]."""
    values = pd.Series(texts.distinct, dtype="str")
    number = pd.to_numeric(values, errors="coerce").astype(float)
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
