"""Contribute a survey: write its registry entry, its pipeline and its test fixture.

Everything is tried in a temporary copy of the repository first, so a fault leaves the
repository unchanged.
"""

from __future__ import annotations

import fnmatch
import json
import logging
import math
import re
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from deepbedmap import files, repository, schemas
from deepbedmap import registry as registries
from deepbedmap.contribution.columns import HIGHEST
from deepbedmap.contribution.entry import (
    check_rest_unchanged,
    invalid_file,
    text_with_entry,
    text_with_successor,
)
from deepbedmap.contribution.fixture import SurveyContents, truncate_numbers
from deepbedmap.contribution.words import datum_of, doi_of, licence_of
from deepbedmap.errors import (
    DeepBedMapError,
    Fault,
    InvalidDataError,
    MissingDataError,
    WrongCallError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    import pandas as pd

    from deepbedmap.contribution.sample import Sample

logger = logging.getLogger(__name__)

FIXTURES = Path("tests", "fixtures", "surveys")
"""Folder of the repository with the excerpts of contributed surveys that its tests read."""

SURVEY_TYPES = ("airborne", "ground", "seismic", "compilation", "satellite", "model")


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
    """Write a survey's entry, pipeline and test fixture, and rebuild the catalog.

    Everything is tried in a temporary folder first: the pipeline reads the file and the fixture,
    and the repository is checked. A fault leaves every file unchanged. Size, checksum, bounds and
    the number of records are computed. Without a licence, the numbers of the fixture are truncated
    to two significant digits, so that it shows the layout without publishing the data.

    Parameters
    ----------
    sample
        The complete raw file, from :func:`inspect`, without :attr:`Sample.questions`.
    citekey
        Name of the new entry.
    title, licence, vertical_datum, authors, year, version, publisher, location, survey_type, \
firn_correction, notes
        Fields of the entry, as ``data_list.yml`` describes them; None for unknown.
    doi, paper_doi
        DOIs of the data and of the paper; None if there is none.
    url
        Source of the file, or of an archive that contains it.
    supersedes
        Citekey of the entry that this one replaces; its status becomes superseded.
    copy
        Whether to copy the file into ``highres/``, where its pipeline reads it.
    root
        Folder of the repository; None for the checkout.

    Returns
    -------
    list of pathlib.Path
        The files that were written or changed, the registry first.

    Raises
    ------
    InvalidDataError
        The citekey, the pipeline or the file's name is taken; the file yields no picks; or the
        repository would be invalid.
    MissingDataError
        The root is not a repository.
    ValueError
        An argument is not one of its choices, or the sample has open questions.
    """
    description = {
        "citekey": citekey,
        "title": _line(title),
        "authors": [*filter(None, map(_line, authors or ()))] or None,
        "year": year,
        "version": _line(version),
        "publisher": _line(publisher),
        "location": _line(location),
        "survey_type": _survey_type(survey_type),
        "licence": licence_of(licence or ""),
        "vertical_datum": datum_of(vertical_datum or ""),
        "doi": {"dataset": doi_of(doi or ""), "literature": doi_of(paper_doi or "")},
        "firn_correction": firn_correction,
        "notes": notes,
        "url": _line(url),
    }
    raw, root = sample.table.path, _checkout(root)
    _check_is_new(registries.load(root), citekey, raw, copy)
    with tempfile.TemporaryDirectory(prefix="deepbedmap-") as folder:
        changes = _try(Path(folder), root, sample, description, supersedes)
    target = root / "highres" / raw.name
    if not copy or target == raw.absolute():
        _write(changes)
        return list(changes)
    with files.beside(target) as part:
        shutil.copyfile(raw, part)
        _write(changes)
    return [*changes, target]


def _survey_type(name: str | None) -> str | None:
    if name not in (None, *SURVEY_TYPES):
        choices = ", ".join(SURVEY_TYPES)
        raise WrongCallError(f"survey_type: expected one of {choices}, found {name!r}")
    return name


def _try(
    stage: Path,
    root: Path,
    sample: Sample,
    description: Mapping[str, Any],
    supersedes: str | None,
) -> dict[Path, bytes]:
    """Contribute a survey to a copy of the repository; return the content of changed files."""
    raw = sample.table.path
    recipe = _recipe(raw)
    pipeline = json.dumps(sample.pipeline(), indent=2, ensure_ascii=False) + "\n"
    picks = _picks(stage / "whole", recipe, pipeline, raw)
    contents = SurveyContents.of(sample)
    excerpt = contents.excerpt
    if not description["licence"]:
        excerpt = [truncate_numbers(line) for line in excerpt]
    fixture = stage / raw.name
    fixture.write_bytes(b"".join((*contents.heading, *excerpt)))
    _picks(stage / "excerpt", recipe, pipeline, fixture)
    entry = _entry(sample, description, contents, picks, supersedes)
    changed = _changed_files(stage / "repository", root, entry, supersedes, pipeline)
    changed[root / FIXTURES / raw.name] = fixture.read_bytes()
    return {path: data for path, data in changed.items() if _content(path) != data}


def _entry(
    sample: Sample,
    description: Mapping[str, Any],
    contents: SurveyContents,
    picks: pd.DataFrame,
    supersedes: str | None,
) -> dict[str, Any]:
    """Return the entry of a survey, its fields in the order of the registry."""
    count = f"{contents.records:,} records give {len(picks):,} picks."
    file = {
        "filename": sample.table.path.name,
        "url": description["url"],
        "bytes": contents.size,
        "sha256": contents.sha256,
    }
    return {
        **{key: description[key] for key in ("citekey", "title", "authors", "year", "version")},
        "status": "active",
        "publisher": description["publisher"],
        "folder": "highres",
        "location": description["location"],
        "bounds": _bounds(picks),
        "resolution": None,
        "survey_type": description["survey_type"],
        "epoch": _epoch(picks),
        "doi": description["doi"],
        "licence": description["licence"],
        "crs": sample.crs,
        "vertical_datum": description["vertical_datum"],
        "units": sample.units,
        "nodata": sample.nodata,
        "firn_correction": description["firn_correction"],
        **({"overlaps_with": [supersedes]} if supersedes else {}),
        "pipelines": [_recipe(sample.table.path)],
        "notes": _line(f"{count} {description['notes'] or ''}"),
        "files": [file],
    }


def _recipe(raw: Path) -> str:
    """Return the name of the pipeline that reads a raw file."""
    return f"{raw.stem}.json"


def _checkout(root: str | Path | None) -> Path:
    folder = repository.root() if root is None else Path(root)
    if not (folder / "data_list.yml").is_file() or folder.name == "_repository":
        raise MissingDataError(
            f"{folder}: not a checkout of the repository (a folder with data_list.yml); "
            "clone it with git, and name the folder with --root"
        )
    return folder.absolute()


def _line(text: str | None) -> str | None:
    """Join text into one line; None if it is empty."""
    return " ".join((text or "").split()) or None


def _check_is_new(registry: registries.Registry, citekey: str, raw: Path, copy: bool) -> None:
    """Reject names that are taken, regardless of case, and those that cannot be used."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", citekey):
        raise WrongCallError(f"citekey: expected only letters, digits, - and _, found {citekey!r}")
    if not re.fullmatch(r"[A-Za-z0-9_][\w.+-]*\.\w+", raw.name, re.ASCII):
        raise invalid_file(
            raw,
            expected="a file name of letters, digits and _ . + -, with a suffix such as .csv",
            found=repr(raw.name),
            remedy="rename the file",
        )
    recipe = _recipe(raw)
    rename = f"rename the file, for example {raw.stem}_{citekey}{raw.suffix}"
    for dataset in registry:
        names = {name for file in dataset.files for name in (file.filename, file.name)}
        for field, taken, name, remedy in (
            (
                "citekey",
                {dataset.citekey},
                citekey,
                f"choose another; to replace this entry, add --supersedes {dataset.citekey}",
            ),
            ("files", names if dataset.folder == "highres" else set(), raw.name, rename),
            ("pipelines", {*dataset.pipelines}, recipe, rename),
        ):
            if name.casefold() in map(str.casefold, taken):
                raise invalid_file(
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
            raise invalid_file(path, found="an existing file of this name", remedy=rename)
    recipes = sorted((registry.root / "highres").glob("*.json"))
    readers = {
        path.name: schemas.validate_file(path, "pipeline").content["pipeline"][0]
        for path in recipes
    }
    others = [
        name for name, reader in readers.items() if fnmatch.fnmatch(raw.name, reader["filename"])
    ]
    if others:
        logger.warning("%s would also be read by %s: %s", raw.name, " and ".join(others), rename)


def _picks(folder: Path, recipe: str, pipeline: str, raw: Path) -> pd.DataFrame:
    """Read a raw file with a pipeline, both in a new folder."""
    from deepbedmap.points.reading import read_points

    folder.mkdir()
    path = folder / recipe
    path.write_text(pipeline, encoding="utf-8")
    try:
        (folder / raw.name).symlink_to(raw.absolute())
    except OSError:  # a system without symbolic links
        shutil.copyfile(raw, folder / raw.name)
    try:
        picks = read_points(path)
    except DeepBedMapError as error:
        raise _relocated(error, folder, raw.parent) from None
    lowest, highest = picks["z"].min(), picks["z"].max()
    if max(-lowest, highest) >= HIGHEST:
        raise invalid_file(
            raw,
            expected=f"a bed between {-HIGHEST:,.0f} and {HIGHEST:,.0f} m",
            found=f"{lowest:,.6g} to {highest:,.6g} m",
            remedy="name the value of missing data (--missing), the units (--units) or the column "
            "(--z)",
        )
    return picks


def _relocated(error: DeepBedMapError, folder: Path, target: Path) -> DeepBedMapError:
    """Return an error from a temporary folder with the paths of the folder that it mirrors."""

    def moved(text: str) -> str:
        return text.replace(str(folder.resolve()), str(target)).replace(str(folder), str(target))

    if isinstance(error, InvalidDataError):
        return InvalidDataError(
            *(
                replace(fault, file=moved(fault.file)) if isinstance(fault, Fault) else moved(fault)
                for fault in error.faults
            )
        )
    return type(error)(moved(str(error)))


def _bounds(picks: pd.DataFrame) -> list[int]:
    """Return bounds of the picks in whole metres, EPSG:3031."""
    lower = [math.floor(picks[axis].min()) for axis in "xy"]
    upper = [math.ceil(picks[axis].max()) for axis in "xy"]
    upper = [max(high, low + 1) for low, high in zip(lower, upper, strict=True)]
    return [*lower, *upper]


def _epoch(picks: pd.DataFrame) -> list[int] | None:
    if "time" not in picks or picks["time"].isna().any():
        return None
    return [int(picks["time"].min().year), int(picks["time"].max().year)]


def _changed_files(
    stage: Path, root: Path, entry: dict[str, Any], supersedes: str | None, pipeline: str
) -> dict[Path, bytes]:
    """Assemble the new repository, check it, and return the content of its changed files."""
    from deepbedmap import catalog, validation

    for folder in ("highres", "lowres", "misc", "catalog", "validation"):
        (stage / folder).mkdir(parents=True)
        for path in (root / folder).glob("*"):
            if path.suffix in (".json", ".yml", ".md") and path.is_file():
                shutil.copyfile(path, stage / folder / path.name)
    old, listing = root / "data_list.yml", stage / "data_list.yml"
    text = text_with_entry(old, entry)
    if supersedes is not None:
        text = text_with_successor(old, text, supersedes, entry["citekey"])
    newline = "\r\n" if b"\r\n" in old.read_bytes() else "\n"
    listing.write_text(text, encoding="utf-8", newline=newline)
    check_rest_unchanged(old, listing, supersedes)
    recipe = stage / "highres" / entry["pipelines"][0]
    recipe.write_text(pipeline, encoding="utf-8", newline="\n")
    try:
        written = catalog.build(root=stage)
        faults = validation.check(root=stage)
    except DeepBedMapError as error:
        raise _relocated(error, stage, root) from None
    if faults:
        raise _relocated(InvalidDataError(*faults), stage, root)
    paths = (listing, recipe, *written)
    return {root / path.relative_to(stage): path.read_bytes() for path in paths}


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _write(contents: Mapping[Path, bytes]) -> None:
    """Write all files, or leave all unchanged."""
    before = {path: _content(path) for path in contents}
    try:
        for path, data in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with files.beside(path) as part:
                part.write_bytes(data)
    except BaseException:
        for path, old in before.items():
            if old is None:
                path.unlink(missing_ok=True)
            else:
                path.write_bytes(old)
        raise
