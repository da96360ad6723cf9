from __future__ import annotations

import hashlib
import logging
import os
import random
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import servers
from support.servers import (
    Answer,
    Server,
    chunked,
    closed,
    fine,
    garbage,
    partial,
    redirect,
    silent,
    status,
)

from deepbedmap.download import attempts, disk_space, downloaders
from deepbedmap.download.partial import discard, keep, part_of
from deepbedmap.download.transfers import ResumingDownloader
from deepbedmap.errors import DownloadError

CHANCE = random.Random(0)  # noqa: S311
DATA, OTHER = CHANCE.randbytes(300_000), CHANCE.randbytes(300_000)
HALF, LAST = len(DATA) // 2, len(DATA) - 1
REST = f"bytes {HALF}-{LAST}/{LAST + 1}"
MODIFIED = "Tue, 02 Jan 2024 03:04:05 GMT"


class Bar:
    """Notes what it is told."""

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        self.starts: list[tuple[int, int | None]] = []
        self.done = 0
        self._then = then

    def start(self, done: int, total: int | None) -> None:
        self.starts.append((done, total))
        self.done = done

    def advance(self, count: int) -> None:
        self.done += count
        self._then()


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "BACKOFF", 0.005)
    monkeypatch.setattr(downloaders, "LONGEST_WAIT", 2.0)
    monkeypatch.setattr(attempts, "SLOWEST", (1000, 0.3))


@pytest.fixture
def secure(certificate: tuple[Path, Path]) -> Iterator[Server]:
    server = Server(certificate)
    yield server
    server.stop()


@pytest.fixture
def trusted(certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate[0]))


@pytest.fixture
def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "bed.dat"


def get(url: str, target: Path, bar: Bar | None = None, **options: object) -> str:
    return ResumingDownloader(timeout=0.5).get(url, target, bar or Bar(), **options)


def come(target: Path) -> bytes:
    return part_of(target).read_bytes()


def said(url: str, target: Path, **options: object) -> str:
    """The line that a transfer fails with."""
    with pytest.raises(DownloadError) as error:
        get(url, target, **options)
    assert len(str(error.value).splitlines()) == 1
    assert not target.is_file()
    return str(error.value)


def ranges(server: Server, path: str = "/a") -> list[str | None]:
    return [request.headers.get("range") for request in server.asked(path)]


GOOD = fine(DATA)
CUT = fine(DATA, cut=HALF)
DRIP = fine(DATA, piece=1, pause=0.02, cut=100)
LATER = partial(DATA[HALF + 9 :], f"bytes {HALF + 9}-{LAST}/{LAST + 1}")


COMES_WHOLE: dict[str, tuple[list[Answer], int]] = {
    "fine": ([GOOD], 1),
    "500, then fine": ([status(500), status(502), GOOD], 3),
    "503 and a date to wait for": ([status(503, Retry_After=MODIFIED), GOOD], 2),
    "503 and nonsense": ([status(503, Retry_After="soon"), GOOD], 2),
    "closed without an answer": ([closed, GOOD], 2),
    "closed half-way": ([CUT, GOOD], 2),
    "closed at the first byte": ([fine(DATA, cut=0), GOOD], 2),
    "closed at the last byte": ([fine(DATA, cut=len(DATA) - 1), GOOD], 2),
    "closed again and again": ([CUT, *[fine(DATA, cut=HALF + 9)] * 3, GOOD], 5),
    "no length": ([fine(DATA, length=None)], 1),
    "a length that is no number": ([fine(DATA, length="many")], 1),
    "longer than said": ([fine(DATA + b"more", length=str(len(DATA)))], 1),
    "shorter than said, then fine": ([fine(DATA, length="300001"), GOOD], 3),
    "chunks": ([chunked(DATA)], 1),
    "chunks that break off": ([chunked(DATA, cut=HALF), GOOD], 2),
    "a range that nobody asked for": ([partial(DATA[HALF:], REST), GOOD], 2),
    "range ignored": ([CUT, fine(DATA, ranges=False)], 2),
    "another range": ([CUT, partial(DATA, f"bytes 0-{LAST}/{LAST + 1}"), GOOD], 3),
    "a later range": ([CUT, LATER, GOOD], 3),
    "a range that ends too soon": ([CUT, partial(b"", f"bytes {HALF}-1/{LAST + 1}"), GOOD], 3),
    "a range of a longer file": ([CUT, partial(DATA[HALF:], f"{REST}0"), GOOD], 3),
    "a range without its place": ([CUT, partial(DATA[HALF:], ""), GOOD], 3),
    "a range longer than said": ([CUT, partial(DATA[HALF:] + b"more", REST), GOOD], 3),
    "a range of another version": ([CUT, partial(OTHER[HALF:], REST, ETag='"2"'), GOOD], 3),
    "the rest by and by": ([CUT, fine(DATA, most=50_000)], 4),
    "no such range": ([CUT, status(416), GOOD], 3),
    "another version": ([fine(OTHER, cut=HALF), fine(DATA, etag='"2"')], 2),
    "a shorter version": ([fine(OTHER * 2, cut=LAST + 1), fine(DATA, etag='"2"')], 2),
    "silence": ([silent, GOOD], 2),
    "silence half-way": ([fine(DATA, hang=HALF), GOOD], 2),
    "a byte now and then": ([DRIP, GOOD], 2),
    "no HTTP": ([garbage, GOOD], 2),
}
"""The answers of a server, and how often it is asked."""


@pytest.mark.parametrize(("answers", "count"), COMES_WHOLE.values(), ids=COMES_WHOLE)
def test_the_right_bytes_come_whatever_happens_on_the_way(answers, count, server, target):
    bar = Bar()
    digest = get(server.url("/a", *answers), target, bar)
    assert come(target) == DATA
    assert digest == hashlib.sha256(DATA).hexdigest()
    assert len(server.requests) == count
    assert bar.done == len(DATA)
    keep(target)
    assert [path.name for path in target.parent.iterdir()] == ["bed.dat"]


def test_a_server_is_given_the_time_that_it_asks_for(server, target):
    began = time.monotonic()
    get(server.url("/a", status(503, Retry_After="1"), GOOD), target)
    assert time.monotonic() - began >= 1
    assert come(target) == DATA


def test_an_empty_file_comes_whole(server, target):
    assert get(server.url("/a", fine(b"")), target) == hashlib.sha256().hexdigest()
    assert come(target) == b""


FAILS: dict[str, tuple[list[Answer], str]] = {
    "404": ([status(404)], "answers 404 Not Found$"),
    "403": (
        [status(403)],
        "403 Forbidden: it requires a login, or does not serve this file$",
    ),
    "401": ([status(401)], "answers 401 Unauthorized: it requires a login"),
    "an unknown status": ([status(599)], "answers 599$"),
    "500 for ever": ([status(500)], "answers 500 Internal Server Error; given up after 5 attempts"),
    "503 for too long": ([status(503, Retry_After="3")], "503 .*, and asks to wait 3 s"),
    "503 for aeons": ([status(503, Retry_After="9" * 400)], "and asks to wait inf s"),
    "a redirect to itself": ([redirect("/a")], "redirects without end"),
    "a redirect to a file": ([redirect("file:///etc/passwd")], "no address of http or https"),
    "a redirect to nowhere": ([redirect("http://[")], "no address of http or https"),
    "closed for ever": ([closed], "no connection to 127.0.0.1:.*given up"),
    "closed half-way for ever": ([CUT], f"broke after {HALF:,} bytes; given up"),
    "shorter than said": ([fine(DATA, length="300001", ranges=False)], "broke after 300,000 bytes"),
    "chunks that break off": ([chunked(DATA, cut=HALF)], f"broke after {HALF:,} bytes; given up"),
    "silent for ever": ([silent], "was silent for 0.5 s; given up"),
    "a byte now and then": ([DRIP], "only .* bytes arrived within 0.3 s"),
    "always another range": (
        [CUT, partial(DATA, "bytes 7-9/10")],
        "another part than was requested",
    ),
    "a web page": ([fine(b"<p>log in", Content_Type="text/html; charset=utf-8")], "a web page"),
    "a redirect to a web page": ([redirect("/login")], "a web page"),
    "compressed": ([fine(DATA, Content_Encoding="gzip")], "compresses"),
}


@pytest.mark.parametrize(("answers", "why"), FAILS.values(), ids=FAILS)
def test_what_cannot_be_had_is_said_in_one_line(answers, why, server, target):
    server.url("/login", fine(b"<p>log in", Content_Type="text/html"))
    line = said(url := server.url("/a", *answers), target)
    assert line.startswith(f"{url}: ")
    assert re.search(why, line)


@pytest.mark.parametrize(
    ("answer", "size", "why"),
    [
        (GOOD, 7, "expected 7 bytes, the server has 300,000"),
        (GOOD, LAST + 2, "expected 300,001 bytes, the server has 300,000"),
        (fine(DATA, length=None), 7, "more bytes arrived than the expected 7"),
        (chunked(DATA), LAST + 2, "ended after 300,000 of 300,001 bytes"),
    ],
)
def test_another_size_than_the_registry_gives_is_an_error(answer, size, why, server, target):
    assert why in said(server.url("/a", answer), target, size=size)


def test_other_bytes_of_the_same_length_are_known_by_their_checksum(server, target):
    assert get(server.url("/a", fine(OTHER)), target) == hashlib.sha256(OTHER).hexdigest()


def test_a_transfer_may_break_any_number_of_times_as_long_as_it_gets_on(server, target):
    data = CHANCE.randbytes(9 * 2**20)
    cuts = [fine(data, cut=cut) for cut in range(2**20, len(data), 2**20)]
    digest = get(server.url("/a", *cuts, fine(data)), target)
    assert len(cuts) > attempts.ATTEMPTS
    assert digest == hashlib.sha256(data).hexdigest() == hashlib.sha256(come(target)).hexdigest()
    assert sum(server.sent.values()) == len(data)


@pytest.mark.parametrize(
    ("validators", "if_range"),
    [
        ({"etag": '"1"', "modified": MODIFIED}, '"1"'),
        ({"etag": None, "modified": MODIFIED}, MODIFIED),
        ({"etag": 'W/"1"', "modified": MODIFIED}, MODIFIED),
        ({"etag": 'W/"1"'}, None),
        ({"etag": None}, None),
    ],
)
def test_a_transfer_goes_on_only_where_the_server_can_tell_versions_apart(
    validators, if_range, server, target
):
    url = server.url("/a", fine(DATA, cut=HALF, **validators), fine(DATA, **validators))
    get(url, target)
    _, second = server.requests
    assert second.headers.get("if-range") == if_range
    assert second.headers.get("range") == (f"bytes={HALF}-" if if_range else None)
    assert come(target) == DATA


def test_a_date_of_this_very_second_tells_no_versions_apart(server, target):
    def now(exchange: servers.Exchange) -> None:
        fine(DATA, etag=None, modified=exchange.date_time_string(), cut=HALF)(exchange)

    get(server.url("/a", now, GOOD), target)
    assert ranges(server) == [None, None]


def test_with_a_checksum_a_transfer_goes_on_where_the_server_cannot_tell_versions_apart(
    server, target
):
    url = server.url("/a", fine(DATA, etag=None, cut=HALF), fine(DATA, etag=None))
    get(url, target, checked=True)
    assert come(target) == DATA
    assert ranges(server) == [None, f"bytes={HALF}-"]


@pytest.mark.parametrize("checked", [True, False])
def test_only_with_a_checksum_a_mirror_goes_on_with_the_part_of_another(checked, server, target):
    said(server.url("/a", CUT, status(404)), target)
    get(server.url("/mirror", fine(DATA, etag='"of the mirror"')), target, checked=checked)
    assert come(target) == DATA
    assert ranges(server, "/mirror") == ([f"bytes={HALF}-"] if checked else [None])
    assert "if-range" not in server.asked("/mirror")[0].headers


@pytest.mark.parametrize(
    "answer", [status(404), status(503), fine(b"<p>log in", etag="", Content_Type="text/html")]
)
@pytest.mark.parametrize("checked", [True, False])
def test_a_part_outlives_errors_and_web_pages(answer, checked, server, target):
    url = server.url("/a", CUT, answer)
    said(url, target, checked=checked)
    assert come(target) == DATA[:HALF]
    get(server.url("/a", GOOD), target, checked=checked)
    assert come(target) == DATA
    assert ranges(server)[-1] == f"bytes={HALF}-"


def test_an_error_without_a_byte_leaves_nothing(server, target):
    said(server.url("/a"), target)
    assert not list(target.parent.iterdir())


def test_a_part_that_is_whole_is_not_asked_for_again(server, target):
    url = server.url("/a", GOOD)
    first = get(url, target)
    assert get(url, target) == get(url, target, checked=True, size=len(DATA)) == first
    assert len(server.requests) == 1


def test_a_part_that_is_too_long_is_dropped(server, target):
    url = server.url("/a", GOOD)
    get(url, target)
    with part_of(target).open("ab") as file:
        file.write(b"more")
    assert get(url, target) == hashlib.sha256(DATA).hexdigest()


@pytest.mark.parametrize(
    "notes",
    [
        b"",
        b"\xff{",
        b"[1]",
        b"{}",
        b'{"url": 1, "etag": null, "modified": null, "length": null}',
        b'{"url": "URL", "etag": "\\"1\\"\\r\\nX: y", "modified": null, "length": null}',
        b'{"url": "URL", "etag": "\\"1\\"", "modified": null, "length": "1"}',
        b'{"url": "URL", "etag": "\\"1\\"", "modified": null, "length": null, "more": 1}',
        None,
    ],
)
@pytest.mark.parametrize("checked", [True, False])
def test_notes_that_cannot_be_read_start_a_transfer_over(notes, checked, server, target):
    url = server.url("/a", GOOD)
    part_of(target).write_bytes(b"stale")
    if notes is not None:
        target.with_name("bed.dat.part.json").write_bytes(notes.replace(b"URL", url.encode()))
    get(url, target, checked=checked)
    assert come(target) == DATA
    assert ranges(server) == [None]


VERSIONS = [CHANCE.randbytes(2000 + 100 * number) for number in range(3)]
STEPS = st.lists(
    st.one_of(
        st.sampled_from([closed, status(500), status(416), garbage]),
        st.builds(
            lambda version, cut, ranges, length: fine(
                VERSIONS[version], etag=f'"{version}"', cut=cut, ranges=ranges, length=length
            ),
            st.integers(0, 2),
            st.integers(0, 2500),
            st.booleans(),
            st.sampled_from(["right", "3000"]),
        ),
        st.builds(
            lambda version, first, etag: partial(
                VERSIONS[version][first:],
                f"bytes {first}-{len(VERSIONS[version]) - 1}/{len(VERSIONS[version])}",
                **({"ETag": f'"{version}"'} if etag else {}),
            ),
            st.integers(0, 2),
            st.integers(0, 1999),
            st.booleans(),
        ),
    ),
    max_size=5,
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS, last=st.integers(0, 2))
def test_what_comes_is_always_one_whole_version_of_the_file(
    steps, last, server, target, monkeypatch
):
    monkeypatch.setattr(attempts, "ATTEMPTS", 20)
    monkeypatch.setattr(attempts, "BACKOFF", 0)
    discard(target)
    server.requests.clear()
    final = fine(VERSIONS[last], etag=f'"{last}"')
    digest = get(server.url("/a", *steps, final), target)
    assert come(target) in VERSIONS
    assert digest == hashlib.sha256(come(target)).hexdigest()


def test_a_redirect_leads_to_another_host(server, target):
    other = server.url("/b", GOOD, host="localhost")
    get(server.url("/a", redirect(other)), target)
    assert come(target) == DATA


def test_a_redirect_from_http_to_https_is_followed(server, secure, certificate, target, trusted):
    get(server.url("/a", redirect(secure.url("/b", GOOD))), target)
    assert come(target) == DATA


@pytest.mark.parametrize("checked", [True, False])
def test_a_redirect_from_https_to_http_is_followed_only_with_a_checksum(
    checked, server, secure, trusted, target
):
    url = secure.url("/a", redirect(server.url("/b", GOOD)))
    if checked:
        get(url, target, checked=True)
        assert come(target) == DATA
    else:
        assert "from https to http" in said(url, target)


def test_a_certificate_that_does_not_verify_ends_the_transfer(secure, target):
    line = said(secure.url("/a", GOOD), target, checked=True)
    assert "the certificate does not verify (self-signed certificate)" in line
    assert not secure.requests


def test_a_host_that_does_not_resolve_is_named(target):
    line = said("http://no-such-host.invalid/a", target)
    assert "there is no host no-such-host.invalid, or no network" in line


def test_a_connection_that_is_refused_is_said_at_once(target, free_port):
    for scheme in ("http", "ftp"):
        line = said(f"{scheme}://127.0.0.1:{free_port}/a", target)
        assert line.endswith(f"127.0.0.1:{free_port} refuses connections")


@pytest.mark.parametrize(
    "url", ["s3://bucket/a", "/etc/passwd", "", "http://[::1", "http://", "ftp://host:x/a"]
)
def test_what_is_no_address_is_an_error(url, target):
    assert said(url, target).startswith(f"{url}: ")


def test_a_password_in_an_address_is_sent_and_never_told(server, target, caplog, tmp_path):
    plain = server.url("/a", status(500), CUT, status(404))
    secret = plain.replace("//", "//me:s3cret@")
    with caplog.at_level(logging.DEBUG, logger="deepbedmap"):
        line = said(secret, target)
    assert server.requests[0].headers["authorization"].startswith("Basic ")
    told = [line, caplog.text, *(path.read_text("latin-1") for path in tmp_path.iterdir())]
    assert "500" in caplog.text
    assert not [text for text in told if "s3cret" in text]
    assert line.startswith(f"{plain}: ")


def test_a_file_is_asked_for_as_it_is_by_name(server, target):
    get(server.url("/a", GOOD), target)
    (request,) = server.requests
    assert request.headers["user-agent"].startswith("deepbedmap/")
    assert request.headers["accept-encoding"] == "identity"


def test_a_session_of_the_caller_is_used(server, target):
    with requests.Session() as session:
        session.headers["X-Login"] = "yes"
        get(server.url("/a", GOOD), target, session=session)
    assert server.requests[0].headers["x-login"] == "yes"


def test_compressed_files_come_as_they_are(server, tmp_path):
    target = tmp_path / "bed.tar.gz"
    get(server.url("/a", fine(DATA, Content_Encoding="gzip")), target)
    assert come(target) == DATA


@pytest.mark.parametrize("name", ["bed.dat", "bed.dat.part"])
def test_a_folder_in_the_way_is_said_before_the_server_is_asked(name, server, target):
    target.with_name(name).mkdir()
    assert f"{target}.part: cannot be written: " in said(server.url("/a", GOOD), target)
    assert not server.requests


def test_a_folder_that_is_not_there_is_named(server, tmp_path):
    target = tmp_path / "no" / "bed.dat"
    line = said(server.url("/a", GOOD), target)
    assert line == f"{target}.part: cannot be written: No such file or directory"


def test_a_folder_that_cannot_be_written_to_is_named(server, tmp_path):
    folder = tmp_path / "read-only"
    folder.mkdir(mode=0o500)
    if os.access(folder, os.W_OK):  # root may write everywhere but into the kernel
        folder = Path("/sys/kernel")
    if not folder.is_dir():
        pytest.skip("every folder can be written to here")
    line = said(server.url("/a", GOOD), folder / "bed.dat")
    assert re.fullmatch(rf"{folder}/bed.dat.part: cannot be written: .*(denied|Read-only).*", line)


@pytest.mark.parametrize("way", ["http", "file"])
def test_a_disk_that_is_too_full_is_said_before_the_first_byte(way, server, target, monkeypatch):
    (source := target.with_name("source")).write_bytes(DATA)
    url = server.url("/a", GOOD) if way == "http" else source.as_uri()
    monkeypatch.setattr(disk_space, "SPARE", 2**60)
    line = said(url, target)
    assert f"{target}.part: 300,000 bytes to download, but the disk has only " in line
    assert not part_of(target).exists()


@pytest.mark.parametrize("way", ["http", "ftp", "file"])
def test_a_disk_that_fills_up_ends_the_transfer_and_keeps_the_part(way, server, target):
    (source := target.with_name("source")).write_bytes(DATA)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with servers.ftp(DATA) as (ftp, _):
        url = {"http": server.url("/a", GOOD), "ftp": ftp, "file": source.as_uri()}[way]
        resource.setrlimit(resource.RLIMIT_FSIZE, (HALF, hard))
        try:
            line = said(url, target)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert line == f"{target}.part: cannot be written: File too large"
    assert come(target) == DATA[:HALF]
    get(url if way != "ftp" else source.as_uri(), target)
    assert come(target) == DATA


def test_a_transfer_that_is_stopped_ends_and_keeps_its_part(server, target):
    shared = ResumingDownloader(timeout=5)
    url = server.url("/a", fine(DATA, piece=1000, pause=0.01))
    began = time.monotonic()
    with pytest.raises(DownloadError, match=r"^stopped$"):
        shared.get(url, target, Bar(then=shared.stop.set))
    assert time.monotonic() - began < 2
    kept = come(target)
    assert kept
    assert DATA.startswith(kept)
    with pytest.raises(DownloadError, match=r"^stopped$"):
        shared.get(url, target, Bar())
    assert len(server.requests) == 1


def test_a_transfer_that_waits_for_its_next_attempt_can_be_stopped(server, target, monkeypatch):
    shared = ResumingDownloader()
    monkeypatch.setattr(attempts, "BACKOFF", 30)
    url = server.url("/a", status(503))
    threading.Timer(0.2, shared.stop.set).start()
    began = time.monotonic()
    with pytest.raises(DownloadError, match=r"^stopped$"):
        shared.get(url, target, Bar())
    assert time.monotonic() - began < 5


def test_a_transfer_that_is_interrupted_goes_on_with_the_next_call(server, target):
    def interrupt() -> None:
        raise KeyboardInterrupt

    url = server.url("/a", fine(DATA, piece=10_000, pause=0.001))
    with pytest.raises(KeyboardInterrupt):
        get(url, target, Bar(then=interrupt))
    kept = len(come(target))
    get(url, target, bar := Bar())
    assert come(target) == DATA
    assert ranges(server) == [None, f"bytes={kept}-"]
    assert bar.starts == [(kept, len(DATA))]


FETCH = """
import sys
from pathlib import Path
from unittest import mock
from deepbedmap.download.transfers import ResumingDownloader
ResumingDownloader().get(sys.argv[1], Path(sys.argv[2]), mock.Mock())
"""


def test_a_transfer_that_is_killed_fetches_at_most_a_chunk_again(server, target):
    data = CHANCE.randbytes(4 * 2**20)
    url = server.url("/a", fine(data, piece=2**14, pause=0.002))
    kept = []
    for _ in range(4):
        enough = server.sent["/a"] + CHANCE.randrange(2**20)
        process = subprocess.Popen([sys.executable, "-c", FETCH, url, str(target)])
        deadline = time.monotonic() + 30
        while server.sent["/a"] <= enough and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        kept.append(len(come(target)))
    get(url, target)
    assert come(target) == data
    assert ranges(server) == [None, *(f"bytes={there}-" for there in kept)]
    assert server.sent["/a"] <= len(data) + len(kept) * 2**20


def test_one_host_gets_so_many_transfers_at_a_time(server, tmp_path):
    shared = ResumingDownloader(per_host=2)
    at_once, guard = [0], threading.Lock()

    def answer(exchange: servers.Exchange) -> None:
        with guard:
            at_once.append(at_once[-1] + 1)
        time.sleep(0.02)
        with guard:
            at_once.append(at_once[-1] - 1)
        GOOD(exchange)

    urls = [server.url(f"/{number}", answer) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        targets = [tmp_path / str(number) for number in range(8)]
        digests = list(pool.map(shared.get, urls, targets, [Bar() for _ in urls]))
    assert set(digests) == {hashlib.sha256(DATA).hexdigest()}
    assert max(at_once) == 2


def test_one_connection_brings_several_files(server, tmp_path):
    ports = set()

    def answer(exchange: servers.Exchange) -> None:
        ports.add(exchange.client_address[1])
        GOOD(exchange)

    shared = ResumingDownloader()
    for name in "abc":
        shared.get(server.url(f"/{name}", answer), tmp_path / name, Bar())
    assert len(ports) == 1


def test_a_large_file_takes_little_memory(server, target):
    data = bytes(64 * 2**20)
    url = server.url("/a", fine(data, piece=2**20))
    tracemalloc.start()
    try:
        digest = get(url, target)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert digest == hashlib.sha256(data).hexdigest()
    assert peak < 16 * 2**20


def test_a_file_url_is_copied_also_where_its_path_has_blanks_and_percent_signs(tmp_path, target):
    source = tmp_path / "100% bed #1.dat"
    source.write_bytes(DATA)
    bar = Bar()
    assert get(source.as_uri(), target, bar) == hashlib.sha256(DATA).hexdigest()
    assert come(target) == DATA
    assert bar.starts == [(0, len(DATA))]
    assert "expected 7 bytes" in said(source.as_uri(), target, size=7)
    assert "cannot be read: No such file" in said((tmp_path / "no").as_uri(), target)
    assert "cannot be read: Is a directory" in said(tmp_path.as_uri(), target)


def test_ftp_brings_a_file_whose_name_has_blanks(target):
    with servers.ftp(DATA) as (url, commands):
        assert get(url, target) == hashlib.sha256(DATA).hexdigest()
    assert come(target) == DATA
    assert "USER anonymous" in commands
    assert "RETR /pub/bed picks.csv" in commands


def test_ftp_tries_again_where_the_connection_breaks(target):
    with servers.ftp(DATA, HALF, 0) as (url, commands):
        get(url, target)
    assert come(target) == DATA
    assert sum(command.startswith("RETR") for command in commands) == 3


def test_ftp_says_what_the_server_refuses(target):
    with servers.ftp(DATA, code="550 no such file") as (url, _):
        assert said(url, target) == f"{url}: the server answers 550 no such file"


def test_ftp_without_an_end_is_stopped(target):
    shared = ResumingDownloader()
    with servers.ftp(DATA * 50) as (url, _), pytest.raises(DownloadError, match=r"^stopped$"):
        shared.get(url, target, Bar(then=shared.stop.set))
