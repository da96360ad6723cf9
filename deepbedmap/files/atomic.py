"""Write a file completely or not at all.

A product is built under a temporary name or in a temporary folder next to its final path, and
renamed once it is complete. A full or read-only disk is reported as such, and what was there
before is kept.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from deepbedmap.errors import Fault, InvalidDataError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to a file, and rename it to the file at the end.

    The file appears complete or not at all, and nothing is left where writing fails.

    Examples
    --------
    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp()) / "bed.txt"
    >>> with beside(place) as part:
    ...     _ = part.write_text("-1200")
    >>> [file.name for file in place.parent.iterdir()]
    ['bed.txt']
    """
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


_UNWRITABLE = [
    *(os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)),
    *(os.strerror(code) for code in (errno.EACCES, errno.EPERM, errno.EROFS)),
    *(os.strerror(code) for code in (errno.ENOTDIR, errno.EEXIST)),
    *("Write failed", "Write error", "write error"),  # from GDAL, which does not give the reason
]


@contextmanager
def workplace(path: Path) -> Iterator[Path]:
    """Yield a temporary folder next to a product to build it in; it is removed at the end.

    Raises
    ------
    InvalidDataError
        The disk is full, or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=f".{path.name}.", dir=path.parent, ignore_cleanup_errors=True
        ) as folder:
            yield Path(folder)
    except (OSError, RuntimeError) as error:  # HDF5 raises either, GDAL its own OSError
        reason = next((text for text in _UNWRITABLE if text in _chain(error)), None)
        if reason is None:
            raise
        raise InvalidDataError(
            Fault(
                str(path),
                expected="a folder with room that can be written",
                found=f"{reason.lower()}; nothing was written",
                remedy="make room, or choose another folder",
            )
        ) from error


def _chain(error: BaseException | None) -> str:
    """Return the messages of an error and of its causes."""
    return "" if error is None else f"{error}\n{_chain(error.__cause__ or error.__context__)}"


@contextlib.contextmanager
def room_for(path: Path, size: int) -> Iterator[None]:
    """Report a full disk in one line, and that nothing was lost."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        kept = "the existing file is kept" if path.exists() else "nothing was written"
        has_begun = (path.parent / "last.safetensors").exists()
        raise InvalidDataError(
            Fault(
                str(path),
                expected=f"room for {size / 1e6:.1f} MB",
                found=f"a full disk; {kept}",
                remedy="make room, then " + ("resume" if has_begun else "begin again"),
            )
        ) from error
