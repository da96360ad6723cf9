"""Run every stage once on made-up glaciers: from raw survey files to a scored bed.

Takes a folder and a seed. Gives a repository of made-up surveys, a trained network, the bed that
it predicts, scores and a report. Nothing here was observed.

Begin with :func:`run`. The glaciers are made in :mod:`deepbedmap.demo.ice_slab`, surveyed in
:mod:`deepbedmap.demo.surveys`, published in :mod:`deepbedmap.demo.publishing`, taken through the
stages in :mod:`deepbedmap.demo.stages` and drawn in :mod:`deepbedmap.demo.reporting`.
"""

from deepbedmap.faces import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__, extra="all")
