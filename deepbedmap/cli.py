"""The command line: parses, calls, prints. Nothing is computed here."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import pandas as pd

app = typer.Typer(
    name="deepbedmap",
    help="Antarctic bed elevation: find, cite and fetch surveys, grid them, predict the bed.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
catalog_app = typer.Typer(
    help="Write and check the intake catalogs.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(catalog_app, name="catalog")

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Box = Annotated[
    tuple[float, float, float, float] | None,
    typer.Option(metavar="XMIN YMIN XMAX YMAX", help="Box in metres, EPSG:3031."),
]
Citekeys = Annotated[list[str], typer.Argument(help="Names of datasets; `deepbedmap list`.")]


def main() -> None:
    """Run the command line; exit with 0 (done), 1 (data or run at fault) or 2 (call at fault)."""
    from deepbedmap.errors import DeepBedMapError

    try:
        app()
    except (DeepBedMapError, OSError) as error:
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        typer.echo(f"Error: {error}", err=True)
        sys.exit(1)
    except ValueError as error:  # as everywhere in the package: a wrong call
        typer.echo(f"Error: {error}", err=True)
        sys.exit(2)


@app.callback()
def _start(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Tell what is done.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    import logging

    from deepbedmap import __version__

    if version:
        typer.echo(f"deepbedmap {__version__}")
        raise typer.Exit
    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr
    )
    if verbose:
        logging.getLogger("deepbedmap").setLevel(logging.INFO)


@app.command("list", epilog="Example: deepbedmap list")
def list_datasets(json: Json = False) -> None:
    """List every dataset of the registry."""
    from deepbedmap import registry

    _print_datasets(registry.load().search(), json)


@app.command(epilog="Example: deepbedmap search rutford --folder highres")
def search(
    text: Annotated[str | None, typer.Argument(help="Words of title, authors or place.")] = None,
    bounds: Box = None,
    folder: Annotated[str | None, typer.Option(help="highres, lowres or misc.")] = None,
    json: Json = False,
) -> None:
    """Find datasets by words, by place or by kind.

    Those whose bounds nobody has written down yet are found at any place, and marked.
    """
    from deepbedmap import registry

    _print_datasets(registry.load().search(text, bounds, folder), json, bounds is not None)


@app.command(epilog="Example: deepbedmap show King2016Rutford")
def show(citekey: Annotated[str, typer.Argument(help="Name of the dataset.")]) -> None:
    """Print all that the registry knows of a dataset; null stands for what nobody knows."""
    import dataclasses
    import json

    from deepbedmap import registry

    dataset = registry.load()[citekey]
    typer.echo(json.dumps(dataclasses.asdict(dataset), indent=2, ensure_ascii=False))


@app.command(epilog="Example: deepbedmap cite King2016Rutford >> references.bib")
def cite(citekeys: Citekeys) -> None:
    """Print the BibTeX of datasets and of their papers."""
    from deepbedmap import registry

    typer.echo(registry.load().bibtex(citekeys), nl=False)


@app.command(epilog="Example: deepbedmap fetch King2016Rutford --jobs 4")
def fetch(
    citekeys: Citekeys,
    jobs: Annotated[int, typer.Option(min=1, help="Files fetched at once.")] = 4,
    offline: Annotated[bool, typer.Option("--offline", help="Only check what is here.")] = False,
) -> None:
    """Fetch the files of datasets, verify their checksums, and print where they are.

    They land under $DEEPBEDMAP_DATA_DIR, else in the checkout, else in the user's cache.
    """
    from deepbedmap import download

    for path in download.fetch(citekeys, jobs=jobs, offline=offline):
        typer.echo(path)


@app.command(epilog="Example: deepbedmap points highres/bed_WGS84_grid.json --out rutford.parquet")
def points(
    pipeline: Annotated[str, typer.Argument(help="A pipeline, or the name of one in highres/.")],
    out: Annotated[Path, typer.Option(help="A .parquet or .csv file.")],
    engine: Annotated[str, typer.Option(help="native or pdal.")] = "native",
) -> None:
    """Turn a survey's raw files into one table of picks: x, y, z, line."""
    if out.suffix not in (".parquet", ".csv"):
        raise typer.BadParameter(
            "expected a name that ends in .parquet or .csv", param_hint="--out"
        )
    if engine not in ("native", "pdal"):
        raise typer.BadParameter("expected native or pdal", param_hint="--engine")
    from deepbedmap import repository
    from deepbedmap.points import read_points

    picks = read_points(pipeline, engine=engine)  # type: ignore[arg-type]
    with repository.beside(out) as part:
        if out.suffix == ".csv":
            picks.to_csv(part, index=False)
        else:
            picks.to_parquet(part)
    typer.echo(f"{out}: {len(picks)} picks on {picks['line'].nunique()} lines")


@app.command(epilog="Example: deepbedmap grid highres/bed_WGS84_grid.json --out rutford.nc")
def grid(
    pipeline: Annotated[str, typer.Argument(help="A pipeline, or the name of one in highres/.")],
    out: Annotated[Path, typer.Option(help="A .nc or .tif file.")],
    spacing: Annotated[float, typer.Option(help="Cell in metres.")] = 250,
    tension: Annotated[float, typer.Option(min=0, max=1, help="Of the spline.")] = 0.35,
    max_gap: Annotated[int, typer.Option(min=0, help="Cells beyond data that are kept.")] = 3,
    region: Box = None,
) -> None:
    """Grid a survey: block medians, then a continuous-curvature spline in tension."""
    write = _raster_writer(out)
    from deepbedmap.grids import grid_points
    from deepbedmap.points import read_points

    z = grid_points(read_points(pipeline), spacing, tension, max_gap, region)
    write(z, out)
    typer.echo(f"{out}: {z.sizes['y']} x {z.sizes['x']} cells, {int(z.count())} with a bed")


@app.command(epilog="Example: deepbedmap tiles rutford.nc --out rutford_windows.geojson")
def tiles(
    grid: Annotated[Path, typer.Argument(help="A grid of picks.")],
    out: Annotated[Path, typer.Option(help="A .geojson or .gpkg file.")],
    size: Annotated[int, typer.Option(min=1, help="Width in cells.")] = 36,
    step: Annotated[int, typer.Option(min=1, help="Cells from one to the next.")] = 3,
    coverage: Annotated[float, typer.Option(help="Share of cells with a value.")] = 1.0,
) -> None:
    """Find the windows of a grid in which a tile can be cut, and write their footprints."""
    if out.suffix not in (".geojson", ".gpkg"):
        raise typer.BadParameter(
            "expected a name that ends in .geojson or .gpkg", param_hint="--out"
        )
    from deepbedmap import rasters, repository
    from deepbedmap.tiles import find_windows

    windows = find_windows(rasters.open_raster(grid), size, step, coverage)
    with repository.beside(out) as part:
        windows.to_file(part)
    typer.echo(f"{out}: {len(windows)} windows")


@catalog_app.command("build", epilog="Example: deepbedmap catalog build")
def catalog_build() -> None:
    """Write catalog/*.yml and the folders' READMEs from the registry."""
    from deepbedmap import catalog

    for path in catalog.build():
        typer.echo(path)


@catalog_app.command("check", epilog="Example: deepbedmap catalog check")
def catalog_check() -> None:
    """Fail when a file that is written from the registry is out of date."""
    from deepbedmap import catalog

    catalog.check()
    typer.echo("catalog and READMEs are as the registry says")


@app.command(
    epilog="Example: deepbedmap predict demo-output/checkpoint.safetensors --prior prior.tif "
    "--surface surface.tif --velocity velocity.nc --accumulation accumulation.tif --out bed.tif"
)
def predict(
    checkpoint: Annotated[Path, typer.Argument(help="A trained network, .safetensors.")],
    prior: Annotated[Path, typer.Option(help="Bed, 1 km or so.")],
    surface: Annotated[Path, typer.Option(help="Ice surface, 100 m or so.")],
    velocity: Annotated[Path, typer.Option(help="Two bands, or a NetCDF file with vx and vy.")],
    accumulation: Annotated[Path, typer.Option(help="Snow accumulation.")],
    out: Annotated[Path, typer.Option(help="A .nc or .tif file.")],
    bounds: Box = None,
) -> None:
    """Predict the bed of a window; without --bounds, of all that the prior covers."""
    write = _raster_writer(out)
    import pooch

    from deepbedmap import rasters
    from deepbedmap.model import checkpoints, prediction
    from deepbedmap.model.dataset import Inputs

    files = {
        "prior": prior,
        "surface": surface,
        "velocity": velocity,
        "accumulation": accumulation,
        "checkpoint": checkpoint,
    }
    network = checkpoints.load(checkpoint).network
    provenance: dict[str, Any] = {
        name: {"file": path.name, "sha256": pooch.file_hash(str(path))}
        for name, path in files.items()
        if path.is_file()
    }
    bed = prediction.predict(
        network,
        Inputs(
            prior=rasters.open_raster(prior),
            surface=rasters.open_raster(surface),
            velocity=rasters.open_raster(velocity, rasters.velocity_components(velocity)),
            accumulation=rasters.open_raster(accumulation),
        ),
        bounds,
        provenance=provenance,
    )
    write(bed, out)
    typer.echo(f"{out}: {bed.sizes['y']} x {bed.sizes['x']} cells")


@app.command(epilog="Example: deepbedmap evaluate bed.tif --points highres/20xx_Antarctica_TO.json")
def evaluate(
    dem: Annotated[Path, typer.Argument(help="A bed elevation grid, .nc or .tif.")],
    points: Annotated[str, typer.Option(help="The pipeline of a survey.")],
    json: Json = False,
) -> None:
    """Score a bed elevation grid at a survey's picks."""
    import dataclasses
    import json as json_module

    from deepbedmap.model.evaluation import evaluate as score
    from deepbedmap.points import read_points

    scores = dataclasses.asdict(score(dem, read_points(points)))
    if json:
        typer.echo(json_module.dumps(scores, indent=2))
    else:
        for name, value in scores.items():
            typer.echo(
                f"{name:16} {value:>12.2f}"
                if isinstance(value, float)
                else f"{name:16} {value:>12}"
            )


@app.command(epilog="Example: deepbedmap demo --out demo-output --seed 0")
def demo(
    out: Annotated[Path, typer.Option(help="Folder for what comes out.")] = Path("demo-output"),
    seed: Annotated[int, typer.Option(help="Another seed, other glaciers.")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps.")] = None,
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

    steps = steps or stages.STEPS
    console = Console(stderr=True)
    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("", total=steps, visible=False)

        def advance(step: int, metrics: dict[str, float]) -> None:  # noqa: ARG001
            bar.update(task, completed=step, visible=step < steps)

        scores = stages.run(
            out, seed, steps, report=lambda stage: typer.echo(f"{stage} ..."), advance=advance
        )
    header = f"{'':10} {'RMSE (m)':>9} {'MAE (m)':>9} {'bias (m)':>9} {'roughness':>9} {'picks':>8}"
    typer.echo(header)
    for method in ("model", "bicubic", "gridding"):
        row = scores[method]
        typer.echo(
            f"{method:10} {row['rmse']:9.1f} {row['mae']:9.1f} {row['bias']:9.1f} "
            f"{row['roughness_ratio']:9.2f} {row['picks']:8}"
        )
    typer.echo(f"{scores['seconds']:.0f} s; see {out}/comparison.png and {out}/scores.json")


def _raster_writer(out: Path) -> Any:
    """What writes a raster under this name; chosen before anything is computed."""
    if out.suffix not in (".nc", ".tif"):
        raise typer.BadParameter("expected a name that ends in .nc or .tif", param_hint="--out")
    from deepbedmap import rasters

    return rasters.write_netcdf if out.suffix == ".nc" else rasters.write_geotiff


def _print_datasets(table: pd.DataFrame, json: bool, placed: bool = False) -> None:
    if json:
        typer.echo(table.to_json(orient="records", indent=2))
    elif table.empty:
        typer.echo("no dataset fits")
    else:
        columns = ["citekey", "folder", "location", "resolution", "licence"]
        shown = table[columns + ["bounds_known"] * placed].astype(object)
        typer.echo(shown.where(shown.notna(), "unknown").to_string(index=False))
