"""Scores of a bed at picks: error statistics, confidence intervals and classes.

Intervals come from a bootstrap over whole flight lines (Efron & Tibshirani 1993,
doi 10.1201/9780429246593).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from deepbedmap.errors import WrongCallError
from deepbedmap.evaluation.flight_lines import numbered

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from deepbedmap.evaluation.flight_lines import Numbers
    from deepbedmap.points.tracks import Floats

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Quantiles of the error that are reported."""

REPLICATES = 1_000
"""Number of resamples of the flight lines for an interval."""

LEVEL = 0.95
"""Share of the resamples within an interval."""

CLASSES: dict[str, tuple[float, ...]] = {
    "distance": (0, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, math.inf),
    "speed": (0, 10, 50, 200, 1_000, math.inf),
    "relief": (0, 25, 50, 100, 200, math.inf),
}
"""Edges of the classes of the scores: metres to the nearest training pick, ice speed in metres per
year, and standard deviation of the bed in metres."""

_BINS = 512
_TABLE = 8_000_000  # cells of the tables that a bootstrap works with: 64 MB
_AT_ONCE = 1_000_000  # picks


@dataclass(frozen=True)
class Interval:
    """Limits of the central 95 % of the resamples of the flight lines (percentiles)."""

    low: float
    high: float


@dataclass(frozen=True)
class Scores:
    """Differences between a bed elevation grid and picks, grid minus pick, in metres.

    Attributes
    ----------
    rmse, mae, bias
        Root mean square, mean absolute and mean difference.
    roughness_ratio
        Standard deviation of elevation within stretches of 1.25 km of a line, mean over the
        stretches: of the grid, sampled at the picks, divided by that of the picks. A ratio of 1
        means as rough as the survey, whose noise counts as roughness. NaN if no line has a stretch
        of three picks, or the picks are all level or have no lines.
    picks
        Number of picks that were compared.
    outside
        Number of picks that were not, because the grid has no value there.
    bias_removed_rmse
        Root mean square difference after subtracting the bias: the standard deviation.
    r2
        Coefficient of determination: 1 minus the squared differences over the squared deviations
        of the picks from their mean. Negative if the picks' mean would be the better bed; NaN if
        the picks are all level.
    quantiles
        Quantiles of the difference, by :data:`QUANTILES` as text (``"0.05"``).
    lines
        Number of flight lines of the picks that were compared; 0 if the picks name none.
    intervals
        By the names above, ``quantile_0.05`` and so on: limits of the central 95 % of 1,000
        resamples of the lines. Whole lines are resampled because errors along a line are
        correlated; fewer than two lines give no interval.
    remark
        Why there is no interval; None if there is one.
    strata
        Scores of the picks in classes of :data:`CLASSES`, if requested.
    """

    rmse: float
    mae: float
    bias: float
    roughness_ratio: float
    picks: int
    outside: int
    bias_removed_rmse: float
    r2: float
    quantiles: dict[str, float]
    lines: int
    intervals: dict[str, Interval] = field(default_factory=dict)
    remark: str | None = None
    strata: dict[str, list[Stratum]] = field(default_factory=dict)


@dataclass(frozen=True)
class Stratum:
    """Scores in one class, from ``low`` (included) to ``high`` (excluded).

    ``high`` is None if the class is open, and both are None for picks whose class is unknown.
    ``scores`` is None if the class has no picks.
    """

    low: float | None
    high: float | None
    picks: int
    scores: Scores | None

    @property
    def name(self) -> str:
        """The class in words, as tables show it."""
        if self.low is None:
            return "unknown"
        return f"{self.low:,g} " + ("and more" if self.high is None else f"to {self.high:,g}")


def score(
    grid: npt.ArrayLike,
    z: npt.ArrayLike,
    lines: npt.ArrayLike | None = None,
    stretches: tuple[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike] | None = None,
    *,
    outside: int = 0,
    strata: Mapping[str, npt.ArrayLike] | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Scores:
    """Score the elevations of a grid at picks.

    Parameters
    ----------
    grid, z
        (n,) metres: elevation of the grid at the picks, and of the picks.
    lines
        (n,) number of the line of each pick; None if the picks have no lines.
    stretches
        For each stretch of a line (k,): the number of its line, and the roughness of grid and of
        picks in metres, by :func:`deepbedmap.points.roughness.roughness_along`.
    outside
        Number of picks without a value of the grid.
    strata
        By names of :data:`CLASSES`: the value (n,) of each pick, NaN where unknown.
    replicates, seed
        Number of resamples and seed of the bootstrap (Efron & Tibshirani 1993,
        doi 10.1201/9780429246593):
        as many whole lines as there are, drawn with replacement. Quantiles of the resamples are
        exact to 1 in 512 of the picks.

    Raises
    ------
    ValueError
        There are no picks, or no classes of a name in ``strata``.

    Examples
    --------
    >>> scores = score([1.0, 1.0, 3.0, 3.0], [0.0, 2.0, 2.0, 4.0], lines=[0, 0, 1, 1])
    >>> scores.rmse, scores.bias, scores.bias_removed_rmse, round(scores.r2, 6), scores.lines
    (1.0, 0.0, 1.0, 0.5, 2)
    """
    z = np.asarray(z, np.float64)
    if not z.size:
        raise WrongCallError("expected some picks to score at, found none")
    line, names = None, None
    if lines is not None:
        line, names = numbered(np.asarray(lines))
    rough = np.zeros((2, 1 if names is None else names.size))
    if stretches is not None and names is not None:
        index = np.searchsorted(names, np.asarray(stretches[0]))
        rough = np.stack(
            [np.bincount(index, np.asarray(each), names.size) for each in stretches[1:]]
        )
    return _score(
        np.asarray(grid, np.float64) - z, z, line, rough, outside, strata or {}, replicates, seed
    )


def _score(
    error: Floats,
    z: Floats,
    line: Numbers | None,
    rough: Floats,
    outside: int,
    strata: Mapping[str, npt.ArrayLike],
    replicates: int,
    seed: int,
) -> Scores:
    """Score errors (n,) at picks (n,) of numbered lines (n,), all in metres."""
    count = rough.shape[1]
    mean = float(error.mean())
    sums = _sums(error, z, line, count)
    totals = _statistics(sums.sum(1), rough.sum(1), mean)
    ordered = np.sort(error)
    quantiles = {str(q): _quantile(ordered, q) for q in QUANTILES}
    edges = _edges(ordered, count)
    del ordered  # free its memory before the classes sort their own
    intervals: dict[str, Interval] = {}
    if line is not None and count > 1:
        table = _histogram(error, line, edges, count)
        drawn = _resampled(sums, rough, edges, table, mean, replicates, seed)
        intervals = {
            name: _interval(values) for name, values in drawn.items() if not np.isnan(values).all()
        }
    return Scores(
        **{name: float(value) for name, value in totals.items()},
        picks=z.size,
        outside=outside,
        quantiles=quantiles,
        lines=0 if line is None else count,
        intervals=intervals,
        remark=_remark(line is not None, count),
        strata={
            name: _stratified(
                name, np.asarray(values, np.float64), error, z, line, replicates, seed
            )
            for name, values in strata.items()
        },
    )


def _remark(named: bool, count: int) -> str | None:
    if not named:
        return "no intervals: the picks name no lines"
    return "no intervals: the picks are of one line" if count == 1 else None


def _sums(error: Floats, z: Floats, line: Numbers | None, count: int) -> Floats:
    """Return the sums by line (6, lines) for the statistics; the first are numbers of picks."""
    # Means are subtracted first, so that squares of large means cost no digits.
    mean, middle = error.mean(), z.mean()
    level = z.min() == z.max()
    sums = np.zeros((6, count))
    for part in slices_of_picks(z.size):
        deviation = error[part] - mean
        height = np.zeros_like(deviation) if level else z[part] - middle
        absolute = np.abs(error[part])
        terms = (
            np.ones_like(deviation),
            deviation,
            deviation**2,
            absolute,
            height,
            height**2,
        )
        for total, term in zip(sums, terms, strict=True):
            total += term.sum() if line is None else np.bincount(line[part], term, count)
    return sums


def slices_of_picks(count: int) -> Iterator[slice]:
    """Yield slices that cover ``count`` picks in batches, to limit memory."""
    for start in range(0, count, _AT_ONCE):
        yield slice(start, start + _AT_ONCE)


def _statistics(sums: Floats, rough: Floats, mean: float) -> dict[str, Floats]:
    """Return statistics of the sums of :func:`_sums`; ``mean`` is the mean of all errors."""
    n, e, ee, a, d, dd = sums
    bias = e / n
    variance = np.maximum(ee / n - bias**2, 0)
    bias = bias + mean
    squared = n * (variance + bias**2)
    deviation = dd - d**2 / n
    with np.errstate(divide="ignore", invalid="ignore"):
        level = deviation <= 1e-12 * dd  # level within rounding
        return {
            "rmse": np.sqrt(variance + bias**2),
            "mae": a / n,
            "bias": bias,
            "bias_removed_rmse": np.sqrt(variance),
            "r2": np.where(level, np.nan, 1 - squared / deviation),
            "roughness_ratio": np.where(rough[1] > 0, rough[0] / rough[1], np.nan),
        }


def _resampled(
    sums: Floats,
    rough: Floats,
    edges: Floats,
    table: Floats,
    mean: float,
    replicates: int,
    seed: int,
) -> dict[str, Floats]:
    """Return statistics and quantiles (replicates,) of lines drawn with replacement."""
    count = sums.shape[1]
    random = np.random.default_rng(seed)
    at_once = max(1, _TABLE // count)
    drawn: dict[str, list[Floats]] = {}
    for start in range(0, replicates, at_once):
        rows = min(at_once, replicates - start)
        chosen = random.integers(0, count, (rows, count)) + count * np.arange(rows)[:, None]
        # How often each line was drawn: sums of a resample are then one matrix product.
        weights = np.bincount(chosen.ravel(), minlength=rows * count).reshape(rows, count)
        weights = weights.astype(np.float64)
        statistics = _statistics(sums @ weights.T, rough @ weights.T, mean)
        cumulated = np.cumsum(weights @ table, axis=1)
        for q in QUANTILES:
            reached = cumulated >= q * cumulated[:, -1:] - 1e-9
            statistics[f"quantile_{q}"] = edges[reached.argmax(1)]
        for name, part in statistics.items():
            drawn.setdefault(name, []).append(part)
    return {name: np.concatenate(parts) for name, parts in drawn.items()}


def _quantile(ordered: Floats, q: float) -> float:
    """Return a quantile, interpolated linearly; numpy's would copy the sorted values."""
    place = q * (ordered.size - 1)
    below = ordered[int(place) : int(place) + 2]
    return float(below[0] + (below[-1] - below[0]) * (place % 1))


def _edges(ordered: Floats, count: int) -> Floats:
    """Return the upper edges of the bins from which quantiles of the resamples are read."""
    bins = max(64, min(_BINS, _TABLE // count))
    last = np.unique(np.ceil(np.linspace(0, 1, bins + 1)[1:] * ordered.size).astype(np.intp) - 1)
    return np.unique(ordered[last])


def _histogram(error: Floats, line: Numbers, edges: Floats, count: int) -> Floats:
    """Return the number of errors of each line in each bin (lines, bins)."""
    table = np.zeros(count * edges.size)
    for part in slices_of_picks(error.size):
        place = line[part].astype(np.intp) * edges.size + np.searchsorted(edges, error[part])
        table += np.bincount(place, minlength=table.size)
    return table.reshape(count, -1)


def _interval(values: Floats) -> Interval:
    low, high = np.nanquantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))


def _stratified(
    name: str,
    values: Floats,
    error: Floats,
    z: Floats,
    line: Numbers | None,
    replicates: int,
    seed: int,
) -> list[Stratum]:
    if name not in CLASSES:
        raise WrongCallError(f"strata: expected some of {', '.join(CLASSES)}, found {name!r}")
    strata = []
    for low, high, chosen in _classes(values, CLASSES[name]):
        picks = int(chosen.sum())
        scores = None
        if picks:
            own, names = (None, None) if line is None else numbered(line[chosen])
            rough = np.zeros((2, 1 if names is None else names.size))
            scores = _score(error[chosen], z[chosen], own, rough, 0, {}, replicates, seed)
        strata.append(Stratum(low, high, picks, scores))
    return strata


def _classes(
    values: Floats, edges: tuple[float, ...]
) -> Iterator[tuple[float | None, float | None, npt.NDArray[np.bool_]]]:
    for low, high in itertools.pairwise(edges):
        yield low, None if math.isinf(high) else high, (values >= low) & (values < high)
    unknown = ~(values >= edges[0]) | np.isinf(values)
    if unknown.any():
        yield None, None, unknown
