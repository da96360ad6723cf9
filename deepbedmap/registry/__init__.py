"""The registry: which datasets exist, where their files come from, and whom to cite.

:func:`load` reads and checks ``data_list.yml`` and returns a :class:`Registry`: look up a
:class:`Dataset` by its citekey, or search by words, place, licence or datum. :func:`cite`
writes the citations of datasets, and :func:`attribute` finds the datasets from which a file
was made. ``python -m deepbedmap.registry.links`` checks every URL.
"""

from deepbedmap.faces import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
