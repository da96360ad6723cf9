"""How far a bed elevation grid is from radar picks that it has never seen."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from deepbedmap.errors import Fault, InvalidDataError
from deepbedmap.model.roughness import FEWEST, STRETCH, roughness_along
from deepbedmap.model.scores import REPLICATES, Scores, numbered, score
from deepbedmap.model.tracks import means, stretches, tracks_by_parts

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from deepbedmap.rasters import Method

    Raster: TypeAlias = "xr.DataArray | str | os.PathLike[str]"

__all__ = ["STRETCH", "Scores", "evaluate"]

_RELIEF = 5_000.0
_BEDS = ("bed", "bed_topography", "z")
_MEMBERS = "bed_members"


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
        Bed elevation (y, x) in metres, or the raster file that holds it, of whose layers ``bed`` is
        taken; sampled bilinearly at each pick.
    points
        Columns x, y (in the grid's CRS), z (metres) and, for the roughness and the intervals, line;
        picks of a line stand in the order in which they were flown. ``attrs["crs"]`` and
        ``attrs["vertical_datum"]`` are compared with the grid's.
    strata
        Values of each pick by which scores are told apart: ``distance``, ``speed`` or ``relief``,
        in the classes of :data:`deepbedmap.model.scores.CLASSES`.
    replicates, seed
        Of the bootstrap over flight lines: see :func:`deepbedmap.model.scores.score`.

    Raises
    ------
    InvalidDataError
        The two differ in CRS or vertical datum; no pick lies where the grid has a value; a pick
        is not finite; the file has no CRS or, being no NetCDF or Zarr, states no nodata.

    Notes
    -----
    A file is read in parts, where there are picks. 10 million picks take about 1.4 GB.

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
    said = points.attrs
    rasters.require_reference("picks", said.get("crs"), said.get("vertical_datum"), bed)
    x, y, _ = places_of(points)
    sampled = sample_bed(bed, x, y)
    known = np.isfinite(sampled)
    require_some(known, rasters.name_of(bed), bed)
    return score_at(points, sampled, known, strata, replicates, seed)


def places_of(points: pd.DataFrame) -> list[npt.NDArray[np.float64]]:
    """Columns x, y and z of picks, all of them finite."""
    places = [points[column].to_numpy(np.float64) for column in ("x", "y", "z")]
    if not len(points):
        raise InvalidDataError(
            Fault("picks", expected="some", found="none", remedy="choose others, or a larger box")
        )
    if not all(np.isfinite(values).all() for values in places):
        raise InvalidDataError(
            Fault("picks", expected="finite x, y and z", found="NaN or infinity", remedy="drop it")
        )
    return places


def sample_bed(
    bed: xr.DataArray,
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
    method: Method = "linear",
) -> npt.NDArray[np.float64]:
    """Sample a bed at places, as :func:`deepbedmap.rasters.sample`; say where it cannot be read."""
    from deepbedmap import rasters

    try:
        return rasters.sample(bed, x, y, method)
    except OSError as error:
        raise InvalidDataError(
            Fault(
                rasters.name_of(bed),
                expected="cells that can be read",
                found=f"some that cannot ({error.__cause__ or error})",
                remedy="get or make the file again",
            )
        ) from error


def require_some(known: npt.NDArray[np.bool_], name: str, bed: xr.DataArray) -> None:
    """Refuse a bed that has no value at any of the picks."""
    from deepbedmap import rasters

    if not known.any():
        raise InvalidDataError(
            Fault(
                name,
                expected="values at the picks",
                found=f"none at any of {known.size}; the grid's bounds are "
                f"{rasters.bounds_of(bed)}",
                remedy="check that grid and picks cover the same place",
            )
        )


def score_at(
    points: pd.DataFrame,
    sampled: npt.NDArray[np.float64],
    known: npt.NDArray[np.bool_],
    strata: Mapping[str, npt.ArrayLike] | None,
    replicates: int,
    seed: int,
) -> Scores:
    """Score what a grid says at the picks that are known."""
    lines, stretches = None, None
    named = with_lines(points)
    if named is not None:
        lines = named["line"].cat.codes.to_numpy()
        rough = roughness_along(named.assign(grid=np.where(known, sampled, np.nan)))
        stretches = tuple(
            rough["line"].cat.codes.to_numpy() if name == "line" else rough[name].to_numpy()
            for name in ("line", "grid", "z")
        )
        del rough
    whole = slice(None) if known.all() else known
    return score(
        sampled[whole],
        points["z"].to_numpy(np.float64)[whole],
        None if lines is None else lines[whole],
        stretches,  # type: ignore[arg-type]
        outside=int(known.size - known.sum()),
        strata={name: np.asarray(values)[whole] for name, values in (strata or {}).items()},
        replicates=replicates,
        seed=seed,
    )


def with_lines(points: pd.DataFrame) -> pd.DataFrame | None:
    """Places of picks with a category of lines: of one name from two surveys they are two."""
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


def relief_along(points: pd.DataFrame, length: float = _RELIEF) -> npt.NDArray[np.float64]:
    """Relief around each pick: standard deviation of the picks in stretches of its line.

    Parameters
    ----------
    points
        Columns x, y, z in metres and line; without lines, squares take the place of stretches.
    length
        Of the stretches, or a side of the squares, in metres.

    Returns
    -------
    numpy.ndarray
        float64 (n,) metres; NaN in stretches of fewer than three picks.

    Notes
    -----
    Of the picks and not of a raster: a bed, or a prior, that is too smooth would call rough places
    smooth, and each bed that is compared would have classes of its own.

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
    places = [
        np.floor_divide(points[name].to_numpy(np.float64), length).astype(np.int32) for name in "xy"
    ]
    _, square = np.unique(
        places[0].astype(np.int64) << 32 | places[1].astype(np.int64) & 0xFFFFFFFF,
        return_inverse=True,
    )
    z = points["z"].to_numpy(np.float64)
    count = np.bincount(square)
    off = z - (np.bincount(square, z) / count)[square]
    deviation = np.sqrt(np.bincount(square, off**2) / count)
    return np.where(count >= FEWEST, deviation, np.nan)[square]


def speed_at(points: pd.DataFrame, velocity: Raster) -> npt.NDArray[np.float64]:
    """Ice speed at picks, in the units of the velocity; NaN where that has a gap.

    Parameters
    ----------
    points
        Columns x and y in metres.
    velocity
        Two bands, of components along x and y; a NetCDF file with vx and vy; or one band of speed.
    """
    from deepbedmap import rasters

    if isinstance(velocity, str | os.PathLike):
        velocity = rasters.open_raster(velocity, rasters.velocity_components(velocity))
    rasters.require_reference("picks", points.attrs.get("crs"), None, velocity)
    x, y = (points[axis].to_numpy(np.float64) for axis in "xy")
    parts = [rasters.sample(band, x, y) for band in _each(velocity)[:2]]
    speed: npt.NDArray[np.float64] = np.hypot(*parts) if len(parts) == 2 else np.abs(parts[0])
    return speed


def open_bed(dem: Raster) -> xr.DataArray:
    """Open the bed of a product, a grid or any raster file of one; see :func:`evaluate`."""
    from deepbedmap import rasters

    if not isinstance(dem, str | os.PathLike):
        return dem
    names = _layers(Path(dem))
    variable = next((name for name in _BEDS if name in names), None)
    bed = rasters.open_raster(dem, variable, bands=1 if not names else None)
    if not names and bed.rio.encoded_nodata is None and bed.rio.nodata is None:
        raise InvalidDataError(
            Fault(
                str(dem),
                field="nodata",
                expected="a value that marks a missing one",
                found="none, so that gaps cannot be told from beds",
                remedy="state it: gdal_edit.py -a_nodata VALUE",
            )
        )
    return bed


def open_members(dem: Raster) -> list[xr.DataArray]:
    """Open the members of an ensemble that a product holds; none where it holds none."""
    from deepbedmap import rasters

    if not isinstance(dem, str | os.PathLike) or _MEMBERS not in _layers(Path(dem)):
        return []
    members = rasters.open_raster(dem, _MEMBERS)
    return _each(members)


def _each(raster: xr.DataArray) -> list[xr.DataArray]:
    """The bands of a raster."""
    if raster.ndim == 2:
        return [raster]
    dim = raster.dims[0]
    return [raster.isel({dim: number}, drop=True) for number in range(raster.sizes[dim])]


def _layers(path: Path) -> set[str]:
    """Names of the variables of a NetCDF or Zarr product; none of other files."""
    if path.is_dir():
        import zarr

        try:
            return {name for name, _ in zarr.open_group(path, mode="r").arrays()}
        except (OSError, ValueError, KeyError):
            return set()  # open_raster says what is wrong with it
    if path.suffix.lower() in (".nc", ".nc4", ".h5") and path.is_file():
        import h5netcdf

        try:
            with h5netcdf.File(path) as file:
                return set(file.variables)
        except (OSError, ValueError):
            return set()
    return set()
