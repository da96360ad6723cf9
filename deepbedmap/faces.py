"""Attach the public names of a package to its face, loaded when they are first used (SPEC 1).

The names are listed in the stub next to the face (``__init__.pyi``), which type checkers read too.
``lazy_loader`` does the same; it is not used because the networks must import on a GPU machine that
has nothing but PyTorch and NumPy.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from deepbedmap.extras import required_extra


def attach(
    package: str, file: str, extra: str | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return ``__getattr__``, ``__dir__`` and ``__all__`` of a package.

    Parameters
    ----------
    package
        The package's ``__name__``.
    file
        Its ``__file__``; the stub is the file of the same name that ends in ``.pyi``, and holds
        only lines ``from .module import name as name`` and ``__all__``.
    extra
        The extra of the distribution that the package needs, if any.

    Examples
    --------
    >>> import deepbedmap.rasters
    >>> face, names, public = attach("deepbedmap.rasters", deepbedmap.rasters.__file__)
    >>> "open_raster" in public
    True
    """
    stub = ast.parse(Path(file).with_suffix(".pyi").read_text(encoding="utf-8"))
    homes = {
        alias.asname or alias.name: (f"{package}.{statement.module}", alias.name)
        for statement in stub.body
        if isinstance(statement, ast.ImportFrom) and statement.level == 1
        for alias in statement.names
    }
    public = sorted(homes)

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, original = homes[name]
        with required_extra(extra):
            return getattr(import_module(module), original)

    return load, lambda: public, public
