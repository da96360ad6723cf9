"""List, search, show and cite datasets; fetch their files, and verify those on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from deepbedmap.cli.options import (
    Box,
    DataDir,
    Json,
    RegistryFile,
    command,
    complete_citekey,
    is_quiet,
    print_table,
    wrapped,
)

if TYPE_CHECKING:
    from deepbedmap.download.checking import Checked
    from deepbedmap.download.planning import Planned
    from deepbedmap.registry.listing import Registry
    from deepbedmap.registry.records import Dataset

_MOST_FILES = 10

Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="WORD", help="Words of title, authors, place, years, DOI or names of files."
    ),
]
LonLat = Annotated[
    tuple[float, float, float, float] | None,
    typer.Option(
        metavar="LONMIN LATMIN LONMAX LATMAX",
        help="Box in degrees; with LONMIN > LONMAX across the date line.",
    ),
]
Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="CITEKEY|FILE",
        autocompletion=complete_citekey,
        help="Datasets, names of their files, or grids, predictions, tables of picks (.parquet) "
        "and checkpoints made of them.",
    ),
]
Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NAME",
        autocompletion=complete_citekey,
        help="Datasets, their files, or folders: highres, lowres, misc.",
    ),
]


@command("deepbedmap list", name="list")
def list_datasets(json: Json = False) -> None:
    """List all datasets of the registry."""
    from deepbedmap import registry

    rows = registry.load().find()
    if json:
        typer.echo(_as_json(rows))
    else:
        _print_datasets(rows, "citekey folder version status resolution licence datum files")


@command(
    "deepbedmap search rutford --folder highres",
    "deepbedmap search --lonlat -120 -80 -90 -70 --licence CC-BY-4.0",
)
def search(
    text: Words = None,
    bounds: Box = None,
    lonlat: LonLat = None,
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
    """Search datasets by words, place or kind of data.

    Datasets without known bounds match any place; they are listed separately.
    """
    from deepbedmap import registry

    words = " ".join(text) if text else None
    rows = registry.load().find(words, bounds, folder, licence, datum, crs, status, lonlat)
    if json:
        typer.echo(_as_json(rows))
        return
    if not rows:
        typer.echo("no dataset fits; `deepbedmap list` shows all")
        return
    columns = "citekey folder location epoch status licence datum files"
    placed = [row for row in rows if row["bounds_known"] or not (bounds or lonlat)]
    if placed:
        _print_datasets(placed, columns)
    if anywhere := [row for row in rows if row not in placed]:
        typer.echo(f"place unknown ({len(anywhere)}):")
        _print_datasets(anywhere, columns)
    for row in rows:
        if names := row["matching_files"]:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            typer.echo(f"{row['citekey']} has {', '.join(names[:3])}{more}")


@command("deepbedmap show King2016Rutford")
def show(
    citekey: Annotated[
        str, typer.Argument(help="Name of the dataset.", autocompletion=complete_citekey)
    ],
    json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
) -> None:
    """Show what the registry holds on a dataset."""
    import dataclasses
    import json as json_module

    from deepbedmap import registry

    listing = registry.load()
    dataset = registry.show(citekey, registry=listing)
    if json:
        typer.echo(json_module.dumps(dataclasses.asdict(dataset), indent=2, ensure_ascii=False))
    else:
        _print_page(dataset, listing)


@command("deepbedmap cite King2016Rutford bed.nc >> references.bib")
def cite(
    what: Sources,
    style: Annotated[str, typer.Option("--format", help="bibtex, text or csl-json.")] = "bibtex",
    registry: RegistryFile = None,
) -> None:
    """Cite datasets and their papers, or all datasets behind a file, each once.

    A source that is not in the registry is named on standard error, and the exit code is 1: the
    citation is then incomplete.
    """
    from deepbedmap.registry import lookup

    try:
        citation = lookup.cite(what, style, registry=registry)  # type: ignore[arg-type]
    except lookup.IncompleteCitationError as error:
        typer.echo(error.citation, nl=False)
        raise
    typer.echo(citation, nl=False)


@command(
    "deepbedmap fetch King2016Rutford  # one survey",
    "deepbedmap fetch 2011_Antarctica_TO.csv  # one file",
    "deepbedmap fetch highres --jobs 8  # a folder",
    "deepbedmap fetch highres --bounds -1700000 -600000 -1200000 -100000 --dry-run  # what "
    "would be done in a box",
    "deepbedmap fetch King2016Rutford --offline  # is it here, and correct?",
)
def fetch(
    names: Names = None,
    bounds: Annotated[
        tuple[float, float, float, float] | None,
        typer.Option(
            metavar="XMIN YMIN XMAX YMAX",
            help="Box in metres, EPSG:3031: only datasets that touch it.",
        ),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Files fetched at once.")] = 4,
    per_host: Annotated[int, typer.Option(min=1, help="Of these, from one host.")] = 16,
    offline: Annotated[
        bool, typer.Option("--offline", help="Only check what is here; open no connection.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what would be done; open no connection.")
    ] = False,
    again: Annotated[
        bool,
        typer.Option("--again", help="Replace files that differ, or have changed at their source."),
    ] = False,
    drop_archives: Annotated[
        bool, typer.Option("--drop-archives", help="Remove archives once they are unpacked.")
    ] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the next byte.")] = 30.0,
    data_dir: DataDir = None,
    json: Annotated[bool, typer.Option("--json", help="With --dry-run: print JSON.")] = False,
) -> None:
    """Fetch files, verify their checksums, unpack archives, and print where the files are.

    They land in highres/, lowres/ and misc/ under --data-dir, else $DEEPBEDMAP_DATA_DIR, else in
    the checkout, else in the user's cache. Files that are here and correct are not fetched again.

    An interrupted fetch, even by SIGKILL, resumes when it is run again. Until a file is complete
    it is called FILE.part. Two fetches that run at once share the work. Each file gets a receipt
    next to it, .fetched/FILE.json: its checksum, where it came from and when. Where the registry
    has no checksum, later fetches and `deepbedmap verify` check the file against its receipt.

    Files of NASA's Earthdata need a login, and pip install 'deepbedmap[earthdata]'. For files that
    must be requested from a person, the message says what to do; they are checked once they are
    in place.

    Proxies and certificates are taken from the environment: HTTPS_PROXY, HTTP_PROXY, NO_PROXY,
    REQUESTS_CA_BUNDLE.
    """
    if not names and bounds is None:
        raise typer.BadParameter("name what to fetch, or give --bounds", param_hint="NAMES")
    if dry_run and again:
        raise typer.BadParameter("not with --again", param_hint="--dry-run")
    if json and not dry_run:
        raise typer.BadParameter("only with --dry-run", param_hint="--json")
    from deepbedmap import download

    if dry_run:
        _print_plan(download.plan(names or (), bounds=bounds, data_dir=data_dir), json)
        return
    _report_progress_of(download.__name__)
    options: dict[str, Any] = {"bounds": bounds, "data_dir": data_dir, "per_host": per_host}
    options |= {"timeout": timeout, "keep_archives": not drop_archives, "again": again}
    for path in download.fetch(names or (), jobs, offline, **options):
        typer.echo(path)


@command("deepbedmap verify", "deepbedmap verify highres King2016Rutford --json")
def verify(
    names: Names = None,
    jobs: Annotated[int, typer.Option(min=1, help="Files read at once.")] = 4,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Compare the files on disk with their checksums.

    Prints files that differ from the registry or from their receipt, files that have no checksum
    to compare with, and files that the registry does not list; of those named, also the missing
    ones. Exits with 1 where a file differs. Nothing is changed.
    """
    import dataclasses
    import json as json_module

    from deepbedmap import download

    checked = download.verify(names or (), jobs, data_dir=data_dir)
    if json:
        fields = ("path", "citekey", "state", "expected", "found")
        rows = [{**dataclasses.asdict(one), "path": str(one.path)} for one in checked]
        kept = [{field: row[field] for field in fields} for row in rows]
        typer.echo(json_module.dumps(kept, indent=2))
    else:
        _print_states(checked, with_missing=bool(names))
    if any(one.state == "differs" for one in checked):
        raise typer.Exit(1)


def _as_json(rows: list[dict[str, Any]]) -> str:
    """Write rows as ``DataFrame.to_json(orient="records", indent=2)`` does, without pandas."""
    import json as json_module
    import re

    typed = [
        {**row, "resolution": None if row["resolution"] is None else float(row["resolution"])}
        for row in rows
    ]
    text = json_module.dumps(typed, indent=2, separators=(",", ":")).replace("/", "\\/")
    text = re.sub(r'^( *)("\w+":)\[\](,?)$', r"\1\2[\n\n\1]\3", text, flags=re.MULTILINE)
    return text if rows else "[\n\n]"


def _print_datasets(rows: list[dict[str, Any]], columns: str) -> None:
    table = []
    for row in rows:
        cells = dict(row)
        cells["datum"] = row["vertical_datum"]
        cells["resolution"] = row["resolution"] and f"{row['resolution']:g} m"
        cells["epoch"] = row["epoch"] and _years(row["epoch"])
        named = [cells[column] for column in columns.split()]
        table.append(["unknown" if cell is None else str(cell) for cell in named])
    print_table(columns.split(), table)


def _years(epoch: tuple[int, int]) -> str:
    return str(epoch[0]) if epoch[0] == epoch[1] else f"{epoch[0]}-{epoch[1]}"


def _print_page(dataset: Dataset, listing: Registry) -> None:
    """Print the entry of a dataset, for a person to read."""
    lines = [dataset.citekey, *wrapped(dataset.title)]
    if dataset.status in ("superseded", "retired", "withdrawn"):
        successor = dataset.superseded_by
        use = f"; use {successor} (`deepbedmap show {successor}`)" if successor else ""
        lines.append(f"This dataset is {dataset.status}{use}.")
    lines.append("")
    for name, text in _entry(dataset, listing).items():
        lines += wrapped(text, f"{name.replace('_', ' '):17} ", 18)
    typer.echo("\n".join(lines))
    rows = [
        [
            file.filename,
            "unknown" if file.bytes is None else f"{file.bytes:,}",
            f"{file.sha256[:8]}..." if file.sha256 else "unknown",
            file.access if file.urls else "on request",
        ]
        for file in dataset.files
    ]
    typer.echo(f"\nfiles ({len(rows)})" if rows else "\nfiles: their names are not known")
    if rows:
        print_table(["name", "bytes", "sha256", "access"], rows[:_MOST_FILES])
    if len(rows) > _MOST_FILES:
        typer.echo(f"and {len(rows) - _MOST_FILES} more (--json lists all)")


def _entry(dataset: Dataset, listing: Registry) -> dict[str, str]:
    """Return the fields of a dataset in words, without those that head its page."""
    from dataclasses import asdict

    from deepbedmap.registry import citation

    fields: dict[str, Any] = asdict(dataset)
    for name in ("citekey", "title", "files"):
        del fields[name]
    fields["authors"] = "; ".join(dataset.authors) or None
    for name in ("doi_dataset", "doi_literature"):
        fields[name] = fields[name] and f"https://doi.org/{fields[name]}"
    if dataset.paper:
        fields["paper"] = citation.cite(listing, dataset.citekey, "text").splitlines()[-1]
    if dataset.bounds:
        fields["bounds"] = f"{' '.join(f'{edge:.0f}' for edge in dataset.bounds)} (m, EPSG:3031)"
    if dataset.resolution:
        fields["resolution"] = f"{dataset.resolution:g} m"
    if dataset.epoch:
        fields["epoch"] = _years(dataset.epoch)
    absent = dict.fromkeys(("pipelines", "instructions", "notes", "superseded_by"), "none")
    return {
        name: absent[name] if name in absent and value in (None, ()) else _in_words(value)
        for name, value in fields.items()
    }


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
    print_table(["file", "state", "size", "from"], table)
    left = [one for one in planned if one.state in ("fetch", "go on", "login")]
    to_come = download.amount(one.bytes and one.bytes - one.there for one in left)
    typer.echo(f"{len(planned)} files, of which to fetch: {to_come}")


def _print_states(checked: list[Checked], *, with_missing: bool) -> None:
    from collections import Counter
    from typing import get_args

    from deepbedmap import download

    shown = {"differs", "unchecked", "extra", *(["missing"] if with_missing else [])}
    for one in checked:
        if one.state in shown:
            sums = [("expected", one.expected), ("found", one.found)]
            texts = ", ".join(f"{word} {text}" for word, text in sums if text)
            typer.echo(f"{one.state}: {one.path}" + (f": {texts}" if texts else ""))
    states = Counter(one.state for one in checked)
    typer.echo(", ".join(f"{states[state]} {state}" for state in get_args(download.CheckState)))


def _report_progress_of(name: str) -> None:
    """Report what a package does even without -v, but not with -q."""
    import logging

    if not is_quiet():
        logging.getLogger(name).setLevel(logging.INFO)
