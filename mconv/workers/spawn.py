"""Starts child processes: in a session of their own, as the workers' user, with an environment of
their own.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from mconv.environments.interpreter import GPUS, make_command
from mconv.values import OWN, Interpreter
from mconv.workers.channels import LOG_LIMIT, Collector, Exchange, Intake

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


class Spawned(subprocess.Popen[bytes]):
    """A child started from nothing, in a session of its own."""

    def kill(self) -> None:
        """End its whole session and wait for it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait()


def start_module(
    interpreter: Interpreter,
    module: str,
    arguments: Sequence[str],
    *,
    home: Path,
    env: Mapping[str, str],
    uid: int | None,
    stdin: int | IO[bytes],
    stdout: int,
    stderr: int,
    pass_fds: Sequence[int] = (),
) -> Spawned:
    """Start a module of mconv in ``home``, with ``env`` and no other variables.

    It runs as the user ``uid``, or as this process's own where that is None.
    """
    return Spawned(
        make_command(interpreter, module, arguments),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        pass_fds=pass_fds,
        env=dict(env),
        cwd=home,
        start_new_session=True,
        user=uid,
        group=uid,
        extra_groups=[] if uid is not None else None,
    )


def start_exchange(
    interpreter: Interpreter,
    module: str,
    arguments: Sequence[str],
    exchange: Exchange,
    *,
    home: Path,
    env: Mapping[str, str],
    uid: int | None,
) -> Spawned:
    """Start a module of mconv with ``ARGUMENTS… ANSWER`` and the descriptors of ``exchange``.

    The request is its standard input, the log its output, and the number of the descriptor for its
    answer the last argument.
    """
    answer = exchange.answer.writer
    return start_module(
        interpreter,
        module,
        [*arguments, str(answer)],
        home=home,
        env=env,
        uid=uid,
        stdin=exchange.request,
        stdout=exchange.log.writer,
        stderr=subprocess.STDOUT,
        pass_fds=(answer,),
    )


class Helper:
    """A process that others share for a while: it can die and be started again.

    Attributes:
        folder: A folder of the parent's own, which goes with the helper.
        interpreter: The environment that it runs in.
        home: The helper's home in it.
        process: The process, while there is one.
    """

    def __init__(self, folder: Path, interpreter: Interpreter = OWN) -> None:
        self.folder = folder
        self.interpreter = interpreter
        self.home = folder / "home"
        make_worker_folder(self.home)
        self.process: Spawned | None = None
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
        *,
        stdin: int,
        stdout: int | None = None,
    ) -> Spawned:
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
            uid=find_worker_uid(),
            stdin=stdin,
            stdout=log.writer if stdout is None else stdout,
            stderr=log.writer,
        )
        log.close_writer()
        return self.process

    def read_log(self) -> str:
        """Return the end of what it printed, once it is gone."""
        if self._collector is not None:
            self._collector.finish()
        return self._log.read_text() if self._log is not None else ""

    def kill(self) -> None:
        """End the process, its session, and what reads its log."""
        if self.process is not None:
            self.process.kill()
            self.process = None
        if self._collector is not None:
            self._collector.finish()
            self._collector = None

    def remove(self) -> None:
        """Remove its folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


def make_environment(
    home: Path,
    root: str,
    threads: int,
    extra: Mapping[str, str] | None = None,
    interpreter: Interpreter = OWN,
) -> dict[str, str]:
    """Return all environment variables of a worker.

    There is no token among them, no variable of a runner, nothing that reaches a network hub.
    ``root`` is the repository, ``threads`` how many its engines use; ``extra`` is added, and what
    ``interpreter`` says. Only mconv's own Python is told of the packages that ``PYTHONPATH`` names
    here.
    """
    clean = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    path = os.environ.get("PYTHONPATH", "") if interpreter.is_own else ""
    count = str(threads)
    return {
        **clean,
        "HOME": str(home),
        "TMPDIR": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "PYTHONPATH": path,
        "MCONV_PYTHON": sys.executable,
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONIOENCODING": "utf-8",
        "MCONV_ROOT": root,
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
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


def find_worker_uid() -> int | None:
    """Return the uid that workers run as; None is this process's own.

    There is one where this process is root and the image names it (``MCONV_WORKER_UID``).
    """
    value = os.environ.get("MCONV_WORKER_UID", "")
    return int(value) if value.isdigit() and hasattr(os, "geteuid") and os.geteuid() == 0 else None


def make_worker_folder(folder: Path) -> None:
    """Make a folder for a worker to write into, in one that the worker cannot change."""
    folder.mkdir()
    uid = find_worker_uid()
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
