"""What a worker is asked and what it answers, as JSON, and how far the answer is believed."""

from __future__ import annotations

from typing import Annotated

import msgspec

from mconv import registry
from mconv.answers import Answer
from mconv.errors import WorkerCrashError, one_line
from mconv.steps.requests import AnyRequest
from mconv.values import ErrorInfo, Frozen, Place, from_json
from mconv.workers import channels

LONGEST_MESSAGE = 4000  # characters of an error's message or hint


class Request(Frozen, frozen=True, kw_only=True):
    """What a worker is asked.

    Attributes:
        step: The step to do.
        folders: The folders of the steps before it, by role.
        out: The folder that it writes into.
        plugins: What to register first.
    """

    step: AnyRequest
    folders: dict[str, str]
    out: str
    plugins: tuple[str, ...] = msgspec.field(default_factory=registry.registered)


class Problem(Frozen, frozen=True, kw_only=True):
    """The error of a worker, as far as its parent believes it."""

    type: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_.]*\Z", max_length=100)]
    message: Annotated[str, msgspec.Meta(max_length=LONGEST_MESSAGE)]
    hint: Annotated[str, msgspec.Meta(max_length=LONGEST_MESSAGE)] | None = None
    place: Place | None = None


class Response(Frozen, frozen=True, kw_only=True):
    """What a worker answers: the step's answer, or an error."""

    answer: Answer | None = None
    error: Problem | None = None


class Outcome(Frozen, frozen=True, kw_only=True):
    """A finished step as its parent saw it.

    Attributes:
        answer: What it answered, if it did well.
        error: Why it did not.
        seconds: How long it took.
        peak_rss_bytes: The most memory that it and its children had in use.
    """

    answer: Answer | None
    error: ErrorInfo | None
    seconds: float
    peak_rss_bytes: int | None


def read_response(kind: str, data: bytes | None) -> Response:
    """What a worker of a step of ``kind`` answered; None is an answer that was too large.

    Raises WorkerCrashError where it is not what a step of this kind answers. Nothing in the message
    is the worker's own text."""
    hint = (
        "code of the repository may have written to the channel of the answer; the log below "
        "is the last it printed"
    )
    if data is None:
        raise WorkerCrashError(
            f"the answer of the worker is larger than {channels.ANSWER_LIMIT:,} bytes", hint=hint
        )
    try:
        response = from_json(data, Response)
        if (response.answer is None) == (response.error is None):
            raise ValueError("it holds no answer or error, or both")
        if response.answer is not None and response.answer.kind != kind:
            raise ValueError("it is that of another kind of step")
    except (ValueError, RecursionError) as problem:
        said = one_line(problem, 200)
        raise WorkerCrashError(
            f"the answer of the worker is not that of a step {kind!r}: {said}", hint=hint
        ) from problem
    return response
