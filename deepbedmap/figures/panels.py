"""Parts of a map: frame, cells, picks, lines, grounding line and colour bar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import xarray as xr
from pyproj import CRS, Transformer

from deepbedmap import rasters
from deepbedmap.errors import Fault, InvalidDataError, WrongCallError
from deepbedmap.figures.cells import Axes, coarse, coast, in_plot_units, is_polar, unit_of
from deepbedmap.figures.scales import COLOURS, Kind, Scale, scale_of
from deepbedmap.figures.sheet import Sheet, counted
from deepbedmap.places import CONTINENT

if TYPE_CHECKING:
    import pandas as pd

    from deepbedmap.points.tracks import Floats


BELOW, ABOVE, LEFT = 2.6, 0.8, 1.6
"""Margins of a map in centimetres, for its axes, colour bar and title."""

_WIDTH, _GAP = 8.0, 0.9  # cm
_HIGHEST = 1.6  # maximum height of a map divided by the width of its column
_SMALL_DOT = 0.035  # cm, diameter of the dots of many picks
_SPACING = 0.025  # cm, minimum distance between drawn picks
_CONTINENTAL = 2e6  # m, extent of picks beyond which a map shows the whole continent


@dataclass(frozen=True)
class Panel:
    """One map of a figure.

    Parameters
    ----------
    title
        Text above the map.
    grid
        Values (y, x) of any size; NaN is drawn in grey.
    kind
        ``"elevation"``, ``"roughness"``, ``"speed"``, ``"amount"`` or ``"difference"`` (white at
        zero): panels of one kind with the same label share a scale. ``"flags"``: one colour per
        value.
    label
        Label of the colour bar, with the units; by default the label of the kind, in metres.
    """

    title: str
    grid: xr.DataArray
    kind: Kind = "elevation"
    label: str | None = None


@dataclass(frozen=True)
class Track:
    """Picks or lines: (n, 2) x and y in a CRS (None for the CRS of the map), NaN between lines."""

    crs: CRS | None
    places: Floats
    dots: bool

    def on(self, axes: Axes) -> tuple[Floats, Floats]:
        """Return x and y in the units of axes, which may have another CRS."""
        x, y = self.places.T
        if self.crs is not None and axes.crs is not None and not self.crs.equals(axes.crs):
            finite = np.isfinite(x)
            projected = np.full_like(self.places, np.nan)
            to_axes = Transformer.from_crs(self.crs, axes.crs, always_xy=True)
            projected[finite] = np.column_stack(to_axes.transform(x[finite], y[finite]))
            x, y = projected.T
        divisor = unit_of(axes.crs)[0]
        return x / divisor, y / divisor


def draw_panels(
    sheet: Sheet, panels: Sequence[Panel], columns: int, tracks: Sequence[Track] = ()
) -> None:
    """Draw maps on a sheet, in rows from the top, with picks and lines on each."""
    if not panels:
        raise WrongCallError("panels: expected at least one, found none")
    cells = [coarse(panel.grid, flags=panel.kind == "flags") for panel in panels]
    scales = scales_of(panels, cells)
    width = _WIDTH if columns > 1 else 1.5 * _WIDTH
    top = 0.0
    for first in range(0, len(panels), columns):
        row = range(first, min(first + columns, len(panels)))
        axes = {n: Axes.around(cells[n].attrs["bounds"], rasters.crs_of(cells[n])) for n in row}
        bottom = top - ABOVE - max(width * min(each.ratio, _HIGHEST) for each in axes.values())
        for number in row:
            map_width = width * min(1, _HIGHEST / axes[number].ratio)
            left = (number - first) * (width + LEFT + _GAP) + (width - map_width) / 2
            draw_map(
                *(sheet, cells[number], scales[number], axes[number], left, bottom, map_width),
                title=panels[number].title,
                tracks=[(track, "0.7p,black") for track in tracks],
            )
        top = bottom - BELOW


def scales_of(panels: Sequence[Panel], cells: Sequence[xr.DataArray]) -> list[Scale]:
    """Return the scale of each panel, shared by those of one kind and label, except flags."""
    groups: dict[tuple[str, str | None, int], list[int]] = {}
    for number, panel in enumerate(panels):
        own = number if panel.kind == "flags" else -1
        groups.setdefault((panel.kind, panel.label, own), []).append(number)
    scales: dict[int, Scale] = {}
    for (_, label, _), numbers in groups.items():
        panel = panels[numbers[0]]
        values = [cells[number].to_numpy() for number in numbers]
        titles = ", ".join(panels[number].title for number in numbers)
        scale = scale_of(values, panel.kind, label, _meanings(panel.grid), titles)
        scales |= dict.fromkeys(numbers, scale)
    return [scales[number] for number in range(len(panels))]


def _meanings(grid: xr.DataArray) -> dict[float, str]:
    """Return the meanings of flag values, from the CF attributes."""
    words = str(grid.attrs.get("flag_meanings", "")).split()
    values = np.atleast_1d(grid.attrs.get("flag_values", grid.attrs.get("flag_masks", [])))
    try:
        return {float(v): w.replace("_", " ") for v, w in zip(values, words, strict=False)}
    except ValueError:
        return {}


def draw_map(
    sheet: Sheet,
    cells: xr.DataArray,
    scale: Scale,
    axes: Axes,
    left: float,
    bottom: float,
    width: float,
    *,
    title: str = "",
    tracks: Sequence[tuple[Track, str]] = (),
) -> None:
    """Draw a map of cells on a sheet; left, bottom (cm) is its lower left corner."""
    frame = begin_map(sheet, axes, left, bottom, width, "gray85")
    grid = in_plot_units(cells)
    grid = grid.copy(data=scale.place(grid.to_numpy()))
    grid.gmt.registration = 1
    scale.make()
    sheet.figure.grdimage(grid, cmap=True, **frame)
    end_map(sheet, axes, width, title=title, tracks=tracks)
    sheet.colour_bar(scale, width / 2, -1.25, 0.8 * width)


def begin_map(
    sheet: Sheet,
    axes: Axes,
    left: float,
    bottom: float,
    width: float,
    background: str = "white",
    below: float = BELOW,
) -> dict[str, object]:
    """Move to a map's corner and fill its frame; return its region and projection."""
    sheet.go(left - LEFT, bottom - below, width + LEFT + 0.3)
    sheet.go(left, bottom)
    frame: dict[str, object] = _frame(axes, width)
    sheet.figure.basemap(frame=[f"+g{background}"], **frame)
    return frame


def end_map(
    sheet: Sheet,
    axes: Axes,
    width: float,
    *,
    title: str = "",
    tracks: Sequence[tuple[Track, str]] = (),
    grounding_line: str = "0.6p,black",
) -> None:
    """Draw the grounding line, tracks, axes and title of a map over its cells."""
    draw_coast(sheet, axes, width, grounding_line)
    for track, pen in tracks:
        draw_track(sheet, track, axes, width, pen)
    x_label, y_label = axes.labels
    sheet.figure.basemap(
        frame=["WSne", f"xaf+l{x_label}", f"yaf+l{y_label}"], **_frame(axes, width)
    )
    sheet.write_fitted(title, 0, width * axes.ratio + 0.2, width)


def _frame(axes: Axes, width: float) -> dict[str, object]:
    return {
        "region": list(axes.region),
        "projection": f"X{width:.4f}c/{width * axes.ratio:.4f}c",
    }


def draw_coast(sheet: Sheet, axes: Axes, width: float, pen: str) -> None:
    """Draw the grounding line and the ice front if a map is in EPSG:3031."""
    if not is_polar(axes.crs):
        return
    west, east, south, north = axes.region
    resolution = "l" if east - west > 3000 else "i" if east - west > 700 else "h"
    margin = 100  # km, longer than any segment of the line
    for what, each in (("ai", "0.3p,gray30"), ("ag", pen)):
        x, y = coast(what, resolution).T
        near = (x > west - margin) & (x < east + margin)
        near &= (y > south - margin) & (y < north + margin)
        if near.any():
            x, y = np.where(near, x, np.nan), np.where(near, y, np.nan)
            sheet.figure.plot(x=x, y=y, pen=each, **_frame(axes, width))


def draw_track(sheet: Sheet, track: Track, axes: Axes, width: float, pen: str) -> None:
    """Draw lines with a pen, or picks as dots in its colour, thinned to what the eye resolves."""
    x, y = track.on(axes)
    if not np.isfinite(x).any():
        return
    if not track.dots:
        sheet.figure.plot(x=x, y=y, pen=pen, **_frame(axes, width))
        return
    west, east, south, north = axes.region
    inside = (x >= west) & (x <= east) & (y >= south) & (y <= north)
    x, y = x[inside], y[inside]
    if not x.size:
        return
    first = _squares(x, y, _SPACING * (east - west) / width)[0]
    size = _SMALL_DOT if first.size > 200 else 0.12
    colour = pen.split(",")[-1]
    sheet.figure.plot(x=x[first], y=y[first], style=f"c{size}c", fill=colour, **_frame(axes, width))


def _squares(
    x: Floats, y: Floats, side: float
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Sort picks into squares; return the first pick per square, each pick's square, the counts."""
    column, row = (np.floor((axis - axis.min()) / side).astype(np.int64) for axis in (x, y))
    _, first, square, count = np.unique(
        row * (column.max() + 1) + column,
        return_index=True,
        return_inverse=True,
        return_counts=True,
    )
    return first, square, count


def thinned(x: Floats, y: Floats, side: float) -> npt.NDArray[np.intp]:
    """Return the indices of the first pick in each square, in ascending order."""
    if not x.size:
        return np.empty(0, np.intp)
    return np.sort(_squares(x, y, side)[0])


def draw_values(
    sheet: Sheet,
    places: tuple[Floats, Floats],
    values: Floats,
    scale: Scale,
    axes: Axes,
    width: float,
) -> None:
    """Draw picks in the colours of their values, averaged over small squares."""
    divisor = unit_of(axes.crs)[0]
    west, east, _, _ = axes.region
    x, y = (axis / divisor for axis in places)
    _, square, count = _squares(x, y, 2 * _SPACING * (east - west) / width)
    x, y, mean = (np.bincount(square, axis) / count for axis in (x, y, values))
    many = x.size > 500
    scale.make()
    sheet.figure.plot(
        x=x,
        y=y,
        fill=mean,
        cmap=True,
        style=f"c{0.08 if many else 0.2}c",
        pen=None if many else "0.25p,black",
        **_frame(axes, width),
    )


def draw_tracks(
    sheet: Sheet,
    axes: Axes,
    width: float,
    tracks: Sequence[tuple[Track, str]],
    entries: Sequence[tuple[str, str, str]],
) -> None:
    """Draw a map of only picks and lines, with a legend below."""
    columns = 2 if len(entries) > 3 else 1
    below = 1.7 + 0.42 * -(-len(entries) // columns)
    begin_map(sheet, axes, 0, 0, width, below=below)
    end_map(sheet, axes, width, tracks=tracks, grounding_line="0.4p,gray50")
    sheet.legend(entries, 0, -1.35, width, columns)


def draw_coverage(sheet: Sheet, picks: Mapping[str, pd.DataFrame]) -> None:
    """Draw the locations of surveys' picks, the largest survey first."""
    crs = crs_of_picks(picks)
    places = {name: places_of(table) for name, table in picks.items()}
    counts = {name: int(picks[name].attrs.get("picks", places[name][0].size)) for name in picks}
    axes, width = frame_of(list(places.values()), crs)
    names = sorted(places, key=lambda name: -counts[name])
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)}
    draw_tracks(
        *(sheet, axes, width),
        [(Track(crs, np.column_stack(places[name]), True), colours[name]) for name in names],
        [
            (f"{name}: {counted(counts[name], 'pick')}".lstrip(": "), "box", colours[name])
            for name in names
        ],
    )


def crs_of_picks(picks: Mapping[str, pd.DataFrame]) -> CRS | None:
    """Return the CRS of tables of picks; raise :class:`InvalidDataError` if they differ."""
    stated = {
        name: CRS.from_user_input(table.attrs["crs"])
        for name, table in picks.items()
        if table.attrs.get("crs") not in (None, "", "unknown")
    }
    first = next(iter(stated.values()), None)
    for name, crs in stated.items():
        if first is not None and not rasters.same_crs(crs, first):
            raise InvalidDataError(
                Fault(
                    name,
                    field="crs",
                    expected=f"{first.to_string()}, the CRS of {next(iter(stated))}",
                    found=crs.to_string(),
                    remedy="draw them separately",
                )
            )
    return first


def places_of(table: pd.DataFrame) -> tuple[Floats, Floats]:
    """Return the finite coordinates of picks."""
    x, y = (table[axis].to_numpy(np.float64) for axis in ("x", "y"))
    finite = np.isfinite(x) & np.isfinite(y)
    return x[finite], y[finite]


def frame_of(places: Sequence[tuple[Floats, Floats]], crs: CRS | None) -> tuple[Axes, float]:
    """Return axes around picks, or of the continent if they cover much of it, and the map width."""
    x, y = (np.concatenate([np.empty(0), *(place[n] for place in places)]) for n in (0, 1))
    if not x.size:
        raise InvalidDataError(
            Fault(
                "picks", expected="at least one", found="none", remedy="use others, or a larger box"
            )
        )
    xmin, ymin, xmax, ymax = (float(edge) for edge in (x.min(), y.min(), x.max(), y.max()))
    extent = max(xmax - xmin, ymax - ymin)
    if is_polar(crs) and extent > _CONTINENTAL:
        axes = Axes.around(CONTINENT, crs)
    else:
        least = 0.02 if unit_of(crs)[1] == "degrees" else 2000.0
        margin = max(0.0, least - extent) / 2
        axes = Axes.around((xmin - margin, ymin - margin, xmax + margin, ymax + margin), crs, 0.03)
    return axes, min(14.0, 14.0 / axes.ratio)
