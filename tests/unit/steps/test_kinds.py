"""The table of kinds: every request and answer is in it, and what it names exists."""

from __future__ import annotations

import inspect
import subprocess
import sys
import typing

import pytest

from mconv import answers
from mconv.steps import requests
from mconv.steps.kinds import KINDS, load_function


@pytest.mark.parametrize("name", KINDS)
def test_a_row_is_of_one_kind_and_what_it_names_can_be_called(name: str) -> None:
    kind = KINDS[name]
    assert kind.request.__struct_config__.tag == name
    assert kind.answer.__struct_config__.tag == name
    asked = len(inspect.signature(load_function(kind.function)).parameters)
    merged = len(inspect.signature(load_function(kind.merge)).parameters)
    assert (asked, merged) == (3, 1)
    if kind.complete is not None:
        assert len(inspect.signature(load_function(kind.complete)).parameters) == 4
    hints = typing.get_type_hints(load_function(kind.function))
    assert (hints["request"], hints["return"]) == (kind.request, kind.answer)


def test_every_request_and_answer_has_a_row() -> None:
    assert {kind.request for kind in KINDS.values()} == set(typing.get_args(requests.AnyRequest))
    assert {kind.answer for kind in KINDS.values()} == set(typing.get_args(answers.Answer))


def test_modules_are_those_of_its_functions_each_once() -> None:
    assert KINDS["optimize"].modules == ("mconv.steps.convert", "mconv.steps.parts")
    assert KINDS["verify"].modules == (
        "mconv.steps.verify",
        "mconv.steps.parts",
        "mconv.steps.generation",
    )


def test_the_table_imports_the_code_of_no_step() -> None:
    """A plan that did would load what the steps load."""
    code = (
        "import sys, mconv.steps.kinds; "
        "print(*(m for m in sys.modules if m.startswith('mconv.steps.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {"mconv.steps.kinds", "mconv.steps.requests"}
