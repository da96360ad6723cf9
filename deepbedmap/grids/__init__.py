"""Picks become a grid of bed elevation, with cells 250 m wide by default.

Takes picks (``x``, ``y``, ``z`` in metres), as :func:`deepbedmap.points.read_points` returns
them. Returns an :class:`xarray.DataArray` (y, x), or writes a NetCDF or Zarr file of any extent.

Begin with :func:`grid_points`; :func:`write_grid` does the same block by block, into a file.
The spline itself is in :mod:`deepbedmap.grids.spline`.
"""

from deepbedmap.faces import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__, extra="grid")
