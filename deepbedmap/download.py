"""Fetch the files of datasets: checked against the registry, unpacked, or not there at all."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import re
import shutil
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import urlsplit

import filelock
import requests
from rich.filesize import decimal

from deepbedmap import archives, earthdata, receipts, repository, schemas, transfers
from deepbedmap import registry as registries
from deepbedmap.archives import ArchiveError, is_archive
from deepbedmap.errors import (
    DeepBedMapError,
    DownloadError,
    Fault,
    InvalidDataError,
    MissingDataError,
)
from deepbedmap.progress import Bars
from deepbedmap.receipts import Digest, Receipt
from deepbedmap.registry import Dataset, File, Registry
from deepbedmap.transfers import Transfers

logger = logging.getLogger(__name__)


def fetch(
    citekeys: str | Iterable[str] = (),
    jobs: int = 4,
    offline: bool = False,
    progress: bool = True,
    *,
    registry: Registry | None = None,
    data_dir: str | Path | None = None,
    bounds: Sequence[float] | None = None,
    per_host: int = 16,
    timeout: float = 30.0,
    keep_archives: bool = True,
    again: bool = False,
) -> list[Path]:
    """Get files into ``data_dir/<folder>/``: those of datasets, of folders, of a box, or single.

    A file that is there and right is not fetched again; one that is there and differs from what
    the registry says is left alone, and is an error. A new file is put in its place only when it
    is whole, has its checksum and, if it is an archive, has been unpacked. Until then it grows in
    ``<file>.part`` beside its place, where another call goes on after this one was cut off, even
    by a kill; two processes at a time share the work.

    Every file gets a receipt, ``.fetched/<file>.json`` in its folder: what came, from where, and
    when. Where the registry has no checksum, a warning gives the one found, and the file is checked
    against its receipt from then on. An archive that is gone counts as in place as long as what
    came out of it is as its receipt says.

    Parameters
    ----------
    citekeys
        What to get, one or several: a citekey stands for all files of a dataset; a file name of
        the registry, such as ``2011_Antarctica_TO.csv``, for that file (``highres/<name>`` tells
        it from one of the same name in another folder); ``highres``, ``lowres`` or ``misc`` for
        every dataset of that folder.
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
    bounds
        (xmin, ymin, xmax, ymax) in metres, EPSG:3031: of the datasets named, or of all if none
        is, those whose bounds touch this box. Those of unknown bounds are left out.
    per_host
        How many files are fetched from one host at a time.
    timeout
        Seconds without a byte after which a server is asked again.
    keep_archives
        Whether an archive stays once it is unpacked.
    again
        Fetch anew what is there and differs from the registry or its receipt, or has no checksum
        in the registry, and replace it. What a person put in place gets a new receipt.

    Returns
    -------
    list of pathlib.Path
        The files that pipelines and drivers read (out of their archives), in the order asked for
        and in that of the registry. What a folder or a box has that no program can fetch is left
        out, and a warning says so.

    Raises
    ------
    MissingDataError
        Files are not there and cannot be fetched: offline, no URL or not even their names are
        known, a login is missing, or a person must get them. The message says which command, or
        which person, does.
    DownloadError
        A file that is there is not what the registry or its receipt says, or the disk is too
        small (then nothing is fetched); or a file could not be fetched or unpacked (the others are
        fetched all the same). The message has one line a file.
    InvalidDataError
        The registry has no such dataset or file, or the dataset is withdrawn.
    ValueError
        Nothing is named and no box given, or an argument is out of its range.
    """
    for name, value in (("jobs", jobs), ("per_host", per_host)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    if not 0 < timeout < math.inf:
        raise ValueError(f"timeout must be a number of seconds above 0, not {timeout}")
    if again and offline:
        raise ValueError("again: nothing is fetched again offline")
    wanted, left_out = _choose(citekeys, bounds, registry, data_dir)
    shared = Transfers(timeout=timeout, per_host=per_host)
    with Bars(progress, shared.stop) as bars:
        found = _look(wanted, jobs, bars, shared.stop)
        wrong = [_wrong(*pair, again) for pair in zip(wanted, found, strict=True)]
        _raise([DownloadError(line) for line in wrong if line])
        todo = []
        for item, checked in zip(wanted, found, strict=True):
            if _is_to_do(item, checked, offline, again):
                todo.append(item)
            else:
                _accept(item, checked)
        wanted, todo = _leave_out(wanted, todo, left_out)
        try:
            if offline:
                _raise([MissingDataError(_missing(item)) for item in todo if not item.is_packed])
            _announce(todo, again)
            bars.expect(len(todo), sum(size or 0 for size, _ in map(_to_come, todo)))
            call = _Call(shared, bars, again)
            _each(call.obtain, _groups(todo), jobs, shared.stop)
        finally:
            for line in left_out:
                logger.warning("%s", line)
    for item in wanted:
        if not offline:
            _tidy(item)
        if not keep_archives:
            _drop(item)
    return [path for item in wanted for path in item.paths]


State = Literal["in place", "unpack", "fetch", "go on", "login", "manual"]


@dataclass(frozen=True)
class Planned:
    """What :func:`fetch` would do for one file.

    Attributes
    ----------
    citekey, path
        The dataset, and where the file lands.
    url
        Where it would come from; None if a person must get it.
    bytes
        Its size; None if that is not known.
    there
        How many bytes of it have come already.
    state
        ``"in place"``; ``"unpack"``: the archive is there; ``"fetch"``; ``"go on"`` with the bytes
        that are there; ``"login"``: fetch it with a login of NASA's Earthdata; ``"manual"``: a
        person must get it.
    remedy
        For those that a person must get: how.
    """

    citekey: str
    path: Path
    url: str | None
    bytes: int | None
    there: int
    state: State
    remedy: str | None = None


def plan(
    names: str | Iterable[str] = (),
    *,
    registry: Registry | None = None,
    data_dir: str | Path | None = None,
    bounds: Sequence[float] | None = None,
) -> list[Planned]:
    """Say what :func:`fetch` would do, file by file; open no connection and change nothing.

    Files that are there are taken for right: :func:`verify` reads them.

    Parameters
    ----------
    names, registry, data_dir, bounds
        As of :func:`fetch`.

    Raises
    ------
    MissingDataError, InvalidDataError, ValueError
        As of :func:`fetch`.
    """
    wanted, left_out = _choose(names, bounds, registry, data_dir)
    for line in left_out:
        logger.warning("%s", line)
    return [_planned(item) for item in wanted]


CheckState = Literal["ok", "differs", "missing", "unchecked", "extra"]


@dataclass(frozen=True)
class Checked:
    """What :func:`verify` found of one file.

    Attributes
    ----------
    path
        The file.
    citekey
        Its dataset; None for one that belongs to none.
    state
        ``"ok"``; ``"differs"`` from the registry or its receipt; ``"missing"``; ``"unchecked"``:
        it is there, and nothing says what should be in it; ``"extra"``: nothing says why it is
        there.
    expected, found
        What there should be and what is there, such as ``sha256 1f3a...``.
    by_receipt
        Whether it was checked against a receipt, since the registry has no checksum.
    digest
        Checksum and size of what is there.
    """

    path: Path
    citekey: str | None
    state: CheckState
    expected: str | None = None
    found: str | None = None
    by_receipt: bool = False
    digest: Digest | None = None


def amount(sizes: Iterable[int | None]) -> str:
    """Say how much files are together, some of which may be of unknown size.

    Examples
    --------
    >>> amount([1_200_000, 300_000, None])
    '3 files, 1.5 MB and 1 of unknown size'
    """
    sizes = [*sizes]
    known = [size for size in sizes if size is not None]
    unknown = len(sizes) - len(known)
    text = f"{len(sizes)} file{'' if len(sizes) == 1 else 's'}"
    if known:
        text += f", {decimal(sum(known))}"
    if unknown:
        text += f" and {unknown} of unknown size" if known else " of unknown size"
    return text


def verify(
    names: str | Iterable[str] = (),
    jobs: int = 4,
    progress: bool = True,
    *,
    registry: Registry | None = None,
    data_dir: str | Path | None = None,
) -> list[Checked]:
    """Read what is on disk, and compare it with the registry and with the receipts.

    Nothing is changed, and no connection opened.

    Parameters
    ----------
    names
        As of :func:`fetch`; nothing stands for every dataset, and for what else is in its folder.
    jobs
        How many files are read at a time.
    progress, registry, data_dir
        As of :func:`fetch`.

    Returns
    -------
    list of Checked
        One for each file: of an archive, for it and for each member that landed. Files that are
        there beside those of the registry come last, where whole folders are verified.

    Raises
    ------
    MissingDataError, InvalidDataError
        As of :func:`fetch`.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, not {jobs}")
    registry = registries.load() if registry is None else registry
    folders = sorted({dataset.folder for dataset in registry})
    names = [names] if isinstance(names, str) else [*names]
    wanted, _ = _choose(names or folders, None, registry, data_dir)
    stop = threading.Event()
    with Bars(progress, stop) as bars:
        checked = [one for found in _look(wanted, jobs, bars, stop) for one in found]
    for folder in folders:
        if not names or folder in [name.rstrip("/") for name in names]:
            checked += _extra(registry, _base(data_dir) / folder)
    return checked


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
    folder = _base(data_dir) / dataset.folder
    files = [file for file in dataset.files if filename in (None, file.filename)]
    wanted = [_Wanted(dataset, file, folder) for file in files]
    _raise([MissingDataError(_missing(item)) for item in wanted if not item.is_complete])
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
    """A file, and where it is wanted; named itself, or one of a folder or a box."""

    dataset: Dataset
    file: File
    folder: Path
    named: bool = True

    @property
    def target(self) -> Path:
        """Where the file goes that the checksum is of."""
        return self.folder / self.file.filename

    @property
    def paths(self) -> list[Path]:
        """Where the files go that pipelines read: others, if the first is an archive.

        Empty as long as it is not known which the archive holds.
        """
        if self.file.members is None:
            return [self.folder / self.file.name]
        receipt = Receipt.read(self.target)
        return [self.folder / name for name in (receipt and receipt.members) or ()]

    @property
    def unpacks(self) -> bool:
        return self.file.unpacked is not None or self.file.members is not None

    @property
    def is_complete(self) -> bool:
        return bool(self.paths) and all(path.is_file() for path in self.paths)

    @property
    def is_packed(self) -> bool:
        """Whether the archive is here that the file, or files, come out of."""
        return self.unpacks and self.target.is_file()

    @property
    def has_checksum(self) -> bool:
        """Whether the registry says which bytes are right."""
        return self.file.sha256 is not None or self.file.content_sha256 is not None

    @property
    def can_be_fetched(self) -> bool:
        return bool(self.file.urls) and self.file.access != "manual"

    def place(self, url: str) -> Path:
        """Where the bytes of a URL go: beside the file, or apart if it is only a member of them."""
        if self.is_inside(url):
            name = hashlib.sha256(url.encode()).hexdigest()[:16]
            return self.folder / receipts.FOLDER / f"{name}.archive"
        return self.target

    def is_inside(self, url: str) -> bool:
        """Say whether a URL is that of an archive which is opened on the way."""
        return is_archive(urlsplit(url).path) and not is_archive(self.file.filename)


def _base(data_dir: str | Path | None) -> Path:
    return repository.data_dir() if data_dir is None else Path(data_dir)


def _choose(
    names: str | Iterable[str],
    bounds: Sequence[float] | None,
    registry: Registry | None,
    data_dir: str | Path | None,
) -> tuple[list[_Wanted], list[str]]:
    """Find what names and a box stand for, each file once; and say what cannot be fetched."""
    registry = registries.load() if registry is None else registry
    names = [names] if isinstance(names, str) else [*names]
    if not names and bounds is None:
        raise ValueError("name what to fetch (a citekey, a file, a folder), or give bounds")
    folders = {dataset.folder for dataset in registry}
    chosen: list[_Wanted] = []
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
                f"{', '.join(sorted(placeless))}: left out, since nobody wrote down their bounds; "
                "without a box their names get them"
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
                _Wanted(dataset, file, _base(data_dir) / dataset.folder, named=False)
                for file in dataset.files
            ]
    wanted: dict[Path, _Wanted] = {}
    for item in chosen:
        if item.dataset.citekey in inside:
            wanted.setdefault(item.target, item)
    return [*wanted.values()], left_out


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
                expected=folders or "a citekey, a folder or a file name of the registry",
                found=repr(name),
                remedy=None
                if found
                else schemas.near(name, [*citekeys, *files]) or "`deepbedmap list` shows all",
            )
        )
    for dataset, _ in found:
        refuse_withdrawn(dataset, registry.path)
    return [_Wanted(dataset, file, _base(data_dir) / dataset.folder) for dataset, file in found]


def _leave_out(
    wanted: list[_Wanted], todo: list[_Wanted], left_out: list[str]
) -> tuple[list[_Wanted], list[_Wanted]]:
    """Take out what only a person can get and nobody named, and say so, one line a dataset."""
    theirs: dict[str, list[_Wanted]] = defaultdict(list)
    for item in todo:
        if not (item.named or item.can_be_fetched or item.is_packed):
            theirs[item.dataset.citekey].append(item)
    for citekey, items in theirs.items():
        names = [item.file.filename for item in items]
        how = items[0].dataset.how_to_ask(*(names if len(names) <= 3 else ()))
        left_out.append(f"{citekey}: left out; {how}")
    return (
        [item for item in wanted if item not in theirs[item.dataset.citekey]],
        [item for item in todo if item not in theirs[item.dataset.citekey]],
    )


def _planned(item: _Wanted) -> Planned:
    size, there = _to_come(item)
    url = _shown(item.file.urls[0]) if item.can_be_fetched else None
    state: State = "go on" if there else "fetch"
    remedy = None
    if item.is_complete and (item.target.is_file() or Receipt.read(item.target)):
        state = "in place"
    elif item.is_packed:
        state = "unpack"
    elif url is None:
        state, remedy = "manual", item.dataset.how_to_ask(item.file.filename)
    elif item.file.access == "earthdata" and any(map(earthdata.takes_login, item.file.urls)):
        state = "login"
    return Planned(item.dataset.citekey, item.target, url, size, there, state, remedy)


def _to_come(item: _Wanted) -> tuple[int | None, int]:
    """Return the size of what is to be fetched, if that is known, and how much of it is there."""
    for url in item.file.urls:
        part = transfers.part_of(place := item.place(url))
        if part.is_file():
            notes = transfers.Notes.read(place)
            size = item.file.bytes if place == item.target else None
            return size or (notes.length if notes else None), part.stat().st_size
    inside = item.file.urls and item.is_inside(item.file.urls[0])
    return None if inside else item.file.bytes, 0


def _announce(todo: list[_Wanted], again: bool) -> None:
    """Say how much is to come, and refuse what the disk has no room for."""
    coming = [item for item in todo if item.can_be_fetched and (again or not item.is_packed)]
    if not coming:
        return
    needs: dict[Path, list[int | None]] = defaultdict(list)
    for item in coming:
        size, there = _to_come(item)
        needs[item.folder].append(None if size is None else max(0, size - there))
    disks: dict[int, list[Path]] = defaultdict(list)
    for folder in needs:
        disks[_existing(folder).stat().st_dev].append(folder)
    for folders in disks.values():
        place, sizes = folders[0].parent, [size for folder in folders for size in needs[folder]]
        need, free = sum(size or 0 for size in sizes), shutil.disk_usage(_existing(place)).free
        logger.info("%s to fetch; %s free in %s", amount(sizes), decimal(free), place)
        if need > max(0, free - transfers.SPARE):
            raise DownloadError(
                f"{place}: {need:,} bytes are to come, and the disk has {free:,} free (of which "
                f"{transfers.SPARE:,} are kept); make room, or choose another folder"
            )


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def _wrong(item: _Wanted, checked: list[Checked], again: bool) -> str | None:
    """Say what is wrong with a file that is there, unless that may be replaced or accepted."""
    wrong = [one for one in checked if one.state == "differs"]
    if again and _is_replaceable(item, checked[0]):
        return None
    if again:
        wrong = [one for one in wrong if not (one.by_receipt and item.target.exists())]
    return _differs(wrong[0], item) if wrong else None


def _is_replaceable(item: _Wanted, whole: Checked) -> bool:
    """Say whether a file can be fetched again, or unpacked again from an archive that is right."""
    is_right = whole.state != "differs" or whole.by_receipt
    return item.can_be_fetched or (item.is_packed and is_right)


def _is_to_do(item: _Wanted, checked: list[Checked], offline: bool, again: bool) -> bool:
    """Say whether a file is to be fetched, or unpacked."""
    states = {one.state for one in checked}
    if again and ("differs" in states or not item.has_checksum):
        return _is_replaceable(item, checked[0]) or "missing" in states
    return "missing" in states and not _is_tolerable(item, checked, offline)


def _look(
    wanted: list[_Wanted], jobs: int, bars: Bars, stop: threading.Event
) -> list[list[Checked]]:
    """Read every file that is there, and compare it."""
    places = {path for item in wanted for path in (item.target, *item.paths)}
    size = sum(path.stat().st_size for path in places if path.is_file())
    with bars.bar("checking what is here", size) as bar:
        return _each(lambda item: _inspect(item, bar.advance), wanted, jobs, stop)


def _inspect(item: _Wanted, advance: Callable[[int], None] = lambda _: None) -> list[Checked]:
    """Compare a file with the registry, else with its receipt; and what came out of it."""
    file, receipt = item.file, Receipt.read(item.target)
    known = None if item.has_checksum else receipt
    expected, by_receipt = known.sha256 if known else file.sha256, known is not None
    whole = _check(item, item.target, expected, by_receipt, advance, file.bytes)
    if not item.unpacks:
        return [whole]
    try:
        content = known.content_sha256 if known else file.content_sha256
        if content and whole.digest and whole.state != "ok":
            with archives.opened(item.target) as archive:
                found = archive.content_sha256()
            state: CheckState = "ok" if found == content else "differs"
            whole = replace(
                whole, state=state, expected=f"content {content}", found=f"content {found}"
            )
        members = [
            _check(item, item.folder / name, sha256, by_receipt, advance)
            for name, sha256 in _unpacked(item, whole, receipt).items()
        ]
    except ArchiveError as error:
        found = str(error).removeprefix(f"{item.target}: ")
        return [replace(whole, state="differs", expected="an archive", found=found)]
    if whole.state == "missing":
        if all(one.state == "missing" for one in members):
            return [whole]
        if all(one.state == "ok" for one in members):
            return members
    return [whole, *members]


def _check(
    item: _Wanted,
    path: Path,
    sha256: str | None,
    by_receipt: bool,
    advance: Callable[[int], None],
    size: int | None = None,
) -> Checked:
    """Compare a file with a checksum; without one with a size, if that is known."""
    checked = Checked(path, item.dataset.citekey, "missing", by_receipt=by_receipt)
    if sha256 is not None:
        checked = replace(checked, expected=f"sha256 {sha256}")
    elif size is not None:
        checked = replace(checked, expected=f"{size:,} bytes")
    if path.is_dir():
        return replace(checked, state="differs", expected="a file", found="a folder")
    if not path.is_file():
        return checked
    found = receipts.digest(path, advance)
    checked = replace(checked, found=f"sha256 {found.sha256}", digest=found)
    if sha256 is not None:
        return replace(checked, state="ok" if found.sha256 == sha256 else "differs")
    if size is not None and found.bytes != size:
        return replace(checked, state="differs", found=f"{found.bytes:,} bytes")
    return replace(checked, state="unchecked")


def _unpacked(item: _Wanted, whole: Checked, receipt: Receipt | None) -> dict[str, str | None]:
    """Return which files an archive's members become, and their checksums as far as known."""
    file = item.file
    expected: dict[str, str | None] = {} if file.unpacked is None else {file.unpacked: None}
    if receipt is not None and receipt.members is not None and _fits(receipt, file):
        expected = {name: member.sha256 for name, member in receipt.members.items()}
    elif whole.state in ("ok", "unchecked"):
        with archives.opened(item.target) as archive:
            chosen = archive.choose(file)
            there = any((item.folder / name).is_file() for name in chosen)
            expected = {
                name: member.digest().sha256 if there else None for name, member in chosen.items()
            }
    if file.unpacked is not None and file.unpacked_sha256 is not None:
        expected[file.unpacked] = file.unpacked_sha256
    return expected


def _fits(receipt: Receipt, file: File) -> bool:
    """Say whether a receipt is of the version of an archive that the registry has."""
    if file.content_sha256 is not None and receipt.content_sha256 == file.content_sha256:
        return True
    if file.sha256 is None:
        return file.content_sha256 is None
    return receipt.sha256 == file.sha256


def _is_tolerable(item: _Wanted, checked: list[Checked], offline: bool) -> bool:
    """Say whether what came out of an archive may be taken unchecked, since the archive is gone."""
    there = [one for one in checked if one.state != "missing"]
    is_whole = bool(there) and not item.target.exists() and len(there) == len(checked) - 1
    return item.unpacks and is_whole and (offline or not item.can_be_fetched)


def _accept(item: _Wanted, checked: list[Checked]) -> None:
    """Warn of what nothing tells the right bytes of; keep what is there now in a receipt."""
    if item.unpacks and not item.target.exists():
        if any(one.state == "unchecked" for one in checked):
            logger.warning("%s is gone, so what was in it is not checked", item.target)
        return
    for one in checked:
        if one.state == "unchecked":
            _warn_unchecked(one.path, one.digest and one.digest.sha256)
    whole = checked[0].digest
    members = {one.path.name: one.digest for one in checked[1:] if one.digest is not None}
    old = Receipt.read(item.target)
    if whole and not (old and (old.sha256, old.members or {}) == (whole.sha256, members)):
        receipt = Receipt(None, *whole, receipts.now(), members=members if item.unpacks else None)
        try:
            receipt.write(item.target)
        except OSError as error:  # data that others look after may be read-only
            logger.info("%s: no receipt written: %s", item.target, error)


def _warn_unchecked(path: Path, sha256: str | None) -> None:
    logger.warning(
        "%s: taken unchecked, since the registry has no checksum; its sha256 is %s",
        path,
        sha256,
    )


def _differs(wrong: Checked, item: _Wanted) -> str:
    expected = f"{wrong.expected}"
    receipt = Receipt.read(item.target)
    if wrong.digest is None:  # a folder, or no archive
        pass
    elif wrong.by_receipt and receipt is not None:
        expected += f" as its receipt of {receipt.when} has it"
    elif wrong.path != item.target:
        expected += f" as {item.target.name} holds it"
    remedy = "move it away, or mend the registry"
    if item.can_be_fetched:
        remedy = f"move it away, or `deepbedmap fetch --again {item.file.filename}` replaces it"
    elif wrong.by_receipt and item.target.exists():
        remedy = f"`deepbedmap fetch --again {item.file.filename}` accepts it"
    return f"{wrong.path}: expected {expected}, found {wrong.found}; {remedy}"


def _missing(item: _Wanted) -> str:
    path = next((path for path in item.paths if not path.is_file()), item.target)
    return f"{path}: not there; {item.dataset.how_to_get(item.file.filename)}"


def _extra(registry: Registry, folder: Path) -> Iterator[Checked]:
    """Find the files of a folder that nothing explains."""
    known = {"README.md", "gmt.conf", "gmt.history"}
    for dataset in registry:
        known |= {*dataset.pipelines} if folder.name == "highres" else set()
        if dataset.folder == folder.name:
            known |= {name for file in dataset.files for name in (file.filename, file.name)}
    for path in (folder / receipts.FOLDER).glob("*.json"):
        name = path.name.removesuffix(".json")
        receipt = Receipt.read(folder / name)
        known |= {name, *((receipt and receipt.members) or ())}
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        name = re.sub(r"\.(part|part\.json|aux\.xml)$", "", "/".join(parts))
        if path.is_file() and not any(part.startswith(".") for part in parts) and name not in known:
            yield Checked(path, None, "extra")


_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def _each(
    work: Callable[[_Item], _Result], items: Iterable[_Item], jobs: int, stop: threading.Event
) -> list[_Result]:
    """Do the work for every item, and only then raise what went wrong, each line once."""
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            errors = [future.exception() for future in futures]
        except BaseException:  # Ctrl-C: end what runs, and do not begin the rest
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    _raise([error for error in errors if error is not None])
    return [future.result() for future in futures]


def _raise(faults: Sequence[BaseException]) -> None:
    for fault in faults:
        if not isinstance(fault, DeepBedMapError):
            raise fault
    if faults:
        missing = all(isinstance(fault, MissingDataError) for fault in faults)
        kind = MissingDataError if missing else DownloadError
        raise kind("\n".join(dict.fromkeys(map(str, faults)))) from faults[0]


def _groups(items: Iterable[_Wanted]) -> list[list[_Wanted]]:
    """Put together the files that come out of one archive, which is not kept."""
    groups: dict[tuple[Path, ...], list[_Wanted]] = defaultdict(list)
    for item in items:
        inside = tuple(item.place(url) for url in item.file.urls if item.is_inside(url))
        groups[inside or (item.target,)].append(item)
    return [*groups.values()]


class _WrongError(DownloadError):
    """What came is not what the registry, or the receipt, promises."""


class _LocalError(DownloadError):
    """No other URL would help: the disk, or what is on it, is at fault."""


@dataclass
class _Call:
    """The work of one call of :func:`fetch`; several threads may use it at once."""

    transfers: Transfers
    bars: Bars
    again: bool
    _turn: threading.Lock = field(default_factory=threading.Lock)
    _login: requests.Session | DeepBedMapError | None = None

    def obtain(self, group: list[_Wanted]) -> None:
        """Put files in place that are alone, or come out of one archive; try their URLs in turn."""
        if group[0].is_packed and not (self.again and group[0].can_be_fetched):
            with self._working(group[0].target):
                self._unpack_here(group[0])
            return
        wanted = [item for item in group if item.can_be_fetched]
        faults: list[DeepBedMapError] = [
            MissingDataError(_missing(item)) for item in group if not item.can_be_fetched
        ]
        done: set[Path] = set()
        failures: dict[Path, list[DeepBedMapError]] = {item.target: [] for item in wanted}
        for rank in range(max((len(item.file.urls) for item in wanted), default=0)):
            sources: dict[tuple[str, Path], list[_Wanted]] = defaultdict(list)
            for item in wanted:
                if item.target not in done and rank < len(item.file.urls):
                    url = item.file.urls[rank]
                    sources[url, item.place(url)].append(item)
            for (url, place), items in sources.items():
                try:
                    with self._working(place):
                        self._fetch(url, place, items, done)
                except _LocalError:
                    raise
                except (DownloadError, MissingDataError) as error:
                    if rank + 1 < len(items[0].file.urls):
                        logger.info("%s; trying the next address", error)
                    for item in items:
                        failures[item.target].append(error)
        faults += [
            self._failure(item, failures[item.target]) for item in wanted if item.target not in done
        ]
        _raise(faults)

    @contextlib.contextmanager
    def _working(self, place: Path) -> Iterator[None]:
        """Keep other processes away, and say in one line where a disk is at fault."""
        with _alone(place, self.transfers.stop):
            try:
                yield
            except DeepBedMapError:
                raise
            except OSError as error:
                why = error.strerror or error
                raise _LocalError(f"{place}: cannot be written: {why}") from error

    def _fetch(self, url: str, place: Path, items: list[_Wanted], done: set[Path]) -> None:
        """Get what a URL leads to, and put it in place; start over once if a part was wrong."""
        done |= {item.target for item in items if self._is_done(item)}
        file = items[0].file
        size = None if items[0].is_inside(url) or file.content_sha256 else file.bytes
        checked = file.sha256 is not None and not items[0].is_inside(url)
        for is_last in (False, True):
            left = [item for item in items if item.target not in done]
            if not left:
                transfers.discard(place)
                return
            names = [item.file.filename for item in left]
            with self._session(left[0], url) as session, self.bars.of(names, size) as bar:
                try:
                    sha256 = self.transfers.get(
                        url, place, bar, size=size, checked=checked, session=session
                    )
                    self._take(_shown(url), place, left, sha256, done)
                except (ArchiveError, _WrongError) as error:
                    transfers.discard(place)
                    if is_last or not bar.resumed:
                        raise
                    logger.info("%s; starting over", error)
                else:
                    return

    def _is_done(self, item: _Wanted) -> bool:
        """Say whether another process has put a file in place by now."""
        if self.again:
            return False
        checked = _inspect(item)
        for one in checked:
            if one.state == "differs":
                raise _LocalError(_differs(one, item))
        return all(one.state != "missing" for one in checked)

    @contextlib.contextmanager
    def _session(self, item: _Wanted, url: str) -> Iterator[requests.Session | None]:
        """Log in where that is needed, once a call; one thread at a time may use the session."""
        if item.file.access != "earthdata" or not earthdata.takes_login(url):
            yield None
            return
        with self._turn:
            if self._login is None:
                try:
                    self._login = earthdata.session()
                except DeepBedMapError as error:
                    self._login = error
            if isinstance(self._login, DeepBedMapError):
                raise self._login
            yield self._login

    def _failure(self, item: _Wanted, errors: list[DeepBedMapError]) -> DeepBedMapError:
        for error in errors:
            if error is self._login:
                return type(error)(f"{item.dataset.citekey}: {error}")
        advice = "" if item.file.url else f"; {item.dataset.how_to_ask(item.file.filename)}"
        if item.file.access == "earthdata" and self._login is None:
            advice = f"; a login of NASA's Earthdata is needed (https://{earthdata.LOGIN})"
        return DownloadError(f"{item.target}: {'; '.join(map(str, errors))}{advice}")

    def _take(
        self, url: str, place: Path, items: list[_Wanted], sha256: str, done: set[Path]
    ) -> None:
        """Put what has come in place, if it is right; or what is in it."""
        part, item = transfers.part_of(place), items[0]
        notes = transfers.Notes.read(place)
        came = Receipt(
            url, sha256, part.stat().st_size, receipts.now(), etag=notes.etag if notes else None
        )
        if _is_web_page(part, item.target):
            raise _WrongError(f"{url}: found a web page")
        if place != item.target:
            self._take_members(part, items, came, done)
            transfers.discard(place)
            return
        if item.unpacks:
            came = self._unpack(part, item, came)
        else:
            self._compare(item, came)
        transfers.keep(item.target)
        came.write(item.target)
        done.add(item.target)

    def _take_members(
        self, part: Path, items: list[_Wanted], came: Receipt, done: set[Path]
    ) -> None:
        """Put members of an archive in place that is not kept: each that is right."""
        wrong = []
        with archives.opened(part, came.url) as archive:
            for item in items:
                own = transfers.part_of(item.target)
                try:
                    (member,) = archive.choose(item.file).values()
                    with _alone(item.target, self.transfers.stop):
                        _make_room(item.folder, member.size)
                        try:
                            found = member.extract(own)
                            receipt = replace(came, sha256=found.sha256, bytes=found.bytes)
                            self._compare(item, receipt)
                            transfers.keep(item.target)
                        finally:
                            transfers.discard(item.target)
                        receipt.write(item.target)
                        done.add(item.target)
                except (ArchiveError, _WrongError) as error:
                    wrong.append(str(error))
        if wrong:
            raise _WrongError("; ".join(dict.fromkeys(wrong)))

    def _compare(self, item: _Wanted, came: Receipt) -> None:
        """Refuse a file whose checksum is not the registry's, or has changed since the last."""
        known = None if self.again else Receipt.read(item.target)
        expected = item.file.sha256 or (known.sha256 if known else None)
        if expected is None:
            _warn_unchecked(item.target, came.sha256)
        elif came.sha256 != expected:
            raise _WrongError(
                f"{came.url}: expected sha256 {expected}{_changed(item, known)}, "
                f"found sha256 {came.sha256}{_how_to_accept(item)}"
            )

    def _compare_content(
        self, archive: archives.Archive, item: _Wanted, came: Receipt
    ) -> str | None:
        """Refuse an archive with another checksum, unless it holds what it should."""
        file, known = item.file, None if self.again else Receipt.read(item.target)
        if came.sha256 == file.sha256:
            return None
        if file.sha256 is not None and file.content_sha256 is None:
            self._compare(item, came)
        content = archive.content_sha256()
        expected = file.content_sha256 or (known.content_sha256 if known else None)
        if expected is None:
            if file.unpacked_sha256 is None:
                self._compare(item, came)
        elif content != expected:
            raise _WrongError(
                f"{archive.called}: expected content {expected}{_changed(item, known)}, "
                f"found content {content}{_how_to_accept(item)}"
            )
        return content

    def _unpack_here(self, item: _Wanted) -> None:
        """Unpack an archive that is in place."""
        if self._is_done(item):
            return
        found, known = receipts.digest(item.target), Receipt.read(item.target)
        if known is None or known.sha256 != found.sha256:
            known = Receipt(None, *found, receipts.now())
        self._unpack(item.target, item, known).write(item.target)

    def _unpack(self, path: Path, item: _Wanted, came: Receipt) -> Receipt:
        """Put the members that the registry means into their folder: all of them, or none."""
        stage = receipts.path_of(item.target).with_suffix(".unpacked")
        shutil.rmtree(stage, ignore_errors=True)
        try:
            stage.mkdir(parents=True)
            with archives.opened(path, came.url or str(path)) as archive:
                content = self._compare_content(archive, item, came)
                chosen = archive.choose(item.file)
                _make_room(item.folder, sum(member.size for member in chosen.values()))
                members = {name: member.extract(stage / name) for name, member in chosen.items()}
            expected = item.file.unpacked_sha256
            for name, found in members.items() if expected is not None else ():
                if found.sha256 != expected:
                    raise _WrongError(
                        f"{came.url or path}: expected {name} with sha256 {expected}, "
                        f"found sha256 {found.sha256}"
                    )
            self._refuse_others(item, members)
            for name in members:
                (stage / name).replace(item.folder / name)
        finally:
            shutil.rmtree(stage, ignore_errors=True)
        return replace(came, content_sha256=content, members=members)

    def _refuse_others(self, item: _Wanted, members: dict[str, Digest]) -> None:
        """Leave alone what stands where a member would land, and is not the same."""
        known = Receipt.read(item.target)
        replaced = {item.file.unpacked, *((known and known.members) or ())} if self.again else ()
        for name, member in members.items():
            place = item.folder / name
            if place.is_dir() or (
                place.is_file() and name not in replaced and receipts.digest(place) != member
            ):
                raise _LocalError(
                    f"{place}: expected what {item.target.name} holds, found something else; "
                    "move it away, and it is unpacked again"
                )


def _changed(item: _Wanted, known: Receipt | None) -> str:
    return f" as on {known.when}" if known and not item.has_checksum else ""


def _how_to_accept(item: _Wanted) -> str:
    if item.has_checksum:
        return ""
    return f"; `deepbedmap fetch --again {item.file.filename}` accepts what has changed"


def _make_room(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size > max(0, free - transfers.SPARE):
        raise _LocalError(
            f"{folder}: {size:,} bytes are to be unpacked, and the disk has {free:,} free (of "
            f"which {transfers.SPARE:,} are kept); make room, or choose another folder"
        )


def _drop(item: _Wanted) -> None:
    """Remove an archive whose members are in place, if it can be had again."""
    if item.is_packed and item.can_be_fetched and item.is_complete:
        item.target.unlink()


def _tidy(item: _Wanted) -> None:
    """Remove what a call that was killed left beside a file that is in place."""
    for place in {item.place(url) for url in item.file.urls}:
        leftovers = (_lock_of(place), transfers.part_of(place))
        if any(path.exists() for path in leftovers):
            lock = filelock.FileLock(_lock_of(place))
            with contextlib.suppress(OSError), lock.acquire(blocking=False):
                transfers.discard(place)
                _lock_of(place).unlink()


@contextlib.contextmanager
def _alone(place: Path, stop: threading.Event) -> Iterator[None]:
    """Keep other processes away from a file, and wait for one that is at it."""
    lock = filelock.FileLock(_lock_of(place))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            logger.info("%s: another process fetches it; waiting for its end", place)
            lock.acquire(poll_interval=0.1, cancel_check=stop.is_set)
    except filelock.Timeout as error:
        raise DownloadError("stopped") from error
    except OSError as error:
        why = error.strerror or error
        raise _LocalError(f"{place.parent}: cannot be written to: {why}") from error
    try:
        yield
    finally:
        _lock_of(place).unlink(missing_ok=True)  # before others can lock what is gone by then
        lock.release()


def _lock_of(place: Path) -> Path:
    return place.with_name(f".{place.name}.lock")


def _shown(url: str) -> str:
    """Return a URL without the password in it."""
    return re.sub(r"^(\w+://)[^/?#]*@", r"\1", url)


def _is_web_page(path: Path, target: Path) -> bool:
    """Say whether a server sent a page, to log in for example, and called it a file."""
    with path.open("rb") as file:
        start = file.read(256).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    is_page = start.startswith((b"<!doctype html", b"<html"))
    return is_page and target.suffix not in (".htm", ".html")
