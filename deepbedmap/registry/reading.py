"""Read a registry file, check it, and return its datasets."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from deepbedmap import repository, schemas
from deepbedmap.errors import InvalidDataError
from deepbedmap.files.checksums import sha256_of
from deepbedmap.registry.entries import each_file, list_or_empty
from deepbedmap.registry.faults import inconsistencies
from deepbedmap.registry.listing import Registry
from deepbedmap.registry.records import BuiltFrom, Dataset, File, Paper, Radar

if TYPE_CHECKING:
    from typing import Any

SCHEMA_VERSION = 2
"""Version of the registry's format that this release reads; ``data_list.yml`` lists the changes."""

CHECKSUMS = "catalog/registry.sha256"
"""Checksums of the registry that the catalogs were built from, and of its schema."""


def load(path: str | Path | None = None) -> Registry:
    """Read a registry and check it.

    A registry is read once, and again when its file has changed. The one that comes with the
    package was checked when its catalogs were built, and is not checked again while its bytes are
    the same.

    Parameters
    ----------
    path
        A registry file, or a folder with a ``data_list.yml``; None for the registry that comes
        with the package.

    Raises
    ------
    InvalidDataError
        The registry has faults; the error lists each with its file, line, entry, field, what was
        expected and what was found.
    MissingDataError
        There is no such file.

    Examples
    --------
    >>> registry = load()
    >>> len(registry), len(registry.files)
    (52, 161)
    >>> registry["King2016Rutford"].crs
    'EPSG:3031'
    """
    path = repository.root() if path is None else Path(path)
    if path.is_dir():
        path = path / "data_list.yml"
    if not path.is_file():
        return _load(path)  # which raises an error that says what to do
    status = path.stat()
    version = status.st_ino, status.st_size, status.st_mtime_ns
    return _load(path, path.absolute(), version, repository.root())


@lru_cache(maxsize=4)
def _load(path: Path, *_version: object) -> Registry:
    """Read a registry; the other arguments tell versions of the file at the path apart."""
    document = _document(path) if _was_checked(path) else check(path)
    return Registry(path, [_dataset(entry) for entry in document.content["datasets"]])


def check(path: Path) -> schemas.Document:
    """Check a registry file against its schema and for contradictions; return its content.

    Raises
    ------
    InvalidDataError, MissingDataError
        As :func:`load`.
    """
    document = _document(path)
    faults = [*schemas.faults(document, "registry"), *inconsistencies(document)]
    if faults:
        raise InvalidDataError(*sorted(faults, key=lambda fault: fault.line or 0))
    return document


def checksums(path: Path) -> str:
    """Return the checksums of a registry and its schema, in the form that ``sha256sum`` reads.

    They are those of the text with line feeds and without a byte-order mark, so that a checkout on
    Windows has the same. ``deepbedmap catalog build`` writes them to :data:`CHECKSUMS`, once the
    registry is checked.
    """
    schema = repository.root() / "validation" / "registry.schema.json"
    texts = {
        name: schemas.read_text(file).replace("\r\n", "\n")
        for name, file in ((path.name, path), (f"validation/{schema.name}", schema))
    }
    return "".join(f"{sha256_of(text.encode())}  {name}\n" for name, text in texts.items())


def _was_checked(path: Path) -> bool:
    """Whether these are the bytes of the package's own registry that its catalogs came from."""
    root = repository.root()
    if path != root / "data_list.yml" or not (root / CHECKSUMS).is_file():
        return False
    return path.is_file() and (root / CHECKSUMS).read_text(encoding="utf-8") == checksums(path)


def _document(path: Path) -> schemas.Document:
    """Read a registry; a bare list, the format before version 2, holds the datasets."""
    document = schemas.load(path)
    if not isinstance(document.content, list):
        return document
    lines: dict[schemas.Place, int] = {("datasets", *at): n for at, n in document.lines.items()}
    content = {"schema_version": SCHEMA_VERSION, "datasets": document.content}
    return schemas.Document(path, content, {(): document.lines[()], **lines})


def _dataset(entry: dict[str, Any]) -> Dataset:
    doi = entry.get("doi") or {}
    bounds, epoch = entry.get("bounds"), entry.get("epoch")
    return Dataset(
        citekey=entry["citekey"],
        title=entry["title"],
        authors=_tuple(entry, "authors"),
        year=entry.get("year"),
        version=entry.get("version"),
        status=entry.get("status"),
        superseded_by=entry.get("superseded_by"),
        publisher=entry.get("publisher"),
        folder=entry["folder"],
        location=entry.get("location"),
        bounds=None if bounds is None else (bounds[0], bounds[1], bounds[2], bounds[3]),
        resolution=_number(entry.get("resolution")),
        survey_type=entry.get("survey_type"),
        epoch=None if epoch is None else (epoch[0], epoch[1]),
        doi_dataset=doi.get("dataset"),
        doi_literature=doi.get("literature"),
        paper=_paper(entry),
        licence=entry.get("licence"),
        crs=entry.get("crs"),
        vertical_datum=entry.get("vertical_datum"),
        units=entry.get("units"),
        nodata=_number(entry.get("nodata")),
        firn_correction=entry.get("firn_correction"),
        radar=_radar(entry),
        built_from=_built_from(entry),
        overlaps_with=_tuple(entry, "overlaps_with"),
        pipelines=_tuple(entry, "pipelines"),
        files=tuple(_file(file) for _, file in each_file((), entry)),
        instructions=entry.get("instructions"),
        notes=entry.get("notes"),
    )


def _paper(entry: dict[str, Any]) -> Paper | None:
    paper = entry.get("paper")
    if paper is None:
        return None
    return Paper(
        title=paper.get("title") or entry["title"],
        authors=_tuple(paper, "authors") or _tuple(entry, "authors"),
        year=paper.get("year") or entry.get("year"),
        journal=paper.get("journal"),
        booktitle=paper.get("booktitle"),
        publisher=paper.get("publisher"),
        **{
            field: None if paper.get(field) is None else str(paper[field])
            for field in ("volume", "number", "pages")
        },
    )


def _radar(entry: dict[str, Any]) -> Radar | None:
    radar = entry.get("radar")
    if radar is None:
        return None
    return Radar(
        wave_speed=_number(radar.get("wave_speed")),
        centre_frequency=_number(radar.get("centre_frequency")),
        quality=radar.get("quality"),
        pick_uncertainty=_number(radar.get("pick_uncertainty")),
    )


def _built_from(entry: dict[str, Any]) -> BuiltFrom | None:
    built_from = entry.get("built_from")
    if built_from is None:
        return None
    return BuiltFrom(_tuple(built_from, "surveys"), built_from.get("until"))


def _file(file: dict[str, Any]) -> File:
    return File(
        filename=file["filename"],
        url=file["url"],
        sha256=file["sha256"],
        mirrors=_tuple(file, "mirrors"),
        member=file.get("member"),
        unpacked=file.get("unpacked"),
        bytes=file.get("bytes"),
        access=file.get("access") or "open",
        members=file.get("members"),
        content_sha256=file.get("content_sha256"),
        unpacked_sha256=file.get("unpacked_sha256"),
    )


def _tuple(mapping: dict[str, Any], key: str) -> tuple[Any, ...]:
    return tuple(list_or_empty(mapping.get(key)))


def _number(value: float | None) -> float | None:
    return None if value is None else float(value)
