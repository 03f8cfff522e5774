"""Edits of a graph keep what is read, in bodies too, and drop what is not."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mconv.onnx_graph import edits


def branches() -> onnx.GraphProto:
    """x → Relu → r, and an If whose bodies read ``inner``, return ``outer`` and hold ``own``."""
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])
    returned = helper.make_tensor_value_info("outer", TensorProto.FLOAT, [4])
    then = helper.make_graph([helper.make_node("Neg", ["inner"], ["y"])], "then", [], [output])
    other = helper.make_graph([], "else", [], [returned])
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("If", ["condition"], ["y"], then_branch=then, else_branch=other),
        helper.make_node("Add", ["r", "spare"], ["z"]),
    ]
    names = ("inner", "outer", "spare", "condition")
    tensors = [numpy_helper.from_array(np.ones(4, np.float32), name) for name in names]
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [4]) for n in ("x", "spare")]
    return helper.make_graph(nodes, "g", inputs, [output], tensors)


def test_names_that_bodies_read_or_return_are_read() -> None:
    graph = branches()
    read = set(edits.names_read(graph.node))
    assert read == {"x", "condition", "inner", "outer", "y", "r", "spare"}


def test_what_nothing_reads_any_more_is_dropped_as_initializer_and_as_input() -> None:
    graph = branches()
    edits.replace_nodes(graph, list(graph.node)[:2])
    assert [node.op_type for node in graph.node] == ["Relu", "If"]
    assert [tensor.name for tensor in graph.initializer] == ["inner", "outer", "condition"]
    assert [value.name for value in graph.input] == ["x"]


def test_an_input_that_nothing_reads_stays() -> None:
    graph = branches()
    edits.replace_nodes(graph, list(graph.node)[1:2])
    assert [value.name for value in graph.input] == ["x"]


def test_constants_become_initializers_of_their_output() -> None:
    value = numpy_helper.from_array(np.arange(4, dtype=np.float32), "any")
    graph = helper.make_graph(
        [
            helper.make_node("Constant", [], ["c"], value=value),
            helper.make_node("Constant", [], ["number"], value_float=1.0),
            helper.make_node("Add", ["x", "c"], ["y"]),
        ],
        "g",
        [],
        [],
    )
    edits.constants_to_initializers(graph)
    assert [node.op_type for node in graph.node] == ["Constant", "Add"]
    (tensor,) = graph.initializer
    assert tensor.name == "c"
    np.testing.assert_array_equal(numpy_helper.to_array(tensor), np.arange(4))


def test_an_output_is_read_by_none_beside_its_nodes() -> None:
    graph = branches()
    graph.output.append(helper.make_tensor_value_info("r", TensorProto.FLOAT, [4]))
    read = edits.readers(graph)
    assert read["r"] == [None, graph.node[2]]
    assert read["x"] == [graph.node[0]]
