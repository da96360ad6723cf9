"""Each stage from picks to tiles beside the plain way of working, on the same made-up data.

    python benchmarks/stages.py                       # smaller cases, a few minutes
    python benchmarks/stages.py --size hour --json stages.json
    python benchmarks/stages.py --stage points region --rounds 5

Each way of working runs in a process of its own, in turns, every other round in the opposite
order; the figures are medians. What is timed is the stage alone: modules are imported, numba's
functions compiled and a tiny case has been run before. Peak memory is that of the stage alone too
(the most that the process held, less what it held before), and that of the whole process.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import inspect
import itertools
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cases
import numpy as np
import pandas as pd
from cases import RESOLUTION, SPACING, Array

Way = Callable[[Path], Iterator[None]]
Bounds = tuple[float, float, float, float]

TENSION = 0.35
EDGE = 100  # nodes from an edge that data cross, which GMT's free edges reach


def load(folder: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    x, y, z = np.load(folder / "picks.npy")
    table = pd.DataFrame({"x": x, "y": y, "z": z})
    table.attrs = {"crs": "EPSG:3031", "vertical_datum": "ellipsoid", "sources": []}
    case = json.loads((folder / "case.json").read_text())
    return table, case | {"region": cases.box_of(case["cells"])}


noted: dict[str, Any] = {}
"""Figures of a way beside its time and memory."""


# A way of working prepares, yields, does what is timed, yields, and saves what it found.


def points_ours(folder: Path) -> Iterator[None]:
    from deepbedmap import points

    yield
    table = points.read_points(folder / "survey.json")
    yield
    noted.update(megabytes_of_output=round(table.memory_usage().sum() / 1e6, 1))
    np.save(folder / "ours.npy", table[["x", "y", "z"]].to_numpy())


def points_plain(folder: Path) -> Iterator[None]:
    import plain

    (path,) = folder.glob("*.csv")
    yield
    table = plain.read_points(path)
    yield
    np.save(folder / "plain.npy", table.to_numpy())


def points_plain_one_thread(folder: Path) -> Iterator[None]:
    import plain

    with contextlib.suppress(KeyError, AttributeError):  # pandas before 3.1 has one thread only
        pd.set_option("mode.max_threads", 1)
    (path,) = folder.glob("*.csv")
    yield
    plain.read_points(path)
    yield


def points_floor(folder: Path) -> Iterator[None]:
    """Four columns parsed by pyarrow and projected, in two threads, with no table made of them."""
    import pyarrow.csv
    import pyproj

    (path,) = folder.glob("*.csv")
    names = ["LAT", "LON", "ELEVATION", "BOTTOM"]
    options = pyarrow.csv.ConvertOptions(include_columns=names)
    yield
    columns = pyarrow.csv.read_csv(path, convert_options=options)
    latitude, longitude = (columns[name].to_numpy() for name in names[:2])

    def project(half: slice) -> Any:
        transformer = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:3031", always_xy=True)
        return transformer.transform(longitude[half], latitude[half])

    middle = len(latitude) // 2
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(project, [slice(middle), slice(middle, None)]))
    yield


def region_ours(folder: Path) -> Iterator[None]:
    from deepbedmap import grids

    table, _ = load(folder)
    yield
    region = grids.region_of(table)
    yield
    np.save(folder / "ours.npy", region)


def region_plain(folder: Path) -> Iterator[None]:
    import plain

    table, _ = load(folder)
    yield
    region = plain.region_of(table)
    yield
    np.save(folder / "plain.npy", region)


def region_floor(folder: Path) -> Iterator[None]:
    table, _ = load(folder)
    x, y = table["x"].to_numpy(), table["y"].to_numpy()
    yield
    _ = x.min(), x.max(), y.min(), y.max()
    yield


def in_cells(table: pd.DataFrame, region: Bounds) -> tuple[Array, Array, Array]:
    x, y = (table["x"] - region[0]) / SPACING, (table["y"] - region[1]) / SPACING
    return x.to_numpy(), y.to_numpy(), table["z"].to_numpy()


def solve_ours(folder: Path) -> Iterator[None]:
    from deepbedmap.grids import spline

    table, case = load(folder)
    columns, rows = case["cells"]
    medians = spline.block_medians(*in_cells(table, case["region"]))
    yield
    band = spline.solve(*medians, shape=(rows + 1, columns + 1), tension=TENSION)
    yield
    sweeps = inspect.signature(spline.solve).parameters["sweeps"].default
    noted.update(nodes=len(band.values), sweeps=sweeps)
    np.save(folder / "ours.npy", band.grid((rows + 1, columns + 1)))


def solve_plain(folder: Path) -> Iterator[None]:
    import plain

    table, case = load(folder)
    medians = plain.block_medians(table, case["region"], SPACING)
    yield
    grid = plain.solve(medians, case["region"], SPACING)
    yield
    np.save(folder / "plain.npy", grid.to_numpy())


def load_part(folder: Path) -> tuple[pd.DataFrame, Bounds, int]:
    """Block medians of a square amid the grid, its bounds, and its width in cells."""
    import plain

    table, case = load(folder)
    columns, rows = case["cells"]
    width = min(case["judged"], columns - 2, rows - 2)
    xmin = case["region"][0] + (columns - width) // 2 * SPACING
    ymin = case["region"][1] + (rows - width) // 2 * SPACING
    region = xmin, ymin, xmin + width * SPACING, ymin + width * SPACING
    return plain.block_medians(table, region, SPACING), region, width


def part_ours(folder: Path) -> Iterator[None]:
    from deepbedmap.grids import spline

    medians, region, width = load_part(folder)
    medians.columns = pd.Index(["x", "y", "z"])
    shape = width + 1, width + 1
    yield
    band = spline.solve(*in_cells(medians, region), shape=shape, tension=TENSION)
    yield
    np.save(folder / "part_ours.npy", band.grid(shape))


def part_plain(folder: Path) -> Iterator[None]:
    import plain

    medians, region, _ = load_part(folder)
    yield
    grid = plain.solve(medians, region, SPACING)
    yield
    np.save(folder / "part_plain.npy", grid.to_numpy())


def part_judge(folder: Path) -> Iterator[None]:
    """GMT run until nothing moves by a millimetre."""
    import pygmt

    medians, (xmin, ymin, xmax, ymax), _ = load_part(folder)
    yield
    grid = pygmt.surface(
        data=medians,
        spacing=SPACING,
        region=[xmin, xmax, ymin, ymax],
        tension=TENSION,
        maxradius="3c",
        convergence=0.001,
        N=5000,
    )
    yield
    np.save(folder / "part_judge.npy", grid.to_numpy())


def grid_ours(folder: Path) -> Iterator[None]:
    from deepbedmap import grids

    table, case = load(folder)
    path = folder / "ours.nc"
    path.unlink(missing_ok=True)
    yield
    grids.write_grid(table, path, SPACING, TENSION, region=case["region"], layers=False)
    yield
    noted.update(megabytes_on_disk=round(path.stat().st_size / 1e6, 1))


def grid_plain(folder: Path) -> Iterator[None]:
    import plain

    table, case = load(folder)
    yield
    plain.write_grid(table, folder / "plain.nc", case["region"], SPACING)
    yield


def grid_plain_coarser(folder: Path) -> Iterator[None]:
    """The same lines with nodes farther apart, for an extrapolation by the number of nodes."""
    import plain

    table, case = load(folder)
    yield
    plain.write_grid(table, folder / "coarser.nc", case["region"], SPACING * case["coarser"])
    yield


def tiles_ours(folder: Path) -> Iterator[None]:
    from deepbedmap import tiles

    windows = np.load(folder / "windows.npy")
    yield
    cut = tiles.cut_tiles(folder / "raster.tif", windows, resolution=RESOLUTION)
    yield
    np.save(folder / "ours.npy", cut[:, 0])


def tiles_plain(folder: Path) -> Iterator[None]:
    import plain

    windows = np.load(folder / "windows.npy")
    yield
    cut = plain.cut_tiles(folder / "raster.tif", windows, RESOLUTION)
    yield
    np.save(folder / "plain.npy", cut)


def tiles_floor(folder: Path) -> Iterator[None]:
    """Each block that a tile needs decoded once, in two threads."""
    yield from decode_blocks(folder, threads=2)


def tiles_floor_one_thread(folder: Path) -> Iterator[None]:
    yield from decode_blocks(folder, threads=1)


def decode_blocks(folder: Path, threads: int) -> Iterator[None]:
    import rasterio

    path = folder / "raster.tif"
    with rasterio.open(path) as raster:
        inverse, width, (block, _) = ~raster.transform, raster.width, raster.block_shapes[0]
    needed = set()
    for xmin, ymin, xmax, ymax in np.load(folder / "windows.npy"):
        (left, top), (right, bottom) = inverse * (xmin, ymax), inverse * (xmax, ymin)
        needed |= set(
            itertools.product(
                range(int(top - 0.5) // block, int(bottom) // block + 1),
                range(int(left - 0.5) // block, int(right) // block + 1),
            )
        )
    blocks = sorted((row, column) for row, column in needed if max(row, column) * block < width)

    def decode(share: list[tuple[int, int]]) -> None:
        with rasterio.open(path) as raster:
            for row, column in share:
                window = rasterio.windows.Window(column * block, row * block, block, block)
                raster.read(1, window=window)

    half = len(blocks) // threads
    shares = [blocks[:half], blocks[half:]]
    yield
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(decode, shares))
    yield
    noted.update(blocks=len(blocks))


def growth(step: int, wider: float) -> Way:
    """Gridding of one pick in so many, in a box so many times as wide and as high."""

    def way(folder: Path) -> Iterator[None]:
        from deepbedmap import grids

        table, case = load(folder)
        columns, rows = (int(wider * cells) for cells in case["cells"])
        table = table.iloc[::step].reset_index(drop=True)
        path = folder / "grown.nc"
        path.unlink(missing_ok=True)
        yield
        grids.write_grid(
            table, path, SPACING, TENSION, region=cases.box_of((columns, rows)), layers=False
        )
        yield

    return way


@dataclass(frozen=True)
class Stage:
    """Ways by name: ``ours`` and ``plain`` are compared, the others stand beside them."""

    make: Callable[[cases.Size, Path], str]
    ways: dict[str, Way]
    wanted: float
    once: frozenset[str] = frozenset()


STAGES = {
    "points": Stage(
        cases.make_points,
        {
            "ours": points_ours,
            "plain": points_plain,
            "plain, one thread": points_plain_one_thread,
            "floor": points_floor,
        },
        2.5,
    ),
    "region": Stage(
        cases.make_many, {"ours": region_ours, "plain": region_plain, "floor": region_floor}, 12
    ),
    "solve": Stage(
        cases.make_survey,
        {
            "ours": solve_ours,
            "plain": solve_plain,
            "ours, part": part_ours,
            "plain, part": part_plain,
            "converged GMT, part": part_judge,
        },
        20,
        frozenset({"ours, part", "plain, part", "converged GMT, part"}),
    ),
    "grid": Stage(cases.make_survey, {"ours": grid_ours, "plain": grid_plain}, 12),
    "sparse": Stage(
        cases.make_sparse,
        {"ours": grid_ours, "plain": grid_plain, "plain, coarser": grid_plain_coarser},
        50,
        frozenset({"plain", "plain, coarser"}),
    ),
    "box": Stage(
        cases.make_box,
        {"ours": grid_ours, "plain, coarser": grid_plain_coarser},
        50,
        frozenset({"plain, coarser"}),
    ),
    "tiles": Stage(
        cases.make_tiles,
        {
            "ours": tiles_ours,
            "plain": tiles_plain,
            "floor": tiles_floor,
            "floor, one thread": tiles_floor_one_thread,
        },
        60,
    ),
    "growth": Stage(
        cases.make_survey,
        {"ours": growth(1, 1), "a tenth of the picks": growth(10, 1),
         "ten times the area": growth(1, 10**0.5)},
        0,
    ),
}  # fmt: skip


def memory(what: str) -> float:
    """Megabytes that this process holds (VmRSS), or the most that it has held (VmHWM)."""
    (kilobytes,) = re.findall(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(kilobytes) * 1024 / 1e6


def reset_peak() -> None:
    """Let VmHWM start anew."""
    Path("/proc/self/clear_refs").write_text("5")


def cpu_seconds() -> float:
    of_children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + of_children.ru_utime + of_children.ru_stime


def work(way: Way, folder: Path) -> dict[str, Any]:
    """Run a way on the tiny case and then, timed, on the full one."""
    for _ in way(folder / "tiny"):
        pass
    steps = way(folder / "full")
    next(steps)
    before, most_before = memory("VmRSS"), memory("VmHWM")
    reset_peak()
    begun, cpu_begun = time.perf_counter(), cpu_seconds()
    next(steps)
    seconds, cpu = time.perf_counter() - begun, cpu_seconds() - cpu_begun
    most = memory("VmHWM")
    noted.clear()
    for _ in steps:
        pass
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "megabytes": most - before,
        "megabytes_of_process": max(most, most_before),
        **noted,
    }


def run(stage: str, way: str, folder: Path, alone: bool) -> dict[str, Any]:
    """Run a way, in a process of its own if it is to run alone."""
    if not alone:
        return work(STAGES[stage].ways[way], folder)
    done = subprocess.run(
        [sys.executable, __file__, "--way", stage, way, str(folder)],
        # make has glibc keep memory that is freed, which would hide peaks.
        env={name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def alternate(name: str, ways: list[str], folder: Path, rounds: int, alone: bool) -> dict[str, Any]:
    """Medians of each way's figures over the rounds."""
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    for number in range(rounds):
        for way in ways[:: -1 if number % 2 else 1]:
            if number and way in STAGES[name].once:
                continue
            figures = run(name, way, folder, alone)
            found[way].append(figures)
            say(f"  {name}, round {number + 1}, {way}: {figures['seconds']:.3g} s")
    return {
        way: {key: median([figures[key] for figures in all_]) for key in all_[0]}
        | {"all_seconds": [rounded(figures["seconds"]) for figures in all_]}
        for way, all_ in found.items()
    }


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def median(values: list[float]) -> float:
    return rounded(statistics.median(values))


def rounded(value: float) -> float:
    return float(f"{value:.4g}")


def difference(ours: Array, theirs: Array) -> dict[str, float]:
    apart = np.abs(np.asarray(ours, np.float64) - theirs)
    apart = apart[np.isfinite(apart)]
    return {
        "rms": rounded(float(np.sqrt(np.mean(apart**2)))),
        "percentile_99_9": rounded(float(np.percentile(apart, 99.9))),
        "max": rounded(float(apart.max())),
        "values": apart.size,
    }


def at_centres(nodes: Array) -> Array:
    """Bicubic convolution of heights at nodes half-way between them, a node in from the edges."""
    for _ in range(2):
        nodes = ((9 * (nodes[1:-2] + nodes[2:-1]) - nodes[:-3] - nodes[3:]) / 16).T
    return nodes


def compare(folder: Path) -> dict[str, float] | None:
    """How far the two ways' results lie apart, where both have any."""
    import xarray as xr

    if (folder / "plain.npy").exists():
        return difference(np.load(folder / "ours.npy"), np.load(folder / "plain.npy"))
    if (folder / "plain.nc").exists():
        with xr.open_dataarray(folder / "plain.nc", engine="h5netcdf") as plain:
            centres = at_centres(plain.to_numpy())
        with xr.open_dataset(folder / "ours.nc", engine="h5netcdf") as ours:
            return difference(ours["z"].to_numpy()[1:-1, 1:-1], centres)
    return None


def from_judge(folder: Path, way: str) -> dict[str, float]:
    """Difference from converged GMT, both given the same part, where no edge of it is near."""
    judge, found = (np.load(folder / f"part_{name}.npy") for name in ("judge", way))
    margin = min(EDGE, len(judge) // 3)
    inner = slice(margin, -margin), slice(margin, -margin)
    return difference(found[inner], judge[inner])


def measure(
    name: str, size: cases.Size, folder: Path, rounds: int, alone: bool = True
) -> dict[str, Any]:
    """All figures of a stage."""
    stage = STAGES[name]
    for case, extent in (("tiny", cases.TEST), ("full", size)):
        (folder / case).mkdir(parents=True, exist_ok=True)
        say(f"{name}: making the {case} case") if case == "full" else None
        described = stage.make(extent, folder / case)
    ways = [*stage.ways]
    if name == "sparse" and not size.sparse_in_full:
        ways.remove("plain")
    found = alternate(name, ways, folder, rounds, alone)
    full = folder / "full"
    figures: dict[str, Any] = {"case": described, "ways": found}
    if name == "growth":
        base = found["ours"]["seconds"]
        figures["ten_times_the_picks"] = rounded(base / found["a tenth of the picks"]["seconds"])
        figures["ten_times_the_area"] = rounded(found["ten times the area"]["seconds"] / base)
        return figures
    if "plain, coarser" in ways:
        figures["plain_seconds_extrapolated"] = rounded(
            found["plain, coarser"]["seconds"] * size.coarser**2
        )
    plain = found["plain"]["seconds"] if "plain" in ways else figures["plain_seconds_extrapolated"]
    figures |= {"ratio": rounded(plain / found["ours"]["seconds"]), "wanted": stage.wanted}
    figures["difference"] = compare(full)
    if name == "solve":
        figures["from_converged_gmt"] = {way: from_judge(full, way) for way in ("ours", "plain")}
    if name == "points":
        figures["megabytes_of_file"] = rounded(
            sum(path.stat().st_size for path in full.glob("*.csv")) / 1e6
        )
    return figures


def targets(stages: dict[str, Any]) -> list[dict[str, Any]]:
    """What is wanted of the stages and what was found: a ratio of at least, figures of at most."""
    found: list[dict[str, Any]] = []

    def add(what: str, value: float, wanted: float, most: bool = False) -> None:
        met = value <= wanted if most else value >= wanted
        found.append({"what": what, "found": rounded(value), "wanted": wanted, "met": bool(met)})

    for name, stage in stages.items():
        if "ratio" in stage:
            add(
                f"{name}: times as fast as the plain way, at least", stage["ratio"], stage["wanted"]
            )
        ours = stage["ways"]["ours"]
        match name:
            case "points":
                allowed = stage["megabytes_of_file"] + 2 * ours["megabytes_of_output"]
                add("points: MB of memory, at most the file and twice the output",
                    ours["megabytes"], rounded(allowed), True)  # fmt: skip
            case "solve":
                judged = stage["from_converged_gmt"]["ours"]
                add("solve: m RMS from converged GMT, at most", judged["rms"], 0.5, True)
                add("solve: m at the 99.9th percentile, at most",
                    judged["percentile_99_9"], 5, True)  # fmt: skip
            case "sparse" | "box":
                add(f"{name}: MB of the whole process, at most",
                    ours["megabytes_of_process"], 1000, True)  # fmt: skip
            case "tiles":
                for threads, way in (("two threads", "floor"), ("one thread", "floor, one thread")):
                    share = stage["ways"][way]["seconds"] / ours["seconds"]
                    add(f"tiles: share of the rate of decoding alone, {threads}, at least",
                        share, 0.5)  # fmt: skip
                add("tiles: m of difference, at most", stage["difference"]["max"], 1e-3, True)
            case "growth":
                add("growth: times as long for ten times the picks, at most",
                    stage["ten_times_the_picks"], 3, True)  # fmt: skip
                add("growth: times as long for ten times the area, at most",
                    stage["ten_times_the_area"], 1.2, True)  # fmt: skip
    return found


def machine() -> dict[str, Any]:
    import pygmt
    import rasterio

    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    (kilobytes,) = re.findall(r"MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    names = ("deepbedmap", "numpy", "pandas", "pyarrow", "pyproj", "numba", "pygmt", "xarray",
             "rioxarray", "rasterio")  # fmt: skip
    return {
        "processor": model[1] if model else platform.processor() or "unknown",
        "cores": len(os.sched_getaffinity(0)),
        "gigabytes": round(int(kilobytes) * 1024 / 1e9, 1),
        "system": platform.platform(),
        "load_at_start": round(os.getloadavg()[0], 2),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in names},
            "gmt": pygmt.clib.__gmt_version__,
            "gdal": rasterio.__gdal_version__,
        },
    }


def described(about: dict[str, Any]) -> str:
    """The machine in a sentence."""
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return (
        f"{about['processor']}, {about['cores']} cores, {about['gigabytes']} GB, load"
        f" {about['load_at_start']} at the start; {about['system']}; {versions}."
    )


def seconds_of(figures: dict[str, Any], way: str) -> str:
    return f"{figures['ways'][way]['seconds']:.3g} s" if way in figures["ways"] else ""


def memory_of(figures: dict[str, Any], way: str) -> str:
    if way not in figures["ways"]:
        return ""
    found = figures["ways"][way]
    return f"{found['megabytes']:,.0f} ({found['megabytes_of_process']:,.0f}) MB"


def apart(found: dict[str, float] | None) -> str:
    if found is None:
        return ""
    return f"{found['rms']:.2g}, {found['percentile_99_9']:.2g}, {found['max']:.2g} m"


def table(rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def report(document: dict[str, Any]) -> str:
    """The figures as tables in Markdown."""
    stages = document["stages"]
    rows = [["stage", "ours", "plain", "times as fast (wanted)", "floor", "memory, ours",
             "memory, plain", "RMS, 99.9 %, largest difference"]]  # fmt: skip
    remarks = [f"- {name}: {figures['case']}" for name, figures in stages.items()]
    for name, figures in stages.items():
        if "ratio" not in figures:
            remarks += [f"- {name}, {way}: {seconds_of(figures, way)}" for way in figures["ways"]]
            continue
        plain = seconds_of(figures, "plain")
        if not plain:
            plain = f"{figures['plain_seconds_extrapolated']:.3g} s (extrapolated)"
        ratio = f"{figures['ratio']:.3g} ({figures['wanted']:g})"
        rows.append(
            [name, seconds_of(figures, "ours"), plain, ratio,
             seconds_of(figures, "floor"), memory_of(figures, "ours"), memory_of(figures, "plain"),
             apart(figures["difference"])]
        )  # fmt: skip
        if "plain_seconds_extrapolated" in figures:
            remarks.append(
                f"- {name}: with nodes farther apart GMT took"
                f" {seconds_of(figures, 'plain, coarser')}; by the number of nodes that is"
                f" {figures['plain_seconds_extrapolated']:.3g} s"
            )
        if "from_converged_gmt" in figures:
            judged = figures["from_converged_gmt"]
            remarks.append(
                f"- {name}: from converged GMT, amid the grid, ours is {apart(judged['ours'])}"
                f" (RMS, 99.9 %, largest), GMT by its defaults {apart(judged['plain'])}"
            )
            ours = figures["ways"]["ours"]
            updates = ours["nodes"] * ours["sweeps"]
            remarks.append(
                f"- {name}: {ours['nodes']:,.0f} nodes around the picks, {ours['sweeps']:.0f}"
                f" sweeps: {updates:.2g} updates of the finest grid alone,"
                f" {ours['seconds'] / updates * 1e9:.1f} ns each"
            )
        if name == "tiles":
            blocks = figures["ways"]["floor"]["blocks"]
            remarks.append(
                f"- tiles: the floor decodes {blocks:,.0f} blocks of 256 x 256 once in two threads;"
                f" in one it takes {seconds_of(figures, 'floor, one thread')}"
            )
        if "plain, one thread" in figures["ways"]:
            remarks.append(
                f"- {name}: plain with pandas kept to one thread, as it was before 3.1:"
                f" {seconds_of(figures, 'plain, one thread')}"
            )
    held = [["wanted", "", "found", ""]] + [
        [t["what"], f"{t['wanted']:g}", f"{t['found']:.3g}", "yes" if t["met"] else "**no**"]
        for t in document["targets"]
    ]
    return "\n\n".join(
        [
            described(document["machine"]),
            f"Size `{document['size']}`, medians of {document['rounds']} rounds.",
            *([table(rows)] if len(rows) > 1 else []),
            "\n".join(remarks),
            table(held),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=cases.SIZES, default="minute")
    parser.add_argument("--stage", choices=STAGES, nargs="+", help="these alone")
    parser.add_argument("--rounds", type=int, help="1 by default, 3 where the size is hour")
    parser.add_argument("--folder", type=Path, help="where the data are made; the disk matters")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument(
        "--one-process", action="store_true", help="for tests: quicker, and memory means nothing"
    )
    parser.add_argument("--way", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        stage, way, folder = arguments.way
        print(json.dumps(work(STAGES[stage].ways[way], Path(folder))))
        return
    size = cases.SIZES[arguments.size]
    if size.box is None and "box" in (arguments.stage or []):
        parser.error("stage box needs --size hour")
    chosen = arguments.stage or [name for name in STAGES if name != "box" or size.box]
    rounds = arguments.rounds or size.rounds
    document = {"machine": machine(), "size": arguments.size, "rounds": rounds}
    stages: dict[str, Any] = {}
    for name in chosen:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            stages[name] = measure(name, size, Path(folder), rounds, not arguments.one_process)
        document |= {"stages": stages, "targets": targets(stages)}
        if arguments.json:  # after each: the next may take half an hour
            arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(report(document))


if __name__ == "__main__":
    main()
