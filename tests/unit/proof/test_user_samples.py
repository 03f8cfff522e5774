"""Samples that users give, in every form they may have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mconv.errors import UsageError
from mconv.proof.media import Media
from mconv.proof.user_samples import read_arrays, read_samples, select_part, split_rows
from mconv.values import TensorSpec


def spec(name: str = "x", dtype: str = "float32", *shape: int | str) -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=shape)


IMAGE, SCORES = spec("image", "float32", "batch", 2), spec("scores", "float32", "batch", 3)


def held(rows: int = 150) -> dict[str, np.ndarray]:
    image = np.arange(rows * 2, dtype=np.float64).reshape(rows, 2)
    return {"image": image, "scores": np.zeros((rows, 3), np.float32), "label": np.arange(rows)}


def test_user_rows_are_fed_in_batches_and_none_is_lost() -> None:
    calls = split_rows(held(), [IMAGE], [SCORES])
    assert [len(f["image"]) for f in calls.feeds] == [64, 64, 22]
    assert [len(e["scores"]) for e in calls.expected] == [64, 64, 22]
    joined = np.concatenate([f["image"] for f in calls.feeds])
    np.testing.assert_array_equal(joined, held()["image"])
    assert joined.dtype == np.float32
    assert list(calls.others) == ["label"]
    assert len(calls.others["label"]) == 150


def test_a_fixed_batch_leaves_out_the_rest_and_its_labels() -> None:
    calls = split_rows(held(10), [spec("image", "float32", 4, 2)], [])
    assert [len(f["image"]) for f in calls.feeds] == [4, 4]
    assert calls.others["label"].tolist() == list(range(8))
    calls = split_rows(held(10), [IMAGE], [], dims={"batch": 5})
    assert [len(f["image"]) for f in calls.feeds] == [5, 5]


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
        split_rows(arrays, [IMAGE], [SCORES], file="my.npz")


def test_too_few_rows_for_a_fixed_batch() -> None:
    with pytest.raises(UsageError, match="holds 3 samples, the model takes 8 at a time"):
        split_rows(held(3), [spec("image", "float32", 8, 2)], [])


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"plain"])
def test_what_is_no_npz_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.npz"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"mine\.npz is not a readable \.npz"):
        read_arrays(path)
    with pytest.raises(UsageError):
        read_arrays(tmp_path / "missing.npz")


def test_pickles_are_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "bad.npz"
    np.savez(path, x=np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(UsageError, match="plain arrays"):
        read_arrays(path)
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(UsageError):
        read_arrays(tmp_path / "one.npy")


RATE = spec("rate", "int64")


def test_a_number_goes_into_every_call() -> None:
    arrays = {**held(100), "rate": np.array(16000)}
    calls = split_rows(arrays, [IMAGE, RATE], [SCORES])
    assert [feed["rate"].shape for feed in calls.feeds] == [(), ()]
    assert {int(feed["rate"]) for feed in calls.feeds} == {16000}


def test_a_number_a_row_makes_a_call_of_each_unless_all_are_one() -> None:
    same = {**held(100), "rate": np.full(100, 8000)}
    assert [len(f["image"]) for f in split_rows(same, [IMAGE, RATE], []).feeds] == [64, 36]
    several = {**held(4), "rate": np.array([8000, 16000, 8000, 16000])}
    feeds = split_rows(several, [IMAGE, RATE], []).feeds
    assert [len(feed["image"]) for feed in feeds] == [1, 1, 1, 1]
    assert [int(feed["rate"]) for feed in feeds] == [8000, 16000, 8000, 16000]


def test_an_input_without_rows_is_whole_in_every_call() -> None:
    state = spec("h0", "float32", 2, 1, 3)
    arrays = {**held(70), "h0": np.arange(6.0).reshape(2, 1, 3)}
    feeds = split_rows(arrays, [IMAGE, state], []).feeds
    assert [len(feed["image"]) for feed in feeds] == [64, 6]
    for feed in feeds:
        np.testing.assert_array_equal(feed["h0"], arrays["h0"])


def test_another_axis_may_count_the_rows() -> None:
    frames = spec("frames", "float32", "time", "batch", 2)
    arrays = {"frames": np.arange(60.0).reshape(5, 6, 2), "label": np.arange(6)}
    calls = split_rows(arrays, [frames], [], batch_axes={"frames": 1}, dims={"batch": 2})
    assert [feed["frames"].shape for feed in calls.feeds] == [(5, 2, 2)] * 3
    np.testing.assert_array_equal(calls.feeds[1]["frames"], arrays["frames"][:, 2:4])


def test_a_folder_holds_a_call_in_each_file(tmp_path: Path) -> None:
    for name, length in (("b", 7), ("a", 3)):
        arrays = {"sound": np.full((1, length), length, np.float32), "rate": np.array(length)}
        np.savez(tmp_path / f"{name}.npz", **arrays)
    (tmp_path / "notes.txt").write_text("not a sample")
    calls = read_samples([tmp_path], [spec("sound", "float32", "batch", "time"), RATE], [])
    assert [feed["sound"].shape for feed in calls.feeds] == [(1, 3), (1, 7)]
    assert [int(feed["rate"]) for feed in calls.feeds] == [3, 7]
    assert calls.feeds[0]["rate"].shape == ()
    assert calls.expected == []


def test_a_folder_may_hold_what_is_expected(tmp_path: Path) -> None:
    for name in ("a", "b"):
        np.savez(tmp_path / f"{name}.npz", image=np.ones((1, 2)), scores=np.ones((1, 3)))
    assert len(read_samples([tmp_path], [IMAGE], [SCORES]).expected) == 2
    np.savez(tmp_path / "b.npz", image=np.ones((1, 2)))
    with pytest.raises(UsageError, match="hold different outputs"):
        read_samples([tmp_path], [IMAGE], [SCORES])


def test_a_file_of_a_folder_that_does_not_fit_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "ok.npz", image=np.ones((1, 2)))
    np.savez(tmp_path / "wrong.npz", image=np.ones((1, 3)))
    with pytest.raises(UsageError, match=r"wrong\.npz: image has shape \[1, 3\]"):
        read_samples([tmp_path], [IMAGE], [])


def test_an_empty_folder_is_no_sample(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no \.npz"):
        read_samples([tmp_path], [IMAGE], [])


def test_parts_have_arrays_of_their_own() -> None:
    arrays = {"first/x": np.zeros(1), "second/x": np.ones(1), "labels": np.zeros(1)}
    assert select_part(arrays, "second").keys() == {"x"}
    assert select_part(arrays, "second")["x"][0] == 1
    assert select_part(arrays, "").keys() == arrays.keys()
    assert select_part({"x": np.zeros(1)}, "vision").keys() == {"x"}


def test_a_list_of_files_is_taken_in_its_order(tmp_path: Path) -> None:
    for name, value in (("a", 1), ("b", 2)):
        np.savez(tmp_path / f"{name}.npz", image=np.full((1, 2), value))
    calls = read_samples([tmp_path / "b.npz", tmp_path / "a.npz"], [IMAGE], [])
    assert [float(feed["image"][0, 0]) for feed in calls.feeds] == [2, 1]
    with pytest.raises(UsageError, match=r"m\.onnx is no file of samples"):
        read_samples([tmp_path / "a.npz", tmp_path / "m.onnx"], [IMAGE], [])


def test_pictures_and_texts_are_decoded_one_call_each(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("one\n\ntwo\n")
    Image.new("RGB", (4, 3), (255, 0, 0)).save(tmp_path / "a.png")
    names = []

    def decode(media: Media) -> dict[str, np.ndarray]:
        names.append((media.name, media.kind, media.text))
        return {"image": np.zeros((1, 2))}

    calls = read_samples([tmp_path], [IMAGE], [], decode=decode)
    assert len(calls.feeds) == 3
    assert names == [("a.png", "picture", ""), ("b.txt", "text", "one"), ("b.txt", "text", "two")]
    with pytest.raises(UsageError, match=r"a\.png is no \.npz, and nothing here"):
        read_samples([tmp_path], [IMAGE], [])


def test_one_row_in_four_is_left_to_the_calibration(tmp_path: Path) -> None:
    arrays = {"image": np.arange(20.0).reshape(10, 2), "label": np.arange(10)}
    verified = split_rows(arrays, [IMAGE], [], share="verification")
    calibrated = split_rows(arrays, [IMAGE], [], share="calibration")
    assert verified.others["label"].tolist() == [0, 1, 2, 4, 5, 6, 8, 9]
    assert calibrated.others["label"].tolist() == [3, 7]
    np.testing.assert_array_equal(calibrated.feeds[0]["image"], arrays["image"][[3, 7]])
    few = {"image": np.zeros((3, 2))}
    assert len(split_rows(few, [IMAGE], [], share="verification").feeds[0]["image"]) == 3
    assert split_rows(few, [IMAGE], [], share="calibration").feeds == []
    fixed = split_rows(arrays, [IMAGE], [], dims={"batch": 4}, share="calibration")
    assert fixed.feeds == []  # two rows make no batch of four
    for index in range(5):
        np.savez(tmp_path / f"{index}.npz", image=np.full((1, 2), index))
    own = read_samples([tmp_path], [IMAGE], [], share="calibration").feeds
    assert [float(feed["image"][0, 0]) for feed in own] == [3]
    assert len(read_samples([tmp_path], [IMAGE], [], share="verification").feeds) == 4
