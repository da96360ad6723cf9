"""The meaning of the columns of a sample: coordinates, bed, surface, thickness, missing values.

The meaning of a column is taken from its name and, failing that, from the range of its
values. Every guess is recorded as a :class:`Doubt`.
"""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deepbedmap.contribution.table import NUMBER, READ_AS_MISSING, UNREADABLE_MARKS, invalid_sample
from deepbedmap.contribution.words import column_meaning
from deepbedmap.errors import WrongCallError
from deepbedmap.places import ANTARCTIC_RADIUS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy.typing as npt

    from deepbedmap.contribution.table import Table

HIGHEST = 9000.0
"""Highest plausible elevation (m) of a bed, an ice surface or an aircraft."""

MEASURED = ("x", "y", "z", "surface", "thickness")
"""Roles of the columns that define a pick."""

_FAR_MARKS = (9999.0, 9999.9, 9999.99, 32767.0, 32768.0)  # with either sign


@dataclass(frozen=True)
class Doubt:
    """A guess of :func:`inspect`, or a question that only the contributor can answer.

    Attributes
    ----------
    text
        The guess or the question, in words.
    settled_by
        Arguments of :func:`inspect`, any one of which settles it.
    """

    text: str
    settled_by: tuple[str, ...]


def column_roles(table: Table, assigned: dict[str, str]) -> tuple[dict[str, str], list[Doubt]]:
    """Return the column of each role: as assigned, else by name, else by the range of values."""
    candidates: dict[str, list[str]] = {}
    taken = {*assigned.values()}
    if table.named:
        for name, column in zip(table.names, table.columns, strict=True):
            meaning = column_meaning(name)
            text = meaning in ("line", "date", "time")
            if meaning and column not in taken and (text or table.is_numeric(column)):
                candidates.setdefault(meaning, []).append(column)
    roles, guesses = dict(assigned), list[Doubt]()
    if not {"x", "y"} <= {*assigned}:
        for pair in (("lon", "lat"), ("x", "y")):
            if {*pair} <= {*candidates}:
                for role, meaning in zip(("x", "y"), pair, strict=True):
                    roles.setdefault(role, candidates[meaning][0])
                break
        else:
            if columns := _pair_by_range(table, taken):
                for role, column in zip(("x", "y"), columns, strict=True):
                    roles.setdefault(role, column)
                names = " and ".join(table.name(roles[role]) for role in ("x", "y"))
                guesses.append(Doubt(f"x and y are {names}", ("x", "y")))
    candidates = {
        meaning: free
        for meaning, names in candidates.items()
        if (free := [column for column in names if column not in roles.values()])
    }
    if "z" not in assigned and not {"surface", "thickness"} <= {*assigned}:
        guesses += _assign_bed(table, candidates, roles)
    for role in ("line", "date", "time"):
        if role in candidates:
            roles[role] = candidates[role][0]
    quality = [
        column
        for column in candidates.get("quality", [])
        if all(_is_quality_code(field) for field in table.texts[column])
    ]
    if quality:
        roles["quality"] = quality[0]
    if "date" in roles and "time" not in roles:
        del roles["date"]  # the reader requires both
    return roles, guesses


def _pair_by_range(table: Table, taken: set[str]) -> tuple[str, str] | None:
    """Find two adjacent columns within the range of longitude and latitude, or of EPSG:3031."""
    columns = [column for column in table.columns if table.is_numeric(column)]
    columns = [column for column in columns if column not in taken]
    for first, second in itertools.pairwise(columns):
        for x, y in ((first, second), (second, first)):
            if _is_degrees(table.numbers[x], table.numbers[y]):
                return x, y
    for x, y in itertools.pairwise(columns):
        if (
            1e4
            < np.nanmax(np.hypot(table.numbers[x], table.numbers[y]), initial=0)
            <= ANTARCTIC_RADIUS
        ):
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


def _assign_bed(
    table: Table, candidates: dict[str, list[str]], roles: dict[str, str]
) -> Iterator[Doubt]:
    """Assign the column of the bed, or those of surface and thickness; yield the guesses."""
    upper = {column.upper(): column for column in table.columns}
    if {"ELEVATION", "SURFACE", "THICK", "BOTTOM"} <= {*upper}:  # CReSIS: ranges from the aircraft
        roles |= {"surface": upper["ELEVATION"], "thickness": upper["BOTTOM"]}
        text = "the columns are those of CReSIS: the bed is ELEVATION - BOTTOM"
        yield Doubt(text, ("z", "surface", "thickness"))
        return
    assigned = {"surface", "thickness"} & {*roles}
    beds = [] if assigned else candidates.get("z", [])
    beds = sorted(beds, key=lambda column: not _is_bed_elevation(table.name(column)))
    surfaces, thicknesses = (
        [roles[role]] if role in assigned else candidates.get(role, [])
        for role in ("surface", "thickness")
    )
    if not table.named and not assigned:
        free = [column for column in table.columns if column not in roles.values()]
        beds = free if len(free) == 1 else []
    if beds:
        roles["z"] = beds[0]
        others = ", ".join(map(table.name, beds[1:]))
        if others or not _is_bed_elevation(table.name(beds[0])):
            text = f"the bed's elevation is {table.name(beds[0])}"
            text += f", not {others}" if others else ""
            yield Doubt(text, ("z", "surface", "thickness"))
    elif surfaces and thicknesses:
        roles |= {"surface": surfaces[0], "thickness": thicknesses[0]}
        text = f"the bed is {table.name(surfaces[0])} - {table.name(thicknesses[0])}"
        yield Doubt(text, ("z", "surface", "thickness"))
    elif candidates.get("depth") and not assigned:
        roles["z"] = candidates["depth"][0]
        text = f"the bed is {table.name(roles['z'])}"
        yield Doubt(text, ("z", "surface", "thickness"))


def _is_bed_elevation(name: str) -> bool:
    return bool(re.search("elev|alt|height", name, re.IGNORECASE)) and "bed" in name.lower()


def _is_quality_code(field: str) -> bool:
    if field.lower() in READ_AS_MISSING:
        return True
    return bool(NUMBER.fullmatch(field)) and float(field) % 1 == 0 and abs(float(field)) <= 127


def missing_marks(
    table: Table, roles: Mapping[str, str], declared: Sequence[float] | None
) -> dict[str, tuple[float, ...]]:
    """Find the numbers that mark missing values in each column that defines a pick."""
    marks_by_column = {}
    for role in MEASURED:
        if role not in roles:
            continue
        values = table.numbers[roles[role]]
        values = values[np.isfinite(values)]
        if declared is not None:
            finite = {mark for mark in declared if math.isfinite(mark)}
            marks = finite & {*values} if role in ("x", "y") else finite
        elif role in ("x", "y"):
            in_degrees = values.size and np.median(np.abs(values)) <= 360
            marks = {*values[np.abs(values) > 360]} if in_degrees else set()
        else:
            far = (np.abs(values) > 2 * HIGHEST) | np.isin(np.abs(values), _FAR_MARKS)
            marks = {*values[far]} | {mark for mark in (-999.0, 999.0) if _stands_out(values, mark)}
        if 0 < len(marks) <= 3 or declared:  # many such numbers suggest another unit
            marks_by_column[roles[role]] = tuple(sorted(map(float, marks)))
    return {column: marks for column, marks in marks_by_column.items() if marks}


def _stands_out(values: npt.NDArray[np.float64], mark: float) -> bool:
    """Return whether a number occurs at least three times, far to one side of all others."""
    others = values[values != mark]
    if values.size - others.size < 3 or not others.size:
        return False
    return bool((others.min() > mark + 100) if mark < 0 else (others.max() < mark - 100))


def coordinate_system(
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
    crs: str | None,
    xy_units: str | None,
    guesses: list[Doubt],
    questions: list[Doubt],
) -> tuple[str | None, str | None]:
    """Return the CRS and units of x and y, from the arguments or else from their ranges."""
    farthest = float(np.nanmax(np.hypot(x, y), initial=0))
    if crs is not None:
        import pyproj

        try:
            geographic = pyproj.CRS(crs).is_geographic
        except pyproj.exceptions.CRSError:
            raise WrongCallError(
                f"crs: expected a CRS known to PROJ, such as EPSG:3031, found {crs!r}"
            ) from None
        crs, xy_units = crs.upper(), "degrees" if geographic else xy_units
        if geographic:
            return crs, xy_units
    elif xy_units == "degrees" or (xy_units is None and _is_degrees(x, y)):
        text = f"x and y are longitude and latitude on WGS84 ({_range(x)}; {_range(y)})"
        guesses.append(Doubt(f"{text}: EPSG:4326", ("crs",)))
        return "EPSG:4326", "degrees"
    if xy_units in (None, "degrees"):  # a projected CRS is not in degrees
        xy_units = "km" if farthest <= ANTARCTIC_RADIUS / 1000 else "m"
        if xy_units == "km":
            guesses.append(Doubt(f"x and y are in km ({_range(x)}; {_range(y)})", ("xy_units",)))
    if crs is None:
        if farthest * (1000 if xy_units == "km" else 1) <= ANTARCTIC_RADIUS:
            text = f"x and y are polar stereographic ({_range(x)}; {_range(y)}): EPSG:3031"
            guesses.append(Doubt(text, ("crs",)))
            crs = "EPSG:3031"
        else:
            text = f"what is the coordinate reference system of x and y ({_range(x)}; {_range(y)})?"
            questions.append(Doubt(text, ("crs",)))
    return crs, xy_units


def _range(values: npt.NDArray[np.float64]) -> str:
    if not np.isfinite(values).any():
        return "no values"
    return f"{np.nanmin(values):.6g} to {np.nanmax(values):.6g}"


def positive_column(table: Table, roles: Mapping[str, str]) -> str | None:
    """Return the column that is positive wherever there is a bed; the bed itself may be 0."""
    column = roles.get("thickness")
    if column is None or column.upper() == "BOTTOM":  # CReSIS writes 0 for no bed
        return column
    marked = any(field in ("", "*") for field in table.texts[column])
    return column if marked and not (table.numbers[column] <= 0).any() else None


def check_missing_marks(table: Table, roles: Mapping[str, str]) -> None:
    """Reject words for missing values that pipelines cannot read."""
    for column in (roles[role] for role in MEASURED if role in roles):
        words = {field for field in table.texts[column] if field.lower() in UNREADABLE_MARKS}
        if words:
            raise invalid_sample(
                table.path,
                field=table.name(column),
                expected="nan, * or an empty field for missing values",
                found=", ".join(map(repr, sorted(words))),
                remedy="replace them with nan",
            )
