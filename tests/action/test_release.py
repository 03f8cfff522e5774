"""The scripts of the release workflow, run with stand-ins for `gh` and `docker`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT

JOBS = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())["jobs"]
DIGEST = "sha256:" + "0123456789abcdef" * 4
NAME = "ghcr.io/octo/mconv"
# Writes what it is called with, and answers by the last word of the path.
STAND_IN = f"""#!{sys.executable}
import json, os, sys
words = sys.argv[1:]
text = sys.stdin.read() if "-" in words else ""
with open(os.environ["CALLS"], "a") as file:
    file.write(json.dumps([os.path.basename(sys.argv[0]), words, text]) + "\\n")
if "git/ref/tags" in " ".join(words):
    sys.exit(int(os.environ.get("TAG_IS_FREE", "1")))
answers = {{"trees": "TREE", "commits": "COMMIT", "inspect": "{DIGEST}"}}
for word in words:
    for name, answer in answers.items():
        if word.endswith(name):
            print(answer)
            sys.exit()
    if "/commits/" in word:
        print("BASETREE")
        sys.exit()
"""


def find_step(job: str, marker: str) -> dict[str, Any]:
    (step,) = [step for step in JOBS[job]["steps"] if marker in step.get("run", "")]
    return step


class Machine:
    """A checkout on a runner, with stand-ins."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "checkout"
        self.folder.mkdir()
        for name in ("action.yml", "pyproject.toml", "Dockerfile"):
            shutil.copy(ROOT / name, self.folder / name)
        (self.folder / "scripts").mkdir()
        shutil.copy(ROOT / "scripts/release.py", self.folder / "scripts/release.py")
        self.calls_file, self.output_file = folder / "calls", folder / "output"
        self.output_file.touch()
        binaries = folder / "bin"
        binaries.mkdir()
        for name in ("gh", "docker"):
            (binaries / name).write_text(STAND_IN)
            (binaries / name).chmod(0o755)
        self.path = os.pathsep.join(
            [str(binaries), str(Path(sys.executable).parent), os.environ["PATH"]]
        )

    def start(self, step: dict[str, Any], **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a script as the runner does where no shell is named."""
        return subprocess.run(
            ["bash", "-e", "-c", step["run"]],
            cwd=self.folder,
            env={
                "PATH": self.path,
                "CALLS": str(self.calls_file),
                "GITHUB_OUTPUT": str(self.output_file),
                "GITHUB_REPOSITORY": "Octo/mconv",
                "GITHUB_SHA": "5" * 40,
                **variables,
            },
            capture_output=True,
            text=True,
            timeout=60,
        )

    def calls(self) -> list[tuple[str, list[str], str]]:
        return [tuple(json.loads(line)) for line in self.calls_file.read_text().splitlines()]

    def outputs(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.output_file.read_text().splitlines())


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")
def test_the_tag_is_of_a_commit_whose_action_names_the_image(machine: Machine) -> None:
    (machine.folder / "image").mkdir()
    (machine.folder / "image/all").write_text(f"{NAME}@{DIGEST}\n")
    done = machine.start(find_step("release", "base_tree"), TAG="v1.2.3")
    assert done.returncode == 0, done.stderr
    _, trees, commits, refs = machine.calls()
    sent = json.loads(trees[2])
    assert sent["base_tree"] == "BASETREE"
    (entry,) = sent["tree"]
    assert entry["path"] == "action.yml"
    action = yaml.safe_load(entry["content"])
    assert action["runs"]["image"] == f"docker://{NAME}@{DIGEST}"
    assert json.loads(commits[2]) == {
        "message": "Release v1.2.3",
        "tree": "TREE",
        "parents": ["5" * 40],
    }
    assert "ref=refs/tags/v1.2.3" in refs[1]
    assert "sha=COMMIT" in refs[1]
    assert machine.outputs() == {"commit": "COMMIT"}


def test_nothing_is_tagged_where_no_image_is_named(machine: Machine) -> None:
    (machine.folder / "image").mkdir()
    (machine.folder / "image/all").write_text(f"{NAME}:latest\n")
    done = machine.start(find_step("release", "base_tree"), TAG="v1.2.3")
    assert done.returncode != 0
    assert not machine.calls_file.exists()


def test_both_processors_become_one_image(machine: Machine) -> None:
    (machine.folder / "digests").mkdir()
    step = find_step("image", "imagetools create")
    for name in ("a" * 64, "b" * 64):
        (machine.folder / "digests" / name).touch()
    done = machine.start(step, IMAGE=NAME, VERSION="1.2.3", TARGET="slim")
    assert done.returncode == 0, done.stderr
    create = machine.calls()[0][1]
    assert create[create.index("--tag") + 1] == f"{NAME}:1.2.3-slim"
    assert create[-2:] == [f"{NAME}@sha256:{'a' * 64}", f"{NAME}@sha256:{'b' * 64}"]
    assert machine.outputs() == {"digest": DIGEST}
    assert (machine.folder / "image/slim").read_text() == f"{NAME}@{DIGEST}\n"


def test_half_an_image_is_none(machine: Machine) -> None:
    (machine.folder / "digests").mkdir()
    (machine.folder / "digests" / ("a" * 64)).touch()
    step = find_step("image", "imagetools create")
    done = machine.start(step, IMAGE=NAME, VERSION="1.2.3", TARGET="all")
    assert done.returncode == 1
    assert "1 images were built, not 2" in done.stdout
    assert not machine.calls_file.exists()


def test_the_version_is_released_once(machine: Machine) -> None:
    (machine.folder / "CHANGELOG.md").write_text("## 0.1.0 – 2026-12-01\n")
    step = find_step("prepare", "release.py version")
    done = machine.start(step)
    assert done.returncode == 0, done.stderr
    assert machine.outputs() == {"version": "0.1.0", "image": "ghcr.io/octo/mconv"}
    done = machine.start(step, TAG_IS_FREE="0")
    assert done.returncode == 1
    assert "v0.1.0 is released already" in done.stdout
    (machine.folder / "CHANGELOG.md").write_text("## Unreleased\n")
    assert machine.start(step).returncode == 1


def test_bases_are_pinned_by_their_digests(machine: Machine) -> None:
    done = machine.start(find_step("prepare", "imagetools inspect"))
    assert done.returncode == 0, done.stderr
    pinned = machine.outputs()
    assert pinned.keys() == {"BASE", "NODE"}
    for image in pinned.values():
        assert image.endswith(f"@{DIGEST}")


def test_rights_are_those_that_a_job_needs() -> None:
    rights = {name: job["permissions"] for name, job in JOBS.items()}
    assert rights == {
        "prepare": {"contents": "read"},
        "build": {"contents": "read", "packages": "write"},
        "image": {
            "contents": "read",
            "packages": "write",
            "id-token": "write",
            "attestations": "write",
        },
        "release": {"contents": "write"},
    }
    for job in JOBS.values():
        for step in job["steps"]:
            assert "${{" not in step.get("run", "")
