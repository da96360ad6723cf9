"""Check which addresses of the registry still answer.

Run it as ``python -m deepbedmap.registry.links --report links.md``.
Servers move and data centres close. Nothing is downloaded: every address is asked for its headers,
one after the other on each server, and what came is written as a report for people.
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
"""Seconds of silence after which a server is given up."""

PAUSE = 0.2
"""Seconds between two questions to one server."""

RESOLVER = "https://doi.org/"
"""Resolves DOIs."""

Status = Literal["dead", "moved", "login", "ok"]
_MEANINGS: dict[Status, str] = {
    "dead": "Dead: no data come from here",
    "moved": "Moved for good: write the new address into the registry",
    "login": "A login is needed",
    "ok": "Answer",
}


@dataclass(frozen=True)
class Link:
    """What an address of the registry answered.

    Attributes
    ----------
    url
        The address.
    files
        Files that it is for, as ``citekey/filename``.
    status
        ``"ok"``; ``"login"``: it wants a login; ``"moved"``: it answers, permanently redirected to
        another address; ``"dead"``: neither.
    detail
        Its status code, where it moved to, or what went wrong.
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
    """Request every http, https, ftp and doi address of the registry's files.

    Addresses of SFTP and of this machine are left out. Of a DOI it is checked that it resolves, not
    that its repository has the file.

    Parameters
    ----------
    registry
        None for the one that comes with the package.
    timeout
        Seconds of silence after which a server is given up.
    jobs
        How many servers are asked at a time; each is asked one question at a time.
    pause
        Seconds between two questions to one server.

    Returns
    -------
    list of Link
        Each address once, in the order of the registry.
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
        ask = partial(_ask_server, timeout=timeout, pause=pause)
        answers = {
            url: answer for answered in pool.map(ask, servers.values()) for url, answer in answered
        }
    return [Link(url, tuple(names), *answers[url]) for url, names in files.items()]


def report(links: Sequence[Link]) -> str:
    """Write what was found as Markdown: a table of the dead, one of the moved, and so on."""
    counts = {status: [link for link in links if link.status == status] for status in _MEANINGS}
    blocks = [f"{len(links)} addresses of the registry were asked."]
    for status, meaning in _MEANINGS.items():
        found = counts[status]
        blocks.append(f"## {meaning}: {len(found)}")
        if found and status != "ok":
            rows = [
                f"| {_code(link.url)} | {_code(link.detail)} | {_files(link.files)} |"
                for link in found
            ]
            blocks.append("\n".join(["| address | answer | for |", "| --- | --- | --- |", *rows]))
    return "\n\n".join(blocks) + "\n"


def _files(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(_code, names[:3])) + more


def _code(text: str) -> str:
    """Text that stays text in a table: what servers say is theirs, and may be Markdown."""
    plain = "".join(letter if letter.isprintable() else " " for letter in text)
    plain = plain.replace("`", "'").replace("|", "%7C")
    return f"`{plain if len(plain) <= 300 else plain[:300] + '...'}`"


Answer = tuple[Status, str]


def _ask_server(urls: Iterable[str], timeout: float, pause: float) -> list[tuple[str, Answer]]:
    """Ask one server for all its addresses, one after the other."""
    answers = []
    with requests.Session() as session:
        session.headers["User-Agent"] = f"deepbedmap/{deepbedmap.__version__} (link check)"
        session.headers["Accept-Encoding"] = "identity"
        session.auth = _no_login
        for number, url in enumerate(urls):
            if number:
                time.sleep(pause)
            match urlsplit(url).scheme:
                case "ftp":
                    ask: Callable[[str, float], Answer] = _ask_ftp
                case "doi":
                    ask = partial(_ask_doi, session)
                case _:
                    ask = partial(_ask_http, session)
            answers.append((url, _answer(ask, url, timeout)))
    return answers


def _no_login(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keep passwords of a .netrc file where they are."""
    return request


def _answer(ask: Callable[[str, float], Answer], url: str, timeout: float) -> Answer:
    try:
        return ask(url, timeout)
    except (TimeoutError, requests.Timeout):
        return "dead", f"no answer in {timeout:g} s"
    except (OSError, EOFError, ValueError, ftplib.Error) as error:
        return "dead", _reason(error)


def _reason(error: BaseException) -> str:
    """Say the innermost thing that went wrong: requests wraps it three times."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, socket.gaierror):
            return "there is no such server"
        if isinstance(inner, ConnectionRefusedError):
            return "the connection was refused"
        inner = inner.__cause__ or inner.__context__
    return f"{type(error).__name__}: {error}"


def _ask_http(session: requests.Session, url: str, timeout: float) -> Answer:
    """Ask for the headers; where a server knows no HEAD, for the first byte."""
    with session.head(url, allow_redirects=True, timeout=timeout) as response:
        answer = _meaning(response)
    if answer[0] != "dead":
        return answer
    headers = {"Range": "bytes=0-0"}
    with session.get(url, headers=headers, stream=True, timeout=timeout) as response:
        return _meaning(response)  # closed before its body is read


def _meaning(response: requests.Response) -> Answer:
    hops = [*response.history, response]
    code = response.status_code
    if code == 401 or any(urlsplit(hop.url).hostname == LOGIN for hop in hops):
        return "login", f"{hops[0].status_code} {hops[0].reason}"
    if not response.ok:
        return "dead", f"{code} {response.reason}"
    permanent = [*takewhile(lambda hop: hop.status_code in (301, 308), response.history)]
    if permanent:  # what a temporary redirect leads on to may be signed, and end tomorrow
        return "moved", hops[len(permanent)].url
    return "ok", f"{code} {response.reason}"


def _ask_doi(session: requests.Session, url: str, timeout: float) -> Answer:
    """Request the page of the dataset: ``doi:<DOI>/<file>``, in Zenodo with folders in the file."""
    prefix, suffix, *more = url.removeprefix("doi:").split("/")
    inner = [] if "zenodo" in suffix.lower() else more[:-1]
    return _ask_http(session, RESOLVER + "/".join([prefix, suffix, *inner]), timeout)


def _ask_ftp(url: str, timeout: float) -> Answer:
    return "ok", f"{ftp_size(url, timeout) or 'some'} bytes"


def main(arguments: Sequence[str] | None = None) -> None:
    """Ask every address of the registry whether it answers; that some are dead is no error."""
    parser = argparse.ArgumentParser(
        prog="python -m deepbedmap.registry.links", description=main.__doc__
    )
    parser.add_argument("--report", type=Path, required=True, help="Markdown file to write")
    parser.add_argument("--registry", type=Path, help="a data_list.yml; else the package's")
    parser.add_argument("--timeout", type=float, default=TIMEOUT, help="seconds of silence")
    options = parser.parse_args(arguments)
    links = check(load(options.registry), options.timeout)
    with beside(options.report) as part:
        part.write_text(report(links), encoding="utf-8")


if __name__ == "__main__":
    main()
