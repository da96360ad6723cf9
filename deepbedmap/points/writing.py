"""Write picks as GeoParquet or CSV, or convert them to a GeoDataFrame."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from deepbedmap import files
from deepbedmap.errors import Fault, InvalidDataError, WrongCallError
from deepbedmap.points.picks import Lines, frame
from deepbedmap.points.survey import Survey

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping, Sequence
    from typing import IO, Any

    import geopandas as gpd

    from deepbedmap.points.picks import Settled
    from deepbedmap.points.raw_text import RawFile
    from deepbedmap.points.survey import Progress


class Written(NamedTuple):
    """Number of picks and of lines in a file."""

    picks: int
    lines: int


def write_survey(
    pipeline: str | os.PathLike[str],
    path: str | os.PathLike[str],
    season: str | Iterable[str] | None = None,
    bounds: Sequence[float] | None = None,
    progress: Progress | None = None,
) -> Written:
    """Convert the raw files of a survey to GeoParquet, block by block.

    The file has the same content as when :func:`write_points` writes the table that
    :func:`read_points` returns, but the table is never in memory: only a few blocks of the raw
    files (4 MiB each) are, whatever the size and number of the files. The file appears when it is
    complete.

    Parameters
    ----------
    pipeline, season, bounds
        As for :func:`read_points`.
    path
        File to write, with the suffix ``.parquet``.
    progress
        Called with the number of bytes of raw files read so far, and in total.

    Returns
    -------
    Written
        Number of picks and of lines.

    Raises
    ------
    InvalidDataError, MissingDataError
        As for :func:`read_points`.
    ValueError
        As for :func:`read_points`, and if the path does not end in ``.parquet``.
    """
    if Path(path).suffix != ".parquet":
        raise WrongCallError(f"picks are written block by block as .parquet, not {path}")
    survey = Survey.find(pipeline, "native", season, bounds)
    settled: dict[Path, Settled] = {}
    with files.beside(Path(path)) as part:
        while True:
            try:
                return _write_blocks(survey, part, settled, progress)
            except _OtherwiseSettledError as error:
                settled[error.raw.path] = survey.settle(error.raw)


def to_geodataframe(points: pd.DataFrame) -> gpd.GeoDataFrame:
    """Convert picks to a GeoDataFrame of points.

    Parameters
    ----------
    points
        Picks, as returned by :func:`read_points`.

    Returns
    -------
    geopandas.GeoDataFrame
        The same columns and attributes, and ``geometry``: points (x, y) in the CRS of the picks.

    Raises
    ------
    InvalidDataError
        If the picks have no CRS.

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
    """Write picks as GeoParquet or as comma-separated values, by the suffix of the path.

    Parameters
    ----------
    points
        Picks, as returned by :func:`read_points`.
    path
        ``.parquet``: all columns and attributes, which :func:`pandas.read_parquet` restores, and,
        where the picks have a CRS, points as the column ``geometry``, for
        :func:`geopandas.read_parquet` (https://geoparquet.org). ``.csv``: only the columns.

    Raises
    ------
    ValueError
        If the suffix is another one.
    """
    match Path(path).suffix:
        case ".csv":
            points.to_csv(path, index=False)
        case ".parquet":
            _write_parquet(points, path)
        case other:
            raise WrongCallError(f"picks are written as .parquet or .csv, not {other or path}")


class _OtherwiseSettledError(Exception):
    """Later records of a file contradict a decision by which earlier ones were written."""

    def __init__(self, raw: RawFile) -> None:
        super().__init__(raw.path)
        self.raw = raw


def _write_blocks(
    survey: Survey,
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
            name = file.raw.path
            now = settled.get(name, file.settled)
            if not now.follows(so_far.get(name, now)):
                raise _OtherwiseSettledError(file.raw)
            so_far[name] = now
            geoparquet.write(frame([file.finish(records, now, lines)], lines, survey.columns))
        geoparquet.finish(survey.attrs, lines)
        return Written(geoparquet.count, len(lines.names))


def _write_parquet(points: pd.DataFrame, target: str | os.PathLike[str] | IO[bytes]) -> None:
    if points.attrs.get("crs") is None:
        points.to_parquet(target, index=False)
    else:
        to_geodataframe(points).to_parquet(target, index=False)


class _GeoParquet:
    """A GeoParquet file that grows by tables of picks, equal to one by :func:`_write_parquet`.

    Its schema and metadata are taken from a table of two picks at the corners of the bounding box:
    GeoParquet's metadata holds that box, and pandas' the categories.
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
        positions = points[["x", "y"]].to_numpy()
        self._low = np.minimum(self._low, positions.min(axis=0))
        self._high = np.maximum(self._high, positions.max(axis=0))
        self.count += len(points)
        writer.write_table(self._table(points))

    def finish(self, attrs: dict[str, Any], lines: Lines) -> None:
        """Write the metadata, which depend on all picks."""
        sample = self._sample
        if len(sample):
            sample["x"], sample["y"] = np.transpose([self._low, self._high])
            sample["line"] = pd.Categorical.from_codes([0, 0], lines.names)
        sample.attrs = dict(attrs.items())
        metadata = _as_parquet(sample).metadata
        if self._writer is not None:
            self._writer.add_key_value_metadata(metadata)

    def _open(self, points: pd.DataFrame) -> pyarrow.parquet.ParquetWriter:
        self._sample = points.iloc[:0]
        self._sample.attrs = {"crs": self._crs}
        schema = _as_parquet(self._sample).schema.to_arrow_schema().remove_metadata()
        number = schema.get_field_index("line")
        line = pa.dictionary(pa.int32(), schema.field(number).type.value_type)
        self._schema = schema.set(number, schema.field(number).with_type(line))
        # Arrow reads the metadata from the schema it stores in the file. Ours are complete only
        # when all picks are written, so it must not store one.
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
    """Encode points as WKB (OGC 06-103r4), a hundred times faster than shapely does."""
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
