"""Lines with known beds go in; where they cross, and how their beds differ there, comes out."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from deepbedmap.cli.options import app
from deepbedmap.errors import InvalidDataError
from deepbedmap.points import join_surveys
from deepbedmap.points.crossovers import crossovers, summarize

Picks = Sequence[tuple[float, float, float]]


def table(lines: dict[str, Picks]) -> pd.DataFrame:
    rows = [(*pick, name) for name, picks in lines.items() for pick in picks]
    points = pd.DataFrame(rows, columns=["x", "y", "z", "line"])
    points["line"] = points["line"].astype("category")
    points.attrs = {"crs": "EPSG:3031", "sources": [{"file": "a.csv"}]}
    return points


def straight(start: tuple[float, float], end: tuple[float, float], number: int = 50) -> Picks:
    """Picks on a straight line, where the bed is the plane z = x / 10 + y / 5."""
    x, y = np.linspace(start, end, number).T
    return [*zip(x, y, x / 10 + y / 5, strict=True)]


def test_a_crossing_has_its_place_and_both_beds_between_their_picks() -> None:
    found = crossovers(
        table(
            {
                "b/1": [(0, 0, -100), (400, 0, -200), (800, 0, -300)],
                "a/7": [(500, -300, -50), (500, 100, -90)],
            }
        )
    )
    (row,) = found.to_dict("records")
    assert (row["x"], row["y"]) == (500, 0)
    assert (row["survey_1"], row["line_1"], row["survey_2"], row["line_2"]) == (
        "b",
        "b/1",
        "a",
        "a/7",
    )
    assert (row["z_1"], row["z_2"], row["difference"]) == (-225, -80, -145)
    assert found.attrs == {"crs": "EPSG:3031", "sources": [{"file": "a.csv"}]}
    assert found.dtypes.astype(str).to_dict() == {
        "x": "float64",
        "y": "float64",
        "survey_1": "category",
        "survey_2": "category",
        "line_1": "category",
        "line_2": "category",
        "z_1": "float64",
        "z_2": "float64",
        "difference": "float64",
    }


NOTHING: dict[str, dict[str, Picks]] = {
    "parallel lines": {"a/1": straight((0, 0), (900, 0)), "a/2": straight((0, 10), (900, 10))},
    "lines on each other": {"a/1": straight((0, 0), (900, 90)), "a/2": straight((0, 0), (900, 90))},
    "the same line back": {"a/1": straight((0, 0), (900, 90)), "b/1": straight((900, 90), (0, 0))},
    "one line in two parts": {"a/1": straight((0, 0), (5, 9)), "a/2": straight((50, 90), (55, 99))},
    "lines of one pick": {"a/1": [(0, 0, 1)], "a/2": [(0, 0, 2)]},
    "picks all at one place": {"a/1": [(0, 0, 1)] * 5, "a/2": [(0, 0, 2)] * 5},
    "nothing": {},
}


@pytest.mark.parametrize("lines", NOTHING.values(), ids=NOTHING)
def test_what_does_not_cross_gives_an_empty_table(lines: dict[str, Picks]) -> None:
    crossed = crossovers(table({"a/1": straight((0, 0), (9, 0)), "b": straight((5, -1), (5, 1))}))
    found = crossovers(table(lines))
    assert len(found) == 0
    assert list(found) == list(crossed)
    assert len(summarize(found)) == 0


@pytest.mark.parametrize("shift", [(0.0, 0.0), (-1.5e6, 3.3e5)])
@pytest.mark.parametrize(
    ("other", "place"),
    [
        ([(200, -50, 0), (200, 0, 0), (200, 50, 0)], (200, 0)),  # a pick of both
        ([(150, -50, 0), (150, 0, 0), (150, 50, 0)], (150, 0)),  # a pick of the other
        ([(200, -50, 0), (200, 50, 0)], (200, 0)),  # a pick of the one
        ([(150, 50, 0), (150, 0, 0)], (150, 0)),  # it ends on the line
        ([(150, 0, 0), (150, 50, 0)], (150, 0)),  # it begins there
        ([(300, 50, 0), (300, 0, 0)], (300, 0)),  # the ends of both
        ([(200, 50, 0), (200, 0, 0), (250, 50, 0)], (200, 0)),  # it turns there
    ],
)
def test_what_crosses_at_a_pick_or_ends_on_a_line_is_one_crossover(
    other: Picks, place: tuple[float, float], shift: tuple[float, float]
) -> None:
    lines: dict[str, Picks] = {
        "a/1": [(0, 0, 8), (100, 0, 8), (200, 0, 8), (300, 0, 8)],
        "b/1": other,
    }
    points = table(lines)
    points[["x", "y"]] += np.array(shift)
    found = crossovers(points)
    np.testing.assert_allclose(found[["x", "y"]] - np.array(shift), [place], atol=1e-6)
    assert found["difference"].tolist() == [8]


@settings(max_examples=60, deadline=None)
@given(turn=st.floats(0, 6.283), east=st.floats(-2e6, 2e6), north=st.floats(-2e6, 2e6))
def test_rounding_neither_loses_nor_doubles_what_crosses_at_a_pick(
    turn: float, east: float, north: float
) -> None:
    ways = {"a": [(0, -15), (0, 0), (0, 15)], "b": [(-15, 4), (15, -4)]}
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    places = {name: np.array(way) @ rotation + (east, north) for name, way in ways.items()}
    found = crossovers(table({name: [(x, y, 0) for x, y in way] for name, way in places.items()}))
    np.testing.assert_allclose(found[["x", "y"]], [places["a"][1]], rtol=0, atol=1e-5)


def test_a_gap_interrupts_a_line() -> None:
    lines = {"a/1": straight((0, 0), (900, 0), 2), "b/1": straight((500, -600), (500, 600), 2)}
    assert len(crossovers(table(lines))) == 0
    assert len(crossovers(table(lines), max_gap=1200)) == 1


def test_a_line_crosses_itself_only_where_that_is_asked_for() -> None:
    loop = [(0, 0, 1), (500, 0, 1), (500, 300, 5), (250, 300, 5), (250, -300, 5)]
    assert len(crossovers(table({"a/1": loop}))) == 0
    (row,) = crossovers(table({"a/1": loop}), within=True).to_dict("records")
    assert (row["x"], row["y"], row["z_1"], row["z_2"]) == (250, 0, 1, 5)
    assert row["line_1"] == row["line_2"] == "a/1"
    assert len(crossovers(table({"a/1": straight((0, 0), (900, 90))}), within=True)) == 0


def test_picks_of_a_line_need_not_be_together_in_the_table() -> None:
    points = table({"a/1": straight((0, 0), (100, 0)), "b/1": straight((50, -9), (50, 9))})
    mixed = points.sort_values("y", kind="stable")
    pd.testing.assert_frame_equal(crossovers(mixed)[["x", "y"]], crossovers(points)[["x", "y"]])


def test_lines_of_one_name_from_two_sources_are_two_lines() -> None:
    one = table({"s/1": straight((0, 0), (100, 0))})
    two = table({"s/1": straight((50, -9), (50, 9))})
    found = crossovers(join_surveys({"King2016Rutford": one, "Shi2010CRESIS": two}))
    assert found[["survey_1", "survey_2"]].to_numpy().tolist() == [
        ["King2016Rutford", "Shi2010CRESIS"]
    ]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    number=st.integers(1, 40),
    within=st.booleans(),
)
def test_all_crossings_are_found_and_on_a_plane_all_beds_agree(
    seed: int, number: int, within: bool
) -> None:
    """Judged by trying each segment with each other one by the signs of four turns."""
    rng = np.random.default_rng(seed)
    walks = {
        f"s{line % 3}/{line}": (
            rng.uniform(-500, 500, 2) + rng.normal(0, 60, (number, 2)).cumsum(0)
        )
        for line in range(6)
    }
    points = table({name: [(x, y, x / 10 + y / 5) for x, y in w] for name, w in walks.items()})
    found = crossovers(points, within=within)
    pieces = [(name, a, b) for name, w in walks.items() for a, b in itertools.pairwise(w)]

    def turn(a: Any, b: Any, c: Any) -> bool:
        return bool((b[0] - a[0]) * (c[1] - a[1]) > (b[1] - a[1]) * (c[0] - a[0]))

    expected = 0
    for n, (name, a, b) in enumerate(pieces):
        for m, (other, c, d) in enumerate(pieces[:n]):
            if name == other and (not within or n - m == 1):
                continue
            expected += turn(a, b, c) != turn(a, b, d) and turn(c, d, a) != turn(c, d, b)
    assert len(found) == expected
    np.testing.assert_allclose(found["difference"], 0, atol=1e-9)
    np.testing.assert_allclose(found["z_1"], found["x"] / 10 + found["y"] / 5, atol=1e-9)


def test_thousands_of_lines_take_seconds_and_no_crossing_is_lost() -> None:
    lines = {}
    for n in range(1000):
        lines[f"east/{n}"] = straight((0, n * 1000 + 3), (99_000, n * 1000 + 3), 120)
        lines[f"north/{n}"] = straight((n * 1000 + 7, 0), (n * 1000 + 7, 99_000), 120)
    began = perf_counter()
    found = crossovers(table(lines))
    assert len(found) == 99 * 99
    assert perf_counter() - began < 10
    np.testing.assert_allclose(found["difference"], 0, atol=1e-6)


def test_the_summary_of_a_pair_of_surveys_has_what_its_name_says() -> None:
    lines: dict[str, Picks] = {"a/1": [(x, 0, 0) for x in range(0, 100, 10)]}
    for n, bed in enumerate((-1, -2, -3, -10)):
        lines[f"b/{n}"] = [(5 + 20 * n, -5, bed), (5 + 20 * n, 5, bed)]
    lines["a/2"] = [(93, -5, 0.0), (87, 5, 0.0)]
    summary = summarize(crossovers(table(lines)))
    assert summary[["survey_1", "survey_2", "n"]].to_numpy().tolist() == [
        ["a", "a", 1],
        ["a", "b", 4],
    ]
    pair = summary.iloc[1]
    assert (pair["mean"], pair["median"], pair["mad"]) == (4.0, 2.5, 1.0)
    assert pair["rms"] == pytest.approx(np.sqrt(114 / 4))
    assert pair["std"] == pytest.approx(np.sqrt(114 / 4 - 16))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["x", "y", "z"])
def test_a_pick_without_place_or_bed_is_refused(name: str, value: float) -> None:
    points = table({"a/1": straight((0, 0), (90, 0))})
    points.loc[3, name] = value
    with pytest.raises(InvalidDataError, match=f"row 3, field {name}: expected a finite number"):
        crossovers(points)


def test_degrees_and_wrong_calls_are_refused() -> None:
    points = table({"a/1": straight((0, 0), (90, 0))})
    with pytest.raises(ValueError, match="gap"):
        crossovers(points, max_gap=0)
    with pytest.raises(ValueError, match="column line"):
        crossovers(points.drop(columns="line"))
    points.loc[1, "line"] = None
    with pytest.raises(InvalidDataError, match="field line"):
        crossovers(points)
    points.attrs["crs"] = "EPSG:4326"
    with pytest.raises(InvalidDataError, match="CRS in metres"):
        crossovers(points)


@pytest.fixture
def survey(tmp_path: Path) -> Callable[..., Path]:
    def survey(name: str, picks: Picks, crs: str = "EPSG:3031") -> Path:
        rows = "".join(f"{x},{y - 500_000},{z}\n" for x, y, z in picks)
        (tmp_path / f"{name}.csv").write_text("x,y,z\n" + rows)
        reader = {"type": "readers.text", "filename": f"{name}.csv", "header": "X,Y,Z"}
        stages = [{**reader, "separator": ",", "skip": 1, "override_srs": crs}]
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps({"pipeline": stages}))
        return path

    return survey


def test_the_command_writes_crossovers_and_prints_their_summary(
    survey: Callable[..., Path], tmp_path: Path
) -> None:
    one = survey("one", [(0, 0, -100), (400, 0, -200)])
    two = survey("two", [(100, -50, -150), (100, 50, -150)])
    out = tmp_path / "crossovers.csv"
    result = CliRunner().invoke(app, ["crossovers", str(one), str(two), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "1 crossovers" in result.output
    (row,) = pd.read_csv(out).to_dict("records")
    assert (row["x"], row["y"], row["difference"]) == (100, -500_000, 25)
    call = ["crossovers", str(one), str(two), "--out", str(out), "--json"]
    (pair,) = json.loads(CliRunner().invoke(app, call).output)
    assert (pair["survey_1"], pair["survey_2"], pair["n"], pair["mean"]) == ("one", "two", 1, 25)


def test_the_command_refuses_surveys_in_two_reference_systems(
    survey: Callable[..., Path], tmp_path: Path
) -> None:
    calls = [survey("one", [(0, 0, -1)]), survey("two", [(0, 0, -1)], "EPSG:3413")]
    out = tmp_path / "crossovers.csv"
    result = CliRunner().invoke(app, ["crossovers", *map(str, calls), "--out", str(out)])
    assert isinstance(result.exception, InvalidDataError)
    assert "field crs: expected EPSG:3031 as in" in str(result.exception)
    assert not out.exists()
    assert CliRunner().invoke(app, ["crossovers", "one", "--out", "x.parquet"]).exit_code == 2
