"""What a step is expected to take: it grows with the source, and a limit bounds it."""

from __future__ import annotations

from mconv.planning.costs import SERVICE_MEMORY, estimate_memory, estimate_seconds
from mconv.planning.step_graph import Step
from mconv.steps.kinds import KINDS
from mconv.steps.requests import AnyRequest, OptimizeRequest, QuantizeRequest, WriteRequest

WRITE = WriteRequest(target="t", precision="fp32", options={}, name="m")
QUANTIZE = QuantizeRequest(quantizer="q", precision="int8", options={})
OPTIMIZE = OptimizeRequest(passes=(), level="basic")


def step(request: AnyRequest = WRITE, **changes: object) -> Step:
    base = {"key": "k", "plugin": "p", "label": "l", "inputs": {}, "tools": {}, "timeout_s": 1.0}
    return Step(request=request, **{**base, **changes})  # type: ignore[arg-type]


def test_a_step_takes_what_its_row_says_and_more_for_a_larger_source() -> None:
    for request in (WRITE, QUANTIZE, OPTIMIZE):
        kind = KINDS[request.kind]
        assert estimate_memory(step(request)) == kind.memory[0]
        assert estimate_seconds(step(request)) == kind.seconds[0]
        large = step(request, size_bytes=2 * 10**8)
        assert estimate_memory(large) == kind.memory[0] + kind.memory[1] * 2e8
        assert estimate_seconds(large) == kind.seconds[0] + kind.seconds[1] * 2


def test_a_step_takes_no_more_than_its_limit() -> None:
    assert estimate_memory(step(size_bytes=10**11, memory_bytes=10**9)) == 10**9
    assert estimate_memory(step(memory_bytes=10**12)) == estimate_memory(step())


def test_a_browser_takes_memory_beside() -> None:
    assert estimate_memory(step(service="browser")) == estimate_memory(step()) + SERVICE_MEMORY


def test_a_write_that_quantizes_takes_the_time_of_a_quantization() -> None:
    size = 10**8
    lowering = step(WRITE, size_bytes=size, lowers=True)
    assert estimate_seconds(lowering) == estimate_seconds(step(QUANTIZE, size_bytes=size))
    assert estimate_seconds(lowering) > estimate_seconds(step(WRITE, size_bytes=size))
