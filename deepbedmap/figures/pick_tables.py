"""Picks for a figure, from a table, a Bedmap CSV or a pipeline, thinned to what is visible."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from deepbedmap import catalog
from deepbedmap.errors import Fault, InvalidDataError
from deepbedmap.figures.panels import thinned
from deepbedmap.points.pipelines import Recipe

if TYPE_CHECKING:
    from typing import Any

    from deepbedmap.places import Bounds

logger = logging.getLogger(__name__)

_MANY = 100_000  # picks, above which they are thinned
_SPACING = 100.0  # m, side of the squares of which one pick each is drawn


def read_picks(path: Path, bounds: Bounds | None, crs: str | None) -> pd.DataFrame:
    """Read picks from a table, a Bedmap standard CSV or a pipeline."""
    if path.suffix.lower() == ".json":
        return survey_picks(catalog.PointsSource(path, bounds=bounds))
    try:
        if path.suffix.lower() == ".parquet":
            table = _read_parquet(path)
        else:
            with path.open(encoding="utf-8", errors="replace") as file:
                if file.readline().startswith("#"):
                    from deepbedmap.points.reading import read_points

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
    names = [name for name in schema.names if name.lower() in _COLUMNS]
    table = pd.read_parquet(path, columns=names)
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
    """Return only the columns x, y and z; longitudes and latitudes are projected."""
    attrs = dict(table.attrs)
    values: dict[str, Any] = {}
    for column in table.columns:
        name = _COLUMNS.get(str(column).strip().lower())
        if name is not None and name not in values:
            values[name] = pd.to_numeric(table[column], errors="coerce").to_numpy(np.float64)
    stated = attrs.get("crs") if attrs.get("crs") not in ("", "unknown") else None
    if "x" not in values and {"lon", "lat"} <= values.keys():
        from pyproj import Transformer

        to_polar = Transformer.from_crs("OGC:CRS84", "EPSG:3031", always_xy=True)
        values["x"], values["y"] = to_polar.transform(values["lon"], values["lat"])
        stated = "EPSG:3031"
    if not {"x", "y"} <= values.keys():
        found = ", ".join(map(str, table.columns[:8])) or "none"
        raise InvalidDataError(
            Fault(str(path), expected="columns x and y, or lon and lat", found=found)
        )
    if stated is None and crs is None:
        logger.warning(
            "%s states no CRS, so the grounding line is not drawn; state it with --crs", path
        )
    picks = pd.DataFrame({name: values[name] for name in ("x", "y", "z") if name in values})
    low, high = (-np.inf, np.inf) if bounds is None else (bounds[:2], bounds[2:])
    coordinates = picks[["x", "y"]].to_numpy()
    inside = np.isfinite(coordinates) & (coordinates >= low) & (coordinates <= high)
    selected: pd.DataFrame = picks.loc[inside.all(axis=1)]
    selected.attrs = {"crs": stated or crs}
    return selected


def survey_picks(source: catalog.PointsSource) -> pd.DataFrame:
    """Read the picks of a survey file by file, keeping only those to draw in memory."""
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
    """Return one pick per square if there are many."""
    x, y = (picks[axis].to_numpy(np.float64) for axis in ("x", "y"))
    selected: pd.DataFrame = (
        picks.iloc[thinned(x, y, _SPACING)] if len(picks) > _MANY else picks.copy()
    )
    selected.attrs = {**picks.attrs, "picks": len(picks)}
    return selected
