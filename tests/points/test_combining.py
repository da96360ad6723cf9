"""Surveys are joined with their sources, and repeats and overlaps are dropped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepbedmap import registry
from deepbedmap.errors import InvalidDataError
from deepbedmap.points import deduplicate, join_surveys, without_overlaps


def picks_of(**columns: Any) -> pd.DataFrame:
    table = pd.DataFrame(columns)
    table.attrs = {"crs": "EPSG:3031", "vertical_datum": "ellipsoid", "sources": [{"file": "a"}]}
    return table


def test_repeats_of_a_position_become_one_pick_with_the_median_bed_and_the_first_flags() -> None:
    repeats = picks_of(
        x=[5.0, 0, 5, 5, 5.002],
        y=[7.0, 0, 7.0004, 7, 7],
        z=[-10.0, 3, -12, 9e3, 1],
        line=pd.Categorical(["a", "b", "c", "c", "b"]),
        quality=pd.array([None, 2, 1, 1, 1], "Int8"),
        time=np.array(["2018-10-30"] * 4 + ["NaT"], "M8[ns]"),
        bed_inferred=[False, False, False, True, False],
    )
    unique = deduplicate(repeats.set_index(np.arange(5) + 9))
    assert unique[["x", "y", "z"]].to_numpy().tolist() == [[5, 7, -10], [0, 0, 3], [5.002, 7, 1]]
    assert unique["line"].tolist() == ["a", "b", "b"]
    assert unique["line"].cat.categories.tolist() == ["a", "b"]
    assert unique["bed_inferred"].tolist() == [True, False, False]
    assert unique["quality"].isna().tolist() == [True, False, False]
    assert unique.dtypes.astype(str).to_dict() == repeats.dtypes.astype(str).to_dict()
    assert unique.attrs == repeats.attrs | {"duplicates": 2}
    assert deduplicate(unique, 0.0).attrs["duplicates"] == 2
    pd.testing.assert_frame_equal(deduplicate(unique), unique)


@pytest.mark.parametrize(("tolerance", "kept"), [(0, 8), (9.9, 8), (10, 4), (25, 3), (1e3, 1)])
def test_a_tolerance_thins_a_line_and_does_not_chain_it_into_one_pick(
    tolerance: float, kept: int
) -> None:
    line = picks_of(x=np.arange(8) * 10.0, y=np.zeros(8), z=np.arange(8.0))
    assert len(deduplicate(line, tolerance)) == kept


@settings(max_examples=50, deadline=None)
@given(
    places=st.lists(st.tuples(st.integers(-6, 6), st.integers(-6, 6)), min_size=1, max_size=60),
    tolerance=st.sampled_from([0.0, 1e-3, 1.0, 1.5, 4.0]),
)
def test_unique_picks_are_apart_and_all_others_near_one(
    places: list[tuple[int, int]], tolerance: float
) -> None:
    x, y = np.array(places, float).T
    unique = deduplicate(picks_of(x=x, y=y, z=np.zeros(len(x))), tolerance)
    far = np.hypot(*(unique[["x", "y"]].to_numpy()[:, None] - np.stack([x, y], axis=1)).T)
    assert (far.min(axis=1) <= tolerance).all()
    apart = np.hypot(*(unique[["x", "y"]].to_numpy()[:, None] - unique[["x", "y"]].to_numpy()).T)
    assert (apart[~np.eye(len(unique), dtype=bool)] > tolerance).all()
    assert unique.attrs["duplicates"] == len(x) - len(unique)


def test_any_number_of_repeats_at_one_position_takes_no_time() -> None:
    count = 200_000
    heap = picks_of(x=np.full(count, 3.0), y=np.full(count, 4.0), z=np.arange(count, dtype=float))
    unique = deduplicate(heap)
    assert unique["z"].tolist() == [(count - 1) / 2]


@pytest.mark.parametrize("tolerance", [-1, float("nan"), float("inf")])
def test_a_tolerance_is_a_distance(tolerance: float) -> None:
    with pytest.raises(ValueError, match="tolerance"):
        deduplicate(picks_of(x=[0.0], y=[0.0], z=[0.0]), tolerance)


def test_positions_that_are_none_have_no_repeats() -> None:
    with pytest.raises(InvalidDataError, match="row 1, field y: expected a finite number"):
        deduplicate(picks_of(x=[0.0, 1], y=[0.0, np.nan], z=[0.0, 1]))


def test_joined_surveys_keep_their_flags_and_say_their_source() -> None:
    one = picks_of(
        x=[0.0, 1], y=[0.0, 1], z=[0.0, 1], line=pd.Categorical(["s/1", "s/2"]),
        quality=pd.array([1, None], "Int8"), time=np.array(["2018-10-30", "NaT"], "M8[ns]"),
    )  # fmt: skip
    two = picks_of(x=[2.0], y=[2.0], z=[2.0], line=pd.Categorical(["t/1"]), bed_inferred=[True])
    joined = join_surveys({"King2016Rutford": one, "Shi2010CRESIS": two})
    assert joined["source"].tolist() == ["King2016Rutford"] * 2 + ["Shi2010CRESIS"]
    assert joined["line"].tolist() == ["s/1", "s/2", "t/1"]
    assert joined["quality"].isna().tolist() == [False, True, True]
    assert joined["time"].isna().tolist() == [False, True, True]
    assert joined["bed_inferred"].tolist() == [False, False, True]
    assert joined.index.tolist() == [0, 1, 2]
    assert joined.dtypes.astype(str).to_dict() == {
        **dict.fromkeys("xyz", "float64"),
        "line": "category",
        "quality": "Int8",
        "time": "datetime64[ns]",
        "bed_inferred": "bool",
        "source": "category",
    }
    assert joined.attrs == one.attrs | {"sources": [{"file": "a"}, {"file": "a"}]}


@pytest.mark.parametrize(
    ("name", "value"),
    [("crs", "EPSG:3413"), ("vertical_datum", "EIGEN-6C4"), ("vertical_datum", None)],
)
def test_surveys_that_differ_in_what_they_refer_to_are_not_joined(
    name: str, value: str | None
) -> None:
    one, two = (picks_of(x=[0.0], y=[0.0], z=[0.0]) for _ in range(2))
    two.attrs[name] = value
    with pytest.raises(InvalidDataError) as error:
        join_surveys({"one": one, "two": two})
    assert str(error.value) == (
        f"two, field {name}: expected {one.attrs[name]} as in one, found {value or 'unknown'}; "
        "convert the surveys to one CRS and one vertical datum first"
    )
    with pytest.raises(ValueError, match="no survey"):
        join_surveys({})


@pytest.fixture
def listing(tmp_path: Path) -> registry.Registry:
    """Datasets of which a compilation overlaps with two, and these with each other."""
    datasets = [
        ("Compiled2022", "compilation", ["Old2010", "New2015"]),
        ("Old2010", "airborne", []),
        ("New2015", "airborne", ["Old2010"]),
        ("Apart2012", "airborne", []),
    ]
    entries = [
        {
            "citekey": citekey,
            "title": "Here",
            "year": int(citekey[-4:]),
            "folder": "highres",
            "survey_type": survey_type,
            "overlaps_with": overlaps,
            "files": [{"filename": f"{citekey}.csv", "url": None, "sha256": None}],
        }
        for citekey, survey_type, overlaps in datasets
    ]
    (tmp_path / "data_list.yml").write_text(json.dumps(entries))
    return registry.load(tmp_path / "data_list.yml")


def survey_of(*rows: tuple[float, float, float]) -> pd.DataFrame:
    x, y, z = np.array(rows, float).T
    return picks_of(x=x, y=y, z=z, line=pd.Categorical(["l/1"] * len(rows)))


def test_of_picks_that_two_datasets_have_the_original_survey_keeps_its_own(
    listing: registry.Registry,
) -> None:
    joined = join_surveys(
        {
            "Compiled2022": survey_of(
                (9, 0, -100.9),  # near one of Old2010 and alike
                (11, 0, -100),  # not near
                (1000, 10, -201),  # near one of New2015, to the metre
                (1000, 0, -210),  # near, and another bed
                (5000, 0, -300),  # near one of a dataset with which it has nothing in common
            ),
            "Old2010": survey_of((0, 0, -100), (0, 0, -99), (1003, 0, -200)),
            "New2015": survey_of((1000, 0, -200)),
            "Apart2012": survey_of((5000, 0, -300)),
        }
    )
    rest = without_overlaps(joined, listing)
    kept = {name: picks["z"].tolist() for name, picks in rest.groupby("source", observed=True)}
    assert kept == {
        "Compiled2022": [-100, -210, -300],
        "Old2010": [-100, -99],  # the later survey keeps what both have
        "New2015": [-200],
        "Apart2012": [-300],
    }
    assert rest.attrs == joined.attrs | {"overlaps": {"Old2010": 1, "Compiled2022": 2}}
    assert len(without_overlaps(joined, listing, distance=0.5, difference=0.1)) == len(joined)


def test_a_registry_that_knows_of_no_overlap_leaves_all_picks(listing: registry.Registry) -> None:
    joined = join_surveys({name: survey_of((0, 0, 0)) for name in ("Old2010", "Apart2012")})
    pd.testing.assert_frame_equal(without_overlaps(joined, listing), joined)
    with pytest.raises(InvalidDataError, match=r"Nobody2000.*expected a citekey"):
        without_overlaps(join_surveys({"Nobody2000": survey_of((0, 0, 0))}), listing)
    with pytest.raises(ValueError, match="column source"):
        without_overlaps(survey_of((0, 0, 0)), listing)
    with pytest.raises(ValueError, match="more than 0"):
        without_overlaps(joined, listing, distance=0)
