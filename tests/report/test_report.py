"""The report: a page that needs nothing beside it, and the figures of an evaluation."""

from __future__ import annotations

import dataclasses
import json
import re
import struct
import zlib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.places import raster

from deepbedmap import evaluation, figures, points, rasters, registry
from deepbedmap.catalog import opening
from deepbedmap.errors import InvalidDataError
from deepbedmap.evaluation import MassStatistics, Verdict, score, score_ensemble
from deepbedmap.report import (
    Figure,
    draw_evaluation,
    evaluation_figures,
    require_place,
    write_report,
)

BOX = (0, 0, 30_000, 30_000)
HOSTILE = "<script>alert(1)</script>.tif"


def bed(x, y):
    return 0.01 * x - 0.02 * y + 40 * np.sin(x / 700) * np.cos(y / 900)


def table_of(lines):
    x = np.arange(2_050.0, 28_000, 100)
    tables = [
        pd.DataFrame({"x": x, "y": y, "z": bed(x, y) - 3, "line": name})
        for name, y in lines.items()
    ]
    table = pd.concat(tables, ignore_index=True).astype({"line": "category"})
    table.attrs = {"crs": "EPSG:3031", "vertical_datum": "ellipsoid", "sources": []}
    return table


@pytest.fixture(scope="module")
def picks():
    return table_of({"a": 8_000.0, "b": 15_000.0, "c": 22_000.0})


@pytest.fixture(scope="module")
def beds(tmp_path_factory):
    """A DEM and a smoother prior, as files."""
    folder = tmp_path_factory.mktemp("beds")
    return {
        "dem": rasters.write_geotiff(raster(bed, 250, BOX), folder / "dem.tif"),
        "prior": rasters.write_geotiff(raster(bed, 1_000, BOX), folder / "prior.tif"),
    }


def row_of(name, error, **others):
    """A row of a table, by hand: two lines of two picks."""
    grid, z = np.array([error, error, error + 1, error + 1]), np.array([0.0, 2, 1, 5])
    scores = score(
        grid,
        z,
        [0, 0, 1, 1],
        ([0, 1], [1.0, 2], [2.0, 2]),
        strata={"speed": [5.0, 20, 20, np.nan]},
    )
    verdicts = Verdict("yes", "it has no prior"), Verdict("unknown", "nothing says <where>")
    return evaluation.Row(name, f"{name}.tif", "ab" * 32, scores, *verdicts, **others)


def png(path, width=3, height=2):
    def chunk(kind, content):
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    lines = b"".join(b"\0" + b"\x80" * 3 * width for _ in range(height))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )
    return path


class Page(HTMLParser):
    """Tags of a page with their attributes, in order, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text = " ".join(f"{self.text} {data}".split())

    def all(self, *names):
        return [attributes for tag, attributes in self.tags if tag in names]


@pytest.fixture
def write(tmp_path):
    """Write a report; give it as a page."""

    def run(rows=None, drawn=(), **others):
        rows = rows or [row_of("dem", 1.0), row_of("prior", 3.0)]
        given = {"title": "Scores", "rows": rows, "figures": drawn} | others
        path = write_report(tmp_path / "report.html", **given)
        return Page(path.read_text(encoding="utf-8"))

    return run


def test_the_page_says_what_was_scored_against_what_in_a_sentence(write):
    page = write(picks="MadeUp6")
    assert "dem.tif is scored at 4 radar picks on 2 flight lines of MadeUp6, alongside prior." in (
        page.text
    )


def test_each_bed_has_its_scores_intervals_and_verdicts(write):
    row = row_of("dem", 1.0)
    page = write([row])
    low, high = (f"{value:.1f}" for value in dataclasses.astuple(row.scores.intervals["rmse"]))
    assert f"{row.scores.rmse:.1f} {low} to {high}" in page.text
    assert "it has no prior" in page.text
    assert "nothing says <where>" in page.text  # readable, not in a title that needs hovering
    assert not any("title" in attributes for _, attributes in page.tags)


def test_what_is_not_defined_is_said(write):
    row = row_of("dem", 1.0)
    row = dataclasses.replace(row, scores=dataclasses.replace(row.scores, r2=float("nan")))
    assert "not defined" in write([row]).text


def test_one_line_only_is_remarked_instead_of_an_interval(write):
    scores = score([1.0, 2.0], [0.0, 0.0], [0, 0])
    page = write([dataclasses.replace(row_of("dem", 1.0), scores=scores)])
    assert "No intervals: the picks are of one line." in page.text
    assert "1,000 resamples" not in page.text


def test_classes_ensemble_and_mass_have_tables_where_they_are_known(write):
    row = row_of("dem", 1.0)
    plain = dataclasses.replace(row, scores=dataclasses.replace(row.scores, strata={}))
    without = write([plain]).text
    mass = MassStatistics(7, 0.1, 4.25, 0.2, 0.3, 0.25, 10.0, 0.9)
    ensemble = score_ensemble([[0.0, 1], [2.0, 1]], [1.0, 1])
    page = write([dataclasses.replace(row, ensemble=ensemble, mass=mass)]).text
    for text in ("RMSE (m) by ice speed", "2 members at 2 picks", "Does the ice conserve mass?"):
        assert text not in without
        assert text in page
    assert "10 to 50" in page
    assert "unknown 1" in page  # a pick of which the speed is not known
    assert "4.25" in page
    assert "25.0%" in page


def test_the_page_needs_nothing_beside_it(write, tmp_path):
    figure = Figure("Map", png(tmp_path / "map.png"), "A map.", "Blue to the left.")
    source = "King (2016). https://doi.org/10.5285/54757cbe"
    page = write(drawn=[figure], sources=[source])
    assert not page.all("script", "iframe", "object", "base")
    (image,) = page.all("img")
    assert image["src"].startswith("data:image/png;base64,")
    assert (image["width"], image["height"], image["alt"]) == ("3", "2", "Blue to the left.")
    assert [link["href"] for link in page.all("link")] == ["data:,"]
    assert [link["href"] for link in page.all("a")] == ["https://doi.org/10.5285/54757cbe"]
    text = (tmp_path / "report.html").read_text()
    assert not re.search(r"url\(|@import", text)
    (policy,) = [meta["content"] for meta in page.all("meta") if "http-equiv" in meta]
    assert policy.startswith("default-src 'none'")


def test_tables_and_headings_can_be_read_by_a_machine(write, tmp_path):
    page = write(drawn=[Figure("Map", png(tmp_path / "map.png"), "A map.")])
    assert page.all("html") == [{"lang": "en"}]
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert max(np.diff(levels)) == 1
    tables = page.all("table")
    assert len(page.all("caption")) == len(tables) >= 4
    assert {cell["scope"] for cell in page.all("th")} == {"col", "row"}
    assert all(cell["data-label"] for cell in page.all("td"))
    assert all(image["alt"] for image in page.all("img"))


def test_names_that_are_markup_are_text(write):
    row = dataclasses.replace(
        row_of(HOSTILE, 1.0), file=HOSTILE, independent_of_prior=Verdict("no", f"of {HOSTILE}")
    )
    figure = Figure(HOSTILE, None, HOSTILE)
    texts = dict.fromkeys(("title", "picks", "command"), f'"{HOSTILE}')
    page = write([row, row_of("b", 2.0)], [figure], notes=[HOSTILE], sources=[HOSTILE], **texts)
    assert not page.all("script")
    # title, heading, sentence (twice), notes, tables, figure (twice), sources, command, files
    assert page.text.count(HOSTILE) >= 12


def test_what_was_not_drawn_is_listed_with_the_reason(write):
    page = write(drawn=[Figure("Spectrum", None, "no line is long enough.")])
    assert "Not drawn Spectrum: no line is long enough." in page.text
    assert not page.all("img")


def test_the_page_says_how_to_repeat_it(write):
    page = write(command="deepbedmap evaluate dem.tif --points picks.parquet")
    assert "deepbedmap evaluate dem.tif --points picks.parquet" in page.text
    assert "ab" * 32 in page.text
    assert re.search(r"numpy \d", page.text)


def test_a_page_appears_complete_or_not_at_all(write, tmp_path):
    path = tmp_path / "map.png"
    path.write_text("GIF89a")
    with pytest.raises(InvalidDataError, match=r"map\.png: expected a PNG"):
        write(drawn=[Figure("Map", path, "A map.")])
    with pytest.raises(ValueError, match="rows: expected at least one, found none"):
        write_report(tmp_path / "report.html", title="", rows=[], figures=[])
    assert [file.name for file in tmp_path.iterdir()] == ["map.png"]


@pytest.mark.parametrize("name", ["report.pdf", "report", "absent/report.html", "folder.html"])
def test_a_place_that_cannot_be_written_is_told(tmp_path, name):
    (tmp_path / "folder.html").mkdir()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InvalidDataError) as caught:
        require_place(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    require_place(tmp_path / "report.html")
    assert sorted(tmp_path.iterdir()) == before


@pytest.fixture(scope="module")
def draw(beds, tmp_path_factory):
    """Draw an evaluation of the DEM."""
    listing = registry.load()
    folder = tmp_path_factory.mktemp("figures")

    def run(points, *others, **options):
        return draw_evaluation(folder, beds["dem"], points, *others, registry=listing, **options)

    return run


@pytest.fixture
def shown(monkeypatch):
    """What figures are drawn of, by the name of the function; nothing is drawn."""
    drawn = {}
    for name in (
        "errors_at_picks",
        "compare",
        "error_histogram",
        "transect",
        "roughness",
        "spectrum",
    ):

        def keep(*given, name=name, **others):
            drawn.setdefault(name, []).append(given)

        monkeypatch.setattr(figures, name, keep)
    return drawn


@pytest.mark.parametrize(
    ("datums", "up"), [({}, 0), ({"picks": "EIGEN-6C4"}, 30)], ids=["stated", "told"]
)
def test_heights_are_drawn_on_the_datum_of_the_picks(draw, picks, shown, datums, up):
    if datums:
        picks = picks.copy()
        del picks.attrs["vertical_datum"]
    geoid = raster(lambda x, y: -30 + 0 * x * y, 1_000, BOX, datum=None)
    low = raster(bed, 1_000, BOX) + 30
    low.attrs["vertical_datum"] = "EIGEN-6C4"
    draw(picks, prior=low, geoids={"EIGEN-6C4": geoid}, datums=datums)
    ((panels, *_),) = shown["compare"]
    assert [panel.kind for panel in panels] == ["elevation", "elevation", "difference"]
    assert abs(float(panels[2].grid.median())) < 2
    ((_, along, *_),) = shown["transect"]
    np.testing.assert_allclose(along["prior, bilinear"], low - 30 + up, atol=0.01)
    ((errors, *_),) = shown["error_histogram"]
    assert np.nanmedian(errors["dem"]) == pytest.approx(3 + up, abs=1)
    assert np.nanmedian(errors["bicubic prior"]) == pytest.approx(3 + up, abs=3)


def test_picks_without_lines_have_no_transect_nor_spectrum(draw, beds, picks, shown):
    drawn = draw(picks.drop(columns="line"))
    absent = {figure.title: figure.caption for figure in drawn if figure.path is None}
    assert absent["Along the longest line"] == "the picks name no lines."
    assert absent["Wavelengths that the beds resolve"] == "the picks name no lines."
    assert {"errors_at_picks", "compare", "error_histogram", "roughness"} == {*shown}


def test_of_many_picks_whole_lines_are_drawn_and_the_caption_says_so(
    draw, beds, picks, shown, monkeypatch
):
    monkeypatch.setattr(evaluation_figures, "_MOST_PICKS", 600)
    drawn = draw(picks)
    ((_, some, error, *_),) = shown["errors_at_picks"]
    assert len(some) == len(error) == 2 * len(picks) / 3
    assert set(some["line"].value_counts()) - {0} == {len(picks) / 3}
    assert some.attrs["crs"] == "EPSG:3031"
    assert "at 520 of 780 picks" in drawn[0].caption
    again = {}
    for seed in range(8):
        draw(picks, seed=seed)
        again |= dict.fromkeys(shown["errors_at_picks"][-1][1]["y"].unique())
    assert len(again) == 3
    few = draw(picks.drop(columns="line"))
    assert "at 390 of 780 picks" in few[0].caption


def test_maps_of_a_large_raster_are_thinned_but_the_close_up_is_not(
    draw, beds, picks, shown, monkeypatch
):
    monkeypatch.setattr(evaluation_figures, "_MOST_CELLS", 40)
    monkeypatch.setattr(evaluation_figures, "_CLOSE_UP_CELLS", 20)
    drawn = draw(picks, prior=beds["prior"])
    (whole, *_), (close, *_) = shown["compare"]
    steps = [float(np.diff(panels[0].grid["x"])[0]) for panels in (whole, close)]
    assert steps == [750, 250]
    assert max(whole[0].grid.shape) <= 40
    assert "every 750 m" in drawn[1].caption
    assert "The area with the most picks" in drawn[2].caption
    ((rough, *_),) = shown["roughness"]
    assert float(np.diff(rough[0].grid["x"])[0]) == 250  # roughness is of cells beside each other


def test_the_first_baseline_is_shown_rather_than_the_gridding(draw, beds, picks, shown):
    known = table_of({"k": 9_000.0, "l": 16_000.0, "m": 23_000.0})
    both = {"other": beds["dem"], "third": beds["dem"]}
    for others, expected in ((None, "gridding"), (both, "other")):
        draw(picks, others, gridding=known)
        panels = shown["compare"][-1][0]
        assert [panel.title for panel in panels] == ["DEM", expected]


@pytest.fixture
def entry(picks, tmp_path):
    points.write_points(picks, tmp_path / "picks.parquet")
    return tmp_path / "picks.parquet"


def test_evaluate_writes_the_page_of_its_table(call, beds, entry, tmp_path):
    path = tmp_path / "report.html"
    options = ("--points", entry, "--prior", beds["prior"], "--report", path)
    code, out, err = call("evaluate", beds["dem"], *options, "--json")
    assert code == 0, err
    page = Page(path.read_text())
    scores = json.loads(out)
    for one in (scores, *scores["baselines"]):
        assert f"{one['rmse']:.1f}" in page.text
    assert f"deepbedmap evaluate {beds['dem']} --points {entry}" in page.text
    assert len(page.all("img")) == 6
    assert all(len(image["alt"]) > 20 for image in page.all("img"))
    assert "Not drawn Close-up: the maps above show the area at the same scale." in page.text
    assert "dem.tif: no sources stated." in page.text
    assert {file.name for file in tmp_path.iterdir()} == {"report.html", "picks.parquet"}


def test_a_page_that_cannot_be_written_stops_before_the_scoring(
    call, beds, entry, tmp_path, monkeypatch
):
    monkeypatch.setattr(opening, "read_picks", lambda *_, **__: pytest.fail("began to score"))
    for place in (tmp_path / "absent" / "report.html", Path("/proc/report.html"), tmp_path / "r"):
        code, out, err = call("evaluate", beds["dem"], "--points", entry, "--report", place)
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert str(place) in err
