"""Turn surveys into picks, crossovers and grids."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deepbedmap.cli.options import Box, Json, app, in_columns, raster_writer


@app.command(
    epilog="Example: deepbedmap points bedmap3 --season BAS_2019_Thwaites_AIR_BM3 "
    "--out thwaites.parquet"
)
def points(
    pipeline: Annotated[
        str,
        typer.Argument(help="A pipeline, the name of one in highres/, or a Bedmap standard CSV."),
    ],
    out: Annotated[Path, typer.Option(help="A .parquet or .csv file.")],
    engine: Annotated[str, typer.Option(help="native or pdal.")] = "native",
    season: Annotated[
        list[str] | None,
        typer.Option(help="A raw file's name, its stem or a glob; may be given again."),
    ] = None,
    bounds: Box = None,
    unique: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Drop repeats of a position, to so many metres; all picks are then in memory.",
        ),
    ] = None,
) -> None:
    """Turn a survey's raw files into one table of picks: x, y, z, line.

    What is written as .parquet is GeoParquet where the CRS of the picks is known. It is written
    block by block: a survey that is larger than the memory is no larger than others. A .csv file,
    --unique and engine pdal take the table whole.
    """
    if out.suffix not in (".parquet", ".csv"):
        raise typer.BadParameter(
            "expected a name that ends in .parquet or .csv", param_hint="--out"
        )
    if engine not in ("native", "pdal"):
        raise typer.BadParameter("expected native or pdal", param_hint="--engine")
    import threading

    from deepbedmap import files
    from deepbedmap.download.progress import Bars
    from deepbedmap.points.combining import deduplicate
    from deepbedmap.points.reading import read_points
    from deepbedmap.points.writing import write_points, write_survey

    if out.suffix == ".parquet" and unique is None and engine == "native":
        name = Path(pipeline).name
        with Bars(True, threading.Event()) as bars, bars.bar(name, None) as bar:
            written = write_survey(pipeline, out, season or None, bounds, bar.start)
        typer.echo(f"{out}: {written.picks} picks on {written.lines} lines")
        return
    picks = read_points(pipeline, engine, season or None, bounds)  # type: ignore[arg-type]
    if unique is not None:
        picks = deduplicate(picks, unique)
    with files.beside(out) as part:
        write_points(picks, part)
    typer.echo(f"{out}: {len(picks)} picks on {picks['line'].nunique()} lines")


@app.command(
    epilog="Example: deepbedmap crossovers bedmap3 20xx_Antarctica_TO --out crossovers.csv"
)
def crossovers(
    pipelines: Annotated[
        list[str],
        typer.Argument(
            metavar="PIPELINE...",
            help="Pipelines, names of those in highres/, or Bedmap standard CSVs.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="A .csv file: one row a crossover.")],
    max_gap: Annotated[
        float, typer.Option(help="Metres between picks beyond which a line is interrupted.")
    ] = 1000,
    within: Annotated[
        bool, typer.Option("--within", help="Also where a line crosses itself.")
    ] = False,
    bounds: Box = None,
    json: Json = False,
) -> None:
    """Compare the beds where flight lines cross; print a summary by pair of surveys.

    A survey is a raw file. The surveys must have one CRS and one vertical datum.
    """
    if out.suffix != ".csv":
        raise typer.BadParameter("expected a name that ends in .csv", param_hint="--out")
    from deepbedmap import files
    from deepbedmap.points.combining import join_surveys
    from deepbedmap.points.crossovers import crossovers as cross
    from deepbedmap.points.crossovers import summarize
    from deepbedmap.points.reading import read_points

    surveys = {pipeline: read_points(pipeline, bounds=bounds) for pipeline in pipelines}
    picks = join_surveys(surveys).drop(columns="source")
    found = cross(picks, max_gap, within)
    with files.beside(out) as part:
        found.to_csv(part, index=False)
    summary = summarize(found)
    if json:
        typer.echo(summary.to_json(orient="records", indent=2))
        return
    typer.echo(f"{out}: {len(found)} crossovers")
    if len(found):
        rows = [
            [f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row]
            for row in summary.itertuples(index=False)
        ]
        typer.echo(in_columns(summary.columns.to_list(), rows))


@app.command(
    epilog="Example: deepbedmap grid highres/bed_WGS84_grid.json --out rutford.nc; "
    "deepbedmap grid bedmap3 20xx_Antarctica_TO --bounds -1700000 -600000 -1200000 -100000 "
    "--out thwaites.zarr"
)
def grid(
    pipelines: Annotated[
        list[str],
        typer.Argument(
            metavar="PIPELINE...",
            help="Pipelines, names of those in highres/, or Bedmap standard CSVs; one grid of all.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="A .nc, .zarr or .tif file.")],
    spacing: Annotated[float, typer.Option(help="Cell in metres.")] = 250,
    tension: Annotated[float, typer.Option(min=0, max=1, help="Of the spline.")] = 0.35,
    max_gap: Annotated[int, typer.Option(min=0, help="Cells beyond data that are kept.")] = 3,
    region: Annotated[
        tuple[float, float, float, float] | None,
        typer.Option(
            metavar="XMIN YMIN XMAX YMAX", help="Edges of the grid; else around the picks."
        ),
    ] = None,
    season: Annotated[
        list[str] | None,
        typer.Option(help="A raw file's name, its stem or a glob; may be given again."),
    ] = None,
    bounds: Box = None,
    layers: Annotated[
        bool | None,
        typer.Option(
            help="Beside z also count, spread and distance: picks in a cell, the standard "
            "deviation of their beds, metres to the nearest cell with one. By default wherever "
            "that can be done: not in a .tif file, nor by gmt."
        ),
    ] = None,
    method: Annotated[
        str, typer.Option(help="band: solved around the picks only; or gmt: GMT's surface.")
    ] = "band",
) -> None:
    """Grid surveys: block medians, then a continuous-curvature spline in tension.

    A .nc or .zarr file is solved and written region by region, in memory that follows the picks.
    If that is cut off, even by SIGKILL, run it again: it goes on where it stopped. A .tif file,
    and what GMT solves, is held in memory as a whole.

    Several surveys must have one CRS and one vertical datum. --bounds chooses picks, --region the
    edges of the grid; both are in metres, in the CRS of the picks.
    """
    if method not in ("gmt", "band"):
        raise typer.BadParameter("expected gmt or band", param_hint="--method")
    by_region = method == "band" and out.suffix in (".nc", ".zarr")
    if layers and not by_region:
        raise typer.BadParameter("only band writes them, and not to .tif", param_hint="--layers")
    if method == "band" and out.suffix not in (".nc", ".zarr", ".tif"):
        raise typer.BadParameter(
            "expected a name that ends in .nc, .zarr or .tif", param_hint="--out"
        )
    write = None if by_region else raster_writer(out)
    import logging

    from deepbedmap import grids, progress, rasters
    from deepbedmap.points.combining import join_surveys
    from deepbedmap.points.reading import read_points

    surveys = {name: read_points(name, season=season or None, bounds=bounds) for name in pipelines}
    picks = join_surveys(surveys) if len(surveys) > 1 else surveys.popitem()[1]
    if write is None:
        logging.getLogger("deepbedmap.files.resumable").setLevel(logging.INFO)
        with progress.steps("gridding") as tell:
            grids.write_grid(
                *(picks, out, spacing, tension, max_gap, region),
                layers=layers is not False,
                progress=tell,
            )
        z = rasters.chunked(rasters.open_raster(out, "z"))
    else:
        z = grids.grid_points(picks, spacing, tension, max_gap, region, method)  # type: ignore[arg-type]
        write(z, out)
    typer.echo(f"{out}: {z.sizes['y']} x {z.sizes['x']} cells, {int(z.count())} with a bed")
