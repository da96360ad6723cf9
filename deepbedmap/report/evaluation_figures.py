"""The figures of an evaluation: a bed, what it was made from, others, and the picks."""

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
    from deepbedmap.rasters.geoids import Geoids
    from deepbedmap.rasters.lattice import Bounds
    from deepbedmap.registry.listing import Registry

_MOST_PICKS = 200_000
_MOST_CELLS = 600  # a side of a map
_CLOSE = 100  # cells a side of the close-up
_CLOSEST, _WIDEST = 5_000.0, 50_000.0  # metres a side of it


@dataclass(frozen=True)
class Figure:
    """A picture of a report.

    Attributes
    ----------
    title
        Its heading.
    path
        A PNG; None of a figure that could not be drawn.
    caption
        Stands below; or why it could not be drawn.
    alt
        What there is to see, for those who do not see it; the title where it is empty.
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

    Rasters of any size are read only where something is drawn, and a map has 600 x 600 cells at
    most; of more than 200,000 picks those of some lines, drawn at random, are taken. Heights are
    above the picks' datum.

    Parameters
    ----------
    folder
        For the images.
    dem, points, prior, gridding, registry, datums, geoids
        As of :func:`deepbedmap.evaluation.compare`, which has found no fault with them.
    beds
        Other beds by name, as its ``baselines``.
    source
        A line in each figure that says what it was made from.
    seed
        Of the draw of lines.

    Returns
    -------
    list of Figure
        Those that the data do not allow have no path, and the reason for a caption.
    """
    from deepbedmap import registry as registries

    told = dict(datums or {})
    listing = registry or registries.load()
    opened = open_beds(dem, points, prior, gridding, beds, listing)
    some = _some(points, seed)
    place = Place.of(some, opened["dem"], told.get("dem"), geoids)
    place = dataclasses.replace(place, datum=told.get("picks", place.datum))
    shown = _Shown(opened, some, place, told, len(points), source)
    drawn = []
    for number, (title, draw) in enumerate(_FIGURES.items(), 1):
        path = Path(folder) / f"{number}.png"
        try:
            caption, alt = draw(shown, path)
        except InvalidDataError as error:
            drawn.append(Figure(title, None, f"{error}."))
        else:
            drawn.append(Figure(title, path, caption, alt))
    return drawn


def _some(points: pd.DataFrame, seed: int) -> pd.DataFrame:
    """All picks, or those of lines drawn at random; every so many where they name no lines."""
    if len(points) <= _MOST_PICKS:
        return points
    named = evaluation.with_lines(points)
    if named is None:
        return points.iloc[:: -(-len(points) // _MOST_PICKS)]
    of = named["line"].cat.codes.to_numpy()
    order = np.random.default_rng(seed).permutation(len(named["line"].cat.categories))
    sizes = np.bincount(of, minlength=order.size)[order]
    chosen = order[: max(1, int((np.cumsum(sizes) <= _MOST_PICKS).sum()))]
    return points[np.isin(of, chosen)].iloc[:_MOST_PICKS]


@dataclass(frozen=True)
class _Shown:
    """Beds and picks of which figures are drawn.

    Attributes
    ----------
    picks, place
        Those that are drawn, and where they are.
    told
        Vertical datums by name of the bed.
    total
        Number of all picks, also of those that are not drawn.
    """

    beds: dict[str, Bed]
    picks: pd.DataFrame
    place: Place
    told: Mapping[str, str]
    total: int
    source: str

    def sample(self, place: Place) -> dict[str, npt.NDArray[np.float64]]:
        """Heights of each bed."""
        return {
            name: place.sample(bed, self.told.get(name), strict=name != "dem")
            for name, bed in self.beds.items()
        }

    @functools.cached_property
    def heights(self) -> dict[str, npt.NDArray[np.float64]]:
        """Heights of each bed at the picks; NaN where one has a gap, as where they are scored."""
        sampled = self.sample(self.place)
        known = np.isfinite(list(sampled.values())).all(0)
        return {name: np.where(known, values, np.nan) for name, values in sampled.items()}

    @property
    def errors(self) -> dict[str, npt.NDArray[np.float64]]:
        """Bed minus pick."""
        z = self.picks["z"].to_numpy(np.float64)
        return {name: values - z for name, values in self.heights.items()}

    @functools.cached_property
    def named(self) -> pd.DataFrame:
        """The picks, with their lines."""
        named = evaluation.with_lines(self.picks)
        if named is None:
            raise InvalidDataError("the picks name no lines")
        return named

    @property
    def which(self) -> str:
        """The picks whose errors are drawn, in words."""
        known = int(np.isfinite(self.heights["dem"]).sum())
        of = f" of {self.total:,}" if len(self.picks) < self.total else ""
        return f"{known:,}{of} picks"

    @functools.cached_property
    def bounds(self) -> Bounds:
        """Box around the picks, with a margin."""
        x, y = self.place.x, self.place.y
        margin = 0.05 * max(np.ptp(x), np.ptp(y), 10 * self.resolution)
        return x.min() - margin, y.min() - margin, x.max() + margin, y.max() + margin

    @functools.cached_property
    def resolution(self) -> float:
        """Metres a cell of the DEM."""
        return rasters.resolution_of(self.beds["dem"].raster)

    @functools.cached_property
    def close(self) -> Bounds:
        """Box around the place that has most picks, in which the DEM is shown cell by cell."""
        half = min(max(_CLOSE * self.resolution, _CLOSEST), _WIDEST) / 2
        x, y = self.place.x, self.place.y
        cells = np.stack([x // (2 * half), y // (2 * half)])
        _, of, count = np.unique(cells, axis=1, return_inverse=True, return_counts=True)
        here = of.ravel() == count.argmax()
        across, up = float(x[here].mean()), float(y[here].mean())
        return across - half, up - half, across + half, up + half

    @property
    def is_wide(self) -> bool:
        """Whether the picks spread over much more than the close-up shows."""
        extents = [box[2] - box[0] + box[3] - box[1] for box in (self.bounds, self.close)]
        return extents[0] > 1.5 * extents[1]

    def lattice(self, bounds: Bounds) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Columns x and rows y of the DEM in a box, or every so manyth."""
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
        """Each bed in a box, on the same lattice."""
        x, y = self.lattice(bounds)
        across, up = (axis.ravel() for axis in np.meshgrid(x, y))
        crs = rasters.require_crs(self.beds["dem"].raster)
        sampled = self.sample(dataclasses.replace(self.place, x=across, y=up))
        return {
            name: xr.DataArray(
                heights.reshape(y.size, x.size).astype(np.float32), {"y": y, "x": x}, ("y", "x")
            ).rio.write_crs(crs)
            for name, heights in sampled.items()
        }

    @functools.cached_property
    def around(self) -> dict[str, xr.DataArray]:
        """Each bed around the picks."""
        return self.maps(self.bounds)

    @functools.cached_property
    def near(self) -> dict[str, xr.DataArray]:
        """Each bed cell by cell: around all the picks where that is possible, else close up."""
        spacing = abs(float(np.diff(self.lattice(self.bounds)[0][:2])[0]))
        if spacing < 1.5 * self.resolution:
            return self.around
        return self.maps(self.close)


def _errors(shown: _Shown, path: Path) -> tuple[str, str]:
    error = shown.errors["dem"]
    bed = shown.beds["dem"].raster
    figures.errors_at_picks(bed, shown.picks, error, path, shown.source)
    caption = (
        f"The DEM in grey, and how far it is off at {shown.which}: blue where it is too low, red "
        "where it is too high."
    )
    return caption, f"Map of the DEM with picks coloured by bed minus pick. {_said(error)}"


def _said(error: npt.NDArray[np.float64]) -> str:
    low, middle, high = np.nanquantile(error, [0.05, 0.5, 0.95])
    return f"Nine in ten lie between {low:.0f} and {high:.0f} m, half below {middle:.0f} m."


def _panels(maps: Mapping[str, xr.DataArray]) -> list[Panel]:
    """DEM, prior, their difference and a baseline, as far as they are there."""
    panels = [Panel("DEM", maps["dem"])]
    if "bicubic prior" in maps:
        prior = maps["bicubic prior"]
        panels.append(Panel("prior, bicubic", prior))
        panels.append(Panel("DEM minus prior", maps["dem"] - prior, "difference"))
    others = [name for name in maps if name not in ("dem", "bicubic prior")]
    if others:
        other = next((name for name in others if name != "gridding"), "gridding")
        panels.append(Panel(other, maps[other]))
    return panels


def _around(shown: _Shown, path: Path) -> tuple[str, str]:
    return _compare(shown.around, path, shown.source)


def _compare(maps: Mapping[str, xr.DataArray], path: Path, source: str) -> tuple[str, str]:
    panels = _panels(maps)
    figures.compare(panels, path, source)
    titles = ", ".join(panel.title for panel in panels)
    caption = f"Bed elevation, a value every {rasters.resolution_of(maps['dem']):,.0f} m."
    if "bicubic prior" in maps:
        caption += " The difference is what the model adds to its prior."
    return caption, f"Maps around the picks: {titles}."


def _close_up(shown: _Shown, path: Path) -> tuple[str, str]:
    if not shown.is_wide:
        raise InvalidDataError("the maps above show the place as closely")
    caption, alt = _compare(shown.maps(shown.close), path, shown.source)
    return f"Where most picks lie. {caption}", alt


def _histogram(shown: _Shown, path: Path) -> tuple[str, str]:
    figures.error_histogram(shown.errors, path, shown.source)
    said = " ".join(f"{name}: {_said(error)}" for name, error in shown.errors.items())
    return f"Bed minus pick at {shown.which}.", f"Histogram of errors. {said}"


def _transect(shown: _Shown, path: Path) -> tuple[str, str]:
    named = shown.named
    beds = {}
    for name, bed in shown.beds.items():
        own, wanted = bed.datum or shown.told.get(name), shown.place.datum
        beds[name.replace("bicubic prior", "prior, bilinear")] = (
            bed.raster
            if wanted is None or own in (None, wanted)
            else rasters.convert_datum(rasters.chunked(bed.raster), wanted, shown.place.geoids, own)
        )
    figures.transect(named, beds, path, source=shown.source)
    return (
        "Along the longest line: elevation above, below it the standard deviation of elevation in "
        "stretches of 1.25 km. All beds bilinear.",
        f"Curves of elevation and roughness of the picks, {', '.join(beds)} along a flight line.",
    )


def _roughness(shown: _Shown, path: Path) -> tuple[str, str]:
    panels = [Panel(name, roughness_map(bed)) for name, bed in shown.near.items()]
    figures.roughness(panels, path, shown.source)
    return (
        f"Standard deviation of elevation in 5 x 5 cells of {shown.resolution:g} m, of every bed "
        "on the cells of the DEM.",
        f"Maps of roughness: {', '.join(shown.near)}.",
    )


def _spectrum(shown: _Shown, path: Path) -> tuple[str, str]:
    found = {
        name: spectra(shown.named.assign(grid=heights)) for name, heights in shown.heights.items()
    }
    figures.spectrum(found, path, shown.source)
    resolved = {name: each.resolved_wavelength() for name, each in found.items()}
    said = ", ".join(
        f"{name} nothing" if length is None else f"{name} down to {length / 1000:.1f} km"
        for name, length in resolved.items()
    )
    return (
        "Power along the lines, and how coherent a bed is with the picks; below the wavelength "
        f"where the coherence falls under 0.5 it holds nothing of them. Coherent: {said}.",
        f"Curves of power and of coherence by wavelength. Coherent: {said}.",
    )


_FIGURES: dict[str, Callable[[_Shown, Path], tuple[str, str]]] = {
    "Errors at the picks": _errors,
    "Beds around the picks": _around,
    "Close-up": _close_up,
    "How often a bed is off by how much": _histogram,
    "Along the longest line": _transect,
    "Roughness": _roughness,
    "Which wavelengths the beds hold": _spectrum,
}
