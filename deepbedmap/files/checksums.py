"""The SHA-256 checksum and the size of a file."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_CHUNK = 2**20


class Digest(NamedTuple):
    """The checksum of a file, and its size."""

    sha256: str
    bytes: int


def digest(path: Path, advance: Callable[[int], None] = lambda _: None) -> Digest:
    """Return the checksum and the size of a file; tell how many bytes are read, as they are.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> path = Path(tempfile.mkdtemp()) / "bed.txt"
    >>> _ = path.write_text("-1200")
    >>> digest(path).bytes
    5
    """
    sha256, count = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            sha256.update(chunk)
            count += len(chunk)
            advance(len(chunk))
    return Digest(sha256.hexdigest(), count)
