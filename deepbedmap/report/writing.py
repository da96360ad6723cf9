"""Write the report of an evaluation as one HTML page.

The page holds its images and its style, and says how it can be made again.
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
    """Make sure that a page can be written, before the work that it is to show.

    Raises
    ------
    InvalidDataError
        The name does not end in .html; its folder is absent or may not be written; there is a
        folder of that name.
    """
    path = Path(path)
    found = None
    if path.suffix.lower() not in (".html", ".htm"):
        found = path.suffix or "no suffix"
    elif path.is_dir():
        found = "a folder of that name"
    else:
        try:
            with tempfile.TemporaryFile(dir=path.parent):
                pass
        except OSError as error:
            found = f"{path.parent}: {error.strerror}"
    if found is not None:
        expected = "the name of an .html file in a folder that can be written"
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
    """Write scores and figures as one HTML page that needs nothing beside it.

    It holds its images and style, runs no script and asks no server; all text is escaped.

    Parameters
    ----------
    path
        Of the page; it appears complete or not at all.
    title
        Of the page.
    rows
        As of :func:`deepbedmap.evaluation.compare`, that of the DEM first.
    figures
        In the order wanted. What could not be drawn is listed with the reason.
    notes
        Sentences that are read before the scores.
    sources
        References, one each; addresses become links.
    picks
        What the picks are, such as the name of their survey.
    command
        What makes the page again.

    Raises
    ------
    ValueError
        There are no rows.
    InvalidDataError
        A figure is no PNG.
    """
    import jinja2

    if not rows:
        raise WrongCallError("a report has a row or more")
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
    """Draw an evaluation and write its page.

    Parameters
    ----------
    path, notes, picks, command
        As of :func:`write_report`.
    rows
        What :func:`deepbedmap.evaluation.compare` gave of the same beds and picks.
    dem, points, prior, gridding, baselines, registry, datums, geoids
        As that takes them; of an ensemble the first member.
    figures
        More of them, which stand last.
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
    """References of the datasets behind beds and picks, and of what there are none."""
    citekeys: dict[str, None] = {}
    silent = []
    for bed in beds:
        if not isinstance(bed, str | os.PathLike):
            continue
        try:
            found = attribute(bed, registry)
        except DeepBedMapError:
            silent.append(f"{Path(bed).name}: nothing states what it was made from.")
        else:
            citekeys |= dict.fromkeys(found.citekeys)
            silent += [f"{fault}." for fault in found.faults]
    for table in tables:
        sources = table.attrs.get("sources") or () if table is not None else ()
        known = [source.get("citekey") for source in sources]
        citekeys |= dict.fromkeys(citekey for citekey in known if citekey in registry)
    return [*cite(registry, citekeys, "text").splitlines(), *silent]


def _versions() -> str:
    said = [f"Python {platform.python_version()}"]
    said += [f"{name} {metadata.version(name)}" for name in _PACKAGES]
    return f"With {in_a_list(said)}."


def _embed(path: Path) -> _Image:
    """An image as part of a page."""
    content = path.read_bytes()
    if not content.startswith(_PNG):
        raise InvalidDataError(Fault(str(path), expected="a PNG image", found="another file"))
    width, height = struct.unpack(">II", content[16:24])
    return _Image(f"data:image/png;base64,{base64.b64encode(content).decode()}", width, height)
