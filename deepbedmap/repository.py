"""Where the flat files and the data are: the checkout, or the copy inside the package."""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def root() -> Path:
    """Folder that holds ``data_list.yml``, ``catalog/``, ``highres/`` and ``validation/``.

    The checkout, where the package is imported from one; else the copy inside the package.
    """
    checkout = _checkout()
    return checkout if checkout is not None else _PACKAGE / "_repository"


def data_dir() -> Path:
    """Folder in whose ``highres/``, ``lowres/`` and ``misc/`` raw files, rasters and grids land.

    ``$DEEPBEDMAP_DATA_DIR`` where that is set; else the checkout; else the user's cache folder.
    The folder need not exist yet.
    """
    chosen = os.environ.get("DEEPBEDMAP_DATA_DIR")
    if chosen:
        return Path(chosen).expanduser().absolute()
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
    marks = ("data_list.yml", "pyproject.toml")
    return folder if all((folder / mark).is_file() for mark in marks) else None
