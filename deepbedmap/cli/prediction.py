"""Predict the bed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deepbedmap.cli.options import (
    Box,
    Device,
    calm_threads,
    command,
    interrupted,
    is_first_process,
)

if TYPE_CHECKING:
    from deepbedmap.products.check_report import Report

_NAME = "FILE|NAME"

Checkpoints = Annotated[
    list[Path],
    typer.Argument(
        metavar="CHECKPOINT",
        help="Trained networks, .safetensors, or their folder; several make an ensemble.",
    ),
]
Out = Annotated[
    list[Path],
    typer.Option(
        help="A .tif (the bed, Cloud Optimized), .nc or .zarr file (all layers); may be given "
        "again."
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="For the network's work, such as 8GB; by default 80 % of a GPU's free memory, or "
        "2 GB.",
    ),
]
Mask = Annotated[
    str | None,
    typer.Option(
        metavar=_NAME,
        help="BedMachine's: 0 ocean, 1 ice-free land, 2 grounded ice, 3 floating ice.",
    ),
]


@command(
    "deepbedmap predict demo-output/checkpoint.safetensors --prior prior.tif --surface "
    "surface.tif --velocity velocity.nc --accumulation accumulation.tif --out bed.tif",
    "deepbedmap predict seed1 seed2 seed3 --prior bedmap3 --surface REMA_100m_dem --velocity "
    "vel.nc:VX,VY --accumulation acc.nc:smb --out bed.nc --out bed.tif --memory 8GB --correct "
    "thickness  # an ensemble, with rasters of the catalog",
    "torchrun --nproc-per-node 4 --no-python deepbedmap predict ...  # on four GPUs",
)
def predict(
    checkpoint: Checkpoints,
    prior: Annotated[str, typer.Option(metavar=_NAME, help="Bed, about 1 km.")],
    surface: Annotated[str, typer.Option(metavar=_NAME, help="Ice surface, about 100 m.")],
    velocity: Annotated[
        str,
        typer.Option(metavar=_NAME, help="Two bands, or a NetCDF file with vx and vy, m a-1."),
    ],
    accumulation: Annotated[
        str, typer.Option(metavar=_NAME, help="Snow accumulation, kg m-2 a-1.")
    ],
    out: Out,
    surface_filler: Annotated[
        str | None,
        typer.Option(metavar=_NAME, help="A second ice surface, for gaps of the first."),
    ] = None,
    bounds: Box = None,
    memory: Memory = None,
    device: Device = None,
    precision: Annotated[
        str | None,
        typer.Option(help="float32, or bfloat16 on a GPU; by default that of the training."),
    ] = None,
    geoid: Annotated[
        str | None,
        typer.Option(metavar=_NAME, help="Height of the geoid above the ellipsoid."),
    ] = None,
    mask: Mask = None,
    outline: Annotated[
        Path | None,
        typer.Option(help="Polygons of the grounded ice: there is no bed beyond them."),
    ] = None,
    bathymetry: Annotated[
        str | None,
        typer.Option(metavar=_NAME, help="Sea floor, blended into the bed along --outline."),
    ] = None,
    blend_width: Annotated[
        float, typer.Option(min=0, help="Metres on each side of the outline.")
    ] = 5_000,
    correct: Annotated[
        list[str] | None,
        typer.Option(metavar="CHECK", help="Correct the cells that fail a check; or all."),
    ] = None,
    refuse: Annotated[
        list[str] | None,
        typer.Option(metavar="CHECK", help="Write nothing if a cell fails a check; or all."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the checks as JSON.")] = False,
) -> None:
    """Predict the bed of a window; without --bounds, of all that the prior covers.

    A raster is a file (FILE:VARIABLE where it has several, FILE:VX,VY for two), or the name of a
    dataset or of a catalog entry that has been fetched. Where an input has a gap, the layer
    `quality` says so; where the prior has one, there is no bed.

    The bed is checked before it is written: datum, range, rock, flotation, floating, thickness,
    slope, gaps. An interrupted run, even by SIGKILL, resumes when it is started again.
    """
    options = dict(locals())
    for name in ("checkpoint", "out", "json"):
        del options[name]
    calm_threads()
    from deepbedmap import progress
    from deepbedmap.model import prediction

    printed = _Checks(json)
    options |= {"correct": correct or (), "refuse": refuse or (), "report": printed.report}
    try:
        with progress.steps("bed") as bar:
            options["progress"] = bar if is_first_process() else None
            predicted = prediction.predict_files(checkpoint, out, **options)
    except KeyboardInterrupt:
        raise interrupted("the same command resumes it") from None
    if is_first_process():
        printed.products(predicted.paths, predicted.shape)


class _Checks:
    """Prints the report of the checks, and then the products, as text or as one JSON document."""

    def __init__(self, json: bool) -> None:
        self._document: dict[str, Any] | None = {} if json else None

    def report(self, report: Report) -> None:
        """Print the report, or keep it for the document."""
        if self._document is None:
            typer.echo(report.text())
        else:
            self._document["checks"] = report.to_dict()

    def products(self, paths: list[Path], shape: tuple[int, int]) -> None:
        """Print the products, or the document."""
        import json as json_module

        if self._document is None:
            for path in paths:
                typer.echo(f"{path}: {shape[0]} x {shape[1]} cells")
        else:
            self._document |= {"out": [*map(str, paths)], "cells": [*shape]}
            typer.echo(json_module.dumps(self._document, indent=2))
