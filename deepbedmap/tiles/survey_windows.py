"""Find the windows of several surveys, select them and split them for training."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import pandas as pd
import xarray as xr
from pyproj import CRS

from deepbedmap import rasters
from deepbedmap.errors import Fault, InvalidDataError, WrongCallError
from deepbedmap.places import BUFFER
from deepbedmap.tiles import selection
from deepbedmap.tiles.inputs import PADDING
from deepbedmap.tiles.selection import grounded
from deepbedmap.tiles.splitting import split
from deepbedmap.tiles.windowing import find_windows

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Literal, TypeAlias

    import numpy.typing as npt

    from deepbedmap.tiles.inputs import Inputs

logger = logging.getLogger(__name__)

Grid = xr.DataArray | str | os.PathLike[str]
GroundingLine: TypeAlias = "gpd.GeoDataFrame | str | os.PathLike[str] | None"


def find(
    grids: Mapping[str, Grid],
    inputs: Inputs | None = None,
    *,
    size: int = 36,
    step: int = 3,
    coverage: float = 1.0,
    exclude: str | Iterable[str] = (),
    exclude_buffer: float = BUFFER,
    grounding_line: GroundingLine = None,
    grounding_buffer: float = 0,
    by: Literal["block", "survey"] | None = None,
    block: float = 40_000,
    validation: float | list[str] = 0.2,
    buffer: float = BUFFER,
    seed: int = 0,
) -> gpd.GeoDataFrame:
    """Find the windows of several surveys, as :func:`build` does.

    Parameters
    ----------
    grids
        As in :func:`build`, with one cell size and CRS.
    inputs
        Keep only windows that, with a margin of 1 km, are within all of these; None: all windows.
    by
        None: the windows are not split.

    Other parameters are those of :func:`build`.

    Returns
    -------
    geopandas.GeoDataFrame
        As returned by :func:`deepbedmap.tiles.find_windows`, with the column ``survey`` and, if
        they are split, ``split``: ``"train"``, ``"validation"`` or ``"dropped"``.

    Raises
    ------
    InvalidDataError
        Grids differ in CRS or vertical datum; or windows are to be split, and none is left, none to
        train on, or none to validate with.
    ValueError
        There is no grid, or a parameter is out of range.
    """
    beds = open_grids(grids)
    first = next(iter(beds.values()))
    # A CRS read from CF's attributes has no EPSG code and is not equal to the same CRS with one.
    crs = _canonical(rasters.require_crs(first))
    parts = []
    for survey, bed in beds.items():
        require_like_grid(first, survey, bed)
        part = find_windows(bed, size, step, coverage).assign(survey=survey)
        parts.append(part.set_crs(crs, allow_override=True))
    windows = pd.concat(parts, ignore_index=True)
    left = {f"of {size} x {size} cells, a share of {coverage:g} with a bed": len(windows)}
    if inputs is not None:
        windows = windows[_inside(windows, inputs)]
        left[f"{PADDING:g} m inside every input"] = len(windows)
    areas = [exclude] if isinstance(exclude, str) else list(exclude)
    if areas:
        windows = selection.exclude(windows, areas, exclude_buffer)
        left[f"clear of {', '.join(areas)}"] = len(windows)
    if grounding_line is not None:
        windows = grounded(windows, outlines_of(grounding_line), grounding_buffer)
        left["on grounded ice"] = len(windows)
    for which, count in left.items():
        logger.info("windows %s: %d", which, count)
        if count == 0 and by is not None:
            raise InvalidDataError(no_windows_fault(which))
    if by is None:
        return windows
    labels = split(windows, by=by, block=block, validation=validation, buffer=buffer, seed=seed)
    return windows.assign(split=labels.astype(object))


def open_grids(grids: Mapping[str, Grid]) -> dict[str, xr.DataArray]:
    """Return the bed grid of each survey, opened if it is a path; raise ValueError if none."""
    if not grids:
        raise WrongCallError("the grid of at least one survey is needed")
    return {
        str(survey): grid if isinstance(grid, xr.DataArray) else rasters.open_raster(grid)
        for survey, grid in grids.items()
    }


def require_like_grid(like: xr.DataArray, survey: str, bed: xr.DataArray) -> None:
    """Raise InvalidDataError if a bed has another CRS or vertical datum than the first grid."""
    name, crs = f"{survey}: {rasters.name_of(bed)}", rasters.require_crs(bed)
    rasters.require_reference(name, crs, bed.attrs.get("vertical_datum"), like)


def _canonical(crs: CRS) -> CRS:
    """Return a CRS by its EPSG code, if it has one."""
    code = crs.to_epsg()
    return crs if code is None else CRS.from_epsg(code)


def outlines_of(grounding_line: GroundingLine) -> gpd.GeoDataFrame | Path | None:
    """Return the polygons of the grounded ice, or their file; None for those of GSHHG."""
    if isinstance(grounding_line, gpd.GeoDataFrame):
        return grounding_line
    return None if grounding_line in (None, "gshhg") else Path(grounding_line)


def _inside(windows: gpd.GeoDataFrame, inputs: Inputs) -> npt.NDArray[np.bool_]:
    """Return which windows are within every input, with the margin that the network needs."""
    inside = np.ones(len(windows), bool)
    for raster in inputs.by_name.values():
        xmin, ymin, xmax, ymax = rasters.bounds_of(raster)
        margin = PADDING - 1e-6 * rasters.resolution_of(raster)
        inside &= windows["xmin"].ge(xmin + margin) & windows["xmax"].le(xmax - margin)
        inside &= windows["ymin"].ge(ymin + margin) & windows["ymax"].le(ymax - margin)
    return inside


def no_windows_fault(which: str) -> Fault:
    """Return the fault for a selection that leaves no windows."""
    return Fault(
        "windows",
        expected=f"some {which}",
        found="none",
        remedy="use more surveys, larger rasters, or less coverage",
    )
