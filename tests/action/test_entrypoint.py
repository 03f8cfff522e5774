"""entrypoint.py as the runner starts it: its environment, its files, its exit code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import entrypoint
from mconv.api import read_results as read
from mconv.errors import UsageError
from mconv.github import publish
from mconv.values import to_json
from tests.action.server import GitHub, pull, serve
from tests.models import write_linear
from tests.unit.reports.factory import report

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


PULL = {"pull_request": {"number": 7, "head": {"sha": "a" * 40}}}


def run(
    workspace: Path,
    state: GitHub,
    event: str = "pull_request",
    payload: object = PULL,
    **inputs: str,
) -> tuple[subprocess.CompletedProcess[str], dict[str, str], str]:
    """Start the entry point; (process, outputs, summary)."""
    files = workspace.parent
    (files / "output").write_text("")
    (files / "summary").write_text("")
    (files / "event.json").write_text(json.dumps(payload))
    (files / "runner_temp").mkdir(exist_ok=True)
    environment = {
        "RUNNER_TEMP": str(files / "runner_temp"),
        "PATH": os.environ["PATH"],
        "HOME": str(files),
        "GITHUB_ACTIONS": "true",
        "GITHUB_REPOSITORY": "octo/models",
        "GITHUB_SHA": "b" * 40,
        "GITHUB_API_URL": state.url,
        "GITHUB_EVENT_NAME": event,
        "GITHUB_WORKSPACE": str(workspace),
        "ACTIONS_RUNTIME_TOKEN": "runtime_secret",
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
        [sys.executable, str(ROOT / "entrypoint.py")],
        cwd=workspace,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
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
        assert first.startswith(publish.make_marker("default"))
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
        assert re.search(r"^::error title=mconv,file=models.yml,line=2,col=9::", done.stderr, re.M)
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
    assert "runtime_secret" not in text
    assert not re.search(r"^::set-output", done.stdout + done.stderr, re.M)
    assert "##[error]" not in done.stdout + done.stderr


def test_a_manifest_cannot_speak_to_the_runner(workspace: Path) -> None:
    (workspace / "models.yml").write_text(
        'version: 1\nmodels: []\n"x\\n::add-mask::y\\r##[error]z": 1\n'
    )
    with serve(GitHub()) as state:
        done, _, _ = run(workspace, state)
    assert done.returncode == 2
    said = done.stdout + done.stderr
    assert "add-mask" in said
    assert not re.search(r"^::add-mask", said, re.M)
    assert not any(
        line.startswith("::") and not line.startswith("::error ")
        for line in re.split(r"[\r\n]", said)
    )
    assert not any("##[" in line for line in said.splitlines() if not line.startswith("::error "))


def test_paths_with_a_working_directory_are_those_of_the_workspace(workspace: Path) -> None:
    folder = workspace / "sub"
    folder.mkdir()
    for name in ("linear.onnx", "models.yml"):
        (workspace / name).rename(folder / name)
    with (folder / "models.yml").open("a") as file:
        file.write("    limits: {max_size: 10B}\n")
    with serve(GitHub()) as state:
        done, outputs, _ = run(workspace, state, working_directory="sub")
        assert done.returncode == 1, done.stderr
        assert (outputs["results"], outputs["artifacts"]) == (
            "sub/mconv-out/results.json",
            "sub/mconv-out",
        )
        assert re.search(r"^::error .*file=sub/models.yml,line=5", done.stdout, re.M)
        done, outputs, _ = run(workspace, state, working_directory="none")
        assert done.returncode == 2
        assert re.search(r"^::error .*working-directory none: No such file", done.stdout, re.M)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"manifest": "--help"}, "manifest is a path, not '--help'"),
        ({"measure": "maybe"}, "measure is true or false, not 'maybe'"),
        ({"only": "linear --out=/elsewhere"}, "only is globs of model names"),
        ({"release": "--checks"}, "release is auto, false or the name of a tag"),
        ({"out": "."}, "out is a folder below the workspace, not '.'"),
        ({"out": "a\nresults=evil"}, "out holds a line break"),
        ({"out": ".git/mconv"}, "out lies in a repository's .git"),
        ({"working_directory": "../.."}, "working-directory is a folder in the workspace"),
        ({"manifest": "../models.yml"}, "manifest is a file in the workspace"),
        ({"plan": "2", "jobs": "two"}, "jobs is a whole number from 1 to 1024"),
    ],
)
def test_a_wrong_input_is_an_annotation_and_nothing_runs(
    workspace: Path, inputs: dict[str, str], message: str
) -> None:
    (workspace.parent / "models.yml").write_text(MANIFEST)
    before = sorted(workspace.rglob("*"))
    state = GitHub(url="http://127.0.0.1:9")  # nobody answers
    done, outputs, summary = run(workspace, state, **inputs)
    assert done.returncode == 2, done.stderr
    assert f"error: {message}" in done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"::error title=mconv::{message}")
    assert (outputs["conclusion"], outputs["results"], summary) == ("failure", "", "")
    assert sorted(workspace.rglob("*")) == before


def test_a_link_in_place_of_out_is_refused_before_anything_runs(workspace: Path) -> None:
    (workspace / ".git").mkdir()
    os.symlink(".git", workspace / "mconv-out")
    done, outputs, _ = run(workspace, GitHub(url="http://127.0.0.1:9"))
    assert done.returncode == 2
    assert "out is 'mconv-out', but mconv-out is a link" in done.stderr
    assert list((workspace / ".git").iterdir()) == []
    assert outputs["conclusion"] == "failure"


def trusted(state: GitHub) -> dict[str, object]:
    """The event of the run that converted, of a fork's pull request."""
    sha = "e" * 40
    state.pulls = [pull(7, base="octo/models", head="eve/models", sha=sha)]
    url = "https://github.com/octo/models/actions/runs/3"
    head = {
        "head_sha": sha,
        "head_branch": "patch-1",
        "html_url": url,
        "head_repository": {"full_name": "eve/models"},
    }
    return {"workflow_run": head}


def test_the_trusted_half_publishes_a_report_and_runs_nothing(workspace: Path) -> None:
    shown = report(passed=1, failed=1)
    (workspace / "given.json").write_text(to_json(shown))
    with serve(GitHub()) as state:
        done, outputs, summary = run(
            workspace, state, "workflow_run", trusted(state), results="given.json", checks="true"
        )
        assert done.returncode == 0, done.stderr
        assert (outputs["passed"], outputs["failed"], outputs["conclusion"]) == (
            "1",
            "1",
            "failure",
        )
        assert outputs["results"] == "given.json"
        assert "bad-0" in state.comments[0]["body"]
        assert "actions/runs/3" in state.comments[0]["body"]
        assert ("POST", "/repos/octo/models/issues/7/comments") in state.requests
        assert state.checks[0]["head_sha"] == "e" * 40
        assert "bad-0" in summary
        # they would be placed in the default branch
        assert "::error" not in done.stdout + done.stderr
    assert not (workspace / "mconv-out").exists()


def test_the_trusted_half_writes_nowhere_when_no_pull_request_matches(workspace: Path) -> None:
    (workspace / "given.json").write_text(to_json(report()))
    with serve(GitHub()) as state:
        event = trusted(state)
        state.pulls[0]["head"]["sha"] = "f" * 40
        done, _, summary = run(
            workspace, state, "workflow_run", event, results="given.json", checks="true"
        )
        assert done.returncode == 0, done.stderr
        assert summary.count("no open pull request") == 2
        assert (state.comments, state.checks) == ([], [])
        assert {method for method, _ in state.requests} == {"GET"}


@pytest.mark.parametrize("text", ["", "[1]", '{"schema": 1, "pull_request": 9}', '{"schema": 2}'])
def test_the_trusted_half_refuses_what_is_no_report(text: str, workspace: Path) -> None:
    (workspace / "given.json").write_text(text)
    with serve(GitHub()) as state:
        done, outputs, _ = run(
            workspace, state, "workflow_run", trusted(state), results="given.json"
        )
        assert done.returncode == 2
        assert "not a results.json" in done.stderr
        assert outputs["conclusion"] == "failure"
        assert state.requests == []


@pytest.mark.parametrize(
    "path", ["../../etc/passwd", "/etc/passwd", "a/../../b", "a\\b", "a\nb", "a\n", ""]
)
@pytest.mark.parametrize("field", ["files", "directory"])
def test_the_trusted_half_refuses_paths_that_lead_out(
    path: str, field: str, workspace: Path
) -> None:
    told = json.loads(to_json(report()))
    if field == "files":
        told["variants"][0]["files"][0]["path"] = path
    else:
        told["variants"][0]["directory"] = path
    (workspace / "given.json").write_text(json.dumps(told))
    with pytest.raises(
        UsageError, match=rf"variants.*{'path' if field == 'files' else 'directory'}"
    ):
        read(workspace / "given.json")


def test_the_trusted_half_refuses_what_is_far_too_large(workspace: Path) -> None:
    with (workspace / "given.json").open("wb") as file:
        file.truncate(200 * 10**6)
    with serve(GitHub()) as state:
        done, outputs, _ = run(
            workspace, state, "workflow_run", trusted(state), results="given.json"
        )
        assert done.returncode == 2
        assert "is larger than 64 MB" in done.stderr
        assert outputs["conclusion"] == "failure"
        assert state.requests == []


def test_a_plan_is_an_output_and_parts_are_merged_and_published(workspace: Path) -> None:
    write_linear(workspace / "other.onnx", seed=1)
    (workspace / "models.yml").write_text(
        MANIFEST + "  - {name: other, source: other.onnx, targets: [onnx]}\n"
    )
    with serve(GitHub()) as state:
        done, outputs, _ = run(workspace, state, plan="2")
        assert done.returncode == 0, done.stderr
        shards = [entry["shard"] for entry in json.loads(outputs["matrix"])["include"]]
        assert shards == ["1/2", "2/2"]
        for index, shard in enumerate(shards):
            out = f"part{index}"
            done, outputs, _ = run(workspace, state, shard=shard, out=out, comment="false")
            assert (done.returncode, outputs["passed"], outputs["results"]) == (
                0,
                "1",
                f"{out}/results.json",
            ), done.stderr
        assert state.comments == []
        done, outputs, _ = run(workspace, state, results="part*/results.json")
        assert (done.returncode, outputs["passed"], outputs["conclusion"]) == (0, "2", "success"), (
            done.stderr
        )
        assert outputs["results"] == "mconv-out/results.json"
        assert "all 2 variants passed" in state.comments[0]["body"]
        done, outputs, _ = run(workspace, state, plan="many")
        assert done.returncode == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_files_are_given_back_and_no_link_is_followed(tmp_path: Path) -> None:
    workspace, elsewhere = tmp_path / "workspace", tmp_path / "elsewhere"
    (workspace / "out/model").mkdir(parents=True)
    (workspace / "out/model/file").write_text("x")
    elsewhere.mkdir()
    (elsewhere / "file").write_text("x")
    (workspace / "out/link").symlink_to(elsewhere)
    (workspace / "store").symlink_to(elsewhere)
    os.link(elsewhere / "file", workspace / "out/model/other-name")
    os.mkfifo(workspace / "out/model/fifo")
    os.chown(workspace, 1001, 1001)
    (workspace / "own").touch()
    folders = [workspace / name for name in ("out", "store", "absent", ".")]
    entrypoint.give_back(folders, [workspace])
    owners = {
        path.relative_to(tmp_path).as_posix(): path.lstat().st_uid for path in tmp_path.rglob("*")
    }
    assert {name for name, owner in owners.items() if owner == 1001} == {
        "workspace",
        "workspace/out",
        "workspace/out/model",
        "workspace/out/model/file",
    }


@pytest.mark.parametrize("place", [".mconv/store", "models/../store", "file:///{workspace}/store"])
def test_a_store_in_the_workspace_is_refused_before_anything_runs(
    workspace: Path, place: str
) -> None:
    with serve(GitHub()) as state:
        named = place.format(workspace=workspace)
        done, outputs, _ = run(workspace, state, store=named)
    assert done.returncode == 2
    assert "lies in the workspace: a pull request could bring it" in done.stderr
    assert outputs["conclusion"] == "failure"
    assert not (workspace / "mconv-out").exists()


def test_a_release_that_lacks_an_asset_fails_the_step_and_says_which(workspace: Path) -> None:
    payload = {"release": {"tag_name": "v1"}}
    with serve(GitHub(releases={"v1": 9}, faults=[("POST", 422, {}, False)])) as state:
        done, outputs, summary = run(workspace, state, "release", payload)
        assert done.returncode != 0
        said = "the release v1 is not complete: 2 of 5 assets were not uploaded: linear-onnx-fp32"
        assert said in done.stderr
        assert "linear-onnx-fp32.zip" in summary
        assert (outputs["passed"], outputs["conclusion"]) == ("1", "failure")
        names = {asset["name"] for asset in state.assets}
        assert names == {"results.json", "report.html", "provenance.json"}
        done, outputs, _ = run(workspace, state, "release", payload)  # goes on from there
        assert (done.returncode, outputs["conclusion"]) == (0, "success"), done.stderr
        names = {asset["name"] for asset in state.assets}
        assert {"linear-onnx-fp32.zip", "SHA256SUMS"} < names
        assert len(names) == 5
