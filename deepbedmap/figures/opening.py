"""Open whatever a quick look is drawn from: entries of the catalog, and files, by name.

Rasters are opened at the overview that is fine enough for a figure.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import rasterio
import rioxarray
import xarray as xr
from pyproj import CRS

from deepbedmap import rasters
from deepbedmap.catalog.drivers import PointsSource
from deepbedmap.catalog.raster_drivers import ProductSource, RasterSource, TilesSource, VectorSource
from deepbedmap.errors import (
    Fault,
    InvalidDataError,
    MissingDataError,
    WrongCallError,
    did_you_mean,
)
from deepbedmap.figures.cells import MOST
from deepbedmap.figures.overview import MOST_LAYERS
from deepbedmap.figures.pick_tables import read_picks, survey_picks

if TYPE_CHECKING:
    import os
    from typing import Any

    from intake.source.base import DataSource

    from deepbedmap.places import Bounds

logger = logging.getLogger(__name__)

RASTERS = (".tif", ".tiff", ".vrt", ".nc", ".nc4", ".h5", ".zarr")
TABLES = (".csv", ".parquet", ".json")
OUTLINES = (".geojson", ".gpkg", ".shp")
_SECTIONS = ("highres", "lowres", "misc", "training", "products")
_LAYERS = ("vx", "vy", "bed", "bed_topography", "z")  # of many, those first


class Opened(NamedTuple):
    """What is drawn, and what is said of it.

    Attributes
    ----------
    data
        A raster, a dataset, picks or outlines, as :func:`deepbedmap.figures.quick_look` draws them.
    title
        Name of the file or of the entry.
    source
        Citation of an entry, or the file's name; CRS and vertical datum, where these are stated.
    """

    data: Any
    title: str
    source: str


def open_data(
    name: str | os.PathLike[str],
    variable: str | None = None,
    bounds: Bounds | None = None,
    crs: str | None = None,
) -> Opened:
    """Open a file, or an entry of the catalog, for a quick look.

    Parameters
    ----------
    name
        Path of a raster (``.tif``, ``.nc``, ``.zarr``), of picks (``.csv``, ``.parquet``, a
        pipeline), of outlines (``.geojson``, ``.gpkg``, ``.shp``), of a training set or a product;
        or the name of an entry of the catalog, alone or with its section
        (``"products/bed"``), or the citekey of a dataset that has one entry.
    variable
        Of a file with several; by default all, at most
        :data:`deepbedmap.figures.overview.MOST_LAYERS`.
    bounds
        (xmin, ymin, xmax, ymax) in the CRS of the data.
    crs
        Coordinate reference system of data that state none.

    Returns
    -------
    Opened
        Rasters are read when they are drawn, from an overview of the file where it has some. Of
        many picks those are left out that are too close to others to be told apart;
        ``attrs["picks"]`` says how many there are.

    Raises
    ------
    MissingDataError
        There is neither such a file nor such an entry, or its data are not here.
    InvalidDataError
        It cannot be read, states no CRS, or is of a kind that is not known.
    """
    path = Path(name)
    if path.exists():
        data = _read_file(path, variable, bounds, crs)
        return Opened(data, path.name, _said(path.name, data))
    source = _entry(str(name))
    data = _read_entry(source, variable, bounds)
    return Opened(data, source.name, _said(source.metadata.get("citation") or source.name, data))


def _said(source: str, data: Any) -> str:
    """Where data come from, their CRS and their vertical datum."""
    layer = next(iter(data.data_vars.values())) if isinstance(data, xr.Dataset) else data
    if isinstance(layer, xr.DataArray):
        crs = rasters.crs_of(layer)
    else:
        stated = getattr(layer, "crs", None) if hasattr(layer, "geometry") else None
        stated = stated or layer.attrs.get("crs")
        crs = None if stated in (None, "unknown") else CRS.from_user_input(stated)
    words = [source.rstrip(".")]
    if crs is not None:
        authority = crs.to_authority()
        words.append(":".join(authority) if authority else crs.name)
    datum = layer.attrs.get("vertical_datum")
    if datum not in (None, "", "unknown"):
        words.append(f"heights above {'the ellipsoid' if datum == 'ellipsoid' else datum}")
    return "; ".join(words) + "."


def _read_file(path: Path, variable: str | None, bounds: Bounds | None, crs: str | None) -> Any:
    suffix = path.suffix.lower()
    if suffix in RASTERS:
        return _read_layers(path, variable, bounds, crs)
    if suffix not in (*TABLES, *OUTLINES):
        known = ", ".join((*RASTERS, *TABLES, *OUTLINES))
        raise InvalidDataError(
            Fault(
                str(path), expected=f"a name that ends in one of {known}", found=repr(path.suffix)
            )
        )
    if variable is not None:
        raise WrongCallError(f"variable: {path} is no raster")
    if suffix in OUTLINES:
        return VectorSource(path, bounds).read()
    return read_picks(path, bounds, crs)


def _entry(name: str) -> DataSource:
    """Find an entry of the catalog by its name, with or without its section, or by its citekey."""
    import deepbedmap

    catalog = deepbedmap.open_catalog()
    section, _, rest = name.partition("/")
    if section in catalog and rest in catalog[section]:
        return catalog[section][rest]
    entries = {entry: section for section in _SECTIONS for entry in catalog[section]}
    if name in entries:
        return catalog[entries[name]][name]
    named = [
        entry
        for entry, section in entries.items()
        if catalog[section][entry].metadata.get("citekey") == name
    ]
    if len(named) == 1:
        return catalog[entries[named[0]]][named[0]]
    if named:
        raise InvalidDataError(
            Fault(
                name,
                expected="one entry of the catalog",
                found=", ".join(named),
                remedy="name one of them",
            )
        )
    words = {*entries, *(f"{section}/{entry}" for entry, section in entries.items())}
    near = did_you_mean(name, words) or "`deepbedmap list` shows the datasets"
    raise MissingDataError(f"{name}: neither a file nor an entry of the catalog; {near}")


def _read_entry(source: DataSource, variable: str | None, bounds: Bounds | None) -> Any:
    if isinstance(source, RasterSource):
        return _read_raster(source._given, variable, bounds)
    if variable is not None:
        raise WrongCallError("variable: only of a raster")
    box = {} if bounds is None else {"bounds": list(bounds)}
    if isinstance(source, PointsSource):
        return survey_picks(source(**box))
    if isinstance(source, TilesSource | ProductSource):
        data = source.read()
        return data if bounds is None or "tile" in data.dims else _within(data, bounds)
    return source(**box).read()


def _read_layers(
    path: Path, variable: str | None, bounds: Bounds | None, crs: str | None
) -> xr.DataArray | xr.Dataset:
    """Open the layers of a raster file, or a training set."""
    names = _rasters_in(path)
    if names is None:
        from deepbedmap.tiles.storage import open_training_set

        return open_training_set(path)
    if variable is not None or len(names) < 2:
        return _read_raster(path, variable, bounds, crs)
    order = {name: number for number, name in enumerate(_LAYERS)}
    names.sort(key=lambda name: order.get(name.lower(), len(order)))
    first = names[: MOST_LAYERS + 1]  # two of them may be components of a velocity
    if len(names) > len(first):
        logger.warning("%s: %s are not drawn", path, ", ".join(names[len(first) :]))
    return xr.Dataset({name: _read_raster(path, name, bounds, crs) for name in first})


def _rasters_in(path: Path) -> list[str] | None:
    """Names of the rasters of a NetCDF file or of Zarr; none of others; None of a training set."""
    try:
        if path.is_dir():
            dataset = xr.open_zarr(path, consolidated=False, chunks=None)
        elif path.suffix.lower() in (".nc", ".nc4", ".h5"):
            dataset = xr.open_dataset(path, engine="h5netcdf")
        else:
            return []
    except (OSError, ValueError, KeyError):
        return []  # rasters.open_raster says what is wrong with it
    with dataset:
        if "tile" in dataset.dims:
            return None
        return [
            str(name)
            for name, layer in dataset.data_vars.items()
            if layer.ndim == 2 and min(layer.shape) > 1 and layer.dtype.kind in "fiu"
        ]


def _read_raster(
    path: str | os.PathLike[str],
    variable: str | None,
    bounds: Bounds | None,
    crs: str | None = None,
) -> xr.DataArray | xr.Dataset:
    if Path(path).is_dir():
        raster = rasters.open_raster(path, variable, crs=crs)
        return raster if bounds is None else _within(raster, bounds)
    try:
        raster = RasterSource(path, variable, bounds, crs=crs).read()
    except InvalidDataError as error:
        fault = error.faults[0]
        if isinstance(fault, Fault) and fault.field == "variable" and variable is None:
            return _read_layers(Path(fault.file), None, bounds, crs)
        raise
    return _overview(raster, bounds)


def _overview(raster: xr.DataArray, bounds: Bounds | None) -> xr.DataArray:
    """The overview of a GeoTIFF that is as fine as a figure needs, where the file has one."""
    path = Path(raster.encoding.get("source", ""))
    if raster.ndim != 2 or path.suffix.lower() not in (".tif", ".tiff"):
        return raster
    with rasterio.open(path) as file:
        fitting = [factor for factor in file.overviews(1) if factor * MOST <= max(raster.shape)]
        if not fitting or file.count != 1:
            return raster
        level = file.overviews(1).index(fitting[-1])
        xmin, ymax, cell = file.bounds.left, file.bounds.top, file.res[0] * fitting[-1]
    coarse = rioxarray.open_rasterio(path, mask_and_scale=True, overview_level=level)
    coarse = coarse.squeeze("band", drop=True)
    encoding = coarse.encoding
    # Its last cells may be narrower than the others; here all are as wide, so that they are square.
    coarse = coarse.assign_coords(
        x=xmin + cell * (np.arange(coarse.sizes["x"]) + 0.5),
        y=ymax - cell * (np.arange(coarse.sizes["y"]) + 0.5),
    ).assign_attrs(raster.attrs)
    crs = rasters.require_crs(raster)
    coarse = coarse if bounds is None else _within(coarse, bounds)
    described: xr.DataArray = coarse.rio.write_crs(crs)
    described.encoding = encoding
    return described


def _within(data: Any, bounds: Bounds) -> Any:
    """Cells whose centres lie in a box, of a raster or of several on the same cells."""
    xmin, ymin, xmax, ymax = bounds
    x, y = data["x"].to_numpy(), data["y"].to_numpy()
    return data.isel(
        x=np.flatnonzero((x >= xmin) & (x <= xmax)), y=np.flatnonzero((y >= ymin) & (y <= ymax))
    )
