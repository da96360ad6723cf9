"""The registry: which datasets there are, where their files come from, whom to cite."""

from __future__ import annotations

import base64
import functools
import logging
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from deepbedmap import repository, schemas
from deepbedmap.errors import Fault, InvalidDataError

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

ARCHIVE_SUFFIXES = (".zip", ".tar.gz", ".tgz", ".tar")

SCHEMA_VERSION = 2
"""Version of the registry's form that this release reads; ``data_list.yml`` says what changed."""

FARTHEST = 1e7
"""Distance (m) from the pole of EPSG:3031 beyond which bounds cannot be meant in metres."""


@dataclass(frozen=True)
class File:
    """One file of a dataset.

    Attributes
    ----------
    filename
        Plain name under which it lands in the dataset's folder.
    url
        Where it comes from (http, https, ftp, file); None if a person must be asked.
    sha256
        Checksum of the file called ``filename``; None if not known.
    mirrors
        Further URLs of the same file, tried in order.
    member
        Path inside an archive; None for the archive's only file or, where only the URL is that of
        an archive, the member called ``filename``.
    unpacked
        Where ``filename`` is that of an archive: the name under which its member lands.
    bytes
        Size of the file called ``filename``.
    access
        ``"open"``; ``"earthdata"``: a login of NASA's is needed; ``"manual"``: a person must do
        what the dataset's ``instructions`` say.
    members
        Where ``filename`` is that of an archive: a pattern such as ``*.csv``; every member whose
        plain name it fits lands in the folder under that name.
    content_sha256
        Where ``filename`` is that of an archive: checksum of what it holds, which decides where
        its bytes have another checksum than ``sha256``, or that is not known; see
        :meth:`deepbedmap.archives.Archive.content_sha256`.
    unpacked_sha256
        Checksum of the file called ``unpacked``.
    """

    filename: str
    url: str | None
    sha256: str | None
    mirrors: tuple[str, ...] = ()
    member: str | None = None
    unpacked: str | None = None
    bytes: int | None = None
    access: str = "open"
    members: str | None = None
    content_sha256: str | None = None
    unpacked_sha256: str | None = None

    @property
    def name(self) -> str:
        """Name of the file that pipelines and drivers read: out of the archive, if it is one."""
        return self.unpacked or self.filename

    @property
    def urls(self) -> tuple[str, ...]:
        """Every URL, in the order in which they are tried."""
        return (() if self.url is None else (self.url,)) + self.mirrors


@dataclass(frozen=True)
class Radar:
    """How a radar survey was measured and picked.

    Attributes
    ----------
    wave_speed
        Of the radar's wave in ice, in metres a microsecond.
    centre_frequency
        In MHz.
    quality
        What each quality code of the picks means, by code.
    pick_uncertainty
        Published uncertainty of the picks in metres.
    """

    wave_speed: float | None = None
    centre_frequency: float | None = None
    quality: dict[str, str] | None = None
    pick_uncertainty: float | None = None


@dataclass(frozen=True)
class BuiltFrom:
    """What a gridded product was made of: surveys (citekeys), and the last year of its data."""

    surveys: tuple[str, ...] = ()
    until: int | None = None


@dataclass(frozen=True)
class Paper:
    """What the citation of a dataset's paper needs, beside its DOI."""

    title: str
    authors: tuple[str, ...]
    year: int | None
    journal: str | None
    booktitle: str | None
    publisher: str | None
    volume: str | None
    number: str | None
    pages: str | None


@dataclass(frozen=True)
class Dataset:
    """One entry of the registry; None stands for what is not known.

    Attributes
    ----------
    version
        As its publisher calls it.
    status
        ``"active"``, ``"superseded"`` (by the dataset ``superseded_by``), ``"retired"`` (its
        publisher no longer serves it) or ``"withdrawn"`` (it must not be used).
    folder
        ``"highres"``, ``"lowres"`` or ``"misc"``.
    survey_type
        ``"airborne"``, ``"ground"``, ``"seismic"``, ``"compilation"``, ``"satellite"`` or
        ``"model"``.
    epoch
        First and last year of the observations.
    bounds
        (xmin, ymin, xmax, ymax) in metres, EPSG:3031.
    resolution
        Spacing of a grid in metres.
    doi_dataset, doi_literature
        Bare, as in ``10.5194/tc-7-375-2013``.
    licence
        SPDX identifier.
    crs
        Of the raw data, such as ``"EPSG:4326"``.
    vertical_datum
        ``"ellipsoid"``, ``"EIGEN-GL04C"`` or ``"EIGEN-6C4"``.
    firn_correction
        Whether bed heights, as the pipelines read them, allow for the firn layer.
    nodata
        Value that marks a missing one in the raw files.
    overlaps_with
        Citekeys of datasets that hold some of the same observations.
    pipelines
        Names of the files in ``highres/`` that turn the raw files into points.
    instructions
        What a person must do for files that no program can fetch.
    """

    citekey: str
    title: str
    authors: tuple[str, ...]
    year: int | None
    version: str | None
    status: str | None
    superseded_by: str | None
    publisher: str | None
    folder: str
    location: str | None
    bounds: tuple[float, float, float, float] | None
    resolution: float | None
    survey_type: str | None
    epoch: tuple[int, int] | None
    doi_dataset: str | None
    doi_literature: str | None
    paper: Paper | None
    licence: str | None
    crs: str | None
    vertical_datum: str | None
    units: str | None
    nodata: float | None
    firn_correction: bool | None
    radar: Radar | None
    built_from: BuiltFrom | None
    overlaps_with: tuple[str, ...]
    pipelines: tuple[str, ...]
    files: tuple[File, ...]
    instructions: str | None
    notes: str | None

    def how_to_get(self, *filenames: str) -> str:
        """Say what gets the dataset's files (those named, or all): a command, or a person.

        Parameters
        ----------
        *filenames
            Names in the registry, of archives or of what is unpacked from them.

        Examples
        --------
        >>> load()["King2016Rutford"].how_to_get("bed_WGS84_grid.txt")
        '`deepbedmap fetch King2016Rutford` gets it'
        """
        chosen = [
            file
            for file in self.files
            if not filenames or file.filename in filenames or file.name in filenames
        ]
        if any(file.urls and file.access != "manual" for file in chosen):
            return f"`deepbedmap fetch {self.citekey}` gets it"
        return self.how_to_ask(*(filenames or [file.filename for file in self.files]))

    def how_to_ask(self, *filenames: str) -> str:
        """Say what a person does for files that no program can fetch, and where they go."""
        put = f"put {', '.join(filenames) or 'its files'} into {self.folder}/"
        if self.instructions:
            return f"{self.instructions.rstrip('.')}; {put}"
        doi = self.doi_dataset or self.doi_literature
        source = f"https://doi.org/{doi}" if doi else repr(self.title)
        if self.doi_dataset and not self.files:
            return f"see {source} for the files of {self.citekey}, and {put}"
        whom = "the authors"
        if self.authors:
            whom += f" ({self.authors[0]}{' and others' if len(self.authors) > 1 else ''})"
        return f"ask {whom} of {source} for the files of {self.citekey}, and {put}"


class Registry:
    """The datasets of one registry file, in its order.

    Iterating gives each :class:`Dataset`; ``registry[citekey]`` gives one.

    Attributes
    ----------
    path : pathlib.Path
        The registry file.
    root : pathlib.Path
        Its folder.
    """

    def __init__(self, path: Path, datasets: Iterable[Dataset]) -> None:
        self.path = path
        self.root = path.parent
        self._datasets = {dataset.citekey: dataset for dataset in datasets}

    def __repr__(self) -> str:
        return f"<Registry {self.path}: {len(self)} datasets>"

    def __len__(self) -> int:
        return len(self._datasets)

    def __iter__(self) -> Iterator[Dataset]:
        return iter(self._datasets.values())

    def __contains__(self, citekey: object) -> bool:
        return citekey in self._datasets

    def __getitem__(self, citekey: str) -> Dataset:
        try:
            return self._datasets[citekey]
        except KeyError:
            raise InvalidDataError(
                Fault(
                    str(self.path),
                    entry=citekey,
                    expected="a citekey of the registry",
                    found="none of this name",
                    remedy=schemas.near(citekey, self._datasets) or "`deepbedmap list` shows all",
                )
            ) from None

    def for_pipeline(self, name: str) -> Dataset | None:
        """Return the dataset that lists a pipeline (a file name such as ``2010tr.json``)."""
        return next((dataset for dataset in self if name in dataset.pipelines), None)

    @property
    def files(self) -> pd.DataFrame:
        """One row a file: what it is, where it comes from, and what its dataset says of it."""
        import pandas as pd

        rows = [
            {
                "citekey": dataset.citekey,
                "folder": dataset.folder,
                **{field: getattr(file, field) for field in _OF_FILE},
                **{field: getattr(dataset, field) for field in _OF_DATASET},
            }
            for dataset in self
            for file in dataset.files
        ]
        table = pd.DataFrame(rows, columns=["citekey", "folder", *_OF_FILE, *_OF_DATASET])
        return table.astype({"bytes": "Int64", **_NULLABLE})

    def search(
        self,
        text: str | None = None,
        bounds: Sequence[float] | None = None,
        folder: str | None = None,
        licence: str | None = None,
        datum: str | None = None,
        crs: str | None = None,
        status: str | None = None,
        lonlat: Sequence[float] | None = None,
    ) -> pd.DataFrame:
        """Find datasets: those that fit all that is asked.

        Names are taken whatever their case; ``"unknown"`` finds what the registry does not know.

        Parameters
        ----------
        text
            Words, each of which stands in the citekey, title, authors, location, version, survey
            type, years of the observations, DOIs or names of the files (whatever the case and the
            accents).
        bounds
            (xmin, ymin, xmax, ymax) in metres, EPSG:3031: datasets that touch this box.
        folder
            ``"highres"``, ``"lowres"`` or ``"misc"``.
        licence
            SPDX identifier, such as ``"CC-BY-4.0"``.
        datum
            What heights refer to: ``"ellipsoid"``, ``"EIGEN-GL04C"`` or ``"EIGEN-6C4"``.
        crs
            Of the raw data, such as ``"EPSG:4326"``.
        status
            ``"active"``, ``"superseded"``, ``"retired"`` or ``"withdrawn"``.
        lonlat
            (lonmin, latmin, lonmax, latmax) in degrees, instead of ``bounds``; latitudes from -90
            to -50, longitudes from -180 to 360. With lonmin > lonmax the box goes across the date
            line.

        Returns
        -------
        pandas.DataFrame
            One row a dataset, in the order of the registry. A dataset whose bounds are not known
            is found at any place; ``bounds_known`` says which those are. ``files`` is their number;
            ``matching_files`` lists those whose names have the words that nothing else has.

        Raises
        ------
        ValueError
            Any of these is not what it should be; bounds and lonlat are given both.

        Examples
        --------
        >>> load().search("rutford ice stream", folder="highres").citekey[0]
        'King2016Rutford'
        """
        import pandas as pd

        wanted: dict[str, str | None] = {}
        for field, value in (("folder", folder), ("vertical_datum", datum), ("status", status)):
            if value is not None:
                wanted[field] = _chosen(field, value, _allowed(field))
        for field, value, known in (("licence", licence, _spdx), ("crs", crs, _known_crs)):
            if value is not None:
                listed = {getattr(dataset, field) for dataset in self} - {None}
                wanted[field] = known(value) or _chosen(field, value, listed)
        touches = _place(bounds, lonlat)
        words = [] if text is None else [_query(word) for word in text.split()]
        rows = []
        for dataset in self:
            told = _plain(_description(dataset))
            names = list(dict.fromkeys(n for f in dataset.files for n in (f.filename, f.name)))
            untold = [word for word in words if word not in told]
            matching = [name for name in names if any(word in _plain(name) for word in untold)]
            if (
                all(getattr(dataset, field) == value for field, value in wanted.items())
                and all(any(word in _plain(name) for name in matching) for word in untold)
                and (dataset.bounds is None or touches(dataset.bounds))
            ):
                rows.append(
                    {
                        **{field: getattr(dataset, field, None) for field in _FOUND},
                        "authors": "; ".join(dataset.authors),
                        "files": len(dataset.files),
                        "matching_files": matching,
                        "bounds_known": dataset.bounds is not None,
                    }
                )
        table = pd.DataFrame(rows, columns=_FOUND)
        return table.astype({"year": "Int64", "files": int, "bounds_known": bool, **_NULLABLE})

    def bibtex(self, citekeys: str | Iterable[str]) -> str:
        """Cite datasets and their papers in BibTeX: see :func:`deepbedmap.citation.cite`."""
        from deepbedmap import citation

        return citation.cite(self, citekeys)


def load(path: str | Path | None = None) -> Registry:
    """Read a registry and check it.

    Parameters
    ----------
    path
        A registry file, or a folder with a ``data_list.yml``; None for the one that comes with
        the package.

    Raises
    ------
    InvalidDataError
        Every fault with its file, line, entry, field, what was expected and what was found.
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
    document = _document(path)
    faults = [*schemas.faults(document, "registry"), *_inconsistencies(document)]
    if faults:
        raise InvalidDataError(*sorted(faults, key=lambda fault: fault.line or 0))
    return Registry(path, [_dataset(entry) for entry in document.content["datasets"]])


def _document(path: Path) -> schemas.Document:
    """Read a registry; a bare list, the form before version 2, is its datasets."""
    document = schemas.load(path)
    if not isinstance(document.content, list):
        return document
    lines: dict[schemas.Place, int] = {("datasets", *at): n for at, n in document.lines.items()}
    content = {"schema_version": SCHEMA_VERSION, "datasets": document.content}
    return schemas.Document(path, content, {(): document.lines[()], **lines})


def _inconsistencies(document: schemas.Document) -> Iterator[Fault]:
    """Find what JSON Schema cannot: what clashes between entries or fields, and unknown names.

    The document may be at fault elsewhere, so nothing is taken for granted here.
    """
    content = document.content
    datasets = _list(content.get("datasets")) if isinstance(content, dict) else []
    entries = [(n, entry) for n, entry in enumerate(datasets) if isinstance(entry, dict)]
    citekeys = {_text(entry.get("citekey")) for _, entry in entries}
    yield from _repetitions(document, entries)
    for index, entry in entries:
        yield from _unknown_names(document, index, entry, citekeys)
        yield from _bounds_faults(document, index, entry)
        yield from _status_faults(document, index, entry)
        epoch = _list(entry.get("epoch"))
        if len(epoch) == 2 and all(isinstance(year, int) for year in epoch) and epoch[0] > epoch[1]:
            where: schemas.Place = ("datasets", index, "epoch")
            yield document.fault(where, "the first year, then the last", f"{epoch[0]}, {epoch[1]}")
        doi = entry.get("doi")
        if not (
            entry.get("files")
            or entry.get("instructions")
            or (isinstance(doi, dict) and doi.get("dataset"))
        ):
            expected = "at least one file; without any, a doi.dataset or instructions"
            yield document.fault(("datasets", index, "files"), expected, "none")
        for place, file in _each_file(("datasets", index, "files"), entry):
            yield from _file_faults(document, place, file, entry)
    yield from _cycles(document, entries)


def _repetitions(
    document: schemas.Document, entries: list[tuple[int, dict[str, Any]]]
) -> Iterator[Fault]:
    seen: dict[tuple[str, ...], schemas.Place] = {}

    def repeated(what: str, place: schemas.Place, *identity: str) -> Iterator[Fault]:
        # Upper and lower case are one name to BibTeX and to many file systems.
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
        for number, pipeline in enumerate(_list(entry.get("pipelines"))):
            if isinstance(pipeline, str):
                yield from repeated("pipeline", (*start, "pipelines", number), pipeline)
        folder = str(entry.get("folder"))
        for place, file in _each_file((*start, "files"), entry):
            for field in ("filename", "unpacked"):
                if name := _text(file.get(field)):
                    where = (*place, field) if place[-1] != name else place
                    yield from repeated("file name in a folder", where, folder, name)


def _unknown_names(
    document: schemas.Document, index: int, entry: dict[str, Any], citekeys: set[str]
) -> Iterator[Fault]:
    """Find what is well formed and names nothing: licences, CRSs, citekeys."""
    start: schemas.Place = ("datasets", index)
    if (licence := _text(entry.get("licence"))) and (spdx := _spdx(licence)) != licence:
        remedy = f"did you mean {spdx}?" if spdx else "https://spdx.org/licenses lists them"
        expected = "an SPDX identifier such as CC-BY-4.0, or null"
        yield document.fault((*start, "licence"), expected, repr(licence), remedy)
    if ":" in (crs := _text(entry.get("crs"))) and not _is_crs(crs):
        expected = "a coordinate reference system that PROJ knows, such as EPSG:3031, or null"
        yield document.fault((*start, "crs"), expected, repr(crs))
    built_from = entry.get("built_from")
    surveys = built_from.get("surveys") if isinstance(built_from, dict) else None
    named = [
        (("superseded_by",), entry.get("superseded_by")),
        *(
            (("overlaps_with", n), other)
            for n, other in enumerate(_list(entry.get("overlaps_with")))
        ),
        *((("built_from", "surveys", n), other) for n, other in enumerate(_list(surveys))),
    ]
    others = citekeys - {_text(entry.get("citekey"))}
    for field, citekey in named:
        if (name := _text(citekey)) and name not in others:
            expected = "the citekey of another dataset of this registry"
            yield document.fault((*start, *field), expected, repr(name), schemas.near(name, others))
    if isinstance(built_from, dict) and not any(built_from.values()):
        expected = "surveys or until; null where nothing is known"
        yield document.fault((*start, "built_from"), expected, "neither")


def _bounds_faults(
    document: schemas.Document, index: int, entry: dict[str, Any]
) -> Iterator[Fault]:
    bounds = _list(entry.get("bounds"))
    if len(bounds) != 4 or not all(isinstance(value, int | float) for value in bounds):
        return
    place: schemas.Place = ("datasets", index, "bounds")
    found = ", ".join(map(str, bounds))
    if not (bounds[0] < bounds[2] and bounds[1] < bounds[3]):
        yield document.fault(place, "xmin < xmax and ymin < ymax", found)
    elif all(abs(value) <= 360 for value in bounds):
        yield document.fault(place, "metres (EPSG:3031), which degrees are not", found)
    elif any(abs(value) > FARTHEST for value in bounds):
        expected = f"metres (EPSG:3031), none beyond {FARTHEST / 1000:,.0f} km from the pole"
        yield document.fault(place, expected, found)


def _status_faults(
    document: schemas.Document, index: int, entry: dict[str, Any]
) -> Iterator[Fault]:
    status, other = entry.get("status"), entry.get("superseded_by")
    if status == "superseded" and other is None:
        place: schemas.Place = ("datasets", index, "superseded_by")
        yield document.fault(place, "the citekey of what supersedes it", "nothing")
    elif other is not None and status in (None, "active"):
        expected = "superseded, retired or withdrawn, since superseded_by is given"
        yield document.fault(("datasets", index, "status"), expected, str(status or "null"))


def _cycles(
    document: schemas.Document, entries: list[tuple[int, dict[str, Any]]]
) -> Iterator[Fault]:
    successors = {
        _text(entry.get("citekey")): (index, _text(entry.get("superseded_by")))
        for index, entry in entries
    }
    told: set[str] = set()
    for citekey, (index, _) in successors.items():
        path = [citekey]
        while (after := successors.get(path[-1], (0, ""))[1]) and after not in path:
            path.append(after)
        if after == citekey and len(path) > 1 and citekey not in told:
            told |= {*path}
            found = " -> ".join([*path, after])
            place = ("datasets", index, "superseded_by")
            yield document.fault(place, "a chain that ends", f"a circle: {found}")


def _each_file(
    place: schemas.Place, entry: dict[str, Any]
) -> Iterator[tuple[schemas.Place, dict[str, Any]]]:
    """Each file of an entry and its place; files alike are written out."""
    for number, file in enumerate(_list(entry.get("files"))):
        if not isinstance(file, dict):
            continue
        names = file.get("filenames")
        if not isinstance(names, dict):
            yield (*place, number), file
            continue
        common = {key: value for key, value in file.items() if key != "filenames"}
        for name, own in names.items():
            own = own if isinstance(own, dict) else {"sha256": own}
            written = {**common, "sha256": None, **own, "filename": name}
            for key in ("url", "mirrors"):
                written[key] = _filled_in(common.get(key), name)
            yield (*place, number, "filenames", name), written


def _filled_in(url: Any, filename: str) -> Any:
    """Put a file's name where a URL (or each of a list of them) says {filename} and the like."""
    if isinstance(url, list):
        return [_filled_in(one, filename) for one in url]
    if not isinstance(url, str):
        return url
    names = {
        "filename": quote(filename),
        "stem": quote(Path(filename).stem),
        # How RAMADDA names a file of an entry: its path there, in base 64.
        "ramadda": quote(base64.b64encode(f"/{filename}".encode()).decode(), safe=""),
    }
    for name, value in names.items():
        url = url.replace(f"{{{name}}}", value)
    return url


def _file_faults(
    document: schemas.Document, place: schemas.Place, file: dict[str, Any], entry: dict[str, Any]
) -> Iterator[Fault]:
    archive = _text(file.get("filename")).lower().endswith(ARCHIVE_SUFFIXES)
    unpacked, members = file.get("unpacked"), file.get("members")
    if archive and unpacked is None and members is None:
        expected = "the name under which the archive's member lands, or a pattern as members"
        yield document.fault((*place, "unpacked"), expected, "nothing")
    for field in ("unpacked", "members", "content_sha256", "unpacked_sha256"):
        if not archive and (value := file.get(field)) is not None:
            expected = f"nothing, since {file.get('filename')} is no archive"
            yield document.fault((*place, field), expected, repr(value))
    if unpacked is not None and members is not None:
        yield document.fault((*place, "members"), "nothing beside unpacked", repr(members))
    if archive and unpacked is None and (checksum := file.get("unpacked_sha256")) is not None:
        expected = "nothing without unpacked, the file that it is the checksum of"
        yield document.fault((*place, "unpacked_sha256"), expected, repr(checksum))
    if file.get("access") == "manual" and not entry.get("instructions"):
        expected = "the dataset's instructions, which access: manual needs"
        yield document.fault((*place, "access"), expected, "none")
    for url in (file.get("url"), *_list(file.get("mirrors"))):
        if unknown := re.search(r"\{[^{}]*\}", _text(url)):
            expected = "a URL in which only {filename}, {stem} and {ramadda} are filled in"
            yield document.fault((*place, "url"), expected, unknown[0])


def _spdx(licence: str) -> str | None:
    """Write a licence as SPDX does; None where SPDX has no such licence."""
    from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

    try:
        return canonicalize_license_expression(licence)
    except InvalidLicenseExpression:
        return None


@functools.cache
def _is_crs(name: str) -> bool:
    import pyproj

    try:
        pyproj.CRS(name)
    except pyproj.exceptions.CRSError:
        return False
    return True


def _dataset(entry: dict[str, Any]) -> Dataset:
    doi = entry.get("doi") or {}
    authors = tuple(_list(entry.get("authors")))
    paper, radar, built_from = (entry.get(key) for key in ("paper", "radar", "built_from"))
    bounds, epoch = entry.get("bounds"), entry.get("epoch")
    return Dataset(
        citekey=entry["citekey"],
        title=entry["title"],
        authors=authors,
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
        paper=None
        if paper is None
        else Paper(
            title=paper.get("title") or entry["title"],
            authors=tuple(_list(paper.get("authors"))) or authors,
            year=paper.get("year") or entry.get("year"),
            journal=paper.get("journal"),
            booktitle=paper.get("booktitle"),
            publisher=paper.get("publisher"),
            **{
                field: None if paper.get(field) is None else str(paper[field])
                for field in ("volume", "number", "pages")
            },
        ),
        licence=entry.get("licence"),
        crs=entry.get("crs"),
        vertical_datum=entry.get("vertical_datum"),
        units=entry.get("units"),
        nodata=_number(entry.get("nodata")),
        firn_correction=entry.get("firn_correction"),
        radar=None
        if radar is None
        else Radar(
            wave_speed=_number(radar.get("wave_speed")),
            centre_frequency=_number(radar.get("centre_frequency")),
            quality=radar.get("quality"),
            pick_uncertainty=_number(radar.get("pick_uncertainty")),
        ),
        built_from=None
        if built_from is None
        else BuiltFrom(tuple(_list(built_from.get("surveys"))), built_from.get("until")),
        overlaps_with=tuple(_list(entry.get("overlaps_with"))),
        pipelines=tuple(_list(entry.get("pipelines"))),
        files=tuple(
            File(
                filename=file["filename"],
                url=file["url"],
                sha256=file["sha256"],
                mirrors=tuple(_list(file.get("mirrors"))),
                member=file.get("member"),
                unpacked=file.get("unpacked"),
                bytes=file.get("bytes"),
                access=file.get("access") or "open",
                members=file.get("members"),
                content_sha256=file.get("content_sha256"),
                unpacked_sha256=file.get("unpacked_sha256"),
            )
            for _, file in _each_file((), entry)
        ),
        instructions=entry.get("instructions"),
        notes=entry.get("notes"),
    )


def _number(value: float | None) -> float | None:
    return None if value is None else float(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


_OF_FILE = ("filename", "unpacked", "url", "sha256", "bytes", "access")
_OF_DATASET = (
    "version",
    "status",
    "location",
    "resolution",
    "licence",
    "crs",
    "vertical_datum",
    "units",
    "firn_correction",
    "doi_dataset",
    "doi_literature",
)
_FOUND = (
    "citekey",
    "title",
    "authors",
    "year",
    "folder",
    "files",
    "matching_files",
    "bounds_known",
    "bounds",
    "epoch",
    "survey_type",
    "superseded_by",
    *_OF_DATASET,
)
_NULLABLE: dict[str, Any] = {"resolution": float, "firn_correction": "boolean"}


def _allowed(field: str) -> list[str]:
    """Values that the registry's schema has for a field of a dataset."""
    schema = schemas.load(repository.root() / "validation" / "registry.schema.json").content
    values = schema["$defs"]["dataset"]["properties"][field]["enum"]
    return [value for value in values if value is not None]


def _chosen(field: str, value: str, values: Iterable[str]) -> str | None:
    """Write a value that is asked for as the registry does; None for "unknown"."""
    as_written = {name.casefold(): name for name in sorted(values)}
    if value.casefold() not in as_written and (value.casefold() != "unknown" or field == "folder"):
        known = ", ".join((*as_written.values(), *(["unknown"] if field != "folder" else [])))
        remedy = schemas.near(value, as_written.values())
        raise ValueError(
            f"{field.rpartition('_')[2]}: expected one of {known}, found {value!r}"
            + (f"; {remedy}" if remedy else "")
        )
    return as_written.get(value.casefold())


def _known_crs(name: str) -> str | None:
    """Write a CRS as the registry does; None where there is none of this name."""
    name = name.upper()
    return name if re.fullmatch(r"[A-Z]+:\d+", name) and _is_crs(name) else None


def _query(word: str) -> str:
    return re.sub(r"^(https?://(dx\.)?doi\.org/|doi:)(?=10\.)", "", _plain(word))


def _plain(text: str) -> str:
    """Text without case and accents: what is typed for it on any keyboard."""
    decomposed = unicodedata.normalize("NFKD", text.casefold()).translate(_LETTERS)
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter))


_LETTERS = str.maketrans({"ø": "o", "æ": "ae", "œ": "oe", "ł": "l", "đ": "d"})


def _description(dataset: Dataset) -> str:
    """What a search by words looks through, but for the names of files."""
    years = range(dataset.epoch[0], dataset.epoch[1] + 1) if dataset.epoch else ()
    said = (
        dataset.citekey,
        dataset.title,
        *dataset.authors,
        dataset.location,
        dataset.version,
        dataset.survey_type,
        dataset.doi_dataset,
        dataset.doi_literature,
        *years,
    )
    return " ".join(str(part) for part in said if part is not None)


def _place(
    bounds: Sequence[float] | None, lonlat: Sequence[float] | None
) -> Callable[[Sequence[float]], bool]:
    """Return what says whether a dataset's bounds touch the place that is asked for."""
    if lonlat is not None:
        if bounds is not None:
            raise ValueError("bounds and lonlat: expected one of the two, found both")
        import shapely

        parts = _polar_outline(lonlat)
        return lambda other: bool(shapely.intersects(parts, shapely.box(*other)).any())
    if bounds is None:
        return lambda _: True
    if not (len(bounds) == 4 and bounds[0] < bounds[2] and bounds[1] < bounds[3]):
        raise ValueError(
            f"bounds must be (xmin, ymin, xmax, ymax) with xmin < xmax and ymin < ymax, "
            f"not {tuple(bounds)}"
        )
    if all(abs(value) <= 360 for value in bounds):
        logger.warning("bounds %s look like degrees and are read as metres", tuple(bounds))
    xmin, ymin, xmax, ymax = bounds
    return lambda other: (
        xmin <= other[2] and other[0] <= xmax and ymin <= other[3] and other[1] <= ymax
    )


def _polar_outline(lonlat: Sequence[float]) -> Any:
    """Quadrilaterals in EPSG:3031, a degree wide at most, that hold a box in degrees."""
    if not (
        len(lonlat) == 4
        and all(-180 <= longitude <= 360 for longitude in (lonlat[0], lonlat[2]))
        and lonlat[0] != lonlat[2]
        and -90 <= lonlat[1] < lonlat[3] <= -50
    ):
        raise ValueError(
            "lonlat must be (lonmin, latmin, lonmax, latmax) with longitudes from -180 to 360 and "
            f"-90 <= latmin < latmax <= -50, not {tuple(lonlat)}"
        )
    import numpy as np
    import pyproj
    import shapely

    west, south, east, north = lonlat
    width = 360 if east - west >= 360 else (east - west) % 360
    meridians = np.radians(west + np.linspace(0, width, math.ceil(width) + 1))
    # Along the meridian of 0 degrees y is the distance from the pole.
    to_polar = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:3031", always_xy=True)
    inner, outer = (to_polar.transform(0, latitude)[1] for latitude in (south, north))
    outer /= np.cos((meridians[1] - meridians[0]) / 2)  # chords at this distance hold the arc
    circle = np.stack([np.sin(meridians), np.cos(meridians)], axis=-1)
    left, right = circle[:-1], circle[1:]
    corners = [inner * left, outer * left, outer * right, inner * right]
    return shapely.polygons(np.stack(corners, axis=1))
