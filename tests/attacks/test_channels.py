"""What a worker does to its channels, its answer and its files costs its own variant, and shows it
nothing."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.attacks import harness

ATTACKS = [
    "logenv",
    "logfile {secret}",
    "logfifo",
    "logsparse",
    "logzero",
    "logendless",
    "respfifo",
    "respzero",
    "respbig 20000000000",
    "respheld",
    "respdeep",
    "respevil",
    "respcmd",
    "errorcmd",
    "respmissing",
    "resptypes",
    "outlink {folder}",
    "outfile {secret}",
    "outfifo",
    "outsparse",
]
MODES = ["root", "user"]
pytestmark = pytest.mark.timeout(180)


def able(mode: str) -> None:
    if (reason := harness.unable(mode)) is not None:
        pytest.skip(reason)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.split()[0])
def test_an_attack_costs_its_own_variant_only(attack: str, mode: str) -> None:
    able(mode)
    with harness.workspace("") as place:
        secret = place.parent / "secrets" / "secret"
        secret.parent.mkdir()
        secret.parent.chmod(0o1777)  # as /tmp: a worker may write there, and not read what is there
        secret.write_text("CANARY_FILE")
        if mode == "root":
            secret.chmod(0o600)  # root's own
        (place / "attack.txt").write_text(attack.format(secret=secret, folder=secret.parent))
        begin = time.monotonic()
        run = harness.run(place, mode)
        assert time.monotonic() - begin < 60, run.printed
        assert run.code in (0, 1), run.printed
        assert run.leaked() == []
        assert "CANARY_FILE" not in run.printed
        assert not [
            path
            for path in run.out.rglob("*")
            if path.is_file() and b"CANARY_FILE" in path.read_bytes()
        ]
        results = {
            v["model"]: v for v in json.loads((run.out / "results.json").read_text())["variants"]
        }
        assert results["victim"]["status"] == "passed", run.printed
        assert results["evil"]["status"] == "error", run.printed
        commands = [
            line
            for line in run.printed.splitlines()
            if line.lstrip().startswith("::") or "##[" in line
        ]
        assert all(line.startswith("::error ") for line in commands), commands
        assert not [line for line in commands if "INJECTED" in line.partition("::")[0]]
        assert not [p for p in (place / "store").rglob("*") if p.is_symlink()]


def test_root_opens_no_file_of_its_own_for_a_worker() -> None:
    """The theft of the token: root opened as a log what a worker's process had put there, its own
    code."""
    able("root")
    with harness.workspace("") as place:
        target = place.parent / "root.py"
        target.write_text("# root's own code\n")
        harness.write_thief(place, str(target))
        run = harness.run(place, "root")
        results = json.loads((run.out / "results.json").read_text())["variants"]
        # it answered itself, both times
        assert [v["error"]["type"] for v in results if v["model"] == "thief"] == [
            "OutOfMemoryError"
        ], run.printed
        assert target.read_text() == "# root's own code\n"
        assert run.code in (0, 1), run.printed
        assert run.leaked() == []


@pytest.mark.parametrize("mode", MODES)
def test_a_store_that_a_commit_brings_is_refused(mode: str) -> None:
    able(mode)
    with harness.workspace("none") as place:
        honest = harness.run(place, mode)
        assert honest.code == 0, honest.printed
        assert harness.run(place, mode).code == 0  # what git does not track is mconv's own
        git = ["git", "-c", "user.name=x", "-c", "user.email=x@x", "-c", "safe.directory=*"]
        for argv in (["init", "-q"], ["add", "-fA"], ["commit", "-qm", "brought"]):
            subprocess.run(
                [*git, *argv], cwd=place, check=True, env={**os.environ, "HOME": str(place)}
            )
        # a hosted runner's checkout belongs to another user than the container's
        if mode == "root":
            for path in (place, *place.rglob("*")):
                os.chown(path, 1001, 1001, follow_symlinks=False)
        refused = harness.run(place, mode)
        assert refused.code == 2, refused.printed
        assert "git tracks files of the store" in refused.printed
        subprocess.run([*git, "rm", "-rq", "--cached", "store"], cwd=place, check=True)
        assert harness.run(place, mode).code == 0


@pytest.mark.parametrize("mode", MODES)
def test_no_link_is_followed_in_the_output_folder(mode: str) -> None:
    able(mode)
    with harness.workspace("none") as place:
        other = place / "other"
        (other / "onnx-fp32").mkdir(parents=True)
        (other / "onnx-fp32" / "mconv.json").write_text("{}")
        (other / "onnx-fp32" / "keep").write_text("kept")
        (place / "out").mkdir()
        (place / "out" / "victim").symlink_to(other)
        run = harness.run(place, mode)
        assert run.code == 1, run.printed
        results = {
            v["model"]: v for v in json.loads((run.out / "results.json").read_text())["variants"]
        }
        assert results["victim"]["status"] == "error"
        assert "is a link" in results["victim"]["error"]["message"]
        assert results["evil"]["status"] == "passed"
        assert (other / "onnx-fp32" / "keep").read_text() == "kept"


def test_a_file_of_the_store_that_became_a_link_is_not_delivered(tmp_path: Path) -> None:
    able("user")
    with harness.workspace("none") as place:
        assert harness.run(place, "user").code == 0
        (place.parent / "secret").write_text("CANARY_FILE")
        for path in (place / "store").rglob("files/model.onnx"):
            path.unlink()
            path.symlink_to(place.parent / "secret")
        run = harness.run(place, "user")
        assert run.code == 0, run.printed  # damaged entries are made again
        delivered = [path for path in run.out.rglob("*") if path.is_symlink() or path.is_file()]
        assert not [
            path for path in delivered if path.is_symlink() or b"CANARY_FILE" in path.read_bytes()
        ]
