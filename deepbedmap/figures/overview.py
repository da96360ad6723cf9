"""A quick look at whatever it is: rasters, picks, outlines, training sets, products."""

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

from deepbedmap import places as areas
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
from deepbedmap.figures.sheet import COLOURS, Kind, Sheet, counted, drawing, scale_of

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd

MOST_LAYERS = 6
"""Panels of a quick look; further layers are left out."""

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
        A raster (y, x) or (band, y, x) or a dataset of such: a panel a layer, at most
        :data:`MOST_LAYERS`; two components of a velocity as speed. A table of picks (columns
        ``x``, ``y`` and, to be coloured by it, ``z``). Outlines
        (:class:`geopandas.GeoDataFrame`), or a training set, whose tiles are drawn as outlines. Or
        several of these by name: picks and outlines are drawn on every raster.
    path
        Of the figure.
    source
        A line below that says what this was made from.
    kind
        What the values of rasters are; by default what names and units say.

    Raises
    ------
    InvalidDataError
        There is nothing to draw, or not a single finite value.
    TypeError
        Data of another type.
    """
    named = dict(data) if isinstance(data, Mapping) and not _is_raster(data) else {"": data}
    panels: list[Panel] = []
    tables: dict[str, pd.DataFrame] = {}
    outlines: dict[str, gpd.GeoDataFrame] = {}
    for name, each in named.items():
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
            raise TypeError(f"a raster, a table or outlines are drawn, not {type(each).__name__}")
    with drawing(path, source) as sheet:
        if panels:
            shown = panels[:MOST_LAYERS]
            columns = 1 if len(shown) == 1 else 2 if len(shown) < 5 else 3
            draw_panels(sheet, shown, columns, _tracks_of(tables, outlines))
        elif outlines:
            _draw_outlines(sheet, outlines, tables)
        elif len(tables) == 1 and "z" in next(iter(tables.values())):
            ((name, table),) = tables.items()
            _draw_picks(sheet, table, str(name))
        elif tables:
            draw_coverage(sheet, tables)
        else:
            raise InvalidDataError(Fault("figure", expected="something to draw", found="nothing"))
    return Path(path)


def _is_raster(data: Any) -> bool:
    return isinstance(data, xr.Dataset | xr.DataArray)  # a Dataset is a Mapping, too


def _panels_of(data: xr.Dataset | xr.DataArray, name: str, kind: Kind | None) -> list[Panel]:
    layers = list(_layers_of(data))
    panels = []
    for layer_name, layer in layers:
        chosen = kind or kind_of(layer, layer_name or name)
        title = f"{name}: {layer_name}" if name and layer_name and len(layers) > 1 else name
        panels.append(Panel(title or layer_name, layer, chosen, _label_of(layer, chosen, kind)))
    return panels


def _layers_of(data: xr.Dataset | xr.DataArray) -> Iterator[tuple[str, xr.DataArray]]:
    """Layers (y, x) of a raster, by name; components of a velocity are one, of speed."""
    if isinstance(data, xr.Dataset):
        held = {
            str(name): layer
            for name, layer in data.data_vars.items()
            if {"y", "x"} <= set(layer.dims)
        }
        lower = {name.lower(): name for name in held}
        if {"vx", "vy"} <= lower.keys():
            yield "speed", _speed(held.pop(lower["vx"]), held.pop(lower["vy"]))
        if "bed_mean" in held:
            held.pop("bed_members", None)
        for each, several in held.items():
            for band, cells in _layers_of(several):
                yield each if band == each else f"{each} {band}", cells
        return
    extra = [str(dim) for dim in data.dims if dim not in ("y", "x")]
    if not extra:
        yield str(data.name or ""), data
        return
    if len(extra) > 1:
        raise WrongCallError(f"a map is drawn of (y, x) or (band, y, x), not of {data.dims}")
    (dim,) = extra
    labels = [str(label) for label in data[dim].to_numpy()] if dim in data.coords else []
    labels = labels or [str(number + 1) for number in range(data.sizes[dim])]
    bands = [data.isel({dim: number}, drop=True) for number in range(data.sizes[dim])]
    if sorted(label.lower() for label in labels) == ["vx", "vy"]:
        yield "speed", _speed(*bands)
        return
    for label, layer in zip(labels, bands, strict=True):
        yield f"{dim} {label}" if label.isdigit() else label, layer


def _speed(across: xr.DataArray, up: xr.DataArray) -> xr.DataArray:
    """Speed from its components, cells being read later."""
    speed: xr.DataArray = xr.apply_ufunc(
        np.hypot, rasters.chunked(across), rasters.chunked(up), dask="allowed"
    )
    speed.name = "speed"
    crs = rasters.crs_of(across)
    speed.attrs = {"units": across.attrs.get("units") or ""}
    return speed if crs is None else speed.rio.write_crs(crs)


def kind_of(layer: xr.DataArray, name: str) -> Kind:
    """What the values of a raster are, by what its names and its type say.

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
    told = (layer.name, layer.attrs.get("standard_name"), layer.attrs.get("long_name"))
    for words in (" ".join(str(text) for text in told if text), name):
        for pattern, kind in _PATTERNS:
            if pattern.search(words.lower()):
                return kind
    return "elevation"


def _label_of(layer: xr.DataArray, kind: Kind, told: Kind | None) -> str | None:
    """What stands along the colour bar: what the raster says of itself, with its unit."""
    units = layer.attrs.get("units")
    units = str(units) if units not in (None, "", "1") else ""
    long_name = layer.attrs.get("long_name")
    words = str(long_name) if isinstance(long_name, str) else str(layer.name or "")
    if told is not None and not words:
        return None
    words = words.replace("_", " ") or ("elevation" if kind == "elevation" else "value")
    return f"{words} ({units})" if units else f"{words} (unit not stated)"


def footprints(training_set: xr.Dataset) -> gpd.GeoDataFrame:
    """Outlines of the tiles of a training set, with their survey and split."""
    import geopandas as gpd
    import shapely

    edges = [training_set[name].to_numpy() for name in ("xmin", "ymin", "xmax", "ymax")]
    told = {
        name: training_set[name].to_numpy() for name in ("split", "survey") if name in training_set
    }
    crs = training_set.attrs.get("crs")
    return gpd.GeoDataFrame(told, geometry=shapely.box(*edges), crs=crs)


def _table_of(points: gpd.GeoDataFrame) -> pd.DataFrame:
    """Picks of points, in metres: degrees are projected to EPSG:3031."""
    import pandas as pd

    if points.crs is not None and points.crs.is_geographic:
        points = points.to_crs(areas.CRS)
    exploded = points.explode(index_parts=False)
    table = pd.DataFrame({"x": exploded.geometry.x, "y": exploded.geometry.y})
    if "z" in exploded:
        table["z"] = exploded["z"].to_numpy()
    table.attrs["crs"] = None if points.crs is None else points.crs.to_wkt()
    return table


def _tracks_of(
    tables: Mapping[str, pd.DataFrame], outlines: Mapping[str, gpd.GeoDataFrame]
) -> list[Track]:
    """Picks and outlines as they are drawn on a raster."""
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
    """Vertices (n, 2) of outlines and lines, parted by NaN."""
    import shapely

    parts = shapely.get_parts(np.asarray(geometry.dropna()))
    rings = shapely.get_type_id(parts) == shapely.GeometryType.POLYGON
    lines = [*parts[~rings], *shapely.get_parts(shapely.boundary(parts[rings]))]
    if not lines:
        return np.empty((0, 2))
    places, owner = shapely.get_coordinates(lines, return_index=True)
    ends = np.flatnonzero(np.diff(owner)) + 1
    vertices: npt.NDArray[np.float64] = np.insert(places, ends, np.nan, axis=0)
    return vertices


def _draw_picks(sheet: Sheet, table: pd.DataFrame, name: str) -> None:
    """Draw picks in the colours of their beds."""
    crs = crs_of_picks({name: table})
    x, y, z = (table[axis].to_numpy(np.float64) for axis in "xyz")
    known = np.isfinite(x) & np.isfinite(y) & np.isfinite(z)
    if not known.any():
        draw_coverage(sheet, {name: table})
        return
    x, y, z = x[known], y[known], z[known]
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
    """Draw outlines in colours of their split, survey or name."""
    first = next(iter(outlines.values()))
    crs = None if first.crs is None else CRS.from_user_input(first.crs)
    groups: dict[str, Any] = {}
    for name, each in outlines.items():
        same = each if each.crs is None or crs is None else each.to_crs(crs)
        by = next((column for column in ("split", "survey") if column in same), None)
        if by is None or same[by].nunique() > len(COLOURS):
            groups[f"{name}: {counted(len(same), 'outline')}".lstrip(": ")] = same.geometry
        else:
            for value, some in same.groupby(by):
                groups[f"{value}: {counted(len(some), 'tile')}"] = some.geometry
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
