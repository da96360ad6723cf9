"""What the commands share: the Typer apps, common options, and columns of text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

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
DataDir = Annotated[
    Path | None,
    typer.Option(help="Folder of highres/, lowres/ and misc/; else $DEEPBEDMAP_DATA_DIR."),
]


def raster_writer(out: Path) -> Any:
    """What writes a raster under this name; chosen before anything is computed."""
    if out.suffix not in (".nc", ".tif"):
        raise typer.BadParameter("expected a name that ends in .nc or .tif", param_hint="--out")
    from deepbedmap import rasters

    return rasters.write_netcdf if out.suffix == ".nc" else rasters.write_geotiff


def in_columns(header: list[str], rows: list[list[str]], widest: int = 26) -> str:
    """Lines of text in columns, none of these wider than it may be but the first."""
    lines = [
        [cell if n == 0 or len(cell) <= widest else f"{cell[: widest - 3]}..." for n, cell in row]
        for row in map(enumerate, [header, *rows])
    ]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()
        for cells in lines
    )
