"""weight_only, part by part: which form a weight gets, and how it stands in the graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import helper, numpy_helper

from mconv.onnx_graph import model_files
from mconv.onnx_graph.serialization import is_in_memory
from mconv.quantizers._weight_only import storage
from mconv.quantizers._weight_only.codes import code_rows
from mconv.quantizers._weight_only.forms import FormRules, StoredForm, weight_tensor
from mconv.quantizers._weight_only.storage import store_weights
from tests.unit.quantizers.graphs import CASES, answer, body, model, node, tensor, value, weights

FOLDED = "int8 (folded)"
X, Y = value("x", ["b", 32]), value("y", ["b", 32])


def form(case: str, precision: str, **options: bool) -> StoredForm | None:
    """The form of the first weight of a case, as its first node reads it."""
    graph = ir.from_proto(CASES[case]).graph
    first = graph[0]
    index = next(i for i, read in enumerate(first.inputs) if weight_tensor(read) is not None)
    return FormRules(precision, **options).form_of(first, index)


@pytest.mark.parametrize(
    ("case", "precision", "expected"),
    [
        ("opset-11", "int4", ("int4", 0)),
        ("gemm", "int8", ("int8", 0)),
        ("gemm-without-bias", "int8", ("int8", 1)),
        ("tied-embedding", "int4", ("int4", 1)),
        ("tied-embedding", "int8", ("int8 a row", 0)),
        ("conv", "int4", (FOLDED, 0)),
        ("conv-transpose", "int8", (FOLDED, 1)),
        ("conv-transpose-grouped", "int8", (FOLDED, 0)),
        ("lstm", "int4", (FOLDED, 1)),
        ("conv", "fp16", ("fp16", 0)),
        ("fused-attention", "int8", None),
    ],
)
def test_a_weight_s_form_follows_from_its_reader(case: str, precision: str, expected: Any) -> None:
    assert form(case, precision) == (StoredForm(*expected) if expected else None)


def test_embeddings_and_what_fp16_cannot_hold_stay() -> None:
    assert form("tied-embedding", "int8", embeddings=False) is None
    large = model([node("MatMul", "x W", "y")], [X], [Y], [tensor("W", weights(32, 32) + 7e4)])
    first = ir.from_proto(large).graph[0]
    assert FormRules("fp16").form_of(first, 1) is None
    assert FormRules("int8").form_of(first, 1) == StoredForm("int8", 0)
    assert FormRules("int8").form_of(first, 0) is None  # an activation


def test_readers_share_a_weight_in_one_form() -> None:
    graph = ir.from_proto(CASES["gemm-shared-both-ways"])
    counts = store_weights(graph, FormRules("int8"), 16)
    assert counts == {("Gemm", "int8"): 1, ("MatMul", "int8"): 1}
    graph = ir.from_proto(CASES["gemm-shared"])
    assert store_weights(graph, FormRules("int8"), 16) == {("Gemm", "int8"): 2}
    assert [n.op_type for n in graph.graph] == ["DequantizeLinear", "Gemm", "Gemm"]
    assert set(graph.graph.initializers) == {"W_float0_stored", "W_float0_scale", "B"}


def test_a_weight_that_a_body_reads_too_stays_beside_its_codes() -> None:
    then = body("t", [node("MatMul", "x W", "a")], [], [value("a", ["b", 32])])
    otherwise = body("e", [node("Neg", "h", "c")], [], [value("c", ["b", 32])])
    proto = model(
        [
            node("MatMul", "x W", "h"),
            node("If", "q", "y", then_branch=then, else_branch=otherwise),
        ],
        [X],
        [Y],
        [tensor("W", weights(32, 32)), tensor("q", True, "?")],
        opset=21,
    )
    graph = ir.from_proto(proto)
    assert store_weights(graph, FormRules("int8"), 16) == {("MatMul", "int8"): 1}
    assert {"W", "W_float0_stored"} <= set(graph.graph.initializers)
    feed = {"x": weights(2, 32)}
    np.testing.assert_array_equal(answer(ir.to_proto(graph), feed)["y"], answer(proto, feed)["y"])


def test_weights_of_a_file_are_coded_when_the_model_is_written(tmp_path: Path) -> None:
    for case in ("gemm", "conv", "tied-embedding"):
        source = tmp_path / f"{case}.onnx"
        copy = onnx.ModelProto()  # which saving changes
        copy.CopyFrom(CASES[case])
        onnx.save_model(
            copy, str(source), save_as_external_data=True, size_threshold=1, location=case
        )
        for precision in ("fp16", "int8", "int4"):
            made = {}
            for kind in ("mapped", "held"):
                graph = (
                    model_files.load_model(source)
                    if kind == "mapped"
                    else ir.from_proto(CASES[case])
                )
                store_weights(graph, FormRules(precision), 16)
                tensors = {
                    name: held.const_value
                    for name, held in graph.graph.initializers.items()
                    if name.endswith("_stored") and held.const_value is not None
                }
                assert tensors
                assert all(is_in_memory(each) == (kind == "held") for each in tensors.values())
                made[kind] = {
                    name: (each.dtype, each.nbytes, each.tobytes())
                    for name, each in tensors.items()
                }
            assert made["mapped"] == made["held"]


@given(arrays(np.int8, st.integers(1, 33), elements=st.integers(-8, 7)))
def test_codes_of_4_bits_are_packed_as_onnx_says(codes: np.ndarray) -> None:
    source = ir.Tensor(np.zeros(1, np.float32))
    held = storage._derive(source, codes, lambda: codes, is_narrow=True)
    proto = helper.make_tensor("t", onnx.TensorProto.INT4, codes.shape, held.tobytes(), raw=True)
    np.testing.assert_array_equal(numpy_helper.to_array(proto).astype(np.int8), codes)


def test_rows_have_a_scale_each() -> None:
    values = weights(6, 9)
    linear = code_rows(values, 0)
    assert linear.scale.shape == (6,)
    assert linear.attributes == {"axis": 0}
    error = np.abs(linear.codes * linear.scale[:, None] - values)
    assert (error <= linear.scale[:, None] * 0.5 * (1 + 1e-4)).all()
