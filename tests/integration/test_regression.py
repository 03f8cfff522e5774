"""The regression gate on real runs: a worse model fails with both numbers, the same model never
does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save

from mconv.__main__ import main

MANIFEST = """version: 1
defaults: {tolerance: {cosine: 0.5, max_rel: 1}}
models:
  - {name: net, source: net.onnx, samples: samples.npz, targets: [onnx, "onnx:fp16"]}
"""
HIDDEN, WIDER = 400, 440


def network(hidden: int, noise: float) -> Any:
    """[batch, 32] → Gemm, ReLU, Gemm → [batch, 16]: WIDER has a tenth more weights, ``noise`` turns
    its answers away."""
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((32, HIDDEN)), rng.standard_normal((HIDDEN, 16))
    more = np.random.default_rng(1)
    second = second + noise * more.standard_normal(second.shape)
    first = np.concatenate([first, more.standard_normal((32, hidden - HIDDEN))], 1)
    second = np.concatenate([second, 1e-4 * more.standard_normal((hidden - HIDDEN, 16))])
    tensors = [
        numpy_helper.from_array(v.astype(np.float32), n)
        for n, v in (("first", first), ("second", second))
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "second"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 32])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 16])
    return helper.make_model(
        helper.make_graph(nodes, "net", [x], [y], tensors),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )


def answer(x: np.ndarray) -> np.ndarray:
    """What the undisturbed network says, in NumPy."""
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((32, HIDDEN)), rng.standard_normal((HIDDEN, 16))
    return (np.maximum(x @ first.astype(np.float32), 0) @ second.astype(np.float32)).astype(
        np.float32
    )


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A project after a run; results.json of the base branch."""
    x = np.random.default_rng(7).standard_normal((64, 32)).astype(np.float32)
    np.savez(tmp_path / "samples.npz", x=x, y=answer(x))
    save(network(HIDDEN, 0.0), tmp_path / "net.onnx")
    (tmp_path / "models.yml").write_text(MANIFEST)
    assert run(tmp_path, "base") == 0
    return tmp_path / "base/results.json"


def run(folder: Path, out: str, *argv: str) -> int:
    where = ["--out", str(folder / out), "--store", str(folder / f"store-{out}")]
    return main(["run", str(folder / "models.yml"), *where, "--fail-on", "regression", *argv])


def test_a_worse_model_fails_with_both_numbers(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(network(WIDER, 0.33), tmp_path / "net.onnx")
    assert run(tmp_path, "worse", "--baseline", str(base)) == 1
    report = json.loads((tmp_path / "worse/results.json").read_text())
    for variant in report["variants"]:
        # right enough for its tolerance: only the gate fails the run
        assert variant["status"] == "passed"
        deltas = {delta["name"]: delta for delta in variant["baseline"]}
        assert deltas["size"]["after"] / deltas["size"]["before"] == pytest.approx(1.10, abs=0.01)
        assert deltas["cosine"]["after"] - deltas["cosine"]["before"] == pytest.approx(
            -0.05, abs=0.01
        )
        assert deltas["size"]["regression"]
        assert deltas["cosine"]["regression"]
    said = capsys.readouterr().err
    assert "regression: size" in said
    assert "regression: cosine" in said
    assert "+10." in (tmp_path / "worse/report.md").read_text().replace("&#43;", "+")


def test_the_same_model_never_regresses_in_ten_runs(base: Path, tmp_path: Path) -> None:
    """Each with a store of its own, so that everything is measured anew."""
    for index in range(10):
        assert run(tmp_path, f"again-{index}", "--baseline", str(base)) == 0
        report = json.loads((tmp_path / f"again-{index}/results.json").read_text())
        assert report["summary"]["regressions"] == 0
