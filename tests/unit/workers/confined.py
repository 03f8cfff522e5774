"""Runs a function in a confined child of the test, and returns what came of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import pytest

from mconv.workers import confine, landlock, seccomp
from mconv.workers.confine import Confinement

SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/proc", "/sys", sys.base_prefix, sys.prefix)
needs_landlock = pytest.mark.skipif(landlock.find_abi() < 1, reason="the kernel has no Landlock")
needs_seccomp = pytest.mark.skipif(not seccomp.is_supported(), reason="calls are not filtered here")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give users")


def run_confined(confinement: Confinement, work: Callable[[], object]) -> str:
    """Return the repr of what ``work`` returns in the child, else the name of its exception."""
    reader, writer = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            confine.apply(confinement, parent)
            said = repr(work())
        except BaseException as problem:
            said = type(problem).__name__
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(pid, 0)
    return said
