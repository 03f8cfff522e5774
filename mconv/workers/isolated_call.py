"""One function call in a child process of its own, with a time limit: what it does cannot harm or
hang the caller.

It is for probes of engines and drivers, and for reading files that may crash what reads them.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

import msgspec

from mconv import plain_files, registry
from mconv.errors import SourceError, TimeLimitError, WorkerCrashError, one_line
from mconv.values import OWN, Frozen, Interpreter, JsonObject, JsonValue, to_json
from mconv.workers import identities
from mconv.workers.channels import Exchange
from mconv.workers.confine import FREE
from mconv.workers.messages import Response, read_response
from mconv.workers.policy import NOTHING, Access, confine
from mconv.workers.serve import serve_request
from mconv.workers.spawn import (
    describe_death,
    make_environment,
    make_worker_folder,
    start_exchange,
)


class Call(Frozen, frozen=True, kw_only=True):
    """What the child is asked.

    Attributes:
        arguments: Keyword arguments of the function, as JSON.
        plugins: What to register first.
    """

    arguments: JsonObject
    plugins: tuple[str, ...] = msgspec.field(default_factory=registry.list_registered)


class Returned(Frozen, frozen=True, kw_only=True):
    """What the function returned.

    Attributes:
        value: It, as JSON.
    """

    value: JsonValue


def call(
    function: str,
    arguments: JsonObject,
    *,
    timeout_s: float,
    access: Access | None = NOTHING,
    uid: int | None = None,
    interpreter: Interpreter = OWN,
) -> object:
    """Return ``module:function(**arguments)`` of a child process, as JSON.

    It runs in the environment of ``interpreter`` with the clean variables of a worker, and is given
    ``access`` and its home. ``uid`` is its user, by default one of its own where there are any.
    Where ``access`` is None it is trusted: it is this process's user, with its variables and
    access, as devices need.

    Raises TimeLimitError, WorkerCrashError with the last it printed, and SourceError with the words
    of any exception.
    """
    folder = Path(tempfile.mkdtemp(prefix="mconv-call-"))
    home = folder / "home"
    clean = make_environment(home, str(home), os.cpu_count() or 1, interpreter=interpreter)
    try:
        if access is None:
            home.mkdir()
            confinement = FREE
            own = {
                "PYTHONPATH": clean["PYTHONPATH"],
                "TF_CPP_MIN_LOG_LEVEL": "3",
                **interpreter.variables,
            }
            variables = {**os.environ, **own}
        else:
            folder.chmod(0o711)
            uid = identities.take_user() if uid is None else uid
            make_worker_folder(home, uid)
            writable = (str(home), *access.writable)
            given = msgspec.structs.replace(access, writable=writable)
            confinement = confine(given, interpreter, uid)
            variables = clean
        with Exchange(to_json(Call(arguments=dict(arguments))).encode()) as exchange:
            process = start_exchange(
                interpreter,
                "mconv.workers.isolated_call",
                [function],
                exchange,
                home=home,
                env=variables,
                confinement=confinement,
            )
            exchange.close_child_ends()
            process.release()
            try:
                process.wait(timeout_s)
            except subprocess.TimeoutExpired as problem:
                raise TimeLimitError(f"no answer in {timeout_s:g} s") from problem
            finally:
                process.kill()
            answer = exchange.read_answer()
            printed = one_line(exchange.log.read_text()[-400:], 400)
    finally:
        plain_files.remove_folder(folder)
    if process.left:
        raise WorkerCrashError("processes that it started could not be ended")
    if answer == b"":
        death = describe_death(process.returncode)
        raise WorkerCrashError(f"{death}: {printed}" if printed else death)
    response = read_response(answer, Response[Returned], f"a call of {function}")
    if response.error is not None:
        raise SourceError(response.error.message, hint=response.error.hint)
    return response.answer.value if response.answer is not None else None


def main(function: str, answer: int) -> NoReturn:
    """Call ``function`` with what standard input holds.

    What it returns is written to the descriptor ``answer``.
    """
    module, _, name = function.partition(":")

    def work(request: Call) -> Returned:
        """Call the function."""
        registry.restore(request.plugins)
        result = getattr(importlib.import_module(module), name)(**request.arguments)
        return Returned(value=msgspec.to_builtins(result))

    serve_request(answer, Call, work)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
