"""Score a bed, and print its scores."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deepbedmap.cli.options import Box, Json, app, in_columns

if TYPE_CHECKING:
    from deepbedmap.evaluation.comparing import Row


@app.command(
    epilog="Example: deepbedmap evaluate bed.tif --points highres/20xx_Antarctica_TO.json; "
    "deepbedmap evaluate bed.nc --points bedmap3 --season BAS_2019_Thwaites_AIR_BM3 "
    "--prior lowres/bedmap2_bed.tif --training training/tiles.zarr --baseline "
    "bedmachine=Morlighem2025BEDMACHINE --geoid EIGEN-6C4=geoid.tif --velocity velocity.nc; "
    "deepbedmap evaluate seed1.tif seed2.tif seed3.tif --points picks.parquet (an ensemble); "
    "deepbedmap evaluate demo-output/bed.tif --benchmark made-up-glacier --results results.csv"
)
def evaluate(
    dem: Annotated[
        list[Path],
        typer.Argument(
            metavar="DEM...",
            help="A bed elevation grid, .nc, .tif or .zarr; several are members of an ensemble.",
        ),
    ],
    points: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ENTRY",
            help="Test picks: a survey's pipeline, catalog entry, citekey or .parquet; may be "
            "given again.",
        ),
    ] = None,
    season: Annotated[
        list[str] | None,
        typer.Option(help="A raw file's name, its stem or a glob; may be given again."),
    ] = None,
    bounds: Box = None,
    prior: Annotated[
        str | None,
        typer.Option(metavar="FILE|CITEKEY", help="The prior, scored bicubically interpolated."),
    ] = None,
    training: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE|ENTRY",
            help="Where the DEM was trained: a training set (.zarr), footprints (.geojson), a "
            "checkpoint, or picks; may be given again.",
        ),
    ] = None,
    gridding: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ENTRY", help="Picks whose gridding is scored; else those of --training."
        ),
    ] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE|CITEKEY", help="Another bed, scored beside; may be given again."
        ),
    ] = None,
    velocity: Annotated[
        Path | None, typer.Option(help="Ice velocity, for classes by speed: two bands, or vx, vy.")
    ] = None,
    surface: Annotated[
        Path | None,
        typer.Option(
            help="Ice surface, less the air in firn: with --velocity and --balance, whether the "
            "ice above the DEM conserves mass."
        ),
    ] = None,
    balance: Annotated[
        Path | None,
        typer.Option(help="SMB - BMB - dH/dt; its units say kg m-2 a-1, m w.e. a-1 or m ice a-1."),
    ] = None,
    gamma: Annotated[
        float, typer.Option(help="Ratio of depth-mean to surface velocity, 0 to 1.")
    ] = 1.0,
    mass_map: Annotated[
        Path | None, typer.Option(help="A .tif that gets the map of what is not conserved.")
    ] = None,
    datum: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=DATUM",
            help="What heights refer to where nothing states it: of picks, dem or a baseline.",
        ),
    ] = None,
    geoid: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE", help="A geoid's height, to bring heights to the picks' datum."
        ),
    ] = None,
    buffer: Annotated[
        float | None,
        typer.Option(min=0, help="Metres around training tiles and picks; 11,000 by default."),
    ] = None,
    allow_leak: Annotated[
        bool, typer.Option("--allow-leak", help="Score test picks that are within that, marked.")
    ] = False,
    registry: Annotated[
        Path | None, typer.Option(help="A data_list.yml, or its folder; else the package's own.")
    ] = None,
    benchmark: Annotated[
        str | None, typer.Option(help="Score by its picks, box and baselines; see docs/.")
    ] = None,
    results: Annotated[
        Path | None, typer.Option(help="With --benchmark: a .csv that gets a row.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="A page with all tables and figures.")
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False,
    json: Json = False,
) -> None:
    """Score a bed elevation grid at survey picks, beside baselines, at the same picks.

    Each score has a 95 % interval: whole flight lines are drawn again and again. Each row says
    whether the picks are independent of its prior and of its training: yes, no or unknown, and
    why. Picks inside training tiles, or within the buffer, are refused.
    """
    if benchmark is None and not points:
        raise typer.BadParameter("needed without --benchmark", param_hint="--points")
    if benchmark is None and results is not None:
        raise typer.BadParameter("only with --benchmark", param_hint="--results")
    if benchmark is not None and (bounds is not None or season):
        raise typer.BadParameter("it has its own box and picks", param_hint="--benchmark")
    for option, given in (("surface", surface), ("balance", balance), ("mass-map", mass_map)):
        if given is not None and None in (surface, velocity, balance):
            needed = "needs --surface, --velocity and --balance"
            raise typer.BadParameter(needed, param_hint=f"--{option}")
    if not 0 < gamma <= 1:
        raise typer.BadParameter("expected more than 0, at most 1", param_hint="--gamma")
    if mass_map is not None and mass_map.suffix != ".tif":
        raise typer.BadParameter("expected a name that ends in .tif", param_hint="--mass-map")
    import dataclasses
    import json as json_module
    import shlex

    from deepbedmap import evaluation
    from deepbedmap import registry as registries
    from deepbedmap.catalog import opening
    from deepbedmap.evaluation import benchmarks
    from deepbedmap.evaluation.leaks import BUFFER

    named = {
        option: _pairs(given, option)
        for option, given in (("baseline", baseline), ("datum", datum), ("geoid", geoid))
    }
    if report is not None:
        from deepbedmap.report.writing import report_evaluation, require_place

        require_place(report)
    defined = None
    if benchmark is not None:
        defined = benchmarks.load(benchmark)
        points, bounds = list(points or defined.points), defined.bounds
        prior = prior or defined.prior
        gridding = gridding or ([defined.gridding] if defined.gridding else [])
        defined.require_files(*points, *([prior] if prior else []), *gridding)
        buffer = defined.buffer
    picks = opening.read_picks(points or (), season, bounds)
    if defined is not None:
        defined.require_picks(picks)
    beside = Path((points or [""])[0]).absolute().parent.parent / "data_list.yml"
    if registry is None and beside.is_file():
        registry = beside
    trained = evaluation.read_training(training or ())
    others: dict[str, Any] = {
        "prior": prior,
        "gridding": opening.read_picks(gridding) if gridding else trained.picks,
        "baselines": named["baseline"],
        "registry": registries.load(registry),
        "datums": named["datum"],
        "geoids": named["geoid"],
    }
    conserved = None
    if surface is not None and velocity is not None and balance is not None:
        conserved = evaluation.conserve(
            dem[0], surface, velocity, balance, gamma=gamma, bounds=bounds, path=mass_map
        )
    rows = evaluation.compare(
        [*dem],
        picks,
        training=trained,
        velocity=velocity,
        buffer=BUFFER if buffer is None else buffer,
        allow_leak=allow_leak,
        **others,
    )
    rows[0] = dataclasses.replace(rows[0], mass=conserved)
    if defined is not None and results is not None:
        benchmarks.add_results([defined.result(rows[0])], results)
    if report is not None:
        names = ", ".join(Path(entry).stem for entry in points or ())
        command = shlex.join(["deepbedmap", *sys.argv[1:]])
        report_evaluation(report, rows, dem[0], picks, picks=names, command=command, **others)
    if csv:
        tables = [row.flat() if defined is None else defined.result(row) for row in rows]
        typer.echo(benchmarks.as_csv(tables), nl=False)
    elif json:
        said = [_score_record(dataclasses.asdict(row)) for row in rows]
        said[0]["baselines"] = said[1:]
        if defined is not None:
            said[0] |= {"benchmark": defined.name, "version": defined.version}
        typer.echo(json_module.dumps(said[0], indent=2, allow_nan=False))
    else:
        typer.echo(_score_table(rows))
        if results is not None:
            typer.echo(f"{results}: a row more")
        if report is not None:
            typer.echo(f"{report}: the same with figures")


def _pairs(given: list[str] | None, option: str) -> dict[str, str]:
    """Read NAME=VALUE of an option that may be given several times."""
    pairs = [item.partition("=")[::2] for item in given or ()]
    if not all(name and value for name, value in pairs):
        raise typer.BadParameter("expected NAME=...", param_hint=f"--{option}")
    return dict(pairs)


def _score_record(row: dict[str, Any]) -> dict[str, Any]:
    """A row of scores as JSON has it: the scores first, and null for what is not a number."""
    import math

    def known(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: known(part) for key, part in value.items()}
        if isinstance(value, list):
            return [known(part) for part in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    record: dict[str, Any] = known({**row.pop("scores"), **row})
    return record


def _score_table(rows: list[Row]) -> str:
    """Scores of several beds, for a person to read."""
    first = rows[0].scores
    lines = f" on {first.lines:,} lines" if first.lines else ""
    told = [f"{first.picks:,} picks{lines}; {first.outside:,} more where a bed has a gap"]
    header = ["", "RMSE (m)", "MAE (m)", "bias (m)", "less bias (m)", "R2", "roughness"]
    metrics = ("rmse", "mae", "bias", "bias_removed_rmse", "r2", "roughness_ratio")
    table = []
    for row in rows:
        scores = row.scores
        cells = [
            _with_interval(getattr(scores, name), scores.intervals.get(name), 2 if n > 3 else 1)
            for n, name in enumerate(metrics)
        ]
        verdicts = (row.independent_of_prior.answer, row.independent_of_training.answer)
        table.append([row.name, *cells, *verdicts])
    told.append(in_columns([*header, "new to prior", "new to training"], table))
    quantiles = [
        [row.name, *(f"{value:.1f}" for value in row.scores.quantiles.values())] for row in rows
    ]
    shares = [f"{100 * float(q):g} %" for q in first.quantiles]
    told += ["", in_columns(["error (m), quantiles", *shares], quantiles)]
    if any(row.resolution.windows or row.resolution.sill is not None for row in rows):
        told += ["", _resolution_table(rows)]
    for name, unit in (("distance", "m"), ("speed", "m a-1"), ("relief", "m")):
        if name in first.strata:
            classes = list(zip(*(row.scores.strata[name] for row in rows), strict=True))
            body = [
                [
                    _class_name(stratum[0]),
                    f"{stratum[0].picks:,}",
                    *(f"{one.scores.rmse:.1f}" if one.scores else "" for one in stratum),
                ]
                for stratum in classes
                if stratum[0].picks
            ]
            names = [f"{name} ({unit})", "picks", *(f"{row.name}, RMSE (m)" for row in rows)]
            told += ["", in_columns(names, body, widest=40)]
    told.append("")
    if (ensemble := rows[0].ensemble) is not None:
        fair = "" if ensemble.crps_fair is None else f" (fair {ensemble.crps_fair:.1f} m)"
        told.append(
            f"ensemble of {ensemble.members}: CRPS {ensemble.crps:.1f} m{fair}, spread "
            f"{ensemble.spread:.1f} m, RMSE of the mean {ensemble.skill:.1f} m, "
            f"{ensemble.coverage_90:.0%} of picks in the 90 % interval"
        )
    if (mass := rows[0].mass) is not None:
        told.append(
            f"mass not conserved: RMS {mass.rms:.2f}, median {mass.median:.2f}, MAD {mass.mad:.2f} "
            f"m of ice a year, beyond {mass.large:g} in {mass.share_large:.1%} of {mass.cells:,} "
            f"cells; gamma {mass.gamma:g}"
        )
    for row in rows:
        for what, verdict in (
            ("prior", row.independent_of_prior),
            ("training", row.independent_of_training),
        ):
            told.append(f"{row.name}, new to its {what}: {verdict.answer}, {verdict.reason}")
    told.append(first.remark or "in brackets: 95 % of 1,000 resamples of the flight lines")
    return "\n".join(told)


def _resolution_table(rows: list[Row]) -> str:
    """What beds hold along the lines of the picks, for a person to read."""
    header = ["along lines", "resolved down to (m)", "coherence needed", "errors' range (m)"]
    body = []
    for row in rows:
        found = row.resolution
        told = (found.resolved_wavelength, found.threshold, found.range, found.sill)
        formats = (",.0f", ".2f", ",.0f", ",.0f")
        cells = [
            "" if one is None else f"{one:{to}}" for one, to in zip(told, formats, strict=True)
        ]
        body.append([row.name, *cells, found.remark or ""])
    return in_columns([*header, "sill (m2)", ""], body, widest=60)


def _with_interval(value: float, interval: Any, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return f"{text} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]" if interval else text


def _class_name(stratum: Any) -> str:
    if stratum.low is None:
        return "unknown"
    high = stratum.high
    return f"{stratum.low:g} and more" if high is None else f"{stratum.low:g} to {high:g}"
