"""Test picks inside or near the tiles or the picks that a model was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deepbedmap.errors import WrongCallError
from deepbedmap.evaluation.trainings import require_crs_of_picks
from deepbedmap.extras import required_extra
from deepbedmap.places import BUFFER

if TYPE_CHECKING:
    from typing import Any

    import pandas as pd

    from deepbedmap.evaluation.trainings import Training


_AT_ONCE = 1_000_000


@dataclass(frozen=True)
class Leak:
    """Test picks that a model may have learned from.

    Attributes
    ----------
    within
        Picks inside a training tile, or at the place of a training pick (to a metre).
    near
        Picks no farther away than the buffer, including those within.
    picks
        All test picks.
    buffer
        Distance in metres.
    what
        Training data that the picks are near.
    """

    within: int
    near: int
    picks: int
    buffer: float
    what: str

    def __str__(self) -> str:
        return (
            f"{self.near:,} of {self.picks:,} test picks are within {self.buffer / 1000:g} km of "
            f"{self.what}, {self.within:,} of them inside"
        )


def find_leak(points: pd.DataFrame, training: Training, buffer: float = BUFFER) -> Leak | None:
    """Find test picks at or near training tiles or picks.

    Parameters
    ----------
    points
        Test picks, columns x and y in metres, in the CRS of the training.
    training
        Tiles and picks of the training; missing ones are not checked.
    buffer
        Distance in metres up to which a pick leaks.

    Returns
    -------
    Leak or None
        The leak from the tiles, or else from the picks. None if every pick is farther away.

    Raises
    ------
    InvalidDataError
        The training is in another CRS.
    """
    if buffer < 0:
        raise WrongCallError(f"buffer: expected 0 or more, found {buffer}")
    x, y = (points[axis].to_numpy(np.float64) for axis in "xy")
    if training.footprints is not None and len(training.footprints):
        import shapely

        require_crs_of_picks(points, training.footprints.crs, "training tiles")
        tiles = shapely.union_all(training.footprints.geometry.to_numpy())
        around = shapely.buffer(tiles, buffer, quad_segs=64)
        counts = []
        for area in (tiles, around):
            shapely.prepare(area)
            counts.append(int(shapely.intersects_xy(area, x, y).sum()))
        if counts[1]:
            what = f"{len(training.footprints):,} training tiles"
            return Leak(counts[0], counts[1], x.size, buffer, what)
    if training.picks is not None and len(training.picks):
        require_crs_of_picks(points, training.picks.attrs.get("crs"), "training picks")
        distance = distance_to(points, training.picks)
        if (near := int((distance <= buffer).sum())) > 0:
            what = f"{len(training.picks):,} training picks"
            return Leak(int((distance <= 1).sum()), near, x.size, buffer, what)
    return None


def distance_to(points: pd.DataFrame, picks: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the distance (n,) in metres from each point to the nearest pick.

    Examples
    --------
    >>> import pandas as pd
    >>> distance_to(pd.DataFrame({"x": [0.0], "y": [4.0]}), pd.DataFrame({"x": [3.0], "y": [0.0]}))
    array([5.])
    """
    with required_extra("grid"):
        from scipy.spatial import cKDTree

    tree = cKDTree(picks[["x", "y"]].to_numpy(np.float64), balanced_tree=False, compact_nodes=False)
    places = points[["x", "y"]].to_numpy(np.float64)
    parts = [
        tree.query(places[start : start + _AT_ONCE], workers=-1)[0]
        for start in range(0, len(places), _AT_ONCE)
    ]
    return np.concatenate([np.empty(0), *parts])
