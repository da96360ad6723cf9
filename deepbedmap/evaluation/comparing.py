"""Compare a bed with others at the same picks, and check that the picks are independent."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from deepbedmap.errors import Fault, InvalidDataError, WrongCallError
from deepbedmap.evaluation.common_datum import Bed, Place, open_beds, with_stated_datum
from deepbedmap.evaluation.ensembles import score_ensemble
from deepbedmap.evaluation.evaluating import score_at
from deepbedmap.evaluation.flight_lines import with_lines
from deepbedmap.evaluation.leaks import distance_to, find_leak
from deepbedmap.evaluation.relief_and_speed import relief_along, speed_at
from deepbedmap.evaluation.resolving import Resolution, resolution
from deepbedmap.evaluation.sampling import open_bed, open_members, places_of, require_some
from deepbedmap.evaluation.scoring import REPLICATES
from deepbedmap.evaluation.trainings import Training
from deepbedmap.evaluation.verdicts import (
    Verdict,
    citekey_of,
    verdict_on_prior,
    verdict_on_training,
)
from deepbedmap.places import BUFFER
from deepbedmap.provenance import provenance_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    import numpy.typing as npt
    import pandas as pd

    from deepbedmap.evaluation.ensembles import EnsembleScores
    from deepbedmap.evaluation.leaks import Leak
    from deepbedmap.evaluation.mass import MassStatistics
    from deepbedmap.evaluation.sampling import Raster
    from deepbedmap.evaluation.scoring import Scores
    from deepbedmap.rasters.geoids import Geoids
    from deepbedmap.registry.listing import Registry

_COUNTS = ("picks", "outside", "lines")
_OF_ENSEMBLE = ("members", "crps", "crps_fair", "spread", "skill", "coverage_90")
_OF_RESOLUTION = {
    "resolved_wavelength": "resolved_wavelength",
    "threshold": "coherence_threshold",
    "significance": "coherence_significance",
    "nugget": "error_nugget",
    "sill": "error_sill",
    "range": "error_range",
    "remark": "resolution_remark",
}
_OF_MASS = ("cells", "mean", "rms", "median", "mad", "share_large", "large", "gamma")
_SAME = 0.01  # share of picks at places of gridded ones; crossing lines alone give less


@dataclass(frozen=True)
class Row:
    """A bed in the table of :func:`compare`.

    Attributes
    ----------
    name
        ``dem``, ``bicubic prior``, ``gridding``, or the name of a baseline.
    file
        Name of the bed's file, if it has one.
    sha256
        Checksum of the file.
    scores
        Scores at the picks where all beds of the table have a value.
    independent_of_prior, independent_of_training
        Whether the picks are independent of the bed's prior and of its training.
    ensemble
        Scores of a bed with several members.
    resolution
        Shortest wavelength that the bed resolves, and correlation length of its errors.
    mass
        Statistics of the residual of mass conservation, if requested.
    """

    name: str
    file: str | None
    sha256: str | None
    scores: Scores
    independent_of_prior: Verdict
    independent_of_training: Verdict
    ensemble: EnsembleScores | None = None
    resolution: Resolution = field(default_factory=Resolution)
    mass: MassStatistics | None = None

    def flat(self) -> dict[str, Any]:
        """Return a value per column, without classes; limits of intervals end in _low and _high."""
        columns: dict[str, Any] = {"name": self.name, "file": self.file, "sha256": self.sha256}
        scores = asdict(self.scores)
        intervals = scores.pop("intervals")
        scores |= {f"quantile_{q}": value for q, value in scores.pop("quantiles").items()}
        for name in ("strata", "remark"):
            del scores[name]
        for name, value in scores.items():
            columns[name] = value
            if name not in _COUNTS:
                limits = intervals.get(name) or {}
                columns |= {f"{name}_{end}": limits.get(end) for end in ("low", "high")}
        for name in ("independent_of_prior", "independent_of_training"):
            verdict: Verdict = getattr(self, name)
            columns |= {name: verdict.answer, f"{name}_reason": verdict.reason}
        for name in _OF_ENSEMBLE:
            columns[name] = getattr(self.ensemble, name, None)
        columns |= {
            column: getattr(self.resolution, name) for name, column in _OF_RESOLUTION.items()
        }
        return columns | {f"mass_{name}": getattr(self.mass, name, None) for name in _OF_MASS}


def compare(
    dem: Raster | list[Raster],
    points: pd.DataFrame,
    *,
    prior: Raster | None = None,
    training: Training | None = None,
    gridding: pd.DataFrame | None = None,
    baselines: Mapping[str, Raster] | None = None,
    velocity: Raster | None = None,
    registry: Registry | None = None,
    datums: Mapping[str, str] | None = None,
    geoids: Geoids | None = None,
    buffer: float = BUFFER,
    allow_leak: bool = False,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> list[Row]:
    """Score a bed and others at the same picks, and judge whether the picks are independent.

    Parameters
    ----------
    dem
        Bed elevation (y, x) in metres, as for :func:`deepbedmap.evaluation.evaluate`. A list holds
        the members of an ensemble, of which the first is scored; of a product with
        ``bed_members``, ``bed`` is scored.
    points
        Test picks, as for :func:`deepbedmap.evaluation.evaluate`; ``attrs["sources"]`` names their
        datasets.
    prior
        The prior, interpolated bicubically at the picks; scored as a row of its own.
    training
        Tiles, picks and excluded areas of the DEM's training, as far as they are known.
    gridding
        Picks whose gridding is scored as a row of its own; by default the training picks.
    baselines
        Other beds by name: grids, files, or citekeys of the registry.
    velocity
        Ice velocity, for classes by speed: see :func:`deepbedmap.evaluation.speed_at`.
    registry
        Registry whose ``built_from`` and ``overlaps_with`` decide; by default the package's own.
    datums
        Vertical datum of beds that state none, by the name of the row, or ``picks``.
    geoids
        Geoids by name: see :func:`deepbedmap.rasters.convert_datum`. Beds above another datum than
        the picks are converted at the picks.
    buffer
        Distance (m) from training tiles or picks within which a pick leaks.
    allow_leak
        Score picks that leak; the row is marked.
    replicates, seed
        Number of resamples of the bootstrap, and seed of its random numbers.

    Returns
    -------
    list of Row
        The DEM first. Scores have classes by ``relief`` (standard deviation in stretches of 5 km of
        a line), ``speed`` and ``distance`` to the nearest training pick, where these are known.

    Raises
    ------
    InvalidDataError
        As for :func:`deepbedmap.evaluation.evaluate`; test picks leak; the vertical datum of a bed
        is unknown and the picks' is not, or there is no geoid to convert one; there is no pick at
        which all beds have a value.
    """
    from deepbedmap import registry as registries

    registry = registry or registries.load()
    training = training or Training()
    assumed_datums = dict(datums or {})
    _, _, z = places_of(points)
    points = with_stated_datum(points, assumed_datums.pop("picks", None))
    dems = dem if isinstance(dem, list) else [dem]
    leak = find_leak(points, training, buffer)
    if leak is not None and not allow_leak:
        raise InvalidDataError(_leak_fault(leak))
    gridding = training.picks if gridding is None else gridding
    beds = open_beds(dems[0], points, prior, gridding, baselines, registry)
    place = Place.of(points, beds["dem"], assumed_datums.get("dem"), geoids)
    sampled = _sampled(beds, place, assumed_datums)
    covered = _covered_by_all(beds, sampled)
    strata = _strata(points, gridding if training.picks is None else training.picks, velocity)
    named = with_lines(points)
    judge = _Judge(points, training, leak, gridding, registry, buffer)
    rows = []
    for name, bed in beds.items():
        described = _describe(bed.origin, registry)
        verdicts = judge.verdicts(name, described)
        values = sampled.pop(name)  # so that its memory is free after this row
        resolved = Resolution(remark="the picks name no lines")
        if named is not None:
            resolved = resolution(named.assign(grid=np.where(covered, values, np.nan)))
        scores = score_at(points, values, covered, strata, replicates, seed)
        datum = assumed_datums.get(name)
        ensemble = _ensemble(dems, place, datum, z, covered) if name == "dem" else None
        file, sha256 = described.get("file"), described.get("sha256")
        rows.append(Row(name, file, sha256, scores, *verdicts, ensemble, resolved))
    return rows


def _leak_fault(leak: Leak) -> Fault:
    return Fault(
        "picks",
        expected=f"test picks more than {leak.buffer / 1000:g} km from the training tiles and "
        "picks",
        found=str(leak),
        remedy="choose other picks, or use --allow-leak, which marks the row",
    )


def _sampled(
    beds: Mapping[str, Bed], place: Place, assumed_datums: Mapping[str, str]
) -> dict[str, npt.NDArray[np.float64]]:
    """Return the heights (n,) of each bed in metres; only the DEM's datum may be unknown."""
    if unknown := set(assumed_datums) - set(beds):
        raise WrongCallError(
            f"datums: expected names of {', '.join(beds)} or picks, found {unknown}"
        )
    return {
        name: place.sample(bed, assumed_datums.get(name), strict=name != "dem")
        for name, bed in beds.items()
    }


def _covered_by_all(
    beds: Mapping[str, Bed], sampled: Mapping[str, npt.NDArray[np.float64]]
) -> npt.NDArray[np.bool_]:
    """Return where all beds have a value (n,): scores at other picks could not be compared."""
    parts = []
    for name, values in sampled.items():
        finite = np.isfinite(values)
        require_some(finite, f"{name}: {beds[name].label}", beds[name].raster)
        parts.append(finite)
    covered: npt.NDArray[np.bool_] = np.logical_and.reduce(parts)
    if not covered.any():
        found = "none: where one has a value, another has a gap"
        raise InvalidDataError(
            Fault("beds", expected="picks at which all beds have a value", found=found)
        )
    return covered


def _strata(
    points: pd.DataFrame, training_picks: pd.DataFrame | None, velocity: Raster | None
) -> dict[str, npt.NDArray[np.float64]]:
    """Return the values of the picks (n,) for scores by class, as far as the inputs allow."""
    strata: dict[str, npt.NDArray[np.float64]] = {}
    if training_picks is not None:
        strata["distance"] = distance_to(points, training_picks)
    if velocity is not None:
        strata["speed"] = speed_at(points, velocity)
    strata["relief"] = relief_along(points)
    return strata


@dataclass(frozen=True)
class _Judge:
    """What decides whether the test picks are independent of each bed."""

    points: pd.DataFrame
    training: Training
    leak: Leak | None
    gridding: pd.DataFrame | None
    registry: Registry
    buffer: float

    def verdicts(self, name: str, described: dict[str, Any]) -> tuple[Verdict, Verdict]:
        """Return the verdicts on the prior and on the training of a bed of the table."""
        if name == "gridding" and self.gridding is not None:
            return Verdict("yes", "it has no prior"), _of_gridding(self.points, self.gridding)
        # The prior, or a dataset of the registry, is judged by its entry in the registry.
        listed = name == "bicubic prior" or "citekey" in described
        sources = [described | {"role": "prior"}] if listed else described.get("sources")
        sources_of_picks: list[dict[str, Any]] = self.points.attrs.get("sources") or [{}]
        tested = {source.get("citekey") for source in sources_of_picks}
        # The training and its leak are the DEM's: the other beds were not trained with it.
        training, leak = (self.training, self.leak) if name == "dem" else (Training(), None)
        return (
            verdict_on_prior(sources, tested, self.registry),
            verdict_on_training(
                sources, training, leak, self.points, tested, self.registry, self.buffer
            ),
        )


def _ensemble(
    dems: Sequence[Raster],
    place: Place,
    datum: str | None,
    z: npt.NDArray[np.float64],
    scored: npt.NDArray[np.bool_],
) -> EnsembleScores | None:
    """Score the members of a product, or the beds of several files; None for a single bed."""
    members = [open_bed(dem) for dem in dems] if len(dems) > 1 else open_members(dems[0])
    if len(members) < 2:
        return None
    beds = [Bed(member, member, "linear") for member in members]
    heights = np.stack([place.sample(bed, datum, strict=False) for bed in beds])
    for bed, values in zip(beds, heights, strict=True):
        require_some(np.isfinite(values), f"ensemble: {bed.label}", bed.raster)
    whole = scored & np.isfinite(heights).all(0)
    require_some(whole, "ensemble", members[0])
    return score_ensemble(heights[:, whole], z[whole])


def _of_gridding(points: pd.DataFrame, gridded: pd.DataFrame) -> Verdict:
    distance = distance_to(points, gridded)
    share, median = float((distance <= 1).mean()), float(np.median(distance))
    return Verdict(
        "no" if share > _SAME else "yes",
        f"{share:.1%} of the test picks are at the places of gridded ones, half are more than "
        f"{median:,.0f} m away",
    )


def _describe(origin: Any, registry: Registry) -> dict[str, Any]:
    """Return what a bed's provenance states, as a source."""
    from deepbedmap.provenance import describe_file

    if isinstance(origin, str | os.PathLike):
        described = describe_file(origin, "prior")
    else:
        provenance = provenance_of(origin.attrs)
        described = {key: value for key, value in provenance.items() if key == "sources"}
    citekey = citekey_of(described, registry)
    return described | ({"citekey": citekey} if citekey else {})
