"""What carries out steps, for the executor: the contract, and what may run beside what."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Protocol

from mconv.errors import StoreError
from mconv.planning.costs import memory
from mconv.planning.step_graph import Step
from mconv.store.local import Entry
from mconv.workers.messages import Outcome


class Runner(Protocol):
    """Carries out steps; the executor decides which and when, and puts what they made in the store.

    ``run`` is called from several threads at once, ``begin`` before and ``close`` after all of
    them."""

    def begin(self, steps: Collection[Step]) -> None:
        """Told what is going to be run."""

    def fits(self, step: Step, beside: Collection[Step]) -> bool:
        """True where ``step`` may start while ``beside`` run. With nothing beside it, it must; an
        exclusive one only then, on the machine it runs on."""

    def run(
        self, step: Step, folders: Mapping[str, Path], workspace: Path, stop: threading.Event
    ) -> Outcome:
        """Do ``step``: read the files of its inputs in ``folders`` (role → folder), leave its own
        in ``workspace/out`` (made here), and say how it went. ``stop`` set: give up at once. Raises
        StepError, StoreError or OSError where it cannot be tried."""

    def keep(self, step: Step, done: Outcome, workspace: Path) -> Entry:
        """The entry of a step that :meth:`run` did well: from now on it is in the store, though
        perhaps not yet with its files."""

    def close(self) -> None:
        """End whatever was started."""


class Crowd:
    """Counts the steps that run, for those that must run once more without the others."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.turn = threading.Lock()
        self.running = 0
        self.waiting = 0

    def enter(self, attempt: Callable[[], Outcome]) -> tuple[Outcome, bool]:
        """What ``attempt`` gives, and whether others ran when it began or ended."""
        with self.changed:
            self.running += 1
            crowded = self.running > 1
        try:
            done = attempt()
        finally:
            with self.changed:
                crowded = crowded or self.running > 1
                self.running -= 1
                self.changed.notify_all()
        return done, crowded

    def alone(self, attempt: Callable[[], Outcome]) -> Outcome:
        """``attempt`` when no other runs; who waits for that goes in turn."""
        with self.changed:
            self.waiting += 1
        try:
            with self.turn:
                with self.changed:
                    self.changed.wait_for(lambda: not self.running)
                return attempt()
        finally:
            with self.changed:
                self.waiting -= 1


def room(step: Step, beside: Collection[Step], jobs: int, budget: float) -> bool:
    """Whether a machine has room for ``step``: up to ``jobs`` steps, never more at once than the
    bytes of memory in ``budget`` are there for; one that needs all of it runs alone, as
    measurements do."""
    if not beside or step.exclusive or any(other.exclusive for other in beside):
        return not beside
    return len(beside) < jobs and sum(map(memory, (step, *beside))) <= budget


def entry_of(step: Step, done: Outcome) -> Entry:
    """What the store is to hold of a finished step, beside its files."""
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
