"""What came of the steps of a plan."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from mconv.store.local import Entry
from mconv.values import ErrorInfo


class Span(NamedTuple):
    """When a step started and ended: seconds on the monotonic clock."""

    start: float
    end: float


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Entries by key, whether each came from the store, the error of each step that failed, and
    when those that ran did."""

    entries: dict[str, Entry]
    cached: frozenset[str]
    errors: dict[str, ErrorInfo]
    spans: dict[str, Span] = {}
