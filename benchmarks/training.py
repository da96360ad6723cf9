"""What each part of the training is worth at held-out lines of made-up glaciers.

For each seed six glaciers are made and surveyed as the demo does. Each way below trains on four of
them through ``deepbedmap.model.training.fit``, its best epoch chosen on the fifth, and is scored at
the picks of the sixth, of which nothing was trained on. An input that a way goes without is zero,
in training and in prediction. What has been measured already is not done again: a run that was
stopped goes on when it is started again with the same ``--out``.

    python benchmarks/training.py --seeds 1 2 3 --out training.json --table training.md
    python benchmarks/training.py --seeds 1 --ways default no-surface --epochs 10 --out part.json
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import xarray as xr
from runs import TINY, OtherFiguresError, Runs, arguments, by_way, environment, parts_of, table
from skill import Shuffled, shuffled

from deepbedmap import demo
from deepbedmap.evaluation import evaluate
from deepbedmap.model import checkpoints, prediction
from deepbedmap.model.training import Configuration, TrainingSet, fitting
from deepbedmap.model.training.configuration import load


@dataclasses.dataclass(frozen=True)
class Way:
    """A way to train.

    ``without`` is an input that it does not have; ``adversarial`` the share of its epochs, the
    last ones, that have a discriminator.
    """

    title: str
    preset: str = "default"
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    adversarial: float = 0.0
    without: str | None = None
    shuffled: bool = False


NO_TERMS = {"losses__structural_weight": 0.0, "losses__topographic_weight": 0.0}
WAYS = {
    "default": Way("default"),
    "no-surface": Way("default, without surface", without="surface"),
    "no-velocity": Way("default, without velocity", without="velocity"),
    "no-accumulation": Way("default, without accumulation", without="accumulation"),
    "shuffled": Way("default, surface and velocity shuffled", shuffled=True),
    "no-terms": Way("default, without structural and topographic terms", settings=NO_TERMS),
    "structural": Way(
        "default, without topographic term", settings={"losses__topographic_weight": 0.0}
    ),
    "discriminator": Way(
        "default, with a discriminator in the last third",
        settings={"losses__adversarial_weight": 1.1e-3},
        adversarial=1 / 3,
    ),
    "paper": Way("paper", "paper", adversarial=1),
    "paper-gradient": Way(
        "paper, gradient of the adversarial term kept",
        "paper",
        {"losses__detached": False},
        adversarial=1,
    ),
    "paper-no-discriminator": Way("paper, without a discriminator", "paper"),
    "paper-no-terms": Way(
        "paper, without structural and topographic terms",
        "paper",
        NO_TERMS,
        adversarial=1,
    ),
}

BAND = {"surface": "w1", "velocity": "w2", "accumulation": "w3"}
SMALL = demo.Configuration(extent=24_000, pick_spacing=250, reconnaissance_spacing=8_000)


def settings_of(way: Way, seed: int, epochs: int | None, blocks: int, size: str) -> Configuration:
    """Configuration of a way; the paper's network has as many blocks as are said."""
    preset = load(way.preset)
    count = epochs or preset.epochs
    against = round(way.adversarial * count)
    if way.adversarial:
        against = max(1, against)
    changes = {
        "training__seed": seed,
        "schedule__pretraining_epochs": count - against,
        "schedule__adversarial_epochs": against,
        **({"network__num_residual_blocks": blocks} if way.preset == "paper" else {}),
        **way.settings,
        **({**TINY, "training__batch": 8} if size == "test" else {}),
    }
    return preset.with_values(**changes)


def measure(
    way: Way,
    settings: Configuration,
    surveyed: demo.Surveyed,
    parts: dict[str, TrainingSet],
    folder: Path,
) -> dict[str, Any]:
    """Train, predict the test glacier, and score."""
    inputs, seed = surveyed.inputs, settings.training.seed
    if way.without:
        band = BAND[way.without]
        parts = {
            name: TrainingSet(part.tensors | {band: torch.zeros_like(part.tensors[band])})
            for name, part in parts.items()
        }
        nothing = xr.zeros_like(getattr(inputs, way.without))
        inputs = dataclasses.replace(inputs, **{way.without: nothing})
    if way.shuffled:
        parts = {name: shuffled(part, seed) for name, part in parts.items()}
    start = time.perf_counter()
    fitted = fitting.fit(settings, parts["training"], parts["validation"], folder, device="cpu")
    seconds = time.perf_counter() - start
    best = checkpoints.load(fitted.best)
    network = Shuffled(best.network, seed) if way.shuffled else best.network
    one_batch = {"batch_size": 100_000} if way.shuffled else {}
    bed = prediction.predict(network, inputs, surveyed.bounds, **one_batch)
    prior = demo.interpolate_prior(surveyed.inputs.prior, bed)
    score, bicubic = (evaluate(grid, surveyed.held_out) for grid in (bed, prior))
    return {
        "rmse": round(score.rmse, 1),
        "bias": round(score.bias, 1),
        "roughness_ratio": round(score.roughness_ratio, 3),
        "bicubic_rmse": round(bicubic.rmse, 1),
        "bicubic_roughness_ratio": round(bicubic.roughness_ratio, 3),
        "gain_over_bicubic": round(1 - score.rmse / bicubic.rmse, 4),
        "picks": score.picks,
        "tiles": len(parts["training"]),
        "best_epoch": best.metadata["epoch"],
        "epochs": fitted.history[-1]["epoch"],
        "steps": fitted.history[-1]["step"],
        "validation_rmse": round(best.metadata["metrics"][-1]["validation_rmse"], 1),
        "seconds": round(seconds, 1),
    }


def figures(runs: list[dict[str, Any]]) -> str:
    """A row a way, a column a seed: RMSE, gain over the bicubic prior, roughness ratio."""
    seeds, cells = by_way(runs)

    def said(run: dict[str, Any] | None) -> str:
        if run is None:
            return ""
        gain = 100 * run["gain_over_bicubic"]
        return f"{run['rmse']:.1f} m ({gain:+.1f} %), {run['roughness_ratio']:.2f}"

    first = [next(run for run in runs if run["seed"] == seed) for seed in seeds]
    rows = [
        (
            "bicubic prior",
            [f"{run['bicubic_rmse']:.1f} m, {run['bicubic_roughness_ratio']:.2f}" for run in first],
        )
    ]
    rows += [
        (way.title, [said(cells.get((name, seed))) for seed in seeds]) for name, way in WAYS.items()
    ]
    return table("RMSE at held-out picks (gain over bicubic), roughness ratio", seeds, rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments(parser, WAYS)
    parser.add_argument("--epochs", type=int, help="of each way; by default the preset's")
    parser.add_argument(
        "--blocks",
        type=int,
        default=1,
        help="residual-in-residual blocks of the paper's network, which has 12: "
        "more than two cores can train",
    )
    asked = parser.parse_args()
    try:
        runs = Runs(asked.out, {"size": asked.size, **environment()})
        for seed in asked.seeds:
            wanted = {
                name: settings_of(WAYS[name], seed, asked.epochs, asked.blocks, asked.size)
                for name in asked.ways
            }
            stated = {name: settings.to_dict() for name, settings in wanted.items()}
            todo = runs.missing(seed, stated)
            if not todo:
                continue
            with tempfile.TemporaryDirectory() as scratch:
                made = SMALL if asked.size == "test" else None
                surveyed = demo.prepare(Path(scratch) / "repository", seed, made)
                parts = parts_of(surveyed, Path(scratch))
                for name in todo:
                    way = WAYS[name]
                    found = measure(way, wanted[name], surveyed, parts, Path(scratch) / name)
                    configuration_of = {"configuration": stated[name]}
                    runs.add({"way": name, "seed": seed, **found, **configuration_of})
                    print(f"seed {seed}, {way.title}: {found['rmse']} m", flush=True)
    except OtherFiguresError as error:
        parser.error(str(error))
    text = figures(runs.runs)
    print(text)
    if asked.table:
        asked.table.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
