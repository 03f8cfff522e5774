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


def test_an_offset_hides_nothing_from_the_normalised_error() -> None:
    """Scaled cosines of numbers around 250 are near 1 whatever is answered; R² is not."""
    reference = 250 + RNG.standard_normal((64, 1))
    constant = np.full_like(reference, reference.mean() + 0.5)
    found = compare.compare_outputs("price", [constant], [reference])
    assert found.cosine is not None
    assert found.cosine > 0.99999
    assert found.nrmse == pytest.approx(
        np.sqrt(np.mean((constant - reference) ** 2)) / reference.std()
    )
    assert compare.judge([found], compare.DEFAULT_TOLERANCES["int8"])[0] == "failed"


def test_mask_constants_blind_no_metric() -> None:
    logits = RNG.standard_normal((8, 20))
    masks = np.full((8, 6), -1e9)
    reference = np.concatenate([logits, masks], 1).astype(np.float32)
    wrong = np.concatenate([np.zeros_like(logits), masks], 1).astype(np.float32)
    found = compare.compare_outputs("logits", [wrong], [reference])
    assert found.compared == pytest.approx(20 / 26)
    assert found.cosine == 0
    assert found.nrmse == pytest.approx(np.sqrt((logits**2).mean()) / logits.std(), rel=1e-5)
    assert compare.judge([found], compare.DEFAULT_TOLERANCES["int8"])[0] == "failed"
    unmasked = reference.copy()
    unmasked[:, -1] = 3
    broken = compare.compare_outputs("logits", [unmasked], [reference])
    assert broken.max_abs is None
    assert compare.judge([broken], compare.DEFAULT_TOLERANCES["int8"])[0] == "failed"


def test_peaks_are_no_masks() -> None:
    """A spectrum has few large numbers, all of which differ."""
    reference = np.exp(RNG.normal(0, 5, (4, 200)))
    found = compare.compare_outputs("power", [reference], [reference])
    assert found.compared == 1


def test_where_the_reference_is_no_number_it_asks_for_nothing() -> None:
    reference = np.array([[1.0, np.nan, 2.0, -np.inf]])
    found = compare.compare_outputs("y", [np.array([[1.0, 5.0, 2.0, -np.inf]])], [reference])
    assert (found.max_abs, found.compared) == (0, 0.5)
    found = compare.compare_outputs("y", [np.array([[1.0, np.nan, 2.0, 5.0]])], [reference])
    assert found.max_abs is None
    nothing = compare.compare_outputs("y", [np.ones((1, 2))], [np.full((1, 2), np.nan)])
    assert compare.judge([nothing], compare.DEFAULT_TOLERANCES["fp32"])[0] == "unverified"


def test_two_bits_have_no_tolerance_of_their_own() -> None:
    found = compare.compare_outputs("y", [np.array([[1.0, 0.0]])], [np.array([[0.9, 0.1]])])
    verdict, reasons = compare.judge([found], compare.DEFAULT_TOLERANCES["int2"])
    assert verdict == "unverified"
    assert "no tolerance of its own" in reasons[0]
    assert compare.judge([found], Tolerance(cosine=0.9))[0] == "passed"


def test_an_output_of_which_nothing_was_compared_is_unverified() -> None:
    full = compare.compare_outputs("a", [np.ones((1, 2))], [np.ones((1, 2))])
    empty = compare.compare_outputs("hits", [np.zeros((0, 2))], [np.zeros((0, 2))])
    verdict, reasons = compare.judge([full, empty], Tolerance(max_abs=1.0))
    assert verdict == "unverified"
    assert "hits" in reasons[0]


def test_a_sure_probability_is_no_mask() -> None:
    sure = np.array([[1.0, 1e-6, 2e-6, 1e-6], [1e-6, 1.0, 1e-6, 3e-6]])
    assert compare.find_mask_bound(sure.ravel()) == np.inf
    found = compare.compare_outputs("p", [sure[::-1]], [sure])
    assert found.compared == 1
    assert found.cosine is not None
    assert found.cosine < 0.1


def test_integers_are_equal_or_not_whatever_the_largest_is() -> None:
    """−7 // 3 is −3: an error of one, beside numbers of which it is a millionth."""
    reference = [np.array([-3, 5, 7, 2_000_000])]
    answer = [np.array([-2, 5, 7, 2_000_000])]
    error = compare.compare_outputs("y", answer, reference)
    assert error.unequal == 0.25
    status, reasons = compare.judge([error], compare.DEFAULT_TOLERANCES["fp32"])
    assert (status, reasons) == ("failed", ("output y: unequal 0.25 is above 0.01",))
    floats = compare.compare_outputs("y", [np.float32([1])], [np.float32([1])])
    assert floats.unequal is None


def test_of_two_sets_of_samples_the_worse_error_counts() -> None:
    reference = [np.float32([[1, 2, 3]]), np.float32([[1e6, -1e6, 2e6]])]
    answer = [np.float32([[1, 2, 2]]), np.float32([[1e6, -1e6, 2e6]])]
    both = compare.compare_outputs("y", answer, reference)
    near = compare.compare_outputs("y", answer[:1], reference[:1])
    assert both.max_rel is not None
    assert near.max_rel is not None
    assert both.max_rel < 1e-6 < near.max_rel
    worse = compare.choose_worse(both, near)
    assert (worse.elements, worse.max_rel, worse.nrmse) == (6, near.max_rel, near.nrmse)
    assert worse.cosine == min(both.cosine or 0, near.cosine or 0)
    broken = compare.compare_outputs("y", [np.float32([np.nan])], [np.float32([1])])
    assert compare.choose_worse(both, broken).max_abs is None
    assert compare.choose_worse(broken, near).max_abs is None
