"""`--executor ray` on a local cluster of two nodes: both work, and what they make is byte for byte
what one machine makes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from mconv.store.digests import hash_file
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

        self.cluster: Any = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
        )
        self.second = self.cluster.add_node(num_cpus=1)
        self.address: str = self.cluster.address


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        found = Nodes()
        yield found
        found.cluster.shutdown()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return build(tmp_path)


def build(folder: Path) -> Path:
    for seed, name in enumerate(("one", "two")):
        write_linear(folder / f"{name}.onnx", seed=seed)
    (folder / "broken.onnx").write_bytes((folder / "one.onnx").read_bytes()[:-40])
    (folder / "models.yml").write_text(MANIFEST)
    return folder


def start(project: Path, out: str, store: str, nodes: Nodes | None = None) -> subprocess.Popen[str]:
    argv = [
        sys.executable,
        "-m",
        "mconv",
        "run",
        "models.yml",
        "--out",
        out,
        "--no-measure",
        "--store",
        store,
    ]
    if nodes is not None:
        argv += ["--executor", "ray", "--ray-address", nodes.address]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(argv, cwd=project, stderr=subprocess.PIPE, text=True, env=env)


def run_undisturbed(project: Path, nodes: Nodes) -> tuple[str, str]:
    """Run on both nodes, into a folder and a store of its own; return the store's URL and what was
    printed.

    A worker of Ray's dies of itself now and then on a loaded machine (Ray says SYSTEM_ERROR). A run
    in which that happened says nothing of how the steps are shared, and is done once more.
    """
    for _ in range(3):
        for name in ("ray", "shared"):
            shutil.rmtree(project / name, ignore_errors=True)
        url = f"file://{project}/shared"
        run = start(project, "ray", url, nodes)
        printed = run.communicate(timeout=200)[1]
        assert run.returncode == 1, printed
        if "a node of the Ray cluster died" not in printed:
            return url, printed
    logs = sorted(Path("/tmp/ray/session_latest/logs").glob("*.err"), key=os.path.getmtime)
    raise AssertionError("\n".join([printed, *(log.read_text()[-3000:] for log in logs[-6:])]))


def is_working(raylet: psutil.Process) -> bool:
    """Whether a step runs on a node, by the title of its worker."""
    for child in raylet.children(recursive=True):
        try:
            if "Node.run" in " ".join(child.cmdline()):
                return True
        except psutil.NoSuchProcess:
            continue
    return False


def artifacts(project: Path, out: str) -> dict[str, str]:
    """Digest of every artifact and provenance file, by path."""
    folder = project / out
    return {
        p.relative_to(folder).as_posix(): hash_file(p)
        for p in folder.glob("*/*/**/*")
        if p.is_file()
    }


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The artifacts of a run on one machine."""
    folder = build(tmp_path_factory.mktemp("alone"))
    run = start(folder, "out", "store")
    said = run.communicate(timeout=200)[1]
    assert run.returncode == 1, said  # of the broken model, and of no other
    found = artifacts(folder, "out")
    assert len(found) == 11  # of five variants: a model, mconv.json, and a second file for OpenVINO
    return found


def test_nodes_that_share_no_store_are_refused(project: Path, nodes: Nodes) -> None:
    run = start(project, "out", "store", nodes)
    said = run.communicate(timeout=200)[1]
    assert run.returncode == 2, said
    assert "2 nodes, which do not share the store" in said


def test_two_nodes_make_what_one_machine_makes(
    project: Path, nodes: Nodes, alone: dict[str, str]
) -> None:
    url, said = run_undisturbed(project, nodes)
    assert artifacts(project, "ray") == alone
    counts = [int(n) for n in re.findall(r"(\d+) steps on", said)]
    assert len(counts) == 2, said
    assert min(counts) > 2, said
    status = {
        v["id"]: v["status"]
        for v in json.loads((project / "ray/results.json").read_text())["variants"]
    }
    assert status.pop("broken/onnx/fp32") == "error"
    assert set(status.values()) == {"passed"}
    assert not [p for p in (project / "shared").rglob("*") if "probe" in p.name or "tmp" in p.name]
    again = start(project, "again", url)
    said = again.communicate(timeout=200)[1]
    assert artifacts(project, "again") == alone
    # all else was in the shared store, under the same keys
    assert set(re.findall(r"\] (\w+):", said)) == {"broken"}, said


def test_what_a_node_that_dies_was_doing_another_does(
    project: Path, nodes: Nodes, alone: dict[str, str]
) -> None:
    raylet = psutil.Process(nodes.second.all_processes["raylet"][0].process.pid)
    for attempt in range(5):  # the first node may be done with all before the second begins
        run = start(project, f"ray{attempt}", f"file://{project}/shared{attempt}", nodes)
        while run.poll() is None and not is_working(raylet):
            time.sleep(0.01)
        if run.poll() is None:
            break
        run.communicate()
    assert run.poll() is None
    nodes.cluster.remove_node(nodes.second, allow_graceful=False)
    said = run.communicate(timeout=200)[1]
    assert run.returncode == 1, said
    assert "a node of the Ray cluster died" in said
    assert artifacts(project, f"ray{attempt}") == alone
