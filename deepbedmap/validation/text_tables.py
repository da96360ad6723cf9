"""Check text tables against the schemas in ``validation/``, cell by cell."""

from __future__ import annotations

import io
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from deepbedmap import schemas
from deepbedmap.errors import Fault
from deepbedmap.validation.tables import pandera_schema, row_faults, table_faults

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    import numpy.typing as npt

_NUMBER = r"^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$"
_TRUTHS = {"True": True, "False": False, "true": True, "false": False}


def check_csv(path: str | Path, schema: str) -> list[Fault]:
    r"""Return the faults of a file of comma-separated values, each with its line.

    Parameters
    ----------
    path
        A file in UTF-8: any number of lines that begin with ``#``, one header line, then one line
        per record. The schema's ``metadata`` lists the texts that mark missing values.
    schema
        ``"points"``, ``"raw_cresis"`` or ``"raw_bedmap"``.

    Returns
    -------
    list of Fault
        Sorted by line; at most :data:`deepbedmap.validation.tables.MOST_ALIKE` of one kind in one
        column.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp(), "picks.csv")
    >>> _ = file.write_text("x,y,z\n0,-500000,-120.5\n250,-500000,deep\n500,-500000\n")
    >>> [(fault.line, fault.field, fault.found) for fault in check_csv(file, "points")]
    [(3, 'z', "'deep'"), (4, None, "2 fields: '500,-500000'")]
    """
    path = Path(path)
    text = schemas.read_text(path)
    comments = list(itertools.takewhile(lambda line: line.startswith("#"), io.StringIO(text)))
    header = len(comments) + 1  # line number
    start = sum(map(len, comments))
    names = [name.strip(' "') for name in text[start:].partition("\n")[0].strip().split(",")]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        found = f"{', '.join(repeated)} again"
        return [Fault(str(path), header, expected="each column once", found=found)]
    uneven: list[Any] = []

    def skip(row: Any) -> str:
        uneven.append(row)
        return "skip"

    try:
        texts = csv.read_csv(
            pa.py_buffer(text.encode()),
            # With several threads, pyarrow does not number the rows.
            csv.ReadOptions(column_names=names, skip_rows=header, use_threads=False),
            csv.ParseOptions(invalid_row_handler=skip, ignore_empty_lines=False),
            csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
        )
    except pa.ArrowInvalid as error:
        return [Fault(str(path), expected="comma-separated values", found=str(error))]
    bad_lines = [row.number for row in uneven]
    faults = row_faults(
        path,
        range(len(uneven)),
        bad_lines,
        field=None,
        expected=f"{len(names)} fields",
        found=lambda n: f"{uneven[n].actual_columns} fields: {uneven[n].text[:80]!r}",
    )
    lines = np.arange(texts.num_rows + len(uneven)) + header + 1
    return _check(texts, np.setdiff1d(lines, bad_lines), schema, path, list(faults))


def _check(
    texts: pa.Table, lines: npt.NDArray[np.intp], schema: str, path: Path, faults: list[Fault]
) -> list[Fault]:
    """Return the faults of the lines and of the cells."""
    rules = pandera_schema(schema)
    missing = (rules.metadata or {}).get("missing", [])
    marks = pa.array([str(mark) for mark in missing], pa.string())
    columns = {}
    empty = np.ones(texts.num_rows, bool)
    for name in texts.column_names:
        column = pc.utf8_trim_whitespace(texts[name])
        empty &= pc.equal(column, "").to_numpy()
        column = pc.if_else(pc.is_in(column, marks), None, column)
        part = rules.columns.get(name)
        columns[name], unreadable = _converted(column, str(part.dtype) if part else "str", missing)
        faults += row_faults(
            path,
            np.flatnonzero(unreadable),
            lines,
            name,
            part.description if part else "",
            _cell_text(column),
        )
    reported = {(fault.line, fault.field) for fault in faults}
    table = pd.DataFrame(columns)[~empty]
    if table.empty and schema != "points":
        faults.append(Fault(str(path), expected="at least one record", found="none"))
    faults += (
        fault
        for fault in table_faults(table, schema, path, lines[~empty])
        if fault.line is None or (fault.line, fault.field) not in reported
    )
    return sorted(faults, key=lambda fault: fault.line or 0)


def _cell_text(column: pa.ChunkedArray) -> Callable[[int], str]:
    return lambda row: repr(column[row].as_py())


def _converted(
    column: pa.ChunkedArray, dtype: str, missing: list[str | float]
) -> tuple[pd.Series[Any], npt.NDArray[np.bool_]]:
    """Convert a column of text to a type; also return which values cannot be converted."""
    texts = column.to_pandas()
    present = texts.notna().to_numpy()
    values: pd.Series[Any]
    if dtype in ("float64", "Int8", "Int64"):
        is_number = pc.match_substring_regex(column, _NUMBER)
        numbers = pc.cast(pc.if_else(is_number, column, None), pa.float64()).to_numpy()
        readable = ~np.isnan(numbers)
        marks = [mark for mark in missing if not isinstance(mark, str)]
        values = pd.Series(numbers).mask(np.isin(numbers, marks))
        if dtype != "float64":
            readable &= (numbers % 1 == 0) & (np.abs(numbers) <= np.iinfo(dtype.lower()).max)
            values = values.where(readable).astype(pd.api.types.pandas_dtype(dtype))
    elif dtype == "bool":
        truths = texts.map(_TRUTHS)
        values, readable = truths.eq(True), truths.notna().to_numpy()
    elif dtype.startswith("datetime64"):
        values = pd.to_datetime(texts, errors="coerce", format="ISO8601")
        readable = values.notna().to_numpy()
    else:
        values, readable = texts.astype("category" if dtype == "category" else "str"), present
    return values, present & ~readable
