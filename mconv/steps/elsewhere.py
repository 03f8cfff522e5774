"""What a step does in another environment than its own: a process there, which it starts and asks.

The process gets its request as a line of JSON on its standard input and answers with a line of JSON
on a pipe of its own, since code of the repository may print. It lives in the session of the step's
worker and ends with it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO

import msgspec

from mconv import registry, samples
from mconv import weights as neutral
from mconv.environments.interpreter import GPUS, make_command
from mconv.errors import MconvError, StepError, WorkerCrashError, one_line
from mconv.steps.releases import check_source
from mconv.values import Frozen, Interpreter, JsonObject, SourceConfig, from_json

MODULE = "mconv.steps.elsewhere"
MIN_RUNS = 5  # calls of a round
MAX_RUNS = 200
ROUND_SECONDS = 0.3
WARM_UP = 3  # calls that are not timed


class ClockRequest(Frozen, frozen=True, kw_only=True, tag="clock"):
    """A source is to be loaded and timed, a round each time that a line comes.

    Attributes:
        source: The source.
        weighted: It is opened with its weights by name.
        part: The part that is opened so; None is the whole.
        feed: The file of what it is called with.
    """

    source: SourceConfig
    weighted: bool
    part: str | None
    feed: str


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
    """A line of the process.

    Attributes:
        milliseconds: Of each call of a round.
        details: What was read tells of itself.
        error: What went wrong.
        hint: What to do about it.
    """

    milliseconds: tuple[float, ...] = ()
    details: JsonObject = {}
    error: str | None = None
    hint: str | None = None


class Process:
    """A process in another environment.

    Attributes:
        name: The environment's name, for people.
        process: The process.
        answers: Where it answers.
    """

    def __init__(self, interpreter: Interpreter, request: ClockRequest | ReadRequest) -> None:
        self.name = interpreter.name
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
        self.answers: IO[bytes] = open(reader, "rb")  # noqa: SIM115  # close() closes it
        self._write(msgspec.json.encode(Asked(request=request)))

    def _write(self, line: bytes) -> None:
        """Write a line to it; one that is dead is noticed when it is listened to."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(line + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return

    def listen(self) -> Said:
        """Return its next line.

        Raises StepError with its words, and WorkerCrashError where it died.
        """
        line = self.answers.readline()
        if not line:
            raise WorkerCrashError(
                f"the process in the environment {self.name or 'of mconv'!r} ended with exit code "
                f"{self.process.wait()}",
                hint="the log below is the last it printed",
            )
        try:
            answer = from_json(line, Said)
        except msgspec.DecodeError as problem:
            raise WorkerCrashError(
                f"the process in the environment {self.name!r} gave no answer"
            ) from problem
        if answer.error is not None:
            raise StepError(answer.error, hint=answer.hint)
        return answer

    def ask_again(self) -> Said:
        """Have it do the same once more, and return what it says."""
        self._write(b"")
        return self.listen()

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
    process = Process(interpreter, request)
    try:
        details = dict(process.listen().details)
    finally:
        process.close()
    return neutral.Folder(out), details


def _serve_clock(request: ClockRequest, say: Callable[[Said], None], lines: Iterable[str]) -> None:
    """Load and warm a source, then time a round for each line."""
    check_source(request.source)
    source = registry.sources()[request.source.format]
    if request.weighted:
        assert source.weights is not None
        model: registry.Model = source.weights(request.source, request.part)
    else:
        model = source.load(request.source)
    feed = samples.load_feeds(Path(request.feed))[0]
    for _round in range(WARM_UP):
        model.run(feed)
    say(Said())
    for _ in lines:
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
    """Do what standard input asks for, and answer on the descriptor ``answer``."""
    os.set_inheritable(answer, False)
    lines = sys.stdin
    asked = from_json(lines.readline(), Asked)
    with open(answer, "wb") as pipe:

        def say(said: Said) -> None:
            """Write a line."""
            pipe.write(msgspec.json.encode(said) + b"\n")
            pipe.flush()

        try:
            registry.restore(asked.plugins)
            if isinstance(asked.request, ClockRequest):
                _serve_clock(asked.request, say, lines)
            else:
                _serve_read(asked.request, say)
        except MconvError as problem:
            say(Said(error=problem.message, hint=problem.hint))
        except Exception as problem:  # code of the repository, and of engines, raises anything
            say(Said(error=f"{type(problem).__name__}: {one_line(problem, 2000)}"))


if __name__ == "__main__":
    main(int(sys.argv[1]))
