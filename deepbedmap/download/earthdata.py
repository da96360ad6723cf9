"""Log in to NASA's Earthdata, and send the login to NASA only.

The package earthaccess does the login; it is imported only where it is needed.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import requests

from deepbedmap.errors import DownloadError, MissingDataError
from deepbedmap.extras import required_extra
from deepbedmap.registry.records import LOGIN

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)

HOSTS = ("earthdata.nasa.gov", "earthdatacloud.nasa.gov")
"""Domains whose servers receive the login."""

_SOURCES = {
    "environment": "in EARTHDATA_USERNAME and EARTHDATA_PASSWORD",
    "netrc": "in .netrc",
    "interactive": "that was entered",
}


def takes_login(url: str) -> bool:
    """Return whether a URL is on a server that may receive the login.

    Examples
    --------
    >>> takes_login("https://data.nsidc.earthdatacloud.nasa.gov/bed.nc")
    True
    >>> takes_login("http://data.nsidc.earthdatacloud.nasa.gov/bed.nc")
    False
    >>> takes_login("https://earthdata.nasa.gov.example.org/bed.nc")
    False
    """
    parts = urlsplit(url)
    host = f".{parts.hostname or ''}"
    return parts.scheme == "https" and host.endswith(tuple(f".{domain}" for domain in HOSTS))


def session() -> requests.Session:
    """Log in, and return a session whose requests carry the login where it belongs.

    The login is taken from the environment (``EARTHDATA_TOKEN``, or ``EARTHDATA_USERNAME`` and
    ``EARTHDATA_PASSWORD``), then in ``~/.netrc`` (or the file that ``NETRC`` names); where
    standard input is a terminal, the user is prompted last. Logging in again in one process is
    cheap: earthaccess keeps the token.

    The session has a bearer token, not the password, and sends it only by https and only to
    :data:`HOSTS`. earthaccess's own session sends it to any host of the first request. When a
    server redirects to another host, port or scheme, requests removes the token (NASA's storage
    answers with such redirects, to signed addresses); requests then looks for a login of the new
    host in ``.netrc``, as it always does. Proxies and certificates come from the
    environment.

    Returns
    -------
    requests.Session
        For one thread at a time.

    Raises
    ------
    MissingExtraError
        earthaccess is not installed.
    MissingDataError
        There is no login; the message says what to do.
    DownloadError
        The login is refused, or there is no connection. No message contains any part of the login.
    """
    with required_extra("earthdata"):
        import earthaccess
        from earthaccess.exceptions import LoginAttemptFailure, LoginStrategyUnavailable
    is_terminal = sys.stdin is not None and sys.stdin.isatty()
    for strategy in ("environment", "netrc", *(("interactive",) if is_terminal else ())):
        try:
            with _quiet():
                login = earthaccess.login(strategy=strategy)
        except (LoginStrategyUnavailable, EOFError):
            continue
        # From None: the messages of earthaccess may contain what the server, or the user, sent.
        except LoginAttemptFailure:
            raise DownloadError(
                f"https://{LOGIN}: rejects the login {_SOURCES[strategy]}; correct it"
            ) from None
        except requests.RequestException as error:
            raise DownloadError(
                f"https://{LOGIN}: cannot log in: {type(error).__name__}; try again later"
            ) from None
        if login.authenticated:
            logged_in = requests.Session()
            headers = earthaccess.get_requests_https_session().headers
            logged_in.auth = _Bearer(headers["Authorization"])
            return logged_in
    raise MissingDataError(
        f"NASA's Earthdata requires a login: register at https://{LOGIN}, then put the line "
        f"'machine {LOGIN} login NAME password PASSWORD' into ~/.netrc (readable only by you), "
        "or set EARTHDATA_USERNAME and EARTHDATA_PASSWORD, or EARTHDATA_TOKEN"
    )


class _Bearer(requests.auth.AuthBase):
    """Add a token to the requests that may carry it."""

    def __init__(self, header: str) -> None:
        self._header = header

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if takes_login(request.url or ""):
            request.headers["Authorization"] = self._header
        return request


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep earthaccess from logging a rejection, with the server's page, next to our one line."""
    loggers = [logging.getLogger(name) for name in ("earthaccess", "earthaccess_auth")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
