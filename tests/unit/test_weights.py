"""Named weights in one raw file: every bit comes back, and what is not whole is refused."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from mconv import weights
from mconv.errors import StepError, UnsupportedError
from mconv.weights import About, Tensor

ABOUT = About(format="pytorch", architecture="Net")
ARRAYS = {
    "scalar": np.float32(2),
    "empty": np.zeros((0, 3), np.int8),
    "strided": np.arange(12, dtype=np.float64).reshape(3, 4)[:, ::2],
    "swapped": np.arange(5, dtype=">i2"),
    "flags": np.array([True, False]),
    "brain": np.array([1.5, -0.0], ml_dtypes.bfloat16),
    "nibbles": np.array([-8, 7, 0], ml_dtypes.int4),
}


def save(folder: Path, *pairs: tuple[str, Tensor], **aliases: str) -> weights.Folder:
    weights.save(folder, ABOUT, pairs, aliases)
    return weights.Folder(folder)


def test_every_type_and_shape_comes_back(tmp_path: Path) -> None:
    pairs = [(name, Tensor.of(np.asarray(array))) for name, array in ARRAYS.items()]
    folder = save(tmp_path, *pairs)
    assert list(folder) == list(ARRAYS)
    assert len(folder) == len(ARRAYS)
    for name, array in ARRAYS.items():
        back = folder[name].numpy()
        assert back.shape == np.shape(array)
        assert back.dtype == np.asarray(array).dtype.newbyteorder("=")
        np.testing.assert_array_equal(back.astype(np.float64), np.asarray(array, np.float64))
        assert folder.records[name].offset % weights.ALIGNMENT == 0


def test_bits_are_compared_not_numbers() -> None:
    nan = Tensor.of(np.array([np.nan, 0.0], np.float32))
    assert nan.equals(Tensor.of(np.array([np.nan, 0.0], np.float32)))
    assert not nan.equals(Tensor.of(np.array([np.nan, -0.0], np.float32)))
    ones = Tensor.of(np.ones((2, 3), np.int32))
    assert not ones.equals(Tensor.of(np.ones((3, 2), np.int32)))
    assert not ones.equals(Tensor.of(np.ones((2, 3), np.uint32)))


@pytest.mark.parametrize(
    "array",
    [np.array(["a"]), np.array([None]), np.zeros(1, [("a", "f4")]), np.zeros(1, "M8[s]")],
    ids=["text", "objects", "records", "times"],
)
def test_what_is_no_type_of_weights(array: np.ndarray) -> None:
    with pytest.raises(UnsupportedError, match="no type of weights"):
        Tensor.of(array)


def test_what_is_not_whole_is_not_written(tmp_path: Path) -> None:
    one = Tensor.of(np.ones(3, np.float32))
    with pytest.raises(StepError, match="'a' twice"):
        save(tmp_path, ("a", one), ("a", one))
    with pytest.raises(StepError, match="'a' twice"):
        save(tmp_path, ("b", one), ("a", one), a="b")
    with pytest.raises(StepError, match="alias of 'c', which it does not give"):
        save(tmp_path, ("b", one), a="c")
    with pytest.raises(StepError, match="12 bytes, which is no float32 of shape \\[5\\]"):
        save(tmp_path, ("a", Tensor("float32", (5,), one.data)))
    with pytest.raises(StepError, match="12 bytes"):
        save(tmp_path, ("a", Tensor("float32", (0,), one.data)))


def test_the_files_beside_the_weights(tmp_path: Path) -> None:
    folder = save(tmp_path)
    assert folder.list_files_beside() == []
    (tmp_path / weights.FILES / "inner").mkdir(parents=True)
    for name in ("tokenizer.json", "config.json"):
        (tmp_path / weights.FILES / name).write_text("{}")
    assert [path.name for path in folder.list_files_beside()] == ["config.json", "tokenizer.json"]


def test_names_that_differ_are_listed() -> None:
    weights.check_names(["a", "b"], ["b", "a"], "the file")
    with pytest.raises(StepError, match="the file lacks 7 weights of the model: a, b, c, d, e …"):
        weights.check_names("abcdefg", "", "the file")
    with pytest.raises(StepError, match=r"the file has 1 weights that the model has not: c$"):
        weights.check_names("ab", "abc", "the file")


def test_tensors_that_differ_are_listed() -> None:
    one, two = Tensor.of(np.ones(1)), Tensor.of(np.zeros(1))
    assert weights.list_different({"a": one, "b": two}, [("a", one), ("b", one), ("c", one)]) == [
        "b",
        "c",
    ]
