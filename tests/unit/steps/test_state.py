"""Sequences fed their own state: by hand, and a model whose error grows from step to step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from mconv.errors import StepError, UsageError
from mconv.steps import state
from mconv.values import TensorSpec

INPUTS = (
    TensorSpec(name="x", dtype="float32", shape=("batch", 2)),
    TensorSpec(name="h", dtype="float32", shape=("batch", 2)),
)
OUTPUTS = (
    TensorSpec(name="y", dtype="float32", shape=("batch", 2)),
    TensorSpec(name="h_out", dtype="float32", shape=("batch", 2)),
)
PAIRS = {"h_out": "h"}


class Sum:
    """h' = decay · h + x, y = 2 h'."""

    inputs, outputs = INPUTS, OUTPUTS

    def __init__(self, decay: float = 1.0) -> None:
        self.decay = decay

    def samples(
        self, count: int, seed: int, dims: Mapping[str, int], *, calibration: bool = False
    ) -> None:
        return None

    def run(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        h = np.float32(self.decay) * feed["h"] + feed["x"]
        return {"y": 2 * h, "h_out": h}


def test_sequences_carry_state(tmp_path: Path) -> None:
    starts = [
        {"x": np.ones((rows, 2), np.float32), "h": np.full((rows, 2), 9, np.float32)}
        for rows in (1, 3)
    ]
    feeds, answers, lengths = state.run_sequences(Sum(), PAIRS, starts, (), 1)
    assert lengths == [state.STEPS] * 2
    assert [f["x"].shape for f in feeds] == [(1, 2)] * 8 + [(3, 2)] * 8
    assert not feeds[0]["h"].any()  # a sequence begins at zero, whatever was drawn
    assert not feeds[8]["h"].any()
    np.testing.assert_allclose(answers[7]["y"], 2 * sum(f["x"] for f in feeds[:8]), rtol=1e-6)
    assert len({f["x"].tobytes() for f in feeds[:8]}) == 8

    state.save_sequences(tmp_path, PAIRS, lengths)
    same, remark = state.answer_feeds(Sum(), feeds, tmp_path)
    for a, b in zip(same, answers, strict=True):
        np.testing.assert_array_equal(a["y"], b["y"])
    assert remark == "2 sequences of 8 steps, the artifact fed its own state: h_out → h"
    drifting, _ = state.answer_feeds(Sum(0.99), feeds, tmp_path)
    errors = [float(np.abs(d["y"] - a["y"]).max()) for d, a in zip(drifting, answers, strict=True)]
    assert errors[0] == 0  # from zeros the wrong model answers right; only its own state shows it
    assert errors[7] > errors[1]
    alone, remark = state.answer_feeds(Sum(0.99), feeds, tmp_path / "nowhere")
    assert remark is None
    # fed the source's state, most of the error is hidden
    assert np.abs(alone[7]["y"] - answers[7]["y"]).max() < errors[7]


def test_a_users_file_is_one_sequence() -> None:
    rows = [{"x": np.full((1, 2), i, np.float32)} for i in range(5)]
    feeds, answers, lengths = state.run_sequences(Sum(), PAIRS, rows, [5], 1)
    assert lengths == [5]
    assert [float(a["h_out"][0, 0]) for a in answers] == [0, 1, 3, 6, 10]
    assert all(f["h"].dtype == np.float32 for f in feeds)


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ({"h_ou": "h"}, "no output 'h_ou'; it has y, h_out"),
        ({"h_out": "g"}, "no input 'g'; it has x, h"),
        ({"h_out": "h", "y": "x"}, "every input is state"),
    ],
)
def test_wrong_pairs_are_named(pairs: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        state.check_pairs(pairs, INPUTS, OUTPUTS)


def test_an_artifact_that_lost_its_state(tmp_path: Path) -> None:
    class Lost(Sum):
        def run(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            return {"y": feed["x"]}

    state.save_sequences(tmp_path, PAIRS, [1])
    feed = {"x": np.ones((1, 2), np.float32), "h": np.zeros((1, 2), np.float32)}
    with pytest.raises(StepError, match="no output h_out"):
        state.answer_feeds(Lost(), [feed], tmp_path)
