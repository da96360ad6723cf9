"""SHA-256 checksums: of a file, of bytes in memory, and of bytes that arrive piece by piece."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from typing_extensions import Buffer

_CHUNK = 2**18


class Digest(NamedTuple):
    """The checksum of a file, and its size.

    Attributes
    ----------
    sha256
        SHA-256 as 64 hexadecimal digits in lower case.
    bytes
        Size in bytes.
    """

    sha256: str
    bytes: int


class Checksum:
    """The SHA-256 of bytes that arrive piece by piece.

    Attributes
    ----------
    update
        Add the next bytes. The interpreter lock is released for pieces above 2 kB.

    Examples
    --------
    >>> checksum = Checksum()
    >>> checksum.update(b"-12")
    >>> checksum.update(b"00")
    >>> checksum.sha256 == sha256_of(b"-1200")
    True
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.update: Callable[[Buffer], None] = self._hash.update

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes so far, as 64 hexadecimal digits in lower case."""
        return self._hash.hexdigest()


def sha256_of(*pieces: Buffer) -> str:
    """Return the SHA-256 of bytes in memory, one piece after the other.

    Parameters
    ----------
    *pieces : bytes-like
        Bytes, or C-contiguous buffers such as the memory of an array.

    Returns
    -------
    str
        64 hexadecimal digits in lower case.

    Examples
    --------
    >>> sha256_of(b"-1200")[:8]
    '2c92928a'
    >>> sha256_of(b"-12", b"00") == sha256_of(b"-1200")
    True
    """
    checksum = Checksum()
    for piece in pieces:
        checksum.update(piece)
    return checksum.sha256


def digest_pieces(pieces: Iterable[bytes | memoryview]) -> Digest:
    """Return the checksum and the size of bytes that an iterator yields piece by piece.

    Examples
    --------
    >>> digest_pieces([b"-12", b"00"]).bytes
    5
    """
    checksum, size = Checksum(), 0
    for piece in pieces:
        checksum.update(piece)
        size += len(piece)
    return Digest(checksum.sha256, size)


def digest(path: Path, advance: Callable[[int], None] = lambda _: None) -> Digest:
    """Return the checksum and the size of a file.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    advance : callable
        Called with the number of bytes of each chunk that has been read.

    Returns
    -------
    Digest
        SHA-256 and size in bytes.

    Raises
    ------
    OSError
        The file cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> path = Path(tempfile.mkdtemp()) / "bed.txt"
    >>> _ = path.write_text("-1200")
    >>> digest(path).bytes
    5
    """

    def chunks() -> Iterator[memoryview]:
        buffer = memoryview(bytearray(_CHUNK))
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                yield buffer[:count]
                advance(count)

    return digest_pieces(chunks())
