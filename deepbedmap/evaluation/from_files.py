"""Evaluate bed files at the picks of surveys, or by a benchmark."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from deepbedmap import registry as registries
from deepbedmap.catalog import opening
from deepbedmap.errors import WrongCallError
from deepbedmap.evaluation import benchmarks
from deepbedmap.evaluation.comparing import compare
from deepbedmap.evaluation.mass import conserve
from deepbedmap.evaluation.trainings import read_training
from deepbedmap.places import BUFFER

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    import pandas as pd

    from deepbedmap.evaluation.benchmarks import Benchmark
    from deepbedmap.evaluation.comparing import Row
    from deepbedmap.evaluation.mass import MassStatistics
    from deepbedmap.places import Bounds

    File = str | os.PathLike[str]


@dataclass(frozen=True)
class Evaluation:
    """The scores of a bed and of others at the same picks, and the inputs of the scores.

    Attributes
    ----------
    rows
        The rows of the table; the bed's row is first.
    picks
        The test picks, columns x, y and z in metres.
    survey_names
        Names of the surveys, for text.
    beds
        Prior, gridded picks, baselines, registry, datums and geoids, as
        :func:`deepbedmap.report.report_evaluation` takes them.
    benchmark
        Benchmark by which the bed was scored.
    """

    rows: list[Row]
    picks: pd.DataFrame
    survey_names: str = ""
    beds: dict[str, Any] = field(default_factory=dict)
    benchmark: Benchmark | None = None

    def flat_rows(self) -> list[dict[str, Any]]:
        """Return a table of numbers and verdicts; a benchmark has columns of its own."""
        if self.benchmark is None:
            return [row.flat() for row in self.rows]
        return [self.benchmark.result(row) for row in self.rows]


def evaluate_files(
    dem: File | Sequence[File],
    points: str | Iterable[str] | None = None,
    *,
    season: Iterable[str] | None = None,
    bounds: Bounds | None = None,
    prior: File | None = None,
    training: Iterable[str] = (),
    gridding: Iterable[str] = (),
    baselines: Mapping[str, File] | None = None,
    velocity: File | None = None,
    surface: File | None = None,
    balance: File | None = None,
    gamma: float = 1.0,
    mass_map: File | None = None,
    datums: Mapping[str, str] | None = None,
    geoids: Mapping[str, File] | None = None,
    buffer: float | None = None,
    allow_leak: bool = False,
    registry: str | Path | None = None,
    benchmark: str | None = None,
    results: File | None = None,
) -> Evaluation:
    """Score a bed elevation grid at the picks of surveys, next to baselines at the same picks.

    Parameters
    ----------
    dem
        A bed elevation grid (``.nc``, ``.tif`` or ``.zarr``), metres; several files are the
        members of an ensemble.
    points
        Test picks: pipelines of surveys, catalog entries, citekeys or ``.parquet`` tables; by
        default those of the benchmark.
    season, bounds
        Selection of the picks: names of raw files, and (xmin, ymin, xmax, ymax) in metres.
    prior
        A file or citekey; scored unchanged, interpolated bicubically.
    training
        Where the bed was trained: training sets (``.zarr``), footprints (``.geojson``),
        checkpoints, or picks.
    gridding
        Picks whose gridding is scored; by default the training picks.
    baselines
        Other beds by name: files or citekeys.
    velocity
        Ice velocity in m a-1, for classes by speed: two bands, or vx and vy.
    surface, balance, gamma, mass_map
        Inputs of :func:`deepbedmap.evaluation.conserve`, with ``velocity``: whether the ice above
        the bed conserves mass. The map is a ``.tif`` file.
    datums
        Vertical datum by name, of ``picks``, ``dem`` or a baseline that states none.
    geoids
        Geoid height files by name, for beds on another datum than the picks.
    buffer
        Distance (m) from training tiles and picks within which test picks leak; 11,000 by default.
    allow_leak
        Score picks that leak; the row is marked.
    registry
        A ``data_list.yml`` or its folder; by default the one next to the folder of the picks'
        pipeline, or the package's own.
    benchmark
        Score by the picks, box and baselines of ``validation/benchmark.yml``.
    results
        A ``.csv`` file to which a row is appended; only with a benchmark.

    Returns
    -------
    Evaluation
        The scores of each bed, ``dem`` first.

    Raises
    ------
    InvalidDataError, MissingDataError
        As for :func:`deepbedmap.evaluation.compare` and :func:`deepbedmap.catalog.read_picks`.
    ValueError
        Arguments contradict each other, or one is out of range.

    Examples
    --------
    >>> evaluate_files("bed.tif")
    Traceback (most recent call last):
    deepbedmap.errors.WrongCallError: points: needed without a benchmark
    """
    points = [points] if isinstance(points, str) else list(points or ())
    gridding, season = list(gridding), list(season or ()) or None
    _require_options(points, benchmark, results, chosen=bounds is not None or season is not None)
    _require_mass_inputs(surface, velocity, balance, gamma, mass_map)
    defined = None if benchmark is None else benchmarks.load(benchmark)
    if defined is not None:
        points, bounds = points or list(defined.points), defined.bounds
        prior, buffer = prior or defined.prior, defined.buffer
        gridding = gridding or ([defined.gridding] if defined.gridding else [])
        defined.require_files(*points, *([str(prior)] if prior else []), *gridding)
    picks = opening.read_picks(points, season, bounds)
    if defined is not None:
        defined.require_picks(picks)
    dems = [dem] if isinstance(dem, str | os.PathLike) else list(dem)
    trained = read_training(training)
    beds: dict[str, Any] = {
        "prior": prior,
        "gridding": opening.read_picks(gridding) if gridding else trained.picks,
        "baselines": dict(baselines or {}),
        "registry": registries.load(_registry_of(points, registry)),
        "datums": dict(datums or {}),
        "geoids": dict(geoids or {}),
    }
    conserved: MassStatistics | None = None
    if surface is not None and velocity is not None and balance is not None:
        conserved = conserve(
            dems[0], surface, velocity, balance, gamma=gamma, bounds=bounds, path=mass_map
        )
    rows = compare(
        dems,
        picks,
        training=trained,
        velocity=velocity,
        buffer=BUFFER if buffer is None else buffer,
        allow_leak=allow_leak,
        **beds,
    )
    rows[0] = dataclasses.replace(rows[0], mass=conserved)
    if defined is not None and results is not None:
        benchmarks.add_results([defined.result(rows[0])], results)
    names = ", ".join(Path(entry).stem for entry in points)
    return Evaluation(rows, picks, names, beds, defined)


def _require_options(
    points: list[str], benchmark: str | None, results: Any, *, chosen: bool
) -> None:
    """Check the arguments that need or exclude a benchmark."""
    if benchmark is None and not points:
        raise WrongCallError("needed without a benchmark", "points")
    if benchmark is None and results is not None:
        raise WrongCallError("only with a benchmark", "results")
    if benchmark is not None and chosen:
        raise WrongCallError("it has its own box and picks", "benchmark")


def _require_mass_inputs(
    surface: Any, velocity: Any, balance: Any, gamma: float, mass_map: Any
) -> None:
    """Check that mass conservation can be computed, where it was requested."""
    for argument, value in (("surface", surface), ("balance", balance), ("mass_map", mass_map)):
        if value is not None and None in (surface, velocity, balance):
            raise WrongCallError("needs surface, velocity and balance", argument)
    if not 0 < gamma <= 1:
        raise WrongCallError(f"expected more than 0, at most 1, found {gamma}", "gamma")
    if mass_map is not None and Path(mass_map).suffix != ".tif":
        raise WrongCallError("expected a name that ends in .tif", "mass_map")


def _registry_of(points: list[str], registry: str | Path | None) -> str | Path | None:
    """Return the registry that was named, else the one next to the folder of the picks."""
    neighbour = Path(points[0]).absolute().parent.parent / "data_list.yml"
    return neighbour if registry is None and neighbour.is_file() else registry
