"""Made-up glaciers whose bed is known: slabs of ice on a rough bed.

Surface and velocity carry the imprint of the bed as ice flow transfers it: the steady linear
response of a Newtonian full-Stokes slab to undulations of the bed and of its slipperiness
(Gudmundsson 2003, doi 10.1029/2002JB002107), solved for each wavenumber as the
boundary-value problem of that paper rather than by its closed form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy import fft

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from deepbedmap.places import Bounds

Array = npt.NDArray[np.floating[Any]]
ComplexArray = npt.NDArray[np.complexfloating[Any, Any]]


@dataclass(frozen=True)
class Configuration:
    """Properties of the made-up glaciers and their surveys, each value with its reason.

    Lengths and elevations are in metres, speeds in metres per year.
    """

    extent: float = 100_000
    """Side of a glacier: a few times the longest wavelength of its relief, so that it holds more
    than one hill, and small enough that six are made and surveyed in seconds."""

    grid_spacing: float = 100
    """Cell size of the true bed and of the surface: that of REMA, the finest input of the
    network."""

    bed_deviation: float = 300
    """Standard deviation of the bed: the relief of West Antarctic troughs and ridges."""

    corner_wavelength: float = 40_000
    """Wavelength beyond which the bed's spectrum is flat: the spacing of major troughs."""

    hurst_exponent: float = 0.8
    """Beds are self-affine (Jordan et al. 2017, doi 10.5194/tc-11-1247-2017); 0.8 is rough enough
    to leave much unmapped between lines and smooth enough to look like land."""

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
    """Degrees by which flow turns away from a glacier's mean direction, slowly in space."""

    slow_wavelength: float = 60_000
    """Wavelength over which slip ratio and direction vary: many ice thicknesses, since the
    response of a slab is blended only where its properties hardly change."""

    slipperiness_deviation: float = 0.2
    """Relative deviation of basal slipperiness. It leaves an imprint on surface and velocity as the
    bed does, and so confounds the two, as in nature."""

    slipperiness_wavelength: float = 15_000
    """Corner wavelength of basal slipperiness: sticky spots of a few ice thicknesses."""

    shortest_wavelength: float = 1_500
    """Undulations shorter than this are not solved for: less than 1 % of their height shows at the
    surface of ice this thick, and the transfer falls off exponentially."""

    surface_noise: float = 1
    """Noise of the surface, white at 100 m: of the order of REMA's."""

    velocity_noise: float = 5
    """Noise of each component of velocity, white at 500 m: some metres a year, as in mosaics of
    speckle tracking."""

    pick_noise: float = 10
    """Noise of one pick: the range resolution of airborne radar, and more over steep beds."""

    pick_spacing: float = 100
    """Distance between picks along a line: 15 to 30 m in real surveys, thinned here for speed."""

    line_spacing: float = 1_000
    """Distance between lines of a detailed survey: close enough that a 250 m grid, masked beyond
    three cells from data, has complete windows."""

    reconnaissance_spacing: float = 12_500
    """Distance between the lines from which the prior is gridded; tie lines are twice as far apart.
    Bedmap2's coverage of surveyed areas is of this order."""

    prior_spacing: float = 1_000
    """Cell size of the prior: that of Bedmap2."""


@dataclass(frozen=True)
class Glacier:
    """A made-up glacier: fields by name, each on its own grid, all EPSG:3031, rows northward.

    ``bed``, ``surface`` and ``true_surface`` are in metres at ``grid_spacing``; ``vx`` and ``vy``
    in metres per year at 500 m; ``accumulation`` in kg m-2 a-1 at 1 km. Surface and velocity carry
    measurement noise; ``true_surface`` does not.
    """

    name: str
    bounds: Bounds
    direction: float
    fields: dict[str, xr.DataArray]


def response(
    kx: Array, ky: Array, slip_ratio: float, slope: float
) -> tuple[ComplexArray, ComplexArray]:
    """Return the steady response of a slab of ice to its bed and to basal slipperiness.

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
    ik, il = 1j * kx[:, None], 1j * ky[:, None]
    surface = np.stack([np.zeros_like(m)] * 6 + [np.ones_like(m)], -1)

    w, dw, p, u_top, v_top, du, dv = _rows_at(1.0, kx, ky, m)
    equations = [
        (du + ik * w) / 2 - surface,  # no shear stress along flow at the surface
        (dv + il * w) / 2,  # nor across it
        -p + dw + surface / slope,  # nor normal stress
        w - (slip_ratio + 1) * ik * surface,  # the surface is steady
    ]
    w, _, _, u, v, du, dv = _rows_at(0.0, kx, ky, m)
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
    # The mean velocity has no shear at the surface, so raising the surface adds no velocity.
    along = np.einsum("nj,njf->nf", u_top, solution)
    across = np.einsum("nj,njf->nf", v_top, solution)
    transfer = np.stack([elevation, along, across])
    to_bed, to_slipperiness = (transfer[..., column].reshape(3, *shape) for column in (0, 1))
    return to_bed, to_slipperiness


def _rows_at(
    z: float, kx: Array, ky: Array, m: Array
) -> tuple[Array, Array, Array, ComplexArray, ComplexArray, ComplexArray, ComplexArray]:
    """Return rows (n, 7) that give w, dw/dz, p, u, v, du/dz and dv/dz at height z.

    Their columns are the seven unknowns of :func:`response`, in the order of its notes.
    """
    zero = np.zeros_like(m)
    up, down = np.exp(m * (z - 1)), np.exp(-m * z)
    w = np.stack([up, z * up, down, z * down, zero, zero, zero], -1)
    dw = np.stack([m * up, (1 + m * z) * up, -m * down, (1 - m * z) * down] + [zero] * 3, -1)
    ddw = np.stack(
        [m**2 * up, (2 * m + m**2 * z) * up, m**2 * down, (m**2 * z - 2 * m) * down] + [zero] * 3,
        -1,
    )
    p = np.stack([zero, up, zero, down, zero, zero, zero], -1)
    vorticity = np.stack([zero] * 4 + [up, down, zero], -1)
    growth = np.stack([zero] * 4 + [m, -m, zero], -1)
    ik, il = 1j * (kx / m**2)[:, None], 1j * (ky / m**2)[:, None]
    u, v = ik * dw + il * vorticity, il * dw - ik * vorticity
    du, dv = ik * ddw + il * (growth * vorticity), il * ddw - ik * (growth * vorticity)
    return w, dw, p, u, v, du, dv


def self_affine(
    shape: tuple[int, int],
    spacing: float,
    wavelength: float,
    hurst: float,
    random: np.random.Generator,
    direction: float = 0.0,
    elongation: float = 1.0,
) -> Array:
    """Return a periodic random field of zero mean and unit variance with a von Karman spectrum.

    Parameters
    ----------
    shape
        Rows (northward) and columns (eastward).
    spacing, wavelength
        Cell size and corner wavelength, in metres.
    hurst
        Hurst exponent between 0 and 1: the spectrum falls as wavenumber to the -2 (hurst + 1).
    random
        Source of the random phases and amplitudes.
    direction, elongation
        Direction of the longer axis, in radians from the x axis, and the ratio of the correlation
        length along it to that across it.

    Returns
    -------
    ndarray
        Field of the shape, dimensionless.
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
    name
        Name of the glacier.
    origin
        South-western corner, EPSG:3031 metres.
    seed
        Seed of the bed, the direction of flow, slip, accumulation and noise.
    configuration
        Properties of the glacier; by default those of :class:`Configuration`.

    Returns
    -------
    Glacier
        Bed, surface, velocity and accumulation on their own grids.

    Examples
    --------
    >>> small = Configuration(extent=20_000, grid_spacing=500)
    >>> make_glacier("a", (0, 0), seed=1, configuration=small).fields["bed"].shape
    (40, 40)
    """
    c = configuration or Configuration()
    random = np.random.default_rng(seed)
    spacing = c.grid_spacing
    cells = round(c.extent / spacing)
    # The field is periodic over a longer side, so that opposite edges differ.
    period = 2 * round(1.28 * cells / 2)
    shape = (period, period)
    direction = random.uniform(-np.pi, np.pi)

    relief = c.bed_deviation * self_affine(
        shape, spacing, c.corner_wavelength, c.hurst_exponent, random, direction, c.elongation
    )
    slipperiness = c.slipperiness_deviation * self_affine(
        shape, spacing, c.slipperiness_wavelength, c.hurst_exponent, random
    )
    log_slip = np.log(c.slip_ratios)
    slip = np.interp(_slow_field(shape, c, random), [-1, 1], log_slip[[0, -1]])
    turn = _slow_field(shape, c, random)
    elevation, east, north = _flow_over(relief, slipperiness, slip, turn, direction, c)
    accumulation = 200 + 60 * self_affine(shape, spacing, c.slow_wavelength, 3.0, random)

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
    noisy = surface + c.surface_noise * random.standard_normal(bed.shape)
    fields = {
        "bed": field_on_grid(bed, x, y, "m"),
        "true_surface": field_on_grid(surface, x, y, "m"),
        "surface": field_on_grid(noisy, x, y, "m"),
        "accumulation": _coarsen(field_on_grid(accumulation[cut, cut], x, y, "kg m-2 a-1"), 1_000),
    }
    for component, values in (("vx", east), ("vy", north)):
        field = _coarsen(field_on_grid(values[cut, cut], x, y, "m a-1"), 500)
        fields[component] = field + c.velocity_noise * random.standard_normal(field.shape)
    return Glacier(name, bounds, direction, fields)


def _slow_field(shape: tuple[int, int], c: Configuration, random: np.random.Generator) -> Array:
    """Return a random field between -1 and 1 that varies over the slow wavelength."""
    return np.tanh(self_affine(shape, c.grid_spacing, c.slow_wavelength, 3.0, random))


def _flow_over(
    relief: Array, slipperiness: Array, slip: Array, turn: Array, direction: float, c: Configuration
) -> tuple[Array, Array, Array]:
    """Return the surface elevation (m) and eastward and northward velocity (m/yr) over a bed.

    The response is solved for the slip ratios of the configuration and three directions of flow,
    and blended by ``slip`` (logarithm of the slip ratio) and ``turn`` (from the mean direction,
    in units of its swing).
    """
    turns = np.array([-1.0, 0.0, 1.0])
    slip_weights = _hat_weights(slip, np.log(c.slip_ratios))
    turn_weights = _hat_weights(turn, turns)
    imprint = _imprint(relief, slipperiness, c)
    elevation, east, north = (np.zeros(relief.shape) for _ in range(3))
    for turned, turn_weight in zip(turns, turn_weights, strict=True):
        towards = direction + turned * np.radians(c.direction_swing)
        for ratio, slip_weight in zip(c.slip_ratios, slip_weights, strict=True):
            weight = slip_weight * turn_weight
            rise, along, across = imprint(towards, ratio)
            elevation += weight * rise
            east += weight * (along * np.cos(towards) - across * np.sin(towards))
            north += weight * (along * np.sin(towards) + across * np.cos(towards))
    heading = direction + turn * np.radians(c.direction_swing)
    speed = c.deformation_speed * (1 + np.exp(slip))
    east += speed * np.cos(heading)
    north += speed * np.sin(heading)
    return elevation, east, north


def _imprint(
    relief: Array, slipperiness: Array, c: Configuration
) -> Callable[[float, float], list[Array]]:
    """Return the imprint of the bed as a function of flow direction (radians) and slip ratio.

    The function returns surface elevation (m), and velocity along and across flow (m/yr).
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

    def imprint(towards: float, slip_ratio: float) -> list[Array]:
        along = kx * np.cos(towards) + ky * np.sin(towards)
        across = ky * np.cos(towards) - kx * np.sin(towards)
        responses = zip(units, *response(along, across, slip_ratio, c.surface_slope), strict=True)
        fields = []
        for unit, to_bed, to_slipperiness in responses:
            spectrum = np.zeros(length.shape, complex)
            spectrum[solved] = unit * (to_bed * bed / c.thickness + to_slipperiness * slippery)
            fields.append(fft.irfft2(spectrum, relief.shape))
        return fields

    return imprint


def _hat_weights(values: Array, nodes: Array) -> list[Array]:
    """Weights of linear interpolation between nodes, one array a node; they sum to one."""
    return [np.interp(values, nodes, unit) for unit in np.eye(len(nodes))]


def field_on_grid(values: Array, x: Array, y: Array, units: str) -> xr.DataArray:
    """Return values (y, x) as a raster on the cell centres x and y (m), with their units."""
    return xr.DataArray(values, {"y": y, "x": x}, ("y", "x"), attrs={"units": units})


def _coarsen(field: xr.DataArray, spacing: float) -> xr.DataArray:
    cells = round(spacing / float(field.x[1] - field.x[0]))
    return field.coarsen(y=cells, x=cells).mean(keep_attrs=True)
