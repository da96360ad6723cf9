"""Train networks, and tune their settings."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deepbedmap.cli.options import Json, app, in_columns

if TYPE_CHECKING:
    from collections.abc import Mapping

    import xarray as xr

    from deepbedmap.model.training.configuration import Configuration


@app.command(
    epilog="Example: deepbedmap train training/tiles.zarr --out model; "
    "deepbedmap train --config paper --epochs 20 --out model-paper --device cuda; "
    "deepbedmap train --out model --resume (go on); "
    "torchrun --nproc-per-node 4 --no-python deepbedmap train --out model (on four GPUs)"
)
def train(
    out: Annotated[Path, typer.Option(help="Folder for what the training leaves.")],
    training_set: Annotated[
        Path | None,
        typer.Argument(help="A .zarr store of `deepbedmap tiles`; else training/tiles.zarr."),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            metavar="default|paper|FILE.toml",
            help="A preset, or a file of settings. With --resume: those of the training.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the training in the folder.")
    ] = False,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs in all, instead of the configuration's.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda or cuda:N; by default a GPU, if there is one.")
    ] = None,
) -> None:
    """Train a network on a training set.

    The folder gets best.safetensors, the network of the best epoch by the validation tiles, which
    `deepbedmap predict` takes; last.safetensors, from which a training goes on that was stopped,
    even by SIGKILL; and metrics.jsonl, a line an epoch. Ctrl-C keeps the state, and exits with 130.

    A tile counts where its bed was measured. An input with a gap counts as absent from that tile.
    """
    # Before torch is loaded: threads that spin while they wait slow a busy machine down.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from deepbedmap import progress
    from deepbedmap.model import distributed, training
    from deepbedmap.model.training import fitting

    settings = _settings(config, epochs, out if resume else None)
    try:
        place = distributed.place_of(device)
    except RuntimeError as error:
        raise typer.BadParameter("expected cpu, cuda or cuda:N", param_hint="--device") from error
    opened = _training_set(training_set)
    speaks = os.environ.get("RANK", "0") == "0"
    epoch: int | None = None

    def tell(step: int, steps: int, row: Mapping[str, Any]) -> None:
        nonlocal epoch
        if speaks:
            rmse = row.get("validation_rmse", row.get("train_rmse"))
            said = f"loss {row['g_loss']:.4g}, RMSE {rmse:.1f} m" if row else ""
            bar(step, steps, said)
            # What was there at the first step has been said by the training that was stopped.
            if epoch not in (None, row.get("epoch", 0)):
                _say_epoch(row)
        epoch = row.get("epoch", 0)

    try:
        with progress.steps("training") as bar:
            parts = training.load_tiles(opened, place)
            fitted = fitting.fit(
                settings,
                parts[0],
                parts[1],
                out,
                resume=resume,
                progress=tell,
                device=device,
                provenance=training.provenance_of(opened),
            )
    except KeyboardInterrupt as stop:
        typer.echo(
            f"interrupted: {stop}; --resume goes on" if str(stop) else "interrupted", err=True
        )
        raise typer.Exit(130) from None
    if not speaks:
        return
    last = fitted.history[-1]
    if epoch not in (None, last["epoch"]):
        _say_epoch(last)
    best = min(
        (row for row in fitted.history if "validation_rmse" in row),
        key=lambda row: row["validation_rmse"],
    )
    typer.echo(
        f"{fitted.best}: epoch {best['epoch']} of {last['epoch']}, validation RMSE "
        f"{best['validation_rmse']:.1f} m (bicubic prior {best['bicubic_rmse']:.1f} m)"
    )


@app.command(
    epilog="Example: deepbedmap tune training/tiles.zarr --trials 40 --out study; "
    "deepbedmap tune --space space.toml --config paper --trials 20 --timeout 86400 --out study; "
    "deepbedmap train --config study/best.toml --out model"
)
def tune(
    out: Annotated[Path, typer.Option(help="Folder of the study, new or to go on with.")],
    trials: Annotated[int, typer.Option(min=1, help="Trials in all.")],
    training_set: Annotated[
        Path | None,
        typer.Argument(help="A .zarr store of `deepbedmap tiles`; else training/tiles.zarr."),
    ] = None,
    space: Annotated[
        str, typer.Option(metavar="default|FILE.toml", help="Which settings are varied.")
    ] = "default",
    config: Annotated[
        str,
        typer.Option(metavar="default|paper|FILE.toml", help="What the space leaves as it is."),
    ] = "default",
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Seconds after which no trial is begun.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the proposed settings.")] = 0,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda or cuda:N; by default a GPU, if there is one.")
    ] = None,
    json: Json = False,
) -> None:
    """Find the settings of a training that give the least error on the validation tiles.

    A space has the configuration's sections and keys; each key has a range or choices:

        optimizer.learning_rate = { low = 3e-4, high = 6e-3, log = true }

    The folder gets best.toml, which `deepbedmap train --config` takes; study.db, an Optuna study;
    and a folder for each trial. Trials that are behind are cut short. A study that was stopped,
    even by SIGKILL, goes on when it is started again, and so do several processes at once.

    The best of many trials looks better than it is: score it where nothing was tuned.
    """
    # Before torch is loaded: threads that spin while they wait slow a busy machine down.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import json as json_module

    from deepbedmap.model import distributed, training
    from deepbedmap.model.training.configuration import load
    from deepbedmap.model.training.studies import require_optuna

    require_optuna()  # and with it the extra that brings torch too
    base = load(config)
    varied = training.load_space(space, base)
    try:
        place = distributed.place_of(device)
    except RuntimeError as error:
        raise typer.BadParameter("expected cpu, cuda or cuda:N", param_hint="--device") from error
    opened = _training_set(training_set)

    def tell(row: Mapping[str, Any]) -> None:
        score = "no score" if row["rmse"] is None else f"{row['rmse']:.1f} m"
        typer.echo(f"trial {row['trial']}: {row['state']}, {score}", err=True)

    learnt, judged = training.load_tiles(opened, place)
    try:
        tuned = training.tune(
            varied,
            learnt,
            judged,
            out,
            trials=trials,
            base=base,
            timeout=timeout,
            seed=seed,
            device=device,
            provenance=training.provenance_of(opened),
            report=tell,
        )
    except KeyboardInterrupt:
        typer.echo("interrupted: the same command goes on", err=True)
        raise typer.Exit(130) from None
    if json:
        typer.echo(json_module.dumps(tuned.trials, indent=2))
        return
    rows = [
        [
            str(row["trial"]),
            row["state"],
            "" if row["rmse"] is None else f"{row['rmse']:.1f}",
            str(row["epochs"]),
            ", ".join(f"{name} {_in_figures(value)}" for name, value in row["settings"].items()),
        ]
        for row in tuned.trials
    ]
    typer.echo(in_columns(["trial", "state", "RMSE (m)", "epochs", "settings"], rows, widest=400))
    typer.echo(f"{tuned.best}: {tuned.checkpoint.parent.name} is the best trial")


def _settings(config: str | None, epochs: int | None, going_on: Path | None) -> Configuration:
    """Settings of a training: those named, or those of the training that goes on."""
    from deepbedmap.model import checkpoints
    from deepbedmap.model.training.configuration import load, of

    if config is None and going_on is not None and (going_on / "last.safetensors").exists():
        state = checkpoints.load_state(going_on / "last.safetensors")
        settings = of(state.metadata["configuration"])
    else:
        settings = load(config or "default")
    if epochs is None:
        return settings
    schedule = settings.schedule
    first = min(schedule.pretraining_epochs, epochs) if schedule.adversarial_epochs else epochs
    return settings.with_values(
        schedule__pretraining_epochs=first, schedule__adversarial_epochs=epochs - first
    )


def _training_set(path: Path | None) -> xr.Dataset:
    """Open a training set; by default what the catalog's entry of that name is."""
    if path is not None:
        from deepbedmap.tiles.storage import open_training_set

        return open_training_set(path)
    from deepbedmap.catalog.building import bundled

    opened: xr.Dataset = bundled().training.tiles.read()
    return opened


def _say_epoch(row: Mapping[str, Any]) -> None:
    """Say a line where there is no terminal, and so no bar."""
    if not sys.stderr.isatty():
        typer.echo(f"epoch {row['epoch']}: {_losses(row)}", err=True)


def _losses(row: Mapping[str, Any]) -> str:
    """The newest losses, in a few words."""
    said = [f"{name} {row[name]:.4g}" for name in ("g_loss", "d_loss") if name in row]
    said += [
        f"{name} {row[name]:.1f} m" for name in ("train_rmse", "validation_rmse") if name in row
    ]
    return ", ".join(said)


def _in_figures(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
