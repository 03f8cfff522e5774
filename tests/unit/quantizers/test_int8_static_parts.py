"""int8-static, stage by stage: each edit of the graph in its conditions, on graphs of a few nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from mconv.quantizers._int8_static import (
    candidates,
    preparation,
    qdq,
    selection,
    smoothing,
    storage,
)
from mconv.quantizers._int8_static.candidates import Candidate
from tests.unit.quantizers.graphs import (
    BOOL,
    INT64,
    answer,
    body,
    model,
    node,
    tensor,
    value,
    weights,
)

X, Y = value("x", ["b", 32]), value("y", ["b", 32])
SQUARE, B = tensor("W", weights(32, 32)), tensor("B", weights(32, seed=1))
RANKS = {"x": 2}


def prepared(proto: onnx.ModelProto, folder: Path) -> ir.Model:
    (folder / "in.onnx").write_bytes(proto.SerializeToString())
    return preparation.prepare_model(folder / "in.onnx")


def operators(graph: ir.Model) -> list[str]:
    return [n.op_type for n in graph.graph]


def dense(*more: Any, outputs: Any = (Y,)) -> ir.Model:
    nodes = [node("MatMul", "x W", "h"), node("Add", "h B", "y"), *more]
    nodes[0].name = "dense"
    return ir.from_proto(model(nodes, [X], list(outputs), [SQUARE, B]))


def test_a_product_and_its_bias_become_one_gemm() -> None:
    graph = dense()
    preparation.join_products(graph, RANKS)
    assert operators(graph) == ["Gemm"]
    gemm = graph.graph[0]
    assert (gemm.name, gemm.outputs[0].name) == ("dense", "y")
    assert [v.name for v in gemm.inputs if v is not None] == ["x", "W", "B"]


def test_a_product_stays_where_gemm_cannot_do_it() -> None:
    for ranks in ({"x": 3}, {}):
        graph = dense()
        preparation.join_products(graph, ranks)
        assert operators(graph) == ["MatMul", "Add"]
    for more, outputs in (
        ([node("Neg", "h", "z")], [Y, value("z", ["b", 32])]),
        ([], [Y, value("h", ["b", 32])]),
    ):
        graph = dense(*more, outputs=outputs)
        preparation.join_products(graph, RANKS)
        assert operators(graph)[:2] == ["MatMul", "Add"]


def test_every_node_gets_a_name_of_its_own(tmp_path: Path) -> None:
    nodes = [node("MatMul", "x W", "h"), node("Relu", "h", "r"), node("MatMul", "r W", "y")]
    nodes[0].name = nodes[1].name = "twice"
    graph = prepared(model(nodes, [X], [Y], [SQUARE]), tmp_path)
    assert [n.name for n in graph.graph] == ["MatMul_0_h", "Relu_1_r", "MatMul_2_y"]


ATTENTION = {"domain": "com.microsoft", "num_heads": 4}


@pytest.mark.parametrize(
    ("inputs", "more", "ranks"),
    [
        ("x W B _ past", {}, {}),
        ("x W B m", {}, {"m": 3}),
        ("x W B m", {}, {}),
        ("x W B", {"do_rotary": 1}, {}),
        ("x W B", {"qkv_hidden_sizes": [64, 64, 32]}, {}),
    ],
    ids=["past", "wide mask", "unknown mask", "rotary", "sizes"],
)
def test_attention_stays_where_it_does_more(
    inputs: str, more: dict[str, Any], ranks: dict[str, int]
) -> None:
    graph = helper.make_graph(
        [node("Attention", inputs, "y", **ATTENTION, **more)],
        "g",
        [
            value("x", ["b", 6, 64]),
            value("m", ["b", 6], TensorProto.INT32),
            value("past", [2, "b", 4, 5, 16]),
        ],
        [value("y", ["b", 6, 64])],
        [tensor("W", weights(64, 192)), tensor("B", weights(192, seed=1))],
    )
    opened = ir.from_proto(helper.make_model(graph))
    preparation.open_attention(opened, ranks)
    assert operators(opened) == ["Attention"]


def tower(*, inside: bool = False) -> onnx.ModelProto:
    """Conv, Relu, pooling, Conv, Add, pooling over the image, Gemm; a body reads the Relu where it
    is ``inside``."""
    nodes = [
        node("Conv", "x W0 B0", "a", pads=[1] * 4),
        node("Relu", "a", "r"),
        node("MaxPool", "r", "p", kernel_shape=[3, 3], pads=[1] * 4),
        node("Conv", "p W1", "c", pads=[1] * 4),
        node("Add", "p c", "s"),
        node("GlobalAveragePool", "s", "g"),
        node("Flatten", "g", "f"),
        node("Gemm", "f W2", "y"),
    ]
    outputs = [value("y", ["b", 8])]
    inputs = [value("x", ["b", 8, 6, 6])]
    if inside:
        branches = {}
        for which, operator in (("then_branch", "Neg"), ("else_branch", "Abs")):
            shape = ["b", 16, 6, 6]
            branches[which] = body(which, [node(operator, "r", which)], [], [value(which, shape)])
        nodes.append(node("If", "q", "z", **branches))
        inputs.append(value("q", [], BOOL))
        outputs.append(value("z", ["b", 16, 6, 6]))
    for item in nodes:
        item.name = f"n_{item.output[0]}"
    tensors = [
        tensor("W0", weights(16, 8, 3, 3)),
        tensor("B0", weights(16, seed=3)),
        tensor("W1", weights(16, 16, 3, 3, seed=1)),
        tensor("W2", weights(16, 8, seed=2)),
    ]
    return model(nodes, inputs, outputs, tensors)


RANGES = dict.fromkeys(("r", "p", "g", "f"), (0.0, 4.0)) | dict.fromkeys(
    ("x", "c", "s", "y"), (-4.0, 4.0)
)


def test_candidates_are_products_and_what_joins_convolutions() -> None:
    graph = ir.from_proto(tower())
    assert candidates.find_candidates(graph) == [
        Candidate("n_a", "Conv", ("x",), "W0", "r"),
        Candidate("n_c", "Conv", ("p",), "W1", "c"),
        Candidate("n_s", "Add", ("p", "c"), None, "s"),
        Candidate("n_g", "GlobalAveragePool", ("s",), None, "g"),
        Candidate("n_y", "Gemm", ("f",), "W2", None),
    ]
    carriers = candidates.find_carriers(graph, candidates.find_candidates(graph))
    assert list(carriers) == ["n_a", "n_r", "n_p", "n_c", "n_s", "n_g", "n_f"]


def test_what_passes_codes_on_keeps_the_range_of_its_input() -> None:
    graph = ir.from_proto(tower())
    offered = candidates.find_candidates(graph)
    shared = qdq.share_ranges(graph, offered, {**RANGES, "p": (0.5, 3.0), "f": (0.5, 3.0)})
    assert shared["p"] == RANGES["r"]
    assert shared["f"] == RANGES["g"]
    assert shared["c"] == RANGES["c"]


def written(proto: onnx.ModelProto, ranges: dict[str, tuple[float, float]]) -> ir.Model:
    graph = ir.from_proto(proto)
    qdq.write_codes(graph, candidates.find_candidates(graph), ranges)
    onnx.checker.check_model(ir.to_proto(graph))
    return graph


def test_a_relu_goes_where_codes_are_never_below_zero() -> None:
    assert "Relu" not in operators(written(tower(), RANGES))
    assert "Relu" in operators(written(tower(), {**RANGES, "r": (-1.0, 4.0)}))


def test_a_relu_that_a_body_reads_stays() -> None:
    proto = tower(inside=True)
    graph = written(proto, RANGES)
    assert "Relu" in operators(graph)
    rng = np.random.default_rng(1)
    feed = {"x": rng.standard_normal((2, 8, 6, 6)).astype("f4") / 4, "q": np.array(True)}
    got, exact = answer(ir.to_proto(graph), feed), answer(proto, feed)
    np.testing.assert_allclose(got["z"], exact["z"], atol=0.1)


def test_a_bias_is_stored_in_units_of_what_is_accumulated() -> None:
    graph = written(tower(), RANGES).graph
    codes = graph.initializers["n_a_bias_int32"].const_value
    unit = graph.initializers["n_a_bias_scale8"].const_value
    assert codes is not None
    assert unit is not None
    assert codes.dtype == ir.DataType.INT32
    error = np.abs(codes.numpy() * unit.numpy() - weights(16, seed=3))
    assert (error <= unit.numpy() * 0.501).all()


def test_a_bias_whose_codes_do_not_fit_stays_in_float() -> None:
    proto = tower()
    for item in proto.graph.initializer:
        if item.name == "B0":
            item.CopyFrom(tensor("B0", weights(16, seed=3) * 1e9))
    graph = written(proto, RANGES).graph
    assert "n_a_bias_int32" not in graph.initializers
    assert "B0" in graph.initializers


def test_switches_that_are_off_change_nothing() -> None:
    proto = tower()
    graph = ir.from_proto(proto)
    offered = candidates.find_candidates(graph)
    before = ir.to_proto(graph)
    switched = ir.to_proto(selection.add_switches(graph, offered, RANGES, 127))
    assert ir.to_proto(graph) == before
    rng = np.random.default_rng(1)
    feed = {"x": rng.standard_normal((2, 8, 6, 6)).astype("f4")}
    exact = answer(proto, feed)["y"]
    off = {**feed, selection.FLAGS: np.zeros(len(offered), bool)}
    np.testing.assert_array_equal(answer(switched, off)["y"], exact)
    for index in range(len(offered)):
        flags = np.zeros(len(offered), bool)
        flags[index] = True
        assert (answer(switched, {**off, selection.FLAGS: flags})["y"] != exact).any(), index


def test_products_of_one_weight_and_activation_share_what_is_smoothed() -> None:
    proto = model(
        [node("MatMul", "x W", "h"), node("MatMul", "x W", "g"), node("Add", "h g", "y")],
        [X],
        [Y],
        [SQUARE],
    )
    for index, item in enumerate(proto.graph.node):
        item.name = f"n{index}"
    graph = ir.from_proto(proto)
    factor = np.linspace(0.5, 2, 32, dtype=np.float32)
    offered = candidates.find_candidates(graph)
    smoothed = smoothing.smooth_products(graph, offered, {"x": factor})
    assert operators(smoothed) == ["Mul", "MatMul", "MatMul", "Add"]
    assert sorted(smoothed.graph.initializers) == ["W_x_smooth", "x_smooth_factor"]
    assert sorted(graph.graph.initializers) == ["W"]
    feed = {"x": weights(3, 32, seed=4)}
    got, exact = answer(ir.to_proto(smoothed), feed)["y"], answer(proto, feed)["y"]
    np.testing.assert_allclose(got, exact, rtol=1e-4, atol=1e-5)


def tables(*nodes: Any) -> ir.Model:
    return ir.from_proto(
        model(list(nodes), [value("i", ["b"], INT64)], [Y], [tensor("E", weights(64, 32))])
    )


def test_a_table_that_only_lookups_read_is_not_restored() -> None:
    graph = tables(node("Gather", "E i", "y"))
    assert storage.find_lookups(graph) == ["y"]
    assert storage.store_tables(graph, {"y": 2}) == 1
    assert operators(graph) == ["Gather", "Gather", "Cast", "Mul", "Reshape"]
    assert sorted(graph.graph.initializers) == ["E_int8", "E_scale", "y_shape"]


def test_a_table_tied_to_a_product_is_restored_once() -> None:
    graph = tables(
        node("Gather", "E i", "h"),
        node("Transpose", "E", "T", perm=[1, 0]),
        node("MatMul", "h T", "s"),
        node("MatMul", "s E", "y"),
    )
    assert storage.store_tables(graph, {"h": 2}) == 1
    assert operators(graph).count("Reshape") == 2  # the rows, and the table
    assert "E" not in graph.graph.initializers
    restored = next(n for n in graph.graph if n.name == "E_restored").outputs[0]
    assert restored.name == "E"
    assert {n.op_type for n in restored.consumers()} == {"Transpose", "MatMul"}
    feed = {"i": np.arange(4)}
    answer(ir.to_proto(graph), feed)


def test_columns_are_no_lookup() -> None:
    proto = model(
        [node("Gather", "E i", "y", axis=1)],
        [value("i", ["b"], INT64)],
        [value("y", [64, "b"])],
        [tensor("E", weights(64, 32))],
    )
    assert storage.find_lookups(ir.from_proto(proto)) == []


def test_weights_left_are_stored_once_for_each_axis() -> None:
    proto = model(
        [node("MatMul", "x W", "h"), node("MatMul", "h W", "g"), node("MatMul", "W g", "y")],
        [value("x", [32, 32])],
        [value("y", [32, 32])],
        [SQUARE],
    )
    graph = ir.from_proto(proto)
    assert storage.store_weights(graph) == 3
    assert operators(graph).count("Cast") == 2
    names = ["W_float0_int8", "W_float0_scale", "W_float0_shape"]
    names += ["W_float1_int8", "W_float1_scale", "W_float1_shape"]
    assert sorted(graph.graph.initializers) == names
    feed = {"x": weights(32, 32, seed=5)}
    got, exact = answer(ir.to_proto(graph), feed)["y"], answer(proto, feed)["y"]
    assert np.abs(got - exact).max() < 0.05 * np.abs(exact).max()
