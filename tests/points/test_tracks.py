"""Picks along their lines: followed in parts, and sampled evenly."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepbedmap.errors import InvalidDataError
from deepbedmap.evaluation import relief_along, spectra, variogram_along
from deepbedmap.points import tracks as module
from deepbedmap.points.roughness import roughness_along
from deepbedmap.points.tracks import even_samples, tracks, tracks_by_parts


@pytest.fixture
def picks():
    """Seven lines of different lengths, interleaved, with gaps in their picks and heights."""
    random = np.random.default_rng(0)
    sizes = (400, 900, 3, 700, 1, 1_200, 300)
    order = random.permutation(np.repeat(np.arange(7), sizes))
    x = np.empty(order.size)
    for number, size in enumerate(sizes):
        step = random.choice([40.0, 100.0, 1_500.0], size, p=[0.5, 0.495, 0.005])
        x[order == number] = np.cumsum(step)
    z, grid = random.normal(0, 50, (2, order.size))
    z[random.random(order.size) < 0.01] = np.nan
    lines = pd.Categorical.from_codes(order, list("gfedcba"))
    return pd.DataFrame({"x": x, "y": 1e4 * order, "z": z, "grid": z / 2 + grid, "line": lines})


@pytest.mark.parametrize("at_once", [1, 500, 2_000, 10**6])
def test_parts_are_whole_lines_that_together_are_all(picks, at_once):
    whole = tracks(picks, ("z",))
    parts = list(tracks_by_parts(picks, ("z",), at_once))
    for name in ("row", "line"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(joined, getattr(whole, name))
    np.testing.assert_allclose(
        np.concatenate([part.distance for part in parts]), whole.distance, atol=1e-6
    )
    lines = [set(part.line) for part in parts]
    assert sum(map(len, lines)) == len(set().union(*lines)) == 7
    assert len(parts) == {1: 7, 500: 4, 2_000: 2, 10**6: 1}[at_once]


def test_what_follows_lines_does_not_depend_on_the_parts(picks, monkeypatch):
    known = picks.dropna()
    whole = {
        "roughness": roughness_along(known)["z"],
        "relief": relief_along(known),
        "variogram": variogram_along(known).semivariance,
        "coherence": spectra(known, window=5_000).coherence,
    }
    monkeypatch.setattr(module, "AT_ONCE", 1)
    np.testing.assert_allclose(roughness_along(known)["z"], whole["roughness"], rtol=1e-9)
    np.testing.assert_allclose(relief_along(known), whole["relief"], rtol=1e-9)
    np.testing.assert_allclose(variogram_along(known).semivariance, whole["variogram"], rtol=1e-9)
    np.testing.assert_allclose(
        spectra(known, window=5_000).coherence, whole["coherence"], rtol=1e-9
    )


def test_picks_that_nothing_is_known_of_are_refused_before_the_first_part(picks):
    with pytest.raises(InvalidDataError, match="expected picks of a line with z"):
        next(tracks_by_parts(picks.assign(z=np.nan), ("z",)))


@settings(max_examples=50, deadline=None)
# Whole metres, since by hand and along the line a gap of just max_gap may be rounded differently.
@given(
    st.lists(st.lists(st.integers(1, 1_500), min_size=1, max_size=30), min_size=1, max_size=4),
    st.sampled_from([50.0, 250.0]),
)
def test_samples_are_those_of_each_run_interpolated_by_itself(steps, spacing):
    tables = []
    for number, step in enumerate(steps):
        x = np.cumsum(step).astype(float)
        tables.append(pd.DataFrame({"x": x, "y": 0.0, "z": np.sin(x), "line": str(number)}))
    picks = pd.concat(tables, ignore_index=True)
    found = list(even_samples(picks, ("z",), spacing, 1_000.0))
    runs = [run for part in found for run in np.split(part.series[0], part.first[1:])]
    expected = [run for table in tables for run in by_hand(table, spacing)]
    assert len(runs) == len(expected)
    for run, own in zip(runs, expected, strict=True):
        np.testing.assert_allclose(run, own, atol=1e-6)


def by_hand(table, spacing):
    """Even samples of the runs of one line, one after the other."""
    x, z = table["x"].to_numpy(), table["z"].to_numpy()
    x = x - x[0]
    for run in np.split(np.arange(x.size), np.flatnonzero(np.diff(x) > 1_000) + 1):
        along = x[run] - x[run[0]]
        cell = np.floor(along / spacing + 0.5)
        means = pd.DataFrame({"x": along, "z": z[run]}).groupby(cell).mean()
        first, last = means["x"].iloc[[0, -1]]
        at = first + spacing * np.arange(int((last - first) / spacing + 1e-6) + 1)
        yield np.interp(at, means["x"], means["z"])
