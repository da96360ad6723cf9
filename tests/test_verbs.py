"""The verbs of the command line, as functions of the package."""

from __future__ import annotations

import importlib.util
import inspect

import pytest

import deepbedmap
from deepbedmap.cli.options import PANELS

# Commands whose name is that of a package, or of a function with another name.
OTHERWISE = {
    "list": "search",
    "points": "read_points",
    "tiles": "cut_tiles",
    "new": "contribute",
    "catalog": "open_catalog",
}


@pytest.mark.parametrize("name", deepbedmap.__all__)
def test_a_verb_is_a_documented_function_and_no_module(name):
    verb = getattr(deepbedmap, name)
    assert inspect.isfunction(verb)
    assert inspect.getdoc(verb)
    assert verb.__module__.startswith("deepbedmap.")
    assert importlib.util.find_spec(f"deepbedmap.{name}") is None


def test_every_command_has_its_verb():
    names = {OTHERWISE.get(name, name) for names in PANELS.values() for name in names}
    assert names - {"demo"} <= set(deepbedmap.__all__)
    assert inspect.ismodule(importlib.import_module("deepbedmap.demo"))
