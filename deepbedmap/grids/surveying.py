"""Grid surveys by name, into a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from deepbedmap import rasters
from deepbedmap.errors import WrongCallError
from deepbedmap.grids.gridding import METHODS, grid_points
from deepbedmap.grids.out_of_core import write_grid
from deepbedmap.points.combining import join_surveys
from deepbedmap.points.reading import read_points

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Literal

    import xarray as xr

    from deepbedmap.places import Bounds


def grid_surveys(
    pipelines: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    spacing: float = 250,
    tension: float = 0.35,
    max_gap: int = 3,
    region: Bounds | None = None,
    *,
    season: str | Iterable[str] | None = None,
    bounds: Sequence[float] | None = None,
    layers: bool | None = None,
    method: Literal["band", "gmt"] = "band",
    progress: Callable[[int, int], None] | None = None,
) -> xr.DataArray:
    """Grid the picks of surveys together, and write the grid.

    Parameters
    ----------
    pipelines
        Pipelines, names of pipelines in ``highres/``, or Bedmap standard CSVs, of one CRS and one
        vertical datum.
    out
        ``.nc`` or ``.zarr``: solved and written block by block, in memory that follows the picks;
        an interrupted run resumes (:func:`write_grid`). ``.tif``, and any file that GMT solves
        (``.nc`` or ``.tif``): held in memory as a whole (:func:`grid_points`).
    spacing, tension, max_gap, region, method
        As :func:`grid_points` takes them: metres, 0 to 1, cells, outer edges in metres.
    season, bounds
        Which picks, as :func:`deepbedmap.points.read_points` takes them.
    layers
        Also write count, spread and distance of the picks; by default wherever that is possible:
        not to a ``.tif`` file, nor by GMT.
    progress
        Called with the number of blocks that are done, and of all.

    Returns
    -------
    xarray.DataArray
        Bed elevation ``z`` (y, x) in metres, NaN away from the picks.

    Raises
    ------
    InvalidDataError, MissingDataError
        As :func:`deepbedmap.points.read_points` and :func:`grid_points`.
    ValueError
        The name ends otherwise; layers cannot be written; another argument is out of its range.

    Examples
    --------
    >>> grid_surveys("2010tr", "bed.xyz")
    Traceback (most recent call last):
    deepbedmap.errors.WrongCallError: out: expected a name that ends in .nc, .zarr or .tif
    """
    out = Path(out)
    by_block = _require_format(out, method, layers)
    names = [pipelines] if isinstance(pipelines, str | os.PathLike) else list(pipelines)
    surveys = {str(name): read_points(name, season=season, bounds=bounds) for name in names}
    picks = join_surveys(surveys) if len(surveys) > 1 else surveys.popitem()[1]
    if by_block:
        write_grid(
            *(picks, out, spacing, tension, max_gap, region),
            layers=layers is not False,
            progress=progress,
        )
        return rasters.chunked(rasters.open_raster(out, "z"))
    grid = grid_points(picks, spacing, tension, max_gap, region, method)
    write = rasters.write_netcdf if out.suffix == ".nc" else rasters.write_geotiff
    write(grid, out)
    return grid


def _require_format(out: Path, method: str, layers: bool | None) -> bool:
    """Check that the method can write such a file; return whether it does so block by block."""
    if method not in METHODS:
        raise WrongCallError(f"expected one of {', '.join(METHODS)}, found {method!r}", "method")
    by_block = method == "band" and out.suffix in (".nc", ".zarr")
    if layers and not by_block:
        raise WrongCallError("only band writes them, and not to .tif", "layers")
    if out.suffix not in ((".nc", ".zarr", ".tif") if method == "band" else (".nc", ".tif")):
        expected = ".nc, .zarr or .tif" if method == "band" else ".nc or .tif"
        raise WrongCallError(f"expected a name that ends in {expected}", "out")
    return by_block
