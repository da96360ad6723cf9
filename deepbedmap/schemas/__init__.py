"""Read flat files (YAML, JSON) and check them against the JSON Schemas in ``validation/``.

``load`` takes a path and gives a :class:`Document`: the content, and the line of every value.
``faults`` lists everything that is wrong with a document, each with its file and line;
``validate_file`` does both and raises. Tables and grids are checked in
:mod:`deepbedmap.validation`.
"""

from deepbedmap.faces import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
