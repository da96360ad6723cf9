"""Split windows into training and validation, and write their footprints.

Windows overlap, and neighbouring beds are similar, so whole blocks or whole surveys are held
out, with a buffer around them.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from pyproj import CRS

from deepbedmap import files
from deepbedmap.errors import Fault, InvalidDataError, WrongCallError, did_you_mean
from deepbedmap.places import BUFFER

if TYPE_CHECKING:
    import os
    from typing import Literal

    import geopandas as gpd
    import numpy.typing as npt

logger = logging.getLogger(__name__)

_PARTS = ["train", "validation", "dropped"]
_VERTEX_EVERY = 1000  # metres


def split(
    windows: gpd.GeoDataFrame,
    *,
    by: Literal["block", "survey"] = "block",
    block: float = 40_000,
    validation: float | list[str] = 0.2,
    buffer: float = BUFFER,
    seed: int = 0,
) -> pd.Series[str]:
    """Split windows into training and validation without leakage between neighbours.

    Windows overlap, and a bed is correlated over kilometres, so a random split of windows would put
    near-copies on both sides. Here whole square blocks, or whole surveys, go to validation, and
    the other windows within ``buffer`` of them are dropped.

    Parameters
    ----------
    windows
        Boxes, as returned by :func:`find_windows`; ``by="survey"`` needs the column ``survey``,
        the survey from whose grid a window was cut.
    by
        Units to hold out: ``"block"``, or ``"survey"`` (instruments and processing differ between
        surveys, so this is the stricter test).
    block
        Width of a block in metres; a window belongs to the block that contains its centre.
    validation
        Share of the windows to hold out, between 0 and 1: random blocks or surveys, at least one,
        are added where that brings the share nearer to this value.
        With ``by="survey"`` also the names of the surveys to hold out.
    buffer
        Least distance, in metres, between any training and any validation window.
    seed
        Seed of the random choice: the same windows and seed give the same split.

    Returns
    -------
    pandas.Series
        Category ``"train"``, ``"validation"`` or ``"dropped"``, with the index of the windows.

    Raises
    ------
    InvalidDataError
        No window is left to train on or to validate with, a survey to hold out has no window,
        or a window has no survey.
    ValueError
        A parameter is out of range, or ``by="survey"`` and there is no column ``survey``.

    Examples
    --------
    >>> import geopandas as gpd, shapely
    >>> west = 10_000.0 * np.arange(12)
    >>> windows = gpd.GeoDataFrame(geometry=shapely.box(west, 0, west + 9000, 9000))
    >>> split(windows, block=20_000, buffer=5000).value_counts().to_dict()
    {'train': 8, 'validation': 2, 'dropped': 2}
    """
    if by not in ("block", "survey"):
        raise WrongCallError(f'by must be "block" or "survey", not {by!r}')
    if isinstance(validation, list):
        if by != "survey":
            raise WrongCallError('surveys are held out by name only with by="survey"')
    elif not 0 < validation < 1:
        raise WrongCallError(f"validation must be between 0 and 1, not {validation}")
    if block <= 0 or buffer < 0:
        raise WrongCallError(f"block {block} must be positive and buffer {buffer} not negative")
    member = _surveys(windows) if by == "survey" else _blocks(windows, block)
    if isinstance(validation, list):
        _require_surveys(validation, windows)
        chosen = windows["survey"].isin(validation).to_numpy()
    else:
        chosen = np.isin(member, _hold_out(np.bincount(member), validation, seed))
    part = np.where(chosen, "validation", "train").astype(object)
    held_out = windows.geometry[part == "validation"]
    near_held_out, _ = held_out.sindex.query(windows.geometry, predicate="dwithin", distance=buffer)
    part[np.setdiff1d(near_held_out, np.flatnonzero(part == "validation"))] = "dropped"
    logger.info(
        "%d windows: %s", len(windows), ", ".join(f"{(part == p).sum()} {p}" for p in _PARTS)
    )
    fault = Fault(file="windows", expected="", found=f"none of {len(windows)}")
    if not (part == "validation").any():
        expected, remedy = "some windows to validate with", "find windows in more grids"
        raise InvalidDataError(replace(fault, expected=expected, remedy=remedy))
    if not (part == "train").any():
        raise InvalidDataError(
            replace(
                fault,
                expected="some windows to train on",
                found=f"{fault.found} further than {buffer:g} m from those held out",
                remedy="use a smaller block, a smaller share, or more surveys",
            )
        )
    return pd.Series(pd.Categorical(part, categories=_PARTS), index=windows.index, name="part")


def _blocks(windows: gpd.GeoDataFrame, width: float) -> npt.NDArray[np.intp]:
    """Return the number of the block that contains each window's centre."""
    edges = windows.bounds
    centres = edges[["minx", "miny"]].to_numpy() + edges[["maxx", "maxy"]].to_numpy()
    _, member = np.unique(np.floor(centres / 2 / width), axis=0, return_inverse=True)
    return member


def _surveys(windows: gpd.GeoDataFrame) -> npt.NDArray[np.intp]:
    """Return the number of the survey that each window is from."""
    if "survey" not in windows:
        raise WrongCallError('by="survey" needs windows with a column survey')
    member: npt.NDArray[np.intp] = pd.factorize(windows["survey"], sort=True)[0]
    if (member < 0).any():
        raise InvalidDataError(
            Fault(
                file="windows",
                entry=str(windows.index[member < 0][0]),
                field="survey",
                expected="the survey of each window",
                found="none",
            )
        )
    return member


def _require_surveys(names: list[str], windows: gpd.GeoDataFrame) -> None:
    """Refuse a survey to hold out that has no window: misspelt, it would be trained on."""
    surveys = sorted(windows["survey"].unique())
    missing = [name for name in names if name not in surveys]
    if missing:
        raise InvalidDataError(
            Fault(
                file="windows",
                field="survey",
                expected=f"windows of {', '.join(missing)} to validate with",
                found=f"windows of {', '.join(surveys) or 'no survey'}",
                remedy=did_you_mean(missing[0], surveys),
            )
        )


def _hold_out(counts: npt.NDArray[np.intp], share: float, seed: int) -> list[int]:
    """Choose units in random order if they bring the sum of their counts nearer to a share."""
    target, held, chosen = share * counts.sum(), 0, []
    for unit in np.random.default_rng(seed).permutation(counts.size):
        if abs(held + counts[unit] - target) < abs(held - target):
            chosen.append(int(unit))
            held += counts[unit]
    return chosen or [int(unit) for unit in counts.argsort(kind="stable")[:1]]


def write_footprints(
    windows: gpd.GeoDataFrame, path: str | os.PathLike[str], crs: str | None = None
) -> Path:
    """Write windows as GeoJSON, for a map.

    Parameters
    ----------
    windows
        Boxes with a CRS; their columns become properties.
    path
        File to write, which appears complete or not at all.
    crs
        None: the windows' own CRS, which the file names as GIS programs expect (GeoJSON of 2008).
        ``"EPSG:4326"``: degrees by RFC 7946, for web maps. Edges get a vertex every kilometre,
        since a straight line in polar stereographic is a curve in degrees; boxes across the date
        line are cut there, and one around the pole follows it at latitude -90, so that polygons are
        valid and no edge crosses the map. Vertices are rounded to 1e-7 degrees (1 cm). Columns such
        as ``xmin`` stay in the windows' own CRS.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    InvalidDataError
        The windows have no CRS.
    ValueError
        ``crs`` is neither the windows' own nor EPSG:4326.
    """
    path = Path(path)
    if windows.crs is None:
        raise InvalidDataError(
            Fault(
                file=str(path),
                field="crs",
                expected="windows with a coordinate reference system",
                found="none",
                remedy='state it: windows.set_crs("EPSG:3031")',
            )
        )
    degrees = crs is not None and CRS.from_user_input(crs) != windows.crs
    if degrees and CRS.from_user_input(crs) != CRS("EPSG:4326"):
        raise WrongCallError(f"crs must be {windows.crs.to_string()} or EPSG:4326, not {crs}")
    if degrees:
        windows = windows.set_geometry(windows.segmentize(_VERTEX_EVERY))
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.beside(path) as part:
        # For RFC 7946 GDAL itself reprojects, cuts and orients the polygons.
        windows.to_file(part, driver="GeoJSON", layer=path.stem, RFC7946="YES" if degrees else "NO")
    return path
