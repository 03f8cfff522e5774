"""What a child process may do, and how it gives up all else before it runs anything.

A :class:`Confinement` is written by the parent and carried out by the child, in the order in which
each part is still allowed: limits, identity, Landlock, system calls. This module imports the
standard library alone, since the Pythons of all environments run it.
"""

from __future__ import annotations

import ctypes
import marshal
import os
import resource
import struct
import sys

from mconv.workers import landlock

TYPE_CHECKING = False  # without the import of typing, which takes longer than all the rest here
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_KEEPCAPS = 1, 4, 8  # prctl(2)
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 22, 38
PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, PR_CAP_AMBIENT_CLEAR_ALL = 47, 2, 4
SECCOMP_MODE_FILTER = 2
SIGKILL = 9
CAP_DAC_READ_SEARCH, CAP_SETGID, CAP_SETUID = 2, 6, 7
CAPABILITY_VERSION = 0x20080522  # of the second and current layout, capget(2)
MOST_PROCESSES = 4096  # of a user that a step has to itself, threads too
FORMAT = 2  # of marshal, which every Python here reads


class Confinement:
    """What a child process may do.

    Attributes:
        uid: The user and group that it takes, which nobody else has; None leaves the parent's.
        serves: It may take other users, as far as ``calls`` lets it, to give them to its children.
        files: Landlock holds it to the paths below.
        readable: Files and folders that it reads and executes.
        listable: Folders whose names it reads, not what lies below them.
        writable: Files and folders that it changes.
        devices: Devices that it uses.
        holds_ports: Landlock holds it to the ports below.
        ports: TCP ports that it connects to; it listens on whatever is free then.
        highest: It connects to every TCP port up to this one.
        calls: The filter of system calls (:mod:`mconv.workers.seccomp`); empty is none.
    """

    __slots__ = (
        "calls",
        "devices",
        "files",
        "highest",
        "holds_ports",
        "listable",
        "ports",
        "readable",
        "serves",
        "uid",
        "writable",
    )

    def __init__(
        self,
        *,
        uid: int | None = None,
        serves: bool = False,
        files: bool = False,
        readable: Sequence[str] = (),
        listable: Sequence[str] = (),
        writable: Sequence[str] = (),
        devices: Sequence[str] = (),
        holds_ports: bool = False,
        ports: Sequence[int] = (),
        highest: int = 0,
        calls: bytes = b"",
    ) -> None:
        self.uid = uid
        self.serves = serves
        self.files = files
        self.readable = tuple(readable)
        self.listable = tuple(listable)
        self.writable = tuple(writable)
        self.devices = tuple(devices)
        self.holds_ports = holds_ports
        self.ports = tuple(ports)
        self.highest = highest
        self.calls = calls

    def to_bytes(self, env: Mapping[str, str]) -> bytes:
        """Return it in a form that any Python reads, with a child's environment variables.

        It goes from parent to child only; JSON would take longer to import than to do.
        """
        values = {name: getattr(self, name) for name in self.__slots__}
        return marshal.dumps((values, dict(env)), FORMAT)

    @classmethod
    def from_bytes(cls, data: bytes) -> tuple[Confinement, dict[str, str]]:
        """Return what :meth:`to_bytes` was given."""
        values, env = marshal.loads(data)
        return cls(**values), env


FREE = Confinement()  # nothing is given up but privileges


def apply(confinement: Confinement, parent: int) -> None:
    """Confine this process, which has one thread, for good.

    It dies with ``parent``, the process that made it. Raises OSError where a part cannot be done;
    the process must end then.
    """
    _set_limits(confinement)
    if not sys.platform.startswith("linux"):
        if confinement.uid is not None:
            take_user(confinement.uid)
        return
    if confinement.uid is not None:
        take_user(confinement.uid, keep=confinement.serves)
    elif os.geteuid() == 0:
        # as root of a machine that lends no users: all privileges go but that to read its files
        reads = 1 << CAP_DAC_READ_SEARCH & _get_capabilities()  # which a container may lack
        _set_capabilities(reads if confinement.files else None)
    _call_prctl(PR_SET_NO_NEW_PRIVS, 1)
    # a change of user undoes it
    _call_prctl(PR_SET_PDEATHSIG, SIGKILL)
    if os.getppid() != parent:
        raise OSError("the process that started it is gone")
    if confinement.files:
        _restrict_files(confinement)
    if confinement.calls:
        _filter_calls(confinement.calls)
    forbid_inspection()


def forbid_inspection() -> None:
    """Keep processes of the same user out of this one's memory; a program that it executes has to
    do so again."""
    if sys.platform.startswith("linux"):
        _call_prctl(PR_SET_DUMPABLE, 0)


def _set_limits(confinement: Confinement) -> None:
    """Have it leave no core, be taken first where memory runs out, and start a bounded number of
    processes where it has its user to itself."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        descriptor = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
    except OSError:
        pass
    else:
        os.write(descriptor, b"500" if confinement.serves else b"1000")
        os.close(descriptor)
    if confinement.uid is not None and not confinement.serves:
        _, most = resource.getrlimit(resource.RLIMIT_NPROC)
        count = MOST_PROCESSES if most == resource.RLIM_INFINITY else min(most, MOST_PROCESSES)
        resource.setrlimit(resource.RLIMIT_NPROC, (count, count))


def take_user(uid: int, *, keep: bool = False) -> None:
    """Become a user, in the group of the same number and no other, without privileges.

    ``keep``: the privilege to become another one stays, also for a program that is executed.
    """
    if keep:
        _call_prctl(PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    if sys.platform.startswith("linux"):
        _set_capabilities(1 << CAP_SETUID | 1 << CAP_SETGID if keep else 0)
        for capability in (CAP_SETUID, CAP_SETGID) if keep else ():
            _call_prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability)


def _get_capabilities() -> int:
    """Return the capabilities that this process may use, as bits."""
    header = struct.pack("=Ii", CAPABILITY_VERSION, 0)
    data = ctypes.create_string_buffer(24)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capget(header, data):
        return 0
    _, low, _, _, high, _ = struct.unpack("=6I", data.raw)
    return int(low | high << 32)


def _set_capabilities(kept: int | None) -> None:
    """Give up all capabilities but those of the bits ``kept``; None keeps all."""
    if kept is None:
        return
    _call_prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    low, high = kept & 0xFFFFFFFF, kept >> 32
    header = struct.pack("=Ii", CAPABILITY_VERSION, 0)
    data = struct.pack("=6I", low, low, low, high, high, high)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capset(header, data):
        problem = ctypes.get_errno()
        raise OSError(problem, f"capset: {os.strerror(problem)}")


def _restrict_files(confinement: Confinement) -> None:
    """Put Landlock on this process."""
    ruleset = landlock.Ruleset(ports=confinement.holds_ports)
    ruleset.allow_paths(confinement.readable, landlock.READ)
    ruleset.allow_paths(confinement.listable, landlock.READ_DIR)
    ruleset.allow_paths(confinement.writable, landlock.ALL)
    ruleset.allow_paths(confinement.devices, landlock.USE)
    if confinement.ports:
        ruleset.allow_port(0, landlock.BIND_TCP)
    for port in (*confinement.ports, *range(1, confinement.highest + 1)):
        ruleset.allow_port(port, landlock.CONNECT_TCP)
    ruleset.restrict()


def _filter_calls(program: bytes) -> None:
    """Put a filter of system calls on this thread and what it starts."""

    class Program(ctypes.Structure):
        """The kernel's ``struct sock_fprog``."""

        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]

    given = Program(len(program) // 8, program)
    _call_prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(given))


def _call_prctl(option: int, *arguments: int) -> None:
    """Call prctl(2). Raises OSError."""
    given = [ctypes.c_ulong(each) for each in (*arguments, *[0] * (4 - len(arguments)))]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, *given) < 0:
        problem = ctypes.get_errno()
        raise OSError(problem, f"prctl({option}): {os.strerror(problem)}")
