"""Picks along their flight lines: along-track distance, and evenly spaced samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from deepbedmap.errors import Fault, InvalidDataError, WrongCallError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd

Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.intp]
AT_ONCE = 500_000
"""Picks, of whole lines, that are processed together: this bounds memory."""


class Tracks(NamedTuple):
    """Picks by line, and within each line in the order in which they were flown.

    Attributes
    ----------
    row
        int (n,): row of each pick in the table.
    line
        int (n,): its line, as an index into ``names``.
    distance
        float64 (n,): distance along the line from its first pick, in metres on the map, in a
        straight line from each remaining pick to the next.
    names
        Names of all lines, lines without a pick included.
    """

    row: Numbers
    line: Numbers
    distance: Floats
    names: pd.Index[str]


def tracks(picks: pd.DataFrame, columns: Sequence[str] = ()) -> Tracks:
    """Compute the distance of picks along their flight lines.

    Parameters
    ----------
    picks
        Columns ``x``, ``y`` (metres) and ``line``; the picks of a line are in the order in which
        they were flown, and lines may be interleaved.
    columns
        Columns in which a value is required: picks at which one of them is NaN are left out, and
        so are picks without a line.

    Returns
    -------
    Tracks
        The picks that remain, by line.

    Raises
    ------
    ValueError
        There is no column ``line``, or one of ``columns`` is missing.
    InvalidDataError
        The CRS (``attrs["crs"]``) is in degrees; a coordinate is not finite; or no pick is left.

    Examples
    --------
    >>> import pandas as pd
    >>> picks = pd.DataFrame({"x": [0.0, 9, 3, 9], "y": [0.0, 0, 4, 1], "line": list("abab")})
    >>> tracks(picks).distance
    array([0., 5., 0., 1.])
    """
    (whole,) = tracks_by_parts(picks, columns, len(picks))
    return whole


def tracks_by_parts(
    picks: pd.DataFrame, columns: Sequence[str] = (), at_once: int | None = None
) -> Iterator[Tracks]:
    """Compute the distance of picks along their flight lines, a few whole lines at a time.

    Parameters
    ----------
    picks, columns
        As in :func:`tracks`, with the same errors, which are raised before the first part.
    at_once
        Number of picks in a part, exceeded by at most one line; :data:`AT_ONCE` by default.

    Yields
    ------
    Tracks
        The next lines of the table; rows are numbered in the whole table.
    """
    import pandas as pd

    _require_lines(picks, columns)
    lines = pd.Categorical(picks["line"])
    usable = lines.codes >= 0
    for column in columns:
        usable &= np.isfinite(picks[column].to_numpy(np.float64))
    if not usable.any():
        from deepbedmap.points.combining import name_of

        raise InvalidDataError(
            Fault(
                name_of(picks),
                expected=f"picks of a line with {' and '.join(columns) or 'a position'}",
                found=f"none of {len(picks)}",
                remedy="check that grid and picks cover the same area",
            )
        )
    x, y = (picks[name].to_numpy(np.float64) for name in ("x", "y"))
    names = pd.Index(lines.categories.astype(str))
    sizes = np.bincount(lines.codes[usable], minlength=len(names))
    part = (np.cumsum(sizes) - sizes) // (AT_ONCE if at_once is None else max(1, at_once))
    for number in np.unique(part[sizes > 0]):
        first, last = np.searchsorted(part, number), np.searchsorted(part, number, "right")
        row = np.flatnonzero(usable & (lines.codes >= first) & (lines.codes < last))
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
        raise WrongCallError(f"picks need a column {' and a column '.join(missing)}")
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


def stretches(line: Numbers, distance: Floats, length: float) -> Numbers:
    """Return the first pick of each stretch (k,) of lines cut into stretches of equal length."""
    stretch = np.floor_divide(distance, length)
    return np.flatnonzero((np.diff(line, prepend=-1) != 0) | (np.diff(stretch, prepend=-1) != 0))


def means(values: Floats, first: npt.NDArray[np.intp]) -> Floats:
    """Return the mean along the last axis of each run; runs begin at the indices ``first``."""
    total: Floats = np.add.reduceat(values, first, axis=-1)
    return total / np.diff(first, append=values.shape[-1])


class Samples(NamedTuple):
    """Values at equal distances along runs; a run is a part of a line without a gap.

    Attributes
    ----------
    series
        float64 (columns, n).
    first
        int (runs,): index of the first sample of each run.
    line
        int (runs,): the line of each run, as in :class:`Tracks`.
    """

    series: Floats
    first: Numbers
    line: Numbers

    @property
    def sizes(self) -> Numbers:
        """Number of samples in each run (runs,), one or more."""
        return np.diff(self.first, append=self.series.shape[1])


def even_samples(
    picks: pd.DataFrame, columns: Sequence[str], spacing: float, max_gap: float
) -> Iterator[Samples]:
    """Sample values at equal distances along each line.

    A line is cut where consecutive picks are further apart than ``max_gap``. Along each run the
    picks are averaged within ``spacing``, so that wavelengths shorter than two samples are not
    aliased into longer ones, and interpolated linearly between these means.

    Parameters
    ----------
    picks, columns
        As in :func:`tracks`, with the same errors.
    spacing, max_gap
        Metres, more than 0.

    Yields
    ------
    Samples
        The next whole lines, as in :func:`tracks_by_parts`.

    Examples
    --------
    >>> import pandas as pd
    >>> picks = pd.DataFrame({"x": [0.0, 100, 300], "y": 0.0, "line": "a", "z": [0.0, 10, 30]})
    >>> next(even_samples(picks, ["z"], spacing=50, max_gap=1000)).series
    array([[ 0.,  5., 10., 15., 20., 25., 30.]])
    """
    if not (spacing > 0 and max_gap > 0):
        raise WrongCallError(
            f"spacing and max_gap must be more than 0 m, not {spacing} and {max_gap}"
        )
    for row, line, distance, _ in tracks_by_parts(picks, columns):
        starts = (np.diff(line, prepend=-1) != 0) | (np.diff(distance, prepend=0.0) > max_gap)
        run = np.cumsum(starts) - 1
        distance = distance - distance[starts][run]
        # Rounded, not floored: picks already evenly spaced then fall into one cell each, whatever
        # rounding does to their distances.
        cell = np.floor(distance / spacing + 0.5)
        first = np.flatnonzero(starts | (np.diff(cell, prepend=-1) != 0))
        values = np.stack([means(picks[name].to_numpy(np.float64)[row], first) for name in columns])
        yield _interpolated(values, means(distance, first), run[first], line[starts], spacing)


def _interpolated(
    values: Floats, distance: Floats, run: Numbers, line: Numbers, spacing: float
) -> Samples:
    """Interpolate evenly spaced samples between values whose distances increase along each run."""
    begin = np.flatnonzero(np.diff(run, prepend=-1))
    end = np.append(begin[1:], run.size) - 1
    sizes = ((distance[end] - distance[begin]) / spacing + 1e-6).astype(np.intp) + 1
    first = np.cumsum(sizes) - sizes
    of = np.repeat(np.arange(sizes.size), sizes)
    at = distance[begin][of] + spacing * (np.arange(of.size) - first[of])
    # All runs are placed one after the other on one axis, so that a single search finds the values
    # to the left of all samples. The weights come from distances within the run, since the sums
    # over many runs have lost digits.
    offset = np.cumsum(distance[end] + spacing) - distance[end]
    left = np.searchsorted(distance + offset[run], at + offset[of], "right") - 1
    left = np.clip(left, begin[of], np.maximum(end[of] - 1, begin[of]))
    right = np.minimum(left + 1, end[of])
    apart = distance[right] - distance[left]
    share = np.divide(at - distance[left], apart, out=np.zeros(of.size), where=apart > 0)
    share = np.clip(share, 0, 1)
    return Samples(values[:, left] * (1 - share) + values[:, right] * share, first, line)
