"""The intake catalogs and the folders' READMEs, written from the registry.

Names of entries are those of files. A pipeline ``highres/2010tr.json`` has two: ``2010tr`` is the
grid, ``2010tr_points`` the table of picks. A raster or an outline has the stem of its file's name,
or of the archive's where nobody wrote down what that holds. Characters other than letters, digits,
``_`` and ``-`` become ``_``.

``open`` holds the rasters that their publishers serve as they are, for intake and intake-xarray
alone: its entries take no parameters, and nothing of this package is needed to read them.

``training`` opens the tiles that ``deepbedmap tiles`` cut, once they are there, and ``products``
the bed that ``deepbedmap predict`` made.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import yaml

from deepbedmap import registry as registries
from deepbedmap import repository, schemas
from deepbedmap.errors import Fault, InvalidDataError
from deepbedmap.registry import ARCHIVE_SUFFIXES, Dataset, File, Registry

if TYPE_CHECKING:
    from intake.catalog import Catalog

FOLDERS = {
    "highres": "Surveys: radar picks of the bed, and their grids",
    "lowres": "Grids of the bed of all Antarctica",
    "misc": "Ice surface, ice velocity, snow accumulation and grounding line",
}

OPEN = "Rasters as their publishers serve them, for intake and intake-xarray alone"

TRAINING = "Tiles to train a model of the bed on"

TRAINING_SET = "training/tiles.zarr"
"""Where the entry ``tiles`` looks, in the repository and then in the data folder."""

PRODUCTS = "Beds that a model predicted, with all that belongs to them"

PRODUCT = "products/bed.zarr"
"""Where the entry ``bed`` looks, for it and for ``bed.nc``, in the same two places."""

_GEOTIFF = (".tif", ".tiff")
_NETCDF = (".nc", ".nc4", ".h5")
_OUTLINES = (".shp", ".gpkg", ".geojson")

MOST_FILES = 6
"""How many files of a dataset a README names."""


def _parameter(kind: str, default: Any, said: str, **limits: Any) -> dict[str, Any]:
    return {"description": said, "type": kind, "default": default, **limits}


_BOX = "xmin, ymin, xmax, ymax in metres (EPSG:3031)"
_FETCH = {"fetch": _parameter("bool", False, "fetch the files first, and verify their checksums")}
_SURVEY = {
    "season": _parameter("list", [], "raw files to read: names, stems or globs; none: all"),
    "bounds": _parameter("list", [], f"keep the picks in the box {_BOX}"),
    "engine": _parameter(
        "list", ["native"], "what reads the raw files", allowed=[["native"], ["pdal"]]
    ),
    **_FETCH,
}
_PARAMETERS = {
    "points": {
        "geometry": _parameter("bool", False, "give a GeoDataFrame"),
        **_SURVEY,
    },
    "grid": {
        "spacing": _parameter("float", 250.0, "width of a cell in metres"),
        "tension": _parameter("float", 0.35, "of the spline, from 0 to 1", min=0.0, max=1.0),
        "max_gap": _parameter("int", 3, "cells beyond a pick that are kept", min=0),
        "region": _parameter("list", [], f"outer edges of the grid: {_BOX}"),
        **_SURVEY,
    },
    "raster": {
        "bounds": _parameter("list", [], "xmin, ymin, xmax, ymax of a box in the raster's CRS"),
        **_FETCH,
    },
    "vector": {
        "bounds": _parameter("list", [], "xmin, ymin, xmax, ymax of a box in the file's CRS"),
        **_FETCH,
    },
}


def bundled() -> Catalog:
    """Open the catalog that comes with the package.

    Examples
    --------
    >>> catalog = bundled()
    >>> list(catalog)
    ['highres', 'lowres', 'misc', 'open', 'training', 'products']
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
            try:
                faults += catalog_faults(path)
            except InvalidDataError as error:
                faults += error.faults
    if faults:
        raise InvalidDataError(*faults)


def _opened(registry: Registry | None, root: str | Path | None) -> tuple[Registry, Path]:
    if registry is None:
        registry = registries.load(root)
    return registry, registry.root if root is None else Path(root)


def _difference(path: Path, text: str) -> Fault | None:
    try:
        # A checkout on Windows may have other line ends.
        found = path.read_bytes().replace(b"\r\n", b"\n").decode(errors="replace")
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


def catalog_faults(path: str | Path) -> list[Fault]:
    """Return what is wrong with a catalog by itself, wherever it comes from.

    That is its form, and parameters without effect: intake drops a value that no argument of its
    name takes.

    Raises
    ------
    MissingDataError, InvalidDataError
        As :func:`deepbedmap.schemas.load` does.
    """
    document = schemas.load(path)
    faults = [*schemas.faults(document, "catalog"), *_swallowed(document)]
    return sorted(faults, key=lambda fault: fault.line or 0)


def _swallowed(document: schemas.Document) -> Iterator[Fault]:
    for name, source in _mapping(_mapping(document.content).get("sources")).items():
        arguments = _mapping(_mapping(source).get("args"))
        for parameter in _mapping(_mapping(source).get("parameters")):
            value = arguments.get(parameter)
            if not re.search(rf"{{{{\s*{re.escape(parameter)}\s*}}}}", str(value)):
                yield document.fault(
                    ("sources", name, "parameters", parameter),
                    expected=f"an argument {parameter}: '{{{{ {parameter} }}}}'",
                    found="none" if value is None else repr(value),
                    remedy="without it the parameter has no effect",
                )


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _texts(registry: Registry, root: Path) -> dict[Path, str]:
    """What each generated file says."""
    head = f"Written by `deepbedmap catalog build` from {registry.path.name}: do not edit."
    nested = {
        name: {
            "description": said,
            "driver": "yaml_file_cat",
            "args": {"path": f"{{{{ CATALOG_DIR }}}}/{name}.yml"},
        }
        for name, said in {
            **FOLDERS,
            "open": OPEN,
            "training": TRAINING,
            "products": PRODUCTS,
        }.items()
    }
    tiles = {
        "description": f"{TRAINING}; `deepbedmap tiles GRID... --out {TRAINING_SET}` makes them",
        "driver": "deepbedmap_tiles",
        "args": {"path": f"{{{{ CATALOG_DIR }}}}/../{TRAINING_SET}"},
    }
    bed = {
        "description": f"A bed of .zarr or .nc; `deepbedmap predict ... --out {PRODUCT}` makes it",
        "driver": "deepbedmap_product",
        "args": {"path": f"{{{{ CATALOG_DIR }}}}/../{PRODUCT}"},
    }
    said = "Antarctic bed elevation: surveys, bed grids, and what a model of the bed needs"
    catalogs = {"catalog": _catalog_text("deepbedmap", said, nested)}
    texts = {}
    served = _entries(registry, registry, _open_entries_of)
    catalogs["open"] = _catalog_text("open", OPEN, served)
    catalogs["training"] = _catalog_text("training", TRAINING, {"tiles": tiles})
    catalogs["products"] = _catalog_text("products", PRODUCTS, {"bed": bed})
    for folder, said in FOLDERS.items():
        datasets = [dataset for dataset in registry if dataset.folder == folder]
        entries = _entries(registry, datasets, lambda dataset: _entries_of(dataset, root))
        catalogs[folder] = _catalog_text(folder, said, entries)
        texts[root / folder / "README.md"] = f"<!-- {head} -->\n\n" + _readme(
            registry.path.name,
            folder,
            datasets,
            entries,
            [name for name in entries if name in served],
        )
    return {
        **{
            root / "catalog" / f"{name}.yml": f"# {head}\n{text}" for name, text in catalogs.items()
        },
        **texts,
    }


class _Dumper(yaml.SafeDumper):
    """YAML that writes the parameters of a kind of entry once, which intake then reads once."""

    def ignore_aliases(self, data: Any) -> bool:
        return not any(data is parameters for parameters in _PARAMETERS.values())

    def generate_anchor(self, _: yaml.Node) -> str:
        self.last_anchor_id += 1
        return f"parameters_{self.last_anchor_id}"


def _catalog_text(name: str, description: str, sources: dict[str, Any]) -> str:
    content = {
        "metadata": {"version": 1},
        "name": name,
        "description": description,
        "sources": sources,
    }
    text: str = yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return text


def _entries(
    registry: Registry,
    datasets: Iterable[Dataset],
    entries_of: Callable[[Dataset], Iterator[tuple[str, dict[str, Any]]]],
) -> dict[str, dict[str, Any]]:
    """Sources of a catalog, by name."""
    entries: dict[str, dict[str, Any]] = {}
    for dataset in datasets:
        if dataset.status == "withdrawn":
            continue
        for name, entry in entries_of(dataset):
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
        yield name, _entry("grid", "Grid of the bed", dataset, crs, argument)
        yield f"{name}_points", _entry("points", "Picks of the bed", dataset, crs, argument)
    for file in dataset.files:
        name, suffix = file.name, Path(file.name).suffix.lower()
        if file.members is not None:
            name, suffix = file.filename, Path(file.members).suffix.lower()
        argument = {"path": f"{dataset.folder}/{name}"}
        if suffix in _GEOTIFF + _NETCDF:
            yield _entry_name(name), _entry("raster", "Raster", dataset, dataset.crs, argument)
        elif suffix in _OUTLINES and file.members is None:
            yield _entry_name(name), _entry("vector", "Outlines", dataset, dataset.crs, argument)


def _open_entries_of(dataset: Dataset) -> Iterator[tuple[str, dict[str, Any]]]:
    """Sources of what a server hands out as a raster, without a login and as it is read."""
    for file in dataset.files:
        suffix = Path(file.filename).suffix.lower()
        if dataset.status == "retired" or not _is_served(file):
            continue
        arguments: dict[str, Any] = {"urlpath": _literal(file.url)}
        if suffix in _NETCDF:
            arguments["xarray_kwargs"] = {"engine": "h5netcdf", "decode_coords": "all"}
        elif suffix not in _GEOTIFF:
            continue
        yield (
            _entry_name(file.filename),
            {
                "description": _description("Raster", dataset),
                "driver": "netcdf" if suffix in _NETCDF else "rasterio",
                "args": arguments,
                "metadata": _literal(_metadata(dataset, dataset.crs)),
            },
        )


def _is_served(file: File) -> bool:
    parts = urlsplit(file.url or "")
    archive = parts.path.lower().endswith(ARCHIVE_SUFFIXES)
    return file.access == "open" and parts.scheme in ("http", "https") and not archive


def _entry_name(filename: str) -> str:
    archive = next((s for s in ARCHIVE_SUFFIXES if filename.lower().endswith(s)), None)
    stem = filename[: -len(archive)] if archive else Path(filename).stem
    return re.sub(r"[^A-Za-z0-9_-]", "_", stem)


def _crs_of(pipeline: Path) -> str | None:
    """Coordinate reference system of the picks that a pipeline gives."""
    stages = schemas.validate_file(pipeline, "pipeline").content["pipeline"]
    stated = (stage.get("out_srs") or stage.get("override_srs") for stage in reversed(stages))
    return next(filter(None, stated), None)


def _entry(
    driver: str, what: str, dataset: Dataset, crs: str | None, files: dict[str, str]
) -> dict[str, Any]:
    """Source of a catalog; files are arguments that name a file of the repository."""
    parameters = _PARAMETERS[driver]
    return {
        "description": _description(what, dataset),
        "driver": f"deepbedmap_{driver}",
        "args": {
            **{name: f"{{{{ CATALOG_DIR }}}}/../{_literal(file)}" for name, file in files.items()},
            **{name: f"{{{{ {name} }}}}" for name in parameters},
        },
        "metadata": _literal(_metadata(dataset, crs)),
        "parameters": parameters,
    }


def _description(what: str, dataset: Dataset) -> str:
    if dataset.status in ("superseded", "retired"):
        by = f" by {dataset.superseded_by}" if dataset.status == "superseded" else ""
        return f"{what} ({dataset.status}{by}): {dataset.title}"
    return f"{what}: {dataset.title}"


def _metadata(dataset: Dataset, crs: str | None) -> dict[str, Any]:
    """What a source says of itself; crs is that of what it gives."""
    built_from = dataset.built_from
    return {
        "citekey": dataset.citekey,
        "title": dataset.title,
        "citation": _citation(dataset),
        "doi": {"dataset": dataset.doi_dataset, "literature": dataset.doi_literature},
        "licence": dataset.licence,
        "version": dataset.version,
        "status": dataset.status,
        "superseded_by": dataset.superseded_by,
        "location": dataset.location,
        "bounds": list(dataset.bounds) if dataset.bounds else None,
        "resolution": dataset.resolution,
        "survey_type": dataset.survey_type,
        "epoch": list(dataset.epoch) if dataset.epoch else None,
        "crs": crs,
        "vertical_datum": dataset.vertical_datum,
        "units": dataset.units,
        "nodata": dataset.nodata,
        "firn_correction": dataset.firn_correction,
        "built_from": {"surveys": list(built_from.surveys), "until": built_from.until}
        if built_from
        else None,
        "notes": dataset.notes,
    }


def _literal(value: Any) -> Any:
    """Write text so that it renders to itself: intake runs arguments and metadata as templates."""
    if isinstance(value, dict):
        return {key: _literal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_literal(item) for item in value]
    return re.sub(r"\{(?=[{%#])", "{{ '{' }}", value) if isinstance(value, str) else value


def _citation(dataset: Dataset) -> str:
    authors = "; ".join(dataset.authors[:3])
    if len(dataset.authors) > 3:
        authors = f"{dataset.authors[0]} and {len(dataset.authors) - 1} others"
    year = f"({dataset.year})" if dataset.year else None
    doi = dataset.doi_dataset or dataset.doi_literature
    link = f"https://doi.org/{doi}" if doi else None
    head = " ".join(filter(None, (authors, year)))
    version = f"Version {dataset.version}" if dataset.version else None
    return ". ".join(filter(None, (head, dataset.title, version, dataset.publisher, link)))


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


def _readme(
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
