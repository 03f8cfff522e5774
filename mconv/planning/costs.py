"""What a step is expected to take: seconds on two cores, bytes of memory."""

from __future__ import annotations

from mconv.planning.step_graph import Step
from mconv.steps.kinds import KINDS

SERVICE_MEMORY = 500e6  # more where a browser takes part


def memory(step: Step) -> float:
    """Return what a step is expected to need at its peak, in bytes; no more than its own limit
    where it has one."""
    fixed, multiple = KINDS[step.kind].memory
    expected = fixed + multiple * step.size_bytes + (SERVICE_MEMORY if step.service else 0)
    return min(expected, step.memory_bytes or expected)


def seconds(step: Step) -> float:
    """Return what a step is expected to take on two cores. A target that rounds to integers itself
    quantizes when it writes."""
    kind = "quantize" if step.kind == "write" and step.lowers else step.kind
    fixed, sized = KINDS[kind].seconds
    return fixed + sized * step.size_bytes / 1e8
