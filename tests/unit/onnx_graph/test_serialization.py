"""A model is written one tensor at a time, in the bytes that protobuf would write."""

from __future__ import annotations

import io

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from mconv.onnx_graph import serialization
from tests.models import branches, convolution, linear


def of_every_kind() -> onnx.ModelProto:
    """A graph with tensors in raw bytes, in numbers, of strings, of 4 bits and of no elements, with
    all that a model can say beside its graph."""
    tensors = [
        numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(2, 3), "raw"),
        helper.make_tensor("numbers", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0]),
        helper.make_tensor("texts", TensorProto.STRING, [2], [b"a", b"bc"]),
        helper.make_tensor("codes", TensorProto.INT4, [3], b"\x21\x03", raw=True),
        numpy_helper.from_array(np.zeros((0, 4), np.int64), "empty"),
        numpy_helper.from_array(np.ones((200, 300), np.float32), "large"),
    ]
    value = numpy_helper.from_array(np.ones(3, np.float32), "held")
    nodes = [
        helper.make_node("Constant", [], ["held"], name="c", value=value),
        helper.make_node("Add", ["held", "numbers"], ["y"], name="a"),
    ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])
    graph = helper.make_graph(nodes, "g", [], [output], tensors, doc_string="what it is")
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 21)], producer_name="someone", ir_version=10
    )
    helper.set_model_props(model, {"b": "2", "a": "1"})
    return model


@pytest.mark.parametrize("make", [linear, convolution, of_every_kind])
def test_the_bytes_are_protobuf_s_own(make: object) -> None:
    assert callable(make)
    model = ir.from_proto(make())
    data = serialization.serialize(model)
    read = onnx.ModelProto.FromString(data)
    assert read.SerializeToString(deterministic=True) == data
    assert data == serialization.to_proto(model).SerializeToString(deterministic=True)
    before = make()
    for tensor, was in zip(read.graph.initializer, before.graph.initializer, strict=True):
        assert tensor == was
    assert list(read.graph.node) == list(before.graph.node)


def test_tensors_in_numpy_are_written_as_protobuf_would() -> None:
    model = ir.from_proto(linear())
    for value in model.graph.initializers.values():
        assert value.const_value is not None
        value.const_value = ir.Tensor(value.const_value.numpy(), name=value.name, doc_string="d")
    data = serialization.serialize(model)
    read = onnx.ModelProto.FromString(data)
    assert read.SerializeToString(deterministic=True) == data
    assert read.graph.initializer[0].doc_string == "d"
    assert data == serialization.to_proto(model).SerializeToString(deterministic=True)


def test_a_lazy_tensor_is_made_once_and_left_as_it_was() -> None:
    model = ir.from_proto(linear())
    calls = []

    def make() -> ir.Tensor:
        calls.append(1)
        return ir.Tensor(np.ones((8, 32), np.float32))

    value = model.graph.initializers["w0"]
    lazy = value.const_value = ir.LazyTensor(
        make, dtype=ir.DataType.FLOAT, shape=ir.Shape([8, 32]), name="w0"
    )
    read = onnx.ModelProto.FromString(serialization.serialize(model))
    assert len(calls) == 1
    assert value.const_value is lazy
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in read.graph.initializer}
    np.testing.assert_array_equal(held["w0"], np.ones((8, 32), np.float32))


def test_a_lazy_tensor_of_another_size_is_refused() -> None:
    model = ir.from_proto(linear())
    model.graph.initializers["w0"].const_value = ir.LazyTensor(
        lambda: ir.Tensor(np.ones(3, np.float32)),
        dtype=ir.DataType.FLOAT,
        shape=ir.Shape([8, 32]),
        name="w0",
    )
    with pytest.raises(ValueError, match=r"'w0' has 12 bytes where .* need 1024"):
        serialization.serialize(model)


def test_places_are_initializers_bodies_and_attributes() -> None:
    proto = of_every_kind()
    branch = branches().node[1]
    branch.output[0] = "of_branches"
    proto.graph.node.append(branch)
    body = proto.graph.node[2].attribute[0].g
    body.initializer.append(numpy_helper.from_array(np.ones(2, np.float32), "inner_weight"))
    model = ir.from_proto(proto)
    names = [place.tensor.name for place in serialization.tensor_places(model)]
    assert names == ["raw", "numbers", "texts", "codes", "empty", "large", "inner_weight", "held"]
    instead = [
        (place, ir.Tensor(np.zeros(3, np.float32), name=place.tensor.name))
        for place in serialization.tensor_places(model)
        if place.tensor.name == "held"
    ]
    with serialization.stand_ins(instead):
        assert not serialization.to_proto(model).graph.node[0].attribute[0].t.float_data
        assert model.graph.node("c").attributes["value"].as_tensor().numpy().tolist() == [0, 0, 0]
    assert model.graph.node("c").attributes["value"].as_tensor().numpy().tolist() == [1, 1, 1]


def test_a_file_is_written_as_bytes_are() -> None:
    model = ir.from_proto(of_every_kind())
    file = io.BytesIO()
    serialization.write(model, file)
    assert file.getvalue() == serialization.serialize(model)


def test_large_tensors_stay_out_of_a_message_and_come_back() -> None:
    model = ir.from_proto(linear())
    held = {name: value.const_value for name, value in model.graph.initializers.items()}
    proto, tensors = serialization.to_proto_without(model)
    assert tensors.keys() == {
        name
        for name, tensor in held.items()
        if tensor is not None and tensor.nbytes >= serialization.SMALLEST_ASIDE
    }
    assert 0 < len(tensors) < len(held)
    assert all(not t.raw_data for t in proto.graph.initializer if t.name in tensors)
    assert all(t.raw_data for t in proto.graph.initializer if t.name not in tensors)
    back = serialization.from_proto_with(proto, tensors)
    assert serialization.serialize(back) == serialization.serialize(model)
    assert all(value.const_value is held[name] for name, value in model.graph.initializers.items())


def test_a_node_alone_has_its_tensors_in_it() -> None:
    tensor = numpy_helper.from_array(np.arange(3, dtype=np.float32), "value")
    node = ir.from_proto(helper.make_node("Constant", [], ["c"], value=tensor))
    lazy = ir.LazyTensor(
        lambda: ir.Tensor(np.arange(3, dtype=np.float32)),
        dtype=ir.DataType.FLOAT,
        shape=ir.Shape([3]),
        name="value",
    )
    node.attributes["value"] = ir.AttrTensor("value", lazy)
    written = serialization.node_to_proto(node)
    assert written == helper.make_node("Constant", [], ["c"], value=tensor)
    assert node.attributes["value"].value is lazy
