"""Correct the cells of a product that fail a check."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import dask.array as da
import numpy as np
import xarray as xr

from deepbedmap.products.assembling import spread_of, thickness_of
from deepbedmap.products.attributes import SOURCE
from deepbedmap.products.check_report import Limits
from deepbedmap.products.checking import examine
from deepbedmap.products.chunking import bed_of, by_chunk, in_chunks_of
from deepbedmap.products.rules import correct_chunk, layers_in_float64

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Literal

    from deepbedmap.products.check_report import Report
    from deepbedmap.products.rules import Array, Policy


def correct(
    dataset: xr.Dataset,
    *,
    policies: Mapping[str, Policy] | Policy | None = "correct",
    geoid: xr.DataArray | None = None,
    rock: xr.DataArray | None = None,
    limits: Limits | None = None,
) -> tuple[xr.Dataset, Report]:
    """Correct the cells of a product that fail a check whose policy is ``"correct"``.

    Parameters, errors and the report are the same as for :func:`check`, which reads every cell once
    before this returns.

    Returns
    -------
    xarray.Dataset
        The product, lazily: ``bed`` corrected; ``thickness``, if there is one, recomputed in these
        cells (:func:`deepbedmap.products.thickness_of`); ``source`` with the values of
        :data:`deepbedmap.products.SOURCE`. Every member of an ensemble is corrected separately, and
        mean and spread are recomputed from the corrected members.
    Report
        Report on ``bed`` only. Cells that still fail are ``left``: grounded ice whose surface is
        below
        the sea floats whatever its bed.

    Examples
    --------
    >>> import rioxarray
    >>> axes = {"y": [375, 125], "x": [125, 375]}
    >>> bed = xr.DataArray([[-900.0, 40.0], [-300.0, np.nan]], axes).rio.write_crs("EPSG:3031")
    >>> corrected, report = correct(xr.Dataset({"bed": bed, "surface": xr.zeros_like(bed)}))
    >>> corrected["bed"].values.tolist(), report["thickness"].corrected
    ([[-900.0, 0.0], [-300.0, nan]], 1)
    """
    limits = limits or Limits()
    report, layers, corrections = examine(dataset, policies, geoid, rock, limits, correcting=True)
    bed = bed_of(dataset)
    correction = partial(_correct, names=tuple(layers), corrections=corrections, limits=limits)

    def corrected(cells: da.Array) -> da.Array:
        values = (layers | {"bed": cells}).values()
        return by_chunk(partial(correction, layer="bed"), bed, *values, dtype=bed.dtype)

    flags = by_chunk(partial(correction, layer="source"), bed, *layers.values(), dtype=np.uint8)
    source = da.where(flags > 0, flags, source_of(dataset, bed))
    source = da.where(da.isnan(corrected(bed.data)), np.uint8(SOURCE["none"]), source)
    return with_new_bed(dataset, corrected, source, flags > 0), report


def _correct(
    *values: Array,
    names: tuple[str, ...],
    corrections: tuple[str, ...],
    limits: Limits,
    layer: Literal["bed", "source"],
) -> Array:
    bed, source = correct_chunk(
        layers_in_float64(names, values), corrections, limits, values[0].dtype
    )
    corrected: Array = bed.astype(values[0].dtype) if layer == "bed" else source
    return corrected


def source_of(dataset: xr.Dataset, bed: xr.DataArray) -> da.Array:
    """Return how the bed came about so far: by the network unless the product states it."""
    if "source" in dataset:
        return in_chunks_of(dataset["source"], bed)
    absent = da.isnan(bed.data)
    source: da.Array = da.where(absent, np.uint8(SOURCE["none"]), np.uint8(SOURCE["network"]))
    return source


def source_layer(dataset: xr.Dataset, bed: xr.DataArray, source: da.Array) -> xr.DataArray:
    """Return the layer ``source`` with its possible flags."""
    layer = xr.DataArray(source, bed.coords, ("y", "x")).astype(np.uint8)
    layer.attrs = {
        "long_name": "how the bed elevation came about",
        **(dataset["source"].attrs if "source" in dataset else {}),
        "flag_values": np.array(list(SOURCE.values()), np.uint8),
        "flag_meanings": " ".join(SOURCE),
    }
    return layer


def with_new_bed(
    dataset: xr.Dataset,
    remake: Callable[[da.Array], da.Array],
    source: da.Array,
    changed: da.Array,
) -> xr.Dataset:
    """Return the product with another bed and members, and layers that follow from them.

    ``changed`` states where the bed is new, and thickness is recomputed.
    """
    bed = bed_of(dataset)
    layers = {"bed": bed.copy(data=remake(bed.data)), "source": source_layer(dataset, bed, source)}
    if {"surface", "thickness"} <= dataset.keys():
        chunks = dict(bed.chunksizes)
        surface, thickness = (dataset[name].chunk(chunks) for name in ("surface", "thickness"))
        mask = dataset["mask"].chunk(chunks) if "mask" in dataset else None
        updated = thickness_of(layers["bed"], surface, mask, thickness)
        layers["thickness"] = thickness.where(~bed.copy(data=changed), updated)
    if "bed_members" in dataset:
        members = dataset["bed_members"].transpose("realization", "y", "x")
        remade = [remake(in_chunks_of(member, bed)) for member in members]
        stacked = da.stack(remade)  # type: ignore[no-untyped-call]
        layers["bed_members"] = members.copy(data=stacked)
        for name, layer in spread_of(layers["bed_members"]).items():
            if name in dataset:
                layers[name] = layer
                layer.attrs = dict(dataset[name].attrs)
    return dataset.assign(layers)
