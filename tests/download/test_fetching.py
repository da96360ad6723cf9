from __future__ import annotations

import io
import itertools
import json
import logging
import multiprocessing
import os
import re
import resource
import shutil
import socket
import tarfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
import requests
import yaml
from rich.console import Console
from support.packing import PICKS, flipped, sha256, tarred, zipped
from support.servers import Server, fine, status

from deepbedmap import download, registry
from deepbedmap.download import attempts, disk_space, earthdata
from deepbedmap.download import progress as bars
from deepbedmap.errors import DownloadError, InvalidDataError, MissingDataError


def asked(server: Server) -> Counter[str]:
    """How often each path was asked for."""
    return Counter(request.path for request in server.requests)


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("a socket was opened")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(attempts, "BACKOFF", 0.01)


@pytest.fixture
def listed(tmp_path: Path) -> Callable[..., registry.Registry]:
    """A registry of one dataset, Survey, with the files given."""

    def listed(*files: dict[str, object], **fields: object) -> registry.Registry:
        entry = {"citekey": "Survey", "title": "A survey", "folder": "highres", **fields}
        entry["files"] = [{"url": None, "sha256": None, **file} for file in files]
        path = tmp_path / "data_list.yml"
        path.write_text(yaml.safe_dump([entry]))
        return registry.load(path)

    return listed


@pytest.fixture
def landed(tmp_path: Path) -> Callable[[], list[str]]:
    """What is under the data folder, hidden files too; but for receipts."""

    def landed() -> list[str]:
        folder = tmp_path / "data"
        return sorted(
            str(path.relative_to(folder))
            for path in folder.rglob("*")
            if path.is_file() and (path.parent.name, path.suffix) != (".fetched", ".json")
        )

    return landed


def test_files_land_in_the_folder_of_their_dataset_in_the_order_of_the_registry(
    server, listed, tmp_path, landed
):
    listing = listed(
        *(
            {"filename": name, "url": server.url(f"/{name}", fine(data)), "sha256": sha256(data)}
            for name, data in (("b.csv", PICKS), ("a.csv", b"x"), ("c.csv", b""))
        )
    )
    paths = download.fetch(["Survey"], jobs=2, registry=listing, data_dir=tmp_path / "data")
    assert paths == [tmp_path / "data/highres" / name for name in ("b.csv", "a.csv", "c.csv")]
    assert [path.read_bytes() for path in paths] == [PICKS, b"x", b""]
    assert landed() == ["highres/a.csv", "highres/b.csv", "highres/c.csv"]
    assert download.locate(listing["Survey"], tmp_path / "data") == paths


def test_a_second_fetch_does_not_ask_the_server(server, listed, tmp_path):
    archive = zipped({"inside.txt": PICKS})
    listing = listed(
        {"filename": "a.csv", "url": server.url("/a.csv", fine(PICKS)), "sha256": sha256(PICKS)},
        {
            "filename": "b.zip",
            "url": server.url("/b.zip", fine(archive)),
            "sha256": sha256(archive),
            "unpacked": "b.txt",
        },
    )
    first = download.fetch("Survey", registry=listing, data_dir=tmp_path)
    assert download.fetch("Survey", registry=listing, data_dir=tmp_path) == first
    assert asked(server) == {"/a.csv": 1, "/b.zip": 1}


def test_the_data_folder_of_the_environment_is_used_by_default(
    server, listed, tmp_path, monkeypatch
):
    monkeypatch.setenv("DEEPBEDMAP_DATA_DIR", str(tmp_path / "elsewhere"))
    listing = listed(
        {"filename": "a.csv", "url": server.url("/a", fine(PICKS)), "sha256": sha256(PICKS)}
    )
    assert download.fetch("Survey", registry=listing) == [tmp_path / "elsewhere/highres/a.csv"]


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_a_download_with_another_checksum_is_refused_and_leaves_nothing(
    scheme, server, listed, tmp_path, landed
):
    source = tmp_path / "a.csv"
    source.write_bytes(PICKS)
    url = source.as_uri() if scheme == "file" else server.url("/a.csv", fine(PICKS))
    listing = listed({"filename": "a.csv", "url": url, "sha256": sha256(b"other")})
    with pytest.raises(DownloadError) as error:
        download.fetch("Survey", registry=listing, data_dir=tmp_path / "data")
    for part in ("a.csv", sha256(b"other"), sha256(PICKS), url):
        assert part in str(error.value)
    assert "\n" not in str(error.value)
    assert landed() == []


def test_a_file_that_is_there_and_wrong_is_named_and_left_alone(server, listed, tmp_path):
    mine = tmp_path / "highres/a.csv"
    mine.parent.mkdir()
    mine.write_bytes(b"mine")
    listing = listed(
        {"filename": "a.csv", "url": server.url("/a", fine(PICKS)), "sha256": sha256(PICKS)}
    )
    with pytest.raises(DownloadError) as error:
        download.fetch("Survey", registry=listing, data_dir=tmp_path)
    for part in (str(mine), sha256(b"mine"), sha256(PICKS), "move it away"):
        assert part in str(error.value)
    assert mine.read_bytes() == b"mine"
    assert not server.requests


def test_without_a_checksum_the_file_is_taken_once_with_a_warning_that_gives_it(
    server, listed, tmp_path, caplog
):
    listing = listed({"filename": "a.csv", "url": server.url("/a", fine(PICKS, etag='"7"'))})
    with caplog.at_level(logging.WARNING):
        (path,) = download.fetch("Survey", registry=listing, data_dir=tmp_path)
    (warning,) = warnings_in(caplog)
    assert sha256(PICKS) in warning
    caplog.clear()
    receipt = json.loads((tmp_path / "highres/.fetched/a.csv.json").read_text())
    when = datetime.fromisoformat(receipt.pop("when"))
    assert abs(datetime.now(UTC) - when).total_seconds() < 60
    assert receipt == {
        "url": server.url("/a"),
        "sha256": sha256(PICKS),
        "bytes": len(PICKS),
        "etag": '"7"',
        "content_sha256": None,
        "members": None,
    }
    download.fetch("Survey", registry=listing, data_dir=tmp_path)
    assert not warnings_in(caplog)
    path.write_bytes(b"mine")
    with pytest.raises(DownloadError, match="as its receipt of 20") as error:
        download.fetch("Survey", registry=listing, data_dir=tmp_path)
    assert sha256(PICKS) in str(error.value)
    assert "fetch --again a.csv" in str(error.value)
    assert path.read_bytes() == b"mine"


def test_bytes_that_changed_at_the_server_are_named_and_taken_only_when_asked_to(
    server, listed, tmp_path, landed
):
    listing = listed({"filename": "a.csv", "url": server.url("/a", fine(b"old"))})
    (path,) = download.fetch("Survey", registry=listing, data_dir=tmp_path / "data")
    server.url("/a", fine(PICKS, etag='"2"'))
    assert download.fetch("Survey", registry=listing, data_dir=tmp_path / "data") == [path]
    assert path.read_bytes() == b"old"
    path.unlink()
    with pytest.raises(DownloadError) as error:
        download.fetch("Survey", registry=listing, data_dir=tmp_path / "data")
    for part in (sha256(b"old"), sha256(PICKS), "fetch --again a.csv", server.url("/a")):
        assert part in str(error.value)
    assert "\n" not in str(error.value)
    assert landed() == []
    download.fetch("Survey", registry=listing, data_dir=tmp_path / "data", again=True)
    assert path.read_bytes() == PICKS
    assert download.fetch("Survey", offline=True, registry=listing, data_dir=tmp_path / "data")


def test_again_replaces_what_differs_from_the_registry_and_leaves_what_does_not(
    server, listed, tmp_path
):
    archive = zipped({"x": PICKS})
    listing = listed(
        *(
            {"filename": name, "url": server.url(f"/{name}", fine(PICKS)), "sha256": sha256(PICKS)}
            for name in ("a.csv", "b.csv")
        ),
        {
            "filename": "c.zip",
            "url": server.url("/c.zip", fine(archive)),
            "sha256": sha256(archive),
            "unpacked": "c.csv",
        },
    )
    paths = download.fetch("Survey", registry=listing, data_dir=tmp_path)
    paths[0].write_bytes(b"mine")
    paths[2].write_bytes(b"mine")
    assert download.fetch("Survey", registry=listing, data_dir=tmp_path, again=True) == paths
    assert [path.read_bytes() for path in paths] == [PICKS] * 3
    assert asked(server) == {"/a.csv": 2, "/b.csv": 1, "/c.zip": 2}


def test_a_file_without_a_checksum_must_have_its_size(server, listed, tmp_path, landed):
    file = {"filename": "a.csv", "url": server.url("/a", fine(PICKS)), "bytes": len(PICKS) + 1}
    with pytest.raises(DownloadError, match=r"expected 13,0.. bytes, the server has 13,0.."):
        download.fetch("Survey", registry=listed(file), data_dir=tmp_path / "data")
    assert landed() == []


def test_a_page_that_is_not_found_is_said_in_one_line_and_leaves_nothing(
    server, listed, tmp_path, landed
):
    listing = listed({"filename": "a.csv", "url": server.url("/gone"), "sha256": sha256(PICKS)})
    with pytest.raises(DownloadError, match="404") as error:
        download.fetch("Survey", registry=listing, data_dir=tmp_path / "data")
    assert server.url("/gone") in str(error.value)
    assert "\n" not in str(error.value)
    assert landed() == []


def test_a_server_that_is_not_there_and_a_file_that_is_not_there_are_download_errors(
    listed, tmp_path, landed
):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    urls = [f"http://127.0.0.1:{port}/a", f"ftp://127.0.0.1:{port}/a", (tmp_path / "no").as_uri()]
    listing = listed(
        *({"filename": f"{number}.csv", "url": url} for number, url in enumerate(urls))
    )
    with pytest.raises(DownloadError) as error:
        download.fetch("Survey", registry=listing, data_dir=tmp_path / "data")
    lines = str(error.value).splitlines()
    assert len(lines) == 3
    assert all(url in line for url, line in zip(urls, lines, strict=True))
    assert landed() == []


def test_one_file_that_fails_does_not_keep_the_others_away(server, listed, tmp_path, landed):
    listing = listed(
        {"filename": "a.csv", "url": server.url("/gone"), "sha256": sha256(PICKS)},
        {"filename": "b.csv", "url": server.url("/b", fine(PICKS)), "sha256": sha256(PICKS)},
    )
    with pytest.raises(DownloadError):
        download.fetch("Survey", jobs=1, registry=listing, data_dir=tmp_path / "data")
    assert landed() == ["highres/b.csv"]


def test_mirrors_are_tried_in_order_until_one_has_the_right_file(server, listed, tmp_path):
    mirrors = [
        server.url("/other", fine(b"other")),
        server.url("/right", fine(PICKS)),
        server.url("/last"),
    ]
    listing = listed(
        {
            "filename": "a.csv",
            "url": server.url("/gone"),
            "sha256": sha256(PICKS),
            "mirrors": mirrors,
        }
    )
    (path,) = download.fetch("Survey", registry=listing, data_dir=tmp_path)
    assert path.read_bytes() == PICKS
    assert list(asked(server)) == ["/gone", "/other", "/right"]


def test_a_file_without_a_url_is_missing_and_the_message_says_whom_to_ask(listed, tmp_path):
    listing = listed(
        {"filename": "a.csv", "sha256": sha256(PICKS)},
        authors=["King, E. C.", "Smith, A. M."],
        doi={"literature": "10.5194/tc-5-907-2011"},
    )
    with pytest.raises(MissingDataError) as error:
        download.fetch("Survey", registry=listing, data_dir=tmp_path)
    for part in (
        str(tmp_path / "highres/a.csv"),
        "King, E. C.",
        "https://doi.org/10.5194/tc-5-907-2011",
        "Survey",
        "highres/",
    ):
        assert part in str(error.value)
    (tmp_path / "highres").mkdir()
    (tmp_path / "highres/a.csv").write_bytes(PICKS)
    assert download.fetch("Survey", registry=listing, data_dir=tmp_path)


def test_offline_opens_no_socket_and_says_which_files_are_missing(
    listed, tmp_path, landed, monkeypatch
):
    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    source = tmp_path / "c.csv"
    source.write_bytes(PICKS)
    listing = listed(
        {"filename": "a.csv", "url": "http://127.0.0.1:9/a", "sha256": sha256(PICKS)},
        {"filename": "b.csv", "url": "http://127.0.0.1:9/b", "sha256": sha256(PICKS)},
        {"filename": "c.csv", "url": source.as_uri(), "sha256": sha256(PICKS)},
    )
    here = tmp_path / "data/highres/b.csv"
    here.parent.mkdir(parents=True)
    here.write_bytes(PICKS)
    with pytest.raises(MissingDataError) as error:
        download.fetch("Survey", offline=True, registry=listing, data_dir=tmp_path / "data")
    lines = str(error.value).splitlines()
    assert len(lines) == 2
    assert "a.csv" in lines[0]
    assert "c.csv" in lines[1]
    assert all("deepbedmap fetch Survey" in line for line in lines)
    assert landed() == ["highres/b.csv"]
    for name in ("a.csv", "c.csv"):
        here.with_name(name).write_bytes(PICKS)
    paths = download.fetch("Survey", offline=True, registry=listing, data_dir=tmp_path / "data")
    assert [path.name for path in paths] == ["a.csv", "b.csv", "c.csv"]


def test_locating_files_that_are_absent_says_what_gets_them(listed, tmp_path):
    listing = listed({"filename": "a.zip", "url": "http://127.0.0.1:9/a.zip", "unpacked": "a.txt"})
    with pytest.raises(MissingDataError, match=r"a\.txt: not there; `deepbedmap fetch Survey`"):
        download.locate(listing["Survey"], tmp_path)


def test_the_single_member_of_an_archive_lands_under_the_name_the_registry_gives(
    server, listed, tmp_path, landed
):
    archives = {
        "a.zip": zipped({"__MACOSX/._x": b"", "folder/": b"", "folder/unknown name.asc": PICKS}),
        "b.tar.gz": tarred(tarfile.TarInfo("unknown.asc")),
    }
    listing = listed(
        *(
            {
                "filename": name,
                "url": server.url(f"/{name}?entry=1", fine(data)),
                "sha256": sha256(data),
                "unpacked": f"{name}.txt",
            }
            for name, data in archives.items()
        )
    )
    paths = download.fetch("Survey", registry=listing, data_dir=tmp_path / "data")
    assert [path.name for path in paths] == ["a.zip.txt", "b.tar.gz.txt"]
    assert [path.read_bytes() for path in paths] == [PICKS, PICKS]
    assert landed() == [f"highres/{name}" for name in sorted([*archives, *(p.name for p in paths)])]


def test_files_inside_one_archive_are_found_by_name_and_the_archive_is_fetched_once(
    server, listed, tmp_path, landed
):
    url = server.url(
        "/all.zip", fine(zipped({"data/a.txt": PICKS, "data/b.txt": b"x", "read.me": b""}))
    )
    listing = listed(
        {"filename": "a.txt", "url": url, "sha256": sha256(PICKS)},
        {"filename": "b.txt", "mirrors": [url], "sha256": sha256(b"x")},
    )
    paths = download.fetch("Survey", registry=listing, data_dir=tmp_path / "data")
    assert [path.read_bytes() for path in paths] == [PICKS, b"x"]
    assert landed() == ["highres/a.txt", "highres/b.txt"]
    assert asked(server) == {"/all.zip": 1}


def test_an_archive_that_is_there_is_unpacked_without_fetching_it_again(listed, tmp_path):
    data = zipped({"x": PICKS})
    listing = listed(
        {"filename": "a.zip", "url": None, "sha256": sha256(data), "unpacked": "a.txt"}
    )
    (tmp_path / "highres").mkdir()
    (tmp_path / "highres/a.zip").write_bytes(data)
    (path,) = download.fetch("Survey", offline=True, registry=listing, data_dir=tmp_path)
    assert path.read_bytes() == PICKS


@pytest.fixture
def packed(server, listed):
    """A registry of one file that comes out of an archive."""
    data = zipped({"x": PICKS})
    url = server.url("/a.zip", fine(data))
    return listed({"filename": "a.zip", "url": url, "sha256": sha256(data), "unpacked": "a.txt"})


def test_a_file_whose_archive_is_gone_is_in_place_as_long_as_it_fits_its_receipt(
    server, packed, tmp_path
):
    first = download.fetch("Survey", registry=packed, data_dir=tmp_path)
    (tmp_path / "highres/a.zip").unlink()
    for offline in (True, False):
        found = download.fetch("Survey", offline=offline, registry=packed, data_dir=tmp_path)
        assert found == first
    assert asked(server) == {"/a.zip": 1}
    first[0].unlink()
    assert download.fetch("Survey", registry=packed, data_dir=tmp_path) == first
    assert asked(server) == {"/a.zip": 2}


def test_offline_takes_an_unpacked_file_that_nothing_tells_the_bytes_of_with_a_warning(
    packed, tmp_path, caplog
):
    (tmp_path / "highres").mkdir()
    (tmp_path / "highres/a.txt").write_bytes(PICKS)
    with caplog.at_level(logging.WARNING):
        (path,) = download.fetch("Survey", offline=True, registry=packed, data_dir=tmp_path)
    assert "a.zip was deleted" in caplog.text
    assert download.fetch("Survey", registry=packed, data_dir=tmp_path) == [path]  # compares it
    path.write_bytes(b"mine")
    (tmp_path / "highres/a.zip").unlink()
    (tmp_path / "highres/.fetched/a.zip.json").unlink()
    with pytest.raises(DownloadError, match=r"a\.txt: expected the contents of a\.zip"):
        download.fetch("Survey", registry=packed, data_dir=tmp_path)
    assert path.read_bytes() == b"mine"


@pytest.mark.parametrize("archive_is_there", [True, False])
def test_an_unpacked_file_that_was_changed_is_named_and_left_alone(
    archive_is_there, packed, tmp_path
):
    (path,) = download.fetch("Survey", registry=packed, data_dir=tmp_path)
    path.write_bytes(PICKS + b"1,2,3\n")
    if not archive_is_there:
        (tmp_path / "highres/a.zip").unlink()
    with pytest.raises(DownloadError, match=r"a\.txt: expected sha256 \w+ as a\.zip holds it"):
        download.fetch("Survey", registry=packed, data_dir=tmp_path)
    assert path.read_bytes() == PICKS + b"1,2,3\n"


def test_archives_are_dropped_when_asked_to_and_not_fetched_again(server, packed, tmp_path, landed):
    for keep in (False, True):
        download.fetch("Survey", registry=packed, data_dir=tmp_path / "data", keep_archives=keep)
        assert landed() == ["highres/a.txt"]
    assert asked(server) == {"/a.zip": 1}


@pytest.mark.parametrize("right", [True, False])
def test_a_member_has_its_own_checksum(right, server, listed, tmp_path, landed, caplog):
    data = zipped({"x": PICKS})
    file = {"filename": "a.zip", "url": server.url("/a.zip", fine(data)), "unpacked": "a.txt"}
    expected = sha256(PICKS if right else b"other")
    listing = listed({**file, "unpacked_sha256": expected})
    if right:
        (path,) = download.fetch("Survey", registry=listing, data_dir=tmp_path / "data")
        assert not warnings_in(caplog)
        path.write_bytes(b"mine")
    with pytest.raises(DownloadError, match=rf"expected .*sha256 {expected}.*, found sha256 "):
        download.fetch("Survey", registry=listing, data_dir=tmp_path / "data")
    assert landed() == (["highres/a.txt", "highres/a.zip"] if right else [])


def test_an_archive_that_is_packed_anew_for_everyone_is_known_by_its_content(
    server, listed, tmp_path, landed, caplog
):
    old, new, other = (
        zipped({"x": PICKS, "y": b"1"}),
        zipped({"y": b"1", "x": PICKS}, zipfile.ZIP_STORED),
        zipped({"x": PICKS, "y": b"2"}),
    )
    lines = f"{sha256(PICKS)}  x\n", f"{sha256(b'1')}  y\n"
    content = sha256("".join(sorted(lines)).encode())
    for data, known in itertools.product((old, new, other), (None, sha256(old))):
        shutil.rmtree(tmp_path / "data", ignore_errors=True)
        file = {"filename": "a.zip", "url": server.url("/a.zip", fine(data)), "members": "x"}
        listing = listed({**file, "sha256": known, "content_sha256": content})
        for _ in range(2):
            if data == other:
                with pytest.raises(DownloadError, match=f"expected content {content}, found cont"):
                    download.fetch("Survey", registry=listing, data_dir=tmp_path / "data")
                assert landed() == []
            else:
                (path,) = download.fetch("Survey", registry=listing, data_dir=tmp_path / "data")
                assert path.read_bytes() == PICKS
    assert not warnings_in(caplog)


def test_without_any_checksum_the_content_of_an_archive_must_stay_what_it_was(
    server, listed, tmp_path, caplog
):
    listing = listed(
        {"filename": "a.zip", "url": server.url("/a.zip", fine(zipped(MEMBERS))), "members": "*"}
    )
    paths = download.fetch("Survey", registry=listing, data_dir=tmp_path)
    assert "accepted unchecked" in caplog.text
    caplog.clear()
    for path in (*paths, archive := tmp_path / "highres/a.zip"):
        path.unlink()
    server.url("/a.zip", fine(zipped(MEMBERS, zipfile.ZIP_STORED)))
    assert download.fetch("Survey", registry=listing, data_dir=tmp_path) == paths
    assert not warnings_in(caplog)
    archive.unlink()
    paths[0].unlink()
    server.url("/a.zip", fine(zipped({**MEMBERS, "survey/a.csv": b"1"})))
    with pytest.raises(DownloadError, match=r"expected content .* fetch --again a\.zip` accepts"):
        download.fetch("Survey", registry=listing, data_dir=tmp_path)
    assert not paths[0].exists()
    download.fetch("Survey", registry=listing, data_dir=tmp_path, again=True)
    assert paths[0].read_bytes() == b"1"


def test_an_archive_without_a_checksum_that_is_broken_is_fetched_from_the_next_mirror(
    server, listed, tmp_path, landed
):
    data = zipped({"x": PICKS})
    url, mirror = server.url("/a", fine(flipped(data))), server.url("/b", fine(data))
    file = {"filename": "a.zip", "url": url, "mirrors": [mirror], "unpacked": "a.txt"}
    (path,) = download.fetch("Survey", registry=listed(file), data_dir=tmp_path / "data")
    assert path.read_bytes() == PICKS
    assert landed() == ["highres/a.txt", "highres/a.zip"]


def test_a_single_file_is_fetched_by_its_name(server, listed, tmp_path, landed):
    archive = zipped({"inside.txt": PICKS})
    listing = listed(
        *(
            {"filename": name, "url": server.url(f"/{name}", fine(PICKS)), "sha256": sha256(PICKS)}
            for name in ("a.csv", "b.csv")
        ),
        {"filename": "c.zip", "url": server.url("/c.zip", fine(archive)), "unpacked": "c.txt"},
    )
    data = tmp_path / "data"
    paths = download.fetch(["b.csv", "highres/b.csv"], registry=listing, data_dir=data)
    assert paths == [data / "highres/b.csv"]
    assert asked(server) == {"/b.csv": 1}
    (by_its_contents,) = download.fetch("c.txt", registry=listing, data_dir=data)
    assert by_its_contents.read_bytes() == PICKS
    assert download.fetch(["c.zip", "Survey"], registry=listing, data_dir=data) == [
        data / "highres" / name for name in ("c.txt", "a.csv", "b.csv")
    ]
    assert asked(server) == {"/a.csv": 1, "/b.csv": 1, "/c.zip": 1}


def test_a_file_name_of_two_folders_needs_its_folder(server, tmp_path):
    entry = {"title": "A survey", "files": [{"filename": "bed.tif", "sha256": None}]}
    entry["files"][0]["url"] = server.url("/bed.tif", fine(PICKS))
    datasets = [{**entry, "citekey": f"In{f}", "folder": f} for f in ("lowres", "misc")]
    path = tmp_path / "data_list.yml"
    path.write_text(yaml.safe_dump(datasets))
    listing = registry.load(path)
    with pytest.raises(InvalidDataError, match=r"expected lowres/bed\.tif or misc/bed\.tif, found"):
        download.fetch("bed.tif", registry=listing, data_dir=tmp_path)
    (found,) = download.fetch("misc/bed.tif", registry=listing, data_dir=tmp_path)
    assert found == tmp_path / "misc/bed.tif"


MEMBERS = {"survey/a.csv": PICKS, "survey/deep/b.csv": b"x", "read.me": b"", "__MACOSX/a.csv": b""}


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_every_member_of_an_archive_that_fits_a_pattern_lands_in_the_folder(
    kind, server, listed, tmp_path, landed
):
    data = zipped(MEMBERS)
    if kind == "tar.gz":
        data = tarred(tarfile.TarInfo("survey/a.csv"), tarfile.TarInfo("b.csv"))
    name = f"all.{kind}"
    listing = listed({"filename": name, "url": server.url("/all", fine(data)), "members": "*.csv"})
    folder = tmp_path / "data/highres"
    with pytest.raises(
        MissingDataError, match=rf"all\.{kind}: not there; `deepbedmap fetch Survey`"
    ):
        download.locate(listing["Survey"], tmp_path / "data")
    expected = [folder / "a.csv", folder / "b.csv"]
    for _ in range(2):
        assert download.fetch("Survey", registry=listing, data_dir=tmp_path / "data") == expected
    assert expected[0].read_bytes() == PICKS
    assert landed() == sorted(f"highres/{n}" for n in (name, "a.csv", "b.csv"))
    assert download.locate(listing["Survey"], tmp_path / "data") == expected
    assert asked(server) == {"/all": 1}
    expected[1].unlink()  # one that went missing is unpacked again, from the archive that is here
    with pytest.raises(MissingDataError, match=r"b\.csv: not there"):
        download.locate(listing["Survey"], tmp_path / "data")
    download.fetch("Survey", offline=True, registry=listing, data_dir=tmp_path / "data")
    assert expected[1].is_file()
    expected[0].write_bytes(b"mine")
    with pytest.raises(DownloadError) as error:
        download.fetch("Survey", registry=listing, data_dir=tmp_path / "data")
    assert str(error.value).startswith(f"{expected[0]}: expected sha256 {sha256(PICKS)}")
    assert expected[0].read_bytes() == b"mine"


def test_a_member_does_not_take_the_place_of_another_file(server, listed, tmp_path, landed):
    mine = tmp_path / "data/highres/b.csv"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    url = server.url("/a.zip", fine(zipped(MEMBERS)))
    listing = listed({"filename": "a.zip", "url": url, "members": "*.csv"})
    with pytest.raises(DownloadError, match=r"b\.csv: expected the contents of a\.zip"):
        download.fetch("Survey", registry=listing, data_dir=tmp_path / "data")
    assert mine.read_bytes() == b"mine"
    # The archive is right, and need not come again.
    assert landed() == ["highres/a.zip.part", "highres/a.zip.part.json", "highres/b.csv"]
    mine.unlink()
    assert mine in download.fetch("Survey", registry=listing, data_dir=tmp_path / "data")
    assert server.sent["/a.zip"] == len(zipped(MEMBERS))
    assert landed() == ["highres/a.csv", "highres/a.zip", "highres/b.csv"]


def test_a_file_that_a_person_must_get_says_what_to_do_and_is_not_asked_for(
    server, listed, tmp_path
):
    file = {"filename": "a.csv", "url": server.url("/a.csv", fine(PICKS)), "access": "manual"}
    listing = listed(file, instructions="Order it at https://a.org.")
    with pytest.raises(MissingDataError, match=r"Order it at https://a\.org; put a\.csv into high"):
        download.fetch("Survey", registry=listing, data_dir=tmp_path)
    assert not server.requests


@pytest.mark.parametrize("access", ["open", "earthdata"])
def test_a_login_page_is_told_from_the_file_and_names_the_login(access, server, listed, tmp_path):
    page = b"\n<!DOCTYPE html><html><title>Earthdata Login</title></html>"
    for known in (None, sha256(PICKS)):
        url = server.url("/a.tif", fine(page))
        listing = listed({"filename": "a.tif", "url": url, "sha256": known, "access": access})
        with pytest.raises(
            DownloadError, match=r"/a\.tif: expected data, found a web page"
        ) as error:
            download.fetch("Survey", registry=listing, data_dir=tmp_path)
        assert ("https://urs.earthdata.nasa.gov" in str(error.value)) == (access == "earthdata")
        assert not (tmp_path / "highres/a.tif").exists()


def test_a_dataset_whose_files_nobody_listed_says_where_they_are(listed, tmp_path):
    listing = listed(doi={"dataset": "10.1234/survey"})
    with pytest.raises(MissingDataError) as error:
        download.fetch("Survey", registry=listing, data_dir=tmp_path)
    expected = "Survey: see https://doi.org/10.1234/survey for the files of Survey"
    assert str(error.value).startswith(expected)


def test_an_unknown_citekey_is_named_with_its_nearest(listed, tmp_path):
    listing = listed({"filename": "a.csv"})
    with pytest.raises(InvalidDataError, match="did you mean Survey"):
        download.fetch(["Survye"], registry=listing, data_dir=tmp_path)
    with pytest.raises(InvalidDataError, match=r"did you mean a\.csv"):
        download.fetch("b.csv", registry=listing, data_dir=tmp_path)
    with pytest.raises(InvalidDataError, match="deepbedmap list"):
        download.fetch("", registry=listing, data_dir=tmp_path)


def test_fewer_than_one_job_is_a_wrong_call(listed, tmp_path):
    with pytest.raises(ValueError, match="jobs"):
        download.fetch("Survey", jobs=0, registry=listed({"filename": "a.csv"}), data_dir=tmp_path)


def test_no_progress_bar_is_drawn_where_there_is_no_terminal(server, listed, tmp_path, capfd):
    listing = listed(
        {"filename": "a.csv", "url": server.url("/a", fine(PICKS)), "sha256": sha256(PICKS)}
    )
    download.fetch("Survey", progress=True, registry=listing, data_dir=tmp_path)
    assert capfd.readouterr() == ("", "")


def test_a_fetch_that_was_cut_off_goes_on_with_its_part(server, listed, tmp_path, landed):
    url = server.url("/a", fine(PICKS, cut=5000), status(404))
    listing = listed({"filename": "a.csv", "url": url, "sha256": sha256(PICKS)})
    with pytest.raises(DownloadError, match="404"):
        download.fetch("Survey", registry=listing, data_dir=tmp_path / "data")
    assert landed() == ["highres/a.csv.part", "highres/a.csv.part.json"]
    server.url("/a", fine(PICKS))
    (path,) = download.fetch("Survey", registry=listing, data_dir=tmp_path / "data")
    assert path.read_bytes() == PICKS
    assert server.asked("/a")[-1].headers["range"] == "bytes=5000-"
    assert landed() == ["highres/a.csv"]


@pytest.mark.parametrize("known", [True, False])
def test_a_part_that_turns_out_wrong_is_dropped_and_the_file_fetched_once_more(
    known, server, listed, tmp_path, landed
):
    data = PICKS if known else zipped({"x": PICKS})
    url = server.url("/a", fine(flipped(data), cut=len(data) - 10), fine(data))
    file = {"filename": "a.csv", "url": url, "sha256": sha256(data)}
    if not known:
        file = {"filename": "a.zip", "url": url, "unpacked": "a.csv"}
    (path,) = download.fetch("Survey", registry=listed(file), data_dir=tmp_path / "data")
    assert path.read_bytes() == PICKS
    assert [request.headers.get("range") for request in server.asked("/a")] == [
        None,
        f"bytes={len(data) - 10}-",
        None,
    ]


def test_a_wrong_file_is_not_asked_for_again_and_again(server, listed, tmp_path):
    url = server.url("/a", fine(flipped(PICKS), cut=5000), fine(flipped(PICKS)))
    listing = listed({"filename": "a.csv", "url": url, "sha256": sha256(PICKS)})
    with pytest.raises(DownloadError, match="expected sha256"):
        download.fetch("Survey", registry=listing, data_dir=tmp_path)
    assert len(server.asked("/a")) == 3


def test_a_mirror_goes_on_where_the_first_server_stopped(server, listed, tmp_path):
    url, mirror = server.url("/a", fine(PICKS, cut=5000), status(404)), server.url("/b")
    server.url("/b", fine(PICKS))
    file = {"filename": "a.csv", "url": url, "mirrors": [mirror], "sha256": sha256(PICKS)}
    (path,) = download.fetch("Survey", registry=listed(file), data_dir=tmp_path)
    assert path.read_bytes() == PICKS
    assert server.asked("/b")[0].headers["range"] == "bytes=5000-"
    receipt = json.loads((tmp_path / "highres/.fetched/a.csv.json").read_text())
    assert receipt["url"] == mirror


def test_an_archive_that_is_opened_on_the_way_goes_on_with_its_part(
    server, listed, tmp_path, landed
):
    data = zipped({"a.txt": PICKS, "b.txt": b"x"})
    url = server.url("/all.zip", fine(data, cut=50), status(500), status(404))
    names = {"a.txt": PICKS, "b.txt": b"x"}
    listing = listed(
        *({"filename": name, "url": url, "sha256": sha256(names[name])} for name in names)
    )
    with pytest.raises(DownloadError) as error:
        download.fetch("Survey", registry=listing, data_dir=tmp_path / "data")
    assert len(str(error.value).splitlines()) == 2
    server.url("/all.zip", fine(data))
    paths = download.fetch("Survey", registry=listing, data_dir=tmp_path / "data")
    assert [path.read_bytes() for path in paths] == [*names.values()]
    assert server.asked("/all.zip")[-1].headers["range"] == "bytes=50-"
    assert landed() == ["highres/a.txt", "highres/b.txt"]


def test_of_an_archive_opened_on_the_way_only_the_right_members_land(
    server, listed, tmp_path, landed
):
    url = server.url("/all.zip", fine(zipped({"a.txt": PICKS, "b.txt": b"x"})))
    mirror = server.url("/more.zip", fine(zipped({"b.txt": b"y"})))
    right = {"a.txt": sha256(PICKS), "b.txt": sha256(b"y")}
    files = [{"filename": name, "url": url, "sha256": right[name]} for name in right]
    with pytest.raises(DownloadError, match=r"b\.txt: .*all\.zip: expected sha256 \w+, found"):
        download.fetch("Survey", registry=listed(*files), data_dir=tmp_path / "data")
    assert landed() == ["highres/a.txt"]
    listing = listed(*({**file, "mirrors": [mirror]} for file in files))
    download.fetch("Survey", registry=listing, data_dir=tmp_path / "data")
    assert landed() == ["highres/a.txt", "highres/b.txt"]
    assert server.requests[-1].path == "/more.zip"


@pytest.fixture
def library(tmp_path, server):
    """A registry of several datasets in two folders."""
    box = [0, 0, 1000, 1000]
    other = [5000, 5000, 6000, 6000]
    entries = [
        {"citekey": "Near", "folder": "highres", "bounds": box, "files": ["near.csv"]},
        {"citekey": "Far", "folder": "highres", "bounds": other, "files": ["far.csv"]},
        {"citekey": "Placeless", "folder": "highres", "files": ["placeless.csv"]},
        {"citekey": "Grid", "folder": "lowres", "bounds": box, "files": ["grid.tif"]},
        {"citekey": "Asked", "folder": "highres", "bounds": box, "files": ["asked.csv"]},
        {"citekey": "Form", "folder": "highres", "bounds": box, "files": ["form.csv"]},
        {"citekey": "Nameless", "folder": "highres", "bounds": box, "files": []},
        {"citekey": "Wrong", "folder": "highres", "bounds": box, "files": ["wrong.csv"]},
    ]
    for entry in entries:
        entry["title"] = "A survey"
        entry["files"] = [
            {"filename": name, "url": server.url(f"/{name}", fine(PICKS)), "sha256": sha256(PICKS)}
            for name in entry["files"]
        ]
    asked, form, nameless, wrong = entries[4:]
    asked["files"][0]["url"] = None
    form |= {"instructions": "Fill in the form at https://a.org."}
    form["files"][0]["access"] = "manual"
    nameless |= {"doi": {"dataset": "10.1234/nameless"}}
    wrong |= {"status": "withdrawn"}
    path = tmp_path / "data_list.yml"
    path.write_text(yaml.safe_dump(entries))
    return registry.load(path)


LEFT_OUT = [
    r"Asked: left out; ask the authors of 'A survey' for .*, and put asked\.csv into highres/",
    r"Form: left out; Fill in the form at https://a\.org; put form\.csv into highres/",
    r"Nameless: left out; see https://doi\.org/10\.1234/nameless for the files of Nameless.*",
    r"Wrong: left out, since it is withdrawn",
]


@pytest.mark.parametrize("name", ["highres", "highres/"])
def test_a_folder_stands_for_all_of_its_datasets_that_can_be_fetched(
    name, library, tmp_path, caplog
):
    paths = download.fetch(name, registry=library, data_dir=tmp_path)
    assert [path.name for path in paths] == ["near.csv", "far.csv", "placeless.csv"]
    assert all(map(re.fullmatch, LEFT_OUT, sorted(warnings_in(caplog))))
    caplog.clear()
    (tmp_path / "highres/form.csv").write_bytes(PICKS)
    paths = download.fetch(name, registry=library, data_dir=tmp_path, offline=True)
    assert [path.name for path in paths] == ["near.csv", "far.csv", "placeless.csv", "form.csv"]
    assert len(warnings_in(caplog)) == 3


@pytest.mark.parametrize(
    ("names", "expected", "warnings"),
    [
        ((), ["near.csv", "grid.tif"], 5),
        ("lowres", ["grid.tif"], 0),
        (["Far", "Near"], ["near.csv"], 0),
        ("Placeless", [], 1),
    ],
)
def test_a_box_stands_for_the_datasets_that_touch_it(
    names, expected, warnings, library, tmp_path, caplog
):
    box = (900, 900, 2000, 2000)
    paths = download.fetch(names, registry=library, data_dir=tmp_path, bounds=box)
    assert [path.name for path in paths] == expected
    assert len(warnings_in(caplog)) == warnings
    if warnings:
        assert any(
            "Placeless: left out, since their bounds are unknown" in line
            for line in warnings_in(caplog)
        )


def test_what_is_named_itself_must_come_also_if_a_folder_is_named_too(library, tmp_path):
    with pytest.raises(MissingDataError, match=r"form\.csv: not there; Fill in the form"):
        download.fetch(["highres", "Form"], registry=library, data_dir=tmp_path)
    assert (tmp_path / "highres/near.csv").is_file()
    with pytest.raises(InvalidDataError, match="withdrawn"):
        download.fetch(["highres", "Wrong"], registry=library, data_dir=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "name what to fetch"),
        ({"citekeys": "Near", "per_host": 0}, "per_host"),
        ({"citekeys": "Near", "timeout": 0}, "timeout"),
        ({"citekeys": "Near", "timeout": float("nan")}, "timeout"),
        ({"citekeys": "Near", "again": True, "offline": True}, "again"),
        ({"bounds": (1, 0, 0, 1)}, "bounds"),
    ],
)
def test_a_wrong_call_is_said(arguments, said, library, tmp_path):
    with pytest.raises(ValueError, match=said):
        download.fetch(**arguments, registry=library, data_dir=tmp_path)


def test_a_manual_file_that_was_put_in_place_is_verified_and_gets_a_receipt(
    listed, tmp_path, caplog
):
    file = {"filename": "a.csv", "url": None, "access": "manual"}
    listing = listed(file, instructions="Order it.")
    path = tmp_path / "highres/a.csv"
    path.parent.mkdir()
    path.write_bytes(PICKS)
    assert download.fetch("Survey", registry=listing, data_dir=tmp_path) == [path]
    assert sha256(PICKS) in caplog.text
    assert json.loads((path.parent / ".fetched/a.csv.json").read_text())["url"] is None
    path.write_bytes(b"newer")
    with pytest.raises(DownloadError, match=r"`deepbedmap fetch --again a\.csv` accepts it"):
        download.fetch("Survey", registry=listing, data_dir=tmp_path)
    assert download.fetch("Survey", registry=listing, data_dir=tmp_path, again=True) == [path]
    assert download.fetch("Survey", registry=listing, data_dir=tmp_path) == [path]
    listing = listed({**file, "sha256": sha256(PICKS)}, instructions="Order it.")
    for again in (True, False):
        with pytest.raises(DownloadError, match=f"expected sha256 {sha256(PICKS)}, found"):
            download.fetch("Survey", registry=listing, data_dir=tmp_path, again=again)


def test_a_manual_archive_that_was_put_in_place_is_unpacked(listed, tmp_path):
    file = {"filename": "a.zip", "url": None, "access": "manual", "unpacked": "a.csv"}
    listing = listed(file, instructions="Order it.")
    archive = tmp_path / "highres/a.zip"
    archive.parent.mkdir()
    archive.write_bytes(zipped({"x": PICKS}))
    (path,) = download.fetch("Survey", registry=listing, data_dir=tmp_path, keep_archives=False)
    assert path.read_bytes() == PICKS
    assert archive.is_file()  # nobody could get it again
    archive.write_bytes(zipped({"x": b"newer"}))
    with pytest.raises(DownloadError, match=r"fetch --again a\.zip` accepts it"):
        download.fetch("Survey", registry=listing, data_dir=tmp_path)
    download.fetch("Survey", registry=listing, data_dir=tmp_path, again=True)
    assert path.read_bytes() == b"newer"
    listing = listed({**file, "sha256": sha256(b"other")}, instructions="Order it.")
    for again in (False, True):
        with pytest.raises(DownloadError, match=rf"a\.zip: expected sha256 {sha256(b'other')}"):
            download.fetch("Survey", registry=listing, data_dir=tmp_path, again=again)


@pytest.mark.parametrize("login", ["given", "missing", "refused"])
def test_files_of_earthdata_are_asked_for_with_one_login(
    login, server, listed, tmp_path, monkeypatch
):
    logins = []

    def session() -> requests.Session:
        logins.append(1)
        if login != "given":
            kind = MissingDataError if login == "missing" else DownloadError
            raise kind("register at https://urs.earthdata.nasa.gov")
        logged_in = requests.Session()
        logged_in.headers["Authorization"] = "Bearer x"
        return logged_in

    monkeypatch.setattr(earthdata, "session", session)
    monkeypatch.setattr(earthdata, "takes_login", lambda url: url.startswith(server.url("/nasa")))
    files = [
        {"filename": f"{name}.nc", "url": server.url(f"/{where}/{name}", fine(PICKS))}
        | {"sha256": sha256(PICKS), "access": "earthdata"}
        for where, name in (("nasa", "a"), ("nasa", "b"), ("mirror", "c"))
    ]
    listing = listed(*files)
    if login == "given":
        assert len(download.fetch("Survey", registry=listing, data_dir=tmp_path)) == 3
        tokens = {r.path: r.headers.get("authorization") for r in server.requests}
        assert tokens == {"/nasa/a": "Bearer x", "/nasa/b": "Bearer x", "/mirror/c": None}
    else:
        with pytest.raises(MissingDataError if login == "missing" else DownloadError) as error:
            download.fetch("Survey", registry=listing, data_dir=tmp_path)
        assert str(error.value) == "Survey: register at https://urs.earthdata.nasa.gov"
        assert asked(server) == {"/mirror/c": 1}
    assert len(logins) == 1
    (tmp_path / "highres/c.nc").unlink()
    logins.clear()
    download.fetch("c.nc", registry=listing, data_dir=tmp_path)
    assert not logins


def test_the_plan_says_what_a_fetch_would_do_and_opens_no_socket(
    server, listed, tmp_path, monkeypatch, landed
):
    archive = zipped({"x": PICKS})
    url = server.url("/b", fine(PICKS, cut=5000), status(404))
    listing = listed(
        {"filename": "a.csv", "url": server.url("/a", fine(PICKS)), "bytes": len(PICKS)},
        {"filename": "b.csv", "url": url, "sha256": sha256(PICKS)},
        {"filename": "c.csv", "url": server.url("/c")},
        {"filename": "d.csv", "url": None, "access": "manual"},
        {
            "filename": "e.nc",
            "url": "https://data.nsidc.earthdatacloud.nasa.gov/e.nc",
            "access": "earthdata",
        },
        {"filename": "f.zip", "url": None, "sha256": sha256(archive), "unpacked": "f.csv"},
        instructions="Order it.",
    )
    data = tmp_path / "data"
    download.fetch("a.csv", registry=listing, data_dir=data)
    with pytest.raises(DownloadError):
        download.fetch("b.csv", registry=listing, data_dir=data)
    (data / "highres/f.zip").write_bytes(archive)
    monkeypatch.setattr(socket, "socket", refuse)
    before = landed()
    planned = download.plan("Survey", registry=listing, data_dir=data)
    assert [(one.path.name, one.state, one.bytes, one.there) for one in planned] == [
        ("a.csv", "in place", len(PICKS), 0),
        ("b.csv", "go on", len(PICKS), 5000),
        ("c.csv", "fetch", None, 0),
        ("d.csv", "manual", None, 0),
        ("e.nc", "login", None, 0),
        ("f.zip", "unpack", None, 0),
    ]
    assert planned[3].url is None
    assert planned[3].remedy == "Order it; put d.csv into highres/"
    assert planned[1].url == url
    assert landed() == before


def test_the_size_of_all_is_said_first_and_a_disk_that_is_too_small_ends_it(
    server, listed, tmp_path, caplog, monkeypatch
):
    caplog.set_level(logging.INFO)
    listing = listed(
        {"filename": "a.csv", "url": server.url("/a", fine(PICKS)), "bytes": len(PICKS)},
        {"filename": "b.csv", "url": server.url("/b", fine(b"x"))},
    )
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(2**40, 0, 2**27))
    monkeypatch.setattr(disk_space, "SPARE", 2**27 - len(PICKS) + 1)
    with pytest.raises(DownloadError, match=r"13,0.. bytes to download, but the disk has") as error:
        download.fetch("Survey", registry=listing, data_dir=tmp_path / "data")
    assert "\n" not in str(error.value)
    assert not server.requests
    monkeypatch.setattr(disk_space, "SPARE", 2**27 - len(PICKS))
    download.fetch("Survey", registry=listing, data_dir=tmp_path / "data")
    said = f"2 files, 13.0 kB and 1 of unknown size to fetch; 134.2 MB free in {tmp_path}/data"
    assert said in caplog.messages


def test_an_archive_that_the_disk_cannot_hold_unpacked_is_kept_until_it_can(
    server, listed, tmp_path, monkeypatch, landed
):
    data = zipped({"x": PICKS})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(2**40, 0, 2**27))
    monkeypatch.setattr(disk_space, "SPARE", 2**27 - len(data) - 1)
    listing = listed(
        {"filename": "a.zip", "url": server.url("/a", fine(data)), "unpacked": "a.csv"}
    )
    with pytest.raises(DownloadError, match=r"13,0.. bytes to unpack, but the disk") as error:
        download.fetch("Survey", registry=listing, data_dir=tmp_path / "data")
    assert "\n" not in str(error.value)
    assert landed() == ["highres/a.zip.part", "highres/a.zip.part.json"]
    monkeypatch.setattr(disk_space, "SPARE", 0)
    (path,) = download.fetch("Survey", registry=listing, data_dir=tmp_path / "data")
    assert path.read_bytes() == PICKS
    assert server.sent["/a"] == len(data)


def test_a_disk_that_fills_up_while_unpacking_is_one_line_and_leaves_no_half_of_a_file(
    server, listed, tmp_path, landed
):
    data = zipped({"x": bytes(2**20)})
    listing = listed(
        {"filename": "a.zip", "url": server.url("/a", fine(data)), "unpacked": "a.csv"}
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**19, hard))
    try:
        with pytest.raises(DownloadError) as error:
            download.fetch("Survey", registry=listing, data_dir=tmp_path / "data")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    expected = f"{tmp_path}/data/highres/a.zip: cannot be written: File too large"
    assert expected in str(error.value)
    assert "\n" not in str(error.value)
    assert landed() == ["highres/a.zip.part", "highres/a.zip.part.json"]
    (path,) = download.fetch("Survey", registry=listing, data_dir=tmp_path / "data")
    assert path.read_bytes() == bytes(2**20)


@pytest.mark.parametrize("name", ["a.csv", "a.zip"])
def test_a_folder_where_a_file_should_go_is_said_before_anything_is_fetched(
    name, server, listed, tmp_path
):
    data = zipped({"x": PICKS})
    listing = listed(
        {
            "filename": "a.zip",
            "url": server.url("/a", fine(data)),
            "sha256": sha256(data),
            "unpacked": "a.csv",
        }
    )
    folder = tmp_path / "highres" / name
    folder.mkdir(parents=True)
    said = rf"{name}: expected (a file, found a folder|what a\.zip holds)"
    with pytest.raises(DownloadError, match=said) as error:
        download.fetch("Survey", registry=listing, data_dir=tmp_path)
    assert "\n" not in str(error.value)
    assert folder.is_dir()


def test_a_folder_that_cannot_be_written_to_is_one_line_for_all_its_files(server, listed, tmp_path):
    listing = listed(
        *({"filename": name, "url": server.url("/a", fine(PICKS))} for name in ("a.csv", "b.csv"))
    )
    folder = tmp_path / "data"
    folder.mkdir(mode=0o500)
    if os.access(folder, os.W_OK):  # root may write everywhere but into the kernel
        folder = Path("/sys/kernel")
    with pytest.raises(DownloadError) as error:
        download.fetch("Survey", registry=listing, data_dir=folder)
    assert re.fullmatch(rf"{folder}/highres: cannot be written to: .*", str(error.value))
    assert not server.requests


def test_two_processes_at_a_time_share_the_work_and_end_with_one_good_file(
    server, listed, tmp_path, landed, caplog
):
    caplog.set_level(logging.INFO)
    data = zipped({"x": PICKS * 5})
    names = ("a.csv", "b.csv", "c.zip", "d.csv", "e.csv")
    urls = {name: server.url(f"/{name}", fine(PICKS, piece=1000, pause=0.03)) for name in names}
    server.url("/c.zip", fine(data, piece=50, pause=0.02))
    inside = server.url(
        "/in.zip", fine(zipped({"d.csv": PICKS, "e.csv": PICKS}), piece=50, pause=0.05)
    )
    listing = listed(
        *({"filename": n, "url": urls[n], "sha256": sha256(PICKS)} for n in ("a.csv", "b.csv")),
        {"filename": "c.zip", "url": urls["c.zip"], "unpacked": "c.csv"},
        *({"filename": n, "url": inside, "sha256": sha256(PICKS)} for n in ("d.csv", "e.csv")),
    )
    options = {"registry": listing, "data_dir": tmp_path / "data"}
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        pool.submit(os.getpid).result()
        other = pool.submit(download.fetch, "Survey", **options)
        while not server.requests:
            time.sleep(0.001)
        paths = download.fetch("Survey", **options)
        assert other.result(30) == paths
    assert [path.read_bytes() for path in paths] == [PICKS, PICKS, PICKS * 5, PICKS, PICKS]
    assert asked(server) == {"/a.csv": 1, "/b.csv": 1, "/c.zip": 1, "/in.zip": 1}
    assert any("another process is downloading it" in line for line in caplog.messages)
    assert landed() == [f"highres/{n}" for n in ("a.csv", "b.csv", "c.csv", *names[2:])]


def test_what_a_killed_fetch_left_beside_a_file_in_place_is_removed(
    server, listed, tmp_path, landed
):
    listing = listed({"filename": "a.csv", "url": server.url("/a", fine(PICKS))})
    (path,) = download.fetch("Survey", registry=listing, data_dir=tmp_path / "data")
    for name in (".a.csv.lock", "a.csv.part", "a.csv.part.json"):
        path.with_name(name).write_bytes(b"")
    download.fetch("Survey", offline=True, registry=listing, data_dir=tmp_path / "data")
    assert len(landed()) == 4
    download.fetch("Survey", registry=listing, data_dir=tmp_path / "data")
    assert landed() == ["highres/a.csv"]


def test_a_password_in_a_url_is_neither_told_nor_kept(server, listed, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    url = server.url("/a", fine(PICKS)).replace("//", "//me:secret@")
    listing = listed({"filename": "a.csv", "url": url, "sha256": sha256(b"other")})
    with pytest.raises(DownloadError) as error:
        download.fetch("Survey", registry=listing, data_dir=tmp_path)
    assert "expected sha256" in str(error.value)
    listing = listed({"filename": "a.csv", "url": url})
    (planned,) = download.plan("Survey", registry=listing, data_dir=tmp_path)
    download.fetch("Survey", registry=listing, data_dir=tmp_path)
    receipt = (tmp_path / "highres/.fetched/a.csv.json").read_text()
    assert "secret" not in f"{error.value} {caplog.text} {receipt} {planned}"


@pytest.mark.parametrize("garbage", ["", "[]", "{}", '{"url": 1}', '{"members": {"../x": 1}}'])
def test_a_receipt_that_cannot_be_read_counts_as_none(garbage, server, listed, tmp_path, caplog):
    listing = listed({"filename": "a.csv", "url": server.url("/a", fine(PICKS))})
    download.fetch("Survey", registry=listing, data_dir=tmp_path)
    receipt = tmp_path / "highres/.fetched/a.csv.json"
    receipt.write_text(garbage)
    caplog.clear()
    download.fetch("Survey", registry=listing, data_dir=tmp_path)
    assert sha256(PICKS) in caplog.text
    assert sha256(PICKS) in receipt.read_text()


def test_on_a_terminal_every_file_on_its_way_has_a_bar_and_all_have_one(
    server, listed, tmp_path, monkeypatch
):
    terminal = io.StringIO()
    console = Console(file=terminal, force_terminal=True, width=100)
    monkeypatch.setattr(bars, "Console", lambda **_: console)
    urls = [
        server.url("/a", fine(PICKS, cut=5000), status(404)),
        server.url("/b", fine(PICKS[:5000], cut=2000), fine(PICKS[:5000], piece=1000, pause=0.05)),
    ]
    listing = listed(
        {
            "filename": "a.csv",
            "url": urls[0],
            "mirrors": [server.url("/mirror", fine(PICKS, piece=2000, pause=0.05))],
            "sha256": sha256(PICKS),
        },
        {"filename": "b.csv", "url": urls[1]},
    )
    download.fetch("Survey", registry=listing, data_dir=tmp_path)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    for name in ("a.csv", "b.csv", "all 2 files"):
        assert re.search(rf"[\r\n]{name} +[━╸╺]", shown)
    assert "18.0/18.0 kB" in shown


def test_a_receipt_cannot_point_out_of_its_folder(server, listed, tmp_path):
    listing = listed(
        {"filename": "a.zip", "url": server.url("/a", fine(zipped(MEMBERS))), "members": "*.csv"}
    )
    paths = download.fetch("Survey", registry=listing, data_dir=tmp_path)
    receipt = tmp_path / "highres/.fetched/a.zip.json"
    receipt.write_text(receipt.read_text().replace('"a.csv"', '"../a.csv"'))
    with pytest.raises(MissingDataError, match=r"a\.zip: not there"):
        download.locate(listing["Survey"], tmp_path)
    assert download.fetch("Survey", offline=True, registry=listing, data_dir=tmp_path) == paths


def test_an_archive_opened_on_the_way_has_no_checksum_that_would_mend_a_mixture(
    server, listed, tmp_path
):
    data = zipped({"a.txt": PICKS})
    url = server.url("/all.zip", fine(data, etag=None, cut=50))
    listing = listed({"filename": "a.txt", "url": url, "sha256": sha256(PICKS)})
    with pytest.raises(DownloadError):
        download.fetch("Survey", registry=listing, data_dir=tmp_path)
    assert all("range" not in request.headers for request in server.requests)


def test_a_folder_is_not_replaced_by_a_member(server, listed, tmp_path):
    listing = listed(
        {"filename": "a.zip", "url": server.url("/a", fine(zipped(MEMBERS))), "members": "*.csv"}
    )
    (tmp_path / "highres/b.csv").mkdir(parents=True)
    with pytest.raises(
        DownloadError, match=r"b\.csv: expected the contents of a\.zip, found others"
    ):
        download.fetch("Survey", registry=listing, data_dir=tmp_path)
    assert not (tmp_path / "highres/a.csv").exists()


def test_an_unpacked_file_with_a_checksum_of_its_own_needs_no_archive(
    server, listed, tmp_path, caplog
):
    file = {"filename": "a.zip", "url": server.url("/a"), "unpacked": "a.txt"}
    listing = listed({**file, "unpacked_sha256": sha256(PICKS)})
    path = tmp_path / "highres/a.txt"
    path.parent.mkdir()
    path.write_bytes(PICKS)
    for offline in (True, False):
        found = download.fetch("Survey", offline=offline, registry=listing, data_dir=tmp_path)
        assert found == [path]
    assert not warnings_in(caplog)
    path.write_bytes(b"mine")
    with pytest.raises(DownloadError, match=f"expected sha256 {sha256(PICKS)}"):
        download.fetch("Survey", registry=listing, data_dir=tmp_path)


def test_a_new_version_in_the_registry_is_fetched_though_the_old_one_is_unpacked(
    server, listed, tmp_path
):
    old, new = zipped({"x": b"old"}), zipped({"x": PICKS})
    file = {"filename": "a.zip", "url": server.url("/a", fine(old)), "unpacked": "a.txt"}
    listing = listed({**file, "sha256": sha256(old)})
    (path,) = download.fetch("Survey", registry=listing, data_dir=tmp_path, keep_archives=False)
    server.url("/a", fine(new, etag='"2"'))
    listing = listed({**file, "sha256": sha256(new)})
    with pytest.raises(DownloadError, match=r"a\.txt: expected the contents of a\.zip"):
        download.fetch("Survey", registry=listing, data_dir=tmp_path)
    assert path.read_bytes() == b"old"
    download.fetch("Survey", registry=listing, data_dir=tmp_path, again=True)
    assert path.read_bytes() == PICKS


def test_only_the_bytes_that_are_still_to_come_need_room(server, listed, tmp_path, monkeypatch):
    url = server.url("/a", fine(PICKS, cut=5000), status(404))
    listing = listed({"filename": "a.csv", "url": url, "bytes": len(PICKS)})
    with pytest.raises(DownloadError):
        download.fetch("Survey", registry=listing, data_dir=tmp_path)
    server.url("/a", fine(PICKS))
    usage = shutil._ntuple_diskusage(2**40, 0, disk_space.SPARE + len(PICKS) - 5000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    (path,) = download.fetch("Survey", registry=listing, data_dir=tmp_path)
    assert path.read_bytes() == PICKS
