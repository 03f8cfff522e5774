"""Frameworks loaded once: what can be forked, what a child gets, how it ends, and that the outcome
is the same as without."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mconv import registry
from mconv.engine import local as engine_local
from mconv.planning.step_graph import Step
from mconv.steps.requests import WriteRequest
from mconv.store.local import Store
from mconv.workers import forkserver
from mconv.workers.forkserver import Server
from tests.models import write_linear

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks are used on Linux only")
PRELOADS = sorted(
    {
        p.preload or engine_local.BASE
        for family in registry.STEPS
        for p in registry.plugins(family).values()
    }
)


@pytest.mark.parametrize("modules", PRELOADS, ids=lambda m: ",".join(m)[:40])
def test_what_plugins_preload_can_be_forked(modules: tuple[str, ...], tmp_path: Path) -> None:
    """The server proves it itself: it refuses where threads of an import would be lost."""
    server = Server(modules, tmp_path, str(tmp_path), 2, {})
    try:
        server.warm(threading.Event())
        assert server.ready, server.refused
    finally:
        server.stop()


def test_a_runners_servers_live_until_their_last_step(tmp_path: Path) -> None:
    """They import in threads of their own, and would die with these."""
    settings = {
        "plugin": "p",
        "label": "l",
        "request": WriteRequest(target="t", precision="fp32", options={}, name="m"),
        "inputs": {},
        "tools": {},
        "timeout_s": 1.0,
    }
    steps = [
        Step(key=name, size_bytes=0, preload=(name,), **settings)
        for name in ("json", "csv", "wave")
    ]  # type: ignore[arg-type]
    local = engine_local.LocalRunner(Store(tmp_path), str(tmp_path), jobs=2)
    try:
        local.begin(steps)
        end = time.monotonic() + 60
        while not all(server.ready for server in local.servers.values()):
            assert time.monotonic() < end, [server.refused for server in local.servers.values()]
            time.sleep(0.02)
        time.sleep(0.2)
        assert len(local.servers) == 3
        assert all(
            server.process is not None and server.process.poll() is None
            for server in local.servers.values()
        )
    finally:
        local.close()
    assert all(server.process is None for server in local.servers.values())


def test_the_same_bytes_with_and_without(tmp_path: Path) -> None:
    write_linear(tmp_path / "m.onnx")
    (tmp_path / "models.yml").write_text(
        "version: 1\nmodels: [{name: m, source: m.onnx, targets: [onnx, 'onnx:int8', "
        "'openvino:int8']}]\n"
    )
    sums = []
    for fork in ("0", "1"):
        argv = [sys.executable, "-m", "mconv", "run", str(tmp_path / "models.yml"), "--no-measure"]
        argv += ["--out", str(tmp_path / f"out{fork}"), "--store", str(tmp_path / f"store{fork}")]
        done = subprocess.run(
            argv,
            env={**os.environ, "MCONV_FORK": fork},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode in (0, 1), done.stderr
        results = json.loads((tmp_path / f"out{fork}/results.json").read_text())
        assert results["summary"]["error"] == 0, done.stderr
        sums.append((tmp_path / f"out{fork}/SHA256SUMS").read_text())
    assert sums[0] == sums[1]
    assert not forkserver.can_fork() or sums[0]
