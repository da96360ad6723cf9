"""How far a bed elevation grid is from radar picks that it has never seen."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deepbedmap.errors import Fault, InvalidDataError

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

STRETCH = 1_250.0
"""Length (m) of the stretches of a line within which roughness is the standard deviation."""


@dataclass(frozen=True)
class Scores:
    """Differences between a bed elevation grid and picks, grid minus pick, in metres.

    Attributes
    ----------
    rmse, mae, bias
        Root mean square, mean absolute and mean difference.
    roughness_ratio
        Standard deviation of elevation within stretches of 1.25 km of a line, mean over the
        stretches: that of the grid, sampled at the picks, over that of the picks themselves. One
        is as rough as the survey, whose noise counts as roughness. NaN where no line has a
        stretch of three picks, the picks are all level, or have no lines.
    picks
        Picks that were compared.
    outside
        Picks that were not, because the grid has no value there.
    """

    rmse: float
    mae: float
    bias: float
    roughness_ratio: float
    picks: int
    outside: int


def evaluate(dem: xr.DataArray | str | os.PathLike[str], points: pd.DataFrame) -> Scores:
    """Score a bed elevation grid against picks.

    Parameters
    ----------
    dem
        Bed elevation (y, x) in metres, or the raster file that holds it; sampled bilinearly at
        each pick.
    points
        Columns x, y (in the grid's CRS), z (metres) and, for the roughness, line; picks of a
        line stand in the order in which they were flown. ``attrs["crs"]`` and
        ``attrs["vertical_datum"]`` are compared with the grid's.

    Raises
    ------
    InvalidDataError
        The two differ in CRS or vertical datum; no pick lies where the grid has a value; a pick
        is not finite.

    Examples
    --------
    >>> import pandas as pd, xarray as xr
    >>> x = np.arange(125.0, 10_000, 250)
    >>> plane = xr.DataArray(0.01 * x + 0 * x[:, None], {"y": x, "x": x}).rio.write_crs(3031)
    >>> picks = pd.DataFrame({"x": x, "y": x, "z": 0.01 * x - 2, "line": "a"})
    >>> scores = evaluate(plane, picks)
    >>> round(scores.bias, 6), round(scores.rmse, 6), round(scores.roughness_ratio, 6), scores.picks
    (2.0, 2.0, 1.0, 40)
    """
    from deepbedmap import rasters

    if isinstance(dem, str | os.PathLike):
        dem = rasters.open_raster(dem)
    attributes = points.attrs
    rasters.require_reference("picks", attributes.get("crs"), attributes.get("vertical_datum"), dem)
    x, y, z = (points[column].to_numpy(float) for column in ("x", "y", "z"))
    if not all(np.isfinite(values).all() for values in (x, y, z)):
        raise InvalidDataError(
            Fault("picks", expected="finite x, y and z", found="NaN or infinity", remedy="drop it")
        )
    sampled = rasters.sample(dem, x, y)
    known = np.isfinite(sampled)
    if not known.any():
        raise InvalidDataError(
            Fault(
                rasters.name_of(dem),
                expected="values at the picks",
                found=f"none at any of {len(points)}; the grid's bounds are "
                f"{rasters.bounds_of(dem)}",
                remedy="check that grid and picks cover the same place",
            )
        )
    difference = sampled[known] - z[known]
    ratio = float("nan")
    if "line" in points:
        ratio = _roughness_ratio(points.assign(grid=sampled)[known])
    return Scores(
        rmse=float(np.sqrt(np.mean(difference**2))),
        mae=float(np.mean(np.abs(difference))),
        bias=float(np.mean(difference)),
        roughness_ratio=ratio,
        picks=int(known.sum()),
        outside=int((~known).sum()),
    )


def _roughness_ratio(picks: pd.DataFrame) -> float:
    picks = picks.assign(line=picks["line"].astype("category").cat.codes)
    picks = picks.sort_values("line", kind="stable")
    moved = picks.groupby("line")[["x", "y"]].diff().fillna(0)
    picks["along"] = (moved["x"] ** 2 + moved["y"] ** 2) ** 0.5
    along = picks.groupby("line")["along"].cumsum()
    stretches = picks.groupby(["line", along.floordiv(STRETCH).rename("stretch")])
    deviation = stretches[["grid", "z"]].std(ddof=0)[stretches.size() >= 3].mean()
    return float(deviation["grid"] / deviation["z"]) if deviation["z"] > 0 else float("nan")
