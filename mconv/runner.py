"""Where a step runs: on this machine, in a worker process of its own. An executor elsewhere is another :class:`Runner`."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Protocol

from mconv import forkserver, hardware, registry
from mconv.plan import Step
from mconv.service import Service
from mconv.store import Store
from mconv.worker import LEFT_FOR_OTHERS, Outcome, Process, Request, Start, run_step, spawn, worker_uid

BASE = ("numpy", "onnx")  # what nearly every step imports
# Peak memory of a step: bytes, and a multiple of the source's size; as measured on the examples, rounded up.
MEMORY = {
    "export": (700e6, 6.0),
    "weights": (600e6, 3.0),
    "reference": (600e6, 3.0),
    "calibrate": (600e6, 3.0),
    "optimize": (250e6, 8.0),
    "quantize": (250e6, 8.0),
    "write": (400e6, 5.0),
    "verify": (250e6, 4.0),
    "measure": (700e6, 6.0),
}
SERVICE_MEMORY = 500e6  # more where a browser takes part
# glibc's malloc gives every large block back at once and gets it anew, page by page: a third of the time of steps on graphs of
# 100 MB. Kept for reuse up to 256 MB, memory's peak is 5 % higher; so models for which that is much are left alone.
ROOMY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(256 * 2**20)}
ROOMY_LIMIT = 512 * 2**20


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
    """A worker process a step on this machine, at most ``jobs`` at once, and the helpers that they share: services, and a server
    for each set of modules to be imported, from which the processes are forked.

    Measurements start from nothing: their memory is to be the artifact's, not that of modules loaded for others.
    """

    def __init__(self, store: Store, root: str, jobs: int | None = None) -> None:
        self.store = store
        self.root = root
        self.jobs = jobs or hardware.cores()
        self.services: dict[str, Service] = {}
        self.servers: dict[tuple[str, ...], forkserver.Server] = {}
        self.served: dict[str, tuple[str, ...]] = {}  # key of a step that is still to be done → modules of its server
        self.left: Counter[tuple[str, ...]] = Counter()
        self.lock = threading.Lock()
        self.memory = hardware.available_bytes() - LEFT_FOR_OTHERS
        self.extra: Mapping[str, str] = {}

    def begin(self, steps: Collection[Step]) -> None:
        self.extra = ROOMY if all(step.size_bytes <= ROOMY_LIMIT for step in steps) else {}
        for name in sorted({step.service for step in steps if step.service}):
            self.services[name] = Service(registry.runtimes()[name], self.store.workspace(worker_uid()))
        if not forkserver.possible():
            return
        forked = [step for step in steps if not step.exclusive]
        sets = merged(step.preload or BASE for step in forked)
        self.served = {step.key: sets[step.preload or BASE] for step in forked}
        self.left = Counter(self.served.values())
        for modules in self.left:
            home = self.store.workspace(worker_uid())
            self.servers[modules] = forkserver.Server(modules, home, self.root, hardware.cores(), self.extra)
            if self.jobs > 1:  # beside the first steps, which are seldom more than one
                self.servers[modules].launch()

    def fits(self, step: Step, beside: Collection[Step]) -> bool:
        """Up to ``jobs`` steps, and never more at once than memory is there for; one that needs all of it runs alone."""
        if not beside:
            return True
        return len(beside) < self.jobs and sum(map(memory, (step, *beside))) <= self.memory

    def run(self, step: Step, folders: Mapping[str, Path], workspace: Path, stop: threading.Event) -> Outcome:
        request = Request(
            kind=step.kind,
            plugin=step.plugin,
            params=step.params,
            folders={role: str(folder) for role, folder in folders.items()},
            out=str(workspace / "out"),
        )
        try:
            return run_step(
                request,
                workspace,
                root=self.root,
                threads=hardware.cores(),
                timeout_s=step.timeout_s,
                memory_bytes=step.memory_bytes,
                stop=stop,
                extra={**self.extra, **(self.services[step.service].variables() if step.service else {})},
                start=self._starter(step, stop),
            )
        finally:
            self._done(step)

    def _starter(self, step: Step, stop: threading.Event) -> Start:
        server = self.servers.get(self.served.get(step.key, ()))

        def start(argv: Sequence[str], home: Path, env: Mapping[str, str], log: IO[bytes]) -> Process:
            return (server and server.start(argv, home, env, log, stop)) or spawn(argv, home, env, log)

        return start

    def _done(self, step: Step) -> None:
        """A server that no step needs any more gives its memory back."""
        with self.lock:
            modules = self.served.pop(step.key, None)
            if modules is None:
                return
            self.left[modules] -= 1
            last = not self.left[modules]
        if last:
            self.servers[modules].stop()

    def close(self) -> None:
        for service in self.services.values():
            service.stop()
        for server in self.servers.values():
            server.stop()


def memory(step: Step) -> float:
    """What a step is expected to need at its peak, bytes; no more than its own limit where it has one."""
    fixed, multiple = MEMORY[step.kind]
    expected = fixed + multiple * step.size_bytes + (SERVICE_MEMORY if step.service else 0)
    return min(expected, step.memory_bytes or expected)


def merged(sets: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], tuple[str, ...]]:
    """For each set of modules the one to load in its stead: the largest among them that holds all of it. ``BASE`` stays itself,
    since its steps would only carry the memory of the others."""
    found = sorted(set(sets), key=lambda modules: (len(modules), modules))
    return {
        modules: modules if modules == BASE else [other for other in found if set(modules) <= set(other)][-1] for modules in found
    }
