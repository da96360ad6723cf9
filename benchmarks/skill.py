"""How much the demo's network gains at held-out lines, and which inputs the gain comes from.

For each seed: the network as the demo trains it; the same network given the prior alone; the same
network with surface and velocity shuffled among tiles, in training and in prediction; the bicubic
prior; and two interpolations of all picks that are not held out, the spline in tension that makes
our grids and anisotropic kriging with parameters fitted by maximum likelihood.

    python benchmarks/skill.py --seeds 1 2 3 --out benchmarks/skill.json
    python benchmarks/skill.py --seeds 1 --methods model spline
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from runs import fit, parts_of
from scipy import linalg, optimize, special
from torch import Tensor, nn

from deepbedmap import demo, grids, rasters
from deepbedmap.evaluation import evaluate
from deepbedmap.model import prediction
from deepbedmap.model.training import TrainingSet
from deepbedmap.model.training.configuration import load
from deepbedmap.tiles.inputs import PADDING

METHODS = ("model", "prior alone", "shuffled", "spline", "kriging")


class PriorAlone(nn.Module):
    """A network that sees only the prior: its other inputs are zero."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, w1: Tensor, w2: Tensor, w3: Tensor) -> Tensor:
        return self.network(x, *(torch.zeros_like(w) for w in (w1, w2, w3)))


class Shuffled(nn.Module):
    """A network whose tiles are given the surface and velocity of another tile of the batch."""

    def __init__(self, network: nn.Module, seed: int) -> None:
        super().__init__()
        self.network = network
        self.generator = torch.Generator().manual_seed(seed)

    def forward(self, x: Tensor, w1: Tensor, w2: Tensor, w3: Tensor) -> Tensor:
        other = torch.randperm(len(x), generator=self.generator)
        parts = zip(*(w.split(32) for w in (x, w1[other], w2[other], w3)), strict=True)
        return torch.cat([self.network(*part) for part in parts])


def shuffled(tiles: TrainingSet, seed: int) -> TrainingSet:
    """Training tiles with the surface and velocity of other tiles, from whichever glacier."""
    other = torch.randperm(len(tiles), generator=torch.Generator().manual_seed(seed))
    swapped = {name: tiles.tensors[name][other] for name in ("w1", "w2")}
    return TrainingSet(tiles.tensors | swapped)


def prior_alone(tiles: TrainingSet) -> TrainingSet:
    """Training tiles whose surface, velocity and accumulation are zero."""
    blank = {name: torch.zeros_like(tiles.tensors[name]) for name in ("w1", "w2", "w3")}
    return TrainingSet(tiles.tensors | blank)


def spline(picks: pd.DataFrame, like: xr.DataArray) -> xr.DataArray:
    """Grid all picks, however far apart their lines, and sample the result at the cells of a grid.

    A margin lets lines just outside support the spline at the edge.
    """
    xmin, ymin, xmax, ymax = rasters.bounds_of(like)
    region = xmin - PADDING, ymin - PADDING, xmax + PADDING, ymax + PADDING
    grid = grids.grid_points(demo.within(picks, region), max_gap=60, region=region)
    return grid.sel(x=like.x, y=like.y, method="nearest").assign_coords(x=like.x, y=like.y)


def krige(picks: pd.DataFrame, like: xr.DataArray, spacing: float = 1_000) -> xr.DataArray:
    """Universal kriging (linear trend) of 1 km means, then bicubic to the cells of a grid.

    Matern covariance with range, smoothness, anisotropy, its direction and nugget by maximum
    likelihood (Stein 1999, Interpolation of Spatial Data).
    """
    cells = picks[["x", "y"]] // spacing
    means = picks.groupby([cells["x"], cells["y"]])[["x", "y", "z"]].mean()
    places, z = means[["x", "y"]].to_numpy() / 1e4, means["z"].to_numpy()
    middle, spread = places.mean(axis=0), z.std()

    def turned(at: np.ndarray, direction: float, longer: float) -> np.ndarray:
        c, s = np.cos(direction), np.sin(direction)
        along, across = (at - middle) @ (c, s), (at - middle) @ (-s, c)
        return np.stack([along / np.sqrt(longer), across * np.sqrt(longer)], axis=-1)

    def covariance(a: np.ndarray, b: np.ndarray, parameters: np.ndarray) -> np.ndarray:
        reach, smoothness, direction, longer, _ = parameters
        a, b = (turned(at, direction, np.exp(longer)) for at in (a, b))
        apart = np.hypot(a[:, None, 0] - b[None, :, 0], a[:, None, 1] - b[None, :, 1])
        nu = np.exp(smoothness)
        table = np.linspace(1e-6, np.sqrt(2 * nu) * 200, 40_000)
        values = 2 ** (1 - nu) / special.gamma(nu) * table**nu * special.kv(nu, table)
        return np.interp(np.sqrt(2 * nu) * apart / np.exp(reach), table, values)

    def drift(at: np.ndarray) -> np.ndarray:
        return np.column_stack([np.ones(len(at)), at - middle])

    def factor(parameters: np.ndarray, at: np.ndarray) -> Any:
        noise = (np.exp(parameters[4]) + 1e-6) * np.eye(len(at))
        return linalg.cho_factor(covariance(at, at, parameters) + noise, lower=True)

    thinned = slice(None, None, 2)

    def unlikely(parameters: np.ndarray) -> float:
        if abs(parameters[1] + 0.5) > 1.5 or abs(parameters[0]) > 3:
            return np.inf
        at, values = places[thinned], z[thinned] / spread
        try:
            lower = factor(parameters, at)
        except linalg.LinAlgError:
            return np.inf
        trend = drift(at)
        weights = linalg.cho_solve(lower, trend)
        rest = values - trend @ np.linalg.solve(trend.T @ weights, weights.T @ values)
        fit = rest @ linalg.cho_solve(lower, rest) / len(at)
        return float(np.log(fit) * len(at) / 2 + np.log(np.diag(lower[0])).sum())

    starts = [np.array([0.0, -0.3, angle, 0.3, -5.0]) for angle in (0.0, np.pi / 3, -np.pi / 3)]
    found = [
        optimize.minimize(unlikely, start, method="Nelder-Mead", options={"maxfev": 150})
        for start in starts
    ]
    best = min(found, key=lambda result: result.fun).x
    lower, trend = factor(best, places), drift(places)
    weights = linalg.cho_solve(lower, trend)
    slopes = np.linalg.solve(trend.T @ weights, weights.T @ z)
    residual = linalg.cho_solve(lower, z - trend @ slopes)
    xmin, ymin, xmax, ymax = rasters.bounds_of(like)
    x = np.arange(xmin - 1.5 * spacing, xmax + 2 * spacing, spacing)
    y = np.arange(ymin - 1.5 * spacing, ymax + 2 * spacing, spacing)
    nodes = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2) / 1e4
    bed = covariance(nodes, places, best) @ residual + drift(nodes) @ slopes
    coarse = xr.DataArray(bed.reshape(y.size, x.size), {"y": y, "x": x}, ("y", "x"))
    return demo.interpolate_prior(coarse, like)


def train_and_predict(
    method: str, surveyed: demo.Surveyed, parts: dict[str, TrainingSet], seed: int, epochs: int
) -> tuple[xr.DataArray, dict[str, Any]]:
    """Train a network as the demo does, on tiles of the method; return its bed and the training."""
    settings = load("default").with_values(schedule__pretraining_epochs=epochs, training__seed=seed)
    if method == "prior alone":
        parts = {name: prior_alone(tiles) for name, tiles in parts.items()}
    elif method == "shuffled":
        parts = {name: shuffled(tiles, seed) for name, tiles in parts.items()}
    with tempfile.TemporaryDirectory() as folder:
        network, training = fit(settings, parts, Path(folder))
    if method == "prior alone":
        network = PriorAlone(network)
    elif method == "shuffled":
        network = Shuffled(network, seed)
    one_batch = {"batch_size": 100_000} if method == "shuffled" else {}
    return prediction.predict(network, surveyed.inputs, surveyed.bounds, **one_batch), training


def measure(seed: int, epochs: int, methods: list[str]) -> dict[str, Any]:
    """Score the methods and the bicubic prior at the held-out picks of a seed's test glacier."""
    beds: dict[str, xr.DataArray] = {}
    trainings = {}
    with tempfile.TemporaryDirectory() as folder:
        surveyed = demo.prepare(Path(folder) / "repository", seed)
        parts = parts_of(surveyed, Path(folder), demo.STRIDE)
        for method in METHODS[:3]:
            if method in methods:
                bed, training = train_and_predict(method, surveyed, parts, seed, epochs)
                beds[method], trainings[method] = bed, training
        cells = grids.grid_points(surveyed.held_out, region=surveyed.bounds)
        beds["bicubic"] = demo.interpolate_prior(surveyed.inputs.prior, cells)
        if "spline" in methods:
            beds["spline"] = spline(surveyed.reconnaissance, cells)
        if "kriging" in methods:
            xmin, ymin, xmax, ymax = surveyed.bounds
            around_test = (xmin - 1_000, ymin - 1_000, xmax + 1_000, ymax + 1_000)
            beds["kriging"] = krige(demo.within(surveyed.reconnaissance, around_test), cells)
        scores = {name: evaluate(grid, surveyed.held_out) for name, grid in beds.items()}
    bicubic = scores["bicubic"]
    return {
        "seed": seed,
        "picks": bicubic.picks,
        "trainings": trainings,
        "methods": {
            name: {
                "rmse": round(score.rmse, 1),
                "mae": round(score.mae, 1),
                "bias": round(score.bias, 1),
                "roughness_ratio": round(score.roughness_ratio, 2),
                "gain_over_bicubic": round(1 - score.rmse / bicubic.rmse, 4),
            }
            for name, score in scores.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=demo.EPOCHS)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # as in the demo, so that the number of cores does not matter
    runs = []
    for seed in arguments.seeds:
        runs.append(measure(seed, arguments.epochs, arguments.methods))
        print(f"seed {seed}: {runs[-1]['picks']} picks")
        for name, score in runs[-1]["methods"].items():
            gain = f"{100 * score['gain_over_bicubic']:+6.1f} %"
            print(
                f"  {name:12} RMSE {score['rmse']:6.1f} m  bias {score['bias']:+6.1f} m  "
                f"roughness {score['roughness_ratio']:.2f}  {gain} over bicubic",
                flush=True,
            )
        if arguments.out:
            versions = {"python": platform.python_version(), "torch": torch.__version__}
            document = {"versions": versions, "runs": runs}
            arguments.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
