"""The command line: it parses, calls and prints. Nothing is computed here.

Begin with :func:`main`, which the command ``deepbedmap`` runs.
"""

from deepbedmap.faces import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
