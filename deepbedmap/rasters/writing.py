"""Write rasters as GeoTIFF, Cloud Optimized GeoTIFF or NetCDF, with units, datum and provenance.

A file appears complete or not at all.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rasterio.shutil
import rasterio.windows
import xarray as xr

from deepbedmap import files
from deepbedmap.errors import Fault, InvalidDataError, WrongCallError
from deepbedmap.files.atomic import workplace
from deepbedmap.rasters.lattice import (
    GDAL_CACHE,
    axes_of,
    block_of,
    bounds_of,
    resolution_of,
    whole_blocks,
)
from deepbedmap.rasters.reference import crs_of

if TYPE_CHECKING:
    import os
    from collections.abc import Callable
    from typing import Any, Literal

    import numpy.typing as npt

_COG_TILE = 512  # likewise, of a Cloud Optimized GeoTIFF
_PIECE = 1024  # cells a side of what write_cog computes at once, at least
_INT16_NODATA = -32_768


def write_geotiff(grid: xr.DataArray, path: str | os.PathLike[str]) -> Path:
    """Write a raster as a tiled, deflated GeoTIFF, north up, nodata NaN.

    The file appears complete or not at all. Attributes become tags, so that units, vertical datum
    and provenance survive. Integers are written as float32.
    """
    path = Path(path)
    grid = without_packing(grid.transpose(..., "y", "x"))
    if not np.issubdtype(grid.dtype, np.floating):
        grid = grid.astype("float32")
    if axes_of(grid)[1][1] > 0:
        grid = grid.isel(y=slice(None, None, -1))
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.beside(path) as part:
        grid.rio.write_nodata(np.nan).rio.to_raster(
            part,
            driver="GTiff",
            tiled=True,
            blockxsize=256,
            blockysize=256,
            compress="deflate",
            predictor=3,
            bigtiff="if_safer",
        )
    return path


def write_cog(
    raster: xr.DataArray,
    path: str | os.PathLike[str],
    *,
    dtype: Literal["float32", "int16"] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write one band as a Cloud Optimized GeoTIFF, piece by piece.

    Parameters
    ----------
    raster
        ``(y, x)``, y in either direction; in dask's chunks or from a file, it is never held whole.
    path
        Of the file, which appears complete or not at all. Meanwhile a folder beside it takes as
        much as the cells do uncompressed.
    dtype
        ``"float32"``, by default of all but integers of 8 bits, which are flags and stay; or
        ``"int16"``: whole metres, halves to the even one.
    progress
        Told how many pieces of how many are written.

    Returns
    -------
    pathlib.Path
        The file: north up, tiles of 512 cells, deflated with a predictor, nodata NaN or, of int16,
        -32768 (flags have none). Overviews are averages; of flags, the nearest cell. Attributes
        become tags, so that units, vertical datum and provenance survive.

    Raises
    ------
    InvalidDataError
        A value does not fit int16; the folder is full or cannot be written.
    ValueError
        Flags with a ``dtype``, or another one.
    """
    path, flags = Path(path), raster.dtype.kind in "iu" and raster.dtype.itemsize == 1
    if dtype not in (None, "float32", "int16") or (flags and dtype):
        raise WrongCallError(
            f"dtype: expected {'None' if flags else 'float32 or int16'}, not {dtype}"
        )
    written = str(raster.dtype) if flags else dtype or "float32"
    described = without_packing(raster.transpose("y", "x"))
    if axes_of(described)[1][1] > 0:
        described = described.isel(y=slice(None, None, -1))
    xmin, _, _, ymax = bounds_of(described)
    cell, (rows, columns) = resolution_of(described), described.shape
    steps = [whole_blocks(block_of(described, dim), _PIECE) for dim in ("y", "x")]
    pieces = [
        (slice(top, min(top + steps[0], rows)), slice(left, min(left + steps[1], columns)))
        for top in range(0, rows, steps[0])
        for left in range(0, columns, steps[1])
    ]
    with workplace(path) as folder, rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE):
        plain, optimized = folder / "plain.tif", folder / path.name
        with rasterio.open(
            plain,
            "w",
            driver="GTiff",
            width=columns,
            height=rows,
            count=1,
            dtype=written,
            crs=described.rio.crs,
            transform=rasterio.Affine(cell, 0, xmin, 0, -cell, ymax),
            nodata=None if flags else _INT16_NODATA if written == "int16" else np.nan,
            tiled=True,
            blockxsize=_COG_TILE,
            blockysize=_COG_TILE,
            bigtiff="if_safer",
        ) as file:
            file.update_tags(**{key: _tag(value) for key, value in described.attrs.items()})
            file.set_band_description(1, str(described.attrs.get("long_name", described.name)))
            for number, (down, across) in enumerate(pieces, 1):
                values = described.isel(y=down, x=across).to_numpy()
                if written == "int16":
                    values = _whole_metres(values, path)
                window = rasterio.windows.Window.from_slices(down, across)
                file.write(values.astype(written, copy=False), 1, window=window)
                if progress is not None:
                    progress(number, len(pieces) + 1)
        try:
            rasterio.shutil.copy(
                plain,
                optimized,
                driver="COG",
                BLOCKSIZE=_COG_TILE,
                COMPRESS="DEFLATE",
                PREDICTOR="YES",
                OVERVIEW_RESAMPLING="NEAREST" if flags else "AVERAGE",
                BIGTIFF="IF_SAFER",
                NUM_THREADS="ALL_CPUS",
            )
        except Exception as error:  # it touches our own two files alone, and fails in many words
            raise OSError("Write failed") from error
        optimized.replace(path)
    if progress is not None:
        progress(len(pieces) + 1, len(pieces) + 1)
    return path


def _tag(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, np.ndarray) else str(value)


def _whole_metres(values: npt.NDArray[np.floating], path: Path) -> npt.NDArray[np.floating]:
    whole = np.rint(values)
    # Also infinity does not fit.
    beyond = np.abs(whole) > -_INT16_NODATA - 1
    if beyond.any():
        raise InvalidDataError(
            Fault(
                str(path),
                expected="values from -32767 to 32767 for int16",
                found=f"{values[beyond][0]:g}",
                remedy="write float32",
            )
        )
    return np.where(np.isnan(whole), _INT16_NODATA, whole)


def write_netcdf(data: xr.DataArray | xr.Dataset, path: str | os.PathLike[str]) -> Path:
    """Write a raster, or a dataset of rasters, as compressed NetCDF-4 that follows CF.

    The file appears complete or not at all. A raster without a name is called ``z``.
    """
    path = Path(path)
    given = data.to_dataset(name=data.name or "z") if isinstance(data, xr.DataArray) else data
    dataset = xr.Dataset(
        {name: without_packing(variable) for name, variable in given.data_vars.items()},
        attrs={"Conventions": "CF-1.11", **given.attrs},
    )
    encoding = {
        name: {"zlib": True, "complevel": 4, "shuffle": True, **variable.encoding}
        | ({"_FillValue": np.nan} if np.issubdtype(variable.dtype, np.floating) else {})
        for name, variable in dataset.data_vars.items()
        if np.issubdtype(variable.dtype, np.number)
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.beside(path) as part:
        dataset.to_netcdf(part, engine="h5netcdf", encoding=encoding)
    return path


def without_packing(raster: xr.DataArray) -> xr.DataArray:
    """The raster without the packing of the file that it came from, its CRS kept."""
    crs = crs_of(raster)
    raster = raster.drop_encoding()
    raster.attrs = {
        key: value
        for key, value in raster.attrs.items()
        if value is not None and key not in ("grid_mapping", "_FillValue", "crs")
    }
    if crs is None:
        return raster
    described: xr.DataArray = raster.rio.write_crs(crs).rio.write_coordinate_system()
    return described
