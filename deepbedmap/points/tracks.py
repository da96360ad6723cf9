"""Picks along their flight lines: along-track distance, and evenly spaced samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from deepbedmap.errors import Fault, InvalidDataError, WrongCallError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd

Values = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.intp]
AT_ONCE = 500_000
"""Picks, of whole lines, that are followed at once: this bounds memory."""


class Tracks(NamedTuple):
    """Picks in the order of their lines, and within a line as they were flown.

    Attributes
    ----------
    row
        int (n,): row of the table that each pick was.
    line
        int (n,): its line, in the order of ``names``.
    distance
        float64 (n,): metres flown since the first pick of the line, straight from pick to pick
        (also across picks that were left out), on the map.
    names
        Of the lines, those without a pick included.
    """

    row: Numbers
    line: Numbers
    distance: Values
    names: pd.Index[str]


def tracks(picks: pd.DataFrame, columns: Sequence[str] = ()) -> Tracks:
    """Follow the lines of picks.

    Parameters
    ----------
    picks
        Columns ``x``, ``y`` (metres) and ``line``; picks of a line stand in the order in which
        they were flown, lines may be interleaved.
    columns
        Picks at which one of these is NaN are left out, as are picks without a line.

    Raises
    ------
    ValueError
        There is no column ``line``, or none of ``columns``.
    InvalidDataError
        The CRS (``attrs["crs"]``) is in degrees; a coordinate is not finite; or no pick is left.

    Examples
    --------
    >>> import pandas as pd
    >>> picks = pd.DataFrame({"x": [0.0, 9, 3, 9], "y": [0.0, 0, 4, 1], "line": list("abab")})
    >>> tracks(picks).distance
    array([0., 5., 0., 1.])
    """
    (followed,) = tracks_by_parts(picks, columns, len(picks))
    return followed


def tracks_by_parts(
    picks: pd.DataFrame, columns: Sequence[str] = (), at_once: int | None = None
) -> Iterator[Tracks]:
    """Follow the lines of picks, some whole lines at a time.

    Parameters
    ----------
    picks, columns
        As :func:`tracks` takes them, and refuses them: before the first part.
    at_once
        Picks of a part, more where its last line reaches beyond that; :data:`AT_ONCE` by default.

    Yields
    ------
    Tracks
        Of the lines that follow those of the part before; rows are of the whole table.
    """
    import pandas as pd

    _require_lines(picks, columns)
    lines = pd.Categorical(picks["line"])
    known = lines.codes >= 0
    for column in columns:
        known &= np.isfinite(picks[column].to_numpy(np.float64))
    if not known.any():
        from deepbedmap.points.combining import name_of

        raise InvalidDataError(
            Fault(
                name_of(picks),
                expected=f"picks of a line with {' and '.join(columns) or 'a place'}",
                found=f"none of {len(picks)}",
                remedy="check that grid and picks cover the same place",
            )
        )
    x, y = (picks[name].to_numpy(np.float64) for name in ("x", "y"))
    names = pd.Index(lines.categories.astype(str))
    sizes = np.bincount(lines.codes[known], minlength=len(names))
    part = (np.cumsum(sizes) - sizes) // (AT_ONCE if at_once is None else max(1, at_once))
    for number in np.unique(part[sizes > 0]):
        first, last = np.searchsorted(part, number), np.searchsorted(part, number, "right")
        row = np.flatnonzero(known & (lines.codes >= first) & (lines.codes < last))
        row = row[np.argsort(lines.codes[row], kind="stable")]
        line = lines.codes[row].astype(np.intp)
        east, north = x[row], y[row]
        flown = np.cumsum(
            np.hypot(np.diff(east, prepend=east[0]), np.diff(north, prepend=north[0]))
        )
        start = np.flatnonzero(np.diff(line, prepend=-1))
        distance = flown - np.repeat(flown[start], np.diff(start, append=line.size))
        yield Tracks(row, line, distance, names)


def _require_lines(picks: pd.DataFrame, columns: Sequence[str]) -> None:
    import pyproj

    from deepbedmap.points.combining import name_of, require_finite

    if missing := [name for name in ("line", *columns) if name not in picks]:
        raise WrongCallError(
            f"picks have columns line and {', '.join(columns)}; here is no {missing}"
        )
    crs = picks.attrs.get("crs")
    if crs is not None and pyproj.CRS(crs).is_geographic:
        raise InvalidDataError(
            Fault(
                name_of(picks),
                field="crs",
                expected="a CRS in metres",
                found=str(crs),
                remedy="project the picks",
            )
        )
    require_finite(picks, "x", "y")


def stretches(line: Numbers, distance: Values, length: float) -> Numbers:
    """Where a stretch of one length begins (k,), of lines that are cut from their first pick on."""
    stretch = np.floor_divide(distance, length)
    return np.flatnonzero((np.diff(line, prepend=-1) != 0) | (np.diff(stretch, prepend=-1) != 0))


def means(values: Values, first: npt.NDArray[np.intp]) -> Values:
    """Means along the last axis of the runs that begin at ``first``."""
    total: Values = np.add.reduceat(values, first, axis=-1)
    return total / np.diff(first, append=values.shape[-1])


class Samples(NamedTuple):
    """Values at equal distances along lines, run by run: a run is a part of a line without a gap.

    Attributes
    ----------
    series
        float64 (columns, n).
    first
        int (runs,): number of the first sample of each run.
    line
        int (runs,): the line of each run, as :class:`Tracks` has it.
    """

    series: Values
    first: Numbers
    line: Numbers

    @property
    def sizes(self) -> Numbers:
        """Samples of each run (runs,), one or more."""
        return np.diff(self.first, append=self.series.shape[1])


def even_samples(
    picks: pd.DataFrame, columns: Sequence[str], spacing: float, max_gap: float
) -> Iterator[Samples]:
    """Sample values at equal distances along each line.

    A line is cut where consecutive picks are further apart than ``max_gap``. Along each run the
    picks are averaged within ``spacing`` (so that what is shorter does not appear as something
    longer), and linear between these means.

    Parameters
    ----------
    picks, columns
        As :func:`tracks` takes them.
    spacing, max_gap
        Metres, more than 0.

    Yields
    ------
    Samples
        Of some whole lines, as :func:`tracks_by_parts` gives them.
    """
    if not (spacing > 0 and max_gap > 0):
        raise WrongCallError(f"spacing and max_gap are more than 0 m, not {spacing} and {max_gap}")
    for row, line, distance, _ in tracks_by_parts(picks, columns):
        starts = (np.diff(line, prepend=-1) != 0) | (np.diff(distance, prepend=0.0) > max_gap)
        run = np.cumsum(starts) - 1
        distance = distance - distance[starts][run]
        # Rounded, not floored: picks that are evenly spaced already stay one by one.
        cell = np.floor(distance / spacing + 0.5)
        first = np.flatnonzero(starts | (np.diff(cell, prepend=-1) != 0))
        values = np.stack([means(picks[name].to_numpy(np.float64)[row], first) for name in columns])
        yield _interpolated(values, means(distance, first), run[first], line[starts], spacing)


def _interpolated(
    values: Values, distance: Values, run: Numbers, line: Numbers, spacing: float
) -> Samples:
    """Even samples, linear between values whose distances grow along each run."""
    begin = np.flatnonzero(np.diff(run, prepend=-1))
    end = np.append(begin[1:], run.size) - 1
    sizes = ((distance[end] - distance[begin]) / spacing + 1e-6).astype(np.intp) + 1
    first = np.cumsum(sizes) - sizes
    of = np.repeat(np.arange(sizes.size), sizes)
    at = distance[begin][of] + spacing * (np.arange(of.size) - first[of])
    # One axis for all runs, to find where a sample lies; how far between two values is reckoned
    # within its run, since sums of long distances lose digits.
    offset = np.cumsum(distance[end] + spacing) - distance[end]
    left = np.searchsorted(distance + offset[run], at + offset[of], "right") - 1
    left = np.clip(left, begin[of], np.maximum(end[of] - 1, begin[of]))
    right = np.minimum(left + 1, end[of])
    apart = distance[right] - distance[left]
    share = np.divide(at - distance[left], apart, out=np.zeros(of.size), where=apart > 0)
    share = np.clip(share, 0, 1)
    return Samples(values[:, left] * (1 - share) + values[:, right] * share, first, line)
