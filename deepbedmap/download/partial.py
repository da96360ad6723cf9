"""The ``.part`` file of an unfinished download, and what the server stated about its bytes."""

from __future__ import annotations

import contextlib
import json
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import requests

from deepbedmap import files
from deepbedmap.errors import DownloadError
from deepbedmap.files.checksums import Checksum

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from pathlib import Path

CHUNK = 2**20
Headers = requests.structures.CaseInsensitiveDict[str]


def part_of(target: Path) -> Path:
    """Return the path of a file while it is incomplete: next to its final path."""
    return target.with_name(f"{target.name}.part")


def discard(target: Path) -> None:
    """Remove the part of a file and its notes."""
    part_of(target).unlink(missing_ok=True)
    _notes_of(target).unlink(missing_ok=True)


def keep(target: Path) -> None:
    """Move a complete part to its final path."""
    part_of(target).replace(target)
    _notes_of(target).unlink(missing_ok=True)


def _notes_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.part.json")


@dataclass(frozen=True)
class Notes:
    """What a server stated about the bytes in a part."""

    url: str
    etag: str | None = None
    modified: str | None = None
    length: int | None = None

    @property
    def validator(self) -> str | None:
        """The validator for If-Range: a strong ETag, else the date."""
        return self.etag if self.etag and self.etag.startswith('"') else self.modified

    @classmethod
    def of(cls, url: str, headers: Headers) -> Notes:
        """Return the notes from the headers of a response."""
        modified = headers.get("Last-Modified")
        age = (timestamp_of(headers.get("Date")) or 0) - (timestamp_of(modified) or 0)
        # A date validates only what did not change in the very second it was sent (8.8.2.2).
        return cls(
            url, headers.get("ETag"), modified if age >= 1 else None, content_length(headers)
        )

    @classmethod
    def read(cls, target: Path) -> Notes | None:
        """Return the notes of the part of a file; None if there are none, or they are invalid."""
        try:
            notes = cls(**json.loads(_notes_of(target).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        texts = [text for text in (notes.url, notes.etag, notes.modified) if text is not None]
        sound = all(
            isinstance(text, str) and text.isascii() and text.isprintable() for text in texts
        )
        return notes if sound and isinstance(notes.length, int | None) else None

    def write(self, target: Path) -> None:
        """Write the notes next to the part of a file."""
        with files.beside(_notes_of(target)) as path:
            path.write_text(json.dumps(asdict(self)), encoding="utf-8")


class PartialFile:
    """The bytes that have arrived, their notes, and their SHA-256."""

    def __init__(self, target: Path) -> None:
        self.path = part_of(target)
        self.notes = Notes.read(target)
        self.target = target
        with self._writing():
            if target.is_dir():
                raise IsADirectoryError(None, f"{target.name} is a folder")
            # Unbuffered: all bytes are in the file, whenever this process is killed.
            self._file = self.path.open("ab", buffering=0)
            self.length = self._file.tell()
        self._checksum = Checksum()
        self._hashed = 0
        self._worker = ThreadPoolExecutor(1)
        self._hashing: deque[Future[None]] = deque()

    def __enter__(self) -> PartialFile:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._worker.shutdown()
        self._file.close()
        if kind is not None and not self.length:
            discard(self.target)

    def start_over(self, notes: Notes | None = None) -> None:
        """Drop all bytes; the notes describe those to come."""
        self._settle()
        with self._writing():
            if self.length:  # ext4 flushes a file that was truncated, even an empty one
                self._file.truncate(0)
            self.length = self._hashed = 0
            self._checksum = Checksum()
            self.notes = notes
            if notes is None:
                _notes_of(self.target).unlink(missing_ok=True)
            else:
                notes.write(self.target)

    def write(self, chunk: bytes) -> None:
        """Append bytes."""
        with self._writing():
            rest = memoryview(chunk)
            while rest:
                count = self._file.write(rest)
                self.length += count
                rest = rest[count:]
        self._hash(chunk)

    def read_again(self, check_stop: Callable[[], None]) -> None:
        """Count and hash the bytes that another program has written under the part's name."""
        self.length = self.path.stat().st_size
        self.hash_earlier(check_stop)

    def hash_earlier(self, check_stop: Callable[[], None]) -> None:
        """Hash the bytes of an earlier call; before the request, as the server would not wait."""
        if self._hashed < self.length:
            with self._writing(), self.path.open("rb") as file:
                file.seek(self._hashed)
                while chunk := file.read(CHUNK):
                    check_stop()
                    self._hash(chunk)

    def sha256(self) -> str:
        """Return the SHA-256 of all bytes."""
        self._settle()
        return self._checksum.sha256

    def _hash(self, chunk: bytes) -> None:
        self._hashed += len(chunk)
        few = len(chunk) < CHUNK // 16
        self._settle(0 if few else 3)
        if few:
            self._checksum.update(chunk)
        else:
            self._hashing.append(self._worker.submit(self._checksum.update, chunk))

    def _settle(self, left: int = 0) -> None:
        """Wait until at most this many chunks are left to hash."""
        while len(self._hashing) > left:
            self._hashing.popleft().result()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except DownloadError:
            raise
        except OSError as error:
            reason = error.strerror or error
            raise DownloadError(f"{self.path}: cannot be written: {reason}") from error


def content_length(headers: Headers) -> int | None:
    """Return the length of a response in bytes; None if its header is missing or invalid."""
    length = headers.get("Content-Length", "")
    return int(length) if length.isascii() and length.isdigit() else None


def timestamp_of(text: str | None) -> float | None:
    """Return the seconds since 1970 of a date in a header; None if it is not a date."""
    try:
        return parsedate_to_datetime(text or "").timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
