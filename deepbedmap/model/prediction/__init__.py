"""Prediction: from checkpoints and rasters to a bed at 250 m.

:func:`predict` gives the bed of a window in memory. :func:`make_dem` goes from files to
files, for any extent, with one network or an ensemble: it checks all inputs first, resumes
when stopped, and writes products with all layers. Both refine band after band within a bound
of memory and without seams (:func:`refine_band`).
"""

from deepbedmap.faces import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__, extra="model")
