"""Run the demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deepbedmap.cli.options import calm_threads, command, print_table


@command("deepbedmap demo --out demo-output --seed 0")
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("demo-output"),
    seed: Annotated[int, typer.Option(help="Each seed makes other glaciers.")] = 0,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs of training.")] = None,
) -> None:
    """Go from raw survey files to a scored bed, on made-up glaciers, in a few minutes."""
    calm_threads()
    from deepbedmap import demo as stages
    from deepbedmap import progress

    with progress.steps("training") as bar:
        scores = stages.run(
            out,
            seed,
            epochs or stages.EPOCHS,
            report=lambda stage: typer.echo(f"{stage} ..."),
            progress=lambda step, steps, _: bar(step, steps),
        )
    header = ["", "RMSE (m)", "MAE (m)", "bias (m)", "roughness", "picks"]
    rows = [
        [
            method,
            *(f"{scores[method][name]:.1f}" for name in ("rmse", "mae", "bias")),
            f"{scores[method]['roughness_ratio']:.2f}",
            str(scores[method]["picks"]),
        ]
        for method in ("model", "bicubic", "gridding")
    ]
    print_table(header, rows)
    typer.echo(f"{scores['seconds']:.0f} s; see {out}/report.html and {out}/scores.json")
