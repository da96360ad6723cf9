from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rioxarray  # noqa: F401
import shapely
import xarray as xr
from typer.testing import CliRunner

from deepbedmap import catalog, rasters, repository, validation
from deepbedmap.cli.running import app
from deepbedmap.errors import Fault

REGISTRY = """\
schema_version: 2
datasets:

- citekey: Survey2010
  title: Picks of a survey
  authors: ["Family, Given"]
  year: 2010
  status: active
  folder: highres
  bounds: [-1500000, -500000, -1200000, -300000]
  doi:
    dataset: 10.5285/aa-bb
  licence: CC-BY-4.0
  crs: EPSG:3031
  vertical_datum: ellipsoid
  units: m
  pipelines: [survey.json]
  files:
    - filename: survey.csv
      url: https://example.org/survey.csv
      sha256: 28e2ca7656d61b0bc7f8f8c1db41914023e0cab1634e0ee645f38a87d894b416

- citekey: Survey2009
  title: Picks of an earlier survey
  status: superseded
  superseded_by: Survey2010
  folder: highres
  files:
    - filename: earlier.csv
      url: https://example.org/earlier.csv
      sha256: null

- citekey: Grid2013
  title: A grid of the bed
  folder: lowres
  built_from:
    surveys: [Survey2009]
  files:
    - filename: grid.tif
      url: https://example.org/grid.tif
      sha256: null
"""

PIPELINE = """\
{
  "pipeline": [
    {
      "type": "readers.text",
      "filename": "survey.csv",
      "header": "X,Y,SURFACE,THICK",
      "separator": ",",
      "skip": 1,
      "override_srs": "EPSG:3031"
    },
    {
      "type": "filters.expression",
      "expression": "THICK > 0"
    },
    {
      "type": "filters.assign",
      "value": "Z = SURFACE - THICK"
    }
  ]
}
"""

BILLION_LAUGHS = "a0: &a0 [x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)

CRESIS = (
    "LAT,LON,UTCTIMESOD,THICK,ELEVATION,FRAME,SURFACE,BOTTOM,QUALITY\n"
    "-87.521210,-119.927414,66167.8195,2203.38,3340.2050,2018103001001,611.58,2814.96,1\n"
    "-87.521291,-119.929902,66167.8995,2204.15,3339.7497,2018103001001,611.58,2815.73,2\n"
)

BEDMAP = (
    "".join(f"#key_{n}: value {n}\n" for n in range(18))
    + "trajectory_id,trace_number,longitude (degree_east),latitude (degree_north),date,time_UTC,"
    "surface_altitude (m),land_ice_thickness (m),bedrock_altitude (m),two_way_travel_time (m),"
    "aircraft_altitude (m),along_track_distance (m)\n"
    "L1,1,270.5,-75.1,2013-12-01,12:34:56,1000,1500,-500,-9999,-9999,0\n"
    "L1,2,-89.4,-75.1,2013,-9999,1000,1500,-9999,-9999,-9999,50\n"
)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repository")
    (root / "data_list.yml").write_text(REGISTRY)
    (root / "highres").mkdir()
    (root / "highres" / "survey.json").write_text(PIPELINE)
    catalog.build(root=root)
    return root


@pytest.fixture
def own(built: Path, tmp_path: Path) -> Path:
    """A small repository without faults."""
    return Path(shutil.copytree(built, tmp_path / "own"))


def edit(path: Path, before: str, after: str) -> int:
    """Replace a text that a file has once; gives the line where it stood."""
    text = path.read_text()
    assert text.count(before) == 1, before
    path.write_text(text.replace(before, after))
    return text[: text.index(before)].count("\n") + 1


def messages_of(path: Path | list[Path]) -> list[str]:
    return [str(fault) for fault in validation.check(path)]


def only(faults: list[Fault], path: Path) -> Fault:
    (fault,) = faults
    assert fault.file == str(path)
    return fault


def test_a_repository_without_faults_has_none(own):
    shutil.copytree(repository.root() / "validation", own / "validation")
    assert validation.check(root=own) == []
    assert validation.check(own) == []
    assert validation.check([own / "data_list.yml", own / "highres", own / "catalog"]) == []


REGISTRY_FAULTS = {
    "a wrong type": ("year: 2010", "year: MMX", "year", "a whole number", "'MMX'"),
    "an unknown key": ("  units: m\n", "  unit: m\n", "unit", "a known key", "unknown key 'unit'"),
    "a missing key": ("  title: Picks of a survey\n", "", "title", "some text", "nothing"),
    "a malformed DOI": (
        "10.5285/aa-bb",
        "https://doi.org/10.5285/aa-bb",
        "doi.dataset",
        "a DOI without https://doi.org/",
        "'https://doi.org/10.5285/aa-bb'",
    ),
    "a malformed sha256": ("28e2ca76", "28E2CA76", "files[0].sha256", "64 hexadecimal", "28E2"),
    "a name with a path": (
        "filename: survey.csv",
        "filename: raw/survey.csv",
        "files[0].filename",
        "a plain file name",
        "'raw/survey.csv'",
    ),
    "a name that leaves the folder": (
        "filename: survey.csv",
        "filename: ..",
        "files[0].filename",
        "a plain file name",
        "'..'",
    ),
    "an absolute name": (
        "filename: survey.csv",
        "filename: /etc/passwd",
        "files[0].filename",
        "a plain file name",
        "'/etc/passwd'",
    ),
    "a scheme nobody asked for": (
        "https://example.org/survey.csv",
        "gopher://example.org/survey.csv",
        "files[0].url",
        "a URL (http, https, ftp, sftp, doi or file)",
        "'gopher://example.org/survey.csv'",
    ),
    "bounds the wrong way round": (
        "[-1500000, -500000, -1200000, -300000]",
        "[-1200000, -500000, -1500000, -300000]",
        "bounds",
        "xmin < xmax",
        "-1200000, -500000",
    ),
    "bounds in degrees": (
        "[-1500000, -500000, -1200000, -300000]",
        "[-110, -80, -100, -75]",
        "bounds",
        "metres",
        "-110, -80, -100, -75",
    ),
    "an unknown CRS": ("crs: EPSG:3031", "crs: EPSG:999999", "crs", "PROJ", "'EPSG:999999'"),
    "an unknown datum": (
        "vertical_datum: ellipsoid",
        "vertical_datum: EGM96",
        "vertical_datum",
        "EIGEN-GL04C",
        "'EGM96'",
    ),
    "an unknown licence": ("CC-BY-4.0", "CC BY 4", "licence", "an SPDX identifier", "'CC BY 4'"),
}


@pytest.mark.parametrize(
    ("before", "after", "field", "expected", "found"),
    REGISTRY_FAULTS.values(),
    ids=REGISTRY_FAULTS.keys(),
)
def test_a_fault_of_the_registry_is_named(before, after, field, expected, found, own):
    listing = own / "data_list.yml"
    line = edit(listing, before, after)
    fault = only([f for f in validation.check(root=own) if f.field == field], listing)
    assert fault.entry == "Survey2010"
    assert fault.line == (line if after else 4)
    assert expected in fault.expected
    assert found in fault.found


def test_a_key_given_twice_is_named_with_both_lines(own):
    line = edit(own / "data_list.yml", "  units: m\n", "  units: m\n  year: 2011\n")
    (fault,) = [fault for fault in validation.check(own) if fault.expected == "each key once"]
    assert (fault.line, fault.entry, fault.field) == (line + 1, "Survey2010", "year")
    assert fault.found == "it twice (first on line 7)"


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("citekey: Survey2009", "citekey: survey2010", "each citekey once"),
        ("filename: earlier.csv", "filename: survey.csv", "each file name in a folder once"),
    ],
    ids=["a citekey", "a file name"],
)
def test_a_name_given_twice_is_named_with_the_firsts_line(before, after, message, own):
    line = edit(own / "data_list.yml", before, after)
    (fault,) = [fault for fault in validation.check(own) if message in fault.expected]
    assert fault.line == line
    assert "first on line" in fault.found


def test_a_circle_of_successors_is_named(own):
    listing = own / "data_list.yml"
    before = "status: active\n"
    edit(listing, before, "status: superseded\n  superseded_by: Survey2009\n")
    assert "a circle: Survey2010 -> Survey2009 -> Survey2010" in "\n".join(messages_of(own))


def test_a_product_built_from_nothing_known_is_named(own):
    line = edit(own / "data_list.yml", "surveys: [Survey2009]", "surveys: [Survey209]")
    assert messages_of(own) == [
        f"{own}/data_list.yml, line {line}, entry Grid2013, field built_from.surveys[0]: expected "
        "the citekey of another dataset of this registry, found 'Survey209'; did you mean "
        "Survey2009 or Survey2010?"
    ]


def test_a_pipeline_that_is_named_and_missing_is_a_fault_of_the_registry(own):
    (own / "highres" / "survey.json").unlink()
    fault = only(validation.check(root=own), own / "data_list.yml")
    assert (fault.entry, fault.field) == ("Survey2010", "pipelines[0]")
    assert fault.found == "no survey.json"
    assert validation.check(own / "data_list.yml") == [fault]


def test_a_pipeline_that_nothing_names_is_a_fault(own):
    shutil.copy(own / "highres" / "survey.json", own / "highres" / "other.json")
    fault = only(validation.check(root=own), own / "highres" / "other.json")
    assert "a dataset in data_list.yml that lists it" in fault.expected


PIPELINE_FAULTS = {
    "a repeated name": ("X,Y,SURFACE", "X,Y,x,SURFACE", "'X' again"),
    "an illegal name": ("SURFACE,THICK", "SURFACE,THICK,z-surf", "'z-surf'"),
    "a stage that PDAL lacks": ("filters.assign", "filters.magic", "'filters.magic'"),
    "an option that PDAL lacks": ('"skip"', '"skp"', "unknown key 'skp'; did you mean skip?"),
    "a call": ("SURFACE - THICK", "system(THICK)", "system(THICK)"),
    "an attribute": ("THICK > 0", "THICK.real > 0", "'.real'"),
    "a column that is not there": ("THICK > 0", "THICKNESS > 0", "'THICKNESS'"),
    "no column Z": ("Z = SURFACE", "BED = SURFACE", "a column Z"),
    "an unknown CRS": ("EPSG:3031", "EPSG:999999", "PROJ knows, found 'EPSG:999999'"),
    "a name with a path": ('"survey.csv"', '"../survey.csv"', "found '../survey.csv'"),
    "a very long expression": ("THICK > 0", "!" * 5000 + "THICK > 0", "at most 400 characters"),
}


@pytest.mark.parametrize(
    ("before", "after", "message"), PIPELINE_FAULTS.values(), ids=PIPELINE_FAULTS.keys()
)
def test_a_fault_of_a_pipeline_is_named(before, after, message, own):
    pipeline = own / "highres" / "survey.json"
    edit(pipeline, before, after)
    fault = only(validation.check(pipeline), pipeline)
    assert message in str(fault)
    assert fault.line
    assert fault.field.startswith("pipeline[")
    assert fault in validation.check(root=own)


TEXT_FAULTS = {
    "anchors that blow up": ("a: &a [*a]\n", "levels of nesting"),
    "a billion laughs": (BILLION_LAUGHS, "100,000 values"),
    "Latin-1": ("title: Müller\n", "line 1: expected text in UTF-8, found the byte 0xfc"),
    "an empty file": ("", "an empty file"),
    "deep nesting": ("[" * 5000, "levels of nesting"),
}


@pytest.mark.parametrize("name", ["data_list.yml", "highres/survey.json", "catalog/misc.yml"])
@pytest.mark.parametrize(("text", "message"), TEXT_FAULTS.values(), ids=TEXT_FAULTS.keys())
def test_a_text_that_cannot_be_used_is_a_fault_of_its_file(text, message, name, own):
    path = own / name
    path.write_bytes(text.encode("latin-1"))
    faults = [fault for fault in validation.check(root=own) if fault.file == str(path)]
    assert faults
    if not (name.endswith(".json") and ":" in text):  # those are no JSON to begin with
        assert any(message in str(fault) for fault in faults)


@pytest.mark.parametrize("name", ["data_list.yml", "highres/survey.json", "catalog/misc.yml"])
def test_windows_line_ends_are_accepted_everywhere(name, own):
    path = own / name
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert validation.check(root=own) == []


@pytest.mark.parametrize("name", ["data_list.yml", "highres/survey.json"])
def test_a_byte_order_mark_is_accepted_in_what_a_person_writes(name, own):
    path = own / name
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert validation.check(root=own) == []


def test_all_faults_of_all_files_are_told_in_one_run_by_file_and_line(own):
    edit(own / "data_list.yml", "year: 2010", "year: MMX")
    edit(own / "data_list.yml", "title: A grid of the bed", "titel: A grid of the bed")
    edit(own / "highres" / "survey.json", "THICK > 0", "THICKNESS > 0")
    edit(own / "highres" / "survey.json", '"skip": 1', '"skip": "1"')
    shutil.copytree(repository.root() / "validation", own / "validation")
    edit(own / "validation" / "points.yml", "schema_type: dataframe", "schema_type: table")
    edit(own / "catalog" / "highres.yml", "name: highres", "nom: highres")
    (own / "highres" / "other.json").write_text(PIPELINE)
    places = [(Path(f.file).name, f.field) for f in validation.check(root=own)]
    assert places == [
        ("highres.yml", "nom"),
        ("data_list.yml", "year"),
        ("data_list.yml", "title"),
        ("data_list.yml", "titel"),
        ("other.json", None),
        ("survey.json", "pipeline[0].skip"),
        ("points.yml", "schema_type"),
    ]


def test_all_faults_of_a_pipelines_stages_are_told_in_one_run(own):
    path = own / "highres" / "survey.json"
    edit(path, "THICK > 0", "THICKNESS > 0")
    edit(path, "Z = SURFACE - THICK", "Z = SURF - THICK")
    edit(path, "X,Y,SURFACE", "X,Y,y,1st,SURFACE")
    message = "\n".join(messages_of(path))
    assert all(word in message for word in ("'THICKNESS'", "'SURF'", "'Y' again", "'1st'"))


def test_what_is_written_from_the_registry_is_compared_with_it(own):
    edit(own / "data_list.yml", "title: Picks of a survey", "title: Picks of two surveys")
    files = {Path(fault.file).relative_to(own).as_posix() for fault in validation.check(own)}
    assert files == {"catalog/highres.yml", "catalog/registry.sha256", "highres/README.md"}


def test_a_parameter_that_intake_would_swallow_is_a_fault_of_a_catalog_alone(own):
    path = own / "catalog" / "highres.yml"
    path.write_text(path.read_text().replace("'{{ spacing }}'", "250"))
    fault = only(validation.check(path), path)
    assert fault.field == "sources.survey.parameters.spacing"


def with_line(text: str, number: int, line: str) -> str:
    lines = text.splitlines()
    lines[number - 1] = line
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("text", [CRESIS, BEDMAP], ids=["CReSIS", "Bedmap"])
def test_raw_picks_without_faults_have_none(text, tmp_path):
    path = tmp_path / "raw.csv"
    blanks = text.replace(",", " , ")
    for sound in (text, text.replace("\n", "\r\n"), "\ufeff" + text, text + "\n", blanks):
        path.write_text(sound, newline="")
        assert messages_of(path) == []


CRESIS_FAULTS = {
    "a latitude": ("-57.5,0,0,1,1,F,0,1,1", "LAT", "from -90 to -60", "-57.5"),
    "a missing latitude": (",0,0,1,1,F,0,1,1", "LAT", "a latitude", "nothing"),
    "a longitude": ("-80,361,0,1,1,F,0,1,1", "LON", "from -180 to 360", "361"),
    "text": ("-80,0,0,thick,1,F,0,1,1", "THICK", "a thickness", "'thick'"),
    "text where nothing may be missing": ("S,0,0,1,1,F,0,1,1", "LAT", "a latitude", "'S'"),
    "a negative thickness": ("-80,0,0,-1,1,F,0,1,1", "THICK", "from 0 to 6,000", "-1"),
    "an infinite bottom": ("-80,0,0,1,1,F,0,inf,1", "BOTTOM", "from 0", "'inf'"),
    "a quality": ("-80,0,0,1,1,F,0,1,4", "QUALITY", "1 (good)", "4"),
    "half a quality": ("-80,0,0,1,1,F,0,1,1.5", "QUALITY", "1 (good)", "1.5"),
    "too few fields": ("-80,0,0,1", None, "9 fields", "4 fields: '-80,0,0,1'"),
}


@pytest.mark.parametrize(
    ("line", "field", "expected", "found"), CRESIS_FAULTS.values(), ids=CRESIS_FAULTS.keys()
)
def test_a_faulty_cresis_record_is_named_with_its_line(line, field, expected, found, tmp_path):
    path = tmp_path / "raw.csv"
    path.write_text(with_line(CRESIS, 3, line))
    fault = only(validation.check(path), path)
    assert (fault.line, fault.field) == (3, field)
    assert expected in fault.expected
    assert fault.found == found


def test_a_missing_thickness_is_no_fault(tmp_path):
    path = tmp_path / "raw.csv"
    for mark in ("", "nan", "*", "-9999", "-9999.00"):
        path.write_text(with_line(CRESIS, 3, f"-80,0,0,{mark},1,F,0,{mark},1"))
        assert messages_of(path) == []


BEDMAP_FAULTS = {
    "a bed that is not the surface less the thickness": (
        "L,1,0,-75,2013,-9999,1000,1500,-400,0,0,0",
        None,
        "surface less the thickness",
        "surface_altitude (m) 1000, land_ice_thickness (m) 1500, bedrock_altitude (m) -400",
    ),
    "a date": ("L,1,0,-75,1/2/13,-9999,1,1,0,0,0,0", "date", "a date such as", "1/2/13"),
    "a place": (
        "L,1,-9999,-75,2013,-9999,1,1,0,0,0,0",
        "longitude (degree_east)",
        "a lon",
        "nothing",
    ),
}


@pytest.mark.parametrize(
    ("line", "field", "expected", "found"), BEDMAP_FAULTS.values(), ids=BEDMAP_FAULTS.keys()
)
def test_a_faulty_bedmap_record_is_named_with_its_line(line, field, expected, found, tmp_path):
    path = tmp_path / "raw.csv"
    path.write_text(with_line(BEDMAP, 21, line))
    fault = only(validation.check(path), path)
    assert (fault.line, fault.field) == (21, field)
    assert expected in fault.expected
    assert fault.found == found


def test_faults_of_the_columns_are_those_of_the_file(tmp_path):
    path = tmp_path / "raw.csv"
    path.write_text(CRESIS.replace("THICK", "THICKNESS"))
    assert sorted((fault.field, fault.found) for fault in validation.check(path)) == [
        ("THICK", "nothing of this name"),
        ("THICKNESS", "an unknown column"),
    ]
    path.write_text(CRESIS.replace("LON", "LAT"))
    assert "line 1: expected each column once, found LAT again" in messages_of(path)[0]
    path.write_text(CRESIS.replace("LAT,LON", "LON,LAT"))
    assert any("columns in the order LAT, LON" in line for line in messages_of(path))


def test_blank_and_uneven_lines_do_not_shift_the_lines_of_later_faults(tmp_path):
    path = tmp_path / "raw.csv"
    path.write_text(CRESIS + "\n1,2\n\n-80,0,0,1,1,F,0,1,9\n")
    assert [(fault.line, fault.field) for fault in validation.check(path)] == [
        (5, None),
        (7, "QUALITY"),
    ]


def test_many_faults_of_one_kind_are_told_twenty_times_and_then_counted(tmp_path):
    path = tmp_path / "raw.csv"
    path.write_text(CRESIS + "-80,400,0,1,1,F,0,1,9\n" * 25)
    faults = validation.check(path)
    assert len(faults) == 2 * 21
    assert [fault.line for fault in faults if fault.field == "LON"] == list(range(4, 25))
    assert [fault.remedy for fault in faults].count("and 5 more like these") == 2


def test_a_raw_file_in_latin_1_is_named_with_its_line(tmp_path):
    path = tmp_path / "raw.csv"
    path.write_bytes(with_line(CRESIS, 3, "-80,0,0,1,1,Müller,0,1,1").encode("latin-1"))
    assert f"{path}, line 3: expected text in UTF-8" in messages_of(path)[0]


def picks(**columns: object) -> pd.DataFrame:
    table = pd.DataFrame({"x": [-1e6, 0.0, 5e5], "y": [0.0, 2e5, 0.0], "z": [-500.0, 0.0, 100.0]})
    table["line"] = pd.Categorical(["a", "a", "b"])
    table["quality"] = pd.array([1, None, 3], "Int8")
    table["time"] = pd.to_datetime(["2018-10-30 18:22:47.1", "2018-10-30 18:22:48.2", None])
    table["bed_inferred"] = [False, True, False]
    table = table.assign(**columns)
    table.attrs["crs"] = "EPSG:3031"
    return table


def written(table: pd.DataFrame, path: Path) -> Path:
    if path.suffix == ".csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path)
    return path


@pytest.mark.parametrize("name", ["picks.csv", "picks.parquet"])
def test_picks_without_faults_have_none(name, tmp_path):
    assert messages_of(written(picks(), tmp_path / name)) == []
    assert messages_of(written(picks().iloc[:, :3], tmp_path / name)) == []
    assert messages_of(written(picks().iloc[:0], tmp_path / name)) == []


@pytest.mark.parametrize("name", ["picks.csv", "picks.parquet"])
@pytest.mark.parametrize(
    ("column", "value", "field", "expected", "found"),
    [
        ("z", np.nan, "z", "an elevation of the bed", "nothing"),
        ("z", -9999.0, "z", "from -9,000 to 5,000", "-9999"),
        ("x", 4e6, None, "within 3,340 km of the pole", "x 4000000, y 2"),
    ],
)
def test_a_faulty_pick_is_named_with_its_row(column, value, field, expected, found, name, tmp_path):
    table = picks()
    table.loc[1, column] = value
    path = written(table, tmp_path / name)
    fault = only(validation.check(path), path)
    assert (fault.line, fault.entry) == ((3, None) if name == "picks.csv" else (None, "row 1"))
    assert fault.field == field
    assert expected in fault.expected
    assert fault.found.startswith(found)


def test_picks_in_degrees_are_a_fault_of_the_table(tmp_path):
    table = picks(x=[-120.0, 0, 100], y=[-80.0, -75, -70])
    assert "metres, not degrees" in "\n".join(messages_of(written(table, tmp_path / "p.parquet")))
    table.attrs["crs"] = "EPSG:4326"
    assert messages_of(written(table, tmp_path / "p.parquet")) == []


def test_picks_of_the_other_pole_may_be_anywhere(tmp_path):
    table = picks(x=[4e6, 4e6, 4e6])
    table.attrs["crs"] = "EPSG:3413"
    assert messages_of(written(table, tmp_path / "p.parquet")) == []


def test_a_column_of_another_type_is_a_fault_of_the_table(tmp_path):
    (fault,) = validation.check(written(picks(z=["1", "2", "3"]), tmp_path / "p.parquet"))
    assert (fault.line, fault.field) == (None, "z")
    assert fault.found == "str"


@pytest.fixture
def grid() -> xr.DataArray:
    z = np.full((5, 4), -500, np.float32)
    z[0] = np.nan
    y, x = 250.0 * np.arange(5), 250.0 * np.arange(4)
    attributes = {"units": "m", "vertical_datum": "ellipsoid", "provenance": "{}"}
    bed = xr.DataArray(z, {"y": y, "x": x}, ("y", "x"), "z", attributes)
    return bed.rio.write_crs("EPSG:3031")


def saved(grid: xr.DataArray, path: Path) -> Path:
    write = rasters.write_geotiff if path.suffix == ".tif" else rasters.write_netcdf
    return write(grid, path)


@pytest.mark.parametrize("name", ["grid.nc", "grid.tif"])
def test_a_grid_without_faults_has_none(name, grid, tmp_path):
    assert messages_of(saved(grid, tmp_path / name)) == []


def without(attribute: str) -> Callable[[xr.DataArray], xr.DataArray]:
    def change(grid: xr.DataArray) -> xr.DataArray:
        grid = grid.copy()
        del grid.attrs[attribute]
        return grid

    return change


GRID_FAULTS = {
    "no units": (without("units"), "the attribute units", "none"),
    "no datum": (without("vertical_datum"), "the attribute vertical_datum", "none"),
    "no provenance": (without("provenance"), "the attribute provenance", "none"),
    "another datum": (
        lambda grid: grid.assign_attrs(vertical_datum="EGM96"),
        "EIGEN-GL04C",
        "'EGM96'",
    ),
    "degrees": (lambda grid: grid.rio.write_crs("EPSG:4326"), "in metres", "EPSG:4326"),
    "another type": (lambda grid: grid.astype("float64"), "(float32)", "float64"),
    "nodata as a height": (lambda grid: grid.fillna(-9999), "elevations from", "-9999 to -500"),
    "nothing": (lambda grid: grid * np.float32("nan"), "in at least one cell", "no value"),
}


@pytest.mark.parametrize("name", ["grid.nc", "grid.tif"])
@pytest.mark.parametrize(
    ("change", "expected", "found"), GRID_FAULTS.values(), ids=GRID_FAULTS.keys()
)
def test_a_fault_of_a_grid_is_named(change, expected, found, name, grid, tmp_path):
    with xr.set_options(keep_attrs=True):
        path = saved(change(grid), tmp_path / name)
    fault = only(validation.check(path), path)
    assert expected in fault.expected
    assert fault.found.startswith(found)


def test_all_faults_of_a_grid_are_told_in_one_run(grid, tmp_path):
    path = tmp_path / "grid.nc"
    uneven = grid.drop_vars("spatial_ref").assign_coords(x=[0.0, 1, 3, 4])
    uneven.drop_attrs().to_netcdf(path, engine="h5netcdf")
    message = "\n".join(messages_of(path))
    for word in ("constant spacing", "reference system", "units", "vertical_datum", "provenance"):
        assert word in message


def test_a_grid_without_the_elevations_is_a_fault(grid, tmp_path):
    path = saved(grid.rename("bed"), tmp_path / "grid.nc")
    assert (
        "field z: expected bed elevation in metres, found nothing of this name"
        in messages_of(path)[0]
    )


@pytest.fixture
def windows() -> gpd.GeoDataFrame:
    west = np.array([0.0, 750.0])
    edges = {"xmin": west, "ymin": -9000.0, "xmax": west + 9000, "ymax": 0.0, "coverage": 1.0}
    return gpd.GeoDataFrame(
        edges, geometry=shapely.box(west, -9000, west + 9000, 0), crs="EPSG:3031"
    )


@pytest.mark.parametrize("name", ["windows.geojson", "windows.gpkg"])
def test_windows_without_faults_have_none(name, windows, tmp_path):
    windows.to_file(tmp_path / name)
    assert messages_of(tmp_path / name) == []


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("coverage", 1.5, "the share of cells"),
        ("xmin", 9e4, "xmin < xmax"),
        ("xmax", 9e4, "a box as large as the first one"),
        ("geometry", shapely.box(0, 0, 1, 1), "a geometry that is the box of its edges"),
    ],
)
def test_a_faulty_window_is_named_with_its_row(column, value, expected, windows, tmp_path):
    windows.loc[1, column] = value
    windows.to_file(tmp_path / "windows.gpkg")
    faults = validation.check(tmp_path / "windows.gpkg")
    assert {fault.entry for fault in faults} == {"row 1"}
    assert any(expected in fault.expected for fault in faults)


def test_windows_in_degrees_are_a_fault(windows, tmp_path):
    windows.set_crs("EPSG:4326", allow_override=True).to_file(tmp_path / "windows.gpkg")
    assert "a coordinate reference system in metres" in messages_of(tmp_path / "windows.gpkg")[0]


@pytest.mark.parametrize("suffix", [".nc", ".tif", ".parquet", ".geojson", ".gpkg"])
@pytest.mark.parametrize("content", [b"", b"no such format"], ids=["empty", "other"])
def test_a_file_that_is_not_what_its_name_says_is_a_fault(suffix, content, tmp_path):
    path = tmp_path / f"file{suffix}"
    path.write_bytes(content)
    fault = only(validation.check(path), path)
    assert fault.expected.startswith("a file in the format")


def test_a_file_of_an_unknown_kind_is_told_which_kinds_there_are(tmp_path):
    for name in ("notes.doc", "notes", "table.csv", "notes.yml"):
        path = tmp_path / name
        path.write_text("a: 1\n")
        fault = only(validation.check(path), path)
        assert fault.expected == validation.KINDS
        assert "a registry, catalog or schema (.yml)" in fault.expected


def test_a_path_that_is_not_there_is_a_fault(tmp_path):
    for name in ("gone.yml", "gone.csv", "gone.nc", "gone", "gone.json", "gone.parquet"):
        fault = only(validation.check(tmp_path / name), tmp_path / name)
        assert fault.found == "nothing of this name"


def test_a_grid_that_was_cut_short_is_a_fault(tmp_path):
    bed = xr.DataArray(
        np.random.default_rng(0).normal(size=(500, 500)).astype("float32"),
        {"y": 250.0 * np.arange(500), "x": 250.0 * np.arange(500)},
        ("y", "x"),
        attrs={"units": "m", "vertical_datum": "unknown", "provenance": "{}"},
    )
    for name in ("grid.tif", "grid.nc"):
        path = saved(bed.rio.write_crs("EPSG:3031"), tmp_path / name)
        assert messages_of(path) == []
        path.write_bytes(path.read_bytes()[:-200_000])
        assert validation.check(path)[0].file == str(path)


def test_of_a_folder_all_that_is_known_is_checked_and_the_rest_is_left(own, tmp_path, grid):
    (tmp_path / "raw.csv").write_text(CRESIS.replace("-87.521210", "-57"))
    (tmp_path / "notes.txt").write_text("nothing\n")
    (tmp_path / "scores.json").write_text("{}")
    (tmp_path / "loop").symlink_to(tmp_path)
    saved(grid, tmp_path / "grid.tif")
    saved(grid.drop_attrs(), tmp_path / "velocity.tif")
    edit(own / "data_list.yml", "year: 2010", "year: MMX")
    assert [Path(f.file).name for f in validation.check(tmp_path)] == ["data_list.yml", "raw.csv"]
    kinds = set(validation.find_files(tmp_path).values())
    assert kinds == {"repository", "pipeline", "catalog", "readme", "cresis", "grid"}
    (tmp_path / "bare").mkdir()
    assert "a folder without any of these" in messages_of(tmp_path / "bare")[0]


@pytest.fixture
def run() -> Callable[..., tuple[int, str]]:
    runner = CliRunner()

    def run(*arguments: object) -> tuple[int, str]:
        result = runner.invoke(app, ["validate", *map(str, arguments)])
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result.exit_code, result.stdout

    return run


def test_the_command_counts_the_files_where_there_is_no_fault(run, own):
    assert run(own / "data_list.yml", own / "highres") == (0, "2 files checked: no fault\n")
    assert run(own)[0] == 0


def test_the_command_prints_a_line_a_fault_and_fails(run, own):
    edit(own / "data_list.yml", "year: 2010", "year: MMX")
    code, output = run(own)
    assert code == 1
    assert output == (
        f"{own}/data_list.yml, line 7, entry Survey2010, field year: expected a whole number from "
        "1900 to 2100, or null, found 'MMX'\n"
    )


def test_the_command_gives_json_for_machines(run, own):
    assert run(own, "--json") == (0, "[]\n")
    edit(own / "data_list.yml", "year: 2010", "year: MMX")
    code, output = run(own, "--json")
    (fault,) = json.loads(output)
    assert code == 1
    assert list(fault) == ["file", "line", "entry", "field", "expected", "found", "remedy"]
    assert (fault["line"], fault["entry"], fault["field"]) == (7, "Survey2010", "year")


def test_real_raw_picks_have_no_fault(shared_data):
    assert messages_of(shared_data / "cresis" / "2018_Antarctica_DC8.csv") == []
