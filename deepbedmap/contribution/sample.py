"""Inspect a sample of raw survey text, and write the pipeline that reads it.

:func:`inspect` reports what it found, what it guessed and what it cannot determine. A
:class:`Sample` without open questions has a pipeline that reads its file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deepbedmap.contribution.columns import (
    MEASURED,
    Doubt,
    check_missing_marks,
    column_roles,
    coordinate_system,
    missing_marks,
    positive_column,
)
from deepbedmap.contribution.table import Table, unique_name
from deepbedmap.contribution.words import column_meaning
from deepbedmap.errors import WrongCallError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

_ROLES = (*MEASURED, "line", "date", "time", "quality")


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
            raise WrongCallError("; ".join(question.text for question in self.questions))
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
            name = meant.get(column) or unique_name(column, taken)
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
        raise WrongCallError("down must be True, False or None: is the bed's column a depth?")
    table = Table.read(Path(sample))
    given = {"x": x, "y": y, "z": z, "surface": surface, "thickness": thickness}
    told = {role: table.column(role, name) for role, name in given.items() if name is not None}
    if "z" in told and {"surface", "thickness"} & {*told}:
        raise WrongCallError("give z, or surface and thickness, not both")
    if len({*told.values()}) < len(told):
        raise WrongCallError(f"{', '.join(told)}: each must be a column of its own")
    roles, guesses = column_roles(table, told)
    questions = list[Doubt]()
    names = ", ".join(table.names)
    for role, other in (("x", "longitude"), ("y", "latitude")):
        if role not in roles:
            questions.append(Doubt(f"which column is {role} or {other}? ({names})", (role,)))
    if "z" not in roles and not {"surface", "thickness"} <= {*roles}:
        text = f"which column is the bed? Or which are surface and thickness? ({names})"
        questions.append(Doubt(text, ("z", "surface", "thickness")))
    check_missing_marks(table, roles)
    marks = missing_marks(table, roles, missing)
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
        if xy_units is None and column_meaning(table.name(roles["x"])) == "lon":
            xy_units = "degrees"
        crs, xy_units = coordinate_system(
            values["x"], values["y"], crs, xy_units, guesses, questions
        )
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
        positive=positive_column(table, roles),
        guesses=tuple(guesses),
        questions=tuple(questions),
    )


def _has_three_decimals(fields: list[str]) -> bool:
    written = [field for field in fields if "." in field]
    return 2 * sum(len(field.partition(".")[2]) > 2 for field in written) > len(fields)


def _choose(argument: str, value: str | None, choices: Sequence[str]) -> None:
    if value is not None and value not in choices:
        raise WrongCallError(f"{argument} must be {', '.join(choices[:-1])} or {choices[-1]}")


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(value)
