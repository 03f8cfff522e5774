"""Users of their own for child processes, out of a range that no other use is made of.

The image names the range (``MCONV_WORKER_UIDS=20000-59999``), or where it begins; root alone gives
them. Each child gets one that no child before it had, so what a process left behind is never a
later one's.
Runs beside one another on a machine take blocks of the range, each of which a socket of the
system's own name space holds until its process ends.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import threading

from mconv.errors import UsageError

VARIABLE = "MCONV_WORKER_UIDS"
FORMER = "MCONV_WORKER_UID"  # one user, where the range begins
COUNT = 40_000  # users of a range of which only the first is named
BLOCK = 256  # users that are taken at once
HIGHEST = 2**31 - 1
RANGE = re.compile(r"(\d{1,10})-(\d{1,10})")


def find_range() -> tuple[int, int] | None:
    """Return the first and the last user that children may have; None where they have this
    process's own, which is no root or has no range.

    Raises UsageError for a range that is none.
    """
    text = os.environ.get(VARIABLE) or os.environ.get(FORMER, "")
    if text.isdigit():
        text = f"{text}-{int(text) + COUNT - 1}"
    if not text or not hasattr(os, "geteuid") or os.geteuid() != 0:
        return None
    match = RANGE.fullmatch(text)
    least, most = (int(match[1]), int(match[2])) if match is not None else (0, 0)
    if least < 1 or most > HIGHEST or most - least + 1 < BLOCK:
        raise UsageError(
            f"{VARIABLE} is {text!r}, not a range of at least {BLOCK} users",
            hint="write it as 20000-59999; 0 is root and cannot be in it",
        )
    return least, most


class Users:
    """Gives users of the range, each once.

    Attributes:
        lock: Held while one is taken.
        free: Those of the block that are left.
        sockets: What holds the blocks.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.free: list[int] = []
        self.sockets: list[socket.socket] = []
        self._next = 0

    def take(self) -> int | None:
        """Return a user that no other child has or had; None where there is no range.

        Raises UsageError where all are taken.
        """
        limits = find_range()
        if limits is None:
            return None
        with self.lock:
            if not self.free or not limits[0] <= self.free[-1] <= limits[1]:
                self.free = self._take_block(*limits)
            return self.free.pop()

    def _take_block(self, least: int, most: int) -> list[int]:
        """Return the users of the next block that no process holds, from the last to the first."""
        for first in range(max(least, self._next), most - BLOCK + 2, BLOCK):
            if sys.platform.startswith("linux"):
                holder = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                try:
                    holder.bind(f"\0mconv-users-{first}")
                except OSError:  # another run's
                    holder.close()
                    continue
                self.sockets.append(holder)
            self._next = first + BLOCK
            return list(range(first + BLOCK - 1, first - 1, -1))
        raise UsageError(
            f"all users of {VARIABLE} are in use", hint="name a larger range, or run fewer at once"
        )


_users = Users()


def take_user() -> int | None:
    """Return a user for a child of this process; None where children have this process's own.

    Raises UsageError where all are taken.
    """
    return _users.take()


def lends_users() -> bool:
    """Return whether children have users of their own."""
    return find_range() is not None
