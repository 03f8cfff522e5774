"""How a child gives up what it has, and that it cannot get it back."""

from __future__ import annotations

import ctypes
import os
import resource
from pathlib import Path

import pytest

from mconv.workers import confine, seccomp
from mconv.workers.confine import FREE, Confinement
from tests.unit.workers.confined import SYSTEM, needs_root, needs_seccomp, run_confined

FIRST, LAST = 20000, 59999


def read_status(*names: str) -> list[str]:
    fields = dict(
        line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines()
    )
    return [fields[name].strip() for name in names]


def test_it_reaches_its_child_as_it_was_written() -> None:
    given = Confinement(
        uid=7, files=True, readable=["/usr"], writable=["/é"], ports=[80], calls=b"\0\1"
    )
    read, env = Confinement.from_bytes(given.to_bytes({"A": "ü"}))
    assert env == {"A": "ü"}
    assert all(getattr(read, name) == getattr(given, name) for name in Confinement.__slots__)


def test_no_privilege_can_be_gained_and_no_core_is_left() -> None:
    said = run_confined(
        FREE, lambda: (read_status("NoNewPrivs"), resource.getrlimit(resource.RLIMIT_CORE))
    )
    assert said == "(['1'], (0, 0))"
    assert run_confined(FREE, lambda: ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)) == "0"  # dumpable


def test_one_whose_parent_is_gone_does_not_begin() -> None:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            confine.apply(FREE, os.getppid() + 1)
        except OSError:
            os.write(writer, b"refused")
        os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    assert os.read(reader, 10) == b"refused"
    os.close(reader)


@needs_root
def test_a_user_of_its_own_has_no_group_and_no_capability() -> None:
    own = Confinement(uid=FIRST)

    def describe() -> object:
        return os.getresuid(), os.getresgid(), os.getgroups(), read_status("CapPrm", "CapEff")

    none = "0000000000000000"
    ids = (FIRST,) * 3
    assert run_confined(own, describe) == repr((ids, ids, [], [none, none]))
    assert run_confined(own, lambda: os.setuid(0)) == "PermissionError"
    limit = lambda: resource.getrlimit(resource.RLIMIT_NPROC)[1] <= confine.MOST_PROCESSES  # noqa: E731
    assert run_confined(own, limit) == "True"


@needs_root
@needs_seccomp
def test_a_server_gives_users_of_the_range_and_becomes_root_never() -> None:
    rules = seccomp.make_base_rules() | seccomp.make_identity_rules(FIRST, LAST)
    server = Confinement(uid=FIRST, serves=True, calls=seccomp.compile_rules(rules))
    kept = 1 << confine.CAP_SETUID | 1 << confine.CAP_SETGID
    capabilities = run_confined(server, lambda: read_status("CapPrm", "CapAmb"))
    assert capabilities == repr([f"{kept:016x}"] * 2)

    def become(uid: int) -> object:
        confine.take_user(uid)
        return os.getresuid(), read_status("CapPrm")

    assert run_confined(server, lambda: become(FIRST + 1)) == repr(((FIRST + 1,) * 3, ["0" * 16]))
    assert run_confined(server, lambda: become(0)) == "PermissionError"
    assert run_confined(server, lambda: become(LAST + 1)) == "PermissionError"
    assert run_confined(server, lambda: os.chown("/", 1, 1)) == "PermissionError"


@needs_root
def test_one_that_stays_root_changes_no_file_of_another(tmp_path: Path) -> None:
    """It keeps the privilege to read, which Landlock holds, and no other."""
    if not confine.landlock.find_abi():
        pytest.skip("the kernel has no Landlock")
    path = tmp_path / "own"
    path.mkdir()
    path.chmod(0o700)
    os.chown(path, FIRST, FIRST)
    rules = Confinement(files=True, readable=SYSTEM, writable=[str(path)])
    assert run_confined(rules, lambda: os.listdir(path)) == "[]"
    assert run_confined(rules, lambda: (path / "x").write_text("x")) == "PermissionError"


@needs_root
def test_one_that_stays_root_begins_without_privileges_that_a_container_lacks() -> None:
    """Docker's default capabilities have none to read all files."""
    rules = Confinement(files=bool(confine.landlock.find_abi()), readable=SYSTEM)

    def begin_without() -> str:
        confine._set_capabilities(1 << 0)
        return run_confined(rules, lambda: read_status("CapPrm"))

    assert run_confined(Confinement(), begin_without).count("0" * 16) == 1
