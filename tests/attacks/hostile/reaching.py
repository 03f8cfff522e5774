"""Probes for other processes: each would change one, or does so without a lasting effect."""

import ctypes
import os
import resource

from probing import call, list_others, main, probe, reach_any
from probing import report as build  # noqa: F401 (the factory)


@probe
def signals():
    return reach_any(lambda pid: os.kill(pid, 0) is None, list_others())


@probe
def signals_by_a_descriptor():
    return reach_any(
        lambda pid: call("pidfd_send_signal", call("pidfd_open", pid, 0), 0, 0, 0) == 0,
        list_others(),
    )


@probe
def signals_to_a_thread():
    return reach_any(lambda pid: call("tgkill", pid, pid, 0) == 0, list_others())


@probe
def signals_to_a_group():
    # killpg(1) is kill(-1), which is all that may be signalled: one's own processes too
    others = (0, 1, os.getpgid(0))
    leaders = reach_any(lambda pid: os.getpgid(pid) not in others, list_others())
    return reach_any(lambda pid: os.killpg(os.getpgid(pid), 0) is None, leaders)


@probe
def signals_with_a_value():
    value = ctypes.create_string_buffer(128)
    value[8:12] = (-1).to_bytes(4, "little", signed=True)  # SI_QUEUE
    return reach_any(
        lambda pid: call("rt_sigqueueinfo", pid, 0, ctypes.byref(value)) == 0, list_others()
    )


@probe
def limits():
    return reach_any(
        lambda pid: resource.prlimit(
            pid, resource.RLIMIT_NOFILE, resource.prlimit(pid, resource.RLIMIT_NOFILE)
        ),
        list_others(),
    )


@probe
def priorities():
    def lower(pid):
        before = os.getpriority(os.PRIO_PROCESS, pid)
        os.setpriority(os.PRIO_PROCESS, pid, min(19, before + 1))
        return os.getpriority(os.PRIO_PROCESS, pid) != before

    return reach_any(lower, list_others())


@probe
def priorities_of_disks():
    return reach_any(
        lambda pid: call("ioprio_set", 1, pid, call("ioprio_get", 1, pid)) == 0, list_others()
    )


@probe
def cores():
    def bind(pid):
        before = os.sched_getaffinity(pid)
        os.sched_setaffinity(pid, {min(before)})
        changed = len(before) == 1 or os.sched_getaffinity(pid) != before
        os.sched_setaffinity(pid, before)
        return changed

    return reach_any(bind, list_others())


@probe
def schedulers():
    def schedule(pid):
        os.sched_setscheduler(pid, os.sched_getscheduler(pid), os.sched_getparam(pid))
        return True

    return reach_any(schedule, list_others())


@probe
def timer_slack():
    def write(pid):
        with open(f"/proc/{pid}/timerslack_ns") as file:
            slack = file.read()
        with open(f"/proc/{pid}/timerslack_ns", "w") as file:
            file.write(slack)
        return True

    return reach_any(write, list_others())


@probe
def names_of_threads():
    """The name of a thread is its process's."""

    def write(pid):
        with open(f"/proc/{pid}/comm") as file:
            name = file.read()
        with open(f"/proc/{pid}/comm", "w") as file:
            file.write(name)
        return True

    return reach_any(write, list_others())


@probe
def groups_of_processes():
    return reach_any(lambda pid: os.setpgid(pid, os.getpgid(0)) is None, list_others())


@probe
def answers():
    """The channels of others, by their descriptors."""

    def open_pipes(pid):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with open(f"/proc/{pid}/fd/{name}", "wb"):
                return True
        return False

    return reach_any(open_pipes, list_others())


if __name__ == "__main__":
    main()
