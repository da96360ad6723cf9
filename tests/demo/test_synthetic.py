"""Made-up glaciers: the physics of their surface, and surveys that the pipelines read back."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
import yaml

from deepbedmap import demo, download, points, rasters, registry
from deepbedmap.demo import Configuration
from deepbedmap.demo.ice_slab import response, self_affine
from deepbedmap.demo.surveys import CRS
from deepbedmap.errors import InvalidDataError

SMALL = Configuration(
    extent=30_000, grid_spacing=500, line_spacing=3_000, pick_spacing=500, prior_spacing=1_000
)


def test_over_very_long_undulations_the_surface_follows_the_bed():
    along, across = np.array([3e-5, 2e-5]), np.array([0.0, 1e-5])
    to_bed, _ = response(along, across, slip_ratio=10, slope=0.005)
    np.testing.assert_allclose(np.abs(to_bed[0]), 1, atol=0.02)


def test_over_undulations_shorter_than_the_ice_is_thick_the_surface_is_flat():
    to_bed, _ = response(np.array([40.0]), np.array([0.0]), slip_ratio=10, slope=0.005)
    assert abs(to_bed[0, 0]) < 1e-6


def test_ice_without_shear_speeds_up_over_a_bump_as_the_flux_demands():
    # Plug flow: u (h - b + s) is constant along flow, so that u' = C (b - s) for long wavelengths.
    slip_ratio = 1000.0
    to_bed, _ = response(np.array([0.05]), np.array([0.0]), slip_ratio, slope=0.005)
    expected = slip_ratio * (1 - to_bed[0, 0])
    assert abs(to_bed[1, 0] - expected) < 0.01 * abs(expected)


def test_undulations_along_flow_leave_a_steady_surface_alone():
    # Where nothing varies along flow, no steady velocity crosses the bed or the surface.
    to_bed, _ = response(np.array([0.0]), np.array([1.5]), slip_ratio=10, slope=0.005)
    assert abs(to_bed[0, 0]) < 1e-9
    assert abs(to_bed[2, 0]) < 1e-9


@pytest.mark.parametrize("slip_ratio", [40, 90])
def test_undulations_of_some_ice_thicknesses_show_most_at_the_surface(slip_ratio):
    # "A local maximum at ... about 3-8 times the mean ice thickness" (Gudmundsson 2003, abstract)
    wavelengths = np.arange(1.5, 25, 0.25)
    to_bed, _ = response(
        2 * np.pi / wavelengths, 0 * wavelengths, slip_ratio=slip_ratio, slope=0.005
    )
    assert 3 <= wavelengths[np.abs(to_bed[0]).argmax()] <= 8


def test_mirrored_undulations_are_answered_by_a_mirrored_surface():
    along, across = np.array([0.7, 0.7]), np.array([0.4, -0.4])
    to_bed, to_slipperiness = response(along, across, slip_ratio=20, slope=0.005)
    for answer in (to_bed, to_slipperiness):
        np.testing.assert_allclose(answer[:2, 0], answer[:2, 1], rtol=1e-9)
        np.testing.assert_allclose(answer[2, 0], -answer[2, 1], rtol=1e-9)


@pytest.mark.parametrize("hurst", [0.3, 0.8])
def test_relief_is_self_affine_with_the_exponent_asked_for(hurst):
    field = self_affine((512, 512), 100.0, 1e5, hurst, np.random.default_rng(1))
    # Mean square difference over a distance r grows as r^(2 hurst), below the corner wavelength.
    square = [np.mean((field[:, lag:] - field[:, :-lag]) ** 2) for lag in (4, 16)]
    assert abs(np.log(square[1] / square[0]) / np.log(4) - 2 * hurst) < 0.2


def test_relief_is_longer_along_the_direction_given():
    field = self_affine(
        (512, 512), 100.0, 4e4, 0.8, np.random.default_rng(2), direction=np.pi / 2, elongation=3
    )
    along, across = (np.mean(np.diff(field, axis=axis) ** 2) for axis in (0, 1))
    assert along < 0.5 * across


def test_a_glacier_is_the_same_for_the_same_seed_and_another_for_another():
    first, again, other = (
        demo.make_glacier("a", (0, 0), seed, SMALL).fields["bed"] for seed in (1, 1, 2)
    )
    xr.testing.assert_identical(first, again)
    assert float(abs(first - other).mean()) > 50


def test_the_bed_lies_below_the_surface_and_ice_flows_down_slope():
    glacier = demo.make_glacier("a", (0, 0), 3, SMALL)
    thickness = glacier.fields["true_surface"] - glacier.fields["bed"]
    assert float(thickness.min()) > 0
    assert float(thickness.mean()) == pytest.approx(1_800, abs=200)
    surface = glacier.fields["true_surface"]
    downhill = -np.array([float(surface.differentiate(axis).mean()) for axis in ("x", "y")])
    flow = np.array([float(glacier.fields[name].mean()) for name in ("vx", "vy")])
    cosine = downhill @ flow / np.linalg.norm(downhill) / np.linalg.norm(flow)
    assert cosine > 0.9


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    folder = tmp_path_factory.mktemp("glaciers")
    glaciers = demo.write_repository(folder, 5, SMALL)
    entries = registry.load(folder / "data_list.yml")
    citekeys = [entry.citekey for entry in entries]
    download.fetch(citekeys, registry=entries, data_dir=folder, progress=False)
    return folder, glaciers, entries


@pytest.mark.parametrize("survey", demo.SURVEYS, ids=lambda survey: survey.citekey)
def test_picks_read_from_raw_files_lie_on_the_known_bed(repository, survey):
    folder, glaciers, _ = repository
    picks = points.read_points(folder / "highres" / survey.pipeline)
    bed = glaciers[survey.citekey].fields["bed"].rio.write_crs(CRS)
    differences = picks["z"] - rasters.sample(bed, picks["x"], picks["y"])
    assert abs(differences.median()) < 5
    assert 8 < 1.4826 * differences.abs().median() < 20  # noise of 10 m, and interpolation


@pytest.mark.parametrize("survey", demo.SURVEYS, ids=lambda survey: survey.citekey)
def test_a_survey_has_repeats_and_gaps_and_a_bed_at_sea_level(repository, survey):
    folder, _, _ = repository
    picks = points.read_points(folder / "highres" / survey.pipeline)
    assert picks.duplicated(["x", "y"]).any()
    assert (picks["z"] == 0).any()
    lines = picks.groupby(picks["y"].round(-2))["x"]
    assert (lines.apply(lambda x: x.sort_values().diff().max()) > 1_000).any()


def test_missing_beds_stand_in_the_raw_files_and_not_among_the_picks(repository):
    folder, _, _ = repository
    raw = "".join(path.read_text() for path in sorted((folder / "highres").glob("*MadeUp1*.csv")))
    assert "-9999" in raw
    assert " * " in (folder / "highres" / "MadeUp2_RadarByFlight.txt").read_text()
    picks = points.read_points(folder / "highres" / "MadeUp1.json")
    assert picks["z"].min() > -5_000


def test_the_registry_holds_the_true_checksums_and_no_local_raw_files_before_a_fetch(tmp_path):
    demo.write_repository(tmp_path, 6, SMALL)
    assert not list((tmp_path / "highres").glob("*.csv"))
    entries = yaml.safe_load((tmp_path / "data_list.yml").read_text())
    assert len(entries) == len(demo.SURVEYS) + 5
    assert all(len(file["sha256"]) == 64 for entry in entries for file in entry["files"])


def test_the_registry_says_what_is_true_by_construction(repository):
    folder, glaciers, entries = repository
    assert entries["MadeUpPrior"].built_from.surveys == (demo.RECONNAISSANCE,)
    for citekey, glacier in glaciers.items():
        assert entries[citekey].bounds == glacier.bounds
        xmin, ymin, xmax, ymax = glacier.bounds
        picks = points.read_points(folder / "highres" / f"{citekey}.json")
        assert picks["x"].between(xmin - 1, xmax + 1).all()
        assert picks["y"].between(ymin - 1, ymax + 1).all()
    around = entries[demo.RECONNAISSANCE].bounds
    edges = np.array([glacier.bounds for glacier in glaciers.values()])
    assert around == (*edges.min(0)[:2], *edges.max(0)[2:])


def test_the_prior_is_made_from_sparse_lines_alone(repository):
    folder, _, _ = repository
    prior = rasters.open_raster(folder / "lowres" / "MadeUpPrior.tif")
    known = points.read_points(folder / "highres" / f"{demo.RECONNAISSANCE}.json")
    at_lines = known["z"] - rasters.sample(prior, known["x"], known["y"])
    survey = points.read_points(folder / "highres" / "MadeUp6.json")
    between = survey["z"] - rasters.sample(prior, survey["x"], survey["y"])
    assert at_lines.std() < 0.7 * between.std()
    assert prior.attrs["vertical_datum"] == "ellipsoid"


def test_glaciers_of_an_earlier_run_are_replaced_and_nothing_else_is(tmp_path):
    demo.write_repository(tmp_path / "glaciers", 6, SMALL)
    (tmp_path / "glaciers" / "data_list.yml").unlink()  # as if that run had been killed
    demo.write_repository(tmp_path / "glaciers", 7, SMALL)
    assert (tmp_path / "glaciers" / "data_list.yml").is_file()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").touch()
    with pytest.raises(InvalidDataError, match="thesis: expected an empty folder"):
        demo.write_repository(tmp_path / "thesis", 7, SMALL)
    assert (tmp_path / "thesis" / "chapter1.tex").is_file()
