"""Score a bed elevation grid against independent radar picks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deepbedmap.evaluation.flight_lines import with_lines
from deepbedmap.evaluation.sampling import open_bed, places_of, require_some, sample_bed
from deepbedmap.evaluation.scoring import REPLICATES, score
from deepbedmap.points.roughness import roughness_along

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt
    import pandas as pd

    from deepbedmap.evaluation.sampling import Raster
    from deepbedmap.evaluation.scoring import Scores


def evaluate(
    dem: Raster,
    points: pd.DataFrame,
    *,
    strata: Mapping[str, npt.ArrayLike] | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Scores:
    """Score a bed elevation grid against picks.

    Parameters
    ----------
    dem
        Bed elevation (y, x) in metres, or a raster file of it, whose layer ``bed`` is read;
        sampled bilinearly at each pick.
    points
        Columns x, y (in the grid's CRS), z (metres) and, for the roughness and the intervals, line;
        picks of a line are in the order in which they were flown. ``attrs["crs"]`` and
        ``attrs["vertical_datum"]`` are compared with the grid's.
    strata
        Values (n,) of the picks for scores by class: ``distance``, ``speed`` or ``relief``,
        in the classes of :data:`deepbedmap.evaluation.CLASSES`.
    replicates, seed
        Number of resamples of the flight lines, and seed of their random numbers: see
        :func:`deepbedmap.evaluation.score`.

    Raises
    ------
    InvalidDataError
        The two differ in CRS or vertical datum; the grid has no value at any pick; a pick is not
        finite; the file has no CRS or, unless it is NetCDF or Zarr, states no nodata value.

    Notes
    -----
    Only the parts of a file near picks are read. 10 million picks take about 1.4 GB.

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

    bed = open_bed(dem)
    crs, datum = points.attrs.get("crs"), points.attrs.get("vertical_datum")
    rasters.require_reference("picks", crs, datum, bed)
    x, y, _ = places_of(points)
    sampled = sample_bed(bed, x, y)
    covered = np.isfinite(sampled)
    require_some(covered, rasters.name_of(bed), bed)
    return score_at(points, sampled, covered, strata, replicates, seed)


def score_at(
    points: pd.DataFrame,
    sampled: npt.NDArray[np.float64],
    covered: npt.NDArray[np.bool_],
    strata: Mapping[str, npt.ArrayLike] | None,
    replicates: int,
    seed: int,
) -> Scores:
    """Score a grid at the picks (n,) that it covers; the sampled heights (n,) are in metres."""
    lines, stretches = None, None
    named = with_lines(points)
    if named is not None:
        lines = named["line"].cat.codes.to_numpy()
        rough = roughness_along(named.assign(grid=np.where(covered, sampled, np.nan)))
        stretches = tuple(
            rough["line"].cat.codes.to_numpy() if name == "line" else rough[name].to_numpy()
            for name in ("line", "grid", "z")
        )
        del rough
    whole = slice(None) if covered.all() else covered
    return score(
        sampled[whole],
        points["z"].to_numpy(np.float64)[whole],
        None if lines is None else lines[whole],
        stretches,  # type: ignore[arg-type]
        outside=int(covered.size - covered.sum()),
        strata={name: np.asarray(values)[whole] for name, values in (strata or {}).items()},
        replicates=replicates,
        seed=seed,
    )
