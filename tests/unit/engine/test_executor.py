"""The executor: what must run, in which order, and what a failure skips; with a runner that only
notes what it is told."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mconv.answers import CalibrateAnswer
from mconv.engine.executor import Executor, find_needed
from mconv.engine.run import SilentProgress
from mconv.engine.runner import make_entry
from mconv.planning.step_graph import Step
from mconv.steps.requests import WriteRequest
from mconv.store.local import Entry, Store
from mconv.values import ErrorInfo
from mconv.workers.messages import FinishedStep

GOOD = FinishedStep(answer=CalibrateAnswer(count=1), error=None, seconds=0.1, peak_rss_bytes=1)


def step(key: str, *inputs: str, exclusive: bool = False, size: int = 0) -> Step:
    return Step(
        key=key.ljust(64, "0"),
        plugin="p",
        label=key,
        request=WriteRequest(target="t", precision="fp32", options={}, name="m"),
        inputs={each: each.ljust(64, "0") for each in inputs},
        tools={},
        timeout_s=1.0,
        exclusive=exclusive,
        size_bytes=size,
    )


def plan(*steps: Step) -> Any:
    return SimpleNamespace(steps={s.key: s for s in steps}, manifest=SimpleNamespace(root="."))


class Noting:
    """A runner that does nothing well, and notes in which order and beside what."""

    def __init__(self, store: Store, failing: str = "") -> None:
        self.store = store
        self.failing = failing
        self.ran: list[str] = []
        self.beside: dict[str, set[str]] = {}
        self.lock = threading.Lock()
        self.closed = False

    def begin(self, steps: Collection[Step]) -> None:
        self.told = {each.label for each in steps}

    def fits(self, step: Step, beside: Collection[Step]) -> bool:
        self.beside[step.label] = {each.label for each in beside}
        return len(beside) < 2 and not (step.exclusive and beside)

    def run(
        self, step: Step, folders: Mapping[str, Path], workspace: Path, stop: threading.Event
    ) -> FinishedStep:
        with self.lock:
            self.ran.append(step.label)
        (workspace / "out").mkdir()
        if step.label == self.failing:
            error = ErrorInfo(type="StepError", message="broken", step=step.kind)
            return FinishedStep(answer=None, error=error, seconds=0.0, peak_rss_bytes=None)
        return GOOD

    def keep(self, step: Step, done: FinishedStep, workspace: Path) -> Entry:
        return self.store.put(make_entry(step, done), workspace / "out")

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def run(made: Any, store: Store, wanted: Mapping[str, bool], failing: str = "") -> Any:
    runner = Noting(store, failing)
    outcome = Executor(made, store, SilentProgress(), runner=runner).run(
        {key.ljust(64, "0"): files for key, files in wanted.items()}
    )
    return runner, outcome


def test_each_step_follows_what_it_reads(store: Store) -> None:
    made = plan(step("a"), step("b", "a"), step("c", "a"), step("d", "b", "c"))
    runner, outcome = run(made, store, {"d": True})
    assert runner.ran[0] == "a"
    assert runner.ran[-1] == "d"
    assert sorted(runner.ran) == ["a", "b", "c", "d"]
    assert not outcome.errors
    assert runner.closed


def test_what_is_stored_is_not_run_again(store: Store) -> None:
    made = plan(step("a"), step("b", "a"))
    run(made, store, {"b": True})
    runner, outcome = run(made, store, {"b": True})
    assert runner.ran == []
    assert len(outcome.cached) == 1


def test_inputs_are_needed_only_by_what_runs(store: Store) -> None:
    made = plan(step("a"), step("b", "a"), step("c", "b"))
    run(made, store, {"b": True})
    store.discard("a".ljust(64, "0"))
    entries, todo = find_needed(made, store, {"b".ljust(64, "0"): True})
    assert todo == set()
    assert len(entries) == 1
    _, todo = find_needed(made, store, {"c".ljust(64, "0"): True})
    assert todo == {"c".ljust(64, "0")}


def test_a_damaged_entry_runs_again_with_what_it_reads(store: Store) -> None:
    made = plan(step("a"), step("b", "a"))
    run(made, store, {"b": True})
    (store.path("b".ljust(64, "0")) / "entry.json").write_text("{")
    runner, _ = run(made, store, {"b": True})
    assert runner.ran == ["b"]


def test_a_failure_skips_what_depends_on_it_and_nothing_else(store: Store) -> None:
    made = plan(step("a"), step("b", "a"), step("c", "b"), step("x"), step("y", "x"))
    runner, outcome = run(made, store, {"c": True, "y": True}, failing="b")
    assert set(runner.ran) == {"a", "b", "x", "y"}
    failed = {made.steps[key].label: error for key, error in outcome.errors.items()}
    assert failed.keys() == {"b", "c"}
    assert failed["c"].message == "broken"


@pytest.mark.parametrize("size", [0, 10**12])
def test_a_measurement_waits_for_everything_else(store: Store, size: int) -> None:
    """Even one that takes longest, and so would be begun first."""
    measurement = step("m", exclusive=True, size=size)
    made = plan(measurement, step("a"), step("b", "a"), step("c", "b"))
    runner, _ = run(made, store, {"m": False, "c": True})
    assert runner.ran[-1] == "m"
    assert runner.beside["m"] == set()


def test_the_longest_way_is_begun_first(store: Store) -> None:
    """Two of three may run at once; the one that two others wait for must not be the third."""
    made = plan(step("x"), step("y"), step("a", size=10**9), step("b", "a"), step("c", "b"))
    runner, _ = run(made, store, {"x": True, "y": True, "c": True})
    assert runner.ran.index("a") < 2
