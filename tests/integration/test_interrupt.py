"""Ctrl-C and SIGTERM: exit code 130, no worker left, no temporary file left, finished steps
kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from tests.models import write_linear

MANIFEST = """version: 1
models:
  - {name: quick, source: quick.onnx, targets: [onnx]}
  - name: slow
    source: {path: w.pt, factory: 'net:build'}
    inputs: {x: {shape: [1]}}
    targets: [onnx]
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(tmp_path: Path, number: signal.Signals) -> None:
    write_linear(tmp_path / "quick.onnx")
    torch.save({}, tmp_path / "w.pt")
    (tmp_path / "net.py").write_text("import time\n\n\ndef build():\n    time.sleep(600)\n")
    (tmp_path / "models.yml").write_text(MANIFEST)
    argv = [sys.executable, "-m", "mconv", "run", "--no-measure", "--jobs", "2"]
    process = subprocess.Popen(
        argv, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "verify onnxruntime: done" in line:
            break
    workers = psutil.Process(process.pid).children(recursive=True)
    assert workers
    os.kill(process.pid, number)
    start = time.monotonic()
    said = process.stderr.read()
    assert process.wait(20) == 130
    assert time.monotonic() - start < 7  # the runner kills after 7.5 s
    assert "finished steps are kept" in said
    assert "Traceback" not in said
    assert not any(w.is_running() and w.status() != psutil.STATUS_ZOMBIE for w in workers)
    store = tmp_path / ".mconv/store/v1"
    assert not list(store.glob("tmp-*"))
    assert len(list(store.glob("??/*"))) >= 4
