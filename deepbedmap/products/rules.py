"""The physical rules of a product: flotation, thickness, range and others.

A rule measures each cell, returns by how much it exceeds the limits and, if possible, the bed
that would satisfy it. Bed, surface, thickness and geoid are in metres.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from deepbedmap.errors import WrongCallError, did_you_mean
from deepbedmap.products.attributes import SOURCE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from deepbedmap.products.check_report import Limits

Policy = Literal["report", "correct", "refuse"]
_MILLIMETRE = 1e-3  # heights of float32 are no finer
Array = npt.NDArray[Any]
_Layers = Mapping[str, Array]


class Rule(NamedTuple):
    """A check: its inputs, measure and expectation, and its correction of cells that fail.

    ``measure`` returns the value, and its excess over the limit: NaN where the check does not
    apply.
    """

    expected: str
    remedy: str
    needs: tuple[str, ...]
    measure: Callable[[_Layers, Limits], tuple[Array, Array]]
    correct: Callable[[_Layers, Limits], Array] | None = None
    source: str = "none"
    unit: str = "m"


def _range(layers: _Layers, limits: Limits) -> tuple[Array, Array]:
    bed = layers["bed"]
    return bed, np.maximum(limits.lowest - bed, bed - limits.highest)


def _step_on_rock(layers: _Layers, limits: Limits) -> tuple[Array, Array]:
    step = np.where(layers["rock"], layers["bed"] - layers["surface"], np.nan)
    return step, np.abs(step) - max(limits.tolerance, _MILLIMETRE)


def _height_above_flotation(layers: _Layers, limits: Limits) -> tuple[Array, Array]:
    bed = layers["bed"] - layers.get("geoid", 0)
    thickness = layers["surface"] - layers["bed"]
    height = thickness + limits.water_density / limits.ice_density * bed
    height = np.where(layers["grounded"] & (bed < 0), height, np.nan)
    return height, -height - max(limits.tolerance, _MILLIMETRE)


def _flotation_depth(layers: _Layers, limits: Limits) -> Array:
    """Return the bed at which ice just floats; unchanged where too little ice would be left."""
    sea = layers.get("geoid", 0)
    buoyancy = limits.ice_density / (limits.water_density - limits.ice_density)
    depth = sea - (layers["surface"] - sea) * buoyancy
    return np.where(depth <= _ceiling(layers, limits), depth, layers["bed"])


def _water_column(layers: _Layers, limits: Limits) -> tuple[Array, Array]:
    column = np.where(layers["floating"], _draft(layers, limits) - layers["bed"], np.nan)
    return column, -column - max(limits.tolerance, _MILLIMETRE)


def _draft(layers: _Layers, _limits: Limits) -> Array:
    return layers["surface"] - layers["thickness"]


def _thickness(layers: _Layers, limits: Limits) -> tuple[Array, Array]:
    ice = ~layers["rock"] if "rock" in layers else True
    thickness = np.where(ice, layers["surface"] - layers["bed"], np.nan)
    excess = np.where(ice, layers["bed"] - _ceiling(layers, limits) - _MILLIMETRE, np.nan)
    return thickness, excess


def _ceiling(layers: _Layers, limits: Limits) -> Array:
    """Return the highest bed: below the surface by the least thickness on grounded ice."""
    return layers["surface"] - np.where(layers.get("grounded", True), limits.least_thickness, 0)


def _slope(layers: _Layers, limits: Limits) -> tuple[Array, Array]:
    return layers["slope"], layers["slope"] - limits.steepest


def _gaps(layers: _Layers, _limits: Limits) -> tuple[Array, Array]:
    gaps = np.isnan(layers["bed"])
    return np.full(gaps.shape, np.nan), np.where(gaps, 1.0, -1.0)


# In the order of the corrections: a bed raised to touch the ice must not pierce its surface.
RULES = {
    "range": Rule(
        "a plausible height",
        "correct the bed, or remove its value with the policy correct",
        (),
        _range,
        lambda layers, _limits: np.full_like(layers["bed"], np.nan),
    ),
    "rock": Rule(
        "the bed at the surface on rock",
        "correct the bed, or put it at the surface with the policy correct",
        ("surface", "rock"),
        _step_on_rock,
        lambda layers, _limits: layers["surface"],
        "rock",
    ),
    "flotation": Rule(
        "grounded ice too thick to float",
        "correct bed or mask, or raise the bed with the policy correct",
        ("surface", "grounded", "sea level"),
        _height_above_flotation,
        _flotation_depth,
        "flotation",
    ),
    "floating": Rule(
        "no bed above the draft of floating ice",
        "correct bed or mask, or lower the bed with the policy correct",
        ("surface", "thickness", "floating"),
        _water_column,
        _draft,
        "ice_draft",
    ),
    "thickness": Rule(
        "no bed above the surface, grounded ice of its least thickness",
        "correct bed or surface, or lower the bed with the policy correct",
        ("surface",),
        _thickness,
        _ceiling,
        "surface",
    ),
    "slope": Rule(
        "no jumps",
        "check the inputs there, or allow steeper slopes",
        (),
        _slope,
        unit="m/m",
    ),
    "gaps": Rule("a value everywhere", "fill the gaps of the prior, or only report", (), _gaps),
}
CHECKS = ("datum", *RULES)
"""Names of the checks."""


def policies_of(requested: Mapping[str, Policy] | Policy | None) -> dict[str, Policy]:
    """Return the policy of every check except datum, which always refuses.

    Parameters
    ----------
    requested
        Policies by check, or one for all, as for :func:`check`.

    Raises
    ------
    ValueError
        There is no such check or policy, or the check cannot be corrected.
    """
    able: dict[str, list[Policy]] = {
        name: ["report", "correct", "refuse"] if test.correct else ["report", "refuse"]
        for name, test in RULES.items()
    }
    chosen: dict[str, Policy] = dict.fromkeys(able, "report")
    if requested is None:
        return chosen
    if isinstance(requested, str):
        if requested not in get_args(Policy):
            raise WrongCallError(
                f"policy: expected one of {', '.join(get_args(Policy))}, found {requested!r}"
            )
        return {name: requested if requested in able[name] else "report" for name in able}
    able["datum"] = ["refuse"]
    for name, policy in requested.items():
        if name not in able:
            hint = did_you_mean(str(name), CHECKS)
            text = f"{name!r} is no check: they are {', '.join(CHECKS)}"
            raise WrongCallError(f"{text}; {hint}" if hint else text)
        if policy not in able[name]:
            raise WrongCallError(
                f"{name}: expected one of {', '.join(able[name])}, found {policy!r}"
            )
    return chosen | dict(requested)


def layers_in_float64(names: Sequence[str], values: Sequence[Array]) -> dict[str, Array]:
    """Return layers by name, heights in float64."""
    return {
        name: layer if layer.dtype == bool else layer.astype(np.float64)
        for name, layer in zip(names, values, strict=True)
    }


def correct_chunk(
    layers: _Layers, corrections: Sequence[str], limits: Limits, dtype: npt.DTypeLike
) -> tuple[Array, npt.NDArray[np.uint8]]:
    """Return the corrected bed, rounded to a type, and its source: 0 where unchanged."""
    bed = layers["bed"]
    source = np.zeros(bed.shape, np.uint8)
    for name in corrections:
        test, now = RULES[name], {**layers, "bed": bed}
        wrong = test.measure(now, limits)[1] > 0
        if test.correct is not None and wrong.any():
            corrected = (
                np.where(wrong, test.correct(now, limits), bed).astype(dtype).astype(np.float64)
            )
            source[wrong & (corrected != bed)] = SOURCE[test.source]
            bed = corrected
    return bed, source
