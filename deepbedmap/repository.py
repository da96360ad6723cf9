"""Paths of the flat files and of the data: the checkout, or the copy inside the package."""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def root() -> Path:
    """Return the folder that holds ``data_list.yml``, ``catalog/``, ``highres/``, ``validation/``.

    It is the checkout if the package is imported from one, otherwise the copy inside the package.
    """
    checkout = _checkout()
    return checkout if checkout is not None else _PACKAGE / "_repository"


def data_dir() -> Path:
    """Return the folder whose ``highres/``, ``lowres/`` and ``misc/`` hold the data files.

    It is ``$DEEPBEDMAP_DATA_DIR`` if that is set, otherwise the checkout, otherwise the user's
    cache folder. The folder may not exist yet.
    """
    folder = os.environ.get("DEEPBEDMAP_DATA_DIR")
    if folder:
        return Path(folder).expanduser().absolute()
    checkout = _checkout()
    if checkout is not None:
        return checkout
    return cache_dir()


def cache_dir() -> Path:
    """Folder of the user's operating system for files that can be downloaded again."""
    import pooch

    return Path(pooch.os_cache("deepbedmap"))


def _checkout() -> Path | None:
    folder = _PACKAGE.parent
    markers = ("data_list.yml", "pyproject.toml")
    return folder if all((folder / marker).is_file() for marker in markers) else None
