"""Maps, drawn with PyGMT: axes in kilometres, palettes that colour-blind people can read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pygmt
import xarray as xr

from deepbedmap import repository

_PANEL_WIDTH = 8.0
_GAP = 1.4


@dataclass(frozen=True)
class Panel:
    """One map of a figure.

    Parameters
    ----------
    title
        Stands above the map.
    grid
        (y, x) in metres; NaN is left grey.
    kind
        ``"elevation"``: all such panels share one scale. ``"difference"``: a scale of its own,
        white at zero.
    """

    title: str
    grid: xr.DataArray
    kind: Literal["elevation", "difference"] = "elevation"


def compare(panels: Sequence[Panel], path: str | os.PathLike[str], source: str = "") -> Path:
    """Draw maps of the same place side by side, two in a row.

    Parameters
    ----------
    panels
        Grids of one CRS over about the same bounds.
    path
        An image (.png, .pdf, ...); it appears complete or not at all.
    source
        A line below the maps that says what they were made from.
    """
    path = Path(path)
    beds = np.concatenate([p.grid.to_numpy().ravel() for p in panels if p.kind == "elevation"])
    differences = [p.grid.to_numpy().ravel() for p in panels if p.kind == "difference"]
    figure = pygmt.Figure()
    with pygmt.config(
        FONT_TITLE="11p,Helvetica-Bold",
        FONT_LABEL="9p",
        FONT_ANNOT_PRIMARY="8p",
        MAP_TITLE_OFFSET="4p",
        MAP_FRAME_TYPE="plain",
        COLOR_NAN="gray80",
    ):
        for number, panel in enumerate(panels):
            column = number % 2
            grid = _in_kilometres(panel.grid)
            xmin, xmax, ymin, ymax = region = _region(grid)
            height = _PANEL_WIDTH * (ymax - ymin) / (xmax - xmin)
            if number:
                shift = _PANEL_WIDTH + _GAP
                figure.shift_origin(
                    xshift=f"{shift if column else -shift}c",
                    yshift="0c" if column else f"-{height + 3.2}c",
                )
            if panel.kind == "elevation":
                low, high = np.nanpercentile(beds, [0.5, 99.5])
                pygmt.makecpt(cmap="batlow", series=[low, high], background=True)
                label = "bed elevation (m)"
            else:
                high = float(np.nanpercentile(np.abs(np.concatenate(differences)), 99))
                pygmt.makecpt(cmap="vik", series=[-high, high], background=True)
                label = "difference (m)"
            figure.grdimage(
                grid,
                region=region,
                projection=f"X{_PANEL_WIDTH}c/{height}c",
                cmap=True,
                frame=[
                    "af",
                    "x+lx (km)",
                    "y+ly (km)",
                    f"{'WSne' if not column else 'wSne'}+t{panel.title}",
                ],
            )
            figure.colorbar(
                position=f"JBC+w{0.8 * _PANEL_WIDTH}c/0.25c+h+o0c/1.1c+e",
                frame=[f"af+l{label}"],
            )
        if source:
            figure.shift_origin(xshift="0c" if len(panels) % 2 else f"-{_PANEL_WIDTH + _GAP}c")
            figure.text(
                text=source,
                position="BL",
                justify="TL",
                offset="0c/-2.6c",
                no_clip=True,
                font="7p,gray30",
            )
    with repository.beside(path) as part:
        figure.savefig(part, dpi=150, crop="+m0.2c")
    return path


def _in_kilometres(grid: xr.DataArray) -> xr.DataArray:
    grid = grid.squeeze(drop=True).sortby("y")
    plain = xr.DataArray(
        grid.to_numpy().astype(np.float32),
        {"y": grid["y"].to_numpy() / 1_000, "x": grid["x"].to_numpy() / 1_000},
        ("y", "x"),
    )
    plain.gmt.registration = 1  # pixels
    return plain


def _region(grid: xr.DataArray) -> list[float]:
    """W, E, S, N, as GMT wants it."""
    half = float(grid.x[1] - grid.x[0]) / 2
    return [
        float(grid.x[0]) - half,
        float(grid.x[-1]) + half,
        float(grid.y[0]) - half,
        float(grid.y[-1]) + half,
    ]
