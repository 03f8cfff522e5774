"""The process beside the worker of a measurement, which times the source that the repository's code
makes.

What measures an artifact shares neither process nor user with that code: the code could change what
is measured, and reach the browser that others are measured in.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from pathlib import Path

from mconv.steps import elsewhere
from mconv.steps.requests import MeasureRequest
from mconv.values import Interpreter
from mconv.workers import identities
from mconv.workers.channels import LOG_LIMIT, Collector, Intake
from mconv.workers.policy import Repository, confine, find_companion_access
from mconv.workers.spawn import Supervised, make_environment, make_worker_folder, start_module


class Companion:
    """A companion that runs, and the socket to it.

    Attributes:
        socket: The worker's end, which the parent hands on.
        process: The process.
        log: What it prints.
    """

    def __init__(
        self,
        request: MeasureRequest,
        interpreter: Interpreter,
        *,
        home: Path,
        root: str,
        threads: int,
        variables: Mapping[str, str],
        folders: Iterable[str],
        plugins: Iterable[str],
        repository: Repository | None,
        network: bool,
    ) -> None:
        """Start it in ``interpreter``.

        ``folders`` are those of the step's inputs. Raises WorkerCrashError where it cannot be
        started.
        """
        uid = identities.take_user()
        make_worker_folder(home, uid)
        access = find_companion_access(
            request,
            folders=folders,
            plugins=plugins,
            home=str(home),
            repository=repository,
            network=network,
        )
        self.log = Intake(LOG_LIMIT, keep_last=True)
        self._collector = Collector(self.log)
        self.socket, theirs = socket.socketpair()
        with theirs:
            self.process: Supervised = start_module(
                interpreter,
                elsewhere.MODULE,
                ["0"],
                home=home,
                env=make_environment(home, root, threads, variables, interpreter, online=network),
                confinement=confine(access, interpreter, uid),
                stdin=theirs.fileno(),
                stdout=self.log.writer,
                stderr=self.log.writer,
            )
        self.log.close_writer()
        self.process.release()

    def make_variables(self) -> dict[str, str]:
        """Return what a worker finds it by, which inherits the socket under the same number."""
        return {elsewhere.COMPANION: str(self.socket.fileno())}

    def close(self) -> None:
        """End it and all that it started."""
        self.socket.close()
        self.process.kill()
        self._collector.finish()
