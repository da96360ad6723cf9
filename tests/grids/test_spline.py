from __future__ import annotations

import logging

import numpy as np
import pygmt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt

from deepbedmap.grids import spline
from deepbedmap.grids.spline import relaxation, solving


def rough_ground(x, y, seed=0):
    random = np.random.default_rng(seed)
    z = np.zeros(np.shape(x))
    for _ in range(40):
        length = np.exp(random.uniform(np.log(6), np.log(150)))
        direction, phase = random.uniform(0, 2 * np.pi, 2)
        along = x * np.cos(direction) + y * np.sin(direction)
        z += length * np.cos(2 * np.pi * along / length + phase)
    return z


def survey(lines=12, length=120.0, seed=0, origin=0.0):
    """Flight lines about one another's directions in a square; x, y in cells, z in metres."""
    random = np.random.default_rng(seed)
    t = np.arange(-1.5 * length, 1.5 * length, 0.2)
    x, y = [], []
    for _ in range(lines):
        heading = random.choice([0.3, 1.9]) + random.normal(0, 0.2)
        x.append(random.uniform(0, length) + t * np.cos(heading) + 3 * np.sin(t / 40))
        y.append(random.uniform(0, length) + t * np.sin(heading))
    x, y = np.concatenate(x), np.concatenate(y)
    inside = (x > 0) & (x < length) & (y > 0) & (y < length)
    x, y = x[inside], y[inside]
    z = rough_ground(x, y) + random.normal(0, 5, len(x))
    return x + origin, y + origin, z


def blocks(points):
    return spline.block_medians(*points)


def near(x, y, shape, distance=4):
    empty = np.ones(shape, bool)
    empty[np.floor(y + 0.5).astype(int), np.floor(x + 0.5).astype(int)] = False
    return distance_transform_edt(empty) <= distance


def test_block_medians_are_those_of_gmt():
    x, y = np.random.default_rng(0).uniform(0, 20, (2, 2000))
    z = rough_ground(x, y)
    ours = np.transpose(spline.block_medians(x, y, z))
    gmt = pygmt.blockmedian(
        x=x, y=y, z=z, spacing=1, region=[0, 20, 0, 20], verbose="q", output_type="numpy"
    )
    order = np.lexsort(np.floor(gmt[:, :2].T + 0.5))
    np.testing.assert_allclose(ours, gmt[order], rtol=0, atol=1e-9)


def test_the_order_of_picks_does_not_matter():
    points = np.array(survey(lines=4))
    shuffled = np.random.default_rng(1).permutation(points, axis=1)
    np.testing.assert_array_equal(blocks(points), blocks(shuffled))
    ours, theirs = (spline.solve(*blocks(p), sweeps=16) for p in (points, shuffled))
    np.testing.assert_array_equal(ours.values, theirs.values)


def test_it_agrees_with_gmt_s_surface_when_that_has_converged():
    # The lines cross all four edges of the region, which are free edges in GMT.
    x, y, z = blocks(survey())
    shape = (121, 121)
    gmt = pygmt.surface(
        data=np.stack([x, y, z], axis=1),
        spacing=1,
        region=[0, 120, 0, 120],
        tension=0.35,
        convergence=0.001,
        N=5000,
        verbose="q",
    ).to_numpy()
    difference = (spline.solve(x, y, z, shape).grid(shape) - gmt)[near(x, y, shape)]
    assert len(difference) > 5000
    assert np.sqrt(np.mean(difference**2)) <= 0.5
    assert np.quantile(abs(difference), 0.999) <= 5


@pytest.mark.parametrize("tension", [0, 0.35, 1])
def test_a_harmonic_surface_is_recovered_across_a_hole(tension):
    # Its Laplacian is zero, so it fulfils the equation whatever the tension.
    random = np.random.default_rng(0)
    row, column = (v.ravel() for v in np.mgrid[:60, :60])
    outside = np.hypot(row - 30, column - 30) > 9
    # Off the nodes: a datum within 0.05 cells of one is taken to lie on it.
    shifts = random.uniform(0.1, 0.4, (2, outside.sum())) * random.choice([-1, 1], (2, 1))
    x, y = (v[outside] + shift for v, shift in zip((column, row), shifts, strict=True))

    def saddle(x, y):
        return (x - 30.0) ** 2 - (y - 30.0) ** 2 + 0.5 * (x - 30) * (y - 30)

    grid = spline.solve(x, y, saddle(x, y), tension=tension).grid((60, 60))
    row, column = np.mgrid[10:50, 10:50]
    np.testing.assert_allclose(grid[10:50, 10:50], saddle(column, row), rtol=0, atol=0.5)


def nodes(band):
    """Row, column and height of each node of a band."""
    runs = band.runs
    row = np.repeat(np.arange(len(runs.first) - 1) + runs.top, np.diff(runs.first))
    column = [np.arange(*run) for run in zip(runs.start, runs.stop, strict=True)]
    return np.repeat(row, runs.stop - runs.start), np.concatenate(column), band.values


@pytest.mark.parametrize("tension", [0, 0.35, 1])
@pytest.mark.parametrize(
    ("origin", "shape"),
    [(0.0, None), (-5000.5, None), (70_000.25, None), (0.0, (81, 81)), (0.0, (90, 500))],
)
def test_a_plane_stays_a_plane(origin, shape, tension):
    x, y = np.random.default_rng(0).uniform(origin, origin + 80, (2, 50))
    z = 1000 - 3 * x + 0.5 * y
    row, column, z = nodes(spline.solve(x, y, z, shape, tension=tension))
    np.testing.assert_allclose(z, 1000 - 3.0 * column + 0.5 * row, rtol=1e-6, atol=0.01)


def test_a_constant_stays_constant():
    x, y, z = survey(lines=3, length=50)
    band = spline.solve(*blocks((x, y, 0 * z - 42.5)))
    np.testing.assert_array_equal(band.values, np.float32(-42.5))


@settings(max_examples=10, deadline=None)
@given(factor=st.floats(-1e3, 1e3).filter(lambda f: abs(f) > 1e-3), height=st.floats(-1e4, 1e4))
def test_heights_scale_and_shift_with_the_data(factor, height):
    x, y, z = blocks(survey(lines=3, length=40))
    before, after = spline.solve(x, y, z), spline.solve(x, y, factor * z + height)
    np.testing.assert_allclose(
        after.values, factor * before.values + height, rtol=1e-5, atol=1e-3 * abs(factor) + 1e-3
    )


def test_turned_and_moved_data_give_the_same_surface():
    x, y, z = blocks(survey())
    distance = near(x, y, (121, 121))
    plain = spline.solve(x, y, z).grid((121, 121))
    turned = spline.solve(y, x, z).grid((121, 121)).T
    moved = spline.solve(x + 37, y + 21, z).grid((142, 158))[21:, 37:]
    for other in (turned, moved):
        assert np.sqrt(np.mean((other - plain)[distance] ** 2)) < 0.3


def test_the_number_of_threads_changes_no_bit():
    points = blocks(survey(lines=20, length=400))
    one, two, five = (spline.solve(*points, (401, 401), sweeps=32, threads=n) for n in (1, 2, 5))
    assert len(one.values) > 2 * relaxation._CHUNK
    np.testing.assert_array_equal(one.values, two.values)
    np.testing.assert_array_equal(one.values, five.values)


def test_a_region_far_larger_than_the_data_changes_neither_memory_nor_heights():
    x, y, z = blocks(survey(lines=3, length=60, origin=200.0))
    small, large = (spline.solve(x, y, z, (n, n)) for n in (500, 4_000_000))
    np.testing.assert_array_equal(small.values, large.values)


@pytest.mark.parametrize("shape", [(1, 40), (2, 40), (40, 3), (4, 4)])
def test_a_region_of_few_nodes_is_no_trouble(shape):
    random = np.random.default_rng(0)
    x, y = random.uniform(0, np.subtract(shape, 1)[::-1], (30, 2)).T
    z = random.normal(0, 100, 30)
    grid = spline.solve(*blocks((x, y, z)), shape).grid(shape)
    assert np.isfinite(grid).all()
    assert abs(grid).max() < 1000


def test_memory_follows_the_data_and_not_the_box_around_them():
    x, y, z = blocks(survey(lines=3, length=60))
    nodes = [
        len(
            spline.solve(
                *(np.concatenate([v, v + away]) for v in (x, y)), np.concatenate([z, z]), sweeps=8
            ).values
        )
        for away in (200, 20_000)
    ]
    assert nodes[0] == nodes[1]
    assert nodes[0] < 2 * 100 * 100


def test_only_nodes_within_reach_have_heights():
    x, y, z = np.array([10.2, 40]), np.array([10.0, 10]), np.array([1.0, 2])
    grid = spline.solve(x, y, z, reach=5).grid((21, 51))
    row, column = np.mgrid[:21, :51]
    away = np.minimum(abs(column - 10), abs(column - 40))
    np.testing.assert_array_equal(np.isfinite(grid), (away <= 7) & (abs(row - 10) <= 7))


def test_centres_are_interpolated_within_a_radius_of_the_cells_given():
    band = spline.solve(*blocks(survey(lines=3, length=40, origin=20.0)))
    row, column = np.array([30, 35, 30]), np.array([40, 42, 40])
    centres = band.centres((70, 80), row, column, 4)
    empty = np.ones((70, 80), bool)
    empty[row, column] = False
    np.testing.assert_array_equal(np.isfinite(centres), distance_transform_edt(empty) <= 4)
    nodes = band.grid((71, 81)).astype(float)
    keys = np.array([-1, 9, 9, -1]) / 16
    np.testing.assert_allclose(centres[31, 41], keys @ nodes[30:34, 40:44] @ keys, rtol=1e-6)
    parts = [band.centres((rows, 80), row, column, 4, first) for first, rows in ((0, 32), (32, 38))]
    np.testing.assert_array_equal(np.concatenate(parts), centres)
    assert np.isnan(band.centres((10, 80), row, column, 4, first_row=60)).all()
    with pytest.raises(
        ValueError, match="the band does not reach 40 cells from the cells with data"
    ):
        band.centres((70, 80), row, column, 40)


@pytest.mark.parametrize("heading", [0, 0.2, np.pi / 4, 1.2, np.pi / 2, 2.5])
@pytest.mark.parametrize("jitter", [0, 0.3])
def test_one_straight_line_stays_within_its_own_heights(heading, jitter):
    # It carries no plane: a fitted one would tilt without limit.
    t = np.arange(0, 150, 0.2)
    wander = np.random.default_rng(0).normal(0, jitter, (2, len(t)))
    z = 500 * np.sin(t / 6) + t
    x, y, z = blocks((t * np.cos(heading) + wander[0], t * np.sin(heading) + wander[1], z))
    values = spline.solve(x, y, z).values
    margin = 0.1 * np.ptp(z)
    assert z.min() - margin < values.min() < -300
    assert 500 < values.max() < z.max() + margin


@pytest.mark.parametrize("heading", [0, 0.7, np.pi / 2])
def test_a_slope_along_one_straight_line_goes_on_beside_it(heading):
    t = np.arange(0, 100.0)
    x, y = t * np.cos(heading), t * np.sin(heading)
    band = spline.solve(x, y, 7 + 2 * t)
    np.testing.assert_allclose(band.centres((5, 5), np.array([1]), np.array([1]), 0)[1, 1],
                               7 + 3 * (np.cos(heading) + np.sin(heading)), atol=0.01)  # fmt: skip


def test_one_pick_gives_its_own_height_all_around():
    band = spline.solve(np.array([3.3]), np.array([-7.8]), np.array([1234.5]), reach=5)
    assert len(band.values) == 15 * 15
    np.testing.assert_array_equal(band.values, np.float32(1234.5))


def test_picks_in_one_cell_give_their_median():
    x, y = np.random.default_rng(0).uniform(0.6, 1.4, (2, 9))
    band = spline.solve(*blocks((x, y, np.arange(9.0))))
    np.testing.assert_array_equal(band.values, np.float32(4))


def test_repeated_picks_with_different_beds_count_as_their_median():
    x, y, z = survey(lines=3, length=40)
    once = spline.solve(*blocks((x, y, z)))
    thrice = spline.solve(
        *blocks((np.tile(x, 3), np.tile(y, 3), np.concatenate([z - 50, z, z + 90])))
    )
    assert len(once.values) == len(thrice.values)
    same = [blocks((np.tile(x, 3), np.tile(y, 3), np.tile(z, 3))), blocks((x, y, z))]
    np.testing.assert_array_equal(*same)
    lone = [(np.repeat(v, 3)) for v in (x[:1], y[:1])]
    np.testing.assert_array_equal(spline.solve(*blocks((*lone, np.array([5.0, 90, 7])))).values, 7)


def test_two_picks_close_together_tilt_no_plane():
    x, y, z = np.array([0.49, 0.51]), np.zeros(2), np.array([0.0, 100])
    values = spline.solve(x, y, z).values
    assert values.min() > -200
    assert values.max() < 300


def test_a_spike_of_10_km_does_not_spread():
    x, y, z = blocks(survey())
    spike = len(z) // 2
    spoiled = z.copy()
    spoiled[spike] += 10_000
    before, after = (spline.solve(x, y, v).grid((121, 121)) for v in (z, spoiled))
    assert np.nanmax(abs(after)) < 25_000
    row, column = np.mgrid[:121, :121]
    far = np.hypot(row - y[spike], column - x[spike]) > 30
    assert np.nanmax(abs(after - before)[far & near(x, y, (121, 121))]) < 100


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    number=st.integers(1, 300),
    extent=st.floats(0.1, 200),
    flat=st.floats(0, 1),
    tension=st.sampled_from([0, 0.01, 0.35, 1]),
    region=st.booleans(),
)
def test_no_data_make_it_diverge(seed, number, extent, flat, tension, region):
    random = np.random.default_rng(seed)
    x, y = random.uniform(0, extent, (2, number))
    z = random.standard_cauchy(number)
    x, y, z = blocks((x, y * flat, z))
    shape = (int(extent) + 2, int(extent) + 2)
    band = spline.solve(x, y, z, shape if region else None, tension, reach=6, sweeps=24)
    grid = band.grid(shape)
    constant, *slopes = solving._trend(x, y, z)
    # Three times the range of what remains without the plane, which may double it, and the plane.
    bound = 5 * np.ptp(z) + 2 * np.abs(slopes).sum() * (extent + 20)
    assert np.isfinite(band.values).all()
    assert np.nanmax(abs(grid - np.median(z))) <= bound + 1e-3 * (1 + abs(constant))


@pytest.mark.parametrize("careful", [1.4, 2.6])
def test_it_says_so_and_relaxes_more_slowly_when_it_diverges(careful, monkeypatch, caplog):
    x, y, z = blocks(survey(lines=6, length=60))
    usual = spline.solve(x, y, z).grid((61, 61))
    monkeypatch.setattr(relaxation, "_OVERRELAXATION", 2.6)
    monkeypatch.setattr(relaxation, "_CAREFUL", careful)
    with caplog.at_level(logging.WARNING, "deepbedmap.grids.spline"):
        slower = spline.solve(x, y, z).grid((61, 61))
    assert "left its bounds on the grid of 1 cells" in caplog.text
    difference = (slower - usual)[near(x, y, (61, 61))]
    assert np.sqrt(np.mean(difference**2)) < (3 if careful < 2 else 60)


def test_good_data_give_no_warning(caplog):
    with caplog.at_level(logging.DEBUG, "deepbedmap.grids.spline"):
        spline.solve(*blocks(survey()))
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (([], [], []), "no data"),
        (([0, np.nan], [0, 1], [0, 1]), "x has values that are not finite"),
        (([0, 1], [0, np.inf], [0, 1]), "y has values that are not finite"),
        (([0, 1], [0, 1], [-np.inf, 1]), "z has values that are not finite"),
        (([0, 1], [0, 1], [1]), r"x, y and z must have equal lengths, not \(2,\), \(2,\), \(1,\)"),
        (([0, 1e12], [0, 1], [1, 2]), "x and y must be within 8388608 cells of the origin"),
    ],
)
def test_unusable_data_are_refused(points, message):
    for function in (spline.block_medians, spline.solve):
        with pytest.raises(ValueError, match=message):
            function(*map(np.array, points))


def test_data_outside_the_region_are_refused():
    for x, y in ((-1, 0), (11, 0), (0, -1), (0, 6)):
        with pytest.raises(ValueError, match="outside the region"):
            spline.solve(np.array([x, 5.0]), np.array([y, 3.0]), np.zeros(2), (6, 11))


@pytest.mark.parametrize(
    "wrong", [{"tension": -0.1}, {"tension": 1.5}, {"reach": 4}, {"sweeps": 0}, {"threads": 0}]
)
def test_parameters_out_of_range_are_a_wrong_call(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        spline.solve(np.zeros(1), np.zeros(1), np.zeros(1), **wrong)


def test_parts_that_are_refined_one_by_one_join_to_what_is_solved_as_a_whole():
    x, y, z = blocks(survey(lines=40, length=600.0))
    shape = (601, 601)
    whole = spline.solve(x, y, z, shape=shape, sweeps=80).grid(shape)
    coarse = spline.solve_coarse(x, y, z, shape=shape, sweeps=80)
    joined = np.full(shape, np.nan, np.float32)
    for south, north in ((0, 299), (300, 600)):
        for west, east in ((0, 299), (300, 600)):
            window = (south, west, north, east)
            beside = (x > west - 130) & (x < east + 130) & (y > south - 130) & (y < north + 130)
            part = solving.refine(coarse, x[beside], y[beside], z[beside], window, threads=1)
            kept = np.s_[south : north + 1, west : east + 1]
            joined[kept] = part.grid(shape)[kept]
    kept = near(x, y, shape)
    difference = np.abs(joined - whole)[kept]
    assert difference.max() < 5e-4 * np.ptp(z)
    assert difference.mean() < 1e-5 * np.ptp(z)


def test_a_part_does_not_depend_on_data_far_from_it_once_the_coarse_grids_are_solved():
    x, y, z = blocks(survey(lines=30, length=600.0))
    coarse = spline.solve_coarse(x, y, z, sweeps=40)
    window = (0, 0, 200, 200)
    given = np.maximum(x, y) < 200.5 + spline.MARGIN
    part, all_of_it = (
        solving.refine(coarse, x[kept], y[kept], z[kept], window, threads=threads)
        for kept, threads in ((given, 1), (np.full(len(x), True), 2))
    )
    np.testing.assert_array_equal(part.values, all_of_it.values)


def test_few_data_are_solved_by_the_coarsest_grid_alone():
    x, y, z = np.array([0.0, 5, 0]), np.array([0.0, 0, 5]), np.array([1.0, 6, 11])
    coarse = spline.solve_coarse(x, y, z)
    again = [solving.refine(coarse, x, y, z, (0, 0, 5, 5)) for _ in range(2)]
    np.testing.assert_array_equal(again[0].values, again[1].values)
    np.testing.assert_array_equal(again[0].values, spline.solve(x, y, z).values)


def test_a_part_without_data_near_is_a_wrong_call():
    x, y, z = blocks(survey(lines=4))
    coarse = spline.solve_coarse(x, y, z, sweeps=8)
    with pytest.raises(ValueError, match="no data within 128 cells of the window"):
        solving.refine(coarse, x, y, z, (1000, 1000, 1200, 1200))
