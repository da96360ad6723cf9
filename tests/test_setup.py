"""The set-up script: silent when all is there, one message when it may not install."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BARE = ("sh", "cat", "cksum", "dirname")


@pytest.fixture
def checkout(tmp_path):
    """Copy what the script reads to a folder of its own, with stand-ins for commands."""
    for name in ("setup.sh", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    commands = tmp_path / "bin"
    commands.mkdir()
    for name in BARE:
        (commands / name).symlink_to(shutil.which(name))

    def stand_in(name: str, script: str) -> None:
        path = commands / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    return tmp_path, stand_in


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "setup.sh", *arguments],
        cwd=folder,
        env={"PATH": str(folder / "bin")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_without_the_right_to_install_one_message_gives_both_ways(checkout):
    folder, stand_in = checkout
    stand_in("id", "echo 1000")
    stand_in("sudo", "exit 1")
    stand_in("apt-get", "touch installed")
    done = run(folder)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "sudo apt-get install gmt libgmt-dev gmt-gshhg ghostscript" in done.stderr
    assert "conda env create -f environment.yml" in done.stderr
    assert not (folder / "installed").exists()
    assert not (folder / ".venv").exists()


def test_a_user_who_may_install_is_told_what_is_installed(checkout):
    folder, stand_in = checkout
    stand_in("id", "echo 0")
    stand_in("apt-get", 'echo "$@" >> installed')
    done = run(folder)
    assert "Installing with apt-get: gmt libgmt-dev" in done.stdout
    assert "install" in (folder / "installed").read_text()
    assert done.returncode == 1  # the stand-in installed nothing
    assert "there is still no GMT" in done.stderr


@pytest.fixture
def complete(checkout):
    """A checkout where all is there but a browser."""
    folder, stand_in = checkout
    for name in ("gmt", "gs", "python3"):
        stand_in(name, "exit 0")
    (folder / ".venv").mkdir()
    texts = "".join((folder / name).read_text() for name in ("pyproject.toml", "constraints.txt"))
    wanted = subprocess.run(["cksum"], input=texts, capture_output=True, text=True, check=True)
    (folder / ".venv" / "complete").write_text(wanted.stdout)
    return checkout


def test_when_all_is_there_nothing_is_done_nor_said(complete):
    folder, stand_in = complete
    done = run(folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    stand_in("google-chrome", "exit 0")
    done = run(folder, "tests")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_browser_is_installed_for_tests_alone(complete):
    folder, stand_in = complete
    stand_in("id", "echo 0")
    stand_in("apt-get", 'echo "$@" >> installed')
    assert run(folder).returncode == 0
    assert not (folder / "installed").exists()
    done = run(folder, "tests")
    assert (done.returncode, done.stdout) == (0, "Installing with apt-get: chromium\n")
    assert "chromium" in (folder / "installed").read_text()


@pytest.mark.parametrize("user", ["0", "1000"])
def test_no_test_but_those_of_pages_needs_a_browser(complete, user):
    folder, stand_in = complete
    stand_in("id", f"echo {user}")
    stand_in("sudo", "exit 1")
    stand_in("apt-get", "exit 100")
    done = run(folder, "tests")
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1
    assert "tests of pages are skipped" in done.stderr


def test_another_set_of_versions_is_installed_anew(checkout):
    folder, stand_in = checkout
    for name in ("gmt", "gs"):
        stand_in(name, "exit 0")
    stand_in("python3", 'echo "$@" >> asked; case "$*" in *venv\\ .venv) exit 7;; esac')
    (folder / ".venv").mkdir()
    (folder / ".venv" / "complete").write_text("of another day")
    done = run(folder)
    assert "Installing Python packages into .venv" in done.stdout
    assert "-m venv .venv" in (folder / "asked").read_text()
    assert done.returncode != 0
