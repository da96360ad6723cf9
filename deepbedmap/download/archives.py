"""Unpack zip and tar archives from untrusted sources."""

from __future__ import annotations

import contextlib
import fnmatch
import lzma
import stat
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, cast

from deepbedmap.errors import DownloadError
from deepbedmap.files.checksums import Digest, digest_pieces, sha256_of
from deepbedmap.registry.records import ARCHIVE_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path
    from typing import IO

    from deepbedmap.registry.records import File

LARGEST_RATIO = 200
"""Largest ratio of the size of the contents to that of the archive; text has about 10."""

MOST_MEMBERS = 10_000
"""Largest number of members of an archive that are extracted into a folder."""

_CHUNK = 2**18
_HEADER = 512
_BROKEN = (
    OSError,
    EOFError,
    RuntimeError,  # a password, or a compression that Python does not support
    ValueError,
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
)


class ArchiveError(DownloadError):
    """An archive is broken or unsafe, or does not contain the expected files."""


def is_archive(name: str) -> bool:
    """Return whether a name, or the path of a URL, is that of an archive.

    Examples
    --------
    >>> is_archive("rema_mosaic_500m.tar.gz"), is_archive("rema_mosaic_500m.tif")
    (True, False)
    """
    return name.lower().endswith(ARCHIVE_SUFFIXES)


@dataclass(frozen=True)
class Member:
    """A file in an archive: its path there, its size in bytes, and its contents."""

    path: str
    size: int
    _of: str
    _open: Callable[[], IO[bytes]]

    @property
    def name(self) -> str:
        """The path without its folders."""
        return PurePosixPath(self.path.replace("\\", "/")).name

    def digest(self) -> Digest:
        """Return the checksum and the size of the contents.

        Raises
        ------
        ArchiveError
            The archive is broken.
        """
        return self._read(lambda _: None)

    def extract(self, to: Path) -> Digest:
        """Write the contents into a file; return their checksum and size.

        Raises
        ------
        ArchiveError
            The archive is broken.
        OSError
            The file cannot be written.
        """
        with to.open("wb") as file:
            return self._read(file.write)

    def _read(self, write: Callable[[bytes], object]) -> Digest:
        def written() -> Iterator[bytes]:
            for chunk in self._chunks():
                write(chunk)  # not inside _chunks: a full disk is no fault of the archive
                yield chunk

        return digest_pieces(written())

    def _chunks(self) -> Iterator[bytes]:
        try:
            with self._open() as packed:
                while chunk := packed.read(_CHUNK):
                    yield chunk
        except _BROKEN as error:
            raise _broken(self._of, error) from error


@dataclass(frozen=True)
class Archive:
    """The files of an open archive, without those that macOS adds."""

    called: str
    members: tuple[Member, ...]

    def choose(self, file: File) -> dict[str, Member]:
        """Return the members that the registry names, by their file names on disk.

        Raises
        ------
        ArchiveError
            It contains no such file, several of them, or one with an unsafe name.
        """
        if file.members is not None:
            return self._matching(file.members)
        if file.member is not None:
            wanted = f"a file {file.member!r}"
            matching = [member for member in self.members if member.path == file.member]
        elif file.unpacked is not None:
            wanted = "one file"
            matching = [*self.members]
        else:
            wanted = f"one file called {file.filename!r}"
            matching = [member for member in self.members if member.name == file.filename]
        if len(matching) != 1:
            raise self._wrong(f"should contain {wanted}, but contains {self._some()}")
        return {file.name: matching[0]}

    def content_sha256(self) -> str:
        r"""Return one checksum of all contents, which does not depend on how they are packed.

        It is the SHA-256 of the lines ``<sha256>  <path>\n`` of its files, sorted, as ``sha256sum``
        prints them.

        Raises
        ------
        ArchiveError
            It is broken.
        """
        lines = sorted(f"{member.digest().sha256}  {member.path}\n" for member in self.members)
        return sha256_of("".join(lines).encode("utf-8", "surrogateescape"))

    def _matching(self, pattern: str) -> dict[str, Member]:
        matches: dict[str, Member] = {}
        taken = set()
        for member in self.members:
            name = member.name
            if not fnmatch.fnmatchcase(name, pattern):
                continue
            if name.startswith(".") or ":" in name or not name.isprintable():
                raise self._wrong(f"contains an unsafe name, {member.path!r}")
            if name.casefold() in taken:  # one name to many file systems
                raise self._wrong(f"contains two files called {name!r}")
            taken.add(name.casefold())
            matches[name] = member
            if len(matches) > MOST_MEMBERS:
                raise self._wrong(f"contains more than {MOST_MEMBERS:,} files like {pattern!r}")
        if not matches:
            raise self._wrong(f"should contain files like {pattern!r}, but contains {self._some()}")
        return matches

    def _some(self) -> str:
        names = ", ".join(repr(member.path)[1:-1] for member in self.members[:10]) or "nothing"
        more = len(self.members) - 10
        return names + (f" and {more} more" if more > 0 else "")

    def _wrong(self, why: str) -> ArchiveError:
        return ArchiveError(f"{self.called}: the archive {why}")


@contextlib.contextmanager
def opened(path: Path, called: str | None = None) -> Iterator[Archive]:
    """Open a zip or tar archive, compressed or not, until the context ends.

    Parameters
    ----------
    path
        The archive.
    called
        Its name in error messages; by default its path.

    Raises
    ------
    ArchiveError
        It is not an archive, or a broken one; or it is unsafe: it contains a path outside its
        folder, a link, a device, or more than :data:`LARGEST_RATIO` times its own size.
    """
    called = called or str(path)
    with contextlib.ExitStack() as stack:
        try:
            members = tuple(_safe(_entries(path, called, stack), path, called))
        except ArchiveError:
            raise
        except _BROKEN as error:
            raise _broken(called, error) from error
        yield Archive(called, members)


def _broken(called: str, error: BaseException) -> ArchiveError:
    why = " ".join(str(error).split()) or "it is truncated"
    return ArchiveError(f"{called}: the archive cannot be unpacked: {why}")


@dataclass(frozen=True)
class _Entry:
    member: Member
    is_folder: bool
    is_file: bool


def _entries(path: Path, called: str, stack: contextlib.ExitStack) -> Iterator[_Entry]:
    with path.open("rb") as file:
        is_zip = file.read(2) == b"PK"
    if is_zip:
        archive = stack.enter_context(zipfile.ZipFile(path))
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            yield _Entry(
                Member(info.filename, info.file_size, called, partial(archive.open, info)),
                is_folder=info.is_dir(),
                is_file=kind in (0, stat.S_IFREG),
            )
        return
    try:
        tar = stack.enter_context(tarfile.open(path))  # noqa: SIM115  (the stack closes it)
    except tarfile.ReadError as error:
        # Python's own message has one line for each compression that it tried.
        raise tarfile.ReadError("it is not a zip or tar archive, or it is broken") from error
    extract = cast("Callable[[tarfile.TarInfo], IO[bytes]]", tar.extractfile)
    for entry in tar:
        yield _Entry(
            Member(entry.name, entry.size, called, partial(extract, entry)),
            is_folder=entry.isdir(),
            is_file=entry.isreg(),
        )


def _safe(entries: Iterable[_Entry], archive: Path, called: str) -> Iterator[Member]:
    room = max(2**26, LARGEST_RATIO * archive.stat().st_size)
    for entry in entries:
        member = entry.member
        path = PurePosixPath(member.path.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or any(":" in part for part in path.parts[:1]):
            raise ArchiveError(f"{called}: the archive contains an unsafe name, {member.path!r}")
        room -= abs(member.size) + _HEADER  # a broken tar has sizes below 0
        if room < 0:
            raise ArchiveError(
                f"{called}: the archive unpacks to more than {LARGEST_RATIO} times its size"
            )
        if entry.is_folder:
            continue
        if not entry.is_file:
            raise ArchiveError(
                f"{called}: the archive contains a link or a device, {member.path!r}"
            )
        if path.parts[:1] != ("__MACOSX",):  # attributes that macOS packs with every file
            yield member
