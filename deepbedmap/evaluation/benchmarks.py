"""Benchmarks: fixed picks, metrics and baselines with which any bed can be scored."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deepbedmap import files, repository, schemas
from deepbedmap.errors import Fault, InvalidDataError, MissingDataError, did_you_mean
from deepbedmap.files.checksums import sha256_of

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from typing import Any

    import pandas as pd

    from deepbedmap.evaluation.comparing import Row
    from deepbedmap.places import Bounds

_UNITS = {"x": 1.0, "y": 1.0, "z": 0.1}
_COMMON = ("name", "file", "sha256", "picks", "lines")
_VERDICTS = ("independent_of_prior", "independent_of_training")


@dataclass(frozen=True)
class Benchmark:
    """A definition in ``validation/benchmark.yml``.

    Attributes
    ----------
    name, version, title
        The version changes whenever any of the following changes.
    crs, vertical_datum
        Reference system of the test picks.
    points
        Entries that the test picks are read from, as for ``deepbedmap evaluate --points``.
    bounds
        Box (xmin, ymin, xmax, ymax) that selects the test picks, metres in ``crs``.
    picks, sha256
        Number of test picks, and their checksum by :func:`identity`.
    split
        Surveys by their part: ``training``, ``validation``, ``test``.
    buffer
        Distance (m) from a training tile within which a pick leaks.
    metrics
        Names of the scores in a row of results.
    prior, gridding
        Inputs of the baselines: the file of the prior, and the picks to grid.
    instructions
        How to make or download the files.
    """

    name: str
    version: int
    title: str
    crs: str
    vertical_datum: str
    points: tuple[str, ...]
    bounds: Bounds
    picks: int
    sha256: str
    split: dict[str, list[str]]
    buffer: float
    metrics: tuple[str, ...]
    prior: str | None
    gridding: str | None
    instructions: str

    def require_files(self, *paths: str) -> None:
        """Refuse to begin if files of the benchmark are missing.

        Raises
        ------
        MissingDataError
            Lists all missing files, and how to make them, in one line.
        """
        absent = [path for path in paths if not Path(path).exists()]
        if absent:
            raise MissingDataError(
                f"benchmark {self.name}: no {', '.join(absent)}; {self.instructions}"
            )

    def require_picks(self, points: pd.DataFrame) -> None:
        """Refuse picks that differ from the benchmark's.

        Raises
        ------
        InvalidDataError
            CRS, vertical datum, number of picks or :func:`identity` differs.
        """
        checks = [
            ("crs", self.crs, points.attrs.get("crs")),
            ("vertical_datum", self.vertical_datum, points.attrs.get("vertical_datum")),
            ("picks", self.picks, len(points)),
            ("sha256", self.sha256, identity(points)),
        ]
        for field, expected, found in checks:
            if found != expected:
                raise InvalidDataError(
                    Fault(
                        f"picks of benchmark {self.name}, version {self.version}",
                        field=field,
                        expected=str(expected),
                        found=str(found),
                        remedy=self.instructions,
                    )
                )

    def result(self, row: Row) -> dict[str, Any]:
        """Return a row of a results table: benchmark, bed, and metrics with their intervals."""
        flat = row.flat()
        scores = [f"{name}{end}" for name in self.metrics for end in ("", "_low", "_high")]
        columns = (*_COMMON, *scores, *_VERDICTS)
        return {
            "benchmark": self.name,
            "version": self.version,
            **{name: flat.get(name) for name in columns},
        }


def identity(points: pd.DataFrame) -> str:
    """Return a checksum of picks that depends neither on their order nor on their file format.

    Parameters
    ----------
    points
        Columns x, y, z in metres.

    Returns
    -------
    str
        SHA-256 of the rows of three little-endian 64-bit integers, sorted: x and y in whole metres
        and z in tenths, each ``floor(value / unit + 1/3)``. The offset is a third because
        decimal text often ends in a half and never in a third: no pick is at the edge of rounding.

    Examples
    --------
    >>> import pandas as pd
    >>> picks = pd.DataFrame({"x": [0.0, 250], "y": [10.0, 20], "z": [-500.25, 3]})
    >>> identity(picks) == identity(picks[::-1] + 1e-6)
    True
    """
    table = np.stack(
        [
            np.floor(points[name].to_numpy(np.float64) / unit + 1 / 3)
            for name, unit in _UNITS.items()
        ],
        axis=1,
    ).astype("<i8")
    return sha256_of(table[np.lexsort(table.T[::-1])].tobytes())


def load(name: str, path: str | os.PathLike[str] | None = None) -> Benchmark:
    """Read the definition of a benchmark.

    Parameters
    ----------
    name
        Name of the benchmark.
    path
        File of the definitions; by default ``validation/benchmark.yml``.

    Raises
    ------
    InvalidDataError
        The file is invalid, or defines no benchmark of this name.

    Examples
    --------
    >>> load("made-up-glacier").split["test"]
    ['MadeUp6']
    """
    document = schemas.validate_file(
        repository.root() / "validation" / "benchmark.yml" if path is None else Path(path),
        "benchmark",
    )
    defined = document.content["benchmarks"]
    if name not in defined:
        remedy = did_you_mean(name, defined) or f"there are {', '.join(defined)}"
        raise InvalidDataError(document.fault(("benchmarks",), "a benchmark", repr(name), remedy))
    definition = defined[name]
    test, baselines = definition["test"], definition["baselines"]
    xmin, ymin, xmax, ymax = map(float, test["bounds"])
    return Benchmark(
        name=name,
        version=definition["version"],
        title=definition["title"],
        crs=definition["crs"],
        vertical_datum=definition["vertical_datum"],
        points=tuple(test["points"]),
        bounds=(xmin, ymin, xmax, ymax),
        picks=test["picks"],
        sha256=test["sha256"],
        split=definition["split"],
        buffer=float(definition["buffer"]),
        metrics=tuple(definition["metrics"]),
        prior=baselines.get("bicubic prior"),
        gridding=baselines.get("gridding"),
        instructions=" ".join(definition["instructions"].split()),
    )


def add_results(rows: Sequence[dict[str, Any]], path: str | os.PathLike[str]) -> Path:
    """Append rows to a table of results (.csv); the file changes as a whole or not at all.

    Raises
    ------
    InvalidDataError
        The table has other columns.
    """
    path = Path(path)
    columns = list(rows[0])
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    if before and (found := before.splitlines()[0]) != (expected := ",".join(columns)):
        raise InvalidDataError(
            Fault(str(path), 1, None, None, expected, found, "name another table")
        )
    with files.beside(path) as part:
        text = as_csv(rows)
        part.write_text(before + (text.split("\n", 1)[1] if before else text), encoding="utf-8")
    return path


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows with the same columns as comma-separated values, empty where a value is None.

    Examples
    --------
    >>> print(as_csv([{"name": "dem", "rmse": 61.5}, {"name": "prior", "rmse": None}]), end="")
    name,rmse
    dem,61.5
    prior,
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
