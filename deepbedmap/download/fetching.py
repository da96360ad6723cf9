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
            raise WrongCallError(f"{name} must be at least 1, not {value}")
    if not 0 < timeout < math.inf:
        raise WrongCallError(f"timeout must be a number of seconds above 0, not {timeout}")
    if again and offline:
        raise WrongCallError("again: nothing is fetched again offline")
    wanted, left_out = choose_files(citekeys, bounds, registry, data_dir)
    shared = ResumingDownloader(timeout=timeout, per_host=per_host)
    with Bars(progress, shared.stop) as bars:
        found = inspect_files(wanted, jobs, bars, shared.stop)
        wrong = [_wrong(*pair, again) for pair in zip(wanted, found, strict=True)]
        raise_faults([DownloadError(line) for line in wrong if line])
        todo = []
        for item, checked in zip(wanted, found, strict=True):
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


def _leave_out(
    wanted: list[WantedFile], todo: list[WantedFile], left_out: list[str]
) -> tuple[list[WantedFile], list[WantedFile]]:
    """Take out what only a person can get and nobody named, and say so, one line a dataset."""
    theirs: dict[str, list[WantedFile]] = defaultdict(list)
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


def _wrong(item: WantedFile, checked: list[Checked], again: bool) -> str | None:
    """Say what is wrong with a file that is there, unless that may be replaced or accepted."""
    wrong = [one for one in checked if one.state == "differs"]
    if again and _is_replaceable(item, checked[0]):
        return None
    if again:
        wrong = [one for one in wrong if not (one.by_receipt and item.target.exists())]
    return difference_message(wrong[0], item) if wrong else None


def _is_replaceable(item: WantedFile, whole: Checked) -> bool:
    """Say whether a file can be fetched again, or unpacked again from an archive that is right."""
    is_right = whole.state != "differs" or whole.by_receipt
    return item.can_be_fetched or (item.is_packed and is_right)


def _is_to_do(item: WantedFile, checked: list[Checked], offline: bool, again: bool) -> bool:
    """Say whether a file is to be fetched, or unpacked."""
    states = {one.state for one in checked}
    if again and ("differs" in states or not item.has_checksum):
        return _is_replaceable(item, checked[0]) or "missing" in states
    return "missing" in states and not _is_tolerable(item, checked, offline)


def _is_tolerable(item: WantedFile, checked: list[Checked], offline: bool) -> bool:
    """Say whether what came out of an archive may be taken unchecked, since the archive is gone."""
    there = [one for one in checked if one.state != "missing"]
    is_whole = bool(there) and not item.target.exists() and len(there) == len(checked) - 1
    return item.unpacks and is_whole and (offline or not item.can_be_fetched)


def _accept(item: WantedFile, checked: list[Checked]) -> None:
    """Warn of what nothing tells the right bytes of; keep what is there now in a receipt."""
    if item.unpacks and not item.target.exists():
        if any(one.state == "unchecked" for one in checked):
            logger.warning("%s is gone, so what was in it is not checked", item.target)
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
        except OSError as error:  # data that others look after may be read-only
            logger.info("%s: no receipt written: %s", item.target, error)


def _groups(items: Iterable[WantedFile]) -> list[list[WantedFile]]:
    """Put together the files that come out of one archive, which is not kept."""
    groups: dict[tuple[Path, ...], list[WantedFile]] = defaultdict(list)
    for item in items:
        inside = tuple(item.place(url) for url in item.file.urls if item.is_inside(url))
        groups[inside or (item.target,)].append(item)
    return [*groups.values()]
