"""Whether a bed, the ice on it and the sea beside it can be true together, and what mends them.

A product here is a :class:`xarray.Dataset` of layers ``(y, x)`` in metres: ``bed``, and where known
``surface``, ``thickness``, ``geoid``, ``mask``: what :func:`deepbedmap.products.assemble` gives.
Every function goes chunk by chunk, and no result depends on the chunks.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, get_args

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr

from deepbedmap import rasters
from deepbedmap.errors import Fault, InvalidDataError
from deepbedmap.products import MASK, SOURCE, placed, spread_of, thickness_of
from deepbedmap.schemas import near

if TYPE_CHECKING:
    import geopandas as gpd
    import shapely

    Outline: TypeAlias = gpd.GeoDataFrame | str | os.PathLike[str] | xr.DataArray

Policy = Literal["report", "correct", "refuse"]

_CHUNK = 1024  # cells a side, of layers that have no chunks
_MILLIMETRE = 1e-3  # heights of float32 are no finer

_Array = npt.NDArray[Any]
_Layers = Mapping[str, _Array]


@dataclass(frozen=True)
class Limits:
    """What is held to be possible.

    Attributes
    ----------
    lowest, highest
        Of the bed, in metres.
    least_thickness
        Of grounded ice, in metres.
    tolerance
        Metres by which bed and surface may differ on rock, a water column may be negative, and
        grounded ice may be too thin not to float.
    steepest
        Slope of the bed from a cell to one of its four neighbours, in metres a metre.
    ice_density, water_density
        kg m-3, of ice and of sea water.
    """

    lowest: float = -6000.0
    highest: float = 5000.0
    least_thickness: float = 0.0
    tolerance: float = 1.0
    steepest: float = 1.0
    ice_density: float = 917.0
    water_density: float = 1027.0

    def __post_init__(self) -> None:
        if not self.lowest < self.highest:
            raise ValueError(f"lowest {self.lowest} must lie below highest {self.highest}")
        if not 0 < self.ice_density < self.water_density:
            raise ValueError(
                f"ice_density {self.ice_density} must be positive and below water_density"
                f" {self.water_density}"
            )
        for name in ("least_thickness", "tolerance", "steepest"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} {getattr(self, name)} must not be negative")


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes
    ----------
    check
        Its name, one of :data:`CHECKS`.
    done, why_not
        Whether it could be done, and why not.
    examined, cells
        Number of cells that the check is about, and of those that fail.
    area
        Of the cells that fail, in km2 on the map (in EPSG:3031 up to 6 % less than on the ground).
    worst, where, unit
        The value of the cell that fails most, the (x, y) of its centre, the northernmost, then the
        westernmost, of several, and the value's unit.
    corrected
        Number of cells that fail no more in what :func:`correct` gives.
    """

    check: str
    done: bool = True
    why_not: str | None = None
    examined: int = 0
    cells: int = 0
    area: float = 0.0
    worst: float | None = None
    where: tuple[float, float] | None = None
    unit: str = "m"
    corrected: int = 0

    @property
    def share(self) -> float:
        """Of the examined cells, those that fail; 0 to 1."""
        return self.cells / self.examined if self.examined else 0.0

    @property
    def left(self) -> int:
        """Number of cells that fail and are not corrected."""
        return self.cells - self.corrected


@dataclass(frozen=True)
class Report:
    """What all checks found, and the limits that they went by.

    ``report["thickness"]`` is the finding of a check.
    """

    findings: tuple[Finding, ...]
    limits: Limits

    def __getitem__(self, check: str) -> Finding:
        return {finding.check: finding for finding in self.findings}[check]

    def text(self) -> str:
        """Give a table, one line a check."""
        lines = [
            f"{'check':<9} {'cells':>11} {'of':>11} {'share':>8} {'km2':>11} {'worst':>13}"
            f" {'at x, y':>18} {'corrected':>11}"
        ]
        for found in self.findings:
            worst = "" if found.worst is None else f"{found.worst:,.2f} {found.unit}"
            place = "" if found.where is None else _place(found.where)
            lines.append(
                f"{found.check:<9} {found.cells:>11,} {found.examined:>11,} {found.share:>8.2%}"
                f" {found.area:>11,.1f} {worst:>13} {place:>18} {found.corrected:>11,}"
                if found.done
                else f"{found.check:<9} not done: {found.why_not}"
            )
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Give what JSON and attributes hold; a value that is not finite is None."""
        findings = []
        for finding in self.findings:
            row = {**asdict(finding), "share": finding.share}
            if finding.worst is not None and not math.isfinite(finding.worst):
                row["worst"] = None
            if finding.where is not None:
                row["where"] = list(finding.where)
            findings.append(row)
        return {"limits": asdict(self.limits), "findings": findings}


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
    >>> axes = {"y": [375, 125], "x": [125, 375]}
    >>> bed = xr.DataArray([[-900.0, 40.0], [-300.0, np.nan]], axes).rio.write_crs("EPSG:3031")
    >>> found = check(xr.Dataset({"bed": bed, "surface": xr.zeros_like(bed)}))["thickness"]
    >>> found.cells, found.examined, found.worst, found.where
    (1, 3, -40.0, (375.0, 375.0))
    """
    return _examine(dataset, policies, geoid, rock, limits or Limits(), correcting=False)[0]


def correct(
    dataset: xr.Dataset,
    *,
    policies: Mapping[str, Policy] | Policy | None = "correct",
    geoid: xr.DataArray | None = None,
    rock: xr.DataArray | None = None,
    limits: Limits | None = None,
) -> tuple[xr.Dataset, Report]:
    """Mend the cells of a product that fail a check whose policy is ``"correct"``.

    Parameters, errors and the report are those of :func:`check`, which reads every cell once before
    this returns.

    Returns
    -------
    xarray.Dataset
        The product, lazily: ``bed`` corrected; ``thickness``, where there is one, anew in these
        cells (:func:`deepbedmap.products.thickness_of`); ``source`` with the values of
        :data:`deepbedmap.products.SOURCE`. Every member of an ensemble is corrected by itself, and
        mean and spread are those of the corrected members.
    Report
        Of ``bed`` alone. Cells that fail still are ``left``: grounded ice whose surface is below
        the sea floats whatever its bed.

    Examples
    --------
    >>> axes = {"y": [375, 125], "x": [125, 375]}
    >>> bed = xr.DataArray([[-900.0, 40.0], [-300.0, np.nan]], axes).rio.write_crs("EPSG:3031")
    >>> corrected, report = correct(xr.Dataset({"bed": bed, "surface": xr.zeros_like(bed)}))
    >>> corrected["bed"].values.tolist(), report["thickness"].corrected
    ([[-900.0, 0.0], [-300.0, nan]], 1)
    """
    limits = limits or Limits()
    report, layers, mending = _examine(dataset, policies, geoid, rock, limits, correcting=True)
    bed = _bed(dataset)
    mend = partial(_mend, names=tuple(layers), mending=mending, limits=limits)

    def mended(cells: da.Array) -> da.Array:
        given = (layers | {"bed": cells}).values()
        return _by_chunk(partial(mend, layer="bed"), bed, *given, dtype=bed.dtype)

    flags = _by_chunk(partial(mend, layer="source"), bed, *layers.values(), dtype=np.uint8)
    source = da.where(flags > 0, flags, _source(dataset, bed))
    source = da.where(da.isnan(mended(bed.data)), np.uint8(SOURCE["none"]), source)
    return _remade(dataset, mended, source, flags > 0), report


def cut_at_grounding_line(dataset: xr.Dataset, outline: Outline) -> xr.Dataset:
    """Keep the bed on grounded ice alone.

    Parameters
    ----------
    dataset
        The product.
    outline
        Polygons of the grounded ice or their file, as :func:`deepbedmap.tiles.grounded` takes them,
        in the product's CRS; or a raster on its cells that is nonzero on grounded ice, such as
        ``dataset["mask"].isin([1, 2, 4])``. A cell is grounded where its centre is.

    Returns
    -------
    xarray.Dataset
        The product, lazily: NaN in ``thickness`` and in all layers of the bed where a cell is not
        grounded, and 0 in ``source``.

    Raises
    ------
    InvalidDataError
        The outline cannot be read, or has another CRS; there is no bed.
    MissingDataError
        There is no such file.
    ValueError
        The outline is a raster of other cells.
    """
    bed = _bed(dataset)
    grounded = xr.DataArray(_grounded(outline, bed), bed.coords, bed.dims)
    cut = {
        str(name): layer.chunk(dict(bed.chunksizes)).where(grounded)
        for name, layer in dataset.items()
        if name == "thickness" or str(name).split("_")[0] == "bed"
    }
    source = da.where(grounded.data, _source(dataset, bed), np.uint8(SOURCE["none"]))
    return dataset.assign({**cut, "source": _described(dataset, bed, source)})


def blend(
    dataset: xr.Dataset,
    bathymetry: xr.DataArray,
    outline: Outline,
    width: float,
) -> xr.Dataset:
    """Lead a bed over into a given bathymetry, across the grounding line.

    Parameters
    ----------
    dataset
        The product.
    bathymetry
        Bed elevation (y, x), metres, in the product's CRS and on its vertical datum; interpolated
        bilinearly.
    outline
        Of the grounded ice, as :func:`cut_at_grounding_line` takes it.
    width
        Metres on each side of the grounding line, across which the share of the bathymetry falls
        from 1 at sea to 0 on land as half a wave of a cosine; 0.5 at the line itself. The distance
        of a cell is that of its centre to the edges of the nearest cell on the other side.

    Returns
    -------
    xarray.Dataset
        The product, lazily: ``bed``; ``thickness``, where there is one, anew from it on grounded
        ice; ``source``, which tells ``bathymetry`` from ``blend``. Where the bathymetry has no
        value the bed stays; where the bed has none the bathymetry takes its place, but on land
        beyond the width. Of an ensemble every member goes over too, and mean and spread are those
        of the members then.

    Raises
    ------
    InvalidDataError, MissingDataError
        As :func:`cut_at_grounding_line`; or bed and bathymetry differ in CRS or vertical datum,
        only one states its datum, or the bathymetry lies elsewhere.
    ValueError
        The width is negative, or the outline a raster of other cells.
    """
    if not width >= 0:
        raise ValueError(f"width {width} must not be negative")
    bed = _bed(dataset)
    _require_same_heights(bed, bathymetry)
    cell = rasters.resolution_of(bed)
    reach = max(width, cell / 2)
    given = placed(bathymetry, bed).data
    # Where a cell of the other side is within reach, the margin of a chunk holds it.
    margin = math.ceil(reach / cell) + 1
    distance = partial(_inland_distance, cell=cell, reach=reach)
    inland = _with_margin(distance, bed, _grounded(outline, bed), margin, dtype=np.float64)
    profile = 0.5 + 0.5 * da.cos(np.pi * (inland + reach) / (2 * reach))
    profile = da.where(da.isnan(given), 0.0, profile)

    def share_beside(cells: da.Array) -> da.Array:
        share: da.Array = da.where(da.isnan(cells) & (profile > 0), 1.0, profile)
        return share

    def blend_into(cells: da.Array) -> da.Array:
        share = share_beside(cells)
        mixed = da.where(share == 1, given, share * given + (1 - share) * cells)
        blended: da.Array = da.where(share == 0, cells, mixed).astype(bed.dtype)
        return blended

    share = share_beside(bed.data)
    given_here = da.where(share == 1, SOURCE["bathymetry"], SOURCE["blend"])
    source = da.where(share == 0, _source(dataset, bed), given_here)
    return _remade(dataset, blend_into, source, share > 0)


class _Check(NamedTuple):
    """A check: what it needs, measures and expects, and what it puts in the place of what fails.

    ``measure`` gives the value, and by how much that is beyond what is allowed: NaN where the check
    has nothing to say.
    """

    expected: str
    remedy: str
    needs: tuple[str, ...]
    measure: Callable[[_Layers, Limits], tuple[_Array, _Array]]
    mend: Callable[[_Layers, Limits], _Array] | None = None
    source: str = "none"
    unit: str = "m"


def _range(layers: _Layers, limits: Limits) -> tuple[_Array, _Array]:
    bed = layers["bed"]
    return bed, np.maximum(limits.lowest - bed, bed - limits.highest)


def _step_on_rock(layers: _Layers, limits: Limits) -> tuple[_Array, _Array]:
    step = np.where(layers["rock"], layers["bed"] - layers["surface"], np.nan)
    return step, np.abs(step) - max(limits.tolerance, _MILLIMETRE)


def _height_above_flotation(layers: _Layers, limits: Limits) -> tuple[_Array, _Array]:
    bed = layers["bed"] - layers.get("geoid", 0)
    thickness = layers["surface"] - layers["bed"]
    height = thickness + limits.water_density / limits.ice_density * bed
    height = np.where(layers["grounded"] & (bed < 0), height, np.nan)
    return height, -height - max(limits.tolerance, _MILLIMETRE)


def _flotation_depth(layers: _Layers, limits: Limits) -> _Array:
    """The bed on which ice just floats; as it is where that would leave too little of the ice."""
    sea = layers.get("geoid", 0)
    buoyancy = limits.ice_density / (limits.water_density - limits.ice_density)
    depth = sea - (layers["surface"] - sea) * buoyancy
    return np.where(depth <= _ceiling(layers, limits), depth, layers["bed"])


def _water_column(layers: _Layers, limits: Limits) -> tuple[_Array, _Array]:
    column = np.where(layers["floating"], _draft(layers, limits) - layers["bed"], np.nan)
    return column, -column - max(limits.tolerance, _MILLIMETRE)


def _draft(layers: _Layers, _limits: Limits) -> _Array:
    return layers["surface"] - layers["thickness"]


def _thickness(layers: _Layers, limits: Limits) -> tuple[_Array, _Array]:
    ice = ~layers["rock"] if "rock" in layers else True
    thickness = np.where(ice, layers["surface"] - layers["bed"], np.nan)
    excess = np.where(ice, layers["bed"] - _ceiling(layers, limits) - _MILLIMETRE, np.nan)
    return thickness, excess


def _ceiling(layers: _Layers, limits: Limits) -> _Array:
    """The highest bed that leaves grounded ice its least thickness, and other cells any."""
    return layers["surface"] - np.where(layers.get("grounded", True), limits.least_thickness, 0)


def _slope(layers: _Layers, limits: Limits) -> tuple[_Array, _Array]:
    return layers["slope"], layers["slope"] - limits.steepest


def _gaps(layers: _Layers, _limits: Limits) -> tuple[_Array, _Array]:
    gaps = np.isnan(layers["bed"])
    return np.full(gaps.shape, np.nan), np.where(gaps, 1.0, -1.0)


# In the order of their corrections: what is raised to touch the ice must not pierce its surface.
_CHECKS = {
    "range": _Check(
        "a plausible height",
        "mend the bed, or take its value away by correcting",
        (),
        _range,
        lambda layers, _limits: np.full_like(layers["bed"], np.nan),
    ),
    "rock": _Check(
        "the bed at the surface on rock",
        "mend the bed, or put it at the surface by correcting",
        ("surface", "rock"),
        _step_on_rock,
        lambda layers, _limits: layers["surface"],
        "rock",
    ),
    "flotation": _Check(
        "grounded ice too thick to float",
        "mend bed or mask, or raise the bed by correcting",
        ("surface", "grounded", "sea level"),
        _height_above_flotation,
        _flotation_depth,
        "flotation",
    ),
    "floating": _Check(
        "no bed above the draft of floating ice",
        "mend bed or mask, or lower the bed by correcting",
        ("surface", "thickness", "floating"),
        _water_column,
        _draft,
        "ice_draft",
    ),
    "thickness": _Check(
        "no bed above the surface, grounded ice of its least thickness",
        "mend bed or surface, or lower the bed by correcting",
        ("surface",),
        _thickness,
        _ceiling,
        "surface",
    ),
    "slope": _Check(
        "no jumps",
        "look at the inputs there, or allow steeper slopes",
        (),
        _slope,
        unit="m/m",
    ),
    "gaps": _Check("a value everywhere", "fill the gaps of the prior, or only report", (), _gaps),
}

CHECKS = ("datum", *_CHECKS)
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
        for name, test in _CHECKS.items()
    }
    chosen: dict[str, Policy] = dict.fromkeys(able, "report")
    if given is None:
        return chosen
    if isinstance(given, str):
        if given not in get_args(Policy):
            raise ValueError(f"policy {given!r} is none of {', '.join(get_args(Policy))}")
        return {name: given if given in able[name] else "report" for name in able}
    able["datum"] = ["refuse"]
    for name, policy in given.items():
        if name not in able:
            hint = near(str(name), CHECKS)
            text = f"{name!r} is no check: they are {', '.join(CHECKS)}"
            raise ValueError(f"{text}; {hint}" if hint else text)
        if policy not in able[name]:
            raise ValueError(f"{name}: policy {policy!r} is none of {', '.join(able[name])}")
    return chosen | dict(given)


def _examine(
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
    bed = _bed(dataset)
    layers, missing = _layers(dataset, bed, geoid, rock)
    why_not = {
        name: "; ".join(missing[need] for need in test.needs if need in missing)
        for name, test in _CHECKS.items()
    }
    checks = tuple(name for name in _CHECKS if not why_not[name])
    mending = tuple(name for name in checks if correcting and policies[name] == "correct")
    tally = partial(_tally, names=tuple(layers), checks=checks, mending=mending, limits=limits)
    chunks = tuple((1,) * count for count in bed.data.numblocks)
    tallies = _by_chunk(
        tally, bed, *layers.values(), *_axes(bed), dtype=object, chunks=chunks
    ).compute()  # type: ignore[no-untyped-call]
    area = (rasters.resolution_of(bed) / 1000) ** 2
    if _datum(bed) is None:
        findings = [Finding("datum", done=False, why_not="the bed states no vertical datum")]
    else:
        findings = [Finding("datum", examined=bed.size)]
    for name, test in _CHECKS.items():
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
        unit=_CHECKS[name].unit,
        corrected=sum(tally.corrected for tally in tallies),
    )


def _fault(dataset: xr.Dataset, finding: Finding) -> Fault:
    test = _CHECKS[finding.check]
    found, remedy = f"no way to check it: {finding.why_not}", "give it, or only report"
    if finding.done and finding.where is not None:
        found = f"{finding.cells:,} cells ({finding.area:,.1f} km2) that are not so, the "
        found += "first" if finding.worst is None else f"worst {finding.worst:,.2f} {test.unit}"
        found += f" at ({_place(finding.where)})"
        remedy = test.remedy
    return Fault(
        _name(dataset),
        field=f"bed ({finding.check})",
        expected=test.expected,
        found=found,
        remedy=remedy,
    )


def _place(where: tuple[float, float]) -> str:
    return f"{where[0]:.0f}, {where[1]:.0f}"


def _name(dataset: xr.Dataset) -> str:
    return str(dataset.encoding.get("source") or "dataset")


def _bed(dataset: xr.Dataset) -> xr.DataArray:
    """The bed (y, x) of a product, in chunks; its CRS and the datum of its heights are sound."""
    if "bed" not in dataset or set(dataset["bed"].dims) != {"y", "x"}:
        found = ", ".join(f"{name} {layer.dims}" for name, layer in dataset.items())
        raise InvalidDataError(
            Fault(
                _name(dataset),
                field="bed",
                expected="a layer bed along y and x",
                found=found or "no layer",
            )
        )
    bed = dataset["bed"].transpose("y", "x")
    rasters.bounds_of(bed)  # which says what is wrong with its axes
    rasters.require_crs(bed)
    for name in ("surface", "bed_members", "bed_mean"):
        if name in dataset:
            label, datum = f"{_name(dataset)}, {name}", _datum(dataset[name])
            rasters.require_reference(label, None, datum, bed)
    return bed if bed.chunks else bed.chunk({"y": _CHUNK, "x": _CHUNK})


def _datum(raster: xr.DataArray) -> str | None:
    stated = raster.attrs.get("vertical_datum")
    return None if stated in (None, "", "unknown") else str(stated)


def _layers(
    dataset: xr.Dataset, bed: xr.DataArray, geoid: xr.DataArray | None, rock: xr.DataArray | None
) -> tuple[dict[str, da.Array], dict[str, str]]:
    """What the checks need, in the bed's chunks, and why what is missing is."""
    steepest = partial(_steepest, cell=rasters.resolution_of(bed))
    layers = {"bed": bed.data}
    layers["slope"] = _with_margin(steepest, bed, bed.data, 1, dtype=bed.dtype)
    missing = {}
    for name in ("surface", "thickness"):
        if name in dataset:
            layers[name] = _in_chunks(dataset[name], bed)
        else:
            missing[name] = f"there is no layer {name}"
    if "mask" in dataset:
        mask = _in_chunks(dataset["mask"], bed)
        layers["rock"] = mask == MASK["ice_free_land"]
        layers["grounded"] = mask == MASK["grounded_ice"]
        layers["floating"] = mask == MASK["floating_ice"]
    else:
        missing["rock"] = "no mask tells where rock is exposed"
        missing["grounded"] = missing["floating"] = "no mask tells grounded from floating ice"
    if rock is not None:
        outcrops = _on_cells(rock, bed, "rock")
        missing.pop("rock", None)
        layers["rock"] = layers["rock"] | outcrops if "rock" in layers else outcrops
        for name in {"grounded", "floating"} & layers.keys():
            layers[name] = layers[name] & ~outcrops
    if _datum(bed) is None:
        missing["sea level"] = "the bed states no vertical datum, so the sea's level is unknown"
    elif _datum(bed) == "ellipsoid":
        if geoid is not None:
            layers["geoid"] = placed(geoid, bed).data
        elif "geoid" in dataset:
            layers["geoid"] = _in_chunks(dataset["geoid"], bed)
        else:
            missing["sea level"] = "heights stand on the ellipsoid and no geoid is given"
    return layers, missing


def _in_chunks(layer: xr.DataArray, bed: xr.DataArray) -> da.Array:
    cells: da.Array = layer.transpose("y", "x").chunk(dict(bed.chunksizes)).data
    return cells


def _on_cells(raster: xr.DataArray, bed: xr.DataArray, name: str) -> da.Array:
    """Where a raster is nonzero; its cells must be the bed's."""
    for axis in ("y", "x"):
        if axis not in raster.coords or not np.array_equal(raster[axis], bed[axis]):
            raise ValueError(f"{name} must lie on the cells of the bed; {axis} differs")
    return _in_chunks(raster.fillna(0) != 0, bed)


def _axes(bed: xr.DataArray) -> tuple[da.Array, da.Array]:
    """Its x (1, columns) and y (rows, 1), in its chunks."""
    rows, columns = bed.data.chunks
    x, y = (bed[axis].to_numpy().astype(np.float64) for axis in ("x", "y"))
    return (
        da.from_array(x[np.newaxis], chunks=((1,), columns)),  # type: ignore[no-untyped-call]
        da.from_array(y[:, np.newaxis], chunks=(rows, (1,))),  # type: ignore[no-untyped-call]
    )


def _by_chunk(
    function: Callable[..., _Array],
    bed: xr.DataArray,
    *arrays: da.Array,
    dtype: npt.DTypeLike,
    chunks: tuple[tuple[int, ...], ...] | None = None,
) -> da.Array:
    """A function of each of the bed's chunks."""
    meta = np.empty((0, 0), dtype)
    result: da.Array = da.map_blocks(  # type: ignore[no-untyped-call]
        function, *arrays, dtype=dtype, chunks=chunks or bed.chunks, meta=meta
    )
    return result


def _with_margin(
    function: Callable[[_Array], _Array],
    bed: xr.DataArray,
    array: da.Array,
    margin: int,
    dtype: npt.DTypeLike,
) -> da.Array:
    """A function of each of the bed's chunks and so many cells around it."""
    result: da.Array = da.map_overlap(  # type: ignore[no-untyped-call]
        function,
        array,
        depth={axis: min(margin, count) for axis, count in enumerate(bed.shape)},
        boundary="none",
        dtype=dtype,
        meta=np.empty((0, 0), dtype),
    ).rechunk(bed.chunks)  # which chunks narrower than the margin are not in
    return result


def _steepest(bed: _Array, cell: float) -> _Array:
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
    *arrays: _Array,
    names: tuple[str, ...],
    checks: tuple[str, ...],
    mending: tuple[str, ...],
    limits: Limits,
) -> _Array:
    """The :class:`_Tally` of each check in a chunk, as the one cell of an array (1, 1)."""
    *values, x, y = arrays
    layers = _precise(names, values)
    mended, _ = _mended(layers, mending, limits, values[0].dtype)
    tallies = {}
    for name in checks:
        measure = _CHECKS[name].measure
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


def _precise(names: Sequence[str], values: Sequence[_Array]) -> dict[str, _Array]:
    """Layers by name, heights in float64."""
    return {
        name: layer if layer.dtype == bool else layer.astype(np.float64)
        for name, layer in zip(names, values, strict=True)
    }


def _mended(
    layers: _Layers, mending: Sequence[str], limits: Limits, dtype: npt.DTypeLike
) -> tuple[_Array, npt.NDArray[np.uint8]]:
    """The bed corrected, to what a type holds, and how: 0 where it is as it was."""
    bed = layers["bed"]
    source = np.zeros(bed.shape, np.uint8)
    for name in mending:
        test, now = _CHECKS[name], {**layers, "bed": bed}
        wrong = test.measure(now, limits)[1] > 0
        if test.mend is not None and wrong.any():
            mended = np.where(wrong, test.mend(now, limits), bed).astype(dtype).astype(np.float64)
            source[wrong & (mended != bed)] = SOURCE[test.source]
            bed = mended
    return bed, source


def _mend(
    *values: _Array,
    names: tuple[str, ...],
    mending: tuple[str, ...],
    limits: Limits,
    layer: Literal["bed", "source"],
) -> _Array:
    bed, source = _mended(_precise(names, values), mending, limits, values[0].dtype)
    mended: _Array = bed.astype(values[0].dtype) if layer == "bed" else source
    return mended


def _source(dataset: xr.Dataset, bed: xr.DataArray) -> da.Array:
    """How the bed came about so far: by the network where nothing is said."""
    if "source" in dataset:
        return _in_chunks(dataset["source"], bed)
    absent = da.isnan(bed.data)
    source: da.Array = da.where(absent, np.uint8(SOURCE["none"]), np.uint8(SOURCE["network"]))
    return source


def _described(dataset: xr.Dataset, bed: xr.DataArray, source: da.Array) -> xr.DataArray:
    """The layer ``source`` with the flags that it may have."""
    layer = xr.DataArray(source, bed.coords, ("y", "x")).astype(np.uint8)
    layer.attrs = {
        "long_name": "how the bed elevation came about",
        **(dataset["source"].attrs if "source" in dataset else {}),
        "flag_values": np.array(list(SOURCE.values()), np.uint8),
        "flag_meanings": " ".join(SOURCE),
    }
    return layer


def _remade(
    dataset: xr.Dataset,
    remake: Callable[[da.Array], da.Array],
    source: da.Array,
    changed: da.Array,
) -> xr.Dataset:
    """The product with another bed and other members, and what follows from them.

    ``changed`` says where the bed is another, so that thickness is too.
    """
    bed = _bed(dataset)
    layers = {"bed": bed.copy(data=remake(bed.data)), "source": _described(dataset, bed, source)}
    if {"surface", "thickness"} <= dataset.keys():
        chunks = dict(bed.chunksizes)
        surface, thickness = (dataset[name].chunk(chunks) for name in ("surface", "thickness"))
        mask = dataset["mask"].chunk(chunks) if "mask" in dataset else None
        anew = thickness_of(layers["bed"], surface, mask, thickness)
        layers["thickness"] = thickness.where(~bed.copy(data=changed), anew)
    if "bed_members" in dataset:
        members = dataset["bed_members"].transpose("realization", "y", "x")
        remade = [remake(_in_chunks(member, bed)) for member in members]
        stacked = da.stack(remade)  # type: ignore[no-untyped-call]
        layers["bed_members"] = members.copy(data=stacked)
        for name, layer in spread_of(layers["bed_members"]).items():
            if name in dataset:
                layers[name] = layer
                layer.attrs = dict(dataset[name].attrs)
    return dataset.assign(layers)


def _require_same_heights(bed: xr.DataArray, bathymetry: xr.DataArray) -> None:
    rasters.require_same_reference(bed, bathymetry)
    for unknown, known in ((bed, bathymetry), (bathymetry, bed)):
        if _datum(unknown) is None and _datum(known) is not None:
            raise InvalidDataError(
                Fault(
                    rasters.name_of(unknown),
                    field="vertical_datum",
                    expected=f"{_datum(known)} as in {rasters.name_of(known)}",
                    found="unknown",
                    remedy="state it, or convert it: `deepbedmap convert`",
                )
            )


def _grounded(outline: Outline, bed: xr.DataArray) -> da.Array:
    """Whether the centre of each cell is on grounded ice."""
    if isinstance(outline, xr.DataArray):
        return _on_cells(outline, bed, "outline")
    from deepbedmap import tiles

    ice, crs = tiles.grounded_ice(outline)
    rasters.require_reference("grounding line", crs, None, bed)
    inside = partial(_inside, ice, cell=rasters.resolution_of(bed))
    return _by_chunk(inside, bed, *_axes(bed), dtype=bool)


def _inside(ice: shapely.MultiPolygon, x: _Array, y: _Array, cell: float) -> npt.NDArray[np.bool_]:
    """Whether the centre of each cell is in a polygon."""
    import rasterio.features
    import rasterio.transform
    import shapely

    columns, rows = x[0], y[:, 0]
    west, east = columns.min() - cell / 2, columns.max() + cell / 2
    south, north = rows.min() - cell / 2, rows.max() + cell / 2
    # All the continent's corners would take longer than the cells; the cuts lie outside of these.
    near_by = shapely.clip_by_rect(ice, west - cell, south - cell, east + cell, north + cell)
    parts = [part for part in shapely.get_parts(near_by) if part.geom_type == "Polygon"]
    inside = np.zeros((rows.size, columns.size), np.uint8)
    if parts:
        transform = rasterio.transform.from_origin(west, north, cell, cell)
        rasterio.features.rasterize(parts, out=inside, transform=transform)
    down = 1 if rows[0] >= rows[-1] else -1
    across = 1 if columns[0] <= columns[-1] else -1
    return inside[::down, ::across] > 0


def _inland_distance(
    grounded: npt.NDArray[np.bool_], cell: float, reach: float
) -> npt.NDArray[np.float64]:
    """Metres to the nearest cell of the other side, positive on land, as far as a reach."""
    from scipy import ndimage

    if grounded.all() or not grounded.any():
        return np.where(grounded, reach, -reach)
    inland, seaward = (ndimage.distance_transform_edt(side) for side in (grounded, ~grounded))
    distance = np.where(grounded, inland - 0.5, 0.5 - seaward) * cell
    clipped: npt.NDArray[np.float64] = distance.clip(-reach, reach)
    return clipped
