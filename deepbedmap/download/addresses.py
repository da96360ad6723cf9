"""Addresses of files: their hosts, and how they are shown without passwords."""

from __future__ import annotations

import re
from urllib.parse import urlsplit


def without_password(url: str) -> str:
    """Return a URL without the user name and the password in it.

    Examples
    --------
    >>> without_password("ftp://me:secret@example.org/bed.csv")
    'ftp://example.org/bed.csv'
    """
    return re.sub(r"^(\w+://)[^/?#]*@", r"\1", url)


def host_of(url: str) -> str:
    """Return the host of a URL, with its port but without user name and password.

    Examples
    --------
    >>> host_of("ftp://me:secret@example.org:2121/bed.csv")
    'example.org:2121'
    >>> host_of("doi:10.5281/zenodo.4924875/tiny-data.txt")
    'doi.org'
    """
    parts = urlsplit(url)
    return "doi.org" if parts.scheme == "doi" else parts.netloc.rpartition("@")[2]
