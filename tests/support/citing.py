"""The datasets behind a file, where every source has one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deepbedmap import registry
from deepbedmap.errors import InvalidDataError

if TYPE_CHECKING:
    import os


def sources_of(path: str | os.PathLike[str], listing: registry.Registry) -> list[str]:
    """Citekeys of all that a file was made of; a source without a dataset is an error."""
    attribution = registry.attribute(path, listing)
    if attribution.faults:
        raise InvalidDataError(*attribution.faults)
    return list(attribution.citekeys)
