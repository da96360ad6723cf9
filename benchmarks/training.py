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
import json
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import xarray as xr
from skill import Shuffled, shuffled

from deepbedmap import demo, synthetic
from deepbedmap.model import checkpoints, configuration, prediction, training
from deepbedmap.model.configuration import Configuration
from deepbedmap.model.dataset import TrainingSet
from deepbedmap.model.evaluation import evaluate
from deepbedmap.repository import beside


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
SMALL = synthetic.Configuration(extent=24_000, pick_spacing=250, reconnaissance_spacing=8_000)
TINY = {
    "network__features": 4,
    "network__growth": 4,
    "network__input_features": 4,
    "training__batch": 8,
}


def settings_of(way: Way, seed: int, epochs: int | None, blocks: int, size: str) -> Configuration:
    """Configuration of a way; the paper's network has as many blocks as are said."""
    preset = configuration.load(way.preset)
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
        **(TINY if size == "test" else {}),
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
    fitted = training.fit(settings, parts["training"], parts["validation"], folder, device="cpu")
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


def table(runs: list[dict[str, Any]]) -> str:
    """A row a way, a column a seed: RMSE, gain over the bicubic prior, roughness ratio."""
    seeds = sorted({run["seed"] for run in runs})
    cells = {(run["way"], run["seed"]): run for run in runs}
    lines = [
        "| RMSE at held-out picks (gain over bicubic), roughness ratio | "
        + " | ".join(f"seed {seed}" for seed in seeds)
        + " |",
        "|---|" + "---|" * len(seeds),
    ]
    first = {seed: next(run for run in runs if run["seed"] == seed) for seed in seeds}
    priors = (
        f"{run['bicubic_rmse']:.1f} m, {run['bicubic_roughness_ratio']:.2f}"
        for run in first.values()
    )
    lines.append("| bicubic prior | " + " | ".join(priors) + " |")
    for name in WAYS:
        found = [cells.get((name, seed)) for seed in seeds]
        if any(found):
            said = (
                f"{run['rmse']:.1f} m ({100 * run['gain_over_bicubic']:+.1f} %), "
                f"{run['roughness_ratio']:.2f}"
                if run
                else ""
                for run in found
            )
            lines.append(f"| {WAYS[name].title} | " + " | ".join(said) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument(
        "--ways",
        nargs="+",
        choices=WAYS,
        default=[*WAYS],
        metavar="WAY",
        help=f"of {', '.join(WAYS)}; by default all",
    )
    parser.add_argument("--epochs", type=int, help="of each way; by default the preset's")
    parser.add_argument(
        "--blocks",
        type=int,
        default=1,
        help="residual-in-residual blocks of the paper's network, which has 12: "
        "more than two cores can train",
    )
    parser.add_argument(
        "--size",
        choices=("full", "test"),
        default="full",
        help="test: tiny glaciers and networks, for a test of this script",
    )
    parser.add_argument("--out", type=Path, required=True, help="figures as JSON")
    parser.add_argument("--table", type=Path, help="figures as a table in Markdown")
    arguments = parser.parse_args()
    runs = []
    if arguments.out.exists():
        runs = json.loads(arguments.out.read_text(encoding="utf-8"))["runs"]
    for seed in arguments.seeds:
        wanted = {
            name: settings_of(WAYS[name], seed, arguments.epochs, arguments.blocks, arguments.size)
            for name in arguments.ways
        }
        done = {run["way"]: run for run in runs if run["seed"] == seed}
        for name in done.keys() & wanted.keys():
            if done[name]["configuration"] != wanted[name].to_dict():
                parser.error(f"{arguments.out} holds {name} of other settings: choose another file")
        todo = [name for name in wanted if name not in done]
        if not todo:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            made = SMALL if arguments.size == "test" else None
            surveyed = demo.prepare(Path(scratch) / "repository", seed, made)
            parts = demo.cut_parts(surveyed)
            for name in todo:
                way, settings = WAYS[name], wanted[name]
                figures = measure(way, settings, surveyed, parts, Path(scratch) / name)
                stated = {"configuration": settings.to_dict()}
                runs.append({"way": name, "seed": seed, **figures, **stated})
                print(f"seed {seed}, {way.title}: {figures['rmse']} m", flush=True)
                versions = {"python": platform.python_version(), "torch": torch.__version__}
                document = {
                    "size": arguments.size,
                    "threads": torch.get_num_threads(),
                    "versions": versions,
                    "runs": runs,
                }
                with beside(arguments.out) as part:
                    part.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(table(runs))
    if arguments.table:
        arguments.table.write_text(table(runs), encoding="utf-8")


if __name__ == "__main__":
    main()
