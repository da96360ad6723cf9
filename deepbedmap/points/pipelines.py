"""A survey pipeline: what its reader and its filters mean.

PDAL's stages (https://pdal.io) ``readers.text``, ``filters.assign``, ``filters.expression`` and
``filters.reprojection`` become the layout of the raw files and steps on their columns, which
numpy and pyproj carry out.
"""

from __future__ import annotations

import ast
import operator
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyproj

from deepbedmap import schemas
from deepbedmap.errors import InvalidDataError
from deepbedmap.files.checksums import digest

if TYPE_CHECKING:
    from pathlib import Path

    from deepbedmap.errors import Fault

Columns = dict[str, npt.NDArray[Any]]
"""Columns of records by name: float64, all of the same length."""


@dataclass(frozen=True)
class Assign:
    """``filters.assign``: compute a column from others, everywhere or where a condition holds."""

    stage: int
    target: str
    value: ast.expr
    condition: ast.expr | None


@dataclass(frozen=True)
class Keep:
    """``filters.expression``: keep the records for which a condition holds."""

    stage: int
    condition: ast.expr


@dataclass(frozen=True)
class Reproject:
    """``filters.reprojection``: transform X and Y to another CRS; Z is unchanged."""

    stage: int
    source: str
    transformer: pyproj.Transformer


Step = Assign | Keep | Reproject


@dataclass(frozen=True)
class Layout:
    """Columns of a raw file and their separator (a space means any white space)."""

    names: tuple[str, ...]
    separator: str
    skip: int

    def split(self, line: str) -> list[str]:
        """Return the fields of a line."""
        if self.separator == " ":
            return line.split()
        return [text.strip(" ") for text in line.split(self.separator)]

    def named(self, *meanings: str) -> str | None:
        """Return the first of these columns that the file has, ignoring case; None if none."""
        names = {name.upper(): name for name in self.names}
        return next((names[meaning] for meaning in meanings if meaning in names), None)

    def fits(self, other: Layout) -> bool:
        """Whether columns that both layouts name are in the same positions."""
        return (self.skip, len(self.names)) == (other.skip, len(other.names)) and all(
            ours == theirs or theirs.startswith("(")
            for ours, theirs in zip(self.names, other.names, strict=True)
        )

    @property
    def line(self) -> str | None:
        """Column that names the flight line."""
        return self.named("FRAME", "FLIGHTID", "LINE_NAME", "TRAJECTORY_ID")

    @property
    def day_and_clock(self) -> tuple[str, str] | None:
        """Columns of the date and the time of day."""
        day = self.named("FRAME", "DATE")
        clock = self.named("UTCTIMESOD", "UTC", "TIME", "TIME_UTC")
        return (day, clock) if day and clock else None

    def __str__(self) -> str:
        mark = {" ": "white space", "\t": "tabs"}.get(self.separator, repr(self.separator))
        return f"{len(self.names)} fields separated by {mark} ({','.join(self.names)})"


@dataclass(frozen=True)
class Recipe:
    """A checked pipeline: its stages, and its filters as steps."""

    path: Path
    document: schemas.Document
    sha256: str
    reader: dict[str, Any]
    filters: tuple[dict[str, Any], ...]
    steps: tuple[Step, ...]
    crs: str | None

    @classmethod
    def load(cls, path: Path) -> Recipe:
        """Read a pipeline and check it; raise InvalidDataError with all its faults."""
        document = schemas.validate_file(path, "pipeline")
        stages = document.content["pipeline"]
        crs = stages[0].get("override_srs")
        steps: list[Step] = []
        faults: list[Fault | str] = []
        for number, stage in enumerate(stages):
            kind = stage["type"]
            if (kind == "readers.text") != (number == 0) and not faults:
                place = ("pipeline", number, "type")
                expected = "readers.text as the first stage, and no other"
                faults.append(document.fault(place, expected, kind))
            try:
                if "override_srs" in stage:
                    _crs(stage["override_srs"])
                if kind == "filters.assign":
                    values = stage["value"]
                    for text in [values] if isinstance(values, str) else values:
                        steps.append(_assign(number, text))
                elif kind == "filters.expression":
                    steps.append(Keep(number, _parse(stage["expression"])))
                elif kind == "filters.reprojection":
                    crs = stage["out_srs"]
                    steps.append(_reproject(number, stage["in_srs"], crs))
            except StepError as error:
                faults.append(document.fault(("pipeline", number), error.expected, error.found))
        recipe = cls(
            path=path,
            document=document,
            sha256=digest(path).sha256,
            reader=stages[0],
            filters=tuple(stage for stage in stages if stage["type"].startswith("filters.")),
            steps=tuple(steps),
            crs=crs,
        )
        try:
            _ = recipe.own_layout
        except InvalidDataError as error:
            faults += error.faults
        if faults:
            raise InvalidDataError(*faults)
        return recipe

    @property
    def skip(self) -> int:
        """Lines before the first record; without ``header``, PDAL reads one more as the header."""
        return int(self.reader.get("skip", 0)) + ("header" not in self.reader)

    @property
    def own_layout(self) -> Layout | None:
        """Layout from the pipeline's own header; None if it has none."""
        if "header" not in self.reader:
            return None
        place = self.document.fault(("pipeline", 0, "header"))
        return self.layout(self.reader["header"], place)

    @property
    def inferred(self) -> str | None:
        """Column that the pipeline adds to mark inferred beds; None if it adds none."""
        targets = (step.target for step in self.steps if isinstance(step, Assign))
        return next((name for name in targets if name.upper() == "BED_INFERRED"), None)

    def layout(self, header: str, place: Fault) -> Layout:
        """Return the layout that a header describes.

        ``place`` is where the header is, in the pipeline or in a raw file, for messages.
        """
        separator = self.reader.get("separator")
        if separator is None:  # PDAL then takes the first character that cannot be in a name
            mark = re.search(r"[^A-Za-z0-9]", header)
            separator = mark[0] if mark else " "
        layout = Layout((), separator, self.skip)
        names = tuple(_canonical(name.strip('"')) for name in layout.split(header))
        layout = replace(layout, names=names)
        faults: list[Fault] = []
        for name in dict.fromkeys(names):
            if not _NAME.fullmatch(name):
                expected = f"names of letters, digits and _ that start with a letter: {layout}"
                faults.append(replace(place, expected=expected, found=repr(name)))
            if [other.upper() for other in names].count(name.upper()) > 1:
                expected = "each name once, whatever its case"
                faults.append(replace(place, expected=expected, found=f"{name!r} again"))
        # The steps are tried on empty columns: that shows whether the columns they need exist.
        columns: Columns = {name: np.empty(0) for name in names}
        for step in self.steps:
            try:
                _apply(step, columns, 0)
            except StepError as error:
                where = ("pipeline", step.stage)
                faults.append(self.document.fault(where, error.expected, error.found))
                if isinstance(step, Assign):
                    columns[step.target] = np.empty(0)
        for name in "XYZ":
            if name not in columns:
                expected = f"a column {name}, or a filters.assign that computes it"
                faults.append(replace(place, expected=expected, found=", ".join(names)))
        if faults:
            raise InvalidDataError(*faults)
        return layout

    def run(self, columns: Columns, size: int) -> npt.NDArray[np.bool_]:
        """Apply the steps to columns of ``size`` records, and return which records they keep."""
        kept = np.ones(size, dtype=bool)
        for step in self.steps:
            chosen = _apply(step, columns, size)
            if chosen is not None:
                kept &= chosen
        return kept

    @property
    def reprojected(self) -> tuple[str, ...]:
        """CRSs from which coordinates are reprojected."""
        return tuple(step.source for step in self.steps if isinstance(step, Reproject))

    def columns_used(self) -> set[str]:
        """Return the columns that must be numbers: coordinates, bed, and those in expressions."""
        used = {"X", "Y", "Z"}
        for step in self.steps:
            if isinstance(step, Assign):
                used |= _names(step.value)
                used |= _names(step.condition) if step.condition else set()
            elif isinstance(step, Keep):
                used |= _names(step.condition)
        return used


class StepError(ValueError):
    """What is wrong with a stage of a pipeline."""

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(expected, found)
        self.expected = expected
        self.found = found


_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_TOKEN = re.compile(
    r"\s*(?:(?P<number>[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?)"
    r"|(?P<name>[A-Za-z][A-Za-z0-9_]*)"
    r"|(?P<symbol>&&|\|\||[=!<>]=|[-+*/<>()!]))"
)
_LONGEST = 400  # characters: each operator may nest one level deeper, in parsing and evaluating
_WORDS = {"&&": " and ", "||": " or ", "!": " not "}
_ARITHMETIC: dict[type, Any] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: lambda left, right: left / np.where(right == 0, np.nan, right),  # as in PDAL
}
_COMPARISON: dict[type, Any] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def _canonical(name: str) -> str:
    return name.upper() if name.upper() in ("X", "Y", "Z") else name


def _assign(stage: int, text: str) -> Assign:
    target, equals, value = text.partition("=")
    if not equals or not _NAME.fullmatch(target.strip()):
        raise StepError("an assignment such as 'Z = ELEVATION - BOTTOM'", repr(text))
    value, *condition = re.split(r"\bWHERE\b", value, maxsplit=1, flags=re.IGNORECASE)
    return Assign(
        stage,
        _canonical(target.strip()),
        _parse(value),
        _parse(condition[0]) if condition else None,
    )


def _reproject(stage: int, source: str, target: str) -> Reproject:
    transformer = pyproj.Transformer.from_crs(_crs(source), _crs(target), always_xy=True)
    return Reproject(stage, source, transformer)


def _crs(name: str) -> pyproj.CRS:
    try:
        crs = pyproj.CRS(name)
    except pyproj.exceptions.CRSError:
        raise StepError("a coordinate reference system that PROJ knows", repr(name)) from None
    if len(crs.axis_info) != 2:
        raise StepError("a horizontal reference system, since heights are not changed", repr(name))
    return crs


def _parse(text: str) -> ast.expr:
    """Parse an expression of PDAL's as one of Python's, with ``_`` before each name.

    PDAL's operators have the precedence of Python's once && is ``and``, || is ``or`` and ! is
    ``not``. The underscore keeps a column from being a keyword of Python's. Nothing is evaluated
    here, and :func:`_evaluate` handles neither calls nor attributes.
    """
    python = ""
    position = 0
    text = text.strip()
    if len(text) > _LONGEST:
        raise StepError(f"an expression of at most {_LONGEST} characters", f"{len(text)}")
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            expected = "names, numbers and + - * / ( ) < <= > >= == != && || !"
            raise StepError(expected, f"{text[position:].split()[0]!r} in {text!r}")
        position = token.end()
        if token["number"]:
            python += f" {float(token['number'])!r} "
        elif token["name"]:
            python += f" _{_canonical(token['name'])} "
        else:
            python += _WORDS.get(token["symbol"], token["symbol"])
    try:
        return ast.parse(python.strip(), mode="eval").body
    except (SyntaxError, RecursionError, MemoryError):
        raise StepError("a complete expression", repr(text)) from None


def _names(node: ast.expr) -> set[str]:
    return {part.id[1:] for part in ast.walk(node) if isinstance(part, ast.Name)}


def _evaluate(node: ast.expr, columns: Columns, truth: bool = False) -> npt.NDArray[Any]:
    """Evaluate an expression to float64 or, with ``truth``, a condition to bool."""
    value: npt.NDArray[Any]
    match node:
        case ast.Constant(value=float(number)) if not truth:
            return np.asarray(number)
        case ast.Name(id=name) if not truth:
            if name[1:] not in columns:
                expected = f"a column of the header ({', '.join(columns)})"
                raise StepError(expected, repr(name[1:]))
            return columns[name[1:]]
        case ast.UnaryOp(op=ast.USub(), operand=operand) if not truth:
            return -_evaluate(operand, columns)
        case ast.BinOp(left=left, op=op, right=right) if not truth and type(op) in _ARITHMETIC:
            with np.errstate(all="ignore"):
                value = _ARITHMETIC[type(op)](_evaluate(left, columns), _evaluate(right, columns))
            return value
        case ast.Compare(left=left, ops=[op], comparators=[right]) if truth:
            value = _COMPARISON[type(op)](_evaluate(left, columns), _evaluate(right, columns))
            return value
        case ast.UnaryOp(op=ast.Not(), operand=operand) if truth:
            return ~_evaluate(operand, columns, truth)
        case ast.BoolOp(op=op, values=values) if truth:
            join = np.logical_and if isinstance(op, ast.And) else np.logical_or
            value = _evaluate(values[0], columns, truth)
            for other in values[1:]:
                value = join(value, _evaluate(other, columns, truth))
            return value
    text = re.sub(r"\b_(?=[A-Za-z])", "", ast.unparse(node))
    raise StepError("a comparison" if truth else "a number", repr(text))


def _apply(step: Step, columns: Columns, size: int) -> npt.NDArray[np.bool_] | None:
    """Apply a step to columns of ``size`` records; return which it keeps, None for all."""
    if isinstance(step, Keep):
        return _evaluate(step.condition, columns, truth=True)
    if isinstance(step, Assign):
        value = np.broadcast_to(_evaluate(step.value, columns), size)
        if step.condition is not None:
            chosen = _evaluate(step.condition, columns, truth=True)
            # PDAL sets a new column to 0 where the condition is not met.
            value = np.where(chosen, value, columns.get(step.target, 0.0))
        columns[step.target] = value
    elif {"X", "Y"} <= columns.keys():
        columns["X"], columns["Y"] = step.transformer.transform(columns["X"], columns["Y"])
    else:
        raise StepError("columns X and Y before this stage", ", ".join(columns))
    return None
