"""Mass conservation of the ice above a bed: the residual and its statistics."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deepbedmap.errors import Fault, InvalidDataError, WrongCallError
from deepbedmap.evaluation.flux import mass_residual, require_polar
from deepbedmap.evaluation.sampling import open_bed

if TYPE_CHECKING:
    import numpy.typing as npt
    import xarray as xr

    from deepbedmap.evaluation.sampling import Raster
    from deepbedmap.places import Bounds
    from deepbedmap.points.tracks import Floats

_CLASS = 0.01  # m/a: width of the classes from which median and MAD are read
_REACH = 500.0  # m/a: residuals beyond this are counted in the last class


def bed_residual(
    bed: xr.DataArray,
    surface: xr.DataArray,
    velocity: xr.DataArray,
    balance: xr.DataArray,
    *,
    gamma: float = 1.0,
) -> xr.DataArray:
    """Return the residual of mass conservation of the ice above a bed, on the cells of the bed.

    Parameters
    ----------
    bed
        Bed elevation (y, x), metres; EPSG:3031. The residual is computed on its cells.
    surface
        Elevation (y, x) of the ice surface, metres above the same datum. Surface less bed counts as
        ice, so subtract the air in firn first.
    velocity
        Surface velocity (band, y, x) in m a-1, as for :func:`mass_residual`.
    balance
        SMB - BMB - dH/dt (y, x), in the units of a surface balance in :func:`mass_residual`.
    gamma
        Ratio of depth-mean to surface velocity, in (0, 1].

    Returns
    -------
    xarray.DataArray
        float32 (y, x), metres of ice per year, as for :func:`mass_residual`; lazy. The inputs are
        interpolated linearly; NaN where there is no ice.

    Raises
    ------
    InvalidDataError
        As for :func:`mass_residual`; bed and surface are above different datums; an input does not
        overlap the bed.
    ValueError
        As for :func:`mass_residual`.
    """
    import xarray as xr

    from deepbedmap import products, rasters

    if rasters.band_count(velocity) != 2:
        raise WrongCallError(
            f"velocity: expected 2 bands, along x and y, found dimensions {velocity.dims}"
        )
    for name, raster in (("surface", surface), ("balance", balance)):
        if rasters.band_count(raster) != 1:
            raise WrongCallError(f"{name}: expected 1 band, found dimensions {raster.dims}")
    rasters.require_same_reference(bed, surface)
    bed = rasters.north_up(bed)
    require_polar(bed)
    crs = rasters.require_crs(bed)
    bed = bed if bed.chunks else rasters.chunked(bed)

    def placed(raster: xr.DataArray) -> xr.DataArray:
        cells: xr.DataArray = products.placed(raster, bed).rio.write_crs(crs)
        cells.encoding = {"source": rasters.name_of(raster)}
        return cells.assign_attrs(
            {key: raster.attrs[key] for key in raster.attrs if key == "units"}
        )

    thickness = placed(surface) - bed
    components = [
        placed(velocity.isel({velocity.dims[0]: number}, drop=True)) for number in range(2)
    ]
    return mass_residual(
        thickness.where(thickness > 0).rio.write_crs(crs),
        xr.concat(components, "band").rio.write_crs(crs),
        placed(balance),
        gamma=gamma,
    )


@dataclass(frozen=True)
class MassStatistics:
    """Statistics of a residual of mass conservation, in metres of ice per year.

    Attributes
    ----------
    cells
        Number of cells with a residual.
    mean, rms
        Mean and root mean square.
    median, mad
        Median, and median absolute deviation from it, to 0.01 m a-1 within 500 m a-1.
    share_large
        Share of the cells whose absolute residual exceeds ``large``, 0 to 1.
    large
        Limit of a large residual.
    gamma
        Ratio of depth-mean to surface velocity behind the residual, if it states one.
    """

    cells: int
    mean: float
    rms: float
    median: float
    mad: float
    share_large: float
    large: float
    gamma: float | None = None


def mass_statistics(residual: xr.DataArray, large: float = 10.0) -> MassStatistics:
    """Return statistics of a map of residuals, read once and chunk by chunk.

    Parameters
    ----------
    residual
        Residual (y, x) in metres of ice per year, by :func:`mass_residual`; NaN where unknown.
    large
        Limit of a large residual, metres of ice per year.

    Raises
    ------
    InvalidDataError
        No cell has a residual.

    Examples
    --------
    >>> import xarray as xr
    >>> stats = mass_statistics(xr.DataArray([[1.0, -1.0, 2.0, 30.0, np.nan]], dims=("y", "x")))
    >>> stats.cells, stats.mean, stats.median, stats.mad, stats.share_large
    (4, 8.0, 1.0, 1.0, 0.25)
    """
    import dask.array
    from dask.base import compute

    values = (residual if residual.chunks else residual.chunk()).astype(np.float64)
    classes = 2 * round(_REACH / _CLASS) + 1  # zero is in the middle of one
    edge = _CLASS * classes / 2
    counts, _ = dask.array.histogram(  # type: ignore[no-untyped-call]
        values.clip(-_REACH, _REACH).data, bins=classes, range=(-edge, edge)
    )
    of_each = (values.count(), values.mean(), (values**2).mean(), (abs(values) > large).sum())
    cells, mean, square, beyond, histogram = compute(  # type: ignore[no-untyped-call]
        *of_each, counts
    )
    if cells == 0:
        raise InvalidDataError(
            Fault(
                str(residual.name or "residual"),
                expected="cells where thickness, velocity and balance are known",
                found="none",
                remedy="check that they cover the same area",
            )
        )
    middles = _CLASS * (np.arange(classes, dtype=np.float64) - classes // 2)
    median = _weighted_median(middles, histogram)
    return MassStatistics(
        cells=int(cells),
        mean=float(mean),
        rms=float(np.sqrt(square)),
        median=median,
        mad=_weighted_median(np.abs(middles - median), histogram),
        share_large=float(beyond / cells),
        large=large,
        gamma=residual.attrs.get("gamma"),
    )


def _weighted_median(values: Floats, weights: npt.NDArray[np.int64]) -> float:
    order = np.argsort(values, kind="stable")
    through = np.cumsum(weights[order])
    return float(round(values[order][np.searchsorted(through, through[-1] / 2)], 6))


def conserve(
    dem: Raster,
    surface: Raster,
    velocity: Raster,
    balance: Raster,
    *,
    gamma: float = 1.0,
    bounds: Bounds | None = None,
    path: str | os.PathLike[str] | None = None,
) -> MassStatistics:
    """Return statistics of the residual of mass conservation of the ice above a bed.

    Parameters
    ----------
    dem
        Bed elevation (y, x) in metres, EPSG:3031, or a raster file of it, as for
        :func:`deepbedmap.evaluation.evaluate`.
    surface, velocity, balance, gamma
        Inputs of :func:`deepbedmap.evaluation.bed_residual`, or files of them.
    bounds
        Box (xmin, ymin, xmax, ymax) in metres to which the bed is cut.
    path
        GeoTIFF to which the map of the residual is written.

    Raises
    ------
    InvalidDataError
        As for :func:`deepbedmap.evaluation.bed_residual`; no cell has a residual.
    """
    from deepbedmap import rasters

    if isinstance(velocity, str | os.PathLike):
        velocity = rasters.open_raster(velocity, rasters.velocity_components(velocity))
    bed = rasters.north_up(open_bed(dem))
    if bounds is not None:
        xmin, ymin, xmax, ymax = bounds
        bed = bed.sel(x=slice(xmin, xmax), y=slice(ymax, ymin))
        if not bed.size:
            found = f"bounds {rasters.bounds_of(open_bed(dem))}"
            fault = Fault(rasters.name_of(bed), expected=f"cells within {bounds}", found=found)
            raise InvalidDataError(fault)
    above, gained = (
        rasters.open_raster(each) if isinstance(each, str | os.PathLike) else each
        for each in (surface, balance)
    )
    residual = bed_residual(bed, above, velocity, gained, gamma=gamma)
    if path is None:
        return mass_statistics(residual)
    written = rasters.chunked(rasters.open_raster(rasters.write_cog(residual, path)))
    return mass_statistics(written.assign_attrs(gamma=gamma))
