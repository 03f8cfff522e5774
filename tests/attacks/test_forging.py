"""One model changes nothing of another: not its answers, its files, its code, its verdict."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mconv.answers import VerifyAnswer
from mconv.values import OutputError, Placement, to_json
from mconv.workers.messages import Response
from tests.attacks import harness
from tests.attacks.harness import Hostile

VICTIMS = """
  - {name: victim, source: linear.onnx, targets: [onnx]}
  - name: strict
    source: strict.onnx
    tolerance: {cosine: 0.99999999, max_abs: 0.0000001}
    targets: ["onnx:int8"]
  - {name: honest, source: {path: w.pt, factory: 'misbehaving:patient'}, inputs: {x: {shape: [batch, 4]}}, targets: [onnx]}
"""


def write_strict(path: Path) -> None:
    """A model whose int8 is not as good as its tolerance."""
    weights = np.random.default_rng(1).standard_normal((64, 32)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "strict",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 32])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)


def forge_answer() -> str:
    """The answer of a verification in which nothing differs."""
    output = OutputError(
        name="y",
        elements=1024,
        max_abs=0.0,
        mean_abs=0.0,
        max_rel=0.0,
        cosine=1.0,
        cosine_min=1.0,
        sqnr_db=200.0,
        nrmse=0.0,
        nrmse_row=0.0,
        compared=1.0,
    )
    answer = VerifyAnswer(
        runtime="onnxruntime",
        placement=Placement(provider="CPUExecutionProvider", device="cpu", nodes=1),
        samples=8,
        reference="source",
        outputs=(output,),
    )
    return to_json(Response(answer=answer))


def hash_files(folder: Path, names: list[str]) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


@pytest.mark.parametrize("mode", harness.MODES)
def test_no_model_changes_another(mode: str) -> None:
    harness.require(mode)
    models = [
        Hostile("later", "forging:forge_later"),
        Hostile("forger", "forging:forge", "resources: {timeout: 40s}"),
    ]
    with (
        harness.repository(models, VICTIMS) as place,
        harness.Watch("mconv-attack:forger") as watch,
    ):
        write_strict(place / "strict.onnx")
        (place / "forged.json").write_text(forge_answer())
        names = sorted(str(p.relative_to(place)) for p in place.glob("*.*") if p.is_file())
        before = hash_files(place, names)
        run = harness.run(place, mode)
        assert run.code == 1, run.printed
        variants = run.variants()
        assert variants["victim"]["status"] == "passed", run.printed
        assert variants["honest"]["status"] == "passed", run.printed
        assert variants["strict"]["status"] == "failed", run.printed
        assert "forged: {}" in variants["forger"]["error"]["message"]
        assert variants["later"]["status"] == "error"
        assert all(life < 5 for life in watch.lives.values())
        assert hash_files(place, names) == before
        for folder in ("store", "out"):
            for path in (place / folder).rglob("*"):
                assert not path.is_symlink()
                assert path.is_dir() or not path.read_bytes().startswith(b"POISONED")
        for line in (run.out / "SHA256SUMS").read_text().splitlines():
            digest, name = line.split(maxsplit=1)
            assert hashlib.sha256((run.out / name.lstrip("*")).read_bytes()).hexdigest() == digest
        assert "CANARY" not in run.printed + json.dumps(run.report)
