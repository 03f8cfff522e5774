"""One function call in a child process of its own, with a time limit: what it does cannot harm or hang the caller.

For probes of engines and drivers, and for reading files that may crash what reads them. JSON in, JSON out.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from mconv import registry, worker
from mconv.errors import MconvError, SourceError, TimeLimitError, WorkerCrashError
from mconv.values import ErrorInfo, Frozen, from_json, to_json


class _Answer(Frozen, frozen=True, kw_only=True):
    """What the child says; ``result`` is JSON-ready."""

    result: Any = None
    error: ErrorInfo | None = None


def call(function: str, arguments: Mapping[str, Any], *, timeout_s: float, trusted: bool = False) -> Any:
    """``module:function(**arguments)`` in a child process. ``trusted``: it sees this process's environment (as devices need), else
    the clean one of a worker, as its user.

    Raises TimeLimitError, WorkerCrashError with the last it printed, and SourceError with the words of any exception.
    """
    uid = None if trusted else worker.worker_uid()
    folder = Path(tempfile.mkdtemp(prefix="mconv-call-"))
    home = folder / "home"
    home.mkdir()
    if uid is not None:
        folder.chmod(0o711)
        os.chown(home, uid, uid)
    environment = worker.environment(home, str(home), os.cpu_count() or 1)
    if trusted:
        environment = {**os.environ, "PYTHONPATH": environment["PYTHONPATH"], "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-P", "-m", "mconv.isolate", function, str(home / "answer.json")]
    log = folder / "log.txt"
    try:
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=home,
                start_new_session=True,
                user=uid,
                group=uid,
                extra_groups=[] if uid is not None else None,
            )
        try:
            asked = {"arguments": dict(arguments), "plugins": registry.registered()}
            process.communicate(to_json(asked).encode(), timeout=timeout_s)
        except subprocess.TimeoutExpired as problem:
            raise TimeLimitError(f"no answer in {timeout_s:g} s") from problem
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        try:
            answer = from_json((home / "answer.json").read_bytes(), _Answer)
        except (OSError, msgspec.MsgspecError) as problem:
            said = worker.read_tail(log, 400)
            raise WorkerCrashError(worker.death(process.returncode) + (f": {said}" if said else "")) from problem
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if answer.error is not None:
        raise SourceError(answer.error.message, hint=answer.error.hint)
    return answer.result


def main(argv: list[str]) -> int:
    """Child side."""
    asked = msgspec.json.decode(sys.stdin.buffer.read())
    module, _, name = argv[0].partition(":")
    try:
        registry.restore(asked["plugins"])
        result = getattr(importlib.import_module(module), name)(**asked["arguments"])
        text = to_json(_Answer(result=msgspec.to_builtins(result)))
    except MconvError as problem:
        text = to_json(_Answer(error=ErrorInfo(type=type(problem).__name__, message=problem.message, hint=problem.hint)))
    except BaseException as problem:  # the child's only boundary: whatever it was is the answer
        traceback.print_exc()
        said = " ".join(str(problem).split())[:1000]
        kind = type(problem).__name__
        text = to_json(_Answer(error=ErrorInfo(type=kind, message=f"{kind}: {said}" if said else kind)))
    target = Path(argv[1])
    target.with_suffix(".tmp").write_text(text)
    target.with_suffix(".tmp").rename(target)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # engines with threads of their own can crash while the interpreter shuts down


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
