"""Memory of a process with all its descendants, held to psutil's."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from mconv.workers import memory

BLOCK = 120_000_000  # bytes
# A child that starts a child that holds a block, from a thread that is not the first.
CODE = f"""
import subprocess, sys, threading, time
held = "held = b'1' * {BLOCK}; print(1, flush=True); input()"
def start():
    subprocess.Popen([sys.executable, "-c", held]).wait()
threading.Thread(target=start).start()
"""


@pytest.fixture
def pid() -> Iterator[int]:
    with subprocess.Popen(
        [sys.executable, "-c", CODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        assert process.stdin is not None
        process.stdin.close()


@pytest.mark.parametrize("linux", [memory.HAS_CHILDREN_FILES, False])
def test_descendants_count(pid: int, linux: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "HAS_CHILDREN_FILES", linux)
    process = psutil.Process(pid)
    parts = process.children(recursive=True)
    assert len(parts) == 1
    expected = sum(part.memory_info().rss for part in parts)
    assert expected > BLOCK
    assert memory.Meter([pid], 10**12).read() == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("linux", [memory.HAS_CHILDREN_FILES, False])
def test_a_process_that_has_ended_has_none(linux: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "HAS_CHILDREN_FILES", linux)
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    time.sleep(0.01)
    assert memory.Meter([process.pid], 10**12).read() == 0
