"""What this machine can enforce against the code of models, and what that promises.

SECURITY.md has the promises by level in a table, which a test holds to this module.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from mconv.workers import cgroups, identities, landlock, seccomp


class Isolation(NamedTuple):
    """What is enforced.

    Attributes:
        users: Each child has a user of its own.
        landlock: The ABI of Landlock; 0 without it.
        calls: System calls are filtered.
        groups: Each step has a control group.
    """

    users: bool
    landlock: int
    calls: bool
    groups: bool

    def describe(self) -> str:
        """Return it in words, as ``uid + landlock ABI 7 + seccomp``."""
        parts = (
            "uid" if self.users else "",
            f"landlock ABI {self.landlock}" if self.landlock else "",
            "seccomp" if self.calls else "",
            "cgroup" if self.groups else "",
        )
        return " + ".join(filter(None, parts)) or "none"


class Promise(NamedTuple):
    """Something that code of a model cannot do.

    Attributes:
        words: What it cannot do, for people.
        holds: Whether that is enforced.
    """

    words: str
    holds: Callable[[Isolation], bool]


PROMISES = (
    Promise(
        "read the token, or another process's variables or memory",
        lambda i: i.users or i.landlock > 0,
    ),
    Promise(
        "read files beyond the system, its packages and the repository", lambda i: i.landlock > 0
    ),
    Promise("read `.git`, where a checkout may leave credentials", lambda i: i.landlock > 0),
    Promise(
        "change files outside of its own two folders",
        lambda i: i.landlock >= 3 or (i.users and i.landlock > 0) or (i.calls and i.landlock > 0),
    ),
    Promise(
        "change the store, the output, mconv or another step's files",
        lambda i: i.users or i.landlock > 0,
    ),
    Promise(
        "change modes, owners or times of files that are not its own", lambda i: i.users or i.calls
    ),
    Promise("stop, end or trace another step or mconv", lambda i: i.users or i.landlock >= 6),
    Promise("leave a process behind its step", lambda i: i.users or i.landlock >= 6 or i.groups),
    Promise("reach the network, or Docker's socket", lambda i: i.calls),
    Promise(
        "reach another port than its browser's in a web step", lambda i: i.calls and i.landlock >= 4
    ),
)


LEVELS = {
    "the image, ABI ≥ 6": Isolation(users=True, landlock=6, calls=True, groups=False),
    "the image, ABI 4–5": Isolation(users=True, landlock=4, calls=True, groups=False),
    "the image, no Landlock": Isolation(users=True, landlock=0, calls=True, groups=False),
    "a user, ABI ≥ 6": Isolation(users=False, landlock=6, calls=True, groups=False),
    "a user, ABI 4–5": Isolation(users=False, landlock=4, calls=True, groups=False),
    "a user, ABI 1–3": Isolation(users=False, landlock=1, calls=True, groups=False),
    "a user, no Landlock": Isolation(users=False, landlock=0, calls=True, groups=False),
}


def make_table() -> str:
    """Return the table of SECURITY.md: what is promised at which level."""
    rows = [["Code of a model cannot …", *LEVELS], [":--", *[":-:"] * len(LEVELS)]]
    for promise in PROMISES:
        cells = ["yes" if promise.holds(level) else "–" for level in LEVELS.values()]
        rows.append([promise.words, *cells])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def find_isolation() -> Isolation:
    """Return what this machine enforces for children of this process.

    Raises UsageError where the range of users is none.
    """
    return Isolation(
        users=identities.lends_users(),
        landlock=landlock.find_abi(),
        calls=seccomp.is_supported(),
        groups=cgroups.find_parent() is not None,
    )
