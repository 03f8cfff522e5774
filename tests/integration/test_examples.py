"""The examples as a user runs them: every variant passes, with the numbers the README promises."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

PRECISIONS = {"fp32", "fp16", "int8"}
BOTH = {f"{target}/{p}" for target in ("webgpu", "webnn") for p in ("fp32", "int8", "int4")} | {
    *("webnn/fp16", "wasm/fp32", "wasm/int8", "webnn-ort/fp32", "webnn-ort/int8"),
}
WEB = {
    "digits": BOTH | {"webgl/fp32", "parquet/fp16"},
    "minilm": BOTH | {"wasm/int4", "parquet/fp32", "parquet/fp16"},
}


@pytest.fixture(scope="module")
def results(
    examples: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[dict, Path]]:
    """Results and output folder of each example, run by the command line without measurements but
    for the digits."""
    found = {}
    base = tmp_path_factory.mktemp("examples")
    for name in ("digits", "minilm", "keras", "ready"):
        argv = [
            "run",
            str(examples / name / "models.yml"),
            "--out",
            str(base / name),
            "--store",
            str(base / "store"),
        ]
        extra = [] if name == "digits" else ["--no-measure"]
        done = subprocess.run(
            [sys.executable, "-m", "mconv", *argv, *extra],
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert done.returncode == 0, done.stderr
        found[name] = (json.loads((base / name / "results.json").read_text()), base / name)
    return found


@pytest.mark.parametrize("name", ["digits", "minilm", "keras", "ready"])
def test_every_variant_passes_with_numbers(
    results: dict[str, tuple[dict, Path]], name: str
) -> None:
    whole, out = results[name]
    listed = {v["id"].partition("/")[2] for v in whole["variants"]}
    assert listed == {f"{t}/{p}" for t in ("onnx", "openvino") for p in PRECISIONS} | WEB.get(
        name, set()
    )
    for variant in whole["variants"]:
        assert variant["status"] == "passed"
        assert variant["size_bytes"] > 0
        found = variant["verification"]
        # frameworks do not count theirs
        assert (found["placement"]["nodes"] or 0) > 0 or variant["target"] == "parquet"
        assert found["placement"]["elsewhere"] == found["placement"]["allowed"]
        assert found["placement"]["witnesses"] or variant["target"] in ("onnx", "openvino")
        assert all(o["cosine"] is not None for o in found["outputs"])
        for record in variant["files"]:
            assert (out / variant["directory"] / record["path"]).stat().st_size == record["bytes"]
    assert (out / "report.html").stat().st_size > 5000
    assert (
        subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=out).returncode == 0
    )


def by_id(whole: dict) -> dict[str, dict]:
    return {v["id"]: v for v in whole["variants"]}


def test_digits_accuracy_is_that_of_the_artifact(
    results: dict[str, tuple[dict, Path]], examples: Path
) -> None:
    whole, out = results["digits"]
    data = np.load(examples / "digits/samples/digits.npz")
    for precision in PRECISIONS:
        session = onnxruntime.InferenceSession(str(out / f"digits/onnx-{precision}/model.onnx"))
        accuracy = float(
            (session.run(None, {"image": data["image"]})[0].argmax(1) == data["label"]).mean()
        )
        told = by_id(whole)[f"digits/onnx/{precision}"]["evaluation"]
        assert told["variant"] == pytest.approx(accuracy, abs=2 / len(data["label"]))
        assert told["drop"] <= 0.005
        assert told["source"] > 0.97
    benchmark = by_id(whole)["digits/onnx/fp32"]["benchmark"]
    # over the faster half of the rounds, where the medians are over all
    assert benchmark["speedup_low"] <= benchmark["speedup"] <= benchmark["speedup_high"]
    assert benchmark["speedup"] == pytest.approx(
        benchmark["reference"]["p50_ms"] / benchmark["latency"]["p50_ms"], rel=0.5
    )
    assert benchmark["peak_rss_bytes"] > 10_000_000


def test_minilm_int8_shows_its_real_cosine_and_size(results: dict[str, tuple[dict, Path]]) -> None:
    variants = by_id(results["minilm"][0])
    whole = variants["minilm/onnx/fp32"]["size_bytes"]
    assert variants["minilm/onnx/int8"]["size_bytes"] < 0.26 * whole
    cosine = {
        o["name"]: o["cosine"] for o in variants["minilm/onnx/int8"]["verification"]["outputs"]
    }
    # int8 is not exact, and the report does not say so
    assert 0.98 < cosine["last_hidden_state"] < 0.9999
    exact = {
        o["name"]: o["cosine"] for o in variants["minilm/onnx/fp32"]["verification"]["outputs"]
    }
    assert exact["last_hidden_state"] > 0.999999


def test_minilm_in_the_browser_loads_no_runtime(results: dict[str, tuple[dict, Path]]) -> None:
    found = by_id(results["minilm"][0])["minilm/webnn/fp32"]
    assert min(o["cosine"] for o in found["verification"]["outputs"]) >= 0.9999
    assert found["verification"]["details"]["requests"] == [
        "/graph.mjs",
        "/index.mjs",
        "/runtime.mjs",
        "/weights.bin",
    ]
    assert found["verification"]["placement"]["provider"] == "WebNN"
    assert 0 < found["download_bytes"] < found["size_bytes"]


def test_minilm_in_parquet_is_smaller_than_its_safetensors(
    results: dict[str, tuple[dict, Path]], examples: Path
) -> None:
    whole = (examples / "minilm/model/model.safetensors").stat().st_size
    for precision, share in (("fp32", 0.85), ("fp16", 0.45)):
        found = by_id(results["minilm"][0])[f"minilm/parquet/{precision}"]
        sizes = {f["path"]: f["bytes"] for f in found["files"]}
        assert sizes["weights.parquet"] < share * whole
        assert {"config.json", "tokenizer.json"} <= sizes.keys()
    details = by_id(results["minilm"][0])["minilm/parquet/fp32"]["verification"]["details"]
    assert details["bit_exact"] == details["tensors"] > 100


def test_the_ready_example_is_held_to_its_authors_outputs(
    results: dict[str, tuple[dict, Path]],
) -> None:
    for variant in results["ready"][0]["variants"]:
        assert variant["verification"]["reference"] == "expected"
