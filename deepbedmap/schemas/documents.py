"""Read YAML and JSON files, and keep the line number of every value.

Stricter than the usual readers: repeated keys, tags, NaN, infinite numbers and excessive nesting
are faults. All faults of a file are reported together.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from deepbedmap.errors import Fault, InvalidDataError, MissingDataError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

Place = tuple[str | int, ...]
MOST_VALUES = 100_000
"""Maximum number of values in a file once its aliases are expanded."""

MOST_LEVELS = 50
"""Maximum depth of nested lists and mappings."""


@dataclass(frozen=True)
class Document:
    """The content of a YAML or JSON file, and the line of each value.

    Attributes
    ----------
    path
        The file.
    content
        Lists, mappings, text, numbers, booleans and None.
    lines
        Line (from 1) of each place. A place is the sequence of keys and positions that leads to a
        value:
        ``content["pipeline"][0]["skip"]`` is at ``("pipeline", 0, "skip")``.
    """

    path: Path
    content: Any
    lines: dict[Place, int]

    def line(self, *place: str | int) -> int | None:
        """Return the line of a place or, if the file lacks it, of the nearest enclosing place."""
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
    r"""Read a YAML file or, if its name ends in ``.json``, a JSON file.

    Stricter than the usual readers, which silently keep the last of two equal keys: repeated keys,
    tags, infinite numbers, NaN and aliases that expand a few lines to gigabytes are faults. Dates
    are read as text.

    Parameters
    ----------
    path
        Path of the file, in UTF-8.

    Raises
    ------
    MissingDataError
        The file does not exist.
    InvalidDataError
        The file cannot be read; the error lists each fault with its line.

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
    reader = _Reader()
    try:
        root = _root_node(path, text)
        content = None if root is None else reader.content(root, ())
    except (
        yaml.MarkedYAMLError,
        yaml.reader.ReaderError,
        RecursionError,
        _TooMuchError,
    ) as error:
        raise InvalidDataError(_syntax_fault(path, text, error)) from error
    if root is None:
        raise InvalidDataError(
            Fault(str(path), expected="some content", found="nothing but comments")
        )
    document = Document(path, content, reader.lines)
    if reader.rejected:
        raise InvalidDataError(
            *(
                replace(document.fault(place, expected, found), line=line)
                for place, line, expected, found in reader.rejected
            )
        )
    return document


def _root_node(path: Path, text: str) -> yaml.Node | None:
    """Compose the nodes of a text; None if it has no content."""
    if path.suffix == ".json":
        _check_json(path, text)
        text = text.replace("\t", " ")  # a blank in JSON; YAML allows no tab between tokens
    _check_depth(text)
    loader = _Loader(text)
    try:
        root: yaml.Node | None = loader.get_single_node()
    finally:
        loader.dispose()
    return root


def _syntax_fault(path: Path, text: str, error: Exception) -> Fault:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        return Fault(
            str(path),
            line=mark.line + 1 if mark else None,
            expected="JSON" if path.suffix == ".json" else "YAML",
            found=": ".join(filter(None, ("an error", error.context, error.problem))),
            remedy="indent with blanks, not tabs" if _is_caused_by_tab(error) else None,
        )
    if isinstance(error, yaml.reader.ReaderError):
        line = text.encode()[: error.position].count(b"\n") + 1
        return Fault(str(path), line, expected="YAML", found=f"an error: {error.reason}")
    return Fault(
        str(path),
        expected=f"a few levels of nesting and at most {MOST_VALUES:,} values",
        found="more",
    )


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, with or without a byte-order mark.

    Raises
    ------
    MissingDataError
        The file does not exist.
    InvalidDataError
        The file cannot be read, is not in UTF-8 (the error names the line) or is empty.
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


def _is_caused_by_tab(error: yaml.MarkedYAMLError) -> bool:
    problem = str(error.problem)
    marks = ("'\\t'", "tab character", "character that cannot start")
    return any(mark in problem for mark in marks)


def _check_depth(text: str) -> None:
    """Reject deep nesting before composing: PyYAML's composer in C would overflow the stack."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MOST_LEVELS:
                raise _TooMuchError
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The safe loader, in C if PyYAML was built with it; dates remain text."""

    yaml_implicit_resolvers = {  # noqa: RUF012  (an attribute of the base class)
        first: [(tag, regexp) for tag, regexp in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class _TooMuchError(Exception):
    pass


class _Reader:
    """Convert YAML nodes into plain values; record their lines and the rejected values."""

    def __init__(self) -> None:
        self.lines: dict[Place, int] = {}
        self.rejected: list[tuple[Place, int, str, str]] = []  # place, line, expected, found
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
            self.rejected.append((place, line, "a plain value", f"the tag {node.tag}"))
            return None
        try:
            value = self._constructor.construct_object(node)
        except (yaml.YAMLError, ValueError, KeyError):
            self.rejected.append((place, line, "a plain value", repr(node.value)))
            return None
        if isinstance(value, float) and not math.isfinite(value):
            self.rejected.append((place, line, "a finite number, or null", repr(node.value)))
            return None
        return value

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key, line = key_node.value, key_node.start_mark.line + 1
            inside = (*place, key)
            if key_node.tag != "tag:yaml.org,2002:str":
                found = repr(key) if isinstance(key_node, yaml.ScalarNode) else "a list or mapping"
                self.rejected.append((place, line, "a key that is text", found))
            elif key in mapping:
                first = f"it twice (first on line {self.lines[inside]})"
                self.rejected.append((inside, line, "each key once", first))
            else:
                self.lines[inside] = line
                mapping[key] = self.content(value_node, inside)
        return mapping


_SCALARS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "null", "bool", "int", "float")}


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
