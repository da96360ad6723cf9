"""intake drivers: each hands its arguments to a stage of the package and returns what that gives.

Nothing is kept between reads, so every ``read()`` returns data of its own. What every driver does
with its file: it is found in the repository of its catalog, on this machine or over http; it is
fetched first where that is asked for; a dataset that is superseded or retired is read with a
warning that names its successor, and one that is withdrawn is refused.

intake 2.0.9 takes every parameter that is text for a shell command, and warns that it does not run
it. So no parameter of our catalogs is text: ``season`` and ``engine`` are lists there, and a user's
text (``source(season="2011_*", engine="pdal")``) is put into one before intake sees it.
"""

from __future__ import annotations

import fnmatch
import functools
import glob
import hashlib
import logging
import os
import posixpath
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, urlsplit

from intake.source.base import DataSource, Schema

import deepbedmap
from deepbedmap import receipts, repository, schemas
from deepbedmap import registry as registries
from deepbedmap.errors import DownloadError, Fault, InvalidDataError, MissingDataError

if TYPE_CHECKING:
    import dask.dataframe as dd
    import geopandas as gpd
    import pandas as pd
    import xarray as xr

    from deepbedmap.rasters import Bounds
    from deepbedmap.registry import Dataset, File, Registry

logger = logging.getLogger(__name__)

LARGEST_TEXT = 2**23
"""Bytes that a registry or a pipeline of a repository over http may have; ours has 2**18."""

TIMEOUT = 30
"""Seconds of silence after which a server of a repository is given up."""

Engine = Literal["native", "pdal"]


@dataclass(frozen=True)
class _Found:
    """A file ``<root>/<folder>/<name>`` of a repository, and what the registry there says of it."""

    path: Path
    registry: Registry | None = None
    dataset: Dataset | None = None

    @property
    def folders(self) -> tuple[Path, ...]:
        """Where data files are sought, in order."""
        if self.dataset is None:
            return (self.path.parent,)
        return (self.path.parent, repository.data_dir() / self.dataset.folder)

    def listed(self) -> tuple[Registry, Dataset]:
        """Return the registry and the dataset; without them nothing can be fetched."""
        if self.registry is None or self.dataset is None:
            raise MissingDataError(
                f"{self.path}: cannot be fetched, since no registry lists it; "
                f"list it in {self.path.parent.parent / 'data_list.yml'}"
            )
        return self.registry, self.dataset

    def fetch(self, files: Iterable[File]) -> None:
        from deepbedmap import download

        registry, dataset = self.listed()
        names = [f"{dataset.folder}/{file.filename}" for file in files]
        download.fetch(names, registry=registry, data_dir=_data_dir(registry))


def _data_dir(registry: Registry) -> Path:
    """Folder under which the files of a registry land.

    What another registry lists must not get among the data of the package's own.
    """
    own = registry.root.samefile(repository.root())
    return repository.data_dir() if own else registry.root


class _Source(DataSource):  # type: ignore[misc]  # intake publishes no types
    """A file ``<root>/<folder>/<name>`` of a repository, whose registry is that of the root."""

    version = "1"
    partition_access = False

    def __init__(
        self,
        path: str | os.PathLike[str],
        bounds: Sequence[float] | None,
        fetch: bool,
        metadata: dict[str, Any] | None,
    ) -> None:
        super().__init__(metadata=metadata)
        self._given = os.fspath(path)
        self._bounds = _box(bounds, "bounds")
        self._fetch = fetch

    def configure_new(self, **parameters: Any) -> Any:
        """Return this source with other parameters; None stands for a parameter's default.

        intake writes parameters as text and reads them again, which None and numpy's numbers do
        not survive, and which makes letters of a text where a list is declared.
        """
        declared = self.describe()["user_parameters"] if self._entry is not None else []
        for parameter in declared:
            name = parameter["name"]
            if name not in parameters:
                continue
            if parameters[name] is None:
                parameters[name] = parameter.get("default")
            elif name in ("bounds", "region"):
                parameters[name] = list(_box(parameters[name], name) or ())
            elif parameter["type"] == "list" and isinstance(parameters[name], str):
                parameters[name] = [parameters[name]]
        return super().configure_new(**parameters)

    __call__ = get = configure_new

    def _find(self) -> _Found:
        """Find the file in its repository, and the dataset it belongs to; heed its status."""
        # A catalog names its files by way of its own folder: catalog/../highres/...
        remote = "://" in self._given
        if remote:
            path = _mirrored(self._given)
        else:
            path = Path(os.path.normpath(Path(self._given).absolute()))
        listing = path.parent.parent / "data_list.yml"
        if not listing.is_file():
            return _Found(path)
        registry = _load(listing, listing.stat().st_mtime_ns)
        if remote:
            _refuse_local_files(registry, self._given)
        folder = path.parent.name
        for dataset in registry:
            names = [*dataset.pipelines] if folder == "highres" else []
            if dataset.folder == folder:
                names += [
                    file.filename if file.members is not None else file.name
                    for file in dataset.files
                ]
            if path.name in names:
                _heed_status(dataset, listing)
                return _Found(path, registry, dataset)
        return _Found(path)

    def _get_partition(self, _: int) -> Any:
        return self.read()

    def _close(self) -> None:
        """Do nothing: nothing is kept open."""


@functools.lru_cache(maxsize=4)
def _load(listing: Path, _modified: int) -> Registry:
    return registries.load(listing)


def _heed_status(dataset: Dataset, listing: Path) -> None:
    if dataset.status in ("superseded", "retired"):
        successor = f"; {dataset.superseded_by} replaces it" if dataset.superseded_by else ""
        logger.warning("%s is %s%s", dataset.citekey, dataset.status, successor)
    elif dataset.status == "withdrawn":
        from deepbedmap import download

        download.refuse_withdrawn(dataset, listing)


def _box(bounds: Sequence[float] | None, name: str) -> Bounds | None:
    """Check bounds; none at all (None or an empty list) are None."""
    if bounds is None or (isinstance(bounds, list) and not bounds):
        return None
    try:
        xmin, ymin, xmax, ymax = map(float, bounds)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be four numbers, not {bounds!r}") from None
    if not (xmin < xmax and ymin < ymax):
        raise ValueError(
            f"{name} must be (xmin, ymin, xmax, ymax) with xmin < xmax and ymin < ymax, "
            f"not {(xmin, ymin, xmax, ymax)}"
        )
    return xmin, ymin, xmax, ymax


def _mirrored(url: str) -> Path:
    """Copy what a repository over http says of one of its files; return the file's place there.

    Only text is copied, the registry and the pipeline, and read as any other; the copies stand in
    the user's cache folder (or under ``$DEEPBEDMAP_DATA_DIR``), by the root's URL.
    """
    parts = urlsplit(url)
    *above, folder, name = ["", *posixpath.normpath(parts.path).split("/")]
    if (
        parts.scheme not in ("http", "https")
        or folder not in ("highres", "lowres", "misc")
        or not re.fullmatch(r"[^./\\:\s][^/\\:\x00-\x1f]*", name)
    ):
        raise InvalidDataError(
            Fault(
                url,
                expected="an address http(s)://<root>/<folder>/<name>, with the folder highres, "
                "lowres or misc",
                found="another",
                remedy="open the catalog of a copy of the repository on this machine",
            )
        )
    address = f"{parts.scheme}://{parts.netloc}{'/'.join(above[1:])}"
    copy = _cache() / "repositories" / hashlib.sha256(address.encode()).hexdigest()[:16]
    _copy_text(f"{address}/data_list.yml", copy / "data_list.yml")
    if folder == "highres" and name.endswith(".json"):
        _copy_text(f"{address}/{folder}/{quote(name)}", copy / folder / name)
    return copy / folder / name


def _cache() -> Path:
    if os.environ.get("DEEPBEDMAP_DATA_DIR"):
        return repository.data_dir()
    from platformdirs import user_cache_path

    return user_cache_path("deepbedmap", appauthor=False)


def _copy_text(url: str, place: Path) -> None:
    """Copy a text file from a server that itself has it: it may not send on to another."""
    import requests

    headers = {"User-Agent": f"deepbedmap/{deepbedmap.__version__}"}
    try:
        with requests.get(
            url, headers=headers, timeout=TIMEOUT, stream=True, allow_redirects=False
        ) as answer:
            if answer.is_redirect:
                raise DownloadError(
                    f"{url}: the server sends on to {answer.headers['Location']}; "
                    "open the catalog from there"
                )
            if answer.status_code != requests.codes.ok:
                found = f"{answer.status_code} {answer.reason}"
                raise DownloadError(f"{url}: the server answers {found}")
            text = b""
            for chunk in answer.iter_content(2**16):
                text += chunk
                if len(text) > LARGEST_TEXT:
                    raise DownloadError(f"{url}: larger than {LARGEST_TEXT:,} bytes")
    except requests.Timeout as error:
        raise DownloadError(f"{url}: no answer for {TIMEOUT} s") from error
    except requests.RequestException as error:
        host = urlsplit(url).netloc
        raise DownloadError(f"{url}: no connection to {host}, or it broke") from error
    if place.is_file() and place.read_bytes() == text:
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    with repository.beside(place) as part:
        part.write_bytes(text)


def _refuse_local_files(registry: Registry, url: str) -> None:
    """Refuse a registry from elsewhere that names files of this machine."""
    for dataset in registry:
        for file in dataset.files:
            if any(urlsplit(address).scheme == "file" for address in file.urls):
                raise InvalidDataError(
                    Fault(
                        f"data_list.yml of {url}",
                        entry=dataset.citekey,
                        field=f"files.{file.filename}",
                        expected="a URL of http, https or ftp, in a repository over http",
                        found="a file: URL",
                    )
                )


class _PipelineSource(_Source):
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

    def _find_raw(self) -> _Found:
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
        return self._season is None or any(
            fnmatch.fnmatchcase(known, season)
            for known in (name, Path(name).stem)
            for season in self._season
        )

    def _read_picks(self) -> pd.DataFrame:
        from deepbedmap.points import read_points

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
        from deepbedmap.points import to_geodataframe

        located: pd.DataFrame = to_geodataframe(picks)
        return located

    def to_dask(self) -> dd.DataFrame:
        """Give the picks as a dask table, one partition a raw file, read when it is computed.

        The smallest raw file is read at once: it tells the columns. Each partition is numbered
        from 0, and flight lines are categories that are not known before computing.
        """
        if self._geometry:
            raise ValueError("a GeoDataFrame is read whole: read(), or to_dask() without geometry")
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

    def _raw_files(self, found: _Found) -> list[Path]:
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
    from deepbedmap.points import read_points

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
            "region": _box(region, "region"),
        }

    def read(self) -> xr.DataArray:
        """Read the picks and grid them: ``z`` (y, x), float32 metres, NaN beyond the mask."""
        from deepbedmap.grids import grid_points

        return grid_points(self._read_picks(), **self._options)

    def _get_schema(self) -> Schema:
        """Say what every grid is; gridding alone tells its shape."""
        return Schema(dtype="float32", shape=(None, None), npartitions=1, extra_metadata={})


class _FileSource(_Source):
    """A raster or outlines, by their file."""

    def _locate(self) -> tuple[Path, Dataset | None]:
        """Find the file: under its path, else in its folder of ``repository.data_dir()``."""
        found = self._find()
        name, dataset = found.path.name, found.dataset
        # A shapefile is several files: .shp, .shx and .dbf.
        stem = found.path.stem if found.path.suffix == ".shp" else None
        files = [
            file
            for file in (dataset.files if dataset else ())
            if name in (file.name, file.filename) or Path(file.name).stem == stem
        ]
        if self._fetch:
            found.fetch(files)
        if found.registry is None or dataset is None:
            if not found.path.is_file():
                raise MissingDataError(f"{found.path}: no such file, and no registry lists it")
            return found.path, None
        members = any(file.members is not None for file in files)
        landing = _data_dir(found.registry) / dataset.folder
        marks = [
            (place, receipts.path_of(place / name) if members else place / name)
            for place in found.folders
        ]
        folder = next((place for place, mark in marks if mark.is_file()), landing)
        if members:
            return _only_member(dataset, name, folder), dataset
        for file in files:
            if not (folder / file.name).is_file():
                raise MissingDataError(
                    f"{folder / file.name}: not there; {dataset.how_to_get(file.filename)}"
                )
        return folder / name, dataset


def _only_member(dataset: Dataset, archive: str, folder: Path) -> Path:
    """Find what came out of an archive whose members' names the registry does not know."""
    from deepbedmap import download

    paths = download.locate(dataset, folder.parent, archive)
    if len(paths) != 1:
        raise InvalidDataError(
            Fault(
                str(folder / archive),
                expected="one file that fits `members` of data_list.yml",
                found=", ".join(path.name for path in paths),
                remedy="open one of them by its path, or make the pattern narrower",
            )
        )
    return paths[0]


class RasterSource(_FileSource):
    """A raster file.

    Parameters
    ----------
    path
        Path of the file, ``<root>/<folder>/<name>``, or its address in a repository over http;
        where it is not there, the file is sought in that folder of
        :func:`deepbedmap.repository.data_dir`. Of an archive whose members' names nobody wrote
        down, the one that fits.
    variable
        Variable of a NetCDF file, or several in the order in which they become bands. By default
        the file's only raster; of a velocity, its components along x and y.
    bounds
        (xmin, ymin, xmax, ymax) in the CRS of the file: keep the cells whose centres are inside.
    fetch
        As in :class:`PointsSource`.
    crs
        Coordinate reference system of a file that states none; by default the registry's.
    metadata
        What a catalog says of the source.
    """

    name = "deepbedmap_raster"
    container = "xarray"

    def __init__(
        self,
        path: str | os.PathLike[str],
        variable: str | Sequence[str] | None = None,
        bounds: Sequence[float] | None = None,
        fetch: bool = False,
        crs: Any = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(path, bounds, fetch, metadata)
        self._variable = variable
        self._crs = crs

    def read(self) -> xr.DataArray:
        """Open the raster; cells are read when they are used.

        Returns
        -------
        xarray.DataArray
            As :func:`deepbedmap.rasters.open_raster` gives it; where the file does not state its
            CRS or its vertical datum, with that of the registry. Several variables are bands of
            those names, chunked with dask.

        Raises
        ------
        InvalidDataError
            The file cannot be read, or no cell lies within the bounds.
        MissingDataError
            The file is not there; the message says which command, or which person, gets it.
        """
        path, dataset = self._locate()
        raster = self._open(path, dataset)
        if dataset is not None and dataset.vertical_datum is not None:
            raster.attrs.setdefault("vertical_datum", dataset.vertical_datum)
        return raster if self._bounds is None else _clipped(raster, self._bounds)

    def _open(self, path: Path, dataset: Dataset | None) -> xr.DataArray:
        from deepbedmap.rasters import open_raster, velocity_components

        variable = self._variable or velocity_components(path)
        try:
            return open_raster(path, variable, crs=self._crs)
        except InvalidDataError as error:
            fault = error.faults[0]
            unstated = isinstance(fault, Fault) and (fault.field, fault.found) == ("crs", "none")
            if not unstated or dataset is None or dataset.crs is None:
                raise
            return open_raster(path, variable, crs=dataset.crs)

    def to_dask(self) -> xr.DataArray:
        """Open the raster in chunks."""
        from deepbedmap.rasters import chunked

        return chunked(self.read())

    def _get_schema(self) -> Schema:
        raster = self.read()
        return Schema(dtype=str(raster.dtype), shape=raster.shape, npartitions=1, extra_metadata={})


def _clipped(raster: xr.DataArray, bounds: Bounds) -> xr.DataArray:
    """Cells whose centres lie within bounds; none is read."""
    import numpy as np

    from deepbedmap.rasters import bounds_of, name_of

    xmin, ymin, xmax, ymax = bounds
    window = {}
    for dim, low, high in (("x", xmin, xmax), ("y", ymin, ymax)):
        centres = raster[dim].to_numpy()
        inside = np.flatnonzero((centres >= low) & (centres <= high))
        if inside.size == 0:
            raise InvalidDataError(
                Fault(
                    name_of(raster),
                    field="bounds",
                    expected=f"a box around centres of cells, which lie in {bounds_of(raster)}",
                    found=str(bounds),
                )
            )
        window[dim] = slice(int(inside[0]), int(inside[-1]) + 1)
    encoding = raster.encoding
    clipped = raster.isel(window)
    clipped.encoding = encoding
    return clipped


class VectorSource(_FileSource):
    """A file of outlines.

    Parameters
    ----------
    path
        Path or address of the file, as in :class:`RasterSource`.
    bounds
        (xmin, ymin, xmax, ymax) in the CRS of the file: read what touches this box.
    fetch
        As in :class:`PointsSource`.
    metadata
        What a catalog says of the source.
    """

    name = "deepbedmap_vector"
    container = "dataframe"

    def __init__(
        self,
        path: str | os.PathLike[str],
        bounds: Sequence[float] | None = None,
        fetch: bool = False,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(path, bounds, fetch, metadata)

    def read(self) -> gpd.GeoDataFrame:
        """Read the outlines.

        Returns
        -------
        geopandas.GeoDataFrame
            In the file's CRS; where it states none, in that of the registry.

        Raises
        ------
        InvalidDataError
            The file cannot be read, or neither it nor the registry states a CRS.
        MissingDataError
            A file is not there; the message says which command, or which person, gets it.
        """
        import geopandas as gpd
        from pyogrio.errors import DataSourceError  # type: ignore[import-untyped]

        path, dataset = self._locate()
        try:
            outlines = gpd.read_file(path, bbox=self._bounds, engine="pyogrio")
        except DataSourceError as error:
            raise InvalidDataError(
                Fault(
                    str(path),
                    expected="a file of outlines",
                    found=f"one that cannot be read ({error})",
                    remedy="move it away, and fetch it again",
                )
            ) from error
        if outlines.crs is None:
            if dataset is None or dataset.crs is None:
                raise InvalidDataError(
                    Fault(
                        str(path),
                        field="crs",
                        expected="a coordinate reference system",
                        found="none",
                        remedy="put a .prj file beside it, or state the crs in data_list.yml",
                    )
                )
            outlines = outlines.set_crs(dataset.crs)
        return outlines

    def _get_schema(self) -> Schema:
        outlines = self.read()
        return Schema(
            dtype=outlines.dtypes.astype(str).to_dict(),
            shape=outlines.shape,
            npartitions=1,
            extra_metadata={},
        )


class _MadeSource(_Source):
    """A dataset that a command of this package makes on this machine."""

    container = "xarray"
    _command: str

    def __init__(
        self, path: str | os.PathLike[str], metadata: dict[str, Any] | None = None
    ) -> None:
        super().__init__(path, None, False, metadata)

    def read(self) -> xr.Dataset:
        """Open the dataset; cells are read when they are used."""
        raise NotImplementedError

    def to_dask(self) -> xr.Dataset:
        """Open the dataset, as :meth:`read` does."""
        return self.read()

    def _made(self, *suffixes: str) -> Path:
        """Find what was made: under its path, else in its folder of the data folder."""
        if "://" in self._given:
            raise InvalidDataError(
                Fault(
                    self._given,
                    expected=f"what `deepbedmap {self._command}` made on this machine",
                    found="an address",
                    remedy="make it here",
                )
            )
        path = Path(os.path.normpath(Path(self._given).absolute()))
        elsewhere = repository.data_dir() / path.parent.name / path.name
        places = [place.with_suffix(s) for place in (path, elsewhere) for s in suffixes]
        return next((place for place in places if place.exists()), elsewhere)

    def _get_schema(self) -> Schema:
        dataset = self.read()
        return Schema(
            dtype={name: str(variable.dtype) for name, variable in dataset.data_vars.items()},
            shape={name: variable.shape for name, variable in dataset.data_vars.items()},
            npartitions=1,
            extra_metadata={},
        )


class TilesSource(_MadeSource):
    """A training set.

    Parameters
    ----------
    path
        Path of the store, ``<root>/training/<name>.zarr``; where it is not there, it is sought in
        ``training/`` of :func:`deepbedmap.repository.data_dir`.
    metadata
        What a catalog says of the source.
    """

    name = "deepbedmap_tiles"
    _command = "tiles"

    def read(self) -> xr.Dataset:
        """Open the training set; tiles are read when they are used.

        Returns
        -------
        xarray.Dataset
            As of :func:`deepbedmap.training_sets.open_training_set`, and the errors too.
        """
        from deepbedmap.training_sets import open_training_set

        return open_training_set(self._made(".zarr"))


class ProductSource(_MadeSource):
    """A bed with all that belongs to it.

    Parameters
    ----------
    path
        Path of the product, ``<root>/products/<name>.zarr``, or of the ``.nc`` of that name; where
        neither is there, they are sought in ``products/`` of
        :func:`deepbedmap.repository.data_dir`.
    metadata
        What a catalog says of the source.
    """

    name = "deepbedmap_product"
    _command = "predict"

    def read(self) -> xr.Dataset:
        """Open the product; cells are read when they are used.

        Returns
        -------
        xarray.Dataset
            As of :func:`deepbedmap.products.open_product`, and the errors too.
        """
        from deepbedmap.products import open_product

        return open_product(self._made(".zarr", ".nc"))
