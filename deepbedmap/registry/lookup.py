"""Look datasets up in a registry by words and places, show one, and cite several."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from deepbedmap.errors import InvalidDataError
from deepbedmap.registry.attribution import attribute
from deepbedmap.registry.citation import cite as cite_datasets
from deepbedmap.registry.listing import Registry
from deepbedmap.registry.reading import load

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd

    from deepbedmap.errors import Fault
    from deepbedmap.registry.citation import Style
    from deepbedmap.registry.records import Dataset


class IncompleteCitationError(InvalidDataError):
    """Some sources of a file are in no registry.

    Attributes
    ----------
    citation
        Of the sources that are.
    """

    def __init__(self, citation: str, *faults: Fault) -> None:
        super().__init__(*faults)
        self.citation = citation


def search(
    text: str | None = None,
    bounds: Sequence[float] | None = None,
    folder: str | None = None,
    licence: str | None = None,
    datum: str | None = None,
    crs: str | None = None,
    status: str | None = None,
    lonlat: Sequence[float] | None = None,
    *,
    registry: Registry | str | Path | None = None,
) -> pd.DataFrame:
    """Search the registry by words, place or kind of data.

    Parameters
    ----------
    text, bounds, folder, licence, datum, crs, status, lonlat
        As :meth:`deepbedmap.registry.Registry.search` takes them: words; (xmin, ymin, xmax, ymax)
        in metres, EPSG:3031; or (lonmin, latmin, lonmax, latmax) in degrees.
    registry
        A registry, its file or its folder; by default that of the package.

    Returns
    -------
    pandas.DataFrame
        One row per dataset, in the order of the registry.

    Raises
    ------
    ValueError
        An argument is none of its choices, or a box is no box.

    Examples
    --------
    >>> search("rutford", folder="highres").citekey[0]
    'King2016Rutford'
    """
    return _opened(registry).search(text, bounds, folder, licence, datum, crs, status, lonlat)


def show(citekey: str, *, registry: Registry | str | Path | None = None) -> Dataset:
    """Return everything the registry holds on one dataset.

    Parameters
    ----------
    citekey
        Name of the dataset, such as ``"King2016Rutford"``.
    registry
        A registry, its file or its folder; by default that of the package.

    Raises
    ------
    InvalidDataError
        The registry has no such dataset; similar names are suggested.

    Examples
    --------
    >>> show("King2016Rutford").folder
    'highres'
    """
    return _opened(registry)[citekey]


def cite(
    what: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    style: Style = "bibtex",
    *,
    registry: Registry | str | Path | None = None,
) -> str:
    """Cite datasets, or all datasets from which files were made, each once.

    Parameters
    ----------
    what
        One or several citekeys, names of files in the registry, or paths of grids, predictions,
        tables of picks (``.parquet``) and checkpoints.
    style
        ``"bibtex"``, ``"text"`` or ``"csl-json"``: see :func:`deepbedmap.registry.cite`.
    registry
        A registry, its file or its folder; by default that of the package.

    Returns
    -------
    str
        The citations of the datasets and of the papers that describe them.

    Raises
    ------
    IncompleteCitationError
        A source is in no registry, so the citation would not be whole; the error carries the rest.
    InvalidDataError
        A file has no provenance, or it cannot be read.
    MissingDataError
        There is neither a dataset nor a file of this name.
    ValueError
        There is no such style.

    Examples
    --------
    >>> print(cite("King2016Rutford").splitlines()[0])
    @misc{King2016Rutford,
    """
    listing = _opened(registry)
    names = [what] if isinstance(what, str | os.PathLike) else list(what)
    attributions = [attribute(name, listing) for name in names]
    citekeys = [citekey for attribution in attributions for citekey in attribution.citekeys]
    citation = cite_datasets(listing, citekeys, style)
    if faults := [fault for attribution in attributions for fault in attribution.faults]:
        raise IncompleteCitationError(citation, *faults)
    return citation


def _opened(registry: Registry | str | Path | None) -> Registry:
    return registry if isinstance(registry, Registry) else load(registry)
