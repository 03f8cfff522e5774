"""Small constants stay: no pass takes 10⁻¹⁰ for 0, or 1 + 10⁻⁶ for 1."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from mconv import registry


def write(path: Path, operator: str, constant: float) -> Path:
    """A graph that combines its input with a constant, and takes the logarithm."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node(operator, ["x", "c"], ["s"]), helper.make_node("Log", ["s"], ["y"])],
        "g",
        [value("x", TensorProto.FLOAT, ["n"])],
        [value("y", TensorProto.FLOAT, ["n"])],
        [numpy_helper.from_array(np.array(constant, np.float32), "c")],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path
    )
    return path


@pytest.mark.parametrize("optimizer", ["onnxscript", "onnxslim"])
@pytest.mark.parametrize(
    ("operator", "constant"),
    [("Add", 1e-10), ("Sub", -1e-10), ("Mul", 1 + 5e-6), ("Div", 1 - 5e-6)],
)
def test_constants_near_nothing_are_kept(
    tmp_path: Path, optimizer: str, operator: str, constant: float
) -> None:
    model = write(tmp_path / "model.onnx", operator, constant)
    (tmp_path / "out").mkdir()
    registry.optimizers()[optimizer].optimize(model, tmp_path / "out/model.onnx", level="basic")
    operators = [node.op_type for node in onnx.load(tmp_path / "out/model.onnx").graph.node]
    assert operators == [operator, "Log"]
    x = np.array([0.0 if operator in ("Add", "Sub") else 1.0, 3.0], np.float32)
    answer = onnxruntime.InferenceSession(str(tmp_path / "out/model.onnx")).run(None, {"x": x})[0]
    combined = {
        "Add": x + np.float32(constant),
        "Sub": x - np.float32(constant),
        "Mul": x * np.float32(constant),
        "Div": x / np.float32(constant),
    }[operator]
    np.testing.assert_allclose(answer, np.log(combined), rtol=1e-5)


def test_a_shape_and_a_number_stay_small(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info
    two = numpy_helper.from_array(np.full(1, 2, np.float32))
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("ConstantOfShape", ["s"], ["c"], value=two),
        helper.make_node("Add", ["x", "c"], ["y"]),
    ]
    ports = [[value(name, TensorProto.FLOAT, [1, 256, 256, 4])] for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", *ports)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "model.onnx")
    (tmp_path / "out").mkdir()
    for name in ("onnxscript", "onnxslim"):
        out = tmp_path / f"out/{name}.onnx"
        registry.optimizers()[name].optimize(tmp_path / "model.onnx", out, level="basic")
        assert out.stat().st_size < 2000
