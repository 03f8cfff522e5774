"""The sizes of free axes that an export is right for.

A trace follows one run of the source's code, so what the code decides by a size (``if n > 48:``) is
fixed as that run took it. The graph is therefore held to the source at sizes on both sides of each
such decision, and at short and long ones. Where it is wrong beyond a size, that is the bound of the
axis."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from mconv.errors import UnsupportedError
from mconv.values import AxisBound

# sizes that are tried whatever the code does: few, odd, many
ALWAYS = (3, 9, 33, 70, 100)
LARGEST = 1100  # of the sizes that decisions ask for; attention takes their square
MOST_CANDIDATES = 20  # of one axis
SECONDS = 15.0  # for the sizes of one export
FURTHER = (5, 11)  # multiples at which a rule is tried, before it is believed

# A size of one axis, the others as in the trace: whether the graph is right there, or None where
# the source takes no such size.
Ask = Callable[[str, int], bool | None]


class Decision(NamedTuple):
    """A comparison of two numbers, of which the first follows from the sizes of inputs.

    Attributes:
        place: Where in the code it stands, ``file:line``.
        size: What was compared, as the trace had it.
        threshold: What it was compared with.
    """

    place: str
    size: float
    threshold: float


class Bounds(NamedTuple):
    """What is known of the sizes that an export is right for.

    Attributes:
        axes: The bound of every axis that has one.
        places: The decision that each follows from, where it is known.
        untried: Decisions whose other side was not tried.
    """

    axes: dict[str, AxisBound]
    places: dict[str, str]
    untried: tuple[str, ...]

    def describe(self) -> list[str]:
        """Return the bounds in words, a sentence each."""
        sentences = []
        for axis, bound in sorted(self.axes.items()):
            place = self.places.get(axis)
            reason = f", since the code decides by the size at {place}" if place else ""
            sentences.append(f"right for {bound.describe(axis)} only{reason}")
        return sentences


def find_bounds(
    traced: Mapping[str, Sequence[int]],
    decisions: Sequence[Decision],
    ask: Ask,
    *,
    batches: Collection[str] = (),
) -> Bounds:
    """Return the bounds of the free axes in ``traced``, each with the sizes at which the graph was
    found to be right; the first is that of the trace. Of ``batches`` only what decisions ask for is
    tried.

    Raises UnsupportedError where the sizes that the graph is right for are neither an interval nor
    the multiples of a number.
    """
    until = time.monotonic() + SECONDS
    axes: dict[str, AxisBound] = {}
    places: dict[str, str] = {}
    tried: set[str] = set()
    for axis, sizes in traced.items():
        results: dict[int, bool | None] = dict.fromkeys(sizes, True)
        always = () if axis in batches else ALWAYS
        for size in _choose_candidates(sizes[0], decisions, always):
            if time.monotonic() > until:
                break
            if size not in results:
                results[size] = ask(axis, size)
        for decision in decisions:
            sides = _sides(decision, sizes[0])
            if not sides or (min(results) <= sides[0] and max(results) >= sides[-1]):
                tried.add(decision.place)
        bound = _conclude(axis, sizes[0], results, ask)
        if bound is None:
            continue
        axes[axis] = bound
        for decision in decisions:
            sides = _sides(decision, sizes[0])
            if {bound.min, bound.max, bound.min - 1} & set(sides):
                places.setdefault(axis, decision.place)
    untried = dict.fromkeys(d.place for d in decisions if d.place not in tried)
    return Bounds(axes, places, tuple(untried))


def _sides(decision: Decision, traced: int) -> list[int]:
    """Return sizes of an axis around a decision, if what is compared is its size or proportional to
    it; none where no size lies on the other side. ``traced`` is its size in the trace."""
    middle = decision.threshold
    if decision.size and decision.size != traced:
        middle = decision.threshold * traced / decision.size
    if not math.isfinite(middle) or middle < 1:
        return []
    low, high = math.floor(middle) - 1, math.ceil(middle) + 1
    return [size for size in range(low, high + 1) if size >= 1]


def _choose_candidates(
    traced: int, decisions: Sequence[Decision], always: Sequence[int]
) -> list[int]:
    """Return the sizes to try, the smaller first: around the decisions, and those that always
    are."""
    chosen = dict.fromkeys(always)
    largest = max(LARGEST, 4 * traced)
    for decision in decisions:
        sides = _sides(decision, traced)
        if sides and sides[-1] <= largest and len(chosen) + len(sides) <= MOST_CANDIDATES:
            chosen |= dict.fromkeys(sides)
    return sorted(chosen)


def _conclude(
    axis: str, traced: int, results: Mapping[int, bool | None], ask: Ask
) -> AxisBound | None:
    """Return the bound that the results at some sizes show; None where all are right."""
    right = sorted(size for size, good in results.items() if good)
    wrong = sorted(size for size, good in results.items() if good is False)
    if not wrong:
        return None
    common = math.gcd(*right)
    if common > 1 and all(size % common for size in wrong):
        further = [common * times for times in FURTHER if common * times not in results]
        if all(ask(axis, size) is not False for size in further):
            return AxisBound(min=common, multiple=common)
    above = [size for size in wrong if size > traced]
    below = [size for size in wrong if size < traced]
    least, most = 1, None
    if above:
        most = _bisect(axis, max(s for s in right if s < above[0]), above[0], ask)
    if below:
        least = _bisect(axis, min(s for s in right if s > below[-1]), below[-1], ask)
    if all(size >= least and (most is None or size <= most) for size in right):
        return AxisBound(min=least, max=most)
    raise UnsupportedError(
        f"the graph is right where the axis {axis} is of size {', '.join(map(str, right))}, and "
        f"wrong where it is {', '.join(map(str, wrong))}"
    )


def _bisect(axis: str, right: int, wrong: int, ask: Ask) -> int:
    """Return the size next to the wrong side at which the graph is still right. A size that the
    source does not take counts as wrong."""
    while abs(wrong - right) > 1:
        middle = (right + wrong) // 2
        if ask(axis, middle):
            right = middle
        else:
            wrong = middle
    return right
