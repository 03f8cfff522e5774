"""The child process of one step: request in, response out, both JSON, over descriptors
(:mod:`mconv.workers.channels`).

The parent side (:func:`run_step`) starts it confined, with a minimal environment, watches its time
and memory, and turns every way of dying into an error value. The child side
(:mod:`mconv.workers.child`) does the step and writes the response. What the child answers is
believed no further than its types go (:mod:`mconv.answers`).
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

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
from mconv.steps.requests import MeasureRequest
from mconv.values import OWN, ErrorInfo, Frozen, Interpreter, to_json
from mconv.workers import identities
from mconv.workers.cgroups import Group, make_group
from mconv.workers.channels import LOG_LIMIT, Exchange
from mconv.workers.companion import Companion
from mconv.workers.confine import Confinement
from mconv.workers.memory import LEFT_FOR_OTHERS, Meter
from mconv.workers.messages import (
    FinishedStep,
    Request,
    StepResponse,
    make_malformed_error,
    read_response,
)
from mconv.workers.policy import Repository, confine, find_step_access
from mconv.workers.spawn import (
    Supervised,
    describe_death,
    make_environment,
    make_worker_folder,
    start_exchange,
)

POLL_SECONDS = 0.05
SPARE = 64 * 2**10  # bytes of a disk that is as good as full
FULL = "free some space, or name another store with --store"


# the worker's descriptors, home, environment variables and confinement
Start = Callable[[Exchange, Path, Mapping[str, str], Confinement], Supervised]


def spawn(
    exchange: Exchange,
    home: Path,
    env: Mapping[str, str],
    confinement: Confinement,
    interpreter: Interpreter = OWN,
    sockets: tuple[int, ...] = (),
) -> Supervised:
    """Start a worker from nothing, with the descriptors of ``exchange`` and ``sockets``."""
    return start_exchange(
        interpreter,
        "mconv.workers.child",
        [],
        exchange,
        home=home,
        env=env,
        confinement=confinement,
        pass_fds=sockets,
    )


class Grants(Frozen, frozen=True, kw_only=True):
    """What a step is given beside its request.

    Attributes:
        interpreter: The environment that it runs in.
        others: The environments of processes that it starts.
        variables: Variables of its environment.
        ports: TCP ports of the services that it uses.
        network: The model's code may use the network.
    """

    interpreter: Interpreter = OWN
    others: tuple[Interpreter, ...] = ()
    variables: dict[str, str] = {}
    ports: tuple[int, ...] = ()
    network: bool = False


PLAIN = Grants()


def run_step(
    request: Request,
    workspace: Path,
    *,
    root: str,
    threads: int,
    timeout_s: float,
    memory_bytes: int | None,
    stop: threading.Event,
    grants: Grants = PLAIN,
    repository: Repository | None = None,
    start: Start | None = None,
) -> FinishedStep:
    """Run one step in a child process and return how it went.

    It never raises for what the child does. Where ``stop`` is set, the child is killed.
    ``repository`` is what the model's code may read of it, looked up where it is None. ``start``
    makes the child, by default from nothing; else out of a server that has imported what it needs
    (:mod:`mconv.workers.forkserver`).
    """
    # the source framework's too, where it is measured
    threads = request.step.threads or threads
    home, out = workspace / "home", Path(request.out)
    uid = identities.take_user()
    for folder in (home, out):
        make_worker_folder(folder, uid)
    access = find_step_access(
        request.step,
        folders=request.folders.values(),
        plugins=request.plugins,
        writable=(str(home), str(out)),
        repository=repository,
        network=grants.network,
        ports=grants.ports,
    )
    confinement = confine(access, grants.interpreter, uid, grants.others)
    kind = request.step.kind
    begin = time.monotonic()
    peak: int | None = None
    companion: Companion | None = None
    with Exchange(to_json(request).encode()) as exchange:
        try:
            more = dict(grants.variables)
            if isinstance(request.step, MeasureRequest) and request.step.beside is not None:
                companion = Companion(
                    request.step,
                    request.step.beside,
                    home=workspace / "companion",
                    root=root,
                    threads=threads,
                    variables=grants.variables,
                    folders=request.folders.values(),
                    plugins=request.plugins,
                    repository=repository,
                    network=grants.network,
                )
                more |= companion.make_variables()
            variables = make_environment(
                home, root, threads, more, grants.interpreter, online=grants.network
            )
            if start is None or companion is not None:
                sockets = (companion.socket.fileno(),) if companion is not None else ()
                process = spawn(exchange, home, variables, confinement, grants.interpreter, sockets)
            else:
                process = start(exchange, home, variables, confinement)
            exchange.close_child_ends()
            begin = time.monotonic()
            with _hold_in_group(process) as group:
                process.release()
                watched = (process, *([companion.process] if companion is not None else []))
                verdict, peak = _watch(watched, group, begin, timeout_s, memory_bytes, stop)
            seconds = time.monotonic() - begin
            answer = exchange.read_answer()
            if verdict is not None:
                raise verdict
            if process.left and group is None:  # all that is in a group ends with it
                raise _describe_left(process.left)
            if answer == b"":
                raise _explain_death(process.returncode, workspace)
            response = read_response(answer, StepResponse, f"a step {kind!r}")
            if response.answer is not None and response.answer.kind != kind:
                raise make_malformed_error(f"a step {kind!r}", "it is that of another kind of step")
        except MconvError as problem:
            exchange.finish()
            return FinishedStep(
                answer=None,
                error=_describe_error(problem, kind, _read_logs(exchange, companion)),
                seconds=time.monotonic() - begin,
                peak_rss_bytes=peak,
            )
        finally:
            if companion is not None:
                companion.close()
        tail = _read_logs(exchange, companion)
    error: ErrorInfo | None = None
    if response.error is not None:
        error = ErrorInfo(**msgspec.structs.asdict(response.error), step=kind, log=tail)
    return FinishedStep(answer=response.answer, error=error, seconds=seconds, peak_rss_bytes=peak)


@contextlib.contextmanager
def _hold_in_group(process: Supervised) -> Iterator[Group | None]:
    """Hold a process that waits, and all that it will start, in a control group while the block
    runs; in none where none can be made.

    Raises WorkerCrashError where what is in it cannot be ended.
    """
    group = make_group()
    if group is not None:
        try:
            group.add(process.pid)
        except OSError:
            group.close()
            group = None
    try:
        yield group
    finally:
        if group is not None and not group.close():
            raise _describe_left(1)


def _read_logs(exchange: Exchange, companion: Companion | None) -> str:
    """Return what a worker printed, and after it what its companion did."""
    text = exchange.log.read_text()
    if companion is None:
        return text
    companion.close()
    return "\n".join(filter(None, (text, companion.log.read_text())))[-LOG_LIMIT:]


def _describe_left(count: int) -> WorkerCrashError:
    """Return the error of a step some of whose processes may still run."""
    if count < 0:
        return WorkerCrashError(
            "the process that watches over the step ended before it, so that what the step started "
            "may still run",
            hint="code of the repository may have ended it",
        )
    return WorkerCrashError(
        f"{count} processes of the step could not be ended",
        hint="the system holds them back; their files are not used",
    )


def _explain_death(code: int | None, workspace: Path) -> MconvError:
    """Return why a worker that ended with ``code`` has no answer."""
    if shutil.disk_usage(workspace).free < SPARE:
        return StoreError(f"No space left on device, at {workspace.parent}", hint=FULL)
    return WorkerCrashError(describe_death(code), hint="the log below is the last it printed")


def _watch(
    processes: Sequence[Supervised],
    group: Group | None,
    begin: float,
    timeout_s: float,
    memory_bytes: int | None,
    stop: threading.Event,
) -> tuple[StepError | None, int | None]:
    """Wait for the first of the processes, and kill it and all that it started when they pass a
    limit.

    Returns why it was killed, if it was, and the peak of its memory in bytes.
    """
    process = processes[0]
    peak = 0
    reason: StepError | None = None
    limit = memory_bytes or max(hardware.read_available_bytes() - LEFT_FOR_OTHERS, LEFT_FOR_OTHERS)
    meter = Meter([each.supervisor for each in processes], limit)
    try:
        while process.poll() is None and reason is None:
            used = meter.read() if group is None else group.read_memory() or meter.read()
            peak = max(peak, used)
            if used > limit:
                reason = OutOfMemoryError(
                    f"{_describe_user(meter)} used more than {limit / 1e9:.2f} GB of memory and "
                    "was stopped",
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


def _describe_user(meter: Meter) -> str:
    """Return who used the memory, and how it was counted where that may be too much."""
    if meter.is_exact or meter.count < 2:
        return "the step"
    return f"the step, of {meter.count} processes whose shared memory counts for each of them,"


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
