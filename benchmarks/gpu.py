"""How fast the published network trains and predicts on a GPU, beside the same written plainly.

    python benchmarks/gpu.py --out benchmarks/gpu.json

needs a checkout, torch and numpy, nothing else. Tiles are random numbers in the GPU's memory; a
step trains the discriminator, then the generator, with all four losses and the live adversarial
gradient. Timed are epochs, without validation, after a warm-up. The floor is the arithmetic alone,
convolutions and matrix products, at 400 TFLOP/s. On two cores, the same comparison is

    OMP_NUM_THREADS=2 python benchmarks/gpu.py --device cpu --batch 4 --tiles 8 --epochs 9

and `--small` tries that everything runs.

Predicted is a continent of random inputs in bfloat16, within each `--memory` and within what the
GPU has; the inputs are repetitions of one strip in this machine's memory. Beside it are tiles of
250 km that overlap by 19 km, in float32: a few are timed, and their time is multiplied. `--only`
leaves the training or the prediction out.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

# Neither the package nor this folder need be installed.
sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

import plain_step  # noqa: E402
import plain_tiles  # noqa: E402

from deepbedmap.model import networks  # noqa: E402
from deepbedmap.model.prediction import domain  # noqa: E402
from deepbedmap.model.training import steps  # noqa: E402
from deepbedmap.model.training.capture import Captured  # noqa: E402
from deepbedmap.model.training.configuration import load  # noqa: E402

FLOOR_SPEED = 400e12
"""Operations a second (multiplications and additions) that an H100 does on large matrices."""

PLAIN = "plain, float32"

Batch = dict[str, Tensor]
Step = Callable[[Batch], Any]


def random_tiles(count: int, device: str) -> Batch:
    shapes = {"x": (1, 11), "w1": (1, 110), "w2": (2, 22), "w3": (1, 11), "y": (1, 36)}
    return {
        name: torch.randn(count, bands, cells, cells, device=device)
        for name, (bands, cells) in shapes.items()
    }


def epoch(tiles: Batch, batch: int) -> Iterator[Batch]:
    """Batches of one size in random order; the last is filled up with the first tiles."""
    count = len(tiles["y"])
    order = torch.randperm(count, device=tiles["y"].device)
    places = torch.arange(-(-count // batch) * batch, device=order.device) % count
    for index in order[places].split(batch):
        yield {name: tensor[index] for name, tensor in tiles.items()}


def package_step(blocks: int, device: str, *, bfloat16: bool, graph: bool, compiled: bool) -> Step:
    """The package's step as training takes it; all speed-ups but those named are always on."""
    pair = (networks.Generator(blocks), networks.Discriminator())
    pair = tuple(network.to(device, memory_format=torch.channels_last) for network in pair)
    on_gpu = device == "cuda"
    optimizers = [
        torch.optim.Adam(network.parameters(), lr=1.7e-4, fused=True, capturable=on_gpu)
        for network in pair
    ]
    if compiled:
        pair = tuple(torch.compile(network) for network in pair)
    terms = load("paper").with_values(losses__detached=False).losses
    step = steps.Step(
        pair[0], optimizers[0], pair[1], optimizers[1], terms=terms, autocast=bfloat16
    )
    return Captured(step) if graph else step


@dataclass
class Way:
    """A way of training, what it took, and why it failed if it did."""

    name: str
    make: Callable[[], Step]
    tf32: bool = False
    step: Step | None = None
    failure: str | None = None
    peak_memory: int | None = None
    walls: list[float] = field(default_factory=list)
    cpus: list[float] = field(default_factory=list)

    def attempt(self, run: Callable[[Way], None]) -> None:
        """Go on with this way; if it fails (a capture that is refused), the others go on."""
        if self.failure is None:
            allow_tf32(self.tf32)
            try:
                run(self)
            except Exception as error:
                self.step, self.failure = None, f"{type(error).__name__}: {error}"[:300]


def ways_of_training(arguments: argparse.Namespace) -> list[Way]:
    blocks, device = arguments.blocks, arguments.device

    def package(bfloat16: bool, graph: bool = False, compiled: bool = False) -> Callable[[], Step]:
        return lambda: package_step(
            blocks, device, bfloat16=bfloat16, graph=graph, compiled=compiled
        )

    def plain() -> Step:
        return plain_step.Training(blocks, device).step

    ways = []
    if device == "cuda":
        ways += [
            Way("package, bfloat16, CUDA graph", package(True, graph=True), tf32=True),
            Way("package, bfloat16", package(True), tf32=True),
            Way("package, TF32, CUDA graph", package(False, graph=True), tf32=True),
            Way("plain, TF32", plain, tf32=True),
        ]
    else:
        ways += [Way("package, float32", package(False))]
        ways += [Way("package, bfloat16", package(True))] * arguments.small
    if arguments.compile:
        ways += [Way("package, bfloat16, compiled", package(True, compiled=True), tf32=True)]
        if device == "cuda":
            make = package(True, graph=True, compiled=True)
            ways += [Way("package, bfloat16, compiled, CUDA graph", make, tf32=True)]
    return [*ways, Way(PLAIN, plain)]


def allow_tf32(allowed: bool) -> None:
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def operations(blocks: int) -> float:
    """Multiplications and additions of a step, for each tile of it."""
    training, tiles = plain_step.Training(blocks, "meta"), random_tiles(2, "meta")
    with FlopCounterMode(display=False) as counter:
        training.step(tiles)
    return counter.get_total_flops() / 2


def top_kernels(step: Step, tiles: Batch, batch: int, device: str) -> dict[str, Any]:
    """Where the time of a step goes: kernels on a GPU, operators on a CPU."""
    kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device == "cuda")
    count, parts = 3 if device == "cuda" else 1, list(epoch(tiles, batch))
    wait(device)
    with profile(activities=kinds) as profiler:
        start = time.perf_counter()
        for number in range(count):
            step(parts[number % len(parts)])
        wait(device)
        wall = time.perf_counter() - start
    events = profiler.key_averages()
    if device == "cuda":
        events = [event for event in events if event.device_type == torch.profiler.DeviceType.CUDA]
    times = {
        event.key: event.self_device_time_total if device == "cuda" else event.self_cpu_time_total
        for event in events
    }
    calls = {event.key: event.count / count for event in events}
    busy = sum(times.values())
    return {
        "step_ms": 1e3 * wall / count,
        "busy_ms": busy / 1e3 / count,
        "kernels_a_step": sum(calls.values()),
        "top": [
            {"name": name[:100], "share": times[name] / busy, "calls_a_step": calls[name]}
            for name in sorted(times, key=lambda name: -times[name])[:15]
        ],
    }


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    device, batch = arguments.device, arguments.batch
    on_gpu = device == "cuda"
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    tiles = random_tiles(arguments.tiles, device)
    work = operations(arguments.blocks) * arguments.tiles
    ways = ways_of_training(arguments)

    def warm_up(way: Way) -> None:
        before = torch.cuda.memory_allocated() if on_gpu else 0
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        way.step = way.make()
        for _ in range(arguments.warm_up):
            way.step(next(epoch(tiles, batch)))
        if on_gpu:
            way.peak_memory = torch.cuda.max_memory_allocated() - before

    def time_epoch(way: Way) -> None:
        wait(device)
        wall, cpu = time.perf_counter(), time.process_time()
        for part in epoch(tiles, batch):
            way.step(part)
        wait(device)
        way.walls.append(time.perf_counter() - wall)
        way.cpus.append(time.process_time() - cpu)

    for way in ways:
        way.attempt(warm_up)
    # In turns, so that what else the machine does falls on all alike.
    for _ in range(arguments.epochs):
        for way in ways:
            way.attempt(time_epoch)
    profiled = next(way for way in ways if way.failure is None)
    allow_tf32(profiled.tf32)
    return {
        "blocks": arguments.blocks,
        "batch": batch,
        "tiles": arguments.tiles,
        "operations_an_epoch": work,
        "floor_seconds": work / FLOOR_SPEED,
        "ways": {
            way.name: {"failure": way.failure}
            if way.failure
            else {
                "median_epoch_seconds": (seconds := statistics.median(way.walls)),
                "epoch_seconds": way.walls,
                "epoch_cpu_seconds": way.cpus,
                "share_of_floor": work / FLOOR_SPEED / seconds,
                "peak_memory_bytes": way.peak_memory,
            }
            for way in ways
        },
        "profile": {"way": profiled.name} | top_kernels(profiled.step, tiles, batch, device),
    }


def machine(device: str) -> dict[str, Any]:
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


class Repeated:
    """Inputs of a domain: one strip of random numbers, whichever rows are asked for."""

    def __init__(self, rows: int, columns: int) -> None:
        random = np.random.default_rng(0)
        self.strip = {}
        for name, (bands, cells) in {
            "x": (1, 1),
            "w1": (1, 10),
            "w2": (2, 2),
            "w3": (1, 1),
        }.items():
            block = random.standard_normal((bands, cells * rows, cells * 50), np.float32)
            across = np.tile(block, (1, 1, -(-columns // 50)))
            self.strip[name] = cells, across[:, :, : cells * columns].copy()

    def __call__(self, top: int, bottom: int, left: int, right: int) -> dict[str, np.ndarray]:
        return {
            name: strip[:, : cells * (bottom - top), cells * left : cells * right]
            for name, (cells, strip) in self.strip.items()
        }


def operations_a_km2(blocks: int) -> float:
    """Multiplications and additions that a prediction takes for 1 km by 1 km."""
    with FlopCounterMode(display=False) as counter, torch.device("meta"):
        x, w1, w2 = (
            torch.empty(1, 1, 52, 52),
            torch.empty(1, 1, 520, 520),
            torch.empty(1, 2, 104, 104),
        )
        networks.Generator(blocks)(x, w1, w2, x)
    return counter.get_total_flops() / 50**2


def predict_within(
    network: networks.Generator,
    read: Repeated,
    shape: tuple[int, int],
    memory: int | None,
    device: str,
) -> dict[str, Any]:
    """Seconds and memory of a prediction within a bound, which the allocator is held to."""
    on_gpu = device == "cuda"
    options: dict[str, Any] = {"device": device, "autocast": True, "memory": memory}
    if on_gpu:
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, (memory or total) / total))
        torch.cuda.reset_peak_memory_stats()
    try:
        bands = domain.bands(network, shape, **options)
        for _ in domain.refine_band(
            network, read, shape, slice(0, min(64, shape[0] - 2)), **options
        ):
            pass
        wait(device)
        start = time.perf_counter()
        cells = 0
        for band in bands:
            for block in domain.refine_band(network, read, shape, band, **options):
                cells += block.bed.size
        wait(device)
        seconds = time.perf_counter() - start
    except Exception as error:
        return {"failure": f"{type(error).__name__}: {error}"[:300]}
    finally:
        if on_gpu:
            torch.cuda.set_per_process_memory_fraction(1.0)
    return {
        "seconds": seconds,
        "cells": cells,
        "bands": len(bands),
        "peak_memory_bytes": torch.cuda.max_memory_allocated() if on_gpu else None,
        "peak_reserved_bytes": torch.cuda.max_memory_reserved() if on_gpu else None,
    }


def measure_prediction(arguments: argparse.Namespace) -> dict[str, Any]:
    device = arguments.device
    rows, columns = arguments.domain
    size, overlap = arguments.plain_tiles
    shape = rows + 2, columns + 2
    torch.manual_seed(0)
    read = Repeated(min(max(size + 2, 70), rows + 2), columns + 2)
    work = operations_a_km2(arguments.blocks) * rows * columns
    network = networks.Generator(arguments.blocks).to(device).eval()
    found = {}
    for memory in (*arguments.memory, None):
        bound = "free memory" if memory is None else f"{memory:g} GB"
        room = None if memory is None else int(1e9 * memory)
        found[f"package, bfloat16, {bound}"] = predict_within(network, read, shape, room, device)
    del network

    allow_tf32(False)
    plain = plain_step.Generator(arguments.blocks).to(device)
    places = list(plain_tiles.tiles(rows, columns, size, overlap))
    seconds = []
    peak = None
    try:
        if device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        # The first of four warms up.
        for place in places[:4]:
            start = time.perf_counter()
            plain_tiles.predict(plain, read, place, device)
            seconds.append(time.perf_counter() - start)
        peak = torch.cuda.max_memory_allocated() if device == "cuda" else None
        timed = seconds[1:] or seconds
        found[PLAIN] = {
            "seconds": statistics.mean(timed) * len(places),
            "tiles": len(places),
            "tiles_timed": len(timed),
            "peak_memory_bytes": peak,
        }
    except RuntimeError as error:
        found[PLAIN] = {"failure": f"{type(error).__name__}: {error}"[:300]}
    return {
        "blocks": arguments.blocks,
        "domain_km": [rows, columns],
        "operations": work,
        "floor_seconds": work / FLOOR_SPEED,
        "ways": found,
    }


def table_of_prediction(result: dict[str, Any]) -> str:
    rows, columns = result["domain_km"]
    lines = [
        f"{rows} x {columns} km, {result['blocks']} blocks: {result['operations']:.3g} operations, "
        f"floor {result['floor_seconds']:.3g} s",
        "",
        "| a prediction | seconds | of the floor | memory | in |",
        "|---|---|---|---|---|",
    ]
    for name, way in result["ways"].items():
        if "failure" in way:
            lines.append(f"| {name} | failed: {way['failure']} | | | |")
            continue
        memory = way["peak_memory_bytes"]
        parts = (
            f"{way['tiles']} tiles, from {way['tiles_timed']} timed"
            if "tiles" in way
            else f"{way['bands']} bands"
        )
        lines.append(
            f"| {name} | {way['seconds']:.2f} s "
            f"| {100 * result['floor_seconds'] / way['seconds']:.2g} % "
            f"| {'' if memory is None else f'{memory / 1e9:.1f} GB'} | {parts} |"
        )
    return "\n".join(lines)


def table(result: dict[str, Any]) -> str:
    ways, found = result["ways"], result["profile"]
    lines = [
        f"{result['blocks']} blocks, batch {result['batch']}, {result['tiles']} tiles; "
        f"{result['operations_an_epoch']:.3g} operations an epoch, "
        f"floor {result['floor_seconds']:.3g} s",
        "",
        "| an epoch of | median | least | CPU | beside plain | of the floor | memory |",
        "|---|---|---|---|---|---|---|",
    ]
    plain = ways[PLAIN].get("median_epoch_seconds", float("nan"))
    for name, way in ways.items():
        if "failure" in way:
            lines.append(f"| {name} | failed: {way['failure']} | | | | | |")
            continue
        median, memory = way["median_epoch_seconds"], way["peak_memory_bytes"]
        lines.append(
            f"| {name} | {median:.3f} s | {min(way['epoch_seconds']):.3f} s "
            f"| {statistics.median(way['epoch_cpu_seconds']):.3f} s | {plain / median:.2f} times "
            f"| {100 * way['share_of_floor']:.2g} % "
            f"| {'' if memory is None else f'{memory / 2**30:.1f} GiB'} |"
        )
    lines += [
        "",
        f"A step of {found['way']}: {found['step_ms']:.2f} ms, of which {found['busy_ms']:.2f} ms "
        f"in {found['kernels_a_step']:.0f} kernels (share, calls, name):",
    ]
    lines += [
        f"  {100 * kernel['share']:5.1f} %  {kernel['calls_a_step']:7.0f}  {kernel['name']}"
        for kernel in found["top"]
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"))
    parser.add_argument("--blocks", type=int, default=12, help="residual-in-residual blocks")
    parser.add_argument("--batch", type=int, default=128, help="tiles of a step")
    parser.add_argument("--tiles", type=int, default=3826, help="tiles of an epoch")
    parser.add_argument("--epochs", type=int, default=5, help="timed epochs of each way")
    parser.add_argument("--warm-up", type=int, default=6, help="steps before those")
    parser.add_argument("--compile", action="store_true", help="time torch.compile as well")
    parser.add_argument("--only", choices=("training", "prediction"))
    parser.add_argument(
        "--memory", type=float, nargs="*", default=[8, 16, 40], help="GB to predict within"
    )
    parser.add_argument("--small", action="store_true", help="seconds of work, also for a CPU")
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    arguments = parser.parse_args()
    arguments.domain, arguments.plain_tiles = (4500, 5500), (250, 19)
    if arguments.small:
        arguments.device, arguments.blocks = arguments.device or "cpu", 1
        arguments.batch, arguments.tiles, arguments.epochs, arguments.warm_up = 2, 2, 1, 1
        arguments.domain, arguments.plain_tiles, arguments.memory = (20, 28), (12, 3), [1]
    arguments.device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("no GPU here that PyTorch can use; try --device cpu or --small")
    result = {"machine": (here := machine(arguments.device))}
    print(f"{here['device']}, {here['threads']} threads, PyTorch {here['torch']}")
    if arguments.only != "prediction":
        result |= measure(arguments)
        print(table(result))
    if arguments.only != "training":
        result["prediction"] = measure_prediction(arguments)
        print(table_of_prediction(result["prediction"]))
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
