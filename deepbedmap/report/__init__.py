"""One HTML page that shows how a bed was scored: tables, figures, sources, and how to repeat it.

Takes the rows that a comparison of beds gives, the beds and the picks. Gives an .html file that
needs nothing else. Begin with :func:`report_evaluation`.
"""

from deepbedmap.faces import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__, extra="maps")
