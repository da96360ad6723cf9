"""Products: a bed with all that a modeller needs beside it, as COG, CF NetCDF or Zarr.

A product is a :class:`xarray.Dataset` of layers ``(y, x)`` on the lattice of ``bed``, in chunks
that are computed when they are written, so that a continent is never held whole.
"""

from __future__ import annotations

import json
import logging
import math
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import dask.array
import h5netcdf
import h5py
import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr
from dask.base import compute

from deepbedmap import __version__, rasters
from deepbedmap.errors import Fault, InvalidDataError, MissingDataError

logger = logging.getLogger(__name__)

MASK = {"ocean": 0, "ice_free_land": 1, "grounded_ice": 2, "floating_ice": 3, "lake_vostok": 4}
"""Values of the layer ``mask``: those of BedMachine (doi 10.1038/s41561-019-0510-8)."""

UNKNOWN = 255
"""Value of the layer ``mask`` where the given mask has none."""

SOURCE = {
    "none": 0,
    "network": 1,
    "surface": 2,
    "bathymetry": 3,
    "blend": 4,
    "rock": 5,
    "ice_draft": 6,
    "flotation": 7,
}
"""Values of the layer ``source``: how the bed of a cell came about; from 2 on, corrected."""

QUALITY = {"prior": 1, "surface": 2, "velocity": 4, "accumulation": 8}
"""Bits of the layer ``quality``: which inputs the network lacked."""

REFERENCES = "https://doi.org/10.5194/tc-14-3687-2020"

ZARR_FORMAT: Literal[3] = 3

_WINDOW = 1024  # cells a side of what is computed at once, at least; of a chunk of Zarr
_CHUNK = 512  # of a chunk of NetCDF, and of a tile of a GeoTIFF
_COMPRESSION = 4

Progress = Callable[[int, int], None]


def assemble(
    bed: xr.DataArray,
    surface: xr.DataArray | None = None,
    *,
    thickness: xr.DataArray | None = None,
    mask: xr.DataArray | None = None,
    geoid: xr.DataArray | None = None,
    quality: xr.DataArray | None = None,
    source: xr.DataArray | None = None,
    members: xr.DataArray | None = None,
    provenance: Mapping[str, Any] | None = None,
    title: str = "Bed elevation by a super-resolution network",
    summary: str | None = None,
    institution: str | None = None,
    history: str | None = None,
) -> xr.Dataset:
    """Put a bed together with what belongs to it; nothing is read or computed yet.

    Parameters
    ----------
    bed
        Bed elevation (y, x) in metres, NaN where it is not known; of an ensemble, its first member.
    surface
        Ice surface elevation (y, x) in metres, on the vertical datum of the bed.
    thickness
        Ice thickness (y, x) in metres, which counts on floating ice alone.
    mask
        (y, x), values of :data:`MASK`.
    geoid
        Height (y, x) of the geoid above the ellipsoid, in metres.
    quality, source
        (y, x), bits of :data:`QUALITY` and values of :data:`SOURCE`, on the lattice of the bed. By
        default every bed is the network's.
    members
        (realization, y, x), on the lattice of the bed: all predictions of an ensemble.
    provenance
        Of what the bed was made; its ``sources`` are described by
        :func:`deepbedmap.citation.describe`. By default what the bed's attribute says.
    title, summary, institution, history
        CF's global attributes. No time stands in the default history, so that the same bed gives
        the same file.

    Returns
    -------
    xarray.Dataset
        ``bed`` and, of what is given, ``surface``, ``thickness``, ``geoid`` (float32 metres),
        ``mask``, ``quality`` and ``source`` (uint8), all (y, x), in dask's chunks, with CF's
        attributes. Surface, thickness and geoid of other cells are interpolated bilinearly at the
        centres of the bed's, a mask takes the nearest value. ``thickness`` is surface less bed on
        land; 0 in the sea and on ice-free land; on floating ice it is the one that is given, NaN
        without one. Without a mask all is taken for grounded ice.

        Of an ensemble: ``bed_members`` (realization, y, x), ``bed_mean`` and
        ``bed_standard_deviation`` (of the sample, n - 1; at least two members), NaN where a member
        is; and ``bed_error``, which is that standard deviation.

    Raises
    ------
    InvalidDataError
        A layer has no CRS, or another CRS or vertical datum than the bed, or covers nothing of it;
        quality, source or members stand on other cells.

    Examples
    --------
    >>> axes = {"y": [375.0, 125.0], "x": [125.0, 375.0]}
    >>> bed = xr.DataArray([[-800.0, -810.0], [-790.0, 20.0]], axes, ("y", "x"))
    >>> bed = bed.assign_attrs(vertical_datum="EIGEN-6C4").rio.write_crs("EPSG:3031")
    >>> product = assemble(bed, bed + 900, provenance={"sources": []})
    >>> list(product), product["thickness"].values.tolist()
    (['bed', 'surface', 'thickness', 'source'], [[900.0, 900.0], [900.0, 900.0]])
    """
    crs = rasters.require_crs(bed)
    rasters.bounds_of(bed)  # which says what is wrong with its axes
    given = bed
    bed = _chunked(bed.transpose("y", "x"))
    layers = {"bed": _plain(bed, bed)}
    if surface is not None:
        rasters.require_same_reference(given, surface)
        layers["surface"] = placed(surface, bed)
    if mask is not None:
        layers["mask"] = _placed_mask(mask, bed)
    if surface is not None:
        floating = None if thickness is None else placed(thickness, bed)
        layers["thickness"] = thickness_of(
            layers["bed"], layers["surface"], layers.get("mask"), floating
        )
    if geoid is not None:
        layers["geoid"] = placed(geoid, bed)
    if members is not None:
        layers |= _ensemble(members, bed)
    if source is None:
        layers["source"] = layers["bed"].notnull() * SOURCE["network"]
    else:
        layers["source"] = _plain(source, bed)
    layers["source"] = layers["source"].astype(np.uint8)
    if quality is not None:
        layers["quality"] = _plain(quality, bed).astype(np.uint8)

    dataset = xr.Dataset({name: layers[name] for name in _ORDER if name in layers})
    datums = {"surface": given if surface is None else surface}
    for name, layer in dataset.data_vars.items():
        layer.attrs = {"long_name": _LONG_NAMES[str(name)], **_ATTRIBUTES.get(str(name), {})}
        if name in _HEIGHTS:
            layer.attrs |= _height(str(name), datums.get(str(name), given))
    ancillary = [name for name in ("bed_error", "source", "quality") if name in dataset]
    dataset["bed"].attrs["ancillary_variables"] = " ".join(ancillary)
    if members is not None:
        count = members.sizes["realization"]
        dataset["realization"] = xr.Variable(
            "realization",
            np.arange(count, dtype=np.int32),
            {"standard_name": "realization", "long_name": "member of the ensemble", "units": "1"},
        )
        dataset["bed"].attrs["comment"] = (
            f"realization 0 of {count}: one prediction, not the mean of the ensemble, which is "
            "smoother than any bed"
        )
    made_of = given.attrs.get("provenance", "{}") if provenance is None else json.dumps(provenance)
    dataset.attrs = {
        "Conventions": "CF-1.11",
        "title": title,
        **({} if summary is None else {"summary": summary}),
        **({} if institution is None else {"institution": institution}),
        "source": f"deepbedmap {__version__}",
        "history": history or f"put together by deepbedmap {__version__}",
        "references": REFERENCES,
        "provenance": made_of,
    }
    product: xr.Dataset = dataset.rio.write_crs(crs).rio.write_coordinate_system()
    mapping = product["spatial_ref"].attrs
    if mapping.get("grid_mapping_name") == "polar_stereographic":
        # CF wants it, and pyproj leaves it out; a parallel stands on the side of its pole.
        pole = math.copysign(90.0, mapping["standard_parallel"])
        mapping.setdefault("latitude_of_projection_origin", pole)
    return product


def placed(
    raster: xr.DataArray, bed: xr.DataArray, method: rasters.Method = "linear"
) -> xr.DataArray:
    """Give a raster at the centres of a bed's cells, lazily.

    Parameters
    ----------
    raster
        (y, x), of any cells.
    bed
        (y, x), whose chunks the result has too.
    method
        How it is interpolated where its cells are not the bed's.

    Returns
    -------
    xarray.DataArray
        (y, x), float32 where it is interpolated, NaN beyond the raster; without attributes.

    Raises
    ------
    InvalidDataError
        The raster has no CRS, or another one than the bed, or covers nothing of it.

    Examples
    --------
    >>> axes = {"y": [375.0, 125.0], "x": [125.0, 375.0]}
    >>> bed = xr.DataArray(np.zeros((2, 2)), axes, ("y", "x")).rio.write_crs("EPSG:3031")
    >>> wide = {"y": [500.0, 0.0], "x": [0.0, 500.0]}
    >>> geoid = xr.DataArray([[0.0, 40.0], [0.0, 40.0]], wide, ("y", "x"))
    >>> placed(geoid.rio.write_crs("EPSG:3031"), bed).values.tolist()
    [[10.0, 30.0], [10.0, 30.0]]
    """
    crs = rasters.require_crs(raster)
    rasters.require_reference(rasters.name_of(raster), crs, None, bed)
    bed = _chunked(bed.transpose("y", "x"))
    if _shares_lattice(raster, bed):
        return _plain(raster, bed)
    ours, theirs = (np.reshape(rasters.bounds_of(each), (2, 2)) for each in (bed, raster))
    if (ours[0] >= theirs[1]).any() or (theirs[0] >= ours[1]).any():
        raise InvalidDataError(
            Fault(
                rasters.name_of(raster),
                field="bounds",
                expected=f"some of the bed's, {ours.ravel().tolist()}",
                found=str(theirs.ravel().tolist()),
            )
        )
    read = rasters.reader(raster)

    def values(y: npt.NDArray[Any], x: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        (found,) = read([(x, y)], method)
        return np.array(found, np.float32)

    axes = {dim: bed[dim].to_numpy() for dim in ("y", "x")}
    y, x = (dask.array.from_array(axes[dim], chunks=bed.chunksizes[dim]) for dim in axes)  # type: ignore[no-untyped-call]
    meta = np.empty((0, 0), np.float32)
    # Aligned they are already: dask would warn of the many chunks that two axes make.
    cells = dask.array.blockwise(  # type: ignore[no-untyped-call]
        values, "ij", y, "i", x, "j", meta=meta, align_arrays=False
    )
    return xr.DataArray(cells, axes, ("y", "x"))


def thickness_of(
    bed: xr.DataArray,
    surface: xr.DataArray,
    mask: xr.DataArray | None = None,
    floating: xr.DataArray | None = None,
) -> xr.DataArray:
    """Ice thickness on one lattice, in metres: see :func:`assemble`.

    Parameters
    ----------
    bed, surface
        Elevations (y, x), metres.
    mask
        Values of :data:`MASK`; without one all is grounded ice.
    floating
        Thickness of floating ice, metres.
    """
    thickness = surface - bed
    if mask is not None:
        free = mask.isin([MASK["ocean"], MASK["ice_free_land"]])
        afloat = np.nan if floating is None else floating
        thickness = thickness.where(mask != MASK["floating_ice"], afloat)
        thickness = thickness.where(~free, 0).where(mask != UNKNOWN)
    return thickness.astype(np.float32)


def spread_of(members: xr.DataArray) -> dict[str, xr.DataArray]:
    """Mean and spread of an ensemble, by the names of their layers: see :func:`assemble`.

    Parameters
    ----------
    members
        Bed elevations (realization, y, x), metres; nothing is said of a single one.
    """
    if members.sizes["realization"] < 2:
        return {}
    mean = members.mean("realization", skipna=False, dtype=np.float64)
    spread = members.std("realization", skipna=False, ddof=1, dtype=np.float64).astype(np.float32)
    return {
        "bed_mean": mean.astype(np.float32),
        "bed_standard_deviation": spread,
        "bed_error": spread.copy(),
    }


_ORDER = (
    "bed",
    "surface",
    "thickness",
    "mask",
    "bed_error",
    "source",
    "quality",
    "geoid",
    "bed_members",
    "bed_mean",
    "bed_standard_deviation",
)
_LONG_NAMES = {
    "bed": "bed elevation",
    "surface": "ice surface elevation",
    "thickness": "ice thickness",
    "mask": "ocean, land and ice",
    "bed_error": "spread of the bed elevation",
    "source": "how the bed elevation came about",
    "quality": "inputs that the network lacked",
    "geoid": "height of the geoid above the ellipsoid",
    "bed_members": "bed elevation of every member of the ensemble",
    "bed_mean": "mean of the bed elevations of the ensemble",
    "bed_standard_deviation": "standard deviation of the bed elevations of the ensemble",
}
_HEIGHTS = {
    "bed": "bedrock_altitude",
    "surface": "surface_altitude",
    "bed_members": "bedrock_altitude",
    "bed_mean": "bedrock_altitude",
}


def _flags(kind: str, values: Mapping[str, int], suffix: str = "") -> dict[str, Any]:
    return {
        kind: np.array(list(values.values()), np.uint8),
        "flag_meanings": " ".join(f"{meaning}{suffix}" for meaning in values),
    }


_ATTRIBUTES: dict[str, dict[str, Any]] = {
    "thickness": {"standard_name": "land_ice_thickness", "units": "m"},
    "mask": _flags("flag_values", {**MASK, "unknown": UNKNOWN}),
    "bed_error": {
        "units": "m",
        "comment": (
            "sample standard deviation of the ensemble's members: how far networks of the same "
            "inputs disagree; not how far they all are from the true bed, since errors of the "
            "prior, of the surveys and of the method, which they share, are not in it"
        ),
    },
    "source": _flags("flag_values", SOURCE),
    "quality": {"standard_name": "quality_flag"} | _flags("flag_masks", QUALITY, "_absent"),
    "geoid": {"standard_name": "geoid_height_above_reference_ellipsoid", "units": "m"},
    "bed_standard_deviation": {
        "units": "m",
        "comment": "of the sample: squares are divided by the number of members less 1",
    },
}


def _height(name: str, raster: xr.DataArray) -> dict[str, str]:
    datum = _datum(raster)
    if datum == "unknown":
        logger.warning("%s: what its heights refer to is not stated", rasters.name_of(raster))
    # CF keeps the word altitude for heights above the geoid.
    above_ellipsoid = "height_above_reference_ellipsoid"
    standard_name = above_ellipsoid if datum == "ellipsoid" else _HEIGHTS[name]
    return {"standard_name": standard_name, "units": "m", "vertical_datum": datum}


def _datum(raster: xr.DataArray) -> str:
    return raster.attrs.get("vertical_datum") or "unknown"


def _chunked(raster: xr.DataArray) -> xr.DataArray:
    """The raster in chunks: its own, where it has some."""
    return raster if raster.chunks else raster.chunk({"y": _WINDOW, "x": _WINDOW})


def _plain(raster: xr.DataArray, bed: xr.DataArray) -> xr.DataArray:
    """A raster on the bed's lattice, in its chunks, without what its file said."""
    if not _shares_lattice(raster, bed):
        raise InvalidDataError(
            Fault(
                rasters.name_of(raster),
                expected=f"the {bed.sizes['y']} x {bed.sizes['x']} cells of the bed",
                found=f"{raster.sizes['y']} x {raster.sizes['x']} others",
                remedy="give it on the cells of the bed",
            )
        )
    chunks = {dim: bed.chunksizes[dim] for dim in ("y", "x")}
    raster = raster.transpose(..., "y", "x").chunk(chunks)
    dtype = np.float32 if raster.dtype.kind == "f" else raster.dtype
    axes = {"y": bed["y"].to_numpy(), "x": bed["x"].to_numpy()}
    return xr.DataArray(raster.data.astype(dtype), axes, raster.dims)


def _shares_lattice(raster: xr.DataArray, bed: xr.DataArray) -> bool:
    cell = rasters.resolution_of(bed)
    return all(
        raster.sizes[dim] == bed.sizes[dim]
        and np.allclose(raster[dim], bed[dim], rtol=0, atol=1e-6 * cell)
        for dim in ("y", "x")
    )


def _placed_mask(mask: xr.DataArray, bed: xr.DataArray) -> xr.DataArray:
    nearest = placed(mask, bed, "nearest")
    return nearest.where(nearest.isin(list(MASK.values())), UNKNOWN).astype(np.uint8)


def _ensemble(members: xr.DataArray, bed: xr.DataArray) -> dict[str, xr.DataArray]:
    """Members of an ensemble, and their mean and spread where there are several."""
    if "realization" not in members.dims:
        raise ValueError(f"members: expected (realization, y, x), found {members.dims}")
    held = _plain(members.transpose("realization", "y", "x"), bed).chunk({"realization": 1})
    return {"bed_members": held, **spread_of(held)}


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
        As of :func:`assemble`.
    path
        Its suffix chooses: ``.tif`` for a Cloud Optimized GeoTIFF of one layer, as
        :func:`deepbedmap.rasters.write_cog` writes it; ``.nc`` for NetCDF-4 that follows CF, or
        ``.zarr`` (format 3, not consolidated) for all layers. What is there is replaced.
    layer
        Of a GeoTIFF: ``"bed"`` by default.
    dtype
        Of a GeoTIFF: see there.
    progress
        Told how many pieces of how many are written.

    Raises
    ------
    InvalidDataError
        The folder is full or cannot be written; a value does not fit the type.
    ValueError
        Another suffix; a layer or a type for other files than GeoTIFF; no such layer.

    Notes
    -----
    What is computed at once is a window of 1024 x 1024 cells of all layers, more only where the
    bed's chunks are larger; everything is computed in this process, by dask's threads.
    """
    path = Path(path)
    if path.suffix == ".tif":
        name = layer or "bed"
        if name not in dataset or dataset[name].dims != ("y", "x"):
            names = [str(n) for n in dataset.data_vars if dataset[n].dims == ("y", "x")]
            raise ValueError(f"layer: expected one of {', '.join(names)}, found {name!r}")
        raster = dataset[name].assign_attrs(
            {key: dataset.attrs[key] for key in _TOLD if key in dataset.attrs}
        )
        raster.attrs.pop("ancillary_variables", None)
        return rasters.write_cog(raster, path, dtype=dtype, progress=progress)
    if layer is not None or dtype is not None:
        raise ValueError("layer and dtype are for GeoTIFF; other files hold all layers as they are")
    if path.suffix not in (".nc", ".zarr"):
        raise ValueError(f"expected a name that ends in .tif, .nc or .zarr, not {path.name!r}")
    with rasters.workplace(path) as folder:
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


_TOLD = ("Conventions", "title", "summary", "institution", "history", "references", "provenance")


def open_product(path: str | os.PathLike[str]) -> xr.Dataset:
    """Open a product; cells are read when they are used.

    Parameters
    ----------
    path
        Of a ``.nc`` or ``.zarr`` that :func:`write`, or ``deepbedmap predict``, wrote.

    Returns
    -------
    xarray.Dataset
        As of :func:`assemble`, in the chunks of the file.

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
            dataset = xr.open_zarr(path, consolidated=False, chunks={}, decode_coords="all")
        else:
            dataset = xr.open_dataset(path, engine="h5netcdf", chunks={}, decode_coords="all")
    except (OSError, ValueError, KeyError) as error:
        raise InvalidDataError(_no_product(path, f"what cannot be read ({error})")) from error
    if "bed" not in dataset:
        raise InvalidDataError(_no_product(path, "one without a layer bed"))
    opened: xr.Dataset = dataset
    return opened


def _no_product(path: Path, found: str) -> Fault:
    return Fault(
        str(path),
        expected="a product of .nc or .zarr, as `deepbedmap predict` writes it",
        found=found,
        remedy="make it again, or open another",
    )


def _is_raster(variable: xr.DataArray) -> bool:
    return variable.dims[-2:] == ("y", "x")


def _windows(
    dataset: xr.Dataset, progress: Progress | None
) -> Iterator[tuple[dict[str, slice], dict[str, npt.NDArray[Any]]]]:
    """Windows of a product, whole chunks of its bed, and the values of all layers in each."""
    layers = {str(name): layer for name, layer in dataset.data_vars.items() if _is_raster(layer)}
    first = next(iter(layers.values()))
    steps = [-(-rasters.block_of(first, dim) // _WINDOW) * _WINDOW for dim in ("y", "x")]
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
    template = _described(dataset)
    for layer in template.data_vars.values():
        if _is_raster(layer):
            layer.encoding["chunks"] = _chunks(layer, _WINDOW)
    template.to_zarr(
        path,
        mode="w",
        compute=False,
        safe_chunks=False,  # dask's chunks do not matter: what is written are whole ones of Zarr
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
    """Chunks of a window: which of its cells, and at which cell of the file they begin."""
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
    """A chunk as HDF5's filters shuffle and gzip leave it; None where it is empty."""
    whole = np.full(shape, fill, cells.dtype)
    if np.array_equal(cells, whole[tuple(map(slice, cells.shape))], equal_nan=True):
        return None
    whole[tuple(map(slice, cells.shape))] = cells
    shuffled = whole.reshape(-1, 1).view(np.uint8).T
    return zlib.compress(shuffled.tobytes(), _COMPRESSION)


def _described(dataset: xr.Dataset) -> xr.Dataset:
    """The product as its file describes it: without what other files said of its encoding."""
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
