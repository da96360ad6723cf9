"""The figures of an evaluation: a bed, its prior, other beds, and the picks."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from deepbedmap import evaluation, figures, rasters
from deepbedmap.errors import Fault, InvalidDataError
from deepbedmap.evaluation.common_datum import Place, open_beds
from deepbedmap.evaluation.roughness import roughness_map
from deepbedmap.evaluation.spectral import spectra
from deepbedmap.figures.panels import Panel

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    import numpy.typing as npt
    import pandas as pd

    from deepbedmap.evaluation.common_datum import Bed
    from deepbedmap.evaluation.sampling import Raster
    from deepbedmap.places import Bounds
    from deepbedmap.rasters.geoids import Geoids
    from deepbedmap.registry.listing import Registry

_MOST_PICKS = 200_000
_MOST_CELLS = 600  # along each side of a map
_CLOSE_UP_CELLS = 100  # along each side of the close-up
_NARROWEST, _WIDEST = 5_000.0, 50_000.0  # width of the close-up, m


@dataclass(frozen=True)
class Figure:
    """A figure of a report.

    Attributes
    ----------
    title
        Heading of the figure.
    path
        A PNG file; None if the figure could not be drawn.
    caption
        Text below the figure, or the reason why it could not be drawn.
    alt
        Description for readers who cannot see the figure; the title if empty.
    """

    title: str
    path: Path | None
    caption: str
    alt: str = ""


def draw_evaluation(
    folder: str | os.PathLike[str],
    dem: Raster,
    points: pd.DataFrame,
    beds: Mapping[str, Raster] | None = None,
    prior: Raster | None = None,
    *,
    gridding: pd.DataFrame | None = None,
    registry: Registry | None = None,
    datums: Mapping[str, str] | None = None,
    geoids: Geoids | None = None,
    source: str = "",
    seed: int = 0,
) -> list[Figure]:
    """Draw how a bed compares with picks and with other beds.

    Rasters of any size are read only where they are drawn, and a map has at most 600 x 600 cells;
    of more than 200,000 picks, only those on randomly selected flight lines are drawn. Elevations
    refer to the picks' vertical datum.

    Parameters
    ----------
    folder
        Folder for the images.
    dem, points, prior, gridding, registry, datums, geoids
        The same arguments as for :func:`deepbedmap.evaluation.compare`, which must have accepted
        them.
    beds
        Other beds by name, the ``baselines`` of that function.
    source
        A line in each figure that states its sources.
    seed
        Seed of the random selection of lines.

    Returns
    -------
    list of Figure
        A figure that the data do not allow has no path, and the reason as its caption.
    """
    from deepbedmap import registry as registries

    datums = dict(datums or {})
    listing = registry or registries.load()
    opened = open_beds(dem, points, prior, gridding, beds, listing)
    sample = _sample_lines(points, seed)
    place = Place.of(sample, opened["dem"], datums.get("dem"), geoids)
    place = dataclasses.replace(place, datum=datums.get("picks", place.datum))
    content = _Content(opened, sample, place, datums, len(points), source)
    drawn = []
    for number, (title, draw) in enumerate(_FIGURES.items(), 1):
        path = Path(folder) / f"{number}.png"
        try:
            caption, alt = draw(content, path)
        except InvalidDataError as error:
            drawn.append(Figure(title, None, f"{error}."))
        else:
            drawn.append(Figure(title, path, caption, alt))
    return drawn


def _sample_lines(points: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return all picks, or those on randomly selected lines; picks without lines are thinned."""
    if len(points) <= _MOST_PICKS:
        return points
    named = evaluation.with_lines(points)
    if named is None:
        return points.iloc[:: -(-len(points) // _MOST_PICKS)]
    line_of_pick = named["line"].cat.codes.to_numpy()
    order = np.random.default_rng(seed).permutation(len(named["line"].cat.categories))
    sizes = np.bincount(line_of_pick, minlength=order.size)[order]
    selected = order[: max(1, int((np.cumsum(sizes) <= _MOST_PICKS).sum()))]
    return points[np.isin(line_of_pick, selected)].iloc[:_MOST_PICKS]


@dataclass(frozen=True)
class _Content:
    """The beds and picks of the figures.

    Attributes
    ----------
    beds
        Beds by name.
    picks, place
        The picks that are drawn, and their positions.
    datums
        Vertical datums by name of the bed, as stated by the caller.
    total
        Number of all picks, drawn or not.
    source
        The line in each figure that states its sources.
    """

    beds: dict[str, Bed]
    picks: pd.DataFrame
    place: Place
    datums: Mapping[str, str]
    total: int
    source: str

    def sample(self, place: Place) -> dict[str, npt.NDArray[np.float64]]:
        """Return the elevations of each bed at a place."""
        return {
            name: place.sample(bed, self.datums.get(name), strict=name != "dem")
            for name, bed in self.beds.items()
        }

    @functools.cached_property
    def heights(self) -> dict[str, npt.NDArray[np.float64]]:
        """Elevations of each bed at the picks; NaN where any bed has a gap, as in the scores."""
        sampled = self.sample(self.place)
        complete = np.isfinite(list(sampled.values())).all(0)
        return {name: np.where(complete, values, np.nan) for name, values in sampled.items()}

    @property
    def errors(self) -> dict[str, npt.NDArray[np.float64]]:
        """Bed minus pick, for each bed."""
        z = self.picks["z"].to_numpy(np.float64)
        return {name: values - z for name, values in self.heights.items()}

    @functools.cached_property
    def named(self) -> pd.DataFrame:
        """The picks, with a column of their lines."""
        named = evaluation.with_lines(self.picks)
        if named is None:
            raise InvalidDataError("the picks name no lines")
        return named

    @property
    def picks_label(self) -> str:
        """The number of picks whose errors are drawn, in words."""
        count = int(np.isfinite(self.heights["dem"]).sum())
        total = f" of {self.total:,}" if len(self.picks) < self.total else ""
        return f"{count:,}{total} picks"

    @functools.cached_property
    def bounds(self) -> Bounds:
        """Box around the picks, with a margin."""
        x, y = self.place.x, self.place.y
        margin = 0.05 * max(np.ptp(x), np.ptp(y), 10 * self.resolution)
        return x.min() - margin, y.min() - margin, x.max() + margin, y.max() + margin

    @functools.cached_property
    def resolution(self) -> float:
        """Cell size of the DEM in metres."""
        return rasters.resolution_of(self.beds["dem"].raster)

    @functools.cached_property
    def close_up(self) -> Bounds:
        """Box around the densest picks, in which the DEM is shown at full resolution."""
        half = min(max(_CLOSE_UP_CELLS * self.resolution, _NARROWEST), _WIDEST) / 2
        x, y = self.place.x, self.place.y
        cells = np.stack([x // (2 * half), y // (2 * half)])
        _, cell_of_pick, count = np.unique(cells, axis=1, return_inverse=True, return_counts=True)
        densest = cell_of_pick.ravel() == count.argmax()
        easting, northing = float(x[densest].mean()), float(y[densest].mean())
        return easting - half, northing - half, easting + half, northing + half

    @property
    def is_wide(self) -> bool:
        """Whether the picks cover a much larger area than the close-up."""
        extents = [box[2] - box[0] + box[3] - box[1] for box in (self.bounds, self.close_up)]
        return extents[0] > 1.5 * extents[1]

    def lattice(self, bounds: Bounds) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return x and y (m) of the DEM's cell centres in a box, thinned if there are too many."""
        dem = self.beds["dem"].raster
        xmin, ymin, xmax, ymax = bounds
        x, y = (dem[dim].to_numpy().astype(np.float64) for dim in "xy")
        x, y = x[(x >= xmin) & (x <= xmax)], y[(y >= ymin) & (y <= ymax)]
        step = max(1, -(-max(x.size, y.size) // _MOST_CELLS))
        x, y = x[step // 2 :: step], y[step // 2 :: step]
        if min(x.size, y.size) < 2:
            raise InvalidDataError(Fault("dem", expected="cells around the picks", found="none"))
        return x, y

    def maps(self, bounds: Bounds) -> dict[str, xr.DataArray]:
        """Return each bed in a box, sampled at the cell centres of the DEM."""
        x, y = self.lattice(bounds)
        eastings, northings = (axis.ravel() for axis in np.meshgrid(x, y))
        crs = rasters.require_crs(self.beds["dem"].raster)
        sampled = self.sample(dataclasses.replace(self.place, x=eastings, y=northings))
        return {
            name: xr.DataArray(
                heights.reshape(y.size, x.size).astype(np.float32), {"y": y, "x": x}, ("y", "x")
            ).rio.write_crs(crs)
            for name, heights in sampled.items()
        }

    @functools.cached_property
    def around(self) -> dict[str, xr.DataArray]:
        """Each bed within ``bounds``."""
        return self.maps(self.bounds)

    @functools.cached_property
    def full_resolution(self) -> dict[str, xr.DataArray]:
        """Each bed at the DEM's resolution: within ``bounds`` if possible, else the close-up."""
        spacing = abs(float(np.diff(self.lattice(self.bounds)[0][:2])[0]))
        if spacing < 1.5 * self.resolution:
            return self.around
        return self.maps(self.close_up)


def _errors(content: _Content, path: Path) -> tuple[str, str]:
    error = content.errors["dem"]
    bed = content.beds["dem"].raster
    figures.errors_at_picks(bed, content.picks, error, path, content.source)
    caption = (
        f"The DEM in grey, and its error at {content.picks_label}: blue where the DEM is too low, "
        "red where it is too high."
    )
    return caption, f"Map of the DEM with picks coloured by bed minus pick. {_quantiles(error)}"


def _quantiles(error: npt.NDArray[np.float64]) -> str:
    low, median, high = np.nanquantile(error, [0.05, 0.5, 0.95])
    return f"90 % are between {low:.0f} and {high:.0f} m; the median is {median:.0f} m."


def _panels(maps: Mapping[str, xr.DataArray]) -> list[Panel]:
    """Return panels of the DEM, its prior, their difference and a baseline, if available."""
    panels = [Panel("DEM", maps["dem"])]
    if "bicubic prior" in maps:
        prior = maps["bicubic prior"]
        panels.append(Panel("prior, bicubic", prior))
        panels.append(Panel("DEM minus prior", maps["dem"] - prior, "difference"))
    baselines = [name for name in maps if name not in ("dem", "bicubic prior")]
    if baselines:
        baseline = next((name for name in baselines if name != "gridding"), "gridding")
        panels.append(Panel(baseline, maps[baseline]))
    return panels


def _around(content: _Content, path: Path) -> tuple[str, str]:
    return _compare(content.around, path, content.source)


def _compare(maps: Mapping[str, xr.DataArray], path: Path, source: str) -> tuple[str, str]:
    panels = _panels(maps)
    figures.compare(panels, path, source)
    titles = ", ".join(panel.title for panel in panels)
    caption = f"Bed elevation, one value every {rasters.resolution_of(maps['dem']):,.0f} m."
    if "bicubic prior" in maps:
        caption += " The difference shows what the model adds to its prior."
    return caption, f"Maps around the picks: {titles}."


def _close_up(content: _Content, path: Path) -> tuple[str, str]:
    if not content.is_wide:
        raise InvalidDataError("the maps above show the area at the same scale")
    caption, alt = _compare(content.maps(content.close_up), path, content.source)
    return f"The area with the most picks. {caption}", alt


def _histogram(content: _Content, path: Path) -> tuple[str, str]:
    figures.error_histogram(content.errors, path, content.source)
    errors = " ".join(f"{name}: {_quantiles(error)}" for name, error in content.errors.items())
    return f"Bed minus pick at {content.picks_label}.", f"Histogram of errors. {errors}"


def _transect(content: _Content, path: Path) -> tuple[str, str]:
    named = content.named
    beds = {}
    for name, bed in content.beds.items():
        own_datum, datum = bed.datum or content.datums.get(name), content.place.datum
        beds[name.replace("bicubic prior", "prior, bilinear")] = (
            bed.raster
            if datum is None or own_datum in (None, datum)
            else rasters.convert_datum(
                rasters.chunked(bed.raster), datum, content.place.geoids, own_datum
            )
        )
    figures.transect(named, beds, path, source=content.source)
    return (
        "Along the longest line. Top: elevation. Bottom: standard deviation of elevation in "
        "segments of 1.25 km. All beds are interpolated bilinearly.",
        f"Curves of elevation and roughness of the picks, {', '.join(beds)} along a flight line.",
    )


def _roughness(content: _Content, path: Path) -> tuple[str, str]:
    panels = [Panel(name, roughness_map(bed)) for name, bed in content.full_resolution.items()]
    figures.roughness(panels, path, content.source)
    return (
        f"Standard deviation of elevation in 5 x 5 cells of {content.resolution:g} m, for every "
        "bed on the cells of the DEM.",
        f"Maps of roughness: {', '.join(content.full_resolution)}.",
    )


def _spectrum(content: _Content, path: Path) -> tuple[str, str]:
    spectra_by_bed = {
        name: spectra(content.named.assign(grid=heights))
        for name, heights in content.heights.items()
    }
    figures.spectrum(spectra_by_bed, path, content.source)
    resolved = {name: each.resolved_wavelength() for name, each in spectra_by_bed.items()}
    wavelengths = ", ".join(
        f"{name} nowhere" if length is None else f"{name} down to {length / 1000:.1f} km"
        for name, length in resolved.items()
    )
    return (
        "Power along the lines, and coherence of each bed with the picks. A bed resolves "
        f"wavelengths with a coherence of at least 0.5. Coherent: {wavelengths}.",
        f"Curves of power and of coherence by wavelength. Coherent: {wavelengths}.",
    )


_FIGURES: dict[str, Callable[[_Content, Path], tuple[str, str]]] = {
    "Errors at the picks": _errors,
    "Beds around the picks": _around,
    "Close-up": _close_up,
    "Histogram of errors": _histogram,
    "Along the longest line": _transect,
    "Roughness": _roughness,
    "Wavelengths that the beds resolve": _spectrum,
}
