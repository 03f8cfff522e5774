"""Probes for places that it may not change."""

import contextlib
import fcntl
import glob
import os
import stat
import sys

from probing import HERE, call, list_others, main, probe, reach_any, read_targets
from probing import report as build  # noqa: F401 (the factory)

TARGETS = read_targets()
HOME = os.path.expanduser("~")
SPACE = os.path.dirname(HOME)
OTHER = os.path.join(HERE, "honest.py")  # the code of another model
SET_LEASE, WRITE_LEASE, NO_LEASE = 1024, 1, 2


def create(folder):
    """Make a file, by a name that nothing reads."""
    path = os.path.join(folder, f"mconv-attack-{os.getpid()}")
    with open(path, "x"):
        pass
    with contextlib.suppress(OSError):
        os.unlink(path)
    return True


def append(path):
    with open(path, "a"):
        return True


@probe
def code_of_another_model():
    return append(OTHER)


@probe
def own_code():
    """It runs again in its other steps."""
    return append(os.path.join(HERE, "writing.py"))


@probe
def manifest():
    return append(os.path.join(HERE, "models.yml"))


@probe
def file_beside_the_manifest():
    return create(HERE)


@probe
def folder_beside_the_manifest():
    os.mkdir(os.path.join(HERE, "numpy"))
    os.rmdir(os.path.join(HERE, "numpy"))
    return True


@probe
def compiled_code():
    return create(os.path.join(HERE, "__pycache__"))


@probe
def file_renamed():
    os.rename(OTHER, OTHER + ".old")
    os.rename(OTHER + ".old", OTHER)
    return True


@probe
def file_removed():
    os.unlink(os.path.join(HERE, "removable"))
    return True


@probe
def file_hard_linked():
    path = os.path.join(TARGETS.get("writable") or HOME, "linked")
    os.link(OTHER, path)
    return os.stat(path).st_nlink > 1


@probe
def file_truncated():
    os.truncate(OTHER, os.path.getsize(OTHER))
    return True


@probe
def mode_of_a_file():
    mode = stat.S_IMODE(os.stat(OTHER).st_mode)
    os.chmod(OTHER, mode ^ 0o002)
    changed = stat.S_IMODE(os.stat(OTHER).st_mode) != mode
    os.chmod(OTHER, mode)
    return changed


@probe
def mode_by_a_descriptor():
    mode = stat.S_IMODE(os.stat(OTHER).st_mode)
    with open(OTHER) as file:
        os.fchmod(file.fileno(), mode ^ 0o002)
        changed = stat.S_IMODE(os.stat(OTHER).st_mode) != mode
        os.fchmod(file.fileno(), mode)
    return changed


@probe
def time_of_a_file():
    before = os.stat(OTHER).st_mtime_ns
    os.utime(OTHER, (1, 1))
    return os.stat(OTHER).st_mtime_ns != before


@probe
def owner_of_a_file():
    os.chown(OTHER, os.getuid(), os.getgid())
    return True


@probe
def attribute_of_a_file():
    os.setxattr(OTHER, "user.mconv", b"x")
    return True


@probe
def lease_on_a_file():
    """Whoever opens the file then waits for as long as /proc/sys/fs/lease-break-time says."""
    with open(os.path.join(HERE, "leased")) as file:
        fcntl.fcntl(file, SET_LEASE, WRITE_LEASE)
        fcntl.fcntl(file, SET_LEASE, NO_LEASE)
    return True


@probe
def packages():
    folders = {path for path in sys.path if os.path.isdir(path) and path != HERE}
    folders |= {sys.prefix, sys.base_prefix, os.path.dirname(os.__file__)}
    return reach_any(create, sorted(folders))


@probe
def mconv_itself():
    return reach_any(append, TARGETS["code"]) or reach_any(
        create, [os.path.dirname(path) for path in TARGETS["code"]]
    )


@probe
def store():
    folders = [TARGETS["store"], TARGETS["store"] + "/v1"]
    return reach_any(create, [*folders, *glob.glob(TARGETS["store"] + "/v1/??/*")])


@probe
def entries_of_the_store():
    return reach_any(append, glob.glob(TARGETS["store"] + "/v1/??/**", recursive=True))


@probe
def own_step():
    """The folder that holds its home and its output is its parent's."""
    return create(SPACE)


@probe
def other_steps():
    return reach_any(
        create,
        [
            folder
            for step in glob.glob(TARGETS["store"] + "/v1/tmp-*")
            for folder in (step, step + "/home", step + "/out")
            if os.path.realpath(folder) not in map(os.path.realpath, (SPACE, HOME, SPACE + "/out"))
        ],
    )


@probe
def output():
    return create(TARGETS["out"])


@probe
def shared_folders():
    places = ["/tmp", "/var/tmp", "/dev/shm", "/run", "/run/lock", TARGETS["home"]]
    return reach_any(create, [*places, os.path.dirname(TARGETS["secret"])])


@probe
def files_of_the_runner():
    return reach_any(append, TARGETS["runner"])


@probe
def kernel_settings():
    paths = ["/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/sys/vm/drop_caches"]
    return reach_any(append, paths)


@probe
def priority_for_memory():
    """Which process is ended first where memory runs out."""

    def write(pid):
        with open(f"/proc/{pid}/oom_score_adj") as file:
            score = file.read()
        with open(f"/proc/{pid}/oom_score_adj", "w") as file:
            file.write(score)
        return True

    return reach_any(write, list_others())


@probe
def control_groups():
    return reach_any(create, ["/sys/fs/cgroup"]) or reach_any(
        append, glob.glob("/sys/fs/cgroup/**/cgroup.procs", recursive=True)
    )


@probe
def device():
    os.mknod(os.path.join(TARGETS.get("writable") or HOME, "null"), 0o020666, os.makedev(1, 3))
    return True


@probe
def devices_of_the_system():
    paths = ["/dev/mem", "/dev/kmsg", "/dev/kvm", "/dev/fuse", "/dev/tty", "/dev/ptmx"]
    return reach_any(
        append, [*paths, "/dev/net/tun", "/dev/loop-control", *glob.glob("/dev/[svx]d*")]
    )


@probe
def shared_memory():
    return call("shmget", 0x6D63, 4096, 0o1666) + 1


@probe
def shared_queue():
    return call("msgget", 0x6D63, 0o1666) + 1


@probe
def shared_semaphore():
    return call("semget", 0x6D63, 1, 0o1666) + 1


@probe
def queue_by_name():
    return call("mq_open", b"mconv-attack", 0o102, 0o666, None)


@probe
def memory_by_name():
    path = "/dev/shm/mconv-attack-named"
    with open(path, "w"):
        pass
    os.unlink(path)
    return True


@probe
def watch_of_the_file_system():
    return call("fanotify_init", 0, 0) > 0


if __name__ == "__main__":
    main()
