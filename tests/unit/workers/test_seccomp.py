"""System calls that are refused: the compiled programs by an interpreter of their own, and by the
kernel on real calls."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from mconv.workers import seccomp
from mconv.workers.confine import Confinement
from tests.unit.workers.confined import needs_seccomp, run_confined

ALLOWED = seccomp.ALLOW


def interpret(program: bytes, number: int, arguments: tuple[int, ...], machine: str) -> int:
    """Return what a program of classic BPF says to a system call."""
    padded = (*arguments, *[0] * (6 - len(arguments)))
    data = struct.pack("=iIQ6Q", number, seccomp.MASKS[machine], 0, *padded)
    code = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    value = at = 0
    while True:
        opcode, if_true, if_false, constant = code[at]
        at += 1
        if opcode == seccomp.LOAD:
            value = struct.unpack_from("=I", data, constant)[0]
        elif opcode == seccomp.AND:
            value &= constant
        elif opcode == seccomp.RETURN:
            return int(constant)
        else:
            holds = {
                seccomp.JUMP_EQUAL: value == constant,
                seccomp.JUMP_ABOVE: value > constant,
                seccomp.JUMP_AT_LEAST: value >= constant,
            }[opcode]
            at += if_true if holds else if_false


def ask(rules: Mapping[str, seccomp.Rule], name: str, *arguments: int) -> set[int]:
    """Return what rules say to a call, on every architecture that has it."""
    answers = set()
    for index, machine in enumerate(seccomp.MASKS):
        number = seccomp.NUMBERS[name][index]
        if number is not None:
            program = seccomp.compile_rules(rules, machine)
            answers.add(interpret(program, number, arguments, machine))
    return answers


def refusal(number: int) -> set[int]:
    return {seccomp.ERRNO | number}


STREAM, DATAGRAM, RAW, PACKETS = 1, 2, 3, 5
CLOEXEC = 0o2000000
UNIX, INET, INET6, NETLINK, PACKET, VSOCK = 1, 2, 10, 16, 17, 40
MPTCP, SCTP = 262, 132


@pytest.mark.parametrize(
    ("network", "call", "passes"),
    [
        ("none", ("socket", INET, STREAM, 0), False),
        ("none", ("socket", UNIX, STREAM, 0), False),
        ("none", ("connect", 3), False),
        ("none", ("socketpair", UNIX, STREAM | CLOEXEC, 0), True),
        ("none", ("socketpair", UNIX, PACKETS, 0), True),
        ("none", ("socketpair", UNIX, DATAGRAM, 0), False),
        ("none", ("socketpair", INET, STREAM, 0), False),
        ("loopback", ("socket", INET, STREAM | CLOEXEC, 0), True),
        ("loopback", ("socket", INET6, STREAM, 6), True),
        ("loopback", ("socket", INET, STREAM, MPTCP), False),
        ("loopback", ("socket", INET, STREAM, SCTP), False),
        ("loopback", ("socket", INET, DATAGRAM, 0), False),
        ("loopback", ("socket", INET, RAW, 1), False),
        ("loopback", ("socket", UNIX, STREAM, 0), False),
        ("loopback", ("socket", NETLINK, RAW, 0), False),
        ("loopback", ("connect", 3), True),
        ("loopback", ("sendto", 3, 0, 0, 0), True),
        ("loopback", ("sendto", 3, 0, 0, seccomp.MSG_FASTOPEN), False),
        ("loopback", ("sendmsg", 3, 0, seccomp.MSG_FASTOPEN | 0x4000), False),
        ("loopback", ("sendmmsg", 3, 0, 0, seccomp.MSG_FASTOPEN), False),
        ("open", ("socket", INET, DATAGRAM | CLOEXEC, 0), True),
        ("open", ("socket", INET6, STREAM, 0), True),
        ("open", ("socket", UNIX, STREAM, 0), False),
        ("open", ("socket", NETLINK, RAW, 0), False),
        ("open", ("socket", PACKET, RAW, 0), False),
        ("open", ("socket", VSOCK, STREAM, 0), False),
        ("open", ("socket", INET, RAW, 1), False),
    ],
)
def test_sockets(network: str, call: tuple[str, int], passes: bool) -> None:
    wanted = {ALLOWED} if passes else refusal(errno.EACCES)
    assert ask(seccomp.make_network_rules(network), *call) == wanted


def test_the_base_rules() -> None:
    rules = seccomp.make_base_rules()
    for name in seccomp.ALWAYS:
        assert ask(rules, name) == refusal(errno.EPERM)
    for name in ("io_uring_setup", "io_uring_enter", "io_uring_register", "clone3"):
        assert ask(rules, name) == refusal(errno.ENOSYS)
    assert ask(rules, "clone", 0x3D0F00) == {ALLOWED}, "a thread"
    for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert ask(rules, "clone", 0x3D0F00 | flag) == refusal(errno.EPERM)
    assert ask(rules, "prlimit64", 0) == {ALLOWED}
    assert ask(rules, "prlimit64", 4711) == refusal(errno.EPERM)


def test_processes_and_files_of_the_same_user_are_left_alone() -> None:
    rules = seccomp.make_shared_user_rules()
    for name in seccomp.SCHEDULES:
        assert ask(rules, name, 0) == {ALLOWED}
        assert ask(rules, name, 4711) == refusal(errno.EPERM)
    assert ask(rules, "sched_setaffinity", 0) == {ALLOWED}
    assert ask(rules, "sched_setaffinity", 4711) == refusal(0)
    assert ask(rules, "setpriority", 0, 0) == {ALLOWED}
    for which, who in ((0, 4711), (1, 0), (2, 0)):
        assert ask(rules, "setpriority", which, who) == refusal(errno.EPERM)
    assert ask(rules, "ioprio_set", 1, 0) == {ALLOWED}
    for which, who in ((1, 4711), (2, 0), (3, 0)):
        assert ask(rules, "ioprio_set", which, who) == refusal(errno.EPERM)
    assert ask(rules, "fcntl", 3, 1024) == refusal(errno.EPERM)
    for command in (0, 1, 3, 1023, 1025, 1030, 1033):
        assert ask(rules, "fcntl", 3, command) == {ALLOWED}


def test_a_server_takes_users_of_its_range_alone() -> None:
    rules = seccomp.make_identity_rules(20000, 59999)
    for name in ("setresuid", "setresgid"):
        assert ask(rules, name, 20000, 59999, 30000) == {ALLOWED}
        for wrong in ((0, 20000, 20000), (20000, 0, 20000), (20000, 20000, 0), (60000,) * 3):
            assert ask(rules, name, *wrong) == refusal(errno.EPERM)
        assert ask(rules, name, 2**32 - 1, 20000, 20000) == refusal(errno.EPERM)
    assert ask(rules, "setuid", 20000) == refusal(errno.EPERM)
    assert ask(rules, "setgroups", 0) == {ALLOWED}
    assert ask(rules, "setgroups", 1) == refusal(errno.EPERM)


def test_numbers_of_another_interface_pass_by_no_rule() -> None:
    program = seccomp.compile_rules(seccomp.make_base_rules(), "x86_64")
    assert interpret(program, 0x40000000 | 101, (), "x86_64") == seccomp.ERRNO | errno.ENOSYS
    foreign = struct.pack("=iIQ6Q", 26, 0x40000003, 0, *[0] * 6)  # ptrace by numbers of i386
    code = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    assert struct.unpack_from("=I", foreign, code[0][3])[0] != code[1][3]
    assert code[2] == (seccomp.RETURN, 0, 0, seccomp.KILL)


def test_numbers_are_those_of_libseccomp() -> None:
    """An independent table of them, where it is installed."""
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        pytest.skip("libseccomp is not installed")
    library.seccomp_syscall_resolve_name_arch.argtypes = [ctypes.c_uint32, ctypes.c_char_p]
    for name, numbers in seccomp.NUMBERS.items():
        for mask, number in zip(seccomp.MASKS.values(), numbers, strict=True):
            known = library.seccomp_syscall_resolve_name_arch(mask, name.encode())
            assert known < 0 or known == number, name
            assert number is None or known >= 0 or number >= 440, name  # newer than the library


def filtered(rules: Mapping[str, seccomp.Rule]) -> Confinement:
    return Confinement(calls=seccomp.compile_rules(rules))


@needs_seccomp
def test_the_kernel_refuses_what_the_program_does(tmp_path: Path) -> None:
    rules = seccomp.make_base_rules() | seccomp.make_network_rules("none")
    closed = filtered(rules)
    assert run_confined(closed, socket.socket) == "PermissionError"
    assert run_confined(closed, lambda: bool(socket.socketpair())) == "True"
    kind = socket.SOCK_DGRAM
    assert run_confined(closed, lambda: socket.socketpair(type=kind)) == "PermissionError"
    command = ["/usr/bin/unshare", "--user", "true"]
    quiet = subprocess.DEVNULL
    assert run_confined(closed, lambda: subprocess.run(command, stderr=quiet).returncode) == "1"
    libc = ctypes.CDLL(None, use_errno=True)

    def call(name: str) -> int:
        number = seccomp.NUMBERS[name][list(seccomp.MASKS).index(os.uname().machine)]
        libc.syscall(number, 8, 0, 0, 0)
        return ctypes.get_errno()

    assert run_confined(closed, lambda: call("io_uring_setup")) == str(errno.ENOSYS)
    assert run_confined(closed, lambda: call("ptrace")) == str(errno.EPERM)

    def start_thread() -> str:
        said: list[str] = []
        thread = threading.Thread(target=said.append, args=("it runs",))
        thread.start()
        thread.join()
        return said[0]

    assert run_confined(closed, start_thread) == "'it runs'"
    run_python = [sys.executable, "-I", "-S", "-c", "print(1)"]
    output = lambda: subprocess.run(run_python, capture_output=True).stdout  # noqa: E731
    assert run_confined(closed, output) == repr(b"1\n")


@needs_seccomp
def test_modes_and_times_look_changed_and_are_not(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    path.chmod(0o640)
    before = path.stat()
    shared = filtered(seccomp.make_shared_user_rules())

    def change() -> None:
        path.chmod(0o777)
        os.utime(path, (1, 1))

    assert run_confined(shared, change) == "None"
    assert run_confined(shared, lambda: os.chown(path, 1, 1)) == "PermissionError"
    assert run_confined(shared, lambda: os.truncate(path, 0)) == "PermissionError"
    after = path.stat()
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
