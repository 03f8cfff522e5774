"""The process between the parent and a child: it ends and waits for whatever the child started.

A child can start processes that leave its session and outlive it. They cannot leave the supervisor:
it is their subreaper (prctl(2)), so that the system hands it every orphan below it. It runs no code
but this, is of another user than the child where there is one for it, and out of reach of the
child's signals elsewhere, where Landlock holds them back.

The supervisor and the parent speak lines over a socket:

=========================  =========================================================================
``pid SUPERVISOR CHILD``   to the parent: the child is there, and waits
``go``                     from the parent: it may begin
end of the connection      from the parent, also by its death: the child and all below it are to end
``exit CODE LEFT``         to the parent: the child ended with CODE, a signal if negative; LEFT of
                           its processes could not be ended
=========================  =========================================================================

``supervisor.py CHANNEL CONFINEMENT COMMAND…`` runs a command; a fork server calls
:func:`supervise` in a fork of itself. This module imports little, since it is started for every
process that does not come from a server.
"""

from __future__ import annotations

import ctypes
import os
import select
import sys
import time

if __name__ == "__main__":  # started as a script by a Python that knows of no packages
    sys.path.append(__file__.rpartition("/mconv/")[0])

from mconv.workers import confine
from mconv.workers.confine import SIGKILL, Confinement

TYPE_CHECKING = False  # without the import of typing, which takes longer than all the rest here
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

PR_SET_CHILD_SUBREAPER = 36
WRONG = 70  # exit code of a child that could not even begin (EX_SOFTWARE)
PATIENCE = 10.0  # seconds for processes that were killed to be gone
POLL_SECONDS = 0.05  # where the system has no descriptor for a process that ends


def supervise(
    channel: int, confinement: Confinement, begin: Callable[[], NoReturn], close: tuple[int, ...]
) -> NoReturn:
    """Run ``begin`` in a confined child of this process, and end with it.

    ``channel`` is the descriptor of the socket to the parent. ``begin`` is called in the child; the
    descriptors in ``close`` are the child's alone.
    """
    code, left = WRONG, 0
    try:
        if sys.platform.startswith("linux"):
            ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        gate, opener = os.pipe()
        supervisor = os.getpid()
        child = os.fork()
        if child == 0:
            os.close(opener)
            os.close(channel)
            _become_child(gate, supervisor, confinement, begin)
        for descriptor in (gate, *close):
            os.close(descriptor)
        _release_output()
        os.write(channel, f"pid {supervisor} {child}\n".encode())
        code = _wait(channel, child, opener)
        left = end_all(None if confinement.serves else confinement.uid)
    finally:
        try:
            os.write(channel, f"exit {code} {left}\n".encode())
        finally:
            os._exit(0)


def _release_output() -> None:
    """Put nothing in place of standard input, output and errors, which are the child's."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)


def _become_child(
    gate: int, supervisor: int, confinement: Confinement, begin: Callable[[], NoReturn]
) -> NoReturn:
    """Wait until the gate opens, confine this process and begin."""
    try:
        os.setsid()
        if not os.read(gate, 1):
            os._exit(WRONG)
        os.close(gate)
        confine.apply(confinement, supervisor)
        begin()
    except BaseException as problem:
        os.write(2, f"the worker could not begin: {type(problem).__name__}: {problem}\n".encode())
    finally:
        os._exit(WRONG)


def _wait(channel: int, child: int, opener: int) -> int:
    """Let the child begin when the parent says so, and return its exit code once it has ended.

    It is killed where the connection ends.
    """
    ending = _open_process(child)
    listening = [channel]
    while True:
        patience = None if ending is not None else POLL_SECONDS
        watched = [*listening, *([ending] if ending is not None else [])]
        ready, _, _ = select.select(watched, [], [], patience)
        if channel in ready and not _hear(channel, opener):
            listening = []
            os.kill(child, SIGKILL)
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid == child:
            return os.waitstatus_to_exitcode(status)


def _open_process(pid: int) -> int | None:
    """Return a descriptor that can be read once a process has ended; None where there is none."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _hear(channel: int, opener: int) -> bool:
    """Return whether the parent is still there, and open the gate where it says so."""
    try:
        word = os.read(channel, 16)
    except OSError:
        return False
    if word.startswith(b"go"):
        os.write(opener, b"1")
    return bool(word)


def end_all(uid: int | None) -> int:
    """Kill every process below this one, and every process of the user ``uid``, and wait for them.

    Returns how many are left: those that the system does not let go of.
    """
    end = time.monotonic() + PATIENCE
    while has_children():
        if uid is not None:
            _kill_user(uid)
        below = list_below(os.getpid())
        for pid in below:
            try:
                os.kill(pid, SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
        if time.monotonic() > end:
            return len(below) or 1
    return 0


def has_children() -> bool:
    """Return whether this process has children that still run. Those that have ended are reaped."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return True


def list_below(pid: int) -> list[int]:
    """Return the ids of all processes below a process, by proc(5)."""
    parents: dict[int, list[int]] = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    parent = int(file.read().rpartition(b")")[2].split()[1])
            except (OSError, IndexError, ValueError):  # it has ended
                continue
            parents.setdefault(parent, []).append(int(name))
    below: list[int] = []
    waiting = [pid]
    while waiting:
        children = parents.get(waiting.pop(), [])
        below += children
        waiting += children
    return below


def _kill_user(uid: int) -> None:
    """Kill all processes of a user, which is no other's than the child's.

    A process of that user does so, since the system lets one kill all that it may kill at once,
    which no process can run away from.
    """
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            if uid > 0 and os.getresuid() == (uid, uid, uid):
                os.kill(-1, SIGKILL)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def main(channel: int, confinement: int, command: list[str]) -> NoReturn:
    """Run a command, confined as the file of descriptor ``confinement`` says.

    ``channel`` is the descriptor of the socket.
    """
    os.set_inheritable(channel, False)
    with open(confinement, "rb") as file:
        rules, env = Confinement.from_bytes(file.read())

    def begin() -> NoReturn:
        """Become the command."""
        os.execve(command[0], command, env)

    supervise(channel, rules, begin, ())


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
