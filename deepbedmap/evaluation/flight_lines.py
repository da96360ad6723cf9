"""The flight lines that picks belong to, numbered without gaps.

Lines are the units of the bootstrap: errors along one line are correlated, errors of two
lines much less so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from typing import Any

    import pandas as pd


def with_lines(points: pd.DataFrame) -> pd.DataFrame | None:
    """Return x, y, z and lines of picks; one name in two surveys is two lines.

    The column ``line`` is a category. None if the picks have no lines.
    """
    import pandas as pd

    if "line" not in points or points["line"].isna().any():
        return None
    line = pd.Categorical(points["line"])
    if "source" in points and (points["source"] != points["source"].iloc[0]).any():
        survey = pd.Categorical(points["source"])
        codes = survey.codes.astype(np.int64) * len(line.categories) + line.codes
        number, names = numbered(codes)
        line = pd.Categorical.from_codes(number, pd.RangeIndex(names.size))
    columns = {name: points[name] for name in ("x", "y", "z")}
    named = pd.DataFrame({**columns, "line": pd.Series(line, points.index)}, copy=False)
    named.attrs = {key: value for key, value in points.attrs.items() if key == "crs"}
    return named


Numbers = npt.NDArray[np.int32]


def numbered(lines: npt.NDArray[Any]) -> tuple[Numbers, npt.NDArray[Any]]:
    """Number the lines of picks (n,) from 0 without gaps; return numbers and names (lines,)."""
    if lines.dtype.kind not in "iu" or lines.min() < 0 or lines.max() > lines.size:
        names, number = np.unique(lines, return_inverse=True)
        return number.astype(np.int32), names
    present = np.bincount(lines) > 0  # codes of a category: no need to sort
    return (np.cumsum(present, dtype=np.int32) - 1)[lines], np.flatnonzero(present)
