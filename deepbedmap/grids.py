"""From picks to a grid of bed elevation."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pygmt
import xarray as xr
from pyproj import CRS
from scipy.ndimage import distance_transform_edt

from deepbedmap.errors import Fault, InvalidDataError
from deepbedmap.rasters import Bounds
from deepbedmap.surveys import name_of, require_finite

# A pick on the edge between two cells belongs to the one east and north of it. Without this shift
# (in cells) blockmedian and surface round such picks differently, and surface drops some of them.
_TIE = 1e-6
_LEAST_NODES = 4  # surface refuses fewer, in either direction
# Block medians nearer than this (RMS, in cells) to a straight line ten times as long lie on it.
_STRAIGHT = 2.0
_MARGIN = 24  # cells around the region when they do
_METRES = 50  # spacing at which a grid of places like degrees would have next to no cells
# Cells beyond the mask that the spline is solved in: its height where that ends is approximate.
_BEYOND = 16

Floats = npt.NDArray[np.float64]

METHODS = {
    "band": "block medians, continuous-curvature spline in tension around them",
    "gmt": "GMT blockmedian, surface",
}


def region_of(points: pd.DataFrame, increment: float = 250) -> Bounds:
    """Bounds of points as ``gmt info -Is<increment>`` rounds them.

    That is outward to whole increments, and on to dimensions with small factors, which GMT's
    solver likes.

    Parameters
    ----------
    points
        Columns ``x`` and ``y``, metres.
    increment
        Metres.

    Returns
    -------
    tuple
        xmin, ymin, xmax, ymax in the CRS of the points. Points on one line along x or y get at
        least one increment on either side of it.

    Raises
    ------
    InvalidDataError
        No points, coordinates that are not finite, or all points at one place.

    Examples
    --------
    >>> region_of(pd.DataFrame({"x": [100, 1000], "y": [0, 990]}))
    (0.0, 0.0, 1250.0, 1250.0)
    """
    if increment <= 0:
        raise ValueError(f"increment must be positive, not {increment}")
    if points.empty:
        raise InvalidDataError(_fault(points, "at least one point", "none", "check the survey"))
    require_finite(points, "x", "y")
    corners = np.array([[points[axis].min(), points[axis].max()] for axis in ("x", "y")], float).T
    if (corners[0] == corners[1]).all():
        raise InvalidDataError(
            _fault(
                points,
                "points that span an area",
                f"all {len(points)} at x = {corners[0, 0]:g}, y = {corners[0, 1]:g}",
                "check the columns, or state the region",
            )
        )
    xmin, xmax, ymin, ymax = pygmt.info(
        data=corners, spacing=f"s{increment:.10g}", verbose="q"
    ).tolist()
    if xmin == xmax:
        xmin, xmax = xmin - increment, xmax + increment
    if ymin == ymax:
        ymin, ymax = ymin - increment, ymax + increment
    return xmin, ymin, xmax, ymax


def grid_points(
    points: pd.DataFrame,
    spacing: float = 250,
    tension: float = 0.35,
    max_gap: int = 3,
    region: Bounds | None = None,
    method: Literal["band", "gmt"] = "band",
) -> xr.DataArray:
    """Grid picks with block medians and a continuous-curvature spline in tension.

    Parameters
    ----------
    points
        Columns ``x, y, z`` in metres; attributes ``crs``, ``vertical_datum`` and ``sources``, as
        :func:`deepbedmap.points.read_points` gives them.
    spacing
        Width of a cell in metres.
    tension
        Of the spline, from 0 (minimum curvature) to 1 (harmonic).
    max_gap
        A cell has a value if its centre lies within ``max_gap + 1`` cells of the centre of a cell
        that holds a pick: 49 cells around a lone one for 3. This is what ``-M3c`` of GMT 6.4's
        surface keeps around a datum at a node; around others GMT measures from the block median
        itself, so that its edge differs by up to a cell.
    region
        Outer edges (xmin, ymin, xmax, ymax), whole cells apart; :func:`region_of` by default.
    method
        ``band`` solves the spline around the picks only (:mod:`deepbedmap.spline`): time and memory
        follow the survey, but for the grid that is returned. ``gmt`` solves it by GMT's surface,
        over the whole region. By its defaults GMT stops some 1 m RMS from its own converged result;
        ``band`` comes within 0.5 m of it.

    Returns
    -------
    xarray.DataArray
        ``z`` (y, x), float32 metres, pixel registration: coordinates are cell centres, y ascending.
        NaN beyond the mask. The CRS is CF's grid mapping ``spatial_ref``, or attribute ``crs`` =
        "unknown" where the points have none; attributes ``vertical_datum`` ("unknown" likewise)
        and ``provenance`` (JSON: sources, versions, parameters).

    Raises
    ------
    InvalidDataError
        Fewer than 4 points, values that are not finite, no extent where no region is given, or no
        point in the region.
        Degrees: a geographic CRS, or no x beyond 360 and no y beyond 90 at a spacing of 50 m or
        more.
    ValueError
        Parameters out of range, an unknown method, or a region of broken cells.

    Notes
    -----
    Smith & Wessel 1990, doi 10.1190/1.1442837. The spline is solved at the cell corners, through
    the medians of the blocks around them, and interpolated to the cell centres by bicubic
    convolution. On rough terrain (79N Glacier, a tenth of the picks held out) that is nearer to
    picks that were not used than a spline solved at the centres is, by some 7 % of RMS; the two
    differ by 15 m RMS, which is also what either differs by from itself when its nodes move by
    half a cell.

    What bad picks lead to: beside picks along one straight line, which carry no plane, heights tend
    to the trend along it. Picks all in one cell, or repeats of one place, give the median of their
    beds. A spike is left out by the median where its block holds two other picks at least; where it
    is alone it is taken for true, and raises the heights around it, by less than a tenth of its own
    height 10 cells away and a hundredth 40 cells away. By ``band`` no height leaves the range of
    the medians, less their plane, by more than twice its width, whatever the picks.

    Examples
    --------
    >>> picks = pd.DataFrame({"x": [0, 0, 2000, 2000], "y": [0, 2000, 0, 2000], "z": [5.0] * 4})
    >>> grid = grid_points(picks, region=(-250, -250, 2250, 2250))
    >>> grid.shape, float(grid.mean())
    ((10, 10), 5.0)
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r} must be one of {', '.join(METHODS)}")
    require_options(tension, max_gap)
    lattice = Lattice.of(points, spacing, region)
    inside = lattice.holds(points)
    x, y = lattice.locate(points["x"][inside], points["y"][inside])
    z = points["z"][inside].to_numpy(np.float64)
    heights = (
        _band(x, y, z, lattice.shape, tension, max_gap)
        if method == "band"
        else _surface(x, y, z, lattice.shape, tension, max_gap)
    )
    grid = lattice.raster(heights.astype(np.float32, copy=False), "z")
    parameters = lattice.parameters(tension, max_gap, int(inside.sum()))
    return describe(grid, points, METHODS[method], parameters)


def require_options(tension: float, max_gap: int) -> None:
    """Raise ValueError where one is out of range."""
    if not 0 <= tension <= 1 or max_gap < 0:
        raise ValueError(f"tension {tension} must lie in 0 to 1, max_gap {max_gap} not under 0")


@dataclass(frozen=True)
class Lattice:
    """The cells of a grid, and their corners: the nodes that the spline is solved at.

    Attributes
    ----------
    bounds
        Outer edges (xmin, ymin, xmax, ymax).
    spacing
        Width of a cell in metres.
    """

    bounds: Bounds
    spacing: float

    @classmethod
    def of(cls, points: pd.DataFrame, spacing: float, region: Bounds | None) -> Lattice:
        """Give the cells that picks are gridded on, once these are checked.

        Parameters, and errors, are those of :func:`grid_points`.
        """
        if len(points) < 4:
            raise InvalidDataError(
                _fault(
                    points, "at least 4 points", str(len(points)), "add picks, or check the filters"
                )
            )
        require_finite(points, "x", "y", "z")
        lattice = cls(region_of(points, spacing) if region is None else region, spacing)
        _require_metres(points, spacing)
        xmin, ymin, xmax, ymax = lattice.bounds
        for extent in (xmax - xmin, ymax - ymin):
            cells = extent / spacing if spacing > 0 else 0
            if cells < 0.5 or abs(cells - round(cells)) > 1e-6:
                raise ValueError(
                    f"a region {extent:g} m wide is no whole number of cells of {spacing:g} m"
                )
        return lattice

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of cells; there is one more of nodes either way."""
        xmin, ymin, xmax, ymax = self.bounds
        return round((ymax - ymin) / self.spacing), round((xmax - xmin) / self.spacing)

    def holds(self, points: pd.DataFrame) -> pd.Series[bool]:
        """Which picks lie inside; InvalidDataError if none does."""
        xmin, ymin, xmax, ymax = self.bounds
        inside = points["x"].between(xmin, xmax) & points["y"].between(ymin, ymax)
        if not inside.any():
            raise InvalidDataError(
                _fault(
                    points,
                    f"points in the region {self.bounds}",
                    "none",
                    "check the region and its CRS",
                )
            )
        return inside

    def locate(self, x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Floats, Floats]:
        """Picks' places in cells: 0 is the first node, and cell (0, 0) lies between 0 and 1."""
        # GMT's surface keeps coordinates in single precision, which for polar metres is up to
        # 0.25 m.
        xmin, ymin = self.bounds[:2]
        rows, columns = self.shape
        across, along = (
            ((np.asarray(values, np.float64) - edge) / self.spacing + _TIE).clip(max=count - _TIE)
            for values, edge, count in ((x, xmin, columns), (y, ymin, rows))
        )
        return across, along

    def raster(self, values: Any, name: str) -> xr.DataArray:
        """Give values by (row, column) the coordinates of the cells' centres."""
        xmin, ymin = self.bounds[:2]
        rows, columns = self.shape
        return xr.DataArray(
            values,
            {
                "y": ymin + (np.arange(rows) + 0.5) * self.spacing,
                "x": xmin + (np.arange(columns) + 0.5) * self.spacing,
            },
            dims=("y", "x"),
            name=name,
        )

    def parameters(self, tension: float, max_gap: int, points: int) -> dict[str, Any]:
        """What a grid's provenance says of how it was made."""
        return {
            "spacing": self.spacing,
            "tension": tension,
            "max_gap": max_gap,
            "region": [float(edge) for edge in self.bounds],
            "points": points,
        }


def _band(
    x: Floats, y: Floats, z: Floats, shape: tuple[int, int], tension: float, max_gap: int
) -> npt.NDArray[np.float32]:
    """The spline through the block medians at the cell centres near them, (rows, columns)."""
    from deepbedmap import spline  # numba takes a while to load

    row, column = (np.floor(values).astype(np.int64) for values in (y, x))
    band = spline.solve(
        *spline.block_medians(x, y, z),
        shape=(shape[0] + 1, shape[1] + 1),
        tension=tension,
        reach=reach_of(max_gap),
    )
    return band.centres(shape, row, column, max_gap + 1)


def reach_of(max_gap: int) -> int:
    """How far from the picks the spline is solved, in cells."""
    return max_gap + 1 + _BEYOND


def _surface(
    x: Floats, y: Floats, z: Floats, cells: tuple[int, int], tension: float, max_gap: int
) -> npt.NDArray[np.floating]:
    """The surface through the block medians at the cell centres near them, (rows, columns)."""
    # Solved at the cell corners, 0 to columns and 0 to rows, in gridline registration: GMT 6.4's
    # surface, given pixel registration, widens the region for its solver by half a cell and so
    # shifts the result.
    rows, columns = cells
    shape = max(columns, _LEAST_NODES - 1), max(rows, _LEAST_NODES - 1)
    blocks = pygmt.blockmedian(
        data=pd.DataFrame({"x": x, "y": y, "z": z}),
        spacing=1,
        region=[0, shape[0], 0, shape[1]],
        verbose="q",
    )
    table = blocks.to_numpy(np.float64)
    trend: Any = 0
    margin = 0
    middle = table[:, :2].mean(axis=0)
    _, spread, directions = np.linalg.svd(table[:, :2] - middle, full_matrices=False)
    if len(table) < 3 or spread[1] < min(_STRAIGHT * np.sqrt(len(table)), 0.1 * spread[0]):
        # Blocks along one straight line carry no plane, but surface fits one all the same: up to
        # thousands of kilometres high. So it gets the residuals of a trend along the line, and
        # zeros far off to tilt the plane by.
        along = np.stack([np.ones(len(table)), (table[:, :2] - middle) @ directions[0]], axis=1)
        level, slope = np.linalg.lstsq(along, table[:, 2], rcond=None)[0]
        table[:, 2] -= along @ (level, slope)
        across, up = np.arange(columns) + 0.5 - middle[0], np.arange(rows) + 0.5 - middle[1]
        trend = level + slope * (directions[0, 0] * across + directions[0, 1] * up[:, None])
        margin = _MARGIN
        (west, east), (south, north) = ((-margin, count + margin) for count in shape)
        corners = [(west, south, 0), (west, north, 0), (east, south, 0), (east, north, 0)]
        table = np.concatenate([table, corners])
    surface = pygmt.surface(
        data=table,
        spacing=1,
        region=[-margin, shape[0] + margin, -margin, shape[1] + margin],
        tension=tension,
        verbose="q",
    ).to_numpy()
    centres = _half_a_node_on(_half_a_node_on(surface).T).T
    heights: npt.NDArray[np.floating] = trend + centres[margin:, margin:][:rows, :columns]
    empty = np.ones(cells, bool)
    empty[y.astype(int), x.astype(int)] = False
    heights[distance_transform_edt(empty) > max_gap + 1] = np.nan
    return heights


def _half_a_node_on(values: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Cubic convolution half-way between rows (Keys 1981, doi 10.1109/TASSP.1981.1163711)."""
    # One row beyond each edge, in line with the two rows within: a plane stays a plane.
    rows = np.pad(values, ((1, 1), (0, 0)), mode="reflect", reflect_type="odd")
    middle: npt.NDArray[np.floating] = (9 * (rows[1:-2] + rows[2:-1]) - rows[:-3] - rows[3:]) / 16
    return middle


def describe(
    grid: xr.DataArray, points: pd.DataFrame, method: str, parameters: dict[str, Any]
) -> xr.DataArray:
    """Give a grid of picks its attributes and its CRS."""
    datum = points.attrs.get("vertical_datum")
    above_ellipsoid = datum == "ellipsoid"
    grid.attrs = {
        # CF keeps the word altitude for heights above the geoid.
        "standard_name": "height_above_reference_ellipsoid"
        if above_ellipsoid
        else "bedrock_altitude",
        "long_name": "bed elevation",
        "units": "m",
        "vertical_datum": datum or "unknown",
        "registration": "pixel",
        "provenance": json.dumps(
            {
                "sources": points.attrs.get("sources") or [],
                "method": method,
                "parameters": parameters,
                "versions": {
                    "gmt": pygmt.clib.__gmt_version__,
                    "pygmt": metadata.version("pygmt"),
                    "deepbedmap": metadata.version("deepbedmap"),
                },
            }
        ),
    }
    crs = points.attrs.get("crs")
    if crs is None:
        grid.attrs["crs"] = "unknown"
        return grid
    located: xr.DataArray = grid.rio.write_crs(crs).rio.write_coordinate_system()
    return located


def _require_metres(points: pd.DataFrame, spacing: float) -> None:
    crs = points.attrs.get("crs")
    known = CRS.from_user_input(crs) if crs else None
    degrees = {"x": 360, "y": 90}
    if known is not None and known.is_geographic:
        found = f"degrees ({known.to_string()})"
    elif spacing >= _METRES and all(
        points[axis].abs().max() <= most for axis, most in degrees.items()
    ):
        found = "no x beyond 360 and no y beyond 90, as in degrees"
    else:
        return
    raise InvalidDataError(_fault(points, "x and y in metres", found, "project the picks first"))


def _fault(points: pd.DataFrame, expected: str, found: str, remedy: str) -> Fault:
    return Fault(name_of(points), expected=expected, found=found, remedy=remedy)
