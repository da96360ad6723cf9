"""Write the report of an evaluation as one HTML page.

The page contains its images and its style, and states how to reproduce it.
"""

from __future__ import annotations

import base64
import os
import platform
import struct
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from deepbedmap import files
from deepbedmap.errors import DeepBedMapError, Fault, InvalidDataError, WrongCallError
from deepbedmap.registry.attribution import attribute
from deepbedmap.registry.citation import cite
from deepbedmap.report.evaluation_figures import draw_evaluation
from deepbedmap.report.tables import bed_files, in_a_list, sections_of, summary_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pandas as pd

    from deepbedmap.evaluation.comparing import Row
    from deepbedmap.evaluation.sampling import Raster
    from deepbedmap.rasters.geoids import Geoids
    from deepbedmap.registry.listing import Registry
    from deepbedmap.report.evaluation_figures import Figure

_PACKAGES = ("numpy", "scipy", "pandas", "xarray", "rasterio", "pyproj", "pygmt", "torch")
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class _Image:
    uri: str
    width: int
    height: int


def require_place(path: str | os.PathLike[str]) -> Path:
    """Return the path of a page after checking, before any work, that it can be written.

    Raises
    ------
    InvalidDataError
        The name does not end in .html, its folder does not exist or is not writable, or the path
        is a folder.
    """
    path = Path(path)
    found = None
    if path.suffix.lower() not in (".html", ".htm"):
        found = path.suffix or "no suffix"
    elif path.is_dir():
        found = "an existing folder of this name"
    else:
        try:
            with tempfile.TemporaryFile(dir=path.parent):
                pass
        except OSError as error:
            found = f"{path.parent}: {error.strerror}"
    if found is not None:
        expected = "the name of an .html file in a writable folder"
        raise InvalidDataError(Fault(str(path), expected=expected, found=found))
    return path


def write_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    rows: Sequence[Row],
    figures: Sequence[Figure],
    notes: Sequence[str] = (),
    sources: Sequence[str] = (),
    picks: str = "",
    command: str = "",
) -> Path:
    """Write scores and figures as one self-contained HTML page.

    The page contains its images and style, runs no script and contacts no server; all text is
    escaped.

    Parameters
    ----------
    path
        Path of the page, which appears complete or not at all.
    title
        Title of the page.
    rows
        Rows from :func:`deepbedmap.evaluation.compare`, the one of the DEM first.
    figures
        Figures in order. Those that could not be drawn are listed with the reason.
    notes
        Sentences to print before the scores.
    sources
        References, one per item; URLs become links.
    picks
        Description of the picks, such as the name of their survey.
    command
        The command that reproduces the page.

    Returns
    -------
    pathlib.Path
        The path of the page.

    Raises
    ------
    ValueError
        There are no rows.
    InvalidDataError
        A figure is not a PNG file.
    """
    import jinja2

    if not rows:
        raise WrongCallError("rows: expected at least one, found none")
    path = Path(path)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("deepbedmap.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.j2").render(
        title=title,
        summary=summary_of(rows, picks),
        notes=notes,
        sections=sections_of(rows),
        figures=[(figure, _embed(figure.path)) for figure in figures if figure.path],
        absent=[figure for figure in figures if not figure.path],
        sources=sources,
        command=command,
        files=bed_files(rows),
        versions=_versions(),
        version=metadata.version("deepbedmap"),
        date=datetime.now(UTC).date().isoformat(),
    )
    with files.beside(path) as part:
        part.write_text(page, encoding="utf-8")
    return path


def report_evaluation(
    path: str | os.PathLike[str],
    rows: Sequence[Row],
    dem: Raster,
    points: pd.DataFrame,
    *,
    prior: Raster | None = None,
    gridding: pd.DataFrame | None = None,
    baselines: Mapping[str, Raster] | None = None,
    registry: Registry | None = None,
    datums: Mapping[str, str] | None = None,
    geoids: Geoids | None = None,
    figures: Sequence[Figure] = (),
    notes: Sequence[str] = (),
    picks: str = "",
    command: str = "",
) -> Path:
    """Draw the figures of an evaluation and write its page.

    Parameters
    ----------
    path, notes, picks, command
        The same arguments as for :func:`write_report`.
    rows
        Rows from :func:`deepbedmap.evaluation.compare`, for the same beds and picks.
    dem, points, prior, gridding, baselines, registry, datums, geoids
        The same arguments as for that function; for an ensemble, its first member.
    figures
        Further figures, placed last.

    Returns
    -------
    pathlib.Path
        The path of the page.
    """
    from deepbedmap import registry as registries

    listing = registry or registries.load()
    name = rows[0].file or "a bed"
    with tempfile.TemporaryDirectory(prefix="deepbedmap-") as folder:
        drawn = draw_evaluation(
            folder,
            dem,
            points,
            baselines,
            prior,
            gridding=gridding,
            registry=listing,
            datums=datums,
            geoids=geoids,
            source=f"{name}{f'; picks of {picks}' if picks else ''}",
        )
        return write_report(
            path,
            title=f"Scores of {name}",
            rows=rows,
            figures=[*drawn, *figures],
            notes=notes,
            sources=_references(
                [dem, prior, *(baselines or {}).values()], [points, gridding], listing
            ),
            picks=picks,
            command=command,
        )


def _references(
    beds: Iterable[Raster | None], tables: Iterable[pd.DataFrame | None], registry: Registry
) -> list[str]:
    """Return references of the datasets behind beds and picks, then those without provenance."""
    citekeys: dict[str, None] = {}
    unattributed = []
    for bed in beds:
        if not isinstance(bed, str | os.PathLike):
            continue
        try:
            attribution = attribute(bed, registry)
        except DeepBedMapError:
            unattributed.append(f"{Path(bed).name}: no sources stated.")
        else:
            citekeys |= dict.fromkeys(attribution.citekeys)
            unattributed += [f"{fault}." for fault in attribution.faults]
    for table in tables:
        sources = table.attrs.get("sources") or () if table is not None else ()
        stated = [source.get("citekey") for source in sources]
        citekeys |= dict.fromkeys(citekey for citekey in stated if citekey in registry)
    return [*cite(registry, citekeys, "text").splitlines(), *unattributed]


def _versions() -> str:
    versions = [f"Python {platform.python_version()}"]
    versions += [f"{name} {metadata.version(name)}" for name in _PACKAGES]
    return f"With {in_a_list(versions)}."


def _embed(path: Path) -> _Image:
    """Return an image as a data URI."""
    content = path.read_bytes()
    if not content.startswith(_PNG):
        raise InvalidDataError(Fault(str(path), expected="a PNG image", found="another file"))
    width, height = struct.unpack(">II", content[16:24])
    return _Image(f"data:image/png;base64,{base64.b64encode(content).decode()}", width, height)
