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

    A height above the ellipsoid is h = H + N, where H is the height above a geoid and N that of the
    geoid above the ellipsoid. From one geoid to another the way leads over the ellipsoid.

    Parameters
    ----------
    heights
        Metres: a raster, or picks with columns ``x, y, z`` and an attribute ``crs``. What they
        refer to is their attribute ``vertical_datum``.
    to
        ``"ellipsoid"`` (WGS84), ``"EIGEN-GL04C"`` or ``"EIGEN-6C4"``.
    geoids
        For each geoid on the way its height N above the ellipsoid in metres: a raster, or the path
        of one, in any CRS. In degrees, longitudes may run to 180 or to 360. Of a NetCDF file with
        several rasters, such as BedMachine, the one whose standard name is CF's
        ``geoid_height_above_reference_ellipsoid`` is taken.
    datum
        What the heights refer to, where they do not say.

    Returns
    -------
    xarray.DataArray or pandas.DataFrame
        As ``heights``, in chunks where those are; computed in float64, float32 where they are.
        N is bilinear between its cells, across the date line and to the poles; NaN where a geoid
        has no value, and where the heights have nodata. Attribute ``vertical_datum`` is ``to``;
        ``provenance`` (of picks, ``sources``) names the geoids, with the SHA-256 of those given by
        path.

    Raises
    ------
    InvalidDataError
        What the heights refer to is unknown, is no known datum, or is not ``datum``; heights or
        geoid are another quantity, not in metres, or without a CRS; a geoid says that it is another
        one; or it has a value at none of the places (of more than 65,536: at none of a sample).
    MissingDataError
        A geoid on the way is not among ``geoids``, or its file is not there.
    ValueError
        ``to``, ``datum`` or a key of ``geoids`` is no vertical datum.

    Notes
    -----
    Not modelled: whether geoid and heights are tide-free, mean-tide or zero-tide (permanent tide;
    up to 0.3 m at the pole); realisation and epoch of the reference frame; that the sea around
    Antarctica stands 1 m or so below the geoid; and firn air, by which BedMachine's ice-equivalent
    surface lies below the snow, and which is no datum.

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
    given = _given_datum(heights.attrs, datum, label)
    require_quantity(heights.attrs, "heights", ("thickness", "geoid_height"), label)
    crs = _crs_of_picks(heights) if isinstance(heights, pd.DataFrame) else require_crs(heights)
    terms: list[GeoidTerm] = []
    sources: list[dict[str, str]] = []
    for sign, name in ((1, given), (-1, to)) if given != to else ():
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
        raster.attrs |= _describe_conversion(heights, given, to, sources)
    return raster


def _require_known(name: str, names: Sequence[str]) -> None:
    if name not in names:
        from deepbedmap.errors import did_you_mean

        hint = did_you_mean(str(name), names)
        raise WrongCallError(
            f"{name!r} is none of {', '.join(names)}" + (f"; {hint}" if hint else "")
        )


def _given_datum(attributes: Mapping[Any, Any], datum: str | None, label: str) -> str:
    """What heights refer to: what they say, else what the caller says."""
    stated = known_value(attributes.get("vertical_datum"))
    fault = Fault(
        file=label,
        field="vertical_datum",
        expected=datum or f"one of {', '.join(VERTICAL_DATUMS)}",
        found=stated or "unknown",
    )
    if stated is None and datum is None:
        remedy = 'state what the heights refer to: datum="...", or --datum on the command line'
        raise InvalidDataError(replace(fault, remedy=remedy))
    if stated is not None and datum is not None and stated != datum:
        remedy = "leave out datum: the heights' own is right, or mend their attribute"
        raise InvalidDataError(replace(fault, remedy=remedy))
    given = str(datum or stated)
    if given not in VERTICAL_DATUMS:
        raise InvalidDataError(replace(fault, remedy="mend the attribute"))
    return given


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
    # What was the value of nodata in a file is NaN now, and may be written as that value again.
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
    heights: xr.DataArray, given: str, to: str, sources: Sequence[Mapping[str, str]]
) -> dict[str, str]:
    """Attributes of converted heights: what they are called, and their provenance."""
    before = provenance_of(heights.attrs)
    file = heights.encoding.get("source")
    own = before.get(
        "sources", [{"role": "heights", "file": Path(file).name}] if file and not before else []
    )
    provenance = before | {
        "sources": _joined(own, sources),
        "vertical_datums": [*before.get("vertical_datums", [given]), to],
    }
    attributes = {"provenance": json.dumps(provenance)}
    # CF keeps the word altitude for heights above the geoid.
    name = str(heights.attrs.get("standard_name", ""))
    if to == "ellipsoid" and "altitude" in name:
        attributes["standard_name"] = "height_above_reference_ellipsoid"
    elif given == "ellipsoid" and name == "height_above_reference_ellipsoid":
        attributes["standard_name"] = "altitude"
    return attributes
