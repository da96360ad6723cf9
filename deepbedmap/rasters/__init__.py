"""Grids of any kind, with their coordinate reference system and vertical datum.

A raster is a :class:`xarray.DataArray` with dimensions ``(y, x)`` or ``(band, y, x)``, square
cells whose centres are the coordinates ``x`` and ``y`` (in either direction), NaN where there
are no data, and a coordinate reference system that rioxarray finds.

Begin with ``open_raster``. ``sample`` returns values at points, ``interpolate`` on a lattice;
``write_resampled`` fills gaps and changes cells, ``convert_datum`` converts between the
ellipsoid and geoids; ``write_geotiff``, ``write_cog`` and ``write_netcdf`` write files.
"""

from deepbedmap.faces import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
