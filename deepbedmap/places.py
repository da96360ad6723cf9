"""Boxes and named places: where the original DeepBedMap was tested and shown, and the continent.

All coordinates are in metres, EPSG:3031, from Leong & Horgan (2020), doi:10.5194/tc-14-3687-2020.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deepbedmap.errors import WrongCallError

if TYPE_CHECKING:
    from collections.abc import Iterable

Bounds = tuple[float, float, float, float]
"""A box (xmin, ymin, xmax, ymax)."""

EDGES = ["xmin", "ymin", "xmax", "ymax"]
"""Names of the edges of :data:`Bounds`, in order."""

BUFFER = 11_000.0
"""Metres between training data and what a model is validated or tested on, by default."""

ANTARCTIC_RADIUS = 3.34e6
"""Distance (m) from the pole of EPSG:3031 that nothing south of 60 degrees S exceeds."""

CRS = "EPSG:3031"
CONTINENT: Bounds = (-2_700_000, -2_200_000, 2_800_000, 2_300_000)
# Bounds (xmin, ymin, xmax, ymax) within which models are scored, so no model may train there.
TEST_AREAS: dict[str, Bounds] = {
    "Pine Island 2007tx": (-1_594_000, -166_500, -1_575_000, -95_500),
    "Pine Island": (-1_631_500, -259_000, -1_536_500, -95_000),
    "Thwaites": (-1_524_500, -650_000, -1_274_500, -300_000),
    "Thwaites roughness": (-1_550_000, -550_000, -1_250_000, -300_000),
}
# Centres (x, y) of square maps, CLOSE_UP_WIDTH metres wide.
CLOSE_UPS: dict[str, tuple[float, float]] = {
    "Scott Glacier": (-200_000, -400_000),
    "Whillans": (-400_000, -550_000),
    "Bindschadler": (-550_000, -800_000),
    "Evans": (-1_500_000, 350_000),
    "Rutford": (-1_300_000, 150_000),
    "Foundation": (-600_000, 350_000),
    "Totten": (2_250_000, -1_050_000),
    "Byrd": (400_000, -950_000),
    "Gamburtsev": (800_000, 200_000),
}
CLOSE_UP_WIDTH = 100_000


def checked_bounds(bounds: Iterable[float], name: str = "bounds") -> Bounds:
    """Return a box as floats.

    Parameters
    ----------
    bounds
        Its edges (xmin, ymin, xmax, ymax), in any units.
    name
        What an error calls it.

    Raises
    ------
    WrongCallError
        There are not four numbers, or the box is empty.

    Examples
    --------
    >>> checked_bounds([0, 0, 1_000, 500])
    (0.0, 0.0, 1000.0, 500.0)
    """
    try:
        xmin, ymin, xmax, ymax = map(float, bounds)
    except (TypeError, ValueError):
        raise WrongCallError(f"{name}: expected four numbers, found {bounds!r}") from None
    if not (xmin < xmax and ymin < ymax):
        raise WrongCallError(
            f"{name}: expected (xmin, ymin, xmax, ymax) with xmin < xmax and ymin < ymax, "
            f"found {(xmin, ymin, xmax, ymax)}"
        )
    return xmin, ymin, xmax, ymax
