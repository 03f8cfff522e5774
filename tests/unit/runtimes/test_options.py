"""Options of runtimes: checked at their place, no part of the artifact, in force when it is run,
and recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mconv import api, registry
from mconv.errors import ManifestError
from mconv.manifest import config as manifest_config
from mconv.manifest import options as manifest_options
from mconv.manifest import reader
from mconv.planning import planner, step_graph
from mconv.runtimes import onnxruntime as ort
from mconv.runtimes import openvino
from mconv.steps.requests import MeasureRequest, VerifyRequest
from tests.models import write_linear
from tests.unit.formats.files import MADE

pytestmark = pytest.mark.filterwarnings("ignore")
HEAD = "version: 1\nmodels:\n  - name: net\n    source: model.onnx\n    targets:\n"


def planned(folder: Path, target: str) -> step_graph.Plan:
    write_linear(folder / "model.onnx")
    (folder / "models.yml").write_text(HEAD + f"      - {target}\n")
    return planner.make_plan(reader.load(folder / "models.yml"), threads=4)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("onnx: {threads: 0}", "6:25: threads must be at least 1"),
        (
            "onnx: {graph_optimization: most}",
            "6:36: graph_optimization must be one of all, extended, basic, none",
        ),
        (
            "openvino: {inference_precision: f8}",
            "6:41: inference_precision must be one of f32, bf16, f16",
        ),
        ("openvino: {arena: false}", "'arena'"),
        ("wasm: {spinning: false}", "'spinning'"),
    ],
)
def test_wrong_ones_are_said_at_their_place(target: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ManifestError) as caught:
        planned(tmp_path, target)
    assert message in str(caught.value)


def test_they_change_how_it_is_run_and_not_what_is_written(tmp_path: Path) -> None:
    plain, tuned = (planned(tmp_path, t) for t in ("onnx", "onnx: {threads: 2, arena: false}"))
    before, after = (p.variants[0].steps for p in (plain, tuned))
    assert {k for k in before if before[k] != after[k]} == {"verify", "measure"}
    for kind in ("verify", "measure"):
        request = tuned.steps[after[kind]].request
        assert isinstance(request, VerifyRequest | MeasureRequest)
        assert request.threads == 2
        assert request.artifact.options["arena"] is False
        assert plain.steps[before[kind]].request.threads == 4


def test_a_measurement_is_of_its_options(tmp_path: Path) -> None:
    keys = {
        planned(tmp_path, t).variants[0].steps["measure"]
        for t in ("onnx", "onnx: {arena: false}", "onnx: {spinning: false}")
    }
    assert len(keys) == 3


def test_every_target_keeps_its_names_apart() -> None:
    for target in registry.targets().values():
        taken = {
            *target.options,
            *manifest_config.VARIANT_KEYS,
            *(k for q in registry.quantizers().values() for k in q.options),
        }
        assert not taken & manifest_options.list_runtime_options(target).keys(), target.name


def test_they_are_in_results_and_in_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_linear(tmp_path / "model.onnx")
    targets = [
        {"onnx": {"graph_optimization": "none", "threads": 1}},
        {"openvino": {"hint": "throughput", "threads": 1}},
    ]
    report = api.convert("model.onnx", targets, out="out", measure=True)
    first, second = report.variants
    assert (
        "Options: threads: 1, graph_optimization: none, arena: true"
        in (tmp_path / "out/report.html").read_text()
    )
    assert first.options == {**first.options, "graph_optimization": "none", "threads": 1}
    assert first.verification is not None
    assert first.verification.details["graph_optimization"] == "none"
    assert second.verification is not None
    assert second.verification.details["hint"] == "throughput"
    assert [v.benchmark.threads for v in report.variants if v.benchmark] == [1, 1]
    assert (
        api.verify("out/model/onnx-fp32", against="model.onnx").details["graph_optimization"]
        == "none"
    )


def session(folder: Path, module: Any, **options: Any) -> Any:
    return module.load(folder, options=options, threads=1, precision="fp32")


def test_onnxruntime_obeys(tmp_path: Path) -> None:
    write_linear(tmp_path / "model.onnx")
    feed = {"x": np.ones((2, 8), np.float32)}
    counts = {}
    for level in ("all", "none"):
        opened = session(
            tmp_path,
            ort,
            graph_optimization=level,
            arena=False,
            spinning=False,
            flush_denormals=True,
        )
        opened.run(feed)
        counts[level] = opened.placement().nodes
        assert not opened.session.get_session_options().enable_cpu_mem_arena
        assert opened.details()["flush_denormals"] is True
    assert counts["all"] < counts["none"] == 3  # Gemm and Relu fused


def test_openvino_obeys(tmp_path: Path) -> None:
    MADE["ir.xml"][1](tmp_path / "openvino_model.xml")
    plain = session(tmp_path, openvino).details()
    assert (plain["inference_precision"], plain["hint"], plain["dynamic_quantization"]) == (
        "f32",
        "latency",
        32,
    )
    tuned = session(tmp_path, openvino, hint="throughput", dynamic_quantization=0).details()
    assert (tuned["hint"], tuned["dynamic_quantization"]) == ("throughput", 0)
