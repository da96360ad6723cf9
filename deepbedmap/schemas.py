"""Read flat files (YAML, JSON) and hold them to the schemas of ``validation/``.

Every fault names the file and its line; all faults of a file are told at once.
"""

from __future__ import annotations

import difflib
import functools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from deepbedmap import repository
from deepbedmap.errors import Fault, InvalidDataError, MissingDataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd
    import xarray as xr

    Lines = Sequence[int] | npt.NDArray[np.intp] | None

Place = tuple[str | int, ...]

MOST_VALUES = 100_000
"""How many values a file may hold once its aliases are written out."""


MOST_LEVELS = 50
"""How deep lists and mappings may be nested."""

MOST_ALIKE = 20
"""How many faults of one kind in one column are told one by one."""


@dataclass(frozen=True)
class Document:
    """What a YAML or JSON file says, and on which line it says it.

    Attributes
    ----------
    path
        The file.
    content
        Lists, mappings, text, numbers, booleans and None.
    lines
        Line (from 1) of each place. A place is the keys and positions that lead to a value:
        ``content["pipeline"][0]["skip"]`` is at ``("pipeline", 0, "skip")``.
    """

    path: Path
    content: Any
    lines: dict[Place, int]

    def line(self, *place: str | int) -> int | None:
        """Line of a place or, where it is not in the file, of the nearest place around it."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place)

    def fault(
        self,
        place: Place,
        expected: str | None = None,
        found: str | None = None,
        remedy: str | None = None,
    ) -> Fault:
        """Return a fault of this file at a place, with its line and, in the registry, its entry."""
        entry, field = None, place
        if isinstance(self.content, list) and place:
            entry, field = _entry(self.content, place[0]), place[1:]
        elif isinstance(self.content, dict) and len(place) > 1 and place[0] == "datasets":
            entry, field = _entry(self.content["datasets"], place[1]), place[2:]
        return Fault(
            file=str(self.path),
            line=self.line(*place),
            entry=entry,
            field=_field(field) or None,
            expected=expected,
            found=found,
            remedy=remedy,
        )


def load(path: str | Path) -> Document:
    r"""Read a YAML file or, where its name ends in ``.json``, a JSON file.

    Stricter than the usual readers, which keep the last of two equal keys in silence: repeated
    keys, tags, infinite numbers, NaN and aliases that blow up a few lines to gigabytes are faults.
    A date is text.

    Raises
    ------
    MissingDataError
        There is no such file.
    InvalidDataError
        It cannot be read; each fault with its line.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "survey.yml")
    >>> _ = path.write_text("citekey: King2016Rutford\nfiles:\n  - bed.txt\n")
    >>> document = load(path)
    >>> document.content
    {'citekey': 'King2016Rutford', 'files': ['bed.txt']}
    >>> document.line("files", 0)
    3
    """
    path = Path(path)
    text = read_text(path)
    try:
        if path.suffix == ".json":
            _check_json(path, text)
            text = text.replace("\t", " ")  # a blank in JSON; YAML wants none between tokens
        _check_depth(text)
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
        finally:
            loader.dispose()
        reader = _Reader()
        content = reader.content(root, ()) if root is not None else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise InvalidDataError(
            Fault(
                str(path),
                line=mark.line + 1 if mark else None,
                expected="JSON" if path.suffix == ".json" else "YAML",
                found=": ".join(filter(None, ("an error", error.context, error.problem))),
                remedy="indent with blanks, not tabs" if _of_a_tab(error) else None,
            )
        ) from error
    except yaml.reader.ReaderError as error:
        line = text.encode()[: error.position].count(b"\n") + 1
        found = f"an error: {error.reason}"
        raise InvalidDataError(Fault(str(path), line, expected="YAML", found=found)) from error
    except (RecursionError, _TooMuchError) as error:
        raise InvalidDataError(
            Fault(
                str(path),
                expected=f"a few levels of nesting and at most {MOST_VALUES:,} values",
                found="more",
            )
        ) from error
    if root is None:
        raise InvalidDataError(
            Fault(str(path), expected="some content", found="nothing but comments")
        )
    document = Document(path, content, reader.lines)
    if reader.refused:
        raise InvalidDataError(
            *(
                replace(document.fault(place, expected, found), line=line)
                for place, line, expected, found in reader.refused
            )
        )
    return document


def faults(document: Document, schema: str) -> list[Fault]:
    """Return what is wrong with a document, in the order of its lines.

    Parameters
    ----------
    document
        From :func:`load`.
    schema
        ``"registry"``, ``"pipeline"``, ``"catalog"`` or ``"table"`` (a pandera schema): the JSON
        Schema ``validation/<schema>.schema.json`` (Draft 2020-12). The ``description`` of the part
        that fails says what was expected.
    """
    path = repository.root() / "validation" / f"{schema}.schema.json"
    try:
        return _faults_by(_validator(path), document)
    except RecursionError as error:
        fault = Fault(str(path), expected="a schema that ends", found="one that leads to itself")
        raise InvalidDataError(fault) from error


def _faults_by(validator: Draft202012Validator, document: Document) -> list[Fault]:
    found = (
        fault
        for error in validator.iter_errors(document.content)
        for fault in _faults_of(document, error)
    )
    return sorted(dict.fromkeys(found), key=lambda fault: fault.line or 0)


def validate(document: Document, schema: str) -> None:
    """Raise :class:`InvalidDataError` with all :func:`faults` of a document, if it has any."""
    if found := faults(document, schema):
        raise InvalidDataError(*found)


def validate_file(path: str | Path, schema: str) -> Document:
    """Read a file with :func:`load`, :func:`validate` it, and return the document."""
    document = load(path)
    validate(document, schema)
    return document


def near(word: str, words: Iterable[str]) -> str | None:
    """Suggest the words most like one that is not known.

    Examples
    --------
    >>> near("King2016Rutfort", ["King2016Rutford", "King2011Carlson"])
    'did you mean King2016Rutford?'
    """
    matches = difflib.get_close_matches(word, list(words), n=3)
    return f"did you mean {' or '.join(matches)}?" if matches else None


def schema_faults(path: str | Path) -> list[Fault]:
    """Return what is wrong with a schema file, in the order of its lines.

    A JSON Schema is held to Draft 2020-12; a pandera schema to ``table.schema.json``, since pandera
    ignores keys and checks that it does not know.

    Raises
    ------
    MissingDataError, InvalidDataError
        As :func:`load` does.
    """
    document = load(path)
    if document.path.suffix == ".json":
        return _json_schema_faults(document)
    return faults(document, "table") or list(_refused(document))


def _refused(document: Document) -> Iterator[Fault]:
    """Tell which parts of a well-formed schema pandera refuses, such as an empty range."""
    for group in ("columns", "data_vars", "coords"):
        for name, part in document.content.get(group, {}).items():
            try:
                _built({**document.content, group: {name: part}})
            except (TypeError, ValueError) as error:
                yield document.fault((group, name), "what pandera takes", str(error))


@functools.cache
def pandera_schema(name: str) -> Any:
    """Return the schema ``validation/<name>.yml`` as a ``DataFrameSchema`` or ``DatasetSchema``."""
    path = repository.root() / "validation" / f"{name}.yml"
    if found := schema_faults(path):
        raise InvalidDataError(*found)
    return _built(load(path).content)


def _built(content: dict[str, Any]) -> Any:
    from pandera.io import pandas_io, xarray_io

    from deepbedmap import checks  # noqa: F401  (registers the checks that schemas name)

    content = deepcopy(content)  # pandera takes options out of what it is given
    if content["schema_type"] == "dataset":
        return xarray_io.deserialize_schema(content)
    return pandas_io.deserialize_schema(content)


def table_faults(
    table: pd.DataFrame, schema: str, path: str | Path, lines: Lines = None
) -> list[Fault]:
    """Return what is wrong with a table: first its columns, then its rows in their order.

    Parameters
    ----------
    table
        Any table. Of picks, ``attrs["crs"]`` is the coordinate reference system (EPSG:3031 where
        it is not stated).
    schema
        ``"points"``, ``"raw_cresis"``, ``"raw_bedmap"`` or ``"tiles"``: the pandera schema
        ``validation/<schema>.yml``. The ``description`` of a column says what was expected.
    path
        Where the table comes from.
    lines
        Line of each row in that file; None for a file without lines, whose rows are counted
        from 0.

    Returns
    -------
    list of Fault
        At most :data:`MOST_ALIKE` of one kind in one column; one more counts those beyond.

    Examples
    --------
    >>> import pandas as pd
    >>> picks = pd.DataFrame({"x": [0.0, 9e6], "y": [-5e5, 0.0], "z": [float("nan"), -120.0]})
    >>> for fault in table_faults(picks, "points", "picks.csv", lines=[2, 3]):
    ...     print(fault.line, fault.field, fault.found)
    2 z nothing
    3 None x 9000000, y 0
    """
    return _pandera_faults(table.reset_index(drop=True), pandera_schema(schema), path, lines)


def grid_faults(grid: xr.Dataset, path: str | Path) -> list[Fault]:
    """Return what is wrong with a grid of bed elevation, by ``validation/grid.yml``.

    Parameters
    ----------
    grid
        With the elevations as variable ``z``; read chunk by chunk where it is chunked.
    path
        Where it comes from.
    """
    from pandera.config import ValidationDepth, config_context

    # Without this, pandera does not look at the values of a grid that is chunked.
    with config_context(validation_depth=ValidationDepth.SCHEMA_AND_DATA):
        return _pandera_faults(grid, pandera_schema("grid"), path, None)


def row_faults(
    path: str | Path,
    rows: Sequence[int] | npt.NDArray[np.intp],
    lines: Lines,
    field: str | None,
    expected: str,
    found: Callable[[int], str],
) -> Iterator[Fault]:
    """Tell faults of one kind in some rows of a column: the first ones, and how many are beyond."""
    for row in rows[:MOST_ALIKE]:
        line, entry = (None, f"row {row}") if lines is None else (int(lines[row]), None)
        yield Fault(str(path), line, entry, field, expected, found(row))
    if len(rows) > MOST_ALIKE:
        line = None if lines is None else int(lines[rows[MOST_ALIKE]])
        count = f"and {len(rows) - MOST_ALIKE:,} more like these"
        yield Fault(str(path), line, None, field, expected, remedy=count)


def _pandera_faults(data: Any, schema: Any, path: str | Path, lines: Lines) -> list[Fault]:
    from pandera.errors import SchemaErrors

    try:
        schema.validate(data, lazy=True)
    except SchemaErrors as errors:
        violations = errors.schema_errors
    else:
        return []
    parts = getattr(schema, "columns", None) or {**schema.data_vars, **schema.coords}
    # A check breaks where a column is missing or of another type, which is told anyway.
    sound = [each for each in violations if each.reason_code.name != "CHECK_ERROR"]
    told = (
        fault
        for violation in sound or violations
        for fault in _faults_of_violation(violation, data, parts, path, lines)
    )
    return sorted(dict.fromkeys(told), key=lambda fault: fault.line or 0)


def _faults_of_violation(
    violation: Any, data: Any, parts: dict[str, Any], path: str | Path, lines: Lines
) -> Iterator[Fault]:
    """Tell what pandera found: violation is its SchemaError, parts are columns or variables."""
    from deepbedmap import checks

    reason, cases, check = violation.reason_code.name, violation.failure_cases, violation.check
    absent = reason in ("COLUMN_NOT_IN_DATAFRAME", "COLUMN_NOT_IN_SCHEMA")
    name = str(cases) if absent else violation.schema.name
    part = parts.get(name)
    expected = part.description if part else getattr(check, "error", None)
    remedy = None
    match reason:
        case "COLUMN_NOT_IN_DATAFRAME":
            found = "nothing of this name"
        case "COLUMN_NOT_IN_SCHEMA":
            expected, found = f"one of {', '.join(parts)}", "an unknown column"
            remedy = near(name, parts)
        case "COLUMN_NOT_ORDERED":
            expected, found = f"columns in the order {', '.join(parts)}", ", ".join(data)
        case "WRONG_DATATYPE":
            expected, found = f"{expected} ({parts[name].dtype})", str(data[name].dtype)
        case "MISMATCH_INDEX":
            expected = f"{expected} along {', '.join(parts[name].dims)}"
            found = f"it along {', '.join(data[name].dims)}"
        case "CHECK_ERROR":
            found = str(cases)
        case _ if getattr(check, "name", None) in checks.WHOLE:
            found = checks.WHOLE[check.name](data, **check.statistics) or ""
        case _:
            shown = [name] if part else [*checks.ROWS[check.name][1]]
            rows = sorted(set(cases["index"]))
            yield from row_faults(
                path, rows, lines, name, str(expected), lambda row: _said_of_row(data, row, shown)
            )
            return
    yield Fault(str(path), None, None, name, expected, found, remedy)


def _said_of_row(table: pd.DataFrame, row: int, columns: Sequence[str]) -> str:
    values = []
    for name, value in table[[*columns]].iloc[row].items():
        text = f"{value:.9g}" if isinstance(value, float) else str(value)
        text = "nothing" if text in ("nan", "None", "NaT", "<NA>") else text
        values.append(text if len(columns) == 1 else f"{name} {text}")
    return ", ".join(values)


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, with or without a byte-order mark.

    Raises
    ------
    MissingDataError
        There is no such file.
    InvalidDataError
        It cannot be read, is not UTF-8 (the line is named) or is empty.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise MissingDataError(f"{path}: there is no such file") from error
    except OSError as error:
        raise InvalidDataError(
            Fault(str(path), expected="a file that can be read", found=error.strerror)
        ) from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidDataError(
            Fault(
                str(path),
                line=data.count(b"\n", 0, error.start) + 1,
                expected="text in UTF-8",
                found=f"the byte 0x{data[error.start]:02x}",
            )
        ) from error
    if not text.strip():
        raise InvalidDataError(Fault(str(path), expected="some content", found="an empty file"))
    return text


def _check_json(path: Path, text: str) -> None:
    def refuse(constant: str) -> None:
        raise InvalidDataError(Fault(str(path), expected="a finite number", found=constant))

    try:
        json.loads(text, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise InvalidDataError(
            Fault(
                str(path),
                line=error.lineno,
                expected="JSON",
                found=f"an error at column {error.colno}: {error.msg.lower()}",
            )
        ) from error


def _of_a_tab(error: yaml.MarkedYAMLError) -> bool:
    said = str(error.problem)
    return "'\\t'" in said or "tab character" in said or "character that cannot start" in said


def _check_depth(text: str) -> None:
    """Refuse deep nesting before it is composed: PyYAML's composer in C would run out of stack."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MOST_LEVELS:
                raise _TooMuchError
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The safe loader, in C where PyYAML was built with it; it leaves dates as text."""

    yaml_implicit_resolvers = {  # noqa: RUF012  (an attribute of the base class)
        first: [(tag, regexp) for tag, regexp in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class _TooMuchError(Exception):
    pass


class _Reader:
    """Turns YAML's nodes into plain values, and keeps their lines and what it refuses."""

    def __init__(self) -> None:
        self.lines: dict[Place, int] = {}
        self.refused: list[tuple[Place, int, str, str]] = []  # place, line, expected, found
        self._constructor = yaml.SafeLoader("")
        self._values = 0

    def content(self, node: yaml.Node, place: Place) -> Any:
        self._values += 1
        if self._values > MOST_VALUES:
            raise _TooMuchError
        line = node.start_mark.line + 1
        self.lines.setdefault(place, line)
        if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
            return [self.content(item, (*place, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
            return self._mapping(node, place)
        if not isinstance(node, yaml.ScalarNode) or node.tag not in _SCALARS:
            self.refused.append((place, line, "a plain value", f"the tag {node.tag}"))
            return None
        try:
            value = self._constructor.construct_object(node)
        except (yaml.YAMLError, ValueError, KeyError):
            self.refused.append((place, line, "a plain value", repr(node.value)))
            return None
        if isinstance(value, float) and not math.isfinite(value):
            self.refused.append((place, line, "a finite number, or null", repr(node.value)))
            return None
        return value

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key, line = key_node.value, key_node.start_mark.line + 1
            inside = (*place, key)
            if key_node.tag != "tag:yaml.org,2002:str":
                what = repr(key) if isinstance(key_node, yaml.ScalarNode) else "a list or mapping"
                self.refused.append((place, line, "a key that is text", what))
            elif key in mapping:
                first = f"it twice (first on line {self.lines[inside]})"
                self.refused.append((inside, line, "each key once", first))
            else:
                self.lines[inside] = line
                mapping[key] = self.content(value_node, inside)
        return mapping


_SCALARS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "null", "bool", "int", "float")}


_META = Draft202012Validator(
    Draft202012Validator.META_SCHEMA, format_checker=Draft202012Validator.FORMAT_CHECKER
)


@functools.cache
def _validator(path: Path) -> Draft202012Validator:
    document = load(path)
    if found := _json_schema_faults(document):
        raise InvalidDataError(*found)
    checker = Draft202012Validator.FORMAT_CHECKER
    return Draft202012Validator(document.content, format_checker=checker)


def _json_schema_faults(document: Document) -> list[Fault]:
    found = [
        replace(fault, expected="JSON Schema, Draft 2020-12", found=fault.expected)
        for fault in _faults_by(_META, document)
    ]
    for place, reference in _references(document.content):
        if not _resolves(document.content, reference):
            expected = "a part of this schema, such as #/$defs/text"
            found.append(document.fault(place, expected, repr(reference)))
    return found


def _references(content: Any, place: Place = ()) -> Iterator[tuple[Place, str]]:
    if isinstance(content, dict):
        if isinstance(content.get("$ref"), str):
            yield (*place, "$ref"), content["$ref"]
        parts: Iterable[tuple[Any, Any]] = content.items()
    else:
        parts = enumerate(content) if isinstance(content, list) else ()
    for key, value in parts:
        yield from _references(value, (*place, key))


def _resolves(content: Any, reference: str) -> bool:
    first, *keys = reference.split("/")
    for key in keys:
        content = content.get(key) if isinstance(content, dict) else None
    return first == "#" and isinstance(content, dict | bool)


def _faults_of(document: Document, error: ValidationError) -> Iterator[Fault]:
    place: Place = tuple(error.absolute_path)
    schema: dict[str, Any] = error.schema if isinstance(error.schema, dict) else {}
    instance: Any = error.instance
    if error.validator == "additionalProperties":
        known = schema.get("properties", {})
        for key in instance:
            if key not in known:
                yield document.fault(
                    (*place, key),
                    expected=f"one of {', '.join(known)}" if len(known) < 20 else "a known key",
                    found=f"the unknown key {key!r}",
                    remedy=near(key, known),
                )
    elif error.validator == "required":
        for key in schema["required"]:
            if key not in instance:
                wanted = schema.get("properties", {}).get(key)
                described = wanted.get("description") if isinstance(wanted, dict) else None
                yield document.fault((*place, key), described or "a value", "nothing")
    else:
        yield document.fault(place, schema.get("description", error.message), _said(instance))


def _said(value: Any) -> str:
    """Name a value as its file would, in a few words."""
    if isinstance(value, list):
        return f"a list of {len(value)}" if value else "an empty list"
    if isinstance(value, dict):
        return f"a mapping with {', '.join(value)}" if value else "an empty mapping"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _entry(entries: Any, index: str | int) -> str | None:
    if not isinstance(index, int) or not isinstance(entries, list):
        return None
    entry = entries[index]
    citekey = entry.get("citekey") if isinstance(entry, dict) else None
    return citekey if isinstance(citekey, str) and citekey else f"number {index + 1}"


def _field(place: Iterable[str | int]) -> str:
    """Write a place as text.

    Examples
    --------
    >>> _field(("files", 0, "sha256"))
    'files[0].sha256'
    """
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return text.removeprefix(".")
