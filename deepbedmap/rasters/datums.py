"""Convert heights of rasters and picks between the ellipsoid and geoids."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np
import pandas as pd
import xarray as xr
from pyproj import CRS, Transformer

from deepbedmap.errors import Fault, InvalidDataError, WrongCallError
from deepbedmap.provenance import provenance_of
from deepbedmap.rasters.geoids import datum_shift, open_geoid, require_cover, require_quantity
from deepbedmap.rasters.lattice import name_of, require_xy
from deepbedmap.rasters.opening import chunked
from deepbedmap.rasters.reference import VERTICAL_DATUMS, known_value, require_crs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    import numpy.typing as npt

    from deepbedmap.rasters.geoids import Geoids, GeoidTerm


@overload
def convert_datum(
    heights: xr.DataArray, to: str, geoids: Geoids, datum: str | None = None
) -> xr.DataArray: ...


@overload
def convert_datum(
    heights: pd.DataFrame, to: str, geoids: Geoids, datum: str | None = None
) -> pd.DataFrame: ...


def convert_datum(
    heights: xr.DataArray | pd.DataFrame, to: str, geoids: Geoids, datum: str | None = None
) -> xr.DataArray | pd.DataFrame:
    """Convert heights from one vertical datum to another.

    A height above the ellipsoid is h = H + N, where H is the height above a geoid and N the height
    of the geoid above the ellipsoid. One geoid is converted to another by way of the ellipsoid.

    Parameters
    ----------
    heights
        Heights in metres: a raster, or picks with columns ``x, y, z`` and an attribute ``crs``.
        Their vertical datum is the attribute ``vertical_datum``.
    to
        ``"ellipsoid"`` (WGS84), ``"EIGEN-GL04C"`` or ``"EIGEN-6C4"``.
    geoids
        Height N above the ellipsoid, in metres, of each geoid that the conversion needs: a raster
        in any CRS, or the path of one. In degrees, longitudes may run to 180 or to 360. In a
        NetCDF file with several rasters, such as BedMachine, the one with CF's standard name
        ``geoid_height_above_reference_ellipsoid`` is used.
    datum
        Vertical datum of the heights, where they do not state it.

    Returns
    -------
    xarray.DataArray or pandas.DataFrame
        Like ``heights``, in dask chunks where those are; computed in float64, and returned as
        float32 where the heights are. N is interpolated bilinearly, across the date line and up to
        the poles; NaN where a geoid has no value, and where the heights have nodata. The attribute
        ``vertical_datum`` is ``to``; ``provenance`` (for picks, ``sources``) names the geoids,
        with the SHA-256 of those passed as paths.

    Raises
    ------
    InvalidDataError
        The vertical datum of the heights is unknown, is not one of those above, or differs from
        ``datum``; heights or geoid are another quantity, not in metres, or without a CRS; the
        metadata of a geoid name another one; or a geoid has no value at any of the positions (of
        more than 65,536, at any of a sample of them).
    MissingDataError
        A geoid that is needed is not among ``geoids``, or its file does not exist.
    ValueError
        ``to``, ``datum`` or a key of ``geoids`` is not a vertical datum.

    Notes
    -----
    Not modelled: whether geoid and heights are tide-free, mean-tide or zero-tide (permanent tide;
    up to 0.3 m at the pole); realisation and epoch of the reference frame; that mean sea level
    around Antarctica is about 1 m below the geoid; and firn air, by which BedMachine's
    ice-equivalent surface is below the snow surface, and which is not a matter of datum.

    EIGEN-GL04C: Förste et al. 2008, doi 10.1007/s00190-007-0183-8. EIGEN-6C4: Förste et al. 2014,
    doi 10.5880/icgem.2015.1.

    Examples
    --------
    >>> axes = {"y": [750, 250], "x": [250, 750]}
    >>> bed = xr.DataArray([[-800.0, -810.0], [-790.0, -780.0]], axes).rio.write_crs("EPSG:3031")
    >>> bed.attrs["vertical_datum"] = "EIGEN-6C4"
    >>> geoid = xr.full_like(bed, -29.5)
    >>> convert_datum(bed, "ellipsoid", {"EIGEN-6C4": geoid}).values
    array([[-829.5, -839.5],
           [-819.5, -809.5]])
    """
    for name in (to, datum or to):
        _require_known(name, VERTICAL_DATUMS)
    for name in geoids:
        _require_known(name, VERTICAL_DATUMS[1:])
    label = "picks" if isinstance(heights, pd.DataFrame) else name_of(heights)
    source_datum = _source_datum(heights.attrs, datum, label)
    require_quantity(heights.attrs, "heights", ("thickness", "geoid_height"), label)
    crs = _crs_of_picks(heights) if isinstance(heights, pd.DataFrame) else require_crs(heights)
    terms: list[GeoidTerm] = []
    sources: list[dict[str, str]] = []
    # To the ellipsoid the first geoid is added; from the ellipsoid the second is subtracted.
    for sign, name in ((1, source_datum), (-1, to)) if source_datum != to else ():
        if name != "ellipsoid":
            geoid, source = open_geoid(name, geoids, label)
            terms.append(
                (sign, geoid, Transformer.from_crs(crs, require_crs(geoid), always_xy=True))
            )
            sources.append(source)
    if isinstance(heights, pd.DataFrame):
        picks = _shift_picks(heights, terms)
        picks.attrs = {
            **heights.attrs,
            "vertical_datum": to,
            "sources": _joined(heights.attrs.get("sources") or (), sources),
        }
        return picks
    raster = _shift_raster(heights, terms)
    raster.attrs |= {"vertical_datum": to}
    if terms:
        raster.attrs |= _describe_conversion(heights, source_datum, to, sources)
    return raster


def _require_known(name: str, names: Sequence[str]) -> None:
    if name not in names:
        from deepbedmap.errors import did_you_mean

        hint = did_you_mean(str(name), names)
        expected = f"expected one of {', '.join(names)}, found {name!r}"
        raise WrongCallError(expected + (f"; {hint}" if hint else ""))


def _source_datum(attributes: Mapping[Any, Any], datum: str | None, label: str) -> str:
    """Return the vertical datum that heights state, or the caller's where they state none."""
    stated = known_value(attributes.get("vertical_datum"))
    fault = Fault(
        file=label,
        field="vertical_datum",
        expected=datum or f"one of {', '.join(VERTICAL_DATUMS)}",
        found=stated or "unknown",
    )
    if stated is None and datum is None:
        remedy = 'state the vertical datum: datum="...", or --datum on the command line'
        raise InvalidDataError(replace(fault, remedy=remedy))
    if stated is not None and datum is not None and stated != datum:
        remedy = "leave out datum if the heights are right, or correct their attribute"
        raise InvalidDataError(replace(fault, remedy=remedy))
    source_datum = str(datum or stated)
    if source_datum not in VERTICAL_DATUMS:
        raise InvalidDataError(replace(fault, remedy="correct the attribute"))
    return source_datum


def _crs_of_picks(picks: pd.DataFrame) -> CRS:
    crs = known_value(picks.attrs.get("crs"))
    if crs is None:
        raise InvalidDataError(
            Fault(
                file="picks",
                field="crs",
                expected="a coordinate reference system",
                found="none",
                remedy='state it: picks.attrs["crs"] = "EPSG:3031"',
            )
        )
    return CRS.from_user_input(crs)


def _shift_picks(picks: pd.DataFrame, terms: Sequence[GeoidTerm]) -> pd.DataFrame:
    x, y, z = (picks[column].to_numpy(np.float64) for column in ("x", "y", "z"))
    # A sample suffices to notice a geoid of another region; NaN then marks single gaps.
    step = x.size // 65_536 + 1
    require_cover(terms, x[::step], y[::step], "picks")
    return picks.assign(z=(z + datum_shift(terms, x, y)).astype(_floating(picks["z"].dtype)))


def _shift_raster(heights: xr.DataArray, terms: Sequence[GeoidTerm]) -> xr.DataArray:
    require_xy(heights)
    some_x, some_y = (heights[dim].to_numpy()[:: heights.sizes[dim] // 256 + 1] for dim in "xy")
    grid_x, grid_y = np.meshgrid(some_x, some_y)
    require_cover(terms, grid_x.ravel(), grid_y.ravel(), name_of(heights))
    nodata = heights.rio.nodata
    dtype = _floating(heights.dtype)

    def shift(
        values: npt.NDArray[Any], y: npt.NDArray[Any], x: npt.NDArray[Any]
    ) -> npt.NDArray[Any]:
        x, y = np.broadcast_arrays(x, y)
        values = values.astype(np.float64)
        if nodata is not None:
            values[values == nodata] = np.nan
        return (values + datum_shift(terms, x.ravel(), y.ravel()).reshape(x.shape)).astype(dtype)

    lazy = heights.chunks is not None
    shifted = xr.apply_ufunc(
        shift,
        heights if lazy else chunked(heights),
        heights["y"].variable,
        heights["x"].variable,
        dask="parallelized",
        output_dtypes=[dtype],
    )
    raster = heights.copy(data=shifted.data if lazy else shifted.to_numpy())
    # The file's nodata value is NaN here; the encoding lets a writer restore it.
    raster.encoding = {
        key: value
        for key, value in (heights.attrs | heights.encoding).items()
        if key in ("_FillValue", "grid_mapping")
    }
    raster.attrs = {
        key: value for key, value in heights.attrs.items() if key not in raster.encoding
    }
    return raster


def _floating(dtype: Any) -> np.dtype[Any]:
    return np.result_type(dtype, np.float32)


def _joined(before: Iterable[Any], sources: Iterable[Any]) -> list[Any]:
    before = list(before)
    return before + [source for source in sources if source not in before]


def _describe_conversion(
    heights: xr.DataArray, source_datum: str, to: str, sources: Sequence[Mapping[str, str]]
) -> dict[str, str]:
    """Return the attributes that a conversion changes: standard name and provenance."""
    before = provenance_of(heights.attrs)
    file = heights.encoding.get("source")
    own = before.get(
        "sources", [{"role": "heights", "file": Path(file).name}] if file and not before else []
    )
    provenance = before | {
        "sources": _joined(own, sources),
        "vertical_datums": [*before.get("vertical_datums", [source_datum]), to],
    }
    attributes = {"provenance": json.dumps(provenance)}
    # In CF's standard names, altitude is a height above the geoid.
    name = str(heights.attrs.get("standard_name", ""))
    if to == "ellipsoid" and "altitude" in name:
        attributes["standard_name"] = "height_above_reference_ellipsoid"
    elif source_datum == "ellipsoid" and name == "height_above_reference_ellipsoid":
        attributes["standard_name"] = "altitude"
    return attributes
