"""Maintain the repository: add a survey, validate files, write the catalog."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deepbedmap.cli.options import Json, app, catalog_app

if TYPE_CHECKING:
    from collections.abc import Iterable

    from deepbedmap.contribution.sample import Sample


@app.command(
    epilog="Example: deepbedmap new Smith2024Thwaites --sample picks.csv --title 'Radar picks of "
    "Thwaites Glacier' --authors 'Smith, A.; Jones, B.' --licence CC-BY-4.0 --datum ellipsoid"
)
def new(
    citekey: Annotated[str, typer.Argument(help="A new name, such as Smith2024Thwaites.")],
    sample: Annotated[Path, typer.Option(help="The raw file: text with a record a line.")],
    title: Annotated[str | None, typer.Option(help="The dataset's published title.")] = None,
    authors: Annotated[str | None, typer.Option(help="'Family, Given; Family, Given'.")] = None,
    year: Annotated[int | None, typer.Option(help="Of publication.")] = None,
    version: Annotated[str | None, typer.Option(help="As its publisher calls it.")] = None,
    publisher: Annotated[str | None, typer.Option(help="Data centre.")] = None,
    folder: Annotated[str, typer.Option(help="highres, where surveys are.")] = "highres",
    location: Annotated[str | None, typer.Option(help="Place in words.")] = None,
    survey_type: Annotated[str | None, typer.Option(help="airborne, ground or seismic.")] = None,
    licence: Annotated[
        str | None, typer.Option(help="SPDX identifier such as CC-BY-4.0, or unknown.")
    ] = None,
    datum: Annotated[
        str | None, typer.Option(help="ellipsoid, EIGEN-GL04C, EIGEN-6C4 or unknown.")
    ] = None,
    firn: Annotated[
        bool | None, typer.Option("--firn/--no-firn", help="The bed allows for the firn layer.")
    ] = None,
    doi: Annotated[str | None, typer.Option(help="Of the data.")] = None,
    paper_doi: Annotated[str | None, typer.Option(help="Of the paper.")] = None,
    url: Annotated[str | None, typer.Option(help="Where the file can be fetched.")] = None,
    notes: Annotated[str | None, typer.Option(help="What a user should know.")] = None,
    crs: Annotated[str | None, typer.Option(help="Of x and y, such as EPSG:4326.")] = None,
    x: Annotated[str | None, typer.Option(help="Column of x or longitude.")] = None,
    y: Annotated[str | None, typer.Option(help="Column of y or latitude.")] = None,
    z: Annotated[str | None, typer.Option(help="Column of the bed.")] = None,
    surface: Annotated[str | None, typer.Option(help="Column; bed = surface - thickness.")] = None,
    thickness: Annotated[str | None, typer.Option(help="Column; see --surface.")] = None,
    down: Annotated[
        bool | None, typer.Option("--down/--up", help="--z is a depth, or an elevation.")
    ] = None,
    xy_units: Annotated[str | None, typer.Option(help="Of x and y: degrees, m or km.")] = None,
    units: Annotated[str | None, typer.Option(help="Of heights: m or km.")] = None,
    missing: Annotated[
        list[float] | None, typer.Option(help="A number that marks a missing value; nan: none.")
    ] = None,
    supersedes: Annotated[str | None, typer.Option(help="Citekey of what it replaces.")] = None,
    copy: Annotated[bool, typer.Option("--copy", help="Copy the file into highres/.")] = False,
    root: Annotated[Path | None, typer.Option(help="Repository; else this checkout.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Take every guess for right.")] = False,
) -> None:
    """Add a survey: its entry, its pipeline, a small test fixture, and the catalog.

    Looks at the file, says what it finds and what it guesses, and asks for what no flag tells.
    Who does not know a licence or a datum says unknown.
    """
    if folder != "highres":
        raise ValueError("--folder: surveys are in highres; write the entry of a grid by hand")
    from deepbedmap import contribution, registry

    answers: dict[str, Any] = {"title": title, "licence": licence, "vertical_datum": datum}
    answers |= {"authors": authors and authors.split(";"), "year": year, "location": location}
    answers |= {"doi": doi, "paper_doi": paper_doi, "url": url}
    questions: dict[str, tuple[str, Any]] = {
        "title": ("Title", str),
        "licence": ("Licence (such as CC-BY-4.0, or unknown)", contribution.licence_of),
        "vertical_datum": (
            f"Heights refer to ({', '.join(contribution.VERTICAL_DATUMS)} or unknown)",
            contribution.datum_of,
        ),
        "authors": ("Authors (Family, Given; Family, Given)", lambda text: text.split(";")),
        "year": ("Year of publication", lambda text: int(text) if text else None),
        "location": ("Place", str),
        "doi": ("DOI of the data", contribution.doi_of),
        "paper_doi": ("DOI of the paper", contribution.doi_of),
        "url": ("Address of the file", str),
    }
    needed = [name for name in ("title", "licence", "vertical_datum") if answers[name] is None]
    told: dict[str, Any] = {"x": x, "y": y, "z": z, "surface": surface, "thickness": thickness}
    told |= {"down": down, "crs": crs, "xy_units": xy_units, "units": units}
    told["missing"] = missing or None
    look = _settle(sample, told, yes, needed)
    if sys.stdin.isatty():
        for name, (question, reading) in questions.items():
            if name in needed or (answers[name] is None and not yes):
                answers[name] = _prompt(question, reading, None if name in needed else "")
    written = contribution.contribute(
        look,
        citekey,
        **answers,
        version=version,
        publisher=publisher,
        survey_type=survey_type,
        firn_correction=firn,
        notes=notes,
        supersedes=supersedes,
        copy=copy,
        root=root,
    )
    for path in written:
        typer.echo(path)
    dataset = registry.load(written[0])[citekey]
    typer.echo(f"{dataset.notes} Bounds: {dataset.bounds}")
    highres = written[0].parent / "highres"
    if not (highres / sample.name).exists():
        typer.echo(f"put {sample.name} into {highres}: its pipeline looks for it there")
    if dataset.licence is None:
        typer.echo("no licence is known, so the test fixture has its numbers cut to two digits")


def _settle(sample: Path, told: dict[str, Any], yes: bool, needed: list[str]) -> Sample:
    """Look at a sample until all that it leaves open is told and all that it guesses confirmed."""
    from deepbedmap.contribution.sample import inspect

    def flags(arguments: Iterable[str], word: str = " or ") -> str:
        names = {"vertical_datum": "--datum", "down": "--down or --up"}
        return word.join(names.get(each, f"--{each.replace('_', '-')}") for each in arguments)

    look = inspect(sample, **told)
    for finding in look.findings:
        typer.echo(f"found: {finding}")
    if yes or not sys.stdin.isatty():
        for guess in look.guesses:
            typer.echo(f"guessed: {guess.text}")
    if not sys.stdin.isatty():
        untold = [flags([name]) for name in needed]
        untold += [f"{flags(each.settled_by)} ({each.text})" for each in look.questions]
        if look.guesses and not yes:
            doubtful = dict.fromkeys(name for each in look.guesses for name in each.settled_by)
            untold.append(f"--yes to take the guesses for right (else {flags(doubtful, ', ')})")
        if untold:
            raise ValueError(f"tell what cannot be asked without a terminal: {'; '.join(untold)}")
        return look
    confirmed = {guess.text for guess in look.guesses if yes}
    while doubts := (*(g for g in look.guesses if g.text not in confirmed), *look.questions):
        doubt = doubts[0]
        guessed = doubt in look.guesses
        if guessed and typer.confirm(f"guessed: {doubt.text}. Is that so?", default=True):
            confirmed.add(doubt.text)
            continue
        name = doubt.settled_by[0]

        def reading(text: str, name: str = name) -> tuple[Any, Sample]:
            value: Any = text
            if name == "down":
                value = {"up": False, "down": True}.get(text, text)
            elif name == "missing":
                value = [float(number) for number in text.replace(",", " ").split()]
            return value, inspect(sample, **{**told, name: value})

        told[name], look = _prompt(flags([name]) if guessed else doubt.text, reading)
    return look


def _prompt(question: str, reading: Any, default: str | None = None) -> Any:
    """Ask until the answer can be read."""

    def read(text: str) -> Any:
        try:
            return reading(text.strip())
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None

    return typer.prompt(question, default=default, show_default=False, value_proc=read)


@app.command(epilog="Example: deepbedmap validate highres/2010tr.json picks.parquet")
def validate(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Files and folders; none: the whole repository.")
    ] = None,
    json: Json = False,
) -> None:
    """Check all of the repository, or files of one's own.

    It knows registries, pipelines, catalogs, schemas, picks, raw picks of CReSIS and Bedmap, grids
    and windows. Every fault is told in one run, a line each; the exit code is then 1. Neither the
    raw data nor a network is needed.
    """
    import dataclasses
    import json as json_module

    from deepbedmap import validation

    faults = validation.check(paths)
    if json:
        typer.echo(json_module.dumps([dataclasses.asdict(fault) for fault in faults], indent=2))
    else:
        for fault in faults:
            typer.echo(fault)
        files = len(validation.find_files(paths))
        said = f"{files} file{'s' * (files != 1)} checked: {len(faults) or 'no'} fault"
        typer.echo(said + "s" * (len(faults) > 1), err=bool(faults))
    if faults:
        raise typer.Exit(1)


@catalog_app.command("build", epilog="Example: deepbedmap catalog build")
def catalog_build() -> None:
    """Write catalog/*.yml and the folders' READMEs from the registry."""
    from deepbedmap import catalog

    for path in catalog.build():
        typer.echo(path)


@catalog_app.command("check", epilog="Example: deepbedmap catalog check")
def catalog_check() -> None:
    """Fail when a file that is written from the registry is out of date."""
    from deepbedmap import catalog

    catalog.check()
    typer.echo("catalog and READMEs are as the registry says")
