"""What came of the steps of a plan."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from mconv.store.local import Entry
from mconv.values import ErrorInfo


class Span(NamedTuple):
    """When a step ran.

    Attributes:
        start: When it started, in seconds on the monotonic clock.
        end: When it ended.
    """

    start: float
    end: float


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of each step, by its key.

    Attributes:
        entries: What the store holds of those that did well.
        cached: Those that were in the store already.
        errors: Why the others failed, or were skipped.
        spans: When those that ran did.
    """

    entries: dict[str, Entry]
    cached: frozenset[str]
    errors: dict[str, ErrorInfo]
    spans: dict[str, Span] = {}
