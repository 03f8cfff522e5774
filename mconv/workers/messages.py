"""What a worker is asked and what it answers, as JSON, and how far the answer is believed."""

from __future__ import annotations

from typing import Annotated, Generic, TypeVar

import msgspec

from mconv import registry
from mconv.answers import Answer
from mconv.errors import WorkerCrashError, one_line
from mconv.steps.requests import AnyRequest
from mconv.values import ErrorInfo, Frozen, Place, from_json
from mconv.workers import channels

T = TypeVar("T")
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
    plugins: tuple[str, ...] = msgspec.field(default_factory=registry.list_registered)


class Problem(Frozen, frozen=True, kw_only=True):
    """The error of a worker, as far as its parent believes it.

    Attributes:
        type: The name of its class.
        message: What happened.
        hint: What to do about it.
        place: Where in the user's file.
    """

    type: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_.]*\Z", max_length=100)]
    message: Annotated[str, msgspec.Meta(max_length=LONGEST_MESSAGE)]
    hint: Annotated[str, msgspec.Meta(max_length=LONGEST_MESSAGE)] | None = None
    place: Place | None = None


class Response(Frozen, Generic[T], frozen=True, kw_only=True):
    """What a child answers.

    Attributes:
        answer: Its answer, if it did well.
        error: Why it did not.
    """

    answer: T | None = None
    error: Problem | None = None


StepResponse = Response[Answer]


class FinishedStep(Frozen, frozen=True, kw_only=True):
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


def read_response(data: bytes | None, kind: type[Response[T]], what: str) -> Response[T]:
    """Return what a child answered, in which exactly one of answer and error is there.

    ``data`` is None where the answer was too large; ``what`` it was asked for is for people.

    Raises WorkerCrashError where it cannot be read as ``kind``. Nothing in the message is the
    child's own text.
    """
    if data is None:
        raise make_malformed_error(what, f"it is larger than {channels.ANSWER_LIMIT:,} bytes")
    try:
        response = from_json(data, kind)
    except (ValueError, RecursionError) as problem:
        raise make_malformed_error(what, one_line(problem, 200)) from problem
    if (response.answer is None) == (response.error is None):
        raise make_malformed_error(what, "it holds no answer or error, or both")
    return response


def make_malformed_error(what: str, reason: str) -> WorkerCrashError:
    """Return the error of a child that answered what nobody asked for."""
    return WorkerCrashError(
        f"the answer of the worker is not that of {what}: {reason}",
        hint="code of the repository may have written to the channel of the answer; the log "
        "below is the last it printed",
    )
