"""Evaluate a bed against radar picks: its errors, its resolution and the fairness of the test.

Takes a bed (a grid, a raster file or a product) and picks with their flight lines; returns
scores with confidence intervals, spectra, mass residuals and verdicts on independence. No
PyTorch is needed. Begin with :func:`evaluate` for one bed and :func:`compare` for several
beds at the same picks; :mod:`deepbedmap.evaluation.benchmarks` fixes picks, metrics and
baselines.
"""

from deepbedmap.faces import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__, extra="grid")
