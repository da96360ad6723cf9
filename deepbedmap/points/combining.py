"""Combine the picks of several surveys, without repeated positions or overlapping datasets."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa

from deepbedmap.errors import Fault, InvalidDataError, WrongCallError
from deepbedmap.extras import required_extra

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    import numpy.typing as npt

    from deepbedmap.registry.listing import Registry
    from deepbedmap.registry.records import Dataset

_AT_ONCE = 1_000_000  # picks whose neighbours are looked up together: this bounds memory


def deduplicate(points: pd.DataFrame, tolerance: float = 1e-3) -> pd.DataFrame:
    """Merge picks at the same position into one.

    Picks are taken in the order of the table. A pick within the tolerance of one that is already
    kept repeats that pick (the nearest, if there are several). In the result no two picks are
    within the tolerance of each other, and every pick that was dropped is within it of one that
    was kept.

    Parameters
    ----------
    points
        Picks, as returned by :func:`deepbedmap.points.read_points` or :func:`join_surveys`.
    tolerance
        Distance in the units of x and y (metres), 0 or more; 0 merges only equal positions. It
        should be less than the spacing of picks along a line: memory grows with the number of
        pairs within it.

    Returns
    -------
    pandas.DataFrame
        One row per position, in the order of the first pick there, with that pick's x, y and
        flags. ``z`` is the median of the beds there, which a single spike does not move;
        ``bed_inferred`` is true where any of them was inferred. ``attrs["duplicates"]`` is the
        number of picks dropped, added to any earlier number; other attributes are kept.

    Raises
    ------
    ValueError
        If the tolerance is negative or not finite.
    InvalidDataError
        If a coordinate is missing or infinite.

    Examples
    --------
    >>> picks = pd.DataFrame({"x": [0.0, 9.0, 0.0], "y": [0.0, 0.0, 0.0], "z": [-1.0, 5.0, -3.0]})
    >>> deduplicate(picks)
         x    y    z
    0  0.0  0.0 -2.0
    1  9.0  0.0  5.0
    """
    if not 0 <= tolerance < math.inf:
        raise WrongCallError(f"a tolerance is a distance of 0 m or more, not {tolerance}")
    require_finite(points, "x", "y")
    points = points.reset_index(drop=True)
    keeper = _keepers(points[["x", "y"]].to_numpy(np.float64), tolerance)
    kept = keeper == np.arange(len(points))
    distinct: pd.DataFrame = points[kept].copy()
    if not kept.all():
        repeated = np.zeros(len(points), dtype=bool)
        repeated[keeper[~kept]] = True
        of_repeats = repeated[keeper]
        groups = points[of_repeats].groupby(keeper[of_repeats])
        medians = groups["z"].median()
        distinct.loc[medians.index, "z"] = medians
        if "bed_inferred" in points:
            distinct.loc[medians.index, "bed_inferred"] = groups["bed_inferred"].any()
    distinct = distinct.reset_index(drop=True)
    _remove_unused_categories(distinct)
    dropped = len(points) - len(distinct) + points.attrs.get("duplicates", 0)
    distinct.attrs = {**points.attrs, "duplicates": dropped}
    return distinct


def name_of(points: pd.DataFrame) -> str:
    """Return the pipeline or file that picks were read from, for messages."""
    sources = points.attrs.get("sources") or []
    names = [source.get("pipeline") or source.get("file") for source in sources]
    return str(names[0]) if names else "points"


def require_finite(points: pd.DataFrame, *names: str) -> None:
    """Check that columns of picks hold no missing or infinite value.

    Raises
    ------
    InvalidDataError
        A value is missing or infinite; the message names the first such row, counted from 0, and
        their number.
    """
    for name in names:
        wrong = ~np.isfinite(points[name].to_numpy(np.float64))
        if wrong.any():
            row = int(wrong.argmax())
            raise InvalidDataError(
                Fault(
                    name_of(points),
                    entry=f"row {row}",
                    field=name,
                    expected="a finite number",
                    found=f"{points[name].iloc[row]} (one of {int(wrong.sum())} such records)",
                    remedy="drop these records",
                )
            )


def _keepers(places: npt.NDArray[np.float64], tolerance: float) -> npt.NDArray[np.intp]:
    """Return the row that is kept for each row: itself, or an earlier one at the same position."""
    # Equal positions are merged first: n of them would otherwise give n² / 2 pairs in the tree.
    order = np.lexsort((places[:, 1], places[:, 0]))
    ordered = places[order]
    starts = np.append(True, (ordered[1:] != ordered[:-1]).any(axis=1))[: len(places)]
    keeper = np.empty(len(places), dtype=np.intp)
    keeper[order] = order[np.flatnonzero(starts)][np.cumsum(starts) - 1]  # lexsort is stable
    if tolerance == 0:
        return keeper
    with required_extra("grid"):
        from scipy.spatial import cKDTree

    firsts = np.flatnonzero(keeper == np.arange(len(places)))
    apart = places[firsts]
    tree = cKDTree(apart, balanced_tree=False, compact_nodes=False)
    pairs = tree.query_pairs(tolerance, output_type="ndarray")
    if not len(pairs):
        return keeper
    distances = np.hypot(*(apart[pairs[:, 0]] - apart[pairs[:, 1]]).T)
    representative = np.arange(len(firsts))
    nearest = np.full(len(firsts), np.inf)
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    rows = zip(*pairs[order].T.tolist(), distances[order].tolist(), strict=True)
    # Pairs come in the order of their earlier pick, so it is settled by now whether that is kept;
    # a pick that was itself dropped may not represent another, or chains would drift along a line.
    for earlier, later, distance in rows:
        if representative[earlier] == earlier and distance < nearest[later]:
            representative[later] = earlier
            nearest[later] = distance
    kept: npt.NDArray[np.intp] = firsts[representative][np.searchsorted(firsts, keeper)]
    return kept


def _remove_unused_categories(points: pd.DataFrame) -> None:
    for name in points.columns[points.dtypes == "category"]:
        points[name] = points[name].cat.remove_unused_categories()


def join_surveys(surveys: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Join the picks of several surveys in one table.

    Parameters
    ----------
    surveys
        Picks of each survey by its name, such as its citekey in the registry.

    Returns
    -------
    pandas.DataFrame
        All picks, survey after survey, each with its flags (missing where its survey has none;
        ``bed_inferred`` is then false) and the column ``source``: category, the survey's name.
        ``attrs`` holds ``crs``, ``vertical_datum`` and the ``sources`` of all surveys.

    Raises
    ------
    ValueError
        If ``surveys`` is empty.
    InvalidDataError
        If the surveys differ in CRS or in vertical datum: convert them first.

    Examples
    --------
    >>> one = pd.DataFrame({"x": [0.0], "y": [0.0], "z": [-1.0]})
    >>> join_surveys({"King2016Rutford": one, "Shi2010CRESIS": one})["source"].tolist()
    ['King2016Rutford', 'Shi2010CRESIS']
    """
    if not surveys:
        raise WrongCallError("there is no survey to join")
    # pandas drops attributes silently where those of the joined tables differ, so compare first.
    reference = {name: _common_attribute(surveys, name) for name in ("crs", "vertical_datum")}
    tables = [*surveys.values()]
    joined = pd.concat(tables, ignore_index=True)
    if "line" in joined:
        lines = [
            pd.Categorical(table["line"])
            if "line" in table
            else pd.Categorical([None] * len(table))
            for table in tables
        ]
        joined["line"] = pd.api.types.union_categoricals(
            [line.set_categories(line.categories.astype("str")) for line in lines]
        )
    if "bed_inferred" in joined:
        joined["bed_inferred"] = joined["bed_inferred"].eq(True)
    joined["source"] = pd.Categorical.from_codes(
        np.repeat(np.arange(len(tables)), [len(table) for table in tables]),
        pd.Index([*surveys], dtype="str"),
    )
    sources = [source for points in surveys.values() for source in points.attrs.get("sources", ())]
    joined.attrs = {
        "crs": reference["crs"],
        "vertical_datum": reference["vertical_datum"],
        "sources": sources,
    }
    return joined


def _common_attribute(surveys: Mapping[str, pd.DataFrame], name: str) -> Any:
    """Return an attribute that all surveys share; raise InvalidDataError if one differs."""
    values = {survey: points.attrs.get(name) for survey, points in surveys.items()}
    first, expected = next(iter(values.items()))
    for survey, value in values.items():
        if value != expected:
            raise InvalidDataError(
                Fault(
                    survey,
                    field=name,
                    expected=f"{expected or 'unknown'} as in {first}",
                    found=value or "unknown",
                    remedy="convert the surveys to one CRS and one vertical datum first",
                )
            )
    return expected


def without_overlaps(
    points: pd.DataFrame,
    registry: Registry,
    distance: float = 10.0,
    difference: float = 1.0,
) -> pd.DataFrame:
    """Drop picks that two datasets share, by the registry's ``overlaps_with``.

    Of two overlapping datasets one keeps all its picks: a survey before a compilation
    (``survey_type``); then one in use before one that is superseded, retired or withdrawn; then
    the one published later; then the first in the registry. The other loses the picks within
    ``distance`` in x and in y, and ``difference`` in bed, of a pick of the first. Picks of a
    compilation that no such survey contains are kept.

    Parameters
    ----------
    points
        Picks, as returned by :func:`join_surveys`, with citekeys as ``source``.
    registry
        As returned by :func:`deepbedmap.registry.load`.
    distance, difference
        Metres, more than 0.

    Returns
    -------
    pandas.DataFrame
        The remaining picks, in order. ``attrs["overlaps"]``: the number of picks dropped from
        each dataset that lost any.

    Raises
    ------
    ValueError
        If there is no column ``source``, or a distance is not positive.
    InvalidDataError
        If a source is not a citekey of the registry, or a coordinate or bed is missing or
        infinite.
    """
    if "source" not in points:
        raise WrongCallError("picks of several surveys have a column source; see join_surveys")
    if not (0 < distance < math.inf and 0 < difference < math.inf):
        raise WrongCallError(f"distances are more than 0 m, not {distance} and {difference}")
    require_finite(points, "x", "y", "z")
    source = points["source"].to_numpy(dtype=object)
    datasets = _by_precedence(pd.unique(source), registry)
    # Scaled so that one cube of half-width 1 is the tolerance in all three coordinates.
    scaled = points[["x", "y", "z"]].to_numpy(np.float64) / (distance, distance, difference)
    kept = np.ones(len(points), dtype=bool)
    dropped = {}
    for place, dataset in enumerate(datasets):
        preferred = [
            other.citekey
            for other in datasets[:place]
            if other.citekey in dataset.overlaps_with or dataset.citekey in other.overlaps_with
        ]
        if not preferred:
            continue
        own = np.flatnonzero(source == dataset.citekey)
        kept[own] = ~_near_any(scaled[own], scaled[np.isin(source, preferred)])
        if count := int((~kept[own]).sum()):
            dropped[dataset.citekey] = count
    remaining: pd.DataFrame = points[kept].reset_index(drop=True)
    _remove_unused_categories(remaining)
    remaining.attrs = {**points.attrs, "overlaps": dropped}
    return remaining


def _by_precedence(citekeys: Iterable[str], registry: Registry) -> list[Dataset]:
    """Return datasets in the order in which they keep their picks."""
    position = {dataset.citekey: number for number, dataset in enumerate(registry)}

    def rank(dataset: Dataset) -> tuple[bool, bool, int, int]:
        return (
            dataset.survey_type == "compilation",
            dataset.status in ("superseded", "retired", "withdrawn"),
            -(dataset.year or 0),
            position[dataset.citekey],
        )

    return sorted((registry[citekey] for citekey in citekeys), key=rank)


def _near_any(
    positions: npt.NDArray[np.float64], others: npt.NDArray[np.float64]
) -> npt.NDArray[np.bool_]:
    """Return which positions are within 1 of any of the others in every coordinate."""
    with required_extra("grid"):
        from scipy.spatial import cKDTree

    tree = cKDTree(others, balanced_tree=False, compact_nodes=False)
    near = np.empty(len(positions), dtype=bool)
    for start in range(0, len(positions), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        # The upper bound is exclusive: a distance of exactly 1 needs a bound slightly above it.
        nearest, _ = tree.query(
            positions[part], p=np.inf, distance_upper_bound=1 + 1e-9, workers=pa.cpu_count()
        )
        near[part] = np.isfinite(nearest)
    return near
