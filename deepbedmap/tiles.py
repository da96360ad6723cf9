"""Windows in which a grid is complete, the tiles cut at them, and their split."""

from __future__ import annotations

import functools
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Literal

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely
import xarray as xr
from pyproj import CRS, Transformer

from deepbedmap import rasters, repository
from deepbedmap.areas import CRS as AREAS_CRS
from deepbedmap.areas import TEST_AREAS
from deepbedmap.errors import Fault, InvalidDataError, MissingDataError
from deepbedmap.schemas import near

logger = logging.getLogger(__name__)

_EDGES = ["xmin", "ymin", "xmax", "ymax"]
_PARTS = ["train", "validation", "dropped"]
_VERTEX_EVERY = 1000  # metres
_THREADS = 2
_MEMORY = 256e6  # bytes that a function takes beside its result
_BYTES = 48  # of them for a cell that is read and interpolated
_STRIPE_BYTES = 24  # of them for a cell that find_windows reads and counts
_PANE = 512  # least width of what is read at once, in cells, where memory allows
_MILLIMETRE = 1e-3
_ON_LATTICE = 1e-6  # cells that are no farther off fall together


def find_windows(
    grid: xr.DataArray, size: int = 36, step: int = 3, coverage: float = 1.0
) -> gpd.GeoDataFrame:
    """Windows of size x size cells in which a grid has values.

    Parameters
    ----------
    grid
        One band, ``(y, x)``, NaN where nothing was measured; y in either direction. One that is not
        in memory, such as from :func:`deepbedmap.rasters.open_raster`, is read in stripes of rows,
        each row once.
    size
        Width and height of a window, in cells.
    step
        Cells from one window to the next, eastward and southward, starting at the grid's
        north-west corner. Cells at the east and south that a whole window no longer reaches
        are left over.
    coverage
        Share of a window's cells that must have a value, over 0 and up to 1.

    Returns
    -------
    geopandas.GeoDataFrame
        One row a window, from the north-west, row by row: ``xmin, ymin, xmax, ymax`` (outer edges
        of its cells, in the units of the grid's CRS), ``coverage`` (share of cells with a value)
        and ``geometry`` (the box); in the CRS of the grid, where it states one.

    Raises
    ------
    InvalidDataError
        The grid is rotated or irregular, or its cells are not square.
    ValueError
        It has several bands; or size, step or coverage are impossible.

    Notes
    -----
    The values in all windows of a stripe are counted at once with an integral image (a summed-area
    table; Crow 1984, doi 10.1145/800031.808600). Beside the windows this takes at most about 256
    MB; more only where ``size`` rows, or a row of dask's chunks, do.

    Examples
    --------
    >>> grid = xr.DataArray(np.ones((3, 4)), {"y": [250, 150, 50], "x": [50, 150, 250, 350]})
    >>> find_windows(grid, size=3, step=1)[["xmin", "ymin", "xmax", "ymax"]].values.tolist()
    [[0.0, 0.0, 300.0, 300.0], [100.0, 0.0, 400.0, 300.0]]
    """
    if size < 1 or step < 1:
        raise ValueError(f"size and step must be at least 1, not {size} and {step}")
    if not 0 < coverage <= 1:
        raise ValueError(f"coverage must be over 0 and at most 1, not {coverage}")
    xmin, _, _, ymax = rasters.bounds_of(grid)
    cell = rasters.resolution_of(grid)
    _require_one_band(grid)
    grid = rasters.north_up(grid)
    rows = np.empty((0, grid.sizes["x"]), np.bool_)  # those that windows not yet counted begin in
    first = ahead = 0  # number of the next row of windows; rows of the grid until it begins
    found = []
    for stripe in _stripes(grid):
        rows = np.concatenate([rows, _measured(grid[stripe])])
        ahead, rows = max(0, ahead - len(rows)), rows[ahead:]
        counts = _window_sums(_window_sums(rows, size, step).T, size, step).T
        row, column = np.nonzero(counts >= np.ceil(coverage * size**2 - 1e-9))
        found.append((row + first, column, counts[row, column]))
        first += len(counts)
        ahead, rows = ahead + max(0, len(counts) * step - len(rows)), rows[len(counts) * step :]
    row, column, count = (np.concatenate(parts) for parts in zip(*found, strict=True))
    west, north = xmin + column * step * cell, ymax - row * step * cell
    east, south = west + size * cell, north - size * cell
    return gpd.GeoDataFrame(
        dict(zip(_EDGES, (west, south, east, north), strict=True)) | {"coverage": count / size**2},
        geometry=shapely.box(west, south, east, north),
        crs=rasters.crs_of(grid),
    )


def _require_one_band(grid: xr.DataArray) -> None:
    if grid.ndim != 2:
        raise ValueError(f"expected one band, (y, x), found dimensions {grid.dims}")


def _stripes(grid: xr.DataArray) -> Iterator[slice]:
    """Rows to read at once: as many as memory allows, but whole chunks of dask."""
    most = max(1, int(_MEMORY / _STRIPE_BYTES / grid.sizes["x"]))
    count = grid.sizes["y"]
    edges = np.cumsum(grid.chunksizes["y"]) if grid.chunksizes else np.arange(1, count + 1)
    start = 0
    while start < count:
        within = edges[(edges > start) & (edges <= start + most)]
        stop = int(within[-1] if within.size else edges[edges > start][0])
        yield slice(start, stop)
        start = stop


def _measured(grid: xr.DataArray) -> npt.NDArray[np.bool_]:
    """Which cells have a value; what is not in memory is read."""
    finite = xr.apply_ufunc(np.isfinite, grid.variable, dask="allowed")
    measured: npt.NDArray[np.bool_] = finite.to_numpy()
    return measured


def _window_sums(values: npt.NDArray[np.generic], size: int, step: int) -> npt.NDArray[np.int32]:
    """Sums of every step-th run of size values along the first axis."""
    total = np.zeros((values.shape[0] + 1, values.shape[1]), np.int32)
    np.cumsum(values, axis=0, dtype=np.int32, out=total[1:])
    difference: npt.NDArray[np.int32] = total[size::step] - total[:-size:step]
    return difference


def masks(grid: xr.DataArray, windows: gpd.GeoDataFrame | npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Which cells of a grid have a value, in windows of one size.

    With ``coverage`` below 1, :func:`find_windows` gives windows that a survey crosses without
    filling them; a loss counts the cells that are True here.

    Parameters
    ----------
    grid
        One band, ``(y, x)``, NaN where nothing was measured; y in either direction. Of one that is
        not in memory only what the windows need is read, those near each other together.
    windows
        Boxes, or bounds (n, 4), whose edges are edges of the grid's cells.

    Returns
    -------
    numpy.ndarray
        bool (n, height, width), rows from north to south as in :func:`cut_tiles`.

    Raises
    ------
    InvalidDataError
        A window reaches beyond the grid, or the two are in different CRSs; the grid is rotated or
        irregular, or its cells are not square.
    ValueError
        The windows are of different sizes, or cut through cells.

    Examples
    --------
    >>> nan = np.nan
    >>> grid = xr.DataArray([[1, nan], [nan, 4], [5, 6]], {"y": [250, 150, 50], "x": [50, 150]})
    >>> masks(grid, find_windows(grid, size=2, step=1, coverage=0.75)).tolist()
    [[[False, True], [True, True]]]
    """
    _require_one_band(grid)
    name = rasters.name_of(grid)
    boxes = _boxes(windows, rasters.crs_of(grid), name)
    if len(boxes) == 0:
        return np.empty((0, 0, 0), np.bool_)
    _require_inside(boxes, grid, name)
    cell = rasters.resolution_of(grid)
    width, height = _shape(boxes, cell)
    xmin, _, _, ymax = rasters.bounds_of(grid)
    exact = np.stack([ymax - boxes[:, 3], boxes[:, 0] - xmin]) / cell
    row, column = whole = np.rint(exact).astype(int)
    if np.abs(exact - whole).max() > 1e-6:
        number = int(np.abs(exact - whole).max(axis=0).argmax())
        raise ValueError(f"window {number}, {_text(boxes[number])}, cuts through cells of {name}")
    grid = rasters.north_up(grid)
    cut = np.empty((len(boxes), height, width), np.bool_)
    for groups in _panes(boxes, grid, cell, cell):
        numbers = np.concatenate(groups)
        top, left = row[numbers].min(), column[numbers].min()
        bottom, right = row[numbers].max() + height, column[numbers].max() + width
        measured = _measured(grid[top:bottom, left:right])
        views = np.lib.stride_tricks.sliding_window_view(measured, (height, width))
        cut[numbers] = views[row[numbers] - top, column[numbers] - left]
    return cut


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
        raise ValueError(f'fill must be None, a number or "error", not {fill!r}')
    if not isinstance(raster, xr.DataArray):
        raster = rasters.open_raster(raster)
    name = rasters.name_of(raster)
    crs = rasters.require_crs(raster)
    boxes = _boxes(windows, crs, name)
    cell = rasters.resolution_of(raster) if resolution is None else resolution
    if padding < 0 or cell <= 0:
        raise ValueError(f"padding {padding} and resolution {cell} must not be negative")
    boxes = boxes + np.array([-padding, -padding, padding, padding])
    bands = rasters.band_count(raster)
    if filler is not None and not isinstance(filler, xr.DataArray):
        filler = rasters.open_raster(filler)
    if filler is not None:
        rasters.require_filler(filler, raster)
    if len(boxes) == 0:
        return np.empty((0, bands, 0, 0), np.float32)
    _require_inside(boxes, raster, name)
    width, height = _shape(boxes, cell)
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
    with ThreadPoolExecutor(_THREADS) as pool:
        holed = [
            group
            for groups in pool.map(cut, _panes(boxes, raster, cell, finest))
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


def _panes(
    boxes: npt.NDArray[np.float64], raster: xr.DataArray, cell: float, finest: float
) -> list[list[npt.NDArray[np.intp]]]:
    """Numbers of the windows by the pane of the raster that their north-west corner lies in.

    A pane is a square of whole blocks of the file, or chunks of dask, as far as memory allows;
    finest is the least cell size in use. In a pane, windows stand in groups whose tiles' cells fall
    on one lattice.
    """
    block = max(rasters.block_of(raster, dim) for dim in ("y", "x")) * rasters.resolution_of(raster)
    side = block * np.ceil(_PANE * finest / block)
    most = np.sqrt(_MEMORY / _THREADS / _BYTES / rasters.band_count(raster)) * finest
    side = max(min(side, most - (boxes[0, 2:] - boxes[0, :2]).max()), finest)
    xmin, _, _, ymax = rasters.bounds_of(raster)
    corners = np.stack([ymax - boxes[:, 3], boxes[:, 0] - xmin])
    cells = corners / cell
    phase = np.rint((cells - np.floor(cells + _ON_LATTICE)) / _ON_LATTICE)
    keys, member = np.unique(
        np.concatenate([corners // side, phase]).T, axis=0, return_inverse=True
    )
    groups = np.split(np.argsort(member, kind="stable"), np.bincount(member).cumsum()[:-1])
    panes: dict[tuple[float, float], list[npt.NDArray[np.intp]]] = {}
    for (row, column), group in zip(keys[:, :2].tolist(), groups, strict=True):
        panes.setdefault((row, column), []).append(group)
    return list(panes.values())


def _boxes(
    windows: gpd.GeoDataFrame | npt.ArrayLike, crs: CRS | None, name: str
) -> npt.NDArray[np.float64]:
    if isinstance(windows, gpd.GeoDataFrame):
        own = windows.crs
        if crs is not None and own is not None and not rasters.same_crs(own, crs):
            raise InvalidDataError(
                Fault(
                    file=name,
                    field="crs",
                    expected=f"{own.to_string()} as of the windows",
                    found=crs.to_string(),
                    remedy="reproject the raster, or find windows in its CRS",
                )
            )
        windows = windows[_EDGES] if set(_EDGES) <= set(windows.columns) else windows.bounds
    boxes = np.asarray(windows, np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"windows must be bounds (n, 4), not {boxes.shape}")
    return boxes


def _require_inside(boxes: npt.NDArray[np.float64], raster: xr.DataArray, name: str) -> None:
    bounds = rasters.bounds_of(raster)
    slack = 1e-6 * rasters.resolution_of(raster)
    inside = (boxes[:, :2] >= np.subtract(bounds[:2], slack)).all(axis=1)
    inside &= (boxes[:, 2:] <= np.add(bounds[2:], slack)).all(axis=1)
    if not inside.all():
        number = int(np.argmin(inside))
        raise InvalidDataError(
            Fault(
                file=f"{name}, window {number}",
                expected=f"a box within the raster's bounds {_text(bounds)}",
                found=f"{_text(boxes[number])}, padding included",
                remedy="leave the window out, pad less, or use a larger raster",
            )
        )


def _text(bounds: npt.ArrayLike) -> str:
    return "(" + ", ".join(f"{edge:.10g}" for edge in np.asarray(bounds)) + ")"


def _shape(boxes: npt.NDArray[np.float64], cell: float) -> tuple[int, int]:
    """Number of cells across and down, the same in every box."""
    cells = (boxes[:, 2:] - boxes[:, :2]) / cell
    width, height = np.rint(cells[0]).astype(int)
    if min(width, height) < 1 or np.abs(cells - (width, height)).max() > 1e-6:
        worst = cells[np.abs(cells - (width, height)).max(axis=1).argmax()]
        raise ValueError(
            f"windows, padding included, must all be the same whole number of cells of {cell:g} m;"
            f" one is {worst[0]:g} x {worst[1]:g}, the first {cells[0, 0]:g} x {cells[0, 1]:g}"
        )
    return int(width), int(height)


def exclude(
    windows: gpd.GeoDataFrame, areas: str | Iterable[str], buffer: float = 11_000
) -> gpd.GeoDataFrame:
    """Windows that keep their distance from test areas, on which a model must not be trained.

    Parameters
    ----------
    windows
        Boxes in EPSG:3031, which is what those without a CRS are taken for.
    areas
        Names in :data:`deepbedmap.areas.TEST_AREAS`; or one name.
    buffer
        Windows as near as this, in metres, are left out too.

    Returns
    -------
    geopandas.GeoDataFrame
        The windows that are farther off than the buffer, with their index; none is moved.

    Raises
    ------
    InvalidDataError
        The windows are in another CRS.
    ValueError
        There is no test area of that name, or the buffer is negative.
    """
    names = [areas] if isinstance(areas, str) else list(areas)
    for name in names:
        if name not in TEST_AREAS:
            hint = near(name, TEST_AREAS)
            known = ", ".join(TEST_AREAS)
            raise ValueError(f"no test area {name!r}; " + (hint or f"there are {known}"))
    if buffer < 0:
        raise ValueError(f"buffer {buffer} must not be negative")
    _require_crs_of(windows, CRS(AREAS_CRS), "the test areas")
    held_out = shapely.union_all([shapely.box(*TEST_AREAS[name]) for name in names])
    kept = ~shapely.dwithin(windows.geometry.to_numpy(), held_out, buffer)
    logger.info("%d of %d windows are clear of %s", kept.sum(), len(windows), ", ".join(names))
    return windows[kept]


def _require_crs_of(windows: gpd.GeoDataFrame, crs: CRS, whose: str) -> None:
    if windows.crs is not None and not rasters.same_crs(windows.crs, crs):
        raise InvalidDataError(
            Fault(
                file="windows",
                field="crs",
                expected=f"{crs.to_string()} as of {whose}",
                found=windows.crs.to_string(),
                remedy="find windows in a grid in that CRS",
            )
        )


def grounded(
    windows: gpd.GeoDataFrame,
    grounding_line: gpd.GeoDataFrame | str | os.PathLike[str] | None = None,
    buffer: float = 0.0,
) -> gpd.GeoDataFrame:
    """Windows that lie inside the grounded ice.

    Parameters
    ----------
    windows
        Boxes in the CRS of the grounding line, which is what those without a CRS are taken for.
    grounding_line
        Polygons of the grounded ice, or a file of them, such as those of MEaSUREs v2 (Mouginot et
        al. 2017, doi 10.5067/AXE4121732AD; ``deepbedmap fetch Mouginot2017MEASURES``). Without a
        CRS they are taken for EPSG:3031. None: the grounding line of GSHHG in its high resolution,
        which GMT brings along, in EPSG:3031 (Wessel & Smith 1996, doi 10.1029/96JB00104).
    buffer
        Least distance, in metres, between a window and the grounding line.

    Returns
    -------
    geopandas.GeoDataFrame
        The windows that lie wholly on grounded ice, at least the buffer from its edge, to a
        millimetre; with their index. None is moved.

    Raises
    ------
    InvalidDataError
        Windows and grounding line are in different CRSs; the file cannot be read, or holds no
        polygons, or degrees without saying so.
    MissingDataError
        There is no such file; or GMT has no GSHHG.
    ValueError
        The buffer is negative.

    Notes
    -----
    The distance is exact: that between a box and the polygons' edges. GSHHG itself is simplified to
    200 m. From MEaSUREs v2 it differs by 0.8 % of the grounded area; from the edges of MEaSUREs the
    nearest edge of GSHHG is 0.3 km away in the median, 5 km at the 90th percentile.

    Examples
    --------
    >>> ice = gpd.GeoDataFrame(geometry=[shapely.box(0, 0, 50_000, 50_000)], crs="EPSG:3031")
    >>> boxes = shapely.box([-1000, 1000, 20_000], 20_000, [8000, 10_000, 29_000], 29_000)
    >>> windows = gpd.GeoDataFrame(geometry=boxes, crs="EPSG:3031")
    >>> grounded(windows, ice).index.tolist(), grounded(windows, ice, 10_000).index.tolist()
    ([1, 2], [2])
    """
    if buffer < 0:
        raise ValueError(f"buffer {buffer} must not be negative")
    ice, crs = _gshhg() if grounding_line is None else grounded_ice(grounding_line)
    _require_crs_of(windows, crs, "the grounding line")
    if len(windows) == 0:
        return windows
    corners, ring = shapely.get_coordinates(ice.boundary.geoms, return_index=True)
    sides = np.stack([corners[:-1], corners[1:]], axis=1)[ring[:-1] == ring[1:]]
    # A box that touches the edge from within lies inside all the same: so it loses a millimetre.
    boxes = shapely.buffer(windows.geometry.to_numpy(), -_MILLIMETRE, join_style="mitre")
    near_edge, distance = shapely.STRtree(shapely.linestrings(sides)).query_nearest(
        boxes, max_distance=buffer + 1, return_distance=True, all_matches=False
    )
    kept = shapely.contains_xy(ice, shapely.get_coordinates(shapely.centroid(boxes)))
    kept[near_edge[0, distance < buffer + _MILLIMETRE / 2]] = False
    logger.info("%d of %d windows lie on grounded ice", kept.sum(), len(windows))
    return windows[kept]


def grounded_ice(
    grounding_line: gpd.GeoDataFrame | str | os.PathLike[str],
) -> tuple[shapely.MultiPolygon, CRS]:
    """Read the polygons of grounded ice as one, and their CRS.

    Raises
    ------
    MissingDataError
        There is no such file.
    InvalidDataError
        It holds no polygons, or polygons in degrees without a CRS.
    """
    name = "grounding line"
    if not isinstance(grounding_line, gpd.GeoDataFrame):
        name = str(grounding_line)
        if not Path(grounding_line).exists():
            raise MissingDataError(
                f"{name}: no such file; `deepbedmap fetch Mouginot2017MEASURES` gets the grounding"
                " line of MEaSUREs"
            )
        try:
            grounding_line = gpd.read_file(grounding_line)
        except (OSError, ValueError, RuntimeError) as error:
            fault = Fault(name, expected="polygons in a file that GDAL reads", found=str(error))
            raise InvalidDataError(fault) from error
    polygons = grounding_line.geometry.dropna()
    kinds = set(polygons.geom_type)
    if not kinds or kinds - {"Polygon", "MultiPolygon"}:
        found = ", ".join(sorted(kinds)) or "nothing"
        raise InvalidDataError(Fault(name, expected="polygons of the grounded ice", found=found))
    crs = grounding_line.crs
    if crs is None and np.abs(polygons.total_bounds).max() <= 360:
        raise InvalidDataError(
            Fault(
                file=name,
                field="crs",
                expected="metres, or a coordinate reference system",
                found="degrees and none",
                remedy="state it, and reproject to that of the windows",
            )
        )
    whole = shapely.union_all(shapely.make_valid(polygons.to_numpy()))
    parts = [part for part in shapely.get_parts(whole) if part.geom_type == "Polygon"]
    return shapely.MultiPolygon(parts), CRS(AREAS_CRS) if crs is None else crs


@functools.lru_cache(maxsize=1)
def _gshhg() -> tuple[shapely.MultiPolygon, CRS]:
    """Polygons of grounded ice of GSHHG, and EPSG:3031."""
    import pygmt

    with tempfile.TemporaryDirectory() as folder, pygmt.clib.Session() as session:
        path = Path(folder, "edges")
        try:
            # Level 1 alone (no lakes), of Antarctica the grounding line; as pairs of doubles.
            options = ["-R-180/180/-90/-60", "-Dh", "-A0/0/1+ag", "-W1", "-M", "-bo2d", "-Vq"]
            session.call_module("coast", [*options, f"->{path}"])
        except pygmt.exceptions.GMTCLibError as error:
            raise MissingDataError(
                "GMT has no shorelines of high resolution: install gmt-gshhg-high (Debian) or"
                " gshhg-gmt (conda-forge)"
            ) from error
        records = np.fromfile(path, "<f8").reshape(-1, 2)
    starts = np.isnan(records).any(axis=1)
    to_metres = Transformer.from_crs("EPSG:4326", AREAS_CRS, always_xy=True)
    x, y = to_metres.transform(*records[~starts].T)
    # GMT gives edges by bins of the map; they meet once rounded to a centimetre.
    pieces = shapely.linestrings(np.round([x, y], 2).T, indices=(starts.cumsum() - 1)[~starts])
    polygons, _, _, crossed = shapely.polygonize_full(pieces)
    # A ring that crosses itself by metres still tells inside from outside.
    rings = [*shapely.get_parts(polygons), *map(shapely.Polygon, shapely.get_parts(crossed))]
    return shapely.MultiPolygon(rings), CRS(AREAS_CRS)


def split(
    windows: gpd.GeoDataFrame,
    *,
    by: Literal["block", "survey"] = "block",
    block: float = 40_000,
    validation: float = 0.2,
    buffer: float = 11_000,
    seed: int = 0,
) -> pd.Series[str]:
    """Split windows into training and validation so that nothing leaks between neighbours.

    Windows overlap, and a bed is alike over kilometres, so a split window by window would put
    near-copies on both sides. Here whole square blocks, or whole surveys, go to validation, and
    the other windows within ``buffer`` of them are dropped.

    Parameters
    ----------
    windows
        Boxes, as from :func:`find_windows`; of one with ``by="survey"`` the column ``survey`` tells
        from whose grid it is.
    by
        What is held out: ``"block"``, or ``"survey"`` (instruments and processing differ between
        surveys, so this is the stricter test).
    block
        Width of a block in metres; a window belongs to the block that its centre lies in.
    validation
        Share of the windows to hold out, between 0 and 1: random blocks or surveys, at least one,
        such as bring the share nearer to it.
    buffer
        Least distance, in metres, between any training and any validation window.
    seed
        Of the random choice: the same windows and seed give the same split.

    Returns
    -------
    pandas.Series
        Category ``"train"``, ``"validation"`` or ``"dropped"``, with the index of the windows.

    Raises
    ------
    InvalidDataError
        No window is left to train on, or there is none to validate with; a window without a survey.
    """
    if by not in ("block", "survey"):
        raise ValueError(f'by must be "block" or "survey", not {by!r}')
    if not 0 < validation < 1:
        raise ValueError(f"validation must be between 0 and 1, not {validation}")
    if block <= 0 or buffer < 0:
        raise ValueError(f"block {block} must be positive and buffer {buffer} not negative")
    member = _surveys(windows) if by == "survey" else _blocks(windows, block)
    chosen = _hold_out(np.bincount(member), validation, seed)
    part = np.where(np.isin(member, chosen), "validation", "train").astype(object)
    held_out = windows.geometry[part == "validation"]
    near_held_out, _ = held_out.sindex.query(windows.geometry, predicate="dwithin", distance=buffer)
    part[np.setdiff1d(near_held_out, np.flatnonzero(part == "validation"))] = "dropped"
    logger.info(
        "%d windows: %s", len(windows), ", ".join(f"{(part == p).sum()} {p}" for p in _PARTS)
    )
    fault = Fault(file="windows", expected="", found=f"none of {len(windows)}")
    if not (part == "validation").any():
        expected, remedy = "some windows to validate with", "find windows in more grids"
        raise InvalidDataError(replace(fault, expected=expected, remedy=remedy))
    if not (part == "train").any():
        raise InvalidDataError(
            replace(
                fault,
                expected="some windows to train on",
                found=f"{fault.found} farther than {buffer:g} m from those held out",
                remedy="use a smaller block, a smaller share, or more surveys",
            )
        )
    return pd.Series(pd.Categorical(part, categories=_PARTS), index=windows.index, name="part")


def _blocks(windows: gpd.GeoDataFrame, width: float) -> npt.NDArray[np.intp]:
    """Number of the block that each window's centre lies in."""
    edges = windows.bounds
    centres = edges[["minx", "miny"]].to_numpy() + edges[["maxx", "maxy"]].to_numpy()
    _, member = np.unique(np.floor(centres / 2 / width), axis=0, return_inverse=True)
    return member


def _surveys(windows: gpd.GeoDataFrame) -> npt.NDArray[np.intp]:
    """Number of the survey that each window is from."""
    if "survey" not in windows:
        raise ValueError('by="survey" needs windows with a column survey')
    member: npt.NDArray[np.intp] = pd.factorize(windows["survey"], sort=True)[0]
    if (member < 0).any():
        raise InvalidDataError(
            Fault(
                file="windows",
                entry=str(windows.index[member < 0][0]),
                field="survey",
                expected="the survey of each window",
                found="none",
            )
        )
    return member


def _hold_out(counts: npt.NDArray[np.intp], share: float, seed: int) -> list[int]:
    """Take units in random order where they bring the sum of their counts nearer to a share."""
    target, held, chosen = share * counts.sum(), 0, []
    for unit in np.random.default_rng(seed).permutation(counts.size):
        if abs(held + counts[unit] - target) < abs(held - target):
            chosen.append(int(unit))
            held += counts[unit]
    return chosen or [int(unit) for unit in counts.argsort(kind="stable")[:1]]


def write_footprints(
    windows: gpd.GeoDataFrame, path: str | os.PathLike[str], crs: str | None = None
) -> Path:
    """Write windows as GeoJSON, for a map.

    Parameters
    ----------
    windows
        Boxes with a CRS; their columns become properties.
    path
        Of the file, which appears complete or not at all.
    crs
        None: the windows' own CRS, which the file names as GIS programs expect (GeoJSON of 2008).
        ``"EPSG:4326"``: degrees by RFC 7946, for maps on the web. Edges get a vertex every
        kilometre, since a straight line in polar stereographic is a curve in degrees; boxes
        across the date line are cut there, and one around the pole runs along it at latitude -90,
        so that polygons are valid and no edge crosses the map. Vertices are rounded to 1e-7 degrees
        (1 cm). Columns such as ``xmin`` stay in the windows' own CRS.

    Raises
    ------
    InvalidDataError
        The windows have no CRS.
    ValueError
        ``crs`` is neither the windows' own nor EPSG:4326.
    """
    path = Path(path)
    if windows.crs is None:
        raise InvalidDataError(
            Fault(
                file=str(path),
                field="crs",
                expected="windows with a coordinate reference system",
                found="none",
                remedy='state it: windows.set_crs("EPSG:3031")',
            )
        )
    degrees = crs is not None and CRS.from_user_input(crs) != windows.crs
    if degrees and CRS.from_user_input(crs) != CRS("EPSG:4326"):
        raise ValueError(f"crs must be {windows.crs.to_string()} or EPSG:4326, not {crs}")
    if degrees:
        windows = windows.set_geometry(windows.segmentize(_VERTEX_EVERY))
    path.parent.mkdir(parents=True, exist_ok=True)
    with repository.beside(path) as part:
        # GDAL itself reprojects, cuts and orients what is written by RFC 7946.
        windows.to_file(part, driver="GeoJSON", layer=path.stem, RFC7946="YES" if degrees else "NO")
    return path
