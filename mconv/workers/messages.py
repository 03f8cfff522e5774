"""What a worker is asked and what it answers, as JSON, and how far the answer is believed."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from mconv import answers, registry
from mconv.errors import WorkerCrashError, one_line
from mconv.values import ErrorInfo, Frozen, Place, from_json
from mconv.workers import channels

LONGEST_MESSAGE = 4000  # characters of an error's message or hint


class Request(Frozen, frozen=True, kw_only=True):
    """What a worker is asked: the step, the folders of its inputs, the folder it writes into;
    ``plugins`` to register first."""

    kind: str
    plugin: str
    params: dict[str, Any]
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
    """What a worker answers: the step's result, or an error."""

    result: dict[str, Any] | None = None
    error: Problem | None = None


class Outcome(Frozen, frozen=True, kw_only=True):
    """A finished step as the parent saw it."""

    result: dict[str, Any] | None
    error: ErrorInfo | None
    seconds: float
    peak_rss_bytes: int | None


def read_response(kind: str, answer: bytes | None) -> tuple[dict[str, Any] | None, Problem | None]:
    """The result and the error in a worker's answer, exactly one of which is there; None is an
    answer that was too large.

    Raises WorkerCrashError where it is not what a step of this kind answers. Nothing in the message
    is the worker's own text."""
    hint = (
        "code of the repository may have written to the channel of the answer; the log below "
        "is the last it printed"
    )
    if answer is None:
        raise WorkerCrashError(
            f"the answer of the worker is larger than {channels.ANSWER_LIMIT:,} bytes", hint=hint
        )
    try:
        response = from_json(answer, Response)
        if (response.result is None) == (response.error is None):
            raise ValueError("it holds no result or error, or both")
        if response.result is not None:
            msgspec.convert(response.result, answers.TYPES[kind])
    except (ValueError, RecursionError) as problem:
        said = one_line(problem, 200)
        raise WorkerCrashError(
            f"the answer of the worker is not that of a step {kind!r}: {said}", hint=hint
        ) from problem
    return response.result, response.error
