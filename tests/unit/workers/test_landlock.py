"""What Landlock refuses a child, by kinds of rights and by ABI; by real calls."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mconv.workers import landlock
from mconv.workers.confine import Confinement
from tests.unit.workers.confined import SYSTEM, needs_landlock, run_confined

pytestmark = needs_landlock


@pytest.mark.parametrize(
    ("abi", "known"),
    [(1, ()), (2, ("REFER",)), (3, ("REFER", "TRUNCATE")), (5, ("REFER", "TRUNCATE", "IOCTL_DEV"))],
)
def test_a_kernel_is_asked_for_no_more_than_it_knows(abi: int, known: tuple[str, ...]) -> None:
    rights = landlock.handle_files(abi)
    for name in ("REFER", "TRUNCATE", "IOCTL_DEV"):
        assert bool(rights & getattr(landlock, name)) == (name in known)
    assert rights & landlock.FIRST == landlock.FIRST


@pytest.mark.parametrize("abi", range(1, landlock.NEWEST + 1))
def test_a_ruleset_of_every_abi_up_to_the_kernel_s_is_taken(abi: int) -> None:
    if abi > landlock.find_abi():
        pytest.skip(f"the kernel's ABI is {landlock.find_abi()}")
    ruleset = landlock.Ruleset(ports=True, abi=abi)
    ruleset.allow_path("/usr", landlock.READ)
    ruleset.allow_path("/dev/null", landlock.USE)
    ruleset.allow_path("/not/there", landlock.ALL)
    os.close(ruleset.descriptor)


def make(folder: Path) -> Confinement:
    for name in ("own", "other", "read", "listed"):
        (folder / name).mkdir()
        (folder / name / "file").write_text(name)
    (folder / "listed" / "below").mkdir()
    return Confinement(
        files=True,
        readable=(*SYSTEM, str(folder / "read")),
        listable=[str(folder / "listed")],
        writable=[str(folder / "own")],
        devices=["/dev/null"],
        holds_ports=True,
    )


def test_files_are_its_own_or_given(tmp_path: Path) -> None:
    rules = make(tmp_path)

    def attempt(work: object) -> str:
        return run_confined(rules, work)  # type: ignore[arg-type]

    assert attempt(lambda: (tmp_path / "own/new").write_text("x")) == "1"
    assert attempt(lambda: (tmp_path / "own/file").rename(tmp_path / "own/moved") and 1) == "1"
    assert attempt(lambda: (tmp_path / "read/file").read_text()) == "'read'"
    assert attempt(lambda: Path("/dev/null").write_text("x")) == "1"
    refused = "PermissionError"
    assert attempt(lambda: (tmp_path / "read/file").write_text("x")) == refused
    assert attempt(lambda: (tmp_path / "read/file").unlink()) == refused
    assert attempt(lambda: (tmp_path / "other/file").read_text()) == refused
    assert attempt(lambda: os.listdir(tmp_path / "other")) == refused
    assert attempt(lambda: os.open(tmp_path / "other/file", os.O_WRONLY | os.O_TRUNC)) == refused
    assert attempt(lambda: os.mkfifo(tmp_path / "other/fifo")) == refused
    assert attempt(lambda: os.symlink("x", tmp_path / "other/link")) == refused
    assert (tmp_path / "other/file").read_text() == "other"
    # a secret becomes readable neither by a link nor by another name
    assert attempt(lambda: os.link(tmp_path / "other/file", tmp_path / "own/hard")) != "None"
    link = tmp_path / "own/soft"
    link.symlink_to(tmp_path / "other/file")
    assert attempt(link.read_text) == refused


def test_names_are_listed_without_what_is_in_them(tmp_path: Path) -> None:
    rules = make(tmp_path)
    assert "below" in run_confined(rules, lambda: sorted(os.listdir(tmp_path / "listed")))
    assert run_confined(rules, (tmp_path / "listed/file").read_text) == "PermissionError"


def test_what_it_starts_is_held_too(tmp_path: Path) -> None:
    rules = make(tmp_path)
    command = ["/bin/cat", str(tmp_path / "other/file")]
    assert run_confined(rules, lambda: subprocess.run(command, stderr=-3).returncode) == "1"


@pytest.mark.skipif(landlock.find_abi() < 4, reason="ports are held from ABI 4 on")
def test_ports_are_those_that_are_given(tmp_path: Path) -> None:
    with socket.socket() as one, socket.socket() as two:
        for each in (one, two):
            each.bind(("127.0.0.1", 0))
            each.listen()
        ports = [each.getsockname()[1] for each in (one, two)]
        open_one = Confinement(files=True, readable=SYSTEM, holds_ports=True, ports=[ports[0]])

        def connect(port: int) -> object:
            return socket.create_connection(("127.0.0.1", port), 5).getpeername()[1]

        assert run_confined(open_one, lambda: connect(ports[0])) == str(ports[0])
        assert run_confined(open_one, lambda: connect(ports[1])) == "PermissionError"
        assert run_confined(open_one, lambda: socket.create_server(("127.0.0.1", 0)) and 1) == "1"
        assert run_confined(make(tmp_path), lambda: connect(ports[0])) == "PermissionError"


@pytest.mark.skipif(landlock.find_abi() < 6, reason="signals are scoped from ABI 6 on")
def test_processes_outside_are_out_of_reach(tmp_path: Path) -> None:
    rules = make(tmp_path)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        assert run_confined(rules, lambda: os.kill(other.pid, signal.SIGSTOP)) == "PermissionError"
        environ = Path(f"/proc/{other.pid}/environ")
        assert run_confined(rules, environ.read_bytes) == "PermissionError"
        other.kill()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"\0mconv-test-{os.getpid()}")
        listening.listen()

        def connect() -> None:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(listening.getsockname())

        assert run_confined(rules, connect) == "PermissionError"
