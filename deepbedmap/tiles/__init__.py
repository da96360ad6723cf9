"""Grids become tiles, and tiles a training set.

Takes grids of surveyed beds, and the rasters around them: prior, surface, velocity and
accumulation. Returns windows (a GeoDataFrame) or tiles (float32 arrays), or writes a Zarr store
of tiles with their split into training and validation.

Begin with :func:`find_windows` and :func:`cut_tiles`, or with :func:`build` for a whole
training set. :mod:`deepbedmap.tiles.inputs` names the inputs of the network, and loads only
numpy.
"""

from deepbedmap.faces import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__, extra="grid")
