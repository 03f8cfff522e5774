"""A mapped tensor reads what is in its file, and keeps nothing."""

from __future__ import annotations

import io
import os
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

from mconv.onnx_graph.mapped_tensor import MappedTensor


def mapped(folder: Path, data: bytes, kind: ir.DataType, shape: list[int]) -> MappedTensor:
    (folder / "data").write_bytes(b"before" + data + b"after")
    return MappedTensor(
        "data", 6, len(data), kind, shape=ir.Shape(shape), name="w", base_dir=folder
    )


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (np.arange(6, dtype=np.float32).reshape(2, 3), ir.DataType.FLOAT),
        (np.arange(6, dtype=np.int64).reshape(3, 2), ir.DataType.INT64),
        (np.arange(4).astype(ml_dtypes.bfloat16), ir.DataType.BFLOAT16),
        (np.zeros((0, 3), np.float32), ir.DataType.FLOAT),
        (np.array(7, np.float16), ir.DataType.FLOAT16),
    ],
)
def test_values_are_those_of_the_file(array: np.ndarray, kind: ir.DataType, tmp_path: Path) -> None:
    tensor = mapped(tmp_path, array.tobytes(), kind, list(array.shape))
    read = tensor.numpy()
    assert read.dtype == array.dtype
    assert read.shape == array.shape
    assert read.tobytes() == tensor.tobytes() == array.tobytes()
    assert np.asarray(tensor).tobytes() == array.tobytes()
    file = io.BytesIO()
    tensor.tofile(file)
    assert file.getvalue() == array.tobytes()


def test_four_bits_are_taken_apart(tmp_path: Path) -> None:
    tensor = mapped(tmp_path, b"\x21\xf3", ir.DataType.INT4, [3])
    assert tensor.numpy().astype(int).tolist() == [1, 2, 3]
    assert tensor.tobytes() == b"\x21\xf3"


def test_a_file_with_two_names_is_read(tmp_path: Path) -> None:
    tensor = mapped(tmp_path, np.ones(4, np.float32).tobytes(), ir.DataType.FLOAT, [4])
    os.link(tmp_path / "data", tmp_path / "other")
    assert tensor.numpy().tolist() == [1, 1, 1, 1]


def test_a_file_that_became_too_short_is_told(tmp_path: Path) -> None:
    tensor = mapped(tmp_path, np.ones(4, np.float32).tobytes(), ir.DataType.FLOAT, [4])
    os.truncate(tmp_path / "data", 10)
    with pytest.raises(OSError, match="ends before tensor 'w' does"):
        tensor.tofile(io.BytesIO())
