from __future__ import annotations

import json

import pytest
import yaml
from support.packing import PICKS, sha256, zipped

from deepbedmap import download, registry
from deepbedmap.errors import InvalidDataError


@pytest.fixture
def listing(tmp_path):
    """A registry of files that come from a folder; none of them is here yet."""
    content = {"a.csv": PICKS, "b.csv": b"b", "c.zip": zipped({"in/c.txt": b"c", "d.txt": b"d"})}
    source = tmp_path / "source"
    source.mkdir()
    for name, data in content.items():
        (source / name).write_bytes(data)
    files = [
        {"filename": name, "url": (source / name).as_uri(), "sha256": sha256(content[name])}
        for name in content
    ]
    files[1]["sha256"] = None
    files[2]["members"] = "*.txt"
    entries = [
        {"citekey": "Survey", "title": "A survey", "folder": "highres", "pipelines": ["a.json"]},
        {"citekey": "Grid", "title": "A grid", "folder": "lowres"},
    ]
    entries[0]["files"] = files
    entries[1]["files"] = [{"filename": "grid.tif", "url": None, "sha256": sha256(b"grid")}]
    path = tmp_path / "data_list.yml"
    path.write_text(yaml.safe_dump(entries))
    return registry.load(path)


@pytest.fixture
def verify(listing, tmp_path):
    """Verify, and give states by name."""

    def verify(*names: str) -> dict[str, str]:
        checked = download.verify(names, registry=listing, data_dir=tmp_path / "data")
        return {one.path.relative_to(tmp_path / "data").as_posix(): one.state for one in checked}

    return verify


@pytest.fixture
def here(listing, tmp_path):
    """The folder of the files, once they are fetched."""
    download.fetch("Survey", registry=listing, data_dir=tmp_path / "data")
    return tmp_path / "data" / "highres"


RIGHT = {
    "highres/a.csv": "ok",
    "highres/b.csv": "ok",
    "highres/c.zip": "ok",
    "highres/c.txt": "ok",
    "highres/d.txt": "ok",
}


def test_what_was_fetched_is_right_and_what_was_not_is_missing(here, verify):
    assert verify() == {**RIGHT, "lowres/grid.tif": "missing"}
    assert verify("highres") == verify("Survey") == RIGHT
    assert verify("b.csv", "lowres") == {"highres/b.csv": "ok", "lowres/grid.tif": "missing"}


@pytest.mark.parametrize("name", ["a.csv", "b.csv", "c.zip", "c.txt"])
def test_a_file_that_differs_from_the_registry_or_its_receipt_is_named(name, here, verify):
    data = bytearray((here / name).read_bytes())
    data[0] ^= 1
    (here / name).write_bytes(data)
    assert verify("Survey") == {**RIGHT, f"highres/{name}": "differs"}


def test_the_checksums_expected_and_found_are_given(here, listing, tmp_path):
    (here / "a.csv").write_bytes(b"mine")
    (checked,) = download.verify("a.csv", registry=listing, data_dir=tmp_path / "data")
    assert checked.citekey == "Survey"
    assert checked.expected == f"sha256 {sha256(PICKS)}"
    assert checked.found == f"sha256 {sha256(b'mine')}"


def test_what_came_out_of_an_archive_is_checked_without_the_archive_or_the_receipt(here, verify):
    (here / "c.zip").unlink()
    members = {"highres/c.txt": "ok", "highres/d.txt": "ok"}
    assert verify("c.zip") == members
    (here / "c.txt").unlink()
    missing = {"highres/c.zip": "missing", "highres/c.txt": "missing"}
    assert verify("c.zip") == {**members, **missing}


@pytest.mark.parametrize("data", [b"c", b"other"])
def test_without_a_receipt_members_are_compared_with_the_archive(data, here, verify):
    (here / ".fetched/c.zip.json").unlink()
    (here / "c.txt").write_bytes(data)
    state = "ok" if data == b"c" else "differs"
    assert verify("c.zip")["highres/c.txt"] == state
    assert not (here / ".fetched/c.zip.json").exists()


def test_what_nothing_tells_the_right_bytes_of_is_unchecked(here, verify):
    (here / ".fetched/b.csv.json").unlink()
    assert verify("b.csv") == {"highres/b.csv": "unchecked"}


def test_a_folder_in_the_place_of_a_file_differs(here, verify):
    (here / "a.csv").unlink()
    (here / "a.csv").mkdir()
    assert verify("a.csv") == {"highres/a.csv": "differs"}


def test_files_that_nothing_explains_are_extra(here, verify):
    (here / "deeper").mkdir()
    explained = ("README.md", "a.json", "gmt.history", "a.csv.aux.xml", "a.csv.part", ".hidden")
    for name in (*explained, "mine.csv", "mine.csv.part", "b.json", "deeper/a.csv"):
        (here / name).write_bytes(b"x")
    extra = ("b.json", "deeper/a.csv", "mine.csv", "mine.csv.part")
    assert verify("highres") == {**RIGHT, **{f"highres/{name}": "extra" for name in extra}}
    assert verify("Survey") == RIGHT
    assert {*verify()} >= {f"highres/{name}" for name in extra}


def test_a_name_that_the_registry_does_not_have_is_an_error(verify):
    with pytest.raises(InvalidDataError, match="did you mean Survey"):
        verify("Surve")
    with pytest.raises(ValueError, match="jobs"):
        download.verify("Survey", jobs=0)


@pytest.fixture
def call(call, monkeypatch, listing, tmp_path):
    """Run the command line; give exit code, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        folder = ["--data-dir", str(tmp_path / "data")]
        monkeypatch.setattr(registry, "load", lambda _=None: listing)
        return call(*arguments, *folder)

    return run


def test_the_command_counts_what_is_missing_and_names_it_only_when_asked_for(here, call):
    code, out, _ = call("verify")
    assert (code, out) == (0, "5 ok, 0 differs, 1 missing, 0 unchecked, 0 extra\n")
    code, out, _ = call("verify", "Grid")
    assert code == 0
    assert out.startswith(f"missing: {here.parent}/lowres/grid.tif")


def test_the_command_exits_with_1_where_a_file_differs(here, call):
    (here / "a.csv").write_bytes(b"mine")
    code, out, _ = call("verify")
    assert code == 1
    found = f"expected sha256 {sha256(PICKS)}, found sha256 {sha256(b'mine')}"
    assert out.splitlines()[0] == f"differs: {here}/a.csv: {found}"
    code, out, _ = call("verify", "a.csv", "--json")
    assert code == 1
    assert json.loads(out) == [
        {
            "path": f"{here}/a.csv",
            "citekey": "Survey",
            "state": "differs",
            "expected": f"sha256 {sha256(PICKS)}",
            "found": f"sha256 {sha256(b'mine')}",
        }
    ]


def test_a_dry_run_prints_what_would_be_done_and_does_nothing(call, tmp_path):
    code, out, _ = call("fetch", "highres", "--dry-run")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split() == ["file", "state", "size", "from"]
    assert lines[1].split()[:3] == ["highres/a.csv", "fetch", "unknown"]
    assert lines[-1] == "3 files, of which to fetch: 3 files of unknown size"
    code, out, _ = call("fetch", "highres", "lowres", "--dry-run", "--json")
    assert [row["state"] for row in json.loads(out)] == ["fetch", "fetch", "fetch", "manual"]
    assert not (tmp_path / "data").exists()


def test_the_command_fetches_says_how_much_first_and_prints_where_the_files_are(
    call, tmp_path, caplog
):
    code, out, _ = call("fetch", "a.csv")
    assert code == 0
    assert out == f"{tmp_path}/data/highres/a.csv\n"
    assert caplog.messages[0].startswith("1 file of unknown size to fetch; ")
    caplog.clear()
    code, out, err = call("fetch", "a.csv", "--offline")
    assert (code, out, err) == (0, f"{tmp_path}/data/highres/a.csv\n", "")
    assert not caplog.messages
    code, _, _ = call("fetch", "c.zip", "--drop-archives")
    assert code == 0
    assert not (tmp_path / "data/highres/c.zip").exists()


@pytest.mark.parametrize(
    "arguments", [(), ("a.csv", "--json"), ("a.csv", "--dry-run", "--again"), ("a", "--timeout", 0)]
)
def test_a_wrong_call_exits_with_2(arguments, call):
    code, _, err = call("fetch", *arguments)
    assert code == 2
    assert err


def test_the_command_names_what_a_person_must_get(call, caplog):
    code, _, err = call("fetch", "Grid")
    assert code == 1
    assert "grid.tif: not there; ask the authors" in err
    code, _, _ = call("fetch", "lowres")
    assert code == 0
    assert "Grid: left out; ask the authors" in caplog.text
