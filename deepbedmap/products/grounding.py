"""Cut a product at the grounding line, or blend it into bathymetry across the line."""

from __future__ import annotations

import math
import os
from functools import partial
from typing import TYPE_CHECKING

import dask.array as da
import geopandas as gpd
import numpy as np
import xarray as xr

from deepbedmap import rasters
from deepbedmap.errors import Fault, InvalidDataError, WrongCallError
from deepbedmap.extras import required_extra
from deepbedmap.products.assembling import placed
from deepbedmap.products.attributes import SOURCE
from deepbedmap.products.chunking import (
    bed_of,
    by_chunk,
    cell_axes,
    nonzero_cells,
    with_margin,
)
from deepbedmap.products.correction import source_layer, source_of, with_new_bed

if TYPE_CHECKING:
    from typing import TypeAlias

    import numpy.typing as npt
    import shapely

    from deepbedmap.products.rules import Array

    Outline: TypeAlias = gpd.GeoDataFrame | str | os.PathLike[str] | xr.DataArray


def cut_at_grounding_line(dataset: xr.Dataset, outline: Outline) -> xr.Dataset:
    """Keep the bed only on grounded ice.

    Parameters
    ----------
    dataset
        The product.
    outline
        Polygons of the grounded ice or their file, as :func:`deepbedmap.tiles.grounded` takes them,
        in the product's CRS; or a raster on its cells that is nonzero on grounded ice, such as
        ``dataset["mask"].isin([1, 2, 4])``. A cell is grounded where its centre is.

    Returns
    -------
    xarray.Dataset
        The product, lazily: NaN in ``thickness`` and in all layers of the bed where a cell is not
        grounded, and 0 in ``source``.

    Raises
    ------
    InvalidDataError
        The outline cannot be read, or has another CRS; there is no bed.
    MissingDataError
        There is no such file.
    ValueError
        The outline is a raster on other cells.
    """
    bed = bed_of(dataset)
    grounded = xr.DataArray(_grounded(outline, bed), bed.coords, bed.dims)
    cut = {
        str(name): layer.chunk(dict(bed.chunksizes)).where(grounded)
        for name, layer in dataset.items()
        if name == "thickness" or str(name).split("_")[0] == "bed"
    }
    source = da.where(grounded.data, source_of(dataset, bed), np.uint8(SOURCE["none"]))
    return dataset.assign({**cut, "source": source_layer(dataset, bed, source)})


def blend(
    dataset: xr.Dataset,
    bathymetry: xr.DataArray,
    outline: Outline,
    width: float,
) -> xr.Dataset:
    """Blend a bed into bathymetry across the grounding line.

    Parameters
    ----------
    dataset
        The product.
    bathymetry
        Bed elevation (y, x), metres, in the product's CRS and on its vertical datum; interpolated
        bilinearly.
    outline
        Outline of the grounded ice, as :func:`cut_at_grounding_line` takes it.
    width
        Metres on each side of the grounding line, across which the share of the bathymetry falls
        from 1 at sea to 0 on land as half a wave of a cosine; 0.5 at the line itself. Distance is
        from the centre of a cell to the edge of the nearest cell on the other side.

    Returns
    -------
    xarray.Dataset
        The product, lazily: ``bed``; ``thickness``, if there is one, recomputed from it on
        grounded ice; ``source``, which separates ``bathymetry`` from ``blend``. Where the
        bathymetry has no value the bed is unchanged; where the bed has none, bathymetry replaces
        it, except on land beyond the width. Every member of an ensemble is blended too, and mean
        and spread are recomputed from the members.

    Raises
    ------
    InvalidDataError, MissingDataError
        As for :func:`cut_at_grounding_line`; or bed and bathymetry differ in CRS or vertical datum,
        only one states its datum, or the bathymetry does not overlap the bed.
    ValueError
        The width is negative, or the outline is a raster on other cells.
    """
    if not width >= 0:
        raise WrongCallError(f"width {width} must not be negative")
    bed = bed_of(dataset)
    _require_same_heights(bed, bathymetry)
    cell = rasters.resolution_of(bed)
    reach = max(width, cell / 2)
    depths = placed(bathymetry, bed).data
    # Where a cell of the other side is within reach, the margin of a chunk holds it.
    margin = math.ceil(reach / cell) + 1
    distance = partial(_inland_distance, cell=cell, reach=reach)
    inland = with_margin(distance, bed, _grounded(outline, bed), margin, dtype=np.float64)
    profile = 0.5 + 0.5 * da.cos(np.pi * (inland + reach) / (2 * reach))
    profile = da.where(da.isnan(depths), 0.0, profile)

    def bathymetry_share(cells: da.Array) -> da.Array:
        share: da.Array = da.where(da.isnan(cells) & (profile > 0), 1.0, profile)
        return share

    def blend_into(cells: da.Array) -> da.Array:
        share = bathymetry_share(cells)
        mixed = da.where(share == 1, depths, share * depths + (1 - share) * cells)
        blended: da.Array = da.where(share == 0, cells, mixed).astype(bed.dtype)
        return blended

    share = bathymetry_share(bed.data)
    bathymetry_or_blend = da.where(share == 1, SOURCE["bathymetry"], SOURCE["blend"])
    source = da.where(share == 0, source_of(dataset, bed), bathymetry_or_blend)
    return with_new_bed(dataset, blend_into, source, share > 0)


def _require_same_heights(bed: xr.DataArray, bathymetry: xr.DataArray) -> None:
    rasters.require_same_reference(bed, bathymetry)
    for unknown, known in ((bed, bathymetry), (bathymetry, bed)):
        if rasters.stated_datum(unknown) is None and rasters.stated_datum(known) is not None:
            raise InvalidDataError(
                Fault(
                    rasters.name_of(unknown),
                    field="vertical_datum",
                    expected=f"{rasters.stated_datum(known)} as in {rasters.name_of(known)}",
                    found="unknown",
                    remedy="state it, or convert it: `deepbedmap convert`",
                )
            )


def _grounded(outline: Outline, bed: xr.DataArray) -> da.Array:
    """Return whether the centre of each cell (y, x) is on grounded ice."""
    if isinstance(outline, xr.DataArray):
        return nonzero_cells(outline, bed, "outline")
    from deepbedmap import tiles

    ice, crs = tiles.grounded_ice(outline)
    rasters.require_reference("grounding line", crs, None, bed)
    inside = partial(_inside, ice, cell=rasters.resolution_of(bed))
    return by_chunk(inside, bed, *cell_axes(bed), dtype=bool)


def _inside(ice: shapely.MultiPolygon, x: Array, y: Array, cell: float) -> npt.NDArray[np.bool_]:
    """Return whether the centre of each cell (y, x) is in a polygon."""
    import rasterio.features
    import rasterio.transform
    import shapely

    columns, rows = x[0], y[:, 0]
    west, east = columns.min() - cell / 2, columns.max() + cell / 2
    south, north = rows.min() - cell / 2, rows.max() + cell / 2
    # All vertices of the continent would take longer than the cells; the cuts are outside these.
    nearby = shapely.clip_by_rect(ice, west - cell, south - cell, east + cell, north + cell)
    parts = [part for part in shapely.get_parts(nearby) if part.geom_type == "Polygon"]
    inside = np.zeros((rows.size, columns.size), np.uint8)
    if parts:
        transform = rasterio.transform.from_origin(west, north, cell, cell)
        rasterio.features.rasterize(parts, out=inside, transform=transform)
    down = 1 if rows[0] >= rows[-1] else -1
    across = 1 if columns[0] <= columns[-1] else -1
    return inside[::down, ::across] > 0


def _inland_distance(
    grounded: npt.NDArray[np.bool_], cell: float, reach: float
) -> npt.NDArray[np.float64]:
    """Return metres to the nearest cell on the other side, positive on land, clipped at a reach."""
    with required_extra("model"):
        from scipy import ndimage

    if grounded.all() or not grounded.any():
        return np.where(grounded, reach, -reach)
    inland, seaward = (ndimage.distance_transform_edt(side) for side in (grounded, ~grounded))
    distance = np.where(grounded, inland - 0.5, 0.5 - seaward) * cell
    clipped: npt.NDArray[np.float64] = distance.clip(-reach, reach)
    return clipped
