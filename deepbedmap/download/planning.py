"""What a fetch would do, file by file: sizes, free disk space, logins and files to be requested."""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rich.filesize import decimal

from deepbedmap.download import earthdata
from deepbedmap.download.addresses import without_password
from deepbedmap.download.choosing import choose_files
from deepbedmap.download.disk_space import existing_folder, free_space, require_space
from deepbedmap.download.partial import Notes, part_of
from deepbedmap.download.receipts import Receipt

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from deepbedmap.download.choosing import WantedFile
    from deepbedmap.registry.listing import Registry

logger = logging.getLogger(__name__)

State = Literal["in place", "unpack", "fetch", "go on", "login", "manual"]


@dataclass(frozen=True)
class Planned:
    """What :func:`fetch` would do for one file.

    Attributes
    ----------
    citekey, path
        The dataset, and the path of the file.
    url
        Its URL without a password; None if a person must request the file.
    bytes
        Its size; None if unknown.
    there
        Bytes that have already been downloaded.
    state
        ``"in place"``; ``"unpack"``, the archive is on disk; ``"fetch"``; ``"go on"``, resume the
        download; ``"login"``, download with a login of NASA's Earthdata; ``"manual"``, a person
        must request it.
    remedy
        How to request a file that no program can download.
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
    """Return what :func:`fetch` would do, file by file, without a connection or any change.

    Files on disk are assumed to be correct: :func:`verify` reads them.

    Parameters
    ----------
    names, registry, data_dir, bounds
        See :func:`fetch`.

    Raises
    ------
    MissingDataError, InvalidDataError, ValueError
        See :func:`fetch`.
    """
    wanted, left_out = choose_files(names, bounds, registry, data_dir)
    for line in left_out:
        logger.warning("%s", line)
    return [_planned(item) for item in wanted]


def amount(sizes: Iterable[int | None]) -> str:
    """Return the number and the total size of files, in words.

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


def _planned(item: WantedFile) -> Planned:
    size, there = transfer_size(item)
    url = without_password(item.file.urls[0]) if item.can_be_fetched else None
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


def transfer_size(item: WantedFile) -> tuple[int | None, int]:
    """Return the size of a download, None if unknown, and its bytes that are on disk."""
    for url in item.file.urls:
        part = part_of(place := item.place(url))
        if part.is_file():
            notes = Notes.read(place)
            size = item.file.bytes if place == item.target else None
            return size or (notes.length if notes else None), part.stat().st_size
    inside = item.file.urls and item.is_inside(item.file.urls[0])
    return None if inside else item.file.bytes, 0


def announce_transfers(todo: list[WantedFile], again: bool) -> None:
    """Log the size of the downloads, and refuse those that the disk has no room for."""
    coming = [item for item in todo if item.can_be_fetched and (again or not item.is_packed)]
    if not coming:
        return
    needs: dict[Path, list[int | None]] = defaultdict(list)
    for item in coming:
        size, there = transfer_size(item)
        needs[item.folder].append(None if size is None else max(0, size - there))
    disks: dict[int, list[Path]] = defaultdict(list)
    for folder in needs:
        disks[existing_folder(folder).stat().st_dev].append(folder)
    for folders in disks.values():
        place, sizes = folders[0].parent, [size for folder in folders for size in needs[folder]]
        free = decimal(free_space(place))
        logger.info("%s to fetch; %s free in %s", amount(sizes), free, place)
        require_space(place, sum(size or 0 for size in sizes))
