"""The beds of one comparison, sampled at the same picks and brought to one vertical datum."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deepbedmap import rasters
from deepbedmap.errors import Fault, InvalidDataError, MissingDataError, WrongCallError
from deepbedmap.evaluation.sampling import open_bed, places_of, sample_bed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    import numpy.typing as npt
    import pandas as pd
    import xarray as xr

    from deepbedmap.evaluation.sampling import Raster
    from deepbedmap.rasters.geoids import Geoids
    from deepbedmap.rasters.sampling import Method
    from deepbedmap.registry.listing import Registry

logger = logging.getLogger(__name__)

_GRID = 250.0
_REACH = 60  # cells from a training pick that the gridding reaches
_MOST_CELLS = 100e6


def open_beds(
    dem: Raster,
    points: pd.DataFrame,
    prior: Raster | None,
    gridding: pd.DataFrame | None,
    baselines: Mapping[str, Raster] | None,
    registry: Registry,
) -> dict[str, Bed]:
    """Open the beds that :func:`compare` scores, by the names of their rows; the DEM first."""
    beds = {"dem": Bed.open(dem, registry)}
    if prior is not None:
        beds["bicubic prior"] = Bed.open(prior, registry, "cubic")
    if gridding is not None and (grid := _gridded(gridding, points)) is not None:
        beds["gridding"] = Bed(grid, grid, "linear")
    for name, baseline in (baselines or {}).items():
        if name in beds or name == "picks":
            raise WrongCallError(f"baselines: expected a name other than {name!r}")
        beds[name] = Bed.open(baseline, registry)
    return beds


def with_stated_datum(points: pd.DataFrame, datum: str | None) -> pd.DataFrame:
    """Return picks with a vertical datum, which must not contradict the one that they state."""
    stated = rasters.stated_datum(points)
    if datum is None:
        return points
    if stated not in (None, datum):
        remedy = "omit this option to use the stated datum, or correct it"
        raise InvalidDataError(Fault("picks", None, None, "vertical_datum", datum, stated, remedy))
    points = points.copy(deep=False)
    points.attrs = {**points.attrs, "vertical_datum": datum}
    return points


@dataclass(frozen=True)
class Bed:
    """A bed, the argument that it was opened from, and its interpolation at the picks."""

    origin: Any
    raster: xr.DataArray
    method: Method

    @classmethod
    def open(cls, origin: Raster, registry: Registry, method: Method = "linear") -> Bed:
        """Open a grid, a file or a dataset of the registry, which may state the datum."""
        path = _find(origin, registry)
        raster = open_bed(path)
        if not isinstance(origin, str | os.PathLike):
            return cls(origin, raster, method)
        dataset = str(origin) if str(origin) in registry else None
        if dataset and not rasters.stated_datum(raster):
            raster = raster.assign_attrs(vertical_datum=registry[dataset].vertical_datum)
        return cls(path, raster, method)

    @property
    def datum(self) -> str | None:
        """Vertical datum of the heights; None if it is not stated."""
        return rasters.stated_datum(self.raster)

    @property
    def label(self) -> str:
        """Name of the bed in messages."""
        return rasters.name_of(self.raster)


def _find(origin: Raster, registry: Registry) -> Raster:
    """Return a raster unchanged, or the file of a dataset of the registry."""
    from deepbedmap.repository import data_dir

    if not isinstance(origin, str | os.PathLike) or Path(origin).exists():
        return origin
    if str(origin) not in registry:
        raise MissingDataError(f"{origin}: neither a file nor a dataset of the registry")
    dataset = registry[str(origin)]
    names = [file.name for file in dataset.files if Path(file.name).suffix in (".tif", ".nc")]
    folders = (registry.root / dataset.folder, data_dir() / dataset.folder)
    for path in (folder / name for folder in folders for name in names):
        if path.exists():
            return path
    raise MissingDataError(
        f"{origin}: its raster has not been downloaded; {dataset.how_to_get(*names[:1])}"
    )


@dataclass(frozen=True)
class Place:
    """Places at which beds are sampled, and the vertical datum of the samples."""

    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]
    crs: Any
    datum: str | None
    geoids: Geoids

    @classmethod
    def of(
        cls,
        points: pd.DataFrame,
        dem: Bed,
        assumed_datum: str | None = None,
        geoids: Geoids | None = None,
    ) -> Place:
        """Return the places of picks, on their datum or, if it is unknown, on the DEM's."""
        x, y, _ = places_of(points)
        datum = rasters.stated_datum(points) or dem.datum or assumed_datum
        return cls(x, y, points.attrs.get("crs"), datum, geoids or {})

    def sample(
        self, bed: Bed, assumed_datum: str | None = None, strict: bool = True
    ) -> npt.NDArray[np.float64]:
        """Return heights (n,) of a bed in metres; ``strict`` refuses a bed of unknown datum."""
        rasters.require_reference("picks", self.crs, None, bed.raster)
        fault = Fault(
            bed.label,
            field="vertical_datum",
            expected=f"{self.datum}, as for the picks",
            found=bed.datum or assumed_datum or "unknown",
        )
        if None not in (bed.datum, assumed_datum) and bed.datum != assumed_datum:
            raise InvalidDataError(
                replace(fault, expected=assumed_datum, remedy="correct one of the two")
            )
        own = bed.datum or assumed_datum
        if self.datum and own is None and strict:
            raise InvalidDataError(replace(fault, remedy="state it: --datum NAME=DATUM"))
        values = sample_bed(bed.raster, self.x, self.y, bed.method)
        if self.datum is None or own in (None, self.datum):
            return values
        if not self.geoids:
            remedy = "give geoids to convert it: --geoid NAME=FILE"
            raise InvalidDataError(replace(fault, remedy=remedy))
        import pandas as pd

        heights = pd.DataFrame({"x": self.x, "y": self.y, "z": values})
        heights.attrs = {"crs": rasters.require_crs(bed.raster).to_wkt(), "vertical_datum": own}
        converted = rasters.convert_datum(heights, self.datum, self.geoids)
        return converted["z"].to_numpy(np.float64)


def _gridded(picks: pd.DataFrame, points: pd.DataFrame) -> xr.DataArray | None:
    """Grid the training picks around the test picks, however far apart their lines are."""
    from deepbedmap import grids

    edges = np.array([points["x"].min(), points["y"].min(), points["x"].max(), points["y"].max()])
    cells = np.concatenate([np.floor(edges[:2] / _GRID - 4), np.ceil(edges[2:] / _GRID + 4)])
    if np.prod(cells[2:] - cells[:2]) > _MOST_CELLS:
        logger.warning("training picks are not gridded: the test picks cover too large an area")
        return None
    # With the margin, lines just outside support the spline at the edge.
    cells += np.array([-_REACH, -_REACH, _REACH, _REACH])
    xmin, ymin, xmax, ymax = (_GRID * cells).tolist()
    inside = picks["x"].between(xmin, xmax) & picks["y"].between(ymin, ymax)
    if int(inside.sum()) < 4:
        logger.warning("training picks are not gridded: fewer than 4 are around the test picks")
        return None
    nearby = picks[inside]
    nearby.attrs = dict(picks.attrs)
    return grids.grid_points(nearby, _GRID, max_gap=_REACH, region=(xmin, ymin, xmax, ymax))
