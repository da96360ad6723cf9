"""Read the radar picks of a survey into one table.

A pipeline is a PDAL pipeline (https://pdal.io): ``readers.text``, ``filters.assign``,
``filters.expression`` and ``filters.reprojection`` state which columns the raw files of a
survey have, which records are valid, and how they become x, y and the bed elevation.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from deepbedmap.errors import Fault, InvalidDataError
from deepbedmap.points.picks import Lines, frame
from deepbedmap.points.pipelines import Recipe
from deepbedmap.points.survey import Survey

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence

    import pandas as pd

    from deepbedmap.points.pipelines import Columns
    from deepbedmap.points.records import Records
    from deepbedmap.points.survey import Engine


def read_points(
    pipeline: str | os.PathLike[str],
    engine: Engine = "native",
    season: str | Iterable[str] | None = None,
    bounds: Sequence[float] | None = None,
) -> pd.DataFrame:
    r"""Picks of a survey, from its pipeline and its raw text files.

    Raw files are sought beside the pipeline, and where none is there, in the folder ``highres``
    of :func:`deepbedmap.repository.data_dir`; they are read in order of name. Nothing is
    downloaded. Records with a missing coordinate or bed (``nan``, empty or ``*``) are dropped;
    their number, and that of the records that the pipeline's expressions drop, is logged for
    each file. A bed of exactly 0 m is a bed.

    Columns are those of the pipeline's header, by position. In a file that begins with comment
    lines (``#``), however many, they go by name, if its own header has the pipeline's names
    (whatever their case, their units in parentheses, and with any other mark for ``_``): columns
    in another order, or more of them, do no harm.

    Files are parsed and projected in blocks, by as many threads as pyarrow uses
    (``OMP_NUM_THREADS``, :func:`pyarrow.set_cpu_count`); memory is a few blocks and about twice
    the table, whatever the size of the files. :func:`write_survey` needs the blocks alone.

    Parameters
    ----------
    pipeline
        Path of a pipeline. A bare name (``"2010tr"`` or ``"2010tr.json"``) that is no file in
        the working folder is that of a pipeline in the repository's ``highres``. Or the path of a
        Bedmap standard CSV, which needs no pipeline of its own.
    engine
        ``"native"``; or ``"pdal"``, for which python-pdal must be installed. PDAL reads text as
        0, so a flight name or a date in letters is lost to it: lines are then told apart by
        distance, and there is no time. It knows columns by their position alone: a file in which
        that differs from the pipeline's is refused.
    season
        Raw files to read, one or several: each a file's name, its stem or a glob
        (``"2011_Antarctica_DC8"``, ``"BAS_*"``). None for all of the pipeline's.
    bounds
        (xmin, ymin, xmax, ymax): keep the picks inside, or on the edge, of this box in the CRS of
        the picks (metres in EPSG:3031). Where none is, the table is empty.

    Returns
    -------
    pandas.DataFrame
        One row a pick, in the order of the files and of their records.

        ``x``, ``y``, ``z``
            float64: easting and northing in the CRS of the pipeline (metres in EPSG:3031), and
            the elevation of the bed in metres.
        ``line``
            category: ``"<file stem>/<name>"`` where the file has names in a column FRAME,
            FlightID, Line_name or trajectory_id (the first of these, in any case); the file's stem
            alone where the name is missing, and where the file is a grid (it has a column ``row``
            or ``column``). Otherwise ``"<file stem>/<n>"``, counted from 1: a new line begins
            where two consecutive picks of a file are more than 1 km apart.
        ``quality``
            Int8, where there is a column QUALITY (CReSIS: 1 good, 2 moderate, 3 derived).
        ``time``
            datetime64[ns], UTC without a time zone: the date in FRAME (YYYYMMDD...) or DATE, and
            the seconds of the day, or hh:mm:ss, in UTCTIMESOD, UTC, TIME or TIME_UTC. NaT where
            one is missing (-9999, or a year alone), and where a file's dates or times can be read
            in two ways, which is logged.
        ``bed_inferred``
            bool, where the pipeline assigns BED_INFERRED: the survey gives no bed here, and it was
            inferred as the surface less the ice's thickness.

        ``attrs`` has ``crs`` (text or None), ``vertical_datum`` (that of the registry beside the
        pipeline's folder, or None) and ``sources``: for each raw file a dict of ``file``,
        ``sha256``, ``pipeline``, ``pipeline_sha256``, ``citekey`` (of that registry, or None) and,
        where the file begins with lines ``#key: value``, those as the dict ``header`` (text; of a
        Bedmap standard CSV for example ``electromagnetic_wave_speed_in_ice``,
        ``firn_correction`` and ``centre_frequency``).

    Raises
    ------
    InvalidDataError
        If the pipeline or a raw file cannot be used; names the file and the line.
    MissingDataError
        If the pipeline, its raw files or python-pdal are not there; says how to get them.
    ValueError
        If the engine is unknown, or the bounds are no box in the units of the CRS.

    Examples
    --------
    >>> import json, pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     raw = pathlib.Path(folder, "survey.csv")
    ...     _ = raw.write_text("x,y,bed\n0,-500000,-120.5\n250,-500000,0\n9000,-500000,\n")
    ...     reader = {"type": "readers.text", "filename": "survey.csv", "header": "X,Y,Z",
    ...               "separator": ",", "skip": 1, "override_srs": "EPSG:3031"}
    ...     recipe = pathlib.Path(folder, "survey.json")
    ...     _ = recipe.write_text(json.dumps({"pipeline": [reader]}))
    ...     read_points(recipe)
           x         y      z      line
    0    0.0 -500000.0 -120.5  survey/1
    1  250.0 -500000.0    0.0  survey/1
    """
    survey = Survey.find(pipeline, engine, season, bounds)
    lines = Lines()
    parts: list[Columns] = []
    held: list[Records] = []
    for file, records in survey.run():
        if records is not None:
            file.add(records)
            held.append(records)
            continue
        file.close()
        parts += [file.finish(each, file.settled, lines) for each in held]
        held.clear()
    points = frame(parts, lines)
    points.attrs = dict(survey.attrs.items())
    return points


def check_pipeline(pipeline: str | os.PathLike[str]) -> list[Fault]:
    """Return what is wrong with a pipeline: its form, its stages, and whether they fit together.

    Raises
    ------
    MissingDataError
        If there is no such file.
    """
    try:
        Recipe.load(Path(pipeline))
    except InvalidDataError as error:
        return [fault for fault in error.faults if isinstance(fault, Fault)]
    return []
