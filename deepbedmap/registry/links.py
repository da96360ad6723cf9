"""Check which URLs of the registry still respond.

Run it as ``python -m deepbedmap.registry.links --report links.md``.
Servers move and data centres close. Nothing is downloaded: the headers of every URL are requested,
one after the other on each server, and the result is written as a report in Markdown.
"""

from __future__ import annotations

import argparse
import ftplib
import socket
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

import requests

import deepbedmap
from deepbedmap.files.atomic import beside
from deepbedmap.files.ftp import ftp_size
from deepbedmap.registry.reading import load
from deepbedmap.registry.records import LOGIN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from deepbedmap.registry.listing import Registry

TIMEOUT = 20.0
"""Seconds without a response after which a server counts as dead."""

PAUSE = 0.2
"""Seconds between two requests to one server."""

RESOLVER = "https://doi.org/"
"""Resolves DOIs."""

Status = Literal["dead", "moved", "login", "ok"]
_MEANINGS: dict[Status, str] = {
    "dead": "Dead: no data available",
    "moved": "Moved permanently: enter the new URL in the registry",
    "login": "Login required",
    "ok": "Responding",
}


@dataclass(frozen=True)
class Link:
    """The response of one URL of the registry.

    Attributes
    ----------
    url
        The URL.
    files
        Files that the URL provides, as ``citekey/filename``.
    status
        ``"ok"``; ``"login"``, a login is required; ``"moved"``, it responds and redirects
        permanently to another URL; ``"dead"``, none of these.
    detail
        The status code, the new URL, or the error.
    """

    url: str
    files: tuple[str, ...]
    status: Status
    detail: str


def check(
    registry: Registry | None = None,
    timeout: float = TIMEOUT,
    jobs: int = 8,
    pause: float = PAUSE,
) -> list[Link]:
    """Check whether every http, https, ftp and doi address of the registry's files responds.

    SFTP addresses and addresses of this machine are left out. A DOI is only resolved; whether its
    repository has the file is not checked.

    Parameters
    ----------
    registry
        None for the registry that comes with the package.
    timeout
        Seconds without a response after which a server counts as dead.
    jobs
        Number of servers checked at a time, each with one request at a time.
    pause
        Seconds between two requests to one server.

    Returns
    -------
    list of Link
        Each URL once, in the order of the registry.
    """
    registry = load() if registry is None else registry
    files: dict[str, list[str]] = defaultdict(list)
    for dataset in registry:
        for file in dataset.files:
            for url in file.urls:
                if urlsplit(url).scheme not in ("file", "sftp"):
                    files[url].append(f"{dataset.citekey}/{file.filename}")
    servers: dict[str, list[str]] = defaultdict(list)
    for url in files:
        servers[urlsplit(url).netloc].append(url)  # those of DOIs are one server's
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        check_urls = partial(_check_server, timeout=timeout, pause=pause)
        responses = {
            url: response
            for server in pool.map(check_urls, servers.values())
            for url, response in server
        }
    return [Link(url, tuple(names), *responses[url]) for url, names in files.items()]


def report(links: Sequence[Link]) -> str:
    """Return a report in Markdown: a table of dead URLs, one of moved URLs, and so on."""
    by_status = {status: [link for link in links if link.status == status] for status in _MEANINGS}
    blocks = [f"{len(links)} URLs of the registry were checked."]
    for status, meaning in _MEANINGS.items():
        matching = by_status[status]
        blocks.append(f"## {meaning}: {len(matching)}")
        if matching and status != "ok":
            rows = [
                f"| {_code(link.url)} | {_code(link.detail)} | {_files(link.files)} |"
                for link in matching
            ]
            blocks.append("\n".join(["| URL | response | files |", "| --- | --- | --- |", *rows]))
    return "\n\n".join(blocks) + "\n"


def _files(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(_code, names[:3])) + more


def _code(text: str) -> str:
    """Quote text as code in a table: a server's response may contain Markdown."""
    plain = "".join(letter if letter.isprintable() else " " for letter in text)
    plain = plain.replace("`", "'").replace("|", "%7C")
    return f"`{plain if len(plain) <= 300 else plain[:300] + '...'}`"


Response = tuple[Status, str]


def _check_server(urls: Iterable[str], timeout: float, pause: float) -> list[tuple[str, Response]]:
    """Check all URLs of one server, one after the other."""
    responses = []
    with requests.Session() as session:
        session.headers["User-Agent"] = f"deepbedmap/{deepbedmap.__version__} (link check)"
        session.headers["Accept-Encoding"] = "identity"
        session.auth = _no_login
        for number, url in enumerate(urls):
            if number:
                time.sleep(pause)
            responses.append((url, _response(_request_of(url, session), url, timeout)))
    return responses


def _request_of(url: str, session: requests.Session) -> Callable[[str, float], Response]:
    match urlsplit(url).scheme:
        case "ftp":
            return _request_ftp
        case "doi":
            return partial(_request_doi, session)
    return partial(_request_http, session)


def _no_login(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Send no passwords from a .netrc file."""
    return request


def _response(request: Callable[[str, float], Response], url: str, timeout: float) -> Response:
    try:
        return request(url, timeout)
    except (TimeoutError, requests.Timeout):
        return "dead", f"no response within {timeout:g} s"
    except (OSError, EOFError, ValueError, ftplib.Error) as error:
        return "dead", _reason(error)


def _reason(error: BaseException) -> str:
    """Return the innermost error, which requests wraps three times."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, socket.gaierror):
            return "no such server"
        if isinstance(inner, ConnectionRefusedError):
            return "connection refused"
        inner = inner.__cause__ or inner.__context__
    return f"{type(error).__name__}: {error}"


def _request_http(session: requests.Session, url: str, timeout: float) -> Response:
    """Request the headers or, if the server does not support HEAD, the first byte."""
    with session.head(url, allow_redirects=True, timeout=timeout) as response:
        outcome = _outcome(response)
    if outcome[0] != "dead":
        return outcome
    headers = {"Range": "bytes=0-0"}
    with session.get(url, headers=headers, stream=True, timeout=timeout) as response:
        return _outcome(response)  # closed before its body is read


def _outcome(response: requests.Response) -> Response:
    hops = [*response.history, response]
    code = response.status_code
    if code == 401 or any(urlsplit(hop.url).hostname == LOGIN for hop in hops):
        return "login", f"{hops[0].status_code} {hops[0].reason}"
    if not response.ok:
        return "dead", f"{code} {response.reason}"
    permanent = [*takewhile(lambda hop: hop.status_code in (301, 308), response.history)]
    if permanent:  # the target of a temporary redirect may be signed and expire
        return "moved", hops[len(permanent)].url
    return "ok", f"{code} {response.reason}"


def _request_doi(session: requests.Session, url: str, timeout: float) -> Response:
    """Request the page of the dataset: ``doi:<DOI>/<file>``, in Zenodo with folders in the file."""
    prefix, suffix, *more = url.removeprefix("doi:").split("/")
    inner = [] if "zenodo" in suffix.lower() else more[:-1]
    return _request_http(session, RESOLVER + "/".join([prefix, suffix, *inner]), timeout)


def _request_ftp(url: str, timeout: float) -> Response:
    return "ok", f"{ftp_size(url, timeout) or 'some'} bytes"


def main(arguments: Sequence[str] | None = None) -> None:
    """Check whether every URL of the registry responds; dead URLs are not an error."""
    parser = argparse.ArgumentParser(
        prog="python -m deepbedmap.registry.links", description=main.__doc__
    )
    parser.add_argument("--report", type=Path, required=True, help="Markdown file to write")
    parser.add_argument(
        "--registry", type=Path, help="a data_list.yml (default: the package's own)"
    )
    parser.add_argument("--timeout", type=float, default=TIMEOUT, help="seconds without a response")
    options = parser.parse_args(arguments)
    links = check(load(options.registry), options.timeout)
    with beside(options.report) as part:
        part.write_text(report(links), encoding="utf-8")


if __name__ == "__main__":
    main()
