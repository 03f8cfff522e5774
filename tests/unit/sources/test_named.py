"""Names of outputs, names in graphs, and the proof of an export; with NumPy arrays for tensors and
graphs made by hand."""

from __future__ import annotations

import dataclasses
from collections import namedtuple
from pathlib import Path

import numpy as np
import onnx
import onnx.reference
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from mconv.errors import SourceError, UnsupportedError
from mconv.sources import _named
from mconv.values import TensorSpec

A, B, C = (np.full((2, 3), i, np.float32) for i in range(3))
Pair = namedtuple("Pair", ["first", "second"])


@dataclasses.dataclass
class Answer:
    logits: np.ndarray
    hidden: tuple[np.ndarray, ...] | None = None


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        (A, ["output"]),
        ([A], ["output"]),
        ((A, B), ["output_0", "output_1"]),
        ({"x": A, "none": None, "y": B}, ["x", "y"]),
        (Pair(A, B), ["first", "second"]),
        (Answer(A), ["logits"]),
        (Answer(A, (B, C)), ["logits", "hidden_0", "hidden_1"]),
        ({"inner": {"x": A}, "y": [B, C]}, ["x", "y_0", "y_1"]),
        ({"a": {"x": A}, "b": {"x": B}}, ["x", "b_x"]),
    ],
)
def test_outputs_get_names(answer: object, names: list[str]) -> None:
    assert list(_named.flatten_answer(answer, np.ndarray)) == names


def test_answers_that_have_no_names() -> None:
    with pytest.raises(SourceError, match="returned str"):
        _named.flatten_answer("text", np.ndarray)
    with pytest.raises(SourceError, match="two outputs named 'x'"):
        _named.flatten_answer({"a": {"x": A}, "x": B}, np.ndarray)


def branching() -> onnx.ModelProto:
    """y = x + 1 if flag else x, from inside of branches, with an inner tensor that has the name an
    output is to get."""
    value = helper.make_tensor_value_info
    one = helper.make_node("Constant", [], ["one"], value_float=1.0)
    then = helper.make_graph(
        [one, helper.make_node("Add", ["in0", "one"], ["t"])],
        "t",
        [],
        [value("t", TensorProto.FLOAT, ["b", 3])],
    )
    other = helper.make_graph(
        [helper.make_node("Identity", ["in0"], ["e"])],
        "e",
        [],
        [value("e", TensorProto.FLOAT, ["b", 3])],
    )
    nodes = [
        helper.make_node("If", ["in1"], ["y"], then_branch=then, else_branch=other),
        helper.make_node("Neg", ["y"], ["out0"]),
    ]
    inputs = [value("in0", TensorProto.FLOAT, ["b", 3]), value("in1", TensorProto.BOOL, [])]
    graph = helper.make_graph(nodes, "g", inputs, [value("out0", TensorProto.FLOAT, ["b", 3])])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


X = TensorSpec(name="x", dtype="float32", shape=("batch", 3))
FLAG = TensorSpec(name="flag", dtype="bool", shape=())
Y = TensorSpec(name="y", dtype="float32", shape=("batch", 3))


def test_graphs_get_the_models_names_inside_branches_too(tmp_path: Path) -> None:
    model = ir.from_proto(branching())
    _named.name_values(model, [X, FLAG], [Y])
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    assert [v.name for v in (*proto.graph.input, *proto.graph.output)] == ["x", "flag", "y"]
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    feeds = [{"x": C, "flag": np.array(flag)} for flag in (True, False)]
    answers = [{"y": -(C + 1)}, {"y": -C}]
    for feed, wanted in zip(feeds, answers, strict=True):
        np.testing.assert_array_equal(
            onnx.reference.ReferenceEvaluator(proto).run(None, feed)[0], wanted["y"]
        )
    target = tmp_path / "model.onnx"
    onnx.save(proto, target)
    _named.prove_export(target, feeds, answers)
    with pytest.raises(UnsupportedError, match="output y differs"):
        _named.prove_export(target, feeds, answers[::-1])
    with pytest.raises(UnsupportedError, match=r"shape \[2, 3\], the model gives \[6\]"):
        _named.prove_export(target, feeds[:1], [{"y": answers[0]["y"].ravel()}])
    with pytest.raises(UnsupportedError, match="does not use its input idle"):
        _named.prove_export(target, [{**feeds[0], "idle": A}], answers[:1])
    short = branching()
    del short.graph.input[1]
    with pytest.raises(UnsupportedError, match="1 inputs"):
        _named.name_values(ir.from_proto(short), [X, FLAG], [Y])
