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
"""Length (m) of the stretches of a line within which roughness is the standard deviation."""

FEWEST = 3
"""Picks that a stretch needs to have a roughness."""


def roughness_along(
    picks: pd.DataFrame, columns: Sequence[str] = ("z", "grid"), length: float = STRETCH
) -> pd.DataFrame:
    """Roughness along lines: standard deviation of elevation within stretches.

    Each line is cut into stretches of one length from its first pick on; stretches with fewer than
    :data:`FEWEST` picks are left out. No trend is taken off, so that a slope is rough.

    Parameters
    ----------
    picks
        Columns ``x``, ``y``, ``line`` and those of elevation (metres), as
        :func:`deepbedmap.points.tracks.tracks` takes them.
    columns
        Elevations: by default those of the picks and of a grid sampled there. Picks at which one
        of them is NaN are left out.
    length
        Of a stretch, metres.

    Returns
    -------
    pandas.DataFrame
        One row a stretch, by line: ``line`` (category), ``distance`` from the line's first pick,
        ``x``, ``y`` (means over its picks, metres), ``picks``, and for each of ``columns`` the
        standard deviation (ddof 0, metres).

    Raises
    ------
    ValueError, InvalidDataError
        As :func:`deepbedmap.points.tracks.tracks`.

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
        raise WrongCallError(f"a stretch is longer than 0 m, and not {length}")
    tables = []
    for row, line, distance, names in tracks_by_parts(picks, columns):
        first = stretches(line, distance, length)
        count = np.diff(first, append=line.size)
        places = {name: picks[name].to_numpy(np.float64)[row] for name in ("x", "y")}
        table = {
            "line": pd.Categorical.from_codes(line[first], names),
            "distance": means(distance, first),
            **{name: means(values, first) for name, values in places.items()},
            "picks": count,
        }
        for column in columns:
            elevation = picks[column].to_numpy(np.float64)[row]
            deviation = elevation - np.repeat(means(elevation, first), count)
            table[column] = np.sqrt(means(deviation**2, first))
        tables.append(pd.DataFrame(table)[count >= FEWEST])
    return pd.concat(tables, ignore_index=True)
