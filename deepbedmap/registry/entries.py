"""Fields of a registry entry as they are written in ``data_list.yml``.

A compact list of files is spelled out into one mapping per file; licences are written as
SPDX identifiers, and coordinate reference systems are looked up in PROJ.
"""

from __future__ import annotations

import base64
import functools
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from deepbedmap import schemas


def each_file(
    place: schemas.Place, entry: dict[str, Any]
) -> Iterator[tuple[schemas.Place, dict[str, Any]]]:
    """Yield each file of an entry with its place; compact lists are spelled out."""
    for number, file in enumerate(list_or_empty(entry.get("files"))):
        if not isinstance(file, dict):
            continue
        names = file.get("filenames")
        if not isinstance(names, dict):
            yield (*place, number), file
            continue
        common = {key: value for key, value in file.items() if key != "filenames"}
        for name, own in names.items():
            own = own if isinstance(own, dict) else {"sha256": own}
            written = {**common, "sha256": None, **own, "filename": name}
            for key in ("url", "mirrors"):
                written[key] = _filled_in(common.get(key), name)
            yield (*place, number, "filenames", name), written


def _filled_in(url: Any, filename: str) -> Any:
    """Fill a file's name into a URL, or each of a list of URLs, at {filename} and the like."""
    if isinstance(url, list):
        return [_filled_in(one, filename) for one in url]
    if not isinstance(url, str):
        return url
    names = {
        "filename": quote(filename),
        "stem": quote(Path(filename).stem),
        # RAMADDA addresses a file of an entry by its path there, in base 64.
        "ramadda": quote(base64.b64encode(f"/{filename}".encode()).decode(), safe=""),
    }
    for name, value in names.items():
        url = url.replace(f"{{{name}}}", value)
    return url


def spdx_identifier(licence: str) -> str | None:
    """Return the SPDX identifier of a licence; None if SPDX has no such licence.

    Examples
    --------
    >>> spdx_identifier("cc-by-4.0")
    'CC-BY-4.0'
    """
    from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

    try:
        return canonicalize_license_expression(licence)
    except InvalidLicenseExpression:
        return None


@functools.cache
def is_known_crs(name: str) -> bool:
    """Return whether PROJ recognises the name of a CRS, such as ``EPSG:3031``."""
    if name in ("EPSG:3031", "EPSG:4326"):  # nearly all of them, and pyproj takes a while to load
        return True
    import pyproj

    try:
        pyproj.CRS(name)
    except pyproj.exceptions.CRSError:
        return False
    return True


def list_or_empty(value: Any) -> list[Any]:
    """Return the value if it is a list, otherwise an empty list."""
    return value if isinstance(value, list) else []
