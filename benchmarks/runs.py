"""Runs of an experiment, kept in a JSON file as they are done, and tables of them."""

from __future__ import annotations

import argparse
import copy
import json
import platform
import time
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from deepbedmap import demo, tiles
from deepbedmap.files import beside
from deepbedmap.model import checkpoints
from deepbedmap.model.training import Configuration, TrainingSet, fitting

TINY = {
    "network__features": 4,
    "network__growth": 4,
    "network__input_features": 4,
}
"""A network for tests of an experiment."""

Run = dict[str, Any]


class OtherFiguresError(ValueError):
    """A file holds figures that must not be mixed with those that are wanted."""


class Runs:
    """The runs of an experiment, each of a way and a seed, in a file.

    Parameters
    ----------
    path
        A JSON file; what it holds already is not measured again.
    facts
        What is said of all runs, in the file before them.
    same
        Facts in which a file that is there must agree.
    """

    def __init__(self, path: Path, facts: dict[str, Any], same: Collection[str] = ()) -> None:
        self.path = path
        self.document = _plain(facts) | {"runs": []}
        if path.exists():
            before = json.loads(path.read_text(encoding="utf-8"))
            for fact in same:
                if before[fact] != self.document[fact]:
                    raise OtherFiguresError(
                        f"{path} holds figures of other {fact}: choose another file"
                    )
            self.document["runs"] = before["runs"]

    @property
    def runs(self) -> list[Run]:
        runs: list[Run] = self.document["runs"]
        return runs

    def missing(self, seed: int, wanted: dict[str, Any]) -> list[str]:
        """Ways of a seed that are still to be measured, of those wanted by their configuration."""
        done = {run["way"]: run for run in self.runs if run["seed"] == seed}
        for way in done.keys() & wanted.keys():
            if done[way]["configuration"] != _plain(wanted[way]):
                raise OtherFiguresError(
                    f"{self.path} holds {way} of other settings: choose another file"
                )
        return [way for way in wanted if way not in done]

    def add(self, run: Run) -> None:
        """Keep a run, in the file too."""
        self.runs.append(run)
        with beside(self.path) as part:
            part.write_text(json.dumps(self.document, indent=1) + "\n", encoding="utf-8")


def _plain(facts: Any) -> Any:
    """As JSON gives it back."""
    return json.loads(json.dumps(facts))


def environment() -> dict[str, Any]:
    """What the figures may depend on beside the settings."""
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    return {"threads": torch.get_num_threads(), "versions": versions}


def by_way(runs: Sequence[Run]) -> tuple[list[int], dict[tuple[str, int], Run]]:
    """Seeds in order, and runs by way and seed."""
    return sorted({run["seed"] for run in runs}), {(run["way"], run["seed"]): run for run in runs}


def table(title: str, seeds: Iterable[int], rows: Iterable[tuple[str, Sequence[str]]]) -> str:
    """A row a way, a column a seed, in Markdown; rows without any cell are left out."""
    columns = [f"seed {seed}" for seed in seeds]
    lines = [_row(title, columns), "|---|" + "---|" * len(columns)]
    lines += [_row(name, said) for name, said in rows if any(said)]
    return "\n".join(lines) + "\n"


def _row(name: str, said: Iterable[str]) -> str:
    return f"| {name} | {' | '.join(said)} |"


def arguments(parser: argparse.ArgumentParser, ways: Collection[str]) -> None:
    """Add what all experiments are asked by."""
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument(
        "--ways",
        nargs="+",
        choices=ways,
        default=[*ways],
        metavar="WAY",
        help=f"of {', '.join(ways)}; by default all",
    )
    parser.add_argument(
        "--size",
        choices=("full", "test"),
        default="full",
        help="test: little data and tiny networks, for a test of this script",
    )
    parser.add_argument("--out", type=Path, required=True, help="figures as JSON")
    parser.add_argument("--table", type=Path, help="figures as a table in Markdown")


def parts_of(surveyed: demo.Surveyed, folder: Path, step: int = 12) -> dict[str, TrainingSet]:
    """Training and validation tiles of the demo's glaciers; by default they overlap by two thirds.

    The folder is for the training set on the disk.
    """
    dataset = tiles.open_training_set(demo.build_tiles(surveyed, folder / "tiles.zarr", step))
    return {
        "training": TrainingSet.from_dataset(dataset, "train"),
        "validation": TrainingSet.from_dataset(dataset, "validation"),
    }


def fit(
    settings: Configuration,
    parts: dict[str, TrainingSet],
    folder: Path,
    network: nn.Module | None = None,
) -> tuple[nn.Module, dict[str, Any]]:
    """Train, from a network that was trained before if one is given, and say how it went."""
    start = time.process_time()
    fitted = fitting.fit(
        settings,
        parts["training"],
        parts["validation"],
        folder,
        device="cpu",
        generator=copy.deepcopy(network),
    )
    best = checkpoints.load(fitted.best)
    last, chosen = fitted.history[-1], fitted.history[best.metadata["epoch"] - 1]
    return best.network, {
        "tiles": len(parts["training"]),
        "epochs": last["epoch"],
        "best_epoch": best.metadata["epoch"],
        "steps": last["step"],
        "validation_rmse": round(chosen["validation_rmse"], 2),
        "validation_bicubic_rmse": round(chosen["bicubic_rmse"], 2),
        "processor_seconds": round(time.process_time() - start, 1),
    }
