"""Request the size of a file from an FTP server, which also shows whether the file exists."""

from __future__ import annotations

import contextlib
import ftplib
from urllib.parse import unquote, urlsplit


def ftp_size(url: str, timeout: float) -> int | None:
    """Return the size of a file on an FTP server, without downloading it.

    Parameters
    ----------
    url : str
        ``ftp://[user[:password]@]host[:port]/path``; the path may be percent-encoded.
    timeout : float
        Seconds without an answer after which the server is given up.

    Returns
    -------
    int or None
        Size in bytes; None if the server answers without a size.

    Raises
    ------
    ftplib.Error
        The server refuses the login, has no such file, or does not report sizes.
    OSError, EOFError
        There is no connection, or it broke.
    """
    parts = urlsplit(url)
    with contextlib.closing(ftplib.FTP(timeout=timeout)) as server:  # noqa: S321
        server.connect(parts.hostname or "", parts.port or ftplib.FTP_PORT)
        server.login(unquote(parts.username or ""), unquote(parts.password or ""))
        server.voidcmd("TYPE I")  # many servers report sizes of binary transfers only
        return server.size(unquote(parts.path))
