"""Cut tiles: interpolate a raster in windows, at the tiles' own cell centres."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

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
    """Cut tiles of one size from a raster, interpolated at the tiles' own cell centres.

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
        by default. Nothing is averaged: where the raster is finer than the tiles, only the cells
        around each centre count.
    fill
        Value of a cell in which a raster cell with nodata has a weight: NaN (None), this number,
        or ``"error"`` to raise one. No height is ever blended with nodata.
    method
        ``"nearest"``, ``"linear"`` or ``"cubic"``, as in :func:`deepbedmap.rasters.interpolate`.
    filler
        A second raster with the same bands, CRS and vertical datum, such as REMA at 200 m for REMA
        at 100 m: it supplies the cells for which the first has no value, at the same centres. It
        need not cover the windows.

    Returns
    -------
    numpy.ndarray
        float32 (n, bands, height, width), rows from north to south; (0, bands, 0, 0) without
        windows. Between the raster's outermost centres and its edges, half a cell, the outermost
        values are continued.

    Raises
    ------
    InvalidDataError
        A raster has no CRS, is rotated, or its cells are not square; windows or filler have
        another CRS (nothing is reprojected); a padded window extends beyond the raster; nodata,
        with ``fill="error"``. The message names the raster, the window and the position.
    MissingDataError
        A file does not exist.
    ValueError
        Another parameter is out of range, or the windows differ in size.

    Notes
    -----
    Windows near each other share one read of the blocks that they need, and those whose cells
    coincide share one interpolation. In addition to the tiles and GDAL's cache of blocks this takes
    at most about 256 MB, more only where a single window does.

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
    raster = _opened(raster)
    name = rasters.name_of(raster)
    crs = rasters.require_crs(raster)
    boxes = window_bounds(windows, crs, name)
    cell = rasters.resolution_of(raster) if resolution is None else resolution
    if padding < 0 or cell <= 0:
        raise WrongCallError(f"padding {padding} and resolution {cell} must not be negative")
    boxes = boxes + np.array([-padding, -padding, padding, padding])
    bands = rasters.band_count(raster)
    filler = None if filler is None else _opened(filler)
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
        """Cut the windows of a pane, each group on one lattice; return the groups with holes."""
        lattices = [_common_lattice(boxes[group], cell, height, width) for group in groups]
        parts = read([lattice.axes for lattice in lattices], method)
        groups_with_holes = []
        for group, lattice, values in zip(groups, lattices, parts, strict=True):
            cells = values.astype(np.float32, copy=False)
            if read_filler is not None:
                cells = _filled(cells, read_filler, lattice, method)
            hole = np.isnan(cells)
            if hole.any():
                groups_with_holes.append(group)
                if fill is not None and fill != "error":
                    cells = np.where(hole, np.float32(fill), cells)
            for number, row, column in zip(group, lattice.rows, lattice.columns, strict=True):
                tiles[number] = cells[..., row : row + height, column : column + width]
        return groups_with_holes

    finest = min(cell, *(rasters.resolution_of(r) for r in (raster, filler) if r is not None))
    with ThreadPoolExecutor(THREADS) as pool:
        panes = group_by_pane(boxes, raster, cell, finest)
        holed = list(itertools.chain.from_iterable(pool.map(cut, panes)))
    if fill == "error" and holed:
        _require_values(tiles, np.sort(np.concatenate(holed)), boxes, cell, name)
    return tiles


def _opened(raster: str | os.PathLike[str] | xr.DataArray) -> xr.DataArray:
    return raster if isinstance(raster, xr.DataArray) else rasters.open_raster(raster)


class _CommonLattice(NamedTuple):
    """One lattice of cells for several windows, and the first row and column of each window."""

    axes: rasters.Lattice
    rows: list[int]
    columns: list[int]


def _common_lattice(
    boxes: npt.NDArray[np.float64], cell: float, height: int, width: int
) -> _CommonLattice:
    """Return the lattice that spans windows whose cells coincide where they overlap.

    Overlapping windows, three cells apart by default, then share their interpolation: most cells
    would otherwise be interpolated more than a hundred times.
    """
    west, north = boxes[:, 0].min(), boxes[:, 3].max()
    columns = np.rint((boxes[:, 0] - west) / cell).astype(int)
    rows = np.rint((north - boxes[:, 3]) / cell).astype(int)
    x = west + (np.arange(columns.max() + width) + 0.5) * cell
    y = north - (np.arange(rows.max() + height) + 0.5) * cell
    return _CommonLattice((x, y), rows.tolist(), columns.tolist())


def _filled(
    cells: npt.NDArray[np.float32],
    read_filler: rasters.Reader,
    lattice: _CommonLattice,
    method: rasters.Method,
) -> npt.NDArray[np.float32]:
    """Return cells with those that have no value from the filler, which is read only if needed."""
    hole = np.isnan(cells)
    if not hole.any():
        return cells
    (values,) = read_filler([lattice.axes], method)
    return np.where(hole, values.astype(np.float32, copy=False), cells)


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
