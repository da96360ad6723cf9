"""Picks of raw files, block by block: what a block says alone, and what needs those before it.

The records of a block become :class:`Records` in any thread. :class:`FilePicks` takes those of a
file in order, names their lines and settles how dates and times are to be read.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from deepbedmap.errors import Fault, InvalidDataError
from deepbedmap.pipelines import Columns, Recipe
from deepbedmap.raw_text import RawFile, Texts, excerpt, texts_of_numbers

logger = logging.getLogger(__name__)

LINE_GAP = 1000.0
"""Distance (m) between consecutive picks of a file beyond which a new line begins."""

ANTARCTIC_RADIUS = 3.34e6
"""Distance (m) from the pole of EPSG:3031 that nothing south of 60 degrees S exceeds."""

Box = tuple[float, float, float, float]

_NO_QUALITY = -128


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
                columns["quality"] = np.where(graded, grades, _NO_QUALITY).astype(np.int8)
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


class Settled(NamedTuple):
    """What the records of a file so far decide for all of them.

    ``named``: whether lines go by names; ``day``, ``clock``: the way to read the texts, -1 where
    there is no single one. None where no record says anything.
    """

    named: bool | None
    day: int | None
    clock: int | None

    def follows(self, earlier: Settled) -> bool:
        """Whether nothing is decided otherwise than before."""
        return all(old in (None, new) for old, new in zip(earlier, self, strict=True))


class Lines:
    """Names of the lines of a survey, in the order in which they come."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}

    @property
    def names(self) -> pd.Index[str]:
        """Names by their codes."""
        return pd.Index([*self._places], dtype="str")

    def code(self, codes: npt.NDArray[Any], name: Callable[[int], str]) -> npt.NDArray[np.int32]:
        """Codes of the survey for those of a block, the names of which a function gives."""
        own, present = pd.factorize(codes)
        places = [self._places.setdefault(name(n), len(self._places)) for n in present]
        coded: npt.NDArray[np.int32] = np.array(places, dtype=np.int32)[own]
        return coded


class FilePicks:
    """The picks of a file, from its records block by block.

    ``numbered``: whether the blocks hold all records of the file, so that lines can be told.
    """

    def __init__(
        self, raw: RawFile, recipe: Recipe, polar: bool, box: Box | None, numbered: bool
    ) -> None:
        self.raw = raw
        self.digest = hashlib.sha256()
        self.count = 0
        self._box = box
        self._numbered_records = numbered
        self._total = self._missing = 0
        self._named: bool | None = None
        self._day, self._clock = _Ways(), _Ways()
        self._line = 1
        self._last: tuple[float, float] | None = None
        self._as_degrees: Refused | None = None
        self._degrees = polar and not recipe.reprojected

    def add(self, records: Records) -> None:
        """Look at the records of the next block."""
        if records.refused:
            raise self._refusal(records.refused, self._total)
        if len(records):
            if records.names is not None:
                self._named = bool(self._named) or bool(len(records.names.distinct))
            if self._degrees:
                self._look_for_degrees(records)
        self._day.add(records.day)
        self._clock.add(records.clock)
        self._total += records.total
        self._missing += records.missing
        self.count += len(records)

    @property
    def settled(self) -> Settled:
        """What the records so far decide."""
        return Settled(self._named, self._day.chosen, self._clock.chosen)

    def finish(self, records: Records, settled: Settled, lines: Lines) -> Columns:
        """Columns of the picks of the next block, with ``line`` and ``time``, inside the box."""
        columns = records.columns
        x, y = columns["x"], columns["y"]
        codes: npt.NDArray[Any]
        if settled.named and records.names is not None:
            codes, line = records.names.codes, self._line_of_text(records.names.distinct)
        elif self.raw.layout.named("ROW", "COLUMN"):
            codes, line = np.zeros(len(x), dtype=np.int32), lambda _: self.raw.path.stem
        else:
            codes, line = self._numbered(x, y), lambda n: f"{self.raw.path.stem}/{n}"
        if records.day and records.clock:
            columns["time"] = np.full(len(x), "NaT", "M8[ns]")
            day, clock = settled.day, settled.clock
            if day is not None and clock is not None and min(day, clock) >= 0:
                columns["time"] = records.day.by(day) + records.clock.by(clock)
        if self._box is not None:
            xmin, ymin, xmax, ymax = self._box
            inside = (x >= xmin) & (x <= xmax) & (y >= ymin) & (y <= ymax)
            columns = {name: column[inside] for name, column in columns.items()}
            codes = codes[inside]
        columns["line"] = lines.code(codes, line)
        return columns

    def close(self) -> None:
        """Say what became of the file's records."""
        if self._degrees and self._as_degrees:
            raise self._refusal(self._as_degrees, 0)
        names = self.raw.layout.day_and_clock or ("", "")
        for name, ways in zip(names, (self._day, self._clock), strict=True):
            if said := ways.ambiguity:
                logger.warning(
                    "%s: %s can be read in %s, so there is no time", self.raw.path, name, said
                )
        logger.info(
            "%s: %d records, %d dropped for a missing coordinate or bed, "
            "%d by the pipeline's expressions, %d picks",
            self.raw.path,
            self._total,
            self._missing,
            self._total - self._missing - self.count,
            self.count,
        )

    def _line_of_text(self, texts: pd.Index[str]) -> Callable[[int], str]:
        stem = self.raw.path.stem
        return lambda code: stem if code < 0 else f"{stem}/{texts[code]}"

    def _numbered(
        self, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.intp]:
        """Number of the line of each pick, one more after each gap."""
        if not len(x):
            return np.empty(0, dtype=np.intp)
        last_x, last_y = self._last or (x[0], y[0])
        gaps = np.hypot(np.diff(x, prepend=last_x), np.diff(y, prepend=last_y)) > LINE_GAP
        numbers = self._line + np.cumsum(gaps)
        self._line, self._last = int(numbers[-1]), (x[-1], y[-1])
        return numbers

    def _look_for_degrees(self, records: Records) -> None:
        x, y = records.columns["x"], records.columns["y"]
        self._degrees = bool((np.abs(x) <= 360).all() and (np.abs(y) <= 90).all())
        if self._as_degrees is None:
            expected = "metres in EPSG:3031, which degrees are not"
            found = _place(records.columns, 0)
            self._as_degrees = Refused(self._total + records.first, expected, found)

    def _refusal(self, refused: Refused, offset: int) -> InvalidDataError:
        number, found = None, refused.found
        if self._numbered_records:
            number, line = self.raw.record(offset + refused.record)
            found += f" from {excerpt(line)}"
        return InvalidDataError(
            Fault(str(self.raw.path), line=number, expected=refused.expected, found=found)
        )


class _Ways:
    """Which way of reading fits all texts of a file; several are no single one if they differ."""

    def __init__(self) -> None:
        self._fits: npt.NDArray[np.bool_] | None = None
        self._same = np.empty((0, 0), dtype=bool)

    def add(self, readings: Readings | None) -> None:
        """Take the texts of one more block."""
        if readings is None or not (readings.codes >= 0).any():
            return
        ways = readings.ways
        if self._fits is None:
            self._fits = np.ones(len(ways), dtype=bool)
            self._same = np.ones((len(ways), len(ways)), dtype=bool)
        self._fits &= [way is not None for way in ways]
        for one, other in itertools.combinations(np.flatnonzero(self._fits), 2):
            self._same[one, other] &= np.array_equal(ways[one], ways[other])  # type: ignore[arg-type]

    @property
    def chosen(self) -> int | None:
        """The way, or -1; None without any text."""
        if self._fits is None:
            return None
        fitting = np.flatnonzero(self._fits)
        return int(fitting[0]) if len(fitting) and self._same[fitting[0], fitting].all() else -1

    @property
    def ambiguity(self) -> str | None:
        """Say why there is no single way; None if there is one."""
        if self._fits is None or self.chosen != -1:
            return None
        return "several ways" if self._fits.any() else "no known way"


COLUMNS = ("x", "y", "z", "line", "quality", "time", "bed_inferred")


def frame(
    parts: Sequence[Columns], lines: Lines, names: Collection[str] | None = None
) -> pd.DataFrame:
    """Table of picks from the columns of some, which are emptied: nothing is there twice.

    ``names`` of the columns; None: those that any of the parts has.
    """
    sizes = [len(part["x"]) for part in parts]
    absent = {"quality": np.int8(_NO_QUALITY), "time": np.datetime64("NaT", "ns")}
    columns: dict[str, Any] = {}
    for name in COLUMNS:
        if not (any(name in part for part in parts) if names is None else name in names):
            continue
        columns[name] = np.concatenate(
            [
                part.pop(name) if name in part else np.full(size, absent[name])
                for part, size in zip(parts, sizes, strict=True)
            ]
        )
    codes, categories = columns["line"], lines.names
    present = np.bincount(codes, minlength=len(categories)) > 0
    if not present.all():
        codes, categories = (np.cumsum(present) - 1)[codes], categories[present]
    columns["line"] = pd.Categorical.from_codes(codes, categories)
    if "quality" in columns:
        missing = columns["quality"] == _NO_QUALITY
        columns["quality"][missing] = 1
        columns["quality"] = pd.arrays.IntegerArray(columns["quality"], missing)
    return pd.DataFrame(columns, copy=False)


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
    return Refused(int(np.flatnonzero(valid)[first]), expected, _place(columns, first))


def _place(columns: Columns, pick: int) -> str:
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
