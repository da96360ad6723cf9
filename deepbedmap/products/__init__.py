"""A bed and the layers that a modeller needs with it, as COG, CF NetCDF or Zarr.

A product is a :class:`xarray.Dataset` of layers ``(y, x)`` on the lattice of ``bed``, in chunks
that are computed when they are written, so that a continent is never in memory as a whole.

:func:`assemble` joins the layers, :func:`check` and :func:`correct` test them against the physics,
:func:`cut_at_grounding_line` and :func:`blend` treat the coast, :func:`write` and
:func:`open_product` store them.
"""

from deepbedmap.faces import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
