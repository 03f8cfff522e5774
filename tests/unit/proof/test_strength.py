"""References that prove something, and such that do not."""

from __future__ import annotations

import numpy as np
import pytest

from mconv.proof.strength import difference, doubts, measure_strength

RNG = np.random.default_rng(0)


def answers(*arrays: np.ndarray) -> list[dict[str, np.ndarray]]:
    return [{"y": array} for array in arrays]


def test_figures_are_those_of_the_numbers() -> None:
    arrays = [RNG.standard_normal((3, 5)), RNG.standard_normal((2, 5))]
    (output,) = measure_strength(answers(*arrays), {"x": 0.3}).outputs
    flat = np.concatenate([array.ravel() for array in arrays])
    assert output.elements == 25
    assert output.finite == 1
    assert output.spread == pytest.approx(flat.std())
    assert output.classes == len({int(i) for array in arrays for i in array.argmax(1)})
    assert doubts(measure_strength(answers(*arrays), {"x": 0.3})) == []


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.full((2, 3), np.nan), "no finite number"),
        (np.zeros((2, 3)), "the same number everywhere"),
        (np.full((2, 3), 7.25), "the same number everywhere"),
        (np.zeros((0, 3)), "is empty in every sample"),
    ],
)
def test_a_reference_that_proves_nothing_is_doubted(array: np.ndarray, words: str) -> None:
    (reason,) = doubts(measure_strength(answers(array, array), {}))
    assert words in reason
    assert "samples:" in reason


def test_an_output_that_is_constant_by_the_graph_is_not_doubted() -> None:
    arrays = answers(np.ones(3), np.ones(3))
    assert doubts(measure_strength(arrays, {}, {"y"})) == []


def test_an_input_without_effect_is_doubted() -> None:
    arrays = answers(RNG.standard_normal(4), RNG.standard_normal(4))
    (reason,) = doubts(measure_strength(arrays, {"x": 0.5, "mask": 0.0, "z": None}))
    assert "'mask'" in reason
    assert "'x'" not in reason


def test_mask_constants_are_no_spread() -> None:
    scores = np.concatenate([np.full((2, 5), 3.0), np.full((2, 2), -1e9)], 1)
    (output,) = measure_strength(answers(scores, scores), {}).outputs
    assert output.spread == 0


def test_a_difference_is_relative_to_the_spread() -> None:
    before = {"y": np.array([250.0, 252.0])}
    assert difference(before, {"y": np.array([250.0, 252.0])}) == 0
    assert difference(before, {"y": np.array([251.0, 252.0])}) == pytest.approx(1)
    masked = {"y": np.array([1.0, 2.0, 3.0, -1e9])}
    assert difference(masked, {"y": np.array([2.0, 2.0, 3.0, -1e9])}) > 0.5
    assert difference({"y": np.array(["a"])}, {"y": np.array(["b"])}) == 1
