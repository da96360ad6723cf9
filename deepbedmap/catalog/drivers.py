"""Intake drivers of surveys: the picks of a pipeline, and their grid."""

from __future__ import annotations

import fnmatch
import glob
from pathlib import Path
from typing import TYPE_CHECKING

from intake.source.base import Schema

from deepbedmap import schemas
from deepbedmap.catalog.sources import RepositorySource, optional_bounds
from deepbedmap.errors import InvalidDataError, WrongCallError

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from typing import Any

    import dask.dataframe as dd
    import pandas as pd
    import xarray as xr

    from deepbedmap.catalog.repositories import RepositoryFile
    from deepbedmap.places import Bounds
    from deepbedmap.points.survey import Engine


class _PipelineSource(RepositorySource):
    """A survey, by its pipeline."""

    def __init__(
        self,
        pipeline: str | os.PathLike[str],
        season: str | Sequence[str] | None,
        bounds: Sequence[float] | None,
        fetch: bool,
        engine: Engine | Sequence[Engine],
        metadata: dict[str, Any] | None,
    ) -> None:
        super().__init__(pipeline, bounds, fetch, metadata)
        self._season = [season] if isinstance(season, str) else list(season or ()) or None
        self._engine: Engine = engine if isinstance(engine, str) else engine[0]

    def _find_raw(self) -> RepositoryFile:
        """Find the pipeline; fetch its raw files, or those of the season, if asked to."""
        found = self._find()
        if self._fetch:
            _, dataset = found.listed()
            pattern = _raw_pattern(found.path)
            fitting = [
                file
                for file in dataset.files
                if file.members is None
                and fnmatch.fnmatchcase(file.name, pattern)
                and self._is_of_season(file.name)
            ]
            # Names that the registry does not know are those of an archive's members.
            found.fetch(fitting or [file for file in dataset.files if file.members is not None])
        return found

    def _is_of_season(self, name: str) -> bool:
        from deepbedmap.points.survey import is_of_season

        return self._season is None or is_of_season(name, self._season)

    def _read_picks(self) -> pd.DataFrame:
        from deepbedmap.points.reading import read_points

        path = self._find_raw().path
        return read_points(path, self._engine, season=self._season, bounds=self._bounds)


def _raw_pattern(pipeline: Path) -> str:
    """Name, or glob, of the raw files that a pipeline reads."""
    pattern: str = schemas.validate_file(pipeline, "pipeline").content["pipeline"][0]["filename"]
    return pattern


class PointsSource(_PipelineSource):
    """Picks of a survey.

    Parameters
    ----------
    pipeline
        Path of a pipeline, ``<root>/highres/<name>.json``, or its address in a repository over
        http.
    season
        Raw files to read, one or several: each the name, the stem or a glob of a CReSIS season or
        of a Bedmap survey; by default all.
    bounds
        (xmin, ymin, xmax, ymax) in metres, EPSG:3031: keep the picks inside.
    geometry
        Give a GeoDataFrame.
    fetch
        Fetch the raw files first. Those of the package's own registry go where
        :func:`deepbedmap.repository.data_dir` says, those of another registry beside it.
    engine
        ``"native"`` or ``"pdal"``.
    metadata
        What a catalog says of the source.
    """

    name = "deepbedmap_points"
    container = "dataframe"

    def __init__(
        self,
        pipeline: str | os.PathLike[str],
        season: str | Sequence[str] | None = None,
        bounds: Sequence[float] | None = None,
        geometry: bool = False,
        fetch: bool = False,
        engine: Engine | Sequence[Engine] = "native",
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(pipeline, season, bounds, fetch, engine, metadata)
        self._geometry = geometry

    def read(self) -> pd.DataFrame:
        """Read the picks: a table, and errors, as of :func:`deepbedmap.points.read_points`.

        With ``geometry``, a :class:`geopandas.GeoDataFrame` of points in the survey's CRS.
        """
        picks = self._read_picks()
        if not self._geometry:
            return picks
        from deepbedmap.points.writing import to_geodataframe

        located: pd.DataFrame = to_geodataframe(picks)
        return located

    def to_dask(self) -> dd.DataFrame:
        """Give the picks as a dask table, one partition a raw file, read when it is computed.

        The smallest raw file is read at once: it tells the columns. Each partition is numbered
        from 0, and flight lines are categories that are not known before computing.
        """
        if self._geometry:
            raise WrongCallError(
                "a GeoDataFrame is read whole: read(), or to_dask() without geometry"
            )
        from dask.dataframe import from_map
        from dask.dataframe.utils import clear_known_categories

        found = self._find_raw()
        files = self._raw_files(found)
        by_size = sorted(files, key=lambda file: file.stat().st_size)
        samples = (_read_file(f.name, found.path, self._engine, self._bounds) for f in by_size)
        sample = next((picks for picks in samples if picks is not None), None)
        if sample is None:
            sample = self._read_picks()  # says which files or picks are missing
        like = sample.iloc[:0]
        table: dd.DataFrame = from_map(  # type: ignore[no-untyped-call]
            _read_file,
            [file.name for file in files],
            pipeline=found.path,
            engine=self._engine,
            bounds=self._bounds,
            like=like,
            meta=clear_known_categories(like),  # type: ignore[no-untyped-call]
        )
        return table

    def _raw_files(self, found: RepositoryFile) -> list[Path]:
        """Raw files that are here, in the order in which they are read."""
        pattern = _raw_pattern(found.path)
        for folder in found.folders:
            if files := sorted(folder.glob(pattern)):
                return [file for file in files if self._is_of_season(file.name)]
        return []

    def _get_schema(self) -> Schema:
        """Name the columns that every survey has; reading alone tells how many rows there are."""
        dtype = {"x": "float64", "y": "float64", "z": "float64", "line": "category"}
        return Schema(dtype=dtype, shape=(None, None), npartitions=1, extra_metadata={})


def _read_file(
    name: str,
    pipeline: Path,
    engine: Engine,
    bounds: Bounds | None,
    like: pd.DataFrame | None = None,
) -> pd.DataFrame | None:
    """Read the picks of one raw file; those of a file without any are ``like``."""
    from deepbedmap.points.reading import read_points

    try:
        picks = read_points(pipeline, engine, season=glob.escape(name), bounds=bounds)
    except InvalidDataError as error:
        # Among other files one without a pick is no fault.
        if [getattr(fault, "found", None) for fault in error.faults] == ["no picks"]:
            return like
        raise
    picks.attrs = {}
    return picks


class GridSource(_PipelineSource):
    """Grid of a survey's picks.

    Parameters
    ----------
    pipeline
        Path or address of a pipeline, as in :class:`PointsSource`.
    spacing, tension, max_gap, region
        As in :func:`deepbedmap.grids.grid_points`.
    season, bounds, fetch, engine
        Which picks are gridded, as in :class:`PointsSource`.
    metadata
        What a catalog says of the source.
    """

    name = "deepbedmap_grid"
    container = "xarray"

    def __init__(
        self,
        pipeline: str | os.PathLike[str],
        spacing: float = 250,
        tension: float = 0.35,
        max_gap: int = 3,
        region: Sequence[float] | None = None,
        season: str | Sequence[str] | None = None,
        bounds: Sequence[float] | None = None,
        fetch: bool = False,
        engine: Engine | Sequence[Engine] = "native",
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(pipeline, season, bounds, fetch, engine, metadata)
        self._options: dict[str, Any] = {
            "spacing": spacing,
            "tension": tension,
            "max_gap": max_gap,
            "region": optional_bounds(region, "region"),
        }

    def read(self) -> xr.DataArray:
        """Read the picks and grid them: ``z`` (y, x), float32 metres, NaN beyond the mask."""
        from deepbedmap.grids.gridding import grid_points

        return grid_points(self._read_picks(), **self._options)

    def _get_schema(self) -> Schema:
        """Say what every grid is; gridding alone tells its shape."""
        return Schema(dtype="float32", shape=(None, None), npartitions=1, extra_metadata={})
