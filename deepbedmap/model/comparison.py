"""A bed beside others, at the same picks, and what these picks are new to."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from deepbedmap.errors import Fault, InvalidDataError, MissingDataError
from deepbedmap.model import evaluation, independence
from deepbedmap.model.independence import BUFFER, Training, Verdict
from deepbedmap.model.mass import MassStatistics, bed_residual, mass_statistics
from deepbedmap.model.scores import REPLICATES, EnsembleScores, Scores, score_ensemble
from deepbedmap.model.spectra import Resolution, resolution

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from deepbedmap.model.evaluation import Raster
    from deepbedmap.rasters import Bounds, Geoids, Method
    from deepbedmap.registry import Registry

logger = logging.getLogger(__name__)

_COLUMNS = ("x", "y", "z", "line", "source")  # of a table of picks, those that are scored with
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
_GRID = 250.0
_REACH = 60  # cells from a training pick that the gridding reaches
_MOST_CELLS = 100e6
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


def read_picks(
    entries: str | Iterable[str],
    season: Iterable[str] | None = None,
    bounds: Bounds | None = None,
) -> pd.DataFrame:
    """Read picks of surveys into one table.

    Parameters
    ----------
    entries
        Pipelines or their names, entries of the catalog (``bedmap3_points``), citekeys (all
        pipelines of the dataset), Bedmap standard CSVs, or tables of picks (``.parquet``).
    season, bounds
        As of :func:`deepbedmap.points.read_points`.

    Raises
    ------
    InvalidDataError, MissingDataError
        As of :func:`deepbedmap.points.read_points`; surveys differ in CRS or vertical datum.
    ValueError
        A season of a table.
    """
    from deepbedmap import registry
    from deepbedmap.points import read_points
    from deepbedmap.surveys import join_surveys

    seasons = list(season or ()) or None
    tables = {}
    for entry in [entries] if isinstance(entries, str) else entries:
        if Path(entry).suffix == ".parquet":
            if seasons:
                raise ValueError(f"season: {entry} is a table, and has no raw files to choose from")
            tables[entry] = _read_table(Path(entry), bounds)
            continue
        names = [entry if Path(entry).exists() else entry.removesuffix("_points")]
        if not Path(entry).exists() and entry in (listing := registry.load()):
            names = list(listing[entry].pipelines)
            if not names:
                raise MissingDataError(f"{entry}: the registry names no pipeline of its picks")
        for name in names:
            tables[name] = read_points(name, season=seasons, bounds=bounds)
    return join_surveys(tables) if len(tables) > 1 else tables.popitem()[1]


def _read_table(path: Path, bounds: Bounds | None) -> pd.DataFrame:
    import pyarrow
    from pyarrow import parquet

    if not path.exists():
        raise MissingDataError(f"{path}: no such table; `deepbedmap points` makes one")
    try:
        known = parquet.read_schema(path)
        table = parquet.read_table(path, columns=[name for name in _COLUMNS if name in known.names])
    except (OSError, ValueError) as error:
        expected = "a table of picks, as `deepbedmap points` writes it"
        raise InvalidDataError(Fault(str(path), expected=expected, found=str(error))) from error
    # Each column is let go as soon as it is turned, so that a table is held once.
    picks: pd.DataFrame = table.to_pandas(split_blocks=True, self_destruct=True)
    del table
    pyarrow.default_memory_pool().release_unused()
    picks.attrs |= independence.parsed((known.metadata or {}).get(b"PANDAS_ATTRS"))
    missing = [name for name in ("x", "y", "z") if name not in picks]
    if missing:
        found = f"no {', '.join(missing)}"
        raise InvalidDataError(Fault(str(path), expected="columns x, y and z", found=found))
    if bounds is None:
        return picks
    xmin, ymin, xmax, ymax = bounds
    return picks[picks["x"].between(xmin, xmax) & picks["y"].between(ymin, ymax)]


def read_training(entries: Iterable[str], bounds: Bounds | None = None) -> Training:
    """Read what is known of a training: tiles, footprints, checkpoints, or picks of surveys.

    Parameters
    ----------
    entries
        As of :func:`read_picks`, or as of :func:`deepbedmap.model.independence.open_training`.
    bounds
        Picks of surveys within this box alone.
    """
    parts = []
    for entry in entries:
        if Path(entry).suffix in (".zarr", ".geojson", ".gpkg", ".safetensors"):
            parts.append(independence.open_training(entry))
        else:
            parts.append(Training((Path(entry).name,), picks=read_picks(entry, bounds=bounds)))
    return independence.together(parts)


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
        As of :func:`deepbedmap.model.evaluation.evaluate`. A list is of the members of an
        ensemble, the first of which is scored; so is ``bed`` of a product with ``bed_members``.
    points
        As of :func:`deepbedmap.model.evaluation.evaluate`; ``attrs["sources"]`` say which datasets
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
        For classes by ice speed: see :func:`deepbedmap.model.evaluation.speed_at`.
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
        As of :func:`deepbedmap.model.evaluation.evaluate`; test picks leak; a vertical datum is
        unknown, where that of the picks is not, or no geoid is given to convert one; there is no
        pick at which all beds have a value.
    """
    from deepbedmap import registry as registries

    registry = registry or registries.load()
    training = training or Training()
    told = dict(datums or {})
    _, _, z = evaluation.places_of(points)
    points = _on_stated_datum(points, told.pop("picks", None))
    dems = dem if isinstance(dem, list) else [dem]
    leak = independence.find_leak(points, training, buffer)
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
        raise ValueError(f"datums: expected names of {', '.join(beds)} or picks, found {unknown}")

    place = Place.of(points, beds["dem"], told.get("dem"), geoids)
    sampled = {
        name: place.sample(bed, told.get(name), strict=name != "dem") for name, bed in beds.items()
    }
    known = np.ones(len(points), bool)
    for name, values in sampled.items():
        finite = np.isfinite(values)
        evaluation.require_some(finite, f"{name}: {beds[name].label}", beds[name].raster)
        known &= finite
    if not known.any():
        found = "none: where one has a value, another has a gap"
        raise InvalidDataError(Fault("beds", expected="picks at which all have one", found=found))

    strata: dict[str, npt.NDArray[np.float64]] = {}
    known_picks = gridding if training.picks is None else training.picks
    if known_picks is not None:
        strata["distance"] = independence.distance_to(points, known_picks)
    if velocity is not None:
        strata["speed"] = evaluation.speed_at(points, velocity)
    strata["relief"] = evaluation.relief_along(points)
    named = evaluation.with_lines(points)

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
            new_to_prior = independence.of_prior(sources, tested, registry)
            new = independence.of_training(
                sources, trained, leaked, points, tested, registry, buffer
            )
        values = sampled.pop(name)
        resolved = Resolution(remark="the picks name no lines")
        if named is not None:
            resolved = resolution(named.assign(grid=np.where(known, values, np.nan)))
        rows.append(
            Row(
                name,
                described.get("file"),
                described.get("sha256"),
                evaluation.score_at(points, values, known, strata, replicates, seed),
                new_to_prior,
                new,
                _ensemble(dems, place, told.get("dem"), z, known) if name == "dem" else None,
                resolved,
            )
        )
    return rows


def conserve(
    dem: Raster,
    surface: Raster,
    velocity: Raster,
    balance: Raster,
    *,
    gamma: float = 1.0,
    bounds: Bounds | None = None,
    path: str | os.PathLike[str] | None = None,
) -> MassStatistics:
    """Say how far the ice above a bed is from conserving mass.

    Parameters
    ----------
    dem
        As of :func:`deepbedmap.model.evaluation.evaluate`.
    surface, velocity, balance, gamma
        As of :func:`deepbedmap.model.mass.bed_residual`, or files of these.
    bounds
        A box to which the bed is cut.
    path
        A GeoTIFF that gets the map.

    Raises
    ------
    InvalidDataError
        As of :func:`deepbedmap.model.mass.bed_residual`; no cell has a residual.
    """
    from deepbedmap import rasters

    if isinstance(velocity, str | os.PathLike):
        velocity = rasters.open_raster(velocity, rasters.velocity_components(velocity))
    bed = rasters.north_up(evaluation.open_bed(dem))
    if bounds is not None:
        xmin, ymin, xmax, ymax = bounds
        bed = bed.sel(x=slice(xmin, xmax), y=slice(ymax, ymin))
        if not bed.size:
            found = f"bounds {rasters.bounds_of(evaluation.open_bed(dem))}"
            fault = Fault(rasters.name_of(bed), expected=f"cells within {bounds}", found=found)
            raise InvalidDataError(fault)
    above, gained = (
        rasters.open_raster(each) if isinstance(each, str | os.PathLike) else each
        for each in (surface, balance)
    )
    residual = bed_residual(bed, above, velocity, gained, gamma=gamma)
    if path is None:
        return mass_statistics(residual)
    written = rasters.chunked(rasters.open_raster(rasters.write_cog(residual, path)))
    return mass_statistics(written.assign_attrs(gamma=gamma))


def open_beds(
    dem: Raster,
    points: pd.DataFrame,
    prior: Raster | None,
    gridding: pd.DataFrame | None,
    baselines: Mapping[str, Raster] | None,
    registry: Registry,
) -> dict[str, Bed]:
    """Open the beds that :func:`compare` scores, by the names of its rows; the DEM first."""
    beds = {"dem": Bed.open(dem, registry)}
    if prior is not None:
        beds["bicubic prior"] = Bed.open(prior, registry, "cubic")
    if gridding is not None and (grid := _gridded(gridding, points)) is not None:
        beds["gridding"] = Bed(grid, grid, "linear")
    for name, given in (baselines or {}).items():
        if name in beds or name == "picks":
            raise ValueError(f"baselines: expected another name than {name!r}")
        beds[name] = Bed.open(given, registry)
    return beds


def _ensemble(
    dems: Sequence[Raster],
    place: Place,
    datum: str | None,
    z: npt.NDArray[np.float64],
    known: npt.NDArray[np.bool_],
) -> EnsembleScores | None:
    """Score the members of a product, or the beds of several files; None of a single bed."""
    if len(dems) > 1:
        members = [evaluation.open_bed(dem) for dem in dems]
    else:
        members = evaluation.open_members(dems[0])
    if len(members) < 2:
        return None
    beds = [Bed(member, member, "linear") for member in members]
    heights = np.stack([place.sample(bed, datum, strict=False) for bed in beds])
    for bed, values in zip(beds, heights, strict=True):
        evaluation.require_some(np.isfinite(values), f"ensemble: {bed.label}", bed.raster)
    whole = known & np.isfinite(heights).all(0)
    evaluation.require_some(whole, "ensemble", members[0])
    return score_ensemble(heights[:, whole], z[whole])


def _of_gridding(points: pd.DataFrame, gridded: pd.DataFrame) -> Verdict:
    distance = independence.distance_to(points, gridded)
    share, median = float((distance <= 1).mean()), float(np.median(distance))
    return Verdict(
        "no" if share > _SAME else "yes",
        f"{share:.1%} of the test picks lie at gridded ones, half farther off than {median:,.0f} m",
    )


def _on_stated_datum(points: pd.DataFrame, datum: str | None) -> pd.DataFrame:
    """Picks whose vertical datum is that which is told, where they state none."""
    stated = _stated(points.attrs.get("vertical_datum"))
    if datum is None:
        return points
    if stated not in (None, datum):
        remedy = "leave it out: the picks' own is right, or mend it"
        raise InvalidDataError(Fault("picks", None, None, "vertical_datum", datum, stated, remedy))
    points = points.copy(deep=False)
    points.attrs = {**points.attrs, "vertical_datum": datum}
    return points


def _stated(datum: Any) -> str | None:
    return None if datum in (None, "", "unknown") else str(datum)


@dataclass(frozen=True)
class Bed:
    """A bed, what it was given as, and how it is interpolated at the picks."""

    given: Any
    raster: xr.DataArray
    method: Method

    @classmethod
    def open(cls, given: Raster, registry: Registry, method: Method = "linear") -> Bed:
        """Open a grid, a file, or a dataset of the registry, whose datum that states."""
        path = _find(given, registry)
        raster = evaluation.open_bed(path)
        if not isinstance(given, str | os.PathLike):
            return cls(given, raster, method)
        dataset = str(given) if str(given) in registry else None
        if dataset and not _stated(raster.attrs.get("vertical_datum")):
            raster = raster.assign_attrs(vertical_datum=registry[dataset].vertical_datum)
        return cls(path, raster, method)

    @property
    def datum(self) -> str | None:
        """What its heights refer to, where that is stated."""
        return _stated(self.raster.attrs.get("vertical_datum"))

    @property
    def label(self) -> str:
        """What messages call it."""
        from deepbedmap import rasters

        return rasters.name_of(self.raster)


def _find(given: Raster, registry: Registry) -> Raster:
    """A raster as it is, or the file of a dataset of the registry."""
    from deepbedmap import repository

    if not isinstance(given, str | os.PathLike) or Path(given).exists():
        return given
    if str(given) not in registry:
        raise MissingDataError(f"{given}: neither a file nor a dataset of the registry")
    dataset = registry[str(given)]
    names = [file.name for file in dataset.files if Path(file.name).suffix in (".tif", ".nc")]
    folders = (registry.root / dataset.folder, repository.data_dir() / dataset.folder)
    for path in (folder / name for folder in folders for name in names):
        if path.exists():
            return path
    raise MissingDataError(f"{given}: no raster of it is here; {dataset.how_to_get(*names[:1])}")


@dataclass(frozen=True)
class Place:
    """Where beds are sampled, and on what datum their heights are wanted."""

    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]
    crs: Any
    datum: str | None
    geoids: Geoids

    @classmethod
    def of(
        cls, points: pd.DataFrame, dem: Bed, told: str | None = None, geoids: Geoids | None = None
    ) -> Place:
        """Places of picks, on their datum; where that is unknown, on the DEM's, as told."""
        x, y, _ = evaluation.places_of(points)
        datum = _stated(points.attrs.get("vertical_datum")) or dem.datum or told
        return cls(x, y, points.attrs.get("crs"), datum, geoids or {})

    def sample(
        self, bed: Bed, told: str | None = None, strict: bool = True
    ) -> npt.NDArray[np.float64]:
        """Heights of a bed; strict where an unknown datum is refused if the wanted one is known."""
        from deepbedmap import rasters

        rasters.require_reference("picks", self.crs, None, bed.raster)
        fault = Fault(
            bed.label,
            field="vertical_datum",
            expected=f"{self.datum}, as of the picks",
            found=bed.datum or told or "unknown",
        )
        if None not in (bed.datum, told) and bed.datum != told:
            raise InvalidDataError(replace(fault, expected=told, remedy="mend one of the two"))
        own = bed.datum or told
        if self.datum and own is None and strict:
            raise InvalidDataError(replace(fault, remedy="state it: --datum NAME=DATUM"))
        values = evaluation.sample_bed(bed.raster, self.x, self.y, bed.method)
        if self.datum is None or own in (None, self.datum):
            return values
        if not self.geoids:
            remedy = "give geoids to convert it: --geoid NAME=FILE"
            raise InvalidDataError(replace(fault, remedy=remedy))
        import pandas as pd

        heights = pd.DataFrame({"x": self.x, "y": self.y, "z": values})
        heights.attrs = {"crs": rasters.require_crs(bed.raster).to_wkt(), "vertical_datum": own}
        converted = rasters.convert_datum(heights, self.datum, self.geoids)
        return converted["z"].to_numpy(np.float64)


def _gridded(known: pd.DataFrame, points: pd.DataFrame) -> xr.DataArray | None:
    """Gridding of training picks around the test picks, however far apart their lines."""
    from deepbedmap import grids

    edges = np.array([points["x"].min(), points["y"].min(), points["x"].max(), points["y"].max()])
    cells = np.concatenate([np.floor(edges[:2] / _GRID - 4), np.ceil(edges[2:] / _GRID + 4)])
    if np.prod(cells[2:] - cells[:2]) > _MOST_CELLS:
        logger.warning("training picks are not gridded: the test picks spread too far for it")
        return None
    # With the margin, lines just outside support the spline at the edge.
    cells += np.array([-_REACH, -_REACH, _REACH, _REACH])
    xmin, ymin, xmax, ymax = (_GRID * cells).tolist()
    inside = known["x"].between(xmin, xmax) & known["y"].between(ymin, ymax)
    if int(inside.sum()) < 4:
        logger.warning("training picks are not gridded: fewer than 4 lie around the test picks")
        return None
    some = known[inside]
    some.attrs = dict(known.attrs)
    return grids.grid_points(some, _GRID, max_gap=_REACH, region=(xmin, ymin, xmax, ymax))


def _describe(given: Any, registry: Registry) -> dict[str, Any]:
    """What a bed says of itself, as a source."""
    from deepbedmap import citation

    if isinstance(given, str | os.PathLike):
        described = citation.describe(given, "prior")
    else:
        provenance = independence.parsed(given.attrs.get("provenance"))
        described = {key: value for key, value in provenance.items() if key == "sources"}
    citekey = independence.citekey_of(described, registry)
    return described | ({"citekey": citekey} if citekey else {})
