"""Antarctic bed elevation: a registry of surveys, pipelines to grids, and a model of the bed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from intake.catalog import Catalog

__version__ = "0.1.0"
__all__ = ["__version__", "open_catalog"]


def open_catalog() -> Catalog:
    """Open the catalog of every dataset in the registry.

    Returns
    -------
    intake.catalog.Catalog
        Nested by folder: ``highres`` (surveys), ``lowres`` (bed priors), ``misc`` (surface,
        velocity, accumulation, grounding line). The same catalog opens with
        ``intake.open_catalog("catalog/catalog.yml")`` and as ``intake.cat.deepbedmap``.
    """
    from deepbedmap.catalog import bundled

    return bundled()
