"""Tiles of what the network needs to know: their shapes, their values, and what is refused."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import xarray as xr
from support.places import inputs_of, raster, slope

from deepbedmap import rasters
from deepbedmap.errors import InvalidDataError
from deepbedmap.tiles import Inputs, cut_inputs
from deepbedmap.tiles.inputs import INPUTS, PADDING, RESOLUTIONS

BOUNDS = (-500_000, 1_000_000, -470_000, 1_030_000)
WINDOWS = [(-498_000, 1_002_000, -489_000, 1_011_000), (-497_250, 1_002_500, -488_250, 1_011_500)]


def holed(surface: xr.DataArray) -> xr.DataArray:
    """A surface without values in a square kilometre of the first window."""
    hole = (abs(surface.x + 495_000) < 500) & (abs(surface.y - 1_005_000) < 500)
    return surface.where(~hole).assign_attrs(surface.attrs)


def test_tiles_have_the_pixel_ratios_of_the_network():
    cut = cut_inputs(WINDOWS, inputs_of(BOUNDS))
    assert {name: array.shape for name, array in cut.items()} == {
        "x": (2, 1, 11, 11),
        "w1": (2, 1, 110, 110),
        "w2": (2, 2, 22, 22),
        "w3": (2, 1, 11, 11),
    }
    assert {array.dtype for array in cut.values()} == {np.dtype("float32")}


def test_tiles_hold_the_rasters_at_their_own_cells_from_north_to_south():
    cut = cut_inputs(WINDOWS, inputs_of(BOUNDS))
    for number, (xmin, ymin, xmax, ymax) in enumerate(WINDOWS):
        for name, above in (("x", 0), ("w1", 1_000)):
            cell = RESOLUTIONS[name]
            x = np.arange(xmin - PADDING + cell / 2, xmax + PADDING, cell)
            y = np.arange(ymax + PADDING - cell / 2, ymin - PADDING, -cell)[:, None]
            np.testing.assert_allclose(cut[name][number, 0], above + slope(x, y), atol=0.01)
    assert (cut["w2"][:, 0] == 3).all()
    assert (cut["w2"][:, 1] == -4).all()
    assert (cut["w3"] == 200).all()


def test_a_second_surface_fills_the_gaps_of_the_first():
    plain = inputs_of(BOUNDS)
    surface = holed(plain.surface)
    gaps = np.isnan(cut_inputs(WINDOWS, inputs_of(BOUNDS, surface=surface))["w1"])
    # The second window lies between the centres of columns: eleven have a part of the gap.
    assert gaps.sum(axis=(1, 2, 3)).tolist() == [100, 110]
    coarse = raster(lambda x, y: 1_000 + slope(x, y), 200, BOUNDS)
    cut = cut_inputs(WINDOWS, inputs_of(BOUNDS, surface=surface, surface_filler=coarse))
    np.testing.assert_allclose(cut["w1"], cut_inputs(WINDOWS, plain)["w1"], atol=0.01)


@pytest.mark.parametrize("name", ["surface", "velocity", "accumulation", "surface_filler"])
def test_rasters_of_another_crs_are_refused(name):
    other = raster(lambda x, y: np.stack([x + 0 * y] * 2), 500, BOUNDS, crs=3413)
    other = other if name == "velocity" else other.isel(band=0)
    with pytest.raises(InvalidDataError, match="field crs: expected EPSG:3031"):
        cut_inputs(WINDOWS, inputs_of(BOUNDS, **{name: other}))


@pytest.mark.parametrize("name", ["surface", "surface_filler"])
def test_heights_on_two_datums_are_refused(name):
    other = raster(slope, 100, BOUNDS, datum="EIGEN-6C4")
    with pytest.raises(InvalidDataError, match="vertical_datum: expected ellipsoid"):
        cut_inputs(WINDOWS, inputs_of(BOUNDS, **{name: other}))


def test_a_window_needs_a_kilometre_of_each_raster_around_it():
    with pytest.raises(InvalidDataError, match="padding included"):
        cut_inputs([(-500_000, 1_002_000, -491_000, 1_011_000)], inputs_of(BOUNDS))


def test_files_are_opened_as_they_were_written(tmp_path):
    given = inputs_of(BOUNDS)
    for name in ("prior", "surface", "accumulation"):
        rasters.write_geotiff(getattr(given, name), tmp_path / f"{name}.tif")
    components = {name: given.velocity.isel(band=band) for band, name in enumerate(("VX", "VY"))}
    rasters.write_netcdf(xr.Dataset(components), tmp_path / "velocity.nc")
    names = ("prior.tif", "surface.tif", "velocity.nc", "accumulation.tif", "surface.tif")
    opened = Inputs.open(*(tmp_path / name for name in names))
    assert opened.surface_filler is not None
    found, expected = cut_inputs(WINDOWS, opened), cut_inputs(WINDOWS, given)
    for name in INPUTS:
        np.testing.assert_array_equal(found[name], expected[name])


def test_naming_the_inputs_loads_neither_torch_nor_what_reads_rasters():
    code = (
        "import sys, deepbedmap.tiles.inputs;print(*{'torch', 'xarray', 'pandas'} & {*sys.modules})"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == ""
