"""Citations of datasets and of the papers that describe them.

A citation is written as BibTeX, as plain text or as CSL-JSON
(https://docs.citationstyles.org).
"""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

from deepbedmap.errors import WrongCallError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from deepbedmap.registry.listing import Registry
    from deepbedmap.registry.records import Dataset

Style = Literal["bibtex", "text", "csl-json"]
STYLES: tuple[str, ...] = get_args(Style)
"""The styles in which a citation can be written."""


def cite(registry: Registry, citekeys: str | Iterable[str], style: Style = "bibtex") -> str:
    """Cite datasets and the papers that describe them, each once.

    Parameters
    ----------
    registry
        The registry that lists the datasets.
    citekeys
        One citekey, or several in the order of the output.
    style
        ``"bibtex"``; ``"text"``, one reference per line; or ``"csl-json"``, a JSON list of items of
        the Citation Style Language (https://docs.citationstyles.org), which reference managers and
        pandoc read.

    Returns
    -------
    str
        Ends with a newline; empty for no citekeys (``[]`` as CSL-JSON). The key of a dataset is
        its citekey; the key of its paper ends in ``_paper``. Works with the same DOI, or the same
        paper of several datasets, appear once, under the first key.

    Raises
    ------
    InvalidDataError
        A citekey is not in the registry.
    ValueError
        The style is unknown.

    Examples
    --------
    >>> from deepbedmap import registry
    >>> references = cite(registry.load(), "King2016Rutford", "text").splitlines()
    >>> print(references[0])  # doctest: +ELLIPSIS
    King, Edward C.; Pritchard, ... (2016). Rutford Ice Stream bed elevation DEM from radar data ...
    """
    if style not in STYLES:
        raise WrongCallError(f"style: expected one of {', '.join(STYLES)}, found {style!r}")
    works = _works(registry, citekeys)
    if style == "csl-json":
        return json.dumps([_csl(work) for work in works], indent=2, ensure_ascii=False) + "\n"
    if style == "text":
        return "".join(f"{_reference(work)}\n" for work in works)
    return "\n".join(map(_bibtex, works))


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
            first = works.setdefault(identity, work)
            if first.title is None and work.title is not None:
                works[identity] = replace(work, key=first.key)
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
    """Write one line: authors (year). Title (version). Container or publisher. DOI."""
    year = f"({work.year or 'n.d.'})"
    version = f"(version {work.version})" if _adds_to(work.title, work.version) else None
    kind = "[Data set]" if work.kind == "dataset" else None
    number = f"({work.number})" if work.number else ""
    container = [work.container, f"{work.volume or ''}{number}", work.pages]
    parts = [
        f"{'; '.join(work.authors)} {year}" if work.authors else None,
        " ".join(filter(None, (work.title or work.note, version, kind))),
        None if work.authors or work.title is None else year,
        ", ".join(filter(None, container)),
        work.publisher,
    ]
    text = " ".join(
        part if part.endswith((".", "?", "!")) else f"{part}." for part in parts if part
    )
    return " ".join((f"{text} https://doi.org/{work.doi}" if work.doi else text).split())


def _adds_to(title: str | None, version: str | None) -> bool:
    """Return whether a version is not in the title already, as in "Ice Velocity, Version 1"."""
    pattern = rf"\bv(ersion|\.)? ?{re.escape(version or '')}(?![.\d])"
    return version is not None and not re.search(pattern, title or "", re.IGNORECASE)


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
    family, comma, given_names = name.partition(",")
    if not comma:
        return {"literal": name}
    return {"family": family.strip(), "given": given_names.strip()}


def _bibtex(work: _Work) -> str:
    kind = {"article-journal": "article", "paper-conference": "inproceedings"}.get(
        work.kind, "misc"
    )
    note = _latex(work.note)
    if work.kind == "dataset":
        note = f"Data set, version {_latex(work.version)}" if work.version else "Data set"
    fields = {
        "author": _bibtex_names(work.authors),
        # The second pair of braces preserves the capitals.
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
    # Without braces BibTeX would read "British Antarctic Survey" as a person called Survey.
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
    r"""Write text for LaTeX (empty for None); characters without a command stay as they are.

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
