"""Relief and ice speed at each pick, by which scores are broken down into classes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from deepbedmap.evaluation.flight_lines import with_lines
from deepbedmap.evaluation.sampling import bands_of
from deepbedmap.points.roughness import FEWEST
from deepbedmap.points.tracks import means, stretches, tracks_by_parts

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd

    from deepbedmap.evaluation.sampling import Raster

_RELIEF = 5_000.0


def relief_along(points: pd.DataFrame, length: float = _RELIEF) -> npt.NDArray[np.float64]:
    """Return the relief around each pick: standard deviation of bed elevation along its line.

    Parameters
    ----------
    points
        Columns x, y, z in metres and line; without lines, squares replace the stretches.
    length
        Length of the stretches, or side of the squares, in metres.

    Returns
    -------
    numpy.ndarray
        float64 (n,) metres; NaN in stretches of fewer than three picks.

    Notes
    -----
    Relief is of the picks and not of a raster: in a bed or prior that is too smooth, rough places
    would count as smooth, and each of the compared beds would have classes of its own.

    Examples
    --------
    >>> import pandas as pd
    >>> x = [0.0, 100, 200, 9000]
    >>> relief_along(pd.DataFrame({"x": x, "y": 0.0, "z": [-3.0, 0, 3, 7], "line": "a"})).round(3)
    array([2.449, 2.449, 2.449,   nan])
    """
    named = with_lines(points)
    if named is None:
        return _relief_in_squares(points, length)
    z = named["z"].to_numpy(np.float64)
    relief = np.empty(len(points))
    for row, line, distance, _ in tracks_by_parts(named):
        first = stretches(line, distance, length)
        count = np.diff(first, append=line.size)
        deviation = z[row] - np.repeat(means(z[row], first), count)
        rough = np.where(count >= FEWEST, np.sqrt(means(deviation**2, first)), np.nan)
        relief[row] = np.repeat(rough, count)
    return relief


def _relief_in_squares(points: pd.DataFrame, length: float) -> npt.NDArray[np.float64]:
    # Two 32-bit column and row numbers in one 64-bit integer sort faster than pairs.
    places = [
        np.floor_divide(points[name].to_numpy(np.float64), length).astype(np.int32) for name in "xy"
    ]
    _, square = np.unique(
        places[0].astype(np.int64) << 32 | places[1].astype(np.int64) & 0xFFFFFFFF,
        return_inverse=True,
    )
    z = points["z"].to_numpy(np.float64)
    count = np.bincount(square)
    residual = z - (np.bincount(square, z) / count)[square]
    deviation = np.sqrt(np.bincount(square, residual**2) / count)
    return np.where(count >= FEWEST, deviation, np.nan)[square]


def speed_at(points: pd.DataFrame, velocity: Raster) -> npt.NDArray[np.float64]:
    """Return ice speed at picks, in the units of the velocity; NaN in its gaps.

    Parameters
    ----------
    points
        Columns x and y in metres.
    velocity
        Two bands, components along x and y; a NetCDF file with vx and vy; or one band of speed.
    """
    from deepbedmap import rasters

    if isinstance(velocity, str | os.PathLike):
        velocity = rasters.open_raster(velocity, rasters.velocity_components(velocity))
    rasters.require_reference("picks", points.attrs.get("crs"), None, velocity)
    x, y = (points[axis].to_numpy(np.float64) for axis in "xy")
    parts = [rasters.sample(band, x, y) for band in bands_of(velocity)[:2]]
    speed: npt.NDArray[np.float64] = np.hypot(*parts) if len(parts) == 2 else np.abs(parts[0])
    return speed
