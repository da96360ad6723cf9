"""A sample of raw survey text: how it is laid out, what its columns hold, and how to read it.

:func:`inspect` says what it found, what it guessed and what it must be told. A
:class:`Sample` without open questions has a pipeline that reads its file.
"""

from __future__ import annotations

import itertools
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from deepbedmap import schemas
from deepbedmap.errors import Fault, InvalidDataError, MissingDataError

HIGHEST = 9000.0
"""Height (m) beyond which none can be meant: of a bed, of an ice surface or of an aircraft."""

NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)
"""A number as pipelines read it."""

MEASURED = ("x", "y", "z", "surface", "thickness")
"""Roles of the columns that make a pick."""

_HEAD, _CHUNK, _CHUNKS = 2**20, 2**16, 16  # bytes looked at: the beginning, and places after it
_LINES = 2000  # of the beginning, from which the layout is told
_RADIUS = 3.34e6  # m from the pole of EPSG:3031; nothing south of 60 degrees S is farther

_SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars", " ": "white space"}
_READ_AS_MISSING = ("", "*", "nan")
_OTHER_MARKS = ("na", "n/a", "null", "none", "-", "--", "nodata")
_FAR_MARKS = (9999.0, 9999.9, 9999.99, 32767.0, 32768.0)  # with either sign
_ROLES = (*MEASURED, "line", "date", "time", "quality")


@dataclass(frozen=True)
class Doubt:
    """Something :func:`inspect` is not sure of, or must be told, in words.

    Attributes
    ----------
    text
        What it is.
    settled_by
        Arguments of :func:`inspect`, any one of which settles it.
    """

    text: str
    settled_by: tuple[str, ...]


@dataclass(frozen=True)
class Sample:
    """What a raw survey file holds, and how it is read.

    Attributes
    ----------
    table
        Its layout and the records that were looked at.
    roles
        Which of the table's columns is x, y, z (the bed), surface, thickness, line, date, time
        and quality, where there is one. Without z, the bed is surface minus thickness.
    down
        Whether z is a depth below the datum; None while that is not known.
    crs
        Of x and y, such as ``"EPSG:4326"``; None while that is not known.
    xy_units
        ``"degrees"``, ``"m"`` or ``"km"``; None while that is not known.
    units
        Of heights and thicknesses: ``"m"`` or ``"km"``.
    missing
        Numbers that mark a missing value, by column.
    positive
        Column that is more than 0 in every record that has a bed, where PDAL needs one: it reads
        text such as ``*`` as 0.
    guesses, questions
        What the file seems to mean, and what must be told.
    """

    table: Table
    roles: Mapping[str, str]
    down: bool | None
    crs: str | None
    xy_units: str | None
    units: str
    missing: Mapping[str, tuple[float, ...]]
    positive: str | None
    guesses: tuple[Doubt, ...]
    questions: tuple[Doubt, ...]

    @property
    def findings(self) -> Iterator[str]:
        """What was seen, in words."""
        table = self.table
        yield str(table)
        if self.roles:
            yield "; ".join(
                f"{role} is {table.name(self.roles[role])}" for role in _ROLES if role in self.roles
            )
        renamed = [
            f"{name} becomes {column}"
            for name, column in zip(table.names, table.columns, strict=True)
            if name != column
        ]
        if renamed:
            yield f"names that PDAL does not allow: {', '.join(renamed)}"

    @property
    def nodata(self) -> float | None:
        """The number that marks a missing value, where it is the same in all columns."""
        marks = {mark for marks in self.missing.values() for mark in marks}
        return marks.pop() if len(marks) == 1 else None

    def pipeline(self) -> dict[str, Any]:
        """Return the PDAL pipeline that reads the file.

        Raises
        ------
        ValueError
            There are :attr:`questions` left.
        """
        if self.questions:
            raise ValueError("; ".join(question.text for question in self.questions))
        header = self._header()
        called = dict(zip(self.table.columns, header, strict=True))
        parts = {role: called[column] for role, column in self.roles.items()}
        reader: dict[str, Any] = {
            "type": "readers.text",
            "filename": self.table.path.name,
            "header": self.table.separator.join(header),
            "separator": self.table.separator,
            "skip": self.table.skip,
        }
        crs = str(self.crs)
        if crs == "EPSG:3031":
            reader["override_srs"] = crs
        stages = [reader]
        kept = [
            f"{called[column]} != {_number(mark)}"
            for column, marks in self.missing.items()
            for mark in marks
        ]
        if self.positive:
            kept.append(f"{called[self.positive]} > 0")
        if kept:
            stages.append({"type": "filters.expression", "expression": " && ".join(kept)})
        steps = []
        if "z" not in parts:
            steps.append(f"Z = {parts['surface']} - {parts['thickness']}")
        elif self.down:
            steps.append(f"Z = 0 - {parts['z']}")
        if self.units == "km":
            steps.append("Z = Z * 1000")
        if self.xy_units == "km":
            steps += ["X = X * 1000", "Y = Y * 1000"]
        stages += [{"type": "filters.assign", "value": step} for step in steps]
        if crs != "EPSG:3031":
            stages.append({"type": "filters.reprojection", "in_srs": crs, "out_srs": "EPSG:3031"})
        return {"pipeline": stages}

    def _header(self) -> list[str]:
        """Names of the columns as the pipeline calls them: its reader knows what some mean."""
        meant = {self.roles["x"]: "X", self.roles["y"]: "Y"}
        if "z" in self.roles and not self.down:
            meant[self.roles["z"]] = "Z"
        for role, known in _KNOWN_TO_READER.items():
            column = self.roles.get(role)
            if column and column not in meant and column.upper() not in known:
                meant[column] = known[-1]
        taken = {name.upper() for name in meant.values()} | {"X", "Y", "Z"}
        if "quality" not in self.roles:
            taken.add("QUALITY")
        header = []
        for column in self.table.columns:
            name = meant.get(column) or _unique(column, taken)
            taken.add(name.upper())
            header.append(name)
        return header


_KNOWN_TO_READER = {
    "line": ("FRAME", "FLIGHTID", "TRAJECTORY_ID", "LINE_NAME"),
    "date": ("FRAME", "DATE"),
    "time": ("UTCTIMESOD", "UTC", "TIME_UTC", "TIME"),
    "quality": ("QUALITY",),
}


def inspect(
    sample: str | Path,
    *,
    x: str | None = None,
    y: str | None = None,
    z: str | None = None,
    surface: str | None = None,
    thickness: str | None = None,
    down: bool | None = None,
    crs: str | None = None,
    xy_units: str | None = None,
    units: str | None = None,
    missing: Sequence[float] | None = None,
) -> Sample:
    r"""Look at a raw survey file: its layout, its columns, its missing marks, its coordinates.

    At most 2 MiB of it are read, from the beginning and from places spread over the rest.

    Parameters
    ----------
    sample
        Text with a record a line: x, y and the bed, or its surface and thickness.
    x, y, z, surface, thickness
        Columns, as the file calls them; None to find them. ``z`` is the bed; without it the bed is
        ``surface`` minus ``thickness`` (or aircraft height minus range to the bed).
    down
        True: z is a depth below the datum, positive downwards; False: an elevation. Never guessed
        where the column is called a depth.
    crs
        Of x and y, such as ``"EPSG:4326"``.
    xy_units, units
        ``"degrees"``, ``"m"`` or ``"km"``; of heights ``"m"`` or ``"km"``.
    missing
        Numbers that mark a missing value, in any column; NaN alone, or nothing, for none.

    Raises
    ------
    InvalidDataError
        The file is not such text; one line says why and what to do.
    MissingDataError
        There is no such file.
    ValueError
        An argument names no column, or is none of its choices.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "survey.csv")
    ...     _ = path.write_text("lon,lat,bed_elev\n-80,-75.5,-120\n-80.1,-75.5,-9999\n")
    ...     sample = inspect(path)
    >>> sample.table.skip, sample.crs, dict(sample.missing)
    (1, 'EPSG:4326', {'bed_elev': (-9999.0,)})
    >>> sample.pipeline()["pipeline"][1]["expression"]
    'Z != -9999'
    """
    _choose("xy_units", xy_units, ("degrees", "m", "km"))
    _choose("units", units, ("m", "km"))
    if down not in (None, True, False):
        raise ValueError("down must be True, False or None: is the bed's column a depth?")
    table = Table.read(Path(sample))
    given = {"x": x, "y": y, "z": z, "surface": surface, "thickness": thickness}
    told = {role: table.column(role, name) for role, name in given.items() if name is not None}
    if "z" in told and {"surface", "thickness"} & {*told}:
        raise ValueError("give z, or surface and thickness, not both")
    if len({*told.values()}) < len(told):
        raise ValueError(f"{', '.join(told)}: each must be a column of its own")
    roles, guesses = _roles(table, told)
    questions = list[Doubt]()
    names = ", ".join(table.names)
    for role, other in (("x", "longitude"), ("y", "latitude")):
        if role not in roles:
            questions.append(Doubt(f"which column is {role} or {other}? ({names})", (role,)))
    if "z" not in roles and not {"surface", "thickness"} <= {*roles}:
        text = f"which column is the bed? Or which are surface and thickness? ({names})"
        questions.append(Doubt(text, ("z", "surface", "thickness")))
    _check_marks(table, roles)
    marks = _missing(table, roles, missing)
    if marks and missing is None:
        said = "; ".join(
            f"{', '.join(map(_number, numbers))} in {table.name(column)}"
            for column, numbers in marks.items()
        )
        guesses.append(Doubt(f"missing values are marked by {said}", ("missing",)))
    values = {
        role: np.where(
            np.isin(table.numbers[column], marks.get(column, ())), np.nan, table.numbers[column]
        )
        for role, column in roles.items()
        if role in MEASURED
    }
    if {"x", "y"} <= {*values}:
        if xy_units is None and _meaning(table.name(roles["x"])) == "lon":
            xy_units = "degrees"
        crs, xy_units = _coordinates(values["x"], values["y"], crs, xy_units, guesses, questions)
    if units is None:
        heights = [np.abs(values[role]) for role in MEASURED[2:] if role in values]
        highest = max((float(np.nanmax(height, initial=0)) for height in heights), default=0)
        measured = [roles[role] for role in MEASURED[2:] if role in roles]
        units = "m"
        if 0 < highest < 5.5 and all(
            _has_three_decimals(table.texts[column]) for column in measured
        ):
            units = "km"
            guesses.append(Doubt(f"heights are in km (none is beyond {highest:.3g})", ("units",)))
    if "z" in roles and down is None:
        name = table.name(roles["z"])
        if re.search("depth|bottom|below", name, re.IGNORECASE):
            text = (
                f"is {name} an elevation (up) or a depth below the datum (down)? A depth below "
                "the ice surface is a thickness: name it, and the surface"
            )
            questions.append(Doubt(text, ("down", "surface", "thickness")))
        else:
            down = False
    return Sample(
        table=table,
        roles=roles,
        down=down,
        crs=crs,
        xy_units=xy_units,
        units=units,
        missing=marks,
        positive=_positive(table, roles),
        guesses=tuple(guesses),
        questions=tuple(questions),
    )


def _has_three_decimals(fields: list[str]) -> bool:
    written = [field for field in fields if "." in field]
    return 2 * sum(len(field.partition(".")[2]) > 2 for field in written) > len(fields)


def _choose(argument: str, value: str | None, choices: Sequence[str]) -> None:
    if value is not None and value not in choices:
        raise ValueError(f"{argument} must be {', '.join(choices[:-1])} or {choices[-1]}")


def _fault(path: Path, **said: Any) -> InvalidDataError:
    return InvalidDataError(Fault(str(path), **said))


@dataclass(frozen=True)
class Table:
    """The records of a file that were looked at, and how they are laid out.

    Attributes
    ----------
    path
        The file.
    encoding
        ``"UTF-8"``; or ``"Latin-1"``, which only lines before the first record may be in.
    separator
        One character; a space stands for any white space.
    skip
        Lines before the first record.
    names
        Columns as the file calls them; where it does not, ``column1`` and so on.
    columns
        The same as PDAL allows them: letters, digits and ``_``, unique whatever their case.
    named
        Whether the file names them.
    texts, numbers
        Their fields, and the fields as float64, NaN where they are no numbers; by column.
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
        """Read what is needed of a file; see :func:`inspect`."""
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
        records = (number for number, row in enumerate(rows) if _is_record(row, count))
        skip = next(
            (n for n in records if all(_is_value(rows[n][column]) for column in numeric)), None
        )
        if skip is None:
            raise _fault(
                path,
                expected="a record with a value in every column of numbers",
                found="none",
                remedy="give a longer sample",
            )
        rows = [row for row in rows[skip:] if len(row) == count]
        if encoding == "Latin-1":
            _check_is_utf8(path, lines[skip:])
        if any('"' in field for row in rows for field in row):
            raise _fault(
                path,
                line=skip + 1,
                expected="values without quotation marks, which PDAL cannot read",
                found=_excerpt(lines[skip]),
                remedy="write the file anew without them",
            )
        named = _names(lines[:skip], separator, count)
        names = named or [f"column{number + 1}" for number in range(count)]
        taken: set[str] = set()
        columns = []
        for name in names:
            columns.append(_unique(_legal(name), taken))
            taken.add(columns[-1].upper())
        texts = {column: [row[number] for row in rows] for number, column in enumerate(columns)}
        return cls(
            path=path,
            encoding=encoding,
            separator=separator,
            skip=skip,
            names=tuple(names),
            columns=tuple(columns),
            named=bool(named),
            texts=texts,
            numbers={column: _floats(fields) for column, fields in texts.items()},
        )

    def __str__(self) -> str:
        lines = f"{self.skip} line{'s' * (self.skip != 1)} before the first record"
        names = ", ".join(self.names) if self.named else f"{len(self.names)}, without names"
        return f"{_SEPARATORS[self.separator]} between the fields; {lines}; columns: {names}"

    def name(self, column: str) -> str:
        """Name that the file gives one of ``columns``."""
        return self.names[self.columns.index(column)]

    def column(self, argument: str, name: str) -> str:
        """Column of a name, as the file or as the pipeline has it."""
        for names in (self.names, self.columns):
            for column, known in zip(self.columns, names, strict=True):
                if known == name:
                    return column
        folded = [known.casefold() for known in self.names]
        if folded.count(name.casefold()) == 1:
            return self.columns[folded.index(name.casefold())]
        hint = schemas.near(name, self.names) or f"there are {', '.join(self.names)}"
        raise ValueError(f"{argument}: {self.path.name} has no column {name!r}; {hint}")

    def is_numeric(self, column: str) -> bool:
        """Whether there is a number in one of ``columns``."""
        return bool(np.isfinite(self.numbers[column]).any())


def _text_of(path: Path) -> tuple[str, str]:
    """Whole lines of a file, from its beginning and from places spread over it."""
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
        raise _fault(path, expected="a file that can be read", found=error.strerror) from error
    if not data.strip():
        raise _fault(path, expected="a record a line", found="an empty file")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        remedy = "convert it: iconv -f UTF-16 -t UTF-8 OLD > NEW"
        raise _fault(path, expected="text in UTF-8", found="UTF-16", remedy=remedy)
    if b"\0" in data or sum(byte < 32 and byte not in b"\t\n\r\f" for byte in data[:4096]) > 2:
        remedy = "unpack it, or export it as text with a record a line"
        raise _fault(path, expected="text", found="binary data", remedy=remedy)
    if b"\n" not in data and b"\r" in data:
        remedy = "convert it: tr '\\r' '\\n' < OLD > NEW"
        raise _fault(path, expected="lines that end in a line feed", found="none", remedy=remedy)
    data = data.replace(b"\r\n", b"\n")
    try:
        return data.decode("utf-8-sig"), "UTF-8"
    except UnicodeDecodeError:
        return data.decode("latin-1"), "Latin-1"


def _check_is_utf8(path: Path, records: list[str]) -> None:
    for line in records:
        if not line.isascii():
            raise _fault(
                path,
                expected="records in UTF-8",
                found=f"another encoding: {_excerpt(line)}",
                remedy="convert it: iconv -f ISO-8859-1 -t UTF-8 OLD > NEW",
            )


def split(line: str, separator: str) -> list[str]:
    """Fields of a line, without the blanks around them; a space stands for any white space."""
    if separator == " ":
        return line.split()
    return [field.strip(" ") for field in line.split(separator)]


def _is_value(field: str) -> bool:
    return bool(NUMBER.fullmatch(field)) or field.lower() in (*_READ_AS_MISSING, *_OTHER_MARKS)


def _is_record(row: list[str], count: int) -> bool:
    numbers = sum(bool(NUMBER.fullmatch(field)) for field in row)
    return len(row) == count and numbers > 1 and row[0][:1] not in ("#", "%", "!")


def _layout(path: Path, lines: list[str]) -> tuple[str, int]:
    """Separator and number of fields of the records: those that most lines agree on."""
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
        remedy = "write the file anew with decimal points"
        raise _fault(path, expected="decimal points", found="decimal commas", remedy=remedy)
    if most[0]:
        return best
    expected = "records of x, y and a bed: at least three fields, most of them numbers"
    alone = sum(bool(NUMBER.fullmatch(line.strip())) for line in written)
    if pairs:
        found = "two fields a line"
    elif alone:
        found = "one column"
    elif len(written) <= 2 and any(mark in written[-1] for mark in ",\t;| "):
        found = f"a header and no record: {_excerpt(written[-1])}"
    else:
        found = "no line with numbers that commas, tabs, semicolons or white space part"
    raise _fault(path, expected=expected, found=found)


def _names(heading: list[str], separator: str, count: int) -> list[str] | None:
    """Names of the columns, from the lines before the first record."""
    candidates = []
    for line in heading:
        row = [field.strip(" \"'") for field in split(line.lstrip("#%!/ "), separator)]
        if len(row) == count + 1 and not row[-1]:
            row = row[:-1]
        if len(row) == count - 1:
            row.append(f"column{count}")
        if len(row) == count and not any(NUMBER.fullmatch(field) for field in row):
            candidates.append([name or f"column{n + 1}" for n, name in enumerate(row)])
    # The last line is the header, unless it gives units and another has more known names.
    return max(
        reversed(candidates),
        key=lambda row: sum(_meaning(name) is not None for name in row),
        default=None,
    )


def _excerpt(line: str) -> str:
    return repr(line) if len(line) <= 60 else f"{line[:60]!r}..."


def _legal(name: str) -> str:
    """Write a name with letters, digits and _, beginning with a letter."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9]+", "_", plain).strip("_") or "column"
    return plain if plain[0].isalpha() else f"c{plain}"


def _unique(name: str, taken: set[str]) -> str:
    if name.upper() not in taken:
        return name
    numbers = range(2, len(taken) + 3)
    return next(new for n in numbers if (new := f"{name}_{n}").upper() not in taken)


def _floats(fields: list[str]) -> npt.NDArray[np.float64]:
    return np.array(
        [float(field) if NUMBER.fullmatch(field) else math.nan for field in fields], dtype=float
    )


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(value)


_NOT_A_HEIGHT = re.compile(
    "twt|time|pick|loc|qual|qc|err|unc|std|sigma|flag|source|reflect|power|slope|rough|mask|veloc"
)


def _meaning(name: str) -> str | None:
    """What a column of this name holds: x, y, lon, lat, z, depth, surface, thickness, line, ..."""
    name = re.sub(r"[\[(].*?[\])]", "", name)
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", name)]
    joined = "".join(words)
    easting = r"(ps|polar|polarstereo|epsg3031|antps)?{}(coord|coordinate|epsg|ps)?(3031|71)?k?m?"
    for meaning, pattern in (
        ("lon", r"lon(g|gitude)?(deg|degrees?|dd|degreeseast|degreeeast|wgs84|wgs)?|lng"),
        ("lat", r"lat(itude)?(deg|degrees?|dd|degreesnorth|degreenorth|wgs84|wgs)?"),
        ("x", easting.format("(x|easting|east)")),
        ("y", easting.format("(y|northing|north)")),
        (
            "line",
            r"(flight|line|trajectory|profile|transect|track|segment|traverse)+"
            r"(id|name|no|num|number)?|frame|frm",
        ),
        ("date", r"(utc)?date(utc)?|yyyymmdd"),
        ("time", r"(utc)?time(utc)?|utc|utctimesod|sod|secondsofday|timeofday"),
        ("quality", r"(pick|bed)?(quality|qual|qc)(flag|code)?"),
    ):
        if re.fullmatch(pattern, joined):
            return meaning
    if "thick" in joined or joined in ("tice", "thk", "icethk"):
        return None if _NOT_A_HEIGHT.search(joined) else "thickness"
    if _NOT_A_HEIGHT.search(joined):
        return None
    if "depth" in joined or joined in ("bottom", "zbottom"):
        return "depth"
    if "surf" in joined or joined in ("usurf", "zs"):
        return "surface"
    if any(word.startswith("bed") and "bedmap" not in word for word in words):
        return "z"
    return "z" if joined in ("z", "zb", "elevbed", "bottomelevation", "basalelevation") else None


def _roles(table: Table, told: dict[str, str]) -> tuple[dict[str, str], list[Doubt]]:
    """Which column is what: as told, else by name, else by the range of its values."""
    found: dict[str, list[str]] = {}
    taken = {*told.values()}
    if table.named:
        for name, column in zip(table.names, table.columns, strict=True):
            meaning = _meaning(name)
            text = meaning in ("line", "date", "time")
            if meaning and column not in taken and (text or table.is_numeric(column)):
                found.setdefault(meaning, []).append(column)
    roles, guesses = dict(told), list[Doubt]()
    if not {"x", "y"} <= {*told}:
        for pair in (("lon", "lat"), ("x", "y")):
            if {*pair} <= {*found}:
                for role, meaning in zip(("x", "y"), pair, strict=True):
                    roles.setdefault(role, found[meaning][0])
                break
        else:
            if pair_found := _pair_by_range(table, taken):
                for role, column in zip(("x", "y"), pair_found, strict=True):
                    roles.setdefault(role, column)
                said = " and ".join(table.name(roles[role]) for role in ("x", "y"))
                guesses.append(Doubt(f"x and y are {said}", ("x", "y")))
    found = {
        meaning: left
        for meaning, columns in found.items()
        if (left := [column for column in columns if column not in roles.values()])
    }
    if "z" not in told and not {"surface", "thickness"} <= {*told}:
        guesses += _bed(table, found, roles)
    for role in ("line", "date", "time"):
        if role in found:
            roles[role] = found[role][0]
    quality = [
        column
        for column in found.get("quality", [])
        if all(_whole(field) for field in table.texts[column])
    ]
    if quality:
        roles["quality"] = quality[0]
    if "date" in roles and "time" not in roles:
        del roles["date"]  # the reader needs both
    return roles, guesses


def _pair_by_range(table: Table, taken: set[str]) -> tuple[str, str] | None:
    """Find two columns that can be longitude and latitude, or metres around the pole."""
    columns = [column for column in table.columns if table.is_numeric(column)]
    columns = [column for column in columns if column not in taken]
    for first, second in itertools.pairwise(columns):
        for x, y in ((first, second), (second, first)):
            if _is_degrees(table.numbers[x], table.numbers[y]):
                return x, y
    for x, y in itertools.pairwise(columns):
        if 1e4 < np.nanmax(np.hypot(table.numbers[x], table.numbers[y]), initial=0) <= _RADIUS:
            return x, y
    return None


def _is_degrees(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> bool:
    x, y = x[np.isfinite(x)], y[np.isfinite(y)]
    return bool(
        x.size
        and y.size
        and (x >= -180).all()
        and (x <= 360).all()
        and (y >= -90).all()
        and (y <= -60).all()
    )


def _bed(table: Table, found: dict[str, list[str]], roles: dict[str, str]) -> Iterator[Doubt]:
    """Settle which column is the bed, or which two give it."""
    upper = {column.upper(): column for column in table.columns}
    if {"ELEVATION", "SURFACE", "THICK", "BOTTOM"} <= {*upper}:  # CReSIS: ranges from the aircraft
        roles |= {"surface": upper["ELEVATION"], "thickness": upper["BOTTOM"]}
        text = "the columns are those of CReSIS: the bed is ELEVATION - BOTTOM"
        yield Doubt(text, ("z", "surface", "thickness"))
        return
    told = {"surface", "thickness"} & {*roles}
    beds = [] if told else found.get("z", [])
    beds = sorted(beds, key=lambda column: not _says_elevation(table.name(column)))
    surfaces = [roles["surface"]] if "surface" in told else found.get("surface", [])
    thicknesses = [roles["thickness"]] if "thickness" in told else found.get("thickness", [])
    if not table.named and not told:
        left = [column for column in table.columns if column not in roles.values()]
        beds = left if len(left) == 1 else []
    if beds:
        roles["z"] = beds[0]
        others = ", ".join(map(table.name, beds[1:]))
        if others or not _says_elevation(table.name(beds[0])):
            text = f"the bed's elevation is {table.name(beds[0])}"
            text += f", not {others}" if others else ""
            yield Doubt(text, ("z", "surface", "thickness"))
    elif surfaces and thicknesses:
        roles |= {"surface": surfaces[0], "thickness": thicknesses[0]}
        text = f"the bed is {table.name(surfaces[0])} - {table.name(thicknesses[0])}"
        yield Doubt(text, ("z", "surface", "thickness"))
    elif found.get("depth") and not told:
        roles["z"] = found["depth"][0]
        text = f"the bed is {table.name(roles['z'])}"
        yield Doubt(text, ("z", "surface", "thickness"))


def _says_elevation(name: str) -> bool:
    return bool(re.search("elev|alt|height", name, re.IGNORECASE)) and "bed" in name.lower()


def _whole(field: str) -> bool:
    if field.lower() in _READ_AS_MISSING:
        return True
    return bool(NUMBER.fullmatch(field)) and float(field) % 1 == 0 and abs(float(field)) <= 127


def _missing(
    table: Table, roles: Mapping[str, str], told: Sequence[float] | None
) -> dict[str, tuple[float, ...]]:
    """Find numbers that mark a missing value, by column, in the columns that make a pick."""
    found = {}
    for role in MEASURED:
        if role not in roles:
            continue
        values = table.numbers[roles[role]]
        values = values[np.isfinite(values)]
        if told is not None:
            known = {mark for mark in told if math.isfinite(mark)}
            marks = known & {*values} if role in ("x", "y") else known
        elif role in ("x", "y"):
            in_degrees = values.size and np.median(np.abs(values)) <= 360
            marks = {*values[np.abs(values) > 360]} if in_degrees else set()
        else:
            far = (np.abs(values) > 2 * HIGHEST) | np.isin(np.abs(values), _FAR_MARKS)
            marks = {*values[far]} | {mark for mark in (-999.0, 999.0) if _stands_out(values, mark)}
        if 0 < len(marks) <= 3 or told:  # many such numbers are rather in another unit
            found[roles[role]] = tuple(sorted(map(float, marks)))
    return {column: marks for column, marks in found.items() if marks}


def _stands_out(values: npt.NDArray[np.float64], mark: float) -> bool:
    """Whether a number comes three times or more, and all others are on one side, far from it."""
    others = values[values != mark]
    if values.size - others.size < 3 or not others.size:
        return False
    return bool((others.min() > mark + 100) if mark < 0 else (others.max() < mark - 100))


def _coordinates(
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
    crs: str | None,
    xy_units: str | None,
    guesses: list[Doubt],
    questions: list[Doubt],
) -> tuple[str | None, str | None]:
    """Reference system and units of x and y, by what is told and by their range."""
    farthest = float(np.nanmax(np.hypot(x, y), initial=0))
    if crs is not None:
        import pyproj

        try:
            geographic = pyproj.CRS(crs).is_geographic
        except pyproj.exceptions.CRSError:
            raise ValueError(f"crs: PROJ knows no {crs!r}; one is EPSG:3031") from None
        crs, xy_units = crs.upper(), "degrees" if geographic else xy_units
        if geographic:
            return crs, xy_units
    elif xy_units == "degrees" or (xy_units is None and _is_degrees(x, y)):
        text = f"x and y are longitude and latitude on WGS84 ({_range(x)}; {_range(y)})"
        guesses.append(Doubt(f"{text}: EPSG:4326", ("crs",)))
        return "EPSG:4326", "degrees"
    if xy_units in (None, "degrees"):  # a projected system has no degrees
        xy_units = "km" if farthest <= _RADIUS / 1000 else "m"
        if xy_units == "km":
            guesses.append(Doubt(f"x and y are in km ({_range(x)}; {_range(y)})", ("xy_units",)))
    if crs is None:
        if farthest * (1000 if xy_units == "km" else 1) <= _RADIUS:
            text = f"x and y are polar stereographic ({_range(x)}; {_range(y)}): EPSG:3031"
            guesses.append(Doubt(text, ("crs",)))
            crs = "EPSG:3031"
        else:
            text = f"what is the reference system of x and y ({_range(x)}; {_range(y)})?"
            questions.append(Doubt(text, ("crs",)))
    return crs, xy_units


def _range(values: npt.NDArray[np.float64]) -> str:
    if not np.isfinite(values).any():
        return "no values"
    return f"{np.nanmin(values):.6g} to {np.nanmax(values):.6g}"


def _positive(table: Table, roles: Mapping[str, str]) -> str | None:
    """Column that cannot be 0 where there is a bed; the bed itself can."""
    column = roles.get("thickness")
    if column is None or column.upper() == "BOTTOM":  # CReSIS writes 0 where there is none
        return column
    marked = any(field in ("", "*") for field in table.texts[column])
    return column if marked and not (table.numbers[column] <= 0).any() else None


def _check_marks(table: Table, roles: Mapping[str, str]) -> None:
    """Refuse words for a missing value that pipelines cannot read."""
    for column in (roles[role] for role in MEASURED if role in roles):
        words = {field for field in table.texts[column] if field.lower() in _OTHER_MARKS}
        if words:
            raise _fault(
                table.path,
                field=table.name(column),
                expected="nan, * or nothing where a value is missing",
                found=", ".join(map(repr, sorted(words))),
                remedy="write nan in its place",
            )
