"""comment/action.yml, the trusted half: its steps as the runner starts them, against the API
server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from mconv.values import to_json
from tests.action import workflow
from tests.action.server import GitHub, pull, serve
from tests.conftest import ROOT
from tests.unit.reports.factory import report

ACTION = ROOT / "comment/action.yml"
HEAD = "a" * 40
RUN = {
    "workflow_run": {
        "id": 11,
        "head_sha": HEAD,
        "head_branch": "change",
        "head_repository": {"full_name": "fork/models"},
        "html_url": "https://github.com/octo/models/actions/runs/11",
    }
}


def read_action() -> dict[str, Any]:
    return yaml.safe_load(ACTION.read_text())


def list_scripts() -> list[dict[str, Any]]:
    """The steps that are scripts, in order."""
    return [step for step in read_action()["runs"]["steps"] if "run" in step]


class Runner:
    """A runner that starts the action's scripts in a workspace."""

    def __init__(self, folder: Path, state: GitHub) -> None:
        self.workspace = folder / "workspace"
        self.temporary = folder / "temp"
        for path in (self.workspace, self.temporary):
            path.mkdir(parents=True)
        for name in ("output", "summary"):
            (folder / name).touch()
        (folder / "event.json").write_text(json.dumps(RUN))
        self.folder = folder
        self.base = {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "HOME": str(folder),
            "GITHUB_ACTIONS": "true",
            "GITHUB_ACTION_PATH": str(ACTION.parent),
            "GITHUB_REPOSITORY": "octo/models",
            "GITHUB_SHA": "b" * 40,
            "GITHUB_API_URL": state.url,
            "GITHUB_EVENT_NAME": "workflow_run",
            "GITHUB_EVENT_PATH": str(folder / "event.json"),
            "GITHUB_WORKSPACE": str(self.workspace),
            "GITHUB_OUTPUT": str(folder / "output"),
            "GITHUB_STEP_SUMMARY": str(folder / "summary"),
            "GITHUB_RUN_ID": "12",
            "RUNNER_TEMP": str(self.temporary),
        }

    def start(
        self, step: Mapping[str, Any], inputs: Mapping[str, str] | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Start a script as the runner does `shell: bash`."""
        assert step["shell"] == "bash"
        values = {f"inputs.{name}": value for name, value in (inputs or {}).items()}
        context = workflow.Context(**values)
        given = {name: context.fill(value) for name, value in step.get("env", {}).items()}
        script = self.folder / "script.sh"
        script.write_text(step["run"])
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)],
            cwd=self.workspace,
            env={**self.base, **variables, **given},
            capture_output=True,
            text=True,
            timeout=600,
        )

    def outputs(self) -> dict[str, str]:
        text = (self.folder / "output").read_text()
        written = re.findall(r"^(\S+)<<(\S+)\n(.*?)\n\2$", text, re.M | re.S)
        return {name: value for name, _, value in written}


def make_inputs(**given: str) -> dict[str, str]:
    step = {"with": {name.replace("_", "-"): value for name, value in given.items()}}
    return workflow.make_inputs(step, workflow.Context(), ACTION)


def make_state() -> GitHub:
    return GitHub(pulls=[pull(7, base="octo/models", head="fork/models", sha=HEAD)])


def use_this_python(runner: Runner) -> None:
    """Have the environment that the first script makes be this one."""
    # by bash: other shells drop variables with a dash in their names
    binaries = runner.temporary / "mconv-comment/bin"
    binaries.mkdir(parents=True)
    (binaries / "python").write_text(f'#!/bin/bash\nexec {sys.executable} "$@"\n')
    (binaries / "python").chmod(0o755)


def test_the_comment_is_made_with_the_token_of_one_step(tmp_path: Path) -> None:
    _, publish = list_scripts()
    with serve(make_state()) as state:
        runner = Runner(tmp_path, state)
        use_this_python(runner)
        results = runner.temporary / "results.json"
        results.write_text(to_json(report(passed=2)))
        done = runner.start(publish, make_inputs(results=str(results)))
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(state.comments) == 1, done.stdout + done.stderr
        outputs = runner.outputs()
        assert (outputs["passed"], outputs["conclusion"]) == ("2", "success")
        assert workflow.TOKEN not in done.stdout + done.stderr
        assert set(read_action()["outputs"]) <= set(outputs)
        # the models had their verdict in the run that converted them
        results.write_text(to_json(report(passed=1, failed=1)))
        done = runner.start(publish, make_inputs(results=str(results)))
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(state.comments) == 1


def test_text_of_an_input_is_no_part_of_a_script(tmp_path: Path) -> None:
    _, publish = list_scripts()
    with serve(make_state()) as state:
        runner = Runner(tmp_path, state)
        use_this_python(runner)
        results = runner.workspace / "results.json"
        results.write_text(to_json(report(passed=1)))
        hostile = '"; touch owned; echo "$(touch owned)`touch owned`'
        inputs = make_inputs(results="results.json", comment_id=hostile, comment_author=hostile)
        runner.start(publish, inputs)
        assert not (runner.workspace / "owned").exists()


def test_results_that_are_none_fail(tmp_path: Path) -> None:
    _, publish = list_scripts()
    with serve(make_state()) as state:
        runner = Runner(tmp_path, state)
        use_this_python(runner)
        (runner.workspace / "results.json").write_text("{}")
        done = runner.start(publish, make_inputs(results="results.json"))
        assert done.returncode == 2
        assert "is not a results.json" in done.stderr
        assert state.comments == []


def test_no_results_convert_nothing(tmp_path: Path) -> None:
    """Without the input the entry point would run the manifest, which is not trusted."""
    _, publish = list_scripts()
    with serve(make_state()) as state:
        runner = Runner(tmp_path, state)
        use_this_python(runner)
        (runner.workspace / "models.yml").write_text("version: 1\nmodels: 3\n")
        for nothing in ("", "   "):
            done = runner.start(publish, make_inputs(results=nothing))
            assert done.returncode == 2
            assert "names no file" in done.stdout
            assert "models.yml" not in done.stdout + done.stderr


def test_the_token_and_expressions_stand_in_one_environment() -> None:
    install, publish = list_scripts()
    assert "env" not in install
    tokens = [name for name, value in publish["env"].items() if "token" in value]
    assert tokens == ["INPUT_GITHUB-TOKEN"]
    for step in (install, publish):
        assert "${{" not in step["run"]


def test_inputs_are_those_of_the_whole_action() -> None:
    own, whole = read_action(), yaml.safe_load((ROOT / "action.yml").read_text())
    for name, about in own["inputs"].items():
        if name != "results":
            assert about["default"] == whole["inputs"][name]["default"], name
    assert set(own["outputs"]) <= set(whole["outputs"])
    _, publish = list_scripts()
    assert {name.removeprefix("INPUT_").lower() for name in publish["env"]} == set(own["inputs"])


@pytest.mark.full
def test_the_environment_is_made_of_mconv_alone(tmp_path: Path) -> None:
    install, publish = list_scripts()
    with serve(make_state()) as state:
        runner = Runner(tmp_path, state)
        settings = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        done = runner.start(install, **settings)
        assert done.returncode == 0, done.stdout + done.stderr
        python = runner.temporary / "mconv-comment/bin/python"
        listed = subprocess.run(
            [str(python), "-m", "pip", "list"], capture_output=True, text=True, check=True
        ).stdout
        assert "torch" not in listed
        results = runner.workspace / "results.json"
        results.write_text(to_json(report(passed=2)))
        done = runner.start(publish, make_inputs(results="results.json"))
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(state.comments) == 1
