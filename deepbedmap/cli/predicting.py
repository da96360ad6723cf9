"""Predict the bed."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deepbedmap.cli.options import Box, app

if TYPE_CHECKING:
    from deepbedmap.products.check_report import Report


@app.command(
    epilog="Example: deepbedmap predict demo-output/checkpoint.safetensors --prior prior.tif "
    "--surface surface.tif --velocity velocity.nc --accumulation accumulation.tif --out bed.tif; "
    "deepbedmap predict seed1 seed2 seed3 --prior bedmap3 --surface REMA_100m_dem --velocity "
    "vel.nc:VX,VY --accumulation acc.nc:smb --out bed.nc --out bed.tif --memory 8GB --correct "
    "thickness (an ensemble, with rasters of the catalog); "
    "torchrun --nproc-per-node 4 --no-python deepbedmap predict ... (on four GPUs)"
)
def predict(
    checkpoint: Annotated[
        list[Path],
        typer.Argument(
            metavar="CHECKPOINT...",
            help="Trained networks, .safetensors, or their folder; several make an ensemble.",
        ),
    ],
    prior: Annotated[str, typer.Option(metavar="FILE|NAME", help="Bed, 1 km or so.")],
    surface: Annotated[str, typer.Option(metavar="FILE|NAME", help="Ice surface, 100 m or so.")],
    velocity: Annotated[
        str,
        typer.Option(
            metavar="FILE|NAME", help="Two bands, or a NetCDF file with vx and vy, m a-1."
        ),
    ],
    accumulation: Annotated[
        str, typer.Option(metavar="FILE|NAME", help="Snow accumulation, kg m-2 a-1.")
    ],
    out: Annotated[
        list[Path],
        typer.Option(
            help="A .tif (the bed, Cloud Optimized), .nc or .zarr file (all layers); may be given "
            "again."
        ),
    ],
    surface_filler: Annotated[
        str | None,
        typer.Option(metavar="FILE|NAME", help="A second ice surface, for gaps of the first."),
    ] = None,
    bounds: Box = None,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="For the network's work, such as 8GB; else 80 % of a GPU's, or 2 GB of a CPU's.",
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda or cuda:N; by default a GPU, if there is one.")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(help="float32, or bfloat16 on a GPU; by default as the network was trained."),
    ] = None,
    geoid: Annotated[
        str | None,
        typer.Option(metavar="FILE|NAME", help="Height of the geoid above the ellipsoid."),
    ] = None,
    mask: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|NAME",
            help="BedMachine's: 0 ocean, 1 ice-free land, 2 grounded ice, 3 floating ice.",
        ),
    ] = None,
    outline: Annotated[
        Path | None,
        typer.Option(help="Polygons of the grounded ice: beyond them there is no bed."),
    ] = None,
    bathymetry: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|NAME", help="Sea floor, into which the bed goes over at --outline."
        ),
    ] = None,
    blend_width: Annotated[
        float, typer.Option(min=0, help="Metres on each side of the outline.")
    ] = 5_000,
    correct: Annotated[
        list[str] | None,
        typer.Option(metavar="CHECK", help="Mend the cells that fail a check; or all."),
    ] = None,
    refuse: Annotated[
        list[str] | None,
        typer.Option(metavar="CHECK", help="Write nothing where a cell fails a check; or all."),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print what the checks found as JSON.")
    ] = False,
) -> None:
    """Predict the bed of a window; without --bounds, of all that the prior covers.

    A raster is a file (FILE:VARIABLE where it has several, FILE:VX,VY for two), or the name of a
    dataset or of a catalog's entry, once it is fetched. Where an input has a gap, the layer
    `quality` says so; where the prior has one, there is no bed.

    The bed is checked before it is written: datum, range, rock, flotation, floating, thickness,
    slope, gaps. A run that was stopped, even by SIGKILL, goes on when it is started again.
    """
    policies = _policies(correct or [], refuse or [])
    size = None if memory is None else _bytes(memory)
    if precision not in (None, "float32", "bfloat16"):
        raise typer.BadParameter("expected float32 or bfloat16", param_hint="--precision")
    if device is not None and not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise typer.BadParameter("expected cpu, cuda or cuda:N", param_hint="--device")
    for path in out:
        if path.suffix not in (".tif", ".nc", ".zarr"):
            raise typer.BadParameter(
                "expected a name that ends in .tif, .nc or .zarr", param_hint="--out"
            )
    if bathymetry is not None and outline is None:
        raise typer.BadParameter("needs --outline", param_hint="--bathymetry")
    # Before torch is loaded: threads that spin while they wait slow a busy machine down.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import json as json_module

    from deepbedmap import progress, rasters
    from deepbedmap.model import prediction

    speaks = os.environ.get("RANK", "0") == "0"
    given = {"prior": prior, "surface": surface, "velocity": velocity}
    given |= {"accumulation": accumulation}
    given |= {} if surface_filler is None else {"surface_filler": surface_filler}
    found: dict[str, Any] = {}

    def tell(report: Report) -> None:
        found["checks"] = report.to_dict()
        if not json:
            typer.echo(report.text())

    try:
        with progress.steps("bed") as bar:
            paths = prediction.make_dem(
                checkpoint,
                given,
                out,
                bounds=bounds,
                memory=size,
                device=device,
                precision=precision,  # type: ignore[arg-type]
                geoid=geoid,
                mask=mask,
                policies=policies,
                outline=outline,
                bathymetry=bathymetry,
                blend_width=blend_width,
                progress=bar if speaks else None,
                report=tell,
            )
    except KeyboardInterrupt:
        typer.echo("interrupted: the same command goes on", err=True)
        raise typer.Exit(130) from None
    if not speaks:
        return
    shape = rasters.open_raster(paths[0]).sizes
    if json:
        found |= {"out": [*map(str, paths)], "cells": [shape["y"], shape["x"]]}
        typer.echo(json_module.dumps(found, indent=2))
    else:
        for path in paths:
            typer.echo(f"{path}: {shape['y']} x {shape['x']} cells")


def _policies(correct: list[str], refuse: list[str]) -> Any:
    """What happens to cells that fail a check, by check or for all."""
    for option, policy, names in (
        ("--correct", "correct", correct),
        ("--refuse", "refuse", refuse),
    ):
        if "all" in names:
            if len(names) > 1 or len(correct) + len(refuse) > 1:
                raise typer.BadParameter("all, or checks by name", param_hint=option)
            return policy
    if not correct and not refuse:
        return "report"
    return dict.fromkeys(correct, "correct") | dict.fromkeys(refuse, "refuse")


def _bytes(size: str) -> int:
    from dask.utils import parse_bytes

    try:
        return int(parse_bytes(size))
    except ValueError as error:
        raise typer.BadParameter("expected a size such as 8GB", param_hint="--memory") from error
