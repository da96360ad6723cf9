"""Inspect a sample of raw survey text, and write the pipeline that reads it.

:func:`inspect` reports what it determined, what it guessed and what it cannot determine. A
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

    import numpy.typing as npt

_ROLES = (*MEASURED, "line", "date", "time", "quality")


@dataclass(frozen=True)
class Sample:
    """The content of a raw survey file, and how to read it.

    Attributes
    ----------
    table
        The layout and a sample of the records.
    roles
        The table's columns by role: x, y, z (the bed), surface, thickness, line, date, time and
        quality, if the table has them. Without z, the bed is surface minus thickness.
    down
        Whether z is a depth below the datum; None if unknown.
    crs
        CRS of x and y, such as ``"EPSG:4326"``; None if unknown.
    xy_units
        Units of x and y: ``"degrees"``, ``"m"`` or ``"km"``; None if unknown.
    units
        Units of elevations and thicknesses: ``"m"`` or ``"km"``.
    missing
        Numbers that mark missing values, by column.
    positive
        Column that is positive in every record with a bed, if PDAL requires such a condition,
        because it reads text such as ``*`` as 0.
    guesses, questions
        What the values suggest, and what only the contributor can answer.
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
        """Sentences that describe the layout and the columns."""
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
            yield f"names not allowed by PDAL: {', '.join(renamed)}"

    @property
    def nodata(self) -> float | None:
        """The number that marks missing values, if it is the same in all columns."""
        marks = {mark for marks in self.missing.values() for mark in marks}
        return marks.pop() if len(marks) == 1 else None

    def pipeline(self) -> dict[str, Any]:
        """Return the PDAL pipeline that reads the file.

        Raises
        ------
        ValueError
            The sample has open :attr:`questions`.
        """
        if self.questions:
            raise WrongCallError("; ".join(question.text for question in self.questions))
        header = self._header()
        pipeline_names = dict(zip(self.table.columns, header, strict=True))
        names = {role: pipeline_names[column] for role, column in self.roles.items()}
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
        conditions = [
            f"{pipeline_names[column]} != {_number(mark)}"
            for column, marks in self.missing.items()
            for mark in marks
        ]
        if self.positive:
            conditions.append(f"{pipeline_names[self.positive]} > 0")
        if conditions:
            stages.append({"type": "filters.expression", "expression": " && ".join(conditions)})
        assignments = []
        if "z" not in names:
            assignments.append(f"Z = {names['surface']} - {names['thickness']}")
        elif self.down:
            assignments.append(f"Z = 0 - {names['z']}")
        if self.units == "km":
            assignments.append("Z = Z * 1000")
        if self.xy_units == "km":
            assignments += ["X = X * 1000", "Y = Y * 1000"]
        stages += [{"type": "filters.assign", "value": value} for value in assignments]
        if crs != "EPSG:3031":
            stages.append({"type": "filters.reprojection", "in_srs": crs, "out_srs": "EPSG:3031"})
        return {"pipeline": stages}

    def _header(self) -> list[str]:
        """Return the pipeline's names of the columns; its reader recognises the roles of some."""
        assigned = {self.roles["x"]: "X", self.roles["y"]: "Y"}
        if "z" in self.roles and not self.down:
            assigned[self.roles["z"]] = "Z"
        for role, recognised in _READER_NAMES.items():
            column = self.roles.get(role)
            if column and column not in assigned and column.upper() not in recognised:
                assigned[column] = recognised[-1]
        taken = {name.upper() for name in assigned.values()} | {"X", "Y", "Z"}
        if "quality" not in self.roles:
            taken.add("QUALITY")
        header = []
        for column in self.table.columns:
            name = assigned.get(column) or unique_name(column, taken)
            taken.add(name.upper())
            header.append(name)
        return header


_READER_NAMES = {
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
    r"""Determine the layout, columns, missing values and coordinates of a raw survey file.

    At most 2 MiB are read, from the beginning and in samples spread over the rest.

    Parameters
    ----------
    sample
        Text with one record per line: x, y and the bed, or x, y, surface and thickness.
    x, y, z, surface, thickness
        Names of columns in the file; None to determine them. ``z`` is the bed; without it the bed
        is ``surface`` minus ``thickness`` (or aircraft elevation minus range to the bed).
    down
        True if z is a depth below the datum, positive downwards; False if it is an elevation.
        Never guessed if the name of the column suggests a depth.
    crs
        CRS of x and y, such as ``"EPSG:4326"``.
    xy_units, units
        Units of x and y, ``"degrees"``, ``"m"`` or ``"km"``, and of elevations, ``"m"`` or
        ``"km"``.
    missing
        Numbers that mark missing values in any column; an empty list, or only NaN, for none.

    Returns
    -------
    Sample
        The layout, the role of each column, guesses and open questions.

    Raises
    ------
    InvalidDataError
        The file is not such text; the message states why and what to do.
    MissingDataError
        The file does not exist.
    ValueError
        An argument names no column of the file, or is not one of its choices.

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
    _check_choice("xy_units", xy_units, ("degrees", "m", "km"))
    _check_choice("units", units, ("m", "km"))
    if down not in (None, True, False):
        raise WrongCallError("down: expected True (the bed's column is a depth), False or None")
    table = Table.read(Path(sample))
    names = {"x": x, "y": y, "z": z, "surface": surface, "thickness": thickness}
    roles, guesses = column_roles(table, _assigned_columns(table, names))
    questions = [*_role_questions(table, roles)]
    check_missing_marks(table, roles)
    marks = missing_marks(table, roles, missing)
    if marks and missing is None:
        guesses.append(_marks_guess(table, marks))
    values = _measured_values(table, roles, marks)
    if {"x", "y"} <= {*values}:
        if xy_units is None and column_meaning(table.name(roles["x"])) == "lon":
            xy_units = "degrees"
        crs, xy_units = coordinate_system(
            values["x"], values["y"], crs, xy_units, guesses, questions
        )
    if units is None:
        units = _height_units(table, roles, values, guesses)
    if "z" in roles and down is None:
        down = _is_depth(table.name(roles["z"]), questions)
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


def _assigned_columns(table: Table, names: Mapping[str, str | None]) -> dict[str, str]:
    """Return the columns that the caller named, by role."""
    assigned = {role: table.column(role, name) for role, name in names.items() if name is not None}
    if "z" in assigned and {"surface", "thickness"} & {*assigned}:
        raise WrongCallError("expected z, or surface and thickness, found both")
    if len({*assigned.values()}) < len(assigned):
        raise WrongCallError(f"{', '.join(assigned)}: each must be a different column")
    return assigned


def _role_questions(table: Table, roles: Mapping[str, str]) -> Iterator[Doubt]:
    """Ask for the columns that could not be determined."""
    names = ", ".join(table.names)
    for role, other in (("x", "longitude"), ("y", "latitude")):
        if role not in roles:
            yield Doubt(f"which column is {role} or {other}? ({names})", (role,))
    if "z" not in roles and not {"surface", "thickness"} <= {*roles}:
        text = f"which column is the bed? Or which are surface and thickness? ({names})"
        yield Doubt(text, ("z", "surface", "thickness"))


def _marks_guess(table: Table, marks: Mapping[str, tuple[float, ...]]) -> Doubt:
    by_column = "; ".join(
        f"{', '.join(map(_number, numbers))} in {table.name(column)}"
        for column, numbers in marks.items()
    )
    return Doubt(f"missing values are marked by {by_column}", ("missing",))


def _measured_values(
    table: Table, roles: Mapping[str, str], marks: Mapping[str, tuple[float, ...]]
) -> dict[str, npt.NDArray[np.float64]]:
    """Return the numbers of each column that defines a pick, NaN for missing values."""
    return {
        role: np.where(
            np.isin(table.numbers[column], marks.get(column, ())), np.nan, table.numbers[column]
        )
        for role, column in roles.items()
        if role in MEASURED
    }


def _height_units(
    table: Table,
    roles: Mapping[str, str],
    values: Mapping[str, npt.NDArray[np.float64]],
    guesses: list[Doubt],
) -> str:
    """Return the units of elevations; km is guessed for small numbers with three decimals."""
    heights = [np.abs(values[role]) for role in MEASURED[2:] if role in values]
    highest = max((float(np.nanmax(height, initial=0)) for height in heights), default=0)
    columns = [roles[role] for role in MEASURED[2:] if role in roles]
    if 0 < highest < 5.5 and all(_has_three_decimals(table.texts[column]) for column in columns):
        guesses.append(Doubt(f"heights are in km (none is beyond {highest:.3g})", ("units",)))
        return "km"
    return "m"


def _is_depth(name: str, questions: list[Doubt]) -> bool | None:
    """Return False, for an elevation, unless the name of the bed's column suggests a depth."""
    if not re.search("depth|bottom|below", name, re.IGNORECASE):
        return False
    text = (
        f"is {name} an elevation (up) or a depth below the datum (down)? A depth below "
        "the ice surface is a thickness: name it, and the surface"
    )
    questions.append(Doubt(text, ("down", "surface", "thickness")))
    return None


def _has_three_decimals(fields: list[str]) -> bool:
    written = [field for field in fields if "." in field]
    return 2 * sum(len(field.partition(".")[2]) > 2 for field in written) > len(fields)


def _check_choice(argument: str, value: str | None, choices: Sequence[str]) -> None:
    if value is not None and value not in choices:
        raise WrongCallError(
            f"{argument}: expected {', '.join(choices[:-1])} or {choices[-1]}, found {value!r}"
        )


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(value)
