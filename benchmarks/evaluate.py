"""How long it takes to score a bed of the continent at 10 million picks, and the memory of that.

Makes a GeoTIFF of 22,000 x 18,000 cells and picks on straight lines over it, both of no meaning,
then scores the one at the other by `deepbedmap evaluate`, all of it: intervals, roughness, spectra,
variogram, classes by relief. What is there from before is not made again.

    python benchmarks/evaluate.py --folder /tmp/scores --json benchmarks/evaluate.json

A hundredth of it, for a try: --picks 100000 --rows 1800 --columns 2200.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import rasterio

CELL = 250.0
WEST, NORTH = -2_700_000.0, 2_300_000.0
SPACING = 25.0  # metres from pick to pick: that of real surveys


def make_bed(path: Path, rows: int, columns: int) -> None:
    """Write hills, with some noise that does not compress, by bands of rows."""
    random = np.random.default_rng(0)
    transform = rasterio.Affine(CELL, 0, WEST, 0, -CELL, NORTH)
    options = {"driver": "GTiff", "dtype": "float32", "count": 1, "crs": "EPSG:3031"}
    options |= {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate"}
    options |= {"predictor": 3, "nodata": np.nan, "num_threads": "all_cpus", "bigtiff": "if_safer"}
    x = WEST + CELL * (np.arange(columns) + 0.5)
    with rasterio.open(
        path, "w", width=columns, height=rows, transform=transform, **options
    ) as file:
        file.update_tags(vertical_datum="ellipsoid")
        for top in range(0, rows, 512):
            y = NORTH - CELL * (np.arange(top, min(top + 512, rows)) + 0.5)
            bed = height(x, y[:, None]) + random.normal(0, 5, (y.size, columns))
            window = rasterio.windows.Window(0, top, columns, y.size)
            file.write(bed.astype("float32"), 1, window=window)


def height(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return -500 + 300 * np.sin(x / 40_000) * np.cos(y / 55_000)


def make_picks(path: Path, count: int, rows: int, columns: int) -> None:
    """Write picks on lines of 10,000, straight in all directions, within the bed."""
    random = np.random.default_rng(1)
    width, depth = CELL * columns, CELL * rows
    lines = max(2, count // 10_000)
    each = count // lines
    along = SPACING * np.arange(each)[None] % (0.5 * min(width, depth))
    turn = random.uniform(0, 2 * np.pi, (lines, 1))
    start = random.uniform(0, 1, (2, lines, 1))
    x = WEST + np.abs(start[0] * width + along * np.cos(turn)) % width
    y = NORTH - np.abs(start[1] * depth + along * np.sin(turn)) % depth
    x, y = x.ravel(), y.ravel()
    z = height(x, y) + random.normal(0, 40, lines).repeat(each) + random.normal(0, 20, x.size)
    names = pd.Categorical.from_codes(
        np.arange(lines).repeat(each), [f"line/{number}" for number in range(lines)]
    )
    picks = pd.DataFrame({"x": x, "y": y, "z": z, "line": names})
    picks.attrs = {"crs": "EPSG:3031", "vertical_datum": "ellipsoid"}
    picks.to_parquet(path)


def measure(folder: Path) -> dict[str, Any]:
    """Score by the command, in a process of its own."""
    command = [sys.executable, "-c", "from deepbedmap.cli import main; main()", "evaluate"]
    command += ["bed.tif", "--points", "picks.parquet", "--json"]
    load = round(os.getloadavg()[0], 1)
    start = time.perf_counter()
    with (folder / "scores.json").open("wb") as file:
        process = subprocess.Popen(command, cwd=folder, stdout=file)
        _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit("the command failed")
    scores = json.loads((folder / "scores.json").read_text())
    kept = ("rmse", "bias", "roughness_ratio", "picks", "outside", "lines")
    return {
        "seconds": round(seconds, 1),
        "processor_seconds": round(used.ru_utime + used.ru_stime, 1),
        "processors": os.cpu_count(),
        "load_before": load,
        "megabytes_of_process": used.ru_maxrss // 1024,
        "scores": {name: scores[name] for name in kept},
        "resolved_wavelength": scores["resolution"]["resolved_wavelength"],
        "wanted": {"seconds": 60, "megabytes_of_process": 2_000},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="for what is made up")
    parser.add_argument("--picks", type=int, default=10_000_000)
    parser.add_argument("--rows", type=int, default=18_000)
    parser.add_argument("--columns", type=int, default=22_000)
    parser.add_argument("--json", type=Path, help="where the figures go")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    bed, picks = given.folder / "bed.tif", given.folder / "picks.parquet"
    if not picks.exists():
        make_bed(bed, given.rows, given.columns)
        make_picks(picks, given.picks, given.rows, given.columns)
    figures = {
        "cells": [given.rows, given.columns],
        "megabytes_of_bed": bed.stat().st_size // 2**20,
        **measure(given.folder),
    }
    print(json.dumps(figures, indent=2))
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
