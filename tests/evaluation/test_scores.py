"""Scores of errors: held to plain numpy, to properties that they have, and to exact resamples."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from deepbedmap.evaluation import CLASSES, score, score_ensemble, scoring
from deepbedmap.evaluation.scoring import QUANTILES

HEIGHTS = st.floats(-3_000, 3_000).map(lambda value: round(value, 2))


@pytest.fixture
def picks():
    """Beds, picks and lines of 7 lines of different lengths, interleaved."""
    random = np.random.default_rng(1)
    lines = random.permutation(np.repeat(np.arange(7), [3, 50, 20, 8, 1, 30, 40]))
    z = random.normal(-500, 200, lines.size)
    return z + random.normal(12, 60, lines.size) + 20 * (lines - 3), z, lines


def test_scores_are_those_of_plain_numpy(picks):
    grid, z, lines = picks
    error = grid - z
    scores = score(grid, z, lines, outside=4)
    expected = {
        "rmse": np.sqrt(np.mean(error**2)),
        "mae": np.mean(np.abs(error)),
        "bias": np.mean(error),
        "bias_removed_rmse": np.std(error),
        "r2": 1 - np.sum(error**2) / np.sum((z - z.mean()) ** 2),
    }
    for name, value in expected.items():
        assert getattr(scores, name) == pytest.approx(value, rel=1e-9), name
    for q in QUANTILES:
        assert scores.quantiles[str(q)] == pytest.approx(np.quantile(error, q), rel=1e-9)
    assert (scores.picks, scores.outside, scores.lines, scores.remark) == (152, 4, 7, None)


def test_intervals_are_those_of_lines_drawn_one_by_one(picks):
    grid, z, lines = picks
    error = grid - z
    chosen = np.random.default_rng(5).integers(0, 7, (300, 7))
    drawn: dict[str, list[float]] = {name: [] for name in ("rmse", "mae", "bias", "r2")}
    drawn |= {name: [] for name in ("bias_removed_rmse", "quantile_0.05", "quantile_0.5")}
    for replicate in chosen:
        rows = np.concatenate([np.flatnonzero(lines == line) for line in replicate])
        e = error[rows]
        drawn["rmse"].append(np.sqrt(np.mean(e**2)))
        drawn["mae"].append(np.mean(np.abs(e)))
        drawn["bias"].append(np.mean(e))
        drawn["bias_removed_rmse"].append(np.std(e))
        drawn["r2"].append(1 - np.sum(e**2) / np.sum((z[rows] - z[rows].mean()) ** 2))
        for q in (0.05, 0.5):
            drawn[f"quantile_{q}"].append(np.quantile(e, q, method="inverted_cdf"))
    scores = score(grid, z, lines, replicates=300, seed=5)
    for name, values in drawn.items():
        limits = [scores.intervals[name].low, scores.intervals[name].high]
        np.testing.assert_allclose(limits, np.quantile(values, [0.025, 0.975]), rtol=1e-9)


def test_an_interval_covers_the_truth_about_as_often_as_it_says():
    random = np.random.default_rng(0)
    inside = 0
    for _ in range(100):
        lines = np.repeat(np.arange(40), 5)
        error = random.normal(0, 50, 40)[lines] + random.normal(0, 5, 200)
        limits = score(error, 0 * error, lines, replicates=100).intervals["bias"]
        inside += limits.low <= 0 <= limits.high
    assert 0.85 < inside / 100 <= 1


def test_the_roughness_ratio_is_of_means_over_all_stretches_with_an_interval(picks):
    grid, z, lines = picks
    stretches = ([0, 1, 1, 6], [10.0, 20, 30, 5], [20.0, 20, 50, 10])
    scores = score(grid, z, lines, stretches)
    assert scores.roughness_ratio == pytest.approx(65 / 100)
    assert 0.5 <= scores.intervals["roughness_ratio"].low <= 0.65
    assert np.isnan(score(grid, z, lines).roughness_ratio)
    assert "roughness_ratio" not in score(grid, z, lines).intervals


@pytest.mark.parametrize(
    ("lines", "remark"), [([4] * 152, "of one line"), (None, "name no lines")], ids=["one", "none"]
)
def test_fewer_than_two_lines_give_no_interval_and_a_remark(picks, lines, remark):
    scores = score(*picks[:2], lines)
    assert scores.intervals == {}
    assert remark in str(scores.remark)


def test_another_seed_draws_other_lines_and_the_same_seed_the_same(picks):
    one, same, other = (score(*picks, seed=seed).intervals for seed in (0, 0, 1))
    assert one == same != other


def test_scores_do_not_depend_on_how_many_picks_are_taken_at_once(picks, monkeypatch):
    distance = np.linspace(0, 9_000, picks[0].size)
    whole = asdict(score(*picks, strata={"distance": distance}))
    monkeypatch.setattr(scoring, "_AT_ONCE", 10)
    parts = asdict(score(*picks, strata={"distance": distance}))
    for one in (parts, whole):
        one["classes"] = [stratum["picks"] for stratum in one.pop("strata")["distance"]]
        one |= {f"q{q}": value for q, value in one.pop("quantiles").items()}
        one |= {f"i{name}": list(value.values()) for name, value in one.pop("intervals").items()}
    for name, value in whole.items():
        same = parts[name] is value is None or parts[name] == pytest.approx(value, nan_ok=True)
        assert same, name


@pytest.mark.parametrize("names", [str, lambda number: number - 9, lambda number: number * 1_000])
def test_lines_may_have_any_names(picks, names):
    grid, z, lines = picks
    named = np.array([names(number) for number in lines.tolist()])
    assert score(grid, z, named).intervals == score(grid, z, lines).intervals


def test_level_picks_have_no_r2():
    assert np.isnan(score([1.0, 2.0, 4.0], [-0.1, -0.1, -0.1]).r2)


@settings(max_examples=20, deadline=None)
@given(
    arrays.arrays(np.float64, (2, 12), elements=HEIGHTS),
    st.floats(-1e4, 1e4),
    st.integers(1, 12),
)
def test_a_shift_of_the_bed_shifts_the_bias_and_nothing_else(heights, shift, lines):
    grid, z = heights
    of = np.arange(12) % lines
    before, after = (score(bed, z, of, replicates=20) for bed in (grid, grid + shift))
    assert after.bias == pytest.approx(before.bias + shift, abs=1e-7)
    assert after.bias_removed_rmse == pytest.approx(before.bias_removed_rmse, abs=1e-6)
    for q in before.quantiles:
        assert after.quantiles[q] == pytest.approx(before.quantiles[q] + shift, abs=1e-7)


@settings(max_examples=20, deadline=None)
@given(arrays.arrays(np.float64, (2, 12), elements=HEIGHTS), st.permutations(range(12)))
def test_the_order_of_the_picks_does_not_matter(heights, order):
    grid, z = heights
    lines = np.arange(12) // 4
    before = asdict(score(grid, z, lines, replicates=20))
    after = asdict(score(grid[order], z[order], lines[order], replicates=20))
    for name in ("rmse", "mae", "bias", "bias_removed_rmse"):
        assert after[name] == pytest.approx(before[name], abs=1e-7)
        for end, value in before["intervals"][name].items():
            assert after["intervals"][name][end] == pytest.approx(value, abs=1e-6)


def test_classes_share_out_all_picks_and_each_has_its_own_scores(picks):
    grid, z, lines = picks
    distance = np.linspace(0, 60_000, lines.size)
    distance[:5] = np.nan
    strata = score(grid, z, lines, strata={"distance": distance}).strata["distance"]
    assert len(strata) == len(CLASSES["distance"])  # the last of them: unknown
    assert sum(stratum.picks for stratum in strata) == lines.size
    assert (strata[-1].low, strata[-1].high, strata[-1].picks) == (None, None, 5)
    far = strata[-2]
    assert (far.low, far.high) == (50_000, None)
    chosen = distance >= 50_000
    assert far.scores.rmse == pytest.approx(np.sqrt(np.mean((grid - z)[chosen] ** 2)))
    assert far.scores.lines == len(set(lines[chosen]))


def test_a_class_without_picks_has_no_scores(picks):
    strata = score(*picks, strata={"speed": np.full(152, 20.0)}).strata["speed"]
    assert [stratum.picks for stratum in strata] == [0, 152, 0, 0, 0]
    assert strata[0].scores is None


def test_an_unknown_kind_of_class_is_refused(picks):
    with pytest.raises(ValueError, match="expected some of distance, speed, relief"):
        score(*picks, strata={"depth": picks[1]})


def test_scores_are_plain_json(picks):
    record = asdict(score(*picks, ([0], [1.0], [2.0])))
    assert json.loads(json.dumps(record)) == record


def crps_by_hand(members, z, fair):
    m = len(members)
    pairs = np.abs(members[:, None] - members[None]).sum((0, 1)) / (2 * m * (m - fair))
    return np.mean(np.abs(members - z).mean(0) - pairs)


@pytest.fixture
def ensemble():
    random = np.random.default_rng(2)
    return random.normal(0, 1, (6, 500)) * random.uniform(1, 50, 500), random.normal(0, 30, 500)


def test_the_crps_is_that_of_all_pairs_of_members(ensemble):
    scores = score_ensemble(*ensemble)
    assert scores.crps == pytest.approx(crps_by_hand(*ensemble, fair=0), rel=1e-9)
    assert scores.crps_fair == pytest.approx(crps_by_hand(*ensemble, fair=1), rel=1e-9)


def test_the_crps_is_half_the_squared_energy_distance_of_scipy(ensemble):
    members, z = ensemble
    squared = [
        stats.energy_distance(own, [bed]) ** 2 for own, bed in zip(members.T, z, strict=True)
    ]
    assert score_ensemble(members, z).crps == pytest.approx(np.mean(squared) / 2, rel=1e-9)


def test_the_crps_is_that_of_scoringrules(ensemble):
    scoringrules = pytest.importorskip("scoringrules", reason="scoringrules is not installed")
    members, z = ensemble
    scores = score_ensemble(members, z)
    for found, estimator in ((scores.crps, "nrg"), (scores.crps_fair, "fair")):
        expected = scoringrules.crps_ensemble(z, members.T, estimator=estimator).mean()
        assert found == pytest.approx(float(expected), rel=1e-9)


def test_spread_skill_and_coverage_are_those_of_plain_numpy(ensemble):
    members, z = ensemble
    scores = score_ensemble(members, z)
    skill = np.sqrt(np.mean((members.mean(0) - z) ** 2))
    spread = np.sqrt(np.mean(members.var(0, ddof=1)))
    low, high = np.quantile(members, [0.05, 0.95], axis=0)
    assert scores.skill == pytest.approx(skill, rel=1e-9)
    assert scores.spread == pytest.approx(spread, rel=1e-9)
    assert scores.spread_skill_ratio == pytest.approx(np.sqrt(7 / 6) * spread / skill, rel=1e-9)
    assert scores.coverage_90 == np.mean((low <= z) & (z <= high))
    assert [part["picks"] for part in scores.by_spread] == [100] * 5
    assert sorted(part["spread"] for part in scores.by_spread) == [
        part["spread"] for part in scores.by_spread
    ]


def test_a_reliable_ensemble_has_as_much_spread_as_skill():
    random = np.random.default_rng(3)
    centre = random.normal(0, 100, 20_000)
    members, z = centre + random.normal(0, 25, (9, 20_000)), centre + random.normal(0, 25, 20_000)
    scores = score_ensemble(members, z)
    assert scores.spread_skill_ratio == pytest.approx(1, abs=0.02)
    assert scores.coverage_90 == pytest.approx(0.9 * 8 / 10, abs=0.05)


def test_a_single_member_has_the_mae_as_crps(ensemble):
    members, z = ensemble
    scores = score_ensemble(members[:1], z)
    assert scores.crps == pytest.approx(np.mean(np.abs(members[0] - z)))
    assert scores.crps_fair is None
