"""Read flat files (YAML, JSON) and check them against the JSON Schemas in ``validation/``.

``load`` reads a path into a :class:`Document`: the content, and the line of every value.
``faults`` lists every fault of a document with its file and line; ``validate_file`` does both and
raises an error for any fault. Tables and grids are checked in
:mod:`deepbedmap.validation`.
"""

from deepbedmap.faces import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
