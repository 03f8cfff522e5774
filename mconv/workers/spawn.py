"""Starts child processes: confined, each with a supervisor and an environment of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from mconv import plain_files
from mconv.environments.interpreter import GPUS, make_command
from mconv.errors import WorkerCrashError
from mconv.values import OWN, Interpreter
from mconv.workers import identities
from mconv.workers.channels import LOG_LIMIT, Collector, Exchange, Intake
from mconv.workers.confine import Confinement

SUPERVISOR = str(Path(__file__).with_name("supervisor.py"))
WORKER = "mconv"
OF_LAUNCHERS = ("LD_LIBRARY_PATH",)  # where mconv's own Python finds its library
START_SECONDS = 60.0  # for a supervisor to be there, on a machine that is busy
STOP_SECONDS = 5.0
KILL_SECONDS = 20.0  # for a supervisor to end all that it holds

PASSED_ON = (
    "PATH",
    "LANG",
    "LC_ALL",
    "TZ",
    "SSL_CERT_FILE",
    "MCONV_BROWSER",
    "MCONV_NODE_MODULES",
    "LD_LIBRARY_PATH",
)


class Supervised:
    """A child, by the process that holds it together (:mod:`mconv.workers.supervisor`).

    Attributes:
        channel: The socket on which its supervisor tells of it, and which ends it when it is
            closed.
        launcher: The supervisor, where this process started it.
        supervisor: The supervisor's process id, once the child is there.
        pid: The child's process id, then.
        returncode: Its exit code, once it has ended; negative is the signal that ended it.
        left: How many of its processes could not be ended; -1 where nobody can tell.
    """

    def __init__(
        self, channel: socket.socket, launcher: subprocess.Popen[bytes] | None = None
    ) -> None:
        self.channel = channel
        self.launcher = launcher
        self.supervisor = 0
        self.pid = 0
        self.returncode: int | None = None
        self.left = 0
        self._heard = b""

    @property
    def stdin(self) -> IO[bytes] | None:
        """Where its standard input is written, if it is a pipe."""
        return self.launcher.stdin if self.launcher is not None else None

    @property
    def stdout(self) -> IO[bytes] | None:
        """Where its standard output is read, if it is a pipe."""
        return self.launcher.stdout if self.launcher is not None else None

    def await_child(self, patience: float) -> bool:
        """Wait ``patience`` seconds for the child to be there; return whether it is."""
        word = self._hear(patience) or []
        if len(word) != 3 or word[0] != b"pid":
            return False
        self.supervisor, self.pid = int(word[1]), int(word[2])
        return True

    def release(self) -> None:
        """Let the child begin."""
        with contextlib.suppress(OSError):
            self.channel.sendall(b"go\n")

    def poll(self) -> int | None:
        """Return the exit code, or None while the child runs."""
        return self._read(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end of it and all that it started; return the exit code.

        Raises TimeoutExpired as Popen does.
        """
        if self._read(timeout) is None:
            raise subprocess.TimeoutExpired("step", timeout or 0.0)
        assert self.returncode is not None
        return self.returncode

    def kill(self) -> None:
        """End the child and all that it started, and wait for them."""
        if self.returncode is not None:
            return
        with contextlib.suppress(OSError):
            self.channel.shutdown(socket.SHUT_WR)
        if self._read(KILL_SECONDS) is None:  # a supervisor that does not answer
            self.left = -1
            self._finish(-signal.SIGKILL)

    def _read(self, timeout: float | None) -> int | None:
        """Return the exit code, for which it waits; None where none comes in time."""
        if self.returncode is not None:
            return self.returncode
        word = self._hear(timeout)
        if word is None:
            return None
        if len(word) == 3 and word[0] == b"exit":
            self.left = int(word[2])
            self._finish(int(word[1]))
        else:  # the supervisor is dead, and the child with it; what that has started may not be
            self.left = -1
            self._finish(-signal.SIGKILL)
        return self.returncode

    def _hear(self, timeout: float | None) -> list[bytes] | None:
        """Return the words of the supervisor's next line: none where it is gone.

        Returns None where no line comes in time.
        """
        while b"\n" not in self._heard:
            self.channel.settimeout(timeout)
            try:
                data = self.channel.recv(256)
            except (BlockingIOError, TimeoutError):
                return None
            except OSError:
                data = b""
            if not data:
                return []
            self._heard += data
        line, _, self._heard = self._heard.partition(b"\n")
        return line.split()

    def _finish(self, code: int) -> None:
        """Record the exit code, and be done with the supervisor."""
        self.returncode = code
        self.channel.close()
        if self.launcher is not None:
            try:
                self.launcher.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.launcher.kill()
                self.launcher.wait()


def start_command(
    command: Sequence[str],
    *,
    home: Path,
    env: Mapping[str, str],
    confinement: Confinement,
    stdin: int | IO[bytes],
    stdout: int,
    stderr: int,
    pass_fds: Sequence[int] = (),
) -> Supervised:
    """Start a program in ``home``, confined, with ``env`` and no other variables.

    It waits until :meth:`Supervised.release`. Raises WorkerCrashError where it cannot be started.
    """
    ours, theirs = socket.socketpair()
    with theirs, tempfile.TemporaryFile() as orders:
        orders.write(confinement.to_bytes(env))
        orders.seek(0)
        handed = [theirs.fileno(), orders.fileno()]
        launcher = subprocess.Popen(
            # few variables: the child's name folders of its environment
            [*(sys.executable, "-I", "-S", SUPERVISOR), *map(str, handed), *command],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=[*pass_fds, *handed],
            env={name: os.environ[name] for name in OF_LAUNCHERS if name in os.environ},
            cwd=home,
            start_new_session=True,
        )
    child = Supervised(ours, launcher)
    if not child.await_child(START_SECONDS):
        child.kill()
        raise WorkerCrashError("a worker could not be started: its supervisor ended")
    return child


def start_module(
    interpreter: Interpreter,
    module: str,
    arguments: Sequence[str],
    *,
    home: Path,
    env: Mapping[str, str],
    confinement: Confinement,
    stdin: int | IO[bytes],
    stdout: int,
    stderr: int,
    pass_fds: Sequence[int] = (),
) -> Supervised:
    """Start a module of mconv as :func:`start_command` does a program."""
    return start_command(
        make_command(interpreter, module, arguments),
        home=home,
        env=env,
        confinement=confinement,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        pass_fds=pass_fds,
    )


def start_exchange(
    interpreter: Interpreter,
    module: str,
    arguments: Sequence[str],
    exchange: Exchange,
    *,
    home: Path,
    env: Mapping[str, str],
    confinement: Confinement,
    pass_fds: Sequence[int] = (),
) -> Supervised:
    """Start a module of mconv with ``ARGUMENTS… ANSWER`` and the descriptors of ``exchange``.

    The request is its standard input, the log its output, and the number of the descriptor for its
    answer the last argument. It waits until :meth:`Supervised.release`.
    """
    answer = exchange.answer.writer
    return start_module(
        interpreter,
        module,
        [*arguments, str(answer)],
        home=home,
        env=env,
        confinement=confinement,
        stdin=exchange.request,
        stdout=exchange.log.writer,
        stderr=exchange.log.writer,
        pass_fds=(answer, *pass_fds),
    )


class Helper:
    """A process that others share for a while: it can die and be started again.

    Attributes:
        folder: A folder of the parent's own, which goes with the helper.
        interpreter: The environment that it runs in.
        uid: Its user; None is this process's own.
        home: The helper's home in it.
        process: The process, while there is one.
    """

    def __init__(self, folder: Path, interpreter: Interpreter = OWN) -> None:
        self.folder = folder
        self.interpreter = interpreter
        self.uid = identities.take_user()
        self.home = folder / "home"
        make_worker_folder(self.home, self.uid)
        self.process: Supervised | None = None
        self._log: Intake | None = None
        self._collector: Collector | None = None

    def runs(self) -> bool:
        """Return whether the process is alive."""
        return self.process is not None and self.process.poll() is None

    def start(
        self,
        module: str,
        arguments: Sequence[str],
        env: Mapping[str, str],
        confinement: Confinement,
        *,
        stdin: int,
        stdout: int | None = None,
    ) -> Supervised:
        """Start a module of mconv.

        What it prints is the log, or only its errors where ``stdout`` is given.
        """
        self._log = log = Intake(LOG_LIMIT, keep_last=True)
        self._collector = Collector(log)
        self.process = start_module(
            self.interpreter,
            module,
            arguments,
            home=self.home,
            env=env,
            confinement=confinement,
            stdin=stdin,
            stdout=log.writer if stdout is None else stdout,
            stderr=log.writer,
        )
        log.close_writer()
        self.process.release()
        return self.process

    def read_log(self) -> str:
        """Return the end of what it printed, once it is gone."""
        if self._collector is not None:
            self._collector.finish()
        return self._log.read_text() if self._log is not None else ""

    def kill(self) -> None:
        """End the process, all that it started, and what reads its log."""
        if self.process is not None:
            self.process.kill()
            self.process = None
        if self._collector is not None:
            self._collector.finish()
            self._collector = None

    def remove(self) -> None:
        """Remove its folder."""
        plain_files.remove_folder(self.folder)


def make_environment(
    home: Path,
    root: str,
    threads: int,
    extra: Mapping[str, str] | None = None,
    interpreter: Interpreter = OWN,
    *,
    online: bool = False,
) -> dict[str, str]:
    """Return all environment variables of a worker.

    There is no token among them, no variable of a runner, nothing that reaches a network hub.
    ``root`` is the repository, ``threads`` how many its engines use; ``extra`` is added, and what
    ``interpreter`` says. Only mconv's own Python is told of the packages that ``PYTHONPATH`` names
    here. ``online``: what fetches from hubs is not told to leave that.
    """
    clean = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    path = os.environ.get("PYTHONPATH", "") if interpreter.is_own else ""
    count = str(threads)
    return {
        **clean,
        "HOME": str(home),
        "USER": WORKER,  # who has no name looks it up here
        "LOGNAME": WORKER,
        "TMPDIR": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "PYTHONPATH": path,
        "MCONV_PYTHON": sys.executable,
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONIOENCODING": "utf-8",
        "MCONV_ROOT": root,
        **({} if online else {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_ENABLE_ONEDNN_OPTS": "0",
        "TF_NUM_INTRAOP_THREADS": count,
        "TF_NUM_INTEROP_THREADS": "1",
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        GPUS: "",  # but where the interpreter's variables say otherwise
        "TOKENIZERS_PARALLELISM": "false",
        **interpreter.variables,
        **(extra or {}),
    }


def make_worker_folder(folder: Path, uid: int | None) -> None:
    """Make a folder for a worker of the user ``uid``, in one that the worker cannot change."""
    folder.mkdir()
    if uid is not None:
        os.chown(folder, uid, uid, follow_symlinks=False)


def describe_death(code: int | None) -> str:
    """Return in words how a process with this return code died."""
    if code is None or code >= 0:
        return f"the worker process ended with exit code {code} without an answer"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    words = {
        "SIGABRT": " (abort)",
        "SIGSEGV": " (segmentation fault)",
        "SIGKILL": " (killed, perhaps by the system for lack of memory)",
    }
    return f"the worker process died of {name}{words.get(name, '')}"
