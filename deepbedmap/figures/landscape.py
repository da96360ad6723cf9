"""Beds as landscapes, in three dimensions."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from deepbedmap import rasters
from deepbedmap.errors import Fault, InvalidDataError, WrongCallError
from deepbedmap.figures.cells import Axes, coarse, in_plot_units
from deepbedmap.figures.panels import Panel, scales_of
from deepbedmap.figures.scales import Scale
from deepbedmap.figures.sheet import Sheet, drawing

_CELLS = 300  # maximum along each side
_WIDTH, _HIGHEST = 8.5, 2.4  # cm, before tilting
_VIEW = 155.0, 32.0  # azimuth and elevation of the viewer, degrees
_LOWEST = 0.6  # cm, minimum height of the vertical axis
_APART = 13.0  # cm between the left edges of neighbours


def perspective(panels: Sequence[Panel], path: str | os.PathLike[str], source: str = "") -> Path:
    """Draw beds side by side as landscapes, viewed from the south-south-east.

    All share one vertical scale, including differences unless these would be flat; the vertical
    exaggeration is below the title.

    Parameters
    ----------
    panels
        Grids over the same bounds: a DEM, its prior, their difference, a baseline.
    path, source
        The same arguments as for :func:`deepbedmap.figures.compare`, with the same errors.

    Returns
    -------
    pathlib.Path
        The path of the figure.
    """
    if not panels:
        raise WrongCallError("panels: expected at least one, found none")
    with drawing(path, source) as sheet:
        cells = [coarse(panel.grid, _CELLS) for panel in panels]
        for panel, each in zip(panels, cells, strict=True):
            finite = np.isfinite(each.to_numpy())
            if min(finite.any(axis=0).sum(), finite.any(axis=1).sum()) < 2:
                raise InvalidDataError(
                    Fault(
                        panel.title,
                        expected="values in at least two rows and two columns, for a surface",
                        found=f"{int(finite.sum())} cells with values",
                    )
                )
        scales = scales_of(panels, cells)
        spans = [scale.high - scale.low for scale in scales]
        beds = [s for s, panel in zip(spans, panels, strict=True) if panel.kind == "elevation"]
        largest = max(beds or spans)
        top = 0.0
        for first in range(0, len(panels), 2):
            row = range(first, min(first + 2, len(panels)))
            bottoms = []
            for number in row:
                high = max(_LOWEST, _HIGHEST * spans[number] / largest)
                bottoms.append(
                    _draw_landscape(
                        *(sheet, cells[number], scales[number], panels[number].title),
                        *((number - first) * _APART, top, high),
                    )
                )
            top = min(bottoms)
    return Path(path)


def _draw_landscape(
    sheet: Sheet,
    cells: xr.DataArray,
    scale: Scale,
    title: str,
    left: float,
    top: float,
    high: float,
) -> float:
    """Draw a landscape whose top left corner is left, top (cm); return its bottom (cm)."""
    axes = Axes.around(cells.attrs["bounds"], rasters.crs_of(cells))
    width = min(_WIDTH, _WIDTH / axes.ratio)
    height = width * axes.ratio
    grid = in_plot_units(cells)
    grid = grid.clip(scale.low, scale.high)
    grid.gmt.registration = 1
    azimuth, elevation = (math.radians(angle) for angle in _VIEW)
    tilted_width = width * abs(math.cos(azimuth)) + height * abs(math.sin(azimuth))
    depth = width * abs(math.sin(azimuth)) + height * abs(math.cos(azimuth))
    tilted_height = depth * math.sin(elevation) + high * math.cos(elevation)
    bottom = top - tilted_height - 1.0
    end = bottom - 3.4
    sheet.go(left - 1, end, tilted_width + 2)
    sheet.go(left, bottom)
    x_label, y_label = axes.labels
    span = scale.high - scale.low
    scale.make()
    sheet.figure.grdview(
        grid,
        region=[*axes.region, scale.low, scale.high],
        projection=f"X{width:.4f}c/{height:.4f}c",
        zsize=f"{high:.4f}c",
        perspective=list(_VIEW),
        surftype="i150",
        shading="+a315+ne0.5",
        plane=f"{scale.low}+ggray80",
        frame=["SEwnZ", f"xaf+l{x_label}", f"yaf+l{y_label}", f"za{_step(span, high)}"],
        cmap=True,
    )
    exaggeration = ""
    if axes.unit == "km":
        west, east, _, _ = axes.region
        factor = (high / span) / (width / ((east - west) * 1000))
        exaggeration = f"vertical exaggeration {factor:,.{0 if factor >= 10 else 1}f}"
    sheet.write_fitted(title, 0, tilted_height + 0.5, tilted_width)
    sheet.write(exaggeration, 0, tilted_height + 0.1, "BL", "7.5p,gray30")
    sheet.colour_bar(scale, tilted_width / 2, -1.55, 0.7 * tilted_width)
    return end


def _step(span: float, high: float) -> float:
    """Return a round interval of some three annotations on an axis, at least 0.6 cm apart."""
    least = span / max(1.0, min(3.0, high / 0.6))
    power = 10 ** math.floor(math.log10(least))
    return float(next(step * power for step in (1, 2, 5, 10) if step * power >= least * 0.999))
