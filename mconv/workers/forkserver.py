"""A process that has imported a framework once and forks a child for each step: the import is paid
once, the rest stays per step.

``mconv.workers.forkserver MODULE …`` imports the modules, proves that it can be forked
and says so; then every packet on its standard input (a Unix socket) asks for a child, with a
channel and the child's request, answer and log as descriptors beside it. A child is what a worker
started from nothing is: a session of its own, its own environment, home, log and limits, dead when
the server is. It gets everything by copy on write and gives nothing back. The server never runs a
step, nor any code of the repository.

Forking is safe only for a process without threads that the child would miss. Thread pools that know
of forks (OpenBLAS's) end before one and come back after it; all others are still there when a trial
fork has been made, and then the server says no and steps are started from nothing. Nothing but
imports may happen in it: pools of engines start at their first operation.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import msgspec

from mconv import registry
from mconv.values import OWN, Frozen, Interpreter, from_json
from mconv.workers import child as workers_child
from mconv.workers.channels import Exchange
from mconv.workers.process import POLL_SECONDS
from mconv.workers.serve import die_with_parent
from mconv.workers.spawn import Helper, make_environment

START_SECONDS = 180
STOP_SECONDS = 5
PACKET = 2**17  # bytes of a request: paths and an environment
PR_SET_DUMPABLE = 4
WRONG = 70  # exit code of a child that could not even begin (EX_SOFTWARE)


def can_fork() -> bool:
    """Return whether steps may be forked on this system: ``MCONV_FORK=0`` says no."""
    return sys.platform == "linux" and os.environ.get("MCONV_FORK", "1") != "0"


class Child(Frozen, frozen=True, kw_only=True):
    """What a server is asked for: a worker.

    Attributes:
        home: The folder that it starts in.
        env: Its environment, which holds nothing else.
    """

    home: str
    env: dict[str, str]


class Forked:
    """A child of a server, with the part of Popen's interface that
    :func:`mconv.workers.process.run_step` uses.

    Attributes:
        channel: The socket on which the server tells of it, and which ends it when it is closed.
        pid: Its process id, once it has begun.
        returncode: Its exit code, once it has ended.
    """

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.pid = 0
        self.returncode: int | None = None

    def begin(self, patience: float) -> bool:
        """Wait ``patience`` seconds for the child to say that it runs; return whether it does."""
        self.channel.settimeout(patience)
        try:
            word = self.channel.recv(64).split()
        except OSError:
            return False
        if len(word) != 2 or word[0] != b"pid" or not word[1].isdigit() or int(word[1]) < 2:
            return False
        self.pid = int(word[1])
        return True

    def poll(self) -> int | None:
        """Return the exit code, or None while the child runs."""
        return self._read(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit code. Raises TimeoutExpired as Popen does."""
        if self._read(timeout) is None:
            raise subprocess.TimeoutExpired("step", timeout or 0.0)
        assert self.returncode is not None
        return self.returncode

    def _read(self, timeout: float | None) -> int | None:
        """Return the exit code, for which it waits; None where none comes in time."""
        if self.returncode is None:
            self.channel.settimeout(timeout)
            try:
                word = self.channel.recv(64).split()
            except (BlockingIOError, TimeoutError):
                return None
            except OSError:
                word = []
            try:
                self.returncode = int(word[1]) if word[0] == b"exit" else -signal.SIGKILL
            except (IndexError, ValueError):
                # without a word the server is dead, and the child with it
                self.returncode = -signal.SIGKILL
            self.channel.close()
        return self.returncode

    def kill(self) -> None:
        """End the child's whole session and wait for it.

        The server holds its process id until then.
        """
        if self.returncode is not None:
            return
        with contextlib.suppress(OSError):
            self.channel.shutdown(socket.SHUT_WR)
        if self._read(STOP_SECONDS) is None:  # a server that does not answer
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            self.channel.close()
            self.returncode = -signal.SIGKILL


class Server:
    """The parent's side of one server; safe for several threads.

    Attributes:
        modules: What it imports.
        helper: Its process.
        root: The repository.
        threads: How many threads engines are to use.
        extra: Variables of its environment.
        control: The socket on which it is asked for children, while it runs.
        lock: Held while it is started, asked or stopped.
        ready: It has imported them and can be forked.
        refused: Why it cannot be asked, in words; empty where it can.
    """

    def __init__(
        self,
        modules: Sequence[str],
        folder: Path,
        root: str,
        threads: int,
        extra: Mapping[str, str],
        interpreter: Interpreter = OWN,
    ) -> None:
        """``folder`` is one of the parent's own, which goes with the server."""
        self.modules = tuple(modules)
        self.helper = Helper(folder, interpreter)
        self.root = root
        self.threads = threads
        self.extra = extra
        self.control: socket.socket | None = None
        self.ready = False
        self.refused = ""
        self.lock = threading.Lock()

    @property
    def process(self) -> subprocess.Popen[bytes] | None:
        """The server's process, while there is one."""
        return self.helper.process

    def warm(self, stop: threading.Event) -> None:
        """Start it, if it does not run, and wait for its imports."""
        with self.lock:
            self._launch()
            self._await(stop)

    def _launch(self) -> None:
        """Start the process, unless it runs or cannot be asked."""
        if self.refused or self.helper.runs():
            return
        self._stop()
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        variables = make_environment(
            self.helper.home, self.root, self.threads, self.extra, self.helper.interpreter
        )
        with theirs:
            self.helper.start(
                "mconv.workers.forkserver", self.modules, variables, stdin=theirs.fileno()
            )

    def start(
        self, exchange: Exchange, home: Path, env: Mapping[str, str], stop: threading.Event
    ) -> Forked | None:
        """Return a child that does what ``mconv.workers.child`` would as a process of its own.

        None is returned where the server cannot start one, for whatever reason.
        """
        with self.lock:
            self._launch()
            if not self._await(stop):
                return None
            assert self.control is not None
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            request = msgspec.json.encode(Child(home=str(home), env=dict(env)))
            handed = [
                theirs.fileno(),
                exchange.request.fileno(),
                exchange.answer.writer,
                exchange.log.writer,
            ]
            with theirs:
                try:
                    socket.send_fds(self.control, [request], handed)
                except OSError:
                    ours.close()
                    return None
        child = Forked(ours)
        if child.begin(STOP_SECONDS * 4):
            return child
        ours.close()
        return None

    def _await(self, stop: threading.Event) -> bool:
        """Wait for the imports; return False where it died, cannot be forked or takes too long."""
        if self.ready or self.refused or self.control is None:
            return self.ready and not self.refused
        end = time.monotonic() + START_SECONDS
        self.control.settimeout(POLL_SECONDS)
        while time.monotonic() < end and not stop.is_set():
            try:
                word = self.control.recv(PACKET)
            except TimeoutError:
                continue
            except OSError:
                word = b""
            self.control.settimeout(None)
            self.ready = word == b"ready"
            self.refused = (
                "" if self.ready else word.decode("utf-8", "replace") or self._explain_death()
            )
            return self.ready
        self.refused = "it was not ready in time"
        return False

    def _explain_death(self) -> str:
        """Return why it died while it imported, with the end of what it printed."""
        printed = self.helper.read_log()
        return "it died while it imported" + (f": {printed}" if printed else "")

    def stop(self) -> None:
        """End the server with all its children, for good, and remove its folder."""
        with self.lock:
            self._stop()
            self.refused = "it is not needed any more"
        self.helper.remove()

    def _stop(self) -> None:
        """End the process; it can be started again."""
        self.ready = False
        if self.control is not None:
            self.control.close()
            self.control = None
        self.helper.kill()  # its children die with it


def main(modules: Sequence[str]) -> int:
    """Import, prove that it can be forked, and fork when asked until standard input ends."""
    die_with_parent()
    # a step of the same user can neither read nor change what others come from
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0)
    gc.disable()  # a fifth of the time of an import; what it leaves to collect is a few megabytes
    importlib.import_module("mconv.steps.run")
    for family in registry.FAMILIES:
        registry.import_own_modules(family)
    for name in modules:
        with contextlib.suppress(ImportError):  # the step that needs it will say so
            importlib.import_module(name)
    control = socket.socket(fileno=0)
    gc.freeze()  # collections in the children would copy every page
    gc.enable()
    if threads := _count_lasting_threads():
        control.send(f"its imports leave {threads} threads that a fork would lose".encode())
        return 1
    control.send(b"ready")
    _Loop(control).run()
    os._exit(0)


def _count_lasting_threads() -> int:
    """Return how many threads there are beside this one after a fork has been made."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return len(os.listdir("/proc/self/task")) - 1


class _Loop:
    """What the server does, in one thread.

    Requests come in on ``control``, a channel that ends asks for its child's end, and SIGCHLD tells
    of the dead.

    Attributes:
        control: The socket on which the parent asks for children.
        channels: The socket of each child, by its process id.
        poll: What it waits for.
        woken: The end of a pipe that SIGCHLD writes to.
        waker: Its other end.
    """

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.channels: dict[int, socket.socket] = {}
        self.poll = selectors.DefaultSelector()
        self.woken, self.waker = os.pipe()
        for end in (self.woken, self.waker):
            os.set_blocking(end, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self.waker, warn_on_full_buffer=False)
        self.poll.register(control, selectors.EVENT_READ, "control")
        self.poll.register(self.woken, selectors.EVENT_READ, "dead")

    def run(self) -> None:
        """Serve until standard input ends."""
        while True:
            for key, _ in self.poll.select():
                if key.data == "control":
                    data, fds, _, _ = socket.recv_fds(self.control, PACKET, 4)
                    if not data:
                        return  # the children are told by the system (PR_SET_PDEATHSIG)
                    self.fork(from_json(data, Child), *fds)
                elif key.data == "dead":
                    with contextlib.suppress(BlockingIOError):
                        os.read(self.woken, 4096)
                    self.reap()
                else:
                    self.poll.unregister(key.fileobj)
                    _kill(key.data)

    def fork(self, wanted: Child, channel_fd: int, request: int, answer: int, log: int) -> None:
        """Make a child with these descriptors, and remember the channel that it is asked for on."""
        channel = socket.socket(fileno=channel_fd)
        server = os.getpid()
        pid = os.fork()
        if pid == 0:
            self.become_worker(wanted, channel, (request, answer, log), server)
        for descriptor in (request, answer, log):
            os.close(descriptor)
        self.channels[pid] = channel
        self.poll.register(channel, selectors.EVENT_READ, pid)

    def become_worker(
        self, wanted: Child, channel: socket.socket, handed: tuple[int, int, int], server: int
    ) -> NoReturn:
        """Become a worker, do the step and end.

        ``handed`` are the descriptors of the request, the answer and the log.
        """
        request, answer, log = handed
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            die_with_parent()
            if os.getppid() != server:
                os._exit(WRONG)
            with contextlib.suppress(OSError, AttributeError):
                ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1)
            for other in self.channels.values():
                other.close()
            self.poll.close()
            os.close(self.woken)
            os.close(self.waker)
            for source, target in ((request, 0), (log, 1), (log, 2)):  # 0 was the control socket
                os.dup2(source, target)
            os.close(request)
            os.close(log)
            self.control.detach()
            os.environ.clear()
            os.environ.update(wanted.env)
            os.chdir(wanted.home)
            tempfile.tempdir = None  # it was looked up in the server's environment
            sys.argv = ["mconv.workers.child", str(answer)]
            channel.send(f"pid {os.getpid()}".encode())
            channel.close()
            os._exit(workers_child.main(answer))
        except BaseException as problem:
            with contextlib.suppress(BaseException):
                print(f"the worker could not begin: {problem!r}", file=sys.stderr, flush=True)
        finally:
            os._exit(WRONG)

    def reap(self) -> None:
        """Tell of every child that ended.

        What is left of its session is killed before that, and its process id is free only after.
        """
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            _kill(ended.si_pid)
            code = os.waitstatus_to_exitcode(os.waitpid(ended.si_pid, 0)[1])
            channel = self.channels.pop(ended.si_pid, None)
            if channel is None:  # of an import
                continue
            with contextlib.suppress(KeyError, ValueError):
                self.poll.unregister(channel)
            with contextlib.suppress(OSError):
                channel.send(f"exit {code}".encode())
            channel.close()


def _kill(pid: int) -> None:
    """End a child and its session, or a child that has no session yet."""
    for end in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            end(pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
