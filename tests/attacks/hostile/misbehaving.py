"""Factories that do as much harm to other processes and to the machine as they can."""

import ctypes
import fcntl
import mmap
import os
import signal
import subprocess
import sys
import time

import torch
from probing import HERE, list_others

SET_OWNER_SIGNAL = 10  # F_SETSIG
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
MB = 2**20


def finish():
    """End with an error, so that nothing more is made of this model."""
    raise RuntimeError("done")


def patient():
    """Nobody's enemy: it is at work while the others do what they do."""
    time.sleep(5)
    return torch.nn.Sequential(torch.nn.Linear(4, 3))


def leave(name, code, seconds=40):
    """Start a process with the mark ``name`` that has left the session, and outlives the step where
    it can."""
    script = f"""
import os, sys, time
os.setsid()
if os.fork(): os._exit(0)
end = time.time() + {seconds}
{code}
"""
    nothing = subprocess.DEVNULL
    command = [sys.executable, "-S", "-c", script, f"mconv-attack:{name}"]
    subprocess.run(command, stdin=nothing, stdout=nothing, stderr=nothing, check=False)
    time.sleep(0.3)


def killall():
    os.kill(-1, signal.SIGKILL)
    for pid in list_others():
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            continue
    finish()


def stopall():
    for pid in list_others():
        try:
            os.kill(pid, signal.SIGSTOP)
        except OSError:
            continue
    finish()


def signal_by_pipes():
    """The kernel sends a signal in its stead when there is something to read."""
    kept = []
    for pid in list_others():
        reader, writer = os.pipe()
        try:
            fcntl.fcntl(reader, fcntl.F_SETOWN, pid)
            fcntl.fcntl(reader, SET_OWNER_SIGNAL, signal.SIGKILL)
            fcntl.fcntl(reader, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
            os.write(writer, b"x")
        except OSError:
            pass
        kept += [reader, writer]
    finish()


def daemon():
    leave("daemon", "while time.time() < end: time.sleep(0.05)")
    finish()


def hopper():
    """Processes that are another one each time somebody looks."""
    code = "while time.time() < end:\n    if os.fork(): os._exit(0)"
    for _ in range(4):
        leave("hopper", code)
    finish()


def deaf():
    """Processes that ignore all that can be ignored, stopped ones among them."""
    code = """
import signal
for each in range(1, 65):
    try: signal.signal(each, signal.SIG_IGN)
    except (OSError, ValueError): pass
if os.fork(): os.kill(os.getpid(), signal.SIGSTOP)
while time.time() < end: time.sleep(0.05)
"""
    leave("deaf", code)
    finish()


def reaper():
    """A process of its own that orphans belong to."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    leave("reaper", "while time.time() < end: time.sleep(0.05)")
    os._exit(3)


def undying():
    """It is not to die with its parent."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0)
    leave("undying", "while time.time() < end: time.sleep(0.05)")
    os.kill(os.getpid(), signal.SIGSTOP)
    finish()


def bomb(*, sessions):
    script = f"""
import os, time
end = time.time() + 40
for _ in range(200):
    try:
        if os.fork() == 0:
            {"os.setsid()" if sessions else "pass"}
            time.sleep(max(0, end - time.time()))
            os._exit(0)
    except OSError:
        break
"""
    command = [sys.executable, "-S", "-c", script, "mconv-attack:bomb"]
    subprocess.run(command, stdin=subprocess.DEVNULL, check=False)
    finish()


def forkbomb():
    return bomb(sessions=False)


def forkbombd():
    return bomb(sessions=True)


def spam():
    """The error is part of it."""
    line = "\x1b[31m::error::spam ##[error]x ::set-output name=a::b " + "A" * 200 + "\n"
    for _ in range(40 * MB // len(line)):
        sys.stdout.write(line)
    raise ValueError("x" * 5000 + "\n::error file=a::INJECTED\n<img src=x>")


def mem():
    blocks = []
    for _ in range(300):
        blocks.append(bytearray(os.urandom(1)) * (10 * MB))
        time.sleep(0.01)
    time.sleep(1)
    finish()


def memory_that_nobody_maps():
    """Pages of a file that is in memory, and in no process."""
    file = os.memfd_create("x")
    block = b"x" * (10 * MB)
    for _ in range(200):
        os.write(file, block)
    time.sleep(2)
    os.close(file)
    finish()


def memory_of_children():
    """Each child's share is small."""
    for _ in range(10):
        if os.fork() == 0:
            kept = mmap.mmap(-1, 200 * MB)
            for place in range(0, 200 * MB, 4096):
                kept[place] = 1
            time.sleep(10)
            os._exit(0)
    time.sleep(8)
    finish()


def hang():
    time.sleep(3600)


def busy():
    while True:
        pass


def exit_now():
    os._exit(0)


def crash():
    ctypes.string_at(0)


def core():
    """What it has in memory would be in the file."""
    os.chdir(os.path.expanduser("~"))
    os.abort()


def slow():
    """As slow as others can be made; of these it is for the worse as long as the run goes on."""
    for pid in list_others():
        for change in (
            lambda each: os.setpriority(os.PRIO_PROCESS, each, 19),
            lambda each: os.sched_setaffinity(each, {min(os.sched_getaffinity(0))}),
        ):
            try:
                change(pid)
            except OSError:
                continue
    finish()


def lease():
    """Who opens the file waits until it is given back."""
    file = os.open(os.path.join(HERE, "linear.onnx"), os.O_RDONLY)
    try:
        fcntl.fcntl(file, 1024, 1)
    except OSError:
        finish()
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    time.sleep(3600)
    finish()
