"""Cut tiles: the values of a raster in windows, at the tiles' own cell centres."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from deepbedmap import rasters
from deepbedmap.errors import Fault, InvalidDataError, WrongCallError
from deepbedmap.tiles.placement import (
    THREADS,
    cells_across_and_down,
    group_by_pane,
    require_inside,
    window_bounds,
)

if TYPE_CHECKING:
    import os
    from typing import Literal

    import geopandas as gpd
    import numpy.typing as npt


def cut_tiles(
    raster: str | os.PathLike[str] | xr.DataArray,
    windows: gpd.GeoDataFrame | npt.ArrayLike,
    padding: float = 0,
    resolution: float | None = None,
    fill: float | Literal["error"] | None = None,
    method: rasters.Method = "linear",
    filler: str | os.PathLike[str] | xr.DataArray | None = None,
) -> npt.NDArray[np.float32]:
    """Values of a raster in windows of one size, interpolated at the tiles' own cell centres.

    Parameters
    ----------
    raster
        A file (read in parts, never whole), or ``(y, x)`` or ``(band, y, x)``; y in either
        direction.
    windows
        Boxes with a CRS, or bounds (n, 4) in the raster's CRS: xmin, ymin, xmax, ymax; in any
        order.
    padding
        Metres added on every side of a window.
    resolution
        Cell size of the tiles in metres, a whole fraction of the padded window; the raster's own
        by default. Nothing is averaged: of a raster finer than the tiles only the cells around
        each centre count.
    fill
        What a cell becomes when a raster cell with a weight in it is nodata: NaN (None), this
        number, or an error. No height is ever blended with nodata.
    method
        ``"nearest"``, ``"linear"`` or ``"cubic"``, as in :func:`deepbedmap.rasters.interpolate`.
    filler
        A second raster of the same bands, CRS and vertical datum, such as REMA of 200 m for REMA of
        100 m: it gives the cells that the first has no value for, at the same centres. Beyond its
        edges it has none either.

    Returns
    -------
    numpy.ndarray
        float32 (n, bands, height, width), rows from north to south; (0, bands, 0, 0) where
        there are no windows. Up to half a raster cell beyond its outermost centres, but never
        beyond its edges, the outermost values hold.

    Raises
    ------
    InvalidDataError
        A raster without CRS, or whose cells are rotated or not square; windows, or a filler, in
        another CRS (nothing is reprojected); a padded window that reaches beyond the raster's
        edges; nodata, with ``fill="error"``. The message names the raster, the window and the
        place.
    MissingDataError
        There is no such file.

    Notes
    -----
    Windows near each other share one read of the blocks that they need, and those whose cells fall
    together share one interpolation. Beside the tiles and GDAL's cache of blocks this takes at most
    about 256 MB, more only where a single window does.

    Examples
    --------
    >>> centres = np.arange(500.0, 4000, 1000)
    >>> plane = xr.DataArray(centres + 0 * centres[:, None], {"y": centres, "x": centres})
    >>> plane = plane.rio.write_crs("EPSG:3031")
    >>> cut_tiles(plane, [(1000, 1000, 3000, 3000)], resolution=500)[0, 0, 0]
    array([1250., 1750., 2250., 2750.], dtype=float32)
    """
    if isinstance(fill, str) and fill != "error":
        raise WrongCallError(f'fill must be None, a number or "error", not {fill!r}')
    if not isinstance(raster, xr.DataArray):
        raster = rasters.open_raster(raster)
    name = rasters.name_of(raster)
    crs = rasters.require_crs(raster)
    boxes = window_bounds(windows, crs, name)
    cell = rasters.resolution_of(raster) if resolution is None else resolution
    if padding < 0 or cell <= 0:
        raise WrongCallError(f"padding {padding} and resolution {cell} must not be negative")
    boxes = boxes + np.array([-padding, -padding, padding, padding])
    bands = rasters.band_count(raster)
    if filler is not None and not isinstance(filler, xr.DataArray):
        filler = rasters.open_raster(filler)
    if filler is not None:
        rasters.require_filler(filler, raster)
    if len(boxes) == 0:
        return np.empty((0, bands, 0, 0), np.float32)
    require_inside(boxes, raster, name)
    width, height = cells_across_and_down(boxes, cell)
    tiles = np.empty((len(boxes), bands, height, width), np.float32)
    read = rasters.reader(raster)
    read_filler = None if filler is None else rasters.reader(filler)

    def cut(groups: list[npt.NDArray[np.intp]]) -> list[npt.NDArray[np.intp]]:
        """Cut the windows of a pane, those of a group on one lattice; return groups with holes."""
        lattices, places = [], []
        for group in groups:
            west, north = boxes[group, 0].min(), boxes[group, 3].max()
            columns = np.rint((boxes[group, 0] - west) / cell).astype(int)
            rows = np.rint((north - boxes[group, 3]) / cell).astype(int)
            x = west + (np.arange(columns.max() + width) + 0.5) * cell
            y = north - (np.arange(rows.max() + height) + 0.5) * cell
            lattices.append((x, y))
            places.append((rows.tolist(), columns.tolist()))
        holed = []
        parts = zip(groups, lattices, places, read(lattices, method), strict=True)
        for group, lattice, place, values in parts:
            cells = values.astype(np.float32, copy=False)
            hole = np.isnan(cells)
            if hole.any() and read_filler is not None:
                (filled,) = read_filler([lattice], method)
                cells = np.where(hole, filled.astype(np.float32, copy=False), cells)
                hole = np.isnan(cells)
            if hole.any():
                holed.append(group)
                if fill is not None and fill != "error":
                    cells = np.where(hole, np.float32(fill), cells)
            for number, row, column in zip(group, *place, strict=True):
                tiles[number] = cells[..., row : row + height, column : column + width]
        return holed

    finest = min(cell, *(rasters.resolution_of(r) for r in (raster, filler) if r is not None))
    with ThreadPoolExecutor(THREADS) as pool:
        holed = [
            group
            for groups in pool.map(cut, group_by_pane(boxes, raster, cell, finest))
            for group in groups
        ]
    if fill == "error" and holed:
        _require_values(tiles, np.sort(np.concatenate(holed)), boxes, cell, name)
    return tiles


def _require_values(
    tiles: npt.NDArray[np.float32],
    numbers: npt.NDArray[np.intp],
    boxes: npt.NDArray[np.float64],
    cell: float,
    name: str,
) -> None:
    for number in numbers:
        hole = np.isnan(tiles[number])
        if hole.any():
            row, column = np.argwhere(hole)[0, -2:]
            x, y = boxes[number, 0] + (column + 0.5) * cell, boxes[number, 3] - (row + 0.5) * cell
            raise InvalidDataError(
                Fault(
                    file=f"{name}, window {number}",
                    expected="a value in every cell",
                    found=f"nodata at x = {x:.0f}, y = {y:.0f}",
                    remedy="leave the window out, or choose a fill or a filler",
                )
            )
