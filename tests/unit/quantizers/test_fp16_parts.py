"""fp16, part by part: each pass does what it says and holds its conditions; constants beyond fp16."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto

from mconv.quantizers._fp16 import constants, passes
from tests.unit.quantizers.graphs import INT64, answer, body, model, node, tensor, value, weights

HALF = TensorProto.FLOAT16
X, Y = value("x", ["b", 8]), value("y", ["b", 8])


def choice(then: list[Any], tensors: list[Any], *, result: str = "a") -> Any:
    """An If whose first branch is ``then``; both read the product h of the graph around them."""
    otherwise = body("e", [node("Neg", "h", "c")], [], [value("c", ["b", 8])])
    branch = body("t", then, [], [value(result, ["b", 8])], tensors)
    return model(
        [
            node("MatMul", "x W", "h"),
            node("If", "q", "y", then_branch=branch, else_branch=otherwise),
        ],
        [X],
        [Y],
        [tensor("W", weights(8, 8)), tensor("q", True, "?")],
    )


def test_numbers_become_tensors_in_bodies_too() -> None:
    proto = choice(
        [
            node("Constant", "", "k", value_float=0.5),
            node("Constant", "", "l", value_floats=[2.0] * 8),
            node("Mul", "k l", "m"),
            node("Mul", "h m", "a"),
        ],
        [],
    )
    graph = ir.from_proto(proto)
    assert passes.NumbersToTensorsPass()(graph).modified
    held = {
        n.outputs[0].name: n.attributes["value"].as_tensor().numpy()
        for n in graph.graph.all_nodes()
        if n.op_type == "Constant"
    }
    assert held["k"].shape == ()
    assert held["l"].shape == (8,)
    feed = {"x": weights(2, 8)}
    np.testing.assert_array_equal(answer(ir.to_proto(graph), feed)["y"], answer(proto, feed)["y"])
    assert not passes.NumbersToTensorsPass()(graph).modified


def test_other_constants_keep_their_form() -> None:
    proto = model(
        [node("Constant", "", "k", value_ints=[1, -1]), node("Reshape", "x k", "y")],
        [value("x", [8])],
        [value("y", [1, 8])],
        [],
    )
    graph = ir.from_proto(proto)
    assert not passes.NumbersToTensorsPass()(graph).modified
    assert list(graph.graph[0].attributes) == ["value_ints"]


def casts() -> ir.Model:
    """A product cast down, up again for a Relu, and down for a second output."""
    nodes = [
        node("MatMul", "x W", "h"),
        node("Cast", "h", "small", to=HALF),
        node("Cast", "small", "wide", to=TensorProto.FLOAT),
        node("Relu", "wide", "y"),
        node("Cast", "y", "z", to=HALF),
        node("Cast", "y", "count", to=INT64),
    ]
    outputs = [Y, value("z", ["b", 8], HALF), value("count", ["b", 8], INT64)]
    return ir.from_proto(model(nodes, [X], outputs, [tensor("W", weights(8, 8))]))


def test_casts_down_and_up_again_are_passed_by() -> None:
    graph = casts()
    assert passes.RemoveCastPairsPass()(graph).modified
    names = [n.outputs[0].name for n in graph.graph]
    assert names == ["h", "wide", "y", "z", "count"]  # z is an output
    assert graph.graph[1].inputs[0].name == "h"
    assert not passes.RemoveCastPairsPass()(graph).modified


def test_a_cast_that_a_body_reads_stays() -> None:
    graph = ir.from_proto(choice([node("Cast", "h", "a", to=TensorProto.FLOAT)], []))
    branch = next(branch for branch in graph.graph.subgraphs() if branch.name == "t")
    product = graph.graph[0]
    cast = ir.node("Cast", [product.outputs[0]], {"to": HALF}, outputs=[ir.Value(name="s")])
    graph.graph.insert_after(product, cast)
    branch[0].replace_input_with(0, cast.outputs[0])
    assert not passes.RemoveCastPairsPass()(graph).modified
    assert cast in list(graph.graph)


def test_a_pass_that_leaves_what_it_should_remove_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(self: object, model: ir.Model) -> ir.passes.PassResult:
        return ir.passes.PassResult(model, modified=False)

    for kind in (passes.NumbersToTensorsPass, passes.RemoveCastPairsPass):
        monkeypatch.setattr(kind, "call", nothing)
    with pytest.raises(ir.passes.PostconditionError, match="'wide' is cast to fp16 and back"):
        passes.RemoveCastPairsPass()(casts())
    number = model(
        [node("Constant", "", "k", value_float=1.0), node("Add", "x k", "y")], [X], [Y], []
    )
    with pytest.raises(ir.passes.PostconditionError, match="'k' holds no tensor"):
        passes.NumbersToTensorsPass()(ir.from_proto(number))


def test_masks_are_bound_and_other_large_constants_named() -> None:
    proto = choice(
        [node("Add", "h mask", "m"), node("Mul", "m large", "l"), node("Div", "l large", "a")],
        [tensor("mask", [0] * 7 + [-3e38]), tensor("large", 1e5)],
    )
    graph = ir.from_proto(proto)
    large = constants.bound_masks(graph)
    assert large == constants.LargeConstants(1, frozenset({"Mul_fp32_1", "Div_fp32_2"}))
    branch = next(branch for branch in graph.graph.subgraphs() if branch.name == "t")
    mask = branch.initializers["mask"].const_value
    assert mask is not None
    np.testing.assert_array_equal(mask.numpy(), np.array([0] * 7 + [-1e4], np.float32))
    assert constants.bound_masks(graph).masks == 0


def test_infinity_is_no_large_constant() -> None:
    proto = model([node("Add", "x k", "y")], [X], [Y], [tensor("k", [-np.inf] * 8)])
    graph = ir.from_proto(proto)
    assert constants.bound_masks(graph) == constants.LargeConstants(0, frozenset())


def test_halves_are_made_when_they_are_read_unless_they_are_in_memory() -> None:
    values = np.array([[0.1, -65000.0], [1e-9, np.inf]], np.float32)
    calls = []

    def make() -> ir.TensorProtocol:
        calls.append(1)
        return ir.Tensor(values)

    lazy = ir.LazyTensor(make, ir.DataType.FLOAT, ir.Shape([2, 2]), name="w")
    half = constants.halve(lazy)
    assert not calls
    np.testing.assert_array_equal(half.numpy(), constants.halve(ir.Tensor(values)).numpy())
    assert calls
    # what is not zero stays so: the smallest number above zero in place of 1e-9
    expected = np.array([[0.1, -65000.0], [2.0**-24, np.inf]]).astype(np.float16)
    np.testing.assert_array_equal(half.numpy(), expected)
    assert (half.name, half.dtype, half.shape.numpy()) == ("w", ir.DataType.FLOAT16, (2, 2))
