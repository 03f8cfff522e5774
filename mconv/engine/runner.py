"""What carries out steps for the executor: the contract, and what may run beside what."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Protocol

from mconv.errors import StoreError
from mconv.planning.costs import estimate_memory
from mconv.planning.step_graph import Step
from mconv.store.local import Entry
from mconv.workers.messages import FinishedStep


class Runner(Protocol):
    """Carries out steps; the executor decides which and when, and puts their files in the store.

    ``run`` is called from several threads at once, ``begin`` before and ``close`` after all of
    them.
    """

    def begin(self, steps: Collection[Step]) -> None:
        """Prepare for ``steps``, which are all that is going to be run."""

    def fits(self, step: Step, beside: Collection[Step]) -> bool:
        """Return whether ``step`` may start while ``beside`` run.

        Where nothing runs, the answer must be True. An exclusive step may start only then, on the
        machine it runs on.
        """

    def run(
        self, step: Step, folders: Mapping[str, Path], workspace: Path, stop: threading.Event
    ) -> FinishedStep:
        """Do ``step`` and return how it went.

        It reads the files of its inputs in ``folders`` (role → folder) and leaves its own in
        ``workspace/out``, which is made here. Where ``stop`` is set it gives up at once. Raises
        StepError, StoreError or OSError where it cannot be tried.
        """

    def keep(self, step: Step, done: FinishedStep, workspace: Path) -> Entry:
        """Return the entry of a step that :meth:`run` did well.

        From now on the entry is in the store, though perhaps not yet with its files.
        """

    def close(self) -> None:
        """End whatever was started."""


class RunningSteps:
    """Counts the steps that run, for those that must run once more without the others.

    Attributes:
        changed: Told where the number of steps that run falls.
        turn: Held by the one that runs alone.
        count: How many run beside one another.
        waiting: How many run alone or wait to.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.turn = threading.Lock()
        self.count = 0
        self.waiting = 0

    def run_beside_others(self, attempt: Callable[[], FinishedStep]) -> tuple[FinishedStep, bool]:
        """Return what ``attempt`` gives, and whether others ran when it began or ended."""
        with self.changed:
            self.count += 1
            crowded = self.count > 1
        try:
            done = attempt()
        finally:
            with self.changed:
                crowded = crowded or self.count > 1
                self.count -= 1
                self.changed.notify_all()
        return done, crowded

    def run_alone(self, attempt: Callable[[], FinishedStep]) -> FinishedStep:
        """Return what ``attempt`` gives, which is made when nothing else runs.

        Those that wait take turns.
        """
        with self.changed:
            self.waiting += 1
        try:
            with self.turn:
                with self.changed:
                    self.changed.wait_for(lambda: not self.count)
                return attempt()
        finally:
            with self.changed:
                self.waiting -= 1


def has_room(step: Step, beside: Collection[Step], jobs: int, budget: float) -> bool:
    """Return whether a machine has room for ``step`` while ``beside`` run.

    It runs up to ``jobs`` steps, which together need no more memory than the bytes in ``budget``. A
    step that needs all of it runs alone, as measurements do.
    """
    if not beside or step.exclusive or any(other.exclusive for other in beside):
        return not beside
    return len(beside) < jobs and sum(map(estimate_memory, (step, *beside))) <= budget


def make_entry(step: Step, done: FinishedStep) -> Entry:
    """Return what the store is to hold of a finished step, beside its files.

    Raises StoreError where the step gave no answer.
    """
    if done.answer is None:
        raise StoreError(f"{step.label} has no answer to keep")
    return Entry(
        key=step.key,
        label=step.label,
        answer=done.answer,
        seconds=round(done.seconds, 4),
        peak_rss_bytes=done.peak_rss_bytes,
        tools=step.tools,
    )
