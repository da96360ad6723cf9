"""The extent of a grid: its region, its cells and nodes, and its attributes.

Cells are pixel-registered: coordinates are cell centres. The spline is solved at nodes, the
corners of the cells.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pygmt
import xarray as xr
from pyproj import CRS

from deepbedmap.errors import Fault, InvalidDataError, WrongCallError
from deepbedmap.points.combining import name_of, require_finite

if TYPE_CHECKING:
    from typing import Any

    import pandas as pd

    from deepbedmap.places import Bounds

# A pick on the edge between two cells belongs to the one east and north of it. Without this shift
# (in cells) blockmedian and surface round such picks differently, and surface drops some of them.
_TIE = 1e-6
_METRES = 50  # least spacing at which coordinates in the range of degrees cannot be metres
Floats = npt.NDArray[np.float64]


def region_of(points: pd.DataFrame, increment: float = 250) -> Bounds:
    """Return the bounds of points, rounded as ``gmt info -Is<increment>`` does.

    They are rounded outward to whole increments, and further to dimensions with small factors,
    for which GMT's solver is fast.

    Parameters
    ----------
    points
        Columns ``x`` and ``y``, metres.
    increment
        Metres, more than 0.

    Returns
    -------
    tuple
        xmin, ymin, xmax, ymax in the CRS of the points. Points on one line along x or y get at
        least one increment on either side of it.

    Raises
    ------
    InvalidDataError
        There are no points, a coordinate is not finite, or all points are at one position.
    ValueError
        The increment is not positive.

    Examples
    --------
    >>> import pandas as pd
    >>> region_of(pd.DataFrame({"x": [100, 1000], "y": [0, 990]}))
    (0.0, 0.0, 1250.0, 1250.0)
    """
    if increment <= 0:
        raise WrongCallError(f"increment must be positive, not {increment}")
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


@dataclass(frozen=True)
class Lattice:
    """The cells of a grid, and their corners: the nodes at which the spline is solved.

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
        """Check picks and return the cells on which they are gridded.

        Parameters and errors are those of :func:`grid_points`.
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
                raise WrongCallError(
                    f"a region {extent:g} m wide is not a whole number of cells of {spacing:g} m"
                )
        return lattice

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of cells; there is one more row and column of nodes."""
        xmin, ymin, xmax, ymax = self.bounds
        return round((ymax - ymin) / self.spacing), round((xmax - xmin) / self.spacing)

    def holds(self, points: pd.DataFrame) -> pd.Series[bool]:
        """Return which picks are inside; raise InvalidDataError if none is."""
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
        """Return positions in cells: 0 is the first node, and cell (0, 0) is between 0 and 1."""
        # GMT's surface keeps coordinates in single precision, which resolves polar stereographic
        # metres only to 0.25 m; cells from the corner of the grid are much smaller numbers.
        xmin, ymin = self.bounds[:2]
        rows, columns = self.shape
        across, along = (
            ((np.asarray(values, np.float64) - edge) / self.spacing + _TIE).clip(max=count - _TIE)
            for values, edge, count in ((x, xmin, columns), (y, ymin, rows))
        )
        return across, along

    def raster(self, values: Any, name: str) -> xr.DataArray:
        """Return values (row, column) as a raster with the coordinates of the cell centres."""
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
        """Return the parameters of a grid, for its provenance."""
        return {
            "spacing": self.spacing,
            "tension": tension,
            "max_gap": max_gap,
            "region": [float(edge) for edge in self.bounds],
            "points": points,
        }


def describe(
    grid: xr.DataArray, points: pd.DataFrame, method: str, parameters: dict[str, Any]
) -> xr.DataArray:
    """Set the attributes and the CRS of a grid of picks."""
    datum = points.attrs.get("vertical_datum")
    above_ellipsoid = datum == "ellipsoid"
    grid.attrs = {
        # In CF's standard names, altitude is a height above the geoid.
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
    stated_crs = CRS.from_user_input(crs) if crs else None
    degrees = {"x": 360, "y": 90}
    if stated_crs is not None and stated_crs.is_geographic:
        evidence = f"degrees ({stated_crs.to_string()})"
    elif spacing >= _METRES and all(
        points[axis].abs().max() <= most for axis, most in degrees.items()
    ):
        evidence = "no x beyond 360 and no y beyond 90, as in degrees"
    else:
        return
    raise InvalidDataError(_fault(points, "x and y in metres", evidence, "project the picks first"))


def _fault(points: pd.DataFrame, expected: str, found: str, remedy: str) -> Fault:
    return Fault(name_of(points), expected=expected, found=found, remedy=remedy)
