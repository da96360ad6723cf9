from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepbedmap import repository, schemas, validation
from deepbedmap.errors import InvalidDataError, MissingDataError

READER = {"type": "readers.text", "filename": "20??_Antarctica_DC8.csv", "skip": 1}


BILLION_LAUGHS = "a0: &a0 [x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str, str], Path]:
    def written(text: str, name: str = "survey.yml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return written


@pytest.fixture
def pipeline(written) -> Callable[..., Path]:
    def pipeline(*stages: object) -> Path:
        return written(json.dumps({"pipeline": stages}, indent=2), "survey.json")

    return pipeline


def complaints(path: Path, schema: str) -> list[str]:
    with pytest.raises(InvalidDataError) as error:
        schemas.validate_file(path, schema)
    return str(error.value).splitlines()


def test_yaml_is_read_with_the_line_of_every_place(written):
    path = written(
        "# a comment\nname: Rutford\nfiles:\n  - bed.txt\n  - {name: b,\n     skip: 20}\n"
    )
    document = schemas.load(path)
    assert document.content == {"name": "Rutford", "files": ["bed.txt", {"name": "b", "skip": 20}]}
    assert document.line("name") == 2
    assert document.line("files") == 3
    assert document.line("files", 1) == 5
    assert document.line("files", 1, "skip") == 6
    assert document.line("files", 1, "no such key") == 5


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(10**9), 10**9)
        | st.floats(-1e6, 1e6).filter(lambda x: x == round(x, 3))
        | st.text(st.characters(min_codepoint=32, max_codepoint=126)),
        lambda inner: st.lists(inner) | st.dictionaries(st.text("abcxyz<=&*", min_size=1), inner),
        max_leaves=10,
    ),
    st.sampled_from([None, 2, "\t"]),
)
@settings(max_examples=100, deadline=None)
def test_json_is_read_as_json_reads_it(tmp_path_factory, content, indent):
    path = tmp_path_factory.mktemp("json") / "any.json"
    path.write_text(json.dumps(content, indent=indent))
    read = schemas.load(path).content if content is not None else None
    assert read == content


@pytest.mark.parametrize("name", ["survey.yml", "survey.json"])
def test_a_repeated_key_is_named_with_both_its_lines(name, written):
    path = written('{\n"skip": 1,\n"header": "x",\n"skip": 2\n}\n', name)
    with pytest.raises(InvalidDataError) as error:
        schemas.load(path)
    assert str(error.value) == (
        f"{path}, line 4, field skip: expected each key once, found it twice (first on line 2)"
    )


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", None, "an empty file"),
        (" \n\n", None, "an empty file"),
        ("# nothing yet\n", None, "nothing but comments"),
        ("a: 1\n\tb: 2\n", 2, "blanks, not tabs"),
        ("a: [1, 2\n", 2, "expected YAML"),
        ("a: 1\n--- \nb: 2\n", 2, "expected YAML"),
        ("a: 1\nb: *a\n", 2, "undefined alias"),
        ("a: &a [*a]\n", None, "levels of nesting"),
        (BILLION_LAUGHS, None, "at most 100,000 values"),
        ("a: 1\nb: !!python/name:os.system\n", 2, "a plain value"),
        ("a: 1\nb: .nan\n", 2, "a finite number, or null"),
        ("a: 1\nb: -.inf\n", 2, "a finite number, or null"),
        ("a: 1\n2: b\n", 2, "a key that is text"),
        ("a: 1\n[x]: b\n", 2, "a key that is text"),
        ("a: 1\nb: !!int x\n", 2, "a plain value"),
        ("[" * 5000, None, "levels of nesting"),
    ],
)
def test_yaml_that_cannot_be_used_is_named_with_its_line(text, line, message, written):
    path = written(text)
    with pytest.raises(InvalidDataError, match=message) as error:
        schemas.load(path)
    place = f"{path}, line {line}" if line else f"{path}:"
    assert str(error.value).startswith(place)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"pipeline":\n[1,]}', "line 2: expected JSON"),
        ('{"pipeline":\n[1}', "line 2: expected JSON"),
        ("pipeline:\n- a: 1\n", "line 1: expected JSON"),
        ('{"pipeline":\n["a\tb"]}', "line 2: expected JSON"),
        ('{"pipeline": NaN}', "found NaN"),
    ],
)
def test_json_is_held_to_json(text, message, written):
    with pytest.raises(InvalidDataError, match=message):
        schemas.load(written(text, "survey.json"))


def test_an_alias_stands_for_what_it_repeats(written):
    document = schemas.load(written("a: &a [1, 2]\nb: *a\n"))
    assert document.content == {"a": [1, 2], "b": [1, 2]}
    assert document.line("b") == 2


def test_a_date_stays_text(written):
    assert schemas.load(written("day: 2018-10-30\n")).content == {"day": "2018-10-30"}


def test_a_byte_that_is_not_utf_8_is_named_with_its_line(tmp_path):
    path = tmp_path / "survey.yml"
    path.write_bytes("name: Rutford\nauthor: Müller\n".encode("latin-1"))
    with pytest.raises(
        InvalidDataError, match="line 2: expected text in UTF-8, found the byte 0xfc"
    ):
        schemas.load(path)


def test_a_file_that_is_not_there_is_missing_and_a_folder_is_no_file(tmp_path):
    with pytest.raises(MissingDataError, match=r"survey\.yml"):
        schemas.load(tmp_path / "survey.yml")
    with pytest.raises(InvalidDataError, match="a file that can be read"):
        schemas.load(tmp_path)


def test_all_faults_of_a_file_are_told_in_the_order_of_its_lines(written):
    path = written(
        "schema_version: 2\ndatasets:\n"
        "- citekey: A\n  title: a\n  folder: low\n  files: no\n"
        "- citekey: B\n  folder: misc\n  year: MMXVI\n  licens: MIT\n  files: [{filename: b}]\n"
    )
    assert complaints(path, "registry") == [
        f"{path}, line 5, entry A, field folder: expected highres, lowres or misc, found 'low'",
        f"{path}, line 6, entry A, field files: expected a list of files; null or empty where "
        "their names are not known, found false",
        f"{path}, line 7, entry B, field title: expected some text, found nothing",
        f"{path}, line 9, entry B, field year: expected a whole number from 1900 to 2100, or null, "
        "found 'MMXVI'",
        f"{path}, line 10, entry B, field licens: expected a known key, "
        "found the unknown key 'licens'; did you mean licence?",
        f"{path}, line 11, entry B, field files[0].url: expected a URL (http, https, ftp, "
        "sftp, doi or file), or null, found nothing",
        f"{path}, line 11, entry B, field files[0].sha256: expected 64 hexadecimal digits in lower "
        "case (the sha256 checksum), or null, found nothing",
    ]


def test_a_pipeline_of_all_stages_is_valid(pipeline):
    stages = [
        {**READER, "header": "Y,X", "separator": ",", "override_srs": "EPSG:4326"},
        {"type": "filters.assign", "value": "Z = ELEVATION - BOTTOM"},
        {"type": "filters.assign", "value": ["X = X * 1000", "Y = Y * 1000"]},
        {"type": "filters.expression", "expression": "THICK > 0"},
        {"type": "filters.reprojection", "in_srs": "EPSG:4326", "out_srs": "EPSG:3031"},
        {
            "type": "writers.text",
            "filename": "out.csv",
            "order": "X,Y,Z",
            "keep_unspecified": "false",
            "precision": 3,
        },
    ]
    document = schemas.validate_file(pipeline(*stages), "pipeline")
    assert document.content == {"pipeline": stages}
    assert document.line("pipeline", 0, "filename") == 5


@pytest.mark.parametrize(
    ("stage", "field", "message"),
    [
        ({"type": "filters.crop"}, "pipeline[1].type", "'filters.crop'"),
        ({"filename": "a"}, "pipeline[1].type", "nothing"),
        ({**READER, "usecols": "x"}, "pipeline[1].usecols", "the unknown key 'usecols'"),
        ({**READER, "seperator": ","}, "pipeline[1].seperator", "did you mean separator?"),
        ({**READER, "separator": "\\s+"}, "pipeline[1].separator", "one character"),
        ({**READER, "separator": ""}, "pipeline[1].separator", "one character"),
        ({**READER, "skip": -1}, "pipeline[1].skip", "a whole number of lines"),
        ({**READER, "skip": "1"}, "pipeline[1].skip", "a whole number of lines"),
        ({"type": "readers.text"}, "pipeline[1].filename", "nothing"),
        ({"type": "filters.assign", "value": {}}, "pipeline[1].value", "an assignment"),
        ({"type": "filters.assign", "value": ["Z = 1", 2]}, "pipeline[1].value[1]", "found 2"),
        ({"type": "filters.reprojection", "in_srs": "a"}, "pipeline[1].out_srs", "nothing"),
        ("out.csv", "pipeline[1]", "a stage"),
    ],
)
def test_a_fault_of_a_pipeline_names_its_place_and_what_is_wrong(stage, field, message, pipeline):
    path = pipeline(READER, stage)
    (complaint,) = complaints(path, "pipeline")
    assert complaint.startswith(f"{path}, line ")
    assert f"field {field}: " in complaint
    assert message in complaint


@pytest.mark.parametrize(
    "content",
    [{}, [], {"pipeline": []}, {"pipeline": [{"type": "filters.assign", "value": "Z=1"}]}],
)
def test_a_pipeline_must_read_something(content, written):
    complaints(written(json.dumps(content), "survey.json"), "pipeline")


def test_every_pipeline_that_comes_with_the_package_is_valid():
    paths = sorted((repository.root() / "highres").glob("*.json"))
    assert paths
    for path in paths:
        schemas.validate_file(path, "pipeline")


def test_a_schema_file_that_is_wrong_is_named(tmp_path, monkeypatch, written):
    folder = tmp_path / "validation"
    folder.mkdir()
    (folder / "pipeline.schema.json").write_text('{"properties": {"pipeline": {"type": "lisst"}}}')
    monkeypatch.setattr(repository, "root", lambda: tmp_path)
    with pytest.raises(InvalidDataError, match=r"pipeline\.schema\.json.*properties\.pipeline"):
        schemas.validate_file(written("{}", "survey.json"), "pipeline")


def test_numbers_and_text_are_told_apart_as_yaml_does(written):
    content = schemas.load(written("a: 250\nb: 250.5\nc: '250'\nd: 250m\ne: ~\nf: no\n")).content
    assert content == {"a": 250, "b": 250.5, "c": "250", "d": "250m", "e": None, "f": False}
    assert math.isclose(content["b"], 250.5)


def test_every_schema_that_comes_with_the_package_is_valid():
    defined = repository.root() / "validation" / "benchmark.yml"  # what a schema is for, and none
    paths = sorted({*defined.parent.iterdir()} - {defined})
    assert {path.suffix for path in paths} == {".json", ".yml"}
    for path in paths:
        assert validation.schema_faults(path) == []


SCHEMA_FAULTS = {
    "an unknown type": (
        "points.yml",
        ("schema_type: dataframe", "schema_type: table"),
        "schema_type",
        "found 'table'",
    ),
    "an unknown key": (
        "points.yml",
        ("    nullable:", "    nulable:"),
        "columns.quality.nulable",
        "did you mean nullable?",
    ),
    "a dtype that does not exist": (
        "points.yml",
        ("dtype: Int8", "dtype: Int9"),
        "columns.quality.dtype",
        "found 'Int9'",
    ),
    "an unknown check of a column": (
        "points.yml",
        ("    in_range:", "    in_rang:"),
        "columns.x.in_rang",
        "did you mean in_range?",
    ),
    "an unknown check of a table": (
        "points.yml",
        ("  in_metres:", "  in_meters:"),
        "checks.in_meters",
        "did you mean in_metres",
    ),
    "an unknown argument of a check": (
        "points.yml",
        ("    most: 3340000", "    radius: 3340000"),
        "checks.within_antarctica.radius",
        "the unknown key 'radius'",
    ),
    "an empty range": (
        "raw_cresis.yml",
        ("{min_value: -90, max_value: -60}", "{min_value: -60, max_value: -90}"),
        "columns.LAT",
        "what pandera accepts",
    ),
    "a pattern that is none": (
        "raw_bedmap.yml",
        ("'[0-9]{4}(-[0-9]{2}){0,2}$'", "'[0-9'"),
        "columns.date.str_matches",
        "a regular expression",
    ),
    "a dimension that is none": (
        "grid.yml",
        ("dims: [y, x]", "dims: y"),
        "data_vars.z.dims",
        "a list of names",
    ),
    "a reference to nothing": (
        "pipeline.schema.json",
        ('{ "$ref": "#/$defs/srs" }', '{ "$ref": "#/$defs/crs" }'),
        "$defs.readers.text.properties.override_srs.$ref",
        "found '#/$defs/crs'",
    ),
    "a number as text": (
        "pipeline.schema.json",
        ('"minimum": 0', '"minimum": "0"'),
        "$defs.readers.text.properties.skip.minimum",
        "JSON Schema",
    ),
}


@pytest.mark.parametrize(
    ("name", "change", "field", "message"), SCHEMA_FAULTS.values(), ids=SCHEMA_FAULTS.keys()
)
def test_a_fault_of_a_schema_file_is_named_with_its_line(name, change, field, message, tmp_path):
    text = (repository.root() / "validation" / name).read_text()
    assert change[0] in text
    path = tmp_path / name
    path.write_text(text.replace(*change, 1))
    (fault,) = [fault for fault in validation.schema_faults(path) if fault.field == field]
    lines = range(1, 1 + text[: text.index(change[0])].count("\n") + 1)
    assert fault.line in lines[-4:]
    assert message in str(fault)


def test_the_checks_that_schemas_may_name_are_those_that_there_are():
    from deepbedmap.validation import checks

    known = schemas.load(repository.root() / "validation" / "table.schema.json").content["$defs"]
    named = {
        check
        for kind in ("dataframe", "dataset")
        for check in known[kind]["properties"]["checks"]["properties"]
    }
    assert named == {*checks.ROWS, *checks.WHOLE}


def test_a_schema_that_leads_to_itself_is_a_fault_and_no_crash(tmp_path, monkeypatch, written):
    (tmp_path / "validation").mkdir()
    schema = {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}
    (tmp_path / "validation" / "pipeline.schema.json").write_text(json.dumps(schema))
    monkeypatch.setattr(repository, "root", lambda: tmp_path)
    with pytest.raises(
        InvalidDataError, match="a schema that ends, found one that refers to itself"
    ):
        schemas.validate_file(written("{}", "survey.json"), "pipeline")


def test_nesting_that_would_run_out_of_stack_is_refused(tmp_path):
    # Another process: where this fails, it ends without a word.
    program = (
        "import sys; from deepbedmap import validation; print(*validation.check(sys.argv[1:]))"
    )
    paths = [tmp_path / "deep.yml", tmp_path / "deep.json"]
    for path in paths:
        path.write_text("[" * 200_000 + "]" * 200_000)
    done = subprocess.run(
        [sys.executable, "-c", program, *paths], capture_output=True, text=True, check=True
    )
    assert done.stdout.count("levels of nesting") == 2
