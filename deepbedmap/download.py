"""Fetch the files of datasets: checked against the registry, unpacked, or not there at all."""

from __future__ import annotations

import contextlib
import filecmp
import fnmatch
import ftplib
import logging
import lzma
import shutil
import stat
import tarfile
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

import pooch
import requests
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

import deepbedmap
from deepbedmap import registry as registries
from deepbedmap import repository, schemas
from deepbedmap.errors import (
    DeepBedMapError,
    DownloadError,
    Fault,
    InvalidDataError,
    MissingDataError,
)
from deepbedmap.registry import ARCHIVE_SUFFIXES, Dataset, File, Registry

logger = logging.getLogger(__name__)

TIMEOUT = 30
"""Seconds of silence after which a server is given up."""

LARGEST_RATIO = 200
"""How many times the size of an archive its contents may have; text has about 10."""

MOST_MEMBERS = 10_000
"""How many members of an archive may land in a folder."""

_CHUNK = 2**18


def fetch(
    citekeys: str | Iterable[str],
    jobs: int = 4,
    offline: bool = False,
    progress: bool = True,
    *,
    registry: Registry | None = None,
    data_dir: str | Path | None = None,
) -> list[Path]:
    """Get files into ``data_dir/<folder>/``: those of datasets, or single ones.

    A file that is there and right is not fetched again; one that is there and differs from what
    the registry says is left alone, and is an error. A new file is put in its place only when it
    is whole, has its checksum and, if it is an archive, has been unpacked. Where the registry has
    no checksum, the file is taken, and a warning is logged that gives the checksum found. Where the
    registry has a pattern for an archive's members, the names of those that landed are kept in
    ``<archive>.members`` beside it.

    Parameters
    ----------
    citekeys
        What to get, one or several: a citekey stands for all files of a dataset; a file name of
        the registry, such as ``2011_Antarctica_TO.csv``, for that file. ``highres/<name>`` tells
        it from a file of the same name in another folder.
    jobs
        How many files are fetched at a time, at least 1.
    offline
        Take only what is there: nothing is fetched, and no connection is opened.
    progress
        Show progress bars where standard error is a terminal.
    registry
        The registry to go by; None for the one that comes with the package.
    data_dir
        Where the files land; None for :func:`deepbedmap.repository.data_dir`.

    Returns
    -------
    list of pathlib.Path
        The files that pipelines and drivers read (out of their archives), in the order asked for
        and in that of the registry.

    Raises
    ------
    MissingDataError
        Files are not there and cannot be fetched: offline, no URL or not even their names are
        known, or a person must get them. The message says which command, or which person, does.
    DownloadError
        A file that is there is not what the registry says (then nothing is fetched); or a file
        could not be fetched or unpacked (the others are fetched all the same). The message has
        one line a file.
    InvalidDataError
        The registry has no such dataset or file, or the dataset is withdrawn.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, not {jobs}")
    registry = registries.load() if registry is None else registry
    names = [citekeys] if isinstance(citekeys, str) else citekeys
    named = (item for name in names for item in _named(name, registry, data_dir))
    wanted = list({item.target: item for item in named}.values())
    stop = threading.Event()
    in_place = _each(_is_in_place, wanted, jobs, stop)
    absent = [item for item, there in zip(wanted, in_place, strict=True) if not there]
    if offline:
        _require(item for item in absent if not item.target.is_file())
        for item in absent:
            if not item.target.is_file():
                logger.warning("%s is gone, so what was in it is not checked", item.target)
        absent = [item for item in absent if item.target.is_file()]
    with contextlib.ExitStack() as stack:
        folders = {item.folder for item in absent}
        stages = {folder: Path(stack.enter_context(_stage(folder))) for folder in folders}
        transfers = stack.enter_context(_Transfers(progress and bool(absent), stop))
        _each(lambda item: _obtain(item, stages[item.folder], transfers), absent, jobs, stop)
    return [path for item in wanted for path in item.paths]


def locate(
    dataset: Dataset, data_dir: str | Path | None = None, filename: str | None = None
) -> list[Path]:
    """Return where a dataset's files are, as pipelines and drivers read them; do not check them.

    Parameters
    ----------
    dataset
        An entry of the registry.
    data_dir
        Where the files land; None for :func:`deepbedmap.repository.data_dir`.
    filename
        One of the dataset's files (an archive may hold several); None for all.

    Raises
    ------
    MissingDataError
        A file is not there; the message says which command, or which person, gets it.
    """
    folder = _folder(dataset, data_dir)
    files = [file for file in dataset.files if filename in (None, file.filename)]
    wanted = [_Wanted(dataset, file, folder) for file in files]
    _require(wanted)
    return [path for item in wanted for path in item.paths]


def refuse_withdrawn(dataset: Dataset, listing: Path) -> None:
    """Raise :class:`InvalidDataError` where a dataset of a registry file must not be used."""
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
class _Wanted:
    """A file, and where it is wanted."""

    dataset: Dataset
    file: File
    folder: Path

    @property
    def target(self) -> Path:
        """Where the file goes that the checksum is of."""
        return self.folder / self.file.filename

    @property
    def listing(self) -> Path:
        """Where the names of an archive's members are kept, if the registry does not know them."""
        return self.folder / f"{self.file.filename}.members"

    @property
    def paths(self) -> list[Path]:
        """Where the files go that pipelines read: others, if the first is an archive.

        Empty as long as it is not known which the archive holds.
        """
        if self.file.members is None:
            return [self.folder / self.file.name]
        if not self.listing.is_file():
            return []
        names = self.listing.read_text(encoding="utf-8").split("\n")
        return [self.folder / Path(name).name for name in names if name]

    @property
    def is_complete(self) -> bool:
        return bool(self.paths) and all(path.is_file() for path in self.paths)


def _named(name: str, registry: Registry, data_dir: str | Path | None) -> list[_Wanted]:
    """Find what a citekey or a file name of the registry stands for."""
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
                expected=folders or "a citekey or a file name of the registry",
                found=repr(name),
                remedy=None
                if found
                else schemas.near(name, [*citekeys, *files]) or "`deepbedmap list` shows all",
            )
        )
    for dataset, _ in found:
        refuse_withdrawn(dataset, registry.path)
    return [_Wanted(dataset, file, _folder(dataset, data_dir)) for dataset, file in found]


def _folder(dataset: Dataset, data_dir: str | Path | None) -> Path:
    return (repository.data_dir() if data_dir is None else Path(data_dir)) / dataset.folder


def _require(wanted: Iterable[_Wanted]) -> None:
    missing = [_missing(item) for item in wanted if not item.is_complete]
    if missing:
        raise MissingDataError("\n".join(missing))


def _missing(item: _Wanted) -> str:
    path = next((path for path in item.paths if not path.is_file()), item.target)
    return f"{path}: not there; {item.dataset.how_to_get(item.file.filename)}"


def _each(
    work: Callable[[_Wanted], Any], items: list[_Wanted], jobs: int, stop: threading.Event
) -> list[Any]:
    """Do the work for every item, and only then raise what went wrong, one line an item."""
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            errors = [future.exception() for future in futures]
        except BaseException:  # Ctrl-C: end what runs, and do not begin the rest
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    faults = [error for error in errors if error is not None]
    for fault in faults:
        if not isinstance(fault, DeepBedMapError):
            raise fault
    if faults:
        missing = all(isinstance(fault, MissingDataError) for fault in faults)
        kind = MissingDataError if missing else DownloadError
        raise kind("\n".join(map(str, faults))) from faults[0]
    return [future.result() for future in futures]


def _is_in_place(item: _Wanted) -> bool:
    """Say whether a file is there and right; raise if it is there and wrong."""
    if not item.target.is_file():
        return False
    if wrong := _wrong(item.target, item):
        raise DownloadError(
            f"{item.target}: {wrong}; move it away, and it is fetched again, or mend the registry"
        )
    if item.file.unpacked is None and item.file.members is None:
        return True
    if not item.is_complete:
        return False
    with _opened(item.target, str(item.target)) as members:
        chosen = {
            item.folder / name: member for name, member in _chosen(members, item.file).items()
        }
        if not all(path.is_file() for path in chosen):
            return False
        changed = [path for path, member in chosen.items() if not _is_same(path, member)]
    if changed:
        raise _differs(changed[0], item)
    return True


def _is_same(path: Path, member: _Member) -> bool:
    with member.open() as packed, path.open("rb") as file:
        return all(chunk == file.read(len(chunk)) for chunk in _chunks(packed)) and not file.read(1)


def _wrong(path: Path, item: _Wanted) -> str | None:
    """Say how a file's checksum differs from that of the registry, if it does."""
    found = pooch.file_hash(str(path), alg="sha256")
    if item.file.sha256 is None:
        logger.warning(
            "%s: taken unchecked, since the registry has no checksum; its sha256 is %s",
            item.target,
            found,
        )
    elif found != item.file.sha256:
        return f"expected sha256 {item.file.sha256}, found {found}"
    return None


def _differs(path: Path, item: _Wanted) -> DownloadError:
    return DownloadError(
        f"{path}: expected what {item.target.name} holds, found something else; "
        "move it away, and it is unpacked again"
    )


def _stage(folder: Path) -> tempfile.TemporaryDirectory[str]:
    """Make a place for what is not whole yet, on the disk where it will stay."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder)
    except OSError as error:
        raise DownloadError(f"{folder}: cannot be written to: {error.strerror}") from error


def _obtain(item: _Wanted, stage: Path, transfers: _Transfers) -> None:
    try:
        whole = item.target
        if not whole.is_file():
            whole = stage / item.file.filename
            _download(item, whole, transfers)
        if item.file.unpacked is not None or item.file.members is not None:
            _unpack(whole, item, stage / f"{item.file.filename}.unpacked")
        if whole != item.target:
            whole.replace(item.target)
    except DeepBedMapError:
        raise
    except OSError as error:
        raise DownloadError(f"{item.target}: cannot be written: {error}") from error
    for path in item.paths:
        logger.info("%s: fetched", path)


def _unpack(archive: Path, item: _Wanted, stage: Path) -> None:
    """Put the members that the registry means into their folder: all of them, or none."""
    stage.mkdir()
    with _opened(archive, str(item.target)) as members:
        chosen = _chosen(members, item.file)
        for name, member in chosen.items():
            _extract(member, stage / name)
    for name in chosen:
        place = item.folder / name
        if place.exists() and not filecmp.cmp(stage / name, place, shallow=False):
            raise _differs(place, item)
    for name in chosen:
        (stage / name).replace(item.folder / name)
    if item.file.members is not None:
        with repository.beside(item.listing) as part:
            part.write_text("".join(f"{name}\n" for name in sorted(chosen)), encoding="utf-8")


def _extract(member: _Member, to: Path) -> None:
    with member.open() as packed, to.open("wb") as unpacked:
        shutil.copyfileobj(packed, unpacked, _CHUNK)


def _download(item: _Wanted, whole: Path, transfers: _Transfers) -> None:
    if not item.file.urls or item.file.access == "manual":
        raise MissingDataError(_missing(item))
    failures = []
    for url in item.file.urls:
        try:
            if _is_archive(urlsplit(url).path) and not _is_archive(item.file.filename):
                archive = transfers.archive(url, whole.with_name(f"{whole.name}.in"))
                with _opened(archive, url) as members:
                    (member,) = _chosen(members, item.file).values()
                    _extract(member, whole)
            else:
                transfers.get(url, whole)
        except DownloadError as error:
            failures.append(str(error))
        else:
            wrong = "found a web page" if _is_web_page(whole) else _wrong(whole, item)
            if wrong is None:
                return
            failures.append(f"{url}: {wrong}")
        logger.info("%s: %s", item.target, failures[-1])
    advice = "" if item.file.url else f"; {item.dataset.how_to_ask(item.file.filename)}"
    if item.file.access == "earthdata":
        advice = (
            "; a login of NASA's Earthdata is needed (https://urs.earthdata.nasa.gov), "
            "which ~/.netrc may hold"
        )
    raise DownloadError(f"{item.target}: {'; '.join(failures)}{advice}")


def _is_web_page(path: Path) -> bool:
    """Say whether a server sent a page, to log in for example, and called it a file."""
    with path.open("rb") as file:
        start = file.read(256).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return start.startswith((b"<!doctype html", b"<html")) and path.suffix not in (".htm", ".html")


class _Transfers:
    """The transfers of one call of :func:`fetch`, and their progress bars."""

    def __init__(self, progress: bool, stop: threading.Event) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not (progress and console.is_terminal),
        )
        self._stop = stop
        self._archives: dict[str, Future[Path]] = {}
        self._guard = threading.Lock()

    def __enter__(self) -> _Transfers:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def get(self, url: str, path: Path) -> None:
        """Bring what a URL leads to into a file."""
        parts = urlsplit(url)
        bar = _Bar(self._progress, path.name, self._stop)
        try:
            if parts.scheme == "file":
                _copy(Path(url2pathname(parts.path)), path, bar)
            elif parts.scheme == "ftp":
                ftp = pooch.FTPDownloader(port=parts.port or 21, timeout=TIMEOUT, chunk_size=_CHUNK)
                ftp(f"ftp://{parts.hostname}{unquote(parts.path)}", str(path), None)
            else:
                headers = {"User-Agent": f"deepbedmap/{deepbedmap.__version__}"}
                http = pooch.HTTPDownloader(
                    progressbar=bar, chunk_size=_CHUNK, timeout=TIMEOUT, headers=headers
                )
                http(url, str(path), None)
        except DeepBedMapError:
            raise
        except requests.Timeout as error:
            raise DownloadError(f"{url}: no answer for {TIMEOUT} s") from error
        except requests.HTTPError as error:
            answer = f"{error.response.status_code} {error.response.reason}"
            raise DownloadError(f"{url}: the server answers {answer}") from error
        except requests.ConnectionError as error:
            raise DownloadError(f"{url}: no connection to {parts.netloc}, or it broke") from error
        except (OSError, EOFError, ValueError, ftplib.Error) as error:
            raise DownloadError(f"{url}: cannot be fetched: {error}") from error

    def archive(self, url: str, path: Path) -> Path:
        """Bring an archive, of which several files may be members, once a call."""
        with self._guard:
            first = url not in self._archives
            archive = self._archives.setdefault(url, Future())
        if first:
            try:
                self.get(url, path)
            except BaseException as error:
                archive.set_exception(error)
            else:
                archive.set_result(path)
        return archive.result()


class _Bar:
    """A progress bar as pooch wants it; ends the transfer once it is told to stop."""

    def __init__(self, progress: Progress, name: str, stop: threading.Event) -> None:
        self._progress = progress
        self._task = progress.add_task(name, total=None)
        self._stop = stop

    @property
    def total(self) -> float | None:
        return self._progress.tasks[self._task].total

    @total.setter
    def total(self, size: int) -> None:
        self._progress.update(self._task, total=size or None)

    def update(self, size: int) -> None:
        if self._stop.is_set():
            raise DownloadError("stopped")
        self._progress.advance(self._task, size)

    def reset(self) -> None:
        self._progress.reset(self._task, total=self.total)

    def close(self) -> None:
        self._progress.stop_task(self._task)


def _copy(source: Path, target: Path, bar: _Bar) -> None:
    with source.open("rb") as file, target.open("wb") as copy:
        bar.total = source.stat().st_size
        for chunk in _chunks(file):
            copy.write(chunk)
            bar.update(len(chunk))


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        yield chunk


def _is_archive(name: str) -> bool:
    return name.lower().endswith(ARCHIVE_SUFFIXES)


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    is_folder: bool
    is_file: bool
    open: Callable[[], IO[bytes]]


@contextlib.contextmanager
def _opened(archive: Path, called: str) -> Iterator[list[_Member]]:
    """Open an archive for its files; what is wrong with it, also while it is read, is one line."""
    try:
        with contextlib.ExitStack() as stack:
            yield _safe(_members(archive, stack), archive)
    except DownloadError as error:
        raise DownloadError(f"{called}: the archive {error}") from error
    except (
        OSError,
        EOFError,
        RuntimeError,  # a password, or a kind of compression that Python does not know
        zipfile.BadZipFile,
        tarfile.TarError,
        zlib.error,
        lzma.LZMAError,
    ) as error:
        raise DownloadError(
            f"{called}: the archive cannot be unpacked: {error or 'it ends too soon'}"
        ) from error


def _members(path: Path, stack: contextlib.ExitStack) -> Iterator[_Member]:
    with path.open("rb") as file:
        is_zip = file.read(2) == b"PK"
    if is_zip:
        archive = stack.enter_context(zipfile.ZipFile(path))
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            yield _Member(
                info.filename,
                info.file_size,
                is_folder=info.is_dir(),
                is_file=kind in (0, stat.S_IFREG),
                open=partial(archive.open, info),
            )
    else:
        try:
            tar = tarfile.open(path)  # noqa: SIM115  (the stack closes it)
        except tarfile.ReadError as error:
            # Python's own message has a line for each kind of compression it tried.
            raise tarfile.ReadError("it is no zip or tar archive, or a broken one") from error
        stack.enter_context(tar)
        for entry in tar:
            yield _Member(
                entry.name,
                entry.size,
                is_folder=entry.isdir(),
                is_file=entry.isreg(),
                open=partial(
                    cast("Callable[[tarfile.TarInfo], IO[bytes]]", tar.extractfile), entry
                ),
            )


def _safe(members: Iterable[_Member], archive: Path) -> list[_Member]:
    """Return an archive's files; refuse one that nobody makes with good intentions."""
    room = max(2**26, LARGEST_RATIO * archive.stat().st_size)
    files = []
    for member in members:
        path = PurePosixPath(member.name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or any(":" in part for part in path.parts[:1]):
            raise DownloadError(f"holds an unsafe name, {member.name!r}")
        room -= member.size
        if room < 0:
            raise DownloadError(f"unpacks to more than {LARGEST_RATIO} times its size")
        if member.is_folder:
            continue
        if not member.is_file:
            raise DownloadError(f"holds a link or a device, {member.name!r}")
        if path.parts[:1] != ("__MACOSX",):  # attributes that macOS packs with every file
            files.append(member)
    return files


def _chosen(members: list[_Member], file: File) -> dict[str, _Member]:
    """Return the members of an archive that the registry means, by the names they get."""
    if file.members is not None:
        return _fitting(members, file.members)
    if file.member is not None:
        wanted = f"a file {file.member!r}"
        meant = [member for member in members if member.name == file.member]
    elif file.unpacked is not None:
        wanted = "one file"
        meant = members
    else:
        wanted = f"one file called {file.filename!r}"
        meant = [member for member in members if _plain(member) == file.filename]
    if len(meant) != 1:
        raise DownloadError(f"should hold {wanted}, and holds {_some(members)}")
    return {file.name: meant[0]}


def _fitting(members: list[_Member], pattern: str) -> dict[str, _Member]:
    fitting: dict[str, _Member] = {}
    taken = set()
    for member in members:
        name = _plain(member)
        if not fnmatch.fnmatchcase(name, pattern):
            continue
        if name.startswith(".") or ":" in name or not name.isprintable():
            raise DownloadError(f"holds an unsafe name, {member.name!r}")
        if name.casefold() in taken:  # one name to many file systems
            raise DownloadError(f"holds two files called {name!r}")
        taken.add(name.casefold())
        fitting[name] = member
        if len(fitting) > MOST_MEMBERS:
            raise DownloadError(f"holds more than {MOST_MEMBERS:,} files that fit {pattern!r}")
    if not fitting:
        raise DownloadError(f"should hold files that fit {pattern!r}, and holds {_some(members)}")
    return fitting


def _plain(member: _Member) -> str:
    return PurePosixPath(member.name.replace("\\", "/")).name


def _some(members: list[_Member]) -> str:
    names = ", ".join(member.name for member in members[:10]) or "nothing"
    return names + (f" and {len(members) - 10} more" if len(members) > 10 else "")
