"""Checks that require neither raw data nor a network connection.

``check`` takes files, folders or a whole repository (its registry, pipelines, schemas, catalogs
and READMEs) and returns every fault with its file and line. ``table_faults`` and ``grid_faults``
check picks, windows and grids in memory; ``check_csv`` checks a text table.
"""

from deepbedmap.faces import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
