"""Memory that the processes below a process have in use."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

LEFT_FOR_OTHERS = 512 * 2**20  # memory a step may never take from the machine

PAGE = os.sysconf("SC_PAGE_SIZE")
PAUSE_SECONDS = 1.0  # between two measurements of what processes share
SHARE_OF_TIME = 0.02  # that these may take
HAS_CHILDREN_FILES = Path(f"/proc/self/task/{os.getpid()}/children").exists()


class Meter:
    """Tells the memory that the processes below some have in use, again and again.

    Of one process that is what it has resident. What several share counts once where the system
    tells (PSS, proc(5)), and as often as they are elsewhere. To ask for that takes long, so it is
    done now and then, and where more would be in use than may be.

    Attributes:
        pids: The processes.
        limit: Bytes that may be in use.
        count: How many processes there were when it was last read.
        is_exact: What they share was counted once then.
    """

    def __init__(self, pids: Sequence[int], limit: int) -> None:
        self.pids = pids
        self.limit = limit
        self.count = 0
        self.is_exact = True
        self._next = 0.0

    def read(self) -> int:
        """Return the bytes that are in use, at least as far as is known by now."""
        if not HAS_CHILDREN_FILES:
            return sum(map(_measure_by_psutil, self.pids))
        below = [each for pid in self.pids for each in list_below(pid)]
        resident = sum(map(_measure_resident, below))
        self.count = len(below)
        if len(below) < 2:
            return resident
        begin = time.monotonic()
        if resident <= self.limit and begin < self._next:
            return 0
        each = [_measure_share(pid) for pid in below]
        self.is_exact = None not in each
        shares = sum(
            _measure_resident(pid) if share is None else share
            for pid, share in zip(below, each, strict=True)
        )
        end = time.monotonic()
        self._next = end + max(PAUSE_SECONDS, (end - begin) / SHARE_OF_TIME)
        return shares


def list_below(pid: int) -> list[int]:
    """Return the ids of the processes below a process.

    They come straight from proc(5): psutil would read every process there is, twenty times a
    second.
    """
    below: list[int] = []
    waiting = [pid]
    while waiting:
        parent = waiting.pop()
        with contextlib.suppress(OSError):  # it has ended
            for thread in os.listdir(f"/proc/{parent}/task"):
                with contextlib.suppress(OSError):
                    text = Path(f"/proc/{parent}/task/{thread}/children").read_text()
                    children = [int(child) for child in text.split()]
                    below += children
                    waiting += children
    return below


def _measure_resident(pid: int) -> int:
    """Return what a process has resident, in bytes; 0 where it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0


def _measure_share(pid: int) -> int | None:
    """Return the share that a process has of what is resident, in bytes; None where the system does
    not tell, as of a process of another user without the privilege to look into it."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return None if Path(f"/proc/{pid}").exists() else 0


def _measure_by_psutil(pid: int) -> int:
    """Return the same where there is no proc(5)."""
    import psutil

    used = 0
    with contextlib.suppress(psutil.Error):
        for part in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                used += int(part.memory_info().rss)
    return used
