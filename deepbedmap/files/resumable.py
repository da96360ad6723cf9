"""Long work in parts that survives a kill: the product is built next to its final path.

A record of the finished parts is kept with it, so that the next run resumes where the last one
stopped. Work with other data or options starts again.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from deepbedmap.errors import DeepBedMapError

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping
    from typing import Any

logger = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


class Parts:
    """A work folder next to a product, and the record of its finished parts.

    The folder ``.<name>.parts`` outlives the process, however it ends; the next run of the same
    work resumes in it. A loss of power may cost a marked part: nothing is forced to disk.

    Parameters
    ----------
    path
        Path of the product.
    identity
        What determines the product: parameters, versions, checksums of the inputs; anything that
        JSON can write. The work folder of another identity is removed.

    Attributes
    ----------
    folder
        Where the product is built. Empty when new work begins.

    Raises
    ------
    DeepBedMapError
        On entry: another process is writing the same product.

    Examples
    --------
    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp()) / "beds.txt"
    >>> with Parts(place, {"spacing": 250}) as parts:
    ...     for name in ("south", "north"):
    ...         if not parts.is_done(name):
    ...             with (parts.folder / "beds.txt").open("a") as file:
    ...                 _ = file.write(name + " ")
    ...             parts.done(name)
    ...     _ = parts.publish(parts.folder / "beds.txt")
    >>> place.read_text(), [file.name for file in place.parent.iterdir()]
    ('south north ', ['beds.txt'])
    """

    def __init__(self, path: str | os.PathLike[str], identity: Mapping[str, Any]) -> None:
        import filelock  # not at module level: the network loads this module on bare GPU machines

        self.path = Path(path).absolute()
        self._root = self.path.with_name(f".{self.path.name}.parts")
        self._lock_file = self.path.with_name(f".{self.path.name}.lock")
        self._lock = filelock.FileLock(self._lock_file)
        self._identity = json.dumps(identity, sort_keys=True)
        self._identity_file = self._root / "identity.json"
        self._marks = self._root / "done"
        self.folder = self._root / "product"

    def __enter__(self) -> Parts:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(blocking=False)
        except TimeoutError as error:
            raise DeepBedMapError(
                f"{self.path}: another process is writing it; wait until it ends, or choose"
                " another name"
            ) from error
        try:
            self._open()
        except BaseException:
            self._unlock()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._unlock()

    def _unlock(self) -> None:
        self._lock_file.unlink(missing_ok=True)  # before another process can lock it
        self._lock.release()

    def _open(self) -> None:
        if self._is_the_same():
            logger.info("%s: resuming an earlier run; finished parts: %d", self.path, self.count)
            return
        if self._root.exists():
            logger.info("%s: dropping an earlier run with other data or options", self.path)
            shutil.rmtree(self._root)
        self.folder.mkdir(parents=True)
        self._marks.mkdir()
        unfinished = self._identity_file.with_suffix(".part")
        unfinished.write_text(self._identity)
        unfinished.replace(self._identity_file)

    def _is_the_same(self) -> bool:
        try:
            return self._identity_file.read_text() == self._identity
        except (OSError, ValueError):
            return False

    @property
    def count(self) -> int:
        """Number of finished parts."""
        return len(list(self._marks.iterdir()))

    def is_done(self, name: str) -> bool:
        """Return whether a part was marked as finished, by this run or an earlier one."""
        return self._mark(name).exists()

    def done(self, name: str) -> None:
        """Mark a part as finished; its data are in the folder."""
        self._mark(name).touch()

    def _mark(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise ValueError(f"a part's name is letters, digits, '_', '-' and '.', not {name!r}")
        return self._marks / name

    def publish(self, product: Path) -> Path:
        """Move the product to its path, replacing an earlier one, and remove the work folder.

        Parameters
        ----------
        product
            A file or a folder in :attr:`folder`. A file replaces a file in one step. Where a folder
            is replaced, the path is empty for a moment.

        Returns
        -------
        pathlib.Path
            The path of the product.
        """
        # Without its identity the work folder cannot be resumed: the product leaves it.
        self._identity_file.unlink()
        if self.path.is_dir() and not self.path.is_symlink():
            self.path.rename(self._root / "replaced")
        elif product.is_dir():
            self.path.unlink(missing_ok=True)
        product.replace(self.path)
        shutil.rmtree(self._root)
        return self.path
