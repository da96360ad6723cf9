"""The registry: which datasets there are, where their files come from, whom to cite."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepbedmap import repository, schemas
from deepbedmap.errors import Fault, InvalidDataError

if TYPE_CHECKING:
    import pandas as pd

ARCHIVE_SUFFIXES = (".zip", ".tar.gz", ".tgz", ".tar")


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
    """

    filename: str
    url: str | None
    sha256: str | None
    mirrors: tuple[str, ...] = ()
    member: str | None = None
    unpacked: str | None = None

    @property
    def name(self) -> str:
        """Name of the file that pipelines and drivers read: out of the archive, if it is one."""
        return self.unpacked or self.filename

    @property
    def urls(self) -> tuple[str, ...]:
        """Every URL, in the order in which they are tried."""
        return (() if self.url is None else (self.url,)) + self.mirrors


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
    folder
        ``"highres"``, ``"lowres"`` or ``"misc"``.
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
    pipelines
        Names of the files in ``highres/`` that turn the raw files into points.
    """

    citekey: str
    title: str
    authors: tuple[str, ...]
    year: int | None
    publisher: str | None
    folder: str
    location: str | None
    bounds: tuple[float, float, float, float] | None
    resolution: float | None
    doi_dataset: str | None
    doi_literature: str | None
    paper: Paper | None
    licence: str | None
    crs: str | None
    vertical_datum: str | None
    units: str | None
    firn_correction: bool | None
    pipelines: tuple[str, ...]
    files: tuple[File, ...]
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
        if any(file.urls for file in chosen):
            return f"`deepbedmap fetch {self.citekey}` gets it"
        return self.how_to_ask(*(filenames or [file.filename for file in self.files]))

    def how_to_ask(self, *filenames: str) -> str:
        """Say which person to ask for files that have no public address, and where they go."""
        whom = "the authors"
        if self.authors:
            whom += f" ({self.authors[0]}{' and others' if len(self.authors) > 1 else ''})"
        doi = self.doi_dataset or self.doi_literature
        source = f"https://doi.org/{doi}" if doi else repr(self.title)
        return (
            f"ask {whom} of {source} for the files of {self.citekey}, "
            f"and put {', '.join(filenames)} into {self.folder}/"
        )


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
                "filename": file.filename,
                "unpacked": file.unpacked,
                "url": file.url,
                "sha256": file.sha256,
                **_described(dataset),
            }
            for dataset in self
            for file in dataset.files
        ]
        return pd.DataFrame(rows).astype(_NULLABLE)

    def search(
        self,
        text: str | None = None,
        bounds: Sequence[float] | None = None,
        folder: str | None = None,
    ) -> pd.DataFrame:
        """Find datasets.

        Parameters
        ----------
        text
            Words, each of which stands in the citekey, title, authors or location (whatever the
            case).
        bounds
            (xmin, ymin, xmax, ymax) in metres, EPSG:3031: datasets that touch this box.
        folder
            ``"highres"``, ``"lowres"`` or ``"misc"``.

        Returns
        -------
        pandas.DataFrame
            One row a dataset, in the order of the registry. A dataset whose bounds are not known
            is found by any bounds; ``bounds_known`` says which those are.
        """
        import pandas as pd

        if folder not in (None, "highres", "lowres", "misc"):
            raise ValueError(f"folder must be highres, lowres, misc or None, not {folder!r}")
        if bounds is not None and not (
            len(bounds) == 4 and bounds[0] < bounds[2] and bounds[1] < bounds[3]
        ):
            raise ValueError(
                f"bounds must be (xmin, ymin, xmax, ymax) with xmin < xmax and ymin < ymax, "
                f"not {tuple(bounds)}"
            )
        rows = [
            {
                "citekey": dataset.citekey,
                "title": dataset.title,
                "authors": "; ".join(dataset.authors),
                "year": dataset.year,
                "folder": dataset.folder,
                "files": len(dataset.files),
                "bounds_known": dataset.bounds is not None,
                **_described(dataset),
            }
            for dataset in self
            if folder in (None, dataset.folder)
            and (text is None or _mentions(dataset, text))
            and (bounds is None or dataset.bounds is None or _touch(dataset.bounds, bounds))
        ]
        columns = ("citekey", "title", "authors", "year", "folder", "files", "bounds_known")
        table = pd.DataFrame(rows, columns=[*columns, *_DESCRIBED])
        return table.astype({"year": "Int64", "files": int, "bounds_known": bool, **_NULLABLE})

    def bibtex(self, citekeys: str | Iterable[str]) -> str:
        """Cite datasets: each as ``@misc``, and its paper; nothing twice.

        Returns
        -------
        str
            BibTeX. A dataset's key is its citekey, that of its paper ends in ``_paper``.
        """
        entries: dict[str, str] = {}
        for dataset in map(self.__getitem__, _listed(citekeys)):
            entries[f"dataset {dataset.citekey}"] = _bibtex_of_dataset(dataset)
            if dataset.paper or dataset.doi_literature:
                paper = f"paper {dataset.doi_literature or dataset.citekey}"
                entries.setdefault(paper, _bibtex_of_paper(dataset))
        return "\n".join(entries.values())


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
    (10, 33)
    >>> registry["King2016Rutford"].crs
    'EPSG:3031'
    """
    path = repository.root() if path is None else Path(path)
    if path.is_dir():
        path = path / "data_list.yml"
    document = schemas.load(path)
    faults = [*schemas.faults(document, "registry"), *_inconsistencies(document)]
    if faults:
        raise InvalidDataError(*sorted(faults, key=lambda fault: fault.line or 0))
    return Registry(path, [_dataset(entry) for entry in document.content])


def _inconsistencies(document: schemas.Document) -> Iterator[Fault]:
    """Find what JSON Schema cannot: what clashes between entries or fields.

    The document may be at fault elsewhere, so nothing is taken for granted here.
    """
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

    entries = document.content if isinstance(document.content, list) else []
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict):
            continue
        if isinstance(citekey := entry.get("citekey"), str):
            yield from repeated("citekey", (index, "citekey"), citekey)
        for number, pipeline in enumerate(_list(entry.get("pipelines"))):
            if isinstance(pipeline, str):
                yield from repeated("pipeline", (index, "pipelines", number), pipeline)
        bounds = entry.get("bounds")
        if (
            isinstance(bounds, list)
            and len(bounds) == 4
            and all(isinstance(value, int | float) for value in bounds)
            and not (bounds[0] < bounds[2] and bounds[1] < bounds[3])
        ):
            yield document.fault(
                (index, "bounds"), "xmin < xmax and ymin < ymax", ", ".join(map(str, bounds))
            )
        for number, file in enumerate(_list(entry.get("files"))):
            if not isinstance(file, dict):
                continue
            place = (index, "files", number)
            for field in ("filename", "unpacked"):
                if isinstance(name := file.get(field), str):
                    folder = str(entry.get("folder"))
                    yield from repeated("file name in a folder", (*place, field), folder, name)
            yield from _archive_faults(document, place, file)


def _archive_faults(
    document: schemas.Document, place: schemas.Place, file: dict[str, Any]
) -> Iterator[Fault]:
    archive = str(file.get("filename")).lower().endswith(ARCHIVE_SUFFIXES)
    if archive and file.get("unpacked") is None:
        yield document.fault(
            (*place, "unpacked"), "the name under which the archive's member lands", "nothing"
        )
    elif not archive and file.get("unpacked") is not None:
        yield document.fault(
            (*place, "unpacked"),
            f"nothing, since {file.get('filename')} is no archive",
            repr(file["unpacked"]),
        )


def _dataset(entry: dict[str, Any]) -> Dataset:
    doi = entry.get("doi") or {}
    authors = tuple(_list(entry.get("authors")))
    paper = entry.get("paper")
    bounds = entry.get("bounds")
    resolution = entry.get("resolution")
    return Dataset(
        citekey=entry["citekey"],
        title=entry["title"],
        authors=authors,
        year=entry.get("year"),
        publisher=entry.get("publisher"),
        folder=entry["folder"],
        location=entry.get("location"),
        bounds=None if bounds is None else (bounds[0], bounds[1], bounds[2], bounds[3]),
        resolution=None if resolution is None else float(resolution),
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
        firn_correction=entry.get("firn_correction"),
        pipelines=tuple(_list(entry.get("pipelines"))),
        files=tuple(
            File(
                filename=file["filename"],
                url=file["url"],
                sha256=file["sha256"],
                mirrors=tuple(_list(file.get("mirrors"))),
                member=file.get("member"),
                unpacked=file.get("unpacked"),
            )
            for file in entry["files"]
        ),
        notes=entry.get("notes"),
    )


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _listed(citekeys: str | Iterable[str]) -> list[str]:
    return [citekeys] if isinstance(citekeys, str) else list(dict.fromkeys(citekeys))


_DESCRIBED = (
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
_NULLABLE: dict[str, Any] = {"resolution": float, "firn_correction": "boolean"}


def _described(dataset: Dataset) -> dict[str, Any]:
    return {field: getattr(dataset, field) for field in _DESCRIBED}


def _mentions(dataset: Dataset, text: str) -> bool:
    said = " ".join((dataset.citekey, dataset.title, *dataset.authors, dataset.location or ""))
    return all(word in said.casefold() for word in text.casefold().split())


def _touch(a: Sequence[float], b: Sequence[float]) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]


def _bibtex_of_dataset(dataset: Dataset) -> str:
    return _bibtex(
        "misc",
        dataset.citekey,
        author=_bibtex_names(dataset.authors),
        title=_bibtex_title(dataset.title),
        year=_latex(dataset.year),
        publisher=_latex(dataset.publisher),
        note="Data set",
        doi=dataset.doi_dataset,
    )


def _bibtex_of_paper(dataset: Dataset) -> str:
    key = f"{dataset.citekey}_paper"
    paper = dataset.paper
    if paper is None:
        note = f"Paper that describes {_latex(dataset.title)}"
        return _bibtex("misc", key, note=note, doi=dataset.doi_literature)
    return _bibtex(
        "article" if paper.journal else "inproceedings",
        key,
        author=_bibtex_names(paper.authors),
        title=_bibtex_title(paper.title),
        journal=_latex(paper.journal),
        booktitle="" if paper.journal else _latex(paper.booktitle),
        publisher=_latex(paper.publisher),
        year=_latex(paper.year),
        volume=_latex(paper.volume),
        number=_latex(paper.number),
        pages=_latex(paper.pages).replace("--", "-").replace("-", "--"),
        doi=dataset.doi_literature,
    )


def _bibtex(kind: str, key: str, **fields: str | None) -> str:
    body = "".join(f"  {name} = {{{value}}},\n" for name, value in fields.items() if value)
    return f"@{kind}{{{key},\n{body}}}\n"


def _bibtex_title(title: str) -> str:
    return f"{{{_latex(title)}}}"  # the second pair of braces keeps the capitals


def _bibtex_names(names: Iterable[str]) -> str:
    # Without braces BibTeX would take "British Antarctic Survey" for a person called Survey.
    return " and ".join(_latex(name) if "," in name else f"{{{_latex(name)}}}" for name in names)


_LATEX = {
    **{letter: f"\\{letter}" for letter in "#$%&_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "ß": r"{\ss}",
    "ø": r"{\o}",
    "Ø": r"{\O}",
    "æ": r"{\ae}",
    "Æ": r"{\AE}",
    "œ": r"{\oe}",
    "Œ": r"{\OE}",
    "ł": r"{\l}",
    "Ł": r"{\L}",
    "\N{LATIN SMALL LETTER DOTLESS I}": r"{\i}",
    "\N{EN DASH}": "--",
    "\N{EM DASH}": "---",
    "\N{LEFT SINGLE QUOTATION MARK}": "`",
    "\N{RIGHT SINGLE QUOTATION MARK}": "'",
    "\N{LEFT DOUBLE QUOTATION MARK}": "``",
    "\N{RIGHT DOUBLE QUOTATION MARK}": "''",
    "\N{NO-BREAK SPACE}": "~",
}
_LATEX_ACCENTS = {
    "\N{COMBINING GRAVE ACCENT}": "`",
    "\N{COMBINING ACUTE ACCENT}": "'",
    "\N{COMBINING CIRCUMFLEX ACCENT}": "^",
    "\N{COMBINING TILDE}": "~",
    "\N{COMBINING MACRON}": "=",
    "\N{COMBINING BREVE}": "u",
    "\N{COMBINING DOT ABOVE}": ".",
    "\N{COMBINING DIAERESIS}": '"',
    "\N{COMBINING RING ABOVE}": "r",
    "\N{COMBINING DOUBLE ACUTE ACCENT}": "H",
    "\N{COMBINING CARON}": "v",
    "\N{COMBINING CEDILLA}": "c",
    "\N{COMBINING OGONEK}": "k",
}


def _latex(text: object) -> str:
    r"""Write text (nothing, where it is None) for LaTeX; what has no command stays as it is.

    Examples
    --------
    >>> print(_latex("Möller & Ferré, 50 %"))
    M{\"{o}}ller \& Ferr{\'{e}}, 50 \%
    """
    if text is None:
        return ""
    return "".join(map(_latex_letter, unicodedata.normalize("NFC", str(text))))


def _latex_letter(letter: str) -> str:
    if letter in _LATEX:
        return _LATEX[letter]
    decomposed = unicodedata.normalize("NFD", letter)
    base, accent = decomposed[0], _LATEX_ACCENTS.get(decomposed[1:])
    return f"{{\\{accent}{{{base}}}}}" if accent and base.isascii() else letter
