"""The scores of beds as tables for a person to read, and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from deepbedmap.cli.options import print_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deepbedmap.evaluation.comparing import Row


def score_record(row: dict[str, Any]) -> dict[str, Any]:
    """A row of scores as JSON has it: the scores first, and null for what is not a number."""
    import math

    def finite(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: finite(part) for key, part in value.items()}
        if isinstance(value, list):
            return [finite(part) for part in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    record: dict[str, Any] = finite({**row.pop("scores"), **row})
    return record


def print_scores(rows: list[Row]) -> None:
    """Print the scores of several beds, for a person to read."""
    first = rows[0].scores
    lines = f" on {first.lines:,} lines" if first.lines else ""
    typer.echo(f"{first.picks:,} picks{lines}; {first.outside:,} more where a bed has a gap")
    _print_metrics(rows)
    typer.echo()
    shares = [f"{100 * float(q):g} %" for q in first.quantiles]
    print_table(
        ["error (m), quantiles", *shares],
        [[row.name, *(f"{value:.1f}" for value in row.scores.quantiles.values())] for row in rows],
    )
    if any(row.resolution.windows or row.resolution.sill is not None for row in rows):
        typer.echo()
        _print_resolution(rows)
    for name, unit in (("distance", "m"), ("speed", "m a-1"), ("relief", "m")):
        if name in first.strata:
            typer.echo()
            _print_classes(rows, name, unit)
    typer.echo("\n" + "\n".join(_remarks(rows)))


def _print_metrics(rows: list[Row]) -> None:
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
    print_table([*header, "new to prior", "new to training"], table)


def _print_classes(rows: list[Row], name: str, unit: str) -> None:
    """Print the error by classes, such as those of ice speed."""
    classes = zip(*(row.scores.strata[name] for row in rows), strict=True)
    body = [
        [
            stratum[0].name,
            f"{stratum[0].picks:,}",
            *(f"{one.scores.rmse:.1f}" if one.scores else "" for one in stratum),
        ]
        for stratum in classes
        if stratum[0].picks
    ]
    print_table([f"{name} ({unit})", "picks", *(f"{row.name}, RMSE (m)" for row in rows)], body)


def _remarks(rows: list[Row]) -> Iterator[str]:
    """What is said below the tables, one sentence per line."""
    if (ensemble := rows[0].ensemble) is not None:
        fair = "" if ensemble.crps_fair is None else f" (fair {ensemble.crps_fair:.1f} m)"
        yield (
            f"ensemble of {ensemble.members}: CRPS {ensemble.crps:.1f} m{fair}, spread "
            f"{ensemble.spread:.1f} m, RMSE of the mean {ensemble.skill:.1f} m, "
            f"{ensemble.coverage_90:.0%} of picks in the 90 % interval"
        )
    if (mass := rows[0].mass) is not None:
        yield (
            f"mass not conserved: RMS {mass.rms:.2f}, median {mass.median:.2f}, MAD {mass.mad:.2f} "
            f"m of ice a year, beyond {mass.large:g} in {mass.share_large:.1%} of {mass.cells:,} "
            f"cells; gamma {mass.gamma:g}"
        )
    for row in rows:
        for what, verdict in (
            ("prior", row.independent_of_prior),
            ("training", row.independent_of_training),
        ):
            yield f"{row.name}, new to its {what}: {verdict.answer}, {verdict.reason}"
    yield rows[0].scores.remark or "in brackets: 95 % of 1,000 resamples of the flight lines"


def _print_resolution(rows: list[Row]) -> None:
    """Print what the beds resolve along the lines of the picks."""
    header = ["along lines", "resolved down to (m)", "coherence needed", "errors' range (m)"]
    body = []
    for row in rows:
        resolution = row.resolution
        values = (
            (resolution.resolved_wavelength, ",.0f"),
            (resolution.threshold, ".2f"),
            (resolution.range, ",.0f"),
            (resolution.sill, ",.0f"),
        )
        cells = ["" if value is None else f"{value:{form}}" for value, form in values]
        body.append([row.name, *cells, resolution.remark or ""])
    print_table([*header, "sill (m2)", ""], body)


def _with_interval(value: float, interval: Any, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return f"{text} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]" if interval else text
