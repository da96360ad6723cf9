"""Whether the picks of a test are independent of what a bed was made from."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from deepbedmap.errors import Fault, InvalidDataError, MissingDataError

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd

    from deepbedmap.registry import Registry

BUFFER = 11_000.0
"""Metres between test picks and whatever a model was trained on: a tile's width and its margin."""

_INPUTS = ("prior", "input")
_SAME = ("raster", "filler", "heights")  # what was only resampled, filled or brought to a datum
_AT_ONCE = 1_000_000
_Roles = tuple[str | None, ...]
_Excluded = tuple[dict[str, Sequence[float]], float]


@dataclass(frozen=True)
class Verdict:
    """An answer, and the reason for it in a few words."""

    answer: Literal["yes", "no", "unknown"]
    reason: str


@dataclass(frozen=True)
class Training:
    """What is known of where a model was trained.

    Attributes
    ----------
    names
        What this was read from.
    footprints
        Boxes of the tiles, those of validation included: they chose the model.
    picks
        Columns x, y, z in metres.
    excluded
        Boxes that the training left out, and metres around them.
    sources
        Files behind it, as :mod:`deepbedmap.citation` reads them.
    """

    names: tuple[str, ...] = ()
    footprints: gpd.GeoDataFrame | None = None
    picks: pd.DataFrame | None = None
    excluded: _Excluded | None = None
    sources: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class Leak:
    """Test picks that a model may have learned from.

    Attributes
    ----------
    within
        Picks inside a training tile, or at the place of a training pick (to a metre).
    near
        Picks, those within included, that are not farther off than the buffer.
    picks
        All picks.
    what
        What they are near to.
    """

    within: int
    near: int
    picks: int
    buffer: float
    what: str

    def __str__(self) -> str:
        return (
            f"{self.near:,} of {self.picks:,} test picks lie within {self.buffer / 1000:g} km of "
            f"{self.what}, {self.within:,} of them inside"
        )


def find_leak(points: pd.DataFrame, training: Training, buffer: float = BUFFER) -> Leak | None:
    """Find test picks at or near the places of a training.

    Parameters
    ----------
    points
        Test picks, columns x and y in metres, in the CRS of the training.
    training
        Its tiles and picks are looked at; what it does not say leaks nowhere.
    buffer
        Least distance in metres that is no leak.

    Returns
    -------
    Leak or None
        Of the tiles, or else of the picks. None where every pick is farther off.

    Raises
    ------
    InvalidDataError
        The training is in another CRS.
    """
    if buffer < 0:
        raise ValueError(f"buffer {buffer} must not be negative")
    x, y = (points[axis].to_numpy(np.float64) for axis in "xy")
    if training.footprints is not None and len(training.footprints):
        import shapely

        _require_crs(points, training.footprints.crs, "training tiles")
        tiles = shapely.union_all(training.footprints.geometry.to_numpy())
        around = shapely.buffer(tiles, buffer, quad_segs=64)
        found = []
        for area in (tiles, around):
            shapely.prepare(area)
            found.append(int(shapely.intersects_xy(area, x, y).sum()))
        if found[1]:
            what = f"{len(training.footprints):,} training tiles"
            return Leak(found[0], found[1], x.size, buffer, what)
    if training.picks is not None and len(training.picks):
        _require_crs(points, training.picks.attrs.get("crs"), "training picks")
        distance = distance_to(points, training.picks)
        if (near := int((distance <= buffer).sum())) > 0:
            what = f"{len(training.picks):,} training picks"
            return Leak(int((distance <= 1).sum()), near, x.size, buffer, what)
    return None


def _require_crs(points: pd.DataFrame, crs: Any, what: str) -> None:
    from pyproj import CRS

    from deepbedmap.rasters import same_crs

    own = points.attrs.get("crs")
    if own is None or crs is None:
        return
    expected, found = CRS.from_user_input(own), CRS.from_user_input(crs)
    if not same_crs(expected, found):
        raise InvalidDataError(
            Fault(
                what,
                field="crs",
                expected=f"{expected.to_string()} as of the test picks",
                found=found.to_string(),
                remedy="reproject one of the two",
            )
        )


def distance_to(points: pd.DataFrame, picks: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Metres from each point (n,) to the nearest of some picks.

    Examples
    --------
    >>> import pandas as pd
    >>> distance_to(pd.DataFrame({"x": [0.0], "y": [4.0]}), pd.DataFrame({"x": [3.0], "y": [0.0]}))
    array([5.])
    """
    from scipy.spatial import cKDTree

    tree = cKDTree(picks[["x", "y"]].to_numpy(np.float64), balanced_tree=False, compact_nodes=False)
    places = points[["x", "y"]].to_numpy(np.float64)
    parts = [
        tree.query(places[start : start + _AT_ONCE], workers=-1)[0]
        for start in range(0, len(places), _AT_ONCE)
    ]
    return np.concatenate([np.empty(0), *parts])


def open_training(path: str | os.PathLike[str]) -> Training:
    """Read what a file says of a training.

    Parameters
    ----------
    path
        A training set (.zarr), footprints of tiles (.geojson, .gpkg), or a checkpoint
        (.safetensors).

    Raises
    ------
    MissingDataError
        There is no such file.
    InvalidDataError
        It cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise MissingDataError(f"{path}: no such training set, footprints or checkpoint")
    if path.suffix == ".zarr":
        import geopandas as gpd
        import shapely

        from deepbedmap.training_sets import open_training_set

        dataset = open_training_set(path)
        edges = [dataset[name].to_numpy() for name in ("xmin", "ymin", "xmax", "ymax")]
        boxes = gpd.GeoDataFrame(geometry=shapely.box(*edges), crs=dataset.attrs.get("crs"))
        provenance = parsed(dataset.attrs.get("provenance"))
        return Training((path.name,), boxes, None, _excluded(provenance), _sources(provenance))
    if path.suffix == ".safetensors":
        header = _checkpoint_header(path)
        excluded = _excluded(header.get("training_set") or {})
        return Training((path.name,), None, None, excluded, _sources(header))
    import geopandas as gpd

    try:
        boxes = gpd.read_file(path)
    except (OSError, ValueError, RuntimeError) as error:
        expected = "footprints of tiles, as `deepbedmap tiles` writes them"
        raise InvalidDataError(Fault(str(path), expected=expected, found=str(error))) from error
    return Training((path.name,), boxes)


def _checkpoint_header(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            return parsed((file.metadata() or {}).get("deepbedmap"))
    except (OSError, SafetensorError) as error:
        expected = "a checkpoint"
        raise InvalidDataError(Fault(str(path), expected=expected, found=str(error))) from error


def parsed(text: Any) -> dict[str, Any]:
    """Read a provenance; an empty one where the text is none."""
    try:
        content = json.loads(text or "{}")
    except (TypeError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _sources(provenance: Mapping[str, Any]) -> list[Any]:
    sources = provenance.get("sources")
    return [
        {"role": "training", **source} if isinstance(source, dict) else source
        for source in (sources if isinstance(sources, list) else [])
    ]


def _excluded(training_set: Any) -> _Excluded | None:
    """Boxes that a training left out, and metres around them; None where it states none."""
    try:
        excluded = training_set["excluded"]
        areas: dict[str, Sequence[float]] = {
            str(name): [float(edge) for edge in box] for name, box in excluded["areas"].items()
        }
        around = float(excluded["buffer"])
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    return (areas, around) if areas and all(len(box) == 4 for box in areas.values()) else None


def _left_out(sources: list[Any]) -> list[_Excluded | None]:
    """What each checkpoint behind a bed says that its training left out."""
    found: list[_Excluded | None] = []
    for source in sources:
        if not isinstance(source, dict):
            continue
        if source.get("role") == "checkpoint":
            found.append(_excluded(source.get("training_set")))
        elif source.get("role") in _SAME and isinstance(source.get("sources"), list):
            found += _left_out(source["sources"])
    return found


def together(trainings: Iterable[Training]) -> Training:
    """All that is known of a training, from several files."""
    import pandas as pd

    parts = list(trainings)
    boxes = [part.footprints for part in parts if part.footprints is not None]
    picks = [part.picks for part in parts if part.picks is not None]
    for other in picks[1:]:
        _require_crs(picks[0], other.attrs.get("crs"), "training picks")
    known = None
    if picks:
        known = pd.concat([part[["x", "y", "z", "line"]] for part in picks], ignore_index=True)
        known.attrs = picks[0].attrs | {
            "sources": [s for part in picks for s in part.attrs.get("sources") or ()]
        }
    return Training(
        tuple(name for part in parts for name in part.names),
        pd.concat(boxes, ignore_index=True) if boxes else None,
        known,
        next((part.excluded for part in parts if part.excluded is not None), None),
        [source for part in parts for source in part.sources],
    )


def of_prior(sources: list[Any] | None, tested: set[str | None], registry: Registry) -> Verdict:
    """Whether test picks are independent of the prior that a bed was made with.

    Parameters
    ----------
    sources
        What the bed was made from, as :func:`deepbedmap.citation.describe` states it; None where
        nothing says.
    tested
        Citekeys of the test picks' datasets, with None where one is unknown.
    registry
        Whose ``built_from`` and ``overlaps_with`` decide.

    Notes
    -----
    "yes" means as far as the registry knows: that none of the surveys that it names for the prior
    holds the picks, or that the picks were measured after the last of the prior's data.
    """
    if not sources:
        return Verdict("unknown", "nothing says what it was made from")
    priors: dict[str, None] = {}
    for path, source in _leaves(sources):
        role, citekey = _first(path), citekey_of(source, registry)
        if role == "raster":
            role = "input" if _is_survey(citekey, registry) else "prior"
        if role not in _INPUTS:
            continue
        if citekey is None and role == "prior":
            return Verdict("unknown", f"{source.get('file', 'the prior')} is not in the registry")
        if citekey and (role == "prior" or registry[citekey].folder == "lowres"):
            priors[citekey] = None
    if not priors:
        return Verdict("yes", "it has no prior")
    return _worst(_of_product(prior, tested, registry) for prior in priors)


def _of_product(prior: str, tested: set[str | None], registry: Registry) -> Verdict:
    built = registry[prior].built_from
    if built is None:
        return Verdict("unknown", f"what {prior} was built from is not known")
    if None in tested or not tested:
        return Verdict("unknown", "the picks' dataset is not in the registry")
    surveys = _built_from(prior, registry)
    for citekey in sorted(filter(None, tested)):
        for survey in surveys:
            if survey == citekey:
                return Verdict("no", f"{prior} was built from {citekey}")
            if _share(survey, citekey, registry):
                return Verdict("no", f"{prior} was built from {survey}, which overlaps {citekey}")
    if built.surveys:
        return Verdict("yes", f"{prior} was built from other surveys")
    epochs = [registry[citekey].epoch for citekey in tested if citekey]
    until = built.until or 0
    if all(epoch is not None and epoch[0] > until for epoch in epochs):
        return Verdict("yes", f"the data of {prior} end in {until}, before the picks")
    return Verdict("unknown", f"which surveys of up to {until} {prior} was built from is not known")


def _built_from(prior: str, registry: Registry) -> list[str]:
    """Citekeys of all that a product was built from, also indirectly."""
    found: dict[str, None] = {}
    pending = [prior]
    while pending:
        built = registry[pending.pop()].built_from
        new = [s for s in (built.surveys if built else ()) if s not in found and s in registry]
        found |= dict.fromkeys(new)
        pending += new
    return list(found)


def _share(one: str, other: str, registry: Registry) -> bool:
    return other in registry[one].overlaps_with or one in registry[other].overlaps_with


def of_training(
    sources: list[Any] | None,
    training: Training,
    leak: Leak | None,
    points: pd.DataFrame,
    tested: set[str | None],
    registry: Registry,
    buffer: float = BUFFER,
) -> Verdict:
    """Whether test picks are independent of what a bed was trained on, or gridded from.

    Parameters
    ----------
    sources, tested, registry
        As of :func:`of_prior`.
    training
        What is known of the training beside.
    leak
        As :func:`find_leak` found it there.
    points
        The test picks.
    buffer
        Metres.

    Notes
    -----
    Where tiles or picks of the training are known, distance alone decides. Where they are not,
    "yes" needs areas that were left out and hold all test picks, as ``training`` or all checkpoints
    of the bed's provenance state them (``training_set``), or bounds of all training surveys in the
    registry that are farther off than the buffer.
    """
    if leak is not None:
        return Verdict("no", str(leak))
    if training.footprints is not None or training.picks is not None:
        names = ", ".join(training.names) or "the training"
        return Verdict("yes", f"no test pick within {buffer / 1000:g} km of {names}")
    given = training.excluded is not None
    without = [training.excluded] if given else _left_out(sources or [])
    if without and all(
        one is not None and one[1] >= buffer and _all_inside(points, one[0].values())
        for one in without
    ):
        areas = dict.fromkeys(name for one in without if one for name in one[0])
        return Verdict("yes", f"the training left out {', '.join(areas)}")
    if not sources and not training.sources:
        return Verdict("unknown", "nothing says what it was trained on")
    learned = []
    for path, source in _leaves(sources or []):
        gridded = _first(path) == "raster" and _is_survey(citekey_of(source, registry), registry)
        if "training" in path or not any(path) or gridded:
            learned.append(source)
    learned += [s for path, s in _leaves(training.sources) if "training" in path]
    if not learned:
        if any("checkpoint" in path for path, _ in _leaves(sources or [])):
            return Verdict("unknown", "its checkpoint does not say what it was trained on")
        return Verdict("yes", "nothing was trained")
    return _of_surveys(learned, points, tested, registry, buffer)


def _of_surveys(
    learned: list[dict[str, Any]],
    points: pd.DataFrame,
    tested: set[str | None],
    registry: Registry,
    buffer: float,
) -> Verdict:
    """Decide by the training's surveys, since nothing says where its tiles are."""
    files = {s.get("sha256"): s.get("file") for s in points.attrs.get("sources") or ()}
    files.pop(None, None)
    for source in learned:
        if source.get("sha256") in files:
            return Verdict("no", f"it learned from {files[source['sha256']]} itself")
    known = {citekey_of(source, registry) for source in learned}
    elsewhere = None not in known and not points.empty
    for citekey in sorted(filter(None, known)):
        for test in sorted(filter(None, tested)):
            if citekey == test or _share(citekey, test, registry):
                said = f"it learned from {citekey}, which holds or overlaps {test}"
                return Verdict("unknown", f"{said}; where, --training tells")
        bounds = registry[citekey].bounds
        elsewhere &= bounds is not None and _is_clear(points, bounds, buffer)
    if elsewhere:
        return Verdict("yes", f"{', '.join(sorted(filter(None, known)))} lie elsewhere")
    return Verdict("unknown", "where its training tiles lie is not known; --training tells")


def _is_clear(points: pd.DataFrame, bounds: Sequence[float], buffer: float) -> bool:
    xmin, ymin, xmax, ymax = bounds
    east = np.maximum(np.maximum(xmin - points["x"], points["x"] - xmax), 0)
    north = np.maximum(np.maximum(ymin - points["y"], points["y"] - ymax), 0)
    return bool((np.hypot(east, north) > buffer).all())


def _all_inside(points: pd.DataFrame, boxes: Iterable[Sequence[float]]) -> bool:
    inside = np.zeros(len(points), bool)
    for xmin, ymin, xmax, ymax in boxes:
        inside |= (points["x"].between(xmin, xmax) & points["y"].between(ymin, ymax)).to_numpy()
    return bool(inside.all())


def _leaves(sources: list[Any], path: _Roles = ()) -> Iterator[tuple[_Roles, dict[str, Any]]]:
    """Sources that have none of their own, with the roles that lead to them."""
    for source in sources:
        if not isinstance(source, dict):
            continue
        role = source.get("role")
        roles: _Roles = (*path, role) if role or not path else path
        inner = source.get("sources")
        if isinstance(inner, list) and inner and not source.get("citekey"):
            yield from _leaves(inner, roles)
        else:
            yield roles, source


def _first(path: _Roles) -> str | None:
    """Role of a source in a bed, "raster" of what that bed was resampled from."""
    roles = [role for role in path if role]
    return next((role for role in roles if role not in _SAME), "raster" if roles else None)


def _is_survey(citekey: str | None, registry: Registry) -> bool:
    return citekey is not None and registry[citekey].folder == "highres"


def citekey_of(source: Mapping[str, Any], registry: Registry) -> str | None:
    """Citekey of a source's dataset: the one stated, or that of its checksum or its name."""
    stated = source.get("citekey")
    if stated in registry:
        return str(stated)
    checksum, name = source.get("sha256"), source.get("file")
    named = set()
    for dataset in registry:
        for file in dataset.files:
            if checksum and file.sha256 == checksum:
                return dataset.citekey
            if name in (file.filename, file.name) and not (checksum and file.sha256):
                named.add(dataset.citekey)
    return named.pop() if len(named) == 1 else None


def _worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict that trusts least; the first of its kind."""
    return min(verdicts, key=lambda verdict: ("no", "unknown", "yes").index(verdict.answer))
