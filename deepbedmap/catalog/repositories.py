"""Files of a repository, on this machine or over http.

A file ``<root>/<folder>/<name>`` belongs to the registry ``<root>/data_list.yml``. Of a
repository over http, only the registry and the pipelines are copied to this machine.
"""

from __future__ import annotations

import os
import posixpath
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

import deepbedmap
from deepbedmap import repository
from deepbedmap.errors import DownloadError, Fault, InvalidDataError, MissingDataError
from deepbedmap.files.atomic import beside
from deepbedmap.files.checksums import sha256_of
from deepbedmap.repository import cache_dir, data_dir

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from deepbedmap.registry.listing import Registry
    from deepbedmap.registry.records import Dataset, File

LARGEST_TEXT = 2**23
"""Bytes that a registry or a pipeline of a repository over http may have; ours has 2**18."""

TIMEOUT = 30
"""Seconds of silence after which a server of a repository is given up."""


@dataclass(frozen=True)
class RepositoryFile:
    """A file ``<root>/<folder>/<name>`` of a repository, and what the registry there says of it."""

    path: Path
    registry: Registry | None = None
    dataset: Dataset | None = None

    @property
    def folders(self) -> tuple[Path, ...]:
        """Where data files are sought, in order."""
        if self.dataset is None:
            return (self.path.parent,)
        return (self.path.parent, data_dir() / self.dataset.folder)

    def listed(self) -> tuple[Registry, Dataset]:
        """Return the registry and the dataset; without them nothing can be fetched."""
        if self.registry is None or self.dataset is None:
            raise MissingDataError(
                f"{self.path}: cannot be fetched, since no registry lists it; "
                f"list it in {self.path.parent.parent / 'data_list.yml'}"
            )
        return self.registry, self.dataset

    def fetch(self, files: Iterable[File]) -> None:
        """Download files of the dataset into the data folder of its registry."""
        from deepbedmap import download

        registry, dataset = self.listed()
        names = [f"{dataset.folder}/{file.filename}" for file in files]
        download.fetch(names, registry=registry, data_dir=data_dir_of(registry))


def data_dir_of(registry: Registry) -> Path:
    """Folder under which the files of a registry land.

    What another registry lists must not get among the data of the package's own.
    """
    own = registry.root.samefile(repository.root())
    return data_dir() if own else registry.root


def mirror_file(url: str) -> Path:
    """Copy what a repository over http says of one of its files; return the file's place there.

    Only text is copied, the registry and the pipeline, and read as any other; the copies stand in
    the user's cache folder (or under ``$DEEPBEDMAP_DATA_DIR``), by the root's URL.
    """
    parts = urlsplit(url)
    *above, folder, name = ["", *posixpath.normpath(parts.path).split("/")]
    if (
        parts.scheme not in ("http", "https")
        or folder not in ("highres", "lowres", "misc")
        or not re.fullmatch(r"[^./\\:\s][^/\\:\x00-\x1f]*", name)
    ):
        raise InvalidDataError(
            Fault(
                url,
                expected="an address http(s)://<root>/<folder>/<name>, with the folder highres, "
                "lowres or misc",
                found="another",
                remedy="open the catalog of a copy of the repository on this machine",
            )
        )
    address = f"{parts.scheme}://{parts.netloc}{'/'.join(above[1:])}"
    copy = _cache() / "repositories" / sha256_of(address.encode())[:16]
    _copy_text(f"{address}/data_list.yml", copy / "data_list.yml")
    if folder == "highres" and name.endswith(".json"):
        _copy_text(f"{address}/{folder}/{quote(name)}", copy / folder / name)
    return copy / folder / name


def _cache() -> Path:
    return data_dir() if os.environ.get("DEEPBEDMAP_DATA_DIR") else cache_dir()


def _copy_text(url: str, place: Path) -> None:
    """Copy a text file from a server that itself has it: it may not send on to another."""
    import requests

    headers = {"User-Agent": f"deepbedmap/{deepbedmap.__version__}"}
    try:
        with requests.get(
            url, headers=headers, timeout=TIMEOUT, stream=True, allow_redirects=False
        ) as answer:
            if answer.is_redirect:
                raise DownloadError(
                    f"{url}: the server sends on to {answer.headers['Location']}; "
                    "open the catalog from there"
                )
            if answer.status_code != requests.codes.ok:
                found = f"{answer.status_code} {answer.reason}"
                raise DownloadError(f"{url}: the server answers {found}")
            text = b""
            for chunk in answer.iter_content(2**16):
                text += chunk
                if len(text) > LARGEST_TEXT:
                    raise DownloadError(f"{url}: larger than {LARGEST_TEXT:,} bytes")
    except requests.Timeout as error:
        raise DownloadError(f"{url}: no answer for {TIMEOUT} s") from error
    except requests.RequestException as error:
        host = urlsplit(url).netloc
        raise DownloadError(f"{url}: no connection to {host}, or it broke") from error
    if place.is_file() and place.read_bytes() == text:
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    with beside(place) as part:
        part.write_bytes(text)


def refuse_local_files(registry: Registry, url: str) -> None:
    """Refuse a registry from elsewhere that names files of this machine."""
    for dataset in registry:
        for file in dataset.files:
            if any(urlsplit(address).scheme == "file" for address in file.urls):
                raise InvalidDataError(
                    Fault(
                        f"data_list.yml of {url}",
                        entry=dataset.citekey,
                        field=f"files.{file.filename}",
                        expected="a URL of http, https or ftp, in a repository over http",
                        found="a file: URL",
                    )
                )
