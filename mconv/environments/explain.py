"""What uv says where an environment cannot be made, in a plain sentence for who asked for it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from mconv.errors import EnvironmentFailedError, one_line

LONGEST = 900  # characters of uv's own words
MARKS = re.compile(r"^[\s×├╰─▶│·•→⎿└]+|\x1b\[[0-9;]*m")  # what uv draws
NO_NETWORK = (
    "dns error",
    "failed to fetch",
    "error sending request",
    "connection refused",
    "network is unreachable",
    "operation timed out",
    "enotfound",
    "econnrefused",
    "etimedout",
    "eai_again",
)
NO_FILE = (
    "no wheels with a matching",
    "doesn't have a source distribution or wheel for the current platform",
    "no wheel for the current platform",
    "is not compatible with the current platform",
    "can't be installed because it doesn't have",
)
NO_PYTHON = ("python-build-standalone", "no interpreter found", "no python interpreter")


def explain_failure(printed: str, asked: Mapping[str, Sequence[str]]) -> EnvironmentFailedError:
    """Return the error of an installer that failed and printed this.

    ``asked`` says who asked for which requirements.
    """
    text = extract_reason(printed)
    lower = text.lower()
    if "no space left on device" in lower:
        return EnvironmentFailedError(
            "there is no space left on the disk", hint="free some, and run again"
        )
    if any(words in lower for words in NO_PYTHON):
        return EnvironmentFailedError(
            f"this version of Python is not on the machine and cannot be fetched: {text}",
            hint="install it, or leave `python` out to take mconv's own",
        )
    if any(words in lower for words in NO_FILE):
        return EnvironmentFailedError(
            f"a package has no file for this machine and Python: {text}",
            hint="choose a version that has one; a lock must be made for this platform, too",
        )
    if "not found in the package registry" in lower or "was not found in the provided" in lower:
        return EnvironmentFailedError(
            f"a package is not found: {text}{_name_sides(text, asked)}",
            hint="is its name right, and is the index? `pip config list` shows pip's settings, "
            "which mconv takes over",
        )
    if "no solution found" in lower or "unsatisfiable" in lower or "conflicting" in lower:
        return EnvironmentFailedError(
            f"its requirements exclude each other: {text}{_name_sides(text, asked)}",
            hint="loosen one of them; docs/manifest.md says what mconv's worker needs",
        )
    if any(words in lower for words in NO_NETWORK):
        return EnvironmentFailedError(
            f"packages cannot be fetched: {text}",
            hint="is there a network, and is the index right? `pip config list` shows pip's "
            "settings, which mconv takes over; `mconv setup` makes environments ahead",
        )
    if "hash mismatch" in lower:
        return EnvironmentFailedError(
            f"a file is not the one that the lock names: {text}",
            hint="lock again, if the file was replaced on purpose",
        )
    if "failed to build" in lower or "build backend" in lower:
        return EnvironmentFailedError(
            f"a package has no wheel for this Python and does not build: {text}",
            hint="choose a version that has a wheel, or install what its build needs",
        )
    return EnvironmentFailedError(f"it cannot be made: {text}")


def extract_reason(printed: str) -> str:
    """Return the reason in what an installer printed, as one line without its drawings.

    What it tells of its progress before the first error is left out.
    """
    lines = list(filter(None, (MARKS.sub("", line).strip() for line in printed.splitlines())))
    first = next((i for i, line in enumerate(lines) if line.lower().startswith("error")), 0)
    text = " ".join(lines[first:])
    text = re.sub(r"^error: ", "", text)
    text = re.sub(r"[:.]? (?:cause|Caused by): ", ": ", text)
    text = text.replace("No solution found when resolving dependencies: ", "")
    return one_line(text, LONGEST)


def _name_sides(text: str, asked: Mapping[str, Sequence[str]]) -> str:
    """Return who asked for the distributions that a message is about, in words."""
    words = set(re.findall(r"[a-z0-9][a-z0-9._-]*", text.lower()))
    sides = []
    for who, requirements in asked.items():
        named = [each for each in requirements if _read_name(each) in words]
        if named:
            sides.append(f"{who} asks for {', '.join(named[:6])}")
    return f" ({'; '.join(sides)})" if sides else ""


def _read_name(requirement: str) -> str:
    """Return the name of a requirement, in small letters."""
    return re.split(r"[\[<>=!~; @]", requirement, maxsplit=1)[0].strip().lower()
