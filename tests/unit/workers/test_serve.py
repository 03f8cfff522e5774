"""The child's side of an exchange: whatever happens in it is an answer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mconv.workers.channels import Exchange
from mconv.workers.messages import LONGEST_MESSAGE, Response, read_response
from mconv.workers.spawn import make_environment

CODE = """
import sys
from mconv.errors import StepError, UnsupportedError
from mconv.values import Frozen, Place
from mconv.workers.serve import serve_request

class Asked(Frozen, frozen=True):
    text: str

def work(asked):
    print("printed", asked.text)
    {body}

serve_request(int(sys.argv[1]), Asked, work)
"""


def serve(folder: Path, body: str, request: bytes = b'{"text": "x"}') -> tuple[bytes, int, str]:
    """Returns (answer, exit code, log)."""
    with Exchange(request) as exchange:
        answer = exchange.answer.writer
        child = subprocess.Popen(
            [sys.executable, "-c", CODE.format(body=body), str(answer)],
            stdin=exchange.request,
            stdout=exchange.log.writer,
            stderr=exchange.log.writer,
            pass_fds=(answer,),
            env=make_environment(folder, str(folder), 1),
        )
        exchange.close_child_ends()
        code = child.wait(30)
        return exchange.read_answer() or b"", code, exchange.log.read_text()


def read(answer: bytes) -> Response[str]:
    return read_response(answer, Response[str], "a test")


def test_what_work_returns_is_the_answer(tmp_path: Path) -> None:
    answer, code, log = serve(tmp_path, "return asked.text * 2")
    assert read(answer).answer == "xx"
    assert (code, log.strip()) == (0, "printed x")


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        ("raise UnsupportedError('no Foo', hint='none')", "UnsupportedError", "no Foo"),
        ("raise KeyError('layer')", "KeyError", "KeyError: 'layer'"),
        ("raise ValueError('two\\nlines')", "ValueError", "ValueError: two lines"),
        ("raise ValueError", "ValueError", "ValueError"),
        ("sys.exit(3)", "SystemExit", "SystemExit: 3"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise MemoryError", "OutOfMemoryError", "the step could not get the memory"),
    ],
)
def test_what_work_raises_is_the_answer_too(
    tmp_path: Path, body: str, kind: str, message: str
) -> None:
    answer, code, log = serve(tmp_path, body)
    error = read(answer).error
    assert error is not None
    assert error.type == kind
    assert error.message.startswith(message)
    assert error.hint == ("none" if "hint" in body else None)
    assert code == 0
    assert "Traceback" in log


def test_the_place_of_an_error_stays(tmp_path: Path) -> None:
    place = "Place(file='net.py', line=13)"
    answer, _, _ = serve(tmp_path, f"raise StepError('m', place={place})")
    error = read(answer).error
    assert error is not None
    assert str(error.place) == "net.py:13:1"


def test_a_long_message_is_cut_to_what_its_parent_takes(tmp_path: Path) -> None:
    answer, _, _ = serve(tmp_path, f"raise StepError('m' * {LONGEST_MESSAGE + 9}, hint='h' * 9999)")
    error = read(answer).error
    assert error is not None
    assert len(error.message) == len(error.hint or "") == LONGEST_MESSAGE


def test_what_is_printed_is_no_answer(tmp_path: Path) -> None:
    body = """print('{"answer": 1}', flush=True); import os; os._exit(9)"""
    answer, code, log = serve(tmp_path, body)
    assert (answer, code) == (b"", 9)
    assert '{"answer": 1}' in log
