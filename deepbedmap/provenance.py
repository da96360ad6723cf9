"""Provenance: the files from which a file was made.

Grids, predictions, tables of picks and checkpoints carry their provenance as a JSON
document with a list of ``sources``. A source states its ``file``, the ``sha256`` of that
file and, where known, the ``citekey`` of its dataset. A source that was itself derived
from others (the checkpoint of a prediction) has ``sources`` of its own.
"""

from __future__ import annotations

import json
import subprocess
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from deepbedmap import repository
from deepbedmap.errors import Fault, InvalidDataError
from deepbedmap.extras import required_extra
from deepbedmap.files.checksums import digest

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping
    from typing import Any


def parsed(text: Any) -> dict[str, Any] | None:
    """Read a JSON object, such as a provenance; None where the text holds none."""
    try:
        content = json.loads(text or "{}")
    except (TypeError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def provenance_of(attributes: Mapping[Any, Any]) -> dict[str, Any]:
    """Read the provenance that attributes state; other text than a JSON object is its ``text``.

    Examples
    --------
    >>> provenance_of({"provenance": '{"sources": []}'}), provenance_of({}), provenance_of(
    ...     {"provenance": "by hand"}
    ... )
    ({'sources': []}, {}, {'text': 'by hand'})
    """
    text = attributes.get("provenance")
    document = parsed(text)
    return {"text": text} if document is None else document


def describe_file(path: str | os.PathLike[str], role: str) -> dict[str, Any]:
    """Describe a file as a source, for the provenance of what is made of it.

    Parameters
    ----------
    path
        Of a raw file, or of one that states its provenance: then that goes with it.
    role
        What the file is used as, such as ``"prior"`` or ``"checkpoint"``.

    Returns
    -------
    dict
        ``role``, ``file`` (its plain name), ``sha256`` (not of a folder) and, where the file states
        its own, ``sources``.
    """
    path = Path(path)
    described: dict[str, Any] = {"role": role, "file": path.name}
    if not path.exists():
        return described
    if path.is_file():
        described["sha256"] = digest(path).sha256
    sources = stated_sources(path)
    return described if sources is None else {**described, "sources": sources}


def describe_source(
    role: str,
    name: str,
    attributes: Mapping[Any, Any] | None = None,
    file: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Describe data in memory as a source, by what their attributes state.

    Parameters
    ----------
    role
        What the data are used as, such as ``"prior"``.
    name
        The file that they came from, or another name.
    attributes
        Of the data: their provenance, if any, states ``sources``.
    file
        File that holds the data; its checksum is taken.

    Returns
    -------
    dict
        As of :func:`describe_file`.
    """
    described: dict[str, Any] = {"role": role, "file": Path(name).name}
    if file is not None and Path(file).is_file():
        described["sha256"] = digest(Path(file)).sha256
    provenance = provenance_of(attributes or {})
    return described | ({"sources": provenance["sources"]} if "sources" in provenance else {})


def provenance_fault(path: Path, expected: str, found: str, remedy: str | None = None) -> Fault:
    """Return a fault in the provenance of a file, for an error message."""
    return Fault(str(path), field="provenance", expected=expected, found=found, remedy=remedy)


def stated_texts(path: Path) -> list[Any]:
    """Return what a file states of its provenance, unread; of some formats one text a variable."""
    read = _READERS.get(path.suffix.lower())
    if read is None:
        return []
    try:
        return read(path)
    except Exception as error:  # readers of four formats, each with exceptions of its own
        found = f"one that fails: {error}"
        expected = f"a complete {path.suffix} file"
        raise InvalidDataError(Fault(str(path), expected=expected, found=found)) from error


def stated_sources(path: Path) -> list[Any] | None:
    """The sources that a file's provenance lists; None where it states no provenance."""
    texts = stated_texts(path)
    if not texts:
        return None
    sources: list[Any] = []
    for text in texts:
        try:
            document = json.loads(text)
            listed = document.get("sources", [])
        except (AttributeError, TypeError, ValueError, RecursionError):
            listed = None
        if not isinstance(listed, list):
            expected = "JSON: a mapping with a list of sources"
            raise InvalidDataError(provenance_fault(path, expected, repr(text)[:100]))
        sources += listed
    return sources


def _read_netcdf(path: Path) -> list[Any]:
    import xarray as xr

    with xr.open_dataset(path, engine="h5netcdf", decode_cf=False) as dataset:
        holders = [dataset.attrs, *(variable.attrs for variable in dataset.variables.values())]
        return [attrs["provenance"] for attrs in holders if "provenance" in attrs]


def _read_zarr(path: Path) -> list[Any]:
    with required_extra("grid"):
        import zarr

    group = zarr.open_group(path, mode="r")
    holders = [group.attrs, *(array.attrs for _, array in group.arrays())]
    return [attrs["provenance"] for attrs in holders if "provenance" in attrs]


def _read_geotiff(path: Path) -> list[Any]:
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as dataset:
            tags = dataset.tags()
    return [tags["provenance"]] if "provenance" in tags else []


def _read_checkpoint(path: Path) -> list[Any]:
    with required_extra("model"):
        from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        header = file.metadata() or {}
    return [header["deepbedmap"]] if "deepbedmap" in header else []


def _read_table(path: Path) -> list[Any]:
    from pyarrow import parquet

    metadata = parquet.read_schema(path).metadata or {}
    return [metadata[b"PANDAS_ATTRS"]] if b"PANDAS_ATTRS" in metadata else []


_READERS: dict[str, Callable[[Path], list[Any]]] = {
    ".nc": _read_netcdf,
    ".tif": _read_geotiff,
    ".tiff": _read_geotiff,
    ".safetensors": _read_checkpoint,
    ".parquet": _read_table,
    ".zarr": _read_zarr,
}
FOLDER_SUFFIXES = (".zarr",)


def registry_commit() -> str | None:
    """Return the commit of the checkout that holds the registry, ``-modified`` if that differs.

    None where there is no checkout, or no git.
    """

    def git(*words: str) -> str:
        command = ["git", "-C", str(repository.root()), *words]
        return subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        changed = git("status", "--porcelain", "--", "data_list.yml")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}-modified" if changed else commit
