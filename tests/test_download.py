from __future__ import annotations

import hashlib
import http.server
import io
import logging
import socket
import tarfile
import threading
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from deepbedmap import download, registry
from deepbedmap.errors import DownloadError, InvalidDataError, MissingDataError

PICKS = b"x,y,z\n1,2,-3\n" * 1000


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tarred(*members: tarfile.TarInfo, data: bytes = PICKS) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for member in members:
            if member.isreg():
                member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


class Server:
    """Serves bytes by path and counts how often each path is asked for."""

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}
        self.requests: Counter[str] = Counter()
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            timeout = 10

            def do_GET(self) -> None:
                server.requests[self.path] += 1
                data = server.content.get(self.path)
                if data is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def url(self, path: str, data: bytes | None = None) -> str:
        if data is not None:
            self.content[path] = data
        return f"http://127.0.0.1:{self._http.server_port}{path}"

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(10)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


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
    """What is under the data folder, hidden files and folders too."""

    def landed() -> list[str]:
        folder = tmp_path / "data"
        return sorted(
            str(path.relative_to(folder))
            for path in folder.rglob("*")
            if path != folder / "highres"
        )

    return landed


def test_files_land_in_the_folder_of_their_dataset_in_the_order_of_the_registry(
    server, listed, tmp_path, landed
):
    listing = listed(
        *(
            {"filename": name, "url": server.url(f"/{name}", data), "sha256": sha256(data)}
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
        {"filename": "a.csv", "url": server.url("/a.csv", PICKS), "sha256": sha256(PICKS)},
        {
            "filename": "b.zip",
            "url": server.url("/b.zip", archive),
            "sha256": sha256(archive),
            "unpacked": "b.txt",
        },
    )
    first = download.fetch("Survey", registry=listing, data_dir=tmp_path)
    assert download.fetch("Survey", registry=listing, data_dir=tmp_path) == first
    assert server.requests == {"/a.csv": 1, "/b.zip": 1}


def test_the_data_folder_of_the_environment_is_used_by_default(
    server, listed, tmp_path, monkeypatch
):
    monkeypatch.setenv("DEEPBEDMAP_DATA_DIR", str(tmp_path / "elsewhere"))
    listing = listed({"filename": "a.csv", "url": server.url("/a", PICKS), "sha256": sha256(PICKS)})
    assert download.fetch("Survey", registry=listing) == [tmp_path / "elsewhere/highres/a.csv"]


def test_a_file_url_is_copied_also_where_its_path_has_blanks_and_percent_signs(listed, tmp_path):
    source = tmp_path / "my 100% surveys" / "bed #1.csv"
    source.parent.mkdir()
    source.write_bytes(PICKS)
    listing = listed({"filename": "a.csv", "url": source.as_uri(), "sha256": sha256(PICKS)})
    (path,) = download.fetch("Survey", registry=listing, data_dir=tmp_path / "data")
    assert path.read_bytes() == PICKS
    assert source.read_bytes() == PICKS


def test_ftp_brings_a_file_whose_name_has_blanks(listed, tmp_path):
    def serve() -> None:
        control, _ = listener.accept()
        with control, control.makefile("rw", newline="\r\n") as lines, socket.socket() as passive:
            passive.bind(("127.0.0.1", 0))
            passive.listen(1)
            passive.settimeout(10)
            port = passive.getsockname()[1]
            answers = {
                "USER": "331 password",
                "PASS": "230 in",
                "TYPE": "200 binary",
                "PASV": f"227 passive (127,0,0,1,{port // 256},{port % 256})",
                "EPSV": f"229 passive (|||{port}|)",
                "RETR": "150 here it comes",
                "QUIT": "221 bye",
            }
            print("220 ready", file=lines, flush=True)
            for line in lines:
                asked.append(line.strip())
                command = asked[-1].split()[0]
                print(answers.get(command, "500 unknown"), file=lines, flush=True)
                if command == "RETR":
                    data, _ = passive.accept()
                    with data:
                        data.sendall(PICKS)
                    print("226 done", file=lines, flush=True)
                if command == "QUIT":
                    return

    asked: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        url = f"ftp://127.0.0.1:{listener.getsockname()[1]}/pub/bed%20picks.csv"
        listing = listed({"filename": "a.csv", "url": url, "sha256": sha256(PICKS)})
        (path,) = download.fetch("Survey", registry=listing, data_dir=tmp_path)
        thread.join(10)
    assert path.read_bytes() == PICKS
    assert "RETR /pub/bed picks.csv" in asked


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_a_download_with_another_checksum_is_refused_and_leaves_nothing(
    scheme, server, listed, tmp_path, landed
):
    source = tmp_path / "a.csv"
    source.write_bytes(PICKS)
    url = source.as_uri() if scheme == "file" else server.url("/a.csv", PICKS)
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
    listing = listed({"filename": "a.csv", "url": server.url("/a", PICKS), "sha256": sha256(PICKS)})
    with pytest.raises(DownloadError) as error:
        download.fetch("Survey", registry=listing, data_dir=tmp_path)
    for part in (str(mine), sha256(b"mine"), sha256(PICKS), "move it away"):
        assert part in str(error.value)
    assert mine.read_bytes() == b"mine"
    assert not server.requests


def test_without_a_checksum_the_file_is_taken_with_a_warning_that_gives_it(
    server, listed, tmp_path, caplog
):
    listing = listed({"filename": "a.csv", "url": server.url("/a", PICKS)})
    for _ in range(2):
        with caplog.at_level(logging.WARNING):
            download.fetch("Survey", registry=listing, data_dir=tmp_path)
        (warning,) = caplog.records
        assert sha256(PICKS) in warning.getMessage()
        caplog.clear()


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
        {"filename": "b.csv", "url": server.url("/b", PICKS), "sha256": sha256(PICKS)},
    )
    with pytest.raises(DownloadError):
        download.fetch("Survey", jobs=1, registry=listing, data_dir=tmp_path / "data")
    assert landed() == ["highres/b.csv"]


def test_mirrors_are_tried_in_order_until_one_has_the_right_file(server, listed, tmp_path):
    mirrors = [server.url("/other", b"other"), server.url("/right", PICKS), server.url("/last")]
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
    assert list(server.requests) == ["/gone", "/other", "/right"]


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
    (tmp_path / "highres/a.csv").write_bytes(PICKS)
    assert download.fetch("Survey", registry=listing, data_dir=tmp_path)


def test_offline_opens_no_socket_and_says_which_files_are_missing(
    listed, tmp_path, landed, monkeypatch
):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

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
                "url": server.url(f"/{name}?entry=1", data),
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


def test_a_member_is_chosen_by_its_path(server, listed, tmp_path):
    data = zipped({"2007/bed.txt": b"old", "2010/bed.txt": PICKS})
    listing = listed(
        {
            "filename": "a.zip",
            "url": server.url("/a.zip", data),
            "member": "2010/bed.txt",
            "unpacked": "bed.txt",
        }
    )
    (path,) = download.fetch("Survey", registry=listing, data_dir=tmp_path)
    assert path.read_bytes() == PICKS


def test_files_inside_one_archive_are_found_by_name_and_the_archive_is_fetched_once(
    server, listed, tmp_path, landed
):
    url = server.url("/all.zip", zipped({"data/a.txt": PICKS, "data/b.txt": b"x", "read.me": b""}))
    listing = listed(
        {"filename": "a.txt", "url": url, "sha256": sha256(PICKS)},
        {"filename": "b.txt", "mirrors": [url], "sha256": sha256(b"x")},
    )
    paths = download.fetch("Survey", registry=listing, data_dir=tmp_path / "data")
    assert [path.read_bytes() for path in paths] == [PICKS, b"x"]
    assert landed() == ["highres/a.txt", "highres/b.txt"]
    assert server.requests == {"/all.zip": 1}


def test_an_archive_that_is_there_is_unpacked_without_fetching_it_again(listed, tmp_path):
    data = zipped({"x": PICKS})
    listing = listed(
        {"filename": "a.zip", "url": None, "sha256": sha256(data), "unpacked": "a.txt"}
    )
    (tmp_path / "highres").mkdir()
    (tmp_path / "highres/a.zip").write_bytes(data)
    (path,) = download.fetch("Survey", offline=True, registry=listing, data_dir=tmp_path)
    assert path.read_bytes() == PICKS


def test_offline_takes_an_unpacked_file_whose_archive_is_gone_with_a_warning(
    server, listed, tmp_path, caplog
):
    data = zipped({"x": PICKS})
    url = server.url("/a.zip", data)
    listing = listed({"filename": "a.zip", "url": url, "sha256": sha256(data), "unpacked": "a.txt"})
    first = download.fetch("Survey", registry=listing, data_dir=tmp_path)
    (tmp_path / "highres/a.zip").unlink()
    with caplog.at_level(logging.WARNING):
        again = download.fetch("Survey", offline=True, registry=listing, data_dir=tmp_path)
    assert again == first
    assert "a.zip is gone" in caplog.text
    assert server.requests == {"/a.zip": 1}


@pytest.mark.parametrize("archive_is_there", [True, False])
def test_an_unpacked_file_that_was_changed_is_named_and_left_alone(
    archive_is_there, server, listed, tmp_path
):
    data = zipped({"x": PICKS})
    listing = listed(
        {
            "filename": "a.zip",
            "url": server.url("/a.zip", data),
            "sha256": sha256(data),
            "unpacked": "a.txt",
        }
    )
    (path,) = download.fetch("Survey", registry=listing, data_dir=tmp_path)
    path.write_bytes(PICKS + b"1,2,3\n")
    if not archive_is_there:
        (tmp_path / "highres/a.zip").unlink()
    with pytest.raises(DownloadError, match=r"a\.txt: expected what a\.zip holds"):
        download.fetch("Survey", registry=listing, data_dir=tmp_path)
    assert path.read_bytes() == PICKS + b"1,2,3\n"


def link(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return info


def zipped_link() -> bytes:
    info = zipfile.ZipInfo("link.txt")
    info.external_attr = 0o120777 << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(info, "/etc/passwd")
    return buffer.getvalue()


def flipped(data: bytes) -> bytes:
    middle = len(data) // 3
    return data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"this is no archive", "cannot be unpacked"),
        (b"PK\x03\x04 nor is this", "cannot be unpacked"),
        (zipped({"x": PICKS})[:-30], "cannot be unpacked"),
        (flipped(zipped({"x": PICKS})), "cannot be unpacked"),
        (tarred(tarfile.TarInfo("x"))[:-20], "cannot be unpacked"),
        (b"", "cannot be unpacked"),
        (zipped({"../evil.txt": PICKS}), "unsafe name"),
        (zipped({"x": PICKS, "a/../../evil.txt": PICKS}), "unsafe name"),
        (zipped({"/evil.txt": PICKS}), "unsafe name"),
        (zipped({"..\\evil.txt": PICKS}), "unsafe name"),
        (tarred(tarfile.TarInfo("../evil.txt")), "unsafe name"),
        (tarred(link("link.txt")), "a link"),
        (zipped_link(), "a link"),
        (zipped({"x": bytes(2**26 + 1)}), "200 times its size"),
        (zipped({"one": PICKS, "two": PICKS}), "should hold one file, and holds one, two"),
        (zipped({}), "should hold one file, and holds nothing"),
    ],
)
def test_a_corrupt_or_unsafe_archive_is_refused_in_one_line_and_leaves_nothing(
    data, said, server, listed, tmp_path, landed
):
    listing = listed(
        {
            "filename": "a.zip",
            "url": server.url("/a.zip", data),
            "sha256": sha256(data),
            "unpacked": "a.txt",
        }
    )
    with pytest.raises(DownloadError, match=said) as error:
        download.fetch("Survey", registry=listing, data_dir=tmp_path / "data")
    assert "a.zip" in str(error.value)
    assert "\n" not in str(error.value)
    assert landed() == []
    assert not list(tmp_path.rglob("evil.txt"))


def test_an_archive_without_the_file_wanted_names_what_it_holds(server, listed, tmp_path):
    url = server.url("/a.zip", zipped({"folder/other.tif": PICKS}))
    listing = listed({"filename": "bed.tif", "url": url, "sha256": sha256(PICKS)})
    with pytest.raises(DownloadError, match=r"one file called 'bed\.tif', and holds folder/other"):
        download.fetch("Survey", registry=listing, data_dir=tmp_path)


def test_a_single_file_is_fetched_by_its_name(server, listed, tmp_path, landed):
    archive = zipped({"inside.txt": PICKS})
    listing = listed(
        *(
            {"filename": name, "url": server.url(f"/{name}", PICKS), "sha256": sha256(PICKS)}
            for name in ("a.csv", "b.csv")
        ),
        {"filename": "c.zip", "url": server.url("/c.zip", archive), "unpacked": "c.txt"},
    )
    data = tmp_path / "data"
    paths = download.fetch(["b.csv", "highres/b.csv"], registry=listing, data_dir=data)
    assert paths == [data / "highres/b.csv"]
    assert server.requests == {"/b.csv": 1}
    (by_its_contents,) = download.fetch("c.txt", registry=listing, data_dir=data)
    assert by_its_contents.read_bytes() == PICKS
    assert download.fetch(["c.zip", "Survey"], registry=listing, data_dir=data) == [
        data / "highres" / name for name in ("c.txt", "a.csv", "b.csv")
    ]
    assert server.requests == {"/a.csv": 1, "/b.csv": 1, "/c.zip": 1}


def test_a_file_name_of_two_folders_needs_its_folder(server, tmp_path):
    entry = {"title": "A survey", "files": [{"filename": "bed.tif", "sha256": None}]}
    entry["files"][0]["url"] = server.url("/bed.tif", PICKS)
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
    listing = listed({"filename": name, "url": server.url("/all", data), "members": "*.csv"})
    folder = tmp_path / "data/highres"
    with pytest.raises(
        MissingDataError, match=rf"all\.{kind}: not there; `deepbedmap fetch Survey`"
    ):
        download.locate(listing["Survey"], tmp_path / "data")
    expected = [folder / "a.csv", folder / "b.csv"]
    for _ in range(2):
        assert download.fetch("Survey", registry=listing, data_dir=tmp_path / "data") == expected
    assert expected[0].read_bytes() == PICKS
    assert landed() == sorted(f"highres/{n}" for n in (name, f"{name}.members", "a.csv", "b.csv"))
    assert download.locate(listing["Survey"], tmp_path / "data") == expected
    assert server.requests == {"/all": 1}
    expected[1].unlink()  # one that went missing is unpacked again, from the archive that is here
    with pytest.raises(MissingDataError, match=r"b\.csv: not there"):
        download.locate(listing["Survey"], tmp_path / "data")
    download.fetch("Survey", offline=True, registry=listing, data_dir=tmp_path / "data")
    assert expected[1].is_file()
    expected[0].write_bytes(b"mine")
    with pytest.raises(DownloadError) as error:
        download.fetch("Survey", registry=listing, data_dir=tmp_path / "data")
    assert str(error.value).startswith(f"{expected[0]}: expected what {name} holds")
    assert expected[0].read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (zipped({"a.txt": PICKS}), r"should hold files that fit '\*\.csv', and holds a\.txt"),
        (zipped({"x/a.csv": PICKS, "y/a.csv": b"x"}), "two files called 'a.csv'"),
        (zipped({"a.csv": PICKS, "A.csv": b"x"}), "two files called 'A.csv'"),
        (zipped({"x/.a.csv": PICKS}), "unsafe name"),
        (zipped({"x/C:a.csv": PICKS}), "unsafe name"),
        (zipped({"a\n.csv": PICKS}), "unsafe name"),
        (zipped({"../a.csv": PICKS}), "unsafe name"),
        (zipped({"a.csv": bytes(2**26 + 1)}), "200 times its size"),
        (zipped({f"{n}.csv": b"" for n in range(21)}), "more than 20 files"),
        (tarred(link("a.csv")), "a link"),
    ],
)
def test_members_that_are_unsafe_or_clash_leave_nothing(
    data, said, server, listed, tmp_path, landed, monkeypatch
):
    monkeypatch.setattr(download, "MOST_MEMBERS", 20)
    listing = listed({"filename": "a.zip", "url": server.url("/a", data), "members": "*.csv"})
    with pytest.raises(DownloadError, match=said) as error:
        download.fetch("Survey", registry=listing, data_dir=tmp_path / "data")
    assert str(error.value).startswith(str(tmp_path / "data/highres/a.zip"))
    assert "\n" not in str(error.value)
    assert landed() == []


def test_a_member_does_not_take_the_place_of_another_file(server, listed, tmp_path, landed):
    mine = tmp_path / "data/highres/b.csv"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    url = server.url("/a.zip", zipped(MEMBERS))
    listing = listed({"filename": "a.zip", "url": url, "members": "*.csv"})
    with pytest.raises(DownloadError, match=r"b\.csv: expected what a\.zip holds"):
        download.fetch("Survey", registry=listing, data_dir=tmp_path / "data")
    assert mine.read_bytes() == b"mine"
    assert landed() == ["highres/b.csv"]


def test_a_file_that_a_person_must_get_says_what_to_do_and_is_not_asked_for(
    server, listed, tmp_path
):
    file = {"filename": "a.csv", "url": server.url("/a.csv", PICKS), "access": "manual"}
    listing = listed(file, instructions="Order it at https://a.org.")
    with pytest.raises(MissingDataError, match=r"Order it at https://a\.org; put a\.csv into high"):
        download.fetch("Survey", registry=listing, data_dir=tmp_path)
    assert not server.requests


@pytest.mark.parametrize("access", ["open", "earthdata"])
def test_a_login_page_is_told_from_the_file_and_names_the_login(access, server, listed, tmp_path):
    page = b"\n<!DOCTYPE html><html><title>Earthdata Login</title></html>"
    for known in (None, sha256(PICKS)):
        url = server.url("/a.tif", page)
        listing = listed({"filename": "a.tif", "url": url, "sha256": known, "access": access})
        with pytest.raises(DownloadError, match=r"/a\.tif: found a web page") as error:
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
    listing = listed({"filename": "a.csv", "url": server.url("/a", PICKS), "sha256": sha256(PICKS)})
    download.fetch("Survey", progress=True, registry=listing, data_dir=tmp_path)
    assert capfd.readouterr() == ("", "")
