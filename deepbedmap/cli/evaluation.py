"""Score a bed, and print its scores."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepbedmap.cli.options import Box, Json, RegistryFile, Season, command, pairs_of

if TYPE_CHECKING:
    from deepbedmap.evaluation.from_files import Evaluation

_AGAIN = "; may be given again."

Dem = Annotated[
    list[Path],
    typer.Argument(
        metavar="DEM",
        help="A bed elevation grid, .nc, .tif or .zarr; several are members of an ensemble.",
    ),
]
TestPicks = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ENTRY",
        help=f"Test picks: a survey's pipeline, catalog entry, citekey or .parquet{_AGAIN}",
    ),
]
Training = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILE|ENTRY",
        help="Where the DEM was trained: a training set (.zarr), footprints (.geojson), a "
        f"checkpoint, or picks{_AGAIN}",
    ),
]
Gridding = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ENTRY", help="Picks whose gridding is scored; by default those of --training."
    ),
]
Baseline = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=FILE|CITEKEY", help=f"Another bed to score{_AGAIN}"),
]
Surface = Annotated[
    Path | None,
    typer.Option(
        help="Ice surface, less the air in firn: with --velocity and --balance, whether the ice "
        "above the DEM conserves mass."
    ),
]
Balance = Annotated[
    Path | None,
    typer.Option(help="SMB - BMB - dH/dt; its units say kg m-2 a-1, m w.e. a-1 or m ice a-1."),
]
Datums = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=DATUM",
        help="Vertical datum where none is stated: of picks, dem or a baseline.",
    ),
]
Geoids = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=FILE", help="A geoid's height, to bring heights to the picks' datum."
    ),
]


@command(
    "deepbedmap evaluate bed.tif --points highres/20xx_Antarctica_TO.json",
    "deepbedmap evaluate bed.nc --points bedmap3 --season BAS_2019_Thwaites_AIR_BM3 --prior "
    "lowres/bedmap2_bed.tif --training training/tiles.zarr --baseline "
    "bedmachine=Morlighem2025BEDMACHINE --geoid EIGEN-6C4=geoid.tif --velocity velocity.nc",
    "deepbedmap evaluate seed1.tif seed2.tif seed3.tif --points picks.parquet  # an ensemble",
    "deepbedmap evaluate demo-output/bed.tif --benchmark made-up-glacier --results results.csv",
)
def evaluate(
    dem: Dem,
    points: TestPicks = None,
    season: Season = None,
    bounds: Box = None,
    prior: Annotated[
        str | None,
        typer.Option(metavar="FILE|CITEKEY", help="The prior, scored bicubically interpolated."),
    ] = None,
    training: Training = None,
    gridding: Gridding = None,
    baseline: Baseline = None,
    velocity: Annotated[
        Path | None, typer.Option(help="Ice velocity, for classes by speed: two bands, or vx, vy.")
    ] = None,
    surface: Surface = None,
    balance: Balance = None,
    gamma: Annotated[
        float, typer.Option(help="Ratio of depth-mean to surface velocity, 0 to 1.")
    ] = 1.0,
    mass_map: Annotated[
        Path | None, typer.Option(help="A .tif for the map of the mass residual.")
    ] = None,
    datum: Datums = None,
    geoid: Geoids = None,
    buffer: Annotated[
        float | None,
        typer.Option(min=0, help="Metres around training tiles and picks; 11,000 by default."),
    ] = None,
    allow_leak: Annotated[
        bool, typer.Option("--allow-leak", help="Score test picks within that, marked.")
    ] = False,
    registry: RegistryFile = None,
    benchmark: Annotated[
        str | None, typer.Option(help="Score by its picks, box and baselines; see docs/.")
    ] = None,
    results: Annotated[
        Path | None, typer.Option(help="With --benchmark: a .csv that gets one more row.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="A page with all tables and figures.")
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False,
    json: Json = False,
) -> None:
    """Score a bed elevation grid at survey picks, next to baselines at the same picks.

    Each score has a 95 % interval: whole flight lines are resampled. Each row says whether the
    picks are independent of its prior and of its training: yes, no or unknown, and why. Picks
    inside training tiles, or within the buffer, are refused.
    """
    options = dict(locals())
    for name in ("baseline", "datum", "geoid", "report", "csv", "json"):
        del options[name]
    from deepbedmap.evaluation.from_files import evaluate_files

    named = {"baselines": (baseline, "baseline"), "datums": (datum, "datum")}
    named["geoids"] = geoid, "geoid"
    options |= {name: pairs_of(*given) for name, given in named.items()}
    options |= {"training": training or (), "gridding": gridding or ()}
    if report is not None:
        from deepbedmap.report import require_place

        require_place(report)
    scored = evaluate_files(**options)
    if report is not None:
        _write_report(scored, report, dem[0])
    if csv:
        from deepbedmap.evaluation import benchmarks

        typer.echo(benchmarks.as_csv(scored.flat_rows()), nl=False)
    elif json:
        _print_json(scored)
    else:
        from deepbedmap.cli.score_tables import print_scores

        print_scores(scored.rows)
        if results is not None:
            typer.echo(f"{results}: added one row")
        if report is not None:
            typer.echo(f"{report}: the same with figures")


def _write_report(scored: Evaluation, report: Path, dem: Path) -> None:
    import shlex

    from deepbedmap.report import report_evaluation

    command = shlex.join(["deepbedmap", *sys.argv[1:]])
    names = scored.survey_names
    report_evaluation(
        report, scored.rows, dem, scored.picks, picks=names, command=command, **scored.beds
    )


def _print_json(scored: Evaluation) -> None:
    import dataclasses
    import json

    from deepbedmap.cli.score_tables import score_record

    records = [score_record(dataclasses.asdict(row)) for row in scored.rows]
    records[0]["baselines"] = records[1:]
    if scored.benchmark is not None:
        records[0] |= {"benchmark": scored.benchmark.name, "version": scored.benchmark.version}
    typer.echo(json.dumps(records[0], indent=2, allow_nan=False))
