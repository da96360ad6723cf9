"""Spectra, coherence and variograms of made-up lines whose statistics are known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import signal

from deepbedmap.errors import InvalidDataError
from deepbedmap.evaluation import Variogram, VariogramModel, spectra, variogram_along

SPACING = 250.0


def line(z, grid=None, name: str = "a", y: float = 0.0, step: float = SPACING) -> pd.DataFrame:
    z = np.asarray(z, float)
    grid = z if grid is None else grid
    x = step * np.arange(z.size)
    return pd.DataFrame({"x": x, "y": y, "line": name, "z": z, "grid": grid})


def noise(size: int, seed: int = 0, sigma: float = 10.0):
    return np.random.default_rng(seed).normal(0, sigma, size)


def filtered(values, response, step: float = SPACING):
    """Values whose spectrum is multiplied by a response to wavenumber."""
    wavenumber = np.fft.rfftfreq(values.size, step)
    return np.fft.irfft(np.fft.rfft(values) * response(wavenumber), values.size)


def test_the_power_of_a_sine_stands_at_its_wavelength():
    x = SPACING * np.arange(2_000)
    found = spectra(line(100 * np.sin(2 * np.pi * x / 5_000)))
    assert found.wavelength[found.truth.argmax()] == pytest.approx(5_000)
    step = found.wavenumber[1] - found.wavenumber[0]
    assert found.truth.sum() * step == pytest.approx(100**2 / 2, rel=0.01)


def test_white_noise_is_flat_and_its_integral_the_variance():
    found = spectra(line(noise(60_000)), window=12_500)
    flat = 2 * SPACING * 10**2
    assert found.truth[2:-1] == pytest.approx(flat, rel=0.15)
    assert found.truth[2:-1].mean() == pytest.approx(flat, rel=0.02)
    step = found.wavenumber[1] - found.wavenumber[0]
    assert found.truth.sum() * step == pytest.approx(10**2, rel=0.04)


def test_spectra_and_coherence_of_one_line_are_those_of_scipy():
    truth, error = noise(730) + np.arange(730), noise(730, 1)
    found = spectra(line(truth, truth + error))
    setting = {"fs": 1 / SPACING, "nperseg": 100, "detrend": "linear"}
    wavenumber, power = signal.welch(truth, **setting)
    np.testing.assert_allclose(found.wavenumber, wavenumber[1:])
    np.testing.assert_allclose(found.truth, power[1:])
    np.testing.assert_allclose(found.residual, signal.welch(error, **setting)[1][1:])
    coherence = signal.coherence(truth, truth + error, **setting)[1][1:]
    np.testing.assert_allclose(found.coherence, coherence)


def test_parsevals_theorem_holds_for_a_single_window():
    z = noise(100) + np.linspace(0, 300, 100)
    found = spectra(line(z))
    taper = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(100) / 100)
    rest = z - np.polyval(np.polyfit(np.arange(100), z, 1), np.arange(100))
    power = np.mean((rest * taper) ** 2) / np.mean(taper**2)
    mean = np.mean(rest * taper) ** 2 / np.mean(taper**2)  # at wavenumber 0, which is not given
    step = found.wavenumber[1] - found.wavenumber[0]
    assert found.windows == 1
    assert found.truth.sum() * step == pytest.approx(power - mean, rel=1e-9)


@pytest.mark.parametrize("hurst", [0.3, 0.8])
def test_a_von_karman_bed_has_the_slope_of_its_hurst_exponent(hurst):
    corner = 1 / 20_000
    z = filtered(
        noise(2**16), lambda k: (1 + (k / corner) ** 2) ** (-(hurst + 0.5) / 2), step=SPACING
    )
    found = spectra(line(z), window=100_000)
    scaling = (found.wavelength < 10_000) & (found.wavelength > 1_000)
    slope, _ = np.polyfit(np.log(found.wavenumber[scaling]), np.log(found.truth[scaling]), 1)
    assert slope == pytest.approx(-(2 * hurst + 1), abs=0.1)


def test_what_a_grid_is_off_has_its_own_spectrum():
    truth, error = noise(20_000, 0), noise(20_000, 1, sigma=3)
    found = spectra(line(truth, truth + error))
    assert found.residual.mean() == pytest.approx(2 * SPACING * 9, rel=0.05)
    assert found.coherence.mean() == pytest.approx(100 / 109, abs=0.01)


def test_a_bed_without_what_is_shorter_than_5_km_resolves_5_km():
    truth = noise(20_000)
    smooth = filtered(truth, lambda k: k < 1 / 5_000)
    found = spectra(line(truth, smooth + noise(truth.size, 1, sigma=0.5)))
    assert found.resolved_wavelength() == pytest.approx(5_000, rel=0.1)
    coherent = found.wavelength > 5_600
    assert found.coherence[coherent].min() > 0.95
    assert found.coherence[found.wavelength < 4_400].max() < 0.05


def test_the_threshold_sets_how_coherent_resolved_is():
    truth = noise(40_000)
    blurred = filtered(truth, lambda k: np.exp(-((k * 4_000) ** 2)))
    found = spectra(line(truth, blurred + noise(truth.size, 1, sigma=1)))
    strict, plain, lax = (found.resolved_wavelength(limit) for limit in (0.9, 0.5, 0.1))
    assert strict > plain > lax
    # Of white noise with sigma 10, blurred, and error with sigma 1 half is coherent where the
    # blurred amplitude is that of the error.
    assert plain == pytest.approx(4_000 / np.sqrt(np.log(10)), rel=0.05)


def test_a_perfect_grid_resolves_all_and_one_of_something_else_nothing():
    truth = noise(4_000)
    assert spectra(line(truth)).resolved_wavelength() == 2 * SPACING
    assert spectra(line(truth, noise(4_000, 1))).resolved_wavelength() is None
    assert spectra(line(truth, np.full(4_000, 123.4))).resolved_wavelength() is None


def test_chance_exceeds_the_significant_coherence_as_often_as_stated():
    shares = []
    for seed in range(30):
        found = spectra(line(noise(1_000, seed), noise(1_000, 1_000 + seed)))
        shares.append(np.mean(found.coherence[1:-1] > found.significance(0.9)))
    assert np.mean(shares) == pytest.approx(0.1, abs=0.03)


def test_a_single_window_proves_no_coherence():
    found = spectra(line(noise(100)))
    assert found.significance() == 1
    assert spectra(line(noise(100), noise(100, 1))).resolved_wavelength() is None


def test_lines_weigh_as_their_windows_and_short_ones_are_counted():
    long, longer = noise(150), 3 * noise(250, 1)  # 2 and 4 windows of 100 samples
    lines = [line(long, name="a"), line(longer, name="b", y=5e3), line(long[:99], name="c", y=9e3)]
    found = spectra(pd.concat(lines))
    assert (found.windows, found.lines, found.skipped) == (6, 2, 1)
    apart = [spectra(each).truth for each in lines[:2]]
    np.testing.assert_allclose(found.truth, (2 * apart[0] + 4 * apart[1]) / 6)


def test_a_long_gap_cuts_a_line_and_a_short_one_is_bridged():
    whole = line(noise(200))
    bridged = spectra(whole.drop(index=[99, 100]), max_gap=1_000)
    cut = spectra(whole.drop(index=[99, 100, 101, 102]), window=20_000)
    assert bridged.windows == 3
    assert cut.windows == 2  # of 80 samples: one of the first 99, one of the last 97
    with pytest.raises(
        InvalidDataError, match=r"expected a line of 40 km.*found 24\.75 km at most"
    ):
        spectra(whole.drop(index=[99, 100, 101, 102]), window=40_000)


def test_dense_picks_are_averaged_and_not_taken_for_longer_waves():
    x = 25.0 * np.arange(20_000)
    fine = np.sin(2 * np.pi * x / 260)  # would alias to 6.5 km
    found = spectra(line(fine, step=25.0))
    assert found.truth.sum() * found.wavenumber[0] < 0.01


def test_the_grid_counts_only_where_it_has_a_value():
    picks = line(noise(300))
    picks.loc[:149, "grid"] = np.nan
    assert spectra(picks).windows == 2


@pytest.mark.parametrize("lengths", [{"spacing": 0}, {"window": 1_000}, {"max_gap": -1}])
def test_impossible_lengths_are_a_wrong_call(lengths):
    with pytest.raises(ValueError, match="m"):
        spectra(line(noise(500)), **lengths)


def test_the_variogram_of_white_noise_is_flat_at_the_variance():
    picks = line(np.zeros(20_000), noise(20_000))
    found = variogram_along(picks)
    assert found.semivariance == pytest.approx(100, rel=0.15)
    assert found.fit().at([1_000, 9_000]) == pytest.approx(100, rel=0.05)


def test_a_variogram_along_is_half_the_mean_squared_difference_of_each_lag():
    residual = np.array([0.0, 3.0, -1.0, 2.0])
    found = variogram_along(line(np.zeros(4), residual), longest=750)
    assert found.pairs.tolist() == [3, 2, 1]
    assert found.lag.tolist() == [250, 500, 750]
    assert found.semivariance == pytest.approx([(9 + 16 + 9) / 6, (1 + 1) / 4, 4 / 2])


def test_a_variogram_has_no_pairs_across_lines_or_gaps():
    level, high = line(np.zeros(5)), line(np.zeros(5), np.full(5, 100.0), "b")
    far = line(np.zeros(5), np.full(5, 50.0))
    far["x"] += 6_000
    assert variogram_along(pd.concat([level, far, high])).semivariance.max() == 0


@pytest.mark.parametrize("model", ["exponential", "spherical"])
def test_a_fit_reads_nugget_sill_and_range_off_a_curve(model):
    truth = VariogramModel(model, nugget=20, sill=120, range=8_000)
    lag = 250.0 * np.arange(1, 101)
    found = Variogram(lag, truth.at(lag), np.full(100, 50)).fit(model)
    assert found[1:] == pytest.approx(truth[1:], rel=1e-3)
    assert truth.at(8_000) == pytest.approx(120, rel=0.05)


def test_the_range_of_a_correlated_residual_is_found():
    residual = filtered(noise(100_000), lambda k: 1 / np.sqrt(1 + (2 * np.pi * k * 1_500) ** 2))
    found = variogram_along(line(np.zeros(100_000), residual)).fit()
    assert found.sill == pytest.approx(residual.var(), rel=0.05)
    assert found.range == pytest.approx(3 * 1_500, rel=0.15)
    assert found.nugget < 0.1 * found.sill


def test_picks_that_stand_alone_have_no_variogram():
    lonely = line(np.zeros(5), step=30_000.0)
    with pytest.raises(InvalidDataError, match="two picks within the longest lag"):
        variogram_along(lonely)


def test_too_few_lags_and_unknown_models_are_refused():
    short = variogram_along(line(np.zeros(3), [0.0, 1.0, 2.0]))
    with pytest.raises(InvalidDataError, match="4 lags or more, found at 2"):
        short.fit()
    with pytest.raises(ValueError, match="gaussian"):
        short.fit("gaussian")
    with pytest.raises(ValueError, match="shorter"):
        variogram_along(line(np.zeros(9)), longest=100)
