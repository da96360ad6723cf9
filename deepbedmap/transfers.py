"""Bring what a URL leads to into a file: resumed where it broke off, tried again, never in doubt.

The bytes go into ``<file>.part``. What the server said of them (its ETag or Last-Modified, and
their number) goes into ``<file>.part.json`` before the first byte, so that a transfer that was cut
off, even by SIGKILL, goes on with HTTP's ``Range`` and ``If-Range`` (RFC 9110, sections 13 and
14), and starts over where the server has something else by now.
"""

from __future__ import annotations

import contextlib
import ftplib
import hashlib
import http.client
import json
import logging
import random
import re
import shutil
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Protocol, TypeVar, cast
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

import requests
import urllib3.exceptions

import deepbedmap
from deepbedmap import repository
from deepbedmap.errors import DownloadError

logger = logging.getLogger(__name__)

ATTEMPTS = 5
"""How often in a row a transfer may break without getting on before its URL is given up."""

BACKOFF = 0.5
"""Seconds before the second attempt; they double from one attempt to the next."""

LONGEST_WAIT = 60.0
"""Seconds beyond which a wait that a server asks for (Retry-After) is not waited for."""

SLOWEST = (1000, 60.0)
"""Bytes that must come within so many seconds; below that a transfer counts as broken."""

SPARE = 100 * 2**20
"""Bytes of the disk that are left free."""

_CHUNK = 2**20
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}

_Headers = requests.structures.CaseInsensitiveDict[str]


class Bar(Protocol):
    """Where a transfer tells how far it is."""

    def start(self, done: int, total: int | None) -> None:
        """Say that so many bytes of so many are there; said anew by every attempt."""

    def advance(self, count: int) -> None:
        """Say that so many bytes more are there."""


@dataclass
class Transfers:
    """What the transfers of one call share; several threads may use it at once.

    Attributes
    ----------
    timeout
        Seconds without a byte after which an attempt has failed; or, as requests takes them, a
        pair: seconds until there is a connection, and seconds without a byte.
    per_host
        How many transfers go on from one host (as the URL names it) at a time.
    stop
        Once this is set every transfer ends, at its next byte or timeout; its part stays.
    """

    timeout: float | tuple[float, float] = 30.0
    per_host: int = 16
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._guard = threading.Lock()
        self._turns: dict[str, threading.Semaphore] = {}
        self._own = threading.local()

    def get(
        self,
        url: str,
        target: Path,
        bar: Bar,
        *,
        size: int | None = None,
        checked: bool = False,
        session: requests.Session | None = None,
    ) -> str:
        """Bring what a URL leads to into ``<target>.part``.

        Two calls at a time must not have the same target.

        Parameters
        ----------
        url
            http, https, ftp or file.
        target
            The file it is meant for; nothing is written under this name.
        bar
            Told how far it is.
        size
            How many bytes there must be; None if that is not known.
        checked
            Whether the caller knows the checksum. Then a part goes on without a validator and
            from another URL too, since the checksum decides; where that is wrong in the end, the
            caller must :func:`discard` the part before the next call.
        session
            One that is logged in where that is needed; no other thread may use it meanwhile.

        Returns
        -------
        str
            The sha256 of ``<target>.part``, which is whole.

        Raises
        ------
        DownloadError
            One line: the URL or the file, and what was wrong with it. The part stays if it is
            worth keeping.
        """
        shown = re.sub(r"^(\w+://)[^/?#]*@", r"\1", url)  # what is said and kept has no password
        try:
            if urlsplit(url).scheme not in ("http", "https", "ftp", "file"):
                raise DownloadError(f"{shown}: is no address of http, https, ftp or file")
            with self._guard:
                turn = self._turns.setdefault(_host(url), threading.Semaphore(self.per_host))
            with turn, _Part(target) as part:
                session = session or self._session()
                return _Transfer(self, session, url, shown, part, bar, size, checked).run()
        except ValueError as error:
            raise DownloadError(f"{shown}: is no address of http, https, ftp or file") from error

    @property
    def silence(self) -> float:
        """Seconds without a byte after which an attempt has failed."""
        return self.timeout[1] if isinstance(self.timeout, tuple) else self.timeout

    def check_stop(self) -> None:
        """Raise DownloadError if the transfers are to end."""
        if self.stop.is_set():
            raise DownloadError("stopped")

    def _session(self) -> requests.Session:
        """Return this thread's own session: requests does not promise to bear two threads."""
        if not hasattr(self._own, "session"):
            self._own.session = requests.Session()
            self._own.session.max_redirects = 10
        return cast("requests.Session", self._own.session)


def part_of(target: Path) -> Path:
    """Return the name under which a file that is not whole yet lies beside its place."""
    return target.with_name(f"{target.name}.part")


def discard(target: Path) -> None:
    """Remove what a transfer left beside a file's place."""
    part_of(target).unlink(missing_ok=True)
    _notes_of(target).unlink(missing_ok=True)


def keep(target: Path) -> None:
    """Put a part that is whole in its place."""
    part_of(target).replace(target)
    _notes_of(target).unlink(missing_ok=True)


def _notes_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.part.json")


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]


@dataclass(frozen=True)
class Notes:
    """What a server said of the bytes in a part."""

    url: str
    etag: str | None = None
    modified: str | None = None
    length: int | None = None

    @property
    def validator(self) -> str | None:
        """What If-Range takes: a strong ETag, else the date."""
        return self.etag if self.etag and self.etag.startswith('"') else self.modified

    @classmethod
    def of(cls, url: str, headers: _Headers) -> Notes:
        """Return what the headers of an answer say."""
        modified = headers.get("Last-Modified")
        age = (_moment(headers.get("Date")) or 0) - (_moment(modified) or 0)
        # A date validates only what did not change in the very second it was sent (8.8.2.2).
        return cls(url, headers.get("ETag"), modified if age >= 1 else None, _length(headers))

    @classmethod
    def read(cls, target: Path) -> Notes | None:
        """Return what is known of the part of a file; None where that is nothing."""
        try:
            notes = cls(**json.loads(_notes_of(target).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        said = [text for text in (notes.url, notes.etag, notes.modified) if text is not None]
        sound = all(
            isinstance(text, str) and text.isascii() and text.isprintable() for text in said
        )
        return notes if sound and isinstance(notes.length, int | None) else None

    def write(self, target: Path) -> None:
        """Keep this beside the part of a file."""
        with repository.beside(_notes_of(target)) as beside:
            beside.write_text(json.dumps(asdict(self)), encoding="utf-8")


class _Part:
    """The bytes that are there, what is known of them, and their sha256."""

    def __init__(self, target: Path) -> None:
        self.path = part_of(target)
        self.notes = Notes.read(target)
        self.target = target
        with self._writing():
            if target.is_dir():
                raise IsADirectoryError(None, f"{target.name} is a folder")
            # Unbuffered: what has come is in the file, whenever this process is killed.
            self._file = self.path.open("ab", buffering=0)
            self.length = self._file.tell()
        self._sha256 = hashlib.sha256()
        self._hashed = 0
        self._beside = ThreadPoolExecutor(1)
        self._hashing: deque[Future[None]] = deque()

    def __enter__(self) -> _Part:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._beside.shutdown()
        self._file.close()
        if kind is not None and not self.length:
            discard(self.target)

    def start_over(self, notes: Notes | None = None) -> None:
        """Drop all bytes; those to come are what the notes say."""
        self._settle()
        with self._writing():
            if self.length:  # ext4 flushes at its end what was truncated, be it empty before
                self._file.truncate(0)
            self.length = self._hashed = 0
            self._sha256 = hashlib.sha256()
            self.notes = notes
            if notes is None:
                _notes_of(self.target).unlink(missing_ok=True)
            else:
                notes.write(self.target)

    def write(self, chunk: bytes) -> None:
        """Add bytes."""
        with self._writing():
            rest = memoryview(chunk)
            while rest:
                count = self._file.write(rest)
                self.length += count
                rest = rest[count:]
        self._hash(chunk)

    def hash_earlier(self, shared: Transfers) -> None:
        """Hash the bytes of an earlier call; before the server is asked, as it would not wait."""
        if self._hashed < self.length:
            with self._writing(), self.path.open("rb") as file:
                file.seek(self._hashed)
                while chunk := file.read(_CHUNK):
                    shared.check_stop()
                    self._hash(chunk)

    def sha256(self) -> str:
        """Return the sha256 of all bytes."""
        self._settle()
        return self._sha256.hexdigest()

    def _hash(self, chunk: bytes) -> None:
        self._hashed += len(chunk)
        few = len(chunk) < _CHUNK // 16
        self._settle(0 if few else 3)
        if few:
            self._sha256.update(chunk)
        else:
            self._hashing.append(self._beside.submit(self._sha256.update, chunk))

    def _settle(self, left: int = 0) -> None:
        """Wait until so few chunks are left to be hashed."""
        while len(self._hashing) > left:
            self._hashing.popleft().result()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except DownloadError:
            raise
        except OSError as error:
            why = error.strerror or error
            raise DownloadError(f"{self.path}: cannot be written: {why}") from error


class _BrokenError(Exception):
    """An attempt failed in a way that another may not."""

    def __init__(self, why: str, wait: float = 0.0) -> None:
        super().__init__(why)
        self.wait = wait


@dataclass
class _Transfer:
    """The attempts to get what one URL leads to into one part."""

    shared: Transfers
    session: requests.Session
    url: str
    shown: str
    part: _Part
    bar: Bar
    size: int | None
    checked: bool
    _reached: bool = False
    _total: int | None = None
    _since: float = 0.0
    _count: int = 0

    def run(self) -> str:
        """Try until the part is whole, or one attempt after another gets no further."""
        ways = {"file": self._copy, "ftp": self._ftp}
        attempt = ways.get(urlsplit(self.url).scheme, self._http)
        failures, furthest = 0, self.part.length
        while True:
            self.shared.check_stop()
            try:
                attempt()
                self._end()
                return self.part.sha256()
            except _BrokenError as error:
                if self.part.length >= furthest + _CHUNK:
                    failures = 0
                failures, furthest = failures + 1, max(furthest, self.part.length)
                if failures >= ATTEMPTS:
                    raise self._error(f"{error}; given up after {failures} attempts") from error
                backoff = BACKOFF * 2 ** (failures - 1) * random.uniform(0.8, 1.2)  # noqa: S311
                wait = max(backoff, error.wait)
                logger.info("%s: %s; again in %.1f s", self.shown, error, wait)
                self.shared.stop.wait(wait)

    def _error(self, why: str) -> DownloadError:
        return DownloadError(f"{self.shown}: {why}")

    def _http(self) -> None:
        part, notes = self.part, self.part.notes
        validator = notes.validator if notes and notes.url == self.shown else None
        start = part.length if notes and (validator or self.checked) else 0
        headers = {
            "User-Agent": f"deepbedmap/{deepbedmap.__version__}",
            "Accept-Encoding": "identity",
        }
        if start and notes:
            part.hash_earlier(self.shared)
            if start == notes.length and self.size in (None, start):
                self._begin(start, start=start)
                return
            headers["Range"] = f"bytes={start}-"
            if validator:
                headers["If-Range"] = validator
        with self._answer(headers) as response:
            if response.status_code in (200, 206):
                self._check(response)
            if response.status_code == 200:
                self._begin(_length(response.headers), Notes.of(self.shown, response.headers))
            elif response.status_code in (206, 416):
                self._begin(self._total_of(response, start), start=start)
            else:
                raise self._refused(response)
            while chunk := response.raw.read1(_CHUNK):
                self._take(chunk)

    @contextlib.contextmanager
    def _answer(self, headers: dict[str, str]) -> Iterator[requests.Response]:
        try:
            with self.session.get(
                self.url, stream=True, timeout=self.shared.timeout, headers=headers
            ) as response:
                self._reached = True
                yield response
        except ValueError as error:
            raise self._error("leads, or redirects, to no address of http or https") from error
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> DownloadError | _BrokenError:
        """Say why there is no answer: in a DownloadError what another attempt cannot mend."""
        host = _host(self.url)
        if isinstance(error, requests.TooManyRedirects):
            return self._error("redirects without end")
        if unverified := _cause(error, ssl.SSLCertVerificationError):
            return self._error(
                f"the certificate does not verify ({unverified.verify_message}); see whether the "
                "address, and the clock of this machine, are right"
            )
        if _cause(error, TimeoutError):
            return _BrokenError(f"the server was silent for {self.shared.silence:g} s")
        if self._reached:
            return _BrokenError(f"the connection broke after {self.part.length:,} bytes")
        if isinstance(error, requests.exceptions.ProxyError):
            return _BrokenError("no connection through the proxy")
        if _cause(error, socket.gaierror):
            return self._error(f"there is no host {host}, or no network")
        if _cause(error, ConnectionRefusedError):
            return self._error(f"{host} refuses connections")
        return _BrokenError(f"no connection to {host}")

    def _refused(self, response: requests.Response) -> DownloadError | _BrokenError:
        code = response.status_code
        answer = f"the server answers {code} {http.client.responses.get(code, '')}".rstrip()
        if code in _TRANSIENT:
            wait = _retry_after(response.headers)
            if wait <= LONGEST_WAIT:
                return _BrokenError(answer, wait)
            answer += f", and wants {wait:.0f} s to pass"
        if code in (401, 403):
            answer += ": it wants a login, or does not serve this"
        return self._error(answer)

    def _check(self, response: requests.Response) -> None:
        """Refuse what is not the file, before bytes that are there are given up for it."""
        hops = [hop.url.partition(":")[0] for hop in (*response.history, response)]
        if hops[0] == "https" and "http" in hops and not self.checked:
            raise self._error("redirects from https to http, and there is no checksum to go by")
        suffix = self.part.target.suffix.lower()
        page = response.headers.get("Content-Type", "").lower().startswith("text/html")
        # With a checksum nothing is lost by a try; data have been seen under this type.
        if page and suffix not in (".html", ".htm") and (self.part.length or not self.checked):
            raise self._error("the server sends a web page (for a login?), no data")
        coding = response.headers.get("Content-Encoding", "identity").lower()
        if coding not in ("", "identity") and suffix not in (".gz", ".tgz"):
            raise self._error("the server compresses what it was asked not to")

    def _total_of(self, response: requests.Response, start: int) -> int:
        """Return how long the whole is of which a partial answer is the rest."""
        headers, notes = response.headers, self.part.notes
        span = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", headers.get("Content-Range", ""))
        if response.status_code == 206 and span and notes:
            first, last, total = map(int, span.groups())
            fits = start == first <= last < total
            fits = fits and _length(headers) in (None, last - first + 1)
            if fits:
                self._check_size(total)
            said = (
                (notes.etag, headers.get("ETag")),
                (notes.modified, headers.get("Last-Modified")),
            )
            same = next((old == new for old, new in said if old and new), True)
            same = same or notes.url != self.shown
            if fits and same and notes.length in (None, total):
                return total
        self.part.start_over()
        raise _BrokenError("the server has another part than was asked for")

    def _ftp(self) -> None:
        parts = urlsplit(self.url)
        path = unquote(parts.path)
        try:
            with contextlib.closing(ftplib.FTP(timeout=self.shared.silence)) as ftp:  # noqa: S321
                ftp.connect(parts.hostname or "", parts.port or ftplib.FTP_PORT)
                self._reached = True
                ftp.login(unquote(parts.username or ""), unquote(parts.password or ""))
                ftp.voidcmd("TYPE I")
                total = None
                with contextlib.suppress(ftplib.error_perm):
                    total = ftp.size(path)
                self._begin(total)
                ftp.retrbinary(f"RETR {path}", self._take, _CHUNK)
        except DownloadError:
            raise
        except ftplib.error_perm as error:
            raise self._error(f"the server answers {' '.join(str(error).split())}") from error
        except (OSError, EOFError, ftplib.Error) as error:
            raise self._failure(error) from error

    def _copy(self) -> None:
        try:
            with Path(url2pathname(urlsplit(self.url).path)).open("rb") as file:
                self._begin(file.seek(0, 2))
                file.seek(0)
                while chunk := file.read(_CHUNK):
                    self._take(chunk)
        except DownloadError:
            raise
        except OSError as error:
            raise self._error(f"cannot be read: {error.strerror}") from error

    def _begin(self, total: int | None, notes: Notes | None = None, *, start: int = 0) -> None:
        """Make the part ready for the bytes from start on."""
        self._check_size(total)
        self._total = self.size if total is None else total
        if self._total is not None:
            free = shutil.disk_usage(self.part.path.parent).free
            if (room := self._total - self.part.length) > max(0, free - SPARE):
                raise DownloadError(
                    f"{self.part.path}: {room:,} bytes are to come, and the disk has {free:,} free "
                    f"(of which {SPARE:,} are kept); make room, or choose another folder"
                )
        if not start:
            self.part.start_over(notes)
        self.bar.start(start, self._total)
        self._since, self._count = time.monotonic(), 0

    def _check_size(self, total: int | None) -> None:
        if self.size is not None and total is not None and total != self.size:
            raise self._error(f"expected {self.size:,} bytes, the server has {total:,}")

    def _take(self, chunk: bytes) -> None:
        self.shared.check_stop()
        self.part.write(chunk)
        self.bar.advance(len(chunk))
        if self._total is not None and self.part.length > self._total:
            self.part.start_over()
            raise _BrokenError(f"more came than the {self._total:,} bytes there should be")
        self._count += len(chunk)
        least, window = SLOWEST
        if (now := time.monotonic()) - self._since > window:
            if self._count < least:
                raise _BrokenError(f"only {self._count} bytes came within {window:g} s")
            self._since, self._count = now, 0

    def _end(self) -> None:
        there, total = self.part.length, self._total
        if total is not None and there != total:
            raise _BrokenError(f"the answer ended after {there:,} of {total:,} bytes")


_Cause = TypeVar("_Cause", bound=BaseException)


def _cause(error: BaseException | None, kind: type[_Cause]) -> _Cause | None:
    """Return the first of a kind among an error and those it stems from."""
    if error is None or isinstance(error, kind):
        return error
    return _cause(error.__cause__, kind) or _cause(error.__context__, kind)


def _length(headers: _Headers) -> int | None:
    said = headers.get("Content-Length", "")
    return int(said) if said.isascii() and said.isdigit() else None


def _moment(said: str | None) -> float | None:
    """Seconds since 1970 of a date in a header, if it is one."""
    try:
        return parsedate_to_datetime(said or "").timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def _retry_after(headers: _Headers) -> float:
    """Seconds that a server asks to wait."""
    said = headers.get("Retry-After", "").strip()
    if said.isascii() and said.isdigit():
        return float(said)
    return (_moment(said) or 0.0) - time.time()
