"""The command line: parses, calls, prints. Nothing is computed here."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd
    import xarray as xr

    from deepbedmap.consistency import Report
    from deepbedmap.download import Planned
    from deepbedmap.model.comparison import Row
    from deepbedmap.model.configuration import Configuration
    from deepbedmap.registry import Dataset, Registry
    from deepbedmap.samples import Sample

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
_MOST_FILES = 10


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

    table = registry.load().search()
    if json:
        typer.echo(table.to_json(orient="records", indent=2))
    else:
        columns = "citekey folder version status resolution licence datum files"
        typer.echo(_dataset_table(table, columns))


@app.command(
    epilog="Example: deepbedmap search rutford --folder highres; "
    "deepbedmap search --lonlat -120 -80 -90 -70 --licence CC-BY-4.0"
)
def search(
    text: Annotated[
        list[str] | None,
        typer.Argument(help="Words of title, authors, place, years, DOI or names of files."),
    ] = None,
    bounds: Box = None,
    lonlat: Annotated[
        tuple[float, float, float, float] | None,
        typer.Option(
            metavar="LONMIN LATMIN LONMAX LATMAX",
            help="Box in degrees; with LONMIN > LONMAX across the date line.",
        ),
    ] = None,
    folder: Annotated[str | None, typer.Option(help="highres, lowres or misc.")] = None,
    licence: Annotated[
        str | None, typer.Option(help="SPDX identifier such as CC-BY-4.0, or unknown.")
    ] = None,
    datum: Annotated[
        str | None, typer.Option(help="ellipsoid, EIGEN-GL04C, EIGEN-6C4 or unknown.")
    ] = None,
    crs: Annotated[str | None, typer.Option(help="Such as EPSG:4326, or unknown.")] = None,
    status: Annotated[
        str | None, typer.Option(help="active, superseded, retired, withdrawn or unknown.")
    ] = None,
    json: Json = False,
) -> None:
    """Find datasets by words, by place or by kind.

    Those whose bounds nobody has written down yet may be at any place: they are listed apart.
    """
    from deepbedmap import registry

    table = registry.load().search(
        " ".join(text) if text else None, bounds, folder, licence, datum, crs, status, lonlat
    )
    if json:
        typer.echo(table.to_json(orient="records", indent=2))
        return
    if table.empty:
        typer.echo("no dataset fits; `deepbedmap list` shows all")
        return
    columns = "citekey folder location epoch status licence datum files"
    placed = table["bounds_known"] if bounds or lonlat else table["bounds_known"] | True
    if placed.any():
        typer.echo(_dataset_table(table[placed], columns))
    if not placed.all():
        typer.echo(f"place unknown ({(~placed).sum()}):")
        typer.echo(_dataset_table(table[~placed], columns))
    for citekey, names in zip(table["citekey"], table["matching_files"], strict=True):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            typer.echo(f"{citekey} has {', '.join(names[:3])}{more}")


@app.command(epilog="Example: deepbedmap show King2016Rutford")
def show(
    citekey: Annotated[str, typer.Argument(help="Name of the dataset.")],
    json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
) -> None:
    """Print what the registry knows of a dataset."""
    import dataclasses
    import json as json_module

    from deepbedmap import registry

    listing = registry.load()
    dataset = listing[citekey]
    if json:
        typer.echo(json_module.dumps(dataclasses.asdict(dataset), indent=2, ensure_ascii=False))
    else:
        typer.echo(_page(dataset, listing))


@app.command(epilog="Example: deepbedmap cite King2016Rutford bed.nc >> references.bib")
def cite(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="CITEKEY|FILE...",
            help="Datasets, names of their files, or grids, predictions, tables of picks "
            "(.parquet) and checkpoints made of them.",
        ),
    ],
    style: Annotated[str, typer.Option("--format", help="bibtex, text or csl-json.")] = "bibtex",
    registry: Annotated[
        Path | None, typer.Option(help="A data_list.yml, or its folder; else the package's own.")
    ] = None,
) -> None:
    """Cite datasets and their papers, or all datasets behind a file, each once.

    A source that is none of the registry's is named on standard error, and the exit code is 1:
    what is printed is then not the whole citation.
    """
    from deepbedmap import citation
    from deepbedmap import registry as registries
    from deepbedmap.errors import InvalidDataError

    listing = registries.load(registry)
    found = [citation.attribute(name, listing) for name in what]
    citekeys = [citekey for attribution in found for citekey in attribution.citekeys]
    typer.echo(citation.cite(listing, citekeys, style), nl=False)  # type: ignore[arg-type]
    if faults := [fault for attribution in found for fault in attribution.faults]:
        raise InvalidDataError(*faults)


@app.command(
    epilog="Example: deepbedmap fetch King2016Rutford (one survey); "
    "deepbedmap fetch 2011_Antarctica_TO.csv (one file); "
    "deepbedmap fetch highres --jobs 8 (a folder); "
    "deepbedmap fetch highres --bounds -1700000 -600000 -1200000 -100000 --dry-run (a box: what "
    "would be done); deepbedmap fetch King2016Rutford --offline (is it here, and right?)"
)
def fetch(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Datasets, files of theirs, or folders: highres, lowres, misc."),
    ] = None,
    bounds: Annotated[
        tuple[float, float, float, float] | None,
        typer.Option(
            metavar="XMIN YMIN XMAX YMAX",
            help="Box in metres, EPSG:3031: those datasets alone that touch it.",
        ),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Files fetched at once.")] = 4,
    per_host: Annotated[int, typer.Option(min=1, help="Of these, from one host.")] = 16,
    offline: Annotated[
        bool, typer.Option("--offline", help="Only check what is here; open no connection.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done; open no connection.")
    ] = False,
    again: Annotated[
        bool,
        typer.Option("--again", help="Replace what differs, or has changed where it came from."),
    ] = False,
    drop_archives: Annotated[
        bool, typer.Option("--drop-archives", help="Remove archives once they are unpacked.")
    ] = False,
    timeout: Annotated[float, typer.Option(help="Seconds without a byte to wait for.")] = 30.0,
    data_dir: DataDir = None,
    json: Annotated[bool, typer.Option("--json", help="With --dry-run: print JSON.")] = False,
) -> None:
    """Fetch files, verify their checksums, unpack archives, and print where the files are.

    They land in highres/, lowres/ and misc/ under --data-dir, else $DEEPBEDMAP_DATA_DIR, else in
    the checkout, else in the user's cache. What is here and right is not fetched again.

    A fetch that was cut off, even by SIGKILL, goes on where it stopped: run it again. What
    is not whole yet is called FILE.part. Two that run at once share the work. Each file gets a
    receipt, .fetched/FILE.json beside it: its checksum, where it came from and when. Where the
    registry has no checksum, a later fetch, and `deepbedmap verify`, go by the receipt.

    Files of NASA's Earthdata need a login, and pip install 'deepbedmap[earthdata]'; those that a
    person must ask for are told with what to do, and are checked once they are put in place.

    Proxies and certificates are taken from the environment: HTTPS_PROXY, HTTP_PROXY, NO_PROXY,
    REQUESTS_CA_BUNDLE.
    """
    if not names and bounds is None:
        raise typer.BadParameter("name what to fetch, or give --bounds", param_hint="NAMES")
    if dry_run and again:
        raise typer.BadParameter("not with --again", param_hint="--dry-run")
    if json and not dry_run:
        raise typer.BadParameter("only with --dry-run", param_hint="--json")
    import logging

    from deepbedmap import download

    if dry_run:
        _print_plan(download.plan(names or (), bounds=bounds, data_dir=data_dir), json)
        return
    logging.getLogger(download.__name__).setLevel(logging.INFO)
    for path in download.fetch(
        names or (),
        jobs,
        offline,
        bounds=bounds,
        data_dir=data_dir,
        per_host=per_host,
        timeout=timeout,
        keep_archives=not drop_archives,
        again=again,
    ):
        typer.echo(path)


def _print_plan(planned: list[Planned], json: bool) -> None:
    import dataclasses
    import json as json_module

    from rich.filesize import decimal

    from deepbedmap import download

    if json:
        rows = [{**dataclasses.asdict(one), "path": str(one.path)} for one in planned]
        typer.echo(json_module.dumps(rows, indent=2))
        return
    table = [
        [
            f"{one.path.parent.name}/{one.path.name}",
            f"{one.state}, {decimal(one.there)} are here" if one.there else one.state,
            "unknown" if one.bytes is None else decimal(one.bytes),
            one.url or one.remedy or "",
        ]
        for one in planned
    ]
    typer.echo(_columns(["file", "state", "size", "from"], table, widest=60))
    left = [one for one in planned if one.state in ("fetch", "go on", "login")]
    to_come = download.amount(one.bytes and one.bytes - one.there for one in left)
    typer.echo(f"{len(planned)} files, of which to fetch: {to_come}")


@app.command(epilog="Example: deepbedmap verify; deepbedmap verify highres King2016Rutford --json")
def verify(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Datasets, files of theirs, or folders; nothing for all."),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Files read at once.")] = 4,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Read the files that are here, and compare them with their checksums.

    Prints what differs from the registry or its receipt, what nothing tells the right bytes of,
    and what is here beside the files of the registry; and, of those named, what is missing. Exits
    with 1 where something differs. Nothing is changed.
    """
    import dataclasses
    import json as json_module
    from collections import Counter
    from typing import get_args

    from deepbedmap import download

    checked = download.verify(names or (), jobs, data_dir=data_dir)
    fields = ("path", "citekey", "state", "expected", "found")
    if json:
        rows = [{**dataclasses.asdict(one), "path": str(one.path)} for one in checked]
        kept = [{field: row[field] for field in fields} for row in rows]
        typer.echo(json_module.dumps(kept, indent=2))
    else:
        shown = {"differs", "unchecked", "extra", *(["missing"] if names else [])}
        for one in checked:
            if one.state in shown:
                said = [("expected", one.expected), ("found", one.found)]
                texts = ", ".join(f"{word} {text}" for word, text in said if text)
                typer.echo(f"{one.state}: {one.path}" + (f": {texts}" if texts else ""))
        states = Counter(one.state for one in checked)
        typer.echo(", ".join(f"{states[state]} {state}" for state in get_args(download.CheckState)))
    if any(one.state == "differs" for one in checked):
        raise typer.Exit(1)


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

    from deepbedmap import progress, repository
    from deepbedmap.points import read_points, write_points, write_survey
    from deepbedmap.surveys import deduplicate

    if out.suffix == ".parquet" and unique is None and engine == "native":
        name = Path(pipeline).name
        with progress.Bars(True, threading.Event()) as bars, bars.bar(name, None) as bar:
            written = write_survey(pipeline, out, season or None, bounds, bar.start)
        typer.echo(f"{out}: {written.picks} picks on {written.lines} lines")
        return
    picks = read_points(pipeline, engine, season or None, bounds)  # type: ignore[arg-type]
    if unique is not None:
        picks = deduplicate(picks, unique)
    with repository.beside(out) as part:
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
    from deepbedmap import repository
    from deepbedmap.crossovers import crossovers as cross
    from deepbedmap.crossovers import summarize
    from deepbedmap.points import read_points
    from deepbedmap.surveys import join_surveys

    surveys = {pipeline: read_points(pipeline, bounds=bounds) for pipeline in pipelines}
    picks = join_surveys(surveys).drop(columns="source")
    found = cross(picks, max_gap, within)
    with repository.beside(out) as part:
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
        typer.echo(_columns(summary.columns.to_list(), rows))


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
    write = None if by_region else _raster_writer(out)
    import logging

    from deepbedmap import grids, parts, progress, rasters, regions
    from deepbedmap.points import read_points
    from deepbedmap.surveys import join_surveys

    surveys = {name: read_points(name, season=season or None, bounds=bounds) for name in pipelines}
    picks = join_surveys(surveys) if len(surveys) > 1 else surveys.popitem()[1]
    if write is None:
        logging.getLogger(parts.__name__).setLevel(logging.INFO)
        with progress.steps("gridding") as tell:
            regions.write_grid(
                *(picks, out, spacing, tension, max_gap, region),
                layers=layers is not False,
                progress=tell,
            )
        z = rasters.chunked(rasters.open_raster(out, "z"))
    else:
        z = grids.grid_points(picks, spacing, tension, max_gap, region, method)  # type: ignore[arg-type]
        write(z, out)
    typer.echo(f"{out}: {z.sizes['y']} x {z.sizes['x']} cells, {int(z.count())} with a bed")


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
    write = _raster_writer(out)
    geoids = dict(item.partition("=")[::2] for item in geoid)
    if not all(name and file for name, file in geoids.items()):
        raise typer.BadParameter("expected NAME=FILE", param_hint="--geoid")
    import json

    from deepbedmap import citation, rasters
    from deepbedmap.drivers import RasterSource

    given = RasterSource(heights, variable).to_dask()
    if "band" in given.dims:
        raise typer.BadParameter("several rasters; name one", param_hint="--variable")
    made_of = {"sources": [citation.describe(heights, "heights")]}
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
    from deepbedmap import progress, repository, training_sets
    from deepbedmap.areas import TEST_AREAS
    from deepbedmap.inputs import Inputs

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
            training_sets.build(surveys, opened, out, progress=advance, **options)
        parts = training_sets.open_training_set(out)["split"].to_series().value_counts()
        typer.echo(f"{out}: {parts['train']} tiles to train on, {parts['validation']} to validate")
        return
    windows = training_sets.find(surveys, by=split, **options)  # type: ignore[arg-type]
    with repository.beside(out) as part:
        windows.to_file(part, layer=out.stem)
    typer.echo(f"{out}: {len(windows)} windows")


@app.command(
    epilog="Example: deepbedmap new Smith2024Thwaites --sample picks.csv --title 'Radar picks of "
    "Thwaites Glacier' --authors 'Smith, A.; Jones, B.' --licence CC-BY-4.0 --datum ellipsoid"
)
def new(
    citekey: Annotated[str, typer.Argument(help="A new name, such as Smith2024Thwaites.")],
    sample: Annotated[Path, typer.Option(help="The raw file: text with a record a line.")],
    title: Annotated[str | None, typer.Option(help="The dataset's published title.")] = None,
    authors: Annotated[str | None, typer.Option(help="'Family, Given; Family, Given'.")] = None,
    year: Annotated[int | None, typer.Option(help="Of publication.")] = None,
    version: Annotated[str | None, typer.Option(help="As its publisher calls it.")] = None,
    publisher: Annotated[str | None, typer.Option(help="Data centre.")] = None,
    folder: Annotated[str, typer.Option(help="highres, where surveys are.")] = "highres",
    location: Annotated[str | None, typer.Option(help="Place in words.")] = None,
    survey_type: Annotated[str | None, typer.Option(help="airborne, ground or seismic.")] = None,
    licence: Annotated[
        str | None, typer.Option(help="SPDX identifier such as CC-BY-4.0, or unknown.")
    ] = None,
    datum: Annotated[
        str | None, typer.Option(help="ellipsoid, EIGEN-GL04C, EIGEN-6C4 or unknown.")
    ] = None,
    firn: Annotated[
        bool | None, typer.Option("--firn/--no-firn", help="The bed allows for the firn layer.")
    ] = None,
    doi: Annotated[str | None, typer.Option(help="Of the data.")] = None,
    paper_doi: Annotated[str | None, typer.Option(help="Of the paper.")] = None,
    url: Annotated[str | None, typer.Option(help="Where the file can be fetched.")] = None,
    notes: Annotated[str | None, typer.Option(help="What a user should know.")] = None,
    crs: Annotated[str | None, typer.Option(help="Of x and y, such as EPSG:4326.")] = None,
    x: Annotated[str | None, typer.Option(help="Column of x or longitude.")] = None,
    y: Annotated[str | None, typer.Option(help="Column of y or latitude.")] = None,
    z: Annotated[str | None, typer.Option(help="Column of the bed.")] = None,
    surface: Annotated[str | None, typer.Option(help="Column; bed = surface - thickness.")] = None,
    thickness: Annotated[str | None, typer.Option(help="Column; see --surface.")] = None,
    down: Annotated[
        bool | None, typer.Option("--down/--up", help="--z is a depth, or an elevation.")
    ] = None,
    xy_units: Annotated[str | None, typer.Option(help="Of x and y: degrees, m or km.")] = None,
    units: Annotated[str | None, typer.Option(help="Of heights: m or km.")] = None,
    missing: Annotated[
        list[float] | None, typer.Option(help="A number that marks a missing value; nan: none.")
    ] = None,
    supersedes: Annotated[str | None, typer.Option(help="Citekey of what it replaces.")] = None,
    copy: Annotated[bool, typer.Option("--copy", help="Copy the file into highres/.")] = False,
    root: Annotated[Path | None, typer.Option(help="Repository; else this checkout.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Take every guess for right.")] = False,
) -> None:
    """Add a survey: its entry, its pipeline, a small test fixture, and the catalog.

    Looks at the file, says what it finds and what it guesses, and asks for what no flag tells.
    Who does not know a licence or a datum says unknown.
    """
    if folder != "highres":
        raise ValueError("--folder: surveys are in highres; write the entry of a grid by hand")
    from deepbedmap import contribution, registry

    answers: dict[str, Any] = {"title": title, "licence": licence, "vertical_datum": datum}
    answers |= {"authors": authors and authors.split(";"), "year": year, "location": location}
    answers |= {"doi": doi, "paper_doi": paper_doi, "url": url}
    questions: dict[str, tuple[str, Any]] = {
        "title": ("Title", str),
        "licence": ("Licence (such as CC-BY-4.0, or unknown)", contribution.licence_of),
        "vertical_datum": (
            f"Heights refer to ({', '.join(contribution.VERTICAL_DATUMS)} or unknown)",
            contribution.datum_of,
        ),
        "authors": ("Authors (Family, Given; Family, Given)", lambda text: text.split(";")),
        "year": ("Year of publication", lambda text: int(text) if text else None),
        "location": ("Place", str),
        "doi": ("DOI of the data", contribution.doi_of),
        "paper_doi": ("DOI of the paper", contribution.doi_of),
        "url": ("Address of the file", str),
    }
    needed = [name for name in ("title", "licence", "vertical_datum") if answers[name] is None]
    told: dict[str, Any] = {"x": x, "y": y, "z": z, "surface": surface, "thickness": thickness}
    told |= {"down": down, "crs": crs, "xy_units": xy_units, "units": units}
    told["missing"] = missing or None
    look = _settle(sample, told, yes, needed)
    if sys.stdin.isatty():
        for name, (question, reading) in questions.items():
            if name in needed or (answers[name] is None and not yes):
                answers[name] = _prompt(question, reading, None if name in needed else "")
    written = contribution.contribute(
        look,
        citekey,
        **answers,
        version=version,
        publisher=publisher,
        survey_type=survey_type,
        firn_correction=firn,
        notes=notes,
        supersedes=supersedes,
        copy=copy,
        root=root,
    )
    for path in written:
        typer.echo(path)
    dataset = registry.load(written[0])[citekey]
    typer.echo(f"{dataset.notes} Bounds: {dataset.bounds}")
    highres = written[0].parent / "highres"
    if not (highres / sample.name).exists():
        typer.echo(f"put {sample.name} into {highres}: its pipeline looks for it there")
    if dataset.licence is None:
        typer.echo("no licence is known, so the test fixture has its numbers cut to two digits")


def _settle(sample: Path, told: dict[str, Any], yes: bool, needed: list[str]) -> Sample:
    """Look at a sample until all that it leaves open is told and all that it guesses confirmed."""
    from deepbedmap.samples import inspect

    def flags(arguments: Iterable[str], word: str = " or ") -> str:
        names = {"vertical_datum": "--datum", "down": "--down or --up"}
        return word.join(names.get(each, f"--{each.replace('_', '-')}") for each in arguments)

    look = inspect(sample, **told)
    for finding in look.findings:
        typer.echo(f"found: {finding}")
    if yes or not sys.stdin.isatty():
        for guess in look.guesses:
            typer.echo(f"guessed: {guess.text}")
    if not sys.stdin.isatty():
        untold = [flags([name]) for name in needed]
        untold += [f"{flags(each.settled_by)} ({each.text})" for each in look.questions]
        if look.guesses and not yes:
            doubtful = dict.fromkeys(name for each in look.guesses for name in each.settled_by)
            untold.append(f"--yes to take the guesses for right (else {flags(doubtful, ', ')})")
        if untold:
            raise ValueError(f"tell what cannot be asked without a terminal: {'; '.join(untold)}")
        return look
    confirmed = {guess.text for guess in look.guesses if yes}
    while doubts := (*(g for g in look.guesses if g.text not in confirmed), *look.questions):
        doubt = doubts[0]
        guessed = doubt in look.guesses
        if guessed and typer.confirm(f"guessed: {doubt.text}. Is that so?", default=True):
            confirmed.add(doubt.text)
            continue
        name = doubt.settled_by[0]

        def reading(text: str, name: str = name) -> tuple[Any, Sample]:
            value: Any = text
            if name == "down":
                value = {"up": False, "down": True}.get(text, text)
            elif name == "missing":
                value = [float(number) for number in text.replace(",", " ").split()]
            return value, inspect(sample, **{**told, name: value})

        told[name], look = _prompt(flags([name]) if guessed else doubt.text, reading)
    return look


def _prompt(question: str, reading: Any, default: str | None = None) -> Any:
    """Ask until the answer can be read."""

    def read(text: str) -> Any:
        try:
            return reading(text.strip())
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None

    return typer.prompt(question, default=default, show_default=False, value_proc=read)


@app.command(epilog="Example: deepbedmap validate highres/2010tr.json picks.parquet")
def validate(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Files and folders; none: the whole repository.")
    ] = None,
    json: Json = False,
) -> None:
    """Check all of the repository, or files of one's own.

    It knows registries, pipelines, catalogs, schemas, picks, raw picks of CReSIS and Bedmap, grids
    and windows. Every fault is told in one run, a line each; the exit code is then 1. Neither the
    raw data nor a network is needed.
    """
    import dataclasses
    import json as json_module

    from deepbedmap import validation

    faults = validation.check(paths)
    if json:
        typer.echo(json_module.dumps([dataclasses.asdict(fault) for fault in faults], indent=2))
    else:
        for fault in faults:
            typer.echo(fault)
        files = len(validation.find_files(paths))
        said = f"{files} file{'s' * (files != 1)} checked: {len(faults) or 'no'} fault"
        typer.echo(said + "s" * (len(faults) > 1), err=bool(faults))
    if faults:
        raise typer.Exit(1)


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
    epilog="Example: deepbedmap train training/tiles.zarr --out model; "
    "deepbedmap train --config paper --epochs 20 --out model-paper --device cuda; "
    "deepbedmap train --out model --resume (go on); "
    "torchrun --nproc-per-node 4 --no-python deepbedmap train --out model (on four GPUs)"
)
def train(
    out: Annotated[Path, typer.Option(help="Folder for what the training leaves.")],
    training_set: Annotated[
        Path | None,
        typer.Argument(help="A .zarr store of `deepbedmap tiles`; else training/tiles.zarr."),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            metavar="default|paper|FILE.toml",
            help="A preset, or a file of settings. With --resume: those of the training.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the training in the folder.")
    ] = False,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs in all, instead of the configuration's.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda or cuda:N; by default a GPU, if there is one.")
    ] = None,
) -> None:
    """Train a network on a training set.

    The folder gets best.safetensors, the network of the best epoch by the validation tiles, which
    `deepbedmap predict` takes; last.safetensors, from which a training goes on that was stopped,
    even by SIGKILL; and metrics.jsonl, a line an epoch. Ctrl-C keeps the state, and exits with 130.

    A tile counts where its bed was measured. An input with a gap counts as absent from that tile.
    """
    # Before torch is loaded: threads that spin while they wait slow a busy machine down.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from deepbedmap import progress
    from deepbedmap.model import dataset as tiles
    from deepbedmap.model import distributed, training

    settings = _settings(config, epochs, out if resume else None)
    try:
        place = distributed.place_of(device)
    except RuntimeError as error:
        raise typer.BadParameter("expected cpu, cuda or cuda:N", param_hint="--device") from error
    opened = _training_set(training_set)
    speaks = os.environ.get("RANK", "0") == "0"
    epoch: int | None = None

    def tell(step: int, steps: int, row: Mapping[str, Any]) -> None:
        nonlocal epoch
        if speaks:
            rmse = row.get("validation_rmse", row.get("train_rmse"))
            said = f"loss {row['g_loss']:.4g}, RMSE {rmse:.1f} m" if row else ""
            bar(step, steps, said)
            # What was there at the first step has been said by the training that was stopped.
            if epoch not in (None, row.get("epoch", 0)):
                _say_epoch(row)
        epoch = row.get("epoch", 0)

    try:
        with progress.steps("training") as bar:
            parts = tiles.load(opened, place)
            fitted = training.fit(
                settings,
                parts[0],
                parts[1],
                out,
                resume=resume,
                progress=tell,
                device=device,
                provenance=tiles.provenance_of(opened),
            )
    except KeyboardInterrupt as stop:
        typer.echo(
            f"interrupted: {stop}; --resume goes on" if str(stop) else "interrupted", err=True
        )
        raise typer.Exit(130) from None
    if not speaks:
        return
    last = fitted.history[-1]
    if epoch not in (None, last["epoch"]):
        _say_epoch(last)
    best = min(
        (row for row in fitted.history if "validation_rmse" in row),
        key=lambda row: row["validation_rmse"],
    )
    typer.echo(
        f"{fitted.best}: epoch {best['epoch']} of {last['epoch']}, validation RMSE "
        f"{best['validation_rmse']:.1f} m (bicubic prior {best['bicubic_rmse']:.1f} m)"
    )


@app.command(
    epilog="Example: deepbedmap tune training/tiles.zarr --trials 40 --out study; "
    "deepbedmap tune --space space.toml --config paper --trials 20 --timeout 86400 --out study; "
    "deepbedmap train --config study/best.toml --out model"
)
def tune(
    out: Annotated[Path, typer.Option(help="Folder of the study, new or to go on with.")],
    trials: Annotated[int, typer.Option(min=1, help="Trials in all.")],
    training_set: Annotated[
        Path | None,
        typer.Argument(help="A .zarr store of `deepbedmap tiles`; else training/tiles.zarr."),
    ] = None,
    space: Annotated[
        str, typer.Option(metavar="default|FILE.toml", help="Which settings are varied.")
    ] = "default",
    config: Annotated[
        str,
        typer.Option(metavar="default|paper|FILE.toml", help="What the space leaves as it is."),
    ] = "default",
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Seconds after which no trial is begun.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the proposed settings.")] = 0,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda or cuda:N; by default a GPU, if there is one.")
    ] = None,
    json: Json = False,
) -> None:
    """Find the settings of a training that give the least error on the validation tiles.

    A space has the configuration's sections and keys; each key has a range or choices:

        optimizer.learning_rate = { low = 3e-4, high = 6e-3, log = true }

    The folder gets best.toml, which `deepbedmap train --config` takes; study.db, an Optuna study;
    and a folder for each trial. Trials that are behind are cut short. A study that was stopped,
    even by SIGKILL, goes on when it is started again, and so do several processes at once.

    The best of many trials looks better than it is: score it where nothing was tuned.
    """
    # Before torch is loaded: threads that spin while they wait slow a busy machine down.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import json as json_module

    from deepbedmap.model import configuration, distributed, tuning
    from deepbedmap.model import dataset as tiles

    base = configuration.load(config)
    varied = tuning.load_space(space, base)
    try:
        place = distributed.place_of(device)
    except RuntimeError as error:
        raise typer.BadParameter("expected cpu, cuda or cuda:N", param_hint="--device") from error
    opened = _training_set(training_set)

    def tell(row: Mapping[str, Any]) -> None:
        score = "no score" if row["rmse"] is None else f"{row['rmse']:.1f} m"
        typer.echo(f"trial {row['trial']}: {row['state']}, {score}", err=True)

    learnt, judged = tiles.load(opened, place)
    try:
        tuned = tuning.tune(
            varied,
            learnt,
            judged,
            out,
            trials=trials,
            base=base,
            timeout=timeout,
            seed=seed,
            device=device,
            provenance=tiles.provenance_of(opened),
            report=tell,
        )
    except KeyboardInterrupt:
        typer.echo("interrupted: the same command goes on", err=True)
        raise typer.Exit(130) from None
    if json:
        typer.echo(json_module.dumps(tuned.trials, indent=2))
        return
    rows = [
        [
            str(row["trial"]),
            row["state"],
            "" if row["rmse"] is None else f"{row['rmse']:.1f}",
            str(row["epochs"]),
            ", ".join(f"{name} {_in_figures(value)}" for name, value in row["settings"].items()),
        ]
        for row in tuned.trials
    ]
    typer.echo(_columns(["trial", "state", "RMSE (m)", "epochs", "settings"], rows, widest=400))
    typer.echo(f"{tuned.best}: {tuned.checkpoint.parent.name} is the best trial")


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
    from deepbedmap.model import dem

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
            paths = dem.make_dem(
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


@app.command(
    epilog="Example: deepbedmap evaluate bed.tif --points highres/20xx_Antarctica_TO.json; "
    "deepbedmap evaluate bed.nc --points bedmap3 --season BAS_2019_Thwaites_AIR_BM3 "
    "--prior lowres/bedmap2_bed.tif --training training/tiles.zarr --baseline "
    "bedmachine=Morlighem2025BEDMACHINE --geoid EIGEN-6C4=geoid.tif --velocity velocity.nc; "
    "deepbedmap evaluate seed1.tif seed2.tif seed3.tif --points picks.parquet (an ensemble); "
    "deepbedmap evaluate demo-output/bed.tif --benchmark made-up-glacier --results results.csv"
)
def evaluate(
    dem: Annotated[
        list[Path],
        typer.Argument(
            metavar="DEM...",
            help="A bed elevation grid, .nc, .tif or .zarr; several are members of an ensemble.",
        ),
    ],
    points: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ENTRY",
            help="Test picks: a survey's pipeline, catalog entry, citekey or .parquet; may be "
            "given again.",
        ),
    ] = None,
    season: Annotated[
        list[str] | None,
        typer.Option(help="A raw file's name, its stem or a glob; may be given again."),
    ] = None,
    bounds: Box = None,
    prior: Annotated[
        str | None,
        typer.Option(metavar="FILE|CITEKEY", help="The prior, scored bicubically interpolated."),
    ] = None,
    training: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE|ENTRY",
            help="Where the DEM was trained: a training set (.zarr), footprints (.geojson), a "
            "checkpoint, or picks; may be given again.",
        ),
    ] = None,
    gridding: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ENTRY", help="Picks whose gridding is scored; else those of --training."
        ),
    ] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE|CITEKEY", help="Another bed, scored beside; may be given again."
        ),
    ] = None,
    velocity: Annotated[
        Path | None, typer.Option(help="Ice velocity, for classes by speed: two bands, or vx, vy.")
    ] = None,
    surface: Annotated[
        Path | None,
        typer.Option(
            help="Ice surface, less the air in firn: with --velocity and --balance, whether the "
            "ice above the DEM conserves mass."
        ),
    ] = None,
    balance: Annotated[
        Path | None,
        typer.Option(help="SMB - BMB - dH/dt; its units say kg m-2 a-1, m w.e. a-1 or m ice a-1."),
    ] = None,
    gamma: Annotated[
        float, typer.Option(help="Ratio of depth-mean to surface velocity, 0 to 1.")
    ] = 1.0,
    mass_map: Annotated[
        Path | None, typer.Option(help="A .tif that gets the map of what is not conserved.")
    ] = None,
    datum: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=DATUM",
            help="What heights refer to where nothing states it: of picks, dem or a baseline.",
        ),
    ] = None,
    geoid: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE", help="A geoid's height, to bring heights to the picks' datum."
        ),
    ] = None,
    buffer: Annotated[
        float | None,
        typer.Option(min=0, help="Metres around training tiles and picks; 11,000 by default."),
    ] = None,
    allow_leak: Annotated[
        bool, typer.Option("--allow-leak", help="Score test picks that are within that, marked.")
    ] = False,
    registry: Annotated[
        Path | None, typer.Option(help="A data_list.yml, or its folder; else the package's own.")
    ] = None,
    benchmark: Annotated[
        str | None, typer.Option(help="Score by its picks, box and baselines; see docs/.")
    ] = None,
    results: Annotated[
        Path | None, typer.Option(help="With --benchmark: a .csv that gets a row.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="A page with all tables and figures.")
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False,
    json: Json = False,
) -> None:
    """Score a bed elevation grid at survey picks, beside baselines, at the same picks.

    Each score has a 95 % interval: whole flight lines are drawn again and again. Each row says
    whether the picks are independent of its prior and of its training: yes, no or unknown, and
    why. Picks inside training tiles, or within the buffer, are refused.
    """
    if benchmark is None and not points:
        raise typer.BadParameter("needed without --benchmark", param_hint="--points")
    if benchmark is None and results is not None:
        raise typer.BadParameter("only with --benchmark", param_hint="--results")
    if benchmark is not None and (bounds is not None or season):
        raise typer.BadParameter("it has its own box and picks", param_hint="--benchmark")
    for option, given in (("surface", surface), ("balance", balance), ("mass-map", mass_map)):
        if given is not None and None in (surface, velocity, balance):
            needed = "needs --surface, --velocity and --balance"
            raise typer.BadParameter(needed, param_hint=f"--{option}")
    if not 0 < gamma <= 1:
        raise typer.BadParameter("expected more than 0, at most 1", param_hint="--gamma")
    if mass_map is not None and mass_map.suffix != ".tif":
        raise typer.BadParameter("expected a name that ends in .tif", param_hint="--mass-map")
    import dataclasses
    import json as json_module
    import shlex

    from deepbedmap import registry as registries
    from deepbedmap.model import benchmark as benchmarks
    from deepbedmap.model import comparison
    from deepbedmap.model.independence import BUFFER

    named = {
        option: _pairs(given, option)
        for option, given in (("baseline", baseline), ("datum", datum), ("geoid", geoid))
    }
    if report is not None:
        from deepbedmap.report import report_evaluation, require_place

        require_place(report)
    defined = None
    if benchmark is not None:
        defined = benchmarks.load(benchmark)
        points, bounds = list(points or defined.points), defined.bounds
        prior = prior or defined.prior
        gridding = gridding or ([defined.gridding] if defined.gridding else [])
        defined.require_files(*points, *([prior] if prior else []), *gridding)
        buffer = defined.buffer
    picks = comparison.read_picks(points or (), season, bounds)
    if defined is not None:
        defined.require_picks(picks)
    beside = Path((points or [""])[0]).absolute().parent.parent / "data_list.yml"
    if registry is None and beside.is_file():
        registry = beside
    trained = comparison.read_training(training or ())
    others: dict[str, Any] = {
        "prior": prior,
        "gridding": comparison.read_picks(gridding) if gridding else trained.picks,
        "baselines": named["baseline"],
        "registry": registries.load(registry),
        "datums": named["datum"],
        "geoids": named["geoid"],
    }
    conserved = None
    if surface is not None and velocity is not None and balance is not None:
        conserved = comparison.conserve(
            dem[0], surface, velocity, balance, gamma=gamma, bounds=bounds, path=mass_map
        )
    rows = comparison.compare(
        [*dem],
        picks,
        training=trained,
        velocity=velocity,
        buffer=BUFFER if buffer is None else buffer,
        allow_leak=allow_leak,
        **others,
    )
    rows[0] = dataclasses.replace(rows[0], mass=conserved)
    if defined is not None and results is not None:
        benchmarks.add_results([defined.result(rows[0])], results)
    if report is not None:
        names = ", ".join(Path(entry).stem for entry in points or ())
        command = shlex.join(["deepbedmap", *sys.argv[1:]])
        report_evaluation(report, rows, dem[0], picks, picks=names, command=command, **others)
    if csv:
        tables = [row.flat() if defined is None else defined.result(row) for row in rows]
        typer.echo(benchmarks.as_csv(tables), nl=False)
    elif json:
        said = [_score_record(dataclasses.asdict(row)) for row in rows]
        said[0]["baselines"] = said[1:]
        if defined is not None:
            said[0] |= {"benchmark": defined.name, "version": defined.version}
        typer.echo(json_module.dumps(said[0], indent=2, allow_nan=False))
    else:
        typer.echo(_score_table(rows))
        if results is not None:
            typer.echo(f"{results}: a row more")
        if report is not None:
            typer.echo(f"{report}: the same with figures")


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
    from deepbedmap.figures import opening

    if kind is not None and kind not in get_args(figures.Kind):
        expected = ", ".join(get_args(figures.Kind))
        raise typer.BadParameter(f"expected one of {expected}", param_hint="--kind")
    path = out or Path(f"{Path(names[0]).stem}_map.png")
    figures.require_suffix(path)
    opened = {name: opening.open_data(name, variable, bounds, crs) for name in names}
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
    typer.echo(f"{scores['seconds']:.0f} s; see {out}/report.html and {out}/scores.json")


def _pairs(given: list[str] | None, option: str) -> dict[str, str]:
    """Read NAME=VALUE of an option that may be given several times."""
    pairs = [item.partition("=")[::2] for item in given or ()]
    if not all(name and value for name, value in pairs):
        raise typer.BadParameter("expected NAME=...", param_hint=f"--{option}")
    return dict(pairs)


def _score_record(row: dict[str, Any]) -> dict[str, Any]:
    """A row of scores as JSON has it: the scores first, and null for what is not a number."""
    import math

    def known(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: known(part) for key, part in value.items()}
        if isinstance(value, list):
            return [known(part) for part in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    record: dict[str, Any] = known({**row.pop("scores"), **row})
    return record


def _score_table(rows: list[Row]) -> str:
    """Scores of several beds, for a person to read."""
    first = rows[0].scores
    lines = f" on {first.lines:,} lines" if first.lines else ""
    told = [f"{first.picks:,} picks{lines}; {first.outside:,} more where a bed has a gap"]
    header = ["", "RMSE (m)", "MAE (m)", "bias (m)", "less bias (m)", "R2", "roughness"]
    metrics = ("rmse", "mae", "bias", "bias_removed_rmse", "r2", "roughness_ratio")
    table = []
    for row in rows:
        scores = row.scores
        cells = [
            _with_interval(getattr(scores, name), scores.intervals.get(name), 2 if n > 3 else 1)
            for n, name in enumerate(metrics)
        ]
        verdicts = (row.independent_of_prior.answer, row.independent_of_training.answer)
        table.append([row.name, *cells, *verdicts])
    told.append(_columns([*header, "new to prior", "new to training"], table))
    quantiles = [
        [row.name, *(f"{value:.1f}" for value in row.scores.quantiles.values())] for row in rows
    ]
    shares = [f"{100 * float(q):g} %" for q in first.quantiles]
    told += ["", _columns(["error (m), quantiles", *shares], quantiles)]
    if any(row.resolution.windows or row.resolution.sill is not None for row in rows):
        told += ["", _resolution_table(rows)]
    for name, unit in (("distance", "m"), ("speed", "m a-1"), ("relief", "m")):
        if name in first.strata:
            classes = list(zip(*(row.scores.strata[name] for row in rows), strict=True))
            body = [
                [
                    _class_name(stratum[0]),
                    f"{stratum[0].picks:,}",
                    *(f"{one.scores.rmse:.1f}" if one.scores else "" for one in stratum),
                ]
                for stratum in classes
                if stratum[0].picks
            ]
            names = [f"{name} ({unit})", "picks", *(f"{row.name}, RMSE (m)" for row in rows)]
            told += ["", _columns(names, body, widest=40)]
    told.append("")
    if (ensemble := rows[0].ensemble) is not None:
        fair = "" if ensemble.crps_fair is None else f" (fair {ensemble.crps_fair:.1f} m)"
        told.append(
            f"ensemble of {ensemble.members}: CRPS {ensemble.crps:.1f} m{fair}, spread "
            f"{ensemble.spread:.1f} m, RMSE of the mean {ensemble.skill:.1f} m, "
            f"{ensemble.coverage_90:.0%} of picks in the 90 % interval"
        )
    if (mass := rows[0].mass) is not None:
        told.append(
            f"mass not conserved: RMS {mass.rms:.2f}, median {mass.median:.2f}, MAD {mass.mad:.2f} "
            f"m of ice a year, beyond {mass.large:g} in {mass.share_large:.1%} of {mass.cells:,} "
            f"cells; gamma {mass.gamma:g}"
        )
    for row in rows:
        for what, verdict in (
            ("prior", row.independent_of_prior),
            ("training", row.independent_of_training),
        ):
            told.append(f"{row.name}, new to its {what}: {verdict.answer}, {verdict.reason}")
    told.append(first.remark or "in brackets: 95 % of 1,000 resamples of the flight lines")
    return "\n".join(told)


def _resolution_table(rows: list[Row]) -> str:
    """What beds hold along the lines of the picks, for a person to read."""
    header = ["along lines", "resolved down to (m)", "coherence needed", "errors' range (m)"]
    body = []
    for row in rows:
        found = row.resolution
        told = (found.resolved_wavelength, found.threshold, found.range, found.sill)
        formats = (",.0f", ".2f", ",.0f", ",.0f")
        cells = [
            "" if one is None else f"{one:{to}}" for one, to in zip(told, formats, strict=True)
        ]
        body.append([row.name, *cells, found.remark or ""])
    return _columns([*header, "sill (m2)", ""], body, widest=60)


def _with_interval(value: float, interval: Any, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return f"{text} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]" if interval else text


def _class_name(stratum: Any) -> str:
    if stratum.low is None:
        return "unknown"
    high = stratum.high
    return f"{stratum.low:g} and more" if high is None else f"{stratum.low:g} to {high:g}"


def _settings(config: str | None, epochs: int | None, going_on: Path | None) -> Configuration:
    """Settings of a training: those named, or those of the training that goes on."""
    from deepbedmap.model import checkpoints, configuration

    if config is None and going_on is not None and (going_on / "last.safetensors").exists():
        state = checkpoints.load_state(going_on / "last.safetensors")
        settings = configuration.of(state.metadata["configuration"])
    else:
        settings = configuration.load(config or "default")
    if epochs is None:
        return settings
    schedule = settings.schedule
    first = min(schedule.pretraining_epochs, epochs) if schedule.adversarial_epochs else epochs
    return settings.with_values(
        schedule__pretraining_epochs=first, schedule__adversarial_epochs=epochs - first
    )


def _training_set(path: Path | None) -> xr.Dataset:
    """Open a training set; by default what the catalog's entry of that name is."""
    if path is not None:
        from deepbedmap.training_sets import open_training_set

        return open_training_set(path)
    from deepbedmap.catalog import bundled

    opened: xr.Dataset = bundled().training.tiles.read()
    return opened


def _say_epoch(row: Mapping[str, Any]) -> None:
    """Say a line where there is no terminal, and so no bar."""
    if not sys.stderr.isatty():
        typer.echo(f"epoch {row['epoch']}: {_losses(row)}", err=True)


def _losses(row: Mapping[str, Any]) -> str:
    """The newest losses, in a few words."""
    said = [f"{name} {row[name]:.4g}" for name in ("g_loss", "d_loss") if name in row]
    said += [
        f"{name} {row[name]:.1f} m" for name in ("train_rmse", "validation_rmse") if name in row
    ]
    return ", ".join(said)


def _raster_writer(out: Path) -> Any:
    """What writes a raster under this name; chosen before anything is computed."""
    if out.suffix not in (".nc", ".tif"):
        raise typer.BadParameter("expected a name that ends in .nc or .tif", param_hint="--out")
    from deepbedmap import rasters

    return rasters.write_netcdf if out.suffix == ".nc" else rasters.write_geotiff


def _dataset_table(table: pd.DataFrame, columns: str) -> str:
    rows = []
    known = table.astype(object).where(table.notna(), None)
    for record in known.rename(columns={"vertical_datum": "datum"}).to_dict("records"):
        record["resolution"] = record["resolution"] and f"{record['resolution']:g} m"
        record["epoch"] = record["epoch"] and _years(record["epoch"])
        cells = [record[column] for column in columns.split()]
        rows.append(["unknown" if cell is None else str(cell) for cell in cells])
    return _columns(columns.split(), rows)


def _columns(header: list[str], rows: list[list[str]], widest: int = 26) -> str:
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


def _years(epoch: tuple[int, int]) -> str:
    return str(epoch[0]) if epoch[0] == epoch[1] else f"{epoch[0]}-{epoch[1]}"


def _page(dataset: Dataset, listing: Registry) -> str:
    """All that is known of a dataset, for a person to read."""
    import textwrap
    from dataclasses import asdict

    from deepbedmap import citation

    lines = [dataset.citekey, *textwrap.wrap(dataset.title, 100)]
    if dataset.status in ("superseded", "retired", "withdrawn"):
        successor = dataset.superseded_by
        use = f"; use {successor} (`deepbedmap show {successor}`)" if successor else ""
        lines.append(f"This dataset is {dataset.status}{use}.")
    lines.append("")

    said: dict[str, Any] = asdict(dataset)
    for name in ("citekey", "title", "files"):
        del said[name]
    said["authors"] = "; ".join(dataset.authors) or None
    for name in ("doi_dataset", "doi_literature"):
        said[name] = said[name] and f"https://doi.org/{said[name]}"
    if dataset.paper:
        said["paper"] = citation.cite(listing, dataset.citekey, "text").splitlines()[-1]
    if dataset.bounds:
        said["bounds"] = f"{' '.join(f'{edge:.0f}' for edge in dataset.bounds)} (m, EPSG:3031)"
    if dataset.resolution:
        said["resolution"] = f"{dataset.resolution:g} m"
    if dataset.epoch:
        said["epoch"] = _years(dataset.epoch)
    absent = dict.fromkeys(("pipelines", "instructions", "notes", "superseded_by"), "none")
    for name, value in said.items():
        text = absent[name] if name in absent and value in (None, ()) else _in_words(value)
        label = f"{name.replace('_', ' '):17}"
        lines += textwrap.wrap(f"{label} {text}", 100, subsequent_indent=" " * 18)

    rows = [
        [
            file.filename,
            "unknown" if file.bytes is None else f"{file.bytes:,}",
            f"{file.sha256[:8]}..." if file.sha256 else "unknown",
            file.access if file.urls else "ask for it",
        ]
        for file in dataset.files
    ]
    lines += ["", f"files ({len(rows)})" if rows else "files: their names are not known"]
    if rows:
        lines.append(_columns(["name", "bytes", "sha256", "access"], rows[:_MOST_FILES]))
    if len(rows) > _MOST_FILES:
        lines.append(f"and {len(rows) - _MOST_FILES} more (--json lists all)")
    return "\n".join(lines)


def _in_figures(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _in_words(value: Any) -> str:
    if value in (None, ()):
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, dict):
        return "; ".join(f"{k.replace('_', ' ')}: {_in_words(part)}" for k, part in value.items())
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
