"""Train networks, and tune their settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deepbedmap.cli.options import (
    Device,
    Json,
    calm_threads,
    command,
    interrupted,
    is_first_process,
    is_quiet,
    print_table,
    stderr_is_terminal,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deepbedmap.progress import StepProgress

TrainingSet = Annotated[
    Path | None,
    typer.Argument(
        help="A .zarr store of `deepbedmap tiles`; by default training/tiles.zarr.",
    ),
]


@command(
    "deepbedmap train training/tiles.zarr --out model",
    "deepbedmap train --config paper --epochs 20 --out model-paper --device cuda",
    "deepbedmap train --out model --resume",
    "torchrun --nproc-per-node 4 --no-python deepbedmap train --out model  # on four GPUs",
)
def train(
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and metrics.")],
    training_set: TrainingSet = None,
    config: Annotated[
        str | None,
        typer.Option(
            metavar="default|paper|FILE.toml",
            help="A preset, or a file of settings. With --resume: by default those of the "
            "training.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume the training in the folder.")
    ] = False,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs in total, instead of the configuration's.")
    ] = None,
    device: Device = None,
) -> None:
    """Train a network on a training set.

    The folder gets best.safetensors, the network of the best epoch by the validation tiles, which
    `deepbedmap predict` takes; last.safetensors, from which an interrupted training resumes, even
    after SIGKILL; and metrics.jsonl, one line per epoch. Ctrl-C keeps the state, and exits with
    130.

    A tile counts where its bed was measured. An input with a gap counts as absent from that tile.
    """
    calm_threads()
    from deepbedmap import progress
    from deepbedmap.model import training

    options: dict[str, Any] = {"config": config, "resume": resume, "epochs": epochs}
    try:
        with progress.steps("training") as bar:
            epoch_log = _EpochLog(bar)
            fitted = training.train_files(
                out, training_set, device=device, progress=epoch_log.step, **options
            )
    except KeyboardInterrupt as stop:
        raise interrupted(f"{stop}; resume with --resume" if str(stop) else "") from None
    if not is_first_process():
        return
    last = fitted.history[-1]
    epoch_log.end(last)
    best = min(
        (row for row in fitted.history if "validation_rmse" in row),
        key=lambda row: row["validation_rmse"],
    )
    typer.echo(
        f"{fitted.best}: epoch {best['epoch']} of {last['epoch']}, validation RMSE "
        f"{best['validation_rmse']:.1f} m (bicubic prior {best['bicubic_rmse']:.1f} m)"
    )


@command(
    "deepbedmap tune training/tiles.zarr --trials 40 --out study",
    "deepbedmap tune --space space.toml --config paper --trials 20 --timeout 86400 --out study",
    "deepbedmap train --config study/best.toml --out model",
)
def tune(
    out: Annotated[Path, typer.Option(help="Folder of the study, new or to be resumed.")],
    trials: Annotated[int, typer.Option(min=1, help="Trials in total.")],
    training_set: TrainingSet = None,
    space: Annotated[
        str, typer.Option(metavar="default|FILE.toml", help="Which settings are varied.")
    ] = "default",
    config: Annotated[
        str,
        typer.Option(metavar="default|paper|FILE.toml", help="The other settings."),
    ] = "default",
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Seconds after which no trial is begun.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the proposed settings.")] = 0,
    device: Device = None,
    json: Json = False,
) -> None:
    """Search for the training settings with the least error on the validation tiles.

    A space has the configuration's sections and keys; each key has a range or choices:

        optimizer.learning_rate = { low = 3e-4, high = 6e-3, log = true }

    The folder gets best.toml, which `deepbedmap train --config` takes; study.db, an Optuna study;
    and a folder for each trial. Trials that are behind are cut short. An interrupted study, even
    by SIGKILL, resumes when it is started again; several processes may share one.

    The best of many trials looks better than it is: score it where nothing was tuned.
    """
    calm_threads()
    import json as json_module

    from deepbedmap.extras import required_extra

    with required_extra("tuning"):  # which brings torch too
        import optuna  # noqa: F401
    from deepbedmap.model import training
    from deepbedmap.model.training.studies import require_optuna

    require_optuna()  # its extra brings torch too
    options: dict[str, Any] = {"space": space, "config": config, "timeout": timeout}
    options |= {"seed": seed, "device": device}
    try:
        tuned = training.tune_files(out, trials, training_set, report=_report_trial, **options)
    except KeyboardInterrupt:
        raise interrupted("the same command resumes it") from None
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
    print_table(["trial", "state", "RMSE (m)", "epochs", "settings"], rows)
    typer.echo(f"{tuned.best}: {tuned.checkpoint.parent.name} is the best trial")


class _EpochLog:
    """Reports a training: a bar on a terminal, one line per epoch elsewhere."""

    def __init__(self, bar: StepProgress) -> None:
        self._bar = bar
        self._epoch: int | None = None

    def step(self, step: int, steps: int, row: Mapping[str, Any]) -> None:
        """Show a step; the row is that of the newest epoch."""
        if is_first_process():
            rmse = row.get("validation_rmse", row.get("train_rmse"))
            self._bar(step, steps, f"loss {row['g_loss']:.4g}, RMSE {rmse:.1f} m" if row else "")
            # The epochs before the first step were reported by the training that is resumed.
            if self._epoch not in (None, row.get("epoch", 0)):
                _print_epoch(row)
        self._epoch = row.get("epoch", 0)

    def end(self, row: Mapping[str, Any]) -> None:
        """Report the last epoch."""
        if self._epoch not in (None, row["epoch"]):
            _print_epoch(row)


def _print_epoch(row: Mapping[str, Any]) -> None:
    if stderr_is_terminal() or is_quiet():
        return
    metrics = [f"{name} {row[name]:.4g}" for name in ("g_loss", "d_loss") if name in row]
    metrics += [
        f"{name} {row[name]:.1f} m" for name in ("train_rmse", "validation_rmse") if name in row
    ]
    typer.echo(f"epoch {row['epoch']}: {', '.join(metrics)}", err=True)


def _report_trial(row: Mapping[str, Any]) -> None:
    if not is_quiet():
        score = "no score" if row["rmse"] is None else f"{row['rmse']:.1f} m"
        typer.echo(f"trial {row['trial']}: {row['state']}, {score}", err=True)


def _in_figures(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
