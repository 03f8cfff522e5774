"""Probes for what is secret."""

import contextlib
import ctypes
import glob
import os
import resource
import stat

from probing import (
    HERE,
    LIBC,
    call,
    call_library,
    list_others,
    main,
    probe,
    reach_any,
    read_targets,
)
from probing import report as build  # noqa: F401 (the factory)

TARGETS = read_targets()
CANARY = b"CANARY"
PTRACE_SEIZE, PTRACE_DETACH = 0x4206, 17
NEW_USER = 0x10000000


def read(path):
    with open(path, "rb") as file:
        return file.read(2**20)


@probe
def environment_of_others():
    return reach_any(lambda pid: CANARY in read(f"/proc/{pid}/environ"), list_others())


@probe
def own_environment():
    return [
        name
        for name, value in os.environ.items()
        if "CANARY" in value or name.startswith(("INPUT_", "GITHUB_", "ACTIONS_"))
    ]


@probe
def memory_of_others():
    return reach_any(lambda pid: open(f"/proc/{pid}/mem", "rb"), list_others())


@probe
def maps_of_others():
    return reach_any(lambda pid: read(f"/proc/{pid}/maps"), list_others())


@probe
def descriptors_of_others():
    return reach_any(lambda pid: os.readlink(f"/proc/{pid}/fd/0"), list_others())


@probe
def files_by_the_root_of_others():
    return reach_any(lambda pid: read(f"/proc/{pid}/root/etc/hostname"), list_others())


@probe
def folders_of_others():
    return reach_any(lambda pid: os.listdir(f"/proc/{pid}/cwd"), list_others())


@probe
def stacks_of_others():
    return reach_any(lambda pid: read(f"/proc/{pid}/syscall"), list_others())


@probe
def memory_by_call():
    """A place that is not there is an error of its own, after access was granted."""

    def look(pid):
        place = (ctypes.c_ulong * 2)(4096, 1)
        try:
            call("process_vm_readv", pid, ctypes.byref(place), 1, ctypes.byref(place), 1, 0)
        except OSError as problem:
            return problem.errno == 14  # EFAULT
        return True

    return reach_any(look, list_others())


@probe
def trace_of_others():
    def seize(pid):
        if LIBC.ptrace(PTRACE_SEIZE, pid, None, None) < 0:
            return False
        LIBC.ptrace(PTRACE_DETACH, pid, None, None)
        return True

    return reach_any(seize, list_others())


@probe
def descriptor_by_call():
    return reach_any(
        lambda pid: call("pidfd_getfd", call("pidfd_open", pid, 0), 0, 0) > 0, list_others()
    )


@probe
def comparison_with_others():
    return reach_any(lambda pid: call("kcmp", pid, pid, 2, 0, 0) == 0, list_others())


@probe
def own_descriptors():
    """Sockets, folders, and files that can be written."""
    strange = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            kind = os.fstat(int(name)).st_mode
            path = os.readlink(f"/proc/self/fd/{name}")
            folder = stat.S_ISDIR(kind) and not path.startswith("/proc/")
            written = stat.S_ISREG(kind) and LIBC.fcntl(int(name), 3) & 3
            if stat.S_ISSOCK(kind) or folder or written:
                strange.append(path)
    return strange


@probe
def token_of_the_checkout():
    paths = [
        os.path.join(HERE, ".git", "config"),
        os.path.join(HERE, "sub", ".git", "config"),
        os.path.join(HERE, "checkout", "config"),
        "/proc/self/cwd/../../../../.git/config",
        *glob.glob(HERE + "/.git/*"),
    ]
    return reach_any(read, paths)


@probe
def files_of_the_runner():
    return reach_any(read, TARGETS["runner"])


@probe
def secret_file():
    return CANARY in read(TARGETS["secret"])


@probe
def secret_by_a_link():
    return CANARY in read(os.path.join(HERE, "linked"))


@probe
def secret_by_a_link_to_its_folder():
    return CANARY in read(os.path.join(HERE, "un" + "spoken", "secret"))


@probe
def secret_by_a_hard_link():
    place = os.path.join(TARGETS.get("writable") or os.path.expanduser("~"), "hard")
    os.link(TARGETS["secret"], place)
    return CANARY in read(place)


@probe
def secret_by_its_path_alone():
    place = os.open(TARGETS["secret"], os.O_PATH)
    return CANARY in read(f"/proc/self/fd/{place}")


@probe
def secret_of_another_process():
    return CANARY in read("/proc/1/root" + TARGETS["secret"])


@probe
def names_beside_the_secret():
    return os.listdir(os.path.dirname(TARGETS["secret"]))


@probe
def home_of_the_user():
    return CANARY in read(os.path.join(TARGETS["home"], ".netrc"))


@probe
def temporary_files_of_others():
    return os.listdir("/tmp")


@probe
def handle_of_a_file():
    """A file by its inode, past its folders."""
    handle = ctypes.create_string_buffer(136)
    handle[0:4] = (128).to_bytes(4, "little")
    mount = ctypes.c_int()
    path = TARGETS["secret"].encode()
    call("name_to_handle_at", -100, path, handle, ctypes.byref(mount), 0)
    return True


@probe
def keys():
    return call("keyctl", 0, -3, 1) > 0


@probe
def new_key():
    return call("add_key", b"user", b"mconv", b"x", 1, -3) > 0


@probe
def core_dumps():
    return any(resource.getrlimit(resource.RLIMIT_CORE))


@probe
def new_privileges():
    status = read("/proc/self/status").decode()
    return "NoNewPrivs:\t1" not in status and "programs gain privileges"


@probe
def capabilities():
    lines = read("/proc/self/status").decode().splitlines()
    return [
        line
        for line in lines
        if line.startswith(("CapEff", "CapPrm", "CapAmb")) and int(line.split()[1], 16)
    ]


@probe
def user_namespace():
    pid = os.fork()
    if pid == 0:
        os._exit(0 if LIBC.unshare(NEW_USER) == 0 else 1)
    return os.waitpid(pid, 0)[1] == 0


@probe
def user_namespace_by_clone():
    """struct clone_args: flags first, the signal at its end fifth."""
    arguments = (ctypes.c_ulong * 8)(NEW_USER, 0, 0, 0, 17, 0, 0, 0)
    pid = call("clone3", ctypes.byref(arguments), ctypes.sizeof(arguments))
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return True


@probe
def programs_in_the_kernel():
    attributes = (ctypes.c_ulong * 16)(1, 0)
    try:
        call("bpf", 5, ctypes.byref(attributes), ctypes.sizeof(attributes))
    except OSError as problem:
        return problem.errno not in (1, 38)  # EPERM, ENOSYS
    return True


@probe
def faults_of_pages():
    return call("userfaultfd", 1) > 0


@probe
def events_of_others():
    attributes = (ctypes.c_uint * 32)(1, 128)
    return reach_any(
        lambda pid: call("perf_event_open", ctypes.byref(attributes), pid, -1, -1, 0) > 0,
        list_others(),
    )


@probe
def roots():
    return call_library("chroot", HERE.encode()) == 0


@probe
def mounts():
    return call_library("mount", b"none", HERE.encode(), b"tmpfs", 0, None) == 0


if __name__ == "__main__":
    main()
