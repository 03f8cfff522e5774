"""ONNX files: refused where unsafe or broken, written the same every time."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from mconv.errors import SourceError
from mconv.onnx_graph import model_files, model_info
from tests.models import linear


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
        linear().graph.initializer, model_files.load(path).graph.initializer, strict=True
    ):
        np.testing.assert_array_equal(numpy_helper.to_array(before), numpy_helper.to_array(after))


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "sub/../../secret.bin"])
def test_external_data_outside_the_folder_is_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(10000))
    path = external(tmp_path / "model", location)
    for data in (True, False):
        with pytest.raises(SourceError, match="outside the model's folder"):
            model_files.load(path, data=data)


def test_external_data_through_a_link_is_refused(tmp_path: Path) -> None:
    path = external(tmp_path / "model")
    shutil.move(tmp_path / "model" / "weights.bin", tmp_path / "weights.bin")
    (tmp_path / "model" / "weights.bin").symlink_to(tmp_path / "weights.bin")
    with pytest.raises(SourceError, match="outside the model's folder"):
        model_files.load(path)


def test_external_data_that_is_missing_or_short_is_refused(tmp_path: Path) -> None:
    path = external(tmp_path)
    data = (tmp_path / "weights.bin").read_bytes()
    (tmp_path / "weights.bin").write_bytes(data[:-1])
    with pytest.raises(SourceError, match=r"'weights.bin' of tensor '\w+' is missing or too short"):
        model_files.load(path)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(SourceError, match="missing or too short"):
        model_files.load(path)


def test_files_that_are_no_model_are_refused(tmp_path: Path) -> None:
    for index, content in enumerate(
        (b"", b"version https://git-lfs.github.com/spec/v1\n", linear().SerializeToString()[:200])
    ):
        path = tmp_path / f"{index}.onnx"
        path.write_bytes(content)
        with pytest.raises(SourceError, match=f"{index}.onnx is not"):
            model_files.load(path)
    with pytest.raises(SourceError):
        model_files.load(tmp_path / "missing.onnx")


def test_large_models_get_external_data_and_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model_files.save(linear(), tmp_path / "small.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["small.onnx"]
    monkeypatch.setattr(model_files, "INLINE_LIMIT", 1000)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        model_files.save(linear(), tmp_path / name / "model.onnx")
    for file in ("model.onnx", "model.onnx.data"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert model_info.describe(tmp_path / "a" / "model.onnx") == model_info.describe(
        tmp_path / "small.onnx"
    )
