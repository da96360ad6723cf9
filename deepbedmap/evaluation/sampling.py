"""Open a bed and sample it at radar picks.

A bed is a grid in memory, a raster file, or the layer ``bed`` of a product; a product of
an ensemble also holds its members.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deepbedmap.errors import Fault, InvalidDataError
from deepbedmap.extras import required_extra

if TYPE_CHECKING:
    from typing import TypeAlias

    import numpy.typing as npt
    import pandas as pd
    import xarray as xr

    from deepbedmap.rasters.sampling import Method

    Raster: TypeAlias = "xr.DataArray | str | os.PathLike[str]"

_BEDS = ("bed", "bed_topography", "z")
_MEMBERS = "bed_members"


def places_of(points: pd.DataFrame) -> list[npt.NDArray[np.float64]]:
    """Return the columns x, y and z (n,) of picks in metres, all of them finite."""
    places = [points[column].to_numpy(np.float64) for column in ("x", "y", "z")]
    if not len(points):
        raise InvalidDataError(
            Fault(
                "picks", expected="some", found="none", remedy="choose other picks, or a larger box"
            )
        )
    if not all(np.isfinite(values).all() for values in places):
        raise InvalidDataError(
            Fault(
                "picks",
                expected="finite x, y and z",
                found="NaN or infinity",
                remedy="drop those picks",
            )
        )
    return places


def sample_bed(
    bed: xr.DataArray,
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
    method: Method = "linear",
) -> npt.NDArray[np.float64]:
    """Sample a bed at places (n,), metres; raise InvalidDataError if cells cannot be read."""
    from deepbedmap import rasters

    try:
        return rasters.sample(bed, x, y, method)
    except OSError as error:
        raise InvalidDataError(
            Fault(
                rasters.name_of(bed),
                expected="readable cells",
                found=f"unreadable ones ({error.__cause__ or error})",
                remedy="download or make the file again",
            )
        ) from error


def require_some(covered: npt.NDArray[np.bool_], name: str, bed: xr.DataArray) -> None:
    """Raise InvalidDataError if a bed has no value at any of the picks."""
    from deepbedmap import rasters

    if not covered.any():
        raise InvalidDataError(
            Fault(
                name,
                expected="values at the picks",
                found=f"none at any of {covered.size}; the grid's bounds are "
                f"{rasters.bounds_of(bed)}",
                remedy="check that grid and picks cover the same area",
            )
        )


def open_bed(dem: Raster) -> xr.DataArray:
    """Open the bed (y, x) of a product, a grid or any raster file; see :func:`evaluate`."""
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
                expected="a value that marks missing cells",
                found="none, so that gaps cannot be distinguished from the bed",
                remedy="state it: gdal_edit.py -a_nodata VALUE",
            )
        )
    return bed


def open_members(dem: Raster) -> list[xr.DataArray]:
    """Open the members of the ensemble in a product; an empty list if it has none."""
    from deepbedmap import rasters

    if not isinstance(dem, str | os.PathLike) or _MEMBERS not in _layers(Path(dem)):
        return []
    members = rasters.open_raster(dem, _MEMBERS)
    return bands_of(members)


def bands_of(raster: xr.DataArray) -> list[xr.DataArray]:
    """Return the bands (y, x) of a raster."""
    if raster.ndim == 2:
        return [raster]
    dim = raster.dims[0]
    return [raster.isel({dim: number}, drop=True) for number in range(raster.sizes[dim])]


def _layers(path: Path) -> set[str]:
    """Return the names of the variables of a NetCDF or Zarr product; none for other files."""
    if path.is_dir():
        with required_extra("grid"):
            import zarr

        try:
            return {name for name, _ in zarr.open_group(path, mode="r").arrays()}
        except (OSError, ValueError, KeyError):
            return set()  # open_raster reports what is wrong with it
    if path.suffix.lower() in (".nc", ".nc4", ".h5") and path.is_file():
        import h5netcdf

        try:
            with h5netcdf.File(path) as file:
                return set(file.variables)
        except (OSError, ValueError):
            return set()
    return set()
