"""Raw survey files become tables of radar picks.

:func:`read_points` runs a survey's pipeline on its raw text files and returns one row per
pick: x, y, bed elevation z and flight line. :func:`write_survey` does the same block by
block and writes GeoParquet. :func:`join_surveys`, :func:`deduplicate` and
:func:`without_overlaps` combine surveys; ``crossovers``, ``tracks`` and ``roughness``
analyse picks along their flight lines.
"""

from deepbedmap.faces import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
