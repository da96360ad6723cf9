"""From grids of picks to windows, or to a training set, in a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from deepbedmap.errors import WrongCallError
from deepbedmap.files.atomic import beside
from deepbedmap.places import BUFFER, TEST_AREAS
from deepbedmap.tiles.building import build
from deepbedmap.tiles.inputs import Inputs
from deepbedmap.tiles.storage import open_training_set
from deepbedmap.tiles.survey_windows import find

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Literal

_INPUTS = ("prior", "surface", "velocity", "accumulation")


class Prepared(NamedTuple):
    """How many windows or tiles a file holds; train and validation only of a training set."""

    windows: int
    train: int | None = None
    validation: int | None = None


def prepare_tiles(
    grids: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    size: int = 36,
    step: int = 3,
    coverage: float = 1.0,
    exclude: str | Iterable[str] | None = None,
    grounded: bool = False,
    grounding_line: str | os.PathLike[str] | None = None,
    grounding_buffer: float = 0,
    split: Literal["block", "survey"] | None = None,
    validation: float = 0.2,
    buffer: float = BUFFER,
    seed: int = 0,
    prior: str | os.PathLike[str] | None = None,
    surface: str | os.PathLike[str] | None = None,
    surface_filler: str | os.PathLike[str] | None = None,
    velocity: str | os.PathLike[str] | None = None,
    accumulation: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Find the windows of grids in which a tile can be cut, or cut them into a training set.

    Parameters
    ----------
    grids
        Files of gridded picks, each named as its survey.
    out
        ``.geojson`` or ``.gpkg``: the footprints of the windows. ``.zarr``: a training set, with
        its footprints next to it; an interrupted run resumes.
    size, step, coverage, grounding_buffer, validation, buffer, seed
        As :func:`build` takes them: cells, cells, 0 to 1, metres, 0 to 1, metres.
    exclude
        Test areas to keep 11 km away from: names of :data:`deepbedmap.places.TEST_AREAS`,
        ``"all"`` or ``"none"``. By default none for windows, and all for a training set.
    grounded
        Keep only windows on grounded ice.
    grounding_line
        Polygons of the grounded ice; by default those of GSHHG, if ``grounded``.
    split
        Hold out blocks of 40 km, or surveys, for validation. By default windows are not split, and
        a training set is split by block.
    prior, surface, velocity, accumulation
        Rasters of a training set, which needs all four.
    surface_filler
        A second ice surface, for gaps of the first.
    progress
        Called with the number of tiles that are cut, and of all.

    Returns
    -------
    Prepared
        Number of windows, or of tiles to train on and to validate with.

    Raises
    ------
    InvalidDataError, MissingDataError
        As :func:`build` and :func:`find`.
    ValueError
        The name ends otherwise; a raster is missing, or given without a training set; two grids
        have one name; another argument is out of its range.

    Examples
    --------
    >>> prepare_tiles("rutford.nc", "tiles.zarr")
    Traceback (most recent call last):
    deepbedmap.errors.WrongCallError: prior: a training set needs it
    """
    out = Path(out)
    rasters = {"prior": prior, "surface": surface, "velocity": velocity}
    rasters |= {"accumulation": accumulation, "surface_filler": surface_filler}
    _require_options(out, split, rasters)
    listed = [grids] if isinstance(grids, str | os.PathLike) else list(grids)
    paths = [Path(grid) for grid in listed]
    surveys: Any = {path.stem: path for path in paths}
    if len(surveys) < len(paths):
        raise WrongCallError("two grids of one name", "grids")
    options: Any = {
        "size": size,
        "step": step,
        "coverage": coverage,
        "exclude": _areas(exclude, "all" if out.suffix == ".zarr" else "none"),
        "grounding_line": grounding_line or ("gshhg" if grounded else None),
        "grounding_buffer": grounding_buffer,
        "validation": validation,
        "buffer": buffer,
        "seed": seed,
    }
    if out.suffix == ".zarr":
        inputs = Inputs.open(*(rasters[name] for name in (*_INPUTS, "surface_filler")))  # type: ignore[arg-type]
        build(surveys, inputs, out, by=split or "block", progress=progress, **options)
        parts = open_training_set(out)["split"].to_series().value_counts()
        return Prepared(int(parts.sum()), int(parts["train"]), int(parts["validation"]))
    windows = find(surveys, by=split, **options)
    with beside(out) as part:
        windows.to_file(part, layer=out.stem)
    return Prepared(len(windows))


def _require_options(out: Path, split: str | None, rasters: dict[str, Any]) -> None:
    """Check what goes with a training set, and what with windows only."""
    if out.suffix not in (".geojson", ".gpkg", ".zarr"):
        raise WrongCallError("expected a name that ends in .geojson, .gpkg or .zarr", "out")
    if split not in (None, "block", "survey"):
        raise WrongCallError(f"expected block or survey, found {split!r}", "split")
    for name, raster in rasters.items():
        if out.suffix == ".zarr" and raster is None and name in _INPUTS:
            raise WrongCallError("a training set needs it", name)
        if out.suffix != ".zarr" and raster is not None:
            raise WrongCallError("only a training set takes it", name)


def _areas(exclude: str | Iterable[str] | None, default: str) -> list[str]:
    """Return the names of test areas; "all" and "none" stand for themselves."""
    names = [exclude] if isinstance(exclude, str) else list(exclude or [default])
    return [*TEST_AREAS] if "all" in names else [name for name in names if name != "none"]
