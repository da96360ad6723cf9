"""Whom to cite: for datasets, and for whatever was made of them.

A grid, a prediction, a table of picks and a checkpoint carry their provenance: a JSON document
with a list of ``sources``. A source says its ``file``, the ``sha256`` of that file and, where it
is known, the ``citekey`` of its dataset. What was itself made of something (the checkpoint of a
prediction) has ``sources`` of its own, and is cited by them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from deepbedmap import schemas
from deepbedmap.errors import Fault, InvalidDataError, MissingDataError

if TYPE_CHECKING:
    from deepbedmap.registry import Dataset, Registry

Style = Literal["bibtex", "text", "csl-json"]

STYLES: tuple[str, ...] = get_args(Style)
"""How a citation can be written."""


def cite(registry: Registry, citekeys: str | Iterable[str], style: Style = "bibtex") -> str:
    """Cite datasets and the papers that describe them, each once.

    Parameters
    ----------
    registry
        Where the datasets are.
    citekeys
        One, or several in the order wanted.
    style
        ``"bibtex"``; ``"text"``, a reference a line; ``"csl-json"``, a JSON list of items of the
        Citation Style Language (https://docs.citationstyles.org), which reference managers and
        pandoc read.

    Returns
    -------
    str
        Ends in a line's end; empty where no citekey is given (``[]`` as CSL-JSON). The key of a
        dataset is its citekey, that of its paper ends in ``_paper``. What has one DOI, or is one
        paper, stands there once, under the first key that leads to it.

    Raises
    ------
    InvalidDataError
        A citekey is not in the registry.
    ValueError
        There is no such style.

    Examples
    --------
    >>> from deepbedmap import registry
    >>> references = cite(registry.load(), "King2016Rutford", "text").splitlines()
    >>> print(references[0])  # doctest: +ELLIPSIS
    King, Edward C.; Pritchard, ... (2016). Rutford Ice Stream bed elevation DEM from radar data ...
    """
    if style not in STYLES:
        raise ValueError(f"style: expected one of {', '.join(STYLES)}, found {style!r}")
    works = _works(registry, citekeys)
    if style == "csl-json":
        return json.dumps([_csl(work) for work in works], indent=2, ensure_ascii=False) + "\n"
    if style == "text":
        return "".join(f"{_reference(work)}\n" for work in works)
    return "\n".join(map(_bibtex, works))


@dataclass(frozen=True)
class Attribution:
    """The datasets of which something was made.

    Attributes
    ----------
    citekeys
        Of the datasets, each once, in the order of the provenance.
    faults
        One for each source that no dataset of the registry can be named for. With any of these,
        a list of the citekeys would be an incomplete citation.
    """

    citekeys: tuple[str, ...]
    faults: tuple[Fault, ...] = ()


def attribute(what: str | os.PathLike[str], registry: Registry) -> Attribution:
    """Find the datasets behind a citekey, a file of the registry, or a file made of those.

    A source belongs to the dataset whose citekey its provenance states; else to the one whose file
    has its checksum; else to the only one that has a file of its name, unless the checksum which
    the registry knows of that file is another. Nothing else is guessed.

    Parameters
    ----------
    what
        A citekey; the path of a grid, prediction, table of picks (.parquet), checkpoint, training
        set (.zarr) or raw file; or the name of a file in the registry, which need not be here.
    registry
        Where the datasets are.

    Raises
    ------
    InvalidDataError
        There is a file, but it has no provenance and is none of the registry's; or its provenance
        cannot be read.
    MissingDataError
        There is neither dataset nor file of this name.
    """
    name = os.fspath(what)
    if name in registry:
        return Attribution((name,))
    path = Path(name)
    files = _Files(registry)
    if path.is_file() or (path.suffix in _FOLDERS and path.is_dir()):
        return _attribute_file(path, files)
    citekeys = files.by_name.get(name, {})
    if len(citekeys) == 1:
        return Attribution(tuple(citekeys))
    raise MissingDataError(
        str(
            Fault(
                name,
                expected="a citekey, a file's name in the registry, or the path of a file",
                found=f"files of {' and '.join(citekeys)}" if citekeys else "nothing of this name",
                remedy="name the dataset"
                if citekeys
                else schemas.near(name, [d.citekey for d in registry] + [*files.by_name]),
            )
        )
    )


def sources_of(path: str | os.PathLike[str], registry: Registry) -> list[str]:
    """Citekeys of all that a file was made of, each once: see :func:`attribute`.

    Raises
    ------
    InvalidDataError
        Besides the cases of :func:`attribute`: a source that no dataset can be named for, since
        the citation would silently miss it.
    """
    attribution = attribute(path, registry)
    if attribution.faults:
        raise InvalidDataError(*attribution.faults)
    return list(attribution.citekeys)


def describe(path: str | os.PathLike[str], role: str) -> dict[str, Any]:
    """Describe a file as a source, for the provenance of what is made of it.

    Parameters
    ----------
    path
        Of a raw file, or of one that states its provenance: then that goes with it.
    role
        What the file is used as, such as ``"prior"`` or ``"checkpoint"``.

    Returns
    -------
    dict
        ``role``, ``file`` (its plain name), ``sha256`` (not of a folder) and, where the file states
        its own, ``sources``.
    """
    path = Path(path)
    described: dict[str, Any] = {"role": role, "file": path.name}
    if not path.exists():
        return described
    if path.is_file():
        described["sha256"] = _checksum(path)
    sources = _stated_sources(path)
    return described if sources is None else {**described, "sources": sources}


@dataclass(frozen=True)
class _Work:
    """A dataset or a paper, as citations of any style need it."""

    key: str
    kind: Literal["dataset", "article-journal", "paper-conference", "document"]
    title: str | None = None
    authors: tuple[str, ...] = ()
    year: int | None = None
    version: str | None = None
    publisher: str | None = None
    container: str | None = None
    volume: str | None = None
    number: str | None = None
    pages: str | None = None
    note: str | None = None
    doi: str | None = None


def _works(registry: Registry, citekeys: str | Iterable[str]) -> list[_Work]:
    works: dict[Any, _Work] = {}
    for citekey in [citekeys] if isinstance(citekeys, str) else citekeys:
        for work in _works_of(registry[citekey]):
            if work.doi:
                identity: Any = work.doi.casefold()
            elif work.kind == "dataset":
                identity = work.key
            else:
                identity = work.title, work.authors, work.year
            known = works.setdefault(identity, work)
            if known.title is None and work.title is not None:
                works[identity] = replace(work, key=known.key)
    return list(works.values())


def _works_of(dataset: Dataset) -> Iterator[_Work]:
    yield _Work(
        key=dataset.citekey,
        kind="dataset",
        title=dataset.title,
        authors=dataset.authors,
        year=dataset.year,
        version=dataset.version,
        publisher=dataset.publisher,
        doi=dataset.doi_dataset,
    )
    key, paper = f"{dataset.citekey}_paper", dataset.paper
    if paper is not None:
        yield _Work(
            key=key,
            kind="article-journal" if paper.journal else "paper-conference",
            title=paper.title,
            authors=paper.authors,
            year=paper.year,
            publisher=paper.publisher,
            container=paper.journal or paper.booktitle,
            volume=paper.volume,
            number=paper.number,
            pages=paper.pages,
            doi=dataset.doi_literature,
        )
    elif dataset.doi_literature:
        note = f"Paper that describes {dataset.title}"
        yield _Work(key=key, kind="document", note=note, doi=dataset.doi_literature)


def _reference(work: _Work) -> str:
    """One line: authors (year). Title (version). Where it was published. DOI."""
    year = f"({work.year or 'n.d.'})"
    version = f"(version {work.version})" if _is_news(work.version, work.title) else None
    kind = "[Data set]" if work.kind == "dataset" else None
    number = f"({work.number})" if work.number else ""
    where = [work.container, f"{work.volume or ''}{number}", work.pages]
    parts = [
        f"{'; '.join(work.authors)} {year}" if work.authors else None,
        " ".join(filter(None, (work.title or work.note, version, kind))),
        None if work.authors or work.title is None else year,
        ", ".join(filter(None, where)),
        work.publisher,
    ]
    text = " ".join(
        part if part.endswith((".", "?", "!")) else f"{part}." for part in parts if part
    )
    return " ".join((f"{text} https://doi.org/{work.doi}" if work.doi else text).split())


def _is_news(version: str | None, title: str | None) -> bool:
    """Whether a title does not say the version by itself, as in "Ice Velocity, Version 1"."""
    said = rf"\bv(ersion|\.)? ?{re.escape(version or '')}(?![.\d])"
    return version is not None and not re.search(said, title or "", re.IGNORECASE)


def _csl(work: _Work) -> dict[str, Any]:
    item = {
        "id": work.key,
        "type": work.kind,
        "title": work.title,
        "author": [_csl_name(name) for name in work.authors],
        "issued": {"date-parts": [[work.year]]} if work.year else None,
        "version": work.version,
        "publisher": work.publisher,
        "container-title": work.container,
        "volume": work.volume,
        "issue": work.number,
        "page": work.pages,
        "note": work.note,
        "DOI": work.doi,
    }
    return {name: value for name, value in item.items() if value}


def _csl_name(name: str) -> dict[str, str]:
    family, comma, given = name.partition(",")
    if not comma:
        return {"literal": name}
    return {"family": family.strip(), "given": given.strip()}


def _bibtex(work: _Work) -> str:
    kind = {"article-journal": "article", "paper-conference": "inproceedings"}.get(
        work.kind, "misc"
    )
    note = _latex(work.note)
    if work.kind == "dataset":
        note = f"Data set, version {_latex(work.version)}" if work.version else "Data set"
    fields = {
        "author": _bibtex_names(work.authors),
        # The second pair of braces keeps the capitals.
        "title": f"{{{_latex(work.title)}}}" if work.title else None,
        "journal" if kind == "article" else "booktitle": _latex(work.container),
        "publisher": _latex(work.publisher),
        "year": _latex(work.year),
        "volume": _latex(work.volume),
        "number": _latex(work.number),
        "pages": _latex(work.pages).replace("--", "-").replace("-", "--"),
        "note": note,
        "doi": work.doi,
    }
    body = "".join(f"  {name} = {{{value}}},\n" for name, value in fields.items() if value)
    return f"@{kind}{{{work.key},\n{body}}}\n"


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


class _Files:
    """The files of a registry, by checksum and by name."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.by_checksum: dict[str, set[str]] = {}
        self.by_name: dict[str, dict[str, str | None]] = {}
        for dataset in registry:
            for file in dataset.files:
                if file.sha256:
                    self.by_checksum.setdefault(file.sha256, set()).add(dataset.citekey)
                self.by_name.setdefault(file.filename, {})[dataset.citekey] = file.sha256
                if file.unpacked:
                    self.by_name.setdefault(file.unpacked, {})[dataset.citekey] = None

    def dataset_of(self, source: dict[str, Any]) -> str | None:
        """Citekey of a source's dataset; None where nothing says which it is."""
        citekey, checksum, name = (
            value if isinstance(value := source.get(key), str) else ""
            for key in ("citekey", "sha256", "file")
        )
        if citekey in self.registry:
            return citekey
        named = {
            candidate
            for candidate, known in self.by_name.get(name, {}).items()
            if not (known and checksum) or known == checksum
        }
        same = self.by_checksum.get(checksum, set())
        found = (same & named or same) if same else set() if citekey else named
        return found.pop() if len(found) == 1 else None


def _attribute_file(path: Path, files: _Files) -> Attribution:
    unreadable = None
    try:
        sources = _stated_sources(path)
    except InvalidDataError as error:
        sources, unreadable = None, error
    if sources is None:
        # Raw files state nothing, and the suffixes of some are those of our own files.
        checksum = _checksum(path) if path.is_file() else None
        citekey = files.dataset_of({"file": path.name, "sha256": checksum})
        if citekey:
            return Attribution((citekey,))
        raise unreadable or InvalidDataError(
            Fault(
                str(path),
                expected="a grid, prediction, table of picks or checkpoint that says what it was "
                "made of, or a file of the registry",
                found="no provenance, and neither name nor checksum of a file of the registry",
            )
        )
    citekeys: dict[str, None] = {}
    faults: dict[Fault, None] = {}
    if not sources:
        faults[_fault(path, "at least one source", "none")] = None
    pending = sources[::-1]
    while pending:
        source = pending.pop()
        if not isinstance(source, dict):
            faults[_fault(path, "sources that are mappings", _said(source))] = None
        elif isinstance(inner := source.get("sources"), list) and inner:
            pending += inner[::-1]
        elif citekey := files.dataset_of(source):
            citekeys[citekey] = None
        else:
            expected = f"sources that {files.registry.path.name} knows"
            remedy = "cite it by hand, or add it to the registry"
            faults[_fault(path, expected, _said(source), remedy)] = None
    return Attribution(tuple(citekeys), tuple(faults))


def _fault(path: Path, expected: str, found: str, remedy: str | None = None) -> Fault:
    return Fault(str(path), field="provenance", expected=expected, found=found, remedy=remedy)


def _said(source: Any) -> str:
    """Name a source in a few words; what stands in a file may be anything."""
    if isinstance(source, dict):
        said = {
            key: source[key] for key in ("role", "citekey", "file", "sha256") if source.get(key)
        }
        text = " ".join(f"{key} {str(value)[:100]!r}" for key, value in said.items())
        return text or "one without citekey, file and sha256"
    return repr(source)[:100]


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stated_sources(path: Path) -> list[Any] | None:
    """The sources that a file's provenance lists; None where it states no provenance."""
    read = _READERS.get(path.suffix.lower())
    if read is None:
        return None
    try:
        texts = read(path)
    except Exception as error:  # readers of four formats, each with exceptions of its own
        found = f"one that fails: {error}"
        expected = f"a complete {path.suffix} file"
        raise InvalidDataError(Fault(str(path), expected=expected, found=found)) from error
    if not texts:
        return None
    sources: list[Any] = []
    for text in texts:
        try:
            document = json.loads(text)
            listed = document.get("sources", [])
        except (AttributeError, TypeError, ValueError, RecursionError):
            listed = None
        if not isinstance(listed, list):
            expected = "JSON: a mapping with a list of sources"
            raise InvalidDataError(_fault(path, expected, repr(text)[:100]))
        sources += listed
    return sources


def _read_netcdf(path: Path) -> list[Any]:
    import xarray as xr

    with xr.open_dataset(path, engine="h5netcdf", decode_cf=False) as dataset:
        holders = [dataset.attrs, *(variable.attrs for variable in dataset.variables.values())]
        return [attrs["provenance"] for attrs in holders if "provenance" in attrs]


def _read_zarr(path: Path) -> list[Any]:
    import zarr

    group = zarr.open_group(path, mode="r")
    holders = [group.attrs, *(array.attrs for _, array in group.arrays())]
    return [attrs["provenance"] for attrs in holders if "provenance" in attrs]


def _read_geotiff(path: Path) -> list[Any]:
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as dataset:
            tags = dataset.tags()
    return [tags["provenance"]] if "provenance" in tags else []


def _read_checkpoint(path: Path) -> list[Any]:
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        header = file.metadata() or {}
    return [header["deepbedmap"]] if "deepbedmap" in header else []


def _read_table(path: Path) -> list[Any]:
    from pyarrow import parquet

    metadata = parquet.read_schema(path).metadata or {}
    return [metadata[b"PANDAS_ATTRS"]] if b"PANDAS_ATTRS" in metadata else []


_READERS: dict[str, Callable[[Path], list[Any]]] = {
    ".nc": _read_netcdf,
    ".tif": _read_geotiff,
    ".tiff": _read_geotiff,
    ".safetensors": _read_checkpoint,
    ".parquet": _read_table,
    ".zarr": _read_zarr,
}
_FOLDERS = (".zarr",)
