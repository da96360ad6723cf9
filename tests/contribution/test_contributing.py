"""A survey is added whole or not at all; and every survey that was added is still read."""

from __future__ import annotations

import fnmatch
import hashlib
import io
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from deepbedmap import catalog, contribution, registry, repository, schemas, validation
from deepbedmap.cli import main
from deepbedmap.contribution import FIXTURES, contribute, inspect
from deepbedmap.errors import InvalidDataError, MissingDataError
from deepbedmap.points import read_points

ROOT = Path(__file__).resolve().parents[2]
SURVEYS = sorted(path for path in (ROOT / FIXTURES).glob("*") if path.is_file())

REGISTRY = """\
# A comment that must stay.
schema_version: 2
datasets:

- citekey: Old2001Survey
  title: An old survey  # and this one
  year: 2001
  publisher: null
  folder: highres
  location: Nowhere
  pipelines: [old.json]
  files:
    - filename: old.csv
      url: null
      sha256: null
"""
OLD = {
    "pipeline": [
        {
            "type": "readers.text",
            "filename": "old.csv",
            "header": "X,Y,Z",
            "separator": ",",
            "skip": 1,
            "override_srs": "EPSG:3031",
        }
    ]
}
RECORDS = [f"{-80 - n / 100:.2f},{-75 - n / 200:.3f},{-1234.56 + n:.2f}" for n in range(90)]
RECORDS[45] = "-80.5,-75.5,-9999"
TEXT = "lon,lat,bed_elevation\n" + "\n".join(RECORDS) + "\n"
KNOWN = {"title": "New picks", "licence": "CC-BY-4.0", "vertical_datum": "ellipsoid"}


@pytest.fixture
def root(tmp_path):
    """Make a repository with one survey."""
    folder = tmp_path / "repository"
    (folder / "highres").mkdir(parents=True)
    (folder / "data_list.yml").write_text(REGISTRY)
    (folder / "highres" / "old.json").write_text(json.dumps(OLD))
    catalog.build(root=folder)
    return folder


@pytest.fixture
def sample(tmp_path):
    """Write a raw file."""

    def write(text: str = TEXT, name: str = "picks.csv") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.fixture
def new(monkeypatch, capsys, root):
    """Run `deepbedmap new`, on a terminal where answers are given; give code and outputs."""

    def run(*arguments: object, answers: str | None = None) -> tuple[int, str, str]:
        class Keyboard(io.StringIO):
            def isatty(self) -> bool:
                return answers is not None

        monkeypatch.setattr(sys, "stdin", Keyboard(answers or ""))
        command = ["deepbedmap", "new", *map(str, arguments), "--root", str(root)]
        monkeypatch.setattr(sys, "argv", command)
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        output = capsys.readouterr()
        return code, output.out, output.err

    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("fixture", SURVEYS, ids=lambda path: path.name)
def test_every_contributed_survey_is_read_by_its_pipeline(fixture, tmp_path):
    pipelines = [
        path
        for path in sorted((ROOT / "highres").glob("*.json"))
        if fnmatch.fnmatch(fixture.name, schemas.load(path).content["pipeline"][0]["filename"])
    ]
    assert pipelines, f"no pipeline reads {fixture.name}"
    shutil.copy(fixture, tmp_path)
    for path in pipelines:
        picks = read_points(shutil.copy(path, tmp_path))
        assert len(picks) > 0
        assert picks["z"].abs().max() < contribution.HIGHEST


def test_a_survey_is_added_with_entry_pipeline_fixture_and_catalog(root, sample):
    raw = sample()
    written = contribute(
        inspect(raw),
        "New2024Survey",
        **KNOWN,
        authors=["King, E. C.", "British Antarctic Survey"],
        year=2024,
        doi="https://doi.org/10.1234/abc",
        root=root,
    )
    assert [str(path.relative_to(root)) for path in written] == [
        "data_list.yml",
        "highres/picks.json",
        "catalog/highres.yml",
        "highres/README.md",
        "catalog/registry.sha256",
        "tests/fixtures/surveys/picks.csv",
    ]
    dataset = registry.load(root)["New2024Survey"]
    (file,) = dataset.files
    assert file.bytes == raw.stat().st_size
    assert file.sha256 == hashlib.sha256(raw.read_bytes()).hexdigest()
    assert dataset.notes == "90 records give 89 picks."
    assert dataset.authors == ("King, E. C.", "British Antarctic Survey")
    assert (dataset.doi_dataset, dataset.licence) == ("10.1234/abc", "CC-BY-4.0")
    assert (dataset.vertical_datum, dataset.status, dataset.nodata) == (
        "ellipsoid",
        "active",
        -9999,
    )
    shutil.copy(raw, root / "highres")
    picks = read_points(root / "highres" / "picks.json")
    assert len(picks) == 89
    xmin, ymin, xmax, ymax = dataset.bounds
    assert 0 <= picks["x"].min() - xmin < 1
    assert 0 <= ymax - picks["y"].max() < 1
    assert xmax > xmin
    assert ymin < ymax


def test_the_rest_of_the_registry_stays_as_it_is_to_the_letter(root, sample):
    contribute(inspect(sample()), "New2024Survey", **KNOWN, root=root)
    text = (root / "data_list.yml").read_text()
    assert text.startswith(REGISTRY)
    assert text.count("\n- citekey:") == 2


def test_the_repository_is_then_valid(root, sample):
    contribute(inspect(sample()), "New2024Survey", **KNOWN, root=root)
    assert validation.check(root=root) == []
    catalog.check(root=root)


def test_the_fixture_is_a_short_excerpt_from_the_whole_file(root, sample):
    contribute(inspect(sample()), "New2024Survey", **KNOWN, root=root)
    lines = (root / FIXTURES / "picks.csv").read_text().splitlines()
    assert lines[0] == "lon,lat,bed_elevation"
    assert 10 < len(lines) < 30
    assert {*lines[1:]} <= {*RECORDS}
    assert RECORDS[45] in lines  # that with a missing bed
    assert RECORDS.index(lines[-1]) > 70


def test_without_a_licence_the_fixture_gives_the_layout_and_not_the_data(root, sample):
    contribute(inspect(sample()), "New2024Survey", **KNOWN | {"licence": None}, root=root)
    lines = (root / FIXTURES / "picks.csv").read_text().splitlines()
    assert lines[1] == "-80.00,-75.000,-1200.00"
    assert "-80.0,-75.0,-9999" in lines


@pytest.mark.parametrize("layout", ["  - ", "bare list", "windows", "no last newline"])
def test_an_entry_takes_the_form_of_those_before_it(root, sample, layout):
    path = root / "data_list.yml"
    text = REGISTRY
    if layout == "  - ":
        head, _, entries = text.partition("datasets:\n")
        text = f"{head}datasets:\n" + re.sub(r"(?m)^(?=.)", "  ", entries)
    elif layout == "bare list":
        text = text.replace("schema_version: 2\ndatasets:\n", "")
    elif layout == "no last newline":
        text = text.rstrip("\n")
    data = text.replace("\n", "\r\n").encode() if layout == "windows" else text.encode()
    path.write_bytes(data)
    contribute(inspect(sample()), "New2024Survey", **KNOWN, supersedes="Old2001Survey", root=root)
    listing = registry.load(root)
    assert [dataset.citekey for dataset in listing] == ["Old2001Survey", "New2024Survey"]
    assert listing["Old2001Survey"].superseded_by == "New2024Survey"
    newlines = path.read_bytes().count(b"\n")
    assert path.read_bytes().count(b"\r\n") == (newlines if layout == "windows" else 0)


def test_a_registry_to_which_no_text_can_be_appended_is_refused(root, sample):
    path = root / "data_list.yml"
    content = yaml.safe_load(REGISTRY)
    path.write_text(json.dumps({"datasets": content["datasets"], "schema_version": 2}))
    before = contents(root)
    with pytest.raises(InvalidDataError, match="block list"):
        contribute(inspect(sample()), "New2024Survey", **KNOWN, root=root)
    assert contents(root) == before


@pytest.mark.parametrize(
    ("title", "authors"),
    [
        ("Ice: the #1 survey, 'really' \"new\" {of} [Möller & Co]", ['O\'Neil "X", A.', "null"]),
        ("A title that is so long that it goes over more than one line: " * 4, ["Name, A."] * 30),
        ("yes", ["1.5"]),
        ("  two  blanks \n and a line ", [" A  B "]),
    ],
)
def test_odd_text_stays_text(root, sample, title, authors):
    contribute(inspect(sample()), "New2024Survey", **KNOWN | {"title": title}, authors=authors,
               version="1.0", root=root)  # fmt: skip
    dataset = registry.load(root)["New2024Survey"]
    assert dataset.title == " ".join(title.split())
    assert dataset.authors == tuple(" ".join(author.split()) for author in authors)
    assert dataset.version == "1.0"
    assert max(map(len, (root / "data_list.yml").read_text().splitlines())) <= 100


@pytest.mark.parametrize("status", [None, "active", "retired"])
def test_what_is_superseded_says_by_what(root, sample, status):
    path = root / "data_list.yml"
    if status:
        path.write_text(REGISTRY.replace("  year: 2001", f"  status: {status}  # so\n  year: 2001"))
    contribute(inspect(sample()), "New2024Survey", **KNOWN, supersedes="Old2001Survey", root=root)
    old, successor = registry.load(root)
    assert old.superseded_by == "New2024Survey"
    assert old.status == ("retired" if status == "retired" else "superseded")
    assert successor.overlaps_with == ("Old2001Survey",)
    assert "# A comment that must stay." in path.read_text()
    assert ("# so" in path.read_text()) is (status is not None)
    with pytest.raises(InvalidDataError, match="supersede New2024Survey instead"):
        contribute(inspect(sample(name="third.csv")), "Third2025", **KNOWN,
                   supersedes="Old2001Survey", root=root)  # fmt: skip


def change(**changes):
    return KNOWN | changes


@pytest.mark.parametrize(
    ("name", "citekey", "fields", "message"),
    [
        ("picks.csv", "old2001survey", KNOWN, "--supersedes Old2001Survey"),
        ("OLD.csv", "New2024", KNOWN, "rename the file, for example OLD_New2024.csv"),
        ("old.txt", "New2024", KNOWN, "old.json"),
        ("my picks.csv", "New2024", KNOWN, "a file name of letters"),
        ("picks[1].csv", "New2024", KNOWN, "a file name of letters"),
        ("picks", "New2024", KNOWN, "a suffix"),
        ("picks.csv", "../New", KNOWN, "citekey"),
        (
            "picks.csv",
            "New2024",
            change(licence="Free"),
            "licence: expected an SPDX identifier such as CC-BY-4.0, found 'Free'",
        ),
        ("picks.csv", "New2024", change(vertical_datum="geoid"), "datum"),
        ("picks.csv", "New2024", change(doi="doi.org/1"), "doi"),
        ("picks.csv", "New2024", change(survey_type="swimming"), "survey_type"),
        ("picks.csv", "New2024", change(supersedes="Nobody1999"), "Nobody1999"),
        ("picks.csv", "New2024", change(year=24), "a whole number from 1900"),
        ("picks.csv", "New2024", change(url="gopher://x/y"), "a URL"),
    ],
)
def test_what_is_refused_leaves_every_file_as_it_was(root, sample, name, citekey, fields, message):
    raw = sample(name=name)
    before = contents(root)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        contribute(inspect(raw), citekey, **fields, root=root)
    assert str(caught.value).count("\n") == 0
    assert "deepbedmap-" not in str(caught.value)  # no name of a folder for trying
    assert contents(root) == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TEXT + "-80,-75,south\n", r"picks\.csv, line 92, field Z"),
        (TEXT + "-80,-75\n", r"picks\.csv, line 92"),
        (TEXT.replace("-75.", "-35."), "south of 60"),
        ("lon,lat,bed_elevation\n" + "-80,-75,12000\n-81,-75,10000\n" * 9, "--missing"),
        ("lon,lat,bed_elevation\n" + "-80,-75,-9999\n" * 9, "no picks"),
    ],
)
def test_records_that_give_no_picks_are_refused_with_their_place(root, sample, text, message):
    before = contents(root)
    with pytest.raises(InvalidDataError, match=message):
        contribute(inspect(sample(text)), "New2024Survey", **KNOWN, root=root)
    assert contents(root) == before


def test_a_repository_that_is_at_fault_already_is_told_of_and_left(root, sample):
    (root / "highres" / "stray.json").write_text(json.dumps(OLD))
    before = contents(root)
    with pytest.raises(InvalidDataError, match=re.escape(str(root / "highres" / "stray.json"))):
        contribute(inspect(sample()), "New2024Survey", **KNOWN, root=root)
    assert contents(root) == before


def test_a_write_that_fails_half_way_is_undone(root, sample, monkeypatch):
    before = contents(root)
    (root / "tests").write_text("in the way of the folder for fixtures")
    with pytest.raises(OSError, match="tests"):
        contribute(inspect(sample()), "New2024Survey", **KNOWN, root=root)
    (root / "tests").unlink()
    assert contents(root) == before


def test_a_copy_lands_beside_its_pipeline(root, sample):
    raw = sample()
    written = contribute(inspect(raw), "New2024Survey", **KNOWN, copy=True, root=root)
    assert written[-1] == root / "highres" / "picks.csv"
    assert written[-1].read_bytes() == raw.read_bytes()
    assert len(read_points(root / "highres" / "picks.json")) == 89


def test_a_name_that_another_pipeline_reads_too_is_warned_of(root, sample, caplog):
    OLDER = json.dumps(OLD).replace("old.csv", "pic*.csv")
    (root / "highres" / "old.json").write_text(OLDER)
    contribute(inspect(sample()), "New2024Survey", **KNOWN, root=root)
    assert "picks.csv would also be read by old.json" in caplog.text


def test_an_installed_package_is_no_place_to_contribute_to(sample, tmp_path, monkeypatch):
    (tmp_path / "_repository").mkdir()
    (tmp_path / "_repository" / "data_list.yml").write_text(REGISTRY)
    monkeypatch.setattr(repository, "root", lambda: tmp_path / "_repository")
    for root in (None, tmp_path):
        with pytest.raises(MissingDataError, match="--root"):
            contribute(inspect(sample()), "New2024Survey", **KNOWN, root=root)


def test_flags_alone_add_a_survey(new, root, sample):
    code, out, _ = new("New2024Survey", "--sample", sample(), "--title", "New picks", "--authors",
                       "King, E. C.; Smith, A.", "--licence", "cc-by-4.0", "--datum", "unknown",
                       "--yes")  # fmt: skip
    assert code == 0
    assert "guessed: x and y are longitude and latitude" in out
    assert "90 records give 89 picks" in out
    assert "put picks.csv into" in out
    dataset = registry.load(root)["New2024Survey"]
    assert dataset.authors == ("King, E. C.", "Smith, A.")
    assert dataset.licence == "CC-BY-4.0"
    assert dataset.vertical_datum is None


def test_without_a_terminal_one_line_names_every_flag_that_is_missing(new, root, sample):
    text = TEXT.replace("bed_elevation", "bed_depth")
    code, _, err = new("New2024Survey", "--sample", sample(text), "--title", "New picks")
    assert code == 2
    assert err.count("\n") == 1
    for flag in ("--licence", "--datum", "--down or --up", "--yes", "--crs"):
        assert flag in err
    assert "--title" not in err
    assert len(registry.load(root)) == 1


def test_yes_does_not_stand_for_a_licence_a_datum_or_the_sign_of_a_depth(new, sample):
    text = TEXT.replace("bed_elevation", "bed_depth")
    code, _, err = new("New2024Survey", "--sample", sample(text), "--title", "New", "--yes")
    assert code == 2
    for flag in ("--licence", "--datum", "--down or --up"):
        assert flag in err


def test_flags_that_settle_the_guesses_need_no_yes(new, sample):
    code, out, err = new("New2024Survey", "--sample", sample(), "--title", "New", "--licence",
                         "unknown", "--datum", "ellipsoid", "--crs", "EPSG:4326", "--missing",
                         -9999)  # fmt: skip
    assert (code, err) == (0, "")
    assert "guessed" not in out


def test_a_terminal_is_asked_for_what_no_flag_tells(new, root, sample):
    text = TEXT.replace("bed_elevation", "bed_depth").replace(",-1", ",1")
    answers = [
        *("y", "y", "y", "down"),  # the bed's column, missing marks, coordinates; its sign
        *("New picks", "Free", "CC0-1.0", "sea level", "eigen-gl04c"),  # two are no answers
        *("King, E. C.; Smith, A.", "2024", "", "10.1234/abc", "", ""),
    ]
    code, out, err = new(
        "New2024Survey", "--sample", sample(text), answers="\n".join([*answers, ""])
    )
    assert code == 0, err
    assert "licence: expected an SPDX identifier" in out + err
    dataset = registry.load(root)["New2024Survey"]
    assert (dataset.licence, dataset.vertical_datum) == ("CC0-1.0", "EIGEN-GL04C")
    assert (dataset.year, dataset.location, dataset.doi_dataset) == (2024, None, "10.1234/abc")
    stages = json.loads((root / "highres" / "picks.json").read_text())["pipeline"]
    assert {"type": "filters.assign", "value": "Z = 0 - bed_depth"} in stages


def test_a_guess_that_is_denied_is_asked_for(new, root, sample):
    rows = [f"{1e6 + 250 * n},-5e5,{-10 - n},{-20 - n}" for n in range(30)]
    text = "x,y,bed,bed_fc\n" + "\n".join(rows) + "\n"
    answers = ["n", "bed_gc", "bed_fc", "y", ""]
    code, out, err = new("New2024Survey", "--sample", sample(text), "--title", "New", "--licence",
                         "CC0-1.0", "--datum", "ellipsoid",
                         answers="\n".join([*answers, *[""] * 9]))  # fmt: skip
    assert code == 0, err
    assert "did you mean bed_fc" in out + err
    reader = json.loads((root / "highres" / "picks.json").read_text())["pipeline"][0]
    assert reader["header"] == "X,Y,bed,Z"


def test_the_help_has_an_example(new):
    code, out, _ = new("--help")
    assert code == 0
    assert "Example: deepbedmap new" in out


@pytest.mark.parametrize("folder", ["lowres", "elsewhere"])
def test_a_survey_has_no_other_folder(new, sample, folder):
    code, _, err = new("New2024", "--sample", sample(), "--folder", folder)
    assert code == 2
    assert "--folder" in err


def test_a_bad_sample_is_one_line_and_exit_code_1(new, sample):
    code, out, err = new("New2024", "--sample", sample("lon,lat,bed\n"), "--yes")
    assert (code, out) == (1, "")
    assert err.count("\n") == 1


def test_a_real_survey_is_added_to_the_whole_repository(tmp_path, shared_data):
    for name in ("highres", "lowres", "misc", "catalog", "validation"):
        shutil.copytree(
            ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.csv", "*.tx?")
        )
    shutil.copy(ROOT / "data_list.yml", tmp_path)
    before = [*registry.load(tmp_path)]
    raw = shared_data / "cresis" / "2018_Antarctica_DC8.csv"
    contribute(inspect(raw), "New2018DC8", **KNOWN | {"licence": None}, root=tmp_path)
    *others, dataset = registry.load(tmp_path)
    assert others == before
    assert dataset.notes == "26,718 records give 26,718 picks."
    assert dataset.epoch == (2018, 2018)


def test_a_real_table_of_metres_is_added(root, shared_data):
    raw = shared_data / "byrd" / "byrd_radar_bed.csv"
    contribute(inspect(raw), "New2022Byrd", **KNOWN | {"licence": None}, root=root)
    dataset = registry.load(root)["New2022Byrd"]
    assert dataset.notes == "14,991 records give 14,991 picks."
    assert dataset.crs == "EPSG:3031"
