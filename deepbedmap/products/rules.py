"""The physics that a product is held to: flotation, thickness, range and others.

A rule measures each cell, says by how much it exceeds the limits, and, where it can, gives
the bed that would satisfy it. Bed, surface, thickness and geoid are in metres.
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
    """A check: what it needs, measures and expects, and what it puts in the place of what fails.

    ``measure`` gives the value, and by how much that is beyond what is allowed: NaN where the check
    has nothing to say.
    """

    expected: str
    remedy: str
    needs: tuple[str, ...]
    measure: Callable[[_Layers, Limits], tuple[Array, Array]]
    mend: Callable[[_Layers, Limits], Array] | None = None
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
    """The bed on which ice just floats; as it is where that would leave too little of the ice."""
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
    """The highest bed that leaves grounded ice its least thickness, and other cells any."""
    return layers["surface"] - np.where(layers.get("grounded", True), limits.least_thickness, 0)


def _slope(layers: _Layers, limits: Limits) -> tuple[Array, Array]:
    return layers["slope"], layers["slope"] - limits.steepest


def _gaps(layers: _Layers, _limits: Limits) -> tuple[Array, Array]:
    gaps = np.isnan(layers["bed"])
    return np.full(gaps.shape, np.nan), np.where(gaps, 1.0, -1.0)


# In the order of their corrections: what is raised to touch the ice must not pierce its surface.
RULES = {
    "range": Rule(
        "a plausible height",
        "mend the bed, or take its value away by correcting",
        (),
        _range,
        lambda layers, _limits: np.full_like(layers["bed"], np.nan),
    ),
    "rock": Rule(
        "the bed at the surface on rock",
        "mend the bed, or put it at the surface by correcting",
        ("surface", "rock"),
        _step_on_rock,
        lambda layers, _limits: layers["surface"],
        "rock",
    ),
    "flotation": Rule(
        "grounded ice too thick to float",
        "mend bed or mask, or raise the bed by correcting",
        ("surface", "grounded", "sea level"),
        _height_above_flotation,
        _flotation_depth,
        "flotation",
    ),
    "floating": Rule(
        "no bed above the draft of floating ice",
        "mend bed or mask, or lower the bed by correcting",
        ("surface", "thickness", "floating"),
        _water_column,
        _draft,
        "ice_draft",
    ),
    "thickness": Rule(
        "no bed above the surface, grounded ice of its least thickness",
        "mend bed or surface, or lower the bed by correcting",
        ("surface",),
        _thickness,
        _ceiling,
        "surface",
    ),
    "slope": Rule(
        "no jumps",
        "look at the inputs there, or allow steeper slopes",
        (),
        _slope,
        unit="m/m",
    ),
    "gaps": Rule("a value everywhere", "fill the gaps of the prior, or only report", (), _gaps),
}
CHECKS = ("datum", *RULES)
"""Names of the checks."""


def policies_of(given: Mapping[str, Policy] | Policy | None) -> dict[str, Policy]:
    """Give the policy of every check but that of the datum, which always refuses.

    Parameters
    ----------
    given
        As :func:`check` takes it.

    Raises
    ------
    ValueError
        There is no such check or policy, or the check cannot be corrected.
    """
    able: dict[str, list[Policy]] = {
        name: ["report", "correct", "refuse"] if test.mend else ["report", "refuse"]
        for name, test in RULES.items()
    }
    chosen: dict[str, Policy] = dict.fromkeys(able, "report")
    if given is None:
        return chosen
    if isinstance(given, str):
        if given not in get_args(Policy):
            raise WrongCallError(f"policy {given!r} is none of {', '.join(get_args(Policy))}")
        return {name: given if given in able[name] else "report" for name in able}
    able["datum"] = ["refuse"]
    for name, policy in given.items():
        if name not in able:
            hint = did_you_mean(str(name), CHECKS)
            text = f"{name!r} is no check: they are {', '.join(CHECKS)}"
            raise WrongCallError(f"{text}; {hint}" if hint else text)
        if policy not in able[name]:
            raise WrongCallError(f"{name}: policy {policy!r} is none of {', '.join(able[name])}")
    return chosen | dict(given)


def layers_in_float64(names: Sequence[str], values: Sequence[Array]) -> dict[str, Array]:
    """Layers by name, heights in float64."""
    return {
        name: layer if layer.dtype == bool else layer.astype(np.float64)
        for name, layer in zip(names, values, strict=True)
    }


def correct_chunk(
    layers: _Layers, mending: Sequence[str], limits: Limits, dtype: npt.DTypeLike
) -> tuple[Array, npt.NDArray[np.uint8]]:
    """The bed corrected, to what a type holds, and how: 0 where it is as it was."""
    bed = layers["bed"]
    source = np.zeros(bed.shape, np.uint8)
    for name in mending:
        test, now = RULES[name], {**layers, "bed": bed}
        wrong = test.measure(now, limits)[1] > 0
        if test.mend is not None and wrong.any():
            mended = np.where(wrong, test.mend(now, limits), bed).astype(dtype).astype(np.float64)
            source[wrong & (mended != bed)] = SOURCE[test.source]
            bed = mended
    return bed, source
