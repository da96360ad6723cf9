"""Whether the test picks are independent of the prior and of the training of a bed.

The answer follows from the sources in the bed's provenance and from their entries in the
registry: what a product was built from, and which surveys overlap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deepbedmap.evaluation.trainings import excluded_areas
from deepbedmap.places import BUFFER

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any, Literal

    import pandas as pd

    from deepbedmap.evaluation.leaks import Leak
    from deepbedmap.evaluation.trainings import Excluded, Training
    from deepbedmap.registry.listing import Registry

_INPUTS = ("prior", "input")
_SAME = ("raster", "filler", "heights")  # only resampled, filled or converted to a datum
_Roles = tuple[str | None, ...]


@dataclass(frozen=True)
class Verdict:
    """An answer, and the reason for it in a few words."""

    answer: Literal["yes", "no", "unknown"]
    reason: str


def _left_out(sources: list[Any]) -> list[Excluded | None]:
    """Return the areas that the training of each checkpoint behind a bed left out."""
    areas: list[Excluded | None] = []
    for source in sources:
        if not isinstance(source, dict):
            continue
        if source.get("role") == "checkpoint":
            areas.append(excluded_areas(source.get("training_set")))
        elif source.get("role") in _SAME and isinstance(source.get("sources"), list):
            areas += _left_out(source["sources"])
    return areas


def verdict_on_prior(
    sources: list[Any] | None, tested: set[str | None], registry: Registry
) -> Verdict:
    """Return whether test picks are independent of the prior of a bed.

    Parameters
    ----------
    sources
        Sources of the bed, by :func:`deepbedmap.provenance.describe_file`; None if unknown.
    tested
        Citekeys of the test picks' datasets, with None for an unknown one.
    registry
        Registry whose ``built_from`` and ``overlaps_with`` decide.

    Notes
    -----
    "yes" is as certain as the registry: none of the surveys that it names for the prior contains
    the picks, or the picks were measured after the last of the prior's data.
    """
    if not sources:
        return Verdict("unknown", "its sources are not stated")
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
    """Return the citekeys of all surveys behind a product, direct or indirect."""
    surveys: dict[str, None] = {}
    pending = [prior]
    while pending:
        built = registry[pending.pop()].built_from
        new = [s for s in (built.surveys if built else ()) if s not in surveys and s in registry]
        surveys |= dict.fromkeys(new)
        pending += new
    return list(surveys)


def _share(one: str, other: str, registry: Registry) -> bool:
    return other in registry[one].overlaps_with or one in registry[other].overlaps_with


def verdict_on_training(
    sources: list[Any] | None,
    training: Training,
    leak: Leak | None,
    points: pd.DataFrame,
    tested: set[str | None],
    registry: Registry,
    buffer: float = BUFFER,
) -> Verdict:
    """Return whether test picks are independent of the training of a bed, or of its gridded picks.

    Parameters
    ----------
    sources, tested, registry
        As for :func:`verdict_on_prior`.
    training
        Where the model was trained, if that was stated separately.
    leak
        Result of :func:`find_leak` for this training.
    points
        The test picks.
    buffer
        Distance in metres from training data within which a pick is not independent.

    Notes
    -----
    Where tiles or picks of the training are known, distance alone decides. Where they are not,
    "yes" needs excluded areas that contain all test picks, stated by ``training`` or by all
    checkpoints in the bed's provenance (``training_set``), or bounds of all training surveys in
    the registry that are farther away than the buffer.
    """
    if leak is not None:
        return Verdict("no", str(leak))
    if training.footprints is not None or training.picks is not None:
        names = ", ".join(training.names) or "the training"
        return Verdict("yes", f"no test pick within {buffer / 1000:g} km of {names}")
    stated = training.excluded is not None
    without = [training.excluded] if stated else _left_out(sources or [])
    if without and all(
        one is not None and one[1] >= buffer and _all_inside(points, one[0].values())
        for one in without
    ):
        areas = dict.fromkeys(name for one in without if one for name in one[0])
        return Verdict("yes", f"the training left out {', '.join(areas)}")
    if not sources and not training.sources:
        return Verdict("unknown", "its training is not stated")
    learned = []
    for path, source in _leaves(sources or []):
        gridded = _first(path) == "raster" and _is_survey(citekey_of(source, registry), registry)
        if "training" in path or not any(path) or gridded:
            learned.append(source)
    learned += [s for path, s in _leaves(training.sources) if "training" in path]
    if not learned:
        if any("checkpoint" in path for path, _ in _leaves(sources or [])):
            return Verdict("unknown", "its checkpoint does not state its training data")
        return Verdict("yes", "nothing was trained")
    return _of_surveys(learned, points, tested, registry, buffer)


def _of_surveys(
    learned: list[dict[str, Any]],
    points: pd.DataFrame,
    tested: set[str | None],
    registry: Registry,
    buffer: float,
) -> Verdict:
    """Decide by the training's surveys, since the places of its tiles are unknown."""
    files = {s.get("sha256"): s.get("file") for s in points.attrs.get("sources") or ()}
    files.pop(None, None)
    for source in learned:
        if source.get("sha256") in files:
            return Verdict("no", f"it learned from {files[source['sha256']]} itself")
    citekeys = {citekey_of(source, registry) for source in learned}
    elsewhere = None not in citekeys and not points.empty
    for citekey in sorted(filter(None, citekeys)):
        for test in sorted(filter(None, tested)):
            if citekey == test or _share(citekey, test, registry):
                reason = f"it learned from {citekey}, which contains or overlaps {test}"
                return Verdict("unknown", f"{reason}; state its tiles with --training")
        bounds = registry[citekey].bounds
        elsewhere &= bounds is not None and _is_clear(points, bounds, buffer)
    if elsewhere:
        return Verdict("yes", f"{', '.join(sorted(filter(None, citekeys)))} are elsewhere")
    return Verdict(
        "unknown", "the places of its training tiles are unknown; state them with --training"
    )


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
    """Yield sources without sources of their own, with the roles that lead to them."""
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
    """Return the role of a source in a bed; "raster" for a source that was only resampled."""
    roles = [role for role in path if role]
    return next((role for role in roles if role not in _SAME), "raster" if roles else None)


def _is_survey(citekey: str | None, registry: Registry) -> bool:
    return citekey is not None and registry[citekey].folder == "highres"


def citekey_of(source: Mapping[str, Any], registry: Registry) -> str | None:
    """Return the citekey of a source's dataset: stated, or found by checksum or by name."""
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
    """Return the least favourable verdict; the first if there are several."""
    return min(verdicts, key=lambda verdict: ("no", "unknown", "yes").index(verdict.answer))
