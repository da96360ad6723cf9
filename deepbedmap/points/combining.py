"""Combine the picks of several surveys, without repeated positions and overlapping datasets."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa

from deepbedmap.errors import Fault, InvalidDataError, WrongCallError
from deepbedmap.extras import required_extra

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    import numpy.typing as npt

    from deepbedmap.registry.listing import Registry
    from deepbedmap.registry.records import Dataset


def deduplicate(points: pd.DataFrame, tolerance: float = 1e-3) -> pd.DataFrame:
    """Picks without repeats of a position.

    In the order of the table, a pick that is no further than the tolerance from one that is kept
    is a repeat of it (of the nearest such one). No two picks of the result are that near, and
    each of those dropped is that near to one that is kept.

    Parameters
    ----------
    points
        As :func:`deepbedmap.points.read_points` or :func:`join_surveys` give them.
    tolerance
        Distance in the units of x and y (metres), 0 or more: 0 drops equal positions alone. It is
        meant to be less than the distance of picks along a line: memory grows with the number of
        pairs that are this near.

    Returns
    -------
    pandas.DataFrame
        One row a position, in the order of the first pick there, with that pick's x, y and flags.
        ``z`` is the median of the beds there, which one spike does not move; ``bed_inferred`` is
        true where any of them was inferred. ``attrs["duplicates"]`` is the number of picks
        dropped (added to what it was); other attributes stay.

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
    _forget_unused(distinct)
    dropped = len(points) - len(distinct) + points.attrs.get("duplicates", 0)
    distinct.attrs = {**points.attrs, "duplicates": dropped}
    return distinct


def name_of(points: pd.DataFrame) -> str:
    """The pipeline, or the file, that picks were read from: for messages."""
    sources = points.attrs.get("sources") or []
    names = [source.get("pipeline") or source.get("file") for source in sources]
    return str(names[0]) if names else "points"


def require_finite(points: pd.DataFrame, *names: str) -> None:
    """Refuse picks with a missing or infinite value in one of some columns.

    Raises
    ------
    InvalidDataError
        With the first such row, counted from 0, and their number.
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
                    found=f"{points[name].iloc[row]} ({int(wrong.sum())} such in all)",
                    remedy="drop these records",
                )
            )


def _keepers(places: npt.NDArray[np.float64], tolerance: float) -> npt.NDArray[np.intp]:
    """Row that stands for each row: itself, or an earlier one of about the same position."""
    # Equal positions first: any number of them would make a number of pairs as its square.
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
    stands_for = np.arange(len(firsts))
    nearest = np.full(len(firsts), np.inf)
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    rows = zip(*pairs[order].T.tolist(), distances[order].tolist(), strict=True)
    for earlier, later, distance in rows:
        if stands_for[earlier] == earlier and distance < nearest[later]:
            stands_for[later] = earlier
            nearest[later] = distance
    kept: npt.NDArray[np.intp] = firsts[stands_for][np.searchsorted(firsts, keeper)]
    return kept


def _forget_unused(points: pd.DataFrame) -> None:
    for name in points.columns[points.dtypes == "category"]:
        points[name] = points[name].cat.remove_unused_categories()


def join_surveys(surveys: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Picks of several surveys in one table.

    Parameters
    ----------
    surveys
        Picks by the names of their surveys: citekeys of the registry, say.

    Returns
    -------
    pandas.DataFrame
        All picks, survey after survey, each with its flags (missing where its survey has none;
        ``bed_inferred`` is then false) and the column ``source``: category, the survey's name.
        ``attrs`` has ``crs`` and ``vertical_datum``, and the ``sources`` of all.

    Raises
    ------
    ValueError
        If there is no survey.
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
    said: dict[str, Any] = {}
    for name in ("crs", "vertical_datum"):
        values = {key: points.attrs.get(name) for key, points in surveys.items()}
        said[name] = next(iter(values.values()))
        for key, value in values.items():
            if value != said[name]:
                raise InvalidDataError(
                    Fault(
                        key,
                        field=name,
                        expected=f"that of {next(iter(values))} ({said[name] or 'unknown'})",
                        found=value or "unknown",
                        remedy="picks are joined in one CRS and one vertical datum alone",
                    )
                )
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
        "crs": said["crs"],
        "vertical_datum": said["vertical_datum"],
        "sources": sources,
    }
    return joined


def without_overlaps(
    points: pd.DataFrame,
    registry: Registry,
    distance: float = 10.0,
    difference: float = 1.0,
) -> pd.DataFrame:
    """Picks without those that two datasets have both, by the registry's ``overlaps_with``.

    Of two datasets that overlap one keeps its picks: the survey before a compilation
    (``survey_type``); then what is in use before what is superseded, retired or withdrawn; then
    the one published later; then the first in the registry. From the other go the picks that are
    no further than ``distance`` in x and in y, and than ``difference`` in bed, from one of its.
    Picks of a compilation that no such survey has stay.

    Parameters
    ----------
    points
        As of :func:`join_surveys`, with citekeys as ``source``.
    registry
        As :func:`deepbedmap.registry.load` gives it.
    distance, difference
        Metres, more than 0.

    Returns
    -------
    pandas.DataFrame
        The other picks, in order. ``attrs["overlaps"]``: for each dataset that lost picks, how
        many.

    Raises
    ------
    ValueError
        If there is no column ``source``, or a distance is not positive.
    InvalidDataError
        If a source is no citekey of the registry, or a coordinate or bed is missing or infinite.
    """
    with required_extra("grid"):
        from scipy.spatial import cKDTree

    if "source" not in points:
        raise WrongCallError("picks of several surveys have a column source; see join_surveys")
    if not (0 < distance < math.inf and 0 < difference < math.inf):
        raise WrongCallError(f"distances are more than 0 m, not {distance} and {difference}")
    require_finite(points, "x", "y", "z")
    places = {dataset.citekey: place for place, dataset in enumerate(registry)}

    def rank(dataset: Dataset) -> tuple[bool, bool, int, int]:
        return (
            dataset.survey_type == "compilation",
            dataset.status in ("superseded", "retired", "withdrawn"),
            -(dataset.year or 0),
            places[dataset.citekey],
        )

    source = points["source"].to_numpy(dtype=object)
    datasets = sorted((registry[citekey] for citekey in pd.unique(source)), key=rank)
    scaled = points[["x", "y", "z"]].to_numpy(np.float64) / (distance, distance, difference)
    kept = np.ones(len(points), dtype=bool)
    lost = {}
    for place, dataset in enumerate(datasets):
        before = [
            other.citekey
            for other in datasets[:place]
            if other.citekey in dataset.overlaps_with or dataset.citekey in other.overlaps_with
        ]
        if not before:
            continue
        own = np.flatnonzero(source == dataset.citekey)
        tree = cKDTree(scaled[np.isin(source, before)], balanced_tree=False, compact_nodes=False)
        for start in range(0, len(own), 1_000_000):
            rows = own[start : start + 1_000_000]
            # The bound of a query is not within it.
            nearest, _ = tree.query(
                scaled[rows], p=np.inf, distance_upper_bound=1 + 1e-9, workers=pa.cpu_count()
            )
            kept[rows] = np.isinf(nearest)
        if count := int((~kept[own]).sum()):
            lost[dataset.citekey] = count
    rest: pd.DataFrame = points[kept].reset_index(drop=True)
    _forget_unused(rest)
    rest.attrs = {**points.attrs, "overlaps": lost}
    return rest
