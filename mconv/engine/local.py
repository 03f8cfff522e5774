"""The runner on this machine, with a worker process for every step.

An executor elsewhere is another :class:`mconv.engine.runner.Runner`.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from mconv import hardware, plain_files, registry
from mconv.engine.installing import Installer
from mconv.engine.runner import RunningSteps, has_room, make_entry
from mconv.environments.tools import find_tool
from mconv.errors import OutOfMemoryError
from mconv.planning.step_graph import Step
from mconv.store.local import Entry, Store, limit_output_bytes
from mconv.values import ErrorInfo, InterpreterStart
from mconv.workers import forkserver
from mconv.workers.channels import Exchange
from mconv.workers.confine import Confinement
from mconv.workers.memory import LEFT_FOR_OTHERS
from mconv.workers.messages import FinishedStep, Request
from mconv.workers.policy import Repository
from mconv.workers.process import Grants, Start, run_step, spawn
from mconv.workers.service import Service
from mconv.workers.spawn import Supervised

BASE = ("numpy", "onnx", "onnx_ir")  # what nearly every step imports
# how an environment's Python is started, and the modules that are loaded there
ServerKey = tuple[InterpreterStart, tuple[str, ...]]

# glibc's malloc gives every large block back at once and gets it anew, page by page: a third of the
# time of steps on graphs of 100 MB. Kept for reuse up to 256 MB, memory's peak is 5 % higher; so
# models for which that is much are left alone.
KEEP_FREED_BLOCKS = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(256 * 2**20)}
KEEP_FREED_BLOCKS_LIMIT = 512 * 2**20
# Threads of OpenMP that wait in a loop take the cores from the steps beside them, and four times as
# long together.
IDLE_THREADS_SLEEP = {"OMP_WAIT_POLICY": "PASSIVE"}


class LocalRunner:
    """A worker process a step on this machine, and the helpers that the processes share.

    At most ``jobs`` run at once. The helpers are services, and a server for each set of modules to
    be imported, from which the processes are forked. Measurements start from nothing: their memory
    is to be the artifact's, not that of modules that were loaded for others.

    Attributes:
        store: Where the files of steps go.
        root: The repository.
        jobs: How many steps run at once.
        services: The service of each runtime that has one.
        installer: What makes the environments that steps run in.
        servers: The server of each environment and set of modules.
        served: The key of its server, by the key of a step that is still to be done.
        left: How many steps still need each server.
        lock: Held while ``served`` and ``left`` change.
        running: The steps that run.
        memory: Bytes that they may take together.
        extra: Variables of all workers.
        closing: Set where the servers are to stop.
    """

    def __init__(
        self,
        store: Store,
        root: str,
        jobs: int | None = None,
        installer: Installer | None = None,
    ) -> None:
        self.store = store
        self.installer = installer or Installer()
        self.root = root
        self.jobs = jobs or hardware.count_cores()
        self.services: dict[str, Service] = {}
        self.servers: dict[ServerKey, forkserver.Server] = {}
        self.served: dict[str, ServerKey] = {}
        self.left: Counter[ServerKey] = Counter()
        self.lock = threading.Lock()
        self.running = RunningSteps()
        self.memory = hardware.read_available_bytes() - LEFT_FOR_OTHERS
        self.extra: Mapping[str, str] = {}
        self.closing = threading.Event()
        self._repository: Repository | None = None

    def begin(self, steps: Collection[Step]) -> None:
        """Make the environments that ``steps`` need, and start their services and fork servers.

        Raises UsageError where an environment is missing and none may be made.
        """
        self.installer.prepare_tools(
            each for step in steps for each in (step.interpreter, *step.others)
        )
        largest = max((step.size_bytes for step in steps), default=0)
        self.extra = KEEP_FREED_BLOCKS if largest <= KEEP_FREED_BLOCKS_LIMIT else {}
        usable = [step for step in steps if self._find_environment_error(step) is None]
        for step in usable:
            if step.service and step.service not in self.services:
                runtime = registry.runtimes()[step.service]
                self.services[step.service] = Service(
                    runtime, self.store.workspace(), find_tool(runtime.environment)
                )
        if forkserver.can_fork():
            self._start_servers([step for step in usable if not step.exclusive])

    def _start_servers(self, forked: Collection[Step]) -> None:
        """Start a server for each environment and set of modules of the steps ``forked``."""
        by_start: dict[InterpreterStart, list[Step]] = {}
        # the packages of a model's environment are a stranger's code, as the model is: a server
        # that had imported them could do to its children what it likes
        for step in (step for step in forked if step.interpreter.is_own):
            by_start.setdefault(step.interpreter.start, []).append(step)
        for start, group in by_start.items():
            sets = merge_module_sets(step.preload or BASE for step in group)
            for step in group:
                key = (start, sets[step.preload or BASE])
                self.served[step.key] = key
                if key not in self.servers:
                    self.servers[key] = forkserver.Server(
                        key[1],
                        self.store.workspace(),
                        self.root,
                        hardware.count_cores(),
                        {**self.extra, **IDLE_THREADS_SLEEP},
                        step.interpreter,
                    )
        self.left = Counter(self.served.values())
        if self.jobs > 1:  # beside the first steps, which are seldom more than one
            waiting = queue.SimpleQueue[forkserver.Server]()
            # in the order of need, no more at once than there are cores
            for server in self.servers.values():
                waiting.put(server)
            for _ in range(min(self.jobs, len(self.servers))):
                threading.Thread(target=self._warm_servers, args=(waiting,), daemon=True).start()

    @property
    def repository(self) -> Repository:
        """What the code of models may read of the repository, looked up once."""
        with self.lock:
            if self._repository is None:
                self._repository = Repository(self.root, excluded=[str(self.store.folder.parent)])
            return self._repository

    def _find_environment_error(self, step: Step) -> ErrorInfo | None:
        """Return why an environment of ``step`` cannot be used, or None."""
        return self.installer.find_error((step.interpreter, *step.others))

    def fits(self, step: Step, beside: Collection[Step]) -> bool:
        """Return whether :func:`mconv.engine.runner.has_room` allows it.

        Nothing starts while a step that ran out of memory beside others waits to be alone.
        """
        return has_room(step, beside, self.jobs, self.memory) and not (
            beside and self.running.waiting
        )

    def run(
        self, step: Step, folders: Mapping[str, Path], workspace: Path, stop: threading.Event
    ) -> FinishedStep:
        """Run ``step`` in a process of its own.

        Where it ran out of memory beside others, it is run once more alone.
        """
        if (problem := self._find_environment_error(step)) is not None:
            return FinishedStep(answer=None, error=problem, seconds=0.0, peak_rss_bytes=None)
        request = Request(
            step=step.request,
            folders={role: str(folder) for role, folder in folders.items()},
            out=str(workspace / "out"),
        )
        extra = dict(self.extra)
        if not step.exclusive:
            extra |= IDLE_THREADS_SLEEP
        ports: tuple[int, ...] = ()
        if step.service:
            service = self.services[step.service]
            extra |= service.make_variables()
            ports = (service.port,)
        grants = Grants(
            interpreter=step.interpreter,
            others=step.others,
            variables=extra,
            ports=ports,
            network=step.network,
        )

        def attempt() -> FinishedStep:
            """Run the step once."""
            return run_step(
                request,
                workspace,
                root=self.root,
                threads=hardware.count_cores(),
                timeout_s=step.timeout_s,
                memory_bytes=step.memory_bytes,
                stop=stop,
                grants=grants,
                repository=self.repository,
                start=self._make_starter(step, stop),
            )

        try:
            finished, crowded = self.running.run_beside_others(attempt)
            ran_out = finished.error and finished.error.type == OutOfMemoryError.__name__
            if crowded and ran_out and step.memory_bytes is None:
                plain_files.clear_folder(workspace)
                finished = self.running.run_alone(attempt)
            return finished
        finally:
            self._release_server(step)

    def keep(self, step: Step, done: FinishedStep, workspace: Path) -> Entry:
        """Move the files of a finished step into the store.

        Raises StoreError where there are too many bytes.
        """
        return self.store.put(
            make_entry(step, done), workspace / "out", limit=limit_output_bytes(step.size_bytes)
        )

    def _make_starter(self, step: Step, stop: threading.Event) -> Start:
        """Return the function that starts the process of ``step``, by its server if it has one."""
        server = self.servers.get(self.served[step.key]) if step.key in self.served else None

        def start(
            exchange: Exchange, home: Path, env: Mapping[str, str], confinement: Confinement
        ) -> Supervised:
            """Have the server fork a process, else start one from nothing."""
            forked = None
            if server is not None:
                forked = server.start(exchange, home, env, confinement, stop)
            return forked or spawn(exchange, home, env, confinement, step.interpreter)

        return start

    def _warm_servers(self, waiting: queue.SimpleQueue[forkserver.Server]) -> None:
        """Start the servers in ``waiting`` one after another, and stay alive until they stop."""
        with contextlib.suppress(queue.Empty):
            while not self.closing.is_set():
                waiting.get_nowait().warm(self.closing)
        self.closing.wait()  # a server dies with the thread that started it (PR_SET_PDEATHSIG)

    def _release_server(self, step: Step) -> None:
        """Stop the server of ``step`` where no other step needs it, so that its memory is free."""
        with self.lock:
            key = self.served.pop(step.key, None)
            if key is None:
                return
            self.left[key] -= 1
            last = not self.left[key]
        if last:
            self.servers[key].stop()

    def close(self) -> None:
        """Stop every service and every server."""
        self.closing.set()
        for service in self.services.values():
            service.stop()
        for server in self.servers.values():
            server.stop()


def merge_module_sets(sets: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Return for each set of modules the one to load in its stead.

    It is the largest of them that holds all of it. ``BASE`` stays itself, since its steps would
    only carry the memory of the others.
    """
    by_size = sorted(set(sets), key=lambda modules: (len(modules), modules))
    merged = {}
    for modules in by_size:
        holders = [other for other in by_size if set(modules) <= set(other)]
        merged[modules] = modules if modules == BASE else holders[-1]
    return merged
