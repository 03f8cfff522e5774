"""Bounds of axes, from what a graph is asked at some sizes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mconv.errors import UnsupportedError
from mconv.sources._bounds import ALWAYS, Decision, find_bounds
from mconv.values import AxisBound

Rule = Callable[[int], bool | None]


def asked(rule: Rule) -> tuple[list[int], Callable[[str, int], bool | None]]:
    """A graph that is right where the rule says so, and the sizes that it was asked."""
    sizes: list[int] = []

    def ask(axis: str, size: int) -> bool | None:
        sizes.append(size)
        return rule(size)

    return sizes, ask


def test_a_graph_that_is_right_everywhere_has_no_bound() -> None:
    sizes, ask = asked(lambda size: True)
    bounds = find_bounds({"time": [16, 24]}, (), ask)
    assert (bounds.axes, bounds.places, bounds.untried) == ({}, {}, ())
    assert sizes == list(ALWAYS)


@pytest.mark.parametrize(
    ("rule", "bound"),
    [
        (lambda size: size <= 32, AxisBound(max=32)),
        (lambda size: size >= 5, AxisBound(min=5)),
        (lambda size: 5 <= size <= 99, AxisBound(min=5, max=99)),
        (lambda size: size % 8 == 0, AxisBound(min=8, multiple=8)),
        (lambda size: None if size > 50 else size <= 32, AxisBound(max=32)),
    ],
)
def test_the_bound_is_where_the_graph_stops_to_be_right(rule: Rule, bound: AxisBound) -> None:
    found = find_bounds({"time": [16, 24]}, (), asked(rule)[1])
    assert found.axes == {"time": bound}
    assert found.describe() == [f"right for {bound.describe('time')} only"]


def test_both_sides_of_a_decision_are_tried_however_far() -> None:
    decisions = [Decision("net.py:7", 8.0, 300.0)]  # of half the axis
    sizes, ask = asked(lambda size: size <= 600)
    found = find_bounds({"time": [16, 24]}, decisions, ask)
    assert {599, 600, 601} <= set(sizes)
    assert found.axes == {"time": AxisBound(max=600)}
    assert found.places == {"time": "net.py:7"}
    assert found.untried == ()


def test_a_decision_that_is_out_of_reach_is_told() -> None:
    decisions = [Decision("net.py:7", 16.0, 5e6), Decision("net.py:8", 16.0, 0.0)]
    found = find_bounds({"time": [16, 24]}, decisions, asked(lambda size: True)[1])
    assert (found.axes, found.untried) == ({}, ("net.py:7",))


def test_batches_are_tried_only_where_a_decision_asks() -> None:
    sizes, ask = asked(lambda size: True)
    find_bounds({"batch": [2, 3]}, (), ask, batches=("batch",))
    assert sizes == []
    find_bounds({"batch": [2, 3]}, [Decision("net.py:7", 2.0, 16.0)], ask, batches=("batch",))
    assert sizes == [15, 16, 17]


def test_sizes_without_a_rule_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="wrong where it is 9, 70"):
        find_bounds({"time": [16, 24]}, (), asked(lambda size: size not in (9, 70))[1])
