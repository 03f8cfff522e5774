"""The executor runs a graph of steps: what the store lacks, in parallel where that is allowed.

Measurements run alone. A step that fails does not stop those that do not depend on it.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Protocol

from mconv import plain_files
from mconv.engine.installing import Installer
from mconv.engine.local import LocalRunner
from mconv.engine.runner import Runner
from mconv.errors import StepError, StoreError
from mconv.planning.costs import estimate_seconds
from mconv.planning.outcome import Outcome, Span
from mconv.planning.step_graph import Plan, Step
from mconv.store.local import Entry, Store
from mconv.values import ErrorInfo
from mconv.workers.process import FULL

THREADS = 64  # steps that may be under way at once; the runner says how many really are


class Progress(Protocol):
    """What is told of every step; implementations draw a bar or print a line."""

    def begin(self, total: int) -> None:
        """Hear that ``total`` steps are going to be run."""

    def started(self, step: Step) -> None:
        """Hear that a step has begun."""

    def finished(self, step: Step, seconds: float, error: ErrorInfo | None) -> None:
        """Hear that a step has ended, after how many seconds, and why it failed if it did."""

    def skipped(self, step: Step, cause: ErrorInfo) -> None:
        """Hear that a step is not run, because of another's failure."""

    def end(self) -> None:
        """Hear that no more steps follow."""


def find_needed(
    plan: Plan, store: Store, want_files: Mapping[str, bool]
) -> tuple[dict[str, Entry], set[str]]:
    """Return the entries that the store has, and the keys of the steps that must run.

    ``want_files`` says of each final key whether its files are needed, not only its answer. The
    inputs of a step are needed only when it runs; their files are checked against their digests
    then.
    """
    have: dict[str, Entry] = {}
    run: set[str] = set()
    checked: set[str] = set()  # of `have`, those whose files were held to their digests

    def need(key: str, files: bool) -> None:
        """Put a step where it belongs, and all that it reads where it must run."""
        if key in run or (key in have and (not files or key in checked)):
            return
        entry = have.get(key) or store.read(key)
        if entry is not None and (not files or store.intact(entry)):
            have[key] = entry
            if files:
                checked.add(key)
            return
        have.pop(key, None)
        if entry is not None or store.path(key).exists():
            # damaged: the files of a step that is run again must not stand in its way
            store.discard(key)
        run.add(key)
        for before in plan.steps[key].inputs.values():
            need(before, True)

    for key, files in want_files.items():
        need(key, files)
    return have, run


class Executor:
    """Runs the steps that :func:`find_needed` names. An instance serves one run.

    Attributes:
        plan: The steps.
        store: Where finished steps are.
        progress: What is told of every step.
        runner: What carries out the steps.
        stop: Set where the steps under way are to be given up.
        errors: Why steps failed or were skipped, by key.
        entries: What the store holds of steps that did well, by key.
        spans: When steps ran, by key.
    """

    def __init__(
        self,
        plan: Plan,
        store: Store,
        progress: Progress,
        *,
        jobs: int | None = None,
        runner: Runner | None = None,
        installer: Installer | None = None,
    ) -> None:
        """By default the runner is this machine, with at most ``jobs`` steps at once and the
        environments that ``installer`` makes."""
        self.plan = plan
        self.store = store
        self.progress = progress
        self.runner: Runner = runner or LocalRunner(store, plan.manifest.root, jobs, installer)
        self.stop = threading.Event()
        self.errors: dict[str, ErrorInfo] = {}
        self.entries: dict[str, Entry] = {}
        self.spans: dict[str, Span] = {}

    def run(self, want_files: Mapping[str, bool]) -> Outcome:
        """Run all that is needed for ``want_files``, as :func:`find_needed` understands it.

        A KeyboardInterrupt kills the workers and is passed on.
        """
        self.entries, to_run = find_needed(self.plan, self.store, want_files)
        cached = frozenset(self.entries)
        self.store.sweep()
        if to_run:
            self.progress.begin(len(to_run))
            try:
                self.runner.begin([self.plan.steps[key] for key in to_run])
                self._drain(to_run)
            finally:
                self.stop.set()
                self.runner.close()
                self.progress.end()
            self._fetch(want_files)
        return Outcome(entries=self.entries, cached=cached, errors=self.errors, spans=self.spans)

    def _fetch(self, want_files: Mapping[str, bool]) -> None:
        """Bring files here that were made elsewhere; a step whose files are lost is an error."""
        for key, files in want_files.items():
            entry = self.entries.get(key)
            if (
                files
                and entry is not None
                and not self.store.path(key).exists()
                and not self.store.intact(entry)
            ):
                del self.entries[key]
                self.errors[key] = ErrorInfo(
                    type="StoreError",
                    message=f"what {entry.label!r} made cannot be had from the shared store",
                    hint="run again",
                    step=entry.kind,
                )

    def _drain(self, to_run: set[str]) -> None:
        """Run the steps ``to_run`` until none is left, those with the longest way to go first."""
        waiting = self._rank_steps(to_run)
        running: dict[Future[None], Step] = {}
        pool = ThreadPoolExecutor(THREADS)
        try:
            while waiting or running:
                for key in list(self._find_startable(waiting, running)):
                    waiting.remove(key)
                    step = self.plan.steps[key]
                    blocked = next((k for k in step.inputs.values() if k in self.errors), None)
                    # a dependent of a failure is skipped and carries its cause
                    if blocked is not None:
                        self.errors[key] = self.errors[blocked]
                        self.progress.skipped(step, self.errors[key])
                        continue
                    running[pool.submit(self._run_step, step)] = step
                if running:
                    done, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
                    for future in done:
                        running.pop(future)
                        future.result()
        finally:
            if sys.exc_info()[0]:
                self.stop.set()
            pool.shutdown(wait=True, cancel_futures=True)

    def _rank_steps(self, to_run: set[str]) -> list[str]:
        """Return ``to_run`` by the time that is still to come after each step, the longest first.

        This is Hu's level rule: a step that others wait for is not held up by one that nobody waits
        for. Steps that come out equal stay in the plan's order.
        """
        rank = dict.fromkeys((key for key in self.plan.steps if key in to_run), 0.0)
        for key in reversed(rank):
            step = self.plan.steps[key]
            rank[key] += estimate_seconds(step)
            for before in step.inputs.values():
                if before in rank:
                    rank[before] = max(rank[before], rank[key])
        return sorted(rank, key=lambda key: -rank[key])

    def _find_startable(
        self, waiting: list[str], running: Mapping[Future[None], Step]
    ) -> Iterator[str]:
        """Yield the keys of the steps that may start now.

        A measurement starts only when nothing else runs or could run, and nothing starts beside it.
        """
        active = list(running.values())
        pending = {*waiting, *(step.key for step in active)}
        last = all(self.plan.steps[key].exclusive for key in waiting)
        for key in waiting:
            step = self.plan.steps[key]
            if step.exclusive and not last:
                continue
            if not pending.intersection(step.inputs.values()) and self.runner.fits(step, active):
                active.append(step)
                yield key

    def _run_step(self, step: Step) -> None:
        """Run one step and record its entry or its error."""
        self.progress.started(step)
        begin = time.monotonic()
        workspace = self.store.workspace()
        try:
            folders = {role: self.store.files(key) for role, key in step.inputs.items()}
            outcome = self.runner.run(step, folders, workspace, self.stop)
            error = outcome.error
            if error is None:
                self.entries[step.key] = self.runner.keep(step, outcome, workspace)
            seconds = outcome.seconds
        except (StepError, StoreError) as problem:
            seconds = 0.0
            error = ErrorInfo(
                type=type(problem).__name__,
                message=problem.message,
                hint=problem.hint,
                step=step.kind,
            )
        except OSError as problem:  # of the store's disk: the worker's own come in its answer
            seconds = 0.0
            error = ErrorInfo(
                type="StoreError",
                message=f"the store {self.store.folder.parent} cannot be written: {problem}",
                hint=FULL,
                step=step.kind,
            )
        finally:
            plain_files.remove_folder(workspace)
        self.spans[step.key] = Span(begin, time.monotonic())
        if error is not None:
            self.errors[step.key] = error
        self.progress.finished(step, seconds, error)
