"""The tables of a report: scores, quantiles, verdicts, classes, ensemble and mass."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deepbedmap.evaluation.comparing import Row
    from deepbedmap.evaluation.ensembles import EnsembleScores
    from deepbedmap.evaluation.mass import MassStatistics
    from deepbedmap.evaluation.scoring import Interval, Scores
    from deepbedmap.evaluation.verdicts import Verdict

_METRICS = {
    "rmse": ("RMSE (m)", 1),
    "mae": ("MAE (m)", 1),
    "bias": ("Bias (m)", 1),
    "bias_removed_rmse": ("RMSE without bias (m)", 1),
    "r2": ("R²", 2),
    "roughness_ratio": ("Roughness ratio", 2),
}
_STRATA = {
    "distance": ("RMSE (m) by distance to the nearest training pick", "Distance (m)"),
    "speed": ("RMSE (m) by ice speed", "Speed (m a⁻¹)"),
    "relief": ("RMSE (m) by relief: standard deviation of the bed around the pick", "Relief (m)"),
}
_VERDICTS = ("Independent of prior", "Independent of training")


@dataclass(frozen=True)
class _Cell:
    text: str
    below: str = ""
    answer: str = ""


@dataclass(frozen=True)
class _Table:
    """A table whose rows are a heading and one cell per further column, of words or numbers."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[_Cell]]]
    note: str = ""
    words: bool = False


def summary_of(rows: Sequence[Row], picks: str) -> str:
    """Return a sentence that names the scored bed, the picks and the other beds."""
    first = rows[0]
    lines = f" on {_count(first.scores.lines, 'flight line')}" if first.scores.lines else ""
    survey = f" of {picks}" if picks else ""
    others = f", alongside {in_a_list([row.name for row in rows[1:]])}" if rows[1:] else ""
    summary = (
        f"{first.file or first.name} is scored at {_count(first.scores.picks, 'radar pick')}"
        f"{lines}{survey}{others}."
    )
    if first.scores.outside:
        gap = "a bed has a gap" if rows[1:] else "it has a gap"
        verb = "is" if first.scores.outside == 1 else "are"
        summary += f" {_count(first.scores.outside, 'more pick')} {verb} where {gap}."
    return f"{summary} RMSE: {in_a_list([f'{row.name} {row.scores.rmse:.1f} m' for row in rows])}."


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def in_a_list(names: Sequence[str]) -> str:
    """Join names into a phrase: "a, b and c"."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def sections_of(rows: Sequence[Row]) -> list[tuple[str, list[_Table]]]:
    """Return the headings of the report, each with its tables, for the beds that were scored."""
    strata = [_stratified(name, rows) for name in rows[0].scores.strata]
    sections = [
        ("Scores", [_scored(rows), _quantiles(rows)]),
        ("Are the picks independent of the beds?", [_independence(rows)]),
    ]
    if any(row.resolution.windows or row.resolution.remark for row in rows):
        sections.append(("Which wavelengths do the beds resolve?", [_resolution(rows)]))
    if strata:
        sections.append(("Where are the errors large?", strata))
    if rows[0].ensemble is not None:
        sections.append(("The members as an ensemble", _ensemble(rows[0].ensemble)))
    if rows[0].mass is not None:
        sections.append(("Does the ice conserve mass?", [_mass(rows[0].name, rows[0].mass)]))
    return sections


def _scored(rows: Sequence[Row]) -> _Table:
    remark = rows[0].scores.remark
    note = remark or (
        "below each score, the 95 % interval of 1,000 resamples of the flight lines, whose picks "
        "are drawn together"
    )
    return _Table(
        "Bed minus pick, every bed at the same picks",
        ["Bed", *(label for label, _ in _METRICS.values()), *_VERDICTS],
        [
            (
                row.name,
                [
                    *(_score(row.scores, name, digits) for name, (_, digits) in _METRICS.items()),
                    *(_Cell(each.answer, answer=each.answer) for each in _verdicts(row)),
                ],
            )
            for row in rows
        ],
        f"{note[0].upper()}{note[1:]}. Roughness ratio: standard deviation of elevation in "
        "segments of 1.25 km of a line, of the bed divided by that of the picks; 1 is as rough as "
        "the survey.",
    )


def _verdicts(row: Row) -> tuple[Verdict, Verdict]:
    return row.independent_of_prior, row.independent_of_training


def _score(scores: Scores, name: str, digits: int) -> _Cell:
    return _number(getattr(scores, name), digits, scores.intervals.get(name))


def _number(value: float | None, digits: int, interval: Interval | None = None) -> _Cell:
    if value is None or not math.isfinite(value):
        return _Cell("not defined")
    below = f"{interval.low:z,.{digits}f} to {interval.high:z,.{digits}f}" if interval else ""
    return _Cell(f"{value:z,.{digits}f}", below)


def _quantiles(rows: Sequence[Row]) -> _Table:
    shares = rows[0].scores.quantiles
    return _Table(
        "Quantiles of the error (m)",
        ["Bed", *(f"{100 * float(share):g} %" for share in shares)],
        [
            (
                row.name,
                [
                    _number(value, 1, row.scores.intervals.get(f"quantile_{share}"))
                    for share, value in row.scores.quantiles.items()
                ],
            )
            for row in rows
        ],
    )


def _independence(rows: Sequence[Row]) -> _Table:
    return _Table(
        "Picks do not test a bed that was made from them or trained on them",
        ["Bed", *_VERDICTS],
        [
            (
                row.name,
                [_Cell(each.answer, each.reason, each.answer) for each in _verdicts(row)],
            )
            for row in rows
        ],
        words=True,
    )


def _resolution(rows: Sequence[Row]) -> _Table:
    by_bed = {row.name: row.resolution for row in rows}
    remarks = [f"{name}: {each.remark}." for name, each in by_bed.items() if each.remark]
    return _Table(
        "The resolved wavelength is the shortest wavelength that a bed resolves",
        [
            "Bed",
            "Resolved wavelength (m)",
            "Required coherence",
            "Range of the error (m)",
            "Sill of the error (m²)",
        ],
        [
            (
                name,
                [
                    _number(each.resolved_wavelength, 0),
                    _number(each.threshold, 2),
                    _number(each.range, 0),
                    _number(each.sill, 0),
                ],
            )
            for name, each in by_bed.items()
        ],
        "Coherence of bed and picks along the lines. Range and sill of an exponential variogram of "
        "bed minus pick: errors farther apart than the range are nearly uncorrelated. "
        + " ".join(remarks),
    )


def _mass(name: str, statistics: MassStatistics) -> _Table:
    cells = {
        "Cells": _Cell(f"{statistics.cells:,}"),
        "Mean (m a⁻¹)": _number(statistics.mean, 2),
        "RMS (m a⁻¹)": _number(statistics.rms, 2),
        "Median (m a⁻¹)": _number(statistics.median, 2),
        "MAD (m a⁻¹)": _number(statistics.mad, 2),
        f"Beyond {statistics.large:g} m a⁻¹": _Cell(f"{statistics.share_large:.1%}"),
        "Gamma": _number(statistics.gamma, 2),
    }
    return _Table(
        "Flux divergence of the ice minus its mass balance, in metres of ice",
        ["Bed", *cells],
        [(name, list(cells.values()))],
        "MAD: median absolute deviation. Gamma: ratio of depth-averaged to surface velocity.",
    )


def _stratified(name: str, rows: Sequence[Row]) -> _Table:
    classes = list(zip(*(row.scores.strata[name] for row in rows), strict=True))
    caption, label = _STRATA[name]
    return _Table(
        caption,
        [label, "Picks", *(row.name for row in rows)],
        [
            (
                parts[0].name,
                [
                    _Cell(f"{parts[0].picks:,}"),
                    *(
                        _score(part.scores, "rmse", 1) if part.scores else _Cell("none")
                        for part in parts
                    ),
                ],
            )
            for parts in classes
            if parts[0].picks
        ],
    )


def _ensemble(scores: EnsembleScores) -> list[_Table]:
    cells = {
        "CRPS (m)": _number(scores.crps, 1),
        "Fair CRPS (m)": _number(scores.crps_fair, 1),
        "Spread (m)": _number(scores.spread, 1),
        "RMSE of the mean (m)": _number(scores.skill, 1),
        "Spread to skill": _number(scores.spread_skill_ratio, 2),
        "Picks in the 90 % interval": _Cell(f"{scores.coverage_90:.1%}"),
    }
    whole = _Table(
        f"{scores.members} members at {_count(scores.picks, 'pick')}",
        ["Members", *cells],
        [(str(scores.members), list(cells.values()))],
        "Spread to skill is 1 if the picks could be one of the members, and less if the ensemble "
        "is overconfident.",
    )
    classes = _Table(
        "Picks in classes of increasing spread",
        ["Class", "Picks", "Spread (m)", "RMSE of the mean (m)"],
        [
            (
                f"{number} of {len(scores.by_spread)}",
                [
                    _Cell(f"{part['picks']:,.0f}"),
                    _number(part["spread"], 1),
                    _number(part["skill"], 1),
                ],
            )
            for number, part in enumerate(scores.by_spread, 1)
        ],
    )
    return [whole, classes]


def bed_files(rows: Sequence[Row]) -> _Table | None:
    """Return a table of the files of the beds and their SHA-256; None if no bed has a file."""
    rows_with_files = [row for row in rows if row.file]
    if not rows_with_files:
        return None
    return _Table(
        "Files of the beds",
        ["Bed", "File", "SHA-256"],
        [
            (row.name, [_Cell(row.file or ""), _Cell(row.sha256 or "unknown")])
            for row in rows_with_files
        ],
        words=True,
    )
