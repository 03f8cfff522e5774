"""What a step is expected to take: seconds on two cores, bytes of memory."""

from __future__ import annotations

from mconv.planning.step_graph import Step
from mconv.steps.kinds import KINDS

SERVICE_MEMORY = 500e6  # bytes more where a browser takes part


def estimate_memory(step: Step) -> float:
    """Return the bytes that a step is expected to need at its peak.

    They are no more than its own limit where it has one.
    """
    fixed, multiple = KINDS[step.kind].memory
    expected = fixed + multiple * step.size_bytes + (SERVICE_MEMORY if step.service else 0)
    return min(expected, step.memory_bytes or expected)


def estimate_seconds(step: Step) -> float:
    """Return the seconds that a step is expected to take on two cores.

    A target that rounds to integers itself quantizes when it writes.
    """
    kind = "quantize" if step.kind == "write" and step.lowers else step.kind
    fixed, sized = KINDS[kind].seconds
    return fixed + sized * step.size_bytes / 1e8
