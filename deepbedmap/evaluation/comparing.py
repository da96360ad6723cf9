"""Compare a bed with other beds at the same picks, and check if the picks are independent."""

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
from deepbedmap.evaluation.leaks import BUFFER, distance_to, find_leak
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
from deepbedmap.provenance import parsed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    import numpy.typing as npt
    import pandas as pd

    from deepbedmap.evaluation.ensembles import EnsembleScores
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
_SAME = 0.01  # share of picks at places of others, beyond what crossing lines give


@dataclass(frozen=True)
class Row:
    """A bed in the table of :func:`compare`.

    Attributes
    ----------
    name
        ``dem``, ``bicubic prior``, ``gridding``, or that of a baseline.
    file
        Name of its file, where it has one.
    sha256
        Checksum of that.
    scores
        At the picks where all beds of the table have a value.
    independent_of_prior, independent_of_training
        Whether the picks are new to what the bed was made from.
    ensemble
        Of a bed with several members.
    resolution
        What the bed holds of the picks along their lines.
    mass
        How far the ice above the bed is from conserving mass, where that was asked for.
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
        """The row without classes, a value a column: limits of intervals end in _low and _high."""
        said: dict[str, Any] = {"name": self.name, "file": self.file, "sha256": self.sha256}
        known = asdict(self.scores)
        intervals = known.pop("intervals")
        known |= {f"quantile_{q}": value for q, value in known.pop("quantiles").items()}
        for name in ("strata", "remark"):
            del known[name]
        for name, value in known.items():
            said[name] = value
            if name not in _COUNTS:
                limits = intervals.get(name) or {}
                said |= {f"{name}_{end}": limits.get(end) for end in ("low", "high")}
        for name in ("independent_of_prior", "independent_of_training"):
            verdict: Verdict = getattr(self, name)
            said |= {name: verdict.answer, f"{name}_reason": verdict.reason}
        for name in _OF_ENSEMBLE:
            said[name] = getattr(self.ensemble, name, None)
        said |= {column: getattr(self.resolution, name) for name, column in _OF_RESOLUTION.items()}
        return said | {f"mass_{name}": getattr(self.mass, name, None) for name in _OF_MASS}


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
    """Score a bed beside others, all at the same picks, and say what the picks are new to.

    Parameters
    ----------
    dem
        As of :func:`deepbedmap.evaluation.evaluate`. A list is of the members of an
        ensemble, the first of which is scored; so is ``bed`` of a product with ``bed_members``.
    points
        As of :func:`deepbedmap.evaluation.evaluate`; ``attrs["sources"]`` say which datasets
        they are of.
    prior
        The prior, which is interpolated bicubically at the picks, as a row of its own.
    training
        What is known of where the DEM was trained.
    gridding
        Picks that are gridded, as a row of its own; by default those of the training.
    baselines
        Other beds by name: grids, files, or citekeys of the registry.
    velocity
        For classes by ice speed: see :func:`deepbedmap.evaluation.speed_at`.
    registry
        Whose ``built_from`` and ``overlaps_with`` decide; by default that of the package.
    datums
        What heights refer to where nothing states it: by a row's name, or ``picks``.
    geoids
        By name: see :func:`deepbedmap.rasters.convert_datum`. Beds above another datum than the
        picks are brought to theirs at the picks.
    buffer
        Metres from training tiles or picks within which a pick leaks.
    allow_leak
        Do not refuse picks that leak; the row says so.
    replicates, seed
        Of the bootstrap.

    Returns
    -------
    list of Row
        The DEM first. Scores have classes by ``relief`` (standard deviation in stretches of 5 km of
        a line), ``speed`` and ``distance`` to the nearest training pick, where these are known.

    Raises
    ------
    InvalidDataError
        As of :func:`deepbedmap.evaluation.evaluate`; test picks leak; a vertical datum is
        unknown, where that of the picks is not, or no geoid is given to convert one; there is no
        pick at which all beds have a value.
    """
    from deepbedmap import registry as registries

    registry = registry or registries.load()
    training = training or Training()
    told = dict(datums or {})
    _, _, z = places_of(points)
    points = with_stated_datum(points, told.pop("picks", None))
    dems = dem if isinstance(dem, list) else [dem]
    leak = find_leak(points, training, buffer)
    if leak is not None and not allow_leak:
        raise InvalidDataError(
            Fault(
                "picks",
                expected=f"test picks more than {buffer / 1000:g} km from what was trained on",
                found=str(leak),
                remedy="choose other picks, or take --allow-leak, which marks the row",
            )
        )

    gridding = training.picks if gridding is None else gridding
    beds = open_beds(dems[0], points, prior, gridding, baselines, registry)
    if unknown := set(told) - set(beds):
        raise WrongCallError(
            f"datums: expected names of {', '.join(beds)} or picks, found {unknown}"
        )

    place = Place.of(points, beds["dem"], told.get("dem"), geoids)
    sampled = {
        name: place.sample(bed, told.get(name), strict=name != "dem") for name, bed in beds.items()
    }
    known = np.ones(len(points), bool)
    for name, values in sampled.items():
        finite = np.isfinite(values)
        require_some(finite, f"{name}: {beds[name].label}", beds[name].raster)
        known &= finite
    if not known.any():
        found = "none: where one has a value, another has a gap"
        raise InvalidDataError(Fault("beds", expected="picks at which all have one", found=found))

    strata: dict[str, npt.NDArray[np.float64]] = {}
    known_picks = gridding if training.picks is None else training.picks
    if known_picks is not None:
        strata["distance"] = distance_to(points, known_picks)
    if velocity is not None:
        strata["speed"] = speed_at(points, velocity)
    strata["relief"] = relief_along(points)
    named = with_lines(points)

    sources_of_picks: list[dict[str, Any]] = points.attrs.get("sources") or [{}]
    tested = {source.get("citekey") for source in sources_of_picks}
    rows = []
    for name, bed in beds.items():
        described = _describe(bed.given, registry)
        # The prior, or a dataset of the registry, is judged by what the registry says of it.
        listed = name == "bicubic prior" or "citekey" in described
        sources = [described | {"role": "prior"}] if listed else described.get("sources")
        trained, leaked = (training, leak) if name == "dem" else (Training(), None)
        if name == "gridding" and gridding is not None:
            new_to_prior, new = Verdict("yes", "it has no prior"), _of_gridding(points, gridding)
        else:
            new_to_prior = verdict_on_prior(sources, tested, registry)
            new = verdict_on_training(sources, trained, leaked, points, tested, registry, buffer)
        values = sampled.pop(name)
        resolved = Resolution(remark="the picks name no lines")
        if named is not None:
            resolved = resolution(named.assign(grid=np.where(known, values, np.nan)))
        rows.append(
            Row(
                name,
                described.get("file"),
                described.get("sha256"),
                score_at(points, values, known, strata, replicates, seed),
                new_to_prior,
                new,
                _ensemble(dems, place, told.get("dem"), z, known) if name == "dem" else None,
                resolved,
            )
        )
    return rows


def _ensemble(
    dems: Sequence[Raster],
    place: Place,
    datum: str | None,
    z: npt.NDArray[np.float64],
    scored: npt.NDArray[np.bool_],
) -> EnsembleScores | None:
    """Score the members of a product, or the beds of several files; None of a single bed."""
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
        f"{share:.1%} of the test picks lie at gridded ones, half farther off than {median:,.0f} m",
    )


def _describe(given: Any, registry: Registry) -> dict[str, Any]:
    """What a bed says of itself, as a source."""
    from deepbedmap.provenance import describe_file

    if isinstance(given, str | os.PathLike):
        described = describe_file(given, "prior")
    else:
        provenance = parsed(given.attrs.get("provenance"))
        described = {key: value for key, value in provenance.items() if key == "sources"}
    citekey = citekey_of(described, registry)
    return described | ({"citekey": citekey} if citekey else {})
