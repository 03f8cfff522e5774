"""The action's image, built from the Dockerfile and run with the runner's arguments, against the
API server on loopback."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mconv.store.local import Sealed, hash_entry
from mconv.values import from_json, to_json
from scripts import image
from tests.action import workflow
from tests.action.server import GitHub, serve
from tests.attacks import harness, test_forging
from tests.attacks.harness import Hostile
from tests.conftest import ROOT

RUNNER = 1001  # the uid that owns a hosted runner's workspace
TOKEN = "ghs_secret"
pytestmark = [
    pytest.mark.skipif(image.missing() is not None, reason=f"no image here: {image.missing()}"),
    pytest.mark.timeout(2400),  # the first of them builds the image, of several GB of packages
]


@pytest.fixture(scope="module")
def built() -> Iterator[None]:
    """The image; it goes afterwards (several GB) unless MCONV_IMAGES names where to keep it."""
    if (reason := image.unable()) is not None:
        pytest.skip(f"no image here: {reason}")
    image.build()
    yield
    if "MCONV_IMAGES" not in os.environ:
        image.remove()


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    shutil.copytree(
        ROOT / "examples/digits",
        folder,
        ignore=shutil.ignore_patterns("__pycache__", "out", ".mconv"),
    )
    return folder


@pytest.fixture
def docker_socket(tmp_path: Path) -> Iterator[Path]:
    """A socket with the permissions of Docker's, with somebody listening."""
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        path.chmod(0o660)
        listening.listen()
        yield path


class Run:
    """One run of the action: its log, exit code, outputs and summary."""

    def __init__(
        self,
        workspace: Path,
        state: GitHub,
        name: str,
        event: dict[str, Any],
        *,
        docker: Path | None = None,
        **inputs: str,
    ) -> None:
        for path in (workspace, *workspace.rglob("*")):
            os.chown(path, RUNNER, RUNNER)
        self.folder = workspace.parent / f"runner-{time.monotonic_ns()}"
        temporary = self.folder / "runner_temp"
        temporary.mkdir(parents=True)
        os.chown(temporary, RUNNER, RUNNER)
        given = {"github-token": TOKEN, "manifest": "models.yml", "measure": "false", **inputs}
        more = {
            "GITHUB_EVENT_NAME": name,
            "GITHUB_REPOSITORY": "octo/models",
            "GITHUB_SHA": "b" * 40,
            "GITHUB_API_URL": state.url,
            "GITHUB_RUN_ID": "11",
            "ACTIONS_RUNTIME_TOKEN": "runtime_secret",
        }
        self.process = image.run(workspace, self.folder, event, given, more, socket=docker)

    def wait(self) -> int:
        self.log, _ = self.process.communicate(timeout=600)
        self.summary = (self.folder / "file_commands/step_summary").read_text()
        written = re.findall(
            r"^(\S+)<<(\S+)\n(.*?)\n\2$",
            (self.folder / "file_commands/output").read_text(),
            re.M | re.S,
        )
        self.outputs = {name: value for name, _, value in written}
        return self.process.returncode


PULL = {"pull_request": {"number": 7, "head": {"sha": "a" * 40}}}
ONLY = "digits/onnx/fp32 digits/onnx/int8 digits/wasm/fp32"


HELP = """
import resource, subprocess, sys
subprocess.run(["mconv", "--help"], check=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime, file=sys.stderr)
"""


def test_help_starts_at_once(built: None) -> None:
    argv = [
        "podman",
        "run",
        "--rm",
        "--network=host",
        "--entrypoint",
        "python",
        image.IMAGE,
        "-c",
        HELP,
    ]
    done = subprocess.run(
        argv, env=image.environment(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "Convert, quantize and prove" in done.stdout
    assert float(done.stderr) < 1.0  # seconds of the processor's time


def test_digits_are_converted_commented_and_released(built: None, workspace: Path) -> None:
    with serve(GitHub(releases={"v1": 9})) as state:
        run = Run(workspace, state, "pull_request", PULL, only=ONLY)
        assert run.wait() == 0, run.log
        assert run.outputs["conclusion"] == "success"
        assert run.outputs["passed"] == "3"
        assert len(state.comments) == 1
        assert "digits/wasm/fp32" in state.comments[0]["body"]
        assert "all 3 variants passed" in run.summary
        results = workspace / run.outputs["results"]
        assert json.loads(results.read_text())["summary"]["passed"] == 3
        made = [workspace / "mconv-out", *(workspace / "mconv-out").rglob("*")]
        assert {path.stat().st_uid for path in made} == {RUNNER}
        assert all(path.stat().st_mode & 0o444 == 0o444 for path in made)
        release = Run(workspace, state, "release", {"release": {"tag_name": "v1"}}, only=ONLY)
        assert release.wait() == 0, release.log
        names = {asset["name"] for asset in state.assets}
        assert {
            "digits-onnx-int8.zip",
            "digits-wasm-fp32.zip",
            "SHA256SUMS",
            "results.json",
            "provenance.json",
        } <= names
        assert len(state.comments) == 1
        assert TOKEN not in run.log + release.log


def test_the_quick_start_of_the_docs_runs_in_the_image(built: None, tmp_path: Path) -> None:
    """Its step as it is written, by a workspace that the runner's user owns."""
    folder = tmp_path / "workspace"
    shutil.copytree(ROOT / "examples/ready", folder, ignore=shutil.ignore_patterns("out", ".mconv"))
    lines = (folder / "models.yml").read_text().split("    targets:")[0]
    (folder / "models.yml").write_text(lines + "    targets: [onnx, onnx:int8]\n")
    (job,) = workflow.read_example("docs/github.md")["jobs"].values()
    steps = workflow.find_steps(job)
    context = workflow.Context(**{"runner.temp": "runner_temp"})
    inputs = workflow.make_inputs(steps["mconv"], context, ROOT / "action.yml")
    with serve(GitHub(read_only=not workflow.can_comment(job))) as state:
        run = Run(folder, state, "pull_request", PULL, **inputs)
        assert run.wait() == 0, run.log
        assert run.outputs["passed"] == "2"
        assert len(state.comments) == 1
    context.outputs["mconv"] = run.outputs
    upload = steps["actions/upload-artifact"]
    assert context.holds(upload["if"])
    uploaded = folder / context.fill(upload["with"]["path"])
    cached = context.fill(steps["actions/cache"]["with"]["path"]).split()
    store, _ = (run.folder / path for path in cached)
    for kept in (uploaded / "results.json", *store.iterdir()):
        assert kept.stat().st_uid == RUNNER


SPY = """
import os, socket
import torch


def build():
    found = []
    for name, value in os.environ.items():
        if "ghs_" in value or "runtime_secret" in value:
            found.append(f"token in {name}")
    for pid in [p for p in os.listdir("/proc") if p.isdigit()]:
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                data = file.read()
            if b"ghs_" in data or b"runtime_secret" in data:
                found.append(f"token in /proc/{pid}/environ")
        except OSError:
            pass
    try:
        open("/proc/1/environ", "rb").read()
        found.append("/proc/1/environ is readable")
    except PermissionError:
        pass
    try:
        with socket.socket(socket.AF_UNIX) as there:
            there.connect("/var/run/docker.sock")
        found.append("the docker socket is open")
    except PermissionError:
        pass
    if os.getuid() == 0:
        found.append("it is root")
    print("::set-output name=conclusion::owned")
    print("##[error]owned")
    print("::add-mask::o")
    raise RuntimeError("spied: " + (", ".join(found) or "nothing"))
"""


def test_a_factory_finds_no_token_and_no_socket_and_commands_nothing(
    built: None, workspace: Path, docker_socket: Path
) -> None:
    (workspace / "net.py").write_text(SPY)
    with serve(GitHub()) as state:
        run = Run(
            workspace, state, "pull_request", PULL, docker=docker_socket, only="digits/onnx/fp32"
        )
        assert run.wait() == 1, run.log
        (variant,) = json.loads((workspace / run.outputs["results"]).read_text())["variants"]
        assert "spied: nothing" in variant["error"]["message"]
        assert run.outputs["conclusion"] == "failure"
        commands = [
            line for line in run.log.splitlines() if line.lstrip().startswith("::") or "##[" in line
        ]
        assert commands
        assert all(line.startswith("::error ") for line in commands), commands
        assert not [line for line in commands if "owned" in line.partition("::")[0]]


# runs with the token when the workers are done
CODE = "/opt/mconv/lib/python3.11/site-packages/mconv/github/publish.py"


def test_root_opens_no_file_that_a_worker_chose(built: None, workspace: Path) -> None:
    """A process that outlives its step puts links to mconv's own code where the parent might open
    its log."""
    harness.write_thief(workspace, CODE)
    with serve(GitHub()) as state:
        run = Run(workspace, state, "pull_request", PULL)
        run.wait()
        results = json.loads((workspace / run.outputs["results"]).read_text())
        (thief,) = [each for each in results["variants"] if each["model"] == "thief"]
        assert thief["error"]["type"] == "OutOfMemoryError", "it answered itself, both times"
        assert "STOLEN" not in run.log
        assert TOKEN not in run.log + (workspace / run.outputs["results"]).read_text()
        assert len(state.comments) == 1  # by the code that was there before
        assert "thief/onnx/fp32" in state.comments[0]["body"]


def test_a_store_that_the_checkout_brings_is_not_believed(built: None, workspace: Path) -> None:
    """Its entries are sealed as mconv seals them, with another model in place of the honest one."""
    with serve(GitHub()) as state:
        honest = Run(workspace, state, "pull_request", PULL, only="digits/onnx/fp32")
        assert honest.wait() == 0, honest.log
        brought = workspace / ".mconv/store"
        shutil.copytree(honest.folder / "runner_temp/mconv-store", brought)
        forged = 0
        for path in brought.rglob("entry.json"):
            entry = from_json(path.read_bytes(), Sealed).entry
            files = []
            for file in entry.files:
                target = path.parent / "files" / file.path
                target.chmod(0o644)
                target.write_bytes(b"BACKDOORED")
                digest = hashlib.sha256(b"BACKDOORED").hexdigest()
                files.append(msgspec.structs.replace(file, bytes=10, sha256=digest))
                forged += 1
            entry = msgspec.structs.replace(entry, files=tuple(files))
            path.write_text(to_json(Sealed(digest=hash_entry(entry), entry=entry)))
        assert forged
        shutil.rmtree(workspace / "mconv-out")
        run = Run(workspace, state, "pull_request", PULL, only="digits/onnx/fp32")
        assert run.wait() == 0, run.log
        for path in (workspace / "mconv-out").rglob("*.onnx"):
            assert path.stat().st_size > 1000
        refused = Run(workspace, state, "pull_request", PULL, store=".mconv/store")
        assert refused.wait() == 2, refused.log
        assert "lies in the workspace: a pull request could bring it" in refused.log


STORE = "/github/runner_temp/mconv-store"
LIBRARY = Path(CODE).parents[1]
MODULES = ("spying", "connecting", "writing", "reaching")


def test_hostile_code_gets_nowhere(built: None, tmp_path: Path) -> None:
    """The probes of tests/attacks, what outlives its step, and what forges another's answer."""
    folder = tmp_path / "workspace"
    models = [
        Hostile("later", "forging:forge_later"),
        Hostile("forger", "forging:forge", "resources: {timeout: 60s}"),
        *(Hostile(name, f"{name}:build") for name in MODULES),
        *(Hostile(name, f"misbehaving:{name}") for name in ("killall", "stopall", "hopper")),
        *(Hostile(name, f"leaving:{name}") for name in ("setuid", "names")),
    ]
    harness.write_repository(folder, models, test_forging.VICTIMS)
    test_forging.write_strict(folder / "strict.onnx")
    (folder / "forged.json").write_text(test_forging.forge_answer())
    (folder / ".git").mkdir()
    (folder / ".git/config").write_text(f"extraheader = AUTHORIZATION: basic {TOKEN}")
    targets = {
        "secret": "/github/workflow/secret",
        "runner": ["/github/workflow/event.json", "/github/file_commands/output"],
        "home": "/github/home",
        "store": STORE,
        "out": "/github/workspace/mconv-out",
        "code": [CODE, str(LIBRARY / "compare.py")],
    }
    (folder / "targets.json").write_text(json.dumps(targets))
    with harness.listen(folder) as reached, serve(GitHub()) as state:
        heard = json.loads((folder / "targets.json").read_text())
        heard["stream"] = "/var/run/docker.sock"
        (folder / "targets.json").write_text(json.dumps(heard))
        run = Run(folder, state, "pull_request", PULL, docker=tmp_path / "stream.sock")
        assert run.wait() == 1, run.log
        assert reached == []
        assert len(state.comments) == 1
    results = (folder / run.outputs["results"]).read_text()
    variants = {variant["model"]: variant for variant in json.loads(results)["variants"]}
    for name in MODULES:
        assert harness.read_reached(variants[name]) == {}
    assert "forged: {}" in variants["forger"]["error"]["message"]
    statuses = {name: variants[name]["status"] for name in ("victim", "honest", "strict")}
    assert statuses == {"victim": "passed", "honest": "passed", "strict": "failed"}
    assert TOKEN not in run.log + results + state.comments[0]["body"]
    for path in (folder / "mconv-out").rglob("*"):
        assert not path.is_symlink()
        assert not path.stat().st_mode & 0o6000
    assert len(variants) == len(models) + 3


def test_a_cancelled_job_ends_quickly(built: None, workspace: Path) -> None:
    (workspace / "net.py").write_text("import time\n\n\ndef build():\n    time.sleep(300)\n")
    with serve(GitHub()) as state:
        run = Run(workspace, state, "pull_request", PULL, only="digits/onnx/fp32")
        time.sleep(20)
        begin = time.monotonic()
        run.process.send_signal(signal.SIGTERM)
        assert run.wait() == 130, run.log
        assert time.monotonic() - begin < 10
        assert "interrupted" in run.log
