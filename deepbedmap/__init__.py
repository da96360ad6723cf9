"""Antarctic bed elevation: a registry of surveys, pipelines to grids, and a model of the bed.

The public names are the verbs of the command line; each package holds one stage. Everything is
loaded when it is first used.
"""

from deepbedmap.faces import attach

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = attach(__name__, __file__)
