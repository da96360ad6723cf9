"""Compare the files on disk with the registry and with the receipts of earlier downloads."""

from __future__ import annotations

import logging
import re
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from deepbedmap import files
from deepbedmap import registry as registries
from deepbedmap.download import archives
from deepbedmap.download.archives import ArchiveError
from deepbedmap.download.choosing import choose_files, data_folder
from deepbedmap.download.progress import Bars
from deepbedmap.download.receipts import FOLDER, Receipt
from deepbedmap.download.workers import run_all
from deepbedmap.errors import WrongCallError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from deepbedmap.download.choosing import WantedFile
    from deepbedmap.files.checksums import Digest
    from deepbedmap.registry.listing import Registry
    from deepbedmap.registry.records import File

logger = logging.getLogger(__name__)

CheckState = Literal["ok", "differs", "missing", "unchecked", "extra"]


@dataclass(frozen=True)
class Checked:
    """The result of :func:`verify` for one file.

    Attributes
    ----------
    path
        The file.
    citekey
        Its dataset; None for a file of no dataset.
    state
        ``"ok"``; ``"differs"`` from the registry or its receipt; ``"missing"``; ``"unchecked"``,
        no checksum is known; ``"extra"``, neither the registry nor a receipt names it.
    expected, found
        The expected and the present contents, such as ``sha256 1f3a...``.
    by_receipt
        Whether it was checked against a receipt, since the registry has no checksum.
    digest
        Checksum and size of the file on disk.
    """

    path: Path
    citekey: str | None
    state: CheckState
    expected: str | None = None
    found: str | None = None
    by_receipt: bool = False
    digest: Digest | None = None


def verify(
    names: str | Iterable[str] = (),
    jobs: int = 4,
    progress: bool = True,
    *,
    registry: Registry | None = None,
    data_dir: str | Path | None = None,
) -> list[Checked]:
    """Read the files on disk, and compare them with the registry and with the receipts.

    Nothing is changed, and no connection is opened.

    Parameters
    ----------
    names
        See :func:`fetch`; by default every dataset, and all other files in the folders.
    jobs
        Number of files read simultaneously.
    progress, registry, data_dir
        See :func:`fetch`.

    Returns
    -------
    list of Checked
        One for each file; for an archive also one for each extracted file. Where whole folders are
        verified, files that the registry does not name come last.

    Raises
    ------
    MissingDataError, InvalidDataError
        See :func:`fetch`.
    """
    if jobs < 1:
        raise WrongCallError(f"jobs must be at least 1, not {jobs}")
    registry = registries.load() if registry is None else registry
    folders = sorted({dataset.folder for dataset in registry})
    names = [names] if isinstance(names, str) else [*names]
    wanted, _ = choose_files(names or folders, None, registry, data_dir)
    stop = threading.Event()
    with Bars(progress, stop) as bars:
        checked = [one for found in inspect_files(wanted, jobs, bars, stop) for one in found]
    for folder in folders:
        if not names or folder in [name.rstrip("/") for name in names]:
            checked += _extra(registry, data_folder(data_dir) / folder)
    return checked


def inspect_files(
    wanted: list[WantedFile], jobs: int, bars: Bars, stop: threading.Event
) -> list[list[Checked]]:
    """Read and compare every file that is on disk."""
    places = {path for item in wanted for path in (item.target, *item.paths)}
    size = sum(path.stat().st_size for path in places if path.is_file())
    with bars.bar("checking the files on disk", size) as bar:
        return run_all(lambda item: inspect_file(item, bar.advance), wanted, jobs, stop)


def inspect_file(
    item: WantedFile, advance: Callable[[int], None] = lambda _: None
) -> list[Checked]:
    """Compare a file, and those extracted from it, with the registry, else with its receipt."""
    file, receipt = item.file, Receipt.read(item.target)
    known = None if item.has_checksum else receipt
    expected, by_receipt = known.sha256 if known else file.sha256, known is not None
    whole = _check(item, item.target, expected, by_receipt, advance, file.bytes)
    if not item.unpacks:
        return [whole]
    try:
        content = known.content_sha256 if known else file.content_sha256
        if content and whole.digest and whole.state != "ok":
            with archives.opened(item.target) as archive:
                found = archive.content_sha256()
            state: CheckState = "ok" if found == content else "differs"
            whole = replace(
                whole, state=state, expected=f"content {content}", found=f"content {found}"
            )
        members = [
            _check(item, item.folder / name, sha256, by_receipt, advance)
            for name, sha256 in _unpacked(item, whole, receipt).items()
        ]
    except ArchiveError as error:
        found = str(error).removeprefix(f"{item.target}: ")
        return [replace(whole, state="differs", expected="an archive", found=found)]
    if whole.state == "missing":
        if all(one.state == "missing" for one in members):
            return [whole]
        if all(one.state == "ok" for one in members):
            return members
    return [whole, *members]


def _check(
    item: WantedFile,
    path: Path,
    sha256: str | None,
    by_receipt: bool,
    advance: Callable[[int], None],
    size: int | None = None,
) -> Checked:
    """Compare a file with its checksum, or else with its size."""
    checked = Checked(path, item.dataset.citekey, "missing", by_receipt=by_receipt)
    if sha256 is not None:
        checked = replace(checked, expected=f"sha256 {sha256}")
    elif size is not None:
        checked = replace(checked, expected=f"{size:,} bytes")
    if path.is_dir():
        return replace(checked, state="differs", expected="a file", found="a folder")
    if not path.is_file():
        return checked
    found = files.digest(path, advance)
    checked = replace(checked, found=f"sha256 {found.sha256}", digest=found)
    if sha256 is not None:
        return replace(checked, state="ok" if found.sha256 == sha256 else "differs")
    if size is not None and found.bytes != size:
        return replace(checked, state="differs", found=f"{found.bytes:,} bytes")
    return replace(checked, state="unchecked")


def _unpacked(item: WantedFile, whole: Checked, receipt: Receipt | None) -> dict[str, str | None]:
    """Return the files that are extracted from an archive, with their checksums where known."""
    file = item.file
    expected: dict[str, str | None] = {} if file.unpacked is None else {file.unpacked: None}
    if receipt is not None and receipt.members is not None and _fits(receipt, file):
        expected = {name: member.sha256 for name, member in receipt.members.items()}
    elif whole.state in ("ok", "unchecked"):
        with archives.opened(item.target) as archive:
            chosen = archive.choose(file)
            there = any((item.folder / name).is_file() for name in chosen)
            expected = {
                name: member.digest().sha256 if there else None for name, member in chosen.items()
            }
    if file.unpacked is not None and file.unpacked_sha256 is not None:
        expected[file.unpacked] = file.unpacked_sha256
    return expected


def _fits(receipt: Receipt, file: File) -> bool:
    """Return whether a receipt describes the version of an archive in the registry."""
    if file.content_sha256 is not None and receipt.content_sha256 == file.content_sha256:
        return True
    if file.sha256 is None:
        return file.content_sha256 is None
    return receipt.sha256 == file.sha256


def warn_unchecked(path: Path, sha256: str | None) -> None:
    """Log a warning that a file was accepted without a checksum, with its SHA-256."""
    logger.warning(
        "%s: accepted unchecked, since the registry has no checksum; its sha256 is %s",
        path,
        sha256,
    )


def difference_message(wrong: Checked, item: WantedFile) -> str:
    """Return a message that says how a file differs from what was expected, and what to do."""
    expected = f"{wrong.expected}"
    receipt = Receipt.read(item.target)
    if wrong.digest is None:  # a folder, or not an archive
        pass
    elif wrong.by_receipt and receipt is not None:
        expected += f" as its receipt of {receipt.when} has it"
    elif wrong.path != item.target:
        expected += f" as {item.target.name} holds it"
    remedy = "move it away, or correct the registry"
    if item.can_be_fetched:
        remedy = f"move it away, or `deepbedmap fetch --again {item.file.filename}` replaces it"
    elif wrong.by_receipt and item.target.exists():
        remedy = f"`deepbedmap fetch --again {item.file.filename}` accepts it"
    return f"{wrong.path}: expected {expected}, found {wrong.found}; {remedy}"


def _extra(registry: Registry, folder: Path) -> Iterator[Checked]:
    """Yield the files of a folder that neither the registry nor a receipt names."""
    known = {"README.md", "gmt.conf", "gmt.history"}
    for dataset in registry:
        known |= {*dataset.pipelines} if folder.name == "highres" else set()
        if dataset.folder == folder.name:
            known |= {name for file in dataset.files for name in (file.filename, file.name)}
    for path in (folder / FOLDER).glob("*.json"):
        name = path.name.removesuffix(".json")
        receipt = Receipt.read(folder / name)
        known |= {name, *((receipt and receipt.members) or ())}
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        name = re.sub(r"\.(part|part\.json|aux\.xml)$", "", "/".join(parts))
        if path.is_file() and not any(part.startswith(".") for part in parts) and name not in known:
            yield Checked(path, None, "extra")
