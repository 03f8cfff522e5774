"""Metrics against their formulas computed independently, and the gates."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mconv import compare
from mconv.values import Tolerance

RNG = np.random.default_rng(0)


def test_metrics_match_their_formulas() -> None:
    references = [
        RNG.standard_normal((2, 5)).astype(np.float32),
        RNG.standard_normal((3, 5)).astype(np.float32),
    ]
    answers = [r + RNG.normal(0, 0.1, r.shape).astype(np.float32) for r in references]
    found = compare.compare_outputs("y", answers, references)
    a, r = (
        np.concatenate([x.ravel() for x in xs]).astype(np.float64) for xs in (answers, references)
    )
    assert found.elements == 25
    assert found.max_abs == pytest.approx(np.max(np.abs(a - r)))
    assert found.mean_abs == pytest.approx(np.mean(np.abs(a - r)))
    assert found.max_rel == pytest.approx(np.max(np.abs(a - r)) / np.max(np.abs(r)))
    assert found.cosine == pytest.approx(np.dot(a, r) / np.sqrt(np.dot(a, a) * np.dot(r, r)))
    assert found.sqnr_db == pytest.approx(20 * np.log10(np.linalg.norm(r) / np.linalg.norm(a - r)))
    pairs = zip(np.vstack(answers), np.vstack(references), strict=True)
    rows = [(x @ y) / np.linalg.norm(x) / np.linalg.norm(y) for x, y in pairs]
    assert found.cosine_min == pytest.approx(min(rows), rel=1e-5)
    agree = np.mean(np.vstack(answers).argmax(1) == np.vstack(references).argmax(1))
    assert found.top1_agreement == pytest.approx(agree)


def test_texts_are_equal_or_not() -> None:
    reference = np.array(["cat", "dog", "cat", "bird"], object)
    same = compare.compare_outputs("label", [reference.astype(str)], [reference])
    assert (same.max_rel, same.cosine, same.sqnr_db) == (0, 1, compare.MAX_SQNR_DB)
    answer = np.array(["cat", "dog", "cat", "birds"], object)
    found = compare.compare_outputs("label", [answer], [reference])
    assert found.max_rel == 1
    assert found.cosine == pytest.approx(np.sqrt(3 / 4))
    assert compare.judge([found], compare.DEFAULT_TOLERANCES["fp32"])[0] == "failed"
    assert compare.judge([same], compare.DEFAULT_TOLERANCES["fp32"])[0] == "passed"


@given(arrays(np.float32, (3, 4), elements=st.floats(-1e3, 1e3, width=32)))
def test_an_exact_answer_has_no_error(reference: np.ndarray) -> None:
    found = compare.compare_outputs("y", [reference.copy()], [reference])
    assert (found.max_abs, found.mean_abs) == (0.0, 0.0)
    assert found.cosine == pytest.approx(1.0)
    assert (
        compare.judge([found], Tolerance(cosine=0.9999999, max_abs=0.0, sqnr_db=199))[0] == "passed"
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_fail_whatever_the_tolerance(bad: float) -> None:
    reference = np.ones((2, 3), np.float32)
    answer = reference.copy()
    answer[0, 0] = bad
    verdict, reasons = compare.judge(
        [compare.compare_outputs("y", [answer], [reference])], Tolerance()
    )
    assert verdict == "failed"
    assert "NaN or infinity" in reasons[0]
    same = compare.compare_outputs("y", [answer], [answer.copy()])
    assert compare.judge([same], Tolerance(cosine=0.99))[0] == "passed"


def test_gates_name_the_metric_both_numbers_and_the_output() -> None:
    found = compare.compare_outputs("logits", [np.array([[1.0, 0.0]])], [np.array([[0.0, 1.0]])])
    verdict, reasons = compare.judge(
        [found], Tolerance(cosine=0.9, top1_agreement=0.5, max_abs=0.1, max_rel=0.1)
    )
    assert verdict == "failed"
    assert reasons[0] == "output logits: cosine 0 is below 0.9"
    assert len(reasons) == 4


def test_nothing_compared_is_unverified() -> None:
    assert compare.judge([], Tolerance())[0] == "unverified"
    empty = compare.compare_outputs("y", [np.zeros((0, 3))], [np.zeros((0, 3))])
    assert compare.judge([empty], Tolerance())[0] == "unverified"


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"sample 0: shape \[2\], the reference has \[3\]"):
        compare.compare_outputs("y", [np.zeros(2)], [np.zeros(3)])


def test_zero_reference() -> None:
    found = compare.compare_outputs("y", [np.full((1, 2), 0.1)], [np.zeros((1, 2))])
    assert found.max_rel is None
    assert found.sqnr_db == -compare.MAX_SQNR_DB
    assert compare.judge([found], Tolerance(max_rel=1e-3))[0] == "failed"
