"""From refined rows to products: sources and identity, all layers on one lattice, the files."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deepbedmap import __version__
from deepbedmap.files.checksums import sha256_of
from deepbedmap.model import checkpoints as saved
from deepbedmap.model.prediction.preparing import ROLES, rasters_by_name
from deepbedmap.provenance import describe_file, describe_source, registry_commit
from deepbedmap.tiles.inputs import RESOLUTION

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    import xarray as xr

    from deepbedmap.files.resumable import Parts
    from deepbedmap.model.prediction.bed_store import BedStore, Refinement
    from deepbedmap.progress import StepProgress

_FORMAT = 1  # of the work folder; one of another format is not resumed


def sources_of_product(
    rasters_by_role: Mapping[str, xr.DataArray], outline: Any, files: Iterable[Path]
) -> list[dict[str, Any]]:
    """Return the sources of a product, as citations read them; each file is read once."""
    from deepbedmap import rasters

    places: list[tuple[str, Path | None]] = [
        (role, rasters.file_of(raster)) for role, raster in rasters_by_role.items()
    ]
    if isinstance(outline, str | os.PathLike):
        places.append(("grounding line", Path(outline)))
    unique = dict.fromkeys(path for _, path in places if path is not None)
    with ThreadPoolExecutor(4) as pool:
        descriptions = pool.map(partial(describe_file, role=""), unique)
        described = dict(zip(unique, descriptions, strict=True))
    sources = []
    for role, path in places:
        if path is not None:
            sources.append(described[path] | {"role": role})
        else:
            raster = rasters_by_role[role]
            sources.append(describe_source(role, rasters.name_of(raster), raster.attrs))
    return sources + [saved.describe(file) for file in files]


def identity_of(
    work: Refinement, sources: Sequence[dict[str, Any]], rasters_by_role: Mapping[str, xr.DataArray]
) -> dict[str, Any]:
    """Return everything on which the refined bed depends."""
    roles = {ROLES[name] for name in rasters_by_name(work.inputs)}
    return {
        "format": _FORMAT,
        "sources": [source for source in sources if source["role"] in {*roles, "checkpoint"}],
        "rasters": {role: _digest(rasters_by_role[role]) for role in sorted(roles)},
        "bounds": work.bounds,
        "autocast": work.autocast,
    }


def _digest(raster: xr.DataArray) -> list[Any]:
    """What distinguishes a raster from others, besides the checksum of its file."""
    from deepbedmap import rasters

    bands = raster[raster.dims[0]].to_numpy().tolist() if raster.ndim == 3 else [raster.name]
    facts = [
        raster.shape,
        rasters.bounds_of(raster),
        sorted(map(repr, raster.attrs.items())),
        bands,
    ]
    if "source" in raster.encoding:
        return facts
    if raster.chunks is not None:
        return [*facts, raster.data.name]
    values = np.ascontiguousarray(raster.to_numpy())
    return [*facts, sha256_of(values.data)]


def assemble_layers(
    store: BedStore,
    work: Refinement,
    sources: Sequence[dict[str, Any]],
    others: Mapping[str, xr.DataArray],
) -> xr.Dataset:
    """Return all layers on the cells of the bed, lazily."""
    import xarray as xr

    from deepbedmap import products, rasters

    xmin, _, _, ymax = work.bounds
    rows, columns = store.shape
    axes = {
        "y": ymax - RESOLUTION * (np.arange(rows) + 0.5),
        "x": xmin + RESOLUTION * (np.arange(columns) + 0.5),
    }
    prior, surface, filler = work.inputs.prior, work.inputs.surface, work.inputs.surface_filler
    crs, datum = rasters.require_crs(prior), prior.attrs.get("vertical_datum") or "unknown"

    def layer(path: Path, **attributes: str) -> xr.DataArray:
        cells = xr.DataArray(store.read(path), axes, ("y", "x"), "bed", attributes)
        placed: xr.DataArray = cells.rio.write_crs(crs)
        return placed

    beds = [layer(path, vertical_datum=datum) for path in store.beds]
    layers: dict[str, Any] = dict(others) | {"quality": layer(store.quality)}
    layers.pop("bathymetry", None)
    if filler is not None:
        first, second = (products.assemble(beds[0], each)["surface"] for each in (surface, filler))
        surface = first.fillna(second).assign_attrs(first.attrs)
    if "geoid" in others:
        layers["geoid"] = _on_lattice(others["geoid"], beds[0])
    if len(beds) > 1:
        layers["members"] = xr.concat(beds, "realization")
    return products.assemble(
        beds[0],
        surface,
        **layers,
        provenance={
            "sources": list(sources),
            "registry_commit": registry_commit(),
            "version": __version__,
            "bounds": work.bounds,
            "precision": ["bfloat16" if each else "float32" for each in work.autocast],
        },
    )


def _on_lattice(geoid: xr.DataArray, bed: xr.DataArray) -> xr.DataArray:
    """Height of a geoid, which may be in degrees, at the centres of the bed's cells."""
    from deepbedmap import rasters

    if rasters.same_crs(rasters.require_crs(geoid), rasters.require_crs(bed)):
        return geoid
    nowhere = (0 * bed.fillna(0)).assign_attrs(vertical_datum=(name := "EIGEN-6C4"))
    return rasters.convert_datum(nowhere, "ellipsoid", {name: geoid.drop_attrs(deep=False)})


def add_provenance(dataset: xr.Dataset, **entries: Any) -> None:
    """Add entries to the provenance of a product."""
    dataset.attrs["provenance"] = json.dumps(json.loads(dataset.attrs["provenance"]) | entries)


def publish(
    dataset: xr.Dataset, paths: Sequence[Path], parts: Parts, progress: StepProgress | None
) -> list[Path]:
    """Write the products; publishing the first removes the work folder."""
    from deepbedmap import products

    for path in (*paths[1:], first := parts.folder / paths[0].name):

        def report(done: int, total: int, path: Path = path) -> None:
            if progress is not None:
                progress(done, total, f"writing {path.name}")

        products.write(dataset, path, progress=report)
    parts.publish(first)
    return list(paths)
