"""What hostile code tries, each try by itself: a probe returns what it reached, or raises OSError.

It is copied into a repository and runs there; ``targets.json`` beside it names what is to be
reached.
"""

import ctypes
import json
import os
import platform
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
PROBES = {}
LIBC = ctypes.CDLL(None, use_errno=True)
# system calls without a function in every C library: on x86-64, elsewhere
CALLS = {
    "add_key": (248, 217),
    "bpf": (321, 280),
    "clone3": (435, 435),
    "fanotify_init": (300, 262),
    "io_uring_setup": (425, 425),
    "ioprio_get": (252, 31),
    "ioprio_set": (251, 30),
    "kcmp": (312, 272),
    "keyctl": (250, 219),
    "mq_open": (240, 180),
    "msgget": (68, 186),
    "name_to_handle_at": (303, 264),
    "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "process_vm_readv": (310, 270),
    "rt_sigqueueinfo": (129, 138),
    "semget": (64, 190),
    "shmget": (29, 194),
    "tgkill": (234, 131),
    "userfaultfd": (323, 282),
}


def read_targets():
    """Return the paths and ports that are to be reached, by name."""
    with open(os.path.join(HERE, "targets.json")) as file:
        return json.load(file)


def call(name, *arguments):
    """Make a system call. Raises OSError."""
    number = CALLS[name][platform.machine() != "x86_64"]
    given = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    answer = LIBC.syscall(ctypes.c_long(number), *given)
    if answer < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return answer


def call_library(name, *arguments):
    """Call a function of the C library. Raises OSError."""
    answer = getattr(LIBC, name)(*arguments)
    if answer < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return answer


def list_others():
    """Return the ids of all processes but this one."""
    return [
        int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()
    ]


def reach_any(reach, candidates):
    """Return those of ``candidates`` for which ``reach`` neither raises OSError nor returns
    nothing."""
    reached = []
    for each in candidates:
        try:
            if reach(each):
                reached.append(each)
        except OSError:
            continue
    return reached


def probe(function):
    """Register a probe."""
    PROBES[function.__name__] = function
    return function


def run_probes():
    """Return what each probe reached, in words; nothing where it was refused."""
    reached = {}
    for name, function in PROBES.items():
        try:
            result = function()
        except OSError:
            continue
        except Exception as problem:  # of the probe itself, which has to be mended
            result = f"BROKEN {type(problem).__name__}: {problem}"
        if result:
            reached[name] = str(result)[:60]
    return reached


def report():
    """Raise what was reached, so that it is the error of the model."""
    reached = run_probes()
    raise RuntimeError(f"tried {len(PROBES)}, reached {json.dumps(reached)}")


def main():
    """Print the same, where nothing confines this process."""
    print(json.dumps(run_probes()))
    sys.stdout.flush()
    os._exit(0)
