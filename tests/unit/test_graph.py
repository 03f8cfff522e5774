"""ONNX files: refused where unsafe or broken, written the same every time, counted by hand."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mconv import graph
from mconv.errors import SourceError
from mconv.values import TensorSpec
from tests.models import convolution, linear


def external(folder: Path, location: str = "weights.bin") -> Path:
    """linear() with its tensors in a file beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    onnx.save_model(
        linear(), path, save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data_beside_the_model_is_read(tmp_path: Path) -> None:
    path = external(tmp_path)
    for before, after in zip(
        linear().graph.initializer, graph.load(path).graph.initializer, strict=True
    ):
        np.testing.assert_array_equal(numpy_helper.to_array(before), numpy_helper.to_array(after))


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "sub/../../secret.bin"])
def test_external_data_outside_the_folder_is_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(10000))
    path = external(tmp_path / "model", location)
    for data in (True, False):
        with pytest.raises(SourceError, match="outside the model's folder"):
            graph.load(path, data=data)


def test_external_data_through_a_link_is_refused(tmp_path: Path) -> None:
    path = external(tmp_path / "model")
    shutil.move(tmp_path / "model" / "weights.bin", tmp_path / "weights.bin")
    (tmp_path / "model" / "weights.bin").symlink_to(tmp_path / "weights.bin")
    with pytest.raises(SourceError, match="outside the model's folder"):
        graph.load(path)


def test_external_data_that_is_missing_or_short_is_refused(tmp_path: Path) -> None:
    path = external(tmp_path)
    data = (tmp_path / "weights.bin").read_bytes()
    (tmp_path / "weights.bin").write_bytes(data[:-1])
    with pytest.raises(SourceError, match=r"'weights.bin' of tensor '\w+' is missing or too short"):
        graph.load(path)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(SourceError, match="missing or too short"):
        graph.load(path)


def test_files_that_are_no_model_are_refused(tmp_path: Path) -> None:
    for index, content in enumerate(
        (b"", b"version https://git-lfs.github.com/spec/v1\n", linear().SerializeToString()[:200])
    ):
        path = tmp_path / f"{index}.onnx"
        path.write_bytes(content)
        with pytest.raises(SourceError, match=f"{index}.onnx is not"):
            graph.load(path)
    with pytest.raises(SourceError):
        graph.load(tmp_path / "missing.onnx")


def test_large_models_get_external_data_and_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph.save(linear(), tmp_path / "small.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["small.onnx"]
    monkeypatch.setattr(graph, "INLINE_LIMIT", 1000)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        graph.save(linear(), tmp_path / name / "model.onnx")
    for file in ("model.onnx", "model.onnx.data"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert graph.describe(tmp_path / "a" / "model.onnx") == graph.describe(tmp_path / "small.onnx")


def test_describe_counts(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(convolution().SerializeToString())
    info = graph.describe(path)
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
    info = graph.describe(path)
    assert info.operators == {"If": 1, "MatMul": 1, "com.microsoft.Gelu": 1}
    assert info.parameters == 16
    assert info.inputs[0].shape == ("x_0", 4)  # an axis without a name gets one
    assert info.inputs[1] == TensorSpec(name="c", dtype="bool", shape=())


def test_initializers_that_are_also_inputs_are_not_inputs(tmp_path: Path) -> None:
    proto = linear()
    proto.graph.input.append(helper.make_tensor_value_info("w0", TensorProto.FLOAT, [8, 32]))
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    assert [spec.name for spec in graph.describe(path).inputs] == ["x"]
