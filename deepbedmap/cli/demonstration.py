"""Run the demo."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deepbedmap.cli.options import app

if TYPE_CHECKING:
    from collections.abc import Mapping


@app.command(epilog="Example: deepbedmap demo --out demo-output --seed 0")
def demo(
    out: Annotated[Path, typer.Option(help="Folder for what comes out.")] = Path("demo-output"),
    seed: Annotated[int, typer.Option(help="Another seed, other glaciers.")] = 0,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs of training.")] = None,
) -> None:
    """Go from raw survey files to a scored bed, on made-up glaciers, in a few minutes."""
    # Before torch is loaded: threads that spin while they wait slow a busy machine down.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from deepbedmap import demo as stages

    console = Console(stderr=True)
    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("", total=None, visible=False)

        def advance(step: int, steps: int, metrics: Mapping[str, Any]) -> None:  # noqa: ARG001
            bar.update(task, completed=step, total=steps, visible=step < steps)

        scores = stages.run(
            out,
            seed,
            epochs or stages.EPOCHS,
            report=lambda stage: typer.echo(f"{stage} ..."),
            progress=advance,
        )
    header = f"{'':10} {'RMSE (m)':>9} {'MAE (m)':>9} {'bias (m)':>9} {'roughness':>9} {'picks':>8}"
    typer.echo(header)
    for method in ("model", "bicubic", "gridding"):
        row = scores[method]
        typer.echo(
            f"{method:10} {row['rmse']:9.1f} {row['mae']:9.1f} {row['bias']:9.1f} "
            f"{row['roughness_ratio']:9.2f} {row['picks']:8}"
        )
    typer.echo(f"{scores['seconds']:.0f} s; see {out}/report.html and {out}/scores.json")
