"""The beds of one comparison, sampled at the same picks and brought to one vertical datum."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

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
    """Open the beds that :func:`compare` scores, by the names of its rows; the DEM first."""
    beds = {"dem": Bed.open(dem, registry)}
    if prior is not None:
        beds["bicubic prior"] = Bed.open(prior, registry, "cubic")
    if gridding is not None and (grid := _gridded(gridding, points)) is not None:
        beds["gridding"] = Bed(grid, grid, "linear")
    for name, given in (baselines or {}).items():
        if name in beds or name == "picks":
            raise WrongCallError(f"baselines: expected another name than {name!r}")
        beds[name] = Bed.open(given, registry)
    return beds


def with_stated_datum(points: pd.DataFrame, datum: str | None) -> pd.DataFrame:
    """Picks whose vertical datum is that which is told, where they state none."""
    stated = _stated(points.attrs.get("vertical_datum"))
    if datum is None:
        return points
    if stated not in (None, datum):
        remedy = "leave it out: the picks' own is right, or mend it"
        raise InvalidDataError(Fault("picks", None, None, "vertical_datum", datum, stated, remedy))
    points = points.copy(deep=False)
    points.attrs = {**points.attrs, "vertical_datum": datum}
    return points


def _stated(datum: Any) -> str | None:
    return None if datum in (None, "", "unknown") else str(datum)


@dataclass(frozen=True)
class Bed:
    """A bed, what it was given as, and how it is interpolated at the picks."""

    given: Any
    raster: xr.DataArray
    method: Method

    @classmethod
    def open(cls, given: Raster, registry: Registry, method: Method = "linear") -> Bed:
        """Open a grid, a file, or a dataset of the registry, whose datum that states."""
        path = _find(given, registry)
        raster = open_bed(path)
        if not isinstance(given, str | os.PathLike):
            return cls(given, raster, method)
        dataset = str(given) if str(given) in registry else None
        if dataset and not _stated(raster.attrs.get("vertical_datum")):
            raster = raster.assign_attrs(vertical_datum=registry[dataset].vertical_datum)
        return cls(path, raster, method)

    @property
    def datum(self) -> str | None:
        """What its heights refer to, where that is stated."""
        return _stated(self.raster.attrs.get("vertical_datum"))

    @property
    def label(self) -> str:
        """What messages call it."""
        from deepbedmap import rasters

        return rasters.name_of(self.raster)


def _find(given: Raster, registry: Registry) -> Raster:
    """A raster as it is, or the file of a dataset of the registry."""
    from deepbedmap.repository import data_dir

    if not isinstance(given, str | os.PathLike) or Path(given).exists():
        return given
    if str(given) not in registry:
        raise MissingDataError(f"{given}: neither a file nor a dataset of the registry")
    dataset = registry[str(given)]
    names = [file.name for file in dataset.files if Path(file.name).suffix in (".tif", ".nc")]
    folders = (registry.root / dataset.folder, data_dir() / dataset.folder)
    for path in (folder / name for folder in folders for name in names):
        if path.exists():
            return path
    raise MissingDataError(f"{given}: no raster of it is here; {dataset.how_to_get(*names[:1])}")


@dataclass(frozen=True)
class Place:
    """Where beds are sampled, and on what datum their heights are wanted."""

    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]
    crs: Any
    datum: str | None
    geoids: Geoids

    @classmethod
    def of(
        cls, points: pd.DataFrame, dem: Bed, told: str | None = None, geoids: Geoids | None = None
    ) -> Place:
        """Places of picks, on their datum; where that is unknown, on the DEM's, as told."""
        x, y, _ = places_of(points)
        datum = _stated(points.attrs.get("vertical_datum")) or dem.datum or told
        return cls(x, y, points.attrs.get("crs"), datum, geoids or {})

    def sample(
        self, bed: Bed, told: str | None = None, strict: bool = True
    ) -> npt.NDArray[np.float64]:
        """Heights of a bed; strict where an unknown datum is refused if the wanted one is known."""
        from deepbedmap import rasters

        rasters.require_reference("picks", self.crs, None, bed.raster)
        fault = Fault(
            bed.label,
            field="vertical_datum",
            expected=f"{self.datum}, as of the picks",
            found=bed.datum or told or "unknown",
        )
        if None not in (bed.datum, told) and bed.datum != told:
            raise InvalidDataError(replace(fault, expected=told, remedy="mend one of the two"))
        own = bed.datum or told
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


def _gridded(known: pd.DataFrame, points: pd.DataFrame) -> xr.DataArray | None:
    """Gridding of training picks around the test picks, however far apart their lines."""
    from deepbedmap import grids

    edges = np.array([points["x"].min(), points["y"].min(), points["x"].max(), points["y"].max()])
    cells = np.concatenate([np.floor(edges[:2] / _GRID - 4), np.ceil(edges[2:] / _GRID + 4)])
    if np.prod(cells[2:] - cells[:2]) > _MOST_CELLS:
        logger.warning("training picks are not gridded: the test picks spread too far for it")
        return None
    # With the margin, lines just outside support the spline at the edge.
    cells += np.array([-_REACH, -_REACH, _REACH, _REACH])
    xmin, ymin, xmax, ymax = (_GRID * cells).tolist()
    inside = known["x"].between(xmin, xmax) & known["y"].between(ymin, ymax)
    if int(inside.sum()) < 4:
        logger.warning("training picks are not gridded: fewer than 4 lie around the test picks")
        return None
    some = known[inside]
    some.attrs = dict(known.attrs)
    return grids.grid_points(some, _GRID, max_gap=_REACH, region=(xmin, ymin, xmax, ymax))
