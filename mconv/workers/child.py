"""The child's side of a step: do what standard input asks for and answer."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import traceback
from pathlib import Path

from mconv import registry
from mconv.errors import MconvError, OutOfMemoryError, SourceError, one_line
from mconv.values import from_json, to_json
from mconv.workers import channels
from mconv.workers.messages import LONGEST_MESSAGE, Problem, Request, Response

PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Have the system kill this process when its parent ends, however that may be."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main(answer: int) -> int:
    """The child's side: do what standard input asks for and write the response to the descriptor
    ``answer``. It always writes one unless the process dies."""
    die_with_parent()
    os.set_inheritable(answer, False)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    from mconv.steps.run import run_step

    request = from_json(channels.take_over_input(), Request)
    folders = {name: Path(path) for name, path in request.folders.items()}
    try:
        registry.restore(request.plugins)
        response = Response(answer=run_step(request.step, folders, Path(request.out)))
    except MconvError as problem:
        traceback.print_exc()
        response = Response(error=_problem(problem, type(problem).__name__))
    except MemoryError:
        traceback.print_exc()
        response = Response(
            error=_problem(
                OutOfMemoryError("the step could not get the memory it asked for"),
                "OutOfMemoryError",
            )
        )
    except BaseException as problem:
        # the child's only boundary: whatever it was becomes this step's error
        traceback.print_exc()
        said = one_line(problem, 2000)
        error = SourceError(f"{type(problem).__name__}: {said}" if said else type(problem).__name__)
        response = Response(error=_problem(error, type(problem).__name__))
    channels.write_answer(answer, to_json(response))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # engines with threads of their own can crash while the interpreter shuts down


def _problem(error: MconvError, kind: str) -> Problem:
    hint = error.hint[:LONGEST_MESSAGE] if error.hint else None
    return Problem(
        type=kind[:100], message=error.message[:LONGEST_MESSAGE], hint=hint, place=error.place
    )


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
