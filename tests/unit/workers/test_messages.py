"""A child's answer is believed no further than its type goes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mconv.errors import WorkerCrashError
from mconv.workers.messages import LONGEST_MESSAGE, StepResponse, read_response

GOOD = {"answer": {"kind": "calibrate", "count": 3}}


def read(data: bytes | None) -> StepResponse:
    return read_response(data, StepResponse, "a step")


def test_an_answer_and_an_error_are_read() -> None:
    response = read(json.dumps(GOOD).encode())
    assert response.answer is not None
    assert (response.answer.kind, response.error) == ("calibrate", None)
    failed = read(b'{"error": {"type": "StepError", "message": "m", "hint": "h"}}')
    assert failed.error is not None
    assert (failed.error.message, failed.answer) == ("m", None)


@pytest.mark.parametrize(
    "wrong",
    [
        b"{",
        b"null",
        b"{}",
        b"\xff\xfe",
        b'{"answer": {"kind": "calibrate"}}',
        b'{"answer": {"kind": "calibrate", "count": "3"}}',
        b'{"answer": {"kind": "calibrate", "count": 3, "more": 1}}',
        b'{"answer": {"kind": "other"}}',
        b'{"answer": {"kind": "calibrate", "count": 3}, "error": {"type": "E", "message": "m"}}',
        b'{"error": {"type": "E\\n::error::x", "message": "m"}}',
        b'{"error": {"type": "E", "message": "' + b"m" * (LONGEST_MESSAGE + 1) + b'"}}',
        b'{"answer": ' + b"[" * 100_000,
        # what stands before the tag is read to its end, however deep: a RecursionError
        b'{"answer": {"more": ' + b"[" * 100_000,
        b'{"answer": {"kind": "calibrate", "count": 1e999}}',
    ],
    ids=range(14),
)
def test_anything_else_is_refused_without_a_word_of_it(wrong: bytes) -> None:
    with pytest.raises(WorkerCrashError) as caught:
        read(wrong)
    assert "::error::" not in str(caught.value)
    assert "\n" not in caught.value.message


def test_an_answer_that_was_too_large_is_refused() -> None:
    with pytest.raises(WorkerCrashError, match="larger than 67,108,864 bytes"):
        read(None)


@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ).map(lambda value: json.dumps({"answer": value, "error": value}).encode())
)
def test_nothing_that_a_child_writes_raises_anything_else(data: bytes) -> None:
    with pytest.raises(WorkerCrashError):
        read(data)
