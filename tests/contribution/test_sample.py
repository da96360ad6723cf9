"""Samples of raw survey text: what is seen in them, what is guessed, and what must be told."""

from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepbedmap import validation
from deepbedmap.contribution import inspect
from deepbedmap.errors import InvalidDataError, MissingDataError
from deepbedmap.points import read_points

LON_LAT_BED = [(-80.5 + n / 100, -75.0 - n / 200, -1200.25 + n) for n in range(30)]
METRES_BED = [(-1_500_000.0 + 250 * n, -400_000.0, -640.5 - n) for n in range(30)]


def text_of(rows, separator=",", header="lon,lat,bed_elevation", end="\n"):
    lines = [header] if header else []
    lines += [separator.join(map(str, row)) for row in rows]
    return end.join([*lines, ""])


@pytest.fixture
def look(tmp_path):
    """Write a sample and look at it."""

    def write(content, name="survey.csv", **stated):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return inspect(path, **stated)

    return write


@pytest.fixture
def read(tmp_path):
    """Read a sample's picks with its own pipeline."""

    def run(sample):
        recipe = tmp_path / "recipe.json"
        recipe.write_text(json.dumps(sample.pipeline()))
        return read_points(recipe)

    return run


def expressions(sample):
    stages = sample.pipeline()["pipeline"]
    return [stage["expression"] for stage in stages if stage["type"] == "filters.expression"]


def guessed(sample, word):
    return any(word in guess.text for guess in sample.guesses)


@pytest.mark.parametrize(
    ("separator", "header"),
    [
        (",", "lon,lat,bed_elevation"),
        (", ", "lon, lat, bed_elevation"),
        ("\t", "lon\tlat\tbed_elevation"),
        (";", "lon;lat;bed_elevation"),
        ("|", "lon|lat|bed_elevation"),
        ("   ", "lon lat   bed_elevation"),
        (",", '"lon","lat","bed_elevation"'),
        ("\t", "# lon\tlat\tbed_elevation"),
    ],
)
def test_every_separator_gives_the_same_picks(look, read, separator, header):
    sample = look(text_of(LON_LAT_BED, separator, header))
    assert sample.table.names == ("lon", "lat", "bed_elevation")
    assert sample.questions == ()
    picks = read(sample)
    assert picks["z"].tolist() == [bed for _, _, bed in LON_LAT_BED]
    assert picks.attrs["crs"] == "EPSG:3031"
    x, y = picks.loc[0, ["x", "y"]]
    assert np.hypot(x, y) == pytest.approx(1.6388e6, rel=1e-3)


@pytest.mark.parametrize(
    ("heading", "skip"),
    [
        ("", 0),
        ("lon,lat,bed_elevation\n", 1),
        ("Survey of 2019\n\nlon,lat,bed_elevation\n", 3),
        ("lon,lat,bed_elevation\n(degrees),(degrees),(m)\n", 2),
        ("".join(f"#key_{n}: {n}.5\n" for n in range(18)) + "lon,lat,bed_elevation\n", 19),
        ("".join(f"#key_{n}: {n}.5\n" for n in range(18)), 18),
    ],
)
def test_lines_before_the_first_record_are_counted(look, read, heading, skip):
    sample = look(heading + text_of(LON_LAT_BED, header=None))
    assert sample.table.skip == skip
    assert len(read(sample)) == 30
    named = "lon" in heading
    assert sample.table.names == (
        ("lon", "lat", "bed_elevation") if named else ("column1", "column2", "column3")
    )
    assert guessed(sample, "column3") is not named


def test_of_two_lines_of_names_the_last_is_taken_unless_it_names_units(look):
    text = text_of(LON_LAT_BED, header="Longitude,Latitude,Bed\nlon,lat,bed_m")
    assert look(text).table.names == ("lon", "lat", "bed_m")
    text = text_of(LON_LAT_BED, header="Longitude,Latitude,Bed\ndeg,deg,m")
    assert look(text).table.names == ("Longitude", "Latitude", "Bed")


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda text: b"\xef\xbb\xbf" + text.encode(), id="byte-order mark"),
        pytest.param(lambda text: text.replace("\n", "\r\n").encode(), id="Windows line ends"),
        pytest.param(lambda text: b"Universit\xe4t\n" + text.encode(), id="Latin-1 heading"),
        pytest.param(lambda text: "Universität 雪\n".encode() + text.encode(), id="UTF-8 heading"),
    ],
)
def test_marks_ends_and_encodings_of_text_files_do_no_harm(look, read, wrap):
    sample = look(wrap(text_of(LON_LAT_BED)))
    assert sample.table.names[0] == "lon"
    assert read(sample)["z"].tolist() == [bed for _, _, bed in LON_LAT_BED]


def test_longitudes_to_360_are_where_the_negative_ones_are(look, read):
    east = [(lon + 360, lat, bed) for lon, lat, bed in LON_LAT_BED]
    one = read(look(text_of(east)))
    other = read(look(text_of(LON_LAT_BED)))
    np.testing.assert_allclose(one[["x", "y"]], other[["x", "y"]], atol=1e-6)


@pytest.mark.parametrize("mark", ["-9999", "9999.0", "-32768", "-99999", "-1e30"])
def test_a_number_that_marks_missing_beds_is_found_and_its_records_dropped(look, read, mark):
    rows = [*LON_LAT_BED, (-80, -75, mark), (-80, -75, 0), (-80, -75, mark)]
    sample = look(text_of(rows))
    assert sample.missing == {"bed_elevation": (float(mark),)}
    assert sample.nodata == float(mark)
    assert guessed(sample, "missing")
    picks = read(sample)
    assert len(picks) == 31
    assert picks["z"].iloc[-1] == 0  # a bed of 0 m is a bed


@pytest.mark.parametrize("mark", ["nan", "NaN", "*", ""])
def test_a_word_that_marks_missing_beds_needs_no_condition(look, read, mark):
    sample = look(text_of([*LON_LAT_BED, (-80, -75, mark)]))
    assert expressions(sample) == []
    assert len(read(sample)) == 30


def test_a_bed_of_999_m_is_no_missing_mark_among_its_like(look, read):
    rows = [(-80 - n / 100, -75, -1010 + n) for n in range(21)] + [(-80, -75, -999)] * 3
    assert look(text_of(rows)).missing == {}
    rows = [(-80 - n / 100, -75, 100 + n) for n in range(21)] + [(-80, -75, -999)] * 3
    assert look(text_of(rows)).missing == {"bed_elevation": (-999.0,)}


def test_missing_marks_that_are_told_are_not_guessed(look, read):
    rows = [*LON_LAT_BED, (-80, -75, -777)]
    sample = look(text_of(rows), missing=[-777])
    assert expressions(sample) == ["Z != -777"]
    assert not guessed(sample, "missing")
    rows = [*LON_LAT_BED, (-80, -75, -9999)]
    assert look(text_of(rows), missing=[float("nan")]).missing == {}


@pytest.mark.parametrize("word", ["NA", "null", "-"])
def test_a_word_that_no_pipeline_reads_as_missing_is_refused_with_what_to_do(look, word):
    with pytest.raises(InvalidDataError, match=r"field bed_elevation: .*replace them with nan"):
        look(text_of([*LON_LAT_BED, (-80, -75, word)]))


def test_names_that_pdal_does_not_allow_are_changed(look, read):
    header = "lon (degree),lat (degree),z-surf,bed/z [m],2wtt,Lon,bed/z [m],é"
    rows = [(x, y, 900, z, 3, 1, 2, 5) for x, y, z in LON_LAT_BED]
    sample = look(text_of(rows, header=header))
    names = sample.pipeline()["pipeline"][0]["header"].split(",")
    assert names == ["X", "Y", "z_surf", "Z", "c2wtt", "Lon", "bed_z_m_2", "e"]
    assert read(sample)["z"].tolist() == [bed for _, _, bed in LON_LAT_BED]


def test_two_columns_of_one_name_become_two_names(look, read):
    rows = [(*row, 1, 2) for row in METRES_BED]
    sample = look(text_of(rows, header="x,y,bed_elevation,gain,GAIN"))
    assert sample.pipeline()["pipeline"][0]["header"] == "X,Y,Z,gain,GAIN_2"
    assert len(read(sample)) == 30


def test_metres_near_the_pole_are_guessed_to_be_polar_stereographic(look, read):
    sample = look(text_of(METRES_BED, header="x,y,z"))
    assert sample.crs == "EPSG:3031"
    assert guessed(sample, "EPSG:3031")
    assert guessed(sample, "elevation is z")
    np.testing.assert_array_equal(read(sample)[["x", "y", "z"]], METRES_BED)


def test_metres_far_from_the_pole_are_asked_for_their_reference_system(look):
    rows = [(500_000, 7_000_000 + n, -10 - n) for n in range(9)]
    sample = look(text_of(rows, header="easting,northing,bed_elevation"))
    assert [question.settled_by for question in sample.questions] == [("crs",)]
    with pytest.raises(ValueError, match="reference system"):
        sample.pipeline()


def test_another_reference_system_is_reprojected(look, read):
    rows = [(500_000, 2_000_000 + 100 * n, -10.25 - n) for n in range(9)]  # UTM, 72 degrees S
    sample = look(text_of(rows, header="easting,northing,bed_elevation"), crs="epsg:32720")
    assert not guessed(sample, "EPSG")
    picks = read(sample)
    assert picks.attrs["crs"] == "EPSG:3031"
    assert np.hypot(picks["x"], picks["y"]).max() < 3e6


def test_kilometres_are_guessed_and_become_metres(look, read):
    rows = [(x / 1000, y / 1000, z / 1000) for x, y, z in METRES_BED]
    sample = look(text_of(rows, header="x,y,bed_elevation"))
    assert (sample.xy_units, sample.units) == ("km", "km")
    assert guessed(sample, "x and y are in km")
    assert guessed(sample, "heights are in km")
    np.testing.assert_allclose(read(sample)[["x", "y", "z"]], METRES_BED)


def test_beds_of_a_few_metres_are_metres(look, read):
    rows = [(x, y, n % 4) for n, (x, y, _) in enumerate(METRES_BED)]
    sample = look(text_of(rows, header="x,y,bed_elevation"))
    assert sample.units == "m"
    assert read(sample)["z"].max() == 3


def test_a_bed_that_is_not_given_is_surface_less_thickness(look, read):
    rows = [(x, y, 800, 800 - z) for x, y, z in METRES_BED]
    rows += [(0, -500_000, 800, -9999), (0, -500_000, -9999, 1000), (0, -500_000, 700, 700)]
    sample = look(text_of(rows, header="x,y,surface_altitude (m),land_ice_thickness (m)"))
    assert guessed(sample, "surface_altitude (m) - land_ice_thickness (m)")
    picks = read(sample)
    assert picks["z"].tolist() == [*(z for _, _, z in METRES_BED), 0]


def test_thickness_without_a_value_is_told_to_pdal_too(look, read):
    rows = [(x, y, 800, 800 - z) for x, y, z in METRES_BED] + [(0, -500_000, 800, "*")]
    sample = look(text_of(rows, header="x,y,surface,thickness"))
    assert expressions(sample) == ["thickness > 0"]
    rows.append((0, -500_000, 800, 0))  # rock: a thickness of 0 m is one
    sample = look(text_of(rows, header="x,y,surface,thickness"))
    assert expressions(sample) == []
    assert len(read(sample)) == 31


def test_a_given_bed_goes_before_surface_and_thickness(look):
    rows = [(x, y, 800, 800 - z, z) for x, y, z in METRES_BED]
    sample = look(text_of(rows, header="x,y,surface,thickness,bedrock_altitude"))
    assert sample.roles["z"] == "bedrock_altitude"
    assert not guessed(sample, "bed")


@pytest.mark.parametrize(("down", "sign"), [(True, 1), (False, -1)])
def test_the_sign_of_a_depth_is_asked_and_never_guessed(look, read, down, sign):
    rows = [(x, y, 640 + n) for n, (x, y, _) in enumerate(METRES_BED)]
    text = text_of(rows, header="x,y,bed_depth")
    assert [question.settled_by[0] for question in look(text).questions] == ["down"]
    picks = read(look(text, down=down))
    assert picks["z"].tolist() == [-sign * depth for _, _, depth in rows]


def test_columns_that_are_told_are_taken(look, read):
    rows = [(z, y, x, 3) for x, y, z in METRES_BED]
    text = text_of(rows, header="a,b,c,d")
    sample = look(text, x="c", y="b", z="a")
    np.testing.assert_array_equal(read(sample)[["x", "y", "z"]], METRES_BED)
    assert not guessed(sample, "x and y are b")
    with pytest.raises(ValueError, match="no column 'Latitude'; its columns are a, b, c, d"):
        look(text, y="Latitude")
    with pytest.raises(ValueError, match="expected z, or surface and thickness, found both"):
        look(text, z="a", surface="d")
    with pytest.raises(ValueError, match="x, y: each must be a different column"):
        look(text, x="a", y="a")


def test_columns_that_cannot_be_told_apart_are_asked_for(look):
    sample = look(text_of([(n, 5 * n, 7, 8) for n in range(9)], header="a,b,c,d"))
    assert [question.settled_by[0] for question in sample.questions] == ["x", "y", "z"]


def test_lines_dates_and_qualities_reach_the_picks(look, read):
    rows = [(f"F{n // 10}", "2019-12-24", f"10:00:{n:02}", *row, 1 + n % 3)
            for n, row in enumerate(LON_LAT_BED)]  # fmt: skip
    header = "trajectory_id,date,time_UTC,longitude,latitude,bed_elev,quality_flag"
    picks = read(look(text_of(rows, header=header)))
    assert picks["line"].nunique() == 3
    assert picks["quality"].max() == 3
    assert str(picks["time"].iloc[-1]) == "2019-12-24 10:00:29"


def test_a_quality_that_is_no_code_is_left_out(look, read):
    rows = [(*row, 0.125) for row in LON_LAT_BED]
    picks = read(look(text_of(rows, header="lon,lat,bed_elev,quality")))
    assert "quality" not in picks


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file"),
        (b"  \n\n \n", "an empty file"),
        (b"PK\x03\x04" + bytes(range(256)), "binary data"),
        ("lon,lat\n".encode("utf-16"), "UTF-16"),
        (b"lon,lat,bed\r-80,-75,3\r", "line feed"),
        (b"lon,lat,bed\n", "a header and no record"),
        (b"The quick brown fox.\n" * 20, "no line with numbers"),
        (b"bed\n" + b"12.5\n" * 20, "one column"),
        (b"x,y\n" + b"12.5,3\n" * 20, "two fields per line"),
        (b"lon;lat;bed\n" + b"-80,5;-75,25;100,5\n" * 20, "decimal commas"),
        (b"x,y,z\n" + b'"-80.5","-75",12,4\n' * 20, "quotation marks"),
        (b"lon,lat,bed,place\n" + b"-80,-75,12,K\xf6nig\n" * 20, "another encoding"),
    ],
)
def test_what_is_no_survey_is_one_clear_line(look, content, message):
    with pytest.raises(InvalidDataError, match=message) as caught:
        look(content)
    assert "\n" not in str(caught.value)
    assert "survey.csv" in str(caught.value)


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(MissingDataError, match=r"gone\.csv: there is no such file"):
        inspect(tmp_path / "gone.csv")
    with pytest.raises(InvalidDataError, match="can be read"):
        inspect(tmp_path)


def test_little_of_a_long_file_is_read_and_marks_far_in_it_are_found(look):
    records = ["-80.123456,-75.123456,-1200.125,some words to make it long"] * 60_000
    records[40_000:44_000] = ["-80,-75,-9999,gap"] * 4_000
    sample = look("\n".join(["lon,lat,bed_elev,remark", *records, ""]))
    assert sample.missing == {"bed_elev": (-9999.0,)}
    assert len(sample.table.texts["lon"]) < 45_000


def test_the_columns_of_cresis_give_the_pipeline_of_cresis(shared_data):
    sample = inspect(shared_data / "cresis" / "2018_Antarctica_DC8.csv")
    stages = sample.pipeline()["pipeline"]
    assert stages[0]["header"] == "Y,X,UTCTIMESOD,THICK,ELEVATION,FRAME,SURFACE,BOTTOM,QUALITY"
    assert stages[1:] == [
        {"type": "filters.expression", "expression": "BOTTOM > 0"},
        {"type": "filters.assign", "value": "Z = ELEVATION - BOTTOM"},
        {"type": "filters.reprojection", "in_srs": "EPSG:4326", "out_srs": "EPSG:3031"},
    ]


def test_a_choice_that_is_none_is_refused(look):
    for stated in ({"units": "feet"}, {"xy_units": "miles"}, {"crs": "EPSG:1"}, {"down": "up"}):
        with pytest.raises(ValueError, match=next(iter(stated))):
            look(text_of(LON_LAT_BED), **stated)


FIELDS = ["-80.5", "-75", "0", "-9999", "nan", "*", "NA", "1e300", "-1e-300", "360", "x", "#",
          '"', "é", "1,5", "9", ""]  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(
        st.lists(st.sampled_from(FIELDS), min_size=3, max_size=4),
        max_size=12,
    ),
    separator=st.sampled_from([",", "\t", ";", " ", "|", ", "]),
    heading=st.sampled_from(
        ["", "lon,lat,bed\n", "x;y;depth\n", "# a b c\n\n", "LAT LON z surf h\n"]
    ),
    stated=st.fixed_dictionaries(
        {},
        optional={
            "x": st.sampled_from(["lon", "column1", "a"]),
            "missing": st.lists(st.sampled_from([-9999.0, float("nan")])),
            "crs": st.sampled_from(["EPSG:4326", "EPSG:3031"]),
        },
    ),
)
def test_whatever_the_file_says_there_is_a_sample_or_one_line(
    tmp_path_factory, rows, separator, heading, stated
):
    path = tmp_path_factory.getbasetemp() / "odd.txt"
    path.write_text(heading + "\n".join(map(separator.join, rows)) + "\n")
    try:
        sample = inspect(path, **stated)
    except ValueError as error:
        message = str(error)
    else:
        message = "; ".join(sample.findings)
        if not sample.questions:
            recipe = path.with_suffix(".json")
            recipe.write_text(json.dumps(sample.pipeline()))
            with contextlib.suppress(InvalidDataError):  # the records; never the pipeline
                read_points(recipe)
            assert validation.check(recipe) == []
    assert message
    assert "\n" not in message
