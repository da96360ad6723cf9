"""Servers on the loopback address that misbehave as those of real data do."""

from __future__ import annotations

import contextlib
import http.server
import re
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

Answer = Callable[["Exchange"], None]


@dataclass(frozen=True)
class Request:
    path: str
    headers: dict[str, str]
    """Names in lower case."""


class Server:
    """Answers each path as it was told to, and notes what was asked and how much was sent."""

    def __init__(self, certificate: tuple[Path, Path] | None = None) -> None:
        self.requests: list[Request] = []
        self.sent: Counter[str] = Counter()
        self.stopping = threading.Event()
        self._answers: dict[str, list[Answer]] = {}
        self._guard = threading.Lock()
        self._http = _Listener(("127.0.0.1", 0), Exchange)
        self._http.told = self
        self._scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self._http.socket = context.wrap_socket(
                self._http.socket, server_side=True, do_handshake_on_connect=False
            )
            self._scheme = "https"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def url(self, path: str, *answers: Answer, host: str = "127.0.0.1") -> str:
        """Tell the answers to the first, second ... request of a path; the last one stays."""
        if answers:
            self._answers[path] = list(answers)
        return f"{self._scheme}://{host}:{self._http.server_port}{path}"

    def asked(self, path: str) -> list[Request]:
        return [request for request in self.requests if request.path == path]

    def answer(self, exchange: Exchange) -> None:
        with self._guard:
            headers = {name.lower(): value for name, value in exchange.headers.items()}
            self.requests.append(Request(exchange.path, headers))
            answers = self._answers.get(exchange.path, [status(404)])
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
        answer(exchange)

    def stop(self) -> None:
        self.stopping.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(10)


class _Listener(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    told: Server

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep quiet about clients that go away."""


class Exchange(http.server.BaseHTTPRequestHandler):
    """One request, and the means of its answer."""

    protocol_version = "HTTP/1.1"
    timeout = 20
    server: _Listener

    @property
    def told(self) -> Server:
        return self.server.told

    def do_GET(self) -> None:
        self.told.answer(self)

    def head(self, code: int, headers: dict[str, str | None]) -> None:
        """Send the header; those that are None are left out."""
        self.send_response(code)
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()

    def body(self, data: bytes, piece: int = 2**16, pause: float = 0.0) -> None:
        """Send bytes, some at a time, until the server stops."""
        for first in range(0, len(data), piece):
            self.wfile.write(data[first : first + piece])
            self.told.sent[self.path] += len(data[first : first + piece])
            if pause and self.told.stopping.wait(pause):
                break

    def hang(self) -> None:
        """Send nothing more until the server stops."""
        self.close_connection = True
        self.told.stopping.wait(20)

    def drop(self) -> None:
        """Close the connection."""
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


def fine(
    data: bytes,
    *,
    etag: str | None = '"1"',
    modified: str | None = None,
    ranges: bool = True,
    length: int | str | None = "right",
    cut: int | None = None,
    hang: int | None = None,
    most: int | None = None,
    piece: int = 2**16,
    pause: float = 0.0,
    **headers: str,
) -> Answer:
    """Serve a file, and the rest of it to those who ask for it and mean this version.

    Parameters
    ----------
    length
        The Content-Length to say: the right one, another, or None.
    cut, hang
        The byte of the file at which the connection is closed, or falls silent.
    most
        How many bytes a partial answer has at most.
    piece, pause
        How many bytes are sent at a time, and seconds to the next.
    headers
        Others to send, with ``_`` for ``-``.
    """

    def answer(exchange: Exchange) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-", exchange.headers.get("Range", ""))
        meant = exchange.headers.get("If-Range") in (None, etag, modified)
        first = int(asked[1]) if ranges and asked and meant else 0
        said = {"ETag": etag, "Last-Modified": modified}
        said |= {name.replace("_", "-"): value for name, value in headers.items()}
        if first >= len(data) > 0:
            said |= {"Content-Range": f"bytes */{len(data)}", "Content-Length": "0"}
            exchange.head(416, said)
            return
        end = len(data)
        if first:
            end = min(end, first + most) if most else end
            said["Content-Range"] = f"bytes {first}-{end - 1}/{len(data)}"
        if length is None:
            exchange.drop()
        else:
            said["Content-Length"] = str(end - first if length == "right" else length)
        exchange.head(206 if first else 200, said)
        stops = [stop for stop in (cut, hang) if stop is not None]
        exchange.body(data[first : min([end, *stops])], piece, pause)
        if hang is not None:
            exchange.hang()
        elif cut is not None or length != "right":
            exchange.drop()

    return answer


def partial(data: bytes, span: str, **headers: str) -> Answer:
    """Answer 206 with these bytes and this Content-Range, whatever was asked for."""

    def answer(exchange: Exchange) -> None:
        said = {name.replace("_", "-"): value for name, value in headers.items()}
        said |= {"Content-Range": span, "Content-Length": str(len(data))}
        exchange.head(206, {**said})
        exchange.body(data)

    return answer


def chunked(data: bytes, *, cut: int | None = None, piece: int = 10_000) -> Answer:
    """Send a file as chunks, without its length."""

    def answer(exchange: Exchange) -> None:
        exchange.head(200, {"Transfer-Encoding": "chunked"})
        for first in range(0, len(data if cut is None else data[:cut]), piece):
            chunk = data[first : first + piece]
            exchange.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        if cut is None:
            exchange.wfile.write(b"0\r\n\r\n")
        else:
            exchange.drop()

    return answer


def status(code: int, **headers: str) -> Answer:
    """Answer with a status and a short page."""

    def answer(exchange: Exchange) -> None:
        page = b"<p>a page\n</p>"
        said = {"Content-Type": "text/html", "Content-Length": str(len(page))}
        said |= {name.replace("_", "-"): value for name, value in headers.items()}
        exchange.head(code, {**said})
        exchange.body(page)

    return answer


def redirect(to: str) -> Answer:
    return status(302, Location=to)


def silent(exchange: Exchange) -> None:
    """Say nothing."""
    exchange.hang()


def closed(exchange: Exchange) -> None:
    """Close the connection without an answer."""
    exchange.drop()


def garbage(exchange: Exchange) -> None:
    """Say what is not HTTP."""
    exchange.wfile.write(b"\x00\xff 200 of what\r\n\r\n")
    exchange.drop()


@contextlib.contextmanager
def ftp(
    data: bytes, *cuts: int, code: str = "150 here it comes", goodbye: str = "221 goodbye"
) -> Iterator[tuple[str, list[str]]]:
    """Serve one file by FTP; give its address and the commands that come.

    The first transfers end at the cuts; ``code`` answers RETR, and ``goodbye`` answers QUIT.
    """
    commands: list[str] = []
    ends = [*cuts]

    def converse(control: socket.socket) -> None:
        with control, control.makefile("rw", newline="\r\n") as lines, socket.socket() as passive:
            passive.bind(("127.0.0.1", 0))
            passive.listen(1)
            passive.settimeout(10)
            port = passive.getsockname()[1]
            answers = {
                "USER": "331 password",
                "PASS": "230 in",
                "TYPE": "200 binary",
                "SIZE": f"213 {len(data)}",
                "PASV": f"227 passive (127,0,0,1,{port // 256},{port % 256})",
                "EPSV": f"229 passive (|||{port}|)",
                "RETR": code,
                "QUIT": goodbye,
            }
            print("220 ready", file=lines, flush=True)
            for line in lines:
                commands.append(line.strip())
                command = commands[-1].split()[0]
                print(answers.get(command, "500 unknown"), file=lines, flush=True)
                if command == "RETR" and code.startswith("1"):
                    with passive.accept()[0] as sink:
                        sink.sendall(data[: ends.pop(0)] if ends else data)
                    print("226 done", file=lines, flush=True)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                with contextlib.suppress(ConnectionError):
                    control, _ = listener.accept()
                    control.settimeout(10)
                    converse(control)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield f"ftp://127.0.0.1:{listener.getsockname()[1]}/pub/bed%20picks.csv", commands
        listener.shutdown(socket.SHUT_RDWR)
