"""The one list of quantized operators holds what ONNX and onnxruntime have, and is looked for in
bodies too."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper
from onnxruntime.capi import onnxruntime_pybind11_state

from mconv.errors import UnsupportedError
from mconv.onnx_graph import quantized

WORDS = ("Quantize", "Integer", "QLinear", "QGemm", "QOrdered", "NBits", "QAttention", "QMoE")
WORDS += ("Bnb4", "FpQ4", "QEmbed")


def test_the_list_holds_every_operator_of_onnx_and_onnxruntime() -> None:
    known = {schema.name for schema in onnx.defs.get_all_schemas_with_history()}
    known |= {s.name for s in onnxruntime_pybind11_state.get_all_operator_schema()}
    meant = {name for name in known if any(word in name for word in WORDS)}
    assert {"ConvInteger", "MatMulNBits", "QLinearAdd", "QGemm"} <= meant
    assert meant - quantized.OPERATORS == set()
    assert quantized.OPERATORS - known == {"FakeQuantize"}  # OpenVINO's


@pytest.mark.parametrize("name", ["MatMulNBits", "com.microsoft.MatMulNBits", "ConvInteger"])
def test_names_with_and_without_a_domain(name: str) -> None:
    assert quantized.is_quantized_operator(name)
    with pytest.raises(UnsupportedError, match=f"it has {name}\n"):
        quantized.refuse_operators(["MatMul", name])


@pytest.mark.parametrize("name", ["MatMul", "com.microsoft.QuickGelu", "Conv", "Cast"])
def test_others_are_not_quantized(name: str) -> None:
    assert not quantized.is_quantized_operator(name)
    quantized.refuse_operators([name])


def test_bodies_are_looked_into_and_the_message_names_what_is_there() -> None:
    output = helper.make_tensor_value_info("y", TensorProto.INT32, None)
    inner = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "b"], ["y"])], "then", [], [output]
    )
    other = helper.make_graph([helper.make_node("Identity", ["c"], ["y"])], "else", [], [output])
    branch = helper.make_node("If", ["if"], ["y"], then_branch=inner, else_branch=other)
    graph = helper.make_graph([branch], "g", [], [output])
    model = ir.from_proto(helper.make_model(graph))
    with pytest.raises(UnsupportedError, match=r"it has MatMulInteger\n"):
        quantized.refuse_quantized(model)
    quantized.refuse_quantized(ir.from_proto(helper.make_model(other)))
