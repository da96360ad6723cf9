"""Where a model was trained: tiles, picks and excluded areas.

They are read from training sets (Zarr), footprints of tiles, checkpoints, and picks of surveys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from deepbedmap.catalog import opening
from deepbedmap.errors import Fault, InvalidDataError, MissingDataError
from deepbedmap.places import EDGES
from deepbedmap.provenance import parsed, provenance_of, stated_texts

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping
    from typing import Any

    import geopandas as gpd
    import pandas as pd

    from deepbedmap.places import Bounds

Excluded = tuple[dict[str, Sequence[float]], float]


@dataclass(frozen=True)
class Training:
    """Where a model was trained, as far as its files state it.

    Attributes
    ----------
    names
        Names of the files and entries that were read.
    footprints
        Boxes of the tiles, including validation tiles, since they chose the model.
    picks
        Columns x, y, z in metres.
    excluded
        Boxes (xmin, ymin, xmax, ymax) that the training left out, and the buffer around them (m).
    sources
        Files behind the training, as :mod:`deepbedmap.citation` reads them.
    """

    names: tuple[str, ...] = ()
    footprints: gpd.GeoDataFrame | None = None
    picks: pd.DataFrame | None = None
    excluded: Excluded | None = None
    sources: list[Any] = field(default_factory=list)


def require_crs_of_picks(points: pd.DataFrame, crs: Any, what: str) -> None:
    """Raise InvalidDataError if ``crs`` differs from the test picks' CRS; None always passes."""
    from pyproj import CRS

    from deepbedmap.rasters.reference import same_crs

    own = points.attrs.get("crs")
    if own is None or crs is None:
        return
    picks_crs, other_crs = CRS.from_user_input(own), CRS.from_user_input(crs)
    if not same_crs(picks_crs, other_crs):
        raise InvalidDataError(
            Fault(
                what,
                field="crs",
                expected=f"{picks_crs.to_string()} as for the test picks",
                found=other_crs.to_string(),
                remedy="reproject one of the two",
            )
        )


def open_training(path: str | os.PathLike[str]) -> Training:
    """Read the places and sources of a training from a file.

    Parameters
    ----------
    path
        A training set (.zarr), footprints of tiles (.geojson, .gpkg), or a checkpoint
        (.safetensors).

    Raises
    ------
    MissingDataError
        There is no such file.
    InvalidDataError
        It cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise MissingDataError(f"{path}: no such training set, footprints or checkpoint")
    if path.suffix == ".zarr":
        import geopandas as gpd
        import shapely

        from deepbedmap.tiles.storage import open_training_set

        dataset = open_training_set(path)
        edges = [dataset[name].to_numpy() for name in EDGES]
        boxes = gpd.GeoDataFrame(geometry=shapely.box(*edges), crs=dataset.attrs.get("crs"))
        provenance = provenance_of(dataset.attrs)
        return Training((path.name,), boxes, None, excluded_areas(provenance), _sources(provenance))
    if path.suffix == ".safetensors":
        header = parsed(next(iter(stated_texts(path)), None)) or {}
        excluded = excluded_areas(header.get("training_set") or {})
        return Training((path.name,), None, None, excluded, _sources(header))
    import geopandas as gpd

    try:
        boxes = gpd.read_file(path)
    except (OSError, ValueError, RuntimeError) as error:
        expected = "footprints of tiles, as `deepbedmap tiles` writes them"
        raise InvalidDataError(Fault(str(path), expected=expected, found=str(error))) from error
    return Training((path.name,), boxes)


def _sources(provenance: Mapping[str, Any]) -> list[Any]:
    sources = provenance.get("sources")
    return [
        {"role": "training", **source} if isinstance(source, dict) else source
        for source in (sources if isinstance(sources, list) else [])
    ]


def excluded_areas(training_set: Any) -> Excluded | None:
    """Return the boxes that a training left out, and the buffer (m); None if it states none."""
    try:
        excluded = training_set["excluded"]
        areas: dict[str, Sequence[float]] = {
            str(name): [float(edge) for edge in box] for name, box in excluded["areas"].items()
        }
        around = float(excluded["buffer"])
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    return (areas, around) if areas and all(len(box) == 4 for box in areas.values()) else None


def join_trainings(trainings: Iterable[Training]) -> Training:
    """Join what several files state about a training."""
    import pandas as pd

    parts = list(trainings)
    boxes = [part.footprints for part in parts if part.footprints is not None]
    picks = [part.picks for part in parts if part.picks is not None]
    for other in picks[1:]:
        require_crs_of_picks(picks[0], other.attrs.get("crs"), "training picks")
    joined = None
    if picks:
        joined = pd.concat([part[["x", "y", "z", "line"]] for part in picks], ignore_index=True)
        joined.attrs = picks[0].attrs | {
            "sources": [s for part in picks for s in part.attrs.get("sources") or ()]
        }
    return Training(
        tuple(name for part in parts for name in part.names),
        pd.concat(boxes, ignore_index=True) if boxes else None,
        joined,
        next((part.excluded for part in parts if part.excluded is not None), None),
        [source for part in parts for source in part.sources],
    )


def read_training(entries: Iterable[str], bounds: Bounds | None = None) -> Training:
    """Read where a model was trained from tiles, footprints, checkpoints, or picks of surveys.

    Parameters
    ----------
    entries
        Entries for :func:`read_picks`, or files for :func:`deepbedmap.evaluation.open_training`.
    bounds
        Box (xmin, ymin, xmax, ymax) in metres that selects the picks of surveys.
    """
    parts = []
    for entry in entries:
        if Path(entry).suffix in (".zarr", ".geojson", ".gpkg", ".safetensors"):
            parts.append(open_training(entry))
        else:
            parts.append(
                Training((Path(entry).name,), picks=opening.read_picks(entry, bounds=bounds))
            )
    return join_trainings(parts)
