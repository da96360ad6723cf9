"""Fill the gaps of a raster or change its cell size, piece by piece."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rasterio.windows
import xarray as xr

from deepbedmap import files
from deepbedmap.errors import WrongCallError
from deepbedmap.rasters.lattice import (
    GDAL_CACHE,
    band_count,
    block_of,
    bounds_of,
    name_of,
    resolution_of,
)
from deepbedmap.rasters.opening import (
    GEOTIFF_SUFFIXES,
    describe_source,
    open_raster,
    velocity_components,
)
from deepbedmap.rasters.reference import require_crs, require_filler
from deepbedmap.rasters.sampling import reader
from deepbedmap.rasters.writing import without_packing

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from deepbedmap.rasters.lattice import Bounds
    from deepbedmap.rasters.sampling import Lattice, Method, Reader

_TILE = 256  # cells a side of a tile of what is written
_MEMORY = 256e6  # bytes that write_resampled takes at once
_BYTES = 48  # of them for a cell of a band that is read and interpolated


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
    if path.suffix.lower() not in GEOTIFF_SUFFIXES:
        raise WrongCallError(f"expected a name that ends in .tif, not {path.name!r}")
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
    described = without_packing(opened)
    provenance = {
        "sources": [
            describe_source(given[role], each.attrs, role, name_of(each))
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
        files.beside(path) as part,
        rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE),
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


def _lattice_bounds(
    raster: xr.DataArray, cell: float, resolution: float | None, bounds: Bounds | None
) -> Bounds:
    """Outer edges of cells of a width: those asked for, else those that cover a raster."""
    if cell <= 0:
        raise WrongCallError(f"resolution {cell} must be positive")
    own = np.array(bounds_of(raster))
    if bounds is not None:
        edges = np.array(bounds, np.float64)
        count = (edges[2:] - edges[:2]) / cell
        if not (np.rint(count) >= 1).all() or np.abs(count - np.rint(count)).max() > 1e-6:
            raise WrongCallError(
                f"bounds {bounds} must be a whole number of cells of {cell:g} m apart,"
                f" not {count[0]:g} x {count[1]:g}"
            )
        if (edges[:2] >= own[2:]).any() or (edges[2:] <= own[:2]).any():
            raise WrongCallError(
                f"bounds {bounds} lie beyond those of the raster, {bounds_of(raster)}"
            )
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
