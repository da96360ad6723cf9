"""What the network makes of a real glacier: Byrd Glacier, East Antarctica, from radar alone.

Picks are means over pixels of 500 m of the radar's bed. Blocks of 10 km are drawn for training,
validation and test; picks nearer than 2 km to those of a later part are dropped from the earlier.
The prior is a grid at 2 km of the training picks alone, on the network's lattice of 1 km. Beside
it stands, marked as leaking, BedMachine as a prior: it was made of these very picks.

A tile's truth must not stand in its own prior, or the network would learn to sharpen what it is
given and never to mend what is missing between lines. So the training blocks are dealt into folds,
and the prior of a fold's tiles is gridded from the picks of the others, as far off as test picks
are from all.

The test picks are read once, by the network of the epoch that did best at the validation picks.
What has been measured already is not done again: a run that was stopped goes on when it is started
again with the same ``--out``.

    python benchmarks/byrd.py byrd_500m.nc byrd_radar_bed.csv --seeds 1 2 3 \\
        --out byrd.json --table byrd.md --beds beds --figure byrd.png
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from runs import (
    TINY,
    OtherFiguresError,
    Run,
    Runs,
    arguments,
    by_way,
    environment,
    fit,
    parts_of,
    table,
)
from torch import nn

from deepbedmap import demo, figures, grids, rasters, tiles
from deepbedmap.evaluation import distance_to, score
from deepbedmap.figures import Panel
from deepbedmap.model import prediction
from deepbedmap.model.training import Configuration, TrainingSet
from deepbedmap.model.training.configuration import load
from deepbedmap.places import Bounds
from deepbedmap.tiles import Inputs, cut_inputs
from deepbedmap.tiles.inputs import PADDING, RESOLUTION, RESOLUTIONS

CRS = "EPSG:3031"
DATUM = "ellipsoid"
BLOCK = 10_000.0
BUFFER = 2_000.0
SHARES = {"training": 0.60, "validation": 0.15, "test": 0.25}
FOLDS = 5
PRIOR = 2_000.0
EVERYWHERE = 1_000
TILE = 36
STEP = 12
COVERAGE = 0.03
SQUARE = 1_500.0
REPLICATES = 1_000


@dataclasses.dataclass(frozen=True)
class Way:
    """A bed that is scored.

    Attributes
    ----------
    independent
        Whether the test picks are new to all that it was made from.
    folds
        Into how many the training blocks are dealt; 1: the prior of all tiles is the test's.
    without
        An input that is not given: zero, in training and in prediction.
    made_up
        Whether the network has first been trained on the demo's glaciers.
    """

    title: str
    independent: bool = True
    trained: bool = True
    leaking_prior: bool = False
    folds: int = FOLDS
    without: tuple[str, ...] = ()
    made_up: bool = False


WAYS = {
    "bicubic": Way("prior, bicubic", trained=False),
    "gridding": Way("training picks gridded at 250 m", trained=False),
    "thickness": Way("surface less their ice thickness gridded at 250 m", trained=False),
    "model": Way("network"),
    "made-up": Way("network, trained on made-up glaciers first", made_up=True),
    "no-surface": Way("network, without surface", without=("surface",)),
    "no-velocity": Way("network, without velocity", without=("velocity",)),
    "prior-alone": Way(
        "network, given the prior alone", without=("surface", "velocity", "accumulation")
    ),
    "same-prior": Way("network, each tile's truth in its prior", folds=1),
    "leaking-bicubic": Way(
        "BedMachine prior, bicubic", independent=False, trained=False, leaking_prior=True
    ),
    "leaking-model": Way(
        "network, BedMachine prior", independent=False, leaking_prior=True, folds=1
    ),
    "bedmachine": Way("BedMachine, 500 m", independent=False, trained=False),
}

# What keeps the inputs of the order of one here, where mountains stand through slow ice: with the
# preset's, some were near a hundred, and the network soon gave one constant everywhere.
NORMALISATION = {
    "network__normalisation": {
        "surface": 40.0,
        "short_surface": 10.0,
        "velocity": 1.0,
        "mean_accumulation": 160.0,
        "accumulation": 45.0,
    }
}
# Lengths that a core does in minutes; of two rates the better by the validation picks of seed 0.
TRAINING = {
    **NORMALISATION,
    "schedule__pretraining_epochs": 4,
    "optimizer__learning_rate": 5e-4,
}
FIRST = {**NORMALISATION, "schedule__pretraining_epochs": 1}


class Glacier:
    """The rasters on the network's lattices, and the picks.

    Parameters
    ----------
    file
        NetCDF at 500 m: ``surface_ellipsoid``, ``vx``, ``vy``, ``smb`` (m/yr), and of BedMachine
        ``bm_bed`` and ``bm_surface`` above the geoid and ``bm_geoid``.
    picks
        Columns x, y, z, heights above the ellipsoid.
    """

    def __init__(self, file: Path, picks: pd.DataFrame) -> None:
        known = {
            name: rasters.open_raster(file, name).load()
            for name in ("surface_ellipsoid", "vx", "vy", "smb", "bm_bed", "bm_surface", "bm_geoid")
        }
        xmin, ymin, xmax, ymax = rasters.bounds_of(known["vx"])
        cell = RESOLUTIONS["x"]
        width, height = (cell * (extent // cell) for extent in (xmax - xmin, ymax - ymin))
        self.covered = xmin, ymin, xmin + width, ymin + height
        """Whole kilometres of what the rasters cover."""
        self.bounds = (
            xmin + PADDING,
            ymin + PADDING,
            xmin + width - PADDING,
            ymin + height - PADDING,
        )
        """Of the beds: all but the margin that the inputs need."""
        beyond = PRIOR * np.ceil(np.array([width, height]) / PRIOR + 1)
        self.region = xmin - PRIOR, ymin - PRIOR, xmin + beyond[0], ymin + beyond[1]

        self.surface = known["surface_ellipsoid"]
        self.fine_surface = self.resampled(self.surface, RESOLUTIONS["w1"], self.covered, "cubic")
        self.velocity = xr.concat([known["vx"], known["vy"]], "band")
        # Of the order of kg m-2 a-1, if the unit, which is not stated, is m of water a year.
        self.accumulation = 1_000 * known["smb"]
        # Where rock is bare BedMachine has no bed: there it is the surface.
        bed = known["bm_bed"].fillna(known["bm_surface"]) + known["bm_geoid"]
        self.bedmachine = bed.assign_attrs(vertical_datum=DATUM)
        self.leaking_prior = self.on_lattice(_block_means(self.bedmachine))
        components = (rasters.sample(band, picks["x"], picks["y"]) for band in self.velocity)
        self.picks = picks.assign(speed=np.hypot(*components))
        self.picks.attrs = {"crs": CRS, "vertical_datum": DATUM}

    def inputs(self, prior: xr.DataArray, without: tuple[str, ...] = ()) -> Inputs:
        """What the network is given; what it goes without is zero."""
        inputs = Inputs(prior, self.fine_surface, self.velocity, self.accumulation)
        nothing = {name: xr.zeros_like(getattr(inputs, name)) for name in without}
        return dataclasses.replace(inputs, **nothing)

    def prior_of(self, picks: pd.DataFrame) -> xr.DataArray:
        """Prior at 1 km of a grid of the picks at 2 km, without gaps."""
        return self.on_lattice(self.grid(picks, PRIOR))

    def grid(self, picks: pd.DataFrame, spacing: float = RESOLUTION) -> xr.DataArray:
        """The picks gridded, however far apart they are."""
        return grids.grid_points(picks, spacing, max_gap=EVERYWHERE, region=self.region)

    def on_lattice(self, coarse: xr.DataArray) -> xr.DataArray:
        """A prior at 2 km on the network's lattice of 1 km."""
        return self.resampled(coarse, RESOLUTIONS["x"], self.covered, "cubic")

    def resampled(
        self, grid: xr.DataArray, cell: float, bounds: Bounds, method: rasters.Method = "linear"
    ) -> xr.DataArray:
        """A grid of heights above the ellipsoid at the cells of a box."""
        axes = zip(bounds[:2], bounds[2:], strict=True)
        x, y = (np.arange(low, high, cell) + cell / 2 for low, high in axes)
        values = rasters.interpolate(grid, x, y, method).astype(np.float32)
        placed = xr.DataArray(values, {"y": y, "x": x}, ("y", "x"))
        return placed.assign_attrs(vertical_datum=DATUM).rio.write_crs(CRS)

    def cut(self, truth: pd.DataFrame, prior: xr.DataArray) -> dict[str, npt.NDArray[Any]]:
        """Tiles around picks, which count in the four cells of 250 m of their pixels."""
        pixels = truth.set_index(["y", "x"])["z"].to_xarray()
        pixels = pixels.reindex(y=self.surface["y"], x=self.surface["x"])
        surveyed = self.resampled(pixels, RESOLUTION, self.bounds, "nearest")
        windows = tiles.find_windows(surveyed, TILE, STEP, COVERAGE)
        return {
            **cut_inputs(windows, self.inputs(prior)),
            "y": tiles.cut_tiles(surveyed, windows),
            "mask": tiles.masks(surveyed, windows)[:, None],
        }


def _block_means(bed: xr.DataArray) -> xr.DataArray:
    """Means over 2 km from the south-western corner; the last blocks are of what there is."""
    cell = rasters.resolution_of(bed)
    edges = np.array(rasters.bounds_of(bed)).reshape(2, 2)
    last = edges[0] + PRIOR * np.ceil((edges[1] - edges[0]) / PRIOR)
    x, y = (np.arange(low + cell / 2, high, cell) for low, high in zip(edges[0], last, strict=True))
    count = round(PRIOR / cell)
    return bed.reindex(x=x, y=y).coarsen(x=count, y=count).mean()


def blocks_of(picks: pd.DataFrame, glacier: Glacier) -> npt.NDArray[np.int64]:
    """Number of the block of 10 km that each pick lies in."""
    xmin, ymin, xmax, _ = glacier.region
    column, row = (picks["x"] - xmin) // BLOCK, (picks["y"] - ymin) // BLOCK
    return (row * ((xmax - xmin) // BLOCK + 1) + column).to_numpy(np.int64)


def apart(picks: pd.DataFrame, others: pd.DataFrame) -> pd.DataFrame:
    """Picks that are farther than the buffer from all others."""
    kept = picks[distance_to(picks, others) > BUFFER]
    kept.attrs = picks.attrs
    return kept


class Experiment:
    """The picks of a seed, part by part, and what is made of them."""

    def __init__(self, glacier: Glacier, seed: int) -> None:
        self.glacier, self.seed = glacier, seed
        picks = glacier.picks
        block = blocks_of(picks, glacier)
        drawn = np.random.default_rng(seed).permutation(np.unique(block))
        edges = np.rint(np.cumsum([*SHARES.values()])[:-1] * len(drawn)).astype(int)
        training, validation, test = (
            picks[np.isin(block, chosen)] for chosen in np.split(drawn, edges)
        )
        for part in (training, validation, test):
            part.attrs = picks.attrs
        self.test = demo.within(test, glacier.bounds)
        self.validation = apart(validation, test)
        self.training = apart(training, pd.concat([test, validation]))
        self.dropped = len(training) - len(self.training)
        self.prior = glacier.prior_of(self.training)
        self.distance = distance_to(self.test, self.training)

    def facts(self) -> dict[str, Any]:
        """The parts in figures."""
        return {
            "training": len(self.training),
            "dropped": self.dropped,
            "validation": len(self.validation),
            "test": len(self.test),
            "test_blocks": len(np.unique(blocks_of(self.test, self.glacier))),
            "distance": {
                str(q): round(float(np.quantile(self.distance, q))) for q in (0, 0.1, 0.5, 0.9)
            },
        }

    def parts(self, way: Way) -> dict[str, TrainingSet]:
        """Tiles to train and to validate with."""
        glacier = self.glacier
        prior = glacier.leaking_prior if way.leaking_prior else self.prior
        pairs = [(self.training, prior)] if way.folds == 1 else self.folds(way.folds)
        cuts = [glacier.cut(*pair) for pair in pairs]
        # The picks of a fold may be too few for a tile.
        cuts = [cut for cut in cuts if len(cut["y"])]
        cut = {name: np.concatenate([part[name] for part in cuts]) for name in cuts[0]}
        validation = glacier.cut(self.validation, prior)
        for name, band in (("surface", "w1"), ("velocity", "w2"), ("accumulation", "w3")):
            if name in way.without:
                cut[band], validation[band] = (np.zeros_like(p[band]) for p in (cut, validation))
        return {"training": TrainingSet(cut), "validation": TrainingSet(validation)}

    def folds(self, folds: int) -> Iterator[tuple[pd.DataFrame, xr.DataArray]]:
        """Picks of each fold of the training blocks, and the prior that is made without them."""
        picks = self.training
        block = blocks_of(picks, self.glacier)
        numbers = np.unique(block)
        dealt = np.random.default_rng([self.seed, 0]).permutation(len(numbers)) % folds
        for fold in range(folds):
            own = picks[np.isin(block, numbers[dealt == fold])]
            yield own, self.glacier.prior_of(apart(picks, own))

    def baseline(self, name: str) -> xr.DataArray:
        """A bed that nothing was trained for."""
        glacier = self.glacier
        if name == "bedmachine":
            return glacier.bedmachine
        if name == "gridding":
            return glacier.grid(self.training)
        if name == "thickness":
            thickness = self.training.copy()
            surface = rasters.sample(glacier.surface, thickness["x"], thickness["y"])
            thickness["z"] = surface - thickness["z"]
            above = glacier.resampled(glacier.surface, RESOLUTION, glacier.bounds)
            gridded = glacier.grid(thickness)
            return above - gridded.sel(x=above.x, y=above.y, method="nearest", tolerance=1).data
        prior = glacier.leaking_prior if name == "leaking-bicubic" else self.prior
        return glacier.resampled(prior, RESOLUTION, glacier.bounds, "cubic")

    def score(self, bed: xr.DataArray) -> dict[str, Any]:
        """Errors at the test picks, with intervals over their blocks.

        There are no lines: roughness is the standard deviation of elevation within squares of
        3 x 3 pixels with three picks or more, that of the bed over that of the picks, in the mean.
        """
        picks = self.test
        both = pd.DataFrame({"bed": rasters.sample(bed, picks["x"], picks["y"]), "z": picks["z"]})
        block = blocks_of(picks, self.glacier)
        squares = both.assign(block=block).groupby(
            [block, picks["x"] // SQUARE, picks["y"] // SQUARE]
        )
        rough = squares[["bed", "z"]].std(ddof=0).assign(block=squares["block"].first())
        rough = rough[squares.size() >= 3]
        found = score(
            both["bed"],
            both["z"],
            block,
            (rough["block"], rough["bed"], rough["z"]),
            strata={"distance": self.distance, "speed": picks["speed"].to_numpy()},
            replicates=REPLICATES,
        )
        names = ("rmse", "mae", "bias", "bias_removed_rmse", "r2", "roughness_ratio")
        return {
            **{name: round(getattr(found, name), 3) for name in names},
            "picks": found.picks,
            "blocks": found.lines,
            "intervals": {
                name: [round(end, 3) for end in dataclasses.astuple(found.intervals[name])]
                for name in names
            },
            "strata": {
                name: [
                    {
                        "low": one.low,
                        "high": one.high,
                        "picks": one.picks,
                        "rmse": None if one.scores is None else round(one.scores.rmse, 2),
                    }
                    for one in strata
                ]
                for name, strata in found.strata.items()
            },
            **self.gain(both["bed"]),
        }

    def gain(self, bed: pd.Series[float]) -> dict[str, Any]:
        """By how much the RMSE is less than the bicubic prior's: both on the same resamples."""
        picks, block = self.test, blocks_of(self.test, self.glacier)
        beds = (bed, rasters.sample(self.baseline("bicubic"), picks["x"], picks["y"]))
        number = np.unique(block, return_inverse=True)[1]
        sums = np.stack([np.bincount(number, (one - picks["z"]) ** 2) for one in beds])
        random = np.random.default_rng(0)
        drawn = random.integers(0, sums.shape[1], (REPLICATES, sums.shape[1]))
        ratios = [np.sqrt(of[0] / of[1]) for of in (sums.sum(1), sums[:, drawn].sum(2))]
        ends = np.quantile(1 - ratios[1], [0.025, 0.975])
        return {
            "gain_over_bicubic": round(float(1 - ratios[0]), 4),
            "gain_interval": [round(float(end), 4) for end in ends],
        }


def settings_of(way: Way, seed: int, size: str) -> dict[str, Configuration] | None:
    """Configuration of each phase of a way."""
    if not way.trained:
        return None
    phases = {"made-up": FIRST} if way.made_up else {}
    # Where there is no flow to turn a tile along, it is turned at random.
    phases |= {"glacier": {**TRAINING, "training__augmentation": "velocity" in way.without}}
    preset = load("default")
    tiny = {**TINY, "schedule__pretraining_epochs": 1} if size == "test" else {}
    return {
        name: preset.with_values(**{**phase, **tiny, "training__seed": seed})
        for name, phase in phases.items()
    }


def stated(settings: dict[str, Configuration] | None) -> dict[str, Any] | None:
    return settings and {name: phase.to_dict() for name, phase in settings.items()}


def made_up(seed: int, size: str) -> dict[str, TrainingSet]:
    """Tiles of the demo's glaciers."""
    small = demo.Configuration(extent=24_000, pick_spacing=250, reconnaissance_spacing=8_000)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        made = small if size == "test" else None
        return parts_of(demo.prepare(folder / "repository", seed, made), folder)


def measure(
    experiment: Experiment, name: str, settings: dict[str, Configuration] | None, size: str
) -> tuple[Run, xr.DataArray]:
    """Train, predict and score a way."""
    way, seed, glacier = WAYS[name], experiment.seed, experiment.glacier
    went = None
    if settings is None:
        bed = experiment.baseline(name)
    else:
        went = {}
        network: nn.Module | None = None
        with tempfile.TemporaryDirectory() as scratch:
            for phase, configured in settings.items():
                parts = made_up(seed, size) if phase == "made-up" else experiment.parts(way)
                network, went[phase] = fit(configured, parts, Path(scratch) / phase, network)
        assert network is not None
        prior = glacier.leaking_prior if way.leaking_prior else experiment.prior
        bed = prediction.predict(network, glacier.inputs(prior, way.without), glacier.bounds)
    run = {"way": name, "seed": seed, "independent": "yes" if way.independent else "no"}
    facts = {"split": experiment.facts(), "training": went, "configuration": stated(settings)}
    return {**run, **experiment.score(bed), **facts}, bed


def tables(document: dict[str, Any]) -> str:
    """Scores, other measures, and errors by distance and by speed; a row a way, a column a seed."""
    seeds, cells = by_way(document["runs"])

    def rows(said: Callable[[Run], str]) -> list[tuple[str, list[str]]]:
        found = []
        for name, way in WAYS.items():
            title = way.title if way.independent else f"*leaking:* {way.title}"
            runs = [cells.get((name, seed)) for seed in seeds]
            found.append((title, [said(run) if run else "" for run in runs]))
        return found

    def rmse(run: Run) -> str:
        low, high = run["intervals"]["rmse"]
        gain, *ends = (100 * share for share in (run["gain_over_bicubic"], *run["gain_interval"]))
        gained = ""
        if run["way"] != "bicubic":
            gained = f"; {gain:+.1f} % ({ends[0]:+.1f} to {ends[1]:+.1f})"
        return f"{run['rmse']:.0f} m ({low:.0f} to {high:.0f}){gained}"

    def others(run: Run) -> str:
        return (
            f"{run['mae']:.0f} m, {run['bias']:+.0f} m, {run['bias_removed_rmse']:.0f} m, "
            f"{run['r2']:.2f}, {run['roughness_ratio']:.2f}"
        )

    parts = [
        table("RMSE (95 % of resamples); gain over the bicubic prior", seeds, rows(rmse)),
        table("MAE, bias, bias-removed RMSE, R2, roughness ratio", seeds, rows(others)),
    ]
    for name, title in (
        ("distance", "RMSE by distance from the nearest training pick"),
        ("speed", "RMSE by ice speed"),
    ):
        classes = [
            (number, one["low"], one["high"])
            for number, one in enumerate(document["runs"][0]["strata"][name])
            if any(run["strata"][name][number]["picks"] for run in document["runs"])
        ]
        per, unit = (1_000, "km") if name == "distance" else (1, "m/yr")
        bounds = ", ".join(
            f"{low / per:g} to {high / per:g} {unit}" if high else f"over {low / per:g} {unit}"
            for _, low, high in classes
        )

        def stratified(run: Run, name: str = name, classes: Any = classes) -> str:
            found = [run["strata"][name][number]["rmse"] for number, *_ in classes]
            return ", ".join("-" if value is None else f"{value:.0f}" for value in found) + " m"

        parts.append(table(f"{title}: {bounds}", seeds, rows(stratified)))
    return "\n".join(parts)


def draw(experiment: Experiment, beds: dict[str, xr.DataArray], path: Path) -> None:
    """Beds, and beside each what it is off the test picks, as means over 2 km."""
    glacier, picks = experiment.glacier, experiment.test
    panels = []
    for name in ("bicubic", "model", "bedmachine"):
        bed, title = beds[name], WAYS[name].title
        error = rasters.sample(bed, picks["x"], picks["y"]) - picks["z"]
        corner = glacier.bounds[:2]
        cells = [(picks[axis] - edge) // PRIOR for axis, edge in zip("xy", corner, strict=True)]
        mean = error.groupby(cells).mean()
        off = glacier.resampled(bed, PRIOR, glacier.bounds)
        off.data = np.full(off.shape, np.nan, np.float32)
        column, row = (mean.index.get_level_values(level).astype(int) for level in (0, 1))
        off.data[row, column] = mean
        panels += [Panel(title, bed), Panel(f"{title}, less the test picks", off, "difference")]
    figures.compare(
        panels,
        path,
        source=f"Byrd Glacier, seed {experiment.seed}, metres above the ellipsoid. Of the training "
        "picks alone, but for BedMachine (v3), which was made of the test picks too.",
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rasters", type=Path, help="byrd_500m.nc")
    parser.add_argument("picks", type=Path, help="byrd_radar_bed.csv: columns x, y, z")
    arguments(parser, WAYS)
    parser.add_argument("--beds", type=Path, help="folder in which the beds are kept")
    parser.add_argument("--figure", type=Path, help="of the first seed, from what --beds holds")
    asked = parser.parse_args()
    glacier = Glacier(asked.rasters, pd.read_csv(asked.picks))
    facts = {
        "files": {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in (asked.rasters, asked.picks)
        },
        "size": asked.size,
        **environment(),
    }
    try:
        runs = Runs(asked.out, facts, same=("files",))
        for seed in asked.seeds:
            wanted = {name: settings_of(WAYS[name], seed, asked.size) for name in asked.ways}
            todo = runs.missing(seed, {name: stated(wanted[name]) for name in wanted})
            experiment = Experiment(glacier, seed)
            for name in todo:
                run, bed = measure(experiment, name, wanted[name], asked.size)
                if asked.beds:
                    asked.beds.mkdir(parents=True, exist_ok=True)
                    rasters.write_geotiff(bed, asked.beds / f"{name}_{seed}.tif")
                runs.add(run)
                print(f"seed {seed}, {WAYS[name].title}: {run['rmse']:.1f} m", flush=True)
    except OtherFiguresError as error:
        parser.error(str(error))
    text = tables(runs.document)
    print(text)
    if asked.table:
        asked.table.write_text(text, encoding="utf-8")
    if asked.figure:
        seed = asked.seeds[0]
        beds = {
            name: rasters.open_raster(asked.beds / f"{name}_{seed}.tif").load()
            for name in ("bicubic", "model", "bedmachine")
        }
        draw(Experiment(glacier, seed), beds, asked.figure)


if __name__ == "__main__":
    main()
