"""Turn a new survey into an entry of the registry, a pipeline and a test fixture.

:func:`inspect` reads a raw survey file and reports its layout, its columns and what it cannot
determine; :func:`contribute` writes the entry, the pipeline, the fixture and the catalogs from
the resulting :class:`Sample`, once the whole repository is valid with them.
"""

from deepbedmap.faces import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
