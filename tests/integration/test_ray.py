"""`--executor ray` on a local cluster of two nodes: both work, and what they make is byte for byte what one machine makes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mconv.store import sha256
from tests.models import write_linear

pytest.importorskip("ray")
MANIFEST = """version: 1
models:
  - {name: one, source: one.onnx, targets: [onnx, "onnx:fp16", "onnx:int8"]}
  - {name: two, source: two.onnx, targets: [onnx, openvino]}
  - {name: broken, source: broken.onnx, targets: [onnx]}
"""


class Nodes:
    """A Ray cluster of processes of this machine."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        self.second = self.cluster.add_node(num_cpus=1)
        self.address: str = self.cluster.address


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    found = Nodes()
    yield found
    found.cluster.shutdown()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("one", "two"):
        write_linear(tmp_path / f"{name}.onnx", seed=len(name))
    (tmp_path / "broken.onnx").write_bytes((tmp_path / "one.onnx").read_bytes()[:-40])
    (tmp_path / "models.yml").write_text(MANIFEST)
    return tmp_path


def start(project: Path, out: str, *more: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "mconv", "run", "models.yml", "--out", out, "--no-measure", *more]
    return subprocess.Popen(argv, cwd=project, stderr=subprocess.PIPE, text=True)


def artifacts(project: Path, out: str) -> dict[str, str]:
    """Digest of every artifact and provenance file, by path."""
    folder = project / out
    return {p.relative_to(folder).as_posix(): sha256(p) for p in folder.glob("*/*/**/*") if p.is_file()}


def test_two_nodes_make_what_one_machine_makes(project: Path, nodes: Nodes) -> None:
    alone = start(project, "alone", "--store", "alone-store")
    alone.communicate(timeout=120)
    run = start(project, "ray", "--executor", "ray", "--ray-address", nodes.address, "--store", f"file://{project}/shared")
    said = run.communicate(timeout=120)[1]
    assert run.returncode == alone.returncode == 1, said  # of the broken model, and of no other
    assert artifacts(project, "ray") == artifacts(project, "alone")
    assert len(artifacts(project, "ray")) == 10
    counts = [int(n) for n in re.findall(r"(\d+) steps on", said)]
    assert len(counts) == 2, said
    assert min(counts) > 2, said
    status = {v["id"]: v["status"] for v in json.loads((project / "ray/results.json").read_text())["variants"]}
    assert status.pop("broken/onnx/fp32") == "error"
    assert set(status.values()) == {"passed"}
    assert not [p for p in (project / "shared").rglob("*") if "probe" in p.name or "tmp" in p.name]
    again = start(project, "again", "--store", f"file://{project}/shared")
    said = again.communicate(timeout=120)[1]
    assert artifacts(project, "again") == artifacts(project, "alone")
    assert "optimize" not in said, said  # all was in the shared store, under the same keys
