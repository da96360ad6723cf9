"""Flux divergence of ice on a polar stereographic grid, less its surface and basal balance.

An error of the bed between two radar lines makes ice appear or vanish where it flows
(Seroussi et al. 2011, doi 10.1029/2011GL047338). The residual also contains the errors of
velocity, of surface balance and of the ratio of depth-mean to surface velocity, and
differencing amplifies short wavelengths.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import pyproj

from deepbedmap.errors import Fault, InvalidDataError, WrongCallError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import xarray as xr

    from deepbedmap.points.tracks import Floats

ICE_DENSITY = 917.0
"""Density of ice (kg m-3) that converts masses to metres of ice."""

_CRS = "EPSG:3031"
# Metres of ice per unit, for units without blanks and without their time.
_LENGTHS = {"m": 1.0}
_BALANCES = {
    "kgm-2": 1 / ICE_DENSITY,
    "kg/m2": 1 / ICE_DENSITY,
    "mmwe": 1 / ICE_DENSITY,
    "mwe": 1000 / ICE_DENSITY,
    "mice": 1.0,
    "mie": 1.0,
}
# Per year of 365.25 days.
_TIMES = {"a": 1.0, "d": 365.25, "s": 365.25 * 86_400}
_NODES = 2_000  # of the table of scale factors: linear between them is exact to 1e-7


def mass_residual(
    thickness: xr.DataArray,
    velocity: xr.DataArray,
    surface_balance: xr.DataArray,
    *,
    basal_melt: xr.DataArray | None = None,
    thickening: xr.DataArray | None = None,
    gamma: float = 1.0,
) -> xr.DataArray:
    r"""Return the residual of mass conservation, in metres of ice per year.

    .. math:: \nabla\cdot(\gamma H u) - (SMB - BMB - \partial H / \partial t)

    Positive where more ice leaves a cell than enters it. Fluxes are on the faces between cells,
    each the product of the mean thickness and the mean velocity of the two cells: what leaves one
    cell enters the next. The scale factor k of the projection, 0.97 at the pole and 1 at
    71 degrees south, is taken into account: in a conformal projection
    ``div F = k**2 (d(Fx / k)/dx + d(Fy / k)/dy)``, whose sum by true area (cell**2 / k**2) is the
    flux through the boundary.

    Parameters
    ----------
    thickness
        H (y, x), metres of ice, without the air in firn; y in either direction; EPSG:3031.
    velocity
        u (band, y, x) at the surface, m a-1 on the ground: components along x, then along y.
    surface_balance
        SMB (y, x), positive where ice is gained; its ``units`` state mass or ice, as below.
    basal_melt
        BMB (y, x), positive where ice is lost; units as for the surface balance. None for no melt.
    thickening
        dH/dt (y, x), in metres of ice: ``m a-1``. None for a steady state.
    gamma
        Ratio of depth-mean to surface velocity, in (0, 1]. 1 where ice slides (as in the mass
        conservation of Morlighem et al. 2011, doi 10.1029/2011GL048659); 0.8, (n + 1) / (n + 2),
        where ice deforms in simple shear with Glen's n = 3 (Cuffey & Paterson 2010, The Physics of
        Glaciers, 4th edition).

    Returns
    -------
    xarray.DataArray
        float32 (y, x), rows from north to south, on the cells of the thickness. NaN where an input
        is unknown in the cell or in one of its four neighbours, and along the edge. Lazy if the
        thickness is chunked. ``attrs`` state gamma and the density of ice.

    Raises
    ------
    InvalidDataError
        A CRS is not EPSG:3031; an input's cells differ from the thickness's, or do not overlap
        them; a balance states no units, or any input states unknown ones. A balance is in
        ``kg m-2``, ``mm w.e.``, ``m w.e.``, ``m ice`` or ``m i.e.`` by ``a-1``, ``d-1`` or ``s-1``
        (or other spellings of these); metres could be of water or of ice. Without units a thickness
        is in m and a velocity in m a-1.
    ValueError
        gamma is not in (0, 1], or the velocity does not have two bands.

    Examples
    --------
    Ice 1000 m thick that stretches by a thousandth per year loses about a metre:

    >>> import rioxarray, xarray as xr
    >>> x = np.arange(-1000.0, 1001, 500)
    >>> ice = xr.DataArray(np.full((5, 5), 1000.0), {"y": x[::-1], "x": x}, ("y", "x"))
    >>> ice = ice.rio.write_crs(3031)
    >>> velocity = xr.concat([1e-3 * ice.x + 0 * ice, 0 * ice], "band").rio.write_crs(3031)
    >>> snow = (0 * ice).assign_attrs(units="kg m-2 a-1")
    >>> mass_residual(ice, velocity, snow).values[2].round(3)
    array([  nan, 0.973, 0.973, 0.973,   nan], dtype=float32)
    """
    import dask.array
    import xarray as xr

    from deepbedmap import rasters

    if not 0 < gamma <= 1:
        raise WrongCallError(f"gamma: expected more than 0 and at most 1, found {gamma}")
    if rasters.band_count(velocity) != 2:
        raise WrongCallError(
            f"velocity: expected 2 bands, along x and y, found dimensions {velocity.dims}"
        )
    cells = rasters.north_up(thickness)
    require_polar(cells)
    cells = cells if cells.chunks else cells.chunk()
    fields = [
        _in_metres(cells, _LENGTHS, rate=False, default="m"),
        *_in_metres(_on_cells(velocity, cells), _LENGTHS, default="m a-1"),
        _net_balance(cells, surface_balance, basal_melt, thickening),
        *(xr.zeros_like(cells, np.float64) + cells[dim] for dim in ("x", "y")),
    ]
    values = dask.array.map_overlap(  # type: ignore[no-untyped-call]
        _residual,
        *(field.chunk(cells.chunksizes).data for field in fields),
        cell=rasters.resolution_of(cells),
        gamma=gamma,
        scale=_ScaleFactor.around(cells),
        depth=1,
        boundary=np.nan,
        trim=False,
        chunks=cells.chunks,
        meta=np.empty((0, 0), np.float32),
    )
    axes = {"y": cells["y"], "x": cells["x"]}
    residual: xr.DataArray = xr.DataArray(
        values, axes, ("y", "x"), "mass_residual", _attributes(gamma)
    )
    residual = residual.rio.write_crs(rasters.require_crs(cells))
    return residual if thickness.chunks else residual.compute()


def _net_balance(
    cells: xr.DataArray,
    surface_balance: xr.DataArray,
    basal_melt: xr.DataArray | None,
    thickening: xr.DataArray | None,
) -> xr.DataArray:
    """Return SMB - BMB - dH/dt on the cells of the thickness, metres of ice per year."""
    balance = _in_metres(_on_cells(surface_balance, cells), _BALANCES)
    if basal_melt is not None:
        balance = balance - _in_metres(_on_cells(basal_melt, cells), _BALANCES)
    if thickening is not None:
        balance = balance - _in_metres(_on_cells(thickening, cells), _LENGTHS)
    return balance


def _attributes(gamma: float) -> dict[str, str | float]:
    return {
        "long_name": "flux divergence minus surface balance, basal melt and thickening",
        "units": "m a-1",
        "comment": f"metres of ice of {ICE_DENSITY:g} kg m-3",
        "gamma": gamma,
    }


def _residual(
    H: Floats,
    u: Floats,
    v: Floats,
    balance: Floats,
    x: Floats,
    y: Floats,
    *,
    cell: float,
    gamma: float,
    scale: _ScaleFactor,
) -> npt.NDArray[np.float32]:
    """Return the residual of a block, from blocks with a margin of one cell, north up."""
    flux_x = _at_faces(H, 1) * _at_faces(u, 1) / scale(_at_faces(x, 1), _at_faces(y, 1))
    flux_y = _at_faces(H, 0) * _at_faces(v, 0) / scale(_at_faces(x, 0), _at_faces(y, 0))
    # Rows run south, y runs north: hence the minus sign.
    out = np.diff(flux_x, axis=1)[1:-1] - np.diff(flux_y, axis=0)[:, 1:-1]
    inner = (slice(1, -1), slice(1, -1))
    divergence = gamma * scale(x[inner], y[inner]) ** 2 * out / cell
    return (divergence - balance[inner]).astype(np.float32)


def _at_faces(values: Floats, axis: int) -> Floats:
    """Return the means of neighbours along an axis, one fewer than the cells."""
    values = np.asarray(values, np.float64)
    count = values.shape[axis]
    return (values.take(range(count - 1), axis) + values.take(range(1, count), axis)) / 2


class _ScaleFactor(NamedTuple):
    """Scale factor of the polar stereographic projection by distance from the pole."""

    radius: Floats
    factor: Floats

    @classmethod
    def around(cls, raster: xr.DataArray) -> _ScaleFactor:
        """Return a table that covers all cells of a raster."""
        from deepbedmap import rasters

        crs = rasters.require_crs(raster)
        farthest = np.hypot(*(np.abs(raster[dim].to_numpy()).max() for dim in ("x", "y")))
        radius = np.linspace(0, farthest + rasters.resolution_of(raster), _NODES)
        projection = pyproj.Proj(crs)
        longitude, latitude = projection(np.zeros(_NODES), radius, inverse=True)
        # PROJ has no derivatives at the pole itself: the nearest node stands in.
        factors = projection.get_factors(longitude[1:], latitude[1:])
        factor = np.asarray(factors.meridional_scale, np.float64)
        return cls(radius, np.concatenate([factor[:1], factor]))

    def __call__(self, x: Floats, y: Floats) -> Floats:
        return np.interp(np.hypot(x, y), self.radius, self.factor)


def require_polar(raster: xr.DataArray) -> None:
    """Raise InvalidDataError unless a raster is in Antarctic Polar Stereographic (EPSG:3031)."""
    from deepbedmap import rasters

    crs = rasters.require_crs(raster)
    if not rasters.same_crs(crs, pyproj.CRS(_CRS)):
        raise InvalidDataError(
            Fault(
                rasters.name_of(raster),
                field="crs",
                expected=_CRS,
                found=crs.to_string(),
                remedy="warp it: gdalwarp -t_srs EPSG:3031",
            )
        )


def _on_cells(raster: xr.DataArray, like: xr.DataArray) -> xr.DataArray:
    """Return a raster on the cells of another; NaN where it has none of them."""
    from deepbedmap import rasters

    rasters.require_same_reference(like, raster)
    raster = rasters.north_up(raster)
    cell, expected = rasters.resolution_of(raster), rasters.resolution_of(like)
    tolerance = 1e-3 * expected
    shared = all(
        (
            raster.indexes[dim].get_indexer(like.indexes[dim], "nearest", tolerance=tolerance) >= 0
        ).any()
        for dim in ("x", "y")
    )
    if abs(cell - expected) > 1e-6 * expected or not shared:
        raise InvalidDataError(
            Fault(
                rasters.name_of(raster),
                expected=f"cells of {rasters.name_of(like)}: {expected:g} m wide, "
                f"bounds {rasters.bounds_of(like)}",
                found=f"none of them: {cell:g} m wide, bounds {rasters.bounds_of(raster)}",
                remedy="resample it to those cells: rasters.write_resampled",
            )
        )
    if all(np.array_equal(raster[dim], like[dim]) for dim in ("x", "y")):
        return raster
    if like.chunks:
        raster = rasters.chunked(raster)
    return raster.reindex(
        {dim: like[dim] for dim in ("x", "y")}, method="nearest", tolerance=tolerance
    )


def _in_metres(
    raster: xr.DataArray,
    amounts: Mapping[str, float],
    *,
    rate: bool = True,
    default: str | None = None,
) -> xr.DataArray:
    """Return values in metres (of ice), per year if they are a rate."""
    from deepbedmap import rasters

    stated = raster.attrs.get("units", default)
    words = re.sub(r"years?|yr|annum", "a", str(stated).lower().replace("per", "/"))
    words = re.sub(r"days?", "d", re.sub(r"met(er|re)s?", "m", words))
    words = re.sub(r"[\s.*^()]", "", words)
    match = re.fullmatch(r"(.+?)(?:/([ads])|([ads])-1)" if rate else "(.+)", words)
    if stated is None or match is None or match[1] not in amounts:
        forms = "kg m-2 a-1, m w.e. a-1 or m ice a-1" if amounts is _BALANCES else "m a-1"
        raise InvalidDataError(
            Fault(
                rasters.name_of(raster),
                field="units",
                expected=forms if rate else "m",
                found="none" if stated is None else str(stated),
                remedy="state them in its attribute or tag units",
            )
        )
    return raster * (amounts[match[1]] * (_TIMES[match[2] or match[3]] if rate else 1.0))
