"""What a model holds, counted by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mconv.onnx_graph import model_files, model_info
from mconv.values import AxisBound, TensorSpec
from tests.models import convolution, linear, write_linear


def test_describe_counts(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(convolution().SerializeToString())
    info = model_info.describe(path)
    assert info.parameters == 16 * 3 * 3 * 3 + 16 + 16 * 16  # the shape of Reshape is no parameter
    assert (info.nodes, info.opset) == (5, 17)
    assert info.operators == {
        "Conv": 1,
        "GlobalAveragePool": 1,
        "MatMul": 1,
        "Relu": 1,
        "Reshape": 1,
    }
    assert info.inputs == (TensorSpec(name="image", dtype="float32", shape=("batch", 3, 8, 8)),)
    assert info.outputs == (TensorSpec(name="scores", dtype="float32", shape=("batch", 16)),)


def test_describe_looks_into_bodies_and_names_domains(tmp_path: Path) -> None:
    value = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, [None, 4]) for n in ("x", "y", "a", "b")
    ]
    weight = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    then = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["a"])], "t", [], [value[2]], [weight]
    )
    other = helper.make_graph(
        [helper.make_node("Gelu", ["x"], ["b"], domain="com.microsoft")], "e", [], [value[3]]
    )
    condition = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    nodes = [helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    made = helper.make_model(
        helper.make_graph(nodes, "g", [value[0], condition], [value[1]]), opset_imports=opsets
    )
    path = tmp_path / "model.onnx"
    path.write_bytes(made.SerializeToString())
    info = model_info.describe(path)
    assert info.operators == {"If": 1, "MatMul": 1, "com.microsoft.Gelu": 1}
    assert info.parameters == 16
    assert info.inputs[0].shape == ("x_0", 4)  # an axis without a name gets one
    assert info.inputs[1] == TensorSpec(name="c", dtype="bool", shape=())


def test_initializers_that_are_also_inputs_are_not_inputs(tmp_path: Path) -> None:
    proto = linear()
    proto.graph.input.append(helper.make_tensor_value_info("w0", TensorProto.FLOAT, [8, 32]))
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    assert [spec.name for spec in model_info.describe(path).inputs] == ["x"]


def test_bounds_are_found_without_parsing_a_file_that_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_linear(tmp_path / "model.onnx")
    with monkeypatch.context() as patch:
        patch.setattr(model_info, "load_model", None)
        assert model_info.find_bounds(path) == {}
    bounds = {"batch": AxisBound(min=2, max=6, multiple=2)}
    model_info.write_bounds(path, bounds)
    assert model_info.find_bounds(path) == model_info.describe(path).bounds == bounds
    strange = onnx.load(path)
    strange.metadata_props[0].value = '{"batch": "few"}'
    onnx.save(strange, path)
    assert model_info.find_bounds(path) == {}


def test_a_model_that_was_described_when_it_was_saved_is_not_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_files.load_model(write_linear(tmp_path / "model.onnx"))
    info = model_info.save_described(model, tmp_path / "again.onnx")
    with monkeypatch.context() as patch:
        patch.setattr(model_info, "load_model", None)
        assert model_info.describe(tmp_path / "again.onnx") is info
    write_linear(tmp_path / "again.onnx", seed=1)
    assert model_info.describe(tmp_path / "again.onnx") == info
    assert model_info.describe(tmp_path / "again.onnx") is not info


@pytest.mark.parametrize(
    "bound", [{"multiple": 0}, {"min": 0}, {"min": 9, "max": 1}, {"multiple": -2}]
)
def test_bounds_that_no_size_keeps_are_none(tmp_path: Path, bound: dict[str, int]) -> None:
    """A stranger's file may note anything."""
    path = write_linear(tmp_path / "model.onnx")
    noted = onnx.load(path)
    helper.set_model_props(noted, {model_info.BOUNDS: json.dumps({"batch": bound})})
    onnx.save(noted, path)
    assert model_info.find_bounds(path) == {}
