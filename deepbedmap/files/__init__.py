"""How a file gets to its place: complete, resumable and with a checksum.

``beside`` and ``workplace`` write a file completely or not at all. ``Parts`` builds a large
product part by part and resumes after a kill. ``digest`` gives the SHA-256 and the size of
a file.
"""

from deepbedmap.faces import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
