"""What may run beside what, and which imports are shared."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from mconv import registry
from mconv.answers import WriteAnswer
from mconv.engine import local as engine_local
from mconv.engine.local import BASE, LocalRunner, merge_module_sets
from mconv.planning.costs import estimate_memory
from mconv.planning.step_graph import Step
from mconv.steps.requests import WriteRequest
from mconv.store.local import Store
from mconv.values import ErrorInfo, ModelInfo
from mconv.workers.messages import FinishedStep, Request


def step(size: int = 0, **settings: object) -> Step:
    base = {
        "key": f"write{size}",
        "plugin": "p",
        "label": "l",
        "request": WriteRequest(target="t", precision="fp32", options={}, name="m"),
        "inputs": {},
        "tools": {},
    }
    return Step(**{**base, "timeout_s": 1.0, "size_bytes": size, **settings})  # type: ignore[arg-type]


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalRunner:
    monkeypatch.setattr(
        "mconv.hardware.read_available_bytes", lambda: 8 * 10**9 + engine_local.LEFT_FOR_OTHERS
    )
    return LocalRunner(Store(tmp_path), str(tmp_path), jobs=3)


def test_as_many_as_there_are_jobs_and_memory_for(local: LocalRunner) -> None:
    small, large = step(10**6), step(10**9)
    assert local.fits(small, [small, small])
    assert not local.fits(small, [small, small, small])
    assert local.fits(small, [large])
    assert not local.fits(large, [large])


def test_one_too_large_for_the_machine_runs_alone(local: LocalRunner) -> None:
    huge = step(10**11)
    assert local.fits(huge, [])
    assert not local.fits(huge, [step()])
    assert not local.fits(step(), [huge])


def test_a_limit_of_its_own_is_what_a_step_takes_at_most() -> None:
    assert estimate_memory(step(10**11, memory_bytes=10**9)) == 10**9
    assert estimate_memory(step(10**9, service="browser")) > estimate_memory(step(10**9))


def test_a_set_of_modules_is_loaded_with_the_largest_that_holds_it() -> None:
    sets = [
        ("torch",),
        ("torch", "onnx"),
        BASE,
        ("numpy", "onnx", "torch", "transformers"),
        ("tensorflow",),
    ]
    assert merge_module_sets(sets) == {
        ("torch",): sets[3],
        ("torch", "onnx"): sets[3],
        BASE: BASE,
        sets[3]: sets[3],
        ("tensorflow",): ("tensorflow",),
    }


def test_malloc_keeps_blocks_only_for_small_models(
    local: LocalRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MCONV_FORK", "0")
    local.begin([step(10**6)])
    assert local.extra == engine_local.KEEP_FREED_BLOCKS
    local.begin([step(10**6), step(10**10)])
    assert not local.extra


def test_preloads_name_modules() -> None:
    named = [
        name
        for family in registry.STEPS
        for p in registry.plugins(family).values()
        for name in p.preload
    ]
    assert "torch" in named
    assert all(part.isidentifier() for name in named for part in name.split("."))


def outcome(error: str | None = None) -> FinishedStep:
    info = ErrorInfo(type=error, message="m") if error else None
    answer = None if error else WriteAnswer(info=ModelInfo())
    return FinishedStep(answer=answer, error=info, seconds=0.0, peak_rss_bytes=None)


@pytest.mark.parametrize(
    ("limit", "beside", "tries"), [(None, True, 2), (10**9, True, 1), (None, False, 1)]
)
def test_out_of_memory_beside_others_is_tried_again_alone(
    local: LocalRunner,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    limit: int | None,
    beside: bool,
    tries: int,
) -> None:
    """A limit of the user's own stands; one that had the machine to itself has had its chance."""
    asked: list[int] = []
    other_may_end, refused = threading.Event(), threading.Event()

    def run(request: Request, workspace: Path, **_: object) -> FinishedStep:
        if request.step.target == "other":
            assert refused.wait(10)
            other_may_end.set()
            return outcome()
        asked.append(local.running.count)
        (workspace / "out").mkdir()  # as run_step does: what is left of the first try must be gone
        if len(asked) == 1:
            refused.set()
            return outcome("OutOfMemoryError")
        assert other_may_end.is_set()
        assert not local.fits(step(), [step()])
        return outcome()

    monkeypatch.setattr(engine_local, "run_step", run)
    other = threading.Thread(
        target=lambda: local.run(
            step(request=WriteRequest(target="other", precision="fp32", options={}, name="m")),
            {},
            tmp_path,
            threading.Event(),
        )
    )
    if beside:
        other.start()
        while not local.running.count:
            pass
    folder = tmp_path / "workspace"
    folder.mkdir()
    done = local.run(step(memory_bytes=limit), {}, folder, threading.Event())
    assert len(asked) == tries
    assert (done.error is None) == (tries == 2)
    refused.set()
    if beside:
        other.join()
        assert asked[-1] == (0 if tries == 2 else 2)
    assert local.running.count == local.running.waiting == 0
