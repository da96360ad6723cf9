"""Made-up glaciers whose bed is known, surveyed and written down as real ones are.

A glacier is a slab of ice on a rough bed. Its surface and its velocity carry the bed's imprint as
ice flow transfers it: the steady linear response of a Newtonian full-Stokes slab to undulations
of the bed and of the bed's slipperiness (Gudmundsson 2003, doi 10.1029/2002JB002107), solved for
each wavenumber as the boundary-value problem of that paper rather than by its closed form.

:func:`write_repository` leaves a folder with a registry, survey pipelines and raw files whose
URLs are ``file:``, so that the same code reads it that reads the real surveys.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pooch
import pyproj
import xarray as xr
import yaml
from scipy import fft
from scipy.ndimage import map_coordinates

from deepbedmap import grids, rasters, repository
from deepbedmap.errors import Fault, InvalidDataError
from deepbedmap.rasters import Bounds

logger = logging.getLogger(__name__)

Array = npt.NDArray[np.floating[Any]]
ComplexArray = npt.NDArray[np.complexfloating[Any, Any]]

CRS = "EPSG:3031"


@dataclass(frozen=True)
class Configuration:
    """What the made-up glaciers and their surveys are like, each value with its reason.

    Lengths and elevations in metres, speeds in metres a year.
    """

    extent: float = 100_000
    """Side of a glacier: a few times the longest wavelength of its relief, so that it is not one
    hill, and small enough that six are made and surveyed in seconds."""

    grid_spacing: float = 100
    """Cell of the true bed and of the surface: REMA's, the finest input of the network."""

    bed_deviation: float = 300
    """Standard deviation of the bed: the relief of West Antarctic troughs and ridges."""

    corner_wavelength: float = 40_000
    """Wavelength beyond which the bed's spectrum is flat: the spacing of major troughs."""

    hurst_exponent: float = 0.8
    """Beds are self-affine (Jordan et al. 2017, doi 10.5194/tc-11-1247-2017); 0.8 is rough enough
    to leave much between lines and smooth enough to be land."""

    elongation: float = 1.8
    """Correlation along flow over correlation across it: ice streams streamline their beds."""

    thickness: float = 1_800
    """Mean ice thickness: of the order of the main trunks of Thwaites and Pine Island Glacier."""

    surface_slope: float = 0.005
    """Mean slope: that of an ice stream's trunk, some way above its grounding line."""

    deformation_speed: float = 18
    """Surface speed by deformation alone; with the slip ratios below the ice flows at 160 to
    740 m/yr."""

    slip_ratios: tuple[float, ...] = (8.0, 18.0, 40.0)
    """Basal over deformational speed at which the response is solved; between them it varies
    slowly from place to place, and is blended. Ice streams slide many times faster than they
    deform, and the more they do, the more of the bed shows (Gudmundsson 2003)."""

    direction_swing: float = 20
    """Degrees by which flow turns from a glacier's mean direction, slowly from place to place."""

    slow_wavelength: float = 60_000
    """Wavelength over which slip ratio and direction vary: many ice thicknesses, since the
    response of a slab is blended only where its properties hardly change."""

    slipperiness_deviation: float = 0.2
    """Relative deviation of basal slipperiness. It marks surface and velocity as the bed does and
    so confounds it, as in nature."""

    slipperiness_wavelength: float = 15_000
    """Its corner wavelength: sticky spots of a few ice thicknesses."""

    shortest_wavelength: float = 1_500
    """Undulations shorter than this are not solved for: less than 1 % of their height shows at the
    surface of ice this thick, and the transfer falls off exponentially."""

    surface_noise: float = 1
    """Noise of the surface, white at 100 m: of the order of REMA's."""

    velocity_noise: float = 5
    """Noise of each component of velocity, white at 500 m: some metres a year, as in mosaics of
    speckle tracking."""

    pick_noise: float = 10
    """Noise of one pick: the range resolution of airborne radar, and more at steep beds."""

    pick_spacing: float = 100
    """Distance of picks along a line: 15 to 30 m in real surveys, thinned here for speed."""

    line_spacing: float = 1_000
    """Distance of lines of a detailed survey, so that a 250 m grid with the mask of three cells
    has complete windows."""

    reconnaissance_spacing: float = 12_500
    """Distance of the lines that the prior is made from; ties are twice as far apart. Bedmap2's
    coverage of surveyed areas is of this order."""

    prior_spacing: float = 1_000
    """Cell of the prior: Bedmap2's."""


@dataclass(frozen=True)
class Glacier:
    """A made-up glacier: fields by name on grids of their own, all EPSG:3031, rows northward.

    ``bed`` and ``surface`` in metres at ``grid_spacing``; ``vx``, ``vy`` in metres a year at
    500 m; ``accumulation`` in kg m-2 a-1 at 1 km. Surface and velocity carry measurement noise;
    ``true_surface`` does not.
    """

    name: str
    bounds: Bounds
    direction: float
    fields: dict[str, xr.DataArray]


def response(
    kx: Array, ky: Array, slip_ratio: float, slope: float
) -> tuple[ComplexArray, ComplexArray]:
    """Steady response of a slab of ice to the bed and to its slipperiness.

    A Newtonian slab of unit thickness lies on a plane of slope ``slope`` and slides by a linear
    law; x runs down-slope, z is normal to it. The perturbed Stokes equations are solved with a
    free surface and the sliding law, both linearised about the plane (Gudmundsson 2003,
    doi 10.1029/2002JB002107).

    Parameters
    ----------
    kx, ky
        Wavenumbers along and across flow times ice thickness, any one shape, never both zero.
    slip_ratio
        Mean basal speed over mean deformational surface speed.
    slope
        Mean surface slope, a tangent.

    Returns
    -------
    (to_bed, to_slipperiness), each of shape (3, *kx.shape)
        Surface elevation, velocity along flow and velocity across flow at the surface, for a
        unit of bed elevation and for a unit of relative slipperiness. Elevation in ice
        thicknesses, velocity in mean deformational surface speeds.

    Notes
    -----
    With viscosity 1/2 the mean state is u = C + 2z - z^2, tau_xz = 1 - z. Vertical velocity is
    (A + B z) exp(m (z - 1)) + (D + E z) exp(-m z), pressure B exp(m (z - 1)) + E exp(-m z), and
    vertical vorticity F exp(m (z - 1)) + G exp(-m z); the seventh unknown is the surface S.

    Examples
    --------
    Over a very long undulation the surface follows the bed:

    >>> to_bed, _ = response(np.array([1e-4]), np.array([0.0]), slip_ratio=10, slope=0.005)
    >>> bool(abs(to_bed[0, 0] - 1) < 0.02)
    True
    """
    kx, ky = np.broadcast_arrays(np.asarray(kx, float), np.asarray(ky, float))
    shape, kx, ky = kx.shape, kx.ravel(), ky.ravel()
    m = np.hypot(kx, ky)
    zero, one = np.zeros_like(m), np.ones_like(m)

    def vertical(z: float) -> tuple[Array, Array, Array, Array, Array]:
        """Rows for w, dw/dz, d2w/dz2, p and vorticity with its derivative at height z."""
        up, down = np.exp(m * (z - 1)), np.exp(-m * z)
        w = np.stack([up, z * up, down, z * down, zero, zero, zero], -1)
        dw = np.stack([m * up, (1 + m * z) * up, -m * down, (1 - m * z) * down] + [zero] * 3, -1)
        ddw = np.stack(
            [m**2 * up, (2 * m + m**2 * z) * up, m**2 * down, (m**2 * z - 2 * m) * down]
            + [zero] * 3,
            -1,
        )
        p = np.stack([zero, up, zero, down, zero, zero, zero], -1)
        vorticity = np.stack([zero] * 4 + [up, down, zero], -1)
        return w, dw, ddw, p, vorticity

    def horizontal(dw: Array, vorticity: Array) -> tuple[ComplexArray, ComplexArray]:
        ik, il = 1j * (kx / m**2)[:, None], 1j * (ky / m**2)[:, None]
        return ik * dw + il * vorticity, il * dw - ik * vorticity

    growth = np.stack([zero] * 4 + [m, -m, zero], -1)
    surface = np.stack([zero] * 6 + [one], -1)
    ik, il = 1j * kx[:, None], 1j * ky[:, None]

    w, dw, ddw, p, vorticity = vertical(1.0)
    u_top, v_top = horizontal(dw, vorticity)
    du, dv = horizontal(ddw, growth * vorticity)
    equations = [
        (du + ik * w) / 2 - surface,  # no shear along flow at the surface
        (dv + il * w) / 2,  # nor across it
        -p + dw + surface / slope,  # nor normal stress
        w - (slip_ratio + 1) * ik * surface,  # the surface is steady
    ]
    w, dw, ddw, p, vorticity = vertical(0.0)
    u, v = horizontal(dw, vorticity)
    du, dv = horizontal(ddw, growth * vorticity)
    equations += [
        w + 0j,  # no flow through the bed
        u - slip_ratio * (du + ik * w) / 2,  # sliding along flow
        v - slip_ratio * (dv + il * w) / 2,  # and across it
    ]
    forcing = np.zeros((m.size, 7, 2), complex)
    forcing[:, 4, 0] = slip_ratio * 1j * kx
    forcing[:, 5, 0] = -2 - slip_ratio
    forcing[:, 5, 1] = slip_ratio
    solution = np.linalg.solve(np.stack(equations, 1), forcing)
    elevation = solution[:, 6]
    # The mean velocity has no shear at the surface, so that raising it adds nothing.
    along = np.einsum("nj,njf->nf", u_top, solution)
    across = np.einsum("nj,njf->nf", v_top, solution)
    answer = np.stack([elevation, along, across])
    to_bed, to_slipperiness = (answer[..., column].reshape(3, *shape) for column in (0, 1))
    return to_bed, to_slipperiness


def self_affine(
    shape: tuple[int, int],
    spacing: float,
    wavelength: float,
    hurst: float,
    random: np.random.Generator,
    direction: float = 0.0,
    elongation: float = 1.0,
) -> Array:
    """Periodic random field of zero mean and unit variance with a von Karman spectrum.

    Parameters
    ----------
    shape
        Rows (northward) and columns (eastward).
    spacing, wavelength
        Cell and corner wavelength, in metres.
    hurst
        Hurst exponent between 0 and 1: the spectrum falls as wavenumber to the -2 (hurst + 1).
    direction, elongation
        Direction of the longer axis in radians from the x axis, and how much longer it is.
    """
    ky, kx = np.meshgrid(
        np.fft.fftfreq(shape[0], spacing), np.fft.rfftfreq(shape[1], spacing), indexing="ij"
    )
    along = (kx * np.cos(direction) + ky * np.sin(direction)) * np.sqrt(elongation)
    across = (ky * np.cos(direction) - kx * np.sin(direction)) / np.sqrt(elongation)
    power = (1 + (along**2 + across**2) * wavelength**2) ** -(hurst + 1)
    power[0, 0] = 0
    field = fft.irfft2(fft.rfft2(random.standard_normal(shape)) * np.sqrt(power), shape)
    scaled: Array = field / field.std()
    return scaled


def make_glacier(
    name: str,
    origin: tuple[float, float],
    seed: int | Sequence[int],
    configuration: Configuration | None = None,
) -> Glacier:
    """Make a glacier whose bed is known everywhere.

    Parameters
    ----------
    origin
        Its south-western corner, EPSG:3031 metres.
    seed
        Decides the bed, the direction of flow, slip, accumulation and the noise.
    """
    c = configuration or Configuration()
    random = np.random.default_rng(seed)
    spacing = c.grid_spacing
    cells = round(c.extent / spacing)
    # The field is periodic over a longer side, so that opposite edges are not alike.
    period = 2 * round(1.28 * cells / 2)
    shape = (period, period)
    direction = random.uniform(-np.pi, np.pi)

    relief = c.bed_deviation * self_affine(
        shape, spacing, c.corner_wavelength, c.hurst_exponent, random, direction, c.elongation
    )
    slipperiness = c.slipperiness_deviation * self_affine(
        shape, spacing, c.slipperiness_wavelength, c.hurst_exponent, random
    )

    def slowly(field_random: np.random.Generator) -> Array:
        """Field between -1 and 1 that varies over the slow wavelength."""
        field = self_affine(shape, spacing, c.slow_wavelength, 3.0, field_random)
        return np.tanh(field)

    log_slip = np.log(c.slip_ratios)
    slip = np.interp(slowly(random), [-1, 1], log_slip[[0, -1]])
    turn = slowly(random)
    slip_weights = _hat_weights(slip, log_slip)
    turn_weights = _hat_weights(turn, np.array([-1.0, 0.0, 1.0]))

    imprint = _imprint(relief, slipperiness, c)
    elevation, east, north = (np.zeros(shape) for _ in range(3))
    for node, turned in enumerate((-1.0, 0.0, 1.0)):
        towards = direction + turned * np.radians(c.direction_swing)
        for ratio, slip_weight in zip(c.slip_ratios, slip_weights, strict=True):
            weight = slip_weight * turn_weights[node]
            rise, along, across = imprint(towards, ratio)
            elevation += weight * rise
            east += weight * (along * np.cos(towards) - across * np.sin(towards))
            north += weight * (along * np.sin(towards) + across * np.cos(towards))
    towards = direction + turn * np.radians(c.direction_swing)
    speed = c.deformation_speed * (1 + np.exp(slip))
    east += speed * np.cos(towards)
    north += speed * np.sin(towards)

    xmin, ymin = origin
    bounds = (xmin, ymin, xmin + c.extent, ymin + c.extent)
    x = xmin + spacing * (np.arange(cells) + 0.5)
    y = ymin + spacing * (np.arange(cells) + 0.5)
    centre = (xmin + c.extent / 2, ymin + c.extent / 2)
    downstream = (x - centre[0]) * np.cos(direction) + ((y - centre[1]) * np.sin(direction))[
        :, None
    ]
    plane = 0.72 * c.thickness - c.surface_slope * downstream
    cut = slice(0, cells)
    bed = plane - c.thickness + relief[cut, cut]
    surface = plane + elevation[cut, cut]

    accumulation = 200 + 60 * self_affine(shape, spacing, c.slow_wavelength, 3.0, random)
    fields = {
        "bed": _field(bed, x, y, "m"),
        "true_surface": _field(surface, x, y, "m"),
        "surface": _field(surface + c.surface_noise * random.standard_normal(bed.shape), x, y, "m"),
        "accumulation": _coarsen(_field(accumulation[cut, cut], x, y, "kg m-2 a-1"), 1_000),
    }
    for component, values in (("vx", east), ("vy", north)):
        field = _coarsen(_field(values[cut, cut], x, y, "m a-1"), 500)
        fields[component] = field + c.velocity_noise * random.standard_normal(field.shape)
    return Glacier(name, bounds, direction, fields)


def _imprint(
    relief: Array, slipperiness: Array, c: Configuration
) -> Callable[[float, float], list[Array]]:
    """What the bed causes, as a function of the direction of flow (radians) and the slip ratio.

    That gives surface elevation (m), and velocity along and across flow (m/yr).
    """
    rows, columns = relief.shape
    to_metres = 2 * np.pi * c.thickness
    ky, kx = np.meshgrid(
        to_metres * np.fft.fftfreq(rows, c.grid_spacing),
        to_metres * np.fft.rfftfreq(columns, c.grid_spacing),
        indexing="ij",
    )
    length = np.hypot(kx, ky)
    solved = (length > 0) & (length <= to_metres / c.shortest_wavelength)
    kx, ky = kx[solved], ky[solved]
    bed, slippery = fft.rfft2(relief)[solved], fft.rfft2(slipperiness)[solved]
    units = (c.thickness, c.deformation_speed, c.deformation_speed)

    def caused(towards: float, slip_ratio: float) -> list[Array]:
        along = kx * np.cos(towards) + ky * np.sin(towards)
        across = ky * np.cos(towards) - kx * np.sin(towards)
        answers = zip(units, *response(along, across, slip_ratio, c.surface_slope), strict=True)
        fields = []
        for unit, to_bed, to_slipperiness in answers:
            spectrum = np.zeros(length.shape, complex)
            spectrum[solved] = unit * (to_bed * bed / c.thickness + to_slipperiness * slippery)
            fields.append(fft.irfft2(spectrum, relief.shape))
        return fields

    return caused


def _hat_weights(values: Array, nodes: Array) -> list[Array]:
    """Weights of linear interpolation between nodes, one array a node; they sum to one."""
    return [np.interp(values, nodes, unit) for unit in np.eye(len(nodes))]


def _field(values: Array, x: Array, y: Array, units: str) -> xr.DataArray:
    return xr.DataArray(values, {"y": y, "x": x}, ("y", "x"), attrs={"units": units})


def _coarsen(field: xr.DataArray, spacing: float) -> xr.DataArray:
    cells = round(spacing / float(field.x[1] - field.x[0]))
    return field.coarsen(y=cells, x=cells).mean(keep_attrs=True)


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
    spacing, tie_spacing
        Distance of the lines, which run along x, and of ties across them (None: no ties).

    Returns
    -------
    DataFrame
        ``line`` (int), ``seconds`` (since take-off), ``x``, ``y`` (EPSG:3031), ``surface`` and
        ``bed`` (m; the bed is NaN where the radar lost it). Every fifth line has a gap of
        kilometres without records, one pick in five hundred has no bed, some records stand
        twice, and the bed nearest to sea level is exactly 0 m.
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
        index = np.sort(np.append(index, random.choice(index, 2)))  # two records stand twice
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
    """Evenly spaced from first to last, both included, as near to the spacing as that allows."""
    return np.linspace(first, last, round((last - first) / spacing) + 1)


def _at(field: xr.DataArray, picks: pd.DataFrame) -> Array:
    """Field at picks by cubic splines."""
    spacing = float(field.x[1] - field.x[0])
    rows = (picks["y"].to_numpy() - float(field.y[0])) / spacing
    columns = (picks["x"].to_numpy() - float(field.x[0])) / spacing
    values: Array = map_coordinates(field.to_numpy(), [rows, columns], order=3, mode="nearest")
    return values


def make_prior(
    picks: pd.DataFrame, bounds: Bounds, configuration: Configuration | None = None
) -> xr.DataArray:
    """Low-resolution bed from sparse lines, as Bedmap2's interpolation gave it.

    Bedmap2 used a spline that minimises curvature and tension together (ANUDEM), and so does
    :func:`deepbedmap.grids.grid_points`. It gridded ice thickness and subtracted it from a
    surface; here the bed itself is gridded, so that no surface stands in the prior.

    Returns
    -------
    DataArray
        Bed (y, x), metres, at ``prior_spacing`` over ``bounds``, without gaps.
    """
    c = configuration or Configuration()
    everywhere = math.ceil(2 * c.extent / c.prior_spacing)
    known = picks.dropna(subset="bed").rename(columns={"bed": "z"})
    grid = grids.grid_points(known, spacing=c.prior_spacing, max_gap=everywhere, region=bounds)
    return _field(grid.to_numpy(), grid["x"].to_numpy(), grid["y"].to_numpy(), "m")


def write_cresis(picks: pd.DataFrame, path: Path) -> None:
    """Write picks as a CReSIS ``csv_good`` file: degrees, and depths below the aircraft.

    The year is that with which the file's name begins.
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
    """Write picks as the WISE-ISODYN archive: a header of 11 lines, names among the numbers."""
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
    """Write picks as a Pine Island or iSTAR file: tabs, thickness with and without firn."""
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
    """Write picks as the Carlson Inlet file: x, y and bed, and nothing else."""
    picks[["x", "y", "bed"]].round(2).dropna().to_csv(path, index=False)


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
        Its entry in the registry.
    role
        What its picks are for: ``"training"``, ``"validation"`` or ``"test"``.
    recipe
        The pipeline of the real survey whose layout its files have.
    files
        The names of its files, among which its lines are shared out; their glob is ``pattern``.
    """

    citekey: str
    role: str
    recipe: str
    pattern: str
    files: tuple[str, ...]
    write: Callable[[pd.DataFrame, Path], None]

    @property
    def pipeline(self) -> str:
        """Name of its pipeline file."""
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
"""One detailed survey a glacier; the last gave no training data."""

RECONNAISSANCE = "MadeUpReconnaissance"
"""The survey of sparse lines over all glaciers, of which the prior is made."""


def write_repository(
    folder: Path, seed: int, configuration: Configuration | None = None
) -> dict[str, Glacier]:
    """Make the glaciers, survey them, and write all of it as a repository of its own.

    The folder then holds ``data_list.yml``, ``highres/*.json`` and, under ``published/``, the
    files to which the registry's ``file:`` URLs lead: raw surveys, and rasters of prior, surface,
    velocity and accumulation that span all glaciers. The raw files lie nowhere else: they have
    to be fetched.

    Parameters
    ----------
    folder
        Created where it does not exist; made-up glaciers that are there already are replaced.
    seed
        Another seed gives other glaciers.

    Returns
    -------
    dict
        The glaciers by the citekey of their survey, with the beds that nobody knows.

    Raises
    ------
    InvalidDataError
        The folder holds something else.
    """
    c = configuration or Configuration()
    _make_room(folder)
    published = folder / "published"
    for path in (published, folder / "highres"):
        path.mkdir(parents=True, exist_ok=True)
    glaciers: dict[str, Glacier] = {}
    entries: list[dict[str, Any]] = []
    reconnaissance, priors = [], []
    pitch = c.extent * 1.25
    for number, survey in enumerate(SURVEYS):
        random = np.random.default_rng([seed, number, 1])
        origin = (-400_000 + pitch * (number % 3), -600_000 + pitch * (number // 3))
        glacier = make_glacier(survey.citekey, origin, [seed, number], c)
        glaciers[survey.citekey] = glacier
        sparse = fly(glacier, c.reconnaissance_spacing, 2 * c.reconnaissance_spacing, random, c)
        reconnaissance.append(sparse)
        priors.append(make_prior(sparse, glacier.bounds, c))
        picks = fly(glacier, c.line_spacing, None, random, c)
        entries.append(_write_survey(survey, picks, glacier.bounds, folder))
        logger.info("made and surveyed glacier %d of %d", number + 1, len(SURVEYS))

    path = published / "MadeUpReconnaissance.csv"
    write_carlson(pd.concat(reconnaissance), path)
    _write_pipeline(folder, RECONNAISSANCE, "bed_depth_below_WGS84_datum", path.name)
    entries.append(
        _entry(
            RECONNAISSANCE,
            "highres",
            [path],
            crs=CRS,
            bounds=_around(glaciers.values()),
            pipelines=[f"{RECONNAISSANCE}.json"],
        )
    )
    entries += _write_rasters(glaciers.values(), priors, published)
    text = "# Made-up glaciers: nothing here was observed.\n" + yaml.safe_dump(
        entries, sort_keys=False, width=100
    )
    (folder / "data_list.yml").write_text(text, encoding="utf-8")
    return glaciers


def _make_room(folder: Path) -> None:
    """Remove the made-up glaciers of an earlier run, whole or not, and nothing else."""
    mark = folder / ".made-up"
    if mark.is_file():
        shutil.rmtree(folder)
    elif folder.exists() and any(folder.iterdir()):
        raise InvalidDataError(
            Fault(
                str(folder),
                expected="an empty folder, or made-up glaciers of an earlier run",
                found="something else",
                remedy="choose another folder",
            )
        )
    folder.mkdir(parents=True, exist_ok=True)
    mark.write_text("The demo may delete this folder.\n", encoding="utf-8")


def _around(glaciers: Iterable[Glacier]) -> list[float]:
    """Box around glaciers, as the registry states it."""
    edges = np.array([glacier.bounds for glacier in glaciers])
    return [*edges[:, :2].min(0).tolist(), *edges[:, 2:].max(0).tolist()]


def _write_survey(
    survey: Survey, picks: pd.DataFrame, bounds: Bounds, folder: Path
) -> dict[str, Any]:
    """Write a survey's files and its pipeline; return its registry entry."""
    published = folder / "published"
    shares = np.array_split(picks["line"].unique(), len(survey.files))
    for name, lines in zip(survey.files, shares, strict=True):
        survey.write(picks[picks["line"].isin(lines)], published / name)
    _write_pipeline(folder, survey.citekey, survey.recipe, survey.pattern)
    recipe = json.loads((folder / "highres" / survey.pipeline).read_text(encoding="utf-8"))
    projections = [stage["in_srs"] for stage in recipe["pipeline"] if "in_srs" in stage]
    entry = _entry(
        survey.citekey,
        "highres",
        [published / name for name in survey.files],
        crs=projections[0] if projections else CRS,
        bounds=[float(edge) for edge in bounds],
        pipelines=[survey.pipeline],
    )
    for file in entry["files"]:
        if file["filename"].endswith(".zip"):
            file["unpacked"] = survey.pattern
    return entry


def _write_pipeline(folder: Path, name: str, recipe: str, pattern: str) -> None:
    """Write the pipeline of a real survey for made-up files of the same layout."""
    source = repository.root() / "highres" / f"{recipe}.json"
    stages = json.loads(source.read_text(encoding="utf-8"))
    stages["pipeline"][0]["filename"] = pattern
    text = json.dumps(stages, indent=2) + "\n"
    (folder / "highres" / f"{name}.json").write_text(text, encoding="utf-8")


def _write_rasters(
    glaciers: Iterable[Glacier], priors: list[xr.DataArray], published: Path
) -> list[dict[str, Any]]:
    """Write the products that span all glaciers; return their registry entries."""

    def mosaic(fields: list[xr.DataArray], name: str, datum: str | None) -> xr.DataArray:
        merged = xr.combine_by_coords([field.rename(name) for field in fields], join="outer")
        array = merged[name] if isinstance(merged, xr.Dataset) else merged
        spacing = float(fields[0].x[1] - fields[0].x[0])
        array = array.reindex(  # cells between the glaciers, and rows from north to south
            x=np.arange(float(array.x.min()), float(array.x.max()) + spacing / 2, spacing),
            y=np.arange(float(array.y.max()), float(array.y.min()) - spacing / 2, -spacing),
            method="nearest",
            tolerance=spacing / 4,
        ).astype("float32")
        array.attrs = {"units": fields[0].attrs["units"]}
        if datum:
            array.attrs["vertical_datum"] = datum
        placed: xr.DataArray = array.rio.write_crs(CRS)
        return placed

    made = list(glaciers)
    prior = mosaic(priors, "bed", "ellipsoid")
    surface = mosaic([g.fields["surface"] for g in made], "surface", "ellipsoid")
    accumulation = mosaic([g.fields["accumulation"] for g in made], "accumulation", None)
    velocity = xr.Dataset({v: mosaic([g.fields[v] for g in made], v, None) for v in ("vx", "vy")})
    rasters.write_geotiff(prior, published / "MadeUpPrior.tif")
    rasters.write_geotiff(surface, published / "MadeUpSurface.tif")
    rasters.write_geotiff(accumulation, published / "MadeUpAccumulation.tif")
    rasters.write_netcdf(velocity, published / "MadeUpVelocity.nc")
    return [
        _entry(
            "MadeUpPrior",
            "lowres",
            [published / "MadeUpPrior.tif"],
            bounds=_around(made),
            resolution=1000,
            built_from={"surveys": [RECONNAISSANCE]},
        ),
        _entry(
            "MadeUpSurface",
            "misc",
            [published / "MadeUpSurface.tif"],
            bounds=_around(made),
            resolution=100,
        ),
        _entry(
            "MadeUpVelocity",
            "misc",
            [published / "MadeUpVelocity.nc"],
            bounds=_around(made),
            resolution=500,
            units="m/yr",
            vertical_datum=None,
        ),
        _entry(
            "MadeUpAccumulation",
            "misc",
            [published / "MadeUpAccumulation.tif"],
            bounds=_around(made),
            resolution=1000,
            units="kg m-2 a-1",
            vertical_datum=None,
        ),
    ]


def _entry(citekey: str, folder: str, files: list[Path], **fields: Any) -> dict[str, Any]:
    """Registry entry of published files, with the checksums that they have."""
    return {
        "citekey": citekey,
        "title": f"{citekey}: made up, not observed",
        "folder": folder,
        "location": "nowhere",
        "crs": CRS,
        "vertical_datum": "ellipsoid",
        "units": "m",
        **fields,
        "files": [
            {
                "filename": path.name,
                "url": path.resolve().as_uri(),
                "sha256": pooch.file_hash(str(path)),
            }
            for path in files
        ],
    }
