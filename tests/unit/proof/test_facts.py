"""What the manifest says of inputs goes before what was found."""

from __future__ import annotations

import pytest

from mconv.errors import UsageError
from mconv.proof.domains import Domain
from mconv.proof.facts import batch_axes_of, bounds_of, declare_domains, merge_bounds
from mconv.values import AxisBound, InputFact

FOUND = {
    "x": Domain(name="x", kind="numbers", mean=(1.0,), deviation=(2.0,), origin="graph"),
    "n": Domain(name="n", kind="integers", marks=(7.0,)),
}


def test_a_range_takes_the_place_of_what_was_found() -> None:
    declared = declare_domains(FOUND, [InputFact(name="x", low=0, high=255, kind="image")])
    assert (declared["x"].kind, declared["x"].low, declared["x"].high) == ("image", 0, 255)
    assert declared["x"].mean == ()
    assert not declared["x"].guessed
    assert declared["n"] == FOUND["n"]


def test_a_value_is_the_only_one() -> None:
    declared = declare_domains(FOUND, [InputFact(name="n", value=16000)])["n"]
    assert (declared.low, declared.high, declared.marks) == (16000, 16000, ())
    assert not declared.guessed


def test_bounds_of_axes_leave_the_values_alone() -> None:
    fact = InputFact(name="n", axes={"time": AxisBound(min=4)}, batch_axis=1)
    assert declare_domains(FOUND, [fact]) == FOUND
    assert bounds_of([fact]) == {"time": AxisBound(min=4)}
    assert batch_axes_of([fact, InputFact(name="x")]) == {"n": 1}


def test_an_input_that_there_is_not_is_named() -> None:
    with pytest.raises(UsageError, match="'z', which is no input of the model; it has x, n"):
        declare_domains(FOUND, [InputFact(name="z", value=1)])


def test_bounds_are_merged_to_what_holds_for_all() -> None:
    one = {"time": AxisBound(min=4, max=100, multiple=4), "rows": AxisBound(max=3)}
    other = {"time": AxisBound(min=1, max=60, multiple=6)}
    assert merge_bounds([one, other, {}]) == {
        "time": AxisBound(min=4, max=60, multiple=12),
        "rows": AxisBound(max=3),
    }
