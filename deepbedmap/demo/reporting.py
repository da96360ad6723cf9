"""Draw the results of the demo and write its report."""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deepbedmap import figures, grids, rasters
from deepbedmap.figures.panels import Panel
from deepbedmap.report.evaluation_figures import Figure
from deepbedmap.report.writing import report_evaluation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    import pandas as pd
    import xarray as xr

    from deepbedmap.evaluation import Row
    from deepbedmap.registry import Registry


def interpolate_prior(prior: xr.DataArray, like: xr.DataArray) -> xr.DataArray:
    """Interpolate the prior bicubically at the cells of another grid.

    Parameters
    ----------
    prior
        Bed elevation (y, x), metres, EPSG:3031.
    like
        Grid (y, x) whose cell centres are used, and whose attributes are kept.

    Returns
    -------
    DataArray
        float32 (y, x), metres; NaN within two cells of the prior's edge.
    """
    values = rasters.interpolate(prior, like.x.to_numpy(), like.y.to_numpy(), "cubic")
    return like.copy(data=values.astype(np.float32))


def draw_comparison(
    bed: xr.DataArray,
    prior: xr.DataArray,
    held_out: pd.DataFrame,
    rmse: Mapping[str, float],
    seed: int,
    path: Path,
) -> Path:
    """Draw maps of the prior, the predicted bed, the held-out survey, and model minus survey.

    Parameters
    ----------
    bed, prior
        Predicted bed and prior (y, x), metres.
    held_out
        Picks of the test survey, gridded here for the map alone.
    rmse
        RMSE (m) at the held-out picks, of ``"bicubic"`` and ``"model"``.
    seed
        Seed of the demo, named below the maps.
    path
        PNG file to write.
    """
    survey = grids.grid_points(held_out, region=rasters.bounds_of(bed))
    panels = [
        Panel(f"prior, bicubic: RMSE {rmse['bicubic']:.0f} m", interpolate_prior(prior, bed)),
        Panel(f"model: RMSE {rmse['model']:.0f} m", bed),
        Panel("held-out survey, gridded", survey),
        Panel("model minus held-out survey", bed - survey, "difference"),
    ]
    source = f"Made-up glacier, seed {seed}; {len(held_out)} held-out picks. "
    figures.compare(panels, path, source=f"{source}Nothing here was observed.")
    return path


def write_report(
    out: Path,
    rows: list[Row],
    history: Sequence[Mapping[str, Any]],
    held_out: pd.DataFrame,
    *,
    prior: Path,
    gridding: pd.DataFrame,
    registry: Registry,
    picks: str,
    command: Sequence[str],
) -> None:
    """Write ``report.html``: scores and figures of the demo on one page.

    Parameters
    ----------
    out
        Folder of the demo, with ``bed.tif`` and ``comparison.png``.
    rows
        Scores of the bed and its baselines at the held-out picks, from
        :func:`deepbedmap.evaluation.compare`.
    history
        Metrics of the training, one row per epoch.
    held_out, prior, gridding, registry
        As in that comparison.
    picks
        Name of the held-out survey.
    command
        The command line that repeats the demo.
    """
    with tempfile.TemporaryDirectory(prefix="deepbedmap-") as folder:
        curves = figures.training_curves(history, Path(folder) / "training.png")
        report_evaluation(
            out / "report.html",
            rows,
            out / "bed.tif",
            held_out,
            prior=prior,
            gridding=gridding,
            registry=registry,
            figures=[
                Figure(
                    "The held-out survey",
                    out / "comparison.png",
                    "The held-out picks are gridded for this map only: the scores are computed at "
                    "the picks themselves.",
                    "Maps of the prior, the model, the held-out survey and model minus survey.",
                ),
                Figure(
                    "Training",
                    curves,
                    "Errors on the training tiles, and on the tiles of a validation glacier, which "
                    "chose the best epoch.",
                    "Curves of errors and losses by epoch.",
                ),
            ],
            notes=["Made-up glaciers: nothing here was observed."],
            picks=picks,
            command=shlex.join(command),
        )
