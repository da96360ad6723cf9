from __future__ import annotations

import logging
import signal
import subprocess
import sys

import pytest

from deepbedmap.errors import DeepBedMapError
from deepbedmap.files import Parts

IDENTITY = {"spacing": 250, "digest": "ab" * 32, "region": [0.0, 1.5], "method": None}


def contents(folder):
    return sorted(file.name for file in folder.iterdir())


def work(path, names, identity=IDENTITY, product="bed.txt", publish=True):
    """Write a line a part; give the parts that were done now."""
    done = []
    with Parts(path, identity) as parts:
        for name in names:
            if not parts.is_done(name):
                with (parts.folder / product).open("a") as file:
                    file.write(f"{name}\n")
                parts.done(name)
                done.append(name)
        if publish:
            parts.publish(parts.folder / product)
    return done


def test_a_product_appears_when_it_is_published_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "new" / "bed.txt"
    assert work(path, ["a", "b"], publish=False) == ["a", "b"]
    assert not path.exists()
    assert work(path, ["a", "b", "c"]) == ["c"]
    assert path.read_text() == "a\nb\nc\n"
    assert contents(path.parent) == ["bed.txt"]


def test_a_run_that_fails_keeps_what_was_done(tmp_path):
    path = tmp_path / "bed.txt"

    def fail():
        with Parts(path, IDENTITY) as parts:
            parts.done("a")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert work(path, ["a", "b"]) == ["b"]


def test_going_on_is_said(tmp_path, caplog):
    caplog.set_level(logging.INFO, "deepbedmap")
    work(tmp_path / "bed.txt", ["a", "b"], publish=False)
    assert caplog.text == ""
    work(tmp_path / "bed.txt", ["a", "b"])
    assert "bed.txt: resuming an earlier run; finished parts: 2" in caplog.text


@pytest.mark.parametrize(
    "other", [{**IDENTITY, "spacing": 500}, {**IDENTITY, "more": 1}, {"spacing": 250}, {}]
)
def test_work_of_another_identity_begins_anew(tmp_path, other):
    path = tmp_path / "bed.txt"
    work(path, ["a"], publish=False)
    assert work(path, ["a", "b"], other) == ["a", "b"]
    assert path.read_text() == "a\nb\n"


def test_the_order_of_an_identity_does_not_matter(tmp_path):
    work(tmp_path / "bed.txt", ["a"], publish=False)
    assert work(tmp_path / "bed.txt", ["a"], dict(reversed(IDENTITY.items()))) == []


@pytest.mark.parametrize("torn", ["", "{", "\xff"])
def test_a_work_folder_that_cannot_be_read_is_dropped(tmp_path, torn):
    work(tmp_path / "bed.txt", ["a"], publish=False)
    (tmp_path / ".bed.txt.parts" / "identity.json").write_text(torn, "latin-1")
    assert work(tmp_path / "bed.txt", ["a"]) == ["a"]


@pytest.mark.parametrize("new", ["file", "folder"])
@pytest.mark.parametrize("old", ["file", "folder", "link"])
def test_a_product_replaces_what_is_there(tmp_path, old, new):
    path = tmp_path / "bed"
    elsewhere = tmp_path / "elsewhere"
    if old == "file":
        path.write_text("old")
    else:
        (path if old == "folder" else elsewhere).mkdir()
        (path if old == "folder" else elsewhere).joinpath("old").touch()
    if old == "link":
        path.symlink_to(elsewhere)
    with Parts(path, IDENTITY) as parts:
        product = parts.folder / "bed"
        if new == "folder":
            product.mkdir()
            (product / "new").touch()
        else:
            product.write_text("new")
        assert parts.publish(product) == path
    assert not path.is_symlink()
    assert (contents(path) == ["new"]) if new == "folder" else (path.read_text() == "new")
    assert not [name for name in contents(tmp_path) if name.startswith(".")]
    if old == "link":
        assert contents(elsewhere) == ["old"]


def test_the_folder_itself_may_be_the_product(tmp_path):
    with Parts(tmp_path / "bed.zarr", IDENTITY) as parts:
        (parts.folder / "zarr.json").touch()
        parts.publish(parts.folder)
    assert contents(tmp_path / "bed.zarr") == ["zarr.json"]


def test_two_processes_do_not_write_one_product(tmp_path):
    path = tmp_path / "bed.txt"
    with Parts(path, IDENTITY) as parts:
        with pytest.raises(DeepBedMapError, match="another process is writing it") as caught:
            work(path, ["a"])
        assert "\n" not in str(caught.value)
        parts.done("a")
    assert work(path, ["a", "b"]) == ["b"]


@pytest.mark.parametrize("name", ["", "../a", "a/b", ".", "..", "a b", "a\0"])
def test_a_part_s_name_cannot_lead_elsewhere(tmp_path, name):
    with Parts(tmp_path / "bed.txt", IDENTITY) as parts, pytest.raises(ValueError, match="name"):
        parts.done(name)


KILLED = """
import os, signal, sys
from deepbedmap.files import Parts
with Parts(sys.argv[1], {"spacing": 250}) as parts:
    for name in "abcd":
        if name == "c":
            os.kill(os.getpid(), signal.SIGKILL)
        (parts.folder / name).write_text(name)
        parts.done(name)
"""


def test_work_goes_on_after_a_kill(tmp_path):
    path = tmp_path / "bed"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], timeout=60)
    assert killed.returncode == -signal.SIGKILL
    with Parts(path, {"spacing": 250}) as parts:
        assert [name for name in "abcd" if parts.is_done(name)] == ["a", "b"]
        assert contents(parts.folder) == ["a", "b"]
        for name in "cd":
            (parts.folder / name).write_text(name)
        parts.publish(parts.folder)
    assert contents(path) == ["a", "b", "c", "d"]
    assert contents(tmp_path) == ["bed"]
