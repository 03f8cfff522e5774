"""int8, part by part: Gemm becomes MatMul and Add, weights become codes; each in its conditions."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from mconv.quantizers import _float_models
from mconv.quantizers._int8_dynamic import passes, storage
from tests.unit.quantizers.graphs import (
    CASES,
    X,
    Y,
    answer,
    feeds_of,
    model,
    node,
    tensor,
    value,
    weights,
)


def operators(graph: ir.Model) -> list[str]:
    return [n.op_type for n in graph.graph]


def test_a_gemm_becomes_a_product_and_a_sum_of_its_names() -> None:
    graph = ir.from_proto(CASES["gemm"])
    graph.graph[0].name = "dense"
    assert passes.SplitGemmPass()(graph).modified
    assert [(n.op_type, n.name, n.outputs[0].name) for n in graph.graph] == [
        ("MatMul", "dense", "y_product"),
        ("Add", "dense_bias", "y"),
    ]
    assert not passes.SplitGemmPass()(graph).modified


@pytest.mark.parametrize("name", ["gemm", "gemm-without-bias", "gemm-shared"])
def test_answers_stay(name: str) -> None:
    graph = ir.from_proto(CASES[name])
    passes.SplitGemmPass()(graph)
    feed = feeds_of(CASES[name])
    got = answer(ir.to_proto(graph), feed)["y"]
    np.testing.assert_allclose(got, answer(CASES[name], feed)["y"], rtol=1e-4, atol=1e-5)


def test_a_shared_weight_is_transposed_once_and_kept_where_others_read_it() -> None:
    shared = ir.from_proto(CASES["gemm-shared"])
    passes.SplitGemmPass()(shared)
    assert sorted(shared.graph.initializers) == ["B", "W_transposed"]
    both = ir.from_proto(CASES["gemm-shared-both-ways"])
    passes.SplitGemmPass()(both)
    assert sorted(both.graph.initializers) == ["B", "W", "W_transposed"]
    turned = both.graph.initializers["W_transposed"].const_value
    assert turned is not None
    np.testing.assert_array_equal(turned.numpy(), weights(32, 32).T)


@pytest.mark.parametrize("attributes", [{"alpha": 0.5}, {"beta": 2.0}, {"transA": 1}])
def test_a_gemm_that_scales_or_transposes_its_input_stays(attributes: dict[str, Any]) -> None:
    square = model(
        [node("Gemm", "x W", "y", **attributes)],
        [value("x", [32, 32])],
        [value("y", [32, 32])],
        [tensor("W", weights(32, 32))],
    )
    graph = ir.from_proto(square)
    assert not passes.SplitGemmPass()(graph).modified
    assert operators(graph) == ["Gemm"]


def test_conditions_of_the_pass_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = ir.from_proto(CASES["gemm"])
    broken.graph.initializers["W"].const_value = ir.Tensor(weights(4, 4, 4), name="W")
    with pytest.raises(ir.passes.PreconditionError, match="B of 'y' is no matrix"):
        passes.SplitGemmPass()(broken)

    def nothing(self: object, model: ir.Model) -> ir.passes.PassResult:
        return ir.passes.PassResult(model, modified=False)

    monkeypatch.setattr(passes.SplitGemmPass, "call", nothing)
    with pytest.raises(ir.passes.PostconditionError, match="'y' is made by a Gemm still"):
        passes.SplitGemmPass()(ir.from_proto(CASES["gemm"]))


def test_weights_become_codes_that_nodes_share() -> None:
    proto = model(
        [node("Gemm", "x W", "h", alpha=0.5), node("Gemm", "h W", "y", alpha=0.5)],
        [X],
        [Y],
        [tensor("W", weights(32, 32))],
    )
    graph = ir.from_proto(proto)
    assert storage.store_weights(graph, per_channel=True) == 2
    assert operators(graph) == ["Cast", "Mul", "Gemm", "Gemm"]
    assert sorted(graph.graph.initializers) == ["W_float1_int8", "W_float1_scale"]
    codes, scale = (value.const_value for value in graph.graph.initializers.values())
    assert codes is not None
    assert scale is not None
    assert scale.shape.numpy() == (1, 32)
    error = np.abs(codes.numpy() * scale.numpy() - weights(32, 32))
    assert (error <= scale.numpy() * 0.501).all()


def test_one_scale_for_all_and_small_weights_left_alone() -> None:
    graph = ir.from_proto(CASES["gemm-scaled"])
    assert storage.store_weights(graph, per_channel=False) == 1
    scale = graph.graph.initializers["W_float0_scale"].const_value
    assert scale is not None
    assert scale.size == 1
    small = model(
        [node("Gemm", "x W", "y")],
        [value("x", ["b", 8])],
        [value("y", ["b", 8])],
        [tensor("W", weights(8, 8))],
    )
    graph = ir.from_proto(small)
    assert storage.store_weights(graph, per_channel=True) == 0
    assert sorted(graph.graph.initializers) == ["W"]


@pytest.mark.parametrize(
    ("name", "usual", "axis"),
    [
        ("gemm", 1, 1),
        ("gemm-without-bias", 1, 0),
        ("conv-transpose", 1, 1),
        ("conv-transpose-grouped", 1, 0),
        ("conv-grouped", 0, 0),
    ],
)
def test_the_axis_of_output_channels(name: str, usual: int, axis: int) -> None:
    graph = ir.from_proto(CASES[name])
    assert _float_models.output_axis(graph.graph[0], usual) == axis
