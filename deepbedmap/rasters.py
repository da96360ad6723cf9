"""Rasters: open, write, read at places; their bounds, what they refer to, and its conversion.

A raster here is a :class:`xarray.DataArray` with dimensions ``(y, x)`` or ``(band, y, x)``, square
cells whose centres are the coordinates ``x`` and ``y`` (in either direction), NaN where nothing is
known, and a coordinate reference system that rioxarray finds.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt
import pandas as pd
import rasterio.errors
import rasterio.shutil
import rasterio.windows
import rioxarray
import xarray as xr
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError, ProjError
from rioxarray.exceptions import RioXarrayError

from deepbedmap import repository
from deepbedmap.errors import Fault, InvalidDataError, MissingDataError

Bounds = tuple[float, float, float, float]
Method = Literal["nearest", "linear", "cubic"]
Geoids = Mapping[str, xr.DataArray | str | os.PathLike[str]]

# What heights may refer to; all but the first are geoids.
VERTICAL_DATUMS = ("ellipsoid", "EIGEN-GL04C", "EIGEN-6C4")

_NETCDF_SUFFIXES = {".nc", ".nc4", ".h5"}
_GEOTIFF_SUFFIXES = {".tif", ".tiff"}
_TILE = 256  # cells a side of a tile of what is written
_COG_TILE = 512  # likewise, of a Cloud Optimized GeoTIFF
_PIECE = 1024  # cells a side of what write_cog computes at once, at least
_INT16_NODATA = -32_768
_UNWRITABLE = [
    *(os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)),
    *(os.strerror(code) for code in (errno.EACCES, errno.EPERM, errno.EROFS)),
    *(os.strerror(code) for code in (errno.ENOTDIR, errno.EEXIST)),
    *("Write failed", "Write error", "write error"),  # of GDAL, which keeps the reason to itself
]
_MEMORY = 256e6  # bytes that write_resampled takes at once
_BYTES = 48  # of them for a cell of a band that is read and interpolated
_PANE = 2048  # cells a side of what sample reads at once
_POINTS = 1_000_000  # points that it takes at once
_CACHE = 128 * 2**20  # bytes of blocks that GDAL keeps meanwhile
# Targets this close to a cell centre (in cells) lie on it: rounding gives no neighbour a weight.
_ON_CENTRE = 1e-8


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
            threads = (
                {"num_threads": "all_cpus"} if path.suffix.lower() in _GEOTIFF_SUFFIXES else {}
            )
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
        raise InvalidDataError(_no_crs(raster))
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
    _axes(raster)
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
    raster = _along_xy(dataset[variable])
    raster.encoding.setdefault("source", str(path))
    for key in ("crs", "provenance"):
        if key not in raster.attrs and key in dataset.attrs:
            raster.attrs[key] = dataset.attrs[key]
    return raster


def _along_xy(raster: xr.DataArray) -> xr.DataArray:
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


def write_geotiff(grid: xr.DataArray, path: str | os.PathLike[str]) -> Path:
    """Write a raster as a tiled, deflated GeoTIFF, north up, nodata NaN.

    The file appears complete or not at all. Attributes become tags, so that units, vertical datum
    and provenance survive. Integers are written as float32.
    """
    path = Path(path)
    grid = _tidy(grid.transpose(..., "y", "x"))
    if not np.issubdtype(grid.dtype, np.floating):
        grid = grid.astype("float32")
    if _axes(grid)[1][1] > 0:
        grid = grid.isel(y=slice(None, None, -1))
    path.parent.mkdir(parents=True, exist_ok=True)
    with repository.beside(path) as part:
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
        raise ValueError(f"dtype: expected {'None' if flags else 'float32 or int16'}, not {dtype}")
    written = str(raster.dtype) if flags else dtype or "float32"
    described = _tidy(raster.transpose("y", "x"))
    if _axes(described)[1][1] > 0:
        described = described.isel(y=slice(None, None, -1))
    xmin, _, _, ymax = bounds_of(described)
    cell, (rows, columns) = resolution_of(described), described.shape
    steps = [_whole_blocks(block_of(described, dim), _PIECE) for dim in ("y", "x")]
    pieces = [
        (slice(top, min(top + steps[0], rows)), slice(left, min(left + steps[1], columns)))
        for top in range(0, rows, steps[0])
        for left in range(0, columns, steps[1])
    ]
    with workplace(path) as folder, rasterio.Env(GDAL_CACHEMAX=_CACHE):
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


def _whole_blocks(block: int, least: int) -> int:
    return -(-block // least) * least


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


@contextmanager
def workplace(path: Path) -> Iterator[Path]:
    """Give a folder beside a product's place to build it in, which is gone in the end.

    Raises
    ------
    InvalidDataError
        The place is full, or cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=f".{path.name}.", dir=path.parent, ignore_cleanup_errors=True
        ) as folder:
            yield Path(folder)
    except (OSError, RuntimeError) as error:  # HDF5 raises either, GDAL its own OSError
        reason = next((text for text in _UNWRITABLE if text in _chain(error)), None)
        if reason is None:
            raise
        raise InvalidDataError(
            Fault(
                str(path),
                expected="a folder with room that can be written",
                found=f"{reason.lower()}; nothing was written",
                remedy="make room, or choose another folder",
            )
        ) from error


def _chain(error: BaseException | None) -> str:
    """What an error says, and what those say that led to it."""
    return "" if error is None else f"{error}\n{_chain(error.__cause__ or error.__context__)}"


def write_resampled(
    raster: str | os.PathLike[str] | xr.DataArray,
    path: str | os.PathLike[str],
    resolution: float | None = None,
    bounds: Bounds | None = None,
    filler: str | os.PathLike[str] | xr.DataArray | None = None,
    method: Method = "linear",
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Fill the gaps of a raster, or give it other cells, without ever holding it whole.

    Parameters
    ----------
    raster
        A file, opened as by :func:`open_raster` (of a NetCDF file with ``vx`` and ``vy``, these two
        as bands), or ``(y, x)`` or ``(band, y, x)``; y in either direction.
    path
        Of the GeoTIFF, whose name ends in ``.tif``. It appears complete or not at all.
    resolution
        Width of the new cells in metres; the raster's own by default. Nothing is averaged: where
        they are wider than the raster's, only the cells around each centre count, so what is less
        than about two new cells wide is aliased. From 450 m to 500 m that hardly matters.
    bounds
        Outer edges of the new cells, a whole number of these apart, which may reach beyond the
        raster. By default the raster's own; with another resolution they move outward to whole
        multiples of it.
    filler
        A second raster of the same bands, CRS and vertical datum: it gives the cells that the first
        has no value for, interpolated at the same centres.
    method
        ``"nearest"``, ``"linear"`` or ``"cubic"``, as in :func:`interpolate`.
    progress
        Called with the number of pieces that are written, and of all.

    Returns
    -------
    pathlib.Path
        The file: float32, tiled, deflated, north up, NaN where neither raster has a value; no value
        is ever blended with nodata. A gap that there is no filler for stays one. Attributes are
        those of the raster; ``provenance`` names both rasters, with the SHA-256 of those given by
        path.

    Raises
    ------
    InvalidDataError
        A raster cannot be opened (see :func:`open_raster`), has no CRS, or the two differ in CRS or
        vertical datum: nothing is reprojected.
    MissingDataError
        There is no such file.
    ValueError
        Bounds that are no whole number of cells, or lie beyond the raster; a filler with other
        bands; another suffix.

    Notes
    -----
    Beside GDAL's cache of blocks, held to 128 MiB, this takes about 256 MB, whatever the size of
    the raster: more only where a chunk of a NetCDF file or of dask does.
    """
    path = Path(path)
    if path.suffix.lower() not in _GEOTIFF_SUFFIXES:
        raise ValueError(f"expected a name that ends in .tif, not {path.name!r}")
    given = {"raster": raster} | ({} if filler is None else {"filler": filler})
    rasters = [_open_source(source) for source in given.values()]
    opened = rasters[0]
    require_crs(opened)
    for other in rasters[1:]:
        require_filler(other, opened)
    readers = [reader(each) for each in rasters]
    cell = resolution_of(opened) if resolution is None else resolution
    xmin, ymin, xmax, ymax = _lattice_bounds(opened, cell, resolution, bounds)
    columns, rows = round((xmax - xmin) / cell), round((ymax - ymin) / cell)
    x, y = xmin + (np.arange(columns) + 0.5) * cell, ymax - (np.arange(rows) + 0.5) * cell
    pieces = _pieces(opened, rows, columns, cell, min(cell, *map(resolution_of, rasters)))
    described = _tidy(opened)
    provenance = {
        "sources": [
            _describe_source(given[role], each.attrs, role, name_of(each))
            for role, each in zip(given, rasters, strict=True)
        ],
        "parameters": {"resolution": cell, "bounds": [xmin, ymin, xmax, ymax], "method": method},
    }
    tags = described.attrs | {"provenance": json.dumps(provenance)}
    tags.pop("ancillary_variables", None)
    names = tags.pop("long_name", None)
    if opened.ndim == 3 and opened[opened.dims[0]].dtype.kind in "UO":
        names = opened[opened.dims[0]].to_numpy().tolist()
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        repository.beside(path) as part,
        rasterio.Env(GDAL_CACHEMAX=_CACHE),
        rasterio.open(
            part,
            "w",
            driver="GTiff",
            width=columns,
            height=rows,
            count=band_count(opened),
            dtype="float32",
            crs=described.rio.crs,
            transform=rasterio.Affine(cell, 0, xmin, 0, -cell, ymax),
            nodata=np.nan,
            tiled=True,
            blockxsize=_TILE,
            blockysize=_TILE,
            compress="deflate",
            predictor=3,
            bigtiff="if_safer",
            num_threads="all_cpus",
        ) as file,
    ):
        file.update_tags(**{key: str(value) for key, value in tags.items()})
        for band, name in enumerate([names] if isinstance(names, str) else names or [], 1):
            file.set_band_description(band, str(name))
        for number, (down, across) in enumerate(pieces, 1):
            values = _fill(readers, (x[across], y[down]), method)
            window = rasterio.windows.Window.from_slices(down, across)
            file.write(values.reshape(-1, *values.shape[-2:]), window=window)
            if progress is not None:
                progress(number, len(pieces))
    return path


def _open_source(given: str | os.PathLike[str] | xr.DataArray) -> xr.DataArray:
    return (
        given if isinstance(given, xr.DataArray) else open_raster(given, velocity_components(given))
    )


def _describe_source(
    given: Any, attributes: Mapping[Any, Any], role: str, name: str
) -> dict[str, Any]:
    """What provenance says of a raster, given by path or not, and of what it was made of."""
    source: dict[str, Any] = {"role": role, "file": Path(name).name}
    if not isinstance(given, xr.DataArray) and Path(given).is_file():
        with Path(given).open("rb") as file:
            source["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    before = _provenance_of(attributes)
    return source | ({"sources": before["sources"]} if "sources" in before else {})


def _lattice_bounds(
    raster: xr.DataArray, cell: float, resolution: float | None, bounds: Bounds | None
) -> Bounds:
    """Outer edges of cells of a width: those asked for, else those that cover a raster."""
    if cell <= 0:
        raise ValueError(f"resolution {cell} must be positive")
    own = np.array(bounds_of(raster))
    if bounds is not None:
        edges = np.array(bounds, np.float64)
        count = (edges[2:] - edges[:2]) / cell
        if not (np.rint(count) >= 1).all() or np.abs(count - np.rint(count)).max() > 1e-6:
            raise ValueError(
                f"bounds {bounds} must be a whole number of cells of {cell:g} m apart,"
                f" not {count[0]:g} x {count[1]:g}"
            )
        if (edges[:2] >= own[2:]).any() or (edges[2:] <= own[:2]).any():
            raise ValueError(f"bounds {bounds} lie beyond those of the raster, {bounds_of(raster)}")
    elif resolution is None:
        edges = own
    else:
        slack = 1e-6 * np.array([1, 1, -1, -1])
        outward = own / cell + slack
        edges = cell * np.concatenate([np.floor(outward[:2]), np.ceil(outward[2:])])
    xmin, ymin, xmax, ymax = edges.tolist()
    return xmin, ymin, xmax, ymax


def _pieces(
    raster: xr.DataArray, rows: int, columns: int, cell: float, finest: float
) -> list[tuple[slice, slice]]:
    """Parts of a lattice of rows and columns that are read, interpolated and written at once.

    They are whole tiles of what is written, as far as memory allows, and as wide as the lattice
    where the raster is stored in strips, which would else be decoded once for each of them.
    """
    most = _MEMORY / _BYTES / band_count(raster) * (finest / cell) ** 2
    strips = block_of(raster, "x") >= raster.sizes["x"] > 8 * block_of(raster, "y")
    width = columns if strips else min(columns, _whole_tiles(most**0.5))
    height = _whole_tiles(most / width)
    return [
        (slice(row, min(row + height, rows)), slice(column, min(column + width, columns)))
        for row in range(0, rows, height)
        for column in range(0, columns, width)
    ]


def _whole_tiles(cells: float) -> int:
    return int(cells // _TILE * _TILE) or max(1, int(cells))


def _fill(readers: Sequence[Reader], lattice: Lattice, method: Method) -> npt.NDArray[np.float32]:
    """Values on a lattice, of the first raster that has one there."""
    (first,) = readers[0]([lattice], method)
    values = first.astype(np.float32, copy=False)
    for read in readers[1:]:
        hole = np.isnan(values)
        if hole.any():
            (filled,) = read([lattice], method)
            values = np.where(hole, filled.astype(np.float32, copy=False), values)
    return values


def write_netcdf(data: xr.DataArray | xr.Dataset, path: str | os.PathLike[str]) -> Path:
    """Write a raster, or a dataset of rasters, as compressed NetCDF-4 that follows CF.

    The file appears complete or not at all. A raster without a name is called ``z``.
    """
    path = Path(path)
    given = data.to_dataset(name=data.name or "z") if isinstance(data, xr.DataArray) else data
    dataset = xr.Dataset(
        {name: _tidy(variable) for name, variable in given.data_vars.items()},
        attrs={"Conventions": "CF-1.11", **given.attrs},
    )
    encoding = {
        name: {"zlib": True, "complevel": 4, "shuffle": True, **variable.encoding}
        | ({"_FillValue": np.nan} if np.issubdtype(variable.dtype, np.floating) else {})
        for name, variable in dataset.data_vars.items()
        if np.issubdtype(variable.dtype, np.number)
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with repository.beside(path) as part:
        dataset.to_netcdf(part, engine="h5netcdf", encoding=encoding)
    return path


def _tidy(raster: xr.DataArray) -> xr.DataArray:
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


def name_of(raster: xr.DataArray) -> str:
    """The file that a raster was opened from, else its own name: for messages."""
    return str(raster.encoding.get("source") or raster.name or "raster")


def crs_of(raster: xr.DataArray) -> CRS | None:
    """Coordinate reference system of a raster; None where none is stated.

    That is CF's grid mapping or GeoTIFF's keys, else an attribute ``crs`` (``"unknown"`` is none).
    """
    try:
        # rioxarray itself takes an attribute for a CRS, and raises where it is none.
        stated = raster.rio.crs
    except CRSError:
        return None
    return CRS.from_user_input(stated) if stated else None


def require_crs(raster: xr.DataArray) -> CRS:
    """Coordinate reference system of a raster; :class:`InvalidDataError` where it states none."""
    crs = crs_of(raster)
    if crs is None:
        raise InvalidDataError(_no_crs(raster))
    return crs


def _no_crs(raster: xr.DataArray) -> Fault:
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
        One has no CRS, or the two differ. Heights above a geoid and above the ellipsoid differ by
        up to 60 m in Antarctica, so they are never mixed.
    """
    require_crs(first)
    require_reference(
        name_of(second), require_crs(second), second.attrs.get("vertical_datum"), first
    )


def require_filler(filler: xr.DataArray, raster: xr.DataArray) -> None:
    """Check that a raster may fill the gaps of another: as many bands, and the same reference.

    Raises
    ------
    InvalidDataError
        As :func:`require_same_reference`.
    ValueError
        The numbers of bands differ.
    """
    require_same_reference(raster, filler)
    if band_count(filler) != band_count(raster):
        raise ValueError(
            f"the filler has {band_count(filler)} bands, the raster {band_count(raster)}"
        )


def require_reference(name: str, crs: Any, datum: str | None, like: xr.DataArray) -> None:
    """Check that something refers to what a raster refers to.

    Parameters
    ----------
    name
        What it is, for the message.
    crs, datum
        Its CRS (anything that :meth:`pyproj.CRS.from_user_input` takes) and its vertical datum;
        None, or a datum "unknown", is not compared.
    like
        The raster.

    Raises
    ------
    InvalidDataError
        The raster has no CRS, or CRS or vertical datum differ.
    """
    expected = require_crs(like)
    found = expected if crs is None else CRS.from_user_input(crs)
    if not same_crs(found, expected):
        raise InvalidDataError(
            Fault(
                file=name,
                field="crs",
                expected=f"{expected.to_string()} as in {name_of(like)}",
                found=found.to_string(),
                remedy="reproject one of the two",
            )
        )
    datums = _stated(like.attrs.get("vertical_datum")), _stated(datum)
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


def _stated(value: Any) -> str | None:
    return None if value in (None, "", "unknown") else str(value)


def same_crs(one: CRS, other: CRS) -> bool:
    """Whether both give the same positions, to a millimetre, however they are written down.

    CF's attributes of a grid mapping, for one, do not tell which EPSG code they stand for.
    """
    if one.equals(other, ignore_axis_order=True):
        return True
    if one.is_geographic != other.is_geographic:
        return False
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


def bounds_of(raster: xr.DataArray) -> Bounds:
    """Outer edges ``(xmin, ymin, xmax, ymax)`` of a raster's cells, in the units of its CRS.

    Examples
    --------
    >>> bounds_of(xr.DataArray(np.zeros((2, 3)), {"y": [750, 250], "x": [250, 750, 1250]}))
    (0.0, 0.0, 1500.0, 1000.0)
    """
    edges = []
    for first, step, count in _axes(raster):
        edges.append(sorted((first - step / 2, first + step * (count - 0.5))))
    (xmin, xmax), (ymin, ymax) = edges
    return xmin, ymin, xmax, ymax


def resolution_of(raster: xr.DataArray) -> float:
    """Width of a raster's cells, in the units of its CRS."""
    return abs(_axes(raster)[0][1])


def band_count(raster: xr.DataArray) -> int:
    """Number of bands of a raster, ``(y, x)`` or ``(band, y, x)``."""
    return int(raster.sizes[raster.dims[0]]) if raster.ndim == 3 else 1


def block_of(raster: xr.DataArray, dim: str) -> int:
    """Cells along a dimension of what is read at once: a block of the file, or a chunk of dask."""
    stored = raster.encoding.get("preferred_chunks", {}).get(dim, 1)
    return int(max(stored, *raster.chunksizes.get(dim, (1,))))


def _axes(raster: xr.DataArray) -> list[tuple[float, float, int]]:
    """(first centre, signed step, number of cells) along x and along y."""
    _require_xy(raster)
    axes = []
    for dim in ("x", "y"):
        centres = raster[dim].to_numpy().astype(np.float64)
        step = (centres[-1] - centres[0]) / (centres.size - 1) if centres.size > 1 else 0.0
        regular = centres[0] + step * np.arange(centres.size)
        if step == 0 or np.abs(centres - regular).max() > 1e-3 * abs(step):
            raise InvalidDataError(
                Fault(
                    file=name_of(raster),
                    field=dim,
                    expected="at least two cell centres at a constant spacing",
                    found=f"{centres.size} centres" + (", unevenly spaced" if step else ""),
                    remedy="resample it to a regular grid",
                )
            )
        axes.append((float(centres[0]), float(step), centres.size))
    width, height = abs(axes[0][1]), abs(axes[1][1])
    if abs(width - height) > 1e-6 * width:
        raise InvalidDataError(
            Fault(
                file=name_of(raster),
                expected="square cells",
                found=f"cells of {width:g} x {height:g}",
                remedy="resample it to square cells, as with gdalwarp -tr",
            )
        )
    return axes


def _require_xy(raster: xr.DataArray) -> None:
    if any(dim not in raster.dims or dim not in raster.coords for dim in ("x", "y")):
        # This is how rioxarray gives a rotated raster: without coordinates along its dimensions.
        raise InvalidDataError(
            Fault(
                file=name_of(raster),
                expected="a raster along x and y, north up, with coordinates",
                found="one that is rotated or has no coordinates x and y",
                remedy="warp it with gdalwarp",
            )
        )


def sample(
    grid: xr.DataArray, x: npt.ArrayLike, y: npt.ArrayLike, method: Method = "linear"
) -> npt.NDArray[np.float64]:
    """Values of a raster at points.

    A raster that is not in memory is read in parts, each once, and only where there are points.

    Parameters
    ----------
    grid
        One band, ``(y, x)``; y in either direction.
    x, y
        Coordinates of n points, in the CRS of the grid.
    method
        ``"nearest"``, ``"linear"`` (bilinear) or ``"cubic"``, as in :func:`interpolate`.

    Returns
    -------
    numpy.ndarray
        float64 (n,). NaN where a cell that has a weight is NaN (a point on a cell's centre needs
        that cell alone) and for points outside :func:`bounds_of` the grid. Between the outermost
        centres and the outer edges, half a cell, the outermost cells' values hold.

    Examples
    --------
    >>> grid = xr.DataArray([[1.0, 2.0], [3.0, np.nan]], {"y": [1, 0], "x": [0, 1]})
    >>> sample(grid, x=[0.5, 0.0, 0.5], y=[1.0, 0.25, 0.5])
    array([1.5, 2.5, nan])
    """
    x, y = np.broadcast_arrays(np.asarray(x, np.float64), np.asarray(y, np.float64))
    if x.ndim != 1:
        raise ValueError(f"x and y must be one-dimensional, not of shape {x.shape}")
    grid = north_up(grid.squeeze("band", drop=True) if "band" in grid.dims else grid)
    if grid.ndim != 2:
        raise ValueError(f"expected one band, (y, x), found dimensions {grid.dims}")
    xmin, ymin, xmax, ymax = bounds_of(grid)
    axes = _axes(grid)
    nodata = grid.rio.nodata
    values = np.full(x.shape, np.nan)
    inside = np.flatnonzero((x >= xmin) & (x <= xmax) & (y >= ymin) & (y <= ymax))
    with rasterio.Env(GDAL_CACHEMAX=_CACHE):
        for some in _by_pane(grid, inside, x, y):
            columns, rows = (
                _taps((points[some] - first) / step, count, method)
                for points, (first, step, count) in zip((x, y), axes, strict=True)
            )
            across, down = _span([columns]), _span([rows])
            block = _read(grid, down, across, nodata)
            total = np.zeros(some.size)
            for row, row_weight in zip(rows[0] - down.start, rows[1], strict=True):
                for column, column_weight in zip(
                    columns[0] - across.start, columns[1], strict=True
                ):
                    total += row_weight * column_weight * block[row, column]
            values[some] = total
    return values


def _by_pane(
    grid: xr.DataArray,
    numbers: npt.NDArray[np.intp],
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
) -> Iterator[npt.NDArray[np.intp]]:
    """Numbers of points that lie near each other: in one pane, of whole blocks of the file."""
    (x_first, x_step, columns), (y_first, y_step, rows) = _axes(grid)
    width = min(columns, _whole_blocks(block_of(grid, "x"), _PANE))
    height = min(rows, _whole_blocks(block_of(grid, "y"), max(1, _PANE * _PANE // width)))
    if width < columns or height < rows:
        pane = ((y[numbers] - y_first) / y_step + 0.5) // height
        pane *= columns // width + 2
        pane += ((x[numbers] - x_first) / x_step + 0.5) // width
        pane = pane.astype(np.int32)
        numbers = numbers[np.argsort(pane, kind="stable")]
        sizes = np.unique(pane, return_counts=True)[1]
    else:
        sizes = np.array([numbers.size])
    start = 0
    for size in sizes.tolist():
        for begin in range(start, start + size, _POINTS):
            yield numbers[begin : min(begin + _POINTS, start + size)]
        start += size


def interpolate(
    raster: xr.DataArray, x: npt.ArrayLike, y: npt.ArrayLike, method: Method = "linear"
) -> npt.NDArray[np.float64]:
    """Values of a raster on a lattice: at every one of the columns x in every one of the rows y.

    Only the rows and columns that the lattice needs are read.

    Parameters
    ----------
    raster
        ``(y, x)`` or ``(band, y, x)``; y in either direction.
    x, y
        Coordinates of the columns and of the rows.
    method
        ``"nearest"``, ``"linear"`` (bilinear) or ``"cubic"`` (cubic convolution with a = -0.5;
        Keys 1981, doi 10.1109/TASSP.1981.1163711).

    Returns
    -------
    numpy.ndarray
        float64 (rows, columns) or (bands, rows, columns), in the order of y and x. NaN where a cell
        that has a weight is nodata, and outside :func:`bounds_of` the raster. Between the outermost
        centres and the outer edges the outermost cells' values hold.
    """
    (values,) = reader(raster)([(x, y)], method)
    return np.array(values, np.float64)


Lattice = tuple[npt.ArrayLike, npt.ArrayLike]
Reader = Callable[[Sequence[Lattice], Method], Iterator[npt.NDArray[np.floating]]]


def reader(raster: xr.DataArray) -> Reader:
    """What :func:`interpolate` does, as a function for many lattices ``(x, y)``.

    The lattices of one call should lie near each other: the cells that span them all are read at
    once. Each is interpolated, in float64, when it is asked for; at centres of cells the values may
    be a view of the raster's own, in its type. Calls may run in several threads.
    """
    raster = north_up(raster)
    axes = _axes(raster)
    nodata = raster.rio.nodata

    def read(lattices: Sequence[Lattice], method: Method) -> Iterator[npt.NDArray[np.floating]]:
        columns, rows = (
            [_taps((np.asarray(p, np.float64) - first) / step, count, method) for p in points]
            for points, (first, step, count) in zip(zip(*lattices, strict=True), axes, strict=True)
        )
        across, down = _span(columns), _span(rows)
        block = _read(raster, down, across, nodata)
        for column_taps, row_taps in zip(columns, rows, strict=True):
            yield _weigh(_weigh(block, row_taps, down.start, -2), column_taps, across.start, -1)

    return read


def _weigh(
    block: npt.NDArray[np.floating], taps: _Taps, start: int, axis: int
) -> npt.NDArray[np.floating]:
    """Weighted sums along an axis of a block, whose first cell there is start."""
    total: list[npt.NDArray[np.floating]] = []
    for index, weight in zip(taps[0] - start, taps[1], strict=True):
        if not weight.any():
            continue
        if (np.diff(index) == 1).all():  # a view saves time
            cells = block[(..., slice(index[0], index[-1] + 1)) + (slice(None),) * (-1 - axis)]
        else:
            cells = block.take(index, axis)
        if total or (weight != 1).any():
            cells = cells * weight.reshape((-1,) + (1,) * (-1 - axis))
        if total:
            cells += total.pop()
        total.append(cells)
    return total[0]


_Taps = tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]


def _taps(positions: npt.NDArray[np.float64], count: int, method: Method) -> _Taps:
    """Cells that make up the value at each position along an axis of count cells.

    positions are in cells from the first centre. Returns indices and weights, (taps, positions);
    weights are NaN beyond the outer edges.
    """
    outside = (positions < -0.5 - _ON_CENTRE) | (positions > count - 0.5 + _ON_CENTRE)
    centre = np.rint(positions)
    positions = np.where(np.abs(positions - centre) < _ON_CENTRE, centre, positions)
    positions = positions.clip(0, count - 1)
    offsets: tuple[int, ...]
    if method == "nearest":
        base, offsets = np.floor(positions + 0.5), (0,)
        weights = np.ones((1, positions.size))
    elif method == "linear":
        base, offsets = np.floor(positions), (0, 1)
        t = positions - base
        weights = np.stack([1 - t, t])
    elif method == "cubic":
        base, offsets = np.floor(positions), (-1, 0, 1, 2)
        t = positions - base
        weights = 0.5 * np.stack(
            [
                -t + 2 * t**2 - t**3,
                2 - 5 * t**2 + 3 * t**3,
                t + 4 * t**2 - 3 * t**3,
                -(t**2) + t**3,
            ]
        )
    else:
        raise ValueError(f"method must be nearest, linear or cubic, not {method!r}")
    indices = (base + np.asarray(offsets)[:, None]).clip(0, count - 1).astype(np.intp)
    weights[:, outside] = np.nan
    # A tap without weight points to a cell that has one: it reads no further, spoils nothing.
    return np.where(weights == 0, base.astype(np.intp), indices), weights


def _span(taps: Sequence[_Taps]) -> slice:
    """The cells along an axis from the first that has a tap to the last."""
    return slice(
        int(min(index.min() for index, _ in taps)), int(max(index.max() for index, _ in taps)) + 1
    )


def _read(
    raster: xr.DataArray, rows: slice, columns: slice, nodata: float | None
) -> npt.NDArray[np.floating]:
    """Some cells of a raster that is north up, nodata as NaN; a view where that does."""
    # A task of dask's must not wait here for others, which no worker may be free to take.
    block = raster.variable[..., rows, columns].compute(scheduler="threads").to_numpy()
    if not np.issubdtype(block.dtype, np.floating):
        block = block.astype(np.float64)
    if nodata is not None and not np.isnan(nodata):
        block = np.where(block == block.dtype.type(nodata), block.dtype.type(np.nan), block)
    return block


def north_up(raster: xr.DataArray) -> xr.DataArray:
    """The raster with rows from north to south and columns from west to east; nothing is read."""
    (_, x_step, _), (_, y_step, _) = _axes(raster)
    raster = raster.transpose(..., "y", "x")
    if x_step > 0 > y_step:
        return raster
    encoding = raster.encoding
    raster = raster.isel(x=slice(None, None, int(np.sign(x_step))))
    raster = raster.isel(y=slice(None, None, -int(np.sign(y_step))))
    raster.encoding = encoding
    return raster


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
    _require_quantity(heights.attrs, "heights", ("thickness", "geoid_height"), label)
    crs = _crs_of_picks(heights) if isinstance(heights, pd.DataFrame) else require_crs(heights)
    terms: list[_Term] = []
    sources: list[dict[str, str]] = []
    for sign, name in ((1, given), (-1, to)) if given != to else ():
        if name != "ellipsoid":
            geoid, source = _open_geoid(name, geoids, label)
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
        from deepbedmap.schemas import near

        hint = near(str(name), names)
        raise ValueError(f"{name!r} is none of {', '.join(names)}" + (f"; {hint}" if hint else ""))


def _given_datum(attributes: Mapping[Any, Any], datum: str | None, label: str) -> str:
    """What heights refer to: what they say, else what the caller says."""
    stated = _stated(attributes.get("vertical_datum"))
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


def _require_quantity(
    attributes: Mapping[Any, Any], expected: str, unlike: Sequence[str], label: str
) -> None:
    """Check units and CF standard name, where stated; no part of the name may be one of unlike."""
    units, name = attributes.get("units"), str(attributes.get("standard_name", ""))
    if units not in (None, "m", "metre", "metres", "meter", "meters"):
        raise InvalidDataError(Fault(label, field="units", expected="m", found=str(units)))
    if any(part in name for part in unlike):
        raise InvalidDataError(Fault(label, field="standard_name", expected=expected, found=name))


def _crs_of_picks(picks: pd.DataFrame) -> CRS:
    crs = _stated(picks.attrs.get("crs"))
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


def _open_geoid(name: str, geoids: Geoids, label: str) -> tuple[xr.DataArray, dict[str, str]]:
    """Height of a geoid above the ellipsoid, and the source that provenance names."""
    if name not in geoids:
        raise MissingDataError(
            f"{label}: the conversion needs a geoid grid of {name}; "
            "`deepbedmap search geoid` lists those of the registry"
        )
    given = geoids[name]
    if isinstance(given, xr.DataArray):
        geoid = given
        source = {"role": f"geoid {name}", "file": Path(name_of(geoid)).name}
    else:
        path = Path(given)
        geoid = open_raster(path, _geoid_variable(path))
        source = _describe_source(path, {}, f"geoid {name}", path.name)
    _require_quantity(geoid.attrs, "height of a geoid", ("altitude", "thickness"), name_of(geoid))
    keys = ("vertical_datum", "geoid", "title", "long_name")
    said = " ".join(str(geoid.attrs.get(key, "")) for key in keys).upper()
    others = [other for other in VERTICAL_DATUMS[1:] if other in said]
    if others and name not in others:
        raise InvalidDataError(
            Fault(name_of(geoid), field="geoid", expected=name, found=", ".join(others))
        )
    return _along_xy(geoid), source


def _geoid_variable(path: Path) -> str | None:
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


# Added to heights: sign, geoid, and the transformation from the heights' CRS to the geoid's.
_Term = tuple[int, xr.DataArray, Transformer]


def _shift_picks(picks: pd.DataFrame, terms: Sequence[_Term]) -> pd.DataFrame:
    x, y, z = (picks[column].to_numpy(np.float64) for column in ("x", "y", "z"))
    step = x.size // 65_536 + 1
    _require_cover(terms, x[::step], y[::step], "picks")
    return picks.assign(z=(z + _shift(terms, x, y)).astype(_floating(picks["z"].dtype)))


def _shift_raster(heights: xr.DataArray, terms: Sequence[_Term]) -> xr.DataArray:
    _require_xy(heights)
    some_x, some_y = (heights[dim].to_numpy()[:: heights.sizes[dim] // 256 + 1] for dim in "xy")
    grid_x, grid_y = np.meshgrid(some_x, some_y)
    _require_cover(terms, grid_x.ravel(), grid_y.ravel(), name_of(heights))
    nodata = heights.rio.nodata
    dtype = _floating(heights.dtype)

    def shift(
        values: npt.NDArray[Any], y: npt.NDArray[Any], x: npt.NDArray[Any]
    ) -> npt.NDArray[Any]:
        x, y = np.broadcast_arrays(x, y)
        values = values.astype(np.float64)
        if nodata is not None:
            values[values == nodata] = np.nan
        return (values + _shift(terms, x.ravel(), y.ravel()).reshape(x.shape)).astype(dtype)

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


def _shift(
    terms: Sequence[_Term], x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    total = np.zeros(x.shape)
    for sign, geoid, transformer in terms:
        total += sign * _undulation(geoid, *transformer.transform(x, y))
    return total


def _require_cover(
    terms: Sequence[_Term],
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
    label: str,
) -> None:
    for _, geoid, transformer in terms:
        if x.size and np.isnan(_undulation(geoid, *transformer.transform(x, y))).all():
            raise InvalidDataError(
                Fault(
                    file=name_of(geoid),
                    expected=f"a geoid that covers {label}",
                    found="no value there",
                    remedy="check the CRS of both, or take a larger geoid grid",
                )
            )


def _undulation(
    geoid: xr.DataArray, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Bilinear values of a geoid at points of its CRS; one in degrees goes round the globe."""
    if not require_crs(geoid).is_geographic:
        return sample(geoid, x, y)
    geoid = north_up(geoid)
    (west, step, columns), (north, _, rows) = _axes(geoid)
    with np.errstate(invalid="ignore"):  # a point that has no place in the CRS is infinite
        if step * columns < 360 - step / 2:
            edge = west - step / 2
            return sample(geoid, edge + (x - edge) % 360, y)
        x = west + (x - west) % 360
    values = _round_the_globe(geoid, x, y)
    for pole, rim in ((90, north), (-90, north - step * (rows - 1))):
        gap = abs(pole - rim)
        cap = np.abs(pole - y) < gap
        if 0 < gap <= step and cap.any():
            # The pole has the mean of the row around it, whatever its longitude is said to be.
            around = geoid["x"].to_numpy().astype(np.float64)
            centre = _round_the_globe(geoid, around, np.full(around.shape, rim)).mean()
            outer = _round_the_globe(geoid, x[cap], np.full(int(cap.sum()), rim))
            weight = np.abs(pole - y[cap]) / gap
            values[cap] = weight * outer + (1 - weight) * centre
    return values


def _round_the_globe(
    geoid: xr.DataArray, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """As :func:`sample`, the last column and the first being neighbours."""
    west, step, columns = _axes(geoid)[0]
    east = west + step * (columns - 1)
    values = sample(geoid, np.minimum(x, east), y)
    seam = x > east
    weight = (x[seam] - east) / (west + 360 - east)
    first = sample(geoid, np.full(weight.shape, west), y[seam])
    values[seam] = (1 - weight) * values[seam] + weight * first
    return values


def _joined(before: Iterable[Any], sources: Iterable[Any]) -> list[Any]:
    before = list(before)
    return before + [source for source in sources if source not in before]


def _provenance_of(attributes: Mapping[Any, Any]) -> dict[str, Any]:
    """What attributes say of how something was made; text that is no JSON object as it is."""
    text = attributes.get("provenance") or "{}"
    try:
        provenance = json.loads(text)
    except ValueError:
        provenance = None
    return provenance if isinstance(provenance, dict) else {"text": text}


def _describe_conversion(
    heights: xr.DataArray, given: str, to: str, sources: Sequence[Mapping[str, str]]
) -> dict[str, str]:
    """Attributes of converted heights: what they are called, and their provenance."""
    before = _provenance_of(heights.attrs)
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
