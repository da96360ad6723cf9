"""The entry of a survey as YAML text, added to a registry whose other lines stay unchanged."""

from __future__ import annotations

import math
import re
import textwrap
from typing import TYPE_CHECKING

import yaml

from deepbedmap import registry as registries
from deepbedmap import schemas
from deepbedmap.errors import DeepBedMapError, Fault, InvalidDataError

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

_WIDTH = 96  # of a line in the registry, before indentation


def invalid_file(file: Path, **facts: Any) -> InvalidDataError:
    """Return the error for a file that cannot be contributed; ``facts`` are fields of a Fault."""
    return InvalidDataError(Fault(str(file), **facts))


def text_with_entry(listing: Path, entry: dict[str, Any]) -> str:
    """Append an entry to the text of a registry, whose other lines stay unchanged."""
    document = schemas.load(listing)
    text = listing.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    first = text.split("\n")[(document.line(*_place(document, 0)) or 1) - 1]
    indent = first[: len(first) - len(first.lstrip(" "))] if first.lstrip()[:2] == "- " else ""
    return f"{text.rstrip()}\n\n{textwrap.indent(_entry_text(entry), indent)}"


def _datasets(document: schemas.Document) -> list[Any]:
    content = document.content
    return list(content["datasets"] if isinstance(content, dict) else content)


def _place(document: schemas.Document, index: int) -> schemas.Place:
    return ("datasets", index) if isinstance(document.content, dict) else (index,)


def _entry_text(entry: dict[str, Any]) -> str:
    """Write an entry in the layout of the registry."""
    lines = []
    for key, value in entry.items():
        if key == "files":
            lines.append("files:")
            for file in value:
                fields = [f"{name}: {_scalar(item)}" for name, item in file.items()]
                lines += [f"  {'-' if n == 0 else ' '} {field}" for n, field in enumerate(fields)]
        elif isinstance(value, dict):
            lines.append(f"{key}:")
            lines += [f"  {name}: {_scalar(item)}" for name, item in value.items()]
        elif isinstance(value, list):
            style = '"' if key == "authors" else None
            lines += _list_lines(key, [_scalar(item, style) for item in value])
        else:
            lines += _field_lines(key, value)
    body = textwrap.indent("\n".join(lines), "  ")
    return f"- {body.lstrip()}\n"


def _list_lines(key: str, items: list[str]) -> list[str]:
    line = f"{key}: [{', '.join(items)}]"
    if len(line) <= _WIDTH:
        return [line]
    lines: list[str] = []
    for item in items:
        if lines and len(lines[-1]) + len(item) + 2 <= _WIDTH:
            lines[-1] += f" {item},"
        else:
            lines.append(f"  {item},")
    return [f"{key}: [", *lines, "]"]


def _field_lines(key: str, value: Any) -> list[str]:
    line = f"{key}: {_scalar(value)}"
    if len(line) <= _WIDTH or not isinstance(value, str) or not value.isprintable():
        return [line]
    folded = textwrap.wrap(value, _WIDTH - 2, break_long_words=False, break_on_hyphens=False)
    return [f"{key}: >-", *(f"  {part}" for part in folded)]


def _scalar(value: Any, style: str | None = None) -> str:
    text = yaml.safe_dump(value, allow_unicode=True, width=math.inf, default_style=style)
    return text.removesuffix("...\n").strip()


def text_with_successor(listing: Path, text: str, old: str, new: str) -> str:
    """Mark an entry as superseded in the text of a registry; all other lines stay unchanged."""
    dataset = registries.load(listing)[old]
    if dataset.superseded_by is not None:
        raise invalid_file(
            listing,
            entry=old,
            field="superseded_by",
            expected="null",
            found=dataset.superseded_by,
            remedy=f"supersede {dataset.superseded_by} instead",
        )
    document = schemas.load(listing)
    index = [entry["citekey"] for entry in _datasets(document)].index(old)
    entry, place = _datasets(document)[index], _place(document, index)
    changes = {"superseded_by": new}
    if dataset.status in (None, "active"):
        changes = {"status": "superseded", **changes}
    lines = text.split("\n")
    for key in changes.keys() & entry.keys():
        row = document.lines[(*place, key)] - 1
        lines[row] = re.sub(rf"({key}:)[^#]*?(\s*#.*)?$", rf"\1 {changes[key]}\2", lines[row])
    before = next(key for key in ("superseded_by", "publisher", "folder") if key in entry)
    row = document.lines[(*place, before)] - 1
    indent = lines[row][: lines[row].index(before)].replace("-", " ")
    lines[row:row] = [f"{indent}{key}: {changes[key]}" for key in changes if key not in entry]
    return "\n".join(lines)


def check_rest_unchanged(old: Path, new: Path, supersedes: str | None) -> None:
    """Raise an error if appending text to the registry changed more than appending an entry."""

    def unchanged_fields(entry: dict[str, Any]) -> dict[str, Any]:
        changed = ("status", "superseded_by") if entry["citekey"] == supersedes else ()
        return {key: value for key, value in entry.items() if key not in changed}

    try:
        before, after = (_datasets(schemas.load(path)) for path in (old, new))
        same = [*map(unchanged_fields, before)] == [*map(unchanged_fields, after[:-1])]
    except (DeepBedMapError, TypeError, KeyError):
        same = False
    if not same:
        raise invalid_file(
            old,
            expected="datasets as a block list at the end of the file, each key on its own line",
            found="another layout, to which no text can be appended",
            remedy="use this layout, or add the entry by hand",
        )
