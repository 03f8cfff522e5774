"""Channels between a process and its child: bounded, never waited for, and not to be written
over."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from mconv.workers import channels
from mconv.workers.channels import Exchange, Intake

ECHO = """
import sys
from mconv.workers import channels
channels.write_answer(int(sys.argv[1]), channels.take_over_input().decode().upper())
print("said", sys.stdin.read() == "")
"""


def start(exchange: Exchange, code: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(exchange.answer.writer)],
        stdin=exchange.request,
        stdout=exchange.log.writer,
        pass_fds=(exchange.answer.writer,),
    )
    exchange.close_child_ends()
    return process


def test_a_request_an_answer_and_a_log() -> None:
    with Exchange(b"abc" * 100_000) as exchange:  # more than a pipe holds
        assert start(exchange, ECHO).wait(30) == 0
        assert exchange.read_answer() == b"ABC" * 100_000
        assert exchange.log.read_text() == "said True"


def test_of_a_log_the_end_is_kept_from_the_start_of_a_line() -> None:
    code = "for i in range(100_000): print('line', i)\nprint('\\x1b[31m::error::x\\x00')"
    with Exchange(b"") as exchange:
        assert start(exchange, code).wait(30) == 0
        exchange.finish()
    text = exchange.log.read_text()
    assert len(text) <= channels.LOG_LIMIT
    assert text.splitlines()[0].startswith("line ")
    assert text.endswith("line 99999\n[31m::error::x")


def test_an_answer_that_is_too_large_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "ANSWER_LIMIT", 1000)
    with Exchange(b"x" * 1001) as exchange:
        assert start(exchange, ECHO).wait(30) == 0
        assert exchange.read_answer() is None


def test_a_process_that_holds_or_fills_the_pipes_is_not_waited_for() -> None:
    code = "import os, sys, time\nwhile time.time() < {end}: os.write({out}, b'x' * 65536)"
    with Exchange(b"") as exchange:
        writers = (exchange.answer.writer, exchange.log.writer)
        loops = [code.format(end=time.time() + 20, out=writer) for writer in writers]
        processes = [
            subprocess.Popen([sys.executable, "-c", loop], pass_fds=writers) for loop in loops
        ]
        try:
            time.sleep(0.5)
            begin = time.monotonic()
            exchange.finish()
            assert time.monotonic() - begin < 5
        finally:
            for process in processes:
                process.kill()
                process.wait()
    assert len(exchange.log.data) <= channels.LOG_LIMIT


def test_no_descriptor_and_no_thread_is_left() -> None:
    before = (set(os.listdir("/proc/self/fd")), threading.active_count())
    for _ in range(3):
        with Exchange(b"x") as exchange:
            exchange.finish()
    assert (set(os.listdir("/proc/self/fd")), threading.active_count()) == before


def test_the_first_bytes_of_an_intake_are_kept_where_that_is_asked() -> None:
    intake = Intake(4, keep_last=False)
    os.write(intake.writer, b"abcdef")
    assert intake.read_once()
    intake.close_writer()
    assert not intake.read_once()
    intake.close()
    assert (bytes(intake.data), intake.overflowed) == (b"abcd", True)
