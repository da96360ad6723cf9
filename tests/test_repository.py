"""Where the flat files are, and where data land."""

from __future__ import annotations

from pathlib import Path

from deepbedmap import repository
from deepbedmap.repository import data_dir


def test_the_root_of_a_checkout_is_the_checkout():
    assert repository.root() == Path(__file__).resolve().parents[1]
    assert (repository.root() / "data_list.yml").is_file()


def test_data_land_in_the_checkout_unless_told_otherwise(monkeypatch):
    monkeypatch.delenv("DEEPBEDMAP_DATA_DIR", raising=False)
    assert data_dir() == repository.root()


def test_data_land_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("DEEPBEDMAP_DATA_DIR", str(tmp_path / "not there yet"))
    assert data_dir() == tmp_path / "not there yet"


def test_the_user_s_home_is_known_by_its_short_name(monkeypatch):
    monkeypatch.setenv("DEEPBEDMAP_DATA_DIR", "~/antarctica")
    assert data_dir() == Path.home() / "antarctica"
