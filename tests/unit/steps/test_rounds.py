"""Ratios of interleaved rounds against figures that are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mconv.steps import _rounds


def test_a_ratio_is_that_of_the_medians_of_each_round() -> None:
    ours = [[1.0, 2.0, 90.0]] * 4
    theirs = [[4.0, 4.0, 80.0]] * 4
    ratio = _rounds.compare_rounds(ours, theirs)
    assert ratio == pytest.approx((2, 2, 2))
    assert ratio.is_narrow


def test_what_slows_a_round_down_does_not_count() -> None:
    ours = [[1.0], [1.0], [50.0], [60.0]]
    theirs = [[3.0], [3.0], [20.0], [900.0]]
    assert _rounds.compare_rounds(ours, theirs).middle == pytest.approx(3)


def test_the_interval_is_students() -> None:
    ratios = np.array([2.0, 2.2, 1.9, 2.1])
    ours = [[1.0]] * 4 + [[100.0]] * 4
    theirs = [[each] for each in ratios] + [[500.0]] * 4
    ratio = _rounds.compare_rounds(ours, theirs)
    logs = np.log(ratios)
    low, high = stats.t.interval(0.95, 3, logs.mean(), stats.sem(logs))
    assert ratio.low == pytest.approx(np.exp(low), rel=2e-3)
    assert ratio.high == pytest.approx(np.exp(high), rel=2e-3)
    assert not ratio.is_narrow


def test_the_load_is_a_share() -> None:
    assert 0 <= _rounds.read_load() <= 1
