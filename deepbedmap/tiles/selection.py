"""Select windows: clear of the test areas, and on grounded ice."""

from __future__ import annotations

import functools
import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import shapely
from pyproj import CRS, Transformer

from deepbedmap import rasters
from deepbedmap.errors import (
    Fault,
    InvalidDataError,
    MissingDataError,
    WrongCallError,
    did_you_mean,
)
from deepbedmap.extras import required_extra
from deepbedmap.places import BUFFER, TEST_AREAS
from deepbedmap.places import CRS as AREAS_CRS

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

logger = logging.getLogger(__name__)

_MILLIMETRE = 1e-3


def exclude(
    windows: gpd.GeoDataFrame, areas: str | Iterable[str], buffer: float = BUFFER
) -> gpd.GeoDataFrame:
    """Select the windows at a distance from test areas, on which a model must not be trained.

    Parameters
    ----------
    windows
        Boxes in EPSG:3031, which is also assumed for boxes without a CRS.
    areas
        Names in :data:`deepbedmap.places.TEST_AREAS`; or one name.
    buffer
        Distance in metres up to which windows are left out too.

    Returns
    -------
    geopandas.GeoDataFrame
        The windows further away than the buffer, unchanged and with their index.

    Raises
    ------
    InvalidDataError
        The windows are in another CRS.
    ValueError
        There is no test area of that name, or the buffer is negative.
    """
    names = [areas] if isinstance(areas, str) else list(areas)
    for name in names:
        if name not in TEST_AREAS:
            hint = did_you_mean(name, TEST_AREAS)
            areas_listed = ", ".join(TEST_AREAS)
            raise WrongCallError(f"no test area {name!r}; " + (hint or f"there are {areas_listed}"))
    if buffer < 0:
        raise WrongCallError(f"buffer {buffer} must not be negative")
    _require_crs_of(windows, CRS(AREAS_CRS), "the test areas")
    held_out = shapely.union_all([shapely.box(*TEST_AREAS[name]) for name in names])
    kept = ~shapely.dwithin(windows.geometry.to_numpy(), held_out, buffer)
    logger.info("%d of %d windows are clear of %s", kept.sum(), len(windows), ", ".join(names))
    return windows[kept]


def _require_crs_of(windows: gpd.GeoDataFrame, crs: CRS, source: str) -> None:
    if windows.crs is not None and not rasters.same_crs(windows.crs, crs):
        raise InvalidDataError(
            Fault(
                file="windows",
                field="crs",
                expected=f"{crs.to_string()} as in {source}",
                found=windows.crs.to_string(),
                remedy="find windows in a grid in that CRS",
            )
        )


def grounded(
    windows: gpd.GeoDataFrame,
    grounding_line: gpd.GeoDataFrame | str | os.PathLike[str] | None = None,
    buffer: float = 0.0,
) -> gpd.GeoDataFrame:
    """Select the windows wholly on grounded ice.

    Parameters
    ----------
    windows
        Boxes in the CRS of the grounding line, which is also assumed for boxes without a CRS.
    grounding_line
        Polygons of the grounded ice, or a file of them, such as the grounding line of MEaSUREs v2
        (Mouginot et al. 2017, doi 10.5067/AXE4121732AD; ``deepbedmap fetch
        Mouginot2017MEASURES``). Without a CRS, EPSG:3031 is assumed. None: the grounding line of
        GSHHG at its high resolution, which comes with GMT, in EPSG:3031 (Wessel & Smith 1996,
        doi 10.1029/96JB00104).
    buffer
        Least distance, in metres, between a window and the grounding line.

    Returns
    -------
    geopandas.GeoDataFrame
        The windows wholly on grounded ice and at least the buffer from its edge, to a millimetre;
        unchanged and with their index.

    Raises
    ------
    InvalidDataError
        Windows and grounding line are in different CRSs; the file cannot be read, has no polygons,
        or has coordinates in degrees without a CRS.
    MissingDataError
        The file does not exist, or GMT has no GSHHG.
    ValueError
        The buffer is negative.

    Notes
    -----
    The distance is exact: it is measured between a box and the polygons' edges. GSHHG itself is
    simplified to 200 m. It differs from MEaSUREs v2 by 0.8 % of the grounded area; its nearest edge
    is 0.3 km from the edges of MEaSUREs in the median, 5 km at the 90th percentile.

    Examples
    --------
    >>> ice = gpd.GeoDataFrame(geometry=[shapely.box(0, 0, 50_000, 50_000)], crs="EPSG:3031")
    >>> boxes = shapely.box([-1000, 1000, 20_000], 20_000, [8000, 10_000, 29_000], 29_000)
    >>> windows = gpd.GeoDataFrame(geometry=boxes, crs="EPSG:3031")
    >>> grounded(windows, ice).index.tolist(), grounded(windows, ice, 10_000).index.tolist()
    ([1, 2], [2])
    """
    if buffer < 0:
        raise WrongCallError(f"buffer {buffer} must not be negative")
    ice, crs = _gshhg() if grounding_line is None else grounded_ice(grounding_line)
    _require_crs_of(windows, crs, "the grounding line")
    if len(windows) == 0:
        return windows
    corners, ring = shapely.get_coordinates(ice.boundary.geoms, return_index=True)
    sides = np.stack([corners[:-1], corners[1:]], axis=1)[ring[:-1] == ring[1:]]
    # A box that touches the edge from within is still inside, so every box is shrunk by 1 mm.
    boxes = shapely.buffer(windows.geometry.to_numpy(), -_MILLIMETRE, join_style="mitre")
    near_edge, distance = shapely.STRtree(shapely.linestrings(sides)).query_nearest(
        boxes, max_distance=buffer + 1, return_distance=True, all_matches=False
    )
    kept = shapely.contains_xy(ice, shapely.get_coordinates(shapely.centroid(boxes)))
    kept[near_edge[0, distance < buffer + _MILLIMETRE / 2]] = False
    logger.info("%d of %d windows are on grounded ice", kept.sum(), len(windows))
    return windows[kept]


def grounded_ice(
    grounding_line: gpd.GeoDataFrame | str | os.PathLike[str],
) -> tuple[shapely.MultiPolygon, CRS]:
    """Return the polygons of grounded ice as one multipolygon, and their CRS.

    Raises
    ------
    MissingDataError
        The file does not exist.
    InvalidDataError
        It has no polygons, or polygons in degrees without a CRS.
    """
    name = "grounding line"
    if not isinstance(grounding_line, gpd.GeoDataFrame):
        name = str(grounding_line)
        if not Path(grounding_line).exists():
            raise MissingDataError(
                f"{name}: no such file; `deepbedmap fetch Mouginot2017MEASURES` gets the grounding"
                " line of MEaSUREs"
            )
        try:
            grounding_line = gpd.read_file(grounding_line)
        except (OSError, ValueError, RuntimeError) as error:
            fault = Fault(name, expected="polygons in a file that GDAL reads", found=str(error))
            raise InvalidDataError(fault) from error
    polygons = grounding_line.geometry.dropna()
    kinds = set(polygons.geom_type)
    if not kinds or kinds - {"Polygon", "MultiPolygon"}:
        names = ", ".join(sorted(kinds)) or "nothing"
        raise InvalidDataError(Fault(name, expected="polygons of the grounded ice", found=names))
    crs = grounding_line.crs
    if crs is None and np.abs(polygons.total_bounds).max() <= 360:
        raise InvalidDataError(
            Fault(
                file=name,
                field="crs",
                expected="metres, or a coordinate reference system",
                found="degrees without one",
                remedy="state it, and reproject to the CRS of the windows",
            )
        )
    whole = shapely.union_all(shapely.make_valid(polygons.to_numpy()))
    parts = [part for part in shapely.get_parts(whole) if part.geom_type == "Polygon"]
    return shapely.MultiPolygon(parts), CRS(AREAS_CRS) if crs is None else crs


@functools.lru_cache(maxsize=1)
def _gshhg() -> tuple[shapely.MultiPolygon, CRS]:
    """Return the polygons of grounded ice in GSHHG, and EPSG:3031."""
    with required_extra("grid"):
        import pygmt

    with tempfile.TemporaryDirectory() as folder, pygmt.clib.Session() as session:
        path = Path(folder, "edges")
        try:
            # Only level 1 (no lakes), with the grounding line for Antarctica; as pairs of doubles.
            options = ["-R-180/180/-90/-60", "-Dh", "-A0/0/1+ag", "-W1", "-M", "-bo2d", "-Vq"]
            session.call_module("coast", [*options, f"->{path}"])
        except pygmt.exceptions.GMTCLibError as error:
            raise MissingDataError(
                "GMT has no high-resolution shorelines: install gmt-gshhg-high (Debian) or"
                " gshhg-gmt (conda-forge)"
            ) from error
        records = np.fromfile(path, "<f8").reshape(-1, 2)
    starts = np.isnan(records).any(axis=1)
    to_metres = Transformer.from_crs("EPSG:4326", AREAS_CRS, always_xy=True)
    x, y = to_metres.transform(*records[~starts].T)
    # GMT writes edges in pieces, one per bin of the map; their ends coincide to a centimetre.
    pieces = shapely.linestrings(np.round([x, y], 2).T, indices=(starts.cumsum() - 1)[~starts])
    polygons, _, _, crossed = shapely.polygonize_full(pieces)
    # A ring that crosses itself by a few metres still separates inside from outside.
    rings = [*shapely.get_parts(polygons), *map(shapely.Polygon, shapely.get_parts(crossed))]
    return shapely.MultiPolygon(rings), CRS(AREAS_CRS)
