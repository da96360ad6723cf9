"""Every stage once, on made-up glaciers: from raw survey files to a scored bed.

Takes a folder and a seed. Gives a repository of made-up surveys, a trained network, its bed,
its scores and a report. Nothing in it was observed.

Begin with :func:`run`. The glaciers are made in :mod:`deepbedmap.demo.ice_slab`, flown in
:mod:`deepbedmap.demo.surveys` and published in :mod:`deepbedmap.demo.publishing`.
"""

from deepbedmap.faces import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__, extra="all")
