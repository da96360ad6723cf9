"""The generators, which refine a bed elevation grid, and the discriminator that judges them.

A generator takes tiles of the prior (1 km), surface, velocity and accumulation and gives the
bed at 250 m. :class:`Generator` and :class:`Discriminator` are the networks of Leong & Horgan
(2020), DeepBedMap, doi 10.5194/tc-14-3687-2020; :class:`FlowAlignedGenerator` is a small one
that corrects the bicubic prior.
"""

from deepbedmap.faces import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__, extra="model")
