"""SIGKILL to the whole process group at random moments, then a run to the end: nothing is lost,
nothing is left lying about."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from tests.models import write_linear

KILLS = 20
MANIFEST = """version: 1
models:
  - {name: one, source: one.onnx, targets: [onnx, "onnx:int8"]}
  - {name: two, source: two.onnx, targets: [onnx, openvino]}
"""


def start(folder: Path, name: str) -> subprocess.Popen[bytes]:
    argv = [
        sys.executable,
        "-m",
        "mconv",
        "run",
        str(folder / "models.yml"),
        "--no-measure",
        "--jobs",
        "2",
    ]
    argv += ["--out", str(folder / name / "out"), "--store", str(folder / name / "store")]
    return subprocess.Popen(argv, stderr=subprocess.DEVNULL, start_new_session=True)


def told(folder: Path) -> tuple[Any, dict[str, str]]:
    """What a run says of its variants, and the digest of every artifact and provenance file."""
    report = json.loads((folder / "out/results.json").read_text())
    said = [
        (v["id"], v["status"], v["files"], v["verification"]["outputs"]) for v in report["variants"]
    ]
    files = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (folder / "out").rglob("*")
        if path.is_file() and path.name not in ("results.json", "report.md", "report.html")
    }
    return said, files


def test_killed_at_random_moments_and_run_again(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_linear(tmp_path / f"{name}.onnx", seed=len(name))
    (tmp_path / "models.yml").write_text(MANIFEST)
    begin = time.monotonic()
    assert start(tmp_path, "whole").wait(300) == 0
    whole = time.monotonic() - begin
    expected = told(tmp_path / "whole")
    draw = random.Random(20)
    for kill in range(KILLS):
        # each folder is killed five times, ever further on, before it comes to its end
        name = f"killed{kill % 4}"
        process = start(tmp_path, name)
        time.sleep(draw.uniform(0.05, 0.8) * whole / 2)
        workers = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
        psutil.wait_procs(workers, timeout=10)
        assert not any(w.is_running() and w.status() != psutil.STATUS_ZOMBIE for w in workers)
    for index in range(4):
        folder = tmp_path / f"killed{index}"
        assert start(tmp_path, folder.name).wait(300) == 0
        assert told(folder) == expected
        assert not [p for p in folder.rglob("*") if "tmp-" in p.name]
