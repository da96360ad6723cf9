"""Fetch the files of datasets: checked against the registry and unpacked, or not there at all."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from typing import TYPE_CHECKING

from deepbedmap.download.checking import difference_message, inspect_files, warn_unchecked
from deepbedmap.download.choosing import choose_files, missing_message
from deepbedmap.download.installing import Installation, remove_archive, remove_leftovers
from deepbedmap.download.planning import announce_transfers, transfer_size
from deepbedmap.download.progress import Bars
from deepbedmap.download.receipts import Receipt, now
from deepbedmap.download.transfers import ResumingDownloader
from deepbedmap.download.workers import raise_faults, run_all
from deepbedmap.errors import DownloadError, MissingDataError, WrongCallError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from deepbedmap.download.checking import Checked
    from deepbedmap.download.choosing import WantedFile
    from deepbedmap.registry.listing import Registry

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
    """Download files of datasets, of folders or of a box into ``data_dir/<folder>/``.

    A file that is on disk and correct is not downloaded again; one that differs from the registry
    is kept, and is an error. A new file appears under its name only when it is complete, has its
    checksum and, if it is an archive, has been unpacked. Until then it grows in ``<file>.part``
    next to its final path, where another call resumes after this one was cut off, even by a kill;
    simultaneous processes share the work.

    Every file gets a receipt, ``.fetched/<file>.json`` in its folder: its checksum, its URL and the
    time. Where the registry has no checksum, a warning gives the computed one, and the file is
    checked against its receipt from then on. A deleted archive counts as present as long as the
    files extracted from it match its receipt.

    Parameters
    ----------
    citekeys
        One or several names: a citekey for all files of a dataset; a file name of the registry,
        such as ``2011_Antarctica_TO.csv``, for that file (``highres/<name>`` distinguishes it from
        one of the same name in another folder); ``highres``, ``lowres`` or ``misc`` for every
        dataset of that folder.
    jobs
        Number of simultaneous downloads, at least 1.
    offline
        Use only the files on disk: nothing is downloaded, and no connection is opened.
    progress
        Show progress bars where standard error is a terminal.
    registry
        The registry; None for the one that comes with the package.
    data_dir
        Folder for the files; None for :func:`deepbedmap.repository.data_dir`.
    bounds
        (xmin, ymin, xmax, ymax) in metres, EPSG:3031: only datasets whose bounds touch this box,
        among the named ones, or among all without names. Datasets without known bounds are left
        out.
    per_host
        Number of simultaneous downloads from one host.
    timeout
        Seconds without a byte after which a request is repeated.
    keep_archives
        Whether an archive is kept after it is unpacked.
    again
        Download again, and replace, files that differ from the registry or their receipt, or that
        have no checksum in the registry. Files that a person put there get a new receipt.

    Returns
    -------
    list of pathlib.Path
        The files that pipelines and drivers read (extracted from their archives), in the order of
        the names, then of the registry. Files of a folder or a box that no program can download are
        left out, with a warning.

    Raises
    ------
    MissingDataError
        Files are missing and cannot be downloaded: offline, without a known URL or file name,
        without a login, or because a person must request them. The message says which command, or
        which person, provides them.
    DownloadError
        A file on disk differs from the registry or its receipt, or the disk has no room (then
        nothing is downloaded); or a file could not be downloaded or unpacked (the others still
        are). The message has one line per file.
    InvalidDataError
        The registry has no such dataset or file, or the dataset is withdrawn.
    ValueError
        There are neither names nor bounds, or an argument is out of its range.
    """
    _check_call(jobs, per_host, timeout)
    if again and offline:
        raise WrongCallError("again: nothing is downloaded again offline")
    wanted, left_out = choose_files(citekeys, bounds, registry, data_dir)
    shared = ResumingDownloader(timeout=timeout, per_host=per_host)
    with Bars(progress, shared.stop) as bars:
        checks = inspect_files(wanted, jobs, bars, shared.stop)
        wrong = [_wrong(*pair, again) for pair in zip(wanted, checks, strict=True)]
        raise_faults([DownloadError(line) for line in wrong if line])
        todo = []
        for item, checked in zip(wanted, checks, strict=True):
            if _is_to_do(item, checked, offline, again):
                todo.append(item)
            else:
                _accept(item, checked)
        wanted, todo = _leave_out(wanted, todo, left_out)
        try:
            if offline:
                raise_faults(
                    [MissingDataError(missing_message(item)) for item in todo if not item.is_packed]
                )
            announce_transfers(todo, again)
            bars.expect(len(todo), sum(size or 0 for size, _ in map(transfer_size, todo)))
            call = Installation(shared, bars, again)
            run_all(call.obtain, _groups(todo), jobs, shared.stop)
        finally:
            for line in left_out:
                logger.warning("%s", line)
    for item in wanted:
        if not offline:
            remove_leftovers(item)
        if not keep_archives:
            remove_archive(item)
    return [path for item in wanted for path in item.paths]


def _check_call(jobs: int, per_host: int, timeout: float) -> None:
    """Raise WrongCallError where an argument of :func:`fetch` is out of its range."""
    for name, value in (("jobs", jobs), ("per_host", per_host)):
        if value < 1:
            raise WrongCallError(f"{name} must be at least 1, not {value}")
    if not 0 < timeout < math.inf:
        raise WrongCallError(f"timeout must be a number of seconds above 0, not {timeout}")


def _leave_out(
    wanted: list[WantedFile], todo: list[WantedFile], left_out: list[str]
) -> tuple[list[WantedFile], list[WantedFile]]:
    """Leave out files that only a person can request and that were not named, with a warning."""
    manual: dict[str, list[WantedFile]] = defaultdict(list)
    for item in todo:
        if not (item.named or item.can_be_fetched or item.is_packed):
            manual[item.dataset.citekey].append(item)
    for citekey, items in manual.items():
        names = [item.file.filename for item in items]
        how = items[0].dataset.how_to_ask(*(names if len(names) <= 3 else ()))
        left_out.append(f"{citekey}: left out; {how}")
    return (
        [item for item in wanted if item not in manual[item.dataset.citekey]],
        [item for item in todo if item not in manual[item.dataset.citekey]],
    )


def _wrong(item: WantedFile, checked: list[Checked], again: bool) -> str | None:
    """Return how a file differs, unless it may be replaced or accepted."""
    wrong = [one for one in checked if one.state == "differs"]
    if again and _is_replaceable(item, checked[0]):
        return None
    if again:
        wrong = [one for one in wrong if not (one.by_receipt and item.target.exists())]
    return difference_message(wrong[0], item) if wrong else None


def _is_replaceable(item: WantedFile, whole: Checked) -> bool:
    """Return whether a file can be downloaded again, or unpacked again from a correct archive."""
    is_correct = whole.state != "differs" or whole.by_receipt
    return item.can_be_fetched or (item.is_packed and is_correct)


def _is_to_do(item: WantedFile, checked: list[Checked], offline: bool, again: bool) -> bool:
    """Return whether a file is to be downloaded or unpacked."""
    states = {one.state for one in checked}
    if again and ("differs" in states or not item.has_checksum):
        return _is_replaceable(item, checked[0]) or "missing" in states
    return "missing" in states and not _is_tolerable(item, checked, offline)


def _is_tolerable(item: WantedFile, checked: list[Checked], offline: bool) -> bool:
    """Return whether extracted files may be used unchecked, since their archive was deleted."""
    present = [one for one in checked if one.state != "missing"]
    is_whole = bool(present) and not item.target.exists() and len(present) == len(checked) - 1
    return item.unpacks and is_whole and (offline or not item.can_be_fetched)


def _accept(item: WantedFile, checked: list[Checked]) -> None:
    """Warn about files without a checksum; record the present bytes in a receipt."""
    if item.unpacks and not item.target.exists():
        if any(one.state == "unchecked" for one in checked):
            logger.warning(
                "%s was deleted, so the files extracted from it are not checked", item.target
            )
        return
    for one in checked:
        if one.state == "unchecked":
            warn_unchecked(one.path, one.digest and one.digest.sha256)
    whole = checked[0].digest
    members = {one.path.name: one.digest for one in checked[1:] if one.digest is not None}
    old = Receipt.read(item.target)
    if whole and not (old and (old.sha256, old.members or {}) == (whole.sha256, members)):
        receipt = Receipt(None, *whole, now(), members=members if item.unpacks else None)
        try:
            receipt.write(item.target)
        except OSError as error:  # data that others maintain may be read-only
            logger.info("%s: no receipt written: %s", item.target, error)


def _groups(items: Iterable[WantedFile]) -> list[list[WantedFile]]:
    """Group the files that are extracted from one archive, which is not kept."""
    groups: dict[tuple[Path, ...], list[WantedFile]] = defaultdict(list)
    for item in items:
        inside = tuple(item.place(url) for url in item.file.urls if item.is_inside(url))
        groups[inside or (item.target,)].append(item)
    return [*groups.values()]
