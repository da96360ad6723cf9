"""Fill the gaps of a raster or change its cell size, piece by piece."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rasterio.windows
import xarray as xr

from deepbedmap import files
from deepbedmap.errors import WrongCallError
from deepbedmap.provenance import describe_source
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
    open_raster,
    velocity_components,
)
from deepbedmap.rasters.reference import require_crs, require_filler
from deepbedmap.rasters.sampling import reader
from deepbedmap.rasters.writing import without_packing

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    import numpy.typing as npt

    from deepbedmap.places import Bounds
    from deepbedmap.rasters.sampling import Lattice, Method, Reader

_TILE = 256  # cells along a side of a tile of the file that is written
_MEMORY = 256e6  # bytes of memory that write_resampled uses
_BYTES = 48  # bytes of it per cell and band that is read and interpolated


def write_resampled(
    raster: str | os.PathLike[str] | xr.DataArray,
    path: str | os.PathLike[str],
    resolution: float | None = None,
    bounds: Bounds | None = None,
    filler: str | os.PathLike[str] | xr.DataArray | None = None,
    method: Method = "linear",
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Fill the gaps of a raster or change its cell size, without ever holding it whole.

    Parameters
    ----------
    raster
        A file, opened as by :func:`open_raster` (from a NetCDF file with ``vx`` and ``vy``, these
        two as bands), or ``(y, x)`` or ``(band, y, x)``; y in either direction.
    path
        GeoTIFF to write, whose name ends in ``.tif``. It appears complete or not at all.
    resolution
        Width of the new cells in metres; the raster's own by default. Nothing is averaged: where
        the new cells are wider than the raster's, only the cells around each centre count, so that
        features less than about two new cells wide are aliased. From 450 m to 500 m that hardly
        matters.
    bounds
        Outer edges of the new cells, a whole number of cells apart, which may extend beyond the
        raster. By default the raster's own; with another resolution they move outward to whole
        multiples of it.
    filler
        A second raster with the same bands, CRS and vertical datum: it supplies the cells for which
        the first has no value, interpolated at the same centres.
    method
        ``"nearest"``, ``"linear"`` or ``"cubic"``, as in :func:`interpolate`.
    progress
        Called with the number of pieces written so far, and in total.

    Returns
    -------
    pathlib.Path
        The file: float32, tiled, deflated, north up, NaN where neither raster has a value; no value
        is ever blended with nodata. Attributes are copied from the raster; ``provenance`` names
        both rasters, with the SHA-256 of those passed as paths.

    Raises
    ------
    InvalidDataError
        A raster cannot be opened (see :func:`open_raster`) or has no CRS, or the two differ in CRS
        or vertical datum: nothing is reprojected.
    MissingDataError
        A file does not exist.
    ValueError
        The bounds are not a whole number of cells apart, or do not touch the raster; the filler has
        another number of bands; the path has another suffix.

    Notes
    -----
    In addition to GDAL's cache of blocks, limited to 128 MiB, this takes about 256 MB, whatever the
    size of the raster: more only where a chunk of a NetCDF file or of dask does.

    Examples
    --------
    >>> import tempfile
    >>> bed = xr.DataArray([[1.0, 3.0], [5.0, 7.0]], {"y": [750, 250], "x": [250, 750]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     bed = bed.rio.write_crs("EPSG:3031")
    ...     file = write_resampled(bed, f"{folder}/bed.tif", resolution=250)
    ...     open_raster(file).values[0]
    array([1. , 1.5, 2.5, 3. ], dtype=float32)
    """
    path = Path(path)
    if path.suffix.lower() not in GEOTIFF_SUFFIXES:
        raise WrongCallError(f"expected a name that ends in .tif, not {path.name!r}")
    sources = {"raster": raster} | ({} if filler is None else {"filler": filler})
    rasters = {role: _open_source(source) for role, source in sources.items()}
    opened = rasters["raster"]
    require_crs(opened)
    if filler is not None:
        require_filler(rasters["filler"], opened)
    cell = resolution_of(opened) if resolution is None else resolution
    edges = _lattice_bounds(opened, cell, resolution, bounds)
    xmin, _, _, ymax = edges
    rows, columns = _shape_of(edges, cell)
    x, y = xmin + (np.arange(columns) + 0.5) * cell, ymax - (np.arange(rows) + 0.5) * cell
    finest = min(cell, *map(resolution_of, rasters.values()))
    pieces = _pieces(opened, rows, columns, cell, finest)
    provenance = {
        "sources": [
            describe_source(
                role,
                name_of(rasters[role]),
                rasters[role].attrs,
                None if isinstance(source, xr.DataArray) else source,
            )
            for role, source in sources.items()
        ],
        "parameters": {"resolution": cell, "bounds": list(edges), "method": method},
    }
    readers = [reader(each) for each in rasters.values()]
    with _new_geotiff(path, opened, edges, cell, provenance) as file:
        for number, (down, across) in enumerate(pieces, 1):
            values = _fill(readers, (x[across], y[down]), method)
            window = rasterio.windows.Window.from_slices(down, across)
            file.write(values.reshape(-1, *values.shape[-2:]), window=window)
            if progress is not None:
                progress(number, len(pieces))
    return path


@contextlib.contextmanager
def _new_geotiff(
    path: Path, like: xr.DataArray, bounds: Bounds, cell: float, provenance: Mapping[str, Any]
) -> Iterator[rasterio.io.DatasetWriter]:
    """Open a GeoTIFF for writing, with the bands, CRS and attributes of a raster.

    It appears under its path when the context ends without an error.
    """
    described = without_packing(like)
    tags = described.attrs | {"provenance": json.dumps(provenance)}
    tags.pop("ancillary_variables", None)
    names = tags.pop("long_name", None)
    if like.ndim == 3 and like[like.dims[0]].dtype.kind in "UO":
        names = like[like.dims[0]].to_numpy().tolist()
    rows, columns = _shape_of(bounds, cell)
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
            count=band_count(like),
            dtype="float32",
            crs=described.rio.crs,
            transform=rasterio.Affine(cell, 0, bounds[0], 0, -cell, bounds[3]),
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
        yield file


def _open_source(source: str | os.PathLike[str] | xr.DataArray) -> xr.DataArray:
    if isinstance(source, xr.DataArray):
        return source
    return open_raster(source, velocity_components(source))


def _shape_of(bounds: Bounds, cell: float) -> tuple[int, int]:
    """Return rows and columns of the cells within bounds."""
    xmin, ymin, xmax, ymax = bounds
    return round((ymax - ymin) / cell), round((xmax - xmin) / cell)


def _lattice_bounds(
    raster: xr.DataArray, cell: float, resolution: float | None, bounds: Bounds | None
) -> Bounds:
    """Return the outer edges of the new cells: the caller's, else those that cover the raster."""
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
                f"bounds {bounds} are outside those of the raster, {bounds_of(raster)}"
            )
    elif resolution is None:
        edges = own
    else:
        # An edge that is a multiple but for rounding must not move outward by a whole cell.
        slack = 1e-6 * np.array([1, 1, -1, -1])
        outward = own / cell + slack
        edges = cell * np.concatenate([np.floor(outward[:2]), np.ceil(outward[2:])])
    xmin, ymin, xmax, ymax = edges.tolist()
    return xmin, ymin, xmax, ymax


def _pieces(
    raster: xr.DataArray, rows: int, columns: int, cell: float, finest: float
) -> list[tuple[slice, slice]]:
    """Return the parts of a lattice that are read, interpolated and written one at a time.

    They are whole tiles of the new file, as many as memory allows, and as wide as the lattice where
    the raster is stored in strips, each of which would otherwise be decoded once per part.
    """
    # A new cell wider than the finest raster's stands for several cells to read.
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
    """Return the values on a lattice, each from the first raster that has one there."""
    (first,) = readers[0]([lattice], method)
    values = first.astype(np.float32, copy=False)
    for read in readers[1:]:
        hole = np.isnan(values)
        if hole.any():
            (filled,) = read([lattice], method)
            values = np.where(hole, filled.astype(np.float32, copy=False), values)
    return values
