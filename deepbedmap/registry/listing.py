"""The datasets of a registry: look one up by citekey, or search by words, place and licence."""

from __future__ import annotations

import logging
import math
import re
import unicodedata
from typing import TYPE_CHECKING

from deepbedmap import repository, schemas
from deepbedmap.errors import Fault, InvalidDataError, WrongCallError, did_you_mean
from deepbedmap.registry.entries import is_known_crs, spdx_identifier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path
    from typing import Any

    import pandas as pd

    from deepbedmap.registry.records import Dataset

logger = logging.getLogger(__name__)


class Registry:
    """The datasets of one registry file, in its order.

    Iterating gives each :class:`Dataset`; ``registry[citekey]`` gives one.

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
                    found="none of this name",
                    remedy=did_you_mean(citekey, self._datasets) or "`deepbedmap list` shows all",
                )
            ) from None

    def for_pipeline(self, name: str) -> Dataset | None:
        """Return the dataset that lists a pipeline (a file name such as ``2010tr.json``)."""
        return next((dataset for dataset in self if name in dataset.pipelines), None)

    @property
    def files(self) -> pd.DataFrame:
        """One row a file: what it is, where it comes from, and what its dataset says of it."""
        import pandas as pd

        rows = [
            {
                "citekey": dataset.citekey,
                "folder": dataset.folder,
                **{field: getattr(file, field) for field in _OF_FILE},
                **{field: getattr(dataset, field) for field in _OF_DATASET},
            }
            for dataset in self
            for file in dataset.files
        ]
        table = pd.DataFrame(rows, columns=["citekey", "folder", *_OF_FILE, *_OF_DATASET])
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
        """Find datasets: those that fit all that is asked.

        Names are taken whatever their case; ``"unknown"`` finds what the registry does not know.

        Parameters
        ----------
        text
            Words, each of which stands in the citekey, title, authors, location, version, survey
            type, years of the observations, DOIs or names of the files (whatever the case and the
            accents).
        bounds
            (xmin, ymin, xmax, ymax) in metres, EPSG:3031: datasets that touch this box.
        folder
            ``"highres"``, ``"lowres"`` or ``"misc"``.
        licence
            SPDX identifier, such as ``"CC-BY-4.0"``.
        datum
            What heights refer to: ``"ellipsoid"``, ``"EIGEN-GL04C"`` or ``"EIGEN-6C4"``.
        crs
            Of the raw data, such as ``"EPSG:4326"``.
        status
            ``"active"``, ``"superseded"``, ``"retired"`` or ``"withdrawn"``.
        lonlat
            (lonmin, latmin, lonmax, latmax) in degrees, instead of ``bounds``; latitudes from -90
            to -50, longitudes from -180 to 360. With lonmin > lonmax the box goes across the date
            line.

        Returns
        -------
        pandas.DataFrame
            One row a dataset, in the order of the registry. A dataset whose bounds are not known
            is found at any place; ``bounds_known`` says which those are. ``files`` is their number;
            ``matching_files`` lists those whose names have the words that nothing else has.

        Raises
        ------
        ValueError
            Any of these is not what it should be; bounds and lonlat are given both.

        Examples
        --------
        >>> from deepbedmap.registry import load
        >>> load().search("rutford ice stream", folder="highres").citekey[0]
        'King2016Rutford'
        """
        import pandas as pd

        rows = self.find(text, bounds, folder, licence, datum, crs, status, lonlat)
        table = pd.DataFrame(rows, columns=_FOUND)
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
        >>> [row["citekey"] for row in load().find("rutford ice stream", folder="highres")][0]
        'King2016Rutford'
        """
        wanted: dict[str, str | None] = {}
        for field, value in (("folder", folder), ("vertical_datum", datum), ("status", status)):
            if value is not None:
                wanted[field] = _chosen(field, value, _allowed(field))
        for field, value, known in (
            ("licence", licence, spdx_identifier),
            ("crs", crs, _known_crs),
        ):
            if value is not None:
                listed = {getattr(dataset, field) for dataset in self} - {None}
                wanted[field] = known(value) or _chosen(field, value, listed)
        touches = _place(bounds, lonlat)
        words = [] if text is None else [_query(word) for word in text.split()]
        rows: list[dict[str, Any]] = []
        for dataset in self:
            told = _plain(_description(dataset))
            names = list(dict.fromkeys(n for f in dataset.files for n in (f.filename, f.name)))
            untold = [word for word in words if word not in told]
            matching = [name for name in names if any(word in _plain(name) for word in untold)]
            if (
                all(getattr(dataset, field) == value for field, value in wanted.items())
                and all(any(word in _plain(name) for name in matching) for word in untold)
                and (dataset.bounds is None or touches(dataset.bounds))
            ):
                rows.append(
                    {
                        **{field: getattr(dataset, field, None) for field in _FOUND},
                        "authors": "; ".join(dataset.authors),
                        "files": len(dataset.files),
                        "matching_files": matching,
                        "bounds_known": dataset.bounds is not None,
                    }
                )
        return rows

    def bibtex(self, citekeys: str | Iterable[str]) -> str:
        """Cite datasets and their papers in BibTeX: see :func:`deepbedmap.registry.cite`."""
        from deepbedmap.registry.citation import cite

        return cite(self, citekeys)


_OF_FILE = ("filename", "unpacked", "url", "sha256", "bytes", "access")
_OF_DATASET = (
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
_FOUND = (
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
    *_OF_DATASET,
)
_NULLABLE: dict[str, Any] = {"resolution": float, "firn_correction": "boolean"}


def _allowed(field: str) -> list[str]:
    """Values that the registry's schema has for a field of a dataset."""
    schema = schemas.load(repository.root() / "validation" / "registry.schema.json").content
    values = schema["$defs"]["dataset"]["properties"][field]["enum"]
    return [value for value in values if value is not None]


def _chosen(field: str, value: str, values: Iterable[str]) -> str | None:
    """Write a value that is asked for as the registry does; None for "unknown"."""
    as_written = {name.casefold(): name for name in sorted(values)}
    if value.casefold() not in as_written and (value.casefold() != "unknown" or field == "folder"):
        known = ", ".join((*as_written.values(), *(["unknown"] if field != "folder" else [])))
        remedy = did_you_mean(value, as_written.values())
        raise WrongCallError(
            f"{field.rpartition('_')[2]}: expected one of {known}, found {value!r}"
            + (f"; {remedy}" if remedy else "")
        )
    return as_written.get(value.casefold())


def _known_crs(name: str) -> str | None:
    """Write a CRS as the registry does; None where there is none of this name."""
    name = name.upper()
    return name if re.fullmatch(r"[A-Z]+:\d+", name) and is_known_crs(name) else None


def _query(word: str) -> str:
    return re.sub(r"^(https?://(dx\.)?doi\.org/|doi:)(?=10\.)", "", _plain(word))


def _plain(text: str) -> str:
    """Text without case and accents: what is typed for it on any keyboard."""
    decomposed = unicodedata.normalize("NFKD", text.casefold()).translate(_LETTERS)
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter))


_LETTERS = str.maketrans({"ø": "o", "æ": "ae", "œ": "oe", "ł": "l", "đ": "d"})


def _description(dataset: Dataset) -> str:
    """What a search by words looks through, but for the names of files."""
    years = range(dataset.epoch[0], dataset.epoch[1] + 1) if dataset.epoch else ()
    said = (
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
    return " ".join(str(part) for part in said if part is not None)


def _place(
    bounds: Sequence[float] | None, lonlat: Sequence[float] | None
) -> Callable[[Sequence[float]], bool]:
    """Return what says whether a dataset's bounds touch the place that is asked for."""
    if lonlat is not None:
        if bounds is not None:
            raise WrongCallError("bounds and lonlat: expected one of the two, found both")
        import shapely

        parts = _polar_outline(lonlat)
        return lambda other: bool(shapely.intersects(parts, shapely.box(*other)).any())
    if bounds is None:
        return lambda _: True
    if not (len(bounds) == 4 and bounds[0] < bounds[2] and bounds[1] < bounds[3]):
        raise WrongCallError(
            f"bounds must be (xmin, ymin, xmax, ymax) with xmin < xmax and ymin < ymax, "
            f"not {tuple(bounds)}"
        )
    if all(abs(value) <= 360 for value in bounds):
        logger.warning("bounds %s look like degrees and are read as metres", tuple(bounds))
    xmin, ymin, xmax, ymax = bounds
    return lambda other: (
        xmin <= other[2] and other[0] <= xmax and ymin <= other[3] and other[1] <= ymax
    )


def _polar_outline(lonlat: Sequence[float]) -> Any:
    """Quadrilaterals in EPSG:3031, a degree wide at most, that hold a box in degrees."""
    if not (
        len(lonlat) == 4
        and all(-180 <= longitude <= 360 for longitude in (lonlat[0], lonlat[2]))
        and lonlat[0] != lonlat[2]
        and -90 <= lonlat[1] < lonlat[3] <= -50
    ):
        raise WrongCallError(
            "lonlat must be (lonmin, latmin, lonmax, latmax) with longitudes from -180 to 360 and "
            f"-90 <= latmin < latmax <= -50, not {tuple(lonlat)}"
        )
    import numpy as np
    import pyproj
    import shapely

    west, south, east, north = lonlat
    width = 360 if east - west >= 360 else (east - west) % 360
    meridians = np.radians(west + np.linspace(0, width, math.ceil(width) + 1))
    # Along the meridian of 0 degrees y is the distance from the pole.
    to_polar = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:3031", always_xy=True)
    inner, outer = (to_polar.transform(0, latitude)[1] for latitude in (south, north))
    outer /= np.cos((meridians[1] - meridians[0]) / 2)  # chords at this distance hold the arc
    circle = np.stack([np.sin(meridians), np.cos(meridians)], axis=-1)
    left, right = circle[:-1], circle[1:]
    corners = [inner * left, outer * left, outer * right, inner * right]
    return shapely.polygons(np.stack(corners, axis=1))
