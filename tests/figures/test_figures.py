"""Figures are drawn whole or not at all, and show what they were given."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support.pictures import AWKWARD, bed, line, pixels, share

from deepbedmap import figures
from deepbedmap.errors import DeepBedMapError, InvalidDataError, MissingDataError
from deepbedmap.evaluation import spectra
from deepbedmap.figures import Panel, coarse, compare
from deepbedmap.figures import cells as coarse_cells

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@pytest.fixture
def ramp() -> np.ndarray:
    return np.linspace(-1_000, 500, 60) * np.ones((60, 1))


def test_maps_are_drawn_side_by_side(tmp_path, ramp):
    path = compare(
        [
            Panel("prior", bed(ramp)),
            Panel("model", bed(ramp.T)),
            Panel("model minus prior", bed(ramp.T - ramp), "difference"),
        ],
        tmp_path / "maps.png",
        source="made up",
    )
    image = pixels(path)
    assert image.shape[0] > 1.1 * image.shape[1]  # two rows of squares with colour bars
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 100
    assert list(tmp_path.iterdir()) == [path]


def test_rows_from_north_to_south_give_the_same_picture_and_another_bed_another(tmp_path):
    rising = bed(np.add.outer(np.arange(60.0), np.arange(60.0) ** 2))
    first = compare([Panel("bed", rising)], tmp_path / "first.png")
    second = compare([Panel("bed", rising.isel(y=slice(None, None, -1)))], tmp_path / "second.png")
    third = compare([Panel("bed", bed(rising.to_numpy()[::-1]))], tmp_path / "third.png")
    np.testing.assert_array_equal(pixels(first), pixels(second))
    assert not np.array_equal(pixels(first), pixels(third))


def test_a_difference_is_white_at_zero_blue_below_and_red_above(tmp_path):
    thirds = np.repeat([[-100.0, 0.0, 100.0]], 30, axis=0).repeat(10, axis=1)
    path = compare([Panel("", bed(thirds), "difference")], tmp_path / "difference.png")
    image = pixels(path)
    height, width = image.shape[:2]
    left, middle, right = (image[height // 3, int(width * at)] for at in (0.25, 0.55, 0.85))
    assert middle.min() > 220
    assert left[2] > left[0] + 40
    assert right[0] > right[2] + 40


def test_elevations_share_a_scale_and_differences_have_their_own(tmp_path):
    low, high = bed(np.full((20, 20), -500.0)), bed(np.full((20, 20), 500.0))
    image = pixels(compare([Panel("", low), Panel("", high)], tmp_path / "beds.png"))
    height, width = image.shape[:2]
    # The ends of batlow, dark blue and pale pink: each alone would be in the middle of its scale.
    assert np.abs(image[height // 3, width // 4] - (1, 25, 89)).max() < 20
    assert np.abs(image[height // 3, 3 * width // 4 + 40] - (250, 204, 250)).max() < 20


@pytest.mark.parametrize(
    ("values", "shape"),
    [
        (np.full((5, 5), -300.0), (5, 5)),
        (np.arange(30.0)[None], (3, 30)),
    ],
    ids=["constant", "one row"],
)
def test_a_level_bed_and_a_single_row_are_drawn(tmp_path, values, shape):
    assert coarse(bed(values)).shape == shape
    path = compare([Panel(AWKWARD, bed(values))], tmp_path / f"{shape[0]}.png", AWKWARD)
    assert share(pixels(path), (255, 255, 255)) < 0.9


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: compare([Panel("", bed(np.full((4, 4), np.nan)))], p), "finite"),
        (lambda p: figures.continent(bed([[1.0]]), p), "several cells"),
        (lambda p: compare([Panel("", bed(np.empty((0, 4))))], p), "several cells"),
        (lambda p: figures.perspective([Panel("", bed(np.arange(9.0)[None]))], p), "two rows"),
        (lambda p: figures.close_ups(bed(np.ones((9, 9))), p, {"far": (9e6, 0)}), "far"),
        (lambda p: figures.coverage({"a": line(0)}, p), "picks"),
        (lambda p: figures.error_histogram({"a": [np.nan]}, p), "finite"),
        (lambda p: figures.transect(line(), {"bed": bed(np.ones((9, 9)))}, p, "b"), "'b'"),
        (lambda p: figures.transect(line(y=9e6), {"bed": bed(np.ones((9, 9)))}, p), "bed"),
        (lambda p: figures.training_curves([{"x": 1}], p), "g_loss"),
        (lambda p: figures.training_curves("nothing.jsonl", p), "deepbedmap train"),
    ],
)
def test_what_cannot_be_drawn_is_told_in_a_line_and_leaves_nothing(tmp_path, call, message):
    with pytest.raises(DeepBedMapError, match=message) as caught:
        call(tmp_path / "figure.png")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "call",
    [
        lambda p: compare([], p),
        lambda p: compare([Panel("", bed(np.ones((4, 4))))], p.with_suffix(".gif")),
        lambda p: figures.errors_at_picks(bed(np.ones((4, 4))), line(3), [1.0], p),
        lambda p: figures.transect(line(3), {}, p),
        lambda p: figures.spectrum({}, p),
        lambda p: compare([Panel("", bed(np.ones((2, 2))).expand_dims(a=2))], p),
    ],
)
def test_a_wrong_call_is_told_before_anything_is_written(tmp_path, call):
    with pytest.raises(ValueError):
        call(tmp_path / "figure.png")
    assert list(tmp_path.iterdir()) == []


def test_what_gmt_refuses_is_told_in_a_line_and_leaves_what_was_there(tmp_path, monkeypatch):
    from pygmt import Figure
    from pygmt.exceptions import GMTCLibError

    path = tmp_path / "figure.png"
    path.write_bytes(b"before")

    def refuse(*_: object, **__: object) -> None:
        raise GMTCLibError("no\nmemory")

    monkeypatch.setattr(Figure, "savefig", refuse)
    with pytest.raises(InvalidDataError, match=r"figure\.png.*no memory"):
        compare([Panel("", bed(np.ones((4, 4))))], path)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_titles_are_drawn_letter_by_letter_whatever_they_hold():
    assert figures.escape("a@b\\c\n d\t") == "a@@b\\\\c d"
    assert figures.escape("Ōtākou ☃ é\x07") == "Otakou ? é"


@pytest.mark.parametrize(("suffix", "begins"), [(".svg", b"<svg "), (".pdf", b"%PDF")])
def test_titles_and_paths_may_hold_what_means_something_to_gmt(tmp_path, suffix, begins):
    path = tmp_path / "new +t@" / f'a +t@ "b"{suffix}'
    compare([Panel(AWKWARD, bed(np.eye(9)))], path, source=AWKWARD)
    assert path.read_bytes().startswith(begins)
    assert path.stat().st_size > 2_000


@pytest.mark.parametrize("chunks", [None, {"y": 7, "x": 7}])
def test_a_large_raster_is_averaged_strip_by_strip(monkeypatch, chunks):
    monkeypatch.setattr(coarse_cells, "_AT_ONCE", 200)
    values = np.random.default_rng(0).normal(size=(60, 45))
    values[:12, :12] = np.nan
    values[20, 20] = np.inf
    grid = bed(values) if chunks is None else bed(values).chunk(chunks)
    small = coarse(grid, 10)
    expected = bed(np.where(np.isfinite(values), values, np.nan)[::-1])[::-1]
    blocks = expected.isel(y=slice(None, None, -1)).coarsen(x=6, y=6, boundary="pad").mean()
    np.testing.assert_allclose(small[::-1, :7], blocks[:, :7], rtol=1e-5)
    assert small.shape == (10, 8)
    assert small.attrs["bounds"] == (0, 0, 45 * 250, 60 * 250)


def test_flags_are_not_averaged_and_nodata_is_no_value():
    flags = bed(np.repeat([[1.0, 3.0]], 8, axis=0).repeat(4, axis=1)).astype("uint8")
    assert set(np.unique(coarse(flags, 3, flags=True))) == {1, 3}
    masked = bed([[1.0, -9999], [2, 3]]).rio.write_nodata(-9999)
    assert np.isnan(coarse(masked)).sum() == 1


def test_the_continent_has_its_grounding_line(tmp_path):
    level = np.zeros((45, 55))
    antarctic = bed(level, 100_000, -2_700_000, -2_200_000)
    image = pixels(figures.continent(antarctic, tmp_path / "continent.png"))
    elsewhere = antarctic.drop_vars("spatial_ref").rio.write_crs("EPSG:3413")
    without = pixels(figures.continent(elsewhere, tmp_path / "elsewhere.png"))
    black = (0, 0, 0)
    assert image.shape == without.shape
    assert share(image, black, 60) > share(without, black, 60) + 0.002


def test_close_ups_leave_out_what_the_bed_does_not_cover(tmp_path):
    cells = bed(np.random.default_rng(0).normal(size=(100, 300)), 1_000)
    places = {"in": (50_000.0, 50_000.0), "too": (250_000.0, 50_000.0)}
    beyond = {"beyond": (150_000.0, 145_000.0), "far": (9e6, 0.0)}
    both = pixels(figures.close_ups(cells, tmp_path / "both.png", places))
    same = pixels(figures.close_ups(cells, tmp_path / "same.png", places | beyond))
    one = pixels(figures.close_ups(cells, tmp_path / "one.png", {"in": places["in"]} | beyond))
    np.testing.assert_array_equal(both, same)
    assert one.shape[1] < 0.7 * both.shape[1]
    assert len(figures.CLOSE_UPS) == 9


def test_surveys_have_colours_of_their_own_where_their_picks_are(tmp_path):
    surveys = {"north": line(y=9_000), AWKWARD: line(30, y=1_000)}
    image = pixels(figures.coverage(surveys, tmp_path / "surveys.png"))
    blue, orange = (
        np.argwhere(np.abs(image - colour).max(axis=-1) < 12)
        for colour in ((0, 114, 178), (213, 94, 0))
    )
    assert len(blue) > len(orange) > 50
    # Without the legend, which is below the map.
    assert np.percentile(blue[:, 0], 20) < np.percentile(orange[:, 0], 20)


def test_surveys_of_two_crs_are_not_drawn_as_one(tmp_path):
    other = line()
    other.attrs["crs"] = "EPSG:3413"
    with pytest.raises(InvalidDataError, match="crs"):
        figures.coverage({"a": line(), "b": other}, tmp_path / "surveys.png")


def test_errors_have_their_sign_at_the_picks_and_the_bed_is_grey(tmp_path):
    picks = line(200)
    error = np.where(picks["x"] < 10_000, -50.0, 50.0)
    grid = bed(np.add.outer(np.arange(40.0), np.arange(100.0)))
    image = pixels(figures.errors_at_picks(grid, picks, error, tmp_path / "errors.png"))
    upper = image[: image.shape[0] // 2]
    blue = np.argwhere(upper[..., 2] > upper[..., 0] + 60)
    red = np.argwhere(upper[..., 0] > upper[..., 2] + 60)
    assert 100 < blue[:, 1].mean() < red[:, 1].mean()
    spread = np.ptp(upper, axis=-1)
    assert ((spread == 0) & (upper[..., 0] > 100) & (upper[..., 0] < 250)).mean() > 0.2


def test_landscapes_of_bed_and_difference_stand_side_by_side(tmp_path):
    hill = 500 * np.exp(-np.add.outer(*[np.linspace(-2, 2, 40) ** 2] * 2))
    panels = [Panel("bed", bed(hill)), Panel("minus", bed(0.1 * hill - 20), "difference")]
    image = pixels(figures.perspective(panels, tmp_path / "hills.png"))
    assert image.shape[1] > 1.3 * image.shape[0]
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 500


@pytest.fixture
def lines() -> pd.DataFrame:
    """Two lines over a bed, the longer with a gap."""
    long = line(600, "long", 3_000, 0.01)
    long["z"] += 20 * np.sin(long["x"] / 300)
    joined = pd.concat([line(200, "short", 1_000), long.drop(range(200, 260))], ignore_index=True)
    joined.attrs["crs"] = "EPSG:3031"
    return joined


def test_a_transect_follows_the_longest_line_and_keeps_its_gaps(tmp_path, lines):
    grid = bed(np.full((20, 260), 100.0))
    path = figures.transect(lines, {AWKWARD: grid}, tmp_path / "first.png")
    named = figures.transect(lines, {AWKWARD: grid}, tmp_path / "named.png", line="long")
    np.testing.assert_array_equal(pixels(path), pixels(named))
    other = figures.transect(lines, {AWKWARD: grid}, tmp_path / "other.png", line="short")
    assert not np.array_equal(pixels(path), pixels(other))
    upper = pixels(path)[60:350]
    blue = (np.abs(upper - (0, 114, 178)).max(axis=-1) < 40).any(axis=0)
    drawn = np.flatnonzero(blue)
    gap = np.diff(drawn).max() / np.ptp(drawn)
    assert gap == pytest.approx(6_100 / 59_900, abs=0.02)


def test_curves_of_errors_spectra_and_a_training_are_drawn(tmp_path, lines):
    scored = lines.assign(grid=0.8 * lines["z"])
    drawn = [
        figures.error_histogram({AWKWARD: [1.0], "zero": [0.0, 0.0]}, tmp_path / "errors.png"),
        figures.spectrum({AWKWARD: spectra(scored, window=5_000)}, tmp_path / "spectrum.png"),
    ]
    for path in drawn:
        image = pixels(path)
        assert 500 < image.shape[0] < 2 * image.shape[1]
        assert share(image, (0, 114, 178), 40) > 0.0005


def test_training_curves_are_read_from_what_a_training_leaves(tmp_path):
    rows: list[dict[str, Any]] = [
        {"epoch": epoch, "g_loss": 1 / epoch, "train_rmse": 90.0 - epoch} for epoch in range(1, 9)
    ]
    rows[-1]["validation_rmse"] = 95.0
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pd.DataFrame(rows).to_csv(tmp_path / "metrics.csv")
    out = tmp_path / "out"
    first = figures.training_curves(tmp_path, out / "folder.png")
    second = figures.training_curves(tmp_path / "metrics.csv", out / "csv.png")
    np.testing.assert_array_equal(pixels(first), pixels(second))
    (tmp_path / "metrics.jsonl").write_text("no metrics\n")
    with pytest.raises(InvalidDataError, match=r"metrics\.jsonl"):
        figures.training_curves(tmp_path, out / "bad.png")
    with pytest.raises(MissingDataError):
        figures.training_curves(tmp_path / "other.jsonl", out / "bad.png")
