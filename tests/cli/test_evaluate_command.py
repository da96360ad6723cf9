"""The command evaluate: its table, its baselines, what it refuses, and the benchmarks."""

from __future__ import annotations

import csv
import hashlib
import io
import json

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
import xarray as xr
import yaml
from scipy import ndimage
from support.places import raster

from deepbedmap import points, rasters, repository, schemas, validation
from deepbedmap.errors import InvalidDataError
from deepbedmap.evaluation import benchmarks

BOX = (0, 0, 30_000, 30_000)
OFFSET = {"a": 1.0, "b": -2.0, "c": 4.0}


def bed(x, y):
    return 0.01 * x - 0.02 * y


@pytest.fixture
def picks(tmp_path):
    """Three lines over a plane, the picks of each off by its own number of metres."""
    x = np.arange(5_050.0, 25_000, 100)
    tables = [
        pd.DataFrame({"x": x, "y": y, "z": bed(x, y) - OFFSET[name], "line": name})
        for name, y in zip("abc", (8_000.0, 15_000.0, 22_000.0), strict=True)
    ]
    table = pd.concat(tables, ignore_index=True).astype({"line": "category"})
    table.attrs = {"crs": "EPSG:3031", "vertical_datum": "ellipsoid", "sources": []}
    points.write_points(table, tmp_path / "picks.parquet")
    return table


@pytest.fixture
def dem(tmp_path, picks):
    return rasters.write_geotiff(raster(bed, 250, BOX), tmp_path / "dem.tif")


@pytest.fixture
def evaluate(call, dem, tmp_path):
    """Call the command on the DEM and the picks; give its JSON, or its one line of error."""

    def run(*options, dems=(dem,), entry=tmp_path / "picks.parquet"):
        code, out, err = call("evaluate", *dems, "--points", entry, "--json", *options)
        if code:
            assert (code, out, err.count("\n")) == (1, "", 1), err
            return err
        return json.loads(out)

    return run


def test_the_scores_are_those_of_the_lines_with_intervals_by_line(evaluate):
    output = evaluate()
    assert output["picks"] == 600
    assert output["lines"] == 3
    assert output["bias"] == pytest.approx(1, abs=1e-3)
    assert output["rmse"] == pytest.approx(np.sqrt(7), abs=1e-3)
    assert output["intervals"]["bias"]["low"] == pytest.approx(-2, abs=1e-3)
    assert output["intervals"]["bias"]["high"] == pytest.approx(4, abs=1e-3)
    assert output["baselines"] == []


def test_a_person_gets_a_table_and_the_reasons(call, dem, tmp_path):
    code, out, _ = call("evaluate", dem, "--points", tmp_path / "picks.parquet", "--prior", dem)
    assert code == 0
    assert "600 picks on 3 lines" in out
    assert "\ndem            2.6 [" in out
    assert "\nbicubic prior  2.6 [" in out
    assert "new to prior" in out
    assert "dem, new to its training: unknown, its training is not stated" in out
    assert "1,000 resamples" in out


def test_csv_has_a_row_for_each_bed(call, dem, tmp_path):
    options = ("--prior", dem, "--baseline", f"other={dem}", "--csv")
    _, out, _ = call("evaluate", dem, "--points", tmp_path / "picks.parquet", *options)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["name"] for row in rows] == ["dem", "bicubic prior", "other"]
    assert float(rows[0]["rmse_low"]) <= float(rows[0]["rmse"]) <= float(rows[0]["rmse_high"])
    assert rows[1]["independent_of_training"] == "yes"


def test_all_beds_are_scored_at_the_same_picks(evaluate, tmp_path):
    holed = raster(bed, 250, BOX)
    holed[:, :60] = np.nan
    path = rasters.write_geotiff(holed, tmp_path / "holed.tif")
    output = evaluate("--baseline", f"holed={path}")
    assert output["picks"] == output["baselines"][0]["picks"] < 600
    assert output["picks"] + output["outside"] == 600


def test_picks_are_gridded_and_tell_the_distance(evaluate, picks, tmp_path):
    known = picks[picks["line"] == "a"].assign(y=9_000.0)
    known["z"] = bed(known["x"], known["y"])
    known.attrs = picks.attrs
    points.write_points(known, tmp_path / "known.parquet")
    output = evaluate("--gridding", tmp_path / "known.parquet")
    (gridding,) = output["baselines"]
    assert gridding["name"] == "gridding"
    assert gridding["independent_of_training"]["answer"] == "yes"
    classes = [(c["low"], c["picks"]) for c in output["strata"]["distance"] if c["picks"]]
    assert classes[0] == (1_000, 200)


def test_velocity_gives_classes_of_speed(evaluate, tmp_path):
    velocity = raster(lambda x, y: np.stack([x / 100 + 0 * y, 0 * x + 0 * y]), 500, BOX, datum=None)
    path = rasters.write_geotiff(velocity, tmp_path / "velocity.tif")
    strata = evaluate("--velocity", path)["strata"]["speed"]
    assert sum(part["picks"] for part in strata) == 600
    assert [part["picks"] > 0 for part in strata] == [False, False, True, True, False]


def test_several_files_are_an_ensemble_and_so_are_members_of_a_product(evaluate, dem, tmp_path):
    other = rasters.write_geotiff(raster(bed, 250, BOX) + 4, tmp_path / "other.tif")
    files = evaluate(dems=(dem, other))
    members = xr.concat([rasters.open_raster(path) for path in (dem, other)], "realization")
    product = xr.Dataset({"bed": members[0].drop_vars("realization", errors="ignore")})
    product["bed_members"] = members
    product = product.drop_vars("band", errors="ignore").rio.write_crs(3031)
    product["bed"].attrs["vertical_datum"] = "ellipsoid"
    path = rasters.write_netcdf(product, tmp_path / "product.nc")
    of_product = evaluate(dems=(path,))
    assert not isinstance(of_product, str), of_product
    for output in (files["ensemble"], of_product["ensemble"]):
        assert output["members"] == 2
        # The members are 1, -2 and 4 m off on the three lines, and 4 m more.
        errors = np.array([[1, -2, 4], [5, 2, 8]])
        expected = np.abs(errors).mean() - 4 / 4
        assert output["crps"] == pytest.approx(expected, abs=1e-3)
        assert output["coverage_90"] == pytest.approx(1 / 3)


@pytest.fixture
def long_lines(tmp_path):
    """Two lines of 100 km over hills 16 km long, which the bed has, and over others of about 3."""
    x = np.arange(50.0, 100_000, 100)

    def hills(x):
        return 100 * np.sin(2 * np.pi * x / 16_000)

    white = np.random.default_rng(0).normal(0, 1, (2, x.size))
    others = ndimage.gaussian_filter1d(white, 8, axis=1)
    others *= 30 / others.std()
    table = pd.concat(
        [
            pd.DataFrame({"x": x, "y": y, "z": hills(x) + own, "line": name})
            for name, y, own in zip("ab", (5_000.0, 9_000.0), others, strict=True)
        ],
        ignore_index=True,
    ).astype({"line": "category"})
    table.attrs = {"crs": "EPSG:3031", "vertical_datum": "ellipsoid", "sources": []}
    points.write_points(table, tmp_path / "long.parquet")
    smooth = raster(lambda x, y: hills(x) + 0 * y, 250, (0, 0, 100_000, 15_000))
    return rasters.write_geotiff(smooth, tmp_path / "smooth.tif")


def test_a_bed_resolves_the_hills_that_it_has(evaluate, call, long_lines, tmp_path):
    entry = tmp_path / "long.parquet"
    found = evaluate(dems=(long_lines,), entry=entry)["resolution"]
    assert 3_000 < found["resolved_wavelength"] < 16_000
    assert 0 < found["significance"] <= 1
    assert found["threshold"] == max(0.5, found["significance"])
    assert found["sill"] == pytest.approx(30**2, rel=0.2)
    assert 1_000 < found["range"] < 5_000
    _, text, _ = call("evaluate", long_lines, "--points", entry)
    assert f"\ndem          {found['resolved_wavelength']:,.0f}" in text
    _, text, _ = call("evaluate", long_lines, "--points", entry, "--csv")
    (row,) = csv.DictReader(io.StringIO(text))
    assert float(row["resolved_wavelength"]) == found["resolved_wavelength"]
    assert float(row["error_sill"]) == found["sill"]


def test_picks_that_cannot_tell_what_is_resolved_say_why(evaluate, picks, tmp_path):
    found = evaluate()["resolution"]
    assert found["resolved_wavelength"] is None
    assert found["remark"].startswith("no line of 25 km without a gap longer than 1000 m")
    nameless = picks.drop(columns="line")
    nameless.attrs = picks.attrs
    points.write_points(nameless, tmp_path / "nameless.parquet")
    output = evaluate(entry=tmp_path / "nameless.parquet")
    assert output["resolution"]["remark"] == "the picks name no lines"
    assert sum(part["picks"] for part in output["strata"]["relief"]) == 600


@pytest.fixture
def flowing(tmp_path):
    """Options by which ice of 1000 m above the bed stretches and is not fed."""
    fields = {
        "surface": raster(lambda x, y: 1_000 + bed(x, y), 500, BOX),
        "velocity": raster(
            lambda x, y: np.stack([1e-3 * x + 0 * y, 0 * x * y]), 500, BOX, datum=None
        ),
        "balance": raster(lambda x, y: 0 * x * y, 1_000, BOX, datum=None),
    }
    fields["balance"].attrs["units"] = "m ice a-1"
    for name, field in fields.items():
        rasters.write_geotiff(field, tmp_path / f"{name}.tif")
    return [part for name in fields for part in (f"--{name}", tmp_path / f"{name}.tif")]


def test_mass_that_is_not_conserved_is_reported_and_mapped(evaluate, call, dem, flowing, tmp_path):
    output = evaluate(*flowing, "--gamma", 0.8, "--mass-map", tmp_path / "mass.tif")["mass"]
    scale = 0.973  # of the projection near the pole
    assert output["median"] == pytest.approx(0.8 * scale, abs=0.01)
    assert output["mad"] < 0.1
    assert output["gamma"] == 0.8
    mapped = rasters.open_raster(tmp_path / "mass.tif")
    assert float(mapped.median()) == pytest.approx(output["median"], abs=0.01)
    assert mapped.attrs["units"] == "m a-1"
    _, text, _ = call("evaluate", dem, "--points", tmp_path / "picks.parquet", *flowing)
    assert "m of ice a year" in text
    assert "gamma 1\n" in text
    inner = evaluate(*flowing, "--bounds", 5_000, 5_000, 20_000, 20_000)["mass"]
    assert inner["cells"] == 58**2


def test_a_balance_that_does_not_say_of_what_it_is_is_refused(evaluate, flowing, tmp_path):
    balance = raster(lambda x, y: 0 * x * y, 1_000, BOX, datum=None)
    rasters.write_geotiff(balance, tmp_path / "balance.tif")
    assert "balance.tif, field units: expected kg m-2 a-1" in evaluate(*flowing)


@pytest.fixture
def tiles(tmp_path):
    """Footprints of a tile that some of the picks lie in."""
    path = tmp_path / "tiles.geojson"
    boxes = gpd.GeoDataFrame(geometry=[shapely.box(20_000, 10_000, 29_000, 19_000)], crs=3031)
    boxes.to_file(path)
    return path


def test_a_planted_leak_is_refused_and_named(evaluate, tiles):
    output = evaluate("--training", tiles)
    assert "test picks are within 11 km of 1 training tiles, 50 of them inside" in output
    assert "--allow-leak" in output


def test_a_leak_that_is_allowed_marks_the_row(evaluate, tiles):
    output = evaluate("--training", tiles, "--allow-leak")
    assert output["independent_of_training"]["answer"] == "no"
    assert "training tiles" in output["independent_of_training"]["reason"]


def test_a_training_far_off_is_no_leak(evaluate, tmp_path):
    path = tmp_path / "far.geojson"
    gpd.GeoDataFrame(geometry=[shapely.box(50_000, 0, 59_000, 9_000)], crs=3031).to_file(path)
    assert evaluate("--training", path)["independent_of_training"]["answer"] == "yes"


def test_a_bed_whose_training_left_out_the_place_says_so_by_itself(evaluate, tmp_path):
    stated = {"excluded": {"areas": {"Thwaites": list(BOX)}, "buffer": 11_000}}
    checkpoint = {
        "role": "checkpoint",
        "file": "network.safetensors",
        "sources": [{"role": "training", "file": "a.csv"}],
    }

    def verdict(**more):
        made = raster(bed, 250, BOX)
        made.attrs["provenance"] = json.dumps({"sources": [checkpoint | more]})
        path = rasters.write_geotiff(made, tmp_path / "made.tif")
        return evaluate(dems=(path,))["independent_of_training"]

    assert verdict()["answer"] == "unknown"
    assert verdict(training_set=stated) == {
        "answer": "yes",
        "reason": "the training left out Thwaites",
    }


def test_one_line_only_has_no_interval_and_says_so(evaluate, picks, tmp_path, call, dem):
    one = picks[picks["line"] == "a"]
    one.attrs = picks.attrs
    points.write_points(one, tmp_path / "one.parquet")
    output = evaluate(entry=tmp_path / "one.parquet")
    assert output["intervals"] == {}
    assert output["remark"] == "no intervals: the picks are of one line"
    assert output["remark"] in call("evaluate", dem, "--points", tmp_path / "one.parquet")[1]


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("crs", "EPSG:3413", "crs: expected EPSG:3031"),
        ("vertical_datum", "EIGEN-6C4", "vertical_datum: expected EIGEN-6C4"),
    ],
)
def test_picks_in_another_crs_or_datum_are_refused(
    evaluate, picks, tmp_path, attribute, value, message
):
    picks.attrs[attribute] = value
    points.write_points(picks, tmp_path / "other.parquet")
    assert message in evaluate(entry=tmp_path / "other.parquet")


def test_a_geoid_brings_heights_to_the_datum_of_the_picks(evaluate, picks, tmp_path):
    geoid = rasters.write_geotiff(
        raster(lambda x, y: -30 + 0 * x * y, 1_000, BOX, datum=None), tmp_path / "n.tif"
    )
    low = raster(bed, 250, BOX, datum="EIGEN-6C4") + 30
    low.attrs["vertical_datum"] = "EIGEN-6C4"
    path = rasters.write_geotiff(low, tmp_path / "low.tif")
    output = evaluate("--baseline", f"low={path}", "--geoid", f"EIGEN-6C4={geoid}")
    assert output["baselines"][0]["rmse"] == pytest.approx(output["rmse"], abs=1e-3)
    assert "give geoids" in evaluate("--baseline", f"low={path}")


def test_a_baseline_of_unknown_datum_is_refused_unless_stated(evaluate, tmp_path):
    path = rasters.write_geotiff(raster(bed, 250, BOX, datum=None), tmp_path / "unknown.tif")
    assert "found unknown; state it: --datum NAME=DATUM" in evaluate("--baseline", f"a={path}")
    output = evaluate("--baseline", f"a={path}", "--datum", "a=ellipsoid")
    assert output["baselines"][0]["picks"] == 600


def test_a_dem_without_nodata_or_crs_is_refused(evaluate, tmp_path):
    plain = raster(bed, 250, BOX)
    plain.rio.to_raster(tmp_path / "plain.tif")
    assert "field nodata" in evaluate(dems=(tmp_path / "plain.tif",))
    bare = plain.drop_vars("spatial_ref").rio.write_nodata(np.nan)
    bare.rio.to_raster(tmp_path / "bare.tif")
    assert "field crs" in evaluate(dems=(tmp_path / "bare.tif",))


def test_a_dem_elsewhere_and_missing_files_are_reported(evaluate, tmp_path):
    far = raster(bed, 250, (500_000, 0, 510_000, 10_000))
    path = rasters.write_geotiff(far, tmp_path / "far.tif")
    assert "expected values at the picks, found none at any of 600" in evaluate(dems=(path,))
    assert "absent.tif" in evaluate(dems=(tmp_path / "absent.tif",))
    assert "absent.parquet" in evaluate(entry=tmp_path / "absent.parquet")
    assert "neither a file nor a dataset" in evaluate("--baseline", "a=absent.tif")
    assert "ensemble: " in evaluate(dems=(tmp_path / "dem.tif", path))


def test_a_truncated_dem_is_reported(evaluate, dem):
    dem.write_bytes(dem.read_bytes()[:3_000])
    assert f"{dem}: expected readable cells" in evaluate()


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--points", "a", "--results", "a.csv"),
        ("--points", "a", "--baseline", "b"),
        ("--benchmark", "made-up-glacier", "--season", "a"),
        ("--points", "a", "--surface", "b.tif"),
        ("--points", "a", "--mass-map", "b.tif"),
        ("--points", "a", "--gamma", "1.5"),
        ("--points", "a.parquet", "--season", "b"),
    ],
)
def test_a_call_that_says_too_little_or_too_much_is_at_fault(call, options):
    assert call("evaluate", "dem.tif", *options)[0] == 2


@pytest.fixture
def defined(tmp_path, picks, monkeypatch):
    """A benchmark of these picks, as if the repository defined it."""
    real = repository.root()
    root = tmp_path / "root"
    (root / "validation").mkdir(parents=True)
    for name in (
        "data_list.yml",
        "validation/benchmark.schema.json",
        "validation/registry.schema.json",
    ):
        (root / name).symlink_to(real / name)
    content = yaml.safe_load((real / "validation" / "benchmark.yml").read_text())
    definition = content["benchmarks"].pop("made-up-glacier")
    definition["test"] = {
        "points": [str(tmp_path / "picks.parquet")],
        "bounds": [0, 0, 30_000, 18_000],
        "picks": 400,
        "sha256": benchmarks.identity(picks[picks["y"] < 18_000]),
    }
    definition["baselines"] = {"bicubic prior": str(tmp_path / "prior.tif")}
    content["benchmarks"]["plane"] = definition
    (root / "validation" / "benchmark.yml").write_text(yaml.safe_dump(content))
    monkeypatch.setattr(repository, "root", lambda: root)
    return rasters.write_geotiff(raster(bed, 1_000, BOX), tmp_path / "prior.tif")


def test_a_benchmark_scores_in_its_box_and_keeps_a_row(call, defined, dem, tmp_path):
    table = tmp_path / "results.csv"
    for _ in range(2):
        code, out, err = call("evaluate", dem, "--benchmark", "plane", "--results", table, "--csv")
        assert code == 0, err
    rows = list(csv.DictReader(table.open()))
    assert len(rows) == 2
    assert (rows[0]["benchmark"], rows[0]["version"], rows[0]["picks"]) == ("plane", "1", "400")
    assert float(rows[0]["rmse"]) == pytest.approx(np.sqrt(2.5), abs=1e-3)
    assert [row["name"] for row in csv.DictReader(io.StringIO(out))] == ["dem", "bicubic prior"]
    table.write_text("other,columns\n")
    assert call("evaluate", dem, "--benchmark", "plane", "--results", table)[0] == 1
    assert table.read_text() == "other,columns\n"


def test_files_of_a_benchmark_that_are_missing_are_reported_in_one_line(
    call, defined, dem, tmp_path
):
    (tmp_path / "picks.parquet").unlink()
    defined.unlink()
    code, _, err = call("evaluate", dem, "--benchmark", "plane")
    assert (code, err.count("\n")) == (1, 1)
    assert "picks.parquet" in err
    assert "prior.tif" in err
    assert "makes its files" in err


def test_other_picks_than_those_of_the_benchmark_are_refused(call, defined, dem, picks, tmp_path):
    points.write_points(picks.assign(z=picks["z"] + 1), tmp_path / "picks.parquet")
    code, _, err = call("evaluate", dem, "--benchmark", "plane")
    assert (code, err.count("\n")) == (1, 1)
    assert "field sha256: expected" in err


def test_an_unknown_benchmark_offers_those_there_are(call):
    code, _, err = call("evaluate", "dem.tif", "--benchmark", "made-up-glacer")
    assert code == 1
    assert "did you mean made-up-glacier?" in err


def test_the_identity_is_that_of_the_definition_by_hand():
    table = pd.DataFrame({"x": [250.0, -0.5], "y": [10.0, 20.4], "z": [-500.25, 3]})
    rows = sorted([[250, 10, -5_003], [-1, 20, 30]])
    expected = hashlib.sha256(np.array(rows, "<i8").tobytes()).hexdigest()
    assert benchmarks.identity(table) == expected
    assert benchmarks.identity(table.assign(x=table.x + 0.9)) != expected


def test_an_invalid_definition_is_reported_with_its_line(tmp_path):
    text = (repository.root() / "validation" / "benchmark.yml").read_text()
    path = tmp_path / "benchmark.yml"
    path.write_text(text.replace("[rmse, mae,", "[rmse, mea,"))
    with pytest.raises(
        InvalidDataError, match=r"line \d+.*metrics.*expected rmse, mae.*found 'mea'"
    ):
        benchmarks.load("made-up-glacier", path)


def test_the_schema_of_benchmarks_is_one():
    root = repository.root() / "validation"
    assert validation.schema_faults(root / "benchmark.schema.json") == []
    assert schemas.faults(schemas.load(root / "benchmark.yml"), "benchmark") == []
