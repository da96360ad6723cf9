"""A survey pipeline and its raw text files become one table of radar picks.

A pipeline is a PDAL pipeline (https://pdal.io): ``readers.text``, ``filters.assign``,
``filters.expression`` and ``filters.reprojection`` say which columns a survey's raw files have,
which records are valid, and how they become x, y and the elevation of the bed. The native engine
runs it with pyarrow, numpy and pyproj; the engine ``"pdal"`` hands it to PDAL itself.
"""

from __future__ import annotations

import ast
import fnmatch
import hashlib
import itertools
import json
import logging
import math
import operator
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyproj

from deepbedmap import repository, schemas
from deepbedmap.errors import Fault, InvalidDataError, MissingDataError

if TYPE_CHECKING:
    import geopandas as gpd

    from deepbedmap.registry import Dataset, Registry

logger = logging.getLogger(__name__)

Columns = dict[str, npt.NDArray[Any]]
_Texts = tuple[npt.NDArray[np.int32], "pd.Series[str]"]

LINE_GAP = 1000.0
"""Distance (m) between consecutive picks of a file beyond which a new line begins."""

ANTARCTIC_RADIUS = 3.34e6
"""Distance (m) from the pole of EPSG:3031 that nothing south of 60 degrees S exceeds."""

STANDARD_CSV = "bedmap3.json"
"""Pipeline that reads a Bedmap standard CSV which is named by itself."""


def read_points(
    pipeline: str | os.PathLike[str],
    engine: Literal["native", "pdal"] = "native",
    season: str | Iterable[str] | None = None,
    bounds: Sequence[float] | None = None,
) -> pd.DataFrame:
    r"""Picks of a survey, from its pipeline and its raw text files.

    Raw files are sought beside the pipeline, and where none is there, in the folder ``highres``
    of :func:`deepbedmap.repository.data_dir`; they are read in order of name. Nothing is
    downloaded. Records with a missing coordinate or bed (``nan``, empty or ``*``) are dropped;
    their number, and that of the records that the pipeline's expressions drop, is logged for
    each file. A bed of exactly 0 m is a bed.

    Columns are those of the pipeline's header, by position. In a file that begins with comment
    lines (``#``), however many, they go by name, if its own header has the pipeline's names
    (whatever their case, their units in parentheses, and with any other mark for ``_``): columns
    in another order, or more of them, do no harm.

    Large files are parsed and projected in blocks, by as many threads as pyarrow uses
    (``OMP_NUM_THREADS``, :func:`pyarrow.set_cpu_count`); memory is a few blocks and about twice
    the table, whatever the size of the files.

    Parameters
    ----------
    pipeline
        Path of a pipeline. A bare name (``"2010tr"`` or ``"2010tr.json"``) that is no file in
        the working folder is that of a pipeline in the repository's ``highres``. Or the path of a
        Bedmap standard CSV, which needs no pipeline of its own.
    engine
        ``"native"``; or ``"pdal"``, for which python-pdal must be installed. PDAL reads text as
        0, so a flight name or a date in letters is lost to it: lines are then told apart by
        distance, and there is no time. It knows columns by their position alone: a file in which
        that differs from the pipeline's is refused.
    season
        Raw files to read, one or several: each a file's name, its stem or a glob
        (``"2011_Antarctica_DC8"``, ``"BAS_*"``). None for all of the pipeline's.
    bounds
        (xmin, ymin, xmax, ymax): keep the picks inside, or on the edge, of this box in the CRS of
        the picks (metres in EPSG:3031). Where none is, the table is empty.

    Returns
    -------
    pandas.DataFrame
        One row a pick, in the order of the files and of their records.

        ``x``, ``y``, ``z``
            float64: easting and northing in the CRS of the pipeline (metres in EPSG:3031), and
            the elevation of the bed in metres.
        ``line``
            category: ``"<file stem>/<name>"`` where the file has names in a column FRAME,
            FlightID, Line_name or trajectory_id (the first of these, in any case); the file's stem
            alone where the name is missing, and where the file is a grid (it has a column ``row``
            or ``column``). Otherwise ``"<file stem>/<n>"``, counted from 1: a new line begins
            where two consecutive picks of a file are more than 1 km apart.
        ``quality``
            Int8, where there is a column QUALITY (CReSIS: 1 good, 2 moderate, 3 derived).
        ``time``
            datetime64[ns], UTC without a time zone: the date in FRAME (YYYYMMDD...) or DATE, and
            the seconds of the day, or hh:mm:ss, in UTCTIMESOD, UTC, TIME or TIME_UTC. NaT where
            one is missing (-9999, or a year alone), and where a file's dates or times can be read
            in two ways, which is logged.
        ``bed_inferred``
            bool, where the pipeline assigns BED_INFERRED: the survey gives no bed here, and it was
            inferred as the surface less the ice's thickness.

        ``attrs`` has ``crs`` (text or None), ``vertical_datum`` (that of the registry beside the
        pipeline's folder, or None) and ``sources``: for each raw file a dict of ``file``,
        ``sha256``, ``pipeline``, ``pipeline_sha256``, ``citekey`` (of that registry, or None) and,
        where the file begins with lines ``#key: value``, those as the dict ``header`` (text; of a
        Bedmap standard CSV for example ``electromagnetic_wave_speed_in_ice``,
        ``firn_correction`` and ``centre_frequency``).

    Raises
    ------
    InvalidDataError
        If the pipeline or a raw file cannot be used; names the file and the line.
    MissingDataError
        If the pipeline, its raw files or python-pdal are not there; says how to get them.
    ValueError
        If the engine is unknown, or the bounds are no box in the units of the CRS.

    Examples
    --------
    >>> import json, pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     raw = pathlib.Path(folder, "survey.csv")
    ...     _ = raw.write_text("x,y,bed\n0,-500000,-120.5\n250,-500000,0\n9000,-500000,\n")
    ...     reader = {"type": "readers.text", "filename": "survey.csv", "header": "X,Y,Z",
    ...               "separator": ",", "skip": 1, "override_srs": "EPSG:3031"}
    ...     recipe = pathlib.Path(folder, "survey.json")
    ...     _ = recipe.write_text(json.dumps({"pipeline": [reader]}))
    ...     read_points(recipe)
           x         y      z      line
    0    0.0 -500000.0 -120.5  survey/1
    1  250.0 -500000.0    0.0  survey/1
    """
    if engine not in ("native", "pdal"):
        raise ValueError(f"engine is 'native' or 'pdal', not {engine!r}")
    standard = Path(pipeline).suffix.lower() == ".csv"
    if standard and season is not None:
        raise ValueError(f"a season is one of a pipeline's files, and {pipeline} is no pipeline")
    recipe = _Recipe.load(_find_pipeline(STANDARD_CSV if standard else pipeline))
    dataset = _dataset_of_file(Path(pipeline)) if standard else _dataset_of(recipe.path)
    crs = recipe.crs or (dataset.crs if dataset else None)
    box = None if bounds is None else _box(bounds, crs)
    wanted = None if season is None else [season] if isinstance(season, str) else list(season)
    files = [Path(pipeline)] if standard else _find_files(recipe, dataset, wanted)
    tables = []
    sources = []
    found = 0
    for file in files:
        layout, comments = _open_up(file, recipe, standard)
        digest = hashlib.sha256()
        run = _run_pdal if engine == "pdal" else _read_records
        picks = _picks(run(file, layout, recipe, digest), file, layout, recipe, crs, engine)
        found += len(picks)
        tables.append(picks if box is None else picks[_inside(picks, box)])
        sources.append(
            {
                "file": file.name,
                "sha256": digest.hexdigest(),
                "pipeline": recipe.path.name,
                "pipeline_sha256": recipe.sha256,
                "citekey": dataset.citekey if dataset else None,
                **({"header": header} if (header := _said_of(comments)) else {}),
            }
        )
    if not found:
        raise InvalidDataError(
            Fault(
                ", ".join(map(str, files)),
                expected=f"at least one record that {recipe.path.name} keeps",
                found="no picks",
            )
        )
    lines = pd.api.types.union_categoricals([table.pop("line") for table in tables])
    points = pd.concat(tables, ignore_index=True)
    points.insert(3, "line", pd.Series(lines.remove_unused_categories()))
    points.attrs = {
        "crs": crs,
        "vertical_datum": dataset.vertical_datum if dataset else None,
        "sources": sources,
    }
    return points


def to_geodataframe(points: pd.DataFrame) -> gpd.GeoDataFrame:
    """Picks as points of a map.

    Parameters
    ----------
    points
        As :func:`read_points` gives them.

    Returns
    -------
    geopandas.GeoDataFrame
        The same columns and attributes, and ``geometry``: points (x, y) in the CRS of the picks.

    Raises
    ------
    InvalidDataError
        If the CRS of the picks is not known.

    Examples
    --------
    >>> picks = pd.DataFrame({"x": [0.0], "y": [-500000.0], "z": [-120.5]})
    >>> picks.attrs["crs"] = "EPSG:3031"
    >>> to_geodataframe(picks).geometry[0].wkt
    'POINT (0 -500000)'
    """
    import geopandas as gpd

    crs = points.attrs.get("crs")
    if crs is None:
        sources = points.attrs.get("sources") or [{}]
        raise InvalidDataError(
            Fault(
                str(sources[0].get("pipeline", "points")),
                field="crs",
                expected="the coordinate reference system of the picks",
                found="none",
                remedy="state it as override_srs in the pipeline, or in the registry",
            )
        )
    geometry = gpd.points_from_xy(points["x"], points["y"])
    located = gpd.GeoDataFrame(points, geometry=geometry, crs=crs)
    located.attrs = points.attrs
    return located


def write_points(points: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write picks as GeoParquet or as comma-separated values, by the name's end.

    Parameters
    ----------
    points
        As :func:`read_points` gives them.
    path
        ``.parquet``: all columns and attributes, which :func:`pandas.read_parquet` gives back,
        and, where the CRS is known, points as the column ``geometry``, for
        :func:`geopandas.read_parquet` (https://geoparquet.org). ``.csv``: the columns alone.

    Raises
    ------
    ValueError
        If the name ends otherwise.
    """
    match Path(path).suffix:
        case ".csv":
            points.to_csv(path, index=False)
        case ".parquet" if points.attrs.get("crs") is None:
            points.to_parquet(path, index=False)
        case ".parquet":
            to_geodataframe(points).to_parquet(path, index=False)
        case other:
            raise ValueError(f"picks are written as .parquet or .csv, not {other or path}")


def deduplicate(points: pd.DataFrame, tolerance: float = 1e-3) -> pd.DataFrame:
    """Picks without repeats of a position.

    In the order of the table, a pick that is no further than the tolerance from one that is kept
    is a repeat of it (of the nearest such one). No two picks of the result are that near, and
    each of those dropped is that near to one that is kept.

    Parameters
    ----------
    points
        As :func:`read_points` or :func:`join_surveys` give them.
    tolerance
        Distance in the units of x and y (metres), 0 or more: 0 drops equal positions alone. It is
        meant to be less than the distance of picks along a line: memory grows with the number of
        pairs that are this near.

    Returns
    -------
    pandas.DataFrame
        One row a position, in the order of the first pick there, with that pick's x, y and flags.
        ``z`` is the median of the beds there, which one spike does not move; ``bed_inferred`` is
        true where any of them was inferred. ``attrs["duplicates"]`` is the number of picks
        dropped (added to what it was); other attributes stay.

    Raises
    ------
    ValueError
        If the tolerance is negative or not finite.
    InvalidDataError
        If a coordinate is missing or infinite.

    Examples
    --------
    >>> picks = pd.DataFrame({"x": [0.0, 9.0, 0.0], "y": [0.0, 0.0, 0.0], "z": [-1.0, 5.0, -3.0]})
    >>> deduplicate(picks)
         x    y    z
    0  0.0  0.0 -2.0
    1  9.0  0.0  5.0
    """
    if not 0 <= tolerance < math.inf:
        raise ValueError(f"a tolerance is a distance of 0 m or more, not {tolerance}")
    require_finite(points, "x", "y")
    points = points.reset_index(drop=True)
    keeper = _keepers(points[["x", "y"]].to_numpy(np.float64), tolerance)
    kept = keeper == np.arange(len(points))
    distinct: pd.DataFrame = points[kept].copy()
    if not kept.all():
        repeated = np.zeros(len(points), dtype=bool)
        repeated[keeper[~kept]] = True
        of_repeats = repeated[keeper]
        groups = points[of_repeats].groupby(keeper[of_repeats])
        medians = groups["z"].median()
        distinct.loc[medians.index, "z"] = medians
        if "bed_inferred" in points:
            distinct.loc[medians.index, "bed_inferred"] = groups["bed_inferred"].any()
    distinct = distinct.reset_index(drop=True)
    _forget_unused(distinct)
    dropped = len(points) - len(distinct) + points.attrs.get("duplicates", 0)
    distinct.attrs = {**points.attrs, "duplicates": dropped}
    return distinct


def require_finite(points: pd.DataFrame, *names: str) -> None:
    """Refuse picks with a missing or infinite value in one of some columns.

    Raises
    ------
    InvalidDataError
        With the first such row, counted from 0.
    """
    for name in names:
        wrong = ~np.isfinite(points[name].to_numpy(np.float64))
        if wrong.any():
            row = int(wrong.argmax())
            fault = Fault("points", entry=f"row {row}", field=name, expected="a finite number")
            raise InvalidDataError(replace(fault, found=str(points[name].iloc[row])))


def _keepers(places: npt.NDArray[np.float64], tolerance: float) -> npt.NDArray[np.intp]:
    """Row that stands for each row: itself, or an earlier one of about the same position."""
    from scipy.spatial import cKDTree

    # Equal positions first: any number of them would make a number of pairs as its square.
    order = np.lexsort((places[:, 1], places[:, 0]))
    ordered = places[order]
    starts = np.append(True, (ordered[1:] != ordered[:-1]).any(axis=1))[: len(places)]
    keeper = np.empty(len(places), dtype=np.intp)
    keeper[order] = order[np.flatnonzero(starts)][np.cumsum(starts) - 1]  # lexsort is stable
    if tolerance == 0:
        return keeper
    firsts = np.flatnonzero(keeper == np.arange(len(places)))
    apart = places[firsts]
    tree = cKDTree(apart, balanced_tree=False, compact_nodes=False)
    pairs = tree.query_pairs(tolerance, output_type="ndarray")
    if not len(pairs):
        return keeper
    distances = np.hypot(*(apart[pairs[:, 0]] - apart[pairs[:, 1]]).T)
    stands_for = np.arange(len(firsts))
    nearest = np.full(len(firsts), np.inf)
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    rows = zip(*pairs[order].T.tolist(), distances[order].tolist(), strict=True)
    for earlier, later, distance in rows:
        if stands_for[earlier] == earlier and distance < nearest[later]:
            stands_for[later] = earlier
            nearest[later] = distance
    kept: npt.NDArray[np.intp] = firsts[stands_for][np.searchsorted(firsts, keeper)]
    return kept


def _forget_unused(points: pd.DataFrame) -> None:
    for name in points.columns[points.dtypes == "category"]:
        points[name] = points[name].cat.remove_unused_categories()


def join_surveys(surveys: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Picks of several surveys in one table.

    Parameters
    ----------
    surveys
        Picks by the names of their surveys: citekeys of the registry, say.

    Returns
    -------
    pandas.DataFrame
        All picks, survey after survey, each with its flags (missing where its survey has none;
        ``bed_inferred`` is then false) and the column ``source``: category, the survey's name.
        ``attrs`` has ``crs`` and ``vertical_datum``, and the ``sources`` of all.

    Raises
    ------
    ValueError
        If there is no survey.
    InvalidDataError
        If the surveys differ in CRS or in vertical datum: convert them first.

    Examples
    --------
    >>> one = pd.DataFrame({"x": [0.0], "y": [0.0], "z": [-1.0]})
    >>> join_surveys({"King2016Rutford": one, "Shi2010CRESIS": one})["source"].tolist()
    ['King2016Rutford', 'Shi2010CRESIS']
    """
    if not surveys:
        raise ValueError("there is no survey to join")
    said: dict[str, Any] = {}
    for name in ("crs", "vertical_datum"):
        values = {key: points.attrs.get(name) for key, points in surveys.items()}
        said[name] = next(iter(values.values()))
        for key, value in values.items():
            if value != said[name]:
                raise InvalidDataError(
                    Fault(
                        key,
                        field=name,
                        expected=f"that of {next(iter(values))} ({said[name] or 'unknown'})",
                        found=value or "unknown",
                        remedy="picks are joined in one CRS and one vertical datum alone",
                    )
                )
    tables = [*surveys.values()]
    joined = pd.concat(tables, ignore_index=True)
    if "line" in joined:
        lines = [
            pd.Categorical(table["line"])
            if "line" in table
            else pd.Categorical([None] * len(table))
            for table in tables
        ]
        joined["line"] = pd.api.types.union_categoricals(
            [line.set_categories(line.categories.astype("str")) for line in lines]
        )
    if "bed_inferred" in joined:
        joined["bed_inferred"] = joined["bed_inferred"].eq(True)
    joined["source"] = pd.Categorical.from_codes(
        np.repeat(np.arange(len(tables)), [len(table) for table in tables]),
        pd.Index([*surveys], dtype="str"),
    )
    sources = [source for points in surveys.values() for source in points.attrs.get("sources", ())]
    joined.attrs = {
        "crs": said["crs"],
        "vertical_datum": said["vertical_datum"],
        "sources": sources,
    }
    return joined


def without_overlaps(
    points: pd.DataFrame,
    registry: Registry,
    distance: float = 10.0,
    difference: float = 1.0,
) -> pd.DataFrame:
    """Picks without those that two datasets have both, by the registry's ``overlaps_with``.

    Of two datasets that overlap one keeps its picks: the survey before a compilation
    (``survey_type``); then what is in use before what is superseded, retired or withdrawn; then
    the one published later; then the first in the registry. From the other go the picks that are
    no further than ``distance`` in x and in y, and than ``difference`` in bed, from one of its.
    Picks of a compilation that no such survey has stay.

    Parameters
    ----------
    points
        As of :func:`join_surveys`, with citekeys as ``source``.
    registry
        As :func:`deepbedmap.registry.load` gives it.
    distance, difference
        Metres, more than 0.

    Returns
    -------
    pandas.DataFrame
        The other picks, in order. ``attrs["overlaps"]``: for each dataset that lost picks, how
        many.

    Raises
    ------
    ValueError
        If there is no column ``source``, or a distance is not positive.
    InvalidDataError
        If a source is no citekey of the registry, or a coordinate or bed is missing or infinite.
    """
    from scipy.spatial import cKDTree

    if "source" not in points:
        raise ValueError("picks of several surveys have a column source; see join_surveys")
    if not (0 < distance < math.inf and 0 < difference < math.inf):
        raise ValueError(f"distances are more than 0 m, not {distance} and {difference}")
    require_finite(points, "x", "y", "z")
    places = {dataset.citekey: place for place, dataset in enumerate(registry)}

    def rank(dataset: Dataset) -> tuple[bool, bool, int, int]:
        return (
            dataset.survey_type == "compilation",
            dataset.status in ("superseded", "retired", "withdrawn"),
            -(dataset.year or 0),
            places[dataset.citekey],
        )

    source = points["source"].to_numpy(dtype=object)
    datasets = sorted((registry[citekey] for citekey in pd.unique(source)), key=rank)
    scaled = points[["x", "y", "z"]].to_numpy(np.float64) / (distance, distance, difference)
    kept = np.ones(len(points), dtype=bool)
    lost = {}
    for place, dataset in enumerate(datasets):
        before = [
            other.citekey
            for other in datasets[:place]
            if other.citekey in dataset.overlaps_with or dataset.citekey in other.overlaps_with
        ]
        if not before:
            continue
        own = np.flatnonzero(source == dataset.citekey)
        tree = cKDTree(scaled[np.isin(source, before)], balanced_tree=False, compact_nodes=False)
        for start in range(0, len(own), 1_000_000):
            rows = own[start : start + 1_000_000]
            # The bound of a query is not within it.
            nearest, _ = tree.query(
                scaled[rows], p=np.inf, distance_upper_bound=1 + 1e-9, workers=pa.cpu_count()
            )
            kept[rows] = np.isinf(nearest)
        if count := int((~kept[own]).sum()):
            lost[dataset.citekey] = count
    rest: pd.DataFrame = points[kept].reset_index(drop=True)
    _forget_unused(rest)
    rest.attrs = {**points.attrs, "overlaps": lost}
    return rest


def check_pipeline(pipeline: str | os.PathLike[str]) -> list[Fault]:
    """Return what is wrong with a pipeline: its form, its stages, and whether they fit together.

    Raises
    ------
    MissingDataError
        If there is no such file.
    """
    try:
        _Recipe.load(Path(pipeline))
    except InvalidDataError as error:
        return [fault for fault in error.faults if isinstance(fault, Fault)]
    return []


def _find_pipeline(pipeline: str | os.PathLike[str]) -> Path:
    path = Path(pipeline)
    if path.is_file():
        return path
    folder = repository.root() / "highres"
    if path.name == str(path):
        bundled = folder / (path.name if path.suffix == ".json" else f"{path.name}.json")
        if bundled.is_file():
            return bundled
    names = ", ".join(sorted(known.stem for known in folder.glob("*.json")))
    raise MissingDataError(f"{path}: no such pipeline; give its path, or one of {names}")


def _dataset_of(pipeline: Path) -> Dataset | None:
    """Entry of a pipeline in the registry that lies beside the pipeline's folder."""
    from deepbedmap import registry

    listing = pipeline.absolute().parent.parent / "data_list.yml"
    return registry.load(listing).for_pipeline(pipeline.name) if listing.is_file() else None


def _dataset_of_file(path: Path) -> Dataset | None:
    """Entry of a raw file in the registry beside its folder or, without one, in the package's."""
    from deepbedmap import registry

    listing = path.absolute().parent.parent / "data_list.yml"
    return next(
        (
            dataset
            for dataset in registry.load(listing if listing.is_file() else None)
            for file in dataset.files
            if path.name == file.name or fnmatch.fnmatchcase(path.name, file.members or "")
        ),
        None,
    )


def _box(bounds: Sequence[float], crs: str | None) -> tuple[float, float, float, float]:
    xmin, ymin, xmax, ymax = bounds
    if not (xmin < xmax and ymin < ymax):
        raise ValueError(
            f"bounds are (xmin, ymin, xmax, ymax) with xmin < xmax and ymin < ymax, "
            f"not {tuple(bounds)}"
        )
    if _is_polar(crs) and max(map(abs, (xmin, xmax))) <= 360 and max(map(abs, (ymin, ymax))) <= 90:
        raise ValueError(f"bounds are metres in EPSG:3031, and not degrees such as {tuple(bounds)}")
    return xmin, ymin, xmax, ymax


def _is_polar(crs: str | None) -> bool:
    return crs is not None and pyproj.CRS(crs).to_epsg() == 3031


def _inside(picks: pd.DataFrame, box: tuple[float, float, float, float]) -> pd.Series[bool]:
    xmin, ymin, xmax, ymax = box
    return picks["x"].between(xmin, xmax) & picks["y"].between(ymin, ymax)


def _find_files(
    recipe: _Recipe, dataset: Dataset | None, wanted: Sequence[str] | None
) -> list[Path]:
    pattern = recipe.reader["filename"]
    listed = [file.name for file in dataset.files] if dataset else []
    listed = fnmatch.filter(listed, pattern)
    folders = dict.fromkeys((recipe.path.absolute().parent, repository.data_dir() / "highres"))
    files: list[Path] = []
    for folder in folders:
        path = folder / pattern
        if files := sorted(path.parent.glob(path.name)):
            break
    if wanted is not None:
        known = sorted({*listed, *(file.name for file in files)})
        chosen = [name for name in known if _fits(name, wanted)]
        if known and not chosen:
            raise InvalidDataError(
                Fault(
                    str(recipe.path),
                    field="season",
                    expected=f"the name, the stem or a glob of {_few(known)}",
                    found=" ".join(map(repr, wanted)),
                    remedy=schemas.near(" ".join(wanted), [Path(name).stem for name in known]),
                )
            )
        listed = [name for name in listed if name in chosen]
        files = [file for file in files if file.name in chosen]
    if files:
        if absent := sorted(set(listed) - {file.name for file in files}):
            logger.warning("%s is read without %s", recipe.path, _few(absent))
        return files
    how = "put it there"
    if dataset is None:
        from deepbedmap import registry

        dataset = registry.load().for_pipeline(recipe.path.name)
    if dataset is not None:
        how = _how_to_get(dataset, pattern, wanted)
    places = " or ".join(map(str, folders))
    sought = _few(listed) if wanted is not None and listed else pattern
    raise MissingDataError(f"{recipe.path}: there is no {sought} in {places}; {how}")


def _fits(name: str, wanted: Sequence[str]) -> bool:
    stem = Path(name).stem
    return any(
        fnmatch.fnmatchcase(name, style) or fnmatch.fnmatchcase(stem, style) for style in wanted
    )


def _few(names: Sequence[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _how_to_get(dataset: Dataset, pattern: str, wanted: Sequence[str] | None) -> str:
    """Say which command, or which person, gets the files of a pipeline, or those wanted alone."""
    files = [
        file
        for file in dataset.files
        if fnmatch.fnmatchcase(file.name, pattern) and (wanted is None or _fits(file.name, wanted))
    ]
    if wanted and files and all(file.urls and file.access != "manual" for file in files):
        names = " ".join(file.filename for file in files)
        return f"`deepbedmap fetch {names}` gets {'it' if len(files) == 1 else 'them'}"
    if not files and any(file.members for file in dataset.files):
        return dataset.how_to_get()
    return dataset.how_to_get(*([file.name for file in files] or [pattern]))


def _open(file: Path) -> IO[bytes]:
    try:
        return file.open("rb")
    except FileNotFoundError:
        raise MissingDataError(f"{file}: there is no such file") from None


def _lines_of(file: Path) -> Iterator[bytes]:
    """Lines of a raw file without a byte order mark, each but the last ended by a line feed."""
    with _open(file) as stream:
        for number, line in enumerate(stream):
            text = line.replace(b"\r\n", b"\n")
            yield text if number else text.removeprefix(_BYTE_ORDER_MARK)


@dataclass(frozen=True)
class _Assign:
    """``filters.assign``: a column from others, all of it or where a condition is met."""

    stage: int
    target: str
    value: ast.expr
    condition: ast.expr | None


@dataclass(frozen=True)
class _Keep:
    """``filters.expression``: the records that stay."""

    stage: int
    condition: ast.expr


@dataclass(frozen=True)
class _Reproject:
    """``filters.reprojection``: X and Y in another CRS; Z stays as it is."""

    stage: int
    source: str
    transformer: pyproj.Transformer


_Step = _Assign | _Keep | _Reproject


@dataclass(frozen=True)
class _Layout:
    """Columns of a raw file and what parts them (a space stands for any white space)."""

    names: tuple[str, ...]
    separator: str
    skip: int

    def split(self, line: str) -> list[str]:
        if self.separator == " ":
            return line.split()
        return [text.strip(" ") for text in line.split(self.separator)]

    def named(self, *meanings: str) -> str | None:
        """Name of the first of these columns that is there, in any case."""
        names = {name.upper(): name for name in self.names}
        return next((names[meaning] for meaning in meanings if meaning in names), None)

    def fits(self, other: _Layout) -> bool:
        """Whether the columns that both name are at the same places."""
        return (self.skip, len(self.names)) == (other.skip, len(other.names)) and all(
            ours == theirs or theirs.startswith("(")
            for ours, theirs in zip(self.names, other.names, strict=True)
        )

    @property
    def line(self) -> str | None:
        """Column that names the flight line."""
        return self.named("FRAME", "FLIGHTID", "LINE_NAME", "TRAJECTORY_ID")

    @property
    def day_and_clock(self) -> tuple[str, str] | None:
        """Columns of the date and of the time of day."""
        day = self.named("FRAME", "DATE")
        clock = self.named("UTCTIMESOD", "UTC", "TIME", "TIME_UTC")
        return (day, clock) if day and clock else None

    def __str__(self) -> str:
        mark = {" ": "white space", "\t": "tabs"}.get(self.separator, repr(self.separator))
        return f"{len(self.names)} fields parted by {mark} ({','.join(self.names)})"


@dataclass(frozen=True)
class _Recipe:
    """A pipeline that was checked: its stages, and the steps that its filters mean."""

    path: Path
    document: schemas.Document
    sha256: str
    reader: dict[str, Any]
    filters: tuple[dict[str, Any], ...]
    steps: tuple[_Step, ...]
    crs: str | None

    @classmethod
    def load(cls, path: Path) -> _Recipe:
        document = schemas.validate_file(path, "pipeline")
        stages = document.content["pipeline"]
        crs = stages[0].get("override_srs")
        steps: list[_Step] = []
        faults: list[Fault | str] = []
        for number, stage in enumerate(stages):
            kind = stage["type"]
            if (kind == "readers.text") != (number == 0) and not faults:
                place = ("pipeline", number, "type")
                faults.append(document.fault(place, "readers.text first, and only there", kind))
            try:
                if "override_srs" in stage:
                    _crs(stage["override_srs"])
                if kind == "filters.assign":
                    values = stage["value"]
                    for text in [values] if isinstance(values, str) else values:
                        steps.append(_assign(number, text))
                elif kind == "filters.expression":
                    steps.append(_Keep(number, _parse(stage["expression"])))
                elif kind == "filters.reprojection":
                    crs = stage["out_srs"]
                    steps.append(_reproject(number, stage["in_srs"], crs))
            except _StepError as error:
                faults.append(document.fault(("pipeline", number), error.expected, error.found))
        recipe = cls(
            path=path,
            document=document,
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            reader=stages[0],
            filters=tuple(stage for stage in stages if stage["type"].startswith("filters.")),
            steps=tuple(steps),
            crs=crs,
        )
        try:
            _ = recipe.own_layout
        except InvalidDataError as error:
            faults += error.faults
        if faults:
            raise InvalidDataError(*faults)
        return recipe

    @property
    def skip(self) -> int:
        """Lines before the first record; without a header of its own, PDAL takes the file's."""
        return int(self.reader.get("skip", 0)) + ("header" not in self.reader)

    @property
    def own_layout(self) -> _Layout | None:
        """Layout by the header that the pipeline gives, if it gives one."""
        if "header" not in self.reader:
            return None
        place = self.document.fault(("pipeline", 0, "header"))
        return self.layout(self.reader["header"], place)

    @property
    def inferred(self) -> str | None:
        """Column that the pipeline makes to mark the beds that it infers."""
        targets = (step.target for step in self.steps if isinstance(step, _Assign))
        return next((name for name in targets if name.upper() == "BED_INFERRED"), None)

    def layout(self, header: str, place: Fault) -> _Layout:
        """Layout by a header, which stands at a place in the pipeline or in a raw file."""
        separator = self.reader.get("separator")
        if separator is None:  # PDAL then takes the first mark in the header
            mark = re.search(r"[^A-Za-z0-9]", header)
            separator = mark[0] if mark else " "
        layout = _Layout((), separator, self.skip)
        names = tuple(_canonical(name.strip('"')) for name in layout.split(header))
        layout = replace(layout, names=names)
        faults: list[Fault] = []
        for name in dict.fromkeys(names):
            if not _NAME.fullmatch(name):
                expected = f"names of letters, digits and _ that start with a letter: {layout}"
                faults.append(replace(place, expected=expected, found=repr(name)))
            if [other.upper() for other in names].count(name.upper()) > 1:
                expected = "each name once, whatever its case"
                faults.append(replace(place, expected=expected, found=f"{name!r} again"))
        columns: Columns = {name: np.empty(0) for name in names}
        for step in self.steps:
            try:
                _run((step,), columns, 0)
            except _StepError as error:
                where = ("pipeline", step.stage)
                faults.append(self.document.fault(where, error.expected, error.found))
                if isinstance(step, _Assign):
                    columns[step.target] = np.empty(0)
        for name in "XYZ":
            if name not in columns:
                expected = f"a column {name}, or a filters.assign that makes it"
                faults.append(replace(place, expected=expected, found=", ".join(names)))
        if faults:
            raise InvalidDataError(*faults)
        return layout

    def columns_used(self) -> set[str]:
        """Names of the columns that must be numbers: coordinates, bed, those of expressions."""
        used = {"X", "Y", "Z"}
        for step in self.steps:
            if isinstance(step, _Assign):
                used |= _names(step.value)
                used |= _names(step.condition) if step.condition else set()
            elif isinstance(step, _Keep):
                used |= _names(step.condition)
        return used


class _StepError(ValueError):
    """What is wrong with a stage of a pipeline."""

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(expected, found)
        self.expected = expected
        self.found = found


_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_TOKEN = re.compile(
    r"\s*(?:(?P<number>[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?)"
    r"|(?P<name>[A-Za-z][A-Za-z0-9_]*)"
    r"|(?P<symbol>&&|\|\||[=!<>]=|[-+*/<>()!]))"
)
_LONGEST = 400  # each operator may be one level deeper for whoever reads or evaluates it
_WORDS = {"&&": " and ", "||": " or ", "!": " not "}
_ARITHMETIC: dict[type, Any] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: lambda left, right: left / np.where(right == 0, np.nan, right),  # as PDAL has it
}
_COMPARISON: dict[type, Any] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def _canonical(name: str) -> str:
    return name.upper() if name.upper() in ("X", "Y", "Z") else name


def _assign(stage: int, text: str) -> _Assign:
    target, equals, value = text.partition("=")
    if not equals or not _NAME.fullmatch(target.strip()):
        raise _StepError("an assignment such as 'Z = ELEVATION - BOTTOM'", repr(text))
    value, *condition = re.split(r"\bWHERE\b", value, maxsplit=1, flags=re.IGNORECASE)
    return _Assign(
        stage,
        _canonical(target.strip()),
        _parse(value),
        _parse(condition[0]) if condition else None,
    )


def _reproject(stage: int, source: str, target: str) -> _Reproject:
    transformer = pyproj.Transformer.from_crs(_crs(source), _crs(target), always_xy=True)
    return _Reproject(stage, source, transformer)


def _crs(name: str) -> pyproj.CRS:
    try:
        crs = pyproj.CRS(name)
    except pyproj.exceptions.CRSError:
        raise _StepError("a coordinate reference system that PROJ knows", repr(name)) from None
    if len(crs.axis_info) != 2:
        raise _StepError("a horizontal reference system: heights stay as they are", repr(name))
    return crs


def _parse(text: str) -> ast.expr:
    """PDAL's expression as a Python one, each name of which has a ``_`` before it.

    PDAL's operators bind as Python's do once && is ``and``, || is ``or`` and ! is ``not``. The
    mark keeps a column from being one of Python's words. Nothing is evaluated here, and
    :func:`_evaluate` knows no calls and no attributes.
    """
    python = ""
    position = 0
    text = text.strip()
    if len(text) > _LONGEST:
        raise _StepError(f"an expression of at most {_LONGEST} characters", f"{len(text)}")
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            expected = "names, numbers and + - * / ( ) < <= > >= == != && || !"
            raise _StepError(expected, f"{text[position:].split()[0]!r} in {text!r}")
        position = token.end()
        if token["number"]:
            python += f" {float(token['number'])!r} "
        elif token["name"]:
            python += f" _{_canonical(token['name'])} "
        else:
            python += _WORDS.get(token["symbol"], token["symbol"])
    try:
        return ast.parse(python.strip(), mode="eval").body
    except (SyntaxError, RecursionError, MemoryError):
        raise _StepError("a complete expression", repr(text)) from None


def _names(node: ast.expr) -> set[str]:
    return {part.id[1:] for part in ast.walk(node) if isinstance(part, ast.Name)}


def _evaluate(node: ast.expr, columns: Columns, truth: bool = False) -> npt.NDArray[Any]:
    """Evaluate to float64 or, where a truth is asked for, to bool."""
    value: npt.NDArray[Any]
    match node:
        case ast.Constant(value=float(number)) if not truth:
            return np.asarray(number)
        case ast.Name(id=name) if not truth:
            if name[1:] not in columns:
                expected = f"a column of the header ({', '.join(columns)})"
                raise _StepError(expected, repr(name[1:]))
            return columns[name[1:]]
        case ast.UnaryOp(op=ast.USub(), operand=operand) if not truth:
            return -_evaluate(operand, columns)
        case ast.BinOp(left=left, op=op, right=right) if not truth and type(op) in _ARITHMETIC:
            with np.errstate(all="ignore"):
                value = _ARITHMETIC[type(op)](_evaluate(left, columns), _evaluate(right, columns))
            return value
        case ast.Compare(left=left, ops=[op], comparators=[right]) if truth:
            value = _COMPARISON[type(op)](_evaluate(left, columns), _evaluate(right, columns))
            return value
        case ast.UnaryOp(op=ast.Not(), operand=operand) if truth:
            return ~_evaluate(operand, columns, truth)
        case ast.BoolOp(op=op, values=values) if truth:
            join = np.logical_and if isinstance(op, ast.And) else np.logical_or
            value = _evaluate(values[0], columns, truth)
            for other in values[1:]:
                value = join(value, _evaluate(other, columns, truth))
            return value
    found = re.sub(r"\b_(?=[A-Za-z])", "", ast.unparse(node))
    raise _StepError("a comparison" if truth else "a number", repr(found))


def _run(steps: tuple[_Step, ...], columns: Columns, size: int) -> npt.NDArray[np.bool_]:
    """Change columns of some size as the steps say, and return which records they keep."""
    kept = np.ones(size, dtype=bool)
    for step in steps:
        if isinstance(step, _Assign):
            value = np.broadcast_to(_evaluate(step.value, columns), size)
            if step.condition is not None:
                chosen = _evaluate(step.condition, columns, truth=True)
                # A column that PDAL makes under a condition is 0 where that is not met.
                value = np.where(chosen, value, columns.get(step.target, 0.0))
            columns[step.target] = value
        elif isinstance(step, _Keep):
            kept &= _evaluate(step.condition, columns, truth=True)
        elif {"X", "Y"} <= columns.keys():
            columns["X"], columns["Y"] = step.transformer.transform(columns["X"], columns["Y"])
        else:
            raise _StepError("columns X and Y before this stage", ", ".join(columns))
    return kept


_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_MISSING = ("", "*")
_NO_TEXT = ("-9999", "-9999.0")
_NUMBER = re.compile(
    r"[-+]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[-+]?[0-9]+)?|nan|inf|infinity)", re.IGNORECASE
)


def _invalid(file: Path, line: int | None = None, **said: str) -> InvalidDataError:
    return InvalidDataError(Fault(str(file), line=line, **said))


def _open_up(file: Path, recipe: _Recipe, standard: bool) -> tuple[_Layout, list[str]]:
    """Layout of a raw file, and its comments.

    ``standard``: that the file has the names of the pipeline is not a hope but the condition.
    """
    if all(not line or line.isspace() for line in _lines_of(file)):
        raise _invalid(file, 1, found="an empty file", remedy="fetch the file again")
    comments, header = _leading_lines(file)
    layout = _layout_by_name(file, comments, header, recipe)
    if layout is None and standard:
        raise _invalid(
            file,
            line=len(comments) + 1,
            expected=f"a Bedmap standard CSV, with the columns {recipe.reader['header']}",
            found=_excerpt(header),
            remedy="write a pipeline for it, or let `deepbedmap new` do so",
        )
    skip = layout.skip if layout else recipe.skip
    heading = list(islice(_lines_of(file), skip))
    ends = len(heading) + (bool(heading) and heading[-1].endswith(b"\n"))
    if ends < skip:
        raise _invalid(
            file,
            line=ends,
            expected=f"{skip} lines before the first record",
            found="the end of the file",
            remedy="fetch the file again, or correct skip in the pipeline",
        )
    if layout is None:
        last = heading[-1].decode(errors="replace") if len(heading) == skip > 0 else ""
        layout = _layout_by_position(file, last.rstrip("\n"), recipe)
    return layout, comments


def _leading_lines(file: Path) -> tuple[list[str], str]:
    """Comment lines that a file begins with, and the line that follows them."""
    comments: list[str] = []
    for line in _lines_of(file):
        said = line.decode(errors="replace").rstrip("\n")
        if not said.startswith("#"):
            return comments, said
        comments.append(said)
    return comments, ""


def _said_of(comments: list[str]) -> dict[str, str]:
    """Pairs of ``#key: value``, no more than a person would have written."""
    pairs = (comment[1:].partition(":") for comment in comments[:50])
    return {key.strip()[:80]: value.strip()[:400] for key, _, value in pairs if value.strip()}


def _column_name(text: str) -> str:
    """Name that a file's own header means: without its unit, in letters, digits and ``_``.

    Examples
    --------
    >>> _column_name("land_ice_thickness (m)")
    'land_ice_thickness'
    """
    return re.sub(r"[^A-Za-z0-9]+", "_", re.sub(r"\([^)]*\)", "", text)).strip("_")


def _layout_by_name(
    file: Path, comments: list[str], header: str, recipe: _Recipe
) -> _Layout | None:
    """Layout of a file whose own header has the pipeline's names; None for any other file."""
    own = recipe.own_layout
    if own is None:
        return None
    needed = recipe.columns_used() & {*own.names}
    # Where X, Y and Z are columns of the header, its names are the pipeline's and not the file's.
    renamed = not needed.isdisjoint("XYZ")
    if not comments and (renamed or recipe.skip == 1):
        return None
    known = {name.upper(): name for name in own.names}
    texts = own.split(header)
    names = [known.get(_column_name(text).upper()) for text in texts]
    shared = {name for name in names if name}
    if not shared or len(shared) < len(names) - names.count(None):
        return None
    if missing := sorted(needed - shared):
        if renamed or not comments:
            return None
        raise _invalid(
            file,
            line=len(comments) + 1,
            expected=f"a column {' and a column '.join(missing)}",
            found=", ".join(texts),
            remedy="fetch the file again, or write a pipeline for it",
        )
    places = (name or f"({text})" for name, text in zip(names, texts, strict=True))
    return replace(own, names=tuple(places), skip=len(comments) + 1)


def _layout_by_position(file: Path, header: str, recipe: _Recipe) -> _Layout:
    """Layout of the pipeline, or by the last of the lines that it skips if it has no header."""
    own = recipe.own_layout
    if own is None:
        return recipe.layout(header, Fault(str(file), line=recipe.skip))
    if recipe.skip == 1 and own.separator != " ":
        _check_header(file, header, own)
    return own


def _check_header(file: Path, header: str, layout: _Layout) -> None:
    """Refuse a file whose own single line of header has other columns than the pipeline's."""
    counts = {len(layout.split(text)) for text in (header, header.rstrip(layout.separator + " "))}
    if counts.isdisjoint({1, len(layout.names)}):
        raise InvalidDataError(_miscounted(file, 1, header, layout))


@dataclass
class _Records:
    """The valid records of a block, or of a file: the columns that make picks.

    ``numbers`` are float64, or the time since midnight as timedelta64[ns]; ``texts`` are codes
    (-1 where it is missing) and what they stand for.
    """

    numbers: Columns
    texts: dict[str, _Texts]
    valid: npt.NDArray[np.bool_]  # of all records
    missing: int

    @classmethod
    def of(
        cls, columns: pd.DataFrame, layout: _Layout, recipe: _Recipe, steps: tuple[_Step, ...]
    ) -> _Records:
        """Run the steps on the columns of some records, and choose."""
        values: Columns = {
            str(name): column.to_numpy()
            for name, column in columns.items()
            if column.dtype == np.float64
        }
        kept = _run(steps, values, len(columns))
        missing = np.isnan(values["X"]) | np.isnan(values["Y"]) | np.isnan(values["Z"])
        valid = kept & ~missing
        numbers = {name: values[name][valid] for name in ("X", "Y", "Z", recipe.inferred) if name}
        if name := layout.named("QUALITY"):
            numbers[name] = columns[name].to_numpy(np.float64)[valid]
        texts = {}
        for name in {layout.line, *(layout.day_and_clock or ())} & {*columns}:
            column = columns[name][valid]
            if layout.day_and_clock and name == layout.day_and_clock[1] and name in values:
                seconds = pd.to_timedelta(column, unit="s")
                numbers[name] = seconds.to_numpy("timedelta64[ns]")
            else:
                texts[name] = _texts(column)
        return cls(numbers, texts, valid, int(missing.sum()))

    @classmethod
    def joined(cls, parts: Sequence[_Records]) -> _Records:
        """All records of a file. The parts are emptied, so that nothing is twice in memory."""
        first = parts[0]
        if len(parts) == 1:
            return first
        numbers = {
            name: np.concatenate([part.numbers.pop(name) for part in parts])
            for name in [*first.numbers]
        }
        texts = {
            name: _joined_texts([part.texts.pop(name) for part in parts]) for name in [*first.texts]
        }
        valid = np.concatenate([part.valid for part in parts])
        return cls(numbers, texts, valid, sum(part.missing for part in parts))


def _joined_texts(parts: Sequence[_Texts]) -> _Texts:
    codes, texts = pd.factorize(pd.concat([texts for _, texts in parts], ignore_index=True))
    ends = itertools.accumulate(len(texts) for _, texts in parts)
    own = (
        np.append(codes[end - len(texts) : end], -1).astype(np.int32)[places]
        for end, (places, texts) in zip(ends, parts, strict=True)
    )
    return np.concatenate([*own]), pd.Series(texts, dtype="str")


def _read_records(file: Path, layout: _Layout, recipe: _Recipe, digest: hashlib._Hash) -> _Records:
    """Records of a file, block by block: reading one while others are parsed and projected."""
    numbers = recipe.columns_used() & {*layout.names}
    if quality := layout.named("QUALITY"):
        numbers.add(quality)
    wanted = numbers | {layout.line}
    if layout.day_and_clock:
        day, clock = layout.day_and_clock
        wanted |= {day, clock}
        if day == layout.named("FRAME"):
            numbers.add(clock)
    types = {
        name: pa.float64() if name in numbers else pa.dictionary(pa.int32(), pa.string())
        for name in layout.names
        if name in wanted
    }

    def work(block: bytes) -> _Records:
        return _Records.of(_parsed(block, layout, types), layout, recipe, recipe.steps)

    try:
        return _Records.joined([*_in_parallel(work, _blocks(file, layout.skip, digest))])
    except UnicodeDecodeError:
        raise _undecodable(file, layout.skip) from None
    except _UnreadableError as error:
        raise InvalidDataError(_first_fault(file, layout, numbers, str(error))) from None


class _UnreadableError(Exception):
    """A block has a fault; where it stands is for :func:`_first_fault` to find."""


_BLOCK = 2**24


def _blocks(file: Path, skip: int, digest: hashlib._Hash) -> Iterator[bytes]:
    """Whole lines of a file after those that are skipped; all of its bytes make the digest."""
    with _open(file) as stream:
        for _ in range(skip):
            digest.update(stream.readline())
        mark = b"" if skip else _BYTE_ORDER_MARK
        while block := stream.read(_BLOCK):
            block += stream.readline()
            digest.update(block)
            yield block.removeprefix(mark)
            mark = b""


def _in_parallel(work: Callable[[bytes], _Records], blocks: Iterator[bytes]) -> Iterator[_Records]:
    """Results in order, by as many threads as pyarrow uses, each with one block in memory."""
    first, second = next(blocks, b""), next(blocks, None)
    if second is None:  # not worth a thread, and a projection for it
        yield work(first)
        return
    threads = pa.cpu_count()
    running: deque[Future[_Records]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for block in itertools.chain((first, second), blocks):
            running.append(pool.submit(work, block))
            if len(running) > threads:
                yield running.popleft().result()
        del first, second, block
        while running:
            yield running.popleft().result()


def _parsed(block: bytes, layout: _Layout, types: dict[str, pa.DataType]) -> pd.DataFrame:
    """Columns of some records: float64, or category where text is wanted."""
    _ = block.isascii() or block.decode()
    if b"\r" in block:
        block = block.replace(b"\r\n", b"\n")
    block = _squeezed(block, layout.separator.encode())
    if not block or block.isspace():
        empty: pd.DataFrame = pa.schema(types.items()).empty_table().to_pandas()
        return empty
    try:
        table = pyarrow.csv.read_csv(
            pa.py_buffer(block),
            pyarrow.csv.ReadOptions(column_names=layout.names, use_threads=False),
            pyarrow.csv.ParseOptions(delimiter=layout.separator, quote_char=False),
            pyarrow.csv.ConvertOptions(
                column_types=types,
                include_columns=list(types),
                null_values=_MISSING,
                strings_can_be_null=True,
            ),
        )
    except pa.ArrowInvalid as error:
        raise _UnreadableError(str(error)) from None
    columns: pd.DataFrame = table.to_pandas(split_blocks=True)
    for name, kind in types.items():
        if kind == pa.float64() and np.isinf(columns[name].to_numpy()).any():
            raise _UnreadableError("a number that is infinite")
    return columns


def _squeezed(records: bytes, separator: bytes) -> bytes:
    """Records without the spaces beside separators; white space as a separator is one space."""
    if separator == b" ":
        records = records.replace(b"\t", b" ")
    if b" " not in records:
        return records
    while b"  " in records:
        records = records.replace(b"  ", b" ")
    for mark in {separator, b"\n"} - {b" "}:
        records = records.replace(b" " + mark, mark).replace(mark + b" ", mark)
    return records.strip(b" ")


def _numbered_records(file: Path, layout: _Layout) -> Iterator[tuple[int, str]]:
    """Records and their line numbers, slowly: only a message needs them."""
    blank = "\n\t " if layout.separator == " " else "\n "
    for number, line in enumerate(islice(_lines_of(file), layout.skip, None), layout.skip + 1):
        text = line.decode(errors="replace")
        if text.strip(blank):
            yield number, text.rstrip("\n")


def _undecodable(file: Path, skip: int) -> InvalidDataError:
    for number, line in enumerate(islice(_lines_of(file), skip, None), skip + 1):
        try:
            line.decode()
        except UnicodeDecodeError as error:
            return _invalid(
                file,
                line=number,
                expected="text in UTF-8",
                found=f"the byte 0x{line[error.start]:02x}",
                remedy="fetch the file again",
            )
    return _invalid(file, expected="text in UTF-8", remedy="fetch the file again")


def _record(file: Path, layout: _Layout, record: int) -> tuple[int, str]:
    return next(islice(_numbered_records(file, layout), record, None))


def _excerpt(line: str) -> str:
    return repr(line) if len(line) <= 80 else f"{line[:80]!r}..."


def _first_fault(file: Path, layout: _Layout, numbers: set[str], error: str) -> Fault:
    for number, line in _numbered_records(file, layout):
        fields = layout.split(line)
        if len(fields) != len(layout.names):
            return _miscounted(file, number, line, layout)
        for name, text in zip(layout.names, fields, strict=True):
            if name not in numbers or text in _MISSING:
                continue
            place = Fault(str(file), line=number, field=name)
            if not _NUMBER.fullmatch(text):
                expected = "a number, or nan, * or nothing where it is missing"
                return replace(place, expected=expected, found=repr(text))
            if math.isinf(float(text)):
                return replace(place, expected="a finite number", found=str(float(text)))
    return Fault(str(file), expected=str(layout), found=error)


def _miscounted(file: Path, number: int, line: str, layout: _Layout) -> Fault:
    count = len(layout.split(line))
    return Fault(
        str(file),
        line=number,
        expected=str(layout),
        found=f"{count} field{'s' * (count != 1)}: {_excerpt(line)}",
        remedy="fetch the file again, or correct separator and header in the pipeline",
    )


def _run_pdal(file: Path, layout: _Layout, recipe: _Recipe, digest: hashlib._Hash) -> _Records:
    """Records that PDAL keeps, all columns of them numbers, without those that it had as text."""
    try:
        import pdal
    except ImportError:
        raise MissingDataError(
            "engine 'pdal' needs python-pdal, which is not here; "
            "get it with `conda install -c conda-forge python-pdal`, or use engine 'native'"
        ) from None
    own = recipe.own_layout
    if own and not own.fits(layout):
        raise _invalid(
            file,
            line=layout.skip,
            expected=f"for engine 'pdal' {own.skip} lines, and then {own}",
            found=f"{layout.skip} lines, and then {layout}",
            remedy="use engine 'native', which goes by the names of the columns",
        )
    stages = [{**recipe.reader, "filename": str(file.absolute())}, *recipe.filters]
    pipeline = pdal.Pipeline(json.dumps(stages))
    try:
        pipeline.execute()
    except RuntimeError as error:
        raise InvalidDataError(Fault(str(file), found=f"an error of PDAL's: {error}")) from error
    for block in _blocks(file, 0, digest):
        del block
    columns = pd.DataFrame(np.concatenate(pipeline.arrays))
    names = (layout.line, *(layout.day_and_clock or ()))
    lost = [name for name in names if name in columns and not any(columns[name])]
    return _Records.of(columns.drop(columns=lost), layout, recipe, steps=())


def _picks(
    records: _Records, file: Path, layout: _Layout, recipe: _Recipe, crs: str | None, engine: str
) -> pd.DataFrame:
    """Picks of a file from its records."""
    count, total = int(records.valid.sum()), len(records.valid)
    logger.info(
        "%s: %d records, %d dropped for a missing coordinate or bed, "
        "%d by the pipeline's expressions, %d picks",
        file,
        total,
        records.missing,
        total - records.missing - count,
        count,
    )
    picks = pd.DataFrame({name.lower(): records.numbers.pop(name) for name in "XYZ"}, copy=False)

    def refuse(wrong: npt.NDArray[np.bool_], expected: str) -> None:
        if not wrong.any():
            return
        first = int(wrong.argmax())
        found = "x {:.9g}, y {:.9g}, z {:.9g}".format(*picks.loc[first, ["x", "y", "z"]])
        number = None
        if engine == "native":
            record = int(np.flatnonzero(records.valid)[first])
            number, line = _record(file, layout, record)
            found += f" from {_excerpt(line)}"
        raise InvalidDataError(Fault(str(file), line=number, expected=expected, found=found))

    x, y = picks["x"].to_numpy(), picks["y"].to_numpy()
    reprojected = [step.source for step in recipe.steps if isinstance(step, _Reproject)]
    refuse(
        ~np.isfinite(x) | ~np.isfinite(y) | ~np.isfinite(picks["z"].to_numpy()),
        "finite x, y and z" + "".join(f", from coordinates in {name}" for name in reprojected),
    )
    if _is_polar(crs):
        if not reprojected and (np.abs(x) <= 360).all() and (np.abs(y) <= 90).all():
            refuse(np.ones(len(x), dtype=bool), "metres in EPSG:3031, which degrees are not")
        refuse(
            np.hypot(x, y) > ANTARCTIC_RADIUS,
            "picks south of 60 degrees S, within 3,340 km of the pole in EPSG:3031",
        )
    picks["line"] = _lines(records.texts.get(layout.line or ""), layout, file.stem, x, y)
    if name := layout.named("QUALITY"):
        quality = records.numbers.pop(name)
        missing = np.isnan(quality)
        refuse(
            ~missing & ((quality % 1 != 0) | (np.abs(quality) > 127)), f"a whole number as {name}"
        )
        whole = np.where(missing, 0, quality).astype(np.int8)
        picks["quality"] = pd.arrays.IntegerArray(whole, missing)
    if layout.day_and_clock and {*layout.day_and_clock} <= {*records.texts, *records.numbers}:
        picks["time"] = _times(records, *layout.day_and_clock, file)
    if recipe.inferred:
        picks["bed_inferred"] = records.numbers.pop(recipe.inferred) != 0
    return picks


def _lines(
    names: _Texts | None,
    layout: _Layout,
    stem: str,
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
) -> pd.Categorical[str]:
    if names is not None and len(names[1]):
        codes, lines = names[0], [f"{stem}/{text}" for text in names[1]]
        if (codes < 0).any():
            codes, lines = np.where(codes < 0, len(lines), codes), [*lines, stem]
    elif layout.named("ROW", "COLUMN"):
        codes, lines = np.zeros(len(x), dtype=np.intp), [stem]
    else:
        gaps = np.hypot(np.diff(x), np.diff(y)) > LINE_GAP
        codes = np.cumsum(np.append(False, gaps))[: len(x)]
        lines = [f"{stem}/{number + 1}" for number in range(codes.max(initial=0) + 1)]
    return pd.Categorical.from_codes(codes, categories=pd.Index(lines, dtype="str"))


def _texts(column: pd.Series[Any]) -> _Texts:
    """Codes (-1 where it is missing) and texts of a column, whole numbers among them as digits."""
    if column.dtype == np.float64:
        codes, numbers = pd.factorize(column.round())
        texts = pd.Series([f"{number:.0f}" for number in numbers], dtype="str")
        column = pd.Series(pd.Categorical.from_codes(codes, pd.Index(texts, dtype="str")))
    codes, named = pd.factorize(column.mask(column.isin(_NO_TEXT)))
    return codes.astype(np.int32), pd.Series(named, dtype="str")


def _times(records: _Records, day: str, clock: str, file: Path) -> npt.NDArray[np.datetime64]:
    """UTC of each record, datetime64[ns]."""
    codes, texts = records.texts[day]
    count = len(texts)
    if day.upper() == "FRAME":
        days = pd.to_datetime(texts.str[:8], format="%Y%m%d", errors="coerce")
    else:
        texts = texts[~texts.str.fullmatch(r"\d{4}")]  # a year is no day
        formats = ("%Y%m%d", "%Y-%m-%d", "%Y/%m/%d", "%d/%m/%Y", "%m/%d/%Y")
        read = [pd.to_datetime(texts, format=style, errors="coerce") for style in formats]
        days = _only_reading(read, file, day).reindex(range(count))
    dates: npt.NDArray[np.datetime64] = _spread(days.to_numpy("datetime64[ns]"), codes)
    if clock in records.numbers:
        dates += records.numbers.pop(clock)
        return dates
    codes, texts = records.texts[clock]
    number = pd.to_numeric(texts, errors="coerce").astype(float)
    hours, minutes, seconds = number // 10_000, number // 100 % 100, number % 100
    digital = (hours * 60 + minutes) * 60 + seconds
    readings: list[pd.Series[Any]] = [
        pd.to_timedelta(texts.where(texts.str.fullmatch(r"\d{1,2}:\d\d:\d\d(\.\d*)?"))),
        pd.to_timedelta(number.where(number < 2 * 86_400), unit="s"),
    ]
    if clock.upper() in ("TIME", "TIME_UTC"):
        digital = digital.where((hours < 24) & (minutes < 60) & (seconds < 60))
        readings.append(pd.to_timedelta(digital, unit="s"))
    clocks = _only_reading(readings, file, clock)
    dates += _spread(clocks.to_numpy("timedelta64[ns]"), codes)
    return dates


def _spread(values: npt.NDArray[Any], codes: npt.NDArray[np.int32]) -> npt.NDArray[Any]:
    """Value of each code; not a time for -1."""
    spread: npt.NDArray[Any] = np.append(values, np.array("NaT", values.dtype))[codes]
    return spread


def _only_reading(readings: Sequence[pd.Series[Any]], file: Path, name: str) -> pd.Series[Any]:
    """Return the reading that fits all texts; NaT where none does, or several that differ do."""
    fitting: list[pd.Series[Any]] = [reading for reading in readings if reading.notna().all()]
    if fitting and all((reading == fitting[0]).all() for reading in fitting):
        return fitting[0]
    ways = "several ways" if fitting else "no known way"
    logger.warning("%s: %s can be read in %s, so there is no time", file, name, ways)
    return readings[0].where(readings[0].isna())
