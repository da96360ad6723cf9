"""Addresses of the registry: which answer, which moved, which are dead. On loopback alone."""

from __future__ import annotations

import http.server
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest
import yaml

from deepbedmap import registry
from deepbedmap.registry import links

BODY = b"x,y,z\n" * 4_000_000  # what nobody may download


class Handler(http.server.BaseHTTPRequestHandler):
    timeout = 10

    def do_HEAD(self) -> None:
        self.server.asked[f"HEAD {self.path}"] += 1
        self.answer()

    def do_GET(self) -> None:
        self.server.asked[f"GET {self.path}"] += 1
        self.server.agents.add(self.headers["User-Agent"])
        self.server.logins.add(self.headers["Authorization"])
        self.answer()

    def answer(self) -> None:
        base = f"http://127.0.0.1:{self.server.server_port}"
        match self.path.strip("/").split("/"):
            case ["slow"]:
                self.server.released.wait(10)
            case ["moved" | "moved-on" | "temporary" | "astray" as way]:
                code, target = {
                    "moved": (301, "/there"),
                    "moved-on": (308, "/temporary"),
                    "temporary": (302, "/there?signature=secret"),
                    "astray": (301, "/gone"),
                }[way]
                self.say(code, Location=base + target)
            case ["circle"]:
                self.say(302, Location=base + "/circle")
            case ["no-head" | "head-is-hidden" as way] if self.command == "HEAD":
                self.say(405 if way == "no-head" else 403)
            case ["gone"]:
                self.say(404)
            case ["private"]:
                self.say(401)
            case ["earthdata"]:
                self.say(302, Location=f"http://{links.LOGIN}:{self.server.server_port}/oauth")
            case ["broken"]:
                self.say(503)
            case _:
                self.say(200, **{"Content-Length": str(len(BODY))})
                if self.command == "GET":
                    self.send()

    def say(self, code: int, **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def send(self) -> None:
        for start in range(0, len(BODY), 2**16):
            try:
                self.server.sent += self.wfile.write(BODY[start : start + 2**16])
            except OSError:
                return

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    """Serve on loopback; the names of login servers lead there too."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.asked, server.agents, server.logins, server.sent = Counter(), set(), set(), 0
    server.released = threading.Event()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    resolve = socket.getaddrinfo

    def here(host, *arguments, **options):
        if host not in ("127.0.0.1", links.LOGIN):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve("127.0.0.1", *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", here)
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def listed(tmp_path):
    """Make a registry with a file for every address."""

    def write(*urls, **more):
        files = [
            {"filename": f"f{number}.csv", "url": url, "sha256": None}
            for number, url in enumerate(urls)
        ]
        files += [{"filename": "last.csv", "url": None, "sha256": None, **more}] if more else []
        path = tmp_path / "data_list.yml"
        entry = {"citekey": "Survey", "title": "A survey", "folder": "highres", "files": files}
        path.write_text(yaml.safe_dump({"schema_version": 2, "datasets": [entry]}))
        return registry.load(path)

    return write


def address(server, path):
    return f"http://127.0.0.1:{server.server_port}/{path}"


@pytest.mark.parametrize(
    ("path", "status", "detail"),
    [
        ("there", "ok", "200"),
        ("temporary", "ok", "200"),
        ("no-head", "ok", "200"),
        ("head-is-hidden", "ok", "200"),
        ("moved", "moved", "/there"),
        ("moved-on", "moved", "/temporary"),
        ("private", "login", "401"),
        ("earthdata", "login", "302"),
        ("gone", "dead", "404"),
        ("astray", "dead", "404"),
        ("broken", "dead", "503"),
        ("circle", "dead", "redirects"),
    ],
)
def test_every_answer_has_its_status(server, listed, path, status, detail):
    (link,) = links.check(listed(address(server, path)), timeout=5, pause=0)
    assert (link.status, link.files) == (status, ("Survey/f0.csv",))
    assert detail in link.detail
    assert "signature" not in link.detail


def test_a_server_that_is_silent_is_given_up_after_the_timeout(server, listed):
    start = time.monotonic()
    (link,) = links.check(listed(address(server, "slow")), timeout=0.2)
    assert time.monotonic() - start < 5
    assert (link.status, link.detail) == ("dead", "no response within 0.2 s")


@pytest.mark.parametrize("scheme", ["http", "ftp"])
def test_servers_that_are_not_there_are_dead(server, listed, scheme):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        found = links.check(
            listed(f"{scheme}://127.0.0.1:{port}/x", f"{scheme}://gone.invalid/x"), timeout=5
        )
    assert [link.status for link in found] == ["dead", "dead"]
    assert "refused" in found[0].detail
    assert found[1].detail == "no such server"


def test_a_file_on_an_ftp_server_is_asked_for_its_size(listed):
    replies = {"USER": "331 password?", "PASS": "230 in", "TYPE": "200 binary", "QUIT": "221 bye"}
    sizes = {"/there/a b.csv": "213 12"}

    class Ftp(socketserver.StreamRequestHandler):
        timeout = 10

        def handle(self) -> None:
            self.wfile.write(b"220 here\r\n")
            for line in self.rfile:
                verb, _, argument = line.decode().strip().partition(" ")
                reply = replies.get(verb) or sizes.get(argument, "550 no such file")
                self.wfile.write(f"{reply}\r\n".encode())

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Ftp) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        base = f"ftp://127.0.0.1:{server.server_address[1]}"
        found = links.check(listed(f"{base}/there/a%20b.csv", f"{base}/gone"), timeout=5, pause=0)
        server.shutdown()
    assert [(link.status, link.detail[-16:]) for link in found] == [
        ("ok", "12 bytes"),
        ("dead", "550 no such file"),
    ]


def test_a_doi_is_resolved(server, listed, monkeypatch):
    monkeypatch.setattr(links, "RESOLVER", f"{address(server, 'doi')}/")
    urls = ["doi:10.5281/zenodo.7/folder/a.csv", "doi:10.7910/DVN/2EFG/a.csv"]
    answers = links.check(listed(*urls, "sftp://example.org/a.csv"), timeout=5, pause=0)
    assert [(link.url, link.status) for link in answers] == [(url, "ok") for url in urls]
    assert [*server.asked] == ["HEAD /doi/10.5281/zenodo.7", "HEAD /doi/10.7910/DVN/2EFG"]


def test_no_body_is_downloaded_and_no_password_is_sent(server, listed):
    links.check(listed(address(server, "there"), address(server, "no-head")), timeout=5, pause=0)
    assert server.asked["GET /there"] == 0
    assert server.asked["GET /no-head"] == 1
    assert server.sent < len(BODY) / 4  # what fits into the buffers of a connection
    assert server.logins == {None}
    assert all("deepbedmap" in agent for agent in server.agents)


def test_an_address_of_several_files_is_asked_once_and_mirrors_are_asked_too(server, listed):
    url = address(server, "there")
    listing = listed(url, url, url, mirrors=[address(server, "gone"), "file:///nowhere"])
    found = links.check(listing, timeout=5, pause=0)
    assert [link.status for link in found] == ["ok", "dead"]
    assert found[0].files == ("Survey/f0.csv", "Survey/f1.csv", "Survey/f2.csv")
    assert server.asked["HEAD /there"] == 1


def test_the_report_counts_every_status_and_lists_what_a_person_must_do(server, listed):
    urls = [address(server, path) for path in ("there", "gone", "moved", "private")]
    text = links.report(links.check(listed(*urls), timeout=5, pause=0))
    assert "## Dead: no data available: 1" in text
    assert f"| `{urls[1]}` | `404 Not Found` | `Survey/f1.csv` |" in text
    assert f"| `{urls[2]}` | `{urls[0]}` | `Survey/f2.csv` |" in text
    assert "## Responding: 1" in text
    assert f"`{urls[0]}` |\n" not in text.partition("## Responding")[2]


def test_what_a_server_says_cannot_mark_up_the_report():
    reply = "http://x/`@everyone`|a\n# b" + "y" * 500
    text = links.report([links.Link("http://x/", ("Survey/f.csv",), "moved", reply)])
    (row,) = (line for line in text.splitlines() if "@everyone" in line)
    assert row.count("`") == 6
    assert row.count("|") == 4
    assert len(row) < 500


def test_the_command_writes_the_report_and_dead_links_are_no_failure(server, listed, tmp_path):
    listing = listed(address(server, "gone"))
    links.main(["--registry", str(listing.path), "--report", str(tmp_path / "links.md")])
    assert "Dead: no data available: 1" in (tmp_path / "links.md").read_text()


def test_the_check_needs_little_installed():
    code = (
        "import sys, deepbedmap.registry.links, deepbedmap.registry; deepbedmap.registry.load();"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"torch", "pandas", "numpy", "xarray", "intake", "rich"}.isdisjoint(done.stdout.split())
