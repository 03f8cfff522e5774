"""A store that is full, read-only or shared by two runs at once: the right result, or a plain
sentence and nothing broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.models import write_linear

MANIFEST = "version: 1\nmodels:\n  - {name: one, source: one.onnx, targets: [onnx, openvino]}\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    write_linear(tmp_path / "one.onnx")
    (tmp_path / "models.yml").write_text(MANIFEST)
    return tmp_path


@pytest.fixture
def small(project: Path) -> Iterator[Path]:
    """A file system of 40 kB: enough for a step or two."""
    folder = project / "small"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", str(folder)], capture_output=True
    )
    if done.returncode:
        pytest.skip("a file system of its own cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def start(project: Path, out: str, store: Path) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "mconv", "run", str(project / "models.yml"), "--no-measure"]
    argv += ["--out", str(project / out), "--store", str(store)]
    return subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)


def files(project: Path, out: str) -> object:
    report = json.loads((project / out / "results.json").read_text())
    return [(v["id"], v["status"], v["files"]) for v in report["variants"]]


def test_a_full_disk_is_said_and_the_next_run_goes_on(project: Path, small: Path) -> None:
    full = start(project, "out", small / "store")
    said = full.communicate(timeout=300)[1]
    assert full.returncode == 1
    assert "No space left on device" in said
    assert "Traceback" not in said
    subprocess.run(["mount", "-o", "remount,size=50m", str(small)], check=True)
    again = start(project, "out", small / "store")
    assert (again.communicate(timeout=300), again.returncode)[1] == 0
    assert not list(small.rglob("tmp-*"))
    other = start(project, "other", project / "store")
    assert (other.communicate(timeout=300), other.returncode)[1] == 0
    assert files(project, "out") == files(project, "other")


def test_a_store_that_cannot_be_written_is_said(project: Path, small: Path) -> None:
    (small / "store").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    run = start(project, "out", small / "store")
    said = run.communicate(timeout=300)[1]
    assert run.returncode == 3  # as errors.py has it for a store that cannot be used at all
    assert "store" in said
    assert "Read-only file system" in said
    assert "Traceback" not in said
    assert "fault of mconv" not in said


def test_two_runs_at_once_on_one_store(project: Path) -> None:
    both = [start(project, name, project / "store") for name in ("a", "b")]
    for run in both:
        said = run.communicate(timeout=300)[1]
        assert run.returncode == 0, said
    assert files(project, "a") == files(project, "b")
    assert not [p for p in (project / "store").rglob("*") if p.name.startswith("tmp-")]
    assert os.path.isdir(project / "store/v1")
