"""Repeat the download of one URL until its file is complete, or no attempt gets any further."""

from __future__ import annotations

import ftplib
import logging
import random
import socket
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import requests
import urllib3.exceptions

from deepbedmap.download.addresses import host_of, without_password
from deepbedmap.download.disk_space import require_space
from deepbedmap.download.partial import CHUNK
from deepbedmap.errors import DownloadError

if TYPE_CHECKING:
    import threading
    from typing import Any

    from deepbedmap.download.partial import Notes, PartialFile

logger = logging.getLogger(__name__)

ATTEMPTS = 5
"""Number of attempts in a row without progress after which a URL is given up."""

BACKOFF = 0.5
"""Seconds before the second attempt; they double from one attempt to the next."""

SLOWEST = (1000, 60.0)
"""Bytes that must arrive within so many seconds; below that the connection counts as broken."""


class TransferProgress(Protocol):
    """Receives the progress of a transfer."""

    def start(self, done: int, total: int | None) -> None:
        """Set the bytes that have arrived and the bytes in all; called by every attempt."""

    def advance(self, count: int) -> None:
        """Add bytes that have arrived."""


class Downloader(Protocol):
    """A way to get the bytes of a URL, called as pooch calls its downloaders."""

    def __call__(self, url: str, output_file: Any, pooch: Any) -> None:
        """Write the bytes of a URL into a file that is open for writing."""


class BrokenError(Exception):
    """An attempt failed in a way that another attempt may not.

    Parameters
    ----------
    reason
        What went wrong.
    wait
        Seconds that the server asks to wait before the next attempt.
    """

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass
class UrlTransfer:
    """The attempts to get the file of one URL into its ``.part``.

    Downloaders see it as a file that is open for writing: :meth:`begin` makes it ready, and
    :meth:`write` takes the bytes.

    Attributes
    ----------
    url
        The address.
    part
        The bytes so far.
    progress
        Receives the progress.
    stop
        Once this is set the transfer ends at its next byte.
    silence
        Seconds without a byte after which the downloader ends an attempt, for messages.
    size
        Expected bytes; None if that is not known.
    """

    url: str
    part: PartialFile
    progress: TransferProgress
    stop: threading.Event
    silence: float
    size: int | None = None
    _began: bool = False
    _total: int | None = None
    _since: float = 0.0
    _count: int = 0

    @property
    def shown_url(self) -> str:
        """The address as messages and notes have it: without a password."""
        return without_password(self.url)

    def run(self, download: Downloader) -> str:
        """Repeat a download until the part is complete; return its SHA-256.

        Raises
        ------
        DownloadError
            No further attempt would help, or :data:`ATTEMPTS` in a row got no further.
        """
        failures, furthest = 0, self.part.length
        while True:
            self.check_stop()
            try:
                self._attempt(download)
                return self.part.sha256()
            except BrokenError as error:
                if self.part.length >= furthest + CHUNK:
                    failures = 0
                failures, furthest = failures + 1, max(furthest, self.part.length)
                if failures >= ATTEMPTS:
                    raise self.fault(f"{error}; given up after {failures} attempts") from error
                backoff = BACKOFF * 2 ** (failures - 1) * random.uniform(0.8, 1.2)  # noqa: S311
                wait = max(backoff, error.wait)
                logger.info("%s: %s; trying again in %.1f s", self.shown_url, error, wait)
                self.stop.wait(wait)

    def _attempt(self, download: Downloader) -> None:
        try:
            download(self.url, self, None)
        except (DownloadError, BrokenError):
            raise
        except ftplib.error_perm as error:
            raise self.fault(f"the server answers {' '.join(str(error).split())}") from error
        except ValueError as error:
            raise self.fault("leads, or redirects, to no address of http or https") from error
        except (OSError, EOFError, ftplib.Error, urllib3.exceptions.HTTPError) as error:
            raise self._failure(error) from error
        arrived = self.part.length
        if self._total is not None and arrived != self._total:
            raise BrokenError(f"the transfer ended after {arrived:,} of {self._total:,} bytes")

    def fault(self, reason: str) -> DownloadError:
        """Return an error that names the address; no further attempt would help."""
        return DownloadError(f"{self.shown_url}: {reason}")

    def _failure(self, error: Exception) -> DownloadError | BrokenError:
        """Return why a connection failed: a DownloadError where another attempt cannot help."""
        request = getattr(error, "request", None)
        host = host_of(getattr(request, "url", None) or self.url)
        if isinstance(error, requests.TooManyRedirects):
            return self.fault("redirects without end")
        if unverified := _cause(error, ssl.SSLCertVerificationError):
            return self.fault(
                f"the certificate does not verify ({unverified.verify_message}); check the "
                "address, and the clock of this machine"
            )
        if _cause(error, TimeoutError):
            return BrokenError(f"the server was silent for {self.silence:g} s")
        if self._began:
            return BrokenError(f"the connection broke after {self.part.length:,} bytes")
        if isinstance(error, requests.exceptions.ProxyError):
            return BrokenError("no connection through the proxy")
        if _cause(error, socket.gaierror):
            return self.fault(f"there is no host {host}, or no network")
        if _cause(error, ConnectionRefusedError):
            return self.fault(f"{host} refuses connections")
        return BrokenError(f"no connection to {host}")

    def begin(self, total: int | None, notes: Notes | None = None, *, start: int = 0) -> None:
        """Make the part ready for the bytes from ``start`` on.

        Parameters
        ----------
        total
            Bytes of the whole file, as the server states them; None if it does not.
        notes
            What the server states about the bytes to come, where they begin at 0.
        start
            The first byte to come; the bytes before it are kept.

        Raises
        ------
        DownloadError
            The size is not the expected one, or the disk has no room.
        """
        self._began = True
        self.check_size(total)
        self._total = self.size if total is None else total
        if self._total is not None:
            require_space(self.part.path, self._total - self.part.length)
        if not start:
            self.part.start_over(notes)
        self.progress.start(start, self._total)
        self._since, self._count = time.monotonic(), 0

    def check_size(self, total: int | None) -> None:
        """Raise DownloadError if the server states another size than the expected one."""
        if self.size is not None and total is not None and total != self.size:
            raise self.fault(f"expected {self.size:,} bytes, the server has {total:,}")

    def check_stop(self) -> None:
        """Raise DownloadError if the transfer is to end."""
        if self.stop.is_set():
            raise DownloadError("stopped")

    def write(self, chunk: bytes) -> None:
        """Add bytes that have arrived.

        Raises
        ------
        DownloadError
            The transfer is to end, or the part cannot be written.
        BrokenError
            There are more bytes than the server announced, or they arrive too slowly.
        """
        self.check_stop()
        self.part.write(chunk)
        self.progress.advance(len(chunk))
        if self._total is not None and self.part.length > self._total:
            self.part.start_over()
            raise BrokenError(f"more bytes arrived than the expected {self._total:,}")
        self._count += len(chunk)
        least, window = SLOWEST
        if (now := time.monotonic()) - self._since > window:
            if self._count < least:
                raise BrokenError(f"only {self._count} bytes arrived within {window:g} s")
            self._since, self._count = now, 0

    @property
    def is_complete(self) -> bool:
        """Whether as many bytes have arrived as the server, or the registry, states."""
        return self._total is not None and self.part.length == self._total


_Cause = TypeVar("_Cause", bound=BaseException)


def _cause(error: BaseException | None, kind: type[_Cause]) -> _Cause | None:
    """Return the first of a kind among an error and its causes."""
    if error is None or isinstance(error, kind):
        return error
    return _cause(error.__cause__, kind) or _cause(error.__context__, kind)
