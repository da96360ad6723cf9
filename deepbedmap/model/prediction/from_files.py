"""Predict a bed from files, with the options of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, get_args

from deepbedmap.errors import WrongCallError
from deepbedmap.model import distributed
from deepbedmap.model.prediction.continent import make_dem
from deepbedmap.model.prediction.predicting import Precision

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence
    from typing import Any

    from deepbedmap.model.prediction.preparing import Source
    from deepbedmap.places import Bounds
    from deepbedmap.products.check_report import Report
    from deepbedmap.products.rules import Policy
    from deepbedmap.progress import StepProgress


class Predicted(NamedTuple):
    """The files of a predicted bed, and its cells (y, x)."""

    paths: list[Path]
    shape: tuple[int, int]


def predict_files(
    checkpoints: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    prior: Source,
    surface: Source,
    velocity: Source,
    accumulation: Source,
    surface_filler: Source | None = None,
    bounds: Bounds | None = None,
    memory: int | str | None = None,
    device: str | None = None,
    precision: Precision | None = None,
    geoid: Source | None = None,
    mask: Source | None = None,
    outline: Any = None,
    bathymetry: Source | None = None,
    blend_width: float = 5_000,
    correct: str | Sequence[str] = (),
    refuse: str | Sequence[str] = (),
    progress: StepProgress | None = None,
    report: Callable[[Report], None] | None = None,
) -> Predicted:
    """Predict the bed of a window, or of the whole extent of the prior, check it and write it.

    Parameters
    ----------
    checkpoints, out, bounds, geoid, mask, outline, bathymetry, blend_width, progress, report
        As :func:`make_dem` takes them.
    prior, surface, velocity, accumulation, surface_filler
        Rasters: files (``FILE:VARIABLE`` where a file has several), or names of datasets or of
        catalog entries.
    memory
        For the network's work: bytes, or a text such as ``"8GB"``; by default 80 % of the free
        memory of a GPU, or 2 GB.
    device
        ``"cpu"``, ``"cuda"`` or ``"cuda:N"``; by default a GPU, if there is one.
    precision
        ``"float32"`` or ``"bfloat16"``; by default the precision of the training.
    correct, refuse
        Names of checks, or ``"all"``: correct the cells that fail, or write nothing.

    Returns
    -------
    Predicted
        The products, and the number of rows and columns of the bed.

    Raises
    ------
    InvalidDataError, MissingDataError, DeepBedMapError
        As :func:`make_dem`.
    ValueError
        There is no such device, precision, check or policy; a bathymetry without an outline; or
        as :func:`make_dem`.

    Examples
    --------
    >>> inputs = {"prior": "p.tif", "surface": "s.tif", "velocity": "v.nc", "accumulation": "a.nc"}
    >>> predict_files("model", "bed.tif", **inputs, memory="much")
    Traceback (most recent call last):
    deepbedmap.errors.WrongCallError: memory: expected a size such as 8GB, found 'much'
    """
    policies = _policies(_listed(correct), _listed(refuse))
    if precision not in (None, *get_args(Precision)):
        raise WrongCallError(f"expected float32 or bfloat16, found {precision!r}", "precision")
    distributed.require_device(device)
    if bathymetry is not None and outline is None:
        raise WrongCallError("needs --outline, along which it is blended", "bathymetry")
    inputs = {"prior": prior, "surface": surface, "velocity": velocity}
    inputs |= {"accumulation": accumulation}
    inputs |= {} if surface_filler is None else {"surface_filler": surface_filler}
    paths = make_dem(
        checkpoints,
        inputs,
        out,
        bounds=bounds,
        memory=_bytes(memory) if isinstance(memory, str) else memory,
        device=device,
        precision=precision,
        geoid=geoid,
        mask=mask,
        policies=policies,
        outline=outline,
        bathymetry=bathymetry,
        blend_width=blend_width,
        progress=progress,
        report=report,
    )
    from deepbedmap import rasters

    sizes = rasters.open_raster(paths[0]).sizes
    return Predicted(paths, (sizes["y"], sizes["x"]))


def _listed(names: str | Sequence[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def _policies(correct: list[str], refuse: list[str]) -> dict[str, Policy] | Policy:
    """Policy for cells that fail a check, by check or for all."""
    chosen: list[tuple[Policy, list[str]]] = [("correct", correct), ("refuse", refuse)]
    for policy, names in chosen:
        if "all" in names:
            if len(correct) + len(refuse) > 1:
                raise WrongCallError("expected all, or checks by name", policy)
            return policy
    if not correct and not refuse:
        return "report"
    policies: dict[str, Policy] = dict.fromkeys(correct, "correct")
    return policies | dict.fromkeys(refuse, "refuse")


def _bytes(size: str) -> int:
    from dask.utils import parse_bytes

    try:
        return int(parse_bytes(size))
    except ValueError as error:
        raise WrongCallError(f"expected a size such as 8GB, found {size!r}", "memory") from error
