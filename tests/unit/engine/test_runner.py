"""What may run beside what, and those that must run once more without the others."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from mconv.answers import CalibrateAnswer
from mconv.engine.runner import RunningSteps, has_room, make_entry
from mconv.errors import StoreError
from mconv.planning.costs import estimate_memory
from mconv.workers.messages import FinishedStep
from tests.unit.engine.test_executor import GOOD, step

SMALL, LARGE = step("small"), step("large", size=10**9)
ALONE = step("alone", exclusive=True)


@pytest.mark.parametrize(
    ("which", "beside", "jobs", "room"),
    [
        (SMALL, [], 1, True),
        (SMALL, [SMALL], 1, False),
        (SMALL, [SMALL], 2, True),
        (LARGE, [], 1, True),  # where nothing runs anything may
        (ALONE, [], 1, True),
        (ALONE, [SMALL], 9, False),
        (SMALL, [ALONE], 9, False),
    ],
)
def test_room_by_jobs_and_for_what_runs_alone(
    which: object, beside: list[object], jobs: int, room: bool
) -> None:
    assert has_room(which, beside, jobs, 1e12) == room  # type: ignore[arg-type]


def test_memory_of_all_together_stays_in_the_budget() -> None:
    both = estimate_memory(SMALL) + estimate_memory(LARGE)
    assert has_room(SMALL, [LARGE], 9, both)
    assert not has_room(SMALL, [LARGE], 9, both - 1)
    assert has_room(LARGE, [], 9, 1.0)


def test_an_entry_holds_what_the_step_answered() -> None:
    done = FinishedStep(
        answer=CalibrateAnswer(count=2), error=None, seconds=1.23456, peak_rss_bytes=7
    )
    entry = make_entry(SMALL, done)
    assert (entry.key, entry.label, entry.answer) == (SMALL.key, "small", done.answer)
    assert (entry.seconds, entry.peak_rss_bytes) == (1.2346, 7)
    with pytest.raises(StoreError, match="small has no answer"):
        make_entry(SMALL, FinishedStep(answer=None, error=None, seconds=1.0, peak_rss_bytes=None))


class Held:
    """A step that runs until it is told to end."""

    def __init__(self) -> None:
        self.began, self.go_on = threading.Event(), threading.Event()

    def __call__(self) -> FinishedStep:
        self.began.set()
        assert self.go_on.wait(10)
        return GOOD


def test_a_step_knows_whether_others_ran_when_it_began_or_ended() -> None:
    running = RunningSteps()
    assert running.run_beside_others(lambda: GOOD) == (GOOD, False)
    first, second = Held(), Held()
    with ThreadPoolExecutor() as pool:
        one = pool.submit(running.run_beside_others, first)
        assert first.began.wait(10)
        two = pool.submit(running.run_beside_others, second)
        assert second.began.wait(10)
        first.go_on.set()
        assert one.result()[1]  # the second had begun
        second.go_on.set()
        assert two.result()[1]  # the first ran when it began
    assert running.count == 0


def test_a_step_that_fails_is_not_counted_any_more() -> None:
    running = RunningSteps()

    def fail() -> FinishedStep:
        raise OSError("no luck")

    with pytest.raises(OSError, match="no luck"):
        running.run_beside_others(fail)
    assert running.run_beside_others(lambda: GOOD) == (GOOD, False)
    with pytest.raises(OSError, match="no luck"):
        running.run_alone(fail)
    assert (running.count, running.waiting) == (0, 0)


def test_alone_waits_for_all_others_and_takes_turns() -> None:
    running = RunningSteps()
    began, go_on = threading.Event(), threading.Event()
    order: list[str] = []
    inside = threading.Lock()

    def wait() -> FinishedStep:
        began.set()
        assert go_on.wait(10)
        order.append("beside")
        return GOOD

    def alone() -> FinishedStep:
        assert inside.acquire(blocking=False)
        order.append("alone")
        inside.release()
        return GOOD

    with ThreadPoolExecutor() as pool:
        first = pool.submit(running.run_beside_others, wait)
        assert began.wait(10)
        others = [pool.submit(running.run_alone, alone) for _ in range(3)]
        assert not order
        go_on.set()
        assert [first.result()[0], *(each.result() for each in others)] == [GOOD] * 4
    assert order == ["beside", "alone", "alone", "alone"]
