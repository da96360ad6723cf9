"""Try one URL (http, https, ftp or file) until its file is complete, or no attempt gets further."""

from __future__ import annotations

import contextlib
import ftplib
import http.client
import logging
import random
import re
import shutil
import socket
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

import requests
import urllib3.exceptions

import deepbedmap
from deepbedmap.download.partial import CHUNK, Notes, content_length, timestamp_of
from deepbedmap.errors import DownloadError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deepbedmap.download.partial import Headers, PartialFile
    from deepbedmap.download.transfers import Transfers

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

_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}


class TransferProgress(Protocol):
    """Where a transfer tells how far it is."""

    def start(self, done: int, total: int | None) -> None:
        """Say that so many bytes of so many are there; said anew by every attempt."""

    def advance(self, count: int) -> None:
        """Say that so many bytes more are there."""


def host_of(url: str) -> str:
    """Return the host of a URL, with its port but without user name and password."""
    return urlsplit(url).netloc.rpartition("@")[2]


class _BrokenError(Exception):
    """An attempt failed in a way that another may not."""

    def __init__(self, why: str, wait: float = 0.0) -> None:
        super().__init__(why)
        self.wait = wait


@dataclass
class UrlTransfer:
    """The attempts to get what one URL leads to into one part."""

    shared: Transfers
    session: requests.Session
    url: str
    shown: str
    part: PartialFile
    bar: TransferProgress
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
                if self.part.length >= furthest + CHUNK:
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
                self._begin(
                    content_length(response.headers), Notes.of(self.shown, response.headers)
                )
            elif response.status_code in (206, 416):
                self._begin(self._total_of(response, start), start=start)
            else:
                raise self._refused(response)
            while chunk := response.raw.read1(CHUNK):
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
        host = host_of(self.url)
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
            fits = fits and content_length(headers) in (None, last - first + 1)
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
                ftp.retrbinary(f"RETR {path}", self._take, CHUNK)
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
                while chunk := file.read(CHUNK):
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


def _retry_after(headers: Headers) -> float:
    """Seconds that a server asks to wait."""
    said = headers.get("Retry-After", "").strip()
    if said.isascii() and said.isdigit():
        return float(said)
    return (timestamp_of(said) or 0.0) - time.time()
