"""The child's side of an exchange: read the request, do it, answer, end."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn, TypeVar

from mconv.errors import MconvError, OutOfMemoryError, SourceError, one_line
from mconv.values import from_json, to_json
from mconv.workers import channels
from mconv.workers.confine import forbid_inspection
from mconv.workers.messages import LONGEST_MESSAGE, Problem, Response

PR_SET_PDEATHSIG = 1  # prctl(2)
R = TypeVar("R")
T = TypeVar("T")


def die_with_parent() -> None:
    """Have the system kill this process when its parent ends, however that may be."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def serve_request(descriptor: int, kind: type[R], work: Callable[[R], T]) -> NoReturn:
    """Do ``work`` on the request on standard input, answer, and end the process.

    What it returns or raises is written to ``descriptor``. It always answers, unless the process
    dies.
    """
    os.set_inheritable(descriptor, False)
    forbid_inspection()
    request = from_json(channels.take_over_input(), kind)
    response: Response[T]
    try:
        response = Response(answer=work(request))
    except MconvError as problem:
        traceback.print_exc()
        response = Response(error=_describe(problem, type(problem).__name__))
    except MemoryError:
        traceback.print_exc()
        memory = OutOfMemoryError("the step could not get the memory it asked for")
        response = Response(error=_describe(memory, OutOfMemoryError.__name__))
    except BaseException as problem:  # the child's only boundary: whatever it was is its answer
        traceback.print_exc()
        kind_of_problem = type(problem).__name__
        words = one_line(problem, 2000)
        error = SourceError(f"{kind_of_problem}: {words}" if words else kind_of_problem)
        response = Response(error=_describe(error, kind_of_problem))
    channels.write_answer(descriptor, to_json(response))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # engines with threads of their own can crash while the interpreter shuts down


def _describe(error: MconvError, kind: str) -> Problem:
    """Return the error as far as its parent believes it."""
    return Problem(
        type=kind[:100],
        message=error.message[:LONGEST_MESSAGE],
        hint=error.hint[:LONGEST_MESSAGE] if error.hint else None,
        place=error.place,
    )
