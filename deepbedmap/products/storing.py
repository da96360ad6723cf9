"""Write a product as COG, CF NetCDF or Zarr, chunk by chunk, and open it."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import h5netcdf
import h5py
import numpy as np
import xarray as xr
from dask.base import compute

from deepbedmap import files, rasters
from deepbedmap.errors import Fault, InvalidDataError, MissingDataError, WrongCallError
from deepbedmap.extras import required_extra
from deepbedmap.products import assembling
from deepbedmap.rasters.writing import ZARR_FORMAT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Literal

    import numpy.typing as npt

_CHUNK = 512  # cells per side of a chunk of NetCDF, and of a tile of a GeoTIFF
_COMPRESSION = 4
Progress = Callable[[int, int], None]


def write(
    dataset: xr.Dataset,
    path: str | os.PathLike[str],
    *,
    layer: str | None = None,
    dtype: Literal["float32", "int16"] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write a product, chunk by chunk; its file appears complete or not at all.

    Parameters
    ----------
    dataset
        The product, as returned by :func:`assemble`.
    path
        The suffix chooses the format: ``.tif`` for a Cloud Optimized GeoTIFF of one layer, as
        :func:`deepbedmap.rasters.write_cog` writes it; ``.nc`` for NetCDF-4 that follows CF, or
        ``.zarr`` (format 3, not consolidated) for all layers. An existing file is replaced.
    layer
        Layer of a GeoTIFF: ``"bed"`` by default.
    dtype
        Type of a GeoTIFF: see :func:`deepbedmap.rasters.write_cog`.
    progress
        Called with the number of written pieces and the number of all pieces.

    Raises
    ------
    InvalidDataError
        The folder is full or cannot be written; a value does not fit the type.
    ValueError
        Another suffix; a layer or a type for a file other than GeoTIFF; no such layer.

    Notes
    -----
    A window of 1024 x 1024 cells of all layers is computed at once, more only if the bed's chunks
    are larger; everything is computed in this process, by dask's threads.
    """
    path = Path(path)
    if path.suffix == ".tif":
        name = layer or "bed"
        if name not in dataset or dataset[name].dims != ("y", "x"):
            names = [str(n) for n in dataset.data_vars if dataset[n].dims == ("y", "x")]
            raise WrongCallError(f"layer: expected one of {', '.join(names)}, found {name!r}")
        raster = dataset[name].assign_attrs(
            {key: dataset.attrs[key] for key in _GLOBAL_ATTRIBUTES if key in dataset.attrs}
        )
        raster.attrs.pop("ancillary_variables", None)
        return rasters.write_cog(raster, path, dtype=dtype, progress=progress)
    if layer is not None or dtype is not None:
        raise WrongCallError(
            "layer and dtype are for GeoTIFF; other files hold all layers as they are"
        )
    if path.suffix not in (".nc", ".zarr"):
        raise WrongCallError(f"expected a name that ends in .tif, .nc or .zarr, not {path.name!r}")
    with files.workplace(path) as folder:
        product = folder / path.name
        if path.suffix == ".nc":
            _write_netcdf(dataset, product, progress)
        else:
            _write_zarr(dataset, product, progress)
        if path.is_dir():
            path.rename(folder / "replaced")
        elif product.is_dir():
            path.unlink(missing_ok=True)
        product.replace(path)
    return path


_GLOBAL_ATTRIBUTES = (
    "Conventions",
    "title",
    "summary",
    "institution",
    "history",
    "references",
    "provenance",
)


def open_product(path: str | os.PathLike[str]) -> xr.Dataset:
    """Open a product; cells are read when they are used.

    Parameters
    ----------
    path
        A ``.nc`` or ``.zarr`` that :func:`write`, or ``deepbedmap predict``, wrote.

    Returns
    -------
    xarray.Dataset
        The layers of :func:`assemble`, in the chunks of the file.

    Raises
    ------
    MissingDataError
        There is no such file.
    InvalidDataError
        It cannot be read, or has no ``bed``.
    """
    path = Path(path)
    if not path.exists():
        raise MissingDataError(
            f"{path}: no such product; `deepbedmap predict CHECKPOINT --out {path} --prior FILE "
            "--surface FILE --velocity FILE --accumulation FILE` makes it"
        )
    try:
        if path.is_dir():
            with required_extra("model"):
                import zarr  # noqa: F401  # xarray reads stores with it
            dataset = xr.open_zarr(path, consolidated=False, chunks={}, decode_coords="all")
        else:
            dataset = xr.open_dataset(path, engine="h5netcdf", chunks={}, decode_coords="all")
    except (OSError, ValueError, KeyError) as error:
        raise InvalidDataError(_no_product(path, f"an unreadable file ({error})")) from error
    if "bed" not in dataset:
        raise InvalidDataError(_no_product(path, "a file without a layer bed"))
    opened: xr.Dataset = dataset
    return opened


def _no_product(path: Path, found: str) -> Fault:
    return Fault(
        str(path),
        expected="a .nc or .zarr product written by `deepbedmap predict`",
        found=found,
        remedy="make it again, or open another",
    )


def _is_raster(variable: xr.DataArray) -> bool:
    return variable.dims[-2:] == ("y", "x")


def _windows(
    dataset: xr.Dataset, progress: Progress | None
) -> Iterator[tuple[dict[str, slice], dict[str, npt.NDArray[Any]]]]:
    """Yield windows of a product, whole chunks of its bed, and the values of all layers in each."""
    layers = {str(name): layer for name, layer in dataset.data_vars.items() if _is_raster(layer)}
    first = next(iter(layers.values()))
    steps = [
        -(-rasters.block_of(first, dim) // assembling.WINDOW) * assembling.WINDOW
        for dim in ("y", "x")
    ]
    corners = [
        (top, left)
        for top in range(0, dataset.sizes["y"], steps[0])
        for left in range(0, dataset.sizes["x"], steps[1])
    ]
    for number, corner in enumerate(corners, 1):
        window = {
            dim: slice(start, min(start + step, dataset.sizes[dim]))
            for dim, start, step in zip(("y", "x"), corner, steps, strict=True)
        }
        cells = {name: layer.isel(window).data for name, layer in layers.items()}
        (values,) = compute(cells, scheduler="threads")  # type: ignore[no-untyped-call]
        yield window, values
        if progress is not None:
            progress(number, len(corners))


def _write_zarr(dataset: xr.Dataset, path: Path, progress: Progress | None) -> None:
    with required_extra("model"):
        import zarr

    template = _described(dataset)
    for layer in template.data_vars.values():
        if _is_raster(layer):
            layer.encoding["chunks"] = _chunks(layer, assembling.WINDOW)
    template.to_zarr(
        path,
        mode="w",
        compute=False,
        safe_chunks=False,  # dask's chunks do not matter: whole chunks of Zarr are written
        zarr_format=ZARR_FORMAT,
        consolidated=False,
    )
    group = zarr.open_group(path, mode="r+", zarr_format=ZARR_FORMAT)
    for window, values in _windows(dataset, progress):
        for name, cells in values.items():
            group[name][..., window["y"], window["x"]] = cells


def _write_netcdf(dataset: xr.Dataset, path: Path, progress: Progress | None) -> None:
    template = _described(dataset)
    layers = {str(name): layer for name, layer in template.data_vars.items() if _is_raster(layer)}
    header = template.drop_vars(layers)
    # A grid mapping that is a coordinate would be named as one in a global attribute.
    header.reset_coords("spatial_ref").to_netcdf(path, engine="h5netcdf")
    with h5netcdf.File(path, "r+") as file:
        for name, layer in layers.items():
            variable = file.create_variable(
                name,
                layer.dims,
                layer.dtype,
                chunks=_chunks(layer, _CHUNK),
                compression="gzip",
                compression_opts=_COMPRESSION,
                shuffle=True,
                fillvalue=layer.encoding.get("_FillValue"),
            )
            variable.attrs.update(layer.attrs | {"grid_mapping": "spatial_ref"})
    # HDF5 would compress one chunk at a time.
    with h5py.File(path, "r+") as file, ThreadPoolExecutor(os.cpu_count()) as pool:
        for window, values in _windows(dataset, progress):
            for name, cells in values.items():
                array = file[name]
                packed = pool.map(
                    lambda chunk, array=array: _packed(chunk, array.chunks, array.fillvalue),
                    (cells[part] for part, _ in _parts(window, cells.shape)),
                )
                for (_, offset), data in zip(_parts(window, cells.shape), packed, strict=True):
                    if data is not None:
                        array.id.write_direct_chunk(offset, data)


def _parts(
    window: dict[str, slice], shape: tuple[int, ...]
) -> Iterator[tuple[tuple[slice | int, ...], tuple[int, ...]]]:
    """Yield the chunks of a window: their cells in it, and their first cell in the file."""
    for number in np.ndindex(shape[:-2]):
        for row in range(0, shape[-2], _CHUNK):
            for column in range(0, shape[-1], _CHUNK):
                cells = slice(row, row + _CHUNK), slice(column, column + _CHUNK)
                offset = window["y"].start + row, window["x"].start + column
                yield (
                    (*(slice(index, index + 1) for index in number), *cells),
                    (*number, *offset),
                )


def _packed(
    cells: npt.NDArray[Any], shape: tuple[int, ...], fill: float | np.generic
) -> bytes | None:
    """Return a chunk shuffled and compressed as by HDF5's filters; None if it is empty."""
    whole = np.full(shape, fill, cells.dtype)
    if np.array_equal(cells, whole[tuple(map(slice, cells.shape))], equal_nan=True):
        return None
    whole[tuple(map(slice, cells.shape))] = cells
    shuffled = whole.reshape(-1, 1).view(np.uint8).T
    return zlib.compress(shuffled.tobytes(), _COMPRESSION)


def _described(dataset: xr.Dataset) -> xr.Dataset:
    """Return the product as its file describes it, without the encoding of other files."""
    template = dataset.drop_encoding()
    for layer in template.data_vars.values():
        layer.encoding["grid_mapping"] = "spatial_ref"
        layer.attrs.pop("grid_mapping", None)
        if layer.dtype.kind == "f":
            layer.encoding["_FillValue"] = layer.dtype.type(np.nan)
    for name in template.coords:
        template[name].encoding["_FillValue"] = None
    return template


def _chunks(layer: xr.DataArray, side: int) -> tuple[int, ...]:
    return (*(1 for _ in layer.shape[:-2]), *(min(side, count) for count in layer.shape[-2:]))
