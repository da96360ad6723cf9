"""Run every stage once on made-up glaciers: from raw survey files to a scored bed."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from deepbedmap import download, evaluation, grids, points, rasters, registry, tiles
from deepbedmap.demo.publishing import write_repository
from deepbedmap.demo.reporting import draw_comparison, write_report
from deepbedmap.demo.surveys import RECONNAISSANCE, SURVEYS, within
from deepbedmap.files.atomic import beside
from deepbedmap.model import checkpoints, prediction, training
from deepbedmap.model.training.configuration import load
from deepbedmap.places import BUFFER
from deepbedmap.tiles.inputs import PADDING, RESOLUTION, Inputs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    import pandas as pd
    import xarray as xr

    from deepbedmap.demo.ice_slab import Configuration
    from deepbedmap.places import Bounds

logger = logging.getLogger(__name__)

EPOCHS = 3
"""Epochs of training: some two minutes on one core."""

STRIDE = 18
"""Cells of 250 m from one tile to the next: tiles of 36 cells overlap by half."""

TEST = next(survey.citekey for survey in SURVEYS if survey.role == "test")
VALIDATION = [survey.citekey for survey in SURVEYS if survey.role == "validation"]
Report = Callable[[str], None]
"""Called with one line per stage, for monitoring."""


@dataclass(frozen=True)
class Surveyed:
    """The made-up glaciers as a user of their registry sees them: picks and rasters, no true bed.

    Attributes
    ----------
    registry
        The made-up registry.
    picks
        Picks of each detailed survey, by citekey.
    reconnaissance
        Picks of the sparse lines over all glaciers, from which the prior is gridded.
    inputs
        Prior, surface, velocity and accumulation of all glaciers.
    bounds
        Bounds of the predicted bed, EPSG:3031 metres: the test glacier less the margin that the
        inputs need.
    """

    registry: registry.Registry
    picks: dict[str, pd.DataFrame]
    reconnaissance: pd.DataFrame
    inputs: Inputs
    bounds: Bounds

    def sources(self, role: str) -> list[dict[str, Any]]:
        """Return the files of the surveys in a role; for the role ``"input"``, of all rasters."""
        citekeys = [survey.citekey for survey in SURVEYS if survey.role == role]
        return [
            {
                "role": role,
                "citekey": dataset.citekey,
                "file": file.filename,
                "sha256": file.sha256,
            }
            for dataset in self.registry
            if dataset.citekey in citekeys or (role == "input" and dataset.folder != "highres")
            for file in dataset.files
        ]

    @property
    def held_out(self) -> pd.DataFrame:
        """Picks of the test glacier, where the bicubic interpolation of the prior has a value."""
        # Its stencil reaches one cell of the prior beyond the margin of the inputs.
        return within(self.picks[TEST], _inside(self.bounds))


def run(
    out: Path,
    seed: int = 0,
    epochs: int = EPOCHS,
    configuration: Configuration | None = None,
    report: Report = logger.info,
    progress: training.Progress | None = None,
) -> dict[str, Any]:
    """Make glaciers, survey them, grid the picks, train a network, predict a bed and score it.

    Four glaciers provide training tiles and a fifth validation tiles. The sixth is the test
    glacier: the network sees only its prior, surface, velocity and accumulation, and the picks
    of its survey are used for scoring alone.

    Parameters
    ----------
    out
        Folder for ``bed.tif``, ``bed.nc``, ``report.html``, ``comparison.png``, ``scores.json``,
        ``checkpoint.safetensors`` and ``repository/``, the made-up registry with its data.
    seed
        Seed of the glaciers, their surveys, and the network's initial weights.
    epochs
        Epochs of training.
    configuration
        Properties of the glaciers and surveys; by default those of :class:`Configuration`.
    report
        Called with one line per stage.
    progress
        Called after each training step with its number, the number of steps, and the latest
        metrics.

    Returns
    -------
    dict
        The contents of ``scores.json``: for each of ``model``, ``bicubic`` (the prior) and
        ``gridding`` (of all picks that are not held out) the fields of
        :class:`deepbedmap.evaluation.Scores`; and ``seed``, ``steps`` and ``seconds``.

    Raises
    ------
    InvalidDataError
        ``repository/`` holds something other than made-up glaciers; or the glaciers are too small
        for a complete tile.
    """
    start = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    surveyed = prepare(out / "repository", seed, configuration, report)
    with tempfile.TemporaryDirectory(prefix="deepbedmap-") as scratch:
        report("gridding the surveys and cutting tiles")
        training_set = build_tiles(surveyed, Path(scratch) / "tiles.zarr")
        fitted = _train(surveyed, training_set, Path(scratch), seed, epochs, report, progress)
        with beside(out / "checkpoint.safetensors") as part:
            shutil.copyfile(fitted.best, part)

    report("predicting the bed of the test glacier")
    bed = _predict(surveyed, out)

    report("scoring the bed at the held-out picks")
    prior = out / "repository" / "lowres" / "MadeUpPrior.tif"
    baselines: dict[str, Any] = {
        "prior": prior,
        "gridding": surveyed.reconnaissance,
        "registry": surveyed.registry,
    }
    velocity = out / "repository" / "misc" / "MadeUpVelocity.nc"
    held_out = surveyed.held_out
    rows = evaluation.compare(out / "bed.tif", held_out, velocity=velocity, **baselines)
    scores: dict[str, Any] = {
        method: asdict(replace(row.scores, strata={}))
        for method, row in zip(("model", "bicubic", "gridding"), rows, strict=True)
    }

    report("drawing figures and writing the report")
    rmse = {method: score["rmse"] for method, score in scores.items()}
    draw_comparison(bed, surveyed.inputs.prior, held_out, rmse, seed, out / "comparison.png")
    command = ["deepbedmap", "demo", "--out", str(out)]
    command += ["--seed", str(seed), "--epochs", str(epochs)]
    history = fitted.history
    write_report(out, rows, history, held_out, **baselines, picks=TEST, command=command)
    scores |= {"seed": seed, "steps": history[-1]["step"]}
    scores["seconds"] = round(time.perf_counter() - start, 1)
    with beside(out / "scores.json") as part:
        part.write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")
    return scores


def prepare(
    folder: Path,
    seed: int,
    configuration: Configuration | None = None,
    report: Report = logger.info,
) -> Surveyed:
    """Make and survey the glaciers, fetch the files in their registry, and read them.

    Parameters
    ----------
    folder
        Folder for the made-up registry and its data.
    seed, configuration, report
        See :func:`run`.
    """
    report("making six glaciers and surveying them by radar")
    glaciers = write_repository(folder, seed, configuration)

    report("fetching the files in the registry and verifying their checksums")
    entries = registry.load(folder / "data_list.yml")
    download.fetch(
        [dataset.citekey for dataset in entries],
        registry=entries,
        data_dir=folder,
        progress=False,
    )

    report("reading picks and rasters")
    pipelines, misc = folder / "highres", folder / "misc"
    return Surveyed(
        registry=entries,
        picks={
            survey.citekey: points.read_points(pipelines / survey.pipeline) for survey in SURVEYS
        },
        reconnaissance=points.read_points(pipelines / f"{RECONNAISSANCE}.json"),
        inputs=Inputs.open(
            prior=folder / "lowres" / "MadeUpPrior.tif",
            surface=misc / "MadeUpSurface.tif",
            velocity=misc / "MadeUpVelocity.nc",
            accumulation=misc / "MadeUpAccumulation.tif",
        ),
        bounds=_inside(glaciers[TEST].bounds),
    )


def build_tiles(surveyed: Surveyed, path: Path, step: int = STRIDE) -> Path:
    """Grid the surveys and cut their complete tiles into a training set.

    The survey with the role of validation is held out of the training. No tile lies within
    11 km of the test survey, and no training tile within 11 km of a validation tile.

    Parameters
    ----------
    path
        Zarr store to write, ``<name>.zarr``.
    step
        Cells of 250 m from one tile to the next.

    Returns
    -------
    pathlib.Path
        The store; :func:`deepbedmap.tiles.open_training_set` opens it.

    Raises
    ------
    InvalidDataError
        No tile is left to train on, or to validate with.
    """
    test = grids.region_of(surveyed.picks[TEST])
    beds = {
        citekey: _clear_of(grids.grid_points(picks), test)
        for citekey, picks in surveyed.picks.items()
        if citekey != TEST
    }
    return tiles.build(
        beds,
        surveyed.inputs,
        path,
        step=step,
        exclude=(),
        by="survey",
        validation=VALIDATION,
        buffer=BUFFER,
    )


def _clear_of(grid: xr.DataArray, bounds: Bounds) -> xr.DataArray:
    """Blank the cells of a grid that lie, even in part, within the buffer around a box."""
    xmin, ymin, xmax, ymax = bounds
    distance = BUFFER + RESOLUTION / 2
    near_x = (grid.x >= xmin - distance) & (grid.x <= xmax + distance)
    near_y = (grid.y >= ymin - distance) & (grid.y <= ymax + distance)
    return grid.where(~(near_x & near_y))


def _train(
    surveyed: Surveyed,
    training_set: Path,
    scratch: Path,
    seed: int,
    epochs: int,
    report: Report,
    progress: training.Progress | None,
) -> training.Fitted:
    """Train a network with the default preset, for fewer epochs."""
    dataset = tiles.open_training_set(training_set)
    learned, validation = training.load_tiles(dataset)
    plural = "s" if epochs > 1 else ""
    report(f"training on {len(learned)} tiles for {epochs} epoch{plural}")
    sources = surveyed.sources("training") + surveyed.sources("input")
    with _one_thread():
        return training.fit(
            load("default").with_values(schedule__pretraining_epochs=epochs, training__seed=seed),
            learned,
            validation,
            scratch / "training",
            device="cpu",
            provenance=training.provenance_of(dataset) | {"seed": seed, "sources": sources},
            progress=progress,
        )


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Hold PyTorch to one thread: as fast for small tiles, and the same bits on any machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _predict(surveyed: Surveyed, out: Path) -> xr.DataArray:
    """Predict the bed of the test glacier, and write it as GeoTIFF and NetCDF."""
    checkpoint = out / "checkpoint.safetensors"
    bed = prediction.predict(
        checkpoints.load(checkpoint).network,
        surveyed.inputs,
        surveyed.bounds,
        provenance={"sources": [*surveyed.sources("input"), checkpoints.describe(checkpoint)]},
    )
    rasters.write_geotiff(bed, out / "bed.tif")
    rasters.write_netcdf(bed, out / "bed.nc")
    return bed


def _inside(bounds: Bounds) -> Bounds:
    """Shrink bounds by the margin that the inputs need."""
    xmin, ymin, xmax, ymax = bounds
    return xmin + PADDING, ymin + PADDING, xmax - PADDING, ymax - PADDING
