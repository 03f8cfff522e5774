"""What a model does to other processes, to memory and by outliving its step costs its own variant
only."""

from __future__ import annotations

import time

import pytest

from tests.attacks import harness
from tests.attacks.harness import Hostile

# what has left its session lives this long after the step at most, with the time to look
LIFE = 4.0
HOSTILE = [
    *("daemon", "deaf", "undying", "reaper", "hopper", "forkbombd", "forkbomb"),
    *("killall", "stopall", "signal_by_pipes", "spam", "exit_now", "crash", "core"),
    *("mem", "memory_of_children", "memory_that_nobody_maps"),
    *("hang", "busy"),
]
FAIL = {
    **dict.fromkeys(("undying", "hang", "busy"), "TimeLimitError"),
    **dict.fromkeys(("mem", "memory_of_children"), "OutOfMemoryError"),
    **dict.fromkeys(("reaper", "exit_now", "crash", "core"), "WorkerCrashError"),
    # files in memory are refused, since only a control group could count them
    **dict.fromkeys(("spam", "memory_that_nobody_maps"), "SourceError"),
}


def make_models() -> list[Hostile]:
    models = [Hostile("patient", "misbehaving:patient")]
    for name in HOSTILE:
        limit = "3s" if FAIL.get(name) == "TimeLimitError" else "40s"
        more = f"resources: {{timeout: {limit}, memory: 1GB}}"
        models.append(Hostile(name, f"misbehaving:{name}", more))
    return models


class Done:
    """One run with all of them, what lived on, and for how long it took."""

    def __init__(self, mode: str) -> None:
        harness.require(mode)
        begin = time.monotonic()
        with (
            harness.repository(make_models()) as place,
            harness.Watch("mconv-attack:") as watch,
        ):
            self.run = harness.run(place, mode)
            self.files = sorted(
                str(path.relative_to(place))
                for path in place.rglob("*")
                if path.name.startswith(("core", "tmp-"))
            )
        self.seconds = time.monotonic() - begin
        self.lives = watch.lives
        self.variants = self.run.variants()


@pytest.fixture(scope="module", params=harness.MODES)
def done(request: pytest.FixtureRequest) -> Done:
    return Done(request.param)


def test_nobody_else_is_disturbed(done: Done) -> None:
    assert done.run.code == 1, done.run.printed
    for name in ("victim", "patient"):
        assert done.variants[name]["status"] == "passed", done.run.printed
    assert done.seconds < 100


@pytest.mark.parametrize("name", HOSTILE)
def test_each_has_the_status_that_it_earned(done: Done, name: str) -> None:
    variant = done.variants[name]
    assert variant["status"] == "error"
    if name in FAIL:
        assert variant["error"]["type"] == FAIL[name], variant["error"]
    elif "bomb" not in name:  # it came to its end; many processes may be more than its memory
        assert "RuntimeError: done" in variant["error"]["message"]


def test_nothing_outlives_its_step(done: Done) -> None:
    assert {name: life for name, life in done.lives.items() if life > LIFE} == {}


def test_no_core_and_no_workspace_is_left(done: Done) -> None:
    assert done.files == []


def test_no_line_of_a_worker_is_a_command(done: Done) -> None:
    commands = done.run.commands()
    assert all(line.startswith("::error ") for line in commands), commands
    assert done.run.leaked() == []
    assert "\x1b" not in done.run.printed
