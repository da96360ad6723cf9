"""Figures are drawn whole, and show what they were given."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
import xarray as xr

from deepbedmap.figures import Panel, compare


def bed(values: np.ndarray) -> xr.DataArray:
    centres = 250 * (np.arange(len(values)) + 0.5)
    return xr.DataArray(values, {"y": centres, "x": centres}, ("y", "x"), name="z")


def pixels(path) -> np.ndarray:
    """Rows, columns, red, green and blue of an image."""
    with rasterio.open(path) as image:
        return np.moveaxis(image.read()[:3], 0, -1)


pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@pytest.fixture
def ramp() -> np.ndarray:
    return np.linspace(-1_000, 500, 60) * np.ones((60, 1))


def test_maps_are_drawn_side_by_side(tmp_path, ramp):
    path = compare(
        [
            Panel("prior", bed(ramp)),
            Panel("model", bed(ramp.T)),
            Panel("model minus prior", bed(ramp.T - ramp), "difference"),
        ],
        tmp_path / "maps.png",
        source="made up",
    )
    image = pixels(path)
    assert image.shape[0] > 900
    assert image.shape[1] > 900
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 100
    assert list(tmp_path.iterdir()) == [path]


def test_another_bed_gives_another_picture(tmp_path, ramp):
    first = compare([Panel("bed", bed(ramp))], tmp_path / "first.png")
    second = compare([Panel("bed", bed(ramp.T))], tmp_path / "second.png")
    assert first.read_bytes() != second.read_bytes()


def test_rows_from_north_to_south_give_the_same_picture(tmp_path, ramp):
    rising = bed(np.add.outer(np.arange(60.0), np.arange(60.0) ** 2))
    first = compare([Panel("bed", rising)], tmp_path / "first.png")
    second = compare([Panel("bed", rising.isel(y=slice(None, None, -1)))], tmp_path / "second.png")
    np.testing.assert_array_equal(pixels(first), pixels(second))
