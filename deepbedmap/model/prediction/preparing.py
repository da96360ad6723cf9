"""Checks before hours of prediction: products, checkpoints, input rasters and window."""

from __future__ import annotations

import math
import os
import tempfile
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from deepbedmap.catalog.opening import open_source
from deepbedmap.errors import Fault, InvalidDataError, MissingDataError, WrongCallError
from deepbedmap.model.prediction.predicting import window
from deepbedmap.tiles.inputs import PADDING, RESOLUTION, RESOLUTIONS, Inputs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any, TypeAlias

    import xarray as xr

    from deepbedmap.model import checkpoints as saved
    from deepbedmap.places import Bounds

SUFFIXES = (".tif", ".nc", ".zarr")
"""Valid endings of a product's name."""

Source: TypeAlias = "str | os.PathLike[str] | xr.DataArray"
ROLES = {field.name: field.name.replace("_", " ") for field in fields(Inputs)}


def product_paths(out: Any) -> list[Path]:
    """Return the paths of the products, and check that each can be written."""
    paths = [Path(path) for path in ([out] if isinstance(out, str | os.PathLike) else out)]
    if not paths or len({path.absolute() for path in paths}) < len(paths):
        raise WrongCallError("out: expected the names of one product or several, each once")
    for path in paths:
        if path.suffix not in SUFFIXES:
            raise WrongCallError(
                f"expected a name that ends in .tif, .nc or .zarr, not {path.name!r}", "out"
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path.parent):
                pass
        except OSError as error:
            raise InvalidDataError(
                Fault(
                    str(path),
                    expected="a folder that can be written",
                    found=str(error.strerror),
                    remedy="choose another place",
                )
            ) from error
    return paths


def checkpoint_files(checkpoints: Any) -> list[Path]:
    """Return the files of one or several checkpoints; a folder stands for those in it."""
    files: list[Path] = []
    one = isinstance(checkpoints, str | os.PathLike)
    for path in map(Path, [checkpoints] if one else checkpoints):
        weights = [path]
        if path.is_dir():
            best = path / "best.safetensors"
            weights = [best] if best.exists() else sorted(path.glob("*.safetensors"))
            weights = weights or sorted(path.glob("*/best.safetensors"))
        if not weights:
            fault = Fault(str(path), expected="a folder with .safetensors files", found="none")
            raise MissingDataError(str(fault))
        files += weights
    if not files:
        raise WrongCallError("checkpoints: expected one or several, found none")
    return files


def raster_of(source: Source) -> xr.DataArray:
    """Return a raster, opened if the source is a path."""
    return open_source(source) if isinstance(source, str | os.PathLike) else source


def open_inputs(inputs: Inputs | Mapping[str, Source]) -> Inputs:
    """Return the inputs as rasters with the right bands, one CRS and one vertical datum."""
    if not isinstance(inputs, Inputs):
        names = {*ROLES}
        absent = sorted(names - {"surface_filler"} - inputs.keys()) or sorted(inputs.keys() - names)
        if absent:
            raise WrongCallError(f"inputs: expected {', '.join(ROLES)}; see {absent[0]!r}")
        inputs = Inputs(**{name: raster_of(source) for name, source in inputs.items()})
    from deepbedmap import rasters

    for name, raster in rasters_by_name(inputs).items():
        bands = 2 if name == "velocity" else 1
        count = rasters.band_count(raster)
        if count != bands:
            raise InvalidDataError(
                Fault(
                    rasters.name_of(raster),
                    entry=ROLES[name],
                    field="bands",
                    expected=str(bands),
                    found=str(count),
                    remedy="name the variables: FILE:NAME, or FILE:NAME,NAME",
                )
            )
        rasters.require_same_reference(inputs.prior, raster)
    return inputs


def rasters_by_name(inputs: Inputs) -> dict[str, xr.DataArray]:
    """Return the rasters by the names of their fields, without an absent filler."""
    return {name: raster for name in ROLES if (raster := getattr(inputs, name)) is not None}


def covered_window(inputs: Inputs, bounds: Bounds | None) -> Bounds:
    """Return the bounds to predict, by default all of the prior; all inputs cover their margin."""
    from deepbedmap import rasters

    cell, covered = RESOLUTIONS["x"], rasters.bounds_of(inputs.prior)
    if bounds is None:
        xmin, ymin = covered[0] + PADDING, covered[1] + PADDING
        columns, rows = (
            math.floor((high - low - 2 * PADDING) / cell + 1e-6)
            for low, high in zip(covered[:2], covered[2:], strict=True)
        )
        bounds = xmin, ymin, xmin + columns * cell, ymin + rows * cell
    window(inputs, bounds)
    xmin, ymin, xmax, ymax = map(float, bounds)
    least = np.array([xmin, ymin, -xmax, -ymax]) - PADDING
    edges = {
        name: np.array(rasters.bounds_of(raster)) * [1, 1, -1, -1]
        for name, raster in inputs.by_name.items()
    }
    for name, outer in edges.items():
        if (outer > least + 1e-6 * cell).any():
            raster = inputs.by_name[name]
            common = np.max([*edges.values()], axis=0) + PADDING
            origin = np.array([*covered[:2], -covered[0], -covered[1]])
            inner = origin + np.ceil((common - origin) / cell - 1e-6) * cell
            inner *= [1, 1, -1, -1]
            some = (inner[:2] < inner[2:]).all()
            raise InvalidDataError(
                Fault(
                    rasters.name_of(raster),
                    expected=f"a box within the raster's bounds {_text(rasters.bounds_of(raster))}",
                    found=f"{_text(np.abs(least) * np.sign(least) * [1, 1, -1, -1])}, the window "
                    f"with {PADDING:g} m around it",
                    remedy=f"take bounds within {_text(inner)}, which all inputs cover"
                    if some
                    else "take other inputs: these have no area in common",
                )
            )
    return xmin, ymin, xmax, ymax


def _text(bounds: Iterable[float]) -> str:
    return "(" + ", ".join(f"{edge:.10g}" for edge in bounds) + ")"


def require_fitting_network(checkpoint: saved.Checkpoint, file: str) -> None:
    """Check that a network maps these inputs to a bed at 250 m."""
    expected = ", ".join(f"{name} at {cell:g} m" for name, cell in RESOLUTIONS.items())
    fault = Fault(
        file,
        field="network",
        expected=f"one from {expected} to a bed at {RESOLUTION:g} m",
        remedy="take a checkpoint that was trained on such tiles",
    )
    stated = checkpoint.metadata.get("resolutions", RESOLUTIONS)
    if stated != RESOLUTIONS:
        raise InvalidDataError(replace(fault, found=f"one for {stated}"))
    network = checkpoint.network
    tile = [torch.zeros(1, bands, cells, cells) for bands, cells in _TILE.values()]
    try:
        with torch.inference_mode():
            shape = tuple(network(*tile).shape)
    except (TypeError, ValueError, RuntimeError) as error:
        found = f"{type(network).__name__}, which takes other inputs ({error})"
        raise InvalidDataError(replace(fault, found=found)) from error
    if shape != (1, 1, 36, 36):
        found = f"one that makes {shape} of a tile of 11 x 11 km"
        raise InvalidDataError(replace(fault, found=found))


_TILE = {"x": (1, 11), "w1": (1, 110), "w2": (2, 22), "w3": (1, 11)}
