"""The inputs of the network: four rasters, and the tiles cut from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

    import geopandas as gpd
    import numpy as np
    import numpy.typing as npt
    import xarray as xr

PADDING = 1_000.0
"""Metres by which the inputs extend beyond the tile on every side: one cell of the prior."""

RESOLUTIONS = {"x": 1_000.0, "w1": 100.0, "w2": 500.0, "w3": 1_000.0}
"""Cell size (m) of each input: prior, surface, velocity, accumulation."""

INPUTS = tuple(RESOLUTIONS)
"""Names of the network's inputs, in its order; the surveyed bed is called ``y``."""

RESOLUTION = 250.0
"""Cell size (m) of the bed that the network predicts."""


@dataclass(frozen=True)
class Inputs:
    """The inputs of the network: rasters in one CRS.

    Attributes
    ----------
    prior
        Bed elevation (y, x), metres.
    surface
        Ice surface elevation (y, x), metres, on the vertical datum of the prior.
    velocity
        Ice velocity (band, y, x), metres a year: along x, then along y.
    accumulation
        Snow accumulation (y, x), kg m-2 a-1.
    surface_filler
        A second ice surface, such as REMA at 200 m, for cells in which the first has no value.
    """

    prior: xr.DataArray
    surface: xr.DataArray
    velocity: xr.DataArray
    accumulation: xr.DataArray
    surface_filler: xr.DataArray | None = None

    @property
    def by_name(self) -> dict[str, xr.DataArray]:
        """The four rasters by their names in :data:`INPUTS`."""
        rasters = (self.prior, self.surface, self.velocity, self.accumulation)
        return dict(zip(INPUTS, rasters, strict=True))

    @classmethod
    def open(
        cls,
        prior: str | os.PathLike[str],
        surface: str | os.PathLike[str],
        velocity: str | os.PathLike[str],
        accumulation: str | os.PathLike[str],
        surface_filler: str | os.PathLike[str] | None = None,
    ) -> Inputs:
        """Open files, as :func:`deepbedmap.rasters.open_raster` does; cells are read when needed.

        The velocity file has two bands, or is a NetCDF file with variables vx and vy.
        """
        from deepbedmap import rasters

        return cls(
            prior=rasters.open_raster(prior),
            surface=rasters.open_raster(surface),
            velocity=rasters.open_raster(velocity, rasters.velocity_components(velocity)),
            accumulation=rasters.open_raster(accumulation),
            surface_filler=None if surface_filler is None else rasters.open_raster(surface_filler),
        )


def cut_inputs(
    windows: gpd.GeoDataFrame | npt.ArrayLike, inputs: Inputs
) -> dict[str, npt.NDArray[np.float32]]:
    """Cut the inputs of the network for each window.

    Parameters
    ----------
    windows
        n boxes of h x w km, as :func:`deepbedmap.tiles.cut_tiles` takes them.
    inputs
        The rasters to cut.

    Returns
    -------
    dict
        float32, NaN where an input has nodata (and the surface no filler): ``x``
        (n, 1, h + 2, w + 2) at 1 km, ``w1`` (n, 1, 10(h + 2), 10(w + 2)) at 100 m, ``w2``
        (n, 2, 2(h + 2), 2(w + 2)) at 500 m and ``w3`` (n, 1, h + 2, w + 2) at 1 km; rows from
        north to south.

    Raises
    ------
    InvalidDataError
        A window with its padding of 1 km extends beyond a raster; a raster has another CRS; or
        the surface, or its filler, has another vertical datum than the prior.
    """
    from deepbedmap import rasters
    from deepbedmap.tiles.cutting import cut_tiles

    sources = inputs.by_name
    for source in (*sources.values(), inputs.surface_filler):
        if source is not None:
            rasters.require_same_reference(inputs.prior, source)
    return {
        name: cut_tiles(
            source,
            windows,
            padding=PADDING,
            resolution=RESOLUTIONS[name],
            filler=inputs.surface_filler if name == "w1" else None,
        )
        for name, source in sources.items()
    }
