"""Made-up surveys and rasters on which the stages are timed, of several sizes."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating]

SPACING = 250.0
PICK_SPACING = 12.0
CORNER = (-1_600_000.0, -600_000.0)
TILE, STEP, RESOLUTION = 110, 750.0, 100.0


@dataclass(frozen=True)
class Size:
    """How large the cases are; cells across and upward."""

    rounds: int
    records: int  # of the CReSIS file, and of the region
    cells: tuple[int, int]
    picks: int
    judged: int  # width, in cells, of what GMT solves until it has converged
    sparse: tuple[int, int]
    sparse_lines: int
    sparse_in_full: bool  # GMT at all of its nodes
    box: tuple[int, int] | None
    coarser: int  # how much farther apart nodes are where GMT is timed for an extrapolation
    raster: int
    clusters: int
    windows: int  # in a row and in a column of a cluster


MINUTE = Size(
    rounds=1,
    records=2_000_000,
    cells=(960, 900),
    picks=220_000,
    judged=400,
    sparse=(4_000, 3_000),
    sparse_lines=20,
    sparse_in_full=False,
    box=None,
    coarser=8,
    raster=4_096,
    clusters=8,
    windows=10,
)
HOUR = replace(
    MINUTE,
    rounds=3,
    cells=(2_880, 2_700),
    picks=2_000_000,
    judged=600,
    sparse_in_full=True,
    box=(16_000, 12_000),
    raster=8_192,
    clusters=40,
)
TEST = Size(
    rounds=1,
    records=4_000,
    cells=(60, 50),
    picks=20_000,
    judged=56,
    sparse=(80, 60),
    sparse_lines=6,
    sparse_in_full=True,
    box=(120, 90),
    coarser=2,
    raster=600,
    clusters=2,
    windows=2,
)
SIZES = {"test": TEST, "minute": MINUTE, "hour": HOUR}


@functools.cache
def heights(shape: int, spacing: float) -> Array:
    """Rough ground (rows, columns) that repeats itself, in metres: as the demo's glaciers have."""
    from deepbedmap import demo
    from deepbedmap.demo.ice_slab import self_affine

    glacier = demo.Configuration()
    rough: Array = glacier.bed_deviation * self_affine(
        (shape, shape),
        spacing,
        glacier.corner_wavelength,
        glacier.hurst_exponent,
        np.random.default_rng(1),
    )
    return rough


def fly(
    extent: tuple[float, float], length: float, spacing: float, seed: int = 2
) -> Iterator[Array]:
    """Flight lines without end, x and y (2, n) in metres: curves, cut at the edges of a box."""
    random = np.random.default_rng(seed)
    along = np.arange(-length / 2, length / 2, spacing)
    while True:
        bend = np.sin(along / random.uniform(3e4, 2e5) + random.uniform(0, 2 * np.pi))
        heading = random.uniform(0, np.pi) + 0.3 * bend
        line = np.cumsum([np.cos(heading), np.sin(heading)], axis=1) * spacing
        line += (random.uniform(0, extent) - line[:, len(along) // 2])[:, None]
        inside = ((line > 0) & (line < np.array([extent]).T)).all(axis=0)
        yield line[:, inside]


def picks_along(
    lines: list[Array], rough: Array, corner: tuple[float, float] = CORNER, seed: int = 3
) -> Array:
    """Picks x, y, z (3, n): each line has an error of 5 m of its own, each pick one of 10 m."""
    from scipy.ndimage import map_coordinates

    random = np.random.default_rng(seed)
    error = np.concatenate(
        [random.normal(0, 5) + random.normal(0, 10, line.shape[1]) for line in lines]
    )
    x, y = np.concatenate(lines, axis=1)
    z = map_coordinates(rough, [y / SPACING, x / SPACING], order=1, mode="grid-wrap") + error
    return np.stack([x + corner[0], y + corner[1], z])


def box_of(cells: tuple[int, int]) -> tuple[float, float, float, float]:
    columns, rows = cells
    return (*CORNER, CORNER[0] + columns * SPACING, CORNER[1] + rows * SPACING)


def survey(cells: tuple[int, int], count: int) -> Array:
    """So many picks along lines that cross a box."""
    extent = cells[0] * SPACING, cells[1] * SPACING
    lines, total = [], 0
    for line in fly(extent, sum(extent), PICK_SPACING):
        lines.append(line)
        total += line.shape[1]
        if total >= count:
            return picks_along(lines, heights(2048, SPACING))[:, :count]
    raise AssertionError


def write_cresis(picks: Array, path: Path) -> None:
    """Write picks x, y, z (3, n) as a CReSIS file: degrees, and depths below the aircraft."""
    import pyarrow as pa
    import pyarrow.csv
    import pyproj

    x, y, z = picks
    to_degrees = pyproj.Transformer.from_crs("EPSG:3031", "EPSG:4326", always_xy=True)
    longitude, latitude = to_degrees.transform(x, y)
    number = np.arange(len(x))
    aircraft = 3340.0625
    columns = {
        "LAT": latitude.round(6),
        "LON": longitude.round(6),
        "UTCTIMESOD": (40_000 + 0.09 * (number % 400_000)).round(4),
        "THICK": (2500 - z).round(2),
        "ELEVATION": np.full(len(x), aircraft),
        "FRAME": 2018103001000 + number // 4000,
        "SURFACE": (600 + 0.2 * z).round(2),
        "BOTTOM": (aircraft - z).round(2),
        "QUALITY": 1 + number % 3,
    }
    unquoted = pyarrow.csv.WriteOptions(quoting_style="none")
    pyarrow.csv.write_csv(pa.table(columns), path, unquoted)


def write_pipeline(path: Path, pattern: str) -> None:
    """Write the pipeline of CReSIS files."""
    stages = [
        {
            "type": "readers.text",
            "filename": pattern,
            "header": "Y,X,UTCTIMESOD,THICK,ELEVATION,FRAME,SURFACE,BOTTOM,QUALITY",
            "separator": ",",
            "skip": 1,
        },
        {"type": "filters.expression", "expression": "BOTTOM > 0"},
        {"type": "filters.assign", "value": "Z = ELEVATION - BOTTOM"},
        {"type": "filters.reprojection", "in_srs": "EPSG:4326", "out_srs": "EPSG:3031"},
    ]
    path.write_text(json.dumps({"pipeline": stages}))


def make_points(size: Size, folder: Path) -> str:
    """A CReSIS file and its pipeline."""
    path = folder / "2018_Antarctica_DC8.csv"
    write_cresis(survey(size.cells, size.records), path)
    write_pipeline(folder / "survey.json", path.name)
    return f"{size.records:,} CReSIS records, {path.stat().st_size / 1e6:.0f} MB"


def save_case(folder: Path, picks: Array, cells: tuple[int, int], **more: Any) -> None:
    np.save(folder / "picks.npy", picks)
    (folder / "case.json").write_text(json.dumps({"cells": cells, **more}))


def make_survey(size: Size, folder: Path) -> str:
    save_case(folder, survey(size.cells, size.picks), size.cells, judged=size.judged)
    return f"{size.picks:,} picks, {size.cells[0]:,} x {size.cells[1]:,} cells"


def sparse(size: Size, folder: Path, cells: tuple[int, int], count: int, length: float) -> str:
    extent = cells[0] * SPACING, cells[1] * SPACING
    length = min(length, *extent)
    lines = list(itertools.islice(fly(extent, length, 4 * PICK_SPACING), count))
    save_case(folder, picks_along(lines, heights(2048, SPACING)), cells, coarser=size.coarser)
    width, height = (metres / 1e3 for metres in extent)
    return f"{count} lines of {length / 1e3:.0f} km in {width:,.0f} x {height:,.0f} km"


def make_many(size: Size, folder: Path) -> str:
    save_case(folder, survey(size.cells, size.records), size.cells)
    return f"{size.records:,} picks"


def make_sparse(size: Size, folder: Path) -> str:
    return sparse(size, folder, size.sparse, size.sparse_lines, 300_000)


def make_box(size: Size, folder: Path) -> str:
    assert size.box is not None
    return sparse(size, folder, size.box, 100, 500_000)


def make_tiles(size: Size, folder: Path) -> str:
    """A raster like REMA's, to 1/128 m, and windows in clusters that may overlap."""
    import rasterio

    period = min(size.raster, 2048)
    rough = (np.rint(heights(period, RESOLUTION) * 128) / 128).astype(np.float32)
    profile = {
        "driver": "GTiff",
        "dtype": "float32",
        "nodata": -9999,
        "count": 1,
        "width": size.raster,
        "height": size.raster,
        "crs": "EPSG:3031",
        "transform": rasterio.Affine(RESOLUTION, 0, CORNER[0], 0, -RESOLUTION, CORNER[1]),
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
        "compress": "lzw",
    }
    path = folder / "raster.tif"
    columns = np.arange(size.raster) % period
    with rasterio.open(path, "w", **profile) as raster:
        for row in range(0, size.raster, 256):
            last = min(row + 256, size.raster)
            window = rasterio.windows.Window(0, row, size.raster, last - row)
            raster.write(rough[np.arange(row, last) % period][:, columns], 1, window=window)
    width = TILE * RESOLUTION
    room = size.raster * RESOLUTION - width - (size.windows - 1) * STEP
    random = np.random.default_rng(4)
    # Edges of tiles lie on multiples of 250 m, as the grids of surveys have them.
    starts = np.floor(random.uniform(0, room, (size.clusters, 2)) / SPACING) * SPACING
    steps = np.stack(np.meshgrid(*[np.arange(size.windows) * STEP] * 2), axis=-1).reshape(-1, 2)
    corners = (starts[:, None] + steps).reshape(-1, 2)
    xmin = CORNER[0] + corners[:, 0]
    ymax = CORNER[1] - corners[:, 1]
    np.save(folder / "windows.npy", np.stack([xmin, ymax - width, xmin + width, ymax], axis=1))
    return (
        f"{len(xmin):,} windows of {TILE} x {TILE} in {size.clusters} clusters, raster of"
        f" {size.raster:,} x {size.raster:,}, {path.stat().st_size / 1e6:.0f} MB"
    )
