"""The report of a run: its models, tools, commit and summary."""

from __future__ import annotations

import datetime
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from mconv.answers import ReferenceAnswer
from mconv.planning.outcome import Outcome
from mconv.results.report import build_report
from mconv.store.local import Entry
from mconv.values import OWN, Interpreter, ModelResult, Report
from tests.unit.results.test_variant import INFO, outcome_of, plan, plan_of


def build(root: Path, outcome: Outcome | None = None) -> Report:
    variant = plan_of()
    variant = replace(variant, steps={**variant.steps, "reference": "m-reference"})
    outcome = outcome or outcome_of("int4")
    outcome.entries["m-reference"] = Entry(
        key="m-reference", label="reference", answer=ReferenceAnswer(info=INFO, count=3)
    )
    made: Any = plan(variant)
    for key, step in made.steps.items():
        step.tools = {"zlib": "1", key: "2"}
        step.interpreter = OWN
    foreign = made.steps["m-reference"]
    foreign.tools, foreign.interpreter = {"zlib": "9"}, Interpreter(name="training", python="/p")
    model = ModelResult(name="m", format="onnx", path="m.onnx", digest="d", size_bytes=2000)
    whole = SimpleNamespace(
        steps=made.steps,
        models={"m": model},
        environments={"training": {"python": "3.12.1", "zlib": "9"}},
        variants=(variant,),
        manifest=SimpleNamespace(file="models.yml", root=str(root)),
    )
    return build_report(whole, outcome, seconds=1.23456, measured=True)  # type: ignore[arg-type]


def test_a_report_says_what_of_which_model_with_which_tools(tmp_path: Path) -> None:
    report = build(tmp_path)
    assert (report.manifest, report.seconds) == ("models.yml", 1.235)
    assert (report.summary.passed, report.summary.conclusion) == (1, "success")
    (model,) = report.models
    assert (model.info, model.exporter) == (INFO, "dynamo")
    assert list(report.tools) == sorted(report.tools)
    assert report.tools.keys() >= {"zlib", "int4-export"}
    assert report.tools["zlib"] == "1", "of mconv's own environment, not of the model's"
    (environment,) = report.environments
    assert (environment.name, environment.packages["zlib"]) == ("training", "9")
    created = datetime.datetime.fromisoformat(report.created)
    assert abs(datetime.datetime.now(datetime.UTC) - created) < datetime.timedelta(minutes=1)
    assert report.machine.cores >= 1


def test_a_model_whose_export_failed_has_no_exporter(tmp_path: Path) -> None:
    report = build(tmp_path, outcome_of("int4", failed="export"))
    assert report.models[0].exporter is None
    assert (report.summary.error, report.summary.conclusion) == (1, "failure")


def test_the_commit_is_the_runner_s_or_git_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert build(tmp_path).commit is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    assert build(tmp_path).commit is None
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "m"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert build(tmp_path).commit == head.stdout.strip()
    monkeypatch.setenv("GITHUB_SHA", "f" * 40)
    assert build(tmp_path).commit == "f" * 40
    monkeypatch.delenv("GITHUB_SHA")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert build(tmp_path).commit is None
