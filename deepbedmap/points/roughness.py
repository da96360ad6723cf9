"""Bed roughness along flight lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deepbedmap.errors import WrongCallError
from deepbedmap.points.tracks import means, stretches, tracks_by_parts

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

STRETCH = 1_250.0
"""Length (m) of the stretches of a line whose standard deviation is the roughness."""

FEWEST = 3
"""Least number of picks in a stretch for which roughness is computed."""


def roughness_along(
    picks: pd.DataFrame, columns: Sequence[str] = ("z", "grid"), length: float = STRETCH
) -> pd.DataFrame:
    """Compute roughness along lines: the standard deviation of elevation within stretches.

    Each line is cut into stretches of equal length, starting at its first pick; stretches with
    fewer than :data:`FEWEST` picks are left out. No trend is removed, so that a slope counts as
    roughness.

    Parameters
    ----------
    picks
        Columns ``x``, ``y``, ``line`` and those of elevation (metres), as
        :func:`deepbedmap.points.tracks.tracks` takes them.
    columns
        Columns of elevation: by default the picks' own and those of a grid sampled there. Picks at
        which one of them is NaN are left out.
    length
        Length of a stretch in metres, more than 0.

    Returns
    -------
    pandas.DataFrame
        One row per stretch, by line: ``line`` (category), ``distance`` from the line's first pick,
        ``x``, ``y`` (means over its picks, metres), ``picks`` (their number), and for each of
        ``columns`` the standard deviation (ddof 0, metres).

    Raises
    ------
    ValueError
        There is no column ``line``, or none of ``columns``; or the length is not positive.
    InvalidDataError
        The CRS (``attrs["crs"]``) is in degrees; a coordinate is not finite; or no pick is left.

    Examples
    --------
    >>> import pandas as pd
    >>> x = 250.0 * np.arange(10)
    >>> picks = pd.DataFrame({"x": x, "y": 0.0, "line": "a", "z": 0.02 * x, "grid": 0.01 * x})
    >>> roughness_along(picks)[["distance", "picks", "z", "grid"]].round(2)
       distance  picks     z  grid
    0     500.0      5  7.07  3.54
    1    1750.0      5  7.07  3.54
    """
    import pandas as pd

    if not length > 0:
        raise WrongCallError(f"the length of a stretch must be more than 0 m, not {length}")
    tables = []
    for row, line, distance, names in tracks_by_parts(picks, columns):
        first = stretches(line, distance, length)
        count = np.diff(first, append=line.size)
        position = {name: picks[name].to_numpy(np.float64)[row] for name in ("x", "y")}
        table = {
            "line": pd.Categorical.from_codes(line[first], names),
            "distance": means(distance, first),
            **{name: means(values, first) for name, values in position.items()},
            "picks": count,
        }
        for column in columns:
            elevation = picks[column].to_numpy(np.float64)[row]
            deviation = elevation - np.repeat(means(elevation, first), count)
            table[column] = np.sqrt(means(deviation**2, first))
        tables.append(pd.DataFrame(table)[count >= FEWEST])
    return pd.concat(tables, ignore_index=True)
