"""Choose files of the registry by citekeys, file names, folders and bounds.

Also locate them on disk (:func:`locate`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from deepbedmap import registry as registries
from deepbedmap import repository
from deepbedmap.download.archives import is_archive
from deepbedmap.download.receipts import FOLDER, Receipt
from deepbedmap.download.workers import raise_faults
from deepbedmap.errors import (
    Fault,
    InvalidDataError,
    MissingDataError,
    WrongCallError,
    did_you_mean,
)
from deepbedmap.files.checksums import sha256_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from deepbedmap.registry.listing import Registry
    from deepbedmap.registry.records import Dataset, File


def locate(
    dataset: Dataset, data_dir: str | Path | None = None, filename: str | None = None
) -> list[Path]:
    """Return the paths of a dataset's files, as pipelines and drivers read them, unchecked.

    Parameters
    ----------
    dataset
        An entry of the registry.
    data_dir
        Folder for the files; None for :func:`deepbedmap.repository.data_dir`.
    filename
        One of the dataset's files (an archive may hold several); None for all.

    Raises
    ------
    MissingDataError
        A file is missing; the message says which command, or which person, provides it.
    """
    folder = data_folder(data_dir) / dataset.folder
    files = [file for file in dataset.files if filename in (None, file.filename)]
    wanted = [WantedFile(dataset, file, folder) for file in files]
    raise_faults(
        [MissingDataError(missing_message(item)) for item in wanted if not item.is_complete]
    )
    return [path for item in wanted for path in item.paths]


def refuse_withdrawn(dataset: Dataset, listing: Path) -> None:
    """Raise :class:`InvalidDataError` if a dataset is withdrawn."""
    if dataset.status == "withdrawn":
        remedy = f"use {dataset.superseded_by}" if dataset.superseded_by else None
        raise InvalidDataError(
            Fault(
                str(listing),
                entry=dataset.citekey,
                expected="a dataset that may be used",
                found="one that is withdrawn" + (f" ({dataset.notes})" if dataset.notes else ""),
                remedy=remedy,
            )
        )


@dataclass(frozen=True)
class WantedFile:
    """A file of the registry and its folder; named itself, or one of a folder or a box."""

    dataset: Dataset
    file: File
    folder: Path
    named: bool = True

    @property
    def target(self) -> Path:
        """Path of the downloaded file, to which the checksum belongs."""
        return self.folder / self.file.filename

    @property
    def paths(self) -> list[Path]:
        """Paths of the files that pipelines read: of an archive the extracted files.

        Empty while the contents of the archive are unknown.
        """
        if self.file.members is None:
            return [self.folder / self.file.name]
        receipt = Receipt.read(self.target)
        return [self.folder / name for name in (receipt and receipt.members) or ()]

    @property
    def unpacks(self) -> bool:
        """Whether the file is an archive whose contents are extracted."""
        return self.file.unpacked is not None or self.file.members is not None

    @property
    def is_complete(self) -> bool:
        """Whether every file that the pipelines read is on disk."""
        return bool(self.paths) and all(path.is_file() for path in self.paths)

    @property
    def is_packed(self) -> bool:
        """Whether the archive from which the files are extracted is on disk."""
        return self.unpacks and self.target.is_file()

    @property
    def has_checksum(self) -> bool:
        """Whether the registry has a checksum of the file or of its contents."""
        return self.file.sha256 is not None or self.file.content_sha256 is not None

    @property
    def can_be_fetched(self) -> bool:
        """Whether the file has a URL and can be downloaded without manual steps."""
        return bool(self.file.urls) and self.file.access != "manual"

    def place(self, url: str) -> Path:
        """Return where the bytes of a URL go: to the file, or to an archive that contains it."""
        if self.is_inside(url):
            name = sha256_of(url.encode())[:16]
            return self.folder / FOLDER / f"{name}.archive"
        return self.target

    def is_inside(self, url: str) -> bool:
        """Return whether a URL is that of an archive from which the file is extracted."""
        return is_archive(urlsplit(url).path) and not is_archive(self.file.filename)


def data_folder(data_dir: str | Path | None) -> Path:
    """Return the folder for data files; the default of the repository if it is None."""
    return repository.data_dir() if data_dir is None else Path(data_dir)


def choose_files(
    names: str | Iterable[str],
    bounds: Sequence[float] | None,
    registry: Registry | None,
    data_dir: str | Path | None,
) -> tuple[list[WantedFile], list[str]]:
    """Return the files for names and a box, each once, and messages about those left out."""
    registry = registries.load() if registry is None else registry
    names = [names] if isinstance(names, str) else [*names]
    if not names and bounds is None:
        raise WrongCallError("name what to fetch (a citekey, a file, a folder), or give bounds")
    folders = {dataset.folder for dataset in registry}
    chosen: list[WantedFile] = []
    groups: list[Dataset] = [] if names else [*registry]
    for name in names:
        if (folder := name.rstrip("/")) in folders and name not in registry:
            groups += [dataset for dataset in registry if dataset.folder == folder]
        else:
            chosen += _named(name, registry, data_dir)
    left_out = []
    inside = {dataset.citekey for dataset in registry}
    if bounds is not None:
        table = registry.search(bounds=bounds)
        inside = {*table["citekey"][table["bounds_known"]]}
        placeless = {*table["citekey"]} - inside
        placeless &= {item.dataset.citekey for item in chosen} | {one.citekey for one in groups}
        if placeless:
            left_out.append(
                f"{', '.join(sorted(placeless))}: left out, since their bounds are unknown; "
                "name them without a box to fetch them"
            )
    for dataset in groups:
        if dataset.citekey not in inside:
            continue
        if dataset.status == "withdrawn":
            left_out.append(f"{dataset.citekey}: left out, since it is withdrawn")
        elif not dataset.files:
            left_out.append(f"{dataset.citekey}: left out; {dataset.how_to_ask()}")
        else:
            chosen += [
                WantedFile(dataset, file, data_folder(data_dir) / dataset.folder, named=False)
                for file in dataset.files
            ]
    wanted: dict[Path, WantedFile] = {}
    for item in chosen:
        if item.dataset.citekey in inside:
            wanted.setdefault(item.target, item)
    return [*wanted.values()], left_out


def _named(name: str, registry: Registry, data_dir: str | Path | None) -> list[WantedFile]:
    """Return the files for a citekey or a file name of the registry."""
    if name in registry:
        refuse_withdrawn(registry[name], registry.path)
        found = [(registry[name], file) for file in registry[name].files]
        if not found:
            raise MissingDataError(f"{name}: {registry[name].how_to_ask()}")
    else:
        found = [
            (dataset, file)
            for dataset in registry
            for file in dataset.files
            for known in dict.fromkeys((file.filename, file.name))
            if name in (known, f"{dataset.folder}/{known}")
        ]
    if not found or len({dataset.folder for dataset, _ in found}) > 1:
        folders = " or ".join(f"{dataset.folder}/{name}" for dataset, _ in found)
        citekeys = [dataset.citekey for dataset in registry]
        files = [file.filename for dataset in registry for file in dataset.files]
        raise InvalidDataError(
            Fault(
                str(registry.path),
                expected=folders or "a citekey, a folder or a file name of the registry",
                found=repr(name),
                remedy=None
                if found
                else did_you_mean(name, [*citekeys, *files]) or "`deepbedmap list` shows all",
            )
        )
    for dataset, _ in found:
        refuse_withdrawn(dataset, registry.path)
    return [
        WantedFile(dataset, file, data_folder(data_dir) / dataset.folder) for dataset, file in found
    ]


def missing_message(item: WantedFile) -> str:
    """Return a message that names the missing file and says how to get it."""
    path = next((path for path in item.paths if not path.is_file()), item.target)
    return f"{path}: not there; {item.dataset.how_to_get(item.file.filename)}"
