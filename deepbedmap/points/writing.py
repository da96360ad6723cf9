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
            raise WrongCallError(f"picks are written as .parquet or .csv, not {other or path}")


class _OtherwiseSettledError(Exception):
    """Records of a file decide otherwise than those before them, which are written."""

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
            place = file.raw.path
            now = settled.get(place, file.settled)
            if not now.follows(so_far.get(place, now)):
                raise _OtherwiseSettledError(file.raw)
            so_far[place] = now
            geoparquet.write(frame([file.finish(records, now, lines)], lines, survey.columns))
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
