"""Windows in which a grid is complete, the tiles cut at them, and their split."""

from __future__ import annotations

import logging
import os
from typing import Literal

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely
import xarray as xr
from pyproj import CRS

from deepbedmap import rasters
from deepbedmap.errors import Fault, InvalidDataError

logger = logging.getLogger(__name__)

_EDGES = ["xmin", "ymin", "xmax", "ymax"]
_PARTS = ["train", "validation", "dropped"]


def find_windows(
    grid: xr.DataArray, size: int = 36, step: int = 3, coverage: float = 1.0
) -> gpd.GeoDataFrame:
    """Windows of size x size cells in which a grid has values.

    Parameters
    ----------
    grid
        One band, ``(y, x)``, NaN where nothing was measured; y in either direction.
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

    Notes
    -----
    The values in all windows are counted at once with an integral image (a summed-area table;
    Crow 1984, doi 10.1145/800031.808600).

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
    finite = np.isfinite(rasters.north_up(grid).to_numpy())
    if finite.ndim != 2:
        raise ValueError(f"expected one band, (y, x), found dimensions {grid.dims}")
    counts = _window_sums(_window_sums(finite, size, step).T, size, step).T
    share = counts / size**2
    row, column = np.nonzero(counts >= np.ceil(coverage * size**2 - 1e-9))
    west, north = xmin + column * step * cell, ymax - row * step * cell
    east, south = west + size * cell, north - size * cell
    return gpd.GeoDataFrame(
        dict(zip(_EDGES, (west, south, east, north), strict=True))
        | {"coverage": share[row, column]},
        geometry=shapely.box(west, south, east, north),
        crs=rasters.crs_of(grid),
    )


def _window_sums(values: npt.NDArray[np.generic], size: int, step: int) -> npt.NDArray[np.int32]:
    """Sums of every step-th run of size values along the first axis."""
    total = np.zeros((values.shape[0] + 1, values.shape[1]), np.int32)
    np.cumsum(values, axis=0, dtype=np.int32, out=total[1:])
    difference: npt.NDArray[np.int32] = total[size::step] - total[:-size:step]
    return difference


def cut_tiles(
    raster: str | os.PathLike[str] | xr.DataArray,
    windows: gpd.GeoDataFrame | npt.ArrayLike,
    padding: float = 0,
    resolution: float | None = None,
    fill: float | Literal["error"] | None = None,
    method: rasters.Method = "linear",
) -> npt.NDArray[np.float32]:
    """Values of a raster in windows of one size, interpolated at the tiles' own cell centres.

    Parameters
    ----------
    raster
        A file (read window by window, never whole), or ``(y, x)`` or ``(band, y, x)``; y in either
        direction.
    windows
        Boxes with a CRS, or bounds (n, 4) in the raster's CRS: xmin, ymin, xmax, ymax.
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

    Returns
    -------
    numpy.ndarray
        float32 (n, bands, height, width), rows from north to south; (0, bands, 0, 0) where
        there are no windows. Up to half a raster cell beyond its outermost centres, but never
        beyond its edges, the outermost values hold.

    Raises
    ------
    InvalidDataError
        A raster without CRS; windows in another CRS; a padded window that reaches beyond the
        raster's edges; nodata, with ``fill="error"``. The message names the raster, the window
        and the place.
    MissingDataError
        There is no such file.

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
    bands = raster.sizes[raster.dims[0]] if raster.ndim == 3 else 1
    if len(boxes) == 0:
        return np.empty((0, bands, 0, 0), np.float32)
    _require_inside(boxes, raster, name)
    width, height = _shape(boxes, cell)
    tiles = np.empty((len(boxes), bands, height, width), np.float32)
    read = rasters.reader(raster)
    for number, (xmin, _, _, ymax) in enumerate(boxes):
        x = xmin + (np.arange(width) + 0.5) * cell
        y = ymax - (np.arange(height) + 0.5) * cell
        tile = read(x, y, method)
        hole = np.isnan(tile)
        if fill is not None and hole.any():
            if fill == "error":
                row, column = np.argwhere(hole)[0, -2:]
                raise InvalidDataError(
                    Fault(
                        file=f"{name}, window {number}",
                        expected="a value in every cell",
                        found=f"nodata at x = {x[column]:.0f}, y = {y[row]:.0f}",
                        remedy="leave the window out, or choose a fill",
                    )
                )
            tile[hole] = fill
        tiles[number] = tile
    return tiles


def _boxes(
    windows: gpd.GeoDataFrame | npt.ArrayLike, crs: CRS, name: str
) -> npt.NDArray[np.float64]:
    if isinstance(windows, gpd.GeoDataFrame):
        if windows.crs is not None and windows.crs != crs:
            raise InvalidDataError(
                Fault(
                    file=name,
                    field="crs",
                    expected=f"{windows.crs.to_string()} as of the windows",
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


def split(
    windows: gpd.GeoDataFrame,
    *,
    block: float = 40_000,
    validation: float = 0.2,
    buffer: float = 11_000,
    seed: int = 0,
) -> pd.Series[str]:
    """Split windows into training and validation so that nothing leaks between neighbours.

    Windows overlap, and a bed is alike over kilometres, so a split window by window would put
    near-copies on both sides. Here whole square blocks go to validation, and the windows within
    ``buffer`` of them are dropped.

    Parameters
    ----------
    windows
        Boxes, as from :func:`find_windows`.
    block
        Width of a block in metres; a window belongs to the block that its centre lies in.
    validation
        Share of the windows to hold out, between 0 and 1: random blocks, at least one, as many as
        come nearest to it.
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
        No window is left to train on.
    """
    if not 0 < validation < 1:
        raise ValueError(f"validation must be between 0 and 1, not {validation}")
    if block <= 0 or buffer < 0:
        raise ValueError(f"block {block} must be positive and buffer {buffer} not negative")
    edges = windows.bounds
    centres = edges[["minx", "miny"]].to_numpy() + edges[["maxx", "maxy"]].to_numpy()
    _, member = np.unique(np.floor(centres / 2 / block), axis=0, return_inverse=True)
    counts = np.bincount(member)
    order = np.random.default_rng(seed).permutation(counts.size)
    shares = counts[order].cumsum() / max(len(windows), 1)
    chosen = order[: np.abs(shares - validation).argmin() + 1] if counts.size else order
    part = np.where(np.isin(member, chosen), "validation", "train").astype(object)
    held_out = windows.geometry[part == "validation"]
    near, _ = held_out.sindex.query(windows.geometry, predicate="dwithin", distance=buffer)
    part[np.setdiff1d(near, np.flatnonzero(part == "validation"))] = "dropped"
    logger.info(
        "%d windows: %s", len(windows), ", ".join(f"{(part == p).sum()} {p}" for p in _PARTS)
    )
    if not (part == "train").any():
        raise InvalidDataError(
            Fault(
                file="windows",
                expected="some windows to train on",
                found=f"none of {len(windows)} farther than {buffer:g} m from those held out",
                remedy="use a smaller block, a smaller share, or more surveys",
            )
        )
    return pd.Series(pd.Categorical(part, categories=_PARTS), index=windows.index, name="part")
