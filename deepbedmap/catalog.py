"""The intake catalogs and the folders' READMEs, written from the registry.

Names of entries are those of files. A pipeline ``highres/2010tr.json`` has two: ``2010tr`` is the
grid, ``2010tr_points`` the table of picks. A raster or an outline has the stem of its file's name.
Characters other than letters, digits, ``_`` and ``-`` become ``_``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from deepbedmap import registry as registries
from deepbedmap import repository, schemas
from deepbedmap.errors import Fault, InvalidDataError
from deepbedmap.registry import Dataset, Registry

if TYPE_CHECKING:
    from intake.catalog import Catalog

FOLDERS = {
    "highres": "Surveys: radar picks of the bed, and their grids",
    "lowres": "Grids of the bed of all Antarctica",
    "misc": "Ice surface, ice velocity, snow accumulation and grounding line",
}

_RASTERS = (".tif", ".tiff", ".nc", ".nc4", ".h5")
_OUTLINES = (".shp", ".gpkg", ".geojson")

_FETCH = {
    "description": "fetch the dataset first, and verify its checksums",
    "type": "bool",
    "default": False,
}
_GRIDDING = {
    "spacing": {"description": "width of a cell in metres", "type": "float", "default": 250.0},
    "tension": {
        "description": "of the spline, from 0 to 1",
        "type": "float",
        "default": 0.35,
        "min": 0.0,
        "max": 1.0,
    },
    "max_gap": {
        "description": "cells beyond a pick that are kept",
        "type": "int",
        "default": 3,
        "min": 0,
    },
}


def bundled() -> Catalog:
    """Open the catalog that comes with the package.

    Examples
    --------
    >>> catalog = bundled()
    >>> list(catalog)
    ['highres', 'lowres', 'misc']
    >>> catalog.highres["2010tr_points"].metadata["crs"]
    'EPSG:3031'
    """
    import intake

    return intake.open_catalog(str(repository.root() / "catalog" / "catalog.yml"))


def __getattr__(name: str) -> Any:
    """Open the catalog for ``intake.cat.deepbedmap``: its entry point must be a catalog itself."""
    if name == "cat":
        return bundled()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def build(registry: Registry | None = None, root: str | Path | None = None) -> list[Path]:
    """Write ``catalog/*.yml`` and the READMEs of ``highres/``, ``lowres/`` and ``misc/``.

    The same registry gives the same text. A file appears complete or not at all.

    Parameters
    ----------
    registry
        None for the one in ``root`` or, without that, the one that comes with the package.
    root
        Folder of the repository, with the registry in ``data_list.yml`` and the pipelines in
        ``highres/``; None for the registry's.

    Returns
    -------
    list of pathlib.Path
        What was written.

    Raises
    ------
    InvalidDataError
        The registry or a pipeline is at fault, or two files would have one name in a catalog.
    MissingDataError
        A pipeline that the registry lists is not there.
    """
    texts = _texts(*_opened(registry, root))
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with repository.beside(path) as part:
            part.write_text(text, encoding="utf-8", newline="\n")
    return list(texts)


def check(registry: Registry | None = None, root: str | Path | None = None) -> None:
    """Check that the catalogs and READMEs are what :func:`build` writes, and do what they say.

    Parameters
    ----------
    registry, root
        As in :func:`build`.

    Raises
    ------
    InvalidDataError
        One line for each file that differs, is missing or has no reason to be there, and for each
        parameter of a catalog that intake would take from the user and drop.
    """
    registry, root = _opened(registry, root)
    texts = _texts(registry, root)
    catalogs = sorted(path for path in (root / "catalog").glob("[!.]*") if path.is_file())
    faults: list[Fault | str] = [
        fault for path, text in texts.items() if (fault := _difference(path, text))
    ]
    faults += [
        Fault(str(path), found="a file that the registry gives no reason for", remedy="remove it")
        for path in catalogs
        if path not in texts
    ]
    for path in catalogs:
        if path.suffix in (".yml", ".yaml"):
            faults += _swallowed(path)
    if faults:
        raise InvalidDataError(*faults)


def _opened(registry: Registry | None, root: str | Path | None) -> tuple[Registry, Path]:
    if registry is None:
        registry = registries.load(root)
    return registry, registry.root if root is None else Path(root)


def _difference(path: Path, text: str) -> Fault | None:
    try:
        found = path.read_bytes().decode(errors="replace")
    except FileNotFoundError:
        return Fault(str(path), found="no such file", remedy="run `deepbedmap catalog build`")
    if found == text:
        return None
    ours, theirs = text.split("\n"), found.split("\n")
    line = next(
        (n for n, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b),
        min(len(ours), len(theirs)),
    )
    said = [repr(lines[line]) if line < len(lines) else "its end" for lines in (ours, theirs)]
    return Fault(
        str(path),
        line=line + 1,
        expected=said[0],
        found=said[1],
        remedy="change data_list.yml, and run `deepbedmap catalog build`",
    )


def _swallowed(path: Path) -> Iterator[Fault | str]:
    """Find parameters without effect: intake drops a value that no argument of its name takes."""
    try:
        document = schemas.load(path)
    except InvalidDataError as error:
        yield from error.faults
        return
    sources = document.content.get("sources") if isinstance(document.content, dict) else None
    for name, source in (sources if isinstance(sources, dict) else {}).items():
        source = source if isinstance(source, dict) else {}
        arguments = source.get("args") or {}
        for parameter in source.get("parameters") or {}:
            value = arguments.get(parameter)
            if not re.search(rf"{{{{\s*{re.escape(parameter)}\s*}}}}", str(value)):
                yield document.fault(
                    ("sources", name, "parameters", parameter),
                    expected=f"an argument {parameter}: '{{{{ {parameter} }}}}'",
                    found="none" if value is None else repr(value),
                    remedy="without it the parameter has no effect",
                )


def _texts(registry: Registry, root: Path) -> dict[Path, str]:
    """What each generated file says."""
    head = f"Written by `deepbedmap catalog build` from {registry.path.name}: do not edit."
    nested = {
        folder: {
            "description": said,
            "driver": "yaml_file_cat",
            "args": {"path": f"{{{{ CATALOG_DIR }}}}/{folder}.yml"},
        }
        for folder, said in FOLDERS.items()
    }
    said = "Antarctic bed elevation: surveys, bed grids, and what a model of the bed needs"
    top = f"# {head}\n" + _catalog_text("deepbedmap", said, nested)
    texts = {root / "catalog" / "catalog.yml": top}
    for folder, said in FOLDERS.items():
        entries = _entries(registry, root, folder)
        texts[root / "catalog" / f"{folder}.yml"] = f"# {head}\n" + _catalog_text(
            folder, said, entries
        )
        texts[root / folder / "README.md"] = f"<!-- {head} -->\n\n" + _readme(
            registry, folder, entries
        )
    return texts


class _Dumper(yaml.SafeDumper):
    """YAML without aliases."""

    def ignore_aliases(self, _: Any) -> bool:
        return True


def _catalog_text(name: str, description: str, sources: dict[str, Any]) -> str:
    content = {
        "metadata": {"version": 1},
        "name": name,
        "description": description,
        "sources": sources,
    }
    text: str = yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return text


def _entries(registry: Registry, root: Path, folder: str) -> dict[str, dict[str, Any]]:
    """Sources of a folder's catalog, by name."""
    entries: dict[str, dict[str, Any]] = {}
    for dataset in registry:
        if dataset.folder != folder:
            continue
        for name, entry in _entries_of(dataset, root):
            if name in entries:
                raise InvalidDataError(
                    Fault(
                        str(registry.path),
                        entry=dataset.citekey,
                        expected="files whose names without suffix differ",
                        found=f"two that the catalog would call {name}",
                        remedy="give one of them another filename, or `unpacked` another name",
                    )
                )
            entries[name] = entry
    return entries


def _entries_of(dataset: Dataset, root: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for pipeline in dataset.pipelines:
        name, crs = _entry_name(pipeline), _crs_of(root / "highres" / pipeline) or dataset.crs
        argument = {"pipeline": f"highres/{pipeline}"}
        yield name, _entry("grid", "Grid of the bed", dataset, crs, argument, _GRIDDING)
        yield f"{name}_points", _entry("points", "Picks of the bed", dataset, crs, argument)
    for file in dataset.files:
        name, suffix = _entry_name(file.name), Path(file.name).suffix.lower()
        argument = {"path": f"{dataset.folder}/{file.name}"}
        if suffix in _RASTERS:
            yield name, _entry("raster", "Raster", dataset, dataset.crs, argument)
        elif suffix in _OUTLINES:
            yield name, _entry("vector", "Outlines", dataset, dataset.crs, argument)


def _entry_name(filename: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", Path(filename).stem)


def _crs_of(pipeline: Path) -> str | None:
    """Coordinate reference system of the picks that a pipeline gives."""
    stages = schemas.validate_file(pipeline, "pipeline").content["pipeline"]
    stated = (stage.get("out_srs") or stage.get("override_srs") for stage in reversed(stages))
    return next(filter(None, stated), None)


def _entry(
    driver: str,
    what: str,
    dataset: Dataset,
    crs: str | None,
    files: dict[str, str],
    parameters: dict[str, dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Source of a catalog; files are arguments that name a file of the repository."""
    parameters = {**(parameters or {}), "fetch": _FETCH}
    metadata = {
        "citekey": dataset.citekey,
        "title": dataset.title,
        "citation": _citation(dataset),
        "doi": {"dataset": dataset.doi_dataset, "literature": dataset.doi_literature},
        "licence": dataset.licence,
        "crs": crs,
        "vertical_datum": dataset.vertical_datum,
        "firn_correction": dataset.firn_correction,
        "units": dataset.units,
        "location": dataset.location,
        "notes": dataset.notes,
    }
    return {
        "description": f"{what}: {dataset.title}",
        "driver": f"deepbedmap_{driver}",
        "args": {
            **{name: f"{{{{ CATALOG_DIR }}}}/../{_literal(file)}" for name, file in files.items()},
            **{name: f"{{{{ {name} }}}}" for name in parameters},
        },
        "metadata": _literal(metadata),
        "parameters": parameters,
    }


def _literal(value: Any) -> Any:
    """Write text so that it renders to itself: intake runs arguments and metadata as templates."""
    if isinstance(value, dict):
        return {key: _literal(item) for key, item in value.items()}
    return re.sub(r"\{(?=[{%#])", "{{ '{' }}", value) if isinstance(value, str) else value


def _citation(dataset: Dataset) -> str:
    authors = "; ".join(dataset.authors[:3])
    if len(dataset.authors) > 3:
        authors = f"{dataset.authors[0]} and {len(dataset.authors) - 1} others"
    year = f"({dataset.year})" if dataset.year else None
    doi = dataset.doi_dataset or dataset.doi_literature
    link = f"https://doi.org/{doi}" if doi else None
    head = " ".join(filter(None, (authors, year)))
    return ". ".join(filter(None, (head, dataset.title, dataset.publisher, link)))


_COLUMNS = (
    "citekey",
    "title",
    "location",
    "resolution",
    "licence",
    "vertical datum",
    "DOI",
    "files",
    "pipelines",
)


def _readme(registry: Registry, folder: str, entries: dict[str, dict[str, Any]]) -> str:
    datasets = [dataset for dataset in registry if dataset.folder == folder]
    intro = (
        f"{FOLDERS[folder]}. `{registry.path.name}` says all that is known of them, and is the "
        f"file to change. Their files land here, or in `{folder}/` under `$DEEPBEDMAP_DATA_DIR`, "
        "and are not committed. A dash: not known, or does not apply."
    )
    if not datasets:
        return f"# {folder}\n\n{intro}\n\nThere is no such dataset yet.\n"
    notes = [f"- {dataset.citekey}: {dataset.notes}" for dataset in datasets if dataset.notes]
    commands = [
        f"deepbedmap fetch {dataset.citekey}"
        for dataset in datasets
        if any(file.urls for file in dataset.files)
    ]
    requests = [
        f"- {dataset.citekey}: {dataset.how_to_get()}"
        for dataset in datasets
        if not any(file.urls for file in dataset.files)
    ]
    rows = [
        (
            f"`{name}`",
            entry["description"].partition(":")[0],
            entry["metadata"]["citekey"],
            ", ".join(f"`{parameter}`" for parameter in entry["parameters"]),
        )
        for name, entry in entries.items()
    ]
    blocks = [
        f"# {folder}",
        intro,
        _table(_COLUMNS, [_row(dataset) for dataset in datasets]),
        *(["Worth knowing:\n\n" + "\n".join(notes)] if notes else []),
        "## Getting the files",
        *(["```sh\n" + "\n".join(commands) + "\n```"] if commands else []),
        *(["\n".join(requests)] if requests else []),
        "`deepbedmap fetch` verifies checksums and unpacks archives; `deepbedmap cite` prints the "
        "BibTeX of datasets and of their papers.",
    ]
    if entries:
        example = f'catalog.{folder}["{next(iter(entries))}"].read()'
        blocks += [
            "## Opening them",
            f"```python\nimport deepbedmap\n\ncatalog = deepbedmap.open_catalog()\n{example}\n```",
            "Parameters are given before reading, as in "
            f"`{example.replace('.read()', '(fetch=True).read()')}`, which gets the files first.",
            _table(("entry", "what it gives", "dataset", "parameters"), rows),
        ]
    return "\n\n".join(blocks) + "\n"


def _row(dataset: Dataset) -> tuple[str, ...]:
    dois = {"data": dataset.doi_dataset, "paper": dataset.doi_literature}
    links = [f"[{what}](https://doi.org/{doi})" for what, doi in dois.items() if doi]
    return (
        dataset.citekey,
        dataset.title,
        dataset.location or "",
        f"{dataset.resolution:g} m" if dataset.resolution else "",
        dataset.licence or "",
        dataset.vertical_datum or "",
        ", ".join(links),
        ", ".join(f"`{file.name}`" for file in dataset.files),
        ", ".join(f"`{pipeline}`" for pipeline in dataset.pipelines),
    )


def _table(columns: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [columns, ["---" for _ in columns], *rows]
    cells = [[" ".join(cell.replace("|", r"\|").split()) or "-" for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
