"""Grids of any extent, solved and written block by block."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import dask.array
import h5netcdf
import numpy as np
import zarr

from deepbedmap.cluster import mapped
from deepbedmap.errors import WrongCallError
from deepbedmap.files.checksums import Checksum
from deepbedmap.files.resumable import Parts
from deepbedmap.grids import spline
from deepbedmap.grids.blocks import merge_summaries, picks_by_block, summarize
from deepbedmap.grids.geometry import Lattice, describe
from deepbedmap.grids.gridding import METHODS, reach_of, require_options
from deepbedmap.grids.spline import solving
from deepbedmap.rasters.writing import ZARR_FORMAT

if TYPE_CHECKING:
    import os
    from collections.abc import Callable
    from typing import Any

    import numpy.typing as npt
    import pandas as pd
    import xarray as xr

    from deepbedmap.grids.blocks import Neighbourhood, Window
    from deepbedmap.places import Bounds

SIDE = 2048
"""Cells a side of a region, unless told otherwise."""

_CHUNK = 512
_COMPRESSION = 1  # of deflate: more takes three times as long, and saves a few per cent
_FORMAT = 1  # of what is computed: work of another one is not gone on with


def write_grid(
    points: pd.DataFrame,
    path: str | os.PathLike[str],
    spacing: float = 250,
    tension: float = 0.35,
    max_gap: int = 3,
    region: Bounds | None = None,
    *,
    layers: bool = True,
    side: int = SIDE,
    client: Any = None,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Grid picks as :func:`deepbedmap.grids.grid_points` does, of any extent, into a file.

    The grid is made of square regions, which are solved one by one and written at once: memory and
    time follow the picks, and no more than a region of the grid is held. A region in which no cell
    has a value takes neither. Run again after it was interrupted, even by SIGKILL, the same call
    goes on with the regions that are left, and gives the same file, byte for byte.

    Parameters
    ----------
    points, spacing, tension, region
        As of :func:`deepbedmap.grids.grid_points`.
    path
        Name that ends in ``.nc`` (NetCDF-4) or ``.zarr`` (Zarr format 3, without consolidated
        metadata). What is there is replaced in the end. The work is done beside it, in the folder
        ``.<name>.parts``.
    max_gap
        As of :func:`deepbedmap.grids.grid_points`, at most 47.
    layers
        Whether to write ``count``, ``spread`` and ``distance`` beside ``z``.
    side
        Cells a side of a region: a multiple of 512, or less than 512. The smaller, the less memory
        and the more time: each region is solved with a margin of 128 cells
        (:data:`deepbedmap.grids.spline.MARGIN`).
    client
        A ``dask.distributed.Client``: its workers, which must have this package, solve the regions,
        two a thread of theirs at once; this process writes them.
    threads
        As of :func:`deepbedmap.grids.spline.solve`; with ``client``, of each of its tasks (1 by
        default).
    progress
        Called with the number of regions that are done, and of all.

    Returns
    -------
    pathlib.Path
        The file, or the folder, with these variables (y, x), in chunks of 512 x 512 cells or a
        region, if that is smaller. Beyond the mask ``count`` is 0, and the others are NaN.

        ``z``
            float32, metres: as of :func:`deepbedmap.grids.grid_points`, from which it differs where
            regions join, by centimetres at most.
        ``count``
            int32: picks in the cell.
        ``spread``
            float32, metres: standard deviation of the beds of these picks (divided by their number
            less one); NaN for fewer than 2.
        ``distance``
            float32, metres: from the cell's centre to that of the nearest cell with a pick, 0
            there.

        What bad picks lead to is told at :func:`deepbedmap.grids.grid_points`; ``count`` and
        ``spread`` show repeats that differ. The attributes of ``z`` are those given there, and
        ``ancillary_variables``. The values depend neither on the number of threads, nor on
        ``client``, nor on interruptions.

    Raises
    ------
    InvalidDataError
        As :func:`deepbedmap.grids.grid_points`.
    DeepBedMapError
        Another process is writing the same file.
    ValueError
        As :func:`deepbedmap.grids.grid_points`; another suffix, ``side`` or ``max_gap`` than these.
    """
    path = Path(path)
    require_options(tension, max_gap)
    reach = reach_of(max_gap)
    most = spline.MARGIN // 2 - reach_of(0)
    if path.suffix not in (".nc", ".zarr"):
        raise WrongCallError(f"expected a name that ends in .nc or .zarr, not {path.name!r}")
    if max_gap > most:
        raise WrongCallError(
            f"max_gap {max_gap} is too large for a grid solved region by region: at most {most};"
            " grid_points, or a .tif file, takes any"
        )
    if side < 1 or side % min(side, _CHUNK):
        raise WrongCallError(f"side {side} must be a multiple of {_CHUNK}, or less than {_CHUNK}")
    lattice = Lattice.of(points, spacing, region)
    inside = lattice.holds(points).to_numpy()
    template = _template(
        lattice,
        points,
        lattice.parameters(tension, max_gap, int(inside.sum())) | {"side": side},
        layers,
        min(side, _CHUNK),
    )
    names = [str(name) for name in template.data_vars]
    identity = {
        "format": _FORMAT,
        "variables": names,
        "attributes": template["z"].attrs,
        "crs": str(points.attrs.get("crs")),
        "numba": metadata.version("numba"),
        "sha256": _digest(points),
    }
    with Parts(path, identity) as parts:
        store = parts.folder / "grid.zarr"
        if not store.exists():
            empty = parts.folder / "empty.zarr"
            template.to_zarr(
                empty, mode="w", compute=False, zarr_format=ZARR_FORMAT, consolidated=False
            )
            empty.rename(store)
        for torn in store.rglob("*.partial"):  # chunks that zarr was at when it was killed
            torn.unlink()
        arrays = {name: zarr.open_array(store / name, mode="r+") for name in names}
        summary = merge_summaries(
            mapped(summarize, picks_by_block(points, inside, lattice, side), client)
        )
        windows = summary.windows(lattice.shape, side, max_gap)
        left = [window for window in windows if not parts.is_done(window.name)]
        if progress is not None:
            progress(len(windows) - len(left), len(windows))
        if left:
            coarse = spline.solve_coarse(
                *summary.medians,
                shape=(lattice.shape[0] + 1, lattice.shape[1] + 1),
                tension=tension,
                reach=reach,
                threads=threads,
            )
            near = (summary.near(window, max_gap) for window in left)
            shared = (coarse, max_gap, spacing, threads or (1 if client else None))
            for window, values in zip(left, mapped(_solve, near, client, *shared), strict=True):
                for name, array in arrays.items():
                    array[window.cells] = values[name]
                parts.done(window.name)
                if progress is not None:
                    progress(parts.count, len(windows))
        if path.suffix == ".zarr":
            return parts.publish(store)
        netcdf = parts.folder / "grid.nc"
        _write_netcdf(netcdf, template, arrays, windows)
        return parts.publish(netcdf)


def _template(
    lattice: Lattice, points: pd.DataFrame, parameters: dict[str, Any], layers: bool, chunk: int
) -> xr.Dataset:
    """Give the grid as it is before any region is solved: without a value, lazily."""

    def empty(name: str, fill: float, dtype: str) -> xr.DataArray:
        chunks = tuple(min(chunk, count) for count in lattice.shape)
        values = dask.array.full(lattice.shape, fill, dtype=dtype, chunks=chunks)  # type: ignore[no-untyped-call]
        return lattice.raster(values, name)

    z = empty("z", np.nan, "float32")
    z = describe(z, points, METHODS["band"], parameters)
    dataset = z.to_dataset()
    dataset.attrs = {"Conventions": "CF-1.11"}
    if layers:
        dataset["z"].attrs["ancillary_variables"] = " ".join(_LAYERS)
        for name, (dtype, attributes) in _LAYERS.items():
            layer = empty(name, 0 if dtype == "int32" else np.nan, dtype)
            dataset[name] = layer.assign_attrs(attributes)
    if "spatial_ref" in dataset.coords:
        for variable in dataset.data_vars.values():
            variable.encoding["grid_mapping"] = "spatial_ref"
    return dataset


_LAYERS: dict[str, tuple[str, dict[str, str]]] = {
    "count": (
        "int32",
        {
            "standard_name": "number_of_observations",
            "long_name": "number of picks in the cell",
            "units": "1",
            "cell_methods": "area: sum",
        },
    ),
    "spread": (
        "float32",
        {
            "long_name": "standard deviation of the beds of the picks in the cell",
            "units": "m",
            "cell_methods": "area: standard_deviation",
        },
    ),
    "distance": (
        "float32",
        {
            "long_name": "distance from the cell's centre to that of the nearest with a pick",
            "units": "m",
        },
    ),
}


def _digest(points: pd.DataFrame) -> str:
    """SHA-256 of the picks."""
    checksum = Checksum()
    checksum.update(str(len(points)).encode())
    for axis in ("x", "y", "z"):
        values = points[axis].to_numpy()
        for start in range(0, len(values), 2**20):
            checksum.update(np.ascontiguousarray(values[start : start + 2**20], np.float64).data)
    return checksum.sha256


def _solve(
    near: Neighbourhood, coarse: spline.Coarse, max_gap: int, spacing: float, threads: int | None
) -> dict[str, npt.NDArray[Any]]:
    """Give all variables of a region."""
    top, left, bottom, right = near.window
    shape = bottom - top, right - left
    # Bicubic convolution reaches one node beyond those around a cell.
    nodes = top - 1, left - 1, bottom + 1, right + 1
    band = solving.refine(coarse, *near.medians, nodes, threads)
    runs = band.runs._replace(
        top=band.runs.top - top, start=band.runs.start - left, stop=band.runs.stop - left
    )
    row, column = near.cells.row - top, near.cells.column - left
    z = spline.Band(runs, band.values).centres(shape, row, column, max_gap + 1)
    inside = (row >= 0) & (row < shape[0]) & (column >= 0) & (column < shape[1])
    held = row[inside], column[inside]
    number = near.cells.number[inside]
    count = np.zeros(shape, np.int32)
    count[held] = number
    spread = np.full(shape, np.nan, np.float32)
    several = number > 1
    spread[held[0][several], held[1][several]] = np.sqrt(
        near.cells.squares[inside][several] / (number[several] - 1)
    )
    distance = spacing * _distances(shape, row, column, max_gap + 1)
    return {"z": z, "count": count, "spread": spread, "distance": distance}


def _distances(
    shape: tuple[int, int], row: spline.Integers, column: spline.Integers, radius: int
) -> npt.NDArray[np.float32]:
    """Cells to the nearest of some cells, NaN beyond a radius."""
    margin = 2 * radius  # those cells lie up to a radius away
    padded = np.full([count + 2 * margin for count in shape], np.nan, np.float32)
    steps = np.arange(-radius, radius + 1)
    length = np.hypot(*np.meshgrid(steps, steps, indexing="ij"))
    down = np.argsort(-length, axis=None)
    for step in down[length.flat[down] <= radius]:
        i, j = np.unravel_index(step, length.shape)
        padded[row + steps[i] + margin, column + steps[j] + margin] = length[i, j]
    return padded[margin : margin + shape[0], margin : margin + shape[1]]


def _write_netcdf(
    path: Path, template: xr.Dataset, arrays: dict[str, zarr.Array], windows: list[Window]
) -> None:
    """Write the regions that were solved, chunk by chunk; the rest is left out of the file."""
    header = template.drop_vars(arrays)
    if "spatial_ref" in header.coords:
        header = header.reset_coords("spatial_ref")
    header.to_netcdf(path, engine="h5netcdf")
    with h5netcdf.File(path, "r+") as file:
        for name, array in arrays.items():
            nothing = np.zeros((), array.dtype) if array.dtype.kind == "i" else np.float32(np.nan)
            chunks = tuple(map(min, array.chunks, array.shape))
            variable = file.create_variable(
                name,
                ("y", "x"),
                array.dtype,
                chunks=chunks,
                compression="gzip",
                compression_opts=_COMPRESSION,
                shuffle=True,
                fillvalue=None if array.dtype.kind == "i" else nothing,
            )
            variable.attrs.update(template[name].attrs)
            if "spatial_ref" in template.coords:
                variable.attrs["grid_mapping"] = "spatial_ref"
            for window in windows:
                for top in range(window.top, window.bottom, chunks[0]):
                    for left in range(window.left, window.right, chunks[1]):
                        cells = slice(top, top + chunks[0]), slice(left, left + chunks[1])
                        values = array[cells]
                        if not np.array_equal(
                            values, np.full_like(values, nothing), equal_nan=True
                        ):
                            variable[cells] = values
