"""The child process of one step: request in, response out, both JSON, over descriptors
(:mod:`mconv.workers.channels`).

The parent side (:func:`run_step`) starts it in a session of its own with a minimal environment,
watches its time and memory, and turns every way of dying into an error value. The child side
(:mod:`mconv.workers.child`) does the step and writes the response. What the child answers is
believed no further than its types go (:mod:`mconv.answers`)."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from mconv import hardware
from mconv.answers import Answer
from mconv.errors import (
    MconvError,
    OutOfMemoryError,
    StepError,
    StoreError,
    TimeLimitError,
    WorkerCrashError,
)
from mconv.values import ErrorInfo, to_json
from mconv.workers.channels import Exchange
from mconv.workers.memory import LEFT_FOR_OTHERS, resident
from mconv.workers.messages import Outcome, Request, read_response

POLL_SECONDS = 0.05

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
SPARE = 64 * 2**10  # bytes of a disk that is as good as full
FULL = "free some space, or name another store with --store"


class Process(Protocol):
    """A started worker: Popen's interface, as far as :func:`run_step` needs it."""

    pid: int
    returncode: int | None

    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def kill(self) -> None:
        """End its whole session and wait for it."""


# the worker's descriptors, home and environment
Start = Callable[[Exchange, Path, Mapping[str, str]], Process]


class Spawned(subprocess.Popen[bytes]):
    """A worker started from nothing, in a session of its own."""

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait()


def spawn(exchange: Exchange, home: Path, env: Mapping[str, str]) -> Process:
    """Start ``python -m mconv.workers.child`` with the descriptors of ``exchange``."""
    return spawn_module("mconv.workers.child", [], exchange, home, env, worker_uid())


def spawn_module(
    module: str,
    arguments: Sequence[str],
    exchange: Exchange,
    home: Path,
    env: Mapping[str, str],
    uid: int | None,
) -> Spawned:
    """Start ``python -m MODULE ARGUMENTS… ANSWER``: the request on its standard input, the log as
    its output, and the number of the descriptor for its answer as the last argument. ``uid``: the
    user it runs as, if not this process's own."""
    answer = exchange.answer.writer
    return Spawned(
        [sys.executable, "-P", "-m", module, *arguments, str(answer)],
        stdin=exchange.request,
        stdout=exchange.log.writer,
        stderr=subprocess.STDOUT,
        pass_fds=(answer,),
        env=dict(env),
        cwd=home,
        start_new_session=True,
        user=uid,
        group=uid,
        extra_groups=[] if uid is not None else None,
    )


def environment(
    home: Path, root: str, threads: int, extra: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The worker's whole environment: no token, no runner variables, nothing that reaches a network
    hub; and ``extra``."""
    clean = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    package = str(Path(__file__).resolve().parents[2])
    paths = [package, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    count = str(threads)
    return {
        **clean,
        "HOME": str(home),
        "TMPDIR": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
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
        "CUDA_VISIBLE_DEVICES": "",
        "TOKENIZERS_PARALLELISM": "false",
        **(extra or {}),
    }


def worker_uid() -> int | None:
    """The uid that workers run as where the parent is root and the image names one
    (``MCONV_WORKER_UID``)."""
    value = os.environ.get("MCONV_WORKER_UID", "")
    return int(value) if value.isdigit() and hasattr(os, "geteuid") and os.geteuid() == 0 else None


def run_step(
    request: Request,
    workspace: Path,
    *,
    root: str,
    threads: int,
    timeout_s: float,
    memory_bytes: int | None,
    stop: threading.Event,
    extra: Mapping[str, str] | None = None,
    start: Start = spawn,
) -> Outcome:
    """Run one step in a child process; never raises for what the child does. ``stop`` set: the
    child is killed.

    ``start`` makes the child: from nothing, or out of a server that has imported what it needs
    (:mod:`mconv.workers.forkserver`)."""
    # the source framework's too, where it is measured
    threads = request.step.threads or threads
    home = workspace / "home"
    for folder in (home, Path(request.out)):
        make_worker_folder(folder)
    with Exchange(to_json(request).encode()) as exchange:
        process = start(exchange, home, environment(home, root, threads, extra))
        exchange.close_child_ends()
        begin = time.monotonic()
        verdict, peak = _watch(process, begin, timeout_s, memory_bytes, stop)
        seconds = time.monotonic() - begin
        answer = exchange.read_answer()
        tail = exchange.log.text()
    kind = request.step.kind
    done: Answer | None = None
    error: ErrorInfo | None = None
    if verdict is not None:
        error = _error(verdict, kind, tail)
    elif answer == b"":  # it died
        died: MconvError = WorkerCrashError(
            death(process.returncode), hint="the log below is the last it printed"
        )
        if shutil.disk_usage(workspace).free < SPARE:
            died = StoreError(f"No space left on device, at {workspace.parent}", hint=FULL)
        error = _error(died, kind, tail)
    else:
        try:
            response = read_response(kind, answer)
        except WorkerCrashError as malformed:
            error = _error(malformed, kind, tail)
        else:
            done = response.answer
            if response.error is not None:
                error = ErrorInfo(**msgspec.structs.asdict(response.error), step=kind, log=tail)
    return Outcome(answer=done, error=error, seconds=seconds, peak_rss_bytes=peak)


def make_worker_folder(folder: Path) -> None:
    """Make a folder for a worker to write into, in one that the worker cannot change."""
    folder.mkdir()
    uid = worker_uid()
    if uid is not None:
        os.chown(folder, uid, uid, follow_symlinks=False)


def _watch(
    process: Process,
    begin: float,
    timeout_s: float,
    memory_bytes: int | None,
    stop: threading.Event,
) -> tuple[StepError | None, int | None]:
    """Wait for the child; kill its whole session when it passes a limit. Returns the reason, and
    the peak of its memory."""
    peak = 0
    reason: StepError | None = None
    limit = memory_bytes or max(hardware.available_bytes() - LEFT_FOR_OTHERS, LEFT_FOR_OTHERS)
    try:
        while process.poll() is None and reason is None:
            used = resident(process.pid)
            peak = max(peak, used)
            if used > limit:
                reason = OutOfMemoryError(
                    f"the step used more than {limit / 1e9:.2f} GB of memory and was stopped",
                    hint="raise `resources: {memory: …}` for this model, or use a larger runner",
                )
            elif time.monotonic() - begin > timeout_s:
                reason = TimeLimitError(
                    f"the step took longer than {timeout_s:g} s and was stopped",
                    hint="raise `resources: {timeout: …}` for this model",
                )
            elif stop.is_set():
                reason = StepError("the run was interrupted")
            else:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(POLL_SECONDS)
    finally:
        process.kill()
    return reason, peak or None


def _error(problem: MconvError, kind: str, log: str) -> ErrorInfo:
    return ErrorInfo(
        type=type(problem).__name__,
        message=problem.message,
        hint=problem.hint,
        step=kind,
        place=problem.place,
        log=log,
    )


def death(code: int | None) -> str:
    """How a process with this return code died, in words."""
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
