"""Workflow commands, outputs and the summary."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mconv.errors import ManifestError
from mconv.github import workflow
from mconv.github.marker import Stamp
from mconv.values import Place
from tests.unit.reports.factory import report


def test_escaping() -> None:
    said = workflow.format_annotation(
        "error", "50% of\r\nit: a, b", title="a:b,c", place=Place(file="m,x.yml", line=3, column=2)
    )
    assert said == "::error title=a%3Ab%2Cc,file=m%2Cx.yml,line=3,col=2::50%25 of%0D%0Ait: a, b"


def test_at_most_ten_annotations_and_the_rest_is_counted() -> None:
    commands = workflow.annotate(report(passed=3, failed=25))
    assert len(commands) == 10
    assert "16 more variants" in commands[-1]
    assert all("line=12" in c for c in commands[:9])
    assert len(workflow.annotate(report(failed=10))) == 10


def test_environment_of_a_pull_request(tmp_path: Path) -> None:
    event = tmp_path / "event.json"
    event.write_text(json.dumps({"pull_request": {"number": 12, "head": {"sha": "c" * 40}}}))
    variables = {
        "GITHUB_EVENT_PATH": str(event),
        "GITHUB_REPOSITORY": "o/r",
        "GITHUB_RUN_ID": "5",
        "GITHUB_SHA": "d" * 40,
    }
    found = workflow.Environment.read(
        {**variables, "GITHUB_API_URL": "https://ghe.example/api/v3/"}
    )
    assert (found.pull_request, found.head_sha) == (12, "c" * 40)
    assert found.api_url == "https://ghe.example/api/v3"
    assert found.run_url == "https://github.com/o/r/actions/runs/5"
    event.write_text("[]")
    assert workflow.Environment.read(variables).pull_request is None
    assert workflow.Environment.read({}).pull_request is None


def test_outputs_cannot_be_forged_by_a_value(tmp_path: Path) -> None:
    file = tmp_path / "output"
    file.touch()
    environment = workflow.Environment(output_file=str(file))
    workflow.set_outputs(environment, {"a": "1\nconclusion<<X\nsuccess\nX", "b": "2"})
    lines = file.read_text().splitlines()
    first = lines[0].partition("<<")[2]
    assert lines[5] == first
    assert lines[6].startswith("b<<mconv_")
    assert lines[6].partition("<<")[2] != first


def test_a_summary_too_large_is_not_written(tmp_path: Path) -> None:
    environment = workflow.Environment(summary_file=str(tmp_path / "summary"))
    assert workflow.add_summary(environment, "x" * 900_000)
    assert not workflow.add_summary(environment, "x" * 200_000)
    assert workflow.add_summary(environment, "y")
    assert not workflow.add_summary(workflow.Environment(), "y")


def test_errors_before_a_report_are_annotations_at_their_places() -> None:
    problems = [
        ManifestError(
            "unknown key 'nme'",
            hint="did you mean name?",
            place=Place(file="m.yml", line=3, column=5),
        )
    ] * 12
    lines = workflow.annotate_errors(problems, prefix="sub/")
    assert (
        lines[0]
        == "::error title=mconv,file=sub/m.yml,line=3,col=5::unknown key 'nme'%0Ahint: did you "
        "mean name?"
    )
    assert len(lines) == 10
    assert "3 more errors" in lines[-1]


def test_text_of_others_cannot_begin_a_command() -> None:
    said = workflow.neutralise("a\r::set-output name=x::y\n::error::z ##[error]w")
    assert "::" not in said
    assert "##[" not in said
    assert "\r" not in said


@pytest.mark.parametrize(("folder", "prefix"), [(".", ""), ("a/b", "a/b/"), ("..", "")])
def test_places_are_those_of_the_workspace(
    folder: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = tmp_path / "workspace"
    (workspace / "a/b").mkdir(parents=True)
    monkeypatch.chdir(workspace / folder)
    environment = workflow.Environment.read({"GITHUB_WORKSPACE": str(workspace)})
    assert environment.prefix == prefix
    assert workflow.locate_file(Place(file="../m.yml"), "a/b/") == "a/m.yml"
    assert workflow.locate_file(Place(file="/elsewhere/m.yml"), "a/b/") == "/elsewhere/m.yml"


def test_only_a_workflow_run_is_about_another_run(tmp_path: Path) -> None:
    file = tmp_path / "event.json"
    file.write_text(
        json.dumps(
            {
                "workflow_run": {
                    "head_sha": "c" * 40,
                    "html_url": "https://github.com/o/r/actions/runs/3",
                }
            }
        )
    )
    variables = {
        "GITHUB_EVENT_PATH": str(file),
        "GITHUB_REPOSITORY": "o/r",
        "GITHUB_RUN_ID": "5",
        "GITHUB_RUN_ATTEMPT": "2",
    }
    found = workflow.Environment.read({**variables, "GITHUB_EVENT_NAME": "workflow_run"})
    assert found.other_run is not None
    assert found.run_url.endswith("/runs/3")
    assert found.run_id == "5.2"
    assert workflow.Environment.read({**variables, "GITHUB_EVENT_NAME": "push"}).other_run is None


def test_the_stamp_is_that_of_the_run_that_converted(tmp_path: Path) -> None:
    file = tmp_path / "event.json"
    sha = "c" * 40
    variables = {"GITHUB_EVENT_PATH": str(file), "GITHUB_RUN_ID": "5", "GITHUB_SHA": "d" * 40}

    def read(event: object, name: str, **more: str) -> Stamp | None:
        file.write_text(json.dumps(event))
        named = {**variables, "GITHUB_EVENT_NAME": name, **more}
        return workflow.Environment.read(named).stamp

    pull = {"pull_request": {"number": 7, "head": {"sha": sha}}}
    assert read(pull, "pull_request") == Stamp(run=5, sha=sha)
    assert read(pull, "pull_request", GITHUB_RUN_ATTEMPT="3") == Stamp(run=5, attempt=3, sha=sha)
    # the workflow alone knows what a comment's run has checked out
    assert read({"issue": {"number": 7}}, "issue_comment") == Stamp(run=5)
    other = {"id": 4, "run_attempt": 2, "head_sha": sha}
    found = read({"workflow_run": other}, "workflow_run")
    assert found == Stamp(run=4, attempt=2, sha=sha)
    assert read({"workflow_run": {"head_sha": sha}}, "workflow_run") is None
    assert read(pull, "pull_request", GITHUB_RUN_ID="") is None
