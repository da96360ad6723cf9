"""Run every stage once on made-up glaciers: from raw survey files to a scored bed."""

from __future__ import annotations

import json
import logging
import shlex
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import shapely
import torch

from deepbedmap import download, evaluation, figures, grids, points, rasters, registry, tiles
from deepbedmap.demo.publishing import write_repository
from deepbedmap.demo.surveys import RECONNAISSANCE, SURVEYS
from deepbedmap.errors import InvalidDataError
from deepbedmap.figures.panels import Panel
from deepbedmap.files.atomic import beside
from deepbedmap.model import checkpoints, networks, prediction, training
from deepbedmap.model.training.in_memory import TrainingSet
from deepbedmap.report.evaluation_figures import Figure
from deepbedmap.report.writing import report_evaluation
from deepbedmap.tiles.inputs import PADDING, Inputs, cut_inputs

if TYPE_CHECKING:
    from typing import Any

    import pandas as pd
    import xarray as xr
    from torch import nn

    from deepbedmap.demo.ice_slab import Configuration
    from deepbedmap.rasters.lattice import Bounds

logger = logging.getLogger(__name__)

BUFFER = 11_000.0
"""Least distance (m) of a training tile from a validation tile or a test pick."""

STEPS = 600
"""Training steps: some two minutes on two cores."""

TEST = next(survey.citekey for survey in SURVEYS if survey.role == "test")
Report = Callable[[str], None]


@dataclass(frozen=True)
class Surveyed:
    """What is known of the made-up glaciers once their registry has been fetched and read.

    Attributes
    ----------
    registry
        The made-up registry.
    picks
        Those of each detailed survey, by citekey.
    reconnaissance
        Those of the sparse lines over all glaciers, of which the prior is made.
    inputs
        Prior, surface, velocity and accumulation of all glaciers.
    bounds
        The window of the test glacier that is predicted: all but the margin the inputs need.
    """

    registry: registry.Registry
    picks: dict[str, pd.DataFrame]
    reconnaissance: pd.DataFrame
    inputs: Inputs
    bounds: Bounds

    def sources(self, role: str) -> list[dict[str, Any]]:
        """Files of the surveys that play a role; of all rasters, where it is ``"input"``."""
        playing = [survey.citekey for survey in SURVEYS if survey.role == role]
        return [
            {
                "role": role,
                "citekey": dataset.citekey,
                "file": file.filename,
                "sha256": file.sha256,
            }
            for dataset in self.registry
            if dataset.citekey in playing or (role == "input" and dataset.folder != "highres")
            for file in dataset.files
        ]

    @property
    def held_out(self) -> pd.DataFrame:
        """Picks of the test glacier, where the prior's bicubic interpolation has a value too."""
        # Its stencil reaches one cell of the prior further than the inputs' margin.
        return within(self.picks[TEST], _inside(self.bounds))


def run(
    out: Path,
    seed: int = 0,
    steps: int = STEPS,
    configuration: Configuration | None = None,
    report: Report = logger.info,
    advance: training.Advance | None = None,
) -> dict[str, Any]:
    """Make glaciers, survey them, grid, train, predict and score.

    Four glaciers give training tiles, a fifth validation tiles. The sixth is the test: of it
    nothing is known but the prior and the inputs, and its survey lines are only ever scored on.

    Parameters
    ----------
    out
        Folder for ``bed.tif``, ``bed.nc``, ``report.html``, ``comparison.png``, ``scores.json``,
        ``checkpoint.safetensors`` and ``repository/``, the made-up registry with its data.
    seed
        Another seed gives other glaciers and another start of the network.
    steps
        Training steps of 8 tiles.
    report
        Told what is being done, a line a stage.
    advance
        Told of each training step.

    Returns
    -------
    dict
        What ``scores.json`` holds: for each of ``model``, ``bicubic`` (the prior) and
        ``gridding`` (of all picks that are not held out) the fields of
        :class:`deepbedmap.evaluation.Scores`; ``seed``, ``seconds``, ``steps``.
    """
    start = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    surveyed = prepare(out / "repository", seed, configuration, report)

    report("gridding, and cutting tiles")
    parts = cut_parts(surveyed)

    report(f"training on {len(parts['training'])} tiles, {steps} steps")
    network, history = train(parts, seed, steps, advance)
    checkpoint = checkpoints.save(
        network,
        out / "checkpoint.safetensors",
        seed=seed,
        steps=steps,
        metrics=history[-1],
        sources=surveyed.sources("training") + surveyed.sources("input"),
    )

    report("predicting the glacier that gave no training data")
    bed = prediction.predict(
        checkpoints.load(checkpoint).network,
        surveyed.inputs,
        surveyed.bounds,
        provenance={"sources": [*surveyed.sources("input"), checkpoints.describe(checkpoint)]},
    )
    rasters.write_geotiff(bed, out / "bed.tif")
    rasters.write_netcdf(bed, out / "bed.nc")

    report("scoring at held-out picks")
    held_out = surveyed.held_out
    prior = out / "repository" / "lowres" / "MadeUpPrior.tif"
    rows = evaluation.compare(
        out / "bed.tif",
        held_out,
        prior=prior,
        gridding=surveyed.reconnaissance,
        velocity=out / "repository" / "misc" / "MadeUpVelocity.nc",
        registry=surveyed.registry,
    )
    scores: dict[str, Any] = {
        method: asdict(replace(row.scores, strata={}))
        for method, row in zip(("model", "bicubic", "gridding"), rows, strict=True)
    }

    report("drawing, and writing the report")
    truth = grids.grid_points(held_out, region=surveyed.bounds)
    figures.compare(
        [
            Panel(
                f"prior, bicubic: RMSE {scores['bicubic']['rmse']:.0f} m",
                interpolate_prior(surveyed.inputs.prior, bed),
            ),
            Panel(f"model: RMSE {scores['model']['rmse']:.0f} m", bed),
            Panel("held-out survey, gridded", truth),
            Panel("model minus held-out survey", bed - truth, "difference"),
        ],
        out / "comparison.png",
        source=f"Made-up glacier, seed {seed}; {len(held_out)} held-out picks. "
        "Nothing here was observed.",
    )
    with tempfile.TemporaryDirectory(prefix="deepbedmap-") as folder:
        curves = figures.training_curves(history, Path(folder) / "training.png")
        report_evaluation(
            out / "report.html",
            rows,
            out / "bed.tif",
            held_out,
            prior=prior,
            gridding=surveyed.reconnaissance,
            registry=surveyed.registry,
            figures=[
                Figure(
                    "The held-out survey",
                    out / "comparison.png",
                    "What was held out is gridded here for the eye alone: the scores are at the "
                    "picks themselves.",
                    "Maps of the prior, the model, the held-out survey and model minus survey.",
                ),
                Figure(
                    "Training",
                    curves,
                    "Errors at the tiles trained on, and at those of a glacier of their own, by "
                    "which the training is watched.",
                    "Curves of errors and losses by training step.",
                ),
            ],
            notes=["Made-up glaciers: nothing here was observed."],
            picks=TEST,
            command=shlex.join(
                [
                    "deepbedmap",
                    "demo",
                    "--out",
                    f"{out}",
                    "--seed",
                    f"{seed}",
                    "--steps",
                    f"{steps}",
                ]
            ),
        )
    scores |= {"seed": seed, "steps": steps, "seconds": round(time.perf_counter() - start, 1)}
    with beside(out / "scores.json") as part:
        part.write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")
    return scores


def prepare(
    folder: Path,
    seed: int,
    configuration: Configuration | None = None,
    report: Report = logger.info,
) -> Surveyed:
    """Make and survey the glaciers, fetch what their registry lists, and read it.

    Parameters are those of :func:`run`; ``folder`` is for the made-up registry and its data.
    """
    report("making and surveying six glaciers")
    glaciers = write_repository(folder, seed, configuration)

    report("fetching what the registry lists, and verifying checksums")
    entries = registry.load(folder / "data_list.yml")
    download.fetch(
        [dataset.citekey for dataset in entries],
        registry=entries,
        data_dir=folder,
        progress=False,
    )

    report("reading picks and rasters")
    pipelines = folder / "highres"
    return Surveyed(
        registry=entries,
        picks={
            survey.citekey: points.read_points(pipelines / survey.pipeline) for survey in SURVEYS
        },
        reconnaissance=points.read_points(pipelines / f"{RECONNAISSANCE}.json"),
        inputs=open_inputs(folder),
        bounds=_inside(glaciers[TEST].bounds),
    )


def train(
    parts: dict[str, TrainingSet],
    seed: int,
    steps: int,
    advance: training.Advance | None = None,
    around: Callable[[nn.Module], nn.Module] = lambda network: network,
) -> tuple[nn.Module, list[dict[str, float]]]:
    """Train the demo's network; ``around`` may wrap it first, to see what it needs to know."""
    threads = torch.get_num_threads()
    # For tiles as small as these one thread is as fast as two, and a network trained by one is
    # the same however many cores there are.
    torch.set_num_threads(1)
    try:
        torch.manual_seed(seed)
        network = around(networks.FlowAlignedGenerator())
        history = training.train(
            network,
            parts["training"],
            validation=parts["validation"],
            steps=steps,
            seed=seed,
            advance=advance,
        )
    finally:
        torch.set_num_threads(threads)
    return network, history


def open_inputs(repository: Path) -> Inputs:
    """Read the made-up prior, surface, velocity and accumulation into memory."""
    misc = repository / "misc"
    return Inputs(
        prior=rasters.open_raster(repository / "lowres" / "MadeUpPrior.tif").load(),
        surface=rasters.open_raster(misc / "MadeUpSurface.tif").load(),
        velocity=rasters.open_raster(misc / "MadeUpVelocity.nc", ("vx", "vy")).load(),
        accumulation=rasters.open_raster(misc / "MadeUpAccumulation.tif").load(),
    )


def cut_parts(surveyed: Surveyed) -> dict[str, TrainingSet]:
    """Grid each survey and cut its complete windows, by the part that the survey plays.

    Training windows overlap by two thirds, validation windows not at all. A window of one part
    that lies within 11 km of picks of another is left out.
    """
    picks, inputs = surveyed.picks, surveyed.inputs
    covered = {citekey: shapely.box(*grids.region_of(table)) for citekey, table in picks.items()}
    known = shapely.box(*_inside(rasters.bounds_of(inputs.prior)))
    steps = {"training": 12, "validation": 36}
    tiles_of: dict[str, list[dict[str, Any]]] = {role: [] for role in steps}
    for survey in SURVEYS:
        if survey.role not in steps:
            continue
        grid = grids.grid_points(picks[survey.citekey])
        windows = tiles.find_windows(grid, step=steps[survey.role])
        windows = windows[windows.within(known)]
        for other in SURVEYS:
            if other.role != survey.role:
                windows = windows[~windows.dwithin(covered[other.citekey], BUFFER)]
        if windows.empty:
            continue
        cut = cut_inputs(windows, inputs)
        cut["y"] = tiles.cut_tiles(grid, windows)
        complete = np.all([np.isfinite(a).all(axis=(1, 2, 3)) for a in cut.values()], axis=0)
        tiles_of[survey.role].append({name: array[complete] for name, array in cut.items()})
    for role, parts in tiles_of.items():
        if not parts:
            raise InvalidDataError(
                f"{role}: no survey has a complete window {BUFFER / 1000:g} km from the others; "
                "space the lines more closely, or the glaciers further apart"
            )
    return {
        role: TrainingSet({name: np.concatenate([p[name] for p in parts]) for name in parts[0]})
        for role, parts in tiles_of.items()
    }


def interpolate_prior(prior: xr.DataArray, like: xr.DataArray) -> xr.DataArray:
    """Bicubic interpolation of the prior at the cells of a grid."""
    values = rasters.interpolate(prior, like.x.to_numpy(), like.y.to_numpy(), "cubic")
    return like.copy(data=values.astype(np.float32))


def grid_known(known: pd.DataFrame, like: xr.DataArray) -> xr.DataArray:
    """Gridding of all picks that were known, however far apart their lines, on a grid's cells."""
    # A margin, so that lines just outside support the spline at the edge.
    xmin, ymin, xmax, ymax = rasters.bounds_of(like)
    region = xmin - PADDING, ymin - PADDING, xmax + PADDING, ymax + PADDING
    grid = grids.grid_points(within(known, region), max_gap=60, region=region)
    return grid.sel(x=like.x, y=like.y, method="nearest").assign_coords(x=like.x, y=like.y)


def within(picks: pd.DataFrame, bounds: Bounds) -> pd.DataFrame:
    """Picks that lie in a box."""
    xmin, ymin, xmax, ymax = bounds
    return picks[picks["x"].between(xmin, xmax) & picks["y"].between(ymin, ymax)]


def _inside(bounds: Bounds) -> Bounds:
    """Bounds less the margin that the inputs need."""
    xmin, ymin, xmax, ymax = bounds
    return xmin + PADDING, ymin + PADDING, xmax - PADDING, ymax - PADDING
