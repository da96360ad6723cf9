"""The intake catalog of all datasets, and the drivers that open them.

:func:`build` writes ``catalog/*.yml`` and the folders' READMEs from the registry,
:func:`check` compares them with it, and :func:`bundled` opens the catalog of the package
(also ``deepbedmap.open_catalog()`` and ``intake.cat.deepbedmap``). Each driver passes its
arguments to one stage of the package: picks, grids, rasters, outlines, tiles, products.
"""

from deepbedmap.faces import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
