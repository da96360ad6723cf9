"""What contributors are told to do and what GitHub does for them: forms, workflows, commands."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from deepbedmap.cli.running import app

ROOT = Path(__file__).resolve().parents[1]
GITHUB = ROOT / ".github"
FORMS = sorted({*GITHUB.glob("ISSUE_TEMPLATE/*.yml")} - {GITHUB / "ISSUE_TEMPLATE" / "config.yml"})
WORKFLOWS = sorted(GITHUB.glob("workflows/*.yml"))
TOLD = [*WORKFLOWS, ROOT / "CONTRIBUTING.md", GITHUB / "pull_request_template.md", *FORMS]


def read(path: Path) -> dict[str, Any]:
    """All values as text, and `on` too, which YAML 1.1 takes for true."""
    return yaml.load(path.read_text(), Loader=yaml.BaseLoader)  # noqa: S506  (a safe one)


def steps(workflow: Path) -> list[dict[str, object]]:
    jobs = read(workflow)["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


def runs(workflow: Path) -> str:
    return "\n".join(str(step.get("run", "")) for step in steps(workflow))


@pytest.mark.parametrize("path", TOLD, ids=lambda path: path.name)
def test_every_command_and_flag_that_is_told_of_is_there(path):
    text = runs(path) if path in WORKFLOWS else path.read_text()
    text = text.replace("\\\n", " ")
    commands = typer.main.get_command(app).commands
    for line in re.findall(r"(?m)(?:^|[`/ ])deepbedmap ([^`\n#|&]+)", text):
        words = line.split()
        if words[0] == "--version":
            continue
        command = commands[words[0]]
        if hasattr(command, "commands"):
            command = command.commands[words[1]]
        known = {
            flag for option in command.params for flag in (*option.opts, *option.secondary_opts)
        }
        assert {word for word in words if word.startswith("--")} <= known


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_target_module_and_test_file_of_a_workflow_is_there(path):
    text = runs(path)
    targets = re.findall(r"(?m)^([a-z-]+)[ a-z-]*:", (ROOT / "Makefile").read_text())
    assert {*re.findall(r"\bmake ([a-z]+)", text)} <= {*targets}
    for module in re.findall(r"-m (deepbedmap[\w.]*)", text):
        assert importlib.util.find_spec(module)
    for name in re.findall(r"tests/[\w/]+\.py", text):
        assert (ROOT / name).is_file()


def test_every_change_is_tested_and_validated_on_every_python():
    path = GITHUB / "workflows" / "tests.yml"
    workflow, lines = read(path), runs(path).splitlines()
    assert {"push", "pull_request"} == {*workflow["on"]}
    assert workflow["jobs"]["tests"]["strategy"]["matrix"]["python"] == [
        "3.11",
        "3.12",
        "3.13",
        "3.14",
    ]
    assert ".venv/bin/deepbedmap validate" in lines
    assert ".venv/bin/deepbedmap catalog check" in lines
    assert any("unshare --net" in line and "make test" in line for line in lines)


def test_catalogs_are_tested_with_the_oldest_and_the_newest_intake():
    jobs = read(GITHUB / "workflows" / "tests.yml")["jobs"]
    assert jobs["intake"]["strategy"]["matrix"]["intake"] == ["==2.0.9", ">=2.0.9"]


def test_the_link_check_breaks_no_build_and_may_only_write_issues():
    workflow = read(GITHUB / "workflows" / "links.yml")
    assert workflow["permissions"] == {"contents": "read", "issues": "write"}
    assert workflow["jobs"]["links"]["continue-on-error"] == "true"
    assert {"schedule", "workflow_dispatch"} == {*workflow["on"]}


def test_the_link_check_installs_what_the_project_depends_on():
    (line,) = re.findall(
        r"pip install ((?:\w+ ?)+)$", runs(GITHUB / "workflows" / "links.yml"), re.M
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    known = {re.split(r"[^\w-]", name)[0] for name in project["dependencies"]}
    assert {*line.split()} - {"packaging"} <= known  # which the registry needs, and many bring


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_have_few_rights_an_end_and_actions_of_a_stated_version(path):
    workflow = read(path)
    assert workflow["permissions"]["contents"] == "read"
    assert all(int(job["timeout-minutes"]) <= 60 for job in workflow["jobs"].values())
    for step in steps(path):
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", str(step.get("uses", f"a/b@{0:040}")))
        # What others write (titles, branches) never becomes part of a script.
        assert not re.search(r"\$\{\{\s*(github\.event|inputs|github\.head_ref)", str(step))


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_issue_forms_have_what_github_asks_of_them(path):
    form = read(path)
    assert (
        {"name", "description", "body"}
        <= {*form}
        <= {*("name", "description", "body", "title", "labels")}
    )
    questions = [part for part in form["body"] if part["type"] != "markdown"]
    names = [question["id"] for question in questions]
    labels = [question["attributes"]["label"] for question in questions]
    assert len({*names}) == len(names)
    assert len({*labels}) == len(labels)
    for question in questions:
        assert re.fullmatch(r"[\w-]+", question["id"])
        assert question["type"] in ("input", "textarea", "dropdown", "checkboxes")
        assert (question["type"] == "dropdown") == ("options" in question["attributes"])
        assert {*question} <= {"type", "id", "attributes", "validations"}
    assert "licence" in names or path.stem != "new-survey"
