"""Intake drivers of files: rasters, outlines, training sets and bed products."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from intake.source.base import Schema

from deepbedmap.catalog.repositories import data_dir_of
from deepbedmap.catalog.sources import RepositorySource
from deepbedmap.download.receipts import path_of
from deepbedmap.errors import Fault, InvalidDataError, MissingDataError
from deepbedmap.repository import data_dir

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    import geopandas as gpd
    import xarray as xr

    from deepbedmap.places import Bounds
    from deepbedmap.registry.records import Dataset


class _FileSource(RepositorySource):
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
        landing = data_dir_of(found.registry) / dataset.folder
        marks = [
            (place, path_of(place / name) if members else place / name) for place in found.folders
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
        from deepbedmap.rasters.opening import open_raster, velocity_components

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
        from deepbedmap.rasters.opening import chunked

        return chunked(self.read())

    def _get_schema(self) -> Schema:
        raster = self.read()
        return Schema(dtype=str(raster.dtype), shape=raster.shape, npartitions=1, extra_metadata={})


def _clipped(raster: xr.DataArray, bounds: Bounds) -> xr.DataArray:
    """Cells whose centres lie within bounds; none is read."""
    import numpy as np

    from deepbedmap.rasters.lattice import bounds_of, name_of

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


class _MadeSource(RepositorySource):
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
        elsewhere = data_dir() / path.parent.name / path.name
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
            As of :func:`deepbedmap.tiles.open_training_set`, and the errors too.
        """
        from deepbedmap.tiles import open_training_set

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
        from deepbedmap.products.storing import open_product

        return open_product(self._made(".zarr", ".nc"))
