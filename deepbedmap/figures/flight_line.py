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

    from deepbedmap.figures.curves import Values

_MOST = 20_000  # points of a curve that are drawn


def transect(
    picks: pd.DataFrame,
    grids: Mapping[str, xr.DataArray],
    path: str | os.PathLike[str],
    line: str | None = None,
    source: str = "",
) -> Path:
    """Draw beds along a flight line: elevation above, roughness below; gaps stay gaps.

    Roughness is the standard deviation of elevation in stretches of 1.25 km
    (:func:`deepbedmap.points.roughness.roughness_along`).

    Parameters
    ----------
    picks
        Columns ``x``, ``y``, ``z`` (metres) and ``line``; picks of a line stand in the order in
        which they were flown.
    grids
        Beds (y, x) in metres by name, sampled bilinearly at the picks.
    path
        Of the figure.
    line
        Name of the line; by default the longest where one of the grids has its cells.
    source
        A line below that says what this was made from.

    Raises
    ------
    InvalidDataError
        There is no such line, or no grid has a value along it.
    ValueError
        The picks have no column ``line``, or there is no grid.
    """
    import pandas as pd

    if not grids or "picks" in grids:
        raise WrongCallError("a transect has at least one grid, and none of the name picks")
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
    distance = np.cumsum(np.hypot(np.diff(x, prepend=x[0]), np.diff(y, prepend=y[0])))
    curves = {"picks": z, **beds}
    rough = {}
    for label, values in curves.items():
        if np.isfinite(values).any():
            table = pd.DataFrame({"x": x, "y": y, "line": "a", "value": values})
            stretches = roughness_along(table, ("value",))
            rough[label] = stretches["distance"].to_numpy(), stretches["value"].to_numpy()
    kilometres = distance / 1000
    end = max(float(kilometres[-1]), 0.1)
    pens = {"picks": "1.8p,gray55", **pens_of(beds)}
    heights = np.concatenate([values[np.isfinite(values)] for values in curves.values()])
    low, high = padded_range(heights)
    most = max((float(values.max()) for _, values in rough.values() if values.size), default=1.0)
    with drawing(path, source) as sheet:
        columns = min(3, len(curves))
        below = 5.5 + 0.42 * -(-len(curves) // columns)
        sheet.go(-1.8, -below, WIDTH + 2.1)
        sheet.go(0, 0)
        where = draw_axes(sheet, [0, end, low, high], 5.6, None, "bed elevation (m)")
        step = max(1, x.size // _MOST)
        parts = _parted(kilometres, LINE_GAP / 1000)
        for label in curves:
            draw_curve(
                sheet,
                *_with_gaps(kilometres[::step], curves[label][::step], parts[::step]),
                pens[label],
                where,
            )
        sheet.write_fitted(f"line {name}", 0, 5.85, WIDTH)
        sheet.go(0, -4.1)
        where = draw_axes(
            sheet,
            [0, end, 0, 1.08 * most or 1.0],
            3.6,
            "distance along line (km)",
            "roughness in 1.25 km (m)",
        )
        for label in curves:
            if label in rough and rough[label][0].size:
                at, values = rough[label]
                parts = _parted(at / 1000, 2 * STRETCH / 1000)
                draw_curve(sheet, *_with_gaps(at / 1000, values, parts), pens[label], where)
                sheet.figure.plot(
                    x=at / 1000, y=values, style="c0.06c", fill=pens[label].split(",")[1], **where
                )
        sheet.legend([(label, "line", pens[label]) for label in curves], 0, -1.25, WIDTH, columns)
    return Path(path)


def _line_of(
    picks: pd.DataFrame, grids: Mapping[str, xr.DataArray], line: str | None
) -> tuple[str, pd.DataFrame]:
    """Name and picks of a line; by default of that which is longest within the grids' bounds."""
    if "line" not in picks:
        raise WrongCallError("picks along a line have a column line")
    names = picks["line"].astype(str)
    if line is not None:
        chosen = _finite(picks[(names == str(line)).to_numpy()])
        if chosen.empty:
            raise InvalidDataError(
                Fault("picks", field="line", expected="the name of a line", found=repr(line))
            )
        return str(line), chosen
    covered = np.zeros(len(picks), bool)
    for grid in grids.values():
        xmin, ymin, xmax, ymax = rasters.bounds_of(grid)
        covered |= (picks["x"].between(xmin, xmax) & picks["y"].between(ymin, ymax)).to_numpy()
    inside = _finite(picks[covered])
    if inside.empty:
        raise InvalidDataError(
            Fault(
                "picks",
                expected=f"some within {', '.join(grids)}",
                found="none",
                remedy="check that grids and picks cover the same place",
            )
        )
    followed = tracks(inside)
    lengths = np.zeros(len(followed.names))
    np.maximum.at(lengths, followed.line, followed.distance)
    longest = int(lengths.argmax())
    rows = followed.row[followed.line == longest]
    return str(followed.names[longest]), inside.iloc[np.sort(rows)]


def _finite(picks: pd.DataFrame) -> pd.DataFrame:
    known = np.isfinite(picks[["x", "y", "z"]].to_numpy(np.float64)).all(axis=1)
    kept: pd.DataFrame = picks.loc[known & picks["line"].notna().to_numpy()]
    return kept


def _parted(distance: Values, gap: float) -> npt.NDArray[np.intp]:
    """Number of the part of a line, one more after each gap."""
    parts: npt.NDArray[np.intp] = np.cumsum(np.diff(distance, prepend=distance[:1]) > gap)
    return parts


def _with_gaps(x: Values, y: Values, parts: npt.NDArray[np.intp]) -> tuple[Values, Values]:
    """A curve with NaN between its parts."""
    ends = np.flatnonzero(np.diff(parts)) + 1
    return np.insert(x, ends, np.nan), np.insert(y, ends, np.nan)
