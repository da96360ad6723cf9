"""Draw a map of files, or of entries of the catalog, by their names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from deepbedmap.errors import WrongCallError
from deepbedmap.figures.opening import open_data
from deepbedmap.figures.overview import quick_look
from deepbedmap.figures.scales import Kind
from deepbedmap.figures.sheet import require_suffix

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from deepbedmap.places import Bounds


def draw_map(
    names: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str] | None = None,
    *,
    variable: str | None = None,
    bounds: Bounds | None = None,
    kind: Kind | None = None,
    title: str | None = None,
    crs: str | None = None,
) -> Path:
    """Draw a quick look of anything in the catalog, or of files.

    Each layer of a raster is a map; picks and outlines are drawn on every map. Picks alone are
    coloured by their bed elevation, those of several surveys by survey.

    Parameters
    ----------
    names
        Entries of the catalog; or rasters (``.tif``, ``.nc``, ``.zarr``), picks (``.csv``,
        ``.parquet``, a pipeline), outlines (``.geojson``, ``.gpkg``, ``.shp``), training sets or
        products.
    out
        A ``.png``, ``.pdf``, ``.svg``, ``.jpg``, ``.tif`` or ``.eps`` file; by default
        ``<name>_map.png`` in the working folder.
    variable
        Of a file with several; by default all, six at most.
    bounds
        (xmin, ymin, xmax, ymax) in the CRS of the data.
    kind
        What the values are, such as ``"elevation"``; by default what names and units say.
    title
        Of a single name; by default that name.
    crs
        Of files that state none, such as ``"EPSG:3031"``.

    Returns
    -------
    pathlib.Path
        The figure.

    Raises
    ------
    InvalidDataError, MissingDataError
        As :func:`deepbedmap.figures.opening.open_data` and :func:`quick_look`.
    ValueError
        The name ends otherwise; the kind is unknown; a title of several.

    Examples
    --------
    >>> draw_map("bedmap2_bed", "map.gif")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    deepbedmap.errors.WrongCallError: a figure's name: expected one that ends in ...
    """
    if kind is not None and kind not in get_args(Kind):
        raise WrongCallError(f"expected one of {', '.join(get_args(Kind))}, found {kind!r}", "kind")
    several = [names] if isinstance(names, str | os.PathLike) else names
    listed = [str(name) for name in several]
    path = Path(out or f"{Path(listed[0]).stem}_map.png")
    require_suffix(path)
    opened = {name: open_data(name, variable, bounds, crs) for name in listed}
    data: dict[str, Any] = {}
    for name, each in opened.items():
        data[name if each.title in data else each.title] = each.data
    if title is not None:
        if len(data) > 1:
            raise WrongCallError("only of a single entry or file", "title")
        data = {title: next(iter(data.values()))}
    sources = dict.fromkeys(each.source for each in opened.values())
    return quick_look(data, path, " ".join(sources), kind=kind)
