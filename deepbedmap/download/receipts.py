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
"""Folder next to the files that holds their receipts."""


@dataclass(frozen=True)
class Receipt:
    """The origin and the checksum of a file that was downloaded or already on disk.

    None stands for an unknown value.

    Attributes
    ----------
    url
        Where the bytes came from; None if a person put the file there.
    sha256, bytes
        Of the file; None for an archive of which only the extracted files are on disk.
    when
        In UTC, as in ``2026-01-31T12:00:00Z``.
    etag
        The server's name for this version.
    content_sha256
        Of an archive: :meth:`deepbedmap.download.archives.Archive.content_sha256`, where it was
        computed.
    members
        Of an archive: checksums and sizes of the extracted files, by name.
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
            fields = json.loads(path_of(target).read_text(encoding="utf-8"))
            if fields["members"] is not None:
                fields["members"] = {
                    str(name): Digest(str(member["sha256"]), int(member["bytes"]))
                    for name, member in fields["members"].items()
                }
            receipt = cls(**fields)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None
        plain = all(Path(name).name == name for name in receipt.members or ())
        return receipt if plain and isinstance(receipt.when, str) else None

    def write(self, target: Path) -> None:
        """Write the receipt of a file."""
        fields: dict[str, Any] = asdict(self)
        if self.members is not None:
            fields["members"] = {
                name: self.members[name]._asdict() for name in sorted(self.members)
            }
        path_of(target).parent.mkdir(exist_ok=True)
        with files.beside(path_of(target)) as part:
            part.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")


def path_of(target: Path) -> Path:
    """Return the path of the receipt of a file."""
    return target.parent / FOLDER / f"{target.name}.json"


def now() -> str:
    """Return the current time in the format of receipts."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
