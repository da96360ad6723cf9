"""Train and tune from the files of a training set and of settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from deepbedmap.model import checkpoints, distributed
from deepbedmap.model.training import configuration as configurations
from deepbedmap.model.training import fitting
from deepbedmap.model.training import tuning as tunings
from deepbedmap.model.training.loading import load_tiles, provenance_of
from deepbedmap.model.training.search_space import load_space

if TYPE_CHECKING:
    import os
    from collections.abc import Callable
    from typing import Any

    import xarray as xr

    from deepbedmap.model.training.configuration import Configuration
    from deepbedmap.model.training.fitting import Fitted
    from deepbedmap.model.training.log import Row
    from deepbedmap.model.training.running import Progress
    from deepbedmap.model.training.tuning import Tuned


def train_files(
    out: str | os.PathLike[str],
    training_set: str | os.PathLike[str] | None = None,
    *,
    config: str | os.PathLike[str] | None = None,
    resume: bool = False,
    epochs: int | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> Fitted:
    """Train a network on a training set.

    Parameters
    ----------
    out
        Folder for the checkpoints and the metrics: see :func:`fit`.
    training_set
        A Zarr store, as :func:`deepbedmap.tiles.build` writes it; by default the catalog's.
    config
        A preset (``"default"`` or ``"paper"``), or a TOML file of settings. By default the preset
        ``"default"``, or the settings of the training that is resumed.
    resume
        Resume the training in the folder.
    epochs
        Epochs in total, instead of those of the configuration.
    device
        ``"cpu"``, ``"cuda"`` or ``"cuda:N"``; by default a GPU, if there is one.
    progress
        Called at each step.

    Returns
    -------
    Fitted
        Paths of the checkpoints, and one row of metrics per epoch.

    Raises
    ------
    InvalidDataError, MissingDataError
        As :func:`deepbedmap.model.training.configuration.load`,
        :func:`deepbedmap.tiles.open_training_set` and :func:`fit`.
    ValueError
        There is no such device.
    KeyboardInterrupt
        Ctrl-C, once the state has been written.

    Examples
    --------
    >>> train_files("model", "tiles.zarr", device="gpu")
    Traceback (most recent call last):
    deepbedmap.errors.WrongCallError: device: expected cpu, cuda or cuda:N, found 'gpu'
    """
    distributed.require_device(device)
    settings = settings_of(config, epochs, Path(out) if resume else None)
    place = distributed.place_of(device)
    opened = _open_tiles(training_set)
    tiles, validation = load_tiles(opened, place)
    return fitting.fit(
        settings,
        tiles,
        validation,
        out,
        resume=resume,
        progress=progress,
        device=device,
        provenance=provenance_of(opened),
    )


def tune_files(
    out: str | os.PathLike[str],
    trials: int,
    training_set: str | os.PathLike[str] | None = None,
    *,
    space: str | os.PathLike[str] = "default",
    config: str | os.PathLike[str] = "default",
    timeout: float | None = None,
    seed: int = 0,
    device: str | None = None,
    report: Callable[[Row], None] | None = None,
) -> Tuned:
    """Search for the training settings with the least error on the validation tiles.

    Parameters
    ----------
    out
        Folder of the study, new or to be resumed.
    trials, timeout, seed, report
        As :func:`tune` takes them.
    training_set, device
        As :func:`train_files` takes them.
    space
        The preset ``"default"``, or a TOML file: which settings are varied, and in which range.
    config
        A preset or a TOML file: the other settings.

    Returns
    -------
    Tuned
        The best settings, the checkpoint of the best trial, and one row per trial.

    Raises
    ------
    InvalidDataError, MissingDataError, KeyboardInterrupt
        As :func:`tune` and :func:`train_files`.
    ValueError
        There is no such device; ``trials`` is less than 1.

    Examples
    --------
    >>> tune_files("study", 1, "tiles.zarr", device="gpu")
    Traceback (most recent call last):
    deepbedmap.errors.WrongCallError: device: expected cpu, cuda or cuda:N, found 'gpu'
    """
    distributed.require_device(device)
    base = configurations.load(config)
    varied = load_space(space, base)
    place = distributed.place_of(device)
    opened = _open_tiles(training_set)
    tiles, validation = load_tiles(opened, place)
    return tunings.tune(
        varied,
        tiles,
        validation,
        out,
        trials=trials,
        base=base,
        timeout=timeout,
        seed=seed,
        device=device,
        provenance=provenance_of(opened),
        report=report,
    )


def settings_of(
    config: str | os.PathLike[str] | None = None,
    epochs: int | None = None,
    resumed: Path | None = None,
) -> Configuration:
    """Return the settings of a training.

    Parameters
    ----------
    config
        A preset or a TOML file.
    epochs
        Epochs in total: the later, adversarial phase is shortened or lengthened first.
    resumed
        Folder of a training that is resumed; its settings hold where no ``config`` is given.

    Examples
    --------
    >>> settings_of("paper", epochs=3).epochs
    3
    """
    if config is None and resumed is not None and (resumed / "last.safetensors").exists():
        state: Any = checkpoints.load_state(resumed / "last.safetensors")
        settings = configurations.of(state.metadata["configuration"])
    else:
        settings = configurations.load(config or "default")
    if epochs is None:
        return settings
    schedule = settings.schedule
    first = min(schedule.pretraining_epochs, epochs) if schedule.adversarial_epochs else epochs
    return settings.with_values(
        schedule__pretraining_epochs=first, schedule__adversarial_epochs=epochs - first
    )


def _open_tiles(path: str | os.PathLike[str] | None) -> xr.Dataset:
    """Open a training set; by default that of the catalog."""
    if path is not None:
        from deepbedmap.tiles.storage import open_training_set

        return open_training_set(path)
    from deepbedmap.catalog.building import bundled

    opened: xr.Dataset = bundled().training.tiles.read()
    return opened
