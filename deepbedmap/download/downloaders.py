"""One attempt to download a URL, by the kind of its address.

The classes are called as pooch calls its downloaders, ``downloader(url, output_file, pooch)``.
HTTP is our own, since pooch's does not resume: a transfer that was cut off, even by SIGKILL,
resumes with ``Range`` and ``If-Range`` (RFC 9110, sections 13 and 14), and starts over if the
server has another version by now. FTP, SFTP and the repositories behind DOIs (Zenodo, figshare,
Dataverse) are pooch's.
"""

from __future__ import annotations

import contextlib
import ftplib
import http.client
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

import requests

import deepbedmap
from deepbedmap.download.attempts import BrokenError
from deepbedmap.download.partial import CHUNK, Notes, content_length, timestamp_of
from deepbedmap.errors import DownloadError
from deepbedmap.files.ftp import ftp_size

if TYPE_CHECKING:
    from typing import Any

    from deepbedmap.download.attempts import Downloader, UrlTransfer
    from deepbedmap.download.partial import Headers

    Timeout = float | tuple[float, float]

SCHEMES = ("http", "https", "ftp", "sftp", "doi", "file")
"""The kinds of addresses that can be downloaded."""

LONGEST_WAIT = 60.0
"""Seconds beyond which a wait that a server asks for (Retry-After) is not waited for."""

USER_AGENT = f"deepbedmap/{deepbedmap.__version__}"

_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}


def choose_downloader(
    url: str, session: requests.Session, timeout: Timeout, checked: bool = False
) -> Downloader:
    """Return the downloader for the kind of a URL.

    Parameters
    ----------
    url : str
        ``http``, ``https``, ``ftp``, ``sftp``, ``file``, or ``doi:<DOI>/<file>``.
    session : requests.Session
        For the requests over HTTP.
    timeout : float or (float, float)
        Seconds without a byte after which an attempt has failed; or a pair, with the seconds
        until there is a connection first.
    checked : bool
        Whether the caller knows the checksum of the file.

    Raises
    ------
    ValueError
        The URL is of another kind.

    Examples
    --------
    >>> type(choose_downloader("ftp://example.org/bed.csv", requests.Session(), 30)).__name__
    'FTPDownloader'
    """
    silence = timeout[1] if isinstance(timeout, tuple) else timeout
    match urlsplit(url).scheme:
        case "http" | "https":
            return HTTPDownloader(session, timeout, checked)
        case "doi" if re.fullmatch(r"doi:10\.[0-9]{4,9}/[^/]+/.+", url):
            return DOIDownloader(HTTPDownloader(session, timeout, checked), timeout)
        case "ftp":
            return FTPDownloader(silence)
        case "sftp":
            return SFTPDownloader(silence)
        case "file":
            return FileDownloader()
    raise ValueError(f"not an address of {', '.join(SCHEMES[:-1])} or {SCHEMES[-1]}: {url!r}")


class HTTPDownloader:
    """Download over HTTP or HTTPS, and resume where an earlier attempt ended.

    Parameters
    ----------
    session, timeout, checked
        See :func:`choose_downloader`.
    """

    def __init__(self, session: requests.Session, timeout: Timeout, checked: bool) -> None:
        self.session = session
        self.timeout = timeout
        self.checked = checked

    def __call__(self, url: str, output_file: UrlTransfer, pooch: Any) -> None:  # noqa: ARG002
        """Append the missing bytes of a file, or replace those of another version."""
        part, notes = output_file.part, output_file.part.notes
        same_url = notes and notes.url == output_file.shown_url
        validator = notes.validator if notes and same_url else None
        start = part.length if notes and (validator or self.checked) else 0
        headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
        if start and notes:
            part.hash_earlier(output_file.check_stop)
            if start == notes.length and output_file.size in (None, start):
                output_file.begin(start, start=start)
                return
            headers["Range"] = f"bytes={start}-"
            if validator:
                headers["If-Range"] = validator
        with self.session.get(url, stream=True, timeout=self.timeout, headers=headers) as response:
            if response.status_code in (200, 206):
                self._check(response, output_file)
            if response.status_code == 200:
                stated = Notes.of(output_file.shown_url, response.headers)
                output_file.begin(stated.length, stated)
            elif response.status_code in (206, 416):
                output_file.begin(_total_of(response, output_file, start), start=start)
            else:
                raise refusal(response, output_file)
            while chunk := response.raw.read1(CHUNK):
                output_file.write(chunk)

    def _check(self, response: requests.Response, output_file: UrlTransfer) -> None:
        """Refuse an answer that is not the file, before earlier bytes are given up for it."""
        part = output_file.part
        hops = [hop.url.partition(":")[0] for hop in (*response.history, response)]
        is_secure = hops[0] == "https" or output_file.url.startswith("doi:")
        if is_secure and "http" in hops and not self.checked:
            raise output_file.fault("redirects from https to http, and has no checksum")
        suffix = part.target.suffix.lower()
        page = response.headers.get("Content-Type", "").lower().startswith("text/html")
        # With a checksum nothing is lost by a try; some servers send data under this type.
        if page and suffix not in (".html", ".htm") and (part.length or not self.checked):
            raise output_file.fault("the server sends a web page (for a login?), not data")
        coding = response.headers.get("Content-Encoding", "identity").lower()
        if coding not in ("", "identity") and suffix not in (".gz", ".tgz"):
            raise output_file.fault("the server compresses the file although asked not to")


def _total_of(response: requests.Response, output_file: UrlTransfer, start: int) -> int:
    """Return the length of the whole file of which a partial answer is the rest."""
    headers, notes = response.headers, output_file.part.notes
    span = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", headers.get("Content-Range", ""))
    if response.status_code == 206 and span and notes:
        first, last, total = map(int, span.groups())
        fits = start == first <= last < total
        fits = fits and content_length(headers) in (None, last - first + 1)
        if fits:
            output_file.check_size(total)
        validators = (
            (notes.etag, headers.get("ETag")),
            (notes.modified, headers.get("Last-Modified")),
        )
        same = next((old == new for old, new in validators if old and new), True)
        same = same or notes.url != output_file.shown_url
        if fits and same and notes.length in (None, total):
            return total
    output_file.part.start_over()
    raise BrokenError("the server sends another part than was requested")


def refusal(response: requests.Response, output_file: UrlTransfer) -> DownloadError | BrokenError:
    """Return why a server refuses: a BrokenError where another attempt may help."""
    code = response.status_code
    answer = f"the server answers {code} {http.client.responses.get(code, '')}".rstrip()
    if code in _TRANSIENT:
        wait = _retry_after(response.headers)
        if wait <= LONGEST_WAIT:
            return BrokenError(answer, wait)
        answer += f", and asks to wait {wait:.0f} s"
    if code in (401, 403):
        answer += ": it requires a login, or does not serve this file"
    return output_file.fault(answer)


def _retry_after(headers: Headers) -> float:
    """Return the seconds that a server asks to wait."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    return (timestamp_of(text) or 0.0) - time.time()


class DOIDownloader:
    """Download a file of the repository behind a DOI: Zenodo, figshare or a Dataverse.

    pooch finds the repository and the file's address; the download itself resumes.

    Parameters
    ----------
    download
        Downloads the file once its address is known.
    timeout
        See :func:`choose_downloader`.
    """

    def __init__(self, download: HTTPDownloader, timeout: Timeout) -> None:
        self.download = download
        self.timeout = timeout
        self._address: str | None = None

    def __call__(self, url: str, output_file: UrlTransfer, pooch: Any) -> None:
        """Append the missing bytes of the file ``doi:<DOI>/<file>``."""
        if self._address is None:
            self._address = self._address_of(url, output_file)
        self.download(self._address, output_file, pooch)

    def _address_of(self, url: str, output_file: UrlTransfer) -> str:
        from pooch.downloaders import doi_to_repository
        from pooch.utils import parse_url

        parts = parse_url(url)
        try:
            repository = doi_to_repository(
                parts["netloc"], headers={"User-Agent": USER_AGENT}, timeout=self.timeout
            )
            return str(repository.download_url(unquote(parts["path"][1:])))
        except requests.HTTPError as error:
            raise refusal(error.response, output_file) from error
        except requests.JSONDecodeError as error:
            raise BrokenError("the repository's answer is not JSON") from error
        except requests.RequestException:
            raise
        except ValueError as error:  # an unknown repository, or a file that it does not have
            raise output_file.fault(" ".join(str(error).split())) from error
        except (KeyError, TypeError, IndexError) as error:
            raise output_file.fault("the repository's answer lists no files") from error


class FTPDownloader:
    """Download over FTP with pooch, from the first byte.

    Parameters
    ----------
    silence
        Seconds without a byte after which an attempt has failed.
    """

    def __init__(self, silence: float) -> None:
        self.silence = silence

    def __call__(self, url: str, output_file: UrlTransfer, pooch: Any) -> None:
        """Write the bytes of a file."""
        from pooch import FTPDownloader as PoochDownloader

        parts = urlsplit(url)
        path = unquote(parts.path)
        if re.search(r"[?#]", path):
            raise output_file.fault("pooch does not download names with ? or # over FTP")
        size = None
        with contextlib.suppress(ftplib.error_perm):  # a server that does not report sizes
            size = ftp_size(url, self.silence)
        output_file.begin(size)
        download = PoochDownloader(
            port=parts.port or ftplib.FTP_PORT,
            username=unquote(parts.username or "anonymous"),
            password=unquote(parts.password or ""),
            timeout=self.silence,
            chunk_size=CHUNK,
        )
        before = sys.exception()
        try:
            download(f"ftp://{parts.hostname}{path}", output_file, pooch)
        except BaseException as error:
            first = _first_error(error, before)
            if first is error and isinstance(error, Exception) and output_file.is_complete:
                return  # pooch said goodbye, and the server did not
            raise first from None


def _first_error(error: BaseException, before: BaseException | None) -> BaseException:
    """Return the error that ended a transfer, without the one of the goodbye after it."""
    while not isinstance(error, DownloadError | BrokenError) and isinstance(error, Exception):
        if error.__context__ is None or error.__context__ is before:
            break
        error = error.__context__
    return error


class SFTPDownloader:
    """Download over SFTP with pooch and paramiko, from the first byte.

    Parameters
    ----------
    silence
        Seconds without a byte after which an attempt has failed.
    """

    def __init__(self, silence: float) -> None:
        self.silence = silence

    def __call__(self, url: str, output_file: UrlTransfer, pooch: Any) -> None:
        """Write the bytes of a file. The progress is not reported until they are all there."""
        from pooch import SFTPDownloader as PoochDownloader

        parts = urlsplit(url)
        try:
            download = PoochDownloader(
                port=parts.port or 22,
                username=unquote(parts.username or "anonymous"),
                password=unquote(parts.password or ""),
                timeout=self.silence,
            )
        except ValueError as error:
            raise output_file.fault(
                "SFTP needs the package paramiko: pip install paramiko"
            ) from error
        output_file.begin(None)
        try:
            path = str(output_file.part.path)
            download(f"sftp://{parts.hostname}{unquote(parts.path)}", path, pooch)
        except Exception as error:  # paramiko's are of its own kind
            reason = " ".join(str(error).split()) or type(error).__name__
            raise BrokenError(f"the transfer broke: {reason}") from error
        output_file.part.read_again(output_file.check_stop)
        output_file.progress.advance(output_file.part.length)


class FileDownloader:
    """Copy a file of this machine, or of a disk that it mounts."""

    def __call__(self, url: str, output_file: UrlTransfer, pooch: Any) -> None:  # noqa: ARG002
        """Write the bytes of a file."""
        try:
            with Path(url2pathname(urlsplit(url).path)).open("rb") as file:
                output_file.begin(file.seek(0, 2))
                file.seek(0)
                while chunk := file.read(CHUNK):
                    output_file.write(chunk)
        except DownloadError:
            raise
        except OSError as error:
            raise output_file.fault(f"cannot be read: {error.strerror}") from error
