"""Weights on disk: what this package trains, and what the original published.

A checkpoint is one safetensors file whose header holds, as JSON, everything needed to make
the network again. The state from which a training resumes is such a file too. Begin with
:func:`save` and :func:`load`; :func:`load_chainer_npz` reads the published weights.
"""

from deepbedmap.faces import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__, extra="model")
