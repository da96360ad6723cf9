"""Finding datasets: by words, by place, by what is known of them; and how they are shown."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from deepbedmap import registry
from deepbedmap.registry import Registry

Listed = Callable[..., Registry]

RUTFORD = registry.load()["King2016Rutford"]


def survey(citekey: str, **fields: Any) -> dict[str, Any]:
    """A made-up entry of a registry."""
    files = [{"filename": f"{citekey}.csv", "url": None, "sha256": None}]
    return {
        "citekey": citekey,
        "title": f"Survey {citekey}",
        "folder": "highres",
        "files": files,
        "doi": {"dataset": f"10.5285/{citekey}"},
    } | fields


@pytest.fixture
def listed(listed_datasets: Listed) -> Listed:
    return listed_datasets


@pytest.fixture
def call(call, monkeypatch):
    """Run the command line on a registry (or the bundled one); give code, output and errors."""

    def run(*arguments: object, of: Registry | None = None) -> tuple[int, str, str]:
        if of is not None:
            monkeypatch.setattr(registry, "load", lambda: of)
        return call(*arguments)

    return run


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("survey", ["Rutford1", "Carlson2"]),
        ("rutford ICE stream", ["Rutford1"]),
        ("moller", ["Carlson2"]),
        ("MÖLLER", ["Carlson2"]),
        ("nost", ["Carlson2"]),
        ("strasse", ["Carlson2"]),
        ("v1.4", ["Carlson2"]),
        ("seismic", ["Carlson2"]),
        ("2006", ["Rutford1"]),
        ("2005 2007 Rutford", ["Rutford1"]),
        ("2008", []),
        ("10.5285/rutford1", ["Rutford1"]),
        ("https://doi.org/10.5285/Rutford1", ["Rutford1"]),
        ("doi:10.5194/x", ["Carlson2"]),
        ("thwaites", ["Carlson2"]),
        ("thwaites 2012", ["Carlson2"]),
        ("picks.txt", ["Carlson2"]),
        ("rutford thwaites", []),
        ("Greenland", []),
        ("hazard", []),
    ],
)
def test_words_are_sought_in_all_that_names_a_dataset(text, found, listed):
    files = [
        {"filename": "AWI_2012_Thwaites.csv", "url": None, "sha256": None},
        {"filename": "all.zip", "unpacked": "picks.txt", "url": None, "sha256": None},
    ]
    listing = listed(
        survey("Rutford1", location="Rutford Ice Stream", epoch=[2005, 2007]),
        survey(
            "Carlson2",
            authors=["Möller, Jürgen", "Nøst, Å. Straße"],
            version="v1.4",
            survey_type="seismic",
            doi={"literature": "10.5194/X"},
            files=files,
            notes="hazard",
            instructions="none",
        ),
    )
    assert listing.search(text).citekey.tolist() == found


def test_the_files_with_the_words_that_only_they_have_are_named(listed, call):
    names = [f"AWI_{year}_Thwaites.csv" for year in range(2010, 2015)] + ["AWI_2010_Recovery.csv"]
    files = [{"filename": name, "url": None, "sha256": None} for name in names]
    listing = listed(survey("Bedmap", title="Points of Antarctica", files=files))
    (matching,) = listing.search("antarctica thwaites").matching_files
    assert matching == names[:5]
    assert listing.search("antarctica").matching_files[0] == []
    out = call("search", "antarctica", "thwaites", of=listing)[1]
    assert f"Bedmap has {', '.join(names[:3])} and 2 more" in out


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"folder": "misc"}, ["C"]),
        ({"licence": "CC-BY-4.0"}, ["A"]),
        ({"licence": "cc-by-4.0"}, ["A"]),
        ({"licence": "MIT"}, []),
        ({"licence": "unknown"}, ["B", "C"]),
        ({"datum": "ellipsoid"}, ["A"]),
        ({"datum": "eigen-6c4"}, ["B"]),
        ({"datum": "unknown"}, ["C"]),
        ({"crs": "EPSG:4326"}, ["A"]),
        ({"crs": "epsg:3413"}, []),
        ({"crs": "unknown"}, ["B", "C"]),
        ({"status": "retired"}, ["B"]),
        ({"status": "unknown"}, ["A", "C"]),
        ({"status": "unknown", "datum": "ellipsoid", "text": "survey"}, ["A"]),
        ({}, ["A", "B", "C"]),
    ],
)
def test_what_is_asked_for_is_what_is_found(query, found, listed):
    listing = listed(
        survey("A", licence="CC-BY-4.0", vertical_datum="ellipsoid", crs="EPSG:4326"),
        survey("B", vertical_datum="EIGEN-6C4", status="retired"),
        survey("C", folder="misc"),
    )
    assert listing.search(**query).citekey.tolist() == found


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"folder": "high"}, "folder: .*highres, lowres, misc.*'high'"),
        ({"folder": "unknown"}, "folder: .*'unknown'"),
        ({"licence": "CC-BY-4"}, "licence: .*did you mean CC-BY-4.0"),
        ({"datum": "elipsoid"}, "datum: .*did you mean ellipsoid"),
        ({"crs": "EPSG:43260"}, "crs: .*did you mean EPSG:4326"),
        ({"crs": "4326"}, "crs: "),
        ({"status": "retird"}, "status: .*did you mean retired"),
        ({"bounds": (0, 0, -1, 1)}, "xmin < xmax"),
        ({"bounds": (0, 0, float("nan"), 1)}, "xmin < xmax"),
        ({"bounds": (0, 0, 1)}, "xmin < xmax"),
        ({"lonlat": (0, -80, 10, -49)}, "latmax <= -50"),
        ({"lonlat": (0, -70, 10, -80)}, "latmin < latmax"),
        ({"lonlat": (0, -91, 10, -80)}, "-90 <= latmin"),
        ({"lonlat": (0, -80, 361, -70)}, "from -180 to 360"),
        ({"lonlat": (5, -80, 5, -70)}, "lonlat: expected .lonmin, latmin, lonmax, latmax"),
        ({"lonlat": (5, float("nan"), 6, -70)}, "lonlat: expected .lonmin, latmin, lonmax"),
        ({"lonlat": (0, 0, 1_000, 1_000)}, "lonlat: expected .lonmin, latmin, lonmax, latmax"),
        ({"bounds": (0, 0, 1e6, 1e6), "lonlat": (0, -80, 10, -70)}, "found both"),
    ],
)
def test_a_value_that_cannot_be_is_refused_and_near_ones_offered(query, message, listed):
    listing = listed(survey("A", licence="CC-BY-4.0", crs="EPSG:4326"))
    with pytest.raises(ValueError, match=message) as error:
        listing.search(**query)
    assert "\n" not in str(error.value)


def test_a_box_keeps_what_touches_it_and_flags_what_is_unknown(listed):
    listing = listed(
        survey("Inside", bounds=[0, 0, 1000, 1000]),
        survey("Touching", bounds=[2000, 0, 3000, 500.5]),
        survey("TouchingWest", bounds=[-1000, -1000, -500, -500]),
        survey("Beyond", bounds=[2001, 0, 3000, 1000]),
        survey("Unknown"),
    )
    found = listing.search(bounds=(-500, -500, 2000, 0))
    assert found[["citekey", "bounds_known"]].to_numpy().tolist() == [
        ["Inside", True],
        ["Touching", True],
        ["TouchingWest", True],
        ["Unknown", False],
    ]


def test_a_box_in_metres_that_looks_like_degrees_is_told(listed, caplog):
    with caplog.at_level(logging.WARNING):
        listed(survey("A")).search(bounds=(-90, -80, -60, -70))
    assert "look like degrees but are read as metres (EPSG:3031)" in caplog.text


def around(longitude: float, latitude: float) -> list[float]:
    """Bounds in EPSG:3031 of a small place."""
    to_polar = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:3031", always_xy=True)
    x, y = to_polar.transform(longitude, latitude)
    return [x - 5_000, y - 5_000, x + 5_000, y + 5_000]


@pytest.mark.parametrize(
    ("lonlat", "found"),
    [
        ((-120, -80, -90, -70), ["Thwaites"]),
        ((240, -80, 270, -70), ["Thwaites"]),
        ((-110, -90, -100, -89.9), ["Pole"]),
        ((170, -85, -170, -75), ["DateLine"]),
        ((-170, -85, 170, -75), ["Thwaites"]),
        ((-180, -90, 180, -88), ["Pole"]),
        ((0, -78, 360, -74), ["Thwaites"]),
        ((10, -85, 5, -50), ["Thwaites", "DateLine"]),
        # The box around this sector in metres reaches the pole's other side, the sector does not.
        ((-179, -86, -1, -60), ["Thwaites"]),
    ],
)
def test_a_box_in_degrees_finds_what_lies_in_it(lonlat, found, listed):
    listing = listed(
        survey("Thwaites", bounds=around(-106, -76)),
        survey("Pole", bounds=around(0, -90)),
        survey("DateLine", bounds=around(180, -80)),
        survey("East", bounds=around(7.5, -68)),
    )
    assert listing.search(lonlat=lonlat).citekey.tolist() == found


@settings(max_examples=60, deadline=None)
@given(
    west=st.floats(-180, 180),
    width=st.floats(0.01, 359.9),
    south=st.floats(-90, -51),
    height=st.floats(0.01, 39),
    share=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_every_place_of_a_box_in_degrees_is_found(west, width, south, height, share):
    east = (west + width + 180) % 360 - 180
    north = min(south + height, -50)
    longitude, latitude = west + share[0] * width, south + share[1] * (north - south)
    to_polar = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:3031", always_xy=True)
    x, y = to_polar.transform(longitude, latitude)
    place = dataclasses.replace(RUTFORD, bounds=(x - 1, y - 1, x + 1, y + 1))
    listing = Registry(Path("data_list.yml"), [place])
    assert len(listing.search(lonlat=(west, south, east, north))) == 1


def test_a_place_at_the_rim_between_two_meridians_is_found():
    # A straight line from meridian to meridian would leave it out by a hundred metres.
    x, y, *_ = np.add(around(0.5, -60.0002), 5_000)
    place = dataclasses.replace(RUTFORD, bounds=(x - 1, y - 1, x + 1, y + 1))
    listing = Registry(Path("data_list.yml"), [place])
    assert len(listing.search(lonlat=(0, -80, 1, -60))) == 1
    assert listing.search(lonlat=(0, -80, 1, -60.01)).empty


@settings(max_examples=40, deadline=None)
@given(longitude=st.floats(-180, 180), latitude=st.floats(-89, -51))
def test_no_place_a_kilometre_beyond_a_box_in_degrees_is_found(longitude, latitude):
    box = (-60, -80, 0, -70)
    to_polar = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:3031", always_xy=True)
    x, y = to_polar.transform(longitude, latitude)
    edges = np.linspace(-60, 0, 10_000)
    sides = np.linspace(-80, -70, 10_000)
    rim = [to_polar.transform(edges, np.full(edges.shape, at)) for at in (-80, -70)]
    rim += [to_polar.transform(np.full(sides.shape, at), sides) for at in (-60, 0)]
    distance = min(np.hypot(xs - x, ys - y).min() for xs, ys in rim)
    inside = -60 <= longitude <= 0 and -80 <= latitude <= -70
    assume(not inside and distance > 1_000)
    place = dataclasses.replace(RUTFORD, bounds=(x - 1, y - 1, x + 1, y + 1))
    assert Registry(Path("data_list.yml"), [place]).search(lonlat=box).empty


def test_the_table_of_files_says_size_access_version_and_status(listed):
    files = [
        {"filename": "a.csv", "url": None, "sha256": None, "bytes": 12, "access": "earthdata"},
        {"filename": "b.csv", "url": None, "sha256": None},
    ]
    table = listed(survey("A", version="2", status="active", files=files)).files
    columns = ["filename", "bytes", "access", "version", "status"]
    first, second = table[columns].astype(object).to_numpy().tolist()
    assert first == ["a.csv", 12, "earthdata", "2", "active"]
    assert second[2:] == ["open", "2", "active"]
    assert table["bytes"].isna().tolist() == [False, True]


def test_a_registry_whose_files_nobody_can_name_has_an_empty_table(listed):
    listing = listed(survey("A", files=[]))
    assert listing.files.empty
    assert listing.search().files.tolist() == [0]


def test_the_search_lists_apart_what_may_be_anywhere(listed, call):
    listing = listed(
        survey("Anywhere", location="Antarctica"),
        survey("Here", bounds=[0, 0, 1000, 1000], licence="CC-BY-4.0", epoch=[1999, 1999]),
        survey("There", bounds=[9000, 0, 9500, 1000]),
    )
    code, out, _ = call("search", "--bounds", 0, 0, 2000, 2000, of=listing)
    assert code == 0
    known, unknown = out.split("place unknown (1):\n")
    assert "Here" in known
    assert "CC-BY-4.0" in known
    assert "1999" in known
    assert "Anywhere" in unknown
    assert "There" not in out
    assert "place unknown" not in call("search", "survey", of=listing)[1]
    rows = json.loads(call("search", "--bounds", 0, 0, 2000, 2000, "--json", of=listing)[1])
    assert [(row["citekey"], row["bounds_known"]) for row in rows] == [
        ("Anywhere", False),
        ("Here", True),
    ]
    assert rows[1]["bounds"] == [0, 0, 1000, 1000]
    only_unknown = call("search", "anywhere", "--lonlat", 0, -80, 9, -70, of=listing)[1]
    assert only_unknown.startswith("place unknown (1):\n")


def test_a_search_that_finds_nothing_says_so_and_succeeds(call):
    code, out, err = call("search", "nosuchplace")
    assert (code, err) == (0, "")
    assert out == "no dataset fits; `deepbedmap list` shows all\n"
    code, out, _ = call("search", "nosuchplace", "--json")
    assert (code, json.loads(out)) == (0, [])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--datum", "WGS84"), "datum"),
        (("--licence", "CC"), "licence"),
        (("--status", "old"), "status"),
        (("--lonlat", -120, -80, -90, 70), "lonlat"),
    ],
)
def test_a_wrong_option_is_the_call_s_fault_in_one_line(option, message, call):
    code, out, err = call("search", *option)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert message in err


@pytest.mark.parametrize("command", [("list",), ("search", "a")])
def test_tables_fit_on_a_terminal(command, call, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes anything for a terminal
    monkeypatch.setenv("COLUMNS", "120")
    _, out, _ = call(*command)
    plain = re.sub(r"\x1b\[[\d;]*m", "", out)
    assert plain.count("\n") > 5
    tables = [line for line in plain.splitlines() if " has " not in line]
    assert max(map(len, tables)) <= 120


@pytest.mark.parametrize("columns", ["40", "200"])
def test_a_table_in_a_pipe_is_whole_whatever_the_terminal(columns, call, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    _, out, _ = call("search", "a", "--folder", "lowres")
    header, *rows = out.splitlines()
    assert header.split() == [
        "citekey",
        "folder",
        "location",
        "epoch",
        "status",
        "licence",
        "datum",
        "files",
    ]
    ibcso = next(row for row in rows if row.startswith("Dorschel2022IBCSO "))
    assert re.split(" {2,}", ibcso)[:4] == [
        *("Dorschel2022IBCSO", "lowres", "Southern Ocean and Antarctica", "unknown")
    ]
    assert all(" lowres " in row for row in rows if " has " not in row)


def test_the_list_says_what_is_unknown(listed, call):
    listing = listed(
        survey("A", version="2.1", status="active", resolution=250.0, vertical_datum="EIGEN-6C4"),
        survey("B", vertical_datum=None),
    )
    header, a, b = (line.split() for line in call("list", of=listing)[1].splitlines())
    assert header == [
        "citekey",
        "folder",
        "version",
        "status",
        "resolution",
        "licence",
        "datum",
        "files",
    ]
    assert a == ["A", "highres", "2.1", "active", "250", "m", "unknown", "EIGEN-6C4", "1"]
    assert b == ["B", "highres", *["unknown"] * 5, "1"]


def test_a_dataset_is_shown_on_a_page_with_its_first_files(listed, call):
    files = [
        {"filename": f"line{n}.csv", "url": "https://example.org/x", "sha256": None, "bytes": 1000}
        for n in range(1, 15)
    ]
    listing = listed(
        survey(
            "Old",
            files=files,
            status="superseded",
            superseded_by="New",
            epoch=[2005, 2006],
            bounds=[0, 0, 2_500_000, 1],
            firn_correction=False,
            nodata=-9999,
            radar={"quality": {"1": "good", "2": "bad"}, "wave_speed": 168.5},
            built_from={"until": 2012},
            paper={"journal": "The Cryosphere", "year": 2013},
        ),
        survey("New", files=[], doi={"dataset": "10.5285/new"}, firn_correction=True),
    )
    code, out, _ = call("show", "Old", of=listing)
    assert code == 0
    assert "superseded; use New (`deepbedmap show New`)" in out
    lines = {line[:17].strip(): line[18:] for line in out.splitlines() if line[:1].islower()}
    assert lines["licence"] == "unknown"
    assert lines["doi dataset"] == "https://doi.org/10.5285/Old"
    assert lines["epoch"] == "2005-2006"
    assert lines["bounds"] == "0 0 2500000 1 (m, EPSG:3031)"
    assert lines["nodata"] == "-9999"
    assert lines["firn correction"] == "no"
    assert lines["built from"] == "surveys: unknown; until: 2012"
    assert "wave speed: 168.5" in lines["radar"]
    assert "1: good" in lines["radar"]
    assert lines["paper"].endswith("(2013). The Cryosphere.")
    assert out.count(".csv") == 10
    assert "and 4 more (--json lists all)" in out
    assert max(map(len, out.splitlines())) <= 100
    out = call("show", "New", of=listing)[1]
    assert "their names are not known" in out
    assert "superseded; use" not in out
    assert "yes" in out


def test_every_dataset_has_a_page(call):
    listing = registry.load()
    for dataset in listing:
        code, out, _ = call("show", dataset.citekey, of=listing)
        assert code == 0
        assert out.startswith(f"{dataset.citekey}\n")
        assert max(map(len, out.splitlines())) <= 120


def test_all_of_a_dataset_is_json_on_request(call):
    dataset = max(registry.load(), key=lambda dataset: len(dataset.files))
    shown = json.loads(call("show", dataset.citekey, "--json")[1])
    assert shown["title"] == dataset.title
    assert [file["sha256"] for file in shown["files"]] == [file.sha256 for file in dataset.files]
