"""Receipts of downloads: the checksum of a file, and where and when it came from.

They are kept next to the data. Where the registry has no checksum (a file without one, an
archive that its server packs anew for every request), the file is checked against its receipt
from then on.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from deepbedmap import files
from deepbedmap.files.checksums import Digest

if TYPE_CHECKING:
    from typing import Any

FOLDER = ".fetched"
"""Folder, beside the files, that holds their receipts."""


@dataclass(frozen=True)
class Receipt:
    """What was fetched, or found in place; None stands for what is not known.

    Attributes
    ----------
    url
        Where the bytes came from; None if a person put them there.
    sha256, bytes
        Of the file; of an archive None where only what was in it was there.
    when
        In UTC, as in ``2026-01-31T12:00:00Z``.
    etag
        What the server called this version.
    content_sha256
        Of an archive: :meth:`deepbedmap.download.archives.Archive.content_sha256`, where that is
        needed.
    members
        Of an archive: what landed in the folder, by name.
    """

    url: str | None
    sha256: str | None
    bytes: int | None
    when: str
    etag: str | None = None
    content_sha256: str | None = None
    members: dict[str, Digest] | None = None

    @classmethod
    def read(cls, target: Path) -> Receipt | None:
        """Return the receipt of a file; None if there is none, or it cannot be read."""
        try:
            said = json.loads(path_of(target).read_text(encoding="utf-8"))
            if said["members"] is not None:
                said["members"] = {
                    str(name): Digest(str(member["sha256"]), int(member["bytes"]))
                    for name, member in said["members"].items()
                }
            receipt = cls(**said)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None
        plain = all(Path(name).name == name for name in receipt.members or ())
        return receipt if plain and isinstance(receipt.when, str) else None

    def write(self, target: Path) -> None:
        """Put the receipt of a file in its place."""
        said: dict[str, Any] = asdict(self)
        if self.members is not None:
            said["members"] = {name: self.members[name]._asdict() for name in sorted(self.members)}
        path_of(target).parent.mkdir(exist_ok=True)
        with files.beside(path_of(target)) as part:
            part.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")


def path_of(target: Path) -> Path:
    """Return where the receipt of a file is."""
    return target.parent / FOLDER / f"{target.name}.json"


def now() -> str:
    """Return the time, as receipts have it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
