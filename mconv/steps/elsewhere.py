"""What a step has done by another process: in another environment, or as another user.

The weights of an artifact are read by a process that the step's worker starts. A source is timed by
the step's companion, which the parent starts beside the worker, as another user and confined as the
repository's code is. Either gets its requests as lines of JSON and answers with lines of JSON, on
pipes or a socket of its own, since code of the repository may print.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Annotated

import msgspec

from mconv import registry
from mconv import weights as neutral
from mconv.environments.interpreter import GPUS, make_command
from mconv.errors import MconvError, StepError, WorkerCrashError, one_line
from mconv.steps._feeds import choose_feed
from mconv.steps.releases import check_source
from mconv.values import Frozen, Interpreter, JsonObject, SourceConfig, from_json

MODULE = "mconv.steps.elsewhere"
COMPANION = "MCONV_COMPANION"  # names the descriptor of the socket to it
AGAIN, END = b"again", b"end"  # lines that are no requests
LONGEST_LINE = 2**20  # bytes of an answer
LONGEST_MESSAGE = 4000  # characters of an error's message or hint
Duration = Annotated[float, msgspec.Meta(gt=0, le=1e9)]
MIN_RUNS = 5  # calls of a round
MAX_RUNS = 200
ROUND_SECONDS = 0.3
WARM_UP = 3  # calls that are not timed


class ClockRequest(Frozen, frozen=True, kw_only=True, tag="clock"):
    """A source is to be loaded and timed, a round each time that a line comes.

    Attributes:
        source: The source.
        reference: The folder of the reference, of which a sample is what it is called with.
    """

    source: SourceConfig
    reference: str


class ReadRequest(Frozen, frozen=True, kw_only=True, tag="read"):
    """The weights of an artifact are to be read and written by name (:mod:`mconv.weights`).

    Attributes:
        target: The target that wrote it.
        directory: Its folder.
        options: The target's options.
        out: The folder for the weights.
    """

    target: str
    directory: str
    options: JsonObject
    out: str


class Asked(Frozen, frozen=True, kw_only=True):
    """What the process is asked.

    Attributes:
        request: What to do.
        plugins: What to register first.
    """

    request: ClockRequest | ReadRequest
    plugins: tuple[str, ...] = msgspec.field(default_factory=registry.list_registered)


class Said(Frozen, frozen=True, kw_only=True):
    """A line of the process, as far as it is believed.

    Attributes:
        milliseconds: Of each call of a round.
        details: What was read tells of itself.
        error: What went wrong.
        hint: What to do about it.
    """

    milliseconds: Annotated[tuple[Duration, ...], msgspec.Meta(max_length=MAX_RUNS)] = ()
    details: JsonObject = {}
    error: Annotated[str, msgspec.Meta(max_length=LONGEST_MESSAGE)] | None = None
    hint: Annotated[str, msgspec.Meta(max_length=LONGEST_MESSAGE)] | None = None


class Peer:
    """A process that answers lines with lines.

    Attributes:
        name: What it is, for people.
        questions: Where it is asked.
        answers: Where it answers.
    """

    def __init__(self, name: str, questions: IO[bytes], answers: IO[bytes]) -> None:
        self.name = name
        self.questions = questions
        self.answers = answers

    def ask(self, request: ClockRequest | ReadRequest) -> None:
        """Ask for something."""
        self._write(msgspec.json.encode(Asked(request=request)))

    def ask_again(self) -> Said:
        """Have it do the same once more, and return what it says."""
        self._write(AGAIN)
        return self.listen()

    def end(self) -> None:
        """Have it let go of what it was asked for."""
        self._write(END)

    def _write(self, line: bytes) -> None:
        """Write a line to it; one that is dead is noticed when it is listened to."""
        with contextlib.suppress(BrokenPipeError, ConnectionError):
            self.questions.write(line + b"\n")
            self.questions.flush()

    def listen(self) -> Said:
        """Return its next line.

        Raises StepError with its words, and WorkerCrashError where it died or says what nobody
        asked for.
        """
        try:
            line = self.answers.readline(LONGEST_LINE)
        except ConnectionError:
            line = b""
        if not line:
            raise WorkerCrashError(
                f"{self.name} ended without an answer",
                hint="the log below is the last it printed",
            )
        try:
            answer = from_json(line, Said)
        except (ValueError, RecursionError) as problem:
            raise WorkerCrashError(f"{self.name} gave no answer") from problem
        if answer.error is not None:
            raise StepError(answer.error, hint=answer.hint)
        return answer


def open_companion() -> Peer:
    """Return the companion of this process's step.

    Raises StepError where there is none.
    """
    descriptor = os.environ.get(COMPANION, "")
    if not descriptor.isdigit():
        raise StepError("the step has no companion that times its source")
    os.set_inheritable(int(descriptor), False)
    # several parts of a model use it one after another
    questions = os.fdopen(os.dup(int(descriptor)), "wb")
    answers = os.fdopen(os.dup(int(descriptor)), "rb")
    return Peer("the process that times the source", questions, answers)


class Process(Peer):
    """A process in another environment, which this one starts.

    Attributes:
        process: The process.
    """

    def __init__(self, interpreter: Interpreter) -> None:
        reader, writer = os.pipe()
        # mconv's own Python is not this one where the step runs in a model's environment
        own = os.environ.get("MCONV_PYTHON", sys.executable)
        path = os.environ.get("PYTHONPATH", "") if interpreter.is_own else ""
        self.process = subprocess.Popen(
            make_command(interpreter, MODULE, [str(writer)], own=own),
            env={
                **os.environ,
                "PYTHONPATH": path,
                GPUS: "",  # the step's own process may see one
                **interpreter.variables,
            },
            stdin=subprocess.PIPE,
            pass_fds=(writer,),
        )
        os.close(writer)
        assert self.process.stdin is not None
        name = f"the process in the environment {interpreter.name or 'of mconv'!r}"
        super().__init__(name, self.process.stdin, os.fdopen(reader, "rb"))

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        self.answers.close()


def time_calls(call: Callable[[], object]) -> list[float]:
    """Return the milliseconds of each call: calls of about 0.3 s, at least 5 and at most 200."""
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < MIN_RUNS or (
        time.perf_counter() - begin < ROUND_SECONDS and len(times) < MAX_RUNS
    ):
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    return times


def read_weights(
    interpreter: Interpreter, target: str, directory: Path, options: Mapping[str, object], out: Path
) -> tuple[neutral.Folder, dict[str, object]]:
    """Have the weights of an artifact read in the target's environment.

    They are written into the folder ``out``. Returns them and what the file tells of itself. Raises
    StepError where it cannot be read.
    """
    request = ReadRequest(
        target=target, directory=str(directory), options=dict(options), out=str(out)
    )
    process = Process(interpreter)
    process.ask(request)
    try:
        details = dict(process.listen().details)
    finally:
        process.close()
    return neutral.Folder(out), details


def _serve_clock(request: ClockRequest, say: Callable[[Said], None], lines: IO[bytes]) -> None:
    """Load and warm a source, then time a round for each line, until one says that it ends."""
    check_source(request.source)
    model = registry.sources()[request.source.format].load(request.source)
    feed = choose_feed(Path(request.reference))
    for _round in range(WARM_UP):
        model.run(feed)
    say(Said())
    while lines.readline().strip() == AGAIN:
        say(Said(milliseconds=tuple(time_calls(lambda: model.run(feed)))))


def _serve_read(request: ReadRequest, say: Callable[[Said], None]) -> None:
    """Read the weights of an artifact, and write them by name."""
    read = registry.targets()[request.target].read
    assert read is not None
    tensors, details = read(Path(request.directory), options=request.options)
    out = Path(request.out)
    out.mkdir(parents=True, exist_ok=True)
    origin = neutral.About(format=request.target, architecture="")
    neutral.save(out, origin, tensors.items(), {})
    say(Said(details=details))


def main(answer: int) -> None:
    """Do what standard input asks for, and answer on the descriptor ``answer``; 0 is standard
    input, where that is a socket."""
    descriptor = os.dup(answer) if answer == 0 else answer
    os.set_inheritable(descriptor, False)
    with open(0, "rb", closefd=False) as lines, open(descriptor, "wb") as pipe:

        def say(said: Said) -> None:
            """Write a line."""
            pipe.write(msgspec.json.encode(said) + b"\n")
            pipe.flush()

        while line := lines.readline():
            if line.strip() not in (AGAIN, END):
                _serve(from_json(line, Asked), say, lines)


def _serve(asked: Asked, say: Callable[[Said], None], lines: IO[bytes]) -> None:
    """Do one thing that is asked for."""
    try:
        registry.restore(asked.plugins)
        if isinstance(asked.request, ClockRequest):
            _serve_clock(asked.request, say, lines)
        else:
            _serve_read(asked.request, say)
    except MconvError as problem:
        say(Said(error=problem.message[:LONGEST_MESSAGE], hint=problem.hint))
    except Exception as problem:  # code of the repository, and of engines, raises anything
        say(Said(error=f"{type(problem).__name__}: {one_line(problem, 2000)}"))


if __name__ == "__main__":
    main(int(sys.argv[1]))
