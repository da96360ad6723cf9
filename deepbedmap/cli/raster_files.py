"""Convert, resample and map rasters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from deepbedmap.cli.options import app, raster_writer


@app.command(
    epilog="Example: deepbedmap convert lowres/bedmap2_bed.tif --to ellipsoid "
    "--geoid EIGEN-GL04C=gl04c_geoid.tif --out bed_ellipsoid.tif"
)
def convert(
    heights: Annotated[Path, typer.Argument(help="A grid of heights in metres, .tif or .nc.")],
    to: Annotated[str, typer.Option(help="ellipsoid, EIGEN-GL04C or EIGEN-6C4.")],
    geoid: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=FILE",
            help="A geoid's height above the ellipsoid, one a geoid; `deepbedmap search geoid`.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="A .nc or .tif file.")],
    datum: Annotated[
        str | None, typer.Option(help="What the heights refer to, where nothing states it.")
    ] = None,
    variable: Annotated[str | None, typer.Option(help="Of a NetCDF file with several.")] = None,
) -> None:
    """Convert heights from one vertical datum to another, with geoid grids."""
    write = raster_writer(out)
    geoids = dict(item.partition("=")[::2] for item in geoid)
    if not all(name and file for name, file in geoids.items()):
        raise typer.BadParameter("expected NAME=FILE", param_hint="--geoid")
    import json

    from deepbedmap import rasters
    from deepbedmap.catalog.raster_drivers import RasterSource
    from deepbedmap.provenance import describe_file

    given = RasterSource(heights, variable).to_dask()
    if "band" in given.dims:
        raise typer.BadParameter("several rasters; name one", param_hint="--variable")
    made_of = {"sources": [describe_file(heights, "heights")]}
    given.attrs.setdefault("provenance", json.dumps(made_of))
    converted = rasters.convert_datum(given, to, geoids, datum)
    write(converted, out)
    cells = f"{converted.sizes['y']} x {converted.sizes['x']} cells"
    typer.echo(f"{out}: {cells} above {'the ellipsoid' if to == 'ellipsoid' else to}")


@app.command(
    epilog="Example: deepbedmap resample surface_100m.tif --filler surface_200m.tif "
    "--out filled.tif; deepbedmap resample velocity.nc --resolution 500 --out velocity_500m.tif"
)
def resample(
    raster: Annotated[Path, typer.Argument(help="A .tif or .nc file (vx and vy: both), or Zarr.")],
    out: Annotated[Path, typer.Option(help="A .tif file.")],
    resolution: Annotated[
        float | None, typer.Option(help="Width of the new cells in metres; else the raster's own.")
    ] = None,
    bounds: Annotated[
        tuple[float, float, float, float] | None,
        typer.Option(metavar="XMIN YMIN XMAX YMAX", help="Outer edges of the new cells, metres."),
    ] = None,
    filler: Annotated[
        Path | None, typer.Option(help="A second raster, for where the first has no value.")
    ] = None,
    method: Annotated[str, typer.Option(help="nearest, linear or cubic.")] = "linear",
) -> None:
    """Fill the gaps of a raster, or give it cells of another width, of any size.

    Values are interpolated at the new cells' centres; nothing is averaged, nor blended with nodata.
    """
    if out.suffix != ".tif":
        raise typer.BadParameter("expected a name that ends in .tif", param_hint="--out")
    from deepbedmap import progress, rasters

    with progress.steps("resampling") as tell:
        rasters.write_resampled(raster, out, resolution, bounds, filler, method, tell)  # type: ignore[arg-type]
    written = rasters.open_raster(out)
    typer.echo(f"{out}: {written.sizes['y']} x {written.sizes['x']} cells")


@app.command(
    "map",
    epilog="Example: deepbedmap map bed.tif picks.parquet --out bed.png; "
    "deepbedmap map bedmap2_bed --bounds -1700000 -600000 -1200000 -100000",
)
def draw_map(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="ENTRY|FILE...",
            help="Entries of the catalog; or rasters (.tif, .nc, .zarr), picks (.csv, .parquet, "
            "a pipeline), outlines (.geojson, .gpkg, .shp), training sets, products.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="A .png, .pdf, .svg, .jpg, .tif or .eps file; else NAME_map.png here."),
    ] = None,
    variable: Annotated[
        str | None, typer.Option(help="Of a file with several; else all, six at most.")
    ] = None,
    bounds: Annotated[
        tuple[float, float, float, float] | None,
        typer.Option(metavar="XMIN YMIN XMAX YMAX", help="Box in the CRS of the data."),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            help="elevation, difference (white at zero), roughness, speed, amount or flags; else "
            "what names and units say."
        ),
    ] = None,
    title: Annotated[str | None, typer.Option(help="Of a single one; else its name.")] = None,
    crs: Annotated[str | None, typer.Option(help="Of files that state none: EPSG:3031.")] = None,
) -> None:
    """Draw a quick look of anything in the catalog, or of files.

    Of rasters each layer is a map; picks and outlines named with them are drawn upon each. Picks
    alone have the colours of their beds; those of several surveys each their own.
    """
    from typing import get_args

    from deepbedmap import figures
    from deepbedmap.figures.opening import open_data

    if kind is not None and kind not in get_args(figures.Kind):
        expected = ", ".join(get_args(figures.Kind))
        raise typer.BadParameter(f"expected one of {expected}", param_hint="--kind")
    path = out or Path(f"{Path(names[0]).stem}_map.png")
    figures.require_suffix(path)
    opened = {name: open_data(name, variable, bounds, crs) for name in names}
    data: dict[str, Any] = {}
    for name, one in opened.items():
        data[name if one.title in data else one.title] = one.data
    if title is not None:
        if len(data) > 1:
            raise typer.BadParameter("only of a single ENTRY or FILE", param_hint="--title")
        data = {title: one.data}
    sources = dict.fromkeys(one.source for one in opened.values())
    figures.quick_look(data, path, " ".join(sources), kind=kind)  # type: ignore[arg-type]
    typer.echo(path)
