"""What is written for OpenVINO has the ONNX graph's names, whatever OpenVINO drops on the way."""

from __future__ import annotations

from pathlib import Path

import onnx
import openvino
import pytest
from onnx import TensorProto, helper

from mconv import registry


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_port_has_one_name(precision: str, tmp_path: Path) -> None:
    """A Cast to the type that the input has already, as traces have them, would give the input its
    own name too."""
    nodes = [
        helper.make_node("Cast", ["x"], ["a_cast"], to=TensorProto.FLOAT),
        helper.make_node("Relu", ["a_cast"], ["r"]),
        helper.make_node("Identity", ["r"], ["y"]),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in "xy"]
    graph = helper.make_graph(nodes, "net", values[:1], values[1:])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        tmp_path / "net.onnx",
    )
    assert "a_cast" in openvino.convert_model(str(tmp_path / "net.onnx")).inputs[0].get_names()
    (out := tmp_path / "out").mkdir()
    registry.targets()["openvino"].write(
        tmp_path / "net.onnx", out, precision=precision, options={}, name="net", calibration=None
    )
    network = openvino.Core().read_model(str(out / "openvino_model.xml"))
    assert [port.get_names() for port in (*network.inputs, *network.outputs)] == [{"x"}, {"y"}]
