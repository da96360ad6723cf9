"""The bed of a product in chunks, and functions of each chunk, with or without a margin.

No result depends on the size of the chunks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import dask.array as da
import numpy as np

from deepbedmap import rasters
from deepbedmap.errors import Fault, InvalidDataError, WrongCallError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt
    import xarray as xr

    from deepbedmap.products.rules import Array

_CHUNK = 1024  # cells a side, of layers that have no chunks


def product_name(dataset: xr.Dataset) -> str:
    """Return the file that a dataset was opened from, or "dataset", for messages."""
    return str(dataset.encoding.get("source") or "dataset")


def bed_of(dataset: xr.Dataset) -> xr.DataArray:
    """Return the bed (y, x) of a product, in chunks, with a valid CRS and consistent datums."""
    if "bed" not in dataset or set(dataset["bed"].dims) != {"y", "x"}:
        layers = ", ".join(f"{name} {layer.dims}" for name, layer in dataset.items())
        raise InvalidDataError(
            Fault(
                product_name(dataset),
                field="bed",
                expected="a layer bed along y and x",
                found=layers or "no layer",
            )
        )
    bed = dataset["bed"].transpose("y", "x")
    rasters.bounds_of(bed)  # raises if its axes are invalid
    rasters.require_crs(bed)
    for name in ("surface", "bed_members", "bed_mean"):
        if name in dataset:
            label, datum = f"{product_name(dataset)}, {name}", rasters.stated_datum(dataset[name])
            rasters.require_reference(label, None, datum, bed)
    return bed if bed.chunks else bed.chunk({"y": _CHUNK, "x": _CHUNK})


def in_chunks_of(layer: xr.DataArray, bed: xr.DataArray) -> da.Array:
    """Return a layer as a dask array (y, x) in the chunks of the bed."""
    cells: da.Array = layer.transpose("y", "x").chunk(dict(bed.chunksizes)).data
    return cells


def nonzero_cells(raster: xr.DataArray, bed: xr.DataArray, name: str) -> da.Array:
    """Return where a raster is nonzero; its cells must be the bed's."""
    for axis in ("y", "x"):
        if axis not in raster.coords or not np.array_equal(raster[axis], bed[axis]):
            raise WrongCallError(f"{name} must be on the cells of the bed; {axis} differs")
    return in_chunks_of(raster.fillna(0) != 0, bed)


def cell_axes(bed: xr.DataArray) -> tuple[da.Array, da.Array]:
    """Return x (1, columns) and y (rows, 1) of a bed in metres, in its chunks."""
    rows, columns = bed.data.chunks
    x, y = (bed[axis].to_numpy().astype(np.float64) for axis in ("x", "y"))
    return (
        da.from_array(x[np.newaxis], chunks=((1,), columns)),  # type: ignore[no-untyped-call]
        da.from_array(y[:, np.newaxis], chunks=(rows, (1,))),  # type: ignore[no-untyped-call]
    )


def by_chunk(
    function: Callable[..., Array],
    bed: xr.DataArray,
    *arrays: da.Array,
    dtype: npt.DTypeLike,
    chunks: tuple[tuple[int, ...], ...] | None = None,
) -> da.Array:
    """Apply a function to each of the bed's chunks."""
    meta = np.empty((0, 0), dtype)
    result: da.Array = da.map_blocks(  # type: ignore[no-untyped-call]
        function, *arrays, dtype=dtype, chunks=chunks or bed.chunks, meta=meta
    )
    return result


def with_margin(
    function: Callable[[Array], Array],
    bed: xr.DataArray,
    array: da.Array,
    margin: int,
    dtype: npt.DTypeLike,
) -> da.Array:
    """Apply a function to each of the bed's chunks with a margin of cells around it."""
    result: da.Array = da.map_overlap(  # type: ignore[no-untyped-call]
        function,
        array,
        depth={axis: min(margin, count) for axis, count in enumerate(bed.shape)},
        boundary="none",
        dtype=dtype,
        meta=np.empty((0, 0), dtype),
    ).rechunk(bed.chunks)  # dask merges chunks narrower than the margin
    return result
