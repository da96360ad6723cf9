"""The reference of a raster: its coordinate reference system and vertical datum.

Rasters that differ in either are never combined silently: heights above a geoid and above the
ellipsoid differ by up to 60 m in Antarctica.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError, ProjError

from deepbedmap.errors import Fault, InvalidDataError, WrongCallError
from deepbedmap.rasters.lattice import band_count, name_of

if TYPE_CHECKING:
    from typing import Any

    import pandas as pd
    import xarray as xr

# Vertical datums of heights; all but the first are geoids.
VERTICAL_DATUMS = ("ellipsoid", "EIGEN-GL04C", "EIGEN-6C4")


def crs_of(raster: xr.DataArray) -> CRS | None:
    """Return the coordinate reference system of a raster; None where it states none.

    It is stated by CF's grid mapping or GeoTIFF's keys, else by an attribute ``crs`` (other than
    ``"unknown"``).
    """
    try:
        # rioxarray itself reads an attribute ``crs``, and raises where that is not a CRS.
        stated = raster.rio.crs
    except CRSError:
        return None
    return CRS.from_user_input(stated) if stated else None


def require_crs(raster: xr.DataArray) -> CRS:
    """Return the coordinate reference system of a raster; raise InvalidDataError without one."""
    crs = crs_of(raster)
    if crs is None:
        raise InvalidDataError(missing_crs_fault(raster))
    return crs


def missing_crs_fault(raster: xr.DataArray) -> Fault:
    """Return the fault for a raster without a CRS, with how to set one."""
    return Fault(
        file=name_of(raster),
        field="crs",
        expected="a coordinate reference system",
        found="none",
        remedy='state it: open_raster(path, crs="EPSG:3031"), or `gdal_edit.py -a_srs EPSG:3031`',
    )


def require_same_reference(first: xr.DataArray, second: xr.DataArray) -> None:
    """Check that two rasters share their CRS and, where both state one, their vertical datum.

    Raises
    ------
    InvalidDataError
        A raster has no CRS, or CRS or vertical datum differ. Heights above a geoid and above the
        ellipsoid differ by up to 60 m in Antarctica, so they are never mixed.
    """
    require_crs(first)
    require_reference(
        name_of(second), require_crs(second), second.attrs.get("vertical_datum"), first
    )


def require_filler(filler: xr.DataArray, raster: xr.DataArray) -> None:
    """Check that a raster can fill the gaps of another: equal number of bands, same reference.

    Raises
    ------
    InvalidDataError
        A raster has no CRS, or CRS or vertical datum differ.
    ValueError
        The numbers of bands differ.
    """
    require_same_reference(raster, filler)
    if band_count(filler) != band_count(raster):
        raise WrongCallError(
            f"the filler has {band_count(filler)} bands, the raster {band_count(raster)}"
        )


def require_reference(name: str, crs: Any, datum: str | None, like: xr.DataArray) -> None:
    """Check that data have the CRS and vertical datum of a raster.

    Parameters
    ----------
    name
        Name of the data, for the message.
    crs, datum
        CRS of the data (anything that :meth:`pyproj.CRS.from_user_input` accepts) and their
        vertical datum; None, or a datum "unknown", is not compared.
    like
        The raster.

    Raises
    ------
    InvalidDataError
        The raster has no CRS, or CRS or vertical datum differ.
    """
    expected = require_crs(like)
    own = expected if crs is None else CRS.from_user_input(crs)
    if not same_crs(own, expected):
        raise InvalidDataError(
            Fault(
                file=name,
                field="crs",
                expected=f"{expected.to_string()} as in {name_of(like)}",
                found=own.to_string(),
                remedy="reproject one of the two",
            )
        )
    datums = stated_datum(like), known_value(datum)
    if None not in datums and datums[0] != datums[1]:
        raise InvalidDataError(
            Fault(
                file=name,
                field="vertical_datum",
                expected=f"{datums[0]} as in {name_of(like)}",
                found=datums[1],
                remedy="convert one of the two: `deepbedmap convert`, rasters.convert_datum",
            )
        )


def stated_datum(data: xr.DataArray | pd.DataFrame) -> str | None:
    """Return the vertical datum that a raster or picks state; None if missing or "unknown"."""
    return known_value(data.attrs.get("vertical_datum"))


def known_value(value: Any) -> str | None:
    """Return a metadata value as text; None if it is missing, empty or "unknown"."""
    return None if value in (None, "", "unknown") else str(value)


def same_crs(one: CRS, other: CRS) -> bool:
    """Return whether two CRSs give the same positions, to a millimetre, however they are written.

    The attributes of CF's grid mapping, for example, do not include an EPSG code.
    """
    if one.equals(other, ignore_axis_order=True):
        return True
    if one.is_geographic != other.is_geographic:
        return False
    # Positions are compared at six points, three in each hemisphere.
    longitudes, latitudes = [0.0, 90.0, -135.0] * 2, [-70.0, -80.0, -89.0, 70.0, 80.0, 89.0]
    try:
        first, second = (
            np.asarray(
                Transformer.from_crs("OGC:CRS84", crs, always_xy=True).transform(
                    longitudes, latitudes
                )
            )
            for crs in (one, other)
        )
    except ProjError:
        return False
    tolerance = 1e-8 if one.is_geographic else 1e-3  # degrees, metres
    return bool(np.isfinite(first).any() and np.allclose(first, second, rtol=0, atol=tolerance))
