"""A transect: bed elevation and roughness along a flight line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deepbedmap import rasters
from deepbedmap.errors import Fault, InvalidDataError, WrongCallError
from deepbedmap.figures.curves import WIDTH, draw_axes, draw_curve, padded_range, pens_of
from deepbedmap.figures.sheet import drawing
from deepbedmap.points.picks import LINE_GAP
from deepbedmap.points.roughness import STRETCH, roughness_along
from deepbedmap.points.tracks import tracks

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    import numpy.typing as npt
    import pandas as pd
    import xarray as xr

    from deepbedmap.figures.sheet import Sheet
    from deepbedmap.points.tracks import Floats

_MOST = 20_000  # points that are drawn of a curve


def transect(
    picks: pd.DataFrame,
    grids: Mapping[str, xr.DataArray],
    path: str | os.PathLike[str],
    line: str | None = None,
    source: str = "",
) -> Path:
    """Draw elevation and, below, roughness of beds along a flight line, with gaps as gaps.

    Roughness is the standard deviation of elevation in segments of 1.25 km
    (:func:`deepbedmap.points.roughness.roughness_along`).

    Parameters
    ----------
    picks
        Table with columns ``x``, ``y``, ``z`` (m) and ``line``; picks of a line are in the order
        of the flight.
    grids
        Beds (y, x) in metres by name, interpolated bilinearly at the picks.
    path
        Path of the figure.
    line
        Name of the line; by default the longest within the bounds of the grids.
    source
        A line below the figure that states its sources.

    Returns
    -------
    pathlib.Path
        The path of the figure.

    Raises
    ------
    InvalidDataError
        The line does not exist, or no grid has a value along it.
    ValueError
        The picks have no column ``line``, or there are no grids.
    """
    if not grids or "picks" in grids:
        raise WrongCallError("grids: expected at least one, and none of the name picks")
    name, along = _line_of(picks, grids, line)
    for grid in grids.values():
        if rasters.crs_of(grid) is not None:
            rasters.require_reference("picks", picks.attrs.get("crs"), None, grid)
    x, y, z = (along[axis].to_numpy(np.float64) for axis in ("x", "y", "z"))
    beds = {label: rasters.sample(grid, x, y) for label, grid in grids.items()}
    if not any(np.isfinite(bed).any() for bed in beds.values()):
        raise InvalidDataError(
            Fault(
                "picks",
                field=f"line {name}",
                expected=f"values of {', '.join(grids)} along it",
                found="none",
                remedy="name another line",
            )
        )
    distance = np.cumsum(np.hypot(np.diff(x, prepend=x[0]), np.diff(y, prepend=y[0]))) / 1000
    curves = {"picks": z, **beds}
    end = max(float(distance[-1]), 0.1)
    pens = {"picks": "1.8p,gray55", **pens_of(beds)}
    with drawing(path, source) as sheet:
        columns = min(3, len(curves))
        below = 5.5 + 0.42 * -(-len(curves) // columns)
        sheet.go(-1.8, -below, WIDTH + 2.1)
        sheet.go(0, 0)
        _draw_elevations(sheet, distance, curves, pens, end)
        sheet.write_fitted(f"line {name}", 0, 5.85, WIDTH)
        sheet.go(0, -4.1)
        _draw_roughness(sheet, _roughness_curves(x, y, curves), pens, end)
        sheet.legend([(label, "line", pens[label]) for label in curves], 0, -1.25, WIDTH, columns)
    return Path(path)


def _draw_elevations(
    sheet: Sheet,
    distance: Floats,
    curves: Mapping[str, Floats],
    pens: Mapping[str, str],
    end: float,
) -> None:
    """Draw elevations (m) by distance (km) from 0 to the end of the line."""
    low, high = padded_range(
        np.concatenate([values[np.isfinite(values)] for values in curves.values()])
    )
    axes = draw_axes(sheet, [0, end, low, high], 5.6, None, "bed elevation (m)")
    step = max(1, distance.size // _MOST)
    parts = _parts(distance, LINE_GAP / 1000)[::step]
    for label, values in curves.items():
        curve = _with_gaps(distance[::step], values[::step], parts)
        draw_curve(sheet, *curve, pens[label], axes)


def _roughness_curves(
    x: Floats, y: Floats, curves: Mapping[str, Floats]
) -> dict[str, tuple[Floats, Floats]]:
    """Return distance (km) and roughness (m) along the line for each curve that has any."""
    import pandas as pd

    roughness = {}
    for label, values in curves.items():
        if np.isfinite(values).any():
            table = pd.DataFrame({"x": x, "y": y, "line": "a", "value": values})
            segments = roughness_along(table, ("value",))
            if len(segments):
                distance = segments["distance"].to_numpy() / 1000
                roughness[label] = distance, segments["value"].to_numpy()
    return roughness


def _draw_roughness(
    sheet: Sheet,
    curves: Mapping[str, tuple[Floats, Floats]],
    pens: Mapping[str, str],
    end: float,
) -> None:
    """Draw roughness (m) by distance (km) from 0 to the end of the line."""
    highest = max((float(values.max()) for _, values in curves.values()), default=1.0)
    axes = draw_axes(
        sheet,
        [0, end, 0, 1.08 * highest or 1.0],
        3.6,
        "distance along line (km)",
        "roughness in 1.25 km (m)",
    )
    for label, (distance, values) in curves.items():
        parts = _parts(distance, 2 * STRETCH / 1000)
        draw_curve(sheet, *_with_gaps(distance, values, parts), pens[label], axes)
        fill = pens[label].split(",")[1]
        sheet.figure.plot(x=distance, y=values, style="c0.06c", fill=fill, **axes)


def _line_of(
    picks: pd.DataFrame, grids: Mapping[str, xr.DataArray], line: str | None
) -> tuple[str, pd.DataFrame]:
    """Return the name and picks of a line, by default the longest within the grids' bounds."""
    if "line" not in picks:
        raise WrongCallError("picks: expected a column line, found none")
    names = picks["line"].astype(str)
    if line is not None:
        along = _finite(picks[(names == str(line)).to_numpy()])
        if along.empty:
            raise InvalidDataError(
                Fault("picks", field="line", expected="the name of a line", found=repr(line))
            )
        return str(line), along
    covered = np.zeros(len(picks), bool)
    for grid in grids.values():
        xmin, ymin, xmax, ymax = rasters.bounds_of(grid)
        covered |= (picks["x"].between(xmin, xmax) & picks["y"].between(ymin, ymax)).to_numpy()
    inside = _finite(picks[covered])
    if inside.empty:
        raise InvalidDataError(
            Fault(
                "picks",
                expected=f"at least one within {', '.join(grids)}",
                found="none",
                remedy="check that grids and picks cover the same area",
            )
        )
    followed = tracks(inside)
    lengths = np.zeros(len(followed.names))
    np.maximum.at(lengths, followed.line, followed.distance)
    longest = int(lengths.argmax())
    rows = followed.row[followed.line == longest]
    return str(followed.names[longest]), inside.iloc[np.sort(rows)]


def _finite(picks: pd.DataFrame) -> pd.DataFrame:
    finite = np.isfinite(picks[["x", "y", "z"]].to_numpy(np.float64)).all(axis=1)
    on_lines: pd.DataFrame = picks.loc[finite & picks["line"].notna().to_numpy()]
    return on_lines


def _parts(distance: Floats, gap: float) -> npt.NDArray[np.intp]:
    """Return the number of the part of a line at each point, one more after each gap."""
    parts: npt.NDArray[np.intp] = np.cumsum(np.diff(distance, prepend=distance[:1]) > gap)
    return parts


def _with_gaps(x: Floats, y: Floats, parts: npt.NDArray[np.intp]) -> tuple[Floats, Floats]:
    """Return a curve with NaN between its parts."""
    ends = np.flatnonzero(np.diff(parts)) + 1
    return np.insert(x, ends, np.nan), np.insert(y, ends, np.nan)
