"""Find windows, and cut training sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from deepbedmap.cli.options import app


@app.command(
    epilog="Example: deepbedmap tiles rutford.nc --out rutford_windows.geojson; "
    "deepbedmap tiles rutford.nc thwaites.nc --out training/tiles.zarr --prior prior.tif "
    "--surface rema_100m.tif --surface-filler rema_200m.tif --velocity velocity.nc "
    "--accumulation accumulation.tif --grounded"
)
def tiles(
    grids: Annotated[
        list[Path],
        typer.Argument(metavar="GRID...", help="Grids of picks, each named as its survey."),
    ],
    out: Annotated[Path, typer.Option(help="A .geojson, .gpkg or .zarr file.")],
    size: Annotated[int, typer.Option(min=1, help="Width in cells.")] = 36,
    step: Annotated[int, typer.Option(min=1, help="Cells from one to the next.")] = 3,
    coverage: Annotated[float, typer.Option(help="Share of cells with a value.")] = 1.0,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A test area to keep 11 km away from; all; or none. May be given again. Windows "
            "alone: none by default; a training set: all.",
        ),
    ] = None,
    grounded: Annotated[
        bool, typer.Option("--grounded", help="Keep windows on grounded ice alone.")
    ] = False,
    grounding_line: Annotated[
        Path | None, typer.Option(help="Polygons of the grounded ice; else GSHHG's by GMT.")
    ] = None,
    grounding_buffer: Annotated[
        float, typer.Option(min=0, help="Metres from the edge of the grounded ice.")
    ] = 0,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="block|survey",
            help="Hold blocks of 40 km, or surveys, out for validation. Windows alone: not split "
            "by default; a training set: block.",
        ),
    ] = None,
    validation: Annotated[float, typer.Option(help="Share held out.")] = 0.2,
    buffer: Annotated[
        float, typer.Option(min=0, help="Least metres between training and validation.")
    ] = 11_000,
    seed: Annotated[int, typer.Option(help="Of the random choice.")] = 0,
    prior: Annotated[Path | None, typer.Option(help="Bed, 1 km or so.")] = None,
    surface: Annotated[Path | None, typer.Option(help="Ice surface, 100 m or so.")] = None,
    surface_filler: Annotated[
        Path | None, typer.Option(help="A second ice surface, for gaps of the first.")
    ] = None,
    velocity: Annotated[
        Path | None, typer.Option(help="Two bands, or a NetCDF file with vx and vy.")
    ] = None,
    accumulation: Annotated[Path | None, typer.Option(help="Snow accumulation.")] = None,
) -> None:
    """Find the windows of grids in which a tile can be cut, or cut them into a training set.

    A .geojson or .gpkg file gets the windows' footprints. A .zarr store gets tiles of the surveyed
    bed and of the prior, surface, velocity and accumulation around it; the footprints go beside it.
    A run that was killed goes on when it is started again.
    """
    if out.suffix not in (".geojson", ".gpkg", ".zarr"):
        raise typer.BadParameter(
            "expected a name that ends in .geojson, .gpkg or .zarr", param_hint="--out"
        )
    if split not in (None, "block", "survey"):
        raise typer.BadParameter("expected block or survey", param_hint="--split")
    files = {
        "--prior": prior,
        "--surface": surface,
        "--velocity": velocity,
        "--accumulation": accumulation,
    }
    for option, file in files.items():
        if (file is None) == (out.suffix == ".zarr"):
            said = "a training set needs it" if file is None else "only a training set takes it"
            raise typer.BadParameter(said, param_hint=option)
    if surface_filler is not None and out.suffix != ".zarr":
        raise typer.BadParameter("only a training set takes it", param_hint="--surface-filler")
    surveys = {grid.stem: grid for grid in grids}
    if len(surveys) < len(grids):
        raise typer.BadParameter("two grids of one name", param_hint="GRID")
    from deepbedmap import progress
    from deepbedmap.files.atomic import beside
    from deepbedmap.places import TEST_AREAS
    from deepbedmap.tiles.building import build
    from deepbedmap.tiles.inputs import Inputs
    from deepbedmap.tiles.storage import open_training_set
    from deepbedmap.tiles.survey_windows import find

    areas = exclude or (["all"] if out.suffix == ".zarr" else [])
    areas = [*TEST_AREAS] if "all" in areas else [name for name in areas if name != "none"]
    outlines: Any = grounding_line or ("gshhg" if grounded else None)
    options: Any = {"size": size, "step": step, "coverage": coverage, "exclude": areas}
    options |= {"grounding_line": outlines, "grounding_buffer": grounding_buffer}
    options |= {"validation": validation, "buffer": buffer, "seed": seed}
    if out.suffix == ".zarr":
        opened = Inputs.open(prior, surface, velocity, accumulation, surface_filler)  # type: ignore[arg-type]
        options["by"] = split or "block"
        with progress.steps("cutting") as advance:
            build(surveys, opened, out, progress=advance, **options)
        parts = open_training_set(out)["split"].to_series().value_counts()
        typer.echo(f"{out}: {parts['train']} tiles to train on, {parts['validation']} to validate")
        return
    windows = find(surveys, by=split, **options)  # type: ignore[arg-type]
    with beside(out) as part:
        windows.to_file(part, layer=out.stem)
    typer.echo(f"{out}: {len(windows)} windows")
