"""Records of the registry: a dataset, its files, its paper and its radar."""

from __future__ import annotations

from dataclasses import dataclass

from deepbedmap.places import Bounds

ARCHIVE_SUFFIXES = (".zip", ".tar.gz", ".tgz", ".tar")

LOGIN = "urs.earthdata.nasa.gov"
"""The host where people register for NASA's Earthdata, and programs log in."""


@dataclass(frozen=True)
class File:
    """One file of a dataset.

    Attributes
    ----------
    filename
        Plain name of the file in the dataset's folder.
    url
        Its source (http, https, ftp, sftp, ``doi:<DOI>/<file>``, file); None if it must be
        requested from a person.
    sha256
        Checksum of the file called ``filename``; None if unknown.
    mirrors
        Further URLs of the same file, tried in order.
    member
        Path inside an archive; None for the archive's only file or, where the URL but not
        ``filename`` names an archive, the member called ``filename``.
    unpacked
        For an archive: the name of the member once it is unpacked.
    bytes
        Size of the file called ``filename``.
    access
        ``"open"``; ``"earthdata"``, a NASA Earthdata login is required; ``"manual"``, a person must
        follow the dataset's ``instructions``.
    members
        For an archive: a pattern such as ``*.csv``; every member whose plain name matches is
        unpacked into the folder under that name.
    content_sha256
        For an archive: checksum of its content, which decides if the checksum of its bytes
        differs from ``sha256`` or that is unknown; see
        :meth:`deepbedmap.download.archives.Archive.content_sha256`.
    unpacked_sha256
        Checksum of the file called ``unpacked``.
    """

    filename: str
    url: str | None
    sha256: str | None
    mirrors: tuple[str, ...] = ()
    member: str | None = None
    unpacked: str | None = None
    bytes: int | None = None
    access: str = "open"
    members: str | None = None
    content_sha256: str | None = None
    unpacked_sha256: str | None = None

    @property
    def name(self) -> str:
        """Name of the file that pipelines and drivers read; for an archive, of its member."""
        return self.unpacked or self.filename

    @property
    def urls(self) -> tuple[str, ...]:
        """All URLs, in the order in which they are tried."""
        return (() if self.url is None else (self.url,)) + self.mirrors


@dataclass(frozen=True)
class Radar:
    """How a radar survey was measured and picked.

    Attributes
    ----------
    wave_speed
        Wave speed in ice, in metres per microsecond.
    centre_frequency
        Centre frequency of the radar in MHz.
    quality
        Meaning of each quality code of the picks.
    pick_uncertainty
        Published uncertainty of the picks in metres.
    """

    wave_speed: float | None = None
    centre_frequency: float | None = None
    quality: dict[str, str] | None = None
    pick_uncertainty: float | None = None


@dataclass(frozen=True)
class BuiltFrom:
    """The sources of a gridded product: surveys (citekeys), and the last year of its data."""

    surveys: tuple[str, ...] = ()
    until: int | None = None


@dataclass(frozen=True)
class Paper:
    """The fields of a citation of a dataset's paper, apart from its DOI."""

    title: str
    authors: tuple[str, ...]
    year: int | None
    journal: str | None
    booktitle: str | None
    publisher: str | None
    volume: str | None
    number: str | None
    pages: str | None


@dataclass(frozen=True)
class Dataset:
    """One entry of the registry; None means unknown.

    Attributes
    ----------
    version
        Version as the publisher calls it.
    status
        ``"active"``, ``"superseded"`` (by the dataset ``superseded_by``), ``"retired"`` (its
        publisher no longer serves it) or ``"withdrawn"`` (it must not be used).
    folder
        ``"highres"``, ``"lowres"`` or ``"misc"``.
    survey_type
        ``"airborne"``, ``"ground"``, ``"seismic"``, ``"compilation"``, ``"satellite"`` or
        ``"model"``.
    epoch
        First and last year of the observations.
    bounds
        (xmin, ymin, xmax, ymax) in metres, EPSG:3031.
    resolution
        Spacing of a grid in metres.
    doi_dataset, doi_literature
        DOIs without a prefix, as in ``10.5194/tc-7-375-2013``.
    licence
        SPDX identifier.
    crs
        CRS of the raw data, such as ``"EPSG:4326"``.
    vertical_datum
        ``"ellipsoid"``, ``"EIGEN-GL04C"`` or ``"EIGEN-6C4"``.
    firn_correction
        Whether the bed elevations that the pipelines read are corrected for the firn layer.
    nodata
        Value that marks missing values in the raw files.
    overlaps_with
        Citekeys of datasets that share observations with this one.
    pipelines
        Names of the files in ``highres/`` that turn the raw files into picks.
    instructions
        What a person must do to obtain files that no program can download.
    """

    citekey: str
    title: str
    authors: tuple[str, ...]
    year: int | None
    version: str | None
    status: str | None
    superseded_by: str | None
    publisher: str | None
    folder: str
    location: str | None
    bounds: Bounds | None
    resolution: float | None
    survey_type: str | None
    epoch: tuple[int, int] | None
    doi_dataset: str | None
    doi_literature: str | None
    paper: Paper | None
    licence: str | None
    crs: str | None
    vertical_datum: str | None
    units: str | None
    nodata: float | None
    firn_correction: bool | None
    radar: Radar | None
    built_from: BuiltFrom | None
    overlaps_with: tuple[str, ...]
    pipelines: tuple[str, ...]
    files: tuple[File, ...]
    instructions: str | None
    notes: str | None

    def how_to_get(self, *filenames: str) -> str:
        """Return how to obtain the dataset's files: with a command, or from a person.

        Parameters
        ----------
        *filenames
            Names in the registry, of archives or of their unpacked members; none for all files.

        Examples
        --------
        >>> from deepbedmap import registry
        >>> registry.load()["King2016Rutford"].how_to_get("bed_WGS84_grid.txt")
        '`deepbedmap fetch King2016Rutford` gets it'
        """
        chosen = [
            file
            for file in self.files
            if not filenames or file.filename in filenames or file.name in filenames
        ]
        if any(file.urls and file.access != "manual" for file in chosen):
            return f"`deepbedmap fetch {self.citekey}` gets it"
        return self.how_to_ask(*(filenames or [file.filename for file in self.files]))

    def how_to_ask(self, *filenames: str) -> str:
        """Return how a person obtains files that no program can download, and where to put them."""
        placement = f"put {', '.join(filenames) or 'its files'} into {self.folder}/"
        if self.instructions:
            return f"{self.instructions.rstrip('.')}; {placement}"
        doi = self.doi_dataset or self.doi_literature
        source = f"https://doi.org/{doi}" if doi else repr(self.title)
        if self.doi_dataset and not self.files:
            return f"see {source} for the files of {self.citekey}, and {placement}"
        authors = "the authors"
        if self.authors:
            authors += f" ({self.authors[0]}{' and others' if len(self.authors) > 1 else ''})"
        return f"ask {authors} of {source} for the files of {self.citekey}, and {placement}"
