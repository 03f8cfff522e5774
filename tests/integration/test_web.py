"""`mconv run` for web targets: what an adapter cannot run is named, a browser that is killed costs
one variant."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
from onnx import TensorProto, helper, numpy_helper

from tests.models import linear, write_linear

SECONDS = 120


def write(folder: Path, models: dict[str, str]) -> list[str]:
    lines = "".join(
        f"  - name: {name}\n    source: {name}.onnx\n    targets: [{targets}]\n"
        for name, targets in models.items()
    )
    (folder / "models.yml").write_text(f"version: 1\nmodels:\n{lines}")
    argv = [
        "run",
        str(folder / "models.yml"),
        "--out",
        str(folder / "out"),
        "--store",
        str(folder / "store"),
        "--no-measure",
    ]
    return [sys.executable, "-m", "mconv", *argv]


def results(folder: Path) -> dict[str, Any]:
    return {v["id"]: v for v in json.loads((folder / "out/results.json").read_text())["variants"]}


def slow(path: Path) -> None:
    """Twelve convolutions of 64 channels over 96 × 96: many seconds on a software adapter."""
    rng = np.random.default_rng(0)
    names = [f"w{i}" for i in range(12)]
    shapes = [(64, 3 if i == 0 else 64, 3, 3) for i in range(12)]
    tensors = [
        numpy_helper.from_array((rng.standard_normal(s) / 24).astype(np.float32), n)
        for n, s in zip(names, shapes, strict=True)
    ]
    nodes = [
        helper.make_node("Conv", [f"x{i}", n], [f"x{i + 1}"], name=n, pads=[1, 1, 1, 1])
        for i, n in enumerate(names)
    ]
    graph = helper.make_graph(
        nodes,
        "slow",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, [1, 3, 96, 96])],
        [helper.make_tensor_value_info("x12", TensorProto.FLOAT, [1, 64, 96, 96])],
        tensors,
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path
    )


def test_an_operator_that_webgpu_lacks_fails_the_variant_by_name(tmp_path: Path) -> None:
    model = linear()
    model.graph.node.insert(
        2, helper.make_node("Reshape", ["r", "shape"], ["square"], name="to_square")
    )
    model.graph.node.append(helper.make_node("Det", ["square"], ["det"], name="the_determinant"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1, 4, 4], np.int64), "shape"))
    model.graph.output.append(helper.make_tensor_value_info("det", TensorProto.FLOAT, ["n"]))
    onnx.save(model, tmp_path / "det.onnx")
    done = subprocess.run(
        write(tmp_path, {"det": "webgpu, wasm"}), capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 1
    found = results(tmp_path)
    assert found["det/webgpu/fp32"]["status"] == "failed"
    assert any("Det" in reason for reason in found["det/webgpu/fp32"]["reasons"])
    assert found["det/webgpu/fp32"]["verification"]["placement"]["elsewhere"]["Det"] == 1
    assert found["det/wasm/fp32"]["status"] == "passed"
    assert "Det" in done.stdout + done.stderr


def browser_at_work(run: psutil.Process) -> psutil.Process:
    """The run's browser, once a page of a package is open in it."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        for child in run.children(recursive=True):
            try:
                said = child.cmdline()
            except psutil.Error:
                continue
            profile = next(
                (a.partition("=")[2] for a in said if a.startswith("--user-data-dir=")), None
            )
            if profile is None or any(a.startswith("--type=") for a in said):
                continue
            try:
                port = int((Path(profile) / "DevToolsActivePort").read_text().splitlines()[0])
                with urllib.request.urlopen(
                    f"http://127.0.0.1:{port}/json/list", timeout=5
                ) as answer:
                    if any(
                        page["url"].startswith("http://127.0.0.1") for page in json.load(answer)
                    ):
                        return child
            except (OSError, ValueError, IndexError):
                pass
        time.sleep(0.05)
    raise AssertionError("no browser opened a package")


def test_a_browser_killed_in_the_middle_costs_one_variant(tmp_path: Path) -> None:
    slow(tmp_path / "slow.onnx")
    write_linear(tmp_path / "quick.onnx")
    command = [*write(tmp_path, {"slow": "webgpu", "quick": "wasm"}), "--jobs", "1"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        os.kill(browser_at_work(psutil.Process(process.pid)).pid, signal.SIGKILL)
        said, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 1, said
    found = results(tmp_path)
    assert found["slow/webgpu/fp32"]["status"] == "error"
    assert "browser" in found["slow/webgpu/fp32"]["error"]["message"]
    assert found["quick/wasm/fp32"]["status"] == "passed"
    again = subprocess.run(
        [*command, "--only", "quick/*"], capture_output=True, text=True, timeout=SECONDS
    )
    assert again.returncode == 0
    assert not list((tmp_path / "store").rglob("tmp-*"))
