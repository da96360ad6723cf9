"""Contribute a survey: write its registry entry, its pipeline and its test fixture.

Everything is tried in a temporary copy of the repository first, so a fault leaves the
repository as it was.
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
"""Where, in the repository, the excerpts of contributed surveys are that its tests read."""

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
        raise WrongCallError(f"survey_type: {survey_type!r} is none of {', '.join(SURVEY_TYPES)}")
    licence, vertical_datum = licence_of(licence or ""), datum_of(vertical_datum or "")
    doi, paper_doi = doi_of(doi or ""), doi_of(paper_doi or "")
    raw, root = sample.table.path, _checkout(root)
    recipe = f"{raw.stem}.json"
    _check_is_new(registries.load(root), citekey, raw, recipe, copy)
    pipeline = json.dumps(sample.pipeline(), indent=2, ensure_ascii=False) + "\n"
    with tempfile.TemporaryDirectory(prefix="deepbedmap-") as folder:
        stage = Path(folder)
        picks = _picks(stage / "whole", recipe, pipeline, raw)
        contents = SurveyContents.of(sample)
        fixture = stage / raw.name
        excerpt = (
            contents.excerpt if licence else [truncate_numbers(line) for line in contents.excerpt]
        )
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
        with files.beside(kept) as part:
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


def _check_is_new(
    registry: registries.Registry, citekey: str, raw: Path, recipe: str, copy: bool
) -> None:
    """Refuse names that are taken, whatever their case, and those that cannot be used."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", citekey):
        raise WrongCallError(f"citekey: {citekey!r} is not of letters, digits, - and _ alone")
    if not re.fullmatch(r"[A-Za-z0-9_][\w.+-]*\.\w+", raw.name, re.ASCII):
        raise invalid_file(
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
            raise invalid_file(path, found="a file of this name already", remedy=rename)
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
    from deepbedmap.points.reading import read_points

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
        raise invalid_file(
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
        raise _elsewhere(error, stage, root) from None
    if faults:
        raise _elsewhere(InvalidDataError(*faults), stage, root)
    paths = (listing, recipe, *written)
    return {root / path.relative_to(stage): path.read_bytes() for path in paths}


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _write(new: Mapping[Path, bytes]) -> None:
    """Write all files, or leave all as they were."""
    before = {path: _content(path) for path in new}
    try:
        for path, data in new.items():
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
