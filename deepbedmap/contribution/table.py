"""The layout of a sample of raw survey text: encoding, separator, header and records."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deepbedmap.contribution.words import column_meaning
from deepbedmap.errors import (
    Fault,
    InvalidDataError,
    MissingDataError,
    WrongCallError,
    did_you_mean,
)

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    import numpy.typing as npt

NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)
"""Pattern of a number as pipelines read it."""

_HEAD, _CHUNK, _CHUNKS = (
    2**20,
    2**16,
    16,
)  # bytes that are read: the beginning, and samples after it
_LINES = 2000  # at the beginning, which determine the layout
_SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars", " ": "white space"}
READ_AS_MISSING = ("", "*", "nan")
UNREADABLE_MARKS = ("na", "n/a", "null", "none", "-", "--", "nodata")


def invalid_sample(path: Path, **facts: Any) -> InvalidDataError:
    """Return the error for a table that cannot be read; ``facts`` are fields of a Fault."""
    return InvalidDataError(Fault(str(path), **facts))


@dataclass(frozen=True)
class Table:
    """A sample of a file's records, and their layout.

    Attributes
    ----------
    path
        The file.
    encoding
        ``"UTF-8"``; or ``"Latin-1"``, allowed only in lines before the first record.
    separator
        One character; a space means any white space.
    skip
        Number of lines before the first record.
    names
        Names of the columns in the file; ``column1`` and so on if it has none.
    columns
        The same names as PDAL allows them: letters, digits and ``_``, unique regardless of case.
    named
        Whether the file names its columns.
    texts, numbers
        For each of ``columns``, its fields, and the fields as float64 (NaN for text).
    """

    path: Path
    encoding: str
    separator: str
    skip: int
    names: tuple[str, ...]
    columns: tuple[str, ...]
    named: bool
    texts: dict[str, list[str]]
    numbers: dict[str, npt.NDArray[np.float64]]

    @classmethod
    def read(cls, path: Path) -> Table:
        """Read a sample of a file; errors are those of :func:`deepbedmap.contribution.inspect`."""
        text, encoding = _text_of(path)
        lines = text.split("\n")
        separator, count = _layout(path, lines[:_LINES])
        rows = [split(line, separator) for line in lines]
        fitting = [row for row in rows[:_LINES] if _is_record(row, count)]
        numeric = [
            column
            for column in range(count)
            if 2 * sum(_is_value(row[column]) for row in fitting) > len(fitting)
        ]
        skip = _first_record(path, rows, count, numeric)
        rows = [row for row in rows[skip:] if len(row) == count]
        if encoding == "Latin-1":
            _check_is_utf8(path, lines[skip:])
        if any('"' in field for row in rows for field in row):
            raise invalid_sample(
                path,
                line=skip + 1,
                expected="values without quotation marks, which PDAL cannot read",
                found=_excerpt(lines[skip]),
                remedy="rewrite the file without them",
            )
        named = _names(lines[:skip], separator, count)
        names = named or [f"column{number + 1}" for number in range(count)]
        columns = _pdal_names(names)
        texts = {column: [row[number] for row in rows] for number, column in enumerate(columns)}
        return cls(
            path=path,
            encoding=encoding,
            separator=separator,
            skip=skip,
            names=tuple(names),
            columns=columns,
            named=bool(named),
            texts=texts,
            numbers={column: _floats(fields) for column, fields in texts.items()},
        )

    def __str__(self) -> str:
        lines = f"{self.skip} line{'s' * (self.skip != 1)} before the first record"
        names = ", ".join(self.names) if self.named else f"{len(self.names)}, without names"
        return f"{_SEPARATORS[self.separator]} between the fields; {lines}; columns: {names}"

    def name(self, column: str) -> str:
        """Return the name in the file of one of ``columns``."""
        return self.names[self.columns.index(column)]

    def column(self, argument: str, name: str) -> str:
        """Return the column of a name from the file or the pipeline; errors name ``argument``."""
        for names in (self.names, self.columns):
            if name in names:
                return self.columns[names.index(name)]
        folded = [each.casefold() for each in self.names]
        if folded.count(name.casefold()) == 1:
            return self.columns[folded.index(name.casefold())]
        hint = did_you_mean(name, self.names) or f"its columns are {', '.join(self.names)}"
        raise WrongCallError(f"{argument}: {self.path.name} has no column {name!r}; {hint}")

    def is_numeric(self, column: str) -> bool:
        """Return whether one of ``columns`` holds any number."""
        return bool(np.isfinite(self.numbers[column]).any())


def _first_record(path: Path, rows: list[list[str]], count: int, numeric: list[int]) -> int:
    """Return the index of the first record with a value in every column of numbers."""
    for number, row in enumerate(rows):
        if _is_record(row, count) and all(_is_value(row[column]) for column in numeric):
            return number
    raise invalid_sample(
        path,
        expected="a record with a value in every column of numbers",
        found="none",
        remedy="use a longer sample",
    )


def _pdal_names(names: list[str]) -> tuple[str, ...]:
    taken: set[str] = set()
    columns = []
    for name in names:
        columns.append(unique_name(_legal(name), taken))
        taken.add(columns[-1].upper())
    return tuple(columns)


def _text_of(path: Path) -> tuple[str, str]:
    """Return complete lines from the beginning of a file and from samples of the rest."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            data = file.read(_HEAD)
            if size > _HEAD:
                data = data[: data.rfind(b"\n") + 1]
                step = max((size - _HEAD) // _CHUNKS, 1)
                for start in range(_HEAD, size, step):
                    file.seek(start)
                    data += b"".join(file.read(_CHUNK).splitlines(keepends=True)[1:-1])
    except FileNotFoundError as error:
        raise MissingDataError(f"{path}: there is no such file") from error
    except OSError as error:
        raise invalid_sample(
            path, expected="a file that can be read", found=error.strerror
        ) from error
    if not data.strip():
        raise invalid_sample(path, expected="one record per line", found="an empty file")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        remedy = "convert it: iconv -f UTF-16 -t UTF-8 OLD > NEW"
        raise invalid_sample(path, expected="text in UTF-8", found="UTF-16", remedy=remedy)
    if b"\0" in data or sum(byte < 32 and byte not in b"\t\n\r\f" for byte in data[:4096]) > 2:
        remedy = "unpack it, or export it as text with one record per line"
        raise invalid_sample(path, expected="text", found="binary data", remedy=remedy)
    if b"\n" not in data and b"\r" in data:
        remedy = "convert it: tr '\\r' '\\n' < OLD > NEW"
        raise invalid_sample(
            path, expected="lines that end in a line feed", found="none", remedy=remedy
        )
    data = data.replace(b"\r\n", b"\n")
    try:
        return data.decode("utf-8-sig"), "UTF-8"
    except UnicodeDecodeError:
        return data.decode("latin-1"), "Latin-1"


def _check_is_utf8(path: Path, records: list[str]) -> None:
    for line in records:
        if not line.isascii():
            raise invalid_sample(
                path,
                expected="records in UTF-8",
                found=f"another encoding: {_excerpt(line)}",
                remedy="convert it: iconv -f ISO-8859-1 -t UTF-8 OLD > NEW",
            )


def split(line: str, separator: str) -> list[str]:
    """Return the fields of a line without surrounding blanks; a space means any white space."""
    if separator == " ":
        return line.split()
    return [field.strip(" ") for field in line.split(separator)]


def _is_value(field: str) -> bool:
    return bool(NUMBER.fullmatch(field)) or field.lower() in (*READ_AS_MISSING, *UNREADABLE_MARKS)


def _is_record(row: list[str], count: int) -> bool:
    numbers = sum(bool(NUMBER.fullmatch(field)) for field in row)
    return len(row) == count and numbers > 1 and row[0][:1] not in ("#", "%", "!")


def _layout(path: Path, lines: list[str]) -> tuple[str, int]:
    """Return the separator and the number of fields that most lines share."""
    best, most = (",", 0), (0, 0)
    pairs = 0
    for separator in _SEPARATORS:
        rows = [split(line, separator) for line in lines]
        rows = [row for row in rows if _is_record(row, len(row))]
        if not rows:
            continue
        count, agreeing = Counter(map(len, rows)).most_common(1)[0]
        if count < 3:
            pairs = max(pairs, agreeing)
        elif (agreeing, count) > most:
            best, most = (separator, count), (agreeing, count)
    written = [line for line in lines if line.strip()]
    decimal = sum(bool(re.search(r"\d,\d+\s*[;\s]\s*[-+]?\d+,\d", line)) for line in written)
    if 2 * decimal >= len(written):
        remedy = "rewrite the file with decimal points"
        raise invalid_sample(path, expected="decimal points", found="decimal commas", remedy=remedy)
    if most[0]:
        return best
    expected = "records of x, y and a bed: at least three fields, most of them numbers"
    single = sum(bool(NUMBER.fullmatch(line.strip())) for line in written)
    if pairs:
        found = "two fields per line"
    elif single:
        found = "one column"
    elif len(written) <= 2 and any(mark in written[-1] for mark in ",\t;| "):
        found = f"a header and no record: {_excerpt(written[-1])}"
    else:
        found = "no line with numbers separated by commas, tabs, semicolons or white space"
    raise invalid_sample(path, expected=expected, found=found)


def _names(heading: list[str], separator: str, count: int) -> list[str] | None:
    """Return the names of the columns from the lines before the first record."""
    candidates = []
    for line in heading:
        row = [field.strip(" \"'") for field in split(line.lstrip("#%!/ "), separator)]
        if len(row) == count + 1 and not row[-1]:
            row = row[:-1]
        if len(row) == count - 1:
            row.append(f"column{count}")
        if len(row) == count and not any(NUMBER.fullmatch(field) for field in row):
            candidates.append([name or f"column{n + 1}" for n, name in enumerate(row)])
    # The last line is the header, unless another has more names with a meaning, as above units.
    return max(
        reversed(candidates),
        key=lambda row: sum(column_meaning(name) is not None for name in row),
        default=None,
    )


def _excerpt(line: str) -> str:
    return repr(line) if len(line) <= 60 else f"{line[:60]!r}..."


def _legal(name: str) -> str:
    """Return a name of letters, digits and _ that begins with a letter."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9]+", "_", plain).strip("_") or "column"
    return plain if plain[0].isalpha() else f"c{plain}"


def unique_name(name: str, taken: set[str]) -> str:
    """Return the name, numbered if it is already taken; ``taken`` holds names in upper case."""
    if name.upper() not in taken:
        return name
    numbers = range(2, len(taken) + 3)
    return next(new for n in numbers if (new := f"{name}_{n}").upper() not in taken)


def _floats(fields: list[str]) -> npt.NDArray[np.float64]:
    return np.array(
        [float(field) if NUMBER.fullmatch(field) else math.nan for field in fields], dtype=float
    )
