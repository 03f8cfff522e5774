"""Rounds of measurements: how two latencies compare, and whether the machine had time for them."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

NARROW = 0.05  # half of the ratio's confidence interval, relative to it, at which rounds end
# Student's t for 95 %, two-sided, by degrees of freedom (any table of it)
STUDENT = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26}
BUSY = 0.5  # share of the machine that others use, above which a latency says little
LOAD_SECONDS = 0.2


class Ratio(NamedTuple):
    """How many times as quick the artifact is, with its 95 % confidence interval."""

    middle: float
    low: float
    high: float

    @property
    def is_narrow(self) -> bool:
        """Whether further rounds would tell little more."""
        return self.high / self.middle - 1 <= NARROW


def compare_rounds(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> Ratio:
    """Return the ratio of the medians of each round, over the faster half of the rounds.

    What slows a round down is seldom the artifact. The interval is Student's, of the logarithms.
    """
    rounds = sorted(
        (statistics.median(a) + statistics.median(b), statistics.median(b) / statistics.median(a))
        for a, b in zip(ours, theirs, strict=True)
    )
    faster = [math.log(ratio) for _, ratio in rounds[: max(2, (len(rounds) + 1) // 2)]]
    middle = statistics.fmean(faster)
    half = math.inf
    if len(faster) > 1:
        half = STUDENT[len(faster) - 1] * statistics.stdev(faster) / math.sqrt(len(faster))
    return Ratio(math.exp(middle), math.exp(middle - half), math.exp(middle + half))


def read_load() -> float:
    """Return the share of the machine's cores that is in use while this process waits (proc(5),
    stat); 0 where the system does not tell."""
    begin = _read_ticks()
    time.sleep(LOAD_SECONDS)
    end = _read_ticks()
    if begin is None or end is None or end[1] <= begin[1]:
        return 0.0
    return (end[0] - begin[0]) / (end[1] - begin[1])


def _read_ticks() -> tuple[int, int] | None:
    """Ticks of all cores that were spent working, and in all."""
    try:
        line = Path("/proc/stat").read_text().split("\n", 1)[0]
        fields = [int(each) for each in line.split()[1:9]]
    except (OSError, ValueError):
        return None
    idle = fields[3] + fields[4]  # idle, and waiting for a disk
    return sum(fields) - idle, sum(fields)
