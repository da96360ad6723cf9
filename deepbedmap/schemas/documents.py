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
"""How many values a file may hold once its aliases are written out."""

MOST_LEVELS = 50
"""How deep lists and mappings may be nested."""


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
