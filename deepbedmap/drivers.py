"""intake drivers: each hands its arguments to a stage of the package and returns what that gives.

Nothing is kept between reads, so every ``read()`` returns data of its own. Text options such as
``engine`` or ``variable`` are plain arguments (``catalog.highres["2010tr_points"](engine="pdal")``)
and never parameters of a catalog: intake takes the text of a parameter for a possible shell
command, and warns that it did not run it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from intake.source.base import DataSource, Schema

from deepbedmap import registry as registries
from deepbedmap import repository
from deepbedmap.errors import Fault, InvalidDataError, MissingDataError

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd
    import xarray as xr

    from deepbedmap.rasters import Bounds
    from deepbedmap.registry import Dataset, Registry


class _Source(DataSource):  # type: ignore[misc]  # intake publishes no types
    """A file ``<root>/<folder>/<name>`` of a repository, whose registry is that of the root."""

    version = "1"
    partition_access = False

    def __init__(
        self, path: str | os.PathLike[str], fetch: bool, metadata: dict[str, Any] | None
    ) -> None:
        super().__init__(metadata=metadata)
        if "://" in str(path):
            raise ValueError(
                f"{path}: data are read from this machine; open deepbedmap.open_catalog(), "
                "or the catalog of a copy of the repository"
            )
        # A catalog names its files by way of its own folder: catalog/../highres/...
        self._path = Path(os.path.normpath(Path(path).absolute()))
        self._fetch = fetch

    def _get_partition(self, _: int) -> Any:
        return self.read()

    def _close(self) -> None:
        """Do nothing: nothing is kept open."""

    def _registered(self) -> tuple[Registry, Dataset] | None:
        """Find the dataset that the path belongs to, in the registry of its repository."""
        listing = self._path.parent.parent / "data_list.yml"
        if not listing.is_file():
            return None
        registry = registries.load(listing)
        folder, name = self._path.parent.name, self._path.name
        for dataset in registry:
            names = [file.name for file in dataset.files] if dataset.folder == folder else []
            if name in names or (folder == "highres" and name in dataset.pipelines):
                return registry, dataset
        return None

    def _fetch_if_asked(self) -> None:
        if not self._fetch:
            return
        found = self._registered()
        if found is None:
            raise MissingDataError(
                f"{self._path}: cannot be fetched, since no registry lists it; "
                f"list it in {self._path.parent.parent / 'data_list.yml'}"
            )
        from deepbedmap import download

        registry, dataset = found
        download.fetch(dataset.citekey, registry=registry, data_dir=_data_dir(registry))

    def _locate(self) -> tuple[Path, Dataset | None]:
        """Find a data file: under its path, else in its folder of ``repository.data_dir()``."""
        found = self._registered()
        if found is None:
            if not self._path.is_file():
                raise MissingDataError(f"{self._path}: no such file, and no registry lists it")
            return self._path, None
        registry, dataset = found
        name = self._path.name
        places = (self._path.parent, repository.data_dir() / dataset.folder)
        landing = _data_dir(registry) / dataset.folder
        folder = next((place for place in places if (place / name).is_file()), landing)
        for file in dataset.files:
            # A shapefile is several files: .shp, .shx and .dbf.
            part = self._path.suffix == ".shp" and Path(file.name).stem == self._path.stem
            if (part or file.name == name) and not (folder / file.name).is_file():
                raise MissingDataError(
                    f"{folder / file.name}: not there; {dataset.how_to_get(file.filename)}"
                )
        return folder / name, dataset


def _data_dir(registry: Registry) -> Path:
    """Folder under which the files of a registry land.

    What another registry lists must not get among the data of the package's own.
    """
    own = registry.root.samefile(repository.root())
    return repository.data_dir() if own else registry.root


class _PipelineSource(_Source):
    """A survey, by its pipeline."""

    def __init__(
        self,
        pipeline: str | os.PathLike[str],
        fetch: bool = False,
        engine: Literal["native", "pdal"] = "native",
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(pipeline, fetch, metadata)
        self._engine = engine

    def _read_picks(self) -> pd.DataFrame:
        from deepbedmap.points import read_points

        self._fetch_if_asked()
        return read_points(self._path, self._engine)


class PointsSource(_PipelineSource):
    """Picks of a survey.

    Parameters
    ----------
    pipeline
        Path of a pipeline, ``<root>/highres/<name>.json``.
    fetch
        Fetch the dataset first. Files of the package's own registry go where
        :func:`deepbedmap.repository.data_dir` says, those of another registry beside it.
    engine
        ``"native"`` or ``"pdal"``.
    metadata
        What a catalog says of the source.
    """

    name = "deepbedmap_points"
    container = "dataframe"

    def read(self) -> pd.DataFrame:
        """Read the picks: a table, and errors, as of :func:`deepbedmap.points.read_points`."""
        return self._read_picks()

    def _get_schema(self) -> Schema:
        """Name the columns that every survey has; reading alone tells how many rows there are."""
        dtype = {"x": "float64", "y": "float64", "z": "float64", "line": "category"}
        return Schema(dtype=dtype, shape=(None, None), npartitions=1, extra_metadata={})


class GridSource(_PipelineSource):
    """Grid of a survey's picks.

    Parameters
    ----------
    pipeline
        Path of a pipeline, ``<root>/highres/<name>.json``.
    spacing, tension, max_gap, region
        As in :func:`deepbedmap.grids.grid_points`.
    fetch
        As in :class:`PointsSource`.
    engine
        ``"native"`` or ``"pdal"``.
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
        region: Bounds | None = None,
        fetch: bool = False,
        engine: Literal["native", "pdal"] = "native",
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(pipeline, fetch, engine, metadata)
        self._options: dict[str, Any] = {
            "spacing": spacing,
            "tension": tension,
            "max_gap": max_gap,
            "region": region,
        }

    def read(self) -> xr.DataArray:
        """Read the picks and grid them: ``z`` (y, x), float32 metres, NaN beyond the mask."""
        from deepbedmap.grids import grid_points

        return grid_points(self._read_picks(), **self._options)

    def _get_schema(self) -> Schema:
        """Say what every grid is; gridding alone tells its shape."""
        return Schema(dtype="float32", shape=(None, None), npartitions=1, extra_metadata={})


class RasterSource(_Source):
    """A raster file.

    Parameters
    ----------
    path
        Path of the file, ``<root>/<folder>/<name>``; where it is not there, the file is sought
        in that folder of :func:`deepbedmap.repository.data_dir`.
    variable
        Variable of a NetCDF file, or several in the order in which they become bands. By default
        the file's only raster; of a velocity, its components along x and y.
    fetch
        As in :class:`PointsSource`.
    crs
        Coordinate reference system of a file that states none.
    metadata
        What a catalog says of the source.
    """

    name = "deepbedmap_raster"
    container = "xarray"

    def __init__(
        self,
        path: str | os.PathLike[str],
        variable: str | Sequence[str] | None = None,
        fetch: bool = False,
        crs: Any = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(path, fetch, metadata)
        self._variable = variable
        self._crs = crs

    def read(self) -> xr.DataArray:
        """Open the raster; cells are read when they are used.

        Returns
        -------
        xarray.DataArray
            As :func:`deepbedmap.rasters.open_raster` gives it; where the file does not state its
            vertical datum, with that of the registry. Several variables are bands of those names,
            chunked with dask.
        """
        from deepbedmap.rasters import open_raster, velocity_components

        self._fetch_if_asked()
        path, dataset = self._locate()
        raster = open_raster(path, self._variable or velocity_components(path), crs=self._crs)
        if dataset is not None and dataset.vertical_datum is not None:
            raster.attrs.setdefault("vertical_datum", dataset.vertical_datum)
        return raster

    def to_dask(self) -> xr.DataArray:
        """Open the raster in chunks."""
        from deepbedmap.rasters import chunked

        return chunked(self.read())

    def _get_schema(self) -> Schema:
        raster = self.read()
        return Schema(dtype=str(raster.dtype), shape=raster.shape, npartitions=1, extra_metadata={})


class VectorSource(_Source):
    """A file of outlines.

    Parameters
    ----------
    path
        Path of the file, ``<root>/<folder>/<name>``; where it is not there, the file is sought
        in that folder of :func:`deepbedmap.repository.data_dir`.
    bounds
        (xmin, ymin, xmax, ymax) in the file's own CRS: read what touches this box.
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
        bounds: Bounds | None = None,
        fetch: bool = False,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(path, fetch, metadata)
        self._bounds = bounds

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

        self._fetch_if_asked()
        path, dataset = self._locate()
        bounds = None if self._bounds is None else tuple(self._bounds)
        try:
            outlines = gpd.read_file(path, bbox=bounds, engine="pyogrio")
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
