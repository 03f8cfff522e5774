"""Plans: which variants get calibration samples, and what reaches the quantizer."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mconv import registry
from mconv.environments import tools
from mconv.errors import UnsupportedError
from mconv.manifest import reader
from mconv.planning import costs, keys, planner
from mconv.steps.requests import EvaluateRequest
from mconv.values import OWN
from tests.models import write_linear

TEXT = """
version: 1
models:
  - name: m
    source: m.onnx
    calibration: {method: percentile}
    targets:
      - onnx
      - onnx:int8-static
      - onnx:int8
      - openvino: {precision: [int8, int8-static, int4]}
  - name: own
    source: m.onnx
    calibration: {method: percentile}
    targets:
      - onnx: {precision: int8-static, ranges: entropy}
"""


def test_calibration_goes_where_it_is_used(tmp_path: Path) -> None:
    write_linear(tmp_path / "m.onnx")
    (tmp_path / "models.yml").write_text(TEXT)
    made = planner.make_plan(reader.load(tmp_path / "models.yml"), measure=False)
    calibrated = {v.id for v in made.variants if "calibrate" in v.steps}
    assert calibrated == {
        "m/onnx/int8-static",
        "m/openvino/int8-static",
        "m/openvino/int4",
        "own/onnx/int8-static",
    }
    by_id = {v.id: {kind: made.steps[key] for kind, key in v.steps.items()} for v in made.variants}
    assert by_id["m/onnx/int8-static"]["quantize"].request.options["ranges"] == "percentile"
    assert by_id["own/onnx/int8-static"]["quantize"].request.options["ranges"] == "entropy"
    for variant in by_id.values():
        last = variant["quantize"] if "quantize" in variant else variant["write"]
        assert ("calibration" in last.inputs) == ("calibrate" in variant)


def test_the_machine_is_in_the_keys_of_measurements_alone(tmp_path: Path) -> None:
    write_linear(tmp_path / "m.onnx")
    (tmp_path / "models.yml").write_text(
        "version: 1\nmodels: [{name: m, source: m.onnx, targets: [onnx, openvino]}]\n"
    )
    loaded = reader.load(tmp_path / "models.yml")
    one, many = (planner.make_plan(loaded, threads=threads) for threads in (1, 8))
    changed = {one.steps[key].kind for key in one.steps.keys() - many.steps.keys()}
    assert changed == {"measure"}
    requests = [many.steps[key].request for key in many.steps]
    assert {r.threads for r in requests if r.kind in ("verify", "measure")} == {8}


MODULES = {
    "measure": {"measure"},
    "verify": {"verify"},
    "reference": {"reference", "calibrate"},
    "convert": {"export", "optimize", "quantize", "write"},
    "reload": {"weights", "reference", "calibrate", "verify", "measure"},
}


@pytest.mark.parametrize(("module", "kinds"), MODULES.items(), ids=MODULES)
def test_a_change_of_a_step_redoes_what_it_does_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, kinds: set[str]
) -> None:
    """What else changes reads files of a step that changed."""
    write_linear(tmp_path / "m.onnx")
    (tmp_path / "models.yml").write_text(TEXT + WEIGHTS_TARGET)
    loaded = reader.load(tmp_path / "models.yml")
    before = planner.make_plan(loaded)
    real = keys.hash_file

    def change(path: Path) -> str:
        changed = path.parent.name == "steps" and path.name == f"{module}.py"
        return "changed" if changed else real(path)

    monkeypatch.setattr(keys, "hash_file", change)
    for cached in (keys.digest_code, keys._read_source):
        cached.cache_clear()
    after = planner.make_plan(loaded)
    for cached in (keys.digest_code, keys._read_source):
        cached.cache_clear()
    redone = [after.steps[key] for key in after.steps.keys() - before.steps.keys()]
    first = {
        step.kind for step in redone if all(key in before.steps for key in step.inputs.values())
    }
    assert first <= kinds
    assert kinds & {step.kind for step in redone}
    if module == "measure":
        assert {step.kind for step in redone} == {"measure"}


WEIGHTS_TARGET = """
  - name: weights
    source: m.onnx
    targets: [parquet]
"""


def test_planning_imports_no_plug_in_helper_and_no_numpy() -> None:
    """Keys hold the code of plug-ins, found by path: importing their helpers would load engines."""
    code = (
        "import sys; from mconv.planning import keys; "
        "keys.digest_code('mconv.quantizers.nbits'); print(sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'numpy'" not in done.stdout
    assert "mconv.quantizers._nbits" not in done.stdout


WEIGHTS = """
version: 1
models:
  - name: m
    source: m.onnx
    samples: s.npz
    evaluate: {labels: y}
    targets:
      - onnx
      - parquet: {precision: [fp32, fp16]}
      - parquet: {as: half, dtype: float16}
      - parquet: {as: part, part: encoder}
"""


def test_weights_need_no_graph_and_are_taken_once(tmp_path: Path) -> None:
    write_linear(tmp_path / "m.onnx")
    (tmp_path / "s.npz").write_bytes(b"not read when planning")
    (tmp_path / "models.yml").write_text(WEIGHTS)
    made = planner.make_plan(reader.load(tmp_path / "models.yml"))
    by_id = {v.id: v.steps for v in made.variants}
    assert list(by_id["m/parquet/fp32"]) == ["weights", "reference", "write", "verify", "measure"]
    assert (
        by_id["m/parquet/fp32"]["weights"]
        == by_id["m/half/fp16"]["weights"]
        != by_id["m/part/fp32"]["weights"]
    )
    assert by_id["m/parquet/fp16"]["write"] != by_id["m/parquet/fp32"]["write"]
    verified = {name: made.steps[steps["verify"]].request for name, steps in by_id.items()}
    assert verified["m/parquet/fp32"].evaluate == EvaluateRequest(metric="accuracy")
    assert verified["m/part/fp32"].evaluate is None  # the labels are of the whole model
    for step in made.steps.values():
        assert costs.estimate_seconds(step) > 0
        assert costs.estimate_memory(step) > 0


PATHLESS = """
version: 1
models:
  - name: m
    source: {{format: pytorch, factory: "{}"}}
    inputs: {{x: {{shape: [batch, 2]}}}}
    targets: [onnx]
"""


def test_a_model_without_a_path_is_shown_and_keyed_by_its_code(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    for folder in ("deploy", "src/a", "src/b"):
        (tmp_path / folder).mkdir(parents=True)
    manifest = tmp_path / "deploy/models.yml"
    manifest.write_text(PATHLESS.format("../src/a/net.py:build"))
    (tmp_path / "src/a/net.py").write_text("import other\ndef build(): pass\n")
    (tmp_path / "src/a/other.py").write_text("x = 1\n")

    def plan() -> tuple[str, str]:
        made = planner.make_plan(reader.load(manifest))
        assert (made.models["m"].path, made.models["m"].size_bytes) == (shown, 0)
        return made.models["m"].digest, made.variants[0].steps["export"]

    shown = "../src/a/net.py:build"
    before = plan()
    assert plan() == before
    (tmp_path / "src/b/unused.py").write_text("x = 2\n")
    assert plan() == before
    (tmp_path / "src/a/other.py").write_text("x = 2\n")
    changed = plan()
    assert changed[0] != before[0]
    assert changed[1] != before[1]
    manifest.write_text(PATHLESS.format("../src/a/net.py:build") + "    pythonpath: ../src/b\n")
    elsewhere = plan()
    assert elsewhere[0] == changed[0]
    assert elsewhere[1] != changed[1]
    shown = "collections:OrderedDict"
    manifest.write_text(PATHLESS.format(shown))
    assert plan()[0] != elsewhere[0]


def test_a_gpu_is_in_the_keys_of_what_runs_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tool is what the options name, and the source runs beside it without the GPU."""
    write_linear(tmp_path / "m.onnx")
    (tmp_path / "models.yml").write_text(
        "version: 1\nmodels: [{name: m, source: m.onnx, targets: [onnx, "
        "{onnx: {provider: cuda, as: gpu}}]}]\n"
    )
    monkeypatch.setenv("MCONV_ENVIRONMENTS", str(tmp_path / "environments"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    tools._find_tool.cache_clear()
    loaded = reader.load(tmp_path / "models.yml")
    plans = []
    for name in ("NVIDIA L4", "NVIDIA H200", None):
        runtime = registry.runtimes()["onnxruntime"]

        def find(options: Any, name: str | None = name) -> str | None:
            if options["provider"] == "cuda" and name is None:
                raise UnsupportedError("none")
            return name if options["provider"] == "cuda" else None

        everything = {**registry.runtimes(), "onnxruntime": replace(runtime, accelerator=find)}
        monkeypatch.setattr(registry, "runtimes", lambda everything=everything: everything)
        plans.append(planner.make_plan(loaded))
    first, *others = [{v.id: v.steps for v in plan.variants} for plan in plans]
    for other in others:
        assert other["m/onnx/fp32"] == first["m/onnx/fp32"]
        changed = {k for k, key in first["m/gpu/fp32"].items() if key != other["m/gpu/fp32"][k]}
        assert changed == {"verify", "measure"}
    assert first["m/onnx/fp32"]["write"] == first["m/gpu/fp32"]["write"], "it is no part of it"
    steps = plans[0].steps
    measure = steps[first["m/gpu/fp32"]["measure"]]
    assert measure.interpreter.name == "cuda"
    assert measure.interpreter.variables == {"CUDA_VISIBLE_DEVICES": "0"}
    assert measure.request.beside == OWN, "the source sees no GPU"
    assert measure.tools["onnxruntime-gpu"].startswith("1.31")
    assert "onnxruntime" not in steps[first["m/gpu/fp32"]["verify"]].tools
    plain = steps[first["m/onnx/fp32"]["measure"]]
    assert (plain.interpreter, plain.request.beside) == (OWN, None)
    assert "onnxruntime" in plain.tools
