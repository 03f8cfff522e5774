"""entrypoint.py as the runner starts it: its environment, its files, its exit code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mconv.github import publish
from tests.action.server import GitHub, serve
from tests.models import write_linear

ROOT = Path(__file__).parents[2]
MANIFEST = """version: 1
models:
  - name: linear
    source: linear.onnx
    targets: [onnx]
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    write_linear(folder / "linear.onnx")
    (folder / "models.yml").write_text(MANIFEST)
    return folder


def run(workspace: Path, state: GitHub, **inputs: str) -> tuple[subprocess.CompletedProcess[str], dict[str, str], str]:
    """Start the entry point; (process, outputs, summary)."""
    files = workspace.parent
    (files / "output").write_text("")
    (files / "summary").write_text("")
    (files / "event.json").write_text(json.dumps({"pull_request": {"number": 7, "head": {"sha": "a" * 40}}}))
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(files),
        "GITHUB_ACTIONS": "true",
        "GITHUB_REPOSITORY": "octo/models",
        "GITHUB_SHA": "b" * 40,
        "GITHUB_API_URL": state.url,
        "GITHUB_EVENT_NAME": "pull_request",
        "GITHUB_EVENT_PATH": str(files / "event.json"),
        "GITHUB_OUTPUT": str(files / "output"),
        "GITHUB_STEP_SUMMARY": str(files / "summary"),
        "GITHUB_RUN_ID": "11",
        "INPUT_GITHUB-TOKEN": "ghs_secret",
        "INPUT_MANIFEST": "models.yml",
        "INPUT_MEASURE": "false",
        **{f"INPUT_{name.upper().replace('_', '-')}": value for name, value in inputs.items()},
    }
    done = subprocess.run(
        [sys.executable, str(ROOT / "entrypoint.py")], cwd=workspace, env=environment, capture_output=True, text=True, timeout=300
    )
    written = re.findall(r"^(\S+)<<(\S+)\n(.*?)\n\2$", (files / "output").read_text(), re.M | re.S)
    return done, {name: value for name, _, value in written}, (files / "summary").read_text()


def test_first_run_creates_the_comment_and_second_updates_it(workspace: Path) -> None:
    with serve(GitHub()) as state:
        done, outputs, summary = run(workspace, state)
        assert done.returncode == 0, done.stderr
        assert outputs["conclusion"] == "success"
        assert (outputs["passed"], outputs["failed"], outputs["errors"]) == ("1", "0", "0")
        assert json.loads((workspace / outputs["results"]).read_text())["summary"]["passed"] == 1
        assert "all 1 variant passed" in summary
        assert len(state.comments) == 1
        first = state.comments[0]["body"]
        assert first.startswith(publish.marker("default"))
        assert "linear" in first
        (workspace / "models.yml").write_text(MANIFEST.replace("[onnx]", "[onnx, 'onnx:fp16']"))
        done, outputs, _ = run(workspace, state)
        assert done.returncode == 0, done.stderr
        assert outputs["passed"] == "2"
        assert len(state.comments) == 1
        assert "fp16" in state.comments[0]["body"]
        assert "ghs_secret" not in done.stdout + done.stderr


def test_read_only_token_falls_back_to_the_summary_and_the_models_decide(workspace: Path) -> None:
    with serve(GitHub(read_only=True)) as state:
        done, outputs, summary = run(workspace, state)
        assert done.returncode == 0, done.stderr
        assert "may not write" in summary
        assert "all 1 variant passed" in summary
        assert state.comments == []
        (workspace / "models.yml").write_text(MANIFEST + "    limits: {max_size: 10B}\n")
        done, outputs, summary = run(workspace, state)
        assert done.returncode == 1
        assert outputs["conclusion"] == "failure"
        assert outputs["failed"] == "1"
        assert re.search(r"^::error .*file=models.yml,line=5", done.stdout, re.M)


def test_a_manifest_error_fails_with_2_and_publishes_nothing_old(workspace: Path) -> None:
    with serve(GitHub()) as state:
        run(workspace, state)
        (workspace / "models.yml").write_text("version: 1\nmodels: 3\n")
        done, outputs, _ = run(workspace, state)
        assert done.returncode == 2
        assert "models.yml:2:9" in done.stderr
        assert outputs["results"] == ""
        assert outputs["conclusion"] == "failure"


def test_a_factory_cannot_see_the_token_and_its_output_is_not_printed(workspace: Path) -> None:
    (workspace / "spy.py").write_text(
        "import os\nfrom pathlib import Path\n"
        "def build():\n"
        "    print('::set-output name=conclusion::hacked')\n    print('##[error]hacked')\n"
        "    found = dict(os.environ)\n"
        "    try:\n        found['parent'] = Path(f'/proc/{os.getppid()}/environ').read_text()\n"
        "    except OSError as problem:\n        found['parent'] = 'unreadable'\n"
        "    raise RuntimeError('seen ' + ' '.join(f'{k}={v}' for k, v in found.items()))\n"
    )
    import torch

    torch.save({}, workspace / "spy.pt")
    (workspace / "models.yml").write_text(
        "version: 1\nmodels:\n  - name: spy\n    source: {path: spy.pt, factory: 'spy:build'}\n"
        "    inputs: {x: {shape: [1]}}\n    targets: [onnx]\n"
    )
    with serve(GitHub()) as state:
        done, outputs, _ = run(workspace, state, comment="false")
    assert done.returncode == 1
    assert outputs["conclusion"] == "failure"
    text = (workspace / "mconv-out/results.json").read_text() + done.stdout + done.stderr
    assert "seen" in text
    assert "ghs_secret" not in text
    assert not re.search(r"^::set-output", done.stdout + done.stderr, re.M)
    assert "##[error]" not in done.stdout + done.stderr
