"""The program around the commands: help, -q and -v, completion, exit codes, bug reports."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest
import typer
from rich.console import Console

from deepbedmap import __version__, progress, registry
from deepbedmap.cli import app
from deepbedmap.cli.options import PANELS, _examples, print_table
from deepbedmap.errors import WrongCallError
from deepbedmap.registry.listing import Registry

COMMANDS = typer.main.get_command(app).commands


def test_the_panels_name_every_command_once():
    named = [name for names in PANELS.values() for name in names]
    assert sorted(named) == sorted(COMMANDS)


@pytest.mark.parametrize("columns", ["60", "80", "160"])
def test_help_lists_every_command_with_its_whole_sentence(call, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    code, out, _ = call("-h")
    assert code == 0
    text = " ".join(out.split())
    assert [panel for panel in PANELS if f" {panel}: " in text] == [*PANELS]
    for name, command in COMMANDS.items():
        first, _, _ = command.help.partition("\n\n")
        assert f"{name} {' '.join(first.split())}" in text
    assert max(map(len, out.splitlines())) <= int(columns)


@pytest.mark.parametrize("name", [*COMMANDS, "catalog build", "catalog check"])
def test_h_is_help_for_every_command(call, name):
    assert call(*name.split(), "-h") == call(*name.split(), "--help")
    assert call(*name.split(), "-h")[0] == 0


def test_examples_can_be_pasted_into_a_shell():
    lines = _examples(["tool one  # short", "tool 'a b' --long-option value  # why"], 30)
    assert lines.splitlines() == [
        "Example: tool one  # short",
        "         # why",
        "         tool 'a b' \\",
        "           --long-option \\",
        "           value",
    ]


def test_the_version_is_printed(call):
    assert call("--version") == (0, f"deepbedmap {__version__}\n", "")


def test_the_package_is_a_program():
    command = [sys.executable, "-m", "deepbedmap", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, f"deepbedmap {__version__}\n")


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["search", "a"], ["warning"]),
        (["-q", "search", "a"], []),
        (["search", "a", "--quiet"], []),
        (["-v", "search", "a"], ["info", "warning"]),
        (["search", "a", "--verbose"], ["info", "warning"]),
    ],
)
def test_quiet_and_verbose_hold_before_and_after_the_command(
    call, caplog, monkeypatch, words, shown
):
    def noisy(*_: object) -> list[object]:
        logger = logging.getLogger("deepbedmap.registry.listing")
        logger.info("info")
        logger.warning("warning")
        return []

    monkeypatch.setattr(Registry, "find", noisy)
    assert call(*words)[0] == 0
    assert [record.message for record in caplog.records] == shown
    caplog.clear()
    call("search", "a")
    assert [record.message for record in caplog.records] == ["warning"]


def test_no_bar_is_shown_where_warnings_are_silenced():
    terminal = Console(force_terminal=True)
    logger = logging.getLogger("deepbedmap")
    assert progress.shows_bars(terminal)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        assert not progress.shows_bars(terminal)
    finally:
        logger.setLevel(level)
    assert not progress.shows_bars(Console(force_terminal=False))


def test_a_library_s_value_error_is_reported_as_a_bug(call, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        int("not a number")

    monkeypatch.setattr(registry, "load", fail)
    code, out, err = call("list")
    assert (code, out) == (1, "")
    assert "Traceback" in err
    assert "invalid literal for int()" in err
    assert "report it" in err.splitlines()[-1]


def test_a_wrong_argument_of_ours_is_one_line_that_names_the_option(call, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise WrongCallError("expected less", "per_host")

    monkeypatch.setattr("deepbedmap.download.fetch", refuse)
    assert call("fetch", "highres", "--per-host", 3) == (
        *(2, ""),
        "Error: --per-host: expected less\n",
    )
    assert str(WrongCallError("expected less", "per_host")) == "per_host: expected less"
    assert isinstance(WrongCallError("x"), ValueError)


def test_a_table_on_a_terminal_fits_and_has_no_colour_where_none_is_wanted(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    rows = [["King2016Rutford", "a location of many words that is broken"]]
    print_table(["citekey", "location"], rows)
    assert "\x1b[1m" in capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    print_table(["citekey", "location"], rows)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert len(out.splitlines()) > 2
    assert max(map(len, out.splitlines())) <= 40
    assert "King2016Rutford" in out


def test_citekeys_are_completed_in_a_shell():
    environment = {
        "_DEEPBEDMAP_COMPLETE": "complete_bash",
        "COMP_WORDS": "deepbedmap show King2016",
        "COMP_CWORD": "2",
    }
    done = subprocess.run(
        [sys.executable, "-m", "deepbedmap"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split() == ["King2016Rutford"]
