"""Read picks, compare lines where they cross, add a survey, validate files, write the catalog."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deepbedmap.cli.options import (
    Box,
    Command,
    Json,
    Season,
    app,
    catalog_app,
    command,
    print_table,
)

Pipelines = Annotated[
    list[str],
    typer.Argument(
        metavar="PIPELINE",
        help="Pipelines, names of those in highres/, or Bedmap standard CSVs.",
    ),
]
Licence = Annotated[str | None, typer.Option(help="SPDX identifier such as CC-BY-4.0, or unknown.")]
Datum = Annotated[str | None, typer.Option(help="ellipsoid, EIGEN-GL04C, EIGEN-6C4 or unknown.")]
Text = str | None


@command(
    "deepbedmap points bedmap3 --season BAS_2019_Thwaites_AIR_BM3 --out thwaites.parquet",
)
def points(
    pipeline: Annotated[
        str,
        typer.Argument(help="A pipeline, the name of one in highres/, or a Bedmap standard CSV."),
    ],
    out: Annotated[Path, typer.Option(help="A .parquet or .csv file.")],
    engine: Annotated[str, typer.Option(help="native or pdal.")] = "native",
    season: Season = None,
    bounds: Box = None,
    unique: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Drop picks at a position that an earlier pick has, to this tolerance in metres; "
            "all picks are then in memory.",
        ),
    ] = None,
) -> None:
    """Convert a survey's raw files into one table of picks: x, y, z, line.

    A .parquet file is GeoParquet where the CRS of the picks is known. It is written block by
    block, in bounded memory. A .csv file, --unique and the engine pdal hold the table in memory.
    """
    import threading

    from deepbedmap.download.progress import Bars
    from deepbedmap.points.storing import store_picks

    with Bars(True, threading.Event()) as bars, bars.bar(Path(pipeline).name, None) as bar:
        written = store_picks(
            *(pipeline, out, engine, season or None, bounds),  # type: ignore[arg-type]
            unique=unique,
            progress=bar.start,
        )
    typer.echo(f"{out}: {written.picks} picks on {written.lines} lines")


@command("deepbedmap crossovers bedmap3 20xx_Antarctica_TO --out crossovers.csv")
def crossovers(
    pipelines: Pipelines,
    out: Annotated[Path, typer.Option(help="A .csv file: one row per crossover.")],
    max_gap: Annotated[
        float, typer.Option(help="Metres between picks beyond which a line is interrupted.")
    ] = 1000,
    within: Annotated[
        bool, typer.Option("--within", help="Also where a line crosses itself.")
    ] = False,
    bounds: Box = None,
    json: Json = False,
) -> None:
    """Compare the beds where flight lines cross; print a summary by pair of surveys.

    A survey is a raw file. The surveys must have one CRS and one vertical datum.
    """
    from deepbedmap.points.crossovers import summarize
    from deepbedmap.points.storing import cross_surveys

    crossings = cross_surveys(pipelines, out, max_gap, within=within, bounds=bounds)
    summary = summarize(crossings)
    if json:
        typer.echo(summary.to_json(orient="records", indent=2))
        return
    typer.echo(f"{out}: {len(crossings)} crossovers")
    if len(crossings):
        rows = [
            [f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row]
            for row in summary.itertuples(index=False)
        ]
        print_table(summary.columns.to_list(), rows)


@command(
    "deepbedmap new Smith2024Thwaites --sample picks.csv --title 'Radar picks of Thwaites "
    "Glacier' --authors 'Smith, A.; Jones, B.' --licence CC-BY-4.0 --datum ellipsoid",
)
def new(
    citekey: Annotated[str, typer.Argument(help="A new name, such as Smith2024Thwaites.")],
    sample: Annotated[Path, typer.Option(help="The raw file: text with one record per line.")],
    title: Annotated[Text, typer.Option(help="The dataset's published title.")] = None,
    authors: Annotated[Text, typer.Option(help="'Family, Given; Family, Given'.")] = None,
    year: Annotated[int | None, typer.Option(help="Of publication.")] = None,
    version: Annotated[Text, typer.Option(help="As its publisher calls it.")] = None,
    publisher: Annotated[Text, typer.Option(help="Data centre.")] = None,
    folder: Annotated[str, typer.Option(help="highres, where surveys are.")] = "highres",
    location: Annotated[Text, typer.Option(help="Place in words.")] = None,
    survey_type: Annotated[Text, typer.Option(help="airborne, ground or seismic.")] = None,
    licence: Licence = None,
    datum: Datum = None,
    firn: Annotated[
        bool | None, typer.Option("--firn/--no-firn", help="The bed allows for the firn layer.")
    ] = None,
    doi: Annotated[Text, typer.Option(help="Of the data.")] = None,
    paper_doi: Annotated[Text, typer.Option(help="Of the paper.")] = None,
    url: Annotated[Text, typer.Option(help="Where the file can be fetched.")] = None,
    notes: Annotated[Text, typer.Option(help="What a user should know.")] = None,
    crs: Annotated[Text, typer.Option(help="Of x and y, such as EPSG:4326.")] = None,
    x: Annotated[Text, typer.Option(help="Column of x or longitude.")] = None,
    y: Annotated[Text, typer.Option(help="Column of y or latitude.")] = None,
    z: Annotated[Text, typer.Option(help="Column of the bed.")] = None,
    surface: Annotated[Text, typer.Option(help="Column; bed = surface - thickness.")] = None,
    thickness: Annotated[Text, typer.Option(help="Column; see --surface.")] = None,
    down: Annotated[
        bool | None, typer.Option("--down/--up", help="--z is a depth, or an elevation.")
    ] = None,
    xy_units: Annotated[Text, typer.Option(help="Of x and y: degrees, m or km.")] = None,
    units: Annotated[Text, typer.Option(help="Of heights: m or km.")] = None,
    missing: Annotated[
        list[float] | None, typer.Option(help="A number that marks a missing value; nan: none.")
    ] = None,
    supersedes: Annotated[Text, typer.Option(help="Citekey of the dataset it replaces.")] = None,
    copy: Annotated[bool, typer.Option("--copy", help="Copy the file into highres/.")] = False,
    root: Annotated[Path | None, typer.Option(help="Repository; by default this checkout.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Accept every guess.")] = False,
) -> None:
    """Add a survey: its entry, its pipeline, a small test fixture, and the catalog.

    Inspects the file, reports what it finds and guesses, and asks for what no option states. Where
    a licence or a datum is not known, answer unknown.
    """
    options = dict(locals())
    if folder != "highres":
        wanted = "surveys are in highres; write the entry of a grid by hand"
        raise typer.BadParameter(wanted, param_hint="--folder")
    from deepbedmap import registry
    from deepbedmap.cli import questions
    from deepbedmap.contribution.contributing import contribute

    look, answers = questions.ask(options)
    kept = ("version", "publisher", "survey_type", "notes", "supersedes", "copy", "root")
    written = contribute(
        look, citekey, firn_correction=firn, **answers, **{name: options[name] for name in kept}
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


@command("deepbedmap validate highres/2010tr.json picks.parquet")
def validate(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PATH", help="Files and folders; by default the whole repository."),
    ] = None,
    json: Json = False,
) -> None:
    """Validate the whole repository, or your own files.

    Checks registries, pipelines, catalogs, schemas, picks, raw picks of CReSIS and Bedmap, grids
    and windows. All faults are reported in one run, one per line; the exit code is then 1. Neither
    the raw data nor a network connection is needed.
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
        text = f"{files} file{'s' * (files != 1)} checked: {len(faults) or 'no'} fault"
        typer.echo(text + "s" * (len(faults) > 1), err=bool(faults))
    if faults:
        raise typer.Exit(1)


@catalog_app.command("build", cls=Command, epilog="deepbedmap catalog build")
def catalog_build() -> None:
    """Write catalog/*.yml and the folders' READMEs from the registry."""
    from deepbedmap import catalog

    for path in catalog.build():
        typer.echo(path)


@catalog_app.command("check", cls=Command, epilog="deepbedmap catalog check")
def catalog_check() -> None:
    """Check that the files written from the registry are up to date."""
    from deepbedmap import catalog

    catalog.check()
    typer.echo("catalog and READMEs match the registry")


app.add_typer(catalog_app, name="catalog")
