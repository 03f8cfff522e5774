"""What a child process gets: an environment without secrets, a session, words for its death."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from mconv.values import OWN, Interpreter
from mconv.workers.channels import Exchange
from mconv.workers.confine import FREE
from mconv.workers.spawn import (
    Helper,
    describe_death,
    make_environment,
    start_exchange,
    start_module,
)


def test_the_environment_holds_no_secret_and_no_runner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "GITHUB_TOKEN",
        "INPUT_GITHUB-TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "ACTIONS_RUNTIME_URL",
    ):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    variables = make_environment(tmp_path, "/repository", 3, {"MORE": "1"})
    assert "secret" not in variables.values()
    assert not [name for name in variables if name.startswith(("GITHUB", "INPUT", "ACTIONS"))]
    assert variables["HOME"] == variables["TMPDIR"] == str(tmp_path)
    assert variables["OMP_NUM_THREADS"] == "3"
    assert variables["MORE"] == "1"
    assert "/elsewhere" in variables["PYTHONPATH"].split(os.pathsep)


def test_a_gpu_is_seen_by_the_workers_that_are_to_run_on_it_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    assert make_environment(tmp_path, "/repository", 1)["CUDA_VISIBLE_DEVICES"] == ""
    chosen = Interpreter(name="cuda", variables={"CUDA_VISIBLE_DEVICES": "2"})
    seen = make_environment(tmp_path, "/repository", 1, interpreter=chosen)
    assert seen["CUDA_VISIBLE_DEVICES"] == "2"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (3, "exit code 3"),
        (None, "exit code None"),
        (-signal.SIGSEGV, "SIGSEGV (segmentation fault)"),
        (-signal.SIGKILL, "lack of memory"),
        (-99, "signal 99"),
    ],
)
def test_a_death_in_words(code: int | None, words: str) -> None:
    assert words in describe_death(code)


def test_a_child_has_the_variables_it_is_given_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`timeit` runs the statement that it is given."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    child = start_module(
        OWN,
        "timeit",
        ["-n", "1", "-r", "1", "import os; print(sorted(os.environ))"],
        home=tmp_path,
        env={"PATH": os.environ["PATH"], "LC_CTYPE": "C.UTF-8"},
        confinement=FREE,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    child.release()
    assert child.stdout is not None
    with child.stdout as pipe:
        printed = pipe.read()
    assert child.wait(30) == 0
    assert printed.decode().splitlines()[0] == "['LC_CTYPE', 'PATH']"


def test_a_child_is_killed_with_its_session(tmp_path: Path) -> None:
    """`json.tool` waits for input that never comes; it and what it starts are one session."""
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as stdin, os.fdopen(writer, "wb"):
        child = start_module(
            OWN,
            "json.tool",
            [],
            home=tmp_path,
            env=make_environment(tmp_path, str(tmp_path), 1),
            confinement=FREE,
            stdin=stdin,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        child.release()
        end = time.monotonic() + 10
        while os.getsid(child.pid) != child.pid:
            assert time.monotonic() < end
            time.sleep(0.01)
        child.kill()
        assert child.returncode == -signal.SIGKILL


def test_an_exchange_reaches_its_module(tmp_path: Path) -> None:
    request = b'{"arguments": {"s": "[1, 2]"}, "plugins": []}'
    with Exchange(request) as exchange:
        child = start_exchange(
            OWN,
            "mconv.workers.isolated_call",
            ["json:loads"],
            exchange,
            home=tmp_path,
            env=make_environment(tmp_path, str(tmp_path), 1),
            confinement=FREE,
        )
        exchange.close_child_ends()
        child.release()
        assert child.wait(30) == 0
        assert b"[" in (exchange.read_answer() or b"")


def test_a_helper_can_be_started_again_and_its_last_words_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "helper"
    folder.mkdir()
    helper = Helper(folder)
    assert not helper.runs()
    assert helper.read_log() == ""
    for module in ("no.such.module", "no.other.module"):
        variables = make_environment(helper.home, str(folder), 1)
        process = helper.start(module, [], variables, FREE, stdin=subprocess.DEVNULL)
        process.wait(30)
        assert not helper.runs()
        assert module.split(".")[1] in helper.read_log() or "No module named" in helper.read_log()
        helper.kill()
    helper.remove()
    assert not folder.exists()
