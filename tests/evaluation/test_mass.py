"""Conservation of mass of made-up ice whose fluxes are known, and of Byrd Glacier."""

from __future__ import annotations

from dataclasses import asdict

import dask.array
import numpy as np
import pyproj
import pytest
import xarray as xr
from scipy import ndimage

from deepbedmap import rasters
from deepbedmap.errors import InvalidDataError
from deepbedmap.evaluation import bed_residual, mass_residual, mass_statistics
from deepbedmap.evaluation.flux import ICE_DENSITY

CELL = 500.0
POLE = pyproj.Proj("EPSG:3031").get_factors(0, -89.999).meridional_scale  # 0.973


def cells(values, units: str | None = None, west: float = 0.0, south: float = 0.0, size: int = 12):
    """A raster near the pole whose values are a function of map coordinates, from the north."""
    x = west + CELL * (np.arange(size) + 0.5)
    y = south + CELL * (np.arange(size) + 0.5)[::-1]
    if callable(values):
        values = values(x, y[:, None])
    values = np.broadcast_to(np.asarray(values, float), (*np.shape(values)[:-2], size, size))
    dims = ("band", "y", "x")[-values.ndim :]
    attributes = {} if units is None else {"units": units}
    raster = xr.DataArray(values, {"y": y, "x": x}, dims, attrs=attributes)
    return raster.rio.write_crs("EPSG:3031")


def moving(u=0.0, v=0.0, **place):
    """A velocity, each component a number or a function of map coordinates."""

    def components(x, y):
        both = (each(x, y) if callable(each) else each for each in (u, v))
        return np.stack(
            [np.broadcast_to(each, np.broadcast_shapes(x.shape, y.shape)) for each in both]
        )

    return cells(components, **place)


NO_SNOW = {"values": 0.0, "units": "m ice a-1"}


def inner(residual):
    """Values but those of the outermost cells, which have none."""
    assert np.isnan(residual[[0, -1]]).all()
    assert np.isnan(residual[:, [0, -1]]).all()
    return residual.to_numpy()[1:-1, 1:-1]


def test_ice_of_one_flux_gains_and_loses_nothing():
    found = mass_residual(cells(1500.0), moving(300.0, -200.0), cells(**NO_SNOW))
    assert inner(found) == pytest.approx(0, abs=2e-4)
    assert found.dtype == np.float32
    assert found.attrs["units"] == "m a-1"
    assert found.attrs["gamma"] == 1
    assert rasters.crs_of(found).to_epsg() == 3031


@pytest.mark.parametrize("turn", [1, -1])
@pytest.mark.parametrize("gamma", [1.0, 0.8])
def test_ice_that_stretches_thins_by_its_strain_rate(gamma, turn):
    velocity = moving(lambda x, _: 1e-3 * x, lambda _, y: 2e-3 * y)
    each = [cells(1000.0), velocity, cells(**NO_SNOW)]
    found = mass_residual(*(raster[..., ::turn, :] for raster in each), gamma=gamma)
    assert inner(found) == pytest.approx(gamma * 3 * POLE, rel=1e-4)
    assert found["y"][0] > found["y"][-1]


def test_thickness_and_velocity_that_vary_together_have_the_divergence_of_their_product():
    thickness = cells(lambda x, y: 1000 + 0.05 * x - 0.02 * y)
    velocity = moving(lambda x, _: 100 - 0.02 * x, lambda _, y: 50 + 0.01 * y)

    def product(x, y):
        H, u, v = 1000 + 0.05 * x - 0.02 * y, 100 - 0.02 * x, 50 + 0.01 * y
        return POLE * (0.05 * u - 0.02 * H - 0.02 * v + 0.01 * H)

    found = mass_residual(thickness, velocity, cells(**NO_SNOW))
    np.testing.assert_allclose(inner(found), cells(product)[1:-1, 1:-1], atol=2e-3)


def test_snow_melt_and_thickening_balance_the_divergence_with_their_signs():
    velocity = moving(lambda x, _: 1e-3 * x)
    found = mass_residual(
        cells(1000.0),
        velocity,
        cells(POLE + 0.7, "m ice a-1"),
        basal_melt=cells(0.4, "m ice a-1"),
        thickening=cells(0.3, "m a-1"),
    )
    assert inner(found) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(
    ("units", "amount"),
    [
        ("kg m-2 a-1", ICE_DENSITY),
        ("kg m**-2 yr**-1", ICE_DENSITY),
        ("kg/m^2/year", ICE_DENSITY),
        ("mm w.e. per year", ICE_DENSITY),
        ("m w.e. a-1", ICE_DENSITY / 1000),
        ("meters ice / year", 1),
        ("m i.e. a-1", 1),
        ("kg m-2 s-1", ICE_DENSITY / (365.25 * 86_400)),
    ],
)
def test_a_balance_is_in_metres_of_ice_whatever_its_units(units, amount):
    found = mass_residual(cells(1000.0), moving(), cells(amount, units))
    assert inner(found) == pytest.approx(-1, rel=1e-6)


@pytest.mark.parametrize("units", [None, "m a-1", "m", "furlong a-1", "kg m-2"])
def test_a_balance_that_does_not_say_of_what_it_is_is_refused(units):
    with pytest.raises(InvalidDataError, match=r"field units: expected kg m-2 a-1.*state them"):
        mass_residual(cells(1000.0), moving(), cells(0.1, units))


def test_units_of_thickness_and_velocity_are_read_too():
    velocity = moving(lambda x, _: 1e-3 * x / 365.25).assign_attrs(units="m/day")
    found = mass_residual(cells(1000.0, "meters"), velocity, cells(**NO_SNOW))
    assert inner(found) == pytest.approx(POLE, rel=1e-4)
    with pytest.raises(InvalidDataError, match="units: expected m, found km"):
        mass_residual(cells(1.0, "km"), velocity, cells(**NO_SNOW))


def test_the_projections_scale_is_taken_into_account():
    # Ice that spreads from the pole, as much through every circle of latitude.
    projection = pyproj.Proj("EPSG:3031")
    place = {"west": 1_800_000.0, "south": 1_500_000.0}

    def outward(x, y):
        longitude, latitude = projection(*np.broadcast_arrays(x, y), inverse=True)
        scale = projection.get_factors(longitude, latitude).meridional_scale
        return 1e9 * scale / np.hypot(x, y) ** 2

    velocity = moving(lambda x, y: outward(x, y) * x, lambda x, y: outward(x, y) * y, **place)
    found = mass_residual(cells(1000.0, **place), velocity, cells(**NO_SNOW, **place))
    assert inner(found) == pytest.approx(0, abs=1e-4)
    # A plain divergence on the map is off by far more.
    plain = 1000 * sum(
        np.gradient(velocity[band], sign * CELL, axis=axis)[5, 5]
        for band, sign, axis in ((0, 1, 1), (1, -1, 0))
    )
    assert abs(plain) > 5e-3


def test_what_leaves_one_cell_enters_the_next():
    random = np.random.default_rng(0)
    size = 12
    thickness = cells(random.uniform(500, 1500, (size, size)))
    # Nothing moves at the rim, so that no ice comes in or goes out.
    velocity = random.normal(0, 100, (2, size, size))
    velocity[:, [0, 1, -2, -1]] = velocity[:, :, [0, 1, -2, -1]] = 0
    found = mass_residual(thickness, cells(velocity), cells(**NO_SNOW))
    assert abs(found).max() > 10
    assert float(found.sum()) == pytest.approx(0, abs=1e-3 * float(abs(found).sum()))


def test_a_gap_makes_a_gap_of_itself_and_of_its_neighbours():
    thickness = cells(1000.0)
    thickness = thickness.copy(data=thickness.to_numpy().copy())
    thickness[5, 6] = np.nan
    found = inner(mass_residual(thickness, moving(), cells(**NO_SNOW)))
    assert {tuple(int(i) for i in place) for place in np.argwhere(np.isnan(found))} == {
        (4, 5),
        (3, 5),
        (5, 5),
        (4, 4),
        (4, 6),
    }


def test_chunks_are_computed_one_by_one_and_to_the_same_values():
    random, asked = np.random.default_rng(0), []

    def block(values):
        asked.append(values.shape)
        return values

    thickness = cells(random.uniform(500, 1500, (12, 12)))
    velocity, snow = cells(random.normal(size=(2, 12, 12))), cells(0.1, "m ice a-1")
    whole = mass_residual(thickness, velocity, snow)
    chunked = thickness.chunk({"y": 5, "x": 4})
    chunked.data = dask.array.map_blocks(block, chunked.data, meta=np.empty((0, 0)))
    found = mass_residual(chunked, velocity, snow)
    assert not asked
    assert found.chunks == chunked.chunks
    np.testing.assert_array_equal(found, whole)
    assert asdict(mass_statistics(found)) == pytest.approx(asdict(mass_statistics(whole)), rel=1e-9)
    assert max(rows for rows, _ in asked) <= 5


def test_rasters_of_other_extent_count_where_they_share_their_cells():
    shifted = cells(**NO_SNOW, west=-2 * CELL)
    found = mass_residual(cells(1000.0), moving(), shifted)
    assert np.isfinite(found[1:-1, 1:-3]).all()
    assert np.isnan(found[:, -2:]).all()


@pytest.mark.parametrize("far", [{"west": 1e6}, {"west": CELL / 2}])
def test_rasters_without_a_cell_in_common_are_refused(far):
    with pytest.raises(InvalidDataError, match=r"none of them: 500 m wide.*resample"):
        mass_residual(cells(1000.0), moving(), cells(**NO_SNOW, **far))


def test_other_projections_are_refused():
    elsewhere = [raster.rio.write_crs(3413) for raster in (cells(1.0), moving(), cells(**NO_SNOW))]
    with pytest.raises(InvalidDataError, match="crs: expected EPSG:3031, found EPSG:3413"):
        mass_residual(*elsewhere)
    with pytest.raises(InvalidDataError, match="crs: expected EPSG:3031 as in"):
        mass_residual(cells(1.0), elsewhere[1], cells(**NO_SNOW))


@pytest.mark.parametrize("gamma", [0, 1.2])
def test_an_impossible_ratio_of_velocities_is_a_wrong_call(gamma):
    with pytest.raises(ValueError, match="gamma"):
        mass_residual(cells(1.0), moving(), cells(**NO_SNOW), gamma=gamma)


def test_a_velocity_of_one_band_is_a_wrong_call():
    with pytest.raises(ValueError, match="2 bands"):
        mass_residual(cells(1.0), cells(1.0), cells(**NO_SNOW))


def test_statistics_are_those_of_numpy():
    values = np.random.default_rng(0).standard_t(2, 10_001) * 8
    values[::100] = np.nan
    known = values[np.isfinite(values)]
    found = mass_statistics(xr.DataArray(values[None], dims=("y", "x")))
    assert found.cells == known.size
    assert found.mean == pytest.approx(known.mean(), abs=1e-9)
    assert found.rms == pytest.approx(np.sqrt((known**2).mean()), rel=1e-9)
    assert found.median == pytest.approx(np.median(known), abs=0.01)
    assert found.mad == pytest.approx(np.median(abs(known - np.median(known))), abs=0.02)
    assert found.share_large == pytest.approx((abs(known) > 10).mean())


def test_a_map_without_a_value_has_no_statistics():
    with pytest.raises(InvalidDataError, match="cells where thickness, velocity and balance"):
        mass_statistics(xr.DataArray(np.full((3, 3), np.nan), dims=("y", "x")))


def test_noise_in_the_bed_of_byrd_glacier_makes_mass_appear_and_vanish(shared_data):
    path = shared_data / "byrd" / "byrd_500m.nc"
    velocity = rasters.open_raster(path, ("vx", "vy"))
    snow = rasters.open_raster(path, "smb").assign_attrs(units="m ice a-1")  # presumed: it has none
    thickness = rasters.open_raster(path, "bm_thickness")
    blurred = ndimage.gaussian_filter(thickness.to_numpy(), 4)
    noise = np.random.default_rng(0).normal(0, 100, blurred.shape)
    worse = thickness.copy(data=blurred + noise)
    kept, lost = (
        mass_statistics(mass_residual(each, velocity, snow)) for each in (thickness, worse)
    )
    assert kept.cells == lost.cells > 70_000
    assert kept.rms < lost.rms
    assert kept.mad < lost.mad
    assert kept.share_large < lost.share_large


def test_the_ice_above_a_bed_is_reckoned_on_the_cells_of_the_bed():
    bed = cells(lambda x, y: -200 + 0.01 * x + 0 * y)
    place = {"west": -3_000.0, "south": -3_000.0, "size": 26}
    surface = cells(lambda x, y: 800 + 0.01 * x + 0 * y, **place)
    velocity = moving(lambda x, _: 1e-3 * x, **place)
    balance = cells(POLE, "m ice a-1", **place)
    wide = slice(None, None, 2)
    found = bed_residual(bed, surface, velocity[..., wide, wide], balance[wide, wide])
    assert found.chunks
    assert found.shape == bed.shape
    assert inner(found.compute()) == pytest.approx(0, abs=1e-3)
    assert found.attrs["gamma"] == 1


def test_there_is_no_residual_where_there_is_no_ice():
    surface = cells(lambda x, y: np.where(x < 3_000, -100.0, 500.0) + 0 * y)
    found = bed_residual(cells(0.0), surface, moving(), cells(**NO_SNOW)).compute()
    assert np.isnan(found[:, :7]).all()
    assert np.isfinite(inner(found)[:, 6:]).all()


def test_a_surface_above_another_datum_than_the_bed_is_refused():
    bed, surface = cells(0.0), cells(500.0)
    bed.attrs["vertical_datum"], surface.attrs["vertical_datum"] = "ellipsoid", "EIGEN-6C4"
    with pytest.raises(InvalidDataError, match="vertical_datum: expected ellipsoid"):
        bed_residual(bed, surface, moving(), cells(**NO_SNOW))
