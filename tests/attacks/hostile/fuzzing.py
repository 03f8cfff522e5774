"""Does what a program says: a list of actions with their arguments, out of ``programs.json``.

Where one of them is ``later``, what follows is done when the step answers.
"""

import contextlib
import json
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
import threading
import time

import torch

HERE = os.path.dirname(os.path.abspath(__file__))
HOME = os.path.expanduser("~")
SPACE = os.path.dirname(HOME)
OUT = os.path.join(SPACE, "out")
NOTHING = subprocess.DEVNULL


def find_pipes():
    """Descriptors that are pipes to write to, the log aside."""
    log = os.fstat(1).st_ino
    pipes = []
    for descriptor in range(3, 64):
        with contextlib.suppress(OSError):
            status = os.fstat(descriptor)
            if stat.S_ISFIFO(status.st_mode) and status.st_ino != log:
                pipes.append(descriptor)
    return pipes


def name_path(name):
    """A path in the output folder, or in another one that the name says."""
    place, _, rest = name.partition(":")
    folder = {"home": HOME, "space": SPACE, "repository": HERE}.get(place)
    if folder is None:
        folder, rest = OUT, name
    return os.path.join(os.fsencode(folder), rest.encode("utf-8", "surrogateescape"))


def answer(text):
    for pipe in find_pipes():
        os.write(pipe, text.encode("utf-8", "surrogatepass"))


def answer_long(text, times):
    for pipe in find_pipes():
        for _ in range(times):
            os.write(pipe, text.encode("utf-8", "surrogatepass") * 1000)


def answer_slowly(text, seconds):
    for pipe in find_pipes():
        for byte in text.encode("utf-8", "surrogatepass"):
            os.write(pipe, bytes([byte]))
            time.sleep(seconds / max(1, len(text)))


def close_pipes():
    for pipe in find_pipes():
        os.close(pipe)


def close_all():
    os.closerange(0, 64)


def block_pipes():
    """As full as they can be, without anybody who reads."""
    for pipe in find_pipes():
        os.set_blocking(pipe, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(pipe, b"{" * 65536)


def log(text, times):
    for _ in range(times):
        os.write(1, text.encode("utf-8", "surrogatepass") + b"\n")


def fork(count, seconds):
    for _ in range(count):
        if os.fork() == 0:
            time.sleep(seconds)
            os._exit(0)


def orphan(seconds, session):
    """A process without a parent that holds all pipes."""
    if os.fork() == 0:
        if session:
            os.setsid()
        if os.fork() == 0:
            time.sleep(seconds)
        os._exit(0)


def orphan_that_answers(text, seconds):
    if os.fork() == 0:
        os.setsid()
        end = time.monotonic() + seconds
        with contextlib.suppress(OSError):
            while time.monotonic() < end:
                answer(text)
                time.sleep(0.01)
        os._exit(0)


def fork_on(seconds):
    """The child goes on as the worker; the worker ends."""
    if os.fork():
        time.sleep(seconds)
        os._exit(0)


def execute(command):
    os.execvp(command[0], command)


def start(command):
    subprocess.run(command, stdin=NOTHING, check=False, timeout=20)


def send_signal(number, whom):
    if whom == "all":
        os.kill(-1, number)
    elif whom == "group":
        os.killpg(0, number)
    elif whom == "others":
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if int(name) != os.getpid():
                    os.kill(int(name), number)
    else:
        os.kill({"self": os.getpid(), "parent": os.getppid(), "first": 1}[whom], number)


def handle_signals(ignore):
    for number in range(1, 65):
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_IGN if ignore else lambda *_: None)


def leave(code):
    os._exit(code)


def leave_by(kind, text):
    """By an exception of any class and words."""
    known = {each.__name__: each for each in (SystemExit, KeyboardInterrupt, MemoryError, OSError)}
    raise (known.get(kind) or type(kind or "E", (Exception,), {}))(text)


def write(name, size, mode):
    path = name_path(name)
    with contextlib.suppress(FileExistsError):
        os.makedirs(os.path.dirname(path))
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, mode)
    os.write(descriptor, b"x" * min(size, 2**20))
    os.ftruncate(descriptor, size)
    os.close(descriptor)


def make(kind, name):
    path = name_path(name)
    with contextlib.suppress(FileExistsError):
        os.makedirs(os.path.dirname(path))
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        os.mkdir(path)
    elif kind == "closed":
        os.mkdir(path, 0)
    elif kind == "device":
        os.mknod(path, 0o020666, os.makedev(1, 5))
    elif kind == "socket":
        socket.socket(socket.AF_UNIX).bind(path)


def link(target, name, hard):
    (os.link if hard else os.symlink)(target, name_path(name))


def dig(name, levels):
    here = os.open(name_path(name), os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below


def fill(name, count):
    for number in range(count):
        os.close(os.open(name_path(f"{name}{number}"), os.O_CREAT | os.O_WRONLY))


def move(name, to):
    os.rename(name_path(name), name_path(to))


def remove(name):
    path = name_path(name)
    if os.path.isdir(path) and not os.path.islink(path):
        subprocess.run(["rm", "-rf", path], check=False)
        os.rmdir(path) if os.path.isdir(path) else None
    else:
        os.unlink(path)


def close_off(name, mode):
    os.chmod(name_path(name), mode)


def take_memory(megabytes):
    kept.append(bytearray(megabytes * 2**20))


def sleep(seconds):
    time.sleep(seconds)


def spin(threads, seconds):
    end = time.monotonic() + seconds

    def work():
        while time.monotonic() < end:
            pass

    for _ in range(threads):
        threading.Thread(target=work).start()


def limit(name, value):
    number = getattr(resource, name)
    resource.setrlimit(number, (value, resource.getrlimit(number)[1]))


def forget():
    os.environ.clear()
    os.chdir("/")
    sys.path.clear()


def alarm(seconds):
    signal.setitimer(signal.ITIMER_REAL, seconds)


kept = []
ACTIONS = {
    each.__name__: each
    for each in (
        *(answer, answer_long, answer_slowly, close_pipes, close_all, block_pipes, log, fork),
        *(orphan, orphan_that_answers, fork_on, execute, start, send_signal, handle_signals),
        *(leave, leave_by, write, make, link, dig, fill, move, remove, close_off, take_memory),
        *(sleep, spin, limit, forget, alarm),
    )
}


def do(program):
    """Do the actions; an error of the system ends none but its own."""
    for name, *arguments in program:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            ACTIONS[name](*arguments)


def perform(number):
    """Do a program, and return a model where it ends."""
    with open(os.path.join(HERE, "programs.json")) as file:
        program = json.load(file)[number]
    names = [name for name, *_ in program]
    first = names.index("later") if "later" in names else len(program)
    channels = sys.modules["mconv.workers.channels"]
    write_answer = channels.write_answer

    def end(*arguments):
        do(program[first + 1 :])
        write_answer(*arguments)

    channels.write_answer = end
    do(program[:first])
    return torch.nn.Sequential(torch.nn.Linear(4, 3))
