"""A report of an evaluation: one HTML page with tables, figures, sources and the command.

The input is the rows of a comparison of beds, the beds and the picks; the output is a
self-contained .html file. Start with :func:`report_evaluation`.
"""

from deepbedmap.faces import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__, extra="maps")
