"""Prepare rasters for figures: coarsened to the resolution of print, in kilometres."""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import xarray as xr
from pyproj import CRS, Transformer

from deepbedmap import rasters
from deepbedmap.errors import Fault, InvalidDataError, WrongCallError
from deepbedmap.places import CRS as POLAR
from deepbedmap.places import Bounds

logger = logging.getLogger(__name__)

MOST = 900
"""Maximum number of cells along each side of a drawn raster."""

_CACHE = 128 * 2**20  # bytes of blocks that GDAL may cache
_AT_ONCE = 2**22  # number of cells that are read at once
_LONGEST = 4.0  # maximum ratio of the longer to the shorter side of a map


@dataclass(frozen=True)
class Axes:
    """The region of a map, (W, E, S, N), in kilometres or degrees."""

    region: Bounds
    unit: str
    crs: CRS | None = None

    @classmethod
    def around(cls, bounds: Bounds, crs: CRS | None, margin: float = 0) -> Axes:
        """Return axes around bounds in a CRS, with a margin (fraction of the longer side)."""
        divisor, unit = unit_of(crs)
        xmin, ymin, xmax, ymax = (edge / divisor for edge in bounds)
        longer = max(xmax - xmin, ymax - ymin) or 1.0
        least = longer / _LONGEST
        edges = []
        for low, high in ((xmin, xmax), (ymin, ymax)):
            extent = max(high - low, least) + 2 * margin * longer
            edges += [(low + high - extent) / 2, (low + high + extent) / 2]
        return cls((edges[0], edges[1], edges[2], edges[3]), unit, crs)

    @property
    def ratio(self) -> float:
        """Height divided by width."""
        west, east, south, north = self.region
        return (north - south) / (east - west)

    @property
    def labels(self) -> tuple[str, str]:
        """Labels of the x and y axes."""
        if self.unit == "km":
            return "x (km)", "y (km)"
        return "longitude (degrees)", "latitude (degrees)"

    @property
    def bounds(self) -> Bounds:
        """(xmin, ymin, xmax, ymax) in the units of the CRS."""
        west, east, south, north = (edge * unit_of(self.crs)[0] for edge in self.region)
        return west, south, east, north


def unit_of(crs: CRS | None) -> tuple[float, str]:
    """Return the divisor of coordinates in a CRS, and the resulting unit."""
    return (1.0, "degrees") if crs is not None and crs.is_geographic else (1000.0, "km")


def coarse(raster: xr.DataArray, most: int = MOST, *, flags: bool = False) -> xr.DataArray:
    """Average a raster over blocks of cells to the resolution of a figure.

    Parameters
    ----------
    raster
        ``(y, x)`` in either direction, of any size: it is read strip by strip.
    most
        Maximum number of cells along each side.
    flags
        Take the first cell of each block instead of the mean, which flags do not have.

    Returns
    -------
    xarray.DataArray
        float32 (y, x), rows from south to north, NaN where no cell of the block is finite. The
        attribute ``bounds`` holds the raster's bounds; the last blocks may extend beyond them.

    Raises
    ------
    InvalidDataError
        The raster has a single cell, irregular spacing or cells that are not square.

    Examples
    --------
    >>> axes = {"y": [30.0, 20.0, 10.0, 0.0], "x": [0.0, 10.0, 20.0, 30.0]}
    >>> grid = xr.DataArray(np.diag([4.0, 8.0, np.nan, np.nan]), axes, ("y", "x"))
    >>> coarse(grid, 2).values.tolist(), coarse(grid, 2).x.values.tolist()
    ([[0.0, 0.0], [3.0, 0.0]], [5.0, 25.0])
    """
    raster = _of_several_cells(raster)
    crs = rasters.crs_of(raster)
    raster = rasters.north_up(raster)
    bounds, cell = rasters.bounds_of(raster), rasters.resolution_of(raster)
    rows, columns = raster.shape
    step = max(1, -(-max(rows, columns) // most))
    shape = -(-rows // step), -(-columns // step)
    total, count = np.zeros(shape), np.zeros(shape)
    height = max(rasters.block_of(raster, "y"), _AT_ONCE // columns, 1)
    for top in range(0, rows, height):
        with rasterio.Env(GDAL_CACHEMAX=_CACHE):
            strip = raster.variable[top : top + height].compute(scheduler="threads").to_numpy()
        row = np.arange(top, top + len(strip))
        block = row // step
        valid = _valid(strip, raster.rio.nodata)
        if flags:
            valid &= (row % step == 0)[:, None] & (np.arange(columns) % step == 0)
        blocks = slice(block[0], block[-1] + 1)
        total[blocks] += _block_sums(np.where(valid, strip, 0), block, step)
        count[blocks] += _block_sums(valid, block, step)
    with np.errstate(invalid="ignore"):
        values = (total / count).astype(np.float32)[::-1]
    xmin, _, _, ymax = bounds
    averaged = xr.DataArray(
        values,
        {
            "y": ymax - cell * step * (np.arange(shape[0])[::-1] + 0.5),
            "x": xmin + cell * step * (np.arange(shape[1]) + 0.5),
        },
        ("y", "x"),
        name=raster.name,
        attrs={**raster.attrs, "bounds": bounds},
    )
    georeferenced: xr.DataArray = averaged if crs is None else averaged.rio.write_crs(crs)
    return georeferenced


def _valid(cells: npt.NDArray[Any], nodata: float | None) -> npt.NDArray[np.bool_]:
    valid: npt.NDArray[np.bool_] = np.isfinite(cells)
    if nodata is not None:
        valid &= cells != nodata
    return valid


def _block_sums(
    cells: npt.NDArray[Any], block: npt.NDArray[np.intp], step: int
) -> npt.NDArray[np.float64]:
    """Return sums over blocks of cells; block has the number of the block of each row."""
    first_rows = np.flatnonzero(np.diff(block, prepend=-1))
    first_columns = np.arange(0, cells.shape[1], step)
    rows = np.add.reduceat(cells, first_rows, axis=0, dtype=np.float64)
    total: npt.NDArray[np.float64] = np.add.reduceat(rows, first_columns, axis=1)
    return total


def _of_several_cells(raster: xr.DataArray) -> xr.DataArray:
    """Return the raster, padded with empty cells if it has a single row or column."""
    raster = raster.squeeze(
        [dim for dim in raster.dims if dim not in ("y", "x") and raster.sizes[dim] == 1], drop=True
    )
    if set(raster.dims) != {"y", "x"}:
        raise WrongCallError(f"a map: expected dimensions (y, x), found {raster.dims}")
    single = [dim for dim in ("y", "x") if raster.sizes[dim] == 1]
    if not single and raster.size:
        return raster
    if len(single) == 2 or not raster.size:
        raise InvalidDataError(
            Fault(
                rasters.name_of(raster),
                expected="a raster of several cells",
                found=f"{raster.sizes['y']} x {raster.sizes['x']}",
            )
        )
    (dim,) = single
    other = raster["x" if dim == "y" else "y"].to_numpy()
    step = abs(float(other[-1] - other[0])) / (other.size - 1)
    crs = rasters.crs_of(raster)
    centre = float(raster[dim][0])
    padded = raster.reindex({dim: [centre - step, centre, centre + step]})
    return padded if crs is None else padded.rio.write_crs(crs)


def in_plot_units(cells: xr.DataArray) -> xr.DataArray:
    """Return the result of :func:`coarse` for GMT: without attributes, in the axes' units."""
    divisor, _ = unit_of(rasters.crs_of(cells))
    plain = xr.DataArray(
        cells.to_numpy(),
        {"y": cells["y"].to_numpy() / divisor, "x": cells["x"].to_numpy() / divisor},
        ("y", "x"),
    )
    plain.gmt.registration = 1  # pixel registration
    return plain


def is_polar(crs: CRS | None) -> bool:
    """Return whether a CRS is EPSG:3031, Antarctic polar stereographic."""
    return crs is not None and rasters.same_crs(crs, CRS.from_user_input(POLAR))


@functools.lru_cache(maxsize=8)
def coast(what: str, resolution: str) -> npt.NDArray[np.float64]:
    """Return Antarctica's grounding line (``"ag"``) or ice front (``"ai"``) from GSHHG.

    The source is Wessel & Smith (1996), doi:10.1029/96JB00104.

    Parameters
    ----------
    what
        ``"ag"`` or ``"ai"``.
    resolution
        Resolution of GSHHG: ``"l"`` low, ``"i"`` intermediate, ``"h"`` high.

    Returns
    -------
    numpy.ndarray
        float64 (n, 2): x, y in kilometres, EPSG:3031, with NaN between lines; empty if GSHHG is
        not installed.
    """
    from pygmt.clib import Session
    from pygmt.exceptions import GMTCLibError
    from pygmt.helpers import GMTTempFile

    options = ["-R-180/180/-90/-60", f"-D{resolution}+f", f"-A+{what}", "-W1", "-M", "-Vq"]
    try:
        with Session() as session, GMTTempFile() as file:
            session.call_module("coast", [*options, f"->{file.name}"])
            text = file.read()
    except GMTCLibError:
        text = ""
    if not text.strip():
        logger.warning(
            "the grounding line is not drawn: GMT has no shorelines (Debian package: gmt-gshhg)"
        )
        return np.empty((0, 2))
    rows = [
        (np.nan, np.nan) if line.startswith(">") else tuple(map(float, line.split()[:2]))
        for line in text.splitlines()
        if line.strip()
    ]
    longitude, latitude = np.array(rows).T
    to_polar = Transformer.from_crs("OGC:CRS84", POLAR, always_xy=True)
    finite = np.isfinite(longitude)
    line = np.full((len(rows), 2), np.nan)
    line[finite] = np.column_stack(to_polar.transform(longitude[finite], latitude[finite])) / 1000
    return line
