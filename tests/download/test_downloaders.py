"""Downloaders by kinds of addresses: those of pooch, and ours in pooch."""

from __future__ import annotations

import hashlib
import json
import logging
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pooch
import pytest
import requests
from support import servers
from support.servers import Answer, Server, closed, fine, redirect, status

from deepbedmap.download import attempts
from deepbedmap.download.downloaders import SCHEMES, choose_downloader
from deepbedmap.download.partial import part_of
from deepbedmap.download.transfers import ResumingDownloader
from deepbedmap.errors import DownloadError
from deepbedmap.registry import load

DATA = random.Random(1).randbytes(300_000)  # noqa: S311
HALF = len(DATA) // 2
SHA256 = hashlib.sha256(DATA).hexdigest()
DOI = "doi:10.5281/zenodo.4924875"


class Bar:
    def __init__(self) -> None:
        self.starts: list[tuple[int, int | None]] = []
        self.done = 0

    def start(self, done: int, total: int | None) -> None:
        self.starts.append((done, total))
        self.done = done

    def advance(self, count: int) -> None:
        self.done += count


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "BACKOFF", 0.005)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "bed picks.csv"


def get(url: str, target: Path, bar: Bar | None = None, **options: Any) -> str:
    return ResumingDownloader(timeout=0.5).get(url, target, bar or Bar(), **options)


def message(url: str, target: Path, **options: Any) -> str:
    """The one line that a transfer fails with."""
    with pytest.raises(DownloadError) as error:
        get(url, target, **options)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("http://example.org/a", "HTTPDownloader"),
        ("https://example.org/a", "HTTPDownloader"),
        (f"{DOI}/bed.csv", "DOIDownloader"),
        ("doi:10.7910/DVN/2EFG/bed.csv", "DOIDownloader"),
        ("ftp://example.org/a", "FTPDownloader"),
        ("sftp://example.org/a", "SFTPDownloader"),
        ("file:///a", "FileDownloader"),
    ],
)
def test_the_downloader_follows_from_the_kind_of_address(url, kind):
    chosen = choose_downloader(url, requests.Session(), 5)
    assert type(chosen).__name__ == kind
    assert url.partition(":")[0] in SCHEMES


@pytest.mark.parametrize("url", ["s3://bucket/a", "a", "doi:10.5281", "doi:bed/a/b", f"{DOI}"])
def test_other_addresses_are_refused_with_the_kinds_that_there_are(url, target):
    assert message(url, target) == f"{url}: not an address of http, https, ftp, sftp, doi or file"


def test_the_registry_accepts_every_kind_of_address(listed_datasets):
    urls = ["http://a/b", "ftp://a/b", "sftp://a/b", f"{DOI}/a%20b.csv", "file:///a"]
    files = [
        {"filename": f"f{number}.csv", "url": url, "sha256": None}
        for number, url in enumerate(urls)
    ]
    entry = {"citekey": "Survey", "title": "A survey", "folder": "highres", "files": files}
    (dataset,) = load(listed_datasets(entry).path)
    assert [file.url for file in dataset.files] == urls


# Repositories behind DOIs


@pytest.fixture
def zenodo(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """Play Zenodo's API on loopback."""
    repository = pooch.downloaders.ZenodoRepository
    monkeypatch.setattr(repository, "base_api_url", server.url("/api/records"))

    def resolve(doi: str, **options: Any) -> str:
        response = requests.get(server.url(f"/doi/{doi}"), allow_redirects=False, **options)  # noqa: S113
        response.raise_for_status()
        return response.headers["Location"]

    monkeypatch.setattr(pooch.downloaders, "doi_to_url", resolve)
    server.url("/doi/10.5281/zenodo.4924875", redirect("https://zenodo.org/records/4924875"))
    return server


def record(server: Server, *names: str) -> Answer:
    files = [{"key": name, "links": {"self": server.url("/content")}} for name in names]
    return fine(json.dumps({"id": 4924875, "files": files}).encode())


def test_a_file_behind_a_doi_is_found_by_pooch_and_resumed_by_us(zenodo, target):
    zenodo.url("/api/records/4924875", record(zenodo, "other.csv", "bed picks.csv"))
    zenodo.url("/content", fine(DATA, cut=HALF), fine(DATA))
    bar = Bar()
    assert get(f"{DOI}/bed%20picks.csv", target, bar, checked=True) == SHA256
    assert part_of(target).read_bytes() == DATA
    ranges = [request.headers.get("range") for request in zenodo.asked("/content")]
    assert ranges == [None, f"bytes={HALF}-"]
    assert bar.starts == [(0, len(DATA)), (HALF, len(DATA))]
    assert len(zenodo.asked("/api/records/4924875")) == 1
    agents = {request.headers["user-agent"] for request in zenodo.requests}
    assert all(agent.startswith("deepbedmap/") for agent in agents)


def test_a_download_behind_a_doi_resumes_in_the_next_call(zenodo, target):
    zenodo.url("/api/records/4924875", record(zenodo, "bed.csv"))
    zenodo.url("/content", fine(DATA, cut=HALF), status(404), fine(DATA))
    assert "404" in message(f"{DOI}/bed.csv", target, checked=True)
    assert get(f"{DOI}/bed.csv", target, checked=True) == SHA256
    assert zenodo.asked("/content")[-1].headers["if-range"] == '"1"'
    assert zenodo.sent["/content"] < 1.1 * len(DATA)


def test_a_doi_without_checksum_does_not_lead_from_https_to_http(zenodo, target):
    zenodo.url("/api/records/4924875", record(zenodo, "bed.csv"))
    zenodo.url("/content", fine(DATA))
    assert "from https to http" in message(f"{DOI}/bed.csv", target)


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ([None], "File 'bed.csv' not found in data archive https://zenodo.org/records/4924875"),
        ([fine(b'{"status": 404}')], "the repository's answer lists no files"),
        ([fine(b"<html>")], "the repository's answer is not JSON; given up after 5 attempts"),
        ([closed], "no connection to 127.0.0.1"),
    ],
)
def test_what_a_repository_does_not_have_is_reported_in_one_line(answers, why, zenodo, target):
    answers = [answer or record(zenodo, "other.csv") for answer in answers]
    zenodo.url("/api/records/4924875", *answers)
    line = message(f"{DOI}/bed.csv", target)
    assert line.startswith(f"{DOI}/bed.csv: ")
    assert why in line


def test_a_doi_that_does_not_exist_is_reported_at_once(zenodo, target):
    line = message("doi:10.5281/zenodo.1/bed.csv", target)
    assert line == "doi:10.5281/zenodo.1/bed.csv: the server answers 404 Not Found"
    assert len(zenodo.requests) == 1


def test_a_doi_of_another_repository_is_reported(zenodo, target):
    zenodo.url("/doi/10.1594/PANGAEA.7", redirect(zenodo.url("/7")))
    line = message("doi:10.1594/PANGAEA.7/bed.csv", target)
    assert "Invalid data repository '127.0.0.1:" in line


def test_a_resolver_that_is_overloaded_is_tried_again(zenodo, target):
    doi = "/doi/10.5281/zenodo.4924875"
    zenodo.url(doi, status(503), redirect("https://zenodo.org/records/4924875"))
    zenodo.url("/api/records/4924875", record(zenodo, "bed.csv"))
    zenodo.url("/content", fine(DATA))
    assert get(f"{DOI}/bed.csv", target, checked=True) == SHA256
    assert len(zenodo.asked(doi)) == 2


# FTP


def test_ftp_is_pooch_s_and_reports_the_size_before_the_first_byte(target, monkeypatch):
    calls = []
    transfer = pooch.FTPDownloader.__call__

    def noted(self: Any, url: str, *arguments: Any) -> None:
        calls.append((url.rpartition("/")[2], self.timeout))
        transfer(self, url, *arguments)

    monkeypatch.setattr(pooch.FTPDownloader, "__call__", noted)
    bar = Bar()
    with servers.ftp(DATA) as (url, _):
        assert get(url, target, bar) == SHA256
    assert calls == [("bed picks.csv", 0.5)]
    assert bar.starts == [(0, len(DATA))]
    assert bar.done == len(DATA)


def test_ftp_of_another_size_than_the_registry_states_is_refused_unread(target):
    with servers.ftp(DATA) as (url, commands):
        assert "expected 7 bytes, the server has 300,000" in message(url, target, size=7)
    assert not [command for command in commands if command.startswith("RETR")]


def test_ftp_sends_the_login_of_the_address_and_never_shows_it(target, caplog):
    with servers.ftp(DATA, 0) as (url, commands), caplog.at_level(logging.DEBUG):
        get(url.replace("//", "//me:s3%20cret@"), target)
    assert "USER me" in commands
    assert "PASS s3 cret" in commands
    assert "trying again" in caplog.text
    assert "cret" not in caplog.text


@pytest.mark.parametrize("goodbye", ["221 goodbye", "500 unknown"])
def test_ftp_ignores_how_the_server_takes_its_leave(goodbye, target):
    with servers.ftp(DATA, goodbye=goodbye) as (url, _):
        assert get(url, target) == SHA256
    with servers.ftp(DATA, code="550 no such file", goodbye=goodbye) as (url, _):
        part_of(target).unlink()
        assert message(url, target) == f"{url}: the server answers 550 no such file"


def test_ftp_ends_at_once_where_the_user_interrupts_it(target):
    class Interrupted(Bar):
        def advance(self, _: int) -> None:
            raise KeyboardInterrupt

    with servers.ftp(DATA * 50) as (url, _), pytest.raises(KeyboardInterrupt):
        get(url, target, Interrupted())


def test_ftp_names_that_pooch_cannot_request_are_refused(target):
    assert "names with ? or #" in message("ftp://127.0.0.1/bed%231.csv", target)


# SFTP


class Paramiko:
    """Plays the parts of paramiko that pooch uses."""

    def __init__(self, data: bytes, failures: int = 0) -> None:
        self.data, self.failures, self.calls = data, failures, []
        self.SFTPClient = self

    def Transport(self, sock: tuple[str, int]) -> Paramiko:
        self.calls.append(sock)
        return self

    def connect(self, username: str, password: str) -> None:
        self.calls.append((username, password))

    def from_transport(self, _: Paramiko) -> Paramiko:
        return self

    def get_channel(self) -> Paramiko:
        return self

    def get(self, path: str, output: str) -> None:
        self.calls.append(path)
        if self.failures:
            self.failures -= 1
            raise Exception("Connection\nreset")  # noqa: TRY002
        Path(output).write_bytes(self.data)

    def close(self) -> None:
        pass


def test_sftp_is_pooch_s(target, monkeypatch):
    monkeypatch.setattr(pooch.downloaders, "paramiko", fake := Paramiko(DATA, failures=1))
    bar = Bar()
    url = "sftp://me:secret@example.org:2222/pub/bed%20picks.csv"
    assert get(url, target, bar, size=len(DATA)) == SHA256
    assert part_of(target).read_bytes() == DATA
    assert fake.calls[:3] == [("example.org", 2222), ("me", "secret"), "/pub/bed picks.csv"]
    assert len(fake.calls) == 6
    assert bar.done == len(DATA)


def test_sftp_of_another_size_is_refused(target, monkeypatch):
    monkeypatch.setattr(pooch.downloaders, "paramiko", Paramiko(DATA))
    assert "300,000 of 7 bytes" in message("sftp://example.org/a", target, size=7)


def test_sftp_without_paramiko_names_what_to_install(target, monkeypatch):
    monkeypatch.setattr(pooch.downloaders, "paramiko", None)
    line = message("sftp://example.org/a", target)
    assert line == "sftp://example.org/a: SFTP needs the package paramiko: pip install paramiko"


# Ours in pooch


def test_pooch_downloads_and_resumes_with_our_downloader(server, tmp_path):
    url = server.url("/bed.csv", fine(DATA, cut=HALF), status(404), fine(DATA))
    ours = ResumingDownloader(timeout=5)
    with pytest.raises(DownloadError):
        pooch.retrieve(url, SHA256, fname="bed.csv", path=tmp_path, downloader=ours)
    path = pooch.retrieve(url, SHA256, fname="bed.csv", path=tmp_path, downloader=ours)
    assert Path(path).read_bytes() == DATA
    assert [file.name for file in tmp_path.iterdir()] == ["bed.csv"]
    ranges = [request.headers.get("range") for request in server.asked("/bed.csv")]
    assert ranges == [None, f"bytes={HALF}-", f"bytes={HALF}-"]


def test_a_pooch_of_files_takes_our_downloader(server, tmp_path):
    server.url("/bed.csv", fine(DATA))
    files = pooch.create(tmp_path, base_url=server.url("/"), registry={"bed.csv": SHA256})
    path = files.fetch("bed.csv", downloader=ResumingDownloader(timeout=5))
    assert Path(path).read_bytes() == DATA


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logger = pooch.get_logger()
    before = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(before)
