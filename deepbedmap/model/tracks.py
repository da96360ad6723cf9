"""Picks along the lines on which they were flown: their distances, and even samples of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from deepbedmap.errors import Fault, InvalidDataError

if TYPE_CHECKING:
    import pandas as pd

Values = npt.NDArray[np.float64]


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

    row: npt.NDArray[np.intp]
    line: npt.NDArray[np.intp]
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
    import pandas as pd
    import pyproj

    from deepbedmap.surveys import name_of, require_finite

    if missing := [name for name in ("line", *columns) if name not in picks]:
        raise ValueError(f"picks have columns line and {', '.join(columns)}; here is no {missing}")
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
    lines = pd.Categorical(picks["line"])
    line = lines.codes.astype(np.intp)
    known = line >= 0
    for column in columns:
        known &= np.isfinite(picks[column].to_numpy(np.float64))
    row = np.flatnonzero(known)
    if row.size == 0:
        raise InvalidDataError(
            Fault(
                name_of(picks),
                expected=f"picks of a line with {' and '.join(columns) or 'a place'}",
                found=f"none of {len(picks)}",
                remedy="check that grid and picks cover the same place",
            )
        )
    row = row[np.argsort(line[row], kind="stable")]
    line = line[row]
    x, y = (picks[name].to_numpy(np.float64)[row] for name in ("x", "y"))
    flown = np.cumsum(np.hypot(np.diff(x, prepend=x[0]), np.diff(y, prepend=y[0])))
    first = np.flatnonzero(np.diff(line, prepend=-1))
    distance = flown - np.repeat(flown[first], np.diff(first, append=line.size))
    return Tracks(row, line, distance, pd.Index(lines.categories.astype(str)))


def means(values: Values, first: npt.NDArray[np.intp]) -> Values:
    """Means along the last axis of the runs that begin at ``first``."""
    total: Values = np.add.reduceat(values, first, axis=-1)
    return total / np.diff(first, append=values.shape[-1])


def even_samples(
    picks: pd.DataFrame, columns: Sequence[str], spacing: float, max_gap: float
) -> Iterator[tuple[int, Values]]:
    """Sample values at equal distances along each line.

    A line is cut where consecutive picks are further apart than ``max_gap``. Along each part the
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
    line : int
        Number of the line, as :class:`Tracks` has it.
    values : numpy.ndarray
        float64 (columns, samples), one sample or more.
    """
    if not (spacing > 0 and max_gap > 0):
        raise ValueError(f"spacing and max_gap are more than 0 m, not {spacing} and {max_gap}")
    row, line, distance, _ = tracks(picks, columns)
    values = np.stack([picks[column].to_numpy(np.float64)[row] for column in columns])
    starts = (np.diff(line, prepend=-1) != 0) | (np.diff(distance, prepend=0.0) > max_gap)
    part = np.cumsum(starts) - 1
    distance = distance - distance[starts][part]
    # Rounded, not floored: picks that are evenly spaced already stay one by one.
    cell = np.floor(distance / spacing + 0.5)
    first = np.flatnonzero(starts | (np.diff(cell, prepend=-1) != 0))
    values, distance, part, line = (
        means(values, first),
        means(distance, first),
        part[first],
        line[first],
    )
    edges = np.flatnonzero(np.diff(part, prepend=-1))
    for begin, end in zip(edges, [*edges[1:], part.size], strict=True):
        along = distance[begin:end]
        at = along[0] + spacing * np.arange(int((along[-1] - along[0]) / spacing + 1e-6) + 1)
        yield int(line[begin]), np.stack([np.interp(at, along, v[begin:end]) for v in values])
