"""Errors: one line of printable text, and nothing that a runner would obey."""

from __future__ import annotations

import inspect
import re

import pytest

from mconv import errors
from mconv.errors import ManifestError, MconvError, StepError, log_line, one_line
from mconv.values import Place


def test_the_tree_has_a_line_for_every_class_with_its_exit_code() -> None:
    tree = (errors.__doc__ or "").split("\n\n")[1]
    entries = [re.fullmatch(r"([│├└─ ]*)(\w+) +(\d)  \S.*", line) for line in tree.splitlines()]
    assert all(entries), tree
    listed = {
        entry[2]: (len(entry[1]) // 4, int(entry[3])) for entry in entries if entry is not None
    }
    classes = {
        name: (kind.__mro__.index(MconvError), kind.exit_code)
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, MconvError)
    }
    assert listed == classes


def test_an_error_says_where_what_and_what_to_do() -> None:
    error = StepError("it broke", hint="mend it", place=Place(file="models.yml", line=3, column=5))
    assert str(error) == "models.yml:3:5: it broke\n  hint: mend it"
    assert str(StepError("it broke")) == "it broke"


def test_a_manifest_error_is_its_own_problem_where_it_is_alone() -> None:
    one = ManifestError("a")
    assert one.problems == (one,)
    assert ManifestError("b", problems=[one]).problems == (one,)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\n b\t c", "a b c"),
        ("\x1b[31mred\x00", "[31mred"),
        ("", ""),
        (ValueError("x\ny"), "x y"),
        ("ü → 語", "ü → 語"),
    ],
)
def test_one_line(text: str | Exception, line: str) -> None:
    assert one_line(text) == line


def test_lines_are_cut() -> None:
    assert len(one_line("x" * 1000)) == 300
    assert one_line("x" * 10, 3) == "xxx"


@pytest.mark.parametrize("text", ["::error::x", "a ##[error]x", "::", "\n::warning file=a::b"])
def test_no_workflow_command_is_left(text: str) -> None:
    assert "::" not in log_line(text)
    assert "##[" not in log_line(text)
