"""A bed against radar picks: how far off it is, what it resolves, and whether that is a fair test.

Takes a bed (a grid, a raster file or a product) and picks with their flight lines; gives
scores with confidence intervals, spectra, mass residuals and verdicts on independence. No
PyTorch is needed. Begin with :func:`evaluate` for one bed and :func:`compare` for several
beds at the same picks; :mod:`deepbedmap.evaluation.benchmarks` fixes picks, metrics and
baselines.
"""

from deepbedmap.faces import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__, extra="grid")
