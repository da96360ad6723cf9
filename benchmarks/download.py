"""How fast files come: many small ones beside pooch, a large one beside curl, from one server.

    python benchmarks/download.py --out benchmarks/download.json

Every way of working takes its turn in every round, each round in the opposite order of the one
before; the figures are medians. The server is a process of its own on the loopback address.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import http.server
import json
import logging
import multiprocessing
import os
import platform
import random
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pooch
import yaml

from deepbedmap import download, registry

MEGABYTE = 1_000_000
DELAY = 0.1
JOBS = 16


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder with os.sendfile, each answer after a delay."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, folder: Path, delay: float) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.folder = folder
        self.delay = delay


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        time.sleep(self.server.delay)
        with (self.server.folder / self.path.lstrip("/")).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            first = int(asked[1]) if asked else 0
            self.send_response(206 if asked else 200)
            if asked:
                self.send_header("Content-Range", f"bytes {first}-{size - 1}/{size}")
            self.send_header("Content-Length", str(size - first))
            self.send_header("ETag", '"1"')
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.connection.sendfile(file, first)

    def log_message(self, *_: object) -> None:
        pass


def serve(folder: Path, delay: float, told: Connection) -> None:
    server = Server(folder, delay)
    told.send(server.server_port)
    server.serve_forever()


@contextlib.contextmanager
def serving(folder: Path, delay: float = 0.0) -> Iterator[str]:
    context = multiprocessing.get_context("spawn")
    told, tell = context.Pipe()
    process = context.Process(target=serve, args=(folder, delay, tell), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{told.recv()}"
    finally:
        process.kill()
        process.join()


def make(folder: Path, count: int, size: int) -> dict[str, str]:
    """Write files of random bytes; return their checksums."""
    block = random.Random(0).randbytes(min(size, 16 * MEGABYTE))  # noqa: S311
    sums = {}
    for number in range(count):
        checksum = hashlib.sha256()
        with (folder / f"{number}.bin").open("wb") as file:
            for first in range(0, size, len(block)):
                start = number.to_bytes(4) + first.to_bytes(8)
                piece = (start + block)[: min(len(block), size - first)]
                file.write(piece)
                checksum.update(piece)
        sums[f"{number}.bin"] = checksum.hexdigest()
    return sums


def listed(folder: Path, url: str, sums: dict[str, str]) -> registry.Registry:
    files = [
        {"filename": name, "url": f"{url}/{name}", "sha256": checksum}
        for name, checksum in sums.items()
    ]
    path = folder / "data_list.yml"
    path.write_text(
        yaml.safe_dump(
            [{"citekey": "Survey", "title": "A survey", "folder": "highres", "files": files}]
        )
    )
    return registry.load(path)


def alternate(ways: dict[str, Callable[[Path], float | None]], folder: Path, rounds: int) -> Any:
    """Time each way of filling a folder, in turns; a way may give its own time."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in [*ways][:: -1 if number % 2 else 1]:
            with tempfile.TemporaryDirectory(dir=folder) as empty:
                os.sync()
                begun = time.perf_counter()
                own = ways[name](Path(empty))
                seconds[name].append(own or time.perf_counter() - begun)
            print(f"  round {number + 1}: {name:24} {seconds[name][-1]:7.2f} s", flush=True)
    return {
        name: {"median": round(statistics.median(all_), 3), "all": [round(s, 3) for s in all_]}
        for name, all_ in seconds.items()
    }


def small_files(folder: Path, rounds: int, count: int, megabytes: int) -> dict[str, Any]:
    sums = make(folder, count, megabytes * MEGABYTE)
    with serving(folder, DELAY) as url:
        listing = listed(folder, url, sums)

        def with_deepbedmap(to: Path) -> None:
            download.fetch(["Survey"], jobs=JOBS, progress=False, registry=listing, data_dir=to)

        def with_pooch(to: Path) -> None:
            for name, checksum in sums.items():
                pooch.retrieve(f"{url}/{name}", f"sha256:{checksum}", fname=name, path=to)

        ways = {"deepbedmap": with_deepbedmap, "pooch one by one": with_pooch}
        seconds = alternate(ways, folder, rounds)
    ratio = seconds["pooch one by one"]["median"] / seconds["deepbedmap"]["median"]
    return {
        "files": count,
        "megabytes": megabytes,
        "delay": DELAY,
        "jobs": JOBS,
        "seconds": seconds,
        "least_seconds_by_the_delay": round(DELAY * -(-count // JOBS), 2),
        "times_as_fast_as_pooch": round(ratio, 1),
    }


def fetch_alone(listing: registry.Registry, to: Path, told: Connection) -> None:
    """Fetch in a process of its own; tell the seconds, and the most bytes of memory it ever had."""
    begun = time.perf_counter()
    download.fetch(["Survey"], progress=False, registry=listing, data_dir=to)
    seconds = time.perf_counter() - begun
    # Of Linux; ru_maxrss is not less than what the process that started this one had.
    (most,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    told.send((seconds, int(most) * 1024))


def large_file(folder: Path, rounds: int, megabytes: int) -> dict[str, Any]:
    sums = make(folder, 1, megabytes * MEGABYTE)
    (name,) = sums
    memory = []
    with serving(folder) as url:
        listing = listed(folder, url, sums)

        def with_deepbedmap(to: Path) -> float:
            context = multiprocessing.get_context("spawn")
            told, tell = context.Pipe()
            process = context.Process(target=fetch_alone, args=(listing, to, tell))
            process.start()
            tell.close()
            seconds, most = told.recv()
            process.join()
            memory.append(most / MEGABYTE)
            return float(seconds)

        def with_curl(to: Path) -> None:
            curl("-o", str(to / name))

        def curl(*to: str) -> None:
            subprocess.run(["curl", "--silent", "--fail", *to, f"{url}/{name}"], check=True)

        def over_loopback(_: Path) -> None:
            curl("-o", os.devnull)

        def onto_disk(to: Path) -> None:
            block = os.urandom(MEGABYTE)
            with (to / name).open("wb", buffering=0) as file:
                for _ in range(megabytes):
                    file.write(block)

        def checksum(_: Path) -> None:
            block, sha256 = bytes(MEGABYTE), hashlib.sha256()
            for _ in range(megabytes):
                sha256.update(block)

        ways = {
            "deepbedmap": with_deepbedmap,
            "curl": with_curl,
            "curl to /dev/null": over_loopback,
            "writing to the disk": onto_disk,
            "sha256 of as much": checksum,
        }
        seconds = alternate(ways, folder, rounds)
    ratio = seconds["curl"]["median"] / seconds["deepbedmap"]["median"]
    return {
        "megabytes": megabytes,
        "load": round(os.getloadavg()[0], 1),
        "seconds": seconds,
        "megabytes_a_second": round(megabytes / seconds["deepbedmap"]["median"]),
        "speed_beside_curl": round(ratio, 2),
        "megabytes_of_memory": round(max(memory)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=200, help="small files, of 1 MB each")
    parser.add_argument("--large", type=int, default=2000, help="MB of the large file")
    parser.add_argument("--folder", type=Path, help="where the files go; the disk matters")
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    arguments = parser.parse_args()
    pooch.get_logger().setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
        (small := Path(scratch, "small")).mkdir()
        (large := Path(scratch, "large")).mkdir()
        print(f"{arguments.files} files of 1 MB")
        figures = {"small_files": small_files(small, arguments.rounds, arguments.files, 1)}
        shutil.rmtree(small)
        print(f"one file of {arguments.large} MB")
        figures["large_file"] = large_file(large, arguments.rounds, arguments.large)
    print(
        f"{figures['small_files']['times_as_fast_as_pooch']} times as fast as pooch (6 wanted); "
        f"{figures['large_file']['speed_beside_curl']} of curl's speed (0.8 wanted) "
        f"in {figures['large_file']['megabytes_of_memory']} MB of memory (100 allowed)"
    )
    if arguments.out:
        machine = {
            "python": platform.python_version(),
            "system": platform.system(),
            "cores": os.cpu_count(),
            "pooch": pooch.__version__,
        }
        document = {"machine": machine, **figures}
        arguments.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
