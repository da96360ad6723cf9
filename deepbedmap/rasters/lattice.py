"""The cells of a raster: bounds, resolution, axes, bands and the blocks in which they are stored.

Functions here read coordinates and metadata only, never the values of cells.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deepbedmap.errors import Fault, InvalidDataError

if TYPE_CHECKING:
    import xarray as xr

    from deepbedmap.places import Bounds

GDAL_CACHE = 128 * 2**20  # bytes of GDAL's cache of blocks, which by default is 5 % of memory


def whole_blocks(block: int, least: int) -> int:
    """Return ``block`` rounded up to a multiple of ``least``, both in cells."""
    return -(-block // least) * least


def name_of(raster: xr.DataArray) -> str:
    """Return the file that a raster was opened from, else its own name, for messages."""
    return str(raster.encoding.get("source") or raster.name or "raster")


def file_of(raster: xr.DataArray) -> Path | None:
    """The file that a raster was opened from; None where there is none."""
    source = raster.encoding.get("source")
    return Path(source) if source and Path(source).exists() else None


def bounds_of(raster: xr.DataArray) -> Bounds:
    """Return the outer edges ``(xmin, ymin, xmax, ymax)`` of a raster, in the units of its CRS.

    Examples
    --------
    >>> import xarray as xr
    >>> bounds_of(xr.DataArray(np.zeros((2, 3)), {"y": [750, 250], "x": [250, 750, 1250]}))
    (0.0, 0.0, 1500.0, 1000.0)
    """
    edges = []
    for first, step, count in axes_of(raster):
        edges.append(sorted((first - step / 2, first + step * (count - 0.5))))
    (xmin, xmax), (ymin, ymax) = edges
    return xmin, ymin, xmax, ymax


def resolution_of(raster: xr.DataArray) -> float:
    """Return the width of a raster's cells, in the units of its CRS."""
    return abs(axes_of(raster)[0][1])


def band_count(raster: xr.DataArray) -> int:
    """Return the number of bands of a raster, ``(y, x)`` or ``(band, y, x)``."""
    return int(raster.sizes[raster.dims[0]]) if raster.ndim == 3 else 1


def block_of(raster: xr.DataArray, dim: str) -> int:
    """Return the cells along a dimension that are read together: a file's block or a dask chunk."""
    stored = raster.encoding.get("preferred_chunks", {}).get(dim, 1)
    return int(max(stored, *raster.chunksizes.get(dim, (1,))))


def axes_of(raster: xr.DataArray) -> list[tuple[float, float, int]]:
    """Return (first centre, signed step, number of cells) along x and along y.

    Raises
    ------
    InvalidDataError
        The raster is rotated or irregular, or its cells are not square.
    """
    require_xy(raster)
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


def require_xy(raster: xr.DataArray) -> None:
    """Raise InvalidDataError if a raster is rotated or lacks coordinates along x or y."""
    if any(dim not in raster.dims or dim not in raster.coords for dim in ("x", "y")):
        # rioxarray opens a rotated raster without coordinates along its dimensions.
        raise InvalidDataError(
            Fault(
                file=name_of(raster),
                expected="a raster along x and y, north up, with coordinates",
                found="a rotated raster, or one without coordinates x and y",
                remedy="warp it with gdalwarp",
            )
        )


def north_up(raster: xr.DataArray) -> xr.DataArray:
    """Return a raster with rows from north to south and columns from west to east, unread."""
    (_, x_step, _), (_, y_step, _) = axes_of(raster)
    raster = raster.transpose(..., "y", "x")
    if x_step > 0 > y_step:
        return raster
    encoding = raster.encoding
    raster = raster.isel(x=slice(None, None, int(np.sign(x_step))))
    raster = raster.isel(y=slice(None, None, -int(np.sign(y_step))))
    raster.encoding = encoding
    return raster
