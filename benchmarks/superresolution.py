"""What the network makes of real terrain: super-resolution alone, at 79N Glacier, Greenland.

The prior is the mean of all picks in each cell of 1 km. It is made of the very picks that judge
the bed: this is a check of super-resolution, not of what can be known between survey lines. There
is no surface, velocity or accumulation: they are absent (zero), in training and in prediction.

The picks are split at their median x. The eastern half is learnt from, a strip of it chooses the
best epoch, and the picks farther west than one tile (9 km) from the median judge. What has been
measured already is not done again: a run that was stopped goes on when it is started again with
the same ``--out``.

    python benchmarks/superresolution.py 79N.csv --seeds 1 2 3 --out superresolution.json \\
        --table superresolution.md
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import torch
import xarray as xr
from runs import TINY, OtherFiguresError, Runs, arguments, by_way, environment, fit, table
from torch import Tensor, nn
from torch.nn import functional

from deepbedmap import grids, rasters, tiles
from deepbedmap.demo.ice_slab import self_affine
from deepbedmap.evaluation import evaluate
from deepbedmap.model import prediction
from deepbedmap.model.networks import bicubic
from deepbedmap.model.training import Configuration, TrainingSet
from deepbedmap.model.training.configuration import load
from deepbedmap.places import Bounds
from deepbedmap.tiles import Inputs
from deepbedmap.tiles.inputs import PADDING, RESOLUTION, RESOLUTIONS

CRS = "EPSG:3413"
TILE = 36
CELL = RESOLUTIONS["x"]
STEP = 4
COVERAGE = 0.2
SQUARE = 1_250.0
VALIDATION_FIELDS = 6


@dataclasses.dataclass(frozen=True)
class Terrain:
    """Made-up terrain to train on first: von Karman fields, each drawn between these limits.

    Many fields, a few tiles of each: no two tiles of a batch tell of the same relief.
    """

    fields: int = 150
    tiles: int = 32
    deviation: tuple[float, float] = (30.0, 300.0)
    """Metres, drawn by its logarithm as the next."""
    corner_wavelength: tuple[float, float] = (5_000.0, 60_000.0)
    hurst_exponent: tuple[float, float] = (0.4, 1.0)
    elongation: tuple[float, float] = (1.0, 2.0)


# Lengths that one core does in minutes. The rate of TUNED is the better of two by the strip of the
# eastern half that chooses, at seed 0; then all was frozen.
AUGMENTED = {"training__augmentation": True}
ALONE = {**AUGMENTED, "schedule__pretraining_epochs": 10, "training__patience": 4}
FIRST = {**AUGMENTED, "schedule__pretraining_epochs": 1}
TUNED = {**ALONE, "schedule__pretraining_epochs": 5, "optimizer__learning_rate": 1.5e-3}
WAYS = {
    "default": "default, of the eastern half alone",
    "made-up": "default, of made-up terrain alone",
    "tuned": "default, of made-up terrain, then of the eastern half",
}
BASELINES = {"bicubic": "bicubic prior", "mean-preserving": "mean-preserving bicubic prior"}


def read(path: Path) -> pd.DataFrame:
    """Picks, one a place: the median where a position is repeated."""
    picks = pd.read_csv(path).rename(columns={"X": "x", "Y": "y", "Bed": "z"})
    picks = picks.groupby(["x", "y"], as_index=False)["z"].median()
    picks.attrs = {"crs": CRS}
    return picks


def around(picks: pd.DataFrame) -> Bounds:
    """Whole kilometres around the picks, and one tile more."""
    places = picks[["x", "y"]]
    low, high = CELL * (places.min() // CELL - 9), CELL * (places.max() // CELL + 10)
    return low["x"], low["y"], high["x"], high["y"]


def block_means(picks: pd.DataFrame, bounds: Bounds) -> xr.DataArray:
    """Mean of the picks in each cell of 1 km; where there are none, a spline through the means."""
    means = picks.groupby([picks["x"] // CELL, picks["y"] // CELL])["z"].mean().reset_index()
    means[["x", "y"]] = (means[["x", "y"]] + 0.5) * CELL
    means.attrs = picks.attrs
    prior = grids.grid_points(means, CELL, max_gap=200, region=bounds)
    column, row = (np.searchsorted(prior[axis], means[axis]) for axis in ("x", "y"))
    prior[{"x": xr.DataArray(column), "y": xr.DataArray(row)}] = means["z"].to_numpy()
    return prior


def without_inputs(**grids_of: Any) -> TrainingSet:
    """Tiles of which nothing is known but the prior x (n, 1, h, h)."""
    n, _, h, _ = grids_of["x"].shape
    shapes = {"w1": (n, 1, 10 * h, 10 * h), "w2": (n, 2, 2 * h, 2 * h), "w3": (n, 1, h, h)}
    # Views of one zero: the surfaces of thousands of tiles would take gigabytes.
    nothing = {name: torch.zeros(1, 1, 1, 1).expand(shape) for name, shape in shapes.items()}
    return TrainingSet({**grids_of, **nothing})


class Glacier:
    """The picks of the glacier, what is made of them, and which of them are for what."""

    def __init__(self, picks: pd.DataFrame) -> None:
        self.bounds = around(picks)
        self.prior = block_means(picks, self.bounds)
        middle = picks["x"].median()
        self.learnt = picks[picks["x"] > middle]
        self.judging = picks[picks["x"] < middle - TILE * RESOLUTION]
        # A tile counts in the cells that hold a pick, and in those beside them.
        self.surveyed = grids.grid_points(self.learnt, RESOLUTION, max_gap=0, region=self.bounds)
        windows = tiles.find_windows(self.surveyed, TILE, STEP, COVERAGE)
        low, high = self.learnt["y"].min(), self.learnt["y"].max()
        # Beyond the picks the prior is extrapolated.
        within = windows["xmin"].ge(middle) & windows["xmax"].le(self.learnt["x"].max() + CELL)
        windows = windows[within & windows["ymin"].ge(low - CELL) & windows["ymax"].le(high + CELL)]
        south, north = low + (high - low) / 2, low + 3 * (high - low) / 4
        strip = (windows["ymin"] >= south) & (windows["ymax"] <= north)
        apart = (windows["ymax"] <= south) | (windows["ymin"] >= north)
        self.windows = {"training": windows[apart], "validation": windows[strip]}

    def tiles(
        self, windows: gpd.GeoDataFrame, prior: xr.DataArray, bed: xr.DataArray
    ) -> TrainingSet:
        """Tiles of a prior and a bed, which counts where the half was surveyed."""
        return without_inputs(
            x=tiles.cut_tiles(prior, windows, padding=PADDING),
            y=tiles.cut_tiles(bed, windows),
            mask=tiles.masks(self.surveyed, windows)[:, None],
        )

    def parts(self) -> dict[str, TrainingSet]:
        """Tiles of the half that is learnt from."""
        return {
            name: self.tiles(windows, self.prior, self.surveyed)
            for name, windows in self.windows.items()
        }

    def made_up(self, terrain: Terrain, seed: list[int]) -> TrainingSet:
        """Tiles of made-up terrain that was surveyed where the half was."""
        random = np.random.default_rng(seed)
        windows = pd.concat(self.windows.values())
        parts = []
        for _ in range(terrain.fields):
            bed = self.surveyed.copy(data=_relief(self.surveyed.shape, terrain, random))
            picks = self.learnt.assign(z=rasters.sample(bed, self.learnt["x"], self.learnt["y"]))
            prior = block_means(picks, self.bounds)
            drawn = windows.iloc[random.integers(0, len(windows), terrain.tiles)]
            parts.append(self.tiles(drawn, prior, bed).tensors)
        names = ("x", "y", "mask")
        return without_inputs(**{name: torch.cat([part[name] for part in parts]) for name in names})

    def inputs(self) -> Inputs:
        """What is known of the place: the prior, and zeros."""
        nothing = {}
        for name in ("w1", "w2", "w3"):
            axes = zip(self.bounds[:2], self.bounds[2:], strict=True)
            x, y = (
                np.arange(low, high, RESOLUTIONS[name]) + RESOLUTIONS[name] / 2
                for low, high in axes
            )
            zeros = xr.DataArray(np.zeros((y.size, x.size), "f4"), {"y": y, "x": x}, ("y", "x"))
            zeros.attrs["vertical_datum"] = self.prior.attrs["vertical_datum"]
            nothing[name] = zeros.rio.write_crs(CRS)
        velocity = xr.concat([nothing["w2"]] * 2, "band")
        return Inputs(self.prior, nothing["w1"], velocity, nothing["w3"])

    def refine(self, network: nn.Module) -> xr.DataArray:
        """Bed where the picks are that judge, by tiles as wide as those of the training."""
        places = self.judging[["x", "y"]]
        west, south = CELL * (places.min() // CELL)
        east, north = CELL * (places.max() // CELL + 1)
        east = max(east, west + TILE * RESOLUTION)
        return prediction.predict(network, self.inputs(), (west, south, east, north))

    def score(self, bed: xr.DataArray) -> dict[str, Any]:
        """Errors at the picks that judge, and the roughness ratio.

        There are no lines: roughness is the standard deviation of elevation within squares of
        1.25 km, mean over those with three picks or more; the bed's at the picks over the picks'.
        """
        picks = self.judging
        scores = evaluate(bed, picks)
        both = pd.DataFrame({"bed": rasters.sample(bed, picks["x"], picks["y"]), "z": picks["z"]})
        squares = both.groupby([picks["x"] // SQUARE, picks["y"] // SQUARE])
        deviation = squares.std(ddof=0)[squares.size() >= 3].mean()
        return {
            "rmse": round(scores.rmse, 2),
            "mae": round(scores.mae, 2),
            "bias": round(scores.bias, 2),
            "roughness_ratio": round(float(deviation["bed"] / deviation["z"]), 3),
            "picks": scores.picks,
        }


def _relief(
    shape: tuple[int, int], terrain: Terrain, random: np.random.Generator
) -> np.ndarray[Any, Any]:
    deviation, wavelength = (
        np.exp(random.uniform(*np.log(limits)))
        for limits in (terrain.deviation, terrain.corner_wavelength)
    )
    hurst, elongation = (
        random.uniform(*limits) for limits in (terrain.hurst_exponent, terrain.elongation)
    )
    direction = random.uniform(0, np.pi)
    field = self_affine(shape, RESOLUTION, wavelength, hurst, random, direction, elongation)
    return np.float32(deviation * field)


class Interpolation(nn.Module):
    """Bicubic interpolation of the prior, as a network that learns nothing.

    Parameters
    ----------
    rounds
        How often what the means of the result lack beside the prior is added to the prior: after
        ten the means are the prior's within centimetres.
    """

    def __init__(self, rounds: int = 0) -> None:
        super().__init__()
        self.rounds = rounds
        self.device = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, *_: Tensor) -> Tensor:
        prior = x.clone()
        for _round in range(self.rounds):
            lacking = x[..., 1:-1, 1:-1] - functional.avg_pool2d(bicubic(prior), 4)
            prior[..., 1:-1, 1:-1] += lacking
        return bicubic(prior)


def settings_of(way: str, seed: int, size: str) -> dict[str, Configuration]:
    """Configuration of each phase of a way."""
    phases = {"default": [ALONE], "made-up": [FIRST], "tuned": [FIRST, TUNED]}[way]
    names = ["half"] if way == "default" else ["made-up", "half"]
    preset = load("default")
    tiny = {**TINY, "schedule__pretraining_epochs": 1} if size == "test" else {}
    return {
        name: preset.with_values(**{**phase, **tiny, "training__seed": seed})
        for name, phase in zip(names, phases, strict=False)
    }


def measure(
    glacier: Glacier,
    half: dict[str, TrainingSet],
    terrain: Terrain,
    seed: int,
    ways: dict[str, dict[str, Configuration]],
) -> Iterator[dict[str, Any]]:
    """Train and score each way; those that begin with made-up terrain share that phase."""
    first: tuple[nn.Module, dict[str, Any]] | None = None
    with tempfile.TemporaryDirectory() as scratch:
        for way, settings in ways.items():
            network: nn.Module | None = None
            went = {}
            for name, phase in settings.items():
                folder = Path(scratch) / way / name
                if name == "half":
                    network, went[name] = fit(phase, half, folder, network)
                    continue
                if first is None:
                    little = dataclasses.replace(terrain, fields=VALIDATION_FIELDS)
                    made_up = {
                        "training": glacier.made_up(terrain, [seed, 0]),
                        "validation": glacier.made_up(little, [seed, 1]),
                    }
                    first = fit(phase, made_up, folder)
                network, went[name] = first
            assert network is not None
            score = glacier.score(glacier.refine(network))
            stated = {"training": went, "configuration": _stated(settings)}
            yield {"way": way, "seed": seed, **score, **stated}


def _stated(settings: dict[str, Configuration]) -> dict[str, Any]:
    return {name: phase.to_dict() for name, phase in settings.items()}


def figures(document: dict[str, Any]) -> str:
    """A row a way, a column a seed: RMSE, its gain over bicubic, mean absolute error, ..."""
    runs, baselines = document["runs"], document["baselines"]
    seeds, cells = by_way(runs)
    bicubic_rmse = baselines["bicubic"]["rmse"]

    def said(score: dict[str, Any] | None) -> str:
        if score is None:
            return ""
        gain = 100 * (1 - score["rmse"] / bicubic_rmse)
        return (
            f"{score['rmse']:.1f} m ({gain:+.1f} %), {score['mae']:.1f} m, "
            f"{score['bias']:+.1f} m, {score['roughness_ratio']:.2f}"
        )

    title = "RMSE (gain over bicubic), mean absolute error, bias, roughness ratio"
    rows = [(BASELINES[name], [said(baselines[name])] * len(seeds)) for name in BASELINES]
    rows += [(WAYS[way], [said(cells.get((way, seed))) for seed in seeds]) for way in WAYS]
    return table(title, seeds, rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("picks", type=Path, help="79N.csv: columns X, Y, Bed, EPSG:3413")
    arguments(parser, WAYS)
    asked = parser.parse_args()
    glacier = Glacier(read(asked.picks))
    terrain = Terrain(fields=3, tiles=8) if asked.size == "test" else Terrain()
    facts = {
        "picks": {
            "sha256": hashlib.sha256(asked.picks.read_bytes()).hexdigest(),
            "learnt": len(glacier.learnt),
            "judging": len(glacier.judging),
        },
        "size": asked.size,
        "terrain": dataclasses.asdict(terrain),
        **environment(),
        "baselines": {
            "bicubic": glacier.score(glacier.refine(Interpolation())),
            "mean-preserving": glacier.score(glacier.refine(Interpolation(rounds=10))),
        },
    }
    try:
        runs = Runs(asked.out, facts, same=("picks", "terrain"))
        half = glacier.parts()
        for seed in asked.seeds:
            wanted = {way: settings_of(way, seed, asked.size) for way in asked.ways}
            missing = runs.missing(seed, {way: _stated(wanted[way]) for way in wanted})
            todo = {way: wanted[way] for way in missing}
            for run in measure(glacier, half, terrain, seed, todo):
                runs.add(run)
                print(f"seed {seed}, {WAYS[run['way']]}: {run['rmse']} m", flush=True)
    except OtherFiguresError as error:
        parser.error(str(error))
    text = figures(runs.document)
    print(text)
    if asked.table:
        asked.table.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
