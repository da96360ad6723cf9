"""Maps: beds side by side, the continent, close-ups, roughness, surveys, errors at picks."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pygmt
import xarray as xr

from deepbedmap import places as areas
from deepbedmap import rasters
from deepbedmap.errors import Fault, InvalidDataError, WrongCallError
from deepbedmap.figures.cells import Axes, coarse, in_plot_units
from deepbedmap.figures.panels import (
    ABOVE,
    BELOW,
    Panel,
    begin_map,
    draw_coverage,
    draw_map,
    draw_panels,
    draw_values,
    end_map,
    frame_of,
)
from deepbedmap.figures.sheet import drawing, scale_of

if TYPE_CHECKING:
    import pandas as pd

CLOSE_UPS: Mapping[str, tuple[float, float]] = areas.CLOSE_UPS
"""Centres (x, y), EPSG:3031 metres, of the close-ups of Leong & Horgan (2020)."""

_COVERED = 0.1  # share of a close-up that has values, at least


def compare(panels: Sequence[Panel], path: str | os.PathLike[str], source: str = "") -> Path:
    """Draw maps of the same place side by side, two in a row.

    Parameters
    ----------
    panels
        Grids over about the same bounds; each has axes of its own CRS.
    path
        An image (.png, .pdf, .svg, ...); it appears complete or not at all.
    source
        A line below the maps that says what they were made from.

    Raises
    ------
    InvalidDataError
        No grid of a kind has a finite value, or a raster is no regular grid.
    ValueError
        There is no panel; or the name ends otherwise.
    """
    with drawing(path, source) as sheet:
        draw_panels(sheet, panels, min(2, len(panels)))
    return Path(path)


def roughness(panels: Sequence[Panel], path: str | os.PathLike[str], source: str = "") -> Path:
    """Draw maps of roughness side by side, on one scale from zero.

    Parameters
    ----------
    panels
        Grids as :func:`deepbedmap.evaluation.roughness_map` gives them, metres.
    path, source
        As of :func:`compare`, and the errors too.
    """
    rough = [Panel(panel.title, panel.grid, "roughness", panel.label) for panel in panels]
    with drawing(path, source) as sheet:
        draw_panels(sheet, rough, min(2, len(rough)))
    return Path(path)


def continent(bed: xr.DataArray, path: str | os.PathLike[str], source: str = "") -> Path:
    """Draw the bed of Antarctica, or what a raster covers of it, with the grounding line.

    Parameters
    ----------
    bed
        (y, x), metres, of any size; the grounding line is drawn where its CRS is EPSG:3031.
    path, source
        As of :func:`compare`, and the errors too.
    """
    with drawing(path, source) as sheet:
        cells = coarse(bed, 1500)
        scale = scale_of([cells.to_numpy()], "elevation")
        axes = Axes.around(cells.attrs["bounds"], rasters.crs_of(cells))
        draw_map(sheet, cells, scale, axes, 0, 0, min(16.0, 16.0 / axes.ratio))
    return Path(path)


def close_ups(
    bed: xr.DataArray,
    path: str | os.PathLike[str],
    places: Mapping[str, tuple[float, float]] = CLOSE_UPS,
    source: str = "",
) -> Path:
    """Draw squares of 100 km around named places, three in a row, each on its own scale.

    Parameters
    ----------
    bed
        (y, x), metres, of any size: only the squares are read.
    path
        As of :func:`compare`.
    places
        Centres (x, y) by name, in the CRS of the bed; those with values in less than a tenth of
        their square are left out.
    source
        As of :func:`compare`.

    Raises
    ------
    InvalidDataError
        The bed covers none of the places.
    """
    half = areas.CLOSE_UP_WIDTH / 2
    width, gap = 5.2, 2.2
    with drawing(path, source) as sheet:
        bed = rasters.north_up(bed)
        shown = {}
        for name, (x, y) in places.items():
            square = bed.sel(x=slice(x - half, x + half), y=slice(y + half, y - half))
            if min(square.shape) < 2:
                continue
            cells = coarse(square, 500)
            known = float(np.isfinite(cells.to_numpy()).mean())
            xmin, ymin, xmax, ymax = cells.attrs["bounds"]
            if known * (xmax - xmin) * (ymax - ymin) >= _COVERED * areas.CLOSE_UP_WIDTH**2:
                shown[name] = cells, (x - half, y - half, x + half, y + half)
        if not shown:
            raise InvalidDataError(
                Fault(
                    rasters.name_of(bed),
                    expected=f"a bed at one of {', '.join(places)}",
                    found=f"none there; its bounds are {rasters.bounds_of(bed)}",
                )
            )
        for number, (name, (cells, bounds)) in enumerate(shown.items()):
            row, column = divmod(number, 3)
            scale = scale_of([cells.to_numpy()], "elevation")
            axes = Axes.around(bounds, rasters.crs_of(bed))
            left, bottom = column * (width + gap), -row * (width + ABOVE + BELOW)
            draw_map(sheet, cells, scale, axes, left, bottom, width, title=name)
    return Path(path)


def coverage(
    picks: Mapping[str, pd.DataFrame], path: str | os.PathLike[str], source: str = ""
) -> Path:
    """Draw where surveys have picks, on the continent or around them, with their numbers.

    Parameters
    ----------
    picks
        By survey, tables with columns ``x`` and ``y`` in metres of one CRS (``attrs["crs"]``).
    path, source
        As of :func:`compare`.

    Raises
    ------
    InvalidDataError
        There is no pick with finite coordinates, or the surveys differ in CRS.
    """
    with drawing(path, source) as sheet:
        draw_coverage(sheet, picks)
    return Path(path)


def errors_at_picks(
    bed: xr.DataArray,
    picks: pd.DataFrame,
    error: npt.ArrayLike,
    path: str | os.PathLike[str],
    source: str = "",
) -> Path:
    """Draw how far a bed is from picks: where, and by how much.

    Parameters
    ----------
    bed
        (y, x), metres, of any size; what is around the picks is drawn, in grey.
    picks
        Columns ``x`` and ``y``, in the CRS of the bed.
    error
        (n,) metres, bed minus pick, of each pick; where NaN, there is no dot.
    path, source
        As of :func:`compare`.

    Raises
    ------
    InvalidDataError
        No error is finite.
    ValueError
        There are not as many errors as picks.
    """
    values = np.asarray(error, np.float64)
    if values.shape != (len(picks),):
        raise WrongCallError(
            f"expected {len(picks)} errors, one a pick, found shape {values.shape}"
        )
    x, y = (picks[axis].to_numpy(np.float64) for axis in ("x", "y"))
    known = np.isfinite(values) & np.isfinite(x) & np.isfinite(y)
    x, y, values = x[known], y[known], values[known]
    with drawing(path, source) as sheet:
        scale = scale_of([values], "difference", "bed minus pick (m)")
        axes, width = frame_of([(x, y)], rasters.crs_of(bed))
        where = begin_map(sheet, axes, 0, 0, width)
        _draw_grey(sheet.figure, _cut(bed, axes.bounds), where)
        end_map(sheet, axes, width, grounding_line="0.6p,gray20")
        draw_values(sheet, (x, y), values, scale, axes, width)
        sheet.colour_bar(scale, width / 2, -1.25, 0.8 * width)
    return Path(path)


def _draw_grey(figure: pygmt.Figure, bed: xr.DataArray | None, where: Mapping[str, object]) -> None:
    """Draw a bed in light greys, for colours to stand out on it."""
    if bed is None:
        return
    cells = coarse(bed)
    heights = cells.to_numpy()
    if not np.isfinite(heights).any():
        return
    low, high = (float(edge) for edge in np.nanpercentile(heights, [0.5, 99.5]))
    high = max(high, low + 1)
    pygmt.makecpt(
        cmap="gray45,gray95", series=[low, high], background=True, overrule_bg=True, continuous=True
    )
    with pygmt.config(COLOR_NAN="white"):
        figure.grdimage(in_plot_units(cells), cmap=True, **where)


def _cut(raster: xr.DataArray, bounds: rasters.Bounds) -> xr.DataArray | None:
    """The cells of a raster that touch a box; None where it has none there."""
    raster = rasters.north_up(raster)
    cell = rasters.resolution_of(raster)
    xmin, ymin, xmax, ymax = bounds
    window = raster.sel(x=slice(xmin - cell, xmax + cell), y=slice(ymax + cell, ymin - cell))
    return window if min(window.shape) > 1 else None
