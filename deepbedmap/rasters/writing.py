"""Write rasters as GeoTIFF, Cloud Optimized GeoTIFF or NetCDF, with units, datum and provenance.

A file appears complete or not at all.
"""

from __future__ import annotations

import contextlib
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
    from collections.abc import Callable, Iterator
    from typing import Any, Literal

    import numpy.typing as npt

ZARR_FORMAT: Literal[3] = 3
"""Format of every Zarr store that this package writes."""

_COG_TILE = 512  # cells along a side of a tile of a Cloud Optimized GeoTIFF
_PIECE = 1024  # least number of cells along a side of the pieces that write_cog computes
_INT16_NODATA = -32_768


def write_geotiff(grid: xr.DataArray, path: str | os.PathLike[str]) -> Path:
    """Write a raster as a tiled, deflated GeoTIFF, north up, nodata NaN.

    The file appears complete or not at all. Attributes become tags, so that units, vertical datum
    and provenance are kept. Integers are written as float32.
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
        ``(y, x)``, y in either direction; in dask chunks or from a file, it is never held whole.
    path
        File to write, which appears complete or not at all. Until then a temporary folder next to
        it takes as much space as the cells do uncompressed.
    dtype
        ``"float32"``, the default for all but 8-bit integers, which are flags and keep their type;
        or ``"int16"``: metres rounded to whole numbers, halves to even ones.
    progress
        Called with the number of pieces written so far, and in total.

    Returns
    -------
    pathlib.Path
        The file: north up, tiles of 512 cells, deflated with a predictor, nodata NaN or, for int16,
        -32768 (flags have none). Overviews are averages; for flags, the nearest cell. Attributes
        become tags, so that units, vertical datum and provenance are kept.

    Raises
    ------
    InvalidDataError
        A value does not fit int16; the disk is full or the folder cannot be written.
    ValueError
        ``dtype`` is another one, or is passed for flags.
    """
    path, flags = Path(path), raster.dtype.kind in "iu" and raster.dtype.itemsize == 1
    if dtype not in (None, "float32", "int16") or (flags and dtype):
        raise WrongCallError(
            f"dtype: expected {'None' if flags else 'float32 or int16'}, not {dtype}"
        )
    stored_type = str(raster.dtype) if flags else dtype or "float32"
    described = without_packing(raster.transpose("y", "x"))
    if axes_of(described)[1][1] > 0:
        described = described.isel(y=slice(None, None, -1))
    pieces = _pieces(described)
    # In two steps: GDAL's COG driver can only copy a complete file, not write one piece by piece.
    with workplace(path) as folder, rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE):
        plain, optimized = folder / "plain.tif", folder / path.name
        with _plain_geotiff(plain, described, stored_type, flags) as file:
            for number, (down, across) in enumerate(pieces, 1):
                values = described.isel(y=down, x=across).to_numpy()
                if stored_type == "int16":
                    values = _whole_metres(values, path)
                window = rasterio.windows.Window.from_slices(down, across)
                file.write(values.astype(stored_type, copy=False), 1, window=window)
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
        except Exception as error:
            # It touches only our own two files, so that whatever GDAL reports is a failed write.
            raise OSError("Write failed") from error
        optimized.replace(path)
    if progress is not None:
        progress(len(pieces) + 1, len(pieces) + 1)
    return path


def _pieces(raster: xr.DataArray) -> list[tuple[slice, slice]]:
    """Return the rows and columns of pieces of a raster, each of whole blocks or chunks."""
    rows, columns = raster.shape
    height, width = (whole_blocks(block_of(raster, dim), _PIECE) for dim in ("y", "x"))
    return [
        (slice(top, min(top + height, rows)), slice(left, min(left + width, columns)))
        for top in range(0, rows, height)
        for left in range(0, columns, width)
    ]


@contextlib.contextmanager
def _plain_geotiff(
    path: Path, raster: xr.DataArray, stored_type: str, flags: bool
) -> Iterator[rasterio.io.DatasetWriter]:
    """Open an uncompressed GeoTIFF for writing, with the cells, CRS and attributes of a raster."""
    xmin, _, _, ymax = bounds_of(raster)
    cell, (rows, columns) = resolution_of(raster), raster.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=columns,
        height=rows,
        count=1,
        dtype=stored_type,
        crs=raster.rio.crs,
        transform=rasterio.Affine(cell, 0, xmin, 0, -cell, ymax),
        nodata=None if flags else _INT16_NODATA if stored_type == "int16" else np.nan,
        tiled=True,
        blockxsize=_COG_TILE,
        blockysize=_COG_TILE,
        bigtiff="if_safer",
    ) as file:
        file.update_tags(**{key: _tag(value) for key, value in raster.attrs.items()})
        file.set_band_description(1, str(raster.attrs.get("long_name", raster.name)))
        yield file


def _tag(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, np.ndarray) else str(value)


def _whole_metres(values: npt.NDArray[np.floating], path: Path) -> npt.NDArray[np.floating]:
    whole = np.rint(values)
    # Infinity does not fit either; NaN compares false and becomes nodata below.
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
    if isinstance(data, xr.DataArray):
        data = data.to_dataset(name=data.name or "z")
    dataset = xr.Dataset(
        {name: without_packing(variable) for name, variable in data.data_vars.items()},
        attrs={"Conventions": "CF-1.11", **data.attrs},
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
    """Return a raster without its file's packing (scale, offset, nodata), but with its CRS."""
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
