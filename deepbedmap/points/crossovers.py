"""Crossovers: bed elevation of two flight lines where they intersect.

The differences at crossovers are the standard measure of how well radar surveys agree,
within a survey and between surveys.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyproj
import shapely

from deepbedmap.errors import Fault, InvalidDataError, WrongCallError
from deepbedmap.points.combining import require_finite
from deepbedmap.points.picks import LINE_GAP

_PIECE = 8
"""Consecutive segments per entry of the spatial index: few enough to test every pair of them."""

_AT_ONCE = 16_384
"""Pairs of pieces whose segments are tested together, which takes about 100 MB of memory."""


def crossovers(
    points: pd.DataFrame, max_gap: float = LINE_GAP, within: bool = False
) -> pd.DataFrame:
    """Find where flight lines cross or touch, and the bed elevation of both there.

    A line consists of its picks in the order of the table, joined by straight segments; it is
    interrupted where consecutive picks are further apart than ``max_gap``. Segments that coincide
    (a line flown again over the same picks) do not cross.

    Parameters
    ----------
    points
        Columns ``x``, ``y``, ``z`` (metres) and ``line``, as returned by
        :func:`deepbedmap.points.read_points`, or with a column ``source`` as returned by
        :func:`deepbedmap.points.join_surveys`: lines of the same name from two sources are
        different lines.
    max_gap
        Longest segment in metres, more than 0.
    within
        Include crossovers of a line with itself.

    Returns
    -------
    pandas.DataFrame
        One row per crossover, in the order of the lines:

        ``x``, ``y``
            float64, metres, in the CRS of the picks.
        ``survey_1``, ``survey_2``, ``line_1``, ``line_2``
            category: the picks' ``source`` or, without one, their line's name up to the first
            ``/``, which is the stem of their file; and their line. Surveys, and lines within a
            survey, are numbered in the order in which they appear in the table.
        ``z_1``, ``z_2``, ``difference``
            float64, metres: the two beds, interpolated linearly between the picks before and
            after, and ``z_1 - z_2``.

        ``attrs`` are copied from the picks.

    Raises
    ------
    ValueError
        If ``max_gap`` is not positive, or there is no column ``line``.
    InvalidDataError
        If a coordinate or bed is missing or infinite, or the CRS is in degrees.

    Examples
    --------
    >>> picks = pd.DataFrame({"x": [0.0, 100, 50, 50], "y": [0.0, 0, -50, 50],
    ...                       "z": [-10.0, -20, -18, -18], "line": ["a/1", "a/1", "b/1", "b/1"]})
    >>> crossovers(picks)[["x", "y", "line_1", "line_2", "z_1", "z_2", "difference"]]
          x    y line_1 line_2   z_1   z_2  difference
    0  50.0  0.0    a/1    b/1 -15.0 -18.0         3.0
    """
    if not max_gap > 0:
        raise WrongCallError(f"max_gap must be more than 0 m, not {max_gap}")
    if "line" not in points:
        raise WrongCallError("picks need a column line, which names their flight lines")
    require_finite(points, "x", "y", "z")
    crs = points.attrs.get("crs")
    if crs is not None and pyproj.CRS(crs).is_geographic:
        raise InvalidDataError(
            Fault("points", field="crs", expected="a CRS in metres", found=str(crs))
        )
    lines, line_of_pick = _lines_of(points)
    order = np.argsort(line_of_pick, kind="stable")
    positions = points[["x", "y", "z"]].to_numpy(np.float64)
    segments = _Segments(positions[order], line_of_pick[order], max_gap)
    first, second, at_first, at_second = _crossings(segments, within)
    order = np.lexsort((at_first, first, segments.line[second], segments.line[first]))
    first, second = first[order], second[order]
    x, y, z_1 = segments.at(first, at_first[order]).T
    z_2 = segments.at(second, at_second[order])[:, 2]
    table = pd.DataFrame({"x": x, "y": y})
    for name in lines:
        for number, segment in enumerate((first, second), start=1):
            table[f"{name}_{number}"] = lines[name].array[segments.line[segment]]
    table = table.assign(z_1=z_1, z_2=z_2, difference=z_1 - z_2)
    table.attrs = dict(points.attrs)
    return table


def summarize(differences: pd.DataFrame) -> pd.DataFrame:
    """Summarize the differences at crossovers by pair of surveys.

    Parameters
    ----------
    differences
        Crossovers, as returned by :func:`crossovers`.

    Returns
    -------
    pandas.DataFrame
        One row per pair of surveys (a survey with itself included), in the order of the surveys:
        ``survey_1``, ``survey_2``; ``n`` (int); and, in metres, statistics of the bed of the first
        minus the bed of the second: ``mean``, ``median``, ``std`` (ddof 0, so that
        rms**2 = mean**2 + std**2), ``rms`` and ``mad``, the median absolute deviation from the
        median.

    Examples
    --------
    >>> two = pd.DataFrame({"survey_1": ["a", "a"], "survey_2": ["b", "b"], "difference": [3., 5.]})
    >>> summarize(two).iloc[0].to_dict()  # doctest: +NORMALIZE_WHITESPACE
    {'survey_1': 'a', 'survey_2': 'b', 'n': 2, 'mean': 4.0, 'median': 4.0, 'std': 1.0,
     'rms': 4.123105625617661, 'mad': 1.0}
    """
    pairs = differences.groupby(["survey_1", "survey_2"], observed=True, sort=True)["difference"]
    return pd.DataFrame(
        {
            "n": pairs.size(),
            "mean": pairs.mean(),
            "median": pairs.median(),
            "std": pairs.std(ddof=0),
            "rms": pairs.agg(lambda values: math.sqrt((values**2).mean())),
            "mad": pairs.agg(lambda values: (values - values.median()).abs().median()),
        }
    ).reset_index()


def _lines_of(points: pd.DataFrame) -> tuple[pd.DataFrame, npt.NDArray[np.intp]]:
    """Return survey and name of each line, in order of appearance, and the line of each pick."""
    for field in ("line", "source"):
        if field in points and points[field].isna().any():
            raise InvalidDataError(
                Fault("points", field=field, expected="a name for each pick", found="none")
            )
    names = pd.Categorical(points["line"])
    if "source" in points:
        surveys = pd.Categorical(points["source"])
    else:
        stems = [str(name).partition("/")[0] for name in names.categories]
        surveys = pd.Categorical(pd.Series(stems, dtype="str")[names.codes])
    (survey, surveys_seen), (name, names_seen) = map(pd.factorize, (surveys.codes, names.codes))
    keys, line_of_pick = np.unique(survey * len(names_seen) + name, return_inverse=True)
    survey, name = np.divmod(keys, max(1, len(names_seen)))
    lines = {}
    for column, codes, own, seen in (
        ("survey", survey, surveys, surveys_seen),
        ("line", name, names, names_seen),
    ):
        categories = pd.Index(own.categories[seen], dtype="str")
        lines[column] = pd.Categorical.from_codes(codes, categories)
    return pd.DataFrame(lines), line_of_pick


class _Segments:
    """Segments between consecutive picks of a line.

    Attributes
    ----------
    start, end : (n, 3)
        x, y and z of both ends.
    line : (n,)
        Number of the line.
    closed : (n,)
        Whether the segment includes its own end point. It does unless another segment begins
        there, to which the point then belongs: a line crossed exactly at a pick is crossed once.
    """

    def __init__(
        self, positions: npt.NDArray[np.float64], lines: npt.NDArray[np.intp], max_gap: float
    ) -> None:
        length = np.hypot(*np.diff(positions[:, :2], axis=0).T)
        row = np.flatnonzero((lines[1:] == lines[:-1]) & (length > 0) & (length <= max_gap))
        self.start, self.end, self.line = positions[row], positions[row + 1], lines[row]
        continues = (self.line[1:] == self.line[:-1]) & (
            self.start[1:, :2] == self.end[:-1, :2]
        ).all(axis=1)
        self.closed = np.append(~continues, True)[: len(row)]

    def at(
        self, segment: npt.NDArray[np.intp], share: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64]:
        """Return x, y and z at a share (0 to 1) of the way along each segment, (n, 3)."""
        start, end = self.start[segment], self.end[segment]
        between: npt.NDArray[np.float64] = start + share[:, None] * (end - start)
        return between


_Crossings = tuple[
    npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float64], npt.NDArray[np.float64]
]


def _crossings(segments: _Segments, within: bool) -> _Crossings:
    """Return pairs of segments that cross, in order, and the share along each where they do."""
    starts = _pieces(segments)
    sizes = np.diff(np.append(starts, len(segments.line)))
    tree, pieces = _index(segments, starts, sizes)
    crossings: list[_Crossings] = []
    for some in np.array_split(np.arange(len(pieces)), max(1, math.ceil(len(pieces) / _AT_ONCE))):
        one, other = tree.query(pieces[some], predicate="intersects")
        one = some[one]
        same = segments.line[starts[one]] == segments.line[starts[other]]
        wanted = (one <= other) if within else (one < other) & ~same
        one, other = one[wanted], other[wanted]
        for begin in range(0, len(one), _AT_ONCE):
            part = slice(begin, begin + _AT_ONCE)
            first, second = _each_with_each(starts, sizes, one[part], other[part])
            crossings.append(_intersections(segments, first, second))
    empty = (np.empty(0, np.intp), np.empty(0, np.intp), np.empty(0), np.empty(0))
    first, second, at_first, at_second = map(np.concatenate, zip(empty, *crossings, strict=True))
    return first, second, at_first, at_second


def _pieces(segments: _Segments) -> npt.NDArray[np.intp]:
    """Return the first segment of each piece: up to ``_PIECE`` consecutive segments of a line."""
    if not len(segments.line):
        return np.empty(0, np.intp)
    heads = np.flatnonzero(np.append(True, segments.closed[:-1]))
    lengths = np.diff(np.append(heads, len(segments.line)))
    position = np.arange(len(segments.line)) - np.repeat(heads, lengths)
    return np.flatnonzero(position % _PIECE == 0)


def _index(
    segments: _Segments, starts: npt.NDArray[np.intp], sizes: npt.NDArray[np.intp]
) -> tuple[shapely.STRtree, npt.NDArray[np.object_]]:
    """Return a spatial index of the pieces, and the pieces themselves, as polylines."""
    vertices = np.insert(
        segments.start[:, :2], starts + sizes, segments.end[starts + sizes - 1, :2], 0
    )
    pieces = shapely.linestrings(vertices, indices=np.repeat(np.arange(len(starts)), sizes + 1))
    return shapely.STRtree(pieces), pieces


def _each_with_each(
    starts: npt.NDArray[np.intp],
    sizes: npt.NDArray[np.intp],
    one: npt.NDArray[np.intp],
    other: npt.NDArray[np.intp],
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return all pairs of a segment of one piece and a segment of the other, each pair once."""
    row, column = np.divmod(np.arange(_PIECE**2), _PIECE)
    # Pieces at the end of a line are shorter; within one piece, a pair counts in one order only.
    valid = (row < sizes[one][:, None]) & (column < sizes[other][:, None])
    valid &= (one < other)[:, None] | (row < column)
    first, second = starts[one][:, None] + row, starts[other][:, None] + column
    return first[valid], second[valid]


def _intersections(
    segments: _Segments, first: npt.NDArray[np.intp], second: npt.NDArray[np.intp]
) -> _Crossings:
    """Return those pairs of segments that intersect, and the share along each where they do.

    With segments p + s a and q + t b, the shares are s = (q - p) x b / (a x b) and
    t = (q - p) x a / (a x b), x being the cross product in the plane.
    """
    start, other = segments.start[first, :2], segments.start[second, :2]
    along, across = segments.end[first, :2] - start, segments.end[second, :2] - other
    between = other - start

    def cross(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        product: npt.NDArray[np.float64] = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
        return product

    determinant = cross(along, across)
    # It is |a| |b| sin(angle); below 1e-9 the segments are parallel. The shares are then NaN,
    # which no comparison accepts.
    parallel = np.abs(determinant) <= 1e-9 * np.hypot(*along.T) * np.hypot(*across.T)
    determinant[parallel] = np.nan
    at_first, at_second = cross(between, across) / determinant, cross(between, along) / determinant
    meets = np.ones(len(first), dtype=bool)
    for share, segment, way in ((at_first, first, along), (at_second, second, across)):
        # Within a micrometre of an end is at the end, so that rounding loses no crossing that
        # falls between two consecutive segments.
        for end in (0.0, 1.0):
            share[np.abs(share - end) * np.hypot(*way.T) < 1e-6] = end
        meets &= (share >= 0) & ((share < 1) | ((share == 1) & segments.closed[segment]))
    return first[meets], second[meets], at_first[meets], at_second[meets]
