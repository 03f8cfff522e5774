"""What quantizers ask graphs for: copies, readers, inferred types; smoothing folded into norms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from mconv.onnx_graph import model_files
from mconv.quantizers import _graphs, _norm_folding, _type_inference
from mconv.quantizers._float_models import float_weights
from tests.unit.quantizers.graphs import answer, body, feeds_of, model, node, tensor, value, weights

X, Y = value("x", ["b", 8]), value("y", ["b", 8])


def returning(name: str) -> Any:
    """An If whose branches return ``name`` of the graph around them as it is."""
    branches = {
        f"{which}_branch": body(which, [], [], [value(name, ["b", 8])])
        for which in ("then", "else")
    }
    nodes = [
        node("MatMul", "x W", "h"),
        node("Relu", "h", "r"),
        node("If", "q", "y", **branches),
        node("Neg", "r", "z"),
    ]
    tensors = [tensor("W", weights(8, 8)), tensor("q", True, "?")]
    graph = helper.make_graph(nodes, "g", [X], [Y, value("z", ["b", 8])], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_a_copy_shares_tensors_and_nothing_else() -> None:
    graph = ir.from_proto(returning("h"))
    copy = _graphs.copy_model(graph)
    assert ir.to_proto(copy) == ir.to_proto(graph)
    weight = graph.graph.initializers["W"].const_value
    assert copy.graph.initializers["W"].const_value is weight
    copy.graph[1].op_type = "Sigmoid"
    assert graph.graph[1].op_type == "Relu"
    # the tensors of the model itself are back in place
    assert weight is not None
    np.testing.assert_array_equal(weight.numpy(), weights(8, 8))


def test_a_value_that_a_body_returns_has_no_sole_reader() -> None:
    for name, expected in (("h", {"r", "q"}), ("x", {"h", "r", "q"})):
        readers = _graphs.sole_readers(ir.from_proto(returning(name)).graph)
        assert readers.keys() - {"W", "x"} == expected, name
    readers = _graphs.sole_readers(ir.from_proto(returning("x")).graph)
    assert "x" not in readers
    assert readers["r"].op_type == "Neg"


def test_outputs_and_values_read_twice_have_no_sole_reader() -> None:
    proto = model(
        [node("Relu", "x", "h"), node("Add", "h h", "y"), node("Neg", "y", "z")],
        [X],
        [Y, value("z", ["b", 8])],
        [],
    )
    assert list(_graphs.sole_readers(ir.from_proto(proto).graph)) == ["x"]


def test_types_are_inferred_without_large_tensors(tmp_path: Path) -> None:
    proto = model(
        [node("MatMul", "x W", "h"), node("Reshape", "h s", "y")],
        [value("x", ["b", 64])],
        [value("y", ["b", 4, 16])],
        [tensor("W", weights(64, 64)), tensor("s", [0, 4, 16], "i8")],
    )
    path = tmp_path / "model.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="data", size_threshold=1000)
    graph = model_files.load_model(path)
    aside = _type_inference.large_tensors(graph)
    assert list(aside) == ["W"]
    typed = _type_inference.infer_types(graph, aside).graph
    h, y = (n.outputs[0] for n in typed)
    assert h.shape is not None
    assert (h.dtype, list(h.shape)[1:]) == (ir.DataType.FLOAT, [64])
    assert y.shape is not None
    assert list(y.shape)[1:] == [4, 16]  # s was read
    assert graph.graph.initializers["W"].const_value is aside["W"]
    np.testing.assert_array_equal(aside["W"].numpy(), weights(64, 64))


def test_float_weights_have_two_axes_and_a_size() -> None:
    tensors = [
        tensor("W", weights(16, 16)),
        tensor("small", weights(15, 17)),
        tensor("vector", weights(256)),
        numpy_helper.from_array(np.zeros((16, 16), np.float16), "half"),
    ]
    graph = helper.make_graph([node("Relu", "x", "y")], "g", [X], [Y], tensors)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    assert list(float_weights(ir.from_proto(proto), 256)) == ["W"]


def smoothed(*, read_twice: bool = False, bias: bool = True) -> onnx.ModelProto:
    """LayerNormalization → Mul by 1/s, as smoothing leaves it → Relu."""
    norm = "x gamma beta" if bias else "x gamma"
    nodes = [
        node("LayerNormalization", norm, "n"),
        helper.make_node("Mul", ["n", "n_smooth_factor"], ["n_smooth"], name="n_smooth"),
        node("Relu", "n_smooth", "y"),
        node("Neg", "n" if read_twice else "x", "z"),
    ]
    tensors = [
        tensor("gamma", weights(8)),
        tensor("beta", weights(8, seed=1)),
        tensor("n_smooth_factor", weights(8, seed=2)),
    ]
    return model(nodes, [X], [Y, value("z", ["b", 8], TensorProto.FLOAT)], tensors)


def test_smoothing_is_folded_into_scale_and_bias() -> None:
    for bias in (True, False):
        proto = smoothed(bias=bias)
        graph = ir.from_proto(proto)
        assert _norm_folding.fold_smoothing(graph) == 1
        assert [n.op_type for n in graph.graph] == ["LayerNormalization", "Relu", "Neg"]
        assert graph.graph[0].outputs[0].name == "n_smooth"
        feed = feeds_of(proto)
        got, exact = answer(ir.to_proto(graph), feed)["y"], answer(proto, feed)["y"]
        np.testing.assert_allclose(got, exact, rtol=1e-5, atol=1e-6)


def test_a_norm_that_others_read_is_left_alone() -> None:
    graph = ir.from_proto(smoothed(read_twice=True))
    before = ir.to_proto(graph)
    assert _norm_folding.fold_smoothing(graph) == 0
    assert ir.to_proto(graph) == before
