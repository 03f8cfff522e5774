"""The hidden first lines of mconv's comment: which one it is, and which run's results it holds.

Runs of one pull request end in any order. A run leaves a comment alone that holds the results of a
newer one: of the commit that the pull request is at, else of the later run.
"""

from __future__ import annotations

import hashlib
import re

from mconv.values import Frozen

LONGEST_KEY = 80  # characters that stand in a marker as they are
STAMP = re.compile(r"<!-- mconv-run:([0-9]{1,19})\.([0-9]{1,9}) ([0-9a-f]{0,64}) -->")


class Stamp(Frozen, frozen=True, kw_only=True):
    """Whose results a comment holds.

    Attributes:
        run: The number of the run that converted, which later runs of a repository exceed.
        attempt: Which attempt of the run it is.
        sha: The commit that was converted; empty where the event does not say it.
    """

    run: int
    attempt: int = 1
    sha: str = ""

    def write(self) -> str:
        """Return the line that :func:`read_stamp` reads."""
        return f"<!-- mconv-run:{self.run}.{self.attempt} {self.sha} -->"


def make_stamp(run: str, attempt: str, sha: str) -> Stamp | None:
    """Return the stamp of a run as the runner tells it; None where it does not."""
    commit = sha if re.fullmatch("[0-9a-f]{40,64}", sha) else ""
    if not (re.fullmatch("[0-9]{1,19}", run) and re.fullmatch("[0-9]{1,9}", attempt)):
        return None
    return Stamp(run=int(run), attempt=int(attempt), sha=commit)


def make_marker(key: str) -> str:
    """Return the hidden line by which a later run finds its own comment.

    ``key`` tells several mconv jobs of one pull request apart: no two keys have one marker. One of
    characters that a comment cannot hide, or a long one, has its digest behind what is left.
    """
    safe = "".join(c for c in key if c.isalnum() or c in "._-")[:LONGEST_KEY]
    if safe != key:
        safe += "~" + hashlib.sha256(key.encode()).hexdigest()[:32]
    return f"<!-- mconv:{safe} -->"


def read_stamp(body: str) -> Stamp | None:
    """Return the stamp in the second line of a comment; None where there is none."""
    lines = body.split("\n", 2)
    match = STAMP.fullmatch(lines[1].rstrip("\r")) if len(lines) > 1 else None
    if match is None:
        return None
    return Stamp(run=int(match[1]), attempt=int(match[2]), sha=match[3])


def is_newer(present: Stamp | None, own: Stamp | None, head: str) -> bool:
    """Return whether a comment that is ``present`` holds newer results than a run's ``own``.

    ``head`` is the commit that the pull request is at; empty where that is not known. A run that
    does not know which one it is takes its own for the newest.
    """
    if present is None or own is None:
        return False
    if head and present.sha and own.sha and (present.sha == head) != (own.sha == head):
        return present.sha == head
    return (present.run, present.attempt) > (own.run, own.attempt)
