"""Refuse a download or an archive that the disk has no room for, before its first byte."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from deepbedmap.errors import DownloadError

if TYPE_CHECKING:
    from pathlib import Path

SPARE = 100 * 2**20
"""Bytes of the disk that are left free."""


def require_space(
    place: Path, size: int, purpose: str = "download", error: type[DownloadError] = DownloadError
) -> None:
    """Raise an error where the disk has no room for this many bytes.

    Parameters
    ----------
    place : pathlib.Path
        The file or folder to write; it need not exist yet.
    size : int
        Bytes to write.
    purpose : str
        What the bytes are for, in the message: ``"download"`` or ``"unpack"``.
    error : type
        The error to raise.

    Raises
    ------
    DownloadError
        Less than ``size`` and :data:`SPARE` bytes are free.
    """
    free = free_space(place)
    if size > max(0, free - SPARE):
        raise error(
            f"{place}: {size:,} bytes to {purpose}, but the disk has only {free:,} free (of which "
            f"{SPARE:,} are kept); make room, or choose another folder"
        )


def free_space(place: Path) -> int:
    """Return the free bytes of the disk on which a file or folder is, or would be."""
    return shutil.disk_usage(existing_folder(place)).free


def existing_folder(place: Path) -> Path:
    """Return a folder, or the nearest folder above it that exists."""
    return next(path for path in (place, *place.absolute().parents) if path.is_dir())
