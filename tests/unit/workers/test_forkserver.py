"""The fork server: what it refuses, what a child gets, and how children and servers end. What
plug-ins preload is in tests/integration.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from mconv.steps.requests import ExportRequest
from mconv.values import SourceConfig
from mconv.workers.channels import Exchange
from mconv.workers.confine import FREE, Confinement
from mconv.workers.forkserver import Server
from mconv.workers.messages import Request
from mconv.workers.process import run_step
from mconv.workers.spawn import Supervised, make_environment
from tests.models import write_linear

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks are used on Linux only")


@pytest.fixture
def base(tmp_path: Path) -> Server:
    folder = tmp_path / "server"
    folder.mkdir()
    server = Server(("numpy",), folder, str(tmp_path), 1, {})
    yield server  # type: ignore[misc]
    server.stop()
    assert not folder.exists()


def begin(server: Server, folder: Path, exchange: Exchange, **env: str) -> Supervised:
    (folder / "home").mkdir(exist_ok=True)
    variables = make_environment(folder / "home", str(folder), 1, env)
    child = server.start(exchange, folder / "home", variables, FREE, threading.Event())
    assert child is not None
    child.release()
    return child


def test_threads_that_a_fork_would_lose_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), "
        "daemon=True).start()\n"
    )
    (tmp_path / "threaded.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    home = tmp_path / "server"
    home.mkdir()
    server = Server(("threaded",), home, str(tmp_path), 1, {})
    with Exchange(b"") as exchange:
        assert server.start(exchange, tmp_path, {}, FREE, threading.Event()) is None
    assert "1 threads that a fork would lose" in server.refused
    server.stop()


def test_a_child_has_its_own_environment_and_none_of_ours(
    base: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "secret")
    with Exchange(b"{") as exchange:  # so that it ends with a traceback, after it has begun
        child = begin(base, tmp_path, exchange, MARK="here")
        exchange.close_child_ends()
        assert child.wait(60) != 0
        assert exchange.read_answer() == b""
        printed = exchange.log.read_text()
    assert base.process is not None
    server = psutil.Process(base.process.pid)
    assert "GITHUB_TOKEN" not in server.environ()
    assert "MARK" not in server.environ()
    assert "Error" in printed


def test_steps_of_one_server_do_not_see_each_other(base: Server, tmp_path: Path) -> None:
    """Each is a real step; a changed module of the first is not there in the second."""
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        model = write_linear(folder / "model.onnx")
        source = SourceConfig(format="onnx", path=str(model), root=str(folder))
        request = Request(
            step=ExportRequest(source=source),
            folders={},
            out=str(folder / "out"),
        )

        def start(
            exchange: Exchange, home: Path, env: Mapping[str, str], confinement: Confinement
        ) -> Supervised:
            child = base.start(exchange, home, env, confinement, threading.Event())
            assert child is not None
            assert psutil.Process(child.pid).ppid() == child.supervisor
            assert psutil.Process(child.supervisor).ppid() == base.process.pid  # type: ignore[union-attr]
            return child

        done = run_step(
            request,
            folder,
            root=str(folder),
            threads=1,
            timeout_s=60,
            memory_bytes=None,
            stop=threading.Event(),
            start=start,
        )
        assert done.error is None
        assert done.peak_rss_bytes
        assert (folder / "out/model.onnx").is_file()


@contextlib.contextmanager
def stuck() -> Iterator[Exchange]:
    """What a worker gets that never ends: its request is a pipe that nobody writes to."""
    reader, writer = os.pipe()
    with Exchange(b"") as exchange, os.fdopen(reader, "rb") as request, os.fdopen(writer, "wb"):
        exchange.request.close()
        exchange.request = request
        yield exchange


def test_a_killed_child_is_gone_and_the_server_goes_on(base: Server, tmp_path: Path) -> None:
    with stuck() as exchange:
        child = begin(base, tmp_path, exchange)
        assert child.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.05)
        child.kill()
        assert child.returncode == -signal.SIGKILL
        assert not psutil.pid_exists(child.pid)
    with stuck() as exchange:
        again = begin(base, tmp_path, exchange)
        assert psutil.Process(again.supervisor).ppid() == base.process.pid  # type: ignore[union-attr]
        again.kill()


def test_children_die_with_a_server_that_is_killed_and_another_takes_its_place(
    base: Server, tmp_path: Path
) -> None:
    with stuck() as exchange:
        child = begin(base, tmp_path, exchange)
        first = base.process
        assert first is not None
        first.kill()
        assert child.wait(10) == -signal.SIGKILL
        end = time.monotonic() + 10
        while (
            psutil.pid_exists(child.pid)
            and psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE
        ):
            assert time.monotonic() < end
            time.sleep(0.01)
        first.wait()
    with stuck() as exchange:
        again = begin(base, tmp_path, exchange)
        assert base.process is not first
        again.kill()
