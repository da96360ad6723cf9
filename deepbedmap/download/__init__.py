"""Fetch the files of datasets: complete and checked, or not there at all.

Takes citekeys, file names, folders or bounds of the registry; gives the paths of the files.
Begin with ``fetch``; ``plan`` shows what it would do without opening a connection, ``verify``
compares the files on disk with the registry and with the receipts of earlier downloads, and
``locate`` gives the paths of files that are on disk already.
"""

from deepbedmap.faces import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
