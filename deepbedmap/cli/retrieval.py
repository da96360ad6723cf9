"""Fetch files, and verify those on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from deepbedmap.cli.options import DataDir, Json, app, in_columns

if TYPE_CHECKING:
    from deepbedmap.download.planning import Planned


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
    typer.echo(in_columns(["file", "state", "size", "from"], table, widest=60))
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
