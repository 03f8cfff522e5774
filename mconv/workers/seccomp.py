"""Filters of system calls, for what Landlock cannot refuse (seccomp(2)).

A filter is a program of classic BPF that the kernel runs before each system call. It sees numbers,
not what pointers point at: neither paths nor addresses. So whole kinds of sockets are refused, and
what works on paths by its name alone. The parent compiles a filter; the child
(:mod:`mconv.workers.confine`) puts itself under it.
"""

from __future__ import annotations

import errno
import os
import platform
import socket
import struct
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

# opcodes of classic BPF (linux/bpf_common.h)
LOAD, AND, JUMP_EQUAL, JUMP_ABOVE, JUMP_AT_LEAST, RETURN = 0x20, 0x54, 0x15, 0x25, 0x35, 0x06
ALLOW, ERRNO, KILL = 0x7FFF0000, 0x00050000, 0x80000000
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
X32 = 0x40000000  # calls of x86-64's other interface; their numbers would pass by every rule
TYPE_BITS = 0xF  # of a socket's type; the others say how it is opened
TCP = 6
AVAILABLE = "/proc/sys/kernel/seccomp/actions_avail"  # where the kernel has filters
MSG_FASTOPEN = 0x20000000  # connects without connect(2)
# CLONE_NEWNS, and from CLONE_NEWCGROUP to CLONE_NEWNET
NAMESPACES = 0x00020000 | 0x02000000 | 0x7C000000
MASKS: dict[str, int] = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_…

# numbers on x86-64 and on arm64, whose oldest calls have none
NUMBERS: dict[str, tuple[int | None, int | None]] = {
    "socket": (41, 198),
    "socketpair": (53, 199),
    "bind": (49, 200),
    "listen": (50, 201),
    "connect": (42, 203),
    "sendto": (44, 206),
    "sendmsg": (46, 211),
    "sendmmsg": (307, 269),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "clone": (56, 220),
    "clone3": (435, 435),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "perf_event_open": (298, 241),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "kexec_load": (246, 104),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "acct": (163, 89),
    "swapon": (167, 224),
    "mq_open": (240, 180),
    "msgget": (68, 186),
    "semget": (64, 190),
    "shmget": (29, 194),
    "truncate": (76, 45),
    "prlimit64": (302, 261),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "setxattrat": (463, 463),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "removexattrat": (466, 466),
    "fcntl": (72, 25),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "sched_setaffinity": (203, 122),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
    "setuid": (105, 146),
    "setgid": (106, 144),
    "setreuid": (113, 145),
    "setregid": (114, 143),
    "setresuid": (117, 147),
    "setresgid": (119, 149),
    "setfsuid": (122, 151),
    "setfsgid": (123, 152),
    "setgroups": (116, 159),
}


class Test(NamedTuple):
    """A test of one argument, of which the lower 32 bits are looked at.

    Attributes:
        argument: Which argument, from 0.
        mask: The bits that count.
        least: The least value that passes.
        most: The largest value that passes.
    """

    argument: int
    mask: int
    least: int
    most: int


# A call is refused with the errno, unless every test of one of the alternatives passes.
Rule = tuple[int, Sequence[Sequence[Test]]]
NEVER: Sequence[Sequence[Test]] = ()


ANY = 0xFFFFFFFF


def equals(argument: int, value: int, mask: int = ANY) -> Test:
    """Return the test that an argument's bits under ``mask`` are ``value``."""
    return Test(argument, mask, value, value)


# No worker needs them. They reach other processes, kernel interfaces that run around these filters,
# or what outlives the process.
ALWAYS = (
    *("unshare", "setns", "mount", "umount2", "pivot_root", "chroot", "open_tree", "move_mount"),
    *("fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr", "ptrace", "process_vm_readv"),
    *("process_vm_writev", "process_madvise", "process_mrelease", "pidfd_getfd", "kcmp"),
    *("perf_event_open", "bpf", "userfaultfd", "name_to_handle_at", "open_by_handle_at"),
    *("fanotify_init", "quotactl", "quotactl_fd", "add_key", "request_key", "keyctl"),
    *("kexec_load", "init_module", "finit_module", "delete_module", "reboot", "acct", "swapon"),
    *("mq_open", "msgget", "semget", "shmget", "migrate_pages", "move_pages"),
)
# what has a fallback where a kernel is old
ABSENT = ("io_uring_setup", "io_uring_enter", "io_uring_register", "clone3")
MODES = ("chmod", "fchmod", "fchmodat", "fchmodat2", "utime", "utimes", "futimesat", "utimensat")
OWNERS = ("chown", "fchown", "lchown", "fchownat")
SCHEDULES = ("sched_setscheduler", "sched_setparam", "sched_setattr")
F_SETLEASE = 1024
IOPRIO_WHO_PROCESS = 1
ATTRIBUTES = ("setxattr", "lsetxattr", "fsetxattr", "setxattrat")
REMOVED_ATTRIBUTES = ("removexattr", "lremovexattr", "fremovexattr", "removexattrat")


def make_base_rules() -> dict[str, Rule]:
    """Return what every child is refused."""
    rules: dict[str, Rule] = dict.fromkeys(ALWAYS, (errno.EPERM, NEVER))
    rules |= dict.fromkeys(ABSENT, (errno.ENOSYS, NEVER))
    rules["clone"] = (errno.EPERM, [[equals(0, 0, NAMESPACES)]])
    rules["prlimit64"] = (errno.EPERM, [[equals(0, 0)]])  # of the calling process alone
    return rules


def make_shared_user_rules() -> dict[str, Rule]:
    """Return what a child is refused that has the user of whose files it may not change.

    Landlock leaves modes, times and attributes alone. Changes of modes and times look as if they
    were made, since copying a file changes them last.
    """
    rules: dict[str, Rule] = dict.fromkeys(MODES, (0, NEVER))
    rules |= dict.fromkeys((*OWNERS, "truncate"), (errno.EPERM, NEVER))
    rules |= dict.fromkeys((*ATTRIBUTES, *REMOVED_ATTRIBUTES), (errno.ENOTSUP, NEVER))
    # nor may it hold up the user's other processes: it sets its own priority and processors alone
    rules |= dict.fromkeys(SCHEDULES, (errno.EPERM, [[equals(0, 0)]]))
    # engines set processors for threads of their own by number; it looks done
    rules["sched_setaffinity"] = (0, [[equals(0, 0)]])
    rules["setpriority"] = (errno.EPERM, [[equals(0, 0), equals(1, 0)]])
    rules["ioprio_set"] = (errno.EPERM, [[equals(0, IOPRIO_WHO_PROCESS), equals(1, 0)]])
    other_commands = [[Test(1, ANY, 0, F_SETLEASE - 1)], [Test(1, ANY, F_SETLEASE + 1, ANY)]]
    rules["fcntl"] = (errno.EPERM, other_commands)
    return rules


def make_memory_rules() -> dict[str, Rule]:
    """Return what a child is refused whose memory is counted: files in memory, which belong to no
    process that they could be counted for."""
    return dict.fromkeys(("memfd_create", "memfd_secret"), (errno.ENOSYS, NEVER))


def make_network_rules(network: str) -> dict[str, Rule]:
    """Return what a child is refused of sockets.

    ``network`` is ``none``; ``loopback``, TCP whose ports Landlock holds; or ``open``, the internet
    protocols. Sockets in the file system (Docker's) are in none of them, nor datagrams of pairs,
    which can be connected to such.
    """
    stream = equals(1, socket.SOCK_STREAM, TYPE_BITS)
    pairs = (
        [equals(0, socket.AF_UNIX), stream],
        [
            equals(0, socket.AF_UNIX),
            equals(1, int(socket.SOCK_SEQPACKET), TYPE_BITS),
        ],
    )
    rules: dict[str, Rule] = {"socketpair": (errno.EACCES, pairs)}
    internet = [equals(0, int(family)) for family in (socket.AF_INET, socket.AF_INET6)]
    plain_tcp = [[family, stream, equals(2, 0)] for family in internet]
    named_tcp = [[family, stream, equals(2, TCP)] for family in internet]
    if network == "none":
        rules |= dict.fromkeys(("socket", "connect", "bind", "listen"), (errno.EACCES, NEVER))
        return rules
    if network == "loopback":
        # other protocols than TCP, and connections without connect(2), pass Landlock by
        rules["socket"] = (errno.EACCES, plain_tcp + named_tcp)
        for name, argument in (("sendto", 3), ("sendmsg", 2), ("sendmmsg", 3)):
            rules[name] = (errno.EACCES, [[equals(argument, 0, MSG_FASTOPEN)]])
        return rules
    datagram = equals(1, socket.SOCK_DGRAM, TYPE_BITS)
    kinds = [[family, kind] for family in internet for kind in (stream, datagram)]
    rules["socket"] = (errno.EACCES, kinds)
    return rules


def make_identity_rules(least: int, most: int) -> dict[str, Rule]:
    """Return what a server is refused that may take identities: all but users and groups of the
    range."""
    within = [[Test(argument, ANY, least, most) for argument in range(3)]]
    rules: dict[str, Rule] = dict.fromkeys(("setresuid", "setresgid"), (errno.EPERM, within))
    rules |= dict.fromkeys(
        ("setuid", "setgid", "setreuid", "setregid", "setfsuid", "setfsgid"), (errno.EPERM, NEVER)
    )
    rules["setgroups"] = (errno.EPERM, [[equals(0, 0)]])  # none
    return rules


def is_supported(machine: str | None = None) -> bool:
    """Return whether calls are filtered on this system, or one of the architecture ``machine``."""
    filters = sys.platform.startswith("linux") and os.path.exists(AVAILABLE)
    return filters and (machine or platform.machine()) in MASKS


def compile_rules(rules: Mapping[str, Rule], machine: str | None = None) -> bytes:
    """Return the program of classic BPF for ``rules`` on an architecture, by default this one's.

    Calls that no rule names are allowed. A call by the numbers of another architecture ends the
    process.
    """
    machine = machine or platform.machine()
    program = [
        (LOAD, 0, 0, ARCHITECTURE),
        (JUMP_EQUAL, 1, 0, MASKS[machine]),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER),
    ]
    if machine == "x86_64":
        program += [(JUMP_ABOVE, 0, 1, X32 - 1), (RETURN, 0, 0, ERRNO | errno.ENOSYS)]
    for name, rule in rules.items():
        number = NUMBERS[name][list(MASKS).index(machine)]
        if number is not None:
            body = _compile_rule(rule)
            # a jump reaches 255 instructions; bodies are shorter, and followed by RETURN alone
            program += [(JUMP_EQUAL, 0, len(body), number), *body]
    program.append((RETURN, 0, 0, ALLOW))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def _compile_rule(rule: Rule) -> list[tuple[int, int, int, int]]:
    """Return the instructions that end a call that was found, one way or the other."""
    refusal, alternatives = rule
    body: list[tuple[int, int, int, int]] = []
    for tests in alternatives:
        block: list[tuple[int, int, int, int]] = []
        # from the last test to the first, so that each knows how far the next alternative is
        for test in reversed(tests):
            after = len(block) + 1  # the instructions behind this test, and the alternative's end
            low = ARGUMENTS + 8 * test.argument
            block = [
                (LOAD, 0, 0, low),
                (AND, 0, 0, test.mask),
                (JUMP_ABOVE, after + (1 if test.least else 0), 0, test.most),
                *([(JUMP_AT_LEAST, 0, after, test.least)] if test.least else []),
                *block,
            ]
        body += [*block, (RETURN, 0, 0, ALLOW)]
    return [*body, (RETURN, 0, 0, ERRNO | refusal)]
