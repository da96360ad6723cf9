from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pygmt
import pytest

from deepbedmap import grids
from deepbedmap.errors import InvalidDataError


def picks(x, y, z, **attrs):
    frame = pd.DataFrame({"x": x, "y": y, "z": z}, dtype=float)
    frame.attrs = attrs
    return frame


def one_pick_a_cell(function, region, spacing=250.0, seed=0):
    """A pick in every cell, so that block medians change nothing.

    None is near the centre: within 0.05 cells of a node surface takes the pick for the node.
    """
    xmin, ymin, xmax, ymax = region
    x, y = np.meshgrid(np.arange(xmin, xmax, spacing), np.arange(ymin, ymax, spacing))
    shift = np.random.default_rng(seed).uniform(0.1, 0.4, (2, *x.shape)) * spacing
    x, y = (x + shift[0]).ravel(), (y + shift[1]).ravel()
    return picks(x, y, function(x, y))


@pytest.fixture(scope="module")
def bed_79n(shared_data):
    table = pd.read_csv(shared_data / "79N" / "79N.csv")
    return table.rename(columns={"X": "x", "Y": "y", "Bed": "z"})[["x", "y", "z"]]


@pytest.fixture(scope="module")
def reference(shared_reference):
    with np.load(shared_reference / "79N_grid.npz") as file:
        return {name: file[name] for name in ("x", "y", "z")}


REGION_79N = (419_250, -1_091_750, 451_000, -1_028_000)


def root_mean_square(values):
    return float(np.sqrt(np.nanmean(np.square(values))))


def test_regions_are_those_of_gmt_info(bed_79n, shared_reference):
    facts = json.loads((shared_reference / "data.json").read_text())
    with np.load(shared_reference / "cresis_xyz.npz") as file:
        cresis = pd.DataFrame(file["xyz"], columns=["x", "y", "z"])
    for points, name in ((bed_79n.iloc[1:], "79N"), (cresis, "cresis")):
        xmin, xmax, ymin, ymax = map(float, facts[name]["region"].split("/"))
        assert grids.region_of(points) == (xmin, ymin, xmax, ymax)


@pytest.mark.parametrize("axis", ["x", "y"])
@pytest.mark.parametrize("constant", [0, 1000, 1010])
def test_a_straight_line_has_a_region_around_it(axis, constant):
    other = "y" if axis == "x" else "x"
    line = pd.DataFrame({axis: constant, other: [0.0, 900, 2000], "z": 1.0})
    xmin, ymin, xmax, ymax = grids.region_of(line)
    low, high = (xmin, xmax) if axis == "x" else (ymin, ymax)
    assert low < constant < high
    assert grids.grid_points(line.loc[[0, 1, 2, 1]]).count() > 0


def test_a_constant_stays_constant():
    region = (0, 0, 5000, 4000)
    grid = grids.grid_points(one_pick_a_cell(lambda x, _: 0 * x - 42.5, region), region=region)
    np.testing.assert_array_equal(grid, np.full((16, 20), -42.5))


# Neither a prime number of cells (GMT widens the region for its solver), nor fewer than GMT's
# least number of nodes, nor another spacing may shift the grid.
@pytest.mark.parametrize(
    ("columns", "rows", "spacing"),
    [(20, 20, 250.0), (37, 41, 250.0), (3, 2, 250.0), (23, 30, 100.0)],
)
@pytest.mark.parametrize("method", ["band", "gmt"])
def test_a_plane_is_recovered_where_it_is(columns, rows, spacing, method):
    xmin, ymin = -1_500_000.0, 300_000.0
    region = (xmin, ymin, xmin + columns * spacing, ymin + rows * spacing)

    def plane(x, y):
        return 100 + 0.02 * (x - xmin) - 0.05 * (y - ymin)

    points = one_pick_a_cell(plane, region, spacing)
    grid = grids.grid_points(points, spacing=spacing, region=region, method=method)
    assert grid.shape == (rows, columns)
    x, y = np.meshgrid(grid.x, grid.y)
    np.testing.assert_allclose(grid, plane(x, y), rtol=0, atol=0.01)


def test_cells_are_pixels_with_y_rising():
    region = (0, 1000, 2500, 4000)
    grid = grids.grid_points(one_pick_a_cell(lambda x, _: x, region), region=region)
    assert grid.name == "z"
    assert grid.dims == ("y", "x")
    assert grid.dtype == "float32"
    np.testing.assert_array_equal(grid.x, np.arange(125, 2500, 250))
    np.testing.assert_array_equal(grid.y, np.arange(1125, 4000, 250))


@pytest.mark.parametrize("offset", [(0, 0), (90, -110), (-125, -125)])
@pytest.mark.parametrize(("max_gap", "cells"), [(0, 5), (3, 49)])
def test_the_mask_keeps_cells_within_a_distance_of_a_lone_datum(offset, max_gap, cells):
    centre = 2625
    x, y = np.array([[centre, centre]] * 4).T + np.reshape(offset, (2, 1))
    region = (0, 0, 5000, 5000)
    grid = grids.grid_points(picks(x, y, [1, 2, 3, 4]), max_gap=max_gap, region=region)
    far = np.hypot(*np.meshgrid(grid.x - centre, grid.y - centre)) > (max_gap + 1) * 250
    np.testing.assert_array_equal(np.isnan(grid), far)
    assert int(grid.count()) == cells


def test_picks_on_the_edges_of_cells_all_count():
    # Along such edges GMT's own rounding sends blockmedian and surface to different cells, and
    # surface then drops some of the blocks.
    x, y = (v.ravel() for v in np.meshgrid(np.arange(0, 5000, 250), np.arange(0, 5000, 250)))
    z = np.where((x == 2500) & (y == 2500), 100.0, 0.0)
    grid = grids.grid_points(picks(x, y, z), region=(0, 0, 5000, 5000))
    around = grid.sel(x=[2375, 2625], y=[2375, 2625])
    np.testing.assert_allclose(around, 100 * (9 / 16) ** 2, atol=2)
    assert float(grid.sum() - around.sum()) < 0
    masked = grids.grid_points(picks(x, y, z), max_gap=0, region=(0, 0, 5000, 5000))
    assert masked.count() == masked.size


def test_a_pick_on_the_region_s_far_edge_counts():
    corner = picks([1000, 1000, 1000, 0], [1000, 1000, 1000, 0], [5, 5, 5, 5])
    grid = grids.grid_points(corner, max_gap=0, region=(0, 0, 1000, 1000))
    assert float(grid[-1, -1]) == 5
    assert float(grid[0, 0]) == 5


@pytest.mark.parametrize("method", ["band", "gmt"])
@pytest.mark.parametrize("jitter", [0, 1, 200])
@pytest.mark.parametrize(("east", "north"), [(1, 0), (0, 1), (1, 0.37)])
def test_a_straight_flight_line_stays_within_its_own_heights(jitter, east, north, method):
    # GMT fits a plane first, and one straight line carries none: surface by itself gives heights
    # of thousands of kilometres here.
    t = np.linspace(0, 12_000, 600)
    wander = np.random.default_rng(0).normal(scale=jitter, size=(2, t.size))
    z = 500 * np.sin(t / 1500) + 0.01 * t
    points = picks(1e6 + east * t + wander[0], north * t + wander[1], z)
    around = np.add(grids.region_of(points), (-2000, -2000, 2000, 2000))
    grid = grids.grid_points(points, region=tuple(around), method=method)
    assert grid.count() > 400
    assert z.min() - 20 < float(grid.min()) < -400
    assert 400 < float(grid.max()) < z.max() + 20


def test_a_grid_tells_where_it_comes_from():
    source = {"pipeline": "survey.json", "file": "survey.csv", "sha256": "ab" * 32}
    points = one_pick_a_cell(lambda x, _: x, (0, 0, 1000, 1000))
    points.attrs = {"crs": "EPSG:3031", "vertical_datum": "ellipsoid", "sources": [source]}
    grid = grids.grid_points(points, region=(0, 0, 1000, 1000))
    assert grid.rio.crs.to_epsg() == 3031
    assert grid.rio.grid_mapping == "spatial_ref"
    assert "crs" not in grid.attrs
    assert grid.attrs["units"] == "m"
    assert grid.attrs["vertical_datum"] == "ellipsoid"
    assert grid.attrs["standard_name"] == "height_above_reference_ellipsoid"
    assert grid.x.attrs["standard_name"] == "projection_x_coordinate"
    provenance = json.loads(grid.attrs["provenance"])
    assert provenance["sources"] == [source]
    assert provenance["versions"]["gmt"] == pygmt.clib.__gmt_version__
    assert provenance["parameters"] == {
        "spacing": 250,
        "tension": 0.35,
        "max_gap": 3,
        "region": [0, 0, 1000, 1000],
        "points": 16,
    }


def test_a_grid_of_picks_without_crs_says_so():
    grid = grids.grid_points(one_pick_a_cell(lambda x, _: x, (0, 0, 1000, 1000)))
    assert "spatial_ref" not in grid.coords
    assert grid.attrs["crs"] == "unknown"
    assert grid.attrs["vertical_datum"] == "unknown"


def test_gmt_says_nothing(capfd):
    # Of a constant it would say that it lies on a plane; it prints advice on other data, too.
    x, y = (v.ravel() + 100 for v in np.meshgrid(np.arange(0, 3000, 250), np.arange(0, 4250, 250)))
    grids.grid_points(picks(x, y, 7 + 0 * x), region=(0, 0, 3000, 4250))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (picks([0, 1, 2], [0, 1, 2], [0, 1, 2]), "expected at least 4 points, found 3"),
        (picks([0, 9, 0, 9], [0, 0, 9, np.nan], [0] * 4), "row 3, field y: .*found nan"),
        (picks([0, 9, 0, 9], [0, 0, 9, 9], [0, np.inf, 0, 0]), "row 1, field z: .*found inf"),
        (picks([7] * 5, [8] * 5, range(5)), "span an area, found all 5 at x = 7, y = 8"),
    ],
)
def test_unusable_points_are_refused_in_one_line(points, message):
    points.attrs["sources"] = [{"pipeline": "survey.json", "file": "a.csv", "sha256": None}]
    with pytest.raises(InvalidDataError, match=rf"^survey\.json.*{message}") as caught:
        grids.grid_points(points)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("region", [None, (-1e6, -1e6, 1e6, 1e6)])
@pytest.mark.parametrize(
    ("x", "crs", "message"),
    [
        (1.0, None, "no x beyond 360 and no y beyond 90, as in degrees"),
        (1.0, "EPSG:4326", r"degrees \(EPSG:4326\)"),
        (1e4, "EPSG:4326", r"degrees \(EPSG:4326\)"),
    ],
)
@pytest.mark.parametrize("method", ["band", "gmt"])
def test_degrees_are_refused(x, crs, message, region, method):
    points = picks(x * np.array([-75.0, -74, -73, -72]), [-80, -79.5, -81, -82], [1, 2, 3, 4])
    points.attrs["crs"] = crs
    with pytest.raises(InvalidDataError, match=f"x and y in metres, found {message}"):
        grids.grid_points(points, region=region, method=method)


def test_a_small_survey_in_metres_is_no_survey_in_degrees():
    points = picks([0, 300, 0, 300], [0, 0, 91, 91], [5, 5, 5, 5])
    assert float(grids.grid_points(points, spacing=10).mean()) == 5


@pytest.mark.parametrize("spread", [0, 100])
@pytest.mark.parametrize("method", ["band", "gmt"])
def test_picks_in_one_cell_give_the_median_of_their_beds(spread, method):
    x, y = np.random.default_rng(0).uniform(0, spread, (2, 5)) + np.reshape([2510, 2640], (2, 1))
    points = picks(x, y, [10, 20, 40, 80, 500])
    grid = grids.grid_points(points, region=(0, 0, 5000, 5000), method=method)
    assert float(grid.min()) == float(grid.max()) == 40


def test_a_spike_alone_in_its_block_raises_what_is_near():
    region = (0, 0, 25_000, 25_000)
    points = one_pick_a_cell(lambda x, y: 100 * np.sin(x / 3000) + y / 100, region)
    before = grids.grid_points(points, region=region)
    points.loc[5050, "z"] += 10_000
    change = abs(grids.grid_points(points, region=region) - before)
    away = np.hypot(before.x - points["x"][5050], before.y - points["y"][5050]) / 250
    assert 3000 < float(change.max()) < 30_000
    assert float(change.where(away > 10).max()) < 1000
    assert float(change.where(away > 40).max()) < 100


def test_a_spike_among_others_in_its_block_is_left_out():
    region = (0, 0, 5000, 5000)
    points = one_pick_a_cell(lambda x, _: 0 * x, region)
    points = pd.concat([points] * 3, ignore_index=True)
    points.loc[210, "z"] = 10_000
    assert float(abs(grids.grid_points(points, region=region)).max()) == 0


def test_a_region_without_points_is_refused():
    points = one_pick_a_cell(lambda x, _: x, (0, 0, 1000, 1000))
    with pytest.raises(InvalidDataError, match=r"points in the region .*found none"):
        grids.grid_points(points, region=(5000, 5000, 7500, 7500))


def test_no_points_have_no_region():
    with pytest.raises(InvalidDataError, match="at least one point, found none"):
        grids.region_of(picks([], [], []))


def test_both_methods_keep_the_same_cells_and_say_which_they_are(bed_79n):
    band, gmt = (grids.grid_points(bed_79n, method=method) for method in ("band", "gmt"))
    np.testing.assert_array_equal(np.isnan(band), np.isnan(gmt))
    assert root_mean_square((band - gmt).to_numpy()) < 2
    methods = [json.loads(grid.attrs["provenance"])["method"] for grid in (band, gmt)]
    assert "around" in methods[0]
    assert "GMT" in methods[1]


def test_an_unknown_method_is_a_wrong_call():
    points = one_pick_a_cell(lambda x, _: x, (0, 0, 1000, 1000))
    with pytest.raises(ValueError, match="'kriging' must be one of band, gmt"):
        grids.grid_points(points, method="kriging")


def test_a_region_of_broken_cells_is_a_wrong_call():
    points = one_pick_a_cell(lambda x, _: x, (0, 0, 1000, 1000))
    for region in ((0, 0, 1100, 1000), (1000, 0, 0, 1000)):
        with pytest.raises(ValueError, match="whole number of cells"):
            grids.grid_points(points, region=region)


def test_the_original_s_two_steps_give_the_reference(bed_79n, reference):
    # Gridline registration, then moved to the cell centres by cubic interpolation; without the
    # first record, which the original lost. What is left comes from text files in between.
    xmin, ymin, xmax, ymax = REGION_79N
    options = {"spacing": 250, "region": [xmin, xmax, ymin, ymax], "verbose": "q"}
    blocks = pygmt.blockmedian(data=bed_79n.iloc[1:], **options)
    nodes = pygmt.surface(data=blocks, tension=0.35, maxradius="3c", **options)
    grid = pygmt.grdsample(grid=nodes, translate=True, verbose="q")
    np.testing.assert_allclose(grid.x, reference["x"])
    np.testing.assert_allclose(grid.y, reference["y"])
    assert root_mean_square(grid.to_numpy() - reference["z"]) <= 0.5
    assert (np.isnan(grid.to_numpy()) == np.isnan(reference["z"])).mean() >= 0.995


@pytest.mark.parametrize("method", ["band", "gmt"])
def test_a_survey_s_grid_agrees_with_the_reference(bed_79n, reference, method):
    """Within what the two steps of the original differ in.

    The reference lacks the first record; its coordinates passed through single precision, which
    moves some picks to other blocks; and its mask is GMT's, from block medians and not from cells.
    """
    grid = grids.grid_points(bed_79n, region=REGION_79N, method=method)
    np.testing.assert_allclose(grid.x, reference["x"])
    np.testing.assert_allclose(grid.y, reference["y"])
    difference = grid.to_numpy() - reference["z"]
    assert abs(np.nanmedian(difference)) <= 0.1
    assert root_mean_square(difference) <= 2
    assert (np.isnan(grid.to_numpy()) == np.isnan(reference["z"])).mean() >= 0.98


def test_grids_whose_nodes_lie_half_a_cell_apart_scatter_by_15_m_on_rough_ground(
    bed_79n, reference
):
    # The reason why registration is part of a grid's description, and why 15 m is no error.
    xmin, ymin, xmax, ymax = (edge + 125 for edge in REGION_79N)
    options = {"spacing": 250, "region": [xmin, xmax, ymin, ymax], "verbose": "q"}
    blocks = pygmt.blockmedian(data=bed_79n, **options)
    nodes = pygmt.surface(data=blocks, tension=0.35, maxradius="3c", **options)
    scatter = root_mean_square(nodes.to_numpy()[:-1, :-1] - reference["z"])
    assert 10 < scatter < 20
