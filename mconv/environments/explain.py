"""What uv says where an environment cannot be made, in a plain sentence for who asked for it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from mconv.errors import EnvironmentFailedError, one_line

LONGEST = 900
NO_NETWORK = (
    "dns error",
    "failed to fetch",
    "error sending request",
    "connection refused",
    "network is unreachable",
    "could not connect",
    "operation timed out",
    "network connectivity is disabled",
    "enotfound",
    "econnrefused",
    "etimedout",
)
# uv marks what it prints
MARKS = re.compile(r"^[\s×├╰─▶│·•→]+|\x1b\[[0-9;]*m")


def explain_failure(printed: str, asked: Mapping[str, Sequence[str]]) -> EnvironmentFailedError:
    """Return the error of an installer that failed and printed this.

    ``asked`` says who asked for which requirements.
    """
    lines = [MARKS.sub("", line).strip() for line in printed.splitlines()]
    text = one_line(" ".join(filter(None, lines)), LONGEST)
    lower = text.lower()
    if "no space left on device" in lower:
        return EnvironmentFailedError(
            "there is no space left on the disk", hint="free some, and run again"
        )
    if "no solution found" in lower or "unsatisfiable" in lower or "conflicting" in lower:
        return _explain_conflict(text, asked)
    if (
        "no wheel for the current platform" in lower
        or "can't be installed because it doesn't have" in lower
        or "no compatible" in lower
    ):
        return EnvironmentFailedError(
            f"the lock has no file for this machine: {text}",
            hint="lock it for this platform too (`tool.uv.environments` in pyproject.toml), or run "
            "on the platform that it was made for",
        )
    if any(words in lower for words in NO_NETWORK):
        return EnvironmentFailedError(
            f"packages cannot be fetched: {text}",
            hint="is there a network, and is the index right? `pip config list` shows pip's, which "
            "mconv takes over; `mconv setup` makes environments ahead",
        )
    if "hash mismatch" in lower:
        return EnvironmentFailedError(
            f"a file is not the one that the lock names: {text}",
            hint="lock again where the file was replaced on purpose",
        )
    if "failed to build" in lower or "build backend" in lower:
        return EnvironmentFailedError(
            f"a package has no wheel for this Python and does not build: {text}",
            hint="choose a version that has a wheel, or install what its build needs",
        )
    if "no interpreter found" in lower or "no python" in lower:
        return EnvironmentFailedError(
            f"this Python is not on the machine and cannot be fetched: {text}",
            hint="install it, or leave `python` out to take mconv's own",
        )
    return EnvironmentFailedError(f"it cannot be made: {text}")


def _explain_conflict(text: str, asked: Mapping[str, Sequence[str]]) -> EnvironmentFailedError:
    """Return the error of requirements that exclude each other, with who asked for what.

    Only requirements of distributions that the message is about are named.
    """
    _, _, reason = text.partition("No solution found when resolving dependencies:")
    reason = (reason or text).strip()
    sides = []
    for who, requirements in asked.items():
        named = [each for each in requirements if _read_name(each) in reason.lower()]
        if named:
            sides.append(f"{who} asks for {', '.join(named[:6])}")
    shown = f"; {'; '.join(sides)}" if sides else ""
    return EnvironmentFailedError(
        f"its requirements exclude each other: {reason}{shown}",
        hint="loosen one of them; docs/manifest.md says what mconv's worker needs",
    )


def _read_name(requirement: str) -> str:
    """Return the name of a requirement, in small letters."""
    return re.split(r"[\[<>=!~; @]", requirement, maxsplit=1)[0].strip().lower()
