"""Check whether the bed, the ice on it and the sea next to it can be true together.

A product is a :class:`xarray.Dataset` of layers ``(y, x)`` in metres: ``bed`` and, where
known, ``surface``, ``thickness``, ``geoid``, ``mask``, as
:func:`deepbedmap.products.assemble` gives them. Its cells are read once, chunk by chunk.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from deepbedmap import rasters
from deepbedmap.errors import Fault, InvalidDataError
from deepbedmap.products.assembling import placed
from deepbedmap.products.attributes import MASK
from deepbedmap.products.check_report import Finding, Limits, Report, place_text
from deepbedmap.products.chunking import (
    bed_of,
    by_chunk,
    cell_axes,
    in_chunks_of,
    nonzero_cells,
    product_name,
    stated_datum,
    with_margin,
)
from deepbedmap.products.rules import RULES, correct_chunk, layers_in_float64, policies_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import dask.array as da
    import xarray as xr

    from deepbedmap.products.rules import Array, Policy


def check(
    dataset: xr.Dataset,
    *,
    policies: Mapping[str, Policy] | Policy | None = None,
    geoid: xr.DataArray | None = None,
    rock: xr.DataArray | None = None,
    limits: Limits | None = None,
) -> Report:
    """Check a product; its cells are read once, chunk by chunk.

    Parameters
    ----------
    dataset
        The product. What heights refer to is the attribute ``vertical_datum`` of each.
    policies
        What happens to cells that fail, by check or for all: ``"report"`` (the default),
        ``"correct"`` (by :func:`correct`; here they are reported) or ``"refuse"``. The checks:

        ========= ==================================================== ==========================
        check     what is asked of a cell                              correction
        ========= ==================================================== ==========================
        datum     all heights refer to one vertical datum              none: always an error
        range     the bed is a plausible height                        no value
        thickness bed not above the surface; grounded ice has at least bed = surface - that
                  its least thickness; not asked of rock
        rock      bed at the surface                                   bed = surface
        floating  below floating ice the bed is not above the ice's    bed = draft
                  draft, surface - thickness
        flotation grounded ice is too thick to float, where the bed    bed = the depth at which
                  is below the sea: H >= -b water_density/ice_density  the ice just floats
        slope     the bed is not steeper than likely                   none
        gaps      the bed has a value                                  none
        ========= ==================================================== ==========================

        A policy for all is for each check that can take it.
    geoid
        Height of the geoid above the ellipsoid, metres, in the product's CRS; its layer ``geoid``
        by default. Needed for flotation where heights stand on the ellipsoid.
    rock
        Nonzero on exposed rock, on the product's cells, such as where the thickness of the prior
        is 0; beside ``ice_free_land`` of its mask.
    limits
        What is held to be possible.

    Returns
    -------
    Report
        Each check counts on the bed as given, whatever the others find. A check that lacks what it
        needs is not done and says why.

    Raises
    ------
    InvalidDataError
        A check that refuses fails, or cannot be done; heights or CRSs differ; there is no bed.
    ValueError
        There is no such check or policy, or none that could correct; rock lies on other cells.

    Notes
    -----
    Firn air makes ice seem thicker than it is (18 m at Byrd Glacier), so that flotation is lenient
    by a tenth of it at the surface where the surface is that of the snow. Height above flotation:
    Cuffey & Paterson (2010), The Physics of Glaciers, chapter 8.

    Examples
    --------
    >>> import numpy as np
    >>> import xarray as xr
    >>> axes = {"y": [375, 125], "x": [125, 375]}
    >>> bed = xr.DataArray([[-900.0, 40.0], [-300.0, np.nan]], axes).rio.write_crs("EPSG:3031")
    >>> found = check(xr.Dataset({"bed": bed, "surface": xr.zeros_like(bed)}))["thickness"]
    >>> found.cells, found.examined, found.worst, found.where
    (1, 3, -40.0, (375.0, 375.0))
    """
    return examine(dataset, policies, geoid, rock, limits or Limits(), correcting=False)[0]


def examine(
    dataset: xr.Dataset,
    given: Mapping[str, Policy] | Policy | None,
    geoid: xr.DataArray | None,
    rock: xr.DataArray | None,
    limits: Limits,
    *,
    correcting: bool,
) -> tuple[Report, dict[str, da.Array], tuple[str, ...]]:
    """The report, the layers that it is about, and the names of the checks that correct."""
    policies = policies_of(given)
    bed = bed_of(dataset)
    layers, missing = _layers(dataset, bed, geoid, rock)
    why_not = {
        name: "; ".join(missing[need] for need in test.needs if need in missing)
        for name, test in RULES.items()
    }
    checks = tuple(name for name in RULES if not why_not[name])
    mending = tuple(name for name in checks if correcting and policies[name] == "correct")
    tally = partial(_tally, names=tuple(layers), checks=checks, mending=mending, limits=limits)
    chunks = tuple((1,) * count for count in bed.data.numblocks)
    tallies = by_chunk(
        tally, bed, *layers.values(), *cell_axes(bed), dtype=object, chunks=chunks
    ).compute()  # type: ignore[no-untyped-call]
    area = (rasters.resolution_of(bed) / 1000) ** 2
    if stated_datum(bed) is None:
        findings = [Finding("datum", done=False, why_not="the bed states no vertical datum")]
    else:
        findings = [Finding("datum", examined=bed.size)]
    for name, test in RULES.items():
        if name in checks:
            found = [chunk[name] for chunk in tallies.flat]
            findings.append(_finding(name, found, area))
        else:
            findings.append(Finding(name, done=False, why_not=why_not[name], unit=test.unit))
    report = Report(tuple(findings), limits)
    refused = [
        _fault(dataset, finding)
        for finding in findings[1:]
        if policies[finding.check] == "refuse" and (finding.cells or not finding.done)
    ]
    if refused:
        raise InvalidDataError(*refused)
    return report, layers, mending


def _finding(name: str, tallies: Sequence[_Tally], area: float) -> Finding:
    cells = sum(tally.cells for tally in tallies)
    worst = max(tally.worst for tally in tallies)
    return Finding(
        name,
        examined=sum(tally.examined for tally in tallies),
        cells=cells,
        area=cells * area,
        worst=worst.value if cells and not math.isnan(worst.value) else None,
        where=(-worst.west, worst.y) if cells else None,
        unit=RULES[name].unit,
        corrected=sum(tally.corrected for tally in tallies),
    )


def _fault(dataset: xr.Dataset, finding: Finding) -> Fault:
    test = RULES[finding.check]
    found, remedy = f"no way to check it: {finding.why_not}", "give it, or only report"
    if finding.done and finding.where is not None:
        found = f"{finding.cells:,} cells ({finding.area:,.1f} km2) that are not so, the "
        found += "first" if finding.worst is None else f"worst {finding.worst:,.2f} {test.unit}"
        found += f" at ({place_text(finding.where)})"
        remedy = test.remedy
    return Fault(
        product_name(dataset),
        field=f"bed ({finding.check})",
        expected=test.expected,
        found=found,
        remedy=remedy,
    )


def _layers(
    dataset: xr.Dataset, bed: xr.DataArray, geoid: xr.DataArray | None, rock: xr.DataArray | None
) -> tuple[dict[str, da.Array], dict[str, str]]:
    """What the checks need, in the bed's chunks, and why what is missing is."""
    steepest = partial(_steepest, cell=rasters.resolution_of(bed))
    layers = {"bed": bed.data}
    layers["slope"] = with_margin(steepest, bed, bed.data, 1, dtype=bed.dtype)
    missing = {}
    for name in ("surface", "thickness"):
        if name in dataset:
            layers[name] = in_chunks_of(dataset[name], bed)
        else:
            missing[name] = f"there is no layer {name}"
    if "mask" in dataset:
        mask = in_chunks_of(dataset["mask"], bed)
        layers["rock"] = mask == MASK["ice_free_land"]
        layers["grounded"] = mask == MASK["grounded_ice"]
        layers["floating"] = mask == MASK["floating_ice"]
    else:
        missing["rock"] = "no mask tells where rock is exposed"
        missing["grounded"] = missing["floating"] = "no mask tells grounded from floating ice"
    if rock is not None:
        outcrops = nonzero_cells(rock, bed, "rock")
        missing.pop("rock", None)
        layers["rock"] = layers["rock"] | outcrops if "rock" in layers else outcrops
        for name in {"grounded", "floating"} & layers.keys():
            layers[name] = layers[name] & ~outcrops
    if stated_datum(bed) is None:
        missing["sea level"] = "the bed states no vertical datum, so the sea's level is unknown"
    elif stated_datum(bed) == "ellipsoid":
        if geoid is not None:
            layers["geoid"] = placed(geoid, bed).data
        elif "geoid" in dataset:
            layers["geoid"] = in_chunks_of(dataset["geoid"], bed)
        else:
            missing["sea level"] = "heights stand on the ellipsoid and no geoid is given"
    return layers, missing


def _steepest(bed: Array, cell: float) -> Array:
    """Slope to the one of the four neighbours to which it is the steepest."""
    steepest = np.full_like(bed, np.nan)
    for values, slopes in ((bed, steepest), (bed.T, steepest.T)):
        with np.errstate(invalid="ignore"):  # from infinity to infinity
            slope = np.abs(np.diff(values, axis=0)) / cell
        np.fmax(slopes[1:], slope, out=slopes[1:])
        np.fmax(slopes[:-1], slope, out=slopes[:-1])
    return steepest


class _Worst(NamedTuple):
    """The cell that fails most; the greatest of several is the one of them all."""

    excess: float = -math.inf
    y: float = -math.inf
    west: float = -math.inf
    value: float = math.nan


class _Tally(NamedTuple):
    """What a check finds in a chunk."""

    examined: int
    cells: int
    corrected: int
    worst: _Worst


def _tally(
    *arrays: Array,
    names: tuple[str, ...],
    checks: tuple[str, ...],
    mending: tuple[str, ...],
    limits: Limits,
) -> Array:
    """The :class:`_Tally` of each check in a chunk, as the one cell of an array (1, 1)."""
    *values, x, y = arrays
    layers = layers_in_float64(names, values)
    mended, _ = correct_chunk(layers, mending, limits, values[0].dtype)
    tallies = {}
    for name in checks:
        measure = RULES[name].measure
        value, excess = measure(layers, limits)
        wrong = excess > 0
        worst, corrected = _Worst(), 0
        if wrong.any():
            most = excess == excess[wrong].max()
            row = np.where(most.any(axis=1), y[:, 0], -math.inf).argmax()
            cell = row, np.where(most[row], x[0], math.inf).argmin()
            place = float(y[cell[0], 0]), -float(x[0, cell[1]])
            worst = _Worst(float(excess[cell]), *place, float(value[cell]))
            if name in mending:
                still = measure({**layers, "bed": mended}, limits)[1] > 0
                corrected = int((wrong & ~still).sum())
        examined = int((~np.isnan(excess)).sum())
        tallies[name] = _Tally(examined, int(wrong.sum()), corrected, worst)
    cell_of_all = np.empty((1, 1), object)
    cell_of_all[0, 0] = tallies
    return cell_of_all
