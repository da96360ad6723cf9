"""Put downloaded files in place: compare them with their checksums and unpack archives.

The URLs of a file are tried in turn. Lock files keep two processes from working on one file.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import filelock

from deepbedmap import files
from deepbedmap.download import archives, earthdata
from deepbedmap.download.addresses import without_password
from deepbedmap.download.archives import ArchiveError
from deepbedmap.download.checking import difference_message, inspect_file, warn_unchecked
from deepbedmap.download.choosing import missing_message
from deepbedmap.download.disk_space import require_space
from deepbedmap.download.partial import Notes, discard, keep, part_of
from deepbedmap.download.receipts import Receipt, now, path_of
from deepbedmap.download.workers import raise_faults
from deepbedmap.errors import DeepBedMapError, DownloadError, MissingDataError
from deepbedmap.registry.records import LOGIN

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import requests

    from deepbedmap.download.choosing import WantedFile
    from deepbedmap.download.progress import Bars
    from deepbedmap.download.transfers import ResumingDownloader
    from deepbedmap.files.checksums import Digest

logger = logging.getLogger(__name__)


class _WrongError(DownloadError):
    """The download differs from the registry or the receipt."""


class _LocalError(DownloadError):
    """Another URL would not help: the disk, or a file on it, is at fault."""


@dataclass
class Installation:
    """The work of one call of :func:`fetch`; several threads may use it at once."""

    transfers: ResumingDownloader
    bars: Bars
    again: bool
    _turn: threading.Lock = field(default_factory=threading.Lock)
    _login: requests.Session | DeepBedMapError | None = None

    def obtain(self, group: list[WantedFile]) -> None:
        """Install one file, or those of one archive; try their URLs in turn."""
        if group[0].is_packed and not (self.again and group[0].can_be_fetched):
            with self._working(group[0].target):
                self._unpack_here(group[0])
            return
        wanted = [item for item in group if item.can_be_fetched]
        faults: list[DeepBedMapError] = [
            MissingDataError(missing_message(item)) for item in group if not item.can_be_fetched
        ]
        done: set[Path] = set()
        failures: dict[Path, list[DeepBedMapError]] = {item.target: [] for item in wanted}
        for rank in range(max((len(item.file.urls) for item in wanted), default=0)):
            sources: dict[tuple[str, Path], list[WantedFile]] = defaultdict(list)
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
                        logger.info("%s; trying the next URL", error)
                    for item in items:
                        failures[item.target].append(error)
        faults += [
            self._failure(item, failures[item.target]) for item in wanted if item.target not in done
        ]
        raise_faults(faults)

    @contextlib.contextmanager
    def _working(self, place: Path) -> Iterator[None]:
        """Lock a file against other processes, and report a fault of the disk in one line."""
        with _alone(place, self.transfers.stop):
            try:
                yield
            except DeepBedMapError:
                raise
            except OSError as error:
                reason = error.strerror or error
                raise _LocalError(f"{place}: cannot be written: {reason}") from error

    def _fetch(self, url: str, place: Path, items: list[WantedFile], done: set[Path]) -> None:
        """Download a URL and install it; start over once if a resumed part was wrong."""
        done |= {item.target for item in items if self._is_done(item)}
        file = items[0].file
        size = None if items[0].is_inside(url) or file.content_sha256 else file.bytes
        checked = file.sha256 is not None and not items[0].is_inside(url)
        for is_last in (False, True):
            left = [item for item in items if item.target not in done]
            if not left:
                discard(place)
                return
            names = [item.file.filename for item in left]
            with self._session(left[0], url) as session, self.bars.of(names, size) as bar:
                try:
                    sha256 = self.transfers.get(
                        url, place, bar, size=size, checked=checked, session=session
                    )
                    self._install(without_password(url), place, left, sha256, done)
                except (ArchiveError, _WrongError) as error:
                    discard(place)
                    if is_last or not bar.resumed:
                        raise
                    logger.info("%s; starting over", error)
                else:
                    return

    def _is_done(self, item: WantedFile) -> bool:
        """Return whether another process has installed a file meanwhile."""
        if self.again:
            return False
        checked = inspect_file(item)
        for one in checked:
            if one.state == "differs":
                raise _LocalError(difference_message(one, item))
        return all(one.state != "missing" for one in checked)

    @contextlib.contextmanager
    def _session(self, item: WantedFile, url: str) -> Iterator[requests.Session | None]:
        """Log in where required, once per call; one thread at a time may use the session."""
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

    def _failure(self, item: WantedFile, errors: list[DeepBedMapError]) -> DeepBedMapError:
        for error in errors:
            if error is self._login:
                return type(error)(f"{item.dataset.citekey}: {error}")
        advice = "" if item.file.url else f"; {item.dataset.how_to_ask(item.file.filename)}"
        if item.file.access == "earthdata" and self._login is None:
            advice = f"; a login for NASA's Earthdata is required (https://{LOGIN})"
        return DownloadError(f"{item.target}: {'; '.join(map(str, errors))}{advice}")

    def _install(
        self, url: str, place: Path, items: list[WantedFile], sha256: str, done: set[Path]
    ) -> None:
        """Install a download, or the files in it, if it is correct."""
        part, item = part_of(place), items[0]
        notes = Notes.read(place)
        came = Receipt(url, sha256, part.stat().st_size, now(), etag=notes.etag if notes else None)
        if _is_web_page(part, item.target):
            raise _WrongError(f"{url}: expected data, found a web page")
        if place != item.target:
            self._install_members(part, items, came, done)
            discard(place)
            return
        if item.unpacks:
            came = self._unpack(part, item, came)
        else:
            self._compare(item, came)
        keep(item.target)
        came.write(item.target)
        done.add(item.target)

    def _install_members(
        self, part: Path, items: list[WantedFile], came: Receipt, done: set[Path]
    ) -> None:
        """Install the correct members of an archive that is not kept."""
        wrong = []
        with archives.opened(part, came.url) as archive:
            for item in items:
                own = part_of(item.target)
                try:
                    (member,) = archive.choose(item.file).values()
                    with _alone(item.target, self.transfers.stop):
                        require_space(item.folder, member.size, "unpack", _LocalError)
                        try:
                            found = member.extract(own)
                            receipt = replace(came, sha256=found.sha256, bytes=found.bytes)
                            self._compare(item, receipt)
                            keep(item.target)
                        finally:
                            discard(item.target)
                        receipt.write(item.target)
                        done.add(item.target)
                except (ArchiveError, _WrongError) as error:
                    wrong.append(str(error))
        if wrong:
            raise _WrongError("; ".join(dict.fromkeys(wrong)))

    def _compare(self, item: WantedFile, came: Receipt) -> None:
        """Refuse a file whose checksum differs from the registry, or from its last receipt."""
        known = None if self.again else Receipt.read(item.target)
        expected = item.file.sha256 or (known.sha256 if known else None)
        if expected is None:
            warn_unchecked(item.target, came.sha256)
        elif came.sha256 != expected:
            raise _WrongError(
                f"{came.url}: expected sha256 {expected}{_changed(item, known)}, "
                f"found sha256 {came.sha256}{_how_to_accept(item)}"
            )

    def _compare_content(
        self, archive: archives.Archive, item: WantedFile, came: Receipt
    ) -> str | None:
        """Refuse an archive with another checksum, unless its contents are the expected ones."""
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

    def _unpack_here(self, item: WantedFile) -> None:
        """Unpack an archive that is on disk."""
        if self._is_done(item):
            return
        found, known = files.digest(item.target), Receipt.read(item.target)
        if known is None or known.sha256 != found.sha256:
            known = Receipt(None, *found, now())
        self._unpack(item.target, item, known).write(item.target)

    def _unpack(self, path: Path, item: WantedFile, came: Receipt) -> Receipt:
        """Install the members that the registry names: all of them, or none."""
        stage = path_of(item.target).with_suffix(".unpacked")
        shutil.rmtree(stage, ignore_errors=True)
        try:
            stage.mkdir(parents=True)
            with archives.opened(path, came.url or str(path)) as archive:
                content = self._compare_content(archive, item, came)
                chosen = archive.choose(item.file)
                size = sum(member.size for member in chosen.values())
                require_space(item.folder, size, "unpack", _LocalError)
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

    def _refuse_others(self, item: WantedFile, members: dict[str, Digest]) -> None:
        """Refuse to replace a different file at the path of a member."""
        known = Receipt.read(item.target)
        replaced = {item.file.unpacked, *((known and known.members) or ())} if self.again else ()
        for name, member in members.items():
            place = item.folder / name
            if place.is_dir() or (
                place.is_file() and name not in replaced and files.digest(place) != member
            ):
                raise _LocalError(
                    f"{place}: expected the contents of {item.target.name}, found others; "
                    "move it away to unpack it again"
                )


def _changed(item: WantedFile, known: Receipt | None) -> str:
    return f" as on {known.when}" if known and not item.has_checksum else ""


def _how_to_accept(item: WantedFile) -> str:
    if item.has_checksum:
        return ""
    return f"; `deepbedmap fetch --again {item.file.filename}` accepts the change"


def remove_archive(item: WantedFile) -> None:
    """Remove an archive whose members are installed, if it can be downloaded again."""
    if item.is_packed and item.can_be_fetched and item.is_complete:
        item.target.unlink()


def remove_leftovers(item: WantedFile) -> None:
    """Remove the part and the lock that a killed call left next to an installed file."""
    for place in {item.place(url) for url in item.file.urls}:
        leftovers = (_lock_of(place), part_of(place))
        if any(path.exists() for path in leftovers):
            lock = filelock.FileLock(_lock_of(place))
            with contextlib.suppress(OSError), lock.acquire(blocking=False):
                discard(place)
                _lock_of(place).unlink()


@contextlib.contextmanager
def _alone(place: Path, stop: threading.Event) -> Iterator[None]:
    """Lock a file against other processes; wait for one that is downloading it."""
    lock = filelock.FileLock(_lock_of(place))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            logger.info("%s: another process is downloading it; waiting", place)
            lock.acquire(poll_interval=0.1, cancel_check=stop.is_set)
    except filelock.Timeout as error:
        raise DownloadError("stopped") from error
    except OSError as error:
        reason = error.strerror or error
        raise _LocalError(f"{place.parent}: cannot be written to: {reason}") from error
    try:
        yield
    finally:
        _lock_of(place).unlink(missing_ok=True)  # before another process can lock it
        lock.release()


def _lock_of(place: Path) -> Path:
    return place.with_name(f".{place.name}.lock")


def _is_web_page(path: Path, target: Path) -> bool:
    """Return whether a server sent a web page, for a login for example, instead of a file."""
    with path.open("rb") as file:
        start = file.read(256).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    is_page = start.startswith((b"<!doctype html", b"<html"))
    return is_page and target.suffix not in (".htm", ".html")
