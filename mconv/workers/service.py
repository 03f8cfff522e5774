"""A helper process that the workers of a runtime share for the whole run, such as a browser.

The runtime's module, run as the main one, prints one line of JSON with its ``endpoint`` and lives
until its standard input ends. Workers find the endpoint in the environment variable that the
runtime's ``SERVICE`` names.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from mconv import hardware, registry
from mconv.errors import StepError
from mconv.values import OWN, Interpreter
from mconv.workers.policy import Access, confine
from mconv.workers.spawn import Helper, Supervised, make_environment

START_SECONDS = 60
STOP_SECONDS = 5
CONNECT_SECONDS = 5
LONGEST_LINE = 2**16  # bytes of the line that says the helper is ready


class _Ready(msgspec.Struct, frozen=True):
    """The line that a helper prints.

    Attributes:
        endpoint: Where its workers find it.
    """

    endpoint: str


class Service:
    """The helper of one runtime: started when first asked for, again when it has died.

    It is safe for several threads.

    Attributes:
        runtime: The runtime.
        helper: The process.
        endpoint: Where workers find it.
        lock: Held while it is started or stopped.
    """

    def __init__(
        self, runtime: registry.Runtime, folder: Path, interpreter: Interpreter = OWN
    ) -> None:
        """``folder`` is one of the parent's own, which goes when the service stops."""
        self.runtime = runtime
        self.helper = Helper(folder, interpreter)
        self.endpoint = ""
        self.lock = threading.Lock()

    @property
    def process(self) -> Supervised | None:
        """The helper's process, while there is one."""
        return self.helper.process

    def make_variables(self) -> dict[str, str]:
        """Return what a worker's environment gets.

        Raises StepError where the helper does not start.
        """
        with self.lock:
            if not (self.helper.runs() and self._listens()):
                self._stop()
                self._start()
            assert self.runtime.service is not None
            return {self.runtime.service: self.endpoint}

    @property
    def port(self) -> int:
        """The TCP port of the endpoint; 0 where that is no URL with one."""
        return urlsplit(self.endpoint).port or 0

    def _listens(self) -> bool:
        """Return whether somebody listens on the port: what the helper keeps may have died before
        it, and its workers cannot start another."""
        if not self.port:
            return True
        try:
            socket.create_connection(("127.0.0.1", self.port), CONNECT_SECONDS).close()
        except OSError:
            return False
        return True

    def _find_access(self) -> Access:
        """Return what the helper is given: a browser talks to itself over sockets of all kinds."""
        return Access(
            writable=(str(self.helper.home),), network="any", modes=True, shared_memory=True
        )

    def _start(self) -> None:
        """Start the helper and read its endpoint. Raises StepError where it does not start."""
        home = self.helper.home
        process = self.helper.start(
            self.runtime.module,
            [],
            make_environment(
                home,
                str(home),
                hardware.count_cores(),
                interpreter=self.helper.interpreter,
            ),
            confine(self._find_access(), self.helper.interpreter, self.helper.uid),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        timer = threading.Timer(START_SECONDS, process.kill)
        timer.start()
        line = process.stdout.readline(LONGEST_LINE)
        timer.cancel()
        try:
            self.endpoint = msgspec.json.decode(line, type=_Ready).endpoint
        except (ValueError, RecursionError) as problem:
            self._stop()
            printed = self.helper.read_log()[-1500:] or "it said nothing"
            raise StepError(
                f"the helper of runtime {self.runtime.name} did not start: {printed}"
            ) from problem

    def stop(self) -> None:
        """End the helper, and whatever it started, and remove its folder."""
        with self.lock:
            self._stop()
        self.helper.remove()

    def _stop(self) -> None:
        """End the helper: its input first, so that it can clean up."""
        process = self.helper.process
        if process is not None:
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
        self.helper.kill()
