"""Packages that only some commands need: which extra brings them, and how to install it.

Searching, citing, fetching and opening data and reading picks need none of them. Import such a
package inside :func:`required_extra`, or in a module that users reach through the face of a package
that names its extra (:func:`deepbedmap.faces.attach`).
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from deepbedmap.errors import DeepBedMapError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Modules of each extra in pyproject.toml, and the names of their packages on conda-forge. A module
# of several extras counts as one of the first where nothing else is stated.
_GRID = {name: name for name in ("distributed", "numba", "pygmt", "scipy", "zarr")}
_MODEL = {name: name for name in ("distributed", "safetensors", "scipy", "zarr")}
_MODEL["torch"] = "pytorch"
EXTRAS: dict[str, dict[str, str]] = {
    "maps": {"pygmt": "pygmt"},
    "grid": _GRID,
    "model": _MODEL,
    "exchange": {"intake_xarray": "intake-xarray"},
    "tuning": {**_MODEL, "optuna": "optuna"},
    "earthdata": {"earthaccess": "earthaccess"},
    "pdal": {"pdal": "python-pdal"},
}
EXTRAS["all"] = {
    module: package
    for extra, modules in EXTRAS.items()
    if extra != "pdal"
    for module, package in modules.items()
}


class MissingExtraError(DeepBedMapError, ImportError):
    """A package of an extra is not installed; the message says how to install the extra."""


@contextmanager
def required_extra(extra: str | None = None) -> Iterator[None]:
    """Report a missing package by the extra that brings it.

    Parameters
    ----------
    extra
        The extra that the imports in the block belong to; by default the first that has the
        missing module.

    Raises
    ------
    MissingExtraError
        A package of an extra is missing, or GMT itself. Any other missing module raises
        ``ModuleNotFoundError`` as usual.

    Examples
    --------
    >>> with required_extra("grid"):
    ...     from scipy.spatial import cKDTree
    """
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        holders = [name for name, modules in EXTRAS.items() if module in modules]
        if not holders:
            raise
        chosen = extra if extra in holders else holders[0]
        packages = " ".join(sorted(EXTRAS[chosen].values()))
        raise MissingExtraError(
            f"{module} is not installed: conda install -c conda-forge {packages}, or "
            f"pip install 'deepbedmap[{chosen}]'",
            name=module,
        ) from error
    except Exception as error:
        if type(error).__name__ != "GMTCLibNotFoundError":  # pygmt raises it when it is imported
            raise
        raise MissingExtraError(
            "GMT is not installed, which pip cannot bring: conda install -c conda-forge gmt, or "
            "on Debian apt-get install gmt libgmt-dev gmt-gshhg ghostscript",
            name="pygmt",
        ) from error
