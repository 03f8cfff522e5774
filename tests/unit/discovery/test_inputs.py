"""Inputs that are known from arrays beside a model, and those that are guessed by a weight."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mconv.discovery.inputs import (
    Array,
    find_arrays,
    guess_inputs,
    match_samples,
    read_arrays,
)


def test_headers_are_read_as_numpy_writes_them(tmp_path: Path) -> None:
    arrays = {
        "image": np.zeros((3, 1, 8, 8), np.float32),
        "ids": np.zeros((3, 5), ">i4"),
        "flag": np.zeros(3, bool),
        "word": np.array(["a", "b", "c"]),
        "z": np.zeros((3,), np.complex64),
    }
    np.savez_compressed(tmp_path / "x.npz", **arrays)
    assert read_arrays(tmp_path / "x.npz") == (
        Array(name="image", shape=(3, 1, 8, 8), dtype="float32"),
        Array(name="ids", shape=(3, 5), dtype="int32"),
        Array(name="flag", shape=(3,), dtype="bool"),
        Array(name="word", shape=(3,), dtype=""),
        Array(name="z", shape=(3,), dtype=""),
    )


def test_damaged_files_hold_nothing(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    data = (tmp_path / "x.npz").read_bytes()
    (tmp_path / "x.npz").write_bytes(data[: len(data) // 2])
    (tmp_path / "y.npz").write_bytes(b"no archive")
    assert find_arrays(tmp_path) == {}
    hostile = data.replace(b"'descr'", b"__impo'")
    (tmp_path / "z.npz").write_bytes(hostile)
    assert read_arrays(tmp_path / "z.npz") == ()


def test_samples_are_those_that_have_every_input(tmp_path: Path) -> None:
    (tmp_path / ".cache").mkdir()
    pair = {"a": np.zeros((3, 2), np.float32), "b": np.zeros((3, 4), np.int64)}
    np.savez(tmp_path / ".cache/hidden.npz", **pair)
    np.savez(tmp_path / "calibration.npz", **pair)
    np.savez(tmp_path / "only_a.npz", a=pair["a"])
    np.savez(tmp_path / "other_rows.npz", a=pair["a"], b=np.zeros((2, 4), np.int64))
    arrays = find_arrays(tmp_path)
    found = match_samples(arrays, ("b", "a"))
    assert found is not None
    assert found[0].name == "calibration.npz"
    assert [each.text for each in found[1]] == [
        "b: {shape: [batch, 4], dtype: int64}",
        "a: {shape: [batch, 2]}",
    ]
    np.savez(tmp_path / "samples.npz", **pair, label=np.zeros(3))
    found = match_samples(find_arrays(tmp_path), ("a", "b"))
    assert found is not None
    assert found[0].name == "samples.npz"
    assert match_samples(arrays, ("a", "c")) is None
    assert match_samples(arrays, ()) is None


def test_arrays_without_rows_are_no_samples(tmp_path: Path) -> None:
    np.savez(tmp_path / "scalar.npz", a=np.float32(1))
    np.savez(tmp_path / "empty.npz", a=np.zeros((0, 2), np.float32))
    np.savez(tmp_path / "text.npz", a=np.array(["x"]))
    assert match_samples(find_arrays(tmp_path), ("a",)) is None


@pytest.mark.parametrize(
    ("name", "shape", "kind", "text"),
    [
        ("conv.weight", (16, 3, 3, 3), "pytorch", "x: {shape: [batch, 3, height, width]}"),
        ("conv.weight", (16, 80, 3), "pytorch", "x: {shape: [batch, 80, length]}"),
        ("fc.weight", (16, 4), "pytorch", "x: {shape: [batch, 4]}"),
        ("embed.weight", (99, 4), "pytorch", "x: {shape: [batch, sequence], dtype: int64}"),
        ("wte.weight", (99, 4), "pytorch", "x: {shape: [batch, sequence], dtype: int64}"),
        ("conv/kernel", (3, 3, 1, 16), "jax", "x: {shape: [batch, height, width, 1]}"),
        ("dense/kernel", (4, 16), "jax", "x: {shape: [batch, 4]}"),
        ("embedding", (99, 4), "jax", "x: {shape: [batch, sequence], dtype: int32}"),
    ],
)
def test_the_first_weight_tells_what_it_is_multiplied_with(
    name: str, shape: tuple[int, ...], kind: str, text: str
) -> None:
    guesses, evidence = guess_inputs(("x",), {"scale": (7,), name: shape, "later": (5, 5)}, kind)
    assert [each.text for each in guesses] == [text]
    assert name in evidence
    assert str(list(shape)) in evidence


def test_every_argument_has_a_guess() -> None:
    guesses, _ = guess_inputs(("ids", "mask"), {"embed.weight": (9, 4)}, "pytorch")
    assert [each.name for each in guesses] == ["ids", "mask"]
    assert {each.dtype for each in guesses} == {"int64"}
    guesses, evidence = guess_inputs((), {}, "pytorch")
    assert [each.text for each in guesses] == ["input: {shape: [batch, size]}"]
    assert evidence == ""
