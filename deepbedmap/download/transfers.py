"""Transfer the contents of a URL into a file: resumed after a break, retried and verified.

The bytes go into ``<file>.part``. What the server said of them (ETag or Last-Modified, and the
length) goes into ``<file>.part.json`` before the first byte, so that a transfer that was cut
off, even by SIGKILL, resumes with HTTP's ``Range`` and ``If-Range`` (RFC 9110, sections 13 and
14), and starts over if the server has another version by now.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

import requests

from deepbedmap.download.attempts import UrlTransfer, host_of
from deepbedmap.download.partial import PartialFile
from deepbedmap.errors import DownloadError

if TYPE_CHECKING:
    from pathlib import Path

    from deepbedmap.download.attempts import TransferProgress


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
        bar: TransferProgress,
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
                turn = self._turns.setdefault(host_of(url), threading.Semaphore(self.per_host))
            with turn, PartialFile(target) as part:
                session = session or self._session()
                return UrlTransfer(self, session, url, shown, part, bar, size, checked).run()
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
