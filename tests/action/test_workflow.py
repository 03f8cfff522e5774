"""The quick start of docs/github.md, run step by step with the entry point in place of the image;
tests/action/test_image.py runs it in the container."""

from __future__ import annotations

import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from mconv.api import schema
from tests.action import workflow
from tests.action.server import GitHub, serve
from tests.action.test_entrypoint import MANIFEST, run
from tests.conftest import ROOT
from tests.models import write_linear


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    write_linear(folder / "linear.onnx")
    (folder / "models.yml").write_text(MANIFEST)
    return folder


def test_the_quick_start_comments_and_leaves_what_it_caches_and_uploads(workspace: Path) -> None:
    quick = workflow.read_example("docs/github.md")
    assert quick["permissions"] == {}
    assert "pull_request" in quick[True]  # YAML 1.1 reads `on` so
    assert quick["concurrency"]["cancel-in-progress"] is True
    (job,) = quick["jobs"].values()
    assert job["permissions"] == {"contents": "read", "pull-requests": "write"}
    steps = workflow.find_steps(job)
    assert list(steps) == [
        "actions/checkout",
        "actions/cache",
        "mconv",
        "actions/upload-artifact",
    ]
    assert steps["actions/checkout"]["with"]["persist-credentials"] is False
    context = workflow.Context(**{"runner.temp": str(workspace.parent / "runner_temp")})
    inputs = workflow.make_inputs(steps["mconv"], context, ROOT / "action.yml")
    upload = steps["actions/upload-artifact"]
    with serve(GitHub(read_only=not workflow.can_comment(job))) as state:
        done, outputs, summary = run(workspace, state, **inputs)
        assert done.returncode == 0, done.stderr
        assert len(state.comments) == 1
        assert "all 1 variant passed" in summary
        context.outputs["mconv"] = outputs
        assert context.holds(upload["if"])
        assert (workspace / context.fill(upload["with"]["path"]) / "results.json").is_file()
        store, environments = context.fill(steps["actions/cache"]["with"]["path"]).split()
        assert list(Path(store).iterdir())
        assert not (workspace / ".mconv").exists()
        # what the tools need lies beside mconv here; elsewhere it is where the cache looks
        assert environments == str(workspace.parent / "runner_temp/mconv-environments")
        (workspace / "models.yml").write_text("version: 1\nmodels: 3\n")
        done, outputs, _ = run(workspace, state, **inputs)
        assert done.returncode == 2
        context.outputs["mconv"] = outputs
        assert not context.holds(upload["if"])  # there is nothing to upload, which would fail


def test_a_fork_gets_the_same_verdict_without_a_comment(workspace: Path) -> None:
    """A fork's token can read at most, whatever the workflow asks for."""
    (job,) = workflow.read_example("docs/github.md")["jobs"].values()
    step = workflow.find_steps(job)["mconv"]
    inputs = workflow.make_inputs(step, workflow.Context(), ROOT / "action.yml")
    with serve(GitHub(read_only=True)) as state:
        done, outputs, summary = run(workspace, state, **inputs)
        assert done.returncode == 0, done.stderr
        assert state.comments == []
        assert "all 1 variant passed" in summary
        assert outputs["conclusion"] == "success"


@pytest.mark.parametrize("page", ["docs/github.md", "README.md"])
def test_manifests_beside_the_workflows_pass_their_schema(page: str) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    manifests = [block for block in blocks if "version: 1" in block]
    assert manifests
    for text in manifests:
        jsonschema.validate(yaml.safe_load(text), schema("models"))


def test_what_the_interpreter_does_not_know_is_an_error() -> None:
    context = workflow.Context()
    with pytest.raises(KeyError):
        context.fill("${{ secrets.other }}")
    with pytest.raises(AssertionError, match="another form"):
        context.holds("failure()")
    with pytest.raises(AssertionError, match="no inputs"):
        workflow.make_inputs({"with": {"tokne": "x"}}, context, ROOT / "action.yml")
