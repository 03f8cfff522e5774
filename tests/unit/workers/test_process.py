"""The parent's side of a step: limits, deaths and answers, with children that are no workers."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections import namedtuple
from collections.abc import Mapping
from pathlib import Path

import pytest

from mconv.answers import CalibrateAnswer
from mconv.steps.requests import CalibrateRequest, InRuntime, VerifyRequest
from mconv.values import SourceConfig
from mconv.workers import process
from mconv.workers.channels import Exchange
from mconv.workers.confine import FREE, Confinement
from mconv.workers.messages import FinishedStep, Request
from mconv.workers.spawn import Supervised, start_command

SOURCE = SourceConfig(format="onnx", path="m.onnx", root=".")
ANSWER = 'import os, sys; os.write(int(sys.argv[1]), b"""{}""")'
GOOD = json.dumps({"answer": {"kind": "calibrate", "count": 3}})


class Start:
    """Starts ``python -c CODE DESCRIPTOR`` in place of a worker, and keeps what it was given."""

    def __init__(self, code: str) -> None:
        self.code = code
        self.env: Mapping[str, str] = {}

    def __call__(
        self, exchange: Exchange, home: Path, env: Mapping[str, str], confinement: Confinement
    ) -> Supervised:
        self.env = env
        self.confinement = confinement
        answer = exchange.answer.writer
        self.child = start_command(
            [sys.executable, "-c", self.code, str(answer)],
            home=home,
            env=env,
            confinement=FREE,
            stdin=exchange.request,
            stdout=exchange.log.writer,
            stderr=exchange.log.writer,
            pass_fds=(answer,),
        )
        return self.child


def run(folder: Path, start: Start, *, stop: bool = False, **limits: float) -> FinishedStep:
    event = threading.Event()
    if stop:
        event.set()
    request = CalibrateRequest(source=SOURCE, data=None, count=3, seed=1)
    settings = {"timeout_s": 30.0, "memory_bytes": None, **limits}
    return process.run_step(
        Request(step=request, folders={}, out=str(folder / "out")),
        folder,
        root=str(folder),
        threads=5,
        stop=event,
        start=start,
        **settings,  # type: ignore[arg-type]
    )


def test_an_answer_of_the_step_s_kind_is_the_outcome(tmp_path: Path) -> None:
    start = Start(ANSWER.format(GOOD))
    outcome = run(tmp_path, start)
    assert outcome.answer == CalibrateAnswer(count=3)
    assert outcome.error is None
    assert 0 < outcome.seconds < 30
    assert (tmp_path / "out").is_dir()
    assert start.env["HOME"] == str(tmp_path / "home")
    assert start.env["OMP_NUM_THREADS"] == "5"


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        ("print('last words'); raise SystemExit(4)", "WorkerCrashError", "exit code 4"),
        ("import os; os.abort()", "WorkerCrashError", "SIGABRT"),
        (ANSWER.format("{"), "WorkerCrashError", "not that of a step 'calibrate'"),
        (
            ANSWER.format('{"answer": {"kind": "weights", "tensors": 1, "bytes": 1}}'),
            "WorkerCrashError",
            "another kind of step",
        ),
        (
            ANSWER.format('{"error": {"type": "SourceError", "message": "no file"}}'),
            "SourceError",
            "no file",
        ),
    ],
)
def test_every_other_end_is_an_error(tmp_path: Path, code: str, kind: str, words: str) -> None:
    outcome = run(tmp_path, Start(code))
    assert outcome.answer is None
    assert outcome.error is not None
    assert (outcome.error.type, outcome.error.step) == (kind, "calibrate")
    assert words in outcome.error.message
    assert ("last words" in outcome.error.log) == ("last words" in code)


def test_a_step_over_its_time_is_killed_with_its_session(tmp_path: Path) -> None:
    start = Start("import time; time.sleep(600)")
    outcome = run(tmp_path, start, timeout_s=0.3)
    assert outcome.error is not None
    assert outcome.error.type == "TimeLimitError"
    assert "longer than 0.3 s" in outcome.error.message
    assert start.child.returncode == -signal.SIGKILL


def test_a_step_over_its_memory_is_killed(tmp_path: Path) -> None:
    start = Start("held = b'1' * 300_000_000; import time; time.sleep(600)")
    outcome = run(tmp_path, start, memory_bytes=200_000_000)
    assert outcome.error is not None
    assert outcome.error.type == "OutOfMemoryError"
    assert "0.20 GB" in outcome.error.message
    assert outcome.peak_rss_bytes is not None
    assert outcome.peak_rss_bytes > 200_000_000
    assert start.child.returncode == -signal.SIGKILL


def test_an_interrupted_run_ends_its_steps_at_once(tmp_path: Path) -> None:
    begin = time.monotonic()
    outcome = run(tmp_path, Start("import time; time.sleep(600)"), stop=True)
    assert outcome.error is not None
    assert "interrupted" in outcome.error.message
    assert time.monotonic() - begin < 20


def test_a_death_on_a_full_disk_is_the_disk_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(process.shutil, "disk_usage", lambda path: usage(1, 1, 100))
    outcome = run(tmp_path, Start("raise SystemExit(1)"))
    assert outcome.error is not None
    assert outcome.error.type == "StoreError"
    assert outcome.error.hint == process.FULL


def test_threads_are_those_of_the_request_where_it_says_so(tmp_path: Path) -> None:
    start = Start("raise SystemExit(1)")
    artifact = InRuntime(runtime="r", options={}, precision="fp32", threads=2)
    process.run_step(
        Request(step=VerifyRequest(artifact=artifact), folders={}, out=str(tmp_path / "out")),
        tmp_path,
        root=str(tmp_path),
        threads=5,
        timeout_s=30,
        memory_bytes=None,
        stop=threading.Event(),
        grants=process.Grants(variables={"MORE": "1"}),
        start=start,
    )
    assert start.env["OMP_NUM_THREADS"] == "2"
    assert start.env["MORE"] == "1"
