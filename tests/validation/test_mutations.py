"""Whatever one edit does to a file that people write, it ends in faults that name their place."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deepbedmap import catalog, repository, validation
from deepbedmap.errors import Fault

VALUES = [
    "",
    "null",
    "true",
    "-1",
    "1e400",
    ".nan",
    "2018-10-30",
    "'text'",
    "[]",
    "[1, a]",
    "{}",
    "{a: 1}",
    "&a [*a]",
    "*nothing",
    "!!python/object/apply:os.system [ls]",
    "!tag x",
    "| \n  text",
    '"\\ud800"',
    "[" * 60,
]
BYTES = [b"\x00", b"\xff", b"\xef\xbb\xbf", b"\t", b"\r", b"\xe2\x80\xa8", b"{", b"]", b"'", b"#"]
OF_ALL = ("an empty file", "nothing but comments", "levels of nesting", "found NaN", "Infinity")
"""What is wrong with all of a file, and so with no line of it."""

CITEKEYS = ["King2016Rutford", "Shi2010CRESIS", "Mouginot2017MEASURES"]

Edit = Callable[[str], bytes]


@st.composite
def edits(draw: st.DrawFn) -> Edit:
    """One edit of a text: of a line, of a value or key, or of a few characters."""
    # Places are drawn as shares of the text, so that an example means the same in every text.
    share = draw(st.floats(0, 1, exclude_max=True))
    other = draw(st.floats(0, 1, exclude_max=True))
    kind = draw(st.sampled_from(["line", "value", "key", "characters", "end"]))
    change = draw(
        {
            "line": st.sampled_from(["delete", "double", "swap", "indent", "dedent"]),
            "value": st.sampled_from(VALUES),
            "key": st.sampled_from(["", "X", "citekey", "filename", "type", "<<", "? "]),
            "characters": st.sampled_from(BYTES),
            "end": st.just(None),
        }[kind]
    )

    def edit(text: str) -> bytes:
        lines = text.splitlines(keepends=True)
        at, to = int(share * len(lines)), int(other * len(lines))
        if kind == "line":
            line = lines[at]
            lines[at] = {
                "delete": "",
                "double": line * 2,
                "swap": lines[to],
                "indent": f"  {line}",
                "dedent": line[2:],
            }[change]
            if change == "swap":
                lines[to] = line
        elif kind in ("value", "key"):
            pattern = r"(?<=: )[^,\n]+" if kind == "value" else r"\b\w+(?=\"?:)"
            places = [match.span() for match in re.finditer(pattern, text)]
            start, end = places[int(share * len(places))]
            return (text[:start] + change + text[end:]).encode()
        elif kind == "characters":
            raw = text.encode()
            at = int(share * len(raw))
            return raw[:at] + change + raw[at + int(other * 3) :]
        else:
            return text.encode()[: int(share * len(text.encode()))]
        return "".join(lines).encode()

    return edit


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with some of the package's own surveys, products, pipelines and schemas."""
    root = tmp_path_factory.mktemp("repository")
    own = repository.root()
    content = yaml.safe_load((own / "data_list.yml").read_text())
    entries = {entry["citekey"]: entry for entry in content["datasets"]}
    content["datasets"] = [entries[name] for name in CITEKEYS]
    for entry in content["datasets"]:
        entry["overlaps_with"] = [name for name in CITEKEYS[:1] if name != entry["citekey"]]
        for field in ("status", "superseded_by", "built_from"):
            entry.pop(field, None)
    (root / "data_list.yml").write_text(yaml.safe_dump(content, sort_keys=False))
    (root / "highres").mkdir()
    for entry in content["datasets"]:
        for pipeline in entry.get("pipelines", []):
            shutil.copy(own / "highres" / pipeline, root / "highres")
    shutil.copytree(own / "validation", root / "validation")
    catalog.build(root=root)
    assert validation.check(root=root) == []
    return root


def told_after(edit: Edit, path: Path, check: Callable[[], list[Fault]]) -> None:
    """Edit a file, check, and put the file back."""
    before = path.read_bytes()
    after = edit(before.decode())
    path.write_bytes(after)
    try:
        faults = check()
    finally:
        path.write_bytes(before)
    for fault in faults:
        assert Path(fault.file).is_relative_to(path.parents[1])
        assert "\n" not in str(fault)
        assert fault.expected or fault.found
        if fault.file == str(path):
            assert fault.line or fault.entry or any(part in str(fault) for part in OF_ALL)
            assert (fault.line or 1) <= len(after.decode(errors="replace").splitlines()) + 1


a_few = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
many = settings(a_few, max_examples=150)


@given(edits())
@many
def test_no_edit_of_the_registry_ends_in_a_traceback(root, edit):
    path = root / "data_list.yml"
    told_after(edit, path, lambda: validation.check(path))


@given(st.sampled_from(["bed_WGS84_grid.json", "20xx_Antarctica_DC8_THW.json"]), edits())
@many
def test_no_edit_of_a_pipeline_ends_in_a_traceback(root, name, edit):
    path = root / "highres" / name
    told_after(edit, path, lambda: validation.check(path))


@given(st.sampled_from(["catalog", "highres", "misc"]), edits())
@many
def test_no_edit_of_a_catalog_ends_in_a_traceback(root, name, edit):
    path = root / "catalog" / f"{name}.yml"
    told_after(edit, path, lambda: validation.check(path))


@given(
    st.sampled_from(
        ["points.yml", "raw_bedmap.yml", "grid.yml", "registry.schema.json", "table.schema.json"]
    ),
    edits(),
)
@many
def test_no_edit_of_a_schema_ends_in_a_traceback(root, name, edit):
    path = root / "validation" / name
    told_after(edit, path, lambda: validation.check(path))


@given(st.sampled_from(["data_list.yml", "highres", "catalog", "validation"]), edits())
@a_few
def test_no_edit_of_a_repository_ends_in_a_traceback(root, place, edit):
    path = root / place
    path = path if path.is_file() else sorted(path.glob("*[nl]"))[0]
    told_after(edit, path, lambda: validation.check(root=root))
