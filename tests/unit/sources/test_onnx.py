"""ONNX files: external data, damage, paths that leave the folder, integer inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.reference
import pytest
from onnx import TensorProto, helper, numpy_helper

from mconv.errors import SourceError, UnsupportedError
from mconv.sources import onnx as source
from mconv.values import SourceConfig
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


def test_indices_stay_inside_their_table(tmp_path: Path) -> None:
    table = numpy_helper.from_array(np.arange(21, dtype=np.float32).reshape(7, 3), "table")
    nodes = [helper.make_node("Gather", ["table", "ids"], ["y"])]
    inputs = [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "length"])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "length", 3])]
    model = helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs, [table]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    (tmp_path / "gather.onnx").write_bytes(model.SerializeToString())
    loaded = source.load(config(tmp_path / "gather.onnx"))
    feeds = loaded.samples(6, 0, {}) or []
    assert {int(i) for f in feeds for i in f["ids"].ravel()} == set(range(7))
    assert all(loaded.run(f)["y"].shape[-1] == 3 for f in feeds)
