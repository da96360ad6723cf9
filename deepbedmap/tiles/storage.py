"""The Zarr store of a training set: its variables, its coordinates, and how it is opened."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
import zarr

from deepbedmap.errors import Fault, InvalidDataError, MissingDataError
from deepbedmap.places import EDGES
from deepbedmap.rasters.writing import ZARR_FORMAT
from deepbedmap.tiles.inputs import INPUTS, PADDING, RESOLUTION, RESOLUTIONS

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    import geopandas as gpd
    from pyproj import CRS

    from deepbedmap.tiles.inputs import Inputs

CHUNK = 64
"""Tiles in a chunk of the store: of the surface, the largest, these are 3 MB."""

BANDS = {"x": 1, "w1": 1, "w2": 2, "w3": 1}
_HEIGHTS = {"x": "bedrock_altitude", "w1": "surface_altitude", "y": "bedrock_altitude"}
LONG_NAMES = {
    "x": "prior bed elevation",
    "w1": "ice surface elevation",
    "w2": "ice velocity along x, then along y",
    "w3": "snow accumulation",
    "y": "surveyed bed elevation",
    "mask": "whether a cell has a surveyed bed elevation",
}
_UNITS = {"x": "m", "w1": "m", "w2": "m a-1", "w3": "kg m-2 a-1", "y": "m", "mask": "1"}
_TOLD = [*EDGES, "coverage", "survey", "split", "complete"]


def open_training_set(path: str | os.PathLike[str]) -> xr.Dataset:
    """Open a training set; tiles are read when they are used.

    Parameters
    ----------
    path
        Of the store that :func:`build`, or ``deepbedmap tiles``, wrote.

    Returns
    -------
    xarray.Dataset
        With the dimension ``tile`` first: ``x``, ``w1``, ``w2``, ``w3`` (float32, as
        :func:`deepbedmap.tiles.cut_inputs` gives them), ``y`` (tile, 1, 4h, 4w), the surveyed bed
        in float32 metres at 250 m, NaN where nothing was measured, and ``mask``, bool, True where
        it was; dask arrays in the chunks of the store. Coordinates of a tile, in memory: ``xmin,
        ymin, xmax, ymax`` in the CRS of ``spatial_ref``, ``coverage``, ``survey``, ``split``
        (``"train"`` or ``"validation"``) and ``complete`` (no input has a gap). Attributes:
        ``crs``, ``vertical_datum`` and ``provenance``, JSON with the sources, the rule of the split
        and the areas that were left out.

    Raises
    ------
    MissingDataError
        There is no such store; the message says which command makes it.
    InvalidDataError
        It is no training set.
    """
    path = Path(path)
    if not path.exists():
        raise MissingDataError(
            f"{path}: no such training set; `deepbedmap tiles GRID... --out {path} --prior FILE "
            "--surface FILE --velocity FILE --accumulation FILE` makes it"
        )
    try:
        dataset = xr.open_zarr(
            path, zarr_format=ZARR_FORMAT, consolidated=False, chunks={}, decode_coords="all"
        )
    except (OSError, ValueError, KeyError) as error:
        raise InvalidDataError(_no_training_set(path, f"what cannot be read ({error})")) from error
    absent = [name for name in (*INPUTS, "y", "mask") if name not in dataset.data_vars]
    absent += [name for name in _TOLD if name not in dataset.coords]
    if absent:
        raise InvalidDataError(_no_training_set(path, f"one without {', '.join(absent)}"))
    told = {name: dataset[name].load() for name in _TOLD}
    text = {name: told[name].astype(object) for name in ("survey", "split")}
    tidy = dataset[[*INPUTS, "y", "mask"]].drop_vars(_TOLD)
    opened: xr.Dataset = tidy.assign_coords(told | text)
    return opened


def _no_training_set(path: Path, found: str) -> Fault:
    return Fault(
        str(path),
        expected="a training set, as `deepbedmap tiles` writes it",
        found=found,
        remedy="make it again, or open another",
    )


def _shapes(size: int) -> dict[str, tuple[int, int, int]]:
    """Bands, rows and columns of a tile, by variable."""
    padded = size * RESOLUTION + 2 * PADDING
    cells = {name: round(padded / resolution) for name, resolution in RESOLUTIONS.items()}
    shapes = {name: (BANDS[name], count, count) for name, count in cells.items()}
    return shapes | {"y": (1, size, size), "mask": (1, size, size)}


def write_template(
    store: Path, count: int, size: int, crs: CRS, datum: str, inputs: Inputs
) -> None:
    """Write what the store says of itself, with room for all tiles and none of them."""
    from dask import array

    variables = {}
    for name, shape in _shapes(size).items():
        owner = "y" if name == "mask" else name
        dtype = bool if name == "mask" else np.float32
        attributes = {
            "long_name": LONG_NAMES[name],
            "units": _UNITS[name],
            "resolution": RESOLUTIONS.get(name, RESOLUTION),
            "grid_mapping": "spatial_ref",
        }
        if name in inputs.by_name:
            attributes["units"] = inputs.by_name[name].attrs.get("units", _UNITS[name])
        if name in _HEIGHTS:
            attributes |= {"standard_name": _HEIGHTS[name], "vertical_datum": datum}
        variables[name] = xr.Variable(
            ("tile", *(f"{owner}_{dim}" for dim in ("band", "row", "column"))),
            array.zeros((count, *shape), dtype=dtype, chunks=(CHUNK, *shape)),
            attributes,
            {"chunks": (CHUNK, *shape)} | ({} if name == "mask" else {"_FillValue": np.nan}),
        )
    reference = xr.Variable((), 0, crs.to_cf())
    xr.Dataset(variables, {"spatial_ref": reference}).to_zarr(
        store, mode="w", zarr_format=ZARR_FORMAT, consolidated=False, compute=False
    )


def finish_store(store: Path, chosen: gpd.GeoDataFrame, attributes: Mapping[str, str]) -> None:
    """Cut the store to the tiles that it keeps, and write what is known of each."""
    group = zarr.open_group(store, mode="r+", zarr_format=ZARR_FORMAT)
    for name in (*INPUTS, "y", "mask"):
        group[name].resize((len(chosen), *group[name].shape[1:]))
    units = {"units": "m", "grid_mapping": "spatial_ref"}
    said: dict[str, dict[str, str]] = dict.fromkeys(EDGES, units) | {
        "coverage": {"long_name": "share of cells with a surveyed bed elevation", "units": "1"},
        "survey": {"long_name": "survey whose grid the tile is from"},
        "split": {"long_name": "part of the training set: train or validation"},
        "complete": {"long_name": "whether no input has a gap"},
    }
    coordinates = {
        name: xr.Variable("tile", chosen[name].to_numpy(), attrs) for name, attrs in said.items()
    }
    xr.Dataset(coords=coordinates, attrs=dict(attributes)).to_zarr(
        store, mode="a", zarr_format=ZARR_FORMAT, consolidated=False
    )
    for torn in store.rglob("*.partial"):  # zarr's, of a run that was killed while it wrote
        torn.unlink()
