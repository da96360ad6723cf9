"""Check whether the bed, the ice on it and the sea next to it are consistent.

A product is a :class:`xarray.Dataset` of layers ``(y, x)`` in metres: ``bed`` and,
optionally, ``surface``, ``thickness``, ``geoid``, ``mask``, as
:func:`deepbedmap.products.assemble` returns them. Its cells are read once, chunk by chunk.
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
        The product; the attribute ``vertical_datum`` of each layer states its datum.
    policies
        What happens to cells that fail, by check or for all: ``"report"`` (the default),
        ``"correct"`` (by :func:`correct`; here they are reported) or ``"refuse"``. The checks:

        ========= ==================================================== ==========================
        check     what is required of a cell                           correction
        ========= ==================================================== ==========================
        datum     all heights refer to one vertical datum              none: always an error
        range     the bed is a plausible height                        no value
        thickness bed not above the surface; grounded ice has at least bed = surface - that
                  its least thickness; not on rock
        rock      bed at the surface                                   bed = surface
        floating  below floating ice the bed is not above the ice's    bed = draft
                  draft, surface - thickness
        flotation grounded ice is too thick to float, where the bed    bed = the depth at which
                  is below the sea: H >= -b water_density/ice_density  the ice just floats
        slope     the bed is not steeper than likely                   none
        gaps      the bed has a value                                  none
        ========= ==================================================== ==========================

        A policy for all applies to each check that allows it.
    geoid
        Height of the geoid above the ellipsoid, metres, in the product's CRS; its layer ``geoid``
        by default. Needed for flotation if heights are above the ellipsoid.
    rock
        Nonzero on exposed rock, on the product's cells, such as where the thickness of the prior
        is 0; in addition to ``ice_free_land`` of its mask.
    limits
        Limits of what is physically plausible.

    Returns
    -------
    Report
        Each check examines the bed as it is, independently of the others. A check that lacks an
        input is not done, and states the reason.

    Raises
    ------
    InvalidDataError
        A check that refuses fails, or cannot be done; heights or CRSs differ; there is no bed.
    ValueError
        There is no such check or policy, or the check cannot correct; rock is on other cells.

    Notes
    -----
    Firn air makes ice seem thicker than it is (18 m at Byrd Glacier), so that flotation is lenient
    by a tenth of it if the surface is the snow surface. Height above flotation:
    Cuffey & Paterson (2010), The Physics of Glaciers, chapter 8.

    Examples
    --------
    >>> import numpy as np
    >>> import xarray as xr
    >>> import rioxarray
    >>> axes = {"y": [375, 125], "x": [125, 375]}
    >>> bed = xr.DataArray([[-900.0, 40.0], [-300.0, np.nan]], axes).rio.write_crs("EPSG:3031")
    >>> finding = check(xr.Dataset({"bed": bed, "surface": xr.zeros_like(bed)}))["thickness"]
    >>> finding.cells, finding.examined, finding.worst, finding.where
    (1, 3, -40.0, (375.0, 375.0))
    """
    return examine(dataset, policies, geoid, rock, limits or Limits(), correcting=False)[0]


def examine(
    dataset: xr.Dataset,
    requested: Mapping[str, Policy] | Policy | None,
    geoid: xr.DataArray | None,
    rock: xr.DataArray | None,
    limits: Limits,
    *,
    correcting: bool,
) -> tuple[Report, dict[str, da.Array], tuple[str, ...]]:
    """Return the report, the layers of the checks, and the names of the checks that correct."""
    policies = policies_of(requested)
    bed = bed_of(dataset)
    layers, missing = _layers(dataset, bed, geoid, rock)
    why_not = {
        name: "; ".join(missing[need] for need in test.needs if need in missing)
        for name, test in RULES.items()
    }
    checks = tuple(name for name in RULES if not why_not[name])
    corrections = tuple(name for name in checks if correcting and policies[name] == "correct")
    tally = partial(
        _tally, names=tuple(layers), checks=checks, corrections=corrections, limits=limits
    )
    chunks = tuple((1,) * count for count in bed.data.numblocks)
    tallies = by_chunk(
        tally, bed, *layers.values(), *cell_axes(bed), dtype=object, chunks=chunks
    ).compute()  # type: ignore[no-untyped-call]
    area = (rasters.resolution_of(bed) / 1000) ** 2
    if rasters.stated_datum(bed) is None:
        findings = [Finding("datum", done=False, why_not="the bed states no vertical datum")]
    else:
        findings = [Finding("datum", examined=bed.size)]
    for name, test in RULES.items():
        if name in checks:
            counts = [chunk[name] for chunk in tallies.flat]
            findings.append(_finding(name, counts, area))
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
    return report, layers, corrections


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
        found = f"{finding.cells:,} cells ({finding.area:,.1f} km2) that fail, the "
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
    """Return the layers of the checks, in the bed's chunks, and why others are missing."""
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
        missing["rock"] = "no mask states where rock is exposed"
        missing["grounded"] = missing["floating"] = "no mask separates grounded from floating ice"
    if rock is not None:
        outcrops = nonzero_cells(rock, bed, "rock")
        missing.pop("rock", None)
        layers["rock"] = layers["rock"] | outcrops if "rock" in layers else outcrops
        for name in {"grounded", "floating"} & layers.keys():
            layers[name] = layers[name] & ~outcrops
    if rasters.stated_datum(bed) is None:
        missing["sea level"] = "the bed states no vertical datum, so the sea's level is unknown"
    elif rasters.stated_datum(bed) == "ellipsoid":
        if geoid is not None:
            layers["geoid"] = placed(geoid, bed).data
        elif "geoid" in dataset:
            layers["geoid"] = in_chunks_of(dataset["geoid"], bed)
        else:
            missing["sea level"] = "heights are above the ellipsoid and there is no geoid"
    return layers, missing


def _steepest(bed: Array, cell: float) -> Array:
    """Return the steepest slope to one of the four neighbours."""
    steepest = np.full_like(bed, np.nan)
    for values, slopes in ((bed, steepest), (bed.T, steepest.T)):
        with np.errstate(invalid="ignore"):  # from infinity to infinity
            slope = np.abs(np.diff(values, axis=0)) / cell
        np.fmax(slopes[1:], slope, out=slopes[1:])
        np.fmax(slopes[:-1], slope, out=slopes[:-1])
    return steepest


class _Worst(NamedTuple):
    """The cell that fails most; the maximum over chunks is the worst of all."""

    excess: float = -math.inf
    y: float = -math.inf
    west: float = -math.inf
    value: float = math.nan


class _Tally(NamedTuple):
    """The counts and the worst cell of a check in a chunk."""

    examined: int
    cells: int
    corrected: int
    worst: _Worst


def _tally(
    *arrays: Array,
    names: tuple[str, ...],
    checks: tuple[str, ...],
    corrections: tuple[str, ...],
    limits: Limits,
) -> Array:
    """Return the :class:`_Tally` of each check in a chunk, in an array (1, 1)."""
    *values, x, y = arrays
    layers = layers_in_float64(names, values)
    corrected_bed, _ = correct_chunk(layers, corrections, limits, values[0].dtype)
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
            if name in corrections:
                still = measure({**layers, "bed": corrected_bed}, limits)[1] > 0
                corrected = int((wrong & ~still).sum())
        examined = int((~np.isnan(excess)).sum())
        tallies[name] = _Tally(examined, int(wrong.sum()), corrected, worst)
    cell_of_all = np.empty((1, 1), object)
    cell_of_all[0, 0] = tallies
    return cell_of_all
