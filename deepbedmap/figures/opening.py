"""Open whatever a quick look is taken of: entries of the catalog, and files, by their names."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import rasterio
import rioxarray
import xarray as xr
from pyproj import CRS

from deepbedmap import drivers, rasters, schemas
from deepbedmap.errors import Fault, InvalidDataError, MissingDataError
from deepbedmap.figures.cells import MOST
from deepbedmap.figures.overview import MOST_LAYERS
from deepbedmap.figures.panels import thinned
from deepbedmap.pipelines import Recipe

if TYPE_CHECKING:
    from intake.source.base import DataSource

    from deepbedmap.rasters import Bounds

logger = logging.getLogger(__name__)

RASTERS = (".tif", ".tiff", ".vrt", ".nc", ".nc4", ".h5", ".zarr")
TABLES = (".csv", ".parquet", ".json")
OUTLINES = (".geojson", ".gpkg", ".shp")

_SECTIONS = ("highres", "lowres", "misc", "training", "products")
_MANY = 100_000
_NEAR = 100.0  # metres within which one pick of many is enough for a picture
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
        raise ValueError(f"variable: {path} is no raster")
    if suffix in OUTLINES:
        return drivers.VectorSource(path, bounds).read()
    return _read_picks(path, bounds, crs)


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
    near = schemas.near(name, words) or "`deepbedmap list` shows the datasets"
    raise MissingDataError(f"{name}: neither a file nor an entry of the catalog; {near}")


def _read_entry(source: DataSource, variable: str | None, bounds: Bounds | None) -> Any:
    if isinstance(source, drivers.RasterSource):
        return _read_raster(source._given, variable, bounds)
    if variable is not None:
        raise ValueError("variable: only of a raster")
    box = {} if bounds is None else {"bounds": list(bounds)}
    if isinstance(source, drivers.PointsSource):
        return _drawn(source(**box))
    if isinstance(source, drivers.TilesSource | drivers.ProductSource):
        data = source.read()
        return data if bounds is None or "tile" in data.dims else _within(data, bounds)
    return source(**box).read()


def _read_layers(
    path: Path, variable: str | None, bounds: Bounds | None, crs: str | None
) -> xr.DataArray | xr.Dataset:
    """Open the layers of a raster file, or a training set."""
    names = _rasters_in(path)
    if names is None:
        from deepbedmap.training_sets import open_training_set

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
        raster = drivers.RasterSource(path, variable, bounds, crs=crs).read()
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


def _read_picks(path: Path, bounds: Bounds | None, crs: str | None) -> pd.DataFrame:
    """Picks of a table, of a Bedmap standard CSV, or of a pipeline."""
    if path.suffix.lower() == ".json":
        return _drawn(drivers.PointsSource(path, bounds=bounds))
    try:
        if path.suffix.lower() == ".parquet":
            table = _read_parquet(path)
        else:
            with path.open(encoding="utf-8", errors="replace") as file:
                if file.readline().startswith("#"):
                    from deepbedmap.points import read_points

                    return _thinned(read_points(path, bounds=bounds))
            table = pd.read_csv(path, encoding_errors="replace")
    except (OSError, ValueError) as error:
        if isinstance(error, InvalidDataError | FileNotFoundError | PermissionError):
            raise
        expected = "a table of picks with columns x and y"
        raise InvalidDataError(Fault(str(path), expected=expected, found=str(error))) from error
    return _thinned(_as_picks(table, path, bounds, crs))


def _read_parquet(path: Path) -> pd.DataFrame:
    import json

    import pyarrow.parquet as pq

    schema = pq.read_schema(path)
    wanted = [name for name in schema.names if name.lower() in _COLUMNS]
    table = pd.read_parquet(path, columns=wanted)
    geo = (schema.metadata or {}).get(b"geo")
    if table.attrs.get("crs") is None and geo is not None:
        columns = json.loads(geo).get("columns", {})
        stated = next((each["crs"] for each in columns.values() if each.get("crs")), None)
        table.attrs["crs"] = json.dumps(stated) if stated else None
    return table


_COLUMNS = {
    **dict.fromkeys(("x", "easting"), "x"),
    **dict.fromkeys(("y", "northing"), "y"),
    **dict.fromkeys(("z", "bed", "bed_elevation"), "z"),
    **dict.fromkeys(("lon", "long", "longitude"), "lon"),
    **dict.fromkeys(("lat", "latitude"), "lat"),
}


def _as_picks(
    table: pd.DataFrame, path: Path, bounds: Bounds | None, crs: str | None
) -> pd.DataFrame:
    """A table with columns x, y and z alone; longitudes and latitudes are projected."""
    attrs = dict(table.attrs)
    held: dict[str, Any] = {}
    for column in table.columns:
        name = _COLUMNS.get(str(column).strip().lower())
        if name is not None and name not in held:
            held[name] = pd.to_numeric(table[column], errors="coerce").to_numpy(np.float64)
    stated = attrs.get("crs") if attrs.get("crs") not in ("", "unknown") else None
    if "x" not in held and {"lon", "lat"} <= held.keys():
        from pyproj import Transformer

        to = Transformer.from_crs("OGC:CRS84", "EPSG:3031", always_xy=True)
        held["x"], held["y"] = to.transform(held["lon"], held["lat"])
        stated = "EPSG:3031"
    if not {"x", "y"} <= held.keys():
        found = ", ".join(map(str, table.columns[:8])) or "none"
        raise InvalidDataError(
            Fault(str(path), expected="columns x and y, or lon and lat", found=found)
        )
    if stated is None and crs is None:
        logger.warning("%s states no CRS: no grounding line is drawn; --crs states it", path)
    picks = pd.DataFrame({name: held[name] for name in ("x", "y", "z") if name in held})
    low, high = (-np.inf, np.inf) if bounds is None else (bounds[:2], bounds[2:])
    places = picks[["x", "y"]].to_numpy()
    inside = np.isfinite(places) & (places >= low) & (places <= high)
    chosen: pd.DataFrame = picks.loc[inside.all(axis=1)]
    chosen.attrs = {"crs": stated or crs}
    return chosen


def _drawn(source: drivers.PointsSource) -> pd.DataFrame:
    """Picks of a survey, file by file, so that the memory holds those alone that are drawn."""
    lazy = source.to_dask()
    parts = [_thinned(part.compute(scheduler="synchronous")) for part in lazy.partitions]
    picks = pd.concat([part[["x", "y", "z"]] for part in parts], ignore_index=True)
    picks.attrs = {
        "crs": source.metadata.get("crs") or Recipe.load(Path(source._given)).crs,
        "vertical_datum": source.metadata.get("vertical_datum"),
        "picks": sum(part.attrs["picks"] for part in parts),
    }
    return picks


def _thinned(picks: pd.DataFrame) -> pd.DataFrame:
    """One pick of all within some metres."""
    x, y = (picks[axis].to_numpy(np.float64) for axis in ("x", "y"))
    some: pd.DataFrame = picks.iloc[thinned(x, y, _NEAR)] if len(picks) > _MANY else picks.copy()
    some.attrs = {**picks.attrs, "picks": len(picks)}
    return some
