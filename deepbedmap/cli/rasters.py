"""Grid surveys, cut tiles, and resample, convert and map rasters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from deepbedmap.cli.options import Box, Region, Season, command, is_quiet, pairs_of
from deepbedmap.places import BUFFER

Pipelines = Annotated[
    list[str],
    typer.Argument(
        metavar="PIPELINE",
        help="Pipelines, names of those in highres/, or Bedmap standard CSVs; one grid of all.",
    ),
]
Layers = Annotated[
    bool | None,
    typer.Option(
        help="Also write count, spread and distance: picks in a cell, the standard deviation of "
        "their beds, metres to the nearest cell with one. By default wherever that is possible: "
        "not to a .tif file, nor by gmt."
    ),
]
Grids = Annotated[
    list[Path],
    typer.Argument(metavar="GRID", help="Grids of picks, each named as its survey."),
]
TestAreas = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="A test area to keep 11 km away from; all; or none. May be given again. By default "
        "none for windows, all for a training set.",
    ),
]
GroundingLine = Annotated[
    Path | None, typer.Option(help="Polygons of the grounded ice; by default GSHHG's, from GMT.")
]
Split = Annotated[
    str | None,
    typer.Option(
        metavar="block|survey",
        help="Hold out blocks of 40 km, or surveys, for validation. By default windows are not "
        "split; a training set is, by block.",
    ),
]
Geoids = Annotated[
    list[str],
    typer.Option(
        metavar="NAME=FILE",
        help="Height of a geoid above the ellipsoid; may be given again. `deepbedmap search geoid` "
        "lists them.",
    ),
]
ToDraw = Annotated[
    list[str],
    typer.Argument(
        metavar="ENTRY|FILE",
        help="Entries of the catalog; or rasters (.tif, .nc, .zarr), picks (.csv, .parquet, a "
        "pipeline), outlines (.geojson, .gpkg, .shp), training sets, products.",
    ),
]
Kind = Annotated[
    str | None,
    typer.Option(
        help="elevation, difference (white at zero), roughness, speed, amount or flags; by "
        "default what names and units say."
    ),
]


@command(
    "deepbedmap grid highres/bed_WGS84_grid.json --out rutford.nc",
    "deepbedmap grid bedmap3 20xx_Antarctica_TO --bounds -1700000 -600000 -1200000 -100000 "
    "--out thwaites.zarr",
)
def grid(
    pipelines: Pipelines,
    out: Annotated[Path, typer.Option(help="A .nc, .zarr or .tif file.")],
    spacing: Annotated[float, typer.Option(help="Width of a cell in metres.")] = 250,
    tension: Annotated[float, typer.Option(min=0, max=1, help="Of the spline.")] = 0.35,
    max_gap: Annotated[int, typer.Option(min=0, help="Cells beyond the picks that are kept.")] = 3,
    region: Annotated[
        Region,
        typer.Option(
            metavar="XMIN YMIN XMAX YMAX",
            help="Edges of the grid; by default around the picks.",
        ),
    ] = None,
    season: Season = None,
    bounds: Box = None,
    layers: Layers = None,
    method: Annotated[
        str, typer.Option(help="band: solved around the picks only; or gmt: GMT's surface.")
    ] = "band",
) -> None:
    """Grid surveys: block medians, then a continuous-curvature spline in tension.

    A .nc or .zarr file is solved and written block by block, in memory that follows the picks. If
    it is interrupted, even by SIGKILL, the same command resumes it. A .tif file, and whatever GMT
    solves, is held in memory as a whole.

    Several surveys must have one CRS and one vertical datum. --bounds selects picks, --region the
    edges of the grid; both are in metres, in the CRS of the picks.
    """
    import logging

    from deepbedmap import grids, progress

    if not is_quiet():
        logging.getLogger("deepbedmap.files.resumable").setLevel(logging.INFO)
    options: dict[str, Any] = {"season": season or None, "bounds": bounds}
    options |= {"layers": layers, "method": method}
    with progress.steps("gridding") as bar:
        z = grids.grid_surveys(
            pipelines, out, spacing, tension, max_gap, region, progress=bar, **options
        )
    typer.echo(f"{out}: {z.sizes['y']} x {z.sizes['x']} cells, {int(z.count())} with a bed")


@command(
    "deepbedmap tiles rutford.nc --out rutford_windows.geojson",
    "deepbedmap tiles rutford.nc thwaites.nc --out training/tiles.zarr --prior prior.tif "
    "--surface rema_100m.tif --surface-filler rema_200m.tif --velocity velocity.nc "
    "--accumulation accumulation.tif --grounded",
)
def tiles(
    grids: Grids,
    out: Annotated[Path, typer.Option(help="A .geojson, .gpkg or .zarr file.")],
    size: Annotated[int, typer.Option(min=1, help="Width in cells.")] = 36,
    step: Annotated[int, typer.Option(min=1, help="Cells from one to the next.")] = 3,
    coverage: Annotated[float, typer.Option(help="Share of cells with a value.")] = 1.0,
    exclude: TestAreas = None,
    grounded: Annotated[
        bool, typer.Option("--grounded", help="Keep only windows on grounded ice.")
    ] = False,
    grounding_line: GroundingLine = None,
    grounding_buffer: Annotated[
        float, typer.Option(min=0, help="Metres from the edge of the grounded ice.")
    ] = 0,
    split: Split = None,
    validation: Annotated[float, typer.Option(help="Share held out.")] = 0.2,
    buffer: Annotated[
        float, typer.Option(min=0, help="Minimum metres between training and validation.")
    ] = int(BUFFER),
    seed: Annotated[int, typer.Option(help="Of the random choice.")] = 0,
    prior: Annotated[Path | None, typer.Option(help="Bed, about 1 km.")] = None,
    surface: Annotated[Path | None, typer.Option(help="Ice surface, about 100 m.")] = None,
    surface_filler: Annotated[
        Path | None, typer.Option(help="A second ice surface, for gaps of the first.")
    ] = None,
    velocity: Annotated[
        Path | None, typer.Option(help="Two bands, or a NetCDF file with vx and vy.")
    ] = None,
    accumulation: Annotated[Path | None, typer.Option(help="Snow accumulation.")] = None,
) -> None:
    """Find windows in grids, or cut the grids into a training set.

    A .geojson or .gpkg file gets the windows' footprints. A .zarr store gets tiles of the surveyed
    bed and of the prior, surface, velocity and accumulation around it; the footprints are written
    next to it. An interrupted run resumes when it is started again.
    """
    options = dict(locals())
    from deepbedmap import progress
    from deepbedmap.tiles.preparing import prepare_tiles

    with progress.steps("cutting") as bar:
        prepared = prepare_tiles(progress=bar, **options)
    if prepared.train is None:
        typer.echo(f"{out}: {prepared.windows} windows")
    else:
        typer.echo(
            f"{out}: {prepared.train} tiles to train on, {prepared.validation} to validate with"
        )


@command(
    "deepbedmap resample surface_100m.tif --filler surface_200m.tif --out filled.tif",
    "deepbedmap resample velocity.nc --resolution 500 --out velocity_500m.tif",
)
def resample(
    raster: Annotated[Path, typer.Argument(help="A .tif or .nc file (vx and vy: both), or Zarr.")],
    out: Annotated[Path, typer.Option(help="A .tif file.")],
    resolution: Annotated[
        float | None,
        typer.Option(help="Width of the new cells in metres; by default the raster's own."),
    ] = None,
    bounds: Annotated[
        Region,
        typer.Option(metavar="XMIN YMIN XMAX YMAX", help="Outer edges of the new cells, metres."),
    ] = None,
    filler: Annotated[
        Path | None, typer.Option(help="A second raster, for where the first has no value.")
    ] = None,
    method: Annotated[str, typer.Option(help="nearest, linear or cubic.")] = "linear",
) -> None:
    """Fill the gaps of a raster, or change its cells, at any size.

    Values are interpolated at the new cells' centres; nothing is averaged, or blended with nodata.
    """
    if out.suffix != ".tif":
        raise typer.BadParameter("expected a name that ends in .tif", param_hint="--out")
    from deepbedmap import progress, rasters

    with progress.steps("resampling") as bar:
        rasters.write_resampled(raster, out, resolution, bounds, filler, method, bar)  # type: ignore[arg-type]
    written = rasters.open_raster(out)
    typer.echo(f"{out}: {written.sizes['y']} x {written.sizes['x']} cells")


@command(
    "deepbedmap convert lowres/bedmap2_bed.tif --to ellipsoid --geoid "
    "EIGEN-GL04C=gl04c_geoid.tif --out bed_ellipsoid.tif",
)
def convert(
    heights: Annotated[Path, typer.Argument(help="A grid of heights in metres, .tif or .nc.")],
    to: Annotated[str, typer.Option(help="ellipsoid, EIGEN-GL04C or EIGEN-6C4.")],
    geoid: Geoids,
    out: Annotated[Path, typer.Option(help="A .nc or .tif file.")],
    datum: Annotated[
        str | None, typer.Option(help="What the heights refer to, where nothing states it.")
    ] = None,
    variable: Annotated[str | None, typer.Option(help="Of a NetCDF file with several.")] = None,
) -> None:
    """Convert heights from one vertical datum to another, with geoid grids."""
    from deepbedmap.catalog.converting import convert_file

    geoids = pairs_of(geoid, "geoid")
    converted = convert_file(heights, to, geoids, out, datum=datum, variable=variable)
    cells = f"{converted.sizes['y']} x {converted.sizes['x']} cells"
    typer.echo(f"{out}: {cells} above {'the ellipsoid' if to == 'ellipsoid' else to}")


@command(
    "deepbedmap map bed.tif picks.parquet --out bed.png",
    "deepbedmap map bedmap2_bed --bounds -1700000 -600000 -1200000 -100000",
    name="map",
)
def draw_map(
    names: ToDraw,
    out: Annotated[
        Path | None,
        typer.Option(
            help="A .png, .pdf, .svg, .jpg, .tif or .eps file; by default NAME_map.png here."
        ),
    ] = None,
    variable: Annotated[
        str | None, typer.Option(help="Of a file with several; by default all, six at most.")
    ] = None,
    bounds: Annotated[
        Region,
        typer.Option(metavar="XMIN YMIN XMAX YMAX", help="Box in the CRS of the data."),
    ] = None,
    kind: Kind = None,
    title: Annotated[str | None, typer.Option(help="Of a single map; by default its name.")] = None,
    crs: Annotated[
        str | None, typer.Option(help="Of files that state none, such as EPSG:3031.")
    ] = None,
) -> None:
    """Draw a quick look of anything in the catalog, or of files.

    Each layer of a raster is a map; picks and outlines are drawn on every map. Picks alone are
    coloured by their bed elevation, those of several surveys by survey.
    """
    options = dict(locals())
    from deepbedmap import figures

    typer.echo(figures.draw_map(options.pop("names"), options.pop("out"), **options))
