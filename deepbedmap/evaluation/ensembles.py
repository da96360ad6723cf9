"""Scores of an ensemble of beds: CRPS, spread, skill and coverage."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deepbedmap.errors import WrongCallError
from deepbedmap.evaluation.scoring import slices_of_picks

if TYPE_CHECKING:
    import numpy.typing as npt


@dataclass(frozen=True)
class EnsembleScores:
    """How well the members of an ensemble together predict the bed at picks.

    The noise of the picks is not corrected for: it lowers the coverage and adds to the skill.

    Attributes
    ----------
    members, picks
        Number of members, and of picks at which all members have a value.
    crps
        Continuous ranked probability score in metres, mean over the picks, of the members' own
        distribution. It is small where the members are both accurate and close together; for one
        member it is the MAE.
    crps_fair
        The same, with the members taken as a sample of a larger ensemble (Ferro 2014, doi
        10.1002/qj.2270); None for one member.
    spread, skill
        Square root of the mean variance of the members (divided by n - 1), and RMSE of their
        mean, in metres.
    spread_skill_ratio
        ``sqrt((m + 1) / m) * spread / skill`` for m members: 1 if the picks are
        indistinguishable from a member, less if the ensemble is overconfident (Fortin et al. 2014,
        doi 10.1175/JHM-D-14-0008.1).
    coverage_90
        Share of picks between the members' 5 % and 95 % quantiles (linear between members). Small
        ensembles reach less than 0.9 even if they are reliable: for a uniform distribution
        ``0.9 (m - 1) / (m + 1)``.
    by_spread
        Spread, skill and number of picks, in five classes of equal numbers by spread.
    """

    members: int
    picks: int
    crps: float
    crps_fair: float | None
    spread: float
    skill: float
    spread_skill_ratio: float
    coverage_90: float
    by_spread: list[dict[str, float]]


def score_ensemble(members: npt.ArrayLike, z: npt.ArrayLike) -> EnsembleScores:
    """Score the members of an ensemble together.

    Parameters
    ----------
    members
        (m, n) metres: elevation of each of m beds at the picks.
    z
        (n,) metres: the picks.

    Raises
    ------
    ValueError
        There are no members, or no picks.

    Examples
    --------
    >>> scores = score_ensemble([[0.0], [2.0]], [1.0])
    >>> scores.crps, scores.crps_fair, scores.skill, scores.coverage_90
    (0.5, 0.0, 0.0, 1.0)
    """
    members, z = np.asarray(members, np.float64), np.asarray(z, np.float64)
    m, n = members.shape
    if not m or not n:
        raise WrongCallError(f"expected some members and picks, found {m} and {n}")
    rank = 2 * np.arange(m)[:, None] - (m - 1)
    # Sorted members give the sum of all pairwise differences in O(m log m) instead of O(m**2).
    distance = pairs = inside = 0.0
    variance, squared = np.empty(n), np.empty(n)
    for part in slices_of_picks(n):
        beds, bed = np.sort(members[:, part], axis=0), z[part]
        distance += float(np.abs(beds - bed).mean(0).sum())
        pairs += float((rank * beds).sum())
        low, high = np.quantile(beds, [0.05, 0.95], axis=0)
        inside += float(((low <= bed) & (bed <= high)).sum())
        variance[part] = beds.var(0, ddof=1) if m > 1 else 0.0
        squared[part] = (beds.mean(0) - bed) ** 2
    spread, skill = math.sqrt(variance.mean()), math.sqrt(squared.mean())
    return EnsembleScores(
        members=m,
        picks=n,
        crps=(distance - pairs / m**2) / n,
        crps_fair=(distance - pairs / (m * (m - 1))) / n if m > 1 else None,
        spread=spread,
        skill=skill,
        spread_skill_ratio=math.sqrt((m + 1) / m) * spread / skill if skill else math.nan,
        coverage_90=inside / n,
        by_spread=[
            {
                "spread": math.sqrt(variance[part].mean()),
                "skill": math.sqrt(squared[part].mean()),
                "picks": len(part),
            }
            for part in np.array_split(np.argsort(variance, kind="stable"), 5)
            if len(part)
        ],
    )
