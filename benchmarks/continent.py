"""A continent of made-up picks, from CSV files on disk to a grid of 250 m: time and memory.

    python benchmarks/continent.py --folder /data/continent --json benchmarks/continent.json
    python benchmarks/continent.py --folder /data/continent --picks 8_000_000 --kill-after 30

80 million picks along flight lines take about 6.5 GB on disk; they are made once for a folder.
Reading and gridding run in a process of their own. With ``--kill-after`` it is done once more:
killed (SIGKILL) that many seconds after gridding began, started again, and the file compared with
that of the run which nobody disturbed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import cases
import numpy as np
import stages

from deepbedmap import places

FILES = 8
LINE = 1_200_000.0  # metres


def make(folder: Path, picks: int, number: int) -> Path:
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


def make_all(folder: Path, picks: int) -> None:
    """Write the files and their pipeline, unless they are there."""
    made = folder / "made.json"
    if made.exists() and json.loads(made.read_text()) == {"picks": picks}:
        return
    made.unlink(missing_ok=True)
    with ProcessPoolExecutor(2) as pool:
        for path in pool.map(make, [folder] * FILES, [picks] * FILES, range(FILES)):
            stages.say(f"made {path}")
    cases.write_pipeline(folder / "continent.json", "20??_Continent.csv")
    made.write_text(json.dumps({"picks": picks}))


def work(folder: Path, out: Path) -> None:
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


def run(folder: Path, out: Path, kill_after: float | None = None) -> dict[str, Any]:
    """Run the work in a process of its own; kill it so long after gridding began."""
    figures: dict[str, Any] = {}
    command = [sys.executable, __file__, "--work", str(folder), str(out)]
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


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def report(document: dict[str, Any]) -> str:
    whole = document["uninterrupted"]
    rows = [["stage", "time", "processor time", "memory, stage (process)"]]
    for stage in ("read", "grid"):
        took = whole[stage]
        memory = f"{took['megabytes']:,} ({took['megabytes_of_process']:,}) MB"
        rows.append([stage, f"{took['seconds']:,.0f} s", f"{took['cpu_seconds']:,.0f} s", memory])
    text = [
        f"{stages.described(document['machine'])}",
        f"{whole['picks']:,} picks in {document['files']} files of {document['gigabytes']} GB;"
        f" {document['megabytes_of_grid']:,} MB of grid.",
        stages.table(rows),
    ]
    if "interrupted" in document:
        then = document["interrupted"]
        how = "killed" if then["killed"] else "done before it was to be killed"
        same = "the same" if then["same"] else "**another**"
        text.append(
            f"Gridding {how} {then['after']:g} s after it began, then run again"
            f" ({then['grid']['seconds']:,.0f} s): {same} file."
        )
    return "\n\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="of the picks and the grid; created")
    parser.add_argument("--picks", type=int, default=80_000_000)
    parser.add_argument("--kill-after", type=float, help="seconds of gridding")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--work", nargs=2, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(*arguments.work)
        return
    if arguments.folder is None:
        parser.error("--folder is needed: some 10 GB go there")
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    document: dict[str, Any] = {"machine": stages.machine()}
    make_all(folder, arguments.picks)
    files = list(folder.glob("*.csv"))
    whole = folder / "whole.nc"
    whole.unlink(missing_ok=True)
    document |= {
        "files": len(files),
        "gigabytes": stages.rounded(sum(path.stat().st_size for path in files) / 1e9),
        "uninterrupted": run(folder, whole),
        "megabytes_of_grid": round(whole.stat().st_size / 1e6),
    }
    if arguments.kill_after is not None:
        resumed = folder / "resumed.nc"
        resumed.unlink(missing_ok=True)
        first = run(folder, resumed, arguments.kill_after)
        then = run(folder, resumed) if first["killed"] else first
        document["interrupted"] = {
            "after": arguments.kill_after,
            "killed": first["killed"],
            "grid": then["grid"],
            "same": digest(resumed) == digest(whole),
        }
    print(report(document))
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
