"""Picks of a raw file, block by block: their flight lines, dates and times.

How to read an ambiguous date or time, and whether lines have names, is decided from all
records of the file.
"""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from deepbedmap.errors import Fault, InvalidDataError
from deepbedmap.files.checksums import Checksum
from deepbedmap.points.raw_text import excerpt
from deepbedmap.points.records import NO_QUALITY, Refused, coordinates_text

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from typing import Any

    import numpy.typing as npt

    from deepbedmap.places import Bounds
    from deepbedmap.points.pipelines import Columns, Recipe
    from deepbedmap.points.raw_text import RawFile
    from deepbedmap.points.records import Readings, Records

logger = logging.getLogger(__name__)

LINE_GAP = 1000.0
"""Distance (m) between consecutive picks of a file beyond which a new line begins."""


class Settled(NamedTuple):
    """What the records read so far decide for all records of a file.

    ``named``: whether lines have names; ``day``, ``clock``: the format of the texts, -1 where no
    single one fits. None where no record decides it.
    """

    named: bool | None
    day: int | None
    clock: int | None

    def follows(self, earlier: Settled) -> bool:
        """Whether every earlier decision still holds."""
        return all(old in (None, new) for old, new in zip(earlier, self, strict=True))


class Lines:
    """Names of the lines of a survey, in order of appearance."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}

    @property
    def names(self) -> pd.Index[str]:
        """Names in the order of their codes."""
        return pd.Index([*self._codes], dtype="str")

    def code(self, codes: npt.NDArray[Any], name: Callable[[int], str]) -> npt.NDArray[np.int32]:
        """Return the survey's codes for a block's own codes, whose names ``name`` returns."""
        own, present = pd.factorize(codes)
        survey_codes = [self._codes.setdefault(name(n), len(self._codes)) for n in present]
        coded: npt.NDArray[np.int32] = np.array(survey_codes, dtype=np.int32)[own]
        return coded


class FilePicks:
    """The picks of a file, from its records block by block.

    ``numbered``: whether the blocks hold every record of the file, so that a message can name the
    line of the file.
    """

    def __init__(
        self, raw: RawFile, recipe: Recipe, polar: bool, box: Bounds | None, numbered: bool
    ) -> None:
        self.raw = raw
        self.checksum = Checksum()
        self.count = 0
        self._box = box
        self._numbered_records = numbered
        self._total = self._missing = 0
        self._named: bool | None = None
        self._day, self._clock = _Format(), _Format()
        self._line = 1
        self._last: tuple[float, float] | None = None
        self._as_degrees: Refused | None = None
        self._degrees = polar and not recipe.reprojected

    def add(self, records: Records) -> None:
        """Check and count the records of the next block."""
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
        """What the records read so far decide."""
        return Settled(self._named, self._day.chosen, self._clock.chosen)

    def finish(self, records: Records, settled: Settled, lines: Lines) -> Columns:
        """Return columns of the next block's picks inside the box, with ``line`` and ``time``."""
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
        """Check the file as a whole, and log how many of its records became picks."""
        if self._degrees and self._as_degrees:
            raise self._refusal(self._as_degrees, 0)
        names = self.raw.layout.day_and_clock or ("", "")
        for name, form in zip(names, (self._day, self._clock), strict=True):
            if ambiguity := form.ambiguity:
                logger.warning(
                    "%s: %s can be read in %s, so the picks have no time",
                    self.raw.path,
                    name,
                    ambiguity,
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
        """Return the number of each pick's line, which increases by one at each gap."""
        if not len(x):
            return np.empty(0, dtype=np.intp)
        # A block continues the line of the block before it.
        last_x, last_y = self._last or (x[0], y[0])
        gaps = np.hypot(np.diff(x, prepend=last_x), np.diff(y, prepend=last_y)) > LINE_GAP
        numbers = self._line + np.cumsum(gaps)
        self._line, self._last = int(numbers[-1]), (x[-1], y[-1])
        return numbers

    def _look_for_degrees(self, records: Records) -> None:
        x, y = records.columns["x"], records.columns["y"]
        self._degrees = bool((np.abs(x) <= 360).all() and (np.abs(y) <= 90).all())
        if self._as_degrees is None:
            expected = "metres in EPSG:3031, not degrees"
            found = coordinates_text(records.columns, 0)
            self._as_degrees = Refused(self._total + records.first, expected, found)

    def _refusal(self, refused: Refused, offset: int) -> InvalidDataError:
        number, found = None, refused.found
        if self._numbered_records:
            number, line = self.raw.record(offset + refused.record)
            found += f" from {excerpt(line)}"
        return InvalidDataError(
            Fault(str(self.raw.path), line=number, expected=refused.expected, found=found)
        )


class _Format:
    """The format that fits all dates, or times, of a file.

    Where several fit, they count as one if they give the same value for every text: 05/05/2011 is
    the same day read day first or month first, 03/04/2011 is not.
    """

    def __init__(self) -> None:
        self._fits: npt.NDArray[np.bool_] | None = None
        self._same = np.empty((0, 0), dtype=bool)

    def add(self, readings: Readings | None) -> None:
        """Test the formats on the texts of one more block."""
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
        """Number of the format, -1 if no single one fits; None without any text."""
        if self._fits is None:
            return None
        fitting = np.flatnonzero(self._fits)
        return int(fitting[0]) if len(fitting) and self._same[fitting[0], fitting].all() else -1

    @property
    def ambiguity(self) -> str | None:
        """Why no single format fits; None if one does."""
        if self._fits is None or self.chosen != -1:
            return None
        return "several ways" if self._fits.any() else "no known way"


COLUMNS = ("x", "y", "z", "line", "quality", "time", "bed_inferred")


def frame(
    parts: Sequence[Columns], lines: Lines, names: Collection[str] | None = None
) -> pd.DataFrame:
    """Return a table of picks from the columns of its parts.

    ``names`` are the columns of the table; None for those that any part has. The parts are emptied
    on the way, so that no column is in memory twice.
    """
    sizes = [len(part["x"]) for part in parts]
    missing_value = {"quality": np.int8(NO_QUALITY), "time": np.datetime64("NaT", "ns")}
    columns: dict[str, Any] = {}
    for name in COLUMNS:
        if not (any(name in part for part in parts) if names is None else name in names):
            continue
        columns[name] = np.concatenate(
            [
                part.pop(name) if name in part else np.full(size, missing_value[name])
                for part, size in zip(parts, sizes, strict=True)
            ]
        )
    codes, categories = columns["line"], lines.names
    present = np.bincount(codes, minlength=len(categories)) > 0
    if not present.all():
        codes, categories = (np.cumsum(present) - 1)[codes], categories[present]
    columns["line"] = pd.Categorical.from_codes(codes, categories)
    if "quality" in columns:
        missing = columns["quality"] == NO_QUALITY
        columns["quality"][missing] = 1
        columns["quality"] = pd.arrays.IntegerArray(columns["quality"], missing)
    return pd.DataFrame(columns, copy=False)
