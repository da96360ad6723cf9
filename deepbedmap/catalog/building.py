"""Write, check and open the catalogs of the repository.

Besides one catalog per folder, ``open`` lists the rasters that publishers serve directly;
it is read with intake and intake-xarray, without this package. ``training`` opens the
tiles that ``deepbedmap tiles`` cut, and ``products`` the bed that ``deepbedmap predict``
made. ``cat`` is the catalog of the package, for ``intake.cat.deepbedmap``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from deepbedmap import files, repository, schemas
from deepbedmap import registry as registries
from deepbedmap.catalog.entries import PARAMETERS, dataset_entries, served_entries
from deepbedmap.catalog.readmes import FOLDERS, folder_readme
from deepbedmap.errors import Fault, InvalidDataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from intake.catalog import Catalog

    from deepbedmap.registry.listing import Registry
    from deepbedmap.registry.records import Dataset

OPEN = "Rasters as their publishers serve them, for intake and intake-xarray alone"
TRAINING = "Tiles to train a model of the bed on"
TRAINING_SET = "training/tiles.zarr"
"""Where the entry ``tiles`` looks, in the repository and then in the data folder."""

PRODUCTS = "Beds that a model predicted, with all that belongs to them"
PRODUCT = "products/bed.zarr"
"""Where the entry ``bed`` looks, for it and for ``bed.nc``, in the same two places."""


def bundled() -> Catalog:
    """Open the catalog of every dataset in the registry.

    Returns
    -------
    intake.catalog.Catalog
        Nested by folder: ``highres`` (surveys), ``lowres`` (bed priors), ``misc`` (surface,
        velocity, accumulation, grounding line). The same catalog opens with
        ``deepbedmap.open_catalog()``, ``intake.open_catalog("catalog/catalog.yml")`` and as
        ``intake.cat.deepbedmap``.

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
        with files.beside(path) as part:
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
    served = _entries(registry, registry, served_entries)
    catalogs["open"] = _catalog_text("open", OPEN, served)
    catalogs["training"] = _catalog_text("training", TRAINING, {"tiles": tiles})
    catalogs["products"] = _catalog_text("products", PRODUCTS, {"bed": bed})
    for folder, said in FOLDERS.items():
        datasets = [dataset for dataset in registry if dataset.folder == folder]
        entries = _entries(registry, datasets, lambda dataset: dataset_entries(dataset, root))
        catalogs[folder] = _catalog_text(folder, said, entries)
        texts[root / folder / "README.md"] = f"<!-- {head} -->\n\n" + folder_readme(
            registry.path.name,
            folder,
            datasets,
            entries,
            [name for name in entries if name in served],
        )
    if registry.path.is_file():
        registries.check(registry.path)
        texts[root / registries.CHECKSUMS] = registries.checksums(registry.path)
    return {
        **{
            root / "catalog" / f"{name}.yml": f"# {head}\n{text}" for name, text in catalogs.items()
        },
        **texts,
    }


class _Dumper(yaml.SafeDumper):
    """YAML that writes the parameters of a kind of entry once, which intake then reads once."""

    def ignore_aliases(self, data: Any) -> bool:
        return not any(data is parameters for parameters in PARAMETERS.values())

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
