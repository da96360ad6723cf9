"""List, search, show and cite datasets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deepbedmap.cli.options import Box, Json, app, in_columns

if TYPE_CHECKING:
    import pandas as pd

    from deepbedmap.registry.listing import Registry
    from deepbedmap.registry.records import Dataset

_MOST_FILES = 10


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
    from deepbedmap import registry as registries
    from deepbedmap.errors import InvalidDataError
    from deepbedmap.registry import citation
    from deepbedmap.registry.attribution import attribute

    listing = registries.load(registry)
    found = [attribute(name, listing) for name in what]
    citekeys = [citekey for attribution in found for citekey in attribution.citekeys]
    typer.echo(citation.cite(listing, citekeys, style), nl=False)  # type: ignore[arg-type]
    if faults := [fault for attribution in found for fault in attribution.faults]:
        raise InvalidDataError(*faults)


def _dataset_table(table: pd.DataFrame, columns: str) -> str:
    rows = []
    known = table.astype(object).where(table.notna(), None)
    for record in known.rename(columns={"vertical_datum": "datum"}).to_dict("records"):
        record["resolution"] = record["resolution"] and f"{record['resolution']:g} m"
        record["epoch"] = record["epoch"] and _years(record["epoch"])
        cells = [record[column] for column in columns.split()]
        rows.append(["unknown" if cell is None else str(cell) for cell in cells])
    return in_columns(columns.split(), rows)


def _years(epoch: tuple[int, int]) -> str:
    return str(epoch[0]) if epoch[0] == epoch[1] else f"{epoch[0]}-{epoch[1]}"


def _page(dataset: Dataset, listing: Registry) -> str:
    """All that is known of a dataset, for a person to read."""
    import textwrap
    from dataclasses import asdict

    from deepbedmap.registry import citation

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
        lines.append(in_columns(["name", "bytes", "sha256", "access"], rows[:_MOST_FILES]))
    if len(rows) > _MOST_FILES:
        lines.append(f"and {len(rows) - _MOST_FILES} more (--json lists all)")
    return "\n".join(lines)


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
