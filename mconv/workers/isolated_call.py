"""One function call in a child process of its own, with a time limit: what it does cannot harm or
hang the caller.

For probes of engines and drivers, and for reading files that may crash what reads them. JSON in,
JSON out."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from mconv import registry
from mconv.errors import MconvError, SourceError, TimeLimitError, WorkerCrashError, one_line
from mconv.values import ErrorInfo, Frozen, from_json, to_json
from mconv.workers import channels
from mconv.workers import process as workers_process
from mconv.workers.channels import Exchange


class _Request(Frozen, frozen=True, kw_only=True):
    """What the child is asked: keyword arguments, and the plug-ins to register first."""

    arguments: dict[str, Any]
    plugins: tuple[str, ...] = msgspec.field(default_factory=registry.registered)


class _Answer(Frozen, frozen=True, kw_only=True):
    """What the child says; ``result`` is JSON-ready."""

    result: Any = None
    error: ErrorInfo | None = None


def call(
    function: str, arguments: Mapping[str, Any], *, timeout_s: float, trusted: bool = False
) -> Any:
    """``module:function(**arguments)`` in a child process. ``trusted``: it sees this process's
    environment (as devices need), else the clean one of a worker, as its user.

    Raises TimeLimitError, WorkerCrashError with the last it printed, and SourceError with the words
    of any exception."""
    folder = Path(tempfile.mkdtemp(prefix="mconv-call-"))
    home = folder / "home"
    try:
        if trusted:
            home.mkdir()
        else:
            folder.chmod(0o711)
            workers_process.make_worker_folder(home)
        environment = workers_process.environment(home, str(home), os.cpu_count() or 1)
        if trusted:
            environment = {
                **os.environ,
                "PYTHONPATH": environment["PYTHONPATH"],
                "TF_CPP_MIN_LOG_LEVEL": "3",
            }
        asked = _Request(arguments=dict(arguments))
        with Exchange(to_json(asked).encode()) as exchange:
            uid = None if trusted else workers_process.worker_uid()
            process = workers_process.spawn_module(
                "mconv.workers.isolated_call", [function], exchange, home, environment, uid
            )
            exchange.close_child_ends()
            try:
                process.wait(timeout_s)
            except subprocess.TimeoutExpired as problem:
                raise TimeLimitError(f"no answer in {timeout_s:g} s") from problem
            finally:
                process.kill()
            answer = _read_answer(exchange, process.returncode)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if answer.error is not None:
        raise SourceError(answer.error.message, hint=answer.error.hint)
    return answer.result


def _read_answer(exchange: Exchange, code: int | None) -> _Answer:
    """The answer of a child that ended with ``code``. Raises WorkerCrashError where there is none
    that can be read."""
    data = exchange.read_answer()
    if data:
        try:
            return from_json(data, _Answer)
        except (ValueError, RecursionError) as problem:
            raise WorkerCrashError(
                f"the answer of the process cannot be read: {one_line(problem, 200)}"
            ) from problem
    printed = one_line(exchange.log.text()[-400:], 400)
    ended = (
        workers_process.death(code)
        if data is not None
        else "the answer of the process is too large"
    )
    raise WorkerCrashError(ended + (f": {printed}" if printed else ""))


def main(function: str, answer: int) -> int:
    """The child's side: call ``function`` with what standard input holds, write what it returns to
    the descriptor ``answer``."""
    os.set_inheritable(answer, False)
    asked = from_json(channels.take_over_input(), _Request)
    module, _, name = function.partition(":")
    try:
        registry.restore(asked.plugins)
        result = getattr(importlib.import_module(module), name)(**asked.arguments)
        text = to_json(_Answer(result=msgspec.to_builtins(result)))
    except MconvError as problem:
        text = to_json(
            _Answer(
                error=ErrorInfo(
                    type=type(problem).__name__, message=problem.message, hint=problem.hint
                )
            )
        )
    except BaseException as problem:  # the child's only boundary: whatever it was is the answer
        traceback.print_exc()
        said = one_line(problem, 1000)
        kind = type(problem).__name__
        text = to_json(
            _Answer(error=ErrorInfo(type=kind, message=f"{kind}: {said}" if said else kind))
        )
    channels.write_answer(answer, text)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # engines with threads of their own can crash while the interpreter shuts down


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
