"""Figures, drawn with PyGMT: axes in kilometres, palettes that colour-blind people can read.

Every function takes plain data and the path of an image, which appears complete or not at all.
"""

from __future__ import annotations

from deepbedmap.figures.cells import coarse
from deepbedmap.figures.curves import error_histogram, spectrum, training_curves, transect
from deepbedmap.figures.landscape import perspective
from deepbedmap.figures.maps import (
    CLOSE_UPS,
    close_ups,
    compare,
    continent,
    coverage,
    errors_at_picks,
    roughness,
)
from deepbedmap.figures.overview import quick_look
from deepbedmap.figures.panels import Panel
from deepbedmap.figures.sheet import SUFFIXES, Kind, escape, require_suffix

__all__ = [
    "CLOSE_UPS",
    "SUFFIXES",
    "Kind",
    "Panel",
    "close_ups",
    "coarse",
    "compare",
    "continent",
    "coverage",
    "error_histogram",
    "errors_at_picks",
    "escape",
    "perspective",
    "quick_look",
    "require_suffix",
    "roughness",
    "spectrum",
    "training_curves",
    "transect",
]
