"""The datasets from which a file was made, according to its provenance."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deepbedmap.errors import Fault, InvalidDataError, MissingDataError, did_you_mean
from deepbedmap.files.checksums import digest
from deepbedmap.provenance import FOLDER_SUFFIXES, provenance_fault, stated_sources

if TYPE_CHECKING:
    from typing import Any

    from deepbedmap.registry.listing import Registry


@dataclass(frozen=True)
class Attribution:
    """The datasets from which a file was made.

    Attributes
    ----------
    citekeys
        Citekeys of the datasets, each once, in the order of the provenance.
    faults
        One for each source that belongs to no dataset of the registry. If there are any, citing
        only ``citekeys`` would be incomplete.
    """

    citekeys: tuple[str, ...]
    faults: tuple[Fault, ...] = ()


def attribute(what: str | os.PathLike[str], registry: Registry) -> Attribution:
    """Find the datasets behind a citekey, a file of the registry, or a file made from those.

    A source belongs to the dataset whose citekey its provenance states; otherwise to the dataset
    with a file of the same checksum; otherwise to the only dataset with a file of the same name,
    unless the registry lists a different checksum for that file. Nothing else is guessed.

    Parameters
    ----------
    what
        A citekey; the path of a grid, prediction, table of picks (.parquet), checkpoint, training
        set (.zarr) or raw file; or the name of a file in the registry, which need not exist
        locally.
    registry
        The registry that lists the datasets.

    Raises
    ------
    InvalidDataError
        The file has no provenance and is not in the registry, or its provenance cannot be read.
    MissingDataError
        There is neither a dataset nor a file of this name.

    Examples
    --------
    >>> from deepbedmap import registry
    >>> attribute("bed_WGS84_grid.txt", registry.load()).citekeys
    ('King2016Rutford',)
    """
    name = os.fspath(what)
    if name in registry:
        return Attribution((name,))
    path = Path(name)
    files = _Files(registry)
    if path.is_file() or (path.suffix in FOLDER_SUFFIXES and path.is_dir()):
        return _attribute_file(path, files)
    citekeys = files.by_name.get(name, {})
    if len(citekeys) == 1:
        return Attribution(tuple(citekeys))
    raise MissingDataError(
        str(
            Fault(
                name,
                expected="a citekey, a file's name in the registry, or the path of a file",
                found=f"files of {' and '.join(citekeys)}" if citekeys else "nothing of this name",
                remedy="name the dataset"
                if citekeys
                else did_you_mean(name, [d.citekey for d in registry] + [*files.by_name]),
            )
        )
    )


class _Files:
    """The files of a registry, by checksum and by name."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.by_checksum: dict[str, set[str]] = {}
        self.by_name: dict[str, dict[str, str | None]] = {}
        for dataset in registry:
            for file in dataset.files:
                if file.sha256:
                    self.by_checksum.setdefault(file.sha256, set()).add(dataset.citekey)
                self.by_name.setdefault(file.filename, {})[dataset.citekey] = file.sha256
                if file.unpacked:
                    self.by_name.setdefault(file.unpacked, {})[dataset.citekey] = None

    def dataset_of(self, source: dict[str, Any]) -> str | None:
        """Return the citekey of the dataset to which a source belongs; None if that is unclear."""
        citekey, checksum, name = (
            value if isinstance(value := source.get(key), str) else ""
            for key in ("citekey", "sha256", "file")
        )
        if citekey in self.registry:
            return citekey
        same_name = {
            candidate
            for candidate, registered in self.by_name.get(name, {}).items()
            if not (registered and checksum) or registered == checksum
        }
        same_content = self.by_checksum.get(checksum, set())
        if same_content:
            candidates = same_content & same_name or same_content
        else:
            candidates = set() if citekey else same_name
        return candidates.pop() if len(candidates) == 1 else None


def _attribute_file(path: Path, files: _Files) -> Attribution:
    unreadable = None
    try:
        sources = stated_sources(path)
    except InvalidDataError as error:
        sources, unreadable = None, error
    if sources is None:
        # Raw files have no provenance, and some have the same suffixes as files written here.
        checksum = digest(path).sha256 if path.is_file() else None
        citekey = files.dataset_of({"file": path.name, "sha256": checksum})
        if citekey:
            return Attribution((citekey,))
        raise unreadable or InvalidDataError(
            Fault(
                str(path),
                expected="a grid, prediction, table of picks or checkpoint with provenance, or a "
                "file of the registry",
                found="no provenance, and neither the name nor the checksum of a file of the "
                "registry",
            )
        )
    citekeys: dict[str, None] = {}
    faults: dict[Fault, None] = {}
    if not sources:
        faults[provenance_fault(path, "at least one source", "none")] = None
    pending = sources[::-1]
    while pending:
        source = pending.pop()
        if not isinstance(source, dict):
            faults[provenance_fault(path, "sources that are mappings", _source_label(source))] = (
                None
            )
        elif isinstance(inner := source.get("sources"), list) and inner:
            pending += inner[::-1]
        elif citekey := files.dataset_of(source):
            citekeys[citekey] = None
        else:
            expected = f"sources listed in {files.registry.path.name}"
            remedy = "cite it by hand, or add it to the registry"
            faults[provenance_fault(path, expected, _source_label(source), remedy)] = None
    return Attribution(tuple(citekeys), tuple(faults))


def _source_label(source: Any) -> str:
    """Describe a source in a few words; the provenance of a file may hold anything."""
    if isinstance(source, dict):
        text = " ".join(
            f"{key} {str(source[key])[:100]!r}"
            for key in ("role", "citekey", "file", "sha256")
            if source.get(key)
        )
        return text or "one without citekey, file and sha256"
    return repr(source)[:100]
