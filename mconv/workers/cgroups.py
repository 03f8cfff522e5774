"""A control group for each step, where this process may make one (cgroups(7), version 2).

It ends all processes of a step at once (``cgroup.kill``), and counts their memory as the kernel
does where its memory controller is given to children. Containers see the tree read-only as a rule,
and ordinary users do unless a part is delegated to them; a supervisor does without.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import time
from functools import cache
from pathlib import Path

PATIENCE = 10.0  # seconds for processes that were killed to be gone
_numbers = itertools.count()


@cache
def find_parent() -> Path | None:
    """Return the group of this process where groups can be made below it, or None."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
        own = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    root = next((line.split()[4] for line in mounts if " - cgroup2 " in line), None)
    path = next((line[3:] for line in own if line.startswith("0::")), None)
    if root is None or path is None:
        return None
    parent = Path(root + path)
    probe = parent / f"mconv-probe-{os.getpid()}"
    try:
        probe.mkdir()
    except OSError:
        return None
    try:
        # a process must be able to move: both groups' files, and those of what holds both
        usable = (probe / "cgroup.kill").exists() and os.access(parent / "cgroup.procs", os.W_OK)
    finally:
        probe.rmdir()
    return parent if usable else None


class Group:
    """The control group of one step.

    Attributes:
        folder: Its folder.
    """

    def __init__(self, parent: Path) -> None:
        """Make it below ``parent``. Raises OSError."""
        self.folder = parent / f"mconv-{os.getpid()}-{next(_numbers)}"
        self.folder.mkdir()

    def add(self, pid: int) -> None:
        """Move a process into it, before it starts others. Raises OSError."""
        (self.folder / "cgroup.procs").write_text(str(pid))

    def read_memory(self) -> int | None:
        """Return the bytes that its processes have in use, without what the system could drop, or
        None where the kernel does not count them for it."""
        try:
            used = int((self.folder / "memory.current").read_text())
            for line in (self.folder / "memory.stat").read_text().splitlines():
                if line.startswith("inactive_file "):
                    used -= int(line.split()[1])
        except (OSError, ValueError):
            return None
        return max(used, 0)

    def close(self) -> bool:
        """Kill all that is in it and remove it; return whether all are gone."""
        with contextlib.suppress(OSError):
            (self.folder / "cgroup.kill").write_text("1")
        end = time.monotonic() + PATIENCE
        while True:
            try:
                self.folder.rmdir()
            except FileNotFoundError:
                return True
            except OSError:  # processes are in it
                if time.monotonic() > end:
                    return False
                time.sleep(0.001)
            else:
                return True


def make_group() -> Group | None:
    """Return a new group, or None where none can be made."""
    parent = find_parent()
    if parent is None:
        return None
    try:
        return Group(parent)
    except OSError:
        return None
