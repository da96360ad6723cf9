"""Pipelines and raw files in, picks out; every fault says where it is."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pyproj
import pytest
from geopandas.testing import assert_geodataframe_equal
from hypothesis import given, settings
from hypothesis import strategies as st
from support.citing import sources_of
from typer.testing import CliRunner

from deepbedmap import registry, repository, schemas, validation
from deepbedmap.errors import InvalidDataError, MissingDataError
from deepbedmap.extras import MissingExtraError
from deepbedmap.points import (
    check_pipeline,
    raw_text,
    read_points,
    to_geodataframe,
    write_points,
    write_survey,
)

BUNDLED = (
    "2007tx",
    "2010tr",
    "201x_Antarctica_Basler",
    "201x_Antarctica_P3",
    "20xx_Antarctica_DC8",
    "20xx_Antarctica_DC8_THW",
    "20xx_Antarctica_TO",
    "Data_20141121_05",
    "WISE_ISODYN_RadarByFlight",
    "bed_WGS84_grid",
    "bed_depth_below_WGS84_datum",
    "bedmap1",
    "bedmap2",
    "bedmap3",
    "istarxx",
)

CRESIS_HEADER = "LAT,LON,UTCTIMESOD,THICK,ELEVATION,FRAME,SURFACE,BOTTOM,QUALITY\n"

Lay = Callable[..., Path]


@pytest.fixture(autouse=True)
def no_other_raw_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPBEDMAP_DATA_DIR", str(tmp_path / "data"))


@pytest.fixture
def lay(tmp_path: Path) -> Lay:
    """Puts a bundled pipeline, or one made of stages, into a folder together with raw files."""

    def lay(pipeline: str | list[dict[str, Any]], files: dict[str, str | bytes]) -> Path:
        folder = tmp_path / "survey" / "highres"
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(pipeline, str):
            path = folder / f"{pipeline}.json"
            shutil.copy(repository.root() / "highres" / path.name, path)
        else:
            path = folder / "survey.json"
            path.write_text(json.dumps({"pipeline": pipeline}, indent=1))
        for name, content in files.items():
            data = content if isinstance(content, bytes) else content.encode()
            (folder / name).write_bytes(data)
        return path

    return lay


def reader(**options: Any) -> dict[str, Any]:
    return {
        "type": "readers.text",
        "filename": "picks.csv",
        "header": "X,Y,Z",
        "separator": ",",
        "skip": 1,
        **options,
    }


def fault_of(pipeline: Path) -> str:
    with pytest.raises(InvalidDataError) as caught:
        read_points(pipeline)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_real_cresis_picks_equal_the_reference_and_keep_the_first_record(
    lay: Lay, shared_data: Path, shared_reference: Path
) -> None:
    pipeline = lay("20xx_Antarctica_DC8", {})
    raw = "2018_Antarctica_DC8.csv"
    (pipeline.parent / raw).symlink_to(shared_data / "cresis" / raw)
    points = read_points(pipeline)
    reference = np.load(shared_reference / "cresis_xyz.npz")["xyz"]
    assert len(points) == 26_718
    np.testing.assert_allclose(points[["x", "y", "z"]].iloc[1:], reference, rtol=0, atol=1e-3)
    assert points["z"][0] == 3340.2050 - 2814.96
    assert points["time"][0] == pd.Timestamp("2018-10-30T18:22:47.8195")
    assert points.attrs["crs"] == "EPSG:3031"


def test_real_greenland_picks_keep_their_own_crs(lay: Lay, shared_data: Path) -> None:
    pipeline = lay([reader(filename="79N.csv", override_srs="EPSG:3413")], {})
    (pipeline.parent / "79N.csv").symlink_to(shared_data / "79N" / "79N.csv")
    points = read_points(pipeline)
    assert len(points) == 57_315
    assert tuple(points.loc[0, ["x", "y", "z"]]) == (449970.0, -1081400.0, -456.96)
    assert points.attrs["crs"] == "EPSG:3413"


def test_cresis_seasons_are_read_by_name_and_each_pick_has_frame_quality_and_time(
    lay: Lay, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = lay(
        "20xx_Antarctica_DC8",
        {
            "2011_Antarctica_DC8.csv": CRESIS_HEADER
            + "-75.0,-100.0,86399.5,900,1500.5,2011110901001,600,1500.5,1\n"
            + "-75.1,-100.1,86400.5,900,1500.0,2011110901002,600,1800.0,3\n"
            + "-75.2,-100.2,86401.5,-9999,1500.0,2011110901002,600,-9999.00,3\n"
            + "nan,-100.3,86402.5,900,1500.0,2011110901002,600,1800.0,3\n"
            + "-75.4,-100.4,86403.5,900,1500.0,2011110901002,600,,\n",
            "2009_Antarctica_DC8.csv": CRESIS_HEADER
            + "-80.0,120.0,0.25,900,2000.0,2009101601007,600,2500.0,\n",
            "2010_Antarctica_DC8.csv": CRESIS_HEADER,
            "2010_Antarctica_TO.csv": "of another survey",
        },
    )
    with caplog.at_level(logging.INFO):
        points = read_points(pipeline)
    x, y = pyproj.Transformer.from_crs(4326, 3031, always_xy=True).transform(
        [120.0, -100.0, -100.1], [-80.0, -75.0, -75.1]
    )
    np.testing.assert_allclose(points["x"], x, rtol=1e-9)
    np.testing.assert_allclose(points["y"], y, rtol=1e-9)
    assert points["z"].tolist() == [-500.0, 0.0, -300.0]
    assert points["line"].tolist() == [
        "2009_Antarctica_DC8/2009101601007",
        "2011_Antarctica_DC8/2011110901001",
        "2011_Antarctica_DC8/2011110901002",
    ]
    assert points["quality"].fillna(-1).tolist() == [-1, 1, 3]
    assert points["time"].tolist() == [
        pd.Timestamp("2009-10-16T00:00:00.25"),
        pd.Timestamp("2011-11-09T23:59:59.5"),
        pd.Timestamp("2011-11-10T00:00:00.5"),
    ]
    assert points.dtypes.astype(str).to_dict() == {
        "x": "float64",
        "y": "float64",
        "z": "float64",
        "line": "category",
        "quality": "Int8",
        "time": "datetime64[ns]",
    }
    assert "5 records, 2 dropped for a missing coordinate or bed, 1 by" in caplog.text
    sources = points.attrs["sources"]
    assert [source["file"] for source in sources] == sorted(source["file"] for source in sources)
    assert len(sources) == 3
    assert json.loads(json.dumps(sources)) == sources


def test_the_thwaites_recipe_keeps_only_its_box(lay: Lay) -> None:
    record = "{},{},1,900,1500.0,2011110901001,600,1800.0,1\n"
    inside = record.format(-75.9, -107.0)
    outside = record.format(-80.0, 120.0)
    raw = {"2011_Antarctica_DC8.csv": CRESIS_HEADER + outside + inside}
    assert len(read_points(lay("20xx_Antarctica_DC8", raw))) == 2
    points = read_points(lay("20xx_Antarctica_DC8_THW", raw))
    assert len(points) == 1
    assert points["x"].between(-1524500, -1274500).all()
    assert points["y"].between(-650000, -300000).all()


@pytest.mark.parametrize(
    ("recipe", "files", "extra"),
    [
        ("2007tx", ("2007t1.txt", "2007tr.txt"), ""),
        ("2010tr", ("2010tr.txt",), "\t512.5"),
        ("istarxx", ("istar07.txt",), ""),
    ],
)
def test_pine_island_files_give_the_firn_corrected_bed(
    lay: Lay, recipe: str, files: tuple[str, ...], extra: str
) -> None:
    rows = [
        "-1580000.5\t-120000.25\t812\t12.5\t1500\t1510\t-690\t-700.5",
        "-1580000.5\t-119990.25\t812\t12.5\t0\t0\t0\t0",
        "-1580000.5\t-119980.25\t812\t12.5\tnan\tnan\tnan\tnan",
        "-1580000.5\t-119970.25\t512\t9.5\t500\t512\t12\t0",
        "-1580000.5\t-110000.25\t812\t12.5\t1500\t1510\t-690\t-701.5",
    ]
    heading = "x\ty\tz_surf\ttime\th\th_fc\tz\tz_fc" + ("\tz-surf" if extra else "")
    raw = "\n".join([heading, *(row + extra for row in rows)]) + "\n"
    points = read_points(lay(recipe, dict.fromkeys(files, raw)))
    assert points["z"].tolist() == [-700.5, 0.0, -701.5] * len(files)
    assert (points["x"] == -1580000.5).all()
    stems = [file.removesuffix(".txt") for file in files]
    assert points["line"].tolist() == [f"{s}/{n}" for s in stems for n in (1, 1, 2)]
    assert list(points) == ["x", "y", "z", "line"]
    assert points.attrs["crs"] == "EPSG:3031"


def test_the_rutford_grid_has_twenty_lines_of_header_and_one_line(lay: Lay) -> None:
    heading = "".join(f"note {number}: a\tb\n" for number in range(20)).encode()
    raw = heading.replace(b"note 3", b"68\xb0 W") + b"\n".join(
        [b"-1290000\t130000\t-1500.25\t1\t1", b"", b"-1280000\t130000\t0\t81\t1"]
    )
    points = read_points(lay("bed_WGS84_grid", {"bed_WGS84_grid.txt": raw}))
    assert points["z"].tolist() == [-1500.25, 0.0]
    assert points["line"].tolist() == ["bed_WGS84_grid"] * 2
    cut = {"bed_WGS84_grid.txt": raw + b"\n-1270000"}
    message = fault_of(lay("bed_WGS84_grid", cut))
    assert (
        "line 24: expected 5 fields separated by tabs (X,Y,Z,column,row), found 1 field" in message
    )


def test_carlson_with_a_byte_order_mark_and_windows_line_ends(lay: Lay) -> None:
    raw = b"\xef\xbb\xbfx,y,z\r\n-1340000,190000,-900.5\r\n-1340000, 190100 ,0\r\n"
    points = read_points(
        lay("bed_depth_below_WGS84_datum", {"bed_depth_below_WGS84_datum.csv": raw})
    )
    assert points[["y", "z"]].to_numpy().tolist() == [[190000, -900.5], [190100, 0]]


@pytest.mark.parametrize("options", [{"skip": 0}, {"skip": 0, "header": None}])
def test_a_byte_order_mark_is_no_part_of_a_record_or_name(
    lay: Lay, options: dict[str, Any]
) -> None:
    options = {key: value for key, value in reader(**options).items() if value is not None}
    heading = b"" if "header" in options else b"X,Y,Z\r\n"
    raw = b"\xef\xbb\xbf" + heading + b" 1,2,3\r\n"
    points = read_points(lay([options], {"picks.csv": raw}))
    assert points[["x", "y", "z"]].to_numpy().tolist() == [[1, 2, 3]]


def test_space_after_a_byte_order_mark_is_no_field(lay: Lay) -> None:
    raw = b"\xef\xbb\xbf 1 2 3\n 4 5  6\n"
    pipeline = lay([reader(header="X Y Z", separator=" ", skip=0)], {"picks.csv": raw})
    assert read_points(pipeline)["x"].tolist() == [1, 4]


def wise_record(**values: Any) -> str:
    record = {
        "FlightID": "W35",
        "Line_name": "W35_1",
        "lon": 150.5,
        "lat": -75.25,
        "easting": 1,
        "northing": 2,
        "height": 2500.5,
        "date": "2005/12/24",
        "time": "23:59:58.5",
        "segy": "w35a.sgy",
        "trace": 1,
        "pri": 7,
        "surf": 310,
        "bed": 912,
        "Z": -512.75,
        "merged": -512.75,
        "mask": "*",
        "picked": -512.75,
        "surface": 2000.0,
        "thickness": 2512.75,
    } | values
    return "  ".join(str(value) for value in record.values()) + "\n"


def test_wise_isodyn_has_names_among_its_numbers_and_stars_for_missing(lay: Lay) -> None:
    raw = "heading\n" * 11 + "".join(
        [
            wise_record(),
            wise_record(Z=0, time="0:00:01", date="2005/12/25"),
            wise_record(bed="*", Z="*"),
            "   " + wise_record(FlightID="W36", lon="*"),
            wise_record(FlightID="W37", Z="*"),
            "\t" + wise_record(FlightID="W38", bed=3).replace("  ", "\t"),
            wise_record(FlightID="*"),
        ]
    )
    points = read_points(lay("WISE_ISODYN_RadarByFlight", {"WISE_ISODYN_RadarByFlight.txt": raw}))
    assert points["z"].tolist() == [-512.75, 0.0, -512.75, -512.75]
    stem = "WISE_ISODYN_RadarByFlight"
    assert points["line"].tolist() == [f"{stem}/W35", f"{stem}/W35", f"{stem}/W38", stem]
    assert points["line"].cat.categories.size == 3
    assert points["time"].tolist()[:2] == [
        pd.Timestamp("2005-12-24T23:59:58.5"),
        pd.Timestamp("2005-12-25T00:00:01"),
    ]
    x, y = pyproj.Transformer.from_crs(4326, 3031, always_xy=True).transform(150.5, -75.25)
    np.testing.assert_allclose(points[["x", "y"]], [[x, y]] * 4, rtol=1e-12)


@pytest.mark.parametrize(
    ("dates", "times", "expected"),
    [
        (
            ("24/12/2005", "01/12/2005"),
            ("3600", "86461.5"),
            ("2005-12-24T01", "2005-12-02T00:01:01.5"),
        ),
        (
            ("20051224", "20051225"),
            ("0:00:01", "1:00:00"),
            ("2005-12-24T00:00:01", "2005-12-25T01"),
        ),
        (
            ("20051224", "20051225"),
            ("235958", "010203"),
            ("2005-12-24T23:59:58", "2005-12-25T01:02:03"),
        ),
        (("01/12/2005", "02/12/2005"), ("0:00:01", "1:00:00"), None),
        (("20051224", "20051225"), ("3600", "4500"), None),
    ],
)
def test_a_date_or_time_that_can_be_read_in_two_ways_is_no_time(
    lay: Lay,
    caplog: pytest.LogCaptureFixture,
    dates: tuple[str, ...],
    times: tuple[str, ...],
    expected: tuple[str, ...] | None,
) -> None:
    raw = "x\n" + "".join(
        f"0,-500000,5,{day},{clock}\n" for day, clock in zip(dates, times, strict=True)
    )
    points = read_points(lay([reader(header="X,Y,Z,Date,Time")], {"picks.csv": raw}))
    if expected is None:
        assert points["time"].isna().all()
        assert "several ways" in caplog.text
    else:
        assert points["time"].tolist() == [pd.Timestamp(time) for time in expected]


def test_a_header_can_come_from_the_file(lay: Lay) -> None:
    stages = [
        {"type": "readers.text", "filename": "picks.csv"},
        {"type": "filters.assign", "value": ["Z = ELEVATION - BOTTOM", "Z = -Z"]},
    ]
    points = read_points(lay(stages, {"picks.csv": "x,Y,ELEVATION,BOTTOM\n1,2,30,40\n"}))
    assert points[["x", "y", "z"]].to_numpy().tolist() == [[1, 2, 10]]
    assert points.attrs["crs"] is None


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_pipelines_are_valid_and_pdal_can_read_their_headers(name: str) -> None:
    document = schemas.validate_file(repository.root() / "highres" / f"{name}.json", "pipeline")
    stages = document.content["pipeline"]
    separator = stages[0]["separator"]
    names = stages[0]["header"].split(separator)
    assert all(name.isascii() and name.isidentifier() for name in names)
    assert len({name.upper() for name in names}) == len(names)
    values = [stage["value"] for stage in stages if "value" in stage]
    texts = [text for value in values for text in ([value] if isinstance(value, str) else value)]
    assigned = [text.split()[0] for text in texts]
    assert {"X", "Y", "Z"} <= {*names, *assigned}
    crs = [stage["out_srs"] for stage in stages if "out_srs" in stage]
    assert [*crs, stages[0].get("override_srs")][0] == "EPSG:3031"
    with pytest.raises(MissingDataError, match=r"there is no .*(deepbedmap fetch|ask)"):
        read_points(name)


def test_every_bundled_pipeline_is_tested() -> None:
    assert sorted(BUNDLED) == sorted(
        path.stem for path in (repository.root() / "highres").glob("*.json")
    )


def test_an_unknown_pipeline_is_named_with_those_that_there_are() -> None:
    with pytest.raises(MissingDataError, match=r"nowhere.*2010tr"):
        read_points("nowhere")


def test_raw_files_are_found_in_the_data_folder_but_first_beside_the_pipeline(
    lay: Lay, tmp_path: Path
) -> None:
    pipeline = lay([reader()], {})
    folder = tmp_path / "data" / "highres"
    folder.mkdir(parents=True)
    (folder / "picks.csv").write_text("x\n1,2,3\n")
    assert read_points(pipeline)["z"].tolist() == [3]
    (pipeline.parent / "picks.csv").write_text("x\n1,2,4\n")
    assert read_points(pipeline)["z"].tolist() == [4]


def test_the_registry_beside_gives_datum_and_crs_and_names_absent_files(
    lay: Lay, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = lay("2007tx", {"2007t1.txt": "x\n0\t-5e5\t1\t1\t1\t1\t1\t1\n"})
    registry = (repository.root() / "data_list.yml").read_text()
    (pipeline.parents[1] / "data_list.yml").write_text(registry)
    points = read_points(pipeline)
    assert points.attrs["crs"] == "EPSG:3031"
    assert points.attrs["vertical_datum"] is None
    assert [source["citekey"] for source in points.attrs["sources"]] == ["Bingham2018PIG"]
    assert "read without 2007tr.txt" in caplog.text
    dc8 = lay("20xx_Antarctica_DC8", {})
    with pytest.raises(MissingDataError, match="deepbedmap fetch Shi2010CRESIS"):
        read_points(dc8)
    (dc8.parent / "2011_Antarctica_DC8.csv").write_text(
        CRESIS_HEADER + "-80,120,1,900,1500,2011110901001,600,1800,1\n"
    )
    assert read_points(dc8).attrs["vertical_datum"] == "ellipsoid"


PICKS = "x,y,z\n0,-500000,1\n\n250,-500000,2\n"


@pytest.mark.parametrize(
    ("raw", "line", "phrases"),
    [
        ("", 1, ["an empty file"]),
        ("\n \n", 1, ["an empty file"]),
        (
            PICKS + "500,-500000\n",
            5,
            ["expected 3 fields separated by ',' (X,Y,Z)", "2 fields: '500,-500000'"],
        ),
        (PICKS + "500,-500000,1,1\n", 5, ["expected 3 fields", "found 4 fields"]),
        (PICKS.replace(",2", ",two"), 4, ["field Z", "expected a number", "found 'two'"]),
        (PICKS.replace(",2", ",1 2"), 4, ["field Z", "found '1 2'"]),
        (PICKS.replace(",2", ",inf"), 4, ["field Z", "expected a finite number"]),
        (PICKS.replace(",", ";"), 2, ["separated by ','", "1 field: '0;-500000;1'", "separator"]),
        (PICKS.replace("x,y,z", "x,y"), 1, ["expected 3 fields", "2 fields: 'x,y'"]),
        (PICKS.encode() + b"1,-5e5,\xb0\n", 5, ["expected text in UTF-8", "0xb0"]),
        (PICKS.replace("250,", "3500000,"), 4, ["south of 60", "x 3500000"]),
        ("x,y,z\n-100.5,-75.2,1\n", 2, ["metres", "degrees", "x -100.5"]),
    ],
)
def test_a_faulty_raw_file_is_refused_with_file_and_line(
    lay: Lay, raw: str | bytes, line: int, phrases: list[str]
) -> None:
    pipeline = lay([reader(override_srs="EPSG:3031")], {"picks.csv": raw})
    text = fault_of(pipeline)
    assert text.startswith(f"{pipeline.parent / 'picks.csv'}, line {line}")
    for part in phrases:
        assert part in text


def test_a_file_that_ends_within_its_header_is_refused(lay: Lay) -> None:
    pipeline = lay([reader(skip=20)], {"picks.csv": PICKS})
    assert "expected 20 lines before the first record" in fault_of(pipeline)


def test_no_pick_at_all_is_refused(lay: Lay) -> None:
    assert "no picks" in fault_of(lay([reader()], {"picks.csv": "x,y,z\n"}))
    assert "no picks" in fault_of(lay([reader()], {"picks.csv": "x,y,z\n1,2,*\n"}))


def test_coordinates_that_are_no_degrees_are_refused_with_their_line(lay: Lay) -> None:
    raw = CRESIS_HEADER + (
        "-75.0,-100.0,1,900,1500.5,2011110901001,600,1500.5,1\n"
        "-250000.0,-1500000.0,1,900,1500.5,2011110901001,600,1500.5,1\n"
    )
    text = fault_of(lay("20xx_Antarctica_DC8", {"2011_Antarctica_DC8.csv": raw}))
    assert "2011_Antarctica_DC8.csv, line 3" in text
    assert "from coordinates in EPSG:4326" in text


def test_latitude_and_longitude_in_the_wrong_order_are_refused(lay: Lay) -> None:
    raw = CRESIS_HEADER + "60.0,-75.0,1,900,1500.5,2011110901001,600,1500.5,1\n"
    text = fault_of(lay("20xx_Antarctica_DC8", {"2011_Antarctica_DC8.csv": raw}))
    assert "line 2" in text
    assert "south of 60" in text


def test_a_quality_that_is_no_whole_number_is_refused(lay: Lay) -> None:
    raw = "x\n1,2,3,1\n1,2,3,1.5\n"
    text = fault_of(lay([reader(header="X,Y,Z,QUALITY")], {"picks.csv": raw}))
    assert "line 3" in text
    assert "a whole number as QUALITY" in text


KEEP = {"type": "filters.expression"}
ASSIGN = {"type": "filters.assign"}
REPROJECT = {"type": "filters.reprojection", "in_srs": "EPSG:4326", "out_srs": "EPSG:3031"}


@pytest.mark.parametrize(
    ("stages", "phrases"),
    [
        ([reader(), {"type": "filters.outlier"}], ["filters.outlier", "filters.assign"]),
        ([reader(usecols="X,Y")], ["usecols"]),
        ([REPROJECT, reader()], ["expected readers.text as the first stage, and no other"]),
        ([reader(), reader()], ["expected readers.text as the first stage, and no other"]),
        ([reader(header="X,Y")], ["a column Z", "found X, Y"]),
        ([reader(header="X,Y,Z,x")], ["each name once", "'X' again"]),
        ([reader(header="X,Y,Z,z-surf")], ["letters, digits and _", "'z-surf'"]),
        ([reader(override_srs="EPSG:99999999")], ["PROJ", "EPSG:99999999"]),
        ([reader(), {**REPROJECT, "in_srs": "EPSG:4979"}], ["horizontal", "EPSG:4979"]),
        ([reader(), {**KEEP, "expression": "BOTTOM > 0"}], ["X, Y, Z", "'BOTTOM'"]),
        ([reader(), {**KEEP, "expression": "Z"}], ["a comparison", "'Z'"]),
        ([reader(), {**KEEP, "expression": "Z > 0 > X"}], ["a comparison", "Z > 0"]),
        ([reader(), {**KEEP, "expression": "(Z > 0) + 1 > 0"}], ["a number", "'Z > 0"]),
        ([reader(), {**KEEP, "expression": "Z > "}], ["a complete expression"]),
        ([reader(), {**KEEP, "expression": "Z > 0 & X > 0"}], ["'&'"]),
        ([reader(), {**KEEP, "expression": "Z.real > 0"}], ["'.real'"]),
        ([reader(), {**KEEP, "expression": "X ** Y > 0"}], ["a number", "X ** Y"]),
        ([reader(), {**ASSIGN, "value": "Z = __import__(X)"}], ["'__import__(X)'"]),
        ([reader(), {**ASSIGN, "value": "Z = sqrt(X)"}], ["'sqrt(X)'"]),
        ([reader(), {**ASSIGN, "value": "Z - 1"}], ["an assignment"]),
        ([reader(), {**ASSIGN, "value": "Z = X > 0"}], ["a number", "X > 0"]),
        ([reader(), {**ASSIGN, "value": "Z = 1 WHERE"}], ["a complete expression"]),
        ([reader(), {**ASSIGN, "value": "Z = 1 WHERE X"}], ["a comparison", "'X'"]),
        ([reader(), {**ASSIGN, "value": "Z = 1 WHERE THICK > 0"}], ["X, Y, Z", "'THICK'"]),
        ([reader(), {**ASSIGN, "value": "Z = 1 WHERE X > 0 WHERE Y > 0"}], ["a complete"]),
    ],
)
def test_a_faulty_pipeline_is_refused_by_name(
    lay: Lay, stages: list[dict[str, Any]], phrases: list[str]
) -> None:
    pipeline = lay(stages, {"picks.csv": PICKS})
    text = fault_of(pipeline)
    assert text.startswith(f"{pipeline}, line ")
    for part in phrases:
        assert part in text
    assert list(map(str, check_pipeline(pipeline))) == [text]


def test_a_pipeline_is_checked_without_its_raw_files(lay: Lay) -> None:
    assert check_pipeline(lay("bedmap3", {})) == []


def test_an_unknown_engine_is_a_wrong_call(lay: Lay) -> None:
    with pytest.raises(ValueError, match="'native' or 'pdal'"):
        read_points(lay([reader()], {"picks.csv": PICKS}), engine="gmt")  # type: ignore[arg-type]


numbers = st.integers(0, 2).map(float) | st.floats(-1e6, 1e6).map(lambda value: round(value, 3))
terms = st.recursive(
    st.sampled_from(["X", "Y", "Z", "h_fc", "0", "1", "2.50"]),
    lambda inner: (
        st.builds("({} {} {})".format, inner, st.sampled_from("+-*"), inner)
        | inner.map("-({})".format)
    ),
    max_leaves=6,
)
conditions = st.recursive(
    st.builds("{} {} {}".format, terms, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), terms),
    lambda inner: (
        st.builds("({} {} {})".format, inner, st.sampled_from(["&&", "||"]), inner)
        | st.builds("{} {} {}".format, inner, st.sampled_from(["&&", "||"]), inner)
        | inner.map("!({})".format)
    ),
    max_leaves=5,
)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(numbers, numbers, numbers, numbers), min_size=1, max_size=5),
    term=terms,
    condition=conditions,
)
def test_expressions_mean_what_they_mean_to_numpy(
    rows: list[tuple[float, ...]],
    term: str,
    condition: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("survey")
    stages = [
        reader(header="X,Y,Z,h_fc"),
        {**KEEP, "expression": f"{condition} || X == {rows[0][0]!r}".replace("== -", "== 0 - ")},
        {**ASSIGN, "value": f"Z = {term}"},
    ]
    (folder / "survey.json").write_text(json.dumps({"pipeline": stages}))
    lines = [",".join(map(repr, row)) for row in rows]
    (folder / "picks.csv").write_text("\n".join(["x", *lines]))
    columns = dict(zip(["X", "Y", "Z", "h_fc"], np.array(rows).T, strict=True))
    python = condition.replace("&&", " and ").replace("||", " or ").replace("!(", " not (")
    keep = [
        index
        for index, row in enumerate(rows)
        if eval(python, dict(zip(columns, row, strict=True))) or row[0] == rows[0][0]  # noqa: S307
    ]
    expected = np.broadcast_to(eval(term, {**columns}), len(rows))[keep]  # noqa: S307
    points = read_points(folder / "survey.json")
    np.testing.assert_array_equal(points["x"], columns["X"][keep])
    np.testing.assert_array_equal(points["z"], expected)


def test_without_pdal_its_engine_says_how_to_get_it(
    lay: Lay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pdal", None)
    with pytest.raises(MissingExtraError, match="conda install -c conda-forge python-pdal"):
        read_points(lay([reader()], {"picks.csv": PICKS}), engine="pdal")


class StandIn:
    """What PDAL's documentation says of the stages in use, one record at a time."""

    def __init__(self, text: str) -> None:
        self.stages = json.loads(text)

    def execute(self) -> None:
        for stage in self.stages:
            getattr(self, stage["type"].replace(".", "_"))(**stage)
        dtype = [(name, float) for name in self.names]
        rows = [tuple(record[name] for name in self.names) for record in self.records]
        self.arrays = [np.array(rows, dtype=dtype)]

    def readers_text(
        self, filename: str, header: str, separator: str, skip: int, **_: object
    ) -> None:
        def number(text: str) -> float:
            try:
                return float(text)
            except ValueError:
                return 0.0

        self.names = header.split(separator)
        lines = Path(filename).read_text().splitlines()[skip:]
        self.records = [
            dict(zip(self.names, map(number, line.split(separator)), strict=True)) for line in lines
        ]

    def filters_assign(self, value: str | list[str], **_: object) -> None:
        texts = [value] if isinstance(value, str) else value
        for name in (text.split()[0] for text in texts):
            if name not in self.names:
                self.names.append(name)
                self.records = [{**record, name: 0.0} for record in self.records]
        for record in self.records:
            for text in texts:
                name, _equals, term = text.partition(" = ")
                term, _where, condition = term.partition(" WHERE ")
                if not condition or self.evaluate(condition, record):
                    record[name] = self.evaluate(term, record)

    def filters_expression(self, expression: str, **_: object) -> None:
        self.records = [record for record in self.records if self.evaluate(expression, record)]

    def filters_reprojection(self, in_srs: str, out_srs: str, **_: object) -> None:
        transformer = pyproj.Transformer.from_crs(in_srs, out_srs, always_xy=True)
        for record in self.records:
            record["X"], record["Y"] = transformer.transform(record["X"], record["Y"])

    @staticmethod
    def evaluate(text: str, record: dict[str, float]) -> Any:
        python = re.sub("!(?!=)", " not ", text).replace("&&", " and ").replace("||", " or ")
        return eval(python, {}, record)  # noqa: S307


@pytest.fixture(params=["stand-in", "real"])
def pdal(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "real":
        pytest.importorskip("pdal", reason="python-pdal is not installed")
    else:
        monkeypatch.setitem(sys.modules, "pdal", SimpleNamespace(Pipeline=StandIn))


@pytest.mark.usefixtures("pdal")
@pytest.mark.parametrize("recipe", ["20xx_Antarctica_DC8", "2007tx", "bedmap3"])
def test_both_engines_agree(lay: Lay, recipe: str) -> None:
    cresis = "-75.{0},-100.0,{0},900,1500.5,2011110901001,600,{0}.5,1\n"
    pine_island = "-1580000\t-12000{0}.5\t1\t1\t1\t{0}\t1\t-{0}.5\n"
    pipeline = lay(
        recipe,
        {
            "2011_Antarctica_DC8.csv": CRESIS_HEADER + "".join(map(cresis.format, range(9))),
            "2007t1.txt": "x\n" + "".join(map(pine_island.format, range(9))),
            "BAS_2010_IMAFI_AIR_BM3.csv": bedmap(BEDMAP_RECORDS),
        },
    )
    native, pdal = read_points(pipeline), read_points(pipeline, engine="pdal")
    pd.testing.assert_frame_equal(native, pdal, rtol=1e-9)


@pytest.mark.usefixtures("pdal")
def test_pdal_is_not_given_a_file_whose_columns_it_would_mistake(lay: Lay) -> None:
    raw = bedmap(BEDMAP_RECORDS, comments=17)
    pipeline = lay("bedmap3", {"BAS_2010_IMAFI_AIR_BM3.csv": raw})
    assert len(read_points(pipeline)) == 6
    with pytest.raises(InvalidDataError, match=r"line 18: .*19 lines.*use engine 'native'"):
        read_points(pipeline, engine="pdal")


BEDMAP3 = repository.root() / "highres" / "bedmap3.json"
BEDMAP_COLUMNS = {
    "trajectory_id": 7,
    "trace_number": -9999,
    "longitude (degree_east)": -100.0,
    "latitude (degree_north)": -80.0,
    "date": -9999,
    "time_UTC": -9999,
    "surface_altitude (m)": 1500.5,
    "land_ice_thickness (m)": 1000.5,
    "bedrock_altitude (m)": -9999,
    "two_way_travel_time (m)": -9999,
    "aircraft_altitude (m)": -9999,
    "along_track_distance (m)": -9999,
}
BEDMAP_RECORDS: tuple[dict[str, Any], ...] = (
    {"bedrock": -300.25},
    {"bedrock": 0},
    {},
    {"thickness": 0},
    {"bedrock": 120, "surface": -9999, "longitude": 270},
    {"thickness": -9999},
    {"surface": "-9999.0"},
    {"longitude": -9999, "bedrock": 5},
    {"latitude": "-9999.00", "bedrock": 5},
    {"bedrock": "nan", "longitude": 180},
)


def bedmap(
    records: Iterable[dict[str, Any]], comments: int = 18, columns: Iterable[str] = BEDMAP_COLUMNS
) -> str:
    """Text of a Bedmap standard CSV; a record says what is not as in most records."""
    notes = [
        "#project: Institute-Möller",
        "#electromagnetic_wave_speed_in_ice: 168 (m/microseconds)",
    ]
    notes += ["#firn_correction: 10 (m)", "#centre_frequency: 150 (MHz)"]
    notes += [f"#reference_{number}: https://doi.org/10.5285/{number}" for number in range(20)]
    lines = [*notes[:comments], ",".join(columns)]
    for record in records:
        values = dict(BEDMAP_COLUMNS)
        for word, value in record.items():
            (name,) = (name for name in values if word in name)
            values[name] = value
        lines.append(",".join(str(values.get(name, "unread")) for name in columns))
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("recipe", "raw"),
    [
        ("bedmap1", "BEDMAP1_1966-2000_AIR_BM1.csv"),
        ("bedmap2", "BAS_2010_PIG_AIR_BM2.csv"),
        ("bedmap3", "BAS_2010_IMAFI_AIR_BM3.csv"),
    ],
)
def test_bedmap_gives_the_bed_or_infers_it_from_surface_and_thickness(
    lay: Lay, recipe: str, raw: str, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = lay(recipe, {raw: bedmap(BEDMAP_RECORDS), "2010_Antarctica_TO.csv": "of another"})
    with caplog.at_level(logging.INFO):
        points = read_points(pipeline)
    assert points["z"].tolist() == [-300.25, 0.0, 500.0, 1500.5, 120.0, 500.0]
    assert points["bed_inferred"].tolist() == [False, False, True, True, False, True]
    assert points["bed_inferred"].dtype == bool
    assert (points["line"] == f"{raw.removesuffix('.csv')}/7").all()
    assert points["time"].isna().all()
    assert points.attrs["crs"] == "EPSG:3031"
    assert "10 records, 0 dropped for a missing coordinate or bed, 4 by" in caplog.text
    assert not [record for record in caplog.records if record.levelno > logging.INFO]
    (source,) = points.attrs["sources"]
    assert source["citekey"] is None
    assert source["header"]["electromagnetic_wave_speed_in_ice"] == "168 (m/microseconds)"
    assert source["header"]["firn_correction"] == "10 (m)"
    assert source["header"]["centre_frequency"] == "150 (MHz)"


@settings(max_examples=20, deadline=None)
@given(longitude=st.floats(-180, 360), latitude=st.floats(-89.9, -60.5))
def test_longitudes_may_go_east_or_west(
    longitude: float, latitude: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    pipeline = shutil.copy(BEDMAP3, tmp_path_factory.mktemp("survey"))
    places = [longitude, longitude - 360 if longitude > 0 else longitude + 360, 0.0]
    raw = bedmap({"longitude": east, "latitude": latitude} for east in places)
    Path(pipeline).with_name("a_BM3.csv").write_text(raw)
    points = read_points(pipeline)
    radius = points["y"][2]  # on the meridian of Greenwich, y is the distance from the pole
    east = np.sin(np.radians(longitude)), np.cos(np.radians(longitude))
    np.testing.assert_allclose(
        points.loc[:1, ["x", "y"]], [np.multiply(radius, east)] * 2, atol=1e-5
    )


@settings(max_examples=20, deadline=None)
@given(
    comments=st.integers(0, 24),
    columns=st.permutations([*BEDMAP_COLUMNS, "mystery (m)", "mystery (m)", "X"]),
)
def test_bedmap_columns_go_by_their_names(
    comments: int, columns: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    pipeline = shutil.copy(BEDMAP3, tmp_path_factory.mktemp("survey"))
    Path(pipeline).with_name("a_BM3.csv").write_text(bedmap(BEDMAP_RECORDS, comments, columns))
    assert read_points(pipeline)["z"].tolist() == [-300.25, 0.0, 500.0, 1500.5, 120.0, 500.0]


def test_names_of_columns_match_in_any_case_and_without_their_units(lay: Lay) -> None:
    raw = bedmap(BEDMAP_RECORDS).replace("bedrock_altitude (m)", "Bedrock Altitude [m]")
    text = fault_of(lay("bedmap3", {"BAS_2010_IMAFI_AIR_BM3.csv": raw}))
    assert "line 19: expected a column bedrock_altitude, found trajectory_id, trace" in text
    raw = raw.replace("Bedrock Altitude [m]", "Bedrock Altitude(metres)")
    assert len(read_points(lay("bedmap3", {"BAS_2010_IMAFI_AIR_BM3.csv": raw}))) == 6


def test_comments_without_a_header_leave_columns_where_the_pipeline_has_them(lay: Lay) -> None:
    assign = {**ASSIGN, "value": ["X = east", "Y = north", "Z = bed"]}
    stages = [reader(header="east,north,bed", skip=1), assign]
    raw = "# of a radar\n0,-500000,-20\n"
    assert read_points(lay(stages, {"picks.csv": raw}))["z"].tolist() == [-20]


def test_names_that_a_pipeline_gives_to_columns_are_not_sought_in_the_file(lay: Lay) -> None:
    stages = [reader(header="X,Y,depth,Z", skip=2)]
    raw = "# of a radar\neast,north,z,depth\n0,-500000,1,-20\n"
    assert read_points(lay(stages, {"picks.csv": raw}))["z"].tolist() == [-20]


@pytest.mark.parametrize(
    ("dates", "clocks", "expected"),
    [
        (("2013-12-01", -9999), ("12:34:56", -9999), ("2013-12-01T12:34:56", None)),
        (("2013-12-01", 2013), ("12:34:56.25", "12:34:57"), ("2013-12-01T12:34:56.25", None)),
        (("2013-12-01", "2013-12-02"), (-9999, "0:00:01"), (None, "2013-12-02T00:00:01")),
        ((2013, 2014), ("12:34:56", "12:34:57"), (None, None)),
    ],
)
def test_a_date_or_time_that_is_missing_is_no_time_and_no_warning(
    lay: Lay,
    caplog: pytest.LogCaptureFixture,
    dates: tuple[Any, ...],
    clocks: tuple[Any, ...],
    expected: tuple[str | None, ...],
) -> None:
    records = [{"date": day, "time_UTC": clock} for day, clock in zip(dates, clocks, strict=True)]
    points = read_points(lay("bedmap3", {"BAS_2010_IMAFI_AIR_BM3.csv": bedmap(records)}))
    assert points["time"].tolist() == [pd.Timestamp(time or "NaT") for time in expected]
    assert caplog.text == ""


def test_picks_without_a_name_are_of_the_file_and_lines_without_names_end_at_gaps(
    lay: Lay,
) -> None:
    some: list[dict[str, Any]] = [{"trajectory": "F1"}, {"trajectory": -9999}]
    none: list[dict[str, Any]] = [
        {"trajectory": -9999, "latitude": latitude} for latitude in (-80, -80.001, -80.1)
    ]
    pipeline = lay("bedmap3", {"a_BM3.csv": bedmap(some), "b_BM3.csv": bedmap(none)})
    lines = ["a_BM3/F1", "a_BM3", "b_BM3/1", "b_BM3/1", "b_BM3/2"]
    assert read_points(pipeline)["line"].tolist() == lines


def test_a_bedmap_standard_csv_needs_no_pipeline_of_its_own(lay: Lay) -> None:
    raw = "\N{BYTE ORDER MARK}" + bedmap(BEDMAP_RECORDS).replace("\n", "\r\n")
    pipeline = lay("bedmap3", {"a_BM3.csv": raw})
    csv = pipeline.parent / "a_BM3.csv"
    pd.testing.assert_frame_equal(read_points(csv), read_points(pipeline))
    (pipeline.parents[1] / "data_list.yml").write_text(
        "- citekey: Someone2020Here\n  title: Here\n  folder: highres\n"
        "  vertical_datum: ellipsoid\n"
        "  files: [{filename: a_BM3.csv, url: null, sha256: null}]\n"
    )
    points = read_points(str(csv))
    assert points.attrs["vertical_datum"] == "ellipsoid"
    assert points.attrs["sources"][0]["citekey"] == "Someone2020Here"
    with pytest.raises(ValueError, match="no pipeline"):
        read_points(csv, season="a_BM3")


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        ("x,y,z\n0,-500000,1\n", 1),
        ("#project: x\nlon,lat,bed\n0,-80,1\n", 2),
        ("#project: x\n", 2),
        ("", 1),
        (b"PAR1\x00\xff\xfe", 1),
    ],
)
def test_another_csv_is_refused_with_what_to_do(
    tmp_path: Path, raw: str | bytes, line: int
) -> None:
    csv = tmp_path / "picks.csv"
    csv.write_bytes(raw if isinstance(raw, bytes) else raw.encode())
    assert f"{csv}, line {line}: " in fault_of(csv)
    csv.unlink()
    with pytest.raises(MissingDataError, match=r"picks\.csv: there is no such file"):
        read_points(csv)


SEASONS = ("2009_Antarctica_TO", "2009_Antarctica_TO_Gambit", "2011_Antarctica_TO")


@pytest.mark.parametrize(
    ("season", "chosen"),
    [
        (None, SEASONS),
        ("2009_Antarctica_TO", SEASONS[:1]),
        ("2009_Antarctica_TO.csv", SEASONS[:1]),
        ("2009_*", SEASONS[:2]),
        (["2011_Antarctica_TO", "*Gambit"], SEASONS[1:]),
    ],
)
def test_a_season_chooses_raw_files(
    lay: Lay, season: str | list[str] | None, chosen: tuple[str, ...]
) -> None:
    record = "-75.0,-100.0,1,900,1500.5,2011110901001,600,1500.5,1\n"
    raw = {f"{name}.csv": CRESIS_HEADER + record for name in SEASONS}
    points = read_points(lay("20xx_Antarctica_TO", raw), season=season)
    assert [source["file"] for source in points.attrs["sources"]] == [f"{n}.csv" for n in chosen]
    assert len(points) == len(chosen)


def test_a_season_that_there_is_not_is_named_with_those_that_there_are(lay: Lay) -> None:
    pipeline = lay([reader(filename="*.csv")], {"a.csv": PICKS, "b.csv": PICKS})
    with pytest.raises(InvalidDataError, match=r"field season: .*of a\.csv, b\.csv, found 'c'"):
        read_points(pipeline, season="c")
    with pytest.raises(InvalidDataError, match="did you mean BAS_2010_PIG_AIR_BM2"):
        read_points(lay("bedmap2", {"BAS_2010_PIG_AIR_BM2.csv": ""}), season="BAS_2010_PIG")


def test_an_absent_season_is_named_with_the_command_that_gets_it_alone() -> None:
    with pytest.raises(MissingDataError) as caught:
        read_points("20xx_Antarctica_TO", season="2011_Antarctica_TO")
    assert "there is no 2011_Antarctica_TO.csv in " in str(caught.value)
    assert "`deepbedmap fetch 2011_Antarctica_TO.csv` gets it" in str(caught.value)
    assert "2009" not in str(caught.value)


@pytest.mark.parametrize(
    ("files", "how"),
    [
        ("{filename: all.zip, url: https://x.org/a, members: '*.csv'}", "fetch Someone2020Here` g"),
        ("{filename: a.csv, url: https://x.org/a}, {filename: b.csv, url: null}", "fetch a.csv` g"),
        ("{filename: a.csv, url: https://x.org/a, access: manual}", "write to them; put a.csv in"),
        ("{filename: a.csv, url: null}", "write to them; put a.csv into highres/"),
        ("", "write to them"),
    ],
)
def test_an_absent_season_is_to_be_had_as_the_registry_says(lay: Lay, files: str, how: str) -> None:
    pipeline = lay([reader(filename="*.csv")], {})
    files = files.replace("}", ", sha256: null}")
    (pipeline.parents[1] / "data_list.yml").write_text(
        "- citekey: Someone2020Here\n  title: Here\n  folder: highres\n"
        f"  pipelines: [survey.json]\n  instructions: write to them\n  files: [{files}]\n"
    )
    with pytest.raises(MissingDataError, match=re.escape(how)):
        read_points(pipeline, season="a")


BOXED = "x,y,z\n0,-500000,1\n1000,-500000,2\n1000,-499999,3\n5000,-400000,4\n"


def test_bounds_keep_the_picks_inside_and_on_the_edge(lay: Lay) -> None:
    pipeline = lay([reader(override_srs="EPSG:3031")], {"picks.csv": BOXED})
    points = read_points(pipeline, bounds=(1000, -500000, 5000, -400000))
    assert points["z"].tolist() == [2, 3, 4]
    assert points.index.tolist() == [0, 1, 2]
    assert points["line"].tolist() == ["picks/1", "picks/1", "picks/2"]


def test_a_box_without_picks_gives_an_empty_table_like_any_other(lay: Lay) -> None:
    pipeline = lay("bedmap3", {"a_BM3.csv": bedmap(BEDMAP_RECORDS)})
    points, nothing = read_points(pipeline), read_points(pipeline, bounds=(0, 1e6, 1e3, 2e6))
    assert len(nothing) == 0
    assert nothing.attrs == points.attrs
    kinds = points.dtypes.astype(str).to_dict()
    assert nothing.dtypes.astype(str).to_dict() == kinds
    assert to_geodataframe(nothing).empty


@pytest.mark.parametrize(
    "bounds", [(1, 0, 0, 1), (0, 1, 1, 1), (0, 0, float("nan"), 1), (-120, -80, -100, -70)]
)
def test_bounds_that_are_no_box_in_metres_are_a_wrong_call(
    lay: Lay, bounds: tuple[float, ...]
) -> None:
    pipeline = lay([reader(override_srs="EPSG:3031")], {"picks.csv": BOXED})
    with pytest.raises(ValueError, match="bounds: expected"):
        read_points(pipeline, bounds=bounds)


def test_picks_become_points_of_a_map(lay: Lay) -> None:
    points = read_points(lay([reader(override_srs="EPSG:3413")], {"picks.csv": BOXED}))
    located = to_geodataframe(points)
    assert isinstance(located, gpd.GeoDataFrame)
    assert located.crs.to_epsg() == 3413
    assert located.geometry.x.tolist() == points["x"].tolist()
    assert located.geometry.y.tolist() == points["y"].tolist()
    assert located.attrs == points.attrs
    pd.testing.assert_frame_equal(pd.DataFrame(located.drop(columns="geometry")), points)
    assert "geometry" not in points


def test_picks_whose_place_on_earth_is_unknown_are_no_points_of_a_map(lay: Lay) -> None:
    with pytest.raises(InvalidDataError, match=r"survey\.json, field crs: .*override_srs"):
        to_geodataframe(read_points(lay([reader()], {"picks.csv": BOXED})))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ("Z = X WHERE Y == 2", [1, 30]),
        ("Z = X where !(Y == 2) || X > 100", [3, 10]),
        (["Z = 7 WHERE X == 1", "Z = Z + 1 WHERE Z == 7"], [8, 30]),
        (["A = 5 WHERE X == 1", "Z = A"], [5, 0]),
        (["A = X WHERE X > 5", "Z = 0 - 1 WHERE A == 0"], [-1, 30]),
        ("Z = -X WHERE X > -9999", [-1, -10]),
    ],
)
def test_where_assigns_to_the_records_that_meet_it_and_a_new_column_is_zero_elsewhere(
    lay: Lay, values: str | list[str], expected: list[float]
) -> None:
    stages = [reader(), {**ASSIGN, "value": values}]
    points = read_points(lay(stages, {"picks.csv": "x\n1,2,3\n10,20,30\n"}))
    assert points["z"].tolist() == expected


def test_a_quotient_by_zero_is_missing_as_in_pdal(lay: Lay) -> None:
    stages = [reader(), {**ASSIGN, "value": "Z = Z / X"}]
    points = read_points(lay(stages, {"picks.csv": "x\n0,2,3\n2,2,3\n"}))
    assert points["z"].tolist() == [1.5]


@pytest.fixture(params=[1, 100, 333])
def small_blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_text, "BLOCK", request.param)


def cresis(count: int) -> str:
    """Records of two frames and some without one, with missing beds and times among them."""
    rows = []
    for n in range(count):
        frame = ("2011110901001", "2011111001002", "-9999")[n % 11 % 3]
        time, bottom = "" if n % 7 == 3 else 100.25 * n, -9999 if n % 5 == 4 else 1800 + n
        quality = n % 3 + 1 if n % 13 else ""
        rows.append(f"{-75 - n / 1000},-100,{time},900,1500.5,{frame},600,{bottom},{quality}\r\n")
    return "\N{BYTE ORDER MARK}" + CRESIS_HEADER + "".join(rows)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(
    ("recipe", "raw", "text"),
    [
        ("20xx_Antarctica_DC8", "2011_Antarctica_DC8.csv", cresis(60)),
        (
            "WISE_ISODYN_RadarByFlight",
            "WISE_ISODYN_RadarByFlight.txt",
            "heading\n" * 11
            + "".join(
                wise_record(
                    FlightID=f"W{n % 4}", date=f"{n % 28 + 1:02}/12/2005", time=f"0:00:{n:02}"
                )
                for n in range(40)
            ),
        ),
        (
            "bed_depth_below_WGS84_datum",
            "bed_depth_below_WGS84_datum.csv",
            "x,y,z\n" + "".join(f"{-1340000 + n * n},190000,{n}\n\n" for n in range(60)),
        ),
    ],
)
def test_a_file_read_in_blocks_gives_what_it_gives_read_at_once(
    lay: Lay, recipe: str, raw: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = lay(recipe, {raw: text})
    in_blocks = read_points(pipeline)
    monkeypatch.setattr(raw_text, "BLOCK", 2**24)
    at_once = read_points(pipeline)
    pd.testing.assert_frame_equal(in_blocks, at_once, check_exact=True)
    assert in_blocks.attrs == at_once.attrs
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert in_blocks.attrs["sources"][0]["sha256"] == digest


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(
    ("record", "phrase"),
    [
        ("0,-500000", "line 42: expected 3 fields"),
        ("0,-500000,deep", "line 42, field Z: expected a number.* found 'deep'"),
        ("0,-500000,-inf", "line 42, field Z: expected a finite number, found -inf"),
        ("0,-500000,1e999", "line 42, field Z: expected a finite number, found inf"),
        ("0,-500000,\udcb0", "line 42: expected text in UTF-8, found the byte 0xb0"),
        ("3500000,-500000,2", "line 42: expected picks south of 60"),
    ],
)
def test_a_fault_in_any_block_is_told_with_its_line_of_the_file(
    lay: Lay, record: str, phrase: str
) -> None:
    records = ["x,y,z", *["0,-500000,1"] * 60]
    records[20], records[41] = "0,-500000,nan", record
    raw = "\n".join(records).encode(errors="surrogateescape")
    pipeline = lay([reader(override_srs="EPSG:3031")], {"picks.csv": raw})
    assert re.search(phrase, fault_of(pipeline))


def test_picks_written_as_geoparquet_are_a_map_a_table_and_a_citation(
    lay: Lay, tmp_path: Path
) -> None:
    pipeline = lay("bedmap3", {"a_BM3.csv": bedmap(BEDMAP_RECORDS)})
    shutil.copy(repository.root() / "data_list.yml", pipeline.parents[1])
    picks = read_points(pipeline)
    path = tmp_path / "picks.parquet"
    for table in (picks.iloc[:0], picks):
        write_points(table, path)
        located = gpd.read_parquet(path)
        assert located.crs.to_epsg() == 3031
        assert located.geometry.x.tolist() == table["x"].tolist()
        assert located.attrs == picks.attrs
    pd.testing.assert_frame_equal(pd.read_parquet(path).drop(columns="geometry"), picks)
    assert sources_of(path, registry.load(pipeline.parents[1])) == ["Fremand2022BEDMAP3"]
    assert validation.check(path) == []


def test_picks_of_no_known_place_are_written_without_a_geometry(tmp_path: Path) -> None:
    table = pd.DataFrame({"x": [0.0], "y": [1.0], "z": [2.0]})
    write_points(table, tmp_path / "picks.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "picks.parquet"), table)
    with pytest.raises(ValueError, match=r"not \.txt"):
        write_points(table, tmp_path / "picks.txt")


def wise(*days: str, names: tuple[str, ...] = ("W1",)) -> str:
    """Records of some days, and of flights that take turns."""
    records = [
        wise_record(FlightID=names[n % len(names)], date=day, time=f"0:00:{n:02}")
        for n, day in enumerate(days)
    ]
    return "heading\n" * 11 + "".join(records)


@pytest.fixture(
    params={
        "frames": ("20xx_Antarctica_DC8", {"2011_Antarctica_DC8.csv": cresis(60)}, None),
        "two files": (
            "bedmap3",
            {"a_BM3.csv": bedmap(BEDMAP_RECORDS), "b_BM3.csv": bedmap([{"bedrock": 3}] * 9)},
            None,
        ),
        "inside a box": (
            "20xx_Antarctica_DC8",
            {"2011_Antarctica_DC8.csv": cresis(60)},
            (-1.62e6, -3e5, -1.6e6, 0),
        ),
        "beside a box": (
            "20xx_Antarctica_DC8",
            {"2011_Antarctica_DC8.csv": cresis(60)},
            (0, 0, 1, 1000),
        ),
        "days that are clear in the end": (
            "WISE_ISODYN_RadarByFlight",
            {"WISE_ISODYN_RadarByFlight.txt": wise(*["05/12/2005"] * 9, "25/12/2005")},
            None,
        ),
        "days that are unclear in the end": (
            "WISE_ISODYN_RadarByFlight",
            {"WISE_ISODYN_RadarByFlight.txt": wise(*["2005/12/24"] * 9, "24/12/2005")},
            None,
        ),
        "names in the end": (
            "WISE_ISODYN_RadarByFlight",
            {
                "WISE_ISODYN_RadarByFlight.txt": wise(
                    *["2005/12/24"] * 9, names=("*",) * 8 + ("W1",)
                )
            },
            None,
        ),
        "nowhere": (
            [reader()],
            {"picks.csv": "x,y,z\n" + "".join(f"{n * 2000},0,{n}\n" for n in range(40))},
            None,
        ),
    }.items(),
    ids=lambda param: param[0],
)
def survey(
    request: pytest.FixtureRequest, lay: Lay
) -> tuple[Path, tuple[float, float, float, float] | None]:
    """A pipeline, and a box or none."""
    recipe, files, box = request.param[1]
    pipeline = lay(recipe, files)
    shutil.copy(repository.root() / "data_list.yml", pipeline.parents[1])
    return pipeline, box


def test_a_survey_written_block_by_block_is_the_table_that_is_read(
    survey: tuple[Path, tuple[float, float, float, float] | None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipeline, box = survey
    table = read_points(pipeline, bounds=box)
    whole, streamed = tmp_path / "whole.parquet", tmp_path / "streamed.parquet"
    write_points(table, whole)
    monkeypatch.setattr(raw_text, "BLOCK", 200)
    written = write_survey(pipeline, streamed, bounds=box)
    assert written == (len(table), table["line"].nunique())
    picks = pd.read_parquet(streamed)
    pd.testing.assert_frame_equal(picks, pd.read_parquet(whole), check_exact=True)
    assert picks.attrs == table.attrs
    metadata, expected = (pq.read_metadata(path).metadata for path in (streamed, whole))
    assert {name: metadata[name] for name in expected} == expected
    assert pq.read_schema(streamed).equals(pq.read_schema(whole), check_metadata=True)
    if len(table):
        assert pq.read_metadata(streamed).num_row_groups > 1
    if table.attrs["crs"]:
        assert_geodataframe_equal(gpd.read_parquet(streamed), gpd.read_parquet(whole))
        listing = registry.load(pipeline.parents[1])
        assert sources_of(streamed, listing) == sources_of(whole, listing)


def test_writing_a_survey_reports_its_progress(lay: Lay, tmp_path: Path) -> None:
    pipeline = lay("bedmap3", {f"{name}_BM3.csv": bedmap(BEDMAP_RECORDS) for name in "abc"})
    steps: list[tuple[int, int]] = []
    write_survey(pipeline, tmp_path / "out.parquet", progress=lambda *step: steps.append(step))
    total = sum(file.stat().st_size for file in pipeline.parent.glob("*.csv"))
    assert steps == sorted(steps)
    assert {whole for _, whole in steps} == {total}
    assert steps[-1] == (total, total)


@pytest.mark.usefixtures("small_blocks")
def test_a_fault_leaves_what_was_written_before(lay: Lay, tmp_path: Path) -> None:
    raw = "x,y,z\n" + "0,-500000,1\n" * 60 + "0,-500000,deep\n"
    pipeline = lay([reader(override_srs="EPSG:3031")], {"picks.csv": raw})
    out = tmp_path / "out" / "picks.parquet"
    out.parent.mkdir()
    out.write_text("earlier")
    with pytest.raises(InvalidDataError, match="line 62, field Z"):
        write_survey(pipeline, out)
    assert [(file.name, file.read_text()) for file in out.parent.iterdir()] == [
        ("picks.parquet", "earlier")
    ]
    with pytest.raises(ValueError, match=r"as \.parquet"):
        write_survey(pipeline, tmp_path / "picks.csv")


IN_LITTLE_MEMORY = """
import re, sys
from pathlib import Path
from deepbedmap.points import raw_text, write_survey
from support.citing import sources_of

raw_text.BLOCK = 2**18
peaks = []
for pipeline in sys.argv[1:]:
    write_survey(pipeline, Path(pipeline).with_suffix(".parquet"))
    peaks += re.findall(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(*peaks)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells the peak of memory")
def test_memory_does_not_grow_with_the_raw_files(lay: Lay) -> None:
    record = "{:.6f},-100.000000,100.25,900,1500.5,2011110901001,600,1800,1\n"
    pipelines = []
    for size, name in ((20_000, "small"), (400_000, "large")):
        text = CRESIS_HEADER + "".join(map(record.format, np.linspace(-75, -80, size)))
        pipeline = lay("20xx_Antarctica_DC8", {"2011_Antarctica_DC8.csv": text})
        pipelines.append(pipeline.parents[1].rename(pipeline.parents[2] / name))
    script = [sys.executable, "-c", IN_LITTLE_MEMORY]
    script += [str(folder / "highres" / "20xx_Antarctica_DC8.json") for folder in pipelines]
    done = subprocess.run(
        script,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        text=True,
    )
    small, large = map(int, done.stdout.split())
    assert large - small < 14_000  # the larger file has 25 MB, its table 16 MB


def test_the_command_drops_repeats_where_it_is_told_to(lay: Lay, tmp_path: Path) -> None:
    from deepbedmap.cli.options import app

    pipeline = lay([reader()], {"picks.csv": BOXED + "1000,-499999.5,9\n"})
    out = tmp_path / "picks.csv"
    for options, count in (((), 5), (("--unique", "0.6"), 4)):
        call = ["points", str(pipeline), "--out", str(out), *options]
        assert CliRunner().invoke(app, call).exit_code == 0
        assert len(pd.read_csv(out)) == count


def test_the_command_writes_a_season_within_a_box(lay: Lay, tmp_path: Path) -> None:
    from deepbedmap.cli.options import app

    pipeline = lay([reader(filename="*.csv")], {"a.csv": BOXED, "b.csv": PICKS})
    out = tmp_path / "picks.parquet"
    call = ["points", str(pipeline), "--out", str(out), "--season", "a", "--bounds"]
    result = CliRunner().invoke(app, [*call, "500", "-500000", "2000", "-400000"])
    assert result.exit_code == 0, result.output
    assert pd.read_parquet(out)["z"].tolist() == [2, 3]
