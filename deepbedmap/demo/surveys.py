"""Survey made-up glaciers by radar, and write the picks in the formats of real surveys."""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyproj
from scipy.ndimage import map_coordinates

from deepbedmap import grids
from deepbedmap.demo.ice_slab import Configuration, field_on_grid

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import xarray as xr

    from deepbedmap.demo.ice_slab import Array, Glacier
    from deepbedmap.places import Bounds

CRS = "EPSG:3031"


def fly(
    glacier: Glacier,
    spacing: float,
    tie_spacing: float | None,
    random: np.random.Generator,
    configuration: Configuration | None = None,
) -> pd.DataFrame:
    """Survey a glacier by radar along parallel lines.

    Parameters
    ----------
    glacier
        The glacier to survey.
    spacing, tie_spacing
        Distance (m) between the lines, which run along x, and between the tie lines across them
        (None: no tie lines).
    random
        Source of the noise, of the gaps and of the repeated records.
    configuration
        Properties of the survey; by default those of :class:`Configuration`.

    Returns
    -------
    DataFrame
        ``line`` (int), ``seconds`` (since take-off), ``x``, ``y`` (EPSG:3031), ``surface`` and
        ``bed`` (m; NaN where the radar did not detect the bed). Every fifth line has a gap of
        one to three kilometres, one pick in five hundred has no bed, two records of each line are
        repeated, and the bed closest to sea level is exactly 0 m.
    """
    c = configuration or Configuration()
    xmin, ymin, xmax, ymax = glacier.bounds
    margin = c.line_spacing / 2
    along = _stations(xmin + margin, xmax - margin, c.pick_spacing)
    routes = [
        (along, np.full(along.size, at)) for at in _stations(ymin + margin, ymax - margin, spacing)
    ]
    if tie_spacing is not None:
        across = _stations(ymin + margin, ymax - margin, c.pick_spacing)
        routes += [
            (np.full(across.size, at), across)
            for at in _stations(xmin + margin, xmax - margin, tie_spacing)
        ]
    lines = []
    for number, (x, y) in enumerate(routes):
        kept = np.ones(x.size, bool)
        if number % 5 == 2:
            length = round(random.uniform(1_000, 3_000) / c.pick_spacing)
            start = int(random.integers(0, x.size - length))
            kept[start : start + length] = False
        index = np.flatnonzero(kept)
        index = np.sort(np.append(index, random.choice(index, 2)))  # two repeated records
        lines.append(
            pd.DataFrame(
                {
                    "line": number,
                    "seconds": index * c.pick_spacing / 130,  # at 130 m/s
                    "x": x[index],
                    "y": y[index],
                }
            )
        )
    picks = pd.concat(lines, ignore_index=True)
    picks["surface"] = _at(glacier.fields["true_surface"], picks)
    picks["bed"] = _at(glacier.fields["bed"], picks)
    picks["bed"] += c.pick_noise * random.standard_normal(len(picks))
    picks.loc[picks["bed"].abs().idxmin(), "bed"] = 0.0
    lost = (np.arange(len(picks)) + random.integers(500)) % 500 == 0
    return picks.assign(bed=picks["bed"].where(~lost | (picks["bed"] == 0)))


def _stations(first: float, last: float, spacing: float) -> Array:
    """Return evenly spaced stations from first to last, as close to the spacing as possible."""
    return np.linspace(first, last, round((last - first) / spacing) + 1)


def _at(field: xr.DataArray, picks: pd.DataFrame) -> Array:
    """Interpolate a field at the picks by cubic splines."""
    spacing = float(field.x[1] - field.x[0])
    rows = (picks["y"].to_numpy() - float(field.y[0])) / spacing
    columns = (picks["x"].to_numpy() - float(field.x[0])) / spacing
    values: Array = map_coordinates(field.to_numpy(), [rows, columns], order=3, mode="nearest")
    return values


def make_prior(
    picks: pd.DataFrame, bounds: Bounds, configuration: Configuration | None = None
) -> xr.DataArray:
    """Grid a low-resolution bed from sparse lines, much as Bedmap2 did.

    Bedmap2 used a spline that minimises curvature and tension together (ANUDEM), as does
    :func:`deepbedmap.grids.grid_points`. Bedmap2 gridded ice thickness and subtracted it from the
    surface; here the bed itself is gridded, so that the prior holds nothing of the surface.

    Parameters
    ----------
    picks
        Table with columns ``x``, ``y`` and ``bed``, as :func:`fly` returns it.
    bounds
        Bounds of the prior, EPSG:3031 metres.
    configuration
        States the cell size; by default that of :class:`Configuration`.

    Returns
    -------
    DataArray
        Bed (y, x), metres, at ``prior_spacing`` over ``bounds``, without gaps.
    """
    c = configuration or Configuration()
    everywhere = math.ceil(2 * c.extent / c.prior_spacing)
    measured = picks.dropna(subset="bed").rename(columns={"bed": "z"})
    grid = grids.grid_points(measured, spacing=c.prior_spacing, max_gap=everywhere, region=bounds)
    return field_on_grid(grid.to_numpy(), grid["x"].to_numpy(), grid["y"].to_numpy(), "m")


def write_cresis(picks: pd.DataFrame, path: Path) -> None:
    """Write picks as a CReSIS ``csv_good`` file: degrees, and depths below the aircraft.

    The file's name begins with the year of the survey.
    """
    date = f"{path.name[:4]}1115"
    longitude, latitude = _degrees(picks)
    elevation = picks["surface"] + 500
    bottom = elevation - picks["bed"]
    elevation, bottom = elevation.round(2), bottom.round(2)
    elevation = elevation.where(picks["bed"] != 0, bottom)
    pd.DataFrame(
        {
            "LAT": latitude.round(6),
            "LON": longitude.round(6),
            "UTCTIMESOD": (40_000 + picks["seconds"]).round(4),
            "THICK": (picks["surface"] - picks["bed"]).round(2).fillna(-9999),
            "ELEVATION": elevation,
            "FRAME": date + "01" + picks["line"].map("{:03d}".format),
            "SURFACE": 500.0,
            "BOTTOM": bottom.fillna(-9999),
            "QUALITY": 1,
        }
    ).to_csv(path, index=False)


def write_wise(picks: pd.DataFrame, path: Path) -> None:
    """Write picks as the WISE-ISODYN archive: 11 header lines, text among the numeric columns."""
    longitude, latitude = _degrees(picks)
    flight = picks["line"].floordiv(10).map("W{:02d}".format)
    time = pd.to_timedelta(30_000 + picks["seconds"], unit="s")
    clock = (pd.Timestamp("2005-12-20") + time).dt.strftime("%H:%M:%S")
    trace = picks.groupby("line").cumcount() + 1
    travel = (picks["surface"] - picks["bed"]) / 84.5
    columns = {
        "FlightID": flight,
        "Line_name": picks["line"].map("L{:03d}".format),
        "Longitude": longitude.round(6),
        "Latitude": latitude.round(6),
        "x": picks["x"].round(1),
        "y": picks["y"].round(1),
        "Height_WGS1984": (picks["surface"] + 500).round(2),
        "Date": "20051220",
        "Time": clock,
        "Segy_name": flight + "_01.sgy",
        "traceNum": trace,
        "PriNum": 1000 + trace,
        "surfPickLoc": 333.0,
        "bedPickLoc": (333 + 100 * travel).round(1),
        "BedElev": picks["bed"].round(2),
        "Bedrock_and_BEDMAP2": picks["bed"].round(2),
        "Mask": 0,
        "picked_bedElev": picks["bed"].round(2),
        "surfElev": picks["surface"].round(2),
        "tIce": (picks["surface"] - picks["bed"]).round(2),
    }
    header = [f"/ a made-up survey in the layout of WISE-ISODYN, line {n}" for n in range(1, 11)]
    header.append(" ".join(columns))
    text = pd.DataFrame(columns).to_csv(sep=" ", index=False, header=False, na_rep="*")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo(f"{path.stem}.XYZ"), "\n".join(header) + "\n" + text)


def write_pine_island(picks: pd.DataFrame, path: Path) -> None:
    """Write picks as a Pine Island or iSTAR file: tabs, thickness with and without firn air."""
    corrected = (picks["surface"] - picks["bed"]).round(2)
    columns = {
        "x": picks["x"].round(2),
        "y": picks["y"].round(2),
        "z_surf": picks["surface"].round(2),
        "time": (2 * (corrected - 10) / 168.5).round(4),
        "h": corrected - 10,
        "h_fc": corrected,
        "z": (picks["bed"] + 10).round(2),
        "z_fc": picks["bed"].round(2),
    }
    pd.DataFrame(columns).to_csv(path, sep="\t", index=False, na_rep="nan")


def write_carlson(picks: pd.DataFrame, path: Path) -> None:
    """Write picks as the Carlson Inlet file: x, y and bed only."""
    picks[["x", "y", "bed"]].round(2).dropna().to_csv(path, index=False)


def within(picks: pd.DataFrame, bounds: Bounds) -> pd.DataFrame:
    """Return the picks in a box.

    Parameters
    ----------
    picks
        Table with columns ``x`` and ``y``.
    bounds
        (xmin, ymin, xmax, ymax), in the CRS of the picks; edges count as inside.
    """
    xmin, ymin, xmax, ymax = bounds
    return picks[picks["x"].between(xmin, xmax) & picks["y"].between(ymin, ymax)]


def _degrees(picks: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    transformer = pyproj.Transformer.from_crs(CRS, "EPSG:4326", always_xy=True)
    longitude, latitude = transformer.transform(picks["x"].to_numpy(), picks["y"].to_numpy())
    return pd.Series(longitude, picks.index), pd.Series(latitude, picks.index)


@dataclass(frozen=True)
class Survey:
    """How a made-up glacier is surveyed in detail.

    Parameters
    ----------
    citekey
        Entry in the registry.
    role
        What the picks are used for: ``"training"``, ``"validation"`` or ``"test"``.
    recipe
        Pipeline of the real survey whose file layout is used.
    pattern
        Glob that matches the files once they are unpacked.
    files
        Names of the files, among which the lines are divided.
    write
        Function that writes picks in the layout of the real survey.
    """

    citekey: str
    role: str
    recipe: str
    pattern: str
    files: tuple[str, ...]
    write: Callable[[pd.DataFrame, Path], None]

    @property
    def pipeline(self) -> str:
        """Name of the survey's pipeline file."""
        return f"{self.citekey}.json"


SURVEYS = (
    Survey(
        "MadeUp1",
        "training",
        "20xx_Antarctica_DC8",
        "20??_MadeUp1_DC8.csv",
        ("2011_MadeUp1_DC8.csv", "2012_MadeUp1_DC8.csv"),
        write_cresis,
    ),
    Survey(
        "MadeUp2",
        "training",
        "WISE_ISODYN_RadarByFlight",
        "MadeUp2_RadarByFlight.txt",
        ("MadeUp2_RadarByFlight_ASCII.zip",),
        write_wise,
    ),
    Survey(
        "MadeUp3",
        "training",
        "2007tx",
        "MadeUp3_2007t?.txt",
        ("MadeUp3_2007t1.txt", "MadeUp3_2007tr.txt"),
        write_pine_island,
    ),
    Survey(
        "MadeUp4",
        "training",
        "istarxx",
        "MadeUp4_istar??.txt",
        ("MadeUp4_istar07.txt", "MadeUp4_istar08.txt"),
        write_pine_island,
    ),
    Survey(
        "MadeUp5",
        "validation",
        "20xx_Antarctica_TO",
        "20??_MadeUp5_TO*.csv",
        ("2009_MadeUp5_TO.csv", "2011_MadeUp5_TO_Gambit.csv"),
        write_cresis,
    ),
    Survey(
        "MadeUp6",
        "test",
        "201x_Antarctica_P3",
        "201?_MadeUp6_P3.csv",
        ("2013_MadeUp6_P3.csv", "2017_MadeUp6_P3.csv"),
        write_cresis,
    ),
)
"""One detailed survey per glacier; the last one is held out for scoring."""

RECONNAISSANCE = "MadeUpReconnaissance"
"""The survey of sparse lines over all glaciers, from which the prior is gridded."""
