"""A survey pipeline and its raw text files become one table of radar picks.

A pipeline is a PDAL pipeline (https://pdal.io): ``readers.text``, ``filters.assign``,
``filters.expression`` and ``filters.reprojection`` say which columns a survey's raw files have,
which records are valid, and how they become x, y and the elevation of the bed. The native engine
runs it with pyarrow, numpy and pyproj; the engine ``"pdal"`` hands it to PDAL itself.
"""

from __future__ import annotations

import fnmatch
import functools
import io
import json
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pyproj

from deepbedmap import picks, raw_text, repository, schemas
from deepbedmap.errors import Fault, InvalidDataError, MissingDataError
from deepbedmap.picks import FilePicks, Lines, Records, Settled
from deepbedmap.pipelines import Columns, Recipe
from deepbedmap.raw_text import RawFile, UnreadableError

if TYPE_CHECKING:
    import geopandas as gpd

    from deepbedmap.registry import Dataset, Registry

logger = logging.getLogger(__name__)

Engine = Literal["native", "pdal"]

Progress = Callable[[int, int], None]

STANDARD_CSV = "bedmap3.json"
"""Pipeline that reads a Bedmap standard CSV which is named by itself."""


def read_points(
    pipeline: str | os.PathLike[str],
    engine: Engine = "native",
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

    Files are parsed and projected in blocks, by as many threads as pyarrow uses
    (``OMP_NUM_THREADS``, :func:`pyarrow.set_cpu_count`); memory is a few blocks and about twice
    the table, whatever the size of the files. :func:`write_survey` needs the blocks alone.

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
    survey = _Survey.find(pipeline, engine, season, bounds)
    lines = Lines()
    parts: list[Columns] = []
    held: list[Records] = []
    for file, records in survey.run():
        if records is not None:
            file.add(records)
            held.append(records)
            continue
        file.close()
        parts += [file.finish(each, file.settled, lines) for each in held]
        held.clear()
    points = picks.frame(parts, lines)
    points.attrs = dict(survey.attrs.items())
    return points


class Written(NamedTuple):
    """How much a file of picks holds."""

    picks: int
    lines: int


def write_survey(
    pipeline: str | os.PathLike[str],
    path: str | os.PathLike[str],
    season: str | Iterable[str] | None = None,
    bounds: Sequence[float] | None = None,
    progress: Progress | None = None,
) -> Written:
    """Picks of a survey from its raw files to GeoParquet, block by block.

    The file holds what :func:`write_points` writes of the table that :func:`read_points` gives,
    but the table is never in memory: that takes a few blocks of the raw files (4 MiB each),
    whatever their size and number. The file appears when it is complete.

    Parameters
    ----------
    pipeline, season, bounds
        As for :func:`read_points`.
    path
        A ``.parquet`` file.
    progress
        Called with the bytes of raw files that are read, and with those of all.

    Returns
    -------
    Written
        Number of picks, and of lines.

    Raises
    ------
    InvalidDataError, MissingDataError, ValueError
        As of :func:`read_points`; ValueError too if the name does not end in ``.parquet``.
    """
    if Path(path).suffix != ".parquet":
        raise ValueError(f"picks are written block by block as .parquet, not {path}")
    survey = _Survey.find(pipeline, "native", season, bounds)
    settled: dict[Path, Settled] = {}
    with repository.beside(Path(path)) as part:
        while True:
            try:
                return _write_blocks(survey, part, settled, progress)
            except _OtherwiseSettledError as error:
                settled[error.raw.path] = survey.settle(error.raw)


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
        case ".parquet":
            _write_parquet(points, path)
        case other:
            raise ValueError(f"picks are written as .parquet or .csv, not {other or path}")


def check_pipeline(pipeline: str | os.PathLike[str]) -> list[Fault]:
    """Return what is wrong with a pipeline: its form, its stages, and whether they fit together.

    Raises
    ------
    MissingDataError
        If there is no such file.
    """
    try:
        Recipe.load(Path(pipeline))
    except InvalidDataError as error:
        return [fault for fault in error.faults if isinstance(fault, Fault)]
    return []


@dataclass
class _Survey:
    """Raw files of a pipeline, and how they are read."""

    recipe: Recipe
    dataset: Dataset | None
    crs: str | None
    box: picks.Box | None
    raws: list[RawFile]
    engine: Engine
    files: list[FilePicks]

    @classmethod
    def find(
        cls,
        pipeline: str | os.PathLike[str],
        engine: Engine,
        season: str | Iterable[str] | None,
        bounds: Sequence[float] | None,
    ) -> _Survey:
        if engine not in ("native", "pdal"):
            raise ValueError(f"engine is 'native' or 'pdal', not {engine!r}")
        standard = Path(pipeline).suffix.lower() == ".csv"
        if standard and season is not None:
            raise ValueError(
                f"a season is one of a pipeline's files, and {pipeline} is no pipeline"
            )
        recipe = Recipe.load(_find_pipeline(STANDARD_CSV if standard else pipeline))
        dataset = _dataset_of_file(Path(pipeline)) if standard else _dataset_of(recipe.path)
        crs = recipe.crs or (dataset.crs if dataset else None)
        box = None if bounds is None else _box(bounds, crs)
        wanted = None if season is None else [season] if isinstance(season, str) else list(season)
        files = [Path(pipeline)] if standard else _find_files(recipe, dataset, wanted)
        raws = [RawFile.open(file, recipe, standard) for file in files]
        return cls(recipe, dataset, crs, box, raws, engine, [])

    @property
    def columns(self) -> set[str]:
        """Names of the columns of the table, by the native engine."""
        layouts = [raw.layout for raw in self.raws]
        columns = {"x", "y", "z", "line"}
        columns |= {"quality"} if any(layout.named("QUALITY") for layout in layouts) else set()
        columns |= {"time"} if any(layout.day_and_clock for layout in layouts) else set()
        return columns | ({"bed_inferred"} if self.recipe.inferred else set())

    @property
    def attrs(self) -> dict[str, Any]:
        """Attributes of the table, once all files are read."""
        return {
            "crs": self.crs,
            "vertical_datum": self.dataset.vertical_datum if self.dataset else None,
            "sources": [
                {
                    "file": file.raw.path.name,
                    "sha256": file.digest.hexdigest(),
                    "pipeline": self.recipe.path.name,
                    "pipeline_sha256": self.recipe.sha256,
                    "citekey": self.dataset.citekey if self.dataset else None,
                    **({"header": file.raw.said} if file.raw.said else {}),
                }
                for file in self.files
            ],
        }

    def settle(self, raw: RawFile) -> Settled:
        """Read a whole file for what its records decide together."""
        alone = replace(self, raws=[raw])
        for file, records in alone.run():
            if records is not None:
                file.add(records)
        return alone.files[0].settled

    def run(self, progress: Progress | None = None) -> Iterator[tuple[FilePicks, Records | None]]:
        """Records of all files in order, and None at the end of each."""
        polar = _is_polar(self.crs)
        native = self.engine == "native"
        self.files = [FilePicks(raw, self.recipe, polar, self.box, native) for raw in self.raws]
        total, done = sum(raw.path.stat().st_size for raw in self.raws), 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            if progress is not None:
                progress(done, total)

        def blocks() -> Iterator[tuple[FilePicks, bytes | None]]:
            for file in self.files:
                for block in file.raw.blocks(file.digest, advance):
                    yield file, block
                yield file, None

        def work(file: FilePicks, block: bytes) -> Records:
            try:
                count, numbers, texts = file.raw.parse(block)
            except UnicodeDecodeError:
                raise file.raw.undecodable() from None
            except UnreadableError as error:
                raise file.raw.unreadable(error) from None
            kept = self.recipe.run(numbers, count)
            return Records.of(numbers, texts, kept, file.raw, self.recipe, polar)

        if native:
            threads = pa.cpu_count() if total > raw_text.BLOCK else 0
            yield from _in_order(work, blocks(), threads)
        else:
            for file, block in blocks():
                if block is None:
                    numbers = _run_pdal(file.raw, self.recipe)
                    kept = np.ones(len(numbers["X"]), dtype=bool)
                    yield file, Records.of(numbers, {}, kept, file.raw, self.recipe, polar)
                    yield file, None
        if not any(file.count for file in self.files):
            raise InvalidDataError(
                Fault(
                    ", ".join(str(raw.path) for raw in self.raws),
                    expected=f"at least one record that {self.recipe.path.name} keeps",
                    found="no picks",
                )
            )


def _in_order(
    work: Callable[[FilePicks, bytes], Records],
    blocks: Iterator[tuple[FilePicks, bytes | None]],
    threads: int,
) -> Iterator[tuple[FilePicks, Records | None]]:
    """Records of blocks in order, by some threads, each with one block in memory."""
    if not threads:  # not worth one, and a projection for it
        yield from ((file, None if block is None else work(file, block)) for file, block in blocks)
        return
    running: deque[tuple[FilePicks, Future[Records] | None]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for file, block in blocks:
            running.append((file, None if block is None else pool.submit(work, file, block)))
            del block
            while len(running) > threads:
                first, future = running.popleft()
                yield first, None if future is None else future.result()
        for first, future in running:
            yield first, None if future is None else future.result()


class _OtherwiseSettledError(Exception):
    """Records of a file decide otherwise than those before them, which are written."""

    def __init__(self, raw: RawFile) -> None:
        super().__init__(raw.path)
        self.raw = raw


def _write_blocks(
    survey: _Survey,
    path: Path,
    settled: Mapping[Path, Settled],
    progress: Progress | None,
) -> Written:
    lines = Lines()
    so_far: dict[Path, Settled] = {}
    with _GeoParquet(path, survey.crs) as geoparquet:
        for file, records in survey.run(progress):
            if records is None:
                file.close()
                continue
            file.add(records)
            place = file.raw.path
            now = settled.get(place, file.settled)
            if not now.follows(so_far.get(place, now)):
                raise _OtherwiseSettledError(file.raw)
            so_far[place] = now
            geoparquet.write(picks.frame([file.finish(records, now, lines)], lines, survey.columns))
        geoparquet.finish(survey.attrs, lines)
        return Written(geoparquet.count, len(lines.names))


def _write_parquet(points: pd.DataFrame, target: str | os.PathLike[str] | IO[bytes]) -> None:
    if points.attrs.get("crs") is None:
        points.to_parquet(target, index=False)
    else:
        to_geodataframe(points).to_parquet(target, index=False)


class _GeoParquet:
    """A GeoParquet file that grows by tables of picks, as :func:`_write_parquet` writes one.

    Its schema, and what it says of all picks, are those of a table with the corners of their box.
    """

    def __init__(self, path: Path, crs: str | None) -> None:
        self.count = 0
        self._path = path
        self._crs = crs
        self._writer: pyarrow.parquet.ParquetWriter | None = None
        self._sample = pd.DataFrame()
        self._low = np.full(2, np.inf)
        self._high = np.full(2, -np.inf)

    def __enter__(self) -> _GeoParquet:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, points: pd.DataFrame) -> None:
        """Write a row group."""
        writer = self._writer or self._open(points)
        if not len(points):
            return
        if not self.count:
            self._sample = points.iloc[[0, 0]].reset_index(drop=True)
        places = points[["x", "y"]].to_numpy()
        self._low = np.minimum(self._low, places.min(axis=0))
        self._high = np.maximum(self._high, places.max(axis=0))
        self.count += len(points)
        writer.write_table(self._table(points))

    def finish(self, attrs: dict[str, Any], lines: Lines) -> None:
        """Say what is known in the end."""
        sample = self._sample
        if len(sample):
            sample["x"], sample["y"] = np.transpose([self._low, self._high])
            sample["line"] = pd.Categorical.from_codes([0, 0], lines.names)
        sample.attrs = dict(attrs.items())
        said = _as_parquet(sample).metadata
        if self._writer is not None:
            self._writer.add_key_value_metadata(said)

    def _open(self, points: pd.DataFrame) -> pyarrow.parquet.ParquetWriter:
        self._sample = points.iloc[:0]
        self._sample.attrs = {"crs": self._crs}
        schema = _as_parquet(self._sample).schema.to_arrow_schema().remove_metadata()
        place = schema.get_field_index("line")
        line = pa.dictionary(pa.int32(), schema.field(place).type.value_type)
        self._schema = schema.set(place, schema.field(place).with_type(line))
        # Arrow takes what a file says from the schema in it, which is known in the end alone.
        self._writer = pyarrow.parquet.ParquetWriter(
            self._path, self._schema, store_schema=False, use_dictionary=["line", "quality"]
        )
        return self._writer

    def _table(self, points: pd.DataFrame) -> pa.Table:
        line = self._schema.field("line").type
        columns: dict[str, pa.Array] = {
            "line": pa.DictionaryArray.from_arrays(
                pa.array(points["line"].cat.codes, line.index_type),
                pa.array(points["line"].cat.categories, line.value_type),
            ),
            "geometry": _well_known_binary(points),
        }
        arrays = [
            columns[field.name]
            if field.name in columns
            else pa.array(points[field.name], field.type, from_pandas=True)
            for field in self._schema
        ]
        return pa.Table.from_arrays(arrays, schema=self._schema)


def _well_known_binary(points: pd.DataFrame) -> pa.Array:
    """Points of a map as OGC 06-103r4 has them (shapely does it a hundred times more slowly)."""
    form = np.dtype([("order", "u1"), ("type", "<u4"), ("x", "<f8"), ("y", "<f8")])
    records = np.empty(len(points), form)
    records["order"] = records["type"] = 1
    records["x"], records["y"] = points["x"], points["y"]
    fixed = pa.binary(form.itemsize)
    return pa.Array.from_buffers(fixed, len(points), [None, pa.py_buffer(records)]).cast(
        pa.binary()
    )


def _as_parquet(points: pd.DataFrame) -> pyarrow.parquet.FileMetaData:
    file = io.BytesIO()
    _write_parquet(points, file)
    return pyarrow.parquet.read_metadata(io.BytesIO(file.getvalue()))


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
    listing = pipeline.absolute().parent.parent / "data_list.yml"
    return _registry(listing).for_pipeline(pipeline.name) if listing.is_file() else None


def _dataset_of_file(path: Path) -> Dataset | None:
    """Entry of a raw file in the registry beside its folder or, without one, in the package's."""
    listing = path.absolute().parent.parent / "data_list.yml"
    return next(
        (
            dataset
            for dataset in _registry(
                listing if listing.is_file() else repository.root() / "data_list.yml"
            )
            for file in dataset.files
            if path.name == file.name or fnmatch.fnmatchcase(path.name, file.members or "")
        ),
        None,
    )


def _registry(listing: Path) -> Registry:
    """Registry as the file has it now: loading it takes longer than reading a small raw file."""
    return _load(listing, listing.stat().st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _load(listing: Path, _modified: int) -> Registry:
    from deepbedmap import registry

    return registry.load(listing)


def _box(bounds: Sequence[float], crs: str | None) -> picks.Box:
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


def _find_files(
    recipe: Recipe, dataset: Dataset | None, wanted: Sequence[str] | None
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
        dataset = _dataset_of(repository.root() / "highres" / recipe.path.name)
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


def _run_pdal(raw: RawFile, recipe: Recipe) -> Columns:
    """Columns of the records that PDAL keeps, all numbers, without those that it had as text."""
    try:
        import pdal
    except ImportError:
        raise MissingDataError(
            "engine 'pdal' needs python-pdal, which is not here; "
            "get it with `conda install -c conda-forge python-pdal`, or use engine 'native'"
        ) from None
    layout, own = raw.layout, recipe.own_layout
    if own and not own.fits(layout):
        raise InvalidDataError(
            Fault(
                str(raw.path),
                line=layout.skip,
                expected=f"for engine 'pdal' {own.skip} lines, and then {own}",
                found=f"{layout.skip} lines, and then {layout}",
                remedy="use engine 'native', which goes by the names of the columns",
            )
        )
    stages = [{**recipe.reader, "filename": str(raw.path.absolute())}, *recipe.filters]
    pipeline = pdal.Pipeline(json.dumps(stages))
    try:
        pipeline.execute()
    except RuntimeError as error:
        found = f"an error of PDAL's: {error}"
        raise InvalidDataError(Fault(str(raw.path), found=found)) from error
    records = np.concatenate(pipeline.arrays)
    columns = {name: records[name].astype(np.float64) for name in records.dtype.names or ()}
    for name in (layout.line, *(layout.day_and_clock or ())):
        if name in columns and not columns[name].any():
            del columns[name]
    return columns
