"""ONNX files: external data, damage, paths that leave the folder, integer inputs."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnx.reference
import onnxruntime
import pytest
from onnx import TensorProto, helper

from mconv.errors import SourceError, UnsupportedError
from mconv.sources import onnx as source
from mconv.values import SourceConfig, TensorSpec
from tests.models import linear


def config(path: Path) -> SourceConfig:
    return SourceConfig(format="onnx", path=str(path), root=str(path.parent))


@pytest.fixture
def external(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    onnx.save_model(
        linear(), path, save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    (tmp_path / "unrelated.txt").write_text("x")
    return path


def test_external_data_is_part_of_the_model(external: Path, tmp_path: Path) -> None:
    assert source.detect(external)
    assert [p.name for p in source.files(config(external))] == ["model.onnx", "weights.bin"]
    (tmp_path / "out").mkdir()
    info = source.export(config(external), tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["model.onnx"]
    assert info.model.parameters == 8 * 32 + 32 + 32 * 16
    feed = {"x": np.ones((2, 8), np.float32)}
    expected = onnx.reference.ReferenceEvaluator(linear()).run(None, feed)[0]
    np.testing.assert_allclose(source.load(config(external)).run(feed)["y"], expected, rtol=1e-5)


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "link.bin"])
def test_external_data_may_not_leave_the_folder(external: Path, location: str) -> None:
    folder = external.parent / "inner"
    folder.mkdir()
    (external.parent / "secret.bin").write_bytes(bytes(8192))
    (folder / "link.bin").symlink_to(external.parent / "secret.bin")
    model = onnx.load(external, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(SourceError, match="outside the model's folder"):
        source.load(config(folder / "model.onnx"))


def test_truncated_files(external: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(SourceError, match="missing or too short"):
        source.load(config(external))
    whole = linear().SerializeToString()
    for size in (0, 7, len(whole) // 2):
        (tmp_path / "cut.onnx").write_bytes(whole[:size])
        with pytest.raises((SourceError, UnsupportedError)):
            source.export(config(tmp_path / "cut.onnx"), tmp_path)


def test_new_opsets_and_foreign_operators_are_named(tmp_path: Path) -> None:
    model = linear()
    model.opset_import[0].version = 27
    (tmp_path / "new.onnx").write_bytes(model.SerializeToString())
    with pytest.raises((UnsupportedError, SourceError), match=r"opset|27"):
        source.export(config(tmp_path / "new.onnx"), tmp_path)
    model = linear()
    model.graph.node[1].op_type, model.graph.node[1].domain = "Sparkle", "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    (tmp_path / "custom.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UnsupportedError, match=r"not ONNX's: com\.example\.Sparkle"):
        source.export(config(tmp_path / "custom.onnx"), tmp_path)


def write_relu(path: Path, *dims: int | str) -> SourceConfig:
    """A graph of one Relu, whose input and output have these dimensions."""
    value = helper.make_tensor_value_info
    ports = [[value(name, TensorProto.FLOAT, list(dims))] for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", *ports)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return config(path)


def declare(found: SourceConfig, *shape: int | str, name: str = "x") -> SourceConfig:
    spec = TensorSpec(name=name, dtype="float32", shape=shape)
    return msgspec.structs.replace(found, inputs=(spec,))


def test_declared_inputs_fix_and_name_axes(tmp_path: Path) -> None:
    found = declare(write_relu(tmp_path / "m.onnx", "n", "m", 4), "batch", 16, 4)
    assert source.load(found).inputs[0].shape == ("batch", 16, 4)
    (tmp_path / "out").mkdir()
    info = source.export(found, tmp_path / "out")
    assert info.model.inputs[0].shape == ("batch", 16, 4)
    session = onnxruntime.InferenceSession(str(tmp_path / "out/model.onnx"))
    assert session.get_inputs()[0].shape == ["batch", 16, 4]


@pytest.mark.parametrize(
    ("shape", "name", "words"),
    [
        (("n", "m"), "x", r"cannot make \['n', 'm'\]"),
        (("n", "m", 5), "x", r"cannot make \['n', 'm', 5\]"),
        (("n",), "z", "has no input 'z'; it has x"),
    ],
)
def test_declared_inputs_that_do_not_fit_are_named(
    tmp_path: Path, shape: tuple[int | str, ...], name: str, words: str
) -> None:
    found = declare(write_relu(tmp_path / "m.onnx", "n", "m", 4), *shape, name=name)
    with pytest.raises(SourceError, match=words):
        source.export(found, tmp_path)


def test_an_axis_of_minus_one_is_free(tmp_path: Path) -> None:
    found = write_relu(tmp_path / "m.onnx", -1, 3)
    assert source.load(found).inputs[0].shape == ("x_0", 3)
    (tmp_path / "out").mkdir()
    source.export(found, tmp_path / "out")
    session = onnxruntime.InferenceSession(str(tmp_path / "out/model.onnx"))
    for rows in (1, 5):
        assert session.run(None, {"x": np.ones((rows, 3), np.float32)})[0].shape == (rows, 3)


def test_what_onnxruntime_refuses_is_a_source_error(tmp_path: Path) -> None:
    model = source.load(write_relu(tmp_path / "m.onnx", "n", 4))
    with pytest.raises(SourceError, match=r"cannot answer x \[2, 5\]"):
        model.run({"x": np.ones((2, 5), np.float32)})
