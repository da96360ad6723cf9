from __future__ import annotations

import io
import logging
import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from support.servers import Exchange, Server, fine, redirect

from deepbedmap.download import earthdata
from deepbedmap.errors import DownloadError, MissingDataError
from deepbedmap.extras import MissingExtraError

PASSWORD = "correct horse"  # noqa: S105
HEADER = "Bearer abc.def"


class Earthaccess(types.ModuleType):
    """As much of earthaccess as is used, with one login, and a page for those it refuses."""

    class LoginStrategyUnavailable(Exception):  # noqa: N818  (its name)
        pass

    class LoginAttemptFailure(Exception):  # noqa: N818
        pass

    def __init__(self, **logins: str | Exception) -> None:
        super().__init__("earthaccess")
        self.logins = logins
        self.tried: list[str] = []

    def login(self, strategy: str) -> types.SimpleNamespace:
        self.tried.append(strategy)
        password = self.logins.get(strategy)
        if password is None:
            raise self.LoginStrategyUnavailable(f"nothing in the {strategy}")
        if isinstance(password, Exception):
            raise password
        if password != PASSWORD:
            page = f"<html>\n{password} is wrong"
            logging.getLogger("earthaccess.auth").error(page)
            raise self.LoginAttemptFailure(page)
        return types.SimpleNamespace(authenticated=True)

    def get_requests_https_session(self) -> requests.Session:
        session = requests.Session()
        session.headers["Authorization"] = HEADER
        return session


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch):
    def install(**logins: str | Exception) -> Earthaccess:
        package = Earthaccess(**logins)
        monkeypatch.setitem(sys.modules, "earthaccess", package)
        monkeypatch.setitem(sys.modules, "earthaccess.exceptions", package)
        return package

    return install


@pytest.fixture
def nasa(certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server at localhost that passes for NASA's; 127.0.0.1 is somebody else."""
    monkeypatch.setattr(earthdata, "HOSTS", ("localhost",))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate[0]))
    server = Server(certificate)
    yield server
    server.stop()


@pytest.fixture
def stranger() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


def guarded(exchange: Exchange) -> None:
    """Serve the data to those who bring the token."""
    if exchange.headers.get("Authorization") == HEADER:
        fine(b"bed")(exchange)
    else:
        exchange.head(401, {"Content-Length": "0"})


def token(server: Server, path: str) -> str | None:
    (request,) = server.asked(path)
    return request.headers.get("authorization")


def test_a_session_brings_the_login_to_servers_of_earthdata(install, nasa):
    install(environment=PASSWORD)
    url = nasa.url("/bed.nc", guarded, host="localhost")
    assert requests.get(url, timeout=5).status_code == 401
    assert earthdata.session().get(url, timeout=5).content == b"bed"


def test_the_login_is_not_sent_to_another_host(install, nasa, stranger):
    install(environment=PASSWORD)
    session = earthdata.session()
    session.get(nasa.url("/bed.nc", fine(b"bed"), host="127.0.0.1"), timeout=5)
    session.get(stranger.url("/bed.nc", fine(b"bed")), timeout=5)
    assert token(nasa, "/bed.nc") is None
    assert token(stranger, "/bed.nc") is None


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_redirect_to_another_server_loses_the_login(install, nasa, stranger, host):
    """Of another name, or of the same name without encryption."""
    install(environment=PASSWORD)
    storage = stranger.url("/signed", fine(b"bed"), host=host)
    url = nasa.url("/bed.nc", redirect(storage), host="localhost")
    assert earthdata.session().get(url, timeout=5).content == b"bed"
    assert token(nasa, "/bed.nc") == HEADER
    assert token(stranger, "/signed") is None


def test_a_redirect_within_a_server_keeps_the_login(install, nasa):
    install(environment=PASSWORD)
    there = nasa.url("/there.nc", guarded, host="localhost")
    url = nasa.url("/bed.nc", redirect(there), host="localhost")
    assert earthdata.session().get(url, timeout=5).content == b"bed"


def test_netrc_does_not_replace_the_token(install, nasa, tmp_path, monkeypatch):
    install(environment=PASSWORD)
    netrc = tmp_path / "netrc"
    netrc.write_text("machine localhost login me password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    url = nasa.url("/bed.nc", guarded, host="localhost")
    assert earthdata.session().get(url, timeout=5).status_code == 200


def test_a_session_goes_through_the_proxy_of_the_environment(install, monkeypatch, stranger):
    install(environment=PASSWORD)
    monkeypatch.setenv("http_proxy", stranger.url("/"))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    stranger.url("http://data.invalid/bed.nc", fine(b"bed"))
    assert earthdata.session().get("http://data.invalid/bed.nc", timeout=5).content == b"bed"


@pytest.mark.parametrize(
    ("logins", "tried"),
    [
        ({"environment": PASSWORD, "netrc": PASSWORD}, ["environment"]),
        ({"netrc": PASSWORD, "interactive": PASSWORD}, ["environment", "netrc"]),
    ],
)
def test_the_environment_comes_before_netrc(install, logins, tried):
    package = install(**logins)
    earthdata.session()
    assert package.tried == tried


def test_nobody_is_asked_without_a_terminal(install):
    package = install(interactive=PASSWORD)
    with pytest.raises(MissingDataError):
        earthdata.session()
    assert package.tried == ["environment", "netrc"]


def test_at_a_terminal_a_person_is_asked_at_last(install, monkeypatch):
    package = install(interactive=PASSWORD)
    ours, theirs = os.openpty()
    with open(theirs) as terminal:  # noqa: PTH123
        monkeypatch.setattr(sys, "stdin", terminal)
        earthdata.session()
    os.close(ours)
    assert package.tried == ["environment", "netrc", "interactive"]


def test_without_the_package_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "earthaccess", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'deepbedmap\[earthdata\]'$"):
        earthdata.session()


def test_without_a_login_the_message_says_where_to_get_one_and_where_to_put_it(install):
    install()
    with pytest.raises(MissingDataError) as raised:
        earthdata.session()
    for words in (
        "register at https://urs.earthdata.nasa.gov",
        "'machine urs.earthdata.nasa.gov login NAME password PASSWORD' into ~/.netrc",
        "EARTHDATA_USERNAME and EARTHDATA_PASSWORD, or EARTHDATA_TOKEN",
    ):
        assert words in str(raised.value)


@pytest.mark.parametrize(
    ("strategy", "where"),
    [("environment", "EARTHDATA_USERNAME and EARTHDATA_PASSWORD"), ("netrc", ".netrc")],
)
def test_a_login_that_is_refused_is_one_line_without_the_login(install, caplog, strategy, where):
    package = install(**{strategy: "wrong battery", "interactive": PASSWORD})
    with pytest.raises(DownloadError) as raised:
        earthdata.session()
    assert str(raised.value) == (
        f"https://urs.earthdata.nasa.gov: rejects the login in {where}; correct it"
    )
    assert raised.value.__suppress_context__
    assert package.tried[-1] == strategy
    assert not caplog.records


def test_no_connection_to_the_login_is_one_line_without_the_login(install):
    install(netrc=requests.ConnectionError("https://me:secret@urs.earthdata.nasa.gov"))
    with pytest.raises(DownloadError, match="cannot log in: ConnectionError") as raised:
        earthdata.session()
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://urs.earthdata.nasa.gov/",
        "ftp://data.earthdata.nasa.gov/bed.nc",
        "https://evil-earthdata.nasa.gov.example.org/",
        "https://notearthdata.nasa.gov/",
        "https://example.org/urs.earthdata.nasa.gov",
        "https://urs.earthdata.nasa.gov@example.org/",
        "https:///bed.nc",
    ],
)
def test_other_addresses_do_not_take_the_login(url):
    assert not earthdata.takes_login(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://urs.earthdata.nasa.gov/",
        "https://DATA.NSIDC.EarthdataCloud.nasa.gov:443/bed.nc",
    ],
)
def test_addresses_of_earthdata_take_the_login(url):
    assert earthdata.takes_login(url)
