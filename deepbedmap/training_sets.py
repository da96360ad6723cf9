"""Training sets: tiles of surveyed beds and of what is known around them, in a Zarr store.

Written down with the tiles are their split into training and validation and the rule of it, the
areas that were left out, and the files behind them. Beside the store lie the footprints of the
tiles, in the CRS of the data and in degrees.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
import zarr
from pyproj import CRS

from deepbedmap import __version__, citation, rasters, tiles
from deepbedmap.areas import TEST_AREAS
from deepbedmap.errors import Fault, InvalidDataError, MissingDataError
from deepbedmap.inputs import INPUTS, PADDING, RESOLUTION, RESOLUTIONS, Inputs, cut_inputs
from deepbedmap.parts import Parts, mapped

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger(__name__)

CHUNK = 64
"""Tiles in a chunk of the store: of the surface, the largest, these are 3 MB."""

BATCH = 512
"""Tiles cut at once, a whole number of chunks: some 35 MB, cut in seconds."""

ZARR_FORMAT: Literal[3] = 3

_BANDS = {"x": 1, "w1": 1, "w2": 2, "w3": 1}
_HEIGHTS = {"x": "bedrock_altitude", "w1": "surface_altitude", "y": "bedrock_altitude"}
_LONG_NAMES = {
    "x": "prior bed elevation",
    "w1": "ice surface elevation",
    "w2": "ice velocity along x, then along y",
    "w3": "snow accumulation",
    "y": "surveyed bed elevation",
    "mask": "whether a cell has a surveyed bed elevation",
}
_UNITS = {"x": "m", "w1": "m", "w2": "m a-1", "w3": "kg m-2 a-1", "y": "m", "mask": "1"}
_EDGES = ["xmin", "ymin", "xmax", "ymax"]
_TOLD = [*_EDGES, "coverage", "survey", "split", "complete"]

Grid = xr.DataArray | str | os.PathLike[str]
GroundingLine: TypeAlias = "gpd.GeoDataFrame | str | os.PathLike[str] | None"
Cut = dict[str, npt.NDArray[Any]]


def build(
    grids: Mapping[str, Grid],
    inputs: Inputs,
    path: str | os.PathLike[str],
    *,
    size: int = 36,
    step: int = 3,
    coverage: float = 1.0,
    exclude: str | Iterable[str] = tuple(TEST_AREAS),
    exclude_buffer: float = 11_000,
    grounding_line: GroundingLine = None,
    grounding_buffer: float = 0,
    by: Literal["block", "survey"] = "block",
    block: float = 40_000,
    validation: float = 0.2,
    buffer: float = 11_000,
    seed: int = 0,
    client: Client | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Cut a training set from the grids of surveys, and write it.

    A run that was killed goes on when it is started again with the same data and parameters.

    Parameters
    ----------
    grids
        The gridded bed of each survey by the survey's name: ``(y, x)`` in metres with cells of
        250 m, NaN where nothing was measured, or the file of it.
    inputs
        Prior, surface, velocity and accumulation around all tiles, in the CRS of the grids;
        heights on the vertical datum of the grids.
    path
        Of the Zarr store, ``<name>.zarr``; what is there is replaced. ``<name>_3031.geojson`` (the
        EPSG code of the data) and ``<name>_4326.geojson`` are written beside it.
    size, step, coverage
        As in :func:`deepbedmap.tiles.find_windows`; size is a multiple of 4 cells.
    exclude, exclude_buffer
        Test areas, and metres around them, in which no tile may lie: see
        :func:`deepbedmap.tiles.exclude`. By default all; ``()`` for none.
    grounding_line, grounding_buffer
        ``"gshhg"``, or polygons of the grounded ice or the file of them: keep tiles on grounded ice
        alone, at least so many metres from its edge, as :func:`deepbedmap.tiles.grounded` does.
        None: floating ice and sea too.
    by, block, validation, buffer, seed
        How tiles of all surveys together are split into training and validation: see
        :func:`deepbedmap.tiles.split`. Tiles too near to both are left out.
    client
        Of ``dask.distributed``: its workers cut the tiles, and must see the files of the rasters
        under the same paths.
    progress
        Told how many tiles of how many are cut.

    Returns
    -------
    pathlib.Path
        The store, which appears complete or not at all; :func:`open_training_set` opens it.

    Raises
    ------
    InvalidDataError
        Grids and inputs differ in CRS or vertical datum; a grid has another cell; a raster another
        number of bands; no window is left, or none to train on, or none to validate with.
    MissingDataError
        A file is not there.
    ValueError
        The size is no multiple of 4, the path ends in something else, or another parameter is out
        of its range.

    Notes
    -----
    Windows around which a raster does not reach far enough (1 km beyond the tile) are left out, and
    so are tiles in which the prior, or the surface with its filler, has a gap. Where velocity or
    accumulation has one, the tile stays, the gap is NaN, and the coordinate ``complete`` is False.
    A vertical datum that nothing states is written down as "unknown", with a warning. Checksums of
    the files go into the provenance, so that each file is read once as a whole.
    """
    path = Path(path)
    if path.suffix != ".zarr":
        raise ValueError(f"{path}: the name of a training set ends in .zarr")
    if size < 4 or size % 4:
        raise ValueError(f"size must be a multiple of 4 cells, not {size}")
    if by not in ("block", "survey"):
        raise ValueError(f'by must be "block" or "survey", not {by!r}')
    beds = _opened(grids)
    datum = _require_consistent(beds, inputs)
    areas = [exclude] if isinstance(exclude, str) else list(exclude)
    cells: dict[str, Any] = {"size": size, "step": step, "coverage": coverage}
    rule: dict[str, Any] = {"by": by, "validation": validation, "buffer": buffer, "seed": seed}
    rule |= {"block": block} if by == "block" else {}
    windows = find(
        beds,
        inputs,
        exclude=areas,
        exclude_buffer=exclude_buffer,
        grounding_line=grounding_line,
        grounding_buffer=grounding_buffer,
        **cells,
        **rule,
    )
    windows = windows[windows["split"] != "dropped"]
    # Neighbours come together, so that those of a batch share what is read.
    windows = windows.iloc[np.argsort(windows.hilbert_distance(), kind="stable")]

    crs = windows.crs
    sources = _sources(beds, inputs)
    grounded = None
    if grounding_line is not None:
        outlines, named = _outlines(grounding_line), "polygons"
        if outlines is None:
            named = "GSHHG"
        elif isinstance(outlines, Path):
            named = outlines.name
            sources.append(citation.describe(outlines, "grounding line"))
        grounded = {"outlines": named, "buffer": grounding_buffer}
    provenance = {
        "sources": sources,
        "windows": cells,
        "excluded": {
            "areas": {name: TEST_AREAS[name] for name in areas},
            "buffer": exclude_buffer,
        },
        "grounded": grounded,
        "split": rule,
        "version": __version__,
    }
    attributes = {
        "Conventions": "CF-1.11",
        "title": "Tiles to train a model of the bed on",
        "crs": crs.to_string(),
        "vertical_datum": datum,
        "provenance": json.dumps(provenance),
    }
    identity = {
        "attributes": attributes,
        "rasters": [_digest(raster) for raster in (*beds.values(), *_rasters(inputs))],
        "windows": _sha256(windows[[*_EDGES, "survey", "split"]].to_csv().encode()),
        "batch": BATCH,
    }
    with Parts(path, identity) as parts:
        store = parts.folder / path.name
        if not parts.is_done("template"):
            _write_template(store, len(windows), size, crs, datum, inputs)
            parts.done("template")
        kept, complete = _cut_all(windows, beds, inputs, store, parts, client, progress)
        chosen = windows.assign(complete=complete)[kept]
        logger.info("%d of %d tiles have no gap in prior and surface", len(chosen), len(windows))
        for name in ("train", "validation"):
            if not (chosen["split"] == name).any():
                raise InvalidDataError(_nothing(f"for {name} without a gap in prior and surface"))
        _finish(store, chosen, attributes)
        code = crs.to_epsg() or "projected"
        tiles.write_footprints(chosen, path.with_name(f"{path.stem}_{code}.geojson"))
        tiles.write_footprints(chosen, path.with_name(f"{path.stem}_4326.geojson"), "EPSG:4326")
        return parts.publish(store)


def find(
    grids: Mapping[str, Grid],
    inputs: Inputs | None = None,
    *,
    size: int = 36,
    step: int = 3,
    coverage: float = 1.0,
    exclude: str | Iterable[str] = (),
    exclude_buffer: float = 11_000,
    grounding_line: GroundingLine = None,
    grounding_buffer: float = 0,
    by: Literal["block", "survey"] | None = None,
    block: float = 40_000,
    validation: float = 0.2,
    buffer: float = 11_000,
    seed: int = 0,
) -> gpd.GeoDataFrame:
    """Find the windows of several surveys, as :func:`build` does.

    Parameters
    ----------
    grids
        As in :func:`build`; of one cell size and CRS.
    inputs
        Keep the windows that lie, with a margin of 1 km, within all of these; None: all windows.
    by
        None: the windows are not split.

    Other parameters are those of :func:`build`.

    Returns
    -------
    geopandas.GeoDataFrame
        As of :func:`deepbedmap.tiles.find_windows`, with the column ``survey`` and, where they are
        split, ``split``: ``"train"``, ``"validation"`` or ``"dropped"``.

    Raises
    ------
    InvalidDataError
        Grids differ in CRS or vertical datum; or windows are to be split, and none is left, or none
        to train on, or none to validate with.
    """
    beds = _opened(grids)
    first = next(iter(beds.values()))
    found = []
    for survey, bed in beds.items():
        _require_like(first, survey, bed)
        found.append(tiles.find_windows(bed, size, step, coverage).assign(survey=survey))
        # What CF's attributes describe has no code, and is not equal to what has.
        found[-1] = found[-1].set_crs(_canonical(rasters.require_crs(first)), allow_override=True)
    windows = pd.concat(found, ignore_index=True)
    left = {f"of {size} x {size} cells, a share of {coverage:g} with a bed": len(windows)}
    if inputs is not None:
        windows = windows[_inside(windows, inputs)]
        left[f"{PADDING:g} m inside of every input"] = len(windows)
    areas = [exclude] if isinstance(exclude, str) else list(exclude)
    if areas:
        windows = tiles.exclude(windows, areas, exclude_buffer)
        left[f"clear of {', '.join(areas)}"] = len(windows)
    if grounding_line is not None:
        windows = tiles.grounded(windows, _outlines(grounding_line), grounding_buffer)
        left["on grounded ice"] = len(windows)
    for which, count in left.items():
        logger.info("windows %s: %d", which, count)
        if count == 0 and by is not None:
            raise InvalidDataError(_nothing(which))
    if by is None:
        return windows
    part = tiles.split(windows, by=by, block=block, validation=validation, buffer=buffer, seed=seed)
    return windows.assign(split=part.astype(object))


def _opened(grids: Mapping[str, Grid]) -> dict[str, xr.DataArray]:
    if not grids:
        raise ValueError("the grid of at least one survey is needed")
    return {
        str(survey): grid if isinstance(grid, xr.DataArray) else rasters.open_raster(grid)
        for survey, grid in grids.items()
    }


def _require_like(like: xr.DataArray, survey: str, bed: xr.DataArray) -> None:
    name, crs = f"{survey}: {rasters.name_of(bed)}", rasters.require_crs(bed)
    rasters.require_reference(name, crs, bed.attrs.get("vertical_datum"), like)


def _canonical(crs: CRS) -> CRS:
    """The CRS by its EPSG code, where it has one."""
    code = crs.to_epsg()
    return crs if code is None else CRS.from_epsg(code)


def _outlines(grounding_line: GroundingLine) -> gpd.GeoDataFrame | Path | None:
    """Polygons of the grounded ice, or their file; None for GSHHG's."""
    if isinstance(grounding_line, gpd.GeoDataFrame):
        return grounding_line
    return None if grounding_line in (None, "gshhg") else Path(grounding_line)


def _inside(windows: gpd.GeoDataFrame, inputs: Inputs) -> npt.NDArray[np.bool_]:
    """Which windows every input reaches far enough beyond."""
    inside = np.ones(len(windows), bool)
    for raster in inputs.by_name.values():
        xmin, ymin, xmax, ymax = rasters.bounds_of(raster)
        margin = PADDING - 1e-6 * rasters.resolution_of(raster)
        inside &= windows["xmin"].ge(xmin + margin) & windows["xmax"].le(xmax - margin)
        inside &= windows["ymin"].ge(ymin + margin) & windows["ymax"].le(ymax - margin)
    return inside


def _nothing(which: str) -> Fault:
    return Fault(
        "windows",
        expected=f"some {which}",
        found="none",
        remedy="take more surveys, larger rasters, or less coverage",
    )


def open_training_set(path: str | os.PathLike[str]) -> xr.Dataset:
    """Open a training set; tiles are read when they are used.

    Parameters
    ----------
    path
        Of the store that :func:`build`, or ``deepbedmap tiles``, wrote.

    Returns
    -------
    xarray.Dataset
        With the dimension ``tile`` first: ``x``, ``w1``, ``w2``, ``w3`` (float32, as
        :func:`deepbedmap.inputs.cut_inputs` gives them), ``y`` (tile, 1, 4h, 4w), the surveyed bed
        in float32 metres at 250 m, NaN where nothing was measured, and ``mask``, bool, True where
        it was; dask arrays in the chunks of the store. Coordinates of a tile, in memory: ``xmin,
        ymin, xmax, ymax`` in the CRS of ``spatial_ref``, ``coverage``, ``survey``, ``split``
        (``"train"`` or ``"validation"``) and ``complete`` (no input has a gap). Attributes:
        ``crs``, ``vertical_datum`` and ``provenance``, JSON with the sources, the rule of the split
        and the areas that were left out.

    Raises
    ------
    MissingDataError
        There is no such store; the message says which command makes it.
    InvalidDataError
        It is no training set.
    """
    path = Path(path)
    if not path.exists():
        raise MissingDataError(
            f"{path}: no such training set; `deepbedmap tiles GRID... --out {path} --prior FILE "
            "--surface FILE --velocity FILE --accumulation FILE` makes it"
        )
    try:
        dataset = xr.open_zarr(
            path, zarr_format=ZARR_FORMAT, consolidated=False, chunks={}, decode_coords="all"
        )
    except (OSError, ValueError, KeyError) as error:
        raise InvalidDataError(_no_training_set(path, f"what cannot be read ({error})")) from error
    absent = [name for name in (*INPUTS, "y", "mask") if name not in dataset.data_vars]
    absent += [name for name in _TOLD if name not in dataset.coords]
    if absent:
        raise InvalidDataError(_no_training_set(path, f"one without {', '.join(absent)}"))
    told = {name: dataset[name].load() for name in _TOLD}
    text = {name: told[name].astype(object) for name in ("survey", "split")}
    tidy = dataset[[*INPUTS, "y", "mask"]].drop_vars(_TOLD)
    opened: xr.Dataset = tidy.assign_coords(told | text)
    return opened


def _no_training_set(path: Path, found: str) -> Fault:
    return Fault(
        str(path),
        expected="a training set, as `deepbedmap tiles` writes it",
        found=found,
        remedy="make it again, or open another",
    )


def _rasters(inputs: Inputs) -> list[xr.DataArray]:
    filler = [] if inputs.surface_filler is None else [inputs.surface_filler]
    return [*inputs.by_name.values(), *filler]


def _require_consistent(beds: Mapping[str, xr.DataArray], inputs: Inputs) -> str:
    """Check that all rasters go together; return the vertical datum of the heights."""
    fillers = [] if inputs.surface_filler is None else [inputs.surface_filler]
    heights = [inputs.prior, inputs.surface, *fillers, *beds.values()]
    datums = [raster.attrs.get("vertical_datum") or "unknown" for raster in heights]
    datum = next((str(stated) for stated in datums if stated != "unknown"), "unknown")
    like = heights[datums.index(datum)]
    for raster in _rasters(inputs):
        rasters.require_same_reference(like, raster)
    for survey, bed in beds.items():
        _require_like(like, survey, bed)
    for name, raster in inputs.by_name.items():
        bands = raster.sizes[raster.dims[0]] if raster.ndim == 3 else 1
        if bands != _BANDS[name]:
            raise InvalidDataError(
                Fault(
                    rasters.name_of(raster),
                    expected=f"bands of {_LONG_NAMES[name]}: {_BANDS[name]}",
                    found=str(bands),
                )
            )
    for survey, bed in beds.items():
        cell = rasters.resolution_of(bed)
        if abs(cell - RESOLUTION) > 1e-6:
            raise InvalidDataError(
                Fault(
                    rasters.name_of(bed),
                    entry=survey,
                    expected=f"a grid with cells of {RESOLUTION:g} m",
                    found=f"cells of {cell:g} m",
                    remedy="grid the survey again with that spacing",
                )
            )
    if "unknown" in datums:
        names = [
            rasters.name_of(raster)
            for raster, stated in zip(heights, datums, strict=True)
            if stated == "unknown"
        ]
        logger.warning("taken for heights on one datum, though unstated: %s", ", ".join(names))
    return datum


def _sources(beds: Mapping[str, xr.DataArray], inputs: Inputs) -> list[dict[str, Any]]:
    """What the training set is made of, as :mod:`deepbedmap.citation` reads it."""
    roles = zip(("prior", "surface", "velocity", "accumulation"), _rasters(inputs), strict=False)
    described = [_describe(bed, "training") | {"survey": survey} for survey, bed in beds.items()]
    described += [_describe(raster, role) for role, raster in roles]
    if inputs.surface_filler is not None:
        described.append(_describe(inputs.surface_filler, "surface filler"))
    return described


def _describe(raster: xr.DataArray, role: str) -> dict[str, Any]:
    if (file := _file_of(raster)) is not None:
        return citation.describe(file, role)
    described = {"role": role, "file": rasters.name_of(raster)}
    try:
        return described | {"sources": json.loads(raster.attrs["provenance"])["sources"]}
    except (KeyError, TypeError, ValueError):
        return described


def _file_of(raster: xr.DataArray) -> Path | None:
    source = raster.encoding.get("source")
    return Path(source) if source and Path(source).exists() else None


def _digest(raster: xr.DataArray) -> list[Any]:
    """What tells a raster from others, beside the checksum of the file that it is read from."""
    said = [raster.shape, rasters.bounds_of(raster), sorted(map(repr, raster.attrs.items()))]
    if raster.chunks is not None:
        return [*said, "" if _file_of(raster) else raster.data.name]
    if _file_of(raster) and not raster.variable._in_memory:
        return said
    return [*said, _sha256(np.ascontiguousarray(raster.to_numpy()).tobytes())]


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _shapes(size: int) -> dict[str, tuple[int, int, int]]:
    """Bands, rows and columns of a tile, by variable."""
    padded = size * RESOLUTION + 2 * PADDING
    cells = {name: round(padded / resolution) for name, resolution in RESOLUTIONS.items()}
    shapes = {name: (_BANDS[name], count, count) for name, count in cells.items()}
    return shapes | {"y": (1, size, size), "mask": (1, size, size)}


def _write_template(
    store: Path, count: int, size: int, crs: CRS, datum: str, inputs: Inputs
) -> None:
    """Write what the store says of itself, with room for all tiles and none of them."""
    from dask import array

    variables = {}
    for name, shape in _shapes(size).items():
        owner = "y" if name == "mask" else name
        dtype = bool if name == "mask" else np.float32
        attributes = {
            "long_name": _LONG_NAMES[name],
            "units": _UNITS[name],
            "resolution": RESOLUTIONS.get(name, RESOLUTION),
            "grid_mapping": "spatial_ref",
        }
        if name in inputs.by_name:
            attributes["units"] = inputs.by_name[name].attrs.get("units", _UNITS[name])
        if name in _HEIGHTS:
            attributes |= {"standard_name": _HEIGHTS[name], "vertical_datum": datum}
        variables[name] = xr.Variable(
            ("tile", *(f"{owner}_{dim}" for dim in ("band", "row", "column"))),
            array.zeros((count, *shape), dtype=dtype, chunks=(CHUNK, *shape)),
            attributes,
            {"chunks": (CHUNK, *shape)} | ({} if name == "mask" else {"_FillValue": np.nan}),
        )
    reference = xr.Variable((), 0, crs.to_cf())
    xr.Dataset(variables, {"spatial_ref": reference}).to_zarr(
        store, mode="w", zarr_format=ZARR_FORMAT, consolidated=False, compute=False
    )


def _cut_all(
    windows: gpd.GeoDataFrame,
    beds: Mapping[str, xr.DataArray],
    inputs: Inputs,
    store: Path,
    parts: Parts,
    client: Client | None,
    progress: Callable[[int, int], None] | None,
) -> npt.NDArray[np.bool_]:
    """Fill the store, batch by batch; return (2, n): which tiles it keeps, which are complete.

    Batches are written in their order, each behind what was kept of those before it.
    """
    starts = range(0, len(windows), BATCH)
    flags = [
        np.load(parts.folder / f"{start}.npy") for start in starts if parts.is_done(f"{start}")
    ]
    todo = [windows.iloc[start : start + BATCH] for start in starts[len(flags) :]]
    group = zarr.open_group(store, mode="r+", zarr_format=ZARR_FORMAT)
    offset = sum(int(kept.sum()) for kept, _ in flags)
    plain = (pd.DataFrame(batch[[*_EDGES, "survey"]]) for batch in todo)
    cuts = mapped(_cut, plain, client, (beds, inputs))
    for start, cut in zip(starts[len(flags) :], cuts, strict=True):
        whole = {name: np.isfinite(cut[name]).all(axis=(1, 2, 3)) for name in INPUTS}
        kept = whole["x"] & whole["w1"]
        end = offset + int(kept.sum())
        for name, values in cut.items():
            group[name][offset:end] = values[kept]
        offset = end
        flags.append(np.stack([kept, np.all(list(whole.values()), axis=0)]))
        np.save(parts.folder / f"{start}.npy", flags[-1])
        parts.done(f"{start}")
        if progress is not None:
            progress(min(start + BATCH, len(windows)), len(windows))
    return np.concatenate(flags, axis=1)


def _cut(windows: pd.DataFrame, held: tuple[Mapping[str, xr.DataArray], Inputs]) -> Cut:
    """Cut inputs, bed and mask for windows of several surveys."""
    beds, inputs = held
    edges = windows[_EDGES].to_numpy()
    cut: Cut = dict(cut_inputs(edges, inputs))
    size = round((edges[0, 2] - edges[0, 0]) / RESOLUTION)
    cut["y"] = np.empty((len(edges), 1, size, size), np.float32)
    for survey, numbers in windows.groupby("survey").indices.items():
        cut["y"][numbers] = tiles.cut_tiles(beds[str(survey)], edges[numbers])
    cut["mask"] = np.isfinite(cut["y"])
    return cut


def _finish(store: Path, chosen: gpd.GeoDataFrame, attributes: Mapping[str, str]) -> None:
    """Cut the store to the tiles that it keeps, and write what is known of each."""
    group = zarr.open_group(store, mode="r+", zarr_format=ZARR_FORMAT)
    for name in (*INPUTS, "y", "mask"):
        group[name].resize((len(chosen), *group[name].shape[1:]))
    units = {"units": "m", "grid_mapping": "spatial_ref"}
    said: dict[str, dict[str, str]] = dict.fromkeys(_EDGES, units) | {
        "coverage": {"long_name": "share of cells with a surveyed bed elevation", "units": "1"},
        "survey": {"long_name": "survey whose grid the tile is from"},
        "split": {"long_name": "part of the training set: train or validation"},
        "complete": {"long_name": "whether no input has a gap"},
    }
    coordinates = {
        name: xr.Variable("tile", chosen[name].to_numpy(), attrs) for name, attrs in said.items()
    }
    xr.Dataset(coords=coordinates, attrs=dict(attributes)).to_zarr(
        store, mode="a", zarr_format=ZARR_FORMAT, consolidated=False
    )
    for torn in store.rglob("*.partial"):  # zarr's, of a run that was killed while it wrote
        torn.unlink()
