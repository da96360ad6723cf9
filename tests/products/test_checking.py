from __future__ import annotations

import json

import geopandas as gpd
import numpy as np
import pytest
import shapely
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from deepbedmap import products
from deepbedmap.errors import InvalidDataError
from deepbedmap.products import SOURCE, Limits, blend, check, correct, cut_at_grounding_line

OCEAN, ROCK, GROUNDED, FLOATING = (
    products.MASK[kind] for kind in ("ocean", "ice_free_land", "grounded_ice", "floating_ice")
)


def make_product(datum="EIGEN-6C4", south_up=False, **layers):
    """Layers of nested lists on cells of 250 m, the first row in the north."""
    shape = np.shape(layers["bed"])
    axes = {
        "y": 125.0 + 250 * np.arange(shape[0])[::-1],
        "x": 125.0 + 250 * np.arange(shape[1]),
    }
    dataset = xr.Dataset(
        {
            name: (("y", "x"), np.asarray(values, "u1" if name in ("mask", "source") else "f4"))
            for name, values in layers.items()
        },
        axes,
    ).rio.write_crs("EPSG:3031")
    for name in {"bed", "surface"} & layers.keys():
        if datum:
            dataset[name].attrs["vertical_datum"] = datum
    return dataset.isel(y=slice(None, None, -1)) if south_up else dataset


def flags(dataset):
    names = {value: name for name, value in SOURCE.items()}
    return [[names[value] for value in row] for row in dataset["source"].values.tolist()]


def test_a_bed_above_the_surface_is_counted_placed_and_lowered():
    product = make_product(
        bed=[[-100, 130], [140, 20]],
        surface=[[100, 100], [100, 100]],
        thickness=[[200, -30], [-40, 80]],
    )
    corrected, report = correct(product)
    found = report["thickness"]
    assert (found.cells, found.examined, found.corrected, found.left) == (2, 4, 2, 0)
    assert (found.area, found.share) == (0.125, 0.5)
    assert (found.worst, found.where) == (-40.0, (125.0, 125.0))
    assert corrected["bed"].values.tolist() == [[-100, 100], [100, 20]]
    assert corrected["thickness"].values.tolist() == [[200, 0], [0, 80]]
    assert flags(corrected) == [["network", "surface"], ["surface", "network"]]
    assert corrected["bed"].attrs["vertical_datum"] == "EIGEN-6C4"
    assert product["bed"].values.tolist() == [[-100, 130], [140, 20]]


def test_grounded_ice_alone_keeps_its_least_thickness():
    product = make_product(
        bed=[[95, 95], [95, 95]],
        surface=[[100, 100], [100, 100]],
        mask=[[GROUNDED, FLOATING], [OCEAN, ROCK]],
    )
    limits = Limits(least_thickness=10)
    corrected, report = correct(product, policies={"thickness": "correct"}, limits=limits)
    assert (report["thickness"].cells, report["thickness"].examined) == (1, 3)
    assert corrected["bed"].values.tolist() == [[90, 95], [95, 95]]


@pytest.mark.parametrize("by_mask", [True, False])
def test_the_bed_of_exposed_rock_is_put_at_the_surface(by_mask):
    product = make_product(bed=[[700, 800.5], [900, 800]], surface=[[800, 800], [800, 900]])
    mask = xr.full_like(product["bed"], GROUNDED, "u1")
    mask[0, :] = mask[1, 0] = ROCK
    if by_mask:
        product["mask"] = mask
    rock = None if by_mask else mask == ROCK
    corrected, report = correct(product, policies={"rock": "correct"}, rock=rock)
    found = report["rock"]
    assert (found.cells, found.examined, found.corrected) == (2, 3, 2)
    assert (found.worst, found.where) == (-100.0, (125.0, 375.0))
    assert corrected["bed"].values.tolist() == [[800, 800.5], [800, 800]]
    assert flags(corrected) == [["rock", "network"], ["rock", "network"]]


def test_the_sea_floor_is_lowered_to_the_draft_of_floating_ice():
    product = make_product(
        bed=[[-300, -150], [-150, -150]],
        surface=[[50, 50], [50, 50]],
        thickness=[[250, 250], [250, np.nan]],
        mask=[[FLOATING, FLOATING], [GROUNDED, FLOATING]],
    )
    corrected, report = correct(product, policies={"floating": "correct"})
    found = report["floating"]
    assert (found.cells, found.examined, found.worst) == (1, 2, -50.0)
    assert corrected["bed"].values.tolist() == [[-300, -200], [-150, -150]]
    assert corrected["thickness"].values[0].tolist() == [250, 250]
    assert flags(corrected)[0] == ["network", "ice_draft"]


@pytest.mark.parametrize("geoid", [0.0, -29.0])
def test_grounded_ice_that_would_float_is_made_to_touch_the_ground(geoid):
    # 91.7 m of ice of 917 kg m-3 weigh as much as 89.286 m of sea water of 1027 kg m-3.
    product = make_product(
        bed=np.add([[-1000, -500], [-1000, -1000]], geoid),
        surface=np.add([[100, 100], [200, -10]], geoid),
        mask=[[GROUNDED, GROUNDED], [OCEAN, GROUNDED]],
        geoid=np.full((2, 2), geoid),
        datum="ellipsoid" if geoid else "EIGEN-6C4",
    )
    corrected, report = correct(product)
    found = report["flotation"]
    assert (found.cells, found.examined, found.corrected, found.left) == (2, 3, 1, 1)
    # Ice whose surface is below the sea floats on every bed: the bed stays.
    assert found.where == (375.0, 125.0)
    assert found.worst == pytest.approx(990 - 1000 * 1027 / 917, abs=1e-3)
    expected = np.add([[-100 * 917 / 110, -500], [-1000, -1000]], geoid)
    np.testing.assert_allclose(corrected["bed"], expected, atol=1e-3)
    assert flags(corrected) == [["flotation", "network"], ["network", "network"]]


def test_a_geoid_of_other_cells_is_interpolated():
    product = make_product(
        bed=[[-1000, -500]] * 2, surface=[[100, 100]] * 2, mask=[[GROUNDED] * 2] * 2
    )
    on_ellipsoid = make_product(
        "ellipsoid", bed=[[-1040, -540]] * 2, surface=[[60, 60]] * 2, mask=[[GROUNDED] * 2] * 2
    )
    axes = {"y": [2000.0, -2000.0], "x": [-2000.0, 2000.0]}
    geoid = xr.DataArray(np.full((2, 2), -40.0), axes).rio.write_crs("EPSG:3031")
    expected = check(product)["flotation"]
    found = check(on_ellipsoid, geoid=geoid)["flotation"]
    assert (found.cells, found.where) == (expected.cells, expected.where) == (2, (125.0, 375.0))
    assert found.worst == pytest.approx(expected.worst)
    elsewhere = geoid.assign_coords(x=geoid.x + 9_000)
    with pytest.raises(InvalidDataError, match="field bounds: expected some of the bed's"):
        check(on_ellipsoid, geoid=elsewhere)


def test_a_check_that_lacks_something_says_what(caplog):
    layers = {"bed": [[0, 0]] * 2, "surface": [[1, 1]] * 2, "mask": [[GROUNDED] * 2] * 2}
    report = check(make_product("ellipsoid", **layers))
    assert report["flotation"].why_not == "heights are above the ellipsoid and there is no geoid"
    assert report["floating"].why_not == "there is no layer thickness"
    line = "flotation not done: heights are above the ellipsoid and there is no geoid"
    assert line in report.text()
    assert not caplog.text  # the report tells it
    unknown = check(make_product(None, **layers))
    assert not unknown["datum"].done
    assert not unknown["flotation"].done
    assert not check(make_product(bed=[[0, 0]] * 2))["thickness"].done


def test_an_implausible_height_loses_its_value():
    product = make_product(bed=[[np.inf, -7000], [9000, 100]])
    corrected, report = correct(product)
    assert (report["range"].cells, report["range"].worst) == (3, np.inf)
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["findings"][1]["worst"] is None
    np.testing.assert_array_equal(corrected["bed"], [[np.nan, np.nan], [np.nan, 100]])
    assert flags(corrected) == [["none", "none"], ["none", "network"]]


def test_jumps_and_gaps_are_reported():
    product = make_product(bed=[[0, 0, 0], [0, 0, 500], [0, np.nan, 0]])
    report = check(product.chunk({"y": 1, "x": 2}))
    assert (report["slope"].cells, report["slope"].examined, report["slope"].worst) == (4, 8, 2)
    assert report["slope"].where == (625.0, 625.0)
    assert (report["gaps"].cells, report["gaps"].share) == (1, 1 / 9)
    assert (report["gaps"].worst, report["gaps"].where) == (None, (375.0, 125.0))


def test_heights_of_two_datums_are_an_error():
    product = make_product(bed=[[0, 0]] * 2, surface=[[1, 1]] * 2)
    product["surface"].attrs["vertical_datum"] = "ellipsoid"
    with pytest.raises(InvalidDataError, match=r"surface, field vertical_datum: .*EIGEN-6C4"):
        check(product)


def test_a_check_that_refuses_names_count_worst_value_and_place():
    product = make_product(bed=[[0, 30], [0, 0]], surface=[[10, 10], [10, 10]])
    with pytest.raises(InvalidDataError) as error:
        check(product, policies={"thickness": "refuse"})
    assert str(error.value) == (
        "dataset, field bed (thickness): expected no bed above the surface, grounded ice of its"
        " least thickness, found 1 cells (0.1 km2) that fail, the worst -20.00 m at"
        " (375, 375); correct bed or surface, or lower the bed with the policy correct"
    )
    with pytest.raises(InvalidDataError, match="no way to check it: no mask"):
        correct(product, policies={"flotation": "refuse"})
    assert check(product, policies={"gaps": "refuse"})["thickness"].cells == 1


@pytest.mark.parametrize(
    ("policies", "message"),
    [
        ({"thicknes": "correct"}, "thickness"),
        ({"slope": "correct"}, "report, refuse"),
        ({"datum": "report"}, "refuse"),
        ({"rock": "mend"}, "report, correct, refuse"),
        ("mend", "report, correct, refuse"),
    ],
)
def test_a_policy_that_there_is_not_is_a_wrong_call(policies, message):
    with pytest.raises(ValueError, match=message):
        check(make_product(bed=[[0, 0]] * 2), policies=policies)


@pytest.mark.parametrize(
    "limits",
    [{"lowest": 9000}, {"ice_density": 1100}, {"tolerance": -1}, {"least_thickness": np.nan}],
)
def test_limits_that_nothing_can_keep_are_a_wrong_call(limits):
    with pytest.raises(ValueError, match=next(iter(limits))):
        Limits(**limits)


def test_a_product_without_a_bed_is_refused():
    with pytest.raises(InvalidDataError, match="field bed: expected a layer bed along y and x"):
        check(make_product(bed=[[0, 0]] * 2).rename(bed="z"))


def test_the_table_has_a_line_for_each_check():
    product = make_product(bed=[[0, 30], [0, 0]], surface=[[10, 10], [10, 10]])
    lines = check(product).text().splitlines()
    assert [line.split()[0] for line in lines] == ["check", *products.CHECKS]
    (thickness,) = (line.split() for line in lines if line.startswith("thickness"))
    assert " ".join(thickness) == "thickness 1 4 25.00% 0.1 -20.00 m 375, 375 0"


@settings(max_examples=8, deadline=None)
@given(
    bed=npst.arrays("f4", (5, 6), elements=st.floats(-9000, 9000, width=32) | st.just(np.nan)),
    surface=npst.arrays("f4", (5, 6), elements=st.floats(0, 4500, width=32) | st.just(np.nan)),
    thickness=npst.arrays("f4", (5, 6), elements=st.floats(0, 1000, width=32)),
    mask=npst.arrays("u1", (5, 6), elements=st.sampled_from([0, 1, 2, 3, 4, 255])),
    chunks=st.sampled_from([(2, 6), (5, 4), (3, 5)]),
)
def test_what_is_corrected_has_no_faults_and_the_rest_is_untouched(
    bed, surface, thickness, mask, chunks
):
    product = make_product(bed=bed, surface=surface, thickness=thickness, mask=mask)
    chunked = product.chunk(dict(zip(("y", "x"), chunks, strict=True)))
    corrected, report = correct(chunked)
    assert correct(product)[1] == report
    correctable = ("range", "rock", "flotation", "floating", "thickness")
    again = check(corrected)
    assert [again[name].cells for name in correctable] == [0] * 5
    assert [report[name].left for name in correctable] == [0] * 5
    touched = ~np.isin(corrected["source"], [SOURCE["network"]]) & np.isfinite(bed)
    np.testing.assert_array_equal(corrected["bed"].values[~touched], bed[~touched])
    wrong = sum(report[name].cells for name in correctable)
    assert np.count_nonzero(touched) <= wrong
    assert bool(wrong) == bool(touched.any())
    assert corrected["bed"].chunks == chunked["bed"].chunks


def make_ensemble(*members, **layers):
    """A product of several beds, of which the first is the one; chunked."""
    first = make_product(bed=members[0])["bed"]
    surface = first.copy(data=np.full(first.shape, 100, "f4"))
    held = xr.concat([first.copy(data=np.float32(member)) for member in members], "realization")
    return products.assemble(first, surface, members=held, **layers).chunk({"x": 1})


def test_every_member_is_corrected_and_mean_and_spread_are_those_of_the_corrected():
    product = make_ensemble([[130, 20], [90, 50]], [[80, 140], [90, -9000]], [[101, 20], [90, 35]])
    corrected, report = correct(product)
    assert report["thickness"].cells == 1  # of the first, which is the bed
    expected = [[[100, 20], [90, 50]], [[80, 100], [90, np.nan]], [[100, 20], [90, 35]]]
    np.testing.assert_array_equal(corrected["bed_members"], expected)
    np.testing.assert_array_equal(corrected["bed"], corrected["bed_members"][0])
    np.testing.assert_allclose(corrected["bed_mean"], np.mean(expected, axis=0), rtol=1e-6)
    spread = np.std(expected, axis=0, ddof=1)
    for name in ("bed_standard_deviation", "bed_error"):
        np.testing.assert_allclose(corrected[name], spread, rtol=1e-6)
        assert corrected[name].attrs == product[name].attrs
    assert corrected["bed_members"].dims == ("realization", "y", "x")
    assert flags(corrected) == [["surface", "network"], ["network", "network"]]
    assert product["bed_members"].max() == 140


def test_every_member_goes_over_into_the_bathymetry():
    product = make_ensemble(*np.full((3, 4, 20), 100) * np.reshape([1, 2, 4], (3, 1, 1)))
    sea_floor = xr.full_like(product["bed"], -300)
    blended = blend(product, sea_floor, ice_of(shapely.box(-9000, -9000, 2500, 9000)), 1000)
    assert blended["bed_members"][:, 0, 0].values.tolist() == [100, 200, 400]
    np.testing.assert_array_equal(blended["bed"], blended["bed_members"][0])
    assert bool((blended["bed_members"][..., 14:] == -300).all())
    mean = blended["bed_members"].mean("realization")
    np.testing.assert_allclose(blended["bed_mean"], mean, rtol=1e-6)
    assert float(blended["bed_error"][0, 0]) == pytest.approx(np.std([100, 200, 400], ddof=1))
    assert bool((blended["bed_error"][:, 14:] == 0).all())


def ice_of(*polygons):
    return gpd.GeoDataFrame(geometry=list(polygons), crs="EPSG:3031")


@pytest.mark.parametrize("south_up", [False, True])
@pytest.mark.parametrize("chunks", [1, 2, 4])
def test_outside_the_grounding_line_nothing_is_left_of_the_bed(south_up, chunks):
    product = make_product(
        bed=np.ones((4, 4)), surface=np.ones((4, 4)), thickness=np.ones((4, 4)), south_up=south_up
    ).chunk({"y": chunks, "x": chunks})
    # The centres of the three northernmost cells of the two westernmost columns.
    cut = cut_at_grounding_line(product, ice_of(shapely.box(-500, 300, 400, 5000)))
    inside = np.zeros((4, 4), bool)
    inside[:3, :2] = True
    north_up = cut.sortby("y", ascending=False)
    np.testing.assert_array_equal(np.isfinite(north_up["bed"]), inside)
    np.testing.assert_array_equal(np.isfinite(north_up["thickness"]), inside)
    np.testing.assert_array_equal(north_up["source"] == SOURCE["network"], inside)
    assert np.isfinite(cut["surface"]).all()
    masked = xr.DataArray(inside, north_up["bed"].coords, ("y", "x")).sortby(
        "y", ascending=south_up
    )
    xr.testing.assert_identical(cut.load(), cut_at_grounding_line(product, masked).load())


def test_an_outline_elsewhere_is_refused():
    product = make_product(bed=np.ones((4, 4)))
    with pytest.raises(InvalidDataError, match="crs"):
        cut_at_grounding_line(
            product, ice_of(shapely.box(0, 0, 1, 1)).set_crs(3413, allow_override=True)
        )
    with pytest.raises(ValueError, match="outline must be on the cells of the bed; x differs"):
        cut_at_grounding_line(product, product["bed"].assign_coords(x=product["x"] + 250))


def half_and_half(**bathymetry):
    """Ice west of x = 2,500 m at 100 m, and a sea floor of -300 m."""
    product = make_product(bed=np.full((4, 20), 100))
    sea_floor = xr.full_like(product["bed"], -300).assign_attrs(bathymetry)
    return product, sea_floor, ice_of(shapely.box(-9000, -9000, 2500, 9000))


def test_the_bed_goes_over_into_the_bathymetry_as_a_cosine():
    product, sea_floor, ice = half_and_half()
    row = blend(product, sea_floor, ice, 1000)["bed"].values[0]
    from_line = 2500 - product["x"].values
    share = 0.5 + 0.5 * np.cos(np.pi * (np.clip(from_line, -1000, 1000) + 1000) / 2000)
    np.testing.assert_allclose(row, 100 - 400 * share, atol=1e-3)
    assert (row[:6] == 100).all()
    assert (row[14:] == -300).all()
    np.testing.assert_allclose(row[9] + row[10], -200, atol=1e-3)
    source = flags(blend(product, sea_floor, ice, 1000))[0]
    assert source == ["network"] * 6 + ["blend"] * 8 + ["bathymetry"] * 6


def test_without_a_width_the_bed_changes_at_the_line():
    product, sea_floor, ice = half_and_half()
    row = blend(product, sea_floor, ice, 0)["bed"].values[0]
    assert row.tolist() == [100] * 10 + [-300] * 10


def test_the_bed_stays_where_the_bathymetry_has_gaps_and_is_filled_where_it_has_some():
    product, sea_floor, ice = half_and_half()
    sea_floor[:, 12] = np.nan
    product["bed"][:, 8] = product["bed"][:, 2] = np.nan
    row = blend(product, sea_floor, ice, 1000)["bed"].values[0]
    assert (row[12], row[8]) == (100, -300)
    assert np.isnan(row[2])


def test_a_bathymetry_on_another_or_no_datum_is_refused():
    product, sea_floor, ice = half_and_half(vertical_datum="ellipsoid")
    with pytest.raises(InvalidDataError, match="vertical_datum"):
        blend(product, sea_floor, ice, 1000)
    with pytest.raises(InvalidDataError, match="found unknown"):
        blend(product, sea_floor.drop_attrs().rio.write_crs("EPSG:3031"), ice, 1000)
    with pytest.raises(ValueError, match="width"):
        blend(product, sea_floor, ice, -1)


@pytest.mark.parametrize("chunks", [{"y": 3, "x": 40}, {"y": 40, "x": 7}, {"y": 11, "x": 13}])
def test_neither_report_nor_blend_depends_on_the_chunks(chunks):
    random = np.random.default_rng(7)
    product = make_product(
        bed=random.normal(-200, 300, (40, 40)),
        surface=random.uniform(0, 400, (40, 40)),
        thickness=random.uniform(0, 400, (40, 40)),
        mask=random.integers(0, 4, (40, 40)),
    )
    ice = ice_of(shapely.Point(5000, 5000).buffer(3111), shapely.box(1100, 1100, 1900, 2200))
    sea_floor = xr.full_like(product["bed"], -700)
    pieces = product.chunk(chunks)
    assert check(pieces) == check(product)
    whole, blended = (blend(each, sea_floor, ice, 1500) for each in (product, pieces))
    xr.testing.assert_equal(blended.load(), whole.load())


def test_bedmachine_at_byrd_glacier_is_consistent(shared_data):
    byrd = xr.open_dataset(shared_data / "byrd" / "byrd_500m.nc", engine="h5netcdf").load()
    names = {"bed": "bm_bed", "surface": "bm_surface", "thickness": "bm_thickness"}
    product = xr.Dataset({name: byrd[given] for name, given in names.items()})
    product["mask"] = byrd["bm_mask"]
    product = product.rio.write_crs("EPSG:3031")
    product["bed"].attrs["vertical_datum"] = "EIGEN-6C4"
    corrected, report = correct(product.chunk({"y": 64, "x": 100}))
    assert all(finding.done for finding in report.findings)
    assert report["flotation"].examined == 28367
    assert [found.check for found in report.findings if found.cells] == ["gaps"]
    np.testing.assert_array_equal(corrected["bed"], product["bed"])


def test_bedmap2_of_the_amundsen_sea_has_ice_thinner_than_nothing(shared_data):
    ase = xr.open_dataset(shared_data / "ase" / "ase_2km_bedmap2.nc", engine="h5netcdf")
    product = ase[["bed", "surface", "thickness"]].load().rio.write_crs("EPSG:3031")
    product["bed"].attrs["vertical_datum"] = "EIGEN-GL04C"
    outline = shared_data / "grounding_line" / "groundingline_2008_v2.shp"
    corrected, report = correct(cut_at_grounding_line(product, outline))
    assert report["gaps"].share == pytest.approx(0.172, abs=0.002)
    found = report["thickness"]
    assert found.cells == found.corrected > 900
    assert found.worst == pytest.approx(ase["thickness"].min().item())
    assert check(corrected)["thickness"].cells == 0
