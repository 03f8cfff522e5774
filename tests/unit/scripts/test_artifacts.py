"""The normal form of a graph: the same however it was written, another for every change that
matters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from scripts import artifacts


def model() -> onnx.ModelProto:
    """Two branches that meet, one with a tensor attribute."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])
    constant = helper.make_tensor("c", TensorProto.FLOAT, [4], [1.0, 2.0, 3.0, 4.0])
    nodes = [
        helper.make_node("Constant", [], ["k"], value=constant),
        helper.make_node("Mul", ["x", "k"], ["a"], name="left"),
        helper.make_node("MatMul", ["x", "w"], ["b"], name="right"),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    weights = numpy_helper.from_array(np.arange(16, dtype=np.float32).reshape(4, 4), "w")
    graph = helper.make_graph(nodes, "g", [x], [y], [weights])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def digest(tmp_path: Path, changed: onnx.ModelProto, **options: object) -> str:
    path = tmp_path / "model.onnx"
    onnx.save(changed, path, **options)  # type: ignore[arg-type]
    return artifacts.digest_graph(path)


def reorder(changed: onnx.ModelProto) -> None:
    nodes = list(changed.graph.node)
    del changed.graph.node[:]
    changed.graph.node.extend([nodes[2], nodes[0], nodes[1], nodes[3]])


def write_typed(changed: onnx.ModelProto) -> None:
    tensor = changed.graph.initializer[0]
    values = numpy_helper.to_array(tensor).ravel().tolist()
    tensor.ClearField("raw_data")
    tensor.float_data.extend(values)


def set_producer(changed: onnx.ModelProto) -> None:
    changed.producer_name = "somebody"
    changed.graph.doc_string = "something"


@pytest.mark.parametrize("write", [reorder, write_typed, set_producer])
def test_the_same_graph_written_otherwise(
    tmp_path: Path, write: Callable[[onnx.ModelProto], None]
) -> None:
    other = model()
    write(other)
    assert digest(tmp_path, other) == digest(tmp_path, model())


def test_external_data_is_read(tmp_path: Path) -> None:
    outside = digest(tmp_path, model(), save_as_external_data=True, size_threshold=0)
    assert (tmp_path / "model.onnx").stat().st_size < 600
    assert outside == digest(tmp_path, model())


def change_byte(changed: onnx.ModelProto) -> None:
    data = bytearray(changed.graph.initializer[0].raw_data)
    data[0] ^= 1
    changed.graph.initializer[0].raw_data = bytes(data)


def change_attribute(changed: onnx.ModelProto) -> None:
    changed.graph.node[0].attribute[0].t.float_data[0] = 9.0


def change_name(changed: onnx.ModelProto) -> None:
    changed.graph.node[1].name = "other"


def change_type(changed: onnx.ModelProto) -> None:
    changed.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 5


def change_opset(changed: onnx.ModelProto) -> None:
    changed.opset_import[0].version = 18


def swap_operands(changed: onnx.ModelProto) -> None:
    changed.graph.node[3].input[:] = ["b", "a"]


@pytest.mark.parametrize(
    "change", [change_byte, change_attribute, change_name, change_type, change_opset, swap_operands]
)
def test_every_change_is_seen(tmp_path: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    other = model()
    change(other)
    assert digest(tmp_path, other) != digest(tmp_path, model())


def test_outputs_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    before.write_text("1 g e/model.onnx\n2 - e/graph.mjs\n")
    after.write_text("3 g e/model.onnx\n2 - e/graph.mjs\n")
    assert artifacts.compare(before, after) == 0
    assert "other bytes, the same graph" in capsys.readouterr().out
    after.write_text("3 h e/model.onnx\n2 - e/graph.mjs\n")
    assert artifacts.compare(before, after) == 1
    after.write_text("1 g e/model.onnx\n4 - e/graph.mjs\n")
    assert artifacts.compare(before, after) == 1
