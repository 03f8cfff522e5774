"""The process that holds a child together: nothing that the child starts outlives it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NoReturn

import psutil
import pytest

from mconv.workers import supervisor
from mconv.workers.confine import FREE, Confinement
from mconv.workers.spawn import Supervised, start_command
from tests.unit.workers.confined import needs_root

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="subreapers are Linux's")
# leaves the session by a double fork, writes the id of what is left, and goes on
ORPHAN = """
import os, sys, time
def leave(folder):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            open(f"{folder}/{os.getpid()}", "w").close()
            time.sleep(600)
        os._exit(0)
"""


def start(folder: Path, code: str, confinement: Confinement = FREE) -> Supervised:
    child = start_command(
        [sys.executable, "-c", code, str(folder)],
        home=folder,
        env={"PATH": os.environ["PATH"]},
        confinement=confinement,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    child.release()
    return child


def find_pids(folder: Path, count: int) -> list[int]:
    end = time.monotonic() + 20
    while len(list(folder.iterdir())) < count:
        assert time.monotonic() < end
        time.sleep(0.01)
    return [int(path.name) for path in folder.iterdir()]


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_orphans_that_left_the_session_are_dead_when_the_end_is_told(tmp_path: Path) -> None:
    code = ORPHAN + "leave(sys.argv[1]); leave(sys.argv[1])\n"
    code += "while len(os.listdir(sys.argv[1])) < 2: time.sleep(0.01)\nos._exit(3)"
    child = start(tmp_path, code)
    assert child.wait(30) == 3
    assert child.left == 0
    pids = find_pids(tmp_path, 2)
    assert all(map(is_gone, pids))
    assert is_gone(child.supervisor)


def test_a_kill_ends_the_child_and_its_orphans(tmp_path: Path) -> None:
    child = start(tmp_path, ORPHAN + "leave(sys.argv[1])\ntime.sleep(600)")
    pids = find_pids(tmp_path, 1)
    assert child.poll() is None
    child.kill()
    assert child.returncode == -signal.SIGKILL
    assert child.left == 0
    assert all(map(is_gone, [*pids, child.pid]))


def test_stopped_processes_and_a_storm_of_forks_are_ended(tmp_path: Path) -> None:
    code = ORPHAN + (
        "import signal\nleave(sys.argv[1])\n"
        "for _ in range(3):\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        end = time.time() + 20\n"
        "        while time.time() < end:\n"
        "            if os.fork() == 0: os.kill(os.getpid(), signal.SIGSTOP); time.sleep(600)\n"
        "            time.sleep(0.01)\n"
        "        os._exit(0)\n"
        "time.sleep(1)"
    )
    child = start(tmp_path, code)
    assert child.wait(60) == 0
    assert child.left == 0
    assert all(map(is_gone, find_pids(tmp_path, 1)))


def test_all_ends_with_a_parent_that_dies(tmp_path: Path) -> None:
    """Its death closes the connection, as this does."""
    child = start(tmp_path, ORPHAN + "leave(sys.argv[1])\ntime.sleep(600)")
    pids = find_pids(tmp_path, 1)
    child.channel.close()
    end = time.monotonic() + 20
    while not all(map(is_gone, [*pids, child.pid, child.supervisor])):
        assert time.monotonic() < end
        time.sleep(0.01)
    assert child.launcher is not None
    child.launcher.wait()


def test_a_supervisor_that_is_ended_is_noticed(tmp_path: Path) -> None:
    child = start(tmp_path, "import time; time.sleep(600)")
    os.kill(child.supervisor, signal.SIGKILL)
    assert child.wait(20) == -signal.SIGKILL
    assert child.left == -1


def test_it_waits_until_it_is_told_to_begin(tmp_path: Path) -> None:
    child = start_command(
        ["/bin/sh", "-c", "echo begun > begun"],
        home=tmp_path,
        env={},
        confinement=FREE,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(0.2)
    assert not (tmp_path / "begun").exists()
    child.release()
    assert child.wait(20) == 0
    assert (tmp_path / "begun").exists()


@pytest.mark.parametrize(("code", "status"), [("exit 7", 7), ("kill -SEGV $$", -signal.SIGSEGV)])
def test_exit_codes_and_signals(tmp_path: Path, code: str, status: int) -> None:
    child = start_command(
        ["/bin/sh", "-c", code],
        home=tmp_path,
        env={},
        confinement=FREE,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    child.release()
    assert child.wait(20) == status


def test_a_program_that_is_not_there_says_so(tmp_path: Path) -> None:
    child = start_command(
        ["/not/there"],
        home=tmp_path,
        env={},
        confinement=FREE,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert child.launcher is not None
    assert child.launcher.stderr is not None
    child.release()
    with child.launcher.stderr as errors:
        assert b"could not begin: FileNotFoundError" in errors.read()
    assert child.wait(20) == supervisor.WRONG


@needs_root
def test_processes_of_a_user_are_ended_by_one_of_it() -> None:
    """A supervisor in a server is no root: it may not signal them itself."""
    uid = 23456
    with tempfile.TemporaryDirectory(prefix="mconv-test-") as folder:
        os.chown(folder, uid, uid)
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            ours.close()

            def begin() -> NoReturn:
                script = f"(setsid sleep 600 & echo $! > {folder}/pid); sleep 0.3"
                os.execv("/bin/sh", ["/bin/sh", "-c", script])

            supervisor.supervise(theirs.fileno(), Confinement(uid=uid), begin, ())
        theirs.close()
        child = Supervised(ours)
        assert child.await_child(20)
        child.release()
        assert child.wait(20) == 0
        assert child.left == 0
        assert is_gone(int(Path(folder, "pid").read_text()))
        os.waitpid(pid, 0)
