"""Feeds: drawn from specs, read from a user's file, stored and read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mconv import samples
from mconv.errors import SourceError, StepError
from mconv.values import TensorSpec


def spec(name: str = "x", dtype: str = "float32", *shape: int | str) -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=shape)


TEXT = (
    spec("ids", "int64", "batch", "sequence"),
    spec("mask", "bool", "batch", "sequence"),
    spec("z", "float32", 3),
)


def test_texts_are_stored_without_pickles(tmp_path: Path) -> None:
    texts = np.array([["naïve"], ["cat"]], object)
    samples.save_feeds(tmp_path / "texts.npz", [{"word": texts}])
    with np.load(tmp_path / "texts.npz", allow_pickle=False) as data:
        assert data["00000/word"].dtype.kind == "U"
    (again,) = samples.load_feeds(tmp_path / "texts.npz")
    assert again["word"].dtype == object
    np.testing.assert_array_equal(again["word"], texts)


def test_feeds_come_back_as_they_were_saved(tmp_path: Path) -> None:
    feeds = samples.draw_feeds(TEXT, count=12)
    for name in ("a.npz", "b.npz"):
        samples.save_feeds(tmp_path / name, feeds)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    again = samples.load_feeds(tmp_path / "a.npz")
    assert len(again) == 12
    for before, after in zip(feeds, again, strict=True):
        assert before.keys() == after.keys()
        for name, array in before.items():
            assert after[name].dtype == array.dtype
            np.testing.assert_array_equal(after[name], array)


def test_free_axes_vary_and_agree_between_inputs() -> None:
    feeds = samples.draw_feeds(TEXT, count=3)
    assert all(feed["ids"].shape == feed["mask"].shape for feed in feeds)
    assert len({feed["ids"].shape[0] for feed in feeds}) == 3
    assert len({feed["ids"].shape[1] for feed in feeds}) == 3
    assert {feed["z"].shape for feed in feeds} == {(3,)}


def test_named_axes_can_be_fixed() -> None:
    feeds = samples.draw_feeds(TEXT, dims={"sequence": 5, "batch": 2})
    assert {feed["ids"].shape for feed in feeds} == {(2, 5)}


@given(st.integers(0, 2**31), st.integers(1, 4))
def test_drawing_is_seeded_per_input(seed: int, count: int) -> None:
    one, two = (samples.draw_feeds(TEXT, count=count, seed=seed) for _ in range(2))
    alone = samples.draw_feeds(TEXT[:1], count=count, seed=seed)
    for a, b, c in zip(one, two, alone, strict=True):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
        np.testing.assert_array_equal(a["ids"], c["ids"])  # other inputs do not change it


def test_another_seed_draws_other_numbers() -> None:
    inputs = (spec("x", "float32", 4, 4),)
    assert not np.array_equal(
        samples.draw_feeds(inputs, seed=1)[0]["x"], samples.draw_feeds(inputs, seed=2)[0]["x"]
    )


def test_drawn_numbers_fit_their_type() -> None:
    inputs = (
        spec("f", "float16", 2000),
        spec("i", "int32", 2000),
        spec("u", "uint8", 2000),
        spec("b", "bool", 2000),
    )
    feed = samples.draw_feeds(inputs, count=1, high={"i": 1000})[0]
    assert {n: str(a.dtype) for n, a in feed.items()} == {
        "f": "float16",
        "i": "int32",
        "u": "uint8",
        "b": "bool",
    }
    assert abs(float(feed["f"].astype(np.float64).std()) - 1) < 0.1
    assert (feed["i"].min() >= 0, feed["i"].max() < 1000, feed["i"].max() > 900) == (
        True,
        True,
        True,
    )
    assert set(np.unique(feed["u"])) == {0, 1}
    assert set(np.unique(feed["b"])) == {False, True}


def test_strings_cannot_be_drawn() -> None:
    with pytest.raises(SourceError, match="no samples can be drawn for input 's' of type object"):
        samples.draw_feeds((spec("s", "object", "batch"),))


@pytest.mark.parametrize(
    ("feed", "words"),
    [
        ({"ids": np.ones((2, 3), np.int64), "z": np.ones(3, np.float32)}, None),
        ({"ids": np.ones((2, 3), np.int64)}, "the input z was not fed"),
        (
            {"ids": np.ones((2, 3), np.int64), "z": np.ones(3, np.float32), "y": np.ones(1)},
            "has no input y; it has ids, z",
        ),
        (
            {"ids": np.ones((2, 3), np.int32), "z": np.ones(3, np.float32)},
            "ids is int32, the artifact takes int64",
        ),
        ({"ids": np.ones((2, 3), np.int64), "z": np.ones(4, np.float32)}, r"shape \[4\]"),
        ({"ids": np.ones(3, np.int64), "z": np.ones(3, np.float32)}, r"shape \[3\]"),
    ],
)
def test_a_feed_is_every_input_in_its_type_and_shape(
    feed: dict[str, np.ndarray], words: str | None
) -> None:
    inputs = (spec("ids", "int64", "batch", "sequence"), spec("z", "float32", 3))
    if words is None:
        samples.check_feed(inputs, feed)
    else:
        with pytest.raises(StepError, match=words):
            samples.check_feed(inputs, feed)


def test_sizes_of_a_call_are_those_of_its_free_axes() -> None:
    inputs = (
        TensorSpec(name="x", dtype="float32", shape=("batch", 3, "time")),
        TensorSpec(name="mask", dtype="int64", shape=("batch", "words")),
        TensorSpec(name="rate", dtype="int64", shape=()),
    )
    feed = {"x": np.zeros((2, 3, 7)), "rate": np.array(1)}
    assert samples.sizes_of(inputs, feed) == {"batch": 2, "time": 7}
