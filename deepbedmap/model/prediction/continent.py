"""Predict a bed of any extent, from files to files, with one network or an ensemble.

The bed is refined in bands of rows (:mod:`deepbedmap.model.prediction.domain`), kept in
plain files next to the product. When all rows are there, the layers are assembled, checked
and written (:mod:`deepbedmap.products`). A stopped prediction resumes.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import torch

from deepbedmap.cluster import mapped
from deepbedmap.errors import WrongCallError
from deepbedmap.files.atomic import beside
from deepbedmap.files.resumable import Parts
from deepbedmap.model import checkpoints as saved
from deepbedmap.model import distributed
from deepbedmap.model.prediction import domain
from deepbedmap.model.prediction.assembling import (
    add_provenance,
    assemble_layers,
    identity_of,
    publish,
    sources_of_product,
)
from deepbedmap.model.prediction.bed_store import BedStore, Refinement
from deepbedmap.model.prediction.predicting import Reader, autocasts, reader
from deepbedmap.model.prediction.preparing import (
    ROLES,
    checkpoint_files,
    covered_window,
    open_inputs,
    product_paths,
    raster_of,
    rasters_by_name,
    require_fitting_network,
)
from deepbedmap.tiles.inputs import RESOLUTION, RESOLUTIONS

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Future
    from pathlib import Path
    from typing import Any

    import xarray as xr

    from deepbedmap.model.prediction.predicting import Precision
    from deepbedmap.model.prediction.preparing import Source
    from deepbedmap.model.prediction.refining import Block
    from deepbedmap.places import Bounds
    from deepbedmap.products.check_report import Report
    from deepbedmap.products.rules import Policy
    from deepbedmap.progress import StepProgress
    from deepbedmap.tiles.inputs import Inputs

_CELLS = round(RESOLUTIONS["x"] / RESOLUTION)  # of the bed, along a side of one of the prior
_AHEAD = 4  # parts of the bed that wait to be written
_CACHE = 256 * 2**20  # bytes of GDAL's block cache, by default 5 % of the memory of the machine


def make_dem(
    checkpoints: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    inputs: Inputs | Mapping[str, Source],
    out: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    bounds: Bounds | None = None,
    memory: int | None = None,
    device: str | torch.device | None = None,
    precision: Precision | None = None,
    client: Any = None,
    geoid: Source | None = None,
    mask: Source | None = None,
    policies: Mapping[str, Policy] | Policy = "report",
    outline: Any = None,
    bathymetry: Source | None = None,
    blend_width: float = 5_000,
    progress: StepProgress | None = None,
    report: Callable[[Report], None] | None = None,
) -> list[Path]:
    """Predict a bed from files, check it, and write it.

    A stopped run, even one ended by SIGKILL, resumes when it is started again with the same data
    and options, and gives the same files, byte for byte (on one device). It also resumes with
    another ``memory``; the bed then differs by less than 1e-3 m in float32. Intermediate files are
    next to the first product, in the folder ``.<name>.parts``. Existing products are replaced only
    at the end.

    Started by ``torchrun``, each process refines every n-th band, on a GPU of its own where there
    are GPUs, and the first assembles them; all must see the same folders.

    Parameters
    ----------
    checkpoints
        Trained networks, one or several (an ensemble). A folder stands for its
        ``best.safetensors``, as `deepbedmap train` writes it; else for all ``.safetensors`` in it,
        or else for every ``best.safetensors`` in its subfolders, by name.
    inputs
        Rasters, or by name (``prior``, ``surface``, ``velocity``, ``accumulation``, and perhaps
        ``surface_filler``) rasters or what :func:`open_source` takes.
    out
        Paths of one product or several, whose names end in ``.tif`` (a Cloud Optimized GeoTIFF of
        the bed), ``.nc`` or ``.zarr`` (all layers).
    bounds
        Whole kilometres on the prior's cell edges; by default the extent of the prior without
        the 1 km margin that the inputs must cover around the bed.
    memory
        Bytes for the network's work, on the GPU or on the CPU; by default 80 % of the free memory
        of a GPU, or 2 GB.
    device
        Where to compute; by default a GPU, if there is one.
    precision
        ``"bfloat16"`` (autocast on a GPU; on a CPU all is float32) or ``"float32"``; by default
        the precision of each network's training: :func:`deepbedmap.model.prediction.autocasts`.
    client
        A ``dask.distributed.Client``: its workers, which must see the same files, refine the bands
        on their CPUs; this process writes them.
    geoid
        Height of the geoid above the ellipsoid in metres: a layer of the product, used by checks
        that need heights above sea level.
    mask
        In BedMachine's classes: 0 ocean, 1 ice-free land, 2 grounded ice, 3 floating ice.
    policies
        As :func:`deepbedmap.products.check` takes them.
    outline
        Polygons of the grounded ice, or their file. The bed is cut at the grounding line, or with a
        bathymetry blended into that.
    bathymetry
        Sea floor in metres, on the vertical datum of the prior.
    blend_width
        Width of the blend on each side of the grounding line, in metres.
    progress
        Called with the amount done, the total and the name of the step: refining (in km of rows),
        then writing each product.
    report
        Called with the report of the checks, before anything is written.

    Returns
    -------
    list of pathlib.Path
        The products: see :func:`deepbedmap.products.assemble` for their layers. Of an ensemble, the
        bed is that of the first network; all members, their mean and their standard deviation are
        further layers. The provenance names inputs and checkpoints with their checksums, the
        training set that each checkpoint states, and the commit of the registry.

    Raises
    ------
    InvalidDataError
        The window with its margin reaches beyond an input; inputs differ in CRS or vertical datum,
        or have other bands; a checkpoint's network does not map such inputs to a bed of 250 m;
        ``memory`` is too small for a band (the minimum is named); a folder cannot be written, or
        has no room. A check refuses the bed: the refined rows are kept, so that the same call with
        other policies computes nothing again.
    MissingDataError
        A file is missing; the message names the command that gets it.
    DeepBedMapError
        Another process is writing the same product.
    ValueError
        Bounds that are not made of whole kilometres; another suffix; a product named twice.
    """
    import rasterio

    from deepbedmap import products

    products.policies_of(policies)
    if bathymetry is not None and outline is None:
        raise WrongCallError("bathymetry: expected an outline too, along which it is blended")
    paths = product_paths(out)
    files = checkpoint_files(checkpoints)
    opened = open_inputs(inputs)
    more = {"geoid": geoid, "mask": mask, "bathymetry": bathymetry}
    others = {role: raster_of(source) for role, source in more.items() if source is not None}
    window = covered_window(opened, bounds)
    networks = _load_networks(files)
    with (
        rasterio.Env(GDAL_CACHEMAX=_CACHE),
        distributed.joined("cpu" if client is not None else device) as place,
    ):
        autocast = [autocasts(network, place, precision) for network in networks]
        work = Refinement(networks, opened, window, memory, autocast)
        if distributed.rank():
            _refine_with_others(work, paths[0], place)
            return paths
        rasters_by_role = {
            ROLES[name]: each for name, each in rasters_by_name(opened).items()
        } | others
        sources = sources_of_product(rasters_by_role, outline, files)
        identity = identity_of(work, sources, rasters_by_role)
        parts = Parts(paths[0], identity)
        store = BedStore(parts.folder, work)
        # Before hours of work: whether there is memory, and whether all layers go together.
        bands = _bands(work, place)
        dataset = assemble_layers(store, work, sources, others)
        dataset = _ended_at_grounding_line(dataset, outline, others.get("bathymetry"), blend_width)
        store.require_room(paths)
        with parts:
            store.make()
            items = _unfinished(parts, _kept(parts, bands, [memory, place.type]))
            _broadcast(_Shared(identity, items))
            _refine(work, items, parts, place, client, progress)
            if distributed.world() > 1:
                torch.distributed.barrier()
            dataset, checks = products.correct(dataset, policies=policies)
            if report is not None:
                report(checks)
            add_provenance(dataset, policies=policies, checks=checks.to_dict())
            return publish(dataset, paths, parts, progress)


class _Item(NamedTuple):
    """Rows of the bed by one network, in km."""

    member: int
    start: int
    stop: int


class _Shared(NamedTuple):
    identity: dict[str, Any]
    items: list[_Item]


def _load_networks(files: Sequence[Path]) -> list[torch.nn.Module]:
    """Networks of checkpoints, each of which fits the inputs and the bed."""
    loaded = [saved.load(file) for file in files]
    for file, checkpoint in zip(files, loaded, strict=True):
        require_fitting_network(checkpoint, str(file))
    return [checkpoint.network for checkpoint in loaded]


def _refine_with_others(work: Refinement, product: Path, place: torch.device) -> None:
    """Refine the share of a process that is not the first, which writes the products."""
    shared = _broadcast()
    _refine(work, shared.items, Parts(product, shared.identity), place)
    torch.distributed.barrier()


def _ended_at_grounding_line(
    dataset: xr.Dataset, outline: Any, bathymetry: xr.DataArray | None, blend_width: float
) -> xr.Dataset:
    """Cut the bed at the grounding line, or blend it into a bathymetry there."""
    from deepbedmap import products

    if outline is None:
        return dataset
    if bathymetry is None:
        return products.cut_at_grounding_line(dataset, outline)
    return products.blend(dataset, bathymetry, outline, blend_width)


def _bands(work: Refinement, place: torch.device) -> list[list[tuple[int, int]]]:
    """First row, and the one beyond the last, of each network's bands."""
    _, shape = reader(work.inputs, work.bounds)
    return [
        [
            (band.start, band.stop)
            for band in domain.bands(
                network.to(place), shape, work.memory, device=place, autocast=autocast
            )
        ]
        for network, autocast in zip(work.networks, work.autocast, strict=True)
    ]


def _kept(
    parts: Parts, bands: list[list[tuple[int, int]]], settings: list[Any]
) -> list[list[tuple[int, int]]]:
    """The bands of an earlier run with the same settings, else these.

    Where the bed is cut into bands affects its last bits, and free memory differs between runs.
    """
    file = parts.folder / "bands.json"
    with contextlib.suppress(OSError, ValueError):
        kept = json.loads(file.read_text())
        if kept["asked"] == settings:
            return [[(start, stop) for start, stop in ranges] for ranges in kept["bands"]]
    with beside(file) as part:
        part.write_text(json.dumps({"asked": settings, "bands": bands}))
    return bands


def _unfinished(parts: Parts, bands: Iterable[Iterable[tuple[int, int]]]) -> list[_Item]:
    """Bands without the rows that are done, as an earlier run may have had other bands."""
    items = []
    for member, ranges in enumerate(bands):
        for start, stop in ranges:
            left = [row for row in range(start, stop) if not parts.is_done(f"{member}.{row}")]
            for _, run in itertools.groupby(enumerate(left), lambda pair: pair[1] - pair[0]):
                rows = [row for _, row in run]
                items.append(_Item(member, rows[0], rows[-1] + 1))
    return items


def _broadcast(shared: _Shared | None = None) -> Any:
    """Send an object of the first process to all; return it."""
    box = [shared]
    if distributed.world() > 1:
        torch.distributed.broadcast_object_list(box)
    return box[0]


def _refine(
    work: Refinement,
    items: Sequence[_Item],
    parts: Parts,
    place: torch.device,
    client: Any = None,
    progress: StepProgress | None = None,
) -> None:
    """Refine this process's share of bands; one is written while the next is computed."""
    store = BedStore(parts.folder, work)
    total = len(work.networks) * work.shape[0] // _CELLS
    mine = items[distributed.rank() :: distributed.world()]
    if client is None:
        refined: Iterator[Iterable[Block]] = (_blocks(item, work, place) for item in mine)
    else:
        refined = mapped(_all_blocks, mine, client, work)
    with ThreadPoolExecutor(1) as writer:
        waiting: deque[Future[None]] = deque()
        for item, blocks in zip(mine, refined, strict=True):
            if progress is not None:
                progress(parts.count, total, "refining")
            written = []
            for block in blocks:
                written.append(writer.submit(store.write, item.member, block))
                waiting.append(written[-1])
                if len(waiting) > _AHEAD:
                    waiting.popleft().result()
            waiting.append(writer.submit(_mark, parts, item, written))
        while waiting:
            waiting.popleft().result()
    if progress is not None:
        progress(total, total, "refining")


def _mark(parts: Parts, item: _Item, written: Iterable[Future[None]]) -> None:
    for each in written:
        each.result()  # raises if it could not be written: then the rows are not done
    for row in range(item.start, item.stop):
        parts.done(f"{item.member}.{row}")


def _blocks(item: _Item, work: Refinement, place: torch.device) -> Iterator[Block]:
    return domain.refine_band(
        work.networks[item.member].to(place),
        Reader(work.inputs, work.bounds),
        (work.shape[0] // _CELLS + 2, work.shape[1] // _CELLS + 2),
        slice(item.start, item.stop),
        device=place,
        autocast=work.autocast[item.member],
        memory=work.memory,
    )


def _all_blocks(item: _Item, work: Refinement) -> list[Block]:
    import rasterio

    with rasterio.Env(GDAL_CACHEMAX=_CACHE):
        return list(_blocks(item, work, torch.device("cpu")))
