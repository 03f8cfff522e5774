"""Feeds: drawn from specs, read from a user's file, stored and read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mconv import samples
from mconv.errors import SourceError, UsageError
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


IMAGE, SCORES = spec("image", "float32", "batch", 2), spec("scores", "float32", "batch", 3)


def held(rows: int = 150) -> dict[str, np.ndarray]:
    image = np.arange(rows * 2, dtype=np.float64).reshape(rows, 2)
    return {"image": image, "scores": np.zeros((rows, 3), np.float32), "label": np.arange(rows)}


def test_user_rows_are_fed_in_batches_and_none_is_lost() -> None:
    feeds, expected, others = samples.user_feeds(held(), [IMAGE], [SCORES])
    assert [len(f["image"]) for f in feeds] == [64, 64, 22]
    assert [len(e["scores"]) for e in expected] == [64, 64, 22]
    joined = np.concatenate([f["image"] for f in feeds])
    np.testing.assert_array_equal(joined, held()["image"])
    assert joined.dtype == np.float32
    assert list(others) == ["label"]
    assert len(others["label"]) == 150


def test_a_fixed_batch_leaves_out_the_rest_and_its_labels() -> None:
    feeds, _, others = samples.user_feeds(held(10), [spec("image", "float32", 4, 2)], [])
    assert [len(f["image"]) for f in feeds] == [4, 4]
    assert others["label"].tolist() == list(range(8))
    feeds, _, _ = samples.user_feeds(held(10), [IMAGE], [], dims={"batch": 5})
    assert [len(f["image"]) for f in feeds] == [5, 5]


def test_a_limit_cuts_rows() -> None:
    feeds, _, others = samples.user_feeds(held(), [IMAGE], [], limit=70)
    assert [len(f["image"]) for f in feeds] == [64, 6]
    assert len(others["label"]) == 70


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image": None}, r"my.npz lacks the input 'image'; it holds label, scores"),
        ({"label": np.zeros(9)}, "every array must have the same, non-zero first axis; .*label: 9"),
        (
            {"image": np.zeros((10, 3))},
            r"image has shape \[10, 3\], the model takes \['batch', 2\]",
        ),
        ({"image": np.zeros((10, 2, 1))}, r"image has shape \[10, 2, 1\]"),
    ],
)
def test_a_user_file_that_does_not_fit_is_named(
    change: dict[str, np.ndarray | None], said: str
) -> None:
    arrays = {name: array for name, array in {**held(10), **change}.items() if array is not None}
    with pytest.raises(UsageError, match=said):
        samples.user_feeds(arrays, [IMAGE], [SCORES], file="my.npz")


def test_too_few_rows_for_a_fixed_batch() -> None:
    with pytest.raises(UsageError, match="holds 3 samples, the model takes 8 at a time"):
        samples.user_feeds(held(3), [spec("image", "float32", 8, 2)], [])


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"plain"])
def test_what_is_no_npz_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.npz"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"mine\.npz is not a readable \.npz"):
        samples.read_user_file(path)
    with pytest.raises(UsageError):
        samples.read_user_file(tmp_path / "missing.npz")


def test_pickles_are_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "bad.npz"
    np.savez(path, x=np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(UsageError, match="plain arrays"):
        samples.read_user_file(path)
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(UsageError):
        samples.read_user_file(tmp_path / "one.npy")
