"""Checks of whole tables and grids, which schemas in ``validation/`` use next to pandera's.

Importing this module registers them with pandera.
"""

from __future__ import annotations

import functools
import inspect
import json
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyproj
import xarray as xr
from pandera.extensions import register_check_method

from deepbedmap import rasters
from deepbedmap.errors import InvalidDataError
from deepbedmap.places import EDGES

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_HEIGHTS = ("surface_altitude (m)", "land_ice_thickness (m)", "bedrock_altitude (m)")


def within_antarctica(picks: pd.DataFrame, *, most: float) -> pd.Series[bool]:
    """Return which picks in EPSG:3031 are at most ``most`` metres from the pole."""
    distance = pd.Series(np.hypot(picks["x"], picks["y"]), picks.index)
    crs = pyproj.CRS(picks.attrs.get("crs") or "EPSG:3031")
    return (distance <= most) | distance.isna() | (crs.to_epsg() != 3031)


def bed_below_surface_by_thickness(points: pd.DataFrame, *, most: float) -> pd.Series[bool]:
    """Return which beds are within ``most`` metres of the surface minus the thickness."""
    surface, thickness, bed = (points[name] for name in _HEIGHTS)
    return ~((surface - thickness - bed).abs() > most)


def boxes_in_order(windows: pd.DataFrame) -> pd.Series[bool]:
    """Return which boxes have xmin < xmax and ymin < ymax."""
    return (windows["xmin"] < windows["xmax"]) & (windows["ymin"] < windows["ymax"])


def boxes_of_one_size(windows: pd.DataFrame) -> pd.Series[bool]:
    """Return which boxes have the width and height of the first one, to one part in a million."""
    sizes = np.stack([windows["xmax"] - windows["xmin"], windows["ymax"] - windows["ymin"]], axis=1)
    alike = np.isclose(sizes, sizes[:1], rtol=1e-6, atol=0).all(axis=1)
    return pd.Series(alike, windows.index)


def boxes_are_geometries(windows: pd.DataFrame) -> pd.Series[bool]:
    """Return which geometries have the bounds that the columns of their edges state."""
    boxes = windows["geometry"].bounds.to_numpy()
    edges = windows[EDGES].to_numpy()
    return pd.Series(np.isclose(boxes, edges, rtol=1e-9, atol=1e-3).all(axis=1), windows.index)


ROWS: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    check.__name__: (check, columns)
    for check, columns in (
        (within_antarctica, ("x", "y")),
        (bed_below_surface_by_thickness, _HEIGHTS),
        (boxes_in_order, tuple(EDGES)),
        (boxes_of_one_size, tuple(EDGES)),
        (boxes_are_geometries, ("geometry",)),
    )
}
"""Checks that return which rows pass, and the columns that show why a row fails."""


def in_metres(picks: pd.DataFrame) -> str | None:
    """Return the extent of picks if it looks like degrees."""
    crs = pyproj.CRS(picks.attrs.get("crs") or "EPSG:3031")
    x, y = picks["x"], picks["y"]
    if crs.is_geographic or not (x.abs().max() <= 360 and y.abs().max() <= 90):
        return None
    return f"x from {x.min():g} to {x.max():g} and y from {y.min():g} to {y.max():g}"


def crs_in_metres(data: Any) -> str | None:
    """Return the CRS of windows or a grid if its units are not metres."""
    crs = rasters.crs_of(data["z"]) if isinstance(data, xr.Dataset) else data.crs
    if crs is None:
        return "none"
    return None if {axis.unit_name for axis in crs.axis_info} == {"metre"} else crs.to_string()


def regular_axes(grid: xr.Dataset) -> str | None:
    """Return the fault of a grid's coordinates x and y, if there is one."""
    try:
        rasters.bounds_of(grid["z"])
    except InvalidDataError as error:
        (fault,) = error.faults
        return str(getattr(fault, "found", fault))
    return None


def units_stated(grid: xr.Dataset, *, known: list[str]) -> str | None:
    """Return the units of a grid if they are not among the known ones."""
    return _unknown_attribute(grid, "units", known)


def datum_stated(grid: xr.Dataset, *, known: list[str]) -> str | None:
    """Return the vertical datum of a grid if it is not among the known ones."""
    return _unknown_attribute(grid, "vertical_datum", known)


def _unknown_attribute(grid: xr.Dataset, attribute: str, known: list[str]) -> str | None:
    value = grid["z"].attrs.get(attribute)
    return None if value in known else "none" if value is None else repr(value)


def provenance_readable(grid: xr.Dataset) -> str | None:
    """Return what a grid has as provenance if that is not a mapping in JSON."""
    text = grid["z"].attrs.get("provenance")
    if text is None:
        return "none"
    try:
        provenance = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return "text that is not JSON"
    return None if isinstance(provenance, dict) else "JSON that is not a mapping"


def elevations_between(grid: xr.Dataset, *, min_value: float, max_value: float) -> str | None:
    """Return the range of a grid's elevations if it exceeds the plausible range."""
    extremes = xr.Dataset({"least": grid["z"].min(), "most": grid["z"].max()}).compute()
    least, most = float(extremes["least"]), float(extremes["most"])
    if np.isnan(least):
        return "no value in any cell"
    return None if min_value <= least <= most <= max_value else f"{least:g} to {most:g}"


WHOLE: dict[str, Callable[..., str | None]] = {
    check.__name__: check
    for check in (
        in_metres,
        crs_in_metres,
        regular_axes,
        units_stated,
        datum_stated,
        provenance_readable,
        elevations_between,
    )
}
"""Checks that return what a table or grid has instead if it fails, and None if it passes."""


def _passes(check: Callable[..., str | None]) -> Callable[..., bool]:
    @functools.wraps(check)
    def passes(data: Any, **statistics: Any) -> bool:
        return check(data, **statistics) is None

    return passes


for _check in (*(check for check, _ in ROWS.values()), *map(_passes, WHOLE.values())):
    register_check_method(_check, statistics=list(inspect.signature(_check).parameters)[1:])
