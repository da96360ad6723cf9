"""Check documents against the JSON Schemas (Draft 2020-12) in ``validation/``.

Every fault gives the file and the line; all faults of a document are reported together.
"""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from typing import TYPE_CHECKING

from jsonschema import Draft202012Validator

from deepbedmap import repository
from deepbedmap.errors import Fault, InvalidDataError, did_you_mean
from deepbedmap.schemas.documents import load

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from typing import Any

    from jsonschema.exceptions import ValidationError

    from deepbedmap.schemas.documents import Document, Place


def faults(document: Document, schema: str) -> list[Fault]:
    """Return the faults of a document, in the order of its lines.

    Parameters
    ----------
    document
        From :func:`load`.
    schema
        ``"registry"``, ``"pipeline"``, ``"catalog"`` or ``"table"`` (a pandera schema): the JSON
        Schema ``validation/<schema>.schema.json`` (Draft 2020-12). The ``description`` of the part
        that fails is the expected value in the message.

    Raises
    ------
    InvalidDataError
        The schema itself has faults.

    Examples
    --------
    >>> faults(load(repository.root() / "data_list.yml"), "registry")
    []
    """
    path = repository.root() / "validation" / f"{schema}.schema.json"
    try:
        return _faults_by(_validator(path), document)
    except RecursionError as error:
        fault = Fault(str(path), expected="a schema that ends", found="one that refers to itself")
        raise InvalidDataError(fault) from error


def _faults_by(validator: Draft202012Validator, document: Document) -> list[Fault]:
    violations = (
        fault
        for error in validator.iter_errors(document.content)
        for fault in _faults_of(document, error)
    )
    return sorted(dict.fromkeys(violations), key=lambda fault: fault.line or 0)


def validate(document: Document, schema: str) -> None:
    """Raise :class:`InvalidDataError` with all :func:`faults` of a document, if it has any."""
    if violations := faults(document, schema):
        raise InvalidDataError(*violations)


def validate_file(path: str | Path, schema: str) -> Document:
    """Read a file with :func:`load`, :func:`validate` it, and return the document."""
    document = load(path)
    validate(document, schema)
    return document


_META = Draft202012Validator(
    Draft202012Validator.META_SCHEMA, format_checker=Draft202012Validator.FORMAT_CHECKER
)


@functools.cache
def _validator(path: Path) -> Draft202012Validator:
    document = load(path)
    if violations := json_schema_faults(document):
        raise InvalidDataError(*violations)
    checker = Draft202012Validator.FORMAT_CHECKER
    return Draft202012Validator(document.content, format_checker=checker)


def json_schema_faults(document: Document) -> list[Fault]:
    """Return the faults of a JSON Schema, including references that do not resolve."""
    faults = [
        replace(fault, expected="JSON Schema, Draft 2020-12", found=fault.expected)
        for fault in _faults_by(_META, document)
    ]
    for place, reference in _references(document.content):
        if not _resolves(document.content, reference):
            expected = "a part of this schema, such as #/$defs/text"
            faults.append(document.fault(place, expected, repr(reference)))
    return faults


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
        properties = schema.get("properties", {})
        for key in instance:
            if key not in properties:
                yield document.fault(
                    (*place, key),
                    expected=f"one of {', '.join(properties)}"
                    if len(properties) < 20
                    else "a known key",
                    found=f"the unknown key {key!r}",
                    remedy=did_you_mean(key, properties),
                )
    elif error.validator == "required":
        for key in schema["required"]:
            if key not in instance:
                part = schema.get("properties", {}).get(key)
                description = part.get("description") if isinstance(part, dict) else None
                yield document.fault((*place, key), description or "a value", "nothing")
    else:
        yield document.fault(place, schema.get("description", error.message), _summary(instance))


def _summary(value: Any) -> str:
    """Describe a value in a few words, in the notation of its file."""
    if isinstance(value, list):
        return f"a list of {len(value)}" if value else "an empty list"
    if isinstance(value, dict):
        return f"a mapping with {', '.join(value)}" if value else "an empty mapping"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
