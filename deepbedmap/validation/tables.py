"""Check tables and grids against the pandera schemas in ``validation/``.

Every fault gives the file and, where the file has lines, the line.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from copy import deepcopy
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from deepbedmap import repository
from deepbedmap.errors import Fault, InvalidDataError, did_you_mean
from deepbedmap.schemas.documents import load
from deepbedmap.schemas.json_schema import faults, json_schema_faults

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Any

    import pandas as pd
    import xarray as xr

    from deepbedmap.schemas.documents import Document

    Lines = Sequence[int] | npt.NDArray[np.intp] | None

MOST_ALIKE = 20
"""How many faults of one kind in one column are reported one by one."""


def schema_faults(path: str | Path) -> list[Fault]:
    """Return the faults of a schema file, in the order of its lines.

    A JSON Schema is checked against Draft 2020-12, a pandera schema against ``table.schema.json``,
    because pandera ignores unknown keys and checks.

    Raises
    ------
    MissingDataError
        The file does not exist.
    InvalidDataError
        The file cannot be read as YAML or JSON.
    """
    document = load(path)
    if document.path.suffix == ".json":
        return json_schema_faults(document)
    return faults(document, "table") or list(_rejected(document))


def _rejected(document: Document) -> Iterator[Fault]:
    """Yield the parts of a well-formed schema that pandera rejects, such as an empty range."""
    for group in ("columns", "data_vars", "coords"):
        for name, part in document.content.get(group, {}).items():
            try:
                _built({**document.content, group: {name: part}})
            except (TypeError, ValueError) as error:
                yield document.fault((group, name), "what pandera accepts", str(error))


@functools.cache
def pandera_schema(name: str) -> Any:
    """Return the schema ``validation/<name>.yml`` as a ``DataFrameSchema`` or ``DatasetSchema``."""
    path = repository.root() / "validation" / f"{name}.yml"
    if violations := schema_faults(path):
        raise InvalidDataError(*violations)
    return _built(load(path).content)


def _built(content: dict[str, Any]) -> Any:
    from pandera.io import pandas_io, xarray_io

    from deepbedmap.validation import checks  # noqa: F401  (registers the checks that schemas name)

    content = deepcopy(content)  # pandera removes options from its argument
    if content["schema_type"] == "dataset":
        return xarray_io.deserialize_schema(content)
    return pandas_io.deserialize_schema(content)


def table_faults(
    table: pd.DataFrame, schema: str, path: str | Path, lines: Lines = None
) -> list[Fault]:
    """Return the faults of a table: first of its columns, then of its rows in their order.

    Parameters
    ----------
    table
        Any table. For picks, ``attrs["crs"]`` is the coordinate reference system (EPSG:3031 if
        missing).
    schema
        ``"points"``, ``"raw_cresis"``, ``"raw_bedmap"`` or ``"tiles"``: the pandera schema
        ``validation/<schema>.yml``. The ``description`` of a column is the expected value in
        the message.
    path
        The file of the table, for the messages.
    lines
        Line of each row in that file; None for a file without lines, for which the messages count
        rows from 0.

    Returns
    -------
    list of Fault
        At most :data:`MOST_ALIKE` of one kind in one column, and one that counts the others.

    Examples
    --------
    >>> import pandas as pd
    >>> picks = pd.DataFrame({"x": [0.0, 9e6], "y": [-5e5, 0.0], "z": [float("nan"), -120.0]})
    >>> for fault in table_faults(picks, "points", "picks.csv", lines=[2, 3]):
    ...     print(fault.line, fault.field, fault.found)
    2 z nothing
    3 None x 9000000, y 0
    """
    return _pandera_faults(table.reset_index(drop=True), pandera_schema(schema), path, lines)


def grid_faults(grid: xr.Dataset, path: str | Path) -> list[Fault]:
    """Return the faults of a grid of bed elevation, according to ``validation/grid.yml``.

    Parameters
    ----------
    grid
        Bed elevations (m) as variable ``z`` of shape (y, x); read chunk by chunk if it is chunked.
    path
        The file of the grid, for the messages.
    """
    from pandera.config import ValidationDepth, config_context

    # Without this, pandera does not check the values of a chunked grid.
    with config_context(validation_depth=ValidationDepth.SCHEMA_AND_DATA):
        return _pandera_faults(grid, pandera_schema("grid"), path, None)


def row_faults(
    path: str | Path,
    rows: Sequence[int] | npt.NDArray[np.intp],
    lines: Lines,
    field: str | None,
    expected: str,
    found: Callable[[int], str],
) -> Iterator[Fault]:
    """Yield faults of one kind in some rows of a column: the first, then a count of the rest."""
    for row in rows[:MOST_ALIKE]:
        line, entry = (None, f"row {row}") if lines is None else (int(lines[row]), None)
        yield Fault(str(path), line, entry, field, expected, found(row))
    if len(rows) > MOST_ALIKE:
        line = None if lines is None else int(lines[rows[MOST_ALIKE]])
        count = f"and {len(rows) - MOST_ALIKE:,} more like these"
        yield Fault(str(path), line, None, field, expected, remedy=count)


def _pandera_faults(data: Any, schema: Any, path: str | Path, lines: Lines) -> list[Fault]:
    from pandera.errors import SchemaErrors

    try:
        schema.validate(data, lazy=True)
    except SchemaErrors as errors:
        violations = errors.schema_errors
    else:
        return []
    parts = getattr(schema, "columns", None) or {**schema.data_vars, **schema.coords}
    # A check crashes if a column is missing or of another type, which is reported anyway.
    completed = [each for each in violations if each.reason_code.name != "CHECK_ERROR"]
    faults_of_data = (
        fault
        for violation in completed or violations
        for fault in _faults_of_violation(violation, data, parts, path, lines)
    )
    return sorted(dict.fromkeys(faults_of_data), key=lambda fault: fault.line or 0)


def _faults_of_violation(
    violation: Any, data: Any, parts: dict[str, Any], path: str | Path, lines: Lines
) -> Iterator[Fault]:
    """Yield the faults of one of pandera's SchemaErrors; parts are columns or variables."""
    from deepbedmap.validation import checks

    reason, cases, check = violation.reason_code.name, violation.failure_cases, violation.check
    absent = reason in ("COLUMN_NOT_IN_DATAFRAME", "COLUMN_NOT_IN_SCHEMA")
    name = str(cases) if absent else violation.schema.name
    part = parts.get(name)
    expected = part.description if part else getattr(check, "error", None)
    remedy = None
    match reason:
        case "COLUMN_NOT_IN_DATAFRAME":
            found = "nothing of this name"
        case "COLUMN_NOT_IN_SCHEMA":
            expected, found = f"one of {', '.join(parts)}", "an unknown column"
            remedy = did_you_mean(name, parts)
        case "COLUMN_NOT_ORDERED":
            expected, found = f"columns in the order {', '.join(parts)}", ", ".join(data)
        case "WRONG_DATATYPE":
            expected, found = f"{expected} ({parts[name].dtype})", str(data[name].dtype)
        case "MISMATCH_INDEX":
            expected = f"{expected} along {', '.join(parts[name].dims)}"
            found = f"it along {', '.join(data[name].dims)}"
        case "CHECK_ERROR":
            found = str(cases)
        case _ if getattr(check, "name", None) in checks.WHOLE:
            found = checks.WHOLE[check.name](data, **check.statistics) or ""
        case _:
            shown = [name] if part else [*checks.ROWS[check.name][1]]
            rows = sorted(set(cases["index"]))
            yield from row_faults(
                path, rows, lines, name, str(expected), lambda row: _row_summary(data, row, shown)
            )
            return
    yield Fault(str(path), None, None, name, expected, found, remedy)


def _row_summary(table: pd.DataFrame, row: int, columns: Sequence[str]) -> str:
    values = []
    for name, value in table[[*columns]].iloc[row].items():
        text = f"{value:.9g}" if isinstance(value, float) else str(value)
        text = "nothing" if text in ("nan", "None", "NaT", "<NA>") else text
        values.append(text if len(columns) == 1 else f"{name} {text}")
    return ", ".join(values)
