"""The runner on the nodes of a Ray cluster, with the same isolated processes as on one machine.

The steps of a run go to the nodes one by one; what they make goes to the store that all nodes share
by URL, and what they read comes from there. A node takes part only where it would make the same: it
plans the manifest itself, and its keys (content of the files, code of mconv, versions of the tools)
must be ours. Measurements run on nodes that are the machine their keys name, one a node and nothing
beside it. A node is taken whole for the run, so that other jobs of the cluster do not disturb them.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from types import ModuleType
from typing import Protocol, TypedDict

import msgspec

from mconv import hardware, plain_files
from mconv.engine.installing import Installer
from mconv.engine.local import LocalRunner
from mconv.engine.runner import has_room, make_entry
from mconv.errors import MconvError, StepError, StoreError, UsageError, one_line
from mconv.planning import planner
from mconv.planning.step_graph import Plan, Step
from mconv.store import shared
from mconv.store.local import Entry, Store, limit_output_bytes, sweep_paths
from mconv.values import ErrorInfo, Machine
from mconv.workers.messages import FinishedStep

ATTEMPTS = 3  # nodes a step is tried on where they die under it
START_SECONDS = 90.0  # for a node to become free, import mconv and plan
POLL_SECONDS = 0.2
LOOPBACK = "127.0.0.1"
SHARED = "see that every node reads and writes it"


class RayNode(TypedDict):
    """A node as ``ray.nodes()`` lists it; only what is read here.

    Attributes:
        NodeID: Ray's id of the node.
        Alive: The node has not died.
        Resources: What it offers, by name: ``CPU`` is the number of its cores.
    """

    NodeID: str
    Alive: bool
    Resources: dict[str, float]


class NodeDescription(msgspec.Struct, frozen=True, kw_only=True):
    """What a node says of itself before the run.

    Attributes:
        host: The name of its machine.
        machine: The machine itself.
        memory: Bytes that its steps may take together.
        problem: Why it cannot take part; empty where it can.
    """

    host: str
    machine: Machine
    memory: float  # bytes that steps may take together
    problem: str = ""


class Node:
    """The part that runs on a node, as a Ray actor.

    Attributes:
        stop: Set where the steps under way are to be given up.
        own: The folder of its own copy of what it needs of the store, if that goes with it.
        store: The store that all nodes share, with that copy in front of it.
        steps: The steps of the plan by key.
        installer: What makes the environments that steps run in.
        local: What runs the steps.
        problem: Why it cannot take part; empty where it can.
    """

    def __init__(self, plan: Plan, store: str, probe: str, threads: int, measure: bool) -> None:
        self.stop = threading.Event()
        self.own: Path | None = None
        if "://" in store:
            named = os.environ.get("MCONV_NODE_STORE")
            sweep_paths(Path(tempfile.gettempdir()).glob("mconvnode-*"))
            if named:
                cache = Path(named)
            else:
                cache = self.own = Path(tempfile.mkdtemp(prefix=f"mconvnode-{os.getpid()}-"))
            self.store = shared.open_store(store, cache)
        else:
            self.store = Store(Path(store))
        self.steps = plan.steps
        self.installer = Installer()
        self.local = LocalRunner(self.store, plan.manifest.root, installer=self.installer)
        self.problem = self._find_difference(plan, probe, threads, measure)

    def _find_difference(self, plan: Plan, probe: str, threads: int, measure: bool) -> str:
        """Return why this node would make something else than the plan says, or an empty text.

        Environments lie where this node has them, and are made where they are missing.
        """
        if isinstance(self.store, shared.SharedStore) and not self.store.remote.holds(probe):
            return f"it does not see what others put into the store {self.store.remote.url}"
        try:
            self.installer.prepare_models(plan.manifest)
            mine = planner.make_plan(plan.manifest, measure=measure, threads=threads)
        except (MconvError, OSError) as problem:
            return f"the repository is not there as it is here: {_describe(problem)}"
        for key, step in plan.steps.items():
            # the key of a measurement names the machine
            if key not in mine.steps and not step.exclusive:
                return (
                    f"its files, tools or mconv are not the same: it would do {step.label!r} "
                    "otherwise"
                )
        self.steps = {**plan.steps, **mine.steps}
        return ""

    def describe(self) -> NodeDescription:
        """Describe this node to the driver."""
        return NodeDescription(
            host=platform.node(),
            machine=hardware.describe_machine(),
            memory=self.local.memory,
            problem=self.problem,
        )

    def begin(self, keys: Collection[str]) -> None:
        """Prepare the node's local runner for the steps ``keys``."""
        self.local.begin([self.steps[key] for key in keys])

    def run(self, key: str) -> FinishedStep:
        """Do a step and put its files into the shared store.

        Never raises for what goes wrong with the step.
        """
        step = self.steps[key]
        try:
            for before in step.inputs.values():
                entry = self.store.read(before)
                if entry is None or not self.store.intact(entry):
                    raise StoreError(
                        "the shared store has lost what this step reads, or it cannot be read",
                        hint=SHARED,
                    )
            workspace = self.store.workspace()
            try:
                folders = {role: self.store.files(before) for role, before in step.inputs.items()}
                done = self.local.run(step, folders, workspace, self.stop)
                if done.error is None:
                    self.store.put(
                        make_entry(step, done),
                        workspace / "out",
                        limit=limit_output_bytes(step.size_bytes),
                    )
                    if (
                        isinstance(self.store, shared.SharedStore)
                        and not self.store.remote.writable
                    ):
                        raise StoreError(
                            "what the step made could not be put into the shared store", hint=SHARED
                        )
            finally:
                plain_files.remove_folder(workspace)
        except (MconvError, OSError) as problem:
            error = ErrorInfo(
                type=type(problem).__name__,
                message=f"on {platform.node()}: {_describe(problem)}",
                hint=problem.hint if isinstance(problem, MconvError) else None,
                step=step.kind,
            )
            return FinishedStep(answer=None, error=error, seconds=0.0, peak_rss_bytes=None)
        return done

    def halt(self) -> None:
        """Give up the steps under way."""
        self.stop.set()

    def close(self) -> None:
        """Stop the local runner and remove the node's own copy of the store."""
        self.stop.set()
        self.local.close()
        if self.own is not None:
            shutil.rmtree(self.own, ignore_errors=True)


class RemoteMethod(Protocol):
    """A method of a :class:`Node`, as Ray gives it to the driver."""

    def remote(self, *arguments: object) -> object:
        """Call it on the node, and return Ray's reference to what it answers."""


class NodeActor(Protocol):
    """The handle of a :class:`Node`.

    Attributes:
        describe: Describes the node.
        begin: Prepares it for steps.
        run: Does a step.
        halt: Gives up the steps under way.
        close: Stops it.
    """

    describe: RemoteMethod
    begin: RemoteMethod
    run: RemoteMethod
    halt: RemoteMethod
    close: RemoteMethod


class Member:
    """A node as the driver sees it.

    Attributes:
        name: Ray's id of the node.
        actor: The handle of its :class:`Node`.
        host: The name of its machine.
        cores: How many steps it runs at once where nobody says otherwise.
        memory: Bytes that its steps may take together.
        measures: It is a machine like this one, which may take measurements.
        alive: It has not died yet.
    """

    def __init__(self, name: str, actor: NodeActor, answer: NodeDescription, here: Machine) -> None:
        self.name = name
        self.actor = actor
        self.host = answer.host
        self.cores = answer.machine.cores
        self.memory = answer.memory
        self.measures = (answer.machine.cpu, answer.machine.cores, answer.machine.system) == (
            here.cpu,
            here.cores,
            here.system,
        )
        self.alive = True


class RayRunner:
    """A runner on the nodes of a Ray cluster: see :class:`mconv.engine.runner.Runner`.

    Attributes:
        plan: The steps.
        store: The store as this machine has it.
        named: The store as the nodes open it: a URL, or an absolute path.
        address: The cluster's address; None starts one on this machine.
        jobs: How many steps run at once on each node; None is as many as it has cores.
        measure: The plan measures.
        members: The nodes that take part.
        placed: The node that is reserved for a step, by the step's key.
        ran: How many steps each node did, by its name for people.
        lock: Held while places are given.
        probe: The name of an entry in the store by which a node shows that it sees the store.
        ray: The module.
    """

    def __init__(
        self,
        plan: Plan,
        store: Store,
        named: str,
        *,
        address: str | None,
        jobs: int | None,
        measure: bool,
    ) -> None:
        """``named`` is the store as the user named it.

        Raises UsageError where Ray is not installed.
        """
        self.plan = plan
        self.store = store
        self.named = named if "://" in named else str(Path(named).resolve())
        self.address = address or os.environ.get("RAY_ADDRESS") or None
        self.jobs = jobs
        self.measure = measure
        self.members: list[Member] = []
        self.placed: dict[str, Member] = {}
        self.ran: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.probe = f"probe-{uuid.uuid4().hex}"
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        try:
            import ray
        except ImportError as problem:
            raise UsageError(
                "--executor ray needs Ray, which is not installed", hint="pip install 'mconv[ray]'"
            ) from problem
        self.ray: ModuleType = ray

    def begin(self, steps: Collection[Step]) -> None:
        """Connect to the cluster and take the nodes that can do ``steps``.

        Raises UsageError where none can take part, or they share no store.
        """
        if isinstance(self.store, shared.SharedStore) and self.store.keys is not None:
            raise UsageError(
                "the nodes of a Ray cluster cannot sign what they put into a shared store",
                hint="leave out MCONV_STORE_KEY and MCONV_STORE_PUBLIC_KEY, or name a store of the "
                "cluster's own",
            )
        self._connect()
        listed: list[RayNode] = self.ray.nodes()
        nodes = [node for node in listed if node["Alive"] and node["Resources"].get("CPU")]
        if len(nodes) > 1 and "://" not in self.named:
            raise UsageError(
                f"the cluster has {len(nodes)} nodes, which do not share the store {self.named}",
                hint="name one that they all reach by URL: --store s3://bucket/path, or "
                "file:///shared/folder",
            )
        if isinstance(self.store, shared.SharedStore):
            self.store.remote.mark(self.probe)
        self._recruit(nodes, [step.key for step in steps])
        if not self.members:
            raise UsageError(
                "no node of the Ray cluster can take part", hint="the notes above say why"
            )
        if any(step.exclusive for step in steps) and not any(m.measures for m in self.members):
            raise UsageError(
                "no node of the Ray cluster is a machine like this one, whose latencies are asked "
                "for",
                hint="run on one of its nodes, or use --no-measure",
            )

    def _connect(self) -> None:
        """Connect to the cluster, or start one on this machine.

        Raises UsageError where it does not answer.
        """
        quiet = {"log_to_driver": False, "configure_logging": False}
        if self.ray.is_initialized():
            return
        if self.address is None:
            self.ray.init(
                address="local",
                num_cpus=hardware.count_cores(),
                include_dashboard=False,
                _node_ip_address=LOOPBACK,
                **quiet,
            )
            return
        try:
            self.ray.init(address=self.address, **quiet)
        except (ConnectionError, RuntimeError, ValueError) as problem:
            raise UsageError(
                f"no Ray cluster answers at {self.address}: {one_line(problem)}",
                hint="see --ray-address",
            ) from problem

    def _recruit(self, nodes: Collection[RayNode], keys: list[str]) -> None:
        """Take the nodes that are free, see the store and would make the same.

        Why others are left out is printed.
        """
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        answers = {}  # Ray's reference to a node's answer → the node's id and its actor
        arguments = (self.plan, self.named, self.probe, hardware.count_cores(), self.measure)
        for node in nodes:
            options = {
                "num_cpus": node["Resources"]["CPU"],
                "scheduling_strategy": NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
                "max_concurrency": 64,
            }
            actor = self.ray.remote(Node).options(**options).remote(*arguments)
            answers[actor.describe.remote()] = (node["NodeID"], actor)
        ready, _ = self.ray.wait(list(answers), num_returns=len(answers), timeout=START_SECONDS)
        here = hardware.describe_machine()
        for reference, (name, actor) in answers.items():
            try:
                if reference not in ready:
                    raise StepError(
                        f"other jobs hold it, or it did not start in {START_SECONDS:.0f} s"
                    )
                answer = self.ray.get(reference)
                if answer.problem:
                    raise StepError(answer.problem)
                self.ray.get(actor.begin.remote(keys), timeout=START_SECONDS)
            except Exception as problem:  # Ray wraps what a node raised in exceptions of its own
                reason = (
                    problem.message if isinstance(problem, MconvError) else _read_last_line(problem)
                )
                print(
                    f"note: node {name[:8]} of the Ray cluster is left out: {reason}",
                    file=sys.stderr,
                )
                self.ray.kill(actor)
                continue
            self.members.append(Member(name, actor, answer, here))

    def fits(self, step: Step, beside: Collection[Step]) -> bool:
        """Reserve a place for ``step``, and return whether there is one."""
        with self.lock:
            keys = {other.key for other in beside}
            self.placed = {key: member for key, member in self.placed.items() if key in keys}
            return self._place(step) or not beside

    def _place(self, step: Step) -> bool:
        """Reserve a place on the node with the least to do, and return whether there is one."""
        busy: dict[str, list[Step]] = {member.name: [] for member in self.members}
        for key, member in self.placed.items():
            busy[member.name].append(self.plan.steps[key])
        for member in sorted(self.members, key=lambda each: len(busy[each.name])):
            beside: list[Step] = []
            for other in self.members:
                if other.host == member.host:
                    beside += busy[other.name]
            able = (
                member.alive
                and (member.measures or not step.exclusive)
                and len(busy[member.name]) < (self.jobs or member.cores)
            )
            if able and has_room(step, beside, len(beside) + 1, member.memory):
                self.placed[step.key] = member
                return True
        return False

    def run(
        self, step: Step, folders: Mapping[str, Path], workspace: Path, stop: threading.Event
    ) -> FinishedStep:
        """Run ``step`` on its node, and on another where that node dies.

        Raises StepError where every node that tries it dies, or none is left.
        """
        died: list[str] = []
        while len(died) < ATTEMPTS:
            member = self._await_member(step, stop)
            reference = member.actor.run.remote(step.key)
            try:
                while not self.ray.wait([reference], timeout=POLL_SECONDS)[0]:
                    if stop.is_set():
                        member.actor.halt.remote()
                done: FinishedStep = self.ray.get(reference)
            except self.ray.exceptions.RayError as problem:
                # the node, or the actor's process on it, is gone
                member.alive = False
                died.append(f"{member.host}: {_read_last_line(problem)}")
                print(
                    f"note: a node of the Ray cluster died, {step.label} goes to another one",
                    file=sys.stderr,
                )
                continue
            finally:
                with self.lock:
                    self.placed.pop(step.key, None)
            self.ran[f"{member.host} {member.name[:8]}"] += 1
            return done
        raise StepError(
            f"{len(died)} nodes died while they ran this step; {died[-1]}",
            hint="it may need more memory than they have",
        )

    def _await_member(self, step: Step, stop: threading.Event) -> Member:
        """Return the node that is reserved for ``step``, or the next that has room.

        Raises StepError where none is left.
        """
        while True:
            with self.lock:
                if step.key in self.placed or self._place(step):
                    return self.placed[step.key]
                able = [m for m in self.members if m.alive and (m.measures or not step.exclusive)]
            if not able or stop.is_set():
                raise StepError(
                    "no node of the Ray cluster is left that could run this step",
                    hint="start nodes, then run again",
                )
            time.sleep(POLL_SECONDS)

    def keep(self, step: Step, done: FinishedStep, workspace: Path) -> Entry:
        """Return the entry that the node left in the shared store.

        Raises StoreError where it is not there.
        """
        entry = self.store.read(step.key)
        if entry is None:
            raise StoreError("what a node made is not in the shared store", hint=SHARED)
        return entry

    def close(self) -> None:
        """Stop every node, say how many steps each one did, and disconnect."""
        for member in self.members:
            if member.alive:
                with contextlib.suppress(Exception):  # a node that is gone has nothing to close
                    self.ray.get(member.actor.close.remote(), timeout=10)
            with contextlib.suppress(Exception):
                self.ray.kill(member.actor)
        if isinstance(self.store, shared.SharedStore):
            self.store.remote.unmark(self.probe)
        if self.ran:
            parts = [f"{count} steps on {name}" for name, count in sorted(self.ran.items())]
            print(f"ray: {', '.join(parts)}", file=sys.stderr)
        if self.ray.is_initialized():
            self.ray.shutdown()


def _describe(problem: Exception) -> str:
    """Return the message of an error without its hint."""
    return problem.message if isinstance(problem, MconvError) else str(problem)


def _read_last_line(problem: Exception) -> str:
    """Return the last line of a message: Ray's begin with a traceback of the node."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    return (lines[-1] if lines else type(problem).__name__)[:300]
