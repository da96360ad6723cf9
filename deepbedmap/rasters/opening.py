"""Open GeoTIFF, NetCDF and Zarr rasters; cells are read only when they are used.

Also find variables of NetCDF files by name or CF standard name.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import rasterio.errors
import rasterio.windows
import rioxarray
import xarray as xr
from pyproj import CRS
from rioxarray.exceptions import RioXarrayError

from deepbedmap.errors import Fault, InvalidDataError, MissingDataError
from deepbedmap.extras import required_extra
from deepbedmap.rasters.lattice import axes_of, name_of
from deepbedmap.rasters.reference import crs_of, missing_crs_fault, same_crs

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from typing import Any

_NETCDF_SUFFIXES = {".nc", ".nc4", ".h5"}
GEOTIFF_SUFFIXES = {".tif", ".tiff"}


def open_raster(
    path: str | os.PathLike[str],
    variable: str | Sequence[str] | None = None,
    bands: int | Sequence[int] | None = None,
    crs: Any = None,
) -> xr.DataArray:
    """Open a raster file; cells are read when they are used, and only those.

    Parameters
    ----------
    path
        A GeoTIFF (or anything else that GDAL reads), a NetCDF-4 file (``.nc``, ``.nc4``, ``.h5``),
        or a folder of Zarr, which is opened in its chunks, with dask.
    variable
        Variable of a NetCDF file or of Zarr. By default the only raster that is no ancillary
        variable of another (CF's ``ancillary_variables``), or the only one of these that has such.
        Several become bands of those names, in their order, chunked with dask.
    bands
        One band, or several in order, counted from 1; all of them by default.
    crs
        Coordinate reference system of a file that states none (anything that
        :meth:`pyproj.CRS.from_user_input` takes). A file's own is kept, and must give the same
        positions.

    Returns
    -------
    xarray.DataArray
        Dimensions ``(y, x)``, or ``(band, y, x)`` where there are several bands; nodata is NaN;
        attributes are those of the file (``vertical_datum`` among them, where stated).

    Raises
    ------
    MissingDataError
        There is no such file.
    InvalidDataError
        The file cannot be read; holds no such variable or band; has no coordinate reference
        system, another one than ``crs``, a rotated or irregular grid, or cells that are not square.
    """
    path = Path(path)
    if variable is not None and not isinstance(variable, str):
        # Only dask concatenates without reading what it concatenates.
        parts = [chunked(open_raster(path, name, bands, crs)) for name in variable]
        names = xr.DataArray(list(variable), dims="band", name="band")
        stacked = xr.concat(parts, names, combine_attrs="drop_conflicts").rename(None)
        stacked.encoding["source"] = str(path)
        return stacked
    if not path.exists():
        raise MissingDataError(
            f"{path}: no such raster; `deepbedmap fetch` gets those that the registry names"
        )
    try:
        if path.is_dir() or path.suffix.lower() in _NETCDF_SUFFIXES:
            raster = _open_variable(path, variable)
        else:
            # GDAL decodes the blocks of one read side by side, where its driver of the file can.
            threads = {"num_threads": "all_cpus"} if path.suffix.lower() in GEOTIFF_SUFFIXES else {}
            raster = rioxarray.open_rasterio(path, mask_and_scale=True, **threads)
    except InvalidDataError:
        raise
    except (OSError, ValueError, rasterio.errors.RasterioError) as error:
        fault = Fault(
            file=str(path),
            expected="a GeoTIFF, NetCDF-4 or Zarr raster",
            found=f"a file that cannot be read ({error})",
            remedy="fetch it again, or convert it with gdal_translate",
        )
        raise InvalidDataError(fault) from error
    raster = _select_bands(raster, bands)
    stated = crs_of(raster)
    if stated is None and crs is None:
        raise InvalidDataError(missing_crs_fault(raster))
    if stated is not None and crs is not None and not same_crs(CRS.from_user_input(crs), stated):
        raise InvalidDataError(
            Fault(
                file=str(path),
                field="crs",
                expected=CRS.from_user_input(crs).to_string(),
                found=stated.to_string(),
                remedy="leave out crs: the file's own is right, or mend the file",
            )
        )
    axes_of(raster)
    raster.attrs.pop("grid_mapping", None)
    encoding = raster.encoding
    opened: xr.DataArray = raster.rio.write_crs(stated if stated is not None else crs)
    opened.encoding = {**encoding, "grid_mapping": "spatial_ref"}
    return opened


def chunked(raster: xr.DataArray) -> xr.DataArray:
    """Chunks of whole blocks of the file, small enough that a window does not read far beyond."""
    import dask

    with dask.config.set({"array.chunk-size": "8MiB"}):
        return raster.chunk("auto")


def velocity_components(path: str | os.PathLike[str]) -> tuple[str, str] | None:
    """Names of a NetCDF file's variables vx and vy, whatever their case; None without them."""
    path = Path(path)
    if path.suffix.lower() not in _NETCDF_SUFFIXES or not path.is_file():
        return None
    import h5netcdf

    try:
        with h5netcdf.File(path) as file:
            names = {name.lower(): name for name in file.variables}
    except (OSError, ValueError):
        return None  # open_raster says what is wrong with it
    return (names["vx"], names["vy"]) if {"vx", "vy"} <= names.keys() else None


def _open_variable(path: Path, variable: str | None) -> xr.DataArray:
    with warnings.catch_warnings():
        # A grid mapping that is named and absent is no fault where attrs["crs"] states the CRS.
        warnings.filterwarnings("ignore", message=r"Variable\(s\) referenced in grid_mapping")
        if path.is_dir():
            with required_extra("grid"):
                import zarr  # noqa: F401  # xarray reads stores with it
            dataset = xr.open_zarr(path, decode_coords="all", consolidated=False)
        else:
            dataset = xr.open_dataset(path, engine="h5netcdf", decode_coords="all")
    names = sorted(str(name) for name, data in dataset.data_vars.items() if data.ndim >= 2)
    if variable is None:
        named = (dataset[name].attrs.get("ancillary_variables", "") for name in names)
        ancillary = {name for text in named for name in str(text).split()}
        main = [name for name in names if name not in ancillary]
        if len(main) > 1:
            main = [name for name in main if "ancillary_variables" in dataset[name].attrs]
        variable = main[0] if len(main) == 1 else None
    if variable not in names:
        raise InvalidDataError(
            Fault(
                file=str(path),
                field="variable",
                expected=f"one of {', '.join(names) or 'no raster at all'}",
                found="none chosen" if variable is None else repr(variable),
                remedy="name the variable",
            )
        )
    raster = along_xy(dataset[variable])
    raster.encoding.setdefault("source", str(path))
    for key in ("crs", "provenance"):
        if key not in raster.attrs and key in dataset.attrs:
            raster.attrs[key] = dataset.attrs[key]
    return raster


def along_xy(raster: xr.DataArray) -> xr.DataArray:
    """The raster with its horizontal dimensions, such as longitude and latitude, named x and y."""
    try:
        names = {raster.rio.x_dim: "x", raster.rio.y_dim: "y"}
    except RioXarrayError as error:
        fault = Fault(
            file=name_of(raster),
            expected="dimensions x and y",
            found=str(raster.dims),
            remedy="rename two of them",
        )
        raise InvalidDataError(fault) from error
    return raster.rename({given: name for given, name in names.items() if given != name})


def _select_bands(raster: xr.DataArray, bands: int | Sequence[int] | None) -> xr.DataArray:
    extra = [dim for dim in raster.dims if dim not in ("y", "x")]
    if not extra:
        count = 1
    elif len(extra) == 1:
        count = raster.sizes[extra[0]]
    else:
        raise InvalidDataError(
            Fault(
                file=name_of(raster),
                expected="dimensions (y, x) or (band, y, x)",
                found=str(raster.dims),
                remedy="select one of each further dimension first",
            )
        )
    wanted = range(1, count + 1) if bands is None else [bands] if isinstance(bands, int) else bands
    absent = [band for band in wanted if not 1 <= band <= count]
    if absent:
        raise InvalidDataError(
            Fault(
                file=name_of(raster),
                field="band",
                expected=f"1 to {count}",
                found=", ".join(map(str, absent)),
            )
        )
    if not extra:
        return raster
    if len(wanted) == 1:
        return raster.isel({extra[0]: wanted[0] - 1}, drop=True)
    if list(wanted) != list(range(1, count + 1)):
        raster = raster.isel({extra[0]: [band - 1 for band in wanted]})
    return raster.transpose(extra[0], "y", "x")


def geoid_variable(path: Path) -> str | None:
    """Name of the geoid in a NetCDF file of several variables; None where none is called one."""
    if path.suffix.lower() not in _NETCDF_SUFFIXES or not path.is_file():
        return None
    import h5netcdf

    try:
        with h5netcdf.File(path) as file:
            names = [
                name
                for name, variable in file.variables.items()
                if variable.attrs.get("standard_name") == "geoid_height_above_reference_ellipsoid"
            ]
    except (OSError, ValueError):
        return None  # open_raster says what is wrong with it
    return names[0] if len(names) == 1 else None
