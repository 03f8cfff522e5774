"""The dense search over a model's true domain, which tells what is a fault.

For reference r (the source framework) and answer a of one row of an output, with S the standard
deviation of r over the whole domain and M its largest magnitude, both over finite entries that are
no mask constants (|r| at most 10³, or at most 10⁴ × the median of |r|):

* the row is off by the tolerance t where max|a - r| > t.max_rel × M, or where
  mean((a - r)²) / (2 S²) > 1 - t.cosine, which is 1 - cosine of what has no offset;
* a NaN or infinity where the reference has none, another shape, and a call that fails are off;
* integers, booleans and texts must be equal.

A fault counts where at least one row in a hundred is off by ten times the tolerance. The
tolerances are the defaults of the day on which the benchmark was written, whatever they are now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from .domains import Call, Feed

SHARE = 0.01  # of rows that are off
TIMES = 10.0  # the tolerance that a fault exceeds
# A mask's constant is beyond both: of probabilities nearly all are next to nothing, and the median
# alone would take the others for masks.
MASK_RATIO = 1e4  # times the median magnitude
MASK_LEAST = 1e3

Answer = Mapping[str, np.ndarray]
Run = Callable[[Feed], Answer]


class Allowed(NamedTuple):
    """What an artifact may be off by.

    Attributes:
        cosine: The least cosine.
        max_rel: The largest error over the largest magnitude; None is any.
    """

    cosine: float
    max_rel: float | None


ALLOWED = {"fp32": Allowed(0.9999, 1e-3), "int8": Allowed(0.98, None)}


class Scale(NamedTuple):
    """The size of an output over the whole domain: its spread, its largest magnitude, and the
    magnitude from which on an entry is a mask's constant."""

    spread: float
    largest: float
    mask: float


class Truth(NamedTuple):
    """What the source framework answers on the true domain.

    Attributes:
        calls: The domain.
        answers: The source's answer to each call.
        scales: The size of each floating output.
    """

    calls: Sequence[Call]
    answers: Sequence[Answer]
    scales: Mapping[str, Scale]


class Search(NamedTuple):
    """What a dense search came to.

    Attributes:
        rows: Rows that were looked at.
        off: How many were off.
        by_regime: Of each regime, the share of rows that were off.
        ran: At least one call was answered.
        marks: Of each call, which of its rows were off.
    """

    rows: int
    off: int
    by_regime: Mapping[str, float]
    ran: bool
    marks: Sequence[np.ndarray]


def learn(calls: Sequence[Call], run: Run) -> Truth:
    """Ask the source framework about the whole domain; calls that it refuses are left out."""
    answered: list[Call] = []
    answers: list[Answer] = []
    problem: Exception | None = None
    for call in calls:
        try:
            answers.append(run(call.feed))
        except Exception as refused:
            problem = refused
            continue
        answered.append(call)
    if not answered:
        raise RuntimeError(f"the source answers nothing of its domain: {problem}") from problem
    scales = {}
    for name in answers[0]:
        if answers[0][name].dtype.kind == "f":
            scales[name] = _measure([answer[name] for answer in answers])
    return Truth(answered, answers, scales)


def narrow(truth: Truth, shapes: Mapping[str, Sequence[object]]) -> Truth:
    """Leave out the calls that an artifact refuses by the sizes that it declares for its inputs."""
    pairs = []
    for call, answer in zip(truth.calls, truth.answers, strict=True):
        if all(_fits(call.feed[name].shape, shape) for name, shape in shapes.items()):
            pairs.append((call, answer))
    return Truth([call for call, _ in pairs], [answer for _, answer in pairs], truth.scales)


def _fits(shape: Sequence[int], declared: Sequence[object]) -> bool:
    if len(shape) != len(declared):
        return False
    return all(
        not isinstance(size, int) or size == own for own, size in zip(shape, declared, strict=True)
    )


def _measure(arrays: Sequence[np.ndarray]) -> Scale:
    flat = np.concatenate([array.astype(np.float64).ravel() for array in arrays])
    flat = flat[np.isfinite(flat)]
    if not flat.size:
        return Scale(0.0, 0.0, np.inf)
    middle = float(np.median(np.abs(flat)))
    mask = max(MASK_RATIO * middle, MASK_LEAST) if middle else np.inf
    shown = flat[np.abs(flat) <= mask]
    return Scale(float(shown.std()), float(np.abs(shown).max()), mask)


def search(
    truth: Truth,
    run: Run,
    allowed: Allowed,
    *,
    times: float = TIMES,
    stop: bool = False,
    known: Sequence[np.ndarray] | None = None,
) -> Search:
    """Hold ``run`` to the truth, call by call.

    With ``stop`` the search ends as soon as enough rows are off for a fault. Rows that are marked
    in ``known``, which are off without any fault, do not count.
    """
    total = sum(count_rows(call.feed) for call in truth.calls)
    rows = off = 0
    seen: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    ran = False
    marks = []
    for index, (call, reference) in enumerate(zip(truth.calls, truth.answers, strict=True)):
        count = count_rows(call.feed)
        try:
            answer: Answer | None = run(call.feed)
            ran = True
        except Exception:  # whatever an engine raises
            answer = None
        bad = np.ones(count, bool)
        if answer is not None:
            bad = judge_rows(reference, answer, truth.scales, allowed, times, count)
        if known is not None:
            bad &= ~known[index]
        marks.append(bad)
        rows, off = rows + count, off + int(bad.sum())
        seen[call.regime] += count
        wrong[call.regime] += int(bad.sum())
        if stop and ran and off >= max(1.0, SHARE * total):
            break
    shares = {regime: wrong[regime] / seen[regime] for regime in seen}
    return Search(rows, off, shares, ran, marks)


def is_fault(found: Search) -> bool:
    """Tell whether at least one row in a hundred was off, of a graph that runs at all."""
    return found.ran and found.off >= max(1.0, SHARE * found.rows)


def count_rows(feed: Feed) -> int:
    """Return the size of the first axis of a feed's first array."""
    first = next(iter(feed.values()))
    return first.shape[0] if first.ndim else 1


def judge_rows(
    reference: Answer,
    answer: Answer,
    scales: Mapping[str, Scale],
    allowed: Allowed,
    times: float,
    count: int,
) -> np.ndarray:
    """Return of each of ``count`` rows whether it is off in any output. Of an output whose first
    axis is not the rows', all rows are off where one entry is."""
    bad = np.zeros(count, bool)
    for name, right in reference.items():
        given = answer.get(name)
        if given is None or given.shape != right.shape:
            bad[:] = True
            continue
        if right.ndim == 0 or right.shape[0] != count:
            right, given = right.reshape(1, -1), given.reshape(1, -1)
        else:
            right, given = right.reshape(count, -1), given.reshape(count, -1)
        if name in scales and given.dtype.kind == "f":
            bad |= _judge_floats(right, given, scales[name], allowed, times)
        else:
            bad |= (right != given).any(1)
    return bad


def _judge_floats(
    right: np.ndarray, given: np.ndarray, scale: Scale, allowed: Allowed, times: float
) -> np.ndarray:
    r, a = right.astype(np.float64), given.astype(np.float64)
    answered = np.isfinite(r)
    lost = answered & ~np.isfinite(a)
    constant = answered & (np.abs(np.where(answered, r, 0)) > scale.mask)
    shown = answered & ~constant & ~lost
    difference = np.abs(np.where(answered & ~lost, a - r, 0.0))
    off = lost.any(1)
    off |= (constant & (difference > 0.01 * np.abs(np.where(answered, r, 0)))).any(1)
    difference = np.where(shown, difference, 0.0)
    if allowed.max_rel is not None:
        off |= difference.max(1, initial=0.0) > times * allowed.max_rel * scale.largest
    if scale.spread:
        mean = np.square(difference).sum(1) / np.maximum(shown.sum(1), 1)
        off |= mean / (2 * scale.spread**2) > times * (1 - allowed.cosine)
    return off
