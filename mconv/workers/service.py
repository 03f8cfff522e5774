"""A helper process that the workers of a runtime share for the whole run, such as a browser.

``python -m <the runtime's module>`` prints one line of JSON with its ``endpoint`` and lives until
its standard input ends. Workers find the endpoint in the environment variable that the runtime's
``SERVICE`` names."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import msgspec

from mconv import hardware, registry
from mconv.errors import StepError
from mconv.workers.channels import LOG_LIMIT, Collector, Intake
from mconv.workers.process import environment, make_worker_folder, worker_uid

START_SECONDS = 60
STOP_SECONDS = 5
LONGEST_LINE = 2**16  # bytes of the line that says the helper is ready


class _Ready(msgspec.Struct, frozen=True):
    """The line that a helper prints: where its workers find it."""

    endpoint: str


class Service:
    """The helper of one runtime: started when first asked for, again when it has died. Safe for
    several threads."""

    def __init__(self, runtime: registry.Runtime, folder: Path) -> None:
        """``folder``: one of the parent's own, which goes when the service stops; the helper's home
        is made in it."""
        self.runtime = runtime
        self.folder = folder
        self.home = folder / "home"
        make_worker_folder(self.home)
        self.process: subprocess.Popen[bytes] | None = None
        self.endpoint = ""
        self.log: Intake | None = None
        self.collector: Collector | None = None
        self.lock = threading.Lock()

    def variables(self) -> dict[str, str]:
        """What a worker's environment gets. Raises StepError where the helper does not start."""
        with self.lock:
            if self.process is None or self.process.poll() is not None:
                self._stop()
                self._start()
            assert self.runtime.service is not None
            return {self.runtime.service: self.endpoint}

    def _start(self) -> None:
        uid = worker_uid()
        self.log = Intake(LOG_LIMIT, keep_last=True)
        self.collector = Collector(self.log)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", self.runtime.module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log.writer,
            env=environment(self.home, str(self.home), hardware.cores()),
            cwd=self.home,
            start_new_session=True,
            user=uid,
            group=uid,
            extra_groups=[] if uid is not None else None,
        )
        self.log.close_writer()
        assert self.process.stdout is not None
        timer = threading.Timer(START_SECONDS, self.process.kill)
        timer.start()
        line = self.process.stdout.readline(LONGEST_LINE)
        timer.cancel()
        try:
            self.endpoint = msgspec.json.decode(line, type=_Ready).endpoint
        except (ValueError, RecursionError) as problem:
            self._stop()
            said = self.log.text()[-1500:] or "it said nothing"
            raise StepError(
                f"the helper of runtime {self.runtime.name} did not start: {said}"
            ) from problem

    def stop(self) -> None:
        """End the helper, and whatever it started, and remove its folder."""
        with self.lock:
            self._stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _stop(self) -> None:
        if self.process is None:
            return
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None
        if self.collector is not None:
            self.collector.finish()
            self.collector = None
