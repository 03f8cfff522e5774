"""int8-static on the real examples: calibrated, verified against the source, by the command
line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MANIFEST = """
version: 1
models:
  - name: minilm
    source: minilm/model
    targets: [onnx:int8-static]
  - name: digits
    source: {format: pytorch, path: digits/weights/digits.pt, factory: "digits.net:build"}
    inputs:
      image: {shape: [batch, 1, 8, 8], dtype: float32}
    samples: digits/samples/digits.npz
    calibration: {data: digits/samples/calibration.npz, method: percentile}
    evaluate: {labels: label, metric: accuracy, max_drop: 0.005}
    targets:
      - onnx:int8-static
      - openvino: {precision: [int8-static, int4]}
"""


@pytest.fixture(scope="module")
def variants(examples: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    base = tmp_path_factory.mktemp("static")
    for name in ("minilm", "digits"):
        shutil.copytree(examples / name, base / name)
    (base / "models.yml").write_text(MANIFEST)
    argv = [
        "run",
        str(base / "models.yml"),
        "--out",
        str(base / "out"),
        "--store",
        str(base / "store"),
        "--no-measure",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "mconv", *argv], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return {v["id"]: v for v in json.loads((base / "out" / "results.json").read_text())["variants"]}


def test_minilm_keeps_its_cosine_with_activations_on_8_bits(variants: dict[str, dict]) -> None:
    found = variants["minilm/onnx/int8-static"]
    cosine = {o["name"]: o["cosine"] for o in found["verification"]["outputs"]}
    assert 0.997 <= cosine["last_hidden_state"] < 0.99999
    assert found["size_bytes"] < 0.27 * 90.9e6
    operators = found["info"]["operators"]
    assert operators["QuantizeLinear"] >= 20
    (notes,) = [s["notes"] for s in found["steps"] if s["kind"] == "quantize"]
    assert any(n.startswith("kept in float for their error: MatMul") for n in notes)


def test_digits_keep_their_accuracy(variants: dict[str, dict]) -> None:
    for name in ("onnx/int8-static", "openvino/int8-static", "openvino/int4"):
        told = variants[f"digits/{name}"]["evaluation"]
        assert told["drop"] <= 0.005
        assert told["source"] > 0.97
    assert variants["digits/onnx/int8-static"]["info"]["operators"]["Conv"] == 2
    assert variants["digits/onnx/int8-static"]["info"]["operators"]["QuantizeLinear"] >= 5
