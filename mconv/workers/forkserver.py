"""A process that has imported a framework once and forks a child for each step: the import is paid
once, the rest stays per step.

``mconv.workers.forkserver MODULE …`` imports the modules, proves that it can be forked
and says so; then every packet on its standard input (a Unix socket) asks for a child, with a
channel, the child's confinement, request, answer and log as descriptors beside it. A child is what
a worker started from nothing is: confined, with a supervisor, an environment, home, log and limits
of its own. It gets everything by copy on write and gives nothing back. The server never runs a
step, nor any code of the repository, whose environments have none; it is of a user of its own where
there is one, and has no privilege but that to give its children theirs.

Forking is safe only for a process without threads that the child would miss. Thread pools that know
of forks (OpenBLAS's) end before one and come back after it; all others are still there when a trial
fork has been made, and then the server says no and steps are started from nothing. Nothing but
imports may happen in it: pools of engines start at their first operation.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import signal
import socket
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
from mconv.workers.confine import Confinement, forbid_inspection
from mconv.workers.policy import confine_server
from mconv.workers.process import POLL_SECONDS
from mconv.workers.serve import die_with_parent
from mconv.workers.spawn import Helper, Supervised, make_environment
from mconv.workers.supervisor import WRONG, supervise

START_SECONDS = 180
STOP_SECONDS = 5
PACKET = 2**14  # bytes of a request: a path
HANDED = 5  # descriptors that come with a request


def can_fork() -> bool:
    """Return whether steps may be forked on this system: ``MCONV_FORK=0`` says no."""
    return sys.platform == "linux" and os.environ.get("MCONV_FORK", "1") != "0"


class Child(Frozen, frozen=True, kw_only=True):
    """What a server is asked for: a worker.

    Attributes:
        home: The folder that it starts in.
    """

    home: str


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
    def process(self) -> Supervised | None:
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
                "mconv.workers.forkserver",
                self.modules,
                variables,
                confine_server(self.helper.uid),
                stdin=theirs.fileno(),
            )

    def start(
        self,
        exchange: Exchange,
        home: Path,
        env: Mapping[str, str],
        confinement: Confinement,
        stop: threading.Event,
    ) -> Supervised | None:
        """Return a child that does what ``mconv.workers.child`` would as a process of its own.

        It waits until it is released. None is returned where the server cannot start one, for
        whatever reason.
        """
        with self.lock:
            self._launch()
            if not self._await(stop):
                return None
            assert self.control is not None
            ours, theirs = socket.socketpair()
            with theirs, tempfile.TemporaryFile() as orders:
                orders.write(confinement.to_bytes(env))
                orders.seek(0)
                handed = [
                    theirs.fileno(),
                    orders.fileno(),
                    exchange.request.fileno(),
                    exchange.answer.writer,
                    exchange.log.writer,
                ]
                try:
                    socket.send_fds(
                        self.control, [msgspec.json.encode(Child(home=str(home)))], handed
                    )
                except OSError:
                    ours.close()
                    return None
        child = Supervised(ours)
        if child.await_child(STOP_SECONDS * 4):
            return child
        child.kill()
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
    forbid_inspection()
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
    # supervisors that end leave nothing to be asked for
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        data, handed, _, _ = socket.recv_fds(control, PACKET, HANDED)
        if not data:
            os._exit(0)  # the children end with the connections of their supervisors
        _fork(control, from_json(data, Child), handed)


def _count_lasting_threads() -> int:
    """Return how many threads there are beside this one after a fork has been made."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return len(os.listdir("/proc/self/task")) - 1


def _fork(control: socket.socket, wanted: Child, handed: Sequence[int]) -> None:
    """Make a supervisor with a child.

    ``handed`` are the descriptors of the channel, the orders, the request, the answer and the log.
    """
    pid = os.fork()
    if pid == 0:
        try:
            _become_supervisor(control, wanted, handed)
        finally:
            os._exit(WRONG)
    for descriptor in handed:
        os.close(descriptor)


def _become_supervisor(control: socket.socket, wanted: Child, handed: Sequence[int]) -> NoReturn:
    """Become the supervisor of a worker, in a session of its own."""
    channel, orders, request, answer, log = handed
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    control.detach()  # it is standard input, which the request replaces
    for source, target in ((request, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(request)
    os.close(log)
    with open(orders, "rb") as file:
        confinement, env = Confinement.from_bytes(file.read())

    def begin() -> NoReturn:
        """Become a worker, do the step and end."""
        os.environ.clear()
        os.environ.update(env)
        os.chdir(wanted.home)
        tempfile.tempdir = None  # it was looked up in the server's environment
        sys.argv = ["mconv.workers.child", str(answer)]
        workers_child.main(answer)

    supervise(channel, confinement, begin, (answer,))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
