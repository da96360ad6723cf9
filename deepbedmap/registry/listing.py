"""The datasets of a registry: look one up by citekey, or search by words, place and licence."""

from __future__ import annotations

import logging
import math
import re
import unicodedata
from typing import TYPE_CHECKING

from deepbedmap import repository, schemas
from deepbedmap.errors import Fault, InvalidDataError, WrongCallError, did_you_mean
from deepbedmap.places import checked_bounds
from deepbedmap.registry.entries import is_known_crs, spdx_identifier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path
    from typing import Any

    import pandas as pd

    from deepbedmap.registry.records import Dataset

logger = logging.getLogger(__name__)


class Registry:
    """The datasets of one registry file, in the order of the file.

    Iterating yields each :class:`Dataset`; ``registry[citekey]`` returns one.

    Attributes
    ----------
    path : pathlib.Path
        The registry file.
    root : pathlib.Path
        Its folder.
    """

    def __init__(self, path: Path, datasets: Iterable[Dataset]) -> None:
        self.path = path
        self.root = path.parent
        self._datasets = {dataset.citekey: dataset for dataset in datasets}

    def __repr__(self) -> str:
        return f"<Registry {self.path}: {len(self)} datasets>"

    def __len__(self) -> int:
        return len(self._datasets)

    def __iter__(self) -> Iterator[Dataset]:
        return iter(self._datasets.values())

    def __contains__(self, citekey: object) -> bool:
        return citekey in self._datasets

    def __getitem__(self, citekey: str) -> Dataset:
        try:
            return self._datasets[citekey]
        except KeyError:
            raise InvalidDataError(
                Fault(
                    str(self.path),
                    entry=citekey,
                    expected="a citekey of the registry",
                    found="no dataset of this name",
                    remedy=did_you_mean(citekey, self._datasets)
                    or "`deepbedmap list` shows all datasets",
                )
            ) from None

    def for_pipeline(self, name: str) -> Dataset | None:
        """Return the dataset that lists a pipeline (a file name such as ``2010tr.json``)."""
        return next((dataset for dataset in self if name in dataset.pipelines), None)

    @property
    def files(self) -> pd.DataFrame:
        """A table with one row per file: its name, its source, and fields of its dataset."""
        import pandas as pd

        rows = [
            {
                "citekey": dataset.citekey,
                "folder": dataset.folder,
                **{field: getattr(file, field) for field in _FILE_FIELDS},
                **{field: getattr(dataset, field) for field in _DATASET_FIELDS},
            }
            for dataset in self
            for file in dataset.files
        ]
        table = pd.DataFrame(rows, columns=["citekey", "folder", *_FILE_FIELDS, *_DATASET_FIELDS])
        return table.astype({"bytes": "Int64", **_NULLABLE})

    def search(
        self,
        text: str | None = None,
        bounds: Sequence[float] | None = None,
        folder: str | None = None,
        licence: str | None = None,
        datum: str | None = None,
        crs: str | None = None,
        status: str | None = None,
        lonlat: Sequence[float] | None = None,
    ) -> pd.DataFrame:
        """Find the datasets that match all criteria.

        Criteria ignore case; ``"unknown"`` finds the datasets for which the registry has no value.

        Parameters
        ----------
        text
            Words, each of which must occur in the citekey, title, authors, location, version,
            survey type, years of the observations, DOIs or names of the files, regardless of case
            and accents.
        bounds
            (xmin, ymin, xmax, ymax) in metres, EPSG:3031: datasets that intersect this box.
        folder
            ``"highres"``, ``"lowres"`` or ``"misc"``.
        licence
            SPDX identifier, such as ``"CC-BY-4.0"``.
        datum
            Vertical datum: ``"ellipsoid"``, ``"EIGEN-GL04C"`` or ``"EIGEN-6C4"``.
        crs
            CRS of the raw data, such as ``"EPSG:4326"``.
        status
            ``"active"``, ``"superseded"``, ``"retired"`` or ``"withdrawn"``.
        lonlat
            (lonmin, latmin, lonmax, latmax) in degrees, instead of ``bounds``; latitudes from -90
            to -50, longitudes from -180 to 360. With lonmin > lonmax the box crosses the date
            line.

        Returns
        -------
        pandas.DataFrame
            One row per dataset, in the order of the registry. Datasets without known bounds match
            any box; ``bounds_known`` marks the others. ``files`` is the number of files;
            ``matching_files`` lists the files whose names contain the words of ``text`` that occur
            nowhere else in the entry.

        Raises
        ------
        ValueError
            A criterion is invalid, or both bounds and lonlat are passed.

        Examples
        --------
        >>> from deepbedmap import registry
        >>> registry.load().search("rutford ice stream", folder="highres").citekey[0]
        'King2016Rutford'
        """
        import pandas as pd

        rows = self.find(text, bounds, folder, licence, datum, crs, status, lonlat)
        table = pd.DataFrame(rows, columns=_SEARCH_COLUMNS)
        return table.astype({"year": "Int64", "files": int, "bounds_known": bool, **_NULLABLE})

    def find(
        self,
        text: str | None = None,
        bounds: Sequence[float] | None = None,
        folder: str | None = None,
        licence: str | None = None,
        datum: str | None = None,
        crs: str | None = None,
        status: str | None = None,
        lonlat: Sequence[float] | None = None,
    ) -> list[dict[str, Any]]:
        """Find datasets as :meth:`search` does, without pandas.

        Returns
        -------
        list of dict
            The rows of the table of :meth:`search`; None for what the registry does not know.

        Examples
        --------
        >>> from deepbedmap import registry
        >>> registry.load().find("rutford ice stream", folder="highres")[0]["citekey"]
        'King2016Rutford'
        """
        criteria: dict[str, str | None] = {}
        for field, value in (("folder", folder), ("vertical_datum", datum), ("status", status)):
            if value is not None:
                criteria[field] = _as_registered(field, value, _allowed(field))
        for field, value, normalise in (
            ("licence", licence, spdx_identifier),
            ("crs", crs, _normalised_crs),
        ):
            if value is not None:
                listed = {getattr(dataset, field) for dataset in self} - {None}
                criteria[field] = normalise(value) or _as_registered(field, value, listed)
        intersects = _intersection_test(bounds, lonlat)
        words = [] if text is None else [_search_word(word) for word in text.split()]
        rows: list[dict[str, Any]] = []
        for dataset in self:
            description = _plain(_description(dataset))
            names = list(dict.fromkeys(n for f in dataset.files for n in (f.filename, f.name)))
            remaining = [word for word in words if word not in description]
            matching = [name for name in names if any(word in _plain(name) for word in remaining)]
            if (
                all(getattr(dataset, field) == value for field, value in criteria.items())
                and all(any(word in _plain(name) for name in matching) for word in remaining)
                and (dataset.bounds is None or intersects(dataset.bounds))
            ):
                rows.append(
                    {
                        **{field: getattr(dataset, field, None) for field in _SEARCH_COLUMNS},
                        "authors": "; ".join(dataset.authors),
                        "files": len(dataset.files),
                        "matching_files": matching,
                        "bounds_known": dataset.bounds is not None,
                    }
                )
        return rows

    def bibtex(self, citekeys: str | Iterable[str]) -> str:
        """Return citations of datasets and their papers in BibTeX: see :func:`cite`."""
        from deepbedmap.registry.citation import cite

        return cite(self, citekeys)


_FILE_FIELDS = ("filename", "unpacked", "url", "sha256", "bytes", "access")
_DATASET_FIELDS = (
    "version",
    "status",
    "location",
    "resolution",
    "licence",
    "crs",
    "vertical_datum",
    "units",
    "firn_correction",
    "doi_dataset",
    "doi_literature",
)
_SEARCH_COLUMNS = (
    "citekey",
    "title",
    "authors",
    "year",
    "folder",
    "files",
    "matching_files",
    "bounds_known",
    "bounds",
    "epoch",
    "survey_type",
    "superseded_by",
    *_DATASET_FIELDS,
)
_NULLABLE: dict[str, Any] = {"resolution": float, "firn_correction": "boolean"}


def _allowed(field: str) -> list[str]:
    """Return the values that the registry's schema allows for a field of a dataset."""
    schema = schemas.load(repository.root() / "validation" / "registry.schema.json").content
    values = schema["$defs"]["dataset"]["properties"][field]["enum"]
    return [value for value in values if value is not None]


def _as_registered(field: str, value: str, values: Iterable[str]) -> str | None:
    """Return a search value in the spelling of the registry; None for "unknown"."""
    as_written = {name.casefold(): name for name in sorted(values)}
    if value.casefold() not in as_written and (value.casefold() != "unknown" or field == "folder"):
        choices = ", ".join((*as_written.values(), *(["unknown"] if field != "folder" else [])))
        remedy = did_you_mean(value, as_written.values())
        raise WrongCallError(
            f"{field.rpartition('_')[2]}: expected one of {choices}, found {value!r}"
            + (f"; {remedy}" if remedy else "")
        )
    return as_written.get(value.casefold())


def _normalised_crs(name: str) -> str | None:
    """Return the name of a CRS in the spelling of the registry; None if no CRS has this name."""
    name = name.upper()
    return name if re.fullmatch(r"[A-Z]+:\d+", name) and is_known_crs(name) else None


def _search_word(word: str) -> str:
    """Return a word without case and accents; a DOI also without its prefix."""
    return re.sub(r"^(https?://(dx\.)?doi\.org/|doi:)(?=10\.)", "", _plain(word))


def _plain(text: str) -> str:
    """Return text without case and accents, as it can be typed on any keyboard."""
    decomposed = unicodedata.normalize("NFKD", text.casefold()).translate(_LETTERS)
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter))


_LETTERS = str.maketrans({"ø": "o", "æ": "ae", "œ": "oe", "ł": "l", "đ": "d"})


def _description(dataset: Dataset) -> str:
    """Return the text that a search by words looks through, without the names of files."""
    years = range(dataset.epoch[0], dataset.epoch[1] + 1) if dataset.epoch else ()
    fields = (
        dataset.citekey,
        dataset.title,
        *dataset.authors,
        dataset.location,
        dataset.version,
        dataset.survey_type,
        dataset.doi_dataset,
        dataset.doi_literature,
        *years,
    )
    return " ".join(str(part) for part in fields if part is not None)


def _intersection_test(
    bounds: Sequence[float] | None, lonlat: Sequence[float] | None
) -> Callable[[Sequence[float]], bool]:
    """Return a function that tests whether a dataset's bounds intersect the requested box."""
    if lonlat is not None:
        if bounds is not None:
            raise WrongCallError("bounds and lonlat: expected one of the two, found both")
        import shapely

        parts = _polar_outline(lonlat)
        return lambda other: bool(shapely.intersects(parts, shapely.box(*other)).any())
    if bounds is None:
        return lambda _: True
    xmin, ymin, xmax, ymax = checked_bounds(bounds)
    if all(abs(value) <= 360 for value in bounds):
        logger.warning(
            "bounds %s look like degrees but are read as metres (EPSG:3031)", tuple(bounds)
        )
    return lambda other: (
        xmin <= other[2] and other[0] <= xmax and ymin <= other[3] and other[1] <= ymax
    )


def _polar_outline(lonlat: Sequence[float]) -> Any:
    """Return quadrilaterals in EPSG:3031, at most one degree wide, that cover a box in degrees."""
    if not (
        len(lonlat) == 4
        and all(-180 <= longitude <= 360 for longitude in (lonlat[0], lonlat[2]))
        and lonlat[0] != lonlat[2]
        and -90 <= lonlat[1] < lonlat[3] <= -50
    ):
        raise WrongCallError(
            "lonlat: expected (lonmin, latmin, lonmax, latmax) with longitudes from -180 to 360 "
            f"and -90 <= latmin < latmax <= -50, found {tuple(lonlat)}"
        )
    import numpy as np
    import pyproj
    import shapely

    west, south, east, north = lonlat
    width = 360 if east - west >= 360 else (east - west) % 360
    meridians = np.radians(west + np.linspace(0, width, math.ceil(width) + 1))
    # Along the meridian at 0 degrees, y is the distance from the pole.
    to_polar = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:3031", always_xy=True)
    inner, outer = (to_polar.transform(0, latitude)[1] for latitude in (south, north))
    outer /= np.cos((meridians[1] - meridians[0]) / 2)  # chords at this distance enclose the arc
    circle = np.stack([np.sin(meridians), np.cos(meridians)], axis=-1)
    left, right = circle[:-1], circle[1:]
    corners = [inner * left, outer * left, outer * right, inner * right]
    return shapely.polygons(np.stack(corners, axis=1))
