"""Assemble a product: bed, surface, thickness, mask and geoid on the lattice of the bed.

Layers are lazy, in dask's chunks, so that a continent is never held in memory as a whole.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import dask.array
import numpy as np
import xarray as xr

from deepbedmap import __version__, rasters
from deepbedmap.errors import Fault, InvalidDataError, WrongCallError
from deepbedmap.products.attributes import (
    ATTRIBUTES,
    HEIGHTS,
    LONG_NAMES,
    MASK,
    ORDER,
    REFERENCES,
    SOURCE,
    UNKNOWN,
    height_attributes,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    import numpy.typing as npt
    import pyproj

WINDOW = 1024  # cells per side of a window that is computed at once, and of a chunk of Zarr


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
    """Assemble a product from a bed and its other layers, lazily.

    Parameters
    ----------
    bed
        Bed elevation (y, x) in metres, NaN where unknown; of an ensemble, its first member.
    surface
        Ice surface elevation (y, x) in metres, on the vertical datum of the bed.
    thickness
        Ice thickness (y, x) in metres, used only on floating ice.
    mask
        (y, x), values of :data:`MASK`.
    geoid
        Height (y, x) of the geoid above the ellipsoid, in metres.
    quality, source
        (y, x), bits of :data:`QUALITY` and values of :data:`SOURCE`, on the lattice of the bed. By
        default the source of every bed is the network.
    members
        (realization, y, x), on the lattice of the bed: all predictions of an ensemble.
    provenance
        Provenance of the bed, whose ``sources`` are described by
        :func:`deepbedmap.provenance.describe_file`. By default the bed's attribute.
    title, summary, institution, history
        CF's global attributes. The default history states no time, so that the same bed gives the
        same file.

    Returns
    -------
    xarray.Dataset
        ``bed``, ``source`` and, as far as their inputs exist, ``surface``, ``thickness``, ``geoid``
        (float32 metres), ``mask`` and ``quality`` (uint8 like ``source``), all (y, x), in dask's
        chunks, with CF's attributes. Surface, thickness and geoid on other cells are interpolated
        bilinearly at the centres of the bed's cells, a mask takes the nearest value. ``thickness``
        is surface less bed on land; 0 in the sea and on ice-free land; on floating ice it is the
        argument, NaN without one. Without a mask all ice counts as grounded.

        Of an ensemble: ``bed_members`` (realization, y, x), ``bed_mean`` and
        ``bed_standard_deviation`` (of the sample, n - 1; at least two members), NaN where a member
        is NaN; and ``bed_error``, which equals that standard deviation.

    Raises
    ------
    InvalidDataError
        A layer has no CRS, or another CRS or vertical datum than the bed, or does not overlap it;
        quality, source or members are on other cells.

    Examples
    --------
    >>> import rioxarray
    >>> axes = {"y": [375.0, 125.0], "x": [125.0, 375.0]}
    >>> bed = xr.DataArray([[-800.0, -810.0], [-790.0, 20.0]], axes, ("y", "x"))
    >>> bed = bed.assign_attrs(vertical_datum="EIGEN-6C4").rio.write_crs("EPSG:3031")
    >>> product = assemble(bed, bed + 900, provenance={"sources": []})
    >>> list(product), product["thickness"].values.tolist()
    (['bed', 'surface', 'thickness', 'source'], [[900.0, 900.0], [900.0, 900.0]])
    """
    crs = rasters.require_crs(bed)
    rasters.bounds_of(bed)  # raises if its axes are invalid
    original = bed
    bed = _chunked(bed.transpose("y", "x"))
    layers = {"bed": _plain(bed, bed)}
    if surface is not None:
        rasters.require_same_reference(original, surface)
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

    dataset = xr.Dataset({name: layers[name] for name in ORDER if name in layers})
    _describe_layers(dataset, original, original if surface is None else surface)
    if members is not None:
        _describe_ensemble(dataset, members.sizes["realization"])
    optional = {"summary": summary, "institution": institution}
    stated = original.attrs.get("provenance", "{}")
    dataset.attrs = {
        "Conventions": "CF-1.11",
        "title": title,
        **{name: text for name, text in optional.items() if text is not None},
        "source": f"deepbedmap {__version__}",
        "history": history or f"put together by deepbedmap {__version__}",
        "references": REFERENCES,
        "provenance": stated if provenance is None else json.dumps(provenance),
    }
    return _with_grid_mapping(dataset, crs)


def _describe_layers(dataset: xr.Dataset, bed: xr.DataArray, surface: xr.DataArray) -> None:
    """Set the CF attributes of the layers, with the datums of the bed and the surface."""
    datums = {"surface": surface}
    for name, layer in dataset.data_vars.items():
        layer.attrs = {"long_name": LONG_NAMES[str(name)], **ATTRIBUTES.get(str(name), {})}
        if name in HEIGHTS:
            layer.attrs |= height_attributes(str(name), datums.get(str(name), bed))
    ancillary = [name for name in ("bed_error", "source", "quality") if name in dataset]
    dataset["bed"].attrs["ancillary_variables"] = " ".join(ancillary)


def _describe_ensemble(dataset: xr.Dataset, count: int) -> None:
    """Number the members of an ensemble, and state which of them is the bed."""
    dataset["realization"] = xr.Variable(
        "realization",
        np.arange(count, dtype=np.int32),
        {"standard_name": "realization", "long_name": "member of the ensemble", "units": "1"},
    )
    dataset["bed"].attrs["comment"] = (
        f"realization 0 of {count}: one prediction, not the mean of the ensemble, which is "
        "smoother than any bed"
    )


def _with_grid_mapping(dataset: xr.Dataset, crs: pyproj.CRS) -> xr.Dataset:
    """Return a product with CF's grid mapping and coordinate attributes."""
    product: xr.Dataset = dataset.rio.write_crs(crs).rio.write_coordinate_system()
    mapping = product["spatial_ref"].attrs
    if mapping.get("grid_mapping_name") == "polar_stereographic":
        # CF requires it and pyproj omits it; the standard parallel is in the pole's hemisphere.
        pole = math.copysign(90.0, mapping["standard_parallel"])
        mapping.setdefault("latitude_of_projection_origin", pole)
    return product


def placed(
    raster: xr.DataArray, bed: xr.DataArray, method: rasters.Method = "linear"
) -> xr.DataArray:
    """Return a raster at the centres of a bed's cells, lazily.

    Parameters
    ----------
    raster
        (y, x), on any cells.
    bed
        (y, x), whose chunks the result has.
    method
        Interpolation, unless its cells are the bed's.

    Returns
    -------
    xarray.DataArray
        (y, x), float32 if interpolated, NaN beyond the raster; without attributes.

    Raises
    ------
    InvalidDataError
        The raster has no CRS, or another one than the bed, or does not overlap it.

    Examples
    --------
    >>> import rioxarray
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
        (heights,) = read([(x, y)], method)
        return np.array(heights, np.float32)

    axes = {dim: bed[dim].to_numpy() for dim in ("y", "x")}
    y, x = (dask.array.from_array(axes[dim], chunks=bed.chunksizes[dim]) for dim in axes)  # type: ignore[no-untyped-call]
    meta = np.empty((0, 0), np.float32)
    # The chunks are aligned already: dask would warn of the many chunks that two axes make.
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
    """Return the ice thickness (y, x) on one lattice, in metres: see :func:`assemble`.

    Parameters
    ----------
    bed, surface
        Elevations (y, x), metres.
    mask
        (y, x), values of :data:`MASK`; without one all ice is grounded.
    floating
        Thickness (y, x) of floating ice, metres.
    """
    thickness = surface - bed
    if mask is not None:
        free = mask.isin([MASK["ocean"], MASK["ice_free_land"]])
        afloat = np.nan if floating is None else floating
        thickness = thickness.where(mask != MASK["floating_ice"], afloat)
        thickness = thickness.where(~free, 0).where(mask != UNKNOWN)
    return thickness.astype(np.float32)


def spread_of(members: xr.DataArray) -> dict[str, xr.DataArray]:
    """Return mean and spread of an ensemble by the names of their layers: see :func:`assemble`.

    Parameters
    ----------
    members
        Bed elevations (realization, y, x), metres; a single member gives no layers.
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


def _chunked(raster: xr.DataArray) -> xr.DataArray:
    """Return the raster in chunks: its own, if it has any."""
    return raster if raster.chunks else raster.chunk({"y": WINDOW, "x": WINDOW})


def _plain(raster: xr.DataArray, bed: xr.DataArray) -> xr.DataArray:
    """Return a raster on the bed's lattice, in its chunks, without attributes and encoding."""
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
    """Return the members of an ensemble, and mean and spread if there are several."""
    if "realization" not in members.dims:
        raise WrongCallError(f"members: expected (realization, y, x), found {members.dims}")
    lazy = _plain(members.transpose("realization", "y", "x"), bed).chunk({"realization": 1})
    return {"bed_members": lazy, **spread_of(lazy)}
