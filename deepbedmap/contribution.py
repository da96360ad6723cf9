"""A survey becomes a contribution: an entry of the registry, a pipeline and a test fixture."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import logging
import math
import re
import shutil
import tempfile
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from deepbedmap import registry as registries
from deepbedmap import repository, schemas
from deepbedmap.errors import DeepBedMapError, Fault, InvalidDataError, MissingDataError
from deepbedmap.samples import HIGHEST, MEASURED, NUMBER, Sample, inspect, split

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Sample", "contribute", "datum_of", "doi_of", "inspect", "licence_of"]

logger = logging.getLogger(__name__)

FIXTURES = Path("tests", "fixtures", "surveys")
"""Where, in the repository, the excerpts of contributed surveys are that its tests read."""

_WIDTH = 96  # of a line in the registry, before it is indented

VERTICAL_DATUMS = ("ellipsoid", "EIGEN-GL04C", "EIGEN-6C4")

SURVEY_TYPES = ("airborne", "ground", "seismic", "compilation", "satellite", "model")


def licence_of(text: str) -> str | None:
    """Write a licence as SPDX does; ``"unknown"`` and nothing are None.

    Raises
    ------
    ValueError
        SPDX has no such licence.

    Examples
    --------
    >>> licence_of("cc-by-4.0")
    'CC-BY-4.0'
    """
    from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

    if not _known(text):
        return None
    try:
        return canonicalize_license_expression(text)
    except InvalidLicenseExpression:
        raise ValueError(
            f"licence: {text!r} is no SPDX identifier such as CC-BY-4.0 "
            "(https://spdx.org/licenses lists them); say unknown where no source states one"
        ) from None


def doi_of(text: str) -> str | None:
    """Write a DOI without its address; ``"unknown"`` and nothing are None.

    Raises
    ------
    ValueError
        It is no DOI.

    Examples
    --------
    >>> doi_of("https://doi.org/10.5194/tc-7-375-2013")
    '10.5194/tc-7-375-2013'
    """
    if not _known(text):
        return None
    bare = re.sub(r"^(https?://(dx\.)?doi\.org/|doi:\s*)", "", text.strip(), flags=re.IGNORECASE)
    if not re.fullmatch(r"10\.[0-9]{4,9}/[^\s{}]+", bare):
        raise ValueError(f"doi: {text!r} is none such as 10.5194/tc-7-375-2013")
    return bare


def datum_of(text: str) -> str | None:
    """Name a vertical datum as the registry does; ``"unknown"`` and nothing are None.

    Raises
    ------
    ValueError
        The registry has no such datum.

    Examples
    --------
    >>> datum_of("eigen-gl04c")
    'EIGEN-GL04C'
    """
    if not _known(text):
        return None
    names = {name.casefold(): name for name in VERTICAL_DATUMS}
    if text.strip().casefold() not in names:
        raise ValueError(f"datum: {text!r} is none of {', '.join(VERTICAL_DATUMS)}, unknown")
    return names[text.strip().casefold()]


def _known(text: str | None) -> bool:
    return text is not None and text.strip().lower() not in ("", "unknown", "null", "none")


def contribute(
    sample: Sample,
    citekey: str,
    *,
    title: str,
    licence: str | None,
    vertical_datum: str | None,
    authors: Sequence[str] | None = None,
    year: int | None = None,
    version: str | None = None,
    publisher: str | None = None,
    location: str | None = None,
    survey_type: str | None = None,
    firn_correction: bool | None = None,
    doi: str | None = None,
    paper_doi: str | None = None,
    url: str | None = None,
    notes: str | None = None,
    supersedes: str | None = None,
    copy: bool = False,
    root: str | Path | None = None,
) -> list[Path]:
    """Write a survey's entry, pipeline and test fixture, and the catalog anew.

    All of it is tried in a folder of its own first: the pipeline reads the file and the fixture,
    and the repository is checked. A fault leaves every file as it was. Size, checksum, bounds and
    the number of records are computed. Where no licence is known, the numbers of the fixture are
    cut to two digits, so that it shows the layout and gives none of the data away.

    Parameters
    ----------
    sample
        From :func:`inspect`, without :attr:`Sample.questions`: the raw file, whole.
    citekey
        Name of the new entry.
    title, licence, vertical_datum, authors, year, version, publisher, location, survey_type, \
firn_correction, notes
        As ``data_list.yml`` describes them; None for what is not known.
    doi, paper_doi
        Of the data, and of the paper; None for what there is not.
    url
        Where the file, or an archive with it inside, comes from.
    supersedes
        Citekey of the entry that this one replaces: its status becomes superseded.
    copy
        Whether to copy the file into ``highres/``, where its pipeline finds it.
    root
        Folder of the repository; None for the checkout.

    Returns
    -------
    list of pathlib.Path
        What was written or changed, the registry first.

    Raises
    ------
    InvalidDataError
        The citekey, the pipeline or the file's name is taken; the file does not give picks; or
        the repository would not be valid.
    MissingDataError
        The root is no repository.
    ValueError
        An argument is none of its choices, or the sample leaves a question open.
    """
    if survey_type not in (None, *SURVEY_TYPES):
        raise ValueError(f"survey_type: {survey_type!r} is none of {', '.join(SURVEY_TYPES)}")
    licence, vertical_datum = licence_of(licence or ""), datum_of(vertical_datum or "")
    doi, paper_doi = doi_of(doi or ""), doi_of(paper_doi or "")
    raw, root = sample.table.path, _checkout(root)
    recipe = f"{raw.stem}.json"
    _check_is_new(registries.load(root), citekey, raw, recipe, copy)
    pipeline = json.dumps(sample.pipeline(), indent=2, ensure_ascii=False) + "\n"
    with tempfile.TemporaryDirectory(prefix="deepbedmap-") as folder:
        stage = Path(folder)
        picks = _picks(stage / "whole", recipe, pipeline, raw)
        contents = _Contents.of(sample)
        fixture = stage / raw.name
        excerpt = contents.excerpt if licence else [_coarse(line) for line in contents.excerpt]
        fixture.write_bytes(b"".join((*contents.heading, *excerpt)))
        _picks(stage / "excerpt", recipe, pipeline, fixture)
        count = f"{contents.records:,} records give {len(picks):,} picks."
        entry: dict[str, Any] = {
            "citekey": citekey,
            "title": _line(title),
            "authors": [*filter(None, map(_line, authors or ()))] or None,
            "year": year,
            "version": _line(version),
            "status": "active",
            "publisher": _line(publisher),
            "folder": "highres",
            "location": _line(location),
            "bounds": _bounds(picks),
            "resolution": None,
            "survey_type": survey_type,
            "epoch": _epoch(picks),
            "doi": {"dataset": doi, "literature": paper_doi},
            "licence": licence,
            "crs": sample.crs,
            "vertical_datum": vertical_datum,
            "units": sample.units,
            "nodata": sample.nodata,
            "firn_correction": firn_correction,
            **({"overlaps_with": [supersedes]} if supersedes else {}),
            "pipelines": [recipe],
            "notes": _line(f"{count} {notes or ''}"),
            "files": [
                {
                    "filename": raw.name,
                    "url": _line(url),
                    "bytes": contents.size,
                    "sha256": contents.sha256,
                }
            ],
        }
        new = _try(stage / "repository", root, entry, supersedes, pipeline)
        new[root / FIXTURES / raw.name] = fixture.read_bytes()
    new = {path: data for path, data in new.items() if _content(path) != data}
    kept = root / "highres" / raw.name
    if copy and kept != raw.absolute():
        with repository.beside(kept) as part:
            shutil.copyfile(raw, part)
            _write(new)
        return [*new, kept]
    _write(new)
    return list(new)


def _checkout(root: str | Path | None) -> Path:
    folder = repository.root() if root is None else Path(root)
    if not (folder / "data_list.yml").is_file() or folder.name == "_repository":
        raise MissingDataError(
            f"{folder}: no checkout of the repository (a folder with data_list.yml); "
            "get one with git, and name it with --root"
        )
    return folder.absolute()


def _line(text: str | None) -> str | None:
    """Put text on one line; None where there is none."""
    return " ".join((text or "").split()) or None


def _refused(file: Path, **said: Any) -> InvalidDataError:
    return InvalidDataError(Fault(str(file), **said))


def _check_is_new(
    registry: registries.Registry, citekey: str, raw: Path, recipe: str, copy: bool
) -> None:
    """Refuse names that are taken, whatever their case, and those that cannot be used."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", citekey):
        raise ValueError(f"citekey: {citekey!r} is not of letters, digits, - and _ alone")
    if not re.fullmatch(r"[A-Za-z0-9_][\w.+-]*\.\w+", raw.name, re.ASCII):
        raise _refused(
            raw,
            expected="a file name of letters, digits and _ . + -, with a suffix such as .csv",
            found=repr(raw.name),
            remedy="rename the file",
        )
    rename = f"rename the file, for example {raw.stem}_{citekey}{raw.suffix}"
    for dataset in registry:
        names = {name for file in dataset.files for name in (file.filename, file.name)}
        for field, known, name, remedy in (
            (
                "citekey",
                {dataset.citekey},
                citekey,
                f"choose another; for what replaces this one, add --supersedes {dataset.citekey}",
            ),
            ("files", names if dataset.folder == "highres" else set(), raw.name, rename),
            ("pipelines", {*dataset.pipelines}, recipe, rename),
        ):
            if name.casefold() in map(str.casefold, known):
                raise _refused(
                    registry.path,
                    entry=dataset.citekey,
                    field=field,
                    expected="a name that is not taken",
                    found=name,
                    remedy=remedy,
                )
    places = [registry.root / "highres" / recipe, registry.root / FIXTURES / raw.name]
    if copy and registry.root / "highres" != raw.absolute().parent:
        places.append(registry.root / "highres" / raw.name)
    for path in places:
        if path.exists():
            raise _refused(path, found="a file of this name already", remedy=rename)
    recipes = sorted((registry.root / "highres").glob("*.json"))
    readers = {
        path.name: schemas.validate_file(path, "pipeline").content["pipeline"][0]
        for path in recipes
    }
    others = [
        name for name, reader in readers.items() if fnmatch.fnmatch(raw.name, reader["filename"])
    ]
    if others:
        logger.warning("%s would be read by %s too: %s", raw.name, " and ".join(others), rename)


def _picks(folder: Path, recipe: str, pipeline: str, raw: Path) -> pd.DataFrame:
    """Read a raw file with a pipeline, both in a folder of their own."""
    from deepbedmap.points import read_points

    folder.mkdir()
    path = folder / recipe
    path.write_text(pipeline, encoding="utf-8")
    try:
        (folder / raw.name).symlink_to(raw.absolute())
    except OSError:  # a system without links
        shutil.copyfile(raw, folder / raw.name)
    try:
        picks = read_points(path)
    except DeepBedMapError as error:
        raise _elsewhere(error, folder, raw.parent) from None
    lowest, highest = picks["z"].min(), picks["z"].max()
    if max(-lowest, highest) >= HIGHEST:
        raise _refused(
            raw,
            expected=f"a bed between {-HIGHEST:,.0f} and {HIGHEST:,.0f} m",
            found=f"{lowest:,.6g} to {highest:,.6g} m",
            remedy="name the missing mark (--missing), the units (--units) or the column (--z)",
        )
    return picks


def _elsewhere(error: DeepBedMapError, folder: Path, place: Path) -> DeepBedMapError:
    """Say of what went wrong in a folder for trying that it is in the place it stands for."""

    def moved(said: str) -> str:
        return said.replace(str(folder.resolve()), str(place)).replace(str(folder), str(place))

    if isinstance(error, InvalidDataError):
        return InvalidDataError(
            *(
                replace(fault, file=moved(fault.file)) if isinstance(fault, Fault) else moved(fault)
                for fault in error.faults
            )
        )
    return type(error)(moved(str(error)))


@dataclass(frozen=True)
class _Contents:
    """What one passage through a whole file gives."""

    size: int
    sha256: str
    records: int
    heading: list[bytes]
    excerpt: list[bytes]

    @classmethod
    def of(cls, sample: Sample) -> _Contents:
        digest, size, records = hashlib.sha256(), 0, 0
        heading: list[bytes] = []
        whole, partial = _Spread(12), _Spread(2)
        is_whole = _completeness(sample)
        with sample.table.path.open("rb") as file:
            for number, line in enumerate(file):
                digest.update(line)
                size += len(line)
                if number < sample.table.skip:
                    heading.append(line)
                elif not line.isspace():
                    records += 1
                    ended = line if line.endswith(b"\n") else line + b"\n"
                    (whole if is_whole(line) else partial).add(records, ended)
        excerpt = sorted((*whole.kept, *partial.kept))
        return cls(size, digest.hexdigest(), records, heading, [line for _, line in excerpt])


class _Spread:
    """Keeps a number of lines, up to twice that, evenly spread over all that were added."""

    def __init__(self, number: int) -> None:
        self.kept: list[tuple[int, bytes]] = []
        self._number, self._step, self._seen = number, 1, 0

    def add(self, place: int, line: bytes) -> None:
        if self._seen % self._step == 0:
            self.kept.append((place, line))
        self._seen += 1
        if len(self.kept) == 2 * self._number:
            self.kept = self.kept[::2]
            self._step *= 2


def _completeness(sample: Sample) -> Callable[[bytes], bool]:
    """Tell which records have all of a pick."""
    wanted = [
        (
            sample.table.columns.index(sample.roles[role]),
            {*sample.missing.get(sample.roles[role], ())},
        )
        for role in MEASURED
        if role in sample.roles
    ]

    def is_whole(line: bytes) -> bool:
        row = split(line.decode(errors="replace").rstrip("\r\n"), sample.table.separator)
        if len(row) != len(sample.table.columns):
            return False
        for number, marks in wanted:
            field = row[number]
            if not NUMBER.fullmatch(field) or float(field) in marks:
                return False
            if sample.table.columns[number] == sample.positive and float(field) <= 0:
                return False
        return True

    return is_whole


def _coarse(line: bytes) -> bytes:
    r"""Cut numbers to two digits that count; 9999 and the like, which mark gaps, stay.

    Examples
    --------
    >>> _coarse(b"-87.521210,1234.5,0.0123,-9999,L7\n")
    b'-87.000000,1200.0,0.0120,-9999,L7\n'
    """

    def cut(number: re.Match[bytes]) -> bytes:
        text = number[0]
        if re.fullmatch(rb"9{3,}(\.0*)?|32768(\.0*)?", text):
            return text
        counted, digits = 0, b""
        for digit in text:
            is_digit = chr(digit).isdigit()
            digits += b"0" if is_digit and counted >= 2 else bytes([digit])
            counted += is_digit and (counted > 0 or digit != ord("0"))
        return digits

    return re.sub(rb"(?<![\w.])\d+(\.\d*)?(?![\w.])", cut, line)


def _bounds(picks: pd.DataFrame) -> list[int]:
    """Whole metres around the picks, in EPSG:3031."""
    lower = [math.floor(picks[axis].min()) for axis in "xy"]
    upper = [math.ceil(picks[axis].max()) for axis in "xy"]
    upper = [max(high, low + 1) for low, high in zip(lower, upper, strict=True)]
    return [*lower, *upper]


def _epoch(picks: pd.DataFrame) -> list[int] | None:
    if "time" not in picks or picks["time"].isna().any():
        return None
    return [int(picks["time"].min().year), int(picks["time"].max().year)]


def _try(
    stage: Path, root: Path, entry: dict[str, Any], supersedes: str | None, pipeline: str
) -> dict[Path, bytes]:
    """Make the repository as it will be, check it, and return what its changed files say."""
    from deepbedmap import catalog, validation

    for folder in ("highres", "lowres", "misc", "catalog", "validation"):
        (stage / folder).mkdir(parents=True)
        for path in (root / folder).glob("*"):
            if path.suffix in (".json", ".yml", ".md") and path.is_file():
                shutil.copyfile(path, stage / folder / path.name)
    old, listing = root / "data_list.yml", stage / "data_list.yml"
    text = _with_entry(old, entry)
    if supersedes is not None:
        text = _with_successor(old, text, supersedes, entry["citekey"])
    newline = "\r\n" if b"\r\n" in old.read_bytes() else "\n"
    listing.write_text(text, encoding="utf-8", newline=newline)
    _check_the_rest_is_the_same(old, listing, supersedes)
    recipe = stage / "highres" / entry["pipelines"][0]
    recipe.write_text(pipeline, encoding="utf-8", newline="\n")
    try:
        written = catalog.build(root=stage)
        faults = validation.check(root=stage)
    except DeepBedMapError as error:
        raise _elsewhere(error, stage, root) from None
    if faults:
        raise _elsewhere(InvalidDataError(*faults), stage, root)
    paths = (listing, recipe, *written)
    return {root / path.relative_to(stage): path.read_bytes() for path in paths}


def _with_entry(listing: Path, entry: dict[str, Any]) -> str:
    """Append an entry to the text of a registry, whose other lines stay as they are."""
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
    """Write an entry as a person would."""
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


def _with_successor(listing: Path, text: str, old: str, new: str) -> str:
    """Say in the text of a registry that an entry is superseded; its other lines stay."""
    dataset = registries.load(listing)[old]
    if dataset.superseded_by is not None:
        raise _refused(
            listing,
            entry=old,
            field="superseded_by",
            expected="nothing yet",
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
        at = document.lines[(*place, key)] - 1
        lines[at] = re.sub(rf"({key}:)[^#]*?(\s*#.*)?$", rf"\1 {changes[key]}\2", lines[at])
    before = next(key for key in ("superseded_by", "publisher", "folder") if key in entry)
    at = document.lines[(*place, before)] - 1
    indent = lines[at][: lines[at].index(before)].replace("-", " ")
    lines[at:at] = [f"{indent}{key}: {changes[key]}" for key in changes if key not in entry]
    return "\n".join(lines)


def _check_the_rest_is_the_same(old: Path, new: Path, supersedes: str | None) -> None:
    """Make sure that appending text to the registry has appended an entry, and nothing else."""

    def kept(entry: dict[str, Any]) -> dict[str, Any]:
        changed = ("status", "superseded_by") if entry["citekey"] == supersedes else ()
        return {key: value for key, value in entry.items() if key not in changed}

    try:
        before, after = (_datasets(schemas.load(path)) for path in (old, new))
        same = [*map(kept, before)] == [*map(kept, after[:-1])]
    except (DeepBedMapError, TypeError, KeyError):
        same = False
    if not same:
        raise _refused(
            old,
            expected="datasets as a block list that ends the file, each key on its own line",
            found="another layout, to which no text can be appended",
            remedy="lay the file out so, or add the entry by hand",
        )


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _write(new: Mapping[Path, bytes]) -> None:
    """Write all files, or leave all as they were."""
    before = {path: _content(path) for path in new}
    try:
        for path, data in new.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with repository.beside(path) as part:
                part.write_bytes(data)
    except BaseException:
        for path, old in before.items():
            if old is None:
                path.unlink(missing_ok=True)
            else:
                path.write_bytes(old)
        raise
