"""A made-up continent on a CPU: its picks gridded, its bed predicted, both killed on the way.

    python benchmarks/continent_dem.py --folder /data/continent --json continent.json
    python benchmarks/continent_dem.py --folder /data/small --json small.json \\
        --only picks --picks 8_000_000 --kill-after 50

Four cases, of which ``--only`` chooses some:

- picks: 80 million picks along flight lines (some 6.5 GB of CSV files) are read by one pipeline and
  gridded at 250 m over the continent. With ``--kill-after`` the gridding is done once more, killed
  (SIGKILL) that many seconds after it began, started again, and the two files are compared.
- continent: a tiny generator with random weights refines inputs without meaning (prior and
  accumulation at 1 km, velocity at 450 m, surface at 100 m) to 22,000 x 18,000 cells by
  ``deepbedmap predict``; killed halfway and started again; with ``--whole`` undisturbed too.
- part: 1,375 x 300 km of it, killed and started again, and undisturbed.
- seams: 600 x 600 km in one piece by the network's own ``forward``, and in bands of a single km,
  16 km apart, at offsets that point kilometres away; in float64 too, to tell rounding from seams.

Inputs are made once for a folder. Files are compared by their SHA-256. ``--rows`` leaves the south
out. A case whose figures ``--json`` already holds is not measured again.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import cases
import numpy as np
import rasterio
import stages
from rasterio.windows import Window

from deepbedmap import places

PADDING = 1_000  # metres
CELLS = {"prior": 1_000, "surface": 100, "velocity": 450, "accumulation": 1_000}
NETWORK = {"num_residual_blocks": 1, "features": 4, "growth": 4, "input_features": 4}
PART = 1_375, 300  # km, in the continent's north-west
SEAMS = 602  # cells of 1 km
DEVIATION = 100  # metres or so, of the bed in which seams are looked for
FILES = 8
LINE = 1_200_000.0  # metres
CASES = "picks", "continent", "part", "seams"
SPARE = 10**7  # bytes beyond the least: these offsets point farther than that is meant for

Bounds = tuple[float, float, float, float]
Field = Callable[[np.ndarray, np.ndarray], Any]


def make_survey(folder: Path, picks: int, number: int) -> Path:
    """Write one of the files: picks along lines over an ellipse that the continent fills."""
    xmin, ymin, xmax, ymax = places.CONTINENT
    extent = xmax - xmin, ymax - ymin
    wanted = picks * (number + 1) // FILES - picks * number // FILES
    lines, total = [], 0
    for line in cases.fly(extent, LINE, cases.PICK_SPACING, seed=number):
        radius = np.hypot(*(2 * line.T / extent - 1).T)
        lines.append(line[:, radius < 0.85])
        total += lines[-1].shape[1]
        if total >= wanted:
            break
    rough = cases.heights(2048, cases.SPACING)
    path = folder / f"{2010 + number}_Continent.csv"
    table = cases.picks_along(lines, rough, (xmin, ymin), seed=100 + number)[:, :wanted]
    cases.write_cresis(table, path)
    return path


def make_surveys(folder: Path, picks: int) -> None:
    """Write the files and their pipeline, unless they are there."""
    made = folder / "made.json"
    if made.exists() and json.loads(made.read_text()) == {"picks": picks}:
        return
    made.unlink(missing_ok=True)
    with ProcessPoolExecutor(2) as pool:
        for path in pool.map(make_survey, [folder] * FILES, [picks] * FILES, range(FILES)):
            stages.say(f"made {path}")
    cases.write_pipeline(folder / "continent.json", "20??_Continent.csv")
    made.write_text(json.dumps({"picks": picks}))


def read_and_grid(folder: Path, out: Path) -> None:
    """Read and grid; tell, a line a stage, when it began and what it took."""
    from deepbedmap import grids, points

    def tell(**said: Any) -> None:
        print(json.dumps(said), flush=True)

    def timed(stage: str, run: Any) -> Any:
        tell(stage=stage, began=True)
        before, most_before = stages.memory("VmRSS"), stages.memory("VmHWM")
        stages.reset_peak()
        begun, cpu_begun = time.perf_counter(), stages.cpu_seconds()
        result = run()
        most = stages.memory("VmHWM")
        tell(
            stage=stage,
            seconds=round(time.perf_counter() - begun, 2),
            cpu_seconds=round(stages.cpu_seconds() - cpu_begun, 2),
            megabytes=round(most - before),
            megabytes_of_process=round(max(most, most_before)),
        )
        return result

    table = timed("read", lambda: points.read_points(folder / "continent.json"))
    tell(picks=len(table), megabytes_of_table=round(table.memory_usage().sum() / 1e6))
    timed("grid", lambda: grids.write_grid(table, out, region=places.CONTINENT))


def grid_continent(folder: Path, out: Path, kill_after: float | None = None) -> dict[str, Any]:
    """Run the work in a process of its own; kill it so long after gridding began."""
    figures: dict[str, Any] = {}
    command = [sys.executable, __file__, "--read-and-grid", str(folder), str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            said = json.loads(line)
            stage = said.pop("stage", None)
            if stage is None:
                figures |= said
            elif "began" not in said:
                figures[stage] = said
                stages.say(f"  {stage}: {said['seconds']} s, {said['megabytes_of_process']} MB")
            elif stage == "grid" and kill_after is not None:
                threading.Timer(kill_after, process.kill).start()
    killed = process.returncode == -signal.SIGKILL
    if process.returncode and not (killed and kill_after is not None):
        raise SystemExit(f"the work ended with exit code {process.returncode}")
    return figures | {"killed": killed}


def grid_picks(folder: Path, picks: int, kill_after: float | None) -> dict[str, Any]:
    """Read and grid the picks of the continent; once more, killed, if a time is given."""
    make_surveys(folder, picks)
    files = list(folder.glob("*_Continent.csv"))
    whole = folder / "whole.nc"
    whole.unlink(missing_ok=True)
    figures = {
        "files": len(files),
        "gigabytes": stages.rounded(sum(path.stat().st_size for path in files) / 1e9),
        "uninterrupted": grid_continent(folder, whole),
        "megabytes_of_grid": round(whole.stat().st_size / 1e6),
    }
    if kill_after is not None:
        resumed = folder / "resumed.nc"
        resumed.unlink(missing_ok=True)
        first = grid_continent(folder, resumed, kill_after)
        then = grid_continent(folder, resumed) if first["killed"] else first
        figures["interrupted"] = {
            "after": kill_after,
            "killed": first["killed"],
            "grid": then["grid"],
            "same": digest(resumed) == digest(whole),
        }
    return figures


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def waves(x: np.ndarray, y: np.ndarray, lengths: tuple[int, ...], height: float) -> np.ndarray:
    total = np.zeros((y.size, x.size), np.float32)
    for number, length in enumerate(lengths):
        along = np.sin(x / length + number).astype(np.float32)
        total += height * length / lengths[0] * along * np.cos(y / length)[:, None].astype("f4")
    return total


def dome(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """3,000 m in the middle, nothing at a radius of 2,200 km and beyond."""
    squares = (x / 2.2e6) ** 2 + ((y / 2.2e6) ** 2)[:, None]
    return 3_000 * np.sqrt(np.maximum(1 - squares, 0, dtype="f4"), dtype="f4")


FIELDS: dict[str, Field] = {
    "prior": lambda x, y: waves(x, y, (60_000, 9_000), 700) - 300,
    "surface": lambda x, y: np.where((s := dome(x, y)) > 0, s + waves(x, y, (4_000,), 20), np.nan),
    "velocity": lambda x, y: np.stack([waves(x, y, (90_000, 7_000), n) for n in (200, -300)]),
    "accumulation": lambda x, y: 150 + waves(x, y, (200_000,), 100),
}


def make_input(path: Path, name: str, bounds: Bounds) -> None:
    """Write an input by bands of rows; the surface as whole metres."""
    cell, whole = CELLS[name], name == "surface"
    west, south, east, north = np.add(bounds, [-PADDING, -PADDING, PADDING, PADDING])
    columns, rows = (int(-(-side // cell)) for side in (east - west, north - south))
    options = {"driver": "GTiff", "crs": places.CRS, "width": columns, "height": rows}
    options |= {"dtype": "int16" if whole else "float32", "nodata": -9999}
    options |= {"count": 2 if name == "velocity" else 1, "bigtiff": "if_safer", "tiled": True}
    options |= {"blockxsize": 512, "blockysize": 512, "compress": "zstd", "zstd_level": 1}
    options |= {"predictor": 2 if whole else 3}
    transform = rasterio.Affine(cell, 0, west, 0, -cell, north)
    x = west + cell * (np.arange(columns) + 0.5)
    part = path.with_suffix(".part")
    with rasterio.open(part, "w", transform=transform, **options) as file:
        file.update_tags(
            **({"vertical_datum": "EIGEN-6C4"} if name in ("prior", "surface") else {})
        )
        for top in range(0, rows, 512):
            y = north - cell * (np.arange(top, min(top + 512, rows)) + 0.5)
            values = np.nan_to_num(np.reshape(FIELDS[name](x, y), (-1, y.size, x.size)), nan=-9999)
            window = Window(0, top, columns, y.size)
            file.write(values.astype(options["dtype"]), window=window)
    part.replace(path)


def make(folder: Path, bounds: Bounds) -> list[str]:
    """Make what is not there yet; the arguments of a prediction from it."""
    import torch

    from deepbedmap.model import checkpoints
    from deepbedmap.model.networks import Generator

    network = folder / "network.safetensors"
    if not network.exists():
        torch.manual_seed(0)
        checkpoints.save(Generator(**NETWORK), network)
    arguments = [str(network)]
    for name in CELLS:
        path = folder / f"{name}.tif"
        if not path.exists():
            make_input(path, name, bounds)
            stages.say(f"made {path}: {path.stat().st_size / 1e6:,.0f} MB")
        arguments += [f"--{name}", str(path)]
    return arguments


def predict(
    arguments: list[str], out: Path, bounds: Bounds, memory: str, kill_at: int | None = None
) -> dict[str, Any]:
    """Predict in a process of its own; kill it once so many rows are done."""
    command = [sys.executable, "-c", "from deepbedmap.cli import main; main()", "predict"]
    command += [*arguments, "--out", f"{out}.nc", "--out", f"{out}.tif", "--memory", memory]
    command += ["--device", "cpu", "--bounds", *map(str, bounds)]
    marks = out.with_name(f".{out.name}.nc.parts") / "done"
    begun, killed, writing = time.perf_counter(), False, None
    before = len(list(marks.iterdir())) if marks.exists() else 0
    rows = round((bounds[3] - bounds[1]) / 1_000)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while (ended := os.wait4(process.pid, os.WNOHANG))[0] == 0:
            done = len(list(marks.iterdir())) if marks.exists() else 0
            if kill_at is not None and done >= kill_at and not killed:
                process.kill()
                killed = True
            if writing is None and done >= rows:
                writing = time.perf_counter()
            time.sleep(0.25)
        _, status, usage = ended
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in ((-signal.SIGKILL,) if killed else (0,)):
        raise SystemExit(f"deepbedmap predict ended with exit code {process.returncode}")
    now = time.perf_counter()
    figures = {
        "seconds": stages.rounded(now - begun),
        "seconds_of_writing": None if writing is None or killed else stages.rounded(now - writing),
        "processor_seconds": stages.rounded(usage.ru_utime + usage.ru_stime),
        "megabytes_of_process": round(1024 * usage.ru_maxrss / 1e6),
        "rows_found_done": before,
    }
    stages.say(f"  {figures}")
    return figures


def killed_and_resumed(
    arguments: list[str], out: Path, bounds: Bounds, memory: str
) -> dict[str, Any]:
    rows = round((bounds[3] - bounds[1]) / 1_000)
    first = predict(arguments, out, bounds, memory, kill_at=rows // 2)
    return {"killed": first, "resumed": predict(arguments, out, bounds, memory)}


def digests(out: Path) -> dict[str, str]:
    return {suffix: digest(out.with_name(f"{out.name}.{suffix}")) for suffix in ("nc", "tif")}


def remove(out: Path) -> None:
    for suffix in ("nc", "tif"):
        out.with_name(f"{out.name}.{suffix}").unlink(missing_ok=True)


def one_piece(size: int) -> dict[str, Any]:
    """The largest difference of a domain in one piece and in the smallest ones."""
    import torch
    from scipy import ndimage

    from deepbedmap.model import prediction
    from deepbedmap.model.networks import Generator
    from deepbedmap.model.prediction import domain

    random, cells = np.random.default_rng(0), {"x": 1, "w1": 10, "w2": 2, "w3": 1}
    grids = {}
    for name, n in cells.items():
        noise = random.standard_normal((2 if name == "w2" else 1, n * size, n * size), np.float32)
        smooth = ndimage.gaussian_filter(noise, (0, 4 * n, 4 * n))
        grids[name] = smooth / smooth.std()

    def read(top: int, bottom: int, left: int, right: int) -> dict[str, np.ndarray]:
        return {
            name: grid[:, (n := cells[name]) * top : n * bottom, n * left : n * right]
            for name, grid in grids.items()
        }

    torch.manual_seed(0)
    network = Generator(1, features=4, growth=4, input_features=4, flags=False).eval()
    layers = network.final_conv_layer1, network.final_conv_layer2
    offsets: list[float] = []
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(5)
        for layer in layers:
            layer.offset_conv.weight.mul_(40)
            layer.offset_conv.register_forward_hook(
                lambda *call: offsets.append(float(call[2].abs().max()))
            )

    def at_once() -> np.ndarray:
        dtype = network.final_conv_layer2.deform_conv.weight.dtype
        tensors = [torch.from_numpy(grid).to(dtype)[None] for grid in grids.values()]
        with torch.inference_mode(), by_rows(layers):
            return network(*tensors)[0, 0].float().numpy()

    # As bumpy as a bed; a power of two changes no digit.
    single = at_once()
    factor = np.float32(2.0 ** round(np.log2(DEVIATION / single.std())))
    single = factor * single
    with torch.no_grad():
        for weight in layers[1].deform_conv.parameters():
            weight.mul_(float(factor))
    shape = (size, size)

    def compared(whole: np.ndarray) -> dict[str, Any]:
        memory = prediction.least_memory(network, shape) + SPARE
        rows, apart, blocks = range(0, size - 2, 16), 0.0, 0
        for row in rows:
            for block in domain.refine_band(
                network, read, shape, slice(row, row + 1), memory=memory
            ):
                height, width = block.bed.shape
                expected = whole[block.top : block.top + height, block.left : block.left + width]
                apart = max(apart, float(np.abs(block.bed - expected).max()))
                blocks += 1
        return {
            "megabytes_allowed": round(memory / 1e6),
            "bands": len(rows),
            "blocks": blocks,
            "largest_difference": apart,
        }

    figures: dict[str, Any] = {
        "cells": list(single.shape),
        "deviation_of_bed": stages.rounded(float(single.std())),
        "largest_offsets_km": [stages.rounded(n / prediction.ZOOM) for n in offsets[-2:]],
        "float32": compared(single),
    }
    stages.say(f"  {figures}")
    network.double()
    double = at_once()
    figures["float64"] = compared(double)
    return figures | {"rounding_of_float32": float(np.abs(single - double).max())}


@contextlib.contextmanager
def by_rows(layers: Sequence[Any], rows: int = 64) -> Iterator[None]:
    """Let deformable convolutions sample by rows: the whole at once would take 10 GB.

    What they sample from, and where, stays the whole domain's.
    """
    import torch

    for layer in layers:

        def sample(x: Any, offset: Any, padding: int, whole: Any = layer.sample) -> Any:
            assert padding == 1
            height = offset.shape[2]
            parts = []
            for top in range(0, height, rows):
                below = height - min(top + rows, height)
                part = offset[:, :, top : top + rows]
                parts.append(whole(x, part, (1, 1, 1 - top, 1 - below)))
            return torch.cat(parts, dim=2)

        layer.sample = sample
    try:
        yield
    finally:
        for layer in layers:
            del layer.sample


def report_picks(figures: dict[str, Any]) -> str:
    whole = figures["uninterrupted"]
    rows = [["stage", "time", "processor time", "memory, stage (process)"]]
    for stage in ("read", "grid"):
        took = whole[stage]
        memory = f"{took['megabytes']:,} ({took['megabytes_of_process']:,}) MB"
        rows.append([stage, f"{took['seconds']:,.0f} s", f"{took['cpu_seconds']:,.0f} s", memory])
    text = [
        f"{whole['picks']:,} picks in {figures['files']} files of {figures['gigabytes']} GB;"
        f" {figures['megabytes_of_grid']:,} MB of grid.",
        stages.table(rows),
    ]
    if "interrupted" in figures:
        then = figures["interrupted"]
        how = "killed" if then["killed"] else "done before it was to be killed"
        same = "the same" if then["same"] else "**another**"
        text.append(
            f"Gridding {how} {then['after']:g} s after it began, then run again"
            f" ({then['grid']['seconds']:,.0f} s): {same} file."
        )
    return "\n\n".join(text)


def report(document: dict[str, Any]) -> str:
    text = [stages.described(document["machine"])] if "machine" in document else []
    rows = [["run", "time (of writing)", "processor time", "memory of the process"]]
    for name, runs in document.items():
        for run, took in runs.items() if name in ("part", "continent") else ():
            if run not in ("undisturbed", "killed", "resumed"):
                continue
            written = took["seconds_of_writing"]
            rows.append(
                [
                    f"{name}, {run}",
                    f"{took['seconds']:,.0f} s" + ("" if written is None else f" ({written:,.0f})"),
                    f"{took['processor_seconds']:,.0f} s",
                    f"{took['megabytes_of_process']:,} MB",
                ]
            )
    text.append(stages.table(rows))
    for name in ("part", "continent"):
        if "same" in document.get(name, {}):
            same = "the same files" if document[name]["same"] else "**other files**"
            text.append(f"- {name}, killed and resumed: {same} as undisturbed")
    if "seams" in document:
        found = document["seams"]
        text.append(
            f"- {found['cells'][0]:,} x {found['cells'][1]:,} cells in one piece, a bed that "
            f"deviates by {found['deviation_of_bed']:.0f} m, offsets of up to "
            f"{max(found['largest_offsets_km']):g} km: in float32 "
            f"{found['rounding_of_float32']:.2g} m from float64"
        )
        for name, pieces in found.items():
            if isinstance(pieces, dict):
                text.append(
                    f"- {name}: {pieces['largest_difference']:.2g} m at most from one piece, "
                    f"{pieces['bands']} bands, {pieces['blocks']:,} blocks, "
                    f"{pieces['megabytes_allowed']} MB"
                )
    blocks = ["\n\n".join(text[:2]), "\n".join(text[2:])]
    if "picks" in document:
        blocks.append(report_picks(document["picks"]))
    return "\n\n".join(block for block in blocks if block)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="some 30 GB go there")
    parser.add_argument("--json", type=Path, required=True, help="of the figures")
    parser.add_argument("--memory", default="2GB", help="as of `deepbedmap predict`")
    parser.add_argument("--whole", action="store_true", help="the whole undisturbed too")
    parser.add_argument("--rows", type=int, default=4_500, help="km from north to south")
    parser.add_argument("--only", choices=CASES, nargs="+", default=CASES)
    parser.add_argument("--picks", type=int, default=80_000_000)
    parser.add_argument("--kill-after", type=float, help="seconds of gridding the picks")
    parser.add_argument(
        "--shrink", type=int, default=1, help="a continent of so many times fewer km each way"
    )
    if sys.argv[1:2] == ["--read-and-grid"]:
        read_and_grid(*map(Path, sys.argv[2:]))
        return
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    document: dict[str, Any] = {"machine": stages.machine(), "memory": arguments.memory}
    if arguments.json.exists():
        document = json.loads(arguments.json.read_text())
    cell = 1_000 * arguments.shrink
    bounds = tuple(round(edge / cell) * 1_000 for edge in places.CONTINENT)
    west, _, east, north = bounds
    columns, rows = (1_000 * (side // arguments.shrink) for side in PART)
    part = west, north - rows, west + columns, north
    some = west, north - 1_000 * (arguments.rows // arguments.shrink), east, north
    wanted = arguments.only

    def keep(name: str, **figures: Any) -> None:
        document[name] = document.get(name, {}) | figures
        arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

    if "picks" in wanted and "picks" not in document:
        stages.say("picks of the continent, read and gridded")
        keep("picks", **grid_picks(folder, arguments.picks, arguments.kill_after))
    for name, box in (("continent", some), ("part", part)):
        if name not in wanted:
            continue
        given, out = make(folder, bounds), folder / name
        size = [round((box[n + 2] - box[n]) / 250) for n in (1, 0)]
        known = document.get(name, {})
        if "resumed" not in known:
            stages.say(f"{name}, killed and resumed")
            runs = killed_and_resumed(given, out, box, arguments.memory)
            keep(name, cells=size, **runs, digests=digests(out))
            remove(out)
        if "same" not in known and (name == "part" or arguments.whole):
            stages.say(f"{name}, undisturbed")
            run = predict(given, out, box, arguments.memory)
            keep(name, undisturbed=run, same=digests(out) == document[name]["digests"])
            remove(out)
    if "seams" in wanted and "seams" not in document:
        stages.say("in one piece and in the smallest ones")
        keep("seams", **one_piece((SEAMS - 2) // arguments.shrink + 2))
    print(report(document))


if __name__ == "__main__":
    main()
