"""Memory that a process and its descendants have in use."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

LEFT_FOR_OTHERS = 512 * 2**20  # memory a step may never take from the machine

PAGE = os.sysconf("SC_PAGE_SIZE")
HAS_CHILDREN_FILES = Path(f"/proc/self/task/{os.getpid()}/children").exists()


def measure_resident(pid: int) -> int:
    """Return the resident memory of a process and all its descendants, in bytes.

    It comes straight from proc(5): psutil would read every process there is, twenty times a second.
    """
    if not HAS_CHILDREN_FILES:
        return _measure_by_psutil(pid)
    used = 0
    with contextlib.suppress(OSError, IndexError):  # it has ended
        used = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                children = Path(f"/proc/{pid}/task/{thread}/children").read_text().split()
                used += sum(measure_resident(int(child)) for child in children)
    return used


def _measure_by_psutil(pid: int) -> int:
    """Return the same where there is no proc(5)."""
    import psutil

    used = 0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for part in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                used += int(part.memory_info().rss)
    return used
