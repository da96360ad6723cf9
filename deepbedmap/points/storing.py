"""Store the picks, or the crossovers, of surveys in a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from deepbedmap import files
from deepbedmap.errors import WrongCallError
from deepbedmap.points.combining import deduplicate, join_surveys
from deepbedmap.points.crossovers import crossovers
from deepbedmap.points.picks import LINE_GAP
from deepbedmap.points.reading import read_points
from deepbedmap.points.writing import Written, write_points, write_survey

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd

    from deepbedmap.points.survey import Engine, Progress


def store_picks(
    pipeline: str | os.PathLike[str],
    out: str | os.PathLike[str],
    engine: Engine = "native",
    season: str | Iterable[str] | None = None,
    bounds: Sequence[float] | None = None,
    *,
    unique: float | None = None,
    progress: Progress | None = None,
) -> Written:
    """Read the picks of a survey and write them to a table.

    Parameters
    ----------
    pipeline, engine, season, bounds
        As :func:`read_points` takes them.
    out
        ``.parquet`` (GeoParquet where the CRS of the picks is known) or ``.csv``. The file appears
        complete or not at all. GeoParquet is written block by block, in bounded memory, unless
        ``unique`` or the engine ``"pdal"`` needs the whole table.
    unique
        Drop picks at a position that an earlier pick has, to this tolerance in metres: see
        :func:`deduplicate`.
    progress
        Called with the bytes of raw files that have been read, and with those of all; only where
        the table is written block by block.

    Returns
    -------
    Written
        Number of picks, and of flight lines.

    Raises
    ------
    InvalidDataError, MissingDataError
        As :func:`read_points`.
    ValueError
        The name ends otherwise, or the engine is unknown.

    Examples
    --------
    >>> store_picks("2010tr", "picks.txt")
    Traceback (most recent call last):
    deepbedmap.errors.WrongCallError: out: expected a name that ends in .parquet or .csv
    """
    out = Path(out)
    if out.suffix not in (".parquet", ".csv"):
        raise WrongCallError("expected a name that ends in .parquet or .csv", "out")
    if engine not in ("native", "pdal"):
        raise WrongCallError(f"expected native or pdal, found {engine!r}", "engine")
    if out.suffix == ".parquet" and unique is None and engine == "native":
        return write_survey(pipeline, out, season, bounds, progress)
    picks = read_points(pipeline, engine, season, bounds)
    if unique is not None:
        picks = deduplicate(picks, unique)
    with files.beside(out) as part:
        write_points(picks, part)
    return Written(len(picks), picks["line"].nunique())


def cross_surveys(
    pipelines: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str] | None = None,
    max_gap: float = LINE_GAP,
    *,
    within: bool = False,
    bounds: Sequence[float] | None = None,
) -> pd.DataFrame:
    """Compare the bed elevation where the flight lines of surveys cross.

    Parameters
    ----------
    pipelines
        Pipelines, names of pipelines in ``highres/``, or Bedmap standard CSVs, of one CRS and one
        vertical datum.
    out
        A ``.csv`` file for the crossovers, one per row.
    max_gap
        Distance in metres between consecutive picks beyond which a line is interrupted.
    within
        Also where a line crosses itself.
    bounds
        (xmin, ymin, xmax, ymax) in the CRS of the picks: only picks inside.

    Returns
    -------
    pandas.DataFrame
        One row per crossover, as :func:`deepbedmap.points.crossovers.crossovers` gives them;
        :func:`deepbedmap.points.crossovers.summarize` summarizes them by pair of surveys.

    Raises
    ------
    InvalidDataError, MissingDataError
        As :func:`read_points`; the surveys differ in CRS or vertical datum.
    ValueError
        The name ends otherwise; the gap is not positive.

    Examples
    --------
    >>> cross_surveys("2010tr", "crossovers.txt")
    Traceback (most recent call last):
    deepbedmap.errors.WrongCallError: out: expected a name that ends in .csv
    """
    if out is not None and Path(out).suffix != ".csv":
        raise WrongCallError("expected a name that ends in .csv", "out")
    names = [pipelines] if isinstance(pipelines, str | os.PathLike) else list(pipelines)
    surveys = {str(name): read_points(name, bounds=bounds) for name in names}
    picks = join_surveys(surveys).drop(columns="source")
    crossings = crossovers(picks, max_gap, within)
    if out is not None:
        with files.beside(Path(out)) as part:
            crossings.to_csv(part, index=False)
    return crossings
