"""A quick look at data of any kind: rasters, picks, outlines, training sets, products."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from pyproj import CRS

from deepbedmap import rasters
from deepbedmap.errors import Fault, InvalidDataError, WrongCallError
from deepbedmap.figures.panels import (
    Panel,
    Track,
    begin_map,
    crs_of_picks,
    draw_coverage,
    draw_panels,
    draw_tracks,
    draw_values,
    end_map,
    frame_of,
)
from deepbedmap.figures.scales import COLOURS, Kind, scale_of
from deepbedmap.figures.sheet import Sheet, counted, drawing
from deepbedmap.places import CRS as POLAR
from deepbedmap.places import EDGES

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd

MOST_LAYERS = 6
"""Maximum number of panels in a quick look; further layers are omitted."""

_PATTERNS: tuple[tuple[re.Pattern[str], Kind], ...] = (
    (re.compile(r"difference|minus|anomaly|residual|bias"), "difference"),
    (re.compile(r"rough"), "roughness"),
    (re.compile(r"error|uncertainty|deviation|spread|std|count|picks|distance"), "amount"),
    (re.compile(r"speed|velocity|(^|[\W_])v([\W_]|$)"), "speed"),
    (re.compile(r"mask|flag"), "flags"),
    (re.compile(r"thickness|accumulation|smb|mass balance"), "amount"),
)


def quick_look(
    data: Any,
    path: str | os.PathLike[str],
    source: str = "",
    *,
    kind: Kind | None = None,
) -> Path:
    """Draw a quick look of data of any kind.

    Parameters
    ----------
    data
        A raster (y, x) or (band, y, x), or a dataset of rasters: one panel per layer, at most
        :data:`MOST_LAYERS`, and the two components of a velocity as speed. A table of picks
        (columns ``x``, ``y`` in metres and, for the colour, ``z``). Outlines
        (:class:`geopandas.GeoDataFrame`), or a training set, whose tiles are drawn as outlines. Or
        several of these by name: picks and outlines are drawn on every raster.
    path
        Path of the figure.
    source
        A line below the figure that states its sources.
    kind
        Kind of the rasters' values; by default derived from names and units.

    Returns
    -------
    pathlib.Path
        The path of the figure.

    Raises
    ------
    InvalidDataError
        There is nothing to draw, or no finite value.
    TypeError
        The data are of another type.
    """
    items = dict(data) if isinstance(data, Mapping) and not _is_raster(data) else {"": data}
    panels: list[Panel] = []
    tables: dict[str, pd.DataFrame] = {}
    outlines: dict[str, gpd.GeoDataFrame] = {}
    for name, each in items.items():
        if isinstance(each, xr.Dataset) and "tile" in each.dims:
            outlines[name] = footprints(each)
        elif isinstance(each, xr.Dataset | xr.DataArray):
            panels += _panels_of(each, str(name), kind)
        elif hasattr(each, "geometry") and hasattr(each, "crs"):
            if len(each) and set(each.geom_type.dropna()) <= {"Point", "MultiPoint"}:
                tables[name] = _table_of(each)
            else:
                outlines[name] = each
        elif hasattr(each, "columns"):
            tables[name] = each
        else:
            raise TypeError(
                f"data: expected a raster, a table or outlines, found {type(each).__name__}"
            )
    with drawing(path, source) as sheet:
        if panels:
            panels = panels[:MOST_LAYERS]
            columns = 1 if len(panels) == 1 else 2 if len(panels) < 5 else 3
            draw_panels(sheet, panels, columns, _tracks_of(tables, outlines))
        elif outlines:
            _draw_outlines(sheet, outlines, tables)
        elif len(tables) == 1 and "z" in next(iter(tables.values())):
            ((name, table),) = tables.items()
            _draw_picks(sheet, table, str(name))
        elif tables:
            draw_coverage(sheet, tables)
        else:
            raise InvalidDataError(Fault("figure", expected="data to draw", found="none"))
    return Path(path)


def _is_raster(data: Any) -> bool:
    return isinstance(data, xr.Dataset | xr.DataArray)  # a Dataset is a Mapping, too


def _panels_of(data: xr.Dataset | xr.DataArray, name: str, kind: Kind | None) -> list[Panel]:
    layers = list(_layers_of(data))
    panels = []
    for layer_name, layer in layers:
        layer_kind = kind or kind_of(layer, layer_name or name)
        title = f"{name}: {layer_name}" if name and layer_name and len(layers) > 1 else name
        label = _label_of(layer, layer_kind, kind)
        panels.append(Panel(title or layer_name, layer, layer_kind, label))
    return panels


def _layers_of(data: xr.Dataset | xr.DataArray) -> Iterator[tuple[str, xr.DataArray]]:
    """Yield the layers (y, x) of a raster by name; velocity components become one of speed."""
    if isinstance(data, xr.Dataset):
        layers = {
            str(name): layer
            for name, layer in data.data_vars.items()
            if {"y", "x"} <= set(layer.dims)
        }
        lower = {name.lower(): name for name in layers}
        if {"vx", "vy"} <= lower.keys():
            yield "speed", _speed(layers.pop(lower["vx"]), layers.pop(lower["vy"]))
        if "bed_mean" in layers:
            layers.pop("bed_members", None)
        for name, bands in layers.items():
            for band, cells in _layers_of(bands):
                yield name if band == name else f"{name} {band}", cells
        return
    extra = [str(dim) for dim in data.dims if dim not in ("y", "x")]
    if not extra:
        yield str(data.name or ""), data
        return
    if len(extra) > 1:
        raise WrongCallError(
            f"a map: expected dimensions (y, x) or (band, y, x), found {data.dims}"
        )
    (dim,) = extra
    labels = [str(label) for label in data[dim].to_numpy()] if dim in data.coords else []
    labels = labels or [str(number + 1) for number in range(data.sizes[dim])]
    slices = [data.isel({dim: number}, drop=True) for number in range(data.sizes[dim])]
    if sorted(label.lower() for label in labels) == ["vx", "vy"]:
        yield "speed", _speed(*slices)
        return
    for label, layer in zip(labels, slices, strict=True):
        yield f"{dim} {label}" if label.isdigit() else label, layer


def _speed(vx: xr.DataArray, vy: xr.DataArray) -> xr.DataArray:
    """Return the speed from its components, computed lazily."""
    speed: xr.DataArray = xr.apply_ufunc(
        np.hypot, rasters.chunked(vx), rasters.chunked(vy), dask="allowed"
    )
    speed.name = "speed"
    crs = rasters.crs_of(vx)
    speed.attrs = {"units": vx.attrs.get("units") or ""}
    return speed if crs is None else speed.rio.write_crs(crs)


def kind_of(layer: xr.DataArray, name: str) -> Kind:
    """Return the kind of a raster's values, derived from its names and its type.

    Examples
    --------
    >>> kind_of(xr.DataArray(np.zeros((2, 2))), "bed_error"), kind_of(
    ...     xr.DataArray(np.zeros((2, 2)), attrs={"standard_name": "bedrock_altitude"}), "x")
    ('amount', 'elevation')
    """
    if "flag_values" in layer.attrs or "flag_masks" in layer.attrs:
        return "flags"
    if layer.dtype.kind in "biu" and layer.dtype.itemsize == 1:
        return "flags"
    names = (layer.name, layer.attrs.get("standard_name"), layer.attrs.get("long_name"))
    for words in (" ".join(str(text) for text in names if text), name):
        for pattern, kind in _PATTERNS:
            if pattern.search(words.lower()):
                return kind
    return "elevation"


def _label_of(layer: xr.DataArray, kind: Kind, stated_kind: Kind | None) -> str | None:
    """Return the label of the colour bar: the raster's own name, with its units."""
    units = layer.attrs.get("units")
    units = str(units) if units not in (None, "", "1") else ""
    long_name = layer.attrs.get("long_name")
    words = str(long_name) if isinstance(long_name, str) else str(layer.name or "")
    if stated_kind is not None and not words:
        return None
    words = words.replace("_", " ") or ("elevation" if kind == "elevation" else "value")
    return f"{words} ({units})" if units else f"{words} (units not stated)"


def footprints(training_set: xr.Dataset) -> gpd.GeoDataFrame:
    """Return the outlines of the tiles of a training set, with their survey and split."""
    import geopandas as gpd
    import shapely

    edges = [training_set[name].to_numpy() for name in EDGES]
    labels = {
        name: training_set[name].to_numpy() for name in ("split", "survey") if name in training_set
    }
    crs = training_set.attrs.get("crs")
    return gpd.GeoDataFrame(labels, geometry=shapely.box(*edges), crs=crs)


def _table_of(points: gpd.GeoDataFrame) -> pd.DataFrame:
    """Return a table of picks (m) from points; degrees are projected to EPSG:3031."""
    import pandas as pd

    if points.crs is not None and points.crs.is_geographic:
        points = points.to_crs(POLAR)
    exploded = points.explode(index_parts=False)
    table = pd.DataFrame({"x": exploded.geometry.x, "y": exploded.geometry.y})
    if "z" in exploded:
        table["z"] = exploded["z"].to_numpy()
    table.attrs["crs"] = None if points.crs is None else points.crs.to_wkt()
    return table


def _tracks_of(
    tables: Mapping[str, pd.DataFrame], outlines: Mapping[str, gpd.GeoDataFrame]
) -> list[Track]:
    """Return picks and outlines as tracks on a map."""
    tracks = []
    for table in tables.values():
        crs = table.attrs.get("crs")
        tracks.append(
            Track(
                None if crs in (None, "", "unknown") else CRS.from_user_input(crs),
                np.column_stack([table["x"], table["y"]]).astype(np.float64),
                dots=True,
            )
        )
    for each in outlines.values():
        crs = None if each.crs is None else CRS.from_user_input(each.crs)
        tracks.append(Track(crs, _vertices(each.geometry), dots=False))
    return tracks


def _vertices(geometry: Any) -> npt.NDArray[np.float64]:
    """Return the vertices (n, 2) of outlines and lines, with NaN between them."""
    import shapely

    parts = shapely.get_parts(np.asarray(geometry.dropna()))
    rings = shapely.get_type_id(parts) == shapely.GeometryType.POLYGON
    lines = [*parts[~rings], *shapely.get_parts(shapely.boundary(parts[rings]))]
    if not lines:
        return np.empty((0, 2))
    coordinates, line = shapely.get_coordinates(lines, return_index=True)
    ends = np.flatnonzero(np.diff(line)) + 1
    vertices: npt.NDArray[np.float64] = np.insert(coordinates, ends, np.nan, axis=0)
    return vertices


def _draw_picks(sheet: Sheet, table: pd.DataFrame, name: str) -> None:
    """Draw picks in the colours of their bed elevations."""
    crs = crs_of_picks({name: table})
    x, y, z = (table[axis].to_numpy(np.float64) for axis in "xyz")
    finite = np.isfinite(x) & np.isfinite(y) & np.isfinite(z)
    if not finite.any():
        draw_coverage(sheet, {name: table})
        return
    x, y, z = x[finite], y[finite], z[finite]
    count = int(table.attrs.get("picks", x.size))
    axes, width = frame_of([(x, y)], crs)
    scale = scale_of([z], "elevation")
    begin_map(sheet, axes, 0, 0, width)
    end_map(sheet, axes, width, title=f"{name}: {counted(count, 'pick')}".lstrip(": "))
    draw_values(sheet, (x, y), z, scale, axes, width)
    sheet.colour_bar(scale, width / 2, -1.25, 0.8 * width)


def _draw_outlines(
    sheet: Sheet,
    outlines: Mapping[str, gpd.GeoDataFrame],
    tables: Mapping[str, pd.DataFrame],
) -> None:
    """Draw outlines in the colours of their split, survey or name."""
    first = next(iter(outlines.values()))
    crs = None if first.crs is None else CRS.from_user_input(first.crs)
    groups: dict[str, Any] = {}
    for name, each in outlines.items():
        projected = each if each.crs is None or crs is None else each.to_crs(crs)
        column = next((column for column in ("split", "survey") if column in projected), None)
        if column is None or projected[column].nunique() > len(COLOURS):
            label = f"{name}: {counted(len(projected), 'outline')}".lstrip(": ")
            groups[label] = projected.geometry
        else:
            for value, group in projected.groupby(column):
                groups[f"{value}: {counted(len(group), 'tile')}"] = group.geometry
    vertices = {label: _vertices(geometry) for label, geometry in groups.items()}
    places = [tuple(each[np.isfinite(each[:, 0])].T) for each in vertices.values()]
    axes, width = frame_of(places, crs)
    tracks = [
        (Track(crs, each, dots=False), f"0.7p,{COLOURS[number % len(COLOURS)]}")
        for number, each in enumerate(vertices.values())
    ]
    tracks += [(track, "0.7p,black") for track in _tracks_of(tables, {})]
    entries = [
        (label, "line", f"0.9p,{COLOURS[number % len(COLOURS)]}")
        for number, label in enumerate(vertices)
    ]
    entries += [
        (f"{name}: {counted(len(table), 'pick')}".lstrip(": "), "dot", "black")
        for name, table in tables.items()
    ]
    draw_tracks(sheet, axes, width, tracks, entries)
