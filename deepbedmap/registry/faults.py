"""Faults of a registry that JSON Schema cannot detect.

Repeated names, fields that contradict each other, bounds in the wrong units, circular
``superseded_by`` chains, and licences, reference systems or citekeys that do not exist.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from deepbedmap.errors import did_you_mean
from deepbedmap.registry.entries import each_file, is_known_crs, list_or_empty, spdx_identifier
from deepbedmap.registry.records import ARCHIVE_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from deepbedmap import schemas
    from deepbedmap.errors import Fault

FARTHEST = 1e7
"""Distance (m) from the pole of EPSG:3031 beyond which bounds cannot be in metres."""


def inconsistencies(document: schemas.Document) -> Iterator[Fault]:
    """Find conflicts between entries or fields, and names of things that do not exist.

    The document may have other faults, so nothing about its form is taken for granted.
    """
    content = document.content
    datasets = list_or_empty(content.get("datasets")) if isinstance(content, dict) else []
    entries = [(n, entry) for n, entry in enumerate(datasets) if isinstance(entry, dict)]
    citekeys = {_text(entry.get("citekey")) for _, entry in entries}
    yield from _repetitions(document, entries)
    for index, entry in entries:
        yield from _unknown_names(document, index, entry, citekeys)
        yield from _bounds_faults(document, index, entry)
        yield from _status_faults(document, index, entry)
        epoch = list_or_empty(entry.get("epoch"))
        if len(epoch) == 2 and all(isinstance(year, int) for year in epoch) and epoch[0] > epoch[1]:
            place: schemas.Place = ("datasets", index, "epoch")
            yield document.fault(place, "the first year, then the last", f"{epoch[0]}, {epoch[1]}")
        doi = entry.get("doi")
        if not (
            entry.get("files")
            or entry.get("instructions")
            or (isinstance(doi, dict) and doi.get("dataset"))
        ):
            expected = "at least one file or, without files, a doi.dataset or instructions"
            yield document.fault(("datasets", index, "files"), expected, "none")
        for place, file in each_file(("datasets", index, "files"), entry):
            yield from _file_faults(document, place, file, entry)
    yield from _cycles(document, entries)


def _repetitions(
    document: schemas.Document, entries: list[tuple[int, dict[str, Any]]]
) -> Iterator[Fault]:
    seen: dict[tuple[str, ...], schemas.Place] = {}

    def repeated(what: str, place: schemas.Place, *identity: str) -> Iterator[Fault]:
        # BibTeX and many file systems do not distinguish upper and lower case.
        first = seen.setdefault((what, *(part.casefold() for part in identity)), place)
        if first != place:
            yield document.fault(
                place,
                expected=f"each {what} once",
                found=f"{identity[-1]} again (first on line {document.line(*first)})",
            )

    for index, entry in entries:
        start: schemas.Place = ("datasets", index)
        if citekey := _text(entry.get("citekey")):
            yield from repeated("citekey", (*start, "citekey"), citekey)
        for number, pipeline in enumerate(list_or_empty(entry.get("pipelines"))):
            if isinstance(pipeline, str):
                yield from repeated("pipeline", (*start, "pipelines", number), pipeline)
        folder = str(entry.get("folder"))
        for place, file in each_file((*start, "files"), entry):
            for field in ("filename", "unpacked"):
                if name := _text(file.get(field)):
                    name_place = (*place, field) if place[-1] != name else place
                    yield from repeated("file name in a folder", name_place, folder, name)


def _unknown_names(
    document: schemas.Document, index: int, entry: dict[str, Any], citekeys: set[str]
) -> Iterator[Fault]:
    """Find well-formed licences, CRSs and citekeys that do not exist."""
    start: schemas.Place = ("datasets", index)
    if (licence := _text(entry.get("licence"))) and (spdx := spdx_identifier(licence)) != licence:
        remedy = f"did you mean {spdx}?" if spdx else "https://spdx.org/licenses lists them"
        expected = "an SPDX identifier such as CC-BY-4.0, or null"
        yield document.fault((*start, "licence"), expected, repr(licence), remedy)
    if ":" in (crs := _text(entry.get("crs"))) and not is_known_crs(crs):
        expected = "a coordinate reference system known to PROJ, such as EPSG:3031, or null"
        yield document.fault((*start, "crs"), expected, repr(crs))
    built_from = entry.get("built_from")
    surveys = built_from.get("surveys") if isinstance(built_from, dict) else None
    references = [
        (("superseded_by",), entry.get("superseded_by")),
        *(
            (("overlaps_with", n), other)
            for n, other in enumerate(list_or_empty(entry.get("overlaps_with")))
        ),
        *((("built_from", "surveys", n), other) for n, other in enumerate(list_or_empty(surveys))),
    ]
    others = citekeys - {_text(entry.get("citekey"))}
    for field, citekey in references:
        if (name := _text(citekey)) and name not in others:
            expected = "the citekey of another dataset of this registry"
            yield document.fault((*start, *field), expected, repr(name), did_you_mean(name, others))
    if isinstance(built_from, dict) and not any(built_from.values()):
        expected = "surveys or until, or null for built_from"
        yield document.fault((*start, "built_from"), expected, "neither")


def _bounds_faults(
    document: schemas.Document, index: int, entry: dict[str, Any]
) -> Iterator[Fault]:
    bounds = list_or_empty(entry.get("bounds"))
    if len(bounds) != 4 or not all(isinstance(value, int | float) for value in bounds):
        return
    place: schemas.Place = ("datasets", index, "bounds")
    found = ", ".join(map(str, bounds))
    if not (bounds[0] < bounds[2] and bounds[1] < bounds[3]):
        yield document.fault(place, "xmin < xmax and ymin < ymax", found)
    elif all(abs(value) <= 360 for value in bounds):
        yield document.fault(place, "metres (EPSG:3031), not degrees", found)
    elif any(abs(value) > FARTHEST for value in bounds):
        expected = f"metres (EPSG:3031), none beyond {FARTHEST / 1000:,.0f} km from the pole"
        yield document.fault(place, expected, found)


def _status_faults(
    document: schemas.Document, index: int, entry: dict[str, Any]
) -> Iterator[Fault]:
    status, other = entry.get("status"), entry.get("superseded_by")
    if status == "superseded" and other is None:
        place: schemas.Place = ("datasets", index, "superseded_by")
        yield document.fault(place, "the citekey of its successor", "nothing")
    elif other is not None and status in (None, "active"):
        expected = "superseded, retired or withdrawn, since superseded_by is set"
        yield document.fault(("datasets", index, "status"), expected, str(status or "null"))


def _cycles(
    document: schemas.Document, entries: list[tuple[int, dict[str, Any]]]
) -> Iterator[Fault]:
    successors = {
        _text(entry.get("citekey")): (index, _text(entry.get("superseded_by")))
        for index, entry in entries
    }
    reported: set[str] = set()
    for citekey, (index, _) in successors.items():
        path = [citekey]
        while (after := successors.get(path[-1], (0, ""))[1]) and after not in path:
            path.append(after)
        if after == citekey and len(path) > 1 and citekey not in reported:
            reported |= {*path}
            circle = " -> ".join([*path, after])
            place = ("datasets", index, "superseded_by")
            yield document.fault(place, "a chain that ends", f"a circle: {circle}")


def _file_faults(
    document: schemas.Document, place: schemas.Place, file: dict[str, Any], entry: dict[str, Any]
) -> Iterator[Fault]:
    archive = _text(file.get("filename")).lower().endswith(ARCHIVE_SUFFIXES)
    unpacked, members = file.get("unpacked"), file.get("members")
    if archive and unpacked is None and members is None:
        expected = "the name for the unpacked member, or a pattern as members"
        yield document.fault((*place, "unpacked"), expected, "nothing")
    for field in ("unpacked", "members", "content_sha256", "unpacked_sha256"):
        if not archive and (value := file.get(field)) is not None:
            expected = f"nothing, since {file.get('filename')} is not an archive"
            yield document.fault((*place, field), expected, repr(value))
    if unpacked is not None and members is not None:
        yield document.fault((*place, "members"), "nothing alongside unpacked", repr(members))
    if archive and unpacked is None and (checksum := file.get("unpacked_sha256")) is not None:
        expected = "nothing without unpacked, the file to which the checksum belongs"
        yield document.fault((*place, "unpacked_sha256"), expected, repr(checksum))
    if file.get("access") == "manual" and not entry.get("instructions"):
        expected = "the dataset's instructions, which access: manual requires"
        yield document.fault((*place, "access"), expected, "none")
    for url in (file.get("url"), *list_or_empty(file.get("mirrors"))):
        if unknown := re.search(r"\{[^{}]*\}", _text(url)):
            expected = "a URL with no placeholders except {filename}, {stem} and {ramadda}"
            yield document.fault((*place, "url"), expected, unknown[0])


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
