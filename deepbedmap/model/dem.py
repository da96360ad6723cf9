"""A bed DEM from files to files: of any extent, by one network or several, however it is stopped.

The bed is refined in bands of rows (:mod:`deepbedmap.model.domain`), which land in plain files
beside the product's place. When all are there, layers are put together, checked and written
(:mod:`deepbedmap.products`, :mod:`deepbedmap.consistency`).
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from deepbedmap import __version__
from deepbedmap.errors import Fault, InvalidDataError, MissingDataError
from deepbedmap.inputs import PADDING, RESOLUTION, RESOLUTIONS, Inputs
from deepbedmap.model import checkpoints as saved
from deepbedmap.model import distributed, domain, prediction
from deepbedmap.parts import Parts, mapped
from deepbedmap.repository import beside

if TYPE_CHECKING:
    import xarray as xr

    from deepbedmap.consistency import Policy, Report
    from deepbedmap.progress import Tell
    from deepbedmap.rasters import Bounds

SUFFIXES = (".tif", ".nc", ".zarr")
"""What a product's name may end in."""

CHUNK = 1024
"""Cells a side of what is read back, checked and written at once."""

Source: TypeAlias = "str | os.PathLike[str] | xr.DataArray"

_FORMAT = 1  # of the work folder: that of another one is not gone on with
_CELLS = round(RESOLUTIONS["x"] / RESOLUTION)  # of the bed, along a side of one of the prior
_AHEAD = 4  # parts of the bed that wait to be written
_CACHE = 256 * 2**20  # bytes of blocks that GDAL keeps: by default 5 % of all the machine has
_ROLES = {field.name: field.name.replace("_", " ") for field in fields(Inputs)}


def open_source(source: str | os.PathLike[str]) -> xr.DataArray:
    """Open a raster by its path, or by its name in the registry.

    Parameters
    ----------
    source
        A file or a Zarr folder; with ``:NAME`` behind it a variable of it, with ``:NAME,NAME``
        several, as bands in this order. Else the name of a raster's entry in the catalogs
        ``lowres`` and ``misc``, or the citekey of a dataset that has one raster: then the file is
        that under :func:`deepbedmap.repository.data_dir`.

    Returns
    -------
    xarray.DataArray
        As :func:`deepbedmap.rasters.open_raster` gives it; of a NetCDF file with ``vx`` and ``vy``
        these two as bands. Of a file in a repository also with the CRS and the vertical datum that
        the registry knows.

    Raises
    ------
    MissingDataError
        There is no such file (the message says which command gets it) and no such name.
    InvalidDataError
        It cannot be read; a variable must be named; or a dataset has several rasters.
    """
    from deepbedmap import rasters
    from deepbedmap.drivers import RasterSource

    path, variables = _variables_of(os.fspath(source))
    if Path(path).is_dir():
        return rasters.open_raster(path, variables)
    if Path(path).is_file():
        opened: xr.DataArray = RasterSource(path, variables).read()
        return opened
    if Path(path).suffix or Path(path).name != path:
        return rasters.open_raster(path)  # it says what to do
    named: xr.DataArray = _entry(path).read()
    return named


def _variables_of(source: str) -> tuple[str, str | list[str] | None]:
    path, colon, names = source.rpartition(":")
    if not colon or Path(source).exists():
        return source, None
    variables = names.split(",")
    return path, variables if len(variables) > 1 else names


def _entry(name: str) -> Any:
    """Return the raster of the catalogs that has a name, or belongs to the dataset of that name."""
    from deepbedmap import catalog, schemas
    from deepbedmap.drivers import RasterSource

    bundled = catalog.bundled()
    known = {
        entry: source
        for folder in ("lowres", "misc")
        for entry in bundled[folder]
        if isinstance(source := bundled[folder][entry], RasterSource)
    }
    fitting = [
        entry for entry, each in known.items() if name in (entry, each.metadata.get("citekey"))
    ]
    if len(fitting) == 1:
        return known[fitting[0]]
    citekeys = {str(each.metadata.get("citekey")) for each in known.values()}
    fault = Fault(
        name,
        expected="the path of a raster, or the name of one in the registry",
        found=f"a dataset of several: {', '.join(fitting)}" if fitting else "neither",
        remedy="name one of them" if fitting else schemas.near(name, [*known, *citekeys]),
    )
    if fitting:
        raise InvalidDataError(fault)
    raise MissingDataError(str(fault))


def make_dem(
    checkpoints: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    inputs: Inputs | Mapping[str, Source],
    out: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    bounds: Bounds | None = None,
    memory: int | None = None,
    device: str | torch.device | None = None,
    precision: prediction.Precision | None = None,
    client: Any = None,
    geoid: Source | None = None,
    mask: Source | None = None,
    policies: Mapping[str, Policy] | Policy = "report",
    outline: Any = None,
    bathymetry: Source | None = None,
    blend_width: float = 5_000,
    progress: Tell | None = None,
    report: Callable[[Report], None] | None = None,
) -> list[Path]:
    """Predict a bed from files, check it, and write it.

    A run that was stopped, even by SIGKILL, goes on when it is started again with the same data and
    options, and gives the same files, byte for byte (on one device). With another ``memory`` it
    goes on too; the bed then differs by less than 1e-3 m in float32. The work is done beside the
    first product, in the folder ``.<name>.parts``. What is at a product's place is replaced in the
    end.

    Started by ``torchrun``, each process refines every n-th band, on a GPU of its own where there
    are GPUs, and the first puts them together; all must see the same folders.

    Parameters
    ----------
    checkpoints
        Trained networks, one or several (an ensemble). Of a folder its ``best.safetensors``, as
        `deepbedmap train` leaves it; else all ``.safetensors`` in it, or else those that are called
        ``best.safetensors`` in its folders, by name.
    inputs
        Rasters, or by name (``prior``, ``surface``, ``velocity``, ``accumulation``, and perhaps
        ``surface_filler``) rasters or what :func:`open_source` takes.
    out
        Of one product or several, whose names end in ``.tif`` (a Cloud Optimized GeoTIFF of the
        bed), ``.nc`` or ``.zarr`` (all layers).
    bounds
        Whole kilometres on the prior's cell edges; by default what the prior covers, less the 1 km
        by which the inputs must reach beyond.
    memory
        Bytes for the network's work, on the GPU or on the CPU; by default 80 % of what a GPU has
        free, or 2 GB.
    device
        By default a GPU, if there is one.
    precision
        ``"bfloat16"`` (autocast on a GPU; on a CPU all is float32) or ``"float32"``; by default
        what each network was trained in: :func:`deepbedmap.model.prediction.autocasts`.
    client
        A ``dask.distributed.Client``: its workers, which must see the same files, refine the bands
        on their CPUs; this process writes them.
    geoid
        Height of the geoid above the ellipsoid in metres: a layer, and for checks that need heights
        above the sea.
    mask
        BedMachine's: 0 ocean, 1 ice-free land, 2 grounded ice, 3 floating ice.
    policies
        As :func:`deepbedmap.consistency.check` takes them.
    outline
        Polygons of the grounded ice, or the file of them. Alone, the bed is cut there; with a
        bathymetry it goes over into that.
    bathymetry
        Sea floor in metres, on the vertical datum of the prior.
    blend_width
        Metres on each side of the grounding line.
    progress
        Called with how much is done, of how much, and of what: of refining (in km of rows), then of
        writing each product.
    report
        Called with what the checks found, before anything is written.

    Returns
    -------
    list of pathlib.Path
        The products: see :func:`deepbedmap.products.assemble` for their layers. Of an ensemble, the
        bed is that of the first network; all members, their mean and their standard deviation stand
        beside it. The provenance names inputs and checkpoints with their checksums, what each
        checkpoint says of its training set, and the commit of the registry.

    Raises
    ------
    InvalidDataError
        The window with its margin reaches beyond an input; inputs differ in CRS or vertical datum,
        or have other bands; a checkpoint is no network from such inputs to a bed of 250 m;
        ``memory`` is too small for a band (the least that would do is named); a folder cannot be
        written, or has no room. A check refuses: the work is kept, so that the same call with other
        policies computes nothing anew.
    MissingDataError
        A file is not there; the message says which command gets it.
    DeepBedMapError
        Another process is writing the same product.
    ValueError
        Bounds that are not made of whole kilometres; another suffix; a product named twice.
    """
    import rasterio

    from deepbedmap import consistency

    consistency.policies_of(policies)
    if bathymetry is not None and outline is None:
        raise ValueError("bathymetry: expected an outline too, along which it is blended")
    paths = _require_names(out)
    files = _checkpoints(checkpoints)
    opened = _open(inputs)
    more = {"geoid": geoid, "mask": mask, "bathymetry": bathymetry}
    others = {role: _raster(source) for role, source in more.items() if source is not None}
    window = _window(opened, bounds)
    loaded = [saved.load(file) for file in files]
    for file, checkpoint in zip(files, loaded, strict=True):
        _require_fitting(checkpoint, str(file))
    networks = [checkpoint.network for checkpoint in loaded]
    with (
        rasterio.Env(GDAL_CACHEMAX=_CACHE),
        distributed.joined("cpu" if client is not None else device) as place,
    ):
        autocast = [prediction.autocasts(network, place, precision) for network in networks]
        work = _Work(networks, opened, window, memory, autocast)
        if distributed.rank():
            shared = _told()
            _refine(work, shared.items, Parts(paths[0], shared.identity), place)
            torch.distributed.barrier()
            return paths
        rasters_by_role = {_ROLES[name]: each for name, each in _given(opened).items()} | others
        sources = _sources(rasters_by_role, outline, files)
        identity = _identity(work, sources, rasters_by_role)
        parts = Parts(paths[0], identity)
        store = _Store(parts.folder, work)
        # Before hours of work: whether there is memory, and whether all layers go together.
        bands = _bands(work, place)
        dataset = _assemble(store, work, sources, others)
        if outline is not None and bathymetry is not None:
            dataset = consistency.blend(dataset, others["bathymetry"], outline, blend_width)
        elif outline is not None:
            dataset = consistency.cut_at_grounding_line(dataset, outline)
        store.require_room(paths)
        with parts:
            store.make()
            items = _left(parts, _kept(parts, bands, [memory, place.type]))
            _told(_Shared(identity, items))
            _refine(work, items, parts, place, client, progress)
            if distributed.world() > 1:
                torch.distributed.barrier()
            dataset, found = consistency.correct(dataset, policies=policies)
            if report is not None:
                report(found)
            _add(dataset, policies=policies, checks=found.to_dict())
            return _publish(dataset, paths, parts, progress)


@dataclass(frozen=True)
class _Work:
    """What each process must know to refine a band."""

    networks: list[nn.Module]
    inputs: Inputs
    bounds: Bounds
    memory: int | None
    autocast: list[bool]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the bed, in cells of 250 m."""
        xmin, ymin, xmax, ymax = self.bounds
        return round((ymax - ymin) / RESOLUTION), round((xmax - xmin) / RESOLUTION)


class _Item(NamedTuple):
    """Rows of the bed by one network, in km."""

    member: int
    start: int
    stop: int


class _Shared(NamedTuple):
    identity: dict[str, Any]
    items: list[_Item]


def _require_names(out: Any) -> list[Path]:
    """Places of the products, each of which can be written; nothing has been computed yet."""
    paths = [Path(path) for path in ([out] if isinstance(out, str | os.PathLike) else out)]
    if not paths or len({path.absolute() for path in paths}) < len(paths):
        raise ValueError("out: expected the names of one product or several, each once")
    for path in paths:
        if path.suffix not in SUFFIXES:
            raise ValueError(
                f"out: expected a name that ends in {', '.join(SUFFIXES)}, not {path.name!r}"
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path.parent):
                pass
        except OSError as error:
            raise InvalidDataError(
                Fault(
                    str(path),
                    expected="a folder that can be written",
                    found=str(error.strerror),
                    remedy="choose another place",
                )
            ) from error
    return paths


def _checkpoints(given: Any) -> list[Path]:
    files: list[Path] = []
    for path in map(Path, [given] if isinstance(given, str | os.PathLike) else given):
        found = [path]
        if path.is_dir():
            best = path / "best.safetensors"
            found = [best] if best.exists() else sorted(path.glob("*.safetensors"))
            found = found or sorted(path.glob("*/best.safetensors"))
        if not found:
            fault = Fault(str(path), expected="a folder with .safetensors files", found="none")
            raise MissingDataError(str(fault))
        files += found
    if not files:
        raise ValueError("checkpoints: expected one or several, found none")
    return files


def _raster(source: Source) -> xr.DataArray:
    return open_source(source) if isinstance(source, str | os.PathLike) else source


def _open(inputs: Inputs | Mapping[str, Source]) -> Inputs:
    """The inputs as rasters that go together."""
    if not isinstance(inputs, Inputs):
        names = {*_ROLES}
        absent = sorted(names - {"surface_filler"} - inputs.keys()) or sorted(inputs.keys() - names)
        if absent:
            raise ValueError(f"inputs: expected {', '.join(_ROLES)}; see {absent[0]!r}")
        inputs = Inputs(**{name: _raster(source) for name, source in inputs.items()})
    from deepbedmap import rasters

    for name, raster in _given(inputs).items():
        bands = 2 if name == "velocity" else 1
        found = rasters.band_count(raster)
        if found != bands:
            raise InvalidDataError(
                Fault(
                    rasters.name_of(raster),
                    entry=_ROLES[name],
                    field="bands",
                    expected=str(bands),
                    found=str(found),
                    remedy="name the variables: FILE:NAME, or FILE:NAME,NAME",
                )
            )
        rasters.require_same_reference(inputs.prior, raster)
    return inputs


def _given(inputs: Inputs) -> dict[str, xr.DataArray]:
    """The rasters by the names of their fields, without a filler that is not there."""
    return {name: raster for name in _ROLES if (raster := getattr(inputs, name)) is not None}


def _window(inputs: Inputs, bounds: Bounds | None) -> Bounds:
    """What is predicted: what is asked for, else all of the prior; every input reaches beyond."""
    from deepbedmap import rasters

    cell, covered = RESOLUTIONS["x"], rasters.bounds_of(inputs.prior)
    if bounds is None:
        xmin, ymin = covered[0] + PADDING, covered[1] + PADDING
        columns, rows = (
            math.floor((high - low - 2 * PADDING) / cell + 1e-6)
            for low, high in zip(covered[:2], covered[2:], strict=True)
        )
        bounds = xmin, ymin, xmin + columns * cell, ymin + rows * cell
    prediction.window(inputs, bounds)
    xmin, ymin, xmax, ymax = map(float, bounds)
    least = np.array([xmin, ymin, -xmax, -ymax]) - PADDING
    edges = {
        name: np.array(rasters.bounds_of(raster)) * [1, 1, -1, -1]
        for name, raster in inputs.by_name.items()
    }
    for name, outer in edges.items():
        if (outer > least + 1e-6 * cell).any():
            raster = inputs.by_name[name]
            common = np.max([*edges.values()], axis=0) + PADDING
            origin = np.array([*covered[:2], -covered[0], -covered[1]])
            inner = origin + np.ceil((common - origin) / cell - 1e-6) * cell
            inner *= [1, 1, -1, -1]
            some = (inner[:2] < inner[2:]).all()
            raise InvalidDataError(
                Fault(
                    rasters.name_of(raster),
                    expected=f"a box within the raster's bounds {_text(rasters.bounds_of(raster))}",
                    found=f"{_text(np.abs(least) * np.sign(least) * [1, 1, -1, -1])}, the window "
                    f"with {PADDING:g} m around it",
                    remedy=f"take bounds within {_text(inner)}, which all inputs cover"
                    if some
                    else "take other inputs: no place is covered by all",
                )
            )
    return xmin, ymin, xmax, ymax


def _text(bounds: Iterable[float]) -> str:
    return "(" + ", ".join(f"{edge:.10g}" for edge in bounds) + ")"


def _require_fitting(checkpoint: saved.Checkpoint, file: str) -> None:
    """Check that a network takes these inputs and gives a bed of 250 m."""
    expected = ", ".join(f"{name} at {cell:g} m" for name, cell in RESOLUTIONS.items())
    fault = Fault(
        file,
        field="network",
        expected=f"one from {expected} to a bed at {RESOLUTION:g} m",
        remedy="take a checkpoint that was trained on such tiles",
    )
    stated = checkpoint.metadata.get("resolutions", RESOLUTIONS)
    if stated != RESOLUTIONS:
        raise InvalidDataError(replace(fault, found=f"one for {stated}"))
    network = checkpoint.network
    tile = [torch.zeros(1, bands, cells, cells) for bands, cells in _TILE.values()]
    try:
        with torch.inference_mode():
            shape = tuple(network(*tile).shape)
    except (TypeError, ValueError, RuntimeError) as error:
        found = f"{type(network).__name__}, which takes others ({error})"
        raise InvalidDataError(replace(fault, found=found)) from error
    if shape != (1, 1, 36, 36):
        found = f"one that makes {shape} of a tile of 11 x 11 km"
        raise InvalidDataError(replace(fault, found=found))


_TILE = {"x": (1, 11), "w1": (1, 110), "w2": (2, 22), "w3": (1, 11)}


def _sources(
    rasters_by_role: Mapping[str, xr.DataArray], outline: Any, files: Iterable[Path]
) -> list[dict[str, Any]]:
    """What the product is made of, as :mod:`deepbedmap.citation` reads it; each file read once."""
    from deepbedmap import citation, rasters

    def path_of(raster: xr.DataArray) -> Path | None:
        source = raster.encoding.get("source")
        return Path(source) if source and Path(source).exists() else None

    places: list[tuple[str, Path | None]] = [
        (role, path_of(raster)) for role, raster in rasters_by_role.items()
    ]
    if isinstance(outline, str | os.PathLike):
        places.append(("grounding line", Path(outline)))
    unique = dict.fromkeys(path for _, path in places if path is not None)
    with ThreadPoolExecutor(4) as pool:
        told = pool.map(partial(citation.describe, role=""), unique)
        described = dict(zip(unique, told, strict=True))
    sources = []
    for role, path in places:
        if path is not None:
            sources.append(described[path] | {"role": role})
            continue
        raster = rasters_by_role[role]
        source = {"role": role, "file": Path(rasters.name_of(raster)).name}
        with contextlib.suppress(KeyError, TypeError, ValueError):
            source["sources"] = json.loads(raster.attrs["provenance"])["sources"]
        sources.append(source)
    return sources + [saved.describe(file) for file in files]


def _identity(
    work: _Work, sources: Sequence[dict[str, Any]], rasters_by_role: Mapping[str, xr.DataArray]
) -> dict[str, Any]:
    """What the refined bed depends on."""
    roles = {_ROLES[name] for name in _given(work.inputs)}
    return {
        "format": _FORMAT,
        "sources": [source for source in sources if source["role"] in {*roles, "checkpoint"}],
        "rasters": {role: _digest(rasters_by_role[role]) for role in sorted(roles)},
        "bounds": work.bounds,
        "autocast": work.autocast,
    }


def _digest(raster: xr.DataArray) -> list[Any]:
    """What tells a raster from others, beside the checksum of the file that it is read from."""
    from deepbedmap import rasters

    bands = raster[raster.dims[0]].to_numpy().tolist() if raster.ndim == 3 else [raster.name]
    said = [raster.shape, rasters.bounds_of(raster), sorted(map(repr, raster.attrs.items())), bands]
    if "source" in raster.encoding:
        return said
    if raster.chunks is not None:
        return [*said, raster.data.name]
    values = np.ascontiguousarray(raster.to_numpy())
    return [*said, hashlib.sha256(values.data).hexdigest()]


class _Store:
    """Refined beds in plain files, whose rows several processes may write."""

    def __init__(self, folder: Path, work: _Work) -> None:
        self.shape = work.shape
        self.beds = [folder / f"bed{member}.float32" for member in range(len(work.networks))]
        self.quality = folder / "quality.uint8"

    @property
    def sizes(self) -> dict[Path, int]:
        """Bytes of each file."""
        cells = math.prod(self.shape)
        return dict.fromkeys(self.beds, 4 * cells) | {self.quality: cells}

    def require_room(self, paths: Sequence[Path]) -> None:
        """Check that what is not written yet has room, and what a GeoTIFF is made from."""
        parent = paths[0].parent
        held = sum(file.stat().st_blocks * 512 for file in self.sizes if file.exists())
        needed, free = sum(self.sizes.values()) - held, shutil.disk_usage(parent).free
        if any(path.suffix == ".tif" and path.parent == parent for path in paths):
            needed += 4 * math.prod(-(-cells // 512) * 512 for cells in self.shape)
        if needed > free:
            raise InvalidDataError(
                Fault(
                    str(parent),
                    expected=f"room for {needed / 1e6:.1f} MB of work",
                    found=f"{free / 1e6:.1f} MB",
                    remedy="make room, or choose another place",
                )
            )

    def make(self) -> None:
        """Make the files that are not there yet."""
        for file, size in self.sizes.items():
            with file.open("ab") as opened:
                opened.truncate(size)

    def write(self, member: int, block: domain.Block) -> None:
        """Write a block of the bed; of the first network's, its quality too."""
        self._write(self.beds[member], block.bed, block)
        if member == 0:
            self._write(self.quality, block.quality, block)

    def _write(self, path: Path, values: npt.NDArray[Any], block: domain.Block) -> None:
        values = np.ascontiguousarray(values)
        try:
            with path.open("r+b") as file:
                for number, row in enumerate(values):
                    first = (block.top + number) * self.shape[1] + block.left
                    file.seek(first * values.itemsize)
                    file.write(row.data)
        except OSError as error:
            raise InvalidDataError(
                Fault(
                    str(path),
                    expected="a file that can be written",
                    found=f"{error.strerror}; what is done is kept",
                    remedy="make room, then start the same again",
                )
            ) from error

    def read(self, path: Path) -> Any:
        """Give what a file holds, lazily, as an array of dask."""
        from dask import array

        rows = _Rows(path, self.shape)
        empty, name = np.empty((0, 0), rows.dtype), f"{path.name}-{path}"
        return array.from_array(  # type: ignore[no-untyped-call]
            rows, (CHUNK, CHUNK), name=name, asarray=False, meta=empty
        )


@dataclass(frozen=True)
class _Rows:
    """A plain file of rows, of which no more is held than is asked for."""

    path: Path
    shape: tuple[int, int]
    ndim: int = 2

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.path.suffix[1:])

    def __getitem__(self, part: Any) -> npt.NDArray[Any]:
        return np.array(np.memmap(self.path, self.dtype, "r", shape=self.shape)[part])


def _bands(work: _Work, place: torch.device) -> list[list[tuple[int, int]]]:
    """First row, and the one beyond the last, of each network's bands."""
    _, shape = prediction.reader(work.inputs, work.bounds)
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
    parts: Parts, bands: list[list[tuple[int, int]]], asked: list[Any]
) -> list[list[tuple[int, int]]]:
    """The bands of an earlier run of which the same was asked, else these.

    How the bed is cut shows in its last bits, and free memory is never the same.
    """
    file = parts.folder / "bands.json"
    with contextlib.suppress(OSError, ValueError):
        kept = json.loads(file.read_text())
        if kept["asked"] == asked:
            return [[(start, stop) for start, stop in ranges] for ranges in kept["bands"]]
    with beside(file) as part:
        part.write_text(json.dumps({"asked": asked, "bands": bands}))
    return bands


def _left(parts: Parts, bands: Iterable[Iterable[tuple[int, int]]]) -> list[_Item]:
    """Bands, or what is left of them where an earlier run had other ones."""
    items = []
    for member, ranges in enumerate(bands):
        for start, stop in ranges:
            left = [row for row in range(start, stop) if not parts.is_done(f"{member}.{row}")]
            for _, run in itertools.groupby(enumerate(left), lambda pair: pair[1] - pair[0]):
                rows = [row for _, row in run]
                items.append(_Item(member, rows[0], rows[-1] + 1))
    return items


def _told(shared: _Shared | None = None) -> Any:
    """Tell what the first process knows to all."""
    box = [shared]
    if distributed.world() > 1:
        torch.distributed.broadcast_object_list(box)
    return box[0]


def _refine(
    work: _Work,
    items: Sequence[_Item],
    parts: Parts,
    place: torch.device,
    client: Any = None,
    progress: Tell | None = None,
) -> None:
    """Refine this process's share of bands; what is done is written while the next is computed."""
    store = _Store(parts.folder, work)
    total = len(work.networks) * work.shape[0] // _CELLS
    mine = items[distributed.rank() :: distributed.world()]
    if client is None:
        refined: Iterator[Iterable[domain.Block]] = (_blocks(item, work, place) for item in mine)
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
        each.result()  # what could not be written is not done
    for row in range(item.start, item.stop):
        parts.done(f"{item.member}.{row}")


def _blocks(item: _Item, work: _Work, place: torch.device) -> Iterator[domain.Block]:
    return domain.refine_band(
        work.networks[item.member].to(place),
        prediction.Reader(work.inputs, work.bounds),
        (work.shape[0] // _CELLS + 2, work.shape[1] // _CELLS + 2),
        slice(item.start, item.stop),
        device=place,
        autocast=work.autocast[item.member],
        memory=work.memory,
    )


def _all_blocks(item: _Item, work: _Work) -> list[domain.Block]:
    import rasterio

    with rasterio.Env(GDAL_CACHEMAX=_CACHE):
        return list(_blocks(item, work, torch.device("cpu")))


def _assemble(
    store: _Store,
    work: _Work,
    sources: Sequence[dict[str, Any]],
    others: Mapping[str, xr.DataArray],
) -> xr.Dataset:
    """All layers on the cells of the bed, lazily."""
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
            "registry_commit": saved.registry_commit(),
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


def _add(dataset: xr.Dataset, **said: Any) -> None:
    """Put more into the provenance."""
    dataset.attrs["provenance"] = json.dumps(json.loads(dataset.attrs["provenance"]) | said)


def _publish(
    dataset: xr.Dataset, paths: Sequence[Path], parts: Parts, progress: Tell | None
) -> list[Path]:
    """Write the products; the first takes the work folder with it."""
    from deepbedmap import products

    for path in (*paths[1:], first := parts.folder / paths[0].name):

        def tell(done: int, total: int, path: Path = path) -> None:
            if progress is not None:
                progress(done, total, f"writing {path.name}")

        products.write(dataset, path, progress=tell)
    parts.publish(first)
    return list(paths)
