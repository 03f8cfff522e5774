"""uv's words, as uv 0.13 printed them, in plain sentences. tests/unit/engine/test_installing.py has
uv print others of the kinds."""

from __future__ import annotations

import pytest

from mconv.environments.explain import explain_failure, extract_reason

CONFLICT = """\
Using Python 3.11.7 environment at: env/training-f73077701fa6fc4c/venv
error: No solution found when resolving dependencies
  cause: Because you require needs<2 and needs>=2, we can conclude that your requirements are \
unsatisfiable.
"""
OLDER_CONFLICT = """\
  × No solution found when resolving dependencies:
  ╰─▶ Because torch==2.6.0 depends on sympy==1.13.1 and you require sympy>=1.14, we can conclude \
that your requirements are unsatisfiable.
"""


def test_a_reason_is_one_line_without_progress_and_drawings() -> None:
    assert extract_reason(CONFLICT) == (
        "Because you require needs<2 and needs>=2, we can conclude that your requirements are "
        "unsatisfiable."
    )
    assert extract_reason(OLDER_CONFLICT).startswith("Because torch==2.6.0 depends on")
    assert extract_reason("") == ""


def test_sides_are_named_where_the_message_is_about_them() -> None:
    asked = {"the user": ["needs<2", "other"], "mconv's worker": ["needs>=2", "numpy"]}
    message = explain_failure(CONFLICT, asked).message
    assert message.endswith("(the user asks for needs<2; mconv's worker asks for needs>=2)")
    # a name inside of another word is not meant
    message = explain_failure(CONFLICT, {"the user": ["need", "requirement"]}).message
    assert "asks for" not in message


@pytest.mark.parametrize(
    ("printed", "words"),
    [
        ("error: No space left on device (os error 28)", "no space left on the disk"),
        (
            "error: Failed to download `https://x/python-build-standalone/cpython-3.14.tar.gz`\n"
            "  cause: dns error",
            "this version of Python is not on the machine",
        ),
        ("error: No interpreter found for Python 3.14 in search path", "version of Python"),
        (
            "error: Distribution `torch==2.8.0` can't be installed because it doesn't have a "
            "source distribution or wheel for the current platform",
            "no file for this machine",
        ),
        ("npm error code ECONNREFUSED", "packages cannot be fetched"),
        ("error: Hash mismatch for `needs==2.0`", "not the one that the lock names"),
        ("error: something new", "it cannot be made: something new"),
    ],
)
def test_each_kind_of_failure(printed: str, words: str) -> None:
    assert words in explain_failure(printed, {}).message
