"""What is left of a fetch that is killed: files that are whole, and parts that go on."""

from __future__ import annotations

import hashlib
import io
import itertools
import multiprocessing
import random
import re
import socket
import tarfile
import time
import zipfile
from collections import defaultdict
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

import pytest
import yaml
from support.servers import Answer, Exchange
from urllib3.connection import HTTPConnection

from deepbedmap import download, registry

CHUNK = 2**20
"""Bytes that a transfer may have to fetch again after a kill."""

KILLS = 20


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Where processes come from: forked, with what they need already imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["deepbedmap.download", "pytest"])
    return context


@pytest.fixture
def start(processes: ForkServerContext):
    """Start to fetch the files of a registry."""

    def start(listing: registry.Registry, folder: Path) -> ForkServerProcess:
        process = processes.Process(target=fetch, args=(listing, folder), daemon=True)
        process.start()
        return process

    return start


def fetch(listing: registry.Registry, folder: Path) -> None:
    """Fetch, with so small a buffer that nearly all of what was sent has come."""
    little = (socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
    HTTPConnection.default_socket_options.append(little)
    download.fetch("Survey", jobs=2, progress=False, registry=listing, data_dir=folder)


def listed(folder: Path, *files: dict[str, object]) -> registry.Registry:
    entry = {"citekey": "Survey", "title": "A survey", "folder": "highres", "files": [*files]}
    path = folder / "data_list.yml"
    path.write_text(yaml.safe_dump([entry]))
    return registry.load(path)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class Span:
    """What one request got: bytes of the file from the first on, as far as the server knows."""

    first: int
    count: int = 0

    @property
    def end(self) -> int:
        return self.first + self.count


def slowly(data: bytes, spans: list[Span]) -> Answer:
    """Serve a file at 20 MB a second or less; note what each request got."""

    def answer(exchange: Exchange) -> None:
        exchange.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**16)
        asked = re.fullmatch(r"bytes=(\d+)-", exchange.headers.get("Range", ""))
        span = Span(int(asked[1]) if asked else 0)
        spans.append(span)
        head = {"ETag": '"1"', "Content-Length": str(len(data) - span.first)}
        if span.first:
            head["Content-Range"] = f"bytes {span.first}-{len(data) - 1}/{len(data)}"
        exchange.head(206 if span.first else 200, {**head})
        for first in range(span.first, len(data), 2**16):
            piece = data[first : first + 2**16]
            exchange.wfile.write(piece)
            span.count += len(piece)
            time.sleep(0.003)

    return answer


def files_in(folder: Path) -> dict[str, bytes]:
    """What was put in place; receipts are kept apart."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and (path.parent.name, path.suffix) != (".fetched", ".json")
    }


def test_a_fetch_that_is_killed_20_times_goes_on_and_ends_with_the_right_files(
    server, start, tmp_path
):
    chance = random.Random(1)  # noqa: S311
    content = {f"{name}.csv": chance.randbytes(16 * CHUNK + 12_345) for name in "abcd"}
    spans: dict[str, list[Span]] = defaultdict(list)
    listing = listed(
        tmp_path,
        *(
            {
                "filename": name,
                "url": server.url(f"/{name}", slowly(data, spans[name])),
                "sha256": sha256(data),
            }
            for name, data in content.items()
        ),
    )

    def served() -> int:
        return sum(span.count for of_file in [*spans.values()] for span in [*of_file])

    size = sum(map(len, content.values()))
    for moment in sorted(chance.randrange(size) for _ in range(KILLS)):
        process = start(listing, tmp_path / "data")
        while served() < moment and process.is_alive():
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.02))
        process.kill()
        process.join(10)
        assert process.exitcode == -9
        for name, data in files_in(tmp_path / "data").items():
            assert data == content.get(name.removeprefix("highres/"), data)
    process = start(listing, tmp_path / "data")
    process.join(30)
    assert process.exitcode == 0
    assert files_in(tmp_path / "data/highres") == content
    for of_file in spans.values():
        for cut, rest in itertools.pairwise(of_file):
            assert rest.first >= cut.end - CHUNK


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, data in members.items():
            archive.writestr(f"survey/{name}", data)
    return buffer.getvalue()


def tarred(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(f"survey/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.parametrize(("suffix", "packed"), [("zip", zipped), ("tar.gz", tarred)])
def test_an_archive_whose_unpacking_is_killed_is_unpacked_again(start, tmp_path, suffix, packed):
    chance = random.Random(2)  # noqa: S311
    members = {f"{number}.csv": chance.randbytes(2**13) * 128 for number in range(12)}
    name = f"survey.{suffix}"
    archive = packed(members)
    listing = listed(
        tmp_path,
        {
            "filename": name,
            "url": (tmp_path / name).as_uri(),
            "sha256": sha256(archive),
            "members": "*.csv",
        },
    )
    (tmp_path / name).write_bytes(archive)
    right = {f"highres/{name}": data for name, data in {**members, name: archive}.items()}

    begun = time.monotonic()
    process = start(listing, tmp_path / "calm")
    process.join(30)
    assert process.exitcode == 0
    duration = time.monotonic() - begun
    assert files_in(tmp_path / "calm") == right

    broken = 0
    for number in range(8):
        folder = tmp_path / str(number)
        process = start(listing, folder)
        process.join(chance.uniform(0.1, 0.9) * duration)
        process.kill()
        process.join(10)
        there = files_in(folder)
        assert all(there[path] == data for path, data in right.items() if path in there)
        broken += not right.items() <= there.items()
        process = start(listing, folder)
        process.join(30)
        assert process.exitcode == 0
        assert files_in(folder) == right
    assert broken
