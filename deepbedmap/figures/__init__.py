"""Figures, drawn with PyGMT: axes in kilometres, palettes that are safe for colour blindness.

Every function takes plain data and the path of an image, which appears complete or not at all.
"""

from deepbedmap.faces import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__, extra="maps")
