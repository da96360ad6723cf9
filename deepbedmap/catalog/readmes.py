"""READMEs of the folders ``highres``, ``lowres`` and ``misc``, from the registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from deepbedmap.registry.records import Dataset, File

FOLDERS = {
    "highres": "Surveys: radar picks of the bed, and their grids",
    "lowres": "Grids of the bed of all Antarctica",
    "misc": "Ice surface, ice velocity, snow accumulation and grounding line",
}
MOST_FILES = 6
"""How many files of a dataset a README names."""

_COLUMNS = (
    "citekey",
    "title",
    "version",
    "epoch",
    "status",
    "location",
    "resolution",
    "licence",
    "vertical datum",
    "DOI",
    "files",
)


def folder_readme(
    listing: str,
    folder: str,
    datasets: list[Dataset],
    entries: dict[str, dict[str, Any]],
    served: list[str],
) -> str:
    """README of a folder; served are the names of entries that the catalog ``open`` has too."""
    intro = (
        f"{FOLDERS[folder]}. `{listing}` says all that is known of them, and is the "
        f"file to change. Their files land here, or in `{folder}/` under `$DEEPBEDMAP_DATA_DIR`, "
        "and are not committed. A dash: not known, or does not apply."
    )
    if not datasets:
        return f"# {folder}\n\n{intro}\n\nThere is no such dataset yet.\n"
    notes = [f"- {dataset.citekey}: {dataset.notes}" for dataset in datasets if dataset.notes]
    outdated = [_outdated(d) for d in datasets if d.status not in (None, "active")]
    usable = [dataset for dataset in datasets if dataset.status != "withdrawn"]
    fetched = [dataset for dataset in usable if any(map(_is_fetched, dataset.files))]
    commands = [f"deepbedmap fetch {dataset.citekey}" for dataset in fetched]
    requests = [
        f"- {dataset.citekey}: {dataset.how_to_ask(*asked)}"
        for dataset in usable
        if (asked := [file.filename for file in dataset.files if not _is_fetched(file)])
        or not dataset.files
    ]
    blocks = [
        f"# {folder}",
        intro,
        _table(_COLUMNS, [_row(dataset) for dataset in datasets]),
        _counts(datasets),
        *(["## Not the newest\n\n" + "\n".join(outdated)] if outdated else []),
        *(["## Worth knowing\n\n" + "\n".join(notes)] if notes else []),
        "## Getting the files",
        *(["```sh\n" + "\n".join(commands) + "\n```"] if commands else []),
        *(["\n".join(requests)] if requests else []),
        "`deepbedmap fetch` verifies checksums and unpacks archives, and also takes the name of a "
        "single file; `deepbedmap cite` prints the BibTeX of datasets and of their papers.",
    ]
    if entries:
        example = f'catalog.{folder}["{next(iter(entries))}"].read()'
        rows = [
            (
                f"`{name}`",
                entry["description"].partition(":")[0],
                entry["metadata"]["citekey"],
                ", ".join(f"`{parameter}`" for parameter in entry["parameters"]),
            )
            for name, entry in entries.items()
        ]
        blocks += [
            "## Opening them",
            f"```python\nimport deepbedmap\n\ncatalog = deepbedmap.open_catalog()\n{example}\n```",
            "Parameters are given before reading, as in "
            f"`{example.replace('.read()', '(fetch=True).read()')}`, which gets the files first.",
            _table(("entry", "what it gives", "dataset", "parameters"), rows),
        ]
    if served:
        names = ", ".join(f"`{name}`" for name in served)
        blocks.append(
            "Open without this package too, with intake and intake-xarray alone, as in "
            f'`intake.open_catalog("catalog/open.yml")["{served[0]}"].to_dask()`: {names}.'
        )
    return "\n\n".join(blocks) + "\n"


def _is_fetched(file: File) -> bool:
    return bool(file.urls) and file.access != "manual"


def _outdated(dataset: Dataset) -> str:
    said = f"- {dataset.citekey} is {dataset.status}"
    if dataset.status == "withdrawn":
        said += f" and opens no more ({dataset.notes or 'no reason is stated'})"
    return said + (f"; use {dataset.superseded_by}." if dataset.superseded_by else ".")


def _counts(datasets: list[Dataset]) -> str:
    def count(has: Callable[[Dataset], Any]) -> int:
        return sum(bool(has(dataset)) for dataset in datasets)

    whole = count(lambda d: d.files and all(file.sha256 for file in d.files))
    some = count(lambda d: any(file.sha256 for file in d.files)) - whole
    return (
        f"Of {len(datasets)} datasets, {whole} have a checksum for every file"
        + (f" and {some} for some" if some else "")
        + f", {count(lambda d: d.licence)} a licence, {count(lambda d: d.bounds)} bounds and "
        f"{count(lambda d: d.vertical_datum)} a vertical datum."
    )


def _row(dataset: Dataset) -> tuple[str, ...]:
    dois = {"data": dataset.doi_dataset, "paper": dataset.doi_literature}
    links = [f"[{what}](https://doi.org/{doi})" for what, doi in dois.items() if doi]
    files = [f"`{file.name}`" for file in dataset.files[:MOST_FILES]]
    more = len(dataset.files) - len(files)
    return (
        dataset.citekey,
        dataset.title,
        dataset.version or "",
        "-".join(map(str, dict.fromkeys(dataset.epoch or ()))),
        dataset.status or "",
        dataset.location or "",
        f"{dataset.resolution:g} m" if dataset.resolution else "",
        dataset.licence or "",
        dataset.vertical_datum or "",
        ", ".join(links),
        ", ".join(files) + (f" and {more} more" if more else ""),
    )


def _table(columns: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [columns, ["---" for _ in columns], *rows]
    cells = [[" ".join(cell.replace("|", r"\|").split()) or "-" for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
