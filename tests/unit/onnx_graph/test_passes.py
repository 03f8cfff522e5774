"""Each pass does what it says, and holds its own conditions."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from mconv.onnx_graph import passes
from tests.models import branches


def model_of(graph: onnx.GraphProto) -> ir.Model:
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))


def constants() -> onnx.GraphProto:
    """Two Constant nodes, one of a tensor and one of a number, and an Add of the first."""
    value = numpy_helper.from_array(np.arange(4, dtype=np.float32), "any")
    nodes = [
        helper.make_node("Constant", [], ["c"], name="n0", value=value),
        helper.make_node("Constant", [], ["number"], name="n1", value_float=1.0),
        helper.make_node("Add", ["x", "c"], ["y"], name="n2"),
    ]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [4]) for n in ("x", "y", "c")]
    return helper.make_graph(nodes, "g", values[:1], values[1:])


def test_constants_become_initializers_of_their_output() -> None:
    model = model_of(constants())
    assert passes.ConstantsToInitializersPass()(model).modified
    assert [(n.op_type, n.name) for n in model.graph] == [("Constant", "n1"), ("Add", "n2")]
    assert list(model.graph.initializers) == ["c"]
    proto = ir.to_proto(model)
    assert [v.name for v in proto.graph.output] == ["y", "c"]  # which was an output too
    np.testing.assert_array_equal(
        numpy_helper.to_array(proto.graph.initializer[0]), np.arange(4, dtype=np.float32)
    )
    assert not passes.ConstantsToInitializersPass()(model).modified


def test_a_constant_that_an_initializer_names_is_refused() -> None:
    model = model_of(constants())
    tensor = ir.Tensor(np.zeros(4, np.float32), name="c")
    model.graph.register_initializer(ir.Value(name="c", const_value=tensor))
    with pytest.raises(ir.passes.PreconditionError, match="'c' is made twice"):
        passes.ConstantsToInitializersPass()(model)


def test_initializers_go_where_nothing_reads_them_in_bodies_either() -> None:
    model = model_of(branches())
    assert not passes.RemoveUnusedInitializersPass()(model).modified
    model.graph.remove([node for node in model.graph if node.op_type == "Add"], safe=True)
    assert passes.RemoveUnusedInitializersPass()(model).modified
    assert list(model.graph.initializers) == ["inner", "outer", "condition"]
    assert [value.name for value in model.graph.inputs] == ["x"]


def test_an_input_that_nothing_reads_and_an_initializer_that_is_an_output_stay() -> None:
    graph = branches()
    graph.output.append(helper.make_tensor_value_info("spare", TensorProto.FLOAT, [4]))
    model = model_of(graph)
    model.graph.remove([node for node in model.graph if node.op_type != "If"], safe=False)
    passes.RemoveUnusedInitializersPass()(model)
    assert list(model.graph.initializers) == ["inner", "outer", "spare", "condition"]
    assert [value.name for value in model.graph.inputs] == ["x", "spare"]


def test_a_pass_that_leaves_what_it_should_remove_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(constants())

    def nothing(self: object, model: ir.Model) -> ir.passes.PassResult:
        return ir.passes.PassResult(model, modified=False)

    for kind in (passes.ConstantsToInitializersPass, passes.RemoveUnusedInitializersPass):
        monkeypatch.setattr(kind, "call", nothing)
    with pytest.raises(ir.passes.PostconditionError, match="'c' is a Constant still"):
        passes.ConstantsToInitializersPass()(model)
    tensor = ir.Tensor(np.zeros(4, np.float32), name="spare")
    model.graph.register_initializer(ir.Value(name="spare", const_value=tensor))
    with pytest.raises(ir.passes.PostconditionError, match=r"nothing reads .* 'spare'"):
        passes.RemoveUnusedInitializersPass()(model)
