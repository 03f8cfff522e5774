"""Cuts and joins keep names, order and what is read."""

from __future__ import annotations

import re

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from mconv.onnx_graph import model_files, model_info, serialization, surgery
from tests.models import branches, linear
from tests.unit.onnx_graph.test_passes import constants, model_of


def test_nodes_of_bodies_follow_their_node() -> None:
    operators = [node.op_type for node in surgery.all_nodes(model_of(branches()))]
    assert operators == ["Relu", "If", "Neg", "Add"]


def test_constants_are_read_from_initializers_and_nodes() -> None:
    model = model_of(constants())
    values = {output.name: output for node in model.graph for output in node.outputs}
    read = surgery.constant_of(values["c"])
    assert read is not None
    np.testing.assert_array_equal(read, np.arange(4, dtype=np.float32))
    number = surgery.constant_of(values["number"])
    assert number is not None
    assert number == 1.0
    surgery.lift_constants(model)
    read = surgery.constant_of(model.graph.initializers["c"])
    np.testing.assert_array_equal(read, np.arange(4, dtype=np.float32))
    assert surgery.constant_of(model.graph.inputs[0]) is None
    assert surgery.constant_of(values["y"]) is None
    assert surgery.constant_of(None) is None


def test_names_are_free_in_bodies_too() -> None:
    graph = model_of(branches()).graph
    assert {"x", "r", "inner", "y", "z"} <= surgery.names_of(graph)
    assert surgery.unique_name(graph, "inner") == "inner_1"
    assert surgery.unique_name(graph, "free") == "free"
    surgery.add_initializer(graph, "inner_1", np.ones(2, np.float32))
    assert surgery.unique_name(graph, "inner") == "inner_2"
    with pytest.raises(ValueError, match="already registered"):
        surgery.add_initializer(graph, "inner_1", np.ones(2, np.float32))


def test_a_node_is_written_as_onnx_s_helper_writes_it() -> None:
    model = model_of(branches())
    scale = surgery.add_initializer(model.graph, "scale", np.ones(4, np.float32))
    codes = ir.Tensor(np.arange(4, dtype=np.int8), dtype=ir.DataType.INT4)
    stored = surgery.add_initializer(model.graph, "stored", codes)
    node = surgery.make_node(
        "DequantizeLinear",
        [stored, scale, None],
        ["made"],
        name="n",
        attributes={"block_size": 4, "axis": 0},
    )
    surgery.insert_before(model.graph[0], node)
    proto = serialization.to_proto(model)
    assert proto.graph.node[0] == helper.make_node(
        "DequantizeLinear", ["stored", "scale", ""], ["made"], name="n", block_size=4, axis=0
    )
    assert proto.graph.initializer[-1].data_type == onnx.TensorProto.INT4


def test_a_node_is_replaced_by_others_under_the_name_it_made() -> None:
    model = ir.from_proto(linear())
    node = next(node for node in model.graph if node.op_type == "MatMul")
    name = node.outputs[0].name
    turned = surgery.make_node("Neg", [node.inputs[0]], ["turned"], name="turn")
    product = surgery.make_node(
        "MatMul", [turned.outputs[0], node.inputs[1]], ["other"], name="product"
    )
    surgery.replace_node(node, [turned, product], product.outputs)
    assert node.graph is None
    proto = serialization.to_proto(model)
    onnx.checker.check_model(proto)
    operators = [n.op_type for n in proto.graph.node]
    index = operators.index("Neg")
    assert operators[index : index + 2] == ["Neg", "MatMul"]
    assert proto.graph.node[index + 1].output[0] == name


def test_nodes_go_behind_one_in_their_order() -> None:
    model = model_of(branches())
    relu = model.graph[0]
    new = [surgery.make_node("Neg", relu.outputs, [f"n{i}"], name=f"n{i}") for i in range(2)]
    surgery.insert_after(relu, new)
    assert [node.op_type for node in model.graph] == ["Relu", "Neg", "Neg", "If", "Add"]
    with pytest.raises(ValueError, match="is in no graph"):
        surgery.insert_after(surgery.make_node("Neg", [], [], name="loose"), new)


def test_shapes_are_set_with_names_and_sizes() -> None:
    model = model_of(branches())
    value = model.graph.inputs[0]
    surgery.set_shape(value, ("batch", 3, "length"), {"length": 8})
    assert model_info.value_spec(value).shape == ("batch", 3, 8)


def test_values_are_renamed_in_bodies_too() -> None:
    model = model_of(branches())
    surgery.rename_values(model.graph, {"inner": "condition", "condition": "inner", "x": "image"})
    proto = serialization.to_proto(model)
    assert proto.graph.node[0].input[0] == proto.graph.input[0].name == "image"
    assert proto.graph.node[1].input[0] == "inner"
    bodies = {attribute.name: attribute.g for attribute in proto.graph.node[1].attribute}
    assert bodies["then_branch"].node[0].input[0] == "condition"
    assert {t.name for t in proto.graph.initializer} == {"condition", "outer", "spare", "inner"}
    with pytest.raises(ValueError, match="already exists"):
        surgery.rename_values(model.graph, {"inner": "outer"})


def test_remarks_and_types_between_are_dropped() -> None:
    proto = linear()
    proto.doc_string = proto.graph.doc_string = "written on my machine"
    proto.graph.initializer[0].doc_string = proto.graph.node[0].doc_string = "/home/me"
    proto.graph.node[0].metadata_props.add(key="trace", value="line 1")
    between = helper.make_tensor_value_info(
        proto.graph.node[0].output[0], onnx.TensorProto.FLOAT, ["batch", 32]
    )
    between.doc_string = "from line 1"
    proto.graph.value_info.append(between)
    model = ir.from_proto(proto)
    surgery.strip_remarks(model)
    cleaned = serialization.serialize(model)
    for word in (b"machine", b"/home", b"line 1"):
        assert word not in cleaned
    assert [value.name for value in serialization.to_proto(model).graph.value_info] == [
        between.name
    ]
    surgery.forget_types(model.graph)
    forgotten = serialization.to_proto(model)
    assert not forgotten.graph.value_info
    assert forgotten.graph.output == linear().graph.output


def test_constants_are_named_and_ordered_by_their_first_use() -> None:
    """As two runs of a tool give them, which numbers what it makes by addresses in memory."""
    nodes = [
        helper.make_node("Add", ["x", "min__{0}"], ["a"]),
        helper.make_node("Mul", ["a", "scale"], ["b"]),
        helper.make_node("Max", ["b", "max__{1}"], ["y"]),
    ]
    written = []
    for first, second, order in ((17, 34, 1), (26, 5, -1)):
        proto = make_model(nodes, first, second, order)
        model = model_files.model_of(proto)
        surgery.number_constants(model.graph, re.compile(r"__\d+"))
        assert list(model.graph.initializers) == ["constant_0", "scale", "constant_2"]
        written.append(serialization.serialize(model))
    assert written[0] == written[1]


def make_model(nodes: list[onnx.NodeProto], first: int, second: int, order: int) -> onnx.ModelProto:
    """A graph whose constants are numbered and ordered as given."""
    numbered = []
    for node in nodes:
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        copied.input[:] = [name.format(first, second) for name in node.input]
        numbered.append(copied)
    constants = {f"min__{first}": 1.0, "scale": 2.0, f"max__{second}": 3.0}
    tensors = [numpy_helper.from_array(np.float32(v), k) for k, v in constants.items()]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        numbered,
        "g",
        [value("x", TensorProto.FLOAT, ["n"])],
        [value("y", TensorProto.FLOAT, ["n"])],
        tensors[::order],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
