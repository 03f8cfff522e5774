"""The child process of one step: request in, response out, both JSON, over descriptors
(:mod:`mconv.workers.channels`).

The parent side (:func:`run_step`) starts it in a session of its own with a minimal environment,
watches its time and memory, and turns every way of dying into an error value. The child side
(:mod:`mconv.workers.child`) does the step and writes the response. What the child answers is
believed no further than its types go (:mod:`mconv.answers`).
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from mconv import hardware
from mconv.errors import (
    MconvError,
    OutOfMemoryError,
    StepError,
    StoreError,
    TimeLimitError,
    WorkerCrashError,
)
from mconv.values import OWN, ErrorInfo, Interpreter, to_json
from mconv.workers.channels import Exchange
from mconv.workers.memory import LEFT_FOR_OTHERS, measure_resident
from mconv.workers.messages import (
    FinishedStep,
    Request,
    StepResponse,
    make_malformed_error,
    read_response,
)
from mconv.workers.spawn import (
    describe_death,
    find_worker_uid,
    make_environment,
    make_worker_folder,
    start_exchange,
)

POLL_SECONDS = 0.05
SPARE = 64 * 2**10  # bytes of a disk that is as good as full
FULL = "free some space, or name another store with --store"


class Process(Protocol):
    """A started worker: Popen's interface, as far as :func:`run_step` needs it.

    Attributes:
        pid: Its process id.
        returncode: Its exit code once it has ended; negative is the signal that ended it.
    """

    pid: int
    returncode: int | None

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit code. Raises TimeoutExpired as Popen does."""

    def kill(self) -> None:
        """End its whole session and wait for it."""


# the worker's descriptors, home and environment variables
Start = Callable[[Exchange, Path, Mapping[str, str]], Process]


def spawn(
    exchange: Exchange, home: Path, env: Mapping[str, str], interpreter: Interpreter = OWN
) -> Process:
    """Start a worker from nothing, with the descriptors of ``exchange``."""
    return start_exchange(
        interpreter,
        "mconv.workers.child",
        [],
        exchange,
        home=home,
        env=env,
        uid=find_worker_uid(),
    )


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
    interpreter: Interpreter = OWN,
    start: Start | None = None,
) -> FinishedStep:
    """Run one step in a child process and return how it went.

    It never raises for what the child does. Where ``stop`` is set, the child is killed. It runs in
    the environment of ``interpreter``. ``start`` makes it, by default from nothing; else out of a
    server that has imported what it needs (:mod:`mconv.workers.forkserver`).
    """
    # the source framework's too, where it is measured
    threads = request.step.threads or threads
    home = workspace / "home"
    for folder in (home, Path(request.out)):
        make_worker_folder(folder)
    with Exchange(to_json(request).encode()) as exchange:
        variables = make_environment(home, root, threads, extra, interpreter)
        if start is None:
            process = spawn(exchange, home, variables, interpreter)
        else:
            process = start(exchange, home, variables)
        exchange.close_child_ends()
        begin = time.monotonic()
        verdict, peak = _watch(process, begin, timeout_s, memory_bytes, stop)
        seconds = time.monotonic() - begin
        answer = exchange.read_answer()
        tail = exchange.log.read_text()
    kind = request.step.kind
    try:
        if verdict is not None:
            raise verdict
        if answer == b"":
            raise _explain_death(process.returncode, workspace)
        response = read_response(answer, StepResponse, f"a step {kind!r}")
        if response.answer is not None and response.answer.kind != kind:
            raise make_malformed_error(f"a step {kind!r}", "it is that of another kind of step")
    except MconvError as problem:
        return FinishedStep(
            answer=None,
            error=_describe_error(problem, kind, tail),
            seconds=seconds,
            peak_rss_bytes=peak,
        )
    error: ErrorInfo | None = None
    if response.error is not None:
        error = ErrorInfo(**msgspec.structs.asdict(response.error), step=kind, log=tail)
    return FinishedStep(answer=response.answer, error=error, seconds=seconds, peak_rss_bytes=peak)


def _explain_death(code: int | None, workspace: Path) -> MconvError:
    """Return why a worker that ended with ``code`` has no answer."""
    if shutil.disk_usage(workspace).free < SPARE:
        return StoreError(f"No space left on device, at {workspace.parent}", hint=FULL)
    return WorkerCrashError(describe_death(code), hint="the log below is the last it printed")


def _watch(
    process: Process,
    begin: float,
    timeout_s: float,
    memory_bytes: int | None,
    stop: threading.Event,
) -> tuple[StepError | None, int | None]:
    """Wait for the child, and kill its whole session when it passes a limit.

    Returns why it was killed, if it was, and the peak of its memory in bytes.
    """
    peak = 0
    reason: StepError | None = None
    limit = memory_bytes or max(hardware.read_available_bytes() - LEFT_FOR_OTHERS, LEFT_FOR_OTHERS)
    try:
        while process.poll() is None and reason is None:
            used = measure_resident(process.pid)
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


def _describe_error(problem: MconvError, kind: str, log: str) -> ErrorInfo:
    """Return the error of a step as the report shows it."""
    return ErrorInfo(
        type=type(problem).__name__,
        message=problem.message,
        hint=problem.hint,
        step=kind,
        place=problem.place,
        log=log,
    )
