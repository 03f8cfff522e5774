"""Landlock: a process gives up, for good and for its children, all files, ports and signals that
are not named (landlock(7)).

Each kernel knows a version of the interface (ABI): 1 has files; 2 moves between folders; 3
truncation; 4 TCP ports; 5 ioctl of devices; 6 signals and abstract sockets of processes outside.
What a kernel does not know it cannot refuse, so that every rule here asks for the ABI first. UDP,
``connect`` to a socket in the file system, and changes of modes are in no version until 7;
:mod:`mconv.workers.seccomp` refuses these. This module imports the standard library alone, since
the Pythons of all environments run it.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

TYPE_CHECKING = False  # without the import of typing, which takes longer than all the rest here
if TYPE_CHECKING:
    from collections.abc import Iterable

CREATE, ADD, RESTRICT = 444, 445, 446  # system calls, of the same numbers on every architecture
VERSION = 1  # landlock_create_ruleset(2): returns the ABI
PATH, PORT = 1, 2  # kinds of rules
NEWEST = 7  # what is known here; newer kernels understand it

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV  # the others are of folders
FIRST = (1 << 13) - 1  # all of ABI 1
ALL = (1 << 16) - 1
READ = EXECUTE | READ_FILE | READ_DIR
USE = READ_FILE | WRITE_FILE | IOCTL_DEV  # of devices
BIND_TCP, CONNECT_TCP = 1, 2
SCOPES = 3  # abstract sockets, and signals
UNREACHABLE = (FileNotFoundError, NotADirectoryError, PermissionError)
FOLDER, KIND = 0o040000, 0o170000  # bits of a mode


def find_abi() -> int:
    """Return the kernel's ABI as far as it is known here, and 0 where there is no Landlock."""
    if not sys.platform.startswith("linux"):
        return 0
    libc = ctypes.CDLL(None, use_errno=True)
    return max(0, min(NEWEST, int(libc.syscall(CREATE, None, ctypes.c_size_t(0), VERSION))))


def handle_files(abi: int) -> int:
    """Return the rights on files that a kernel of ``abi`` can refuse."""
    rights = FIRST
    for version, right in ((2, REFER), (3, TRUNCATE), (5, IOCTL_DEV)):
        rights |= right if abi >= version else 0
    return rights


class Ruleset:
    """What this process is to keep. Nothing is given up before :meth:`restrict`.

    Attributes:
        abi: The kernel's ABI.
        descriptor: The ruleset's.
    """

    def __init__(self, *, ports: bool, abi: int | None = None) -> None:
        """``ports``: TCP ports are given up, too, where the kernel can.

        Raises OSError where there is no Landlock.
        """
        self.abi = find_abi() if abi is None else abi
        self._files = handle_files(self.abi)
        handled = struct.pack("=Q", self._files)
        if self.abi >= 4:
            handled += struct.pack("=Q", BIND_TCP | CONNECT_TCP if ports else 0)
        if self.abi >= 6:
            handled += struct.pack("=Q", SCOPES)
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._ports = ports and self.abi >= 4
        self.descriptor = self._call(CREATE, handled, ctypes.c_size_t(len(handled)), 0)

    def _call(self, number: int, *arguments: object) -> int:
        """Make a system call. Raises OSError."""
        answer = int(self._libc.syscall(number, *arguments))
        if answer < 0:
            problem = ctypes.get_errno()
            raise OSError(problem, f"Landlock: {os.strerror(problem)}")
        return answer

    def allow_path(self, path: str, rights: int) -> None:
        """Keep ``rights`` on a file, or on a folder and all below it. Nothing where it is absent,
        or cannot be reached."""
        try:
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except UNREACHABLE:
            return
        try:
            rights &= self._files
            if os.fstat(descriptor).st_mode & KIND != FOLDER:
                rights &= OF_FILES
            if rights:
                rule = struct.pack("=Qi", rights, descriptor)
                self._call(ADD, self.descriptor, PATH, rule, 0)
        finally:
            os.close(descriptor)

    def allow_paths(self, paths: Iterable[str], rights: int) -> None:
        """Keep ``rights`` on each of ``paths``."""
        for path in paths:
            self.allow_path(path, rights)

    def allow_port(self, port: int, rights: int) -> None:
        """Keep a TCP port to be bound or connected to; 0 to be bound is any that is free."""
        if self._ports:
            self._call(ADD, self.descriptor, PORT, struct.pack("=QQ", rights, port), 0)

    def restrict(self) -> None:
        """Give up all else, in this thread and what it starts.

        Raises OSError, also where the process could still gain privileges (PR_SET_NO_NEW_PRIVS).
        """
        self._call(RESTRICT, self.descriptor, 0)
        os.close(self.descriptor)
