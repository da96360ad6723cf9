"""A continuous-curvature spline in tension, solved in a band around the data.

Functions take and return arrays: coordinates are in cells, with a node at every whole number.
The equation, (1 - T) biharmonic(u) - T Laplacian(u) = 0, is taken from Smith & Wessel (1990,
doi 10.1190/1.1442837), the treatment of data between nodes from Briggs (1974,
doi 10.1190/1.1440410).

Begin with :func:`solve`. For a large region, :func:`solve_coarse` solves the coarser grids
once, and :func:`refine` the finest one part by part.
"""

from deepbedmap.faces import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__, extra="grid")
