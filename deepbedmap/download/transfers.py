"""Download URLs into ``.part`` files, resumed after a break: also as a downloader of pooch.

The bytes go into ``<file>.part``. What the server stated about them (ETag or Last-Modified, and
the length) goes into ``<file>.part.json`` before the first byte, so that the next call can resume
a transfer that was cut off, even by SIGKILL.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

import requests

from deepbedmap.download.addresses import host_of, without_password
from deepbedmap.download.attempts import UrlTransfer
from deepbedmap.download.downloaders import SCHEMES, choose_downloader
from deepbedmap.download.partial import PartialFile, discard, part_of
from deepbedmap.download.progress import Bars
from deepbedmap.errors import DownloadError

if TYPE_CHECKING:
    import os
    from typing import Any

    from deepbedmap.download.attempts import TransferProgress


@dataclass
class ResumingDownloader:
    """A downloader that retries and resumes; several threads may use it at once.

    It is also a downloader of pooch: ``pooch.retrieve(url, known_hash,
    downloader=ResumingDownloader())`` and :meth:`pooch.Pooch.fetch` take it.

    Attributes
    ----------
    timeout : float or (float, float)
        Seconds without a byte after which an attempt has failed; or, as for requests, a pair:
        seconds until there is a connection, and seconds without a byte.
    per_host : int
        Number of simultaneous transfers from one host (as the URL names it).
    stop : threading.Event
        Once this is set every transfer ends, at its next byte or timeout; its part stays.
    progressbar : bool
        Whether pooch's downloads show a bar on a terminal.
    """

    timeout: float | tuple[float, float] = 30.0
    per_host: int = 16
    stop: threading.Event = field(default_factory=threading.Event)
    progressbar: bool = False

    def __post_init__(self) -> None:
        self._guard = threading.Lock()
        self._turns: dict[str, threading.Semaphore] = {}
        self._own = threading.local()

    def __call__(self, url: str, output_file: str | os.PathLike[str], pooch: Any) -> None:  # noqa: ARG002
        """Download a URL into a file, as pooch's downloaders do.

        pooch gives the file another name at every call. Unfinished bytes are kept next to it,
        under a name that depends on the URL alone, so that the next call resumes.

        Parameters
        ----------
        url : str
            http, https, ftp, sftp, file, or ``doi:<DOI>/<file>``.
        output_file : str or path-like
            The file to write.
        pooch : pooch.Pooch or None
            Not used.

        Raises
        ------
        DownloadError
            The download failed; the message is one line.
        """
        from pooch.utils import unique_file_name

        target = Path(output_file).with_name(unique_file_name(url))
        with Bars(self.progressbar, self.stop) as bars, bars.of([host_of(url)], None) as bar:
            self.get(url, target, bar)
        part_of(target).replace(output_file)
        discard(target)

    def get(
        self,
        url: str,
        target: Path,
        progress: TransferProgress,
        *,
        size: int | None = None,
        checked: bool = False,
        session: requests.Session | None = None,
    ) -> str:
        """Download a URL into ``<target>.part``.

        Two simultaneous calls must not have the same target.

        Parameters
        ----------
        url : str
            http, https, ftp, sftp, file, or ``doi:<DOI>/<file>``.
        target : pathlib.Path
            The final path of the file; nothing is written under this name.
        progress : TransferProgress
            Receives the progress.
        size : int, optional
            Expected bytes.
        checked : bool
            Whether the caller knows the checksum. Then a part is resumed without a validator and
            from another URL too, since the checksum decides; where it turns out wrong, the caller
            must :func:`discard` the part before the next call.
        session : requests.Session, optional
            One that is logged in; no other thread may use it meanwhile.

        Returns
        -------
        str
            The SHA-256 of ``<target>.part``, which is complete.

        Raises
        ------
        DownloadError
            One line: the URL or the file, and what is wrong with it. The part stays if it is
            worth keeping.
        """
        try:
            own = session or self._session()
            download = choose_downloader(url, own, self.timeout, checked)
            _ = urlsplit(url).port  # a ValueError where it is no number
        except ValueError as error:
            kinds = f"{', '.join(SCHEMES[:-1])} or {SCHEMES[-1]}"
            raise DownloadError(f"{without_password(url)}: not an address of {kinds}") from error
        with self._guard:
            turn = self._turns.setdefault(host_of(url), threading.Semaphore(self.per_host))
        silence = self.timeout[1] if isinstance(self.timeout, tuple) else self.timeout
        with turn, PartialFile(target) as part:
            return UrlTransfer(url, part, progress, self.stop, silence, size).run(download)

    def _session(self) -> requests.Session:
        """Return this thread's own session: requests does not promise to serve two threads."""
        if not hasattr(self._own, "session"):
            self._own.session = requests.Session()
            self._own.session.max_redirects = 10
        return cast("requests.Session", self._own.session)
