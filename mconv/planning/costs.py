"""What a step is expected to take: seconds on two cores, bytes of memory."""

from __future__ import annotations

from mconv.planning.step_graph import Step

# Peak memory of a step: bytes, and a multiple of the source's size; as measured on the examples,
# rounded up.
MEMORY = {
    "export": (700e6, 6.0),
    "weights": (600e6, 3.0),
    "reference": (600e6, 3.0),
    "calibrate": (600e6, 3.0),
    "optimize": (250e6, 8.0),
    "quantize": (250e6, 8.0),
    "write": (400e6, 5.0),
    "verify": (250e6, 4.0),
    "measure": (700e6, 6.0),
}

SERVICE_MEMORY = 500e6  # more where a browser takes part


def memory(step: Step) -> float:
    """What a step is expected to need at its peak, bytes; no more than its own limit where it has
    one."""
    fixed, multiple = MEMORY[step.kind]
    expected = fixed + multiple * step.size_bytes + (SERVICE_MEMORY if step.service else 0)
    return min(expected, step.memory_bytes or expected)


# Seconds of a step on two cores, and more for each 100 MB of the source: as measured on the
# examples, to one significant figure.
SECONDS = {
    "export": (5.0, 10.0),
    "weights": (4.0, 3.0),
    "reference": (3.0, 3.0),
    "calibrate": (3.0, 3.0),
    "optimize": (2.0, 5.0),
    "quantize": (3.0, 30.0),
    "write": (1.0, 3.0),
    "verify": (3.0, 5.0),
    "measure": (5.0, 5.0),
}


def seconds(step: Step) -> float:
    """What a step is expected to take on two cores. A target that rounds to integers itself
    quantizes when it writes."""
    kind = "quantize" if step.kind == "write" and step.lowers else step.kind
    fixed, sized = SECONDS[kind]
    return fixed + sized * step.size_bytes / 1e8
