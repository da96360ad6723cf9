"""The report in a browser: complete without any server, and readable on a phone."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
from support.places import raster

from deepbedmap import evaluation, rasters, registry
from deepbedmap.report import report_evaluation

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
if CHROMIUM is None:
    pytest.skip("there is no Chromium: `sh setup.sh tests` installs it", allow_module_level=True)

BOX = (0, 0, 40_000, 40_000)
SECONDS = 1_000  # of a browser's time, in milliseconds
DESKTOP, PHONE = (1280, 900), (360, 740)

# Contrast of each text with what is behind it (WCAG 2.2, 1.4.3), where it is too low.
FAINT = """() => {
  const part = c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const rgb = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  const ground = element => {
    for (; element; element = element.parentElement) {
      const colour = rgb(getComputedStyle(element).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  return [...document.body.querySelectorAll('*')].filter(element =>
    [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim())
  ).filter(element => {
    const pair = [rgb(getComputedStyle(element).color), ground(element)].map(light);
    return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05) < 4.5;
  }).map(element => element.outerHTML.slice(0, 80));
}"""


def bed(x, y):
    return 0.01 * x - 0.02 * y + 40 * np.sin(x / 700) * np.cos(y / 900)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The report of a small evaluation, of a bed whose name is markup."""
    folder = tmp_path_factory.mktemp("report")
    dem = folder / "<img src=x onerror=alert(1)>.tif"
    rasters.write_geotiff(raster(bed, 250, BOX), dem)
    prior = rasters.write_geotiff(raster(bed, 1_000, BOX), folder / "prior.tif")
    x = np.arange(2_050.0, 38_000, 100)
    lines = [
        pd.DataFrame({"x": x, "y": y, "z": bed(x, y) - 3, "line": f"line {y:g}"})
        for y in (4_000.0, 17_000.0, 36_000.0)
    ]
    picks = pd.concat(lines, ignore_index=True).astype({"line": "category"})
    picks.attrs = {"crs": "EPSG:3031", "vertical_datum": "ellipsoid", "sources": []}
    others = {
        "prior": prior,
        "baselines": {"a_baseline_with_a_long_name_of_one_word": prior},
        "registry": registry.load(),
    }
    rows = evaluation.compare(dem, picks, **others)
    return report_evaluation(
        folder / "report.html", rows, dem, picks, command="x" * 300, picks="picks", **others
    )


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        # Without its sandbox, which root may not use: it opens nothing but our own page.
        options = {"executable_path": CHROMIUM, "args": ["--no-sandbox"]}
        chromium = driver.chromium.launch(timeout=60 * SECONDS, **options)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser, report):
    """Open the report in a window; what goes wrong there fails the test."""
    faults, pages = [], []

    def run(size=DESKTOP, scheme="light"):
        page = browser.new_page(
            viewport=dict(zip(("width", "height"), size, strict=True)), color_scheme=scheme
        )
        page.set_default_timeout(20 * SECONDS)
        pages.append(page)
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", lambda dialog: (faults.append(dialog.message), dialog.dismiss()))
        page.on("requestfailed", lambda request: faults.append(request.url))

        def answer(route):
            if route.request.url == report.as_uri():
                route.continue_()
            else:
                faults.append(route.request.url)
                route.abort()

        page.route("**/*", answer)
        page.goto(report.as_uri(), wait_until="load")
        return page

    yield run
    for page in pages:
        page.close()
    assert faults == []


def test_the_page_opens_without_a_fault_and_shows_all_figures(open_page):
    page = open_page()
    widths = page.eval_on_selector_all("img", "images => images.map(i => i.naturalWidth)")
    assert len(widths) == 7
    assert min(widths) > 300
    assert "<img src=x onerror=alert(1)>.tif" in page.inner_text("h1")
    assert page.get_by_role("heading", level=1).count() == 1


@pytest.mark.parametrize("size", [DESKTOP, (768, 1024), PHONE], ids=str)
def test_the_page_does_not_scroll_sideways(open_page, size):
    page = open_page(size)
    inner, outer = page.evaluate(
        "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert inner <= outer == size[0]
    # A table as wide as it likes scrolls in a box of its own.
    assert page.eval_on_selector_all(
        ".scroll", "boxes => boxes.every(b => b.getBoundingClientRect().right <= innerWidth)"
    )


def test_tables_are_read_on_a_phone_without_scrolling_in_them(open_page):
    page = open_page(PHONE)
    cells = page.eval_on_selector_all(
        "tbody th, td > span",
        """cells => cells.map(cell => {
             const {left, right, height} = cell.getBoundingClientRect();
             return [left, right, height, cell.scrollWidth - cell.clientWidth, cell.innerText];
           })""",
    )
    assert len(cells) > 60
    for left, right, height, hidden, text in cells:
        assert 0 <= left < right <= PHONE[0], text
        assert height > 10, text
        assert hidden <= 0, text
        assert text
    labels = page.eval_on_selector_all(
        "td", "cells => cells.map(c => [getComputedStyle(c, '::before').content, c.dataset.label])"
    )
    assert all(shown == f'"{label}"' for shown, label in labels)


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=str)
def test_a_screen_reader_finds_tables_rows_and_cells(open_page, size):
    page = open_page(size)
    table = page.get_by_role("table", name="Bed minus pick, every bed at the same picks")
    assert table.count() == 1
    assert table.get_by_role("row").count() == 4
    row = table.get_by_role("row").nth(2)
    assert row.get_by_role("rowheader").inner_text() == "bicubic prior"
    assert row.get_by_role("cell").count() == 8
    assert page.get_by_role("img").count() == 7


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_stands_out_from_its_ground(open_page, scheme):
    page = open_page(scheme=scheme)
    red = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g)[0]")
    assert (int(red) < 60) == (scheme == "dark")
    assert page.evaluate(FAINT) == []


def test_paper_is_white_whatever_the_screen_is(open_page):
    page = open_page(scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate(FAINT) == []
    assert page.pdf(format="A4").startswith(b"%PDF")
