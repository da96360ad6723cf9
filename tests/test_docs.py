"""The documents: links that resolve, a short README, and floors drawn as they are held."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("", "docs", "docs/decisions", "benchmarks", "highres", "lowres", "misc", ".github")
PAGES = sorted(page for folder in FOLDERS for page in (ROOT / folder).glob("*.md"))
_CODE = re.compile(r"(?ms)^```.*?^```$|`[^`\n]+`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    text = re.sub(r"(?ms)^```.*?^```$", "", page.read_text(encoding="utf-8"))
    headings = re.findall(r"(?m)^#+ (.+)$", text)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


def broken_links(page: Path, text: str) -> list[str]:
    """Return the relative links of a page that lead nowhere."""
    broken = []
    for link in _LINK.findall(_CODE.sub("", text)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name) if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_resolve(page):
    assert broken_links(page, page.read_text(encoding="utf-8")) == []


def test_a_missing_file_or_heading_is_noticed():
    text = "[a](docs/no-such.md) [b](docs/demo.md#no-such) [c](docs/demo.md#what-the-demo-does)"
    assert broken_links(ROOT / "README.md", text) == ["docs/no-such.md", "docs/demo.md#no-such"]


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_floors_are_drawn_as_they_are_held():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = settings["tool"]["importlinter"]["contracts"]
    held = [{*re.findall(r"\w+", layer)} for layer in contract["layers"]]
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    drawn = re.findall(r"(?m)^    (?: |\d)\d  ([a-z_ ]+)$", text)
    assert [{*floor.split()} for floor in drawn] == held


def test_every_package_has_a_row_in_the_architecture():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = set(re.findall(r"(?m)^\| `([\w.]+)` \|", text))
    packages = {path.parent.name for path in (ROOT / "deepbedmap").glob("*/__init__.py")}
    assert packages <= rows


def test_files_that_documents_name_are_there():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"(?s)## Where to find things(.*?)\n## ", text)
    for row in re.findall(r"(?m)^\| [^|`]+ \| (.+) \|$", table):
        folder = Path()
        for name in re.findall(r"`([\w/.]+\.py)`", row):
            folder = Path(name).parent if "/" in name else folder
            path = ROOT / "deepbedmap" / (name if "/" in name else folder / name)
            assert path.is_file(), name


def test_text_is_no_word_of_this_machine():
    done = subprocess.run(
        ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    for name in done.stdout.split():
        assert "/work/" not in (ROOT / name).read_text(encoding="utf-8"), name
