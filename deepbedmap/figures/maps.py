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

from deepbedmap import places as named_places
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
from deepbedmap.figures.scales import scale_of
from deepbedmap.figures.sheet import drawing

if TYPE_CHECKING:
    import pandas as pd

    from deepbedmap.places import Bounds

CLOSE_UPS: Mapping[str, tuple[float, float]] = named_places.CLOSE_UPS
"""Centres (x, y) in metres, EPSG:3031, of the close-ups of Leong & Horgan (2020)."""

_COVERED = 0.1  # minimum fraction of a close-up that has values


def compare(panels: Sequence[Panel], path: str | os.PathLike[str], source: str = "") -> Path:
    """Draw maps of the same area side by side, two per row.

    Parameters
    ----------
    panels
        Grids with similar bounds; each has axes of its own CRS.
    path
        An image (.png, .pdf, .svg, ...), which appears complete or not at all.
    source
        A line below the maps that states their sources.

    Returns
    -------
    pathlib.Path
        The path of the figure.

    Raises
    ------
    InvalidDataError
        No grid of a kind has a finite value, or a raster is not a regular grid.
    ValueError
        There are no panels, or the suffix of the path is not one of :data:`SUFFIXES`.
    """
    with drawing(path, source) as sheet:
        draw_panels(sheet, panels, min(2, len(panels)))
    return Path(path)


def roughness(panels: Sequence[Panel], path: str | os.PathLike[str], source: str = "") -> Path:
    """Draw maps of roughness side by side, on one scale from zero.

    Parameters
    ----------
    panels
        Grids of roughness (m) from :func:`deepbedmap.evaluation.roughness_map`.
    path, source
        The same arguments as for :func:`compare`, with the same errors.
    """
    rough = [Panel(panel.title, panel.grid, "roughness", panel.label) for panel in panels]
    with drawing(path, source) as sheet:
        draw_panels(sheet, rough, min(2, len(rough)))
    return Path(path)


def continent(bed: xr.DataArray, path: str | os.PathLike[str], source: str = "") -> Path:
    """Draw the bed of Antarctica, or the part that a raster covers, with the grounding line.

    Parameters
    ----------
    bed
        Bed elevation (y, x) in metres, of any size; the grounding line is drawn if the CRS is
        EPSG:3031.
    path, source
        The same arguments as for :func:`compare`, with the same errors.
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
    """Draw squares of 100 km around named places, three per row, each with its own scale.

    Parameters
    ----------
    bed
        Bed elevation (y, x) in metres, of any size: only the squares are read.
    path, source
        The same arguments as for :func:`compare`.
    places
        Centres (x, y) by name, in metres, in the CRS of the bed; a place with values in less than
        a tenth of its square is omitted.

    Raises
    ------
    InvalidDataError
        The bed covers none of the places.
    """
    half = named_places.CLOSE_UP_WIDTH / 2
    width, gap = 5.2, 2.2  # cm
    with drawing(path, source) as sheet:
        bed = rasters.north_up(bed)
        close_ups_by_name = {}
        for name, (x, y) in places.items():
            square = bed.sel(x=slice(x - half, x + half), y=slice(y + half, y - half))
            if min(square.shape) < 2:
                continue
            cells = coarse(square, 500)
            covered = float(np.isfinite(cells.to_numpy()).mean())
            xmin, ymin, xmax, ymax = cells.attrs["bounds"]
            if covered * (xmax - xmin) * (ymax - ymin) >= _COVERED * named_places.CLOSE_UP_WIDTH**2:
                close_ups_by_name[name] = cells, (x - half, y - half, x + half, y + half)
        if not close_ups_by_name:
            raise InvalidDataError(
                Fault(
                    rasters.name_of(bed),
                    expected=f"a bed at one of {', '.join(places)}",
                    found=f"a bed with the bounds {rasters.bounds_of(bed)}",
                )
            )
        for number, (name, (cells, bounds)) in enumerate(close_ups_by_name.items()):
            row, column = divmod(number, 3)
            scale = scale_of([cells.to_numpy()], "elevation")
            axes = Axes.around(bounds, rasters.crs_of(bed))
            left, bottom = column * (width + gap), -row * (width + ABOVE + BELOW)
            draw_map(sheet, cells, scale, axes, left, bottom, width, title=name)
    return Path(path)


def coverage(
    picks: Mapping[str, pd.DataFrame], path: str | os.PathLike[str], source: str = ""
) -> Path:
    """Draw the locations of surveys' picks, on the continent or in their own area.

    Parameters
    ----------
    picks
        Tables by survey, with columns ``x`` and ``y`` in metres in one CRS (``attrs["crs"]``).
    path, source
        The same arguments as for :func:`compare`.

    Raises
    ------
    InvalidDataError
        No pick has finite coordinates, or the surveys differ in CRS.
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
    """Draw the errors of a bed at picks on a map of the bed.

    Parameters
    ----------
    bed
        Bed elevation (y, x) in metres, of any size; the area around the picks is drawn in grey.
    picks
        Table with columns ``x`` and ``y`` in metres, in the CRS of the bed.
    error
        Bed minus pick (m) of shape (n,), one per pick; picks with NaN are not drawn.
    path, source
        The same arguments as for :func:`compare`.

    Raises
    ------
    InvalidDataError
        No error is finite.
    ValueError
        The number of errors differs from the number of picks.
    """
    values = np.asarray(error, np.float64)
    if values.shape != (len(picks),):
        raise WrongCallError(
            f"error: expected {len(picks)} values, one per pick, found shape {values.shape}"
        )
    x, y = (picks[axis].to_numpy(np.float64) for axis in ("x", "y"))
    finite = np.isfinite(values) & np.isfinite(x) & np.isfinite(y)
    x, y, values = x[finite], y[finite], values[finite]
    with drawing(path, source) as sheet:
        scale = scale_of([values], "difference", "bed minus pick (m)")
        axes, width = frame_of([(x, y)], rasters.crs_of(bed))
        frame = begin_map(sheet, axes, 0, 0, width)
        _draw_grey(sheet.figure, _window(bed, axes.bounds), frame)
        end_map(sheet, axes, width, grounding_line="0.6p,gray20")
        draw_values(sheet, (x, y), values, scale, axes, width)
        sheet.colour_bar(scale, width / 2, -1.25, 0.8 * width)
    return Path(path)


def _draw_grey(figure: pygmt.Figure, bed: xr.DataArray | None, frame: Mapping[str, object]) -> None:
    """Draw a bed in light greys, as a background for colours."""
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
        figure.grdimage(in_plot_units(cells), cmap=True, **frame)


def _window(raster: xr.DataArray, bounds: Bounds) -> xr.DataArray | None:
    """Return the cells of a raster that intersect a box; None if there are too few for a map."""
    raster = rasters.north_up(raster)
    cell = rasters.resolution_of(raster)
    xmin, ymin, xmax, ymax = bounds
    window = raster.sel(x=slice(xmin - cell, xmax + cell), y=slice(ymax + cell, ymin - cell))
    return window if min(window.shape) > 1 else None
