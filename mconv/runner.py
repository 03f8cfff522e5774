"""Where a step runs: on this machine, in a worker process of its own. An executor elsewhere is another :class:`Runner`."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Protocol

from mconv import hardware, registry
from mconv.plan import Step
from mconv.service import Service
from mconv.store import Store
from mconv.worker import Outcome, Request, run_step, worker_uid


class Runner(Protocol):
    """Carries out steps; the executor decides which and when, and puts what they made in the store.

    ``run`` is called from several threads at once, ``begin`` before and ``close`` after all of them.
    """

    def begin(self, steps: Collection[Step]) -> None:
        """Told what is going to be run."""

    def fits(self, step: Step, beside: Collection[Step]) -> bool:
        """True where ``step`` may start while ``beside`` run. With nothing beside it, it must."""

    def run(self, step: Step, folders: Mapping[str, Path], workspace: Path, stop: threading.Event) -> Outcome:
        """Do ``step``: read the files of its inputs in ``folders`` (role → folder), leave its own in ``workspace/out`` (made here),
        and say how it went. ``stop`` set: give up at once. Raises StepError, StoreError or OSError where it cannot be tried."""

    def close(self) -> None:
        """End whatever was started."""


class Local:
    """A worker process a step on this machine, at most ``jobs`` at once, and the services that they share."""

    def __init__(self, store: Store, root: str, jobs: int | None = None) -> None:
        self.store = store
        self.root = root
        self.jobs = jobs or hardware.cores()
        self.services: dict[str, Service] = {}

    def begin(self, steps: Collection[Step]) -> None:
        for name in sorted({step.service for step in steps if step.service}):
            self.services[name] = Service(registry.runtimes()[name], self.store.workspace(worker_uid()))

    def fits(self, step: Step, beside: Collection[Step]) -> bool:
        return not beside or len(beside) < self.jobs

    def run(self, step: Step, folders: Mapping[str, Path], workspace: Path, stop: threading.Event) -> Outcome:
        request = Request(
            kind=step.kind,
            plugin=step.plugin,
            params=step.params,
            folders={role: str(folder) for role, folder in folders.items()},
            out=str(workspace / "out"),
        )
        return run_step(
            request,
            workspace,
            root=self.root,
            threads=hardware.cores(),
            timeout_s=step.timeout_s,
            memory_bytes=step.memory_bytes,
            stop=stop,
            extra=self.services[step.service].variables() if step.service else None,
        )

    def close(self) -> None:
        for service in self.services.values():
            service.stop()
